//! Artifacts of a store that is made by hand: saved, and brought into another one.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use podkeep_engine::host::Source;
use podkeep_engine::monitor::{Collect, Finding, FindingKind};
use podkeep_engine::operations::{
    BackupOptions, RestoreOptions, RestoreReport, Selection, SnapSpec, SnapWhich, backup, restore,
    snapshots,
};
use podkeep_engine::podman::StorageDriver;
use podkeep_engine::repo::{Credential, InitOptions, OpenOptions, Repository};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::id::{HostId, hex};
use serde_json::{Value, json};

use super::noise;
use crate::fake_store::{FakeStore, sha256};

fn repository() -> Repository {
    let store = Arc::new(MemoryStore::new());
    let options = InitOptions {
        like: None,
        reserve_bytes: 4096,
        label: "test".into(),
    };
    Repository::init(&*store, b"secret", &options).unwrap();
    let options = OpenOptions {
        cache: None,
        host: HostId([1; 16]),
        host_name: "host1".into(),
    };
    let passphrase = Credential::Passphrase(b"secret".to_vec().into());
    Repository::open(store, &passphrase, &options).unwrap()
}

fn folder(store: &FakeStore) -> PathBuf {
    store.graph_root().join("artifacts")
}

/// As `podman artifact add` leaves one. Returns the digest of its manifest.
fn add(store: &FakeStore, name: Option<&str>, blobs: &[Vec<u8>]) -> String {
    let place = folder(store).join("blobs/sha256");
    fs::create_dir_all(&place).unwrap();
    fs::write(
        folder(store).join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let put = |bytes: &[u8]| {
        let digest = hex(&sha256(bytes));
        fs::write(place.join(&digest), bytes).unwrap();
        json!({"mediaType": "x/y", "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let layers: Vec<Value> = blobs.iter().map(|blob| put(blob)).collect();
    let manifest = json!({"schemaVersion": 2, "config": put(b"{}"), "layers": layers});
    let mut descriptor = put(manifest.to_string().as_bytes());
    if let Some(name) = name {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name, "kept": "x"});
    }
    let path = folder(store).join("index.json");
    let mut index: Value = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).unwrap(),
        Err(_) => json!({"schemaVersion": 2, "manifests": []}),
    };
    let digest = descriptor["digest"].as_str().unwrap().to_owned();
    index["manifests"].as_array_mut().unwrap().push(descriptor);
    fs::write(path, index.to_string()).unwrap();
    digest
}

fn store() -> FakeStore {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    store.write_lists();
    store
}

fn save(repo: &Repository, store: &FakeStore) -> (Vec<String>, Vec<Finding>) {
    let options = BackupOptions {
        selection: Selection {
            all: true,
            selectors: Vec::new(),
        },
        threads: 2,
        ..BackupOptions::default()
    };
    let monitor = Collect::default();
    let report = backup::backup(repo, &store.host(), &options, &monitor).unwrap();
    let saved = report.items.iter().filter(|item| item.snapshot.is_some());
    let saved = saved.map(|item| item.item.to_string()).collect();
    (saved, monitor.findings.into_inner().unwrap())
}

fn bring(repo: &Repository, store: &FakeStore, retag: bool) -> (RestoreReport, Vec<Finding>) {
    let monitor = Collect::default();
    // By its id: `latest` passes over a run that lacks something.
    let runs = snapshots::snapshots(repo, None, &monitor).unwrap();
    let options = RestoreOptions {
        all: true,
        retag,
        threads: 2,
        ..RestoreOptions::of(SnapSpec {
            which: SnapWhich::Prefix(runs.last().unwrap().run.to_hex()),
            host: None,
        })
    };
    let report = restore::restore(repo, &store.host(), &options, &monitor).unwrap();
    (report, monitor.findings.into_inner().unwrap())
}

