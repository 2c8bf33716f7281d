//! Readers of a store that changes or goes away under them, and of what is not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use podkeep_engine::monitor::{Collect, FindingKind};
use podkeep_engine::operations::{
    ItemPath, OperationError, OperationResult, RestoreOptions, RestoreReport, Selector, SnapSpec,
    SnapWhich, restore,
};
use podkeep_engine::repo::index::Index;
use podkeep_engine::repo::lease::HeldLease;
use podkeep_engine::repo::reader::Reader;
use podkeep_engine::repo::writer::Writer;
use podkeep_engine::repo::{RepoError, Repository};
use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::Op;
use podkeep_engine::store::{ObjectName, StoreErrorKind};
use podkeep_format::item::Item;
use podkeep_format::lease::Purpose;

use super::fences::Suspending;
use super::memory_host::MemoryHost;
use super::schedule::Stage;
use super::{back_up, init, item, open, some_files};

fn prepared() -> MemoryStore {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &some_files(1));
    back_up(&open(store.clone()), &host, &[&web]).unwrap();
    super::copy(&*store)
}

/// Restores what is at `path` of an item of the latest snapshot.
fn bring_back_part(
    repo: &Repository,
    wanted: &Item,
    path: &str,
    monitor: &Collect,
) -> OperationResult<RestoreReport> {
    let options = RestoreOptions {
        items: vec![ItemPath {
            selector: Selector {
                item: wanted.clone(),
                glob: false,
            },
            path: path.into(),
        }],
        to_dir: Some("/restored".into()),
        threads: 2,
        ..RestoreOptions::of(SnapSpec {
            which: SnapWhich::Latest(0),
            host: None,
        })
    };
    restore::restore(repo, &MemoryHost::default(), &options, monitor)
}

#[test]
fn a_restore_from_a_store_that_goes_away_fails_and_calls_nothing_damaged() {
    let store = prepared();
    let web = item("/srv/web");
    let mut failed = 0;
    for nth in 1.. {
        let gone = Fault::at_read(nth, Effect::FailBefore(StoreErrorKind::Unreachable)).lasting();
        let faults = Arc::new(Faults::new(super::copy(&store)));
        let repo = open(faults.clone());
        faults.plan(gone.under("packs/"));
        let monitor = Collect::default();
        let outcome = bring_back_part(&repo, &web, "small/3.txt", &monitor);
        let findings = monitor.findings.into_inner().unwrap();
        let damaged = findings.iter().any(|f| f.kind == FindingKind::Damaged);
        assert!(!damaged, "at read {nth}: {findings:?}");
        match outcome {
            Err(OperationError::Repository(RepoError::Store(error)))
                if error.kind == StoreErrorKind::Unreachable =>
            {
                failed += 1;
            }
            Err(error) => panic!("at read {nth}: {error}"),
            Ok(report) => {
                assert_eq!((report.items, report.warnings), (1, 0));
                break;
            }
        }
    }
    // The definition, the way down to the file, and the file.
    assert!(failed >= 3, "{failed}");
}

#[test]
fn a_restore_of_what_is_not_there_tells_names_that_are_near() {
    let repo = open(Arc::new(prepared()));
    let monitor = Collect::default();
    let outcome = bring_back_part(&repo, &item("/srv/web"), "large/nose", &monitor);
    let Err(OperationError::NoMatch { what, near }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        (what.as_str(), near),
        ("path:/srv/web/large/nose", vec!["noise".into()])
    );
}

/// Moves everything into new packs, with a new segment, and deletes the old ones.
fn repack(repo: &Repository) {
    let lease = HeldLease::take(repo, Purpose::Prune).unwrap();
    let index = Arc::new(Index::load(repo, &Collect::default()).unwrap());
    let reader = Reader::new(repo, Arc::clone(&index)).unwrap();
    let old: Vec<ObjectName> = ["packs", "index"]
        .iter()
        .flat_map(|folder| repo.store().list(folder).unwrap())
        .map(|meta| meta.name)
        .collect();
    let mut chunks = Vec::new();
    index.for_each(&mut |id, place| chunks.push((id, place)));
    let mut writer = Writer::new(repo, index, lease.id(), 1).unwrap();
    for (id, place) in chunks {
        let block = reader.block(&place.block).unwrap();
        let start = block.data_start + place.offset as usize;
        let (kind, range) = block
            .chunks
            .iter()
            .find(|(_, range)| range.start == start)
            .unwrap();
        let bytes = &block.payload[range.clone()];
        writer.add(id, *kind, place.block.class, bytes).unwrap();
    }
    writer.flush().unwrap();
    for object in old {
        assert!(repo.store().delete(&object).unwrap());
    }
}

/// A reader whose lease prune took for ended, or could not see, had an index of packs that are gone.
#[test]
fn a_reader_finds_what_was_moved_into_other_packs_since_it_loaded_the_index() {
    let intact = prepared();
    let stage = Stage::new(super::copy(&intact), &[]);
    let elsewhere = Arc::new(open(Arc::new(stage.gate(0))));
    let suspending = Arc::new(Suspending::new(stage.gate(0)));
    let repo = open(suspending.clone());
    let web = item("/srv/web");
    let mut caught_up = 0;
    for nth in 1.. {
        stage.set_store(super::copy(&intact));
        let listings = Arc::new(AtomicU64::new(0));
        let reads = Arc::new(AtomicU64::new(0));
        let (listed, read, mover) = (
            Arc::clone(&listings),
            Arc::clone(&reads),
            Arc::clone(&elsewhere),
        );
        suspending.at_each(move |_, op, name| {
            if op == Op::List && name == "packs" {
                listed.fetch_add(1, Ordering::SeqCst);
            }
            if op == Op::GetRange && read.fetch_add(1, Ordering::SeqCst) + 1 == nth {
                repack(&mover);
            }
        });
        let (restored, report, findings) = super::bring_back(&repo, &web).unwrap();
        assert!(restored == some_files(1), "at read {nth}");
        assert_eq!(report.warnings, 0, "at read {nth}: {findings:?}");
        if reads.load(Ordering::SeqCst) < nth {
            break;
        }
        let listings = listings.load(Ordering::SeqCst);
        assert!(listings <= 2, "at read {nth}: {listings} listings");
        caught_up += u64::from(listings == 2);
    }
    assert!(caught_up > 3, "{caught_up}");
}
