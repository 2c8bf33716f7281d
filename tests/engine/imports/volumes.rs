//! Volumes: the trees that the system's own `tar` packs come back, as far as its formats hold them.

#![expect(
    clippy::disallowed_methods,
    reason = "the archives are those of the system's own tar"
)]

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use podkeep_engine::monitor::FindingKind;

use super::{Bench, volume};
use crate::fake_store::{LongName, Tar, gzip};
use crate::mktree;
use crate::oracle;

/// `tar` with these words, in the scratch directory.
fn tar(bench: &Bench, words: &str) {
    let done = Command::new("tar")
        .current_dir(bench.scratch.path())
        .args(words.split(' '))
        .output()
        .expect("tar runs");
    assert!(done.status.success(), "tar {words}: {done:?}");
}

/// What a part of the tree is called, and what fills it.
type Part = (&'static str, fn(&OwnedFd) -> std::io::Result<mktree::Left>);

const PARTS: [Part; 7] = [
    ("names", mktree::names),
    ("sparse", mktree::sparse),
    ("links", mktree::links),
    ("nodes", mktree::nodes),
    ("modes", mktree::modes),
    ("xattrs", mktree::xattrs),
    ("times", mktree::times),
];

/// A tree with what tars can hold: names, links, devices, modes, attributes, ACLs, holes.
fn hard_tree(bench: &Bench) -> PathBuf {
    let path = bench.scratch.join("tree");
    std::fs::create_dir(&path).unwrap();
    let open = |path: &Path| {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap()
    };
    let top = open(&path);
    for (name, build) in PARTS {
        let part = mktree::directory(&top, name.as_bytes()).unwrap();
        build(&part).unwrap();
    }
    path
}

/// Paths of what no tar holds: sockets, and which names of a fifo or device are one.
fn not_held(root: &Path) -> BTreeSet<Vec<u8>> {
    let record = oracle::read(root).unwrap();
    let not_held = record.iter().filter(|(_, facts)| match facts.kind {
        "socket" => true,
        "file" | "directory" | "symlink" => false,
        _ => facts.nlink > 1,
    });
    not_held.map(|(path, _)| path.clone()).collect()
}

/// Everything that PAX can hold, in its three forms of sparse files.
#[test]
fn what_gnu_tar_packs_comes_back() {
    for sparse in ["0.0", "0.1", "1.0"] {
        let bench = Bench::new();
        let tree = hard_tree(&bench);
        let words = format!(
            "--format=pax --sparse --sparse-version={sparse} --xattrs --xattrs-include=* --acls \
             --pax-option=delete=atime,delete=ctime -cf archive -C tree ."
        );
        tar(&bench, &words);
        let restored = bench.volume(&bench.scratch.join("archive"));
        let options = oracle::Options {
            ignored_paths: not_held(&tree),
            ..oracle::Options::default()
        };
        oracle::assert_same(&tree, &restored, &options);
    }
}

/// The old format has whole seconds and no attributes.
#[test]
fn old_archives_of_gnu_tar_come_back() {
    for pack in ["", "-z", "--zstd"] {
        let bench = Bench::new();
        let tree = hard_tree(&bench);
        let words = format!("--format=gnu --sparse {pack} -cf archive -C tree .");
        tar(&bench, words.replace("  ", " ").trim());
        let restored = bench.volume(&bench.scratch.join("archive"));
        let found = oracle::compare(
            &tree,
            &restored,
            &oracle::Options {
                ignored_paths: not_held(&tree),
                allocation: oracle::Allocation::Ignore,
                mtime: false,
                ..oracle::Options::default()
            },
        );
        let other: Vec<_> = found
            .unwrap()
            .into_iter()
            .filter(|difference| !difference.what.contains("xattr"))
            .collect();
        oracle::assert_none(&other);
    }
}

fn read(root: &Path, name: &str) -> Vec<u8> {
    std::fs::read(root.join(name)).unwrap()
}

#[test]
fn the_last_of_two_entries_wins_and_missing_parents_are_made() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let tar = Tar::default()
        .file("deep/er/file", b"in a directory that comes later")
        .file("twice", b"first")
        .hard_link("kept", b"twice")
        .file("twice", &[7; 5000])
        .directory("deep")
        .file("was-file", b"x")
        .directory("was-file")
        .file("was-file/inside", b"y")
        .directory("was-folder")
        .file("was-folder/gone", b"z")
        .symlink("was-folder", b"twice")
        .file("./dotted//name", b"cleaned")
        .file("/absolute", b"below the root");
    let archive = bench.file("archive", &tar.bytes);
    let root = bench.volume(&archive);
    assert_eq!(
        read(&root, "deep/er/file"),
        b"in a directory that comes later"
    );
    assert_eq!(read(&root, "kept"), b"first");
    assert_eq!(read(&root, "twice"), [7; 5000]);
    assert_eq!(read(&root, "was-file/inside"), b"y");
    assert_eq!(
        std::fs::read_link(root.join("was-folder")).unwrap(),
        Path::new("twice")
    );
    assert_eq!(read(&root, "dotted/name"), b"cleaned");
    assert_eq!(read(&root, "absolute"), b"below the root");
    let facts = |name: &str| {
        let facts = std::fs::symlink_metadata(root.join(name)).unwrap();
        (facts.mode() & 0o7777, facts.uid(), facts.nlink())
    };
    assert_eq!(facts("deep").0, 0o644, "what the tar says of it");
    assert_eq!((facts("deep/er").0, facts("deep/er").1), (0o755, 0));
    assert_eq!(facts("kept").2, 1, "its other name is another file now");
    assert_eq!(facts("twice").1, 0o1750);
}

#[test]
fn names_of_one_file_are_linked_wherever_they_lie() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let long = "n".repeat(120);
    let tar = Tar::default()
        .file_with(format!("z/{long}"), &[1; 3000], &[], LongName::Gnu)
        .file_with(
            "pax",
            b"p",
            &[("path", b"a/pax"), ("SCHILY.xattr.user.x", b"v")],
            LongName::Pax,
        )
        .hard_link("b/first", format!("z/{long}").as_bytes())
        .hard_link("last", b"b/first")
        .fifo("fifo")
        .hard_link("fifo-too", b"fifo");
    let archive = bench.file("archive", &gzip(&tar.bytes, 1));
    let root = bench.volume(&archive);
    let inode = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap().ino();
    assert_eq!(inode("b/first"), inode(&format!("z/{long}")));
    assert_eq!(inode("b/first"), inode("last"));
    assert_eq!(inode("fifo"), inode("fifo-too"));
    assert_eq!(read(&root, "a/pax"), b"p");
}

/// The same files have the same chunks, wherever they are read.
#[test]
fn what_a_backup_stored_is_not_stored_again() {
    let bench = Bench::new();
    let noise = mktree::noise(3, 3_000_000);
    let tar = Tar::default().file("noise", &noise).file("again", &noise);
    let archive = bench.file("archive", &tar.bytes);
    let (first, _) = bench.import(&[], &[("v", &archive)]).unwrap();
    assert!(first.bytes_added > 3_000_000);
    let (second, findings) = bench.import(&[], &[("v", &archive)]).unwrap();
    assert_eq!(second.chunks_new, 0);
    assert_eq!(first.items[0].root, second.items[0].root);
    // The root is not in the tar.
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].kind, FindingKind::Note);
    assert_eq!(second.files, 2);
    assert_eq!(second.bytes_logical, 6_000_000);
    bench.restored(&volume("v"));
}
