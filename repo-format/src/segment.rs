//! Index segments ("Index segments" in the specification): which chunk lies where.
//!
//! A segment is immutable, signed, and sealed as a whole under a key from the index key. Its
//! body is laid out for memory mapping: fixed-width tables, records sorted by chunk id, a
//! blocked Bloom filter in front so that a look-up of an unknown id touches one cache line, and
//! a fence table for those who read a body in ranges.

use crate::block::{BlockClass, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::{AuthorId, ChunkId, PackId, RepositoryId};
use crate::pack::{PACK_BYTES_MAX, TocBlock};
use crate::seal::{
    AuthorKey, Domain, FORMAT_VERSION, SALT_BYTES, SIGNATURE_BYTES, Secret, TAG_BYTES, verify,
};

const MAGIC: [u8; 8] = *b"podkeepI";
const BODY_MAGIC: [u8; 8] = *b"PKSEG\x01\0\0";
/// Bytes of one segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Records of one segment.
pub const RECORDS_MAX: u64 = 1 << 24;

const BODY_HEADER_BYTES: usize = 8 + 4 * 4;
const PACK_BYTES: usize = 32;
const BLOCK_BYTES: usize = 20;
const RECORD_BYTES: usize = 44;
/// One line of the filter; a key's bits lie in one line.
const FILTER_LINE_BYTES: usize = 64;
/// Keys for each filter line: 512 bits / 10 bits.
const FILTER_KEYS_PER_LINE: usize = 51;
const FILTER_BITS_PER_KEY: u32 = 6;
/// The first id of every this many records stands in the fence table.
const FENCE_STRIDE: usize = 128;
const FENCE_BYTES: usize = 8;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub block: BlockPlace,
    /// Among the block's data (behind its chunk table).
    pub offset: u32,
    pub len: u32,
}

/// Where a block lies, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockPlace {
    pub pack: PackId,
    /// Of the block's header.
    pub position: u32,
    pub sealed_len: u32,
    pub payload_len: u32,
    pub class: BlockClass,
}

impl BlockPlace {
    /// Where in the pack the block ends.
    pub fn end(&self) -> u64 {
        u64::from(self.position) + HEADER_BYTES as u64 + u64::from(self.sealed_len)
    }
}

struct Record {
    id: ChunkId,
    block: u32,
    offset: u32,
    len: u32,
}

/// Gathers packs for one segment.
#[derive(Default)]
pub struct SegmentBuilder {
    packs: Vec<PackId>,
    blocks: Encoder,
    block_count: u32,
    records: Vec<Record>,
}

impl SegmentBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    pub fn records(&self) -> usize {
        self.records.len()
    }

    pub fn packs(&self) -> usize {
        self.packs.len()
    }

    /// Adds all blocks of a pack.
    pub fn push(&mut self, pack: PackId, blocks: &[TocBlock]) {
        let pack_index = self.packs.len() as u32;
        self.packs.push(pack);
        for block in blocks {
            self.blocks
                .u32(pack_index)
                .u32(block.position as u32)
                .u32(block.sealed_len)
                .u32(block.payload_len)
                .u8(block.class as u8)
                .raw(&[0; 3]);
            let mut offset = 0;
            for chunk in &block.chunks {
                self.records.push(Record {
                    id: chunk.id,
                    block: self.block_count,
                    offset,
                    len: chunk.len,
                });
                offset += chunk.len;
            }
            self.block_count += 1;
        }
    }

    /// The body, as [`Segment::parse`] reads it.
    pub fn finish(mut self) -> Vec<u8> {
        self.records
            .sort_unstable_by(|a, b| (&a.id, a.block, a.offset).cmp(&(&b.id, b.block, b.offset)));
        let ids = self.records.iter().map(|record| &record.id);
        let filter = build_filter(self.records.len(), ids);
        let mut out = Encoder::new();
        out.raw(&BODY_MAGIC)
            .u32(self.packs.len() as u32)
            .u32(self.block_count)
            .u32(self.records.len() as u32)
            .u32((filter.len() / FILTER_LINE_BYTES) as u32);
        out.raw(&filter);
        for record in self.records.iter().step_by(FENCE_STRIDE) {
            out.raw(&record.id.0[..FENCE_BYTES]);
        }
        for pack in &self.packs {
            out.raw(&pack.0);
        }
        out.raw(self.blocks.as_slice());
        for record in &self.records {
            out.raw(&record.id.0)
                .u32(record.block)
                .u32(record.offset)
                .u32(record.len);
        }
        out.finish()
    }
}

