//! Tars of our own making, for layers whose own ones cannot be made again.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use podkeep_engine::fs::tar::{Member, MemberError, MemberKind, MemberReader, TarSource};
use podkeep_engine::podman::{LayerError, StoreListing};
use podkeep_engine::podman::{LayerEvent, LayerId, NotExact, OwnTar, StorageDriver};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use serde_json::json;

use super::{noise, odd_tar, rebuild, upper_tar};
use crate::fake_store::{FakeStore, Tar, sha256};

struct Slice<'s>(&'s [u8]);

impl TarSource for Slice<'_> {
    type Error = MemberError;

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, MemberError> {
        let len = buffer.len().min(self.0.len());
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }

    fn skip(&mut self, bytes: u64) -> Result<u64, MemberError> {
        let len = bytes.min(self.0.len() as u64);
        self.0 = &self.0[len as usize..];
        Ok(len)
    }
}

/// The tar, which comes in the parts that a layer's own one would: contents of files apart.
fn own_tar(store: &mut FakeStore, layer: LayerId) -> Result<Vec<u8>, LayerError> {
    let (storage, listing) = store.read();
    let own = OwnTar::plan(&storage, &listing, &listing.layers[&layer])?;
    let mut reader = own.read();
    let (mut tar, mut left) = (Vec::new(), 0);
    let end = loop {
        match reader.next_event()? {
            LayerEvent::Literal(bytes) => {
                assert!(left == 0 && !bytes.is_empty());
                tar.extend_from_slice(bytes);
            }
            LayerEvent::Payload { size, .. } => {
                assert!(left == 0 && size > 0);
                left = size;
            }
            LayerEvent::Bytes(bytes) => {
                left -= bytes.len() as u64;
                tar.extend_from_slice(bytes);
            }
            LayerEvent::End(end) => break end,
        }
    };
    assert_eq!(left, 0);
    assert_eq!(end.diff_id.0, sha256(&tar));
    assert_eq!(end.size, tar.len() as u64);
    assert_eq!(own.measure()?, end, "it is the same each time");
    Ok(tar)
}

fn members(tar: &[u8]) -> Vec<Member> {
    let mut reader = MemberReader::new(Slice(tar));
    let mut members = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        members.push(member);
    }
    members
}

fn names(tar: &[u8]) -> Vec<String> {
    let members = members(tar).into_iter();
    members
        .map(|member| String::from_utf8_lossy(&member.path).into_owned())
        .collect()
}

