//! Counting the warnings of a run on their way to the caller.

use std::sync::{Mutex, MutexGuard};

use crate::monitor::{Finding, Monitor, Progress};

/// Findings that a snapshot quotes, and the bytes of each.
const SAMPLES_MAX: usize = 32;
const SAMPLE_BYTES_MAX: usize = 1024;

/// Passes everything on, counts warnings and keeps a sample of them.
pub struct Counting<'m> {
    inner: &'m dyn Monitor,
    seen: Mutex<(u64, Vec<String>)>,
}

impl<'m> Counting<'m> {
    pub fn new(inner: &'m dyn Monitor) -> Self {
        Self {
            inner,
            seen: Default::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, (u64, Vec<String>)> {
        self.seen.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn warnings(&self) -> u64 {
        self.seen().0
    }

    pub fn into_samples(self) -> Vec<String> {
        let seen = self.seen.into_inner();
        seen.unwrap_or_else(|e| e.into_inner()).1
    }
}

impl Counting<'_> {
    /// Counts a finding that is told by somebody else.
    pub fn count(&self, finding: &Finding) {
        if finding.kind.is_warning() {
            let mut seen = self.seen();
            seen.0 += 1;
            if seen.1.len() < SAMPLES_MAX {
                seen.1.push(truncate(&format!(
                    "{}: {}",
                    finding.object, finding.message
                )));
            }
        }
    }
}

impl Monitor for Counting<'_> {
    fn finding(&self, finding: Finding) {
        self.count(&finding);
        self.inner.finding(finding);
    }

    fn progress(&self, progress: Progress<'_>) {
        self.inner.progress(progress);
    }

    fn interrupted(&self) -> bool {
        self.inner.interrupted()
    }
}

/// A text as a snapshot quotes it.
pub fn truncate(text: &str) -> String {
    let mut end = text.len().min(SAMPLE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
