//! Images of the host that this process runs on: read straight from containers/storage, and
//! brought back through Podman.
//!
//! An image that comes back is written beside the store first, as the tree that the snapshot has
//! of it, without the layers that the store holds already. Podman loads it, and then it gets its
//! identity back. Until that last step it has no name, so that nobody takes it for the image that
//! it is to become; a restore that is cut off before is recognised by its mark, and done again.

mod mark;
pub(super) mod recipe;
pub(super) mod scan;
mod stored;
mod writer;

use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use podkeep_format::id::DiffId;
use podkeep_format::item::{Escaped, Item};

use super::lock::{ItemLock, make_private};
use super::made_tree::MadeTreeWriter;
use super::volume::{finding, not_here};
use super::{Existing, HostError, ImageFacts, OpenItem, PlacePlan, ScanRequest, WriteRequest};
use crate::fs::write::{self, Destination, Labels, RootKind, Swap, WriteSpec};
use crate::fs::{FsError, FsErrorKind, TreeWriter};
use crate::monitor::{Finding, FindingKind};
use crate::podman::{
    Before, ChangedLayer, ImageDefinition, ImageRecords, LAYERS_FOLDER, LayerDefinition,
    LayerError, Origin, Podman, Storage, StoragePlaces, StoreListing, StoredImage, StoredLayer,
    big_data_entry, diff_ids, layer_file, push_image, substitute,
};

use self::mark::Mark;
use self::scan::ImageSpec;
use self::stored::{NotExactLayers, StoredLayers, Way};
use self::writer::{ImageArrival, StagedImages, shape_of};

/// Below the state folder: trees of images on their way into the store.
const STAGING_FOLDER: &str = "images";

/// The images of one Podman.
pub(super) struct Images {
    podman: Podman,
    staged: StagedImages,
    /// Asked for once: a run restores many images.
    places: OnceLock<StoragePlaces>,
    /// As the last inventory found them: one run reads many.
    known: Mutex<Option<Arc<Known>>>,
    not_exact: NotExactLayers,
}

/// A look at the store.
struct Known {
    storage: Storage,
    listing: Arc<StoreListing>,
    /// Where in the listing the image of an item is.
    by_item: HashMap<Item, usize>,
}

impl Images {
    pub fn new(podman: Podman, state: PathBuf) -> Self {
        Self {
            podman,
            staged: StagedImages(state.join(STAGING_FOLDER)),
            places: OnceLock::new(),
            known: Mutex::default(),
            not_exact: NotExactLayers::default(),
        }
    }

    /// What is in the store, and findings about what of it is not understood.
    pub fn inventory(
        &self,
        places: &StoragePlaces,
    ) -> Result<(Vec<ImageFacts>, Vec<Finding>), HostError> {
        let known = Arc::new(look(places)?);
        let mut facts: Vec<ImageFacts> = Vec::new();
        for (item, index) in &known.by_item {
            let mut image = facts_of(&known.listing.images[*index], &known.listing);
            if image.item() != *item {
                image.names.clear();
            }
            facts.push(image);
        }
        facts.sort_by_cached_key(ImageFacts::item);
        let findings = known.listing.not_understood.iter().map(|entry| Finding {
            object: entry.object.clone(),
            kind: FindingKind::Unreadable,
            snapshots: Vec::new(),
            paths: Vec::new(),
            message: format!("it is not understood: {}", entry.cause),
        });
        let findings = findings.collect();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok((facts, findings))
    }

