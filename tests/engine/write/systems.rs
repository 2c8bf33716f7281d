//! Other file systems: what they can hold comes back on them, what they cannot is said once.

use podkeep_engine::fs::write::{Existing, Swap, open};
use podkeep_engine::fs::{FsErrorKind, WriteStep};
use podkeep_engine::monitor::FindingKind;
use podkeep_format::tree::{Xattr, XattrValue};

use super::drive::{self, Source};
use crate::mount::Mounted;
use crate::{mktree, oracle};

/// A tree made on a file system and restored on the same one, replaced there, and restored onto its
/// root.
fn round_trip(mounted: &Mounted) {
    let (a, b) = (mounted.path().join("a"), mounted.path().join("b"));
    mktree::build(&a).unwrap();
    let source = Source::read(&a);
    for (existing, swap) in [
        (Existing::Refuse, Swap::Exchange),
        (Existing::Replace, Swap::Exchange),
        (Existing::Replace, Swap::InPlace),
    ] {
        let mut spec = drive::spec(&b, existing);
        spec.swap = swap;
        let (_, findings) = source.restore(spec).unwrap();
        assert_eq!(findings, [], "{existing:?} {swap:?}");
        oracle::assert_same(&a, &b, &oracle::Options::default());
    }
    mktree::remove(&a).unwrap();
    mktree::remove(&b).unwrap();
}

#[test]
fn a_hard_tree_comes_back_on_xfs() {
    round_trip(&Mounted::image("xfs", 400, &[]));
}

#[test]
fn a_hard_tree_comes_back_on_btrfs() {
    round_trip(&Mounted::image("btrfs", 300, &[]));
}

#[test]
fn a_hard_tree_comes_back_on_ext4() {
    round_trip(&Mounted::image("ext4", 200, &["-O", "ea_inode"]));
}

#[test]
fn f_23_strange_times_are_exact_on_tmpfs_and_said_once_on_ext4() {
    let source_fs = Mounted::memory("tmpfs", "size=64m");
    round_trip(&source_fs);
    let a = source_fs.path().join("times");
    std::fs::create_dir(&a).unwrap();
    mktree::times(&drive::open_below(&a, b"")).unwrap();
    let scratch = mktree::Scratch::new();
    let b = scratch.join("b");
    let source = Source::read(&a);
    let (_, findings) = source.restore(drive::spec(&b, Existing::Refuse)).unwrap();
    let differences = oracle::compare(&a, &b, &oracle::Options::default()).unwrap();
    if differences.is_empty() {
        assert_eq!(findings, []);
        return;
    }
    assert!(
        differences.iter().all(|d| d.what == "mtime"),
        "{differences:?}"
    );
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, FindingKind::Attribute);
    assert_eq!(findings[0].paths.len(), differences.len());
}

/// ramfs has no extended attributes of users: one finding for each, owner and times are right.
#[test]
fn f_20_attributes_that_the_file_system_refuses_are_counted() {
    let mounted = Mounted::memory("ramfs", "");
    let place = mounted.path().join("place");
    let mut steps = vec![drive::directory(0, 0, b"")];
    for number in 0..500u64 {
        let name = format!("file-{number}");
        let mut entry = drive::entry(name.as_bytes(), drive::inline(b"1"));
        (entry.uid, entry.gid, entry.mode) = (1000, 1001, 0o640);
        for name in [&b"trusted.b"[..], b"user.a"] {
            entry.xattrs.push(Xattr {
                name: name.to_vec(),
                value: XattrValue::Inline(b"1".to_vec()),
            });
        }
        steps.push(WriteStep::File {
            number,
            parent: 0,
            entry: std::sync::Arc::new(entry),
            parts: Vec::new(),
            last: true,
        });
    }
    steps.push(drive::end(0));
    let findings = drive::write(drive::spec(&place, Existing::Refuse), steps).unwrap();
    assert_eq!(findings.len(), 2, "{findings:?}");
    for (finding, name) in findings.iter().zip(["trusted.b", "user.a"]) {
        assert_eq!(finding.kind, FindingKind::Attribute);
        assert!(finding.message.contains(name), "{finding:?}");
        assert!(finding.message.contains("500 entries"), "{finding:?}");
        assert_eq!(finding.paths.len(), 20);
    }
    let record = oracle::read(&place).unwrap();
    let facts = &record[&b"file-499"[..]];
    assert_eq!((facts.uid, facts.gid, facts.mode), (1000, 1001, 0o640));
    assert_eq!(facts.mtime, (1000, 5));
}

/// A full disk is one clear error; what is staged is gone on with when there is more room.
#[test]
fn e_35_a_full_disk_leaves_the_place_alone_and_the_staging_for_later() {
    let mounted = Mounted::memory("tmpfs", "size=4m");
    let scratch = mktree::Scratch::new();
    let a = scratch.join("a");
    std::fs::create_dir(&a).unwrap();
    for index in 0..6 {
        std::fs::write(a.join(format!("{index}")), mktree::noise(index, 1 << 20)).unwrap();
    }
    let source = Source::read(&a);
    let place = mounted.path().join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("mine"), b"old").unwrap();
    let mut spec = drive::spec(&place, Existing::Replace);
    spec.bytes_expected = Some(6 << 20);
    let early = open(spec).map(|_| ()).unwrap_err();
    assert_eq!(early.kind, FsErrorKind::NoSpace);
    assert_eq!(std::fs::read_dir(mounted.path()).unwrap().count(), 1);

    let error = source
        .restore(drive::spec(&place, Existing::Replace))
        .unwrap_err();
    assert_eq!(error.kind, FsErrorKind::NoSpace);
    assert!(error.object.contains("place/"), "{error}");
    assert_eq!(std::fs::read(place.join("mine")).unwrap(), b"old");
    let bigger = c"size=16m";
    rustix::mount::mount_remount(mounted.path(), rustix::mount::MountFlags::empty(), bigger)
        .unwrap();
    let (outcome, _) = source
        .restore(drive::spec(&place, Existing::Replace))
        .unwrap();
    assert!(outcome.bytes_written < 4 << 20, "{outcome:?}");
    oracle::assert_same(&a, &place, &oracle::Options::default());
}

