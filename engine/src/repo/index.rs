//! Which chunks there are, and where.
//!
//! Two questions, which must not be mixed up. "Known" asks whether a writer may leave a chunk
//! out: only segments of authors that count for this writer, only packs that were listed after
//! the lease was put, at their full size, and that nobody tombstoned ("Known" in the protocol).
//! "Places" asks where a reader may find a chunk: every segment counts, since the reader checks
//! the hash of what it gets and tries the next place.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, RwLock};

use podkeep_format::block::HEADER_BYTES;
use podkeep_format::id::{AuthorId, ChunkId, PackId, SegmentId};
use podkeep_format::names;
use podkeep_format::segment::Place;

use super::listed;
use super::segments::{self, LoadedSegment};
use super::snapshots::Trust;
use super::{RepoError, RepoResult, Repository, Vault};
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::store::{ObjectMeta, ObjectStore, StoreErrorKind};

/// How often everything is listed when segments are replaced meanwhile. Prune replaces each of
/// them once, and then no more.
const LISTINGS_MAX: u32 = 4;

/// The index as one run sees it.
pub struct Index {
    trust: Trust,
    segments: RwLock<Vec<Arc<Standing>>>,
    /// Packs that were listed, without tombstoned ones; grows by the packs of this run.
    live: RwLock<HashSet<PackId>>,
    /// Chunks of orphan packs, and of packs that are not in a segment yet.
    loose: RwLock<HashMap<ChunkId, Vec<Place>>>,
    /// Packs that were listed with fewer bytes than a segment says: what lies in them is stored
    /// anew, and may still be read as far as it goes.
    pub short: BTreeSet<PackId>,
    /// Packs that a segment names and that were not listed.
    pub missing: BTreeSet<PackId>,
    /// Packs that were listed and that no segment names.
    pub orphans: BTreeSet<PackId>,
    /// Segments that could not be read.
    pub damaged: Vec<(SegmentId, String)>,
    pub tombstones: BTreeSet<PackId>,
}

/// A segment of somebody else, with all its records.
pub struct ForeignSegment {
    pub id: SegmentId,
    pub author: AuthorId,
    pub entries: Vec<(ChunkId, Place)>,
}

/// A segment, and whether a writer may rely on it.
struct Standing {
    loaded: LoadedSegment,
    trusted: bool,
}

/// What lies in a store, in the order in which it must be listed.
struct Listing {
    tombstones: BTreeSet<PackId>,
    segments: Vec<SegmentId>,
    sizes: HashMap<PackId, u64>,
}

impl Listing {
    fn of(store: &dyn ObjectStore) -> RepoResult<Self> {
        let of = |folder| -> RepoResult<Vec<ObjectMeta>> { Ok(store.list(folder)?) };
        let tombstones = of("tombstones")?;
        let segments = of("index")?;
        let packs = of("packs")?;
        let sizes = packs
            .iter()
            .filter_map(|meta| Some((listed::pack(meta.name.as_str())?, meta.size)));
        Ok(Self {
            tombstones: tombstones
                .iter()
                .filter_map(|meta| listed::tombstone(meta.name.as_str()))
                .collect(),
            segments: segments
                .iter()
                .filter_map(|meta| listed::segment(meta.name.as_str()))
                .collect(),
            sizes: sizes.collect(),
        })
    }
}

impl Index {
    /// Lists tombstones, then segments, then packs, and loads the segments. Segments that cannot
    /// be read are remembered in [`damaged`](Self::damaged), not fatal: their packs are orphans.
    ///
    /// A segment that is gone before it is read was replaced by prune, so that everything is
    /// listed again: without what it named, a writer would store all of that anew.
    pub fn load(repo: &Repository, monitor: &dyn Monitor) -> RepoResult<Self> {
        for _ in 1..LISTINGS_MAX {
            if let Some(index) = Self::load_listed(repo, monitor, false)? {
                return Ok(index);
            }
        }
        let index = Self::load_listed(repo, monitor, true)?;
        index.ok_or_else(|| RepoError::System {
            cause: "the index changes faster than it is read".into(),
        })
    }

    /// `None`: a listed segment is gone, and `last` does not say to do without it.
    fn load_listed(
        repo: &Repository,
        monitor: &dyn Monitor,
        last: bool,
    ) -> RepoResult<Option<Self>> {
        let store = repo.store();
        let trust = Trust::load(repo, monitor)?;
        let Listing {
            tombstones,
            segments,
            sizes,
        } = Listing::of(store)?;
        let mut live: HashSet<PackId> = sizes.keys().copied().collect();
        let mut short = BTreeSet::new();
        let cache = repo.segments_folder();
        let mut loaded = Vec::new();
        let mut damaged = Vec::new();
        let mut named = HashSet::new();
        for id in segments {
            match segments::load(store, repo.vault(), cache.as_deref(), id) {
                Ok(segment) => {
                    named.extend(segment.segment.packs());
                    let trusted = trust.covers(&segment);
                    // Nobody else's claims make a writer store known chunks anew.
                    if trusted {
                        short.extend(segment.segment.blocks().filter_map(|block| {
                            let end = u64::from(block.position)
                                + HEADER_BYTES as u64
                                + u64::from(block.sealed_len);
                            let cut = sizes.get(&block.pack).is_some_and(|size| *size < end);
                            cut.then_some(block.pack)
                        }));
                    }
                    loaded.push(Arc::new(Standing {
                        loaded: segment,
                        trusted,
                    }));
                }
                Err(RepoError::Store(e)) if e.kind == StoreErrorKind::Unreachable => {
                    return Err(e.into());
                }
                Err(RepoError::Store(e)) if e.kind == StoreErrorKind::NotFound && !last => {
                    return Ok(None);
                }
                Err(error) => {
                    monitor.finding(Finding {
                        object: names::segment(id),
                        kind: FindingKind::Note,
                        snapshots: Vec::new(),
                        paths: Vec::new(),
                        message: format!("{error}; its packs are read without it"),
                    });
                    damaged.push((id, error.to_string()));
                }
            }
        }
        let missing = named.difference(&live).copied().collect();
        let orphans = live.difference(&named).copied().collect();
        for pack in &tombstones {
            live.remove(pack);
        }
        Ok(Some(Self {
            trust,
            segments: RwLock::new(loaded),
            live: RwLock::new(live),
            loose: RwLock::new(HashMap::new()),
            short,
            missing,
            orphans,
            damaged,
            tombstones,
        }))
    }

