//! The records of images and layers, as containers/storage keeps them in JSON.
//!
//! An entry that is not understood is left out and told of; the others are used. Fields that are
//! not known here are passed over; of an image the whole entry is kept as it stands, since a
//! restore puts it back.

use std::fmt;

use podkeep_format::id::{DiffId, hex, unhex};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Origin;
use super::bounded::{List, Pairs};

/// Images or layers of one file; a host with 10,000 layers is a large one.
const ENTRIES_MAX: usize = 200_000;
/// Names, former names or pieces of big data of one image.
const NAMES_MAX: usize = 10_000;
/// Ranges of an id map; user namespaces have at most 340.
const RANGES_MAX: usize = 10_000;
/// Characters of an id or digest that is quoted although it is none.
const QUOTED_CHARS_MAX: usize = 80;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            pub fn to_hex(self) -> String {
                hex(&self.0)
            }

            pub fn from_hex(text: &str) -> Option<Self> {
                unhex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex(&self.0[..4]))
            }
        }
    };
}

id!(
    /// An image's id in a store: the sha256 of its configuration, unless a layer is known only by
    /// its table of contents.
    ImageId);
id!(
    /// A layer's id in a store: made from the chain of layers below it, or random.
    LayerId);

/// An image of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    pub id: ImageId,
    pub origin: Origin,
    /// Of its manifest: "sha256:...".
    pub digest: Option<String>,
    pub names: Vec<String>,
    /// Names that it ever had, the latest first.
    pub names_history: Vec<String>,
    /// The topmost layer. `None`: the image has no layers.
    pub top_layer: Option<LayerId>,
    /// JSON that c/image keeps for itself (the sizes of signatures); may be empty.
    pub metadata: String,
    pub big_data: Vec<BigData>,
    /// RFC 3339.
    pub created: Option<String>,
    /// A JSON object; may be absent.
    pub flags: Option<String>,
    /// The whole entry of `images.json`, as it stands there.
    pub entry: String,
}

/// What is kept of an image besides its layers: manifests, the configuration, signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigData {
    pub name: String,
    /// Bytes.
    pub size: Option<u64>,
    /// "sha256:..."; of a signed manifest of schema 1 it is of the part that is signed.
    pub digest: Option<String>,
}

/// A layer of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLayer {
    pub id: LayerId,
    pub origin: Origin,
    pub parent: Option<LayerId>,
    pub names: Vec<String>,
    /// sha256 of its uncompressed tar. Writable layers have none, nor those that are known by
    /// their table of contents alone.
    pub diff_id: Option<DiffId>,
    /// Bytes of its uncompressed tar.
    pub diff_size: Option<u64>,
    /// Of the blob that was pulled: "sha256:...".
    pub compressed_digest: Option<String>,
    pub compressed_size: Option<u64>,
    /// Of the blob that was pulled: 0 none, 1 bzip2, 2 gzip, 3 xz, 4 zstd.
    pub compression: i64,
    /// Of the table of contents of a layer that was pulled in parts.
    pub toc_digest: Option<String>,
    /// What the image's configuration says that its tar hashes to, for a layer that was pulled in
    /// parts and never hashed whole.
    pub expected_diff_id: Option<DiffId>,
    /// Half made or half removed; Podman removes it the next time it writes.
    pub incomplete: bool,
    /// A copy of another layer whose files have other owners, or a container's layer with ids of
    /// its own.
    pub mapped: bool,
}

/// An entry that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotUnderstood {
    /// The file, and which of its entries: "PATH, entry 3".
    pub object: String,
    pub cause: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageEntry<'a> {
    id: String,
    digest: Option<String>,
    #[serde(default)]
    names: List<String, NAMES_MAX>,
    #[serde(default)]
    names_history: List<String, NAMES_MAX>,
    layer: Option<String>,
    metadata: Option<String>,
    #[serde(default)]
    big_data_names: List<String, NAMES_MAX>,
    #[serde(default)]
    big_data_sizes: Pairs<i64, NAMES_MAX>,
    #[serde(default)]
    big_data_digests: Pairs<String, NAMES_MAX>,
    created: Option<String>,
    #[serde(borrow)]
    flags: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LayerEntry {
    id: String,
    #[serde(default)]
    names: List<String, NAMES_MAX>,
    parent: Option<String>,
    compressed_diff_digest: Option<String>,
    compressed_size: Option<i64>,
    diff_digest: Option<String>,
    diff_size: Option<i64>,
    toc_digest: Option<String>,
    #[serde(default)]
    compression: i64,
    flags: Option<LayerFlags>,
    #[serde(default)]
    uidmap: List<serde::de::IgnoredAny, RANGES_MAX>,
    #[serde(default)]
    gidmap: List<serde::de::IgnoredAny, RANGES_MAX>,
}

