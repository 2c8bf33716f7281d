//! Layers of an image that is in a store.

use std::sync::Arc;

use super::scan::{LayerFailure, LayerSource, LayerStream};
use crate::fs::FsErrorKind;
use crate::podman::{LayerError, LayerEvent, LayerReader, Storage, StoreListing, StoredLayer};

/// Bottom first.
pub(super) struct StoredLayers {
    pub storage: Storage,
    pub listing: Arc<StoreListing>,
    pub layers: Vec<StoredLayer>,
}

impl LayerSource for StoredLayers {
    fn open(&self, number: usize) -> Result<Box<dyn LayerStream + '_>, LayerFailure> {
        let layer = &self.layers[number];
        let reader = LayerReader::open(&self.storage, &self.listing, layer);
        Ok(Box::new(reader?))
    }
}

impl LayerStream for LayerReader {
    fn next_event(&mut self) -> Result<LayerEvent<'_>, LayerFailure> {
        Ok(LayerReader::next_event(self)?)
    }
}

impl From<LayerError> for LayerFailure {
    fn from(error: LayerError) -> Self {
        Self {
            kind: match error {
                LayerError::Gone { .. } => FsErrorKind::NotFound,
                _ => FsErrorKind::Other,
            },
            cause: error.to_string(),
        }
    }
}
