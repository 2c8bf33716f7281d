//! Cutting a content of which it is known how it was cut before it changed in places.
//!
//! A cut depends on little but what stands behind the cut before it. So a piece that is found again
//! at its place, behind a cut, is a piece of the new content, too; only around what is otherwise the
//! chunker has to run, until one of its cuts is a known one. And pieces can be looked for anywhere:
//! a part of the content is cut by itself as if its beginning were a cut, and what comes out holds
//! from the first of its cuts on that is one ([`Joining`]). The outcome is that of
//! [`Stream`](super::Stream), cut by cut.

use std::ops::Range;

use podkeep_format::id::{ChunkId, ChunkKind};
use podkeep_format::tree::Piece;

use super::{Chunking, Cut, PAGE_BYTES, Stream, ZERO_RUN_BYTES_MIN};

/// What the chunker is given at a time.
const FEED_BYTES: usize = 64 << 10;

/// How a content was cut.
#[derive(Clone, Debug, Default)]
pub struct KnownPieces {
    /// Where each ends, and its chunk; `None`: zeros.
    pieces: Vec<(u64, Option<ChunkId>)>,
}

impl KnownPieces {
    /// What one piece takes in memory, in bytes.
    pub const PIECE_BYTES: usize = size_of::<(u64, Option<ChunkId>)>();

    /// The next piece.
    pub fn push(&mut self, piece: &Piece) {
        let end = self.size() + piece.bytes();
        match piece {
            Piece::Chunk { id, .. } => self.pieces.push((end, Some(*id))),
            Piece::Zero { .. } => match self.pieces.last_mut() {
                Some((last, None)) => *last = end,
                _ => self.pieces.push((end, None)),
            },
        }
    }

    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes of the content.
    pub fn size(&self) -> u64 {
        self.pieces.last().map_or(0, |(end, _)| *end)
    }

    fn start(&self, index: usize) -> u64 {
        match index {
            0 => 0,
            _ => self.pieces[index - 1].0,
        }
    }

    fn len_of(&self, index: usize) -> u64 {
        self.pieces[index].0 - self.start(index)
    }

    /// The first piece that begins at or behind `offset`; the number of pieces if there is none.
    fn first_from(&self, offset: u64) -> usize {
        match offset {
            0 => 0,
            _ => self.pieces.partition_point(|(end, _)| *end < offset) + 1,
        }
        .min(self.pieces.len())
    }

    fn beginning_at(&self, offset: u64) -> Option<usize> {
        let index = self.first_from(offset);
        (index < self.pieces.len() && self.start(index) == offset).then_some(index)
    }

    /// Where parts of the content may begin, `bytes` apart at least; the first at 0.
    pub fn parts(&self, bytes: u64) -> Vec<u64> {
        let mut parts = vec![0];
        let mut last = 0;
        for (end, _) in &self.pieces {
            if *end - last >= bytes && *end < self.size() {
                parts.push(*end);
                last = *end;
            }
        }
        parts
    }
}

/// A content, read anywhere.
pub trait ContentAt {
    type Error;

    /// `len` bytes from `at` on, fewer only where the content ends before.
    fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8], Self::Error>;

    /// How many zeros stand from `at` on that need not be read.
    fn zeros(&self, at: u64) -> u64;
}

/// One cut of a part.
struct PartCut {
    end: u64,
    /// `None`: zeros.
    id: Option<ChunkId>,
    /// Its bytes, unless it is a known piece.
    new: Option<Range<usize>>,
}

/// A part of a content, cut by itself.
pub struct Part {
    start: u64,
    cuts: Vec<PartCut>,
    bytes: Vec<u8>,
}

impl Part {
    fn end(&self) -> u64 {
        self.cuts.last().map_or(self.start, |cut| cut.end)
    }
}

