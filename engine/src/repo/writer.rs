//! From chunks to durable packs and segments.
//!
//! The caller's thread gathers chunks into blocks; worker threads compress, verify and seal
//! them, fill packs and store them. What is in flight is bounded, and so is what open packs hold
//! together: memory does not grow with what is stored.
//!
//! Order (I-1): a block is in a pack; the pack is durable, and was seen to be whole, before a
//! segment names it; the segment likewise before a snapshot that needs it is put. A crash between
//! any two leaves packs or segments that nothing needs, never a snapshot that lacks something.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use podkeep_format::block::{BlockClass, PayloadBuilder};
use podkeep_format::id::{ChunkId, ChunkKind, LeaseId, PackId};
use podkeep_format::names;
use podkeep_format::pack::{FinishedPack, PackBuilder, PackHeader, TocChunk};
use podkeep_format::seal::{Secret, SessionSeal};
use podkeep_format::segment::SegmentBuilder;

use super::index::Index;
use super::{RepoError, RepoResult, Repository, Traffic, Vault, blocks, random, segments};
use crate::store::ObjectStore;

/// Open packs of all classes together; the fullest is closed when they hold more.
const OPEN_PACKS_BYTES_MAX: usize = 40 << 20;
/// The last packs of a run are stored side by side when they have at least this many bytes; smaller
/// ones are stored by the caller's thread, one after the other.
const LARGE_PACK_BYTES_MIN: usize = 1 << 20;
/// A segment is written after this many packs, records, or this time, whichever comes first.
const SEGMENT_PACKS: usize = 8;
const SEGMENT_RECORDS: usize = 1 << 16;
const SEGMENT_AGE: Duration = Duration::from_secs(60);

/// What a writer has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriterCounts {
    pub chunks_new: u64,
    pub chunks_known: u64,
    /// Plaintext bytes of the new chunks.
    pub bytes_new: u64,
}

/// Stores chunks that the repository does not know yet. One for each run.
pub struct Writer {
    state: Arc<State>,
    pool: rayon::ThreadPool,
    builders: [Option<(PayloadBuilder, Vec<TocChunk>)>; 4],
    block_bytes: [u32; 4],
    in_flight_max: usize,
    counts: WriterCounts,
    /// Plaintext bytes given since the last flush.
    unflushed: u64,
}

/// What the caller's thread and the workers share.
struct State {
    store: Arc<dyn ObjectStore>,
    traffic: Arc<Traffic>,
    vault: Arc<Vault>,
    index: Arc<Index>,
    segments_folder: Option<std::path::PathBuf>,
    lease: LeaseId,
    session: Secret,
    session_seal: SessionSeal,
    pack_bytes: usize,
    /// Chunks that were given and are in no segment yet.
    in_run: Mutex<HashSet<ChunkId>>,
    open: Mutex<[Option<PackBuilder>; 4]>,
    segment: Mutex<OpenSegment>,
    spare: Mutex<Spare>,
    in_flight: Mutex<usize>,
    landed: Condvar,
    error: Mutex<Option<RepoError>>,
}

/// Memory of what was stored, for what comes next: the kernel does not have to give it anew, and
/// to clear it, each time.
#[derive(Default)]
struct Spare {
    payloads: Vec<Vec<u8>>,
    pack: Option<Vec<u8>>,
}

struct OpenSegment {
    builder: SegmentBuilder,
    ids: Vec<ChunkId>,
    since: Instant,
}

