//! Which items are read at the same moment, and how that moment is kept short.
//!
//! Items belong together when a running container writes into both, or when the containers that write
//! into them are in one pod: an application's database and its files are of one moment. Each
//! item of such a group is read while the containers run; then they are put at rest, and what
//! changed since is read again, or copied so that it can be read later. Only the last reading
//! counts.
//!
//! How long they will rest is told by the readings before: so long took that part of them which has to
//! be read again, with less waiting for
//! processors, which those who rest do not use. Where that is long they are read once more while the containers run, so that
//! little is left to be stored, and the expectation is of a reading that stores little.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use podkeep_format::item::{Item, ItemKind};
use podkeep_format::snapshot::Consistency;

use super::contention::Turns;
use super::{Counting, Job, Opened, Pending, Pump, Reading, Run, Session};
use crate::fs::Writers;
use crate::host::{Freeze, FreezeRequest, Freezing, Inventory};
use crate::monitor::{Finding, FindingKind, FrozenFor, Monitor, Progress};
use crate::operations::{MAX_FREEZE, OperationError, OperationResult};

/// Another reading ahead is no gain below this,
const EXPECTED_FROM: Duration = Duration::from_secs(1);
/// nor when the one before it stored less than this, unless it is about whether they rest at all;
const STORED_FROM: u64 = 32 << 20;
/// and there are no more than this: what changes faster than it can be read goes on changing.
const READINGS_AHEAD_MAX: u32 = 3;
/// What looking at an entry costs, in bytes that are read in that time.
const BYTES_PER_ENTRY: u64 = 4096;
/// The calls that put containers at rest and set them going, while they rest.
const CALLS: Duration = Duration::from_millis(250);

/// Containers that are at rest together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Names, sorted.
    containers: Vec<String>,
    how: Consistency,
}

/// The items as jobs, those of a group one after the other, in the order of each group's first.
pub(super) fn groups(
    inventory: &Inventory,
    items: Vec<Item>,
    wanted: Option<Consistency>,
) -> (Vec<Job>, Vec<Group>) {
    let how = wanted.unwrap_or(Consistency::Pause);
    let users = users(inventory);
    let mut sets = Sets::default();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for item in &items {
        let place = sets.add();
        for container in users.get(item).into_iter().flatten() {
            match first.get(container.as_str()) {
                Some(other) => sets.join(place, *other),
                None => drop(first.insert(container, place)),
            }
        }
    }
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    let mut members: Vec<(Vec<Item>, Vec<String>)> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let number = *numbers.entry(sets.root(place)).or_insert(members.len());
        if number == members.len() {
            members.push(Default::default());
        }
        let its = users.get(item).into_iter().flatten().cloned();
        members[number].1.extend(its);
        members[number].0.push(item.clone());
    }
    let mut jobs = Vec::new();
    let mut groups = Vec::new();
    for (items, mut containers) in members {
        containers.sort();
        containers.dedup();
        let group = (how != Consistency::Live && !containers.is_empty()).then(|| {
            groups.push(Group { containers, how });
            groups.len() - 1
        });
        jobs.extend(items.into_iter().map(|item| Job {
            item,
            fenced: 0,
            group,
        }));
    }
    (jobs, groups)
}

/// The running containers that may write into an item, with the others of their pods.
fn users(inventory: &Inventory) -> HashMap<Item, Vec<String>> {
    let running = || {
        let containers = inventory.containers.iter();
        containers.filter(|container| container.status == "running" && !container.is_infra)
    };
    let mut users: HashMap<Item, Vec<String>> = HashMap::new();
    for volume in &inventory.volumes {
        let item = Item::new(ItemKind::Volume, volume.name.as_bytes());
        users.insert(item, volume.used_by_running.clone());
    }
    for container in running() {
        let item = Item::new(ItemKind::Container, container.name.as_bytes());
        users.insert(item, vec![container.name.clone()]);
    }
    for names in users.values_mut() {
        let pods: Vec<&String> = running()
            .filter(|container| names.contains(&container.name))
            .filter_map(|container| container.pod.as_ref())
            .collect();
        let mates = running().filter(|c| c.pod.as_ref().is_some_and(|pod| pods.contains(&pod)));
        let mates: Vec<String> = mates.map(|container| container.name.clone()).collect();
        names.extend(mates);
        names.sort();
        names.dedup();
    }
    users
}

