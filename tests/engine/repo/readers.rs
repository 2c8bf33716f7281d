//! Readers of a store that goes away under them, and of what is not there.

use std::sync::Arc;
use std::time::Duration;

use podkeep_engine::host::Existing;
use podkeep_engine::monitor::{Collect, FindingKind};
use podkeep_engine::operations::{
    ItemPath, OperationError, OperationResult, RestoreOptions, RestoreReport, Selector, SnapSpec,
    SnapWhich, restore,
};
use podkeep_engine::repo::{RepoError, Repository};
use podkeep_engine::store::StoreErrorKind;
use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::item::Item;

use super::memory_host::MemoryHost;
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
        snapshot: SnapSpec {
            which: SnapWhich::Latest(0),
            host: None,
        },
        all: false,
        items: vec![ItemPath {
            selector: Selector {
                item: wanted.clone(),
                glob: false,
            },
            path: path.into(),
        }],
        to_dir: Some("/restored".into()),
        rename: None,
        existing: Existing::Refuse,
        dry_run: false,
        threads: 2,
        wait: Duration::ZERO,
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
