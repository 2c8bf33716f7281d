//! Podman's store of artifacts (`podman artifact`, from 5.4 on): one OCI layout beside the images, in
//! which each blob lies as it was pulled or added. An artifact's name and manifest stand in the index.
//!
//! Sources: podman `pkg/libartifact/store`; "image-layout.md" of the OCI image specification.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_format::id::{DiffId, hex};
use ring::digest::{Context, SHA256};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::definition::{self, DEFINITION_FORMAT, Definition};
use super::layout;
use super::list_lock::ListLock;
use super::storage::{BIG_DATA_BYTES_MAX, Root, cause_of};

/// Below the graph root.
const FOLDER: &str = "artifacts";
const INDEX: &str = "index.json";
/// Newer versions of Podman take it.
const LOCK: &str = "index.lock";
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";
/// Artifacts of one store.
const ARTIFACTS_MAX: usize = 100_000;
/// Blobs of one artifact.
const BLOBS_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 1024;
const COPY_BYTES: usize = 1 << 20;

/// An artifact, as the index tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// `None`: it has no name.
    pub name: Option<String>,
    /// Of its manifest: 64 hex digits.
    pub digest: String,
    descriptor: Map<String, Value>,
}

/// A blob of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// 64 hex digits: the sha256 of its bytes.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// The record that a snapshot keeps of an artifact besides its blobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArtifactDefinition {
    /// 1.
    pub format: u32,
    /// The entry of the index, as it was.
    descriptor: Map<String, Value>,
    /// The manifest first, each once.
    pub blobs: Vec<Blob>,
}

/// What became of an artifact that was brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArtifactAdded {
    /// Its name belongs to an artifact of this digest, and was left with it.
    pub left: Option<String>,
    /// Its name was taken from an artifact of this digest.
    pub taken: Option<String>,
}

/// The store of one Podman. Cheap to clone.
#[derive(Clone)]
pub struct ArtifactStore {
    root: Arc<Root>,
}

