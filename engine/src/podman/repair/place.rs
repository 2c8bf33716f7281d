//! The directory that a layer is unpacked into.
//!
//! Names of a tar are resolved with that directory as the root of the file system, as they were
//! when the layer was unpacked. Everything is made under another name first and renamed from there,
//! so that a final name never has anything half done. That other name is in the folder of contents;
//! where this is another file system, as between subvolumes, it is one in the layer's own root, for
//! as long as a rename takes.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
    XattrFlags,
};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

use super::super::layer::clean;
use super::super::storage::{Root, open_below, open_file};
use super::super::tar::{TarEntry, TarKind};
use super::stage::{STAGE, Stage};
use super::{Fix, is_same};

/// What is made in the folder of contents, besides these.
const MADE: &str = "made";
/// A copy of one of them.
const COPY: &str = "copy";
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of the attribute that makes a directory opaque; the first is root's.
const OPAQUE_XATTRS: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
const IMPLIED_MODE: u32 = 0o755;

pub struct Place {
    root: OwnedFd,
    /// How names lead to their places: as in a container, or through no link at all.
    resolve: ResolveFlags,
    /// Where everything is made, and under which name.
    made_in: OwnedFd,
    made: &'static str,
    /// Whether that is the layer's own root, which keeps the time that it had.
    is_apart: bool,
    root_time: (i64, u32),
}

/// Whether an entry stands for the absence of others.
pub fn is_whiteout(name: &[u8]) -> bool {
    base(&clean(name)).1.starts_with(WHITEOUT)
}

/// The directory of a cleaned name, and what is left.
pub(super) fn base(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (b".", name),
    }
}

impl Place {
    /// `folder` is below the store's root.
    pub fn open(
        root: &Root,
        folder: &str,
        resolve: ResolveFlags,
        stage: &Stage,
    ) -> Result<Self, Errno> {
        let tree = root.directory(folder)?;
        let stat = rustix::fs::fstat(&tree)?;
        let is_apart = stat.st_dev != rustix::fs::fstat(stage.folder())?.st_dev;
        let (made_in, made) = match is_apart {
            true => (root.directory(folder)?, STAGE),
            false => (rustix::io::fcntl_dupfd_cloexec(stage.folder(), 0)?, MADE),
        };
        let place = Self {
            root: tree,
            resolve,
            made_in,
            made,
            is_apart,
            root_time: (stat.st_mtime, stat.st_mtime_nsec as u32),
        };
        place.unmake();
        Ok(place)
    }

    /// What a repair that was cut off left under the name.
    fn unmake(&self) {
        let _ = rustix::fs::unlinkat(&self.made_in, self.made, AtFlags::empty());
    }

    /// Whether a layer can have this name for itself.
    pub fn is_taken(&self, name: &[u8]) -> bool {
        self.is_apart && name == STAGE.as_bytes()
    }

    /// A file of the folder of contents as one that can be put here, or a copy of any file.
    pub fn own(&self, file: File, copy: bool) -> io::Result<File> {
        if !copy && !self.is_apart {
            return Ok(file);
        }
        let mode = Mode::from_raw_mode(0o600);
        let own = match self.is_apart {
            // Without a name, nothing of it can be left.
            true => {
                let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
                rustix::fs::openat(&self.made_in, c".", flags, mode)?
            }
            false => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                match rustix::fs::unlinkat(&self.made_in, COPY, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
                rustix::fs::openat(&self.made_in, COPY, flags, mode)?
            }
        };
        // What is shared is durable already.
        if rustix::fs::ioctl_ficlone(&own, &file).is_ok() {
            return Ok(own.into());
        }
        let (mut from, mut own) = (file, File::from(own));
        from.seek(SeekFrom::Start(0))?;
        io::copy(&mut from, &mut own)?;
        own.sync_data()?;
        Ok(own)
    }

    /// The regular file of this name, if there is one.
    pub fn file(&self, name: &[u8]) -> Option<File> {
        open_file(&self.root, name, self.resolve)
            .ok()
            .map(|found| found.0)
    }

