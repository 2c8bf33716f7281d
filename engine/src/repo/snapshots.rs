//! Item snapshots and run records: listing, reading, publishing, and which of them count.
//!
//! A snapshot exists twice; either copy is enough. It counts when its author is the owner or
//! certified by the owner, and when its lease was not fenced, or the verdict on the lease names
//! it ("Commit" in the protocol). While a fenced lease has no verdict that can be read, none of
//! its snapshots counts: what they need may be about to go.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use podkeep_format::author::{AuthorCertificate, Revocation};
use podkeep_format::endorsement::Endorsement;
use podkeep_format::fence::{Fence, Verdict};
use podkeep_format::frame::{ObjectKind, Statement};
use podkeep_format::id::{AuthorId, LayerRecordId, LeaseId, RunId, SegmentId, SnapshotId};
use podkeep_format::item::Item;
use podkeep_format::names::{self, Name};
use podkeep_format::run::{RunRecord, SealedRun};
use podkeep_format::snapshot::{SealedSnapshot, SnapshotBody, SnapshotHeader};

use super::catalog::Catalog;
use super::segments::LoadedSegment;
use super::{RepoError, RepoResult, Repository, name};
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::store::StoreErrorKind;

/// A published snapshot of one item.
#[derive(Clone, Debug)]
pub struct StoredSnapshot {
    pub id: SnapshotId,
    pub header: SnapshotHeader,
    /// `None` with a write key, which cannot read it.
    pub body: Option<SnapshotBody>,
    /// `false`: its lease was fenced, and no verdict names it (yet).
    pub confirmed: bool,
}

impl Repository {
    fn catalog(&self) -> &Catalog {
        let open = || Catalog::open(self.cache_folder());
        self.catalog.get_or_init(open)
    }

    /// All snapshots that can be read, by time. One that cannot be read is a finding.
    pub fn snapshots(&self, monitor: &dyn Monitor) -> RepoResult<Vec<StoredSnapshot>> {
        let ids = self.snapshot_ids()?;
        self.catalog().retain("snapshots", &|text| {
            super::listed::snapshot(text).is_some_and(|id| ids.contains(&id))
        });
        let authors = self.authors(monitor)?;
        let fenced = self.fenced(monitor)?;
        let mut snapshots = Vec::new();
        for id in ids {
            let read = self.read_snapshot(id).and_then(|sealed| {
                let author = sealed.header.author;
                if author != self.config().owner && !authors.contains_key(&author) {
                    return Err(RepoError::Damaged {
                        object: names::snapshot(id, false),
                        cause: "its author is not certified by the owner".into(),
                    });
                }
                let body = match &self.vault().private {
                    Some(private) => Some(
                        sealed
                            .open(private)
                            .map_err(|e| RepoError::damaged(names::snapshot(id, false), e))?,
                    ),
                    None => None,
                };
                Ok((sealed.header, body))
            });
            match read {
                Ok((header, body)) => {
                    let confirmed = match fenced.get(&header.lease) {
                        None => true,
                        Some(None) => false,
                        Some(Some(verdict)) => verdict.counts(&id),
                    };
                    snapshots.push(StoredSnapshot {
                        id,
                        header,
                        body,
                        confirmed,
                    });
                }
                Err(error) if super::reader::is_fatal(&error) => return Err(error),
                Err(error) => monitor.finding(Finding {
                    object: names::snapshot(id, false),
                    kind: FindingKind::Damaged,
                    snapshots: vec![id.to_hex()],
                    paths: Vec::new(),
                    message: error.to_string(),
                }),
            }
        }
        snapshots.sort_by_key(|s| (s.header.time, s.header.sequence, s.id));
        Ok(snapshots)
    }

    /// Ids of all snapshots, from both copies.
    pub fn snapshot_ids(&self) -> RepoResult<BTreeSet<SnapshotId>> {
        let listed = self.store().list("snapshots")?;
        Ok(listed
            .iter()
            .filter_map(|meta| super::listed::snapshot(meta.name.as_str()))
            .collect())
    }

