//! A repository behind a link: everything works as it does here, and costs a bounded number of
//! requests.

use std::sync::Arc;

use podkeep_engine::repo::Repository;
use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::Op;
use podkeep_engine::store::remote::RemoteStore;
use podkeep_engine::store::{ObjectStore, StoreErrorKind};

use super::memory_host::MemoryHost;
use super::{back_up, bring_back, check_all, full, init, item, open_with, some_files};
use crate::store::remote::over;

fn behind_a_link(memory: &MemoryStore) -> (Arc<RemoteStore>, Repository) {
    let store = Arc::new(over(Arc::new(memory.clone())));
    let repo = open_with(store.clone(), &full(), None, 1).unwrap();
    (store, repo)
}

#[test]
fn a_repository_behind_a_link_is_a_repository() {
    let memory = MemoryStore::new();
    init(&over(Arc::new(memory.clone())));
    let (_, repo) = behind_a_link(&memory);
    let web = item("/srv/web");
    let files = some_files(1);
    let report = back_up(&repo, &MemoryHost::with(&web, &files), &[&web]).unwrap();
    assert!(report.complete);
    let (restored, _, findings) = bring_back(&repo, &web).unwrap();
    assert!(restored == files && findings.is_empty());
    let (report, findings) = check_all(&repo).unwrap();
    assert_eq!((report.damaged, report.healed), (0, 0), "{findings:?}");
    // The same objects as without a link.
    let direct = open_with(Arc::new(memory), &full(), None, 1).unwrap();
    assert!(bring_back(&direct, &web).unwrap().0 == files);
}

#[test]
fn an_unchanged_backup_asks_a_bounded_number_of_times() {
    let memory = MemoryStore::new();
    init(&memory);
    let cache = tempfile::tempdir().unwrap();
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &some_files(1));
    let mut asked = Vec::new();
    for _ in 0..4 {
        let store = Arc::new(over(Arc::new(memory.clone())));
        let folder = Some(cache.path().to_owned());
        let repo = open_with(store.clone(), &full(), folder, 1).unwrap();
        let report = back_up(&repo, &host, &[&web]).unwrap();
        assert!(report.complete);
        drop(repo);
        asked.push(store.traffic());
    }
    let unchanged = asked[3];
    assert!(unchanged.requests <= 40, "{asked:?}");
    assert!(unchanged.bytes_sent < 64 << 10, "{asked:?}");
    assert!(unchanged.bytes_received < 128 << 10, "{asked:?}");
    // It costs no more for each snapshot that is there already, but for its own two copies.
    assert!(asked[3].requests <= asked[2].requests + 4, "{asked:?}");
}

/// T-08: a run whose link is cut stores what it stored; the next one, over a new link, sends none
/// of it again.
#[test]
fn t_08_what_was_stored_before_the_link_was_lost_is_not_sent_again() {
    let web = item("/srv/web");
    let files = some_files(2);
    let host = MemoryHost::with(&web, &files);
    let packs = |store: &MemoryStore| -> u64 {
        let packs = store.list("packs").unwrap();
        packs.iter().map(|pack| pack.size).sum()
    };
    let mut taken_over = 0;
    // A lease, packs, a segment, two copies of a snapshot.
    for at in 1..6 {
        let memory = MemoryStore::new();
        init(&memory);
        let faults = Faults::new(memory.clone());
        let lost = Effect::FailBefore(StoreErrorKind::Unreachable);
        faults.plan(Fault::at_op(Op::PutNew, at, lost));
        let lossy: Arc<dyn ObjectStore> = Arc::new(over(Arc::new(faults)));
        let repo = open_with(lossy, &full(), None, 1).unwrap();
        let cut_off = back_up(&repo, &host, &[&web]).is_err();
        drop(repo);
        let before = packs(&memory);
        let (_, repo) = behind_a_link(&memory);
        assert!(back_up(&repo, &host, &[&web]).unwrap().complete);
        assert!(bring_back(&repo, &web).unwrap().0 == files);
        let sent = packs(&memory) - before;
        if cut_off && before > 0 {
            assert!(
                sent < before / 10,
                "{sent} bytes again, {before} were there"
            );
            taken_over += 1;
        }
    }
    assert!(taken_over > 0, "no run was cut off behind a pack");
}
