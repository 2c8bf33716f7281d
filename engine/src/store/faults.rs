//! Makes a store fail by plan: for tests of what stands when something breaks.
//!
//! A crash matrix runs something once with an empty plan, reads [`Faults::operations`], and then
//! runs it again for every n with `Fault::at(n, Effect::CutPower)`. After a cut every operation
//! is `Unreachable` until [`Faults::restart`]; what the medium holds then is what the next
//! process finds.
//!
//! Over a [`MemoryStore`] ([`Faults::over_memory`]) a cut also takes away, object by object and
//! by a seeded choice, what was not durable: the operation that was cut, those that other threads
//! had under way, and the last ones of a store with a write cache. Over other stores the cut
//! operation has not happened.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreResult;
use super::memory::{MemoryStore, Unsynced};
use super::recording::Op;
use super::{Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreError, StoreErrorKind};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An error, and nothing has happened.
    FailBefore(StoreErrorKind),
    /// It has happened, and an error says that it failed: a reply that was lost.
    FailAfter(StoreErrorKind),
    /// A put or replacement that broke off in the middle: an error, nothing under the name, and
    /// over a memory store a temporary file left behind. Like `FailBefore` for any other one.
    Torn(StoreErrorKind),
    /// This operation and all later ones fail as `Unreachable`.
    CutPower,
    /// A read succeeds with one bit flipped: bit `bit % 8` of byte `byte` modulo the length.
    FlipBit { byte: u64, bit: u8 },
    /// A read of a whole object succeeds with only its first `bytes` bytes, a listing or size
    /// tells no more than that; a ranged read beyond them is `Short`.
    Truncate { bytes: u64 },
}

/// When something goes wrong: at the `nth` operation, counted from 1, of those it concerns.
#[derive(Clone, Debug)]
pub struct Fault {
    concerns: Concerns,
    /// Names or folders it concerns begin with this.
    prefix: String,
    nth: u64,
    lasting: bool,
    effect: Effect,
}

#[derive(Clone, Copy, Debug)]
enum Concerns {
    All,
    Writes,
    Reads,
    One(Op),
}

impl Fault {
    /// At the `nth` operation of any kind.
    pub fn at(nth: u64, effect: Effect) -> Self {
        Self {
            concerns: Concerns::All,
            prefix: String::new(),
            nth,
            lasting: false,
            effect,
        }
    }

    pub fn at_write(nth: u64, effect: Effect) -> Self {
        Self {
            concerns: Concerns::Writes,
            ..Self::at(nth, effect)
        }
    }

    pub fn at_read(nth: u64, effect: Effect) -> Self {
        Self {
            concerns: Concerns::Reads,
            ..Self::at(nth, effect)
        }
    }

    pub fn at_op(op: Op, nth: u64, effect: Effect) -> Self {
        Self {
            concerns: Concerns::One(op),
            ..Self::at(nth, effect)
        }
    }

    /// Counts and hits only names that begin with `prefix`.
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ..self
        }
    }

    /// Hits every later one too: a full disk, a place that stays damaged.
    #[must_use]
    pub fn lasting(self) -> Self {
        Self {
            lasting: true,
            ..self
        }
    }

    fn concerns(&self, op: Op, name: &str) -> bool {
        let kind = match self.concerns {
            Concerns::All => true,
            Concerns::Writes => op.writes(),
            Concerns::Reads => !op.writes(),
            Concerns::One(only) => only == op,
        };
        kind && name.starts_with(&self.prefix)
    }
}

/// A store that fails by plan.
pub struct Faults<S> {
    inner: S,
    /// The same store as `inner`, for what only a memory store can show.
    memory: Option<MemoryStore>,
    state: Mutex<State>,
}

struct State {
    /// Each fault with how many operations it has counted.
    plan: Vec<(Fault, u64)>,
    operations: u64,
    writes: u64,
    cut: bool,
    /// State of the choice between kept and lost changes.
    random: u64,
}

