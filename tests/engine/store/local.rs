//! What only a folder on a file system can show: places, links, modes, full and failing disks.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use podkeep_engine::store::local::{CreateError, LocalStore};
use podkeep_engine::store::{Medium, ObjectStore, Put, StoreErrorKind};
use rustix::mount::{MountFlags, UnmountFlags};

use super::name;

/// Everything below a folder with its kind and mode, for "nothing has changed".
fn tree(folder: &Path) -> BTreeMap<PathBuf, (bool, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut queue = vec![folder.to_owned()];
    while let Some(folder) = queue.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            if meta.is_dir() {
                queue.push(path.clone());
            }
            found.insert(path, (meta.is_dir(), meta.permissions().mode(), content));
        }
    }
    found
}

fn temps(place: &Path) -> usize {
    fs::read_dir(place.join(".tmp")).unwrap().count()
}

/// A tmpfs below a temporary folder, unmounted on drop.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(options: &std::ffi::CStr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        rustix::mount::mount(
            "podkeep",
            folder.path(),
            "tmpfs",
            MountFlags::empty(),
            options,
        )
        .unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, flags: MountFlags) {
        rustix::mount::mount_remount(self.path(), flags, c"").unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_new_store_has_all_its_folders_and_is_the_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a/b/repository");
    let store = LocalStore::create(&place).unwrap();
    assert_eq!(store.place(), place.display().to_string());
    for shard in 0..=255 {
        assert!(place.join(format!("packs/{shard:02x}")).is_dir());
        assert!(place.join(format!("parity/{shard:02x}")).is_dir());
    }
    store.put_new(&name("packs/00/x"), b"bytes").unwrap();
    store
        .put_new(&name("elsewhere/folder/x"), b"bytes")
        .unwrap();
    for (path, (is_folder, mode, _)) in tree(folder.path()) {
        let expected = if is_folder { 0o700 } else { 0o600 };
        assert_eq!(mode & 0o7777, expected, "{}", path.display());
    }
    drop(store);
    let store = LocalStore::open(&place).unwrap();
    assert_eq!(store.get(&name("packs/00/x"), 5).unwrap(), b"bytes");
    assert_eq!(store.medium(), Medium::Linearizable);
}

/// Reading a mistyped path made a fresh store on the root disk; a second init replaced a config.
#[test]
fn e_17_a_mistyped_or_unmounted_place_is_never_made() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    let file = folder.path().join("file");
    let full = folder.path().join("full");
    fs::create_dir(&empty).unwrap();
    fs::create_dir_all(full.join("data")).unwrap();
    fs::write(&file, b"").unwrap();
    let before = tree(folder.path());
    for place in [&folder.path().join("absent/place"), &empty, &file, &full] {
        let error = LocalStore::open(place).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
        assert!(
            error.object.starts_with(&place.display().to_string()),
            "{error}"
        );
    }
    assert_eq!(tree(folder.path()), before);
}

#[test]
fn e_17_a_store_or_a_folder_in_use_is_never_made_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let used = folder.path().join("used");
    let store = LocalStore::create(&used).unwrap();
    store.put_new(&name("config"), b"bytes").unwrap();
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), b"").unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"content").unwrap();
    let before = tree(folder.path());

    let error = LocalStore::create(&used).unwrap_err();
    assert!(matches!(error, CreateError::StoreThere { .. }), "{error}");
    let error = LocalStore::create(&other).unwrap_err();
    assert!(matches!(error, CreateError::NotEmpty { .. }), "{error}");
    assert!(error.to_string().contains("letter.txt"), "{error}");
    let error = LocalStore::create(&file).unwrap_err();
    assert!(matches!(error, CreateError::Store(_)), "{error}");
    assert!(
        error.to_string().contains(&file.display().to_string()),
        "{error}"
    );
    LocalStore::create(file.join("below")).unwrap_err();

    assert_eq!(tree(folder.path()), before);
}

#[test]
fn the_root_of_a_new_file_system_and_a_cut_off_creation_become_a_store() {
    let folder = tempfile::tempdir().unwrap();
    for made in [
        &["lost+found"][..],
        &[],
        &["packs/00", ".tmp"],
        &["packs/00", "parity", "keys"],
    ] {
        let place = folder.path().join(made.len().to_string());
        fs::create_dir_all(&place).unwrap();
        for path in made {
            fs::create_dir_all(place.join(path)).unwrap();
        }
        LocalStore::create(&place).unwrap();
        assert!(place.join("packs/ff").is_dir());
        fs::remove_dir_all(&place).unwrap();
    }
}

