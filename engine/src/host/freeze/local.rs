//! Freezing containers of the host that this process runs on.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use podkeep_format::snapshot::Consistency;

use super::hooks::Wishes;
use super::record::{Frozen, Record, Resume, folder};
use super::thaw::{about_host, set_going};
use super::{Freeze, FreezeRequest, Freezing, Thawed, served};
use crate::fs::{FsError, FsErrorKind};
use crate::host::HostError;
use crate::host::lock::make_private;
use crate::host::reading::sync_for_copies;
use crate::monitor::{Finding, FindingKind};
use crate::podman::{
    Deadline, LiveContainer, Podman, PodmanError, Units, checkpoint, exec, live_containers, pause,
    stop,
};

/// The thaw that is armed comes so much later than the one that this process does itself.
const DEADLINE_AFTER: Duration = Duration::from_secs(2);
/// How long to wait for others that freeze.
const TURN_MAX: Duration = Duration::from_secs(60);

/// What is done to one container.
struct Step {
    container: LiveContainer,
    wishes: Wishes,
    how: How,
}

/// What is asked for: by the label of a container, or against it.
#[derive(Clone, Copy)]
enum Wanted {
    May(Consistency),
    Must(Consistency),
}

enum How {
    /// It is at rest already, or wants to be left alone.
    Nothing,
    Pause,
    Stop,
    /// Stopped with its processes on disk, in this file.
    Checkpoint(PathBuf),
    StopUnit(String),
}

/// Freezes what is asked for. `Err`: nothing is frozen, and nothing of it is to be saved.
///
/// `volumes`: where the volumes lie.
pub(in crate::host) fn freeze(
    podman: &Podman,
    state: &Path,
    volumes: Option<&Path>,
    request: &FreezeRequest,
) -> Result<Freezing, HostError> {
    let mut findings = Vec::new();
    let units = Units::find(podman);
    let mut steps = Vec::new();
    for container in live_containers(podman, &request.containers)? {
        if let Some(why) = served::reason(&container, &request.needs) {
            findings.push(warning(&container, format!("{why}: it is not frozen")));
            return Ok(Freezing {
                guard: None,
                findings,
            });
        }
        let wishes = Wishes::of(&container.labels).map_err(|cause| HostError::Podman {
            action: "freeze",
            object: format!("container {}", container.name),
            cause,
        })?;
        let how = match &request.checkpoints {
            Some(folder) if container.is_running() => {
                How::Checkpoint(folder.join(format!("{}.tar", container.name)))
            }
            _ => how(
                units.as_ref(),
                &container,
                match request.must {
                    true => Wanted::Must(request.how),
                    false => Wanted::May(wishes.consistency.unwrap_or(request.how)),
                },
                &mut findings,
            )?,
        };
        steps.push(Step {
            container,
            wishes,
            how,
        });
    }
    let mut going = Going {
        podman: podman.clone(),
        units,
        hooked: Vec::new(),
    };
    if let Err(error) = going.run_pre_hooks(&steps, &mut findings) {
        going.run_post_hooks(&mut findings);
        return Err(error);
    }
    let dependents = match dependents(going.units.as_ref(), &steps) {
        Ok(dependents) => dependents,
        Err(error) => {
            going.run_post_hooks(&mut findings);
            return Err(error.into());
        }
    };
    match at_rest(going, state, volumes, request, &steps, dependents) {
        Ok(guard) => Ok(Freezing {
            guard: Some(Box::new(guard)),
            findings,
        }),
        Err((error, thawed)) => {
            findings.extend(thawed);
            findings.push(Finding {
                object: containers(&steps),
                kind: FindingKind::Consistency,
                snapshots: Vec::new(),
                paths: Vec::new(),
                message: match request.must {
                    true => error.to_string(),
                    false => format!("{error}; what uses the same volumes is read live"),
                },
            });
            Ok(Freezing {
                guard: None,
                findings,
            })
        }
    }
}

