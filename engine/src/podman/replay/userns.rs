//! Containers with a user namespace of their own, below the one of Podman: what such a map means for
//! another Podman, and for the owners of the volumes that its containers use.
//!
//! Files lie on the disk as Podman's own namespace counts. A container with another map sees other ids,
//! and what has to stay as it was is what the container sees. Of `keep-id` both are the same once the id
//! that is kept is named, whatever user it belongs to; where the range is chosen anew, or given up, the
//! owners in its volumes follow.
//!
//! Source: containers/podman `pkg/util/utils.go` (GetKeepIDMapping), containers/storage `userns.go`.

use std::path::Path;

use podkeep_format::snapshot::IdRange;
use serde_json::{Value, json};

use super::stored::{Object, below, flag, map, objects, text, texts};
use crate::fs::owners::{IdMap, Owners, OwnersView};
use crate::podman::files::read_file;

/// Bytes of /etc/subuid that are looked at.
const SUBIDS_BYTES_MAX: usize = 4 << 20;
pub(super) const ANNOTATION: &str = "io.podman.annotations.userns";
/// Where root's `auto` has its ranges from.
const AUTO_USER: &str = "containers";
/// A user's `auto` leaves the user's own id alone.
const FIRST_OF_USER: u32 = 1;

/// How a container came to the map that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Userns {
    /// None of its own.
    Shared,
    /// The ids of a user are the same inside (`keep-id`), or are left out (`nomap`): only for the Podman
    /// of a user.
    OfUser,
    /// A range that Podman chose.
    Auto,
    /// Ranges that somebody chose.
    Chosen,
}

/// What a person has said about namespaces that the target cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsernsMap {
    /// They have none: ids inside are those of Podman itself.
    Host,
    /// They have a range of their own.
    Auto,
}

/// Of a container or an infra container.
pub fn userns_of(config: &Object) -> Userns {
    let Some(mapping) = map(config, "idMappingsOptions") else {
        return Userns::Shared;
    };
    let annotated = annotated(config);
    let of_user = ["keep-id", "nomap"]
        .iter()
        .any(|mode| annotated.starts_with(mode));
    if flag(mapping, "AutoUserNs") || annotated.starts_with("auto") {
        Userns::Auto
    } else if of_user || flag(config, "addCurrentUserPasswdEntry") {
        Userns::OfUser
    } else if objects(mapping, "UIDMap").next().is_some() {
        Userns::Chosen
    } else {
        Userns::Shared
    }
}

/// Whether it keeps the user's id as another one, which its map names.
pub fn keeps_named_id(config: &Object) -> bool {
    annotated(config).starts_with("keep-id:")
}

fn annotated(config: &Object) -> &str {
    below(config, &["spec", "annotations"]).map_or("", |all| text(all, ANNOTATION))
}

/// The ranges of a container: `inside` it, and `outside` as Podman's namespace counts. `key`: "UIDMap" or
/// "GIDMap".
fn ranges(config: &Object, key: &str) -> Vec<IdRange> {
    let mapping = map(config, "idMappingsOptions");
    let of = |range: &Object, name: &str| {
        let number = range.get(name).and_then(Value::as_u64)?;
        u32::try_from(number).ok()
    };
    let ranges = mapping
        .into_iter()
        .flat_map(|mapping| objects(mapping, key));
    ranges
        .filter_map(|range| {
            Some(IdRange {
                inside: of(range, "container_id")?,
                outside: of(range, "host_id")?,
                len: of(range, "size")?,
            })
        })
        .collect()
}

/// Ids of Podman's namespace that a container's map takes: first one and how many.
pub fn taken(config: &Object) -> Vec<(u32, u32)> {
    let both = ["UIDMap", "GIDMap"].into_iter();
    let ranges = both.flat_map(|key| ranges(config, key));
    ranges.map(|range| (range.outside, range.len)).collect()
}

/// How many ids a container has.
pub fn size(config: &Object) -> u32 {
    let ends = ["UIDMap", "GIDMap"]
        .into_iter()
        .flat_map(|key| ranges(config, key));
    ends.map(|range| range.inside.saturating_add(range.len))
        .max()
        .unwrap_or(0)
}