#[test]
fn a_creation_that_fails_leaves_nothing_behind() {
    // Room for some of the folders, not for all.
    let disk = Tmpfs::new(c"nr_inodes=100");
    let error = LocalStore::create(disk.path().join("a/b/repository")).unwrap_err();
    let CreateError::Store(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.kind, StoreErrorKind::NoSpace);
    assert!(error.object.contains("/a/b/repository/pa"), "{error}");
    assert_eq!(tree(disk.path()), BTreeMap::new());

    let there = disk.path().join("there");
    fs::create_dir(&there).unwrap();
    LocalStore::create(&there).unwrap_err();
    assert_eq!(tree(disk.path()).len(), 1);

    disk.remount(MountFlags::RDONLY);
    for place in [there, disk.path().join("new")] {
        let CreateError::Store(error) = LocalStore::create(&place).unwrap_err() else {
            panic!("not the medium's failure");
        };
        assert_eq!(error.kind, StoreErrorKind::NotWritable);
    }
    assert_eq!(tree(disk.path()).len(), 1);
}

/// A copy by a program that keeps no empty folders.
#[test]
fn a_store_without_its_empty_folders_works() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    LocalStore::create(&place)
        .unwrap()
        .put_new(&name("keys/1"), b"1")
        .unwrap();
    for path in fs::read_dir(&place).unwrap() {
        let path = path.unwrap().path();
        if path.file_name().unwrap() != "keys" {
            fs::remove_dir_all(path).unwrap();
        }
    }
    let store = LocalStore::open(&place).unwrap();
    assert_eq!(store.list("packs").unwrap(), []);
    assert_eq!(store.sweep_temps(&|_| true).unwrap(), 0);
    assert_eq!(store.get(&name("keys/1"), 1).unwrap(), b"1");
    assert_eq!(tree(&place).len(), 2, "reading makes nothing");
    store.put_new(&name("packs/7f/x"), b"2").unwrap();
    assert!(place.join("packs/ff").is_dir());
}

#[test]
fn a_removed_store_does_not_list_as_empty() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    fs::remove_dir_all(&place).unwrap();
    assert_eq!(store.list("").unwrap_err().kind, StoreErrorKind::NotFound);
    assert_eq!(
        store.list("packs").unwrap_err().kind,
        StoreErrorKind::NotFound
    );
    store.put_new(&name("config"), b"").unwrap_err();
    assert!(!place.exists());
}

#[test]
fn linked_folders_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    let victim = folder.path().join("victim");
    fs::create_dir_all(victim.join("00")).unwrap();
    fs::write(victim.join("00/x"), b"bytes").unwrap();
    fs::rename(place.join("packs"), folder.path().join("moved")).unwrap();
    symlink(&victim, place.join("packs")).unwrap();
    let before = tree(&victim);

    let object = name("packs/00/x");
    let errors = [
        store.put_new(&object, b"bytes").unwrap_err(),
        store.replace(&object, b"bytes").unwrap_err(),
        store.get(&object, 5).unwrap_err(),
        store.get_range(&object, 0, 5).unwrap_err(),
        store.size(&object).unwrap_err(),
        store.delete(&object).unwrap_err(),
        store.list("packs").unwrap_err(),
        store.list("packs/00").unwrap_err(),
        store.list("").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, StoreErrorKind::Io, "{error}");
    }
    assert_eq!(tree(&victim), before);
    drop(store);
    let error = LocalStore::open(&place).unwrap_err();
    assert!(error.cause.contains("packs is a symbolic link"), "{error}");
}

#[test]
fn planted_links_and_fifos_are_no_objects() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, b"bytes").unwrap();
    symlink(&victim, place.join("packs/00/link")).unwrap();
    let fifo = place.join("packs/00/fifo");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, 0o600.into(), 0).unwrap();

    for object in ["packs/00/link", "packs/00/fifo"] {
        let object = name(object);
        for error in [
            store.get(&object, 5).unwrap_err(),
            store.get_range(&object, 0, 5).unwrap_err(),
            store.size(&object).unwrap_err(),
            store.put_new(&object, b"bytes").unwrap_err(),
        ] {
            assert_eq!(error.kind, StoreErrorKind::Io, "{error}");
            assert!(error.object.ends_with(object.as_str()), "{error}");
        }
    }
    assert_eq!(store.list("").unwrap(), []);
    // A replacement and a deletion are of the name, not of what it leads to.
    store.replace(&name("packs/00/link"), b"new").unwrap();
    assert_eq!(store.get(&name("packs/00/link"), 3).unwrap(), b"new");
    assert!(store.delete(&name("packs/00/fifo")).unwrap());
    assert_eq!(fs::read(&victim).unwrap(), b"bytes");
}

