//! The content of one window: which chunks it needs, and their bytes, opened in pack order.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use podkeep_format::id::{ChunkId, ChunkKind};
use podkeep_format::segment::{BlockPlace, Place};
use rayon::prelude::*;

use crate::repo::reader::{Reader, is_fatal};
use crate::repo::{RepoError, RepoResult};

/// Where a chunk's bytes are, or why they are nowhere.
pub type Fetched = Result<(u32, Range<u32>), RepoError>;

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
        if let Some(place) = reader.index().places(id).first() {
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
        window.buffers.push(Arc::new(bytes));
        for (id, range) in chunks {
            let fetched = range.map(|range| (number, range));
            window.chunks.insert(id, fetched);
        }
    }
    Ok(window)
}

/// What a window needs of one block, copied together.
struct Gathered {
    bytes: Vec<u8>,
    chunks: Vec<(ChunkId, Result<Range<u32>, RepoError>)>,
}

fn gather(
    reader: &Reader,
    block: &BlockPlace,
    wanted: &[(ChunkId, Place)],
) -> RepoResult<Gathered> {
    let len = wanted.iter().map(|(_, place)| place.len as usize).sum();
    let mut bytes: Vec<u8> = Vec::with_capacity(len);
    let mut chunks = Vec::with_capacity(wanted.len());
    let opened = reader.block(block);
    if let Err(error) = &opened
        && is_fatal(error)
    {
        return Err(error.clone());
    }
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
            Ok(slice) => {
                let start = bytes.len() as u32;
                bytes.extend_from_slice(slice.as_ref());
                chunks.push((*id, Ok(start..bytes.len() as u32)));
            }
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => chunks.push((*id, Err(error))),
        }
    }
    Ok(Gathered { bytes, chunks })
}
