//! The host that this process runs on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use podkeep_format::id::SnapshotId;
use podkeep_format::item::{Item, ItemKind};

use super::artifact::Artifacts;
use super::definitions::{Definitions, Readable};
use super::freeze::{self, FreezeRequest, Freezing};
use super::image::Images;
use super::lock::ItemLock;
use super::reading::ItemScan;
use super::replay::{LocalReplay, Replay, ReplayPlan, ReplayRequest, write_layer};
use super::user::{OtherUser, UserFolders};
use super::volume::{Volumes, not_here};
use super::{
    Existing, Freeze, HostError, Inventory, OpenItem, Place, PlacePlan, Pusher, ScanRequest,
    Source, Target, WriteRequest,
};
use crate::fs::owners::{IdMap, Owners, OwnersWriter, Placement};
use crate::fs::scan::{ScanRoot, ScanSpec, scan};
use crate::fs::states::published;
use crate::fs::write::{self, Destination, Labels, RootKind, Swap, WriteSpec};
use crate::fs::{
    ChunkBytes, FsError, FsErrorKind, PresentQuery, ScanBatch, ScanOutcome, TreeScan, TreeWriter,
    WriteBatch, WriteOutcome,
};
use crate::monitor::{Finding, FindingKind};
use crate::podman::{Account, Inside, Podman, StoreInfo, UserSession};

/// This host, reached in-process.
pub struct LocalHost {
    /// Locks lie below it; made on first use.
    state: PathBuf,
    /// Where units and configuration of the host are looked for.
    root: PathBuf,
    /// `None`: the host has no Podman.
    podman: Option<LocalPodman>,
    /// Another user than the caller, whose host this is.
    user: Option<OtherUser>,
    /// Known once somebody asked.
    owners: OnceLock<Arc<Owners>>,
}

struct LocalPodman {
    podman: Podman,
    info: OnceLock<StoreInfo>,
    volumes: Volumes,
    images: Images,
    definitions: Definitions,
    artifacts: Artifacts,
}

impl LocalPodman {
    /// `root`: below which units and configuration are; `user`: the only one in whose folders volumes
    /// may be.
    fn new(podman: Podman, state: &Path, root: &Path, user: Option<UserFolders>) -> Self {
        Self {
            volumes: Volumes::new(podman.clone(), state.to_path_buf(), user),
            images: Images::new(podman.clone(), state.to_path_buf()),
            definitions: Definitions::new(podman.clone(), root.to_path_buf()),
            artifacts: Artifacts::new(state),
            info: OnceLock::new(),
            podman,
        }
    }

    /// Whether configuration and database agree on the driver: nothing may come to lie in a second
    /// store beside the first.
    fn require_one_driver(&self) -> Result<(), HostError> {
        let info = self.info()?;
        match &info.disagreement {
            None => Ok(()),
            Some(cause) => Err(HostError::Refused {
                object: "Podman's store".into(),
                cause: cause.clone(),
                hint: "make storage.conf say what the store is".into(),
            }),
        }
    }

    /// Asked for once: a run restores many items.
    fn info(&self) -> Result<&StoreInfo, HostError> {
        if let Some(info) = self.info.get() {
            return Ok(info);
        }
        let info = self.podman.info()?;
        Ok(self.info.get_or_init(|| info))
    }

    /// Below which Podman's stores lie.
    fn graph_root(&self) -> Result<PathBuf, HostError> {
        let places = self.info()?.places.as_ref();
        let places = places.ok_or_else(|| HostError::Podman {
            action: "use",
            object: "Podman's store".into(),
            cause: "its driver is not one that podkeep knows".into(),
        })?;
        Ok(places.graph_root.clone())
    }

