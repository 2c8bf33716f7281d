//! Every kind of object damaged in every way: found or healed, named, and nothing wrong restored.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use podkeep_engine::monitor::{Collect, FindingKind};
use podkeep_engine::operations::{
    CheckOptions, OperationError, SnapSpec, SnapWhich, check, ls, snapshots,
};
use podkeep_engine::repo::layers::{KnownLayer, LayerRecords};
use podkeep_engine::repo::lease::HeldLease;
use podkeep_engine::repo::{Repository, listed, now, random};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::{ObjectName, ObjectStore};
use podkeep_format::endorsement::{Endorsement, endorsement_id};
use podkeep_format::fence::Verdict;
use podkeep_format::frame::Statement;
use podkeep_format::id::{ChunkId, DiffId, PackId, SegmentId};
use podkeep_format::lease::Purpose;
use podkeep_format::names;
use podkeep_format::pack::{PackTail, TRAILER_TAIL_BYTES};
use podkeep_format::tombstone::Tombstone;

use super::memory_host::MemoryHost;
use super::schedule::Stage;
use super::{
    back_up, bring_back, bring_back_watched, check_all, copy, full, init, item, noise, open,
    open_with, some_files,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Flip,
    Truncate,
    Remove,
    Empty,
    /// Other bytes, as many.
    Garbage,
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
        How::Empty => assert!(store.damage(object, Vec::clear)),
        How::Garbage => assert!(store.damage(object, |bytes| *bytes = noise(77, bytes.len()))),
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

/// A pack of which every block can be read was called damaged without a word on what that means. What
/// stands in it twice, or is known besides, is put right.
#[test]
fn e_08_a_pack_that_is_damaged_beside_its_blocks_is_put_right_or_said_to_be_readable() {
    let intact = prepared();
    let ends = |bytes: &[u8]| {
        let start = bytes.len() - TRAILER_TAIL_BYTES;
        PackTail::decode(bytes.len() as u64, &bytes[start..]).unwrap()
    };
    type Where = fn(&PackTail, usize) -> usize;
    let parts: [(&str, Where); 7] = [
        ("(its header was damaged)", |_, _| 0),
        // The lease: such a header can be decoded still.
        ("(its header was damaged)", |_, _| 20),
        ("(the copy of its header was damaged)", |tail, _| {
            tail.toc_position as usize + tail.toc_len + 20
        }),
        ("(its trailer was damaged)", |_, len| len - 1),
        ("(its trailer was damaged)", |_, len| len - 10),
        ("(its trailer was damaged)", |_, len| len - 16),
        ("(its table of contents or its trailer is", |tail, _| {
            tail.toc_position as usize + 3
        }),
    ];
    for object in objects(&intact, "packs") {
        for (said, place) in parts {
            let store = Arc::new(copy(&*intact));
            store.damage(&object, |bytes| {
                let at = place(&ends(bytes), bytes.len());
                bytes[at] ^= 1;
            });
            let repo = open(store.clone());
            let (report, findings) = check_all(&repo).unwrap();
            let [finding] = &findings[..] else {
                panic!("{said}: {findings:?}")
            };
            assert_eq!(finding.object, object.as_str());
            let message = &finding.message;
            assert!(message.contains(said), "{message}");
            let is_right =
                store.get(&object, u64::MAX).unwrap() == intact.get(&object, u64::MAX).unwrap();
            match said.contains("was damaged") {
                true => {
                    assert_eq!((report.damaged, report.healed), (0, 1), "{findings:?}");
                    assert_eq!(finding.kind, FindingKind::Healed);
                    assert!(is_right, "{said}");
                    assert_eq!(check_all(&repo).unwrap().1, []);
                }
                false => {
                    assert_eq!((report.damaged, report.healed), (1, 0), "{findings:?}");
                    assert!(message.ends_with("can still be read"), "{message}");
                    assert!(!is_right);
                }
            }
            let (restored, report, _) = bring_back(&repo, &item("/srv/web")).unwrap();
            assert!(restored == some_files(1) && report.warnings == 0, "{said}");
        }
    }
}

/// One lost pack made every other missing one damage, also those that no snapshot needs.
#[test]
fn e_11_a_missing_pack_is_damage_only_where_something_that_counts_is_lost_with_it() {
    let store = prepared();
    let repo = open(store.clone());
    let needed = objects(&store, "packs");
    let other = item("/srv/other");
    let files = [("gone".to_owned(), noise(5, 90_000))].into();
    back_up(&repo, &MemoryHost::with(&other, &files), &[&other]).unwrap();
    // Forgotten and half pruned: the snapshot and the packs are gone, the segment is not.
    for snapshot in repo.snapshots(&Collect::default()).unwrap() {
        if snapshot.header.item == other {
            for second in [false, true] {
                let object = ObjectName::parse(&names::snapshot(snapshot.id, second)).unwrap();
                hurt(&store, &object, How::Remove);
            }
        }
    }
    let mut unneeded = Vec::new();
    for object in objects(&store, "packs") {
        if !needed.contains(&object) {
            hurt(&store, &object, How::Remove);
            unneeded.push(object);
        }
    }
    assert!(!unneeded.is_empty());
    for lost in &needed {
        let store = Arc::new(copy(&*store));
        hurt(&store, lost, How::Remove);
        let (report, findings) = check_all(&open(store)).unwrap();
        assert_eq!(report.damaged, 2, "the item and its pack: {findings:?}");
        for pack in unneeded.iter().chain([lost]) {
            let finding = findings.iter().find(|f| f.object == pack.as_str());
            let kind = match pack == lost {
                true => FindingKind::Damaged,
                false => FindingKind::Note,
            };
            assert_eq!(finding.map(|f| f.kind), Some(kind), "{pack}: {findings:?}");
        }
    }
}

/// A prune that was cut off leaves tombstones on packs that a slow backup came to need.
#[test]
fn e_04_a_pack_with_a_tombstone_is_there_until_it_is_deleted() {
    let store = prepared();
    let repo = open(store.clone());
    let lease = HeldLease::take(&repo, Purpose::Prune).unwrap();
    for object in objects(&store, "packs") {
        let tombstone = Tombstone {
            pack: listed::pack(object.as_str()).unwrap(),
            prune: lease.id(),
            author: repo.author().id(),
            time: now(),
        };
        let (index, salt) = (&repo.vault().index, random().unwrap());
        let bytes = tombstone.seal(repo.id(), index, repo.author(), &salt);
        repo.put(&names::tombstone(tombstone.pack), &bytes.unwrap())
            .unwrap();
    }
    let (report, findings) = check_all(&repo).unwrap();
    assert_eq!(report.damaged, 0, "{findings:?}");
    let (restored, report, _) = bring_back(&repo, &item("/srv/web")).unwrap();
    assert!(restored == some_files(1) && report.warnings == 0);
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

/// Longer than any of these takes, and short of what anybody would call a hang.
const HANGS: Duration = Duration::from_secs(60);

/// What a command says of a damaged repository: its error and its findings, as text.
type Command = fn(&Repository) -> Vec<String>;

fn texts(error: Option<OperationError>, monitor: Collect) -> Vec<String> {
    let findings = monitor.findings.into_inner().unwrap().into_iter();
    let lines = findings.map(|f| format!("{}: {}", f.object, f.message));
    lines.chain(error.map(|e| e.to_string())).collect()
}

fn restores(repo: &Repository) -> Vec<String> {
    let monitor = Collect::default();
    let error = bring_back_watched(repo, &item("/srv/web"), &monitor).err();
    texts(error, monitor)
}

fn checks(repo: &Repository) -> Vec<String> {
    let monitor = Collect::default();
    let options = CheckOptions {
        read_data_percent: Some(100),
        ..CheckOptions::default()
    };
    texts(check::check(repo, &options, &monitor).err(), monitor)
}

fn lists(repo: &Repository) -> Vec<String> {
    let monitor = Collect::default();
    let spec = SnapSpec {
        which: SnapWhich::Latest(0),
        host: None,
    };
    let listed = snapshots::snapshots(repo, None, &monitor).and_then(|_| {
        ls::ls(
            repo,
            &spec,
            None,
            &mut |_| ControlFlow::Continue(()),
            &monitor,
        )
    });
    texts(listed.err(), monitor)
}

/// One of each kind that a backup does not leave behind.
fn put_other_kinds(repo: &Repository) {
    repo.export_write_key("web1").unwrap();
    let lease = HeldLease::take(repo, Purpose::Write).unwrap();
    // Its owner is killed: nothing gives it back.
    let id = lease.id();
    std::mem::forget(lease);
    let (index, author) = (&repo.vault().index, repo.author());
    let (salt, time) = (random().unwrap(), now());
    let verdict = Verdict {
        lease: id,
        prune: id,
        author: author.id(),
        snapshots: Vec::new(),
        time,
    };
    super::fences::fence(repo, id);
    let bytes = verdict.seal(repo.id(), index, author, &salt).unwrap();
    repo.put(&names::verdict(id), &bytes).unwrap();
    let pack = PackId([1; 32]);
    let tombstone = Tombstone {
        pack,
        prune: id,
        author: author.id(),
        time,
    };
    let bytes = tombstone.seal(repo.id(), index, author, &salt).unwrap();
    repo.put(&names::tombstone(pack), &bytes).unwrap();
    let endorsement = Endorsement {
        author: author.id(),
        segments: vec![SegmentId([1; 32])],
        layers: Vec::new(),
        time,
    };
    let bytes = endorsement.seal(repo.id(), index, author, &salt).unwrap();
    repo.put(&names::endorsement(endorsement_id(&bytes)), &bytes)
        .unwrap();
    let layer = KnownLayer {
        diff_id: DiffId([1; 32]),
        recipe: ChunkId([1; 32]),
        size: 1,
    };
    let mut records = LayerRecords::list(repo).unwrap();
    records.add(repo, layer, [layer.recipe].into());
    records.put(repo, id).unwrap();
}

/// E-29: a damaged object made a restore of another program wait for ever. Whatever is damaged,
/// in whatever way, `restore`, `check` and listing end; and where something cannot be done any
/// more, what they say names the object, or what is lost of the item.
#[test]
fn e_29_no_damage_makes_a_command_hang() {
    let intact = prepared();
    put_other_kinds(&open(intact.clone()));
    let stage = Stage::new(copy(&*intact), &[]);
    let repo = Arc::new(open(Arc::new(stage.gate(0))));
    let commands: [(&str, Command); 3] = [("restore", restores), ("check", checks), ("ls", lists)];
    let mut damaged = 0;
    for object in objects(&intact, "") {
        // Both copies at once: damage to one is healed, and has its own test.
        let twin = ObjectName::parse(&format!("{object}.2"));
        if object.as_str().ends_with(".2") || object.as_str().starts_with("reserve/") {
            continue;
        }
        for how in [
            How::Flip,
            How::Truncate,
            How::Remove,
            How::Empty,
            How::Garbage,
        ] {
            let store = copy(&*intact);
            hurt(&store, &object, how);
            if let Some(twin) = twin.as_ref().filter(|t| store.size(t).unwrap().is_some()) {
                hurt(&store, twin, how);
            }
            for (name, command) in commands {
                stage.set_store(copy(&store));
                let what = format!("{name} with {how:?} {object}");
                let (tell, told) = std::sync::mpsc::channel();
                let repo = Arc::clone(&repo);
                std::thread::spawn(move || tell.send(command(&repo)));
                let texts = told
                    .recv_timeout(HANGS)
                    .unwrap_or_else(|e| panic!("{what} does not end: {e}"));
                let folder = object.as_str().split_once('/').map(|(folder, _)| folder);
                let must_tell = match folder {
                    // A lease, a tombstone and a fence hold whatever their bytes are.
                    Some("leases" | "tombstones") => false,
                    Some("fences") => object.as_str().ends_with(".verdict") && how != How::Remove,
                    Some("authors" | "endorsements") => how != How::Remove,
                    // What the packs hold stands in for a segment: only check says so.
                    Some("index") => name == "check" && how != How::Remove,
                    // A layer without its record is read again.
                    Some("layers") => name == "check" && how != How::Remove,
                    // Without its record a run is one that was cut off.
                    Some("runs") => how != How::Remove,
                    // One that is gone in both copies cannot be told from a forgotten one.
                    Some("snapshots") => how != How::Remove,
                    Some("packs") => name == "check",
                    // An open repository does not read its config and keys again.
                    _ => name == "check" && how != How::Remove,
                };
                let file = object.as_str().rsplit('/').next().unwrap();
                let named = texts.iter().any(|text| text.contains(file));
                let lost = texts.iter().any(|text| text.contains("/srv/web"));
                assert!(!must_tell || named || lost, "{what}: {texts:?}");
                damaged += 1;
            }
        }
    }
    assert!(damaged > 60, "{damaged}");
}
