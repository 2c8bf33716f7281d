//! The way back to the source: as it was left, or with what the target has written since.
//!
//! What the target holds is brought into the source's volumes, which nobody uses, while the target still
//! runs, then once more when that is stopped. Only then it is withdrawn, and only then the source starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podkeep_format::id::TreeId;
use podkeep_format::item::{Item, ItemKind};

use super::carry::{Archives, told};
use super::far::{options as fitted, roots, snapshots};
use super::orders::{Fit, Order, Outcome, Reached};
use super::predict::{PASS_SHORT, PASSES_MAX, SHRINKS};
use super::source::{self, Passes, open_staging};
use super::state::{Folder, Near, Phase};
use super::{
    MigrateOptions, MigrateReport, Sides, Step, Watch, item_of, meet, order, require_same_way,
    unknown,
};
use crate::host::{Existing, Source, Target};
use crate::monitor::{Collect, Monitor};
use crate::operations::restore::change::Changing;
use crate::operations::restore::{Coming, Restoring, restore};
use crate::operations::{
    ItemPath, OperationError, OperationResult, RestoreOptions, Selector, SnapSpec, SnapWhich,
    Views, reading,
};
use crate::repo::{Repository, StoredSnapshot};

/// Goes back to the source. `discard`: as it was left, also where the target ran; else with what that
/// wrote.
pub fn rollback(
    sides: &Sides<'_>,
    options: &MigrateOptions,
    discard: bool,
    watch: &dyn Watch,
) -> OperationResult<MigrateReport> {
    let started = Instant::now();
    let folder = Folder::lock(sides.state, &sides.name, Duration::ZERO)?;
    let mut near: Near = folder.read()?;
    if near == Near::default() {
        return Err(unknown());
    }
    Archives::clear(&folder)?;
    require_same_way(sides, &near)?;
    // While nobody can say that the target rests, the source does not come back.
    let met = meet(sides, watch)?;
    // A finish that was cut off ended it there, and what was moved runs on.
    if near.phase == Phase::Active && !near.returning && met.reached == Reached::Nothing {
        return Err(forgotten(&near));
    }
    for finding in sides.source.thaw_leftovers() {
        watch.finding(finding);
    }
    let was_released = near.phase != Phase::Prepared || near.releasing;
    let is_active = met.reached == Reached::Active;
    let brings = is_active && !discard;
    let gone = match was_released {
        true => Gone::at(sides, &near)?,
        false => Gone::default(),
    };
    // What may fail comes before the target gives anything up.
    let needs = brings || near.brought || !near.returned.is_empty() || !gone.is_empty();
    let opened = match (needs, sides.through) {
        (true, None) => Some(open_staging(sides, &folder, &near, &met.repository, false)?),
        _ => None,
    };
    let repo = sides.through.or(opened.as_ref());
    if let Some(repo) = repo {
        gone.restore_foundation(sides, repo, &near, watch)?;
    }
    let mut freeze = Instant::now();
    if brings && let Some(repo) = repo {
        let through = sides.through.map(|repo| repo.id().to_hex());
        let key = near.key.clone();
        order(sides, &Order::Open { key, through }, watch)?;
        near.brought = true;
        folder.write(&near)?;
        let bringing = Bringing::begin(sides, options, watch, repo, &near)?;
        freeze = bringing.bring(&folder, &mut near)?;
    } else if is_active {
        near.returned.clear();
    }
    near.returning = true;
    folder.write(&near)?;
    if discard
        && near.brought
        && is_active
        && let Some(repo) = repo
    {
        as_it_was(sides, repo, &near, watch)?;
    }
    let discard = discard || brings;
    order(sides, &Order::Withdraw { discard }, watch)?;
    if was_released {
        come_back(sides, repo, &near, watch)?;
    }
    let containers = near.ran.clone();
    near = Near {
        key: near.key,
        items: near.items,
        ..Near::default()
    };
    folder.write(&near)?;
    watch.step(Step::Started { containers });
    if let Err(cause) = sides.road.rolled_back() {
        watch.finding(source::warning("--on-rollback", cause));
    }
    Ok(MigrateReport {
        phase: Phase::Prepared,
        items: near.items.len() as u64,
        freeze_seconds: match brings {
            true => freeze.elapsed().as_secs_f64(),
            false => 0.0,
        },
        bytes_sent: sides.road.bytes(),
        seconds: started.elapsed().as_secs_f64(),
        ..MigrateReport::default()
    })
}

