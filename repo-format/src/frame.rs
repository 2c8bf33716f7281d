//! The outer form that all small objects share ("Framing" in the specification).
//!
//! Magic bytes and version in front, an unkeyed BLAKE3 of everything before it at the end, so
//! that a store, a mirror or a reader without keys can tell a damaged copy from a good one. A
//! signed object names its author behind the version and carries the signature before the
//! checksum; the signature covers every byte in front of it, salts and sealed bytes included, so
//! that nobody else can wrap the same statement anew under another name.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::{AuthorId, RepositoryId};
use crate::seal::{
    AuthorKey, Domain, FORMAT_VERSION, SALT_BYTES, SIGNATURE_BYTES, Secret, SessionSeal, TAG_BYTES,
    verify,
};
use crate::tree::Time;

/// Bytes of the checksum at the end.
pub const CHECKSUM_BYTES: usize = 32;
/// Magic bytes and version.
pub const HEAD_BYTES: usize = MAGIC_HEAD.len() + 1 + 1;
const MAGIC_HEAD: [u8; 7] = *b"podkeep";

/// The kinds of objects that have this frame; the number is the last byte of the magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    Config = b'C',
    KeySlot = b'K',
    Author = b'A',
    Revocation = b'X',
    Snapshot = b'S',
    Run = b'R',
    Lease = b'L',
    Tombstone = b'T',
    Fence = b'F',
    Verdict = b'V',
    Endorsement = b'E',
    LayerRecord = b'D',
}

impl ObjectKind {
    pub const ALL: [Self; 12] = [
        Self::Config,
        Self::KeySlot,
        Self::Author,
        Self::Revocation,
        Self::Snapshot,
        Self::Run,
        Self::Lease,
        Self::Tombstone,
        Self::Fence,
        Self::Verdict,
        Self::Endorsement,
        Self::LayerRecord,
    ];

    /// What errors call such an object.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Config => "repository config",
            Self::KeySlot => "key slot",
            Self::Author => "author certificate",
            Self::Revocation => "revocation list",
            Self::Snapshot => "item snapshot",
            Self::Run => "run record",
            Self::Lease => "lease",
            Self::Tombstone => "tombstone",
            Self::Fence => "fence",
            Self::Verdict => "verdict",
            Self::Endorsement => "endorsement",
            Self::LayerRecord => "layer record",
        }
    }

    /// Bytes of one object, frame included. A reader asks a store for no more.
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Config | Self::KeySlot | Self::Author | Self::Lease => 64 << 10,
            Self::Tombstone | Self::Fence => 4 << 10,
            Self::Revocation => 1 << 20,
            Self::Snapshot => 4 << 20,
            Self::Run | Self::Verdict | Self::Endorsement | Self::LayerRecord => 64 << 20,
        }
    }

    /// The domain of the signature, and of the seal where the whole object has only one.
    pub const fn domain(self) -> Domain {
        match self {
            Self::Config => Domain::Config,
            Self::KeySlot => Domain::KeySlot,
            Self::Author => Domain::Author,
            Self::Revocation => Domain::Revocation,
            Self::Snapshot => Domain::SnapshotBody,
            Self::Run => Domain::Run,
            Self::Lease => Domain::Lease,
            Self::Tombstone => Domain::Tombstone,
            Self::Fence => Domain::Fence,
            Self::Verdict => Domain::Verdict,
            Self::Endorsement => Domain::Endorsement,
            Self::LayerRecord => Domain::LayerRecord,
        }
    }

    fn magic(self) -> [u8; 8] {
        let mut magic = [self as u8; 8];
        magic[..7].copy_from_slice(&MAGIC_HEAD);
        magic
    }

    pub(crate) fn error(self, defect: Defect) -> DecodeError {
        DecodeError {
            object: self.word(),
            defect,
        }
    }
}

/// Magic bytes and version; what is appended next is the body.
pub(crate) fn begin(kind: ObjectKind) -> Encoder {
    let mut out = Encoder::new();
    out.raw(&kind.magic()).u8(FORMAT_VERSION);
    out
}

/// Appends the checksum.
pub(crate) fn finish(mut out: Encoder) -> Vec<u8> {
    let checksum = blake3::hash(out.as_slice());
    out.raw(checksum.as_bytes());
    out.finish()
}

/// Checks size, magic, version and checksum; returns the body.
pub(crate) fn open(kind: ObjectKind, bytes: &[u8]) -> Result<Decoder<'_>, DecodeError> {
    if bytes.len() > kind.bytes_max() {
        return Err(kind.error(Defect::TooLarge("object")));
    }
    let mut head = Decoder::new(kind.word(), bytes);
    if head.array::<8>()? != kind.magic() {
        return head.fail(Defect::Magic);
    }
    let version = head.u8()?;
    if version != FORMAT_VERSION {
        return head.fail(Defect::Version(u32::from(version)));
    }
    let Some(end) = bytes
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .filter(|end| *end >= HEAD_BYTES)
    else {
        return head.fail(Defect::Truncated);
    };
    let (checked, checksum) = bytes.split_at(end);
    if blake3::hash(checked) != *checksum {
        return head.fail(Defect::NotAuthentic("checksum"));
    }
    Ok(Decoder::new(kind.word(), &checked[HEAD_BYTES..]))
}

