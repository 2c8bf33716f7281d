//! `backup`: reads items of a host and publishes a snapshot of each.
//!
//! Items are published in small groups: what an item needs is durable before its snapshot is
//! put, and a run that is cut off keeps what it published. When somebody fenced the run's lease
//! meanwhile (the machine was suspended, say), what was just published may lack chunks that
//! prune took away: those items are read and published anew under a new lease.

mod choose;
mod contention;
mod freeze;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use podkeep_format::block::BlockClass;
use podkeep_format::frame::SessionKeys;
use podkeep_format::id::{ChunkId, ChunkKind, RunId};
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::lease::Purpose;
use podkeep_format::names;
use podkeep_format::run::RunRecord;
use podkeep_format::seal::{Secret, SessionSeal};
use podkeep_format::snapshot::{Consistency, Snapshot, SnapshotBody, SnapshotHeader};
use podkeep_format::tree::Time;

use self::choose::{choose, left_out, missed};
use self::freeze::{Group, groups};
use super::counting::{Counting, truncate};
use super::patience::{patiently, settle};
use super::pump::{Pump, Sink};
use super::{BackupItem, BackupOptions, BackupReport, OperationError, OperationResult, Selection};
use crate::fs::scan::KnownContents;
use crate::fs::{FoundChunk, FsErrorKind, ScanOutcome, ScannedLayer};
use crate::host::{HostError, ImageFacts, Inventory, ScanRequest, Source};
use crate::monitor::{Finding, FindingKind, FrozenFor, Monitor, Progress};
use crate::repo::index::Index;
use crate::repo::layers::{KnownLayer, LayerRecords};
use crate::repo::lease::HeldLease;
use crate::repo::writer::{Writer, WriterCounts};
use crate::repo::{RepoError, Repository, StoredSnapshot, now, orphans, random, reserve};

/// Items are published once this many plaintext bytes wait, or this much time passed.
const GROUP_BYTES: u64 = 4 << 20;
const GROUP_TIME: Duration = Duration::from_secs(5);
/// How often one item is read anew because its lease was fenced.
const FENCED_MAX: u32 = 3;

/// Backs up what `options` selects. Fails as a whole only when nothing can go on (store, keys,
/// no match); what fails for one item is a finding, and the others go on.
pub fn backup(
    repo: &Repository,
    source: &dyn Source,
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> OperationResult<BackupReport> {
    let started = Instant::now();
    let counting = Counting::new(monitor);
    if !options.dry_run {
        for finding in source.thaw_leftovers() {
            counting.finding(finding);
        }
    }
    let inventory = source.inventory()?;
    for finding in &inventory.findings {
        counting.finding(finding.clone());
    }
    for finding in missed(&inventory, &options.selection) {
        counting.finding(finding.clone());
    }
    let items = choose(&inventory, options)?;
    for note in left_out(&inventory, &items, options) {
        counting.finding(note);
    }
    if options.dry_run {
        return Ok(dry_run(items, started));
    }
    reserve::require(repo)?;
    let (items, groups) = groups(&inventory, items, options.consistency);
    let mut run = Run {
        repo,
        source,
        options,
        monitor: &counting,
        inventory: &inventory,
        images: inventory
            .images
            .iter()
            .map(|image| (image.item(), image))
            .collect(),
        id: RunId(random().map_err(OperationError::Repository)?),
        started: now(),
        growth_before: repo.traffic().growth(),
        counts: WriterCounts::default(),
        done: Vec::new(),
        groups,
        known: options.known.clone().unwrap_or_default(),
    };
    let mut queue: VecDeque<Job> = items.into_iter().collect();
    while !queue.is_empty() {
        run.under_one_lease(&mut queue)?;
    }
    run.report(started)
}

/// What a selection means on a source, with what it needs.
pub(super) fn selected(
    source: &dyn Source,
    selection: &Selection,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<Item>> {
    let inventory = source.inventory()?;
    for finding in missed(&inventory, selection) {
        monitor.finding(finding.clone());
    }
    let options = BackupOptions {
        selection: selection.clone(),
        ..BackupOptions::default()
    };
    choose(&inventory, &options)
}

fn dry_run(items: Vec<Item>, started: Instant) -> BackupReport {
    let items = items.into_iter().map(|item| BackupItem {
        item,
        snapshot: None,
        root: None,
        files: 0,
        bytes_logical: 0,
        bytes_read: 0,
        complete: true,
        consistency: Consistency::Live,
        frozen: None,
        failure: None,
    });
    BackupReport {
        complete: true,
        items: items.collect(),
        seconds: started.elapsed().as_secs_f64(),
        ..BackupReport::default()
    }
}

/// An item that waits to be read.
struct Job {
    item: Item,
    /// How often its lease was fenced; file states are then not trusted.
    fenced: u32,
    /// The group whose containers are at rest while it is read; `None`: it is read live.
    group: Option<usize>,
}

/// An item that is being read.
struct Reading<'a> {
    job: Job,
    request: ScanRequest,
    header: SnapshotHeader,
    started: Time,
    /// Counts what is found of this item.
    monitor: Counting<'a>,
}

/// An item that was read and is not published yet.
struct Pending {
    job: Job,
    request: ScanRequest,
    header: SnapshotHeader,
    body: SnapshotBody,
    report: BackupItem,
}

struct Run<'a> {
    repo: &'a Repository,
    source: &'a dyn Source,
    options: &'a BackupOptions,
    monitor: &'a Counting<'a>,
    inventory: &'a Inventory,
    images: HashMap<Item, &'a ImageFacts>,
    id: RunId,
    started: Time,
    growth_before: u64,
    counts: WriterCounts,
    done: Vec<BackupItem>,
    groups: Vec<Group>,
    known: Arc<KnownContents>,
}

