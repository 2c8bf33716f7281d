//! Whether what is to be restored fits, told before anything is changed.

use std::collections::{BTreeMap, HashSet};

use podkeep_format::tree::{Entry, Node};

use crate::fs::bytes_outside_holes;
use crate::fs::write::Room;
use crate::host::Existing;
use crate::monitor::Monitor;
use crate::operations::{OperationError, OperationResult, SpaceNeed};
use crate::repo::reader::{Reader, is_fatal};

/// Bytes of the files at and below `entry`, holes not counted, each inode once. What cannot be
/// read is left out: the restore itself tells of it.
pub fn bytes_below(reader: &Reader, entry: &Entry, monitor: &dyn Monitor) -> OperationResult<u64> {
    let mut bytes = bytes_outside_holes(&entry.node);
    let mut groups = HashSet::new();
    let mut stack = Vec::new();
    if let Node::Directory { tree } = entry.node {
        stack.push(reader.directory(tree));
    }
    while let Some(entries) = stack.last_mut() {
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        match entries.next() {
            None => drop(stack.pop()),
            Some(Err(error)) if is_fatal(&error) => return Err(error.into()),
            Some(Err(_)) => {}
            Some(Ok(entry)) => {
                if let Node::Directory { tree } = entry.node {
                    stack.push(reader.directory(tree));
                } else if entry.link.is_none_or(|group| groups.insert(group)) {
                    bytes = bytes.saturating_add(bytes_outside_holes(&entry.node));
                }
            }
        }
    }
    Ok(bytes)
}

/// What the places of a restore need, added up for each file system.
#[derive(Default)]
pub struct Needs(BTreeMap<u64, SpaceNeed>);

impl Needs {
    pub fn add(&mut self, room: Room, bytes: u64, existing: Existing) {
        let need = self.0.entry(room.device).or_insert_with(|| SpaceNeed {
            place: room.directory,
            bytes: 0,
            bytes_free: room.bytes_free,
        });
        need.bytes = match existing {
            // Each item that is done frees what stood there before.
            Existing::Replace => need.bytes.max(bytes),
            Existing::Refuse | Existing::Merge | Existing::LaidOver | Existing::Change => {
                need.bytes.saturating_add(bytes)
            }
        };
    }

    pub fn into_list(self) -> Vec<SpaceNeed> {
        self.0.into_values().collect()
    }
}
