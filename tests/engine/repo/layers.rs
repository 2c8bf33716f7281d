//! Layer records: who finds a layer that is stored, and whose word counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use podkeep_engine::monitor::{Collect, Finding, FindingKind};
use podkeep_engine::operations::{CheckOptions, check};
use podkeep_engine::repo::index::Index;
use podkeep_engine::repo::layers::KnownLayer;
use podkeep_engine::repo::reader::Reader;
use podkeep_engine::repo::{Credential, RepoError, Repository};
use podkeep_engine::store::ObjectStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::{Op, Recording};
use podkeep_format::id::ChunkId;

use super::tars::{Session, Tar, prepared, reader};
use super::{check_all, full, open, open_with};

#[test]
fn a_layer_that_was_stored_is_known_afterwards() {
    let (store, repo) = prepared();
    let tar = Tar::sample(1);
    let mut session = Session::open(&repo).unwrap();
    assert_eq!(session.find(&tar), None);
    let layer = session.keep(&tar).unwrap();
    assert_eq!(session.find(&tar), Some(layer), "in the same run");
    assert_eq!(session.find(&Tar::sample(2)), None);
    drop(session);
    // Another host has no cache of it.
    let other = open_with(store.clone(), &full(), None, 2).unwrap();
    let mut session = Session::open(&other).unwrap();
    assert_eq!(session.find(&tar), Some(layer));
    assert_eq!(session.find(&Tar::sample(2)), None);
    let (again, _) = session.store(&tar, tar.diff_id()).unwrap();
    assert_eq!(again, layer, "the same recipe");
    assert_eq!(session.writer.counts().chunks_new, 0);
    assert!(session.findings().is_empty());
    assert_eq!(store.list("layers").unwrap().len(), 1);
}

#[test]
fn a_layer_of_which_a_chunk_is_gone_is_not_known() {
    let (store, repo) = prepared();
    let (tar, other) = (Tar::sample(1), Tar::sample(900));
    let mut session = Session::open(&repo).unwrap();
    let layer = session.keep(&tar).unwrap();
    let (_, chunks) = session.store(&tar, tar.diff_id()).unwrap();
    drop(session);
    let mut session = Session::open(&repo).unwrap();
    let kept = session.keep(&other).unwrap();
    drop(session);
    let reader = reader(&repo);
    let mut packs = BTreeSet::new();
    for id in &chunks {
        packs.insert(reader.index().places(id)[0].block.pack);
    }
    assert!(packs.len() > 1, "data and recipe lie apart");
    for pack in packs {
        let store = Arc::new(super::copy(&*store));
        let name = podkeep_engine::repo::name(podkeep_format::names::pack(pack)).unwrap();
        assert!(store.delete(&name).unwrap());
        let repo = open(store);
        let mut session = Session::open(&repo).unwrap();
        assert_eq!(session.find(&tar), None, "{pack}");
        assert_eq!(session.find(&other), Some(kept), "{pack}");
        // Stored anew, it is known again: the old record holds.
        session.store(&tar, tar.diff_id()).unwrap();
        session.writer.flush().unwrap();
        drop(session);
        let mut session = Session::open(&repo).unwrap();
        assert_eq!(session.find(&tar), Some(layer), "{pack}");
    }
}

#[test]
fn a_damaged_record_costs_a_note_and_the_layer_is_read() {
    let (store, repo) = prepared();
    let tar = Tar::sample(1);
    Session::open(&repo).unwrap().keep(&tar).unwrap();
    let listed = store.list("layers").unwrap();
    let [record] = &listed[..] else {
        panic!("{listed:?}")
    };
    let bytes = store.get(&record.name, u64::MAX).unwrap();
    let damages: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes[100] ^= 1,
        |bytes| bytes.truncate(40),
        Vec::clear,
    ];
    for damage in damages {
        assert!(store.damage(&record.name, damage));
        let mut session = Session::open(&repo).unwrap();
        assert_eq!(session.find(&tar), None);
        let findings = session.findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].kind, FindingKind::Note);
        assert_eq!(findings[0].object, record.name.as_str());
        assert!(store.damage(&record.name, |now| *now = bytes.clone()));
    }
    // One that prune deletes after it was listed is not worth a word.
    let mut session = Session::open(&repo).unwrap();
    assert!(store.delete(&record.name).unwrap());
    assert_eq!(session.find(&tar), None);
    assert!(session.findings().is_empty());
    store.put_new(&record.name, &bytes).unwrap();
    // Good bytes under the name of another layer are no record of it.
    let other = Tar::sample(2);
    let key = repo.vault().ids.layer_key(&other.diff_id()).to_hex();
    let name = format!("layers/{key}{}", &record.name.as_str()[7 + 64..]);
    let name = podkeep_engine::repo::name(name).unwrap();
    store.put_new(&name, &bytes).unwrap();
    let mut session = Session::open(&repo).unwrap();
    assert_eq!(session.find(&other), None);
    assert_eq!(session.findings().len(), 1);
    assert!(session.find(&tar).is_some());
}

