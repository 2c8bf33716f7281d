//! Ids inside extended attributes: entries of POSIX ACLs, and the owner of the user namespace for
//! which a capability of a file counts.
//!
//! Formats: linux/posix_acl_xattr.h, linux/capability.h (`vfs_cap_data`, `vfs_ns_cap_data`). In a
//! tree a capability of the namespace's own root is of version 2, as it is seen inside, and that of
//! the root of a nested namespace has version 3. On a disk, version 2 is for the host's root.

use super::map::{HostUid, IdMap, NsUid, Seen};

pub const ACL_PREFIX: &[u8] = b"system.posix_acl_";
pub const CAPABILITY: &[u8] = b"security.capability";

const ACL_VERSION: u32 = 2;
const ACL_HEAD_BYTES: usize = 4;
const ACL_ENTRY_BYTES: usize = 8;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

const CAP_REVISION_MASK: u32 = 0xff00_0000;
const CAP_REVISION_2: u32 = 0x0200_0000;
const CAP_REVISION_3: u32 = 0x0300_0000;
const CAP_2_BYTES: usize = 20;
const CAP_3_BYTES: usize = 24;

/// Which of the two maps an id goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdKind {
    User,
    Group,
}

impl IdKind {
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// A named entry of an ACL.
struct AclEntry {
    tag: u16,
    perm: u16,
    id: u32,
}

impl AclEntry {
    /// `None`: its id means nothing.
    fn kind(&self) -> Option<IdKind> {
        match self.tag {
            ACL_USER => Some(IdKind::User),
            ACL_GROUP => Some(IdKind::Group),
            _ => None,
        }
    }
}

/// `None`: it is no ACL that is understood; the kernel would not take it either.
fn acl_entries(value: &[u8]) -> Option<Vec<AclEntry>> {
    let (head, entries) = value.split_first_chunk::<ACL_HEAD_BYTES>()?;
    if u32::from_le_bytes(*head) != ACL_VERSION || entries.len() % ACL_ENTRY_BYTES != 0 {
        return None;
    }
    let entries = entries.chunks_exact(ACL_ENTRY_BYTES).map(|bytes| AclEntry {
        tag: u16::from_le_bytes([bytes[0], bytes[1]]),
        perm: u16::from_le_bytes([bytes[2], bytes[3]]),
        id: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    });
    Some(entries.collect())
}

/// Entries with the same tag ascend by id, as tools write them: another map may order them anew.
fn acl_value(mut entries: Vec<AclEntry>) -> Vec<u8> {
    for group in entries.chunk_by_mut(|a, b| a.tag == b.tag) {
        group.sort_by_key(|entry| entry.id);
    }
    let mut value = ACL_VERSION.to_le_bytes().to_vec();
    for AclEntry { tag, perm, id } in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&perm.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

/// A capability without its owner, and the owner that version 3 names.
fn capability(value: &[u8]) -> Option<([u8; CAP_2_BYTES], Option<u32>)> {
    let (data, rest) = value.split_first_chunk::<CAP_2_BYTES>()?;
    let magic = u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
    match (magic & CAP_REVISION_MASK, rest) {
        (CAP_REVISION_2, []) => Some((*data, None)),
        (CAP_REVISION_3, rest) if value.len() == CAP_3_BYTES => {
            let owner = rest.first_chunk::<4>()?;
            Some((*data, Some(u32::from_le_bytes(*owner))))
        }
        _ => None,
    }
}

fn capability_value(mut data: [u8; CAP_2_BYTES], owner: Option<u32>) -> Vec<u8> {
    let magic = u32::from_le_bytes([data[0], data[1], data[2], data[3]]) & !CAP_REVISION_MASK;
    let revision = match owner {
        None => CAP_REVISION_2,
        Some(_) => CAP_REVISION_3,
    };
    data[..4].copy_from_slice(&(magic | revision).to_le_bytes());
    let mut value = data.to_vec();
    value.extend(owner.into_iter().flat_map(u32::to_le_bytes));
    value
}

/// Whether an attribute of this name may hold ids.
pub fn holds_ids(name: &[u8]) -> bool {
    name == CAPABILITY || name.starts_with(ACL_PREFIX)
}

/// The ids that a tree's attribute holds.
pub fn ids(name: &[u8], value: &[u8]) -> Vec<(IdKind, NsUid)> {
    if name.starts_with(ACL_PREFIX) {
        let entries = acl_entries(value).unwrap_or_default();
        let named = entries.iter();
        return named
            .filter_map(|entry| Some((entry.kind()?, NsUid(entry.id))))
            .collect();
    }
    if name == CAPABILITY
        && let Some((_, owner)) = capability(value)
    {
        return vec![(IdKind::User, NsUid(owner.unwrap_or(0)))];
    }
    Vec::new()
}

/// What a tree holds of an attribute on a disk. `beyond` gets the ids that no range covers.
/// `None`: it stays as it is.
pub fn see(
    name: &[u8],
    value: &[u8],
    uids: &IdMap,
    gids: &IdMap,
    beyond: &mut dyn FnMut(IdKind, HostUid),
) -> Option<Vec<u8>> {
    let mut look = |kind: IdKind, id: u32| {
        let map = match kind {
            IdKind::User => uids,
            IdKind::Group => gids,
        };
        let seen = map.see(HostUid(id));
        if let Seen::Beyond(_) = seen {
            beyond(kind, HostUid(id));
        }
        seen.id().0
    };
    if name.starts_with(ACL_PREFIX) {
        let mut entries = acl_entries(value)?;
        for entry in &mut entries {
            if let Some(kind) = entry.kind() {
                entry.id = look(kind, entry.id);
            }
        }
        return Some(acl_value(entries));
    }
    if name != CAPABILITY {
        return None;
    }
    let (data, owner) = capability(value)?;
    let owner = look(IdKind::User, owner.unwrap_or(0));
    Some(capability_value(data, (owner != 0).then_some(owner)))
}

/// What a tree's attribute becomes on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// As it is.
    Same,
    Value(Vec<u8>),
    /// It cannot be kept at all.
    Dropped,
}

/// The attribute of a tree with its ids where `place` puts them. An entry whose id has no place is
/// left out and given to `lost`, and so is a capability.
pub fn place(
    name: &[u8],
    value: &[u8],
    place: &dyn Fn(IdKind, NsUid) -> Option<HostUid>,
    lost: &mut dyn FnMut(IdKind, NsUid),
) -> Placed {
    if name.starts_with(ACL_PREFIX) {
        let Some(entries) = acl_entries(value) else {
            return Placed::Same;
        };
        let mut placed = Vec::new();
        for mut entry in entries {
            if let Some(kind) = entry.kind() {
                let id = NsUid(entry.id);
                match place(kind, id) {
                    Some(host) => entry.id = host.0,
                    None => {
                        lost(kind, id);
                        continue;
                    }
                }
            }
            placed.push(entry);
        }
        return Placed::Value(acl_value(placed));
    }
    if name != CAPABILITY {
        return Placed::Same;
    }
    let Some((data, owner)) = capability(value) else {
        return Placed::Same;
    };
    let owner = NsUid(owner.unwrap_or(0));
    match place(IdKind::User, owner) {
        Some(host) => Placed::Value(capability_value(data, (host.0 != 0).then_some(host.0))),
        None => {
            lost(IdKind::User, owner);
            Placed::Dropped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u32)]) -> Vec<u8> {
        let entries = entries.iter().map(|(tag, id)| AclEntry {
            tag: *tag,
            perm: 6,
            id: *id,
        });
        acl_value(entries.collect())
    }

