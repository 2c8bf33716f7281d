//! The directories of a tree that is being written, and how they are opened.
//!
//! A directory is known by its place (parent and name) and by its device and inode. Only a
//! bounded number is open at a time; one that was closed is opened again name by name from the
//! nearest open ancestor, and each step must find the same device and inode as before. No open
//! ever takes more than one name or follows a link, so that nothing that stands in the tree, or
//! that someone puts there meanwhile, can lead out of it (invariant I-6), and no path is too
//! long.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use podkeep_format::tree::NAME_BYTES_MAX;
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Directories that stay open, at most; fewer where the process may open few files.
const OPEN_MAX: u64 = 256;

/// One directory. Holds no file descriptor.
pub(super) struct Directory {
    serial: u64,
    parent: Option<Arc<Directory>>,
    /// Empty for the root.
    name: Box<[u8]>,
    dev: u64,
    ino: u64,
    /// Made by this run: nothing can stand in it that this run did not make.
    pub fresh: bool,
}

impl Directory {
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// The raw path below the root; empty for the root.
    pub fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(&at.name[..]);
            at = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The raw path of an entry of this directory.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

/// Without this, dropping the innermost of thousands of levels would recurse as deep.
impl Drop for Directory {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut parent| parent.parent.take());
        }
    }
}

/// Opens directories and keeps some of them open.
pub(super) struct Directories {
    root: Arc<OwnedFd>,
    next: AtomicU64,
    open: Mutex<OpenSet>,
}

#[derive(Default)]
struct OpenSet {
    capacity: u64,
    clock: u64,
    by_serial: HashMap<u64, (Arc<OwnedFd>, u64)>,
    by_age: BTreeMap<u64, u64>,
}

impl Directories {
    pub fn new(root: OwnedFd, fresh: bool) -> Result<(Self, Arc<Directory>), Errno> {
        let stat = rustix::fs::fstat(&root)?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(u64::MAX);
        let directories = Self {
            root: Arc::new(root),
            next: AtomicU64::new(1),
            open: Mutex::new(OpenSet {
                capacity: (limit / 4).clamp(4, OPEN_MAX),
                ..OpenSet::default()
            }),
        };
        let root = Arc::new(Directory {
            serial: 0,
            parent: None,
            name: Box::default(),
            dev: stat.st_dev,
            ino: stat.st_ino,
            fresh,
        });
        Ok((directories, root))
    }

    pub fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// The same tree, reached through another directory from now on.
    pub fn set_root(&mut self, root: OwnedFd) {
        self.root = Arc::new(root);
    }

