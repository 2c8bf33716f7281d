//! Volumes of the host that this process runs on: read where their content is, made, primed and
//! filled where they go.
//!
//! Nothing is written into a volume that a container has mounted: a container would keep the old
//! `_data` after the swap, and see a merge halfway. This is looked at when a restore is planned,
//! when it begins and again before the swap.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use podkeep_format::item::Item;
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::lock::{ItemLock, make_private};
use super::user::{UserFolder, UserFolders};
use super::{Existing, HostError, PlacePlan, Room, VolumeFacts, WriteRequest};
use crate::fs::mounts::Mounts;
use crate::fs::write::{self, Destination, Labels, RootKind, Swap, WriteSpec};
use crate::fs::{FsError, FsErrorKind, PresentQuery, TreeWriter, WriteBatch, WriteOutcome};
use crate::monitor::{Finding, FindingKind};
use crate::podman::replay::Version;
use crate::podman::{
    Podman, PodmanError, Primer, StoreInfo, Users, Volume, VolumeContent, VolumeDefinition,
    inspect_volume, list_volumes, remove_seed, users_of_volumes,
};

const BTRFS_MAGIC: rustix::fs::FsWord = 0x9123_683e;
/// The root of every btrfs subvolume.
const SUBVOLUME_INODE: u64 = 256;
const LABEL_BYTES_MAX: usize = 4096;

impl From<PodmanError> for HostError {
    fn from(error: PodmanError) -> Self {
        Self::Podman {
            action: error.action,
            object: error.object,
            cause: error.cause,
        }
    }
}

/// The volumes of one Podman.
pub(super) struct Volumes {
    podman: Podman,
    /// Exists once something is locked in it.
    state: PathBuf,
    /// As the last inventory found them: one run reads many.
    known: Mutex<HashMap<String, Volume>>,
    /// The only folders in which they may be.
    user: Option<UserFolders>,
    /// Those that were changed: making them took a look at each.
    changed: Mutex<HashMap<String, Volume>>,
    /// What Podman says of its store, once somebody asked; `None`: it does not say.
    info: OnceLock<Option<StoreInfo>>,
}

/// What a volume is read from.
pub(super) struct Readable {
    pub definition: Vec<u8>,
    /// `None`: its content cannot be read now, and a finding says why.
    pub data: Option<OwnedFd>,
    pub findings: Vec<Finding>,
}

/// Something that forbids a restore.
struct Conflict {
    cause: String,
    /// The flag or command that resolves it.
    hint: String,
}

/// What a restore would meet.
struct Judged {
    there: Option<Volume>,
    definition: VolumeDefinition,
    actions: Vec<String>,
    conflicts: Vec<Conflict>,
    /// Containers that run and use it.
    running: Vec<String>,
    /// The limit on its size that it cannot have here.
    lost: Option<String>,
}

impl Volumes {
    pub fn new(podman: Podman, state: PathBuf, user: Option<UserFolders>) -> Self {
        Self {
            podman,
            state,
            known: Mutex::default(),
            changed: Mutex::default(),
            user,
            info: OnceLock::new(),
        }
    }

    pub fn inventory(&self) -> Result<Vec<VolumeFacts>, HostError> {
        let volumes = list_volumes(&self.podman)?;
        let mut users = match volumes.is_empty() {
            true => HashMap::new(),
            false => users_of_volumes(&self.podman)?,
        };
        let facts = volumes
            .iter()
            .map(|volume| {
                let definition = &volume.definition;
                let Users { all, running } = users.remove(&definition.name).unwrap_or_default();
                VolumeFacts {
                    name: definition.name.clone(),
                    driver: definition.driver.clone(),
                    anonymous: definition.anonymous,
                    used_by: all,
                    used_by_running: running,
                }
            })
            .collect();
        let by_name = volumes
            .into_iter()
            .map(|volume| (volume.definition.name.clone(), volume));
        *self.known.lock().unwrap_or_else(|e| e.into_inner()) = by_name.collect();
        Ok(facts)
    }

