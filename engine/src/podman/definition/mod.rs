//! The records that snapshots keep of what Podman knows besides files: containers, pods, networks,
//! secrets, and the units and configuration around them.
//!
//! Each holds Podman's own stored form as it was found, with fields that we do not know, since no
//! command of Podman shows all of it. Stored as JSON with sorted keys, so that the same object
//! gives the same bytes; what a format has is never taken away, only added to. A definition may
//! come from anybody who can write snapshots: whoever decodes one gets names that Podman takes and
//! sizes within bounds, and judges the rest for himself.

mod container;
mod network;
mod pod;
mod refers;
mod secret;
mod unit;

pub use container::{ConfigSource, ContainerDefinition};
pub use network::NetworkDefinition;
pub use pod::PodDefinition;
pub use secret::{SECRET_BYTES_MAX, SecretDefinition};
pub use unit::{ConfigDefinition, KeptFile, UnitDefinition, UnitKind};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a stored definition. A container with 10,000 environment variables has some 2 MB.
pub const DEFINITION_BYTES_MAX: usize = 8 << 20;
/// Entries of one list or map of a definition.
pub const ENTRIES_MAX: usize = 65_536;
/// Bytes of the name of a container, pod, network or secret.
pub const OBJECT_NAME_BYTES_MAX: usize = 255;
/// Of every kind of definition so far.
pub(super) const DEFINITION_FORMAT: u32 = 1;

/// What the kinds of definitions share.
pub(super) trait Definition: Serialize + DeserializeOwned {
    const BYTES_MAX: usize = DEFINITION_BYTES_MAX;

    fn format(&self) -> u32;

    /// `Err`: what is wrong with it, in words.
    fn check(&self) -> Result<(), String>;
}

pub(super) fn encode(definition: &impl Definition) -> Vec<u8> {
    // Strings, numbers and maps with string keys cannot fail to be written.
    serde_json::to_vec(definition).unwrap_or_default()
}

pub(super) fn decode<D: Definition>(bytes: &[u8]) -> Result<D, String> {
    if bytes.len() > D::BYTES_MAX {
        return Err(format!("it has more than {} bytes", D::BYTES_MAX));
    }
    let definition: D = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let format = definition.format();
    if format != DEFINITION_FORMAT {
        return Err(format!(
            "it is of format {format}, which this podkeep does not know"
        ));
    }
    definition.check()?;
    Ok(definition)
}

/// What Podman takes as the name of a container, pod, network or secret (libpod's `NameRegex`).
pub fn is_object_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= OBJECT_NAME_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}

/// 64 lower-case hex digits.
fn is_object_id(text: &str) -> bool {
    podkeep_format::id::unhex::<32>(text).is_some()
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    match is_object_name(name) {
        true => Ok(()),
        false => Err(format!("it holds a name that no {what} can have")),
    }
}

fn check_id(what: &str, id: &str) -> Result<(), String> {
    match is_object_id(id) {
        true => Ok(()),
        false => Err(format!("its ID is no ID of a {what}")),
    }
}

fn check_count(what: &str, count: usize) -> Result<(), String> {
    match count <= ENTRIES_MAX {
        true => Ok(()),
        false => Err(format!("it holds more than {ENTRIES_MAX} {what}")),
    }
}

#[cfg(test)]
mod tests;