impl<S: ObjectStore> Faults<S> {
    /// A store without faults, until some are planned.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            memory: None,
            state: Mutex::new(State {
                plan: Vec::new(),
                operations: 0,
                writes: 0,
                cut: false,
                random: 1,
            }),
        }
    }

    /// Adds a fault; it counts from now on. Of several that hit one operation the first planned
    /// counts.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        self.plan(fault);
        self
    }

    pub fn plan(&self, fault: Fault) {
        self.state().plan.push((fault, 0));
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Operations so far, failed ones included, those after a cut not.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Those among [`Faults::operations`] that may change what is stored.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    pub fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// Cuts the power now, between two operations.
    pub fn cut_power(&self) {
        self.cut(&mut self.state());
    }

    /// Power again, and no more faults planned.
    pub fn restart(&self) {
        let mut state = self.state();
        state.cut = false;
        state.plan.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, state: &mut State) {
        state.cut = true;
        if let Some(memory) = &self.memory {
            memory.cut_power(&mut |_| state.chooses());
        }
    }

    /// Counts the operation and says what goes wrong with it.
    fn begin(&self, op: Op, name: &str) -> StoreResult<Option<Effect>> {
        let mut state = self.state();
        if state.cut {
            return Err(self.failure(op, name, StoreErrorKind::Unreachable));
        }
        state.operations += 1;
        state.writes += u64::from(op.writes());
        let mut hit = None;
        for (fault, counted) in &mut state.plan {
            if fault.concerns(op, name) {
                *counted += 1;
                if *counted == fault.nth || (fault.lasting && *counted > fault.nth) {
                    hit = hit.or(Some(fault.effect));
                }
            }
        }
        Ok(hit)
    }

    fn failure(&self, op: Op, name: &str, kind: StoreErrorKind) -> StoreError {
        let cause = match kind {
            StoreErrorKind::NotFound => "there is no such object",
            StoreErrorKind::Conflict => "an object of this name is there already",
            StoreErrorKind::Short => "there are fewer bytes",
            StoreErrorKind::NoSpace => "No space left on device (os error 28)",
            StoreErrorKind::NotWritable => "Read-only file system (os error 30)",
            StoreErrorKind::Io => "Input/output error (os error 5)",
            StoreErrorKind::Unreachable => "the power is cut",
        };
        StoreError {
            action: match op {
                Op::PutNew | Op::Replace => "write",
                Op::Get | Op::GetRange | Op::Size => "read",
                Op::List => "list",
                Op::Delete | Op::SweepTemps => "delete",
            },
            object: format!("{}/{name}", self.inner.place()),
            kind,
            cause: format!("{cause} (planned)"),
        }
    }

    /// An operation that changes something. Over a memory store `first_half` makes the change
    /// visible, so that a cut can come before it is durable.
    fn write<T>(
        &self,
        op: Op,
        name: &str,
        whole: impl FnOnce() -> StoreResult<T>,
        first_half: impl FnOnce(&MemoryStore) -> StoreResult<Option<Unsynced>>,
    ) -> StoreResult<T> {
        match self.begin(op, name)? {
            None | Some(Effect::FlipBit { .. } | Effect::Truncate { .. }) => {
                let done = whole()?;
                // Cut by another thread: nobody hears the answer.
                match self.is_cut() {
                    true => Err(self.failure(op, name, StoreErrorKind::Unreachable)),
                    false => Ok(done),
                }
            }
            Some(Effect::FailBefore(kind)) => Err(self.failure(op, name, kind)),
            Some(Effect::FailAfter(kind)) => {
                whole()?;
                Err(self.failure(op, name, kind))
            }
            Some(Effect::Torn(kind)) => {
                if let Some(memory) = &self.memory
                    && matches!(op, Op::PutNew | Op::Replace)
                {
                    memory.leave_temp();
                }
                Err(self.failure(op, name, kind))
            }
            Some(Effect::CutPower) => {
                let mut state = self.state();
                if let Some(memory) = &self.memory {
                    // Whether it failed or not, nobody hears of it.
                    let _ = first_half(memory);
                }
                self.cut(&mut state);
                Err(self.failure(op, name, StoreErrorKind::Unreachable))
            }
        }
    }

    /// An operation that reads. The effect returned is one on what was read.
    fn read<T>(
        &self,
        op: Op,
        name: &str,
        whole: impl FnOnce() -> StoreResult<T>,
    ) -> StoreResult<(T, Option<Effect>)> {
        let effect = self.begin(op, name)?;
        match effect {
            Some(Effect::FailBefore(kind) | Effect::FailAfter(kind) | Effect::Torn(kind)) => {
                Err(self.failure(op, name, kind))
            }
            Some(Effect::CutPower) => {
                self.cut_power();
                Err(self.failure(op, name, StoreErrorKind::Unreachable))
            }
            None | Some(Effect::FlipBit { .. } | Effect::Truncate { .. }) => Ok((whole()?, effect)),
        }
    }
}

