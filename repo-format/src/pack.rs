//! Packs ("Packs" in the specification): a header in clear, sealed blocks, a sealed and signed
//! table of contents, a trailer that repeats the header.
//!
//! The header names the lease that the pack was written under, so that prune can tell a pack
//! that is being filled from one that nobody needs. The table of contents is sealed under a key
//! from the index key: a client that cannot read can still index what it left behind.

use crate::block::{BlockClass, BlockHeader, HEADER_BYTES};
use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::{AuthorId, ChunkId, ChunkKind, LeaseId, PackId, RepositoryId};
use crate::seal::{
    AuthorKey, Domain, FORMAT_VERSION, ObjectKey, SALT_BYTES, SIGNATURE_BYTES, Secret, SessionSeal,
    TAG_BYTES, verify,
};

const MAGIC: [u8; 8] = *b"podkeepP";
const TRAILER_MAGIC: [u8; 8] = *b"Ppeekdop";
/// Bytes of one pack.
pub const PACK_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a header.
pub const PACK_HEADER_BYTES_MAX: usize = 64 << 10;
/// Lengths of the table of contents and of the header copy, magic.
pub const TRAILER_TAIL_BYTES: usize = 4 + 4 + 8;
/// Bytes of a sealed table of contents.
pub const TOC_BYTES_MAX: usize = 256 << 20;
/// Blocks of one pack.
pub const BLOCKS_MAX: u64 = 1 << 20;

/// What stands in clear at both ends of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackHeader {
    /// The lease under which the pack was written.
    pub lease: LeaseId,
    pub author: AuthorId,
    /// Random; the keys of this pack's blocks and of its table of contents derive from it.
    pub salt: [u8; SALT_BYTES],
    pub session: SessionSeal,
}

impl PackHeader {
    /// Self-delimiting: begins with its own length.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Encoder::new();
        body.raw(&self.lease.0).raw(&self.author.0).raw(&self.salt);
        self.session.encode(&mut body);
        let mut out = Encoder::new();
        out.raw(&MAGIC)
            .u8(FORMAT_VERSION)
            .u32(body.len() as u32)
            .raw(body.as_slice());
        out.finish()
    }

    /// Takes a header off the front of `bytes`; returns its length too. `bytes` may be the
    /// first [`PACK_HEADER_BYTES_MAX`] bytes of the pack.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut input = Decoder::new("pack header", bytes);
        if input.array::<8>()? != MAGIC {
            return input.fail(Defect::Magic);
        }
        let version = input.u8()?;
        if version != FORMAT_VERSION {
            return input.fail(Defect::Version(u32::from(version)));
        }
        let len = input.u32()? as usize;
        if len > PACK_HEADER_BYTES_MAX - 13 {
            return input.fail(Defect::TooLarge("pack header"));
        }
        let mut body = Decoder::new("pack header", input.raw(len)?);
        let header = Self {
            lease: LeaseId(body.array()?),
            author: AuthorId(body.array()?),
            salt: body.array()?,
            session: SessionSeal::decode(&mut body)?,
        };
        body.end()?;
        Ok((header, 13 + len))
    }

    /// The key of the pack's blocks.
    pub fn block_key(&self, repository: RepositoryId, session: &Secret) -> ObjectKey {
        session.object_key(repository, Domain::Block, &self.salt)
    }

    fn toc_key(&self, repository: RepositoryId, index: &Secret) -> ObjectKey {
        index.object_key(repository, Domain::TableOfContents, &self.salt)
    }
}

/// A chunk as a table of contents lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TocChunk {
    pub id: ChunkId,
    pub kind: ChunkKind,
    pub len: u32,
}

/// A block as a table of contents lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocBlock {
    /// Where its header stands in the pack.
    pub position: u64,
    pub class: BlockClass,
    pub compressed: bool,
    /// As in [`BlockHeader`].
    pub sealed_len: u32,
    pub payload_len: u32,
    pub chunks: Vec<TocChunk>,
}

/// The only encoding of a list that [`decode_toc`] accepts.
pub fn encode_toc(blocks: &[TocBlock]) -> Vec<u8> {
    let mut out = Encoder::new();
    out.varint(blocks.len() as u64);
    for block in blocks {
        out.varint(block.position)
            .u8(block.class as u8)
            .u8(u8::from(block.compressed))
            .varint(u64::from(block.sealed_len))
            .varint(u64::from(block.payload_len))
            .varint(block.chunks.len() as u64);
        for chunk in &block.chunks {
            out.u8(chunk.kind as u8)
                .varint(u64::from(chunk.len))
                .raw(&chunk.id.0);
        }
    }
    out.finish()
}

