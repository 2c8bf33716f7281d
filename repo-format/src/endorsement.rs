//! Endorsements ("Endorsements" in the specification): the owner has decoded every block of
//! these segments and found the ids right, so that all authors may deduplicate against them.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{self, ObjectKind, decode_ids, decode_time, encode_time};
use crate::id::{AuthorId, EndorsementId, RepositoryId, SegmentId};
use crate::seal::{AuthorKey, SALT_BYTES, Secret};
use crate::tree::Time;

/// Segments of one endorsement.
pub const ENDORSED_SEGMENTS_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The owner.
    pub author: AuthorId,
    /// Strictly ascending.
    pub segments: Vec<SegmentId>,
    pub time: Time,
}

impl Endorsement {
    /// `author` must be the key of `self.author`.
    pub fn seal(
        &self,
        repository: RepositoryId,
        index: &Secret,
        author: &AuthorKey,
        salt: &[u8; SALT_BYTES],
    ) -> Result<Vec<u8>, DecodeError> {
        let kind = ObjectKind::Endorsement;
        if self.author != author.id() {
            return Err(kind.error(Defect::NotAuthentic("author")));
        }
        let body = self.encode_body();
        Self::decode_body(self.author, &body)?;
        frame::seal_indexed(kind, repository, index, author, salt, body)
    }

    /// Whether the author is the owner is for the caller to say.
    pub fn open(
        bytes: &[u8],
        repository: RepositoryId,
        index: &Secret,
    ) -> Result<Self, DecodeError> {
        let (author, body) =
            frame::open_indexed(ObjectKind::Endorsement, bytes, repository, index)?;
        Self::decode_body(author, &body)
    }

    /// The fields behind the author's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        encode_time(&self.time, &mut out);
        out.varint(self.segments.len() as u64);
        for id in &self.segments {
            out.raw(&id.0);
        }
        out.finish()
    }

    pub fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(ObjectKind::Endorsement.word(), body);
        let endorsement = Self {
            author,
            time: decode_time(&mut input)?,
            segments: decode_ids(&mut input, "segments", ENDORSED_SEGMENTS_MAX, true)?
                .into_iter()
                .map(SegmentId)
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
