//! Secrets. Their bytes are in the repository's sealed blocks and nowhere else: not in what is
//! printed, logged or cached.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Definition, check_count, check_name};

/// Bytes of a secret (containers/common's `maxSecretSize`).
pub const SECRET_BYTES_MAX: usize = 512_000;
/// Hex digits of a secret's ID.
const ID_DIGITS: usize = 25;

/// A secret as secrets.json tells of it, and its bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretDefinition {
    /// 1.
    pub format: u32,
    /// 25 hex digits.
    pub id: String,
    pub name: String,
    /// Podman's word: file, pass, shell.
    pub driver: String,
    #[serde(default)]
    pub driver_options: BTreeMap<String, String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// RFC 3339, as Podman keeps it.
    #[serde(default)]
    pub created_at: String,
    #[serde(default)]
    pub updated_at: String,
    /// Base64 in JSON. `None`: its driver could not be read.
    #[serde(default, with = "in_base64", skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<u8>>,
}

impl SecretDefinition {
    pub fn encode(&self) -> Vec<u8> {
        super::encode(self)
    }

    /// Errors say what is wrong with it, in words, never with what it holds.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        super::decode(bytes).map_err(|error| match bytes.len() {
            // What serde says of a wrong value quotes it.
            len if len <= super::DEFINITION_BYTES_MAX && error.contains(" at line ") => {
                "it is not a secret's definition".into()
            }
            _ => error,
        })
    }

    /// The same without its bytes, for whoever asked for the definition and not for the secret.
    pub fn without_data(&self) -> Self {
        Self {
            data: None,
            ..self.clone()
        }
    }
}

/// Without its bytes.
impl fmt::Debug for SecretDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretDefinition")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("driver", &self.driver)
            .field("has_data", &self.data.is_some())
            .finish_non_exhaustive()
    }
}

impl Definition for SecretDefinition {
    fn format(&self) -> u32 {
        self.format
    }

    fn check(&self) -> Result<(), String> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if self.id.len() != ID_DIGITS || !self.id.bytes().all(hex) {
            return Err("its ID is no ID of a secret".into());
        }
        check_name("secret", &self.name)?;
        if self.driver.is_empty() {
            return Err("it names no driver".into());
        }
        for map in [&self.driver_options, &self.labels, &self.metadata] {
            check_count("labels or options", map.len())?;
        }
        match &self.data {
            Some(data) if data.len() > SECRET_BYTES_MAX => {
                Err(format!("it has more than {SECRET_BYTES_MAX} bytes"))
            }
            _ => Ok(()),
        }
    }
}

mod in_base64 {
    use super::{Deserialize, Deserializer, Engine, STANDARD, Serializer};

    pub fn serialize<S: Serializer>(data: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        match data {
            Some(data) => to.serialize_some(&STANDARD.encode(data)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        // The error of the decoder would quote a byte of the secret.
        let data = STANDARD.decode(text);
        data.map(Some)
            .map_err(|_| serde::de::Error::custom("its data is not base64"))
    }
}
