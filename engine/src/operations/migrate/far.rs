//! The target's side of a migration: carries orders out, one after the other.
//!
//! What was made and how far each volume is stands in a file before it is so ([`state`](super::state)):
//! a side that begins anew removes what was made and never ran, keeps volumes whose tree it knows,
//! and fills those anew that were being written.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podkeep_format::id::{HostId, TreeId};
use podkeep_format::item::{Item, ItemKind};
use zeroize::Zeroizing;

use super::orders::{Answer, Fit, Need, Order, Outcome, Proven, Reached, Told};
use super::session::Job;
use super::state::{Far, Folder};
use super::{item_of, text_of};
use crate::fs::write::free_below;
use crate::host::replay::{Proof, ReplayOptions};
use crate::host::{HostError, Keep, Target};
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::operations::restore::change::Changing;
use crate::operations::restore::{Coming, Restoring};
use crate::operations::{
    OperationError, OperationResult, RestoreOptions, RestoreReport, SnapSpec, SnapWhich, Views,
    reading, select,
};
use crate::repo::{Credential, OpenOptions, Repository, StoredSnapshot};
use crate::store::local::LocalStore;

/// A podkeep whose link was cut finishes what it works on, and ends within 30 s
/// (`docs/wire-protocol.md`, "Time").
const ENDS_WITHIN: Duration = Duration::from_secs(35);
/// Where the staging repository lies in the migration's folder, and its cache.
const REPOSITORY: &str = "repository";
const CACHE: &str = "cache";

/// A host on which a migration ends.
pub trait TargetHost: Target + Keep {}

impl<H: Target + Keep> TargetHost for H {}

/// What a target's side works with.
pub struct TargetSide {
    pub host: Box<dyn TargetHost>,
    /// The folder of what must last of that host.
    pub state: PathBuf,
    pub id: HostId,
    pub name: String,
}

/// Keeps what is found until it is told with the next answer.
#[derive(Default)]
struct Heard(Mutex<Vec<Finding>>);

impl Heard {
    fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Monitor for Heard {
    fn finding(&self, finding: Finding) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(finding);
    }

    fn progress(&self, _: Progress<'_>) {}
}

pub(super) fn serve(side: &TargetSide, jobs: &Receiver<Job>) {
    let heard = Heard::default();
    let mut work = Work {
        side,
        heard: &heard,
        folder: None,
        far: Far::default(),
        repo: None,
    };
    let mut waiting = None;
    while let Some(job) = waiting.take().or_else(|| jobs.recv().ok()) {
        let (order, answer) = job;
        let result = match serde_json::from_slice(&order) {
            Err(error) => Err(refused(format!(
                "this podkeep does not know that order: {error}"
            ))),
            Ok(Order::Prepare { run, fit }) => {
                let repo = work.repo.take();
                let prepared = match &repo {
                    None => Err(not_open()),
                    Some(repo) => work.prepared(repo, &run, fit, jobs, &answer, &mut waiting),
                };
                work.repo = repo;
                match prepared {
                    // All of it was answered.
                    Ok(()) => continue,
                    Err(error) => Err(error),
                }
            }
            Ok(order) => work.carry_out(&order),
        };
        work.answer(result, &answer);
    }
}

fn refused(message: String) -> OperationError {
    OperationError::Refused {
        message,
        hint: String::new(),
    }
}

fn not_open() -> OperationError {
    refused("the staging repository is not open".into())
}

struct Work<'a> {
    side: &'a TargetSide,
    heard: &'a Heard,
    folder: Option<Folder>,
    far: Far,
    repo: Option<Arc<Repository>>,
}

