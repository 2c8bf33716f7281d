//! What a container mounts: directories of the host, memory, volumes, images.

use serde_json::{Value, json};

use super::request::{ContainerRequest, new_name};
use super::stored::{Object, below, flag, map, objects, text, texts};

/// Mounts that the server makes by itself; they are asked for only when they lie on a destination
/// that a user named.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/run"];
/// The oldest Podman that mounts [`TEMPORARY`] itself when asked for it by `read_write_tmpfs`.
const READ_WRITE_TMPFS_SINCE: (u32, u32) = (4, 4);
/// The options of /proc when nobody asked for others.
const PROC_OPTIONS: [&str; 3] = ["nosuid", "noexec", "nodev"];

pub(super) fn ask(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let config = wanted.config;
    let inherited = inherited(wanted);
    let users: Vec<&str> = texts(config, "userVolumes");
    // Volumes that an image declares are among the volumes below.
    body.insert("image_volume_mode".into(), json!("ignore"));
    let mut mounts = Vec::new();
    let spec = below(config, &["spec"]);
    let temporary = flag(config, "readWriteTmpfs");
    let by_itself = wanted.target.is_at_least(READ_WRITE_TMPFS_SINCE);
    for mount in spec.into_iter().flat_map(|spec| objects(spec, "mounts")) {
        let destination = text(mount, "destination");
        let asked_for = users.contains(&destination)
            || (temporary && !by_itself && TEMPORARY.contains(&destination));
        if asked_for && !inherited.contains(&destination) {
            mounts.push(Value::Object(unprocessed(mount)));
        } else if destination == "/proc" {
            let options = texts(mount, "options");
            if text(mount, "type") == "proc" && options != PROC_OPTIONS {
                body.insert("procfs_opts".into(), json!(options));
            }
        }
    }
    if !mounts.is_empty() {
        body.insert("mounts".into(), json!(mounts));
    }
    if by_itself {
        // A read-only root has a read-only /dev, unless there are temporary file systems.
        let spec_is_open = spec.is_some_and(|spec| {
            map(spec, "root").is_some_and(|root| flag(root, "readonly"))
                && objects(spec, "mounts").any(|mount| {
                    text(mount, "destination") == "/dev" && !texts(mount, "options").contains(&"ro")
                })
        });
        body.insert("read_write_tmpfs".into(), json!(temporary || spec_is_open));
    }
    volumes(wanted, &inherited, body);
    volumes_from(wanted, body);
    others(config, &inherited, body);
    secrets(config, body);
}

/// Destinations that it takes over from its pod's infra container without being asked.
fn inherited<'a>(wanted: &ContainerRequest<'a>) -> Vec<&'a str> {
    let infra = wanted.pod.and_then(|pod| pod.infra);
    infra
        .map(|infra| texts(infra, "userVolumes"))
        .unwrap_or_default()
}

/// A mount as it was asked for: the server drops `notmpcopyup` and would take its absence for
/// `tmpcopyup`.
fn unprocessed(mount: &Object) -> Object {
    let mut mount = mount.clone();
    let options = texts(&mount, "options");
    if text(&mount, "type") == "tmpfs" && !options.contains(&"tmpcopyup") {
        let mut options: Vec<String> = options.into_iter().map(str::to_owned).collect();
        options.push("notmpcopyup".into());
        mount.insert("options".into(), json!(options));
    }
    mount
}

fn volumes(wanted: &ContainerRequest<'_>, inherited: &[&str], body: &mut Object) {
    let volumes: Vec<Value> = objects(wanted.config, "namedVolumes")
        .filter(|volume| !inherited.contains(&text(volume, "dest")))
        .map(|volume| {
            let stored = text(volume, "volumeName");
            let name = wanted.volumes.get(stored).map_or(stored, String::as_str);
            json!({
                "Name": name,
                "Dest": text(volume, "dest"),
                "Options": texts(volume, "options"),
                "IsAnonymous": flag(volume, "setAnonymous") || wanted.anonymous.contains(stored),
                "SubPath": text(volume, "SubPath"),
            })
        })
        .collect();
    if !volumes.is_empty() {
        body.insert("volumes".into(), json!(volumes));
    }
}

/// What it took over from other containers, and from whom.
fn volumes_from(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let sources = volumes_from_of(wanted.config);
    let sources: Vec<String> = sources
        .iter()
        .map(|(container, options)| {
            let name = new_name(wanted, container);
            match options {
                Some(options) => format!("{name}:{options}"),
                None => name,
            }
        })
        .collect();
    if !sources.is_empty() {
        body.insert("volumes_from".into(), json!(sources));
    }
}

