//! Snapshots that hold layers: what commands make of a file with a recipe.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use podkeep_engine::host::Existing;
use podkeep_engine::host::local::LocalHost;
use podkeep_engine::monitor::{Collect, Finding, FindingKind};
use podkeep_engine::operations::{
    CheckOptions, ItemPath, OperationResult, RestoreOptions, Selector, SnapSpec, SnapWhich, check,
    dump, ls, restore,
};
use podkeep_engine::repo::{RepoResult, Repository};
use podkeep_engine::store::ObjectName;
use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::id::{ChunkId, ChunkKind, DiffId, ListId, PackId};
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::tree::{Content, ListNode, Node, Piece};

use super::memory_host::{Files, MemoryHost};
use super::tars::{Part, Session, Storing, Tar, file, layer_file, prepared, reader};
use super::{back_up, bring_back, check_all, copy, item, noise, open};

const MANIFEST: &[u8] = b"{\"schemaVersion\":2}";

fn image() -> Item {
    Item::new(ItemKind::Image, *b"localhost/web:1")
}

fn layer_path(number: usize, tar: &Tar) -> String {
    format!("layers/{number:04}-{}.tar", tar.diff_id())
}

/// Backs the image up as a run would: layers that are known are left out.
fn save(repo: &Repository, tars: &[Tar]) -> RepoResult<()> {
    let mut session = Session::open(repo)?;
    let inline = file(MANIFEST.len() as u64, Content::Inline(MANIFEST.to_vec()));
    let mut files: Vec<(String, Node)> = vec![("big-data/manifest".into(), inline)];
    for (number, tar) in tars.iter().enumerate() {
        let layer = match session.try_find(tar)? {
            Some(layer) => layer,
            None => {
                let (layer, chunks) = session.store(tar, tar.diff_id())?;
                session.records.add(repo, layer, chunks);
                // Each layer in packs of its own, apart from the tree.
                session.commit()?;
                layer
            }
        };
        files.push((layer_path(number, tar), layer_file(layer)));
    }
    let files: Vec<(&str, Node)> = files
        .iter()
        .map(|(path, node)| (path.as_str(), node.clone()))
        .collect();
    session.publish(&image(), &files)
}

fn files_of(tars: &[Tar]) -> Files {
    let mut files = Files::from([("big-data/manifest".to_owned(), MANIFEST.to_vec())]);
    for (number, tar) in tars.iter().enumerate() {
        files.insert(layer_path(number, tar), tar.bytes());
    }
    files
}

fn latest() -> SnapSpec {
    SnapSpec {
        which: SnapWhich::Latest(0),
        host: None,
    }
}

fn at(path: &str) -> ItemPath {
    ItemPath {
        selector: Selector {
            item: image(),
            glob: false,
        },
        path: path.as_bytes().to_vec(),
    }
}

fn dumped(repo: &Repository, path: &str) -> OperationResult<Vec<u8>> {
    let mut out = Vec::new();
    let written = dump::dump(repo, &latest(), &at(path), &mut out, &Collect::default())?;
    assert_eq!(written, out.len() as u64);
    Ok(out)
}

/// Restores into a directory, and returns what was found.
fn restore_to(
    repo: &Repository,
    host: &LocalHost,
    to: &Path,
    path: &str,
    existing: Existing,
) -> Vec<Finding> {
    let options = RestoreOptions {
        items: vec![at(path)],
        to_dir: Some(to.to_owned()),
        existing,
        threads: 2,
        ..RestoreOptions::of(latest())
    };
    let monitor = Collect::default();
    restore::restore(repo, host, &options, &monitor).unwrap();
    monitor.findings.into_inner().unwrap()
}

