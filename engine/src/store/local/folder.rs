//! Folders below a store's root, reached without following symbolic links.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::layout;

pub(super) const FOLDER_MODE: Mode = Mode::RWXU;

const OPEN_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why a folder could not be reached; the paths are relative to the store.
#[derive(Debug)]
pub(super) enum Walk {
    Missing,
    /// A regular file stands where a folder should.
    Object(String),
    Link(String),
    Failed(Errno),
}

impl Walk {
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Missing => Errno::NOENT,
            Self::Object(_) => Errno::NOTDIR,
            Self::Link(_) => Errno::LOOP,
            Self::Failed(errno) => *errno,
        }
    }
}

/// Opens the folder `path` below `root`; `""` is the root itself.
pub(super) fn open(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Walk> {
    walk(root, path, false)
}

/// Opens the folder `path` below `root` and makes what is missing of it, mode 0700. Does not
/// sync: a folder matters once an object lies in it, and that put syncs the way up.
pub(super) fn make(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Walk> {
    walk(root, path, true)
}

fn walk(root: BorrowedFd<'_>, path: &str, make: bool) -> Result<OwnedFd, Walk> {
    let mut at = rustix::fs::openat(root, ".", OPEN_FLAGS, Mode::empty()).map_err(Walk::Failed)?;
    let mut walked = 0;
    for component in path.split('/').filter(|c| !c.is_empty()) {
        walked += component.len();
        at = match rustix::fs::openat(&at, component, OPEN_FLAGS, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if make => make_one(&at, component)?,
            Err(Errno::NOENT) => return Err(Walk::Missing),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let here = path[..walked].to_owned();
                let stat = rustix::fs::statat(&at, component, AtFlags::SYMLINK_NOFOLLOW);
                return Err(match stat.map(|s| FileType::from_raw_mode(s.st_mode)) {
                    Ok(FileType::Symlink) => Walk::Link(here),
                    Ok(_) => Walk::Object(here),
                    Err(errno) => Walk::Failed(errno),
                });
            }
            Err(errno) => return Err(Walk::Failed(errno)),
        };
        walked += 1;
    }
    Ok(at)
}

fn make_one(parent: &OwnedFd, component: &str) -> Result<OwnedFd, Walk> {
    // Somebody may remove an empty folder between our two calls; whoever does that is done with
    // it, so that a few rounds are enough.
    for _ in 0..super::PUT_ROUNDS_MAX {
        match rustix::fs::mkdirat(parent, component, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Walk::Failed(errno)),
        }
        match rustix::fs::openat(parent, component, OPEN_FLAGS, Mode::empty()) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(Walk::Failed(errno)),
        }
    }
    Err(Walk::Failed(Errno::NOENT))
}

pub(super) fn is_folder(parent: BorrowedFd<'_>, leaf: &str) -> bool {
    rustix::fs::statat(parent, leaf, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

/// Whether anything has this name; also when that cannot be told.
pub(super) fn is_taken(parent: BorrowedFd<'_>, leaf: &str) -> bool {
    !matches!(
        rustix::fs::statat(parent, leaf, AtFlags::SYMLINK_NOFOLLOW),
        Err(Errno::NOENT)
    )
}

/// fsync of a folder. Some network file systems have no such thing and say EINVAL: their
/// folder operations are the server's to keep.
pub(super) fn sync(
    folder: BorrowedFd<'_>,
    sync: fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match sync(folder) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Removes `path` and the folders above it as far as they are empty and no part of the layout.
/// An empty folder that stays does no harm, so failures are ignored.
pub(super) fn remove_emptied(root: BorrowedFd<'_>, path: &str) {
    let mut path = path;
    while !path.is_empty() && !layout::is_fixed(path) {
        let (up, leaf) = path.rsplit_once('/').unwrap_or(("", path));
        let removed = open(root, up)
            .is_ok_and(|parent| rustix::fs::unlinkat(&parent, leaf, AtFlags::REMOVEDIR).is_ok());
        if !removed {
            return;
        }
        path = up;
    }
}
