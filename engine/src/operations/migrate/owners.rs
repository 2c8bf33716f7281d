//! Owners of files that have no place at the target, before anything is sent.
//!
//! Those in ACLs and capabilities, and what is beyond an order's size, are found when the first pass is
//! there, before anything is made of it.

use std::sync::Arc;

use podkeep_format::item::{Escaped, Item, ItemKind, unescape};
use podkeep_format::snapshot::IdRange;

use super::orders::{Met, MetId};
use crate::fs::owners::{IdKind, IdMap, MapError, NsUid, Owners, Placement};
use crate::fs::scan::Measured;
use crate::operations::restore::unplaced_line;
use crate::operations::{OperationError, OperationResult, Views};

/// Bytes of an order that ids may take: it is small, and names images and volumes, too.
const BYTES_MAX: usize = 12 << 10;
/// What one takes besides its volume's name and its path.
const ID_BYTES: usize = 64;
/// Bytes of a path that are told.
const PATH_BYTES_MAX: usize = 60;

/// At the source.
pub(super) struct Meeting<'a> {
    owners: &'a Owners,
    pub met: Met,
    /// What the ids take, roughly.
    bytes: usize,
}

impl<'a> Meeting<'a> {
    pub fn new(owners: &'a Owners) -> Self {
        let ranges = |map: &IdMap| {
            let ranges = map.to_snapshot().into_iter();
            ranges
                .map(|one| (one.inside, one.outside, one.len))
                .collect()
        };
        Self {
            met: Met {
                uid_map: ranges(&owners.uids),
                gid_map: ranges(&owners.gids),
                ids: Vec::new(),
            },
            owners,
            bytes: 0,
        }
    }

    pub fn add(&mut self, volume: &Item, measured: &Measured) {
        for ((kind, told), path) in &measured.ids {
            let path = Escaped(&path[..path.len().min(PATH_BYTES_MAX)]).to_string();
            let volume = String::from_utf8_lossy(&volume.name).into_owned();
            self.bytes += ID_BYTES + volume.len() + path.len();
            if self.bytes > BYTES_MAX {
                return;
            }
            self.met.ids.push(MetId {
                group: *kind == IdKind::Group,
                id: self.owners.see(*kind, *told).id().0,
                volume,
                path,
            });
        }
    }
}

/// At the target: those that have no place there; each line ends with the flag that resolves it.
pub(super) fn homeless(
    met: &Met,
    target: &Arc<Owners>,
    views: &Views,
    squash: Option<(u32, u32)>,
) -> OperationResult<Vec<String>> {
    if met.ids.is_empty() || squash.is_some() {
        return Ok(Vec::new());
    }
    let no_map = |error: MapError| OperationError::Refused {
        message: format!("the id map that the source tells is none: {error}"),
        hint: String::new(),
    };
    let source = Arc::new(Owners {
        uids: map(&met.uid_map).map_err(no_map)?,
        gids: map(&met.gid_map).map_err(no_map)?,
        inside: false,
        any_host_id: false,
    });
    let mut lines = Vec::new();
    for one in &met.ids {
        let volume = Item::new(ItemKind::Volume, one.volume.as_bytes());
        let placement = Placement::new(Arc::clone(&source), Arc::clone(target), None);
        let Ok(placement) = placement.map(|all| all.seen_by(views.get(&volume))) else {
            continue;
        };
        let kind = match one.group {
            true => IdKind::Group,
            false => IdKind::User,
        };
        let id = (kind, NsUid(one.id));
        if placement.of(kind, id.1).is_none() {
            let path = unescape(one.path.as_bytes()).unwrap_or_default();
            lines.push(unplaced_line(id, &source, &volume, &path));
        }
    }
    Ok(lines)
}

fn map(ranges: &[(u32, u32, u32)]) -> Result<IdMap, MapError> {
    let ranges = ranges.iter().map(|&(inside, outside, len)| IdRange {
        inside,
        outside,
        len,
    });
    IdMap::of_snapshot(&ranges.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(len: u32) -> Arc<Owners> {
        let ranges = [(0, 1000, 1), (1, 100_000, len)];
        Arc::new(Owners {
            uids: map(&ranges).unwrap(),
            gids: map(&ranges).unwrap(),
            inside: false,
            any_host_id: true,
        })
    }

    #[test]
    fn ids_that_the_target_has_not_are_named_with_a_path() {
        let source = owners(65_536);
        let mut meeting = Meeting::new(&source);
        let mut measured = Measured::default();
        // As the kernel tells them: root's, 999's, 70,000's group on the host.
        for (told, path) in [(1000, ""), (100_998, "a"), (160_000, "b/c")] {
            measured.ids.insert((IdKind::User, told), path.into());
        }
        measured.ids.insert((IdKind::Group, 70_000), b"d".to_vec());
        let volume = Item::new(ItemKind::Volume, "data");
        meeting.add(&volume, &measured);
        let told = |target: &Arc<Owners>, squash| {
            homeless(&meeting.met, target, &Views::new(), squash).unwrap()
        };
        let lines = told(&owners(50_000), None);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].contains("user 60001") && lines[0].contains("volume:data:/b/c"),
            "{lines:?}"
        );
        assert!(
            lines[1].contains("group 70000 of the snapshot's host"),
            "{lines:?}"
        );
        assert!(
            lines
                .iter()
                .all(|line| line.ends_with("--squash-unmapped=UID[:GID]"))
        );
        assert_eq!(told(&owners(50_000), Some((7, 7))), Vec::<String>::new());
        assert_eq!(told(&source, None), Vec::<String>::new());
        // Many more than an order has room for.
        for told in 200_000..202_000 {
            let path = [
                b"\xff\xff\xff\xff".repeat(20),
                told.to_string().into_bytes(),
            ]
            .concat();
            measured.ids.insert((IdKind::User, told), path);
        }
        for number in 0..100 {
            meeting.add(
                &Item::new(ItemKind::Volume, format!("{number:064}")),
                &measured,
            );
        }
        let bytes = serde_json::to_vec(&meeting.met).unwrap().len();
        assert!(bytes < BYTES_MAX * 2, "{bytes}");
        let broken = Met {
            uid_map: vec![(0, 0, 0)],
            ..meeting.met.clone()
        };
        assert!(homeless(&broken, &source, &Views::new(), None).is_err());
    }
}
