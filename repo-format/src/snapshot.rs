//! Item snapshots ("Item snapshots" in the specification): the commit point of one item.
//!
//! The header is sealed under a key from the index key, so that a client that cannot read can
//! still carry its chain of snapshots on without a catalog. The body is sealed with the run's
//! session key: only holders of the private key open it. The author's signature covers both.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{
    self, ObjectKind, SealedForReaders, SessionKeys, decode_bool, decode_text, decode_texts,
    decode_time, encode_texts, encode_time,
};
use crate::id::{AuthorId, ChunkId, HostId, LeaseId, RepositoryId, RunId, SnapshotId, TreeId};
use crate::item::{ITEM_NAME_BYTES_MAX, Item};
use crate::seal::{Domain, PrivateKey, SALT_BYTES, Secret};
use crate::tree::Time;

/// Bytes of a host's name, a driver's name, a version.
pub const NAME_TEXT_BYTES_MAX: usize = 1024;
/// Ranges of one id map. Linux's limit (UID_GID_MAP_MAX_EXTENTS).
pub const ID_RANGES_MAX: u64 = 340;
/// Findings that a snapshot quotes, and the bytes of each; all of them are counted.
pub const FINDING_SAMPLES_MAX: u64 = 32;
pub const FINDING_BYTES_MAX: usize = 1024;
/// Other names of one item: an image's tags and digests.
pub const ALIASES_MAX: u64 = 4096;
pub const ALIAS_BYTES_MAX: usize = 1024;
pub const TAGS_MAX: u64 = 64;
pub const TAG_TEXT_BYTES_MAX: usize = 256;
pub const EXCLUDES_MAX: u64 = 256;
pub const EXCLUDE_BYTES_MAX: usize = 4096;
/// Minutes east of UTC.
pub const ZONE_MINUTES_MAX: i16 = 18 * 60;

const HEADER_BYTES_MAX: usize = ITEM_NAME_BYTES_MAX + 1024;

/// What a client with a write key can read of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    pub author: AuthorId,
    pub host: HostId,
    pub item: Item,
    /// 1 for the first snapshot of this author and item.
    pub sequence: u64,
    /// The one before it in that chain; `None` where there is none, or none was found.
    pub predecessor: Option<SnapshotId>,
    /// The lease that it was published under: a fence on it decides whether it counts.
    pub lease: LeaseId,
    pub run: RunId,
    /// When the item's reading began.
    pub time: Time,
}

impl SnapshotHeader {
    /// The fields behind the author's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.host.0);
        self.item.encode(&mut out);
        out.varint(self.sequence);
        match &self.predecessor {
            None => out.u8(0),
            Some(id) => out.u8(1).raw(&id.0),
        };
        out.raw(&self.lease.0).raw(&self.run.0);
        encode_time(&self.time, &mut out);
        out.finish()
    }

    pub fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("snapshot header", body);
        let host = HostId(input.array()?);
        let item = Item::decode(&mut input)?;
        let sequence = input.varint()?;
        let predecessor = match input.u8()? {
            0 => None,
            1 => Some(SnapshotId(input.array()?)),
            other => return input.fail(Defect::Tag("predecessor", u64::from(other))),
        };
        let header = Self {
            author,
            host,
            item,
            sequence,
            predecessor,
            lease: LeaseId(input.array()?),
            run: RunId(input.array()?),
            time: decode_time(&mut input)?,
        };
        input.end()?;
        if header.sequence == 0 {
            return input.fail(Defect::NotCanonical("sequence number"));
        }
        Ok(header)
    }
}

/// What was done to the item's processes while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Consistency {
    Live = 0,
    Pause = 1,
    Stop = 2,
}

impl Consistency {
    pub const ALL: [Self; 3] = [Self::Live, Self::Pause, Self::Stop];

    /// The word that options, listings and JSON use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Pause => "pause",
            Self::Stop => "stop",
        }
    }
}

/// One range of a user namespace's id map, as in `/proc/self/uid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    /// Not 0; neither end passes 2^32.
    pub len: u32,
}