/// Cuts a content of `size` bytes from `from` on, as if there were a cut, to the first cut at or behind
/// `until`. `None`: the content is shorter than `size`.
pub fn cut_part<C: ContentAt>(
    chunking: &Chunking,
    known: &KnownPieces,
    content: &mut C,
    size: u64,
    from: u64,
    until: u64,
) -> Result<Option<Part>, C::Error> {
    let mut cutter = Cutter {
        chunking,
        known,
        content,
        size,
        looked_at: [None, None],
        part: Part {
            start: from,
            cuts: Vec::new(),
            bytes: Vec::new(),
        },
    };
    let whole = cutter.run(until.min(size))?;
    Ok(whole.then_some(cutter.part))
}

struct Cutter<'c, C> {
    chunking: &'c Chunking,
    known: &'c KnownPieces,
    content: &'c mut C,
    size: u64,
    /// The last two pieces that were compared.
    looked_at: [Option<(usize, Look)>; 2],
    part: Part,
}

/// What stands where a known piece was.
#[derive(Clone, Copy)]
struct Look {
    /// It stands there.
    same: bool,
    has_data: bool,
    /// Its last byte is none of a zero.
    ends_in_data: bool,
    /// So is one in that part of it which is in its last page.
    data_in_last_page: bool,
}

impl<C: ContentAt> Cutter<'_, C> {
    /// `false`: the content is too short.
    fn run(&mut self, until: u64) -> Result<bool, C::Error> {
        while self.part.end() < until {
            let at = self.part.end();
            let known = self.known.beginning_at(at);
            if let Some(index) = known
                && self.holds(index)?
            {
                self.take_over(index);
            } else if !self.chunk(at, until)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_over(&mut self, index: usize) {
        let (end, id) = self.known.pieces[index];
        self.part.cuts.push(PartCut { end, id, new: None });
    }

    fn look(&mut self, index: usize) -> Result<Look, C::Error> {
        let seen = self.looked_at.iter().flatten().find(|one| one.0 == index);
        if let Some((_, look)) = seen {
            return Ok(*look);
        }
        let at = self.known.start(index);
        let (end, id) = self.known.pieces[index];
        let look = match id {
            Some(id) => {
                let bytes = self.content.bytes(at, (end - at) as usize)?;
                let is_data = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
                let in_last_page = bytes.len().min(PAGE_BYTES);
                Look {
                    same: bytes.len() as u64 == end - at
                        && self.chunking.ids.chunk_id(ChunkKind::Data, bytes) == id,
                    has_data: is_data(bytes),
                    ends_in_data: bytes.last().is_some_and(|byte| *byte != 0),
                    data_in_last_page: is_data(&bytes[bytes.len() - in_last_page..]),
                }
            }
            // Enough of it to be a run.
            None => {
                let wanted = (end - at).min(ZERO_RUN_BYTES_MIN as u64);
                let same = self.content.zeros(at) >= wanted || {
                    let bytes = self.content.bytes(at, wanted as usize)?;
                    bytes.len() as u64 == wanted && bytes.iter().all(|byte| *byte == 0)
                };
                Look {
                    same,
                    has_data: false,
                    ends_in_data: false,
                    data_in_last_page: false,
                }
            }
        };
        self.looked_at = [self.looked_at[1], Some((index, look))];
        Ok(look)
    }

    /// Whether the chunker would cut this piece off here, where there is a cut. What it decides by
    /// are the piece and the first byte of the next one, and whether the piece's end is in a run of zeros
    /// or before one.
    fn holds(&mut self, index: usize) -> Result<bool, C::Error> {
        let (end, id) = self.known.pieces[index];
        if id.is_none() {
            return Ok(false);
        }
        let here = self.look(index)?;
        if !here.same {
            return Ok(false);
        }
        let Some((_, next_id)) = self.known.pieces.get(index + 1).copied() else {
            return Ok(end == self.size);
        };
        let next = self.look(index + 1)?;
        Ok(next.same
            && match next_id {
                Some(_) => here.ends_in_data || next.has_data,
                // A run begins where a page does.
                None => {
                    here.data_in_last_page
                        && end.is_multiple_of(PAGE_BYTES as u64)
                        && (self.known.len_of(index + 1) >= ZERO_RUN_BYTES_MIN as u64)
                }
            })
    }

    /// Lets the chunker run from `at` until one of its cuts is at or behind `until`, or one at which
    /// a known piece holds.
    fn chunk(&mut self, at: u64, until: u64) -> Result<bool, C::Error> {
        let chunking = self.chunking;
        let mut stream = Stream::behind(&chunking.chunker, at);
        let mut fed = at;
        let mut cuts: Vec<(u64, bool)> = Vec::new();
        let mut bytes = Vec::new();
        while fed < self.size {
            let mut emit = |cut: Cut<'_>| match cut {
                Cut::Chunk(chunk) => {
                    bytes.extend_from_slice(chunk);
                    cuts.push((chunk.len() as u64, true));
                }
                Cut::Zeros(len) => cuts.push((len, false)),
            };
            let zeros = self.content.zeros(fed).min(self.size - fed);
            match zeros {
                0 => {
                    let wanted = (self.size - fed).min(FEED_BYTES as u64) as usize;
                    let got = self.content.bytes(fed, wanted)?;
                    if got.len() < wanted {
                        return Ok(false);
                    }
                    stream.push(got, &mut emit);
                    fed += wanted as u64;
                }
                zeros => {
                    stream.hole(zeros, &mut emit);
                    fed += zeros;
                }
            }
            if fed == self.size {
                stream.finish(&mut emit);
            }
            let mut taken = 0;
            for (len, is_chunk) in cuts.drain(..) {
                self.new_cut(len, is_chunk.then(|| &bytes[taken..taken + len as usize]));
                taken += if is_chunk { len as usize } else { 0 };
                let end = self.part.end();
                let known = self.known.beginning_at(end);
                let holds = match known {
                    Some(index) if end < until => self.holds(index)?,
                    _ => end >= until,
                };
                if holds {
                    return Ok(true);
                }
            }
            bytes.clear();
        }
        Ok(true)
    }

    fn new_cut(&mut self, len: u64, chunk: Option<&[u8]>) {
        let end = self.part.end() + len;
        let bytes = &mut self.part.bytes;
        let start = bytes.len();
        let id = chunk.map(|chunk| {
            bytes.extend_from_slice(chunk);
            self.chunking.ids.chunk_id(ChunkKind::Data, chunk)
        });
        let new = id.map(|_| start..bytes.len());
        self.part.cuts.push(PartCut { end, id, new });
    }
}

