//! What is rebuilt is the tar, byte for byte.

use std::path::PathBuf;

use podkeep_engine::podman::{LayerError, LayerId, NotExact, OwnTar, StorageDriver};
use podkeep_format::id::hex;
use serde_json::json;

use super::{DRIVERS, noise, odd_tar, rebuild, upper_tar};
use crate::fake_store::{Ending, FakeStore, Tar, gzip, sha256};

/// Puts one layer into a store and demands its very tar.
#[track_caller]
fn demand(driver: StorageDriver, tar: &Tar) {
    let mut store = FakeStore::new(driver);
    let id = store.layer(tar, None);
    let (storage, listing) = store.read();
    let whole = rebuild(&storage, &listing, id).unwrap();
    assert!(whole.tar == tar.bytes, "{driver:?}: the tar differs");
    assert_eq!(whole.end.diff_id, tar.diff_id());
    assert_eq!(whole.end.size, tar.bytes.len() as u64);
}

#[test]
fn i_19_a_tar_with_one_of_everything_comes_back() {
    for driver in [DRIVERS[0], DRIVERS[1], StorageDriver::Btrfs] {
        demand(driver, &odd_tar().end(Ending::Blocks(2)));
    }
}

#[test]
fn i_20_odd_ends_come_back() {
    for ending in [
        Ending::Blocks(0),
        Ending::Blocks(1),
        Ending::Blocks(20),
        Ending::Junk(1),
        Ending::Junk((3 << 20) + 5),
    ] {
        demand(DRIVERS[0], &odd_tar().end(ending));
    }
}

#[test]
fn i_10_empty_layers_come_back() {
    for blocks in [0, 2] {
        demand(DRIVERS[0], &Tar::default().end(Ending::Blocks(blocks)));
    }
}

/// A lower layer has a link `lib -> /usr/lib`; the upper one writes `lib/c.so`. With vfs that file
/// lies in `usr/lib` of the layer, where Podman itself does not find it.
#[test]
fn i_16_i_17_a_layer_on_another_comes_back() {
    for driver in DRIVERS {
        let mut store = FakeStore::new(driver);
        let lower = store.layer(&odd_tar(), None);
        // An opaque directory would take the link's target away with vfs.
        let tar = match driver {
            StorageDriver::Overlay => upper_tar(),
            _ => Tar::default()
                .file("lib/c.so", &noise(5, 4000))
                .whiteout("same-1")
                .file("same-2", b"other")
                .hard_link("same-3", b"same-2"),
        };
        let upper = store.layer(&tar, Some(lower));
        let (storage, listing) = store.read();
        assert!(rebuild(&storage, &listing, upper).unwrap().tar == tar.bytes);
        assert!(rebuild(&storage, &listing, lower).unwrap().tar == odd_tar().bytes);
    }
}

#[test]
fn payloads_are_named_as_the_tar_names_them() {
    let tar = Tar::default()
        .file("./a//b", b"1")
        .file("empty", b"")
        .hard_link("link", b"a/b")
        .file("c", b"22");
    let mut store = FakeStore::new(DRIVERS[0]);
    let id = store.layer(&tar, None);
    let (storage, listing) = store.read();
    let whole = rebuild(&storage, &listing, id).unwrap();
    assert_eq!(
        whole.payloads,
        [(b"./a//b".to_vec(), 1), (b"c".to_vec(), 2)]
    );
}

/// A copy that was given other owners has what it copied in `diff1`; a layer made from a template
/// has the template's files below it, and only `lower` tells so.
#[test]
fn content_lies_in_other_directories_too() {
    let tar = odd_tar();
    for lost_link in [false, true] {
        let mut store = FakeStore::new(StorageDriver::Overlay);
        let template = store.layer(&tar, None);
        let id = store.layer(&tar, Some(template));
        let diff = store.folder(id);
        std::fs::remove_dir_all(&diff).unwrap();
        std::fs::create_dir(&diff).unwrap();
        match lost_link {
            // The store's own list is what remains.
            true => std::fs::remove_dir_all(store.graph_root().join("overlay/l")).unwrap(),
            false => store.record(id)["parent"] = json!(""),
        }
        let (storage, listing) = store.read();
        assert!(rebuild(&storage, &listing, id).unwrap().tar == tar.bytes);
    }
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&tar, None);
    let diff = store.folder(id);
    std::fs::rename(&diff, diff.with_file_name("diff2")).unwrap();
    std::fs::create_dir(&diff).unwrap();
    std::fs::create_dir(diff.with_file_name("diff1")).unwrap();
    std::fs::write(diff.with_file_name("diff1").join("unrelated"), "x").unwrap();
    let (storage, listing) = store.read();
    assert!(rebuild(&storage, &listing, id).unwrap().tar == tar.bytes);
}

/// Stores of images and read-only ones: what belongs to a layer may lie in another root.
#[test]
fn layers_of_other_stores_come_back() {
    let tar = odd_tar();
    for split_in_graph_root in [false, true] {
        let mut other = FakeStore::new(StorageDriver::Overlay);
        let id = other.layer(&tar, None);
        other.write_lists();
        let mut store = FakeStore::new(StorageDriver::Overlay);
        store.write_lists();
        let mut places = store.places();
        match split_in_graph_root {
            true => {
                std::fs::rename(other.split_file(id), store.split_file(id)).unwrap();
                places.image_store = Some(other.graph_root());
            }
            false => places.additional_stores = vec!["/nowhere".into(), other.graph_root()],
        }
        let storage = podkeep_engine::podman::Storage::new(&places).unwrap();
        let listing = storage.read().unwrap();
        assert!(rebuild(&storage, &listing, id).unwrap().tar == tar.bytes);
    }
}

