//! What Podman's own `inspect` shows, for want of a database that can be read.

use serde_json::{Map, Value};

use super::{ConfigSource, OBJECTS_MAX, StoredContainer, StoredPod, StoredState, check_object};
use crate::podman::command::{Podman, PodmanError, Purpose, failure, parse};

/// Objects that one call is asked for.
const OBJECTS_PER_CALL: usize = 100;

pub fn read(podman: &Podman) -> Result<StoredState, PodmanError> {
    let containers = Purpose {
        action: "list",
        object: "containers",
    };
    let mut state = StoredState {
        source: ConfigSource::Inspect,
        containers: Vec::new(),
        pods: Vec::new(),
        lossy: None,
    };
    for shown in all(
        podman,
        containers,
        &["ps", "-aq", "--no-trunc"],
        "container",
    )? {
        let (id, name) = (text(&shown, "Id"), text(&shown, "Name"));
        let stated = shown.get("State").and_then(Value::as_object);
        let status = stated.and_then(|state| state.get("Status")?.as_str());
        let exit_code = stated.and_then(|state| state.get("ExitCode")?.as_i64());
        let status = status.unwrap_or("unknown").to_owned();
        let ended = matches!(status.as_str(), "exited" | "stopped");
        check_object("container", &id, &name).map_err(|cause| wrong(containers, cause))?;
        state.containers.push(StoredContainer {
            id,
            name,
            exit_code: exit_code
                .filter(|_| ended)
                .and_then(|code| i32::try_from(code).ok()),
            status,
            config: shown,
            spec_path: Default::default(),
        });
    }
    let pods = Purpose {
        action: "list",
        object: "pods",
    };
    for shown in all(podman, pods, &["pod", "ps", "-q", "--no-trunc"], "pod")? {
        let (id, name) = (text(&shown, "Id"), text(&shown, "Name"));
        check_object("pod", &id, &name).map_err(|cause| wrong(pods, cause))?;
        state.pods.push(StoredPod {
            infra_id: text(&shown, "InfraContainerID"),
            id,
            name,
            config: shown,
        });
    }
    Ok(state)
}

fn all(
    podman: &Podman,
    purpose: Purpose<'_>,
    list: &[&str],
    kind: &str,
) -> Result<Vec<Map<String, Value>>, PodmanError> {
    let listed = podman.run(purpose, list, b"")?;
    let ids = String::from_utf8_lossy(&listed).into_owned();
    // They become arguments.
    let is_id = |id: &&str| podkeep_format::id::unhex::<32>(id).is_some();
    let ids: Vec<&str> = ids.split_whitespace().filter(is_id).collect();
    if ids.len() > OBJECTS_MAX {
        return Err(wrong(purpose, format!("there are more than {OBJECTS_MAX}")));
    }
    let mut found = Vec::new();
    for ids in ids.chunks(OBJECTS_PER_CALL) {
        let mut arguments = vec![kind, "inspect"];
        arguments.extend(ids);
        let ended = podman.end(purpose, &arguments, b"")?;
        // Of what went meanwhile podman complains, and shows the others. One pod is no list.
        let shown: Value = match parse(purpose, &ended.stdout) {
            Ok(shown) => shown,
            Err(_) if !ended.status.success() => return Err(failure(purpose, &ended)),
            Err(error) => return Err(error),
        };
        let shown = match shown {
            Value::Array(list) => list,
            one => vec![one],
        };
        found.extend(shown.into_iter().filter_map(|value| match value {
            Value::Object(map) => Some(map),
            _ => None,
        }));
    }
    Ok(found)
}

fn text(map: &Map<String, Value>, field: &str) -> String {
    let value = map.get(field).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

fn wrong(purpose: Purpose<'_>, cause: String) -> PodmanError {
    PodmanError::new(purpose.action, purpose.object, cause)
}
