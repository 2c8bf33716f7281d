//! How much room there is for a tree, as far as that can be told before anything is written.
//!
//! A refusal must never be wrong: where the file system compresses, where something may make
//! room meanwhile, or where a part of the tree may be there already, nothing is told, and a disk
//! that turns out to be full ends the restore later.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::staging::staging_name;
use super::{Destination, Existing};

/// `f_type` of file systems on which content takes at least its own length: ext2 to ext4, xfs,
/// tmpfs (linux/magic.h).
const PLAIN: [u64; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

/// What is free on the file system that a tree goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The directory nearest to the place that is there already.
    pub directory: PathBuf,
    /// Its device: places with the same one share the room.
    pub device: u64,
    /// Bytes that this process may still fill.
    pub bytes_free: u64,
}

/// The room for a tree that is made anew at `destination`. `None`: it cannot be told, or what is
/// there says nothing about what fits (a merge, something staged by a run that was cut off).
pub fn room(destination: &Destination, existing: Existing) -> Option<Room> {
    if matches!(
        existing,
        Existing::Merge | Existing::LaidOver | Existing::Change
    ) {
        return None;
    }
    let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let parent = path(&destination.parent);
    let place = parent.join(path(&destination.name));
    let staging = path(&staging_name(&destination.name));
    let is_staged = |folder: &Path| std::fs::symlink_metadata(folder.join(&staging)).is_ok();
    if is_staged(&parent) || is_staged(&place) {
        return None;
    }
    room_below(&place)
}

/// The room at a path that may not be there yet: that of its nearest directory.
pub fn room_below(path: &Path) -> Option<Room> {
    room_at(path, bytes_free)
}

/// As [`room_below`], for people: also where content may take less room than its length.
pub fn free_below(path: &Path) -> Option<Room> {
    room_at(path, |fd| {
        let fs = rustix::fs::fstatvfs(fd).ok()?;
        Some(available(&fs))
    })
}

fn room_at(path: &Path, bytes_free: impl Fn(&OwnedFd) -> Option<u64>) -> Option<Room> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for directory in path.ancestors() {
        let name = match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        };
        match rustix::fs::openat(CWD, name, flags, Mode::empty()) {
            Ok(fd) => {
                return Some(Room {
                    directory: name.to_owned(),
                    device: rustix::fs::fstat(&fd).ok()?.st_dev,
                    bytes_free: bytes_free(&fd)?,
                });
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Bytes that this process may still fill; `None`: content may take less room than its length.
pub(super) fn bytes_free(directory: &OwnedFd) -> Option<u64> {
    // The width and sign of f_type differ between architectures; the magic has 32 bits.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let kind = rustix::fs::fstatfs(directory.as_fd()).ok()?.f_type as u64 & 0xffff_ffff;
    let fs = rustix::fs::fstatvfs(directory).ok()?;
    // A tmpfs without a limit has no blocks.
    if !PLAIN.contains(&kind) || fs.f_blocks == 0 {
        return None;
    }
    Some(available(&fs))
}

fn available(fs: &rustix::fs::StatVfs) -> u64 {
    // Root may fill what is reserved for it.
    let blocks = match rustix::process::geteuid().is_root() {
        true => fs.f_bfree,
        false => fs.f_bavail,
    };
    blocks.saturating_mul(fs.f_frsize)
}