/// Strict: positions ascend without gaps that a block could not leave, lengths are consistent
/// with the blocks' headers.
pub fn decode_toc(bytes: &[u8]) -> Result<Vec<TocBlock>, DecodeError> {
    let mut input = Decoder::new("table of contents", bytes);
    let count = input.bounded("blocks", BLOCKS_MAX)?;
    let mut blocks: Vec<TocBlock> = Vec::new();
    for _ in 0..count {
        let position = input.bounded("position", PACK_BYTES_MAX)?;
        let tag = input.u8()?;
        let Some(class) = BlockClass::from_u8(tag) else {
            return input.fail(Defect::Tag("block class", u64::from(tag)));
        };
        let compressed = match input.u8()? {
            0 => false,
            1 => true,
            other => return input.fail(Defect::Tag("block flags", u64::from(other))),
        };
        let sealed_len = input.bounded("sealed length", PACK_BYTES_MAX)? as u32;
        let payload_len = input.bounded("payload", PACK_BYTES_MAX)? as u32;
        let header = BlockHeader {
            class,
            compressed,
            sealed_len,
            payload_len,
            position,
            counter: 0,
        };
        BlockHeader::decode(&header.encode())?;
        if let Some(last) = blocks.last()
            && position != last.position + HEADER_BYTES as u64 + u64::from(last.sealed_len)
        {
            return input.fail(Defect::NotCanonical("position"));
        }
        let chunks_count = input.bounded("chunks", crate::block::CHUNKS_MAX)?;
        if chunks_count == 0 {
            return input.fail(Defect::NotCanonical("chunks"));
        }
        let mut chunks = Vec::new();
        let mut sum = 0u64;
        for _ in 0..chunks_count {
            let tag = input.u8()?;
            let Some(kind) = ChunkKind::from_u8(tag) else {
                return input.fail(Defect::Tag("chunk kind", u64::from(tag)));
            };
            let len = input.bounded("chunk length", u64::from(payload_len))? as u32;
            sum += u64::from(len);
            if len == 0 || sum > u64::from(payload_len) {
                return input.fail(Defect::NotCanonical("chunk length"));
            }
            let id = ChunkId(input.array()?);
            chunks.push(TocChunk { id, kind, len });
        }
        blocks.push(TocBlock {
            position,
            class,
            compressed,
            sealed_len,
            payload_len,
            chunks,
        });
    }
    input.end()?;
    Ok(blocks)
}

/// Builds one pack in memory: blocks in the order in which they come, then the tail.
pub struct PackBuilder {
    header: PackHeader,
    header_bytes: Vec<u8>,
    block_key: ObjectKey,
    repository: RepositoryId,
    bytes: Vec<u8>,
    blocks: Vec<TocBlock>,
}

/// A pack that is ready to be stored.
pub struct FinishedPack {
    pub id: PackId,
    pub bytes: Vec<u8>,
    pub blocks: Vec<TocBlock>,
}

impl PackBuilder {
    /// The pack is put together in `bytes`; what that holds is lost.
    pub fn new(
        repository: RepositoryId,
        header: PackHeader,
        session: &Secret,
        mut bytes: Vec<u8>,
    ) -> Self {
        let header_bytes = header.encode();
        bytes.clear();
        bytes.extend_from_slice(&header_bytes);
        Self {
            block_key: header.block_key(repository, session),
            header,
            header_bytes,
            repository,
            bytes,
            blocks: Vec::new(),
        }
    }

    /// Bytes so far, without the tail.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Seals and appends a block. `stored` is the payload or its zstd frame; `chunks` are the
    /// payload's, in order.
    pub fn push(
        &mut self,
        class: BlockClass,
        compressed: bool,
        stored: &[u8],
        payload_len: u32,
        chunks: Vec<TocChunk>,
    ) -> Result<(), DecodeError> {
        let header = BlockHeader {
            class,
            compressed,
            sealed_len: (stored.len() + TAG_BYTES) as u32,
            payload_len,
            position: self.bytes.len() as u64,
            counter: self.blocks.len() as u32,
        };
        let header_bytes = header.encode();
        BlockHeader::decode(&header_bytes)?;
        self.bytes.extend_from_slice(&header_bytes);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(stored);
        let counter = self
            .block_key
            .seal_tail(&header_bytes, &mut self.bytes, start)?;
        debug_assert_eq!(counter, u64::from(header.counter));
        self.blocks.push(TocBlock {
            position: header.position,
            class,
            compressed,
            sealed_len: header.sealed_len,
            payload_len,
            chunks,
        });
        Ok(())
    }

    /// Appends table of contents and trailer.
    pub fn finish(
        mut self,
        author: &AuthorKey,
        index: &Secret,
    ) -> Result<FinishedPack, DecodeError> {
        let mut toc = encode_toc(&self.blocks);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.bytes);
        let signature = author.sign(
            self.repository,
            Domain::TableOfContents,
            &signed_toc(&toc, hasher.finalize().as_bytes()),
        );
        toc.extend_from_slice(&signature);
        let toc_start = self.bytes.len();
        let place = (toc_start as u64).to_le_bytes();
        self.header
            .toc_key(self.repository, index)
            .seal(&place, &mut toc)?;
        self.bytes.extend_from_slice(&toc);
        self.bytes.extend_from_slice(&self.header_bytes);
        let tail = PackTail {
            toc_position: toc_start as u64,
            toc_len: toc.len(),
            header_len: self.header_bytes.len(),
        };
        self.bytes.extend_from_slice(&tail.encode());
        hasher.update(&self.bytes[toc_start..]);
        Ok(FinishedPack {
            id: PackId(*hasher.finalize().as_bytes()),
            bytes: self.bytes,
            blocks: self.blocks,
        })
    }
}

