//! What goes in comes out; what is known is not stored again.

use std::sync::Arc;

use podkeep_engine::monitor::Collect;
use podkeep_engine::repo::{Credential, InitOptions, RepoError, Repository};
use podkeep_engine::store::ObjectStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::{Op, Recording};
use podkeep_format::endorsement::{Endorsement, endorsement_id};
use podkeep_format::frame::{SessionKeys, Statement};
use podkeep_format::id::{RunId, SegmentId, SnapshotId};
use podkeep_format::names;
use podkeep_format::run::RunRecord;
use podkeep_format::seal::{Secret, SessionSeal};
use podkeep_format::tree::Time;

use super::memory_host::MemoryHost;
use super::{
    PASSPHRASE, back_up, bring_back, check_all, full, init, item, open, open_with, some_files,
};

fn prepared() -> (Arc<Recording<MemoryStore>>, Repository) {
    let store = Arc::new(Recording::new(MemoryStore::new()));
    init(&*store);
    let repo = open(store.clone());
    (store, repo)
}

#[test]
fn what_is_backed_up_comes_back() {
    let (_, repo) = prepared();
    let web = item("/srv/web");
    let files = some_files(1);
    let report = back_up(&repo, &MemoryHost::with(&web, &files), &[&web]).unwrap();
    assert!(report.complete && report.run.is_some());
    let (restored, report, findings) = bring_back(&repo, &web).unwrap();
    assert!(restored == files, "contents differ");
    assert_eq!(report.files, files.len() as u64);
    assert!(findings.is_empty(), "{findings:?}");
    let (report, findings) = check_all(&repo).unwrap();
    assert_eq!((report.damaged, report.healed), (0, 0), "{findings:?}");
    assert!(report.packs > 0 && report.packs_read == report.packs);
}

#[test]
fn an_unchanged_backup_stores_no_chunk() {
    let (store, repo) = prepared();
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &some_files(1));
    let first = back_up(&repo, &host, &[&web]).unwrap();
    store.take();
    let second = back_up(&repo, &host, &[&web]).unwrap();
    assert_eq!(second.chunks_new, 0);
    assert_eq!(store.count(Op::PutNew, "packs/"), 0);
    assert_eq!(store.count(Op::PutNew, "index/"), 0);
    assert!(second.bytes_added < 50 << 10, "{}", second.bytes_added);
    assert_eq!(first.items[0].root, second.items[0].root);
}

#[test]
fn stored_bytes_are_counted_to_the_last_one() {
    let (store, repo) = prepared();
    let before: u64 = store.list("").unwrap().iter().map(|m| m.size).sum();
    let web = item("/srv/web");
    let report = back_up(&repo, &MemoryHost::with(&web, &some_files(1)), &[&web]).unwrap();
    let after: u64 = store.list("").unwrap().iter().map(|m| m.size).sum();
    assert_eq!(report.bytes_added, after - before);
}

