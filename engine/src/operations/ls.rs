//! `ls`: what a snapshot holds, and what an image in it holds.

use std::ops::ControlFlow;

use podkeep_format::item::Item;
use serde_json::Value;

use super::image_files::{Inode, What};
use super::walk::{self, Next, Place};
use super::{
    ImageEntry, ImageNode, ItemPath, ListedEntry, ManifestRow, OperationError, OperationResult,
    SnapSpec, SnapshotRow, definition, reading, select, snapshots, stored_image,
};
use crate::monitor::Monitor;
use crate::repo::Repository;

/// Lists the items that a snapshot holds. Returns the snapshot.
pub fn manifest(
    repo: &Repository,
    snapshot: &SnapSpec,
    visit: &mut dyn FnMut(ManifestRow) -> ControlFlow<()>,
    monitor: &dyn Monitor,
) -> OperationResult<SnapshotRow> {
    let _lease = reading::lease(repo, monitor)?;
    let (run, chosen) = select::resolve(repo, snapshot, &[], monitor)?;
    for (stored, _) in &chosen {
        let Some(body) = &stored.body else { continue };
        let definition = body.definition.map_or(0, |(_, len)| u64::from(len));
        let row = ManifestRow {
            item: stored.header.item.clone(),
            snapshot: stored.id,
            complete: stored.confirmed && body.complete,
            files: body.files,
            bytes_logical: body.bytes_logical,
            bytes_definition: definition,
        };
        if visit(row).is_break() {
            break;
        }
    }
    Ok(snapshots::row(&run))
}

/// The definitions of the items that are selected as wholes, as people may see them.
pub fn definitions(
    repo: &Repository,
    snapshot: &SnapSpec,
    item: &ItemPath,
    visit: &mut dyn FnMut(&Item, Value) -> ControlFlow<()>,
    monitor: &dyn Monitor,
) -> OperationResult<()> {
    let _lease = reading::lease(repo, monitor)?;
    let wanted = std::slice::from_ref(item);
    let (_, chosen) = select::resolve(repo, snapshot, wanted, monitor)?;
    let reader = reading::reader(repo, monitor)?;
    for (stored, path) in &chosen {
        let item = &stored.header.item;
        if !path.is_empty() || !definition::is_defined(item.kind) {
            continue;
        }
        if let Some(bytes) = definition::stored(&reader, stored)?
            && visit(item, definition::shown(item.kind, &bytes)?).is_break()
        {
            break;
        }
    }
    Ok(())
}

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

/// Lists the files of an image as a container sees them: what lies at and below a path of its root. A
/// glob lists those of all images that have the path. Parents come before children. Returns the snapshot.
///
/// `visit` gets each entry once all headers of the image's layers were read; `Break` ends the
/// listing.
pub fn ls_image(
    repo: &Repository,
    snapshot: &SnapSpec,
    image: &ItemPath,
    visit: &mut dyn FnMut(ImageEntry) -> ControlFlow<()>,
    monitor: &dyn Monitor,
) -> OperationResult<SnapshotRow> {
    let _lease = reading::lease(repo, monitor)?;
    let (run, chosen) = select::resolve(repo, snapshot, std::slice::from_ref(image), monitor)?;
    let reader = reading::reader(repo, monitor)?;
    // Of several images those that have the path are meant.
    let several = image.selector.glob;
    let (mut listed, mut missing) = (false, None);
    for (stored, path) in &chosen {
        if several && stored_image::is_list(&reader, stored)? {
            continue;
        }
        let item = &stored.header.item;
        let layers = stored_image::layers_of(&reader, stored)?;
        let files = stored_image::files(&reader, item, &layers, monitor)?;
        let at = match stored_image::file_at(&reader, stored, &files, path) {
            Err(error @ OperationError::NoMatch { .. }) if several => {
                missing.get_or_insert(error);
                continue;
            }
            found => found?,
        };
        listed = true;
        let mut visit = |path: &[u8], inode: &Inode| visit(row(item, path, inode));
        if files.walk(path, at, &mut visit).is_break() {
            break;
        }
    }
    match missing {
        Some(error) if !listed => Err(error),
        _ => Ok(snapshots::row(&run)),
    }
}

fn row(item: &Item, path: &[u8], inode: &Inode) -> ImageEntry {
    ImageEntry {
        item: item.clone(),
        path: path.to_vec(),
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        mtime: inode.mtime,
        node: match &inode.what {
            What::File(place) => ImageNode::File { size: place.size },
            What::Directory(_) => ImageNode::Directory,
            What::Symlink(target) => ImageNode::Symlink {
                target: target.clone(),
            },
            What::CharDevice { major, minor } => ImageNode::CharDevice {
                major: *major,
                minor: *minor,
            },
            What::BlockDevice { major, minor } => ImageNode::BlockDevice {
                major: *major,
                minor: *minor,
            },
            What::Fifo => ImageNode::Fifo,
        },
    }
}