/// Which of the ids of a user are the same inside: user and group. `None`: the map has no place for them.
pub fn kept_id(config: &Object) -> Option<(u32, u32)> {
    let inside_of_root = |key| {
        let ranges = ranges(config, key).into_iter();
        let mut own = ranges.filter(|range| range.outside == 0 && range.len > 0);
        own.next().map(|range| range.inside)
    };
    Some((inside_of_root("UIDMap")?, inside_of_root("GIDMap")?))
}

/// Whether it mounts something by a map of its own, which only root can.
pub fn has_mapped_mounts(config: &Object) -> bool {
    mounts(config).any(|mount| {
        texts(mount, "options")
            .iter()
            .any(|option| is_mapping(option))
    })
}

fn is_mapping(option: &str) -> bool {
    option == "idmap" || option.starts_with("idmap=")
}

fn mounts(config: &Object) -> impl Iterator<Item = &Object> {
    let spec = below(config, &["spec"]);
    let mounts = spec.into_iter().flat_map(|spec| objects(spec, "mounts"));
    objects(config, "namedVolumes").chain(mounts)
}

/// Volumes whose owners are as Podman's namespace counts, by the container's map.
pub fn seen_through_map(config: &Object) -> Vec<String> {
    let volumes = objects(config, "namedVolumes");
    let plain = volumes.filter(|volume| !texts(volume, "options").iter().any(|o| is_mapping(o)));
    plain
        .map(|volume| text(volume, "volumeName").to_owned())
        .collect()
}

/// What a map of a container's becomes, and what its volumes' owners do: from what they are in the
/// namespace of the source's Podman to what they are in that of the target's.
pub fn view(before: &Object, after: &Object) -> Option<OwnersView> {
    let across = |key| {
        let (old, new) = (ranges(before, key), ranges(after, key));
        // Without one of its own every id is Podman's.
        let all = [IdRange {
            inside: 0,
            outside: 0,
            len: u32::MAX,
        }];
        let new = if new.is_empty() { &all[..] } else { &new[..] };
        let mut across = Vec::new();
        for old in &old {
            for new in new {
                let first = old.inside.max(new.inside);
                let end = (u64::from(old.inside) + u64::from(old.len))
                    .min(u64::from(new.inside) + u64::from(new.len));
                let len = end.saturating_sub(u64::from(first));
                if let Ok(len) = u32::try_from(len)
                    && len > 0
                {
                    across.push(IdRange {
                        inside: old.outside + (first - old.inside),
                        outside: new.outside + (first - new.inside),
                        len,
                    });
                }
            }
        }
        IdMap::new(&across).ok()
    };
    Some(OwnersView {
        uids: across("UIDMap")?,
        gids: across("GIDMap")?,
    })
}

/// Gives up a map of its own.
pub fn share(config: &mut Object) {
    forget(config);
    config.remove("idMappingsOptions");
    if let Some(Value::Array(all)) = config
        .get_mut("spec")
        .and_then(|spec| spec.get_mut("linux")?.get_mut("namespaces"))
    {
        all.retain(|one| one.get("type").and_then(Value::as_str) != Some("user"));
    }
    let unmapped = |mount: &mut Value| {
        if let Some(Value::Array(options)) = mount.get_mut("options") {
            options.retain(|option| !option.as_str().is_some_and(is_mapping));
        }
    };
    if let Some(Value::Array(volumes)) = config.get_mut("namedVolumes") {
        volumes.iter_mut().for_each(unmapped);
    }
    let spec = config.get_mut("spec");
    if let Some(Value::Array(mounts)) = spec.and_then(|spec| spec.get_mut("mounts")) {
        mounts.iter_mut().for_each(unmapped);
    }
}

fn forget(config: &mut Object) {
    config.remove("addCurrentUserPasswdEntry");
    if let Some(Value::Object(all)) = config
        .get_mut("spec")
        .and_then(|spec| spec.get_mut("annotations"))
    {
        all.remove(ANNOTATION);
    }
}

