//! A store in memory, with a model of what a power cut takes away.
//!
//! Each change is first visible and then durable, as on a disk: a put or delete that has returned
//! `Ok` is both. Between the two stand the operations that other threads have under way, and,
//! with [`MemoryStore::with_write_cache`], the last ones that returned: the model of a disk that
//! acknowledges before it has written. [`MemoryStore::cut_power`] keeps or loses each of these on
//! its own, so also in another order than they were made; an object is whole or absent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreResult;
use super::{Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreError, StoreErrorKind};

/// Clones share the same objects; only [`MemoryStore::with_write_cache`] sets how they are kept.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectName, Arc<[u8]>>,
    /// Changes that are visible and not durable, oldest first.
    unsynced: VecDeque<Change>,
    /// How many changes stay unsynced after their operation has returned.
    cached_max: usize,
    changes: u64,
    /// Changes up to this number were kept or lost by a power cut.
    cut_at: u64,
    temp_owner: String,
    /// Owners of temporary files that were left behind.
    temps: Vec<String>,
}

struct Change {
    number: u64,
    name: ObjectName,
    before: Option<Arc<[u8]>>,
    after: Option<Arc<[u8]>>,
}

/// A change that is visible; durable once it is given to [`MemoryStore::sync`].
#[derive(Debug)]
#[must_use]
pub struct Unsynced(u64);

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// A store on a medium that breaks its word: the last `operations` puts, replacements and
    /// deletions are reported durable and are not.
    pub fn with_write_cache(operations: usize) -> Self {
        let store = Self::default();
        store.state().cached_max = operations;
        store
    }

    /// Makes a change durable. `false`: a power cut came first, and its fate is sealed.
    pub fn sync(&self, change: &Unsynced) -> bool {
        let mut state = self.state();
        if change.0 <= state.cut_at {
            return false;
        }
        if state.cached_max == 0 {
            // What was made of the same object before is overwritten for good. If the change is
            // not there any more, somebody has found the object in the way and synced it.
            let synced = state.unsynced.iter().find(|c| c.number == change.0);
            if let Some(name) = synced.map(|c| c.name.clone()) {
                state
                    .unsynced
                    .retain(|c| c.name != name || c.number > change.0);
            }
        } else {
            while state.unsynced.len() > state.cached_max {
                state.unsynced.pop_front();
            }
        }
        true
    }

    /// Loses what `keeps` does not keep of the changes that are not durable, as a power cut does;
    /// what remains is durable. `keeps` is asked once per change, oldest first. An object that
    /// changed several times ends as its last kept change left it, or as it was before them all.
    /// Returns how many changes were lost.
    pub fn cut_power(&self, keeps: &mut dyn FnMut(&ObjectName) -> bool) -> usize {
        let mut state = self.state();
        let mut ends: BTreeMap<ObjectName, Option<Arc<[u8]>>> = BTreeMap::new();
        let mut lost = 0;
        state.cut_at = state.changes;
        for change in std::mem::take(&mut state.unsynced) {
            let end = ends.entry(change.name.clone()).or_insert(change.before);
            if keeps(&change.name) {
                *end = change.after;
            } else {
                lost += 1;
            }
        }
        for (name, end) in ends {
            match end {
                Some(data) => state.objects.insert(name, data),
                None => state.objects.remove(&name),
            };
        }
        lost
    }

    /// How many changes a power cut could take away now.
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// The first half of `put_new`: visible and not durable. `None`: exactly these bytes were
    /// there already, and are durable now.
    pub fn put_new_unsynced(
        &self,
        name: &ObjectName,
        data: &[u8],
    ) -> StoreResult<Option<Unsynced>> {
        let mut state = self.state();
        if let Some(there) = state.objects.get(name) {
            if **there != *data {
                let cause = format!(
                    "an object of this name is there already, of {} bytes, and differs from the {} bytes to be stored",
                    there.len(),
                    data.len()
                );
                return Err(refuse("write", name, StoreErrorKind::Conflict, cause));
            }
            if state.cached_max == 0 {
                state.unsynced.retain(|c| c.name != *name);
            }
            return Ok(None);
        }
        state.check_folders(name)?;
        Ok(Some(state.change(name, Some(data.into()))))
    }

    /// The first half of `replace`.
    pub fn replace_unsynced(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Unsynced> {
        let mut state = self.state();
        state.check_folders(name)?;
        Ok(state.change(name, Some(data.into())))
    }

    /// The first half of `delete`; `None`: there was no such object.
    pub fn delete_unsynced(&self, name: &ObjectName) -> Option<Unsynced> {
        let mut state = self.state();
        state
            .objects
            .contains_key(name)
            .then(|| state.change(name, None))
    }

    /// Leaves a temporary file of the present owner behind, as a put does that is cut off.
    pub fn leave_temp(&self) {
        let mut state = self.state();
        let owner = state.temp_owner.clone();
        state.temps.push(owner);
    }

    /// Changes the bytes under `name` in place, as a failing disk does; `false`: no such object.
    pub fn damage(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let Some(object) = state.objects.get_mut(name) else {
            return false;
        };
        let mut data = object.to_vec();
        change(&mut data);
        *object = data.into();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method panics between two changes of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, name: &ObjectName) -> StoreResult<Arc<[u8]>> {
        let found = self.state().objects.get(name).cloned();
        found.ok_or_else(|| {
            let cause = "there is no such object".to_owned();
            refuse("read", name, StoreErrorKind::NotFound, cause)
        })
    }

    fn finish(
        &self,
        name: &ObjectName,
        action: &'static str,
        change: &Unsynced,
    ) -> StoreResult<()> {
        match self.sync(change) {
            true => Ok(()),
            false => {
                let cause = "the power was cut".to_owned();
                Err(refuse(action, name, StoreErrorKind::Unreachable, cause))
            }
        }
    }
}