#[test]
fn layers_come_back_as_tars() {
    let (_, repo) = prepared();
    let tars = [
        Tar::sample(1),
        Tar::of_many_files(),
        Tar(vec![Part::Literal(vec![0; 1024])]),
        Tar(Vec::new()),
    ];
    save(&repo, &tars).unwrap();
    let (restored, report, findings) = bring_back(&repo, &image()).unwrap();
    assert_eq!(report.warnings, 0, "{findings:?}");
    assert!(restored == files_of(&tars));
    let mut sizes = Vec::new();
    ls::ls(
        &repo,
        &latest(),
        Some(&at("")),
        &mut |listed| {
            if let Node::File { size, .. } = listed.entry.node {
                sizes.push((String::from_utf8(listed.path).unwrap(), size));
            }
            ControlFlow::Continue(())
        },
        &Collect::default(),
    )
    .unwrap();
    let expected: Vec<(String, u64)> = files_of(&tars)
        .into_iter()
        .map(|(path, bytes)| (path, bytes.len() as u64))
        .collect();
    assert_eq!(sizes, expected);
    for (number, tar) in tars.iter().enumerate() {
        assert!(dumped(&repo, &layer_path(number, tar)).unwrap() == tar.bytes());
    }
    for percent in [None, Some(100)] {
        let options = CheckOptions {
            read_data_percent: percent,
            ..CheckOptions::default()
        };
        let report = check::check(&repo, &options, &Collect::default()).unwrap();
        assert_eq!(report.damaged, 0);
    }
}

/// To a real directory: beside nothing, over what is right already, and over garbage that shows
/// wherever nothing is written. The tar is larger than a window, and has a run of zeros.
#[test]
fn layers_are_restored_over_whatever_is_there() {
    let (_, repo) = prepared();
    let mut large = Tar::sample(1);
    large.0.push(Part::Payload(noise(3, 30 << 20)));
    let tars = [large, Tar::sample(200)];
    save(&repo, &tars).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let host = LocalHost::new(scratch.path().join("state"));
    let to = scratch.path().join("to");
    let restore_below = |path: &str, existing| {
        assert_eq!(restore_to(&repo, &host, &to, path, existing), []);
    };
    let holds = |what: &str| {
        for (path, bytes) in files_of(&tars) {
            assert!(
                std::fs::read(to.join(&path)).unwrap() == bytes,
                "{what}: {path}"
            );
        }
    };
    restore_below("", Existing::Refuse);
    holds("anew");
    for existing in [Existing::Merge, Existing::Replace] {
        restore_below("", existing);
        holds("over itself");
        for (path, bytes) in files_of(&tars) {
            std::fs::write(to.join(path), vec![0xaa; bytes.len() + 5]).unwrap();
        }
        restore_below("", existing);
        holds("over garbage");
    }
    let one = layer_path(1, &tars[1]);
    std::fs::remove_dir_all(&to).unwrap();
    restore_below(&one, Existing::Refuse);
    let name = one.rsplit('/').next().unwrap();
    assert!(std::fs::read(to.join(name)).unwrap() == tars[1].bytes());
}

#[test]
fn a_file_of_a_layer_and_of_a_volume_is_stored_once() {
    let (_, repo) = prepared();
    let content = noise(7, 3_000_000);
    let tar = Tar(vec![
        Part::Literal(noise(1, 512)),
        Part::Payload(content.clone()),
        Part::Literal(vec![0; 1600]),
        Part::Payload(noise(8, 500_000)),
    ]);
    save(&repo, &[tar]).unwrap();
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &Files::from([("big".to_owned(), content)]));
    let report = back_up(&repo, &host, &[&web]).unwrap();
    assert!(report.bytes_added < 50_000, "{}", report.bytes_added);
}

/// The blocks that hold what the layer needs: their packs and positions.
fn blocks_of(repo: &Repository, tar: &Tar) -> BTreeSet<(PackId, u32)> {
    let mut session = Session::open(repo).unwrap();
    let (_, chunks) = session.store(tar, tar.diff_id()).unwrap();
    let reader = reader(repo);
    let place = |id: ChunkId| {
        let block = reader.index().places(&id)[0].block;
        (block.pack, block.position)
    };
    chunks.into_iter().map(place).collect()
}

