//! The second of two readings: what it takes over, and what it has copies of.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use podkeep_engine::fs::Writers;
use podkeep_engine::fs::in_use::MappedFiles;
use podkeep_engine::fs::scan::{BegunCopies, ScanSpec, ScanStates, scan, scan_again};

use rustix::fs::FallocateFlags;

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

/// A copy that is begun while a file is written is what the file is when its writers rest.
#[test]
fn copies_that_were_begun_are_put_right() {
    let mounted = Mounted::image("xfs", 400, &["-m", "reflink=1"]);
    let tree = read_once(&mounted);
    let mib = 1u64 << 20;
    for name in ["grown", "cut", "punched", "replaced", "filled", "gone"] {
        fs::write(tree.join(name), noise(name.len() as u64, 3 << 20)).expect("write");
    }
    let filled = fs::File::create(tree.join("filled")).expect("create");
    rustix::fs::fallocate(&filled, FallocateFlags::empty(), 0, 3 * mib).expect("allocate");
    let begun = Arc::<BegunCopies>::default();
    let spec_of = || ScanSpec {
        begun: Arc::clone(&begun),
        ..spec_of(&tree)
    };
    let mut live = scan_again(spec_of(), Writers::GoOn).expect("it starts");
    while live.next().expect("a batch").is_some() {}
    live.before_rest();
    drop(live);

    let open = |name: &str| {
        let file = fs::File::options().write(true).open(tree.join(name));
        file.expect("open")
    };
    // Blocks, odd bytes, and some twice.
    for (at, bytes) in [(0, 4096), (70_000, 10), (70_005, 3000), (2 * mib - 1, 1)] {
        open("large")
            .write_all_at(&noise(at, bytes), at)
            .expect("write");
    }
    open("grown")
        .write_all_at(&noise(5, 500_001), 3 * mib - 7)
        .expect("write");
    open("cut").set_len(2 * mib + 100).expect("cut");
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(open("punched"), hole, mib, mib / 2).expect("punch");
    open("filled")
        .write_all_at(&noise(6, 5000), mib)
        .expect("write");
    fs::write(tree.join("new"), noise(8, 2 << 20)).expect("write");
    fs::rename(tree.join("new"), tree.join("replaced")).expect("rename");
    fs::remove_file(tree.join("gone")).expect("remove");
    let expected = read(&tree);

    let mut rest = scan_again(spec_of(), Writers::Rest).expect("it starts");
    // Whatever is written once all is captured.
    let mut batches = Vec::new();
    loop {
        let batch = rest.next().expect("a batch").expect("it is captured");
        let captured = batch.captured;
        batches.push(batch.bytes_read);
        if captured {
            break;
        }
    }
    for name in [
        "large",
        "below/large",
        "grown",
        "cut",
        "punched",
        "filled",
        "replaced",
    ] {
        open(name).write_all_at(&[9; 4096], 8192).expect("write");
    }
    assert_eq!(
        batches.iter().sum::<u64>(),
        20 * 3000,
        "large ones are copied"
    );
    while rest.next().expect("a batch").is_some() {}
    assert_eq!(rest.finish().expect("it ends"), expected.outcome);
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
