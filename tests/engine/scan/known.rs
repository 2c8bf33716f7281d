//! Large files of which it is known how they were cut: what comes out is what a reading without that
//! knowledge gives, and what was found again is not handed over.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use podkeep_engine::fs::Writers;
use podkeep_engine::fs::in_use::MappedFiles;
use podkeep_engine::fs::scan::{KnownContents, ScanSpec, ScanStates, scan, scan_again};
use podkeep_format::id::SnapshotId;

use super::support::{Place, Tree, drain, noise, read, spec};

const MIB: u64 = 1 << 20;
const ITEM: &str = "volume:test";

fn snapshot(number: u8) -> SnapshotId {
    SnapshotId([number; 32])
}

struct Reading<'t> {
    tree: &'t Path,
    known: Arc<KnownContents>,
}

impl Reading<'_> {
    fn spec(&self, trusted: Option<u8>) -> ScanSpec {
        ScanSpec {
            states: Some(ScanStates {
                directory: self.tree.with_file_name("states"),
                trusted: trusted.map(snapshot),
                always_read: MappedFiles::new(),
            }),
            known: Some(Arc::clone(&self.known)),
            ..spec(self.tree)
        }
    }

    /// A run of its own, which trusts a snapshot.
    fn first(&self, trusted: Option<u8>) -> Tree {
        let spec = self.spec(trusted);
        let chunking = Arc::clone(&spec.chunking);
        drain(scan(spec).expect("it starts"), &chunking).expect("it ends")
    }

    /// By the same run again.
    fn again(&self) -> Tree {
        let spec = self.spec(None);
        let chunking = Arc::clone(&spec.chunking);
        drain(
            scan_again(spec, Writers::GoOn).expect("it starts"),
            &chunking,
        )
        .expect("it ends")
    }
}

/// Large ones of all sorts: noise, holes, zeros that were written, an odd size.
fn fill(tree: &Path) {
    fs::create_dir_all(tree.join("below")).expect("make the tree");
    fs::write(tree.join("noise"), noise(1, 40 << 20)).expect("write");
    fs::write(tree.join("below/odd"), noise(2, (3 << 20) + 77)).expect("write");
    let sparse = File::create(tree.join("sparse")).expect("create");
    sparse.set_len(30 * MIB + 5).expect("make it longer");
    for at in [0, 3, 4, 11, 29] {
        sparse
            .write_all_at(&noise(at, 300_000), at * MIB + 12_288)
            .expect("write");
    }
    let mut zeros = noise(3, 12 << 20);
    zeros[2 << 20..5 << 20].fill(0);
    zeros[8 << 20..(8 << 20) + 70_000].fill(0);
    fs::write(tree.join("zeros"), zeros).expect("write");
}

fn alter(tree: &Path) {
    let open = |name: &str| {
        let file = File::options().write(true).open(tree.join(name));
        file.expect("open")
    };
    let large = open("noise");
    for page in 0..30 {
        large
            .write_all_at(&noise(100 + page, 8192), page * 1_300_000)
            .expect("write");
    }
    let zeros = open("zeros");
    // A run that grows at both ends, one that is filled in the middle, and a new one.
    zeros
        .write_all_at(&[0; 200_000], 5 * MIB - 10)
        .expect("write");
    zeros
        .write_all_at(&[0; 50_000], 2 * MIB - 50_000)
        .expect("write");
    zeros.write_all_at(b"x", 3 * MIB + 1).expect("write");
    zeros.write_all_at(&[0; 150_000], 10 * MIB).expect("write");
    let sparse = open("sparse");
    sparse
        .write_all_at(&noise(7, 9000), 20 * MIB + 1)
        .expect("write");
    sparse.set_len(31 * MIB).expect("make it longer");
    open("below/odd")
        .set_len(2 * MIB + 1)
        .expect("make it shorter");
}

#[test]
fn what_changed_is_found_by_how_it_was_cut() {
    let place = Place::new();
    let tree = place.beside("known");
    fill(&tree);
    let reading = Reading {
        tree: &tree,
        known: Arc::default(),
    };
    let whole = reading.first(None);
    assert_eq!(whole.outcome, read(&tree).outcome);
    let same = reading.again();
    assert_eq!(same.outcome, whole.outcome);
    assert_eq!(same.entries, whole.entries);
    assert_eq!(same.data_bytes, 0, "something was handed over again");

    alter(&tree);
    let expected = read(&tree);
    let changed = reading.again();
    assert_eq!(changed.outcome, expected.outcome);
    assert_eq!(changed.entries, expected.entries);
    assert!(changed.data_bytes > 30 * 8192);
    assert!(
        changed.data_bytes < 10 * MIB,
        "{} bytes",
        changed.data_bytes
    );
    // Every chunk that is new was handed over.
    let before: std::collections::HashSet<_> = whole.chunks.keys().collect();
    let missing = expected
        .chunks
        .keys()
        .filter(|id| !before.contains(id) && !changed.chunks.contains_key(id));
    assert_eq!(missing.count(), 0);
}

/// What is found again is in the repository only if the snapshot is that for which it was recorded.
#[test]
fn what_is_known_counts_for_its_snapshot_alone() {
    let place = Place::new();
    let tree = place.beside("known");
    fs::create_dir(&tree).expect("make the tree");
    fs::write(tree.join("large"), noise(5, 6 << 20)).expect("write");
    let reading = Reading {
        tree: &tree,
        known: Arc::default(),
    };
    let bytes = |trusted| reading.first(trusted).data_bytes;
    let all = 6 * MIB;
    assert_eq!(bytes(None), all);
    // Not published.
    assert_eq!(bytes(Some(1)), all);
    reading.known.published(ITEM, snapshot(1));
    assert_eq!(bytes(Some(1)), 0);
    // That run was not published either; what is of the snapshot stands.
    assert_eq!(bytes(Some(1)), 0);
    reading.known.published("volume:other", snapshot(2));
    assert_eq!(bytes(Some(2)), all);
    reading.known.published(ITEM, snapshot(2));
    assert_eq!(bytes(None), all);
    assert_eq!(bytes(Some(2)), all, "the run before trusted nothing");
}
