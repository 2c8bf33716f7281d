//! `diff` with the host: nothing differs that a snapshot left out by choice.

use std::ops::ControlFlow;
use std::path::PathBuf;

use podkeep_engine::monitor::Collect;
use podkeep_engine::operations::{
    BackupOptions, Change, DiffRow, Selection, SnapSpec, SnapWhich, backup, diff,
};

use super::{Bench, selector};
use crate::mktree;

/// A file system in memory, until it is dropped.
struct Below(PathBuf);

impl Below {
    fn mount(path: PathBuf) -> Self {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("podkeep-test", &path, "tmpfs", flags, c"size=1m").unwrap();
        Self(path)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        if let Err(errno) = rustix::mount::unmount(&self.0, flags) {
            eprintln!("{} stays mounted: {errno}", self.0.display());
        }
    }
}

fn differences(bench: &Bench) -> Vec<(String, Change)> {
    let latest = SnapSpec {
        which: SnapWhich::Latest(0),
        host: None,
    };
    let mut found = Vec::new();
    let mut visit = |row: DiffRow| {
        found.push((String::from_utf8(row.path).unwrap(), row.change));
        ControlFlow::Continue(())
    };
    let after = diff::After::Live(&bench.host);
    diff::diff(
        &bench.repo,
        &latest,
        &after,
        &mut visit,
        &Collect::default(),
    )
    .unwrap();
    found
}

#[test]
fn the_host_is_compared_as_the_snapshot_was_taken() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    for name in ["cache", "mount"] {
        mktree::directory(&fd, name.as_bytes()).unwrap();
    }
    mktree::file(&fd, b"left-out.tmp", b"1").unwrap();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    std::fs::write(path.join("cache/CACHEDIR.TAG"), tag).unwrap();
    std::fs::write(path.join("cache/content"), b"1").unwrap();
    let _below = Below::mount(path.join("mount"));
    std::fs::write(path.join("mount/mounted"), b"1").unwrap();
    for switches in 0..8 {
        let options = BackupOptions {
            selection: Selection {
                all: false,
                selectors: vec![selector(&path)],
            },
            exclude: match switches & 1 {
                0 => Vec::new(),
                _ => vec!["*.tmp".into()],
            },
            exclude_caches: switches & 2 != 0,
            cross_mounts: switches & 4 != 0,
            threads: 2,
            ..BackupOptions::default()
        };
        let monitor = Collect::default();
        backup::backup(&bench.repo, &bench.host, &options, &monitor).unwrap();
        assert_eq!(differences(&bench), [], "{options:?}");
        // What is looked at is seen, and nothing else.
        let mut expected = Vec::new();
        for (name, seen) in [
            ("cache/more", !options.exclude_caches),
            ("more", true),
            ("more.tmp", options.exclude.is_empty()),
            ("mount/more", options.cross_mounts),
        ] {
            std::fs::write(path.join(name), b"1").unwrap();
            if seen {
                expected.push((name.to_owned(), Change::Added));
            }
        }
        let mut found = differences(&bench);
        found.retain(|(_, change)| *change == Change::Added);
        assert_eq!(found, expected, "{options:?}");
        for name in ["cache/more", "more", "more.tmp", "mount/more"] {
            std::fs::remove_file(path.join(name)).unwrap();
        }
    }
}
