//! Places that are too small: refused before anything is changed, and never where it would fit.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use podkeep_engine::host::Existing;
use podkeep_engine::monitor::{Collect, Finding, Monitor, Progress};
use podkeep_engine::operations::{
    ItemPath, OperationError, OperationResult, RestoreOptions, RestoreReport, SnapSpec, SnapWhich,
    restore,
};

use super::{Bench, selector};
use crate::mount::Mounted;
use crate::{mktree, oracle};

fn options(of: &Path, below: &[u8], to: &Path, existing: Existing) -> RestoreOptions {
    RestoreOptions {
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
    }
}

/// Files of 1 MiB each in a directory, and one in another.
fn filled(bench: &Bench, files: u64) -> std::path::PathBuf {
    let (path, fd) = bench.directory("tree");
    let below = mktree::directory(&fd, b"below").unwrap();
    for number in 0..files - 1 {
        let name = number.to_string();
        mktree::file(&below, name.as_bytes(), &mktree::noise(number, 1 << 20)).unwrap();
    }
    let linked = mktree::file(&fd, b"one", &mktree::noise(files, 1 << 20)).unwrap();
    drop(linked);
    std::fs::hard_link(path.join("one"), path.join("again")).unwrap();
    bench.back_up(&path);
    path
}

fn refused(outcome: OperationResult<(RestoreReport, Vec<Finding>)>, place: &Path, bytes: u64) {
    let Err(OperationError::NoRoom { needs }) = outcome else {
        panic!("{outcome:?}");
    };
    let [need] = &needs[..] else {
        panic!("{needs:?}");
    };
    assert_eq!((need.place.as_path(), need.bytes), (place, bytes));
    assert!(need.bytes_free < bytes, "{need:?}");
}

#[test]
fn e_35_what_does_not_fit_is_refused_before_anything_is_changed() {
    let bench = Bench::new();
    let path = filled(&bench, 6);
    let small = Mounted::memory("tmpfs", "size=4m");
    let to = small.path().join("a/b");
    refused(
        bench.restore(&path, b"", &to, Existing::Refuse),
        small.path(),
        6 << 20,
    );
    let below = bench.restore(&path, b"below", &to, Existing::Refuse);
    refused(below, small.path(), 5 << 20);
    let mut dry = options(&path, b"", &to, Existing::Refuse);
    dry.dry_run = true;
    let report = restore::restore(&bench.repo, &bench.host, &dry, &Collect::default()).unwrap();
    let [need] = &report.needs[..] else {
        panic!("{:?}", report.needs);
    };
    assert!(!need.fits() && need.bytes == 6 << 20, "{need:?}");
    assert_eq!(std::fs::read_dir(small.path()).unwrap().count(), 0);
    // With whatever else is in the way, it is told at once.
    std::fs::create_dir_all(&to).unwrap();
    std::fs::write(to.join("one"), b"of somebody").unwrap();
    let both = bench.restore(&path, b"", &to, Existing::Refuse);
    let Err(OperationError::Conflicts { conflicts }) = both else {
        panic!("{both:?}");
    };
    assert!(conflicts.len() == 2, "{conflicts:?}");
    assert!(conflicts[1].contains("make room there"), "{conflicts:?}");
    std::fs::remove_dir_all(small.path().join("a")).unwrap();
    // A part of it fits.
    bench.restore(&path, b"one", &to, Existing::Refuse).unwrap();
    std::fs::remove_dir_all(small.path().join("a")).unwrap();
    let bigger = c"size=11m";
    rustix::mount::mount_remount(small.path(), rustix::mount::MountFlags::empty(), bigger).unwrap();
    bench.restore(&path, b"", &to, Existing::Refuse).unwrap();
    oracle::assert_same(&path, &to, &oracle::Options::default());
    // What is there stays until all is there.
    let over = bench.restore(&path, b"", &to, Existing::Replace);
    refused(over, &to, 6 << 20);
}

/// What root may use beyond others counts: 5 % of an ext4 are reserved.
#[test]
fn e_35_a_disk_that_is_full_for_others_is_not_full_for_root() {
    let bench = Bench::new();
    let path = filled(&bench, 20);
    let disk = Mounted::image("ext4", 64, &["-m", "50"]);
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    let to = disk.path().join("restored");
    let others = free.f_bavail * free.f_frsize;
    // So much that others have 10 MiB left.
    let ballast = std::fs::File::create(disk.path().join("ballast")).unwrap();
    rustix::fs::fallocate(
        &ballast,
        rustix::fs::FallocateFlags::empty(),
        0,
        others - (10 << 20),
    )
    .unwrap();
    bench.restore(&path, b"", &to, Existing::Refuse).unwrap();
    oracle::assert_same(&path, &to, &oracle::Options::default());
}

#[test]
fn f_08_a_sparse_tebibyte_is_no_reason_to_refuse() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    let file = mktree::file(&fd, b"sparse", b"begin").unwrap();
    rustix::fs::ftruncate(&file, 1 << 40).unwrap();
    mktree::write_at(&file, 1 << 39, &mktree::noise(1, 1 << 20)).unwrap();
    drop(file);
    bench.back_up(&path);
    let small = Mounted::memory("tmpfs", "size=4m");
    for below in [&b""[..], b"sparse"] {
        let to = small.path().join("to");
        let (report, _) = bench.restore(&path, below, &to, Existing::Refuse).unwrap();
        let [need] = &report.needs[..] else {
            panic!("{:?}", report.needs);
        };
        assert!((1 << 20..2 << 20).contains(&need.bytes), "{need:?}");
        let blocks = rustix::fs::stat(to.join("sparse")).unwrap().st_blocks;
        assert!(blocks * 512 < 2 << 20, "{blocks}");
        std::fs::remove_dir_all(to).unwrap();
    }
}

/// Interrupts a restore once so many bytes were fetched.
struct Until {
    bytes_left: AtomicU64,
}

impl Monitor for Until {
    fn finding(&self, finding: Finding) {
        panic!("{finding:?}");
    }

    fn progress(&self, progress: Progress<'_>) {
        if let Progress::Advance { bytes, .. } = progress {
            let left = self.bytes_left.load(Ordering::SeqCst);
            self.bytes_left
                .store(left.saturating_sub(bytes), Ordering::SeqCst);
        }
    }

    fn interrupted(&self) -> bool {
        self.bytes_left.load(Ordering::SeqCst) == 0
    }
}

#[test]
fn e_35_what_is_there_already_needs_no_room_again() {
    let bench = Bench::new();
    let path = filled(&bench, 60);
    let disk = Mounted::memory("tmpfs", "size=90m");
    let to = disk.path().join("to");
    let first = options(&path, b"", &to, Existing::Refuse);
    let monitor = Until {
        bytes_left: AtomicU64::new(40 << 20),
    };
    let outcome = restore::restore(&bench.repo, &bench.host, &first, &monitor);
    assert!(matches!(outcome, Err(OperationError::Interrupted)));
    let fs = rustix::fs::statvfs(disk.path()).unwrap();
    let free = fs.f_bavail * fs.f_frsize;
    assert!(free < 60 << 20, "nothing is staged: {free} bytes are free");
    bench.restore(&path, b"", &to, Existing::Refuse).unwrap();
    oracle::assert_same(&path, &to, &oracle::Options::default());
    // A merge replaces some files at a time.
    bench.restore(&path, b"", &to, Existing::Merge).unwrap();
    oracle::assert_same(&path, &to, &oracle::Options::default());
}
