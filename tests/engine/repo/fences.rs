//! Backups that are suspended while a prune runs elsewhere, through the real `backup` operation:
//! a prune that takes the backup's lease for ended is let in before one of its store operations.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use podkeep_engine::monitor::{Collect, Finding, FindingKind, Monitor, Progress};
use podkeep_engine::operations::{BackupItem, BackupOptions, BackupReport, OperationError, backup};
use podkeep_engine::repo::index::Index;
use podkeep_engine::repo::writer::adopt_orphans;
use podkeep_engine::repo::{Repository, StoredSnapshot, listed, name, orphans};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::{Op, Recording};
use podkeep_engine::store::{Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreResult};
use podkeep_format::fence::Fence;
use podkeep_format::frame::Statement;
use podkeep_format::id::LeaseId;
use podkeep_format::item::Item;
use podkeep_format::names;

use super::memory_host::{Files, MemoryHost};
use super::prune::{Patience, Prune, Pruned};
use super::schedule::Stage;
use super::{back_up, bring_back, check_all, copy, init, item, noise, open, selection, some_files};

type Interruption = Box<dyn FnMut(u64, Op, &str) + Send>;

/// A store that calls somebody before each operation, as if the caller were suspended there.
pub struct Suspending<S> {
    inner: S,
    operations: AtomicU64,
    meanwhile: Mutex<Option<Interruption>>,
    medium: Medium,
}

impl<S> Suspending<S> {
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            operations: AtomicU64::new(0),
            meanwhile: Mutex::new(None),
            medium: Medium::Linearizable,
        }
    }

    fn on(self, medium: Medium) -> Self {
        Self { medium, ..self }
    }

    /// `meanwhile` gets the operation's number, counted from 1 on, and what it is.
    pub fn at_each(&self, meanwhile: impl FnMut(u64, Op, &str) + Send + 'static) {
        self.operations.store(0, Ordering::SeqCst);
        *self.meanwhile.lock().unwrap() = Some(Box::new(meanwhile));
    }

    fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn suspend(&self, op: Op, name: &str) -> &S {
        let number = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(meanwhile) = &mut *self.meanwhile.lock().unwrap() {
            meanwhile(number, op, name);
        }
        &self.inner
    }
}

