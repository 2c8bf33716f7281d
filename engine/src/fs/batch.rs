//! From the workers of a scan to its consumer: chunks are staged by each worker and gathered in
//! one batch.
//!
//! There is one open batch for all workers, so that the order in which chunks are reported keeps
//! children before parents: a worker hands over what it staged before it says that an entry is
//! done, and a directory's node is made only after that. The channel holds few batches, and a
//! worker that finds it full waits inside the lock: the others go on hashing until they have
//! something to hand over themselves.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkId, ChunkKind};
use podkeep_format::tree::{ContentBuilder, Piece};

use super::{ChunkBytes, FoundChunk, FsError, FsErrorKind, ScanBatch};
use crate::chunk::{Chunking, Cut};
use crate::monitor::Finding;

/// Batches that wait for the consumer.
const BATCHES_WAITING_MAX: usize = 2;
/// Bytes of chunks in a batch. A single chunk may be larger.
pub(crate) const BATCH_BYTES_MAX: usize = 4 << 20;
/// A worker hands over what it staged when it has this much.
const STAGE_BYTES_MAX: usize = 1 << 20;
/// A batch without many bytes is sent all the same after this many files or chunks, so that the
/// consumer can show progress.
const BATCH_FILES_MAX: u64 = 4096;
const BATCH_CHUNKS_MAX: usize = 32_768;
/// Chunk ids that are remembered so as not to report a chunk twice in a row. Direct-mapped:
/// 1 MiB of memory, and forgetting is harmless.
const RECENT_IDS: usize = 32_768;

/// The consumer is gone: the scan was dropped.
#[derive(Debug)]
pub(crate) struct Stopped;

/// Counts since the last batch.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub files: u64,
    pub bytes_read: u64,
    pub bytes_logical: u64,
}

/// A batch on its way.
#[derive(Default)]
struct Filled {
    chunks: Vec<FoundChunk>,
    ranges: Vec<Range<usize>>,
    bytes: Vec<u8>,
    findings: Vec<Finding>,
    counts: Counts,
    captured: bool,
}

/// What one worker has read and not yet handed over.
#[derive(Default)]
pub(crate) struct Stage {
    pub bytes: Vec<u8>,
    found: Vec<(FoundChunk, Range<usize>)>,
    pub counts: Counts,
    /// Ids of all that is staged, once somebody asks for them.
    ids: Option<Vec<ChunkId>>,
}

impl Stage {
    /// Begins to remember the ids of what is staged.
    pub fn remember_ids(&mut self) {
        self.ids = Some(Vec::new());
    }

    /// The ids of what was staged since [`remember_ids`](Self::remember_ids), ascending.
    pub fn remembered_ids(&mut self) -> Vec<ChunkId> {
        let mut ids = self.ids.take().unwrap_or_default();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Records a chunk whose bytes are `self.bytes[range]`.
    pub fn found(&mut self, id: ChunkId, kind: ChunkKind, class: BlockClass, range: Range<usize>) {
        let len = range.len() as u32;
        let chunk = FoundChunk {
            id,
            kind,
            class,
            len,
        };
        self.found.push((chunk, range));
        if let Some(ids) = &mut self.ids {
            ids.push(id);
        }
    }

    /// Copies a chunk in.
    pub fn add(&mut self, id: ChunkId, kind: ChunkKind, class: BlockClass, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.found(id, kind, class, start..self.bytes.len());
    }

    /// Stages what was cut off a content, and adds it to that content's pieces.
    pub fn cut(
        &mut self,
        chunking: &Chunking,
        content: &mut ContentBuilder,
        class: BlockClass,
        cut: Cut<'_>,
    ) {
        self.cut_piece(chunking, content, class, cut);
    }

    /// As [`cut`](Self::cut); returns the piece.
    pub fn cut_piece(
        &mut self,
        chunking: &Chunking,
        content: &mut ContentBuilder,
        class: BlockClass,
        cut: Cut<'_>,
    ) -> Piece {
        let piece = match cut {
            Cut::Chunk(bytes) => {
                let id = chunking.ids.chunk_id(ChunkKind::Data, bytes);
                self.add(id, ChunkKind::Data, class, bytes);
                Piece::Chunk {
                    id,
                    len: bytes.len() as u32,
                }
            }
            Cut::Zeros(len) => Piece::Zero { len },
        };
        content.push(&chunking.ids, piece, &mut |id, list| {
            self.add(id, ChunkKind::List, BlockClass::Meta, &list)
        });
        piece
    }

    pub fn is_large(&self) -> bool {
        self.bytes.len() >= STAGE_BYTES_MAX
    }

    /// Where the stage ends, for [`rollback`](Self::rollback).
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.found.len())
    }

    /// Forgets what was staged since `mark`, unless it has been handed over.
    pub fn rollback(&mut self, mark: (usize, usize)) {
        self.bytes.truncate(mark.0);
        self.found.truncate(mark.1);
    }

    fn is_empty(&self) -> bool {
        self.found.is_empty() && self.counts.files == 0 && self.counts.bytes_read == 0
    }
}

/// The open batch, and the way to the consumer.
pub(crate) struct Outbox {
    open: Mutex<Open>,
}

