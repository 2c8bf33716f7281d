//! Artifacts of the host that this process runs on: read from Podman's store of them, and brought
//! back into it. Podman is not run for it: the store is a layout of plain files.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_format::item::Item;
use ring::digest::{Context, SHA256};

use super::image::recipe::StreamBuilder;
use super::lock::{ItemLock, make_private};
use super::made_tree::{Arrival, MadeTreeWriter, Shape, directory, file, root};
use super::volume::{finding, not_here};
use super::{ArtifactFacts, Existing, HostError, OpenItem, PlacePlan, ScanRequest, WriteRequest};
use crate::chunk::Chunking;
use crate::fs::background::{self, Ended};
use crate::fs::batch::{Outbox, Stage};
use crate::fs::write::{self, Destination, Labels, RootKind, Swap, WriteSpec};
use crate::fs::{FsError, FsErrorKind, ScanOutcome, TreeWriter, WriteOutcome};
use crate::monitor::{Finding, FindingKind};
use crate::podman::{Artifact, ArtifactDefinition, ArtifactStore};

/// Below the state folder: trees of artifacts on their way into the store.
const STAGING_FOLDER: &str = "artifacts";
/// In a snapshot's tree: a file for each blob, called by its digest.
const BLOBS_FOLDER: &str = "blobs";
const READ_BYTES: usize = 1 << 20;

/// The artifacts of one Podman.
pub(super) struct Artifacts {
    staging: PathBuf,
}

impl Artifacts {
    pub fn new(state: &Path) -> Self {
        Self {
            staging: state.join(STAGING_FOLDER),
        }
    }

    pub fn inventory(&self, graph_root: &Path) -> Result<Vec<ArtifactFacts>, HostError> {
        let listed = list(graph_root)?;
        let facts = listed.iter().map(|(_, artifact)| ArtifactFacts {
            name: artifact.name.clone(),
            digest: artifact.digest.clone(),
        });
        let mut facts: Vec<ArtifactFacts> = facts.collect();
        facts.sort_by_key(ArtifactFacts::item);
        facts.dedup();
        Ok(facts)
    }

