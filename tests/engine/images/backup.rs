//! Images of a store that is made by hand, backed up through a host whose podman is a script that
//! tells where that store is.

use std::sync::{Arc, Mutex};

use podkeep_engine::host::local::LocalHost;
use podkeep_engine::host::{HostError, Inventory, OpenItem, ScanRequest, Source};
use podkeep_engine::monitor::{Collect, Finding, FindingKind};
use podkeep_engine::operations::{BackupOptions, BackupReport, Selection, Selector, backup};
use podkeep_engine::podman::{LayerId, StorageDriver};
use podkeep_engine::repo::{Credential, InitOptions, OpenOptions, Repository};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::id::{HostId, SnapshotId};
use podkeep_format::item::{Item, ItemKind};

use super::noise;
use crate::fake_store::{FakeStore, Tar};

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
