//! Many chunks at once: their blocks are opened in pack order, in parallel, each once.
//!
//! Whoever reads much content gathers it in windows of bounded memory: chunk by chunk, a block
//! would be opened again each time that the content comes back to it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use podkeep_format::id::{ChunkId, ChunkKind};
use podkeep_format::segment::{BlockPlace, Place};
use rayon::prelude::*;

use super::blocks::OpenBlock;
use super::reader::{ChunkSlice, Reader, is_fatal};
use super::{RepoError, RepoResult};

/// Where a chunk's bytes are, or why they are nowhere.
pub type Fetched = Result<(u32, Range<u32>), RepoError>;

/// Content bytes of one window.
pub const WINDOW_BYTES: u64 = 24 << 20;
/// Pieces of one window.
pub const WINDOW_PIECES: usize = 1 << 16;

/// Bytes that were fetched for a window.
#[derive(Default)]
pub struct Window {
    pub buffers: Vec<Arc<Vec<u8>>>,
    pub chunks: HashMap<ChunkId, Fetched>,
}

/// Fetches the given chunks, each block once. A chunk that cannot be had is an entry that says
/// why; only a store that is gone ends the fetching.
pub fn fetch(reader: &Reader, wanted: &[ChunkId]) -> RepoResult<Window> {
    let mut window = Window::default();
    let mut by_block: BTreeMap<BlockPlace, Vec<(ChunkId, Place)>> = BTreeMap::new();
    for id in wanted {
        if window.chunks.contains_key(id) {
            continue;
        }
        let missing = Err(RepoError::Missing {
            object: format!("chunk {id}"),
        });
        window.chunks.insert(*id, missing);
        if let Some(place) = reader.places(id)?.first() {
            by_block.entry(place.block).or_default().push((*id, *place));
        }
    }
    let blocks: Vec<_> = by_block.into_iter().collect();
    let gathered: Vec<RepoResult<Gathered>> = blocks
        .par_iter()
        .map(|(block, chunks)| gather(reader, block, chunks))
        .collect();
    for block in gathered {
        let Gathered { bytes, chunks } = block?;
        let number = window.buffers.len() as u32;
        window.buffers.push(bytes);
        for (id, range) in chunks {
            let fetched = range.map(|range| (number, range));
            window.chunks.insert(id, fetched);
        }
    }
    Ok(window)
}

/// What a window needs of one block: the block itself where it needs most of it, else a copy of
/// the chunks.
struct Gathered {
    bytes: Arc<Vec<u8>>,
    chunks: Vec<(ChunkId, Result<Range<u32>, RepoError>)>,
}

fn gather(
    reader: &Reader,
    block: &BlockPlace,
    wanted: &[(ChunkId, Place)],
) -> RepoResult<Gathered> {
    let opened = reader.block(block);
    if let Err(error) = &opened
        && is_fatal(error)
    {
        return Err(error.clone());
    }
    let mut slices: Vec<(ChunkId, RepoResult<ChunkSlice>)> = Vec::with_capacity(wanted.len());
    for (id, place) in wanted {
        let slice = match &opened {
            Ok(open) => reader.slice(open, ChunkKind::Data, *id, place),
            Err(error) => Err(error.clone()),
        };
        // Not where it should be: it may lie somewhere else too.
        let slice = slice.or_else(|error| {
            reader
                .chunk(ChunkKind::Data, *id)
                .map_err(|other| if is_fatal(&other) { other } else { error })
        });
        match slice {
            Err(error) if is_fatal(&error) => return Err(error),
            slice => slices.push((*id, slice)),
        }
    }
    Ok(gathered(opened.ok().as_deref(), slices))
}

fn gathered(
    opened: Option<&OpenBlock>,
    slices: Vec<(ChunkId, RepoResult<ChunkSlice>)>,
) -> Gathered {
    let len: usize = slices.iter().flat_map(|(_, s)| s).map(|s| s.len).sum();
    let whole = opened
        .map(|open| &open.payload)
        .filter(|payload| len >= payload.len() / 4 * 3)
        .filter(|payload| {
            let mut found = slices.iter().flat_map(|(_, slice)| slice);
            found.all(|slice| Arc::ptr_eq(&slice.block, payload))
        });
    let range = |start: usize, len: usize| start as u32..(start + len) as u32;
    if let Some(payload) = whole {
        let ranges = |slice: ChunkSlice| range(slice.start, slice.len);
        let chunks = slices.into_iter().map(|(id, s)| (id, s.map(ranges)));
        return Gathered {
            bytes: Arc::clone(payload),
            chunks: chunks.collect(),
        };
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(len);
    let mut copy = |slice: ChunkSlice| {
        bytes.extend_from_slice(slice.as_ref());
        range(bytes.len() - slice.len, slice.len)
    };
    let chunks = slices.into_iter().map(|(id, s)| (id, s.map(&mut copy)));
    let chunks = chunks.collect();
    Gathered {
        bytes: Arc::new(bytes),
        chunks,
    }
}
