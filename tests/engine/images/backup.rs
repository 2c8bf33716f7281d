//! Images of a store that is made by hand, backed up through a host whose podman is a script that
//! tells where that store is.

use std::fs;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use podkeep_engine::host::local::LocalHost;
use podkeep_engine::host::{HostError, Inventory, OpenItem, ScanRequest, Source};
use podkeep_engine::monitor::{Collect, Finding, FindingKind};
use podkeep_engine::operations::{
    BackupOptions, BackupReport, CheckOptions, ImageEntry, ImageNode, ItemPath, ListedEntry,
    Selection, Selector, SnapSpec, SnapWhich, backup, check, dump, ls,
};
use podkeep_engine::podman::{ImageId, LayerId, StorageDriver};
use podkeep_engine::repo::{Credential, InitOptions, OpenOptions, Repository};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::id::{HostId, SnapshotId};
use podkeep_format::item::{Item, ItemKind};
use serde_json::json;

use super::noise;
use crate::fake_store::{FakeStore, LongName, Tar};

fn repository() -> Repository {
    let store = Arc::new(MemoryStore::new());
    let options = InitOptions {
        like: None,
        reserve_bytes: 4096,
        label: "test".into(),
    };
    Repository::init(&*store, b"secret", &options).unwrap();
    let options = OpenOptions {
        cache: None,
        host: HostId([1; 16]),
        host_name: "host1".into(),
    };
    let passphrase = Credential::Passphrase(b"secret".to_vec().into());
    Repository::open(store, &passphrase, &options).unwrap()
}

fn back_up(repo: &Repository, source: &dyn Source) -> (BackupReport, Vec<Finding>) {
    back_up_selected(repo, source, true, Vec::new())
}

fn back_up_selected(
    repo: &Repository,
    source: &dyn Source,
    all: bool,
    selectors: Vec<Selector>,
) -> (BackupReport, Vec<Finding>) {
    let options = BackupOptions {
        selection: Selection { all, selectors },
        threads: 2,
        ..BackupOptions::default()
    };
    let monitor = Collect::default();
    let report = backup::backup(repo, source, &options, &monitor).unwrap();
    (report, monitor.findings.into_inner().unwrap())
}

/// Two images over one base: a:1 and b:1. Returns the layers: base, a's, b's.
fn two_images(store: &mut FakeStore) -> [LayerId; 3] {
    let base = Tar::default().file("base", &noise(1, 300_000));
    let base = store.layer(&base, None);
    let layers = [("a", 2), ("b", 3)].map(|(name, seed)| {
        let tar = Tar::default().file(name, &noise(seed, 200_000));
        let layer = store.layer(&tar, Some(base));
        store.image(&format!("localhost/{name}:1"), Some(layer));
        layer
    });
    store.write_lists();
    [base, layers[0], layers[1]]
}

fn saved(report: &BackupReport) -> Vec<String> {
    let saved = report.items.iter().filter(|item| item.snapshot.is_some());
    saved.map(|item| item.item.to_string()).collect()
}

#[test]
fn a_layer_of_two_images_is_read_once_and_never_again() {
    for driver in [StorageDriver::Overlay, StorageDriver::Vfs] {
        let mut store = FakeStore::new(driver);
        two_images(&mut store);
        let repo = repository();
        let (report, findings) = back_up(&repo, &store.host());
        assert!(report.complete, "{findings:?}");
        assert_eq!(report.bytes_read, 700_000);
        let (again, _) = back_up(&repo, &store.host());
        assert_eq!((again.bytes_read, again.chunks_new), (0, 0));
        let roots = |report: &BackupReport| -> Vec<_> {
            report.items.iter().map(|item| item.root).collect()
        };
        assert_eq!(roots(&report), roots(&again));
    }
}

#[test]
fn i_11_an_image_with_a_damaged_layer_is_named_and_the_others_are_saved() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let [_, layer, _] = two_images(&mut store);
    let file = store.folder(layer).join("a");
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[100_000] ^= 1;
    std::fs::write(&file, bad).unwrap();
    let repo = repository();
    let (report, findings) = back_up(&repo, &store.host());
    assert!(!report.complete);
    assert_eq!(saved(&report), ["image:localhost/b:1"]);
    let [finding] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert_eq!(finding.object, "image:localhost/a:1");
    for word in [layer.to_hex().as_str(), "damaged at 'a'"] {
        assert!(finding.message.contains(word), "{}", finding.message);
    }
    // Nothing of it passes for the layer: mended, it is read, and only it.
    std::fs::write(&file, good).unwrap();
    let (report, findings) = back_up(&repo, &store.host());
    assert!(report.complete, "{findings:?}");
    assert_eq!(report.bytes_read, 200_000);
}

/// Somebody removes an image after it was listed, as `podman image prune` beside a backup does.
struct Pruned {
    inner: LocalHost,
    store: Mutex<FakeStore>,
    victim: LayerId,
}