    fn inventory(&self) -> Result<Inventory, HostError> {
        let info = self.info()?.clone();
        let mut inventory = Inventory {
            volumes: self.volumes.inventory()?,
            ..Inventory::default()
        };
        match &info.places {
            // Volumes can be saved all the same.
            Some(places) => match self.images.inventory(places) {
                Ok((images, findings)) => {
                    inventory.images = images;
                    inventory.image_findings = findings;
                }
                Err(error) => inventory
                    .image_findings
                    .push(images_finding(error.to_string())),
            },
            None => inventory.image_findings.push(images_finding(format!(
                "they lie in a store of driver {}, which podkeep does not know",
                info.driver
            ))),
        }
        if let Some(places) = &info.places {
            match self.artifacts.inventory(&places.graph_root) {
                Ok(artifacts) => inventory.artifacts = artifacts,
                Err(error) => inventory.image_findings.push(Finding {
                    object: "artifacts".into(),
                    ..images_finding(error.to_string())
                }),
            }
        }
        self.definitions.inventory(&info, &mut inventory);
        if self.podman.is_rootless() {
            inventory.home = self.podman.home();
            inventory.runtime = self.podman.runtime_folder();
        }
        inventory.driver = Some(info.driver);
        inventory.podman_version = Some(info.version);
        Ok(inventory)
    }
}

impl LocalHost {
    /// The host without its Podman.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            root: "/".into(),
            podman: None,
            user: None,
            owners: OnceLock::new(),
        }
    }

    /// The rootless Podman of `account`, for root: podman runs as that user, files are read and
    /// written by root.
    pub fn of_user(
        state: impl Into<PathBuf>,
        account: Account,
        environment: &[(OsString, OsString)],
    ) -> Result<Self, HostError> {
        let session = UserSession::start(&account)?;
        let mut host = Self::new(state);
        if let Some(podman) = Podman::of_user(&account, environment)? {
            host.podman = Some(LocalPodman::new(
                podman,
                &host.state,
                &host.root,
                Some(UserFolders::of(&account)),
            ));
        }
        host.user = Some(OtherUser::new(account, session));
        Ok(host)
    }

    /// Looks for units and configuration below `root`, an absolute path without links, instead of in
    /// the whole of the file system. Comes before the Podman that they belong to.
    pub fn rooted_at(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = root.into();
        self
    }

    /// With the caller's own Podman, if there is one in the `PATH` of `environment`. Podman gets
    /// what it needs of `environment`, and nothing else.
    pub fn with_podman(self, environment: &[(OsString, OsString)]) -> Self {
        self.with(Podman::find(environment))
    }

    /// The same for a caller who came over a link and leaves with it.
    pub fn with_podman_of_a_visitor(self, environment: &[(OsString, OsString)]) -> Self {
        self.with(Podman::find(environment).map(Podman::of_a_visitor))
    }

    fn with(mut self, podman: Option<Podman>) -> Self {
        self.podman = podman.map(|podman| LocalPodman::new(podman, &self.state, &self.root, None));
        self
    }

    /// This process is in the user namespace of its caller's rootless Podman.
    pub fn inside(self, inside: &Inside) -> Result<Self, HostError> {
        let map = |text: &str| {
            IdMap::parse(text).map_err(|error| HostError::Podman {
                action: "read",
                object: "the id maps of Podman's user namespace".into(),
                cause: error.to_string(),
            })
        };
        let owners = Owners {
            uids: map(&inside.uid_map)?,
            gids: map(&inside.gid_map)?,
            inside: true,
            any_host_id: false,
        };
        let _ = self.owners.set(Arc::new(owners));
        Ok(self)
    }

    /// The user namespace whose ids the trees of this host hold.
    fn owners(&self) -> Result<Arc<Owners>, HostError> {
        if let Some(owners) = self.owners.get() {
            return Ok(Arc::clone(owners));
        }
        let owners = match &self.user {
            Some(user) => {
                let object = format!("the files of user {}", user.account.name);
                self.podman_for(&object)?.podman.owners()?
            }
            None => Owners {
                any_host_id: rustix::process::geteuid().is_root(),
                ..Owners::default()
            },
        };
        Ok(Arc::clone(self.owners.get_or_init(|| Arc::new(owners))))
    }

    /// Why nothing can be made at a path, in words, if it is so.
    fn closed_to_us(&self, path: &Path) -> Option<String> {
        let there = path.ancestors().skip(1).find(|folder| folder.exists())?;
        let why = match &self.user {
            Some(user) => user.folder(there).err()?.to_string(),
            None => {
                let access = rustix::fs::access(there, rustix::fs::Access::WRITE_OK);
                format!("{}: {}", there.display(), access.err()?)
            }
        };
        let shown = podkeep_format::item::Escaped(path.as_os_str().as_bytes());
        Some(format!(
            "{shown} cannot be made ({why}): leave it out, or --to-dir DIR"
        ))
    }

    /// Where the owners of a tree go.
    fn placement(&self, request: &WriteRequest) -> Result<Placement, HostError> {
        let source = Arc::clone(&request.owners);
        let placement = Placement::new(source, self.owners()?, request.squash);
        let placement = placement.map_err(|(kind, id)| HostError::Refused {
            object: format!("{} {id}", kind.word()),
            cause: "it has no place on this host itself".into(),
            hint: "--squash-unmapped=UID[:GID] with ids that this host has".into(),
        })?;
        Ok(placement.seen_by(request.view.as_ref()))
    }

    /// Where file states of this host lie: what they hold are ids under its maps.
    fn states(&self, request: &ScanRequest) -> Option<PathBuf> {
        let folder = request.states.as_ref()?;
        let owners = self.owners().ok()?;
        if owners.is_identity() {
            return Some(folder.clone());
        }
        let maps = format!(
            "{:?} {:?}",
            owners.uids.to_snapshot(),
            owners.gids.to_snapshot()
        );
        Some(folder.join(&blake3::hash(maps.as_bytes()).to_hex()[..16]))
    }

    pub(super) fn lock(&self, item: &Item) -> Result<ItemLock, HostError> {
        ItemLock::take(&self.state, item)
    }

    fn podman(&self, item: &Item) -> Result<&LocalPodman, HostError> {
        self.podman_for(item)
    }

    /// `object`: what it is needed for.
    fn podman_for(&self, object: &dyn std::fmt::Display) -> Result<&LocalPodman, HostError> {
        self.podman.as_ref().ok_or_else(|| HostError::Podman {
            action: "find",
            object: object.to_string(),
            cause: "this host has no podman".into(),
        })
    }

    /// What is made in a store must be its user's.
    pub(super) fn require_own_store(&self) -> Result<(), HostError> {
        match &self.user {
            None => Ok(()),
            Some(user) => Err(HostError::Refused {
                object: format!("Podman's store of user {}", user.account.name),
                cause: "only its user writes artifacts there, and repairs layers".into(),
                hint: format!("run podkeep as {} without --host", user.account.name),
            }),
        }
    }

    pub(super) fn podman_of(&self, object: &dyn std::fmt::Display) -> Result<&Podman, HostError> {
        Ok(&self.podman_for(object)?.podman)
    }

    pub(super) fn store_info(&self) -> Result<&StoreInfo, HostError> {
        self.podman_for(&"containers")?.info()
    }

    pub(super) fn read_volume(&self, item: &Item) -> Result<super::volume::Readable, HostError> {
        self.podman(item)?.volumes.read(item)
    }

    pub(super) fn images(&self) -> Result<&Images, HostError> {
        Ok(&self.podman_for(&"images")?.images)
    }
}