/// What lives as long as one lease.
struct Session {
    lease: HeldLease,
    writer: Writer,
    latest: HashMap<Item, StoredSnapshot>,
    layers: LayerRecords,
    /// Whether file states may stand for chunk look-ups: nothing that they rely on can be gone.
    states_hold: bool,
}

impl<'a> Run<'a> {
    /// Takes jobs off the queue until it is empty, or until the lease was fenced: then the jobs
    /// that must be done again are put back.
    fn under_one_lease(&mut self, queue: &mut VecDeque<Job>) -> OperationResult<()> {
        let mut session = self.open_session()?;
        let mut pending: Vec<Pending> = Vec::new();
        let mut committed = Instant::now();
        let mut outcome = Ok(());
        while let Some(job) = queue.pop_front() {
            if self.monitor.interrupted() {
                outcome = Err(OperationError::Interrupted);
                break;
            }
            let read = match job.group {
                None => self.read_live(&mut session, job, &mut pending),
                Some(group) => {
                    let mut jobs = vec![job];
                    while queue.front().is_some_and(|job| job.group == Some(group)) {
                        jobs.extend(queue.pop_front());
                    }
                    self.read_at_rest(&mut session, group, jobs, &mut pending)
                }
            };
            if let Err(error) = read {
                outcome = Err(error);
                break;
            }
            if session.writer.unflushed() >= GROUP_BYTES || committed.elapsed() >= GROUP_TIME {
                self.commit(&mut session, &mut pending, queue)?;
                committed = Instant::now();
                if queue.front().is_some_and(|job| job.fenced > 0) {
                    break;
                }
            }
        }
        // What was read completely is published, also when the run ends early.
        if !matches!(
            outcome,
            Err(OperationError::Repository(_) | OperationError::Store(_))
        ) {
            self.commit(&mut session, &mut pending, queue)?;
        }
        let counts = session.writer.counts();
        self.counts.chunks_new += counts.chunks_new;
        self.counts.chunks_known += counts.chunks_known;
        if outcome.is_ok() && queue.is_empty() {
            self.put_run_record(&session)?;
        }
        outcome
    }

    fn open_session(&self) -> OperationResult<Session> {
        let repo = self.repo;
        // The order matters ("A writer, in order" in the protocol): the lease, which everybody
        // must see, then tombstones, segments, packs.
        let lease = HeldLease::take(repo, Purpose::Write)?;
        repo.store().set_temp_owner(&lease.id().to_hex());
        settle(repo, self.monitor)?;
        let index = Arc::new(Index::load(repo, self.monitor)?);
        orphans::adopt_own(repo, &index, self.monitor)?;
        let layers = LayerRecords::list(repo)?;
        let latest = repo.own_latest(self.monitor)?;
        let states_hold = index.tombstones.is_empty()
            && index.missing.is_empty()
            && index.short.is_empty()
            && index.damaged.is_empty();
        let writer = Writer::new(repo, index, lease.id(), self.threads())?;
        Ok(Session {
            lease,
            writer,
            latest,
            layers,
            states_hold,
        })
    }

