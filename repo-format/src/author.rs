//! Authors ("Authors" in the specification): who may write, and who may no more. Both objects
//! are in clear and signed by the owner.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{self, ObjectKind, decode_ids, decode_text, decode_time, encode_time};
use crate::id::{AuthorId, RepositoryId};
use crate::keys::LABEL_BYTES_MAX;
use crate::names::NUMBER_MAX;
use crate::seal::AuthorKey;
use crate::tree::Time;

/// Authors of one revocation list.
pub const REVOKED_MAX: u64 = 1 << 14;

/// Says that what this author signs counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorCertificate {
    pub author: AuthorId,
    /// What people call the author; in clear.
    pub label: String,
    pub created: Time,
}

impl AuthorCertificate {
    /// The object's bytes. Refuses what a reader would refuse.
    pub fn encode(
        &self,
        repository: RepositoryId,
        owner: &AuthorKey,
    ) -> Result<Vec<u8>, DecodeError> {
        let body = self.encode_body();
        Self::decode_body(&body)?;
        Ok(encode_owned(ObjectKind::Author, repository, owner, &body))
    }

    /// Refuses a certificate that `owner` did not sign for `repository`.
    pub fn decode(
        bytes: &[u8],
        repository: RepositoryId,
        owner: AuthorId,
    ) -> Result<Self, DecodeError> {
        Self::decode_body(open_owned(ObjectKind::Author, bytes, repository, owner)?)
    }

    /// The fields behind the owner's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.author.0).bytes(self.label.as_bytes());
        encode_time(&self.created, &mut out);
        out.finish()
    }

    pub fn decode_body(body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(ObjectKind::Author.word(), body);
        let certificate = Self {
            author: AuthorId(input.array()?),
            label: decode_text(&mut input, "label", LABEL_BYTES_MAX)?,
            created: decode_time(&mut input)?,
        };
        input.end()?;
        Ok(certificate)
    }
}

/// Authors whose objects count no more. Each list holds everything that the lists of lower
/// numbers held; the one with the highest number holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Strictly ascending.
    pub authors: Vec<AuthorId>,
    pub number: u64,
}

impl Revocation {
    /// The object's bytes. Refuses what a reader would refuse.
    pub fn encode(
        &self,
        repository: RepositoryId,
        owner: &AuthorKey,
    ) -> Result<Vec<u8>, DecodeError> {
        let body = self.encode_body();
        Self::decode_body(&body)?;
        Ok(encode_owned(
            ObjectKind::Revocation,
            repository,
            owner,
            &body,
        ))
    }

    /// Refuses a list that `owner` did not sign for `repository`. Whether the number is that of
    /// the object's name is for the caller to compare.
    pub fn decode(
        bytes: &[u8],
        repository: RepositoryId,
        owner: AuthorId,
    ) -> Result<Self, DecodeError> {
        Self::decode_body(open_owned(
            ObjectKind::Revocation,
            bytes,
            repository,
            owner,
        )?)
    }

    /// The fields behind the owner's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.varint(self.number).varint(self.authors.len() as u64);
        for author in &self.authors {
            out.raw(&author.0);
        }
        out.finish()
    }

    pub fn decode_body(body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(ObjectKind::Revocation.word(), body);
        let number = input.bounded("number", NUMBER_MAX)?;
        let authors = decode_ids(&mut input, "authors", REVOKED_MAX, true)?;
        input.end()?;
        Ok(Self {
            authors: authors.into_iter().map(AuthorId).collect(),
            number,
        })
    }
}

fn encode_owned(
    kind: ObjectKind,
    repository: RepositoryId,
    owner: &AuthorKey,
    body: &[u8],
) -> Vec<u8> {
    let mut out = frame::begin_signed(kind, owner.id());
    out.raw(body);
    frame::finish_signed(kind, out, repository, owner)
}

fn open_owned(
    kind: ObjectKind,
    bytes: &[u8],
    repository: RepositoryId,
    owner: AuthorId,
) -> Result<&[u8], DecodeError> {
    let (author, mut body) = frame::open_signed(kind, bytes, repository)?;
    if author != owner {
        return body.fail(Defect::NotAuthentic("owner"));
    }
    Ok(body.take_rest())
}