/// Disjoint sets of numbers.
#[derive(Default)]
struct Sets {
    parents: Vec<usize>,
}

impl Sets {
    fn add(&mut self) -> usize {
        self.parents.push(self.parents.len());
        self.parents.len() - 1
    }

    fn root(&self, mut at: usize) -> usize {
        while self.parents[at] != at {
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        // The lower one stays: the order of the items.
        self.parents[a.max(b)] = a.min(b);
    }
}

/// An item of a group, between its two readings.
struct Member<'a> {
    reading: Reading<'a>,
    /// `None`: it is opened and read only while the containers are at rest.
    opened: Option<Opened>,
    /// What reading it at rest will take.
    expected: Duration,
    /// All of it was fixed while the containers were at rest.
    held: bool,
}

impl<'a> Run<'a> {
    /// Reads the items of a group at one moment.
    pub(super) fn read_at_rest(
        &mut self,
        session: &mut Session,
        group: usize,
        jobs: Vec<Job>,
        pending: &mut Vec<Pending>,
    ) -> OperationResult<()> {
        let group = self.groups[group].clone();
        let mut members = self.read_ahead(session, jobs)?;
        if members.is_empty() {
            return Ok(());
        }
        let (max, expected) = (self.max_freeze(), expected(&members));
        let frozen = match expected <= max {
            true => self.source.freeze(&FreezeRequest {
                containers: group.containers.clone(),
                how: group.how,
                must: false,
                max,
                checkpoints: None,
                needs: self.options.needs.clone(),
            }),
            false => Ok(Freezing {
                guard: None,
                findings: vec![too_long(&group, expected, max)],
            }),
        };
        let freezing = match frozen {
            Ok(freezing) => freezing,
            Err(error) => {
                for member in members {
                    self.failed(member.reading.job.item, error.clone().into())?;
                }
                return Ok(());
            }
        };
        let guard = freezing.guard;
        for finding in freezing.findings {
            // A finding of the group is one of each of its items.
            for member in &members {
                member.reading.monitor.count(&finding);
            }
            self.monitor.finding(finding);
        }
        // From here to the thaw nothing waits for anything but the host's disk and the repository; an
        // error drops the guard, which thaws.
        let mut failed = Vec::new();
        for mut member in std::mem::take(&mut members) {
            if self.monitor.interrupted() {
                return Err(OperationError::Interrupted);
            }
            match self.capture(session, &mut member, guard.as_deref()) {
                Ok(()) => members.push(member),
                Err(OperationError::Host(error)) => failed.push((member.reading.job.item, error)),
                Err(error) => return Err(error),
            }
        }
        let frozen = guard.map(|guard| {
            let thawed = guard.thaw();
            for finding in thawed.findings {
                self.monitor.finding(finding);
            }
            FrozenFor {
                how: thawed.how,
                seconds: thawed.seconds,
                expected: expected.as_secs_f64(),
            }
        });
        let frozen = frozen.filter(|frozen| frozen.how != Consistency::Live);
        for (item, error) in failed {
            self.failed(item, error.into())?;
        }
        for mut member in members {
            if frozen.is_some() && !member.held {
                member.reading.monitor.finding(too_late(&member, &group));
            }
            let Some(mut opened) = member.opened.take() else {
                continue;
            };
            for finding in std::mem::take(&mut opened.findings) {
                member.reading.monitor.finding(finding);
            }
            let read = opened
                .take(&mut session.writer, |tree, writer| {
                    tree.take_all(writer, &member.reading.monitor)
                })
                .and_then(|()| opened.finish(&mut session.writer));
            match read {
                Ok(read) => {
                    let frozen = frozen.filter(|_| member.held);
                    pending.push(self.end(session, member.reading, read, frozen));
                }
                Err(error) => self.failed(member.reading.job.item, error)?,
            }
        }
        Ok(())
    }

    fn max_freeze(&self) -> Duration {
        self.options.max_freeze.unwrap_or(MAX_FREEZE)
    }

