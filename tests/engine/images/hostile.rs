//! Stores that mean harm: nothing outside them is read, nothing waits, nothing grows without end.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use podkeep_engine::podman::{LayerError, Storage, StorageDriver, TarSplit};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use super::{DRIVERS, odd_tar, rebuild};
use crate::fake_store::{FakeStore, Tar, gzip};

const SECRET: &[u8] = b"what is outside";

/// A layer with one file called `name`, whose place `plant` fills; the tar would be right if what
/// is outside were read.
fn planted(
    driver: StorageDriver,
    name: &str,
    plant: impl Fn(&FakeStore, &std::path::Path),
) -> LayerError {
    let mut store = FakeStore::new(driver);
    let id = store.layer(&Tar::default().file(name, SECRET), None);
    fs::write(store.scratch.join("outside"), SECRET).unwrap();
    let folder = store.folder(id);
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    plant(&store, &folder);
    let (storage, listing) = store.read();
    rebuild(&storage, &listing, id).unwrap_err()
}

fn assert_damaged(error: LayerError, path: &str) {
    match error {
        LayerError::Damaged {
            path: Some(found), ..
        } if found == path.as_bytes() => {}
        other => panic!("{other}"),
    }
}

#[test]
fn names_with_dots_stay_inside() {
    for driver in DRIVERS {
        for name in [
            "../../../../outside",
            "a/../../../../../outside",
            "/../outside",
        ] {
            assert_damaged(planted(driver, name, |_, _| {}), name);
        }
    }
}

/// In the layer's own tree such a name has a meaning, and then it is read.
#[test]
fn a_name_with_dots_is_found_where_it_was_unpacked() {
    let tar = Tar::default().file("../a/./../b", SECRET);
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&tar, None);
    fs::remove_dir_all(store.folder(id)).unwrap();
    fs::create_dir(store.folder(id)).unwrap();
    fs::write(store.folder(id).join("b"), SECRET).unwrap();
    let (storage, listing) = store.read();
    assert!(rebuild(&storage, &listing, id).unwrap().tar == tar.bytes);
}

#[test]
fn links_lead_to_no_file_of_the_host() {
    for driver in DRIVERS {
        let error = planted(driver, "file", |store, folder| {
            symlink(store.scratch.join("outside"), folder.join("file")).unwrap();
        });
        assert_damaged(error, "file");
        let error = planted(driver, "folder/outside", |store, folder| {
            symlink(store.scratch.path(), folder.join("folder")).unwrap();
        });
        assert_damaged(error, "folder/outside");
        let error = planted(driver, "folder/outside", |_, folder| {
            symlink("../../../..", folder.join("folder")).unwrap();
        });
        assert_damaged(error, "folder/outside");
        let error = planted(driver, "folder/outside", |store, folder| {
            let root = std::path::Path::new("/proc/self/root");
            let scratch = store.scratch.path().strip_prefix("/").unwrap();
            symlink(root.join(scratch), folder.join("folder")).unwrap();
        });
        assert_damaged(error, "folder/outside");
    }
}

/// Not even the directories of the store may be links: root reads the stores of users.
#[test]
fn no_directory_of_a_store_is_reached_through_a_link() {
    for below in ["overlay", "overlay-layers", "overlay-images"] {
        let mut store = FakeStore::new(StorageDriver::Overlay);
        let id = store.layer(&odd_tar(), None);
        store.image("localhost/a:1", Some(id));
        store.write_lists();
        let (from, to) = (store.graph_root().join(below), store.scratch.join("moved"));
        fs::rename(&from, &to).unwrap();
        symlink(&to, &from).unwrap();
        let storage = Storage::new(&store.places()).unwrap();
        let cause = match storage.read() {
            Ok(listing) => rebuild(&storage, &listing, id).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(cause.contains("symbolic link"), "{below}: {cause}");
    }
}

/// Opening a fifo for reading waits for a writer; opening a device does what the device does.
#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    for driver in DRIVERS {
        for kind in [FileType::Fifo, FileType::Socket, FileType::CharacterDevice] {
            let error = planted(driver, "file", |_, folder| {
                // 1:5 is /dev/zero, which has no end.
                let device = rustix::fs::makedev(1, 5);
                let path = folder.join("file");
                rustix::fs::mknodat(CWD, path, kind, Mode::RUSR, device).unwrap();
            });
            assert_damaged(error, "file");
        }
        let error = planted(driver, "file", |_, folder| {
            fs::create_dir(folder.join("file")).unwrap();
        });
        assert_damaged(error, "file");
    }
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&odd_tar(), None);
    let (storage, listing) = store.read();
    fs::remove_file(store.split_file(id)).unwrap();
    rustix::fs::mknodat(CWD, store.split_file(id), FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(matches!(
        rebuild(&storage, &listing, id),
        Err(LayerError::Unreadable { .. })
    ));
    let list = store.graph_root().join("overlay-layers/layers.json");
    fs::remove_file(&list).unwrap();
    rustix::fs::mknodat(CWD, list, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let error = storage.read().unwrap_err().to_string();
    assert!(error.ends_with("it is no regular file"), "{error}");
}

/// Opening a device can be all that it takes: an image may hold a watchdog under the name of a file.
/// The writer of a fifo waits until somebody opens it for reading.
#[test]
fn what_is_no_regular_file_is_not_even_opened() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&Tar::default().file("file", SECRET), None);
    let (storage, listing) = store.read();
    let fifo = store.folder(id).join("file");
    fs::remove_file(&fifo).unwrap();
    let rw = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, rw, 0).unwrap();
    let opened = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let writer = fs::File::options().write(true).open(&fifo);
            opened.store(true, Ordering::SeqCst);
            writer.map(drop)
        });
        std::thread::sleep(Duration::from_millis(100));
        let error = rebuild(&storage, &listing, id).unwrap_err();
        std::thread::sleep(Duration::from_millis(100));
        let was_opened = opened.load(Ordering::SeqCst);
        drop(fs::File::open(&fifo).unwrap());
        waiting.join().unwrap().unwrap();
        assert_damaged(error, "file");
        assert!(!was_opened, "the fifo was opened");
    });
}