fn filter_lines(records: usize) -> usize {
    records.div_ceil(FILTER_KEYS_PER_LINE).max(1)
}

/// The line of an id, and its bits there. Ids are uniform, so that parts of them serve as
/// hashes; the sort order uses the front, so the filter uses the back.
fn filter_place(id: &ChunkId, lines: usize) -> (usize, u64) {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&id.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let line = ((u128::from(word(16)) * lines as u128) >> 64) as usize;
    (line, word(24))
}

fn filter_bits(bits: u64) -> impl Iterator<Item = (usize, u8)> {
    (0..FILTER_BITS_PER_KEY).map(move |n| {
        let bit = (bits >> (n * 9)) as usize & 511;
        (bit / 8, 1 << (bit % 8))
    })
}

fn build_filter<'a>(records: usize, ids: impl Iterator<Item = &'a ChunkId>) -> Vec<u8> {
    let lines = filter_lines(records);
    let mut filter = vec![0; lines * FILTER_LINE_BYTES];
    for id in ids {
        let (line, bits) = filter_place(id, lines);
        for (byte, mask) in filter_bits(bits) {
            filter[line * FILTER_LINE_BYTES + byte] |= mask;
        }
    }
    filter
}

/// Where the tables of a body lie.
#[derive(Clone, Copy, Debug)]
struct Layout {
    packs: usize,
    blocks: usize,
    records: usize,
    lines: usize,
    fences_at: usize,
    packs_at: usize,
    blocks_at: usize,
    records_at: usize,
}

/// A segment's body, memory-mapped or in memory.
pub struct Segment<B> {
    body: B,
    layout: Layout,
}

impl<B: AsRef<[u8]>> Segment<B> {
    /// Reads a body that comes from a store: checks every table.
    pub fn parse(body: B) -> Result<Self, DecodeError> {
        let segment = Self::parse_checked(body)?;
        segment.check()?;
        Ok(segment)
    }

    /// Reads a body that [`parse`](Self::parse) accepted before and whose integrity the caller
    /// has just verified: only the layout is checked.
    pub fn parse_checked(body: B) -> Result<Self, DecodeError> {
        let bytes = body.as_ref();
        let mut input = Decoder::new("index segment", bytes);
        if input.array::<8>()? != BODY_MAGIC {
            return input.fail(Defect::Magic);
        }
        let packs = input.u32()? as usize;
        let blocks = input.u32()? as usize;
        let records = input.u32()? as usize;
        let lines = input.u32()? as usize;
        if records as u64 > RECORDS_MAX || blocks > records || packs > blocks {
            return input.fail(Defect::TooLarge("records"));
        }
        if lines != filter_lines(records) {
            return input.fail(Defect::NotCanonical("filter"));
        }
        let fences_at = BODY_HEADER_BYTES + lines * FILTER_LINE_BYTES;
        let packs_at = fences_at + records.div_ceil(FENCE_STRIDE) * FENCE_BYTES;
        let blocks_at = packs_at + packs * PACK_BYTES;
        let records_at = blocks_at + blocks * BLOCK_BYTES;
        let end = records_at + records * RECORD_BYTES;
        if bytes.len() < end {
            return input.fail(Defect::Truncated);
        }
        if bytes.len() > end {
            return input.fail(Defect::Trailing);
        }
        let layout = Layout {
            packs,
            blocks,
            records,
            lines,
            fences_at,
            packs_at,
            blocks_at,
            records_at,
        };
        Ok(Self { body, layout })
    }

