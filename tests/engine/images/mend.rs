//! Damaged layers get their content back from a snapshot, where they are.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use podkeep_engine::host::{HostError, LayerName, StoreCare};
use podkeep_engine::monitor::{Collect, Finding, FindingKind};
use podkeep_engine::operations::{
    BackupOptions, ItemPath, OperationError, OperationResult, RepairLayersOptions,
    RepairLayersReport, Selection, Selector, SnapSpec, SnapWhich, backup, restore,
};
use podkeep_engine::podman::{LayerId, LayerMender, Mended, Storage, StorageDriver};
use podkeep_engine::repo::Repository;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::item::{Item, ItemKind};
use serde_json::{Value, json};

use super::care::Clinic;
use super::{DRIVERS, noise, odd_tar};
use crate::fake_store::{Ending, FakeStore, Tar};

fn selector(name: &str) -> Selector {
    Selector {
        item: Item::new(ItemKind::Image, name),
        glob: false,
    }
}

/// Whether a name below a folder is one that only a repair gives.
fn leaves_anything(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let is_ours = entry.file_name().to_string_lossy().contains("podkeep");
        is_ours || (entry.file_type().unwrap().is_dir() && leaves_anything(&entry.path()))
    })
}

/// A clinic whose images are all in a repository, from when they were sound.
struct Saved {
    clinic: Clinic,
    repo: Repository,
}

impl Saved {
    fn new(driver: StorageDriver) -> Self {
        let clinic = Clinic::new(driver);
        let store = Arc::new(MemoryStore::new());
        crate::repo::init(&*store);
        let repo = crate::repo::open(store);
        let options = BackupOptions {
            selection: Selection {
                all: false,
                selectors: vec![selector("localhost/a:1"), selector("localhost/b:1")],
            },
            threads: 2,
            ..BackupOptions::default()
        };
        let monitor = Collect::default();
        let report = backup::backup(&repo, &clinic.host(), &options, &monitor).unwrap();
        assert!(report.complete, "{:?}", monitor.findings);
        Self { clinic, repo }
    }

    fn try_repair(&self, dry_run: bool) -> OperationResult<(RepairLayersReport, Vec<Finding>)> {
        let options = RepairLayersOptions {
            snapshot: SnapSpec {
                which: SnapWhich::Latest(0),
                host: None,
            },
            items: vec![ItemPath {
                selector: selector("localhost/b:1"),
                path: Vec::new(),
            }],
            dry_run,
            threads: 2,
            wait: Duration::ZERO,
        };
        let monitor = Collect::default();
        let host = self.clinic.host();
        let report = restore::repair_layers(&self.repo, &host, &options, &monitor)?;
        Ok((report, monitor.findings.into_inner().unwrap()))
    }

    /// Repairs what is damaged: `layers`, and nothing is left to be told.
    #[track_caller]
    fn repair(&self, layers: u64) -> RepairLayersReport {
        let (report, findings) = self.try_repair(false).unwrap();
        assert_eq!(findings, []);
        assert_eq!((report.damaged, report.repaired), (layers, layers));
        let (doctor, findings) = self.clinic.doctor();
        assert_eq!((doctor.damaged, findings), (0, vec![]));
        assert!(!self.leaves_anything(), "something is left beside a layer");
        report
    }

    fn leaves_anything(&self) -> bool {
        leaves_anything(&self.clinic.store.graph_root())
    }

    fn lower(&self, name: &str) -> PathBuf {
        self.clinic.store.folder(self.clinic.lower).join(name)
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.clinic.store.folder(self.clinic.upper).join(name)
    }
}

