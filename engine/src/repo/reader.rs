//! Reading chunks back: every byte is checked against the chunk's id before anybody sees it.
//!
//! Blocks that were opened are kept in a bounded cache, since neighbours are asked for next.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use podkeep_format::block::{BlockClass, HEADER_BYTES};
use podkeep_format::id::{ChunkId, ChunkKind, PackId};
use podkeep_format::names;
use podkeep_format::pack::{PACK_HEADER_BYTES_MAX, PackHeader, PackTail, TRAILER_TAIL_BYTES};
use podkeep_format::seal::ObjectKey;
use podkeep_format::segment::{BlockPlace, Place};

use super::blocks::{self, OpenBlock};
use super::index::Index;
pub use super::trees::{
    ContentPart, ContentParts, DirectoryEntries, Pieces, TreeNodes, root_entry,
};
use super::{RepoError, RepoResult, Repository, Vault, name};
use crate::store::{ObjectName, ObjectStore, StoreErrorKind};

/// Bytes of opened blocks that are kept: of trees and lists, and of content. Apart, so that
/// restoring content does not push out the trees that it walks.
const CACHE_BYTES_MAX: [usize; 2] = [12 << 20, 16 << 20];
/// Read first of a pack: a header with one recipient is much shorter, any pack is longer.
const HEAD_BYTES: usize = 384;

/// A chunk's bytes inside an opened block.
#[derive(Clone)]
pub struct ChunkSlice {
    pub block: Arc<Vec<u8>>,
    pub start: usize,
    pub len: usize,
}

impl AsRef<[u8]> for ChunkSlice {
    fn as_ref(&self) -> &[u8] {
        &self.block[self.start..self.start + self.len]
    }
}

/// Reads chunks; used from many threads at once.
pub struct Reader {
    store: Arc<dyn ObjectStore>,
    vault: Arc<Vault>,
    index: Arc<Index>,
    keys: Mutex<HashMap<PackId, Arc<ObjectKey>>>,
    caches: [Mutex<Cache>; 2],
    /// What the blocks hold that were opened: one that is opened again counts again.
    bytes_decoded: AtomicU64,
    /// Whether the index was brought up to date since it was loaded.
    caught_up: Mutex<bool>,
    /// Packs that are not in the store, and in which chunks were looked for that are nowhere else.
    missed: Mutex<BTreeSet<PackId>>,
}

#[derive(Default)]
struct Cache {
    blocks: HashMap<BlockPlace, Arc<OpenBlock>>,
    order: VecDeque<BlockPlace>,
    bytes: usize,
}

impl Reader {
    /// Needs a full key.
    pub fn new(repo: &Repository, index: Arc<Index>) -> RepoResult<Self> {
        repo.require_full("read what is stored")?;
        Ok(Self {
            store: repo.store_arc(),
            vault: repo.vault_arc(),
            index,
            keys: Mutex::default(),
            caches: Default::default(),
            bytes_decoded: AtomicU64::new(0),
            caught_up: Mutex::default(),
            missed: Mutex::default(),
        })
    }

    /// Bytes of all blocks that were opened so far, as they are uncompressed.
    pub fn bytes_decoded(&self) -> u64 {
        self.bytes_decoded.load(Ordering::Relaxed)
    }

    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Where the index says that a chunk is, likely places first.
    pub fn places(&self, id: &ChunkId) -> RepoResult<Vec<Place>> {
        let places = self.index.places(id);
        if !places.is_empty() {
            return Ok(places);
        }
        self.catch_up()?;
        Ok(self.index.places(id))
    }

    /// A chunk's bytes, checked. Tries every place that the index names.
    ///
    /// A pack that is gone was replaced since the index was loaded: by prune, which took this
    /// reader's lease for ended, or could not see it. The index is then brought up to date, once.
    pub fn chunk(&self, kind: ChunkKind, id: ChunkId) -> RepoResult<ChunkSlice> {
        let places = self.places(&id)?;
        let mut missed = Vec::new();
        let failure = match self.chunk_at(&places, kind, id, &mut missed) {
            Ok(slice) => return Ok(slice),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => error,
        };
        if missed.is_empty() {
            return Err(failure);
        }
        self.catch_up()?;
        // Another thread may have been the one that did it.
        let mut others = self.index.places(&id);
        others.retain(|place| !places.contains(place));
        if others.is_empty() {
            lock(&self.missed).extend(missed);
            return Err(failure);
        }
        let found = self.chunk_at(&others, kind, id, &mut missed);
        if found.is_err() {
            lock(&self.missed).extend(missed);
        }
        found
    }

