//! Layers of an image that is in a store: each as it was, or else as a tar of our own making.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use podkeep_format::id::DiffId;

use super::scan::{LayerFailure, LayerSource, LayerStream};
use crate::fs::FsErrorKind;
use crate::podman::{
    LayerEnd, LayerError, LayerEvent, LayerId, LayerReader, NotExact, OwnTar, OwnTarReader,
    Storage, StoreListing, StoredLayer,
};

/// Layers that turned out only while they were read to be none that can be had as they were.
pub(super) type NotExactLayers = Arc<Mutex<HashMap<LayerId, NotExact>>>;

/// Bottom first.
pub(super) struct StoredLayers {
    pub storage: Storage,
    pub listing: Arc<StoreListing>,
    pub layers: Vec<Way>,
    pub not_exact: NotExactLayers,
}

/// How a layer is read.
pub(super) enum Way {
    Exact(StoredLayer),
    Own {
        tar: OwnTar,
        /// What it amounted to when it was measured.
        end: LayerEnd,
        cause: NotExact,
        /// Of the layer's own tar.
        diff_id: Option<DiffId>,
    },
}

impl StoredLayers {
    /// Chooses the way; a layer that `is_known` is not read at all, and so is exact.
    pub fn way(&self, layer: &StoredLayer, is_known: bool) -> Result<Way, LayerError> {
        let found = self
            .not_exact
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let cause = found.get(&layer.id).copied();
        drop(found);
        let cause = match (is_known, cause) {
            (true, _) => None,
            (false, Some(cause)) => Some(cause),
            (false, None) => match LayerReader::open(&self.storage, &self.listing, layer) {
                Err(LayerError::NotExact { cause, .. }) => Some(cause),
                // What else is wrong shows when the layer's turn comes.
                Ok(_) | Err(_) => None,
            },
        };
        let Some(cause) = cause else {
            return Ok(Way::Exact(layer.clone()));
        };
        let tar = OwnTar::plan(&self.storage, &self.listing, layer)?;
        Ok(Way::Own {
            end: tar.measure()?,
            tar,
            cause,
            diff_id: layer.diff_id.or(layer.expected_diff_id),
        })
    }
}

impl LayerSource for StoredLayers {
    fn open(&self, number: usize) -> Result<Box<dyn LayerStream + '_>, LayerFailure> {
        Ok(match &self.layers[number] {
            Way::Exact(layer) => Box::new(ExactLayer {
                reader: LayerReader::open(&self.storage, &self.listing, layer)?,
                not_exact: &self.not_exact,
            }),
            Way::Own { tar, end, .. } => Box::new(OwnLayer {
                reader: tar.read(),
                expected: *end,
            }),
        })
    }
}

struct ExactLayer<'s> {
    reader: LayerReader,
    not_exact: &'s NotExactLayers,
}

impl LayerStream for ExactLayer<'_> {
    fn next_event(&mut self) -> Result<LayerEvent<'_>, LayerFailure> {
        Ok(self.reader.next_event().inspect_err(|error| {
            if let LayerError::NotExact { layer, cause } = error {
                let found = self.not_exact.lock();
                found
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(*layer, *cause);
            }
        })?)
    }
}

struct OwnLayer<'t> {
    reader: OwnTarReader<'t>,
    expected: LayerEnd,
}

impl LayerStream for OwnLayer<'_> {
    fn next_event(&mut self) -> Result<LayerEvent<'_>, LayerFailure> {
        match self.reader.next_event()? {
            LayerEvent::End(end) if end != self.expected => {
                Err("a layer changed while it was read".to_owned().into())
            }
            event => Ok(event),
        }
    }
}

impl From<LayerError> for LayerFailure {
    fn from(error: LayerError) -> Self {
        Self {
            kind: match error {
                LayerError::Gone { .. } => FsErrorKind::NotFound,
                LayerError::NotExact { .. } => FsErrorKind::NotExact,
                _ => FsErrorKind::Other,
            },
            cause: error.to_string(),
        }
    }
}