/// Nobody but a person can tell whether the target runs it, and what holds it back here is taken back by hand.
fn forgotten(near: &Near) -> OperationError {
    let mut by_hand: Vec<String> = Vec::new();
    for unit in near.units.iter().filter(|unit| !unit.masked) {
        by_hand.push(format!("systemctl unmask {}", unit.service));
    }
    for fence in near.fences.iter().filter(|fence| !fence.removed) {
        if let Some(policy) = &fence.policy {
            by_hand.push(format!(
                "podman update --restart={policy} {}",
                fence.container
            ));
        }
    }
    let gone = |name: &&String| {
        let mut removed = near.fences.iter().filter(|fence| fence.removed);
        removed.any(|fence| fence.container == **name)
    };
    let (removed, there): (Vec<&String>, Vec<&String>) = near.ran.iter().partition(gone);
    by_hand.extend(there.iter().map(|name| format!("podman start {name}")));
    by_hand.extend(
        removed
            .iter()
            .map(|name| format!("restore container {name} from a backup")),
    );
    OperationError::Refused {
        message: "the target has forgotten this migration (--finish was cut off, or its state is lost), and may \
                  run what was moved"
            .into(),
        hint: format!(
            "--finish ends it here, too; if nothing of it runs there, by hand: {}",
            by_hand.join("; ")
        ),
    }
}

/// What was moved and is not at the source any more. People run jobs that prune what is stopped, and what
/// nothing uses.
#[derive(Default)]
struct Gone {
    /// Images, networks, secrets and pods: the run that holds all has them.
    foundation: Vec<Item>,
    volumes: Vec<Item>,
    containers: Vec<Item>,
}

impl Gone {
    fn at(sides: &Sides<'_>, near: &Near) -> OperationResult<Self> {
        let there = Source::inventory(sides.source)?;
        let items: Vec<Item> = near.items.iter().filter_map(|text| item_of(text)).collect();
        let of = |kind: ItemKind, is_there: &dyn Fn(&Item) -> bool| -> Vec<Item> {
            let items = items.iter().filter(|item| item.kind == kind);
            items.filter(|item| !is_there(item)).cloned().collect()
        };
        let fenced = |item: &Item| {
            let mut fences = near.fences.iter();
            fences.any(|fence| fence.container.as_bytes() == item.name)
        };
        // What a unit makes is made by it.
        let mut containers = of(ItemKind::Container, &|item| {
            there.containers.iter().any(|one| one.item() == *item)
        });
        containers.retain(fenced);
        let volumes = of(ItemKind::Volume, &|item| {
            let mut all = there.volumes.iter();
            all.any(|one| one.name.as_bytes() == item.name)
        });
        let mut foundation = of(ItemKind::Network, &|item| {
            there.networks.iter().any(|one| one.item() == *item)
        });
        foundation.extend(of(ItemKind::Secret, &|item| {
            there.secrets.iter().any(|one| one.item() == *item)
        }));
        // These matter to containers that are made anew.
        if !containers.is_empty() {
            foundation.extend(of(ItemKind::Pod, &|item| {
                there.pods.iter().any(|one| one.item() == *item)
            }));
            foundation.extend(of(ItemKind::Image, &|item| {
                there.images.iter().any(|one| one.item() == *item)
            }));
        }
        Ok(Self {
            foundation,
            volumes,
            containers,
        })
    }

    fn is_empty(&self) -> bool {
        self.foundation.is_empty() && self.volumes.is_empty() && self.containers.is_empty()
    }

    /// Everything but containers, which could start by themselves.
    fn restore_foundation(
        &self,
        sides: &Sides<'_>,
        repo: &Repository,
        near: &Near,
        monitor: &dyn Monitor,
    ) -> OperationResult<()> {
        put_back(sides, repo, &near.whole, &self.foundation, monitor)?;
        put_back(sides, repo, &near.last, &self.volumes, monitor)?;
        let left = Self::at(sides, near)?;
        let mut left = left.foundation.iter().chain(&left.volumes);
        match left.next() {
            None => Ok(()),
            Some(item) => Err(OperationError::Refused {
                message: format!("{item} is gone at the source and could not be restored there"),
                hint: "the target runs on; what was found says why".into(),
            }),
        }
    }
}

