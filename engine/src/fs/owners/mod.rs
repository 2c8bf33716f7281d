//! Owners: a tree holds the ids that the user namespace of Podman sees, with the namespace's map
//! beside them, so that they find their place under any other map.
//!
//! Ids are seen when a tree is read and placed when it is written. Where this process is in the
//! namespace itself, the kernel does both.

pub mod attributes;
mod map;
mod writer;

use std::sync::Arc;

use podkeep_format::tree::{Entry, Node, XattrValue};

pub use self::attributes::IdKind;
pub use self::map::{HostUid, IdMap, MapError, NsUid, Seen};
pub use self::writer::OwnersWriter;

use self::attributes::Placed;

/// What the kernel tells inside a user namespace of every id that the namespace does not know
/// (kernel.overflowuid, kernel.overflowgid as they are everywhere). It may be the real `nobody`, too.
pub const OVERFLOW_ID: u32 = 65_534;

/// The maps of one user namespace, from where this process stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    pub uids: IdMap,
    pub gids: IdMap,
    /// This process is in the namespace: the kernel tells and takes ids as they are inside.
    pub inside: bool,
    /// This process may give a file to any id of the host.
    pub any_host_id: bool,
}

impl Owners {
    pub fn map(&self, kind: IdKind) -> &IdMap {
        match kind {
            IdKind::User => &self.uids,
            IdKind::Group => &self.gids,
        }
    }

    /// Every id is itself.
    pub fn is_identity(&self) -> bool {
        self.uids.is_identity() && self.gids.is_identity()
    }

    fn same_maps(&self, other: &Self) -> bool {
        self.uids == other.uids && self.gids == other.gids
    }

    /// What a tree holds of an id that the kernel told.
    pub fn see(&self, kind: IdKind, told: u32) -> Seen {
        match self.inside {
            true => Seen::Mapped(NsUid(told)),
            false => self.map(kind).see(HostUid(told)),
        }
    }

    /// What a tree holds of an attribute that the kernel told; `None`: what was told. `beyond`
    /// gets the ids that are of the host alone.
    pub fn see_attribute(
        &self,
        name: &[u8],
        value: &[u8],
        beyond: &mut dyn FnMut(IdKind, HostUid),
    ) -> Option<Vec<u8>> {
        match self.inside || self.is_identity() || !attributes::holds_ids(name) {
            true => None,
            false => attributes::see(name, value, &self.uids, &self.gids, beyond),
        }
    }
}

/// What ids of a tree are in the namespace of another Podman, so that a container which has a map of its
/// own below both sees the same. An id that no range covers stays what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnersView {
    /// Inside: the tree's; outside: what takes its place.
    pub uids: IdMap,
    pub gids: IdMap,
}

impl OwnersView {
    fn of(&self, kind: IdKind, held: NsUid) -> NsUid {
        let map = match kind {
            IdKind::User => &self.uids,
            IdKind::Group => &self.gids,
        };
        map.to_host(held).map_or(held, |seen| NsUid(seen.0))
    }
}

/// Where the ids of a stored tree go on a target.
#[derive(Clone, Debug)]
pub struct Placement {
    source: Arc<Owners>,
    target: Arc<Owners>,
    view: Option<Arc<OwnersView>>,
    /// Takes the place of every id that has none: user and group.
    squash: Option<(NsUid, NsUid)>,
}

impl Placement {
    /// `squash` is in the target's namespace. `Err`: the one of its ids that has no place itself.
    pub fn new(
        source: Arc<Owners>,
        target: Arc<Owners>,
        squash: Option<(u32, u32)>,
    ) -> Result<Self, (IdKind, u32)> {
        let squash = squash.map(|(uid, gid)| (NsUid(uid), NsUid(gid)));
        if let Some((uid, gid)) = squash {
            for (kind, id) in [(IdKind::User, uid), (IdKind::Group, gid)] {
                if target.map(kind).to_host(id).is_none() {
                    return Err((kind, id.0));
                }
            }
        }
        Ok(Self {
            source,
            target,
            view: None,
            squash,
        })
    }

