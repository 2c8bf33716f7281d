//! Going through a stored tree, parents before children, names in order of their bytes.

use std::ops::ControlFlow;

use podkeep_format::id::TreeId;
use podkeep_format::item::{Escaped, Item};
use podkeep_format::tree::{Entry, Node};

use super::near::near_names;
use super::{OperationError, OperationResult};
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::repo::RepoError;
use crate::repo::reader::{Reader, is_fatal};

/// Names of a directory that are compared with a mistyped one.
pub const NEAR_NAMES_MAX: usize = 10_000;

/// What a visitor wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on, into this directory if it is one.
    Descend,
    /// Go on, past what is below this directory.
    Skip,
}

/// Where a walk began, for messages: the snapshot and the item.
pub struct Place<'a> {
    pub snapshot: String,
    pub item: &'a Item,
}

/// Gets each path and its entry.
pub type Visitor<'a> = &'a mut dyn FnMut(&[u8], &Entry) -> ControlFlow<(), Next>;

/// Visits `entry`, which stands at `path` of its item, and all below it. What cannot be read is a
/// finding, and the walk goes on. Memory grows with the depth of the tree only.
///
/// `Break` from the visitor ends the walk, and is returned.
pub fn walk(
    reader: &Reader,
    place: &Place<'_>,
    path: &[u8],
    entry: &Entry,
    visit: Visitor<'_>,
    monitor: &dyn Monitor,
) -> OperationResult<ControlFlow<()>> {
    let mut path = path.to_vec();
    match visit(&path, entry) {
        ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
        ControlFlow::Continue(Next::Skip) => return Ok(ControlFlow::Continue(())),
        ControlFlow::Continue(Next::Descend) => {}
    }
    // The entries of each directory on the way, with the length of that directory's path.
    let mut stack = Vec::new();
    if let Node::Directory { tree } = entry.node {
        stack.push((reader.directory(tree), path.len()));
    }
    while let Some((entries, len)) = stack.last_mut() {
        path.truncate(*len);
        let Some(next) = entries.next() else {
            stack.pop();
            continue;
        };
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        let child = match next {
            Ok(child) => child,
            Err(error) => {
                lost(place, &path, error, monitor)?;
                continue;
            }
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&child.name);
        match visit(&path, &child) {
            ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
            ControlFlow::Continue(Next::Skip) => {}
            ControlFlow::Continue(Next::Descend) => {
                if let Node::Directory { tree } = child.node {
                    stack.push((reader.directory(tree), path.len()));
                }
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A part of the directory at `path` cannot be read: a finding, unless nothing else could be
/// read either.
pub fn lost(
    place: &Place<'_>,
    path: &[u8],
    error: RepoError,
    monitor: &dyn Monitor,
) -> OperationResult<()> {
    unreadable(place, path, "entries of this directory", error, monitor)
}

fn unreadable(
    place: &Place<'_>,
    path: &[u8],
    what: &str,
    error: RepoError,
    monitor: &dyn Monitor,
) -> OperationResult<()> {
    if is_fatal(&error) {
        return Err(error.into());
    }
    monitor.finding(Finding {
        object: place.item.to_string(),
        kind: FindingKind::Damaged,
        snapshots: vec![place.snapshot.clone()],
        paths: vec![path.to_vec()],
        message: format!("{what} cannot be read: {error}"),
    });
    Ok(())
}

/// The entry at `path` below an item's root. `None`: it cannot be read, which is a finding. That
/// there is none is an error, with names of its directory that are near.
pub fn entry_at(
    reader: &Reader,
    place: &Place<'_>,
    root: TreeId,
    path: &[u8],
    monitor: &dyn Monitor,
) -> OperationResult<Option<Entry>> {
    match reader.lookup(root, path) {
        Ok(Some(entry)) => Ok(Some(entry)),
        Ok(None) => Err(OperationError::NoMatch {
            what: place.item.at(path),
            near: near_paths(reader, root, path),
        }),
        Err(error) => {
            unreadable(place, path, "it", error, monitor)?;
            Ok(None)
        }
    }
}

/// Names beside a path that is not there. What cannot be read is no help, and no error either.
fn near_paths(reader: &Reader, root: TreeId, path: &[u8]) -> Vec<String> {
    let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    let Ok(Some(Entry {
        node: Node::Directory { tree },
        ..
    })) = reader.lookup(root, folder)
    else {
        return Vec::new();
    };
    let names: Vec<String> = reader
        .directory(tree)
        .take(NEAR_NAMES_MAX)
        .filter_map(|entry| Some(Escaped(&entry.ok()?.name).to_string()))
        .collect();
    near_names(&Escaped(name).to_string(), names.iter().map(String::as_str))
}
