//! What a scan tells of entries, and of owners that the item's user namespace does not know: they
//! are kept, and told of once for each.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{MutexGuard, PoisonError};

use podkeep_format::item::Escaped;
use podkeep_format::tree::{Entry, Node};
use rustix::fs::{Access, AtFlags};
use rustix::io::Errno;

use super::stat::Stat;
use super::work::Worker;
use crate::fs::owners::{HostUid, IdKind, OVERFLOW_ID, Seen};
use crate::monitor::FindingKind;

/// Ids that are told of.
const BEYOND_MAX: usize = 256;

/// The last id that a host can have stands for one that cannot be told.
const UNKNOWN: HostUid = HostUid(u32::MAX - 1);

/// What an entry is reached by.
pub(crate) struct Reached<'a> {
    pub fd: &'a OwnedFd,
    /// `.`: `fd` is the entry itself, a directory.
    pub name: &'a [u8],
}

impl Reached<'_> {
    /// Whether the kernel takes the namespace's root for somebody with no right to the inode: that
    /// is so exactly where its owner or its group has no id inside. Of what everybody may write it
    /// does not say, nor of a link.
    fn is_foreign(&self, entry: &Entry) -> bool {
        let says = entry.mode & 0o002 == 0 && !matches!(entry.node, Node::Symlink { .. });
        let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
        says && rustix::fs::accessat(self.fd, self.name, Access::WRITE_OK, flags)
            == Err(Errno::ACCESS)
    }
}

impl Worker<'_> {
    pub fn tell(&self, kind: FindingKind, path: Vec<u8>, message: String) {
        let shared = self.shared;
        shared
            .report
            .finding(&shared.outbox, &shared.item, kind, path, message);
    }

    /// Inside a user namespace: an owner that has no id there is never kept as `nobody`.
    pub fn judge_owner(&self, entry: &mut Entry, reached: &Reached<'_>) {
        let owners = &self.shared.owners;
        let overflows = entry.uid == OVERFLOW_ID || entry.gid == OVERFLOW_ID;
        if !owners.inside || !overflows || !reached.is_foreign(entry) {
            return;
        }
        for (kind, id) in [
            (IdKind::User, &mut entry.uid),
            (IdKind::Group, &mut entry.gid),
        ] {
            if *id == OVERFLOW_ID {
                *id = owners.map(kind).see(UNKNOWN).id().0;
            }
        }
        let mut known = self.known_beyond();
        if known.insert((IdKind::User, UNKNOWN)) {
            drop(known);
            self.tell(
                FindingKind::Attribute,
                Vec::new(),
                format!(
                    "the owner of {} and perhaps of more has no id in this user namespace, and \
                     cannot be told here; a backup by root can (--host local:USER)",
                    Escaped(reached.name)
                ),
            );
        }
    }

    /// The value of an attribute as the tree holds it.
    pub fn seen_value(&self, name: &[u8], value: Vec<u8>) -> Vec<u8> {
        let mut beyond = Vec::new();
        let seen = self
            .shared
            .owners
            .see_attribute(name, &value, &mut |kind, id| beyond.push((kind, id)));
        for (kind, id) in beyond {
            self.beyond_the_map(kind, id, "an ACL or a capability names", Vec::new);
        }
        seen.unwrap_or(value)
    }

    /// Whether it belongs to somebody whom the user namespace does not know, as far as that can be told.
    pub fn is_beyond(&self, stat: &Stat) -> bool {
        let owners = &self.shared.owners;
        !owners.inside && matches!(owners.see(IdKind::User, stat.uid), Seen::Beyond(_))
    }

    /// Says of an owner that the user namespace does not know, once for each.
    pub fn note_owner(&self, stat: &Stat, path: impl Fn() -> Vec<u8>) {
        let owners = &self.shared.owners;
        if owners.inside || owners.is_identity() {
            return;
        }
        for (kind, id) in [(IdKind::User, stat.uid), (IdKind::Group, stat.gid)] {
            if let Seen::Beyond(_) = owners.see(kind, id) {
                self.beyond_the_map(kind, HostUid(id), "it belongs to", &path);
            }
        }
    }

    fn known_beyond(&self) -> MutexGuard<'_, BTreeSet<(IdKind, HostUid)>> {
        let known = self.shared.beyond.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    pub fn beyond_the_map(
        &self,
        kind: IdKind,
        id: HostUid,
        what: &str,
        path: impl Fn() -> Vec<u8>,
    ) {
        let mut known = self.known_beyond();
        if known.len() >= BEYOND_MAX || !known.insert((kind, id)) {
            return;
        }
        drop(known);
        let (word, id) = (kind.word(), id.0);
        self.tell(
            FindingKind::Note,
            path(),
            format!(
                "{what} {word} {id} of the host, whom this Podman's user namespace does not know; \
                 kept as such"
            ),
        );
    }
}