impl Writer {
    /// `lease` stands in the header of every pack. `threads` workers, at least 1.
    pub fn new(
        repo: &Repository,
        index: Arc<Index>,
        lease: LeaseId,
        threads: usize,
    ) -> RepoResult<Self> {
        let session = Secret(random()?);
        let vault = repo.vault_arc();
        let session_seal = SessionSeal::seal(
            &session,
            &vault.public,
            vault.repository,
            vault.author.id(),
            &random()?,
        )
        .map_err(|e| RepoError::damaged("the repository's public key", e))?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads + 1)
            .thread_name(|n| format!("podkeep-pack-{n}"))
            .build()
            .map_err(super::system)?;
        Ok(Self {
            state: Arc::new(State {
                store: repo.store_arc(),
                traffic: repo.traffic(),
                vault,
                index,
                segments_folder: repo.segments_folder(),
                lease,
                session,
                session_seal,
                pack_bytes: repo.config().pack_bytes as usize,
                in_run: Mutex::default(),
                open: Mutex::default(),
                spare: Mutex::default(),
                segment: Mutex::new(OpenSegment {
                    builder: SegmentBuilder::new(),
                    ids: Vec::new(),
                    since: Instant::now(),
                }),
                in_flight: Mutex::new(0),
                landed: Condvar::new(),
                error: Mutex::new(None),
            }),
            pool,
            builders: Default::default(),
            block_bytes: repo.config().block_bytes,
            in_flight_max: threads + 2,
            counts: WriterCounts::default(),
            unflushed: 0,
        })
    }

    /// The key that the run's snapshots are sealed with, and its seal.
    pub fn session(&self) -> (&Secret, &SessionSeal) {
        (&self.state.session, &self.state.session_seal)
    }

    pub fn counts(&self) -> WriterCounts {
        self.counts
    }

    /// Plaintext bytes that were stored since the last [`flush`](Self::flush).
    pub fn unflushed(&self) -> u64 {
        self.unflushed
    }

    pub fn index(&self) -> &Index {
        &self.state.index
    }

    /// Whether the repository or this run has the chunk already.
    pub fn knows(&mut self, id: &ChunkId) -> bool {
        let known = lock(&self.state.in_run).contains(id) || self.state.index.known(id);
        if known {
            self.counts.chunks_known += 1;
        }
        known
    }

    /// Stores a chunk for which [`knows`](Self::knows) said no. Its id is the caller's promise.
    pub fn add(
        &mut self,
        id: ChunkId,
        kind: ChunkKind,
        class: BlockClass,
        bytes: &[u8],
    ) -> RepoResult<()> {
        if !lock(&self.state.in_run).insert(id) {
            self.counts.chunks_known += 1;
            return Ok(());
        }
        self.counts.chunks_new += 1;
        self.counts.bytes_new += bytes.len() as u64;
        self.unflushed += bytes.len() as u64;
        let slot = class as usize - 1;
        if self.builders[slot]
            .as_ref()
            .is_some_and(|(builder, _)| !builder.has_room(bytes.len()))
        {
            self.close_block(class)?;
        }
        let (builder, chunks) = self.builders[slot].get_or_insert_with(|| {
            let buffer = lock(&self.state.spare).payloads.pop();
            let builder = PayloadBuilder::reusing(buffer.unwrap_or_default());
            (builder, Vec::new())
        });
        builder.push(kind, bytes);
        chunks.push(TocChunk {
            id,
            kind,
            len: bytes.len() as u32,
        });
        if builder.data_len() >= self.block_bytes[slot] as usize {
            self.close_block(class)?;
        }
        Ok(())
    }

    /// Ends all blocks that are being gathered, so that the next chunks, which are another
    /// item's, do not share one with these.
    pub fn end_item(&mut self) -> RepoResult<()> {
        for class in BlockClass::ALL {
            self.close_block(class)?;
        }
        Ok(())
    }

    fn close_block(&mut self, class: BlockClass) -> RepoResult<()> {
        let Some((builder, chunks)) = self.builders[class as usize - 1].take() else {
            return Ok(());
        };
        {
            let mut in_flight = lock(&self.state.in_flight);
            while *in_flight >= self.in_flight_max {
                in_flight = wait(&self.state.landed, in_flight);
            }
            *in_flight += 1;
        }
        self.state.check()?;
        let state = Arc::clone(&self.state);
        self.pool.spawn(move || {
            let landing = Landing(&state);
            if let Err(error) = state.store_block(class, builder, chunks) {
                lock(&state.error).get_or_insert(error);
            }
            drop(landing);
        });
        Ok(())
    }

    /// Makes everything that was given durable and known: blocks, packs, a segment.
    pub fn flush(&mut self) -> RepoResult<()> {
        self.end_item()?;
        {
            let mut in_flight = lock(&self.state.in_flight);
            while *in_flight > 0 {
                in_flight = wait(&self.state.landed, in_flight);
            }
        }
        self.state.check()?;
        let packs = std::mem::take(&mut *lock(&self.state.open));
        let (large, small): (Vec<_>, Vec<_>) =
            (packs.into_iter().flatten()).partition(|pack| pack.len() >= LARGE_PACK_BYTES_MIN);
        // At once: most of the time they wait for the medium.
        self.pool.scope(|scope| {
            for pack in large {
                let state = &self.state;
                scope.spawn(move |_| {
                    if let Err(error) = state.store_pack(pack) {
                        lock(&state.error).get_or_insert(error);
                    }
                });
            }
        });
        self.state.check()?;
        for pack in small {
            self.state.store_pack(pack)?;
        }
        self.state.store_segment(true)?;
        self.unflushed = 0;
        Ok(())
    }
}

/// Takes a block off the count of those in flight, however its job ends.
struct Landing<'s>(&'s State);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.error).get_or_insert(RepoError::System {
                cause: "a worker thread panicked".into(),
            });
        }
        *lock(&self.0.in_flight) -= 1;
        self.0.landed.notify_all();
    }
}

