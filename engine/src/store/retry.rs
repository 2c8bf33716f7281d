//! Tries again when the link to a medium is gone.
//!
//! Only [`StoreErrorKind::Unreachable`] is tried again: every other failure would fail again, or
//! must be known to the caller at once. All operations may be repeated after an unclear failure,
//! but a repetition can change the answer: a put that had arrived says `AlreadyThere`, and a
//! deletion that had arrived says `false`.

use std::time::Duration;

use super::{Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreErrorKind, StoreResult};

/// How often, and how long to wait in between: the delay doubles from `delay_first` up to
/// `delay_max`.
#[derive(Clone, Copy, Debug)]
pub struct RetryLimits {
    /// All tries, the first one included; 0 counts as 1.
    pub tries_max: u32,
    pub delay_first: Duration,
    pub delay_max: Duration,
}

impl Default for RetryLimits {
    /// 8 tries within about a minute: a switch or a server that restarts.
    fn default() -> Self {
        Self {
            tries_max: 8,
            delay_first: Duration::from_millis(500),
            delay_max: Duration::from_secs(20),
        }
    }
}

/// Waits for the duration; an argument, so that tests do not.
pub type Sleep = Box<dyn Fn(Duration) + Send + Sync>;

/// A store that tries again.
pub struct Retry<S> {
    inner: S,
    limits: RetryLimits,
    sleep: Sleep,
}

impl<S> Retry<S> {
    pub fn new(inner: S, limits: RetryLimits, sleep: Sleep) -> Self {
        Self {
            inner,
            limits,
            sleep,
        }
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn tries<T>(&self, mut operation: impl FnMut() -> StoreResult<T>) -> StoreResult<T> {
        let mut delay = self.limits.delay_first;
        let mut tries = 1;
        loop {
            match operation() {
                Err(e) if e.kind == StoreErrorKind::Unreachable => {
                    if tries >= self.limits.tries_max {
                        return Err(match tries {
                            1 => e,
                            _ => super::StoreError {
                                cause: format!("{} (tried {tries} times)", e.cause),
                                ..e
                            },
                        });
                    }
                }
                result => return result,
            }
            (self.sleep)(delay.min(self.limits.delay_max));
            delay = delay.saturating_mul(2).min(self.limits.delay_max);
            tries += 1;
        }
    }
}

impl<S: ObjectStore> ObjectStore for Retry<S> {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        self.tries(|| self.inner.put_new(name, data))
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        self.tries(|| self.inner.replace(name, data))
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        self.tries(|| self.inner.get(name, bytes_max))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        self.tries(|| self.inner.get_range(name, offset, len))
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.tries(|| self.inner.size(name))
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        self.tries(|| self.inner.list(folder))
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.tries(|| self.inner.delete(name))
    }

    fn medium(&self) -> Medium {
        self.inner.medium()
    }

    fn set_temp_owner(&self, owner: &str) {
        self.inner.set_temp_owner(owner);
    }

    fn sweep_temps(&self, ended: &dyn Fn(&str) -> bool) -> StoreResult<u64> {
        self.tries(|| self.inner.sweep_temps(ended))
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}