/// Joins parts that follow one another to what the whole content is cut into.
#[derive(Default)]
pub struct Joining {
    /// Where the last cut is.
    pub at: u64,
}

impl Joining {
    /// Gives the pieces of a part that continue what was joined so far, each with its bytes unless it
    /// is known. `false`: the part is to be cut anew, from [`at`](Self::at) on.
    pub fn take(&mut self, part: &Part, give: &mut dyn FnMut(Piece, Option<&[u8]>)) -> bool {
        if part.end() <= self.at {
            return true;
        }
        let first = match self.at == part.start {
            true => 0,
            false => {
                let cut = part.cuts.partition_point(|cut| cut.end < self.at);
                // Near its beginning the part did not know what stands before it.
                let is_cut = self.at >= part.start + PAGE_BYTES as u64
                    && part.cuts.get(cut).is_some_and(|cut| cut.end == self.at);
                if !is_cut {
                    return false;
                }
                cut + 1
            }
        };
        for cut in &part.cuts[first..] {
            let len = cut.end - self.at;
            let piece = match cut.id {
                Some(id) => Piece::Chunk {
                    id,
                    len: len as u32,
                },
                None => Piece::Zero { len },
            };
            let bytes = cut.new.clone().map(|range| &part.bytes[range]);
            give(piece, bytes);
            self.at = cut.end;
        }
        true
    }
}