impl State {
    fn change(&mut self, name: &ObjectName, after: Option<Arc<[u8]>>) -> Unsynced {
        let before = match &after {
            Some(data) => self.objects.insert(name.clone(), data.clone()),
            None => self.objects.remove(name),
        };
        self.changes += 1;
        self.unsynced.push_back(Change {
            number: self.changes,
            name: name.clone(),
            before,
            after,
        });
        Unsynced(self.changes)
    }

    /// No object's name may be a folder of another's.
    fn check_folders(&self, name: &ObjectName) -> StoreResult<()> {
        let conflict = |cause| Err(refuse("write", name, StoreErrorKind::Conflict, cause));
        for (at, _) in name.as_str().match_indices('/') {
            let folder = &name.as_str()[..at];
            if ObjectName::parse(folder).is_some_and(|f| self.objects.contains_key(&f)) {
                return conflict(format!("{folder} is an object, not a folder"));
            }
        }
        match self.below(name.as_str()).next() {
            Some(_) => conflict("a folder has this name".to_owned()),
            None => Ok(()),
        }
    }

    /// Everything below `folder`, sorted.
    fn below(&self, folder: &str) -> impl Iterator<Item = (&ObjectName, &Arc<[u8]>)> {
        let prefix = match folder {
            "" => String::new(),
            _ => format!("{folder}/"),
        };
        let first = ObjectName::parse(folder);
        let from = match first {
            Some(name) => std::ops::Bound::Excluded(name),
            None => std::ops::Bound::Unbounded,
        };
        self.objects
            .range((from, std::ops::Bound::Unbounded))
            // `a-b` and `a.b` sort between `a` and `a/b`.
            .skip_while({
                let prefix = prefix.clone();
                move |(name, _)| name.as_str() < prefix.as_str()
            })
            .take_while(move |(name, _)| name.as_str().starts_with(&prefix))
    }
}

fn refuse(
    action: &'static str,
    name: &ObjectName,
    kind: StoreErrorKind,
    cause: String,
) -> StoreError {
    StoreError {
        action,
        object: format!("memory:/{name}"),
        kind,
        cause,
    }
}