    /// The volume's definition, and its directory when that holds its content now.
    pub fn read(&self, item: &Item) -> Result<Readable, HostError> {
        let name = name_of(item)?;
        let known = {
            let volumes = self.known.lock().unwrap_or_else(|e| e.into_inner());
            volumes.get(name).cloned()
        };
        let volume = match known {
            Some(volume) => volume,
            None => inspect_volume(&self.podman, name)?.ok_or_else(|| not_here(item))?,
        };
        let definition = &volume.definition;
        let unread = |why: String| Readable {
            definition: definition.encode(),
            data: None,
            findings: vec![finding(item, FindingKind::Volume, why)],
        };
        match definition.content() {
            VolumeContent::Directory => {}
            VolumeContent::Mount if is_mount_point(&volume.mountpoint) => {}
            VolumeContent::Mount => {
                return Ok(unread(format!(
                    "it is a mount ({}) that is not mounted now, so only its definition is saved; \
                     with `podman volume mount {name}` its files are, too",
                    definition.mount_source()
                )));
            }
            VolumeContent::Image => {
                return Ok(unread(
                    "its files are an image's with changes (driver image); only its definition \
                     is saved"
                        .into(),
                ));
            }
            VolumeContent::Plugin => {
                return Ok(unread(format!(
                    "its files are where the plugin {} keeps them; only its definition is saved",
                    definition.driver
                )));
            }
        }
        Ok(Readable {
            definition: definition.encode(),
            data: Some(self.open_data("read", &volume.mountpoint)?.0),
            findings: Vec::new(),
        })
    }

    /// Changes nothing.
    pub fn plan(
        &self,
        request: &WriteRequest,
        item: &Item,
        definition: Option<&[u8]>,
    ) -> Result<PlacePlan, HostError> {
        let judged = self.judge(request, item, definition)?;
        let used_by_running = judged.running.clone();
        let conflicts = judged.conflicts.iter().map(|conflict| {
            let Conflict { cause, hint } = conflict;
            format!("volume {} {cause}: {hint}", judged.definition.name)
        });
        let conflicts = conflicts.collect();
        Ok(PlacePlan {
            conflicts,
            room: self.room(&judged, request.existing),
            actions: judged.actions,
            used_by_running,
            present: Vec::new(),
            // The host knows them.
            owners: None,
        })
    }

    /// The room for a volume's content. `None`: it cannot be told.
    fn room(&self, judged: &Judged, existing: Existing) -> Option<Room> {
        let is_mount = |definition: &VolumeDefinition| definition.content() == VolumeContent::Mount;
        let Some(volume) = &judged.there else {
            if is_mount(&judged.definition) {
                return None;
            }
            return write::room_below(&self.info()?.volume_path);
        };
        if is_mount(&volume.definition) && !is_mount_point(&volume.mountpoint) {
            return None;
        }
        let destination = Destination {
            parent: volume.mountpoint.parent()?.as_os_str().as_bytes().to_vec(),
            name: volume.mountpoint.file_name()?.as_bytes().to_vec(),
        };
        write::room(&destination, existing)
    }

