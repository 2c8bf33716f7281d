//! What stands in the way of definitions on a host, found before anything is changed: all of it at
//! once, each with the flag that resolves it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::ports::{listeners, ports, published};
use super::stored::{Object, below, is_nothing, list, map, objects, text, texts};
use super::{Version, network};
use crate::podman::definition::{ContainerDefinition, NetworkDefinition, PodDefinition};

/// Bytes of a file of /proc.
const PROC_BYTES_MAX: usize = 16 << 20;
/// Drivers of networks that a Podman has without a plugin.
const NETWORK_DRIVERS: [&str; 3] = ["bridge", "macvlan", "ipvlan"];
/// Where OCI runtimes lie.
const RUNTIME_FOLDERS: [&str; 5] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/libexec/crun",
];

/// What a host has, as far as definitions may clash with it.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    pub version: Version,
    /// By name; whether it runs.
    pub containers: BTreeMap<String, bool>,
    pub pods: BTreeMap<String, bool>,
    /// Configurations of containers, by name, and of infra containers by the name of their pod.
    pub configs: BTreeMap<String, Object>,
    pub networks: BTreeMap<String, Object>,
    pub secrets: BTreeSet<String>,
    /// Subnets that interfaces and routes of the host have: address and length of the prefix.
    pub subnets: Vec<(IpAddr, u8)>,
    /// Ports that something listens on: "tcp", port, address.
    pub ports: Vec<(String, u16, IpAddr)>,
    pub interfaces: BTreeSet<String>,
    pub has_ipv6: bool,
    /// The default OCI runtime.
    pub runtime: String,
    /// User and group whose Podman it is; `None`: root's.
    pub user: Option<(u32, u32)>,
    /// The first port that a user may open.
    pub first_port: u16,
    /// Ids of Podman's namespace that containers have for themselves: first one and how many.
    pub taken_ids: Vec<(u32, u32)>,
    /// As image configurations call it: "amd64".
    pub architecture: String,
    /// Timers and jobs that remove or replace what is restored, in words.
    pub jobs: Vec<String>,
}

