//! Several writers at once, and writers that nobody should trust.

use std::sync::Arc;

use podkeep_engine::repo::{Credential, RepoError};
use podkeep_engine::store::memory::MemoryStore;

use super::memory_host::MemoryHost;
use super::{back_up, bring_back, check_all, init, item, open, open_with, some_files};

#[test]
fn e_07_twenty_backups_at_once_are_twenty_snapshots() {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    std::thread::scope(|scope| {
        for n in 0..20u64 {
            let store = store.clone();
            scope.spawn(move || {
                let item = item(&format!("/srv/{n}"));
                // Half of the content is the same everywhere.
                let mut files = some_files(n % 3);
                files.insert("own".into(), super::noise(1000 + n, 100_000));
                let host = MemoryHost::with(&item, &files);
                assert!(back_up(&open(store), &host, &[&item]).unwrap().complete);
            });
        }
    });
    let repo = open(store);
    for n in 0..20u64 {
        let mut files = some_files(n % 3);
        files.insert("own".into(), super::noise(1000 + n, 100_000));
        let (restored, _, _) = bring_back(&repo, &item(&format!("/srv/{n}"))).unwrap();
        assert!(restored == files, "item {n}");
    }
    assert_eq!(check_all(&repo).unwrap().0.damaged, 0);
}

#[test]
fn a_write_key_writes_and_reads_nothing() {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let owner = open(store.clone());
    let key = owner.export_write_key("web1").unwrap();
    let credential = Credential::WriteKey(key.text);
    let writer = open_with(store.clone(), &credential, None, 2).unwrap();
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &some_files(5));
    assert!(back_up(&writer, &host, &[&web]).unwrap().complete);
    let again = back_up(&writer, &host, &[&web]).unwrap();
    assert_eq!(again.chunks_new, 0, "it knows what it stored itself");
    let refused = bring_back(&writer, &web).map(drop);
    assert!(
        matches!(
            refused,
            Err(podkeep_engine::operations::OperationError::Repository(
                RepoError::KeyInsufficient { .. }
            ))
        ),
        "{refused:?}"
    );
    let (restored, _, _) = bring_back(&owner, &web).unwrap();
    assert!(restored == some_files(5));
}

#[test]
fn what_a_write_key_stored_counts_for_others_only_once_endorsed() {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let owner = open(store.clone());
    let key = owner.export_write_key("web1").unwrap();
    let writer = open_with(store.clone(), &Credential::WriteKey(key.text), None, 2).unwrap();
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &some_files(5));
    back_up(&writer, &host, &[&web]).unwrap();
    let mine = back_up(&owner, &host, &[&web]).unwrap();
    assert!(mine.chunks_new > 0, "nobody vouched for these chunks");
    let other = open_with(
        store.clone(),
        &Credential::WriteKey(owner.export_write_key("web2").unwrap().text),
        None,
        3,
    )
    .unwrap();
    let theirs = back_up(&other, &host, &[&web]).unwrap();
    assert_eq!(
        theirs.chunks_new, 0,
        "the owner's chunks count for everybody"
    );

    let fresh = item("/srv/fresh");
    let host = MemoryHost::with(&fresh, &some_files(50));
    back_up(&writer, &host, &[&fresh]).unwrap();
    let options = podkeep_engine::operations::CheckOptions {
        endorse: true,
        ..Default::default()
    };
    let monitor = podkeep_engine::monitor::Collect::default();
    let report = podkeep_engine::operations::check::check(&owner, &options, &monitor).unwrap();
    assert_eq!(report.damaged, 0);
    let endorsed = back_up(&owner, &host, &[&fresh]).unwrap();
    assert_eq!(endorsed.chunks_new, 0, "checked by the owner, so it counts");
}
