//! From a stored pod to the request that makes it again.
//!
//! What a pod's containers share is stored with its infra container: the request for the pod names it,
//! and the server makes an infra container of its own version, whose image is never restored.

use serde_json::{Value, json};

use super::network;
use super::request::{Choices, ContainerRequest, SHORT_ID_DIGITS, container_request};
use super::stored::{Object, flag, is_nothing, map, text, texts};

/// Kinds of namespaces that a pod can share, by the field that says so.
const SHARED: [(&str, &str); 5] = [
    ("sharesPid", "pid"),
    ("sharesIpc", "ipc"),
    ("sharesNet", "net"),
    ("sharesUts", "uts"),
    ("sharesCgroupNS", "cgroup"),
];
/// Fields of a request for a container that one for a pod has as well, for its infra container.
const OF_INFRA: [&str; 17] = [
    "dns_server",
    "dns_search",
    "dns_option",
    "hostadd",
    "network_options",
    "mounts",
    "volumes",
    "overlay_volumes",
    "image_volumes",
    "shm_size",
    "shm_size_systemd",
    "sysctl",
    "idmappings",
    "volumes_from",
    "seccomp_profile_path",
    "apparmor_profile",
    "selinux_opts",
];

/// The body of `POST /libpod/pods/create`. `infra`: what would be asked for if its infra container
/// were any container; `None`: the pod has none.
pub fn pod_request(
    config: &Object,
    name: &str,
    infra: Option<&ContainerRequest<'_>>,
    choices: &Choices,
) -> Object {
    let mut body = Object::new();
    body.insert("name".into(), json!(name));
    for (stored, asked) in [
        ("labels", "labels"),
        ("hostname", "hostname"),
        ("CreateCommand", "pod_create_command"),
        ("ExitPolicy", "exit_policy"),
        ("RestartPolicy", "restart_policy"),
        ("RestartRetries", "restart_tries"),
    ] {
        if let Some(value) = config.get(stored).filter(|value| !is_nothing(value)) {
            body.insert(asked.into(), value.clone());
        }
    }
    let mut limits = map(config, "ResourceLimits").cloned().unwrap_or_default();
    limits.retain(|_, value| !is_nothing(value));
    if !limits.is_empty() {
        body.insert("resource_limits".into(), Value::Object(limits));
    }
    let parent = text(config, "cgroupParent");
    if !["", "machine.slice", "user.slice", "/libpod_parent"].contains(&parent) {
        body.insert("cgroup_parent".into(), json!(parent));
    }
    body.insert("share_parent".into(), json!(flag(config, "sharesCgroup")));
    let Some(infra) = infra else {
        body.insert("no_infra".into(), json!(true));
        return body;
    };
    let shared: Vec<&str> = SHARED
        .into_iter()
        .filter(|(field, _)| flag(config, field))
        .map(|(_, kind)| kind)
        .collect();
    // Not to say any would be to ask for the usual ones.
    let shared = if shared.is_empty() {
        vec!["none"]
    } else {
        shared
    };
    body.insert("shared_namespaces".into(), json!(shared));
    of_infra(infra, choices, &mut body);
    body
}

fn of_infra(infra: &ContainerRequest<'_>, choices: &Choices, body: &mut Object) {
    let config = infra.config;
    let mut asked = container_request(infra);
    for field in OF_INFRA {
        if let Some(value) = asked.remove(field) {
            body.insert(field.into(), value);
        }
    }
    for field in ["pidns", "ipcns", "utsns", "userns"] {
        // Its own is the default, and for some kinds cannot be asked for.
        let is_usual = |value: &Value| {
            let usual = field == "userns" && *value == json!({"nsmode": "host"});
            usual || !is_not_own(value)
        };
        if let Some(value) = asked.remove(field).filter(|value| !is_usual(value)) {
            body.insert(field.into(), value);
        }
    }
    body.insert("netns".into(), network::own(config));
    if let Some(networks) = network::networks(config, choices) {
        body.insert("Networks".into(), networks);
    }
    let ports = network::ports(config, choices);
    if !ports.is_empty() {
        body.insert("portmappings".into(), json!(ports));
    }
    for (field, said) in [
        ("UseImageResolvConf", "no_manage_resolv_conf"),
        ("UseImageHosts", "no_manage_hosts"),
        ("useImageHostname", "no_manage_hostname"),
    ] {
        if flag(config, field) {
            body.insert(said.into(), json!(true));
        }
    }
    if !text(config, "baseHostsFile").is_empty() {
        body.insert("hostsFile".into(), json!(text(config, "baseHostsFile")));
    }
    let devices: Vec<&str> = super::stored::objects(config, "device_host_src")
        .map(|device| text(device, "path"))
        .collect();
    if !devices.is_empty() {
        body.insert("pod_devices".into(), json!(devices));
    }
    // Of the usual name, "0123456789ab-infra", the new pod has one of its own.
    let usual = infra_name(text(config, "pod"));
    let name = text(config, "name");
    if name != usual && !name.is_empty() {
        body.insert("infra_name".into(), json!(name));
    }
    // The pause image of its own version has this command.
    let entrypoint = texts(config, "entrypoint");
    if !entrypoint.is_empty() && entrypoint != ["/catatonit", "-P"] {
        body.insert("infra_command".into(), json!(entrypoint));
    }
}

/// The name that Podman gives the infra container of a pod.
pub(super) fn infra_name(pod_id: &str) -> String {
    let short: String = pod_id.chars().take(SHORT_ID_DIGITS).collect();
    format!("{short}-infra")
}

fn is_not_own(value: &Value) -> bool {
    let mode = value
        .get("nsmode")
        .and_then(Value::as_str)
        .unwrap_or_default();
    !["private", "shareable", ""].contains(&mode) || value.get("value").is_some()
}
