//! One verb, one file: what the command line offers, as functions over a repository and a host.

pub mod backup;
pub mod check;
mod contents;
mod counting;
mod definition;
pub mod diff;
pub mod doctor;
pub mod dump;
pub mod export;
pub mod find;
mod image_files;
pub mod import;
pub mod init;
pub mod key;
pub mod ls;
pub mod migrate;
pub mod near;
mod patience;
mod pump;
mod reading;
pub mod restore;
pub mod select;
pub mod snapshots;
pub mod stats;
mod stored_image;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::definition::FieldChange;
use podkeep_format::id::{RunId, SnapshotId, TreeId};
use podkeep_format::item::Item;
use podkeep_format::snapshot::Consistency;
use podkeep_format::tree::{Entry, Time};

use crate::fs::scan::KnownContents;
use crate::host::replay::{Proof, ReplayOptions, Views};
use crate::host::{Existing, HostError};
use crate::monitor::FrozenFor;
use crate::store::StoreError;

/// Why an operation failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error(transparent)]
    Repository(#[from] crate::repo::RepoError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Host(#[from] HostError),
    /// A selector, snapshot or pattern that matches nothing; `near` holds similar names.
    #[error("{what} matches nothing")]
    NoMatch { what: String, near: Vec<String> },
    /// The request itself makes no sense (exit code 2).
    #[error("{message}")]
    Usage { message: String, hint: String },
    /// Refused, because it would hurt something; `hint` resolves it.
    #[error("{message}")]
    Refused { message: String, hint: String },
    /// Conflicts of a restore; each line ends with the flag that resolves it.
    #[error("{} of what is to be restored is in the way of what is there", conflicts.len())]
    Conflicts { conflicts: Vec<String> },
    /// What is to be restored does not fit on these file systems; nothing was changed.
    #[error("there is too little room")]
    NoRoom { needs: Vec<SpaceNeed> },
    /// The local side failed (output, cache, state folder).
    #[error("cannot {action} {object}: {cause}")]
    Local {
        action: &'static str,
        object: String,
        cause: String,
    },
    #[error("interrupted")]
    Interrupted,
}

pub type OperationResult<T> = Result<T, OperationError>;

/// A selector of items: kind and a glob over names (`path:` names are literal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub item: Item,
    /// Whether the name is a glob.
    pub glob: bool,
}

/// What a command works on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Everything of the host (or of the snapshot).
    pub all: bool,
    pub selectors: Vec<Selector>,
}

#[derive(Clone, Debug, Default)]
pub struct BackupOptions {
    pub selection: Selection,
    pub exclude: Vec<String>,
    pub exclude_items: Vec<Selector>,
    pub exclude_caches: bool,
    pub cross_mounts: bool,
    /// Only what is selected, not what it needs.
    pub only: bool,
    /// Save files and directories of the host that containers mount, too.
    pub include_binds: bool,
    /// And the files that they log into.
    pub include_logs: bool,
    pub tags: Vec<String>,
    pub dry_run: bool,
    /// Reader threads; 0: one for each core.
    pub threads: usize,
    /// Offset of local time from UTC, recorded with the times.
    pub zone_minutes: i16,
    /// Where file states lie; `None` reads everything anew.
    pub states: Option<PathBuf>,
    /// How long to wait for an item that another run works on.
    pub wait: Duration,
    /// What is done to running containers while what they write is read; `None`: they are paused.
    pub consistency: Option<Consistency>,
    /// For how long at most; `None`: [`MAX_FREEZE`].
    pub max_freeze: Option<Duration>,
    /// Places that the run itself uses: whoever serves them is never frozen.
    pub needs: Vec<PathBuf>,
    /// For runs that follow one another in one process: what they learn of large files.
    pub known: Option<Arc<KnownContents>>,
}

/// Containers are set going again when they were at rest for so long.
pub const MAX_FREEZE: Duration = Duration::from_secs(60);

/// As for a backup.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    pub tags: Vec<String>,
    pub dry_run: bool,
    pub threads: usize,
    pub zone_minutes: i16,
    pub wait: Duration,
}

