//! Tombstones ("Tombstones" in the specification): prune means to delete this pack, and nobody
//! may begin to need it.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{self, ObjectKind, decode_time, encode_time};
use crate::id::{AuthorId, LeaseId, PackId, RepositoryId};
use crate::seal::{AuthorKey, SALT_BYTES, Secret};
use crate::tree::Time;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub pack: PackId,
    /// The lease of the prune that put it.
    pub prune: LeaseId,
    pub author: AuthorId,
    pub time: Time,
}

impl Tombstone {
    /// `author` must be the key of `self.author`.
    pub fn seal(
        &self,
        repository: RepositoryId,
        index: &Secret,
        author: &AuthorKey,
        salt: &[u8; SALT_BYTES],
    ) -> Result<Vec<u8>, DecodeError> {
        let kind = ObjectKind::Tombstone;
        if self.author != author.id() {
            return Err(kind.error(Defect::NotAuthentic("author")));
        }
        let body = self.encode_body();
        Self::decode_body(self.author, &body)?;
        frame::seal_indexed(kind, repository, index, author, salt, body)
    }

    /// Whether the author may do this, and whether the pack is that of the object's name, is for
    /// the caller to say.
    pub fn open(
        bytes: &[u8],
        repository: RepositoryId,
        index: &Secret,
    ) -> Result<Self, DecodeError> {
        let (author, body) = frame::open_indexed(ObjectKind::Tombstone, bytes, repository, index)?;
        Self::decode_body(author, &body)
    }

    /// The fields behind the author's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.pack.0).raw(&self.prune.0);
        encode_time(&self.time, &mut out);
        out.finish()
    }

    pub fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(ObjectKind::Tombstone.word(), body);
        let tombstone = Self {
            author,
            pack: PackId(input.array()?),
            prune: LeaseId(input.array()?),
            time: decode_time(&mut input)?,
        };
        input.end()?;
        Ok(tombstone)
    }
}
