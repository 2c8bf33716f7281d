//! The locks of a store's lists, as containers/storage takes them.
//!
//! Source: containers/storage `pkg/lockfile`, `lastwrite.go`.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Podman itself holds a lock for the time of writing a few small files.
const LOCK_TIME_MAX: Duration = Duration::from_secs(120);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Of lastwrite.go: time, counter, process, and so many random bytes.
const TOKEN_RANDOM_BYTES: usize = 64 - 8 - 8 - 4;

/// The exclusive lock on a list (`images.lock`, `layers.lock`), until it is dropped.
pub(super) struct ListLock {
    file: File,
}

impl ListLock {
    /// Waits for it, two minutes at most.
    pub fn take(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)?;
        let since = Instant::now();
        loop {
            match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { file }),
                Err(Errno::AGAIN | Errno::ACCESS) if since.elapsed() < LOCK_TIME_MAX => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::AGAIN | Errno::ACCESS) => {
                    let waited = LOCK_TIME_MAX.as_secs();
                    let cause = format!("another process has held it for {waited} s");
                    return Err(io::Error::other(cause));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Tells whoever has the list in memory that it changes.
    pub fn mark(&self) -> io::Result<()> {
        let now = crate::clock::now();
        let nanos = (now.secs as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(u64::from(now.nanos));
        let mut random = [0; TOKEN_RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let mut token = Vec::new();
        token.extend_from_slice(&nanos.to_le_bytes());
        token.extend_from_slice(&1u64.to_le_bytes());
        token.extend_from_slice(&std::process::id().to_le_bytes());
        token.extend_from_slice(&random);
        self.file.write_all_at(&token, 0)
    }
}