/// Flags have values of any kind; one of the wrong kind counts as absent, as it does for Podman.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LayerFlags {
    incomplete: Option<Value>,
    expected_layer_diffid: Option<Value>,
}

/// The images of an `images.json`, called `file` in messages. `Err`: it is no list.
pub(super) fn parse_images(
    text: &[u8],
    file: &str,
    origin: Origin,
    not_understood: &mut Vec<NotUnderstood>,
) -> Result<Vec<StoredImage>, String> {
    parse(text, file, not_understood, |entry| image(entry, origin))
}

/// The layers of a `layers.json`.
pub(super) fn parse_layers(
    text: &[u8],
    file: &str,
    origin: Origin,
    not_understood: &mut Vec<NotUnderstood>,
) -> Result<Vec<StoredLayer>, String> {
    parse(text, file, not_understood, |entry| layer(entry, origin))
}

fn parse<T>(
    text: &[u8],
    file: &str,
    not_understood: &mut Vec<NotUnderstood>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let entries: List<&RawValue, ENTRIES_MAX> =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut found = Vec::with_capacity(entries.0.len());
    for (index, entry) in entries.0.into_iter().enumerate() {
        match read(entry.get()) {
            Ok(entry) => found.push(entry),
            Err(cause) => not_understood.push(NotUnderstood {
                object: format!("{file}, entry {}", index + 1),
                cause,
            }),
        }
    }
    Ok(found)
}

fn image(text: &str, origin: Origin) -> Result<StoredImage, String> {
    let entry: ImageEntry<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (sizes, digests) = (entry.big_data_sizes.0, entry.big_data_digests.0);
    // Looked up by binary search: an entry may have thousands of each.
    let sizes = sorted(sizes);
    let digests = sorted(digests);
    let big_data = entry
        .big_data_names
        .0
        .into_iter()
        .map(|name| BigData {
            size: find(&sizes, &name).and_then(|size| u64::try_from(*size).ok()),
            digest: find(&digests, &name).cloned(),
            name,
        })
        .collect();
    Ok(StoredImage {
        id: ImageId::from_hex(&entry.id).ok_or_else(|| no_id("image", &entry.id))?,
        origin,
        digest: filled(entry.digest),
        names: entry.names.0,
        names_history: entry.names_history.0,
        top_layer: optional_layer(entry.layer)?,
        metadata: entry.metadata.unwrap_or_default(),
        big_data,
        created: filled(entry.created),
        flags: entry.flags.map(|flags| flags.get().to_owned()),
        entry: text.to_owned(),
    })
}

fn layer(text: &str, origin: Origin) -> Result<StoredLayer, String> {
    let entry: LayerEntry = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (incomplete, expected) = match &entry.flags {
        Some(flags) => (
            flags.incomplete.as_ref().and_then(Value::as_bool),
            flags.expected_layer_diffid.as_ref().and_then(Value::as_str),
        ),
        None => (None, None),
    };
    Ok(StoredLayer {
        id: LayerId::from_hex(&entry.id).ok_or_else(|| no_id("layer", &entry.id))?,
        origin,
        parent: optional_layer(entry.parent)?,
        names: entry.names.0,
        diff_id: entry.diff_digest.as_deref().and_then(diff_id),
        // A layer that was pulled in parts may have -1.
        diff_size: entry.diff_size.and_then(|size| u64::try_from(size).ok()),
        compressed_digest: filled(entry.compressed_diff_digest),
        compressed_size: entry.compressed_size.and_then(|n| u64::try_from(n).ok()),
        compression: entry.compression,
        toc_digest: filled(entry.toc_digest),
        expected_diff_id: expected.and_then(diff_id),
        incomplete: incomplete == Some(true),
        mapped: !entry.uidmap.0.is_empty() || !entry.gidmap.0.is_empty(),
    })
}

/// "sha256:..."; no other algorithm is in use for layers.
fn diff_id(digest: &str) -> Option<DiffId> {
    DiffId::from_hex(digest.strip_prefix("sha256:")?)
}

fn optional_layer(id: Option<String>) -> Result<Option<LayerId>, String> {
    filled(id)
        .map(|id| LayerId::from_hex(&id).ok_or_else(|| no_id("layer", &id)))
        .transpose()
}

/// Go leaves out an empty string, or writes it.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn no_id(kind: &str, text: &str) -> String {
    let quoted: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    format!("{quoted:?} is no {kind} id")
}

fn sorted<T>(mut pairs: Vec<(String, T)>) -> Vec<(String, T)> {
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
}

fn find<'a, T>(pairs: &'a [(String, T)], name: &str) -> Option<&'a T> {
    let at = pairs
        .binary_search_by(|(other, _)| other.as_str().cmp(name))
        .ok()?;
    pairs.get(at).map(|(_, value)| value)
}