    /// Whom a writer relies on, as of the listing.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Whether a writer may leave this chunk out.
    pub fn known(&self, id: &ChunkId) -> bool {
        let segments = read(&self.segments);
        segments
            .iter()
            .filter(|s| s.trusted && s.loaded.segment.may_contain(id))
            .any(|s| {
                let live = read(&self.live);
                s.loaded
                    .segment
                    .places(id)
                    .map(|place| place.block.pack)
                    .any(|pack| live.contains(&pack) && !self.short.contains(&pack))
            })
    }

    /// Where a reader may find this chunk, likely places first.
    pub fn places(&self, id: &ChunkId) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        {
            let segments = read(&self.segments);
            for trusted in [true, false] {
                for standing in segments.iter().filter(|s| s.trusted == trusted) {
                    places.extend(standing.loaded.segment.places(id));
                }
            }
        }
        if let Some(loose) = read(&self.loose).get(id) {
            places.extend(loose);
        }
        if places.len() > 1 {
            // Live packs first; a place that is named twice is tried once.
            let live = read(&self.live);
            places.sort_by_key(|place| !live.contains(&place.block.pack));
            let mut seen = HashSet::new();
            places.retain(|place| seen.insert(*place));
        }
        places
    }

    /// For readers: lists everything again, and adds the segments that are new. What they name is
    /// a place to look at, and nothing that a writer may rely on. [`missing`](Self::missing) and
    /// what stands beside it stay as they were.
    pub fn catch_up(&self, store: &dyn ObjectStore, vault: &Vault) -> RepoResult<()> {
        for _ in 0..LISTINGS_MAX {
            let listing = Listing::of(store)?;
            let known: HashSet<SegmentId> = read(&self.segments)
                .iter()
                .map(|standing| standing.loaded.id)
                .collect();
            let mut is_gone = false;
            for id in listing.segments {
                if known.contains(&id) {
                    continue;
                }
                // Kept in memory: the next run caches it.
                match segments::load(store, vault, None, id) {
                    Ok(loaded) => write(&self.segments).push(Arc::new(Standing {
                        loaded,
                        trusted: false,
                    })),
                    Err(RepoError::Store(e)) if e.kind == StoreErrorKind::Unreachable => {
                        return Err(e.into());
                    }
                    Err(RepoError::Store(e)) if e.kind == StoreErrorKind::NotFound => {
                        is_gone = true;
                    }
                    // As when the index was loaded: its packs are done without.
                    Err(_) => {}
                }
            }
            let mut live: HashSet<PackId> = listing.sizes.into_keys().collect();
            for pack in &listing.tombstones {
                live.remove(pack);
            }
            *write(&self.live) = live;
            if !is_gone {
                break;
            }
        }
        Ok(())
    }

    /// A segment of this run's own packs is durable: its chunks are known from now on.
    pub fn add_own(&self, segment: LoadedSegment) {
        write(&self.live).extend(segment.segment.packs());
        write(&self.segments).push(Arc::new(Standing {
            loaded: segment,
            trusted: true,
        }));
    }

    /// A place that is in no segment (an orphan pack's table of contents).
    pub fn add_loose(&self, id: ChunkId, place: Place) {
        write(&self.loose).entry(id).or_default().push(place);
    }

    pub fn is_live(&self, pack: &PackId) -> bool {
        read(&self.live).contains(pack)
    }

    /// Whether a reader finds the pack: a tombstone only says that it will go.
    pub fn is_there(&self, pack: &PackId) -> bool {
        self.is_live(pack) || (self.tombstones.contains(pack) && !self.missing.contains(pack))
    }

    /// Calls `each` with every record of every segment and every loose place.
    pub fn for_each(&self, each: &mut dyn FnMut(ChunkId, Place)) {
        for standing in read(&self.segments).iter() {
            for (id, place) in standing.loaded.segment.entries() {
                each(id, place);
            }
        }
        for (id, places) in read(&self.loose).iter() {
            for place in places {
                each(*id, *place);
            }
        }
    }

    /// Segments by other authors than `owner`, with their records.
    pub fn segments_of_others(&self, owner: AuthorId) -> Vec<ForeignSegment> {
        read(&self.segments)
            .iter()
            .filter(|s| s.loaded.author != owner)
            .map(|s| {
                let entries = s.loaded.segment.entries().collect();
                ForeignSegment {
                    id: s.loaded.id,
                    author: s.loaded.author,
                    entries,
                }
            })
            .collect()
    }

    /// Ids of the loaded segments with the number of their records.
    pub fn segments(&self) -> Vec<(SegmentId, usize)> {
        read(&self.segments)
            .iter()
            .map(|s| (s.loaded.id, s.loaded.segment.len()))
            .collect()
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
