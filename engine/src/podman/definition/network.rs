//! Networks.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Definition, check_name};

/// A network as netavark's file of it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkDefinition {
    /// 1.
    pub format: u32,
    pub name: String,
    /// Every field of the file.
    pub config: Map<String, Value>,
    /// It is the default network, which is on every host, as Podman makes it.
    #[serde(default)]
    pub is_default_unchanged: bool,
}

impl NetworkDefinition {
    pub fn encode(&self) -> Vec<u8> {
        super::encode(self)
    }

    /// Errors say what is wrong with it, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        super::decode(bytes)
    }
}

impl Definition for NetworkDefinition {
    fn format(&self) -> u32 {
        self.format
    }

    fn check(&self) -> Result<(), String> {
        check_name("network", &self.name)?;
        match self.config.get("name").and_then(Value::as_str) == Some(&self.name) {
            true => Ok(()),
            false => Err("its configuration is of another network".into()),
        }
    }
}