/// A layer that was pulled in parts has no digest of its own, and its size may be -1.
#[test]
fn i_13_a_layer_of_unknown_digest_is_proven_by_what_the_image_expects() {
    let tar = odd_tar();
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&tar, None);
    let record = store.record(id);
    record["diff-digest"] = json!("");
    record["diff-size"] = json!(-1);
    record["toc-digest"] = json!(format!("sha256:{}", "d".repeat(64)));
    let (storage, listing) = store.read();
    let error = rebuild(&storage, &listing, id).unwrap_err();
    let LayerError::NotExact { cause, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(cause, NotExact::NoDigest);
    store.record(id)["flags"] =
        json!({"expected-layer-diffid": format!("sha256:{}", tar.diff_id())});
    let (storage, listing) = store.read();
    assert!(rebuild(&storage, &listing, id).unwrap().tar == tar.bytes);
}

/// Turns an overlay layer into one of a composefs store: files lie under their digests, and the table of
/// contents that says which is which is as Podman 5.4 writes it.
fn to_objects(store: &FakeStore, id: LayerId, files: &[(&str, &[u8])]) {
    let diff = store.folder(id);
    std::fs::remove_dir_all(&diff).unwrap();
    let mut entries = vec![json!({"type": "dir", "name": "usr/", "mode": 0o755})];
    for (name, content) in files {
        let digest = hex(&sha256(content));
        let place = diff.join(&digest[..2]);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join(&digest[2..]), content).unwrap();
        let digest = format!("sha256:{digest}");
        entries.push(json!({"type": "reg", "name": name, "size": content.len(), "digest": digest}));
        entries.push(json!({"type": "chunk", "name": name, "chunkSize": 1, "chunkDigest": digest}));
    }
    std::fs::create_dir(diff.with_file_name("composefs-data")).unwrap();
    let table = table_of(store, id);
    std::fs::create_dir_all(table.parent().unwrap()).unwrap();
    std::fs::write(table, json!({"version": 1, "entries": entries}).to_string()).unwrap();
}

fn table_of(store: &FakeStore, id: LayerId) -> PathBuf {
    let name = "=enN0ZC1jaHVua2VkLW1hbmlmZXN0";
    store
        .graph_root()
        .join(format!("overlay-layers/{id}/{name}"))
}

#[test]
fn i_13_a_layer_of_a_composefs_store_comes_back() {
    let (page, tool) = (noise(1, 5000), noise(2, 300));
    let tar = Tar::default()
        .file("./usr/page", &page)
        .file("empty", b"")
        .file("tool", &tool)
        .file("again", &page)
        .hard_link("link", b"tool");
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&tar, None);
    to_objects(
        &store,
        id,
        &[("usr/page", &page), ("tool", &tool), ("again", &page)],
    );
    let (storage, listing) = store.read();
    assert!(rebuild(&storage, &listing, id).unwrap().tar == tar.bytes);
    // There is no tree to make another tar of.
    let planned = OwnTar::plan(&storage, &listing, &listing.layers[&id]);
    assert!(matches!(
        planned.err().unwrap(),
        LayerError::NotExact {
            cause: NotExact::Composefs,
            ..
        }
    ));
    // Damage is found, and told of the file that has it.
    let digest = hex(&sha256(&tool));
    let object = store.folder(id).join(&digest[..2]).join(&digest[2..]);
    std::fs::write(object, noise(3, 300)).unwrap();
    match rebuild(&storage, &listing, id).unwrap_err() {
        LayerError::Damaged { path, .. } => assert_eq!(path.unwrap(), b"tool"),
        other => panic!("{other}"),
    }
}

#[test]
fn layers_that_cannot_be_exact_are_told_apart() {
    let not_exact = |store: &mut FakeStore, id| {
        let (storage, listing) = store.read();
        match rebuild(&storage, &listing, id).unwrap_err() {
            LayerError::NotExact { cause, layer } if layer == id => cause,
            other => panic!("{other}"),
        }
    };
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&odd_tar(), None);
    to_objects(&store, id, &[]);
    std::fs::write(table_of(&store, id), "{").unwrap();
    assert_eq!(not_exact(&mut store, id), NotExact::Composefs);
    let mut store = FakeStore::new(StorageDriver::Zfs);
    let id = store.layer(&odd_tar(), None);
    assert_eq!(not_exact(&mut store, id), NotExact::NotMounted);
    std::fs::remove_dir_all(store.folder(id)).unwrap();
    assert_eq!(not_exact(&mut store, id), NotExact::NotMounted);
}

#[test]
fn a_zfs_layer_that_is_mounted_comes_back() {
    let tar = Tar::default().file("a", b"content");
    let mut store = FakeStore::new(StorageDriver::Zfs);
    let id = store.layer(&tar, None);
    let mounted = crate::mount::Mounted::memory("tmpfs", "size=1m");
    std::fs::write(mounted.path().join("a"), "content").unwrap();
    let folder = store.folder(id);
    rustix::mount::mount_bind(mounted.path(), &folder).unwrap();
    let (storage, listing) = store.read();
    let whole = rebuild(&storage, &listing, id);
    rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(whole.unwrap().tar == tar.bytes);
}

/// pgzip writes a member for each block.
#[test]
fn tar_split_of_many_members_is_read() {
    let tar = odd_tar().end(Ending::Blocks(2));
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&tar, None);
    std::fs::write(store.split_file(id), gzip(&tar.split(), 50)).unwrap();
    let (storage, listing) = store.read();
    assert!(rebuild(&storage, &listing, id).unwrap().tar == tar.bytes);
}
