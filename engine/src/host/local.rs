//! The host that this process runs on.
//!
//! An item is worked on by one run at a time: a lock file in the state folder, held with
//! `flock`, ends with the process that holds it, however that ends.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use podkeep_format::id::SnapshotId;
use podkeep_format::item::{Item, ItemKind};

use super::{
    Existing, HostError, Inventory, OpenItem, Place, PlacePlan, ScanRequest, Source, Target,
    WriteRequest,
};
use crate::fs::mapped::{MappedFiles, shared_writable};
use crate::fs::scan::{ScanRoot, ScanSpec, ScanStates, scan};
use crate::fs::states::published;
use crate::fs::write::{self, Destination, Labels, RootKind, Swap, WriteSpec};
use crate::fs::{
    ChunkBytes, FsError, FsErrorKind, PresentQuery, ScanBatch, ScanOutcome, TreeScan, TreeWriter,
    WriteBatch, WriteOutcome,
};
use crate::monitor::Finding;

/// Who holds a lock, in bytes.
const HOLDER_BYTES_MAX: u64 = 256;

/// This host, reached in-process.
pub struct LocalHost {
    /// Locks lie below it; made on first use.
    state: PathBuf,
}

impl LocalHost {
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
        }
    }

    fn lock(&self, item: &Item) -> Result<ItemLock, HostError> {
        let text = item.to_string();
        let folder = self.state.join("locks");
        let local = |action, path: &Path, error: std::io::Error| {
            let path = path.as_os_str().as_bytes();
            HostError::Fs(FsError::new(action, path, FsErrorKind::Other, error))
        };
        make_private(&folder).map_err(|e| local("make", &folder, e))?;
        let path = folder.join(&blake3::hash(text.as_bytes()).to_hex()[..32]);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| local("open", &path, e))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only words for people: the lock itself is what counts.
                let _ = (&file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
                return Err(HostError::Busy {
                    object: text,
                    holder: holder.trim().to_owned(),
                });
            }
            Err(errno) => return Err(local("lock", &path, errno.into())),
        }
        let since = crate::clock::now().secs;
        let holder = format!(
            "process {}, since {since} (Unix time)\n",
            std::process::id()
        );
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()));
        Ok(ItemLock { _file: file })
    }
}

fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Held while an item is read or written.
struct ItemLock {
    _file: File,
}

struct LockedScan {
    tree: Box<dyn TreeScan>,
    _lock: ItemLock,
}

impl TreeScan for LockedScan {
    fn next(&mut self) -> Result<Option<ScanBatch>, FsError> {
        self.tree.next()
    }

    fn fetch(&mut self, wanted: &[u32]) -> Result<ChunkBytes, FsError> {
        self.tree.fetch(wanted)
    }

    fn finish(self: Box<Self>) -> Result<ScanOutcome, FsError> {
        self.tree.finish()
    }
}

struct LockedWriter {
    tree: Box<dyn TreeWriter>,
    _lock: Option<ItemLock>,
}

impl TreeWriter for LockedWriter {
    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        self.tree.present(queries)
    }

    fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        self.tree.apply(batch)
    }

    fn finish(self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        self.tree.finish()
    }

    fn discard(self: Box<Self>) -> Result<(), FsError> {
        self.tree.discard()
    }
}

fn not_here(item: &Item) -> HostError {
    HostError::Podman {
        action: "find",
        object: item.to_string(),
        cause: "there is no such item on this host".into(),
    }
}

/// Where file states are kept, and what must be read whatever they say.
fn scan_states(request: &ScanRequest) -> Option<ScanStates> {
    let directory = request.states.clone()?;
    let always_read = match request.trusted {
        Some(_) => shared_writable(),
        None => MappedFiles::new(),
    };
    Some(ScanStates {
        directory,
        trusted: request.trusted,
        always_read,
    })
}

impl Source for LocalHost {
    fn inventory(&self) -> Result<Inventory, HostError> {
        Ok(Inventory::default())
    }

    fn open(&self, request: &ScanRequest) -> Result<OpenItem, HostError> {
        if request.item.kind != ItemKind::Path {
            return Err(not_here(&request.item));
        }
        let lock = self.lock(&request.item)?;
        let tree = scan(ScanSpec {
            root: ScanRoot::Path(request.item.name.clone()),
            item: request.item.to_string(),
            chunking: request.chunking.clone(),
            threads: request.threads,
            exclude: request.exclude.clone(),
            exclude_caches: request.exclude_caches,
            cross_mounts: request.cross_mounts,
            states: scan_states(request),
        })?;
        Ok(OpenItem {
            definition: None,
            tree: Some(Box::new(LockedScan { tree, _lock: lock })),
            findings: Vec::new(),
        })
    }

