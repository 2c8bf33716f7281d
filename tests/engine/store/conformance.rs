//! The contract of `ObjectStore`, case by case, against every store and every wrapper.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::local::LocalStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::Recording;
use podkeep_engine::store::remote::RemoteStore;
use podkeep_engine::store::retry::{Retry, RetryLimits};
use podkeep_engine::store::{
    Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreError, StoreErrorKind,
};

use super::{calls, name, remote};

/// A store and what must outlive it.
struct Place<S> {
    store: S,
    _folder: Option<tempfile::TempDir>,
}

fn memory() -> Place<MemoryStore> {
    Place {
        store: MemoryStore::new(),
        _folder: None,
    }
}

fn local() -> Place<LocalStore> {
    let folder = tempfile::tempdir().unwrap();
    Place {
        store: LocalStore::create(folder.path().join("repository")).unwrap(),
        _folder: Some(folder),
    }
}

/// In a process of its own, as behind ssh.
fn child() -> Place<RemoteStore> {
    let folder = tempfile::tempdir().unwrap();
    let link = remote::spawned(folder.path());
    Place {
        store: RemoteStore::open(link, b"repository", true, "ssh://child/repository").unwrap(),
        _folder: Some(folder),
    }
}

impl<S> Place<S> {
    fn map<T>(self, wrap: impl FnOnce(S) -> T) -> Place<T> {
        Place {
            store: wrap(self.store),
            _folder: self._folder,
        }
    }
}

/// A link that is gone at every other operation, before or after it has happened.
struct Shaky<S> {
    inner: Faults<S>,
    calls: AtomicU64,
}

impl<S: ObjectStore> Shaky<S> {
    fn new(inner: S) -> Self {
        Self {
            inner: Faults::new(inner),
            calls: AtomicU64::new(0),
        }
    }

    /// The wrapped store, with a fault planned for the call that follows, at two of three calls.
    fn link(&self) -> &Faults<S> {
        match self.calls.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => self.inner.plan(Fault::at(
                1,
                Effect::FailBefore(StoreErrorKind::Unreachable),
            )),
            1 => self.inner.plan(Fault::at_read(
                1,
                Effect::FailAfter(StoreErrorKind::Unreachable),
            )),
            _ => {}
        }
        &self.inner
    }
}

impl<S: ObjectStore> ObjectStore for Shaky<S> {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> Result<Put, StoreError> {
        self.link().put_new(name, data)
    }
    fn replace(&self, name: &ObjectName, data: &[u8]) -> Result<(), StoreError> {
        self.link().replace(name, data)
    }
    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        self.link().get(name, bytes_max)
    }
    fn get_range(&self, name: &ObjectName, at: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.link().get_range(name, at, len)
    }
    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.link().size(name)
    }
    fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.link().list(folder)
    }
    fn delete(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.link().delete(name)
    }
    fn medium(&self) -> Medium {
        self.inner.medium()
    }
    fn set_temp_owner(&self, owner: &str) {
        self.inner.set_temp_owner(owner);
    }
    fn sweep_temps(&self, ended: &dyn Fn(&str) -> bool) -> Result<u64, StoreError> {
        self.link().sweep_temps(ended)
    }
    fn place(&self) -> String {
        self.inner.place()
    }
}

fn retry<S: ObjectStore>(inner: S) -> Retry<Shaky<S>> {
    let limits = RetryLimits {
        tries_max: 1000,
        ..RetryLimits::default()
    };
    Retry::new(Shaky::new(inner), limits, Box::new(|_| {}))
}

/// One test per case for each store.
macro_rules! conform {
    ($($store:ident: $place:expr;)*) => { $(
        mod $store {
            use super::*;
            conform!(@cases $place;
                an_object_comes_back_as_it_was_put
                an_empty_object_is_an_object
                a_large_object_comes_back
                a_put_never_replaces
                an_equal_put_finds_the_object_there
                a_name_is_not_a_folder_of_another
                what_is_not_there_is_not_found
                a_get_is_bounded
                a_range_is_exact
                a_replacement_takes_the_place
                a_deleted_object_is_gone
                an_emptied_folder_takes_objects_again
                a_listing_is_sorted_and_below_its_folder
                a_listing_of_no_folder_is_empty
                a_wide_listing_is_complete
                threads_put_different_names
                threads_put_one_name_with_equal_bytes
                threads_put_one_name_with_different_bytes
                a_listing_bears_deletions_meanwhile
                errors_name_object_action_and_cause
            );
        }
    )* };
    (@cases $place:expr; $($case:ident)*) => { $(
        #[test]
        fn $case() {
            let place = $place;
            super::$case(&place.store);
        }
    )* };
}

