//! Reading an image: its big data and its layers, as the tree that a snapshot keeps of it.
//!
//! The tree is made, not found: owners, modes and times are the same for every image, so that
//! equal images have equal roots. Layers that the repository holds are named and not read; the
//! others are read by a few workers, each taking the next one, and appear in the tree only once
//! their tar hashed to their DiffID.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkId, ChunkKind, DiffId};
use podkeep_format::tree::{Content, ContentBuilder, INLINE_BYTES_MAX};

use super::recipe::RecipeBuilder;
use crate::chunk::Chunking;
use crate::fs::background::{self, Ended};
use crate::fs::batch::{Outbox, Stage};
use crate::fs::{FsError, FsErrorKind, ScanOutcome, ScannedLayer, TreeScan};
use crate::host::KnownLayer;
use crate::host::made_tree::{directory, file, root};
use crate::podman::{BIG_DATA_FOLDER, LAYERS_FOLDER, LayerEvent, ORIGINAL_FOLDER, layer_file};

/// Workers of one image.
const THREADS_MAX: usize = 8;

/// What to read.
pub struct ImageSpec {
    /// The item's text form.
    pub item: String,
    pub chunking: Arc<Chunking>,
    pub threads: usize,
    pub source: Box<dyn LayerSource>,
    /// Bottom first.
    pub layers: Vec<DiffId>,
    /// Files of the big data, by their names in the tree.
    pub big_data: Vec<(String, Vec<u8>)>,
    /// The same of what the image was, if it is saved as another one.
    pub original: Vec<(String, Vec<u8>)>,
    pub known: Vec<KnownLayer>,
}

/// Why a layer cannot be read.
#[derive(Debug)]
pub struct LayerFailure {
    /// `NotFound`: it is there no longer.
    pub kind: FsErrorKind,
    /// In words that name the layer.
    pub cause: String,
}

impl From<String> for LayerFailure {
    fn from(cause: String) -> Self {
        Self {
            kind: FsErrorKind::Other,
            cause,
        }
    }
}

/// Where the tars of an image's layers are read.
pub trait LayerSource: Send + Sync {
    /// `number`: which of the image's layers, from the bottom.
    fn open(&self, number: usize) -> Result<Box<dyn LayerStream + '_>, LayerFailure>;
}

/// A layer that is read from its first byte to its last.
pub trait LayerStream {
    /// The next part of the tar. The end comes only when all of it had the expected DiffID.
    fn next_event(&mut self) -> Result<LayerEvent<'_>, LayerFailure>;
}

/// Starts to read.
pub fn scan(spec: ImageSpec) -> Result<Box<dyn TreeScan>, FsError> {
    let item = spec.item.clone();
    background::read("read-image", &item, move |outbox| {
        lead(&Shared {
            jobs: jobs(&spec),
            next: AtomicUsize::new(0),
            done: Mutex::default(),
            outbox,
            spec,
        })
    })
}

/// Numbers of the layers that must be read, each DiffID once.
fn jobs(spec: &ImageSpec) -> Vec<usize> {
    let mut met: Vec<DiffId> = spec.known.iter().map(|layer| layer.diff_id).collect();
    let mut jobs = Vec::new();
    for (number, diff_id) in spec.layers.iter().enumerate() {
        if !met.contains(diff_id) {
            met.push(*diff_id);
            jobs.push(number);
        }
    }
    jobs
}

struct Shared<'o> {
    spec: ImageSpec,
    jobs: Vec<usize>,
    /// The first job that nobody has taken.
    next: AtomicUsize,
    done: Mutex<Vec<ScannedLayer>>,
    outbox: &'o Outbox,
}

fn lead(shared: &Shared<'_>) -> Result<ScanOutcome, Ended> {
    let threads = shared
        .spec
        .threads
        .clamp(1, THREADS_MAX)
        .min(shared.jobs.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(shared))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or(Err(Ended::Stopped)))
            .collect::<Result<Vec<()>, Ended>>()
    })?;
    assemble(shared)
}

fn work(shared: &Shared<'_>) -> Result<(), Ended> {
    let mut stage = Stage::default();
    loop {
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(number) = shared.jobs.get(index) else {
            return Ok(());
        };
        match read_layer(shared, *number, &mut stage) {
            Ok(scanned) => {
                shared.outbox.take(&mut stage)?;
                let mut done = shared.done.lock().unwrap_or_else(PoisonError::into_inner);
                done.push(scanned);
            }
            Err(ended) => {
                // The others need not go on.
                shared.next.store(shared.jobs.len(), Ordering::Relaxed);
                return Err(ended);
            }
        }
    }
}

