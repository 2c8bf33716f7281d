//! Layers of an image that is in a store.

use std::sync::Arc;

use super::scan::{LayerSource, LayerStream};
use crate::podman::{LayerEvent, LayerReader, Storage, StoreListing, StoredLayer};

/// Bottom first.
pub(super) struct StoredLayers {
    pub storage: Storage,
    pub listing: Arc<StoreListing>,
    pub layers: Vec<StoredLayer>,
}

impl LayerSource for StoredLayers {
    fn open(&self, number: usize) -> Result<Box<dyn LayerStream + '_>, String> {
        let layer = &self.layers[number];
        let reader = LayerReader::open(&self.storage, &self.listing, layer);
        Ok(Box::new(reader.map_err(|error| error.to_string())?))
    }
}

impl LayerStream for LayerReader {
    fn next_event(&mut self) -> Result<LayerEvent<'_>, String> {
        LayerReader::next_event(self).map_err(|error| error.to_string())
    }
}
