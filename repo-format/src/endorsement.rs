//! Endorsements ("Endorsements" in the specification): the owner has decoded every block of
//! these segments and found the ids right, and has rebuilt the layers of these records, so that
//! all authors may deduplicate against them.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::frame::{ObjectKind, Statement, decode_ids, decode_time, encode_time};
use crate::id::{AuthorId, EndorsementId, LayerRecordId, SegmentId};
use crate::tree::Time;

/// Segments of one endorsement.
pub const ENDORSED_SEGMENTS_MAX: u64 = 1 << 20;
/// Layer records of one endorsement.
pub const ENDORSED_LAYERS_MAX: u64 = 1 << 18;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The owner.
    pub author: AuthorId,
    /// Strictly ascending.
    pub segments: Vec<SegmentId>,
    /// Strictly ascending.
    pub layers: Vec<LayerRecordId>,
    pub time: Time,
}

impl Statement for Endorsement {
    const KIND: ObjectKind = ObjectKind::Endorsement;

    fn author(&self) -> AuthorId {
        self.author
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        encode_time(&self.time, &mut out);
        out.varint(self.segments.len() as u64);
        for id in &self.segments {
            out.raw(&id.0);
        }
        out.varint(self.layers.len() as u64);
        for id in &self.layers {
            out.raw(&id.0);
        }
        out.finish()
    }

    fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(Self::KIND.word(), body);
        let endorsement = Self {
            author,
            time: decode_time(&mut input)?,
            segments: decode_ids(&mut input, "segments", ENDORSED_SEGMENTS_MAX, true)?
                .into_iter()
                .map(SegmentId)
                .collect(),
            layers: decode_ids(&mut input, "layer records", ENDORSED_LAYERS_MAX, true)?
                .into_iter()
                .map(LayerRecordId)
                .collect(),
        };
        input.end()?;
        Ok(endorsement)
    }
}

/// The id of the endorsement that has these bytes.
pub fn endorsement_id(bytes: &[u8]) -> EndorsementId {
    EndorsementId(*blake3::hash(bytes).as_bytes())
}
