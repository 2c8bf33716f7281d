//! A small prune, for tests of the protocol: "Prune" in `docs/repository-protocol.md` step by
//! step, over whole packs. It tombstones and deletes packs, moves live chunks out of packs that
//! another prune tombstoned, and makes segments anew; it does not rewrite packs that are live in
//! part, and it leaves segments of other authors alone.
//!
//! It decides nothing by time: whether a lease has stood still for long enough is for the caller
//! to say, so that a test can suspend the lease's owner at any step.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use podkeep_engine::monitor::{Collect, FindingKind};
use podkeep_engine::repo::index::Index;
use podkeep_engine::repo::lease::HeldLease;
use podkeep_engine::repo::reader::{Reader, read_header};
use podkeep_engine::repo::writer::{Writer, adopt_orphans};
use podkeep_engine::repo::{
    RepoError, RepoResult, Repository, StoredSnapshot, listed, name, now, orphans, random,
};
use podkeep_engine::store::{ObjectName, StoreErrorKind};
use podkeep_format::block::BlockClass;
use podkeep_format::fence::{Fence, Verdict};
use podkeep_format::frame::Statement;
use podkeep_format::id::{ChunkId, ChunkKind, LeaseId, PackId, SegmentId, SnapshotId};
use podkeep_format::lease::{Lease, Purpose};
use podkeep_format::names::{self, Name};
use podkeep_format::recipe::Recipe;
use podkeep_format::segment::{SEGMENT_BYTES_MAX, Segment, open_segment};
use podkeep_format::tombstone::Tombstone;
use podkeep_format::tree::{self, Content, ListNode, Node, Piece, TreeNode, XattrValue};

const OBJECT_BYTES_MAX: u64 = 16 << 20;

/// What became of the leases that prune waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Something may have changed: look again.
    Look,
    /// They stood still for their lease time, on the observer's clock.
    Ended,
}

/// A step that a wrong prune leaves out. Each of them must cost data in some schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nobody is waited for after the tombstones.
    WaitsForNobody,
    /// Tombstoned packs are deleted without another look at the snapshots.
    DeletesUnseen,
    /// The last look is at the snapshots alone, and the packs are believed to be as they were.
    BelievesInPacks,
    /// The snapshots for a verdict are listed before the fence is put.
    JudgesBeforeTheFence,
    /// A lease that stands still is passed over without fence and verdict.
    FencesNobody,
}

pub struct Prune<'a> {
    pub repo: &'a Repository,
    /// Asked while these leases stand.
    pub patience: &'a (dyn Fn(&BTreeSet<LeaseId>) -> Patience + Sync),
    /// Where a chunk lies in two packs: begin with the last pack, not with the first.
    pub from_the_end: bool,
    pub flaw: Option<Flaw>,
    /// What snapshots need that were followed already: that never changes.
    pub followed: Mutex<BTreeMap<SnapshotId, BTreeMap<ChunkId, ChunkKind>>>,
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub tombstones: usize,
    pub packs_deleted: usize,
    pub fences: usize,
}

/// Counted snapshots, then the index, as listed at one moment; with all that they need.
struct View {
    index: Arc<Index>,
    reader: Reader,
    needed: BTreeMap<ChunkId, ChunkKind>,
}

impl View {
    /// Packs that are there and not tombstoned, and hold this chunk.
    fn live_packs(&self, id: &ChunkId) -> BTreeSet<PackId> {
        let places = self.index.places(id).into_iter();
        places
            .map(|place| place.block.pack)
            .filter(|pack| self.index.is_live(pack))
            .collect()
    }

    /// Whether all that is needed of `pack` lies in another live pack, outside `going`, too.
    fn can_go(&self, pack: PackId, going: &BTreeSet<PackId>) -> bool {
        self.needed.keys().all(|id| {
            let places = self.index.places(id);
            !places.iter().any(|place| place.block.pack == pack)
                || self
                    .live_packs(id)
                    .iter()
                    .any(|other| *other != pack && !going.contains(other))
        })
    }
}

