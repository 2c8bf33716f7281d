//! Writing a file tree: in-root, complete before it is seen, resumable.
//!
//! A tree is staged beside its place and swapped in when all of it is there ([`staging`],
//! [`swap`]); a merge goes straight into what is there, entry by entry ([`tree`]). Nothing is
//! reached by a path of more than one name, and no link is followed ([`directory`]). What fails for
//! one entry or one attribute is a finding, grouped ([`failures`]); only a disk that is full or
//! cannot be written ends a restore, and then what is staged stays for the next run.

mod attributes;
mod directory;
mod failures;
mod file;
mod inode;
mod remove;
mod staging;
mod swap;
mod tree;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use podkeep_format::id::TreeId;
use podkeep_format::tree::Entry;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rustix::fs::{FileType, FlockOperation, IFlags, Mode, XattrFlags};
use rustix::io::Errno;

pub use self::staging::PREFIX as STAGING_PREFIX;

use self::attributes::{Rules, Target};
use self::directory::{Directories, Directory};
use self::failures::Failures;
use self::file::{Job, Progress, Unfinished};
use self::staging::{Phase, Staging, TREE};
use self::swap::Place;
use self::tree::{Made, Tree, Way, lock};
use super::{
    DirectoryNumber, FileNumber, FilePart, FsError, FsErrorKind, PresentQuery, TreeWriter,
    WriteBatch, WriteOutcome, WriteStep,
};
use crate::chunk::Chunking;
use crate::monitor::{Finding, FindingKind};

/// A piece that is asked for is no longer than this: 16 MiB, above every chunk size.
const PIECE_BYTES_MAX: u32 = 16 << 20;

/// Where a tree goes: a name in a directory that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Raw path, absolute or relative, of any length; links in it are followed.
    pub parent: Vec<u8>,
    /// One name. A link there is refused, never followed.
    pub name: Vec<u8>,
}

/// What to do with what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse a directory that is not empty, and any file.
    Refuse,
    /// The tree wins for each entry, others stay. Of a single file: the file is replaced.
    Merge,
    /// Exactly the tree; what was there is kept until success.
    Replace,
}

/// How a complete tree gets to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// One step; two renames where the file system has no exchange.
    Exchange,
    /// Away with the old, in with the new; undone by the next run when it is cut off.
    TwoRenames,
    /// The directory itself stays, its entries are exchanged. Taken by itself for mount points,
    /// btrfs subvolumes and directories with a project quota of their own. Undone by the next run when it is cut off.
    InPlace,
}

/// What the root of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    Directory,
    /// One file or other node, whose step names directory 0 as its parent. Its entry's name
    /// does not matter: it gets the destination's.
    Single,
}

/// SELinux labels. By default the place gives them, and recorded ones are left out silently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Put on the staged root before its first entry is made.
    pub root: Option<Vec<u8>>,
    /// Restore the recorded labels.
    pub keep: bool,
}

/// What to write, and how.
#[derive(Clone)]
pub struct WriteSpec {
    /// What findings are about: the item's text form.
    pub object: String,
    pub destination: Destination,
    pub root_kind: RootKind,
    pub existing: Existing,
    pub swap: Swap,
    /// Computes the ids of what is there, for [`TreeWriter::present`].
    pub chunking: Arc<Chunking>,
    /// At least 1.
    pub threads: usize,
    /// What is staged is gone on with only if it was staged for the same root.
    pub root: TreeId,
    pub labels: Labels,
    /// Bytes that the tree will need, holes not counted; a place with less room is refused at
    /// once. `None`: not known.
    pub bytes_expected: Option<u64>,
}

/// Prepares the place; changes nothing at it before [`TreeWriter::finish`] unless it is merged
/// into. An entry's extended attributes must all be inline, however large: whoever reads the
/// repository resolves them.
///
/// Errors: `NotFound` (no such parent directory), `Refused` (something is there, a link, another
/// restore to the same place), `NoSpace`.
pub fn open(spec: WriteSpec) -> Result<Box<dyn TreeWriter>, FsError> {
    let Destination { parent, name } = &spec.destination;
    let mut shown = parent.clone();
    if !shown.ends_with(b"/") {
        shown.push(b'/');
    }
    shown.extend_from_slice(name);
    if !directory::is_name(name) {
        return Err(FsError::new(
            "restore to",
            &shown,
            FsErrorKind::Refused,
            "its name is not allowed",
        ));
    }
    let parent =
        directory::open_path(parent).map_err(|errno| FsError::from_errno("open", parent, errno))?;
    let mut place = Place {
        parent,
        name: name.clone(),
        shown,
        existing: spec.existing,
        swap: spec.swap,
    };

    // What a run that was cut off left, before anything is judged by what is there.
    let staging_name = staging::staging_name(name);
    let mut beside_shown = spec.destination.parent.clone();
    beside_shown.push(b'/');
    beside_shown.extend_from_slice(&staging_name);
    let beside = Staging::find(&place.parent, &staging_name, &beside_shown)?;
    if let Some(staging) = &beside {
        staging.recover_beside(&place.parent, name)?;
    }
    let single = spec.root_kind == RootKind::Single;
    let inside_shown = [&place.shown[..], &staging_name[..]].join(&b'/');
    let mut inside = None;
    let mut there = None;
    match place.kind()? {
        None => {}
        Some(FileType::Directory) if single => return Err(place.refused("it is a directory")),
        Some(FileType::Directory) => {
            let fd = place.open()?;
            if place.must_stay(&fd) {
                place.swap = Swap::InPlace;
            }
            inside = Staging::find(&fd, &staging_name, &inside_shown)?;
            if let Some(staging) = &inside {
                staging.recover_inside(&fd)?;
            }
            if spec.existing == Existing::Refuse && !place.is_empty(&fd)? {
                return Err(place.refused("it is not empty"));
            }
            there = Some(fd);
        }
        Some(FileType::Symlink) if !single => {
            return Err(place.refused("it is a symbolic link"));
        }
        Some(_) if !single => return Err(place.refused("it is no directory")),
        Some(_) if spec.existing == Existing::Refuse => {
            return Err(place.refused("it is there already"));
        }
        Some(_) => {}
    }

    let layout = there.as_ref().map(|fd| inode::flags(fd) & inode::LAYOUT);
    let writer = match there {
        Some(fd) if spec.existing == Existing::Merge => {
            // What was staged for this place is of no use to a merge.
            for staging in [beside, inside].into_iter().flatten() {
                staging.remove()?;
            }
            open_direct(spec, place, fd)?
        }
        there => {
            let in_place = there.filter(|_| place.swap == Swap::InPlace);
            let staging = match (&in_place, inside, beside) {
                (Some(_), Some(staging), None) | (None, None, Some(staging)) => staging,
                (Some(fd), inside, beside) => {
                    if let Some(beside) = beside {
                        beside.remove()?;
                    }
                    match inside {
                        Some(staging) => staging,
                        None => Staging::make(fd, &staging_name, &inside_shown)?,
                    }
                }
                (None, inside, beside) => {
                    if let Some(inside) = inside {
                        inside.remove()?;
                    }
                    match beside {
                        Some(staging) => staging,
                        None => Staging::make(&place.parent, &staging_name, &beside_shown)?,
                    }
                }
            };
            open_staged(
                spec,
                place,
                staging,
                in_place,
                layout.unwrap_or(IFlags::empty()),
            )?
        }
    };
    Ok(Box::new(writer))
}

