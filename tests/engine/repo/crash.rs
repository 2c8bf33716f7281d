//! Every store operation of a backup is cut once, in every way that a store can fail.

use std::sync::Arc;

use podkeep_engine::repo::Repository;
use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::{ObjectStore, StoreErrorKind};

use super::memory_host::{Files, MemoryHost};
use super::{back_up, bring_back, check_all, copy, full, init, item, noise, open_with};

fn some_files(seed: u64) -> Files {
    let mut files = Files::new();
    for n in 0..5 {
        files.insert(format!("small/{n}"), noise(seed + n, 3000));
    }
    files.insert("large".into(), noise(seed + 9, 150_000));
    files
}

/// Three items in one run, so that several packs, segments and snapshots are under way.
fn wide_host() -> (MemoryHost, Vec<podkeep_format::item::Item>, Vec<Files>) {
    let host = MemoryHost::default();
    let items: Vec<_> = ["/a", "/b", "/c"].iter().map(|name| item(name)).collect();
    let trees: Vec<_> = (0..3).map(|n| some_files(10 * n)).collect();
    for (item, files) in items.iter().zip(&trees) {
        host.set(item, files);
    }
    (host, items, trees)
}

fn open_quietly(store: Arc<dyn ObjectStore>) -> Option<Repository> {
    open_with(store, &full(), None, 1).ok()
}

/// A repository with an undisturbed backup of `/base`.
fn prepared() -> MemoryStore {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let base = item("/base");
    let repo = open_quietly(store.clone()).unwrap();
    back_up(&repo, &MemoryHost::with(&base, &some_files(99)), &[&base]).unwrap();
    copy(&*store)
}

/// Backs up three items with one fault, and returns the store as the next process finds it, and
/// how many operations there were before, and in, the backup.
fn disturbed(
    prepared: &MemoryStore,
    memory: bool,
    fault: Option<Fault>,
    seed: u64,
) -> (Arc<Faults<MemoryStore>>, u64, u64) {
    let store = copy(prepared);
    let faults = Arc::new(match memory {
        true => Faults::over_memory(store, seed),
        false => Faults::new(store),
    });
    let repo = open_quietly(faults.clone()).unwrap();
    let before = faults.operations();
    let (host, items, _) = wide_host();
    if let Some(fault) = fault {
        faults.plan(fault);
    }
    let items: Vec<_> = items.iter().collect();
    let _ = back_up(&repo, &host, &items);
    drop(repo);
    let operations = faults.operations() - before;
    faults.restart();
    (faults, before, operations)
}

/// What must hold whatever happened: the old snapshot restores, every snapshot that is listed
/// restores completely, and the next run works and restores.
fn holds(store: &Arc<Faults<MemoryStore>>, what: &str) {
    let repo = open_quietly(store.clone()).unwrap_or_else(|| panic!("{what}: does not open"));
    let (restored, _, _) =
        bring_back(&repo, &item("/base")).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(
        restored == some_files(99),
        "{what}: the old snapshot differs"
    );
    let (host, items, trees) = wide_host();
    let monitor = podkeep_engine::monitor::Collect::default();
    for snapshot in repo.snapshots(&monitor).unwrap() {
        let item = &snapshot.header.item;
        let Some(n) = items.iter().position(|i| i == item) else {
            continue;
        };
        let (restored, _, _) = bring_back(&repo, item).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(restored == trees[n], "{what}: {item} differs");
    }
    let (report, findings) = check_all(&repo).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(report.damaged, 0, "{what}: {findings:?}");
    let wanted: Vec<_> = items.iter().collect();
    let report = back_up(&repo, &host, &wanted).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(report.complete, "{what}");
    for (item, files) in items.iter().zip(&trees) {
        let (restored, _, _) = bring_back(&repo, item).unwrap();
        assert!(
            restored == *files,
            "{what}: {item} differs after the next run"
        );
    }
}

fn matrix(memory: bool, effect: Effect) {
    let prepared = prepared();
    let (_, before, operations) = disturbed(&prepared, memory, None, 0);
    assert!(operations > 15, "{operations}");
    for nth in 1..=operations {
        let what = format!("{effect:?} at operation {nth} of {operations}");
        let fault = Some(Fault::at(before + nth, effect));
        let (store, _, _) = disturbed(&prepared, memory, fault, nth);
        holds(&store, &what);
    }
}

#[test]
fn e_01_a_cut_at_every_operation_loses_nothing() {
    matrix(false, Effect::CutPower);
}

#[test]
fn e_01_a_store_that_drops_what_was_not_synced_loses_nothing() {
    matrix(true, Effect::CutPower);
}

#[test]
fn e_02_a_full_disk_at_every_operation_loses_nothing() {
    matrix(false, Effect::Torn(StoreErrorKind::NoSpace));
}

#[test]
fn e_01_a_failing_disk_at_every_operation_loses_nothing() {
    matrix(false, Effect::FailBefore(StoreErrorKind::Io));
    matrix(false, Effect::FailAfter(StoreErrorKind::Io));
}
