//! What repairs that were cut off left in a store.
//!
//! Each name says which layer it is about. A folder of contents belongs to whoever holds the lock of
//! that layer; everything else exists only under the store's own lock of layers.

use std::collections::BTreeSet;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::super::doctor::{content_folder, content_root};
use super::super::list_lock::ListLock;
use super::super::storage::{
    LayerId, Origin, Root, Storage, StorageDriver, StorageError, cause_of,
};
use super::RepairError;
use super::stage::{self, BESIDE, STAGE};

/// Entries of a directory that is searched: a few for each layer of a store.
const ENTRIES_MAX: usize = 1_000_000;
const SPLIT_SUFFIX: &str = ".tar-split.gz";
/// What overlay keeps of a layer in files that a repair writes.
const OVERLAY_FILES: [&str; 2] = ["link", "lower"];

/// The stores that Podman writes to.
fn own(storage: &Storage) -> impl Iterator<Item = &Root> {
    [Origin::GraphRoot, Origin::ImageStore]
        .into_iter()
        .map(|origin| storage.root(origin))
}

/// Layers of which something is left.
pub fn left_behind(storage: &Storage) -> Result<BTreeSet<LayerId>, StorageError> {
    let driver = storage.driver();
    let folder = driver.word();
    let lists = format!("{folder}-layers");
    let mut found = BTreeSet::new();
    for root in own(storage) {
        for name in names(root, folder)? {
            found.extend(id_between(&name, &format!("{STAGE}-"), ""));
        }
        for name in names(root, &lists)? {
            found.extend(id_between(&name, BESIDE, SPLIT_SUFFIX));
        }
    }
    for layer in storage.read()?.layers.into_values() {
        if let Origin::Additional(_) = layer.origin {
            continue;
        }
        let Some(root) = content_root(storage, &layer) else {
            continue;
        };
        let is_left = |path: &String| root.exists(path).unwrap_or(false);
        if places(driver, layer.id).iter().any(is_left) {
            found.insert(layer.id);
        }
    }
    Ok(found)
}

/// Removes what is left of a layer, for whoever holds its lock.
pub fn clear(storage: &Storage, layer: LayerId) -> Result<(), RepairError> {
    let failed = |cause: String| RepairError::Failed { layer, cause };
    let driver = storage.driver();
    let lists = format!("{}-layers", driver.word());
    for root in own(storage) {
        let lock = root.path().join(&lists).join("layers.lock");
        let _lock = ListLock::take(&lock)
            .map_err(|error| failed(format!("cannot lock layers: {error}")))?;
        let removed = stage::remove(root, driver, layer).and_then(|()| {
            let split = format!("{lists}/{BESIDE}{layer}{SPLIT_SUFFIX}");
            for path in places(driver, layer).iter().chain([&split]) {
                remove_file(root, path)?;
            }
            Ok(())
        });
        removed.map_err(|errno| {
            let error = std::io::Error::from(errno);
            failed(format!("what an earlier repair left stays: {error}"))
        })?;
    }
    Ok(())
}

/// Where something of a layer may be, besides what is found by its name.
fn places(driver: StorageDriver, layer: LayerId) -> Vec<String> {
    let folder = driver.layer_folder(layer);
    match driver {
        StorageDriver::Overlay => {
            let files = OVERLAY_FILES.map(|name| format!("{folder}/{BESIDE}{name}"));
            [format!("{folder}/{STAGE}")]
                .into_iter()
                .chain(files)
                .collect()
        }
        // Each layer is a subvolume, and nothing is renamed into one from outside.
        StorageDriver::Btrfs => vec![format!("{}/{STAGE}", content_folder(driver, layer))],
        StorageDriver::Vfs | StorageDriver::Zfs => Vec::new(),
    }
}

/// The names in a directory of a store; of one that is not there, none.
fn names(root: &Root, folder: &str) -> Result<Vec<String>, StorageError> {
    let unreadable = |cause: String| StorageError::Unreadable {
        object: root.name(folder),
        cause,
    };
    let directory = match root.directory(folder) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(unreadable(cause_of(errno))),
    };
    let failed = |errno: Errno| unreadable(cause_of(errno));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(&directory, c".", flags, Mode::empty()).map_err(failed)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if names.len() == ENTRIES_MAX {
            return Err(unreadable(format!(
                "it has more than {ENTRIES_MAX} entries"
            )));
        }
        names.extend(entry.file_name().to_str().map(str::to_owned));
    }
    Ok(names)
}

fn id_between(name: &str, prefix: &str, suffix: &str) -> Option<LayerId> {
    let id = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    LayerId::from_hex(id)
}

/// A folder of contents is another's business.
fn remove_file(root: &Root, path: &str) -> Result<(), Errno> {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let folder = match root.directory(folder) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