    fn known(&self) -> Result<Arc<Known>, HostError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref() {
            return Ok(Arc::clone(known));
        }
        drop(known);
        Ok(Arc::new(look(self.places()?)?))
    }

    fn places(&self) -> Result<&StoragePlaces, HostError> {
        if let Some(places) = self.places.get() {
            return Ok(places);
        }
        let info = self.podman.info()?;
        let places = info.places.ok_or_else(|| HostError::Podman {
            action: "use",
            object: "Podman's store".into(),
            cause: format!("its driver {} is not one that podkeep knows", info.driver),
        })?;
        Ok(self.places.get_or_init(|| places))
    }

    /// Where Podman keeps what does not outlast the machine's run.
    pub fn run_root(&self) -> Result<PathBuf, HostError> {
        Ok(self.places()?.run_root.clone())
    }

    /// The store, opened anew.
    pub fn storage(&self) -> Result<Storage, HostError> {
        Storage::new(self.places()?).map_err(|error| HostError::Podman {
            action: "open",
            object: "Podman's store".into(),
            cause: error.to_string(),
        })
    }

    /// The image's definition, and its tree.
    pub fn read(&self, request: &ScanRequest) -> Result<OpenItem, HostError> {
        let item = &request.item;
        let known = self.known()?;
        let Some(image) = known.by_item.get(item).map(|at| &known.listing.images[*at]) else {
            return Err(not_here(item));
        };
        let failed = |cause: &dyn std::fmt::Display| HostError::Podman {
            action: "read",
            object: item.to_string(),
            cause: cause.to_string(),
        };
        let chain = known.listing.chain(image).map_err(|error| failed(&error))?;
        let mut pieces = Vec::new();
        for piece in &image.big_data {
            let bytes = known.storage.big_data(image, &piece.name);
            pieces.push((piece.name.clone(), bytes.map_err(|error| failed(&error))?));
        }
        let own_key = format!("sha256:{}", image.id);
        let config = pieces.iter().find(|(key, _)| *key == own_key);
        let has_own_id = chain.is_empty() || config.is_some();
        let config = config.or_else(|| pieces.iter().find(|(key, _)| key.starts_with("sha256:")));
        let told = config.and_then(|(_, config)| diff_ids(config));
        let mut source = StoredLayers {
            storage: known.storage.clone(),
            listing: Arc::clone(&known.listing),
            layers: Vec::new(),
            not_exact: Arc::clone(&self.not_exact),
        };
        let mut layers = Vec::new();
        for (number, layer) in chain.into_iter().enumerate() {
            let mut layer = layer.clone();
            if layer.diff_id.or(layer.expected_diff_id).is_none() {
                // Of a layer that was pulled in parts by an old version, only the image tells.
                let told = told.as_ref().and_then(|told| told.get(number));
                layer.expected_diff_id = told.copied();
            }
            let diff_id = layer.diff_id.or(layer.expected_diff_id);
            let mut layers_known = request.known_layers.iter();
            let is_known = layers_known.any(|known| Some(known.diff_id) == diff_id);
            let way = source.way(&layer, is_known);
            source
                .layers
                .push(way.map_err(|error| read_error(item, error))?);
            layers.push(layer);
        }
        let definition = definition_of(image, &layers, &source.layers, request, &failed)?;
        let is_exact = has_own_id
            && definition
                .layers
                .iter()
                .all(|layer| layer.changed.is_none());
        let (definition, pieces, original) = match is_exact {
            true => (definition, pieces, Vec::new()),
            false => {
                let substituted = substitute(definition, &pieces);
                let (definition, new) = substituted.map_err(|cause| failed(&cause))?;
                let original = if new == pieces { Vec::new() } else { pieces };
                (definition, new, original)
            }
        };
        let findings = changes(&definition).map(|message| {
            finding(
                item,
                FindingKind::NotExact,
                format!("saved as another image: {message}"),
            )
        });
        let findings = findings.into_iter().collect();
        let diff_ids = definition
            .layers
            .iter()
            .filter_map(LayerDefinition::diff_id);
        let diff_ids = diff_ids.collect();
        let definition = definition.encode();
        ImageDefinition::decode(&definition).map_err(|cause| failed(&cause))?;
        let files = |pieces: Vec<(String, Vec<u8>)>| {
            let pieces = pieces.into_iter();
            let pieces = pieces.map(|(key, bytes)| (big_data_entry(&key), bytes));
            pieces.collect()
        };
        let tree = scan::scan(ImageSpec {
            item: item.to_string(),
            chunking: Arc::clone(&request.chunking),
            threads: request.threads,
            layers: diff_ids,
            source: Box::new(source),
            big_data: files(pieces),
            original: files(original),
            known: request.known_layers.clone(),
        })?;
        Ok(OpenItem {
            definition: Some(definition),
            tree: Some(tree),
            findings,
        })
    }

    /// Changes nothing.
    pub fn plan(
        &self,
        request: &WriteRequest,
        item: &Item,
        definition: Option<&[u8]>,
    ) -> Result<PlacePlan, HostError> {
        let wanted = decode(item, definition)?;
        let known = look(self.places()?)?;
        let there = own_image(&known.listing, &wanted.id);
        let present = present_layers(&wanted, &known.listing);
        let name = Escaped(&item.name);
        let mut actions = vec![match (there, self.is_marked(&wanted.id)) {
            (Some(_), false) => format!("complete image {name}"),
            _ => format!("create image {name}{}", layers_text(&wanted, present.len())),
        }];
        if let Some(was) = &wanted.original {
            let (is, was) = (&wanted.id[..12], &was.id[..12]);
            actions.push(format!(
                "  it is image {is}, which was {was} where it was saved"
            ));
        }
        for (name, owner) in taken_names(&wanted, &known.listing) {
            let owner = &owner[..12];
            actions.push(match request.retag {
                true => format!("move the name {name} here from image {owner}"),
                false => format!("leave the name {name} with image {owner} (--retag moves it)"),
            });
        }
        let skip = match there {
            Some(_) => (0..wanted.layers.len()).collect(),
            None => present,
        };
        // What is expected is all of the image: where a part of it is here, it says nothing.
        let room = match skip.is_empty() {
            true => write::room(&self.staging(&wanted.id), Existing::Replace),
            false => None,
        };
        Ok(PlacePlan {
            actions,
            conflicts: Vec::new(),
            room,
            owners: None,
            used_by_running: Vec::new(),
            present: skip
                .into_iter()
                .filter_map(|number: usize| layer_path(&wanted, number))
                .collect(),
        })
    }

    /// Prepares the staging of an image.
    pub fn write(
        &self,
        request: &WriteRequest,
        item: &Item,
        definition: Option<&[u8]>,
        lock: ItemLock,
    ) -> Result<Box<dyn TreeWriter>, HostError> {
        let wanted = decode(item, definition)?;
        let places = self.places()?;
        let known = look(places)?;
        self.staging_folder()?;
        let is_there = own_image(&known.listing, &wanted.id).is_some();
        let (before, mark) = match is_there && !self.is_marked(&wanted.id) {
            true => (Before::Present, None),
            false => {
                let path = self.staged.mark_of(&wanted.id);
                let mark = Mark::make(path, &wanted.id, places)?;
                (Before::Loaded, Some(mark))
            }
        };
        let tree = write::open(WriteSpec {
            object: item.to_string(),
            destination: self.staging(&wanted.id),
            root_kind: RootKind::Directory,
            existing: Existing::Replace,
            swap: Swap::Exchange,
            chunking: Arc::clone(&request.chunking),
            threads: request.threads,
            root: request.root,
            labels: Labels::default(),
            bytes_expected: None,
        })?;
        let images = format!("{}-images", places.driver.word());
        let store = places.image_store.as_ref().unwrap_or(&places.graph_root);
        Ok(Box::new(MadeTreeWriter {
            item: item.clone(),
            tree,
            shape: shape_of(&wanted),
            arrival: ImageArrival {
                podman: self.podman.clone(),
                images: self.staged.clone(),
                is_there,
                definition: wanted,
                records: ImageRecords::new(store.join(images)).of_user(self.podman.user()),
                before,
                mark,
                retag: request.retag,
            },
            _lock: lock,
        }))
    }

    /// The folder of images on their way, made if need be.
    pub fn staging_folder(&self) -> Result<PathBuf, HostError> {
        let folder = &self.staged.0;
        make_private(folder).map_err(|error| {
            let path = folder.as_os_str().as_bytes();
            FsError::new("make", path, FsErrorKind::Other, error)
        })?;
        Ok(folder.clone())
    }

    /// Pushes the image of a layout.
    pub fn push(&self, layout: &Path, id: &str, reference: &str) -> Result<String, HostError> {
        let known = look(self.places()?)?;
        let is_here = own_image(&known.listing, id).is_some();
        Ok(push_image(&self.podman, layout, id, is_here, reference)?)
    }

    /// Where an image's tree is put together.
    fn staging(&self, id: &str) -> Destination {
        Destination {
            parent: self.staged.0.as_os_str().as_bytes().to_vec(),
            name: id.as_bytes().to_vec(),
        }
    }

    fn is_marked(&self, id: &str) -> bool {
        self.staged.mark_of(id).exists()
    }
}