    /// The artifact's definition, and its blobs as a tree.
    pub fn read(&self, request: &ScanRequest, graph_root: &Path) -> Result<OpenItem, HostError> {
        let item = &request.item;
        let is_it = |artifact: &Artifact| {
            let facts = ArtifactFacts {
                name: artifact.name.clone(),
                digest: artifact.digest.clone(),
            };
            facts.item() == *item
        };
        let mut listed = list(graph_root)?.into_iter();
        let Some((store, artifact)) = listed.find(|(_, artifact)| is_it(artifact)) else {
            return Err(not_here(item));
        };
        let definition = store.definition(&artifact);
        let definition = definition.map_err(|cause| failed("read", item, cause))?;
        let encoded = definition.encode();
        ArtifactDefinition::decode(&encoded).map_err(|cause| failed("read", item, cause))?;
        let chunking = Arc::clone(&request.chunking);
        let text = item.to_string();
        let tree = background::read("read-artifact", &text.clone(), move |outbox| {
            scan(&text, &store, &definition, &chunking, outbox)
        })?;
        Ok(OpenItem {
            definition: Some(encoded),
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
        graph_root: &Path,
    ) -> Result<PlacePlan, HostError> {
        let wanted = decode(item, definition)?;
        let mut actions = vec![format!("create artifact {}", text(item))];
        for (_, there) in list(graph_root)? {
            if there.digest == wanted.digest() && there.name == wanted.name() {
                actions = vec![format!("complete artifact {}", text(item))];
            } else if there.name.is_some() && there.name == wanted.name() {
                let (name, owner) = (text(item), &there.digest[..12]);
                actions = vec![match request.retag {
                    true => format!("move the name {name} here from artifact {owner}"),
                    false => {
                        format!("leave the name {name} with artifact {owner} (--retag moves it)")
                    }
                }];
            }
        }
        Ok(PlacePlan {
            owners: None,
            actions,
            conflicts: Vec::new(),
            used_by_running: Vec::new(),
            present: Vec::new(),
            room: write::room(&self.destination(wanted.digest()), Existing::Replace),
        })
    }

    /// Prepares the staging of an artifact.
    pub fn write(
        &self,
        request: &WriteRequest,
        item: &Item,
        definition: Option<&[u8]>,
        graph_root: &Path,
        lock: ItemLock,
    ) -> Result<Box<dyn TreeWriter>, HostError> {
        let definition = decode(item, definition)?;
        make_private(&self.staging).map_err(|error| {
            let path = self.staging.as_os_str().as_bytes();
            FsError::new("make", path, FsErrorKind::Other, error)
        })?;
        let tree = write::open(WriteSpec {
            object: item.to_string(),
            destination: self.destination(definition.digest()),
            root_kind: RootKind::Directory,
            existing: Existing::Replace,
            swap: Swap::Exchange,
            chunking: Arc::clone(&request.chunking),
            threads: request.threads,
            root: request.root,
            labels: Labels::default(),
            bytes_expected: None,
        })?;
        let blobs = definition.blobs.iter().map(|blob| blob.digest.clone());
        Ok(Box::new(MadeTreeWriter {
            item: item.clone(),
            tree,
            shape: Shape::default().folder(BLOBS_FOLDER, blobs),
            arrival: ArtifactArrival {
                staged: self.staging.join(definition.digest()),
                graph_root: graph_root.to_owned(),
                definition,
                retag: request.retag,
            },
            _lock: lock,
        }))
    }

    fn destination(&self, digest: &str) -> Destination {
        Destination {
            parent: self.staging.as_os_str().as_bytes().to_vec(),
            name: digest.as_bytes().to_vec(),
        }
    }
}

fn failed(action: &'static str, object: &dyn std::fmt::Display, cause: String) -> HostError {
    HostError::Podman {
        action,
        object: object.to_string(),
        cause,
    }
}

fn text(item: &Item) -> String {
    podkeep_format::item::Escaped(&item.name).to_string()
}

/// All of them, each with a store to read it from.
fn list(graph_root: &Path) -> Result<Vec<(ArtifactStore, Artifact)>, HostError> {
    let list_failed = |cause| failed("list", &"artifacts", cause);
    let Some(store) = ArtifactStore::open(graph_root).map_err(list_failed)? else {
        return Ok(Vec::new());
    };
    let listed = store.list().map_err(list_failed)?.into_iter();
    Ok(listed.map(|artifact| (store.clone(), artifact)).collect())
}

fn decode(item: &Item, definition: Option<&[u8]>) -> Result<ArtifactDefinition, HostError> {
    let action = "read the definition of";
    let Some(bytes) = definition else {
        return Err(failed(action, item, "the snapshot does not hold it".into()));
    };
    let definition = ArtifactDefinition::decode(bytes);
    let definition = definition.map_err(|cause| failed(action, item, cause))?;
    let name = str::from_utf8(&item.name).map_err(|_| not_here(item))?;
    // An item that is called by its digest has no name.
    Ok(
        match name.strip_prefix("sha256:") == Some(definition.digest()) {
            true => definition,
            false => definition.under(name),
        },
    )
}

/// Reads each blob, and makes the tree once all had their digests.
fn scan(
    item: &str,
    store: &ArtifactStore,
    definition: &ArtifactDefinition,
    chunking: &Chunking,
    outbox: &Outbox,
) -> Result<ScanOutcome, Ended> {
    let mut stage = Stage::default();
    let mut files = Vec::new();
    let mut bytes_logical = 0;
    let mut buffer = vec![0; READ_BYTES];
    for blob in &definition.blobs {
        let failed = |cause: String| {
            let cause = format!("blob {}: {cause}", blob.digest);
            Ended::Failed(FsError::new(
                "read",
                item.as_bytes(),
                FsErrorKind::Other,
                cause,
            ))
        };
        let mut content = StreamBuilder::new(chunking);
        let mut hash = Context::new(&SHA256);
        let mut file_read = store.blob(blob).map_err(failed)?;
        loop {
            let len = file_read
                .read(&mut buffer)
                .map_err(|error| failed(error.to_string()))?;
            if len == 0 {
                break;
            }
            hash.update(&buffer[..len]);
            content.push(&buffer[..len], &mut stage);
            stage.counts.bytes_read += len as u64;
            if stage.is_large() {
                outbox.take(&mut stage)?;
            }
        }
        let content = content.finish(&mut stage);
        let found = podkeep_format::id::hex(hash.finish().as_ref());
        if found != blob.digest || content.size != blob.size {
            return Err(failed(format!("it is damaged: its sha256 is {found}")));
        }
        bytes_logical += blob.size;
        files.push(file(blob.digest.clone(), blob.size, content.content));
    }
    let count = files.len() as u64;
    let folder = directory(chunking, BLOBS_FOLDER, files, &mut stage);
    let root = root(chunking, vec![folder], &mut stage);
    stage.counts.files = count;
    stage.counts.bytes_logical = bytes_logical;
    outbox.take(&mut stage)?;
    Ok(ScanOutcome {
        root,
        files: count,
        directories: 2,
        bytes_logical,
        bytes_allocated: bytes_logical,
        incomplete: false,
        layers: Vec::new(),
    })
}

/// An artifact on its way into the store.
struct ArtifactArrival {
    staged: PathBuf,
    graph_root: PathBuf,
    definition: ArtifactDefinition,
    retag: bool,
}

impl Arrival for ArtifactArrival {
    const KIND: &'static str = "an artifact";

    fn finish(
        self,
        item: &Item,
        tree: Box<dyn TreeWriter>,
    ) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        let Self {
            staged,
            graph_root,
            definition,
            retag,
        } = self;
        let (outcome, mut findings) = tree.finish()?;
        let is_missing = |finding: &Finding| finding.kind == FindingKind::NotRestored;
        if !findings.iter().any(is_missing) {
            let added = definition.add_to(&graph_root, &staged.join(BLOBS_FOLDER), retag);
            // What cannot be removed only takes room; the next restore of the artifact clears it away.
            let _ = std::fs::remove_dir_all(&staged);
            let added = added.map_err(|cause| {
                let object = item.to_string();
                FsError::new("restore", object.as_bytes(), FsErrorKind::Other, cause)
            })?;
            if let Some(owner) = added.left {
                let message =
                    format!("the name stays with artifact sha256:{owner}; --retag moves it");
                findings.push(finding(item, FindingKind::NotRestored, message));
            }
            if let Some(owner) = added.taken {
                let message = format!("the name was taken from artifact sha256:{owner}");
                findings.push(finding(item, FindingKind::Note, message));
            }
        }
        Ok((outcome, findings))
    }
}
