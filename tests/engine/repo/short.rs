//! Stores that report success and keep only a part of what they were given: nothing may name
//! what is not whole, the run says what the store did, and the next one sets it right.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use podkeep_engine::operations::OperationError;
use podkeep_engine::repo::{InitOptions, RepoError, Repository};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::{Op, Recording};
use podkeep_engine::store::{
    Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreErrorKind, StoreResult,
};
use podkeep_format::pack::PackHeader;

use super::memory_host::MemoryHost;
use super::schedule::Stage;
use super::{
    PASSPHRASE, back_up, bring_back, check_all, copy, init, item, noise, open, some_files,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    FirstHalf,
    /// Without a piece in the middle.
    Ends,
    Nothing,
    /// All of them, one of them wrong: seen only where bytes are read back.
    OtherBytes,
}

/// The `nth` object under `prefix` that is put, counted from 1 on, is not kept whole.
#[derive(Clone, Copy)]
struct Plan {
    prefix: &'static str,
    nth: u64,
    keeps: Keeps,
    medium: Medium,
}

struct Cutting<S> {
    inner: S,
    plan: Mutex<Plan>,
    counted: AtomicU64,
}

impl<S> Cutting<S> {
    fn new(inner: S, prefix: &'static str, nth: u64, keeps: Keeps) -> Self {
        Self {
            inner,
            plan: Mutex::new(Plan {
                prefix,
                nth,
                keeps,
                medium: Medium::Linearizable,
            }),
            counted: AtomicU64::new(0),
        }
    }

    fn set(&self, plan: Plan) {
        *self.plan.lock().unwrap() = plan;
        self.counted.store(0, Ordering::SeqCst);
    }

    fn plan(&self) -> Plan {
        *self.plan.lock().unwrap()
    }

    fn has_cut(&self) -> bool {
        self.counted.load(Ordering::SeqCst) >= self.plan().nth
    }
}

