//! A Podman host, from its sides: a [`Source`] is read, a [`Target`] is written, and the store of
//! its images is looked after ([`StoreCare`]).
//!
//! Operations reach a host only through these traits; [`local`] is the host that this process
//! runs on, and [`archive`] a source that is made of files that other tools wrote.

pub mod archive;
mod artifact;
mod care;
mod checkpoint;
mod definitions;
mod facts;
mod freeze;
mod image;
mod keep;
pub mod local;
mod lock;
mod made_tree;
pub mod orders;
mod reading;
pub mod replay;
pub mod select;
mod user;
mod volume;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_format::id::{DiffId, SnapshotId};
use podkeep_format::item::{Item, ItemKind};
pub use podkeep_format::recipe::KnownLayer;
use serde::{Deserialize, Serialize};

pub use self::checkpoint::{Checkpoints, ColdStart, Ground, Standing};
pub use self::facts::{
    ConfigFacts, ContainerFacts, NetworkFacts, PodFacts, SecretFacts, UnitFacts,
};
pub use self::freeze::{Freeze, FreezeRequest, Freezing, Thawed};
pub use self::keep::{About, HeldBack, HeldUnit, Keep};
use crate::chunk::Chunking;
use crate::fs::owners::{Owners, OwnersView};
use crate::fs::scan::KnownContents;
pub use crate::fs::write::{Existing, Room};
use crate::fs::{FsError, TreeScan, TreeWriter};
use crate::monitor::{Finding, FindingKind};
pub use crate::podman::{Account, Inside, Podman, Remedy};

/// A failure at a host: what was being done, to what, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("cannot {action} {object}: {cause}")]
    Podman {
        action: &'static str,
        object: String,
        cause: String,
    },
    /// Refused, because it would hurt something; `hint` is the flag or command that resolves it.
    #[error("{object}: {cause}")]
    Refused {
        object: String,
        cause: String,
        hint: String,
    },
    /// The host's podkeep is not there any more: nobody knows whether it was done (exit code 13).
    #[error("cannot reach {host}: {cause}")]
    Unreachable { host: String, cause: String },
    /// Another run works on this item (exit code 11).
    #[error("another run works on {object}: {holder}")]
    Busy { object: String, holder: String },
}

impl HostError {
    /// In words for where `object` is named already: it is not named again, and what resolves a refusal
    /// is said, too.
    pub fn about(&self, object: &str) -> String {
        match self {
            Self::Refused {
                object: refused,
                cause,
                hint,
            } => {
                let cause = match refused == object {
                    true => cause.clone(),
                    false => self.to_string(),
                };
                match hint.as_str() {
                    "" => cause,
                    hint => format!("{cause} ({hint})"),
                }
            }
            Self::Fs(_) | Self::Podman { .. } | Self::Unreachable { .. } | Self::Busy { .. } => {
                self.to_string()
            }
        }
    }
}

/// What is on a host, without content. Bounded by what Podman itself lists.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The driver of containers/storage ("overlay"); `None` when the host has no Podman.
    pub driver: Option<String>,
    pub podman_version: Option<String>,
    /// The user namespace whose ids its trees hold.
    pub owners: Arc<Owners>,
    /// The home and the runtime folder of the user whose Podman it is; `None`: root's.
    pub home: Option<PathBuf>,
    pub runtime: Option<PathBuf>,
    pub volumes: Vec<VolumeFacts>,
    /// Sorted by item.
    pub images: Vec<ImageFacts>,
    /// Sorted by item.
    pub artifacts: Vec<ArtifactFacts>,
    /// Why images are missing from it: of interest to whoever asks for images.
    pub image_findings: Vec<Finding>,
    /// Why containers, pods, networks or secrets are missing from it.
    pub definition_findings: Vec<Finding>,
    /// Each sorted by name.
    pub containers: Vec<ContainerFacts>,
    pub pods: Vec<PodFacts>,
    pub networks: Vec<NetworkFacts>,
    pub secrets: Vec<SecretFacts>,
    pub units: Vec<UnitFacts>,
    pub configs: Vec<ConfigFacts>,
    pub findings: Vec<Finding>,
}

