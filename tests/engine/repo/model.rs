//! The protocol of `docs/repository-protocol.md`, tried in every order: the real `backup` and a
//! prune by the book take turns over one store in memory (`schedule.rs` says where they can be
//! stopped, and what is counted).
//!
//! What is covered: one writer and a prune with up to two preemptions and one expiry; two writers
//! and a prune, and two prunes over chunks that exist twice, with one preemption and one expiry;
//! each with every choice of who goes on where one ends or waits. So each actor is suspended
//! before each of its operations that can matter, past the end of its lease and not, and goes on
//! before each such operation of another; and each crashes at each of them, since one that is
//! suspended while the others run to their ends looks to them as one that is gone. Why that is
//! enough: an error of the protocol is a pair of operations in the wrong order, and to be between
//! the two takes one preemption, to come back in time a second one; each flaw below, all of them
//! steps that the protocol's argument rests on, is found within the bound.
//!
//! What must hold after every schedule, and at every crash: each snapshot that counts is read
//! completely, every chunk checked, and so is each that a backup reported as stored; the next
//! backup works; and after the next prune, which puts the verdicts that a crashed one left out,
//! all of these count and are there still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use podkeep_engine::monitor::Collect;
use podkeep_engine::operations::{BackupReport, OperationResult};
use podkeep_engine::repo::index::Index;
use podkeep_engine::repo::reader::Reader;
use podkeep_engine::repo::writer::Writer;
use podkeep_engine::repo::{RepoResult, Repository, name, random};
use podkeep_engine::store::ObjectStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkKind, LeaseId, SnapshotId};
use podkeep_format::item::Item;
use podkeep_format::names;

use super::memory_host::{Files, MemoryHost};
use super::prune::{Flaw, Patience, Prune, Pruned, needs_of};
use super::schedule::{Choice, Cost, Explored, Role, Stage, Trace, explore};
use super::{back_up, copy, full, init, item, noise, open, open_with};

/// A tree with a large file that `/old` had, too, and one of its own.
fn files(of: &str) -> Files {
    Files::from([
        ("shared".to_owned(), noise(1, 5000)),
        ("own".to_owned(), of.repeat(10).into_bytes()),
    ])
}

/// A repository with a snapshot that is kept, and with the packs and segment of one that was
/// forgotten, and which the writers have half of the content of.
fn prepared() -> MemoryStore {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let repo = open(store.clone());
    let (keep, old) = (item("/keep"), item("/old"));
    let kept = Files::from([("kept".to_owned(), noise(2, 5000))]);
    back_up(&repo, &MemoryHost::with(&keep, &kept), &[&keep]).unwrap();
    let report = back_up(&repo, &MemoryHost::with(&old, &files("old")), &[&old]).unwrap();
    forget(&*store, report.items[0].snapshot.unwrap());
    copy(&*store)
}

fn forget(store: &dyn ObjectStore, id: SnapshotId) {
    for second in [false, true] {
        let object = name(names::snapshot(id, second)).unwrap();
        assert!(store.delete(&object).unwrap());
    }
}

/// The same with the kept chunks twice, in two packs, as two writers at once leave them.
fn prepared_twice() -> MemoryStore {
    let store = Arc::new(prepared());
    let repo = open(store.clone());
    let reader = reader(&repo);
    let mut needed = BTreeMap::new();
    for snapshot in repo.snapshots(&Collect::default()).unwrap() {
        needs_of(&reader, &snapshot, true, &mut needed).unwrap();
    }
    let index = Arc::new(Index::load(&repo, &Collect::default()).unwrap());
    let mut writer = Writer::new(&repo, index, LeaseId(random().unwrap()), 1).unwrap();
    for (id, kind) in needed {
        let class = match kind {
            ChunkKind::Data => BlockClass::Small,
            _ => BlockClass::Meta,
        };
        let bytes = reader.chunk(kind, id).unwrap();
        writer.add(id, kind, class, bytes.as_ref()).unwrap();
    }
    writer.flush().unwrap();
    copy(&*store)
}

fn reader(repo: &Repository) -> Reader {
    let index = Arc::new(Index::load(repo, &Collect::default()).unwrap());
    Reader::new(repo, index).unwrap()
}

/// Who takes part.
#[derive(Clone, Copy)]
enum Part {
    Writes {
        item: &'static str,
        looks: bool,
    },
    Prunes {
        from_the_end: bool,
        flaw: Option<Flaw>,
    },
}

const A: Part = Part::Writes {
    item: "/a",
    looks: true,
};
const B: Part = Part::Writes {
    item: "/b",
    looks: true,
};
const PRUNE: Part = Part::Prunes {
    from_the_end: false,
    flaw: None,
};

fn flawed(flaw: Flaw) -> Part {
    Part::Prunes {
        from_the_end: false,
        flaw: Some(flaw),
    }
}