impl Pusher for LocalHost {
    fn staging(&self) -> Result<PathBuf, HostError> {
        self.images()?.staging_folder()
    }

    fn push(&self, layout: &Path, id: &str, reference: &str) -> Result<String, HostError> {
        self.images()?.push(layout, id, reference)
    }
}

/// Why images are not in the inventory.
fn images_finding(message: String) -> Finding {
    Finding {
        object: "images".into(),
        kind: FindingKind::Unreadable,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message,
    }
}

/// Holds the lock of its item.
pub(super) struct LockedScan {
    pub tree: Box<dyn TreeScan>,
    pub _lock: ItemLock,
}

impl TreeScan for LockedScan {
    fn next(&mut self) -> Result<Option<ScanBatch>, FsError> {
        self.tree.next()
    }

    fn fetch(&mut self, wanted: &[u32]) -> Result<ChunkBytes, FsError> {
        self.tree.fetch(wanted)
    }

    fn finish(self: Box<Self>) -> Result<ScanOutcome, FsError> {
        self.tree.finish()
    }
}

struct LockedWriter {
    tree: Box<dyn TreeWriter>,
    _lock: Option<ItemLock>,
}

impl TreeWriter for LockedWriter {
    fn may_hold(&self) -> bool {
        self.tree.may_hold()
    }

    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        self.tree.present(queries)
    }

    fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        self.tree.apply(batch)
    }

    fn finish(self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        self.tree.finish()
    }

    fn discard(self: Box<Self>) -> Result<(), FsError> {
        self.tree.discard()
    }
}

