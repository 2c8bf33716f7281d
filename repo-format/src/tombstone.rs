//! Tombstones ("Tombstones" in the specification): prune means to delete this pack, and nobody
//! may begin to need it.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::frame::{ObjectKind, Statement, decode_time, encode_time};
use crate::id::{AuthorId, LeaseId, PackId};
use crate::tree::Time;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub pack: PackId,
    /// The lease of the prune that put it.
    pub prune: LeaseId,
    pub author: AuthorId,
    pub time: Time,
}

impl Statement for Tombstone {
    const KIND: ObjectKind = ObjectKind::Tombstone;

    fn author(&self) -> AuthorId {
        self.author
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.pack.0).raw(&self.prune.0);
        encode_time(&self.time, &mut out);
        out.finish()
    }

    fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(Self::KIND.word(), body);
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
