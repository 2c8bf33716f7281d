//! Fences and verdicts ("Fences and verdicts" in the specification): prune holds a lease that
//! stands still to have ended, and says which of its snapshots count. Neither is ever deleted.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::frame::{ObjectKind, Statement, decode_ids, decode_time, encode_time};
use crate::id::{AuthorId, LeaseId, SnapshotId};
use crate::tree::Time;

/// Snapshots of one lease.
pub const VERDICT_SNAPSHOTS_MAX: u64 = 1 << 20;

/// Nothing that is published under `lease` from now on counts, unless the verdict names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub lease: LeaseId,
    /// The lease of the prune that put it.
    pub prune: LeaseId,
    pub author: AuthorId,
    pub time: Time,
}

impl Statement for Fence {
    const KIND: ObjectKind = ObjectKind::Fence;

    fn author(&self) -> AuthorId {
        self.author
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.lease.0).raw(&self.prune.0);
        encode_time(&self.time, &mut out);
        out.finish()
    }

    fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(Self::KIND.word(), body);
        let fence = Self {
            author,
            lease: LeaseId(input.array()?),
            prune: LeaseId(input.array()?),
            time: decode_time(&mut input)?,
        };
        input.end()?;
        Ok(fence)
    }
}

/// Which snapshots of a fenced lease count: those that were there when the fence was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub lease: LeaseId,
    /// The lease of the prune that put it.
    pub prune: LeaseId,
    pub author: AuthorId,
    /// Strictly ascending.
    pub snapshots: Vec<SnapshotId>,
    pub time: Time,
}

impl Verdict {
    /// Whether the verdict names `snapshot`.
    pub fn counts(&self, snapshot: &SnapshotId) -> bool {
        self.snapshots.binary_search(snapshot).is_ok()
    }
}

impl Statement for Verdict {
    const KIND: ObjectKind = ObjectKind::Verdict;

    fn author(&self) -> AuthorId {
        self.author
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.lease.0).raw(&self.prune.0);
        encode_time(&self.time, &mut out);
        out.varint(self.snapshots.len() as u64);
        for id in &self.snapshots {
            out.raw(&id.0);
        }
        out.finish()
    }

    fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(Self::KIND.word(), body);
        let verdict = Self {
            author,
            lease: LeaseId(input.array()?),
            prune: LeaseId(input.array()?),
            time: decode_time(&mut input)?,
            snapshots: decode_ids(&mut input, "snapshots", VERDICT_SNAPSHOTS_MAX, true)?
                .into_iter()
                .map(SnapshotId)
                .collect(),
        };
        input.end()?;
        Ok(verdict)
    }
}
