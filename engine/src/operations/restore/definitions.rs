//! The part of a restore that makes definitions again: containers, pods, networks and secrets, with
//! the volumes and unit files that come between and after them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podkeep_format::id::ChunkKind;
use podkeep_format::item::{Item, ItemKind};

use super::owners::Unplaced;
use super::{Coming, PlannedItem};
use crate::host::replay::{Proof, Replay, ReplayPlan, ReplayRequest};
use crate::host::{HeldUnit, HostError, Inventory, Target};
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::operations::select::{Chosen, Run, choose};
use crate::operations::stored_image::architecture;
use crate::operations::walk::{Place, entry_at};
use crate::operations::{
    ItemPath, OperationError, OperationResult, RestoreOptions, RestoreReport, Selector, Views,
};
use crate::podman::{
    ConfigDefinition, ContainerDefinition, ImageDefinition, KeptFile, PodDefinition,
    UnitDefinition, VolumeDefinition, below_runtime,
};
use crate::repo::StoredSnapshot;
use crate::repo::reader::{Reader, is_fatal};

/// Where volumes lie unless the host says otherwise: what mounts one by its path names it.
const VOLUME_PATH: &str = "/var/lib/containers/storage/volumes";
/// How long a container may take to become healthy.
const HEALTH_MAX: Duration = Duration::from_secs(60);

/// Definitions that a restore makes.
pub(super) struct Definitions {
    plan: ReplayPlan,
    replay: Box<dyn Replay>,
    made: BTreeSet<Item>,
    /// Volumes that come with their container.
    pub with_containers: BTreeSet<Vec<u8>>,
    /// Containers with files of their own.
    layers: Vec<PlannedItem>,
}

/// What definitions are planned with.
pub(super) struct Planning<'a> {
    pub reader: &'a Reader,
    pub target: &'a dyn Target,
    pub options: &'a RestoreOptions,
    pub coming: &'a Coming,
    pub monitor: &'a dyn Monitor,
}

fn is_definition(kind: ItemKind) -> bool {
    matches!(
        kind,
        ItemKind::Container | ItemKind::Pod | ItemKind::Network | ItemKind::Secret
    )
}

/// Adds what the chosen containers, pods and units need, as far as the snapshot holds it.
pub(super) fn add_needed(reader: &Reader, run: &Run, chosen: &mut Chosen) -> OperationResult<()> {
    let services = Services::of(reader, run)?;
    let mut next = 0;
    while next < chosen.len() {
        let (snapshot, path) = &chosen[next];
        next += 1;
        if !path.is_empty() {
            continue;
        }
        for item in needed(reader, snapshot, &services)? {
            let wanted = ItemPath {
                selector: Selector { item, glob: false },
                path: Vec::new(),
            };
            // What is not in the snapshot may be on the host.
            for found in choose(run, &[wanted]).unwrap_or_default() {
                if !chosen.iter().any(|(snapshot, _)| snapshot.id == found.0.id) {
                    chosen.push(found);
                }
            }
        }
    }
    Ok(())
}

/// Which unit of a run has which service, and which containers are of one.
struct Services(Vec<(Item, String)>);

impl Services {
    fn of(reader: &Reader, run: &Run) -> OperationResult<Self> {
        let mut found = Vec::new();
        for snapshot in &run.items {
            let item = &snapshot.header.item;
            let service = match item.kind {
                ItemKind::Unit => definition_of(reader, snapshot)?
                    .and_then(|bytes| UnitDefinition::decode(&bytes).ok())
                    .map(|unit| unit.service),
                ItemKind::Container => definition_of(reader, snapshot)?
                    .and_then(|bytes| ContainerDefinition::decode(&bytes).ok())
                    .and_then(|container| container.unit),
                _ => None,
            };
            found.extend(service.map(|service| (item.clone(), service)));
        }
        Ok(Self(found))
    }

