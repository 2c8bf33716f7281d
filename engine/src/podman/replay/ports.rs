//! Ports of the host: what containers publish, and what listens already.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::network;
use super::obstacles::{HostFacts, Obstacle};
use super::stored::{Object, text};

/// Ports of the host that a container has.
pub(super) struct Published {
    /// 0: Podman chooses.
    first: u64,
    count: u64,
    /// "tcp", "tcp,udp"
    protocols: String,
    address: Option<IpAddr>,
}

impl Published {
    pub fn covers(&self, protocol: &str, port: u16) -> bool {
        let port = u64::from(port);
        self.protocols.split(',').any(|one| one == protocol)
            && self.first != 0
            && port >= self.first
            && port < self.first + self.count
    }
}

pub(super) fn published(config: &Object) -> Vec<Published> {
    let mappings = network::ports(config, &super::Choices::default());
    let mappings = mappings.iter().filter_map(serde_json::Value::as_object);
    mappings
        .map(|mapping| {
            let number = |name: &str| mapping.get(name).and_then(serde_json::Value::as_u64);
            Published {
                first: number("host_port").unwrap_or(0),
                count: number("range").unwrap_or(1).clamp(1, 65_536),
                protocols: text(mapping, "protocol").to_owned(),
                address: text(mapping, "host_ip").parse().ok(),
            }
        })
        .collect()
}

pub(super) fn ports(config: &Object, object: &str, facts: &HostFacts, found: &mut Vec<Obstacle>) {
    for wanted in published(config) {
        let Published { first, address, .. } = wanted;
        if facts.user.is_some() && first != 0 && first < u64::from(facts.first_port) {
            found.push(Obstacle {
                object: object.to_owned(),
                cause: format!("needs the port {first}, which a user may not open here"),
                remedy: format!("sysctl net.ipv4.ip_unprivileged_port_start={first}"),
            });
        }
        for protocol in wanted.protocols.split(',') {
            let taken = facts.ports.iter().find(|(of, port, at)| {
                let same_address = address.is_none_or(|wanted| {
                    wanted.is_unspecified() || at.is_unspecified() || *at == wanted
                });
                of == protocol && wanted.covers(of, *port) && same_address
            });
            if let Some((_, port, _)) = taken {
                found.push(Obstacle {
                    object: object.to_owned(),
                    cause: format!("needs the port {port}/{protocol}, which is in use"),
                    remedy: format!("stop what listens there (`ss -lnp sport = :{port}`)"),
                });
            }
        }
    }
}

/// Addresses and ports of /proc/net/{tcp,udp}: listening sockets, unconnected ones for UDP.
pub(super) fn listeners(protocol: &str, lines: &[String]) -> Vec<(IpAddr, u16)> {
    let state = if protocol == "tcp" { "0A" } else { "07" };
    let listener = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        if *words.get(3)? != state {
            return None;
        }
        let (address, port) = words.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let address = match address.len() {
            8 => IpAddr::V4(Ipv4Addr::from(
                u32::from_str_radix(address, 16).ok()?.swap_bytes(),
            )),
            _ => {
                // Four words, each in the machine's order.
                let mut bytes = [0; 16];
                for (at, part) in bytes.chunks_mut(4).enumerate() {
                    let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
                    part.copy_from_slice(&word.to_ne_bytes());
                }
                IpAddr::V6(Ipv6Addr::from(bytes))
            }
        };
        Some((address, port))
    };
    lines.iter().skip(1).filter_map(listener).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_covered_by_its_range_and_protocol() {
        let config = json!({"newPortMappings": [
            {"host_ip": "", "container_port": 80, "host_port": 8000, "range": 3, "protocol": "tcp,udp"},
            {"host_ip": "127.0.0.1", "container_port": 90, "host_port": 9000, "range": 1, "protocol": "sctp"},
        ]});
        let all = published(config.as_object().unwrap());
        let covered = |protocol: &str, port: u16| all.iter().any(|one| one.covers(protocol, port));
        for (protocol, port, is) in [
            ("tcp", 7999, false),
            ("tcp", 8000, true),
            ("udp", 8002, true),
            ("tcp", 8003, false),
            ("sctp", 8000, false),
            ("sctp", 9000, true),
            ("tcp", 9000, false),
        ] {
            assert_eq!(covered(protocol, port), is, "{protocol} {port}");
        }
    }
}