fn put_back(
    sides: &Sides<'_>,
    repo: &Repository,
    run: &str,
    items: &[Item],
    monitor: &dyn Monitor,
) -> OperationResult<()> {
    if items.is_empty() {
        return Ok(());
    }
    let items = items.iter().map(|item| ItemPath {
        selector: Selector {
            item: item.clone(),
            glob: false,
        },
        path: Vec::new(),
    });
    let options = RestoreOptions {
        items: items.collect(),
        only: true,
        existing: Existing::Merge,
        ..RestoreOptions::of(SnapSpec {
            which: SnapWhich::Prefix(run.to_owned()),
            host: None,
        })
    };
    restore(repo, sides.source, &options, monitor)?;
    Ok(())
}

/// Brings the source's volumes back to what they were when it was stopped.
fn as_it_was(
    sides: &Sides<'_>,
    repo: &Repository,
    near: &Near,
    monitor: &dyn Monitor,
) -> OperationResult<()> {
    let mut options = fitted(&near.last, Fit::default());
    options.views = views(sides, repo, near)?;
    let snapshots = snapshots(repo, &options, monitor)?;
    let reader = reading::reader(repo, monitor)?;
    let changing = Changing {
        repo,
        reader: &reader,
        target: sides.source,
        options: &options,
        in_haste: false,
        monitor,
    };
    let volumes = snapshots.into_iter();
    for volume in volumes.filter(|one| one.header.item.kind == ItemKind::Volume) {
        changing.replace(volume)?;
    }
    Ok(())
}

/// The source runs again as it did: containers that are gone come back from their snapshot, and
/// `returned` ones get the files of their own that they had at the target.
pub(super) fn come_back(
    sides: &Sides<'_>,
    repo: Option<&Repository>,
    near: &Near,
    monitor: &dyn Monitor,
) -> OperationResult<()> {
    if let Some(repo) = repo {
        let gone = Gone::at(sides, near)?.containers;
        put_back(sides, repo, &near.last, &gone, monitor)?;
        if let Some(item) = Gone::at(sides, near)?.containers.first() {
            return Err(OperationError::Refused {
                message: format!("{item} could not be restored at the source, and nothing runs"),
                hint: "what was found says why; --rollback again goes on".into(),
            });
        }
        if !near.returned.is_empty() {
            let options = fitted(&near.returned, Fit::default());
            let snapshots = snapshots(repo, &options, monitor)?;
            let own = |one: &StoredSnapshot| one.header.item.kind == ItemKind::Container;
            let reader = reading::reader(repo, monitor)?;
            let mut options = fitted("", Fit::default());
            options.views = views(sides, repo, near)?;
            let changing = Changing {
                repo,
                reader: &reader,
                target: sides.source,
                options: &options,
                in_haste: true,
                monitor,
            };
            for layer in snapshots.into_iter().filter(own) {
                changing.replace(layer)?;
            }
        }
    }
    for fence in &near.fences {
        sides.source.let_go(fence)?;
    }
    sides.source.let_go_units(&near.units)?;
    sides.source.start(&near.infra)?;
    // What was in memory belongs to what the volumes held then.
    if near.returned.is_empty() {
        for cold in sides.source.resume(&near.checkpoints)? {
            monitor.finding(told(cold));
        }
    } else {
        sides.source.forget(&near.checkpoints)?;
    }
    sides.source.start(&near.ran)?;
    Ok(sides.source.start_units(&near.units)?)
}

/// How the source's containers see owners.
fn views(sides: &Sides<'_>, repo: &Repository, near: &Near) -> OperationResult<Views> {
    let options = fitted(&near.whole, Fit::default());
    let target: &dyn Target = sides.source;
    let all = |_: &Item| false;
    // That its own names are taken is no news.
    let quiet = Collect::default();
    Ok(Restoring::plan(repo, target, &options, &quiet, &Coming::default(), &all)?.views())
}

/// Bringing back what the target has written.
struct Bringing<'a> {
    sides: &'a Sides<'a>,
    options: &'a MigrateOptions,
    watch: &'a dyn Watch,
    repo: &'a Repository,
    views: Views,
    /// What the source's volumes hold.
    at: BTreeMap<String, TreeId>,
}

