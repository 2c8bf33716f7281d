//! `restore`: walks stored trees and writes them to a host, in windows of bounded memory.
//!
//! A window is a number of files, or parts of a large one. Its blocks are opened in pack order,
//! in parallel, each once; what is needed of them is gathered and handed to the target together
//! with the steps that need it. Bytes that the target holds already, from a restore that was cut
//! off, are not fetched. A file with a damaged piece is left out and reported: nothing wrong ever
//! stands under a final name.

mod applier;
pub(super) mod change;
mod definitions;
mod layer_tar;
mod owners;
mod parts;
mod repair;
mod room;
mod walk;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podkeep_format::id::{ChunkKind, TreeId};
use podkeep_format::item::{Escaped, Item, ItemKind};
use podkeep_format::tree::{Entry, Node};

pub use self::repair::repair_layers;

use self::applier::Applier;
use self::definitions::Definitions;
use self::owners::Unplaced;
pub(super) use self::owners::unplaced_line;
use self::room::{Needs, bytes_below};
use self::walk::Walk;
use super::counting::Counting;
use super::patience::patiently;
use super::select::{self, Chosen};
use super::walk::entry_at;
use super::{
    OperationError, OperationResult, RestoreOptions, RestoreReport, SpaceNeed, Views, reading,
};
use crate::fs::FsErrorKind;
use crate::fs::owners::Owners;
use crate::host::{Freeze, HeldUnit, HostError, Place, Target, WriteRequest};
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::repo::lease::HeldLease;
use crate::repo::reader::{Reader, is_fatal};
use crate::repo::{Repository, StoredSnapshot};

/// Is there where the kernel enforces labels, or would.
const SELINUX_IS_ON: &str = "/sys/fs/selinux/enforce";

/// Restores what `options` selects. Plans all items first and refuses as a whole when anything
/// is in the way or does certainly not fit; nothing was changed then.
pub fn restore(
    repo: &Repository,
    target: &dyn Target,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> OperationResult<RestoreReport> {
    let nothing = Coming::default();
    let mut restoring = Restoring::plan(repo, target, options, monitor, &nothing, &|_| true)?;
    if options.dry_run {
        return Ok(restoring.into_report());
    }
    restoring.require_possible()?;
    let stopped = restoring.stop_users()?;
    restoring.foundation()?;
    restoring.containers()?;
    restoring.layers()?;
    restoring.units()?;
    for finding in stopped
        .into_iter()
        .flat_map(|stopped| stopped.thaw().findings)
    {
        restoring.counting.finding(finding);
    }
    if let Some(error) = restoring.failed.take()
        && restoring.report.items == 0
    {
        return Err(error.into());
    }
    restoring.settle()?;
    if options.start {
        let _last = restoring.start()?;
    }
    restoring.prove()?;
    Ok(restoring.into_report())
}

/// Volumes that are restored and that containers use which run.
#[derive(Default)]
struct InUse(Vec<(Item, Vec<String>)>);

impl InUse {
    fn add(&mut self, item: &PlannedItem, running: Vec<String>) {
        if !running.is_empty() {
            self.0.push((item.item.clone(), running));
        }
    }

    fn containers(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.iter().flat_map(|(_, running)| running).collect();
        names.into_iter().cloned().collect()
    }

    /// The containers are stopped meanwhile, or in the way.
    fn tell(&self, stop: bool, report: &mut RestoreReport) {
        if stop {
            let stopped = self.containers().into_iter();
            let actions = stopped.map(|name| format!("stop container {name}, and start it again"));
            report.actions.extend(actions);
            return;
        }
        for (item, running) in &self.0 {
            let word = if running.len() == 1 {
                "container"
            } else {
                "containers"
            };
            report.conflicts.push(format!(
                "{} {} is in use by {word} {}: --stop, or podman stop {}",
                item.kind.word(),
                Escaped(&item.name),
                running.join(", "),
                running.join(" ")
            ));
        }
    }
}

/// What is not in the snapshot and will be there all the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Coming {
    /// IDs.
    pub images: Vec<String>,
    /// Names.
    pub volumes: Vec<String>,
}

type Trees = Vec<(PlannedItem, WriteRequest)>;

/// A restore in its steps, each of which the next one stands on.
pub(super) struct Restoring<'a> {
    repo: &'a Repository,
    target: &'a dyn Target,
    options: &'a RestoreOptions,
    counting: Counting<'a>,
    _lease: Option<HeldLease>,
    reader: Reader,
    definitions: Option<Definitions>,
    trees: Trees,
    /// Volumes that come with their container.
    with_containers: Trees,
    unit_files: Trees,
    in_use: InUse,
    /// What was not restored, the last of it.
    pub failed: Option<HostError>,
    pub report: RestoreReport,
    started: Instant,
}

