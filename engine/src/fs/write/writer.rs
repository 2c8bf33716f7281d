//! One tree that is being written, by the steps of its batches.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use podkeep_format::id::TreeId;
use podkeep_format::tree::Entry;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rustix::fs::IFlags;

use super::attributes::{Rules, Target};
use super::directory::{Directories, Directory};
use super::failures::{self, Failures};
use super::file::{Job, Progress, Unfinished};
use super::inode;
use super::staging::{Phase, Staging, TREE};
use super::swap::Place;
use super::tree::{Made, Tree, Way, lock};
use super::{Existing, RootKind, WriteSpec, laid_over};
use crate::chunk::Chunking;
use crate::fs::{
    DirectoryNumber, FileNumber, FilePart, FsError, FsErrorKind, PresentQuery, TreeWriter,
    WriteBatch, WriteOutcome, WriteStep,
};
use crate::monitor::{Finding, FindingKind};

enum DirectorySlot {
    Open {
        directory: Arc<Directory>,
        entry: Box<Entry>,
    },
    /// It could not be made: nor is anything below it. A finding says so once.
    Skipped,
}

enum FileSlot {
    Unfinished(Unfinished),
    /// It failed or was dropped: further parts are left out.
    Skipped,
}

pub(super) struct Writer {
    place: Place,
    root_id: TreeId,
    chunking: Arc<Chunking>,
    tree: Tree,
    root: Arc<Directory>,
    pub staging: Option<Staging>,
    /// The place itself, when its entries are exchanged.
    pub in_place: Option<OwnedFd>,
    pool: rayon::ThreadPool,
    directories: HashMap<DirectoryNumber, DirectorySlot>,
    files: HashMap<FileNumber, FileSlot>,
    directories_made: u64,
    /// The root's entry, once all its children were given.
    root_entry: Option<Box<Entry>>,
}

impl Writer {
    pub fn new(
        spec: WriteSpec,
        place: Place,
        way: Way,
        root: OwnedFd,
        rules: Rules,
    ) -> Result<Self, FsError> {
        let failed =
            |cause: String| FsError::new("restore to", &place.shown, FsErrorKind::Other, cause);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(spec.threads.max(1))
            .thread_name(|index| format!("write-{index}"))
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let fresh = way == Way::Staged { resumed: false };
        let (directories, root) =
            Directories::new(root, fresh).map_err(|errno| failed(failures::describe(errno)))?;
        let single = spec.root_kind == RootKind::Single;
        let tree = Tree {
            way,
            laid_over: way == Way::Direct && spec.existing == Existing::LaidOver,
            directories,
            failures: Failures::new(spec.object),
            rules,
            shown: place.shown.clone(),
            single: single.then(|| TREE.to_vec()),
            links: Mutex::default(),
            locked: Mutex::default(),
            parts: Mutex::default(),
            bytes_written: AtomicU64::new(0),
            files: AtomicU64::new(0),
        };
        Ok(Self {
            place,
            root_id: spec.root,
            chunking: spec.chunking,
            tree,
            root,
            staging: None,
            in_place: None,
            pool,
            directories: HashMap::new(),
            files: HashMap::new(),
            directories_made: 0,
            root_entry: None,
        })
    }

    fn is_single(&self) -> bool {
        self.tree.single.is_some()
    }

    fn misused(&self, cause: impl std::fmt::Display) -> FsError {
        FsError::new("write", &self.place.shown, FsErrorKind::Other, cause)
    }

    /// `None`: nothing below it is written.
    fn parent(&self, number: DirectoryNumber) -> Result<Option<&Arc<Directory>>, FsError> {
        if self.is_single() && number == 0 {
            return Ok(Some(&self.root));
        }
        match self.directories.get(&number) {
            Some(DirectorySlot::Open { directory, .. }) => Ok(Some(directory)),
            Some(DirectorySlot::Skipped) => Ok(None),
            None => Err(self.misused(format_args!("directory {number} was not given"))),
        }
    }

