//! Images of the host that this process runs on: read straight from containers/storage, and
//! brought back through Podman.
//!
//! An image that comes back is written beside the store first, as the tree that the snapshot has
//! of it, without the layers that the store holds already. Podman loads it, and then it gets its
//! identity back. Until that last step it has no name, so that nobody takes it for the image that
//! it is to become; a restore that is cut off before is recognised by its mark, and done again.

mod mark;
mod recipe;
pub(super) mod scan;
mod stored;

use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use podkeep_format::id::DiffId;
use podkeep_format::item::{Escaped, Item};
use podkeep_format::tree::Entry;

use super::lock::{ItemLock, make_private};
use super::volume::{finding, not_here};
use super::{Existing, HostError, ImageFacts, OpenItem, PlacePlan, ScanRequest, WriteRequest};
use crate::fs::write::{self, Destination, Labels, RootKind, Swap, WriteSpec};
use crate::fs::{
    DirectoryNumber, FsError, FsErrorKind, PresentQuery, TreeWriter, WriteBatch, WriteOutcome,
    WriteStep,
};
use crate::monitor::{Finding, FindingKind};
use crate::podman::{
    Adoption, BIG_DATA_FOLDER, Before, ImageDefinition, ImageRecords, LAYERS_FOLDER,
    LayerDefinition, Origin, Podman, Storage, StoragePlaces, StoreListing, StoredImage,
    StoredLayer, big_data_entry, inspect_image, layer_file, load_image,
};

use self::mark::Mark;
use self::scan::ImageSpec;
use self::stored::StoredLayers;

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
        let mut layers = Vec::new();
        for layer in chain {
            let Some(diff_id) = layer.diff_id.or(layer.expected_diff_id) else {
                let id = layer.id;
                return Err(failed(&format_args!(
                    "its layer {id} is known by its table of contents only, so that nobody can \
                     tell whether a copy of it is exact"
                )));
            };
            layers.push((diff_id, layer.clone()));
        }
        let config = format!("sha256:{}", image.id);
        if !layers.is_empty() && !image.big_data.iter().any(|piece| piece.name == config) {
            return Err(failed(&format_args!(
                "its ID is not the digest of its configuration (a layer was known by its table of \
                 contents only), and Podman would give it another ID"
            )));
        }
        let mut big_data = Vec::new();
        for piece in &image.big_data {
            let bytes = known.storage.big_data(image, &piece.name);
            let bytes = bytes.map_err(|error| failed(&error))?;
            big_data.push((big_data_entry(&piece.name), bytes));
        }
        let definition = definition_of(image, &layers, &request.known_layers, &failed)?.encode();
        ImageDefinition::decode(&definition).map_err(|cause| failed(&cause))?;
        let tree = scan::scan(ImageSpec {
            item: item.to_string(),
            chunking: Arc::clone(&request.chunking),
            threads: request.threads,
            layers: layers.iter().map(|(diff_id, _)| *diff_id).collect(),
            source: Box::new(StoredLayers {
                storage: known.storage.clone(),
                listing: Arc::clone(&known.listing),
                layers: layers.into_iter().map(|(_, layer)| layer).collect(),
            }),
            big_data,
            known: request.known_layers.clone(),
        })?;
        Ok(OpenItem {
            definition: Some(definition),
            tree: Some(tree),
            findings: Vec::new(),
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
        let folder = &self.staged.0;
        make_private(folder).map_err(|error| {
            let path = folder.as_os_str().as_bytes();
            FsError::new("make", path, FsErrorKind::Other, error)
        })?;
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
        Ok(Box::new(ImageWriter {
            podman: self.podman.clone(),
            item: item.clone(),
            tree,
            shape: Shape::of(&wanted),
            images: self.staged.clone(),
            is_there,
            definition: wanted,
            records: ImageRecords::new(store.join(images)),
            before,
            mark,
            retag: request.retag,
            _lock: lock,
        }))
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
        id: image.id.to_hex(),
        names: image.names.clone(),
        layers: chain
            .into_iter()
            .filter_map(|layer| layer.diff_id.or(layer.expected_diff_id))
            .collect(),
        external: matches!(image.origin, Origin::Additional(_)),
    }
}