    fn read_snapshot(&self, id: SnapshotId) -> RepoResult<SealedSnapshot> {
        let object = names::snapshot(id, false);
        let parse = |bytes: &[u8]| {
            if *blake3::hash(bytes).as_bytes() != id.0 {
                return Err(RepoError::Damaged {
                    object: object.clone(),
                    cause: "its bytes do not hash to its name".into(),
                });
            }
            SealedSnapshot::read(bytes, self.id(), &self.vault().index)
                .map_err(|e| RepoError::damaged(&object, e))
        };
        if let Some(bytes) = self.catalog().object(&object)
            && let Ok(sealed) = parse(&bytes)
        {
            return Ok(sealed);
        }
        let mut failure = None;
        for copy in [object.clone(), names::snapshot(id, true)] {
            let read = self
                .store()
                .get(&name(&copy)?, ObjectKind::Snapshot.bytes_max() as u64)
                .map_err(RepoError::from)
                .and_then(|bytes| parse(&bytes).map(|sealed| (bytes, sealed)));
            match read {
                Ok((bytes, sealed)) => {
                    self.catalog().keep(&object, &bytes);
                    return Ok(sealed);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or(RepoError::Missing { object }))
    }

    /// The newest confirmed snapshot of each item by this author and host, as far as can be
    /// read.
    pub fn own_latest(&self, monitor: &dyn Monitor) -> RepoResult<HashMap<Item, StoredSnapshot>> {
        let mut latest: HashMap<Item, StoredSnapshot> = HashMap::new();
        for snapshot in self.snapshots(monitor)? {
            let header = &snapshot.header;
            if header.author != self.author().id()
                || header.host != self.host()
                || !snapshot.confirmed
            {
                continue;
            }
            match latest.get(&header.item) {
                Some(known) if known.header.sequence > header.sequence => {}
                _ => drop(latest.insert(header.item.clone(), snapshot)),
            }
        }
        Ok(latest)
    }

    /// Puts a sealed snapshot: the commit point of its item.
    pub fn publish_snapshot(&self, bytes: &[u8]) -> RepoResult<SnapshotId> {
        let id = SnapshotId(*blake3::hash(bytes).as_bytes());
        let first = self.put(&names::snapshot(id, false), bytes);
        if let Err(RepoError::Store(error)) = &first
            && error.kind != StoreErrorKind::Short
        {
            return Err(error.clone().into());
        }
        // The twin is for damage that comes later, or came already: where the store kept only a
        // part of the first copy, the second one publishes. One copy stands without the other,
        // and check makes that again.
        self.put(&names::snapshot(id, true), bytes)?;
        first?;
        self.catalog().keep(&names::snapshot(id, false), bytes);
        Ok(id)
    }

    /// Whether the owner fenced this lease.
    pub fn is_fenced(&self, lease: LeaseId) -> RepoResult<bool> {
        match self.store().get(
            &name(names::fence(lease))?,
            ObjectKind::Fence.bytes_max() as u64,
        ) {
            Ok(bytes) => Ok(self.fence_holds(lease, &bytes)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) if error.kind == StoreErrorKind::Unreachable => Err(error.into()),
            Err(_) => Ok(true),
        }
    }

    /// All run records that can be read. Needs a full key.
    pub fn runs(&self, monitor: &dyn Monitor) -> RepoResult<BTreeMap<RunId, RunRecord>> {
        self.require_full("read run records")?;
        let mut runs = BTreeMap::new();
        let listed = self.store().list("runs")?;
        for meta in &listed {
            let Some(id) = super::listed::run(meta.name.as_str()) else {
                continue;
            };
            match self.read_run(id) {
                Ok(record) => drop(runs.insert(id, record)),
                Err(error) if super::reader::is_fatal(&error) => return Err(error),
                Err(error) => monitor.finding(Finding {
                    object: names::run(id),
                    kind: FindingKind::Damaged,
                    snapshots: Vec::new(),
                    paths: Vec::new(),
                    message: format!("{error}; its items can be restored all the same"),
                }),
            }
        }
        self.catalog().retain("runs", &|text| {
            listed.iter().any(|meta| meta.name.as_str() == text)
        });
        Ok(runs)
    }

    fn read_run(&self, id: RunId) -> RepoResult<RunRecord> {
        let object = names::run(id);
        if let Some(bytes) = self.catalog().object(&object)
            && let Ok(record) = self.open_run(id, &bytes)
        {
            return Ok(record);
        }
        let (bytes, record) = self.fetch_run(id)?;
        self.catalog().keep(&object, &bytes);
        Ok(record)
    }

    /// A run record as the store has it, whatever the local catalog kept. Needs a full key.
    pub fn stored_run(&self, id: RunId) -> RepoResult<RunRecord> {
        Ok(self.fetch_run(id)?.1)
    }

    fn fetch_run(&self, id: RunId) -> RepoResult<(Vec<u8>, RunRecord)> {
        let bytes = self
            .store()
            .get(&name(names::run(id))?, ObjectKind::Run.bytes_max() as u64)?;
        let record = self.open_run(id, &bytes)?;
        Ok((bytes, record))
    }

    fn open_run(&self, id: RunId, bytes: &[u8]) -> RepoResult<RunRecord> {
        let object = names::run(id);
        let damaged = |e| RepoError::damaged(&object, e);
        let sealed = SealedRun::read(bytes, self.id()).map_err(damaged)?;
        let private = self.vault().private.as_ref();
        let private = private.ok_or(RepoError::KeyInsufficient {
            action: "read run records",
        })?;
        let record = sealed.open(private).map_err(damaged)?;
        if record.run != id {
            return Err(RepoError::Damaged {
                object,
                cause: "it is of another run".into(),
            });
        }
        Ok(record)
    }

    /// Authors with a valid certificate, with their labels.
    pub fn authors(&self, monitor: &dyn Monitor) -> RepoResult<HashMap<AuthorId, String>> {
        let mut authors = HashMap::new();
        for (object, bytes) in self.statements("authors", ObjectKind::Author, monitor)? {
            let decoded = AuthorCertificate::decode(&bytes, self.id(), self.config().owner);
            match decoded {
                Ok(certificate) => drop(authors.insert(certificate.author, certificate.label)),
                Err(error) => monitor.finding(unreadable(&object, &error)),
            }
        }
        Ok(authors)
    }

    /// Authors whose key the owner has taken back.
    pub fn revoked(&self, monitor: &dyn Monitor) -> RepoResult<HashSet<AuthorId>> {
        let mut revoked = HashSet::new();
        for (object, bytes) in self.statements("revocations", ObjectKind::Revocation, monitor)? {
            match Revocation::decode(&bytes, self.id(), self.config().owner) {
                Ok(list) => revoked.extend(list.authors),
                Err(error) => monitor.finding(unreadable(&object, &error)),
            }
        }
        Ok(revoked)
    }

    /// What a full-key holder has checked by decoding it.
    pub fn endorsed(&self, monitor: &dyn Monitor) -> RepoResult<Endorsed> {
        let mut endorsed = Endorsed::default();
        for (object, bytes) in self.statements("endorsements", ObjectKind::Endorsement, monitor)? {
            match Endorsement::open(&bytes, self.id(), &self.vault().index) {
                Ok(list) if list.author == self.config().owner => {
                    endorsed.segments.extend(list.segments);
                    endorsed.layers.extend(list.layers);
                }
                Ok(_) => {}
                Err(error) => monitor.finding(unreadable(&object, &error)),
            }
        }
        Ok(endorsed)
    }

    /// The fenced leases, each with its verdict where there is one that can be read. Only the
    /// owner's count; a damaged fence is one all the same, a damaged verdict is none.
    fn fenced(&self, monitor: &dyn Monitor) -> RepoResult<HashMap<LeaseId, Option<Verdict>>> {
        let mut fenced: HashMap<LeaseId, Option<Verdict>> = HashMap::new();
        for meta in self.store().list("fences")? {
            let (lease, is_verdict) = match Name::parse(meta.name.as_str()) {
                Some(Name::Fence(lease)) => (lease, false),
                Some(Name::Verdict(lease)) => (lease, true),
                _ => continue,
            };
            let kind = if is_verdict {
                ObjectKind::Verdict
            } else {
                ObjectKind::Fence
            };
            let verdict = match self.store().get(&meta.name, kind.bytes_max() as u64) {
                Ok(bytes) if is_verdict => {
                    Verdict::open(&bytes, self.id(), &self.vault().index).map_err(|e| e.to_string())
                }
                Ok(bytes) => {
                    if self.fence_holds(lease, &bytes) {
                        fenced.entry(lease).or_insert(None);
                    }
                    continue;
                }
                Err(error) if error.kind == StoreErrorKind::Unreachable => {
                    return Err(error.into());
                }
                Err(error) => Err(error.to_string()),
            };
            match verdict {
                Ok(verdict) if verdict.author == self.config().owner && verdict.lease == lease => {
                    fenced.insert(lease, Some(verdict));
                }
                Ok(_) => {}
                Err(cause) => {
                    fenced.entry(lease).or_insert(None);
                    monitor.finding(unreadable(meta.name.as_str(), &cause));
                }
            }
        }
        Ok(fenced)
    }

    /// Whether these bytes, found as the fence of `lease`, fence it.
    fn fence_holds(&self, lease: LeaseId, bytes: &[u8]) -> bool {
        match Fence::open(bytes, self.id(), &self.vault().index) {
            Ok(fence) => fence.author == self.config().owner && fence.lease == lease,
            // Whose it was cannot be told: to publish anew costs less than a lost chunk.
            Err(_) => true,
        }
    }

    /// Name and bytes of every object of a folder of signed statements, of which those of `kind`
    /// are the largest.
    fn statements(
        &self,
        folder: &str,
        kind: ObjectKind,
        monitor: &dyn Monitor,
    ) -> RepoResult<Vec<(String, Vec<u8>)>> {
        let mut statements = Vec::new();
        for meta in self.store().list(folder)? {
            match self.store().get(&meta.name, kind.bytes_max() as u64) {
                Ok(bytes) => statements.push((meta.name.to_string(), bytes)),
                Err(error) if error.kind == StoreErrorKind::Unreachable => {
                    return Err(error.into());
                }
                Err(error) => monitor.finding(unreadable(meta.name.as_str(), &error)),
            }
        }
        Ok(statements)
    }
}

fn unreadable(object: &str, error: &dyn std::fmt::Display) -> Finding {
    Finding {
        object: object.to_owned(),
        kind: FindingKind::Damaged,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: error.to_string(),
    }
}

/// What the owner vouches for, whoever its author is.
#[derive(Default)]
pub struct Endorsed {
    pub segments: HashSet<SegmentId>,
    pub layers: HashSet<LayerRecordId>,
}

/// Whose segments and layer records a writer relies on.
pub struct Trust {
    own: AuthorId,
    owner: AuthorId,
    revoked: HashSet<AuthorId>,
    endorsed: Endorsed,
}

impl Trust {
    pub fn load(repo: &Repository, monitor: &dyn Monitor) -> RepoResult<Self> {
        Ok(Self {
            own: repo.author().id(),
            owner: repo.config().owner,
            revoked: repo.revoked(monitor)?,
            endorsed: repo.endorsed(monitor)?,
        })
    }

    /// Own segments, those of full-key holders, and those that one of them endorsed.
    pub fn covers(&self, segment: &LoadedSegment) -> bool {
        self.endorsed.segments.contains(&segment.id) || self.relies_on(segment.author)
    }

    /// The same for the record `id`, which `author` signed.
    pub fn covers_layer(&self, id: &LayerRecordId, author: AuthorId) -> bool {
        self.endorses_layer(id) || self.relies_on(author)
    }

    pub fn endorses_layer(&self, id: &LayerRecordId) -> bool {
        self.endorsed.layers.contains(id)
    }

    fn relies_on(&self, author: AuthorId) -> bool {
        author == self.owner || (author == self.own && !self.revoked.contains(&author))
    }
}

/// Whether this repository's own author key was taken back.
pub fn is_revoked(repo: &Repository) -> RepoResult<bool> {
    let revoked = repo.revoked(&crate::monitor::Collect::default())?;
    Ok(revoked.contains(&repo.author().id()))
}
