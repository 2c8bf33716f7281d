//! Reading a tree: a walk with several threads, relative to open directories, that never
//! follows a link, never blocks on what is not a regular file, and whose root id depends on the
//! tree alone.
//!
//! A few workers take directories from a stack, read and cut their files and make tree nodes
//! from the leaves to the root; the consumer takes batches over a short channel. Memory is the
//! batches under way (at most a handful of 4 MiB), a stage and a window for each worker, and the
//! entries of directories that are not finished.

mod begun;
pub(crate) mod content;
mod copy;
mod directory;
mod entry;
mod glob;
mod known;
mod links;
mod list;
mod measure;
mod owner;
mod queue;
pub(crate) mod report;
mod reuse;
mod stat;
mod view;
mod work;

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use podkeep_format::id::SnapshotId;
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use copy::Copies;
use directory::{Directory, OpenDirectories, open_directory};
use glob::Globs;
use links::Links;
use queue::{Job, Queue};
use report::Report;
use stat::Stat;
use work::{Shared, Worker};

pub use self::begun::BegunCopies;
pub use self::known::KnownContents;
use self::known::Tickets;
pub use self::measure::{Measured, measure};
pub use self::view::{OnlyPaths, View};
use super::attributes::FsTraits;
use super::background::Readers;
use super::batch::Outbox;
use super::in_use::MappedFiles;
use super::owners::Owners;
use super::states::{States, root_key};
use super::{ChunkBytes, FsError, FsErrorKind, ScanBatch, ScanOutcome, TreeScan, Writers};
use crate::chunk::Chunking;

/// Threads of one scan.
const THREADS_MAX: usize = 64;
/// A path given by a caller is walked in parts that the kernel takes.
const PATH_PART_BYTES_MAX: usize = 3900;

/// Where the tree is.
pub enum ScanRoot {
    /// Raw bytes. Links on the way are followed, but the last component must not be one.
    Path(Vec<u8>),
    /// A directory that the caller opened.
    Directory(OwnedFd),
}

/// What to read, and how.
pub struct ScanSpec {
    pub root: ScanRoot,
    /// The item's text form ("volume:web"): names link groups, and is the object of findings.
    pub item: String,
    pub chunking: Arc<Chunking>,
    /// At least 1. Never changes the root id.
    pub threads: usize,
    /// Globs over paths below the root: `*` within a component, `**` across. Without a slash: the
    /// name at any depth.
    pub exclude: Vec<String>,
    /// Of directories with a valid CACHEDIR.TAG keep only themselves and the tag.
    pub exclude_caches: bool,
    pub cross_mounts: bool,
    pub states: Option<ScanStates>,
    pub view: View,
    /// Whose ids the tree holds. File states are only for runs with the same.
    pub owners: Arc<Owners>,
    /// What a scan begins ([`TreeScan::before_rest`]) and one of the same tree at rest finishes.
    pub begun: Arc<BegunCopies>,
    /// What was learnt of large files when they were read before; only together with `states`, for the
    /// snapshot that these trust.
    pub known: Option<Arc<KnownContents>>,
}

/// The file states of a scan; see [`states`](super::states).
pub struct ScanStates {
    /// Made if it is not there. What cannot be read or written there only makes runs slower.
    pub directory: PathBuf,
    /// The snapshot whose states may be reused.
    pub trusted: Option<SnapshotId>,
    /// Files that are read whatever their times say.
    pub always_read: MappedFiles,
}

/// Starts to read a tree.
pub fn scan(spec: ScanSpec) -> Result<Box<dyn TreeScan>, FsError> {
    Ok(Box::new(start(spec, None)?))
}

/// Starts to read a tree that was read just now, with the same `spec`: what that scan recorded of it is
/// trusted. While those who write into it are at rest large files that changed are read from copies
/// that share their blocks, where the file system has such ([`ScanBatch::captured`]).
pub fn scan_again(spec: ScanSpec, writers: Writers) -> Result<Box<dyn TreeScan>, FsError> {
    Ok(Box::new(start(spec, Some(writers))?))
}

