//! Copies of files that share their blocks with the original until one of the two is written
//! (reflinks; XFS, btrfs and others have them), for a tree that rests only for a moment.
//!
//! A copy takes no longer for a large file than for a small one, but it takes time by the file's extents,
//! and writes out what of it is dirty first; whoever can, begins both before the tree is at rest
//! ([`begun`](super::begun)). It has no name, so that
//! nothing of it is left when the process ends, however it ends. Where it cannot be had (another
//! file system, no room for it) the file is read at once: that only takes longer.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use podkeep_format::tree::Node;
use rustix::fs::{FileType, Mode, OFlags, ioctl_ficlone, openat};
use rustix::io::Errno;

use super::content::SMALL_FILE_BYTES_MAX;
use super::entry::EntryRead;
use super::stat::Stat;
use super::work::{Failure, Worker};
use crate::fs::attributes::FsTraits;

/// Copies of all scans at a time: each holds a descriptor, of which a process has 1,024 without asking
/// for more.
pub(super) const COPIES_MAX: usize = 512;
static COPIES: AtomicUsize = AtomicUsize::new(0);

/// The copies of one scan.
#[derive(Default)]
pub(crate) struct Copies {
    /// This file system has none.
    refused: AtomicBool,
}

/// A file as it was when it was copied.
pub(crate) struct FileCopy {
    content: OwnedFd,
    /// All but its content, and the original's state.
    read: EntryRead,
    _counted: Counted,
}

/// One of [`COPIES`].
pub(super) struct Counted;

impl Counted {
    pub fn new() -> Option<Self> {
        let before = COPIES.fetch_add(1, Ordering::Relaxed);
        let counted = Self;
        (before < COPIES_MAX).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COPIES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker<'_> {
    /// Copies a file that is large enough for it to be worth while. `None`: it is to be read.
    pub fn copy(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        listed: &Stat,
        traits: FsTraits,
    ) -> Result<Option<FileCopy>, Failure> {
        let Some(copies) = &self.shared.copies else {
            return Ok(None);
        };
        let is_large = listed.kind == FileType::RegularFile && listed.size >= SMALL_FILE_BYTES_MAX;
        if !is_large || copies.refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (file, before) = self.open_file(dir, name, listed)?;
        let begun = self.shared.begun.take(before.identity());
        let begun = begun.and_then(|copy| copy.put_right(&file, before.size).ok()?);
        let copied = begun.map(Ok).or_else(|| {
            let counted = Counted::new()?;
            let copied = nameless(dir).and_then(|copy| {
                ioctl_ficlone(&copy, &file)?;
                Ok((copy, counted))
            });
            Some(copied)
        });
        let (content, counted) = match copied {
            None => return Ok(None),
            Some(Ok(copied)) => copied,
            Some(Err(errno)) => {
                // Too little room, or too many files open: others may fit.
                if !matches!(
                    errno,
                    Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE
                ) {
                    copies.refused.store(true, Ordering::Relaxed);
                }
                return Ok(None);
            }
        };
        let entry = self.file_attributes(&file, &before, traits)?;
        let after = Stat::of(&file).map_err(|e| Failure::Unreadable("stat", e))?;
        let unstable = !before.same_state(&after);
        Ok(Some(FileCopy {
            content,
            read: EntryRead {
                entry,
                stat: before,
                unstable,
            },
            _counted: counted,
        }))
    }

    pub fn read_copy(&mut self, copy: FileCopy) -> Result<EntryRead, Failure> {
        let mut read = copy.read;
        let content = self.content(&copy.content, &read.stat)?;
        read.unstable |= content.size != read.stat.size;
        self.record_pieces(&read.stat, content.pieces);
        read.entry.node = Node::File {
            size: content.size,
            content: content.content,
            holes: content.holes,
            unstable: read.unstable,
        };
        Ok(read)
    }
}

/// Whether the file system of a directory has such copies.
pub(crate) fn has_copies(dir: &OwnedFd) -> bool {
    let cloned = nameless(dir).and_then(|from| ioctl_ficlone(nameless(dir)?, from));
    cloned.is_ok()
}

/// A file without a name, on the file system of a directory.
pub(super) fn nameless(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    openat(dir, c".", flags, Mode::RUSR | Mode::WUSR)
}
