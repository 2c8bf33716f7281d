//! The names of objects in a store ("Names" in the specification), from ids and back.
//!
//! `parity/` is reserved for parity.

use crate::id::{
    AuthorId, EndorsementId, LayerKey, LayerRecordId, LeaseId, PackId, RunId, SegmentId, SlotId,
    SnapshotId, unhex,
};

/// The folders that listings begin with; each ends in `/`.
pub const KEYS: &str = "keys/";
pub const AUTHORS: &str = "authors/";
pub const REVOCATIONS: &str = "revocations/";
pub const PACKS: &str = "packs/";
pub const INDEX: &str = "index/";
pub const SNAPSHOTS: &str = "snapshots/";
pub const RUNS: &str = "runs/";
pub const LEASES: &str = "leases/";
pub const TOMBSTONES: &str = "tombstones/";
pub const FENCES: &str = "fences/";
pub const ENDORSEMENTS: &str = "endorsements/";
pub const RESERVE: &str = "reserve/";
pub const LAYERS: &str = "layers/";
pub const PARITY: &str = "parity/";

/// A number in a name has this many decimal digits, so that names sort as numbers do.
pub const NUMBER_DIGITS: usize = 16;
/// The largest number of that many digits.
pub const NUMBER_MAX: u64 = 9_999_999_999_999_999;

/// An object's name, parsed. Names that are none of these are not podkeep's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    Config {
        second: bool,
    },
    Key {
        slot: SlotId,
        second: bool,
    },
    Author(AuthorId),
    Revocation(u64),
    Pack(PackId),
    Segment(SegmentId),
    Snapshot {
        id: SnapshotId,
        second: bool,
    },
    Run(RunId),
    Lease(LeaseId, u64),
    Tombstone(PackId),
    Fence(LeaseId),
    Verdict(LeaseId),
    Endorsement(EndorsementId),
    Reserve(u64),
    Layer {
        layer: LayerKey,
        record: LayerRecordId,
    },
}

/// `second`: the other copy of what exists twice.
pub fn config(second: bool) -> String {
    with_copy("config".to_owned(), second)
}

pub fn key(slot: SlotId, second: bool) -> String {
    with_copy(format!("{KEYS}{slot}"), second)
}

pub fn author(author: AuthorId) -> String {
    format!("{AUTHORS}{author}")
}

/// `number` is at most [`NUMBER_MAX`], here and below.
pub fn revocation(number: u64) -> String {
    format!("{REVOCATIONS}{number:016}")
}

pub fn pack(pack: PackId) -> String {
    format!("{}{pack}", pack_shard(pack.0[0]))
}

/// The folder of the packs whose ids begin with `first`; ends in `/`.
pub fn pack_shard(first: u8) -> String {
    format!("{PACKS}{first:02x}/")
}

pub fn segment(segment: SegmentId) -> String {
    format!("{INDEX}{segment}")
}

pub fn snapshot(snapshot: SnapshotId, second: bool) -> String {
    with_copy(format!("{SNAPSHOTS}{snapshot}"), second)
}

pub fn run(run: RunId) -> String {
    format!("{RUNS}{run}")
}

pub fn lease(lease: LeaseId, number: u64) -> String {
    format!("{}{number:016}", lease_folder(lease))
}

/// The folder of one lease's heartbeats; ends in `/`.
pub fn lease_folder(lease: LeaseId) -> String {
    format!("{LEASES}{lease}/")
}

pub fn tombstone(pack: PackId) -> String {
    format!("{TOMBSTONES}{pack}")
}

pub fn fence(lease: LeaseId) -> String {
    format!("{FENCES}{lease}")
}

pub fn verdict(lease: LeaseId) -> String {
    format!("{FENCES}{lease}.verdict")
}

pub fn endorsement(endorsement: EndorsementId) -> String {
    format!("{ENDORSEMENTS}{endorsement}")
}

pub fn reserve(number: u64) -> String {
    format!("{RESERVE}{number:016}")
}

pub fn layer(layer: LayerKey, record: LayerRecordId) -> String {
    format!("{LAYERS}{layer}.{record}")
}

fn with_copy(mut name: String, second: bool) -> String {
    if second {
        name.push_str(".2");
    }
    name
}

impl Name {
    /// `None` for a name that no function here makes.
    pub fn parse(name: &str) -> Option<Self> {
        let Some((folder, rest)) = name.split_once('/') else {
            let (name, second) = copy_of(name);
            return (name == "config").then_some(Self::Config { second });
        };
        let (id, second) = copy_of(rest);
        match folder {
            "keys" => unhex(id).map(|slot| Self::Key {
                slot: SlotId(slot),
                second,
            }),
            "authors" => unhex(rest).map(|id| Self::Author(AuthorId(id))),
            "revocations" => number(rest).map(Self::Revocation),
            "packs" => {
                let (shard, id) = rest.split_once('/')?;
                let pack = unhex(id).map(PackId)?;
                (shard == &id[..2]).then_some(Self::Pack(pack))
            }
            "index" => unhex(rest).map(|id| Self::Segment(SegmentId(id))),
            "snapshots" => unhex(id).map(|id| Self::Snapshot {
                id: SnapshotId(id),
                second,
            }),
            "runs" => unhex(rest).map(|id| Self::Run(RunId(id))),
            "leases" => {
                let (id, n) = rest.split_once('/')?;
                Some(Self::Lease(LeaseId(unhex(id)?), number(n)?))
            }
            "tombstones" => unhex(rest).map(|id| Self::Tombstone(PackId(id))),
            "fences" => match rest.strip_suffix(".verdict") {
                Some(id) => unhex(id).map(|id| Self::Verdict(LeaseId(id))),
                None => unhex(rest).map(|id| Self::Fence(LeaseId(id))),
            },
            "endorsements" => unhex(rest).map(|id| Self::Endorsement(EndorsementId(id))),
            "reserve" => number(rest).map(Self::Reserve),
            "layers" => {
                let (layer, record) = rest.split_once('.')?;
                Some(Self::Layer {
                    layer: LayerKey(unhex(layer)?),
                    record: LayerRecordId(unhex(record)?),
                })
            }
            _ => None,
        }
    }

    /// The name, as the functions of this module write it.
    pub fn to_text(self) -> String {
        match self {
            Self::Config { second } => config(second),
            Self::Key { slot, second } => key(slot, second),
            Self::Author(id) => author(id),
            Self::Revocation(number) => revocation(number),
            Self::Pack(id) => pack(id),
            Self::Segment(id) => segment(id),
            Self::Snapshot { id, second } => snapshot(id, second),
            Self::Run(id) => run(id),
            Self::Lease(id, number) => lease(id, number),
            Self::Tombstone(id) => tombstone(id),
            Self::Fence(id) => fence(id),
            Self::Verdict(id) => verdict(id),
            Self::Endorsement(id) => endorsement(id),
            Self::Reserve(number) => reserve(number),
            Self::Layer { layer: key, record } => layer(key, record),
        }
    }
}

fn copy_of(name: &str) -> (&str, bool) {
    match name.strip_suffix(".2") {
        Some(name) => (name, true),
        None => (name, false),
    }
}

fn number(digits: &str) -> Option<u64> {
    let plain = digits.len() == NUMBER_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}
