//! Archives of images: which images they hold, and what containers/storage would keep of each.
//!
//! An OCI layout, what `docker save` and `podman save` write (`manifest.json` with a list), and
//! what `podman save --format docker-dir` writes (`manifest.json` that is a manifest). Compressed
//! layers are blobs whose digests say nothing of the layer: which tar is the right one, the
//! configuration says.
//!
//! Sources: OCI image-spec, `image-layout.md`; docker image specification v1.2; containers/image
//! `docker/internal/tarfile`, `directory`, `storage/storage_dest.go`.

use std::cell::Cell;
use std::collections::BTreeSet;

use podkeep_format::id::{DiffId, hex};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::image::{ImageDefinition, LAYERS_MAX, LayerDefinition};
use super::storage::BIG_DATA_BYTES_MAX;

/// Images of one archive.
const IMAGES_MAX: usize = 4096;
/// Names of all images of one archive, and bytes of one.
const NAMES_MAX: usize = 4096;
/// Bytes of all manifests and configurations of one archive: they are in memory together.
const METADATA_BYTES_MAX: usize = 256 << 20;
const NAME_BYTES_MAX: usize = 512;
const INDEX: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// The files of an archive.
pub trait ArchiveFiles {
    /// `None`: there is no such file. A longer one than `bytes_max` is an error.
    fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, String>;
}

/// An image of an archive.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    /// 64 hex digits: the sha256 of the configuration.
    pub id: String,
    /// As containers/storage writes names, with registry and tag.
    pub names: Vec<String>,
    /// Bottom first.
    pub layers: Vec<ArchivedLayer>,
    config: Vec<u8>,
    /// `None`: the archive holds none.
    manifest: Option<Vec<u8>>,
    /// The index that led to the manifest, if one did.
    index: Option<Vec<u8>>,
    created: Option<String>,
}

/// A layer of an archive.
#[derive(Clone, Debug)]
pub struct ArchivedLayer {
    pub diff_id: DiffId,
    /// The file that holds its tar, perhaps compressed.
    pub file: String,
    /// Of that file, where a manifest tells: "sha256:...", bytes.
    blob: Option<(String, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: Option<Map<String, Value>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    created: Option<String>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// An image that cannot be taken, and why; or one that can.
pub type Found = Result<ArchivedImage, String>;

/// The images of an archive, one for each ID. `Err`: it is no archive of images.
pub fn archived_images(files: &dyn ArchiveFiles) -> Result<Vec<Found>, String> {
    let files = &Bounded {
        files,
        left: Cell::new(METADATA_BYTES_MAX),
    };
    let index = match files.read("oci-layout", BIG_DATA_BYTES_MAX)? {
        Some(_) => files.read("index.json", BIG_DATA_BYTES_MAX)?,
        None => None,
    };
    let found = match index {
        Some(index) => layout_images(files, &index)?,
        None => match files.read("manifest.json", BIG_DATA_BYTES_MAX)? {
            Some(text) if text.trim_ascii_start().starts_with(b"[") => saved_images(files, &text)?,
            Some(manifest) => {
                let blob = |digest: &str| Ok(hex_of(digest)?.to_owned());
                vec![manifest_image(files, manifest, None, &blob)]
            }
            None => {
                return Err(
                    "it holds no image: neither index.json of a layout nor manifest.json".into(),
                );
            }
        },
    };
    let mut images: Vec<Found> = Vec::new();
    let mut names = 0;
    for image in found {
        if let Ok(image) = &image {
            names += image.names.len();
            if names > NAMES_MAX {
                return Err(format!("it has more than {NAMES_MAX} names"));
            }
            let mut known = images.iter_mut().flatten();
            if let Some(same) = known.find(|known| known.id == image.id) {
                same.names.extend(image.names.iter().cloned());
                same.names = without_repeats(std::mem::take(&mut same.names));
                continue;
            }
        }
        images.push(image);
    }
    Ok(images)
}

/// Reads only so many bytes in all.
struct Bounded<'f> {
    files: &'f dyn ArchiveFiles,
    left: Cell<usize>,
}

impl ArchiveFiles for Bounded<'_> {
    fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, String> {
        let read = self.files.read(name, bytes_max)?;
        let len = read.as_ref().map_or(0, Vec::len);
        let left = self.left.get().checked_sub(len);
        self.left.set(left.ok_or_else(|| {
            format!("its manifests and configurations have more than {METADATA_BYTES_MAX} bytes")
        })?);
        Ok(read)
    }
}

/// The same names in the same order, each once.
fn without_repeats(names: Vec<String>) -> Vec<String> {
    let mut met = BTreeSet::new();
    let names = names.into_iter();
    names.filter(|name| met.insert(name.clone())).collect()
}