impl<'a> Restoring<'a> {
    /// Looks at everything and changes nothing. Trees of items that are not `wanted` are left alone.
    pub fn plan(
        repo: &'a Repository,
        target: &'a dyn Target,
        options: &'a RestoreOptions,
        monitor: &'a dyn Monitor,
        coming: &Coming,
        wanted: &dyn Fn(&Item) -> bool,
    ) -> OperationResult<Self> {
        let started = Instant::now();
        repo.require_full("restore")?;
        let named = if options.all { &[] } else { &options.items[..] };
        if !options.all && named.is_empty() {
            return Err(OperationError::Usage {
                message: "nothing is selected".into(),
                hint: "name items of the snapshot (volume:NAME, path:/DIR) or use --all".into(),
            });
        }
        let lease = reading::lease(repo, monitor)?;
        let (run, mut chosen) = select::resolve(repo, &options.snapshot, named, monitor)?;
        let reader = reading::reader(repo, monitor)?;
        let counting = Counting::new(monitor);
        if options.to_dir.is_none() && !options.all && !options.only {
            definitions::add_needed(&reader, &run, &mut chosen)?;
        }
        let mut items = plan_items(&reader, options, chosen, &counting)?;
        let mut report = RestoreReport {
            incomplete: !run.is_complete() && items.iter().any(|item| !item.whole),
            ..RestoreReport::default()
        };
        let planning = definitions::Planning {
            reader: &reader,
            target,
            options,
            coming,
            monitor: &counting,
        };
        let definitions = Definitions::plan(&planning, &mut items, &mut report)?;
        let mut trees = Vec::new();
        let mut with_containers = Vec::new();
        let mut unit_files = Vec::new();
        let mut needs = Needs::default();
        let mut in_use = InUse::default();
        for mut item in items.into_iter().filter(|item| wanted(&item.item)) {
            let mut request = item.request(repo, options)?;
            if let Some(all) = &definitions {
                request.view = all.views().get(&item.item).cloned();
            }
            if definitions.as_ref().is_some_and(|all| all.brings(&item)) {
                with_containers.push((item, request));
                continue;
            }
            let plan = target.plan(&request)?;
            if let (Some(room), Some(bytes)) = (plan.room, request.bytes_expected) {
                needs.add(room, bytes, options.existing);
            }
            report.actions.extend(plan.actions);
            report.conflicts.extend(plan.conflicts);
            in_use.add(&item, plan.used_by_running);
            item.present = plan.present;
            item.unplaced = owners::unplaced(&reader, &item, &request, plan.owners, &counting)?;
            if options.squash.is_none() {
                report.conflicts.extend(item.unplaced.conflicts(&item));
            }
            match item.is_unit_file {
                true => unit_files.push((item, request)),
                false => trees.push((item, request)),
            }
        }
        report.needs = needs.into_list();
        if !options.keep_labels && Path::new(SELINUX_IS_ON).exists() {
            counting.finding(Finding {
                object: "SELinux".into(),
                kind: FindingKind::Note,
                snapshots: Vec::new(),
                paths: Vec::new(),
                message: "files get the labels of where they go, not those that were saved \
                          (--selinux keep)"
                    .into(),
            });
        }
        in_use.tell(options.replay.stop_users, &mut report);
        Ok(Self {
            in_use,
            repo,
            target,
            options,
            counting,
            _lease: lease,
            reader,
            definitions,
            trees,
            with_containers,
            unit_files,
            failed: None,
            report,
            started,
        })
    }

    /// Refuses what cannot be done as a whole.
    pub fn require_possible(&mut self) -> OperationResult<()> {
        if !self.report.conflicts.is_empty() {
            let mut conflicts = std::mem::take(&mut self.report.conflicts);
            let short = self.report.needs.iter().filter(|need| !need.fits());
            conflicts.extend(short.map(SpaceNeed::conflict));
            return Err(OperationError::Conflicts { conflicts });
        }
        if !self.report.needs.iter().all(SpaceNeed::fits) {
            return Err(OperationError::NoRoom {
                needs: std::mem::take(&mut self.report.needs),
            });
        }
        Ok(())
    }