    fn threads(&self) -> usize {
        match self.options.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            threads => threads,
        }
    }

    /// Reads an item whose containers, if there are any, go on meanwhile.
    fn read_live(
        &mut self,
        session: &mut Session,
        job: Job,
        pending: &mut Vec<Pending>,
    ) -> OperationResult<()> {
        let reading = self.begin(session, job)?;
        let text = reading.job.item.to_string();
        self.monitor.progress(Progress::ItemStart { item: &text });
        // Each time one more layer is known to be none that can be had as it was.
        let mut again = self
            .images
            .get(&reading.job.item)
            .map_or(0, |image| image.layers.len());
        let read = loop {
            match self.read_whole(&mut session.writer, &reading) {
                Err(error) if is_not_exact(&error) && again > 0 => again -= 1,
                read => break read,
            }
        };
        match read {
            Ok(read) => pending.push(self.end(session, reading, read, None)),
            Err(error) => self.failed(reading.job.item, error)?,
        }
        Ok(())
    }

    fn read_whole(&self, writer: &mut Writer, reading: &Reading<'_>) -> OperationResult<ItemRead> {
        let mut opened = self.open(writer, reading)?;
        let findings = std::mem::take(&mut opened.findings);
        let read = opened
            .take(writer, |tree, writer| {
                tree.take_all(writer, &reading.monitor)
            })
            .and_then(|()| opened.finish(writer));
        // What is opened again has findings of its own.
        if !matches!(&read, Err(error) if is_not_exact(error)) {
            for finding in findings {
                reading.monitor.finding(finding);
            }
        }
        read
    }

    fn begin(&self, session: &mut Session, job: Job) -> OperationResult<Reading<'a>> {
        let known_layers = self.known_layers(session, &job.item)?;
        let previous = session.latest.get(&job.item);
        let trusted = previous
            .filter(|_| session.states_hold && job.fenced == 0)
            .map(|snapshot| snapshot.id);
        let request = ScanRequest {
            item: job.item.clone(),
            chunking: Arc::clone(self.repo.chunking()),
            threads: self.threads(),
            exclude: self.options.exclude.clone(),
            exclude_caches: self.options.exclude_caches,
            cross_mounts: self.options.cross_mounts,
            states: self.options.states.clone(),
            known_layers,
            trusted,
            // Of one reading alone nothing needs to be known.
            known: match job.group {
                Some(_) => Some(Arc::clone(&self.known)),
                None => self.options.known.clone(),
            },
        };
        let header = SnapshotHeader {
            author: self.repo.author().id(),
            host: self.repo.host(),
            item: job.item.clone(),
            sequence: previous.map_or(1, |snapshot| snapshot.header.sequence + 1),
            predecessor: previous.map(|snapshot| snapshot.id),
            lease: session.lease.id(),
            run: self.id,
            time: self.started,
        };
        Ok(Reading {
            job,
            request,
            header,
            started: now(),
            monitor: Counting::new(self.monitor),
        })
    }

    /// An item could not be read, which is a finding and in the report. `Err`: that ends the run.
    fn failed(&mut self, item: Item, error: OperationError) -> OperationResult<()> {
        let error = match error {
            OperationError::Host(error) if !matches!(error, HostError::Busy { .. }) => error,
            error => return Err(error),
        };
        match self.is_gone(&item, &error)? {
            true => self.monitor.finding(Finding {
                object: item.to_string(),
                kind: FindingKind::Vanished,
                snapshots: Vec::new(),
                paths: Vec::new(),
                message: "it was removed before it could be read".into(),
            }),
            false => self.fail_item(item, &error),
        }
        Ok(())
    }

    /// An item was read; `frozen`: while its containers were at rest.
    fn end(
        &self,
        session: &mut Session,
        reading: Reading<'a>,
        read: ItemRead,
        frozen: Option<FrozenFor>,
    ) -> Pending {
        let Reading {
            job,
            request,
            header,
            started,
            monitor,
        } = reading;
        let layers = read.outcome.as_ref().map_or(&[][..], |o| &o.layers[..]);
        for layer in layers {
            session.layers.add(
                self.repo,
                held(layer),
                layer.chunks.iter().copied().collect(),
            );
        }
        let warnings = monitor.warnings();
        let body = SnapshotBody {
            host_name: self.repo.host_name().to_owned(),
            aliases: self.aliases(&job.item),
            root: read.outcome.as_ref().map(|outcome| outcome.root),
            definition: read.definition,
            uid_map: self.inventory.owners.uids.to_snapshot(),
            gid_map: self.inventory.owners.gids.to_snapshot(),
            consistency: frozen.map_or(Consistency::Live, |frozen| frozen.how),
            complete: read.complete,
            findings: warnings,
            finding_samples: monitor.into_samples(),
            started,
            finished: now(),
            zone_minutes: self.options.zone_minutes,
            scope_all: self.options.selection.all,
            tags: self.options.tags.clone(),
            files: read.outcome.as_ref().map_or(0, |o| o.files),
            directories: read.outcome.as_ref().map_or(0, |o| o.directories),
            bytes_logical: read.outcome.as_ref().map_or(0, |o| o.bytes_logical),
            bytes_allocated: read.outcome.as_ref().map_or(0, |o| o.bytes_allocated),
            bytes_read: read.bytes_read,
            excludes: self.options.exclude.clone(),
            exclude_caches: self.options.exclude_caches,
            cross_mounts: self.options.cross_mounts,
            driver: self.inventory.driver.clone().unwrap_or_default(),
            podman_version: self.inventory.podman_version.clone().unwrap_or_default(),
            podkeep_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.monitor.progress(Progress::ItemDone {
            item: &job.item.to_string(),
            files: body.files,
            bytes: body.bytes_logical,
            bytes_new: read.bytes_new,
            warnings,
            frozen,
        });
        let report = BackupItem {
            item: job.item.clone(),
            snapshot: None,
            root: body.root,
            files: body.files,
            bytes_logical: body.bytes_logical,
            bytes_read: body.bytes_read,
            complete: body.complete,
            consistency: body.consistency,
            frozen,
            failure: None,
        };
        Pending {
            job,
            request,
            header,
            body,
            report,
        }
    }

    /// Layers of an image that need not be read.
    fn known_layers(&self, session: &mut Session, item: &Item) -> OperationResult<Vec<KnownLayer>> {
        let mut known = Vec::new();
        let image = self.images.get(item);
        for diff_id in image.map_or(&[][..], |image| &image.layers[..]) {
            let Session { layers, writer, .. } = session;
            known.extend(layers.find(self.repo, writer, *diff_id, self.monitor)?);
        }
        Ok(known)
    }

    fn aliases(&self, item: &Item) -> Vec<String> {
        let image = self.images.get(item);
        image.map_or_else(Vec::new, |image| image.aliases())
    }

    fn open(&self, writer: &mut Writer, reading: &Reading<'_>) -> OperationResult<Opened> {
        let opened = patiently(self.options.wait, self.monitor, || {
            self.source.open(&reading.request)
        })?;
        let complete = opened
            .findings
            .iter()
            .all(|finding| !finding.kind.is_incomplete() && finding.kind != FindingKind::Volume);
        let new_before = writer.counts().bytes_new;
        let mut definition = None;
        if let Some(record) = opened.definition {
            let ids = &reading.request.chunking.ids;
            let id = ids.chunk_id(ChunkKind::Record, &record);
            if !writer.knows(&id) {
                writer.add(id, ChunkKind::Record, BlockClass::Meta, &record)?;
                // A definition may hold passwords: no block has it together with anything else.
                writer.end_item()?;
            }
            definition = Some((id, record.len() as u32));
        }
        Ok(Opened {
            definition,
            tree: opened.tree.map(Pump::new),
            findings: opened.findings,
            bytes_new: writer.counts().bytes_new - new_before,
            complete,
        })
    }

    /// Whether an image or container that cannot be read is no longer on the host: on a host that
    /// builds and prunes images, and runs containers for a moment, that is no failure.
    fn is_gone(&self, item: &Item, error: &HostError) -> OperationResult<bool> {
        let not_found = match error {
            HostError::Fs(error) => error.kind == FsErrorKind::NotFound,
            _ => false,
        };
        if item.kind == ItemKind::Container && not_found {
            let now = self.source.inventory()?;
            return Ok(!now.containers.iter().any(|other| other.item() == *item));
        }
        let Some(image) = self.images.get(item).filter(|_| not_found) else {
            return Ok(false);
        };
        let now = self.source.inventory()?;
        Ok(!now.images.iter().any(|other| other.id == image.id))
    }

    fn fail_item(&mut self, item: Item, error: &HostError) {
        let object = item.to_string();
        let why = error.about(&object);
        self.monitor.finding(Finding {
            object,
            kind: FindingKind::Unreadable,
            snapshots: Vec::new(),
            paths: Vec::new(),
            message: format!("{why}; there is no snapshot of it in this run"),
        });
        self.done.push(BackupItem {
            item,
            snapshot: None,
            root: None,
            files: 0,
            bytes_logical: 0,
            bytes_read: 0,
            complete: false,
            consistency: Consistency::Live,
            frozen: None,
            failure: Some(why),
        });
    }

    /// Publishes what is pending. If the lease was fenced, puts the jobs back to be done anew.
    fn commit(
        &mut self,
        session: &mut Session,
        pending: &mut Vec<Pending>,
        queue: &mut VecDeque<Job>,
    ) -> OperationResult<()> {
        if pending.is_empty() {
            return Ok(());
        }
        session.writer.flush()?;
        session.layers.put(self.repo, session.lease.id())?;
        let mut published = Vec::new();
        for item in pending.drain(..) {
            let (session_key, seal) = session.writer.session();
            let bytes = Snapshot::seal(
                &item.header,
                &item.body,
                &self.repo.vault().index,
                &self.keys(session_key, seal)?,
            )
            .map_err(|e| RepoError::damaged("a snapshot", e))?;
            let id = self.repo.publish_snapshot(&bytes)?;
            published.push((item, id));
        }
        if self.repo.is_fenced(session.lease.id())? {
            for (item, _) in published.into_iter().rev() {
                let fenced = item.job.fenced + 1;
                if fenced > FENCED_MAX {
                    self.monitor
                        .finding(fenced_too_often(&item.job.item, self.id));
                    self.done.push(BackupItem {
                        complete: false,
                        failure: Some(FENCED_TOO_OFTEN.into()),
                        ..item.report
                    });
                } else {
                    queue.push_front(Job { fenced, ..item.job });
                }
            }
            return Ok(());
        }
        for (item, id) in published {
            // Only costs time when it fails: the next run reads everything.
            if let Err(error) = self.source.published(&item.request, id) {
                self.monitor.finding(Finding {
                    object: item.job.item.to_string(),
                    kind: FindingKind::Note,
                    snapshots: Vec::new(),
                    paths: Vec::new(),
                    message: format!("{error}; the next backup reads all of it again"),
                });
            }
            self.done.push(BackupItem {
                snapshot: Some(id),
                ..item.report
            });
        }
        Ok(())
    }

    fn keys<'k>(
        &'k self,
        session: &'k Secret,
        seal: &'k SessionSeal,
    ) -> OperationResult<SessionKeys<'k>> {
        Ok(SessionKeys {
            repository: self.repo.id(),
            author: self.repo.author(),
            session,
            seal,
            salt: random()?,
        })
    }

    fn put_run_record(&self, session: &Session) -> OperationResult<()> {
        let sum = |field: fn(&BackupItem) -> u64| self.done.iter().map(field).sum();
        let failed = self.done.iter().filter_map(|item| {
            let cause = item.failure.as_ref()?;
            Some((item.item.clone(), truncate(cause)))
        });
        let record = RunRecord {
            run: self.id,
            author: self.repo.author().id(),
            host: self.repo.host(),
            host_name: self.repo.host_name().to_owned(),
            snapshots: self.done.iter().filter_map(|item| item.snapshot).collect(),
            items_failed: failed.collect(),
            scope_all: self.options.selection.all,
            tags: self.options.tags.clone(),
            started: self.started,
            finished: now(),
            zone_minutes: self.options.zone_minutes,
            complete: self.is_complete(),
            bytes_read: sum(|item| item.bytes_read),
            bytes_logical: sum(|item| item.bytes_logical),
            bytes_added: self.repo.traffic().growth() - self.growth_before,
            files: sum(|item| item.files),
        };
        if record.snapshots.is_empty() {
            return Ok(());
        }
        let (session_key, seal) = session.writer.session();
        let bytes = record
            .seal(&self.keys(session_key, seal)?)
            .map_err(|e| RepoError::damaged("the run record", e))?;
        self.repo.put(&names::run(self.id), &bytes)?;
        Ok(())
    }

    /// Every item was read, and of all items none is missing from the inventory.
    fn is_complete(&self) -> bool {
        let unlisted = missed(self.inventory, &self.options.selection);
        let all_listed = !self.options.selection.all
            || !unlisted
                .into_iter()
                .any(|finding| finding.kind.is_incomplete());
        all_listed && self.done.iter().all(|item| item.complete)
    }

    fn report(self, started: Instant) -> OperationResult<BackupReport> {
        let stored = self.done.iter().any(|item| item.snapshot.is_some());
        Ok(BackupReport {
            run: stored.then_some(self.id),
            complete: self.is_complete(),
            files: self.done.iter().map(|item| item.files).sum(),
            bytes_read: self.done.iter().map(|item| item.bytes_read).sum(),
            bytes_logical: self.done.iter().map(|item| item.bytes_logical).sum(),
            bytes_added: self.repo.traffic().growth() - self.growth_before,
            chunks_new: self.counts.chunks_new,
            chunks_known: self.counts.chunks_known,
            warnings: self.monitor.warnings(),
            seconds: started.elapsed().as_secs_f64(),
            items: self.done,
        })
    }
}