/// Stops what runs of these containers, until the guard is thawed or dropped. There is no deadline: who
/// writes what they use has to come to an end. The record is there when this process is killed.
pub(in crate::host) fn stop_for_writing(
    podman: &Podman,
    state: &Path,
    containers: &[String],
) -> Result<Box<dyn Freeze>, HostError> {
    let units = Units::find(podman);
    let mut steps = Vec::new();
    for container in live_containers(podman, containers)? {
        if !container.is_running() || container.is_infra || container.is_service {
            continue;
        }
        let owner = units.as_ref().map(|units| units.owner(&container));
        let how = match owner.transpose()?.flatten() {
            Some(owner) => How::StopUnit(owner.unit),
            None if container.auto_remove || container.is_of_a_unit() => {
                return Err(HostError::Refused {
                    object: format!("container {}", container.name),
                    cause: "it would not come back as it was: it is removed when it stops (--rm), \
                            or its unit cannot be asked"
                        .into(),
                    hint: format!("podman stop {}", container.name),
                });
            }
            None => How::Stop,
        };
        steps.push(Step {
            container,
            wishes: Wishes::default(),
            how,
        });
    }
    let dependents = dependents(units.as_ref(), &steps)?;
    let name = name().map_err(|cause| local("name", state, cause))?;
    let mut held = Held {
        going: Going {
            podman: podman.clone(),
            units: units.clone(),
            hooked: Vec::new(),
        },
        record: None,
        deadline: None,
        since: Instant::now(),
        how: Consistency::Stop,
        _turn: Some(turn(state, TURN_MAX)?),
    };
    let frozen = frozen(&steps, dependents);
    let record = Record::write(state, &name, frozen);
    held.record = Some(record.map_err(|error| local("write to", state, error))?);
    put_to_rest(podman, units.as_ref(), &steps)?;
    // Whoever freezes from now on finds them stopped.
    held._turn = None;
    Ok(Box::new(held))
}

impl Freeze for Held {
    fn holds(&self) -> bool {
        self.record.is_some()
    }

    fn leave(self: Box<Self>) -> Option<f64> {
        Some(Held::leave(*self))
    }

    fn thaw(mut self: Box<Self>) -> Thawed {
        Held::thaw(&mut self)
    }
}

/// What runs that were cut off left at rest goes again.
pub(in crate::host) fn thaw_leftovers(podman: &Podman, state: &Path) -> Vec<Finding> {
    let units = Units::find(podman);
    let mut findings = Vec::new();
    for record in Record::left(state) {
        let objects: Vec<&str> = record.frozen.iter().map(|f| f.object.as_str()).collect();
        let objects = objects.join(", ");
        let mut going = set_going(podman, units.as_ref(), &record.frozen);
        findings.extend(going.warnings());
        let failures = going.failures;
        let (kind, message) = match failures.is_empty() {
            true => (
                FindingKind::Note,
                "was left frozen by a run that was cut off, and is going again".to_owned(),
            ),
            false => (
                FindingKind::Consistency,
                format!(
                    "is left frozen by a run that was cut off: {}",
                    failures.join("; ")
                ),
            ),
        };
        findings.push(Finding {
            object: objects,
            kind,
            snapshots: Vec::new(),
            paths: Vec::new(),
            message,
        });
        if failures.is_empty() {
            if let Some(name) = record.path.file_stem().and_then(|name| name.to_str()) {
                Deadline::forget(podman, name);
            }
            record.remove();
        }
    }
    findings
}

/// What is done to a container, by what is asked for and what it can bear.
fn how(
    units: Option<&Units>,
    container: &LiveContainer,
    wanted: Wanted,
    findings: &mut Vec<Finding>,
) -> Result<How, HostError> {
    if !container.is_running() || container.is_infra || container.is_service {
        return Ok(How::Nothing);
    }
    let (Wanted::May(how) | Wanted::Must(how)) = wanted;
    let must = matches!(wanted, Wanted::Must(_));
    match how {
        Consistency::Live => Ok(How::Nothing),
        Consistency::Pause => Ok(How::Pause),
        Consistency::Stop => {
            let owner = units.map(|units| units.owner(container)).transpose()?;
            // It would go with its writable layer, and so do the containers of generated units.
            // Neither may one be stopped whose unit cannot be told: it would start it again.
            let asked = units.is_some_and(|units| units.can_ask_about(container));
            let owner = owner.flatten();
            let vanishes = container.auto_remove
                || (!asked && container.is_of_a_unit())
                || owner.as_ref().is_some_and(|owner| owner.makes_anew);
            Ok(match owner {
                // Whoever must have it stopped knows that its unit makes another one.
                Some(owner) if must || !vanishes => How::StopUnit(owner.unit),
                None if !vanishes => How::Stop,
                _ => {
                    findings.push(Finding {
                        kind: FindingKind::Note,
                        ..warning(
                            container,
                            "it is paused, not stopped: it would be removed (--rm, or a unit that \
                             makes it anew), or its unit cannot be asked"
                                .into(),
                        )
                    });
                    How::Pause
                }
            })
        }
    }
}