/// What only holders of the private key read of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotBody {
    pub host_name: String,
    /// What else the item goes by, ascending: an image's other names and its ID.
    pub aliases: Vec<String>,
    /// Files, for an item that has any.
    pub root: Option<TreeId>,
    /// A chunk of kind `Record` and its length, for an item that has a definition.
    pub definition: Option<(ChunkId, u32)>,
    /// Of the Podman user namespace whose ids the tree holds; ascending by `inside`, not
    /// overlapping there. Empty: ids are the host's.
    pub uid_map: Vec<IdRange>,
    pub gid_map: Vec<IdRange>,
    pub consistency: Consistency,
    pub complete: bool,
    /// All of them; [`finding_samples`](Self::finding_samples) quotes some.
    pub findings: u64,
    pub finding_samples: Vec<String>,
    pub started: Time,
    pub finished: Time,
    /// The host's zone, in minutes east of UTC.
    pub zone_minutes: i16,
    /// Taken by a run over all items of the host.
    pub scope_all: bool,
    pub tags: Vec<String>,
    pub files: u64,
    pub directories: u64,
    /// Bytes of the files' contents, holes included.
    pub bytes_logical: u64,
    /// Those outside holes, of each inode once: what restoring them takes at least.
    pub bytes_allocated: u64,
    /// Bytes that were read to find that out.
    pub bytes_read: u64,
    pub excludes: Vec<String>,
    /// The content of directories with a CACHEDIR.TAG was left out.
    pub exclude_caches: bool,
    /// What was mounted below the item was read, too.
    pub cross_mounts: bool,
    pub driver: String,
    pub podman_version: String,
    pub podkeep_version: String,
}

impl SnapshotBody {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.bytes(self.host_name.as_bytes());
        encode_texts(&self.aliases, &mut out);
        match &self.root {
            None => out.u8(0),
            Some(root) => out.u8(1).raw(&root.0),
        };
        match &self.definition {
            None => out.u8(0),
            Some((id, len)) => out.u8(1).raw(&id.0).u32(*len),
        };
        encode_map(&self.uid_map, &mut out);
        encode_map(&self.gid_map, &mut out);
        out.u8(self.consistency as u8)
            .u8(u8::from(self.complete))
            .varint(self.findings);
        encode_texts(&self.finding_samples, &mut out);
        encode_time(&self.started, &mut out);
        encode_time(&self.finished, &mut out);
        encode_zone(self.zone_minutes, &mut out);
        out.u8(u8::from(self.scope_all));
        encode_texts(&self.tags, &mut out);
        out.varint(self.files)
            .varint(self.directories)
            .varint(self.bytes_logical)
            .varint(self.bytes_allocated)
            .varint(self.bytes_read);
        encode_texts(&self.excludes, &mut out);
        out.u8(u8::from(self.exclude_caches))
            .u8(u8::from(self.cross_mounts));
        out.bytes(self.driver.as_bytes())
            .bytes(self.podman_version.as_bytes())
            .bytes(self.podkeep_version.as_bytes());
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("snapshot body", bytes);
        let input = &mut input;
        let body = Self {
            host_name: decode_text(input, "host name", NAME_TEXT_BYTES_MAX)?,
            aliases: decode_texts(input, "alias", ALIASES_MAX, ALIAS_BYTES_MAX)?,
            root: match input.u8()? {
                0 => None,
                1 => Some(TreeId(input.array()?)),
                other => return input.fail(Defect::Tag("root", u64::from(other))),
            },
            definition: match input.u8()? {
                0 => None,
                1 => Some((ChunkId(input.array()?), input.u32()?)),
                other => return input.fail(Defect::Tag("definition", u64::from(other))),
            },
            uid_map: decode_map(input, "uid map")?,
            gid_map: decode_map(input, "gid map")?,
            consistency: match input.u8()? {
                0 => Consistency::Live,
                1 => Consistency::Pause,
                2 => Consistency::Stop,
                other => return input.fail(Defect::Tag("consistency", u64::from(other))),
            },
            complete: decode_bool(input, "complete")?,
            findings: input.varint()?,
            finding_samples: decode_texts(
                input,
                "finding",
                FINDING_SAMPLES_MAX,
                FINDING_BYTES_MAX,
            )?,
            started: decode_time(input)?,
            finished: decode_time(input)?,
            zone_minutes: decode_zone(input)?,
            scope_all: decode_bool(input, "scope")?,
            tags: decode_texts(input, "tag", TAGS_MAX, TAG_TEXT_BYTES_MAX)?,
            files: input.varint()?,
            directories: input.varint()?,
            bytes_logical: input.varint()?,
            bytes_allocated: input.varint()?,
            bytes_read: input.varint()?,
            excludes: decode_texts(input, "exclude", EXCLUDES_MAX, EXCLUDE_BYTES_MAX)?,
            exclude_caches: decode_bool(input, "caches excluded")?,
            cross_mounts: decode_bool(input, "mounts crossed")?,
            driver: decode_text(input, "driver", NAME_TEXT_BYTES_MAX)?,
            podman_version: decode_text(input, "Podman version", NAME_TEXT_BYTES_MAX)?,
            podkeep_version: decode_text(input, "podkeep version", NAME_TEXT_BYTES_MAX)?,
        };
        input.end()?;
        if body.definition.is_some_and(|(_, len)| len == 0) {
            return input.fail(Defect::NotCanonical("definition"));
        }
        if !body.aliases.is_sorted_by(|a, b| a < b) {
            return input.fail(Defect::NotCanonical("order of aliases"));
        }
        if (body.finding_samples.len() as u64) > body.findings {
            return input.fail(Defect::NotCanonical("finding"));
        }
        Ok(body)
    }
}