/// One item of a finished backup.
#[derive(Clone, Debug)]
pub struct BackupItem {
    pub item: Item,
    /// `None`: dry run, or the item failed.
    pub snapshot: Option<SnapshotId>,
    pub root: Option<TreeId>,
    pub files: u64,
    pub bytes_logical: u64,
    pub bytes_read: u64,
    pub complete: bool,
    /// What was done to its containers while it was read, as its snapshot says.
    pub consistency: Consistency,
    /// For how long.
    pub frozen: Option<FrozenFor>,
    /// Why the item has no snapshot.
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct BackupReport {
    /// `None`: dry run, or nothing was stored.
    pub run: Option<RunId>,
    pub complete: bool,
    pub items: Vec<BackupItem>,
    pub files: u64,
    pub bytes_read: u64,
    pub bytes_logical: u64,
    /// Everything that the run made the repository grow by, metadata included.
    pub bytes_added: u64,
    pub chunks_new: u64,
    pub chunks_known: u64,
    /// Findings that are warnings.
    pub warnings: u64,
    pub seconds: f64,
}

/// A run as `snapshots` shows it.
#[derive(Clone, Debug)]
pub struct SnapshotRow {
    pub run: RunId,
    pub time: Time,
    pub zone_minutes: i16,
    pub host: String,
    pub scope_all: bool,
    pub complete: bool,
    pub tags: Vec<String>,
    pub bytes_logical: u64,
    pub bytes_added: u64,
    pub files: u64,
    pub items: Vec<Item>,
    /// The run record is missing: the run was cut off after these items.
    pub cut_off: bool,
}

/// Which snapshot: an id prefix, or `latest~N`, each of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapSpec {
    pub which: SnapWhich,
    pub host: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapWhich {
    /// 4 to 32 lower-case hex digits.
    Prefix(String),
    /// The newest, or the one this many before it.
    Latest(u64),
}

/// An item, or something below it: `volume:web:/data/x`, `path:/srv/data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemPath {
    pub selector: Selector,
    /// Raw path below the item's root, without slashes at its ends; empty for the root.
    pub path: Vec<u8>,
}

/// One row of `ls` and `find`.
#[derive(Clone, Debug)]
pub struct ListedEntry {
    pub item: Item,
    /// Below the item's root; empty for the root.
    pub path: Vec<u8>,
    pub entry: Entry,
    /// `find`: the snapshot that holds it.
    pub run: Option<RunId>,
}

/// One row of `ls` of the files of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEntry {
    pub item: Item,
    /// Below the image's root; empty for the root.
    pub path: Vec<u8>,
    /// 07777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub node: ImageNode,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageNode {
    File { size: u64 },
    Directory,
    Symlink { target: Vec<u8> },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
}

impl ImageNode {
    /// The word that listings and JSON use.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Directory => "directory",
            Self::Symlink { .. } => "symlink",
            Self::CharDevice { .. } => "char-device",
            Self::BlockDevice { .. } => "block-device",
            Self::Fifo => "fifo",
        }
    }
}

/// How two trees differ at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Removed,
    /// The content (or type, or link target) differs.
    Modified,
    /// Only attributes differ.
    Attributes,
    /// A field of the item's definition.
    Definition,
}

#[derive(Clone, Debug)]
pub struct DiffRow {
    pub item: Item,
    pub path: Vec<u8>,
    pub change: Change,
    pub before: Option<Entry>,
    pub after: Option<Entry>,
    /// Of a definition, whose path is the item's root.
    pub field: Option<FieldChange>,
}

/// A row of the manifest of a snapshot.
#[derive(Clone, Debug)]
pub struct ManifestRow {
    pub item: Item,
    pub snapshot: SnapshotId,
    pub complete: bool,
    pub files: u64,
    /// Bytes of the files' contents, and of the definition.
    pub bytes_logical: u64,
    pub bytes_definition: u64,
}

#[derive(Clone, Debug, Default)]
pub struct StatsReport {
    pub snapshots: u64,
    pub items: u64,
    pub packs: u64,
    pub packs_bytes: u64,
    pub segments: u64,
    pub segments_bytes: u64,
    pub snapshots_bytes: u64,
    /// Keys, config, leases and everything else that has no line of its own.
    pub other_bytes: u64,
    pub reserve_bytes: u64,
    pub chunks: u64,
    pub chunks_bytes: u64,
    pub bytes_logical: u64,
}

#[derive(Clone, Debug)]
pub struct RestoreOptions {
    pub snapshot: SnapSpec,
    pub all: bool,
    pub items: Vec<ItemPath>,
    /// Not what the items need.
    pub only: bool,
    pub to_dir: Option<PathBuf>,
    /// A new name for the one item that is restored.
    pub rename: Option<Vec<u8>>,
    pub existing: Existing,
    /// A name that belongs to another image of the host moves to the restored one.
    pub retag: bool,
    /// Limits on the size of volumes that the host cannot keep are left out.
    pub ignore_quota: bool,
    /// SELinux labels are those that were saved, not those of the place.
    pub keep_labels: bool,
    /// User and group for ids that have no place on the target, as its user namespace counts.
    pub squash: Option<(u32, u32)>,
    /// How owners in items are seen, where no definition that is restored along tells.
    pub views: Views,
    pub dry_run: bool,
    /// How definitions are fitted to the host.
    pub replay: ReplayOptions,
    /// What ran is started.
    pub start: bool,
    /// 0: one for each core.
    pub threads: usize,
    /// As for a backup.
    pub wait: Duration,
}

