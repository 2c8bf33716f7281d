//! Waiting for an item that another run works on.

use std::time::{Duration, Instant};

use super::{OperationError, OperationResult};
use crate::host::HostError;
use crate::monitor::Monitor;

/// Between two tries: the other run's lock ends without telling anybody.
const PAUSE: Duration = Duration::from_millis(200);

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
                if monitor.interrupted() {
                    return Err(OperationError::Interrupted);
                }
                let left = wait.saturating_sub(started.elapsed());
                std::thread::sleep(left.min(PAUSE));
            }
            result => return Ok(result?),
        }
    }
}
