//! How hard to compress: as hard as there is time to.
//!
//! Where blocks go to a disk here, the processor is what a backup waits for, and zstd's level is a fixed, fast
//! one. Over a link it may be the link: then the threads that compress mostly wait for packs to be stored, and
//! each level more costs nothing and leaves fewer bytes to be sent. So the level follows the share of time that
//! they wait, as that of `zstd --adapt` does. It decides the size of blocks, never what is in them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Below the first blocks grow, above it a disk waits for the processor. Behind the last little is won.
const LEVELS: [i32; 6] = [3, 5, 7, 9, 12, 15];
/// Work that is looked at before the level is changed, of all threads together.
const WINDOW: Duration = Duration::from_millis(500);
/// A larger share of the time spent with storing: the link is what is waited for.
const WAITS_PERCENT: u32 = 50;
/// A smaller one: the processor is. There is one thread more than cores, so that with two of them a
/// third of the time may be spent with storing while no core rests.
const WORKS_PERCENT: u32 = 25;

/// Of one writer. Threads share it.
pub struct Effort {
    adapts: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In [`LEVELS`].
    at: usize,
    compressing: Duration,
    storing: Duration,
}

impl Effort {
    /// `adapts`: what is stored goes over a link.
    pub fn new(adapts: bool) -> Self {
        Self {
            adapts,
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

    /// What a thread spent with storing a pack.
    pub fn stored(&self, time: Duration) {
        if !self.adapts {
            return;
        }
        let mut state = self.state();
        state.storing += time;
        let all = state.storing + state.compressing;
        if all < WINDOW {
            return;
        }
        if state.storing * 100 > all * WAITS_PERCENT {
            state.at = (state.at + 1).min(LEVELS.len() - 1);
        } else if state.storing * 100 < all * WORKS_PERCENT {
            state.at = state.at.saturating_sub(1);
        }
        (state.storing, state.compressing) = Default::default();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_level_follows_what_is_waited_for() {
        let effort = Effort::new(true);
        assert_eq!(effort.level(), 3);
        // Too little to tell.
        effort.stored(ms(400));
        assert_eq!(effort.level(), 3);
        effort.stored(ms(200));
        assert_eq!(effort.level(), 5);
        for _ in 0..20 {
            effort.compressed(ms(200));
            effort.stored(ms(600));
        }
        assert_eq!(effort.level(), 15);
        // Neither waits for the other.
        effort.compressed(ms(600));
        effort.stored(ms(400));
        assert_eq!(effort.level(), 15);
        effort.compressed(ms(900));
        effort.stored(ms(100));
        assert_eq!(effort.level(), 12);
        for _ in 0..20 {
            effort.compressed(ms(900));
            effort.stored(ms(100));
        }
        assert_eq!(effort.level(), 3);
    }

    #[test]
    fn a_disk_is_not_waited_for() {
        let effort = Effort::new(false);
        for _ in 0..20 {
            effort.stored(ms(5000));
        }
        assert_eq!(effort.level(), 3);
    }
}
