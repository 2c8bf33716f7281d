//! Restoring over what is there, and again over the result.

use podkeep_engine::host::Existing;

use super::Bench;
use crate::{mktree, oracle};

/// One name of three is deleted between two restores: again one inode for all.
#[test]
fn f_13_hardlinks_after_a_name_was_removed() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    mktree::links(&fd).unwrap();
    bench.round_trip(&path);
    let to = path.with_extension("restored");
    for gone in ["a/x", "c/d/z", "b/big"] {
        for existing in [Existing::Merge, Existing::Replace] {
            std::fs::remove_file(to.join(gone)).unwrap();
            let (_, findings) = bench.restore(&path, b"", &to, existing).unwrap();
            assert_eq!(findings, []);
            oracle::assert_same(&path, &to, &oracle::Options::default());
        }
    }
}

#[test]
fn f_10_a_sparse_file_over_a_full_one() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    let file = mktree::file(&fd, b"file", b"").unwrap();
    rustix::fs::ftruncate(&file, 16 << 20).unwrap();
    mktree::write_at(&file, 0, &mktree::noise(1, 4 << 20)).unwrap();
    mktree::write_at(&file, 12 << 20, &mktree::noise(2, 4 << 20)).unwrap();
    mktree::set_mtime(&file, 1000, 0).unwrap();
    bench.back_up(&path);
    for (index, size) in [16 << 20, 20 << 20, 1].into_iter().enumerate() {
        let to = bench.scratch.join(&format!("to-{index}"));
        std::fs::create_dir(&to).unwrap();
        std::fs::write(to.join("file"), vec![0xaa; size]).unwrap();
        mktree::set_mtime(&super::open(&to.join("file")), 1000, 0).unwrap();
        bench.restore(&path, b"", &to, Existing::Merge).unwrap();
        oracle::assert_same(&path, &to, &oracle::Options::default());
    }
}

/// A file that came in several windows lost what the first of them had taken over from an old
/// version of it: the second made its temporary file anew, often with the same inode number.
#[test]
fn e_34_a_large_file_is_merged_over_old_versions_of_itself() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    let content = mktree::noise(1, 60 << 20);
    drop(mktree::file(&fd, b"file", &content).unwrap());
    bench.back_up(&path);
    let to = bench.scratch.join("to");
    std::fs::create_dir(&to).unwrap();
    // Which of the windows, of 24 MiB each, finds nothing that it can take over.
    for changed in [&[][..], &[0], &[1], &[2], &[0, 2], &[1, 2]] {
        let mut old = content.clone();
        for window in changed {
            let start: usize = window * (24 << 20);
            let end = (start + (24 << 20)).min(old.len());
            old[start..end].fill(0xaa);
        }
        std::fs::write(to.join("file"), old).unwrap();
        let (_, findings) = bench.restore(&path, b"", &to, Existing::Merge).unwrap();
        assert_eq!(findings, [], "{changed:?}");
        oracle::assert_same(&path, &to, &oracle::Options::default());
    }
}

/// Restored again over the result, by any way, nothing changes.
#[test]
fn f_25_read_only_directories_twice() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    let below = mktree::directory(&fd, b"read-only").unwrap();
    let file = mktree::file(&below, b"file", b"1").unwrap();
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o444)).unwrap();
    rustix::fs::fchmod(&below, rustix::fs::Mode::from_raw_mode(0o555)).unwrap();
    bench.round_trip(&path);
    let to = path.with_extension("restored");
    for existing in [Existing::Merge, Existing::Replace, Existing::Merge] {
        let (_, findings) = bench.restore(&path, b"", &to, existing).unwrap();
        assert_eq!(findings, []);
        oracle::assert_same(&path, &to, &oracle::Options::default());
    }
}

/// The root directory's own attributes, of a tree with entries and of an empty one.
#[test]
fn v_01_the_root_itself() {
    let bench = Bench::new();
    for name in ["filled", "empty"] {
        let (path, fd) = bench.directory(name);
        if name == "filled" {
            mktree::file(&fd, b"file", b"1").unwrap();
        }
        let ids = (
            rustix::thread::Uid::from_raw(999),
            rustix::thread::Gid::from_raw(999),
        );
        rustix::fs::fchown(&fd, Some(ids.0), Some(ids.1)).unwrap();
        rustix::fs::fchmod(&fd, rustix::fs::Mode::from_raw_mode(0o2700)).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&fd, "user.root", b"value", flags).unwrap();
        mktree::set_mtime(&fd, 1_500_000_000, 123_456_789).unwrap();
        bench.round_trip(&path);
    }
}

/// A single file goes back among its neighbours, which stay; twice.
#[test]
fn e_23_one_file_alone() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    let below = mktree::directory(&fd, b"a").unwrap();
    mktree::file(&below, b"data", b"of the snapshot").unwrap();
    bench.back_up(&path);
    let to = bench.scratch.join("to");
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("other"), b"mine").unwrap();
    for existing in [Existing::Merge, Existing::Replace] {
        let (_, findings) = bench.restore(&path, b"a/data", &to, existing).unwrap();
        assert_eq!(findings, []);
        assert_eq!(std::fs::read(to.join("data")).unwrap(), b"of the snapshot");
        assert_eq!(std::fs::read(to.join("other")).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(&to).unwrap().count(), 2);
    }
}