impl Source for LocalHost {
    fn inventory(&self) -> Result<Inventory, HostError> {
        let mut inventory = match &self.podman {
            Some(podman) => podman.inventory()?,
            None => Inventory::default(),
        };
        inventory.owners = self.owners()?;
        Ok(inventory)
    }

    fn open(&self, request: &ScanRequest) -> Result<OpenItem, HostError> {
        let item = &request.item;
        let lock = self.lock(item)?;
        let owners = self.owners()?;
        let (root, definition, findings) = match item.kind {
            ItemKind::Path => (Some(ScanRoot::Path(item.name.clone())), None, Vec::new()),
            ItemKind::Volume => {
                let read = self.podman(item)?.volumes.read(item)?;
                let root = read.data.map(ScanRoot::Directory);
                (root, Some(read.definition), read.findings)
            }
            ItemKind::Image => {
                let mut opened = self.podman(item)?.images.read(request)?;
                opened.tree = opened.tree.map(|tree| -> Box<dyn TreeScan> {
                    Box::new(LockedScan { tree, _lock: lock })
                });
                return Ok(opened);
            }
            ItemKind::Artifact => {
                let podman = self.podman(item)?;
                let mut opened = podman.artifacts.read(request, &podman.graph_root()?)?;
                opened.tree = opened.tree.map(|tree| -> Box<dyn TreeScan> {
                    Box::new(LockedScan { tree, _lock: lock })
                });
                return Ok(opened);
            }
            _ => {
                let podman = self.podman(item)?;
                let read = podman.definitions.read(item, podman.info()?)?;
                return open_definition(request, read, owners, lock);
            }
        };
        let tree: Option<Box<dyn TreeScan>> = match root {
            Some(root) => Some(Box::new(ItemScan::begin(
                request,
                root,
                self.states(request),
                Arc::clone(&owners),
                lock,
            )?)),
            None => None,
        };
        Ok(OpenItem {
            definition,
            tree,
            findings,
        })
    }

    fn freeze(&self, request: &FreezeRequest) -> Result<Freezing, HostError> {
        let podman = self.podman_for(&"containers")?;
        let volumes = podman.info().ok().map(|info| info.volume_path.as_path());
        freeze::freeze(&podman.podman, &self.state, volumes, request)
    }

    fn thaw_leftovers(&self) -> Vec<Finding> {
        let podman = self.podman.as_ref();
        podman.map_or_else(Vec::new, |podman| {
            freeze::thaw_leftovers(&podman.podman, &self.state)
        })
    }

    fn published(&self, request: &ScanRequest, snapshot: SnapshotId) -> Result<(), HostError> {
        if let Some(states) = self.states(request) {
            published(&states, &request.item.to_string(), snapshot)?;
        }
        if let Some(known) = &request.known {
            known.published(&request.item.to_string(), snapshot);
        }
        Ok(())
    }
}

/// An item with a definition, and with files that are read by rules of their own.
fn open_definition(
    request: &ScanRequest,
    read: Readable,
    owners: Arc<Owners>,
    lock: ItemLock,
) -> Result<OpenItem, HostError> {
    let tree: Option<Box<dyn TreeScan>> = match read.files {
        Some(files) => {
            let tree = scan(ScanSpec {
                root: ScanRoot::Directory(files.root),
                item: request.item.to_string(),
                chunking: request.chunking.clone(),
                threads: request.threads,
                exclude: files.exclude,
                exclude_caches: false,
                cross_mounts: files.cross_mounts,
                // Few files, or those of a layer that overlayfs changes behind our back.
                states: None,
                owners,
                view: files.view,
                begun: Arc::default(),
                known: None,
            })?;
            Some(Box::new(LockedScan { tree, _lock: lock }))
        }
        None => None,
    };
    Ok(OpenItem {
        definition: Some(read.definition),
        tree,
        findings: read.findings,
    })
}

