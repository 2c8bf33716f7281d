//! Trees that change while they are read.

use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use podkeep_engine::monitor::FindingKind;
use podkeep_format::tree::Node;

use super::support::{Place, noise, read};

/// Ends the other thread when the test ends, by a failure too.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `change` over and over beside `main`.
fn beside<R>(change: impl Fn(u64) + Send + Sync, main: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    let started = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let handle = scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                change(round);
                started.store(true, Ordering::Relaxed);
                round += 1;
            }
        });
        let _stop = Stop(&stop);
        while !started.load(Ordering::Relaxed) && !handle.is_finished() {
            std::thread::yield_now();
        }
        main()
    })
}

fn unstable(tree: &super::support::Tree, name: &str) -> bool {
    matches!(tree.entry(name).node, Node::File { unstable: true, .. })
}

#[test]
fn f_26_a_file_that_grows() {
    let place = Place::new();
    let start = noise(1, 50 << 20);
    let path = place.write("log", &start);
    place.write("still", b"unharmed");
    let append = vec![b'x'; 64 << 10];
    let tree = beside(
        |_| {
            let mut file = File::options().append(true).open(&path).expect("open");
            file.write_all(&append).expect("append");
        },
        || read(&place.path),
    );
    let content = tree.content("log");
    assert!(content.len() >= start.len());
    assert!(content.starts_with(&start));
    assert!(content[start.len()..].iter().all(|byte| *byte == b'x'));
    assert!(unstable(&tree, "log"));
    assert!(!unstable(&tree, "still"));
    let changed = tree.found(FindingKind::Changed);
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].paths, [b"log".to_vec()]);
    assert!(!tree.outcome.incomplete);
}

#[test]
fn f_26_a_file_that_shrinks_and_grows() {
    let place = Place::new();
    for (name, size) in [("large", 6 << 20), ("small", 200_000)] {
        let bytes = noise(2, size);
        let path = place.write(name, &bytes);
        let file = File::options().write(true).open(&path).expect("open");
        let tree = beside(
            |round| {
                let len = if round % 2 == 0 { size / 3 } else { size };
                file.set_len(len as u64).expect("set the length");
            },
            || read(&place.path),
        );
        // Decoding checks that the pieces sum up to the size. The head is never cut off.
        let content = tree.content(name);
        assert!((size / 3..=size).contains(&content.len()));
        assert_eq!(content[..size / 3], bytes[..size / 3]);
        if unstable(&tree, name) {
            assert_eq!(tree.found(FindingKind::Changed).len(), 1);
        }
        fs::remove_file(path).expect("remove");
    }
}

#[test]
fn f_26_a_file_that_is_overwritten_once_is_read_again() {
    let place = Place::new();
    let size = 900_000;
    let path = place.write("file", &noise(1, size));
    // Whatever the moment of the change: the old content, or as much of the new one as was
    // written at one moment, unless flagged.
    for round in 2..30 {
        let (before, after) = (noise(round - 1, size), noise(round, size));
        let tree = std::thread::scope(|scope| {
            let writer = scope.spawn(|| fs::write(&path, &after).expect("write"));
            let tree = read(&place.path);
            writer.join().expect("the writer ends");
            tree
        });
        let content = tree.content("file");
        let whole = content == before || after.starts_with(&content);
        assert!(
            whole || unstable(&tree, "file"),
            "round {round}: torn and not flagged"
        );
    }
}

#[test]
fn f_28_entries_vanish_between_listing_and_open() {
    let place = Place::new();
    place.write("stays", b"1");
    place.dir("deep/er");
    place.write("deep/er/stays", b"2");
    let tree = beside(
        |round| {
            let dir = place.at(format!("dir-{}", round % 7));
            fs::create_dir_all(dir.join("a/b")).expect("make");
            for file in 0..20 {
                fs::write(dir.join(format!("a/b/{file}")), b"x").expect("write");
            }
            let _ = std::os::unix::fs::symlink("x", dir.join("link"));
            fs::remove_dir_all(&dir).expect("remove");
        },
        || {
            let mut last = read(&place.path);
            for _ in 0..200 {
                last = read(&place.path);
                assert!(!last.outcome.incomplete, "{:?}", last.findings);
                for finding in &last.findings {
                    assert!(!finding.kind.is_warning(), "{finding:?}");
                }
                assert!(last.found(FindingKind::Vanished).len() <= 1);
                assert_eq!(last.content("stays"), b"1");
                assert_eq!(last.content("deep/er/stays"), b"2");
            }
            last
        },
    );
    assert!(tree.has("deep/er"));
}

#[test]
fn f_28_entries_change_their_type() {
    let place = Place::new();
    place.write("stays", b"1");
    let path = place.at("x");
    beside(
        |round| {
            match round % 4 {
                0 => fs::write(&path, b"file").expect("write"),
                1 => std::os::unix::fs::symlink("/etc/passwd", &path).expect("link"),
                2 => {
                    fs::create_dir(&path).expect("make");
                    fs::write(path.join("inside"), b"in").expect("write");
                    fs::remove_file(path.join("inside")).expect("remove");
                    fs::remove_dir(&path).expect("remove");
                    return;
                }
                _ => {
                    let mode = rustix::fs::Mode::from_raw_mode(0o600);
                    let kind = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).expect("fifo");
                }
            }
            fs::remove_file(&path).expect("remove");
        },
        || {
            for _ in 0..300 {
                let tree = read(&place.path);
                assert!(!tree.outcome.incomplete, "{:?}", tree.findings);
                assert_eq!(tree.content("stays"), b"1");
                if let Some(entry) = tree.entries.get(b"x".as_slice())
                    && let Node::Symlink { target } = &entry.node
                {
                    assert_eq!(target, b"/etc/passwd");
                }
            }
        },
    );
}

#[test]
fn hardlinks_that_come_and_go() {
    let place = Place::new();
    for dir in ["a", "b", "c"] {
        place.dir(dir);
    }
    let first = place.write("a/first", &noise(1, 100_000));
    beside(
        |round| {
            let name = place.at(format!("{}/more", ["b", "c"][round as usize % 2]));
            fs::hard_link(&first, &name).expect("link");
            fs::remove_file(&name).expect("remove");
        },
        || {
            for _ in 0..300 {
                let tree = read(&place.path);
                assert!(!tree.outcome.incomplete, "{:?}", tree.findings);
                assert_eq!(tree.content("a/first"), noise(1, 100_000));
            }
        },
    );
}
