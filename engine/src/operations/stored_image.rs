//! The parts of an image that a snapshot holds.

use podkeep_format::id::TreeId;
use podkeep_format::item::{Escaped, Item, ItemKind};
use podkeep_format::recipe::{KnownLayer, Recipe};
use podkeep_format::tree::{Content, Entry, Node};

use super::image_files::{ImageFiles, Inode, Place};
use super::near::near_names;
use super::walk::NEAR_NAMES_MAX;
use super::{OperationError, OperationResult, contents};
use crate::fs::tar::{MemberError, MemberReader, TarSource};
use crate::monitor::Monitor;
use crate::podman::{
    BIG_DATA_BYTES_MAX, BIG_DATA_FOLDER, ImageDefinition, LAYERS_FOLDER, LAYERS_MAX,
    big_data_entry, config_key, layer_of_file,
};
use crate::repo::reader::Reader;
use crate::repo::recipes::RecipeBytes;
use crate::repo::{RepoError, RepoResult, StoredSnapshot};

/// A file's content is handed out in parts of at most this many bytes.
const PART_BYTES: usize = 256 << 10;

/// The recipe of a layer, which has to be of that layer.
pub fn recipe_of(reader: &Reader, layer: &KnownLayer) -> RepoResult<Recipe> {
    let recipe = reader.recipe_of_file(layer.recipe, layer.size)?;
    match recipe.diff_id == layer.diff_id {
        true => Ok(recipe),
        false => Err(wrong(
            "a layer's tar is of another layer than its name says",
        )),
    }
}

/// The layers of the image whose tree is `root`, bottom first, each or why it cannot be had; none
/// of a manifest list.
pub fn each_layer(
    reader: &Reader,
    root: TreeId,
) -> Box<dyn Iterator<Item = RepoResult<KnownLayer>> + '_> {
    let failed = |error| Box::new(std::iter::once(Err(error)));
    let tree = match reader.lookup(root, LAYERS_FOLDER.as_bytes()) {
        Ok(None) => return Box::new(std::iter::empty()),
        Ok(Some(entry)) => match entry.node {
            Node::Directory { tree } => tree,
            _ => return failed(wrong("its layers are no directory")),
        },
        Err(error) => return failed(error),
    };
    // Names sort as the layers lie.
    let entries = reader.directory(tree).take(LAYERS_MAX + 1).enumerate();
    Box::new(entries.map(|(number, entry)| match number {
        LAYERS_MAX => Err(wrong(format!("it has over {LAYERS_MAX} layers"))),
        _ => layer_of(&entry?),
    }))
}

fn layer_of(entry: &Entry) -> RepoResult<KnownLayer> {
    let (Some(diff_id), Node::File { size, content, .. }) =
        (layer_of_file(&entry.name), &entry.node)
    else {
        let name = Escaped(&entry.name);
        return Err(wrong(format!("{name} is no layer")));
    };
    let Content::Recipe { id } = content else {
        return Err(wrong("a layer has no recipe"));
    };
    Ok(KnownLayer {
        diff_id,
        size: *size,
        recipe: *id,
    })
}

fn layers(reader: &Reader, root: TreeId) -> OperationResult<Vec<KnownLayer>> {
    Ok(each_layer(reader, root).collect::<RepoResult<_>>()?)
}

/// Whether a snapshot is of a manifest list, which has no layers and so no files.
pub fn is_list(reader: &Reader, stored: &StoredSnapshot) -> OperationResult<bool> {
    match stored.body.as_ref().and_then(|body| body.root) {
        Some(root) => Ok(layers(reader, root)?.is_empty()),
        None => Ok(true),
    }
}

/// The layers of a snapshot of an image, of which there is at least one.
pub fn layers_of(reader: &Reader, stored: &StoredSnapshot) -> OperationResult<Vec<KnownLayer>> {
    let item = &stored.header.item;
    let refused = |message: String| OperationError::Refused {
        message,
        hint: "`podkeep ls --stored` lists what is stored of it".into(),
    };
    if item.kind != ItemKind::Image {
        return Err(refused(format!("{item} is no image")));
    }
    let root = stored.body.as_ref().and_then(|body| body.root);
    let layers = match root {
        Some(root) => layers(reader, root)?,
        None => Vec::new(),
    };
    if layers.is_empty() {
        return Err(refused(format!("{item} has no layers, and so no files")));
    }
    Ok(layers)
}

/// What is at a path of an image's root. The error says when a stored part of the image has that
/// path, or else which names are near.
pub fn file_at<'f>(
    reader: &Reader,
    stored: &StoredSnapshot,
    files: &'f ImageFiles,
    path: &[u8],
) -> OperationResult<&'f Inode> {
    if let Some(inode) = files.at(path) {
        return Ok(inode);
    }
    let what = stored.header.item.at(path);
    let root = stored.body.as_ref().and_then(|body| body.root);
    if let Some(root) = root
        && reader.lookup(root, path)?.is_some()
    {
        return Err(OperationError::Usage {
            message: format!("{what} is no file in the image, but a stored part of it"),
            hint: "stored parts are meant with --stored".into(),
        });
    }
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    let names: Vec<String> = match files.at(folder) {
        Some(folder) => files
            .names(folder)
            .take(NEAR_NAMES_MAX)
            .map(|name| Escaped(name).to_string())
            .collect(),
        None => Vec::new(),
    };
    Err(OperationError::NoMatch {
        what,
        near: near_names(&Escaped(name).to_string(), names.iter().map(String::as_str)),
    })
}