impl<S: ObjectStore> ObjectStore for Suspending<S> {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        self.suspend(Op::PutNew, name.as_str()).put_new(name, data)
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        self.suspend(Op::Replace, name.as_str()).replace(name, data)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        self.suspend(Op::Get, name.as_str()).get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        self.suspend(Op::GetRange, name.as_str())
            .get_range(name, offset, len)
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.suspend(Op::Size, name.as_str()).size(name)
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        self.suspend(Op::List, folder).list(folder)
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.suspend(Op::Delete, name.as_str()).delete(name)
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

fn old_files() -> Files {
    let mut files = Files::new();
    for n in 0..4 {
        files.insert(format!("shared/{n}"), noise(n, 20_000));
    }
    files
}

/// What is backed up: half of it lies in packs that no snapshot needs.
fn new_files() -> Files {
    let mut files = old_files();
    files.insert("new".into(), noise(50, 30_000));
    files.insert("small".into(), b"text".to_vec());
    files
}

/// A repository with a snapshot of `/keep`, and what a forgotten one of `/old` left.
fn prepared() -> MemoryStore {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let repo = open(store.clone());
    let (keep, old) = (item("/keep"), item("/old"));
    back_up(&repo, &MemoryHost::with(&keep, &some_files(3)), &[&keep]).unwrap();
    let report = back_up(&repo, &MemoryHost::with(&old, &old_files()), &[&old]).unwrap();
    for second in [false, true] {
        let id = report.items[0].snapshot.unwrap();
        let object = name(names::snapshot(id, second)).unwrap();
        assert!(store.delete(&object).unwrap());
    }
    copy(&*store)
}

fn prune(repo: &Repository) -> Pruned {
    let prune = Prune {
        repo,
        patience: &|_| Patience::Ended,
        from_the_end: false,
        flaw: None,
        followed: Mutex::default(),
    };
    prune.run().unwrap()
}

fn snapshots(repo: &Repository) -> Vec<StoredSnapshot> {
    repo.snapshots(&Collect::default()).unwrap()
}

/// What the report says must be so: each snapshot that it names counts and comes back.
fn holds(repo: &Repository, report: &BackupReport, of: &Item, what: &str) {
    let stored: Vec<_> = report.items.iter().filter_map(|i| i.snapshot).collect();
    let found = snapshots(repo);
    for id in &stored {
        let counts = found.iter().any(|s| s.id == *id && s.confirmed);
        assert!(counts, "{what}: {id} was reported and does not count");
    }
    assert_eq!(stored.len(), report.items.len(), "{what}");
    let (restored, _, findings) = bring_back(repo, of).unwrap();
    assert!(restored == new_files(), "{what}: {findings:?}");
    let (kept, _, _) = bring_back(repo, &item("/keep")).unwrap();
    assert!(kept == some_files(3), "{what}");
    let (check, findings) = check_all(repo).unwrap();
    assert_eq!(check.damaged, 0, "{what}: {findings:?}");
}

#[test]
fn e_04_a_backup_suspended_while_prune_runs_never_publishes_what_lacks_chunks() {
    let base = prepared();
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &new_files());
    // Opened once: to derive a key takes longer than all the rest.
    let stage = Stage::new(copy(&base), &[]);
    let suspending = Arc::new(Suspending::new(Recording::new(stage.gate(0))));
    let repo = open(suspending.clone());
    let elsewhere = Arc::new(open(Arc::new(stage.gate(0))));
    let mut at = 1;
    let (mut pruned_away, mut published_anew) = (0, 0);
    loop {
        stage.set_store(copy(&base));
        suspending.inner.take();
        let done = Arc::new(Mutex::new(Pruned::default()));
        suspending.at_each({
            let (done, elsewhere) = (Arc::clone(&done), Arc::clone(&elsewhere));
            move |number, _, _| {
                if number == at {
                    // The first one fences the lease, the second one takes its packs, too.
                    *done.lock().unwrap() = prune(&elsewhere);
                    prune(&elsewhere);
                }
            }
        });
        let report = back_up(&repo, &host, &[&web]).unwrap();
        let operations = suspending.operations();
        if at > operations {
            break;
        }
        let what = format!("two prunes before operation {at} of {operations}");
        let done = done.lock().unwrap().clone();
        pruned_away += usize::from(done.packs_deleted > 0);
        let leases = suspending.inner.count(Op::PutNew, "leases/");
        // A lease that was fenced before its first snapshot costs a second one.
        published_anew += usize::from(leases > 1);
        let listed = snapshots(&elsewhere);
        let of_item = listed.iter().filter(|s| s.header.item == web);
        let unconfirmed = of_item.filter(|s| !s.confirmed).count();
        // One that was there when the fence was put counts, and is published anew all the same.
        assert!(unconfirmed < leases, "{what}");
        assert!(report.complete, "{what}");
        holds(&elsewhere, &report, &web, &what);
        at += 1;
    }
    assert!(at > 20, "{at}");
    assert!(
        pruned_away > 10 && published_anew > 10,
        "{pruned_away} {published_anew}"
    );
}

/// Puts a fence on each lease that a backup takes, before its `nth` snapshot.
fn fence_each(suspending: &Suspending<Arc<MemoryStore>>, elsewhere: Repository, times: u32) {
    let mut lease: Option<LeaseId> = None;
    let mut left = times;
    suspending.at_each(move |_, op, object| {
        use podkeep_format::names::Name;
        match (op, Name::parse(object)) {
            (Op::PutNew, Some(Name::Lease(id, 0))) => lease = Some(id),
            (Op::PutNew, Some(Name::Snapshot { second: false, .. })) if left > 0 => {
                let Some(id) = lease.take() else { return };
                left -= 1;
                fence(&elsewhere, id);
            }
            _ => {}
        }
    });
}

/// Puts a fence, and no verdict.
pub fn fence(repo: &Repository, lease: LeaseId) {
    let fence = Fence {
        lease,
        prune: LeaseId([7; 16]),
        author: repo.author().id(),
        time: podkeep_engine::repo::now(),
    };
    let salt = podkeep_engine::repo::random().unwrap();
    let index = &repo.vault().index;
    let bytes = fence.seal(repo.id(), index, repo.author(), &salt).unwrap();
    repo.put(&names::fence(lease), &bytes).unwrap();
}

#[test]
fn e_05_suspended_longer_than_its_lease_a_backup_publishes_anew() {
    for times in 1..=3 {
        let store = Arc::new(prepared());
        let suspending = Arc::new(Suspending::new(store.clone()));
        let repo = open(suspending.clone());
        fence_each(&suspending, open(store.clone()), times);
        let web = item("/srv/web");
        let host = MemoryHost::with(&web, &new_files());
        let report = back_up(&repo, &host, &[&web]).unwrap();
        assert!(report.complete, "{times}");
        assert_eq!(report.items.len(), 1, "{times}");
        let elsewhere = open(store);
        holds(&elsewhere, &report, &web, "before the verdicts");
        // What was published under the fenced leases is listed, and stays: nobody deletes it.
        let found = snapshots(&elsewhere);
        let unconfirmed = found.iter().filter(|s| !s.confirmed).count();
        assert_eq!(unconfirmed, times as usize);
        prune(&elsewhere);
        assert_eq!(snapshots(&elsewhere).len(), found.len());
        holds(&elsewhere, &report, &web, "after a prune");
    }
}

