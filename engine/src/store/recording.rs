//! Remembers every operation on a store, so that tests can assert what something costs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreErrorKind, StoreResult};

/// A method of [`ObjectStore`] that reaches the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    PutNew,
    Replace,
    Get,
    GetRange,
    Size,
    List,
    Delete,
    SweepTemps,
}

impl Op {
    /// Whether it may change what is stored.
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::PutNew | Self::Replace | Self::Delete | Self::SweepTemps
        )
    }
}

/// One operation that has returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub op: Op,
    /// The object's name, or the folder that was listed; empty for a sweep.
    pub name: String,
    /// Bytes of content that were sent or received; none for a failure or for metadata.
    pub bytes: u64,
    /// What it failed with.
    pub failed: Option<StoreErrorKind>,
}

/// A store that keeps a log, in the order in which the operations returned.
pub struct Recording<S> {
    inner: S,
    log: Mutex<Vec<Record>>,
}

impl<S> Recording<S> {
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            log: Mutex::new(Vec::new()),
        }
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    pub fn records(&self) -> Vec<Record> {
        self.log().clone()
    }

    /// Forgets what was recorded, and returns it.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.log())
    }

    /// How many operations `op` were done on names that begin with `prefix`, failed ones included.
    pub fn count(&self, op: Op, prefix: &str) -> usize {
        let counted = |r: &&Record| r.op == op && r.name.starts_with(prefix);
        self.log().iter().filter(counted).count()
    }

    /// The content that these operations moved, in bytes.
    pub fn bytes(&self, op: Op, prefix: &str) -> u64 {
        let counted = |r: &&Record| r.op == op && r.name.starts_with(prefix);
        self.log().iter().filter(counted).map(|r| r.bytes).sum()
    }

    fn log(&self) -> MutexGuard<'_, Vec<Record>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record<T>(
        &self,
        op: Op,
        name: &str,
        result: StoreResult<T>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> StoreResult<T> {
        let record = Record {
            op,
            name: name.to_owned(),
            bytes: result.as_ref().map_or(0, bytes),
            failed: result.as_ref().err().map(|e| e.kind),
        };
        self.log().push(record);
        result
    }
}

impl<S: ObjectStore> ObjectStore for Recording<S> {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        let result = self.inner.put_new(name, data);
        self.record(Op::PutNew, name.as_str(), result, |_| data.len() as u64)
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        let result = self.inner.replace(name, data);
        self.record(Op::Replace, name.as_str(), result, |()| data.len() as u64)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        let result = self.inner.get(name, bytes_max);
        self.record(Op::Get, name.as_str(), result, |data| data.len() as u64)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        let result = self.inner.get_range(name, offset, len);
        self.record(Op::GetRange, name.as_str(), result, |data| {
            data.len() as u64
        })
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        let result = self.inner.size(name);
        self.record(Op::Size, name.as_str(), result, |_| 0)
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        let result = self.inner.list(folder);
        self.record(Op::List, folder, result, |_| 0)
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        let result = self.inner.delete(name);
        self.record(Op::Delete, name.as_str(), result, |_| 0)
    }

    fn medium(&self) -> Medium {
        self.inner.medium()
    }

    fn set_temp_owner(&self, owner: &str) {
        self.inner.set_temp_owner(owner);
    }

    fn sweep_temps(&self, ended: &dyn Fn(&str) -> bool) -> StoreResult<u64> {
        let result = self.inner.sweep_temps(ended);
        self.record(Op::SweepTemps, "", result, |_| 0)
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}
