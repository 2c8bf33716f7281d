//! The gap, from the stop of the source to the start of the target, and what goes on from it when it was
//! cut off.

use std::time::Instant;

use podkeep_format::item::ItemKind;
use podkeep_format::snapshot::Consistency;

use super::carry::Archives;
use super::orders::{Order, Outcome, Reached};
use super::scope::Scope;
use super::source::{self, Passes};
use super::state::Phase;
use super::{FreezeParts, Migration, Step, back, of_kinds};
use crate::host::FreezeRequest;
use crate::operations::{OperationError, OperationResult};

impl Migration<'_> {
    /// The gap: from the stop of the source to the start of the target.
    pub(super) fn move_over(
        &mut self,
        passes: &Passes<'_>,
        scope: &Scope,
        mut number: u32,
    ) -> OperationResult<()> {
        let sides = self.sides;
        self.near.ran = scope.running.clone();
        self.near.infra = sides.source.at_work(&scope.infra)?;
        // What a unit makes is held back by the unit. A pod with a restart policy gives its infra
        // container one, too.
        let all = scope.containers.iter().chain(&self.near.infra);
        self.near.fences = all
            .filter(|name| !scope.by_unit.contains(name))
            .map(|name| sides.source.would_hold_back(name))
            .collect::<Result<_, _>>()?;
        let infra = &self.near.infra;
        let mut removed = self.near.fences.iter().filter(|fence| fence.removed);
        if let Some(fence) = removed.find(|fence| infra.contains(&fence.container)) {
            return Err(OperationError::Refused {
                message: format!(
                    "the infra container {} has a restart policy that this Podman cannot change: it \
                     would come back at the next boot",
                    fence.container
                ),
                hint: "make the pod anew without a restart policy".into(),
            });
        }
        self.near.units = scope
            .services
            .iter()
            .map(|service| sides.source.would_hold_back_unit(service))
            .collect::<Result<_, _>>()?;
        self.save()?;
        let archives = match self.options.checkpoint && !scope.running.is_empty() {
            true => Some(Archives::make(&self.folder)?),
            false => None,
        };
        let since = Instant::now();
        let guard = match scope.running.is_empty() {
            true => None,
            false => {
                let freezing = sides.source.freeze(&FreezeRequest {
                    containers: scope.running.clone(),
                    how: Consistency::Stop,
                    must: true,
                    max: self.options.max_freeze,
                    checkpoints: archives.as_ref().map(|archives| archives.path.clone()),
                    needs: Vec::new(),
                })?;
                let why = freezing
                    .findings
                    .iter()
                    .map(|finding| finding.message.clone());
                let why: Vec<String> = why.collect();
                for finding in freezing.findings {
                    self.watch.finding(finding);
                }
                let guard = freezing.guard;
                Some(guard.ok_or_else(|| OperationError::Refused {
                    message: format!("the source could not be stopped: {}", why.join("; ")),
                    hint: String::new(),
                })?)
            }
        };
        if let Some(archives) = &archives {
            // One that ended by itself meanwhile has none.
            self.near.checkpoints = archives.of(&scope.running);
        }
        self.watch.step(Step::Stopped {
            containers: scope.running.clone(),
        });
        // An error drops the guard, and the source goes on.
        let mut items = of_kinds(scope, &[ItemKind::Volume, ItemKind::Container]);
        // Those of a unit went when they were stopped.
        items.retain(|item| {
            let by_unit = &scope.by_unit;
            item.kind != ItemKind::Container || !by_unit.iter().any(|n| n.as_bytes() == item.name)
        });
        items.extend(archives.as_ref().map(Archives::item));
        let last = match items.is_empty() {
            // Nothing of it changes.
            true => self.near.whole.clone(),
            false => {
                let pass = self.pass(passes, &mut number, &items, Some(true))?;
                self.report.freeze.read = pass.read;
                self.report.freeze.write = pass.seconds - pass.read;
                pass.run
            }
        };
        drop(archives);
        let passed = Instant::now();
        let late = || OperationError::Refused {
            message: "the target was not ready within --max-freeze; the source goes on, and what \
                      was sent is kept"
                .into(),
            hint: "run it again, or with a longer --max-freeze".into(),
        };
        self.near.last = last;
        self.near.releasing = true;
        self.save()?;
        let left = match guard {
            None => Some(passed.elapsed().as_secs_f64()),
            Some(guard) if guard.holds() && since.elapsed() < self.options.max_freeze => {
                guard.leave()
            }
            Some(_) => None,
        };
        let Some(at_rest) = left else {
            self.near.releasing = false;
            self.save()?;
            return Err(late());
        };
        let left = Instant::now();
        let parts = &mut self.report.freeze;
        parts.stop = at_rest - parts.read - parts.write - (left - passed).as_secs_f64();
        if let Err(error) = self.release(scope) {
            back::come_back(sides, None, &self.near, self.watch)?;
            self.near.releasing = false;
            self.save()?;
            return Err(error);
        }
        self.report.freeze.fence = passed.elapsed().as_secs_f64();
        let healthy = self.activate()?;
        let parts = &mut self.report.freeze;
        parts.start = (passed.elapsed().as_secs_f64() - parts.fence - healthy).max(0.0);
        self.report.freeze_seconds = match scope.running.is_empty() {
            true => {
                *parts = FreezeParts::default();
                0.0
            }
            false => at_rest + left.elapsed().as_secs_f64() - healthy,
        };
        self.prove()?;
        self.moved()
    }

    /// From here on the source does not come back by itself.
    fn release(&mut self, scope: &Scope) -> OperationResult<()> {
        let source = self.sides.source;
        // They hold the addresses and ports of their pods.
        source.hold_back_units(&self.near.units)?;
        source.stop(&self.near.infra)?;
        // Those that go when they stop are paused, and killed once that is safe.
        let fences = self.near.fences.iter().filter(|fence| fence.vanishes);
        let paused: Vec<String> = fences.map(|fence| fence.container.clone()).collect();
        let mut others = [&scope.containers[..], &self.near.infra].concat();
        others.retain(|name| !paused.contains(name));
        let mut at_work = source.at_work(&others)?;
        at_work.extend(source.awake(&paused)?);
        if !at_work.is_empty() {
            return Err(OperationError::Refused {
                message: format!("somebody started {} meanwhile", at_work.join(", ")),
                hint: "run it again".into(),
            });
        }
        for fence in self.near.fences.iter().filter(|fence| !fence.removed) {
            source.hold_back(fence)?;
        }
        self.near.phase = Phase::Released;
        self.near.releasing = false;
        self.save()?;
        // Only now: what is removed comes back from its snapshot alone.
        for fence in self.near.fences.iter().filter(|fence| fence.removed) {
            source.hold_back(fence)?;
        }
        Ok(())
    }

    /// Returns for how many seconds the last container ran when that was told.
    fn activate(&mut self) -> OperationResult<f64> {
        let starts = self.near.ran.clone();
        let checkpoints = self.near.checkpoints.clone();
        let activate = Order::Activate {
            starts,
            checkpoints,
        };
        let outcome = self.order(&activate).map_err(released)?;
        self.near.phase = Phase::Active;
        self.save()?;
        self.watch.step(Step::Started {
            containers: outcome.started,
        });
        Ok(outcome.seconds)
    }

    fn prove(&self) -> OperationResult<()> {
        for proof in self.order(&Order::Prove)?.proofs {
            self.watch.step(Step::Proof(proof));
        }
        Ok(())
    }

    fn moved(&self) -> OperationResult<()> {
        if let Err(cause) = self.sides.road.cut_over() {
            self.watch.finding(source::warning("--on-cutover", cause));
        }
        Ok(())
    }

    /// The source was released by a run that was cut off.
    pub(super) fn take_over_again(&mut self, met: &Outcome) -> OperationResult<()> {
        self.report.items = self.near.items.len() as u64;
        if self.options.checkpoint && self.near.checkpoints.is_empty() {
            let message = "the source was stopped without it, and its containers start anew";
            self.watch
                .finding(source::warning("--checkpoint", message.into()));
        }
        self.sides.source.hold_back_units(&self.near.units)?;
        self.sides.source.stop(&self.near.infra)?;
        for fence in &self.near.fences {
            self.sides.source.hold_back(fence)?;
        }
        // Somebody may have started it by hand meanwhile.
        let fenced = self.near.fences.iter().map(|fence| &fence.container);
        let all = self.near.ran.iter().chain(&self.near.infra).chain(fenced);
        let mut at_work = self
            .sides
            .source
            .at_work(&all.cloned().collect::<Vec<_>>())?;
        if !at_work.is_empty() {
            at_work.sort();
            at_work.dedup();
            return Err(OperationError::Refused {
                message: format!(
                    "somebody started {} at the source since it was released",
                    at_work.join(", ")
                ),
                hint: "stop it there and run this again, or go back with --rollback".into(),
            });
        }
        if met.reached != Reached::Active {
            let _repo = self.open(met)?;
            let prepare = Order::Prepare {
                run: self.near.whole.clone(),
                fit: self.near.fit,
            };
            self.order(&prepare).map_err(released)?;
            self.order(&Order::Change {
                run: self.near.last.clone(),
                last: true,
            })?;
        }
        self.activate()?;
        self.prove()?;
        self.moved()
    }
}

/// The source is stopped and stays so: whoever reads why has to know.
fn released(error: OperationError) -> OperationError {
    match error {
        OperationError::Refused { message, hint } => OperationError::Refused {
            message: format!("{message}; the source is stopped"),
            hint: match hint.is_empty() {
                true => "run it again, or go back with --rollback".to_owned(),
                false => format!("{hint}; or go back with --rollback"),
            },
        },
        other => other,
    }
}
