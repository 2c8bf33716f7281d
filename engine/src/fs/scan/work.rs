//! The workers: what they take from the queue, and how a directory is put together.
//!
//! The queue is a stack, so that the walk goes deep first and what is held in memory stays that
//! of few directories. A directory is done when nothing of it is pending: its own listing, the
//! jobs made of it, its subdirectories, and linked names whose group is not decided. Whoever
//! finishes the last of these makes its node and goes on with the parent, in a loop.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use podkeep_format::block::BlockClass;
use podkeep_format::codec::{Decoder, Encoder};
use podkeep_format::id::{ChunkKind, TreeId};
use podkeep_format::tree::{Entry, Node, TreeNode, build_directory};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::begun::BegunCopies;
use super::content::SMALL_FILE_BYTES_MAX;
use super::copy::Copies;
use super::directory::{
    Body, Contents, Directory, OpenDirectories, Opened, PushBody, open_directory, open_quietly,
};
use super::entry::{EntryRead, directory_without_tree, whiteout};
use super::glob::Globs;
use super::known::{KnownContents, Tickets};
use super::links::{Claim, GroupNumber, Links};
use super::list::Listing;
use super::queue::{Job, Left, Queue};
use super::report::Report;
use super::stat::Stat;
use super::view::View;
use crate::chunk::Chunking;
use crate::fs::attributes::FsTraits;
use crate::fs::batch::{Outbox, Stage, Stopped};
use crate::fs::bytes_outside_holes;
use crate::fs::owners::{HostUid, IdKind, Owners};
use crate::fs::states::{RecordKind, States, StatesReader, child_key};
use crate::monitor::FindingKind;

/// Entries of a directory that one job reads; larger directories are read by several workers.
const SLICE_ENTRIES: usize = 256;
/// A file of at least this size is a job of its own.
const OWN_JOB_BYTES_MIN: u64 = 4 << 20;
/// How often an entry that is replaced by another while we look at it is looked at again.
const REPLACED_MAX: u32 = 4;
/// A directory with this file, beginning with the signature, is a cache (bford.info/cachedir).
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Why an entry was not read.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is gone.
    Vanished,
    /// Another one stands under its name: look again.
    Replaced,
    /// A verb, and why.
    Unreadable(&'static str, Errno),
    Stopped,
}

impl Failure {
    /// Of a call that names an entry.
    pub fn at(action: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::STALE => Self::Vanished,
            errno => Self::Unreadable(action, errno),
        }
    }
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// What all workers of a scan share.
pub(crate) struct Shared {
    pub item: String,
    pub chunking: Arc<Chunking>,
    pub exclude: Globs,
    pub exclude_caches: bool,
    pub cross_mounts: bool,
    pub view: View,
    pub owners: Arc<Owners>,
    /// Ids beyond the map that were told of.
    pub beyond: Mutex<BTreeSet<(IdKind, HostUid)>>,
    pub states: Option<States>,
    /// Inode numbers of files that no time proves unchanged.
    pub always_read: HashSet<u64>,
    /// Of a tree that is at rest only for the time being.
    pub copies: Option<Copies>,
    pub begun: Arc<BegunCopies>,
    pub known: Option<Arc<KnownContents>>,
    pub tickets: Tickets,
    /// Of this scan.
    pub threads: usize,
    pub queue: Queue,
    pub open: OpenDirectories,
    pub links: Links,
    pub outbox: Outbox,
    pub report: Report,
    pub numbers: AtomicUsize,
    pub stopped: AtomicBool,
    pub root: Mutex<Option<TreeId>>,
}

impl Shared {
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Makes all workers end soon; nothing is finished.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.queue.stop();
        self.links.stop();
    }

    fn set_root(&self, root: TreeId) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
    }
}

pub(crate) struct Worker<'s> {
    pub shared: &'s Shared,
    pub stage: Stage,
    pub window: Vec<u8>,
    pub states: Option<StatesReader>,
}

