//! Archives that other tools wrote, as a source: images of `podman save` and its like, volumes of
//! `podman volume export` and of `tar`.
//!
//! What comes out is what a backup of a store with the same image, or of a volume with the same
//! files, would have made: the same trees, recipes and layer records.

mod files;
mod input;
mod layers;
mod names;
mod piped;
mod tree;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_format::id::SnapshotId;
use podkeep_format::item::{Item, ItemKind};

use self::files::Files;
use self::input::{Input, cause};
use self::layers::ArchivedLayers;
use self::piped::Given;
use self::volume::VolumeSpec;
use super::image::scan::{ImageSpec, scan as scan_image};
use super::local::LockedScan;
use super::lock::ItemLock;
use super::volume::not_here;
use super::{
    HostError, ImageFacts, Inventory, KnownLayer, OpenItem, ScanRequest, Source, VolumeFacts,
};
use crate::monitor::{Finding, FindingKind};
use crate::podman::{
    ArchivedImage, ImageDefinition, VolumeDefinition, archived_images, big_data_entry,
};

/// The archives of one import.
pub struct Archives {
    /// Locks lie below it.
    state: PathBuf,
    inventory: Inventory,
    images: BTreeMap<Item, Archived>,
    volumes: BTreeMap<Item, PathBuf>,
    /// What came through pipes: places lead to it.
    spooled: Vec<File>,
}

/// An image, and where it is.
struct Archived {
    files: Arc<Files>,
    image: ArchivedImage,
    /// What messages call the archive.
    name: String,
}

impl Archives {
    /// Looks into the archives: `images` hold images, `volumes` the content of a volume of that
    /// name. What cannot be taken is a finding of the inventory; refused is only what makes no
    /// sense. `state` is the state folder of the host in whose name they are stored. The path `-` is
    /// standard input; what comes through a pipe is kept in the folder `spool` for as long as the
    /// archives are.
    pub fn open(
        state: impl Into<PathBuf>,
        images: &[PathBuf],
        volumes: &[(String, PathBuf)],
        spool: &Path,
    ) -> Result<Self, HostError> {
        let mut archives = Self {
            state: state.into(),
            inventory: Inventory::default(),
            images: BTreeMap::new(),
            volumes: BTreeMap::new(),
            spooled: Vec::new(),
        };
        for (name, path) in volumes {
            archives.add_volume(name, path, spool)?;
        }
        let mut found = Vec::new();
        for path in images {
            let Some((place, name)) = archives.given(path, spool) else {
                continue;
            };
            match Files::open(&place).and_then(|files| Ok((archived_images(&files)?, files))) {
                Ok((images, files)) => {
                    let files = Arc::new(files);
                    for image in images {
                        match image {
                            Ok(image) => found.push(Archived {
                                files: Arc::clone(&files),
                                image,
                                name: name.clone(),
                            }),
                            Err(cause) => {
                                let cause = format!("an image of it cannot be read: {cause}");
                                archives.tell(&name, FindingKind::Unreadable, cause);
                            }
                        }
                    }
                }
                Err(cause) => {
                    let cause = format!("it cannot be read as an archive of images: {cause}");
                    archives.tell(&name, FindingKind::Unreadable, cause);
                }
            }
        }
        archives.add_images(found);
        Ok(archives)
    }

    /// Where an archive can be read, and what it is called. `None`: it cannot, and that was told.
    fn given(&mut self, path: &Path, spool: &Path) -> Option<(PathBuf, String)> {
        match Given::new(path, spool) {
            Ok(given) => {
                self.spooled.extend(given.spooled);
                Some((given.place, given.name))
            }
            Err(cause) => {
                self.tell(&path.display(), FindingKind::Unreadable, cause);
                None
            }
        }
    }

    fn tell(&mut self, archive: &dyn std::fmt::Display, kind: FindingKind, message: String) {
        self.inventory.findings.push(Finding {
            object: archive.to_string(),
            kind,
            snapshots: Vec::new(),
            paths: Vec::new(),
            message,
        });
    }

    fn add_volume(&mut self, name: &str, path: &Path, spool: &Path) -> Result<(), HostError> {
        let refused = |cause: &str, hint: &str| HostError::Refused {
            object: format!("volume {name}"),
            cause: cause.to_owned(),
            hint: hint.to_owned(),
        };
        if VolumeDefinition::decode(&VolumeDefinition::plain(name).encode()).is_err() {
            let hint = "letters, digits, '_', '.' and '-' make a name";
            return Err(refused("no volume can have this name", hint));
        }
        let item = Item::new(ItemKind::Volume, name.as_bytes());
        if self.volumes.contains_key(&item) {
            return Err(refused(
                "it is named twice",
                "give each archive a name of its own",
            ));
        }
        let Some((place, archive)) = self.given(path, spool) else {
            return Ok(());
        };
        if let Err(error) = Input::open(&place) {
            let cause = format!("it cannot be read: {}", cause(error));
            self.tell(&archive, FindingKind::Unreadable, cause);
            return Ok(());
        }
        self.volumes.insert(item, place);
        self.inventory.volumes.push(VolumeFacts {
            name: name.to_owned(),
            driver: "local".into(),
            anonymous: false,
            used_by: Vec::new(),
            used_by_running: Vec::new(),
        });
        Ok(())
    }

