//! The source's part of processes that go on at the target: whether they can, and their archives, which
//! are a folder beside the migration's state and go as an item of the last pass.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use podkeep_format::item::{Item, ItemKind};

use super::SideHost;
use super::scope::Scope;
use super::state::{Folder, local};
use crate::fs::write::free_below;
use crate::host::{ColdStart, Inventory, Room};
use crate::monitor::{Finding, FindingKind};
use crate::operations::OperationResult;

/// Below the migration's folder.
const ARCHIVES: &str = "checkpoints";
/// Times that what is in memory passes a disk or the link: written, sent, read.
const MEMORY_PASSES: u64 = 3;

/// What is known of processes before they are stopped.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried {
    /// Why they cannot go on elsewhere, in words.
    pub conflicts: Vec<String>,
    /// Bytes of memory that no file has.
    pub bytes: u64,
}

impl Carried {
    pub fn look(
        source: &dyn SideHost,
        inventory: &Inventory,
        scope: &Scope,
        folder: &Folder,
    ) -> OperationResult<Self> {
        let mut conflicts = source.obstacles()?;
        let containers = &scope.running;
        conflicts.extend(source.unfit(containers)?);
        for one in &inventory.containers {
            // Podman writes no archive of one, and notices that when it is stopped.
            if let ([need, ..], true) = (&one.needs[..], containers.contains(&one.name)) {
                conflicts.push(format!("container {} needs container {need}", one.name));
            }
        }
        for name in containers {
            let held = source.would_hold_back(name)?;
            if held.removed && !held.vanishes {
                conflicts.push(format!(
                    "container {name} would have to be removed here, since this Podman cannot change its \
                     restart policy"
                ));
            }
        }
        let bytes = source.memory(containers)?;
        // Beside the containers, and as archives: on one disk, as a rule.
        let mut rooms: Vec<Room> = Vec::new();
        for place in source.places()?.iter().take(1).chain([&folder.path]) {
            let Some(room) = free_below(place) else {
                continue;
            };
            let before = rooms.iter().filter(|one| one.device == room.device);
            if room.bytes_free < bytes * (1 + before.count() as u64) {
                conflicts.push(format!(
                    "they hold {bytes} bytes of memory, which do not fit into {}, where {} are free",
                    place.display(),
                    room.bytes_free
                ));
            }
            rooms.push(room);
        }
        let conflicts = conflicts.into_iter();
        Ok(Self {
            conflicts: conflicts
                .map(|why| {
                    format!("processes cannot go on at the target: {why}: leave out --checkpoint")
                })
                .collect(),
            bytes,
        })
    }

    /// What reading, sending and writing it counts for.
    pub fn bytes_moved(&self) -> u64 {
        self.bytes.saturating_mul(MEMORY_PASSES)
    }
}

/// The folder of the archives; what is in it is gone when this is dropped, since it holds what processes had
/// in memory.
pub(super) struct Archives {
    pub path: PathBuf,
}

impl Archives {
    pub fn make(folder: &Folder) -> OperationResult<Self> {
        let path = folder.path.join(ARCHIVES);
        remove(&path)?;
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| local("make", &path, error))?;
        Ok(Self { path })
    }

    /// Those of these containers that have one.
    pub fn of(&self, containers: &[String]) -> Vec<String> {
        let has = |name: &&String| self.path.join(format!("{name}.tar")).exists();
        containers.iter().filter(has).cloned().collect()
    }

    /// Removes what a run left that was cut off.
    pub fn clear(folder: &Folder) -> OperationResult<()> {
        remove(&folder.path.join(ARCHIVES))
    }

    pub fn item(&self) -> Item {
        Item::new(ItemKind::Path, self.path.as_os_str().as_encoded_bytes())
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        // What is left goes when the next one is made, or with the migration's folder.
        let _ = remove(&self.path);
    }
}

fn remove(path: &Path) -> OperationResult<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(local("remove", path, error))
        }
        _ => Ok(()),
    }
}

pub(super) fn told(cold: ColdStart) -> Finding {
    Finding {
        object: format!("container {}", cold.container),
        kind: FindingKind::Consistency,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: format!(
            "it was started anew, without what it had in memory: {}",
            cold.cause
        ),
    }
}
