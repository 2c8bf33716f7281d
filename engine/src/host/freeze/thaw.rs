//! Setting things going that were put to rest.

use std::time::Duration;

use super::record::{Frozen, Resume};
use crate::monitor::{Finding, FindingKind};
use crate::podman::{
    LiveContainer, Podman, PodmanError, Units, checkpoint, live_containers, start, unpause,
};

/// Tries to set things going, and how long between them: Podman's database may be locked.
const THAW_TRIES: u32 = 5;
const THAW_PAUSE: Duration = Duration::from_millis(300);

/// What came of setting things going.
#[derive(Default)]
pub(super) struct SetGoing {
    /// What is not going, and why.
    pub failures: Vec<String>,
    /// What goes, and not as it should.
    told: Vec<String>,
}

impl SetGoing {
    /// Each of what goes, and not as it should.
    pub fn warnings(&mut self) -> impl Iterator<Item = Finding> {
        self.told.drain(..).map(about_host)
    }
}

pub(super) fn about_host(message: String) -> Finding {
    Finding {
        object: "this host".into(),
        kind: FindingKind::Consistency,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message,
    }
}

/// Sets things going again, several times if need be.
pub(super) fn set_going(podman: &Podman, units: Option<&Units>, frozen: &[Frozen]) -> SetGoing {
    let mut left: Vec<&Frozen> = frozen.iter().collect();
    let mut going = SetGoing::default();
    for attempt in 0..THAW_TRIES {
        if attempt > 0 {
            std::thread::sleep(THAW_PAUSE);
        }
        going.failures.clear();
        // All at once: each call costs a tenth of a second, during which they rest.
        let paused: Vec<String> = left.iter().filter_map(|one| paused_id(one)).collect();
        let all_at_once = paused.is_empty() || unpause(podman, &paused).is_ok();
        left.retain(|one| {
            if all_at_once && paused_id(one).is_some() {
                return false;
            }
            match set_one_going(podman, units, one, &mut going.told) {
                Ok(()) => false,
                Err(error) => {
                    going.failures.push(format!("{}: {error}", one.object));
                    true
                }
            }
        });
        if left.is_empty() {
            break;
        }
    }
    going
}

fn paused_id(one: &Frozen) -> Option<String> {
    match &one.resume {
        Resume::Unpause(id) => Some(id.clone()),
        _ => None,
    }
}

/// What is gone, or goes already, is as it should be.
///
/// `told`: what goes, and not as it should.
fn set_one_going(
    podman: &Podman,
    units: Option<&Units>,
    one: &Frozen,
    told: &mut Vec<String>,
) -> Result<(), PodmanError> {
    let (id, outcome) = match &one.resume {
        Resume::StartUnit(unit) => {
            let started = units.map(|units| match units.is_active(unit) {
                Ok(true) => Ok(()),
                _ => units.start(unit),
            });
            return started.unwrap_or(Ok(()));
        }
        Resume::Restore(id) => {
            let live = live_containers(podman, std::slice::from_ref(id))?;
            if live.iter().any(LiveContainer::is_running) {
                return Ok(());
            }
            let outcome = checkpoint::resume_or_start(podman, id).map(|why| {
                let why = why.map(|why| format!("{} started anew: {why}", one.object));
                told.extend(why);
            });
            (id, outcome)
        }
        Resume::Unpause(id) => (id, unpause(podman, std::slice::from_ref(id))),
        Resume::Start(id) => (id, start(podman, std::slice::from_ref(id))),
    };
    let Err(error) = outcome else {
        return Ok(());
    };
    let now = live_containers(podman, std::slice::from_ref(id))?;
    let rests = |container: &LiveContainer| match &one.resume {
        Resume::Unpause(_) => container.status == "paused",
        _ => !container.is_running(),
    };
    match now.iter().any(rests) {
        true => Err(error),
        false => Ok(()),
    }
}