fn write_key(store: &Arc<MemoryStore>, owner: &Repository, host: u8) -> Repository {
    let key = owner.export_write_key("web1").unwrap();
    open_with(store.clone(), &Credential::WriteKey(key.text), None, host).unwrap()
}

#[test]
fn nobody_takes_a_write_keys_word_for_a_layer() {
    let (store, owner) = prepared();
    let web1 = write_key(&store, &owner, 2);
    let web2 = write_key(&store, &owner, 3);
    let tar = Tar::sample(1);
    // The owner has all chunks, so that only the record is in question.
    let mut session = Session::open(&owner).unwrap();
    let (layer, chunks) = session.store(&tar, tar.diff_id()).unwrap();
    session.commit().unwrap();
    drop(session);
    let mut session = Session::open(&web1).unwrap();
    session.records.add(&web1, layer, chunks);
    session.commit().unwrap();
    drop(session);
    assert_eq!(store.list("layers").unwrap().len(), 1);
    for (repo, believes) in [(&web1, true), (&web2, false), (&owner, false)] {
        let mut session = Session::open(repo).unwrap();
        assert_eq!(session.find(&tar).is_some(), believes);
        assert!(session.findings().is_empty());
    }
    // The owner's own counts for everybody.
    let mut session = Session::open(&owner).unwrap();
    let kept = session.keep(&tar).unwrap();
    drop(session);
    for repo in [&web1, &web2, &owner] {
        let mut session = Session::open(repo).unwrap();
        assert_eq!(session.find(&tar), Some(kept));
    }
}

#[test]
fn a_write_key_cannot_read_a_recipe() {
    let (store, owner) = prepared();
    let web1 = write_key(&store, &owner, 2);
    let index = Arc::new(Index::load(&web1, &Collect::default()).unwrap());
    let refused = Reader::new(&web1, index).map(drop);
    assert!(matches!(refused, Err(RepoError::KeyInsufficient { .. })));
}

fn endorse(repo: &Repository) -> (u64, Vec<Finding>) {
    let options = CheckOptions {
        endorse: true,
        ..CheckOptions::default()
    };
    let monitor = Collect::default();
    let report = check::check(repo, &options, &monitor).unwrap();
    (report.damaged, monitor.findings.into_inner().unwrap())
}

#[test]
fn a_layer_of_a_write_key_counts_for_all_once_it_was_rebuilt() {
    let (store, owner) = prepared();
    let web1 = write_key(&store, &owner, 2);
    let web2 = write_key(&store, &owner, 3);
    let tar = Tar::sample(1);
    let layer = Session::open(&web1).unwrap().keep(&tar).unwrap();
    assert_eq!(Session::open(&web2).unwrap().find(&tar), None);
    let (damaged, findings) = endorse(&owner);
    assert_eq!((damaged, &findings[..]), (0, &[][..]));
    for repo in [&web1, &web2, &owner] {
        assert_eq!(Session::open(repo).unwrap().find(&tar), Some(layer));
    }
    // The second time there is nothing left to vouch for.
    let endorsements = store.list("endorsements").unwrap().len();
    assert_eq!(endorse(&owner).0, 0);
    assert_eq!(store.list("endorsements").unwrap().len(), endorsements);
}