conform! {
    in_memory: memory();
    in_a_folder: local();
    shared: memory().map(Arc::new);
    recorded_memory: memory().map(Recording::new);
    faultless_memory: memory().map(|memory| Faults::over_memory(memory, 7));
    retried_memory: memory().map(retry);
    remote_memory: memory().map(|memory| remote::over(Arc::new(memory)));
    remote_folder: local().map(|folder| remote::over(Arc::new(folder)));
    remote_process: child();
    lent_memory: memory().map(|memory| calls::lent(Arc::new(memory)));
    lent_folder: local().map(|folder| calls::lent(Arc::new(folder)));
    all_around_a_folder: local().map(|s| Recording::new(retry(Faults::new(Arc::new(s)))));
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind
}

fn listed(store: &dyn ObjectStore, folder: &str) -> Vec<(String, u64)> {
    let rows = store.list(folder).unwrap();
    rows.into_iter()
        .map(|row| (row.name.to_string(), row.size))
        .collect()
}

fn an_object_comes_back_as_it_was_put(store: &dyn ObjectStore) {
    let object = name("packs/ab/ab01");
    assert_eq!(store.put_new(&object, b"bytes").unwrap(), Put::Created);
    assert_eq!(store.get(&object, 5).unwrap(), b"bytes");
    assert_eq!(store.size(&object).unwrap(), Some(5));
    assert_eq!(listed(store, ""), [("packs/ab/ab01".to_owned(), 5)]);
}

fn an_empty_object_is_an_object(store: &dyn ObjectStore) {
    let object = name("tombstones/00");
    assert_eq!(store.put_new(&object, b"").unwrap(), Put::Created);
    assert_eq!(store.put_new(&object, b"").unwrap(), Put::AlreadyThere);
    assert_eq!(store.get(&object, 0).unwrap(), b"");
    assert_eq!(store.get_range(&object, 0, 0).unwrap(), b"");
    assert_eq!(store.size(&object).unwrap(), Some(0));
}

fn a_large_object_comes_back(store: &dyn ObjectStore) {
    let data: Vec<u8> = (0..5_000_001u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let object = name("packs/00/large");
    assert_eq!(store.put_new(&object, &data).unwrap(), Put::Created);
    assert_eq!(store.put_new(&object, &data).unwrap(), Put::AlreadyThere);
    assert!(store.get(&object, data.len() as u64).unwrap() == data);
    assert!(store.get_range(&object, 4_999_990, 11).unwrap() == data[4_999_990..]);
    let mut last_byte_differs = data.clone();
    last_byte_differs[5_000_000] ^= 1;
    assert_eq!(
        kind(store.put_new(&object, &last_byte_differs)),
        StoreErrorKind::Conflict
    );
}

fn a_put_never_replaces(store: &dyn ObjectStore) {
    let object = name("config");
    store.put_new(&object, b"bytes").unwrap();
    for other in [&b"other"[..], b"byte", b"bytes!", b""] {
        assert_eq!(
            kind(store.put_new(&object, other)),
            StoreErrorKind::Conflict
        );
        assert_eq!(store.get(&object, 100).unwrap(), b"bytes");
    }
}

fn an_equal_put_finds_the_object_there(store: &dyn ObjectStore) {
    for object in ["config", "packs/00/x", "leases/l/1", "a/b/c/d"] {
        let object = name(object);
        assert_eq!(store.put_new(&object, b"bytes").unwrap(), Put::Created);
        assert_eq!(store.put_new(&object, b"bytes").unwrap(), Put::AlreadyThere);
    }
}

fn a_name_is_not_a_folder_of_another(store: &dyn ObjectStore) {
    store.put_new(&name("a/b"), b"1").unwrap();
    assert_eq!(
        kind(store.put_new(&name("a"), b"1")),
        StoreErrorKind::Conflict
    );
    assert_eq!(
        kind(store.put_new(&name("a/b/c"), b"1")),
        StoreErrorKind::Conflict
    );
    assert_eq!(
        kind(store.put_new(&name("a/b/c/d"), b"1")),
        StoreErrorKind::Conflict
    );
    assert_eq!(
        kind(store.replace(&name("a"), b"1")),
        StoreErrorKind::Conflict
    );
    assert_eq!(
        kind(store.replace(&name("a/b/c"), b"1")),
        StoreErrorKind::Conflict
    );
    for absent in ["a", "a/b/c", "a/b/c/d"] {
        let absent = name(absent);
        assert_eq!(
            kind(store.get(&absent, 1)),
            StoreErrorKind::NotFound,
            "{absent}"
        );
        assert_eq!(
            kind(store.get_range(&absent, 0, 1)),
            StoreErrorKind::NotFound,
            "{absent}"
        );
        assert_eq!(store.size(&absent).unwrap(), None, "{absent}");
        assert!(!store.delete(&absent).unwrap(), "{absent}");
    }
    assert_eq!(listed(store, ""), [("a/b".to_owned(), 1)]);
}

fn what_is_not_there_is_not_found(store: &dyn ObjectStore) {
    for absent in ["config", "packs/00/x", "leases/l/1"] {
        let absent = name(absent);
        assert_eq!(kind(store.get(&absent, 1)), StoreErrorKind::NotFound);
        assert_eq!(
            kind(store.get_range(&absent, 0, 0)),
            StoreErrorKind::NotFound
        );
        assert_eq!(store.size(&absent).unwrap(), None);
        assert!(!store.delete(&absent).unwrap());
    }
}

fn a_get_is_bounded(store: &dyn ObjectStore) {
    let object = name("config");
    store.put_new(&object, b"bytes").unwrap();
    let error = store.get(&object, 4).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Io);
    assert!(
        error.cause.contains("5 bytes") && error.cause.contains('4'),
        "{error}"
    );
    assert_eq!(store.get(&object, 5).unwrap(), b"bytes");
    assert_eq!(store.get(&object, u64::MAX).unwrap(), b"bytes");
}

