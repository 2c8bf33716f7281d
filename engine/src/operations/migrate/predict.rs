//! How long containers will be at rest, told before they are stopped.
//!
//! What has to be read then is more than the pass before read: a database writes its own memory out
//! while it stops, into files that nobody touched for a while. So all counts that somebody has open
//! for writing, at the speed at which passes read. What changes in it is not known beforehand: as much
//! as in the pass before.

use podkeep_format::item::Item;

use super::SideHost;
use crate::fs::scan::Measured;
use crate::operations::OperationResult;

/// Passes while the source runs.
pub(super) const PASSES_MAX: u32 = 6;
/// Another pass is worth its time only if it is shorter than this share of the one before.
pub(super) const SHRINKS: f64 = 0.7;
/// A pass that is as short as this leaves nothing to win.
pub(super) const PASS_SHORT: f64 = 0.5;

/// What stopping and starting is taken to last.
const STOP_AND_START: f64 = 2.0;
/// Bytes that are read in a second, where no pass has told it yet.
const ASSUMED_SPEED: f64 = 500e6;
/// A pass that reads less says nothing about speed.
const READ_FROM: u64 = 64 << 20;

/// What the passes so far tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Bytes that are read in a second.
    speed: Option<f64>,
    /// Of the last pass.
    seconds: f64,
    bytes_read: u64,
}

impl Pace {
    pub fn pass(&mut self, bytes_read: u64, seconds: f64) {
        (self.bytes_read, self.seconds) = (bytes_read, seconds);
        if bytes_read >= READ_FROM {
            // The fastest was held up by nothing else.
            let speed = bytes_read as f64 / seconds.max(0.01);
            self.speed = Some(self.speed.map_or(speed, |known| known.max(speed)));
        }
    }

    /// Nothing was read in the last pass that changes.
    pub fn rests(&mut self) {
        (self.seconds, self.bytes_read) = (0.0, 0);
    }

    /// Seconds at rest, when what is restless is `measured`.
    pub fn predict(&self, measured: &Measured) -> f64 {
        let more = measured.bytes_restless.saturating_sub(self.bytes_read);
        let speed = self.speed.unwrap_or(ASSUMED_SPEED);
        STOP_AND_START + self.seconds + more as f64 / speed
    }
}

/// What these volumes amount to.
pub(super) fn measure(source: &dyn SideHost, volumes: &[Item]) -> OperationResult<Measured> {
    let mut sum = Measured::default();
    for volume in volumes {
        sum.add(&source.measure(volume)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_for_writing_is_expected_to_be_read() {
        let measured = |bytes_restless| Measured {
            bytes_restless,
            ..Measured::default()
        };
        let mut pace = Pace::default();
        assert!((pace.predict(&measured(1_000_000_000)) - 4.0).abs() < 0.01);
        pace.pass(2 << 30, 20.0);
        pace.pass(200 << 20, 0.2);
        pace.pass(10 << 20, 0.5);
        // 10 MiB were read in the last pass, the rest at 1,000 MiB in a second.
        let seconds = pace.predict(&measured(1034 << 20));
        assert!((seconds - 3.524).abs() < 0.01, "{seconds}");
        assert!((pace.predict(&measured(0)) - 2.5).abs() < 0.01);
    }
}