#[test]
fn e_05_suspended_longer_than_its_lease_each_time_a_backup_ends_and_says_why() {
    let store = Arc::new(prepared());
    let suspending = Arc::new(Suspending::new(store.clone()));
    let repo = open(suspending.clone());
    fence_each(&suspending, open(store.clone()), u32::MAX);
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &new_files());
    let options = podkeep_engine::operations::BackupOptions {
        selection: super::selection(&[&web]),
        threads: 2,
        ..Default::default()
    };
    let monitor = Collect::default();
    let report =
        podkeep_engine::operations::backup::backup(&repo, &host, &options, &monitor).unwrap();
    assert!(!report.complete && report.run.is_none());
    let [
        BackupItem {
            snapshot: None,
            failure: Some(cause),
            ..
        },
    ] = &report.items[..]
    else {
        panic!("{:?}", report.items);
    };
    assert!(cause.contains("lease") && cause.contains("suspended"));
    let findings = monitor.findings.into_inner().unwrap();
    let told = findings
        .iter()
        .any(|f| f.kind == FindingKind::Unreadable && f.object == web.to_string());
    assert!(told, "{findings:?}");
    // Nothing of it counts, and all that was stored is used by the next run.
    let elsewhere = open(store);
    let found = snapshots(&elsewhere);
    let of_item = found.iter().filter(|s| s.header.item == web);
    assert!(of_item.clone().count() > 1 && of_item.clone().all(|s| !s.confirmed));
    assert!(bring_back(&elsewhere, &web).is_err());
    let next = back_up(&elsewhere, &host, &[&web]).unwrap();
    assert_eq!(next.chunks_new, 0);
    holds(&elsewhere, &next, &web, "the next run");
}

#[test]
fn e_05_a_lease_that_stood_still_and_was_not_fenced_is_as_good_as_before() {
    let store = Arc::new(prepared());
    let suspending = Arc::new(Suspending::new(Recording::new(store.clone())));
    let repo = open(suspending.clone());
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &new_files());
    let report = back_up(&repo, &host, &[&web]).unwrap();
    assert_eq!(suspending.inner.count(Op::PutNew, "leases/"), 1);
    holds(&open(store), &report, &web, "alone");
}

#[test]
fn a_snapshot_of_a_fenced_lease_counts_only_once_a_verdict_names_it() {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let repo = open(store.clone());
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &new_files());
    let first = back_up(&repo, &host, &[&web]).unwrap();
    let confirmed =
        |repo: &Repository| -> Vec<bool> { snapshots(repo).iter().map(|s| s.confirmed).collect() };
    assert_eq!(confirmed(&repo), [true]);
    let lease = snapshots(&repo)[0].header.lease;

    // A prune that was killed between its fence and its verdict.
    fence(&repo, lease);
    assert_eq!(confirmed(&repo), [false]);
    assert!(bring_back(&repo, &web).is_err(), "it is not the latest");
    let (check, findings) = check_all(&repo).unwrap();
    assert_eq!(check.damaged, 0);
    assert!(
        findings.iter().any(|f| f.message.contains("not confirmed")),
        "{findings:?}"
    );

    // A damaged fence is one all the same; somebody else's is none.
    let object = name(names::fence(lease)).unwrap();
    let damaged = Arc::new(copy(&*store));
    damaged.damage(&object, |bytes| bytes.truncate(9));
    let there = open(damaged);
    assert_eq!(confirmed(&there), [false]);
    assert!(there.is_fenced(lease).unwrap());
    let writer =
        podkeep_engine::repo::Credential::WriteKey(repo.export_write_key("web1").unwrap().text);
    let forged = Arc::new(copy(&*store));
    forged.delete(&object).unwrap();
    let other = super::open_with(forged.clone(), &writer, None, 2).unwrap();
    fence(&other, lease);
    assert_eq!(confirmed(&open(forged)), [true]);

    // The next prune puts the verdict first, and the snapshot counts again.
    prune(&repo);
    assert_eq!(confirmed(&repo), [true]);
    let (restored, _, _) = bring_back(&repo, &web).unwrap();
    assert!(restored == new_files());
    let again = back_up(&repo, &host, &[&web]).unwrap();
    assert_eq!(again.chunks_new, 0);
    assert_eq!(again.items[0].root, first.items[0].root);

    // A damaged verdict is none.
    let object = name(names::verdict(lease)).unwrap();
    assert!(store.damage(&object, |bytes| bytes.truncate(9)));
    assert_eq!(confirmed(&repo), [false, true]);
}

