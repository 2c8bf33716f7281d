//! Runs several actors over one store in every order: each stops before every operation that
//! another actor's could conflict with, and a schedule says who goes next.
//!
//! Operations that nobody else's conflict with (reads of objects that nobody deletes, puts that
//! nobody lists) are no places to stop at: where they stand among the others makes no difference.
//! A schedule is a list of choices; the explorer runs one, sees which other choices there were,
//! and tries those, depth first. It bounds how often an actor is stopped although it could go on
//! (a *preemption*), and how often time passes until leases that stand have ended (an *expiry*).
//! To go on with another actor where one ends or waits costs nothing.
//!
//! An actor that is stopped while the others run to their ends is, up to that moment, one that
//! crashed; when it goes on, it is one that was suspended.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::recording::Op;
use podkeep_engine::store::{
    Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreError, StoreErrorKind, StoreResult,
};
use podkeep_format::id::LeaseId;
use podkeep_format::names::{self, Name};

use super::prune::Patience;

/// What an actor does, and so which of its operations can conflict with another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Writer,
    Prune,
}

impl Role {
    /// Folders whose listing, or what is found in them, decides something for this role.
    fn reads(self, folder: &str) -> bool {
        match self {
            Self::Writer => ["tombstones", "index", "packs", "fences"].contains(&folder),
            Self::Prune => folder != "runs",
        }
    }

    fn puts(self, folder: &str) -> bool {
        match self {
            Self::Writer => ["leases", "packs", "index", "snapshots"].contains(&folder),
            Self::Prune => ["leases", "packs", "index", "tombstones", "fences"].contains(&folder),
        }
    }

    fn deletes(self, folder: &str) -> bool {
        match self {
            Self::Writer => folder == "leases",
            Self::Prune => ["leases", "packs", "index", "tombstones"].contains(&folder),
        }
    }

    /// Whether an actor of this role stops before the operation.
    fn stops(self, op: Op, name: &str, others: &[Role]) -> bool {
        let (folder, whole) = match name.split_once('/') {
            Some((folder, _)) => (folder, false),
            None => (name, true),
        };
        // A second copy changes nothing where the first one is.
        if name.ends_with(".2") {
            return false;
        }
        let any = |does: fn(Role, &str) -> bool| others.iter().any(|other| does(*other, folder));
        match op {
            Op::List => whole && self.reads(folder) && (any(Self::puts) || any(Self::deletes)),
            Op::Get => match folder {
                "index" => any(Self::deletes),
                "fences" => self == Self::Writer && any(Self::puts),
                _ => false,
            },
            Op::PutNew | Op::Delete => any(Self::reads),
            Op::GetRange | Op::Size | Op::Replace | Op::SweepTemps => false,
        }
    }
}

/// Where an actor stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stand {
    Running,
    Before(String),
    /// For these leases to end.
    Waiting(BTreeSet<LeaseId>),
    Done,
}

struct Scene {
    /// Off while a repository is opened or looked at: nobody stops.
    on: bool,
    roles: Vec<Role>,
    stands: Vec<Stand>,
    granted: Option<(usize, Patience)>,
}

/// One store, and the actors over it.
pub struct Stage {
    store: Mutex<MemoryStore>,
    scene: Mutex<Scene>,
    moved: Condvar,
}

/// Nothing takes this long, unless an actor hangs.
const HANGS: Duration = Duration::from_secs(60);

impl Stage {
    pub fn new(store: MemoryStore, roles: &[Role]) -> Arc<Self> {
        Arc::new(Self {
            store: Mutex::new(store),
            scene: Mutex::new(Scene {
                on: false,
                roles: roles.to_vec(),
                stands: vec![Stand::Done; roles.len()],
                granted: None,
            }),
            moved: Condvar::new(),
        })
    }

    /// The store as one actor uses it.
    pub fn gate(self: &Arc<Self>, actor: usize) -> Gate {
        Gate {
            stage: Arc::clone(self),
            actor,
            sees_fences: true,
        }
    }

    pub fn store(&self) -> MemoryStore {
        self.store.lock().unwrap().clone()
    }

    pub fn set_store(&self, store: MemoryStore) {
        *self.store.lock().unwrap() = store;
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap()
    }

    /// Stops until a schedule lets this actor go on.
    fn stop(&self, actor: usize, stand: Stand) -> Patience {
        let mut scene = self.scene();
        if !scene.on {
            return Patience::Look;
        }
        scene.stands[actor] = stand;
        self.moved.notify_all();
        loop {
            if let Some((granted, patience)) = scene.granted
                && granted == actor
            {
                scene.granted = None;
                scene.stands[actor] = Stand::Running;
                return patience;
            }
            let (next, late) = self.moved.wait_timeout(scene, HANGS).unwrap();
            scene = next;
            assert!(!late.timed_out(), "no schedule lets actor {actor} go on");
        }
    }