    fn lock_changed(&self) -> MutexGuard<'_, HashMap<String, Volume>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self) -> Option<&StoreInfo> {
        // Whatever it is that fails now will fail again, and be told, when it matters.
        self.info.get_or_init(|| self.podman.info().ok()).as_ref()
    }

    /// Whether Podman would refuse to make a volume that has a limit on its size or number of files.
    fn lacks_quota(&self, wanted: &VolumeDefinition) -> bool {
        if !wanted.has_quota() {
            return false;
        }
        let Some(info) = self.info() else {
            return false;
        };
        wanted.needs_quota(Version::parse(&info.version))
            && (self.podman.is_rootless() || !keeps_project_quotas(&info.volume_path))
    }

    fn judge(
        &self,
        request: &WriteRequest,
        item: &Item,
        definition: Option<&[u8]>,
    ) -> Result<Judged, HostError> {
        let name = name_of(item)?;
        let mut actions = Vec::new();
        let mut conflicts = Vec::new();
        let mut conflict = |cause: String, hint: String| {
            conflicts.push(Conflict { cause, hint });
        };
        let mut wanted = match definition {
            Some(bytes) => VolumeDefinition::decode(bytes).map_err(|cause| HostError::Podman {
                action: "read the definition of",
                object: item.to_string(),
                cause,
            })?,
            None => VolumeDefinition::plain(name),
        };
        wanted.name = name.to_owned();
        let there = inspect_volume(&self.podman, name)?;
        let mut running = Vec::new();
        let mut lost = None;
        match &there {
            None => {
                if self.lacks_quota(&wanted) {
                    let mut without = wanted.clone();
                    let limit = without.drop_quota();
                    if request.ignore_quota {
                        wanted = without;
                        lost = Some(limit);
                    } else {
                        let cause = "nothing here keeps project quotas";
                        conflict(
                            format!("has a limit ({limit}), and {cause}"),
                            "--ignore-quota".into(),
                        );
                    }
                }
                let how = match (definition, wanted.content()) {
                    (None, _) => " without labels and options, which the snapshot does not hold",
                    (_, VolumeContent::Directory) if wanted.anonymous => {
                        " (named from now on: it was anonymous)"
                    }
                    (_, VolumeContent::Mount) => " and fill what it mounts",
                    _ => "",
                };
                let limit = lost
                    .iter()
                    .map(|limit| format!(", without its limit ({limit})"));
                let limit: String = limit.collect();
                actions.push(format!("create volume {name}{how}{limit}"));
                if wanted.content() == VolumeContent::Mount && !is_root() {
                    conflict(
                        format!("is a mount ({}), which needs root", wanted.mount_source()),
                        "--to-dir DIR".into(),
                    );
                }
            }
            Some(volume) => {
                for difference in wanted.differences(&volume.definition) {
                    let word = difference.word();
                    actions.push(format!(
                        "keep the {word} of volume {name}, which the snapshot has otherwise"
                    ));
                }
                actions.push(match request.existing {
                    Existing::Refuse => format!("fill the empty volume {name}"),
                    Existing::Merge | Existing::LaidOver => format!("merge into volume {name}"),
                    Existing::Change => format!("change the content of volume {name}"),
                    Existing::Replace => format!("replace the content of volume {name}"),
                });
                running = self.running_users(name)?;
                match volume.definition.content() {
                    VolumeContent::Directory | VolumeContent::Mount => {}
                    VolumeContent::Image | VolumeContent::Plugin => conflict(
                        format!(
                            "is of driver {}, into which podkeep cannot write",
                            volume.definition.driver
                        ),
                        "--as NAME".into(),
                    ),
                }
                match holds_something(&volume.mountpoint) {
                    Ok(false) => {}
                    Ok(true) if request.existing != Existing::Refuse => {}
                    Ok(true) => conflict("is not empty".into(), "--merge or --replace".into()),
                    Err(Errno::NOTDIR | Errno::LOOP) => conflict(
                        "has something else than a directory as its _data".into(),
                        format!("podman volume rm {name}"),
                    ),
                    Err(errno) => {
                        let path = volume.mountpoint.as_os_str().as_bytes();
                        return Err(FsError::from_errno("read", path, errno).into());
                    }
                }
            }
        }
        Ok(Judged {
            there,
            definition: wanted,
            actions,
            conflicts,
            running,
            lost,
        })
    }

    /// A volume's directory, and the folder that it is in where that must be a user's own.
    fn open_data(
        &self,
        action: &'static str,
        data: &Path,
    ) -> Result<(OwnedFd, Option<UserFolder>), HostError> {
        let (Some(user), Some(parent), Some(name)) = (&self.user, data.parent(), data.file_name())
        else {
            return Ok((open_data(action, data)?, None));
        };
        let folder = user.open(parent)?;
        let data = open_data(action, &Path::new(&folder.path()).join(name))?;
        Ok((data, Some(folder)))
    }

    fn running_users(&self, name: &str) -> Result<Vec<String>, PodmanError> {
        let mut users = users_of_volumes(&self.podman)?;
        Ok(users.remove(name).unwrap_or_default().running)
    }

    /// Makes the volume if need be and prepares its staging.
    pub fn write(
        &self,
        request: &WriteRequest,
        item: &Item,
        definition: Option<&[u8]>,
        lock: ItemLock,
    ) -> Result<Box<dyn TreeWriter>, HostError> {
        let is_change = request.existing == Existing::Change;
        let known = (is_change && request.is_known)
            .then(|| self.lock_changed().get(name_of(item).ok()?).cloned())
            .flatten();
        let is_known = known.is_some();
        let judged = match known {
            Some(volume) => Judged {
                definition: volume.definition.clone(),
                there: Some(volume),
                actions: Vec::new(),
                conflicts: Vec::new(),
                running: Vec::new(),
                lost: None,
            },
            None => self.judge(request, item, definition)?,
        };
        let name = judged.definition.name.clone();
        let in_use = (!judged.running.is_empty()).then(|| Conflict {
            cause: in_use(&judged.running),
            hint: "--stop".into(),
        });
        if let Some(Conflict { cause, hint }) = judged.conflicts.into_iter().chain(in_use).next() {
            return Err(HostError::Refused {
                object: format!("volume {name}"),
                cause,
                hint,
            });
        }
        let mut findings = Vec::new();
        let created = judged.there.is_none();
        let volume = match judged.there {
            Some(volume) => volume,
            None => {
                if judged.definition.anonymous {
                    findings.push(finding(
                        item,
                        FindingKind::Note,
                        "it was anonymous and is a named volume now: no container takes it along \
                         when it is removed"
                            .into(),
                    ));
                }
                if let Some(limit) = judged.lost {
                    findings.push(finding(
                        item,
                        FindingKind::NotRestored,
                        format!(
                            "it has no limit ({limit}) here, where nothing keeps project quotas"
                        ),
                    ));
                }
                let made = Volume::create(&self.podman, &judged.definition, &name)?;
                for difference in judged.definition.differences(&made.definition) {
                    let word = difference.word();
                    findings.push(finding(
                        item,
                        FindingKind::Attribute,
                        format!("this Podman gave it other {word} than the snapshot has"),
                    ));
                }
                made
            }
        };
        let mut place = VolumePlace {
            podman: self.podman.clone(),
            item: item.clone(),
            name,
            created,
            mounted: false,
            _lock: lock,
        };
        match self.prepare(request, &mut place, volume) {
            Ok((tree, volume)) => {
                if is_change {
                    self.lock_changed()
                        .insert(place.name.clone(), volume.clone());
                }
                Ok(Box::new(VolumeWriter {
                    tree: Some(tree),
                    place,
                    volume,
                    is_known,
                    findings,
                }))
            }
            Err(error) => {
                // Nothing was written: a volume that is ours alone goes again.
                place.give_up();
                Err(error)
            }
        }
    }

    /// So that Podman neither fills nor re-owns it at its first use.
    fn primed(&self, volume: &Volume) -> Result<Volume, HostError> {
        let data = volume.mountpoint.as_path();
        // What priming left that was cut off is not the volume's content.
        remove_seed(data)
            .map_err(|errno| FsError::from_errno("clear", data.as_os_str().as_bytes(), errno))?;
        make_private(&self.state).map_err(|error| {
            let path = self.state.as_os_str().as_bytes();
            FsError::new("make", path, FsErrorKind::Other, error)
        })?;
        Ok(Primer::lock(&self.podman, &self.state)?.prime(volume)?)
    }

    fn prepare(
        &self,
        request: &WriteRequest,
        place: &mut VolumePlace,
        volume: Volume,
    ) -> Result<(Box<dyn TreeWriter>, Volume), HostError> {
        let data = volume.mountpoint.as_path();
        if volume.definition.content() == VolumeContent::Mount && !is_mount_point(data) {
            Volume::mount(&self.podman, &place.name)?;
            place.mounted = true;
        }
        let volume = match request.existing {
            // It was filled before, and so primed.
            Existing::Change => volume.clone(),
            _ => self.primed(&volume)?,
        };
        let data = volume.mountpoint.as_path();
        let (Some(parent), Some(name)) = (data.parent(), data.file_name()) else {
            let cause = "it has no name";
            let data_bytes = data.as_os_str().as_bytes();
            return Err(FsError::new("use", data_bytes, FsErrorKind::Other, cause).into());
        };
        let (fd, theirs) = self.open_data("write", data)?;
        let parent = theirs.as_ref().map_or_else(
            || parent.as_os_str().as_bytes().to_vec(),
            |folder| folder.path().into_bytes(),
        );
        let tree = write::open(WriteSpec {
            object: place.item.to_string(),
            destination: Destination {
                parent,
                name: name.as_bytes().to_vec(),
            },
            root_kind: RootKind::Directory,
            existing: request.existing,
            swap: match keeps_its_directory(&fd, &volume.definition) {
                true => Swap::InPlace,
                false => Swap::Exchange,
            },
            chunking: request.chunking.clone(),
            threads: request.threads,
            root: request.root,
            labels: Labels {
                root: selinux_label(&fd),
                keep: request.keep_labels,
            },
            bytes_expected: request.bytes_expected,
        })?;
        drop(theirs);
        Ok((tree, volume))
    }
}

