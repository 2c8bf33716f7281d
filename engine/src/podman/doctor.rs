//! Looking a store over: is everything there that its images need, and is it what it was?
//!
//! Damage of one layer hits every image that has it, so layers are looked at once, whoever needs
//! them. Nothing is changed, and no lock is taken: what vanishes meanwhile was removed by Podman
//! and is no damage.

use std::collections::{BTreeMap, HashSet};

use super::layer::{COMPOSEFS_FOLDER, LayerError, LayerEvent, LayerReader, NotExact};
use super::storage::{
    ImageId, LayerId, NotUnderstood, Origin, Root, Storage, StorageDriver, StorageError,
    StoreListing, StoredImage, StoredLayer, cause_of,
};

/// Bytes of an overlay layer's `link`: Podman writes 26.
pub(super) const LINK_BYTES_MAX: usize = 256;
/// Bytes of its `lower`: 29 for each of at most 500 layers.
pub(super) const LOWER_BYTES_MAX: usize = 64 << 10;

/// What a fault is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Image(ImageId),
    Layer(LayerId),
}

/// What puts a fault right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Putting the layer's files back where they are (`restore --repair-layers`).
    RepairLayer,
    /// Restoring the image over what is there.
    Restore,
    /// Removing the image, so that Podman forgets the layer, and restoring it.
    RemoveAndRestore,
    /// Nothing has to be done: it is only worth knowing.
    None,
}

/// Something of a store that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub subject: Subject,
    /// The first file that is not right, as the layer's tar names it.
    pub path: Option<Vec<u8>>,
    /// In words.
    pub cause: String,
    pub remedy: Remedy,
}

/// A look at the lists of a store, and at what its own images need. Images of additional stores,
/// which Podman only reads, are left out.
pub struct Doctor {
    storage: Storage,
    listing: StoreListing,
    images: Vec<StoredImage>,
    /// Each layer that an image needs and of which there is a record, with those images.
    needed: BTreeMap<LayerId, Vec<ImageId>>,
    /// What the lists alone tell.
    listed_faults: Vec<Fault>,
}

impl Doctor {
    pub fn new(storage: Storage) -> Result<Self, StorageError> {
        let listing = storage.read()?;
        let mut met = HashSet::new();
        let own = listing
            .images
            .iter()
            .filter(|image| !matches!(image.origin, Origin::Additional(_)));
        let images: Vec<StoredImage> = own.filter(|image| met.insert(image.id)).cloned().collect();
        let mut needed: BTreeMap<LayerId, Vec<ImageId>> = BTreeMap::new();
        let mut listed_faults = Vec::new();
        for image in &images {
            let (layers, broken) = listing.known_chain(image);
            for layer in layers {
                needed.entry(layer.id).or_default().push(image.id);
            }
            let Some(error) = broken else { continue };
            let subject = match &error {
                StorageError::MissingLayer { layer, .. } => Subject::Layer(*layer),
                _ => Subject::Image(image.id),
            };
            listed_faults.push(Fault {
                subject,
                path: None,
                cause: match subject {
                    Subject::Layer(_) => "the store has no record of it".into(),
                    Subject::Image(_) => error.to_string(),
                },
                remedy: Remedy::RemoveAndRestore,
            });
            if let Subject::Layer(layer) = subject {
                needed.entry(layer).or_default().push(image.id);
            }
        }
        listed_faults.dedup();
        Ok(Self {
            storage,
            listing,
            images,
            needed,
            listed_faults,
        })
    }

    pub fn images(&self) -> &[StoredImage] {
        &self.images
    }

    /// Layers that images need and of which there is a record.
    pub fn layers(&self) -> impl Iterator<Item = &StoredLayer> {
        let records = &self.listing.layers;
        self.needed.keys().filter_map(|id| records.get(id))
    }

    /// The images that a fault hits.
    pub fn images_of(&self, subject: Subject) -> Vec<&StoredImage> {
        let hit = |image: &&StoredImage| match subject {
            Subject::Image(id) => image.id == id,
            Subject::Layer(layer) => self
                .needed
                .get(&layer)
                .is_some_and(|images| images.contains(&image.id)),
        };
        self.images.iter().filter(hit).collect()
    }

    /// Entries of the lists that nobody understands.
    pub fn not_understood(&self) -> &[NotUnderstood] {
        &self.listing.not_understood
    }

    /// Layers of which there is no record, and images whose layers have no end.
    pub fn list_faults(&self) -> &[Fault] {
        &self.listed_faults
    }

    /// Compares the big data of an image with what its record says.
    pub fn image_faults(&self, image: &StoredImage) -> Vec<Fault> {
        let pieces = image.big_data.iter();
        pieces
            .filter_map(|piece| self.storage.big_data(image, &piece.name).err())
            .map(|error| Fault {
                subject: Subject::Image(image.id),
                path: None,
                cause: error.to_string(),
                remedy: Remedy::Restore,
            })
            .collect()
    }

