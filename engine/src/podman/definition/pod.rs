//! Pods.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Definition, check_count, check_id, check_name};

/// A pod as Podman's database has it. Its ports, networks, volumes and sysctls are its infra
/// container's.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PodDefinition {
    /// 1.
    pub format: u32,
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    /// libpod's PodConfig as it is stored.
    pub config: Map<String, Value>,
    /// The ContainerConfig of its infra container. `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra: Option<Map<String, Value>>,
    /// Empty: it has none.
    #[serde(default)]
    pub infra_id: String,
    /// Some container of it runs or is paused.
    pub running: bool,
    /// Names of its containers without the infra container, sorted.
    pub containers: Vec<String>,
}

impl PodDefinition {
    pub fn encode(&self) -> Vec<u8> {
        super::encode(self)
    }

    /// Errors say what is wrong with it, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        super::decode(bytes)
    }
}

/// Without its configuration, which may hold passwords.
impl fmt::Debug for PodDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodDefinition")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("containers", &self.containers)
            .finish_non_exhaustive()
    }
}

impl Definition for PodDefinition {
    fn format(&self) -> u32 {
        self.format
    }

    fn check(&self) -> Result<(), String> {
        check_id("pod", &self.id)?;
        check_name("pod", &self.name)?;
        if !self.infra_id.is_empty() {
            check_id("container", &self.infra_id)?;
        }
        check_count("containers", self.containers.len())?;
        for name in &self.containers {
            check_name("container", name)?;
        }
        Ok(())
    }
}