/// A volume that is being written, and what has to be taken back.
struct VolumePlace {
    podman: Podman,
    item: Item,
    name: String,
    /// By this run.
    created: bool,
    /// By this run.
    mounted: bool,
    _lock: ItemLock,
}

impl VolumePlace {
    fn give_up(&mut self) {
        self.unmount();
        if self.created {
            // It holds nothing but what is staged. If Podman does not let go of it, the next run
            // finds it empty and goes on with it.
            let _ = Volume::remove(&self.podman, &self.name);
            self.created = false;
        }
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            // Podman itself unmounts what is left at the next boot.
            let _ = Volume::unmount(&self.podman, &self.name);
        }
    }
}

impl Drop for VolumePlace {
    fn drop(&mut self) {
        self.unmount();
    }
}

struct VolumeWriter {
    /// Ends before `place` is given up. `None` after that.
    tree: Option<Box<dyn TreeWriter>>,
    place: VolumePlace,
    volume: Volume,
    /// Nobody used it a moment ago.
    is_known: bool,
    findings: Vec<Finding>,
}

impl VolumeWriter {
    fn error(&self, cause: impl std::fmt::Display) -> FsError {
        let object = format!("volume {}", self.place.name);
        FsError::new("restore", object.as_bytes(), FsErrorKind::Refused, cause)
    }

