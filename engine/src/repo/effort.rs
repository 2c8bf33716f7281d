//! How hard to compress: as hard as there is time to.
//!
//! Where blocks go to a disk here, the processor is what a backup waits for, and zstd's level is a fixed, fast
//! one. Over a link it may be the link: then the threads that compress mostly wait for packs to be stored, and
//! each level more costs nothing and leaves fewer bytes to be sent. So the level rises while the link is always at
//! work and threads wait for it, as that of `zstd --adapt` does, and falls as soon as the link has to wait. It decides
//! the size of blocks, never what is in them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Below the first blocks grow, above it a disk waits for the processor. Behind the last little is won.
const LEVELS: [i32; 6] = [3, 5, 7, 9, 12, 15];
/// Between two changes of the level.
const WINDOW: Duration = Duration::from_secs(1);
/// The link rests for a larger share of the time: it waits for the processor.
const RESTS_PERCENT: u32 = 10;
/// There is one thread more than cores: when all cores and the link are at work, one of all threads waits.
/// Threads are free to compress harder when it is so much more than that.
const WAITS_PERCENT: u32 = 200;

/// Of one writer. Threads share it.
pub struct Effort {
    adapts: bool,
    /// That compress and store.
    threads: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In [`LEVELS`].
    at: usize,
    /// Packs that are being stored.
    puts: usize,
    /// Since when the window lasts, and since when no pack is stored in it.
    since: Option<Instant>,
    rests: Option<Instant>,
    /// What was spent in the window: by the link at rest, and by all threads together.
    rested: Duration,
    compressing: Duration,
    storing: Duration,
}

impl Effort {
    /// `adapts`: what is stored goes over a link. `threads`: that compress and store, at least 1.
    pub fn new(adapts: bool, threads: usize) -> Self {
        Self {
            adapts,
            threads: u32::try_from(threads).unwrap_or(u32::MAX).max(1),
            state: Mutex::default(),
        }
    }

    /// The level for the next block.
    pub fn level(&self) -> i32 {
        LEVELS[self.state().at]
    }

    /// What a thread spent with a block.
    pub fn compressed(&self, time: Duration) {
        self.state().compressing += time;
    }

    /// A thread begins to store a pack.
    pub fn put_begins(&self, now: Instant) {
        let mut state = self.state();
        state.puts += 1;
        state.since.get_or_insert(now);
        if let Some(rests) = state.rests.take() {
            state.rested += now.saturating_duration_since(rests);
        }
    }

    /// It has stored the pack that it `began` with then.
    pub fn put_ends(&self, began: Instant, now: Instant) {
        let mut state = self.state();
        state.puts = state.puts.saturating_sub(1);
        state.storing += now.saturating_duration_since(began);
        if state.puts == 0 {
            state.rests = Some(now);
        }
        let since = *state.since.get_or_insert(now);
        let window = now.saturating_duration_since(since);
        if !self.adapts || window < WINDOW {
            return;
        }
        let all = state.storing + state.compressing;
        if state.rested * 100 > window * RESTS_PERCENT {
            state.at = state.at.saturating_sub(1);
        } else if state.storing * 100 * self.threads > all * WAITS_PERCENT {
            state.at = (state.at + 1).min(LEVELS.len() - 1);
        }
        *state = State {
            at: state.at,
            puts: state.puts,
            since: Some(now),
            rests: state.rests.map(|_| now),
            ..State::default()
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Three threads, of which one at a time stores for so long and rests as long as is said, and the others
    /// compress; so many packs.
    fn run(effort: &Effort, now: &mut Instant, packs: u32, stores: u64, rests: u64) {
        for _ in 0..packs {
            let began = *now;
            effort.put_begins(began);
            *now += ms(stores);
            effort.put_ends(began, *now);
            *now += ms(rests);
            effort.compressed(ms(2 * (stores + rests)));
        }
    }

    #[test]
    fn the_level_follows_what_is_waited_for() {
        let effort = Effort::new(true, 3);
        let mut now = Instant::now();
        assert_eq!(effort.level(), 3);
        // All threads store: nobody compresses, and the link never rests.
        for wait in [ms(400), ms(1200), ms(1200), ms(1200)] {
            let began = now;
            (0..3).for_each(|_| effort.put_begins(began));
            now += wait;
            (0..3).for_each(|_| effort.put_ends(began, now));
        }
        assert_eq!(effort.level(), 9);
        // All of them and the link are at work: it stays.
        run(&effort, &mut now, 30, 300, 0);
        assert_eq!(effort.level(), 9);
        // The link waits.
        run(&effort, &mut now, 10, 300, 60);
        assert!(effort.level() < 9);
        run(&effort, &mut now, 30, 300, 60);
        assert_eq!(effort.level(), 3);
        // Whoever stores one pack after the other, and nothing else, waits as well.
        for _ in 0..20 {
            let began = now;
            effort.put_begins(began);
            now += ms(1100);
            effort.put_ends(began, now);
        }
        assert_eq!(effort.level(), 15);
    }

    #[test]
    fn a_disk_is_not_waited_for() {
        let effort = Effort::new(false, 3);
        let mut now = Instant::now();
        for _ in 0..20 {
            let began = now;
            effort.put_begins(began);
            now += ms(5000);
            effort.put_ends(began, now);
        }
        assert_eq!(effort.level(), 3);
    }
}