fn read_layer(
    shared: &Shared<'_>,
    number: usize,
    stage: &mut Stage,
) -> Result<ScannedLayer, Ended> {
    let failed = |failure: LayerFailure| Ended::Failed(layer_error(&shared.spec.item, &failure));
    let spec = &shared.spec;
    let mut reader = spec.source.open(number).map_err(failed)?;
    stage.remember_ids();
    let mut recipe = RecipeBuilder::new(&spec.chunking);
    let end = loop {
        match reader.next_event().map_err(failed)? {
            LayerEvent::Literal(bytes) => recipe.literal(bytes, stage),
            LayerEvent::Payload { size, .. } => recipe.begin_payload(size),
            LayerEvent::Bytes(bytes) => {
                stage.counts.bytes_read += bytes.len() as u64;
                recipe.payload(bytes, stage);
            }
            LayerEvent::End(end) => break end,
        }
        if stage.is_large() {
            shared.outbox.take(stage)?;
        }
    };
    let scanned = recipe.finish(end.diff_id, stage);
    debug_assert_eq!(scanned.diff_id, spec.layers[number]);
    debug_assert_eq!(scanned.size, end.size);
    Ok(ScannedLayer {
        chunks: stage.remembered_ids(),
        ..scanned
    })
}

/// What could not be read is named with the item that needs it.
fn layer_error(item: &str, failure: &LayerFailure) -> FsError {
    FsError::new("read", item.as_bytes(), failure.kind, &failure.cause)
}

/// Makes the tree, once all layers are read.
fn assemble(shared: &Shared<'_>) -> Result<ScanOutcome, Ended> {
    let spec = &shared.spec;
    let layers = std::mem::take(&mut *shared.done.lock().unwrap_or_else(PoisonError::into_inner));
    let mut recipes: HashMap<DiffId, (ChunkId, u64)> = HashMap::new();
    recipes.extend(spec.known.iter().map(|l| (l.diff_id, (l.recipe, l.size))));
    recipes.extend(layers.iter().map(|l| (l.diff_id, (l.recipe, l.size))));

    let mut stage = Stage::default();
    let mut bytes_logical = 0;
    let mut folders = Vec::new();
    let original = Some(&spec.original).filter(|pieces| !pieces.is_empty());
    let original = original.map(|pieces| (ORIGINAL_FOLDER, pieces));
    for (folder, pieces) in original
        .into_iter()
        .chain([(BIG_DATA_FOLDER, &spec.big_data)])
    {
        let mut files = Vec::new();
        for (name, bytes) in pieces {
            bytes_logical += bytes.len() as u64;
            let content = content_of(spec, bytes, &mut stage);
            files.push(file(name.clone(), bytes.len() as u64, content));
        }
        folders.push(directory(&spec.chunking, folder, files, &mut stage));
    }
    let mut files = Vec::new();
    for (number, diff_id) in spec.layers.iter().enumerate() {
        let Some((id, size)) = recipes.get(diff_id).copied() else {
            let cause = format!("layer {diff_id} was not read");
            let item = spec.item.as_bytes();
            return Err(Ended::Failed(FsError::new(
                "read",
                item,
                FsErrorKind::Other,
                cause,
            )));
        };
        bytes_logical += size;
        files.push(file(
            layer_file(number, diff_id),
            size,
            Content::Recipe { id },
        ));
    }
    folders.push(directory(&spec.chunking, LAYERS_FOLDER, files, &mut stage));
    let count = (spec.original.len() + spec.big_data.len() + spec.layers.len()) as u64;
    let directories = 1 + folders.len() as u64;
    let root = root(&spec.chunking, folders, &mut stage);
    stage.counts.files = count;
    stage.counts.bytes_logical = bytes_logical;
    shared.outbox.take(&mut stage)?;
    Ok(ScanOutcome {
        root,
        files: count,
        directories,
        bytes_logical,
        bytes_allocated: bytes_logical,
        incomplete: false,
        layers,
    })
}

fn content_of(spec: &ImageSpec, bytes: &[u8], stage: &mut Stage) -> Content {
    if bytes.len() <= INLINE_BYTES_MAX {
        return Content::Inline(bytes.to_vec());
    }
    let mut content = ContentBuilder::new();
    spec.chunking.chunker.cut_whole(bytes, &mut |cut| {
        stage.cut(&spec.chunking, &mut content, BlockClass::Small, cut)
    });
    content.finish(&spec.chunking.ids, &mut |id, list| {
        stage.add(id, ChunkKind::List, BlockClass::Meta, &list)
    })
}