    /// Containers that use a volume that is restored rest until the guard is dropped.
    fn stop_users(&self) -> OperationResult<Option<Box<dyn Freeze>>> {
        Ok(match self.in_use.containers() {
            none if none.is_empty() => None,
            running => Some(self.target.stop_users(&running)?),
        })
    }

    /// What containers stand on comes first, and nothing that could start on half of it.
    pub fn foundation(&mut self) -> OperationResult<()> {
        if let Some(all) = &mut self.definitions {
            let kinds = [ItemKind::Network, ItemKind::Secret];
            all.make(&kinds, &mut self.report, &self.counting)?;
        }
        let trees = std::mem::take(&mut self.trees);
        self.write(trees)
    }

    /// Containers, and the volumes that come with them.
    pub fn containers(&mut self) -> OperationResult<()> {
        let kinds = [ItemKind::Pod, ItemKind::Container];
        match (&mut self.definitions, &self.failed) {
            (Some(all), None) => all.make(&kinds, &mut self.report, &self.counting)?,
            (Some(all), Some(error)) => {
                let why = format!("not made, since something was not restored: {error}");
                all.give_up(&kinds, &why, &self.counting);
            }
            (None, _) => {}
        }
        let trees = std::mem::take(&mut self.with_containers);
        match self.failed {
            None => self.write(trees),
            Some(_) => Ok(()),
        }
    }

    /// The files of the containers' own.
    pub fn layers(&mut self) -> OperationResult<()> {
        let layers = self.definitions.as_mut().map(Definitions::layers);
        for layer in layers.unwrap_or_default() {
            if self.failed.is_none() {
                let mut request = layer.request(self.repo, self.options)?;
                let views = self.definitions.as_ref().map(Definitions::views);
                request.view = views.and_then(|views| views.get(&layer.item).cloned());
                self.write(vec![(layer, request)])?;
            }
        }
        Ok(())
    }

    /// The files of units.
    pub fn units(&mut self) -> OperationResult<()> {
        let trees = std::mem::take(&mut self.unit_files);
        match self.failed {
            None => self.write(trees),
            Some(_) => Ok(()),
        }
    }

    /// Restart policies, and units that systemd has to know.
    pub fn settle(&mut self) -> OperationResult<()> {
        match &mut self.definitions {
            Some(all) => all.settle(&self.counting),
            None => Ok(()),
        }
    }

    /// Starts what ran, and waits until it is healthy. Returns when the last of it was started.
    pub fn start(&mut self) -> OperationResult<Option<Instant>> {
        match &mut self.definitions {
            Some(all) => all.start(&self.counting),
            None => Ok(None),
        }
    }

    pub fn prove(&mut self) -> OperationResult<()> {
        match &mut self.definitions {
            Some(all) => all.prove(&mut self.report, &self.counting),
            None => Ok(()),
        }
    }

    /// Whether nothing that is made starts by itself before it is settled.
    pub fn waits(&self) -> bool {
        self.definitions.as_ref().is_none_or(Definitions::waits)
    }

    /// What is made of definitions, in its order.
    pub fn definitions(&self) -> Vec<Item> {
        let all = self.definitions.as_ref();
        all.map_or_else(Vec::new, |all| all.order().to_vec())
    }

    /// How the owners in volumes are seen.
    pub fn views(&self) -> Views {
        let all = self.definitions.as_ref();
        all.map_or_else(Views::new, |all| all.views().clone())
    }

    /// Services of units that come along.
    pub fn services(&self) -> Vec<HeldUnit> {
        let all = self.definitions.as_ref();
        all.map_or_else(Vec::new, |all| all.services().to_vec())
    }

    /// Paths of the files of units that are still to be written.
    pub fn unit_paths(&self) -> Vec<String> {
        let files = self.unit_files.iter();
        let paths = files.map(|(item, _)| String::from_utf8_lossy(&item.item.name).into_owned());
        paths.collect()
    }

    /// Fails if a definition could not be made; `all`: not only what containers stand on.
    pub fn require_made(&self, all: bool) -> OperationResult<()> {
        let definitions = self.definitions.as_ref();
        let missing = definitions.and_then(|definitions| definitions.missing(all));
        match missing {
            None => Ok(()),
            Some(item) => Err(OperationError::Refused {
                message: format!("{item} could not be made"),
                hint: String::new(),
            }),
        }
    }

    pub fn into_report(mut self) -> RestoreReport {
        self.report.warnings = self.counting.warnings();
        self.report.bytes_decoded = self.reader.bytes_decoded();
        self.report.seconds = self.started.elapsed().as_secs_f64();
        self.report
    }