/// A volume as Podman tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFacts {
    pub name: String,
    pub driver: String,
    pub anonymous: bool,
    /// Containers (names) that mount it, and which of them run.
    pub used_by: Vec<String>,
    pub used_by_running: Vec<String>,
}

/// An image as containers/storage tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// 64 hex digits.
    pub id: String,
    /// Tags and names by digest, in Podman's order; an untagged image has none.
    pub names: Vec<String>,
    /// Bottom first. Layers whose DiffID the store does not know are left out.
    pub layers: Vec<DiffId>,
    /// It lies in a store that this Podman only reads: no part of the host's own.
    pub external: bool,
    /// Of its layers' tars, as far as the store tells.
    pub bytes: u64,
}

impl ImageFacts {
    /// The lowest of its names, or else its ID: what it is called does not depend on the order
    /// in which it was tagged.
    pub fn item(&self) -> Item {
        let name = self.names.iter().min().unwrap_or(&self.id);
        Item::new(ItemKind::Image, name.as_bytes())
    }

    /// What it is called when another image has its name.
    pub fn by_id(&self) -> Item {
        Item::new(ItemKind::Image, self.id.as_bytes())
    }

    /// Its other names and its ID, ascending.
    pub fn aliases(&self) -> Vec<String> {
        let item = self.item().name;
        let mut aliases = self.names.clone();
        aliases.push(self.id.clone());
        aliases.retain(|name| name.as_bytes() != item);
        aliases.sort();
        aliases.dedup();
        aliases
    }
}

/// An artifact of Podman's store of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactFacts {
    /// `None`: it has no name.
    pub name: Option<String>,
    /// Of its manifest: 64 hex digits.
    pub digest: String,
}

impl ArtifactFacts {
    /// Its name, or else its digest.
    pub fn item(&self) -> Item {
        match &self.name {
            Some(name) => Item::new(ItemKind::Artifact, name.as_bytes()),
            None => Item::new(ItemKind::Artifact, format!("sha256:{}", self.digest)),
        }
    }
}

/// What to read, and how.
#[derive(Clone)]
pub struct ScanRequest {
    pub item: Item,
    pub chunking: Arc<Chunking>,
    /// Reader threads, at least 1. Never changes the root id.
    pub threads: usize,
    /// Globs over paths below the item's root.
    pub exclude: Vec<String>,
    /// Leave out the content of directories with a valid CACHEDIR.TAG.
    pub exclude_caches: bool,
    pub cross_mounts: bool,
    /// Directory of the file states; `None` reads everything and records nothing.
    pub states: Option<PathBuf>,
    /// Layers of an image that are named and not read.
    pub known_layers: Vec<KnownLayer>,
    /// File states may be reused if they were recorded for exactly this snapshot of the item.
    pub trusted: Option<SnapshotId>,
    /// What this run, or those before it, learnt of large files; used together with file states.
    pub known: Option<Arc<KnownContents>>,
}

/// What an item is besides its files, and its files.
pub struct OpenItem {
    /// The definition (opaque bytes, JSON from Podman), if the item has one.
    pub definition: Option<Vec<u8>>,
    /// `None`: the item has no content that can be read now; a finding says why.
    pub tree: Option<Box<dyn TreeScan>>,
    pub findings: Vec<Finding>,
}

/// The side of a host that is read.
pub trait Source: Send + Sync {
    fn inventory(&self) -> Result<Inventory, HostError>;

    /// Starts to read an item; holds its lock until the scan is dropped.
    fn open(&self, request: &ScanRequest) -> Result<OpenItem, HostError>;

    /// Puts containers at rest. `Err`: nothing of what they use is to be saved, because a command
    /// failed that one of them asks for.
    fn freeze(&self, request: &FreezeRequest) -> Result<Freezing, HostError> {
        Ok(Freezing {
            guard: None,
            findings: vec![Finding {
                object: request.containers.join(", "),
                kind: FindingKind::Consistency,
                snapshots: Vec::new(),
                paths: Vec::new(),
                message: "this source has no containers that it could freeze".into(),
            }],
        })
    }

