//! Layer records ("Layer records" in the specification): a layer that the repository holds, so
//! that a writer that meets its DiffID again need not read it.
//!
//! A record is only as good as who signed it: whoever relies on one asks first whether its author
//! counts, and whether every chunk that it lists is known.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{ObjectKind, Statement, decode_ids};
use crate::id::{AuthorId, ChunkId, LayerKey, LayerRecordId};
use crate::recipe::LAYER_BYTES_MAX;

/// Chunks of one layer: 32 GiB of contents at the default chunk size.
pub const LAYER_CHUNKS_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    pub author: AuthorId,
    /// Of the layer's DiffID.
    pub layer: LayerKey,
    /// A chunk of kind `Recipe`.
    pub recipe: ChunkId,
    /// Bytes of the layer's tar, at most [`LAYER_BYTES_MAX`].
    pub size: u64,
    /// Everything that rebuilding the layer needs: the recipe, list nodes, data. Strictly
    /// ascending.
    pub chunks: Vec<ChunkId>,
}

impl Statement for LayerRecord {
    const KIND: ObjectKind = ObjectKind::LayerRecord;

    fn author(&self) -> AuthorId {
        self.author
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.layer.0)
            .raw(&self.recipe.0)
            .varint(self.size)
            .varint(self.chunks.len() as u64);
        for id in &self.chunks {
            out.raw(&id.0);
        }
        out.finish()
    }

    fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(Self::KIND.word(), body);
        let record = Self {
            author,
            layer: LayerKey(input.array()?),
            recipe: ChunkId(input.array()?),
            size: input.bounded("layer size", LAYER_BYTES_MAX)?,
            chunks: decode_ids(&mut input, "chunks", LAYER_CHUNKS_MAX, true)?
                .into_iter()
                .map(ChunkId)
                .collect(),
        };
        input.end()?;
        if record.chunks.binary_search(&record.recipe).is_err() {
            return input.fail(Defect::NotCanonical("chunks"));
        }
        Ok(record)
    }
}

/// The id of the layer record that has these bytes.
pub fn layer_record_id(bytes: &[u8]) -> LayerRecordId {
    LayerRecordId(*blake3::hash(bytes).as_bytes())
}