/// The files of an image, from the headers of its layers: no content of a file is fetched, but for
/// the smallest, which lie among the headers.
pub fn files(
    reader: &Reader,
    item: &Item,
    layers: &[KnownLayer],
    monitor: &dyn Monitor,
) -> OperationResult<ImageFiles> {
    let mut files = ImageFiles::default();
    for (number, layer) in layers.iter().enumerate() {
        let refused = |MemberError { offset, cause }| OperationError::Refused {
            message: format!(
                "{item} has no files: layer {number} (sha256:{}) at byte {offset} of its tar: {cause}",
                layer.diff_id
            ),
            hint:
                "its layers can be had as they are: `podkeep ls --stored`, `podkeep dump --stored`"
                    .into(),
        };
        let recipe = recipe_of(reader, layer)?;
        let mut tar = MemberReader::new(Source(reader.recipe_bytes(&recipe)));
        loop {
            if monitor.interrupted() {
                return Err(OperationError::Interrupted);
            }
            let member = match tar.next_member() {
                Ok(Some(member)) => member,
                Ok(None) => break,
                Err(SourceError::Repository(error)) => return Err(error.into()),
                Err(SourceError::Tar(error)) => return Err(refused(error)),
            };
            let offset = member.offset;
            let added = files.add(number, &member);
            added.map_err(|cause| {
                let cause = cause.to_owned();
                refused(MemberError { offset, cause })
            })?;
        }
    }
    Ok(files)
}

/// Hands out the content of a file of an image in parts. Each chunk of it is checked.
pub fn content(
    reader: &Reader,
    layers: &[KnownLayer],
    place: Place,
    each: &mut dyn FnMut(&[u8]) -> OperationResult<()>,
) -> OperationResult<()> {
    let recipe = recipe_of(reader, &layers[place.layer])?;
    let mut tar = reader.recipe_bytes(&recipe);
    tar.skip(place.offset)?;
    let mut buffer = vec![0; PART_BYTES];
    let mut left = place.size;
    while left > 0 {
        let part = left.min(PART_BYTES as u64) as usize;
        if tar.fill(&mut buffer[..part])? < part {
            return Err(wrong("a layer's tar ends inside of a content").into());
        }
        each(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

struct Source<'r>(RecipeBytes<'r>);

enum SourceError {
    Repository(RepoError),
    Tar(MemberError),
}

impl From<MemberError> for SourceError {
    fn from(error: MemberError) -> Self {
        Self::Tar(error)
    }
}

impl TarSource for Source<'_> {
    type Error = SourceError;

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        self.0.fill(buffer).map_err(SourceError::Repository)
    }

    fn skip(&mut self, bytes: u64) -> Result<u64, SourceError> {
        self.0.skip(bytes).map_err(SourceError::Repository)
    }
}

/// A file of the big data of the image whose tree is `root`.
pub fn big_data(
    reader: &Reader,
    item: &Item,
    root: TreeId,
    key: &str,
    monitor: &dyn Monitor,
) -> OperationResult<Vec<u8>> {
    let path = format!("{BIG_DATA_FOLDER}/{}", big_data_entry(key));
    let damaged = |cause: &str| RepoError::Damaged {
        object: item.at(path.as_bytes()),
        cause: cause.into(),
    };
    let entry = reader.lookup(root, path.as_bytes())?;
    let Some(Node::File { size, content, .. }) = entry.map(|entry| entry.node) else {
        return Err(damaged("it is not there").into());
    };
    if size > BIG_DATA_BYTES_MAX as u64 {
        return Err(damaged("it is too large").into());
    }
    let mut bytes = Vec::new();
    let mut each = |part: &[u8]| {
        bytes.extend_from_slice(part);
        match bytes.len() as u64 > size {
            true => Err(damaged("it is longer than its entry says").into()),
            false => Ok(()),
        }
    };
    contents::each_part(reader, size, &content, &mut each, monitor)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(damaged("it is shorter than its entry says").into()),
    }
}

/// The architecture that an image is for. `None`: its configuration names none, or cannot be read, which
/// shows where the image itself is restored.
pub fn architecture(
    reader: &Reader,
    item: &Item,
    root: TreeId,
    definition: &ImageDefinition,
    monitor: &dyn Monitor,
) -> Option<String> {
    let config = big_data(reader, item, root, config_key(definition)?, monitor).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&config).ok()?;
    config.get("architecture")?.as_str().map(str::to_owned)
}

fn wrong(cause: impl Into<String>) -> RepoError {
    RepoError::Damaged {
        object: "the tree of an image".into(),
        cause: cause.into(),
    }
}
