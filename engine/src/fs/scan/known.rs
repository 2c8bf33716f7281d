//! Large files that were read before: how they were cut, so that a part that changed is found without
//! running the chunker over all of it, and by several threads at once.
//!
//! What is known is never the truth: each piece is read and its id computed, so that only what is
//! there goes into the tree. But the bytes of a piece that is found again are not handed over: that
//! stands on the snapshot for which it was recorded, as file states do.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkKind, SnapshotId};
use podkeep_format::tree::{ContentBuilder, Piece};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};

use super::content::{FileContent, Holes, next_data};
use super::stat::Stat;
use super::work::{Failure, Worker};
use crate::chunk::known::{ContentAt, Joining, KnownPieces, Part, cut_part};

/// Pieces of all files: 4 million are 128 GiB of files, and take 192 MiB.
const PIECES_MAX: usize = 4 << 20;
/// What one thread looks through at a time.
const PART_BYTES: u64 = 8 << 20;
/// Threads that cut one file: some read as fast as memory is, and each reader of the scan may have them.
const CUTTERS_MAX: usize = 8;
/// Extents of a file that are kept in memory; one with more is read from its beginning to its end.
const EXTENTS_MAX: usize = 64 << 10;
/// What is read at once, and how much of what was read before stays.
const READ_BYTES: usize = 512 << 10;
const KEPT_BYTES: usize = 256 << 10;

/// What is known of the files of items, for one run or several that follow one another.
#[derive(Debug, Default)]
pub struct KnownContents {
    items: Mutex<Items>,
}

#[derive(Debug, Default)]
struct Items {
    items: HashMap<String, Known>,
    pieces: usize,
}

type Files = HashMap<(u64, u64), Arc<KnownPieces>>;

#[derive(Debug, Default)]
struct Known {
    snapshot: Option<SnapshotId>,
    /// By device and inode number: of that snapshot, and of the reading that is under way.
    published: Files,
    new: Files,
}

fn count(files: &Files) -> usize {
    files.values().map(|pieces| pieces.len()).sum()
}

impl KnownContents {
    fn lock(&self) -> std::sync::MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An item is read: only what was recorded for `trusted` holds, and, when it is read `again` by the
    /// same run, what that run recorded.
    pub(super) fn begin(&self, item: &str, trusted: Option<SnapshotId>, again: bool) {
        let mut items = self.lock();
        let Items { items, pieces } = &mut *items;
        let Some(known) = items.get_mut(item) else {
            return;
        };
        if trusted.is_none() || known.snapshot != trusted {
            *pieces -= count(&known.published);
            known.published.clear();
        }
        if !again {
            *pieces -= count(&known.new);
            known.new.clear();
        }
    }

    fn find(&self, item: &str, file: (u64, u64)) -> Option<Arc<KnownPieces>> {
        let items = self.lock();
        let known = items.items.get(item)?;
        let found = known.new.get(&file).or_else(|| known.published.get(&file));
        found.cloned()
    }

    fn record(&self, item: &str, file: (u64, u64), new: KnownPieces) {
        let mut items = self.lock();
        let Items { items, pieces } = &mut *items;
        if *pieces + new.len() > PIECES_MAX {
            return;
        }
        *pieces += new.len();
        let known = items.entry(item.to_owned()).or_default();
        if let Some(old) = known.new.insert(file, Arc::new(new)) {
            *pieces -= old.len();
        }
    }

    /// The item's snapshot is published: what was recorded last is what it holds.
    pub fn published(&self, item: &str, snapshot: SnapshotId) {
        let mut items = self.lock();
        let Items { items, pieces } = &mut *items;
        let Some(known) = items.get_mut(item) else {
            return;
        };
        known.snapshot = Some(snapshot);
        for (file, new) in known.new.drain() {
            if let Some(old) = known.published.insert(file, new) {
                *pieces -= old.len();
            }
        }
    }
}

/// Parts of all files of a scan that are in memory, with what is new in them.
pub(super) struct Tickets {
    give: Sender<()>,
    take: Receiver<()>,
}

/// One of them; it goes back when it is dropped.
struct Ticket<'t>(&'t Tickets);