fn not_exact(error: LayerError) -> NotExact {
    match error {
        LayerError::NotExact { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

#[test]
fn i_11_an_overlay_layer_has_what_it_hides_as_a_tar_has_it() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let lower = store.layer(&odd_tar(), None);
    let upper = store.layer(&upper_tar(), Some(lower));
    fs::remove_file(store.split_file(upper)).unwrap();
    let (storage, listing) = store.read();
    assert_eq!(
        not_exact(rebuild(&storage, &listing, upper).unwrap_err()),
        NotExact::NoTarSplit
    );
    let tar = own_tar(&mut store, upper).unwrap();
    assert_eq!(
        names(&tar),
        [
            "./",
            "lib/",
            "lib/c.so",
            ".wh.same-1",
            "same-2",
            "usr/",
            "usr/.wh..wh..opq",
            "usr/new",
        ]
    );
    let [.., new] = &members(&tar)[..] else {
        panic!("no member")
    };
    let MemberKind::File { content, size } = new.kind else {
        panic!("{new:?}")
    };
    assert_eq!(
        &tar[content as usize..(content + size) as usize],
        b"after it"
    );
}

#[test]
fn i_19_an_entry_keeps_all_that_a_tar_can_say_of_it() {
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&Tar::default(), None);
    let root = store.folder(id);
    let long = "n".repeat(200);
    fs::create_dir(root.join(&long)).unwrap();
    let file = root.join(&long).join("file");
    fs::write(&file, noise(1, 700)).unwrap();
    fs::hard_link(&file, root.join("another")).unwrap();
    symlink("../outside", root.join("link")).unwrap();
    rustix::fs::mknodat(
        CWD,
        root.join("null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        0x103,
    )
    .unwrap();
    rustix::fs::mknodat(CWD, root.join("socket"), FileType::Socket, Mode::RUSR, 0).unwrap();
    rustix::fs::chown(&file, Some(rustix::fs::Uid::from_raw(3_000_000)), None).unwrap();
    rustix::fs::chmod(&file, Mode::from_raw_mode(0o4751)).unwrap();
    for (name, value) in [
        ("user.x", &b"\0\xff"[..]),
        // The driver's own.
        ("trusted.overlay.origin", b"y"),
    ] {
        rustix::fs::setxattr(&file, name, value, XattrFlags::empty()).unwrap();
    }
    let time = Timespec {
        tv_sec: -2,
        tv_nsec: 500_000_000,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty()).unwrap();
    let tar = own_tar(&mut store, id).unwrap();
    assert_eq!(
        names(&tar),
        [
            "./",
            "another",
            "link",
            &format!("{long}/"),
            &format!("{long}/file"),
            "null"
        ]
    );
    let members = members(&tar);
    let first = &members[1];
    assert_eq!((first.mode, first.uid), (0o4751, 3_000_000));
    assert_eq!((first.mtime.secs, first.mtime.nanos), (-2, 500_000_000));
    assert!(matches!(first.kind, MemberKind::File { size: 700, .. }));
    assert!(matches!(&members[2].kind, MemberKind::Symlink { target } if target == b"../outside"));
    assert!(matches!(&members[4].kind, MemberKind::HardLink { target } if target == b"another"));
    assert!(matches!(
        members[5].kind,
        MemberKind::CharDevice { major: 1, minor: 3 }
    ));
    let record = b"SCHILY.xattr.user.x=\0\xff";
    assert!(tar.windows(record.len()).any(|part| part == record));
    assert!(!tar.windows(7).any(|part| part == b"overlay"));
}

/// As the drivers with whole trees begin a layer: a copy with all attributes.
fn copy(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    #[expect(clippy::disallowed_methods, reason = "copies a tree for a test")]
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// A build may give all files the same time, so that only their contents tell which changed.
#[test]
fn i_17_of_a_whole_tree_what_changed_is_taken_whatever_its_time_says() {
    let mut store = FakeStore::new(StorageDriver::Vfs);
    let tar = Tar::default()
        .directory("d")
        .file("d/same", &noise(1, 5000))
        .file("d/edited", &noise(2, 5000))
        .file("d/touched", b"touched")
        .file("gone", b"gone")
        .directory("folder-gone")
        .file("folder-gone/x", b"x")
        .file("becomes-folder", b"file")
        .directory("becomes-file")
        .file("becomes-file/y", b"y")
        .file("linked", b"linked")
        .hard_link("linked-too", b"linked")
        .file("apart", b"apart")
        .hard_link("apart-too", b"apart");
    let lower = store.layer(&tar, None);
    let upper = store.layer(&Tar::default(), Some(lower));
    let root = store.folder(upper);
    copy(&store.folder(lower), &root);
    // The same size and time.
    let edited = root.join("d/edited");
    let before = fs::metadata(&edited).unwrap();
    fs::write(&edited, noise(3, 5000)).unwrap();
    let time = Timespec {
        tv_sec: before.mtime(),
        tv_nsec: before.mtime_nsec(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, &edited, &times, rustix::fs::AtFlags::empty()).unwrap();
    fs::write(root.join("d/touched"), "touched").unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("folder-gone")).unwrap();
    fs::remove_file(root.join("becomes-folder")).unwrap();
    fs::create_dir(root.join("becomes-folder")).unwrap();
    fs::write(root.join("becomes-folder/z"), "z").unwrap();
    fs::remove_dir_all(root.join("becomes-file")).unwrap();
    fs::write(root.join("becomes-file"), "file").unwrap();
    // A third name for a file of which nothing changed but that; another file loses a name.
    fs::hard_link(root.join("linked"), root.join("linked-three")).unwrap();
    fs::remove_file(root.join("apart-too")).unwrap();
    fs::remove_file(store.split_file(upper)).unwrap();
    let tar = own_tar(&mut store, upper).unwrap();
    let names = names(&tar);
    // That the root's and the folder's times are others is the test's doing.
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "./")
        .collect();
    assert_eq!(
        names,
        [
            ".wh.apart-too",
            "becomes-file",
            "becomes-folder/",
            "becomes-folder/z",
            "d/edited",
            "d/touched",
            ".wh.folder-gone",
            ".wh.gone",
            "linked",
            "linked-three",
            "linked-too",
        ]
    );
    let members = members(&tar);
    let links = members.iter().filter(
        |member| matches!(&member.kind, MemberKind::HardLink { target } if target == b"linked"),
    );
    assert_eq!(links.count(), 2);
    // A bottom layer has everything.
    fs::remove_file(store.split_file(lower)).unwrap();
    let tar = own_tar(&mut store, lower).unwrap();
    assert_eq!(self::names(&tar).len(), 15);
}

#[test]
fn what_no_tar_of_a_layer_can_say_is_refused() {
    let mut store = FakeStore::new(StorageDriver::Vfs);
    let id = store.layer(&Tar::default().file("a", b"1"), None);
    fs::write(store.folder(id).join(".wh.a"), "").unwrap();
    assert_eq!(
        not_exact(own_tar(&mut store, id).unwrap_err()),
        NotExact::WhiteoutName
    );
    store.record(id)["uidmap"] = json!([{"container_id": 0, "host_id": 9, "size": 1}]);
    assert_eq!(
        not_exact(own_tar(&mut store, id).unwrap_err()),
        NotExact::Mapped
    );
    let mut store = FakeStore::new(StorageDriver::Overlay);
    let id = store.layer(&Tar::default().file("a", b"1"), None);
    let file = store.folder(id).join("a");
    rustix::fs::setxattr(file, "trusted.overlay.metacopy", b"", XattrFlags::empty()).unwrap();
    assert_eq!(
        not_exact(own_tar(&mut store, id).unwrap_err()),
        NotExact::Apart
    );
    // What lies below is what is compared, and it is missing.
    let mut store = FakeStore::new(StorageDriver::Vfs);
    let lower = store.layer(&Tar::default().file("a", b"1"), None);
    let upper = store.layer(&Tar::default().file("b", b"2"), Some(lower));
    let (storage, listing) = store.read();
    let alone = StoreListing {
        layers: listing
            .layers
            .iter()
            .filter(|(id, _)| **id == upper)
            .map(|(id, layer)| (*id, layer.clone()))
            .collect(),
        ..StoreListing::default()
    };
    let error = OwnTar::plan(&storage, &alone, &alone.layers[&upper])
        .err()
        .unwrap();
    assert!(error.to_string().contains("no record of layer"), "{error}");
}

/// PAX tells of a sparse file in records, and tar-split keeps all that was unpacked of it: more than
/// its tar has.
#[test]
fn i_19_a_sparse_file_is_told_apart_from_damage() {
    let content = [&noise(1, 512)[..], &[0; 4096], &noise(2, 512)].concat();
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"5120"),
    ];
    let packed = Tar::default().file_with(
        "sparse",
        &[0; 1536],
        records,
        crate::fake_store::LongName::Pax,
    );
    let unpacked = Tar::default().file_with(
        "sparse",
        &content,
        records,
        crate::fake_store::LongName::Pax,
    );
    let mut store = FakeStore::new(StorageDriver::Overlay);
    // What Podman keeps after it unpacked the first.
    let id = store.layer(&unpacked, None);
    let record = store.record(id);
    record["diff-digest"] = json!(format!("sha256:{}", packed.diff_id()));
    record["diff-size"] = json!(packed.bytes.len());
    for size in [packed.bytes.len(), unpacked.bytes.len() + 1] {
        store.record(id)["diff-size"] = json!(size);
        let (storage, listing) = store.read();
        assert_eq!(
            not_exact(rebuild(&storage, &listing, id).unwrap_err()),
            NotExact::Sparse
        );
    }
    // Damage of such a layer is damage all the same.
    let file = store.folder(id).join("sparse");
    let mut bad = content.clone();
    bad[5000] ^= 1;
    fs::write(&file, bad).unwrap();
    let (storage, listing) = store.read();
    let error = rebuild(&storage, &listing, id).unwrap_err();
    assert!(
        matches!(&error, LayerError::Damaged { path: Some(path), .. } if path == b"sparse"),
        "{error}"
    );
    fs::write(&file, &content).unwrap();
    let tar = own_tar(&mut store, id).unwrap();
    let MemberKind::File { content: at, size } = members(&tar)[1].kind else {
        panic!("no file")
    };
    assert!(tar[at as usize..(at + size) as usize] == content);
}
