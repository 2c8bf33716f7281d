//! The record that a snapshot keeps of an image besides its layers and its big data.
//!
//! What makes an image's identity is not only its ID: the manifests' exact bytes decide the
//! digests that it is pulled by, and containers/storage keeps those, the configuration and the
//! signatures as "big data" beside the entry of images.json. That entry is kept as it was found,
//! with fields that we do not know, so that it can be put back as it was.

use podkeep_format::id::DiffId;
use podkeep_format::tree::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::command::{Podman, PodmanError, Purpose};
use super::definition::{self, DEFINITION_FORMAT, Definition};
use super::storage::big_data_file;

/// Layers of one image. The overlay driver mounts 500 at most.
pub const LAYERS_MAX: usize = 4096;
/// Files of big data of one image, and bytes of the name of one.
pub const BIG_DATA_MAX: usize = 4096;
const KEY_BYTES_MAX: usize = 1024;
/// Names that an image has or had.
const NAMES_MAX: usize = 4096;

/// Where a snapshot's tree of an image has its parts.
pub const BIG_DATA_FOLDER: &str = "big-data";
pub const LAYERS_FOLDER: &str = "layers";
/// Big data of an image that could not be saved as what it was.
pub const ORIGINAL_FOLDER: &str = "original";

/// Stored as JSON with sorted keys; what it has is never taken away, only added to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageDefinition {
    /// 1.
    pub format: u32,
    /// 64 hex digits: of all but a few images the sha256 of the configuration.
    pub id: String,
    /// The entry of images.json.
    pub entry: Map<String, Value>,
    /// Bottom first.
    pub layers: Vec<LayerDefinition>,
    /// What it was, if it could not be saved as that: all else tells what it was saved as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<OriginalImage>,
}

/// An image that was saved as another one, with the same files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OriginalImage {
    /// 64 hex digits.
    pub id: String,
    /// The entry of images.json.
    pub entry: Map<String, Value>,
}

/// A layer as layers.json tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDefinition {
    /// sha256 of the uncompressed tar, 64 hex digits.
    pub diff_id: String,
    /// Bytes of that tar.
    pub size: u64,
    /// Of the blob that was pulled, which containers/storage does not keep: "sha256:...".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed_size: Option<u64>,
    /// DiffID changed: the tar is one of our own making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<ChangedLayer>,
}

/// A layer whose own tar could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedLayer {
    /// Of its own tar, if anybody knows: 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    /// In words.
    pub cause: String,
}

/// A piece of an image's big data, as an entry of images.json lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigData<'a> {
    /// "manifest", "sha256:...".
    pub key: &'a str,
    pub digest: Option<&'a str>,
    pub size: Option<u64>,
}

impl Definition for ImageDefinition {
    const BYTES_MAX: usize = 4 << 20;

    fn format(&self) -> u32 {
        self.format
    }

    fn check(&self) -> Result<(), String> {
        if !is_hex_id(&self.id) {
            return Err("its ID is no image ID".into());
        }
        if self.layers.len() > LAYERS_MAX {
            return Err("it has too many layers".into());
        }
        if self.layers.iter().any(|layer| layer.diff_id().is_none()) {
            return Err("a layer has no DiffID".into());
        }
        let original = self.original.as_ref();
        if original.is_some_and(|original| !is_hex_id(&original.id)) {
            return Err("the ID that it had is no image ID".into());
        }
        let entries = original.map(|original| &original.entry);
        for entry in entries.into_iter().chain([&self.entry]) {
            for key in strings(entry, "big-data-names") {
                // Podman's own rule lets the last two stand as they are.
                if key.is_empty() || key.len() > KEY_BYTES_MAX || matches!(key, "." | "..") {
                    return Err("the name of a piece of its big data is not allowed".into());
                }
            }
            if strings(entry, "big-data-names").count() > BIG_DATA_MAX {
                return Err("it has too much big data".into());
            }
        }
        if self.names().count() > NAMES_MAX {
            return Err("it has too many names".into());
        }
        self.check_entry()
    }
}