/// Active units that stop with those that are stopped.
fn dependents(units: Option<&Units>, steps: &[Step]) -> Result<Vec<String>, PodmanError> {
    let mut found: Vec<String> = Vec::new();
    for step in steps {
        if let (How::StopUnit(unit), Some(units)) = (&step.how, units) {
            found.extend(units.dependents(unit)?);
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Records, arms, and freezes. On failure what was frozen goes again; the findings tell of what does
/// not.
fn at_rest(
    going: Going,
    state: &Path,
    volumes: Option<&Path>,
    request: &FreezeRequest,
    steps: &[Step],
    dependents: Vec<String>,
) -> Result<Guard, (HostError, Vec<Finding>)> {
    // What an earlier checkpoint left is not what they go on from.
    let carried = steps
        .iter()
        .filter(|step| matches!(step.how, How::Checkpoint(_)));
    let carried: Vec<String> = carried.map(|step| step.container.id.clone()).collect();
    if let Err(error) = checkpoint::forget(&going.podman, &carried) {
        return Err((error.into(), Vec::new()));
    }
    let frozen = frozen(steps, dependents);
    let name = match name() {
        Ok(name) => name,
        Err(cause) => return Err((local("name", state, cause), Vec::new())),
    };
    let podman = going.podman.clone();
    let units = going.units.clone();
    let mut held = Held {
        going,
        record: None,
        deadline: None,
        since: Instant::now(),
        how: recorded(steps),
        _turn: None,
    };
    let failed = |mut held: Held, error: HostError| {
        let thawed = held.thaw();
        (error, thawed.findings)
    };
    if !frozen.is_empty() {
        match turn(state, request.max) {
            Ok(turn) => held._turn = Some(turn),
            Err(error) => return Err(failed(held, error)),
        }
        let made = Record::write(state, &name, frozen);
        let record = match made {
            Ok(record) => record,
            Err(error) => return Err(failed(held, local("write to", state, error))),
        };
        let what: Vec<_> = record.frozen.iter().map(Frozen::resumption).collect();
        let time = request.max + DEADLINE_AFTER;
        let armed = Deadline::arm(&podman, &record.path, &name, &what, time);
        held.record = Some(record);
        match armed {
            Ok(deadline) => held.deadline = Some(deadline),
            Err(error) => return Err(failed(held, error.into())),
        }
        // Once more, and as late as can be: what is dirty now is written out while they rest.
        if let Some(volumes) = volumes {
            sync_for_copies(volumes);
        }
        held.since = Instant::now();
        if let Err(error) = put_to_rest(&podman, units.as_ref(), steps) {
            return Err(failed(held, error));
        }
    }
    Ok(Guard::new(held, request.max))
}

/// What may be said of all of them: the least that was done to one.
fn recorded(steps: &[Step]) -> Consistency {
    let done = steps.iter().filter_map(|step| match step.how {
        How::Pause => Some(Consistency::Pause),
        How::Stop | How::Checkpoint(_) | How::StopUnit(_) => Some(Consistency::Stop),
        How::Nothing if step.container.status == "paused" => Some(Consistency::Pause),
        // Not running, or its label says that it does not matter.
        How::Nothing => None,
    });
    done.min_by_key(|how| *how as u8)
        .unwrap_or(Consistency::Live)
}

/// Runs freeze one after the other: none may thaw what another has just frozen.
fn turn(state: &Path, max: Duration) -> Result<File, HostError> {
    let folder = folder(state);
    make_private(&folder).map_err(|error| local("make", &folder, error))?;
    let path = folder.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| local("open", &path, error))?;
    let since = Instant::now();
    loop {
        match crate::fs::lock::lock_exclusive(&file) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if since.elapsed() < max => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(HostError::Busy {
                    object: "frozen containers".into(),
                    holder: format!("for more than {} s", max.as_secs()),
                });
            }
            Err(errno) => return Err(local("lock", &path, errno.into())),
        }
    }
}