    /// Sets going again what a run that was cut off left at rest, and tells of it.
    fn thaw_leftovers(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// The item's snapshot is published: the states that its scan recorded may be trusted by a
    /// later scan that names this snapshot.
    fn published(&self, request: &ScanRequest, snapshot: SnapshotId) -> Result<(), HostError>;
}

/// Where a tree goes.
#[derive(Clone, Debug)]
pub enum Place {
    /// The item's own place: the volume of that name (made from `definition` when absent), the
    /// path itself.
    Item {
        item: Item,
        definition: Option<Vec<u8>>,
    },
    /// A directory, made when absent; it takes the root's own attributes.
    Directory(PathBuf),
}

#[derive(Clone)]
pub struct WriteRequest {
    pub place: Place,
    pub existing: Existing,
    /// With [`Existing::Change`]: what Podman said of the place when it was changed before, by the same
    /// host, still holds. It is not asked again.
    pub is_known: bool,
    pub chunking: Arc<Chunking>,
    pub threads: usize,
    /// A name that belongs to another image here moves to the restored one.
    pub retag: bool,
    /// Volumes are made without limits that the file system here cannot keep.
    pub ignore_quota: bool,
    /// SELinux labels are those that were saved, not those of the place.
    pub keep_labels: bool,
    /// Names what is restored: a staged tree is gone on with only if it was staged for the same.
    pub root: podkeep_format::id::TreeId,
    /// The tree is one file of this name, which goes into the place's directory (for a `path:`
    /// item: its parent); nothing else there is touched.
    pub file_name: Option<Vec<u8>>,
    /// Bytes that the tree takes, holes not counted; `None`: not known.
    pub bytes_expected: Option<u64>,
    /// Of the user namespace whose ids the tree holds.
    pub owners: Arc<Owners>,
    /// What containers that use it see of them is kept, not what Podman's namespace does.
    pub view: Option<Arc<OwnersView>>,
    /// User and group, as the target's namespace counts, for ids that have no place there.
    pub squash: Option<(u32, u32)>,
}

/// What a restore would do, known before anything is changed.
#[derive(Clone, Debug, Default)]
pub struct PlacePlan {
    /// One line for people: "create volume web", "replace the content of volume web".
    pub actions: Vec<String>,
    /// Each ends with the flag that resolves it. Not empty: the restore would be refused.
    pub conflicts: Vec<String>,
    /// Containers that run and use the place: in the way, unless they are
    /// [stopped](Target::stop_users) before.
    pub used_by_running: Vec<String>,
    /// Paths below the item's root that the target has already and does not want.
    pub present: Vec<Vec<u8>>,
    /// Where the tree goes, if it can be told what fits there.
    pub room: Option<Room>,
    /// Which owners the target can give to entries of the tree; `None`: it has no owners.
    pub owners: Option<Arc<Owners>>,
}

/// The side of a host that is written.
pub trait Target: Send + Sync {
    fn inventory(&self) -> Result<Inventory, HostError>;

    /// Changes nothing.
    fn plan(&self, request: &WriteRequest) -> Result<PlacePlan, HostError>;

    /// Prepares the place and its staging; refuses what [`plan`](Self::plan) calls a conflict.
    fn open(&self, request: &WriteRequest) -> Result<Box<dyn TreeWriter>, HostError>;

    /// Stops containers (names) until the guard is thawed or dropped. `Err`: none of them is stopped.
    fn stop_users(&self, containers: &[String]) -> Result<Box<dyn Freeze>, HostError> {
        Err(HostError::Refused {
            object: containers.join(", "),
            cause: "this target has no containers that it could stop".into(),
            hint: String::new(),
        })
    }