impl ImageDefinition {
    /// `entry` is an entry of images.json.
    pub fn new(id: &str, entry: Map<String, Value>, layers: Vec<LayerDefinition>) -> Self {
        Self {
            format: DEFINITION_FORMAT,
            id: id.to_owned(),
            entry,
            layers,
            original: None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        definition::encode(self)
    }

    /// Errors say what is wrong with it, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        definition::decode(bytes)
    }

    /// The entry goes into images.json, which is of no use to Podman any more when one field of
    /// one image is not what it has to be. Fields that nobody knows are nobody's to judge.
    fn check_entry(&self) -> Result<(), String> {
        if self.entry.get("id").and_then(Value::as_str) != Some(&self.id) {
            return Err("its entry is of another image".into());
        }
        for (field, fits) in FIELDS {
            match self.entry.get(*field) {
                None | Some(Value::Null) => {}
                Some(value) if fits(value) => {}
                Some(_) => return Err(format!("its {field} is not what it has to be")),
            }
        }
        Ok(())
    }

    /// The same image under one other name, unless it has that name already. A name that it had
    /// before it was saved as another image stays away: it may be a digest.
    pub fn under(mut self, name: &str) -> Self {
        let was = self.original.as_ref().is_some_and(|original| {
            original.id == name || strings(&original.entry, "names").any(|own| own == name)
        });
        if !was && self.id != name && !self.names().any(|own| own == name) {
            self.entry.insert("names".into(), vec![name].into());
        }
        self
    }

    /// As images.json has them: tags and names by digest, in its order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.strings("names")
    }

    /// The digest of the manifest that it is known by, "sha256:...".
    pub fn digest(&self) -> Option<&str> {
        self.entry.get("digest").and_then(Value::as_str)
    }

    /// In the order of images.json.
    pub fn big_data(&self) -> impl Iterator<Item = BigData<'_>> {
        let of = |field: &str, key: &str| self.entry.get(field).and_then(|map| map.get(key));
        self.strings("big-data-names").map(move |key| BigData {
            key,
            digest: of("big-data-digests", key).and_then(Value::as_str),
            size: of("big-data-sizes", key).and_then(Value::as_u64),
        })
    }

    /// The keys of the big data of what it was.
    pub fn original_big_data(&self) -> impl Iterator<Item = &str> {
        let entries = self.original.iter().map(|original| &original.entry);
        entries.flat_map(|entry| strings(entry, "big-data-names"))
    }

    fn strings(&self, field: &str) -> impl Iterator<Item = &str> {
        strings(&self.entry, field)
    }
}

/// The texts of a list in an entry of images.json.
pub(super) fn strings<'e>(
    entry: &'e Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'e str> {
    let values = entry.get(field).and_then(Value::as_array);
    values.into_iter().flatten().filter_map(Value::as_str)
}

type Fits = fn(&Value) -> bool;

/// Fields of an entry, and whether a value is one that containers/storage reads.
const FIELDS: &[(&str, Fits)] = &[
    ("digest", is_digest),
    ("names", |value| all(value, is_name)),
    ("names-history", |value| all(value, is_name)),
    ("layer", |value| {
        value
            .as_str()
            .is_some_and(|id| id.is_empty() || is_hex_id(id))
    }),
    ("mapped-layers", |value| all(value, Value::is_string)),
    ("metadata", Value::is_string),
    ("big-data-names", |value| all(value, Value::is_string)),
    ("big-data-sizes", |value| {
        all_values(value, |size| size.as_i64().is_some())
    }),
    ("big-data-digests", |value| all_values(value, is_digest)),
    ("created", |value| value.as_str().is_some_and(is_rfc_3339)),
    ("flags", Value::is_object),
    ("readonly", Value::is_boolean),
];

fn all(list: &Value, fits: Fits) -> bool {
    list.as_array().is_some_and(|list| list.iter().all(fits))
}

fn all_values(map: &Value, fits: Fits) -> bool {
    map.as_object().is_some_and(|map| map.values().all(fits))
}