impl Prune<'_> {
    /// Fails, and deletes nothing more, when something that counts cannot be read.
    pub fn run(&self) -> RepoResult<Pruned> {
        let mut done = Pruned::default();
        let store = self.repo.store();
        let own = HeldLease::take(self.repo, Purpose::Prune)?;
        self.judge(own.id())?;
        // 1. Packs, then leases, then snapshots (then the index).
        let (packs, leases) = loop {
            let packs = self.packs()?;
            let leases = self.leases()?;
            let prunes = self.other_prunes(&leases, own.id())?;
            if prunes.is_empty() {
                break (packs, leases);
            }
            // One prune at a time.
            self.wait(prunes, own.id(), &mut done)?;
        };
        let view = self.look()?;
        // 2. Candidates.
        let fenced = self.fences()?.into_keys().collect::<BTreeSet<_>>();
        let mut candidates: Vec<PackId> = Vec::new();
        for pack in packs {
            if !view.index.is_live(&pack) {
                continue;
            }
            let lease = match read_header(store, pack) {
                Ok(header) => header.lease,
                // Another prune was faster.
                Err(RepoError::Store(error)) if error.kind == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let living = leases.contains_key(&lease) && !fenced.contains(&lease);
            if !living && view.can_go(pack, &candidates.iter().copied().collect()) {
                candidates.push(pack);
            }
        }
        // 3. Out of packs that another prune tombstoned.
        self.move_out(&view, own.id())?;
        // 4. Tombstones.
        for pack in &candidates {
            self.put_tombstone(*pack, own.id())?;
        }
        done.tombstones = candidates.len();
        // 5. Everybody who may not know of them.
        if self.flaw != Some(Flaw::WaitsForNobody) {
            let others = self.leases()?.into_keys().filter(|id| *id != own.id());
            self.wait(others.collect(), own.id(), &mut done)?;
        }
        self.judge(own.id())?;
        // 6. Packs.
        let going: BTreeSet<PackId> = candidates.iter().copied().collect();
        let foreign = view.index.tombstones.iter().filter(|p| !going.contains(p));
        for pack in candidates.iter().chain(foreign).copied() {
            let can_go = match self.flaw {
                Some(Flaw::DeletesUnseen) => true,
                Some(Flaw::BelievesInPacks) => {
                    let needed = self.needs(&view.reader, &self.counted()?)?;
                    let before = View {
                        needed,
                        ..self.stale(&view)?
                    };
                    before.can_go(pack, &going)
                }
                _ => self.look()?.can_go(pack, &BTreeSet::new()),
            };
            if can_go {
                let deleted = store.delete(&name(names::pack(pack))?)?;
                done.packs_deleted += usize::from(deleted);
                store.delete(&name(names::tombstone(pack))?)?;
            }
        }
        // 7. Segments that name packs which are gone.
        if done.packs_deleted > 0 {
            self.renew_segments()?;
        }
        // 8. Leases that have ended.
        let judged = self.fences()?;
        for meta in store.list("leases")? {
            if let Some(Name::Lease(lease, _)) = Name::parse(meta.name.as_str())
                && judged.get(&lease) == Some(&true)
            {
                store.delete(&meta.name)?;
            }
        }
        drop(own);
        Ok(done)
    }

    /// The index of an earlier view again, for the prune that believes in it.
    fn stale(&self, view: &View) -> RepoResult<View> {
        Ok(View {
            index: Arc::clone(&view.index),
            reader: Reader::new(self.repo, Arc::clone(&view.index))?,
            needed: BTreeMap::new(),
        })
    }

    /// Packs, smallest first: an order that is the same in every run, as random ids are not.
    fn packs(&self) -> RepoResult<Vec<PackId>> {
        let mut rows = self.repo.store().list("packs")?;
        rows.sort_by_key(|meta| meta.size);
        if self.from_the_end {
            rows.reverse();
        }
        Ok(rows
            .iter()
            .filter_map(|meta| listed::pack(meta.name.as_str()))
            .collect())
    }

    /// Leases that stand, each with its newest heartbeat.
    fn leases(&self) -> RepoResult<BTreeMap<LeaseId, ObjectName>> {
        let rows = self.repo.store().list("leases")?.into_iter();
        Ok(rows
            .filter_map(|meta| match Name::parse(meta.name.as_str()) {
                Some(Name::Lease(lease, _)) => Some((lease, meta.name)),
                _ => None,
            })
            .collect())
    }

    /// Fenced leases, and whether each has its verdict.
    fn fences(&self) -> RepoResult<BTreeMap<LeaseId, bool>> {
        let mut fences = BTreeMap::new();
        for meta in self.repo.store().list("fences")? {
            match Name::parse(meta.name.as_str()) {
                Some(Name::Fence(lease)) => drop(fences.entry(lease).or_insert(false)),
                Some(Name::Verdict(lease)) => drop(fences.insert(lease, true)),
                _ => {}
            }
        }
        Ok(fences)
    }

    /// Leases of other prunes that have not been fenced.
    fn other_prunes(
        &self,
        leases: &BTreeMap<LeaseId, ObjectName>,
        own: LeaseId,
    ) -> RepoResult<BTreeSet<LeaseId>> {
        let fenced = self.fences()?;
        let mut prunes = BTreeSet::new();
        for (lease, newest) in leases {
            if *lease == own || fenced.contains_key(lease) {
                continue;
            }
            match self.repo.store().get(newest, OBJECT_BYTES_MAX) {
                Ok(bytes) => {
                    let open = Lease::open(&bytes, self.repo.id(), &self.repo.vault().index);
                    let open = open.map_err(|e| damaged(newest.as_str(), e))?;
                    if open.purpose == Purpose::Prune {
                        prunes.insert(*lease);
                    }
                }
                Err(error) if error.kind == StoreErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(prunes)
    }

    /// Waits until each of `leases` was deleted by its owner, or is fenced and judged.
    fn wait(
        &self,
        mut leases: BTreeSet<LeaseId>,
        own: LeaseId,
        done: &mut Pruned,
    ) -> RepoResult<()> {
        let judged = self.fences()?;
        leases.retain(|lease| judged.get(lease) != Some(&true));
        while !leases.is_empty() {
            match (self.patience)(&leases) {
                Patience::Look => {
                    let there = self.leases()?;
                    leases.retain(|lease| there.contains_key(lease));
                }
                Patience::Ended if self.flaw == Some(Flaw::FencesNobody) => break,
                Patience::Ended => {
                    for lease in std::mem::take(&mut leases) {
                        self.fence(lease, own)?;
                        done.fences += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Fence, then snapshots, then verdict.
    fn fence(&self, lease: LeaseId, own: LeaseId) -> RepoResult<()> {
        let early = match self.flaw {
            Some(Flaw::JudgesBeforeTheFence) => Some(self.snapshots_of(lease)?),
            _ => None,
        };
        let fence = Fence {
            lease,
            prune: own,
            author: self.repo.author().id(),
            time: now(),
        };
        let vault = self.repo.vault();
        let bytes = fence
            .seal(self.repo.id(), &vault.index, self.repo.author(), &random()?)
            .map_err(|e| damaged("a fence", e))?;
        unless_there(self.repo.put(&names::fence(lease), &bytes))?;
        self.put_verdict(lease, own, early)
    }

    /// Gives every fence that has no verdict its verdict.
    fn judge(&self, own: LeaseId) -> RepoResult<()> {
        for (lease, judged) in self.fences()? {
            if !judged {
                self.put_verdict(lease, own, None)?;
            }
        }
        Ok(())
    }

    fn put_verdict(
        &self,
        lease: LeaseId,
        own: LeaseId,
        early: Option<Vec<SnapshotId>>,
    ) -> RepoResult<()> {
        let snapshots = match early {
            Some(snapshots) => snapshots,
            None => self.snapshots_of(lease)?,
        };
        let verdict = Verdict {
            lease,
            prune: own,
            author: self.repo.author().id(),
            snapshots,
            time: now(),
        };
        let vault = self.repo.vault();
        let bytes = verdict
            .seal(self.repo.id(), &vault.index, self.repo.author(), &random()?)
            .map_err(|e| damaged("a verdict", e))?;
        // The first one counts.
        unless_there(self.repo.put(&names::verdict(lease), &bytes))
    }

    fn snapshots_of(&self, lease: LeaseId) -> RepoResult<Vec<SnapshotId>> {
        let mut ids: Vec<_> = self
            .snapshots()?
            .iter()
            .filter(|snapshot| snapshot.header.lease == lease)
            .map(|snapshot| snapshot.id)
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// All snapshots. One that cannot be read stops prune: nobody knows what it needs.
    fn snapshots(&self) -> RepoResult<Vec<StoredSnapshot>> {
        let monitor = Collect::default();
        let snapshots = self.repo.snapshots(&monitor)?;
        let findings = monitor.findings.into_inner().unwrap();
        match findings.iter().find(|f| f.kind == FindingKind::Damaged) {
            None => Ok(snapshots),
            Some(finding) => Err(RepoError::Damaged {
                object: finding.object.clone(),
                cause: finding.message.clone(),
            }),
        }
    }

    /// Looks until everything that counts can be followed: a pack that another prune deletes
    /// between the listing and the look has its chunks elsewhere.
    fn look(&self) -> RepoResult<View> {
        let mut tries = 3;
        loop {
            match self.look_once() {
                Err(RepoError::Store(error))
                    if tries > 1 && error.kind == StoreErrorKind::NotFound =>
                {
                    tries -= 1;
                }
                result => return result,
            }
        }
    }

    fn look_once(&self) -> RepoResult<View> {
        let counted = self.counted()?;
        let index = Arc::new(Index::load(self.repo, &Collect::default())?);
        let reader = Reader::new(self.repo, Arc::clone(&index))?;
        orphans::read_all(&reader, self.repo, &Collect::default())?;
        let needed = self.needs(&reader, &counted)?;
        Ok(View {
            index,
            reader,
            needed,
        })
    }

    fn counted(&self) -> RepoResult<Vec<StoredSnapshot>> {
        let mut counted = self.snapshots()?;
        counted.retain(|snapshot| snapshot.confirmed);
        Ok(counted)
    }

    fn needs(
        &self,
        reader: &Reader,
        counted: &[StoredSnapshot],
    ) -> RepoResult<BTreeMap<ChunkId, ChunkKind>> {
        let mut needed = BTreeMap::new();
        let mut followed = self.followed.lock().unwrap();
        for snapshot in counted {
            let of_one = match followed.entry(snapshot.id) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let mut of_one = BTreeMap::new();
                    needs_of(reader, snapshot, false, &mut of_one)?;
                    entry.insert(of_one)
                }
            };
            needed.extend(of_one.iter());
        }
        Ok(needed)
    }

    fn move_out(&self, view: &View, own: LeaseId) -> RepoResult<()> {
        let mut writer = None;
        for (id, kind) in &view.needed {
            if !view.live_packs(id).is_empty() {
                continue;
            }
            let class = match kind {
                ChunkKind::Data => BlockClass::Small,
                _ => BlockClass::Meta,
            };
            let bytes = view.reader.chunk(*kind, *id)?;
            let writer = match &mut writer {
                Some(writer) => writer,
                None => {
                    let index = Arc::clone(&view.index);
                    writer.insert(Writer::new(self.repo, index, own, 1)?)
                }
            };
            writer.add(*id, *kind, class, bytes.as_ref())?;
        }
        writer.map_or(Ok(()), |mut writer| writer.flush())
    }

    fn put_tombstone(&self, pack: PackId, own: LeaseId) -> RepoResult<()> {
        let tombstone = Tombstone {
            pack,
            prune: own,
            author: self.repo.author().id(),
            time: now(),
        };
        let vault = self.repo.vault();
        let bytes = tombstone
            .seal(self.repo.id(), &vault.index, self.repo.author(), &random()?)
            .map_err(|e| damaged("a tombstone", e))?;
        unless_there(self.repo.put(&names::tombstone(pack), &bytes))
    }

    /// The new segment first, then the old one goes.
    fn renew_segments(&self) -> RepoResult<()> {
        let store = self.repo.store();
        let index = Index::load(self.repo, &Collect::default())?;
        for meta in store.list("index")? {
            let bytes = match store.get(&meta.name, SEGMENT_BYTES_MAX) {
                Ok(bytes) => bytes,
                Err(error) if error.kind == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let open = open_segment(self.repo.id(), &self.repo.vault().index, bytes)
                .and_then(|(author, body)| Ok((author, Segment::parse(body)?)));
            let (author, segment) = open.map_err(|e| damaged(meta.name.as_str(), e))?;
            let named: BTreeSet<PackId> = segment.packs().collect();
            if author != self.repo.author().id() || named.is_disjoint(&index.missing) {
                continue;
            }
            let mut kept = Vec::new();
            for pack in named.difference(&index.missing) {
                kept.push((*pack, orphans::contents(self.repo, *pack)?));
            }
            adopt_orphans(self.repo, &index, &kept)?;
            let id = listed::segment(meta.name.as_str()).unwrap_or(SegmentId([0; 32]));
            store.delete(&name(names::segment(id))?)?;
        }
        Ok(())
    }
}

/// Adds all chunks that a snapshot needs; with `data` the contents of its files are read, too,
/// and checked like all that is read.
pub fn needs_of(
    reader: &Reader,
    snapshot: &StoredSnapshot,
    data: bool,
    needed: &mut BTreeMap<ChunkId, ChunkKind>,
) -> RepoResult<()> {
    let body = snapshot.body.as_ref().expect("a full key reads bodies");
    let mut open = Vec::new();
    open.extend(body.definition.map(|(id, _)| (ChunkKind::Record, id)));
    open.extend(body.root.map(|id| (ChunkKind::Tree, id.into())));
    while let Some((kind, id)) = open.pop() {
        if needed.insert(id, kind).is_some() {
            continue;
        }
        match kind {
            ChunkKind::Tree => {
                let node = reader.chunk(kind, id)?;
                let node = TreeNode::decode(node.as_ref()).map_err(|e| damaged("a tree", e))?;
                match node {
                    TreeNode::Root(entry) => entry_needs(&entry, &mut open),
                    TreeNode::Leaf(entries) => {
                        for entry in &entries {
                            entry_needs(entry, &mut open);
                        }
                    }
                    TreeNode::Branch { children, .. } => {
                        let children = children.into_iter();
                        open.extend(children.map(|(_, id)| (ChunkKind::Tree, id.into())));
                    }
                }
            }
            ChunkKind::List => {
                let node = reader.chunk(kind, id)?;
                match ListNode::decode(node.as_ref()).map_err(|e| damaged("a list", e))? {
                    ListNode::Pieces(pieces) => piece_needs(&pieces, &mut open),
                    ListNode::Lists { children, .. } => {
                        let children = children.into_iter();
                        open.extend(children.map(|(id, _)| (ChunkKind::List, id.into())));
                    }
                }
            }
            ChunkKind::Recipe => {
                let recipe = reader.chunk(kind, id)?;
                let recipe = Recipe::decode(recipe.as_ref()).map_err(|e| damaged("a recipe", e))?;
                for stream in [recipe.literals, recipe.payloads, recipe.runs] {
                    content_needs(&stream.content, &mut open);
                }
            }
            ChunkKind::Data | ChunkKind::Record if data => drop(reader.chunk(kind, id)?),
            ChunkKind::Data | ChunkKind::Record => {}
        }
    }
    Ok(())
}

type Open = Vec<(ChunkKind, ChunkId)>;

fn entry_needs(entry: &tree::Entry, open: &mut Open) {
    for xattr in &entry.xattrs {
        if let XattrValue::Chunk { id, .. } = xattr.value {
            open.push((ChunkKind::Data, id));
        }
    }
    match &entry.node {
        Node::Directory { tree } => open.push((ChunkKind::Tree, (*tree).into())),
        Node::File { content, .. } => content_needs(content, open),
        _ => {}
    }
}

fn content_needs(content: &Content, open: &mut Open) {
    match content {
        Content::Inline(_) => {}
        Content::Pieces(pieces) => piece_needs(pieces, open),
        Content::List { id, .. } => open.push((ChunkKind::List, (*id).into())),
        Content::Recipe { id } => open.push((ChunkKind::Recipe, *id)),
    }
}

fn piece_needs(pieces: &[Piece], open: &mut Open) {
    for piece in pieces {
        if let Piece::Chunk { id, .. } = piece {
            open.push((ChunkKind::Data, *id));
        }
    }
}

fn unless_there(put: RepoResult<()>) -> RepoResult<()> {
    match put {
        Err(RepoError::Store(error)) if error.kind == StoreErrorKind::Conflict => Ok(()),
        result => result,
    }
}

fn damaged(object: &str, error: impl std::fmt::Display) -> RepoError {
    RepoError::Damaged {
        object: object.to_owned(),
        cause: error.to_string(),
    }
}