fn definition_of(
    image: &StoredImage,
    layers: &[(DiffId, StoredLayer)],
    known: &[super::KnownLayer],
    failed: &dyn Fn(&dyn std::fmt::Display) -> HostError,
) -> Result<ImageDefinition, HostError> {
    let entry = serde_json::from_str(&image.entry).map_err(|error| failed(&error))?;
    let layers = layers.iter().map(|(diff_id, layer)| {
        let known = known.iter().find(|known| known.diff_id == *diff_id);
        let size = layer.diff_size.or(known.map(|known| known.size));
        Ok(LayerDefinition {
            diff_id: diff_id.to_hex(),
            size: size.ok_or_else(|| {
                failed(&format_args!("the size of layer {} is not known", layer.id))
            })?,
            compressed_digest: layer.compressed_digest.clone(),
            compressed_size: layer.compressed_size,
        })
    });
    let layers = layers.collect::<Result<Vec<_>, HostError>>()?;
    Ok(ImageDefinition::new(&image.id.to_hex(), entry, layers))
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

/// The folder of images on their way into the store; nobody else may enter it.
#[derive(Clone)]
struct StagedImages(PathBuf);

impl StagedImages {
    /// Where the tree is when it is whole.
    fn folder_of(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Where Podman loads it from.
    fn layout_of(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.layout"))
    }

    /// A mark says that an image in the store was put there by a restore that did not end.
    fn mark_of(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.loading"))
    }
}

/// Removes what a restore that ended, well or not, has no use for any more.
struct TidyUp<'i> {
    images: &'i StagedImages,
    id: &'i str,
}

impl Drop for TidyUp<'_> {
    fn drop(&mut self) {
        // What cannot be removed only takes room; the next restore of the image clears it away.
        let _ = std::fs::remove_dir_all(self.images.folder_of(self.id));
        let _ = std::fs::remove_dir_all(self.images.layout_of(self.id));
    }
}

/// What the tree of an image has, and nothing else may have: two folders with plain files of
/// known names. Later steps go by paths in it.
struct Shape {
    files: [BTreeSet<Vec<u8>>; 2],
    /// Numbers of the two folders, once they were made.
    folders: [Option<DirectoryNumber>; 2],
}

impl Shape {
    const FOLDERS: [&str; 2] = [BIG_DATA_FOLDER, LAYERS_FOLDER];

    fn of(definition: &ImageDefinition) -> Self {
        let pieces = definition.big_data();
        let layers = definition.layers.iter().enumerate();
        Self {
            files: [
                pieces
                    .map(|piece| big_data_entry(piece.key).into_bytes())
                    .collect(),
                layers
                    .filter_map(|(number, layer)| Some(layer_file(number, &layer.diff_id()?)))
                    .map(String::into_bytes)
                    .collect(),
            ],
            folders: [None; 2],
        }
    }

    fn allows(&mut self, step: &WriteStep) -> bool {
        match step {
            WriteStep::Directory {
                number: 0, entry, ..
            } => is_plain(entry),
            WriteStep::Directory {
                number,
                parent: 0,
                entry,
            } => {
                let mut names = Self::FOLDERS.iter();
                match names.position(|name| name.as_bytes() == entry.name) {
                    Some(index) if is_plain(entry) => {
                        self.folders[index] = Some(*number);
                        true
                    }
                    _ => false,
                }
            }
            WriteStep::File { parent, entry, .. } | WriteStep::FileDrop { parent, entry, .. } => {
                let folder = self
                    .folders
                    .iter()
                    .position(|folder| *folder == Some(*parent));
                folder.is_some_and(|folder| self.files[folder].contains(&entry.name))
                    && is_plain(entry)
            }
            WriteStep::DirectoryEnd { .. } => true,
            WriteStep::Directory { .. } | WriteStep::Node { .. } | WriteStep::Link { .. } => false,
        }
    }
}

/// Whether an entry has no attribute that could get in the way of those who use it.
fn is_plain(entry: &Entry) -> bool {
    entry.xattrs.is_empty() && entry.inode_flags == 0 && entry.project == 0 && entry.link.is_none()
}

/// An image on its way into the store.
struct ImageWriter {
    podman: Podman,
    item: Item,
    tree: Box<dyn TreeWriter>,
    shape: Shape,
    images: StagedImages,
    is_there: bool,
    definition: ImageDefinition,
    records: ImageRecords,
    before: Before,
    mark: Option<Mark>,
    retag: bool,
    _lock: ItemLock,
}

