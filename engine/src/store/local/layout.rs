//! The folders that every local store has from the start, how they are made, and how a store is
//! told from any other folder.
//!
//! They exist before the first object so that a put into them needs one folder sync instead of
//! three, and so that a full disk can still take what prune has to write. A copy of a store that
//! dropped empty folders works all the same: what is missing is made when it is needed.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::{StoreError, StoreErrorKind, StoreResult};
use super::TEMP_FOLDER;
use super::folder::{self, FOLDER_MODE, Walk};

/// Folders with 256 folders `00` to `ff` in them, for objects named by a hash.
const SHARDED: [&str; 2] = ["packs", "parity"];

/// Folders whose objects lie side by side or in folders that come and go.
const PLAIN: [&str; 9] = [
    "keys",
    "index",
    "layers",
    "snapshots",
    "runs",
    "leases",
    "tombstones",
    "fences",
    "endorsements",
];

/// `mkfs` leaves this in the root of a new file system.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// How deep an unfinished store's empty folders can go: `packs/00`.
const EMPTY_DEPTH_MAX: u32 = 2;

/// Why no store was made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// There is a store at that place, with objects in it.
    #[error("there is a repository at {place} already")]
    StoreThere { place: String },
    /// The folder has something else in it.
    #[error("cannot make a repository in {place}: it is not empty ({found})")]
    NotEmpty { place: String, found: String },
    /// The medium failed; what had been made is removed.
    #[error(transparent)]
    Store(StoreError),
}

/// Whether `path` (relative to the store) is a folder that is made with the store.
pub(super) fn is_fixed(path: &str) -> bool {
    if path.is_empty() || path == TEMP_FOLDER || PLAIN.contains(&path) || SHARDED.contains(&path) {
        return true;
    }
    path.split_once('/').is_some_and(|(folder, shard)| {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        SHARDED.contains(&folder) && shard.len() == 2 && shard.bytes().all(hex)
    })
}

/// Opens `path` if it is a store.
pub(super) fn open(path: &Path) -> StoreResult<OwnedFd> {
    let failed = |errno: Errno| StoreError::from_io("open", path.display(), &errno.into());
    let absent = |cause: String| StoreError {
        action: "open",
        object: path.display().to_string(),
        kind: StoreErrorKind::NotFound,
        cause,
    };
    let root = match open_root(path) {
        Ok(root) => root,
        Err(Errno::NOTDIR) => return Err(absent("it is not a folder".into())),
        Err(errno) => return Err(failed(errno)),
    };
    for name in SHARDED.iter().chain(&PLAIN) {
        match folder::open(root.as_fd(), name) {
            Ok(_) => return Ok(root),
            Err(Walk::Missing | Walk::Object(_)) => {}
            Err(Walk::Link(at)) => {
                return Err(StoreError {
                    action: "open",
                    object: path.display().to_string(),
                    kind: StoreErrorKind::Io,
                    cause: format!("{at} is a symbolic link, which is not followed"),
                });
            }
            Err(Walk::Failed(errno)) => return Err(failed(errno)),
        }
    }
    Err(absent("there is no repository in this folder".into()))
}

/// Makes the folders of a store at `path`, durably; see `LocalStore::create`.
pub(super) fn create(path: &Path) -> Result<(), CreateError> {
    let mut made = Made::default();
    let result = make_all(path, &mut made);
    if result.is_err() {
        made.remove();
    }
    result
}

fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// The folders that a creation has made so far, in order.
#[derive(Default)]
struct Made {
    outside: Vec<PathBuf>,
    root: Option<OwnedFd>,
    inside: Vec<String>,
}

impl Made {
    /// Only ever empty folders: nobody else's objects can go.
    fn remove(&self) {
        if let Some(root) = &self.root {
            for path in self.inside.iter().rev() {
                let _ = rustix::fs::unlinkat(root, path, AtFlags::REMOVEDIR);
            }
        }
        for path in self.outside.iter().rev() {
            let _ = std::fs::remove_dir(path);
        }
    }
}

fn make_all(path: &Path, made: &mut Made) -> Result<(), CreateError> {
    let failed = |at: &dyn fmt::Display, error: std::io::Error| {
        CreateError::Store(StoreError::from_io("create", at, &error))
    };
    make_root(path, made)?;
    let root = open_root(path).map_err(|e| failed(&path.display(), e.into()))?;
    check_empty(path, root.as_fd())?;
    let root = made.root.insert(root);
    complete(root.as_fd(), |fd| rustix::fs::fsync(fd), &mut made.inside)
        .map_err(|(at, e)| failed(&path.join(at).display(), e.into()))?;
    for outside in made.outside.iter().rev() {
        let parent = match outside.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        open_root(parent)
            .and_then(|fd| folder::sync(fd.as_fd(), |fd| rustix::fs::fsync(fd)))
            .map_err(|e| failed(&parent.display(), e.into()))?;
    }
    Ok(())
}