fn parse<'t, T: Deserialize<'t>>(text: &'t [u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("{what} is not understood: {error}"))
}

fn few<T>(list: Vec<T>) -> Result<Vec<T>, String> {
    match list.len() <= IMAGES_MAX {
        true => Ok(list),
        false => Err(format!("it lists more than {IMAGES_MAX} images")),
    }
}

/// The images of an OCI layout.
fn layout_images(files: &dyn ArchiveFiles, index: &[u8]) -> Result<Vec<Found>, String> {
    let index: Index = parse(index, "index.json")?;
    let images = few(index.manifests)?;
    Ok(images
        .iter()
        .map(|descriptor| layout_image(files, descriptor))
        .collect())
}

fn layout_image(files: &dyn ArchiveFiles, descriptor: &Descriptor) -> Found {
    let blob = |digest: &str| Ok(format!("blobs/sha256/{}", hex_of(digest)?));
    let text = checked(files, &blob(&descriptor.digest)?, &descriptor.digest)?;
    let (manifest, index) = match INDEX.contains(&descriptor.media_type.as_str()) {
        false => (text, None),
        true => {
            let list: Index = parse(&text, "an index")?;
            let instance = own_instance(&list.manifests)?;
            let manifest = checked(files, &blob(&instance.digest)?, &instance.digest)?;
            (manifest, Some(text))
        }
    };
    let mut image = manifest_image(files, manifest, index, &blob)?;
    let annotation = |key: &str| {
        let annotations = descriptor.annotations.as_ref()?;
        annotations.get(key)?.as_str()
    };
    // Docker puts the whole name there, and only the tag into the other.
    let name = annotation("io.containerd.image.name")
        .or_else(|| annotation("org.opencontainers.image.ref.name"));
    image
        .names
        .extend(name.and_then(|n| whole_name(n, "localhost/")));
    Ok(image)
}

/// Of an index, the image for this machine, or the only one.
fn own_instance(instances: &[Descriptor]) -> Result<&Descriptor, String> {
    let architecture = match () {
        () if cfg!(target_arch = "x86_64") => "amd64",
        () if cfg!(target_arch = "aarch64") => "arm64",
        () => "",
    };
    let own = instances.iter().find(|instance| {
        let platform = instance.platform.as_ref();
        platform.is_some_and(|p| p.os == "linux" && p.architecture == architecture)
    });
    match (own, instances) {
        (Some(own), _) | (None, [own]) => Ok(own),
        (None, _) => Err("an index has no image for this machine".into()),
    }
}

/// An image whose manifest is there. `blob` says which file a digest is of.
fn manifest_image(
    files: &dyn ArchiveFiles,
    text: Vec<u8>,
    index: Option<Vec<u8>>,
    blob: &dyn Fn(&str) -> Result<String, String>,
) -> Found {
    let manifest: Manifest = parse(&text, "its manifest")?;
    let digest = &manifest.config.digest;
    let config = checked(files, &blob(digest)?, digest)?;
    let mut blobs = Vec::new();
    for layer in manifest.layers {
        blobs.push((blob(&layer.digest)?, Some((layer.digest, layer.size))));
    }
    let image = image(config, blobs)?;
    Ok(ArchivedImage {
        manifest: Some(text),
        index,
        ..image
    })
}

/// The images of what `docker save` and `podman save` write.
fn saved_images(files: &dyn ArchiveFiles, text: &[u8]) -> Result<Vec<Found>, String> {
    let images: Vec<SavedImage> = few(parse(text, "manifest.json")?)?;
    let images = images.into_iter().map(|saved| {
        let config = files.read(&saved.config, BIG_DATA_BYTES_MAX)?;
        let config = config.ok_or_else(|| format!("its configuration {} is missing", saved.config));
        let layers = saved.layers.unwrap_or_default().into_iter();
        let mut image = image(config?, layers.map(|file| (file, None)).collect())?;
        let tags = saved.repo_tags.unwrap_or_default();
        let names = tags.iter().filter_map(|tag| whole_name(tag, "docker.io/"));
        image.names.extend(names);
        Ok(image)
    });
    Ok(images.collect())
}

