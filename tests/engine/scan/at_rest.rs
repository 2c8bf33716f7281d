//! The second of two readings: what it takes over, and what it has copies of.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use podkeep_engine::fs::Writers;
use podkeep_engine::fs::mapped::MappedFiles;
use podkeep_engine::fs::scan::{ScanSpec, ScanStates, scan, scan_again};

use super::support::{drain, noise, read, spec};
use crate::mount::Mounted;

fn spec_of(tree: &Path) -> ScanSpec {
    let mut spec = spec(tree);
    spec.states = Some(ScanStates {
        directory: tree.with_file_name("states"),
        trusted: None,
        always_read: MappedFiles::new(),
    });
    spec
}

/// A tree of small files and two large ones on a file system, read once.
fn read_once(mounted: &Mounted) -> std::path::PathBuf {
    let tree = mounted.path().join("tree");
    fs::create_dir_all(tree.join("below")).expect("make the tree");
    for file in 0..20 {
        fs::write(tree.join(format!("below/{file}")), noise(file, 3000)).expect("write");
    }
    for name in ["large", "below/large"] {
        fs::write(tree.join(name), noise(77, 2 << 20)).expect("write");
    }
    let first = spec_of(&tree);
    let chunking = first.chunking.clone();
    drain(scan(first).expect("it starts"), &chunking).expect("it ends");
    tree
}

/// Bytes that are read before all is captured, and after.
fn read_again(tree: &Path, when_captured: impl FnOnce()) -> (u64, u64) {
    let mut scan = scan_again(spec_of(tree), Writers::Rest).expect("it starts");
    let mut when_captured = Some(when_captured);
    let (mut before, mut after) = (0, 0);
    while let Some(batch) = scan.next().expect("a batch") {
        match when_captured {
            Some(_) => before += batch.bytes_read,
            None => after += batch.bytes_read,
        }
        if batch.captured {
            when_captured.take().expect("it is told once")();
        }
    }
    let outcome = scan.finish().expect("it ends");
    assert!(!outcome.incomplete);
    (before, after)
}

/// What a reading at rest will read of a tree, and what it does read, once it was read `live` times.
fn expected_and_read(tree: &Path, live: usize) -> (u64, u64) {
    let mut expected = 0;
    for reading in 0..live {
        let mut scan = match reading {
            0 => scan(spec_of(tree)),
            _ => scan_again(spec_of(tree), Writers::GoOn),
        }
        .expect("it starts");
        while scan.next().expect("a batch").is_some() {}
        expected = scan.before_again();
    }
    let (before, _) = read_again(tree, || ());
    (expected, before)
}

#[test]
fn it_is_known_before_what_will_be_read_at_rest() {
    for (kind, mib, options) in [
        ("xfs", 400, &["-m", "reflink=1"][..]),
        ("btrfs", 300, &[]),
        ("ext4", 64, &[]),
    ] {
        let mounted = Mounted::image(kind, mib, options);
        let tree = read_once(&mounted);
        let large = if kind == "ext4" { 2 * (2 << 20) } else { 0 };
        for live in [1, 2, 3] {
            let found = expected_and_read(&tree, live);
            assert_eq!(found, (20 * 3000 + large, 20 * 3000 + large), "{kind}");
        }
    }
    // What is old is read once.
    let image = super::states::Image::filled();
    let expected = expected_and_read(&image.tree, 1);
    assert_eq!(expected, (0, 0));
}

#[test]
fn large_files_are_read_from_copies_where_there_are_reflinks() {
    for (kind, mib, options) in [("xfs", 400, &["-m", "reflink=1"][..]), ("btrfs", 300, &[])] {
        let mounted = Mounted::image(kind, mib, options);
        let tree = read_once(&mounted);
        // Everything is young, so all of it counts as changed.
        let (before, after) = read_again(&tree, || {
            let file = fs::File::options()
                .write(true)
                .open(tree.join("large"))
                .expect("open");
            file.write_all_at(&[1; 4096], 0).expect("write");
        });
        assert_eq!((before, after), (20 * 3000, 2 * (2 << 20)), "{kind}");
    }
}

#[test]
fn elsewhere_they_are_read_at_once() {
    let mounted = Mounted::image("ext4", 64, &[]);
    let tree = read_once(&mounted);
    let expected = read(&tree).outcome;
    let (before, after) = read_again(&tree, || panic!("there is nothing to capture"));
    assert_eq!((before, after), (20 * 3000 + 2 * (2 << 20), 0));
    let again = spec_of(&tree);
    let chunking = again.chunking.clone();
    let scan = scan_again(again, Writers::Rest).expect("it starts");
    assert_eq!(drain(scan, &chunking).expect("it ends").outcome, expected);
}

/// What the first reading recorded is taken over, and what both recorded is what the next run has.
#[test]
fn what_is_settled_is_read_only_once() {
    let image = super::states::Image::filled();
    image.scan(None);
    fs::write(image.at("c/changed"), noise(3, 5000)).expect("write");
    fs::create_dir(image.at("added")).expect("make a directory");
    fs::write(image.at("added/file"), noise(4, 500)).expect("write");
    fs::remove_dir_all(image.at("gone")).expect("remove");
    let second = image.scan_at_rest(None);
    assert_eq!(second.bytes_read, 5500);
    assert_eq!(second.outcome, read(&image.tree).outcome);
    image.publish(1);
    // Only what was young when it was read is read by the next run.
    let next = image.scan(Some(1));
    assert_eq!(next.bytes_read, 5500);
    assert_eq!(next.outcome, second.outcome);
}