    /// Places what a container sees, not what Podman's namespace does.
    pub fn seen_by(mut self, view: Option<&Arc<OwnersView>>) -> Self {
        self.view = view.cloned();
        self
    }

    /// Every id that a tree can hold has a place, and it is itself.
    pub fn changes_nothing(&self) -> bool {
        self.view.is_none() && self.source.is_identity() && self.target.is_identity()
    }

    /// Every id that a tree can hold has a place.
    pub fn is_total(&self) -> bool {
        self.changes_nothing() || (self.view.is_none() && self.keeps_host_ids())
    }

    /// Ids beyond the map are those of the same host, under the same map.
    fn keeps_host_ids(&self) -> bool {
        self.target.any_host_id && !self.target.inside && self.source.same_maps(&self.target)
    }

    /// What the kernel must be told for an id of the tree. `None`: it has no place here.
    pub fn of(&self, kind: IdKind, held: NsUid) -> Option<HostUid> {
        if let Some(host) = self.source.map(kind).beyond(held) {
            return self.keeps_host_ids().then_some(host);
        }
        let held = self.view.as_ref().map_or(held, |view| view.of(kind, held));
        let host = self.target.map(kind).to_host(held)?;
        match self.target.inside {
            true => Some(HostUid(held.0)),
            false => Some(host),
        }
    }

    fn squashed(&self, kind: IdKind) -> Option<HostUid> {
        let (uid, gid) = self.squash?;
        self.of(
            kind,
            match kind {
                IdKind::User => uid,
                IdKind::Group => gid,
            },
        )
    }

