//! Waiting: for an item that another run works on, and for a listing that lags.

use std::time::{Duration, Instant};

use super::{OperationError, OperationResult};
use crate::host::HostError;
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::repo::Repository;

/// Between two tries: the other run's lock ends without telling anybody.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until a listing shows what others put before this run's lease, and theirs shows that
/// lease.
pub fn settle(repo: &Repository, monitor: &dyn Monitor) -> OperationResult<()> {
    let time = repo.settle_time();
    if time.is_zero() {
        return Ok(());
    }
    monitor.finding(Finding {
        object: "the repository".into(),
        kind: FindingKind::Note,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: format!(
            "where it lies, others may see what is stored up to {} s later: that long is waited \
             first",
            time.as_secs()
        ),
    });
    monitor.progress(Progress::Phase("waiting for the repository's listing"));
    pause(time, monitor)
}

/// Sleeps for `time`, or until the run is to stop.
fn pause(time: Duration, monitor: &dyn Monitor) -> OperationResult<()> {
    let started = Instant::now();
    loop {
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        let left = time.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(PAUSE));
    }
}

/// Does `open`, again and again while the item is busy, until `wait` has passed.
pub fn patiently<T>(
    wait: Duration,
    monitor: &dyn Monitor,
    mut open: impl FnMut() -> Result<T, HostError>,
) -> OperationResult<T> {
    let started = Instant::now();
    loop {
        match open() {
            Err(HostError::Busy { .. }) if started.elapsed() < wait => {
                pause(PAUSE.min(wait.saturating_sub(started.elapsed())), monitor)?;
            }
            result => return Ok(result?),
        }
    }
}