#[test]
fn a_damaged_chunk_costs_the_layers_that_need_it() {
    let (store, repo) = prepared();
    let tars = [Tar::sample(1), Tar::sample(100)];
    save(&repo, &tars).unwrap();
    let blocks = blocks_of(&repo, &tars[1]);
    assert!(blocks.len() > 1, "data and recipe lie apart");
    for (pack, position) in blocks {
        let store = Arc::new(copy(&*store));
        let object = ObjectName::parse(&podkeep_format::names::pack(pack)).unwrap();
        assert!(store.damage(&object, |bytes| bytes[position as usize + 60] ^= 1));
        let repo = open(store);
        let what = format!("{pack} at {position}");
        let path = layer_path(1, &tars[1]);
        let (report, findings) = check_all(&repo).unwrap();
        assert!(report.damaged > 0, "{what}");
        let names_it = |paths: &[Vec<u8>]| paths.iter().any(|p| *p == path.as_bytes());
        let (restored, report, lost) = bring_back(&repo, &image()).unwrap();
        assert!(
            findings.iter().any(|f| names_it(&f.paths)),
            "{what}: {findings:?}"
        );
        let mut expected = files_of(&tars);
        expected.remove(&path);
        assert!(restored == expected, "{what}: {:?}", restored.keys());
        assert_eq!(report.warnings, 1, "{what}: {lost:?}");
        assert!(names_it(&lost[0].paths), "{what}: {lost:?}");
        assert!(dumped(&repo, &path).is_err(), "{what}");
        assert!(dumped(&repo, &layer_path(0, &tars[0])).is_ok(), "{what}");
    }
}

/// All chunks are what their ids say, and still the tar is another one: only who rebuilds it sees.
#[test]
fn a_layer_that_is_not_its_diff_id_is_found_by_reading_it() {
    let (_, repo) = prepared();
    let tar = Tar::sample(1);
    let mut session = Session::open(&repo).unwrap();
    let (layer, _) = session.store(&tar, DiffId([7; 32])).unwrap();
    let files = [("layers/0000.tar", layer_file(layer))];
    session.publish(&image(), &files).unwrap();
    drop(session);
    let (report, findings) = check_all(&repo).unwrap();
    assert_eq!(report.damaged, 1);
    assert_eq!(findings[0].kind, FindingKind::Damaged);
    assert_eq!(findings[0].paths, [b"layers/0000.tar".to_vec()]);
    let told = &findings[0].message;
    assert!(told.contains("is rebuilt as sha256"), "{told}");
    let refused = dumped(&repo, "layers/0000.tar").unwrap_err().to_string();
    assert!(refused.contains("is rebuilt as sha256"), "{refused}");
}

