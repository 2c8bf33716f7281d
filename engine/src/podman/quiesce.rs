//! Putting containers at rest and setting them going again.
//!
//! A container that Podman removes when it stops (`--rm`, and with it every Quadlet unit and what
//! `podman generate systemd --new` writes) must not be stopped: its writable layer and its
//! anonymous volumes would go with it. One that a unit runs is stopped and started by way of the
//! unit, which would start it again by itself otherwise.

mod deadline;
mod manager;
mod units;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::command::{Podman, PodmanError, Purpose, failure, parse};

pub use deadline::{Deadline, Resumption};
pub use units::{UNIT_LABEL, Units};

/// Containers that one call is given.
const CONTAINERS_PER_CALL: usize = 100;
/// Before a container is killed that does not stop: Podman has it from the container itself.
const STOP_TIME_MAX: Duration = Duration::from_secs(600);

/// A container as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveContainer {
    pub id: String,
    pub name: String,
    /// Podman's word: "running", "paused", "exited".
    pub status: String,
    /// The pod's id.
    pub pod: Option<String>,
    pub is_infra: bool,
    /// It stands for what `podman kube play` made, and does nothing else.
    pub is_service: bool,
    /// It goes when it stops.
    pub auto_remove: bool,
    pub labels: BTreeMap<String, String>,
    /// Of the process that watches over it; 0: there is none.
    pub conmon_pid: u32,
    /// On the networks that it is in.
    pub addresses: Vec<IpAddr>,
    /// It can be reached at the host's own addresses.
    pub listens_on_host: bool,
}

impl LiveContainer {
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }

    /// A unit of systemd made it.
    pub fn is_of_a_unit(&self) -> bool {
        self.labels.contains_key(UNIT_LABEL)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    id: String,
    name: String,
    state: State,
    #[serde(default)]
    pod: String,
    #[serde(default)]
    is_infra: bool,
    #[serde(default)]
    is_service: bool,
    config: Config,
    host_config: HostConfig,
    network_settings: Option<NetworkSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    #[serde(default)]
    conmon_pid: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    auto_remove: bool,
    #[serde(default)]
    network_mode: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    ports: Option<BTreeMap<String, serde_json::Value>>,
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(default, rename = "IPAddress")]
    v4: String,
    #[serde(default, rename = "GlobalIPv6Address")]
    v6: String,
}

impl From<Shown> for LiveContainer {
    fn from(shown: Shown) -> Self {
        let settings = shown.network_settings;
        let networks = settings.as_ref().and_then(|s| s.networks.as_ref());
        let addresses = networks
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(|network| [&network.v4, &network.v6])
            .filter_map(|address| address.parse().ok())
            .collect();
        let ports = settings.as_ref().and_then(|s| s.ports.as_ref());
        let publishes = ports.is_some_and(|ports| ports.values().any(|port| !port.is_null()));
        Self {
            id: shown.id,
            name: shown.name,
            status: shown.state.status,
            pod: Some(shown.pod).filter(|pod| !pod.is_empty()),
            is_infra: shown.is_infra,
            is_service: shown.is_service,
            auto_remove: shown.host_config.auto_remove,
            labels: shown.config.labels.unwrap_or_default(),
            conmon_pid: shown.state.conmon_pid,
            addresses,
            listens_on_host: publishes || shown.host_config.network_mode == "host",
        }
    }
}

/// Containers by name or id, as they are now; those that are gone are left out.
pub fn live_containers(
    podman: &Podman,
    names: &[String],
) -> Result<Vec<LiveContainer>, PodmanError> {
    let purpose = Purpose {
        action: "inspect",
        object: "containers",
    };
    let mut found = Vec::new();
    for names in names.chunks(CONTAINERS_PER_CALL) {
        let mut arguments = vec!["container", "inspect", "--format", "json"];
        arguments.extend(names.iter().map(String::as_str));
        let ended = podman.end(purpose, &arguments, b"")?;
        // Of those that are gone podman complains, and shows the others.
        let shown: Vec<Shown> = match parse(purpose, &ended.stdout) {
            Ok(shown) => shown,
            Err(_) if !ended.status.success() => {
                let error = failure(purpose, &ended);
                match error.not_found {
                    true => Vec::new(),
                    false => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        found.extend(shown.into_iter().map(LiveContainer::from));
    }
    Ok(found)
}

/// Pauses containers by id. Fails if one of them cannot be paused; the others are then paused.
pub fn pause(podman: &Podman, ids: &[String]) -> Result<(), PodmanError> {
    all(podman, "pause", &["pause"], ids)
}

/// Fails if one of them is not paused.
pub fn unpause(podman: &Podman, ids: &[String]) -> Result<(), PodmanError> {
    all(podman, "unpause", &["unpause"], ids)
}

/// Returns when they are stopped; each is given its own time to end.
pub fn stop(podman: &Podman, ids: &[String]) -> Result<(), PodmanError> {
    all(podman, "stop", &["stop"], ids)
}

/// Starts containers, and those that they need.
pub fn start(podman: &Podman, ids: &[String]) -> Result<(), PodmanError> {
    all(podman, "start", &["start"], ids)
}

fn all(
    podman: &Podman,
    action: &'static str,
    verb: &[&str],
    ids: &[String],
) -> Result<(), PodmanError> {
    for ids in ids.chunks(CONTAINERS_PER_CALL) {
        let object = match ids {
            [one] => format!("container {one}"),
            several => format!("{} containers", several.len()),
        };
        let purpose = Purpose {
            action,
            object: &object,
        };
        let mut arguments = verb.to_vec();
        arguments.extend(ids.iter().map(String::as_str));
        let ended = podman.end_within(purpose, &arguments, b"", STOP_TIME_MAX)?;
        if !ended.status.success() {
            return Err(failure(purpose, &ended));
        }
    }
    Ok(())
}

/// Runs a command in a container. What it started goes on when it takes longer than `time`.
pub fn exec(
    podman: &Podman,
    container: &LiveContainer,
    command: &[String],
    time: Duration,
) -> Result<(), PodmanError> {
    let object = format!("a command in container {}", container.name);
    let purpose = Purpose {
        action: "run",
        object: &object,
    };
    let mut arguments = vec!["exec", container.id.as_str()];
    arguments.extend(command.iter().map(String::as_str));
    let ended = podman.end_within(purpose, &arguments, b"", time)?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(failure(purpose, &ended)),
    }
}

#[cfg(test)]
mod tests;
