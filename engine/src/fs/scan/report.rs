//! What a scan says besides chunks: findings, bounded in number, and sums.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::copy::COPIES_MAX;
use crate::fs::batch::Outbox;
use crate::monitor::{Finding, FindingKind};

/// Findings of one kind that are told one by one; what is beyond is summed up at the end.
const FINDINGS_MAX: u64 = 1000;
/// Files whose paths are kept, because they will be read again: as many as may be copied.
const YOUNG_MAX: usize = COPIES_MAX;
/// Paths that a summing finding names.
const SAMPLE_PATHS: usize = 16;

#[derive(Default)]
pub(crate) struct Report {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub bytes_logical: AtomicU64,
    pub bytes_allocated: AtomicU64,
    pub incomplete: AtomicBool,
    /// Of files that a reading soon after this one reads whatever their times say; the large ones are
    /// those of which it may make copies.
    pub bytes_unsettled_small: AtomicU64,
    pub bytes_unsettled_large: AtomicU64,
    /// Some of the large ones, by their paths.
    young: Mutex<Vec<Vec<u8>>>,
    tallies: Mutex<Vec<Tally>>,
}

struct Tally {
    kind: FindingKind,
    count: u64,
    /// Of those that were not told one by one.
    paths: Vec<Vec<u8>>,
}

impl Report {
    /// Tells of one entry. What vanished is only counted.
    pub fn finding(
        &self,
        outbox: &Outbox,
        item: &str,
        kind: FindingKind,
        path: Vec<u8>,
        message: String,
    ) {
        if kind.is_incomplete() {
            self.incomplete.store(true, Ordering::Relaxed);
        }
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match tallies.iter().position(|tally| tally.kind == kind) {
            Some(at) => at,
            None => {
                tallies.push(Tally {
                    kind,
                    count: 0,
                    paths: Vec::new(),
                });
                tallies.len() - 1
            }
        };
        let tally = &mut tallies[at];
        tally.count += 1;
        if kind == FindingKind::Vanished || tally.count > FINDINGS_MAX {
            if tally.paths.len() < SAMPLE_PATHS {
                tally.paths.push(path);
            }
            return;
        }
        drop(tallies);
        outbox.finding(Finding {
            object: item.to_owned(),
            kind,
            snapshots: Vec::new(),
            paths: vec![path],
            message,
        });
    }

    pub fn young(&self, path: impl FnOnce() -> Vec<u8>) {
        let mut young = self.young.lock().unwrap_or_else(PoisonError::into_inner);
        if young.len() < YOUNG_MAX {
            young.push(path());
        }
    }

    pub fn take_young(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.young.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells what was only counted.
    pub fn sum_up(&self, outbox: &Outbox, item: &str) {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        for tally in tallies.drain(..) {
            let message = match tally.kind {
                FindingKind::Vanished => match tally.count {
                    1 => "an entry vanished before it could be read".to_owned(),
                    count => format!("{count} entries vanished before they could be read"),
                },
                _ if tally.count > FINDINGS_MAX => format!(
                    "{} more entries are {}; only some are named here",
                    tally.count - FINDINGS_MAX,
                    tally.kind
                ),
                _ => continue,
            };
            outbox.finding(Finding {
                object: item.to_owned(),
                kind: tally.kind,
                snapshots: Vec::new(),
                paths: tally.paths,
                message,
            });
        }
    }
}
