//! What work took because others used the processors too.

use std::fs;
use std::time::Duration;

/// What the threads of this process ran, and what they waited for a processor, since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    ran: Duration,
    waited: Duration,
}

impl Turns {
    /// Nothing where the kernel does not count it (`CONFIG_SCHED_INFO`).
    pub(super) fn now() -> Self {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
        let texts = threads
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
        texts.fold(Self::default(), |sum, text| {
            let mut nanoseconds = text.split_whitespace().map_while(|n| n.parse().ok());
            let mut next = || Duration::from_nanos(nanoseconds.next().unwrap_or(0));
            Self {
                ran: sum.ran + next(),
                waited: sum.waited + next(),
            }
        })
    }

    /// What work that took `took` since `before` would take if nobody else used the `processors`.
    pub(super) fn alone(self, before: Self, took: Duration, processors: u32) -> Duration {
        let ran = self.ran.saturating_sub(before.ran);
        let waited = self.waited.saturating_sub(before.waited);
        let both = (ran + waited).as_secs_f64();
        if both == 0.0 {
            return took;
        }
        // Threads wait for each other too, whoever else there is.
        let least = ran / processors.max(1);
        took.mul_f64(ran.as_secs_f64() / both).max(least).min(took)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn turns(ran: u64, waited: u64) -> Turns {
        let [ran, waited] = [ran, waited].map(Duration::from_secs);
        Turns { ran, waited }
    }

    #[test]
    fn what_others_used_is_not_counted() {
        let before = turns(100, 50);
        for (ran, waited, took, alone) in [
            // Nobody else: it ran, or waited for the disk.
            (10, 0, 10, 10),
            (2, 0, 10, 10),
            // Two thirds of one thread's time went to others.
            (10, 20, 30, 10),
            // Four threads of its own took turns on both processors.
            (20, 20, 10, 10),
            // No figures, or such as cannot be.
            (0, 0, 10, 10),
            (90, 1, 10, 10),
        ] {
            let now = turns(100 + ran, 50 + waited);
            let took = Duration::from_secs(took);
            let found = now.alone(before, took, 2);
            assert_eq!(found, Duration::from_secs(alone), "{ran} {waited}");
        }
    }

    #[test]
    fn what_this_process_runs_is_counted() {
        let (before, since) = (Turns::now(), Instant::now());
        let enough = |turns: Turns| turns.ran >= before.ran + Duration::from_millis(20);
        while !enough(Turns::now()) && since.elapsed() < Duration::from_secs(30) {
            std::hint::black_box((0..10_000).sum::<u64>());
        }
        assert!(enough(Turns::now()));
    }
}