/// Gives it the ids from `first` on, as many as it had. That a Podman chose them is kept with it.
pub fn take(config: &mut Object, first: u32) {
    let range = json!([{"container_id": 0, "host_id": first, "size": size(config)}]);
    let annotation = match annotated(config) {
        auto if auto.starts_with("auto") => auto.to_owned(),
        _ => "auto".to_owned(),
    };
    forget(config);
    config.insert(
        "idMappingsOptions".into(),
        json!({"HostUIDMapping": false, "HostGIDMapping": false, "UIDMap": range, "GIDMap": range}),
    );
    if let Some(spec) = config.get_mut("spec").and_then(Value::as_object_mut) {
        let annotations = spec.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(ANNOTATION.into(), json!(annotation));
        }
    }
}

/// What the namespace of a container is asked for by, where the id that is kept is named.
pub fn named_keep_id(config: &Object, user: Option<(u32, u32)>) -> Option<String> {
    let annotated = annotated(config);
    if userns_of(config) != Userns::OfUser || annotated.starts_with("nomap") {
        return None;
    }
    if let Some(named) = annotated.strip_prefix("keep-id:") {
        return Some(named.to_owned());
    }
    let (uid, gid) = kept_id(config)?;
    // Its own ids need no name.
    (user != Some((uid, gid))).then(|| format!("uid={uid},gid={gid}"))
}

/// The ids that root's Podman may give to containers with `auto`: first one and how many.
pub fn auto_ids_of_root() -> Option<(u32, u32)> {
    let texts = ["/etc/subuid", "/etc/subgid"].map(|path| {
        let bytes = read_file(Path::new(path), SUBIDS_BYTES_MAX).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    auto_ids(texts.each_ref().map(String::as_str))
}

/// What /etc/subuid and /etc/subgid have in common.
fn auto_ids([uids, gids]: [&str; 2]) -> Option<(u32, u32)> {
    let range = |text: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.trim().split(':');
            let (name, first, len) = (fields.next()?, fields.next()?, fields.next()?);
            let (first, len) = (first.parse::<u32>().ok()?, len.parse::<u32>().ok()?);
            (name == AUTO_USER).then_some((first, len))
        })
    };
    let ((first, len), (other, other_len)) = (range(uids)?, range(gids)?);
    let (begin, end) = (
        first.max(other),
        end((first, len)).min(end((other, other_len))),
    );
    (begin < end).then(|| (begin, end - begin))
}

/// The same of a user's.
pub fn auto_ids_of_user(owners: &Owners) -> Option<(u32, u32)> {
    let end_of = |map: &IdMap| {
        let mut end = FIRST_OF_USER;
        for range in map.to_snapshot() {
            if range.inside <= end {
                end = end.max(range.inside.saturating_add(range.len));
            }
        }
        end
    };
    let end = end_of(&owners.uids).min(end_of(&owners.gids));
    (end > FIRST_OF_USER).then(|| (FIRST_OF_USER, end - FIRST_OF_USER))
}

/// The first of `size` ids within `range` of which none is taken.
pub fn free_range(range: (u32, u32), size: u32, taken: &[(u32, u32)]) -> Option<u32> {
    let mut taken = taken.to_vec();
    taken.sort_unstable();
    let mut first = range.0;
    for one in taken {
        if end(one) > first && u64::from(one.0) < u64::from(first) + u64::from(size) {
            first = end(one);
        }
    }
    let fits = u64::from(first) + u64::from(size) <= u64::from(end(range));
    (size > 0 && fits).then_some(first)
}

fn end((first, len): (u32, u32)) -> u32 {
    first.saturating_add(len)
}

