//! Hardlinks: which names of an item are one inode.
//!
//! A link group is named by the lowest path among its members, so it is known only when all
//! members are. A pre-pass over the metadata would make every unchanged run half as slow again;
//! instead a directory that holds a name of an inode with several links waits, with its other
//! entries already encoded, until the group is decided: when as many names were met as the inode
//! has links, or at the end of the walk (links from outside the item are never met). Memory is
//! thus bounded by the linked names and the directories that hold them.
//!
//! The first worker to claim an inode reads it; others that meet it meanwhile wait for that, so
//! that its content is read once and all names carry the same attributes.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use podkeep_format::id::{ChunkIdKey, LinkGroup};

use super::directory::Directory;
use super::stat::Stat;
use crate::fs::batch::Stopped;

/// The number of a group within its scan.
pub(crate) type GroupNumber = usize;

pub(crate) enum Claim {
    /// The caller reads the inode and then calls [`Links::fill`] or [`Links::fail`].
    Read(GroupNumber),
    /// It has been read.
    Known(GroupNumber),
}

#[derive(Default)]
pub(crate) struct Links {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    numbers: HashMap<(u64, u64), GroupNumber>,
    groups: Vec<Group>,
    stopped: bool,
}

struct Group {
    nlink: u32,
    members: u32,
    lowest: Vec<u8>,
    body: Body,
    /// Directories that wait, one for each member.
    waiting: Vec<Arc<Directory>>,
    decided: bool,
}

enum Body {
    Unread,
    BeingRead,
    /// The encoded entry without name and group, and its fingerprint for the file states.
    Read(Arc<[u8]>, Arc<[u8]>),
}

impl Links {
    /// Waits while another worker reads the same inode.
    pub fn claim(&self, stat: &Stat) -> Result<Claim, Stopped> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let next = table.groups.len();
        let number = *table.numbers.entry(stat.identity()).or_insert(next);
        if number == next {
            table.groups.push(Group {
                nlink: stat.nlink,
                members: 0,
                lowest: Vec::new(),
                body: Body::BeingRead,
                waiting: Vec::new(),
                decided: false,
            });
            return Ok(Claim::Read(number));
        }
        loop {
            if table.stopped {
                return Err(Stopped);
            }
            match table.groups[number].body {
                Body::Read(..) => return Ok(Claim::Known(number)),
                Body::Unread => {
                    table.groups[number].body = Body::BeingRead;
                    return Ok(Claim::Read(number));
                }
                Body::BeingRead => {
                    table = self
                        .changed
                        .wait(table)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// `fingerprint`: empty when the entry is not to be reused by a later run.
    pub fn fill(&self, group: GroupNumber, body: Vec<u8>, fingerprint: Vec<u8>) {
        self.set_body(group, Body::Read(body.into(), fingerprint.into()));
    }

    /// What [`fill`](Self::fill) was given.
    pub fn fingerprint(&self, group: GroupNumber) -> Arc<[u8]> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match &table.groups[group].body {
            Body::Read(_, fingerprint) => Arc::clone(fingerprint),
            Body::Unread | Body::BeingRead => Arc::default(),
        }
    }

    /// The inode could not be read under this name; it may be under another.
    pub fn fail(&self, group: GroupNumber) {
        self.set_body(group, Body::Unread);
    }

    fn set_body(&self, group: GroupNumber, body: Body) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.groups[group].body = body;
        self.changed.notify_all();
    }

    /// Ends all waiting.
    pub fn stop(&self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.stopped = true;
        self.changed.notify_all();
    }

    /// Adds a member, whose directory was made to wait. Gives back the directories that need not
    /// wait (any more) for it. `early`: a group is decided when all its links were met.
    pub fn join(
        &self,
        group: GroupNumber,
        path: Vec<u8>,
        directory: &Arc<Directory>,
        early: bool,
    ) -> Vec<Arc<Directory>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let group = &mut table.groups[group];
        group.members += 1;
        if group.decided {
            // A link that was made while we read.
            return vec![Arc::clone(directory)];
        }
        if group.members == 1 || path < group.lowest {
            group.lowest = path;
        }
        group.waiting.push(Arc::clone(directory));
        if early && group.members >= group.nlink {
            group.decided = true;
            return std::mem::take(&mut group.waiting);
        }
        Vec::new()
    }

    /// The walk is over: decides all that is left.
    pub fn decide_rest(&self) -> Vec<Arc<Directory>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = Vec::new();
        for group in &mut table.groups {
            if !group.decided {
                group.decided = true;
                waiting.append(&mut group.waiting);
            }
        }
        waiting
    }

    /// The encoded entry of an inode that was read, without name and group.
    pub fn body(&self, group: GroupNumber) -> Option<Arc<[u8]>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match &table.groups[group].body {
            Body::Read(body, _) => Some(Arc::clone(body)),
            Body::Unread | Body::BeingRead => None,
        }
    }

    /// Of a decided group: its encoded entry, and its id if it has several members.
    pub fn entry(
        &self,
        group: GroupNumber,
        item: &str,
        key: &ChunkIdKey,
    ) -> Option<(Arc<[u8]>, Option<LinkGroup>)> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let group = &table.groups[group];
        let Body::Read(body, _) = &group.body else {
            return None;
        };
        let id = (group.members > 1).then(|| key.link_group(item, &group.lowest));
        Some((Arc::clone(body), id))
    }

    /// Drops what keeps directories alive; for a scan that is given up.
    pub fn clear(&self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.groups.clear();
        table.numbers.clear();
    }
}