impl Source for Pruned {
    fn inventory(&self) -> Result<Inventory, HostError> {
        self.inner.inventory()
    }

    fn open(&self, request: &ScanRequest) -> Result<OpenItem, HostError> {
        let mut store = self.store.lock().unwrap();
        let victim = self.victim.to_hex();
        if store.layers.iter().any(|layer| layer["id"] == victim) {
            std::fs::remove_dir_all(store.folder(self.victim)).unwrap();
            std::fs::remove_file(store.split_file(self.victim)).unwrap();
            store.layers.retain(|layer| layer["id"] != victim);
            store.images.retain(|image| image["layer"] != victim);
            store.write_lists();
        }
        self.inner.open(request)
    }

    fn published(&self, request: &ScanRequest, snapshot: SnapshotId) -> Result<(), HostError> {
        self.inner.published(request, snapshot)
    }
}

#[test]
fn an_image_that_is_removed_meanwhile_is_only_counted() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let [_, victim, _] = two_images(&mut store);
    let repo = repository();
    let pruned = Pruned {
        inner: store.host(),
        store: Mutex::new(store),
        victim,
    };
    let (report, findings) = back_up(&repo, &pruned);
    assert!(report.complete, "{findings:?}");
    assert_eq!(saved(&report), ["image:localhost/b:1"]);
    let kinds: Vec<FindingKind> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::Vanished]);
}

#[test]
fn a_list_that_cannot_be_read_is_told_and_other_items_are_saved() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    two_images(&mut store);
    let images = store.graph_root().join("overlay-images/images.json");
    std::fs::write(&images, "[{").unwrap();
    std::fs::create_dir(store.scratch.join("data")).unwrap();
    let path = store
        .scratch
        .join("data")
        .into_os_string()
        .into_encoded_bytes();
    let path = Selector {
        item: Item::new(ItemKind::Path, path),
        glob: false,
    };
    let repo = repository();
    // Who asks for a path hears nothing of images.
    let (report, findings) = back_up_selected(&repo, &store.host(), false, vec![path.clone()]);
    assert!(report.complete && findings.is_empty(), "{findings:?}");
    let (report, findings) = back_up_selected(&repo, &store.host(), true, vec![path]);
    assert!(!report.complete);
    assert_eq!(saved(&report).len(), 1);
    let [finding] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert_eq!(finding.kind, FindingKind::Unreadable);
    assert!(finding.message.contains("images.json"), "{finding:?}");

    // Podman takes a file that a power cut left empty for an empty list.
    std::fs::write(&images, "").unwrap();
    let inventory = store.host().inventory().unwrap();
    assert!(inventory.images.is_empty() && inventory.image_findings.is_empty());
}

