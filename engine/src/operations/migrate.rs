//! `migrate`: moves a service to another host, with its containers at rest only for the last delta.
//!
//! Nothing moves on a path of its own. Each pass is a backup into a staging repository that lies in the
//! target's state folder; where that lies, the target's side ([`far`]) restores it, and later passes
//! change what it restored. Both sides keep in a file how far they are ([`state`]):
//!
//! - *prepared*: the source runs, or goes on by itself,
//! - *released*: the source is stopped and kept from coming back; all of it is at the target,
//! - *active*: the target runs.
//!
//! The target is told to start only after *released* is durable at the source, and the source comes back
//! only after the target has withdrawn: so two never run (`decisions/0020-migrate.md`).

mod back;
mod carry;
mod far;
mod gap;
mod orders;
mod owners;
mod predict;
mod scope;
mod session;
mod source;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use podkeep_format::id::HostId;
use podkeep_format::item::{Escaped, Item, ItemKind, unescape};
use zeroize::{Zeroize, Zeroizing};

pub use self::back::rollback;
pub use self::far::{Reach, TargetSide};
pub use self::orders::{Fit, Need, Order, Outcome, Passed, Proven, Reached};
pub use self::session::Session;
pub use self::state::Phase;

use self::carry::{Archives, Carried};
use self::orders::Answer;
use self::predict::{PASS_SHORT, PASSES_MAX, Pace, SHRINKS, measure};
use self::scope::{Scope, scope};
use self::source::{Passes, open_staging};
use self::state::{Folder, Near};
use super::{OperationError, OperationResult, Selection};
use crate::fs::scan::Measured;
use crate::host::orders::Obey;
use crate::host::{About, Checkpoints, HostError, Keep, Source, Target};
use crate::monitor::{Monitor, Progress};
use crate::repo::Repository;
use crate::store::ObjectStore;

#[derive(Clone, Debug, Default)]
pub struct MigrateOptions {
    pub selection: Selection,
    /// Containers that use what moves come along.
    pub with_dependents: bool,
    /// They stay, and what they use is copied.
    pub split: bool,
    /// Flags of a person; whether ports come free is found out.
    pub fit: Fit,
    /// The source goes on if it was at rest for so long and the target could not take over.
    pub max_freeze: Duration,
    /// Processes go on at the target with what they have in memory.
    pub checkpoint: bool,
    pub dry_run: bool,
    pub zone_minutes: i16,
    pub wait: Duration,
}

/// Between two looks at what the target has written.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A host that a migration starts from or ends on: it may go back.
pub trait SideHost: Source + Target + Keep + Checkpoints {}

impl<H: Source + Target + Keep + Checkpoints> SideHost for H {}

/// The two sides, and what lies between them.
pub struct Sides<'a> {
    pub source: &'a dyn SideHost,
    /// The folder of what must last of the source's host.
    pub state: &'a Path,
    pub host: HostId,
    pub host_name: String,
    pub target: &'a dyn Obey,
    pub road: &'a dyn Road,
    /// Passes go through this one, which the target reaches by itself ([`through`]), instead of the
    /// staging repository.
    pub through: Option<&'a Repository>,
    /// Hex: the same for the same selection between the same hosts.
    pub name: String,
}

/// What lies between.
pub trait Road {
    /// The store at `path` of the target's machine, made if asked for.
    fn store(&self, path: &Path, make: bool) -> OperationResult<Arc<dyn ObjectStore>>;

    /// Bytes that went over it, both ways.
    fn bytes(&self) -> u64;

    /// The last pass before the stop comes next: whoever keeps in memory what it writes only when it is
    /// stopped may write it now. Whether something was done; `Err`: why not.
    fn before_stop(&self) -> Result<bool, String>;

    /// The target runs: addresses, names and proxies may follow. `Err`: why they do not.
    fn cut_over(&self) -> Result<(), String>;

    /// The source is back.
    fn rolled_back(&self) -> Result<(), String>;
}

/// A step of a migration, for people and programs.
#[derive(Clone, Debug)]
pub enum Step {
    /// Both sides know each other.
    Met {
        from: About,
        to: About,
    },
    Takes {
        items: Vec<Item>,
    },
    /// A pass is done.
    Pass {
        number: u32,
        at_rest: bool,
        bytes_read: u64,
        bytes_sent: u64,
        seconds: f64,
    },
    /// Before the stop.
    Predicted {
        seconds: f64,
        /// To be read again then.
        bytes: u64,
    },
    Stopped {
        containers: Vec<String>,
    },
    Started {
        containers: Vec<String>,
    },
    Proof(Proven),
}