    /// Looks at all definitions of a restore at once; changes nothing until something is made.
    fn replay(
        &self,
        _request: replay::ReplayRequest,
    ) -> Result<(replay::ReplayPlan, Box<dyn replay::Replay>), HostError> {
        Err(HostError::Refused {
            object: "containers and what belongs to them".into(),
            cause: "this target takes files only".into(),
            hint: "restore files with --to-dir DIR".into(),
        })
    }
}

/// Brings images to registries, with the credentials and settings of a host's Podman.
pub trait Pusher: Send + Sync {
    /// A folder that nobody else may enter, for the layouts of images on their way.
    fn staging(&self) -> Result<PathBuf, HostError>;

    /// Pushes the image of an OCI layout in the staging folder; `id` is its ID, 64 hex digits.
    /// Returns the digest that it has in the registry, "sha256:...".
    fn push(&self, layout: &Path, id: &str, reference: &str) -> Result<String, HostError>;
}

/// What to look at of a host's store of images.
#[derive(Clone, Debug, Default)]
pub struct ExamineRequest {
    /// Reader threads, at least 1.
    pub threads: usize,
    /// Only layers with these DiffIDs, and what the lists lack of any image's layers; `None`: all
    /// that images need.
    pub only: Option<BTreeSet<DiffId>>,
}

/// A layer of a host's store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerName {
    /// 64 hex digits.
    pub id: String,
    /// `None`: the store has no record of it.
    pub diff_id: Option<DiffId>,
}

/// Something of a host's store of images that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// "layer ID" or "image ID".
    pub object: String,
    pub layer: Option<LayerName>,
    /// The images that it hits.
    pub images: Vec<Item>,
    /// The first file that is not right, below the layer's root.
    pub path: Option<Vec<u8>>,
    /// In words.
    pub cause: String,
    pub remedy: Remedy,
}

/// A step of an examination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// Comes first. What there is to look at; bytes of layers as the store knows them.
    Plan {
        images: u64,
        layers: u64,
        bytes: u64,
    },
    /// So many bytes of layers were read.
    Read(u64),
    /// A layer is done.
    Layer,
    Fault(StoreFault),
}

/// An examination under way; dropping it ends it.
pub trait Examination: Send {
    /// `None`: all was looked at.
    fn next(&mut self) -> Result<Option<Examined>, HostError>;
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerRepaired {
    /// Entries that were put back, and files of Podman's own that were made anew.
    pub files: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// What is left to be told, in words.
    pub left: Vec<String>,
}

/// A layer that is put right where it is. Dropped before its end, it changed nothing.
pub trait LayerRepair: Send {
    /// The next bytes of the layer's tar.
    fn write(&mut self, bytes: &[u8]) -> Result<(), HostError>;

    /// All of the tar came. Nothing is changed unless it hashes to the layer's DiffID; afterwards
    /// the layer is read again, and an error says what is still wrong with it.
    fn finish(self: Box<Self>) -> Result<LayerRepaired, HostError>;
}

/// A host's store of images: looked over, and put right.
pub trait StoreCare: Send + Sync {
    /// Changes nothing.
    fn examine(&self, request: &ExamineRequest) -> Result<Box<dyn Examination>, HostError>;

    /// Removes what repairs that were cut off left in the store; those under way keep theirs.
    fn clear_repairs(&self) -> Result<(), HostError>;

    /// Begins to repair a layer. Refuses one that is in use, naming who uses it.
    fn repair(&self, layer: &LayerName) -> Result<Box<dyn LayerRepair>, HostError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Findings name their object in front of the message: "container:x: container:x: ..." was shown.
    #[test]
    fn a_refusal_names_its_object_once_and_says_what_resolves_it() {
        let refused = |object: &str, hint: &str| HostError::Refused {
            object: object.into(),
            cause: "it is in use".into(),
            hint: hint.into(),
        };
        let about = |error: HostError| error.about("container:x");
        assert_eq!(about(refused("container:x", "")), "it is in use");
        assert_eq!(
            about(refused("container:x", "stop it")),
            "it is in use (stop it)"
        );
        assert_eq!(
            about(refused("volume:v", "stop it")),
            "volume:v: it is in use (stop it)"
        );
        let failed = HostError::Podman {
            action: "create",
            object: "container x".into(),
            cause: "no".into(),
        };
        assert_eq!(about(failed), "cannot create container x: no");
    }
}