impl<'s> Worker<'s> {
    pub fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            stage: Stage::default(),
            window: Vec::new(),
            states: shared.states.as_ref().and_then(States::reader),
        }
    }

    /// Works until the walk is over or the scan is dropped.
    pub fn run(&mut self) {
        while let Some(job) = self.shared.queue.take() {
            let done = self
                .job(job)
                .and_then(|()| match self.shared.queue.finished() {
                    Left::Jobs => Ok(()),
                    Left::PutOff => self.captured(),
                    Left::Nothing => self.end_of_walk(),
                });
            if done.is_err() {
                self.shared.stop();
                return;
            }
        }
    }

    fn job(&mut self, job: Job) -> Result<(), Stopped> {
        match job {
            Job::Directory(directory) => {
                match self.enter(&directory) {
                    Ok(()) => {}
                    Err(Failure::Stopped) => return Err(Stopped),
                    Err(Failure::Vanished) => self.vanished(&directory, b""),
                    Err(Failure::Replaced) => self.no_directory(&directory)?,
                    Err(Failure::Unreadable(action, errno)) => {
                        self.unreadable(directory.path_of(b""), action, errno);
                    }
                }
                self.settle(directory)
            }
            Job::Slice {
                directory,
                fd,
                listing,
                range,
            } => {
                for index in range {
                    self.entry(&directory, &fd, listing.entry(index).0, false)?;
                }
                self.settle(directory)
            }
            Job::Entry {
                directory,
                fd,
                name,
            } => {
                self.entry(&directory, &fd, &name, true)?;
                self.settle(directory)
            }
            Job::Copied {
                directory,
                name,
                copy,
            } => {
                match self.read_copy(*copy) {
                    Ok(read) => self.keep_entry(&directory, &name, read),
                    Err(Failure::Stopped) => return Err(Stopped),
                    Err(Failure::Unreadable(action, errno)) => {
                        self.unreadable(directory.path_of(&name), action, errno);
                    }
                    Err(Failure::Vanished | Failure::Replaced) => self.vanished(&directory, &name),
                }
                self.settle(directory)
            }
            Job::RootFile { parent, name } => self.root_file(&parent, &name),
        }
    }

    /// Nothing of the tree itself is left to be looked at.
    fn captured(&mut self) -> Result<(), Stopped> {
        self.hand_over()?;
        self.shared.outbox.captured()?;
        self.shared.queue.take_up();
        Ok(())
    }

    /// What was listed as a directory is none any more.
    fn no_directory(&mut self, directory: &Arc<Directory>) -> Result<(), Stopped> {
        let parent = directory.parent.as_ref();
        match parent.and_then(|parent| Some((parent, self.shared.open.get(parent).ok()?))) {
            Some((parent, fd)) => self.entry(parent, &fd, &directory.name, true),
            None => {
                self.vanished(directory, b"");
                Ok(())
            }
        }
    }

    fn end_of_walk(&mut self) -> Result<(), Stopped> {
        for directory in self.shared.links.decide_rest() {
            self.settle(directory)?;
        }
        self.hand_over()?;
        if let Some(states) = &self.shared.states {
            states.finish();
        }
        self.shared
            .report
            .sum_up(&self.shared.outbox, &self.shared.item);
        self.shared.outbox.close()?;
        self.shared.queue.stop();
        Ok(())
    }

    /// Gives what is staged to the consumer; waits while the consumer is behind.
    pub fn hand_over(&mut self) -> Result<(), Stopped> {
        self.shared.outbox.take(&mut self.stage)
    }

    /// Opens and lists a directory, reads what is in it or makes jobs of it.
    fn enter(&mut self, directory: &Arc<Directory>) -> Result<(), Failure> {
        let shared = self.shared;
        let (fd, traits) = match &directory.parent {
            None => {
                let fd = shared
                    .open
                    .get(directory)
                    .map_err(|e| Failure::Unreadable("open", e))?;
                let traits = FsTraits::of(&fd).map_err(|e| Failure::Unreadable("open", e))?;
                (fd, traits)
            }
            Some(parent) => match self.open_below(directory, parent)? {
                Some(opened) => opened,
                None => return Ok(()),
            },
        };
        let (mut listing, stat, failure) =
            Listing::of(&fd).map_err(|e| Failure::Unreadable("list", e))?;
        if let Some(errno) = failure {
            self.unreadable(directory.path_of(b""), "list", errno);
        }
        let _ = directory.opened.set(Opened {
            identity: stat.identity(),
            traits,
        });
        self.find_row(directory, traits);
        if !shared.view.only_passes(|| directory.path_of(b"")) {
            self.note_owner(&stat, || directory.path_of(b""));
        }
        self.own_attributes(directory, &fd, &stat, traits)?;

        self.keep_removed(directory);
        let cache = shared.exclude_caches && is_cache(&fd, &listing);
        let directories = listing.arrange(|name, is_directory| {
            if cache {
                return name == CACHE_TAG;
            }
            if shared.exclude.is_empty() && shared.view.takes_all() {
                return true;
            }
            let path = directory.path_of(name);
            shared.view.takes(&path) && !shared.exclude.matches(&path, is_directory)
        });
        let others = listing.len() - directories;
        if directories > 0 {
            shared.open.keep(directory, &fd);
        }
        directory.pending.fetch_add(directories, Ordering::AcqRel);
        shared
            .queue
            .push((others..listing.len()).rev().map(|index| {
                let name = listing.entry(index).0.to_vec();
                Job::Directory(self.child(directory, name))
            }));
        if others <= SLICE_ENTRIES {
            for index in 0..others {
                self.entry(directory, &fd, listing.entry(index).0, false)?;
            }
            return Ok(());
        }
        let slices = others.div_ceil(SLICE_ENTRIES);
        let listing = Arc::new(listing);
        directory.pending.fetch_add(slices, Ordering::AcqRel);
        shared.queue.push((0..slices).rev().map(|slice| Job::Slice {
            directory: Arc::clone(directory),
            fd: Arc::clone(&fd),
            listing: Arc::clone(&listing),
            range: slice * SLICE_ENTRIES..others.min((slice + 1) * SLICE_ENTRIES),
        }));
        Ok(())
    }

    /// Keeps a whiteout for each name that was removed from a directory.
    fn keep_removed(&mut self, directory: &Directory) {
        let shared = self.shared;
        if shared.view.takes_all() {
            return;
        }
        for name in shared.view.removed_from(&directory.path_of(b"")) {
            let mut entry = whiteout();
            self.count(&entry);
            entry.name = name.to_vec();
            let mut encoded = Encoder::new();
            entry.encode(&mut encoded);
            let body = PushBody::Entry(encoded.as_slice());
            directory.contents().push(name, &[], body);
        }
    }

    fn child(&self, parent: &Arc<Directory>, name: Vec<u8>) -> Arc<Directory> {
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let key = child_key(&parent.key, &name);
        Arc::new(Directory::new(Some(Arc::clone(parent)), name, number, key))
    }

    /// Opens a subdirectory. `None`: only the directory itself is kept.
    fn open_below(
        &mut self,
        directory: &Arc<Directory>,
        parent: &Arc<Directory>,
    ) -> Result<Option<(Arc<OwnedFd>, FsTraits)>, Failure> {
        let shared = self.shared;
        let above = parent.opened.get().ok_or(Failure::Vanished)?;
        let parent_fd = shared
            .open
            .get(parent)
            .map_err(|e| Failure::at("open", e))?;
        // Asked by name first: opening would trigger an automount.
        let stat = Stat::at(&parent_fd, &directory.name).map_err(|e| Failure::at("stat", e))?;
        if stat.kind != FileType::Directory {
            return Err(Failure::Replaced);
        }
        if stat.is_mount(above.identity.0) && !shared.cross_mounts {
            self.skipped(directory.path_of(b""), "a file system is mounted there");
            directory.contents().own = Some(directory_without_tree(&stat, &shared.owners));
            return Ok(None);
        }
        let fd = open_directory(&parent_fd, &directory.name).map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => Failure::Replaced,
            errno => Failure::at("open", errno),
        })?;
        let mut traits = above.traits;
        if stat.dev != above.identity.0 {
            traits = FsTraits::of(&fd).map_err(|e| Failure::Unreadable("open", e))?;
            if traits.pseudo {
                self.skipped(directory.path_of(b""), "it shows the kernel's own state");
                directory.contents().own = Some(directory_without_tree(&stat, &shared.owners));
                return Ok(None);
            }
        }
        Ok(Some((Arc::new(fd), traits)))
    }

    /// Reads one entry of a directory. `own_job`: it will not be put off again.
    fn entry(
        &mut self,
        directory: &Arc<Directory>,
        fd: &Arc<OwnedFd>,
        name: &[u8],
        own_job: bool,
    ) -> Result<(), Stopped> {
        if self.shared.is_stopped() {
            return Err(Stopped);
        }
        for _ in 0..REPLACED_MAX {
            match self.try_entry(directory, fd, name, own_job) {
                Ok(()) => {
                    if self.stage.is_large() {
                        self.hand_over()?;
                    }
                    return Ok(());
                }
                Err(Failure::Replaced) => continue,
                Err(Failure::Vanished) => break,
                Err(Failure::Unreadable(action, errno)) => {
                    self.unreadable(directory.path_of(name), action, errno);
                    return Ok(());
                }
                Err(Failure::Stopped) => return Err(Stopped),
            }
        }
        self.vanished(directory, name);
        Ok(())
    }

    fn try_entry(
        &mut self,
        directory: &Arc<Directory>,
        fd: &Arc<OwnedFd>,
        name: &[u8],
        own_job: bool,
    ) -> Result<(), Failure> {
        let shared = self.shared;
        let opened = directory.opened.get().ok_or(Failure::Vanished)?;
        let stat = Stat::at(fd, name).map_err(|e| Failure::at("stat", e))?;
        if stat.kind == FileType::Directory {
            // The listing did not say so, or it has become one.
            directory.pending.fetch_add(1, Ordering::AcqRel);
            shared.open.keep(directory, fd);
            let child = self.child(directory, name.to_vec());
            shared.queue.push([Job::Directory(child)]);
            return Ok(());
        }
        if stat.is_mount(opened.identity.0) && !shared.cross_mounts {
            self.skipped(directory.path_of(name), "another file is mounted there");
            return Ok(());
        }
        // Files that lie apart were chosen by their owner: one that is another's by now is not read.
        if shared.view.is_of_single_files() && self.is_beyond(&stat) {
            self.skipped(directory.path_of(name), "it is not the user's any more");
            return Ok(());
        }
        self.note_owner(&stat, || directory.path_of(name));
        if self.reuse(directory, name, &stat)? {
            return Ok(());
        }
        if stat.kind == FileType::RegularFile && stat.size >= OWN_JOB_BYTES_MIN && !own_job {
            directory.pending.fetch_add(1, Ordering::AcqRel);
            shared.queue.push([Job::Entry {
                directory: Arc::clone(directory),
                fd: Arc::clone(fd),
                name: name.to_vec(),
            }]);
            return Ok(());
        }
        // All whiteouts of a mount may be names of one inode, which says nothing.
        if stat.nlink > 1 && !shared.view.is_whiteout(&stat) {
            return self.linked_entry(directory, fd, name, &stat, opened.traits);
        }
        if let Some(copy) = self.copy(fd, name, &stat, opened.traits)? {
            directory.pending.fetch_add(1, Ordering::AcqRel);
            shared.queue.put_off(Job::Copied {
                directory: Arc::clone(directory),
                name: name.to_vec(),
                copy: Box::new(copy),
            });
            return Ok(());
        }
        let mark = self.stage.mark();
        match self.read_entry(fd, name, &stat, opened.traits) {
            Ok(read) => {
                self.keep_entry(directory, name, read);
                Ok(())
            }
            Err(failure) => {
                self.stage.rollback(mark);
                Err(failure)
            }
        }
    }

    fn keep_entry(&mut self, directory: &Directory, name: &[u8], mut read: EntryRead) {
        if read.unstable {
            self.changed(directory.path_of(name));
        }
        self.count(&read.entry);
        read.entry.name = name.to_vec();
        let mut encoded = Encoder::new();
        read.entry.encode(&mut encoded);
        let fingerprint = self.fingerprint(directory, &read);
        if fingerprint.is_empty() && read.stat.size >= SMALL_FILE_BYTES_MAX {
            self.shared.report.young(|| directory.path_of(name));
        }
        directory
            .contents()
            .push(name, &fingerprint, PushBody::Entry(encoded.as_slice()));
    }

    fn linked_entry(
        &mut self,
        directory: &Arc<Directory>,
        fd: &Arc<OwnedFd>,
        name: &[u8],
        stat: &Stat,
        traits: FsTraits,
    ) -> Result<(), Failure> {
        let shared = self.shared;
        match shared.links.claim(stat)? {
            Claim::Known(group) => {
                self.count_name();
                // Its first name tells whether it is as the last run saw it.
                self.join_group(directory, name, group, stat)
            }
            Claim::Read(group) => {
                let mark = self.stage.mark();
                match self.read_entry(fd, name, stat, traits) {
                    Ok(read) => {
                        if read.unstable {
                            self.changed(directory.path_of(name));
                        }
                        self.count(&read.entry);
                        let fingerprint = self.fingerprint(directory, &read);
                        let mut encoded = Encoder::new();
                        read.entry.encode(&mut encoded);
                        // A directory with another name may be finished before this one.
                        self.hand_over()?;
                        shared.links.fill(group, encoded.finish(), fingerprint);
                        self.join_group(directory, name, group, &read.stat)
                    }
                    Err(failure) => {
                        self.stage.rollback(mark);
                        shared.links.fail(group);
                        Err(failure)
                    }
                }
            }
        }
    }

    pub fn join_group(
        &mut self,
        directory: &Arc<Directory>,
        name: &[u8],
        group: GroupNumber,
        stat: &Stat,
    ) -> Result<(), Failure> {
        let shared = self.shared;
        // What was read may be a later state than this name was listed with.
        let fingerprint = shared.links.fingerprint(group);
        if !self.is_recorded(directory, name, RecordKind::Linked, stat, &fingerprint) {
            directory.changed.store(true, Ordering::Relaxed);
        }
        directory
            .contents()
            .push(name, &fingerprint, PushBody::Linked(group));
        directory.pending.fetch_add(1, Ordering::AcqRel);
        let path = directory.path_of(name);
        // Across mounts one directory may be seen twice: more names than links.
        let early = !shared.cross_mounts;
        for decided in shared.links.join(group, path, directory, early) {
            self.settle(decided)?;
        }
        Ok(())
    }

    fn count(&mut self, entry: &Entry) {
        let size = match &entry.node {
            Node::File { size, .. } => *size,
            _ => 0,
        };
        self.count_name();
        self.count_entry(size, || bytes_outside_holes(&entry.node));
    }

    pub fn count_name(&mut self) {
        self.stage.counts.files += 1;
        self.shared.report.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Once for each inode.
    pub fn count_bytes(&mut self, size: u64, outside_holes: u64) {
        self.stage.counts.bytes_logical += size;
        let report = &self.shared.report;
        report.bytes_logical.fetch_add(size, Ordering::Relaxed);
        report
            .bytes_allocated
            .fetch_add(outside_holes, Ordering::Relaxed);
    }

    /// One pending thing of the directory is done; makes its node if it was the last.
    fn settle(&mut self, directory: Arc<Directory>) -> Result<(), Stopped> {
        let mut directory = directory;
        loop {
            // Others may make the directory's node now: what it refers to must be on its way.
            self.hand_over()?;
            if directory.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return Ok(());
            }
            let entry = self.build(&directory);
            self.shared.open.forget(&directory);
            match (&directory.parent, entry) {
                (None, Some(entry)) => {
                    self.root(entry);
                    return Ok(());
                }
                (None, None) => return Ok(()),
                (Some(parent), entry) => {
                    if let Some(entry) = entry {
                        let mut encoded = Encoder::new();
                        entry.encode(&mut encoded);
                        parent.contents().push(
                            &directory.name,
                            &[],
                            PushBody::Directory(encoded.as_slice()),
                        );
                    }
                    let parent = Arc::clone(parent);
                    directory = parent;
                }
            }
        }
    }

    /// The directory's entry in its parent; `None` when it is left out.
    fn build(&mut self, directory: &Directory) -> Option<Entry> {
        let shared = self.shared;
        let mut contents = std::mem::take(&mut *directory.contents());
        let mut own = contents.own.take()?;
        own.mtime = shared
            .view
            .directory_time(|| directory.path_of(b""), own.mtime);
        self.resolve_links(&mut contents);
        let Contents { bytes, slots, .. } = &mut contents;
        slots.sort_unstable_by(|a, b| bytes[a.name.clone()].cmp(&bytes[b.name.clone()]));
        slots.dedup_by(|b, a| bytes[a.name.clone()] == bytes[b.name.clone()]);
        let entries = slots.iter().filter_map(|slot| match &slot.body {
            Body::Entry(encoded) | Body::Directory(encoded) | Body::Linked(_, Some(encoded)) => {
                Some((&bytes[slot.name.clone()], &bytes[encoded.clone()]))
            }
            Body::Linked(_, None) => None,
        });
        let stage = &mut self.stage;
        let tree = build_directory(&shared.chunking.ids, entries, &mut |id, node| {
            stage.add(id, ChunkKind::Tree, BlockClass::Meta, &node);
        });
        shared.report.directories.fetch_add(1, Ordering::Relaxed);
        self.record(directory, &contents, &own);
        own.name.clone_from(&directory.name);
        own.node = Node::Directory { tree };
        Some(own)
    }

    /// Replaces linked names by whole entries; all groups are decided.
    fn resolve_links(&self, contents: &mut Contents) {
        let shared = self.shared;
        for index in 0..contents.slots.len() {
            let Body::Linked(group, _) = contents.slots[index].body else {
                continue;
            };
            let Some((body, link)) = shared
                .links
                .entry(group, &shared.item, &shared.chunking.ids)
            else {
                continue;
            };
            // Our own encoding, without a name as a root's: it decodes.
            let Ok(mut entry) = Entry::decode(&mut Decoder::new("linked entry", &body), true)
            else {
                continue;
            };
            entry.name = contents.bytes[contents.slots[index].name.clone()].to_vec();
            entry.link = link;
            let start = contents.bytes.len();
            let mut encoded = Encoder::from_vec(std::mem::take(&mut contents.bytes));
            entry.encode(&mut encoded);
            contents.bytes = encoded.finish();
            contents.slots[index].body = Body::Linked(group, Some(start..contents.bytes.len()));
        }
    }

    fn root(&mut self, mut entry: Entry) {
        entry.name = Vec::new();
        let node = TreeNode::Root(Box::new(entry)).encode();
        let id = self.shared.chunking.ids.chunk_id(ChunkKind::Tree, &node);
        self.stage.add(id, ChunkKind::Tree, BlockClass::Meta, &node);
        self.shared.set_root(TreeId(id.0));
    }

    fn root_file(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Stopped> {
        let read = (|| {
            let traits = FsTraits::of(parent).map_err(|e| Failure::Unreadable("open", e))?;
            let stat = Stat::at(parent, name).map_err(|e| Failure::at("stat", e))?;
            self.note_owner(&stat, Vec::new);
            self.read_entry(parent, name, &stat, traits)
        })();
        match read {
            Ok(read) => {
                if read.unstable {
                    self.changed(Vec::new());
                }
                self.count(&read.entry);
                self.root(read.entry);
                Ok(())
            }
            Err(Failure::Stopped) => Err(Stopped),
            Err(Failure::Unreadable(action, errno)) => {
                self.unreadable(Vec::new(), action, errno);
                Ok(())
            }
            Err(Failure::Vanished | Failure::Replaced) => {
                self.unreadable(Vec::new(), "find", Errno::NOENT);
                Ok(())
            }
        }
    }

    fn vanished(&self, directory: &Directory, name: &[u8]) {
        self.tell(
            FindingKind::Vanished,
            directory.path_of(name),
            String::new(),
        );
    }

    fn unreadable(&self, path: Vec<u8>, action: &str, errno: Errno) {
        let cause = std::io::Error::from(errno);
        self.tell(
            FindingKind::Unreadable,
            path,
            format!("cannot {action} it: {cause}"),
        );
    }

    fn changed(&self, path: Vec<u8>) {
        self.tell(
            FindingKind::Changed,
            path,
            "it changed while it was read".to_owned(),
        );
    }

    fn skipped(&self, path: Vec<u8>, cause: &str) {
        self.tell(FindingKind::Skipped, path, format!("skipped: {cause}"));
    }
}

fn is_cache(fd: &OwnedFd, listing: &Listing) -> bool {
    if !(0..listing.len()).any(|index| listing.entry(index) == (CACHE_TAG, false)) {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(tag) = open_quietly(fd, CACHE_TAG, flags) else {
        return false;
    };
    let mut head = [0; CACHE_SIGNATURE.len()];
    let regular = Stat::of(&tag).is_ok_and(|stat| stat.kind == FileType::RegularFile);
    regular && rustix::io::pread(&tag, &mut head, 0) == Ok(head.len()) && head == CACHE_SIGNATURE
}