    /// Those of one kind.
    fn with<'s>(&'s self, service: &'s str, kind: ItemKind) -> impl Iterator<Item = Item> + 's {
        let all = self.0.iter();
        let of = all.filter(move |(item, name)| item.kind == kind && name == service);
        of.map(|(item, _)| item.clone())
    }
}

/// `None`: it has none, or it is damaged, which is told where the item itself is read.
fn definition_of(reader: &Reader, snapshot: &StoredSnapshot) -> OperationResult<Option<Vec<u8>>> {
    let definition = snapshot.body.as_ref().and_then(|body| body.definition);
    let Some((id, _)) = definition else {
        return Ok(None);
    };
    match reader.chunk(ChunkKind::Record, id) {
        Ok(bytes) => Ok(Some(bytes.as_ref().to_vec())),
        Err(error) if is_fatal(&error) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

fn needed(
    reader: &Reader,
    snapshot: &StoredSnapshot,
    services: &Services,
) -> OperationResult<Vec<Item>> {
    let kind = snapshot.header.item.kind;
    if !matches!(kind, ItemKind::Container | ItemKind::Pod | ItemKind::Unit) {
        return Ok(Vec::new());
    }
    let Some(bytes) = definition_of(reader, snapshot)? else {
        return Ok(Vec::new());
    };
    let mut items = Vec::new();
    let mut add = |kind: ItemKind, names: Vec<String>| {
        items.extend(names.into_iter().map(|name| Item::new(kind, name)));
    };
    let volumes = Path::new(VOLUME_PATH);
    match kind {
        ItemKind::Container => {
            let Ok(container) = ContainerDefinition::decode(&bytes) else {
                return Ok(items);
            };
            add(ItemKind::Volume, container.volumes(volumes));
            add(ItemKind::Network, container.networks());
            add(ItemKind::Secret, container.secrets());
            add(ItemKind::Image, container.image_mounts());
            if !container.image_id.is_empty() {
                add(ItemKind::Image, vec![container.image_id.clone()]);
            }
            add(ItemKind::Pod, container.pod.iter().cloned().collect());
            let needs = container.names.values().cloned().collect();
            add(ItemKind::Container, needs);
            if let Some(service) = &container.unit {
                items.extend(services.with(service, ItemKind::Unit));
            }
        }
        ItemKind::Unit => {
            let Ok(unit) = UnitDefinition::decode(&bytes) else {
                return Ok(items);
            };
            add(ItemKind::Unit, unit.needs);
            items.extend(services.with(&unit.service, ItemKind::Container));
        }
        _ => {
            let Ok(pod) = PodDefinition::decode(&bytes) else {
                return Ok(items);
            };
            add(ItemKind::Volume, pod.volumes(volumes));
            add(ItemKind::Network, pod.networks());
            add(ItemKind::Container, pod.containers);
        }
    }
    Ok(items)
}

impl Definitions {
    /// Takes the definitions out of `items` and looks at them all; what is left are trees. `None`:
    /// there are none.
    pub fn plan(
        planning: &Planning<'_>,
        items: &mut Vec<PlannedItem>,
        report: &mut RestoreReport,
    ) -> OperationResult<Option<Self>> {
        let Planning {
            reader,
            target,
            options,
            coming,
            monitor,
        } = *planning;
        if options.to_dir.is_some() {
            return Ok(None);
        }
        let mut trees = Vec::new();
        let has_definitions = items.iter().any(|item| {
            let kind = item.item.kind;
            is_definition(kind) || matches!(kind, ItemKind::Unit | ItemKind::Config)
        });
        let there = match has_definitions {
            true => target.inventory()?,
            false => Inventory::default(),
        };
        let mut homes = Homes {
            to: there.home.as_deref(),
            runtime: there.runtime.as_deref(),
            moved: BTreeSet::new(),
        };
        let mut request = ReplayRequest {
            starts: options.start,
            options: options.replay.clone(),
            ..ReplayRequest::default()
        };
        let mut layers = Vec::new();
        for item in std::mem::take(items) {
            let kind = item.item.kind;
            let definition = item.definition.clone();
            match (kind, definition) {
                (kind, Some(definition)) if is_definition(kind) && item.path.is_empty() => {
                    request.items.push((item.item.clone(), definition));
                    if item.entry.is_some() && kind == ItemKind::Container {
                        layers.push(item);
                    }
                }
                (ItemKind::Unit, Some(definition)) if item.path.is_empty() => {
                    trees.extend(unit_files(reader, &item, &definition, &mut homes, monitor)?);
                    request.items.push((item.item, definition));
                }
                // Named, or left alone: what it configures is the host's own matter.
                (ItemKind::Config, _) if options.all => report.actions.push(format!(
                    "leave {} as it is here (restore it by name, or with --to-dir)",
                    item.item
                )),
                (ItemKind::Config, Some(definition)) if item.path.is_empty() => {
                    let config = ConfigDefinition::decode(&definition)
                        .map_err(|cause| unread(&item, cause))?;
                    let of_user = config.home.is_some();
                    if of_user != there.home.is_some() {
                        let whose = if of_user { "a user" } else { "the system" };
                        report.conflicts.push(format!(
                            "{} is configuration of {whose}, which is none of this Podman's: leave it \
                             out, or --to-dir DIR",
                            item.item
                        ));
                    }
                    let files = &config.files;
                    let home = config.home.as_deref();
                    trees.extend(files_at(reader, &item, files, home, &mut homes, monitor)?);
                }
                _ => {
                    describe(reader, &item, &mut request, monitor);
                    trees.push(item);
                }
            }
        }
        *items = trees;
        homes.tell(monitor);
        if request.items.is_empty() {
            return Ok(None);
        }
        if options.rename.is_some() {
            return Err(OperationError::Usage {
                message: "--as is for volumes, images and paths".into(),
                hint: "for containers, pods and networks: --rename-suffix SUFFIX".into(),
            });
        }
        request
            .images
            .extend(there.images.into_iter().map(|image| image.id));
        for volume in there.volumes {
            request.volumes.entry(volume.name).or_insert(false);
        }
        request.images.extend(coming.images.iter().cloned());
        for volume in &coming.volumes {
            request.volumes.entry(volume.clone()).or_insert(false);
        }
        let (plan, replay) = target.replay(request)?;
        report.actions.extend(plan.actions.iter().cloned());
        report.conflicts.extend(plan.conflicts.iter().cloned());
        for finding in &plan.findings {
            monitor.finding(finding.clone());
        }
        let with_containers = plan.with_containers.iter();
        Ok(Some(Self {
            made: BTreeSet::new(),
            with_containers: with_containers
                .map(|name| name.clone().into_bytes())
                .collect(),
            plan,
            replay,
            layers,
        }))
    }

    /// Whether a planned tree is a volume that is made by a container.
    pub fn brings(&self, item: &PlannedItem) -> bool {
        item.item.kind == ItemKind::Volume && self.with_containers.contains(&item.item.name)
    }

    /// Makes what is of these kinds.
    pub fn make(
        &mut self,
        kinds: &[ItemKind],
        report: &mut RestoreReport,
        monitor: &dyn Monitor,
    ) -> OperationResult<()> {
        for item in self
            .plan
            .order
            .iter()
            .filter(|item| kinds.contains(&item.kind))
        {
            if monitor.interrupted() {
                return Err(OperationError::Interrupted);
            }
            let text = item.to_string();
            monitor.progress(Progress::ItemStart { item: &text });
            match self.replay.make(item) {
                Ok(()) => {
                    report.items += 1;
                    monitor.progress(Progress::ItemDone {
                        item: &text,
                        files: 0,
                        bytes: 0,
                        bytes_new: 0,
                        warnings: 0,
                        frozen: None,
                    });
                    self.made.insert(item.clone());
                }
                Err(error) => {
                    let why = error.about(&text);
                    not_restored(text, &why, monitor);
                }
            }
        }
        Ok(())
    }

    /// The trees of containers that were made, under the names that these have now.
    pub fn layers(&mut self) -> Vec<PlannedItem> {
        let layers = std::mem::take(&mut self.layers).into_iter();
        let made = layers.filter(|layer| self.made.contains(&layer.item));
        made.map(|mut layer| {
            if let Some(name) = self.plan.names.get(&layer.item) {
                layer.item = Item::new(ItemKind::Container, name.as_bytes());
            }
            layer
        })
        .collect()
    }

    /// Says of everything that would be made that it is not.
    pub fn give_up(&self, kinds: &[ItemKind], why: &str, monitor: &dyn Monitor) {
        for item in self
            .plan
            .order
            .iter()
            .filter(|item| kinds.contains(&item.kind))
        {
            not_restored(item.to_string(), why, monitor);
        }
    }

    /// Restart policies, and units that systemd has to know.
    pub fn settle(&mut self, monitor: &dyn Monitor) -> OperationResult<()> {
        for finding in self.replay.settle()? {
            monitor.finding(finding);
        }
        Ok(())
    }

    /// Starts what ran. Returns when the last of it was started.
    pub fn start(&mut self, monitor: &dyn Monitor) -> OperationResult<Option<Instant>> {
        monitor.progress(Progress::Phase("starting"));
        let (findings, last) = self.replay.start(HEALTH_MAX)?;
        for finding in findings {
            monitor.finding(finding);
        }
        Ok(last)
    }

    /// Compares what was made with what was stored.
    pub fn prove(
        &mut self,
        report: &mut RestoreReport,
        monitor: &dyn Monitor,
    ) -> OperationResult<()> {
        monitor.progress(Progress::Phase("comparing"));
        report.proofs = self.replay.prove()?;
        for proof in &report.proofs {
            tell(proof, monitor);
        }
        Ok(())
    }

    /// Whether nothing of it starts by itself before it is settled.
    pub fn waits(&self) -> bool {
        self.replay.waits()
    }

    /// What is made, in this order.
    pub fn order(&self) -> &[Item] {
        &self.plan.order
    }

    pub fn views(&self) -> &Views {
        &self.plan.views
    }

    /// Services of units that come along.
    pub fn services(&self) -> &[HeldUnit] {
        &self.plan.services
    }

    /// Something that was not made; `all`: also containers and pods.
    pub fn missing(&self, all: bool) -> Option<&Item> {
        let order = self.plan.order.iter();
        let mut wanted =
            order.filter(|item| all || !matches!(item.kind, ItemKind::Container | ItemKind::Pod));
        wanted.find(|item| !self.made.contains(*item))
    }
}

/// A difference that nothing explains is a warning.
fn tell(proof: &Proof, monitor: &dyn Monitor) {
    for difference in proof.differences.iter().filter(|d| d.reason.is_none()) {
        let shown = |value: &str| match value {
            "" => "nothing".to_owned(),
            value => value.to_owned(),
        };
        monitor.finding(Finding {
            object: proof.item.to_string(),
            kind: FindingKind::Attribute,
            snapshots: Vec::new(),
            paths: Vec::new(),
            message: format!(
                "{} was {} and is {}",
                difference.field,
                shown(&difference.stored),
                shown(&difference.made)
            ),
        });
    }
}

fn not_restored(object: String, message: &str, monitor: &dyn Monitor) {
    monitor.finding(Finding {
        object,
        kind: FindingKind::NotRestored,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: message.to_owned(),
    });
}

/// What definitions have to know of a tree that is restored with them.
fn describe(
    reader: &Reader,
    item: &PlannedItem,
    request: &mut ReplayRequest,
    monitor: &dyn Monitor,
) {
    let Some(definition) = &item.definition else {
        return;
    };
    match item.item.kind {
        ItemKind::Volume => {
            if let Ok(volume) = VolumeDefinition::decode(definition) {
                request.volumes.insert(volume.name, volume.anonymous);
            }
        }
        ItemKind::Image => {
            let Ok(image) = ImageDefinition::decode(definition) else {
                return;
            };
            let architecture = item
                .root
                .and_then(|root| architecture(reader, &item.item, root, &image, monitor));
            if let Some(architecture) = architecture {
                request.architectures.insert(image.id.clone(), architecture);
            }
            request.images.insert(image.id);
        }
        _ => {}
    }
}

/// From which homes files of users go to which.
struct Homes<'a> {
    /// `None`: the target's Podman is root's.
    to: Option<&'a Path>,
    runtime: Option<&'a Path>,
    moved: BTreeSet<String>,
}

impl Homes<'_> {
    /// Where a file of a user goes whose home was `from`.
    fn place(&mut self, path: &str, from: Option<&str>) -> String {
        let below = from.and_then(|from| Path::new(path).strip_prefix(from).ok());
        if let (Some(_), Some(below), Some(runtime)) = (from, below_runtime(path), self.runtime) {
            return runtime.join(below).to_string_lossy().into_owned();
        }
        let (Some(from), Some(below), Some(to)) = (from, below, self.to) else {
            return path.to_owned();
        };
        if Path::new(from) != to {
            self.moved.insert(from.to_owned());
        }
        to.join(below).to_string_lossy().into_owned()
    }

    fn tell(&self, monitor: &dyn Monitor) {
        let Some(to) = self.to else { return };
        for from in &self.moved {
            monitor.finding(Finding {
                object: "units and configuration".into(),
                kind: FindingKind::Note,
                snapshots: Vec::new(),
                paths: Vec::new(),
                message: format!(
                    "what lay below {from} goes below {}; a file or link that names {from} is not \
                     changed (%h in a unit is whatever home there is)",
                    to.display()
                ),
            });
        }
    }
}

