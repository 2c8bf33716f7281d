//! Reading the tree of a volume or path, once or twice.
//!
//! What is read while its containers are at rest is read before, too, while they run: the second
//! reading then finds most of it unchanged.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::ScanRequest;
use super::lock::ItemLock;
use crate::fs::in_use::{MappedFiles, shared_writable};
use crate::fs::owners::Owners;
use crate::fs::scan::{BegunCopies, ScanRoot, ScanSpec, ScanStates, View, scan, scan_again};
use crate::fs::{ChunkBytes, FsError, FsErrorKind, ScanBatch, ScanOutcome, TreeScan, Writers};

/// A file system without such copies, on which most volumes are.
const EXT4_MAGIC: rustix::fs::FsWord = 0xef53;

/// Holds the lock of its item.
pub(super) struct ItemScan {
    request: ScanRequest,
    root: ScanRoot,
    states: Option<PathBuf>,
    owners: Arc<Owners>,
    begun: Arc<BegunCopies>,
    /// `None` only between the two readings.
    tree: Option<Box<dyn TreeScan>>,
    _lock: ItemLock,
}

impl ItemScan {
    /// `states`: where its file states are.
    pub fn begin(
        request: &ScanRequest,
        root: ScanRoot,
        states: Option<PathBuf>,
        owners: Arc<Owners>,
        lock: ItemLock,
    ) -> Result<Self, FsError> {
        let always_read = match request.trusted {
            Some(_) => shared_writable(),
            None => MappedFiles::new(),
        };
        let mut new = Self {
            request: request.clone(),
            root,
            states,
            owners,
            begun: Arc::default(),
            tree: None,
            _lock: lock,
        };
        new.tree = Some(scan(new.spec(always_read)?)?);
        Ok(new)
    }

    fn spec(&self, always_read: MappedFiles) -> Result<ScanSpec, FsError> {
        let request = &self.request;
        let states = self.states.clone().map(|directory| ScanStates {
            directory,
            trusted: request.trusted,
            always_read,
        });
        Ok(ScanSpec {
            root: again(&self.root)?,
            item: request.item.to_string(),
            chunking: request.chunking.clone(),
            threads: request.threads,
            exclude: request.exclude.clone(),
            exclude_caches: request.exclude_caches,
            cross_mounts: request.cross_mounts,
            states,
            owners: Arc::clone(&self.owners),
            begun: Arc::clone(&self.begun),
            known: request.known.clone(),
            view: View::Whole,
        })
    }

    fn tree(&mut self) -> Result<&mut Box<dyn TreeScan>, FsError> {
        let item = self.request.item.to_string();
        self.tree.as_mut().ok_or_else(|| {
            let cause = "its reading did not begin";
            FsError::new("read", item.as_bytes(), FsErrorKind::Other, cause)
        })
    }
}

/// Writes out what is dirty, where copies that share blocks are made of what is on disk.
pub(super) fn sync_for_copies(directory: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open(directory, flags, Mode::empty()) {
        sync_of(&fd);
    }
}

fn sync_of(directory: &OwnedFd) {
    if rustix::fs::fstatfs(directory).is_ok_and(|fs| fs.f_type != EXT4_MAGIC) {
        let _ = rustix::fs::syncfs(directory);
    }
}

/// The same root, to be listed from its beginning.
fn again(root: &ScanRoot) -> Result<ScanRoot, FsError> {
    let reopen = |fd: &OwnedFd| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(fd, c".", flags, Mode::empty())
    };
    match root {
        ScanRoot::Path(path) => Ok(ScanRoot::Path(path.clone())),
        ScanRoot::Directory(fd) => reopen(fd)
            .map(ScanRoot::Directory)
            .map_err(|errno| FsError::from_errno("open", b"the root again", errno)),
    }
}

impl TreeScan for ItemScan {
    fn next(&mut self) -> Result<Option<ScanBatch>, FsError> {
        self.tree()?.next()
    }

    fn fetch(&mut self, wanted: &[u32]) -> Result<ChunkBytes, FsError> {
        self.tree()?.fetch(wanted)
    }

    fn again(&mut self, writers: Writers) -> Result<(), FsError> {
        self.tree = None;
        // Those that map a file now may have written into it since it was read.
        let spec = self.spec(shared_writable())?;
        self.tree = Some(scan_again(spec, writers)?);
        Ok(())
    }

    fn before_again(&mut self) -> u64 {
        if let ScanRoot::Directory(fd) = &self.root {
            sync_of(fd);
        }
        self.tree.as_mut().map_or(0, |tree| tree.before_again())
    }

    fn before_rest(&mut self) {
        if let Some(tree) = &mut self.tree {
            tree.before_rest();
        }
    }

    fn finish(mut self: Box<Self>) -> Result<ScanOutcome, FsError> {
        self.tree()?;
        match self.tree.take() {
            Some(tree) => tree.finish(),
            None => Err(FsError::new(
                "read",
                b"it",
                FsErrorKind::Other,
                "it has ended",
            )),
        }
    }
}