/// Where a request goes: the directory that holds the final name, and that name.
fn destination(request: &WriteRequest) -> Result<Destination, HostError> {
    let path = match &request.place {
        Place::Directory(path) => match &request.file_name {
            // A single file goes into the directory under its own name.
            Some(name) => path.join(std::ffi::OsStr::from_bytes(name)),
            None => path.clone(),
        },
        Place::Item { item, .. } if item.kind == ItemKind::Path => {
            PathBuf::from(std::ffi::OsStr::from_bytes(&item.name))
        }
        Place::Item { item, .. } => return Err(not_here(item)),
    };
    // `DIR/..` and `.` have no name of their own until they are resolved.
    let path = match path.file_name() {
        Some(_) => path,
        None => std::fs::canonicalize(&path).map_err(|error| {
            let path = path.as_os_str().as_bytes();
            FsError::new("find", path, FsErrorKind::NotFound, error)
        })?,
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(HostError::Refused {
            object: path.display().to_string(),
            cause: "the root of the file system cannot be swapped".into(),
            hint: "restore with --to-dir DIR".into(),
        });
    };
    let parent = match parent.as_os_str().as_bytes() {
        b"" => b".".to_vec(),
        parent => parent.to_vec(),
    };
    Ok(Destination {
        parent,
        name: name.as_bytes().to_vec(),
    })
}

fn with_owners(tree: Box<dyn TreeWriter>, placement: Placement) -> Box<dyn TreeWriter> {
    match placement.changes_nothing() {
        true => tree,
        false => Box::new(OwnersWriter { tree, placement }),
    }
}

/// What is at the place now, in words, if it must not be touched without a flag.
fn in_the_way(request: &WriteRequest, path: &Path) -> Option<String> {
    if request.existing != Existing::Refuse {
        return None;
    }
    let shown = podkeep_format::item::Escaped(path.as_os_str().as_bytes());
    match std::fs::symlink_metadata(path) {
        Err(_) => None,
        Ok(facts) if facts.is_dir() && request.file_name.is_none() => {
            let filled = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
            filled.then(|| format!("{shown} is not empty: --merge or --replace"))
        }
        Ok(_) => Some(format!("{shown} exists: --merge or --replace")),
    }
}

fn full_path(destination: &Destination) -> PathBuf {
    let parent = PathBuf::from(std::ffi::OsStr::from_bytes(&destination.parent));
    parent.join(std::ffi::OsStr::from_bytes(&destination.name))
}

impl Target for LocalHost {
    fn replay(&self, request: ReplayRequest) -> Result<(ReplayPlan, Box<dyn Replay>), HostError> {
        let podman = self.podman_for(&"containers")?;
        podman.require_one_driver()?;
        let info = podman.info()?.clone();
        let owners = self.owners()?;
        let planned = LocalReplay::plan(&podman.podman, info, &self.state, owners, request)?;
        let (replay, plan) = planned;
        Ok((plan, Box::new(replay)))
    }

    fn inventory(&self) -> Result<Inventory, HostError> {
        Source::inventory(self)
    }

    fn plan(&self, request: &WriteRequest) -> Result<PlacePlan, HostError> {
        if let Place::Item { item, definition } = &request.place
            && item.kind != ItemKind::Path
        {
            let definition = definition.as_deref();
            let podman = self.podman(item)?;
            podman.require_one_driver()?;
            return match item.kind {
                ItemKind::Volume => {
                    let mut plan = podman.volumes.plan(request, item, definition)?;
                    plan.owners = Some(self.owners()?);
                    Ok(plan)
                }
                ItemKind::Image => podman.images.plan(request, item, definition),
                ItemKind::Artifact => {
                    let graph_root = podman.graph_root()?;
                    podman
                        .artifacts
                        .plan(request, item, definition, &graph_root)
                }
                _ => Err(not_here(item)),
            };
        }
        let destination = destination(request)?;
        let path = full_path(&destination);
        let shown = podkeep_format::item::Escaped(path.as_os_str().as_bytes());
        let there = std::fs::symlink_metadata(&path).is_ok();
        let action = match (there, request.existing) {
            (false, _) => format!("create {shown}"),
            (true, Existing::Merge) => format!("merge into {shown}"),
            (true, Existing::Change) => format!("change {shown}"),
            (true, _) => format!("replace the content of {shown}"),
        };
        let mut conflicts: Vec<String> = in_the_way(request, &path).into_iter().collect();
        // What is there may be filled also where nothing can be made beside it.
        if let Place::Item { .. } = &request.place
            && !there
        {
            conflicts.extend(self.closed_to_us(&path));
        }
        Ok(PlacePlan {
            actions: vec![action],
            conflicts,
            used_by_running: Vec::new(),
            present: Vec::new(),
            room: write::room(&destination, request.existing),
            owners: Some(self.owners()?),
        })
    }