    /// For an actor that waits for leases to end.
    pub fn wait(&self, actor: usize, leases: &BTreeSet<LeaseId>) -> Patience {
        self.stop(actor, Stand::Waiting(leases.clone()))
    }

    fn done(&self, actor: usize) {
        self.scene().stands[actor] = Stand::Done;
        self.moved.notify_all();
    }

    /// What each actor that has not ended may do next, once all of them stand still.
    fn options(&self) -> Vec<Choice> {
        let mut scene = self.scene();
        while scene.granted.is_some() || scene.stands.contains(&Stand::Running) {
            let (next, late) = self.moved.wait_timeout(scene, HANGS).unwrap();
            scene = next;
            assert!(!late.timed_out(), "an actor hangs: {:?}", scene.stands);
        }
        let mut options = Vec::new();
        for (actor, stand) in scene.stands.iter().enumerate() {
            match stand {
                Stand::Before(_) => options.push(Choice::Go(actor)),
                Stand::Waiting(leases) => {
                    let rows = self.store().list("leases").unwrap();
                    let stands = |lease: &LeaseId| {
                        let is = |meta: &ObjectMeta| match Name::parse(meta.name.as_str()) {
                            Some(Name::Lease(id, _)) => id == *lease,
                            _ => false,
                        };
                        rows.iter().any(is)
                    };
                    options.push(match leases.iter().all(stands) {
                        true => Choice::Expire(actor),
                        false => Choice::Go(actor),
                    });
                }
                Stand::Running | Stand::Done => {}
            }
        }
        options
    }

    fn grant(&self, choice: Choice) -> String {
        let mut scene = self.scene();
        let (actor, patience) = match choice {
            Choice::Go(actor) => (actor, Patience::Look),
            Choice::Expire(actor) => (actor, Patience::Ended),
        };
        let what = match &scene.stands[actor] {
            Stand::Before(what) => format!("{actor}: {what}"),
            _ => format!("{actor}: {patience:?}"),
        };
        scene.granted = Some((actor, patience));
        self.moved.notify_all();
        what
    }

    /// Runs `actors` by a schedule, and past its end by the rule: who goes goes on, else the first
    /// one, and time passes only when nobody can go.
    ///
    /// `crashed` is called when all but one actor have ended, with the number of that one.
    pub fn run(
        &self,
        schedule: &[Choice],
        actors: &[&(dyn Fn() + Sync)],
        crashed: &mut dyn FnMut(usize),
    ) -> Trace {
        {
            let mut scene = self.scene();
            scene.on = true;
            scene.granted = None;
            scene.stands = vec![Stand::Running; actors.len()];
        }
        let mut trace = Trace::default();
        std::thread::scope(|scope| {
            for (number, actor) in actors.iter().enumerate() {
                scope.spawn(move || {
                    let leave = Leave(self, number);
                    actor();
                    drop(leave);
                });
            }
            let mut last = None;
            let mut left_before = actors.len();
            loop {
                let options = self.options();
                let left: BTreeSet<usize> = options.iter().map(|choice| choice.actor()).collect();
                if left.is_empty() {
                    break;
                }
                if let (Some(only), true) = (left.first(), left.len() == 1)
                    && (left_before > 1 || trace.cost().total() == 0)
                    && actors.len() > 1
                {
                    crashed(*only);
                }
                left_before = left.len();
                let planned = schedule.get(trace.steps.len()).copied();
                let going = last.map(Choice::Go).filter(|go| options.contains(go));
                let by_rule = going
                    .or_else(|| {
                        let goes = |choice: &&Choice| matches!(choice, Choice::Go(_));
                        options.iter().find(goes).copied()
                    })
                    .unwrap_or(options[0]);
                let chosen = planned.filter(|choice| options.contains(choice));
                let chosen = chosen.unwrap_or(by_rule);
                last = Some(chosen.actor());
                let what = self.grant(chosen);
                trace.steps.push(Step {
                    chosen,
                    options,
                    going,
                    what,
                });
            }
        });
        self.scene().on = false;
        trace
    }
}

/// Says that an actor has ended, also when it panics.
struct Leave<'s>(&'s Stage, usize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.done(self.1);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Go(usize),
    /// Time passes, until the leases that this actor waits for have ended.
    Expire(usize),
}

impl Choice {
    fn actor(self) -> usize {
        match self {
            Self::Go(actor) | Self::Expire(actor) => actor,
        }
    }
}

/// What a schedule spends, or may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub preemptions: u32,
    pub expiries: u32,
}

impl Cost {
    fn total(self) -> u32 {
        self.preemptions + self.expiries
    }
}

struct Step {
    chosen: Choice,
    options: Vec<Choice>,
    /// The actor that went before, if it could go on.
    going: Option<Choice>,
    what: String,
}

