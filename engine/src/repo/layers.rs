//! Layer records: which layers the repository holds, so that they need not be read again
//! ("Known" in the protocol).
//!
//! A write key cannot read recipes, and nobody wants to read one for each layer of each run. So a
//! record lists what a layer needs, and its author's word is taken for that: only where the
//! author is this writer or the owner, or the owner rebuilt the layer and endorsed the record.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use podkeep_format::frame::{ObjectKind, Statement};
use podkeep_format::id::{ChunkId, DiffId, LayerKey, LayerRecordId, LeaseId};
use podkeep_format::layer::{LAYER_CHUNKS_MAX, LayerRecord, layer_record_id};
use podkeep_format::names;
pub use podkeep_format::recipe::KnownLayer;

use super::reader::is_fatal;
use super::writer::Writer;
use super::{RepoError, RepoResult, Repository, listed, name, random};
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::store::StoreErrorKind;

/// Records that are read for one layer: somebody may have put many that do not count.
const RECORDS_READ_MAX: usize = 16;

/// The layer records of a repository, as one lease sees them.
#[derive(Default)]
pub struct LayerRecords {
    listed: BTreeMap<LayerKey, Vec<LayerRecordId>>,
    /// Layers that this run stored.
    own: HashMap<DiffId, KnownLayer>,
    /// Records of those that are not put yet.
    waiting: Vec<LayerRecord>,
}

impl LayerRecords {
    /// Lists the records. Comes after the index was loaded for the same lease; which records
    /// count is looked at when one is wanted.
    pub fn list(repo: &Repository) -> RepoResult<Self> {
        let mut records = Self::default();
        for meta in repo.store().list("layers")? {
            if let Some((layer, record)) = listed::layer(meta.name.as_str()) {
                records.listed.entry(layer).or_default().push(record);
            }
        }
        Ok(records)
    }

    /// The layer, if a record of it counts and all that it needs is known to `writer`. A record
    /// that cannot be read is a note (one that prune deleted meanwhile is nothing); only a store
    /// that is gone is an error.
    pub fn find(
        &self,
        repo: &Repository,
        writer: &mut Writer,
        diff_id: DiffId,
        monitor: &dyn Monitor,
    ) -> RepoResult<Option<KnownLayer>> {
        if let Some(layer) = self.own.get(&diff_id) {
            return Ok(Some(*layer));
        }
        let key = repo.vault().ids.layer_key(&diff_id);
        let mut ids = self.listed.get(&key).cloned().unwrap_or_default();
        // Of the endorsed ones it is certain, before they are read, that they count.
        ids.sort_by_key(|id| !writer.index().trust().endorses_layer(id));
        for id in ids.into_iter().take(RECORDS_READ_MAX) {
            let record = match repo.layer_record(key, id) {
                Ok(record) => record,
                Err(error) if is_fatal(&error) => return Err(error),
                Err(RepoError::Store(error)) if error.kind == StoreErrorKind::NotFound => continue,
                Err(error) => {
                    monitor.finding(Finding {
                        object: names::layer(key, id),
                        kind: FindingKind::Note,
                        snapshots: Vec::new(),
                        paths: Vec::new(),
                        message: format!("{error}; its layer is read without it"),
                    });
                    continue;
                }
            };
            if writer.index().trust().covers_layer(&id, record.author)
                && record.chunks.iter().all(|chunk| writer.knows(chunk))
            {
                return Ok(Some(KnownLayer {
                    diff_id,
                    recipe: record.recipe,
                    size: record.size,
                }));
            }
        }
        Ok(None)
    }

    /// A layer that this run gave to its writer as a whole; its sha256 was compared with its
    /// DiffID. `chunks`: all that it needs, the recipe too. It is found from now on, and a record
    /// of it is put with the next [`put`](Self::put).
    ///
    /// One of more than [`LAYER_CHUNKS_MAX`] chunks gets no record: the next run reads it again.
    pub fn add(&mut self, repo: &Repository, layer: KnownLayer, chunks: BTreeSet<ChunkId>) {
        self.own.insert(layer.diff_id, layer);
        if chunks.len() as u64 <= LAYER_CHUNKS_MAX {
            self.waiting.push(LayerRecord {
                author: repo.author().id(),
                layer: repo.vault().ids.layer_key(&layer.diff_id),
                recipe: layer.recipe,
                size: layer.size,
                chunks: chunks.into_iter().collect(),
            });
        }
    }

    /// Puts the records of the layers that were added. The writer was flushed since: a segment
    /// that names their chunks is durable.
    pub fn put(&mut self, repo: &Repository, lease: LeaseId) -> RepoResult<()> {
        for record in std::mem::take(&mut self.waiting) {
            let bytes = record
                .seal(repo.id(), &repo.vault().index, repo.author(), &random()?)
                .map_err(|e| RepoError::damaged("a layer record", e))?;
            let object = names::layer(record.layer, layer_record_id(&bytes));
            repo.traffic
                .put(repo.store(), Some(lease), &object, &bytes)?;
        }
        Ok(())
    }
}

impl Repository {
    /// A layer record that is what its name says. Whether it counts is for the caller to say.
    pub fn layer_record(&self, layer: LayerKey, id: LayerRecordId) -> RepoResult<LayerRecord> {
        let object = name(names::layer(layer, id))?;
        let damaged = |cause: &str| RepoError::Damaged {
            object: object.to_string(),
            cause: cause.into(),
        };
        let bytes = self
            .store()
            .get(&object, ObjectKind::LayerRecord.bytes_max() as u64)?;
        if layer_record_id(&bytes) != id {
            return Err(damaged("its bytes do not hash to its name"));
        }
        let record = LayerRecord::open(&bytes, self.id(), &self.vault().index)
            .map_err(|e| RepoError::damaged(&object, e))?;
        if record.layer != layer {
            return Err(damaged("it is of another layer than its name says"));
        }
        Ok(record)
    }
}
