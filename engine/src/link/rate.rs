//! A bound on bytes per second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may be sent at once after a pause, in seconds of the rate.
const BURST_SECS: f64 = 0.25;

/// Shared by all that is to stay below one rate together.
pub struct RateLimit {
    bytes_per_sec: f64,
    /// When all that was taken so far is paid for.
    paid: Mutex<Instant>,
}

impl RateLimit {
    /// At least 1 byte per second.
    pub fn new(bytes_per_sec: u64) -> Self {
        Self {
            bytes_per_sec: bytes_per_sec.max(1) as f64,
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` more may pass.
    pub fn take(&self, bytes: usize) {
        let wait = self.reserve(bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = Duration::from_secs_f64(BURST_SECS);
        let from = (*paid).max(now.checked_sub(burst).unwrap_or(now));
        *paid = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_sec);
        paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_over_time() {
        let limit = RateLimit::new(1000);
        let now = Instant::now() + Duration::from_secs(60);
        assert_eq!(limit.reserve(250, now), Duration::ZERO, "a burst");
        assert_eq!(limit.reserve(1000, now), Duration::from_secs(1));
        assert_eq!(limit.reserve(1000, now), Duration::from_secs(2));
        let later = now + Duration::from_secs(10);
        assert_eq!(limit.reserve(250, later), Duration::ZERO);
    }
}
