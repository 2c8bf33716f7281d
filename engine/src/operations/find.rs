//! `find`: names in all snapshots.
//!
//! Snapshots are gone through from the newest to the oldest. A directory that was seen at the
//! same place with the same tree id holds nothing that was not told already, so that a hundred
//! snapshots of a tree that hardly changes cost little more than one.

use std::collections::HashSet;
use std::ops::ControlFlow;

use podkeep_format::codec::Encoder;
use podkeep_format::tree::{Entry, Node};

use super::walk::{self, Next, Place};
use super::{ListedEntry, OperationResult, reading, select};
use crate::host::select::glob_matches;
use crate::monitor::Monitor;
use crate::repo::Repository;

/// Calls `visit` for each version of each entry that `pattern` matches, with the newest snapshot
/// that holds it. A pattern with a `/` is compared with the path below the item (with a slash in
/// front), else with the last component (of an item's root: the last one of the item's name).
/// Returns how many matched.
pub fn find(
    repo: &Repository,
    pattern: &[u8],
    visit: &mut dyn FnMut(ListedEntry) -> ControlFlow<()>,
    monitor: &dyn Monitor,
) -> OperationResult<u64> {
    let _lease = reading::lease(repo, monitor)?;
    let runs = select::runs(repo, monitor)?;
    let reader = reading::reader(repo, monitor)?;
    let whole = pattern.contains(&b'/');
    // 16 bytes of a hash for each distinct directory and each match.
    let mut directories: HashSet<[u8; 16]> = HashSet::new();
    let mut told: HashSet<[u8; 16]> = HashSet::new();
    let mut found = 0;
    for run in runs.iter().rev() {
        for stored in &run.items {
            let Some(root) = stored.body.as_ref().and_then(|body| body.root) else {
                continue;
            };
            let item = &stored.header.item;
            let place = Place {
                snapshot: run.id.to_hex(),
                item,
            };
            let entry = match reader.root(root) {
                Ok(entry) => entry,
                Err(error) => {
                    walk::lost(&place, b"", error, monitor)?;
                    continue;
                }
            };
            let name = item.to_string();
            let mut look = |path: &[u8], entry: &Entry| {
                let hit = if whole {
                    let mut slashed = vec![b'/'];
                    slashed.extend_from_slice(path);
                    glob_matches(pattern, &slashed)
                } else {
                    glob_matches(pattern, last_component(&item.name, path))
                };
                if hit && told.insert(key(&name, path, entry)) {
                    found += 1;
                    visit(ListedEntry {
                        item: item.clone(),
                        path: path.to_vec(),
                        entry: entry.clone(),
                        run: Some(run.id),
                    })?;
                }
                ControlFlow::Continue(match entry.node {
                    Node::Directory { tree } => {
                        if directories.insert(seen(&name, path, &tree.0)) {
                            Next::Descend
                        } else {
                            Next::Skip
                        }
                    }
                    _ => Next::Skip,
                })
            };
            if walk::walk(&reader, &place, b"", &entry, &mut look, monitor)?.is_break() {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

fn last_component<'n>(item: &'n [u8], path: &'n [u8]) -> &'n [u8] {
    let whole = if path.is_empty() { item } else { path };
    whole.rsplit(|b| *b == b'/').next().unwrap_or(whole)
}

fn seen(item: &str, path: &[u8], what: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [item.as_bytes(), path, what] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// Names a version of an entry. A directory's content is no part of it.
fn key(item: &str, path: &[u8], entry: &Entry) -> [u8; 16] {
    let mut entry = entry.clone();
    if matches!(entry.node, Node::Directory { .. }) {
        entry.node = Node::Fifo;
    }
    let mut encoded = Encoder::new();
    entry.encode(&mut encoded);
    seen(item, path, &encoded.finish())
}
