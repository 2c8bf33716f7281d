//! Putting a complete tree in its place.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::directory::{open_directory, open_name, proc_path};
use super::failures::describe;
use super::staging::{LOST_AND_FOUND, OLD, Phase, Staging, TREE, staging_name};
use super::{Existing, Swap, inode, remove};
use crate::fs::{FsError, FsErrorKind};

/// A directory that its owner may write for a moment.
struct Writable {
    node: OwnedFd,
    /// That it had, and gets back.
    mode: Mode,
}

impl Writable {
    /// `None`: there is no directory of that name, or its owner may write it anyway.
    fn make(parent: &OwnedFd, name: &[u8]) -> Result<Option<Self>, Errno> {
        let node = match open_name(parent, name, OFlags::PATH, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            node => node?,
        };
        let stat = rustix::fs::fstat(&node)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_directory || mode.contains(Mode::RWXU) {
            return Ok(None);
        }
        let writable = Self { node, mode };
        writable.set(mode | Mode::RWXU)?;
        Ok(Some(writable))
    }

    fn set(&self, mode: Mode) -> Result<(), Errno> {
        rustix::fs::chmod(proc_path(self.node.as_fd()), mode)
    }

    fn end(self) -> Result<(), Errno> {
        self.set(self.mode)
    }
}

/// The final place.
pub(super) struct Place {
    pub parent: OwnedFd,
    pub name: Vec<u8>,
    pub shown: Vec<u8>,
    pub existing: Existing,
    pub swap: Swap,
}

impl Place {
    fn error(&self, errno: Errno) -> FsError {
        FsError::new(
            "swap in",
            &self.shown,
            match errno {
                Errno::NOSPC | Errno::DQUOT => FsErrorKind::NoSpace,
                _ => FsErrorKind::Other,
            },
            match errno {
                Errno::BUSY => "a mount point is in the way".to_owned(),
                errno => describe(errno),
            },
        )
    }

    pub fn refused(&self, cause: &str) -> FsError {
        FsError::new("restore to", &self.shown, FsErrorKind::Refused, cause)
    }