impl ArtifactStore {
    /// `None`: there is none.
    pub fn open(graph_root: &Path) -> Result<Option<Self>, String> {
        match Root::open(&graph_root.join(FOLDER)) {
            Ok(root) => Ok(Some(Self {
                root: Arc::new(root),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(cause_of(errno)),
        }
    }

    pub fn list(&self) -> Result<Vec<Artifact>, String> {
        match self.root.read(INDEX, BIG_DATA_BYTES_MAX) {
            Ok(text) => parse_index(&text),
            Err(Errno::NOENT) => Ok(Vec::new()),
            Err(errno) => Err(format!("{INDEX}: {}", cause_of(errno))),
        }
    }

    /// What a snapshot keeps of it.
    pub fn definition(&self, artifact: &Artifact) -> Result<ArtifactDefinition, String> {
        let place = blob_place(&artifact.digest);
        let manifest = self.root.read(&place, BIG_DATA_BYTES_MAX);
        let manifest = manifest.map_err(|errno| format!("its manifest: {}", cause_of(errno)))?;
        if layout::sha256(&manifest).to_hex() != artifact.digest {
            return Err("its manifest is damaged: it has not its digest".into());
        }
        let mut blobs = vec![Blob {
            digest: artifact.digest.clone(),
            size: manifest.len() as u64,
        }];
        for blob in parse_manifest(&manifest)? {
            if !blobs.iter().any(|known| known.digest == blob.digest) {
                blobs.push(blob);
            }
        }
        Ok(ArtifactDefinition {
            format: DEFINITION_FORMAT,
            descriptor: artifact.descriptor.clone(),
            blobs,
        })
    }

    /// A blob for reading. Whether it has its digest, its reader finds out.
    pub fn blob(&self, blob: &Blob) -> Result<File, String> {
        match self.root.file(&blob_place(&blob.digest)) {
            Ok((file, size)) if size == blob.size => Ok(file),
            Ok((_, size)) => Err(format!("it has {size} bytes, not {}", blob.size)),
            Err(Errno::NOENT) => Err("it is missing".into()),
            Err(errno) => Err(cause_of(errno)),
        }
    }
}

fn blob_place(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

/// The artifacts of an index. Errors are causes in words.
pub fn parse_index(text: &[u8]) -> Result<Vec<Artifact>, String> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Map<String, Value>>,
    }
    let index: Index = serde_json::from_slice(text)
        .map_err(|error| format!("{INDEX} is not understood: {error}"))?;
    if index.manifests.len() > ARTIFACTS_MAX {
        return Err(format!("{INDEX} lists more than {ARTIFACTS_MAX} artifacts"));
    }
    let mut artifacts: Vec<Artifact> = Vec::new();
    for descriptor in index.manifests {
        let Some(digest) = digest_of(&descriptor) else {
            return Err(format!("{INDEX} has an entry without a digest"));
        };
        artifacts.push(Artifact {
            name: name_of(&descriptor),
            digest,
            descriptor,
        });
    }
    Ok(artifacts)
}

/// The blobs that a manifest names. Errors are causes in words.
pub fn parse_manifest(text: &[u8]) -> Result<Vec<Blob>, String> {
    #[derive(Deserialize)]
    struct Manifest {
        config: Map<String, Value>,
        layers: Vec<Map<String, Value>>,
    }
    let manifest: Manifest = serde_json::from_slice(text)
        .map_err(|error| format!("its manifest is not understood: {error}"))?;
    if manifest.layers.len() >= BLOBS_MAX {
        return Err(format!("its manifest names more than {BLOBS_MAX} blobs"));
    }
    let descriptors = std::iter::once(&manifest.config).chain(&manifest.layers);
    let blobs = descriptors.map(|descriptor| {
        let size = descriptor.get("size").and_then(Value::as_u64);
        Some(Blob {
            digest: digest_of(descriptor)?,
            size: size?,
        })
    });
    let blobs: Option<Vec<Blob>> = blobs.collect();
    blobs.ok_or_else(|| "its manifest names a blob without digest or size".into())
}

fn digest_of(descriptor: &Map<String, Value>) -> Option<String> {
    let digits = descriptor
        .get("digest")?
        .as_str()?
        .strip_prefix("sha256:")?;
    DiffId::from_hex(digits).map(|digest| digest.to_hex())
}

fn name_of(descriptor: &Map<String, Value>) -> Option<String> {
    let name = descriptor.get("annotations")?.get(NAME_ANNOTATION)?;
    let fits = |name: &&str| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    name.as_str().filter(fits).map(str::to_owned)
}

impl Definition for ArtifactDefinition {
    const BYTES_MAX: usize = 4 << 20;

    fn format(&self) -> u32 {
        self.format
    }

    fn check(&self) -> Result<(), String> {
        let mut digests = self.blobs.iter().map(|blob| &blob.digest);
        let is_digest = |digest: &String| DiffId::from_hex(digest).is_some();
        if self.blobs.len() > BLOBS_MAX || !digests.all(is_digest) {
            return Err("it has too many blobs, or one without a digest".into());
        }
        let descriptor = &self.descriptor;
        if self.blobs.first().map(|blob| &blob.digest) != digest_of(descriptor).as_ref() {
            return Err("its first blob is not its manifest".into());
        }
        let annotations = descriptor.get("annotations");
        let are_texts = |map: &Map<String, Value>| map.values().all(Value::is_string);
        // One value of another kind, and Podman reads nothing of the index.
        if annotations.is_some_and(|map| !map.as_object().is_some_and(are_texts))
            || descriptor.get("size").and_then(Value::as_i64).is_none()
            || !descriptor.get("mediaType").is_some_and(Value::is_string)
        {
            return Err("its descriptor is not what it has to be".into());
        }
        Ok(())
    }
}

impl ArtifactDefinition {
    pub fn encode(&self) -> Vec<u8> {
        definition::encode(self)
    }

    /// Errors say what is wrong with it, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        definition::decode(bytes)
    }

    /// Of its manifest: 64 hex digits.
    pub fn digest(&self) -> &str {
        self.blobs.first().map_or("", |blob| &blob.digest)
    }

    pub fn name(&self) -> Option<String> {
        name_of(&self.descriptor)
    }

    /// Under another name.
    pub fn under(mut self, name: &str) -> Self {
        let annotations = self
            .descriptor
            .entry("annotations")
            .or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(NAME_ANNOTATION.into(), name.into());
        }
        self
    }

