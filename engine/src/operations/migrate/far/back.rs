//! What the target stores of what it holds, for the way back.

use std::sync::Arc;
use std::time::Duration;

use podkeep_format::item::{Item, ItemKind};
use podkeep_format::snapshot::Consistency;

use super::{Heard, Work, not_open, refused, volume};
use crate::host::{FreezeRequest, Source};
use crate::monitor::Monitor;
use crate::operations::migrate::orders::{Outcome, Reached};
use crate::operations::migrate::source::Passes;
use crate::operations::migrate::{MigrateOptions, Step, Watch, item_of};
use crate::operations::{OperationError, OperationResult};

impl Watch for Heard {
    fn step(&self, _: Step) {}
}

impl Work<'_> {
    /// `max_freeze_ms`: stops what runs, and leaves it so.
    pub(super) fn bring_back(&mut self, max_freeze_ms: Option<u64>) -> OperationResult<Outcome> {
        if self.far.reached != Reached::Active {
            return Err(refused("nothing that was moved runs here".into()));
        }
        let repo = self.contents.clone().ok_or_else(not_open)?;
        let host = &*self.side.host;
        let inventory = Source::inventory(host)?;
        let is_moved = |name: &String| {
            let item = Item::new(ItemKind::Container, name.as_bytes());
            self.far.starts.contains(name) || self.is_ours(&item)
        };
        let mut items = Vec::new();
        for (name, _) in &self.far.volumes {
            let Some(facts) = inventory.volumes.iter().find(|one| one.name == *name) else {
                return Err(refused(format!("volume {name} is not here any more")));
            };
            if let Some(other) = facts.used_by_running.iter().find(|one| !is_moved(one)) {
                return Err(OperationError::Refused {
                    message: format!("container {other} uses volume {name}, which is to go back"),
                    hint: format!("podman stop {other}"),
                });
            }
            items.push(volume(name));
        }
        let guard = match max_freeze_ms {
            None => None,
            Some(max) => {
                let made = self.far.made.iter().filter_map(|text| item_of(text));
                let made: Vec<Item> = made
                    .filter(|item| item.kind == ItemKind::Container)
                    .collect();
                let there = |item: &Item| {
                    let mut all = inventory.containers.iter();
                    all.any(|one| one.item() == *item)
                };
                items.extend(made.iter().filter(|item| there(item)).cloned());
                let running = host.at_work(&self.far.starts)?;
                let freezing = host.freeze(&FreezeRequest {
                    containers: running.clone(),
                    how: Consistency::Stop,
                    must: true,
                    max: Duration::from_millis(max),
                    checkpoints: None,
                    needs: Vec::new(),
                })?;
                for finding in freezing.findings {
                    self.heard.finding(finding);
                }
                if freezing.guard.is_none() && !running.is_empty() {
                    return Err(refused("what runs here could not be stopped".into()));
                }
                freezing.guard
            }
        };
        let options = MigrateOptions::default();
        let passes = Passes {
            source: host,
            staging: &repo,
            repo: &repo,
            inventory: &inventory,
            options: &options,
            watch: self.heard,
            known: Arc::clone(&self.known),
        };
        let mut outcome = Outcome::default();
        if !items.is_empty() {
            // An error drops the guard, and all goes on.
            let report = passes.run(&items, max_freeze_ms.is_some())?;
            outcome.run = report.run.map(|run| run.to_hex()).unwrap_or_default();
            outcome.bytes_read = report.bytes_read;
        }
        if let Some(guard) = guard
            && (!guard.holds() || guard.leave().is_none())
        {
            return Err(refused(
                "it was not stored within --max-freeze, and goes on here".into(),
            ));
        }
        Ok(outcome)
    }
}