/// What is set going again afterwards, in this order: what was stopped last comes first, and units
/// that need others after those.
fn frozen(steps: &[Step], dependents: Vec<String>) -> Vec<Frozen> {
    let mut frozen = Vec::new();
    for step in steps {
        let object = format!("container {}", step.container.name);
        let id = step.container.id.clone();
        let resume = match &step.how {
            How::Nothing => continue,
            How::Pause => Resume::Unpause(id),
            How::Stop => Resume::Start(id),
            How::Checkpoint(_) => Resume::Restore(id),
            How::StopUnit(unit) => Resume::StartUnit(unit.clone()),
        };
        let one = Frozen { object, resume };
        if !frozen.contains(&one) {
            frozen.push(one);
        }
    }
    frozen.extend(dependents.into_iter().map(|unit| Frozen {
        object: format!("unit {unit}"),
        resume: Resume::StartUnit(unit),
    }));
    frozen
}

/// Pauses first, which is quick, then stops. A container that ended by itself is at rest.
fn put_to_rest(podman: &Podman, units: Option<&Units>, steps: &[Step]) -> Result<(), HostError> {
    let ids = |wanted: fn(&How) -> bool| -> Vec<String> {
        let steps = steps.iter().filter(|step| wanted(&step.how));
        steps.map(|step| step.container.id.clone()).collect()
    };
    let stopped = ids(|how| matches!(how, How::Stop));
    let mut outcome = stop(podman, &stopped);
    for step in steps {
        if let (How::StopUnit(unit), Some(units), Ok(())) = (&step.how, units, &outcome) {
            outcome = units.stop(unit);
        }
    }
    for step in steps {
        if let (How::Checkpoint(archive), Ok(())) = (&step.how, &outcome) {
            // Whether it runs on or not: without an archive it cannot go on anywhere else.
            checkpoint::dump(podman, &step.container.id, archive)?;
        }
    }
    // Last: they wait for those that stop.
    let paused = ids(|how| matches!(how, How::Pause));
    let outcome = outcome.and_then(|()| pause(podman, &paused));
    let Err(error) = outcome else {
        return Ok(());
    };
    let frozen = ids(|how| !matches!(how, How::Nothing));
    let now = live_containers(podman, &frozen)?;
    match now.iter().any(LiveContainer::is_running) {
        true => Err(error.into()),
        false => Ok(()),
    }
}

/// What it takes to set things going.
struct Going {
    podman: Podman,
    units: Option<Units>,
    /// Containers whose first command ran, with their second.
    hooked: Vec<(LiveContainer, Vec<String>, Duration)>,
}