fn is_name(value: &Value) -> bool {
    let fits = |name: &str| {
        let plain = |c: char| !c.is_control() && !c.is_whitespace();
        !name.is_empty() && name.len() <= KEY_BYTES_MAX && name.chars().all(plain)
    };
    value.as_str().is_some_and(fits)
}

/// "sha256:..." or another algorithm's; some entries have an empty one.
fn is_digest(value: &Value) -> bool {
    let fits = |text: &str| match text.split_once(':') {
        Some((algorithm, digits)) => {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let bytes = match algorithm {
                "sha256" => 32,
                "sha384" => 48,
                "sha512" => 64,
                _ => return false,
            };
            digits.len() == bytes * 2 && digits.bytes().all(|b| plain(b) && b.is_ascii_hexdigit())
        }
        None => text.is_empty(),
    };
    value.as_str().is_some_and(fits)
}

/// `2026-01-02T03:04:05.678Z` or with an offset, as Go's time.Time reads it from JSON.
fn is_rfc_3339(text: &str) -> bool {
    let shape = |text: &str, pattern: &str| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern.bytes()).all(|(b, p)| match p {
                b'0' => b.is_ascii_digit(),
                p => b == p,
            })
    };
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(u32::MAX);
    if !text.is_ascii() || text.len() < 20 || !shape(&text[..19], "0000-00-00T00:00:00") {
        return false;
    }
    let in_range = (1..=12).contains(&number(5..7))
        && (1..=31).contains(&number(8..10))
        && number(11..13) < 24
        && number(14..16) < 60
        && number(17..19) < 60;
    let mut zone = &text[19..];
    if let Some(fraction) = zone.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 9 {
            return false;
        }
        zone = &fraction[digits..];
    }
    in_range && (zone == "Z" || shape(zone, "+00:00") || shape(zone, "-00:00"))
}

impl LayerDefinition {
    pub fn diff_id(&self) -> Option<DiffId> {
        DiffId::from_hex(&self.diff_id)
    }
}

/// The name of a piece of big data in a snapshot's tree: its key, unless no file can be called
/// that; then the name that containers/storage has for it.
pub fn big_data_entry(key: &str) -> String {
    let odd = key.is_empty() || key.len() > NAME_BYTES_MAX || key.contains(['/', '\0']);
    match odd || key.starts_with('=') || matches!(key, "." | "..") {
        true => big_data_file(key),
        false => key.to_owned(),
    }
}

/// The name of a layer's tar in a snapshot's tree: layers in their order, bottom first.
pub fn layer_file(number: usize, diff_id: &DiffId) -> String {
    format!("{number:04}-{diff_id}.tar")
}

/// The DiffID in such a name.
pub fn layer_of_file(name: &[u8]) -> Option<DiffId> {
    let name = str::from_utf8(name).ok()?.strip_suffix(".tar")?;
    DiffId::from_hex(name.split_once('-')?.1)
}

/// An image as `podman image inspect` shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ShownImage {
    pub id: String,
    #[serde(default)]
    pub digest: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
    #[serde(default, rename = "RootFS")]
    root_fs: Option<ShownLayers>,
}

#[derive(Clone, Debug, Deserialize)]
struct ShownLayers {
    #[serde(default, rename = "Layers")]
    layers: Option<Vec<String>>,
}

impl ShownImage {
    /// Tags, and names by digest.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let lists = [&self.repo_tags, &self.repo_digests];
        lists.into_iter().flatten().flatten().map(String::as_str)
    }

    /// "sha256:...", bottom first.
    pub fn layers(&self) -> &[String] {
        let layers = self.root_fs.as_ref().and_then(|fs| fs.layers.as_deref());
        layers.unwrap_or_default()
    }
}

/// Asks Podman for an image by its ID.
pub fn inspect_image(podman: &Podman, id: &str) -> Result<ShownImage, PodmanError> {
    let purpose = Purpose {
        action: "inspect",
        object: &format!("image {id}"),
    };
    let shown: Vec<ShownImage> = podman.json(purpose, &["image", "inspect", id])?;
    let mut shown = shown.into_iter();
    shown
        .next()
        .ok_or_else(|| PodmanError::new("inspect", purpose.object, "podman shows nothing"))
}

