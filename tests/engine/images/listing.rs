//! The lists of a store.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use podkeep_engine::podman::{LayerId, Origin, Storage, StorageDriver, StorageError, StoreListing};
use podkeep_format::id::hex;
use serde_json::json;

use super::odd_tar;
use crate::fake_store::{FakeStore, Tar, sha256};

/// Images that must have been met while a writer is at work, and reads until then.
const ROUNDS: usize = 100;
const READS_MAX: usize = 100_000;
/// Empty stores between the lists that change.
const STORES: usize = 99;

#[test]
fn i_04_an_image_is_told_with_all_its_names_and_its_whole_entry() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let layer = store.layer(&odd_tar(), None);
    let id = store.image("localhost:5000/a/b", Some(layer));
    store.images[0]["flags"] = json!({"x": [1]});
    // Numbers as nobody would write them again.
    let text = serde_json::to_string(&store.images).unwrap();
    let text = text.replace("2.5", "2.50").replace("[1,", "[1e0 ,");
    store.write_lists();
    let file = store.graph_root().join("overlay-images/images.json");
    fs::write(file, &text).unwrap();
    let listing = Storage::new(&store.places()).unwrap().read().unwrap();
    assert_eq!(listing.not_understood, []);
    let [image] = &listing.images[..] else {
        panic!("{listing:?}");
    };
    assert_eq!(image.id, id);
    assert_eq!(image.origin, Origin::GraphRoot);
    assert_eq!(image.names, ["localhost:5000/a/b"]);
    assert_eq!(
        image.names_history,
        ["localhost:5000/a/b", "localhost/old:1"]
    );
    assert_eq!(image.top_layer, Some(layer));
    assert_eq!(image.metadata, "{\"signatures-sizes\":{}}");
    assert_eq!(image.flags.as_deref(), Some("{\"x\":[1]}"));
    assert_eq!(image.created.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(format!("[{}]", image.entry), text);
    assert!(image.entry.contains("[1e0 ,2.50,null]"), "{}", image.entry);
    let names: Vec<&str> = image
        .big_data
        .iter()
        .map(|data| data.name.as_str())
        .collect();
    assert_eq!(names, ["manifest", format!("sha256:{id}").as_str()]);
    assert_eq!(image.big_data[0].digest, image.digest);
}

#[test]
fn layers_are_told_with_what_marks_them() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let lower = store.layer(&odd_tar(), None);
    let upper = store.layer(&Tar::default().file("x", b"y"), Some(lower));
    store.record(lower)["uidmap"] = json!([{"container_id": 0, "host_id": 9, "size": 1}]);
    store.record(upper)["flags"] = json!({"incomplete": true, "unknown": {"deep": []}});
    store.record(upper)["names"] = json!(["a-name"]);
    store.record(upper)["compression"] = json!(4);
    // What a container writes into.
    store.volatile_layers = vec![json!({
        "id": "e".repeat(64), "parent": upper.to_hex(), "names": null, "created": "0001-01-01T00:00:00Z",
    })];
    let (_, listing) = store.read();
    let tar = odd_tar();
    let layer = &listing.layers[&lower];
    assert!(layer.mapped && !layer.incomplete);
    assert_eq!(layer.parent, None);
    assert_eq!(layer.diff_id, Some(tar.diff_id()));
    assert_eq!(layer.diff_size, Some(tar.bytes.len() as u64));
    assert_eq!(layer.compressed_size, Some(77));
    assert_eq!(layer.compression, 2);
    let layer = &listing.layers[&upper];
    assert!(layer.incomplete && !layer.mapped);
    assert_eq!(layer.parent, Some(lower));
    assert_eq!(layer.names, ["a-name"]);
    assert_eq!(layer.compression, 4);
    let writable = &listing.layers[&LayerId([0xee; 32])];
    assert_eq!((writable.diff_id, writable.parent), (None, Some(upper)));
}