    fn directory(
        &mut self,
        number: DirectoryNumber,
        parent: DirectoryNumber,
        mut entry: Box<Entry>,
    ) -> Result<(), FsError> {
        if self.is_single() || self.directories.contains_key(&number) {
            return Err(self.misused(format_args!("directory {number} was given twice")));
        }
        if number == 0 {
            let directory = Arc::clone(&self.root);
            let root = Arc::clone(self.tree.directories.root());
            self.tree
                .prepare(&root, &entry, directory.fresh)
                .map_err(self.tree.full(Vec::new()))?;
            self.directories_made += 1;
            self.directories
                .insert(0, DirectorySlot::Open { directory, entry });
            return Ok(());
        }
        let made = match self.parent(parent)? {
            None => Made::Not,
            Some(parent) => self.tree.make_directory(parent, &entry)?,
        };
        if self.tree.laid_over {
            laid_over::without_mark(&mut entry);
        }
        let slot = match made {
            Made::Done(directory) => {
                self.directories_made += 1;
                DirectorySlot::Open { directory, entry }
            }
            Made::Not => DirectorySlot::Skipped,
        };
        self.directories.insert(number, slot);
        Ok(())
    }

    fn directory_end(&mut self, number: DirectoryNumber) -> Result<(), FsError> {
        match self.directories.remove(&number) {
            None => Err(self.misused(format_args!("directory {number} was not given"))),
            Some(DirectorySlot::Skipped) => Ok(()),
            Some(DirectorySlot::Open { directory, entry }) => {
                self.tree.end_directory(&directory, &entry)?;
                if number == 0 {
                    self.root_entry = Some(entry);
                }
                Ok(())
            }
        }
    }