#[test]
fn foreign_names_and_temporary_files_are_never_listed() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    store.put_new(&name("packs/00/x"), b"1").unwrap();
    for foreign in [
        "packs/00/.nfs01",
        "packs/00/X",
        "packs/00/x~",
        ".tmp/00ff.1",
        "packs/00/a b",
    ] {
        fs::write(place.join(foreign), b"").unwrap();
    }
    fs::create_dir(place.join("lost+found")).unwrap();
    fs::write(place.join("lost+found/x"), b"").unwrap();
    let bytes = std::ffi::OsStr::from_bytes(b"packs/00/caf\xe9");
    fs::write(place.join(bytes), b"").unwrap();
    let rows = store.list("").unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].name, name("packs/00/x"));
}

#[test]
fn temporary_files_go_when_their_owner_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    let random = "0123456789abcdef0123456789abcdef";
    for owner in ["aa", "bb", ""] {
        fs::write(place.join(format!(".tmp/{owner}.{random}")), b"torn").unwrap();
    }
    fs::write(place.join(".tmp/notes.txt"), b"not ours").unwrap();
    assert_eq!(store.sweep_temps(&|owner| owner == "aa").unwrap(), 1);
    assert_eq!(temps(&place), 3);
    assert_eq!(store.sweep_temps(&|owner| owner.is_empty()).unwrap(), 1);
    assert_eq!(store.sweep_temps(&|_| true).unwrap(), 1);
    assert_eq!(temps(&place), 1);
}

#[test]
fn an_owner_that_is_no_part_of_a_name_writes_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path().join("r")).unwrap();
    store.put_new(&name("config"), b"").unwrap();
    let before = tree(folder.path());
    for owner in ["../../x", "a.b", "a/b", "A", "\0"] {
        store.set_temp_owner(owner);
        let error = store.put_new(&name("packs/00/x"), b"1").unwrap_err();
        assert!(error.cause.contains("owner"), "{error}");
    }
    assert_eq!(tree(folder.path()), before);
    store.set_temp_owner("00ff");
    store.put_new(&name("packs/00/x"), b"1").unwrap();
}

#[test]
fn an_object_cut_short_on_the_medium_is_told_apart_from_the_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    let object = name("packs/00/x");
    store.put_new(&object, b"0123456789").unwrap();
    fs::write(place.join("packs/00/x"), b"01234").unwrap();
    let short = store.get_range(&object, 0, 10).unwrap_err();
    assert_eq!(short.kind, StoreErrorKind::Short);
    let conflict = store.put_new(&object, b"0123456789").unwrap_err();
    assert_eq!(conflict.kind, StoreErrorKind::Conflict);
    store.replace(&object, b"0123456789").unwrap();
    assert_eq!(store.get_range(&object, 0, 10).unwrap(), b"0123456789");
}

/// On a full disk neither list, nor delete, nor prune worked.
#[test]
fn e_02_a_full_disk_keeps_no_partial_object_and_can_be_read_and_emptied() {
    let disk = Tmpfs::new(c"size=1m");
    let place = disk.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    let used = || {
        let stat = rustix::fs::statvfs(disk.path()).unwrap();
        stat.f_blocks - stat.f_bfree
    };
    let before = used();
    for put in [
        store
            .put_new(&name("packs/00/big"), &vec![1; 2 << 20])
            .map(drop),
        store.replace(&name("packs/00/big"), &vec![1; 2 << 20]),
    ] {
        let error = put.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::NoSpace);
        assert_eq!(
            error.to_string(),
            format!(
                "cannot write {}/packs/00/big: No space left on device (os error 28)",
                place.display()
            )
        );
        assert_eq!(store.size(&name("packs/00/big")).unwrap(), None);
        assert_eq!(temps(&place), 0);
        assert_eq!(used(), before);
    }

    let small = vec![7; 16 << 10];
    let mut stored = 0;
    while store
        .put_new(&name(&format!("packs/00/{stored:03}")), &small)
        .is_ok()
    {
        stored += 1;
    }
    let free = rustix::fs::statvfs(disk.path()).unwrap().f_bavail * 4096;
    assert!(free < 16 << 10);
    fs::write(
        disk.path().join("filler"),
        vec![0; usize::try_from(free).unwrap()],
    )
    .unwrap();
    assert_eq!(rustix::fs::statvfs(disk.path()).unwrap().f_bavail, 0);
    assert!(stored > 10);

    let store = LocalStore::open(&place).unwrap();
    assert_eq!(store.list("packs").unwrap().len(), stored);
    assert_eq!(store.get(&name("packs/00/000"), 1 << 20).unwrap(), small);
    assert_eq!(
        store.put_new(&name("packs/00/000"), &small).unwrap(),
        Put::AlreadyThere
    );
    assert_eq!(store.sweep_temps(&|_| true).unwrap(), 0);
    // An empty object, as a tombstone may be, needs no block.
    store.put_new(&name("tombstones/000"), b"").unwrap();
    assert!(store.delete(&name("packs/00/000")).unwrap());
    store.put_new(&name("packs/01/new"), &small).unwrap();
}