/// What is to be made.
#[derive(Default)]
pub struct Wanted<'a> {
    pub containers: Vec<(&'a ContainerDefinition, String)>,
    pub pods: Vec<(&'a PodDefinition, String)>,
    pub networks: Vec<(&'a NetworkDefinition, String)>,
    /// Names.
    pub secrets: Vec<String>,
}

/// Something in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Obstacle {
    /// "container web"
    pub object: String,
    pub cause: String,
    /// The flag, or command, that resolves it.
    pub remedy: String,
}

impl HostFacts {
    /// Reads what the kernel and the file system tell; the caller adds what Podman does.
    pub fn read() -> Self {
        let mut facts = Self {
            architecture: architecture(),
            has_ipv6: Path::new("/proc/net/if_inet6").exists(),
            ..Self::default()
        };
        let lines = |path: &str| -> Vec<String> {
            let bytes = crate::podman::files::read_file(Path::new(path), PROC_BYTES_MAX);
            let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            text.lines().map(str::to_owned).collect()
        };
        let first_port = lines("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        facts.first_port = first_port
            .first()
            .and_then(|port| port.trim().parse().ok())
            .unwrap_or(1024);
        facts.subnets = routes(&lines("/proc/net/route"));
        facts
            .subnets
            .extend(addresses6(&lines("/proc/net/if_inet6")));
        for (protocol, file) in [
            ("tcp", "/proc/net/tcp"),
            ("tcp", "/proc/net/tcp6"),
            ("udp", "/proc/net/udp"),
            ("udp", "/proc/net/udp6"),
        ] {
            for (address, port) in listeners(protocol, &lines(file)) {
                facts.ports.push((protocol.to_owned(), port, address));
            }
        }
        if let Ok(entries) = std::fs::read_dir("/sys/class/net") {
            let names = entries
                .flatten()
                .filter_map(|e| e.file_name().into_string().ok());
            facts.interfaces = names.collect();
        }
        facts
    }

    /// It is the Podman of a user, whose networks are in a namespace of their own.
    pub fn of_user(mut self, user: (u32, u32)) -> Self {
        self.user = Some(user);
        self.subnets.clear();
        self.interfaces.clear();
        self
    }

    /// Whether an OCI runtime is there.
    pub fn has_runtime(&self, name: &str) -> bool {
        let is_there = |folder: &&str| Path::new(folder).join(name).exists();
        name == self.runtime
            || (name.starts_with('/') && Path::new(name).exists())
            || RUNTIME_FOLDERS.iter().any(is_there)
    }

    /// As if what has one of these names were not there: what it has does not clash with its successor.
    pub fn without(&self, leaving: &BTreeSet<String>, networks: &BTreeSet<String>) -> Self {
        let mut facts = self.clone();
        for name in networks {
            let Some(network) = facts.networks.remove(name) else {
                continue;
            };
            // Its interface and its route.
            let own: Vec<(IpAddr, u8)> = subnets_of(&network).collect();
            let clashes = |one: &(IpAddr, u8)| own.iter().any(|subnet| overlap(*subnet, *one));
            facts.subnets.retain(|one| !clashes(one));
        }
        for name in leaving {
            let runs = [&self.containers, &self.pods];
            let runs = runs.iter().any(|all| all.get(name) == Some(&true));
            facts.containers.remove(name);
            facts.pods.remove(name);
            let Some(config) = facts.configs.remove(name).filter(|_| runs) else {
                continue;
            };
            for own in published(&config) {
                facts
                    .ports
                    .retain(|(protocol, port, _)| !own.covers(protocol, *port));
            }
        }
        facts
    }

    /// Containers and pods that are in a network.
    pub fn users_of(&self, network: &str) -> impl Iterator<Item = &String> {
        let all = self.configs.iter();
        let is_in = move |config: &Object| {
            map(config, "newNetworks").is_some_and(|all| all.contains_key(network))
        };
        all.filter(move |(_, config)| is_in(config))
            .map(|(name, _)| name)
    }

    /// The container that has a static address in a network.
    fn owner_of(&self, network: &str, address: IpAddr) -> Option<&str> {
        let has = |config: &Object| {
            let options = map(config, "newNetworks").and_then(|all| all.get(network)?.as_object());
            options.is_some_and(|options| {
                let mut addresses = texts(options, "static_ips").into_iter();
                addresses.any(|one| one.parse() == Ok(address))
            })
        };
        let mut all = self.configs.iter();
        all.find(|(_, config)| has(config))
            .map(|(name, _)| name.as_str())
    }

    /// A subnet of the size of `wanted` that overlaps nothing here and none of `taken`.
    pub fn free_subnet(
        &self,
        wanted: (IpAddr, u8),
        taken: &[(IpAddr, u8)],
    ) -> Option<(IpAddr, u8)> {
        let IpAddr::V4(_) = wanted.0 else {
            return None;
        };
        let length = wanted.1.clamp(8, 30);
        let step = 1u32 << (32 - length);
        // 10.90.0.0 upwards, which Podman itself uses last.
        let mut address = u32::from(Ipv4Addr::new(10, 90, 0, 0)) & !(step - 1);
        while address < u32::from(Ipv4Addr::new(10, 255, 0, 0)) {
            let subnet = (IpAddr::V4(Ipv4Addr::from(address)), length);
            let networks = self.networks.values().flat_map(subnets_of);
            let mut there = self.subnets.iter().chain(taken).copied().chain(networks);
            if !there.any(|other| overlap(subnet, other)) {
                return Some(subnet);
            }
            address = address.checked_add(step)?;
        }
        None
    }

    /// A name for a network's interface that nothing has.
    pub fn free_interface(&self, taken: &BTreeSet<String>) -> String {
        let used = |name: &str| {
            let by_network = |config: &Object| text(config, "network_interface") == name;
            self.interfaces.contains(name)
                || taken.contains(name)
                || self.networks.values().any(by_network)
        };
        (1..)
            .map(|number| format!("podman{number}"))
            .find(|name| !used(name))
            .unwrap_or_default()
    }
}

/// Everything that is in the way, sorted.
pub fn obstacles(wanted: &Wanted<'_>, facts: &HostFacts) -> Vec<Obstacle> {
    let mut found = Vec::new();
    names(wanted, facts, &mut found);
    networks(wanted, facts, &mut found);
    for (pod, name) in &wanted.pods {
        if let Some(infra) = &pod.infra {
            let object = format!("pod {name}");
            ports(infra, &object, facts, &mut found);
            host_objects(infra, &object, facts, &mut found);
            addresses(infra, &object, wanted, facts, &mut found);
        }
    }
    for (container, name) in &wanted.containers {
        let object = format!("container {name}");
        if container.source == crate::podman::definition::ConfigSource::Inspect {
            found.push(Obstacle {
                object: object.clone(),
                cause: "its definition is only what `podman inspect` shows".into(),
                remedy: "back it up from a host whose database can be read".into(),
            });
            continue;
        }
        ports(&container.config, &object, facts, &mut found);
        host_objects(&container.config, &object, facts, &mut found);
        addresses(&container.config, &object, wanted, facts, &mut found);
        let lacking = missing_options(&container.config, facts.version);
        if !lacking.is_empty() {
            let lacking: Vec<&str> = lacking.into_iter().collect();
            found.push(Obstacle {
                object,
                cause: format!("this Podman does not know {}", lacking.join(", ")),
                remedy: "--drop-missing".into(),
            });
        }
    }
    found.sort();
    found.dedup();
    found
}

fn names(wanted: &Wanted<'_>, facts: &HostFacts, found: &mut Vec<Obstacle>) {
    let mut taken = |kind: &str, name: &str, runs: bool| {
        found.push(Obstacle {
            object: format!("{kind} {name}"),
            cause: match runs {
                true => "is there and runs".into(),
                false => "is there".into(),
            },
            remedy: match runs {
                true => "--rename-suffix SUFFIX, or --replace with --replace-running".into(),
                false => "--rename-suffix SUFFIX or --replace".into(),
            },
        });
    };
    for (_, name) in &wanted.containers {
        if let Some(runs) = facts.containers.get(name) {
            taken("container", name, *runs);
        } else if facts.pods.contains_key(name) {
            // One space of names.
            taken("pod", name, facts.pods[name]);
        }
    }
    for (_, name) in &wanted.pods {
        if let Some(runs) = facts.pods.get(name) {
            taken("pod", name, *runs);
        } else if let Some(runs) = facts.containers.get(name) {
            taken("container", name, *runs);
        }
    }
    for (network, name) in &wanted.networks {
        if let Some(there) = facts.networks.get(name)
            && !same_network(&network.config, there)
        {
            found.push(Obstacle {
                object: format!("network {name}"),
                cause: "is there, with other settings".into(),
                remedy: "--rename-suffix SUFFIX or --replace".into(),
            });
        }
    }
    for name in &wanted.secrets {
        if facts.secrets.contains(name) {
            found.push(Obstacle {
                object: format!("secret {name}"),
                cause: "is there".into(),
                remedy: "--replace".into(),
            });
        }
    }
}

/// Whether two networks are the same but for their ID, time and interface.
pub fn same_network(a: &Object, b: &Object) -> bool {
    let told = |config: &Object| -> Object {
        config
            .iter()
            .filter(|(field, value)| {
                let own = ["id", "created", "network_interface", "containers"];
                !own.contains(&field.as_str()) && !is_nothing(value)
            })
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    told(a) == told(b)
}

fn networks(wanted: &Wanted<'_>, facts: &HostFacts, found: &mut Vec<Obstacle>) {
    for (network, name) in &wanted.networks {
        let object = format!("network {name}");
        let config = &network.config;
        if facts
            .networks
            .get(name)
            .is_some_and(|there| same_network(config, there))
        {
            continue;
        }
        let driver = text(config, "driver");
        if !NETWORK_DRIVERS.contains(&driver) {
            found.push(Obstacle {
                object: object.clone(),
                cause: format!("needs the network driver {driver}, which Podman lacks"),
                remedy: "install it".into(),
            });
        }
        let options = map(config, "options");
        // Netavark keeps the parent of a macvlan as its interface.
        let parent = match driver {
            "macvlan" | "ipvlan" => text(config, "network_interface"),
            _ => options.map_or("", |options| text(options, "parent")),
        };
        if !parent.is_empty() && !facts.interfaces.contains(parent) {
            found.push(Obstacle {
                object: object.clone(),
                cause: format!("its parent, the interface {parent}, is not on this host"),
                remedy: format!("make it with `ip link add {parent}`"),
            });
        }
        // Several networks of the host's own may share a subnet, where Podman gives no address.
        let unmanaged = options.is_some_and(|o| text(o, "mode") == "unmanaged");
        if driver != "bridge" || unmanaged {
            continue;
        }
        for subnet in subnets_of(config) {
            if subnet.0.is_ipv6() && !facts.has_ipv6 {
                found.push(Obstacle {
                    object: object.clone(),
                    cause: format!("has the subnet {}, and this host no IPv6", shown(subnet)),
                    remedy: "sysctl net.ipv6.conf.all.disable_ipv6=0".into(),
                });
            }
            let own: Vec<(IpAddr, u8)> = subnets_of(config).collect();
            let by_network = facts
                .networks
                .iter()
                .flat_map(|(name, config)| subnets_of(config).map(move |s| (Some(name), s)));
            let by_host = facts.subnets.iter().map(|subnet| (None, *subnet));
            let clash = by_network
                .chain(by_host)
                .find(|(_, other)| overlap(subnet, *other));
            let Some((network, other)) = clash.filter(|_| !own.is_empty()) else {
                continue;
            };
            let whose = match network {
                Some(network) => format!("the network {network}"),
                None => "an interface or route of this host".into(),
            };
            found.push(Obstacle {
                object: object.clone(),
                cause: format!(
                    "its subnet {} overlaps {} of {whose}",
                    shown(subnet),
                    shown(other)
                ),
                remedy: match subnet.0 {
                    IpAddr::V4(_) => "--remap-subnet".into(),
                    IpAddr::V6(_) => "free the subnet".into(),
                },
            });
        }
    }
}

/// Static addresses that no network on the target can give.
fn addresses(
    config: &Object,
    object: &str,
    wanted: &Wanted<'_>,
    facts: &HostFacts,
    found: &mut Vec<Obstacle>,
) {
    for (name, options) in map(config, "newNetworks").into_iter().flatten() {
        let is_new = wanted
            .networks
            .iter()
            .any(|(network, _)| network.name == *name);
        let there = facts.networks.get(name);
        if !is_new && there.is_none() {
            if name != "podman" {
                found.push(Obstacle {
                    object: object.to_owned(),
                    cause: format!("is in the network {name}, which neither is here nor restored"),
                    remedy: format!("restore network:{name} with it"),
                });
            }
            continue;
        }
        let addresses = options
            .as_object()
            .into_iter()
            .flat_map(|o| texts(o, "static_ips"))
            .filter_map(|address| address.parse::<IpAddr>().ok());
        let addresses: Vec<IpAddr> = addresses.collect();
        for address in &addresses {
            // One with the same name is in the way itself.
            let owner = facts.owner_of(name, *address);
            if let Some(owner) = owner.filter(|owner| !object.ends_with(&format!(" {owner}"))) {
                found.push(Obstacle {
                    object: object.to_owned(),
                    cause: format!(
                        "has the address {address} in the network {name}, as {owner} has"
                    ),
                    remedy: "--drop-static".into(),
                });
            }
        }
        let Some(there) = there.filter(|_| !is_new) else {
            continue;
        };
        let subnets: Vec<(IpAddr, u8)> = subnets_of(there).collect();
        for address in addresses {
            if !subnets
                .iter()
                .any(|subnet| overlap((address, full(address)), *subnet))
            {
                found.push(Obstacle {
                    object: object.to_owned(),
                    cause: format!("its address {address} is in no subnet of the network {name}"),
                    remedy: "--drop-static".into(),
                });
            }
        }
    }
}

/// Devices, directories and runtimes that a configuration names and the host has not.
fn host_objects(config: &Object, object: &str, facts: &HostFacts, found: &mut Vec<Obstacle>) {
    let mut missing = |what: &str, path: &str| {
        found.push(Obstacle {
            object: object.to_owned(),
            cause: format!("{what} {path} is not on this host"),
            remedy: "--drop-missing".into(),
        });
    };
    for device in objects(config, "device_host_src") {
        let path = text(device, "path").split(':').next().unwrap_or_default();
        if path.starts_with('/') && !Path::new(path).exists() {
            missing("its device", path);
        }
    }
    for path in missing_binds(config) {
        missing("what it mounts,", &path.display().to_string());
    }
    if is_only_for_users(config) && facts.user.is_none() {
        missing("the network mode pasta", "of a user's Podman");
    }
    let runtime = text(config, "runtime");
    if !runtime.is_empty() && !facts.has_runtime(runtime) {
        missing("its OCI runtime", runtime);
    }
}

/// The network mode that root's Podman does not have, where it was asked for.
pub(super) fn is_only_for_users(config: &Object) -> bool {
    let mode = text(config, "networkMode");
    mode.starts_with("pasta:") || (mode == "pasta" && network::asks_for_network(config))
}

/// What a container mounts of the host that is not there.
pub(super) fn missing_binds(config: &Object) -> Vec<PathBuf> {
    let asked = texts(config, "userVolumes");
    let mounts = below(config, &["spec"])
        .into_iter()
        .flat_map(|spec| objects(spec, "mounts"));
    let binds = mounts
        .filter(|mount| {
            text(mount, "type") == "bind" && asked.contains(&text(mount, "destination"))
        })
        .map(|mount| text(mount, "source"));
    let overlays = objects(config, "overlayVolumes").map(|volume| text(volume, "source"));
    let rootfs = Some(text(config, "rootfs"));
    binds
        .chain(overlays)
        .chain(rootfs)
        .filter(|path| path.starts_with('/') && !Path::new(path).exists())
        .map(PathBuf::from)
        .collect()
}

/// Field, the version that brought it, and what it is by default.
const SINCE: [(&str, (u32, u32), &str); 12] = [
    ("startupHealthCheck", (4, 4), ""),
    ("label_nested", (4, 5), "false"),
    ("group_entry", (4, 5), ""),
    ("rootfs_mapping", (4, 5), ""),
    ("shmSizeSystemd", (4, 5), "0"),
    ("healthLogDestination", (5, 3), "\"local\""),
    ("healthMaxLogCount", (5, 3), "5"),
    ("healthMaxLogSize", (5, 3), "500"),
    ("useImageHostname", (5, 4), "false"),
    ("baseHostsFile", (5, 4), ""),
    ("artifactVolumes", (5, 6), ""),
    ("logLabels", (5, 8), ""),
];

/// Whether a field that some versions do not have says what these always do. `written`: as JSON.
pub(super) fn is_later_default(field: &str, written: &str) -> bool {
    let known = SINCE.iter().find(|(known, _, _)| *known == field);
    known.is_some_and(|(_, _, default)| written == *default)
}

/// Fields of a stored configuration that came with a later version of Podman than the target's, as long
/// as they say something that was not the default.
pub fn missing_options(config: &Object, target: Version) -> BTreeSet<&'static str> {
    let mut missing: BTreeSet<&'static str> = SINCE
        .into_iter()
        .filter(|(_, since, _)| !target.is_at_least(*since))
        .filter_map(|(field, _, default)| {
            let value = config.get(field).filter(|value| !is_nothing(value))?;
            let written = value.to_string();
            (written != default).then_some(field)
        })
        .collect();
    let sub_path = |volume: &Object| !text(volume, "SubPath").is_empty();
    if !target.is_at_least((5, 4)) && objects(config, "namedVolumes").any(sub_path) {
        missing.insert("namedVolumes.SubPath");
    }
    missing
}

/// The subnets of a network: addresses and lengths of prefixes.
pub(super) fn subnets_of(config: &Object) -> impl Iterator<Item = (IpAddr, u8)> {
    list(config, "subnets")
        .iter()
        .filter_map(|subnet| parse_subnet(subnet.get("subnet")?.as_str()?))
}

pub(super) fn parse_subnet(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
    (length <= full(address)).then_some((address, length))
}

fn full(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

pub(super) fn shown((address, length): (IpAddr, u8)) -> String {
    format!("{address}/{length}")
}

/// The address without the bits behind its prefix, as a number of the family's width.
fn masked(address: IpAddr, length: u8) -> u128 {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            u128::from(u32::from(v4) & mask)
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            u128::from(v6) & mask
        }
    }
}

pub(super) fn overlap(a: (IpAddr, u8), b: (IpAddr, u8)) -> bool {
    let length = a.1.min(b.1);
    a.0.is_ipv4() == b.0.is_ipv4() && masked(a.0, length) == masked(b.0, length)
}

/// Subnets of /proc/net/route, without the default route.
fn routes(lines: &[String]) -> Vec<(IpAddr, u8)> {
    let subnet = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| u32::from_str_radix(words.get(index)?, 16).ok();
        let (address, mask) = (number(1)?.swap_bytes(), number(7)?.swap_bytes());
        let length = mask.leading_ones() as u8;
        (length > 0).then_some((IpAddr::V4(Ipv4Addr::from(address)), length))
    };
    lines.iter().skip(1).filter_map(subnet).collect()
}