impl Work<'_> {
    fn answer(&self, result: OperationResult<Outcome>, to: &Sender<Vec<u8>>) {
        let answer = match result {
            Ok(mut outcome) => {
                outcome.reached = self.far.reached;
                outcome.findings = Told::of(self.heard.take());
                Answer::Done(Box::new(outcome))
            }
            Err(error) => {
                let (hint, conflicts) = match &error {
                    OperationError::Refused { hint, .. } | OperationError::Usage { hint, .. } => {
                        (hint.clone(), Vec::new())
                    }
                    OperationError::Host(HostError::Refused { hint, .. }) => {
                        (hint.clone(), Vec::new())
                    }
                    OperationError::Conflicts { conflicts } => (String::new(), conflicts.clone()),
                    OperationError::NoRoom { needs } => {
                        let lines = needs.iter().map(|need| {
                            let place = need.place.display();
                            let (bytes, free) = (need.bytes, need.bytes_free);
                            format!("{place} needs {bytes} bytes, {free} are free: make room there")
                        });
                        (String::new(), lines.collect())
                    }
                    _ => Default::default(),
                };
                // What was found is why, as a rule.
                let found = self.heard.take().into_iter();
                let found = found.filter(|finding| finding.kind.is_warning()).take(5);
                let found: Vec<String> = found
                    .map(|finding| format!("; {}: {}", finding.object, finding.message))
                    .collect();
                Answer::Failed {
                    message: format!("{error}{}", found.concat()),
                    hint,
                    conflicts,
                }
            }
        };
        // Whoever gave the order may be gone.
        let _ = to.send(serde_json::to_vec(&answer).unwrap_or_default());
    }

    fn folder(&self) -> OperationResult<&Folder> {
        let unmet = || refused("no migration was named".into());
        self.folder.as_ref().ok_or_else(unmet)
    }

    fn save(&self) -> OperationResult<()> {
        self.folder()?.write(&self.far)
    }

    fn carry_out(&mut self, order: &Order) -> OperationResult<Outcome> {
        match order {
            Order::Meet { migration } => self.meet(migration),
            Order::Open { key } => self.open(key),
            Order::Check {
                run,
                images,
                volumes,
                bytes,
                fit,
            } => {
                let coming = Coming {
                    images: images.clone(),
                    volumes: volumes.clone(),
                };
                self.check(run, &coming, *bytes, *fit)
            }
            Order::Activate { .. } if self.far.reached == Reached::Active => {
                let starts = self.far.starts.clone();
                self.side.host.start(&starts)?;
                self.side.host.start_units(&self.far.units)?;
                Ok(Outcome {
                    started: starts,
                    ..Outcome::default()
                })
            }
            Order::Withdraw { discard } => self.withdraw(*discard),
            Order::Finish => self.finish(),
            // What made it has ended.
            Order::Prove => Ok(Outcome::default()),
            Order::Prepare { .. } | Order::Change { .. } | Order::Activate { .. } => {
                Err(refused("nothing is prepared here".into()))
            }
        }
    }

    fn meet(&mut self, migration: &str) -> OperationResult<Outcome> {
        let plain = |b: u8| b.is_ascii_hexdigit();
        if migration.is_empty() || migration.len() > 64 || !migration.bytes().all(plain) {
            return Err(refused("that is no name of a migration".into()));
        }
        let about = self.side.host.about()?;
        self.folder = None;
        let folder = Folder::lock(&self.side.state, migration, ENDS_WITHIN)?;
        self.far = folder.read()?;
        let repository = folder.path.join(REPOSITORY);
        let is_staged = repository.is_dir();
        self.folder = Some(folder);
        Ok(Outcome {
            about,
            repository: repository.display().to_string(),
            is_staged,
            machine: machine(),
            started: match self.far.reached {
                Reached::Active => self.side.host.at_work(&self.far.starts)?,
                _ => Vec::new(),
            },
            ..Outcome::default()
        })
    }

    fn open(&mut self, key: &str) -> OperationResult<Outcome> {
        let folder = &self.folder()?.path;
        let store = LocalStore::open(folder.join(REPOSITORY))?;
        let credential = Credential::Passphrase(Zeroizing::new(key.as_bytes().to_vec()));
        let options = OpenOptions {
            cache: Some(folder.join(CACHE)),
            host: self.side.id,
            host_name: self.side.name.clone(),
        };
        let repo = Repository::open(Arc::new(store), &credential, &options)?;
        self.repo = Some(Arc::new(repo));
        Ok(Outcome::default())
    }

    /// Items of ours, by kind.
    fn is_ours(&self, item: &Item) -> bool {
        self.far.made.contains(&text_of(item))
    }

    /// Removes what was made of definitions and never ran: it is made anew from a later run.
    fn clear(&mut self) -> OperationResult<()> {
        if self.far.reached == Reached::Active {
            return Err(OperationError::Refused {
                message: "what was moved runs here already".into(),
                hint: "--rollback brings it back, --finish ends the migration".into(),
            });
        }
        self.remove_units()?;
        let made: Vec<Item> = self
            .far
            .made
            .iter()
            .filter_map(|text| item_of(text))
            .collect();
        for item in made.iter().rev() {
            if item.kind != ItemKind::Volume {
                self.side.host.remove(item)?;
            }
        }
        self.far
            .made
            .retain(|text| item_of(text).is_some_and(|item| item.kind == ItemKind::Volume));
        // Anonymous volumes went with their containers; what was being written is neither.
        let there = Target::inventory(&*self.side.host)?;
        let mut kept = Vec::new();
        for (name, root) in std::mem::take(&mut self.far.volumes) {
            let is_there = there.volumes.iter().any(|volume| volume.name == name);
            match (is_there, root) {
                (true, Some(root)) => kept.push((name, Some(root))),
                (true, None) => self.side.host.remove(&volume(&name))?,
                (false, _) => {}
            }
        }
        let is_kept = |text: &String| kept.iter().any(|(name, _)| text_of(&volume(name)) == *text);
        self.far.made.retain(is_kept);
        self.far.volumes = kept;
        self.save()
    }

    fn check(
        &mut self,
        run: &str,
        coming: &Coming,
        bytes: u64,
        fit: Fit,
    ) -> OperationResult<Outcome> {
        let repo = self.repo.clone().ok_or_else(not_open)?;
        self.clear()?;
        let host = &*self.side.host;
        let mut report = RestoreReport::default();
        // Volumes and images alone have no definitions to look at.
        if !run.is_empty() {
            let options = options(run, fit);
            // Those of units.
            let wanted = |item: &Item| item.kind == ItemKind::Path;
            report = Restoring::plan(
                &repo,
                as_target(host),
                &options,
                self.heard,
                coming,
                &wanted,
            )?
            .into_report();
        }
        let there = Target::inventory(host)?;
        for name in &coming.volumes {
            let is_there = there.volumes.iter().any(|volume| volume.name == *name);
            if is_there && !self.is_ours(&volume(name)) {
                report.conflicts.push(format!(
                    "volume {name} is there: podman volume rm {name}, or rename it"
                ));
            }
        }
        Ok(Outcome {
            actions: report.actions,
            conflicts: report.conflicts,
            needs: self.needs(bytes)?,
            ..Outcome::default()
        })
    }

    /// What so many bytes need here at most: once as they are staged, once where they go.
    fn needs(&self, bytes: u64) -> OperationResult<Vec<Need>> {
        let mut needs: Vec<(u64, Need)> = Vec::new();
        let mut devices = Vec::new();
        let staging = [self.folder()?.path.clone()];
        for (is_staging, place) in staging.into_iter().map(|place| (true, place)).chain(
            self.side
                .host
                .places()?
                .into_iter()
                .map(|place| (false, place)),
        ) {
            let Some(room) = free_below(&place) else {
                continue;
            };
            // Images and volumes mostly lie together, and count once.
            if devices.contains(&(is_staging, room.device)) {
                continue;
            }
            devices.push((is_staging, room.device));
            match needs.iter_mut().find(|(device, _)| *device == room.device) {
                Some((_, need)) => need.bytes += bytes,
                None => needs.push((
                    room.device,
                    Need {
                        place: room.directory.display().to_string(),
                        bytes,
                        bytes_free: room.bytes_free,
                    },
                )),
            }
        }
        Ok(needs.into_iter().map(|(_, need)| need).collect())
    }

    /// Everything from the preparing to the end of what stands on it. An order that belongs elsewhere
    /// is left in `waiting`.
    fn prepared(
        &mut self,
        repo: &Arc<Repository>,
        run: &str,
        fit: Fit,
        jobs: &Receiver<Job>,
        answer: &Sender<Vec<u8>>,
        waiting: &mut Option<Job>,
    ) -> OperationResult<()> {
        self.clear()?;
        let options = options(run, fit);
        let host = &*self.side.host;
        let kept: Vec<String> = self
            .far
            .volumes
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        let wanted = |item: &Item| {
            item.kind != ItemKind::Volume
                || !kept
                    .iter()
                    .any(|name| name.as_bytes() == item.name.as_slice())
        };
        let coming = Coming::default();
        let mut restoring = Restoring::plan(
            repo,
            as_target(host),
            &options,
            self.heard,
            &coming,
            &wanted,
        )?;
        restoring.require_possible()?;
        let early = restoring.waits();
        self.announce(repo, &options, &restoring.definitions())?;
        restoring.foundation()?;
        if early && restoring.failed.is_none() {
            restoring.containers()?;
        }
        if let Some(error) = restoring.failed.take() {
            return Err(error.into());
        }
        restoring.require_made(early)?;
        for (name, root) in roots(repo, &options, self.heard)? {
            self.reached_root(&name, Some(root));
        }
        self.save()?;
        let outcome = Outcome {
            actions: restoring.report.actions.clone(),
            files: restoring.report.files,
            bytes_written: restoring.report.bytes_written,
            ..Outcome::default()
        };
        self.answer(Ok(outcome), answer);
        let mut layers = Vec::new();
        while let Ok((order, answer)) = jobs.recv() {
            let result = match serde_json::from_slice(&order) {
                Ok(Order::Change { run, last }) => {
                    let layers = last.then_some(&mut layers);
                    self.change(repo, &run, &restoring.views(), layers)
                }
                Ok(Order::Activate { starts }) if self.far.reached == Reached::Staged => {
                    let layers = std::mem::take(&mut layers);
                    self.activate(repo, &mut restoring, early, starts, layers)
                }
                Ok(Order::Prove) if self.far.reached == Reached::Active => prove(&mut restoring),
                _ => {
                    *waiting = Some((order, answer));
                    return Ok(());
                }
            };
            self.answer(result, &answer);
        }
        Ok(())
    }

    /// Notes what will be made, before it is. What is there already is not ours.
    fn announce(
        &mut self,
        repo: &Repository,
        options: &RestoreOptions,
        definitions: &[Item],
    ) -> OperationResult<()> {
        let there = Target::inventory(&*self.side.host)?;
        let is_there = |item: &Item| match item.kind {
            ItemKind::Network => there.networks.iter().any(|one| one.item() == *item),
            ItemKind::Volume => there.volumes.iter().any(|one| volume(&one.name) == *item),
            _ => false,
        };
        for (name, _) in roots(repo, options, self.heard)? {
            let item = volume(&name);
            if !is_there(&item) {
                self.far.made.push(text_of(&item));
                self.reached_root(&name, None);
            }
        }
        let new = definitions.iter().filter(|item| !is_there(item));
        self.far.made.extend(new.map(text_of));
        self.far.reached = Reached::Staged;
        self.save()
    }

    fn reached_root(&mut self, name: &str, root: Option<TreeId>) {
        let root = root.map(TreeId::to_hex);
        match self.far.volumes.iter_mut().find(|(known, _)| known == name) {
            // One that was kept is where it was.
            Some((_, known)) if known.is_none() || root.is_none() => *known = root,
            Some(_) => {}
            None => self.far.volumes.push((name.to_owned(), root)),
        }
    }

    fn change(
        &mut self,
        repo: &Repository,
        run: &str,
        views: &Views,
        layers: Option<&mut Vec<StoredSnapshot>>,
    ) -> OperationResult<Outcome> {
        let mut options = options(run, Fit::default());
        options.views = views.clone();
        let _lease = reading::lease(repo, self.heard)?;
        let snapshots = snapshots(repo, &options, self.heard)?;
        let reader = reading::reader(repo, self.heard)?;
        let host = &*self.side.host;
        let changing = Changing {
            repo,
            reader: &reader,
            target: as_target(host),
            options: &options,
            in_haste: layers.is_some(),
            monitor: self.heard,
        };
        let mut outcome = Outcome::default();
        let mut own_files = Vec::new();
        for snapshot in snapshots {
            let root = snapshot.body.as_ref().and_then(|body| body.root);
            let (item, Some(root)) = (snapshot.header.item.clone(), root) else {
                continue;
            };
            match item.kind {
                ItemKind::Container => own_files.push(snapshot),
                ItemKind::Volume => {
                    let name = String::from_utf8_lossy(&item.name).into_owned();
                    let known = self.far.volumes.iter().find(|(known, _)| *known == name);
                    let known = known.and_then(|(_, root)| TreeId::from_hex(root.as_deref()?));
                    if known == Some(root) {
                        continue;
                    }
                    self.reached_root(&name, None);
                    self.save()?;
                    let changed = match known {
                        Some(known) => changing.change(snapshot.clone(), known)?,
                        None => None,
                    };
                    match changed {
                        Some(changed) => {
                            outcome.files += changed.files;
                            outcome.bytes_written += changed.bytes_written;
                        }
                        None => {
                            let report = changing.replace(snapshot)?;
                            outcome.files += report.files;
                            outcome.bytes_written += report.bytes_written;
                        }
                    }
                    self.reached_root(&name, Some(root));
                    self.save()?;
                }
                _ => {}
            }
        }
        if let Some(layers) = layers {
            *layers = own_files;
        }
        require_whole(self.heard)?;
        Ok(outcome)
    }

    /// The source is fenced: this side runs from now on.
    fn activate(
        &mut self,
        repo: &Repository,
        restoring: &mut Restoring<'_>,
        early: bool,
        starts: Vec<String>,
        layers: Vec<StoredSnapshot>,
    ) -> OperationResult<Outcome> {
        if !early {
            restoring.containers()?;
            restoring.require_made(true)?;
        }
        if !layers.is_empty() {
            let mut options = options("", Fit::default());
            options.views = restoring.views();
            let reader = reading::reader(repo, self.heard)?;
            let changing = Changing {
                repo,
                reader: &reader,
                target: as_target(&*self.side.host),
                options: &options,
                in_haste: true,
                monitor: self.heard,
            };
            // The container of a unit is made by that.
            let made = layers.into_iter();
            for layer in made.filter(|layer| self.is_ours(&layer.header.item)) {
                changing.replace(layer)?;
            }
        }
        self.far.units = restoring.services();
        self.far.unit_files = restoring.unit_paths();
        self.save()?;
        restoring.units()?;
        if let Some(error) = restoring.failed.take() {
            return Err(error.into());
        }
        restoring.settle()?;
        self.far.reached = Reached::Active;
        self.far.starts = starts.clone();
        self.save()?;
        let since = restoring.start()?;
        Ok(Outcome {
            started: self.side.host.at_work(&starts)?,
            seconds: since.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            ..Outcome::default()
        })
    }

    fn withdraw(&mut self, discard: bool) -> OperationResult<Outcome> {
        if self.far.reached == Reached::Active && !discard {
            return Err(OperationError::Refused {
                message: "what was moved ran here, and may have written".into(),
                hint: "--rollback --discard-target-writes goes back to what the source holds"
                    .into(),
            });
        }
        let made: Vec<Item> = self
            .far
            .made
            .iter()
            .filter_map(|text| item_of(text))
            .collect();
        let containers = made.iter().filter(|item| item.kind == ItemKind::Container);
        let names: Vec<String> = containers
            .map(|item| String::from_utf8_lossy(&item.name).into_owned())
            .collect();
        self.remove_units()?;
        let host = &*self.side.host;
        host.stop(&names)?;
        let (volumes, others): (Vec<&Item>, Vec<&Item>) =
            made.iter().partition(|item| item.kind == ItemKind::Volume);
        for item in others.into_iter().rev().chain(volumes) {
            host.remove(item)?;
        }
        self.far = Far::default();
        self.save()?;
        Ok(Outcome::default())
    }

    /// With their containers, which they remove themselves.
    fn remove_units(&mut self) -> OperationResult<()> {
        let (units, files) = (&self.far.units, &self.far.unit_files);
        self.side.host.remove_units(units, files)?;
        self.far.units.clear();
        self.far.unit_files.clear();
        Ok(())
    }

    fn finish(&mut self) -> OperationResult<Outcome> {
        self.repo = None;
        if let Some(folder) = self.folder.take() {
            folder.remove()?;
        }
        self.far = Far::default();
        Ok(Outcome::default())
    }
}

