//! What work took because others used the processors too.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// What each thread of this process, by its id, ran and waited for a processor since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns(HashMap<u32, (Duration, Duration)>);

impl Turns {
    /// Empty where the kernel does not count it (`CONFIG_SCHED_INFO`).
    pub(super) fn now() -> Self {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
        let turns = threads.flatten().filter_map(|thread| {
            let id = thread.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let mut nanoseconds = text.split_whitespace().map_while(|n| n.parse().ok());
            let mut next = || nanoseconds.next().map(Duration::from_nanos);
            Some((id, (next()?, next()?)))
        });
        Self(turns.collect())
    }

    /// What work that took `took` since `before` will take when some of those rest that used the
    /// `processors` too. It lies between `took`, if only others did, and what it would take alone: their
    /// geometric mean is wrong by the smallest factor.
    pub(super) fn with_fewer(&self, before: &Self, took: Duration, processors: u32) -> Duration {
        let alone = self.alone(before, took, processors);
        Duration::from_secs_f64((took.as_secs_f64() * alone.as_secs_f64()).sqrt())
    }

    /// Without what its busiest thread, for which the others wait, waited itself.
    fn alone(&self, before: &Self, took: Duration, processors: u32) -> Duration {
        let turns = self.0.iter().map(|(id, (ran, waited))| {
            let (ran_before, waited_before) = before.0.get(id).copied().unwrap_or_default();
            let ran = ran.saturating_sub(ran_before);
            (ran, waited.saturating_sub(waited_before))
        });
        let turns: Vec<(Duration, Duration)> = turns.collect();
        let busiest = turns.iter().max_by_key(|(ran, waited)| *ran + *waited);
        let waited = busiest.map_or(Duration::ZERO, |(_, waited)| *waited);
        // Threads wait for each other too, whoever else there is.
        let ran: Duration = turns.iter().map(|(ran, _)| *ran).sum();
        let least = ran / processors.max(1);
        took.saturating_sub(waited).max(least).min(took)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn turns(threads: &[(u64, u64)]) -> Turns {
        let seconds = |(ran, waited)| (Duration::from_secs(ran), Duration::from_secs(waited));
        Turns((1..).zip(threads.iter().copied().map(seconds)).collect())
    }

    #[test]
    fn what_others_used_is_not_counted() {
        let before = turns(&[(100, 50)]);
        for (threads, took, alone) in [
            // Nobody else: it ran, or waited for the disk.
            (&[(10, 0)][..], 10, 10),
            (&[(2, 0)], 10, 10),
            // Two thirds of its time went to others.
            (&[(10, 20)], 30, 10),
            // Only what waits for it anyway waited for others.
            (&[(9, 1), (1, 5)], 10, 9),
            // Four threads of its own took turns on both processors.
            (&[(5, 5), (5, 5), (5, 5), (5, 5)], 10, 10),
            // No figures, or such as cannot be.
            (&[], 10, 10),
            (&[(90, 1)], 10, 10),
        ] {
            let mut now = threads.to_vec();
            if let Some(first) = now.first_mut() {
                *first = (first.0 + 100, first.1 + 50);
            }
            let took = Duration::from_secs(took);
            let found = turns(&now).alone(&before, took, 2);
            assert_eq!(found, Duration::from_secs(alone), "{threads:?}");
            let fewer = turns(&now).with_fewer(&before, took, 2);
            assert!(fewer >= found && fewer <= took, "{threads:?}");
        }
    }

    #[test]
    fn what_rests_is_half_of_the_way_by_factors() {
        let now = turns(&[(9, 27)]);
        let fewer = now.with_fewer(&turns(&[]), Duration::from_secs(36), 1);
        assert_eq!(fewer, Duration::from_secs(18));
    }

    #[test]
    fn what_this_process_runs_is_counted() {
        let ran = |turns: Turns| turns.0.values().map(|(ran, _)| *ran).sum::<Duration>();
        let (before, since) = (ran(Turns::now()), Instant::now());
        let enough = || ran(Turns::now()) >= before + Duration::from_millis(20);
        while !enough() && since.elapsed() < Duration::from_secs(30) {
            std::hint::black_box((0..10_000).sum::<u64>());
        }
        assert!(enough());
    }
}
