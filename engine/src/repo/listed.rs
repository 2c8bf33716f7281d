//! Ids from the names of a listing.

use podkeep_format::id::{LayerKey, LayerRecordId, PackId, RunId, SegmentId, SlotId, SnapshotId};
use podkeep_format::names::Name;

macro_rules! from_name {
    ($(#[$doc:meta])* $function:ident, $id:ty, $pattern:pat => $value:expr) => {
        $(#[$doc])*
        pub fn $function(name: &str) -> Option<$id> {
            match Name::parse(name) {
                Some($pattern) => Some($value),
                _ => None,
            }
        }
    };
}

from_name!(pack, PackId, Name::Pack(id) => id);
from_name!(segment, SegmentId, Name::Segment(id) => id);
from_name!(run, RunId, Name::Run(id) => id);
from_name!(tombstone, PackId, Name::Tombstone(id) => id);
from_name!(
    /// Either copy.
    snapshot, SnapshotId, Name::Snapshot { id, .. } => id);
from_name!(
    /// Either copy.
    key, SlotId, Name::Key { slot, .. } => slot);
from_name!(layer, (LayerKey, LayerRecordId), Name::Layer { layer, record } => (layer, record));