fn look(places: &StoragePlaces) -> Result<Known, HostError> {
    let failed = |error: crate::podman::StorageError| HostError::Podman {
        action: "list",
        object: "images".into(),
        cause: error.to_string(),
    };
    let storage = Storage::new(places).map_err(failed)?;
    let listing = Arc::new(storage.read().map_err(failed)?);
    let mut by_item = HashMap::new();
    let mut met = BTreeSet::new();
    for (index, image) in listing.images.iter().enumerate() {
        // An image that lies in several stores is one image, and the first is Podman's own.
        if met.insert(image.id) {
            let facts = facts_of(image, &listing);
            let mut item = facts.item();
            if by_item.contains_key(&item) {
                // An additional store may have another image of that name.
                item = facts.by_id();
            }
            by_item.insert(item, index);
        }
    }
    Ok(Known {
        storage,
        listing,
        by_item,
    })
}

fn facts_of(image: &StoredImage, listing: &StoreListing) -> ImageFacts {
    let chain = listing.chain(image).unwrap_or_default();
    ImageFacts {
        bytes: chain.iter().filter_map(|layer| layer.diff_size).sum(),
        id: image.id.to_hex(),
        names: image.names.clone(),
        layers: chain
            .into_iter()
            .filter_map(|layer| layer.diff_id.or(layer.expected_diff_id))
            .collect(),
        external: matches!(image.origin, Origin::Additional(_)),
    }
}

