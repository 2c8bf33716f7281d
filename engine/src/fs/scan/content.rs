//! The content of one regular file, as chunks and runs of zeros, and where its holes are.
//!
//! A file is read up to the size that it had when it was opened. What comes out is consistent
//! with itself whatever happens to the file meanwhile: its size is the number of bytes that were
//! read (or stood for), and a hole is only recorded where the content has zeros.

use std::os::fd::OwnedFd;

use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkId, ChunkKind};
use podkeep_format::tree::{
    Content, ContentBuilder, HOLE_GRAIN, HOLES_MAX, INLINE_BYTES_MAX, Piece,
};
use rustix::buffer::spare_capacity;
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, pread};

use super::stat::Stat;
use super::work::{Failure, Worker};
use crate::chunk::known::KnownPieces;
use crate::chunk::{Cut, Stream};

/// Files below this are read into memory whole, and packed with other small ones.
pub(crate) const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;
/// Larger ones are read in pieces of this many bytes.
pub(crate) const WINDOW_BYTES: usize = 256 << 10;

pub(crate) struct FileContent {
    pub size: u64,
    pub content: Content,
    pub holes: Vec<(u64, u64)>,
    /// How it was cut, if that is to be known when it is read again.
    pub pieces: Option<KnownPieces>,
}

impl Worker<'_> {
    /// Reads a file that `stat` was just told of, and stages its chunks.
    pub fn content(&mut self, file: &OwnedFd, stat: &Stat) -> Result<FileContent, Failure> {
        if stat.size < SMALL_FILE_BYTES_MAX {
            self.small_content(file, stat)
        } else {
            self.large_content(file, stat)
        }
    }

    fn small_content(&mut self, file: &OwnedFd, stat: &Stat) -> Result<FileContent, Failure> {
        let wanted = stat.size as usize;
        let bytes = &mut self.stage.bytes;
        let start = bytes.len();
        bytes.reserve(wanted);
        while bytes.len() - start < wanted {
            let offset = (bytes.len() - start) as u64;
            match pread(file, spare_capacity(bytes), offset) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    bytes.truncate(start);
                    return Err(Failure::Unreadable("read", errno));
                }
            }
        }
        // The spare room was larger than the file: what grew meanwhile is not taken.
        bytes.truncate(start + wanted);
        let size = bytes.len() - start;
        self.stage.counts.bytes_read += size as u64;

        let mut holes = Vec::new();
        if stat.blocks * 512 < stat.size {
            let mut found = Holes::default();
            let mut at = 0;
            while let Some((data, end)) = next_data(file, at, size as u64)? {
                found.push(at, data, size as u64);
                at = end;
            }
            found.push(at, size as u64, size as u64);
            holes = found.ranges;
            holes.retain(|(offset, len)| {
                let hole = start + *offset as usize..start + (*offset + *len) as usize;
                self.stage.bytes[hole].iter().all(|byte| *byte == 0)
            });
        }

        let chunking = self.shared.chunking.clone();
        let content = &self.stage.bytes[start..];
        if size <= INLINE_BYTES_MAX {
            let content = if size > 0 && content.iter().all(|byte| *byte == 0) {
                Content::Pieces(vec![Piece::Zero { len: size as u64 }])
            } else {
                Content::Inline(content.to_vec())
            };
            self.stage.bytes.truncate(start);
            return Ok(FileContent {
                size: size as u64,
                content,
                holes,
                pieces: None,
            });
        }
        let mut builder = ContentBuilder::new();
        let mut lists: Vec<(ChunkId, Vec<u8>)> = Vec::new();
        let mut found = Vec::new();
        let mut at = start;
        chunking.chunker.cut_whole(content, &mut |cut| {
            let piece = match cut {
                Cut::Chunk(bytes) => {
                    let id = chunking.ids.chunk_id(ChunkKind::Data, bytes);
                    found.push((id, at..at + bytes.len()));
                    at += bytes.len();
                    Piece::Chunk {
                        id,
                        len: bytes.len() as u32,
                    }
                }
                Cut::Zeros(len) => {
                    at += len as usize;
                    Piece::Zero { len }
                }
            };
            builder.push(&chunking.ids, piece, &mut |id, list| lists.push((id, list)));
        });
        let content = builder.finish(&chunking.ids, &mut |id, list| lists.push((id, list)));
        for (id, range) in found {
            self.stage
                .found(id, ChunkKind::Data, BlockClass::Small, range);
        }
        for (id, list) in lists {
            self.stage.add(id, ChunkKind::List, BlockClass::Meta, &list);
        }
        Ok(FileContent {
            size: size as u64,
            content,
            holes,
            pieces: None,
        })
    }

    fn large_content(&mut self, file: &OwnedFd, stat: &Stat) -> Result<FileContent, Failure> {
        if let Some(known) = self.known_pieces(stat)
            && let Some(content) = self.changed_content(file, stat, &known)?
        {
            return Ok(content);
        }
        let chunking = self.shared.chunking.clone();
        let mut builder = ContentBuilder::new();
        let mut pieces = self.shared.known.as_ref().map(|_| KnownPieces::default());
        let mut stream = Stream::new(&chunking.chunker);
        let mut holes = Holes::default();
        let mut size = stat.size;
        let mut at = 0;
        while at < size {
            let (data, end) = match next_data(file, at, size)? {
                Some(extent) => extent,
                None => {
                    // A hole to the end, or the file was cut meanwhile.
                    let now = Stat::of(file).map_err(|e| Failure::Unreadable("stat", e))?;
                    size = size.min(now.size.max(at));
                    (size, size)
                }
            };
            holes.push(at, data, stat.size);
            stream.hole(data - at, &mut |cut| {
                let piece = self
                    .stage
                    .cut_piece(&chunking, &mut builder, BlockClass::Large, cut);
                note(&mut pieces, &piece);
            });
            at = data;
            while at < end {
                if self.shared.is_stopped() {
                    return Err(Failure::Stopped);
                }
                let room = (end - at).min(WINDOW_BYTES as u64) as usize;
                self.window.resize(WINDOW_BYTES, 0);
                let got = match pread(file, &mut self.window[..room], at) {
                    Ok(got) => got,
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(Failure::Unreadable("read", errno)),
                };
                if got == 0 {
                    size = at;
                    break;
                }
                at += got as u64;
                self.stage.counts.bytes_read += got as u64;
                stream.push(&self.window[..got], &mut |cut| {
                    let piece =
                        self.stage
                            .cut_piece(&chunking, &mut builder, BlockClass::Large, cut);
                    note(&mut pieces, &piece);
                });
                if self.stage.is_large() {
                    self.hand_over()?;
                }
            }
        }
        stream.finish(&mut |cut| {
            let piece = self
                .stage
                .cut_piece(&chunking, &mut builder, BlockClass::Large, cut);
            note(&mut pieces, &piece);
        });
        let size = builder.size();
        let content = builder.finish(&chunking.ids, &mut |id, list| {
            self.stage.add(id, ChunkKind::List, BlockClass::Meta, &list)
        });
        if self.stage.is_large() {
            self.hand_over()?;
        }
        Ok(FileContent {
            size,
            content,
            holes: holes.cut_at(size),
            pieces,
        })
    }
}