/// Makes the layout's folders that are missing below `root`, adds them to `made`, and syncs all
/// that name them. Every process does so before its first put: a copy of a store may lack empty
/// folders, and another process may have made them a moment ago without having synced them yet.
/// The error tells the folder.
pub(super) fn complete(
    root: BorrowedFd<'_>,
    sync: fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    made: &mut Vec<String>,
) -> Result<(), (String, Errno)> {
    let plain = PLAIN.iter().chain(&[TEMP_FOLDER]).chain(&SHARDED);
    complete_one(root, "", plain.map(|name| (*name).to_owned()), sync, made)?;
    for folder in SHARDED {
        let shards = (0..=255u8).map(|shard| format!("{shard:02x}"));
        complete_one(root, folder, shards, sync, made)?;
    }
    // Last, so that a folder is durable before its name is.
    sync_folder(root, "", sync)
}

fn complete_one(
    root: BorrowedFd<'_>,
    path: &str,
    leaves: impl Iterator<Item = String>,
    sync: fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    made: &mut Vec<String>,
) -> Result<(), (String, Errno)> {
    let failed = |errno| (path.to_owned(), errno);
    let folder = folder::make(root, path).map_err(|walk| failed(walk.errno()))?;
    let mut there = HashSet::new();
    let mut entries = Dir::read_from(&folder).map_err(failed)?;
    while let Some(entry) = entries.read() {
        there.insert(entry.map_err(failed)?.file_name().to_bytes().to_vec());
    }
    for leaf in leaves.filter(|leaf| !there.contains(leaf.as_bytes())) {
        match rustix::fs::mkdirat(&folder, &leaf, FOLDER_MODE) {
            Ok(()) => made.push(match path {
                "" => leaf,
                _ => format!("{path}/{leaf}"),
            }),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    match path {
        "" => Ok(()),
        _ => folder::sync(folder.as_fd(), sync).map_err(failed),
    }
}

fn sync_folder(
    root: BorrowedFd<'_>,
    path: &str,
    sync: fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
) -> Result<(), (String, Errno)> {
    folder::open(root, path)
        .map_err(|walk| walk.errno())
        .and_then(|fd| folder::sync(fd.as_fd(), sync))
        .map_err(|errno| (path.to_owned(), errno))
}

/// Makes `path` and its missing parents.
fn make_root(path: &Path, made: &mut Made) -> Result<(), CreateError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|at| !at.as_os_str().is_empty() && at.symlink_metadata().is_err())
        .collect();
    for at in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(at) {
            Ok(()) => made.outside.push(at.to_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                return Err(CreateError::Store(StoreError::from_io(
                    "create",
                    at.display(),
                    &e,
                )));
            }
        }
    }
    Ok(())
}

/// Refuses a folder with anything in it but the empty folders of an unfinished store.
fn check_empty(path: &Path, root: BorrowedFd<'_>) -> Result<(), CreateError> {
    let failed = |errno: Errno| {
        CreateError::Store(StoreError::from_io("create", path.display(), &errno.into()))
    };
    let mut has_layout = false;
    let mut foreign = None;
    let mut entries = Dir::read_from(root).map_err(failed)?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(failed)?;
        let leaf = entry.file_name();
        if matches!(leaf.to_bytes(), b"." | b".." | LOST_AND_FOUND) {
            continue;
        }
        let fixed = leaf.to_str().ok().filter(|name| is_fixed(name));
        match fixed {
            Some(TEMP_FOLDER) => {}
            Some(name) => {
                has_layout = true;
                if !holds_only_folders(root, name, EMPTY_DEPTH_MAX).map_err(failed)? {
                    foreign = Some(leaf.to_owned());
                }
            }
            None => foreign = Some(leaf.to_owned()),
        }
    }
    let place = path.display().to_string();
    match foreign {
        None => Ok(()),
        Some(_) if has_layout => Err(CreateError::StoreThere { place }),
        Some(leaf) => Err(CreateError::NotEmpty {
            place,
            found: format!("{leaf:?}"),
        }),
    }
}

fn holds_only_folders(
    parent: BorrowedFd<'_>,
    leaf: &str,
    depth_left: u32,
) -> rustix::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let here = match rustix::fs::openat(parent, leaf, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    if depth_left == 0 {
        return Ok(false);
    }
    let mut entries = Dir::read_from(&here)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            return Ok(false);
        };
        if matches!(name, "." | "..") {
            continue;
        }
        let folder = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => folder::is_folder(here.as_fd(), name),
            _ => false,
        };
        if !folder || !holds_only_folders(here.as_fd(), name, depth_left - 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_names_its_shards_and_nothing_below_them() {
        for path in ["", ".tmp", "packs", "packs/00", "parity/ff", "leases"] {
            assert!(is_fixed(path), "{path}");
        }
        for path in [
            "packs/0",
            "packs/FF",
            "packs/00/00",
            "leases/00",
            "index/00",
        ] {
            assert!(!is_fixed(path), "{path}");
        }
    }
}