/// Of the image as it is, but with the layers as they are saved.
fn definition_of(
    image: &StoredImage,
    layers: &[StoredLayer],
    ways: &[Way],
    request: &ScanRequest,
    failed: &dyn Fn(&dyn std::fmt::Display) -> HostError,
) -> Result<ImageDefinition, HostError> {
    let entry = serde_json::from_str(&image.entry).map_err(|error| failed(&error))?;
    let layers = layers.iter().zip(ways).map(|(layer, way)| {
        let (diff_id, size, changed) = match way {
            Way::Exact(_) => {
                let diff_id = layer.diff_id.or(layer.expected_diff_id);
                let mut known = request.known_layers.iter();
                let known = known.find(|known| Some(known.diff_id) == diff_id);
                (
                    diff_id,
                    layer.diff_size.or(known.map(|known| known.size)),
                    None,
                )
            }
            Way::Own {
                end,
                cause,
                diff_id,
                ..
            } => {
                let changed = ChangedLayer {
                    diff_id: diff_id.map(|id| id.to_hex()),
                    cause: cause.to_string(),
                };
                (Some(end.diff_id), Some(end.size), Some(changed))
            }
        };
        let known = |what: &str| {
            failed(&format_args!(
                "the {what} of layer {} is not known",
                layer.id
            ))
        };
        let blob = layer
            .compressed_digest
            .clone()
            .filter(|_| changed.is_none());
        Ok(LayerDefinition {
            diff_id: diff_id.ok_or_else(|| known("digest"))?.to_hex(),
            size: size.ok_or_else(|| known("size"))?,
            compressed_size: layer.compressed_size.filter(|_| blob.is_some()),
            compressed_digest: blob,
            changed,
        })
    });
    let layers = layers.collect::<Result<Vec<_>, HostError>>()?;
    Ok(ImageDefinition::new(&image.id.to_hex(), entry, layers))
}

/// What a layer's failure is to whoever reads its image.
fn read_error(item: &Item, error: LayerError) -> HostError {
    let failure = scan::LayerFailure::from(error);
    let kind = match failure.kind {
        FsErrorKind::NotExact => FsErrorKind::Other,
        kind => kind,
    };
    FsError::new("read", item.to_string().as_bytes(), kind, failure.cause).into()
}