fn open_staged(
    spec: WriteSpec,
    place: Place,
    staging: Staging,
    in_place: Option<OwnedFd>,
    layout: IFlags,
) -> Result<Writer, FsError> {
    let single = spec.root_kind == RootKind::Single;
    let resumed = staging.resume(&spec.root, !single)?;
    let failed = |errno| staging.error("prepare", errno);
    if let Some(expected) = spec.bytes_expected
        && !resumed
    {
        let fs = rustix::fs::fstatvfs(&staging.fd).map_err(failed)?;
        let room = fs.f_bavail.saturating_mul(fs.f_frsize);
        if room < expected {
            let cause = format!("{expected} bytes are needed, {room} are free");
            // Made for nothing.
            staging.remove()?;
            let kind = FsErrorKind::NoSpace;
            return Err(FsError::new("restore to", &place.shown, kind, cause));
        }
    }
    let check_times = !attributes::keeps_nanoseconds(&staging.fd);
    let label = |fd: &OwnedFd| match &spec.labels.root {
        None => Ok(()),
        Some(label) => rustix::fs::fsetxattr(fd, "security.selinux", label, XattrFlags::empty()),
    };
    label(&staging.fd).map_err(failed)?;
    let root = if single {
        rustix::io::fcntl_dupfd_cloexec(&staging.fd, 3).map_err(failed)?
    } else {
        if !resumed {
            rustix::fs::mkdirat(&staging.fd, TREE, Mode::RWXU).map_err(failed)?;
        }
        let tree = match directory::open_directory(&staging.fd, TREE) {
            Err(Errno::ACCESS) => {
                remove::make_accessible(&staging.fd, TREE).map_err(failed)?;
                directory::open_directory(&staging.fd, TREE).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        if resumed {
            inode::unlock(&tree);
        }
        // Without copy-on-write, compressed: as whoever made the place wants its content. Where it
        // cannot be set, the content lies as it does elsewhere.
        if !layout.is_empty() {
            let _ = inode::set_flags(&tree, layout, layout);
        }
        label(&tree).map_err(failed)?;
        rustix::fs::fchmod(&tree, Mode::RWXU).map_err(failed)?;
        tree
    };
    let rules = Rules {
        keep_labels: spec.labels.keep,
        projects: inode::project(&staging.fd) == 0,
        inherited: resumed,
        check_times,
    };
    Writer::new(spec, place, Way::Staged { resumed }, root, rules).map(|writer| Writer {
        staging: Some(staging),
        in_place,
        ..writer
    })
}

fn open_direct(spec: WriteSpec, place: Place, root: OwnedFd) -> Result<Writer, FsError> {
    if inode::is_locked(&root) {
        return Err(place.refused("it is immutable or append-only"));
    }
    match rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(place.refused("another restore to the same place is running"));
        }
        Err(errno) => return Err(FsError::from_errno("lock", &place.shown, errno)),
    }
    let rules = Rules {
        keep_labels: spec.labels.keep,
        projects: inode::project(&root) == 0,
        inherited: true,
        check_times: true,
    };
    Writer::new(spec, place, Way::Direct, root, rules)
}

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

struct Writer {
    place: Place,
    root_id: TreeId,
    chunking: Arc<Chunking>,
    tree: Tree,
    root: Arc<Directory>,
    staging: Option<Staging>,
    /// The place itself, when its entries are exchanged.
    in_place: Option<OwnedFd>,
    pool: rayon::ThreadPool,
    directories: HashMap<DirectoryNumber, DirectorySlot>,
    files: HashMap<FileNumber, FileSlot>,
    directories_made: u64,
    /// The root's entry, once all its children were given.
    root_entry: Option<Box<Entry>>,
}

impl Writer {
    fn new(
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
            directories,
            failures: Failures::new(spec.object),
            rules,
            shown: place.shown.clone(),
            single: single.then(|| TREE.to_vec()),
            links: Mutex::default(),
            locked: Mutex::default(),
            prepared: Mutex::default(),
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
        entry: Box<Entry>,
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