/// What an actor ended with.
enum Ended {
    Wrote(OperationResult<BackupReport>),
    Pruned(RepoResult<Pruned>),
}

struct Actor {
    part: Part,
    repo: Repository,
    host: MemoryHost,
    item: Item,
    ended: Mutex<Option<Ended>>,
}

impl Actor {
    fn new(stage: &Arc<Stage>, number: usize, part: Part) -> Self {
        let mut gate = stage.gate(number);
        let mut name = "/none";
        if let Part::Writes { item, looks } = part {
            name = item;
            if !looks {
                gate = gate.blind_to_fences();
            }
        }
        let item = item(name);
        Self {
            part,
            repo: open_with(Arc::new(gate), &full(), None, number as u8).unwrap(),
            host: MemoryHost::with(&item, &files(name)),
            item,
            ended: Mutex::default(),
        }
    }

    fn act(&self, stage: &Stage, number: usize) {
        let ended = match self.part {
            Part::Writes { .. } => Ended::Wrote(back_up(&self.repo, &self.host, &[&self.item])),
            Part::Prunes { from_the_end, flaw } => {
                let prune = Prune {
                    repo: &self.repo,
                    patience: &|leases| stage.wait(number, leases),
                    from_the_end,
                    flaw,
                    followed: Mutex::default(),
                };
                Ended::Pruned(prune.run())
            }
        };
        *self.ended.lock().unwrap() = Some(ended);
    }

    /// Snapshots that it said are stored.
    fn promised(&self) -> Result<Vec<SnapshotId>, String> {
        match &*self.ended.lock().unwrap() {
            None => Ok(Vec::new()),
            Some(Ended::Wrote(Ok(report))) => {
                Ok(report.items.iter().filter_map(|i| i.snapshot).collect())
            }
            Some(Ended::Wrote(Err(error))) => Err(format!("a writer failed: {error}")),
            Some(Ended::Pruned(Ok(_))) => Ok(Vec::new()),
            Some(Ended::Pruned(Err(error))) => Err(format!("a prune failed: {error}")),
        }
    }
}

/// Looks at a copy of what the actors left.
struct Judge {
    stage: Arc<Stage>,
    repo: Repository,
    item: Item,
    host: MemoryHost,
    kept: SnapshotId,
}

impl Judge {
    fn new(base: &MemoryStore) -> Self {
        let stage = Stage::new(copy(base), &[]);
        let repo = open_with(Arc::new(stage.gate(0)), &full(), None, 99).unwrap();
        let item = item("/a");
        let kept = repo.snapshots(&Collect::default()).unwrap()[0].id;
        Self {
            stage,
            repo,
            host: MemoryHost::with(&item, &files("/a")),
            item,
            kept,
        }
    }

    /// What a crash left: all that counts is there, and the next backup and prune set it right.
    fn holds_after_a_crash(
        &self,
        left: &MemoryStore,
        promised: &[SnapshotId],
    ) -> Result<(), String> {
        self.stage.set_store(copy(left));
        let mut count = self.read_all(promised)?;
        count.extend(promised);
        count.insert(self.next_backup()?);
        let prune = Prune {
            repo: &self.repo,
            patience: &|_| Patience::Ended,
            from_the_end: false,
            flaw: None,
            followed: Mutex::default(),
        };
        prune
            .run()
            .map_err(|error| format!("the next prune failed: {error}"))?;
        self.all_count(&count)
    }

    /// What actors left that all came to their ends.
    fn holds(&self, left: &MemoryStore, promised: &[SnapshotId]) -> Result<(), String> {
        self.stage.set_store(copy(left));
        let mut count: BTreeSet<_> = promised.iter().copied().collect();
        count.insert(self.next_backup()?);
        self.all_count(&count)
    }

    fn next_backup(&self) -> Result<SnapshotId, String> {
        let report = back_up(&self.repo, &self.host, &[&self.item])
            .map_err(|error| format!("the next backup failed: {error}"))?;
        match (report.complete, report.items[0].snapshot) {
            (true, Some(id)) => Ok(id),
            _ => Err("the next backup is not complete".into()),
        }
    }

    fn all_count(&self, ids: &BTreeSet<SnapshotId>) -> Result<(), String> {
        let counted = self.read_all(&[])?;
        if !counted.contains(&self.kept) {
            return Err("the kept snapshot does not count".into());
        }
        match ids.iter().find(|id| !counted.contains(id)) {
            None => Ok(()),
            Some(id) => Err(format!("{id} should count, and does not")),
        }
    }