fn unit_files(
    reader: &Reader,
    item: &PlannedItem,
    definition: &[u8],
    homes: &mut Homes<'_>,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<PlannedItem>> {
    let unit = UnitDefinition::decode(definition).map_err(|cause| unread(item, cause))?;
    files_at(
        reader,
        item,
        &unit.files,
        unit.home.as_deref(),
        homes,
        monitor,
    )
}

fn unread(item: &PlannedItem, cause: String) -> OperationError {
    OperationError::Host(HostError::Podman {
        action: "read the definition of",
        object: item.item.to_string(),
        cause,
    })
}

/// The files of an item, each to its own place; those of a user whose home was `home`, in the home that
/// there is now.
fn files_at(
    reader: &Reader,
    item: &PlannedItem,
    files: &[KeptFile],
    home: Option<&str>,
    homes: &mut Homes<'_>,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<PlannedItem>> {
    let mut found = Vec::new();
    let Some(root) = item.root else {
        return Ok(found);
    };
    // Definitions hold no path that is not absolute and plain.
    for path in files
        .iter()
        .filter(|file| !file.missing)
        .map(|file| &file.path)
    {
        let below = path.trim_start_matches('/').as_bytes();
        let place = Place {
            snapshot: item.run.clone(),
            item: &item.item,
        };
        let Some(entry) = entry_at(reader, &place, root, below, monitor)? else {
            continue;
        };
        found.push(PlannedItem {
            item: Item::new(ItemKind::Path, homes.place(path, home)),
            run: item.run.clone(),
            definition: None,
            entry: Some(entry),
            path: Vec::new(),
            whole: item.whole,
            bytes: None,
            several: item.several,
            present: Vec::new(),
            owners: Arc::clone(&item.owners),
            unplaced: Unplaced::default(),
            root: item.root,
            is_unit_file: true,
        });
    }
    Ok(found)
}