fn a_range_is_exact(store: &dyn ObjectStore) {
    let object = name("packs/00/x");
    store.put_new(&object, b"0123456789").unwrap();
    assert_eq!(store.get_range(&object, 0, 10).unwrap(), b"0123456789");
    assert_eq!(store.get_range(&object, 3, 4).unwrap(), b"3456");
    assert_eq!(store.get_range(&object, 10, 0).unwrap(), b"");
    for (offset, len) in [
        (0, 11),
        (9, 2),
        (10, 1),
        (11, 0),
        (u64::MAX, 1),
        (5, usize::MAX),
    ] {
        let error = store.get_range(&object, offset, len).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Short, "{offset} {len}");
        assert!(error.cause.contains("10"), "{error}");
    }
}

fn a_replacement_takes_the_place(store: &dyn ObjectStore) {
    for object in ["packs/00/x", "keys/1", "leases/l/1"] {
        let object = name(object);
        store.put_new(&object, b"old bytes").unwrap();
        store.replace(&object, b"new").unwrap();
        assert_eq!(store.get(&object, 100).unwrap(), b"new");
        let absent = name(&format!("{object}-absent"));
        store.replace(&absent, b"first").unwrap();
        assert_eq!(store.get(&absent, 100).unwrap(), b"first");
    }
}

fn a_deleted_object_is_gone(store: &dyn ObjectStore) {
    for object in ["config", "packs/00/x", "leases/l/1"] {
        let object = name(object);
        store.put_new(&object, b"bytes").unwrap();
        store.delete(&object).unwrap();
        assert_eq!(store.size(&object).unwrap(), None);
        assert!(!store.delete(&object).unwrap());
        assert_eq!(listed(store, ""), []);
        assert_eq!(store.put_new(&object, b"other").unwrap(), Put::Created);
        store.delete(&object).unwrap();
    }
}

fn an_emptied_folder_takes_objects_again(store: &dyn ObjectStore) {
    for beat in 0..20 {
        let old = name(&format!("leases/l/{beat}"));
        store.put_new(&old, b"").unwrap();
        store.delete(&old).unwrap();
        assert_eq!(listed(store, "leases"), []);
    }
    store
        .put_new(&name("leases/l"), b"an object where a folder was")
        .unwrap();
}

fn a_listing_is_sorted_and_below_its_folder(store: &dyn ObjectStore) {
    // `-` and `.` sort before `/`, `0` after it.
    for object in [
        "a/b/1", "a/b-c/1", "a/b.c/1", "a/b0/1", "a/b/2", "a/a", "a/c", "b", "a-b",
    ] {
        store.put_new(&name(object), object.as_bytes()).unwrap();
    }
    let row = |object: &str| (object.to_owned(), object.len() as u64);
    assert_eq!(listed(store, "a/b"), ["a/b/1", "a/b/2"].map(row));
    let a = [
        "a/a", "a/b-c/1", "a/b.c/1", "a/b/1", "a/b/2", "a/b0/1", "a/c",
    ];
    assert_eq!(listed(store, "a"), a.map(row));
    let all = [
        "a-b", "a/a", "a/b-c/1", "a/b.c/1", "a/b/1", "a/b/2", "a/b0/1", "a/c", "b",
    ];
    assert_eq!(listed(store, ""), all.map(row));
    assert_eq!(listed(store, "b"), []);
}