/// [`begin`], and the author that will sign.
pub(crate) fn begin_signed(kind: ObjectKind, author: AuthorId) -> Encoder {
    let mut out = begin(kind);
    out.raw(&author.0);
    out
}

/// Appends signature and checksum.
pub(crate) fn finish_signed(
    kind: ObjectKind,
    mut out: Encoder,
    repository: RepositoryId,
    author: &AuthorKey,
) -> Vec<u8> {
    let signature = author.sign(repository, kind.domain(), out.as_slice());
    out.raw(&signature);
    finish(out)
}

/// An object whose frame is sound and whose signature is not yet checked: the config says itself
/// which repository it is of.
pub(crate) struct Unverified<'a> {
    pub author: AuthorId,
    pub body: &'a [u8],
    signed: &'a [u8],
    signature: [u8; SIGNATURE_BYTES],
    kind: ObjectKind,
}

impl Unverified<'_> {
    pub fn verify(&self, repository: RepositoryId) -> Result<(), DecodeError> {
        verify(
            self.author,
            repository,
            self.kind.domain(),
            self.signed,
            &self.signature,
        )
        .map_err(|error| self.kind.error(error.defect))
    }
}

pub(crate) fn open_unverified(
    kind: ObjectKind,
    bytes: &[u8],
) -> Result<Unverified<'_>, DecodeError> {
    let mut input = open(kind, bytes)?;
    let author = AuthorId(input.array()?);
    let body_bytes = match input.remaining().checked_sub(SIGNATURE_BYTES) {
        Some(len) => len,
        None => return input.fail(Defect::Truncated),
    };
    let body = input.raw(body_bytes)?;
    Ok(Unverified {
        author,
        body,
        signed: &bytes[..HEAD_BYTES + AuthorId::LEN + body_bytes],
        signature: input.array()?,
        kind,
    })
}

/// The author, whose signature holds, and the body.
pub(crate) fn open_signed(
    kind: ObjectKind,
    bytes: &[u8],
    repository: RepositoryId,
) -> Result<(AuthorId, Decoder<'_>), DecodeError> {
    let unverified = open_unverified(kind, bytes)?;
    unverified.verify(repository)?;
    Ok((
        unverified.author,
        Decoder::new(kind.word(), unverified.body),
    ))
}

/// A signed object that is sealed as a whole under a key from the index key: `salt` in clear,
/// then the sealed body.
pub trait Statement: Sized {
    const KIND: ObjectKind;

    fn author(&self) -> AuthorId;

    /// The fields behind the author's id.
    fn encode_body(&self) -> Vec<u8>;

    fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError>;

    /// The object's bytes. Refuses what a reader would refuse. `author` must be the key of
    /// [`author`](Self::author).
    fn seal(
        &self,
        repository: RepositoryId,
        index: &Secret,
        author: &AuthorKey,
        salt: &[u8; SALT_BYTES],
    ) -> Result<Vec<u8>, DecodeError> {
        let kind = Self::KIND;
        if self.author() != author.id() {
            return Err(kind.error(Defect::NotAuthentic("author")));
        }
        let mut body = self.encode_body();
        Self::decode_body(self.author(), &body)?;
        let mut out = begin_signed(kind, author.id());
        out.raw(salt);
        index
            .object_key(repository, kind.domain(), salt)
            .seal(out.as_slice(), &mut body)?;
        out.raw(&body);
        check_size(kind, out.len() + SIGNATURE_BYTES + CHECKSUM_BYTES)?;
        Ok(finish_signed(kind, out, repository, author))
    }

    /// The author's signature holds. Whether the author may say this, and whether it is of what
    /// the object's name says, is for the caller to say.
    fn open(bytes: &[u8], repository: RepositoryId, index: &Secret) -> Result<Self, DecodeError> {
        let kind = Self::KIND;
        let (author, mut body) = open_signed(kind, bytes, repository)?;
        let salt = body.array()?;
        let mut sealed = body.take_rest().to_vec();
        let opened = index
            .object_key(repository, kind.domain(), &salt)
            .open(
                &bytes[..HEAD_BYTES + AuthorId::LEN + SALT_BYTES],
                0,
                &mut sealed,
            )
            .map_err(|error| kind.error(error.defect))?;
        Self::decode_body(author, opened)
    }
}

/// What sealing an object for the holders of the private key needs.
pub struct SessionKeys<'a> {
    pub repository: RepositoryId,
    /// Signs; must be the author that `seal` was made for.
    pub author: &'a AuthorKey,
    pub session: &'a Secret,
    /// `session`, sealed to the repository's public key.
    pub seal: &'a SessionSeal,
    /// Fresh and random for each object.
    pub salt: [u8; SALT_BYTES],
}

