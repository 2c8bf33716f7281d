//! Back up a tree, restore it, compare: the field cases of file systems through the whole engine,
//! on the machine's own disk and on file systems that are made for it.

mod existing;
mod live;
mod names;
mod space;
mod systems;
mod types;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_engine::host::Existing;
use podkeep_engine::host::local::LocalHost;
use podkeep_engine::monitor::{Collect, Finding};
use podkeep_engine::operations::{
    BackupOptions, BackupReport, ItemPath, OperationResult, RestoreOptions, RestoreReport,
    Selection, Selector, SnapSpec, SnapWhich, backup, restore,
};
use podkeep_engine::repo::{Credential, InitOptions, OpenOptions, Repository};
use podkeep_engine::store::ObjectStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::id::HostId;
use podkeep_format::item::{Item, ItemKind};

use crate::{mktree, oracle};

/// A repository in memory, a host, and a directory for trees.
struct Bench {
    repo: Repository,
    host: LocalHost,
    scratch: mktree::Scratch,
}

impl Bench {
    fn new() -> Self {
        Self::on(mktree::Scratch::new())
    }

    fn on(scratch: mktree::Scratch) -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        let options = InitOptions {
            like: None,
            reserve_bytes: 4096,
            label: "test".into(),
        };
        Repository::init(&*store, b"passphrase", &options).unwrap();
        let options = OpenOptions {
            cache: None,
            host: HostId([1; 16]),
            host_name: "host".into(),
        };
        let credential = Credential::Passphrase(b"passphrase".to_vec().into());
        let repo = Repository::open(store, &credential, &options).unwrap();
        let host = LocalHost::new(scratch.join("state"));
        Self {
            repo,
            host,
            scratch,
        }
    }

    /// A new directory to fill.
    fn directory(&self, name: &str) -> (PathBuf, OwnedFd) {
        let path = self.scratch.join(name);
        std::fs::create_dir(&path).unwrap();
        let fd = open(&path);
        (path, fd)
    }

    fn back_up(&self, path: &Path) -> BackupReport {
        let options = BackupOptions {
            selection: Selection {
                all: false,
                selectors: vec![selector(path)],
            },
            threads: 2,
            ..BackupOptions::default()
        };
        let monitor = Collect::default();
        let report = backup::backup(&self.repo, &self.host, &options, &monitor).unwrap();
        assert_eq!(*monitor.findings.lock().unwrap(), []);
        assert!(report.complete);
        report
    }

    fn restore(
        &self,
        of: &Path,
        below: &[u8],
        to: &Path,
        existing: Existing,
    ) -> OperationResult<(RestoreReport, Vec<Finding>)> {
        let options = RestoreOptions {
            items: vec![ItemPath {
                selector: selector(of),
                path: below.to_vec(),
            }],
            to_dir: Some(to.to_owned()),
            existing,
            threads: 2,
            ..RestoreOptions::of(SnapSpec {
                which: SnapWhich::Latest(0),
                host: None,
            })
        };
        let monitor = Collect::default();
        let report = restore::restore(&self.repo, &self.host, &options, &monitor)?;
        Ok((report, monitor.findings.into_inner().unwrap()))
    }

    /// Backs up, restores to another directory, and demands no difference at all.
    fn round_trip(&self, path: &Path) {
        self.back_up(path);
        let to = path.with_extension("restored");
        let (_, findings) = self.restore(path, b"", &to, Existing::Refuse).unwrap();
        assert_eq!(findings, []);
        oracle::assert_same(path, &to, &oracle::Options::default());
    }
}

fn selector(path: &Path) -> Selector {
    Selector {
        item: Item::new(ItemKind::Path, path.as_os_str().as_bytes()),
        glob: false,
    }
}

fn open(path: &Path) -> OwnedFd {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap()
}

/// Blocks hold many chunks: a restore that went chunk by chunk would open each of them many times.
#[test]
fn a_restore_opens_each_block_about_once() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    for number in 0..60 {
        let name = format!("{number}");
        mktree::file(&fd, name.as_bytes(), &mktree::noise(number, 1 << 20)).unwrap();
    }
    bench.back_up(&path);
    let to = path.with_extension("restored");
    let (report, _) = bench.restore(&path, b"", &to, Existing::Refuse).unwrap();
    let (decoded, written) = (report.bytes_decoded, report.bytes_written);
    assert_eq!(written, 60 << 20);
    assert!(
        decoded >= written && decoded < written * 5 / 4,
        "{decoded} for {written}"
    );
}

/// Labels are the place's, which has none here; on request they are those that were saved.
#[test]
fn v_19_saved_labels_come_back_only_when_they_are_asked_for() {
    const NAME: &str = "security.selinux";
    let label = b"system_u:object_r:container_file_t:s0:c1,c2\0";
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    drop(mktree::file(&fd, b"file", b"content").unwrap());
    let flags = rustix::fs::XattrFlags::empty();
    for labelled in [path.join("file"), path.clone()] {
        rustix::fs::setxattr(&labelled, NAME, label, flags).unwrap();
    }
    bench.back_up(&path);
    for keep_labels in [false, true] {
        let to = path.with_extension(format!("{keep_labels}"));
        let options = RestoreOptions {
            items: vec![ItemPath {
                selector: selector(&path),
                path: Vec::new(),
            }],
            to_dir: Some(to.clone()),
            keep_labels,
            ..RestoreOptions::of(SnapSpec {
                which: SnapWhich::Latest(0),
                host: None,
            })
        };
        restore::restore(&bench.repo, &bench.host, &options, &Collect::default()).unwrap();
        for made in [to.join("file"), to] {
            let mut value = [0; 100];
            let found = rustix::fs::getxattr(&made, NAME, &mut value[..]);
            let found = found.map(|len| &value[..len]).ok();
            assert_eq!(
                found,
                keep_labels.then_some(&label[..]),
                "{}",
                made.display()
            );
        }
    }
}

/// One part of the hard tree, through the whole engine.
fn part(build: fn(&OwnedFd) -> std::io::Result<mktree::Left>) {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    build(&fd).unwrap();
    bench.round_trip(&path);
}