/// The signature covers the list and the bytes that it is about.
fn signed_toc(toc: &[u8], prefix_hash: &[u8; 32]) -> Vec<u8> {
    let mut message = prefix_hash.to_vec();
    message.extend_from_slice(toc);
    message
}

/// Where the tail of a pack lies, from its last [`TRAILER_TAIL_BYTES`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackTail {
    /// Where the sealed table of contents begins.
    pub toc_position: u64,
    pub toc_len: usize,
    pub header_len: usize,
}

impl PackTail {
    /// The last bytes of the pack.
    pub fn encode(&self) -> [u8; TRAILER_TAIL_BYTES] {
        let mut tail = [0; TRAILER_TAIL_BYTES];
        tail[..4].copy_from_slice(&(self.toc_len as u32).to_le_bytes());
        tail[4..8].copy_from_slice(&(self.header_len as u32).to_le_bytes());
        tail[8..].copy_from_slice(&TRAILER_MAGIC);
        tail
    }

    pub fn decode(pack_bytes: u64, tail: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("pack trailer", tail);
        let toc_len = input.u32()? as usize;
        let header_len = input.u32()? as usize;
        if input.array::<8>()? != TRAILER_MAGIC {
            return input.fail(Defect::Magic);
        }
        input.end()?;
        if toc_len > TOC_BYTES_MAX || header_len > PACK_HEADER_BYTES_MAX {
            return input.fail(Defect::TooLarge("pack trailer"));
        }
        let tail_len = (TRAILER_TAIL_BYTES + header_len + toc_len) as u64;
        match pack_bytes.checked_sub(tail_len) {
            Some(toc_position) => Ok(Self {
                toc_position,
                toc_len,
                header_len,
            }),
            None => input.fail(Defect::Truncated),
        }
    }
}

/// Opens the table of contents of a whole pack and checks its signature against the pack's bytes
/// and `header.author`.
pub fn open_toc(
    repository: RepositoryId,
    index: &Secret,
    pack: &[u8],
) -> Result<(PackHeader, Vec<TocBlock>), DecodeError> {
    let object = "pack trailer";
    let truncated = || DecodeError {
        object,
        defect: Defect::Truncated,
    };
    let start = pack
        .len()
        .checked_sub(TRAILER_TAIL_BYTES)
        .ok_or_else(truncated)?;
    let tail = PackTail::decode(pack.len() as u64, &pack[start..])?;
    let toc_start = tail.toc_position as usize;
    let toc_end = toc_start + tail.toc_len;
    let (header, header_len) = PackHeader::decode(&pack[toc_end..toc_end + tail.header_len])?;
    // Signed is what stands in front of the table; the copy behind it must say the same.
    if header_len != tail.header_len
        || pack[..toc_start].get(..header_len) != Some(&pack[toc_end..toc_end + header_len])
    {
        return Err(DecodeError {
            object,
            defect: Defect::NotAuthentic("copy of the header"),
        });
    }
    let mut sealed = pack[toc_start..toc_end].to_vec();
    let opened =
        header
            .toc_key(repository, index)
            .open(&tail.toc_position.to_le_bytes(), 0, &mut sealed)?;
    let toc_len = opened
        .len()
        .checked_sub(SIGNATURE_BYTES)
        .ok_or_else(truncated)?;
    let (toc, signature) = opened.split_at(toc_len);
    let mut signature_bytes = [0; SIGNATURE_BYTES];
    signature_bytes.copy_from_slice(signature);
    let prefix = blake3::hash(&pack[..toc_start]);
    verify(
        header.author,
        repository,
        Domain::TableOfContents,
        &signed_toc(toc, prefix.as_bytes()),
        &signature_bytes,
    )?;
    Ok((header, decode_toc(toc)?))
}

/// Opens a sealed table of contents that was read alone. Its signature cannot be checked without
/// the pack's bytes: only for readers, who check every chunk.
pub fn open_toc_tail(
    repository: RepositoryId,
    index: &Secret,
    header: &PackHeader,
    toc_position: u64,
    mut sealed: Vec<u8>,
) -> Result<Vec<TocBlock>, DecodeError> {
    let opened =
        header
            .toc_key(repository, index)
            .open(&toc_position.to_le_bytes(), 0, &mut sealed)?;
    match opened.len().checked_sub(SIGNATURE_BYTES) {
        Some(len) => decode_toc(&opened[..len]),
        None => Decoder::new("table of contents", &[]).fail(Defect::Truncated),
    }
}
