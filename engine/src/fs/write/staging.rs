//! The hidden directory in which a tree is staged, its lock and its state.
//!
//! It lies beside the final place (or inside it, where that is a mount point), is only for its
//! owner, and has a name that follows from the final one: so two restores to one place meet at
//! its lock, and what a run that was cut off left is found by the next. In it:
//!
//! - `tree`: what is being written; after an exchange, what stood at the place before,
//! - `old`: what stood at the place before, when it could not be exchanged,
//! - `state`: for which root it was staged, and how far the swap is; replaced by a rename, durable
//!   before the step that it announces begins.
//!
//! A swap that was cut off is undone, never completed: the run that comes next may want something
//! else, and what is staged is complete, so that going on with it costs nothing.

use std::os::fd::OwnedFd;

use podkeep_format::id::{TreeId, hex};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::directory::{open_directory, open_name};
use super::failures::describe;
use super::{inode, remove};
use crate::fs::{FsError, FsErrorKind};

pub(super) const TREE: &[u8] = b"tree";
pub(super) const OLD: &[u8] = b"old";
const STATE: &[u8] = b"state";
const STATE_NEW: &[u8] = b"state.new";
const STATE_BYTES_MAX: usize = 1024;
/// What the name of every staging begins with.
pub const PREFIX: &[u8] = b".podkeep-restore-";
/// Attempts to get a lock on a directory that others keep removing.
const LOCK_ATTEMPTS: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Staging,
    /// `tree` has this inode until it is at its place.
    Swap {
        ino: u64,
    },
    /// In place: the old entries go to `old`.
    MovingOut,
    /// In place: the entries of `tree` go to the place.
    MovingIn,
    /// Nothing in here is needed any more.
    Done,
}

pub(super) struct Staging {
    /// The directory that it lies in.
    parent: OwnedFd,
    name: Vec<u8>,
    /// Itself; holds the lock.
    pub fd: OwnedFd,
    /// Its path, for messages.
    shown: Vec<u8>,
}

/// The name of the staging of `name`.
pub(super) fn staging_name(name: &[u8]) -> Vec<u8> {
    let mut staging = PREFIX.to_vec();
    staging.extend_from_slice(hex(&blake3::hash(name).as_bytes()[..8]).as_bytes());
    staging
}

impl Staging {
    /// Locks the staging if it is there. Refused: another run has it, or someone else owns it.
    pub fn find(parent: &OwnedFd, name: &[u8], shown: &[u8]) -> Result<Option<Self>, FsError> {
        Self::lock(parent, name, shown, false)
    }

    /// Locks the staging, made if need be.
    pub fn make(parent: &OwnedFd, name: &[u8], shown: &[u8]) -> Result<Self, FsError> {
        match Self::lock(parent, name, shown, true)? {
            Some(staging) => Ok(staging),
            None => Err(FsError::from_errno("make", shown, Errno::NOENT)),
        }
    }

