//! Images as other tools take them.
//!
//! Layers are written as they are stored, uncompressed, and the configuration byte for byte, so that
//! the image's ID stays. The manifests that it was pulled by name compressed blobs that nobody
//! has: the image gets one of its own, and they lie beside it, for whoever wants to compare.

use podkeep_format::id::{ChunkKind, DiffId, TreeId};
use podkeep_format::recipe::KnownLayer;
use serde_json::{Map, Value};

use super::Export;
use super::sink::{Sink, put};
use crate::operations::stored_image::{big_data, layers_of, recipe_of};
use crate::operations::{OperationError, OperationResult};
use crate::podman::{ImageDefinition, config_key, layout};
use crate::repo::RepoError;

const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";
/// All names of the image, and the digests of the manifests beside it, with blanks between.
const NAMES_ANNOTATION: &str = "io.podkeep.names";
const MANIFESTS_ANNOTATION: &str = "io.podkeep.original-manifests";

/// What is exported of an image.
struct Parts {
    definition: ImageDefinition,
    config: Vec<u8>,
    layers: Vec<KnownLayer>,
    root: TreeId,
}

/// Writes an OCI layout with this one image. Returns what the snapshot says of it.
pub fn oci(export: &Export<'_>, sink: &mut dyn Sink) -> OperationResult<ImageDefinition> {
    let parts = Parts::of(export)?;
    let layers = parts.sizes();
    let originals = parts.manifests(export)?;
    let parse = |bytes: &Vec<u8>| serde_json::from_slice::<Value>(bytes).ok();
    let usable = originals.iter().position(|bytes| {
        parse(bytes).is_some_and(|manifest| layout::fits(&manifest, &parts.config, &layers))
    });
    let original = originals.first().and_then(parse);
    let annotations = original.as_ref().and_then(|m| m.get("annotations"));
    let (manifest, media_type) = match usable {
        Some(at) => {
            let manifest = parse(&originals[at]).unwrap_or_default();
            let media_type = manifest["mediaType"].as_str().map(str::to_owned);
            (originals[at].clone(), media_type)
        }
        None => {
            let manifest = layout::manifest(&parts.config, &layers, annotations);
            (manifest, None)
        }
    };
    let (name, text) = layout::LAYOUT_FILE;
    put(sink, name, text.as_bytes())?;
    let index = layout::index(
        &manifest,
        media_type.as_deref(),
        parts.annotations(export, &originals),
    );
    put(sink, layout::INDEX_FILE, index.as_bytes())?;
    let mut blobs: Vec<&[u8]> = vec![&manifest, &parts.config];
    blobs.extend(originals.iter().map(Vec::as_slice));
    let mut written: Vec<DiffId> = Vec::new();
    for bytes in blobs {
        let id = layout::sha256(bytes);
        if !written.contains(&id) {
            put(sink, &layout::blob(&id), bytes)?;
            written.push(id);
        }
    }
    parts.write_layers(export, sink, written, &layout::blob)?;
    Ok(parts.definition)
}

/// Writes the archive of `docker save` with this one image.
pub fn docker_archive(export: &Export<'_>, sink: &mut dyn Sink) -> OperationResult<()> {
    let parts = Parts::of(export)?;
    let text = layout::archive(&parts.config, &parts.tags(export), &parts.sizes());
    put(sink, layout::ARCHIVE_FILE, text.as_bytes())?;
    put(sink, &layout::archive_config(&parts.config), &parts.config)?;
    parts.write_layers(export, sink, Vec::new(), &layout::archive_layer)
}

impl Parts {
    fn of(export: &Export<'_>) -> OperationResult<Self> {
        let item = &export.stored.header.item;
        let damaged = |cause: String| RepoError::Damaged {
            object: format!("the definition of {item}"),
            cause,
        };
        let layers = layers_of(export.reader, export.stored)?;
        let body = export.stored.body.as_ref();
        let stored = body.and_then(|body| Some((body.definition?, body.root?)));
        let Some(((id, _), root)) = stored else {
            return Err(damaged("there is none".into()).into());
        };
        let bytes = export.reader.chunk(ChunkKind::Record, id)?;
        let definition = ImageDefinition::decode(bytes.as_ref()).map_err(damaged)?;
        let Some(key) = config_key(&definition) else {
            return Err(damaged("it names no configuration".into()).into());
        };
        let config = export.big_data(root, key)?;
        if layout::digest_of(&config) != key {
            return Err(damaged("the configuration is not the one that it names".into()).into());
        }
        Ok(Self {
            config,
            layers,
            root,
            definition,
        })
    }

    fn sizes(&self) -> Vec<(DiffId, u64)> {
        let layers = self.layers.iter();
        layers.map(|layer| (layer.diff_id, layer.size)).collect()
    }

    /// Names with a tag, the one that was asked for first.
    fn tags(&self, export: &Export<'_>) -> Vec<&str> {
        let names = self.definition.names().filter(|name| !name.contains('@'));
        let mut tags: Vec<&str> = names.collect();
        tags.sort_by_key(|tag| tag.as_bytes() != export.asked);
        tags
    }

    /// Manifests that the store had of it, each once: the one that it is known by first.
    fn manifests(&self, export: &Export<'_>) -> OperationResult<Vec<Vec<u8>>> {
        let mut manifests: Vec<Vec<u8>> = Vec::new();
        for piece in self.definition.big_data() {
            if piece.key != "manifest" && !piece.key.starts_with("manifest-") {
                continue;
            }
            let bytes = export.big_data(self.root, piece.key)?;
            if manifests.contains(&bytes) {
                continue;
            }
            match self.definition.digest() == Some(&layout::digest_of(&bytes)) {
                true => manifests.insert(0, bytes),
                false => manifests.push(bytes),
            }
        }
        Ok(manifests)
    }

    fn annotations(&self, export: &Export<'_>, originals: &[Vec<u8>]) -> Map<String, Value> {
        let mut annotations = Map::new();
        if let Some(tag) = self.tags(export).first() {
            annotations.insert(NAME_ANNOTATION.into(), (*tag).into());
        }
        let names: Vec<&str> = self.definition.names().collect();
        let digests: Vec<String> = originals.iter().map(|m| layout::digest_of(m)).collect();
        for (key, value) in [
            (NAMES_ANNOTATION, names.join(" ")),
            (MANIFESTS_ANNOTATION, digests.join(" ")),
        ] {
            if !value.is_empty() {
                annotations.insert(key.into(), value.into());
            }
        }
        annotations
    }

    /// Each layer once, and none of `written`.
    fn write_layers(
        &self,
        export: &Export<'_>,
        sink: &mut dyn Sink,
        mut written: Vec<DiffId>,
        path: &dyn Fn(&DiffId) -> String,
    ) -> OperationResult<()> {
        for layer in &self.layers {
            if written.contains(&layer.diff_id) {
                continue;
            }
            written.push(layer.diff_id);
            let recipe = recipe_of(export.reader, layer)?;
            sink.begin(&path(&layer.diff_id), layer.size)?;
            let mut each = |bytes: &[u8]| match export.monitor.interrupted() {
                true => Err(OperationError::Interrupted),
                false => sink.content(bytes),
            };
            // Fails when the tar has not its DiffID.
            export.reader.rebuild(&recipe, &mut each)?;
        }
        Ok(())
    }
}

impl Export<'_> {
    fn big_data(&self, root: TreeId, key: &str) -> OperationResult<Vec<u8>> {
        let item = &self.stored.header.item;
        big_data(self.reader, item, root, key, self.monitor)
    }
}
