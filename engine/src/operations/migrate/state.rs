//! How far a migration is, on both sides: one small file each, in a folder of the migration's own below
//! the state folder, replaced by a rename and durable before what it announces begins.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::orders::{Fit, Reached};
use crate::fs::durable;
use crate::host::{HeldBack, HeldUnit};
use crate::operations::{OperationError, OperationResult};

const FILE: &str = "state.json";
const STATE_BYTES_MAX: u64 = 4 << 20;
/// Between two looks at a lock.
const PAUSE: Duration = Duration::from_millis(50);
const MIGRATIONS: &str = "migrations";

/// The source's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The source runs, or goes on by itself.
    #[default]
    Prepared,
    /// The source is stopped and fenced, and comes back only by a rollback.
    Released,
    /// The target runs.
    Active,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Near {
    pub phase: Phase,
    /// Opens the staging repository; it has no other.
    pub key: String,
    /// What is moved, as text.
    pub items: Vec<String>,
    /// Containers that ran and are fenced, in the order in which they are started again.
    pub ran: Vec<String>,
    /// Infra containers of pods that ran there: a container in such a pod does not end them.
    pub infra: Vec<String>,
    /// What is done so that they do not come back; recorded before it is.
    pub fences: Vec<HeldBack>,
    pub units: Vec<HeldUnit>,
    pub fit: Fit,
    /// The run that holds all, and the one that holds what was read last.
    pub whole: String,
    pub last: String,
    /// Everything is at the target, and nothing brings the source back by itself until it is either
    /// released or started again.
    pub releasing: bool,
    /// A rollback began.
    pub returning: bool,
    /// It brings back what this run holds: what the target had written when it was stopped.
    pub returned: String,
    /// The source's volumes are not what they were when it was stopped: the target's were brought there.
    pub brought: bool,
    /// Those of `ran` that were stopped by a checkpoint.
    pub checkpoints: Vec<String>,
    /// The id, in hex, of the repository that passes go through instead of the staging one.
    pub through: Option<String>,
}

/// The target's side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Far {
    pub reached: Reached,
    /// Items that were made, in their order.
    pub made: Vec<String>,
    /// Roots of trees that volumes were brought to, in hex; `None`: being written.
    pub volumes: Vec<(String, Option<String>)>,
    /// What is started, in its order.
    pub starts: Vec<String>,
    /// Those of them that go on from their archives, and of which it is not known that they do.
    pub checkpoints: Vec<String>,
    /// The first of these is being set going: it may have run.
    pub resuming: bool,
    /// Units that were made, and all of their files.
    pub units: Vec<HeldUnit>,
    pub unit_files: Vec<String>,
}

/// A migration's folder, locked by this process.
pub struct Folder {
    pub path: PathBuf,
    _lock: File,
}

impl Folder {
    /// `wait`: for a podkeep that has it and is about to end.
    pub fn lock(state: &Path, migration: &str, wait: Duration) -> OperationResult<Self> {
        let path = state.join(MIGRATIONS).join(migration);
        let failed = |error: std::io::Error| local("use", &path, error);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(failed)?;
        let lock = File::open(&path).map_err(failed)?;
        let since = Instant::now();
        let locked = loop {
            match crate::fs::lock::lock_exclusive(&lock) {
                Err(rustix::io::Errno::WOULDBLOCK) if since.elapsed() < wait => {
                    std::thread::sleep(PAUSE);
                }
                locked => break locked,
            }
        };
        match locked {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(OperationError::Host(crate::host::HostError::Busy {
                    object: format!("migration {migration}"),
                    holder: "another podkeep, which has not ended yet".into(),
                }))
            }
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// The default when nothing was written yet.
    pub fn read<T: DeserializeOwned + Default>(&self) -> OperationResult<T> {
        let path = self.path.join(FILE);
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(STATE_BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => serde_json::from_slice(&bytes).map_err(|error| local("read", &path, error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
            Err(error) => Err(local("read", &path, error)),
        }
    }

    /// Durable when it returns.
    pub fn write<T: Serialize>(&self, state: &T) -> OperationResult<()> {
        let path = self.path.join(FILE);
        let bytes = serde_json::to_vec(state).map_err(|error| local("write", &path, error))?;
        durable::replace(&path, &bytes).map_err(|error| local("write", &path, error))
    }

    /// Nothing of the migration is needed any more.
    pub fn remove(self) -> OperationResult<()> {
        std::fs::remove_dir_all(&self.path).map_err(|error| local("remove", &self.path, error))
    }
}

pub fn local(action: &'static str, path: &Path, cause: impl ToString) -> OperationError {
    OperationError::Local {
        action,
        object: path.display().to_string(),
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_lasts_and_one_process_has_it() {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::lock(state.path(), "ab", Duration::ZERO).unwrap();
        assert_eq!(folder.read::<Near>().unwrap(), Near::default());
        let near = Near {
            phase: Phase::Released,
            ran: vec!["db".into()],
            ..Near::default()
        };
        folder.write(&near).unwrap();
        assert!(
            Folder::lock(state.path(), "ab", Duration::ZERO).is_err(),
            "it is held"
        );
        drop(folder);
        let folder = Folder::lock(state.path(), "ab", Duration::ZERO).unwrap();
        assert_eq!(folder.read::<Near>().unwrap(), near);
        folder.remove().unwrap();
        let empty = std::fs::read_dir(state.path().join(MIGRATIONS)).unwrap();
        assert_eq!(empty.count(), 0);
    }
}