/// Appends session seal and sealed plaintext to a signed object that holds the salt; bound to
/// everything before it.
pub(crate) fn seal_session(
    kind: ObjectKind,
    out: &mut Encoder,
    keys: &SessionKeys<'_>,
    mut plaintext: Vec<u8>,
) -> Result<(), DecodeError> {
    keys.seal.encode(out);
    out.varint((plaintext.len() + TAG_BYTES) as u64);
    keys.session
        .object_key(keys.repository, kind.domain(), &keys.salt)
        .seal(out.as_slice(), &mut plaintext)?;
    out.raw(&plaintext);
    check_size(kind, out.len() + SIGNATURE_BYTES + CHECKSUM_BYTES)
}

/// The sealed end of an object, as [`seal_session`] appended it.
#[derive(Clone, Debug)]
pub(crate) struct SealedForReaders {
    pub repository: RepositoryId,
    pub author: AuthorId,
    kind: ObjectKind,
    salt: [u8; SALT_BYTES],
    session: SessionSeal,
    /// Everything in front of the sealed bytes, which binds them.
    front: Vec<u8>,
    sealed: Vec<u8>,
}

impl SealedForReaders {
    /// Takes it off `body`, which must end there. `bytes` is the whole object.
    pub fn decode(
        kind: ObjectKind,
        bytes: &[u8],
        repository: RepositoryId,
        author: AuthorId,
        salt: [u8; SALT_BYTES],
        mut body: Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let session = SessionSeal::decode(&mut body)?;
        let len = body.bounded("sealed bytes", kind.bytes_max() as u64)? as usize;
        let front = bytes.len() - CHECKSUM_BYTES - SIGNATURE_BYTES - body.remaining();
        let sealed = body.raw(len)?.to_vec();
        body.end()?;
        Ok(Self {
            repository,
            author,
            kind,
            salt,
            session,
            front: bytes[..front].to_vec(),
            sealed,
        })
    }

    pub fn session(&self) -> &SessionSeal {
        &self.session
    }

    /// The plaintext.
    pub fn open(&self, session: &Secret) -> Result<Vec<u8>, DecodeError> {
        let mut opened = self.sealed.clone();
        let len = session
            .object_key(self.repository, self.kind.domain(), &self.salt)
            .open(&self.front, 0, &mut opened)
            .map_err(|error| self.kind.error(error.defect))?
            .len();
        opened.truncate(len);
        Ok(opened)
    }
}

/// A writer refuses what a reader would.
pub(crate) fn check_size(kind: ObjectKind, bytes: usize) -> Result<(), DecodeError> {
    if bytes > kind.bytes_max() {
        return Err(kind.error(Defect::TooLarge("object")));
    }
    Ok(())
}

pub(crate) fn encode_time(time: &Time, out: &mut Encoder) {
    out.varint_signed(time.secs).u32(time.nanos);
}

pub(crate) fn decode_time(input: &mut Decoder<'_>) -> Result<Time, DecodeError> {
    let time = Time {
        secs: input.varint_signed()?,
        nanos: input.u32()?,
    };
    if time.nanos >= 1_000_000_000 {
        return input.fail(Defect::TooLarge("nanoseconds"));
    }
    Ok(time)
}

pub(crate) fn decode_bool(
    input: &mut Decoder<'_>,
    field: &'static str,
) -> Result<bool, DecodeError> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => input.fail(Defect::Tag(field, u64::from(other))),
    }
}

/// UTF-8 of at most `max` bytes.
pub(crate) fn decode_text(
    input: &mut Decoder<'_>,
    field: &'static str,
    max: usize,
) -> Result<String, DecodeError> {
    match std::str::from_utf8(input.bytes(field, max)?) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => input.fail(Defect::NotCanonical(field)),
    }
}

/// Up to `count_max` texts of at most `max` bytes each.
pub(crate) fn decode_texts(
    input: &mut Decoder<'_>,
    field: &'static str,
    count_max: u64,
    max: usize,
) -> Result<Vec<String>, DecodeError> {
    let count = input.bounded(field, count_max)?;
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(decode_text(input, field, max)?);
    }
    Ok(texts)
}

pub(crate) fn encode_texts(texts: &[String], out: &mut Encoder) {
    out.varint(texts.len() as u64);
    for text in texts {
        out.bytes(text.as_bytes());
    }
}

/// Up to `count_max` ids of 32 bytes; `sorted`: strictly ascending.
pub(crate) fn decode_ids(
    input: &mut Decoder<'_>,
    field: &'static str,
    count_max: u64,
    sorted: bool,
) -> Result<Vec<[u8; 32]>, DecodeError> {
    let count = input.bounded(field, count_max)?;
    let mut ids: Vec<[u8; 32]> = Vec::new();
    for _ in 0..count {
        let id = input.array()?;
        if sorted && ids.last().is_some_and(|last| *last >= id) {
            return input.fail(Defect::NotCanonical(field));
        }
        ids.push(id);
    }
    Ok(ids)
}