    fn check(&self) -> Result<(), DecodeError> {
        let input = Decoder::new("index segment", &[]);
        // Every pack has a block, and blocks come by pack.
        let mut packs = 0;
        for index in 0..self.layout.blocks {
            let raw = self.block_bytes(index);
            let pack = word(raw, 0) as usize;
            if BlockClass::from_u8(raw[16]).is_none() || raw[17..20] != [0; 3] {
                return input.fail(Defect::Tag("block class", u64::from(raw[16])));
            }
            if pack == packs {
                packs += 1;
            } else if pack + 1 != packs {
                return input.fail(Defect::NotCanonical("order of blocks"));
            }
            let (sealed_len, payload_len) = (word(raw, 8) as usize, word(raw, 12) as usize);
            let end = u64::from(word(raw, 4)) + (HEADER_BYTES + sealed_len) as u64;
            if payload_len > PAYLOAD_BYTES_MAX
                || sealed_len <= TAG_BYTES
                || sealed_len > payload_len + TAG_BYTES
                || end > PACK_BYTES_MAX
            {
                return input.fail(Defect::TooLarge("block"));
            }
        }
        if packs != self.layout.packs {
            return input.fail(Defect::NotCanonical("packs"));
        }
        let mut last: Option<(&[u8], u32, u32)> = None;
        for index in 0..self.layout.records {
            let raw = self.record_bytes(index);
            let (block, offset, len) = (word(raw, 32), word(raw, 36), word(raw, 40));
            if block as usize >= self.layout.blocks {
                return input.fail(Defect::TooLarge("block number"));
            }
            let payload = word(self.block_bytes(block as usize), 12);
            if len == 0 || u64::from(offset) + u64::from(len) > u64::from(payload) {
                return input.fail(Defect::NotCanonical("place of a chunk"));
            }
            let key = (&raw[..32], block, offset);
            if last.is_some_and(|last| last >= key) {
                return input.fail(Defect::NotCanonical("order of records"));
            }
            last = Some(key);
            if index % FENCE_STRIDE == 0 {
                let at = self.layout.fences_at + index / FENCE_STRIDE * FENCE_BYTES;
                if self.body.as_ref()[at..at + FENCE_BYTES] != raw[..FENCE_BYTES] {
                    return input.fail(Defect::NotCanonical("fence table"));
                }
            }
        }
        let ids: Vec<ChunkId> = self.ids().collect();
        let filter = build_filter(ids.len(), ids.iter());
        if self.body.as_ref()[BODY_HEADER_BYTES..self.layout.fences_at] != filter {
            return input.fail(Defect::NotCanonical("filter"));
        }
        Ok(())
    }

    pub fn body(&self) -> &B {
        &self.body
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.layout.records
    }

    pub fn is_empty(&self) -> bool {
        self.layout.records == 0
    }

