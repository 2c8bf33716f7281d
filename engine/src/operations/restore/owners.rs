//! Owners without a place on the target, found before anything is written.
//!
//! What ids a tree holds is known from the tree alone. It is walked, its entries only, and not at all
//! where every id has a place (the usual case: the same host, or two rootful ones).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ops::ControlFlow;
use std::sync::Arc;

use podkeep_format::id::ChunkKind;
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::snapshot::SnapshotBody;
use podkeep_format::tree::XattrValue;

use super::PlannedItem;
use crate::fs::owners::{IdKind, IdMap, NsUid, Owners, Placement};
use crate::host::WriteRequest;
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::operations::walk::{self, Next};
use crate::operations::{OperationError, OperationResult};
use crate::repo::reader::Reader;

/// Ids without a place that are named; what is beyond is counted.
const NAMED_MAX: usize = 100;
/// Of which it is known that they were met.
const IDS_MAX: usize = 100_000;

/// The user namespace of a snapshot. One that cannot be is damage, or somebody's deceit.
pub(super) fn of_snapshot(body: &SnapshotBody, item: &str) -> OperationResult<Arc<Owners>> {
    let map = |ranges: &[_]| {
        IdMap::of_snapshot(ranges).map_err(|error| OperationError::Refused {
            message: format!("the id map of {item} in the snapshot is none: {error}"),
            hint: "podkeep check".into(),
        })
    };
    Ok(Arc::new(Owners {
        uids: map(&body.uid_map)?,
        gids: map(&body.gid_map)?,
        inside: false,
        any_host_id: false,
    }))
}

/// The ids of an item that have no place, each with the first path that has it.
#[derive(Default)]
pub(super) struct Unplaced(BTreeMap<(IdKind, NsUid), Met>);

struct Met {
    /// "user 70000".
    name: String,
    path: Vec<u8>,
}

/// Looks for ids of the item that `target` has no place for.
pub(super) fn unplaced(
    reader: &Reader,
    item: &PlannedItem,
    request: &WriteRequest,
    target: Option<Arc<Owners>>,
    monitor: &dyn Monitor,
) -> OperationResult<Unplaced> {
    let mut found = Unplaced::default();
    // Layers hold the ids that their image was built with, and are loaded by Podman itself.
    let (Some(target), Some(entry)) = (target, &item.entry) else {
        return Ok(found);
    };
    if item.item.kind == ItemKind::Image {
        return Ok(found);
    }
    let placement = Placement::new(Arc::clone(&request.owners), target, request.squash)
        .map(|placement| placement.seen_by(request.view.as_ref()));
    let placement = placement.map_err(|(kind, id)| OperationError::Usage {
        message: format!("{} {id} has no place on this host itself", kind.word()),
        hint: "--squash-unmapped=UID[:GID] takes ids that this host has".into(),
    })?;
    if placement.is_total() {
        return Ok(found);
    }
    let place = walk::Place {
        snapshot: item.run.clone(),
        item: &item.item,
    };
    let mut chunk = |value: &XattrValue| match value {
        XattrValue::Inline(value) => Some(value.clone()),
        // One that cannot be read is told of when it is needed.
        XattrValue::Chunk { id, .. } => {
            let bytes = reader.chunk(ChunkKind::Data, *id).ok()?;
            Some(bytes.as_ref().to_vec())
        }
    };
    let _ = walk::walk(
        reader,
        &place,
        &item.path,
        entry,
        &mut |path, entry| {
            for id in placement.unplaced(entry, &mut chunk) {
                if found.0.len() < IDS_MAX
                    && let Slot::Vacant(slot) = found.0.entry(id)
                {
                    slot.insert(Met {
                        name: name(id, &request.owners),
                        path: path.to_vec(),
                    });
                }
            }
            ControlFlow::Continue(Next::Descend)
        },
        monitor,
    )?;
    Ok(found)
}

const FLAG: &str = "--squash-unmapped=UID[:GID]";

fn line(name: &str, item: &Item, path: &[u8]) -> String {
    format!(
        "{name} has no place on this host (of {}): {FLAG}",
        item.at(path)
    )
}

/// Says that an id of a tree has no place; ends with the flag that resolves it.
pub(in crate::operations) fn unplaced_line(
    id: (IdKind, NsUid),
    source: &Owners,
    item: &Item,
    path: &[u8],
) -> String {
    line(&name(id, source), item, path)
}

/// Of an id that the snapshot's own namespace did not know: what it is on that host.
fn name((kind, id): (IdKind, NsUid), source: &Owners) -> String {
    match source.map(kind).beyond(id) {
        Some(host) => format!("{} {} of the snapshot's host itself", kind.word(), host.0),
        None => format!("{} {}", kind.word(), id.0),
    }
}

impl Unplaced {
    fn named(&self) -> impl Iterator<Item = &Met> {
        self.0.values().take(NAMED_MAX)
    }

    fn more(&self) -> Option<usize> {
        let more = self.0.len().saturating_sub(NAMED_MAX);
        (more > 0).then_some(more)
    }

    /// Why the item cannot be restored as it is; each line ends with the flag that resolves it.
    pub fn conflicts(&self, item: &PlannedItem) -> Vec<String> {
        let lines = self
            .named()
            .map(|Met { name, path }| line(name, &item.item, path));
        let mut lines: Vec<String> = lines.collect();
        if let Some(more) = self.more() {
            lines.push(format!(
                "{more} more ids of {} have none: {FLAG}",
                item.item
            ));
        }
        lines
    }

    /// What was done with them, said once the item is restored.
    pub fn findings(&self, item: &PlannedItem, squash: (u32, u32)) -> Vec<Finding> {
        let (uid, gid) = squash;
        let finding = |message, paths| Finding {
            object: item.item.to_string(),
            kind: FindingKind::Attribute,
            snapshots: vec![item.run.clone()],
            paths,
            message,
        };
        let squashed = self.named().map(|Met { name, path }| {
            let message = format!(
                "{name} has no place on this host: its files belong to {uid}:{gid} now, and what \
                 ACLs and capabilities say of it is left out"
            );
            finding(message, vec![path.clone()])
        });
        let mut findings: Vec<Finding> = squashed.collect();
        if let Some(more) = self.more() {
            findings.push(finding(
                format!("so it is with {more} more ids"),
                Vec::new(),
            ));
        }
        findings
    }
}