    const OWNER: u16 = 0x01;
    const NO_ID: u32 = u32::MAX;

    fn cap(owner: Option<u32>) -> Vec<u8> {
        let mut data = [0; CAP_2_BYTES];
        data[0] = 1;
        data[5] = 4;
        capability_value(data, owner)
    }

    #[test]
    fn v_08_an_acl_of_the_host_is_that_of_the_namespace_inside() {
        let map = IdMap::parse("0 1000 1\n1 100000 65536\n").unwrap();
        let groups = IdMap::parse("0 1000 1\n1 200000 65536\n").unwrap();
        let host = acl(&[(OWNER, NO_ID), (ACL_USER, 100_998), (ACL_GROUP, 200_004)]);
        let name = b"system.posix_acl_access";
        let inside = see(name, &host, &map, &groups, &mut |_, id| panic!("{id:?}"));
        let inside = inside.unwrap();
        assert_eq!(
            inside,
            acl(&[(OWNER, NO_ID), (ACL_USER, 999), (ACL_GROUP, 5)])
        );
        assert_eq!(
            ids(name, &inside),
            [(IdKind::User, NsUid(999)), (IdKind::Group, NsUid(5))]
        );
        let other = IdMap::parse("0 1001 1\n1 300000 65536\n").unwrap();
        let placed = place(name, &inside, &|_, id| other.to_host(id), &mut |_, _| {});
        let expected = acl(&[(OWNER, NO_ID), (ACL_USER, 300_998), (ACL_GROUP, 300_004)]);
        assert_eq!(placed, Placed::Value(expected));
    }

