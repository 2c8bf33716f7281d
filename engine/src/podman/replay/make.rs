//! Making what definitions describe: through the API where it takes all of it, else by the command line,
//! and networks as the files that they are.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Version;
use super::service::{Service, query};
use super::stored::{Object, map, number, text};
use crate::podman::command::{Podman, PodmanError, Purpose};
use crate::podman::definition::{NetworkDefinition, SecretDefinition};
use crate::podman::networks;

/// The first Podman whose `update` takes a restart policy.
pub const RESTART_UPDATE_SINCE: (u32, u32) = (5, 1);
/// What a health check's timeout has to be at least, in nanoseconds.
const HEALTH_TIMEOUT_MIN: i64 = 1_000_000_000;
/// The first Podman whose secrets have labels.
const SECRET_LABELS_SINCE: (u32, u32) = (4, 5);

/// Whether a Podman takes a restart policy for a container that is there. It looks at the container's
/// health check, too, whatever is to be set: one that was switched off has no timeout, and is refused.
pub fn takes_restart_policy(version: Version, config: &Object) -> bool {
    let check = map(config, "healthcheck");
    version.is_at_least(RESTART_UPDATE_SINCE)
        && check.is_none_or(|check| number(check, "Timeout") >= HEALTH_TIMEOUT_MIN)
}

/// One Podman in which objects are made.
pub struct Maker {
    pub podman: Podman,
    pub service: Service,
    pub version: Version,
    /// Of the store.
    pub graph_root: PathBuf,
}

impl Maker {
    /// Returns the ID of what it made.
    pub fn container(&self, name: &str, body: &Object) -> Result<String, PodmanError> {
        self.create("container", "/containers/create", name, body)
    }

    pub fn pod(&self, name: &str, body: &Object) -> Result<String, PodmanError> {
        self.create("pod", "/pods/create", name, body)
    }

    fn create(
        &self,
        kind: &str,
        path: &str,
        name: &str,
        body: &Object,
    ) -> Result<String, PodmanError> {
        let object = format!("{kind} {name}");
        let purpose = Purpose {
            action: "create",
            object: &object,
        };
        let body = serde_json::to_vec(body).map_err(|error| purpose.error(error))?;
        let answer = self.service.post(purpose, path, &body)?;
        let id = answer
            .made_id()
            .ok_or_else(|| purpose.error("the answer names no ID"))?;
        Ok(id.to_owned())
    }

    /// A secret with its bytes as they are: nothing is added at their end, and no argument shows
    /// them.
    pub fn secret(&self, secret: &SecretDefinition, name: &str) -> Result<(), PodmanError> {
        let object = format!("secret {name}");
        let purpose = Purpose {
            action: "create",
            object: &object,
        };
        let Some(data) = &secret.data else {
            return Err(purpose.error("the snapshot does not hold what it says"));
        };
        let mut path = format!("/secrets/create?name={}", query(name));
        if secret.driver != "file" {
            path.push_str(&format!("&driver={}", query(&secret.driver)));
        }
        // The folder of the file driver is this host's.
        let options: Object = secret
            .driver_options
            .iter()
            .filter(|(option, _)| *option != "path")
            .map(|(option, value)| (option.clone(), json!(value)))
            .collect();
        if !options.is_empty() {
            let options = Value::Object(options).to_string();
            path.push_str(&format!("&driveropts={}", query(&options)));
        }
        if !secret.labels.is_empty() && self.version.is_at_least(SECRET_LABELS_SINCE) {
            let labels = json!(secret.labels).to_string();
            path.push_str(&format!("&labels={}", query(&labels)));
        }
        self.service.post(purpose, &path, data).map(drop)
    }

    /// A network as its file, with its ID and every field; its interface has another name where
    /// `interface` says so. Podman sees it with its next call.
    pub fn network(
        &self,
        network: &NetworkDefinition,
        name: &str,
        interface: Option<&str>,
    ) -> Result<(), PodmanError> {
        let object = format!("network {name}");
        let purpose = Purpose {
            action: "create",
            object: &object,
        };
        let mut config = network.config.clone();
        config.insert("name".into(), json!(name));
        if let Some(interface) = interface {
            config.insert("network_interface".into(), json!(interface));
        }
        let folder = networks::folder(&self.podman, &self.graph_root);
        let file = folder.join(format!("{name}.json"));
        let podman = &self.podman;
        let written = podman.in_its_name(|| write_network(&folder, &file, &config));
        written.map_err(|error| purpose.error(format!("{}: {error}", file.display())))?;
        let seen = podman.run(purpose, &["network", "inspect", name], b"");
        seen.map(drop).inspect_err(|_| {
            // Podman does not take it, or looks elsewhere.
            let _ = podman.in_its_name(|| std::fs::remove_file(&file));
        })
    }