/// Addresses of /proc/net/if_inet6 but those of links.
fn addresses6(lines: &[String]) -> Vec<(IpAddr, u8)> {
    let subnet = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = u128::from_str_radix(words.first()?, 16).ok()?;
        let length = u8::from_str_radix(words.get(2)?, 16).ok()?;
        let address = Ipv6Addr::from(address);
        (!address.is_loopback() && !address.is_unicast_link_local())
            .then_some((IpAddr::V6(address), length))
    };
    lines.iter().filter_map(subnet).collect()
}

/// This machine's, as image configurations call it.
fn architecture() -> String {
    let machine = rustix::system::uname();
    let machine = machine.machine().to_string_lossy();
    let word = match &*machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "386",
        "armv6l" | "armv7l" => "arm",
        other => other,
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> (IpAddr, u8) {
        parse_subnet(text).unwrap()
    }

    #[test]
    fn c_08_subnets_overlap_wholly_and_in_part() {
        for (a, b, expected) in [
            ("10.89.5.0/24", "10.89.5.1/24", true),
            ("10.89.5.0/24", "10.89.0.0/16", true),
            ("10.89.5.0/24", "10.89.6.0/24", false),
            ("fd00::/64", "fd00::1/128", true),
            ("fd00::/64", "fd00:0:0:1::/64", false),
            ("0.0.0.0/0", "fd00::/64", false),
        ] {
            assert_eq!(overlap(subnet(a), subnet(b)), expected, "{a} {b}");
        }
        for wrong in ["10.0.0.0", "10.0.0.0/33", "x/24", "fd00::/129"] {
            assert_eq!(parse_subnet(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn c_08_a_free_subnet_avoids_interfaces_networks_and_what_was_chosen() {
        let facts = HostFacts {
            subnets: vec![subnet("10.90.0.0/24")],
            ..HostFacts::default()
        };
        let first = facts.free_subnet(subnet("10.1.0.0/24"), &[]).unwrap();
        assert_eq!(shown(first), "10.90.1.0/24");
        let second = facts.free_subnet(subnet("10.1.0.0/24"), &[first]).unwrap();
        assert_eq!(shown(second), "10.90.2.0/24");
        assert_eq!(facts.free_subnet(subnet("fd00::/64"), &[]), None);
    }

    #[test]
    fn the_kernel_s_tables_are_read() {
        let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                     eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n\
                     eth0 0005590A 00000000 0001 0 0 0 00FFFFFF 0 0 0";
        assert_eq!(routes(&lines(table)), [subnet("10.89.5.0/24")]);
        let table = "  sl local rem st\n 0: 0100007F:1F90 00000000:0000 0A\n 1: 0100007F:1F91 0:0 01\n \
                     2: 00000000000000000000000000000000:0050 0:0 0A";
        let expected = [
            ("127.0.0.1".parse().unwrap(), 8080),
            ("::".parse().unwrap(), 80),
        ];
        assert_eq!(listeners("tcp", &lines(table)), expected);
        let table = "fd000000000000000000000000000001 02 40 00 80 eth0\n\
                     00000000000000000000000000000001 01 80 10 80 lo";
        assert_eq!(addresses6(&lines(table)), [subnet("fd00::1/64")]);
    }
}