    /// Reads each item while containers go on: what is found does not count, but what is stored is
    /// there.
    fn read_ahead(
        &mut self,
        session: &mut Session,
        jobs: Vec<Job>,
    ) -> OperationResult<Vec<Member<'a>>> {
        let mut members = Vec::new();
        let max = self.max_freeze();
        let mut before = session.writer.counts().bytes_new;
        for job in jobs {
            let reading = self.begin(session, job)?;
            let text = reading.job.item.to_string();
            self.monitor.progress(Progress::ItemStart { item: &text });
            // A container's own files are few, and are read only once.
            if reading.job.item.kind != ItemKind::Volume {
                members.push(Member {
                    reading,
                    opened: None,
                    expected: Duration::ZERO,
                    held: false,
                });
                continue;
            }
            let ahead = self
                .open(&mut session.writer, &reading)
                .and_then(|mut opened| {
                    let expected = self.take_ahead(session, &mut opened)?;
                    Ok((opened, expected))
                });
            match ahead {
                Ok((opened, expected)) => members.push(Member {
                    reading,
                    opened: Some(opened),
                    expected,
                    held: false,
                }),
                Err(error) => self.failed(reading.job.item, error)?,
            }
        }
        for _ in 1..READINGS_AHEAD_MAX {
            let stored = session.writer.counts().bytes_new - before;
            let expected = expected(&members);
            let is_enough = stored < STORED_FROM && expected <= max;
            if expected < EXPECTED_FROM || is_enough {
                break;
            }
            before = session.writer.counts().bytes_new;
            for mut member in std::mem::take(&mut members) {
                if let Some(opened) = member.opened.as_mut().filter(|o| o.tree.is_some()) {
                    let again = opened
                        .take(&mut session.writer, |tree, _| tree.again(Writers::GoOn))
                        .and_then(|()| self.take_ahead(session, opened));
                    match again {
                        Ok(expected) => member.expected = expected,
                        Err(error) => {
                            self.failed(member.reading.job.item, error)?;
                            continue;
                        }
                    }
                }
                members.push(member);
            }
        }
        let opened = members.iter_mut().filter_map(|m| m.opened.as_mut());
        for tree in opened.filter_map(|opened| opened.tree.as_mut()) {
            tree.before_rest();
        }
        Ok(members)
    }

    /// One reading ahead. Returns what one at rest would take after it.
    fn take_ahead(&self, session: &mut Session, opened: &mut Opened) -> OperationResult<Duration> {
        let taken = |opened: &Opened| {
            let (entries, bytes) = opened.tree.as_ref().map_or((0, 0), Pump::taken);
            (entries * BYTES_PER_ENTRY, bytes)
        };
        let (since, before) = (Instant::now(), taken(opened));
        let turns = Turns::now();
        opened.take(&mut session.writer, |tree, writer| {
            tree.take_all(writer, &Ahead(self.monitor))
        })?;
        let (took, after) = (since.elapsed(), taken(opened));
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let took = Turns::now().with_fewer(&turns, took, processors);
        // Last: it writes out what is dirty.
        let again = opened.tree.as_mut().map_or(0, Pump::before_again);
        let entries = after.0 - before.0;
        let work = entries + after.1 - before.1;
        let share = (entries + again) as f64 / work.max(1) as f64;
        Ok(took.mul_f64(share.min(1.0)))
    }

    /// Fixes what an item is, so that nothing that is written later is in it.
    fn capture(
        &self,
        session: &mut Session,
        member: &mut Member<'_>,
        guard: Option<&dyn Freeze>,
    ) -> OperationResult<()> {
        let Member {
            reading,
            opened,
            held,
            ..
        } = member;
        let (opened, ahead) = match opened {
            Some(opened) => (opened, true),
            None => (
                opened.insert(self.open(&mut session.writer, reading)?),
                false,
            ),
        };
        opened.take(&mut session.writer, |tree, writer| {
            if ahead {
                tree.again(Writers::Rest)?;
            }
            tree.until_captured(writer, &reading.monitor)
        })?;
        *held = guard.is_some_and(Freeze::holds);
        Ok(())
    }
}

impl Group {
    fn names(&self) -> String {
        match self.containers.as_slice() {
            [one] => format!("container {one}"),
            several => format!("containers {}", several.join(", ")),
        }
    }
}

