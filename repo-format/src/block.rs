//! Solid blocks: many chunks in one compressed frame and one seal ("Blocks" in the
//! specification).
//!
//! The payload of a block is a chunk table and the chunks' bytes. The table says of which kind
//! and how long each chunk is; ids are not stored, since they are the keyed hash of the bytes.
//! The payload is one zstd frame, or stored as it is where that is no smaller. In front of the
//! sealed bytes stands a header in clear, so that a pack whose trailer is lost can be walked.

use std::ops::Range;

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::ChunkKind;
use crate::seal::{FORMAT_VERSION, TAG_BYTES};

/// Bytes of a payload. A block is closed before its chunks grow over this.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Chunks of one block.
pub const CHUNKS_MAX: u64 = 1 << 18;
/// Bytes of the header in front of each block.
pub const HEADER_BYTES: usize = 28;
const MAGIC: [u8; 4] = *b"PKB\x01";

/// What a block gathers; decides its size and how it is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlockClass {
    /// Contents of small files: solid blocks pay most where many files meet.
    Small = 1,
    /// Contents of large files, streams.
    Large = 2,
    /// Image layers: long distance matching.
    Layer = 3,
    /// Tree and list nodes, records.
    Meta = 4,
}

impl BlockClass {
    pub const ALL: [Self; 4] = [Self::Small, Self::Large, Self::Layer, Self::Meta];

    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u8 == value)
    }
}

/// What stands in clear in front of a sealed block, and is bound by its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    pub class: BlockClass,
    /// Whether the sealed bytes are a zstd frame of the payload, or the payload itself.
    pub compressed: bool,
    /// Bytes that follow the header, tag included.
    pub sealed_len: u32,
    /// Bytes of the payload, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_len: u32,
    /// Where in the pack this header stands.
    pub position: u64,
    /// The counter that the seal used.
    pub counter: u32,
}

impl BlockHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Encoder::new();
        out.raw(&MAGIC)
            .u8(FORMAT_VERSION)
            .u8(self.class as u8)
            .u16(u16::from(self.compressed))
            .u32(self.sealed_len)
            .u32(self.payload_len)
            .u64(self.position)
            .u32(self.counter);
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(out.as_slice());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("block header", bytes);
        if input.array::<4>()? != MAGIC {
            return input.fail(Defect::Magic);
        }
        let version = input.u8()?;
        if version != FORMAT_VERSION {
            return input.fail(Defect::Version(u32::from(version)));
        }
        let class = input.u8()?;
        let Some(class) = BlockClass::from_u8(class) else {
            return input.fail(Defect::Tag("block class", u64::from(class)));
        };
        let flags = input.u16()?;
        if flags > 1 {
            return input.fail(Defect::Tag("block flags", u64::from(flags)));
        }
        let header = Self {
            class,
            compressed: flags == 1,
            sealed_len: input.u32()?,
            payload_len: input.u32()?,
            position: input.u64()?,
            counter: input.u32()?,
        };
        input.end()?;
        header.check(&input)?;
        Ok(header)
    }

    fn check(&self, input: &Decoder<'_>) -> Result<(), DecodeError> {
        let tag = TAG_BYTES as u32;
        if self.payload_len as usize > PAYLOAD_BYTES_MAX {
            return input.fail(Defect::TooLarge("payload"));
        }
        let fits = match self.compressed {
            // Compressed only where it is smaller.
            true => self.sealed_len > tag && self.sealed_len < self.payload_len.saturating_add(tag),
            false => self.sealed_len == self.payload_len.saturating_add(tag),
        };
        if fits {
            Ok(())
        } else {
            input.fail(Defect::NotCanonical("sealed length"))
        }
    }
}

/// Gathers chunks for one block.
pub struct PayloadBuilder {
    table: Encoder,
    count: u64,
    /// Room for count and table, then the chunks' bytes: a payload is finished where it lies.
    bytes: Vec<u8>,
}

/// Bytes of the room in front of the chunks. A longer table makes them move.
const HEAD_ROOM: usize = 8 << 10;

/// The payload of a block, in one piece.
pub struct Payload {
    bytes: Vec<u8>,
    start: usize,
}

impl Payload {
    /// Its memory, for [`PayloadBuilder::reusing`].
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

impl std::ops::Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Default for PayloadBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PayloadBuilder {
    pub fn new() -> Self {
        Self::reusing(Vec::new())
    }

    /// Gathers in the memory of `buffer`; what it holds is lost.
    pub fn reusing(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEAD_ROOM, 0);
        Self {
            table: Encoder::new(),
            count: 0,
            bytes: buffer,
        }
    }

    /// The chunk's offset among the data of the block.
    pub fn push(&mut self, kind: ChunkKind, bytes: &[u8]) -> u32 {
        let offset = self.data_len() as u32;
        self.table.u8(kind as u8).varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self.count += 1;
        offset
    }

    pub fn data_len(&self) -> usize {
        self.bytes.len() - HEAD_ROOM
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether a chunk of `len` bytes still fits.
    pub fn has_room(&self, len: usize) -> bool {
        self.count < CHUNKS_MAX
            && self.data_len() + self.table.len() + len + 32 <= PAYLOAD_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn finish(self) -> Payload {
        let mut head = Encoder::new();
        head.varint(self.count).raw(self.table.as_slice());
        let head = head.as_slice();
        let mut bytes = self.bytes;
        match HEAD_ROOM.checked_sub(head.len()) {
            Some(start) => {
                bytes[start..HEAD_ROOM].copy_from_slice(head);
                Payload { bytes, start }
            }
            None => {
                bytes.splice(..HEAD_ROOM, head.iter().copied());
                Payload { bytes, start: 0 }
            }
        }
    }
}

/// The chunks of a payload, as ranges of it.
pub fn decode_payload(payload: &[u8]) -> Result<Vec<(ChunkKind, Range<usize>)>, DecodeError> {
    let mut input = Decoder::new("block", payload);
    if payload.len() > PAYLOAD_BYTES_MAX {
        return input.fail(Defect::TooLarge("payload"));
    }
    let count = input.bounded("chunks", CHUNKS_MAX)?;
    if count == 0 {
        return input.fail(Defect::NotCanonical("chunks"));
    }
    let mut chunks = Vec::new();
    let mut end = 0usize;
    for _ in 0..count {
        let tag = input.u8()?;
        let Some(kind) = ChunkKind::from_u8(tag) else {
            return input.fail(Defect::Tag("chunk kind", u64::from(tag)));
        };
        let len = input.bounded("chunk length", PAYLOAD_BYTES_MAX as u64)? as usize;
        if len == 0 {
            return input.fail(Defect::NotCanonical("chunk length"));
        }
        chunks.push((kind, end..end + len));
        end += len;
        if end > PAYLOAD_BYTES_MAX {
            return input.fail(Defect::TooLarge("payload"));
        }
    }
    match input.remaining() {
        rest if rest < end => input.fail(Defect::Truncated),
        rest if rest > end => input.fail(Defect::Trailing),
        rest => {
            let start = payload.len() - rest;
            for (_, range) in &mut chunks {
                *range = range.start + start..range.end + start;
            }
            Ok(chunks)
        }
    }
}