/// `again`: it was read just now.
fn start(spec: ScanSpec, again: Option<Writers>) -> Result<Scan, FsError> {
    let exclude = Globs::new(&spec.exclude).map_err(|(pattern, why)| {
        FsError::new("exclude", pattern.as_bytes(), FsErrorKind::Refused, why)
    })?;
    let display = match &spec.root {
        ScanRoot::Path(path) => path.clone(),
        ScanRoot::Directory(_) => spec.item.clone().into_bytes(),
    };
    let failed = |errno| FsError::from_errno("open", &display, errno);
    // Attributes of what cannot be opened are read through it; without it they would be lost.
    rustix::fs::stat("/proc/self/fd")
        .map_err(|errno| FsError::from_errno("read", b"/proc/self/fd", errno))?;

    let (root_fd, first) = match spec.root {
        ScanRoot::Directory(fd) => (Arc::new(fd), None),
        ScanRoot::Path(path) => {
            let (parent, name) = open_parent(&path).map_err(failed)?;
            let stat = Stat::at(parent.as_fd(), &name).map_err(failed)?;
            match stat.kind {
                FileType::Directory => {
                    let fd = open_directory(&parent, &name).map_err(failed)?;
                    (Arc::new(fd), None)
                }
                FileType::RegularFile => {
                    let parent_again = rustix::io::dup(&parent).map_err(failed)?;
                    (Arc::new(parent_again), Some(Job::RootFile { parent, name }))
                }
                _ => {
                    return Err(FsError::new(
                        "read",
                        &display,
                        FsErrorKind::Refused,
                        "it is neither a directory nor a regular file",
                    ));
                }
            }
        }
    };
    if FsTraits::of(root_fd.as_fd()).map_err(failed)?.pseudo {
        return Err(FsError::new(
            "read",
            &display,
            FsErrorKind::Refused,
            "it shows the kernel's own state, which is no data",
        ));
    }
    let first = first.unwrap_or_else(|| {
        let key = root_key(&spec.item);
        Job::Directory(Arc::new(Directory::new(None, Vec::new(), 0, key)))
    });
    let mut always_read = HashSet::new();
    let trusted = spec.states.as_ref().and_then(|states| states.trusted);
    let states = spec.states.and_then(|states| {
        always_read.extend(states.always_read.iter().map(|(_, inode)| *inode));
        let ids = &spec.chunking.ids;
        let open = match again {
            None => States::open,
            Some(_) => States::go_on,
        };
        open(&states.directory, &spec.item, states.trusted, ids).ok()
    });

    let threads = spec.threads.clamp(1, THREADS_MAX);
    let known = spec.known.filter(|_| states.is_some());
    if let Some(known) = &known {
        known.begin(&spec.item, trusted, again.is_some());
    }
    let (outbox, inbox) = Outbox::new();
    let shared = Arc::new(Shared {
        item: spec.item,
        chunking: spec.chunking,
        exclude,
        exclude_caches: spec.exclude_caches,
        cross_mounts: spec.cross_mounts,
        view: spec.view,
        owners: spec.owners,
        begun: spec.begun,
        known,
        tickets: Tickets::new(threads),
        threads,
        beyond: Mutex::default(),
        states,
        always_read,
        copies: (again == Some(Writers::Rest)).then(Copies::default),
        queue: Queue::new(first),
        open: OpenDirectories::new(root_fd),
        links: Links::default(),
        outbox,
        report: Report::default(),
        numbers: AtomicUsize::new(1),
        stopped: AtomicBool::new(false),
        root: Mutex::new(None),
    });
    let mut scan = Scan {
        shared,
        readers: Readers::new(inbox, display),
    };
    for index in 0..threads {
        let shared = Arc::clone(&scan.shared);
        let worker = std::thread::Builder::new()
            .name(format!("read-{index}"))
            .spawn(move || {
                let panicked = StopOnPanic(&shared);
                Worker::new(&shared).run();
                drop(panicked);
            });
        match worker {
            Ok(worker) => scan.readers.push(worker),
            // Fewer threads are only slower.
            Err(_) if index > 0 => break,
            Err(error) => return Err(scan.readers.failed(error)),
        }
    }
    Ok(scan)
}

/// The directory that holds the last component, and that component. The root is its own parent.
fn open_parent(path: &[u8]) -> Result<(OwnedFd, Vec<u8>), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let start: &[u8] = if path.starts_with(b"/") { b"/" } else { b"." };
    let mut fd = openat(CWD, start, flags, Mode::empty())?;
    let mut names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    let last = names.pop().unwrap_or(b".");
    if last == b".." {
        return Err(Errno::INVAL);
    }
    let mut part = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if !part.is_empty() {
            part.push(b'/');
        }
        part.extend_from_slice(name);
        let room = names
            .get(index + 1)
            .is_some_and(|next| part.len() + next.len() < PATH_PART_BYTES_MAX);
        if !room {
            fd = openat(&fd, part.as_slice(), flags, Mode::empty())?;
            part.clear();
        }
    }
    Ok((fd, last.to_vec()))
}

/// A worker that panics must not leave the others and the consumer waiting.
struct StopOnPanic<'s>(&'s Shared);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
            let _ = self.0.outbox.close();
        }
    }
}

struct Scan {
    shared: Arc<Shared>,
    readers: Readers,
}

impl TreeScan for Scan {
    fn next(&mut self) -> Result<Option<ScanBatch>, FsError> {
        Ok(self.readers.next())
    }

    fn fetch(&mut self, wanted: &[u32]) -> Result<ChunkBytes, FsError> {
        self.readers.fetch(wanted)
    }

    fn before_again(&mut self) -> u64 {
        let report = &self.shared.report;
        let small = report.bytes_unsettled_small.load(Ordering::Relaxed);
        let large = report.bytes_unsettled_large.load(Ordering::Relaxed);
        match copy::has_copies(self.shared.open.root()) {
            true => small,
            false => small + large,
        }
    }

    fn before_rest(&mut self) {
        let paths = self.shared.report.take_young();
        self.shared.begun.begin(self.shared.open.root(), &paths);
    }

    fn finish(mut self: Box<Self>) -> Result<ScanOutcome, FsError> {
        self.readers.stop();
        let root = *self
            .shared
            .root
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(root) = root else {
            // A panic was turned into that, too.
            return Err(self.readers.failed("its root could not be read"));
        };
        let report = &self.shared.report;
        Ok(ScanOutcome {
            root,
            files: report.files.load(Ordering::Relaxed),
            directories: report.directories.load(Ordering::Relaxed),
            bytes_logical: report.bytes_logical.load(Ordering::Relaxed),
            bytes_allocated: report.bytes_allocated.load(Ordering::Relaxed),
            incomplete: report.incomplete.load(Ordering::Relaxed),
            layers: Vec::new(),
        })
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.shared.stop();
        self.readers.stop();
        // Groups and directories refer to each other.
        self.shared.links.clear();
    }
}
