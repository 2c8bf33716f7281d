//! Fences and verdicts ("Fences and verdicts" in the specification): prune holds a lease that
//! stands still to have ended, and says which of its snapshots count. Neither is ever deleted.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{self, ObjectKind, decode_ids, decode_time, encode_time};
use crate::id::{AuthorId, LeaseId, RepositoryId, SnapshotId};
use crate::seal::{AuthorKey, SALT_BYTES, Secret};
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

impl Fence {
    /// `author` must be the key of `self.author`.
    pub fn seal(
        &self,
        repository: RepositoryId,
        index: &Secret,
        author: &AuthorKey,
        salt: &[u8; SALT_BYTES],
    ) -> Result<Vec<u8>, DecodeError> {
        let kind = ObjectKind::Fence;
        if self.author != author.id() {
            return Err(kind.error(Defect::NotAuthentic("author")));
        }
        let body = self.encode_body();
        Self::decode_body(self.author, &body)?;
        frame::seal_indexed(kind, repository, index, author, salt, body)
    }

    /// Whether the author may do this, and whether the lease is that of the object's name, is
    /// for the caller to say.
    pub fn open(
        bytes: &[u8],
        repository: RepositoryId,
        index: &Secret,
    ) -> Result<Self, DecodeError> {
        let (author, body) = frame::open_indexed(ObjectKind::Fence, bytes, repository, index)?;
        Self::decode_body(author, &body)
    }

    /// The fields behind the author's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.lease.0).raw(&self.prune.0);
        encode_time(&self.time, &mut out);
        out.finish()
    }

    pub fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(ObjectKind::Fence.word(), body);
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
    /// `author` must be the key of `self.author`.
    pub fn seal(
        &self,
        repository: RepositoryId,
        index: &Secret,
        author: &AuthorKey,
        salt: &[u8; SALT_BYTES],
    ) -> Result<Vec<u8>, DecodeError> {
        let kind = ObjectKind::Verdict;
        if self.author != author.id() {
            return Err(kind.error(Defect::NotAuthentic("author")));
        }
        let body = self.encode_body();
        Self::decode_body(self.author, &body)?;
        frame::seal_indexed(kind, repository, index, author, salt, body)
    }

    /// Whether the author may do this, and whether the lease is that of the object's name, is
    /// for the caller to say.
    pub fn open(
        bytes: &[u8],
        repository: RepositoryId,
        index: &Secret,
    ) -> Result<Self, DecodeError> {
        let (author, body) = frame::open_indexed(ObjectKind::Verdict, bytes, repository, index)?;
        Self::decode_body(author, &body)
    }

    /// Whether the verdict names `snapshot`.
    pub fn counts(&self, snapshot: &SnapshotId) -> bool {
        self.snapshots.binary_search(snapshot).is_ok()
    }

    /// The fields behind the author's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.lease.0).raw(&self.prune.0);
        encode_time(&self.time, &mut out);
        out.varint(self.snapshots.len() as u64);
        for id in &self.snapshots {
            out.raw(&id.0);
        }
        out.finish()
    }

    pub fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(ObjectKind::Verdict.word(), body);
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