/// Whether a layer turned out to be none that can be read as it was.
fn is_not_exact(error: &OperationError) -> bool {
    matches!(error, OperationError::Host(HostError::Fs(error)) if error.kind == FsErrorKind::NotExact)
}

/// A layer that was just read, as the repository holds it.
fn held(layer: &ScannedLayer) -> KnownLayer {
    KnownLayer {
        diff_id: layer.diff_id,
        recipe: layer.recipe,
        size: layer.size,
    }
}

/// What the repository does not know yet is stored.
impl Sink for Writer {
    fn wants(&mut self, chunk: &FoundChunk) -> bool {
        !self.knows(&chunk.id)
    }

    fn take(&mut self, chunk: &FoundChunk, bytes: &[u8]) -> OperationResult<()> {
        Ok(self.add(chunk.id, chunk.kind, chunk.class, bytes)?)
    }
}

/// An item whose definition is stored, and whose files may be read.
struct Opened {
    definition: Option<(ChunkId, u32)>,
    tree: Option<Pump>,
    /// Of its opening, and not told yet.
    findings: Vec<Finding>,
    /// What it made the repository grow by so far.
    bytes_new: u64,
    complete: bool,
}

impl Opened {
    /// Takes something of its files, if it has any.
    fn take(
        &mut self,
        writer: &mut Writer,
        take: impl FnOnce(&mut Pump, &mut Writer) -> OperationResult<()>,
    ) -> OperationResult<()> {
        let before = writer.counts().bytes_new;
        if let Some(tree) = &mut self.tree {
            take(tree, writer)?;
        }
        self.bytes_new += writer.counts().bytes_new - before;
        Ok(())
    }

