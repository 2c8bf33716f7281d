//! `restore`: walks stored trees and writes them to a host, in windows of bounded memory.
//!
//! A window is a number of files, or parts of a large one. Its blocks are opened in pack order,
//! in parallel, each once; what is needed of them is gathered and handed to the target together
//! with the steps that need it. Bytes that the target holds already, from a restore that was cut
//! off, are not fetched. A file with a damaged piece is left out and reported: nothing wrong ever
//! stands under a final name.

mod applier;
mod definitions;
mod layer_tar;
mod owners;
mod parts;
mod repair;
mod room;
mod walk;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podkeep_format::id::{ChunkKind, TreeId};
use podkeep_format::item::{Escaped, Item, ItemKind};
use podkeep_format::tree::{Entry, Node};

pub use self::repair::repair_layers;

use self::applier::Applier;
use self::definitions::Definitions;
use self::owners::Unplaced;
use self::room::{Needs, bytes_below};
use self::walk::Walk;
use super::counting::Counting;
use super::patience::patiently;
use super::select::{self, Chosen};
use super::walk::entry_at;
use super::{OperationError, OperationResult, RestoreOptions, RestoreReport, SpaceNeed, reading};
use crate::fs::FsErrorKind;
use crate::fs::owners::Owners;
use crate::host::{HostError, Place, Target, WriteRequest};
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::repo::reader::{Reader, is_fatal};
use crate::repo::{Repository, StoredSnapshot};

/// Restores what `options` selects. Plans all items first and refuses as a whole when anything
/// is in the way or does certainly not fit; nothing was changed then.
pub fn restore(
    repo: &Repository,
    target: &dyn Target,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> OperationResult<RestoreReport> {
    let started = Instant::now();
    repo.require_full("restore")?;
    let wanted = if options.all { &[] } else { &options.items[..] };
    if !options.all && wanted.is_empty() {
        return Err(OperationError::Usage {
            message: "nothing is selected".into(),
            hint: "name items of the snapshot (volume:NAME, path:/DIR) or use --all".into(),
        });
    }
    let _lease = reading::lease(repo, monitor)?;
    let (run, mut chosen) = select::resolve(repo, &options.snapshot, wanted, monitor)?;
    let reader = reading::reader(repo, monitor)?;
    let counting = Counting::new(monitor);
    if options.to_dir.is_none() && !options.all {
        definitions::add_needed(&reader, &run, &mut chosen)?;
    }
    let mut items = plan_items(&reader, options, chosen, &counting)?;
    let mut report = RestoreReport {
        incomplete: !run.is_complete() && items.iter().any(|item| !item.whole),
        ..RestoreReport::default()
    };
    let mut definitions =
        Definitions::plan(&reader, target, options, &mut items, &mut report, &counting)?;
    let mut requests = Vec::new();
    let mut later = Vec::new();
    let mut last = Vec::new();
    let mut needs = Needs::default();
    let mut in_use = InUse::default();
    for mut item in items {
        let request = item.request(repo, options)?;
        if definitions.as_ref().is_some_and(|all| all.brings(&item)) {
            later.push((item, request));
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
            true => last.push((item, request)),
            false => requests.push((item, request)),
        }
    }
    report.needs = needs.into_list();
    in_use.tell(options.replay.stop_users, &mut report);
    if options.dry_run {
        report.seconds = started.elapsed().as_secs_f64();
        return Ok(report);
    }
    if !report.conflicts.is_empty() {
        return Err(OperationError::Conflicts {
            conflicts: report.conflicts,
        });
    }
    if !report.needs.iter().all(SpaceNeed::fits) {
        return Err(OperationError::NoRoom {
            needs: report.needs,
        });
    }
    let mut making = Making {
        reader: &reader,
        target,
        wait: options.wait,
        monitor: &counting,
        failed: None,
    };
    let stopped = match in_use.containers() {
        none if none.is_empty() => None,
        running => Some(target.stop_users(&running)?),
    };
    // What containers stand on comes first, and nothing that could start on half of it.
    if let Some(all) = &mut definitions {
        all.make(
            &[ItemKind::Network, ItemKind::Secret],
            &mut report,
            &counting,
        )?;
    }
    making.trees(requests, &mut report)?;
    let made = [ItemKind::Pod, ItemKind::Container];
    match (&mut definitions, &making.failed) {
        (Some(all), None) => all.make(&made, &mut report, &counting)?,
        (Some(all), Some(error)) => {
            let why = format!("not made, since something was not restored: {error}");
            all.give_up(&made, &why, &counting);
        }
        (None, _) => {}
    }
    if making.failed.is_none() {
        making.trees(later, &mut report)?;
        for layer in definitions.iter_mut().flat_map(Definitions::layers) {
            let request = layer.request(repo, options)?;
            making.trees(vec![(layer, request)], &mut report)?;
        }
        making.trees(last, &mut report)?;
    }
    for finding in stopped
        .into_iter()
        .flat_map(|stopped| stopped.thaw().findings)
    {
        counting.finding(finding);
    }
    if let Some(error) = making.failed
        && report.items == 0
    {
        return Err(error.into());
    }
    if let Some(all) = &mut definitions {
        all.finish(options.start, &mut report, &counting)?;
    }
    report.warnings = counting.warnings();
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
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

/// Trees that are being written.
struct Making<'a> {
    reader: &'a Reader,
    target: &'a dyn Target,
    wait: Duration,
    monitor: &'a dyn Monitor,
    /// What was not restored, the last of it.
    failed: Option<HostError>,
}

impl Making<'_> {
    /// One after the other; one that fails alone is a finding.
    fn trees(
        &mut self,
        requests: Vec<(PlannedItem, WriteRequest)>,
        report: &mut RestoreReport,
    ) -> OperationResult<()> {
        let Self {
            reader,
            target,
            wait,
            monitor,
            ..
        } = *self;
        for (item, request) in requests {
            match restore_item(reader, target, &item, &request, wait, monitor, report) {
                Err(OperationError::Host(error)) if concerns_one_item(&error) => {
                    let object = item.item.to_string();
                    monitor.finding(Finding {
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
        HostError::Busy { .. } => false,
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
            retag: options.retag,
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
