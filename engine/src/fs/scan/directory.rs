//! A directory from its listing until its node is made, and how it is opened again.
//!
//! Directories refer to their parents only. Nothing here recurses: trees are thousands of levels
//! deep. Few descriptors stay open; a directory whose descriptor was given up is reached again
//! by its names from the nearest one that is open, and taken only if it is the same inode.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use podkeep_format::tree::Entry;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{self, Errno};

use super::links::GroupNumber;
use super::stat::Stat;
use crate::fs::attributes::FsTraits;
use crate::fs::states::{Row, RowKey};

/// Descriptors of directories that are kept open for their children.
const OPEN_DIRECTORIES_MAX: usize = 256;

pub(crate) struct Directory {
    /// `None` for the root.
    pub parent: Option<Arc<Directory>>,
    /// Empty for the root.
    pub name: Vec<u8>,
    pub number: usize,
    /// Known once it was opened.
    pub opened: OnceLock<Opened>,
    /// Its own processing, jobs, subdirectories and linked names that are not done.
    pub pending: AtomicUsize,
    pub contents: Mutex<Contents>,
    /// Names it in the file states.
    pub key: RowKey,
    /// What the last run saw of it, once it is opened.
    pub row: OnceLock<Row>,
    /// Something was read that was not taken from `row`.
    pub changed: AtomicBool,
}

/// What was learnt when a directory was opened.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    pub identity: (u64, u64),
    pub traits: FsTraits,
}

/// What is known of a directory's entries.
#[derive(Default)]
pub(crate) struct Contents {
    /// The directory's own attributes; the tree's id is not set. `None`: it is left out.
    pub own: Option<Entry>,
    /// Empty: its attributes are not to be reused by a later run.
    pub fingerprint: Vec<u8>,
    /// Names, fingerprints and encoded entries.
    pub bytes: Vec<u8>,
    pub slots: Vec<Slot>,
}

/// One entry; ranges of [`Contents::bytes`].
#[derive(Clone)]
pub(crate) struct Slot {
    pub name: Range<usize>,
    /// Empty: not to be reused by a later run.
    pub fingerprint: Range<usize>,
    pub body: Body,
}

#[derive(Clone)]
pub(crate) enum Body {
    /// A whole encoded entry.
    Entry(Range<usize>),
    /// The same, of a subdirectory.
    Directory(Range<usize>),
    /// An inode with several names, and the whole encoded entry once the group is decided.
    Linked(GroupNumber, Option<Range<usize>>),
}

impl Contents {
    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    pub fn push(&mut self, name: &[u8], fingerprint: &[u8], body: PushBody<'_>) {
        let name = self.append(name);
        let fingerprint = self.append(fingerprint);
        let body = match body {
            PushBody::Entry(encoded) => Body::Entry(self.append(encoded)),
            PushBody::Directory(encoded) => Body::Directory(self.append(encoded)),
            PushBody::Linked(group) => Body::Linked(group, None),
        };
        self.slots.push(Slot {
            name,
            fingerprint,
            body,
        });
    }
}

pub(crate) enum PushBody<'a> {
    Entry(&'a [u8]),
    Directory(&'a [u8]),
    Linked(GroupNumber),
}

impl Directory {
    pub fn new(parent: Option<Arc<Directory>>, name: Vec<u8>, number: usize, key: RowKey) -> Self {
        Self {
            parent,
            name,
            number,
            opened: OnceLock::new(),
            pending: AtomicUsize::new(1),
            contents: Mutex::new(Contents::default()),
            key,
            row: OnceLock::new(),
            changed: AtomicBool::new(false),
        }
    }

    /// The path below the item's root of an entry of this directory; of the directory itself
    /// when `name` is empty.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut directory = self;
        while let Some(parent) = &directory.parent {
            names.push(&directory.name);
            directory = parent;
        }
        names.reverse();
        if names.last().is_some_and(|name| name.is_empty()) {
            names.pop();
        }
        names.join(&b'/')
    }

    pub fn contents(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The last child of a long chain must not take all its ancestors down recursively.
        let mut next = self.parent.take();
        while let Some(directory) = next {
            next = Arc::into_inner(directory).and_then(|mut directory| directory.parent.take());
        }
    }
}

const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Opens without changing the access time where the kernel allows it (to the owner and root).
pub(crate) fn open_quietly(dir: &OwnedFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, flags, Mode::empty()),
        result => result,
    }
}

pub(crate) fn open_directory(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    open_quietly(parent, name, DIRECTORY_FLAGS)
}

/// The descriptors that are open.
pub(crate) struct OpenDirectories {
    root: Arc<OwnedFd>,
    open: Mutex<VecDeque<(usize, Arc<OwnedFd>)>>,
}

impl OpenDirectories {
    pub fn new(root: Arc<OwnedFd>) -> Self {
        Self {
            root,
            open: Mutex::new(VecDeque::new()),
        }
    }

    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// A directory that was opened before. ENOENT when another one stands in its place now.
    pub fn get(&self, directory: &Arc<Directory>) -> io::Result<Arc<OwnedFd>> {
        let mut below = Vec::new();
        let mut at = directory;
        let mut fd = loop {
            if let Some(fd) = self.find(at) {
                break fd;
            }
            match &at.parent {
                None => break Arc::clone(&self.root),
                Some(parent) => {
                    below.push(at);
                    at = parent;
                }
            }
        };
        for directory in below.into_iter().rev() {
            let next = open_directory(&fd, &directory.name)?;
            let identity = Stat::of(&next)?.identity();
            if directory.opened.get().map(|opened| opened.identity) != Some(identity) {
                return Err(Errno::NOENT);
            }
            fd = Arc::new(next);
            self.keep(directory, &fd);
        }
        Ok(fd)
    }

    fn find(&self, directory: &Directory) -> Option<Arc<OwnedFd>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter()
            .rev()
            .find(|(number, _)| *number == directory.number)
            .map(|(_, fd)| Arc::clone(fd))
    }

    /// Keeps a descriptor for the children's sake; the one that was kept longest may go.
    pub fn keep(&self, directory: &Directory, fd: &Arc<OwnedFd>) {
        if directory.parent.is_none() {
            return;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.iter().any(|(number, _)| *number == directory.number) {
            return;
        }
        if open.len() >= OPEN_DIRECTORIES_MAX {
            open.pop_front();
        }
        open.push_back((directory.number, Arc::clone(fd)));
    }

    pub fn forget(&self, directory: &Directory) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open
            .iter()
            .rposition(|(number, _)| *number == directory.number)
        {
            open.remove(at);
        }
    }
}
