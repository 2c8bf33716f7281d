//! Units that run Podman, and configuration around it. Both are files: the item's tree holds them
//! where they lie below the host's root, and the definition says what they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Definition, check_count};

/// Bytes of a unit's or configuration's name: a file name.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4096;

/// What reads a unit's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// Podman's generator, which makes a service of it.
    Quadlet,
    /// systemd itself.
    Systemd,
}

/// A file that is part of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeptFile {
    /// Absolute, on the host. In the item's tree it is at the same path below the root.
    pub path: String,
    /// What it is to the item: "unit", "drop-in", "kube", "environment", "compose", "config",
    /// "seccomp".
    pub role: String,
    /// It was named, but is not there, not to be read, or not the user's whose unit it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
}

/// A unit: its files are the item's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitDefinition {
    /// 1.
    pub format: u32,
    /// The name of its file: "web.container", "backup.service".
    pub name: String,
    pub kind: UnitKind,
    /// "system", or "user" for units of a user's own systemd.
    pub scope: String,
    /// Absolute: the home of the user whose it is. `None`: of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// The service that runs it: a Quadlet's is made by the generator.
    pub service: String,
    /// systemd's words for the service ("enabled", "generated"; "active", "failed"). Empty: systemd
    /// does not run here or does not know it.
    #[serde(default)]
    pub enabled: String,
    #[serde(default)]
    pub active: String,
    /// Names of the Quadlet files that its own ones refer to, sorted.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Sorted by path; the unit's own file is among them.
    pub files: Vec<KeptFile>,
}

/// Configuration: its files are the item's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDefinition {
    /// 1.
    pub format: u32,
    /// "containers", "compose-PROJECT", ...
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// Absolute: the home of the user whose it is. `None`: of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// What is not a file of its own: lines of /etc/subuid, whether users linger.
    #[serde(default)]
    pub facts: BTreeMap<String, Vec<String>>,
    /// Sorted by path.
    pub files: Vec<KeptFile>,
}

impl UnitDefinition {
    pub fn encode(&self) -> Vec<u8> {
        super::encode(self)
    }

    /// Errors say what is wrong with it, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        super::decode(bytes)
    }
}

impl ConfigDefinition {
    pub fn encode(&self) -> Vec<u8> {
        super::encode(self)
    }

    /// Errors say what is wrong with it, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        super::decode(bytes)
    }
}

impl Definition for UnitDefinition {
    fn format(&self) -> u32 {
        self.format
    }

    fn check(&self) -> Result<(), String> {
        check_file_name(&self.name)?;
        check_file_name(&self.service)?;
        check_home(self.home.as_deref())?;
        check_files(&self.files)
    }
}

impl Definition for ConfigDefinition {
    fn format(&self) -> u32 {
        self.format
    }

    fn check(&self) -> Result<(), String> {
        check_file_name(&self.name)?;
        check_count(
            "facts",
            self.facts.values().map(|lines| 1 + lines.len()).sum(),
        )?;
        check_home(self.home.as_deref())?;
        check_files(&self.files)
    }
}

fn check_file_name(name: &str) -> Result<(), String> {
    let odd = name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.starts_with(['.', '-'])
        || name.contains(['/', '\0', '\n']);
    match odd {
        true => Err("it holds a name that no unit can have".into()),
        false => Ok(()),
    }
}

/// Paths go to systemd and to commands, so they are absolute and lead nowhere else.
fn is_plain(path: &str) -> bool {
    path.len() <= PATH_BYTES_MAX
        && !path.contains('\0')
        && path
            .strip_prefix('/')
            .is_some_and(|rest| !rest.split('/').any(|part| matches!(part, "" | "." | "..")))
}

fn check_home(home: Option<&str>) -> Result<(), String> {
    match home.is_none_or(is_plain) {
        true => Ok(()),
        false => Err("the home of its user is not absolute and plain".into()),
    }
}

fn check_files(files: &[KeptFile]) -> Result<(), String> {
    check_count("files", files.len())?;
    match files.iter().all(|file| is_plain(&file.path)) {
        true => Ok(()),
        false => Err("the path of a file is not absolute and plain".into()),
    }
}
