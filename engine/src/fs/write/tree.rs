//! What all steps of one tree share, and its directories, nodes and links.
//!
//! A tree is written in one of two ways. *Staged*: nobody else knows the place; entries are made
//! under their own names, and what an earlier run left there is taken over or removed. *Direct*
//! (a merge): into a tree that is in use; an entry is made under a temporary name and renamed
//! when it is complete, and what is there already is only replaced by an entry that is no
//! directory either.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use podkeep_format::id::{LinkGroup, hex};
use podkeep_format::tree::{Entry, Node};
use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::attributes::{Full, Rules, Target, file_type};
use super::directory::{Directories, Directory, is_name, open_directory, open_name};
use super::failures::Failures;
use super::{inode, laid_over, remove};
use crate::fs::{FsError, FsErrorKind};
use crate::monitor::FindingKind;

/// Temporary names of a merge: this and 16 hex digits.
pub(super) const PART_PREFIX: &[u8] = b".podkeep-part-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Staged {
        /// An earlier run may have left entries.
        resumed: bool,
    },
    Direct,
}

/// Where an inode with several names got its first one.
pub(super) struct Origin {
    pub directory: Arc<Directory>,
    pub name: Box<[u8]>,
    pub dev: u64,
    pub ino: u64,
}

/// An entry that becomes immutable or append-only in the end.
pub(super) struct Locked {
    directory: Arc<Directory>,
    /// Empty: the directory itself.
    name: Box<[u8]>,
    flags: IFlags,
}

impl Locked {
    pub fn rename(&mut self, name: &[u8]) {
        self.name = name.into();
    }
}

pub(super) struct Tree {
    pub way: Way,
    /// Into what is there, and over it: [`Existing::LaidOver`](super::Existing::LaidOver).
    pub laid_over: bool,
    pub directories: Directories,
    pub failures: Failures,
    pub rules: Rules,
    /// The final place, for messages.
    pub shown: Vec<u8>,
    /// The tree is one entry that is no directory: the name it has for now.
    pub single: Option<Vec<u8>>,
    pub links: Mutex<HashMap<LinkGroup, Origin>>,
    pub locked: Mutex<Vec<Locked>>,
    /// Temporary files of a merge, from their making until they are complete: what they hold was
    /// verified, or written by this run.
    pub parts: Mutex<HashSet<(Vec<u8>, Vec<u8>)>>,
    pub bytes_written: AtomicU64,
    pub files: AtomicU64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// What became of making an entry.
pub(super) enum Made<T> {
    Done(T),
    /// A finding says why not.
    Not,
}

impl Tree {
    pub fn error(&self, action: &'static str, path: &[u8], errno: Errno) -> FsError {
        let mut full = self.shown.clone();
        if !path.is_empty() {
            full.push(b'/');
            full.extend_from_slice(path);
        }
        match errno {
            Errno::NOSPC | Errno::DQUOT => FsError::from_errno(action, &full, errno),
            _ => FsError::new(
                action,
                &full,
                FsErrorKind::Other,
                super::failures::describe(errno),
            ),
        }
    }

    /// An entry's failure: the end when the disk is full or cannot be written, else a finding.
    pub fn fail(&self, what: &'static str, errno: Errno, path: Vec<u8>) -> Result<(), FsError> {
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::ROFS => Err(self.error("write", &path, errno)),
            _ => {
                self.failures.entry(what, errno, path);
                Ok(())
            }
        }
    }

