//! One directory as a run saw it: the value of a row.
//!
//! A checksum keyed with the repository's chunk-id key stands in front. It covers the row's key
//! too, so that a flipped bit, a row in the wrong place or a row of another repository is no row
//! at all.

use std::ops::Range;

use podkeep_format::codec::{DecodeError, Decoder, Defect, Encoder};
use podkeep_format::id::{ChunkIdKey, ChunkKind};
use podkeep_format::tree::NAME_BYTES_MAX;

/// Names a directory: its item and its path.
pub(crate) type RowKey = [u8; 16];

const CHECKSUM_BYTES: usize = 16;
/// A directory whose row would be larger is read anew each time.
pub(super) const ROW_BYTES_MAX: usize = 256 << 20;
const FINGERPRINT_BYTES_MAX: usize = 256;

/// What a record stands for; the number is what a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// The whole encoded entry.
    Entry = 1,
    /// An entry of an inode with several names: encoded without name and group.
    Linked = 2,
    /// A subdirectory: only its name; it has a row of its own.
    Directory = 3,
}

pub(crate) fn root_key(item: &str) -> RowKey {
    short(
        blake3::Hasher::new()
            .update(b"podkeep file states\0")
            .update(item.as_bytes()),
    )
}

pub(crate) fn child_key(parent: &RowKey, name: &[u8]) -> RowKey {
    short(blake3::Hasher::new().update(parent).update(name))
}

fn short(hasher: &blake3::Hasher) -> RowKey {
    let mut key = RowKey::default();
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

fn checksum(ids: &ChunkIdKey, key: &RowKey, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    // One hash over both: a keyed hash of the body, keyed again with its place.
    let body = ids.chunk_id(ChunkKind::Record, body);
    let both = ids.chunk_id(ChunkKind::Record, &[key.as_slice(), &body.0].concat());
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&both.0[..CHECKSUM_BYTES]);
    sum
}

/// Puts a row together; records are added in ascending order of their names.
pub(crate) struct RowBuilder {
    body: Encoder,
}

impl RowBuilder {
    /// `fingerprint`: empty when the directory's own attributes are not to be reused.
    pub fn new(fingerprint: &[u8], own: &[u8], records: usize) -> Self {
        let mut body = Encoder::from_vec(vec![0; CHECKSUM_BYTES]);
        body.bytes(fingerprint).bytes(own).varint(records as u64);
        Self { body }
    }

    pub fn push(&mut self, kind: RecordKind, name: &[u8], fingerprint: &[u8], entry: &[u8]) {
        self.body.u8(kind as u8).bytes(name);
        if kind != RecordKind::Directory {
            self.body.bytes(fingerprint).bytes(entry);
        }
    }

    /// `None`: too large to be kept.
    pub fn finish(self, ids: &ChunkIdKey, key: &RowKey) -> Option<Vec<u8>> {
        let mut row = self.body.finish();
        if row.len() > ROW_BYTES_MAX {
            return None;
        }
        let sum = checksum(ids, key, &row[CHECKSUM_BYTES..]);
        row[..CHECKSUM_BYTES].copy_from_slice(&sum);
        Some(row)
    }
}

/// A row that was read back.
pub(crate) struct Row {
    bytes: Vec<u8>,
    fingerprint: Range<usize>,
    own: Range<usize>,
    records: Vec<Record>,
}

struct Record {
    kind: RecordKind,
    name: Range<usize>,
    fingerprint: Range<usize>,
    entry: Range<usize>,
}

impl Row {
    /// `None`: damaged, or of another repository.
    pub fn open(bytes: Vec<u8>, ids: &ChunkIdKey, key: &RowKey) -> Option<Self> {
        let (sum, body) = bytes.split_at_checked(CHECKSUM_BYTES)?;
        if checksum(ids, key, body) != sum {
            return None;
        }
        Self::parse(bytes).ok()
    }