fn as_target(host: &dyn TargetHost) -> &dyn Target {
    host
}

fn volume(name: &str) -> Item {
    Item::new(ItemKind::Volume, name.as_bytes())
}

/// What this machine is: the same on both sides of a migration on one machine.
pub(super) fn machine() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

fn options(run: &str, fit: Fit) -> RestoreOptions {
    RestoreOptions {
        all: true,
        ignore_quota: fit.ignore_quota,
        replay: ReplayOptions {
            remap_subnet: fit.remap_subnet,
            drop_static: fit.drop_static,
            drop_missing: fit.drop_missing,
            ports_come_free: fit.ports_come_free,
            userns_map: fit.userns_map,
            enable_linger: fit.enable_linger,
            ..ReplayOptions::default()
        },
        start: true,
        ..RestoreOptions::of(SnapSpec {
            which: SnapWhich::Prefix(run.to_owned()),
            host: None,
        })
    }
}

fn snapshots(
    repo: &Repository,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<StoredSnapshot>> {
    let (_, chosen) = select::resolve(repo, &options.snapshot, &[], monitor)?;
    Ok(chosen.into_iter().map(|(snapshot, _)| snapshot).collect())
}

/// The trees of the volumes of a run.
fn roots(
    repo: &Repository,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<(String, TreeId)>> {
    let volumes = snapshots(repo, options, monitor)?.into_iter();
    let volumes = volumes.filter(|one| one.header.item.kind == ItemKind::Volume);
    Ok(volumes
        .filter_map(|one| {
            let name = String::from_utf8_lossy(&one.header.item.name).into_owned();
            Some((name, one.body?.root?))
        })
        .collect())
}

/// Nothing that could not be written is taken for moved.
fn require_whole(heard: &Heard) -> OperationResult<()> {
    let found = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
    let left = found.iter().find(|finding| {
        matches!(
            finding.kind,
            FindingKind::NotRestored | FindingKind::Damaged
        )
    });
    match left {
        Some(finding) => Err(refused(format!("{}: {}", finding.object, finding.message))),
        None => Ok(()),
    }
}

fn prove(restoring: &mut Restoring<'_>) -> OperationResult<Outcome> {
    restoring.prove()?;
    Ok(Outcome {
        proofs: restoring.report.proofs.iter().map(proven).collect(),
        ..Outcome::default()
    })
}

fn proven(proof: &Proof) -> Proven {
    Proven {
        item: proof.item.to_string(),
        fields: proof.fields,
        differences: proof
            .differences
            .iter()
            .map(|one| {
                let why = one.reason.map_or("unexplained", |reason| reason.words());
                format!("{}: {why}", one.field)
            })
            .collect(),
        unexplained: proof
            .differences
            .iter()
            .filter(|d| d.reason.is_none())
            .count() as u64,
    }
}