    fn lock(
        parent: &OwnedFd,
        name: &[u8],
        shown: &[u8],
        make: bool,
    ) -> Result<Option<Self>, FsError> {
        let failed = |action, errno| FsError::from_errno(action, shown, errno);
        let refused = |cause: &str| FsError::new("use", shown, FsErrorKind::Refused, cause);
        for _ in 0..LOCK_ATTEMPTS {
            let mut made = false;
            if make {
                match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                    Ok(()) => made = true,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed("make", errno)),
                }
            }
            let fd = match open_directory(parent, name) {
                Ok(fd) => fd,
                Err(Errno::NOENT) if !make => return Ok(None),
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(refused("something else has this name"));
                }
                Err(errno) => return Err(failed("open", errno)),
            };
            match crate::fs::lock::lock_exclusive(&fd) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(refused("another restore to the same place is running"));
                }
                Err(errno) => return Err(failed("lock", errno)),
            }
            // Another run may have removed it between the two calls.
            let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("read", errno))?;
            let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
            if !there.is_ok_and(|at| (at.st_dev, at.st_ino) == (stat.st_dev, stat.st_ino)) {
                continue;
            }
            if stat.st_uid != rustix::process::geteuid().as_raw() {
                return Err(refused("it belongs to another user"));
            }
            let parent = rustix::io::fcntl_dupfd_cloexec(parent, 3)
                .map_err(|errno| failed("open", errno))?;
            let staging = Self {
                parent,
                name: name.to_vec(),
                fd,
                shown: shown.to_vec(),
            };
            staging
                .seclude(made)
                .map_err(|errno| failed("prepare", errno))?;
            return Ok(Some(staging));
        }
        Err(refused("others keep removing it"))
    }

    /// Nobody else may enter; entries inherit as little as possible from where it lies.
    fn seclude(&self, made: bool) -> Result<(), Errno> {
        if made {
            for name in ["system.posix_acl_default", "system.posix_acl_access"] {
                match rustix::fs::fremovexattr(&self.fd, name) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    Err(errno) => return Err(errno),
                }
            }
            let mask = inode::KEPT
                .difference(inode::LAYOUT)
                .difference(inode::EMPTY_DIRECTORY)
                .difference(rustix::fs::IFlags::PROJECT_INHERIT);
            // An inherited flag that stays only shows as one more on what is restored.
            let _ = inode::set_flags(&self.fd, mask, rustix::fs::IFlags::empty());
        }
        rustix::fs::fchmod(&self.fd, Mode::RWXU)
    }

    pub fn error(&self, action: &'static str, errno: Errno) -> FsError {
        FsError::from_errno(action, &self.shown, errno)
    }

    /// For which root it was staged, and the phase; `None` when that cannot be read.
    fn state(&self) -> Option<(String, Phase)> {
        let file = open_name(&self.fd, STATE, OFlags::RDONLY, Mode::empty()).ok()?;
        let mut bytes = [0; STATE_BYTES_MAX];
        let len = rustix::io::pread(&file, &mut bytes, 0).ok()?;
        let text = std::str::from_utf8(&bytes[..len]).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some("podkeep-restore 1") {
            return None;
        }
        let root = lines.next()?.strip_prefix("root ")?.to_owned();
        let phase = match lines.next()?.strip_prefix("phase ")? {
            "staging" => Phase::Staging,
            "moving-out" => Phase::MovingOut,
            "moving-in" => Phase::MovingIn,
            "done" => Phase::Done,
            other => Phase::Swap {
                ino: other.strip_prefix("swap ")?.parse().ok()?,
            },
        };
        Some((root, phase))
    }

    /// Durable when it returns.
    pub fn set_state(&self, root: &str, phase: Phase) -> Result<(), FsError> {
        let phase = match phase {
            Phase::Staging => "staging".to_owned(),
            Phase::Swap { ino } => format!("swap {ino}"),
            Phase::MovingOut => "moving-out".to_owned(),
            Phase::MovingIn => "moving-in".to_owned(),
            Phase::Done => "done".to_owned(),
        };
        let text = format!("podkeep-restore 1\nroot {root}\nphase {phase}\n");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let write = || {
            let file = open_name(&self.fd, STATE_NEW, flags, Mode::RUSR | Mode::WUSR)?;
            if rustix::io::pwrite(&file, text.as_bytes(), 0)? != text.len() {
                return Err(Errno::NOSPC);
            }
            rustix::fs::fsync(&file)?;
            rustix::fs::renameat(&self.fd, STATE_NEW, &self.fd, STATE)?;
            rustix::fs::fsync(&self.fd)
        };
        write().map_err(|errno| self.error("write", errno))
    }

    fn ino(&self, name: &[u8]) -> Option<u64> {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .ok()
            .map(|stat| stat.st_ino)
    }

    /// Undoes a swap of `name` in `place` that was cut off.
    pub fn recover_beside(&self, place: &OwnedFd, name: &[u8]) -> Result<(), FsError> {
        let state = self.state();
        let swapped = match &state {
            Some((_, Phase::Swap { ino })) => self.ino(TREE) != Some(*ino),
            Some((_, Phase::Done)) => true,
            _ => false,
        };
        if swapped {
            return self.clear();
        }
        if self.ino(OLD).is_some() {
            // The old content is away and the new one not yet there. Never over another one.
            match rustix::fs::renameat_with(&self.fd, OLD, place, name, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::INVAL) => rustix::fs::renameat(&self.fd, OLD, place, name)
                    .map_err(|errno| self.error("recover the old content in", errno))?,
                Err(errno) => return Err(self.error("recover the old content in", errno)),
            }
            rustix::fs::fsync(place).map_err(|errno| self.error("recover", errno))?;
        }
        if let Some((root, Phase::Swap { .. })) = state {
            self.set_state(&root, Phase::Staging)?;
        }
        Ok(())
    }

    /// Undoes a swap in place that was cut off.
    pub fn recover_inside(&self, place: &OwnedFd) -> Result<(), FsError> {
        let Some((root, phase)) = self.state() else {
            return Ok(());
        };
        match phase {
            Phase::Staging | Phase::Swap { .. } => return Ok(()),
            Phase::Done => return self.clear(),
            Phase::MovingOut | Phase::MovingIn => {}
        }
        let failed = |errno| self.error("recover the old content in", errno);
        if phase == Phase::MovingIn {
            let tree = open_directory(&self.fd, TREE).map_err(failed)?;
            self.move_entries(place, &tree).map_err(failed)?;
            self.set_state(&root, Phase::MovingOut)?;
        }
        match open_directory(&self.fd, OLD) {
            Ok(old) => {
                self.move_entries(&old, place).map_err(failed)?;
                rustix::fs::syncfs(place).map_err(failed)?;
                rustix::fs::unlinkat(&self.fd, OLD, AtFlags::REMOVEDIR).map_err(failed)?;
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        self.set_state(&root, Phase::Staging)
    }

    /// Moves all entries of a directory, but this staging and what a file system keeps for itself.
    pub fn move_entries(&self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
        let mut names = Vec::new();
        remove::each_name(from, |name, _| {
            if name != self.name && name != LOST_AND_FOUND {
                names.push(name.to_vec());
            }
        })?;
        if self.ino(TREE).is_some() && self.holds(from) {
            // Of the tree itself, everything goes.
            if rustix::fs::statat(from, LOST_AND_FOUND, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                names.push(LOST_AND_FOUND.to_vec());
            }
        }
        for name in names {
            let rename = || rustix::fs::renameat(from, name.as_slice(), to, name.as_slice());
            match rename() {
                Err(Errno::PERM) => {
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                    inode::unlock(&open_name(from, &name, flags, Mode::empty())?);
                    rename()?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn holds(&self, directory: &OwnedFd) -> bool {
        rustix::fs::fstat(directory).is_ok_and(|stat| self.ino(TREE) == Some(stat.st_ino))
    }

    /// Whether a tree for this root is staged; if not, the staging is emptied.
    pub fn resume(&self, root: &TreeId, directory: bool) -> Result<bool, FsError> {
        let root = root.to_hex();
        let same = self
            .state()
            .is_some_and(|(of, phase)| of == root && phase == Phase::Staging);
        let kind = rustix::fs::statat(&self.fd, TREE, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if same && kind == Ok(directory) {
            return Ok(true);
        }
        self.clear()?;
        self.set_state(&root, Phase::Staging)?;
        Ok(false)
    }

    /// Empties it. `old` is never there when it is still needed: recovery has moved it back.
    fn clear(&self) -> Result<(), FsError> {
        // The state goes first: a cleaning that is cut off must not look like a staged tree.
        let mut names = vec![STATE.to_vec()];
        remove::each_name(&self.fd, |name, _| names.push(name.to_vec()))
            .map_err(|errno| self.error("read", errno))?;
        for name in names {
            remove::remove(&self.fd, &name).map_err(|remains| {
                let mut path = self.shown.clone();
                path.push(b'/');
                path.extend_from_slice(&remains.path);
                FsError::new("remove", &path, FsErrorKind::Other, describe(remains.errno))
            })?;
        }
        Ok(())
    }

    /// Removes it with all that is in it.
    pub fn remove(self) -> Result<(), FsError> {
        self.clear()?;
        rustix::fs::unlinkat(&self.parent, self.name.as_slice(), AtFlags::REMOVEDIR)
            .map_err(|errno| self.error("remove", errno))
    }
}

/// Stands in the root of ext file systems, empty, and comes back by itself.
pub(super) const LOST_AND_FOUND: &[u8] = b"lost+found";