fn expected(members: &[Member<'_>]) -> Duration {
    members
        .iter()
        .map(|member| member.expected)
        .sum::<Duration>()
        + CALLS
}

fn too_long(group: &Group, expected: Duration, max: Duration) -> Finding {
    Finding {
        object: group.names(),
        kind: FindingKind::Consistency,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: format!(
            "would be at rest for about {} s, which is longer than --max-freeze ({} s): what uses the same \
             volumes is read live",
            expected.as_secs_f64().ceil(),
            max.as_secs_f64()
        ),
    }
}

fn too_late(member: &Member<'_>, group: &Group) -> Finding {
    let containers = group.names();
    Finding {
        object: member.reading.job.item.to_string(),
        kind: FindingKind::Consistency,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: format!(
            "not all of it was read when --max-freeze was over and {containers} went on: it is \
             saved as if it had been read live"
        ),
    }
}

/// What is found in a reading that does not count is not told.
struct Ahead<'m>(&'m Counting<'m>);

impl Monitor for Ahead<'_> {
    fn finding(&self, _: Finding) {}

    fn progress(&self, _: Progress<'_>) {}

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{ContainerFacts, VolumeFacts};

    fn volume(name: &str, running: &[&str]) -> VolumeFacts {
        VolumeFacts {
            name: name.into(),
            driver: "local".into(),
            anonymous: false,
            used_by: Vec::new(),
            used_by_running: running.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    type Grouped = (Vec<(String, Option<usize>)>, Vec<Vec<String>>);

    fn grouped(volumes: &[VolumeFacts], wanted: Option<Consistency>) -> Grouped {
        let inventory = Inventory {
            volumes: volumes.to_vec(),
            ..Inventory::default()
        };
        let items = volumes
            .iter()
            .map(|volume| Item::new(ItemKind::Volume, volume.name.as_bytes()));
        let (jobs, groups) = groups(&inventory, items.collect(), wanted);
        let jobs = jobs
            .into_iter()
            .map(|job| (job.item.to_string(), job.group));
        let groups = groups.into_iter().map(|group| group.containers);
        (jobs.collect(), groups.collect())
    }

    #[test]
    fn containers_of_one_pod_are_at_rest_together() {
        let container = |name: &str, pod: Option<&str>, status: &str| ContainerFacts {
            name: name.into(),
            status: status.into(),
            pod: pod.map(str::to_owned),
            is_infra: name == "infra",
            ..ContainerFacts::default()
        };
        let inventory = Inventory {
            volumes: vec![volume("db", &["pg"]), volume("files", &["web"])],
            containers: vec![
                container("infra", Some("shop"), "running"),
                container("job", Some("shop"), "exited"),
                container("pg", Some("shop"), "running"),
                container("web", Some("shop"), "running"),
                container("other", None, "running"),
            ],
            ..Inventory::default()
        };
        let item = |kind, name: &str| Item::new(kind, name.as_bytes());
        let items = vec![
            item(ItemKind::Volume, "db"),
            item(ItemKind::Container, "job"),
            item(ItemKind::Volume, "files"),
            item(ItemKind::Container, "other"),
        ];
        let (jobs, groups) = groups(&inventory, items, None);
        let of: Vec<_> = jobs.iter().map(|job| job.group).collect();
        assert_eq!(of, [Some(0), Some(0), None, Some(1)]);
        assert_eq!(groups[0].containers, ["pg", "web"]);
        assert_eq!(groups[1].containers, ["other"]);
    }

    #[test]
    fn v_20_volumes_of_one_application_are_read_at_one_moment() {
        let volumes = [
            volume("cache", &[]),
            volume("db", &["pg", "backup"]),
            volume("other", &["mail"]),
            volume("files", &["web"]),
            volume("shared", &["web", "pg"]),
        ];
        let (jobs, groups) = grouped(&volumes, None);
        let job = |name: &str, group| (format!("volume:{name}"), group);
        assert_eq!(
            jobs,
            [
                job("cache", None),
                job("db", Some(0)),
                job("files", Some(0)),
                job("shared", Some(0)),
                job("other", Some(1)),
            ]
        );
        assert_eq!(groups, [vec!["backup", "pg", "web"], vec!["mail"]]);
        let (jobs, groups) = grouped(&volumes, Some(Consistency::Live));
        assert!(jobs.iter().all(|(_, group)| group.is_none()));
        assert!(groups.is_empty());
    }
}
