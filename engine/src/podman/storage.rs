//! The store of containers/storage: which images and layers there are, read from its files.
//!
//! No lock is taken, so that a backup never holds up a container's start. The JSON files are
//! replaced by rename, and beside each lies a lock file whose content, a token, is made anew by
//! every writer. All of them are read between two looks at tokens and files that must agree;
//! then the lists belong together, and no layer seems to be missing that another process just
//! made. What is listed may still vanish later: layers are checked when they are read.

mod bounded;
mod records;
mod root;
mod zfs;

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use podkeep_format::item::Escaped;
use rustix::io::Errno;

pub(super) use bounded::List;
pub use records::{BigData, ImageId, LayerId, NotUnderstood, StoredImage, StoredLayer};
pub(super) use root::{AS_ROOT, INSIDE, Root, cause_of, open as open_below, open_file};

/// Bytes of one JSON file: an image or layer takes about 1 KiB.
const JSON_BYTES_MAX: usize = 256 << 20;
/// Bytes of one piece of an image's big data: registries refuse manifests over 4 MiB.
pub const BIG_DATA_BYTES_MAX: usize = 32 << 20;
/// Bytes of a lock file's content that are compared; a token has 64.
const TOKEN_BYTES_MAX: usize = 1024;
/// Layers of one image, or below one container. Overlay file systems have at most 500.
const CHAIN_LAYERS_MAX: usize = 1000;
/// Times that the lists are read again because a writer was at work, and how long is waited
/// between: longer each time, up to a tenth of a second, three seconds in all.
const TRIES_MAX: u32 = 40;
const PAUSE_STEP: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Why a store, or a part of it, cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    #[error("the storage driver {0} is not known")]
    UnknownDriver(String),
    #[error("cannot read {object}: {cause}")]
    Unreadable { object: String, cause: String },
    /// Writers did not pause for long enough.
    #[error("cannot read {object}: it is being changed all the time")]
    Busy { object: String },
    /// The record of a layer is gone.
    #[error("image {image} needs layer {layer}, of which the store has no record")]
    MissingLayer { image: ImageId, layer: LayerId },
    #[error("the layers of image {image} have no end: layer {layer} is met again")]
    EndlessChain { image: ImageId, layer: LayerId },
    /// It is not what the image's record says of it.
    #[error("'{name}' of image {image} is damaged: {cause}")]
    DamagedData {
        image: ImageId,
        name: String,
        cause: String,
    },
}

/// How layers are laid out on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageDriver {
    Overlay,
    Vfs,
    Btrfs,
    Zfs,
}

impl StorageDriver {
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            // The second is what Docker calls it, and an alias.
            "overlay" | "overlay2" => Self::Overlay,
            "vfs" => Self::Vfs,
            "btrfs" => Self::Btrfs,
            "zfs" => Self::Zfs,
            _ => return None,
        })
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Vfs => "vfs",
            Self::Btrfs => "btrfs",
            Self::Zfs => "zfs",
        }
    }

    /// The directory of a layer, below a store's root.
    pub(super) fn layer_folder(self, layer: LayerId) -> String {
        match self {
            Self::Overlay => format!("overlay/{layer}"),
            Self::Vfs => format!("vfs/dir/{layer}"),
            Self::Btrfs => format!("btrfs/subvolumes/{layer}"),
            Self::Zfs => format!("zfs/graph/{layer}"),
        }
    }
}

/// Where a store is. `podman info` tells of all but `image_store`, of which it says nothing (5.4);
/// what it calls `overlay.imagestore` is an additional store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePlaces {
    pub driver: StorageDriver,
    pub graph_root: PathBuf,
    pub run_root: PathBuf,
    /// Images lie apart from containers (`imagestore` in storage.conf).
    pub image_store: Option<PathBuf>,
    /// Stores that are only read (`additionalimagestores`). One that does not exist is passed over.
    pub additional_stores: Vec<PathBuf>,
    /// Containers do not outlast the machine (`transient_store`).
    pub transient: bool,
    /// Of the driver zfs: below which data set each layer is one, `tank/storage`.
    pub data_set: Option<String>,
}

