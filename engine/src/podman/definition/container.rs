//! Containers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Definition, check_count, check_id, check_name, is_object_name};

/// Where a container's configuration was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigSource {
    /// Podman's database `db.sql`.
    Sqlite,
    /// Podman's older database `bolt_state.db`.
    BoltDb,
    /// `podman container inspect`, which hides static addresses of stopped containers, targets of
    /// secrets, options of the log driver and more. Its JSON has another shape than the stored one.
    Inspect,
}

/// A container as Podman's database has it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerDefinition {
    /// 1.
    pub format: u32,
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    pub source: ConfigSource,
    /// libpod's ContainerConfig as it is stored, with its "spec", the OCI configuration that it was
    /// created with. Its environment may hold passwords.
    pub config: Map<String, Value>,
    /// Podman's word: created, initialized, running, paused, exited, stopped.
    pub status: String,
    /// Of its last run, if it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Empty: its root is a directory of the host (`--rootfs`).
    pub image_id: String,
    /// As it was named when the container was created.
    pub image_name: String,
    /// The name of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The systemd unit that makes and removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Name by ID of every container and pod that `config` refers to by ID.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// The OCI configuration that it ran with last, config.json of its userdata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_spec: Option<Map<String, Value>>,
}

impl ContainerDefinition {
    pub fn encode(&self) -> Vec<u8> {
        super::encode(self)
    }

    /// Errors say what is wrong with it, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        super::decode(bytes)
    }
}

/// Without its configuration, which may hold passwords.
impl fmt::Debug for ContainerDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerDefinition")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("source", &self.source)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Definition for ContainerDefinition {
    fn format(&self) -> u32 {
        self.format
    }

    fn check(&self) -> Result<(), String> {
        check_id("container", &self.id)?;
        check_name("container", &self.name)?;
        if !self.image_id.is_empty() {
            check_id("image", &self.image_id)?;
        }
        if let Some(pod) = &self.pod {
            check_name("pod", pod)?;
        }
        check_count("names", self.names.len())?;
        for (id, name) in &self.names {
            check_id("container or pod", id)?;
            if !is_object_name(name) {
                return Err("it refers to a name that no container and no pod can have".into());
            }
        }
        Ok(())
    }
}
