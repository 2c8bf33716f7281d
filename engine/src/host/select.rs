//! Which items a selector means: kind and name, with globs over names.

use std::collections::{BTreeSet, HashSet, VecDeque};

use podkeep_format::item::{Item, ItemKind};

use super::{
    ArtifactFacts, ConfigFacts, ContainerFacts, ImageFacts, Inventory, NetworkFacts, PodFacts,
    SecretFacts, UnitFacts,
};

/// An item of a host, and what else it goes by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub item: Item,
    /// As [`SnapshotBody::aliases`](podkeep_format::snapshot::SnapshotBody::aliases).
    pub aliases: Vec<String>,
}

/// What Podman builds for the infra containers of pods, where it has no image of them.
const PAUSE_IMAGE: &str = "localhost/podman-pause:";

/// Every item of a host that `--all` covers, sorted. The default network counts as the host's own
/// only where it was changed or is used, and the image that Podman builds itself for the infra
/// containers of pods only where another container uses it.
pub fn everything(inventory: &Inventory) -> Vec<Named> {
    let is_built_anew = |image: &ImageFacts| {
        let mut containers = inventory.containers.iter();
        !image.names.is_empty()
            && image.names.iter().all(|name| name.starts_with(PAUSE_IMAGE))
            && !containers.any(|container| container.image_id == image.id)
    };
    let mut items = named(inventory, |image| !image.external && !is_built_anew(image));
    let containers = inventory.containers.iter().flat_map(|c| &c.networks);
    let pods = inventory.pods.iter().flat_map(|pod| &pod.networks);
    let used: BTreeSet<&String> = containers.chain(pods).collect();
    for network in &inventory.networks {
        if network.is_default_unchanged && !used.contains(&network.name) {
            let item = network.item();
            items.retain(|named| named.item != item);
        }
    }
    items
}

/// The items, and what they cannot be without: a container's image, volumes, networks, secrets, pod,
/// unit, and the containers that it needs, with what these need; a pod's volumes, networks and
/// containers; a unit's other Quadlet files, and the container that it runs. In the order in which they were named, what they bring behind.
pub fn with_needs(inventory: &Inventory, items: &[Item]) -> Vec<Item> {
    let mut all: Vec<Item> = Vec::new();
    let mut seen: HashSet<Item> = HashSet::new();
    let mut open: VecDeque<(Item, bool)> = items.iter().map(|item| (item.clone(), true)).collect();
    while let Some((item, asked)) = open.pop_front() {
        if !seen.insert(item.clone()) {
            continue;
        }
        let brought = needs(inventory, &item, asked).into_iter();
        open.extend(brought.map(|item| (item, false)));
        all.push(item);
    }
    all
}

/// What one item brings. `asked`: it was named itself, so that a pod is meant with its containers.
fn needs(inventory: &Inventory, item: &Item, asked: bool) -> Vec<Item> {
    let mut found = Vec::new();
    let mut named = |kind: ItemKind, names: &[String]| {
        found.extend(names.iter().map(|name| Item::new(kind, name.as_bytes())));
    };
    if let Some(unit) = inventory.units.iter().find(|unit| unit.item() == *item) {
        named(ItemKind::Unit, &unit.needs);
        let containers = inventory.containers.iter();
        let containers = containers.filter(|one| one.unit.as_ref() == Some(&unit.service));
        let containers: Vec<String> = containers.map(|one| one.name.clone()).collect();
        named(ItemKind::Container, &containers);
    }
    let container = inventory.containers.iter().find(|c| c.item() == *item);
    let pod = inventory.pods.iter().find(|pod| pod.item() == *item);
    if let Some(container) = container {
        named(ItemKind::Volume, &container.volumes);
        named(ItemKind::Network, &container.networks);
        named(ItemKind::Secret, &container.secrets);
        named(ItemKind::Pod, container.pod.as_slice());
        named(ItemKind::Container, &container.needs);
        let units = inventory.units.iter();
        let units = units.filter(|unit| Some(&unit.service) == container.unit.as_ref());
        let units: Vec<String> = units.map(|unit| unit.name.clone()).collect();
        named(ItemKind::Unit, &units);
        let images = inventory.images.iter().filter(|image| {
            image.id == container.image_id
                || image
                    .names
                    .iter()
                    .any(|name| container.image_mounts.contains(name))
        });
        found.extend(images.map(ImageFacts::item));
    } else if let Some(pod) = pod {
        named(ItemKind::Volume, &pod.volumes);
        named(ItemKind::Network, &pod.networks);
        if asked {
            named(ItemKind::Container, &pod.containers);
        }
    }
    // What is not there any more cannot be brought.
    let there: HashSet<Item> = nameable(inventory)
        .into_iter()
        .map(|named| named.item)
        .collect();
    found.retain(|item| there.contains(item));
    found
}

