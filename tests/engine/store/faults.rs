use std::collections::BTreeSet;

use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::local::LocalStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::Op;
use podkeep_engine::store::{ObjectStore, StoreErrorKind, StoreResult};

use super::name;

fn names(store: &dyn ObjectStore) -> Vec<String> {
    let rows = store.list("").unwrap();
    rows.into_iter().map(|row| row.name.to_string()).collect()
}

#[test]
fn the_nth_operation_fails_before_or_after_it_happened() {
    let plain = || Faults::new(MemoryStore::new());
    let store = plain().with(Fault::at(2, Effect::FailBefore(StoreErrorKind::Io)));
    store.put_new(&name("a"), b"1").unwrap();
    let error = store.put_new(&name("b"), b"2").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot write memory:/b: Input/output error (os error 5) (planned)"
    );
    store.put_new(&name("c"), b"3").unwrap();
    assert_eq!(names(&store), ["a", "c"]);
    assert_eq!((store.operations(), store.writes()), (4, 3));

    let store = plain().with(Fault::at(1, Effect::FailAfter(StoreErrorKind::Unreachable)));
    store.put_new(&name("a"), b"1").unwrap_err();
    assert_eq!(names(&store), ["a"]);
}

#[test]
fn a_fault_counts_only_what_it_concerns() {
    let io = Effect::FailBefore(StoreErrorKind::Io);
    let full = Effect::FailBefore(StoreErrorKind::NoSpace);
    let store = Faults::new(MemoryStore::new())
        .with(Fault::at_op(Op::Delete, 1, io).under("leases/"))
        .with(Fault::at_write(3, full).under("packs/").lasting())
        .with(Fault::at_read(2, io));
    for n in 0..2 {
        store.put_new(&name(&format!("packs/{n}")), b"").unwrap();
    }
    for n in 2..4 {
        let error = store
            .put_new(&name(&format!("packs/{n}")), b"")
            .unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::NoSpace);
    }
    store.put_new(&name("leases/1"), b"").unwrap();
    assert_eq!(
        store.delete(&name("leases/1")).unwrap_err().kind,
        StoreErrorKind::Io
    );
    assert!(store.delete(&name("leases/1")).unwrap());
    store.list("").unwrap();
    assert_eq!(store.list("").unwrap_err().kind, StoreErrorKind::Io);
    store.list("").unwrap();
}

#[test]
fn a_torn_put_leaves_no_object_and_a_temporary_file() {
    let store = Faults::over_memory(MemoryStore::new(), 0)
        .with(Fault::at_write(1, Effect::Torn(StoreErrorKind::Io)));
    store.set_temp_owner("00ff");
    store.put_new(&name("a"), b"1").unwrap_err();
    assert_eq!(names(&store), [""; 0]);
    assert_eq!(store.sweep_temps(&|owner| owner != "00ff").unwrap(), 0);
    assert_eq!(store.sweep_temps(&|owner| owner == "00ff").unwrap(), 1);
    assert_eq!(store.sweep_temps(&|_| true).unwrap(), 0);
}

#[test]
fn reads_come_back_flipped_or_short() {
    let store = Faults::new(MemoryStore::new());
    let object = name("packs/00/x");
    store.put_new(&object, b"0123456789").unwrap();
    let flip = Effect::FlipBit { byte: 13, bit: 0 };
    store.plan(Fault::at_op(Op::Get, 1, flip));
    assert_eq!(store.get(&object, 10).unwrap(), b"0122456789");
    assert_eq!(store.get(&object, 10).unwrap(), b"0123456789");
    store.plan(Fault::at_op(Op::GetRange, 1, flip));
    assert_eq!(store.get_range(&object, 2, 5).unwrap(), b"23446");
    store.plan(Fault::at_read(1, Effect::Truncate { bytes: 6 }).lasting());
    assert_eq!(store.get(&object, 10).unwrap(), b"012345");
    assert_eq!(store.size(&object).unwrap(), Some(6));
    assert_eq!(store.list("packs").unwrap()[0].size, 6);
    assert_eq!(store.get_range(&object, 2, 4).unwrap(), b"2345");
    assert_eq!(
        store.get_range(&object, 2, 5).unwrap_err().kind,
        StoreErrorKind::Short
    );
}

/// A crash matrix in small: the second object is put only after the first is durable, so that it
/// is never there without it, wherever the power is cut and whatever the cut takes away.
#[test]
fn after_a_power_cut_all_is_unreachable_and_what_was_done_stands() {
    fn run(store: &dyn ObjectStore) -> StoreResult<()> {
        store.put_new(&name("packs/00/x"), b"pack")?;
        store.put_new(&name("index/s"), b"segment")?;
        store.delete(&name("old")).map(drop)
    }
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        for n in 1..=3 {
            let memory = MemoryStore::new();
            memory.put_new(&name("old"), b"").unwrap();
            let store =
                Faults::over_memory(memory.clone(), seed).with(Fault::at(n, Effect::CutPower));
            assert_eq!(run(&store).unwrap_err().kind, StoreErrorKind::Unreachable);
            assert!(store.is_cut());
            assert_eq!(
                store.list("").unwrap_err().kind,
                StoreErrorKind::Unreachable
            );
            assert_eq!(store.operations(), n);
            store.restart();
            seen.insert((n, names(&store).join(" ")));
        }
    }
    let expected = [
        (1, "old"),
        (1, "old packs/00/x"),
        (2, "index/s old packs/00/x"),
        (2, "old packs/00/x"),
        (3, "index/s old packs/00/x"),
        (3, "index/s packs/00/x"),
    ];
    assert_eq!(
        seen,
        expected.map(|(n, names)| (n, names.to_owned())).into()
    );
}

#[test]
fn a_write_cache_loses_an_earlier_object_and_keeps_a_later_one() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let store = Faults::over_memory(MemoryStore::with_write_cache(2), seed);
        for object in ["a", "b", "c"] {
            store.put_new(&name(object), b"").unwrap();
        }
        store.cut_power();
        store.restart();
        seen.insert(names(&store).join(" "));
    }
    let expected = ["a", "a b", "a c", "a b c"];
    assert_eq!(seen, expected.map(str::to_owned).into());
}

#[test]
fn threads_at_work_when_the_power_is_cut_hear_nothing_and_lose_nothing_durable() {
    for seed in 0..20 {
        let store =
            Faults::over_memory(MemoryStore::new(), seed).with(Fault::at(50, Effect::CutPower));
        let confirmed: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let store = &store;
                    scope.spawn(move || {
                        (0..40)
                            .map(|n| format!("{thread}/{n}"))
                            .take_while(|object| store.put_new(&name(object), b"").is_ok())
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(confirmed.len() < 50);
        store.restart();
        let there: BTreeSet<_> = names(&store).into_iter().collect();
        for object in confirmed {
            assert!(there.contains(&object), "{object} was confirmed");
        }
    }
}

#[test]
fn a_cut_over_another_store_leaves_the_operation_undone() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store =
        Faults::new(LocalStore::create(&place).unwrap()).with(Fault::at(2, Effect::CutPower));
    store.put_new(&name("a"), b"1").unwrap();
    store.put_new(&name("b"), b"2").unwrap_err();
    drop(store);
    assert_eq!(names(&LocalStore::open(&place).unwrap()), ["a"]);
}