impl TreeWriter for ImageWriter {
    fn may_hold(&self) -> bool {
        self.tree.may_hold()
    }

    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        self.tree.present(queries)
    }

    fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        for step in &batch.steps {
            if !self.shape.allows(step) {
                let object = self.item.to_string();
                let cause = "the snapshot's tree is not that of an image";
                let kind = FsErrorKind::Refused;
                return Err(FsError::new("restore", object.as_bytes(), kind, cause));
            }
        }
        self.tree.apply(batch)
    }

    fn finish(self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        let Self {
            podman,
            images,
            item,
            tree,
            is_there,
            definition,
            records,
            before,
            mark,
            retag,
            ..
        } = *self;
        let failed = |cause: &dyn std::fmt::Display| {
            let object = item.to_string();
            FsError::new("restore", object.as_bytes(), FsErrorKind::Other, cause)
        };
        // Whatever becomes of it, no tree stays.
        let tidy = TidyUp {
            images: &images,
            id: &definition.id,
        };
        let folder = images.folder_of(&definition.id);
        let (outcome, mut findings) = tree.finish()?;
        if findings
            .iter()
            .any(|finding| finding.kind == FindingKind::NotRestored)
        {
            return Ok((outcome, findings));
        }
        if !is_there && !definition.layers.is_empty() {
            let layout = images.layout_of(&definition.id);
            load_image(&podman, &definition, &folder, &layout).map_err(|error| failed(&error))?;
        }
        let adoption = records
            .adopt(&definition, &folder.join(BIG_DATA_FOLDER), before, retag)
            .map_err(|error| failed(&error))?;
        findings.extend(told(&item, &adoption));
        let proof = prove(&podman, &definition, &adoption).map_err(|cause| failed(&cause))?;
        findings.push(finding(&item, FindingKind::Proof, proof));
        if let Some(mark) = mark {
            mark.done();
        }
        drop(tidy);
        Ok((outcome, findings))
    }

    fn discard(self: Box<Self>) -> Result<(), FsError> {
        self.tree.discard()
    }
}

/// What became of names that another image has.
fn told(item: &Item, adoption: &Adoption) -> Vec<Finding> {
    let left = adoption.left.iter().map(|(name, id)| {
        let message = format!("the name {name} stays with image {id}; --retag moves it");
        finding(item, FindingKind::NotRestored, message)
    });
    let taken = adoption.taken.iter().map(|(name, id)| {
        let message = format!("the name {name} was taken from image {id}");
        finding(item, FindingKind::Note, message)
    });
    left.chain(taken).collect()
}

/// Asks Podman whether the image is what it was: ID, digest, names, layers; says so in words. A
/// manifest list has none of these to show.
fn prove(
    podman: &Podman,
    definition: &ImageDefinition,
    adoption: &Adoption,
) -> Result<String, String> {
    if definition.layers.is_empty() {
        return Ok("its entry and big data are those that were saved".into());
    }
    let shown = inspect_image(podman, &definition.id).map_err(|error| error.to_string())?;
    let expect = |what: &str, shown: &str, saved: &str| match shown == saved {
        true => Ok(()),
        false => Err(format!(
            "Podman shows {what} {shown}, and {saved} was saved"
        )),
    };
    expect("ID", &shown.id, &definition.id)?;
    if let Some(digest) = definition.digest() {
        let by_digest = format!("@{digest}");
        if !shown.names().any(|name| name.ends_with(&by_digest)) {
            expect("digest", &shown.digest, digest)?;
        }
    }
    let layers = definition.layers.iter();
    let layers: Vec<String> = layers
        .map(|layer| format!("sha256:{}", layer.diff_id))
        .collect();
    expect("layers", &shown.layers().join(" "), &layers.join(" "))?;
    let mut names = 0;
    for name in definition.names() {
        if adoption.left.iter().any(|(left, _)| left == name) {
            continue;
        }
        if !shown.names().any(|shown| shown == name) {
            return Err(format!("Podman does not show its name {name}"));
        }
        names += 1;
    }
    Ok(format!(
        "Podman shows what was saved: ID {}, digest {}, {names} of {} names, {} layers",
        definition.id,
        definition.digest().unwrap_or("none"),
        definition.names().count(),
        layers.len()
    ))
}

#[cfg(test)]
mod tests;