    /// Packs in the order of their numbers.
    pub fn packs(&self) -> impl Iterator<Item = PackId> + '_ {
        (0..self.layout.packs).map(|index| self.pack(index))
    }

    /// Ids in ascending order; one that has several places comes several times.
    pub fn ids(&self) -> impl Iterator<Item = ChunkId> + '_ {
        (0..self.layout.records).map(|index| self.id(index))
    }

    /// All blocks, by pack and position as written.
    pub fn blocks(&self) -> impl Iterator<Item = BlockPlace> + '_ {
        (0..self.layout.blocks).map(|index| self.block(index))
    }

    /// All records in ascending order of their ids.
    pub fn entries(&self) -> impl Iterator<Item = (ChunkId, Place)> + '_ {
        (0..self.layout.records).map(|index| (self.id(index), self.place(index)))
    }

    /// Whether `id` may be here; `false` is certain. Touches one cache line.
    pub fn may_contain(&self, id: &ChunkId) -> bool {
        let (line, bits) = filter_place(id, self.layout.lines);
        let start = BODY_HEADER_BYTES + line * FILTER_LINE_BYTES;
        let line = &self.body.as_ref()[start..start + FILTER_LINE_BYTES];
        filter_bits(bits).all(|(byte, mask)| line[byte] & mask != 0)
    }

    /// The places of `id`, which has mostly one or none.
    pub fn places(&self, id: &ChunkId) -> impl Iterator<Item = Place> + '_ {
        let start = match self.may_contain(id) {
            true => self.lower_bound(id),
            false => self.layout.records,
        };
        let id = *id;
        (start..self.layout.records)
            .take_while(move |index| self.id(*index) == id)
            .map(|index| self.place(index))
    }

    /// The number of the first record whose id is not below `id`.
    fn lower_bound(&self, id: &ChunkId) -> usize {
        let (mut low, mut high) = (0, self.layout.records);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record_bytes(middle)[..32] < id.0[..] {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn pack(&self, index: usize) -> PackId {
        let at = self.layout.packs_at + index * PACK_BYTES;
        let mut id = [0; PACK_BYTES];
        id.copy_from_slice(&self.body.as_ref()[at..at + PACK_BYTES]);
        PackId(id)
    }

    fn block_bytes(&self, index: usize) -> &[u8] {
        let at = self.layout.blocks_at + index * BLOCK_BYTES;
        &self.body.as_ref()[at..at + BLOCK_BYTES]
    }

    fn block(&self, index: usize) -> BlockPlace {
        let raw = self.block_bytes(index);
        BlockPlace {
            pack: self.pack(word(raw, 0) as usize),
            position: word(raw, 4),
            sealed_len: word(raw, 8),
            payload_len: word(raw, 12),
            class: BlockClass::from_u8(raw[16]).unwrap_or(BlockClass::Meta),
        }
    }

    fn record_bytes(&self, index: usize) -> &[u8] {
        let at = self.layout.records_at + index * RECORD_BYTES;
        &self.body.as_ref()[at..at + RECORD_BYTES]
    }

    fn id(&self, index: usize) -> ChunkId {
        let mut id = [0; 32];
        id.copy_from_slice(&self.record_bytes(index)[..32]);
        ChunkId(id)
    }

    fn place(&self, index: usize) -> Place {
        let raw = self.record_bytes(index);
        Place {
            block: self.block(word(raw, 32) as usize),
            offset: word(raw, 36),
            len: word(raw, 40),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// Seals and signs a body.
pub fn seal_segment(
    repository: RepositoryId,
    index: &Secret,
    author: &AuthorKey,
    salt: &[u8; SALT_BYTES],
    mut body: Vec<u8>,
) -> Result<Vec<u8>, DecodeError> {
    let mut header = Encoder::new();
    header
        .raw(&MAGIC)
        .u8(FORMAT_VERSION)
        .raw(&author.id().0)
        .raw(salt);
    let header = header.finish();
    let signature = author.sign(repository, Domain::Segment, &body);
    body.extend_from_slice(&signature);
    index
        .object_key(repository, Domain::Segment, salt)
        .seal(&header, &mut body)?;
    let mut out = header;
    out.extend_from_slice(&body);
    Ok(out)
}

/// Opens what [`seal_segment`] made and checks the signature: the author and the body. Whether
/// that author counts is the caller's matter.
pub fn open_segment(
    repository: RepositoryId,
    index: &Secret,
    mut bytes: Vec<u8>,
) -> Result<(AuthorId, Vec<u8>), DecodeError> {
    const HEADER: usize = 8 + 1 + 32 + SALT_BYTES;
    let mut input = Decoder::new("index segment", &bytes);
    if input.array::<8>()? != MAGIC {
        return input.fail(Defect::Magic);
    }
    let version = input.u8()?;
    if version != FORMAT_VERSION {
        return input.fail(Defect::Version(u32::from(version)));
    }
    let author = AuthorId(input.array()?);
    let salt: [u8; SALT_BYTES] = input.array()?;
    let (header, sealed) = bytes.split_at_mut(HEADER);
    let opened = index
        .object_key(repository, Domain::Segment, &salt)
        .open(header, 0, sealed)?;
    let Some(len) = opened.len().checked_sub(SIGNATURE_BYTES) else {
        return Decoder::new("index segment", &[]).fail(Defect::Truncated);
    };
    let mut signature = [0; SIGNATURE_BYTES];
    signature.copy_from_slice(&opened[len..]);
    verify(
        author,
        repository,
        Domain::Segment,
        &opened[..len],
        &signature,
    )?;
    bytes.drain(..HEADER);
    bytes.truncate(len);
    Ok((author, bytes))
}