/// A store whose only layer has this tar-split.
fn with_split(lines: &[Value]) -> LayerError {
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line.to_string().as_bytes());
        text.push(b'\n');
    }
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&Tar::default().file("a", b"content"), None);
    fs::write(store.split_file(id), gzip(&text, 1)).unwrap();
    let (storage, listing) = store.read();
    rebuild(&storage, &listing, id).unwrap_err()
}

#[test]
fn sizes_that_nothing_can_have_are_refused() {
    for size in [json!(u64::MAX), json!(i64::MAX), json!(1u64 << 40)] {
        let error = with_split(&[json!({"type": 1, "name": "a", "size": size, "payload": null})]);
        assert_damaged(error, "a");
    }
    for line in [
        json!({"type": 1, "name": "a", "size": -1}),
        json!({"type": 1, "name": "a", "size": 1.5}),
        json!({"type": 1, "size": 7}),
        json!({"type": 1, "name": "a", "size": 7, "payload": "AAAA"}),
        json!({"type": 1, "name_raw": "?", "size": 7}),
        json!({"type": 2, "payload": "A"}),
        json!({"type": 3}),
        json!({"payload": "AAAA"}),
        json!([]),
        json!(null),
    ] {
        let error = with_split(std::slice::from_ref(&line));
        assert!(
            matches!(&error, LayerError::Damaged { path: None, cause, .. }
                if cause.contains("line 1")),
            "{line}: {error}"
        );
    }
    let error = with_split(&[json!({"type": 1, "name": "a\0b", "size": 7})]);
    assert_damaged(error, "a\0b");
}

/// Everything that `text` makes of a tar-split; the error, or how many entries there were.
fn decode(text: &[u8]) -> Result<usize, String> {
    let compressed = gzip(text, 1);
    let mut split = TarSplit::new(&compressed[..]);
    let mut entries = 0;
    while split
        .next_entry()
        .map_err(|error| error.to_string())?
        .is_some()
    {
        entries += 1;
    }
    Ok(entries)
}

/// A few KiB of gzip that stand for a GiB of text.
#[test]
fn text_in_abundance_is_refused() {
    let line = "{\"type\":1,\"name\":\"a\"}\n";
    assert_eq!(decode(line.repeat(10).as_bytes()), Ok(10));
    let error = decode(line.repeat(100_000).as_bytes()).unwrap_err();
    assert!(error.contains("far more text"), "{error}");
    let error = decode(&vec![b' '; 40 << 20]).unwrap_err();
    assert!(error.contains("longer than"), "{error}");
    let deep = "[".repeat(1 << 20);
    assert!(decode(deep.as_bytes()).is_err());
}

#[test]
fn lists_in_abundance_are_refused() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    store.write_lists();
    let storage = Storage::new(&store.places()).unwrap();
    let list = store.graph_root().join("overlay-images/images.json");
    let read = |text: String| {
        fs::write(&list, text).unwrap();
        storage.read()
    };
    let cause = |text: String| read(text).unwrap_err().to_string();
    assert!(cause("[".repeat(1 << 20)).contains("not understood"));
    assert!(cause(format!("[{}0]", "0,".repeat(300_000))).contains("more than 200000"));
    assert!(cause("{}".into()).contains("not understood"));
    // What a power cut leaves: Podman takes it for an empty list, too.
    assert!(read(String::new()).unwrap().images.is_empty());
    // Within one entry it costs that entry.
    let id = "a".repeat(64);
    for entry in [
        format!(
            "{{\"id\":\"{id}\",\"names\":[{}\"\"]}}",
            "\"\",".repeat(20_000)
        ),
        format!(
            "{{\"id\":\"{id}\",\"flags\":{}}}",
            "[".repeat(3) + &"]".repeat(3)
        ),
        format!("{{\"id\":\"{id}\",\"id\":\"{id}\"}}"),
        format!("{{\"id\":\"{id}\",\"big-data-sizes\":{{\"a\":1e99}}}}"),
        format!("{{\"id\":\"{}\"}}", "A".repeat(64)),
    ] {
        let listing = read(format!("[{entry}]")).unwrap();
        let flags_only = entry.contains("flags");
        assert_eq!(
            listing.images.len(),
            usize::from(flags_only),
            "{entry:.100}"
        );
        assert_eq!(listing.not_understood.len(), usize::from(!flags_only));
    }
    let deep = format!(
        "[{{\"id\":\"{id}\",\"flags\":{{\"x\":{}}}}}]",
        "[".repeat(200)
    );
    assert!(read(deep).is_err());
    let file = fs::File::create(&list).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = storage.read().unwrap_err().to_string();
    assert!(error.ends_with("it is too large"), "{error}");
}