impl State {
    fn check(&self) -> RepoResult<()> {
        match &*lock(&self.error) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn store_block(
        &self,
        class: BlockClass,
        builder: PayloadBuilder,
        chunks: Vec<TocChunk>,
    ) -> RepoResult<()> {
        self.check()?;
        let payload = builder.finish();
        let full = blocks::encode(class, &payload, |stored, compressed| {
            self.append_block(class, compressed, stored, payload.len() as u32, chunks)
        })?;
        lock(&self.spare).payloads.push(payload.into_buffer());
        for pack in full {
            self.store_pack(pack)?;
            self.store_segment(false)?;
        }
        Ok(())
    }

    /// Appends a block to the open pack of its class. Returns the packs that are to be closed.
    fn append_block(
        &self,
        class: BlockClass,
        compressed: bool,
        stored: &[u8],
        payload_len: u32,
        chunks: Vec<TocChunk>,
    ) -> RepoResult<Vec<PackBuilder>> {
        let mut full = Vec::new();
        let mut open = lock(&self.open);
        let slot = &mut open[class as usize - 1];
        let pack = match slot {
            Some(pack) => pack,
            None => slot.insert(self.new_pack()?),
        };
        pack.push(class, compressed, stored, payload_len, chunks)
            .map_err(|e| RepoError::damaged("a block", e))?;
        if pack.len() >= self.pack_bytes {
            full.extend(slot.take());
        }
        if open.iter().flatten().map(PackBuilder::len).sum::<usize>() > OPEN_PACKS_BYTES_MAX {
            let fullest = open
                .iter_mut()
                .max_by_key(|slot| slot.as_ref().map_or(0, PackBuilder::len));
            full.extend(fullest.and_then(Option::take));
        }
        Ok(full)
    }

    fn new_pack(&self) -> RepoResult<PackBuilder> {
        let header = PackHeader {
            lease: self.lease,
            author: self.vault.author.id(),
            salt: random()?,
            session: self.session_seal.clone(),
        };
        let bytes = match lock(&self.spare).pack.take() {
            Some(bytes) => bytes,
            None => Vec::with_capacity(self.pack_bytes + (4 << 20)),
        };
        let repository = self.vault.repository;
        Ok(PackBuilder::new(repository, header, &self.session, bytes))
    }

    fn store_pack(&self, pack: PackBuilder) -> RepoResult<()> {
        let FinishedPack { id, bytes, blocks } = pack
            .finish(&self.vault.author, &self.vault.index)
            .map_err(|e| RepoError::damaged("a pack", e))?;
        let lease = Some(self.lease);
        self.traffic
            .put(&*self.store, lease, &names::pack(id), &bytes)?;
        lock(&self.spare).pack = Some(bytes);
        let mut segment = lock(&self.segment);
        if segment.builder.is_empty() {
            segment.since = Instant::now();
        }
        segment.builder.push(id, &blocks);
        segment
            .ids
            .extend(blocks.iter().flat_map(|b| b.chunks.iter().map(|c| c.id)));
        Ok(())
    }

    /// Writes the open segment when it is large or old enough, or `now`.
    fn store_segment(&self, now: bool) -> RepoResult<()> {
        let (builder, ids) = {
            let mut open = lock(&self.segment);
            let due = now
                || open.builder.packs() >= SEGMENT_PACKS
                || open.builder.records() >= SEGMENT_RECORDS
                || open.since.elapsed() >= SEGMENT_AGE;
            if open.builder.is_empty() || !due {
                return Ok(());
            }
            (
                std::mem::take(&mut open.builder),
                std::mem::take(&mut open.ids),
            )
        };
        self.index.add_own(segments::store(
            &*self.store,
            Some(self.lease),
            &self.traffic,
            &self.vault,
            self.segments_folder.as_deref(),
            builder.finish(),
        )?);
        let mut in_run = lock(&self.in_run);
        for id in ids {
            in_run.remove(&id);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn wait<'g, T>(condvar: &Condvar, guard: MutexGuard<'g, T>) -> MutexGuard<'g, T> {
    condvar
        .wait(guard)
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Indexes an own pack whose segment was lost to a crash: its chunks become known, durably.
pub fn adopt_orphans(
    repo: &Repository,
    index: &Index,
    packs: &[(PackId, Vec<podkeep_format::pack::TocBlock>)],
) -> RepoResult<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let mut builder = SegmentBuilder::new();
    for (id, blocks) in packs {
        builder.push(*id, blocks);
    }
    index.add_own(segments::store(
        repo.store(),
        None,
        &repo.traffic,
        repo.vault(),
        repo.segments_folder().as_deref(),
        builder.finish(),
    )?);
    Ok(())
}