/// An image without names, with a layer for each file.
fn image(config: Vec<u8>, blobs: Vec<(String, Option<(String, u64)>)>) -> Found {
    let parsed: Config = parse(&config, "its configuration")?;
    let diff_ids = parsed.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != blobs.len() {
        let (told, held) = (diff_ids.len(), blobs.len());
        return Err(format!(
            "its configuration tells of {told} layers, and the archive of {held}"
        ));
    }
    if blobs.len() > LAYERS_MAX {
        return Err(format!("it has more than {LAYERS_MAX} layers"));
    }
    let mut layers = Vec::new();
    for (diff_id, (file, blob)) in diff_ids.iter().zip(blobs) {
        let diff_id = hex_of(diff_id).ok().and_then(DiffId::from_hex);
        layers.push(ArchivedLayer {
            diff_id: diff_id.ok_or("a layer in its configuration has no DiffID")?,
            file,
            blob,
        });
    }
    Ok(ArchivedImage {
        id: sha256_hex(&config),
        names: Vec::new(),
        layers,
        config,
        manifest: None,
        index: None,
        created: parsed.created.filter(|time| is_rfc3339(time)),
    })
}

impl ArchivedImage {
    /// An image that no archive holds: its configuration, its layers, and a manifest unless one is
    /// to be made.
    pub(super) fn made(config: Vec<u8>, manifest: Option<Vec<u8>>, names: Vec<String>) -> Found {
        let parsed: Config = parse(&config, "its configuration")?;
        let files = parsed.rootfs.diff_ids.unwrap_or_default().into_iter();
        let image = image(config, files.map(|file| (file, None)).collect())?;
        Ok(Self {
            names,
            manifest,
            ..image
        })
    }

    pub fn has_manifest(&self) -> bool {
        self.manifest.is_some()
    }

    /// What a snapshot keeps of the image: its record, and the pieces of its big data by their
    /// keys. `sizes`: bytes of the tar of each layer, bottom first.
    ///
    /// For want of a manifest one is made as `podman load` makes it, of Docker's schema 2: a
    /// manifest of OCI's would hide what only Docker's configuration has (`Healthcheck`).
    pub fn definition(&self, sizes: &[u64]) -> (ImageDefinition, Vec<(String, Vec<u8>)>) {
        let manifest = match &self.manifest {
            Some(manifest) => manifest.clone(),
            None => self.made_manifest(sizes),
        };
        let digest = format!("sha256:{}", sha256_hex(&manifest));
        let mut pieces = vec![(format!("sha256:{}", self.id), self.config.clone())];
        if let Some(index) = &self.index {
            let key = format!("manifest-sha256:{}", sha256_hex(index));
            pieces.push((key, index.clone()));
        }
        pieces.push((format!("manifest-{digest}"), manifest.clone()));
        pieces.push(("manifest".to_owned(), manifest));
        let keys: Vec<&String> = pieces.iter().map(|(key, _)| key).collect();
        let map = |value: &dyn Fn(&[u8]) -> Value| -> Map<String, Value> {
            let pairs = pieces
                .iter()
                .map(|(key, bytes)| (key.clone(), value(bytes)));
            pairs.collect()
        };
        let mut entry = Map::new();
        for (field, value) in [
            ("id", json!(self.id)),
            ("digest", json!(digest)),
            ("names", json!(self.names)),
            ("names-history", json!(self.names)),
            ("metadata", json!("{}")),
            ("big-data-names", json!(keys)),
            ("big-data-sizes", map(&|bytes| json!(bytes.len())).into()),
            (
                "big-data-digests",
                map(&|bytes| json!(format!("sha256:{}", sha256_hex(bytes)))).into(),
            ),
        ] {
            entry.insert(field.to_owned(), value);
        }
        if let Some(created) = &self.created {
            entry.insert("created".into(), json!(created));
        }
        let layers = self.layers.iter().zip(sizes).map(|(layer, size)| {
            let own = format!("sha256:{}", layer.diff_id);
            let blob = layer.blob.as_ref().filter(|(digest, _)| *digest != own);
            LayerDefinition {
                diff_id: layer.diff_id.to_hex(),
                size: *size,
                compressed_digest: blob.map(|(digest, _)| digest.clone()),
                compressed_size: blob.map(|(_, size)| *size),
                changed: None,
            }
        });
        let definition = ImageDefinition::new(&self.id, entry, layers.collect());
        (definition, pieces)
    }

    fn made_manifest(&self, sizes: &[u64]) -> Vec<u8> {
        let layers = self.layers.iter().zip(sizes).map(|(layer, size)| {
            let digest = format!("sha256:{}", layer.diff_id);
            json!({"mediaType": DOCKER_LAYER, "size": size, "digest": digest})
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {
                "mediaType": DOCKER_CONFIG,
                "size": self.config.len(),
                "digest": format!("sha256:{}", self.id),
            },
            "layers": layers.collect::<Vec<_>>(),
        });
        manifest.to_string().into_bytes()
    }
}

/// A blob that must be there, and be what its digest says.
fn checked(files: &dyn ArchiveFiles, file: &str, digest: &str) -> Result<Vec<u8>, String> {
    let bytes = files.read(file, BIG_DATA_BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| format!("its blob {digest} is missing"))?;
    match sha256_hex(&bytes) == hex_of(digest)? {
        true => Ok(bytes),
        false => Err(format!("its blob {digest} is not what its digest says")),
    }
}

