//! Cutting content into chunks: FastCDC with a keyed gear table, and runs of zeros.
//!
//! The cut points are decided by content alone and by a key that only holders of the repository
//! know. A run of zeros of at least [`ZERO_RUN_BYTES_MIN`], made of whole pages of
//! [`PAGE_BYTES`] at offsets that are multiples of it, is no chunk but a length; whether the
//! zeros were read or were a hole makes no difference. Chunking restarts behind a run, so a hole
//! that is filled or punched leaves the chunks on its other side alone.

pub mod known;

use fastcdc::v2020;
use podkeep_format::id::ChunkIdKey;

/// Zero runs are looked for in whole pages of this size.
pub const PAGE_BYTES: usize = 4096;
/// The shortest run of zeros that is not chunked.
pub const ZERO_RUN_BYTES_MIN: usize = 128 << 10;
/// What is taken at once of what a [`Stream`] is given.
const PUSH_BYTES: usize = 512 << 10;

/// Bounds of a chunk's length in bytes; the last chunk before a run or the end may be shorter
/// than `min`. All even, `min < avg <= max`, `avg` a power of two. Stored in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    pub min: u32,
    pub avg: u32,
    pub max: u32,
}

impl ChunkSizes {
    pub const DEFAULT: Self = Self {
        min: 8 << 10,
        avg: 32 << 10,
        max: 128 << 10,
    };
}

/// Everything that decides chunks and their ids; plain data, cheap to clone behind an `Arc`.
pub struct Chunking {
    pub chunker: Chunker,
    pub ids: ChunkIdKey,
}

/// FastCDC 2020 with normalisation level 2 over a keyed gear table.
pub struct Chunker {
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    sizes: ChunkSizes,
    mask_small: u64,
    mask_large: u64,
}

/// A part of a content, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// One chunk's bytes, never empty.
    Chunk(&'a [u8]),
    /// This many zeros.
    Zeros(u64),
}

impl Chunker {
    /// `key` is the repository's chunker key: 32 bytes that stay secret.
    pub fn new(key: &[u8; 32], sizes: ChunkSizes) -> Self {
        let mut words = [0u8; 256 * 8];
        blake3::Hasher::new_keyed(key)
            .update(b"podkeep gear table")
            .finalize_xof()
            .fill(&mut words);
        let mut gear = Box::new([0u64; 256]);
        let mut gear_shifted = Box::new([0u64; 256]);
        for (index, word) in words.chunks_exact(8).enumerate() {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            gear[index] = u64::from_le_bytes(bytes);
            gear_shifted[index] = gear[index] << 1;
        }
        let bits = sizes.avg.trailing_zeros() as usize;
        Self {
            gear,
            gear_shifted,
            sizes,
            mask_small: v2020::MASKS[bits + 2],
            mask_large: v2020::MASKS[bits - 2],
        }
    }

    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// The length of the first chunk of `data`: all of it when it is shorter than a chunk may
    /// be. `data` must hold `sizes().max` bytes, or end where the content (or the part before a
    /// zero run) ends.
    fn first(&self, data: &[u8]) -> usize {
        let (_, len) = v2020::cut_gear(
            data,
            self.sizes.min as usize,
            self.sizes.avg as usize,
            self.sizes.max as usize,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            &self.gear[..],
            &self.gear_shifted[..],
        );
        len
    }

    /// Cuts a content that lies in memory as a whole. Cuts exactly as [`Stream`] does.
    pub fn cut_whole(&self, content: &[u8], emit: &mut dyn FnMut(Cut<'_>)) {
        if content.len() < ZERO_RUN_BYTES_MIN {
            self.cut_segment(content, emit);
            return;
        }
        let mut stream = Stream::new(self);
        stream.push(content, emit);
        stream.finish(emit);
    }

    fn cut_segment(&self, mut segment: &[u8], emit: &mut dyn FnMut(Cut<'_>)) {
        while !segment.is_empty() {
            let len = self.first(segment);
            emit(Cut::Chunk(&segment[..len]));
            segment = &segment[len..];
        }
    }
}

/// Cuts a content that arrives in parts. Holds at most one chunk, one undecided zero run and
/// [`PUSH_BYTES`].
pub struct Stream<'c> {
    chunker: &'c Chunker,
    /// What is neither emitted nor part of a certain run; starts at a cut.
    pending: Vec<u8>,
    /// Bytes at the end of `pending` that are whole zero pages.
    zero_tail: usize,
    /// Bytes at the end of `pending`, behind `zero_tail`, of a page that is not complete.
    partial: usize,
    /// Length of the run that we are in; `pending` then holds only a partial page.
    run: u64,
    /// Bytes of the page that is not complete which stand before the cut that it began with.
    before: usize,
}

impl<'c> Stream<'c> {
    pub fn new(chunker: &'c Chunker) -> Self {
        Self {
            chunker,
            pending: Vec::new(),
            zero_tail: 0,
            partial: 0,
            run: 0,
            before: 0,
        }
    }