/// Blobs by name, and the entries of the index.
fn held(store: &FakeStore) -> (Vec<(String, Vec<u8>)>, Vec<Value>) {
    let place = folder(store).join("blobs/sha256");
    let files = fs::read_dir(place).unwrap().map(|file| {
        let file = file.unwrap();
        (
            file.file_name().into_string().unwrap(),
            fs::read(file.path()).unwrap(),
        )
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    let index = fs::read(folder(store).join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let mut entries = index["manifests"].as_array().unwrap().clone();
    entries.sort_by_key(Value::to_string);
    (files, entries)
}

#[test]
fn artifacts_come_back_blob_by_blob() {
    let source = store();
    let shared = noise(1, 400_000);
    add(
        &source,
        Some("localhost/one:1"),
        &[shared.clone(), noise(2, 700)],
    );
    add(&source, Some("quay.io/x/two:latest"), &[shared]);
    let unnamed = add(&source, None, &[Vec::new()]);
    let repo = repository();
    let (saved, findings) = save(&repo, &source);
    assert_eq!(
        saved,
        [
            "artifact:localhost/one:1".to_owned(),
            "artifact:quay.io/x/two:latest".to_owned(),
            format!("artifact:{unnamed}"),
        ]
    );
    assert!(findings.is_empty(), "{findings:?}");
    let target = store();
    let (report, findings) = bring(&repo, &target, false);
    assert_eq!((report.items, report.warnings), (3, 0), "{findings:?}");
    assert!(held(&target) == held(&source));
    // Again: nothing is doubled.
    bring(&repo, &target, false);
    assert!(held(&target) == held(&source));
    assert_eq!(
        fs::read_dir(target.scratch.join("state/artifacts"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_name_of_another_artifact_moves_only_when_it_is_told_to() {
    let (source, target) = (store(), store());
    let ours = add(&source, Some("localhost/one:1"), &[noise(1, 900)]);
    let theirs = add(&target, Some("localhost/one:1"), &[noise(2, 900)]);
    add(&target, Some("localhost/other:1"), &[noise(3, 900)]);
    let repo = repository();
    save(&repo, &source);
    let owner = |store: &FakeStore| {
        let (_, entries) = held(store);
        assert_eq!(entries.len(), 2);
        let named = |entry: &&Value| {
            entry["annotations"]["org.opencontainers.image.ref.name"] == "localhost/one:1"
        };
        let entry = entries.iter().find(named).unwrap();
        entry["digest"].as_str().unwrap().to_owned()
    };
    let (_, findings) = bring(&repo, &target, false);
    assert_eq!(findings[0].kind, FindingKind::NotRestored);
    assert!(findings[0].message.contains(&theirs), "{findings:?}");
    assert_eq!(owner(&target), theirs);
    let (_, findings) = bring(&repo, &target, true);
    assert_eq!(findings[0].kind, FindingKind::Note);
    assert_eq!(owner(&target), ours);
}

#[test]
fn a_damaged_blob_costs_its_artifact_and_no_other() {
    let source = store();
    let blob = noise(1, 5000);
    add(
        &source,
        Some("localhost/bad:1"),
        std::slice::from_ref(&blob),
    );
    add(&source, Some("localhost/good:1"), &[noise(2, 5000)]);
    let mut bad = blob.clone();
    bad[77] ^= 1;
    let file = folder(&source)
        .join("blobs/sha256")
        .join(hex(&sha256(&blob)));
    fs::write(&file, bad).unwrap();
    let repo = repository();
    let (saved, findings) = save(&repo, &source);
    assert_eq!(saved, ["artifact:localhost/good:1"]);
    assert_eq!(findings[0].object, "artifact:localhost/bad:1");
    assert!(
        findings[0].message.contains(&hex(&sha256(&blob))),
        "{findings:?}"
    );
    // In the store that it comes back to, what is not what its name says is replaced.
    let target = store();
    add(&target, Some("localhost/good:1"), &[noise(2, 5000)]);
    let place = folder(&target).join("blobs/sha256");
    fs::write(place.join(hex(&sha256(&noise(2, 5000)))), noise(3, 5000)).unwrap();
    bring(&repo, &target, false);
    assert_eq!(
        fs::read(place.join(hex(&sha256(&noise(2, 5000))))).unwrap(),
        noise(2, 5000)
    );
    // An index that cannot be read is told.
    fs::write(folder(&source).join("index.json"), "[").unwrap();
    let inventory = Source::inventory(&source.host()).unwrap();
    assert!(inventory.artifacts.is_empty());
    assert_eq!(inventory.image_findings[0].object, "artifacts");
}