    /// Reads whole each snapshot that counts, and these; returns those that count.
    fn read_all(&self, these: &[SnapshotId]) -> Result<BTreeSet<SnapshotId>, String> {
        let monitor = Collect::default();
        let snapshots = self.repo.snapshots(&monitor).map_err(|e| e.to_string())?;
        let reader = reader(&self.repo);
        let mut counted = BTreeSet::new();
        for snapshot in &snapshots {
            if snapshot.confirmed {
                counted.insert(snapshot.id);
            } else if !these.contains(&snapshot.id) {
                continue;
            }
            needs_of(&reader, snapshot, true, &mut BTreeMap::new())
                .map_err(|error| format!("{} is lost: {error}", snapshot.header.item))?;
        }
        Ok(counted)
    }
}

/// Tries all schedules of these parts over `base`.
fn try_all(base: &MemoryStore, parts: &[Part], preemptions: u32, expiries: u32) -> Explored {
    let roles: Vec<Role> = parts
        .iter()
        .map(|part| match part {
            Part::Writes { .. } => Role::Writer,
            Part::Prunes { .. } => Role::Prune,
        })
        .collect();
    let stage = Stage::new(copy(base), &roles);
    let actors: Vec<Actor> = (0..)
        .zip(parts)
        .map(|(number, part)| Actor::new(&stage, number, *part))
        .collect();
    let judge = Judge::new(base);
    let bound = Cost {
        preemptions,
        expiries,
    };
    explore(
        bound,
        &mut |schedule: &[Choice]| -> (Trace, Result<(), String>) {
            stage.set_store(copy(base));
            let runs = (0..).zip(&actors).map(|(number, actor)| {
                *actor.ended.lock().unwrap() = None;
                let stage = &stage;
                move || actor.act(stage, number)
            });
            let runs: Vec<_> = runs.collect();
            let runs: Vec<&(dyn Fn() + Sync)> = runs.iter().map(|run| run as _).collect();
            let promised = || {
                let mut promised = Vec::new();
                for actor in &actors {
                    promised.extend(actor.promised()?);
                }
                Ok::<_, String>(promised)
            };
            let mut outcome = Ok(());
            let trace = stage.run(schedule, &runs, &mut |crashed| {
                if outcome.is_ok() {
                    outcome = promised()
                        .and_then(|ids| judge.holds_after_a_crash(&stage.store(), &ids))
                        .map_err(|cause| format!("{cause}, {crashed} having crashed"));
                }
            });
            let outcome = outcome.and_then(|()| judge.holds(&stage.store(), &promised()?));
            (trace, outcome)
        },
    )
}

fn assert_holds(explored: Explored, schedules_min: usize) {
    if let Some(broken) = explored.broken {
        panic!("{broken}");
    }
    println!("{} schedules", explored.schedules);
    assert!(
        explored.schedules >= schedules_min,
        "only {} schedules",
        explored.schedules
    );
}

fn assert_breaks(explored: &Explored) {
    let broken = explored.broken.as_deref();
    assert!(
        broken.is_some(),
        "{} schedules, and none shows the flaw",
        explored.schedules
    );
    println!("{} schedules: {}", explored.schedules, broken.unwrap());
}

#[test]
fn e_04_a_writer_and_a_prune_in_every_order_lose_nothing() {
    assert_holds(try_all(&prepared(), &[A, PRUNE], 2, 1), 300);
}

#[test]
fn e_04_two_writers_and_a_prune_in_every_order_lose_nothing() {
    assert_holds(try_all(&prepared(), &[A, B, PRUNE], 1, 1), 200);
}

#[test]
fn e_05_two_prunes_that_take_each_other_for_dead_lose_nothing() {
    let other = Part::Prunes {
        from_the_end: true,
        flaw: None,
    };
    assert_holds(try_all(&prepared_twice(), &[PRUNE, other], 1, 1), 200);
}

#[test]
fn a_prune_that_leaves_out_a_step_loses_a_snapshot_in_some_order() {
    let base = prepared();
    for flaw in [
        Flaw::WaitsForNobody,
        Flaw::DeletesUnseen,
        Flaw::JudgesBeforeTheFence,
        Flaw::FencesNobody,
    ] {
        println!("{flaw:?}");
        assert_breaks(&try_all(&base, &[A, flawed(flaw)], 2, 1));
    }
}

#[test]
fn a_prune_that_does_not_look_at_the_packs_again_loses_a_snapshot_to_another() {
    let other = Part::Prunes {
        from_the_end: true,
        flaw: Some(Flaw::BelievesInPacks),
    };
    let parts = [flawed(Flaw::BelievesInPacks), other];
    assert_breaks(&try_all(&prepared_twice(), &parts, 1, 1));
}

#[test]
fn a_writer_that_does_not_look_for_a_fence_reports_what_does_not_count() {
    let blind = Part::Writes {
        item: "/a",
        looks: false,
    };
    assert_breaks(&try_all(&prepared(), &[blind, PRUNE], 2, 1));
}