    fn stop_users(&self, containers: &[String]) -> Result<Box<dyn Freeze>, HostError> {
        let podman = self.podman_for(&"containers")?;
        freeze::stop_for_writing(&podman.podman, &self.state, containers)
    }

    fn open(&self, request: &WriteRequest) -> Result<Box<dyn TreeWriter>, HostError> {
        let lock = match &request.place {
            Place::Item { item, definition } if item.kind == ItemKind::Volume => {
                let volumes = &self.podman(item)?.volumes;
                let placement = self.placement(request)?;
                let lock = self.lock(item)?;
                let tree = volumes.write(request, item, definition.as_deref(), lock)?;
                return Ok(with_owners(tree, placement));
            }
            Place::Item { item, definition } if item.kind == ItemKind::Image => {
                let images = &self.podman(item)?.images;
                let lock = self.lock(item)?;
                return images.write(request, item, definition.as_deref(), lock);
            }
            Place::Item { item, definition } if item.kind == ItemKind::Artifact => {
                let podman = self.podman(item)?;
                let graph_root = podman.graph_root()?;
                self.require_own_store()?;
                let (artifacts, lock) = (&podman.artifacts, self.lock(item)?);
                return artifacts.write(request, item, definition.as_deref(), &graph_root, lock);
            }
            Place::Item { item, .. } if item.kind == ItemKind::Container => {
                let podman = self.podman(item)?;
                let placement = self.placement(request)?;
                let (info, user) = (podman.info()?, self.user.as_ref());
                let tree = write_layer(&podman.podman, info, user, request, item)?;
                let _lock = Some(self.lock(item)?);
                let tree = Box::new(LockedWriter { tree, _lock });
                return Ok(with_owners(tree, placement));
            }
            Place::Item { item, .. } => Some(self.lock(item)?),
            Place::Directory(_) => None,
        };
        let placement = self.placement(request)?;
        let mut destination = destination(request)?;
        let parent = PathBuf::from(std::ffi::OsStr::from_bytes(&destination.parent));
        // Held until the writer has opened it.
        let mut theirs = None;
        match (&self.user, &request.place) {
            (Some(user), Place::Item { item, .. }) => {
                // Folders that are not there are made by the user, as are those on the way to them.
                let podman = &self.podman(item)?.podman;
                let made = podman.in_its_name(|| std::fs::create_dir_all(&parent));
                made.map_err(|error| {
                    FsError::new("make", &destination.parent, FsErrorKind::Other, error)
                })?;
                let folder = user.folder(&parent)?;
                destination.parent = folder.path().into_bytes();
                theirs = Some(folder);
            }
            _ => std::fs::create_dir_all(&parent).map_err(|error| {
                let kind = FsErrorKind::Other;
                FsError::new("make", &destination.parent, kind, error)
            })?,
        }
        let tree = write::open(WriteSpec {
            object: match &request.place {
                Place::Item { item, .. } => item.to_string(),
                Place::Directory(path) => path.display().to_string(),
            },
            destination,
            root_kind: match request.file_name {
                Some(_) => RootKind::Single,
                None => RootKind::Directory,
            },
            existing: request.existing,
            swap: Swap::Exchange,
            chunking: request.chunking.clone(),
            threads: request.threads,
            root: request.root,
            labels: Labels {
                root: None,
                keep: request.keep_labels,
            },
            bytes_expected: request.bytes_expected,
        })?;
        drop(theirs);
        Ok(with_owners(
            Box::new(LockedWriter { tree, _lock: lock }),
            placement,
        ))
    }
}