/// An image of layers with a configuration that tells of them, and a manifest.
fn image_of(store: &mut FakeStore, name: &str, tars: &[&Tar]) -> (ImageId, Vec<LayerId>) {
    let mut layers = Vec::new();
    for tar in tars {
        layers.push(store.layer(tar, layers.last().copied()));
    }
    let diff_ids: Vec<String> = tars
        .iter()
        .map(|tar| format!("sha256:{}", tar.diff_id()))
        .collect();
    let config =
        json!({"architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let id = store.image_with(name, layers.last().copied(), &config.to_string());
    store.write_lists();
    (id, layers)
}

fn latest() -> SnapSpec {
    SnapSpec {
        which: SnapWhich::Latest(0),
        host: None,
    }
}

fn at(name: &str, path: &str) -> ItemPath {
    ItemPath {
        selector: Selector {
            item: Item::new(ItemKind::Image, name.as_bytes()),
            glob: false,
        },
        path: path.as_bytes().to_vec(),
    }
}

/// Files that a container would see, and what is in them.
fn shown(repo: &Repository, name: &str) -> Vec<(String, Vec<u8>)> {
    let mut paths = Vec::new();
    let mut listed = |entry: ImageEntry| {
        if let ImageNode::File { .. } = entry.node {
            paths.push(String::from_utf8(entry.path).unwrap());
        }
        ControlFlow::Continue(())
    };
    let monitor = Collect::default();
    ls::ls_image(repo, &latest(), &at(name, ""), &mut listed, &monitor).unwrap();
    let content = |path: String| {
        let mut out = Vec::new();
        dump::dump_image_file(repo, &latest(), &at(name, &path), &mut out, &monitor).unwrap();
        (path, out)
    };
    paths.into_iter().map(content).collect()
}

/// What is stored of an image, by its paths.
fn stored(repo: &Repository, name: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut listed = |entry: ListedEntry| {
        paths.push(String::from_utf8(entry.path).unwrap());
        ControlFlow::Continue(())
    };
    ls::ls(
        repo,
        &latest(),
        Some(&at(name, "")),
        &mut listed,
        &Collect::default(),
    )
    .unwrap();
    paths
}

/// It is saved as another image, which says so and has the same files; what is right of it is not
/// made anew, and the digest of the layer that is lost is given to nothing.
#[test]
fn i_11_an_image_without_a_tar_split_is_saved_as_another_one_that_says_so() {
    for driver in [StorageDriver::Overlay, StorageDriver::Vfs] {
        let base = Tar::default().directory("d").file("d/a", &noise(1, 90_000));
        let upper = Tar::default()
            .file("d/b", &noise(2, 50_000))
            .whiteout("d/a");
        let mut store = FakeStore::new(driver);
        let (id, layers) = image_of(&mut store, "localhost/a:1", &[&base, &upper]);
        fs::remove_file(store.split_file(layers[1])).unwrap();
        let repo = repository();
        let (report, findings) = back_up(&repo, &store.host());
        assert!(report.complete, "{findings:?}");
        let [finding] = &findings[..] else {
            panic!("{findings:?}");
        };
        assert_eq!(finding.kind, FindingKind::NotExact);
        for word in [id.to_hex(), upper.diff_id().to_string(), "tar-split".into()] {
            assert!(finding.message.contains(&word), "{}", finding.message);
        }
        assert_eq!(
            shown(&repo, "localhost/a:1"),
            [("d/b".into(), noise(2, 50_000))]
        );
        let stored = stored(&repo, "localhost/a:1").join("\n");
        assert!(
            stored.contains(&format!("layers/0000-{}.tar", base.diff_id())),
            "{stored}"
        );
        assert!(!stored.contains(&upper.diff_id().to_string()), "{stored}");
        assert!(
            stored.contains(&format!("original/sha256:{id}")),
            "{stored}"
        );
        // It is the same each time.
        let (again, _) = back_up(&repo, &store.host());
        assert_eq!(
            (again.chunks_new, again.items[0].root),
            (0, report.items[0].root)
        );
        let options = CheckOptions {
            read_data_percent: Some(100),
            ..CheckOptions::default()
        };
        let checked = check::check(&repo, &options, &Collect::default());
        assert_eq!(checked.unwrap().damaged, 0);
    }
}

/// That tar-split tells too little of a sparse file shows only while its layer is read. Two of them
/// are found one after the other.
#[test]
fn i_19_an_image_with_sparse_files_is_saved_as_another_one() {
    let records: &[(&str, &[u8])] = &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")];
    let sparse = |name: &str, len: usize| {
        Tar::default().file_with(name, &noise(9, len), records, LongName::Pax)
    };
    let (first, second) = (sparse("one", 7000), sparse("two", 9000));
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let (_, layers) = image_of(&mut store, "localhost/a:1", &[&first, &second]);
    for layer in layers {
        let record = store.record(layer);
        record["diff-digest"] = json!(format!("sha256:{}", layer.to_hex()));
        record["diff-size"] = json!(2048);
    }
    store.write_lists();
    let repo = repository();
    let (report, findings) = back_up(&repo, &store.host());
    assert!(report.complete, "{findings:?}");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(
        findings[0].message.matches("sparse files").count(),
        2,
        "{findings:?}"
    );
    let files = [
        ("one".to_owned(), noise(9, 7000)),
        ("two".to_owned(), noise(9, 9000)),
    ];
    assert_eq!(shown(&repo, "localhost/a:1"), files);
}

/// Podman makes the ID of such an image from its tables of contents, and gives it another one when it
/// is loaded; its layers, its configuration and its digests are what they were.
#[test]
fn i_13_an_image_whose_layer_is_known_by_its_table_of_contents_has_only_another_id() {
    let (base, upper) = (
        Tar::default().file("a", b"1"),
        Tar::default().file("b", &noise(1, 900)),
    );
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let (id, layers) = image_of(&mut store, "localhost/a:1", &[&base, &upper]);
    let record = store.record(layers[1]);
    record["diff-digest"] = json!("");
    record["diff-size"] = json!(upper.bytes.len());
    record["toc-digest"] = json!(format!("sha256:{}", "d".repeat(64)));
    let by_contents = ImageId([0xcc; 32]);
    fs::rename(store.image_folder(id), store.image_folder(by_contents)).unwrap();
    store.images[0]["id"] = json!(by_contents.to_hex());
    store.write_lists();
    let repo = repository();
    let (report, findings) = back_up(&repo, &store.host());
    assert!(report.complete, "{findings:?}");
    let [finding] = &findings[..] else {
        panic!("{findings:?}");
    };
    for word in [
        id.to_hex(),
        by_contents.to_hex(),
        "table of contents".into(),
    ] {
        assert!(finding.message.contains(&word), "{}", finding.message);
    }
    let stored = stored(&repo, "localhost/a:1");
    assert!(
        stored.contains(&format!("layers/0001-{}.tar", upper.diff_id())),
        "{stored:?}"
    );
    assert!(
        !stored.iter().any(|path| path.starts_with("original")),
        "{stored:?}"
    );
}