    fn published(&self, request: &ScanRequest, snapshot: SnapshotId) -> Result<(), HostError> {
        if let Some(states) = &request.states {
            published(states, &request.item.to_string(), snapshot)?;
        }
        Ok(())
    }
}

/// Where a request goes: the directory that holds the final name, and that name.
fn destination(request: &WriteRequest) -> Result<Destination, HostError> {
    let path = match &request.place {
        Place::Directory(path) => match &request.file_name {
            // A single file goes into the directory under its own name.
            Some(name) => path.join(std::ffi::OsStr::from_bytes(name)),
            None => path.clone(),
        },
        Place::Item { item, .. } if item.kind == ItemKind::Path => {
            PathBuf::from(std::ffi::OsStr::from_bytes(&item.name))
        }
        Place::Item { item, .. } => return Err(not_here(item)),
    };
    // `DIR/..` and `.` have no name of their own until they are resolved.
    let path = match path.file_name() {
        Some(_) => path,
        None => std::fs::canonicalize(&path).map_err(|error| {
            let path = path.as_os_str().as_bytes();
            FsError::new("find", path, FsErrorKind::NotFound, error)
        })?,
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(HostError::Refused {
            object: path.display().to_string(),
            cause: "the root of the file system cannot be swapped".into(),
            hint: "restore with --to-dir DIR".into(),
        });
    };
    let parent = match parent.as_os_str().as_bytes() {
        b"" => b".".to_vec(),
        parent => parent.to_vec(),
    };
    Ok(Destination {
        parent,
        name: name.as_bytes().to_vec(),
    })
}

/// What is at the place now, in words, if it must not be touched without a flag.
fn in_the_way(request: &WriteRequest, path: &Path) -> Option<String> {
    if request.existing != Existing::Refuse {
        return None;
    }
    let shown = podkeep_format::item::Escaped(path.as_os_str().as_bytes());
    match std::fs::symlink_metadata(path) {
        Err(_) => None,
        Ok(facts) if facts.is_dir() && request.file_name.is_none() => {
            let filled = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
            filled.then(|| format!("{shown} is not empty: --merge or --replace"))
        }
        Ok(_) => Some(format!("{shown} exists: --merge or --replace")),
    }
}

fn full_path(destination: &Destination) -> PathBuf {
    let parent = PathBuf::from(std::ffi::OsStr::from_bytes(&destination.parent));
    parent.join(std::ffi::OsStr::from_bytes(&destination.name))
}

impl Target for LocalHost {
    fn inventory(&self) -> Result<Inventory, HostError> {
        Source::inventory(self)
    }

    fn plan(&self, request: &WriteRequest) -> Result<PlacePlan, HostError> {
        let path = full_path(&destination(request)?);
        let shown = podkeep_format::item::Escaped(path.as_os_str().as_bytes());
        let there = std::fs::symlink_metadata(&path).is_ok();
        let action = match (there, request.existing) {
            (false, _) => format!("create {shown}"),
            (true, Existing::Merge) => format!("merge into {shown}"),
            (true, _) => format!("replace the content of {shown}"),
        };
        Ok(PlacePlan {
            actions: vec![action],
            conflicts: in_the_way(request, &path).into_iter().collect(),
        })
    }

    fn open(&self, request: &WriteRequest) -> Result<Box<dyn TreeWriter>, HostError> {
        let lock = match &request.place {
            Place::Item { item, .. } => Some(self.lock(item)?),
            Place::Directory(_) => None,
        };
        let destination = destination(request)?;
        let parent = PathBuf::from(std::ffi::OsStr::from_bytes(&destination.parent));
        std::fs::create_dir_all(&parent).map_err(|error| {
            let kind = FsErrorKind::Other;
            FsError::new("make", &destination.parent, kind, error)
        })?;
        let tree = write::open(WriteSpec {
            object: match &request.place {
                Place::Item { item, .. } => item.to_string(),
                Place::Directory(path) => path.display().to_string(),
            },
            destination,
            root_kind: match request.file_name {
                Some(_) => RootKind::Single,
                None => RootKind::Directory,
            },
            existing: match request.existing {
                Existing::Refuse => write::Existing::Refuse,
                Existing::Merge => write::Existing::Merge,
                Existing::Replace => write::Existing::Replace,
            },
            swap: Swap::Exchange,
            chunking: request.chunking.clone(),
            threads: request.threads,
            root: request.root,
            labels: Labels::default(),
            bytes_expected: None,
        })?;
        Ok(Box::new(LockedWriter { tree, _lock: lock }))
    }
}
