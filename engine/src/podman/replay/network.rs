//! A container's place in networks: which ones, with which addresses, ports and names.

use serde_json::{Value, json};

use super::request::{Choices, ContainerRequest, SHORT_ID_DIGITS, option_values, own_kind};
use super::stored::{Object, flag, is_nothing, list, map, objects, text, texts};

/// Fields of resolving names, as they are stored and as they are asked for.
const NAMES: [(&str, &str); 9] = [
    ("dnsServer", "dns_server"),
    ("dnsSearch", "dns_search"),
    ("dnsOption", "dns_option"),
    ("hostsAdd", "hostadd"),
    ("baseHostsFile", "base_hosts_file"),
    ("UseImageResolvConf", "use_image_resolve_conf"),
    ("useImageHostname", "use_image_hostname"),
    ("network_options", "network_options"),
    ("addCurrentUserPasswdEntry", ""),
];

pub(super) fn ask(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let config = wanted.config;
    // Whether this host's containers.conf has no_hosts is not asked.
    body.insert(
        "use_image_hosts".into(),
        json!(flag(config, "UseImageHosts")),
    );
    for (stored, asked) in NAMES {
        let value = config.get(stored).filter(|value| !is_nothing(value));
        if let Some(value) = value.filter(|_| !asked.is_empty()) {
            body.insert(asked.into(), value.clone());
        }
    }
    if text(config, "netNsCtr").is_empty() {
        if let Some(networks) = networks(config, wanted.choices) {
            body.insert("Networks".into(), networks);
        }
        let ports = ports(config, wanted.choices);
        if !ports.is_empty() {
            body.insert("portmappings".into(), json!(ports));
        }
    }
    let exposed: Object = map(config, "exposedPorts")
        .into_iter()
        .flatten()
        .map(|(port, protocols)| {
            let protocols = protocols.as_array().map(Vec::as_slice).unwrap_or_default();
            let protocols: Vec<&str> = protocols.iter().filter_map(Value::as_str).collect();
            (port.clone(), json!(protocols.join(",")))
        })
        .collect();
    if !exposed.is_empty() {
        body.insert("expose".into(), Value::Object(exposed));
    }
}

/// Its own network namespace, as the API asks for it.
pub(super) fn own(config: &Object) -> Value {
    let mode = text(config, "networkMode");
    let (mode, value) = mode.split_once(':').unwrap_or((mode, ""));
    match mode {
        // What each version does for a user when nothing is asked for, and none does for root.
        "slirp4netns" | "pasta" if value.is_empty() && !asks_for_network(config) => {
            json!({"nsmode": "default"})
        }
        "bridge" | "slirp4netns" | "pasta" => match value {
            "" => json!({"nsmode": mode}),
            value => json!({"nsmode": mode, "value": value}),
        },
        _ if flag(config, "createNetNS") => json!({"nsmode": "bridge"}),
        _ => match own_kind(config, "network") {
            own if own == json!({"nsmode": "private"}) => json!({"nsmode": "none"}),
            own => own,
        },
    }
}

pub(super) fn asks_for_network(config: &Object) -> bool {
    let command = texts(config, "CreateCommand");
    !option_values(&command, &["--network", "--net"]).is_empty()
}

/// The networks that it is in. `None`: it has none of its own.
pub(super) fn networks(config: &Object, choices: &Choices) -> Option<Value> {
    let stored = map(config, "newNetworks")?;
    let id = text(config, "id");
    let made: Vec<&str> = [id.get(..SHORT_ID_DIGITS), Some(id)]
        .into_iter()
        .flatten()
        .collect();
    let hostname =
        super::stored::below(config, &["spec"]).map_or("", |spec| text(spec, "hostname"));
    let networks: Object = stored
        .iter()
        .filter_map(|(name, options)| Some((name, options.as_object()?)))
        .map(|(name, options)| {
            let mut options = options.clone();
            // The short ID and the hostname are added by the server, of the new container.
            let mut aliases: Vec<&str> = texts(&options, "aliases");
            aliases.retain(|alias| !made.contains(alias));
            if aliases.last() == Some(&hostname) {
                aliases.pop();
            }
            let aliases = json!(aliases);
            options.insert("aliases".into(), aliases);
            if choices.drop_static {
                options.remove("static_ips");
                options.remove("static_mac");
            }
            options.retain(|_, value| !is_nothing(value));
            (name.clone(), Value::Object(options))
        })
        .collect();
    Some(Value::Object(networks))
}

/// Its port mappings. One that Podman chose stays open to its choice, unless it is to be pinned.
pub(super) fn ports(config: &Object, choices: &Choices) -> Vec<Value> {
    let command = texts(config, "CreateCommand");
    let random = random_ports(&command);
    objects(config, "newPortMappings")
        .map(|mapping| {
            let mut mapping = mapping.clone();
            let port = mapping.get("container_port").and_then(Value::as_u64);
            let protocol = text(&mapping, "protocol");
            let is_random = random.iter().any(|(container, protocol_of, address)| {
                Some(u64::from(*container)) == port
                    && *protocol_of == protocol
                    && *address == text(&mapping, "host_ip")
            });
            if is_random && !choices.pin_ports {
                mapping.insert("host_port".into(), json!(0));
            }
            Value::Object(mapping)
        })
        .collect()
}

/// Whether Podman chose one of the host's ports for it.
pub fn has_random_port(config: &Object) -> bool {
    let free = ports(config, &Choices::default());
    list(config, "newPortMappings") != free.as_slice()
}

/// The container's ports that a command published without a port of the host: port, protocol and
/// address of the host.
fn random_ports<'a>(command: &[&'a str]) -> Vec<(u16, &'a str, &'a str)> {
    let published = option_values(command, &["-p", "--publish"]);
    let mut random = Vec::new();
    for value in published {
        let (ports, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
        let (address, rest) = match ports
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        {
            Some((address, rest)) => (address, rest.strip_prefix(':').unwrap_or(rest)),
            None => match ports.split(':').count() {
                3 => ports.split_once(':').unwrap_or(("", ports)),
                _ => ("", ports),
            },
        };
        let (host, container) = rest.rsplit_once(':').unwrap_or(("", rest));
        if !host.is_empty() {
            continue;
        }
        let (first, last) = container.split_once('-').unwrap_or((container, container));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            random.extend((first..=last).map(|port| (port, protocol, address)));
        }
    }
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_10_only_ports_that_podman_chose_are_open() {
        let command = [
            "podman",
            "run",
            "-p",
            "8000-8010:8000-8010",
            "--publish=127.0.0.1::80",
            "-p53:53/udp",
            "-p",
            "[::1]::81",
            "-p",
            "90/sctp",
            "-p",
            "[::1]:82:82",
        ];
        assert_eq!(
            random_ports(&command),
            [
                (80, "tcp", "127.0.0.1"),
                (81, "tcp", "::1"),
                (90, "sctp", "")
            ]
        );
    }
}