/// Every item that can be named, sorted.
pub fn nameable(inventory: &Inventory) -> Vec<Named> {
    named(inventory, |_| true)
}

fn named(inventory: &Inventory, takes: impl Fn(&ImageFacts) -> bool) -> Vec<Named> {
    let volumes = inventory.volumes.iter().map(|volume| Named {
        item: Item::new(ItemKind::Volume, volume.name.as_bytes()),
        aliases: Vec::new(),
    });
    let images = inventory.images.iter().filter(|image| takes(image));
    let images = images.map(|image| Named {
        item: image.item(),
        aliases: image.aliases(),
    });
    let mut items: Vec<Named> = volumes.chain(images).collect();
    let plain = |item| Named {
        item,
        aliases: Vec::new(),
    };
    let containers = inventory.containers.iter().filter(|c| !c.is_infra);
    items.extend(containers.map(ContainerFacts::item).map(plain));
    items.extend(inventory.pods.iter().map(PodFacts::item).map(plain));
    items.extend(inventory.networks.iter().map(NetworkFacts::item).map(plain));
    items.extend(inventory.secrets.iter().map(SecretFacts::item).map(plain));
    items.extend(inventory.units.iter().map(UnitFacts::item).map(plain));
    items.extend(inventory.configs.iter().map(ConfigFacts::item).map(plain));
    items.extend(
        inventory
            .artifacts
            .iter()
            .map(ArtifactFacts::item)
            .map(plain),
    );
    items.sort();
    items
}

/// The items of a host that a selector means, sorted. A `path:` is taken as it is: whether it
/// exists shows when it is read.
pub fn matching(inventory: &Inventory, wanted: &Item, glob: bool) -> Vec<Item> {
    if wanted.kind == ItemKind::Path {
        return vec![wanted.clone()];
    }
    let items = nameable(inventory);
    let ranks = items
        .iter()
        .map(|named| rank(wanted, glob, &named.item, &named.aliases));
    best(ranks).map(|index| items[index].item.clone()).collect()
}

/// How well a selector fits an item; of several items those with the lowest rank are meant
/// ([`best`]). `None`: not at all.
pub fn rank(wanted: &Item, glob: bool, item: &Item, aliases: &[String]) -> Option<u8> {
    if wanted.kind != item.kind {
        return None;
    }
    if wanted.kind == ItemKind::Path {
        return (wanted.name == item.name).then_some(0);
    }
    let names = std::iter::once(item.name.as_slice()).chain(aliases.iter().map(String::as_bytes));
    match (glob, wanted.kind) {
        (true, _) => {
            let mut names = names;
            let found = names.any(|name| glob_matches(&wanted.name, name));
            found.then_some(0)
        }
        (false, ItemKind::Image) => names
            .filter_map(|name| image_rank(&wanted.name, name))
            .min(),
        (false, _) => (wanted.name == item.name).then_some(0),
    }
}

/// The places of the lowest rank.
pub fn best(ranks: impl Iterator<Item = Option<u8>> + Clone) -> impl Iterator<Item = usize> {
    let lowest = ranks.clone().flatten().min();
    ranks
        .enumerate()
        .filter(move |(_, rank)| rank.is_some() && *rank == lowest)
        .map(|(index, _)| index)
}

/// Hex digits of an image's ID that stand for it.
const ID_DIGITS_MIN: usize = 4;