fn a_listing_of_no_folder_is_empty(store: &dyn ObjectStore) {
    store.put_new(&name("packs/00/x"), b"").unwrap();
    for folder in [
        "absent",
        "packs/01",
        "packs/00/y",
        "p",
        "pack",
        "packs/",
        "/",
        "..",
        "PACKS",
    ] {
        assert_eq!(listed(store, folder), [], "{folder}");
    }
}

fn a_wide_listing_is_complete(store: &dyn ObjectStore) {
    let mut expected = Vec::new();
    for shard in 0..=255 {
        for n in 0..2 {
            let object = format!("packs/{shard:02x}/{n}");
            store.put_new(&name(&object), &vec![0; n]).unwrap();
            expected.push((object, n as u64));
        }
    }
    assert_eq!(listed(store, "packs"), expected);
    assert_eq!(listed(store, ""), expected);
    assert_eq!(listed(store, "packs/7f"), expected[0x7f * 2..0x80 * 2]);
}

fn threads_put_different_names(store: &dyn ObjectStore) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for n in 0..20 {
                    // Folders that are there, and folders that come and go.
                    let pack = name(&format!("packs/{n:02x}/{thread}"));
                    assert_eq!(store.put_new(&pack, &[thread; 100]).unwrap(), Put::Created);
                    let lease = name(&format!("leases/{n}/{thread}"));
                    assert_eq!(store.put_new(&lease, &[thread]).unwrap(), Put::Created);
                    store.delete(&lease).unwrap();
                }
            });
        }
    });
    assert_eq!(store.list("packs").unwrap().len(), 8 * 20);
    assert_eq!(store.list("leases").unwrap().len(), 0);
    for row in store.list("").unwrap() {
        let data = store.get(&row.name, 100).unwrap();
        assert_eq!(data.len(), 100);
        assert!(
            row.name.as_str().ends_with(&format!("/{}", data[0])),
            "{row:?}"
        );
    }
}

fn threads_put_one_name_with_equal_bytes(store: &dyn ObjectStore) {
    for round in 0..10 {
        let object = name(&format!("packs/00/{round}"));
        let start = Barrier::new(8);
        let created = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let put = store.put_new(&object, &[7; 10_000]).unwrap();
                    created.fetch_add(u64::from(put == Put::Created), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(created.into_inner(), 1);
        assert_eq!(store.get(&object, 10_000).unwrap(), [7; 10_000]);
    }
}

fn threads_put_one_name_with_different_bytes(store: &dyn ObjectStore) {
    for round in 0..10 {
        let object = name(&format!("fences/f/{round}"));
        let start = Barrier::new(8);
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u8)
                .map(|thread| {
                    let (object, start) = (&object, &start);
                    scope.spawn(move || {
                        start.wait();
                        match store.put_new(object, &[thread; 1000]) {
                            Ok(put) => {
                                assert_eq!(put, Put::Created);
                                Some(thread)
                            }
                            Err(error) => {
                                assert_eq!(error.kind, StoreErrorKind::Conflict, "{error}");
                                None
                            }
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(winners.len(), 1);
        assert_eq!(store.get(&object, 1000).unwrap(), [winners[0]; 1000]);
    }
}

fn a_listing_bears_deletions_meanwhile(store: &dyn ObjectStore) {
    for n in 0..100 {
        store
            .put_new(&name(&format!("packs/{n:02}/stays")), b"")
            .unwrap();
        store
            .put_new(&name(&format!("packs/{n:02}/goes")), b"")
            .unwrap();
        store
            .put_new(&name(&format!("leases/{n}/goes")), b"")
            .unwrap();
    }
    std::thread::scope(|scope| {
        let deleting = scope.spawn(|| {
            for n in 0..100 {
                store.delete(&name(&format!("packs/{n:02}/goes"))).unwrap();
                store.delete(&name(&format!("leases/{n}/goes"))).unwrap();
            }
        });
        loop {
            let last = deleting.is_finished();
            let rows = store.list("").unwrap();
            let stay = rows
                .iter()
                .filter(|row| row.name.as_str().ends_with("stays"));
            assert_eq!(stay.count(), 100);
            if last {
                assert_eq!(rows.len(), 100);
                break;
            }
        }
    });
}

fn errors_name_object_action_and_cause(store: &dyn ObjectStore) {
    let object = name("packs/00/x");
    let place = store.place();
    let read = store.get(&object, 1).unwrap_err();
    assert_eq!(read.action, "read");
    store.put_new(&object, b"1").unwrap();
    let written = store.put_new(&object, b"2").unwrap_err();
    assert_eq!(written.action, "write");
    for error in [read, written] {
        assert_eq!(error.object, format!("{place}/packs/00/x"));
        assert!(!error.cause.is_empty());
    }
}