impl Tickets {
    /// Two for each thread: the one that is cut, and one that waits for its turn.
    pub fn new(threads: usize) -> Self {
        let (give, take) = crossbeam_channel::bounded(threads * 2);
        for _ in 0..threads * 2 {
            let _ = give.send(());
        }
        Self { give, take }
    }

    fn take(&self) -> Ticket<'_> {
        // Both ends are here, so that there is always somebody at the other one.
        let _ = self.take.recv();
        Ticket(self)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let _ = self.0.give.send(());
    }
}

struct Ends<'e>(&'e AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn unreadable(errno: Errno) -> Failure {
    Failure::Unreadable("read", errno)
}

impl Worker<'_> {
    /// How a file was cut that is read now.
    pub(super) fn known_pieces(&self, stat: &Stat) -> Option<Arc<KnownPieces>> {
        let known = self.shared.known.as_ref()?;
        known.find(&self.shared.item, stat.identity())
    }

    /// The entry of a file is complete.
    pub(super) fn record_pieces(&self, stat: &Stat, pieces: Option<KnownPieces>) {
        if let (Some(known), Some(pieces)) = (&self.shared.known, pieces) {
            known.record(&self.shared.item, stat.identity(), pieces);
        }
    }

    /// Reads a file of which it is known how it was cut. `None`: it is to be read from its beginning.
    pub(super) fn changed_content(
        &mut self,
        file: &OwnedFd,
        stat: &Stat,
        known: &KnownPieces,
    ) -> Result<Option<FileContent>, Failure> {
        let Some(map) = DataMap::of(file, stat.size)? else {
            return Ok(None);
        };
        let chunking = self.shared.chunking.clone();
        let source = Source {
            file,
            map: &map,
            size: stat.size,
            bytes_read: AtomicU64::new(0),
        };
        let starts = known.parts(PART_BYTES);
        let ends = starts.iter().copied().skip(1).chain([stat.size]);
        let parts: Vec<(u64, u64)> = starts.iter().copied().zip(ends).collect();
        let cut = |content: &mut Window<'_>, from: u64, until: u64| {
            cut_part(&chunking, known, content, stat.size, from, until)
        };
        let shared = self.shared;
        let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut builder = ContentBuilder::new();
        let mut pieces = KnownPieces::default();
        let mut joining = Joining::default();
        let mut consume = |part: Option<Part>, until: u64| -> Result<bool, Failure> {
            let Some(part) = part else {
                return Ok(false);
            };
            let mut taken = |piece: Piece, bytes: Option<&[u8]>| {
                if let (Piece::Chunk { id, .. }, Some(bytes)) = (&piece, bytes) {
                    self.stage
                        .add(*id, ChunkKind::Data, BlockClass::Large, bytes);
                }
                pieces.push(&piece);
                builder.push(&chunking.ids, piece, &mut |id, list| {
                    self.stage.add(id, ChunkKind::List, BlockClass::Meta, &list)
                });
            };
            if !joining.take(&part, &mut taken) {
                let again = cut(&mut source.open(), joining.at, until);
                let Some(again) = again.map_err(unreadable)? else {
                    return Ok(false);
                };
                joining.take(&again, &mut taken);
            }
            if self.stage.is_large() {
                self.hand_over()?;
            }
            Ok(true)
        };
        let whole = std::thread::scope(|scope| {
            let (sender, cuts) = crossbeam_channel::unbounded();
            // One part needs no thread of its own.
            let cutters = shared.threads.min(CUTTERS_MAX).min(parts.len() - 1);
            for _ in 0..cutters {
                let sender = sender.clone();
                let (source, parts, cut, next, ended) = (&source, &parts, &cut, &next, &ended);
                scope.spawn(move || {
                    let mut content = source.open();
                    while next.load(Ordering::Relaxed) < parts.len() {
                        // In this order, whoever waits for a part waits for one that is being cut.
                        let ticket = shared.tickets.take();
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some((from, until)) = parts.get(index) else {
                            break;
                        };
                        if ended.load(Ordering::Relaxed) || shared.is_stopped() {
                            break;
                        }
                        let part = cut(&mut content, *from, *until);
                        if sender.send((index, part, ticket)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            // However it ends, the others end, too.
            let _ends = Ends(&ended);
            let mut early = BTreeMap::new();
            for (index, (from, until)) in parts.iter().enumerate() {
                if shared.is_stopped() {
                    return Err(Failure::Stopped);
                }
                let (part, _ticket) = match cutters {
                    0 => (cut(&mut source.open(), *from, *until), None),
                    _ => loop {
                        if let Some((part, ticket)) = early.remove(&index) {
                            break (part, Some(ticket));
                        }
                        let Ok((index, part, ticket)) = cuts.recv() else {
                            return Err(Failure::Stopped);
                        };
                        early.insert(index, (part, ticket));
                    },
                };
                if !consume(part.map_err(unreadable)?, *until)? {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        self.stage.counts.bytes_read += source.bytes_read.load(Ordering::Relaxed);
        if !whole? {
            return Ok(None);
        }
        let size = builder.size();
        let content = builder.finish(&chunking.ids, &mut |id, list| {
            self.stage.add(id, ChunkKind::List, BlockClass::Meta, &list)
        });
        if self.stage.is_large() {
            self.hand_over()?;
        }
        Ok(Some(FileContent {
            size,
            content,
            holes: map.holes.ranges,
            pieces: Some(pieces),
        }))
    }
}

/// Where a file has data.
struct DataMap {
    extents: Vec<(u64, u64)>,
    holes: Holes,
}

impl DataMap {
    /// `None`: there are too many, or the file was cut meanwhile.
    fn of(file: &OwnedFd, size: u64) -> Result<Option<Self>, Failure> {
        let mut map = Self {
            extents: Vec::new(),
            holes: Holes::default(),
        };
        let mut at = 0;
        while at < size {
            let (data, end) = next_data(file, at, size)?.unwrap_or((size, size));
            map.holes.push(at, data, size);
            if data < end {
                map.extents.push((data, end));
            }
            if map.extents.len() > EXTENTS_MAX {
                return Ok(None);
            }
            at = end;
        }
        let now = Stat::of(file).map_err(|e| Failure::Unreadable("stat", e))?;
        Ok((now.size >= size).then_some(map))
    }

    fn zeros(&self, at: u64, size: u64) -> u64 {
        let next = self.extents.partition_point(|(_, end)| *end <= at);
        let data = self.extents.get(next).map_or(size, |(data, _)| *data);
        data.saturating_sub(at)
    }
}

struct Source<'f> {
    file: &'f OwnedFd,
    map: &'f DataMap,
    size: u64,
    bytes_read: AtomicU64,
}

impl<'f> Source<'f> {
    fn open(&'f self) -> Window<'f> {
        Window {
            source: self,
            at: 0,
            bytes: Vec::new(),
        }
    }
}

/// A part of the file in memory, which moves on.
struct Window<'f> {
    source: &'f Source<'f>,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// Brings `at` and what follows it into memory, up to `end` at least, if the file has so much.
    fn move_to(&mut self, at: u64, end: u64) -> Result<(), Errno> {
        if at < self.at || at > self.end() {
            self.at = at;
            self.bytes.clear();
        }
        let keep_from = at.saturating_sub(KEPT_BYTES as u64).max(self.at);
        self.bytes.drain(..(keep_from - self.at) as usize);
        self.at = keep_from;
        let have = self.bytes.len();
        let wanted = end.max(self.end() + (READ_BYTES - KEPT_BYTES) as u64);
        let wanted = (wanted.min(self.source.size) - self.at) as usize;
        self.bytes.reserve(wanted.saturating_sub(have));
        while self.bytes.len() < wanted {
            // It may be given more than was asked for: what there is room for.
            let at = self.end();
            match pread(self.source.file, spare_capacity(&mut self.bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let read = (self.bytes.len() - have) as u64;
        self.source.bytes_read.fetch_add(read, Ordering::Relaxed);
        Ok(())
    }
}

impl ContentAt for Window<'_> {
    type Error = Errno;

    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8], Errno> {
        let end = (at + len as u64).min(self.source.size);
        if at >= end {
            return Ok(&[]);
        }
        if at < self.at || end > self.end() {
            self.move_to(at, end)?;
        }
        let from = ((at - self.at) as usize).min(self.bytes.len());
        let to = (from + len).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    fn zeros(&self, at: u64) -> u64 {
        self.source.map.zeros(at, self.source.size)
    }
}