    fn tree(&mut self) -> Result<&mut Box<dyn TreeWriter>, FsError> {
        match &mut self.tree {
            Some(tree) => Ok(tree),
            None => Err(FsError::new(
                "restore",
                self.place.name.as_bytes(),
                FsErrorKind::Other,
                "it has ended",
            )),
        }
    }
}

impl TreeWriter for VolumeWriter {
    fn may_hold(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.may_hold())
    }

    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        self.tree()?.present(queries)
    }

    fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        self.tree()?.apply(batch)
    }

    fn finish(mut self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        let users = match self.is_known {
            true => HashMap::new(),
            false => users_of_volumes(&self.place.podman).map_err(|error| self.error(error))?,
        };
        if let Some(users) = users.get(&self.place.name)
            && !users.running.is_empty()
        {
            return Err(self.error(format!(
                "it {} since this restore began; what is staged stays for the next run",
                in_use(&users.running)
            )));
        }
        let Some(tree) = self.tree.take() else {
            return Err(self.error("it has ended"));
        };
        let (outcome, mut findings) = tree.finish()?;
        findings.append(&mut self.findings);
        let marks = &self.volume.definition;
        if self.place.mounted
            && marks.is_tmpfs()
            && holds_something(&self.volume.mountpoint) == Ok(true)
        {
            self.place.mounted = false;
            findings.push(finding(
                &self.place.item,
                FindingKind::Note,
                format!(
                    "it lies in memory, and stays mounted for its files to stay: podman volume \
                     unmount {} once a container has it",
                    self.place.name
                ),
            ));
        }
        if marks.needs_copy_up
            && !marks.is_nocopy()
            && holds_something(&self.volume.mountpoint) == Ok(false)
        {
            findings.push(finding(
                &self.place.item,
                FindingKind::Volume,
                "it is empty now and no container has used it yet: the first one fills it from \
                 its image"
                    .into(),
            ));
        }
        Ok((outcome, findings))
    }

    fn discard(mut self: Box<Self>) -> Result<(), FsError> {
        let discarded = match self.tree.take() {
            Some(tree) => tree.discard(),
            None => Ok(()),
        };
        self.place.give_up();
        discarded
    }
}

