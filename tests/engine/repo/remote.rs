//! A repository behind a link: everything works as it does here, and costs a bounded number of
//! requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use podkeep_engine::link::{Ask, Unanswered};
use podkeep_engine::operations::OperationError;
use podkeep_engine::repo::{Credential, Repository};
use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::Op;
use podkeep_engine::store::remote::RemoteStore;
use podkeep_engine::store::{ObjectStore, StoreErrorKind};

use podkeep_format::wire::{Action, Failure, FailureCode, OwnerBatch, Reply, Request};

use super::memory_host::MemoryHost;
use super::{back_up, bring_back, check_all, full, init, item, open_with, some_files};
use crate::store::remote::{over, raw_append_only};

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

/// Each message of the protocol, for each object of a repository, in the hands of somebody who has the key of
/// ssh and a write key: nothing is deleted or changed, and nothing that can be read is what was saved.
#[test]
fn every_message_to_an_append_only_end_leaves_what_is_stored() {
    const SAVED: &[u8] = b"what nobody else may read, in a file of its own";
    let memory = MemoryStore::new();
    init(&memory);
    let repo = open_with(Arc::new(memory.clone()), &full(), None, 1).unwrap();
    let web = item("/srv/web");
    let mut files = some_files(1);
    files.insert("note".into(), SAVED.to_vec());
    back_up(&repo, &MemoryHost::with(&web, &files), &[&web]).unwrap();
    let key = repo.export_write_key("thief").unwrap();
    let stored = || -> BTreeMap<String, Vec<u8>> {
        let objects = memory.list("").unwrap().into_iter();
        objects
            .map(|one| {
                let bytes = memory.get(&one.name, u64::MAX).unwrap();
                (one.name.to_string(), bytes)
            })
            .collect()
    };
    let before = stored();
    assert!(before.len() > 6, "{:?}", before.keys());
    let link = raw_append_only(Arc::new(memory.clone()));
    let opened = link.ask(
        &Request::Open {
            path: b"/".to_vec(),
        },
        b"",
    );
    opened.unwrap();
    let other = b"something else".as_slice();
    let hash = *blake3::hash(other).as_bytes();
    let len = other.len() as u64;
    let mut read = Vec::new();
    for name in before.keys() {
        let mut owners = OwnerBatch::default();
        owners.push(name.clone()).unwrap();
        let folder = name.split('/').next().unwrap_or_default().to_owned();
        let failure = Failure {
            code: FailureCode::Io,
            action: Action::Open,
            object: name.clone(),
            cause: String::new(),
        };
        let all = [
            Request::Open {
                path: name.clone().into_bytes(),
            },
            Request::Make {
                path: b"/".to_vec(),
            },
            Request::Put {
                name: name.clone(),
                len,
                hash,
            },
            Request::Replace {
                name: name.clone(),
                len,
                hash,
            },
            Request::Get {
                name: name.clone(),
                bytes_max: 1 << 20,
            },
            Request::GetRange {
                name: name.clone(),
                offset: 0,
                len: 16,
            },
            Request::Size { name: name.clone() },
            Request::List { folder },
            Request::Delete { name: name.clone() },
            Request::TempOwner {
                owner: name.clone(),
            },
            Request::TempOwners,
            Request::SweepTemps(owners),
            Request::Order {
                order: br#"{"order":"finish"}"#.to_vec(),
                bytes_max: 1 << 20,
            },
            Request::Work {
                job: b"{}".to_vec(),
                bytes_max: 1 << 20,
            },
            Request::Next,
            Request::Hear,
            Request::Fetch {
                call: 0,
                bytes_max: 16,
            },
            Request::Give {
                call: 0,
                outcome: Err(failure),
                len: 0,
                hash: *blake3::hash(b"").as_bytes(),
            },
            Request::Stop { signal: 15 },
        ];
        for request in all {
            let content = match &request {
                Request::Put { .. } | Request::Replace { .. } => other,
                _ => b"",
            };
            let answer = link.ask(&request, content);
            let is_refused = matches!(answer, Err(Unanswered::Failed(_)));
            match request {
                Request::Get { .. } | Request::GetRange { .. } | Request::Size { .. } => {}
                Request::List { .. } | Request::TempOwner { .. } | Request::TempOwners => {}
                // A name that is taken is no error, and nothing is put.
                Request::Put { .. } => {}
                _ => assert!(is_refused, "{request:?}: {answer:?}"),
            }
            if let Ok(Reply::Content(bytes)) = answer {
                read.push(bytes);
            }
            for (name, bytes) in &before {
                assert!(
                    stored().get(name) == Some(bytes),
                    "{name} after {request:?}"
                );
            }
        }
    }
    assert!(read.len() >= before.len(), "{} pieces", read.len());
    let is_in = |bytes: &[u8]| bytes.windows(SAVED.len()).any(|part| part == SAVED);
    assert!(!read.iter().any(|bytes| is_in(bytes)));
    assert!(
        is_in(&[b"...", SAVED, b"..."].concat()),
        "the search itself"
    );
    // And what the write key opens reads nothing of it.
    let thief = Credential::WriteKey(key.text);
    let thief = open_with(Arc::new(memory.clone()), &thief, None, 2).unwrap();
    assert!(matches!(
        bring_back(&thief, &web),
        Err(OperationError::Repository(_))
    ));
}
