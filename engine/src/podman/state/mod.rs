//! Podman's own state: what containers and pods there are and how they were made.
//!
//! No command of Podman shows all of it, so its database is read: `db.sql`, or `bolt_state.db` of
//! older installations. Nothing is ever written there, not even a journal. Only where neither can
//! be read does Podman's own `inspect` stand in, and whatever comes of that is marked.
//!
//! Source: containers/podman `libpod/sqlite_state*.go`, `libpod/boltdb_state*.go`,
//! `libpod/container_config.go`, `libpod/define/containerstate.go`, 4.3 to 5.8.

mod bolt;
mod boltdb;
mod inspect;
mod sqlite;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::command::{Podman, PodmanError};
use super::definition::{
    ConfigSource, ContainerDefinition, DEFINITION_BYTES_MAX, PodDefinition, is_object_name,
};
use super::info::StoreInfo;

pub use boltdb::read_bolt;

/// Containers, and pods, of one host.
pub const OBJECTS_MAX: usize = 100_000;
/// Depth of the JSON whose strings may be IDs.
const DEPTH_MAX: usize = 64;
/// Bytes of an OCI config.json.
const SPEC_BYTES_MAX: usize = 4 << 20;

/// A container as the database has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredContainer {
    pub id: String,
    pub name: String,
    /// libpod's ContainerConfig.
    pub config: Map<String, Value>,
    /// Podman's word.
    pub status: String,
    pub exit_code: Option<i32>,
    /// Of the OCI configuration that it ran with last; empty: it never ran.
    pub spec_path: PathBuf,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredPod {
    pub id: String,
    pub name: String,
    /// libpod's PodConfig.
    pub config: Map<String, Value>,
    /// Empty: it has no infra container.
    pub infra_id: String,
}

/// What there is on a host. Infra containers are among the containers.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredState {
    pub source: ConfigSource,
    pub containers: Vec<StoredContainer>,
    pub pods: Vec<StoredPod>,
    /// Why it was not read from the database.
    pub lossy: Option<String>,
}

/// Reads the state of this Podman. Fails only when `inspect` does, too.
pub fn read_state(podman: &Podman, info: &StoreInfo) -> Result<StoredState, PodmanError> {
    let mut causes = Vec::new();
    for database in databases(info) {
        let read = match &database {
            Database::Sqlite(path) => sqlite::read(path, &info.graph_root),
            Database::Bolt(path) => boltdb::read(path),
        };
        match read {
            Ok(state) => return Ok(state),
            Err(cause) => causes.push(format!("{}: {cause}", database.path().display())),
        }
    }
    if causes.is_empty() {
        causes.push("it is not where Podman keeps it by default".into());
    }
    let mut state = inspect::read(podman)?;
    state.lossy = Some(causes.join("; "));
    Ok(state)
}

enum Database {
    Sqlite(PathBuf),
    Bolt(PathBuf),
}

impl Database {
    fn path(&self) -> &Path {
        match self {
            Self::Sqlite(path) | Self::Bolt(path) => path,
        }
    }
}

/// Those that exist, the one that Podman uses first. Where both do, Podman says which one it is.
fn databases(info: &StoreInfo) -> Vec<Database> {
    let root = match info.transient {
        true => &info.run_root,
        false => &info.graph_root,
    };
    // `static_dir` is this folder unless it is set.
    let static_dir = info.graph_root.join("libpod");
    let sqlite = [root.join("db.sql"), static_dir.join("db.sql")].map(Database::Sqlite);
    let bolt = Database::Bolt(static_dir.join("bolt_state.db"));
    let mut databases: Vec<Database> = sqlite.into_iter().chain([bolt]).collect();
    databases.retain(|database| database.path().is_file());
    match info.database.as_deref() {
        Some("boltdb") => databases.retain(|database| matches!(database, Database::Bolt(_))),
        Some("sqlite") => databases.retain(|database| matches!(database, Database::Sqlite(_))),
        // Podman 4.3 has no other.
        _ => databases.sort_by_key(|database| matches!(database, Database::Sqlite(_))),
    }
    databases
}

/// The word for a number of libpod's `ContainerStatus`.
fn status_word(number: i64) -> &'static str {
    match number {
        1 => "created",
        2 => "initialized",
        3 => "running",
        4 => "stopped",
        5 => "paused",
        6 => "exited",
        7 => "removing",
        8 => "stopping",
        _ => "unknown",
    }
}

/// Takes over what libpod's ContainerState says.
fn apply_state(container: &mut StoredContainer, state: &Map<String, Value>) {
    let number = |field: &str| state.get(field).and_then(Value::as_i64);
    container.status = status_word(number("state").unwrap_or(0)).into();
    container.exit_code = match container.status.as_str() {
        // Left out when it is 0.
        "stopped" | "exited" => i32::try_from(number("exitCode").unwrap_or(0)).ok(),
        _ => None,
    };
    let path = state.get("configPath").and_then(Value::as_str);
    container.spec_path = PathBuf::from(path.unwrap_or_default());
}

/// Of libpod's PodState.
fn infra_id(state: &Map<String, Value>) -> String {
    let id = state.get("InfraContainerID").and_then(Value::as_str);
    id.unwrap_or_default().to_owned()
}