/// Memory of batches that were consumed, for those to come.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// The consumer's end.
pub(crate) struct Inbox {
    /// `None` once it is disconnected.
    receiver: Option<Receiver<Filled>>,
    /// Of the last batch.
    bytes: Arc<Vec<u8>>,
    ranges: Vec<Range<usize>>,
    spare: Spare,
}

impl Inbox {
    /// As [`TreeScan::next`](super::TreeScan::next): `None` once the outbox is closed.
    pub fn next(&mut self) -> Option<ScanBatch> {
        let filled = match &self.receiver {
            Some(receiver) => receiver.recv().ok(),
            None => None,
        };
        let Some(filled) = filled else {
            self.close();
            return None;
        };
        let last = std::mem::replace(&mut self.bytes, Arc::new(filled.bytes));
        if let Ok(mut bytes) = Arc::try_unwrap(last) {
            bytes.clear();
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            spare.push(bytes);
        }
        self.ranges = filled.ranges;
        Some(ScanBatch {
            chunks: filled.chunks,
            findings: filled.findings,
            files: filled.counts.files,
            bytes_read: filled.counts.bytes_read,
            bytes_logical: filled.counts.bytes_logical,
            captured: filled.captured,
        })
    }

    /// As [`TreeScan::fetch`](super::TreeScan::fetch).
    pub fn fetch(&self, wanted: &[u32], object: &[u8]) -> Result<ChunkBytes, FsError> {
        let ranges = wanted
            .iter()
            .map(|index| self.ranges.get(*index as usize).cloned())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                let cause = "a chunk was asked for that the last batch does not have";
                FsError::new("read", object, FsErrorKind::Other, cause)
            })?;
        Ok(ChunkBytes {
            buffer: Arc::clone(&self.bytes),
            ranges,
        })
    }

    /// Whoever waits for room learns that nobody listens.
    pub fn close(&mut self) {
        self.receiver = None;
        self.bytes = Arc::default();
        self.ranges.clear();
    }
}

struct Open {
    batch: Filled,
    spare: Spare,
    recent: Vec<[u8; 32]>,
    /// `None` once the last batch is sent.
    sender: Option<Sender<Filled>>,
}

impl Outbox {
    pub fn new() -> (Self, Inbox) {
        let (sender, receiver) = crossbeam_channel::bounded(BATCHES_WAITING_MAX);
        let spare = Spare::default();
        let outbox = Self {
            open: Mutex::new(Open {
                batch: Filled::default(),
                spare: Arc::clone(&spare),
                recent: vec![[0; 32]; RECENT_IDS],
                sender: Some(sender),
            }),
        };
        let inbox = Inbox {
            receiver: Some(receiver),
            bytes: Arc::default(),
            ranges: Vec::new(),
            spare,
        };
        (outbox, inbox)
    }

    /// Takes over all that is staged.
    pub fn take(&self, stage: &mut Stage) -> Result<(), Stopped> {
        if stage.is_empty() {
            return Ok(());
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (chunk, range) in stage.found.drain(..) {
            if open.is_recent(&chunk.id) {
                continue;
            }
            let full = open.batch.bytes.len() + range.len() > BATCH_BYTES_MAX;
            if (full && !open.batch.chunks.is_empty())
                || open.batch.chunks.len() >= BATCH_CHUNKS_MAX
            {
                open.send()?;
            }
            let batch = &mut open.batch;
            let start = batch.bytes.len();
            batch.bytes.extend_from_slice(&stage.bytes[range]);
            batch.chunks.push(chunk);
            batch.ranges.push(start..batch.bytes.len());
        }
        stage.bytes.clear();
        let counts = std::mem::take(&mut stage.counts);
        let batch = &mut open.batch;
        batch.counts.files += counts.files;
        batch.counts.bytes_read += counts.bytes_read;
        batch.counts.bytes_logical += counts.bytes_logical;
        if batch.counts.files >= BATCH_FILES_MAX {
            open.send()?;
        }
        Ok(())
    }

    pub fn finding(&self, finding: Finding) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.batch.findings.push(finding);
    }

    /// Sends what is there, with the word that the tree itself is needed no more.
    pub fn captured(&self) -> Result<(), Stopped> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.batch.captured = true;
        open.send()
    }

    /// Sends what is left and closes the channel.
    pub fn close(&self) -> Result<(), Stopped> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = open.send();
        open.sender = None;
        sent
    }
}

impl Open {
    fn is_recent(&mut self, id: &ChunkId) -> bool {
        let slot = usize::from(id.0[0]) | usize::from(id.0[1]) << 8;
        let slot = &mut self.recent[slot % RECENT_IDS];
        if *slot == id.0 {
            return true;
        }
        *slot = id.0;
        false
    }

    fn send(&mut self) -> Result<(), Stopped> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Filled {
            bytes: spare.pop().unwrap_or_default(),
            ..Filled::default()
        };
        drop(spare);
        let batch = std::mem::replace(&mut self.batch, next);
        match &self.sender {
            Some(sender) => sender.send(batch).map_err(|_| Stopped),
            None => Err(Stopped),
        }
    }
}
