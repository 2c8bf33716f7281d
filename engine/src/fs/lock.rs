//! Locks that end with the process that holds them.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A process that another thread is just starting holds all open files, locks included, until it
/// runs its program: a lock that was given back may be taken for so long.
const HELD_BY_A_START_MAX: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// Locks an open file. WOULDBLOCK: somebody else has it, and not just while a process starts.
pub(crate) fn lock_exclusive(file: impl AsFd) -> Result<(), Errno> {
    let since = Instant::now();
    loop {
        match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if since.elapsed() < HELD_BY_A_START_MAX => {
                std::thread::sleep(PAUSE);
            }
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