/// Who is told.
pub trait Watch: Monitor {
    fn step(&self, step: Step);
}

#[derive(Clone, Debug, Default)]
pub struct MigrateReport {
    /// How far it is.
    pub phase: Phase,
    pub items: u64,
    /// From the first container that was stopped to the last that was started; predicted, for a dry
    /// run.
    pub freeze_seconds: f64,
    pub freeze: FreezeParts,
    pub bytes_sent: u64,
    /// Of a dry run: what images and volumes take.
    pub bytes_logical: u64,
    /// In the way, or what would be done: of a dry run.
    pub actions: Vec<String>,
    pub conflicts: Vec<String>,
    pub needs: Vec<Need>,
    pub seconds: f64,
}

/// What a freeze is made of, in seconds. Nothing else is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FreezeParts {
    /// Until all containers were stopped.
    pub stop: f64,
    /// Reading what changed, and sending it.
    pub read: f64,
    /// Writing it where it goes.
    pub write: f64,
    /// Until the source is kept from coming back.
    pub fence: f64,
    pub start: f64,
}

fn text_of(item: &Item) -> String {
    item.to_string()
}

fn item_of(text: &str) -> Option<Item> {
    let (kind, name) = text.split_once(':')?;
    let kind = ItemKind::ALL.into_iter().find(|one| one.word() == kind)?;
    Some(Item::new(kind, unescape(name.as_bytes())?))
}

/// Gives an order and takes its outcome.
fn order(sides: &Sides<'_>, order: &Order, monitor: &dyn Monitor) -> OperationResult<Outcome> {
    let outcome = give(sides.target, order)?;
    for told in outcome.findings.clone() {
        monitor.finding(told.into_finding());
    }
    Ok(outcome)
}

fn give(target: &dyn Obey, order: &Order) -> OperationResult<Outcome> {
    let odd = |error: serde_json::Error| {
        OperationError::Host(HostError::Unreachable {
            host: "the target's podkeep".into(),
            cause: format!("what it says makes no sense: {error}"),
        })
    };
    let bytes = serde_json::to_vec(order).map_err(odd)?;
    if bytes.len() > podkeep_format::wire::ORDER_BYTES_MAX {
        return Err(OperationError::Refused {
            message: "too much moves at once to be named in one order".into(),
            hint: "move it in several migrations".into(),
        });
    }
    let answer = target.obey(&bytes);
    drop(Zeroizing::new(bytes));
    let answer: Answer = serde_json::from_slice(&answer?).map_err(odd)?;
    match answer.into_plain() {
        Answer::Done(outcome) => Ok(*outcome),
        Answer::Failed { conflicts, .. } if !conflicts.is_empty() => {
            Err(OperationError::Conflicts { conflicts })
        }
        Answer::Failed { message, hint, .. } => Err(OperationError::Refused {
            message: format!("at the target: {message}"),
            hint,
        }),
    }
}

/// Tells the target where it finds the repository that passes go through, and gives it the keys. Whoever
/// has them does so: they are more than the source needs.
pub fn through(target: &dyn Obey, repository: &Repository, place: &str) -> OperationResult<()> {
    let keys = repository.hand_over();
    let mut told = Order::Through {
        place: place.to_owned(),
        keys: keys.to_string(),
    };
    let told_so = give(target, &told).map(drop);
    if let Order::Through { keys, .. } = &mut told {
        keys.zeroize();
    }
    told_so
}

/// Moves what `options` selects, or goes on with what was begun.
pub fn migrate(
    sides: &Sides<'_>,
    options: &MigrateOptions,
    watch: &dyn Watch,
) -> OperationResult<MigrateReport> {
    let started = Instant::now();
    let folder = Folder::lock(sides.state, &sides.name, options.wait)?;
    let near: Near = folder.read()?;
    Archives::clear(&folder)?;
    require_same_way(sides, &near)?;
    if near.returning {
        return Err(OperationError::Refused {
            message: "a rollback of this migration was begun and cut off".into(),
            hint: "--rollback again ends it".into(),
        });
    }
    let met = meet(sides, watch)?;
    let leaves_nothing = options.dry_run && near == Near::default() && !met.is_staged;
    let mut run = Migration {
        sides,
        options,
        watch,
        folder,
        near,
        report: MigrateReport::default(),
    };
    let moved = match run.near.phase {
        Phase::Active => Err(OperationError::Refused {
            message: "this is moved already".into(),
            hint: "--finish ends the migration, --rollback goes back".into(),
        }),
        Phase::Released => run.take_over_again(&met),
        Phase::Prepared => run.run_whole(&met),
    };
    run.report.bytes_sent = sides.road.bytes();
    run.report.phase = run.near.phase;
    run.report.seconds = started.elapsed().as_secs_f64();
    if leaves_nothing {
        let forgotten = run.order(&Order::Finish).map(drop);
        run.folder.remove()?;
        return moved.and(forgotten).map(|()| run.report);
    }
    moved.map(|()| run.report)
}