/// Podman compares the layers that it takes; in a directory nobody else would.
#[test]
fn a_layer_that_is_not_its_diff_id_gets_no_name_in_a_directory() {
    let (_, repo) = prepared();
    let mut large = Tar::sample(1);
    // Of several windows, and with zeros at the end.
    large.0.push(Part::Payload(noise(3, 30 << 20)));
    large.0.push(Part::Literal(vec![0; 100_000]));
    let mut files = vec![(
        "big-data/manifest".to_owned(),
        file(0, Content::Inline(Vec::new())),
    )];
    let mut session = Session::open(&repo).unwrap();
    for (number, tar) in [&large, &Tar::sample(2)].into_iter().enumerate() {
        for (word, diff_id) in [("right", tar.diff_id()), ("wrong", DiffId([7; 32]))] {
            let (layer, _) = session.store(tar, diff_id).unwrap();
            files.push((format!("layers/{number}-{word}"), layer_file(layer)));
        }
    }
    let named: Vec<(&str, Node)> = files.iter().map(|(p, n)| (p.as_str(), n.clone())).collect();
    session.publish(&image(), &named).unwrap();
    drop(session);
    let scratch = tempfile::tempdir().unwrap();
    let host = LocalHost::new(scratch.path().join("state"));
    let to = scratch.path().join("to");
    let findings = restore_to(&repo, &host, &to, "", Existing::Refuse);
    let paths: Vec<&[u8]> = findings
        .iter()
        .flat_map(|f| &f.paths)
        .map(Vec::as_slice)
        .collect();
    assert_eq!(paths, [&b"layers/0-wrong"[..], b"layers/1-wrong"]);
    for finding in &findings {
        assert_eq!(finding.kind, FindingKind::Damaged);
        assert!(
            finding.message.contains("is rebuilt as sha256:"),
            "{finding:?}"
        );
    }
    let mut names: Vec<_> = std::fs::read_dir(to.join("layers"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["0-right", "1-right"]);
    assert!(std::fs::read(to.join("layers/0-right")).unwrap() == large.bytes());
}

#[test]
fn an_entry_and_its_recipe_must_agree_on_the_size() {
    let (_, repo) = prepared();
    let tar = Tar::sample(1);
    let mut session = Session::open(&repo).unwrap();
    let layer = session.keep(&tar).unwrap();
    let recipe = Content::Recipe { id: layer.recipe };
    let wrong = [
        ("layers/good", layer_file(layer)),
        ("layers/wrong", file(layer.size + 1, recipe)),
    ];
    session.publish(&image(), &wrong).unwrap();
    drop(session);
    let (report, findings) = check_all(&repo).unwrap();
    assert_eq!(report.damaged, 1, "{findings:?}");
    assert_eq!(findings[0].paths, [b"layers/wrong".to_vec()]);
    let (restored, report, _) = bring_back(&repo, &image()).unwrap();
    assert_eq!(report.warnings, 1);
    assert!(restored.keys().eq(["layers/good"]), "{:?}", restored.keys());
    assert!(dumped(&repo, "layers/wrong").is_err());
}

/// One image is saved, then a second run is cut at every operation of the store.
fn disturbed(prepared: &MemoryStore, nth: Option<u64>) -> (Arc<Faults<MemoryStore>>, u64) {
    let faults = Arc::new(Faults::over_memory(copy(prepared), 7));
    let before = faults.operations();
    if let Some(nth) = nth {
        faults.plan(Fault::at(before + nth, Effect::CutPower));
    }
    let repo = super::open_with(faults.clone(), &super::full(), None, 1);
    if let Ok(repo) = repo {
        let saved = save(&repo, &[Tar::sample(1), Tar::sample(200)]);
        assert!(saved.is_ok() || nth.is_some());
    }
    let operations = faults.operations() - before;
    faults.restart();
    (faults, operations)
}

#[test]
fn e_01_a_cut_anywhere_between_segment_record_and_snapshot_loses_nothing() {
    let (store, repo) = prepared();
    let first = [Tar::sample(1)];
    let second = [Tar::sample(1), Tar::sample(200)];
    save(&repo, &first).unwrap();
    let prepared = copy(&*store);
    let (_, operations) = disturbed(&prepared, None);
    let (mut published, mut recorded) = (0, 0);
    for nth in 1..=operations {
        let what = format!("operation {nth} of {operations}");
        let (store, _) = disturbed(&prepared, Some(nth));
        let repo = open(store.clone());
        let (report, findings) = check_all(&repo).unwrap();
        assert_eq!(report.damaged, 0, "{what}: {findings:?}");
        let (restored, report, _) = bring_back(&repo, &image()).unwrap();
        assert_eq!(report.warnings, 0, "{what}");
        let is_new = restored == files_of(&second);
        assert!(is_new || restored == files_of(&first), "{what}");
        // A layer that is found can be rebuilt; one that is not is stored anew.
        let mut session = Session::open(&repo).unwrap();
        let found = session.find(&second[1]);
        recorded += u64::from(found.is_some());
        published += u64::from(is_new);
        assert!(found.is_some() || !is_new, "{what}: the record comes first");
        drop(session);
        save(&repo, &second).unwrap();
        let (restored, _, _) = bring_back(&repo, &image()).unwrap();
        assert!(restored == files_of(&second), "{what}");
    }
    assert!(
        recorded > published && published > 0,
        "{recorded} {published}"
    );
}

/// Whoever has a write key can publish an entry that says another size than its content list
/// holds: the difference must not be made up of zeros.
#[test]
fn a_file_whose_list_has_not_the_size_that_it_says_is_not_restored() {
    let (_, repo) = prepared();
    let mut session = Session::open(&repo).unwrap();
    let mut storing = Storing {
        session: &mut session,
        chunks: BTreeSet::new(),
    };
    let list = ListNode::Pieces(vec![Piece::Zero { len: 5000 }]).encode();
    let id = ListId(storing.add(ChunkKind::List, &list).unwrap().0);
    session.commit().unwrap();
    let of_size = |size| file(size, Content::List { id, level: 0 });
    let files = [
        ("good", of_size(5000)),
        ("long", of_size(5001)),
        ("short", of_size(4999)),
    ];
    session.publish(&image(), &files).unwrap();
    let (restored, _, findings) = bring_back(&repo, &image()).unwrap();
    let names: Vec<&String> = restored.keys().collect();
    assert_eq!(names, ["good"]);
    let damaged: Vec<_> = findings.iter().map(|f| (f.kind, &f.paths[0][..])).collect();
    assert_eq!(
        damaged,
        [
            (FindingKind::Damaged, &b"long"[..]),
            (FindingKind::Damaged, &b"short"[..])
        ]
    );
}