/// A file is deleted, has a flipped bit, or has no length; whoever lies on the layer has the same.
#[test]
fn i_11_files_of_a_layer_come_back_with_their_attributes() {
    for driver in DRIVERS {
        let saved = Saved::new(driver);
        for harm in 0..3 {
            let harm = |file: &Path| match harm {
                0 => fs::remove_file(file).unwrap(),
                1 => {
                    let mut content = fs::read(file).unwrap();
                    content[1_500_000] ^= 1;
                    fs::write(file, content).unwrap();
                }
                _ => fs::write(file, b"").unwrap(),
            };
            harm(&saved.lower("large"));
            let is_whole_tree = driver == StorageDriver::Vfs;
            if is_whole_tree {
                harm(&saved.upper("large"));
            }
            let before = fs::metadata(saved.lower("")).unwrap();
            let report = saved.repair(1);
            assert_eq!(report.files, if is_whole_tree { 2 } else { 1 });
            let whole = noise(4, (2 << 20) + 77);
            assert!(fs::read(saved.lower("large")).unwrap() == whole);
            if is_whole_tree {
                assert!(fs::read(saved.upper("large")).unwrap() == whole);
                assert_eq!(fs::read(saved.upper("same-2")).unwrap(), b"other");
            }
            let facts = fs::metadata(saved.lower("large")).unwrap();
            let found = (
                facts.mode() & 0o7777,
                facts.uid(),
                facts.gid(),
                facts.mtime(),
            );
            assert_eq!(found, (0o644, 0o1750, 0o1750, 0o14_700_000_000));
            let after = fs::metadata(saved.lower("")).unwrap();
            assert_eq!(before.modified().unwrap(), after.modified().unwrap());
        }
    }
}

#[test]
fn i_11_all_names_of_a_damaged_file_are_one_file_again() {
    for driver in DRIVERS {
        let saved = Saved::new(driver);
        fs::write(saved.lower("block"), b"short").unwrap();
        assert_eq!(fs::read(saved.lower("link")).unwrap(), b"short");
        saved.repair(1);
        let inode = |name: &str| fs::metadata(saved.lower(name)).unwrap().ino();
        assert_eq!(fs::read(saved.lower("link")).unwrap(), noise(3, 512));
        assert_eq!(inode("link"), inode("block"));
        // Only one name is lost: it is a name of the same file again.
        let kept = inode("link");
        fs::remove_file(saved.lower("block")).unwrap();
        saved.repair(1);
        assert_eq!((inode("link"), inode("block")), (kept, kept));
    }
}