/// Ends a migration whose target runs: what a rollback needs goes.
pub fn finish(sides: &Sides<'_>, watch: &dyn Watch) -> OperationResult<MigrateReport> {
    let started = Instant::now();
    let folder = Folder::lock(sides.state, &sides.name, Duration::ZERO)?;
    let near: Near = folder.read()?;
    if near == Near::default() {
        return Err(unknown());
    }
    let is_under_way = near.phase == Phase::Released || near.releasing || near.returning;
    if is_under_way {
        return Err(OperationError::Refused {
            message: "neither side may run now".into(),
            hint: match near.returning {
                true => "--rollback again ends the rollback that was begun".into(),
                false => "run the migration again, or --rollback".into(),
            },
        });
    }
    meet(sides, watch)?;
    if near.phase == Phase::Prepared {
        // Nobody moved: what was sent goes, too.
        order(sides, &Order::Withdraw { discard: false }, watch)?;
    }
    order(sides, &Order::Finish, watch)?;
    folder.remove()?;
    Ok(MigrateReport {
        phase: near.phase,
        items: near.items.len() as u64,
        bytes_sent: sides.road.bytes(),
        seconds: started.elapsed().as_secs_f64(),
        ..MigrateReport::default()
    })
}

fn unknown() -> OperationError {
    OperationError::Refused {
        message: "there is no such migration here".into(),
        hint: "name the same items and hosts as when it was begun".into(),
    }
}

/// What a rollback needs lies where the passes went, once there was one.
fn require_same_way(sides: &Sides<'_>, near: &Near) -> OperationResult<()> {
    if near.whole.is_empty() {
        return Ok(());
    }
    let way = sides.through.map(|repo| repo.id().to_hex());
    if near.through == way {
        return Ok(());
    }
    let (message, hint) = match (&near.through, &way) {
        (Some(_), None) => (
            "this migration was begun by way of another repository",
            "name it with --via",
        ),
        (Some(_), Some(_)) => (
            "this migration was begun by way of another repository than --via names",
            "name the one that it was begun with",
        ),
        (None, _) => (
            "this migration was begun without --via",
            "leave it out; --rollback and --finish end what was begun",
        ),
    };
    Err(OperationError::Refused {
        message: message.into(),
        hint: hint.into(),
    })
}

fn meet(sides: &Sides<'_>, watch: &dyn Watch) -> OperationResult<Outcome> {
    let migration = sides.name.clone();
    let met = order(sides, &Order::Meet { migration }, watch)?;
    watch.step(Step::Met {
        from: sides.source.about()?,
        to: met.about.clone(),
    });
    Ok(met)
}

struct Migration<'a> {
    sides: &'a Sides<'a>,
    options: &'a MigrateOptions,
    watch: &'a dyn Watch,
    folder: Folder,
    near: Near,
    report: MigrateReport,
}

