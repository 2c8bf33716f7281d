use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::{Op, Record, Recording};
use podkeep_engine::store::{ObjectStore, StoreErrorKind};

use super::name;

#[test]
fn a_recording_tells_what_was_done_to_what_and_how_much_moved() {
    let store = Recording::new(MemoryStore::new());
    store.put_new(&name("packs/00/x"), b"12345").unwrap();
    store.put_new(&name("index/s"), b"12").unwrap();
    store.get_range(&name("packs/00/x"), 1, 3).unwrap();
    store.put_new(&name("packs/00/x"), b"other").unwrap_err();
    store.list("packs").unwrap();
    let record = |op, name: &str, bytes, failed| Record {
        op,
        name: name.to_owned(),
        bytes,
        failed,
    };
    let expected = [
        record(Op::PutNew, "packs/00/x", 5, None),
        record(Op::PutNew, "index/s", 2, None),
        record(Op::GetRange, "packs/00/x", 3, None),
        record(Op::PutNew, "packs/00/x", 0, Some(StoreErrorKind::Conflict)),
        record(Op::List, "packs", 0, None),
    ];
    assert_eq!(store.records(), expected);
    assert_eq!(store.count(Op::PutNew, "packs/"), 2);
    assert_eq!(store.bytes(Op::PutNew, ""), 7);
    assert_eq!(store.take(), expected);
    assert_eq!(store.count(Op::PutNew, ""), 0);
}
