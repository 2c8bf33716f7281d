//! What only failing system calls can show: everything else is tested from outside.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::{Calls, LocalStore, ObjectName, ObjectStore, Put, StoreErrorKind, TEMP_FOLDER};

thread_local! {
    /// What the next fsyncs of regular files answer; then they succeed.
    static FILE_SYNCS: RefCell<Vec<Errno>> = const { RefCell::new(Vec::new()) };
    static FOLDER_SYNCS: RefCell<Vec<Errno>> = const { RefCell::new(Vec::new()) };
}

fn failing_sync(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    let answers = match rustix::fs::FileType::from_raw_mode(mode) {
        rustix::fs::FileType::RegularFile => &FILE_SYNCS,
        _ => &FOLDER_SYNCS,
    };
    match answers.with_borrow_mut(Vec::pop) {
        Some(errno) => Err(errno),
        None => Ok(()),
    }
}

fn store() -> (tempfile::TempDir, LocalStore, ObjectName) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = LocalStore::create(dir.path().join("r")).unwrap();
    store.calls.sync = failing_sync;
    // The first put completes the layout; that is not what these tests count.
    store
        .put_new(&ObjectName::parse("first").unwrap(), b"")
        .unwrap();
    (dir, store, ObjectName::parse("packs/00/x").unwrap())
}

fn temps(dir: &tempfile::TempDir) -> usize {
    std::fs::read_dir(dir.path().join("r").join(TEMP_FOLDER))
        .unwrap()
        .count()
}

#[test]
fn a_failed_fsync_condemns_the_file_and_the_bytes_are_written_anew() {
    let (dir, store, name) = store();
    FILE_SYNCS.set(vec![Errno::IO]);
    assert_eq!(store.put_new(&name, b"bytes").unwrap(), Put::Created);
    assert_eq!(FILE_SYNCS.with_borrow(Vec::len), 0);
    assert_eq!(store.get(&name, 5).unwrap(), b"bytes");
    assert_eq!(temps(&dir), 0);
}

#[test]
fn two_failed_fsyncs_are_an_error_and_leave_nothing() {
    let (dir, store, name) = store();
    FILE_SYNCS.set(vec![Errno::IO, Errno::IO]);
    let error = store.put_new(&name, b"bytes").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Io);
    assert_eq!(
        error.to_string(),
        format!(
            "cannot write {}/r/packs/00/x: Input/output error (os error 5)",
            dir.path().display()
        )
    );
    assert_eq!(store.size(&name).unwrap(), None);
    assert_eq!(temps(&dir), 0);
}

#[test]
fn an_fsync_without_space_is_not_tried_again() {
    let (dir, store, name) = store();
    FILE_SYNCS.set(vec![Errno::IO, Errno::NOSPC]);
    let error = store.put_new(&name, b"bytes").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NoSpace);
    assert_eq!(FILE_SYNCS.take(), [Errno::IO]);
    assert_eq!(store.size(&name).unwrap(), None);
    assert_eq!(temps(&dir), 0);
}

#[test]
fn a_failed_fsync_of_the_folder_is_an_error_and_a_second_put_makes_up_for_it() {
    let (_dir, store, name) = store();
    FOLDER_SYNCS.set(vec![Errno::IO, Errno::IO]);
    assert_eq!(
        store.put_new(&name, b"bytes").unwrap_err().kind,
        StoreErrorKind::Io
    );
    assert_eq!(
        store.put_new(&name, b"bytes").unwrap_err().kind,
        StoreErrorKind::Io
    );
    assert_eq!(store.put_new(&name, b"bytes").unwrap(), Put::AlreadyThere);
    assert_eq!(store.get(&name, 5).unwrap(), b"bytes");
}

#[test]
fn a_folder_that_cannot_be_synced_at_all_is_the_servers_to_keep() {
    let (_dir, store, name) = store();
    FOLDER_SYNCS.set(vec![Errno::INVAL; 2]);
    assert_eq!(store.put_new(&name, b"bytes").unwrap(), Put::Created);
}

#[test]
fn where_rename_must_replace_a_hard_link_does_not() {
    let (dir, mut store, name) = store();
    store.calls = Calls {
        move_new: |_, _, _, _| Err(Errno::INVAL),
        ..store.calls
    };
    assert_eq!(store.put_new(&name, b"bytes").unwrap(), Put::Created);
    assert_eq!(store.put_new(&name, b"bytes").unwrap(), Put::AlreadyThere);
    assert_eq!(
        store.put_new(&name, b"other").unwrap_err().kind,
        StoreErrorKind::Conflict
    );
    assert_eq!(store.get(&name, 5).unwrap(), b"bytes");
    assert_eq!(temps(&dir), 0);
}

/// A put may not fail because somebody else swept its temporary file or removed the emptied
/// folder that it was about to move into.
#[test]
fn a_put_whose_file_or_folder_was_taken_away_starts_over() {
    thread_local! {
        static ROUND: RefCell<u32> = const { RefCell::new(0) };
    }
    let (dir, mut store, _) = store();
    store.calls.move_new = |from, old, to, new| {
        let round = ROUND.with_borrow_mut(|round| {
            *round += 1;
            *round
        });
        match round {
            1 => rustix::fs::unlinkat(from, old, rustix::fs::AtFlags::empty())?,
            2 => {
                let path = rustix::fs::readlink(
                    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&to)),
                    Vec::new(),
                )?;
                rustix::fs::unlinkat(
                    rustix::fs::CWD,
                    path.as_c_str(),
                    rustix::fs::AtFlags::REMOVEDIR,
                )?;
            }
            _ => {}
        }
        (Calls::SYSTEM.move_new)(from, old, to, new)
    };
    let name = ObjectName::parse("leases/00ff/1").unwrap();
    assert_eq!(store.put_new(&name, b"bytes").unwrap(), Put::Created);
    assert_eq!(ROUND.take(), 3);
    assert_eq!(store.get(&name, 5).unwrap(), b"bytes");
    assert_eq!(temps(&dir), 0);
}
