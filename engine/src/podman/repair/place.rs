//! The directory that a layer is unpacked into, and a folder beside it on the same file system.
//!
//! Names of a tar are resolved with that directory as the root of the file system, as they were
//! when the layer was unpacked. Everything is made in the folder first and renamed from there, so
//! that a final name never has anything half done.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

use super::super::layer::clean;
use super::super::storage::{Root, open_below, open_file};
use super::super::tar::{TarEntry, TarKind};

/// The folder, which a repair that was cut off leaves behind for the next one.
const STAGE: &str = ".podkeep-repair";
/// What is made there besides files.
const MADE: &str = "made";
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of the attribute that makes a directory opaque; the first is root's.
const OPAQUE_XATTRS: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
const IMPLIED_MODE: u32 = 0o755;

pub struct Place {
    root: OwnedFd,
    /// How names lead to their places: as in a container, or through no link at all.
    resolve: ResolveFlags,
    /// Holds the folder, and keeps the time that it had: it may be the layer's own root.
    beside: OwnedFd,
    beside_time: (i64, u32),
    stage: OwnedFd,
}

/// A file in the folder.
pub struct Staged {
    name: String,
    file: File,
}

impl Staged {
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    pub fn reopen(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Copies the first bytes of another file.
    pub fn copy_start(&mut self, mut from: File, bytes: u64) -> io::Result<()> {
        from.seek(SeekFrom::Start(0))?;
        match io::copy(&mut from.take(bytes), &mut self.file)? == bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
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
    /// `folder` and `stage_in` are below the store's root.
    pub fn open(
        root: &Root,
        folder: &str,
        stage_in: &str,
        resolve: ResolveFlags,
    ) -> Result<Self, Errno> {
        let beside = root.directory(stage_in)?;
        let stat = rustix::fs::fstat(&beside)?;
        let beside_time = (stat.st_mtime, stat.st_mtime_nsec as u32);
        remove_stage(&beside)?;
        rustix::fs::mkdirat(&beside, STAGE, Mode::from_raw_mode(0o700))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let stage = rustix::fs::openat(&beside, STAGE, flags, Mode::empty())?;
        Ok(Self {
            root: root.directory(folder)?,
            resolve,
            beside,
            beside_time,
            stage,
        })
    }

    pub fn stage(&self, name: &str) -> Result<Staged, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&self.stage, name, flags, mode)?;
        Ok(Staged {
            name: name.to_owned(),
            file: file.into(),
        })
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
        let _ = rustix::fs::unlinkat(&self.stage, MADE, AtFlags::empty());
        let node = |kind, device| rustix::fs::mknodat(&self.stage, MADE, kind, Mode::RUSR, device);
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
                rustix::fs::symlinkat(target.as_slice(), &self.stage, MADE)?;
            }
            TarKind::HardLink(target) => {
                let target = clean(target);
                let (folder, base) = base(&target);
                let from = self.directory(folder)?;
                rustix::fs::linkat(&from, base, &self.stage, MADE, AtFlags::empty())?;
                return self.rename(MADE, &parent, last);
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
        set_attributes(&self.stage, MADE.as_bytes(), entry)?;
        self.rename(MADE, &parent, last)
    }

    /// Puts a file in its place, under its own name and under those of `links` that shared the
    /// file that was there, or that are missing.
    pub fn put_file(
        &self,
        entry: &TarEntry,
        name: &[u8],
        staged: &Staged,
        links: &[&[u8]],
    ) -> Result<(), Errno> {
        set_attributes(&self.stage, staged.name.as_bytes(), entry)?;
        rustix::fs::fsync(&staged.file)?;
        let before = self.inode(name);
        for link in links {
            let there = self.inode(link);
            if there.is_none() || there == before {
                let (folder, last) = base(link);
                let parent = self.directory_made(folder)?;
                let _ = rustix::fs::unlinkat(&self.stage, MADE, AtFlags::empty());
                let from = staged.name.as_str();
                rustix::fs::linkat(&self.stage, from, &self.stage, MADE, AtFlags::empty())?;
                self.rename(MADE, &parent, last)?;
            }
        }
        let (folder, last) = base(name);
        let parent = self.directory_made(folder)?;
        self.rename(&staged.name, &parent, last)
    }

    /// Renames out of the folder; the directory keeps its time.
    fn rename(&self, from: &str, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let before = rustix::fs::fstat(parent)?;
        rustix::fs::renameat(&self.stage, from, parent, name)?;
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
    pub fn set_directory_times(&self, done: &[TarEntry]) {
        for entry in done.iter().rev() {
            if entry.kind == TarKind::Directory
                && let Ok(directory) = self.directory(&clean(&entry.name))
            {
                // A time is nothing that a layer is known by.
                let _ = set_time(&directory, b".", entry.mtime);
            }
        }
    }

    pub fn sync(&self) {
        // What cannot be made durable shows as damage of the next look.
        let _ = rustix::fs::syncfs(&self.stage);
    }

    /// Moves a staged file to another directory of the store, over whatever is there.
    pub fn move_out(&self, name: &str, folder: &Path, to: &str) -> io::Result<()> {
        let beside = folder.join(format!(".tmp-podkeep-{to}"));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut from = File::from(rustix::fs::openat(&self.stage, name, flags, Mode::empty())?);
        // The folder may lie on another subvolume.
        let mut copy = File::create(&beside)?;
        io::copy(&mut from, &mut copy)?;
        rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o600))?;
        copy.sync_all()?;
        std::fs::rename(&beside, folder.join(to))?;
        File::open(folder)?.sync_all()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left of it the next repair clears away.
        let _ = remove_stage(&self.beside);
        let _ = set_time(&self.beside, b".", self.beside_time);
    }
}

/// The folder holds files and links only.
fn remove_stage(beside: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stage = match rustix::fs::openat(beside, STAGE, flags, Mode::empty()) {
        Ok(stage) => stage,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for entry in rustix::fs::Dir::read_from(&stage)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            rustix::fs::unlinkat(&stage, entry.file_name(), AtFlags::empty())?;
        }
    }
    rustix::fs::unlinkat(beside, STAGE, AtFlags::REMOVEDIR)
}

fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
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
        let path = proc_path(&made);
        for (xattr, value) in &entry.xattrs {
            let set = rustix::fs::setxattr(&path, xattr.as_slice(), value, XattrFlags::empty());
            match set {
                // As Podman unpacks it: a file system that has no such attribute goes without.
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        rustix::fs::chmod(&path, Mode::from_raw_mode(entry.mode))?;
    }
    set_time(directory, name, entry.mtime)
}

fn set_time(directory: &OwnedFd, name: &[u8], mtime: (i64, u32)) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.0,
            tv_nsec: mtime.1.into(),
        },
    };
    rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