/// The root of a fresh file system has lost+found and is a mount point: entries are exchanged.
#[test]
fn e_34_the_root_of_a_file_system_is_a_place_like_others() {
    let mounted = Mounted::image("ext4", 64, &[]);
    let scratch = mktree::Scratch::new();
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    for root in [&a, &b] {
        std::fs::create_dir(root).unwrap();
        std::fs::write(root.join("file"), root.to_str().unwrap()).unwrap();
        mktree::names(&drive::open_below(root, b"")).unwrap();
    }
    let options = oracle::Options {
        ignored_paths: [b"lost+found".to_vec()].into(),
        ..oracle::Options::default()
    };
    for (source, existing) in [(&a, Existing::Refuse), (&b, Existing::Replace)] {
        let (_, findings) = Source::read(source)
            .restore(drive::spec(mounted.path(), existing))
            .unwrap();
        assert_eq!(findings, []);
        oracle::assert_none(&oracle::compare(source, mounted.path(), &options).unwrap());
        assert!(mounted.path().join("lost+found").is_dir());
    }
    let refused = open(drive::spec(mounted.path(), Existing::Refuse)).map(|_| ());
    assert_eq!(refused.unwrap_err().kind, FsErrorKind::Refused);
}

#[test]
fn project_ids_come_back_where_the_place_has_none_of_its_own() {
    let mounted = Mounted::image("xfs", 400, &[]);
    let place = mounted.path().join("place");
    let project = |path: &std::path::Path| {
        // FS_IOC_FSGETXATTR's projid, by way of lsattr -p.
        #[expect(clippy::disallowed_methods, reason = "an oracle of its own")]
        let output = std::process::Command::new("lsattr")
            .args(["-p", "-d"])
            .arg(path)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace()
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    let mut entry = drive::entry(b"file", drive::inline(b"1"));
    entry.project = 77;
    let steps = vec![
        drive::directory(0, 0, b""),
        WriteStep::File {
            number: 0,
            parent: 0,
            entry: std::sync::Arc::new(entry),
            parts: Vec::new(),
            last: true,
        },
        drive::end(0),
    ];
    let findings = drive::write(drive::spec(&place, Existing::Refuse), steps).unwrap();
    assert_eq!(findings, []);
    assert_eq!(project(&place.join("file")), 77);
    assert_eq!(project(&place), 0);
}

/// A subvolume, and a directory with a quota of its own, stay what they are: only their content is
/// exchanged. A directory without copy-on-write gives that to what replaces it.
#[test]
fn a_place_that_is_more_than_a_directory_stays() {
    use std::os::unix::fs::MetadataExt;
    let btrfs = Mounted::image("btrfs", 300, &[]);
    let xfs = Mounted::image("xfs", 400, &[]);
    let run = |program: &str, arguments: &[&str], path: &std::path::Path| {
        #[expect(
            clippy::disallowed_methods,
            reason = "made by other programs than ours"
        )]
        let status = std::process::Command::new(program)
            .args(arguments)
            .arg(path)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{program}");
    };
    let subvolume = btrfs.path().join("subvolume");
    run("btrfs", &["-q", "subvolume", "create"], &subvolume);
    let quota = xfs.path().join("quota");
    std::fs::create_dir(&quota).unwrap();
    run("chattr", &["-p", "55", "+P"], &quota);
    for place in [subvolume, quota] {
        std::fs::write(place.join("old"), b"old").unwrap();
        let before = std::fs::metadata(&place).unwrap();
        let steps = vec![
            drive::directory(0, 0, b""),
            drive::file(0, 0, b"new", b"new"),
            drive::end(0),
        ];
        let findings = drive::write(drive::spec(&place, Existing::Replace), steps).unwrap();
        assert_eq!(findings, []);
        let after = std::fs::metadata(&place).unwrap();
        assert_eq!((before.dev(), before.ino()), (after.dev(), after.ino()));
        let names: Vec<_> = std::fs::read_dir(&place).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(std::fs::read(place.join("new")).unwrap(), b"new");
        assert_eq!((after.mtime(), after.mtime_nsec()), (1000, 5));
    }
    let plain = btrfs.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    run("chattr", &["+C"], &plain);
    std::fs::write(plain.join("old"), b"old").unwrap();
    let steps = vec![
        drive::directory(0, 0, b""),
        drive::file(0, 0, b"new", b"new"),
        drive::end(0),
    ];
    drive::write(drive::spec(&plain, Existing::Replace), steps).unwrap();
    let flags = rustix::fs::ioctl_getflags(drive::open_below(&plain, b"new")).unwrap();
    assert!(flags.contains(rustix::fs::IFlags::NOCOW));
}