/// Which of the stores of a host something lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    GraphRoot,
    ImageStore,
    /// The n-th additional one, from 0: only read, and not this Podman's own.
    Additional(usize),
}

/// A store that can be read. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    driver: StorageDriver,
    /// In the order in which Podman looks things up.
    stores: Vec<(Origin, Root)>,
    /// Where volatile layers are listed, if not in the graph root.
    run_root: Option<Root>,
    data_set: Option<String>,
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreListing {
    /// In the order of the files; an image may be in several stores.
    pub images: Vec<StoredImage>,
    /// Of a layer in several stores, the one that Podman would take.
    pub layers: BTreeMap<LayerId, StoredLayer>,
    pub not_understood: Vec<NotUnderstood>,
}

/// A list of a store, and the lock file beside it.
struct ListFile<'a> {
    origin: Origin,
    root: &'a Root,
    kind: ListKind,
    path: String,
    lock: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ListKind {
    Images,
    Layers,
}

/// What changes when a list is written: the lock file's token, and which file it is.
#[derive(PartialEq, Eq)]
struct Stamp {
    token: Vec<u8>,
    file: Option<FileStamp>,
}

#[derive(PartialEq, Eq)]
struct FileStamp {
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Storage {
    /// Fails when a store cannot be opened; an additional one, or the run root, may be missing.
    pub fn new(places: &StoragePlaces) -> Result<Self, StorageError> {
        let open = |path: &PathBuf, optional: bool| match Root::open(path) {
            Ok(root) => Ok(Some(root)),
            Err(Errno::NOENT) if optional => Ok(None),
            Err(errno) => Err(StorageError::Unreadable {
                object: Escaped(path.as_os_str().as_bytes()).to_string(),
                cause: cause_of(errno),
            }),
        };
        let mut stores = Vec::new();
        let mut add = |origin, path, optional| {
            open(path, optional).map(|root| stores.extend(root.map(|root| (origin, root))))
        };
        add(Origin::GraphRoot, &places.graph_root, false)?;
        if let Some(path) = &places.image_store {
            add(Origin::ImageStore, path, false)?;
        }
        for (number, path) in places.additional_stores.iter().enumerate() {
            add(Origin::Additional(number), path, true)?;
        }
        let run_root = match places.transient {
            true => open(&places.run_root, true)?,
            false => None,
        };
        let inner = Inner {
            driver: places.driver,
            stores,
            run_root,
            data_set: places.data_set.clone(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub fn driver(&self) -> StorageDriver {
        self.inner.driver
    }

    /// The lists, as they were at one moment.
    pub fn read(&self) -> Result<StoreListing, StorageError> {
        let files = self.list_files();
        let mut pause = Duration::ZERO;
        for _ in 0..TRIES_MAX {
            let before = stamps(&files)?;
            let texts: Vec<Vec<u8>> = files.iter().map(ListFile::read).collect::<Result<_, _>>()?;
            if stamps(&files)? == before {
                return listing(&files, &texts);
            }
            pause = (pause + PAUSE_STEP).min(PAUSE_MAX);
            std::thread::sleep(pause);
        }
        Err(StorageError::Busy {
            object: self.graph_root().name(""),
        })
    }

    /// The lists, for whoever holds the lock of layers: it is not looked at, since a process that
    /// closes a lock file loses its lock on it.
    pub(super) fn read_under_lock(&self) -> Result<StoreListing, StorageError> {
        let files = self.list_files();
        let texts: Vec<Vec<u8>> = files.iter().map(ListFile::read).collect::<Result<_, _>>()?;
        listing(&files, &texts)
    }

    /// A piece of an image's big data, of at most [`BIG_DATA_BYTES_MAX`] bytes, compared with
    /// the size and digest that the image's record has of it.
    pub fn big_data(&self, image: &StoredImage, name: &str) -> Result<Vec<u8>, StorageError> {
        let damaged = |cause: String| StorageError::DamagedData {
            image: image.id,
            name: name.to_owned(),
            cause,
        };
        let Some(record) = image.big_data.iter().find(|data| data.name == name) else {
            return Err(damaged("the image has no such data".into()));
        };
        let driver = self.driver().word();
        let file = format!("{driver}-images/{}/{}", image.id, big_data_file(name));
        let root = self.root(image.origin);
        let bytes = match root.read(&file, BIG_DATA_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(Errno::NOENT) => return Err(damaged("its file is missing".into())),
            Err(errno) => return Err(unreadable(root, &file, errno)),
        };
        if record.size.is_some_and(|size| size != bytes.len() as u64) {
            let size = record.size.unwrap_or_default();
            return Err(damaged(format!("it has {} bytes, not {size}", bytes.len())));
        }
        let expected = record
            .digest
            .as_deref()
            .and_then(|d| d.strip_prefix("sha256:"));
        if let Some(expected) = expected
            && !is_signed_schema_1(&bytes)
        {
            let found = ring::digest::digest(&ring::digest::SHA256, &bytes);
            let found = podkeep_format::id::hex(found.as_ref());
            if found != expected {
                return Err(damaged(format!("its sha256 is {found}, not {expected}")));
            }
        }
        Ok(bytes)
    }

    fn graph_root(&self) -> &Root {
        self.root(Origin::GraphRoot)
    }

    /// Falls back to the graph root, which there always is, for an origin of another store.
    pub(super) fn root(&self, origin: Origin) -> &Root {
        let stores = &self.inner.stores;
        let found = stores.iter().find(|(other, _)| *other == origin);
        &found.unwrap_or(&stores[0]).1
    }

    /// All stores, that of `origin` first: what belongs to one layer may lie in several.
    pub(super) fn roots_from(&self, origin: Origin) -> impl Iterator<Item = &Root> {
        let others = self.inner.stores.iter();
        std::iter::once(self.root(origin)).chain(
            others
                .filter(move |(other, _)| *other != origin)
                .map(|(_, root)| root),
        )
    }

    pub(super) fn stores(&self) -> impl Iterator<Item = &Root> {
        self.inner.stores.iter().map(|(_, root)| root)
    }

    /// The ZFS data set of a layer, if the driver has such, and what it is called.
    pub(super) fn layer_data_set(
        &self,
        layer: LayerId,
    ) -> Option<(String, Result<OwnedFd, Errno>)> {
        let name = format!("{}/{layer}", self.inner.data_set.as_ref()?);
        let root = zfs::mounted(&name);
        Some((name, root))
    }

    fn list_files(&self) -> Vec<ListFile<'_>> {
        let driver = self.driver().word();
        let file = |origin, root, kind, name: &str| {
            let (folder, lock) = match kind {
                ListKind::Images => ("images", "images.lock"),
                ListKind::Layers => ("layers", "layers.lock"),
            };
            ListFile {
                origin,
                root,
                kind,
                path: format!("{driver}-{folder}/{name}"),
                lock: format!("{driver}-{folder}/{lock}"),
            }
        };
        let mut files = Vec::new();
        for (origin, root) in &self.inner.stores {
            files.push(file(*origin, root, ListKind::Images, "images.json"));
            files.push(file(*origin, root, ListKind::Layers, "layers.json"));
            let volatile = match (origin, &self.inner.run_root) {
                (Origin::GraphRoot, Some(run_root)) => run_root,
                _ => root,
            };
            files.push(file(
                *origin,
                volatile,
                ListKind::Layers,
                "volatile-layers.json",
            ));
        }
        files
    }
}

impl StoreListing {
    /// Adds what an `images.json` holds, which is called `file` in messages. `Err` is the cause
    /// why it is no list at all.
    pub fn add_images(&mut self, text: &[u8], file: &str, origin: Origin) -> Result<(), String> {
        let images = records::parse_images(text, file, origin, &mut self.not_understood)?;
        self.images.extend(images);
        Ok(())
    }

    /// Adds what a `layers.json` holds.
    pub fn add_layers(&mut self, text: &[u8], file: &str, origin: Origin) -> Result<(), String> {
        let layers = records::parse_layers(text, file, origin, &mut self.not_understood)?;
        for layer in layers {
            let present = self.layers.get(&layer.id);
            if present.is_none_or(|present| present.incomplete) {
                self.layers.insert(layer.id, layer);
            }
        }
        Ok(())
    }

    /// The layers of an image, the bottom one first.
    pub fn chain(&self, image: &StoredImage) -> Result<Vec<&StoredLayer>, StorageError> {
        match self.known_chain(image) {
            (mut chain, None) => {
                chain.reverse();
                Ok(chain)
            }
            (_, Some(error)) => Err(error),
        }
    }

    /// The layers of an image, the top one first, as far down as there are records of them, and
    /// why it ends before the bottom one.
    pub(super) fn known_chain(
        &self,
        image: &StoredImage,
    ) -> (Vec<&StoredLayer>, Option<StorageError>) {
        let mut chain = Vec::new();
        let mut met = HashSet::new();
        let mut next = image.top_layer;
        while let Some(layer) = next {
            let image = image.id;
            let Some(record) = self.layers.get(&layer) else {
                return (chain, Some(StorageError::MissingLayer { image, layer }));
            };
            if !met.insert(layer) || chain.len() == CHAIN_LAYERS_MAX {
                return (chain, Some(StorageError::EndlessChain { image, layer }));
            }
            chain.push(record);
            next = record.parent;
        }
        (chain, None)
    }
}

impl ListFile<'_> {
    /// A list that was never written is empty.
    fn read(&self) -> Result<Vec<u8>, StorageError> {
        match self.root.read(&self.path, JSON_BYTES_MAX) {
            // Podman takes an empty file, which a power cut leaves, for an empty list.
            Ok(text) if text.is_empty() => Ok(b"null".to_vec()),
            Ok(text) => Ok(text),
            Err(Errno::NOENT) => Ok(b"null".to_vec()),
            Err(errno) => Err(unreadable(self.root, &self.path, errno)),
        }
    }

    fn stamp(&self) -> Result<Stamp, StorageError> {
        let token = match self.root.read(&self.lock, TOKEN_BYTES_MAX) {
            Ok(token) => token,
            Err(Errno::NOENT) => Vec::new(),
            Err(errno) => return Err(unreadable(self.root, &self.lock, errno)),
        };
        let file = match self.root.file(&self.path) {
            Ok((file, size)) => {
                let stat = rustix::fs::fstat(&file)
                    .map_err(|errno| unreadable(self.root, &self.path, errno))?;
                Some(FileStamp {
                    ino: stat.st_ino,
                    size,
                    mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
                    ctime: (stat.st_ctime, stat.st_ctime_nsec as i64),
                })
            }
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(unreadable(self.root, &self.path, errno)),
        };
        Ok(Stamp { token, file })
    }
}

fn stamps(files: &[ListFile<'_>]) -> Result<Vec<Stamp>, StorageError> {
    files.iter().map(ListFile::stamp).collect()
}

fn listing(files: &[ListFile<'_>], texts: &[Vec<u8>]) -> Result<StoreListing, StorageError> {
    let mut listing = StoreListing::default();
    for (file, text) in files.iter().zip(texts) {
        let object = file.root.name(&file.path);
        let added = match file.kind {
            ListKind::Images => listing.add_images(text, &object, file.origin),
            ListKind::Layers => listing.add_layers(text, &object, file.origin),
        };
        added.map_err(|cause| StorageError::Unreadable {
            object,
            cause: format!("it is not understood: {cause}"),
        })?;
    }
    Ok(listing)
}

/// The file that holds a piece of big data. Podman's own test passes over the last character, so
/// a name whose only other character is its last stands as it is.
pub fn big_data_file(name: &str) -> String {
    let plain = |c: char| c == '.' || c.is_ascii_digit() || c.is_ascii_lowercase();
    let mut rest = name.chars();
    rest.next_back();
    match rest.all(plain) {
        true => name.to_owned(),
        false => format!("={}", STANDARD.encode(name)),
    }
}

/// The digest of a signed manifest of schema 1 leaves out its signatures.
pub(super) fn is_signed_schema_1(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        schema_version: u32,
        signatures: serde::de::IgnoredAny,
    }
    serde_json::from_slice::<Manifest>(bytes).is_ok_and(|manifest| {
        let serde::de::IgnoredAny = manifest.signatures;
        manifest.schema_version == 1
    })
}

fn unreadable(root: &Root, below: &str, errno: Errno) -> StorageError {
    StorageError::Unreadable {
        object: root.name(below),
        cause: cause_of(errno),
    }
}