impl<'a> Bringing<'a> {
    /// Looks what the source holds: somebody may have changed it since.
    fn begin(
        sides: &'a Sides<'a>,
        options: &'a MigrateOptions,
        watch: &'a dyn Watch,
        repo: &'a Repository,
        near: &Near,
    ) -> OperationResult<Self> {
        let inventory = Source::inventory(sides.source)?;
        let items = near.items.iter().filter_map(|text| item_of(text));
        let volumes: Vec<Item> = items.filter(|item| item.kind == ItemKind::Volume).collect();
        let passes = Passes {
            source: sides.source,
            staging: repo,
            repo,
            inventory: &inventory,
            options,
            watch,
            known: Arc::default(),
        };
        let at = match volumes.is_empty() {
            true => BTreeMap::new(),
            false => {
                let run = passes.run(&volumes, true)?.run;
                let run = run.map(|run| run.to_hex()).unwrap_or_default();
                let options = fitted(&run, Fit::default());
                roots(repo, &options, watch)?.into_iter().collect()
            }
        };
        Ok(Self {
            sides,
            options,
            watch,
            repo,
            views: views(sides, repo, near)?,
            at,
        })
    }

    /// Since when the target is at rest.
    fn bring(mut self, folder: &Folder, near: &mut Near) -> OperationResult<Instant> {
        let mut before = f64::MAX;
        for number in 1..=PASSES_MAX {
            let seconds = self.pass(number)?;
            let shrinks = number == 1 || seconds < before * SHRINKS;
            before = seconds;
            if seconds < PASS_SHORT || !shrinks {
                break;
            }
        }
        let since = Instant::now();
        let max = u64::try_from(self.options.max_freeze.as_millis()).unwrap_or(u64::MAX);
        // From here on neither side runs until the source does.
        near.returning = true;
        folder.write(near)?;
        let before = self.sides.road.bytes();
        let done = match self.order(Some(max)) {
            // What is refused was not done: the target goes on.
            Err(error @ OperationError::Refused { .. }) => {
                near.returning = false;
                folder.write(near)?;
                return Err(error);
            }
            done => done?,
        };
        self.take_and_tell(PASSES_MAX + 1, true, &done, since, before)?;
        near.returned = done.run;
        folder.write(near)?;
        Ok(since)
    }

    fn order(&self, max_freeze_ms: Option<u64>) -> OperationResult<Outcome> {
        order(self.sides, &Order::Return { max_freeze_ms }, self.watch)
    }

    /// While the target runs. How long it took.
    fn pass(&mut self, number: u32) -> OperationResult<f64> {
        let (since, before) = (Instant::now(), self.sides.road.bytes());
        let done = self.order(None)?;
        self.take_and_tell(number, false, &done, since, before)
    }

    fn take_and_tell(
        &mut self,
        number: u32,
        at_rest: bool,
        done: &Outcome,
        since: Instant,
        bytes_before: u64,
    ) -> OperationResult<f64> {
        if !done.run.is_empty() {
            self.take(&done.run)?;
        }
        let seconds = since.elapsed().as_secs_f64();
        self.watch.step(Step::Pass {
            number,
            at_rest,
            bytes_read: done.bytes_read,
            bytes_sent: self.sides.road.bytes() - bytes_before,
            seconds,
        });
        Ok(seconds)
    }

    /// Brings the source's volumes to what a run of the target's holds.
    fn take(&mut self, run: &str) -> OperationResult<()> {
        let mut options = fitted(run, Fit::default());
        options.views = self.views.clone();
        let _lease = reading::lease(self.repo, self.watch)?;
        let snapshots = snapshots(self.repo, &options, self.watch)?;
        let reader = reading::reader(self.repo, self.watch)?;
        let changing = Changing {
            repo: self.repo,
            reader: &reader,
            target: self.sides.source,
            options: &options,
            in_haste: false,
            monitor: self.watch,
        };
        for snapshot in snapshots {
            let root = snapshot.body.as_ref().and_then(|body| body.root);
            let item = snapshot.header.item.clone();
            let (ItemKind::Volume, Some(root)) = (item.kind, root) else {
                continue;
            };
            let name = String::from_utf8_lossy(&item.name).into_owned();
            let known = self.at.remove(&name);
            if known != Some(root) {
                let changed = match known {
                    Some(known) => changing.change(snapshot.clone(), known)?,
                    None => None,
                };
                if changed.is_none() {
                    changing.replace(snapshot)?;
                }
            }
            self.at.insert(name, root);
        }
        Ok(())
    }
}