/// How people shorten the names of images, as Podman itself resolves them against what is in its
/// store: without the tag `latest`, without `localhost/` or Docker's registry, without any
/// registry or path; or the first digits of the ID.
fn image_rank(wanted: &[u8], name: &[u8]) -> Option<u8> {
    if wanted == name {
        return Some(0);
    }
    if wanted.is_empty() {
        return None;
    }
    if is_image_id(name) {
        let digits = wanted.strip_prefix(b"sha256:").unwrap_or(wanted);
        let fits = digits.len() >= ID_DIGITS_MIN && name.starts_with(digits);
        return fits.then_some(4);
    }
    let head = name.strip_suffix(wanted).or_else(|| {
        let last = wanted.rsplit(|byte| *byte == b'/').next()?;
        let is_bare = !last.contains(&b':') && !wanted.contains(&b'@');
        let untagged = name.strip_suffix(b":latest").filter(|_| is_bare)?;
        untagged.strip_suffix(wanted)
    })?;
    match head {
        b"" => Some(0),
        b"localhost/" => Some(1),
        b"docker.io/library/" | b"docker.io/" => Some(2),
        _ => head.ends_with(b"/").then_some(3),
    }
}

/// Whether a name is an image's whole ID: 64 hex digits, which no tag can be.
pub fn is_image_id(name: &[u8]) -> bool {
    name.len() == 64 && name.iter().all(u8::is_ascii_hexdigit)
}

