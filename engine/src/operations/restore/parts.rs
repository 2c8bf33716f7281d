//! The parts of a file's content: where their bytes come from, and where they lie once they are fetched.

use std::collections::HashMap;
use std::ops::Range;

use podkeep_format::id::ChunkId;
use podkeep_format::recipe::Recipe;
use podkeep_format::tree::{Content, Piece};

use crate::fs::{FilePart, PartBytes};
use crate::repo::reader::{Pieces, Reader};
use crate::repo::recipes::{PartSource, RecipePart, SliceOf};
use crate::repo::{RepoError, RepoResult, window};

/// A part of a file's content that is waiting in the window.
pub enum WaitingPart {
    Inline {
        offset: u64,
        bytes: Vec<u8>,
    },
    Chunk {
        offset: u64,
        len: u32,
        id: ChunkId,
    },
    /// Of a layer that is rebuilt: always fetched.
    Slice {
        offset: u64,
        len: u32,
        of: SliceOf,
    },
    Zeros {
        offset: u64,
        len: u64,
    },
}

impl WaitingPart {
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline { bytes, .. } => bytes.len() as u64,
            Self::Chunk { len, .. } | Self::Slice { len, .. } => u64::from(*len),
            Self::Zeros { len, .. } => *len,
        }
    }
}

/// The parts of a content of `size` bytes in order.
pub fn file_parts<'r>(
    reader: &'r Reader,
    size: u64,
    content: &Content,
) -> Box<dyn Iterator<Item = RepoResult<WaitingPart>> + 'r> {
    match content {
        Content::Inline(bytes) if bytes.is_empty() => Box::new(std::iter::empty()),
        Content::Inline(bytes) => Box::new(std::iter::once(Ok(WaitingPart::Inline {
            offset: 0,
            bytes: bytes.clone(),
        }))),
        Content::Pieces(_) | Content::List { .. } => {
            Box::new(piece_parts(reader.pieces(content), size))
        }
        Content::Recipe { id } => match reader.recipe_of_file(*id, size) {
            Ok(recipe) => layer_parts(reader, &recipe),
            Err(error) => Box::new(std::iter::once(Err(error))),
        },
    }
}

/// The parts of a layer's tar in order.
pub fn layer_parts<'r>(
    reader: &'r Reader,
    recipe: &Recipe,
) -> Box<dyn Iterator<Item = RepoResult<WaitingPart>> + 'r> {
    let parts = reader.recipe_parts(recipe);
    Box::new(parts.map(|part| Ok(layer_part(part?))))
}

/// The pieces of a content that must have `size` bytes: a list can hold more or less than its
/// entry says, and neither may come to stand under the file's name.
fn piece_parts(mut pieces: Pieces<'_>, size: u64) -> impl Iterator<Item = RepoResult<WaitingPart>> {
    let mut offset: u64 = 0;
    let mut ended = false;
    let other_size = move || RepoError::Damaged {
        object: "its content".into(),
        cause: format!("it has not the {size} bytes that its entry says"),
    };
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let start = offset;
        let part = match pieces.next() {
            Some(Ok(piece)) => {
                offset = offset.saturating_add(piece.bytes());
                match piece {
                    _ if offset > size => Err(other_size()),
                    Piece::Chunk { id, len } => Ok(WaitingPart::Chunk {
                        offset: start,
                        len,
                        id,
                    }),
                    Piece::Zero { len } => Ok(WaitingPart::Zeros { offset: start, len }),
                }
            }
            Some(Err(error)) => Err(error),
            None if offset < size => Err(other_size()),
            None => {
                ended = true;
                return None;
            }
        };
        ended = part.is_err();
        Some(part)
    })
}

fn layer_part(part: RecipePart) -> WaitingPart {
    let RecipePart { offset, len, .. } = part;
    match part.source {
        PartSource::Inline(bytes) => WaitingPart::Inline { offset, bytes },
        PartSource::Zeros => WaitingPart::Zeros { offset, len },
        PartSource::Chunk(of) => WaitingPart::Slice {
            offset,
            // Not longer than a chunk.
            len: len as u32,
            of,
        },
    }
}