    /// Sets a restart policy, where this Podman can.
    pub fn restart_policy(
        &self,
        name: &str,
        policy: &str,
        retries: u64,
    ) -> Result<(), PodmanError> {
        let object = format!("container {name}");
        let purpose = Purpose {
            action: "set the restart policy of",
            object: &object,
        };
        let value = match retries {
            0 => policy.to_owned(),
            retries => format!("{policy}:{retries}"),
        };
        let arguments = ["update", "--restart", &value, name];
        self.podman.run(purpose, &arguments, b"").map(drop)
    }

    /// `kind`: "container" or "pod".
    pub fn remove(&self, kind: &str, name: &str) -> Result<(), PodmanError> {
        let object = format!("{kind} {name}");
        let purpose = Purpose {
            action: "remove",
            object: &object,
        };
        let arguments: &[&str] = match kind {
            "pod" => &["pod", "rm", "-f", name],
            "network" => &["network", "rm", name],
            "secret" => &["secret", "rm", name],
            _ => &["rm", "-f", name],
        };
        self.podman.run(purpose, arguments, b"").map(drop)
    }

    /// `verb`: "start", "pause".
    pub fn run(&self, verb: &'static str, name: &str) -> Result<(), PodmanError> {
        let object = format!("container {name}");
        let purpose = Purpose {
            action: verb,
            object: &object,
        };
        self.podman.run(purpose, &[verb, name], b"").map(drop)
    }

    /// The ID of a pod's infra container.
    pub fn infra_of(&self, pod: &str) -> Result<String, PodmanError> {
        let object = format!("pod {pod}");
        let purpose = Purpose {
            action: "inspect",
            object: &object,
        };
        let format = "{{.InfraContainerID}}";
        let arguments = ["pod", "inspect", "--format", format, pod];
        let shown = self.podman.run(purpose, &arguments, b"")?;
        Ok(String::from_utf8_lossy(&shown).trim().to_owned())
    }

    /// What Podman says of a container's state and health: "running", "healthy". Empty: it says
    /// nothing.
    pub fn state(&self, name: &str) -> Result<(String, String), PodmanError> {
        let object = format!("container {name}");
        let purpose = Purpose {
            action: "inspect",
            object: &object,
        };
        let shown: Vec<Object> = self.podman.json(purpose, &["container", "inspect", name])?;
        let state = shown
            .first()
            .and_then(|shown| shown.get("State")?.as_object());
        let Some(state) = state else {
            return Err(purpose.error("podman does not show its state"));
        };
        // Since 4.0 it is "Health", before and after also "Healthcheck".
        let health = ["Health", "Healthcheck"]
            .iter()
            .find_map(|field| state.get(*field)?.as_object())
            .map(|health| text(health, "Status").to_owned());
        Ok((text(state, "Status").to_owned(), health.unwrap_or_default()))
    }
}

/// The ID of a container of this name.
pub fn container_id(podman: &Podman, name: &str) -> Result<String, PodmanError> {
    let object = format!("container {name}");
    let purpose = Purpose {
        action: "inspect",
        object: &object,
    };
    let arguments = ["container", "inspect", "--format", "{{.Id}}", name];
    let shown = podman.run(purpose, &arguments, b"")?;
    Ok(String::from_utf8_lossy(&shown).trim().to_owned())
}

/// The architecture that an image is for. Empty: it names none, or there is no such image.
pub fn architecture_of(podman: &Podman, image: &str) -> Result<String, PodmanError> {
    let object = format!("image {image}");
    let purpose = Purpose {
        action: "inspect",
        object: &object,
    };
    let arguments = ["image", "inspect", "--format", "{{.Architecture}}", image];
    match podman.run(purpose, &arguments, b"") {
        Ok(shown) => Ok(String::from_utf8_lossy(&shown).trim().to_owned()),
        Err(error) if error.not_found => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// A profile of system calls, as Podman reads them, in a folder of ours: what was made of the
/// original file is what is stored, in the same words.
pub fn write_profile(folder: &Path, name: &str, filter: &Object) -> std::io::Result<PathBuf> {
    let path = folder.join(format!("seccomp-{}-{name}.json", std::process::id()));
    write_new(&path, &Value::Object(filter.clone()).to_string(), 0o600)?;
    Ok(path)
}

fn write_network(folder: &Path, file: &Path, config: &Object) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let text = serde_json::to_string_pretty(config).map_err(std::io::Error::other)?;
    let beside = file.with_extension("json.podkeep");
    write_new(&beside, &text, 0o644)?;
    std::fs::rename(&beside, file)?;
    std::fs::File::open(folder)?.sync_all()
}

fn write_new(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
