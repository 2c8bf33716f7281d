//! Bringing an image into the store: its tree is put together beside it, Podman loads that, and then
//! it gets its identity back and has to show it.

use std::path::PathBuf;

use podkeep_format::item::Item;

use super::changes;
use super::mark::Mark;
use crate::fs::{FsError, FsErrorKind, TreeWriter, WriteOutcome};
use crate::host::made_tree::{Arrival, Shape};
use crate::host::volume::finding;
use crate::monitor::{Finding, FindingKind};
use crate::podman::{
    Adoption, BIG_DATA_FOLDER, Before, ImageDefinition, ImageRecords, LAYERS_FOLDER,
    ORIGINAL_FOLDER, Podman, big_data_entry, inspect_image, layer_file, load_image,
};

/// The folder of images on their way into the store; nobody else may enter it.
#[derive(Clone)]
pub(super) struct StagedImages(pub PathBuf);

impl StagedImages {
    /// Where the tree is when it is whole.
    pub fn folder_of(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Where Podman loads it from.
    pub fn layout_of(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.layout"))
    }

    /// A mark says that an image in the store was put there by a restore that did not end.
    pub fn mark_of(&self, id: &str) -> PathBuf {
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

/// What the tree of an image has.
pub(super) fn shape_of(definition: &ImageDefinition) -> Shape {
    let pieces = definition.big_data();
    let layers = definition.layers.iter().enumerate();
    Shape::default()
        .folder(
            BIG_DATA_FOLDER,
            pieces.map(|piece| big_data_entry(piece.key)),
        )
        .folder(
            ORIGINAL_FOLDER,
            definition.original_big_data().map(big_data_entry),
        )
        .folder(
            LAYERS_FOLDER,
            layers.filter_map(|(number, layer)| Some(layer_file(number, &layer.diff_id()?))),
        )
}

/// An image on its way into the store.
pub(super) struct ImageArrival {
    pub podman: Podman,
    pub images: StagedImages,
    pub is_there: bool,
    pub definition: ImageDefinition,
    pub records: ImageRecords,
    pub before: Before,
    pub mark: Option<Mark>,
    pub retag: bool,
}

impl Arrival for ImageArrival {
    const KIND: &'static str = "an image";

    fn finish(
        self,
        item: &Item,
        tree: Box<dyn TreeWriter>,
    ) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        let Self {
            podman,
            images,
            is_there,
            definition,
            records,
            before,
            mark,
            retag,
        } = self;
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
        findings.extend(told(item, &adoption));
        findings.extend(changes(&definition).map(|message| {
            let message = format!("restored as another image than the host had: {message}");
            finding(item, FindingKind::NotExact, message)
        }));
        let proof = prove(&podman, &definition, &adoption).map_err(|cause| failed(&cause))?;
        findings.push(finding(item, FindingKind::Proof, proof));
        if let Some(mark) = mark {
            mark.done();
        }
        drop(tidy);
        Ok((outcome, findings))
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