    /// Begins in the middle of a content, behind a chunk of it that ends at `offset`, or at its
    /// beginning. Cuts what follows as if it had been given all of it.
    pub fn behind(chunker: &'c Chunker, offset: u64) -> Self {
        let before = (offset % PAGE_BYTES as u64) as usize;
        Self {
            partial: before,
            before,
            ..Self::new(chunker)
        }
    }

    /// The next bytes of the content.
    pub fn push(&mut self, data: &[u8], emit: &mut dyn FnMut(Cut<'_>)) {
        // In parts, so that a content that is pushed whole is not held a second time.
        for part in data.chunks(PUSH_BYTES) {
            self.push_part(part, emit);
        }
    }

    fn push_part(&mut self, mut data: &[u8], emit: &mut dyn FnMut(Cut<'_>)) {
        while !data.is_empty() {
            let take = (PAGE_BYTES - self.partial).min(data.len());
            let (head, rest) = data.split_at(take);
            self.pending.extend_from_slice(head);
            self.partial += take;
            data = rest;
            if self.partial == PAGE_BYTES {
                self.partial = 0;
                self.page_done(emit);
            }
        }
        self.cut_decided(emit);
    }

    /// The next `len` bytes of the content are zeros: the same as pushing them.
    pub fn hole(&mut self, mut len: u64, emit: &mut dyn FnMut(Cut<'_>)) {
        const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        while len > 0 {
            if self.run > 0 && self.partial == 0 {
                let pages = len / PAGE_BYTES as u64 * PAGE_BYTES as u64;
                self.run += pages;
                len -= pages;
            }
            let take = (len as usize)
                .min(PAGE_BYTES - self.partial)
                .min(PAGE_BYTES);
            self.push(&ZEROS[..take], emit);
            len -= take as u64;
        }
    }

    /// The content ends here.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Cut<'_>)) {
        if self.run > 0 {
            if self.pending.iter().all(|byte| *byte == 0) {
                self.run += self.pending.len() as u64;
                self.pending.clear();
            }
            emit(Cut::Zeros(self.run));
        }
        self.chunker.cut_segment(&self.pending, emit);
        self.pending.clear();
        (self.zero_tail, self.partial, self.run, self.before) = (0, 0, 0, 0);
    }

    fn page_done(&mut self, emit: &mut dyn FnMut(Cut<'_>)) {
        if std::mem::take(&mut self.before) > 0 {
            // A run that had this page in it would have the end of the chunk before in it, too.
            return;
        }
        let start = self.pending.len() - PAGE_BYTES;
        if is_zero(&self.pending[start..]) {
            if self.run > 0 {
                self.run += PAGE_BYTES as u64;
                self.pending.truncate(start);
                return;
            }
            self.zero_tail += PAGE_BYTES;
            if self.zero_tail >= ZERO_RUN_BYTES_MIN {
                let end = self.pending.len() - self.zero_tail;
                self.chunker.cut_segment(&self.pending[..end], emit);
                self.pending.clear();
                self.run = self.zero_tail as u64;
                self.zero_tail = 0;
            }
        } else {
            self.zero_tail = 0;
            if self.run > 0 {
                emit(Cut::Zeros(self.run));
                self.run = 0;
            }
        }
    }

    /// Emits the chunks that no later byte can change.
    fn cut_decided(&mut self, emit: &mut dyn FnMut(Cut<'_>)) {
        let partial = self.partial - self.before;
        let decided = self.pending.len() - self.zero_tail - partial;
        let max = self.chunker.sizes.max as usize;
        let mut start = 0;
        while decided - start >= max {
            let len = self.chunker.first(&self.pending[start..decided]);
            emit(Cut::Chunk(&self.pending[start..start + len]));
            start += len;
        }
        if start > 0 {
            self.pending.drain(..start);
        }
    }
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == 0)
}