    /// What stands at the place: `None` for nothing.
    pub fn kind(&self) -> Result<Option<FileType>, FsError> {
        match rustix::fs::statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(FsError::from_errno("read", &self.shown, errno)),
        }
    }

    pub fn open(&self) -> Result<OwnedFd, FsError> {
        open_directory(&self.parent, &self.name)
            .map_err(|errno| FsError::from_errno("open", &self.shown, errno))
    }

    /// Whether a directory has no entries, but for our own staging and what a file system puts
    /// into its root.
    pub fn is_empty(&self, directory: &OwnedFd) -> Result<bool, FsError> {
        let staging = staging_name(&self.name);
        let mut empty = true;
        let mut lost_and_found = false;
        remove::each_name(directory, |name, _| {
            if name == LOST_AND_FOUND {
                lost_and_found = true;
            } else if name != staging {
                empty = false;
            }
        })
        .map_err(|errno| FsError::from_errno("read", &self.shown, errno))?;
        Ok(empty && (!lost_and_found || self.is_mount_point()))
    }

    /// Whether the directory is more than a directory, so that another one in its place would not
    /// be the same: a mount point, a subvolume, one with a project quota of its own.
    pub fn must_stay(&self, directory: &OwnedFd) -> bool {
        /// Each subvolume's root has this inode number.
        const BTRFS_SUBVOLUME: u64 = 256;
        const BTRFS_MAGIC: u32 = 0x9123_683e;
        let is_subvolume = rustix::fs::fstat(directory)
            .is_ok_and(|stat| stat.st_ino == BTRFS_SUBVOLUME)
            && rustix::fs::fstatfs(directory).is_ok_and(|fs| fs.f_type as u32 == BTRFS_MAGIC);
        is_subvolume
            || self.is_mount_point()
            || inode::project(directory) != inode::project(&self.parent)
    }

    pub fn is_mount_point(&self) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let mask = rustix::fs::StatxFlags::BASIC_STATS;
        rustix::fs::statx(&self.parent, &*self.name, flags, mask).is_ok_and(|stat| {
            stat.stx_attributes
                .contains(rustix::fs::StatxAttributes::MOUNT_ROOT)
        })
    }

    /// Puts the staged `tree` where the place is, in one step where the file system has such a
    /// step. What stood there is in the staging then.
    pub fn put_beside(&self, staging: &Staging, root: &str) -> Result<(), FsError> {
        let stat = rustix::fs::statat(&staging.fd, TREE, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| staging.error("read", errno))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        staging.set_state(root, Phase::Swap { ino: stat.st_ino })?;
        let put = match self.kind()? {
            None => self.put_new(staging),
            Some(kind) if (kind == FileType::Directory) != is_directory => {
                Err(self.refused("something of another type came there meanwhile"))
            }
            Some(_) => self.put_over(staging, is_directory),
        };
        if put.is_err() {
            // Recovery finds out by itself if this fails.
            let _ = staging.set_state(root, Phase::Staging);
        }
        put?;
        rustix::fs::fsync(&staging.fd)
            .and_then(|()| rustix::fs::fsync(&self.parent))
            .map_err(|errno| self.error(errno))
    }

    fn put_new(&self, staging: &Staging) -> Result<(), FsError> {
        let rename =
            |flags| rustix::fs::renameat_with(&staging.fd, TREE, &self.parent, &*self.name, flags);
        match self.with_rights(staging, || rename(RenameFlags::NOREPLACE)) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(self.refused("something came there meanwhile")),
            // No such flag on this file system: the place was empty a moment ago.
            Err(Errno::INVAL | Errno::NOSYS) => self
                .with_rights(staging, || rename(RenameFlags::empty()))
                .map_err(|errno| self.error(errno)),
            Err(errno) => Err(self.error(errno)),
        }
    }

    fn put_over(&self, staging: &Staging, is_directory: bool) -> Result<(), FsError> {
        if self.existing == Existing::Refuse && !is_directory {
            return Err(self.refused("something came there meanwhile"));
        }
        if self.swap != Swap::TwoRenames {
            match self.with_rights(staging, || self.exchange(staging)) {
                Ok(()) => return self.refuse_if_filled(staging, TREE, || self.exchange(staging)),
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(self.error(errno)),
            }
        }
        if !is_directory {
            return rustix::fs::renameat(&staging.fd, TREE, &self.parent, &*self.name)
                .map_err(|errno| self.error(errno));
        }
        let out = || rustix::fs::renameat(&self.parent, &*self.name, &staging.fd, OLD);
        let back = || rustix::fs::renameat(&staging.fd, OLD, &self.parent, &*self.name);
        self.with_rights(staging, out)
            .map_err(|errno| self.error(errno))?;
        self.refuse_if_filled(staging, OLD, back)?;
        if let Err(error) = self.put_new(staging) {
            // The next run's recovery does it otherwise.
            let _ = back();
            return Err(error);
        }
        Ok(())
    }

    fn exchange(&self, staging: &Staging) -> Result<(), Errno> {
        let flags = RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(&staging.fd, TREE, &self.parent, &*self.name, flags)
    }

    /// An empty directory was allowed to be replaced: it must still be empty.
    fn refuse_if_filled(
        &self,
        staging: &Staging,
        old: &[u8],
        undo: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), FsError> {
        if self.existing != Existing::Refuse {
            return Ok(());
        }
        match rustix::fs::unlinkat(&staging.fd, old, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(_) => {
                undo().map_err(|errno| self.error(errno))?;
                Err(self.refused("something came into it meanwhile"))
            }
        }
    }

    /// Renames; a locked directory is unlocked, one that its owner may not write made writable
    /// for that moment (renaming a directory writes its `..`).
    fn with_rights(
        &self,
        staging: &Staging,
        rename: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match rename() {
            Err(Errno::PERM) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                inode::unlock(&open_name(&self.parent, &self.name, flags, Mode::empty())?);
                rename()
            }
            Err(Errno::ACCESS) => {
                // The new one, the old one, or both are moved.
                let new = Writable::make(&staging.fd, TREE)?;
                let old = Writable::make(&self.parent, &self.name);
                let renamed = old.as_ref().map_or_else(|errno| Err(*errno), |_| rename());
                for moved in [new, old.ok().flatten()].into_iter().flatten() {
                    moved.end()?;
                }
                renamed
            }
            other => other,
        }
    }

    /// Moves the entries of the staged tree into the place, after those that stood there were
    /// moved away. When one cannot be moved, all is as it was before.
    pub fn put_inside(
        &self,
        staging: &Staging,
        root: &str,
        place: &OwnedFd,
    ) -> Result<(), FsError> {
        if self.existing == Existing::Refuse && !self.is_empty(place)? {
            return Err(self.refused("something came into it meanwhile"));
        }
        let moved = self.move_in(staging, root, place);
        if moved.is_err() {
            staging.recover_inside(place)?;
        }
        moved
    }

    fn move_in(&self, staging: &Staging, root: &str, place: &OwnedFd) -> Result<(), FsError> {
        let failed = |errno| self.error(errno);
        match rustix::fs::mkdirat(&staging.fd, OLD, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        staging.set_state(root, Phase::MovingOut)?;
        let old = open_directory(&staging.fd, OLD).map_err(failed)?;
        staging.move_entries(place, &old).map_err(failed)?;
        rustix::fs::syncfs(place).map_err(failed)?;
        staging.set_state(root, Phase::MovingIn)?;
        let tree = open_directory(&staging.fd, TREE).map_err(failed)?;
        staging.move_entries(&tree, place).map_err(failed)?;
        rustix::fs::syncfs(place).map_err(failed)
    }
}