impl Step {
    fn cost(&self, choice: Choice) -> Cost {
        let others_go = self.options.iter().any(|o| matches!(o, Choice::Go(_)));
        Cost {
            preemptions: u32::from(self.going.is_some_and(|going| going != choice)),
            expiries: u32::from(matches!(choice, Choice::Expire(_)) && others_go),
        }
    }
}

#[derive(Default)]
pub struct Trace {
    steps: Vec<Step>,
}

impl Trace {
    fn cost(&self) -> Cost {
        self.steps.iter().fold(Cost::default(), |sum, step| {
            let cost = step.cost(step.chosen);
            Cost {
                preemptions: sum.preemptions + cost.preemptions,
                expiries: sum.expiries + cost.expiries,
            }
        })
    }

    /// One line for each step, for the message of a failure.
    pub fn text(&self) -> String {
        let lines: Vec<&str> = self.steps.iter().map(|step| step.what.as_str()).collect();
        lines.join("\n  ")
    }

    /// The schedules that differ from this one first at a choice behind its first `planned`.
    fn others(&self, planned: usize, bound: Cost) -> Vec<Vec<Choice>> {
        let mut others = Vec::new();
        let mut prefix: Vec<Choice> = Vec::new();
        let mut spent = Cost::default();
        for (number, step) in self.steps.iter().enumerate() {
            if number >= planned {
                for choice in &step.options {
                    let cost = step.cost(*choice);
                    if *choice != step.chosen
                        && spent.preemptions + cost.preemptions <= bound.preemptions
                        && spent.expiries + cost.expiries <= bound.expiries
                    {
                        let mut other = prefix.clone();
                        other.push(*choice);
                        others.push(other);
                    }
                }
            }
            let cost = step.cost(step.chosen);
            spent.preemptions += cost.preemptions;
            spent.expiries += cost.expiries;
            prefix.push(step.chosen);
        }
        others
    }
}

/// What an exploration found.
pub struct Explored {
    pub schedules: usize,
    /// The first schedule that broke what must hold, and how.
    pub broken: Option<String>,
}

/// Runs a schedule; how it went, and whether all held that must.
pub type Each<'a> = &'a mut dyn FnMut(&[Choice]) -> (Trace, Result<(), String>);

/// Runs `each` for every schedule within `bound`, until one breaks what must hold.
pub fn explore(bound: Cost, each: Each<'_>) -> Explored {
    let mut schedules = 0;
    let mut open: Vec<Vec<Choice>> = vec![Vec::new()];
    while let Some(schedule) = open.pop() {
        let (trace, outcome) = each(&schedule);
        schedules += 1;
        if let Err(cause) = outcome {
            return Explored {
                schedules,
                broken: Some(format!("{cause}, after\n  {}", trace.text())),
            };
        }
        open.extend(trace.others(schedule.len(), bound));
    }
    Explored {
        schedules,
        broken: None,
    }
}

/// A store that stops its actor where a schedule may want it to.
pub struct Gate {
    stage: Arc<Stage>,
    actor: usize,
    sees_fences: bool,
}

impl Gate {
    /// For an actor that never finds a fence: one that does not look.
    pub fn blind_to_fences(self) -> Self {
        Self {
            sees_fences: false,
            ..self
        }
    }

    fn pass(&self, op: Op, name: &str) -> MemoryStore {
        let stops = {
            let scene = self.stage.scene();
            let others = || {
                let all = scene.roles.iter().enumerate();
                let others = all.filter(|(number, _)| *number != self.actor);
                others.map(|(_, role)| *role).collect::<Vec<_>>()
            };
            scene.on
                && scene
                    .roles
                    .get(self.actor)
                    .is_some_and(|role| role.stops(op, name, &others()))
        };
        if stops {
            self.stage
                .stop(self.actor, Stand::Before(format!("{op:?} {name}")));
        }
        self.stage.store()
    }
}

impl ObjectStore for Gate {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        self.pass(Op::PutNew, name.as_str()).put_new(name, data)
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        self.pass(Op::Replace, name.as_str()).replace(name, data)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        let store = self.pass(Op::Get, name.as_str());
        if !self.sees_fences && name.as_str().starts_with(names::FENCES) {
            return Err(StoreError {
                action: "read",
                object: name.to_string(),
                kind: StoreErrorKind::NotFound,
                cause: "it is hidden".into(),
            });
        }
        store.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        self.pass(Op::GetRange, name.as_str())
            .get_range(name, offset, len)
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.pass(Op::Size, name.as_str()).size(name)
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        self.pass(Op::List, folder).list(folder)
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.pass(Op::Delete, name.as_str()).delete(name)
    }

    fn medium(&self) -> Medium {
        self.stage.store().medium()
    }

    fn place(&self) -> String {
        self.stage.store().place()
    }
}
