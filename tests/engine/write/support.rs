//! The support files prove themselves: the generator builds what it says, the oracle sees it.

use crate::{mktree, oracle};

#[test]
fn the_same_tree_twice_has_no_difference() {
    let scratch = mktree::Scratch::new();
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    let left = mktree::build(&a).unwrap();
    assert_eq!(left, mktree::build(&b).unwrap());
    let record = oracle::read(&a).unwrap();
    let wanted = |path: &[u8]| {
        record
            .get(path)
            .unwrap_or_else(|| panic!("{path:?} is missing"))
    };
    assert_eq!(wanted(b"nodes/fifo").mode, 0o2711);
    assert_eq!(
        wanted(b"links/b/y").same_as.as_deref(),
        Some(&b"links/a/x"[..])
    );
    assert_eq!(
        wanted(b"links/b/fifo").same_as.as_deref(),
        Some(&b"links/a/fifo"[..])
    );
    assert!(record.keys().any(|path| path.len() > 4096));
    // Directories are made at different moments; only those whose time was set are equal.
    let options = oracle::Options {
        mtime: false,
        ..oracle::Options::default()
    };
    oracle::assert_same(&a, &b, &options);
}

/// What a restore could get wrong, done to a tree on purpose: each must show, under its name.
#[test]
fn the_oracle_sees_each_kind_of_difference() {
    use rustix::fs::{AtFlags, IFlags, Mode, XattrFlags};
    type Change = fn(&std::os::fd::OwnedFd, &std::os::fd::OwnedFd);
    let changes: [(&str, Change); 10] = [
        ("mode", |_, file| {
            rustix::fs::fchmod(file, Mode::from_raw_mode(0o4644)).unwrap();
        }),
        ("owner", |_, file| {
            let gid = rustix::thread::Gid::from_raw(77);
            rustix::fs::fchown(file, None, Some(gid)).unwrap();
        }),
        ("content", |_, file| {
            mktree::write_at(file, 8191, b"!").unwrap()
        }),
        ("size", |_, file| rustix::fs::ftruncate(file, 8193).unwrap()),
        ("mtime", |_, file| mktree::set_mtime(file, 5, 1).unwrap()),
        ("xattr user.a", |_, file| {
            rustix::fs::fsetxattr(file, "user.a", b"2", XattrFlags::empty()).unwrap();
        }),
        ("inode flags", |_, file| {
            rustix::fs::ioctl_setflags(file, IFlags::NODUMP).unwrap();
        }),
        ("link group", |top, _| {
            rustix::fs::unlinkat(top, "second", AtFlags::empty()).unwrap();
            rustix::fs::renameat(top, "copy", top, "second").unwrap();
        }),
        ("data map", |_, file| {
            mktree::write_at(file, 4096, &[0; 4096]).unwrap();
        }),
        ("exists", |top, _| {
            mktree::directory(top, b"more").unwrap();
        }),
    ];
    for (what, change) in changes {
        let scratch = mktree::Scratch::new();
        for name in ["a", "b"] {
            std::fs::create_dir(scratch.join(name)).unwrap();
            let top = rustix::fs::open(
                scratch.join(name),
                rustix::fs::OFlags::RDONLY,
                Mode::empty(),
            )
            .unwrap();
            let file = mktree::file(&top, b"file", &mktree::noise(1, 4096)).unwrap();
            rustix::fs::ftruncate(&file, 8192).unwrap();
            rustix::fs::fsetxattr(&file, "user.a", b"1", XattrFlags::empty()).unwrap();
            rustix::fs::linkat(&top, "file", &top, "second", AtFlags::empty()).unwrap();
            let copy = mktree::file(&top, b"copy", &mktree::noise(1, 4096)).unwrap();
            rustix::fs::ftruncate(&copy, 8192).unwrap();
            if name == "b" {
                change(&top, &file);
            }
            for fd in [&file, &copy] {
                if !(name == "b" && what == "mtime") {
                    mktree::set_mtime(fd, 9, 9).unwrap();
                }
            }
            mktree::set_mtime(&top, 9, 9).unwrap();
        }
        let options = oracle::Options::default();
        let found = oracle::compare(&scratch.join("a"), &scratch.join("b"), &options).unwrap();
        assert!(
            found.iter().any(|difference| difference.what == what),
            "{what} is not among {found:?}"
        );
    }
}