/// Where listings lag, a writer waits between its lease and what it lists; each time it takes one.
#[test]
fn a_writer_lets_the_medium_settle_between_its_lease_and_its_listings() {
    const SETTLES: Medium = Medium::Settles { secs: 1 };
    let store = Arc::new(prepared());
    let suspending = Arc::new(Suspending::new(store.clone()).on(SETTLES));
    let repo = open(suspending.clone());
    let steps = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&steps);
    suspending.at_each(move |_, op, name| {
        let step = match (op, name.split('/').next().unwrap()) {
            (Op::PutNew, "leases") => "lease",
            (Op::List, "tombstones") => "tombstones",
            (Op::List, "index") => "segments",
            (Op::List, "packs") => "packs",
            _ => return,
        };
        told.lock().unwrap().push((step, Instant::now()));
    });
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &new_files());
    let options = BackupOptions {
        selection: selection(&[&web]),
        threads: 2,
        ..BackupOptions::default()
    };
    let monitor = Collect::default();
    backup::backup(&repo, &host, &options, &monitor).unwrap();
    let notes = monitor.findings.into_inner().unwrap();
    assert!(notes[0].message.contains("1 s later"), "{notes:?}");
    assert_eq!(notes[0].kind, FindingKind::Note);
    let steps = steps.lock().unwrap();
    let order: Vec<&str> = steps.iter().map(|(step, _)| *step).collect();
    assert_eq!(order, ["lease", "tombstones", "segments", "packs"]);
    assert!(steps[1].1 - steps[0].1 >= Duration::from_secs(1));
}

/// Wants to stop as soon as something is waited for.
#[derive(Default)]
struct StopsWaiting {
    waits: AtomicBool,
}

impl Monitor for StopsWaiting {
    fn finding(&self, _: Finding) {}

    fn progress(&self, progress: Progress<'_>) {
        if let Progress::Phase(_) = progress {
            self.waits.store(true, Ordering::SeqCst);
        }
    }

    fn interrupted(&self) -> bool {
        self.waits.load(Ordering::SeqCst)
    }
}

#[test]
fn a_writer_that_lets_the_medium_settle_can_be_stopped() {
    let store = Arc::new(prepared());
    let hours = Medium::Settles { secs: 7200 };
    let repo = open(Arc::new(Suspending::new(store.clone()).on(hours)));
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &new_files());
    let options = BackupOptions {
        selection: selection(&[&web]),
        ..BackupOptions::default()
    };
    let outcome = backup::backup(&repo, &host, &options, &StopsWaiting::default());
    assert!(matches!(outcome, Err(OperationError::Interrupted)));
    assert_eq!(store.list("leases").unwrap(), []);
}

/// A segment that prune replaces between a writer's listing and its reading would else cost the
/// writer all chunks that it named.
#[test]
fn a_segment_that_is_replaced_while_the_index_is_loaded_is_missed_by_nobody() {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let elsewhere = open(store.clone());
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &new_files());
    back_up(&elsewhere, &host, &[&web]).unwrap();
    let suspending = Arc::new(Suspending::new(store.clone()));
    // With another author's key, so that it adopts no pack that no segment names.
    let key = elsewhere.export_write_key("web1").unwrap().text;
    let writer = podkeep_engine::repo::Credential::WriteKey(key);
    let repo = super::open_with(suspending.clone(), &writer, None, 2).unwrap();
    let mut replaced = false;
    suspending.at_each(move |_, op, object| {
        if op != Op::Get || replaced {
            return;
        }
        if let Some(old) = listed::segment(object) {
            replaced = true;
            let index = Index::load(&elsewhere, &Collect::default()).unwrap();
            let packs = elsewhere.store().list("packs").unwrap();
            let packs = packs.iter().map(|meta| {
                let pack = listed::pack(meta.name.as_str()).unwrap();
                (pack, orphans::contents(&elsewhere, pack).unwrap())
            });
            adopt_orphans(&elsewhere, &index, &packs.collect::<Vec<_>>()).unwrap();
            let old = name(names::segment(old)).unwrap();
            assert!(elsewhere.store().delete(&old).unwrap());
        }
    });
    let report = back_up(&repo, &host, &[&web]).unwrap();
    assert!(report.complete);
    assert_eq!(report.chunks_new, 0);
}
