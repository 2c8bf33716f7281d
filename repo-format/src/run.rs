//! Run records ("Run records" in the specification): what people call a snapshot. Put last, and
//! sealed as a snapshot's body is.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{
    self, ObjectKind, SealedForReaders, SessionKeys, decode_bool, decode_ids, decode_text,
    decode_texts, decode_time, encode_texts, encode_time,
};
use crate::id::{AuthorId, HostId, RepositoryId, RunId, SnapshotId};
use crate::item::Item;
use crate::seal::{PrivateKey, Secret};
use crate::snapshot::{
    FINDING_BYTES_MAX, NAME_TEXT_BYTES_MAX, TAG_TEXT_BYTES_MAX, TAGS_MAX, decode_zone, encode_zone,
};
use crate::tree::Time;

/// Item snapshots of one run, and items that failed.
pub const RUN_ITEMS_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    pub run: RunId,
    pub author: AuthorId,
    pub host: HostId,
    pub host_name: String,
    /// The item snapshots of the run, in the order in which they were published.
    pub snapshots: Vec<SnapshotId>,
    /// Items of which there is no snapshot, and why.
    pub items_failed: Vec<(Item, String)>,
    /// Over all items of the host.
    pub scope_all: bool,
    pub tags: Vec<String>,
    pub started: Time,
    pub finished: Time,
    /// The host's zone, in minutes east of UTC.
    pub zone_minutes: i16,
    /// Every item is there and complete.
    pub complete: bool,
    pub bytes_read: u64,
    pub bytes_logical: u64,
    /// What the run made the repository grow by, metadata included, parity not.
    pub bytes_added: u64,
    pub files: u64,
}

impl RunRecord {
    /// The object's bytes. Refuses what a reader would refuse.
    pub fn seal(&self, keys: &SessionKeys<'_>) -> Result<Vec<u8>, DecodeError> {
        let kind = ObjectKind::Run;
        if self.author != keys.author.id() {
            return Err(kind.error(Defect::NotAuthentic("author")));
        }
        let body = self.encode_body();
        Self::decode_body(self.author, &body)?;
        let mut out = frame::begin_signed(kind, self.author);
        out.raw(&keys.salt);
        frame::seal_session(kind, &mut out, keys, body)?;
        Ok(frame::finish_signed(
            kind,
            out,
            keys.repository,
            keys.author,
        ))
    }

    /// The fields behind the author's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.run.0)
            .raw(&self.host.0)
            .bytes(self.host_name.as_bytes())
            .varint(self.snapshots.len() as u64);
        for id in &self.snapshots {
            out.raw(&id.0);
        }
        out.varint(self.items_failed.len() as u64);
        for (item, cause) in &self.items_failed {
            item.encode(&mut out);
            out.bytes(cause.as_bytes());
        }
        out.u8(u8::from(self.scope_all));
        encode_texts(&self.tags, &mut out);
        encode_time(&self.started, &mut out);
        encode_time(&self.finished, &mut out);
        encode_zone(self.zone_minutes, &mut out);
        out.u8(u8::from(self.complete))
            .varint(self.bytes_read)
            .varint(self.bytes_logical)
            .varint(self.bytes_added)
            .varint(self.files);
        out.finish()
    }

    pub fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("run record", body);
        let input = &mut input;
        let record = Self {
            author,
            run: RunId(input.array()?),
            host: HostId(input.array()?),
            host_name: decode_text(input, "host name", NAME_TEXT_BYTES_MAX)?,
            snapshots: decode_ids(input, "snapshots", RUN_ITEMS_MAX, false)?
                .into_iter()
                .map(SnapshotId)
                .collect(),
            items_failed: {
                let count = input.bounded("failed items", RUN_ITEMS_MAX)?;
                let mut failed = Vec::new();
                for _ in 0..count {
                    let item = Item::decode(input)?;
                    failed.push((item, decode_text(input, "cause", FINDING_BYTES_MAX)?));
                }
                failed
            },
            scope_all: decode_bool(input, "scope")?,
            tags: decode_texts(input, "tag", TAGS_MAX, TAG_TEXT_BYTES_MAX)?,
            started: decode_time(input)?,
            finished: decode_time(input)?,
            zone_minutes: decode_zone(input)?,
            complete: decode_bool(input, "complete")?,
            bytes_read: input.varint()?,
            bytes_logical: input.varint()?,
            bytes_added: input.varint()?,
            files: input.varint()?,
        };
        input.end()?;
        if record.complete && !record.items_failed.is_empty() {
            return input.fail(Defect::NotCanonical("complete"));
        }
        Ok(record)
    }
}

/// A run record whose signature holds.
#[derive(Clone, Debug)]
pub struct SealedRun {
    body: SealedForReaders,
}

impl SealedRun {
    /// Whether the author counts is for the caller to say.
    pub fn read(bytes: &[u8], repository: RepositoryId) -> Result<Self, DecodeError> {
        let kind = ObjectKind::Run;
        let (author, mut input) = frame::open_signed(kind, bytes, repository)?;
        let salt = input.array()?;
        Ok(Self {
            body: SealedForReaders::decode(kind, bytes, repository, author, salt, input)?,
        })
    }

    pub fn author(&self) -> AuthorId {
        self.body.author
    }

    /// Whether the record's `run` is the one that the object's name says is for the caller to
    /// compare.
    pub fn open(&self, private: &PrivateKey) -> Result<RunRecord, DecodeError> {
        let session = self
            .body
            .session()
            .open(private, self.body.repository, self.body.author)?;
        self.open_with(&session)
    }

    /// For whoever has opened the run's session key already.
    pub fn open_with(&self, session: &Secret) -> Result<RunRecord, DecodeError> {
        RunRecord::decode_body(self.body.author, &self.body.open(session)?)
    }
}
