//! What exists twice: config, key slots, snapshots; and run records, which do not.

use std::collections::BTreeSet;

use podkeep_format::config::Config;
use podkeep_format::id::{SegmentId, SnapshotId};
use podkeep_format::keys::{KeySlot, slot_id};
use podkeep_format::names;

use super::Check;
use crate::operations::OperationResult;
use crate::repo::listed;
use crate::repo::reader::is_fatal;
use crate::repo::{RepoResult, name};
use crate::store::StoreErrorKind;

const OBJECT_BYTES_MAX: u64 = 16 << 20;

/// What one copy is.
enum Copy {
    Good(Vec<u8>),
    Bad(String),
    Missing,
}

impl Check<'_> {
    pub(super) fn twins(&mut self) -> OperationResult<()> {
        self.pair(names::config(false), names::config(true), &|bytes| {
            Config::decode(bytes).map(drop).map_err(|e| e.to_string())
        })?;
        let mut slots = BTreeSet::new();
        for meta in self.repo.store().list("keys")? {
            slots.extend(listed::key(meta.name.as_str()));
        }
        for id in slots {
            self.pair(names::key(id, false), names::key(id, true), &|bytes| {
                if slot_id(bytes) != id {
                    return Err("its bytes do not hash to its name".into());
                }
                KeySlot::read(bytes).map(drop).map_err(|e| e.to_string())
            })?;
        }
        for id in self.repo.snapshot_ids()? {
            self.report.snapshots += 1;
            self.snapshot(id)?;
        }
        for meta in self.repo.store().list("runs")? {
            if let Some(id) = listed::run(meta.name.as_str())
                && let Err(error) = self.repo.stored_run(id)
            {
                if is_fatal(&error) {
                    return Err(error.into());
                }
                self.damage(
                    meta.name,
                    format!("{error}; its items can be restored all the same"),
                );
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, id: SnapshotId) -> OperationResult<()> {
        self.pair(
            names::snapshot(id, false),
            names::snapshot(id, true),
            &|bytes| {
                if *blake3::hash(bytes).as_bytes() == id.0 {
                    Ok(())
                } else {
                    Err("its bytes do not hash to its name".into())
                }
            },
        )
    }

    /// Heals a copy from the other one, or says that both are lost.
    fn pair(
        &mut self,
        first: String,
        second: String,
        good: &dyn Fn(&[u8]) -> Result<(), String>,
    ) -> OperationResult<()> {
        let copies = [
            self.read_copy(&first, good)?,
            self.read_copy(&second, good)?,
        ];
        match &copies {
            [Copy::Good(a), Copy::Good(b)] if a == b => {}
            // Two good configs that differ: somebody put another one in place of the first.
            [Copy::Good(_), Copy::Good(_)] => {
                self.damage(&second, format!("it differs from {first}"));
            }
            [Copy::Good(bytes), bad] => self.heal(&second, bytes, bad, &first)?,
            [bad, Copy::Good(bytes)] => self.heal(&first, bytes, bad, &second)?,
            [a, b] => {
                let cause = [a, b].map(|copy| match copy {
                    Copy::Bad(cause) => cause.as_str(),
                    _ => "missing",
                });
                self.damage(
                    &first,
                    format!("both copies are lost: {}; {}", cause[0], cause[1]),
                );
            }
        }
        Ok(())
    }

    fn read_copy(
        &self,
        object: &str,
        good: &dyn Fn(&[u8]) -> Result<(), String>,
    ) -> RepoResult<Copy> {
        match self.repo.store().get(&name(object)?, OBJECT_BYTES_MAX) {
            Ok(bytes) => Ok(match good(&bytes) {
                Ok(()) => Copy::Good(bytes),
                Err(cause) => Copy::Bad(cause),
            }),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(Copy::Missing),
            Err(error) if error.kind == StoreErrorKind::Unreachable => Err(error.into()),
            Err(error) => Ok(Copy::Bad(error.to_string())),
        }
    }

    fn heal(&mut self, object: &str, bytes: &[u8], bad: &Copy, from: &str) -> OperationResult<()> {
        let cause = match bad {
            Copy::Bad(cause) => cause.as_str(),
            _ => "it was missing",
        };
        match self.repo.store().replace(&name(object)?, bytes) {
            Ok(()) => self.healed(object, format!("{cause}; made again from {from}")),
            // Nothing is lost while the other copy stands.
            Err(error) => self.damage(object, format!("{cause}; {from} is good, but {error}")),
        }
        Ok(())
    }

    /// A segment that cannot be read. Its packs' own tables of contents stand in for it.
    pub(super) fn report_segment(&mut self, id: SegmentId, cause: &str, stood_in: bool) {
        let object = names::segment(id);
        if stood_in {
            self.note(&object, format!("{cause}; its packs were read without it"));
        } else {
            self.note(
                &object,
                format!("{cause}; other segments name all that it named"),
            );
        }
    }
}