    /// One after the other; one that fails alone is a finding.
    fn write(&mut self, trees: Trees) -> OperationResult<()> {
        for (item, request) in trees {
            let restored = restore_item(
                &self.reader,
                self.target,
                &item,
                &request,
                self.options.wait,
                &self.counting,
                &mut self.report,
            );
            match restored {
                Err(OperationError::Host(error)) if concerns_one_item(&error) => {
                    let object = item.item.to_string();
                    self.counting.finding(Finding {
                        message: error.about(&object),
                        object,
                        kind: FindingKind::NotRestored,
                        snapshots: vec![item.run.clone()],
                        paths: Vec::new(),
                    });
                    self.failed = Some(error);
                }
                other => other?,
            }
        }
        Ok(())
    }
}

/// One item, or a part of one, that is to be written.
struct PlannedItem {
    item: Item,
    run: String,
    definition: Option<Vec<u8>>,
    /// What is written, with the name that it has in the snapshot (empty for an item's root).
    entry: Option<Entry>,
    /// The path below the item's root.
    path: Vec<u8>,
    /// Whether the snapshot holds all of the item.
    whole: bool,
    /// What writing it takes, as in [`WriteRequest`].
    bytes: Option<u64>,
    /// Several items go to `DIR/<kind>/<name>`.
    several: bool,
    /// Paths that the target has already.
    present: Vec<Vec<u8>>,
    /// Of the user namespace whose ids it holds.
    owners: Arc<Owners>,
    unplaced: Unplaced,
    /// The whole item's tree.
    root: Option<TreeId>,
    /// A file that systemd reads: written last.
    is_unit_file: bool,
}

/// Whether the others can still be restored: not when there is no room, nor when somebody else
/// works on the item.
fn concerns_one_item(error: &HostError) -> bool {
    match error {
        HostError::Fs(error) => error.kind != FsErrorKind::NoSpace,
        HostError::Busy { .. } | HostError::Unreachable { .. } => false,
        HostError::Podman { .. } | HostError::Refused { .. } => true,
    }
}