    /// Without the proof that it is whole: for finding rows that are to be deleted.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("file state", &bytes);
        let total = bytes.len();
        input.raw(CHECKSUM_BYTES)?;
        let field = |input: &mut Decoder<'_>, name: &'static str, max: usize| {
            let len = input.bytes(name, max)?.len();
            let end = total - input.remaining();
            Ok(end - len..end)
        };
        let fingerprint = field(&mut input, "fingerprint", FINGERPRINT_BYTES_MAX)?;
        let own = field(&mut input, "entry", ROW_BYTES_MAX)?;
        let count = input.bounded("records", total as u64)?;
        let mut records = Vec::with_capacity((count as usize).min(total / 4));
        for _ in 0..count {
            let kind = match input.u8()? {
                1 => RecordKind::Entry,
                2 => RecordKind::Linked,
                3 => RecordKind::Directory,
                other => return input.fail(Defect::Tag("record", u64::from(other))),
            };
            let name = field(&mut input, "name", NAME_BYTES_MAX)?;
            let (fingerprint, entry) = if kind == RecordKind::Directory {
                (0..0, 0..0)
            } else {
                (
                    field(&mut input, "fingerprint", FINGERPRINT_BYTES_MAX)?,
                    field(&mut input, "entry", ROW_BYTES_MAX)?,
                )
            };
            records.push(Record {
                kind,
                name,
                fingerprint,
                entry,
            });
        }
        input.end()?;
        Ok(Self {
            bytes,
            fingerprint,
            own,
            records,
        })
    }

    /// The directory's own encoded entry, if its fingerprint is still this one.
    pub fn own(&self, fingerprint: &[u8]) -> Option<&[u8]> {
        let recorded = &self.bytes[self.fingerprint.clone()];
        (!recorded.is_empty() && recorded == fingerprint).then(|| &self.bytes[self.own.clone()])
    }

    /// The encoded entry of a name, if its fingerprint is still this one.
    pub fn entry(&self, name: &[u8], kind: RecordKind, fingerprint: &[u8]) -> Option<&[u8]> {
        let at = self
            .records
            .binary_search_by(|record| self.bytes[record.name.clone()].cmp(name))
            .ok()?;
        let record = &self.records[at];
        let recorded = &self.bytes[record.fingerprint.clone()];
        (record.kind == kind && !recorded.is_empty() && recorded == fingerprint)
            .then(|| &self.bytes[record.entry.clone()])
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// In ascending order.
    pub fn names(&self) -> impl Iterator<Item = (RecordKind, &[u8])> {
        self.records
            .iter()
            .map(|record| (record.kind, &self.bytes[record.name.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::{RecordKind, Row, RowBuilder, child_key, root_key};
    use podkeep_format::id::ChunkIdKey;

    fn row(ids: &ChunkIdKey, key: &[u8; 16]) -> Vec<u8> {
        let mut builder = RowBuilder::new(b"own print", b"own entry", 3);
        builder.push(RecordKind::Entry, b"a", b"print a", b"entry a");
        builder.push(RecordKind::Directory, b"b", b"", b"");
        builder.push(RecordKind::Linked, b"c", b"", b"entry c");
        builder.finish(ids, key).expect("a small row")
    }

    #[test]
    fn e_19_a_flipped_bit_a_foreign_place_and_a_foreign_repository_are_no_row() {
        let ids = ChunkIdKey::new(&[1; 32]);
        let key = root_key("volume:web");
        let bytes = row(&ids, &key);
        let whole = Row::open(bytes.clone(), &ids, &key).expect("a row");
        assert_eq!(whole.own(b"own print"), Some(b"own entry".as_slice()));
        assert_eq!(whole.own(b"another"), None);
        let found = whole.entry(b"a", RecordKind::Entry, b"print a");
        assert_eq!(found, Some(b"entry a".as_slice()));
        assert_eq!(whole.entry(b"a", RecordKind::Linked, b"print a"), None);
        assert_eq!(whole.entry(b"c", RecordKind::Linked, b""), None);

        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Row::open(damaged, &ids, &key).is_none(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Row::open(bytes[..len].to_vec(), &ids, &key).is_none());
        }
        assert!(Row::open(bytes.clone(), &ids, &child_key(&key, b"x")).is_none());
        assert!(Row::open(bytes, &ChunkIdKey::new(&[2; 32]), &key).is_none());
    }
}