    /// One image for each ID, and one ID for each name, as in a store: the first archive wins.
    fn add_images(&mut self, found: Vec<Archived>) {
        let mut by_id: Vec<Archived> = Vec::new();
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for mut archived in found {
            let Archived {
                image,
                name: archive,
                ..
            } = &mut archived;
            let mut lost = BTreeSet::new();
            for name in &image.names {
                let owner = taken
                    .entry(name.clone())
                    .or_insert_with(|| image.id.clone());
                if *owner != image.id {
                    lost.insert(name.clone());
                    let message = format!(
                        "the name {name} stays with image {}, which has it in an archive before; \
                         image {} is saved without it",
                        &owner[..12],
                        &image.id[..12]
                    );
                    self.tell(archive, FindingKind::Skipped, message);
                }
            }
            image.names.retain(|name| !lost.contains(name));
            match by_id.iter_mut().find(|other| other.image.id == image.id) {
                Some(known) => {
                    for name in &image.names {
                        if !known.image.names.contains(name) {
                            known.image.names.push(name.clone());
                        }
                    }
                    // The archive with the manifest says more.
                    if image.has_manifest() && !known.image.has_manifest() {
                        image.names.clone_from(&known.image.names);
                        *known = archived;
                    }
                }
                None => by_id.push(archived),
            }
        }
        for archived in by_id {
            let image = &archived.image;
            let facts = ImageFacts {
                id: image.id.clone(),
                names: image.names.clone(),
                layers: image.layers.iter().map(|layer| layer.diff_id).collect(),
                external: false,
                // What is compressed tells nothing.
                bytes: 0,
            };
            self.images.insert(facts.item(), archived);
            self.inventory.images.push(facts);
        }
        self.inventory.images.sort_by_cached_key(ImageFacts::item);
    }

    fn open_image(
        &self,
        request: &ScanRequest,
        archived: &Archived,
    ) -> Result<OpenItem, HostError> {
        let item = &request.item;
        let failed = |cause: String| HostError::Podman {
            action: "read",
            object: format!("{item} in {}", archived.name),
            cause,
        };
        let image = &archived.image;
        let source = ArchivedLayers {
            files: Arc::clone(&archived.files),
            layers: image.layers.clone(),
        };
        let mut sizes = Vec::new();
        for (number, layer) in image.layers.iter().enumerate() {
            let is_it = |known: &&KnownLayer| known.diff_id == layer.diff_id;
            sizes.push(match request.known_layers.iter().find(is_it) {
                Some(known) => known.size,
                None => source.size(number).map_err(failed)?,
            });
        }
        let (definition, pieces) = image.definition(&sizes);
        let definition = definition.encode();
        ImageDefinition::decode(&definition).map_err(failed)?;
        let pieces = pieces.into_iter();
        let tree = scan_image(ImageSpec {
            item: item.to_string(),
            chunking: Arc::clone(&request.chunking),
            threads: request.threads,
            source: Box::new(source),
            layers: image.layers.iter().map(|layer| layer.diff_id).collect(),
            big_data: pieces
                .map(|(key, bytes)| (big_data_entry(&key), bytes))
                .collect(),
            original: Vec::new(),
            known: request.known_layers.clone(),
        })?;
        let mut findings = Vec::new();
        if !image.has_manifest() {
            findings.push(Finding {
                object: item.to_string(),
                kind: FindingKind::Note,
                snapshots: Vec::new(),
                paths: Vec::new(),
                message: "the archive holds no manifest: its digest is new".into(),
            });
        }
        Ok(OpenItem {
            definition: Some(definition),
            tree: Some(tree),
            findings,
        })
    }
}

impl Source for Archives {
    fn inventory(&self) -> Result<Inventory, HostError> {
        Ok(self.inventory.clone())
    }

    fn open(&self, request: &ScanRequest) -> Result<OpenItem, HostError> {
        let item = &request.item;
        let lock = ItemLock::take(&self.state, item)?;
        let mut opened = if let Some(archived) = self.images.get(item) {
            self.open_image(request, archived)?
        } else if let Some(path) = self.volumes.get(item) {
            let name = String::from_utf8_lossy(&item.name);
            OpenItem {
                definition: Some(VolumeDefinition::plain(&name).encode()),
                tree: Some(volume::scan(VolumeSpec {
                    path: path.clone(),
                    item: item.to_string(),
                    chunking: Arc::clone(&request.chunking),
                })?),
                findings: Vec::new(),
            }
        } else {
            return Err(not_here(item));
        };
        opened.tree = opened.tree.map(|tree| -> Box<dyn crate::fs::TreeScan> {
            Box::new(LockedScan { tree, _lock: lock })
        });
        Ok(opened)
    }

    /// Nothing of an archive is remembered.
    fn published(&self, _: &ScanRequest, _: SnapshotId) -> Result<(), HostError> {
        Ok(())
    }
}
