//! Where right contents wait until the whole tar of a layer came.
//!
//! The folder lies beside the layers and never in one: whoever makes a container meanwhile would get it
//! along with the layer's files. Nothing is made durable one by one: all of it is before the first file
//! gets its final name.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::super::storage::{LayerId, Root, StorageDriver};

/// The folder of one layer, or how its name begins where it has no directory for it.
pub(super) const STAGE: &str = ".podkeep-repair";

pub struct Stage {
    parent: OwnedFd,
    name: String,
    folder: OwnedFd,
}

/// The directory, below a store's root, in which the folder of a layer is, and its name there.
fn place_of(driver: StorageDriver, layer: LayerId) -> (String, String) {
    match driver {
        // Beside `diff`: it goes with the layer, and has its quota.
        StorageDriver::Overlay => (driver.layer_folder(layer), STAGE.to_owned()),
        // The layer's directory is the root of its files.
        _ => (driver.word().to_owned(), format!("{STAGE}-{layer}")),
    }
}

impl Stage {
    /// An empty one; what a repair that was cut off left in it is removed.
    pub fn open(root: &Root, driver: StorageDriver, layer: LayerId) -> Result<Self, Errno> {
        let (parent, name) = place_of(driver, layer);
        let parent = root.directory(&parent)?;
        remove_folder(&parent, &name)?;
        rustix::fs::mkdirat(&parent, name.as_str(), Mode::from_raw_mode(0o700))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&parent, name.as_str(), flags, Mode::empty())?;
        Ok(Self {
            parent,
            name,
            folder,
        })
    }

    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// A new file.
    pub fn create(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(rustix::fs::openat(&self.folder, name, flags, mode)?.into())
    }

    /// A file that was made.
    pub fn file(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?.into())
    }

    /// All that was written to the file system of the folder is durable.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.folder)
    }

    /// Copies a file to another directory of the store, over whatever is there.
    pub fn move_out(&self, name: &str, folder: &Path, to: &str) -> io::Result<()> {
        let beside = folder.join(format!("{BESIDE}{to}"));
        let mut from = self.file(name)?;
        let written = || -> io::Result<()> {
            // The folder may lie on another subvolume.
            let mut copy = File::create(&beside)?;
            io::copy(&mut from, &mut copy)?;
            rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o600))?;
            copy.sync_all()?;
            std::fs::rename(&beside, folder.join(to))?;
            File::open(folder)?.sync_all()
        };
        let written = { written }();
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        written
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left of it the next repair clears away.
        let _ = remove_folder(&self.parent, &self.name);
    }
}

/// How a file of Podman's own is called until it is complete.
pub(super) const BESIDE: &str = ".tmp-podkeep-";

/// Removes the folder of a layer, if there is one.
pub fn remove(root: &Root, driver: StorageDriver, layer: LayerId) -> Result<(), Errno> {
    let (parent, name) = place_of(driver, layer);
    match root.directory(&parent) {
        Ok(parent) => remove_folder(&parent, &name),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// It holds files and links only.
fn remove_folder(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty())?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}