#[test]
fn volatile_layers_of_a_transient_store_are_in_the_run_root() {
    let mut store = FakeStore::new(StorageDriver::Vfs);
    let here = json!([{"id": "a".repeat(64)}]).to_string();
    let there = json!([{"id": "b".repeat(64)}]).to_string();
    store.write_lists();
    let folder = |root: &str| {
        store
            .scratch
            .join(root)
            .join("vfs-layers/volatile-layers.json")
    };
    fs::create_dir_all(folder("run").parent().unwrap()).unwrap();
    fs::write(folder("graph"), here).unwrap();
    fs::write(folder("run"), there).unwrap();
    for (transient, expected) in [(false, 0xaa), (true, 0xbb)] {
        let mut places = store.places();
        places.transient = transient;
        let listing = Storage::new(&places).unwrap().read().unwrap();
        let found: Vec<LayerId> = listing.layers.into_keys().collect();
        assert_eq!(found, [LayerId([expected; 32])]);
    }
}

#[test]
fn a_store_that_was_never_used_is_empty() {
    let store = FakeStore::new(StorageDriver::Btrfs);
    let listing = Storage::new(&store.places()).unwrap().read().unwrap();
    assert_eq!(listing, StoreListing::default());
    let mut places = store.places();
    places.graph_root = store.scratch.join("nowhere");
    let error = Storage::new(&places).err().unwrap();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn an_entry_that_is_not_understood_costs_no_other() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let layer = store.layer(&odd_tar(), None);
    let id = store.image("localhost/a:1", Some(layer));
    store.images.insert(0, json!({"id": "../../etc"}));
    store.images.push(json!(7));
    store
        .layers
        .push(json!({"id": "f".repeat(64), "parent": "x"}));
    let (_, listing) = store.read();
    assert_eq!(listing.images.len(), 1);
    assert_eq!(listing.images[0].id, id);
    assert_eq!(listing.layers.len(), 1);
    let objects: Vec<&str> = listing
        .not_understood
        .iter()
        .map(|entry| entry.object.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(
        objects,
        [
            "images.json, entry 1",
            "images.json, entry 3",
            "layers.json, entry 2"
        ]
    );
    assert!(listing.not_understood[0].cause.contains("is no image id"));
}

#[test]
fn chains_are_told_from_the_bottom_and_may_not_run_in_circles() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let a = store.layer(&odd_tar(), None);
    let b = store.layer(&Tar::default().file("x", b"y"), Some(a));
    let c = store.layer(&Tar::default().file("z", b"y"), Some(b));
    store.image("localhost/a:1", Some(c));
    store.image("localhost/list:1", None);
    let (_, listing) = store.read();
    let chain: Vec<LayerId> = listing
        .chain(&listing.images[0])
        .unwrap()
        .iter()
        .map(|layer| layer.id)
        .collect();
    assert_eq!(chain, [a, b, c]);
    assert!(listing.chain(&listing.images[1]).unwrap().is_empty());
    store.record(a)["parent"] = json!(b.to_hex());
    let (storage, listing) = store.read();
    let error = listing.chain(&listing.images[0]).unwrap_err();
    let StorageError::EndlessChain { layer, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(layer, b);
    // A layer of such a chain is still read.
    assert!(super::rebuild(&storage, &listing, c).is_ok());
}

#[test]
fn images_of_all_stores_are_told_with_where_they_are() {
    let mut other = FakeStore::new(StorageDriver::Overlay);
    let layer = other.layer(&odd_tar(), None);
    let id = other.image("localhost/a:1", Some(layer));
    other.write_lists();
    let mut store = FakeStore::new(StorageDriver::Overlay);
    store.layers = vec![json!({"id": layer.to_hex(), "flags": {"incomplete": true}})];
    store.write_lists();
    let mut places = store.places();
    places.additional_stores = vec![other.graph_root()];
    let storage = Storage::new(&places).unwrap();
    let listing = storage.read().unwrap();
    assert_eq!(listing.images[0].origin, Origin::Additional(0));
    // The one that is whole.
    assert_eq!(listing.layers[&layer].origin, Origin::Additional(0));
    let config = storage.big_data(&listing.images[0], &format!("sha256:{id}"));
    assert!(config.unwrap().starts_with(b"{\"architecture\""));
}

#[test]
fn big_data_is_compared_with_its_record() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.image("localhost/a:1", None);
    let (storage, listing) = store.read();
    let image = &listing.images[0];
    assert!(storage.big_data(image, "manifest").is_ok());
    let file = store.image_folder(id).join("manifest");
    let good = fs::read_to_string(&file).unwrap();
    let cause = |name: &str| match storage.big_data(image, name).unwrap_err() {
        StorageError::DamagedData { cause, .. } => cause,
        other => other.to_string(),
    };
    fs::write(&file, good.replace(':', ";")).unwrap();
    assert!(
        cause("manifest").contains("its sha256 is"),
        "{}",
        cause("manifest")
    );
    fs::write(&file, format!("{good} ")).unwrap();
    assert!(cause("manifest").contains("bytes, not"));
    fs::remove_file(&file).unwrap();
    assert_eq!(cause("manifest"), "its file is missing");
    assert_eq!(cause("other"), "the image has no such data");
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(cause("manifest").ends_with("it is no regular file"));
}

