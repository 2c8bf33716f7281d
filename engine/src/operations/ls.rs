//! `ls`: what a snapshot holds.

use std::ops::ControlFlow;

use super::walk::{self, Next, Place};
use super::{
    ItemPath, ListedEntry, OperationResult, SnapSpec, SnapshotRow, reading, select, snapshots,
};
use crate::monitor::Monitor;
use crate::repo::Repository;

/// Lists what a snapshot holds: all items, or one item (or several, by a glob), or what lies at
/// and below a path of one. Parents come before children. Returns the snapshot.
///
/// `visit` gets each entry as it is read; `Break` ends the listing.
pub fn ls(
    repo: &Repository,
    snapshot: &SnapSpec,
    item: Option<&ItemPath>,
    visit: &mut dyn FnMut(ListedEntry) -> ControlFlow<()>,
    monitor: &dyn Monitor,
) -> OperationResult<SnapshotRow> {
    let _lease = reading::lease(repo, monitor)?;
    let wanted = item.map_or(&[][..], std::slice::from_ref);
    let (run, chosen) = select::resolve(repo, snapshot, wanted, monitor)?;
    let reader = reading::reader(repo, monitor)?;
    for (stored, path) in &chosen {
        let Some(root) = stored.body.as_ref().and_then(|body| body.root) else {
            continue;
        };
        let item = &stored.header.item;
        let place = Place {
            snapshot: run.id.to_hex(),
            item,
        };
        let Some(entry) = walk::entry_at(&reader, &place, root, path, monitor)? else {
            continue;
        };
        let flow = walk::walk(
            &reader,
            &place,
            path,
            &entry,
            &mut |path, entry| {
                visit(ListedEntry {
                    item: item.clone(),
                    path: path.to_vec(),
                    entry: entry.clone(),
                    run: None,
                })
                .map_continue(|()| Next::Descend)
            },
            monitor,
        )?;
        if flow.is_break() {
            break;
        }
    }
    Ok(snapshots::row(&run))
}