/// A write key says of a layer what is not so, in every way; all chunks are there and endorsed.
#[test]
fn a_false_record_is_never_endorsed() {
    let (store, owner) = prepared();
    let (tar, other) = (Tar::sample(1), Tar::sample(2));
    let mut session = Session::open(&owner).unwrap();
    let (true_layer, chunks) = session.store(&tar, tar.diff_id()).unwrap();
    // A recipe that rebuilds one tar and says that it is the other one.
    let (posing, posing_chunks) = session.store(&tar, other.diff_id()).unwrap();
    session.commit().unwrap();
    drop(session);
    let smaller = chunks.iter().copied().filter(|id| *id != true_layer.recipe);
    let smaller: BTreeSet<ChunkId> = smaller.skip(1).chain([true_layer.recipe]).collect();
    let larger: BTreeSet<ChunkId> = chunks.union(&posing_chunks).copied().collect();
    let lies = [
        (
            "another layer's name",
            KnownLayer {
                diff_id: other.diff_id(),
                ..true_layer
            },
            chunks.clone(),
        ),
        ("another layer's tar", posing, posing_chunks),
        ("a chunk less", true_layer, smaller),
        ("a chunk more", true_layer, larger),
        (
            "another size",
            KnownLayer {
                size: true_layer.size - 1,
                ..true_layer
            },
            chunks,
        ),
    ];
    for (what, layer, chunks) in lies {
        let store = Arc::new(super::copy(&*store));
        let owner = open(store.clone());
        let web1 = write_key(&store, &owner, 2);
        let mut session = Session::open(&web1).unwrap();
        session.records.add(&web1, layer, chunks);
        session.commit().unwrap();
        drop(session);
        let lied_of = [&tar, &other].map(|tar| tar.diff_id() == layer.diff_id);
        let (damaged, findings) = endorse(&owner);
        assert_eq!(damaged, 1, "{what}: {findings:?}");
        let told = &findings[0];
        assert!(told.object.starts_with("layers/"), "{what}: {told:?}");
        assert!(told.message.contains("not endorsed"), "{what}: {told:?}");
        let author = web1.author().id().to_hex();
        assert!(told.message.contains(&author), "{what}: {told:?}");
        assert!(store.list("endorsements").unwrap().is_empty(), "{what}");
        for (tar, lied) in [&tar, &other].into_iter().zip(lied_of) {
            let web2 = write_key(&store, &owner, 3);
            for repo in [&owner, &web2] {
                assert_eq!(Session::open(repo).unwrap().find(tar), None, "{what}");
            }
            let own = Session::open(&web1).unwrap().find(tar);
            assert_eq!(own.is_some(), lied, "{what}");
        }
        // Without the owner's word nobody relies on it, so that it is no damage by itself.
        let (report, findings) = check_all(&owner).unwrap();
        assert_eq!(report.damaged, 0, "{what}: {findings:?}");
    }
}

/// Many records that do not count cost a bounded number of reads, and do not hide an endorsed one.
#[test]
fn a_flood_of_records_hides_no_endorsed_one() {
    let (store, owner) = prepared();
    let web1 = write_key(&store, &owner, 2);
    let tar = Tar::sample(1);
    let layer = Session::open(&web1).unwrap().keep(&tar).unwrap();
    assert_eq!(endorse(&owner).0, 0);
    let web2 = write_key(&store, &owner, 3);
    let mut session = Session::open(&web2).unwrap();
    for _ in 0..40 {
        let chunks = BTreeSet::from([layer.recipe]);
        session.records.add(&web2, layer, chunks);
    }
    session.commit().unwrap();
    drop(session);
    assert_eq!(store.list("layers").unwrap().len(), 41);
    let recorded = Arc::new(Recording::new(super::copy(&*store)));
    let owner = open(recorded.clone());
    let mut session = Session::open(&owner).unwrap();
    assert_eq!(session.find(&tar), Some(layer));
    assert_eq!(recorded.count(Op::Get, "layers/"), 1);
    // Where none is endorsed, only so many are looked at.
    for endorsement in store.list("endorsements").unwrap() {
        store.delete(&endorsement.name).unwrap();
    }
    let recorded = Arc::new(Recording::new(super::copy(&*store)));
    let owner = open(recorded.clone());
    let mut session = Session::open(&owner).unwrap();
    assert_eq!(session.find(&tar), None);
    assert_eq!(recorded.count(Op::Get, "layers/"), 16);
    // A layer that nobody wants costs nothing.
    assert_eq!(session.find(&Tar::sample(2)), None);
    assert_eq!(recorded.count(Op::Get, "layers/"), 16);
}

/// A record that counts and is not true would cost the layer of the next backup: check finds it.
#[test]
fn check_finds_a_false_record_that_counts() {
    let (store, owner) = prepared();
    let tar = Tar::sample(1);
    let mut session = Session::open(&owner).unwrap();
    let (layer, chunks) = session.store(&tar, tar.diff_id()).unwrap();
    session.commit().unwrap();
    let fewer = chunks.iter().copied().filter(|id| *id != layer.recipe);
    let fewer = fewer.skip(1).chain([layer.recipe]).collect();
    session.records.add(&owner, layer, fewer);
    session.commit().unwrap();
    drop(session);
    let (report, findings) = check_all(&owner).unwrap();
    assert_eq!(report.damaged, 1, "{findings:?}");
    assert!(findings[0].object.starts_with("layers/"), "{findings:?}");
    // A true one beside it is none; nor is one of which something is gone, but it is told.
    let store = Arc::new(super::copy(&*store));
    for record in store.list("layers").unwrap() {
        store.delete(&record.name).unwrap();
    }
    let owner = open(store.clone());
    Session::open(&owner).unwrap().keep(&tar).unwrap();
    assert_eq!(check_all(&owner).unwrap().0.damaged, 0);
    for pack in store.list("packs").unwrap() {
        store.delete(&pack.name).unwrap();
    }
    let (report, findings) = check_all(&owner).unwrap();
    assert_eq!(report.damaged, 0, "{findings:?}");
    let told = |f: &Finding| f.object.starts_with("layers/") && f.kind == FindingKind::Note;
    assert!(findings.iter().any(told), "{findings:?}");
}