    /// Reads a layer from its first byte to its last. `read` is told the bytes as they come, and
    /// ends it by saying false: `None`.
    pub fn layer_faults(
        &self,
        layer: &StoredLayer,
        read: &mut dyn FnMut(u64) -> bool,
    ) -> Option<Vec<Fault>> {
        if layer.incomplete {
            let cause = "the store marks it as incomplete, so that Podman will remove it";
            return Some(vec![fault(layer.id, cause, Remedy::RemoveAndRestore)]);
        }
        let mut faults = match self.storage.driver() {
            StorageDriver::Overlay => overlay_faults(&self.storage, layer),
            _ => Vec::new(),
        };
        match self.content_fault(layer, read) {
            Ok(fault) => faults.extend(fault),
            Err(Stopped) => return None,
        }
        Some(faults)
    }

    fn content_fault(
        &self,
        layer: &StoredLayer,
        read: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Fault>, Stopped> {
        let mut reader = match LayerReader::open(&self.storage, &self.listing, layer) {
            Ok(reader) => reader,
            Err(error) => return Ok(self.fault_of(layer, error)),
        };
        loop {
            let len = match reader.next_event() {
                Ok(LayerEvent::Literal(bytes) | LayerEvent::Bytes(bytes)) => bytes.len() as u64,
                Ok(LayerEvent::Payload { .. }) => 0,
                Ok(LayerEvent::End(_)) => return Ok(None),
                Err(error) => return Ok(self.fault_of(layer, error)),
            };
            if !read(len) {
                return Err(Stopped);
            }
        }
    }

    fn fault_of(&self, layer: &StoredLayer, error: LayerError) -> Option<Fault> {
        let (path, cause, remedy) = match error {
            LayerError::Gone { .. } => return None,
            LayerError::NotExact {
                cause: NotExact::NoTarSplit,
                ..
            } => {
                let cause = "its tar-split is missing, without which it cannot be saved";
                (None, cause.to_owned(), repair(&self.storage, layer))
            }
            LayerError::NotExact { cause, .. } => {
                let cause = format!("it cannot be checked: {cause}");
                (None, cause, Remedy::None)
            }
            LayerError::Damaged { path, cause, .. } => (path, cause, repair(&self.storage, layer)),
            error @ (LayerError::Unreadable { .. } | LayerError::Storage(_)) => {
                (None, error.to_string(), Remedy::RepairLayer)
            }
        };
        Some(Fault {
            subject: Subject::Layer(layer.id),
            path,
            cause,
            remedy,
        })
    }
}

/// Whoever asked does not want to know any more.
struct Stopped;

fn fault(layer: LayerId, cause: impl Into<String>, remedy: Remedy) -> Fault {
    Fault {
        subject: Subject::Layer(layer),
        path: None,
        cause: cause.into(),
        remedy,
    }
}

/// The directory that a layer's files are unpacked into, below a store's root.
pub(super) fn content_folder(driver: StorageDriver, layer: LayerId) -> String {
    let folder = driver.layer_folder(layer);
    match driver {
        StorageDriver::Overlay => format!("{folder}/diff"),
        _ => folder,
    }
}

/// The store in which a layer's files are.
pub(super) fn content_root<'s>(storage: &'s Storage, layer: &StoredLayer) -> Option<&'s Root> {
    let folder = content_folder(storage.driver(), layer.id);
    let mut roots = storage.roots_from(layer.origin);
    roots.find(|root| root.directory(&folder).is_ok())
}

/// What puts right a layer whose record is sound. A repair needs its directory, with its files under their
/// names.
fn repair(storage: &Storage, layer: &StoredLayer) -> Remedy {
    let driver = storage.driver();
    let objects = format!("{}/{COMPOSEFS_FOLDER}", driver.layer_folder(layer.id));
    let can_be_repaired = driver != StorageDriver::Zfs
        && content_root(storage, layer).is_some_and(|root| root.exists(&objects) == Ok(false));
    match can_be_repaired {
        true => Remedy::RepairLayer,
        false => Remedy::RemoveAndRestore,
    }
}

/// What the overlay driver keeps of a layer besides its files, and mounts it by.
fn overlay_faults(storage: &Storage, layer: &StoredLayer) -> Vec<Fault> {
    // Without a directory there is a graver fault, and reading the layer tells it.
    let Some(root) = content_root(storage, layer) else {
        return Vec::new();
    };
    let folder = storage.driver().layer_folder(layer.id);
    let mut faults = Vec::new();
    let mut look = |name: &str, bytes_max| match root.read(&format!("{folder}/{name}"), bytes_max) {
        Ok(text) if !text.trim_ascii().is_empty() => Some(text.trim_ascii().to_vec()),
        found => {
            let cause = match found {
                Ok(_) => "is empty".to_owned(),
                Err(rustix::io::Errno::NOENT) => "is missing".to_owned(),
                Err(errno) => format!("cannot be read: {}", cause_of(errno)),
            };
            let cause = format!("its file '{name}', which the overlay driver needs, {cause}");
            faults.push(fault(layer.id, cause, Remedy::RepairLayer));
            None
        }
    };
    let link = look("link", LINK_BYTES_MAX);
    if layer.parent.is_some() {
        look("lower", LOWER_BYTES_MAX);
    }
    if let Some(link) = link.as_deref().and_then(|link| str::from_utf8(link).ok())
        && !link.contains('/')
        && root.link(&format!("overlay/l/{link}")).is_err()
    {
        let cause = format!("its link 'l/{link}' is missing; Podman makes it again");
        faults.push(fault(layer.id, cause, Remedy::None));
    }
    faults
}