impl Faults<MemoryStore> {
    /// `seed` decides which of the changes that are not durable a cut keeps.
    pub fn over_memory(memory: MemoryStore, seed: u64) -> Self {
        let faults = Self {
            memory: Some(memory.clone()),
            ..Self::new(memory)
        };
        // Zero would stay zero.
        faults.state().random = seed.wrapping_mul(2).wrapping_add(1);
        faults
    }
}

impl State {
    /// xorshift64*: a choice that a seed repeats.
    fn chooses(&mut self) -> bool {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 1
    }
}

impl<S> fmt::Debug for Faults<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Faults")
            .field("plan", &state.plan)
            .field("operations", &state.operations)
            .field("cut", &state.cut)
            .finish_non_exhaustive()
    }
}

fn flip(data: &mut [u8], byte: u64, bit: u8) {
    if let Some(at) = byte.checked_rem(data.len() as u64) {
        // Below the length of a slice, so that it fits.
        #[allow(clippy::cast_possible_truncation)]
        let at = at as usize;
        data[at] ^= 1 << (bit % 8);
    }
}

impl<S: ObjectStore> ObjectStore for Faults<S> {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        self.write(
            Op::PutNew,
            name.as_str(),
            || self.inner.put_new(name, data),
            |memory| memory.put_new_unsynced(name, data),
        )
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        self.write(
            Op::Replace,
            name.as_str(),
            || self.inner.replace(name, data),
            |memory| memory.replace_unsynced(name, data).map(Some),
        )
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        let whole = || self.inner.get(name, bytes_max);
        let (mut data, effect) = self.read(Op::Get, name.as_str(), whole)?;
        match effect {
            Some(Effect::FlipBit { byte, bit }) => flip(&mut data, byte, bit),
            Some(Effect::Truncate { bytes }) => {
                data.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            _ => {}
        }
        Ok(data)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        let whole = || self.inner.get_range(name, offset, len);
        let (mut data, effect) = self.read(Op::GetRange, name.as_str(), whole)?;
        match effect {
            Some(Effect::FlipBit { byte, bit }) => flip(&mut data, byte, bit),
            Some(Effect::Truncate { bytes }) if offset.saturating_add(len as u64) > bytes => {
                return Err(self.failure(Op::GetRange, name.as_str(), StoreErrorKind::Short));
            }
            _ => {}
        }
        Ok(data)
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        let (size, effect) = self.read(Op::Size, name.as_str(), || self.inner.size(name))?;
        Ok(match effect {
            Some(Effect::Truncate { bytes }) => size.map(|size| size.min(bytes)),
            _ => size,
        })
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        let (mut rows, effect) = self.read(Op::List, folder, || self.inner.list(folder))?;
        if let Some(Effect::Truncate { bytes }) = effect {
            for row in &mut rows {
                row.size = row.size.min(bytes);
            }
        }
        Ok(rows)
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.write(
            Op::Delete,
            name.as_str(),
            || self.inner.delete(name),
            |memory| Ok(memory.delete_unsynced(name)),
        )
    }

    fn medium(&self) -> Medium {
        self.inner.medium()
    }

    fn set_temp_owner(&self, owner: &str) {
        self.inner.set_temp_owner(owner);
    }

    fn sweep_temps(&self, ended: &dyn Fn(&str) -> bool) -> StoreResult<u64> {
        self.write(
            Op::SweepTemps,
            "",
            || self.inner.sweep_temps(ended),
            |_| Ok(None),
        )
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}