/// The digits of "sha256:...", of which there are 64, lower-case.
fn hex_of(digest: &str) -> Result<&str, String> {
    let digits = digest.strip_prefix("sha256:");
    let digits = digits.filter(|digits| DiffId::from_hex(digits).is_some());
    digits.ok_or_else(|| {
        let quoted: String = digest.chars().take(80).collect();
        format!("{quoted:?} is no digest that podkeep knows")
    })
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// A name with registry and tag, as Podman makes it of one that lacks them. `None`: it is no name
/// of an image.
fn whole_name(name: &str, registry: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    let is_word = |word: &str| word.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() > NAME_BYTES_MAX || !name.chars().all(allowed) || !name.split('/').all(is_word) {
        return None;
    }
    let (head, last) = name.rsplit_once('/').unwrap_or(("", name));
    let tag = match last.split_once(':') {
        Some((_, tag)) if tag.is_empty() || tag.contains(':') => return None,
        Some(_) => "",
        None => ":latest",
    };
    let first = head.split('/').next().unwrap_or_default();
    let has_registry = first.contains(['.', ':']) || first == "localhost";
    let before = match (has_registry, head, registry) {
        (true, _, _) => "",
        (false, "", "docker.io/") => "docker.io/library/",
        (false, _, registry) => registry,
    };
    Some(format!("{before}{name}{tag}"))
}

/// A time that Go reads: another one would make all of images.json unreadable to Podman.
fn is_rfc3339(time: &str) -> bool {
    let Some((date, rest)) = time.split_once('T').filter(|_| time.is_ascii()) else {
        return false;
    };
    let zone = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let numbers = |text: &str, separator: char, widths: &[usize]| -> Option<Vec<u32>> {
        let parts: Vec<&str> = text.split(separator).collect();
        let fits = parts.len() == widths.len()
            && parts.iter().zip(widths).all(|(part, width)| {
                part.len() == *width && part.bytes().all(|b| b.is_ascii_digit())
            });
        let parts = fits.then(|| parts.iter().filter_map(|part| part.parse().ok()));
        parts.map(Iterator::collect)
    };
    let date = numbers(date, '-', &[4, 2, 2]).is_some_and(|date| {
        let (year, month) = (date[0], date[1]);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u32::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        (1..=12).contains(&month) && (1..=days).contains(&date[2])
    });
    let clock = numbers(clock, ':', &[2, 2, 2])
        .is_some_and(|clock| clock[0] < 24 && clock[1] < 60 && clock[2] < 60);
    let fraction =
        (1..=9).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
    let zone = match zone.split_at_checked(1) {
        Some(("Z", "")) => true,
        Some(("+" | "-", zone)) => {
            numbers(zone, ':', &[2, 2]).is_some_and(|zone| zone[0] < 24 && zone[1] < 60)
        }
        _ => false,
    };
    date && clock && fraction && zone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_what_podman_gives_them() {
        for (name, docker, oci) in [
            (
                "alpine",
                "docker.io/library/alpine:latest",
                "localhost/alpine:latest",
            ),
            ("a/b:2", "docker.io/a/b:2", "localhost/a/b:2"),
            (
                "localhost/odd/x:1",
                "localhost/odd/x:1",
                "localhost/odd/x:1",
            ),
            ("h:5000/x", "h:5000/x:latest", "h:5000/x:latest"),
            ("quay.io/x/y:1", "quay.io/x/y:1", "quay.io/x/y:1"),
        ] {
            assert_eq!(whole_name(name, "docker.io/").as_deref(), Some(docker));
            assert_eq!(whole_name(name, "localhost/").as_deref(), Some(oci));
        }
        for name in [
            "", "/x", "x/", "a b", "x:", "x:1:2", "../x", "x\u{e9}", "a//b",
        ] {
            assert_eq!(whole_name(name, "docker.io/"), None, "{name:?}");
        }
    }

    #[test]
    fn only_times_that_go_reads_are_kept() {
        for time in [
            "2026-01-02T03:04:05Z",
            "2024-02-29T23:59:59.123456789+01:30",
            "0001-01-01T00:00:00Z",
        ] {
            assert!(is_rfc3339(time), "{time}");
        }
        for time in [
            "",
            "2026-01-02",
            "2026-01-02 03:04:05Z",
            "2023-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05+1",
            "2026-1-2T03:04:05Z",
            "\"\u{e9}T03:04:05Z",
        ] {
            assert!(!is_rfc3339(time), "{time}");
        }
    }
}