/// The chunks of a file that the target does not have.
pub fn wanted<'f>(
    parts: &'f [WaitingPart],
    present: &'f [bool],
) -> impl Iterator<Item = ChunkId> + use<'f> {
    let mut present = present.iter();
    parts.iter().filter_map(move |part| match part {
        WaitingPart::Chunk { id, .. } => {
            let is_present = present.next().copied().unwrap_or(false);
            (!is_present).then_some(*id)
        }
        WaitingPart::Slice { of, .. } => Some(of.id),
        WaitingPart::Inline { .. } | WaitingPart::Zeros { .. } => None,
    })
}

/// A file's parts with their bytes, or why one of them cannot be had.
pub fn with_bytes(
    waiting: &[WaitingPart],
    present: &[bool],
    chunks: &HashMap<ChunkId, window::Fetched>,
    inline: u32,
    inline_bytes: &mut Vec<u8>,
) -> Result<Vec<FilePart>, String> {
    let mut present = present.iter();
    let mut parts: Vec<FilePart> = Vec::with_capacity(waiting.len());
    for part in waiting {
        let (offset, bytes) = match part {
            WaitingPart::Inline { offset, bytes } => {
                let start = inline_bytes.len() as u32;
                inline_bytes.extend_from_slice(bytes);
                let range = start..inline_bytes.len() as u32;
                let buffer = inline;
                (*offset, PartBytes::Data { buffer, range })
            }
            WaitingPart::Zeros { offset, len } => (*offset, PartBytes::Zeros { len: *len }),
            WaitingPart::Chunk { offset, len, .. } if present.next().copied().unwrap_or(false) => {
                let len = u64::from(*len);
                (*offset, PartBytes::Present { len })
            }
            WaitingPart::Chunk { offset, len, id } => {
                let (buffer, range) = fetched(chunks, *id, *len)?;
                (*offset, PartBytes::Data { buffer, range })
            }
            WaitingPart::Slice { offset, len, of } => {
                let (buffer, chunk) = fetched(chunks, of.id, of.chunk_len)?;
                // The parts of a recipe lie inside their chunks.
                let start = chunk.start + of.skip;
                let range = start..start + len;
                (*offset, PartBytes::Data { buffer, range })
            }
        };
        if let PartBytes::Data { buffer, range } = &bytes
            && extends(parts.last_mut(), offset, *buffer, range)
        {
            continue;
        }
        parts.push(FilePart { offset, bytes });
    }
    Ok(parts)
}

/// Where a chunk of `len` bytes was fetched to.
fn fetched(
    chunks: &HashMap<ChunkId, window::Fetched>,
    id: ChunkId,
    len: u32,
) -> Result<(u32, Range<u32>), String> {
    match chunks.get(&id) {
        Some(Ok((buffer, range))) if range.len() == len as usize => Ok((*buffer, range.clone())),
        Some(Ok(_)) => Err(format!("chunk {id} has another length")),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("chunk {id} was not fetched")),
    }
}

/// Takes a chunk into the part before it, when it follows in the file and in the buffer.
fn extends(last: Option<&mut FilePart>, offset: u64, buffer: u32, range: &Range<u32>) -> bool {
    if let Some(FilePart {
        offset: start,
        bytes: PartBytes::Data {
            buffer: before,
            range: bytes,
        },
    }) = last
        && *before == buffer
        && bytes.end == range.start
        && *start + u64::from(bytes.end - bytes.start) == offset
    {
        bytes.end = range.end;
        return true;
    }
    false
}

/// The parts of a run of zeros that lie outside the file's holes: they were allocated.
pub fn outside(holes: &[(u64, u64)], start: u64, len: u64) -> Vec<(u64, u64)> {
    let end = start + len;
    let mut at = start;
    let mut parts = Vec::new();
    let first = holes.partition_point(|(offset, len)| offset + len <= start);
    for (hole, hole_len) in &holes[first..] {
        if *hole >= end {
            break;
        }
        if *hole > at {
            parts.push((at, hole - at));
        }
        at = at.max(hole + hole_len);
    }
    if at < end {
        parts.push((at, end - at));
    }
    parts
}