pub(super) fn finding(item: &Item, kind: FindingKind, message: String) -> Finding {
    Finding {
        object: item.to_string(),
        kind,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message,
    }
}

pub(super) fn not_here(item: &Item) -> HostError {
    HostError::Podman {
        action: "find",
        object: item.to_string(),
        cause: "there is no such item on this host".into(),
    }
}

/// Podman's names are ASCII.
fn name_of(item: &Item) -> Result<&str, HostError> {
    str::from_utf8(&item.name).map_err(|_| not_here(item))
}

fn in_use(running: &[String]) -> String {
    match running {
        [one] => format!("is in use by container {one}"),
        several => format!("is in use by containers {}", several.join(", ")),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A volume's directory, which must be one: Podman never makes it a link.
fn open_data(action: &'static str, data: &Path) -> Result<OwnedFd, HostError> {
    open_directory(data).map_err(|errno| {
        let path = data.as_os_str().as_bytes();
        HostError::Fs(match errno {
            Errno::NOTDIR | Errno::LOOP => FsError::new(
                action,
                path,
                FsErrorKind::Refused,
                "it is no directory; a link in its place is not followed",
            ),
            errno => FsError::from_errno(action, path, errno),
        })
    })
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty())
}

/// Whether a directory has entries of its own: neither what we stage or prime with, nor what a
/// file system puts into its root.
fn holds_something(path: &Path) -> Result<bool, Errno> {
    let directory = open_directory(path)?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let passed = matches!(name, b"." | b".." | b"lost+found")
            || name == crate::podman::SEED_NAME.as_bytes()
            || name.starts_with(write::STAGING_PREFIX);
        if !passed {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_mount_point(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::BASIC_STATS)
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether the directory itself must stay because it is more than a name: a btrfs subvolume, or
/// one with a project quota. (A mount point is found by the writer.)
fn keeps_its_directory(data: &OwnedFd, definition: &VolumeDefinition) -> bool {
    let is_subvolume = rustix::fs::fstatfs(data).is_ok_and(|fs| fs.f_type == BTRFS_MAGIC)
        && rustix::fs::fstat(data).is_ok_and(|stat| stat.st_ino == SUBVOLUME_INODE);
    let has_project = rustix::fs::ioctl_getflags(data.as_fd())
        .is_ok_and(|flags| flags.bits() & PROJECT_INHERITED != 0);
    is_subvolume || has_project || definition.has_quota()
}

/// FS_PROJINHERIT_FL.
const PROJECT_INHERITED: u32 = 0x2000_0000;

/// Whether the file system of a folder, which may not be there yet, was mounted with project quotas.
fn keeps_project_quotas(folder: &Path) -> bool {
    let there = folder.ancestors().find_map(|path| path.canonicalize().ok());
    let mount = there.and_then(|path| Mounts::now()?.of(&path));
    let asked = ["prjquota", "pquota"];
    mount.is_some_and(|mount| {
        mount
            .options
            .iter()
            .any(|option| asked.contains(&&**option))
    })
}

/// The label that Podman gave the volume.
fn selinux_label(data: &OwnedFd) -> Option<Vec<u8>> {
    let mut label = vec![0; LABEL_BYTES_MAX];
    let len = rustix::fs::fgetxattr(data, c"security.selinux", &mut label).ok()?;
    label.truncate(len);
    Some(label)
}