/// The digest of such a manifest is that of the part that is signed.
#[test]
fn a_signed_manifest_of_schema_1_is_read() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.image("localhost/a:1", None);
    let manifest = json!({"schemaVersion": 1, "signatures": [{"signature": "x"}]}).to_string();
    fs::write(store.image_folder(id).join("manifest"), &manifest).unwrap();
    store.images[0]["big-data-sizes"]["manifest"] = json!(manifest.len());
    let (storage, listing) = store.read();
    let found = storage.big_data(&listing.images[0], "manifest").unwrap();
    assert_eq!(found, manifest.as_bytes());
}

/// A writer replaces an image by another one all the time: first its layers are listed, then the
/// image, then the layers of the one before are no more. At each moment all layers are there. The
/// two lists lie in the first and the last of many stores, so that much happens between reading
/// the one and the other.
#[test]
fn lists_that_change_are_read_as_of_one_moment() {
    let mut images = FakeStore::new(StorageDriver::Overlay);
    let mut layers = FakeStore::new(StorageDriver::Overlay);
    images.write_lists();
    let mut places = images.places();
    for number in 0..STORES {
        let store = images.scratch.join(&format!("store-{number}"));
        fs::create_dir(&store).unwrap();
        places.additional_stores.push(store);
    }
    places.additional_stores.push(layers.graph_root());
    let storage = Storage::new(&places).unwrap();
    let done = AtomicBool::new(false);
    let met = std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            let mut before = Vec::new();
            for round in 1u64.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let id = |n: u64| hex(&sha256(&(round * 100 + n).to_le_bytes()));
                let now = vec![json!({"id": id(0)}), json!({"id": id(1), "parent": id(0)})];
                layers.layers = [before, now.clone()].concat();
                layers.write_lists();
                images.images = vec![json!({"id": id(2), "layer": id(1)})];
                images.write_lists();
                layers.layers = now.clone();
                layers.write_lists();
                before = now;
                std::thread::sleep(Duration::from_millis(round % 20));
            }
        });
        let ended = std::panic::catch_unwind(|| {
            let mut met = BTreeSet::new();
            for _ in 0..READS_MAX {
                let listing = storage.read().unwrap();
                for image in &listing.images {
                    assert_eq!(listing.chain(image).unwrap().len(), 2);
                    met.insert(image.id);
                }
                if met.len() == ROUNDS {
                    break;
                }
            }
            met.len()
        });
        done.store(true, Ordering::Relaxed);
        ended
    });
    assert_eq!(met.unwrap(), ROUNDS, "the writer did not get on");
}

/// The lock file has another content whenever it is read.
#[test]
fn a_store_that_never_comes_to_rest_is_busy() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    store.write_lists();
    let storage = Storage::new(&store.places()).unwrap();
    let lock = store.graph_root().join("overlay-layers/layers.lock");
    rustix::mount::mount_bind("/proc/sys/kernel/random/uuid", &lock).unwrap();
    let read = storage.read();
    rustix::mount::unmount(&lock, rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = read.unwrap_err();
    let StorageError::Busy { object } = &error else {
        panic!("{error}");
    };
    assert_eq!(Some(object.as_str()), store.graph_root().to_str());
    assert!(storage.read().is_ok());
}