/// 64 lower-case hex digits.
fn is_hex_id(text: &str) -> bool {
    podkeep_format::id::unhex::<32>(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "ef".repeat(32))
    }

    fn definition() -> ImageDefinition {
        let entry = serde_json::json!({
            "id": "ab".repeat(32),
            "digest": digest(),
            "names": ["localhost/lab:1", "localhost/lab@sha256:00"],
            "big-data-names": ["manifest", "signature-00"],
            "big-data-sizes": {"manifest": 774},
            "big-data-digests": {"manifest": digest()},
            "created": "2024-01-01T00:00:00.123Z",
            "a-field-of-tomorrow": {"x": [1, 2]},
        });
        let Value::Object(entry) = entry else {
            panic!("an object")
        };
        let layer = LayerDefinition {
            diff_id: "cd".repeat(32),
            size: 1024,
            compressed_digest: Some("sha256:11".into()),
            compressed_size: None,
            changed: None,
        };
        ImageDefinition::new(&"ab".repeat(32), entry, vec![layer])
    }

    #[test]
    fn what_is_encoded_is_decoded_with_fields_that_nobody_knows() {
        let definition = definition();
        let decoded = ImageDefinition::decode(&definition.encode()).unwrap();
        assert_eq!(decoded, definition);
        assert_eq!(decoded.names().count(), 2);
        let big_data: Vec<_> = decoded.big_data().collect();
        assert_eq!(
            big_data[0],
            BigData {
                key: "manifest",
                digest: Some(&digest()),
                size: Some(774)
            }
        );
        assert_eq!((big_data[1].digest, big_data[1].size), (None, None));
    }

    #[test]
    fn what_cannot_be_an_image_is_refused() {
        let refused = |change: &dyn Fn(&mut ImageDefinition), why: &str| {
            let mut definition = definition();
            change(&mut definition);
            let error = ImageDefinition::decode(&definition.encode()).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(&|d| d.format = 2, "format 2");
        refused(&|d| d.id = "../../etc".into(), "no image ID");
        refused(&|d| d.layers[0].diff_id = "x".into(), "no DiffID");
        refused(
            &|d| {
                d.entry["big-data-names"] = serde_json::json!([""]);
            },
            "not allowed",
        );
        refused(
            &|d| {
                d.entry["big-data-names"] = serde_json::json!([".."]);
            },
            "not allowed",
        );
        refused(&|d| d.id = "cd".repeat(32), "another image");
        for (field, value) in [
            ("id", serde_json::json!("../../..")),
            ("names", serde_json::json!(5)),
            ("names", serde_json::json!(["a b"])),
            ("digest", serde_json::json!("sha256:00")),
            ("big-data-digests", serde_json::json!({"manifest": "x"})),
            ("big-data-sizes", serde_json::json!({"manifest": "x"})),
            ("created", serde_json::json!("yesterday")),
            ("created", serde_json::json!("2024-13-01T00:00:00Z")),
            ("layer", serde_json::json!("../x")),
            ("flags", serde_json::json!([])),
        ] {
            refused(
                &|d| {
                    d.entry.insert(field.into(), value.clone());
                },
                match field {
                    "id" => "another image",
                    _ => "not what it has to be",
                },
            );
        }
        assert!(ImageDefinition::decode(b"{").is_err());
    }

    #[test]
    fn big_data_is_called_what_it_is_where_a_file_can_be() {
        for key in ["manifest", "sha256:00", "manifest-sha256:00"] {
            assert_eq!(big_data_entry(key), key);
        }
        for key in ["a/b", "..x", "=x", "../../etc/passwd"] {
            let name = big_data_entry(key);
            assert!(!name.contains('/') && name != "..", "{name}");
            assert_eq!(name == key, key == "..x");
        }
    }

    #[test]
    fn layers_sort_bottom_first() {
        let id = DiffId([0xcd; 32]);
        assert!(layer_file(9, &id) < layer_file(10, &id));
        assert_eq!(layer_of_file(layer_file(10, &id).as_bytes()), Some(id));
    }
}