/// How an image differs from what it was, in words. `None`: it does not.
fn changes(definition: &ImageDefinition) -> Option<String> {
    let original = definition.original.as_ref()?;
    let mut parts = vec![format!(
        "its ID is {}, and was {}",
        definition.id, original.id
    )];
    let was = original
        .entry
        .get("digest")
        .and_then(|digest| digest.as_str());
    if let (Some(is), Some(was)) = (definition.digest(), was)
        && is != was
    {
        parts.push(format!("its digest is {is}, and was {was}"));
    }
    for (number, layer) in definition.layers.iter().enumerate() {
        if let Some(changed) = &layer.changed {
            let was = match &changed.diff_id {
                Some(was) => format!("was sha256:{was}"),
                None => "is not known".into(),
            };
            let (is, cause) = (&layer.diff_id, &changed.cause);
            parts.push(format!(
                "layer {number} has the same files in another tar (DiffID sha256:{is}; its own {was}): \
                 {cause}"
            ));
        }
    }
    if definition
        .layers
        .iter()
        .all(|layer| layer.changed.is_none())
    {
        parts.push(
            "a layer was known by its table of contents only, and Podman made the ID of that"
                .into(),
        );
    }
    Some(parts.join("; "))
}

fn decode(item: &Item, definition: Option<&[u8]>) -> Result<ImageDefinition, HostError> {
    let failed = |cause: String| HostError::Podman {
        action: "read the definition of",
        object: item.to_string(),
        cause,
    };
    let bytes = definition.ok_or_else(|| failed("the snapshot does not hold it".into()))?;
    let definition = ImageDefinition::decode(bytes).map_err(failed)?;
    let name = str::from_utf8(&item.name).map_err(|_| not_here(item))?;
    Ok(definition.under(name))
}

/// The image with this ID in Podman's own store.
fn own_image<'l>(listing: &'l StoreListing, id: &str) -> Option<&'l StoredImage> {
    let own = |image: &&StoredImage| !matches!(image.origin, Origin::Additional(_));
    let mut images = listing.images.iter().filter(own);
    images.find(|image| image.id.to_hex() == id)
}

/// Numbers of the layers that Podman will find in its own store by their DiffID.
fn present_layers(wanted: &ImageDefinition, listing: &StoreListing) -> Vec<usize> {
    let here: BTreeSet<DiffId> = listing
        .layers
        .values()
        .filter(|layer| !layer.incomplete && !matches!(layer.origin, Origin::Additional(_)))
        .filter_map(|layer| layer.diff_id)
        .collect();
    let numbers = wanted.layers.iter().enumerate();
    numbers
        .filter(|(_, layer)| layer.diff_id().is_some_and(|id| here.contains(&id)))
        .map(|(number, _)| number)
        .collect()
}

fn layer_path(wanted: &ImageDefinition, number: usize) -> Option<Vec<u8>> {
    let diff_id = wanted.layers.get(number)?.diff_id()?;
    let file = layer_file(number, &diff_id);
    Some(format!("{LAYERS_FOLDER}/{file}").into_bytes())
}

/// How much of an image must be written.
fn layers_text(wanted: &ImageDefinition, present: usize) -> String {
    match (wanted.layers.len(), present) {
        (0, _) => String::new(),
        (1, 0) => " (1 layer)".into(),
        (all, 0) => format!(" ({all} layers)"),
        (all, present) => format!(" ({all} layers, {present} already there)"),
    }
}

/// Names of the snapshot's image that another image has here, with that image's ID.
fn taken_names(wanted: &ImageDefinition, listing: &StoreListing) -> Vec<(String, String)> {
    let others = listing
        .images
        .iter()
        .filter(|image| image.id.to_hex() != wanted.id)
        .filter(|image| !matches!(image.origin, Origin::Additional(_)));
    let names = others.flat_map(|image| image.names.iter().map(|name| (name, image.id.to_hex())));
    names
        .filter(|(name, _)| wanted.names().any(|wanted| wanted == *name))
        .map(|(name, id)| (name.clone(), id))
        .collect()
}