/// A JSON object of bounded size.
fn object(what: &str, bytes: &[u8]) -> Result<Map<String, Value>, String> {
    if bytes.len() > DEFINITION_BYTES_MAX {
        return Err(format!("{what} has more than {DEFINITION_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(bytes).map_err(|error| format!("{what} is not understood: {error}"))
}

/// The name and ID of an object must be what Podman allows: they go into arguments and paths.
fn check_object(what: &str, id: &str, name: &str) -> Result<(), String> {
    let hex = podkeep_format::id::unhex::<32>(id).is_some();
    match hex && is_object_name(name) {
        true => Ok(()),
        false => Err(format!(
            "a {what} has an ID or name that Podman does not give"
        )),
    }
}

impl StoredState {
    /// Definitions of all containers and pods, sorted by name; infra containers are within their
    /// pods'. Without the OCI configurations that containers ran with: see [`effective_spec`].
    pub fn definitions(&self) -> (Vec<(ContainerDefinition, PathBuf)>, Vec<PodDefinition>) {
        let ids = self
            .containers
            .iter()
            .map(|c| (c.id.as_str(), c.name.as_str()));
        let pods = self
            .pods
            .iter()
            .map(|pod| (pod.id.as_str(), pod.name.as_str()));
        let names: HashMap<&str, &str> = ids.chain(pods).collect();
        let infra = |id: &str| self.pods.iter().any(|pod| pod.infra_id == id);
        let mut containers: Vec<(ContainerDefinition, PathBuf)> = self
            .containers
            .iter()
            .filter(|container| !infra(&container.id))
            .map(|container| {
                let definition = self.container(container, &names);
                (definition, container.spec_path.clone())
            })
            .collect();
        containers.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let mut pods: Vec<PodDefinition> = self.pods.iter().map(|pod| self.pod(pod)).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        (containers, pods)
    }

    fn container(
        &self,
        stored: &StoredContainer,
        names: &HashMap<&str, &str>,
    ) -> ContainerDefinition {
        let text = |field: &str| {
            let value = stored.config.get(field).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let (image_id, image_name, pod) = match self.source {
            ConfigSource::Inspect => (text("Image"), text("ImageName"), text("Pod")),
            _ => {
                let raw = text("RawImageName");
                let name = match raw.is_empty() {
                    true => text("rootfsImageName"),
                    false => raw,
                };
                (text("rootfsImageID"), name, text("pod"))
            }
        };
        let mut refers = BTreeMap::new();
        let mut of_config = |value: &Value| find_names(value, names, &mut refers, 0);
        stored.config.values().for_each(&mut of_config);
        refers.remove(&stored.id);
        let mut definition = ContainerDefinition {
            format: 1,
            id: stored.id.clone(),
            name: stored.name.clone(),
            source: self.source,
            config: stored.config.clone(),
            status: stored.status.clone(),
            exit_code: stored.exit_code,
            image_id,
            image_name,
            pod: names.get(pod.as_str()).map(|name| (*name).to_owned()),
            unit: None,
            names: refers,
            runtime_spec: None,
        };
        definition.unit = definition.label(super::UNIT_LABEL);
        definition
    }

    fn pod(&self, stored: &StoredPod) -> PodDefinition {
        let mut containers = Vec::new();
        let mut infra = None;
        let mut running = false;
        let field = match self.source {
            ConfigSource::Inspect => "Pod",
            _ => "pod",
        };
        for container in &self.containers {
            let is_infra = container.id == stored.infra_id;
            let pod = container.config.get(field).and_then(Value::as_str);
            if pod != Some(&stored.id) && !is_infra {
                continue;
            }
            running |= matches!(container.status.as_str(), "running" | "paused" | "stopping");
            match is_infra {
                true => infra = Some(container.config.clone()),
                false => containers.push(container.name.clone()),
            }
        }
        containers.sort();
        PodDefinition {
            format: 1,
            id: stored.id.clone(),
            name: stored.name.clone(),
            config: stored.config.clone(),
            infra,
            infra_id: stored.infra_id.clone(),
            running,
            containers,
        }
    }
}

/// Finds the IDs of containers and pods in strings: alone, or behind a colon (`container:ID`).
fn find_names(
    value: &Value,
    names: &HashMap<&str, &str>,
    found: &mut BTreeMap<String, String>,
    depth: usize,
) {
    if depth == DEPTH_MAX {
        return;
    }
    match value {
        Value::String(text) => {
            let id = text.rsplit(':').next().unwrap_or(text);
            if let Some(name) = names.get(id) {
                found.insert(id.to_owned(), (*name).to_owned());
            }
        }
        Value::Array(list) => list
            .iter()
            .for_each(|value| find_names(value, names, found, depth + 1)),
        Value::Object(map) => map
            .values()
            .for_each(|value| find_names(value, names, found, depth + 1)),
        _ => {}
    }
}

/// The OCI configuration that a container ran with last. `None`: it never ran. Values of secrets
/// that it has in its environment are left out: they are the secrets' items'.
pub fn effective_spec(
    definition: &ContainerDefinition,
    path: &Path,
) -> Result<Option<Map<String, Value>>, String> {
    if !path.is_absolute() {
        return Ok(None);
    }
    let bytes = match super::files::read_file(path, SPEC_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut spec = object("its config.json", &bytes)?;
    let secrets: Vec<String> = definition
        .secret_variables()
        .map(|n| format!("{n}="))
        .collect();
    if let Some(environment) = spec
        .get_mut("process")
        .and_then(|process| process.get_mut("env"))
        .and_then(Value::as_array_mut)
    {
        environment.retain(|variable| {
            let text = variable.as_str().unwrap_or_default();
            !secrets
                .iter()
                .any(|secret| text.starts_with(secret.as_str()))
        });
    }
    Ok(Some(spec))
}

#[cfg(test)]
mod tests;