/// The containers (names or IDs, as they were given) whose volumes it has, with options.
pub fn volumes_from_of(config: &Object) -> Vec<(&str, Option<&str>)> {
    let annotations = below(config, &["spec", "annotations"]);
    let sources = annotations
        .map(|all| text(all, "io.podman.annotations.volumes-from"))
        .unwrap_or_default();
    sources
        .split(';')
        .filter(|source| !source.is_empty())
        .map(|source| match source.split_once(':') {
            Some((container, options)) => (container, Some(options)),
            None => (source, None),
        })
        .collect()
}

fn others(config: &Object, inherited: &[&str], body: &mut Object) {
    let wanted = |volume: &&Object| !inherited.contains(&text(volume, "dest"));
    let overlays: Vec<Value> = objects(config, "overlayVolumes")
        .filter(wanted)
        .map(|volume| {
            json!({
                "destination": text(volume, "dest"),
                "source": text(volume, "source"),
                "options": texts(volume, "options"),
            })
        })
        .collect();
    if !overlays.is_empty() {
        body.insert("overlay_volumes".into(), json!(overlays));
    }
    let images: Vec<Value> = objects(config, "ctrImageVolumes")
        .filter(wanted)
        .map(|volume| {
            json!({
                "Source": text(volume, "source"),
                "Destination": text(volume, "dest"),
                "ReadWrite": flag(volume, "rw"),
                "subPath": text(volume, "subPath"),
            })
        })
        .collect();
    if !images.is_empty() {
        body.insert("image_volumes".into(), json!(images));
    }
    let artifacts: Vec<Value> = objects(config, "artifactVolumes")
        .filter(wanted)
        .map(|volume| {
            let mut volume = volume.clone();
            if let Some(destination) = volume.remove("dest") {
                volume.insert("destination".into(), destination);
            }
            Value::Object(volume)
        })
        .collect();
    if !artifacts.is_empty() {
        body.insert("artifact_volumes".into(), json!(artifacts));
    }
}

/// Secrets are found by name: their IDs are made anew.
fn secrets(config: &Object, body: &mut Object) {
    let files: Vec<Value> = objects(config, "secrets")
        .map(|secret| {
            json!({
                "Source": text(secret, "name"),
                "Target": text(secret, "Target"),
                "UID": secret.get("UID"),
                "GID": secret.get("GID"),
                "Mode": secret.get("Mode"),
            })
        })
        .collect();
    if !files.is_empty() {
        body.insert("secrets".into(), json!(files));
    }
    let variables: Object = map(config, "secret_env")
        .into_iter()
        .flatten()
        .filter_map(|(variable, secret)| Some((variable, secret.as_object()?)))
        .map(|(variable, secret)| (variable.clone(), json!(text(secret, "name"))))
        .collect();
    if !variables.is_empty() {
        body.insert("secret_env".into(), Value::Object(variables));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::podman::replay::{Choices, Version};

    #[test]
    fn v_10_options_of_mounts_are_asked_for_as_they_are_stored() {
        let config = json!({
            "userVolumes": ["/bind", "/scratch"],
            "spec": {"mounts": [
                {"destination": "/bind", "type": "bind", "source": "/srv", "options": ["Z", "U", "idmap", "ro", "rbind"]},
                {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["noexec"]},
                {"destination": "/dev/shm", "type": "bind", "source": "/x"},
            ]},
            "namedVolumes": [
                {"volumeName": "v", "dest": "/v", "options": ["z", "U", "noexec", "idmap"], "SubPath": "/part"},
                {"volumeName": "ab", "dest": "/a", "setAnonymous": true},
                {"volumeName": "cd", "dest": "/c"},
            ],
        });
        let config = config.as_object().cloned().unwrap_or_default();
        let mut body = Object::new();
        ask(
            &ContainerRequest {
                config: &config,
                name: "c",
                image: "i",
                pod: None,
                names: &BTreeMap::new(),
                volumes: &BTreeMap::from([("cd".to_owned(), "other".to_owned())]),
                anonymous: &BTreeSet::from(["cd".to_owned()]),
                seccomp_profile: None,
                choices: &Choices::default(),
                runtime: None,
                target: Version::parse("5.4.2"),
                user: None,
            },
            &mut body,
        );
        assert_eq!(
            body["mounts"][0]["options"],
            json!(["Z", "U", "idmap", "ro", "rbind"])
        );
        // Podman would seed it otherwise.
        assert_eq!(
            body["mounts"][1]["options"],
            json!(["noexec", "notmpcopyup"])
        );
        assert_eq!(body["mounts"].as_array().map(Vec::len), Some(2));
        let volume = |name: &str, dest: &str, options: Value, anonymous: bool, path: &str| json!({"Name": name, "Dest": dest, "Options": options, "IsAnonymous": anonymous, "SubPath": path});
        assert_eq!(
            body["volumes"],
            json!([
                volume(
                    "v",
                    "/v",
                    json!(["z", "U", "noexec", "idmap"]),
                    false,
                    "/part"
                ),
                volume("ab", "/a", json!([]), true, ""),
                volume("other", "/c", json!([]), true, ""),
            ])
        );
    }
}
