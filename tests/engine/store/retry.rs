use std::sync::{Arc, Mutex};
use std::time::Duration;

use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::{Op, Recording};
use podkeep_engine::store::retry::{Retry, RetryLimits};
use podkeep_engine::store::{ObjectStore, Put, StoreErrorKind};

use super::name;

type Tried = Retry<Recording<Faults<MemoryStore>>>;

/// Four tries, and the delays that were asked for.
fn retry(faults: Faults<MemoryStore>) -> (Tried, Arc<Mutex<Vec<u64>>>) {
    let slept = Arc::new(Mutex::new(Vec::new()));
    let limits = RetryLimits {
        tries_max: 4,
        delay_first: Duration::from_millis(100),
        delay_max: Duration::from_millis(250),
    };
    let log = Arc::clone(&slept);
    let sleep = move |d: Duration| log.lock().unwrap().push(d.as_millis().try_into().unwrap());
    let store = Retry::new(Recording::new(faults), limits, Box::new(sleep));
    (store, slept)
}

fn unreachable(nth: u64) -> Fault {
    Fault::at(nth, Effect::FailBefore(StoreErrorKind::Unreachable))
}

#[test]
fn a_lost_link_is_tried_again_with_growing_delays_until_it_is_back() {
    let faults = Faults::new(MemoryStore::new());
    let (store, slept) = retry(
        faults
            .with(unreachable(1))
            .with(unreachable(2))
            .with(unreachable(3)),
    );
    assert_eq!(store.put_new(&name("a"), b"1").unwrap(), Put::Created);
    assert_eq!(*slept.lock().unwrap(), [100, 200, 250]);
}

#[test]
fn a_link_that_stays_lost_is_given_up() {
    let (store, slept) = retry(Faults::new(MemoryStore::new()).with(unreachable(1).lasting()));
    let error = store.get(&name("a"), 1).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    assert!(error.cause.contains("tried 4 times"), "{error}");
    assert_eq!(slept.lock().unwrap().len(), 3);
    assert_eq!(store.inner().count(Op::Get, ""), 4);
}

#[test]
fn other_failures_are_told_at_once() {
    for kind in [
        StoreErrorKind::NotFound,
        StoreErrorKind::Conflict,
        StoreErrorKind::Short,
        StoreErrorKind::NoSpace,
        StoreErrorKind::NotWritable,
        StoreErrorKind::Io,
    ] {
        let fault = Fault::at(1, Effect::FailBefore(kind));
        let (store, slept) = retry(Faults::new(MemoryStore::new()).with(fault));
        assert_eq!(store.put_new(&name("a"), b"1").unwrap_err().kind, kind);
        assert_eq!(slept.lock().unwrap().len(), 0);
    }
}

#[test]
fn a_put_whose_reply_was_lost_finds_its_object_there() {
    let fault = Fault::at(1, Effect::FailAfter(StoreErrorKind::Unreachable));
    let (store, _) = retry(Faults::new(MemoryStore::new()).with(fault));
    assert_eq!(store.put_new(&name("a"), b"1").unwrap(), Put::AlreadyThere);
}