    /// Once all of its files were read.
    fn finish(self, writer: &mut Writer) -> OperationResult<ItemRead> {
        let (outcome, bytes_read) = match self.tree.map(Pump::finish).transpose()? {
            Some((outcome, bytes_read)) => (Some(outcome), bytes_read),
            None => (None, 0),
        };
        writer.end_item()?;
        let complete = outcome.as_ref().is_none_or(|outcome| !outcome.incomplete);
        Ok(ItemRead {
            definition: self.definition,
            outcome,
            bytes_read,
            bytes_new: self.bytes_new,
            complete: self.complete && complete,
        })
    }
}

/// An item as it was read.
struct ItemRead {
    definition: Option<(ChunkId, u32)>,
    outcome: Option<ScanOutcome>,
    bytes_read: u64,
    bytes_new: u64,
    complete: bool,
}

/// Why there is no snapshot that counts, in the words of the finding and of the run record.
const FENCED_TOO_OFTEN: &str = "its lease was taken for ended again and again, so that what was \
    stored of it does not count; is this machine suspended while it backs up?";

fn fenced_too_often(item: &Item, run: RunId) -> Finding {
    Finding {
        object: item.to_string(),
        kind: FindingKind::Unreadable,
        snapshots: vec![run.to_hex()],
        paths: Vec::new(),
        message: FENCED_TOO_OFTEN.into(),
    }
}