    /// Looks at each place; those whose pack is not in the store are added to `missed`.
    fn chunk_at(
        &self,
        places: &[Place],
        kind: ChunkKind,
        id: ChunkId,
        missed: &mut Vec<PackId>,
    ) -> RepoResult<ChunkSlice> {
        let mut failure = RepoError::Missing {
            object: format!("chunk {id}"),
        };
        for place in places {
            let opened = self.block(&place.block);
            match opened.and_then(|block| self.slice(&block, kind, id, place)) {
                Ok(slice) => return Ok(slice),
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => {
                    if is_not_found(&error) {
                        missed.push(place.block.pack);
                    }
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    /// The first call brings the index up to date; others wait for it.
    fn catch_up(&self) -> RepoResult<()> {
        let mut caught_up = lock(&self.caught_up);
        if !std::mem::replace(&mut *caught_up, true) {
            match self.index.catch_up(&*self.store, &self.vault) {
                Err(error) if is_fatal(&error) => return Err(error),
                // What was looked for stays missing, and that is what is told.
                Err(_) | Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Packs whose absence cost a chunk since the last call.
    pub fn take_missed(&self) -> BTreeSet<PackId> {
        std::mem::take(&mut *lock(&self.missed))
    }

    /// Cuts a chunk out of an opened block and checks it.
    pub fn slice(
        &self,
        block: &OpenBlock,
        kind: ChunkKind,
        id: ChunkId,
        place: &Place,
    ) -> RepoResult<ChunkSlice> {
        let start = block.data_start + place.offset as usize;
        let len = place.len as usize;
        let bytes = block.payload.get(start..start + len);
        match bytes {
            Some(bytes) if self.vault.ids.chunk_id(kind, bytes) == id => Ok(ChunkSlice {
                block: Arc::clone(&block.payload),
                start,
                len,
            }),
            _ => Err(RepoError::Damaged {
                object: place_name(&place.block),
                cause: format!("chunk {id} is not where the index says"),
            }),
        }
    }

    /// A block, from the cache or the store.
    pub fn block(&self, place: &BlockPlace) -> RepoResult<Arc<OpenBlock>> {
        let which = usize::from(place.class != BlockClass::Meta);
        if let Some(block) = lock(&self.caches[which]).blocks.get(place) {
            return Ok(Arc::clone(block));
        }
        let block = Arc::new(self.read_block(place)?);
        let mut cache = lock(&self.caches[which]);
        if cache.blocks.insert(*place, Arc::clone(&block)).is_none() {
            cache.order.push_back(*place);
            cache.bytes += block.payload.len();
        }
        while cache.bytes > CACHE_BYTES_MAX[which] && cache.order.len() > 1 {
            if let Some(oldest) = cache.order.pop_front()
                && let Some(block) = cache.blocks.remove(&oldest)
            {
                cache.bytes -= block.payload.len();
            }
        }
        Ok(block)
    }

    /// A block from the store, past the cache.
    pub fn read_block(&self, place: &BlockPlace) -> RepoResult<OpenBlock> {
        let object = name(names::pack(place.pack))?;
        let key = self.pack_key(place.pack)?;
        let len = HEADER_BYTES + place.sealed_len as usize;
        let bytes = self
            .store
            .get_range(&object, u64::from(place.position), len)?;
        let block = blocks::open(&key, u64::from(place.position), bytes, &place_name(place))?;
        let len = block.payload.len() as u64;
        self.bytes_decoded.fetch_add(len, Ordering::Relaxed);
        Ok(block)
    }

    fn pack_key(&self, pack: PackId) -> RepoResult<Arc<ObjectKey>> {
        if let Some(key) = lock(&self.keys).get(&pack) {
            return Ok(Arc::clone(key));
        }
        let header = read_header(&*self.store, pack)?;
        let key = Arc::new(self.vault.open_pack_key(pack, &header)?);
        lock(&self.keys).insert(pack, Arc::clone(&key));
        Ok(key)
    }
}

/// The header of a pack: from its front, or where that is damaged the copy in its trailer.
pub fn read_header(store: &dyn ObjectStore, pack: PackId) -> RepoResult<PackHeader> {
    let object = name(names::pack(pack))?;
    let damaged = |e| RepoError::damaged(&object, e);
    let decoded = match store.get_range(&object, 0, HEAD_BYTES) {
        Ok(head) => PackHeader::decode(&head).map_err(damaged),
        Err(error) => Err(error.into()),
    };
    match decoded {
        Ok((header, _)) => Ok(header),
        Err(error) if is_fatal(&error) => Err(error),
        Err(error) => {
            let Some(size) = store.size(&object)? else {
                return Err(error);
            };
            let long = size.min(PACK_HEADER_BYTES_MAX as u64) as usize;
            if let Ok((header, _)) = PackHeader::decode(&store.get_range(&object, 0, long)?) {
                return Ok(header);
            }
            let tail = read_tail(store, &object, size)?;
            let position = tail.toc_position + tail.toc_len as u64;
            let copy = store.get_range(&object, position, tail.header_len)?;
            Ok(PackHeader::decode(&copy).map_err(damaged)?.0)
        }
    }
}

/// Where the table of contents of a pack of `size` bytes lies.
pub fn read_tail(store: &dyn ObjectStore, object: &ObjectName, size: u64) -> RepoResult<PackTail> {
    let start = size.saturating_sub(TRAILER_TAIL_BYTES as u64);
    let tail = store.get_range(object, start, TRAILER_TAIL_BYTES)?;
    PackTail::decode(size, &tail).map_err(|e| RepoError::damaged(object, e))
}

/// Names a block in messages.
pub fn place_name(place: &BlockPlace) -> String {
    format!("{} at byte {}", names::pack(place.pack), place.position)
}

/// Whether no other place could help.
pub fn is_fatal(error: &RepoError) -> bool {
    matches!(error, RepoError::Store(e) if e.kind == StoreErrorKind::Unreachable)
        || matches!(
            error,
            RepoError::Interrupted | RepoError::KeyInsufficient { .. }
        )
}

fn is_not_found(error: &RepoError) -> bool {
    matches!(error, RepoError::Store(e) if e.kind == StoreErrorKind::NotFound)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