    /// Whether an entry without content is there as it has to be.
    pub fn has(&self, entry: &TarEntry, is_overlay: bool) -> bool {
        let name = clean(&entry.name);
        let (folder, last) = base(&name);
        if last.starts_with(WHITEOUT) {
            return match is_overlay {
                true => self.has_whiteout(folder, last),
                // Other drivers keep nothing of it.
                false => true,
            };
        }
        if name == b"." {
            return true;
        }
        let Ok(parent) = self.directory(folder) else {
            return matches!(entry.kind, TarKind::Other);
        };
        let Ok(stat) = rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW) else {
            return matches!(entry.kind, TarKind::Other);
        };
        let found = FileType::from_raw_mode(stat.st_mode);
        match &entry.kind {
            TarKind::File => found == FileType::RegularFile && stat.st_size == 0,
            TarKind::HardLink(_) | TarKind::Other => true,
            TarKind::Directory => found == FileType::Directory,
            TarKind::Fifo => found == FileType::Fifo,
            TarKind::CharDevice(..) => found == FileType::CharacterDevice,
            TarKind::BlockDevice(..) => found == FileType::BlockDevice,
            TarKind::Symlink(target) => rustix::fs::readlinkat(&parent, last, Vec::new())
                .is_ok_and(|found| found.as_bytes() == target),
        }
    }

    fn has_whiteout(&self, folder: &[u8], last: &[u8]) -> bool {
        let Ok(parent) = self.directory(folder) else {
            return false;
        };
        if last == OPAQUE {
            let path = proc_path(&parent);
            return OPAQUE_XATTRS.iter().any(|name| {
                let mut value = [0; 8];
                let found = rustix::fs::getxattr(&path, *name, &mut value[..]);
                found.is_ok_and(|len| value[..len] == *b"y")
            });
        }
        // Other names with the prefix are AUFS's own, and nothing is unpacked for them.
        last.starts_with(b".wh..wh.") || {
            let hidden = &last[WHITEOUT.len()..];
            rustix::fs::statat(&parent, hidden, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        }
    }

    /// Makes what has no content of its own.
    pub fn make(&self, entry: &TarEntry) -> Result<(), Errno> {
        let name = clean(&entry.name);
        let (folder, last) = base(&name);
        let parent = self.directory_made(folder)?;
        if last == OPAQUE {
            let path = proc_path(&parent);
            return rustix::fs::setxattr(path, OPAQUE_XATTRS[0], b"y", XattrFlags::empty());
        }
        self.unmake();
        let node =
            |kind, device| rustix::fs::mknodat(&self.made_in, self.made, kind, Mode::RUSR, device);
        let mut last = last;
        match &entry.kind {
            TarKind::File if last.starts_with(WHITEOUT) => {
                last = &last[WHITEOUT.len()..];
                node(FileType::CharacterDevice, 0)?;
            }
            TarKind::Directory => {
                rustix::fs::mkdirat(&parent, last, Mode::from_raw_mode(0o700))?;
                return set_attributes(&parent, last, entry);
            }
            TarKind::Symlink(target) => {
                rustix::fs::symlinkat(target.as_slice(), &self.made_in, self.made)?;
            }
            TarKind::HardLink(target) => {
                let target = clean(target);
                let (folder, base) = base(&target);
                let from = self.directory(folder)?;
                rustix::fs::linkat(&from, base, &self.made_in, self.made, AtFlags::empty())?;
                return self.rename(&parent, last);
            }
            TarKind::Fifo => node(FileType::Fifo, 0)?,
            TarKind::CharDevice(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                node(FileType::CharacterDevice, device)?;
            }
            TarKind::BlockDevice(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                node(FileType::BlockDevice, device)?;
            }
            TarKind::File | TarKind::Other => return Ok(()),
        }
        set_attributes(&self.made_in, self.made.as_bytes(), entry)?;
        self.rename(&parent, last)
    }

    /// Puts a file that [`own`](Self::own) gave in its place, under its own name and under those of
    /// `links` that shared the file that was there, that are missing, or that a repair which was cut
    /// off put right. The own name is the last: until then the layer is damaged, and seen to be.
    pub fn put_file(
        &self,
        entry: &TarEntry,
        name: &[u8],
        file: &File,
        links: &[&[u8]],
    ) -> Result<(), Errno> {
        set_file_attributes(file, entry)?;
        let before = self.inode(name);
        for link in links {
            let there = self.inode(link);
            if there.is_none() || there == before || self.has_alike(link, file) {
                self.link(file, link)?;
            }
        }
        self.link(file, name)
    }

    /// Whether there is a file of this name with the content and attributes of another one.
    fn has_alike(&self, name: &[u8], file: &File) -> bool {
        let Some(found) = self.file(name) else {
            return false;
        };
        let facts = |file: &File| {
            let facts = file.metadata()?;
            let owner = (facts.uid(), facts.gid());
            io::Result::Ok((facts.mode(), owner, facts.mtime(), facts.mtime_nsec()))
        };
        let alike = facts(&found).and_then(|one| Ok(one == facts(file)? && is_same(&found, file)?));
        alike.unwrap_or(false)
    }

    /// Gives a file one more name, which another file may have now.
    fn link(&self, file: &File, name: &[u8]) -> Result<(), Errno> {
        let (folder, last) = base(name);
        let parent = self.directory_made(folder)?;
        self.unmake();
        let from = proc_path(file);
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(CWD, &from, &self.made_in, self.made, flags)?;
        self.rename(&parent, last)
    }

    /// Renames what was made; the directory keeps its time.
    fn rename(&self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let before = rustix::fs::fstat(parent)?;
        rustix::fs::renameat(&self.made_in, self.made, parent, name)?;
        // Two names of one file: renaming one over the other does nothing.
        self.unmake();
        let nanos = before.st_mtime_nsec as u32;
        set_time(parent, b".", (before.st_mtime, nanos))
    }

    fn inode(&self, name: &[u8]) -> Option<(u64, u64)> {
        let (folder, last) = base(name);
        let parent = self.directory(folder).ok()?;
        let stat = rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    fn directory(&self, folder: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open_below(&self.root, folder, flags, self.resolve)
    }

    /// Makes the directories of a file.
    pub fn make_way(&self, name: &[u8]) -> Result<(), Errno> {
        self.directory_made(base(name).0).map(drop)
    }

    /// Directories on the way that no entry stands for are made as Podman makes them.
    fn directory_made(&self, folder: &[u8]) -> Result<OwnedFd, Errno> {
        let mut end = 0;
        while end < folder.len() {
            let next = folder[end..].iter().position(|byte| *byte == b'/');
            let part = end..next.map_or(folder.len(), |at| end + at);
            let here = &folder[..part.end];
            if let Err(Errno::NOENT) = self.directory(here) {
                let above = self.directory(base(here).0)?;
                let mode = Mode::from_raw_mode(IMPLIED_MODE);
                rustix::fs::mkdirat(&above, &folder[part.clone()], mode)?;
            }
            end = part.end + 1;
        }
        self.directory(folder)
    }

    /// Directories that were made get their times once everything is in them.
    pub fn set_directory_times(&self, made: &[Fix]) {
        for Fix { entry, .. } in made.iter().rev() {
            if entry.kind == TarKind::Directory
                && let Ok(directory) = self.directory(&clean(&entry.name))
            {
                // A time is nothing that a layer is known by.
                let _ = set_time(&directory, b".", entry.mtime);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_apart {
            self.unmake();
            // A time is nothing that a layer is known by.
            let _ = set_time(&self.root, b".", self.root_time);
        }
    }
}

fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn set_file_attributes(file: &File, entry: &TarEntry) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    set_xattrs_and_mode(&proc_path(file), entry)?;
    rustix::fs::futimens(file, &times(entry.mtime))
}

/// The owner first, since it takes capabilities and bits of the mode away; the time last.
fn set_attributes(directory: &OwnedFd, name: &[u8], entry: &TarEntry) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), flags)?;
    let is_link = matches!(entry.kind, TarKind::Symlink(_));
    if !is_link && !is_whiteout(&entry.name) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty())?;
        set_xattrs_and_mode(&proc_path(&made), entry)?;
    }
    set_time(directory, name, entry.mtime)
}

fn set_xattrs_and_mode(path: &str, entry: &TarEntry) -> Result<(), Errno> {
    for (xattr, value) in &entry.xattrs {
        let set = rustix::fs::setxattr(path, xattr.as_slice(), value, XattrFlags::empty());
        match set {
            // As Podman unpacks it: a file system that has no such attribute goes without.
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode))
}

fn set_time(directory: &OwnedFd, name: &[u8], mtime: (i64, u32)) -> Result<(), Errno> {
    rustix::fs::utimensat(directory, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(mtime: (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.0,
            tv_nsec: mtime.1.into(),
        },
    }
}
