//! What files hold ("Contents" in the specification), as it stands in an entry or in a recipe.

use super::{INLINE_BYTES_MAX, LEVELS_MAX, PIECE_BYTES_MAX, PIECES_INLINE_MAX};
use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::{ChunkId, ListId};
use crate::recipe::LAYER_BYTES_MAX;

/// The types of entries that are files.
pub(crate) const INLINE: u8 = 1;
pub(crate) const PIECES: u8 = 2;
pub(crate) const LIST: u8 = 3;
pub(crate) const RECIPE: u8 = 10;

/// A part of a content: a chunk, or a run of zeros (whether allocated or not).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Chunk { id: ChunkId, len: u32 },
    Zero { len: u64 },
}

impl Piece {
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Chunk { len, .. } => u64::from(*len),
            Self::Zero { len } => *len,
        }
    }
}

/// What a file holds, canonical whatever its allocation on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// 0 to [`INLINE_BYTES_MAX`] bytes.
    Inline(Vec<u8>),
    /// 1 to [`PIECES_INLINE_MAX`] pieces; two zero runs never follow each other.
    Pieces(Vec<Piece>),
    /// A list node of `level` (0: its body holds pieces, else lists of `level - 1`).
    List { id: ListId, level: u8 },
    /// A chunk of kind `Recipe`: the content is the tar that it describes.
    Recipe { id: ChunkId },
}

impl Content {
    /// The type of an entry with this content.
    pub(crate) fn tag(&self) -> u8 {
        match self {
            Self::Inline(_) => INLINE,
            Self::Pieces(_) => PIECES,
            Self::List { .. } => LIST,
            Self::Recipe { .. } => RECIPE,
        }
    }
}

/// Appends what stands in an entry of the content's type.
pub(crate) fn encode_content(size: u64, content: &Content, out: &mut Encoder) {
    match content {
        Content::Inline(bytes) => {
            out.bytes(bytes);
        }
        Content::Pieces(pieces) => {
            out.varint(size);
            encode_pieces(pieces, out);
        }
        Content::List { id, level } => {
            out.varint(size).u8(*level).raw(&id.0);
        }
        Content::Recipe { id } => {
            out.varint(size).raw(&id.0);
        }
    }
}

/// Takes the content of an entry of type `tag`, and its size, off `input`.
pub(crate) fn decode_content(
    input: &mut Decoder<'_>,
    tag: u8,
) -> Result<(u64, Content), DecodeError> {
    if tag == INLINE {
        let bytes = input.bytes("inline content", INLINE_BYTES_MAX)?.to_vec();
        return Ok((bytes.len() as u64, Content::Inline(bytes)));
    }
    let size_max = if tag == RECIPE {
        LAYER_BYTES_MAX
    } else {
        i64::MAX as u64
    };
    let size = input.bounded("file size", size_max)?;
    if tag == RECIPE {
        let id = ChunkId(input.array()?);
        return Ok((size, Content::Recipe { id }));
    }
    if size == 0 {
        return input.fail(Defect::NotCanonical("file size"));
    }
    if tag == LIST {
        let level = input.u8()?;
        if level > LEVELS_MAX {
            return input.fail(Defect::TooLarge("content level"));
        }
        return Ok((
            size,
            Content::List {
                id: ListId(input.array()?),
                level,
            },
        ));
    }
    let pieces = decode_pieces(input, PIECES_INLINE_MAX)?;
    if pieces_bytes(&pieces) != Some(size) {
        return input.fail(Defect::NotCanonical("file size"));
    }
    Ok((size, Content::Pieces(pieces)))
}

fn pieces_bytes(pieces: &[Piece]) -> Option<u64> {
    pieces
        .iter()
        .try_fold(0u64, |sum, piece| sum.checked_add(piece.bytes()))
}

pub(super) fn encode_pieces(pieces: &[Piece], out: &mut Encoder) {
    out.varint(pieces.len() as u64);
    for piece in pieces {
        match piece {
            // A chunk is never empty, so that 0 is free to announce a run of zeros.
            Piece::Chunk { id, len } => out.varint(u64::from(*len)).raw(&id.0),
            Piece::Zero { len } => out.u8(0).varint(*len),
        };
    }
}

pub(super) fn decode_pieces(
    input: &mut Decoder<'_>,
    max: usize,
) -> Result<Vec<Piece>, DecodeError> {
    let count = input.bounded("pieces", max as u64)? as usize;
    if count == 0 {
        return input.fail(Defect::NotCanonical("pieces"));
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for _ in 0..count {
        let len = input.bounded("chunk length", u64::from(PIECE_BYTES_MAX))?;
        if len > 0 {
            pieces.push(Piece::Chunk {
                id: ChunkId(input.array()?),
                len: len as u32,
            });
        } else {
            let len = input.bounded("zero run", i64::MAX as u64)?;
            if len == 0 || matches!(pieces.last(), Some(Piece::Zero { .. })) {
                return input.fail(Defect::NotCanonical("zero run"));
            }
            pieces.push(Piece::Zero { len });
        }
    }
    if pieces_bytes(&pieces).is_none_or(|bytes| bytes > i64::MAX as u64) {
        return input.fail(Defect::TooLarge("content size"));
    }
    Ok(pieces)
}
