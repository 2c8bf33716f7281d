//! Changing stored configurations so that they fit to a host.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::obstacles::{
    HostFacts, is_only_for_users, missing_binds, missing_options, overlap, parse_subnet, shown,
    subnets_of,
};
use super::stored::{Object, text};

/// Moves the subnets of a network that overlap something of the host to free ones, and adds those
/// to `taken`. Returns old and new subnets.
pub fn move_network(
    config: &mut Object,
    facts: &HostFacts,
    taken: &mut Vec<(IpAddr, u8)>,
) -> Vec<(String, String)> {
    let mut moved = Vec::new();
    let there: Vec<(IpAddr, u8)> = facts
        .networks
        .values()
        .flat_map(subnets_of)
        .chain(facts.subnets.iter().copied())
        .chain(taken.iter().copied())
        .collect();
    let Some(Value::Array(subnets)) = config.get_mut("subnets") else {
        return moved;
    };
    for entry in subnets.iter_mut().filter_map(Value::as_object_mut) {
        let old = text(entry, "subnet").to_owned();
        let Some(subnet) = parse_subnet(&old) else {
            continue;
        };
        if !there.iter().any(|other| overlap(subnet, *other)) {
            taken.push(subnet);
            continue;
        }
        let Some(free) = facts.free_subnet(subnet, taken) else {
            continue;
        };
        taken.push(free);
        let new = shown(free);
        move_text(entry, "gateway", &old, &new);
        if let Some(Value::Object(range)) = entry.get_mut("lease_range") {
            for field in ["start_ip", "end_ip"] {
                move_text(range, field, &old, &new);
            }
        }
        entry.insert("subnet".into(), json!(new));
        moved.push((old, new));
    }
    moved
}

fn move_text(object: &mut Object, field: &str, old: &str, new: &str) {
    if let Some(moved) = moved_address(text(object, field), old, new) {
        object.insert(field.into(), json!(moved));
    }
}

/// The address of another subnet at the same place. `None`: it is not in the old one.
pub fn moved_address(address: &str, old: &str, new: &str) -> Option<String> {
    let (IpAddr::V4(old), length) = parse_subnet(old)? else {
        return None;
    };
    let (IpAddr::V4(new), new_length) = parse_subnet(new)? else {
        return None;
    };
    let address: Ipv4Addr = address.parse().ok()?;
    if !overlap((IpAddr::V4(address), 32), (IpAddr::V4(old), length)) {
        return None;
    }
    let host = u32::MAX.checked_shr(u32::from(new_length)).unwrap_or(0);
    let moved = (u32::from(new) & !host) | (u32::from(address) & host);
    Some(Ipv4Addr::from(moved).to_string())
}