impl Migration<'_> {
    fn order(&self, what: &Order) -> OperationResult<Outcome> {
        order(self.sides, what, self.watch)
    }

    /// Gives an order that takes long, and shows what is written for it meanwhile.
    fn watched(&self, what: &Order) -> OperationResult<Outcome> {
        let (watch, target) = (self.watch, self.sides.target);
        watch.progress(Progress::Phase("restoring at the target"));
        watch.progress(Progress::Expect {
            files: 0,
            bytes: self.report.bytes_logical,
        });
        std::thread::scope(|scope| {
            let (over, ended) = channel::<()>();
            scope.spawn(move || {
                let mut told = Outcome::default();
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK_EVERY) {
                    // What went wrong is told by the order itself.
                    let Ok(now) = give(target, &Order::Progress) else {
                        return;
                    };
                    if now.item != told.item {
                        watch.progress(Progress::ItemStart { item: &now.item });
                    }
                    watch.progress(Progress::Advance {
                        files: now.files.saturating_sub(told.files),
                        bytes: now.bytes_written.saturating_sub(told.bytes_written),
                    });
                    told = now;
                }
            });
            let outcome = self.order(what);
            drop(over);
            outcome
        })
    }

    fn save(&self) -> OperationResult<()> {
        self.folder.write(&self.near)
    }

    fn open(&mut self, met: &Outcome) -> OperationResult<Repository> {
        let through = self.sides.through.map(|repo| repo.id().to_hex());
        if self.near.key.is_empty() {
            self.near.key = source::new_key()?;
            self.save()?;
        }
        // What was begun goes the same way.
        self.near.through.clone_from(&through);
        let repository = &met.repository;
        let repo = open_staging(self.sides, &self.folder, &self.near, repository, true)?;
        let key = self.near.key.clone();
        self.order(&Order::Open { key, through })?;
        Ok(repo)
    }

    fn run_whole(&mut self, met: &Outcome) -> OperationResult<()> {
        let sides = self.sides;
        for finding in sides.source.thaw_leftovers() {
            self.watch.finding(finding);
        }
        if self.near.releasing {
            // Cut off between stopping and releasing, when nothing that is armed brings it back.
            back::come_back(sides, None, &self.near, self.watch)?;
            self.near.releasing = false;
            self.save()?;
        }
        let inventory = Source::inventory(sides.source)?;
        let selected = source::selected(sides, &inventory, &self.options.selection, self.watch)?;
        let scope = scope(&inventory, selected, self.options, self.watch)?;
        source::require_own_units(sides.source, &scope)?;
        self.watch.step(Step::Takes {
            items: scope.items.clone(),
        });
        for job in sides.source.jobs() {
            let told = format!("{job}; --rollback restores what is gone then");
            self.watch.finding(source::note("the source", told));
        }
        self.report.items = scope.items.len() as u64;
        self.near.items = scope.items.iter().map(text_of).collect();
        self.near.fit = Fit {
            ports_come_free: met.machine == far::machine(),
            ..self.options.fit
        };
        let repo = self.open(met)?;
        let passes = Passes {
            source: sides.source,
            staging: &repo,
            repo: sides.through.unwrap_or(&repo),
            inventory: &inventory,
            options: self.options,
            watch: self.watch,
            known: Arc::default(),
        };
        let carried = match self.options.checkpoint {
            true => Carried::look(sides.source, &inventory, &scope, &self.folder)?,
            false => Carried::default(),
        };
        let tells_owners = !(met.about.rootful && inventory.owners.is_identity());
        let mut measured = self.check(&passes, &scope, &carried, tells_owners)?;
        measured.bytes_restless += carried.bytes_moved();
        if self.options.dry_run {
            self.report.freeze_seconds = match scope.running.is_empty() {
                true => 0.0,
                false => Pace::default().predict(&measured),
            };
            return Ok(());
        }
        if !self.report.conflicts.is_empty() {
            return Err(OperationError::Conflicts {
                conflicts: std::mem::take(&mut self.report.conflicts),
            });
        }
        self.near.checkpoints.clear();
        let mut number = 0;
        let mut pace = Pace::default();
        let mut before = self.pass(&passes, &mut number, &scope.items, None)?;
        pace.pass(before.bytes_read, before.seconds);
        self.near.whole = before.run.clone();
        self.save()?;
        self.watched(&Order::Prepare {
            run: before.run.clone(),
            fit: self.near.fit,
        })?;
        let volumes: Vec<Item> = of_kinds(&scope, &[ItemKind::Volume]);
        // Whatever did not run is as it was.
        let changes = !scope.running.is_empty() && !volumes.is_empty();
        while changes && number < PASSES_MAX {
            let pass = self.pass(&passes, &mut number, &volumes, Some(false))?;
            pace.pass(pass.bytes_read, pass.seconds);
            let shrinks = number == 2 || pass.seconds < before.seconds * SHRINKS;
            before = pass;
            if before.seconds < PASS_SHORT || !shrinks {
                break;
            }
        }
        if changes && self.before_stop() {
            let pass = self.pass(&passes, &mut number, &volumes, Some(false))?;
            pace.pass(pass.bytes_read, pass.seconds);
        }
        let mut restless = Measured::default();
        // Else all of it was read by the first one.
        if changes {
            restless = measure(sides.source, &volumes)?;
        } else {
            pace.rests();
        }
        restless.bytes_restless += carried.bytes_moved();
        let (predicted, bytes) = (pace.predict(&restless), restless.bytes_restless);
        self.watch.step(Step::Predicted {
            seconds: predicted,
            bytes,
        });
        if predicted > self.options.max_freeze.as_secs_f64() {
            return Err(OperationError::Refused {
                message: format!(
                    "the containers would be at rest for some {predicted:.1} s, which is more than \
                     they may; what was sent is kept"
                ),
                hint: format!("--max-freeze={}s", predicted.ceil() * 2.0),
            });
        }
        self.move_over(&passes, &scope, number)
    }

    /// Whether something was done, so that another pass is worth its time.
    fn before_stop(&self) -> bool {
        match self.sides.road.before_stop() {
            Ok(done) => done,
            Err(cause) => {
                self.watch.finding(source::warning("--before-stop", cause));
                false
            }
        }
    }

    /// Looks for what is in the way before anything is sent but definitions. Returns what the volumes
    /// amount to.
    fn check(
        &mut self,
        passes: &Passes<'_>,
        scope: &Scope,
        carried: &Carried,
        tells_owners: bool,
    ) -> OperationResult<Measured> {
        let definitions = of_kinds(
            scope,
            &[
                ItemKind::Container,
                ItemKind::Pod,
                ItemKind::Network,
                ItemKind::Secret,
                ItemKind::Unit,
            ],
        );
        let run = passes.definitions(&definitions)?;
        let mut measured = Measured::default();
        let mut met = owners::Meeting::new(&passes.inventory.owners);
        for volume in of_kinds(scope, &[ItemKind::Volume]) {
            let one = passes.source.measure(&volume)?;
            // Where every id has a place nothing is to be told.
            if tells_owners {
                met.add(&volume, &one);
            }
            measured.add(&one);
        }
        let images = passes.inventory.images.iter();
        let images = images.filter(|image| scope.items.contains(&image.item()));
        let bytes = measured.bytes + images.clone().map(|image| image.bytes).sum::<u64>();
        // In the staging repository, as an archive, and beside its container.
        let bytes = bytes + 2 * carried.bytes;
        let checked = self.order(&Order::Check {
            run,
            images: images.map(|image| image.id.clone()).collect(),
            volumes: scope.names(ItemKind::Volume),
            bytes,
            fit: self.near.fit,
            ground: match self.options.checkpoint {
                true => Some(Box::new(self.sides.source.ground()?)),
                false => None,
            },
            owners: met.met,
        })?;
        self.report.actions = checked.actions;
        self.report.conflicts = checked.conflicts;
        self.report.conflicts.extend(carried.conflicts.clone());
        if self.options.checkpoint {
            // Else nothing is stopped yet when there is no room.
            let short = checked
                .needs
                .iter()
                .filter(|need| need.bytes > need.bytes_free);
            let short = short.map(|need| {
                format!(
                    "processes cannot go on at the target: it may take {} bytes at {}, where {} are free: \
                     leave out --checkpoint",
                    need.bytes, need.place, need.bytes_free
                )
            });
            self.report.conflicts.extend(short);
        }
        self.report.needs = checked.needs;
        self.report.bytes_logical = bytes;
        Ok(measured)
    }

    /// Reads, sends, and changes the target by it where it says so (`true`: for the last time).
    fn pass(
        &mut self,
        passes: &Passes<'_>,
        number: &mut u32,
        items: &[Item],
        change: Option<bool>,
    ) -> OperationResult<PassDone> {
        let since = Instant::now();
        let bytes_before = self.sides.road.bytes();
        let at_rest = change == Some(true);
        let report = passes.run(items, at_rest)?;
        let read = since.elapsed().as_secs_f64();
        if *number == 0 {
            self.report.bytes_logical = report.bytes_logical;
        }
        let run = report.run.map(|run| run.to_hex()).unwrap_or_default();
        if let Some(last) = change {
            self.order(&Order::Change {
                run: run.clone(),
                last,
            })?;
        }
        *number += 1;
        let seconds = since.elapsed().as_secs_f64();
        let local = report.bytes_added;
        let sent = self.sides.road.bytes() - bytes_before;
        self.watch.step(Step::Pass {
            number: *number,
            at_rest,
            bytes_read: report.bytes_read,
            bytes_sent: if sent == 0 { local } else { sent },
            seconds,
        });
        Ok(PassDone {
            run,
            seconds,
            read,
            bytes_read: report.bytes_read,
        })
    }
}

struct PassDone {
    /// In hex.
    run: String,
    seconds: f64,
    /// Of them until all of it was sent.
    read: f64,
    bytes_read: u64,
}

fn of_kinds(scope: &Scope, kinds: &[ItemKind]) -> Vec<Item> {
    let items = scope.items.iter().filter(|item| kinds.contains(&item.kind));
    items.cloned().collect()
}

/// As people name it on the command line.
pub fn shown(item: &Item) -> String {
    format!("{}:{}", item.kind.word(), Escaped(&item.name))
}