    fn open_set(&self) -> MutexGuard<'_, OpenSet> {
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A descriptor of the directory. ESTALE: another one stands in its place now.
    pub fn open(&self, directory: &Arc<Directory>) -> Result<Arc<OwnedFd>, Errno> {
        let mut missing: Vec<&Arc<Directory>> = Vec::new();
        let mut at = directory;
        let mut fd = loop {
            let Some(parent) = &at.parent else {
                break Arc::clone(&self.root);
            };
            if let Some(fd) = self.open_set().get(at.serial) {
                break fd;
            }
            missing.push(at);
            at = parent;
        };
        while let Some(next) = missing.pop() {
            let below = open_directory(&*fd, &next.name)?;
            let stat = rustix::fs::fstat(&below)?;
            if (stat.st_dev, stat.st_ino) != (next.dev, next.ino) {
                return Err(Errno::STALE);
            }
            fd = Arc::new(below);
            self.open_set().put(next.serial, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Takes an open directory into the set, as `name` below `parent`.
    pub fn adopt(
        &self,
        parent: &Arc<Directory>,
        name: &[u8],
        fd: OwnedFd,
        fresh: bool,
    ) -> Result<(Arc<Directory>, Arc<OwnedFd>, Stat), Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        let directory = Arc::new(Directory {
            serial,
            parent: Some(Arc::clone(parent)),
            name: name.into(),
            dev: stat.st_dev,
            ino: stat.st_ino,
            fresh,
        });
        let fd = Arc::new(fd);
        self.open_set().put(serial, Arc::clone(&fd));
        Ok((directory, fd, stat))
    }

    /// The directory is not written to any more.
    pub fn close(&self, directory: &Directory) {
        self.open_set().remove(directory.serial);
    }
}

impl OpenSet {
    fn get(&mut self, serial: u64) -> Option<Arc<OwnedFd>> {
        self.clock += 1;
        let (fd, age) = self.by_serial.get_mut(&serial)?;
        self.by_age.remove(age);
        *age = self.clock;
        self.by_age.insert(*age, serial);
        Some(Arc::clone(fd))
    }

    fn put(&mut self, serial: u64, fd: Arc<OwnedFd>) {
        self.remove(serial);
        self.clock += 1;
        self.by_serial.insert(serial, (fd, self.clock));
        self.by_age.insert(self.clock, serial);
        while self.by_serial.len() as u64 > self.capacity {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                return;
            };
            self.by_serial.remove(&oldest);
        }
    }

    fn remove(&mut self, serial: u64) {
        if let Some((_, age)) = self.by_serial.remove(&serial) {
            self.by_age.remove(&age);
        }
    }
}

/// Whether bytes can be one name in a directory and nothing else.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| *byte == b'/' || *byte == 0)
}

/// Set once a kernel (or a filter before it) has no openat2.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens one name of a directory; never a link, never what is elsewhere.
pub(super) fn open_name(
    directory: impl AsFd,
    name: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let directory = directory.as_fd();
    if NO_OPENAT2.load(Ordering::Relaxed) {
        return rustix::fs::openat(directory, name, flags, mode);
    }
    // With O_PATH a link itself may be opened, which NO_SYMLINKS would refuse; a single name
    // and O_NOFOLLOW cannot lead anywhere else either.
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if !flags.contains(OFlags::PATH) {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let flags2 = if flags.contains(OFlags::PATH) {
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | (flags & OFlags::DIRECTORY)
    } else {
        flags
    };
    match rustix::fs::openat2(directory, name, flags2, mode, resolve) {
        Err(Errno::NOSYS) => {
            NO_OPENAT2.store(true, Ordering::Relaxed);
            rustix::fs::openat(directory, name, flags, mode)
        }
        // A filter of system calls may say so of a call that it does not know, and the kernel
        // that a rename elsewhere disturbed it: openat tells which.
        Err(Errno::PERM | Errno::AGAIN) => rustix::fs::openat(directory, name, flags, mode),
        other => other,
    }
}

pub(super) fn open_directory(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    open_name(
        directory,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )
}

/// Opens a directory that the caller names by a path: links are followed, the path may be longer
/// than PATH_MAX.
pub(super) fn open_path(path: &[u8]) -> Result<OwnedFd, Errno> {
    const PART_BYTES_MAX: usize = 3800;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let start: &[u8] = if path.starts_with(b"/") { b"/" } else { b"." };
    let mut fd = rustix::fs::open(start, flags, Mode::empty())?;
    let mut part: Vec<u8> = Vec::new();
    let names = path.split(|byte| *byte == b'/').filter(|n| !n.is_empty());
    for name in names {
        if part.len() + 1 + name.len() > PART_BYTES_MAX && !part.is_empty() {
            fd = rustix::fs::openat(&fd, part.as_slice(), flags, Mode::empty())?;
            part.clear();
        }
        if !part.is_empty() {
            part.push(b'/');
        }
        part.extend_from_slice(name);
    }
    if !part.is_empty() {
        fd = rustix::fs::openat(&fd, part.as_slice(), flags, Mode::empty())?;
    }
    Ok(fd)
}

/// The path under which the kernel reaches what a descriptor (O_PATH too) is open on.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