    /// The ids of an entry that have no place. `chunk` reads an attribute that is not inline; one
    /// that cannot be read holds none.
    pub fn unplaced(
        &self,
        entry: &Entry,
        chunk: &mut dyn FnMut(&XattrValue) -> Option<Vec<u8>>,
    ) -> Vec<(IdKind, NsUid)> {
        let mut ids = vec![
            (IdKind::User, NsUid(entry.uid)),
            (IdKind::Group, NsUid(entry.gid)),
        ];
        for xattr in &entry.xattrs {
            if !attributes::holds_ids(&xattr.name) {
                continue;
            }
            match &xattr.value {
                XattrValue::Inline(value) => ids.extend(attributes::ids(&xattr.name, value)),
                value @ XattrValue::Chunk { .. } => {
                    let value = chunk(value).unwrap_or_default();
                    ids.extend(attributes::ids(&xattr.name, &value));
                }
            }
        }
        ids.retain(|(kind, id)| self.of(*kind, *id).is_none());
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The entry as the kernel must be told of it. Ids without a place become the squashing ones
    /// (the namespace's root, where nobody said which); a program whose owner or group is not its
    /// own any more does not run in that one's name.
    pub fn place(&self, entry: &mut Entry) {
        let is_directory = matches!(entry.node, Node::Directory { .. });
        for (kind, id, set_id_bit) in [
            (IdKind::User, &mut entry.uid, 0o4000),
            (IdKind::Group, &mut entry.gid, 0o2000),
        ] {
            match self.of(kind, NsUid(*id)) {
                Some(host) => *id = host.0,
                None => {
                    let squashed = self.squashed(kind).or_else(|| self.of(kind, NsUid(0)));
                    if let Some(host) = squashed {
                        *id = host.0;
                    }
                    if !is_directory {
                        entry.mode &= !set_id_bit;
                    }
                }
            }
        }
        entry.xattrs.retain_mut(|xattr| {
            let XattrValue::Inline(value) = &mut xattr.value else {
                return true;
            };
            let place = |kind, id| self.of(kind, id);
            match attributes::place(&xattr.name, value, &place, &mut |_, _| {}) {
                Placed::Same => {}
                Placed::Value(placed) => *value = placed,
                Placed::Dropped => return false,
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use podkeep_format::tree::{Time, Xattr};

    use super::*;

    fn owners(text: &str) -> Arc<Owners> {
        let map = IdMap::parse(text).unwrap();
        Arc::new(Owners {
            uids: map.clone(),
            gids: map,
            inside: false,
            any_host_id: true,
        })
    }

    fn entry(uid: u32, gid: u32) -> Entry {
        Entry {
            name: b"x".to_vec(),
            mode: 0o6755,
            uid,
            gid,
            mtime: Time::default(),
            inode_flags: 0,
            project: 0,
            xattrs: Vec::new(),
            link: None,
            node: Node::Fifo,
        }
    }

    const ALICE: &str = "0 1000 1\n1 100000 65536\n";
    const BOB: &str = "0 2000 1\n1 300000 1000\n";

    #[test]
    fn owners_go_from_any_map_to_any_other_and_back() {
        let rootful = Arc::new(Owners {
            any_host_id: true,
            ..Owners::default()
        });
        let to = |source, target| Placement::new(source, target, None).unwrap();
        let mut file = entry(999, 0);
        to(owners(ALICE), Arc::clone(&rootful)).place(&mut file);
        assert_eq!((file.uid, file.gid, file.mode), (999, 0, 0o6755));
        to(Arc::clone(&rootful), owners(BOB)).place(&mut file);
        assert_eq!((file.uid, file.gid, file.mode), (300_998, 2000, 0o6755));
        assert!(to(rootful.clone(), rootful).changes_nothing());
        let own = to(owners(ALICE), owners(ALICE));
        assert!(own.is_total() && !own.changes_nothing());
    }

    #[test]
    fn v_07_ids_beyond_the_range_are_known_beforehand_and_squashed_only_when_asked() {
        let placement = |squash| Placement::new(owners(ALICE), owners(BOB), squash);
        let mut file = entry(5000, 4_294_967_294);
        let plain = placement(None).unwrap();
        let none = &mut |_: &XattrValue| None;
        assert_eq!(
            plain.unplaced(&file, none),
            [
                (IdKind::User, NsUid(5000)),
                (IdKind::Group, NsUid(4_294_967_294))
            ]
        );
        assert_eq!(
            placement(Some((7, 1001))).unwrap_err(),
            (IdKind::Group, 1001)
        );
        placement(Some((7, 8))).unwrap().place(&mut file);
        assert_eq!((file.uid, file.gid), (300_006, 300_007));
        assert_eq!(file.mode, 0o755, "it runs in nobody else's name");
    }

    #[test]
    fn v_07_an_id_of_the_host_alone_goes_back_only_to_the_same_map() {
        let alice = owners(ALICE);
        let held = alice.see(IdKind::User, 0).id();
        let back = Placement::new(alice.clone(), alice.clone(), None).unwrap();
        assert_eq!(back.of(IdKind::User, held), Some(HostUid(0)));
        let elsewhere = Placement::new(alice.clone(), owners(BOB), None).unwrap();
        assert_eq!(elsewhere.of(IdKind::User, held), None);
        let rootful = Placement::new(alice.clone(), Arc::new(Owners::default()), None).unwrap();
        assert_eq!(rootful.of(IdKind::User, held), None);
        let inside = Owners {
            inside: true,
            any_host_id: false,
            ..(*alice).clone()
        };
        let own = Placement::new(alice, Arc::new(inside), None).unwrap();
        assert_eq!(own.of(IdKind::User, held), None);
        assert_eq!(own.of(IdKind::User, NsUid(999)), Some(HostUid(999)));
    }

    #[test]
    fn a_large_attribute_is_asked_for() {
        let mut file = entry(0, 0);
        let value = XattrValue::Chunk {
            id: podkeep_format::id::ChunkId([1; 32]),
            len: 600,
        };
        file.xattrs.push(Xattr {
            name: b"system.posix_acl_access".to_vec(),
            value: value.clone(),
        });
        let mut acl = 2u32.to_le_bytes().to_vec();
        acl.extend([2, 0, 6, 0]);
        acl.extend(70_000u32.to_le_bytes());
        let placement = Placement::new(owners(ALICE), owners(BOB), None).unwrap();
        let unplaced =
            placement.unplaced(&file, &mut |asked| (*asked == value).then(|| acl.clone()));
        assert_eq!(unplaced, [(IdKind::User, NsUid(70_000))]);
    }
}
