//! Content lists: long contents, split by chunk id ("Contents" in the specification).

use super::content::{decode_pieces, encode_pieces};
use super::{
    Content, LEVELS_MAX, LIST_PIECES_MAX, LIST_PIECES_MIN, LIST_SPLIT_BITS, PIECES_INLINE_MAX,
    Piece,
};
use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::{ChunkId, ChunkIdKey, ChunkKind, ListId};

/// The body of a content list node (a chunk of kind `List`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListNode {
    Pieces(Vec<Piece>),
    /// `level` 1 and up: each child, which is of `level - 1`, and the bytes that it stands for.
    Lists {
        level: u8,
        children: Vec<(ListId, u64)>,
    },
}

impl ListNode {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        match self {
            Self::Pieces(pieces) => {
                out.u8(0);
                encode_pieces(pieces, &mut out);
            }
            Self::Lists { level, children } => {
                out.u8(*level).varint(children.len() as u64);
                for (id, bytes) in children {
                    out.raw(&id.0).varint(*bytes);
                }
            }
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("content list", bytes);
        let node = match input.u8()? {
            0 => Self::Pieces(decode_pieces(&mut input, LIST_PIECES_MAX)?),
            level if level <= LEVELS_MAX => {
                let count = input.bounded("children", LIST_PIECES_MAX as u64)?;
                if count == 0 {
                    return input.fail(Defect::NotCanonical("children"));
                }
                let mut children = Vec::new();
                let mut room = i64::MAX as u64;
                for _ in 0..count {
                    let id = ListId(input.array()?);
                    let bytes = input.bounded("content size", room)?;
                    if bytes == 0 {
                        return input.fail(Defect::NotCanonical("content size"));
                    }
                    room -= bytes;
                    children.push((id, bytes));
                }
                Self::Lists { level, children }
            }
            other => return input.fail(Defect::Tag("content level", u64::from(other))),
        };
        input.end()?;
        Ok(node)
    }
}

/// Gathers a file's pieces in order and yields its content; list nodes that a long content needs
/// go to `emit` as soon as they are full, so that memory does not grow with the file.
pub struct ContentBuilder {
    pieces: Vec<Piece>,
    /// Levels of a list under construction; empty while the content is short.
    levels: Vec<Vec<(ListId, u64)>>,
    listed: bool,
    size: u64,
}

impl Default for ContentBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ContentBuilder {
    pub fn new() -> Self {
        Self {
            pieces: Vec::new(),
            levels: Vec::new(),
            listed: false,
            size: 0,
        }
    }

    /// Bytes pushed so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `piece` is not empty. A zero run that follows a zero run is joined to it.
    pub fn push(&mut self, key: &ChunkIdKey, piece: Piece, emit: &mut dyn FnMut(ChunkId, Vec<u8>)) {
        self.size += piece.bytes();
        if let (Some(Piece::Zero { len }), Piece::Zero { len: more }) =
            (self.pieces.last_mut(), &piece)
        {
            *len += more;
            return;
        }
        if !self.listed && self.pieces.len() >= PIECES_INLINE_MAX {
            self.listed = true;
            let pieces = std::mem::take(&mut self.pieces);
            for piece in pieces {
                self.push_listed(key, piece, emit);
            }
        }
        if self.listed {
            self.push_listed(key, piece, emit);
        } else {
            self.pieces.push(piece);
        }
    }

    fn push_listed(
        &mut self,
        key: &ChunkIdKey,
        piece: Piece,
        emit: &mut dyn FnMut(ChunkId, Vec<u8>),
    ) {
        // The cut is made before the next piece, so that a zero run at the end of a node can
        // still grow.
        let cut = match self.pieces.last() {
            Some(Piece::Chunk { id, .. }) if self.pieces.len() >= LIST_PIECES_MIN => {
                split_here(id.as_bytes())
            }
            _ => false,
        };
        if cut || self.pieces.len() >= LIST_PIECES_MAX {
            self.flush_pieces(key, emit);
        }
        self.pieces.push(piece);
    }

    fn flush_pieces(&mut self, key: &ChunkIdKey, emit: &mut dyn FnMut(ChunkId, Vec<u8>)) {
        let pieces = std::mem::take(&mut self.pieces);
        let bytes = pieces.iter().map(Piece::bytes).sum();
        let id = emit_list(key, &ListNode::Pieces(pieces), emit);
        self.push_child(key, 0, id, bytes, emit);
    }

    fn push_child(
        &mut self,
        key: &ChunkIdKey,
        level: usize,
        id: ListId,
        bytes: u64,
        emit: &mut dyn FnMut(ChunkId, Vec<u8>),
    ) {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let full = self.levels[level].len() >= LIST_PIECES_MAX
            || (self.levels[level].len() >= LIST_PIECES_MIN
                && self.levels[level]
                    .last()
                    .is_some_and(|(id, _)| split_here(&id.0)));
        if full {
            let (id, bytes) = flush_level(key, level, &mut self.levels[level], emit);
            self.push_child(key, level + 1, id, bytes, emit);
        }
        self.levels[level].push((id, bytes));
    }

    /// The content of what was pushed. A content of at most
    /// [`INLINE_BYTES_MAX`](super::INLINE_BYTES_MAX) bytes is not pushed: its caller makes
    /// [`Content::Inline`] of it.
    pub fn finish(mut self, key: &ChunkIdKey, emit: &mut dyn FnMut(ChunkId, Vec<u8>)) -> Content {
        if !self.listed {
            if self.pieces.is_empty() {
                return Content::Inline(Vec::new());
            }
            return Content::Pieces(self.pieces);
        }
        if !self.pieces.is_empty() {
            self.flush_pieces(key, emit);
        }
        let mut level = 0;
        loop {
            if level + 1 == self.levels.len() && self.levels[level].len() == 1 {
                let (id, _) = self.levels[level][0];
                return Content::List {
                    id,
                    level: level as u8,
                };
            }
            if !self.levels[level].is_empty() {
                let (id, bytes) = flush_level(key, level, &mut self.levels[level], emit);
                self.push_child(key, level + 1, id, bytes, emit);
            }
            level += 1;
        }
    }
}

fn split_here(id: &[u8; 32]) -> bool {
    let tail = u64::from_le_bytes([
        id[24], id[25], id[26], id[27], id[28], id[29], id[30], id[31],
    ]);
    tail.trailing_zeros() >= LIST_SPLIT_BITS
}

fn flush_level(
    key: &ChunkIdKey,
    level: usize,
    children: &mut Vec<(ListId, u64)>,
    emit: &mut dyn FnMut(ChunkId, Vec<u8>),
) -> (ListId, u64) {
    let children = std::mem::take(children);
    let bytes = children.iter().map(|(_, bytes)| bytes).sum();
    let node = ListNode::Lists {
        level: level as u8 + 1,
        children,
    };
    (emit_list(key, &node, emit), bytes)
}

fn emit_list(key: &ChunkIdKey, node: &ListNode, emit: &mut dyn FnMut(ChunkId, Vec<u8>)) -> ListId {
    let bytes = node.encode();
    let id = key.chunk_id(ChunkKind::List, &bytes);
    emit(id, bytes);
    ListId(id.0)
}
