//! Every kind of object damaged in every way: found or healed, named, and nothing wrong restored.

use std::sync::Arc;

use podkeep_engine::monitor::FindingKind;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::{ObjectName, ObjectStore};

use super::memory_host::MemoryHost;
use super::{back_up, bring_back, check_all, copy, full, init, item, open, open_with, some_files};

#[derive(Clone, Copy, Debug)]
enum How {
    Flip,
    Truncate,
    Remove,
}

fn prepared() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &some_files(1));
    back_up(&open(store.clone()), &host, &[&web]).unwrap();
    store
}

fn hurt(store: &MemoryStore, object: &ObjectName, how: How) {
    match how {
        How::Flip => assert!(store.damage(object, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        })),
        How::Truncate => assert!(store.damage(object, |bytes| bytes.truncate(bytes.len() / 2))),
        How::Remove => assert!(store.delete(object).unwrap()),
    }
}

fn objects(store: &MemoryStore, folder: &str) -> Vec<ObjectName> {
    let listed = store.list(folder).unwrap();
    listed.into_iter().map(|meta| meta.name).collect()
}

#[test]
fn e_08_what_exists_twice_is_healed() {
    let intact = prepared();
    for how in [How::Flip, How::Truncate, How::Remove] {
        for object in objects(&intact, "") {
            let store = Arc::new(copy(&*intact));
            let twice = ["config", "keys/", "snapshots/"];
            if !twice
                .iter()
                .any(|prefix| object.as_str().starts_with(prefix))
            {
                continue;
            }
            hurt(&store, &object, how);
            let repo = open_with(store.clone(), &full(), None, 1)
                .unwrap_or_else(|e| panic!("{how:?} {object}: {e}"));
            let (restored, report, _) = bring_back(&repo, &item("/srv/web")).unwrap();
            assert!(restored == some_files(1), "{how:?} {object}");
            assert_eq!(report.warnings, 0, "{how:?} {object}");
            let (report, findings) = check_all(&repo).unwrap();
            assert_eq!(
                (report.damaged, report.healed),
                (0, 1),
                "{object} {findings:?}"
            );
            let (report, findings) = check_all(&repo).unwrap();
            assert_eq!(
                (report.damaged, report.healed),
                (0, 0),
                "{object} {findings:?}"
            );
        }
    }
}

#[test]
fn e_08_a_lost_segment_is_made_anew() {
    for how in [How::Flip, How::Truncate, How::Remove] {
        let store = prepared();
        for object in objects(&store, "index") {
            hurt(&store, &object, how);
        }
        let repo = open(store.clone());
        let (restored, report, _) = bring_back(&repo, &item("/srv/web")).unwrap();
        assert!(restored == some_files(1), "{how:?}");
        assert_eq!(report.warnings, 0, "{how:?}");
        let (report, findings) = check_all(&repo).unwrap();
        assert_eq!(report.damaged, 0, "{how:?} {findings:?}");
        assert!(report.healed > 0, "{how:?} {findings:?}");
        let (report, findings) = check_all(&repo).unwrap();
        assert_eq!((report.damaged, report.healed), (0, 0), "{findings:?}");
    }
}

#[test]
fn e_08_a_damaged_pack_costs_only_the_files_in_it() {
    let intact = prepared();
    for how in [How::Flip, How::Truncate, How::Remove] {
        for object in objects(&intact, "packs") {
            let store = Arc::new(copy(&*intact));
            hurt(&store, &object, how);
            let repo = open(store.clone());
            let files = some_files(1);
            let mut lost = files.len();
            if let Ok((restored, report, findings)) = bring_back(&repo, &item("/srv/web")) {
                for (path, bytes) in &restored {
                    assert!(files[path] == *bytes, "{how:?}: wrong bytes under {path}");
                }
                lost = files.len() - restored.len();
                let named: usize = findings
                    .iter()
                    .filter(|f| f.kind == FindingKind::Damaged)
                    .map(|f| f.paths.len())
                    .sum();
                assert!(lost == 0 || report.warnings > 0, "{how:?} {object}");
                assert!(lost == 0 || named > 0, "{findings:?}");
            }
            let (report, findings) = check_all(&repo).unwrap();
            assert!(report.damaged > 0, "{how:?} {object}: not found");
            let names_the_item = findings.iter().any(|f| {
                f.kind == FindingKind::Damaged && !f.snapshots.is_empty() && !f.paths.is_empty()
            });
            assert!(lost == 0 || names_the_item, "{how:?} {object} {findings:?}");
        }
    }
}

#[test]
fn e_11_a_backup_stores_anew_what_a_lost_pack_held() {
    let intact = prepared();
    for object in objects(&intact, "packs") {
        let store = Arc::new(copy(&*intact));
        hurt(&store, &object, How::Remove);
        let repo = open(store.clone());
        let web = item("/srv/web");
        let host = MemoryHost::with(&web, &some_files(1));
        let report = back_up(&repo, &host, &[&web]).unwrap();
        assert!(report.chunks_new > 0, "{object}");
        let (restored, report, _) = bring_back(&repo, &web).unwrap();
        assert!(restored == some_files(1), "{object}");
        assert_eq!(report.warnings, 0, "{object}");
    }
}