    #[test]
    fn v_08_an_acl_entry_without_a_place_is_told_and_not_dropped_in_silence() {
        let value = acl(&[(OWNER, NO_ID), (ACL_USER, 70_000), (ACL_USER, 5)]);
        let mut lost = Vec::new();
        let fits = |_, id: NsUid| (id.0 < 65_536).then_some(HostUid(id.0));
        let name = b"system.posix_acl_default";
        let placed = place(name, &value, &fits, &mut |kind, id| lost.push((kind, id)));
        assert_eq!(placed, Placed::Value(acl(&[(OWNER, NO_ID), (ACL_USER, 5)])));
        assert_eq!(lost, [(IdKind::User, NsUid(70_000))]);
    }

    #[test]
    fn v_08_a_capability_counts_for_the_root_of_its_namespace() {
        let map = IdMap::parse("0 1000 1\n1 100000 65536\n").unwrap();
        // The root of the rootless Podman is seen as the plain root.
        let inside = see(CAPABILITY, &cap(Some(1000)), &map, &map, &mut |_, _| {}).unwrap();
        assert_eq!(inside, cap(None));
        // On a rootful Podman it is that; on another user's, that user's.
        let rootful = place(
            CAPABILITY,
            &inside,
            &|_, id| Some(HostUid(id.0)),
            &mut |_, _| {},
        );
        assert_eq!(rootful, Placed::Value(cap(None)));
        let other = IdMap::parse("0 2000 1\n1 300000 65536\n").unwrap();
        let placed = place(
            CAPABILITY,
            &inside,
            &|_, id| other.to_host(id),
            &mut |_, _| {},
        );
        assert_eq!(placed, Placed::Value(cap(Some(2000))));
        // The root of a namespace within the namespace.
        let nested = see(CAPABILITY, &cap(Some(100_004)), &map, &map, &mut |_, _| {}).unwrap();
        assert_eq!(nested, cap(Some(5)));
        // One that the host's root gave is beyond the namespace.
        let mut beyond = Vec::new();
        let held = see(CAPABILITY, &cap(None), &map, &map, &mut |_, id| {
            beyond.push(id);
        });
        assert_eq!(beyond, [HostUid(0)]);
        let held = held.unwrap();
        assert!(
            matches!(ids(CAPABILITY, &held)[..], [(_, id)] if map.beyond(id) == Some(HostUid(0)))
        );
        let placed = place(
            CAPABILITY,
            &held,
            &|_, id| other.to_host(id),
            &mut |_, _| {},
        );
        assert_eq!(placed, Placed::Dropped);
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        let map = IdMap::parse("0 1000 1\n").unwrap();
        for (name, value) in [
            (&b"user.x"[..], &b"abc"[..]),
            (b"system.posix_acl_access", b"\x03\0\0\0"),
            (b"system.posix_acl_access", b"\x02\0\0\0\x01"),
            (CAPABILITY, b""),
            (CAPABILITY, &[0; 24]),
        ] {
            assert_eq!(see(name, value, &map, &map, &mut |_, _| {}), None);
            let placed = place(name, value, &|_, _| None, &mut |_, _| {});
            assert_eq!(placed, Placed::Same, "{name:?}");
            assert_eq!(ids(name, value), []);
        }
    }

    #[test]
    fn another_order_of_the_ids_is_sorted() {
        let value = acl(&[(ACL_USER, 1), (ACL_USER, 2)]);
        let crossed = |_, id: NsUid| Some(HostUid(10 - id.0));
        let placed = place(b"system.posix_acl_access", &value, &crossed, &mut |_, _| {});
        assert_eq!(placed, Placed::Value(acl(&[(ACL_USER, 8), (ACL_USER, 9)])));
    }
}