/// With a directory goes what is no file, too: links, whiteouts, that it is opaque.
#[test]
fn i_11_a_directory_comes_back_with_all_that_was_in_it() {
    let saved = Saved::new(StorageDriver::Overlay);
    let upper = saved.upper("");
    for entry in fs::read_dir(&upper).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
    let lower = saved.lower("");
    for name in ["usr", "lib", "fifo", "empty", "link", "block"] {
        let path = lower.join(name);
        match path.is_dir() && !path.is_symlink() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
    saved.repair(2);
    assert_eq!(fs::read(upper.join("usr/new")).unwrap(), b"after it");
    let mut value = [0; 8];
    let name = "trusted.overlay.opaque";
    let len = rustix::fs::getxattr(upper.join("usr"), name, &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"y");
    let whiteout = fs::symlink_metadata(upper.join("same-1")).unwrap();
    assert_eq!(
        (whiteout.mode() & 0o170_000, whiteout.rdev()),
        (0o020_000, 0)
    );
    assert_eq!(
        fs::read_link(lower.join("lib")).unwrap(),
        Path::new("/usr/lib")
    );
    assert_eq!(
        fs::read(lower.join("usr/lib/c.so")).unwrap(),
        noise(2, 5000)
    );
    assert_eq!(fs::metadata(lower.join("empty")).unwrap().len(), 0);
    let fifo = fs::symlink_metadata(lower.join("fifo")).unwrap();
    assert_eq!(fifo.mode() & 0o170_000, 0o010_000);
    let directory = fs::metadata(lower.join("usr/lib")).unwrap();
    assert_eq!(
        (directory.uid(), directory.mtime()),
        (0o1750, 0o14_700_000_000)
    );
}

fn lines(compressed: &[u8]) -> Vec<Value> {
    let mut text = String::new();
    MultiGzDecoder::new(compressed)
        .read_to_string(&mut text)
        .unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn i_11_tar_split_is_made_again_as_podman_made_it() {
    for driver in DRIVERS {
        let saved = Saved::new(driver);
        for garbage in [None, Some(&b""[..]), Some(b"no gzip")] {
            let file = saved.clinic.store.split_file(saved.clinic.lower);
            let original = lines(&fs::read(&file).unwrap());
            match garbage {
                None => fs::remove_file(&file).unwrap(),
                Some(bytes) => fs::write(&file, bytes).unwrap(),
            }
            // What tar-split cannot tell of is put right as well.
            fs::remove_file(saved.lower("large")).unwrap();
            saved.repair(1);
            assert_eq!(lines(&fs::read(&file).unwrap()), original);
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        }
    }
}

#[test]
fn i_11_what_overlay_mounts_a_layer_by_is_made_again() {
    let saved = Saved::new(StorageDriver::Overlay);
    let file = |layer: LayerId, name: &str| saved.clinic.store.folder(layer).with_file_name(name);
    let (lower, upper) = (saved.clinic.lower, saved.clinic.upper);
    let files = [
        file(lower, "link"),
        file(upper, "link"),
        file(upper, "lower"),
    ];
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
    let original: Vec<String> = files.iter().map(text).collect();
    let links = saved.clinic.store.graph_root().join("overlay/l");
    for path in &files {
        fs::write(path, "").unwrap();
    }
    // Told by the links, and by the layer below.
    saved.repair(2);
    assert_eq!(files.iter().map(text).collect::<Vec<_>>(), original);
    // Told by the layer on it.
    fs::remove_dir_all(&links).unwrap();
    fs::create_dir(&links).unwrap();
    fs::remove_file(&files[0]).unwrap();
    saved.try_repair(false).unwrap();
    assert_eq!(text(&files[0]), original[0]);
    let leads = fs::read_link(links.join(&original[0])).unwrap();
    assert_eq!(leads, PathBuf::from(format!("../{lower}/diff")));
    // Told by nobody, and so any name will do.
    fs::remove_file(&files[1]).unwrap();
    saved.try_repair(false).unwrap();
    let made = text(&files[1]);
    assert_eq!((made.len(), made == original[1]), (26, false));
    assert!(links.join(made).is_symlink());
    assert_eq!(saved.clinic.doctor().0.damaged, 0);
}

#[test]
fn i_11_a_layer_that_podman_will_remove_is_told_and_left_alone() {
    let mut saved = Saved::new(StorageDriver::Overlay);
    let lower = saved.clinic.lower;
    saved.clinic.store.record(lower)["flags"] = json!({"incomplete": true});
    saved.clinic.store.write_lists();
    fs::remove_file(saved.lower("large")).unwrap();
    let (report, findings) = saved.try_repair(false).unwrap();
    assert_eq!((report.damaged, report.repaired, findings.len()), (1, 0, 1));
    assert_eq!(findings[0].kind, FindingKind::NotRestored);
    assert!(findings[0].message.contains("podman rmi --force"));
    assert!(!saved.lower("large").exists());
}

#[test]
fn i_11_a_layer_in_use_is_refused_with_the_container_that_uses_it() {
    for driver in DRIVERS {
        let mut saved = Saved::new(driver);
        let word = driver.word();
        let own = "ee".repeat(32);
        let upper = saved.clinic.upper.to_hex();
        let layers = &mut saved.clinic.store.layers;
        layers.push(json!({"id": own, "parent": upper}));
        saved.clinic.store.write_lists();
        let scratch = &saved.clinic.store.scratch;
        let mounts = scratch.join(&format!("run/{word}-layers"));
        let containers = scratch.join(&format!("graph/{word}-containers"));
        fs::create_dir(&mounts).unwrap();
        fs::create_dir(&containers).unwrap();
        let list = json!([{"id": own, "path": "/x", "count": 1}]);
        fs::write(mounts.join("mountpoints.json"), list.to_string()).unwrap();
        let list = json!([{"id": "ff".repeat(32), "names": ["web"], "layer": own}]);
        fs::write(containers.join("containers.json"), list.to_string()).unwrap();
        fs::remove_file(saved.lower("large")).unwrap();
        let Err(OperationError::Host(HostError::Refused { cause, hint, .. })) =
            saved.try_repair(false)
        else {
            panic!("it was not refused");
        };
        assert_eq!(cause, "it is in use by container web");
        assert!(hint.contains("podman stop"), "{hint}");
        assert!(!saved.lower("large").exists());
        // It has stopped.
        fs::write(mounts.join("mountpoints.json"), "[]").unwrap();
        saved.repair(1);
    }
}

/// The container's copy came with the damage; what a container wrote itself is its own business.
#[test]
fn i_11_layers_of_containers_are_told_and_never_touched() {
    let mut saved = Saved::new(StorageDriver::Vfs);
    fs::write(saved.lower("large"), b"damaged").unwrap();
    fs::write(saved.lower("block"), b"damaged").unwrap();
    let own = "ee".repeat(32);
    let folder = saved.clinic.store.graph_root().join("vfs/dir").join(&own);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("large"), b"damaged").unwrap();
    fs::write(folder.join("block"), b"written by the container").unwrap();
    let lower = saved.clinic.lower.to_hex();
    let layers = &mut saved.clinic.store.layers;
    layers.push(json!({"id": own, "parent": lower}));
    saved.clinic.store.write_lists();
    let (report, findings) = saved.try_repair(false).unwrap();
    assert_eq!((report.repaired, findings.len()), (1, 1), "{findings:?}");
    assert!(findings[0].message.contains(&own), "{findings:?}");
    assert!(findings[0].message.contains("'large'"), "{findings:?}");
    assert_eq!(fs::read(folder.join("large")).unwrap(), b"damaged");
}

/// An image of two layers on vfs, whose lower layer is repaired from its tar.
struct Pair {
    store: FakeStore,
    lower: LayerId,
    upper: LayerId,
    tar: Tar,
}

impl Pair {
    fn new(lower: Tar, upper: Tar) -> Self {
        let mut store = FakeStore::new(StorageDriver::Vfs);
        let tar = lower.end(Ending::Blocks(2));
        let lower = store.layer(&tar, None);
        let upper = store.layer(&upper.end(Ending::Blocks(2)), Some(lower));
        Self {
            store,
            lower,
            upper,
            tar,
        }
    }

    fn repair(&mut self) -> Mended {
        let (storage, _) = self.store.read();
        let run_root = self.store.scratch.join("run");
        let mut mender = LayerMender::open(&storage, run_root, self.lower).unwrap();
        mender.push(&self.tar.bytes).unwrap();
        mender.finish().unwrap()
    }

    fn lower(&self, name: &str) -> PathBuf {
        self.store.folder(self.lower).join(name)
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.store.folder(self.upper).join(name)
    }
}

fn linked_tar() -> Tar {
    Tar::default()
        .directory("usr")
        .directory("usr/lib")
        .symlink("lib", b"usr/lib")
        .file("usr/lib/x", b"right")
}

/// The name that the upper tar has leads through a link of the lower layer.
#[test]
fn i_11_what_a_layer_above_wrote_or_removed_through_a_link_stays_so() {
    let mut written = Pair::new(linked_tar(), Tar::default().file("lib/x", b"newer"));
    let mut removed = Pair::new(linked_tar(), Tar::default().whiteout("lib/x"));
    // The upper layer's own file may even look like the damage.
    let mut alike = Pair::new(linked_tar(), Tar::default().file("lib/x", b""));
    for pair in [&mut written, &mut removed, &mut alike] {
        for harm in 0..2 {
            match harm {
                0 => fs::remove_file(pair.lower("usr/lib/x")).unwrap(),
                _ => fs::write(pair.lower("usr/lib/x"), b"").unwrap(),
            }
            let mended = pair.repair();
            assert_eq!((mended.files, mended.left), (1, vec![]));
            assert_eq!(fs::read(pair.lower("usr/lib/x")).unwrap(), b"right");
        }
    }
    assert_eq!(fs::read(written.upper("usr/lib/x")).unwrap(), b"newer");
    assert!(!removed.upper("usr/lib/x").exists());
    assert_eq!(fs::read(alike.upper("usr/lib/x")).unwrap(), b"");
}

/// A directory became something else, for which a tar needs no whiteout.
#[test]
fn i_11_nothing_is_put_back_below_what_took_the_place_of_a_directory() {
    let tar = || {
        let tar = Tar::default().directory("a").file("a/b", b"right");
        tar.directory("c").file("c/b", b"other")
    };
    for upper in [
        Tar::default().symlink("a", b"c"),
        Tar::default().file("a", b"a file"),
    ] {
        let mut pair = Pair::new(tar(), upper);
        let kind = fs::symlink_metadata(pair.upper("a")).unwrap().file_type();
        fs::write(pair.lower("a/b"), b"other").unwrap();
        let mended = pair.repair();
        assert_eq!((mended.files, mended.left), (1, vec![]));
        assert_eq!(fs::read(pair.lower("a/b")).unwrap(), b"right");
        assert_eq!(fs::read(pair.upper("c/b")).unwrap(), b"other");
        let after = fs::symlink_metadata(pair.upper("a")).unwrap().file_type();
        assert_eq!(kind, after);
    }
}

/// A link that no tar tells of is not written through, though what it leads to looks alike.
#[test]
fn i_11_what_is_not_shown_to_be_a_copy_is_told_and_left() {
    let tar = Tar::default().directory("a").file("a/b", b"right");
    let mut pair = Pair::new(tar, Tar::default().file("new", b"x"));
    fs::write(pair.lower("a/b"), b"damage").unwrap();
    fs::write(pair.upper("a/b"), b"other damage").unwrap();
    let told = |pair: &mut Pair| {
        let mended = pair.repair();
        assert_eq!((mended.files, mended.left.len()), (1, 1), "{mended:?}");
        let upper = pair.upper.to_hex();
        assert!(mended.left[0].contains(&upper), "{mended:?}");
        assert!(mended.left[0].contains("'a/b'"), "{mended:?}");
    };
    told(&mut pair);
    assert_eq!(fs::read(pair.upper("a/b")).unwrap(), b"other damage");
    fs::rename(pair.upper("a"), pair.upper("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", pair.upper("a")).unwrap();
    fs::write(pair.upper("elsewhere/b"), b"damage").unwrap();
    fs::write(pair.lower("a/b"), b"damage").unwrap();
    told(&mut pair);
    assert_eq!(fs::read(pair.upper("elsewhere/b")).unwrap(), b"damage");
}

#[test]
fn i_11_a_tar_split_is_made_again_where_podman_reads_it() {
    for lay_in_image_store in [false, true] {
        let tar = odd_tar().end(Ending::Blocks(2));
        let mut images = FakeStore::new(StorageDriver::Overlay);
        let id = images.layer(&tar, None);
        images.write_lists();
        let mut store = FakeStore::new(StorageDriver::Overlay);
        store.write_lists();
        match lay_in_image_store {
            true => fs::write(images.split_file(id), b"no gzip").unwrap(),
            false => fs::remove_file(images.split_file(id)).unwrap(),
        }
        let mut places = store.places();
        places.image_store = Some(images.graph_root());
        let storage = Storage::new(&places).unwrap();
        let run_root = store.scratch.join("run");
        let mut mender = LayerMender::open(&storage, run_root, id).unwrap();
        mender.push(&tar.bytes).unwrap();
        mender.finish().unwrap();
        assert_eq!(images.split_file(id).exists(), lay_in_image_store);
        assert_eq!(store.split_file(id).exists(), !lay_in_image_store);
    }
}

#[test]
fn i_11_a_layer_without_a_record_is_damage_that_is_told() {
    let mut saved = Saved::new(StorageDriver::Overlay);
    saved.clinic.store.layers.remove(0);
    saved.clinic.store.write_lists();
    let (report, findings) = saved.try_repair(false).unwrap();
    assert_eq!((report.damaged, report.repaired, findings.len()), (1, 0, 1));
    assert_eq!(findings[0].kind, FindingKind::NotRestored);
    assert_eq!(findings[0].object, format!("layer {}", saved.clinic.lower));
    assert!(findings[0].message.contains("podman rmi --force"));
}

#[test]
fn a_dry_run_says_what_would_be_repaired_and_changes_nothing() {
    let saved = Saved::new(StorageDriver::Overlay);
    fs::remove_file(saved.lower("large")).unwrap();
    let (report, _) = saved.try_repair(true).unwrap();
    assert_eq!(
        report.actions,
        [format!("repair layer {}", saved.clinic.lower)]
    );
    assert_eq!((report.layers, report.damaged, report.repaired), (2, 1, 0));
    assert!(!saved.lower("large").exists());
}

/// The descriptors of this process that are open below a folder.
fn open_below(folder: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let paths = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    paths.filter(|path| path.starts_with(folder)).count()
}

#[test]
fn a_repair_of_many_files_holds_few_of_them_open() {
    let name = |n: usize| format!("many/{n}");
    let many = (0..300).fold(Tar::default().directory("many"), |tar, n| {
        tar.file(name(n), format!("right {n}").as_bytes())
    });
    let mut pair = Pair::new(many, Tar::default().file("new", b"x"));
    for n in 0..300 {
        fs::write(pair.lower(&name(n)), b"damage").unwrap();
        fs::write(pair.upper(&name(n)), b"damage").unwrap();
    }
    let (storage, _) = pair.store.read();
    let run_root = pair.store.scratch.join("run");
    let mut mender = LayerMender::open(&storage, run_root, pair.lower).unwrap();
    let at_first = open_below(&pair.store.graph_root());
    mender.push(&pair.tar.bytes).unwrap();
    let at_last = open_below(&pair.store.graph_root());
    assert!(at_last <= at_first + 2, "{at_first} files, then {at_last}");
    let mended = mender.finish().unwrap();
    assert_eq!((mended.files, mended.left), (600, vec![]));
    for n in 0..300 {
        let right = format!("right {n}").into_bytes();
        assert_eq!(fs::read(pair.lower(&name(n))).unwrap(), right);
        assert_eq!(fs::read(pair.upper(&name(n))).unwrap(), right);
    }
}

/// Forgotten, a repair leaves what one leaves that is killed.
fn cut_off(saved: &mut Saved, layer: LayerId, tar: &[u8]) {
    let (storage, _) = saved.clinic.store.read();
    let run_root = saved.clinic.store.scratch.join("run");
    let mut mender = LayerMender::open(&storage, run_root, layer).unwrap();
    mender.push(tar).unwrap();
    std::mem::forget(mender);
}

#[test]
fn what_a_repair_that_was_cut_off_left_goes_with_the_next_one() {
    for driver in DRIVERS {
        let mut saved = Saved::new(driver);
        let tar = odd_tar().end(Ending::Blocks(2)).bytes;
        let lower = saved.clinic.lower;
        fs::write(saved.lower("large"), b"damage").unwrap();
        cut_off(&mut saved, lower, &tar[..tar.len() - 700]);
        assert!(saved.leaves_anything());
        assert_eq!(fs::read(saved.lower("large")).unwrap(), b"damage");
        // Where the driver's layer has one directory, its files, nothing of it is in there.
        assert!(!leaves_anything(&saved.lower("")));
        saved.repair(1);

        // Of a layer that is not damaged any more, too.
        cut_off(&mut saved, lower, &tar);
        let lists = saved.clinic.store.split_file(lower);
        fs::write(
            lists.with_file_name(format!(".tmp-podkeep-{lower}.tar-split.gz")),
            b"x",
        )
        .unwrap();
        if driver == StorageDriver::Overlay {
            let folder = saved.lower("").with_file_name(".tmp-podkeep-link");
            fs::write(folder, b"x").unwrap();
        }
        saved.try_repair(true).unwrap();
        assert!(saved.leaves_anything(), "a dry run changes nothing");
        saved.repair(0);
    }
}

#[test]
fn a_repair_under_way_keeps_what_it_needs() {
    let saved = Saved::new(StorageDriver::Vfs);
    fs::write(saved.lower("large"), b"damage").unwrap();
    let host = saved.clinic.host();
    let name = LayerName {
        id: saved.clinic.lower.to_hex(),
        diff_id: None,
    };
    let mut under_way = host.repair(&name).unwrap();
    let tar = odd_tar().end(Ending::Blocks(2)).bytes;
    under_way.write(&tar).unwrap();
    host.clear_repairs().unwrap();
    assert!(saved.leaves_anything());
    under_way.finish().unwrap();
    assert!(!saved.leaves_anything());
    assert_eq!(saved.clinic.doctor().0.damaged, 0);
}

/// A repair that was cut off between the names of a file, or between copies of it: the next one makes
/// one file of them.
#[test]
fn a_repair_that_was_cut_off_is_finished_by_the_next_one() {
    for driver in DRIVERS {
        let saved = Saved::new(driver);
        let inode = |path: &PathBuf| fs::metadata(path).unwrap().ino();
        let (block, link) = (saved.lower("block"), saved.lower("link"));
        // The link has all that the tar says of it.
        fs::write(&block, b"damage").unwrap();
        saved.repair(1);
        fs::remove_file(&block).unwrap();
        fs::write(&block, b"damage").unwrap();
        saved.repair(1);
        assert_eq!(inode(&block), inode(&link));
        if driver != StorageDriver::Vfs {
            continue;
        }
        let upper = (saved.upper("block"), saved.upper("link"));
        for file in [&block, &upper.0] {
            // One inode, and so both names.
            fs::write(file, b"damage").unwrap();
        }
        // Of the copies, the first name is right already.
        fs::remove_file(&upper.1).unwrap();
        fs::write(&upper.1, noise(3, 512)).unwrap();
        saved.repair(1);
        assert_eq!(fs::read(&upper.0).unwrap(), noise(3, 512));
        assert_eq!(fs::read(&upper.1).unwrap(), noise(3, 512));
    }
}

/// I-8: until the whole tar hashed to the DiffID, nothing has a final name.
#[test]
fn i_11_a_tar_that_is_not_the_layers_own_changes_nothing() {
    let right = odd_tar().end(Ending::Blocks(2)).bytes;
    let mut other = right.clone();
    let at = right.len() - 5000;
    other[at] ^= 1;
    for tar in [&other[..], &right[..right.len() - 512], b""] {
        let mut clinic = Clinic::new(StorageDriver::Overlay);
        let file = clinic.store.folder(clinic.lower).join("large");
        fs::write(&file, b"damaged").unwrap();
        let (storage, _) = clinic.store.read();
        let run_root = clinic.store.scratch.join("run");
        let mut mender = LayerMender::open(&storage, run_root, clinic.lower).unwrap();
        let pushed = tar.chunks(1000).try_for_each(|part| mender.push(part));
        assert!(pushed.and_then(|()| mender.finish()).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"damaged");
    }
}
