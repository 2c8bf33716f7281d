//! The repository over stores in memory: what is stored comes back, whatever breaks.

mod crash;
mod damage;
mod definitions;
mod export;
mod fences;
mod image_files;
mod images;
mod layers;
mod memory_host;
mod model;
mod prune;
mod readers;
mod recipes;
mod remote;
mod round_trip;
mod schedule;
mod short;
pub mod tars;
mod writers;

use std::path::PathBuf;
use std::sync::Arc;

use podkeep_engine::monitor::{Collect, Finding};
use podkeep_engine::operations::{
    BackupOptions, BackupReport, CheckOptions, CheckReport, ItemPath, OperationResult,
    RestoreOptions, RestoreReport, Selection, Selector, SnapSpec, SnapWhich, backup, check,
    restore,
};
use podkeep_engine::repo::{Credential, InitOptions, OpenOptions, RepoResult, Repository};
use podkeep_engine::store::ObjectStore;
use podkeep_format::id::HostId;
use podkeep_format::item::{Item, ItemKind};

use memory_host::{Files, MemoryHost};

const PASSPHRASE: &[u8] = b"correct horse";

fn item(name: &str) -> Item {
    Item::new(ItemKind::Path, name.as_bytes())
}

pub fn init(store: &dyn ObjectStore) {
    let options = InitOptions {
        like: None,
        reserve_bytes: 4096,
        label: "test".into(),
    };
    Repository::init(store, PASSPHRASE, &options).unwrap();
}

fn open_with(
    store: Arc<dyn ObjectStore>,
    credential: &Credential,
    cache: Option<PathBuf>,
    host: u8,
) -> RepoResult<Repository> {
    let options = OpenOptions {
        cache,
        host: HostId([host; 16]),
        host_name: format!("host{host}"),
    };
    Repository::open(store, credential, &options)
}

fn full() -> Credential {
    Credential::Passphrase(PASSPHRASE.to_vec().into())
}

pub fn open(store: Arc<dyn ObjectStore>) -> Repository {
    open_with(store, &full(), None, 1).unwrap()
}

fn selection(items: &[&Item]) -> Selection {
    let selectors = items.iter().map(|item| Selector {
        item: (*item).clone(),
        glob: false,
    });
    Selection {
        all: false,
        selectors: selectors.collect(),
    }
}

fn back_up(repo: &Repository, host: &MemoryHost, items: &[&Item]) -> OperationResult<BackupReport> {
    let options = BackupOptions {
        selection: selection(items),
        threads: 2,
        ..BackupOptions::default()
    };
    backup::backup(repo, host, &options, &Collect::default())
}

/// Restores one item of the latest snapshot; what came back, the report, the findings.
pub fn bring_back(
    repo: &Repository,
    wanted: &Item,
) -> OperationResult<(Files, RestoreReport, Vec<Finding>)> {
    let monitor = Collect::default();
    let (files, report) = bring_back_watched(repo, wanted, &monitor)?;
    Ok((files, report, monitor.findings.into_inner().unwrap()))
}

fn bring_back_watched(
    repo: &Repository,
    wanted: &Item,
    monitor: &Collect,
) -> OperationResult<(Files, RestoreReport)> {
    let host = MemoryHost::default();
    let options = RestoreOptions {
        items: vec![ItemPath {
            selector: Selector {
                item: wanted.clone(),
                glob: false,
            },
            path: Vec::new(),
        }],
        to_dir: Some("/restored".into()),
        threads: 2,
        ..RestoreOptions::of(SnapSpec {
            which: SnapWhich::Latest(0),
            host: None,
        })
    };
    let report = restore::restore(repo, &host, &options, monitor)?;
    Ok((host.take_restored("/restored"), report))
}

pub fn check_all(repo: &Repository) -> OperationResult<(CheckReport, Vec<Finding>)> {
    let options = CheckOptions {
        read_data_percent: Some(100),
        endorse: false,
        threads: 2,
    };
    let monitor = Collect::default();
    let report = check::check(repo, &options, &monitor)?;
    Ok((report, monitor.findings.into_inner().unwrap()))
}

/// A store with the same objects.
fn copy(store: &dyn ObjectStore) -> podkeep_engine::store::memory::MemoryStore {
    let copy = podkeep_engine::store::memory::MemoryStore::new();
    for meta in store.list("").unwrap() {
        let bytes = store.get(&meta.name, u64::MAX).unwrap();
        copy.put_new(&meta.name, &bytes).unwrap();
    }
    copy
}

/// Bytes that look random and are the same in every run.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A small tree with small, large, empty, compressible and zero contents.
fn some_files(seed: u64) -> Files {
    let mut files = Files::new();
    for n in 0..40 {
        files.insert(
            format!("small/{n}.txt"),
            format!("file {n} of {seed}").repeat(200).into_bytes(),
        );
    }
    files.insert("large/noise".into(), noise(seed, 700_000));
    files.insert("large/zeros".into(), vec![0; 1 << 20]);
    files.insert("empty".into(), Vec::new());
    files.insert("inline".into(), b"short".to_vec());
    let mut mixed = noise(seed + 1, 300_000);
    mixed.extend(vec![0; 400_000]);
    mixed.extend(noise(seed + 2, 70_000));
    files.insert("large/mixed".into(), mixed);
    files
}
