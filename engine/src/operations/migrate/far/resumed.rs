//! Containers whose processes go on here: their archives, and setting them going.

use std::path::PathBuf;

use super::{Work, as_target, options, refused};
use crate::host::{Existing, Standing};
use crate::operations::migrate::orders::{Fit, Reached};
use crate::operations::restore::change::Changing;
use crate::operations::{ItemPath, OperationError, OperationResult, Selector};
use crate::podman::checkpoint;
use crate::repo::reader::Reader;
use crate::repo::{Repository, StoredSnapshot};
use podkeep_format::item::{Item, ItemKind};

/// Below the migration's folder.
const ARCHIVES: &str = "checkpoints";

impl Work<'_> {
    fn archives(&self) -> OperationResult<PathBuf> {
        Ok(self.folder()?.path.join(ARCHIVES))
    }

    /// Brings the archives of a run where they are read from.
    pub(super) fn take_archives(
        &self,
        repo: &Repository,
        reader: &Reader,
        snapshot: StoredSnapshot,
    ) -> OperationResult<()> {
        let mut options = options("", Fit::default());
        options.to_dir = Some(self.archives()?);
        // The one item of it: nothing of its own name comes below that folder.
        options.all = false;
        options.items = vec![ItemPath {
            selector: Selector {
                item: snapshot.header.item.clone(),
                glob: false,
            },
            path: Vec::new(),
        }];
        options.existing = Existing::Replace;
        let changing = Changing {
            repo,
            reader,
            target: as_target(&*self.side.host),
            options: &options,
            in_haste: true,
            monitor: self.heard,
        };
        changing.replace(snapshot)?;
        let folder = self.archives()?;
        let odd =
            |cause: String| refused(format!("what was sent of the processes is none: {cause}"));
        let entries = std::fs::read_dir(&folder).map_err(|error| odd(error.to_string()))?;
        // Now the source would still go on.
        for entry in entries.flatten() {
            checkpoint::verify(&entry.path()).map_err(odd)?;
        }
        Ok(())
    }

    /// They hold what processes had in memory, and are of no use once those run.
    pub(super) fn remove_archives(&self) {
        if let Ok(folder) = self.archives() {
            // What cannot be removed now goes with the migration's folder.
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    /// Sets going from their archives what does not go yet. What did not come to its end may have run for a
    /// moment: what it wrote then and what the archive remembers do not belong together.
    pub(super) fn resume(&mut self) -> OperationResult<()> {
        let host = &*self.side.host;
        while let Some(name) = self.far.checkpoints.first().cloned() {
            if !self.is_ours(&Item::new(ItemKind::Container, name.as_bytes())) {
                return Err(refused(format!(
                    "{name:?} is none of the containers that were made"
                )));
            }
            match host.standing(&name)? {
                Standing::Gone => return Err(refused(format!("container {name} is gone"))),
                Standing::Rests if self.far.resuming => {
                    return Err(OperationError::Refused {
                        message: format!(
                            "container {name} was being restored when that was cut off, and nobody \
                             knows whether it ran"
                        ),
                        hint: "--rollback --discard-target-writes: it goes on at the source".into(),
                    });
                }
                Standing::Rests => self.resume_one(&name)?,
                // If it ended, it is started with the others.
                Standing::Runs | Standing::Ran => {}
            }
            self.far.checkpoints.remove(0);
            self.far.resuming = false;
            self.save()?;
        }
        self.remove_archives();
        Ok(())
    }

    fn resume_one(&mut self, name: &str) -> OperationResult<()> {
        let archive = self.archives()?.join(format!("{name}.tar"));
        self.far.resuming = true;
        self.save()?;
        let host = &*self.side.host;
        let Err(error) = host.resume_from(name, &archive) else {
            return Ok(());
        };
        if host.standing(name)? == Standing::Runs {
            return Ok(());
        }
        self.far.resuming = false;
        // None of them has run: this side may withdraw as one that never did, and nothing starts it here.
        if self.far.checkpoints.len() == self.far.starts.len() {
            for name in &self.far.starts {
                let held = host.would_hold_back(name)?;
                if !held.removed {
                    host.hold_back(&held)?;
                }
            }
            self.far.reached = Reached::Staged;
        }
        self.save()?;
        Err(error.into())
    }
}