    pub fn full(&self, path: Vec<u8>) -> impl FnOnce(Full) -> FsError + '_ {
        move |Full(errno)| self.error("write", &path, errno)
    }

    fn clash(&self, cause: &str, path: Vec<u8>) {
        let what = "replace what is there";
        self.failures
            .add(FindingKind::NotRestored, what, cause, path);
    }

    /// The name that an entry gets; `None` (with a finding) when it could lead elsewhere.
    pub fn name<'a>(&'a self, directory: &Directory, entry: &'a Entry) -> Option<&'a [u8]> {
        if let Some(single) = &self.single {
            return Some(single);
        }
        if is_name(&entry.name) {
            return Some(&entry.name);
        }
        self.failures.add(
            FindingKind::NotRestored,
            "write the entry",
            "its name is not allowed",
            directory.path_of(&entry.name),
        );
        None
    }

    pub fn path(&self, directory: &Directory, entry: &Entry) -> Vec<u8> {
        directory.path_of(&entry.name)
    }

    /// Whether something that this run did not make may stand in a directory.
    pub fn may_hold_others(&self, directory: &Directory) -> bool {
        match self.way {
            Way::Staged { resumed } => resumed && !directory.fresh,
            Way::Direct => !directory.fresh,
        }
    }

    /// The name under which an entry is made.
    pub fn making_name(&self, name: &[u8]) -> Vec<u8> {
        match self.way {
            Way::Staged { .. } => name.to_vec(),
            Way::Direct => {
                let mut part = PART_PREFIX.to_vec();
                part.extend_from_slice(hex(&blake3::hash(name).as_bytes()[..8]).as_bytes());
                part
            }
        }
    }

    /// In a merge: whether a directory stands where the entry shall go (with a finding). What is
    /// laid over it takes its place.
    pub fn clashes_with_directory(&self, fd: &OwnedFd, name: &[u8], path: Vec<u8>) -> bool {
        if self.way != Way::Direct {
            return false;
        }
        let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let is = stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
        if !is {
            return false;
        }
        if !self.laid_over {
            self.clash("it is a directory", path);
            return true;
        }
        match remove::remove(fd, name) {
            Ok(()) => false,
            Err(remains) => {
                self.clash(&super::failures::describe(remains.errno), path);
                true
            }
        }
    }

    /// Takes away what a whiteout names, if it is there.
    fn hide(&self, fd: &OwnedFd, name: &[u8], path: Vec<u8>) -> Result<(), FsError> {
        match remove::remove(fd, name) {
            Ok(()) => Ok(()),
            Err(remains) => self.fail("remove the entry", remains.errno, path),
        }
    }

    /// Gives what was made under a temporary name its own.
    pub fn reveal(
        &self,
        fd: &OwnedFd,
        made: &[u8],
        name: &[u8],
        path: Vec<u8>,
    ) -> Result<bool, FsError> {
        if made == name {
            return Ok(true);
        }
        match rustix::fs::renameat(fd, made, fd, name) {
            Ok(()) => Ok(true),
            Err(errno) => {
                // What stays is found by its name in the next merge.
                let _ = remove::remove(fd, made);
                match errno {
                    Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => {
                        self.clash("it is a directory", path);
                    }
                    Errno::PERM => self.clash("it is immutable or belongs to someone else", path),
                    errno => self.fail("replace what is there", errno, path)?,
                }
                Ok(false)
            }
        }
    }

    /// Makes a directory, or takes the one over that may be there.
    pub fn make_directory(
        &self,
        parent: &Arc<Directory>,
        entry: &Entry,
    ) -> Result<Made<Arc<Directory>>, FsError> {
        let path = || self.path(parent, entry);
        let Some(name) = self.name(parent, entry) else {
            return Ok(Made::Not);
        };
        let fd = match self.directories.open(parent) {
            Ok(fd) => fd,
            Err(errno) => {
                self.fail("open its directory", errno, path())?;
                return Ok(Made::Not);
            }
        };
        let mut fresh = true;
        let mut made = rustix::fs::mkdirat(&fd, name, Mode::RWXU);
        if made == Err(Errno::EXIST) && self.may_hold_others(parent) {
            let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW);
            let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
            let begins_empty = self.laid_over && laid_over::is_opaque(entry);
            match (kind, self.way) {
                (Ok(FileType::Directory), _) if !begins_empty => {
                    fresh = false;
                    made = Ok(());
                }
                (Ok(_), Way::Direct) if !self.laid_over => {
                    self.clash("it is no directory", path());
                    return Ok(Made::Not);
                }
                (Ok(_), _) => {
                    made = remove::remove(&fd, name)
                        .map_err(|remains| remains.errno)
                        .and_then(|()| rustix::fs::mkdirat(&fd, name, Mode::RWXU));
                }
                (Err(errno), _) => made = Err(errno),
            }
        }
        let opened = made.and_then(|()| self.enter(&fd, name, fresh));
        match opened.and_then(|below| self.directories.adopt(parent, name, below, fresh)) {
            Ok((directory, below, _)) => {
                // In one that is append-only a temporary name could be made and never renamed.
                if !fresh && self.way == Way::Direct && inode::is_locked(&below) {
                    self.clash("it is immutable or append-only", path());
                    return Ok(Made::Not);
                }
                self.prepare(&below, entry, fresh)
                    .map_err(self.full(path()))?;
                Ok(Made::Done(directory))
            }
            Err(errno) => {
                self.fail("make the directory", errno, path())?;
                Ok(Made::Not)
            }
        }
    }

    /// Removes a name and everything below it.
    pub fn remove(&self, parent: &Arc<Directory>, name: &[u8]) -> Result<(), FsError> {
        let path = || parent.path_of(name);
        if !is_name(name) || !self.may_hold_others(parent) {
            return self.fail("remove what is gone", Errno::INVAL, path());
        }
        let removed = self
            .directories
            .open(parent)
            .and_then(|fd| remove::remove(&*fd, name).map_err(|remains| remains.errno));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => self.fail("remove what is gone", errno, path()),
        }
    }

    /// Gives a file another name, which is free. A failure ends all: what follows of the file holds only
    /// what is otherwise in it.
    pub fn rename(&self, parent: &Arc<Directory>, from: &[u8], name: &[u8]) -> Result<(), FsError> {
        let failed = |errno| self.error("move", &parent.path_of(from), errno);
        if !is_name(from) || !is_name(name) || !self.may_hold_others(parent) {
            return Err(failed(Errno::INVAL));
        }
        self.directories
            .open(parent)
            .and_then(|fd| {
                rustix::fs::renameat_with(&*fd, from, &*fd, name, RenameFlags::NOREPLACE)
            })
            .map_err(failed)
    }

    /// Opens a directory so that entries can be made in it.
    fn enter(&self, parent: &OwnedFd, name: &[u8], fresh: bool) -> Result<OwnedFd, Errno> {
        let below = match open_directory(parent, name) {
            Err(Errno::ACCESS) => {
                remove::make_accessible(parent, name)?;
                open_directory(parent, name)?
            }
            other => other?,
        };
        if fresh {
            return Ok(below);
        }
        if matches!(self.way, Way::Staged { .. }) {
            inode::unlock(&below);
        }
        if !rustix::process::geteuid().is_root() {
            let mode = rustix::fs::fstat(&below)?.st_mode & 0o7777;
            if mode & 0o700 != 0o700 {
                // Without it the entries fail, each with its own cause.
                let _ = rustix::fs::fchmod(&below, Mode::from_raw_mode(mode | 0o700));
            }
        }
        Ok(below)
    }

    /// Flags that need an empty directory; leftovers of a merge that was cut off.
    pub fn prepare(&self, fd: &OwnedFd, entry: &Entry, fresh: bool) -> Result<(), Full> {
        let early = IFlags::from_bits_retain(entry.inode_flags) & inode::EMPTY_DIRECTORY;
        if fresh && !early.is_empty() {
            // When it fails, setting all flags in the end fails too and is told then.
            let _ = inode::set_flags(fd, early, early);
        }
        if !fresh && self.way == Way::Direct {
            let mut parts = Vec::new();
            let listed = remove::each_name(fd, |name, _| {
                if name.len() == PART_PREFIX.len() + 16 && name.starts_with(PART_PREFIX) {
                    parts.push(name.to_vec());
                }
            });
            // What cannot be listed or removed is in nobody's way: names are made anew.
            if listed.is_ok() {
                for name in parts {
                    let _ = rustix::fs::unlinkat(fd, name.as_slice(), AtFlags::empty());
                }
            }
        }
        Ok(())
    }

    /// Sets a directory's attributes: all its entries are there.
    pub fn end_directory(&self, directory: &Arc<Directory>, entry: &Entry) -> Result<(), FsError> {
        let path = || directory.path();
        let fd = match self.directories.open(directory) {
            Ok(fd) => fd,
            Err(errno) => return self.fail("open the directory", errno, path()),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.error("read", &path(), errno))?;
        self.rules
            .apply(
                &Target::Open(fd.as_fd()),
                &stat,
                entry,
                &self.failures,
                &path,
            )
            .map_err(self.full(path()))?;
        if !directory.is_root() {
            self.lock_later(directory, b"", entry);
            self.directories.close(directory);
        }
        Ok(())
    }

    /// Notes an entry that has to become immutable or append-only.
    pub fn lock_later(&self, directory: &Arc<Directory>, name: &[u8], entry: &Entry) {
        let flags = IFlags::from_bits_retain(entry.inode_flags) & inode::LOCKS;
        if !flags.is_empty() {
            lock(&self.locked).push(Locked {
                directory: Arc::clone(directory),
                name: name.into(),
                flags,
            });
        }
    }

    pub fn set_locks(&self) {
        for locked in std::mem::take(&mut *lock(&self.locked)) {
            let set = self.directories.open(&locked.directory).and_then(|fd| {
                if locked.name.is_empty() {
                    return inode::set_flags(&*fd, locked.flags, locked.flags).map_err(|e| e.1);
                }
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let file = open_name(&*fd, &locked.name, flags, Mode::empty())?;
                inode::set_flags(&file, locked.flags, locked.flags).map_err(|e| e.1)
            });
            if let Err(errno) = set {
                let path = locked.directory.path_of(&locked.name);
                self.failures
                    .attribute("make it immutable or append-only", errno, path);
            }
        }
    }

    /// Makes a symbolic link, device, fifo or socket.
    pub fn make_node(&self, parent: &Arc<Directory>, entry: &Entry) -> Result<bool, FsError> {
        let path = || self.path(parent, entry);
        let Some(name) = self.name(parent, entry) else {
            return Ok(false);
        };
        let fd = match self.directories.open(parent) {
            Ok(fd) => fd,
            Err(errno) => {
                self.fail("open its directory", errno, path())?;
                return Ok(false);
            }
        };
        if self.laid_over && laid_over::is_whiteout(entry) {
            self.hide(&fd, name, path())?;
            return Ok(true);
        }
        if self.clashes_with_directory(&fd, name, path()) {
            return Ok(false);
        }
        let making = self.making_name(name);
        let mut made = make(&fd, &making, entry);
        if made == Err(Errno::EXIST) && self.may_hold_others(parent) {
            made = remove::remove(&*fd, &making)
                .map_err(|remains| remains.errno)
                .and_then(|()| make(&fd, &making, entry));
        }
        if let Err(errno) = made {
            self.fail("make the entry", errno, path())?;
            return Ok(false);
        }
        let opened = open_name(&*fd, &making, OFlags::PATH, Mode::empty())
            .and_then(|node| Ok((rustix::fs::fstat(&node)?, node)));
        let (stat, node) = match opened {
            Ok((stat, node)) if FileType::from_raw_mode(stat.st_mode) == file_type(&entry.node) => {
                (stat, node)
            }
            Ok(_) => {
                self.fail("make the entry", Errno::STALE, path())?;
                return Ok(false);
            }
            Err(errno) => {
                self.fail("open the entry", errno, path())?;
                return Ok(false);
            }
        };
        let target = Target::Path {
            fd: node.as_fd(),
            directory: fd.as_fd(),
            name: &making,
        };
        self.rules
            .apply(&target, &stat, entry, &self.failures, &path)
            .map_err(self.full(path()))?;
        if !self.reveal(&fd, &making, name, path())? {
            return Ok(false);
        }
        self.register(parent, name, entry, (stat.st_dev, stat.st_ino));
        Ok(true)
    }

    /// Makes an inode known for further names.
    pub fn register(
        &self,
        directory: &Arc<Directory>,
        name: &[u8],
        entry: &Entry,
        (dev, ino): (u64, u64),
    ) {
        if let Some(group) = entry.link {
            let origin = Origin {
                directory: Arc::clone(directory),
                name: name.into(),
                dev,
                ino,
            };
            lock(&self.links).insert(group, origin);
        }
    }

    /// The inode is gone again: it gets no further names.
    pub fn forget(&self, entry: &Entry) {
        if let Some(group) = entry.link {
            lock(&self.links).remove(&group);
        }
    }

    /// Makes a further name of what was made before.
    pub fn make_link(&self, parent: &Arc<Directory>, entry: &Entry) -> Result<bool, FsError> {
        let path = || self.path(parent, entry);
        let Some(name) = self.name(parent, entry) else {
            return Ok(false);
        };
        let origin = entry.link.and_then(|group| {
            let links = lock(&self.links);
            let origin = links.get(&group)?;
            let identity = (origin.dev, origin.ino);
            Some((Arc::clone(&origin.directory), origin.name.clone(), identity))
        });
        let Some((from, from_name, identity)) = origin else {
            self.failures.add(
                FindingKind::NotRestored,
                "make a further name",
                "the first one was not restored",
                path(),
            );
            return Ok(false);
        };
        let fds = self
            .directories
            .open(&from)
            .and_then(|from| Ok((from, self.directories.open(parent)?)));
        let (from_fd, fd) = match fds {
            Ok(fds) => fds,
            Err(errno) => {
                self.fail("open its directory", errno, path())?;
                return Ok(false);
            }
        };
        let is_origin = |name: &[u8]| {
            rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == identity)
        };
        let others = self.may_hold_others(parent);
        if others && is_origin(name) {
            return Ok(true);
        }
        if self.clashes_with_directory(&fd, name, path()) {
            return Ok(false);
        }
        let making = self.making_name(name);
        let link = || {
            rustix::fs::linkat(
                &*from_fd,
                &*from_name,
                &*fd,
                making.as_slice(),
                AtFlags::empty(),
            )
        };
        let mut made = link();
        if made == Err(Errno::EXIST) && others {
            made = remove::remove(&*fd, &making)
                .map_err(|remains| remains.errno)
                .and_then(|()| link());
        }
        // Someone else may have put another file under the first name of a tree in use.
        if made.is_ok() && self.way == Way::Direct && !is_origin(&making) {
            let _ = rustix::fs::unlinkat(&fd, making.as_slice(), AtFlags::empty());
            made = Err(Errno::STALE);
        }
        match made {
            Ok(()) => self.reveal(&fd, &making, name, path()),
            Err(errno) => {
                self.fail("make a further name", errno, path())?;
                Ok(false)
            }
        }
    }
}

fn make(fd: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(u32::from(entry.mode) & 0o700);
    let device = match &entry.node {
        Node::Symlink { target } => {
            return rustix::fs::symlinkat(target.as_slice(), fd, name);
        }
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            rustix::fs::makedev(*major, *minor)
        }
        Node::Fifo | Node::Socket => 0,
        Node::File { .. } | Node::Directory { .. } => return Err(Errno::INVAL),
    };
    rustix::fs::mknodat(fd, name, file_type(&entry.node), mode, device)
}