/// `*` stands for any bytes, `?` for one byte, and a backslash takes the next byte literally.
/// Linear in time for any pattern: on a mismatch only the last `*` takes one byte more.
pub fn glob_matches(pattern: &[u8], name: &[u8]) -> bool {
    // The byte after a backslash, or the byte itself, and how long that is in the pattern.
    let literal = |p: usize| match pattern[p..] {
        [b'\\', escaped, ..] => (escaped, 2),
        [byte, ..] => (byte, 1),
        [] => (0, 0),
    };
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                n += 1;
            }
            Some(_) if literal(p).0 == name[n] => {
                p += literal(p).1;
                n += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, n) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Item {
        let (kind, name) = text.split_once(':').unwrap();
        Item::new(ItemKind::from_word(kind).unwrap(), name)
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A pod with a web server, which needs a database that runs beside.
    fn host() -> Inventory {
        let image = |id: &str, name: &str| ImageFacts {
            id: id.into(),
            names: names(&[name]),
            layers: Vec::new(),
            external: false,
            bytes: 0,
        };
        let network = |name: &str, is_default_unchanged| NetworkFacts {
            name: name.into(),
            is_default_unchanged,
        };
        let volume = |name: &str| crate::host::VolumeFacts {
            name: name.into(),
            driver: "local".into(),
            anonymous: false,
            used_by: Vec::new(),
            used_by_running: Vec::new(),
        };
        Inventory {
            images: vec![
                image("01", "shop:7"),
                image("02", "db:1"),
                image("03", "data:1"),
            ],
            volumes: ["data", "shared", "other"].map(volume).into(),
            containers: vec![
                ContainerFacts {
                    name: "db".into(),
                    image_id: "02".into(),
                    volumes: names(&["data"]),
                    networks: names(&["back"]),
                    secrets: names(&["dbpass"]),
                    needs: names(&["web"]),
                    ..ContainerFacts::default()
                },
                ContainerFacts {
                    name: "web".into(),
                    image_id: "01".into(),
                    image_mounts: names(&["data:1"]),
                    volumes: names(&["gone"]),
                    pod: Some("front".into()),
                    needs: names(&["db"]),
                    unit: Some("web.service".into()),
                    ..ContainerFacts::default()
                },
            ],
            pods: vec![PodFacts {
                name: "front".into(),
                containers: names(&["web"]),
                volumes: names(&["shared"]),
                networks: names(&["podman"]),
                ..PodFacts::default()
            }],
            networks: vec![network("back", false), network("podman", true)],
            secrets: vec![SecretFacts {
                name: "dbpass".into(),
                ..SecretFacts::default()
            }],
            units: vec![UnitFacts {
                name: "web.container".into(),
                service: "web.service".into(),
                needs: Vec::new(),
            }],
            ..Inventory::default()
        }
    }

    #[test]
    fn c_11_a_container_brings_what_it_needs_and_a_cycle_ends() {
        let host = host();
        let brought = |named: &str| -> Vec<String> {
            let items = with_needs(&host, &[item(named)]);
            let mut items: Vec<String> = items.iter().map(Item::to_string).collect();
            items.sort();
            items
        };
        let whole = [
            "container:db",
            "container:web",
            "image:data:1",
            "image:db:1",
            "image:shop:7",
            "network:back",
            "network:podman",
            "pod:front",
            "secret:dbpass",
            "unit:web.container",
            "volume:data",
            "volume:shared",
        ];
        assert_eq!(brought("container:web"), whole);
        assert_eq!(brought("pod:front"), whole);
        assert_eq!(brought("network:back"), ["network:back"]);
        assert_eq!(brought("path:/x"), ["path:/x"]);
    }

    #[test]
    fn the_default_network_is_taken_only_where_it_is_used() {
        let mut host = host();
        let has = |host: &Inventory| {
            let all = everything(host);
            all.iter().any(|named| named.item == item("network:podman"))
        };
        assert!(has(&host));
        assert_eq!(everything(&host).len(), 3 + 3 + 2 + 1 + 2 + 1 + 1);
        host.pods.clear();
        assert!(!has(&host));
        host.networks[1].is_default_unchanged = false;
        assert!(has(&host));
    }

    #[test]
    fn i_05_short_names_of_images_mean_what_podman_takes_them_for() {
        let id = "0c190cc595a64c9ce859db4f59c54babf7302af61c14d50723850fb62ca992da";
        for (wanted, name, expected) in [
            ("localhost/lab:1", "localhost/lab:1", Some(0)),
            ("localhost/lab", "localhost/lab:latest", Some(0)),
            ("lab:1", "localhost/lab:1", Some(1)),
            ("lab", "localhost/lab:1", None),
            ("z", "docker.io/library/z:latest", Some(2)),
            ("a/b", "localhost:5000/a/b:latest", Some(3)),
            ("b:2", "localhost:5000/a/b:2", Some(3)),
            ("ab:1", "localhost/lab:1", None),
            ("localhost:5000/a", "localhost:5000/a:latest", Some(0)),
            ("x@sha256:00", "h:5000/x@sha256:00", Some(3)),
            ("0c19", id, Some(4)),
            ("sha256:0c19", id, Some(4)),
            ("0c1", id, None),
            ("", "localhost/lab:1", None),
        ] {
            let rank = image_rank(wanted.as_bytes(), name.as_bytes());
            assert_eq!(rank, expected, "{wanted} {name}");
        }
    }

    #[test]
    fn the_best_match_wins() {
        let ranks = [Some(3), None, Some(1), Some(1)];
        assert_eq!(best(ranks.into_iter()).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(best([None, None].into_iter()).count(), 0);
    }

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("db*", "db", true),
            ("*db", "webdb", true),
            ("*a*b*", "xxaxxbxx", true),
            ("w?b", "web", true),
            ("web", "web1", false),
            ("a*b", "acbd", false),
            ("", "x", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*\\\\", "a\\", true),
            ("*\\?x", "a??x", true),
        ] {
            assert_eq!(
                glob_matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn the_image_that_podman_builds_for_pods_is_no_part_of_all() {
        let mut host = host();
        host.images.push(ImageFacts {
            id: "04".into(),
            names: names(&["localhost/podman-pause:5.4.2-0"]),
            layers: Vec::new(),
            external: false,
            bytes: 0,
        });
        let item = |name: &str| Item::new(ItemKind::Image, name.as_bytes());
        let pause = item("localhost/podman-pause:5.4.2-0");
        let has = |host: &Inventory| everything(host).iter().any(|named| named.item == pause);
        assert!(!has(&host));
        assert!(nameable(&host).iter().any(|named| named.item == pause));
        host.containers[0].image_id = "04".into();
        assert!(has(&host));
        host.containers[0].image_id = "02".into();
        host.images[3].names.push("localhost/mine:1".into());
        assert!(
            everything(&host)
                .iter()
                .any(|named| named.item == item("localhost/mine:1"))
        );
    }
}