/// Whether Podman's namespace has all ids that a container's map goes to.
pub fn has_ids(config: &Object, owners: &Owners) -> bool {
    let has = |key, map: &IdMap| {
        ranges(config, key).iter().all(|range| {
            let last = range.outside.saturating_add(range.len.saturating_sub(1));
            [range.outside, last]
                .iter()
                .all(|id| map.to_host(crate::fs::owners::NsUid(*id)).is_some())
        })
    };
    has("UIDMap", &owners.uids) && has("GIDMap", &owners.gids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::owners::NsUid;

    fn config(annotation: &str, ranges: Value) -> Object {
        let config = json!({
            "idMappingsOptions": {"UIDMap": ranges, "GIDMap": ranges},
            "spec": {"annotations": {(ANNOTATION): annotation},
                     "linux": {"namespaces": [{"type": "pid"}, {"type": "user"}]}},
            "namedVolumes": [
                {"volumeName": "data", "options": ["rw"]},
                {"volumeName": "mapped", "options": ["idmap"]},
            ],
        });
        config.as_object().cloned().unwrap()
    }

    fn of_alice() -> Object {
        config(
            "keep-id",
            json!([
                {"container_id": 0, "host_id": 1, "size": 1000},
                {"container_id": 1000, "host_id": 0, "size": 1},
                {"container_id": 1001, "host_id": 1001, "size": 64536},
            ]),
        )
    }

    #[test]
    fn v_10_the_id_that_is_kept_is_named_for_another_user() {
        let alice = of_alice();
        assert_eq!(userns_of(&alice), Userns::OfUser);
        assert_eq!(kept_id(&alice), Some((1000, 1000)));
        let named = |user| named_keep_id(&alice, Some(user));
        assert_eq!(named((1001, 1001)).as_deref(), Some("uid=1000,gid=1000"));
        assert_eq!(named((1000, 1000)), None);
    }

    #[test]
    fn v_10_owners_stay_what_the_container_sees_when_its_map_goes() {
        let before = of_alice();
        let mut after = before.clone();
        share(&mut after);
        assert_eq!(userns_of(&after), Userns::Shared);
        assert!(!has_mapped_mounts(&after) && has_mapped_mounts(&before));
        assert_eq!(
            json!(after)["spec"]["linux"]["namespaces"],
            json!([{"type": "pid"}])
        );
        let view = view(&before, &after).unwrap();
        for (held, seen) in [(0, 1000), (1, 0), (1000, 999), (1001, 1001), (65536, 65536)] {
            assert_eq!(
                view.uids.to_host(NsUid(held)).map(|id| id.0),
                Some(seen),
                "{held}"
            );
        }
        assert_eq!(seen_through_map(&before), ["data"]);
    }

    #[test]
    fn v_10_owners_follow_a_range_that_is_chosen_anew() {
        let before = config(
            "auto:size=2000",
            json!([{"container_id": 0, "host_id": 2147483647u32, "size": 2000}]),
        );
        assert_eq!(userns_of(&before), Userns::Auto);
        let mut after = before.clone();
        take(&mut after, 1001);
        assert_eq!(userns_of(&after), Userns::Auto, "for the next time");
        assert_eq!(taken(&after), [(1001, 2000), (1001, 2000)]);
        let view = view(&before, &after).unwrap();
        let seen = |id: u32| view.gids.to_host(NsUid(id)).map(|id| id.0);
        assert_eq!(seen(2147483647), Some(1001));
        assert_eq!(seen(2147483647 + 1999), Some(3000));
        assert_eq!(seen(0), None);
    }

    #[test]
    fn a_range_is_free_or_there_is_none() {
        let free = |size, taken: &[(u32, u32)]| free_range((100, 50), size, taken);
        assert_eq!(free(50, &[]), Some(100));
        assert_eq!(free(51, &[]), None);
        assert_eq!(free(10, &[(100, 5), (110, 10)]), Some(120));
        assert_eq!(free(5, &[(110, 10), (100, 5)]), Some(105));
        assert_eq!(free(30, &[(120, 5)]), None);
        assert_eq!(free(0, &[]), None);
        let subids = ["a:1:2\ncontainers:500:100\n", "containers:550:100"];
        assert_eq!(auto_ids(subids), Some((550, 50)));
        assert_eq!(auto_ids(["containers:500:100", "a:1:2"]), None);
    }
}