    fn write_files(&mut self, batch: Batch, buffers: &[Arc<Vec<u8>>]) -> Result<(), FsError> {
        let mut jobs: Vec<(FileNumber, Job<'_>)> = Vec::with_capacity(batch.files.len());
        let mut position: HashMap<FileNumber, usize> = HashMap::new();
        for file in &batch.files {
            if let Some(at) = position.get(&file.number) {
                let job = &mut jobs[*at].1;
                job.parts.extend(&file.parts);
                job.last |= file.last;
                continue;
            }
            let unfinished = match self.files.remove(&file.number) {
                Some(FileSlot::Skipped) => {
                    if !file.last {
                        self.files.insert(file.number, FileSlot::Skipped);
                    }
                    continue;
                }
                Some(FileSlot::Unfinished(unfinished)) => Some(unfinished),
                None => None,
            };
            let Some(directory) = self.parent(file.parent)? else {
                continue;
            };
            position.insert(file.number, jobs.len());
            let job = Job {
                directory: Arc::clone(directory),
                entry: Arc::clone(&file.entry),
                parts: file.parts.iter().collect(),
                last: file.last,
                unfinished,
            };
            jobs.push((file.number, job));
        }
        let tree = &self.tree;
        let results: Vec<_> = self.pool.install(|| {
            jobs.into_par_iter()
                .map(|(number, job)| {
                    let last = job.last;
                    (number, last, tree.write_file(job, buffers))
                })
                .collect()
        });
        for (number, last, result) in results {
            match result? {
                Progress::Unfinished(unfinished) => {
                    let slot = FileSlot::Unfinished(unfinished);
                    self.files.insert(number, slot);
                }
                Progress::Failed if !last => {
                    self.files.insert(number, FileSlot::Skipped);
                }
                Progress::Failed | Progress::Finished => {}
            }
        }
        for (number, parent, entry) in batch.drops {
            match self.files.insert(number, FileSlot::Skipped) {
                Some(FileSlot::Unfinished(unfinished)) => self.tree.drop_file(&unfinished)?,
                Some(FileSlot::Skipped) => {}
                None => {
                    if let Some(directory) = self.parent(parent)? {
                        self.tree.drop_leftover(directory, &entry)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything was given: else what stands there would be taken for complete.
    fn check_complete(&self) -> Result<(), FsError> {
        let open = self
            .files
            .values()
            .filter(|slot| matches!(slot, FileSlot::Unfinished(_)))
            .count();
        if open > 0 {
            return Err(self.misused(format_args!("{open} files were not completed")));
        }
        if !self.is_single() && (self.root_entry.is_none() || !self.directories.is_empty()) {
            return Err(self.misused("not all directories were completed"));
        }
        Ok(())
    }

    /// What may be done to the root only when it is in its place.
    fn lock_root(&self) -> Result<(), FsError> {
        let Some(entry) = &self.root_entry else {
            return Ok(());
        };
        let flags = IFlags::from_bits_retain(entry.inode_flags) & inode::LOCKS;
        if flags.is_empty() {
            return Ok(());
        }
        let root = self.tree.directories.root();
        if let Err((_, errno)) = inode::set_flags(&**root, flags, flags) {
            let what = "make it immutable or append-only";
            self.tree.failures.attribute(what, errno, Vec::new());
        }
        rustix::fs::fsync(&**root).map_err(|errno| self.tree.error("sync", b"", errno))
    }

    fn set_root_attributes(&self) -> Result<(), FsError> {
        let Some(entry) = &self.root_entry else {
            return Ok(());
        };
        let root = self.tree.directories.root();
        let stat =
            rustix::fs::fstat(&**root).map_err(|errno| self.tree.error("read", b"", errno))?;
        self.tree
            .rules
            .apply(
                &Target::Open(root.as_fd()),
                &stat,
                entry,
                &self.tree.failures,
                &Vec::new,
            )
            .map_err(self.tree.full(Vec::new()))
    }

    fn set_root_mtime(&self) -> Result<(), FsError> {
        let Some(entry) = &self.root_entry else {
            return Ok(());
        };
        let root = self.tree.directories.root();
        let failed = |errno| self.tree.error("set the time of", b"", errno);
        let stat = rustix::fs::fstat(&**root).map_err(failed)?;
        if (stat.st_mtime, stat.st_mtime_nsec as u32) == (entry.mtime.secs, entry.mtime.nanos) {
            return Ok(());
        }
        Target::Open(root.as_fd())
            .utimens(entry.mtime)
            .and_then(|()| rustix::fs::fsync(&**root))
            .map_err(failed)
    }

    fn sync(&self) -> Result<(), FsError> {
        rustix::fs::syncfs(&**self.tree.directories.root())
            .map_err(|errno| self.tree.error("sync", b"", errno))
    }

    fn remove_staging(&self, staging: Staging) {
        if let Err(error) = staging.remove() {
            self.tree.failures.add(
                FindingKind::Skipped,
                "remove the old content",
                error.to_string(),
                Vec::new(),
            );
        }
    }
}

/// The steps of a batch, sorted by when they are done.
#[derive(Default)]
struct Batch {
    directories: Vec<(DirectoryNumber, DirectoryNumber, Box<Entry>)>,
    /// Names that go, and what they become.
    removals: Vec<(DirectoryNumber, Vec<u8>, Option<Vec<u8>>)>,
    files: Vec<FileStep>,
    drops: Vec<(FileNumber, DirectoryNumber, Arc<Entry>)>,
    /// Nodes, and (`true`) further names.
    others: Vec<(DirectoryNumber, Box<Entry>, bool)>,
    ends: Vec<DirectoryNumber>,
}

struct FileStep {
    number: FileNumber,
    parent: DirectoryNumber,
    entry: Arc<Entry>,
    parts: Vec<FilePart>,
    last: bool,
}

impl Batch {
    fn sort(steps: Vec<WriteStep>) -> Self {
        let mut batch = Self::default();
        for step in steps {
            match step {
                WriteStep::Directory {
                    number,
                    parent,
                    entry,
                } => batch.directories.push((number, parent, entry)),
                WriteStep::Remove { parent, name } => batch.removals.push((parent, name, None)),
                WriteStep::Move { parent, from, name } => {
                    batch.removals.push((parent, from, Some(name)))
                }
                WriteStep::File {
                    number,
                    parent,
                    entry,
                    parts,
                    last,
                } => batch.files.push(FileStep {
                    number,
                    parent,
                    entry,
                    parts,
                    last,
                }),
                WriteStep::FileDrop {
                    number,
                    parent,
                    entry,
                } => batch.drops.push((number, parent, entry)),
                WriteStep::Node { parent, entry } => batch.others.push((parent, entry, false)),
                WriteStep::Link { parent, entry } => batch.others.push((parent, entry, true)),
                WriteStep::DirectoryEnd { number } => batch.ends.push(number),
            }
        }
        batch
    }
}

impl TreeWriter for Writer {
    fn may_hold(&self) -> bool {
        self.tree.may_hold_others(&self.root)
    }

    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        let mut work = Vec::with_capacity(queries.len());
        for query in queries {
            work.push((self.parent(query.parent)?, query));
        }
        let (tree, chunking) = (&self.tree, &self.chunking);
        self.pool.install(|| {
            work.into_par_iter()
                .map(|(directory, query)| match directory {
                    Some(directory) => tree.present(chunking, directory, query),
                    None => Ok(vec![false; query.pieces.len()]),
                })
                .collect()
        })
    }

    fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        let WriteBatch { steps, buffers } = batch;
        let mut batch = Batch::sort(steps);
        for (number, parent, entry) in std::mem::take(&mut batch.directories) {
            self.directory(number, parent, entry)?;
        }
        for (parent, name, new) in std::mem::take(&mut batch.removals) {
            if let Some(parent) = self.parent(parent)? {
                match new {
                    None => self.tree.remove(parent, &name)?,
                    Some(new) => self.tree.rename(parent, &name, &new)?,
                }
            }
        }
        let others = std::mem::take(&mut batch.others);
        let ends = std::mem::take(&mut batch.ends);
        self.write_files(batch, &buffers)?;
        for (parent, entry, is_link) in others {
            let Some(parent) = self.parent(parent)? else {
                continue;
            };
            let made = if is_link {
                self.tree.make_link(parent, &entry)?
            } else {
                self.tree.make_node(parent, &entry)?
            };
            if made {
                self.tree.files.fetch_add(1, Ordering::Relaxed);
            }
        }
        for number in ends {
            self.directory_end(number)?;
        }
        // Grouped over the whole tree, and told at its end.
        Ok(Vec::new())
    }

    fn finish(mut self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        self.check_complete()?;
        let root_id = self.root_id.to_hex();
        match (self.staging.take(), self.in_place.take()) {
            (None, _) => {
                self.tree.set_locks();
                self.lock_root()?;
                self.sync()?;
            }
            (Some(staging), None) => {
                // A single file may be locked only where it is not renamed any more.
                if !self.is_single() {
                    self.tree.set_locks();
                }
                self.sync()?;
                self.place.put_beside(&staging, &root_id)?;
                if self.is_single() {
                    self.lock_single()?;
                }
                // xfs changes the time of a directory that it exchanges.
                self.set_root_mtime()?;
                self.lock_root()?;
                self.remove_staging(staging);
            }
            (Some(staging), Some(place)) => {
                self.sync()?;
                self.place.put_inside(&staging, &root_id, &place)?;
                self.tree.directories.set_root(place);
                self.tree.set_locks();
                self.set_root_attributes()?;
                self.sync()?;
                staging.set_state(&root_id, Phase::Done)?;
                self.remove_staging(staging);
                // Removing the staging changed the time.
                self.set_root_mtime()?;
                self.lock_root()?;
            }
        }
        let outcome = WriteOutcome {
            files: self.tree.files.load(Ordering::Relaxed),
            directories: self.directories_made,
            bytes_written: self.tree.bytes_written.load(Ordering::Relaxed),
        };
        Ok((outcome, self.tree.failures.take()))
    }

    fn discard(mut self: Box<Self>) -> Result<(), FsError> {
        match self.staging.take() {
            Some(staging) => staging.remove(),
            None => Ok(()),
        }
    }
}

impl Writer {
    /// Locks a single file in its place.
    fn lock_single(&mut self) -> Result<(), FsError> {
        let parent = rustix::io::fcntl_dupfd_cloexec(&self.place.parent, 3)
            .map_err(|errno| self.tree.error("open", b"", errno))?;
        self.tree.directories.set_root(parent);
        for locked in lock(&self.tree.locked).iter_mut() {
            locked.rename(&self.place.name);
        }
        self.tree.set_locks();
        Ok(())
    }
}