impl Going {
    fn run_pre_hooks(
        &mut self,
        steps: &[Step],
        findings: &mut Vec<Finding>,
    ) -> Result<(), HostError> {
        for Step {
            container, wishes, ..
        } in steps
        {
            if !container.is_running() {
                continue;
            }
            // The second command may have to take back what half of the first one did.
            if let Some(post) = &wishes.post {
                let hooked = (container.clone(), post.clone(), wishes.timeout);
                self.hooked.push(hooked);
            }
            let Some(pre) = &wishes.pre else {
                continue;
            };
            match exec(&self.podman, container, pre, wishes.timeout) {
                Ok(()) => {}
                Err(error) if wishes.goes_on => {
                    findings.push(warning(
                        container,
                        format!("{error}; it is saved all the same"),
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn run_post_hooks(&mut self, findings: &mut Vec<Finding>) {
        for (container, post, time) in self.hooked.drain(..) {
            if let Err(error) = exec(&self.podman, &container, &post, time) {
                findings.push(warning(&container, error.to_string()));
            }
        }
    }
}

/// What is at rest, and all that must be done when it is set going.
struct Held {
    going: Going,
    record: Option<Record>,
    deadline: Option<Deadline>,
    since: Instant,
    how: Consistency,
    _turn: Option<File>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.record.is_some() {
            self.thaw();
        }
    }
}

impl Held {
    /// The record goes first: what is armed does nothing without it.
    fn leave(mut self) -> f64 {
        let seconds = self.since.elapsed().as_secs_f64();
        if let Some(record) = self.record.take() {
            record.remove();
        }
        if let Some(deadline) = self.deadline.take() {
            deadline.disarm();
        }
        seconds
    }

    fn thaw(&mut self) -> Thawed {
        let mut findings = Vec::new();
        let mut seconds = 0.0;
        if let Some(record) = self.record.take() {
            let going = &self.going;
            let mut gone = set_going(&going.podman, going.units.as_ref(), &record.frozen);
            findings.extend(gone.warnings());
            let failures = gone.failures;
            seconds = self.since.elapsed().as_secs_f64();
            if failures.is_empty() {
                record.remove();
                if let Some(deadline) = self.deadline.take() {
                    deadline.disarm();
                }
            }
            // What is left is tried again by what is armed, and by the next run.
            for failure in failures {
                findings.push(about_host(format!(
                    "it cannot be set going again: {failure}"
                )));
            }
        }
        self.going.run_post_hooks(&mut findings);
        Thawed {
            how: self.how,
            seconds,
            findings,
        }
    }
}

/// Thaws when it is dropped, and by itself when its time is over.
struct Guard {
    shared: Arc<Mutex<Shared>>,
    /// Ends the thread that waits.
    end: Option<Sender<()>>,
    waits: Option<JoinHandle<()>>,
}

struct Shared {
    held: Option<Held>,
    /// The time was over.
    late: Option<Thawed>,
}

impl Guard {
    fn new(held: Held, max: Duration) -> Self {
        let left = max.saturating_sub(held.since.elapsed());
        let shared = Arc::new(Mutex::new(Shared {
            held: Some(held),
            late: None,
        }));
        let (end, ended) = bounded(0);
        let waiting = Arc::clone(&shared);
        let waits = std::thread::Builder::new()
            .name("thaw".into())
            .spawn(move || {
                if ended.recv_timeout(left) != Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                    return;
                }
                let mut shared = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(mut held) = shared.held.take() {
                    shared.late = Some(held.thaw());
                }
            });
        // Without the thread, what is armed outside thaws a little later.
        Self {
            shared,
            end: Some(end),
            waits: waits.ok(),
        }
    }

    fn end(&mut self) -> Option<Thawed> {
        let thawed = {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            match shared.held.take() {
                Some(mut held) => Some(held.thaw()),
                None => shared.late.take(),
            }
        };
        self.end = None;
        if let Some(waits) = self.waits.take() {
            let _ = waits.join();
        }
        thawed
    }
}

impl Freeze for Guard {
    fn holds(&self) -> bool {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.held.is_some()
    }

    fn leave(mut self: Box<Self>) -> Option<f64> {
        let seconds = {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.held.take()?.leave()
        };
        self.end();
        Some(seconds)
    }

    fn thaw(mut self: Box<Self>) -> Thawed {
        self.end().unwrap_or(Thawed {
            how: Consistency::Live,
            seconds: 0.0,
            findings: Vec::new(),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

/// Names a freeze on this host.
fn name() -> Result<String, std::io::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn containers(steps: &[Step]) -> String {
    let names: Vec<&str> = steps.iter().map(|s| s.container.name.as_str()).collect();
    match names.as_slice() {
        [one] => format!("container {one}"),
        several => format!("containers {}", several.join(", ")),
    }
}

fn warning(container: &LiveContainer, message: String) -> Finding {
    Finding {
        object: format!("container {}", container.name),
        kind: FindingKind::Consistency,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message,
    }
}

fn local(action: &'static str, path: &Path, error: std::io::Error) -> HostError {
    let path = path.as_os_str().as_encoded_bytes();
    HostError::Fs(FsError::new(action, path, FsErrorKind::Other, error))
}