    /// Brings the artifact into the store, which is made if need be. `blobs` is a folder with a file
    /// for each blob, called by its digest; nobody else may write to it, and what the store needs of
    /// it is moved. With `retag`, a name that another artifact has is taken from it. Durable on
    /// return. Errors are causes in words.
    pub fn add_to(
        &self,
        graph_root: &Path,
        blobs: &Path,
        retag: bool,
    ) -> Result<ArtifactAdded, String> {
        let folder = graph_root.join(FOLDER);
        let place = folder.join("blobs/sha256");
        make(&folder, 0o700)?;
        make(&folder.join("blobs"), 0o755)?;
        make(&place, 0o755)?;
        for blob in &self.blobs {
            let (from, to) = (blobs.join(&blob.digest), place.join(&blob.digest));
            if !has_digest(&to, blob).unwrap_or(false) {
                match has_digest(&from, blob) {
                    Ok(true) => bring(&from, &to)?,
                    Ok(false) => return Err(format!("blob {} is not what it was", blob.digest)),
                    Err(error) => return Err(format!("blob {}: {error}", blob.digest)),
                }
            }
        }
        sync(&place)?;
        let lock = folder.join(LOCK);
        let lock = ListLock::take(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
        let (file, text) = layout::LAYOUT_FILE;
        if !folder.join(file).exists() {
            replace(&folder.join(file), text.as_bytes())?;
        }
        let path = folder.join(INDEX);
        let mut index = match read_index(&path)? {
            Some(index) => index,
            None => json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [],
            }),
        };
        let entries = index["manifests"].as_array_mut();
        let entries = entries.ok_or_else(|| format!("{INDEX} has no list of manifests"))?;
        let mut added = ArtifactAdded::default();
        let name = self.name();
        let mut kept = Vec::new();
        for entry in entries.drain(..) {
            let is_named = entry.as_object().and_then(name_of) == name && name.is_some();
            let digest = entry.as_object().and_then(digest_of).unwrap_or_default();
            match (is_named, digest == self.digest()) {
                (true, false) if retag => added.taken = Some(digest),
                (true, false) => {
                    added.left = Some(digest);
                    kept.push(entry);
                }
                // Its own entry, which is put anew.
                (true, true) => {}
                (false, true) if name.is_none() && entry.as_object() == Some(&self.descriptor) => {}
                (false, _) => kept.push(entry),
            }
        }
        if added.left.is_none() {
            kept.push(self.descriptor.clone().into());
        }
        *entries = kept;
        lock.mark().map_err(|error| error.to_string())?;
        replace(&path, index.to_string().as_bytes())?;
        Ok(added)
    }
}

fn read_index(path: &Path) -> Result<Option<Value>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match super::adopt::read_piece(path) {
        Ok(text) => match parse_index(&text) {
            Ok(_) => Ok(Some(
                serde_json::from_slice(&text).map_err(|error| failed(&error))?,
            )),
            Err(cause) => Err(cause),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

fn make(folder: &Path, mode: u32) -> Result<(), String> {
    match std::fs::DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(format!("{}: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn has_digest(path: &Path, blob: &Blob) -> std::io::Result<bool> {
    let mut file = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() || facts.len() != blob.size {
        return Ok(false);
    }
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(hash.finish().as_ref()) == blob.digest),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Moves a file; between file systems it is copied beside, and renamed.
fn bring(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    let beside = beside(to);
    match std::fs::rename(from, &beside) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            std::fs::copy(from, &beside).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    let file = File::open(&beside).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&beside, to).map_err(failed)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let beside = beside(path);
    let write = || -> std::io::Result<()> {
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o644);
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|error| format!("{}: {error}", path.display()))?;
    sync(path.parent().unwrap_or(path))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".tmp-podkeep-");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn sync(folder: &Path) -> Result<(), String> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| format!("{}: {error}", folder.display()))
}