impl RestoreOptions {
    /// Of nothing yet; nothing that is there is touched.
    pub fn of(snapshot: SnapSpec) -> Self {
        Self {
            snapshot,
            all: false,
            items: Vec::new(),
            only: false,
            to_dir: None,
            rename: None,
            existing: Existing::Refuse,
            retag: false,
            ignore_quota: false,
            keep_labels: false,
            squash: None,
            views: Views::new(),
            dry_run: false,
            replay: ReplayOptions::default(),
            start: false,
            threads: 0,
            wait: Duration::ZERO,
        }
    }
}

/// Which layers of the host's store a restore repairs where they are.
#[derive(Clone, Debug)]
pub struct RepairLayersOptions {
    pub snapshot: SnapSpec,
    /// Images; none: all of the snapshot.
    pub items: Vec<ItemPath>,
    pub dry_run: bool,
    /// 0: one for each core.
    pub threads: usize,
    /// How long to wait for a layer that another run repairs.
    pub wait: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct RepairLayersReport {
    /// What was done, or with a dry run would be done, in words.
    pub actions: Vec<String>,
    /// Layers of the host that the snapshot holds, too: each was read.
    pub layers: u64,
    pub damaged: u64,
    pub repaired: u64,
    /// Entries that were put back.
    pub files: u64,
    pub bytes_written: u64,
    pub seconds: f64,
}

/// What a restore needs on one file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceNeed {
    /// A directory of it.
    pub place: PathBuf,
    /// At least: without directories, attributes and what ends of blocks waste.
    pub bytes: u64,
    pub bytes_free: u64,
}

impl SpaceNeed {
    pub fn fits(&self) -> bool {
        self.bytes <= self.bytes_free
    }

    /// As one line of what is in the way.
    pub fn conflict(&self) -> String {
        format!(
            "{} needs {} bytes, {} are free: make room there",
            self.place.display(),
            self.bytes,
            self.bytes_free
        )
    }
}

#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    /// What was done, or with a dry run would be done, in words.
    pub actions: Vec<String>,
    pub conflicts: Vec<String>,
    /// By file system, where that can be told beforehand.
    pub needs: Vec<SpaceNeed>,
    pub items: u64,
    pub files: u64,
    pub bytes_written: u64,
    /// What the blocks hold that were opened for it: more than was written where little of each was
    /// needed, or one was opened again.
    pub bytes_decoded: u64,
    pub warnings: u64,
    pub seconds: f64,
    /// The snapshot that was used says that it is incomplete.
    pub incomplete: bool,
    /// Of each definition that was made.
    pub proofs: Vec<Proof>,
}

/// What an item is exported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportForm {
    /// An image as an OCI layout with uncompressed layers.
    Oci,
    /// An image as `podman load` and `docker load` take it.
    DockerArchive,
    /// The files of a volume or path as a PAX tar.
    Tar,
}

#[derive(Clone, Debug)]
pub struct ExportOptions {
    pub snapshot: SnapSpec,
    pub item: ItemPath,
    pub form: ExportForm,
    /// Takes the place of a file, or of a layout, that is there.
    pub replace: bool,
}

#[derive(Clone, Debug)]
pub struct ExportReport {
    pub item: Item,
    /// Files, directories and links of a tar; parts of an image.
    pub files: u64,
    pub bytes_written: u64,
    /// That a pushed image has in the registry, "sha256:...".
    pub digest: Option<String>,
    pub seconds: f64,
    /// The snapshot that was used says that it is incomplete.
    pub incomplete: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read and decode this share of all packs.
    pub read_data_percent: Option<u8>,
    pub endorse: bool,
    pub threads: usize,
}

#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    pub snapshots: u64,
    pub packs: u64,
    pub packs_read: u64,
    pub chunks: u64,
    /// Damage that remains; each was a finding.
    pub damaged: u64,
    pub healed: u64,
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct DoctorOptions {
    /// Reader threads; 0: one for each core.
    pub threads: usize,
}

#[derive(Clone, Debug, Default)]
pub struct DoctorReport {
    pub images: u64,
    pub layers: u64,
    /// Each was a finding.
    pub damaged: u64,
    pub seconds: f64,
}