#[test]
fn what_the_format_lets_be_large_is_read_back() {
    let (_, repo) = prepared();
    let vault = repo.vault();
    let author = repo.author();
    // 22 MB of ids, a third of what either object may have.
    let ids = (0..700_000u32).map(|n| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        id
    });
    let endorsement = Endorsement {
        author: author.id(),
        segments: ids.clone().map(SegmentId).collect(),
        layers: Vec::new(),
        time: Time::default(),
    };
    let bytes = endorsement
        .seal(repo.id(), &vault.index, author, &[1; 32])
        .unwrap();
    let object = names::endorsement(endorsement_id(&bytes));
    repo.put(&object, &bytes).unwrap();
    let record = RunRecord {
        run: RunId([1; RunId::LEN]),
        author: author.id(),
        host: repo.host(),
        host_name: repo.host_name().to_owned(),
        snapshots: ids.map(SnapshotId).collect(),
        items_failed: Vec::new(),
        scope_all: false,
        tags: Vec::new(),
        started: Time::default(),
        finished: Time::default(),
        zone_minutes: 0,
        complete: true,
        bytes_read: 0,
        bytes_logical: 0,
        bytes_added: 0,
        files: 0,
    };
    let session = Secret([2; 32]);
    let seal = SessionSeal::seal(&session, &vault.public, repo.id(), author.id(), &[3; 32]);
    let keys = SessionKeys {
        repository: repo.id(),
        author,
        session: &session,
        seal: &seal.unwrap(),
        salt: [4; 32],
    };
    repo.put(&names::run(record.run), &record.seal(&keys).unwrap())
        .unwrap();

    let monitor = Collect::default();
    assert_eq!(repo.endorsed(&monitor).unwrap().segments.len(), 700_000);
    assert!(repo.runs(&monitor).unwrap().remove(&record.run) == Some(record));
    let findings = monitor.findings.into_inner().unwrap();
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn e_19_without_or_with_a_damaged_cache_everything_is_the_same() {
    let (store, _) = prepared();
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &some_files(1));
    let cache = tempfile::tempdir().unwrap();
    let at = |folder: &std::path::Path| {
        open_with(store.clone(), &full(), Some(folder.to_owned()), 1).unwrap()
    };
    let first = back_up(&at(cache.path()), &host, &[&web]).unwrap();
    let mut stack = vec![cache.path().to_owned()];
    let mut damaged = 0;
    while let Some(folder) = stack.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                stack.push(path);
            } else if !path.components().any(|c| c.as_os_str() == "pins") {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 0x55;
                }
                std::fs::write(&path, bytes).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
    let foreign = tempfile::tempdir().unwrap();
    for folder in [cache.path(), foreign.path()] {
        let again = back_up(&at(folder), &host, &[&web]).unwrap();
        assert_eq!(again.chunks_new, 0);
        assert_eq!(again.items[0].root, first.items[0].root);
    }
}

#[test]
fn a_wrong_passphrase_opens_nothing_and_writes_nothing() {
    let (store, _) = prepared();
    store.take();
    let wrong = Credential::Passphrase(b"wrong".to_vec().into());
    let refused = open_with(store.clone(), &wrong, None, 1).map(drop);
    assert!(
        matches!(refused, Err(RepoError::WrongPassphrase)),
        "{refused:?}"
    );
    assert!(store.take().iter().all(|record| !record.op.writes()));
}

#[test]
fn an_empty_place_is_no_repository_and_a_second_init_is_refused() {
    let store = Arc::new(MemoryStore::new());
    let none = open_with(store.clone(), &full(), None, 1).map(drop);
    assert!(matches!(none, Err(RepoError::NoRepository { .. })));
    init(&*store);
    let options = InitOptions {
        like: None,
        reserve_bytes: 0,
        label: String::new(),
    };
    let again = Repository::init(&*store, PASSPHRASE, &options);
    assert!(matches!(again, Err(RepoError::Occupied { .. })));
}

#[test]
fn passphrases_change_without_a_moment_that_none_opens() {
    let (store, repo) = prepared();
    repo.change_passphrase(PASSPHRASE, b"new one", "new")
        .unwrap();
    let with = |text: &[u8]| {
        open_with(
            store.clone(),
            &Credential::Passphrase(text.to_vec().into()),
            None,
            1,
        )
    };
    assert!(with(b"new one").is_ok());
    assert!(matches!(
        with(PASSPHRASE).map(drop),
        Err(RepoError::WrongPassphrase)
    ));
    let last = repo.slots().unwrap()[0].id.to_hex();
    assert!(matches!(
        repo.remove_slot(&last),
        Err(RepoError::Refused { .. })
    ));
}

#[test]
fn a_repository_that_was_swapped_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let open_cached = |store: Arc<MemoryStore>| {
        open_with(store, &full(), Some(cache.path().to_owned()), 1).map(drop)
    };
    let first = Arc::new(MemoryStore::new());
    let other = Arc::new(MemoryStore::new());
    init(&*first);
    init(&*other);
    assert_eq!(first.place(), other.place());
    assert!(open_cached(first).is_ok());
    assert!(matches!(open_cached(other), Err(RepoError::Swapped { .. })));
}