/// Takes out the devices, binds, options and the runtime that the host lacks. Returns what that
/// was, in words.
pub fn take_out_missing(config: &mut Object, facts: &HostFacts) -> Vec<String> {
    let mut left_out = Vec::new();
    let is_missing = |device: &Value| {
        let path = device
            .get("path")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let path = path.split(':').next().unwrap_or_default();
        path.starts_with('/') && !Path::new(path).exists()
    };
    if let Some(Value::Array(devices)) = config.get_mut("device_host_src") {
        for device in devices.iter().filter(|device| is_missing(device)) {
            left_out.push(format!("the device {}", text_of(device, "path")));
        }
        devices.retain(|device| !is_missing(device));
    }
    let missing: BTreeSet<PathBuf> = missing_binds(config).into_iter().collect();
    let gone = |path: &str| missing.contains(Path::new(path));
    left_out.extend(
        missing
            .iter()
            .map(|path| format!("the mount of {}", path.display())),
    );
    let mut places = BTreeSet::new();
    if let Some(Value::Array(mounts)) = config.get_mut("spec").and_then(|s| s.get_mut("mounts")) {
        let is_gone =
            |mount: &Value| text_of(mount, "type") == "bind" && gone(text_of(mount, "source"));
        let dropped = mounts.iter().filter(|mount| is_gone(mount));
        places.extend(dropped.map(|mount| text_of(mount, "destination").to_owned()));
        mounts.retain(|mount| !is_gone(mount));
    }
    if let Some(Value::Array(overlays)) = config.get_mut("overlayVolumes") {
        let is_gone = |volume: &Value| gone(text_of(volume, "source"));
        let dropped = overlays.iter().filter(|volume| is_gone(volume));
        places.extend(dropped.map(|volume| text_of(volume, "dest").to_owned()));
        overlays.retain(|volume| !is_gone(volume));
    }
    if let Some(Value::Array(asked)) = config.get_mut("userVolumes") {
        asked.retain(|place| place.as_str().is_none_or(|place| !places.contains(place)));
    }
    if is_only_for_users(config) && facts.user.is_none() {
        config.insert("networkMode".into(), json!("bridge"));
        left_out.push("the network mode pasta, with bridge".into());
    }
    let runtime = text(config, "runtime").to_owned();
    if !runtime.is_empty() && !facts.has_runtime(&runtime) {
        config.insert("runtime".into(), json!(facts.runtime));
        left_out.push(format!("the OCI runtime {runtime}, with {}", facts.runtime));
    }
    for field in missing_options(config, facts.version) {
        if !field.contains('.') {
            config.remove(field);
        }
        left_out.push(field.to_owned());
    }
    left_out
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::podman::replay::Version;

    #[test]
    fn c_08_a_moved_network_keeps_the_place_of_its_addresses() {
        let facts = HostFacts {
            subnets: vec![parse_subnet("10.89.0.0/16").unwrap()],
            ..HostFacts::default()
        };
        let network = json!({"subnets": [
            {"subnet": "10.89.5.0/24", "gateway": "10.89.5.1",
             "lease_range": {"start_ip": "10.89.5.100", "end_ip": "10.89.5.200"}},
            {"subnet": "10.3.0.0/24", "gateway": "10.3.0.1"},
        ]});
        let mut network = network.as_object().cloned().unwrap();
        let moved = move_network(&mut network, &facts, &mut Vec::new());
        assert_eq!(moved, [("10.89.5.0/24".into(), "10.90.0.0/24".into())]);
        let expected = json!({"subnets": [
            {"subnet": "10.90.0.0/24", "gateway": "10.90.0.1",
             "lease_range": {"start_ip": "10.90.0.100", "end_ip": "10.90.0.200"}},
            {"subnet": "10.3.0.0/24", "gateway": "10.3.0.1"},
        ]});
        assert_eq!(Value::Object(network), expected);
        let moved = |address| moved_address(address, "10.89.5.0/24", "10.90.0.0/24");
        assert_eq!(moved("10.89.5.9").as_deref(), Some("10.90.0.9"));
        assert_eq!(moved("10.3.0.9"), None);
        assert_eq!(moved("fd00::1"), None);
    }

    #[test]
    fn c_16_only_what_the_host_lacks_is_left_out() {
        let config = json!({
            "device_host_src": [{"path": "/dev/null:/dev/n"}, {"path": "/dev/there-is-none:rw"}],
            "userVolumes": ["/a", "/b"], "runtime": "there-is-none", "healthMaxLogCount": 9,
            "spec": {"mounts": [
                {"type": "bind", "source": "/proc", "destination": "/a"},
                {"type": "bind", "source": "/there/is/none", "destination": "/b"},
            ]},
        });
        let mut config = config.as_object().cloned().unwrap();
        let facts = HostFacts {
            runtime: "crun".into(),
            version: Version::parse("4.3.1"),
            ..HostFacts::default()
        };
        let left_out = take_out_missing(&mut config, &facts);
        assert_eq!(left_out.len(), 4, "{left_out:?}");
        assert_eq!(
            config["device_host_src"],
            json!([{"path": "/dev/null:/dev/n"}])
        );
        assert_eq!(config["userVolumes"], json!(["/a"]));
        assert_eq!(config["runtime"], "crun");
        assert!(!config.contains_key("healthMaxLogCount"));
        assert!(take_out_missing(&mut config, &facts).is_empty());
    }
}