fn encode_map(map: &[IdRange], out: &mut Encoder) {
    out.varint(map.len() as u64);
    for range in map {
        out.u32(range.inside).u32(range.outside).u32(range.len);
    }
}

fn decode_map(input: &mut Decoder<'_>, field: &'static str) -> Result<Vec<IdRange>, DecodeError> {
    let count = input.bounded(field, ID_RANGES_MAX)?;
    let mut map = Vec::new();
    let mut end = 0u64;
    for _ in 0..count {
        let range = IdRange {
            inside: input.u32()?,
            outside: input.u32()?,
            len: input.u32()?,
        };
        let behind = |start: u32| u64::from(start) + u64::from(range.len);
        if u64::from(range.inside) < end || range.len == 0 {
            return input.fail(Defect::NotCanonical(field));
        }
        end = behind(range.inside);
        if end > 1 << 32 || behind(range.outside) > 1 << 32 {
            return input.fail(Defect::TooLarge(field));
        }
        map.push(range);
    }
    Ok(map)
}

pub(crate) fn encode_zone(minutes: i16, out: &mut Encoder) {
    out.varint_signed(i64::from(minutes));
}

pub(crate) fn decode_zone(input: &mut Decoder<'_>) -> Result<i16, DecodeError> {
    let minutes = input.varint_signed()?;
    let max = i64::from(ZONE_MINUTES_MAX);
    if (-max..=max).contains(&minutes) {
        Ok(minutes as i16)
    } else {
        input.fail(Defect::TooLarge("time zone"))
    }
}

/// Makes the bytes of item snapshots.
pub struct Snapshot;

impl Snapshot {
    /// The object's bytes. Refuses what a reader would refuse.
    pub fn seal(
        header: &SnapshotHeader,
        body: &SnapshotBody,
        index: &Secret,
        keys: &SessionKeys<'_>,
    ) -> Result<Vec<u8>, DecodeError> {
        let kind = ObjectKind::Snapshot;
        if header.author != keys.author.id() {
            return Err(kind.error(Defect::NotAuthentic("author")));
        }
        let mut sealed_header = header.encode_body();
        SnapshotHeader::decode_body(header.author, &sealed_header)?;
        let sealed_body = body.encode();
        SnapshotBody::decode(&sealed_body)?;
        let mut out = frame::begin_signed(kind, header.author);
        out.raw(&keys.salt);
        index
            .object_key(keys.repository, Domain::SnapshotHeader, &keys.salt)
            .seal(out.as_slice(), &mut sealed_header)?;
        out.bytes(&sealed_header);
        frame::seal_session(kind, &mut out, keys, sealed_body)?;
        Ok(frame::finish_signed(
            kind,
            out,
            keys.repository,
            keys.author,
        ))
    }
}

/// A snapshot whose signature holds and whose header is read.
#[derive(Clone, Debug)]
pub struct SealedSnapshot {
    pub id: SnapshotId,
    pub header: SnapshotHeader,
    body: SealedForReaders,
}

impl SealedSnapshot {
    /// Whether the author counts, and whether `id` is what was asked for, is for the caller to
    /// say.
    pub fn read(
        bytes: &[u8],
        repository: RepositoryId,
        index: &Secret,
    ) -> Result<Self, DecodeError> {
        let kind = ObjectKind::Snapshot;
        let (author, mut input) = frame::open_signed(kind, bytes, repository)?;
        let salt: [u8; SALT_BYTES] = input.array()?;
        let mut sealed = input.bytes("snapshot header", HEADER_BYTES_MAX)?.to_vec();
        let header = index
            .object_key(repository, Domain::SnapshotHeader, &salt)
            .open(
                &bytes[..frame::HEAD_BYTES + AuthorId::LEN + SALT_BYTES],
                0,
                &mut sealed,
            )
            .map_err(|error| kind.error(error.defect))?;
        Ok(Self {
            id: SnapshotId(*blake3::hash(bytes).as_bytes()),
            header: SnapshotHeader::decode_body(author, header)?,
            body: SealedForReaders::decode(kind, bytes, repository, author, salt, input)?,
        })
    }

    pub fn open(&self, private: &PrivateKey) -> Result<SnapshotBody, DecodeError> {
        let session = self
            .body
            .session()
            .open(private, self.body.repository, self.body.author)?;
        self.open_with(&session)
    }

    /// For whoever has opened the run's session key already.
    pub fn open_with(&self, session: &Secret) -> Result<SnapshotBody, DecodeError> {
        SnapshotBody::decode(&self.body.open(session)?)
    }
}