fn note(pieces: &mut Option<KnownPieces>, piece: &Piece) {
    if let Some(pieces) = pieces {
        pieces.push(piece);
    }
}

/// The next extent of data at or behind `from`, cut at `size`. `None`: only a hole follows.
pub(super) fn next_data(
    file: &OwnedFd,
    from: u64,
    size: u64,
) -> Result<Option<(u64, u64)>, Failure> {
    let data = match seek(file, SeekFrom::Data(from)) {
        Ok(data) => data,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that cannot tell: all is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => return Ok(Some((from, size))),
        Err(errno) => return Err(Failure::Unreadable("seek in", errno)),
    };
    if data >= size {
        return Ok(None);
    }
    match seek(file, SeekFrom::Hole(data)) {
        Ok(hole) if hole > data => Ok(Some((data, hole.min(size)))),
        // The file was cut meanwhile; reading will tell.
        Ok(_) | Err(Errno::NXIO) => Ok(Some((data, size))),
        Err(errno) => Err(Failure::Unreadable("seek in", errno)),
    }
}

/// Collects holes in whole grains, rounded inwards.
#[derive(Default)]
pub(crate) struct Holes {
    pub ranges: Vec<(u64, u64)>,
}

impl Holes {
    /// `size`: of the whole file, where the last hole may end.
    pub fn push(&mut self, start: u64, end: u64, size: u64) {
        let start = start.next_multiple_of(HOLE_GRAIN);
        let end = if end == size {
            end
        } else {
            end / HOLE_GRAIN * HOLE_GRAIN
        };
        if start >= end {
            return;
        }
        if let Some((offset, len)) = self.ranges.last_mut()
            && *offset + *len == start
        {
            *len = end - *offset;
        } else if self.ranges.len() < HOLES_MAX {
            self.ranges.push((start, end - start));
        }
    }

    /// The holes of a file that turned out to be shorter.
    fn cut_at(mut self, size: u64) -> Vec<(u64, u64)> {
        self.ranges.retain_mut(|(offset, len)| {
            *len = (*len).min(size.saturating_sub(*offset));
            *len > 0
        });
        // The last one may have ended at the size that was expected, which is no grain.
        if let Some((offset, len)) = self.ranges.last_mut()
            && *offset + *len != size
        {
            *len = *len / HOLE_GRAIN * HOLE_GRAIN;
        }
        self.ranges.retain(|(_, len)| *len > 0);
        self.ranges
    }
}