impl ObjectStore for MemoryStore {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        match self.put_new_unsynced(name, data)? {
            Some(change) => self.finish(name, "write", &change).map(|()| Put::Created),
            None => Ok(Put::AlreadyThere),
        }
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        let change = self.replace_unsynced(name, data)?;
        self.finish(name, "write", &change)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        let object = self.object(name)?;
        if object.len() as u64 > bytes_max {
            let size = object.len();
            let cause = format!("it has {size} bytes, more than the {bytes_max} allowed here");
            return Err(refuse("read", name, StoreErrorKind::Io, cause));
        }
        Ok(object.to_vec())
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        let object = self.object(name)?;
        let range = usize::try_from(offset)
            .ok()
            .and_then(|from| object.get(from..from.checked_add(len)?));
        match range {
            Some(bytes) => Ok(bytes.to_vec()),
            None => {
                let size = object.len();
                let cause =
                    format!("{len} bytes from byte {offset} were asked for, but it has {size}");
                Err(refuse("read", name, StoreErrorKind::Short, cause))
            }
        }
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        Ok(self.state().objects.get(name).map(|data| data.len() as u64))
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        if !folder.is_empty() && ObjectName::parse(folder).is_none() {
            return Ok(Vec::new());
        }
        let state = self.state();
        let rows = state.below(folder).map(|(name, data)| ObjectMeta {
            name: name.clone(),
            size: data.len() as u64,
        });
        Ok(rows.collect())
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        match self.delete_unsynced(name) {
            Some(change) => self.finish(name, "delete", &change).map(|()| true),
            None => Ok(false),
        }
    }

    fn medium(&self) -> Medium {
        Medium::Linearizable
    }

    fn set_temp_owner(&self, owner: &str) {
        owner.clone_into(&mut self.state().temp_owner);
    }

    fn sweep_temps(&self, ended: &dyn Fn(&str) -> bool) -> StoreResult<u64> {
        // `ended` may ask this very store.
        let temps = std::mem::take(&mut self.state().temps);
        let (swept, kept): (Vec<_>, Vec<_>) = temps.into_iter().partition(|owner| ended(owner));
        self.state().temps.extend(kept);
        Ok(swept.len() as u64)
    }

    fn place(&self) -> String {
        "memory:".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::parse(name).unwrap()
    }

    fn names(store: &MemoryStore) -> Vec<String> {
        let rows = store.list("").unwrap();
        rows.into_iter().map(|row| row.name.to_string()).collect()
    }

    #[test]
    fn what_a_put_returned_survives_a_power_cut() {
        let store = MemoryStore::new();
        store.put_new(&name("a"), b"1").unwrap();
        store.put_new(&name("b"), b"2").unwrap();
        store.delete(&name("a")).unwrap();
        assert_eq!(store.unsynced(), 0);
        assert_eq!(store.cut_power(&mut |_| false), 0);
        assert_eq!(names(&store), ["b"]);
    }

    #[test]
    fn a_power_cut_keeps_and_loses_changes_in_any_order() {
        let store = MemoryStore::new();
        store.put_new(&name("old"), b"1").unwrap();
        let first = store
            .put_new_unsynced(&name("first"), b"1")
            .unwrap()
            .unwrap();
        let _second = store
            .put_new_unsynced(&name("second"), b"2")
            .unwrap()
            .unwrap();
        let _gone = store.delete_unsynced(&name("old")).unwrap();
        assert_eq!(names(&store), ["first", "second"]);
        let lost = store.cut_power(&mut |n| n.as_str() == "second");
        assert_eq!(lost, 2);
        assert_eq!(names(&store), ["old", "second"]);
        assert!(!store.sync(&first));
    }

    #[test]
    fn an_object_changed_twice_ends_as_one_of_its_states() {
        let store = MemoryStore::new();
        store.put_new(&name("a"), b"0").unwrap();
        for keep in [0b00u32, 0b01, 0b10, 0b11] {
            store.replace(&name("a"), b"0").unwrap();
            let _ = store.replace_unsynced(&name("a"), b"1").unwrap();
            let _ = store.replace_unsynced(&name("a"), b"2").unwrap();
            let mut asked = 0;
            store.cut_power(&mut |_| {
                asked += 1;
                keep & (1 << (asked - 1)) != 0
            });
            let expected: &[u8] = match keep {
                0b00 => b"0",
                0b01 => b"1",
                _ => b"2",
            };
            assert_eq!(store.get(&name("a"), 1).unwrap(), expected, "{keep:b}");
        }
    }

    #[test]
    fn a_write_cache_loses_only_the_last_changes() {
        let store = MemoryStore::with_write_cache(2);
        for n in ["a", "b", "c", "d"] {
            store.put_new(&name(n), b"").unwrap();
        }
        assert_eq!(store.unsynced(), 2);
        assert_eq!(store.cut_power(&mut |_| false), 2);
        assert_eq!(names(&store), ["a", "b"]);
    }

    #[test]
    fn an_equal_object_found_in_the_way_is_made_durable() {
        let store = MemoryStore::new();
        let _ = store.put_new_unsynced(&name("a"), b"1").unwrap().unwrap();
        assert_eq!(store.put_new(&name("a"), b"1").unwrap(), Put::AlreadyThere);
        store.cut_power(&mut |_| false);
        assert_eq!(names(&store), ["a"]);
    }
}