fn plan_items(
    reader: &Reader,
    options: &RestoreOptions,
    chosen: Chosen,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<PlannedItem>> {
    let literal = options.items.len() == 1 && !options.items[0].selector.glob;
    let several = options.all || !literal || chosen.len() > 1;
    if options.rename.is_some() && chosen.len() != 1 {
        return Err(OperationError::Usage {
            message: "--as needs exactly one item".into(),
            hint: "name the item that is to be restored under another name".into(),
        });
    }
    let mut items = Vec::new();
    for (snapshot, path) in chosen {
        let StoredSnapshot { header, body, .. } = snapshot;
        let Some(body) = body else { continue };
        let owners = owners::of_snapshot(&body, &header.item.to_string())?;
        let mut definition = None;
        if let Some((id, _)) = body.definition {
            match reader.chunk(ChunkKind::Record, id) {
                Ok(bytes) => definition = Some(bytes.as_ref().to_vec()),
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => monitor.finding(Finding {
                    object: header.item.to_string(),
                    kind: FindingKind::Damaged,
                    snapshots: vec![header.run.to_hex()],
                    paths: Vec::new(),
                    message: format!("its definition cannot be read: {error}"),
                }),
            }
        }
        let mut entry = None;
        let mut bytes = None;
        if let Some(root) = body.root {
            let place = super::walk::Place {
                snapshot: header.run.to_hex(),
                item: &header.item,
            };
            entry = entry_at(reader, &place, root, &path, monitor)?;
            let Some(entry) = &entry else { continue };
            bytes = Some(match path.is_empty() {
                true => body.bytes_allocated,
                false => bytes_below(reader, entry, monitor)?,
            });
        }
        items.push(PlannedItem {
            item: header.item,
            run: header.run.to_hex(),
            definition,
            entry,
            path,
            whole: body.complete,
            bytes,
            several,
            present: Vec::new(),
            owners,
            unplaced: Unplaced::default(),
            root: body.root,
            is_unit_file: false,
        });
    }
    Ok(items)
}

impl PlannedItem {
    fn file_name(&self) -> Option<Vec<u8>> {
        match &self.entry {
            Some(entry) if !matches!(entry.node, Node::Directory { .. }) => {
                let path = if self.path.is_empty() {
                    &self.item.name
                } else {
                    &self.path
                };
                path.rsplit(|b| *b == b'/').next().map(<[u8]>::to_vec)
            }
            _ => None,
        }
    }

    fn request(
        &self,
        repo: &Repository,
        options: &RestoreOptions,
    ) -> OperationResult<WriteRequest> {
        Ok(WriteRequest {
            place: self.place(options)?,
            existing: options.existing,
            is_known: false,
            retag: options.retag,
            ignore_quota: options.ignore_quota,
            keep_labels: options.keep_labels,
            chunking: Arc::clone(repo.chunking()),
            threads: match options.threads {
                0 => std::thread::available_parallelism().map_or(2, usize::from),
                threads => threads,
            },
            root: self.identity(),
            file_name: match (&options.rename, self.file_name()) {
                (Some(name), Some(_)) if options.to_dir.is_some() => Some(name.clone()),
                (_, name) => name,
            },
            bytes_expected: self.bytes,
            owners: Arc::clone(&self.owners),
            view: options.views.get(&self.item).cloned(),
            squash: options.squash,
        })
    }

    /// What a staged tree is recognised by: the tree itself and where in it we are.
    fn identity(&self) -> TreeId {
        let mut hasher = blake3::Hasher::new();
        let mut encoded = podkeep_format::codec::Encoder::new();
        if let Some(entry) = &self.entry {
            entry.encode(&mut encoded);
        }
        hasher.update(encoded.as_slice());
        TreeId(*hasher.finalize().as_bytes())
    }

    fn place(&self, options: &RestoreOptions) -> OperationResult<Place> {
        use std::os::unix::ffi::OsStrExt;
        let bytes_path =
            |bytes: &[u8]| std::path::PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
        if let Some(dir) = &options.to_dir {
            let mut dir = dir.clone();
            if self.several {
                dir.push(self.item.kind.word());
                let name = self.item.name.strip_prefix(b"/").unwrap_or(&self.item.name);
                dir.push(bytes_path(if name.is_empty() { b"root" } else { name }));
                if self.file_name().is_some() {
                    dir.pop();
                }
            }
            return Ok(Place::Directory(dir));
        }
        if !self.path.is_empty() {
            let ItemKind::Path = self.item.kind else {
                return Err(OperationError::Usage {
                    message: format!("a part of {} cannot go back by itself", self.item),
                    hint: "restore it with --to-dir DIR, or restore the whole item".into(),
                });
            };
            let mut name = self.item.name.clone();
            if name != b"/" {
                name.push(b'/');
            }
            name.extend_from_slice(&self.path);
            return Ok(Place::Item {
                item: Item::new(ItemKind::Path, name),
                definition: None,
            });
        }
        let item = match &options.rename {
            Some(name) => Item::new(self.item.kind, name.clone()),
            None => self.item.clone(),
        };
        Ok(Place::Item {
            item,
            definition: self.definition.clone(),
        })
    }
}

fn restore_item(
    reader: &Reader,
    target: &dyn Target,
    planned: &PlannedItem,
    request: &WriteRequest,
    wait: Duration,
    monitor: &dyn Monitor,
    report: &mut RestoreReport,
) -> OperationResult<()> {
    let text = planned.item.to_string();
    monitor.progress(Progress::ItemStart { item: &text });
    let Some(entry) = &planned.entry else {
        monitor.finding(Finding {
            object: text,
            kind: FindingKind::Volume,
            snapshots: vec![planned.run.clone()],
            paths: Vec::new(),
            message: "the snapshot holds its definition only, no content".into(),
        });
        return Ok(());
    };
    let mut writer = patiently(wait, monitor, || target.open(request))?;
    std::thread::scope(|scope| {
        let applier = Applier::start(scope, &mut *writer);
        Walk::new(
            reader,
            applier,
            &text,
            &planned.run,
            request.threads,
            monitor,
        )
        .without(&planned.present)
        .checking_layers(matches!(request.place, Place::Directory(_)))
        .run(entry, request.file_name.as_deref())
    })?;
    let (outcome, findings) = writer.finish().map_err(HostError::from)?;
    for finding in findings {
        monitor.finding(finding);
    }
    if let Some(squash) = request.squash {
        for finding in planned.unplaced.findings(planned, squash) {
            monitor.finding(finding);
        }
    }
    report.items += 1;
    report.files += outcome.files;
    report.bytes_written += outcome.bytes_written;
    monitor.progress(Progress::ItemDone {
        item: &text,
        files: outcome.files,
        bytes: outcome.bytes_written,
        bytes_new: outcome.bytes_written,
        warnings: 0,
        frozen: None,
    });
    Ok(())
}
