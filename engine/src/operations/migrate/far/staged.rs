//! From what was made to what runs: filling, changing and starting what a migration brings.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, PoisonError};

use podkeep_format::id::TreeId;
use podkeep_format::item::{Item, ItemKind};

use super::{Heard, Work, as_target, options, refused, volume};
use crate::host::Target;
use crate::host::replay::Proof;
use crate::monitor::{FindingKind, Monitor};
use crate::operations::migrate::orders::{Fit, Order, Outcome, Proven, Reached};
use crate::operations::migrate::session::Job;
use crate::operations::migrate::text_of;
use crate::operations::restore::change::Changing;
use crate::operations::restore::{Coming, Restoring};
use crate::operations::{OperationResult, RestoreOptions, Views, reading, select};
use crate::repo::{Repository, StoredSnapshot};

impl Work<'_> {
    /// Everything from the preparing to the end of what stands on it. An order that belongs elsewhere
    /// is left in `waiting`.
    pub(super) fn prepared(
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
            *self.heard.written.lock() = Outcome::default();
            let result = match serde_json::from_slice(&order) {
                Ok(Order::Change { run, last }) => {
                    let layers = last.then_some(&mut layers);
                    self.change(repo, &run, &restoring.views(), layers)
                }
                Ok(Order::Activate {
                    starts,
                    checkpoints,
                }) if self.far.reached == Reached::Staged => {
                    (self.far.starts, self.far.checkpoints) = (starts, checkpoints);
                    let layers = std::mem::take(&mut layers);
                    self.activate(repo, &mut restoring, early, layers)
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
                ItemKind::Path if layers.is_some() => {
                    self.take_archives(repo, &reader, snapshot)?
                }
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
        self.save()?;
        self.resume()?;
        let since = restoring.start()?;
        Ok(Outcome {
            started: self.side.host.at_work(&self.far.starts)?,
            seconds: since.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            ..Outcome::default()
        })
    }
}

pub(in crate::operations::migrate) fn snapshots(
    repo: &Repository,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<StoredSnapshot>> {
    let (_, chosen) = select::resolve(repo, &options.snapshot, &[], monitor)?;
    Ok(chosen.into_iter().map(|(snapshot, _)| snapshot).collect())
}

/// The trees of the volumes of a run.
pub(in crate::operations::migrate) fn roots(
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
    let found = heard
        .findings
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
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