#[test]
fn e_20_a_read_only_store_is_read_and_refuses_writing() {
    let disk = Tmpfs::new(c"size=4m");
    let place = disk.path().join("r");
    let object = name("packs/00/x");
    LocalStore::create(&place)
        .unwrap()
        .put_new(&object, b"bytes")
        .unwrap();
    disk.remount(MountFlags::RDONLY);

    let store = LocalStore::open(&place).unwrap();
    assert_eq!(store.get(&object, 5).unwrap(), b"bytes");
    assert_eq!(store.list("").unwrap().len(), 1);
    assert_eq!(store.size(&object).unwrap(), Some(5));
    assert!(!store.delete(&name("packs/00/absent")).unwrap());
    for error in [
        store.put_new(&name("packs/00/y"), b"1").unwrap_err(),
        store.put_new(&name("new/folder/y"), b"1").unwrap_err(),
        store.replace(&object, b"1").unwrap_err(),
        store.delete(&object).unwrap_err(),
    ] {
        assert_eq!(error.kind, StoreErrorKind::NotWritable, "{error}");
        assert!(error.cause.contains("Read-only file system"), "{error}");
    }
}

/// An ext4 whose image was cut short under it: reads fail for real. (Writes would make the image
/// grow again; failing writes are tested beside the code.)
struct FailingDisk {
    folder: tempfile::TempDir,
}

impl FailingDisk {
    fn run(command: &mut std::process::Command) {
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command:?}: {said}");
    }

    #[allow(clippy::disallowed_methods, reason = "a test's own disk")]
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("disk")).unwrap();
        let image = fs::File::create(folder.path().join("image")).unwrap();
        image.set_len(64 << 20).unwrap();
        let disk = Self { folder };
        let image = disk.folder.path().join("image");
        Self::run(
            std::process::Command::new("mkfs.ext4")
                .args(["-q", "-O", "^has_journal"])
                .arg(image),
        );
        disk.mount();
        disk
    }

    #[allow(clippy::disallowed_methods, reason = "a test's own disk")]
    fn mount(&self) {
        let (image, disk) = (self.folder.path().join("image"), self.path());
        Self::run(
            std::process::Command::new("mount")
                .args(["-o", "loop"])
                .arg(image)
                .arg(disk),
        );
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// From now on reading anything beyond `bytes` fails. What was cached is forgotten, except for the
    /// folders that `keep` reads.
    fn fail_beyond(&self, bytes: u64, keep: impl FnOnce()) {
        rustix::mount::unmount(self.path(), UnmountFlags::empty()).unwrap();
        self.mount();
        keep();
        let path = self.folder.path().join("image");
        let image = fs::File::options().write(true).open(path).unwrap();
        image.set_len(bytes).unwrap();
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_told_with_object_and_cause() {
    let disk = FailingDisk::new();
    let place = disk.path().join("r");
    let object = name("packs/00/large");
    // More than what goes on working could hold.
    let large = vec![7; 20 << 20];
    LocalStore::create(&place)
        .unwrap()
        .put_new(&object, &large)
        .unwrap();
    disk.fail_beyond(16 << 20, || {
        assert_eq!(LocalStore::open(&place).unwrap().list("").unwrap().len(), 1);
    });

    let store = LocalStore::open(&place).unwrap();
    let error = store.get(&object, 1 << 30).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Io);
    assert_eq!(
        error.to_string(),
        format!(
            "cannot read {}/packs/00/large: Input/output error (os error 5)",
            place.display()
        )
    );
    assert_eq!(
        store.put_new(&object, &large).unwrap_err().kind,
        StoreErrorKind::Io
    );
}
