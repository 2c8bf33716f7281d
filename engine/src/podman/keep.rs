//! Containers as a whole: stopped for good, kept from coming back by themselves, removed.

use serde::Deserialize;

use super::command::{Podman, PodmanError, Purpose, failure, parse};
use super::quiesce::{LiveContainer, live_containers, start, stop, unpause};

/// The policy of a container that Podman does not start by itself.
const NEVER: &str = "no";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    host_config: HostConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    restart_policy: Policy,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    #[serde(default)]
    name: String,
    #[serde(default)]
    maximum_retry_count: u32,
}

/// Those of `names` that run or are paused.
pub fn at_work(podman: &Podman, names: &[String]) -> Result<Vec<String>, PodmanError> {
    let live = live_containers(podman, names)?.into_iter();
    let works = |one: &LiveContainer| !matches!(&*one.status, "exited" | "created" | "configured");
    Ok(live.filter(works).map(|one| one.name).collect())
}

/// Those of `names` that run and are not paused.
pub fn awake(podman: &Podman, names: &[String]) -> Result<Vec<String>, PodmanError> {
    let live = live_containers(podman, names)?.into_iter();
    Ok(live
        .filter(LiveContainer::is_running)
        .map(|one| one.name)
        .collect())
}

/// Whether Podman removes a container when it stops.
pub fn is_removed_at_stop(podman: &Podman, name: &str) -> Result<bool, PodmanError> {
    let live = live_containers(podman, &[name.to_owned()])?;
    Ok(live.first().is_some_and(|one| one.auto_remove))
}

/// Returns when none of those that are there runs.
pub fn stop_all(podman: &Podman, names: &[String]) -> Result<(), PodmanError> {
    stop(podman, &at_work(podman, names)?)
}

/// Those that are gone are left out.
pub fn start_all(podman: &Podman, names: &[String]) -> Result<(), PodmanError> {
    let there = live_containers(podman, names)?;
    let paused = there.iter().filter(|one| one.status == "paused");
    let paused: Vec<String> = paused.map(|one| one.name.clone()).collect();
    unpause(podman, &paused)?;
    // In the order that they were given.
    let there = |name: &&String| there.iter().any(|one| one.name == **name);
    let rest = names.iter().filter(there);
    let rest: Vec<String> = rest
        .filter(|name| !paused.contains(name))
        .cloned()
        .collect();
    start(podman, &rest)
}

/// A container's restart policy as `--restart` takes it; `None`: it has none.
pub fn restart_policy(podman: &Podman, name: &str) -> Result<Option<String>, PodmanError> {
    let object = format!("container {name}");
    let purpose = Purpose {
        action: "inspect",
        object: &object,
    };
    let arguments = ["container", "inspect", "--format", "json", name];
    let shown: Vec<Shown> = parse(purpose, &podman.run(purpose, &arguments, b"")?)?;
    let policy = shown
        .into_iter()
        .next()
        .map(|one| one.host_config.restart_policy);
    Ok(policy.and_then(|policy| match policy.name.as_str() {
        "" | NEVER => None,
        name if policy.maximum_retry_count > 0 => {
            Some(format!("{name}:{}", policy.maximum_retry_count))
        }
        name => Some(name.to_owned()),
    }))
}

/// Needs a Podman of [`RESTART_UPDATE_SINCE`](super::replay::RESTART_UPDATE_SINCE). `None`: none.
pub fn set_restart_policy(
    podman: &Podman,
    name: &str,
    policy: Option<&str>,
) -> Result<(), PodmanError> {
    let object = format!("the restart policy of container {name}");
    let purpose = Purpose {
        action: "set",
        object: &object,
    };
    let policy = format!("--restart={}", policy.unwrap_or(NEVER));
    podman
        .run(purpose, &["update", &policy, name], b"")
        .map(drop)
}

/// Removes a container with its anonymous volumes, whatever it does; what runs in it has no time to end.
pub fn kill_and_remove(podman: &Podman, name: &str) -> Result<(), PodmanError> {
    let object = format!("container {name}");
    let purpose = Purpose {
        action: "remove",
        object: &object,
    };
    let arguments = ["container", "rm", "--force", "--time=0", "--volumes", name];
    let ended = podman.end(purpose, &arguments, b"")?;
    let error = match ended.status.success() {
        true => return Ok(()),
        false => failure(purpose, &ended),
    };
    // Podman removes it by itself once it is killed: both may be at it.
    match error.not_found || live_containers(podman, &[name.to_owned()])?.is_empty() {
        true => Ok(()),
        false => Err(error),
    }
}

/// Removes an object if it is there: `kind` is podman's word. A container goes with its anonymous
/// volumes, and only if it does not run; a pod with what is in it.
pub fn remove(podman: &Podman, kind: &str, name: &str) -> Result<(), PodmanError> {
    let object = format!("{kind} {name}");
    let purpose = Purpose {
        action: "remove",
        object: &object,
    };
    let mut arguments = vec![kind, "rm"];
    match kind {
        "container" => arguments.push("--volumes"),
        // Its infra container may run, with nothing else in it.
        "pod" => arguments.push("--force"),
        _ => {}
    }
    arguments.push(name);
    let ended = podman.end(purpose, &arguments, b"")?;
    if ended.status.success() {
        return Ok(());
    }
    let error = failure(purpose, &ended);
    match error.not_found {
        true => Ok(()),
        false => Err(error),
    }
}