impl<S: ObjectStore> ObjectStore for Cutting<S> {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        let plan = self.plan();
        if !name.as_str().starts_with(plan.prefix)
            || self.counted.fetch_add(1, Ordering::SeqCst) + 1 != plan.nth
        {
            return self.inner.put_new(name, data);
        }
        let half = data.len() / 2;
        let mut kept = data.to_vec();
        match plan.keeps {
            Keeps::FirstHalf => kept.truncate(half),
            Keeps::Ends => drop(kept.drain(half..half + half / 2)),
            Keeps::OtherBytes => kept[half] ^= 1,
            Keeps::Nothing => return Ok(Put::Created),
        }
        self.inner.put_new(name, &kept)
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        self.inner.replace(name, data)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        self.inner.get_range(name, offset, len)
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.inner.size(name)
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        self.inner.list(folder)
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.inner.delete(name)
    }

    fn medium(&self) -> Medium {
        self.plan().medium
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

fn is_short(error: &OperationError) -> bool {
    matches!(
        error,
        OperationError::Repository(RepoError::Store(e)) if e.kind == StoreErrorKind::Short
    )
}

/// A repository with a snapshot of `/base`.
fn prepared() -> MemoryStore {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let base = item("/base");
    let files = [("kept".to_owned(), noise(9, 30_000))].into();
    back_up(
        &open(store.clone()),
        &MemoryHost::with(&base, &files),
        &[&base],
    )
    .unwrap();
    copy(&*store)
}

#[test]
fn e_10_an_object_that_the_store_cut_short_is_noticed_before_anything_names_it() {
    let base = prepared();
    let web = item("/srv/web");
    let host = MemoryHost::with(&web, &some_files(1));
    let stage = Stage::new(copy(&base), &[]);
    let healthy = open(Arc::new(stage.gate(0)));
    let cutting = Arc::new(Cutting::new(stage.gate(0), "none", 1, Keeps::Nothing));
    let repo = open(cutting.clone());
    let mut cut = 0;
    for (prefix, keeps, medium) in [
        ("packs/", Keeps::FirstHalf, Medium::Linearizable),
        ("packs/", Keeps::Ends, Medium::Linearizable),
        ("packs/", Keeps::Nothing, Medium::Linearizable),
        ("packs/", Keeps::OtherBytes, Medium::Settles { secs: 0 }),
        ("index/", Keeps::FirstHalf, Medium::Linearizable),
        ("index/", Keeps::Nothing, Medium::Linearizable),
        ("index/", Keeps::OtherBytes, Medium::Undeclared),
        ("snapshots/", Keeps::FirstHalf, Medium::Linearizable),
        ("snapshots/", Keeps::Ends, Medium::Linearizable),
        ("runs/", Keeps::FirstHalf, Medium::Linearizable),
        ("leases/", Keeps::Nothing, Medium::Linearizable),
    ] {
        for nth in 1.. {
            let what = format!("{keeps:?} of number {nth} of {prefix}");
            stage.set_store(copy(&base));
            cutting.set(Plan {
                prefix,
                nth,
                keeps,
                medium,
            });
            let outcome = back_up(&repo, &host, &[&web]);
            if !cutting.has_cut() {
                assert!(nth > 1 && outcome.unwrap().complete, "{what}");
                break;
            }
            cut += 1;
            let error = outcome.expect_err(&what);
            assert!(is_short(&error), "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains(prefix), "{what}: {text}");
            // Nothing that is listed lacks anything, but for the object that was cut itself.
            let (report, findings) = check_all(&healthy).unwrap();
            let own = findings.iter().filter(|f| f.object.starts_with(prefix));
            let own = own.count() as u64;
            assert!(report.damaged <= own, "{what}: {findings:?}");
            if let Ok((restored, _, _)) = bring_back(&healthy, &web) {
                assert!(restored == some_files(1), "{what}");
            }
            let next = back_up(&healthy, &host, &[&web]).unwrap();
            assert!(next.complete, "{what}");
            let (restored, report, findings) = bring_back(&healthy, &web).unwrap();
            assert!(restored == some_files(1), "{what}");
            assert_eq!(report.warnings, 0, "{what}: {findings:?}");
        }
    }
    assert!(cut >= 15, "{cut}");
}

#[test]
fn e_10_a_pack_that_became_shorter_is_not_relied_on() {
    let base = prepared();
    let stage = Stage::new(copy(&base), &[]);
    let repo = open(Arc::new(stage.gate(0)));
    let base_item = item("/base");
    let files = [("kept".to_owned(), noise(9, 30_000))].into();
    let host = MemoryHost::with(&base_item, &files);
    for meta in base.list("packs").unwrap() {
        stage.set_store(copy(&base));
        // Into its only block, right behind the header.
        let cut = |bytes: &mut Vec<u8>| {
            let (_, header) = PackHeader::decode(bytes).unwrap();
            bytes.truncate(header + 20);
        };
        assert!(stage.store().damage(&meta.name, cut));
        let report = back_up(&repo, &host, &[&base_item]).unwrap();
        assert!(report.chunks_new > 0, "{}", meta.name);
        let (restored, report, _) = bring_back(&repo, &base_item).unwrap();
        assert!(restored == files, "{}", meta.name);
        assert_eq!(report.warnings, 0, "{}", meta.name);
    }
}

#[test]
fn e_10_a_key_that_the_store_cut_short_replaces_none() {
    for (nth, keeps) in [
        (1, Keeps::FirstHalf),
        (2, Keeps::FirstHalf),
        (1, Keeps::OtherBytes),
        (2, Keeps::OtherBytes),
    ] {
        let store = Arc::new(prepared());
        let cutting = Arc::new(Cutting::new(store.clone(), "keys/", nth, keeps));
        let repo = open(cutting.clone());
        assert!(repo.change_passphrase(PASSPHRASE, b"new one", "").is_err());
        assert!(cutting.has_cut());
        // The old one opens still.
        drop(open(store));
    }
}

#[test]
fn a_new_key_is_read_back_once_on_every_medium() {
    let base = Arc::new(prepared());
    let cutting = Arc::new(Cutting::new(base, "none", 1, Keeps::Nothing));
    for medium in [Medium::Linearizable, Medium::Undeclared] {
        let plan = Plan {
            medium,
            ..cutting.plan()
        };
        cutting.set(plan);
        let recording = Arc::new(Recording::new(cutting.clone()));
        let repo = open(recording.clone());
        recording.take();
        repo.add_slot(b"another", "").unwrap();
        assert_eq!(recording.count(Op::PutNew, "keys/"), 2, "{medium:?}");
        assert_eq!(recording.count(Op::Get, "keys/"), 2, "{medium:?}");
    }
}

#[test]
fn e_10_an_init_on_a_store_that_cuts_objects_short_fails() {
    for prefix in ["config", "keys/", "reserve/"] {
        let cutting = Cutting::new(MemoryStore::new(), prefix, 1, Keeps::FirstHalf);
        let options = InitOptions {
            like: None,
            reserve_bytes: 4096,
            label: String::new(),
        };
        let refused = Repository::init(&cutting, PASSPHRASE, &options);
        assert!(refused.is_err(), "{prefix}");
    }
}
