//! Layers that are not what they were: the first bad file is named, and nothing ever verifies.

use std::fs;

use podkeep_engine::podman::{
    LayerError, LayerEvent, LayerId, LayerReader, NotExact, StorageDriver, StorageError,
};
use serde_json::json;

use super::{DRIVERS, noise, odd_tar, rebuild};
use crate::fake_store::{Ending, FakeStore, Tar, gzip};

/// Puts the odd layer into a store and lets `harm` do something to it.
fn harmed(driver: StorageDriver, harm: impl Fn(&mut FakeStore, LayerId)) -> LayerError {
    let mut store = FakeStore::new(driver);
    let id = store.layer(&odd_tar().end(Ending::Blocks(2)), None);
    harm(&mut store, id);
    let (storage, listing) = store.read();
    rebuild(&storage, &listing, id).unwrap_err()
}

/// The path and the cause.
#[track_caller]
fn damaged(error: LayerError) -> (Option<String>, String) {
    match error {
        LayerError::Damaged { path, cause, .. } => {
            (path.map(|path| String::from_utf8(path).unwrap()), cause)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn i_11_a_missing_file_is_named() {
    for driver in DRIVERS {
        let error = harmed(driver, |store, id| {
            fs::remove_file(store.folder(id).join("same-1")).unwrap();
        });
        let expected = "it is missing".to_owned();
        assert_eq!(damaged(error), (Some("same-1".into()), expected));
    }
}

#[test]
fn i_11_a_flipped_bit_is_found_and_its_file_named() {
    for driver in DRIVERS {
        let error = harmed(driver, |store, id| {
            let file = store.folder(id).join("large");
            let mut content = fs::read(&file).unwrap();
            content[1_500_000] ^= 1;
            fs::write(file, content).unwrap();
            // A later one that is wrong as well is not the first.
            fs::write(store.folder(id).join("zeros"), [1; 70_000]).unwrap();
        });
        let (path, cause) = damaged(error);
        assert_eq!(path.as_deref(), Some("large"));
        assert!(cause.contains("checksum"), "{cause}");
    }
}

/// What a power cut leaves of files that were not synced.
#[test]
fn i_11_a_file_of_another_length_is_named() {
    for (len, expected) in [
        (0, "it has 0 bytes, not 512"),
        (513, "it has 513 bytes, not 512"),
    ] {
        for driver in DRIVERS {
            let error = harmed(driver, |store, id| {
                fs::write(store.folder(id).join("block"), vec![7; len]).unwrap();
            });
            let (path, cause) = damaged(error);
            assert_eq!((path.as_deref(), cause.as_str()), (Some("block"), expected));
        }
    }
}

#[test]
fn i_11_a_missing_layer_record_is_named() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let lower = store.layer(&odd_tar(), None);
    let upper = store.layer(&Tar::default().file("x", b"y"), Some(lower));
    let image = store.image("localhost/a:1", Some(upper));
    store.layers.remove(0);
    let (_, listing) = store.read();
    let error = listing.chain(&listing.images[0]).unwrap_err();
    let StorageError::MissingLayer { image: of, layer } = error else {
        panic!("{error}");
    };
    assert_eq!((of, layer), (image, lower));
}

#[test]
fn i_11_a_missing_tar_split_is_told() {
    let error = harmed(StorageDriver::Overlay, |store, id| {
        fs::remove_file(store.split_file(id)).unwrap();
    });
    let LayerError::NotExact { cause, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(cause, NotExact::NoTarSplit);
}

#[test]
fn i_11_an_incomplete_layer_is_damaged() {
    let error = harmed(StorageDriver::Overlay, |store, id| {
        store.record(id)["flags"] = json!({"incomplete": true});
    });
    let (path, cause) = damaged(error);
    assert_eq!(path, None);
    assert!(cause.contains("incomplete"), "{cause}");
}

#[test]
fn a_missing_directory_is_damage() {
    for driver in DRIVERS {
        let error = harmed(driver, |store, id| {
            fs::remove_dir_all(store.folder(id)).unwrap();
        });
        let expected = "its directory is missing".to_owned();
        assert_eq!(damaged(error), (None, expected));
    }
}

/// A byte of a header is in no file.
#[test]
fn damage_in_tar_split_names_no_file() {
    let tar = odd_tar().end(Ending::Blocks(2));
    let error = harmed(StorageDriver::Overlay, |store, id| {
        let mut other = tar.clone();
        other.bytes[100] ^= 1;
        fs::write(store.split_file(id), gzip(&other.split(), 1)).unwrap();
    });
    let (path, cause) = damaged(error);
    assert_eq!(path, None);
    assert!(cause.contains("each file fits"), "{cause}");
}

#[test]
fn a_tar_of_another_length_is_damage() {
    let other = odd_tar().end(Ending::Blocks(1));
    let error = harmed(StorageDriver::Overlay, |store, id| {
        fs::write(store.split_file(id), gzip(&other.split(), 1)).unwrap();
    });
    assert!(damaged(error).1.contains("bytes, not"));
    let other = odd_tar().end(Ending::Blocks(3));
    let error = harmed(StorageDriver::Overlay, |store, id| {
        fs::write(store.split_file(id), gzip(&other.split(), 1)).unwrap();
    });
    assert!(damaged(error).1.contains("longer than the store says"));
}

/// The record has another digest than what the tar hashes to.
#[test]
fn a_layer_is_only_taken_for_what_it_hashes_to() {
    let error = harmed(StorageDriver::Overlay, |store, id| {
        store.record(id)["diff-digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    });
    assert_eq!(damaged(error).0, None);
}

/// Podman removes an image while it is read.
#[test]
fn a_layer_that_is_removed_is_gone_and_not_damaged() {
    let remove_files = |store: &FakeStore, id: LayerId| {
        fs::remove_dir_all(store.folder(id)).unwrap();
        fs::remove_file(store.split_file(id)).unwrap();
    };
    // Before it is opened.
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&odd_tar(), None);
    let (storage, listing) = store.read();
    remove_files(&store, id);
    store.layers.clear();
    store.write_lists();
    let error = rebuild(&storage, &listing, id).unwrap_err();
    assert!(
        matches!(error, LayerError::Gone { layer } if layer == id),
        "{error}"
    );
    // While it is read; at this moment it is only marked.
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&odd_tar(), None);
    let (storage, listing) = store.read();
    let mut reader = LayerReader::open(&storage, &listing, &listing.layers[&id]).unwrap();
    assert!(matches!(reader.next_event(), Ok(LayerEvent::Literal(_))));
    store.record(id)["flags"] = json!({"incomplete": true});
    store.write_lists();
    remove_files(&store, id);
    let error = loop {
        if let Err(error) = reader.next_event() {
            break error;
        }
    };
    assert!(
        matches!(error, LayerError::Gone { layer } if layer == id),
        "{error}"
    );
    assert!(matches!(reader.next_event(), Err(LayerError::Gone { .. })));
}

/// Cuts, flips and insertions anywhere in tar-split, compressed or not, and in files.
#[test]
fn no_random_damage_verifies() {
    let tar = odd_tar().end(Ending::Blocks(2));
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&tar, None);
    let (storage, listing) = store.read();
    let split = tar.split();
    let compressed = gzip(&split, 1);
    let mut different = 0;
    for round in 0..200u64 {
        let dice = noise(round, 16);
        let at = u64::from_le_bytes(dice[..8].try_into().unwrap()) as usize;
        let harm = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at % bytes.len();
            match dice[8] % 4 {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << (dice[9] % 8),
                2 => bytes.insert(at, dice[10]),
                _ => {
                    let end = (at + usize::from(dice[11])).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
            bytes
        };
        let large = store.folder(id).join("large");
        let content = fs::read(&large).unwrap();
        match dice[12] % 3 {
            0 => fs::write(store.split_file(id), harm(&compressed)).unwrap(),
            1 => fs::write(store.split_file(id), gzip(&harm(&split), 1)).unwrap(),
            _ => fs::write(&large, harm(&content)).unwrap(),
        }
        match rebuild(&storage, &listing, id) {
            // Bytes that mean nothing: a flag of gzip, a checksum or position of tar-split.
            Ok(whole) => assert!(whole.tar == tar.bytes, "round {round} verifies"),
            Err(LayerError::Damaged { .. }) => different += 1,
            Err(other) => panic!("round {round}: {other}"),
        }
        fs::write(store.split_file(id), &compressed).unwrap();
        fs::write(&large, content).unwrap();
    }
    assert!(different > 150, "only {different} of 200 were noticed");
    assert!(rebuild(&storage, &listing, id).is_ok());
}
