//! What a container may do: capabilities, system calls, devices, masked paths, labels.

use serde_json::{Value, json};

use super::request::ContainerRequest;
use super::stored::{Object, below, flag, list, map, objects, text, texts};

/// Every capability that a Podman gave by default: those of Docker, of which later versions dropped
/// some.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// Paths that every Podman masks, and those that it makes read-only. Later versions mask more; that
/// is theirs to decide.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/fs/selinux",
];
const READ_ONLY: [&str; 6] = [
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// Paths that some version masks by default.
const MASKED_BY_SOME: [&str; 4] = [
    "/proc/interrupts",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu",
];
const CGROUP: &str = "/sys/fs/cgroup";
const SECCOMP: &str = "io.podman.annotations.seccomp";
const LABEL: &str = "io.podman.annotations.label";
const APPARMOR: &str = "io.podman.annotations.apparmor";

pub(super) fn ask(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let config = wanted.config;
    let privileged = flag(config, "privileged");
    body.insert("privileged".into(), json!(privileged));
    if flag(config, "label_nested") {
        body.insert("label_nested".into(), json!(true));
    }
    if let Some(process) = below(config, &["spec", "process"]) {
        body.insert(
            "no_new_privileges".into(),
            json!(flag(process, "noNewPrivileges")),
        );
        if !privileged {
            capabilities(process, text(config, "user"), body);
        }
    }
    labels(wanted, body);
    seccomp(wanted, body);
    devices(config, body);
    if !privileged {
        paths(config, body);
    }
    if let Some(sysctls) = below(config, &["spec", "linux"]).and_then(|linux| map(linux, "sysctl"))
    {
        body.insert("sysctl".into(), Value::Object(sysctls.clone()));
    }
}

/// Exactly those that it had, whatever the target gives by default.
///
/// A container of root has all that it is given. Anybody else has only those that were added for
/// him by name, in a bounding set of the default ones: naming the defaults would give them to him.
fn capabilities(process: &Object, user: &str, body: &mut Object) {
    let stored = map(process, "capabilities");
    let of = |set: &str| stored.map(|all| texts(all, set)).unwrap_or_default();
    let bounding = of("bounding");
    let user = user.split(':').next().unwrap_or_default();
    if ["", "0", "root"].contains(&user) {
        body.insert("cap_drop".into(), json!(["ALL"]));
        body.insert("cap_add".into(), json!(bounding));
        return;
    }
    let dropped: Vec<&str> = DEFAULT_CAPABILITIES
        .into_iter()
        .filter(|name| !bounding.contains(name))
        .collect();
    body.insert("cap_add".into(), json!(of("effective")));
    body.insert("cap_drop".into(), json!(dropped));
}

fn annotation<'a>(config: &'a Object, name: &str) -> &'a str {
    below(config, &["spec", "annotations"]).map_or("", |all| text(all, name))
}

/// SELinux and AppArmor, where they were asked for. Labels that Podman gave by itself belong to the
/// container that is gone.
fn labels(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let config = wanted.config;
    let mut options = texts(config, "labelopts");
    // A pod's container has its infra container's first.
    let infra = wanted.pod.and_then(|pod| pod.infra);
    let inherited = infra
        .map(|infra| list(infra, "labelopts").len())
        .unwrap_or(0);
    options.drain(..inherited.min(options.len()));
    // Without SELinux every container is stored as "disable".
    let asked = !annotation(config, LABEL).is_empty() || options.iter().any(|o| *o != "disable");
    if asked && !options.is_empty() {
        body.insert("selinux_opts".into(), json!(options));
    }
    let profile = match annotation(config, APPARMOR) {
        "" => return,
        profile => profile,
    };
    body.insert("apparmor_profile".into(), json!(profile));
}

/// How a container's system calls are filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp<'a> {
    /// As Podman does by default; that is the target's to say.
    Default,
    Unconfined,
    /// By a profile of its own: the file that it was read from, and the filter that was made of it.
    Own {
        path: &'a str,
        filter: &'a Object,
    },
}

/// The filter of a stored container.
pub fn seccomp_of(config: &Object) -> Seccomp<'_> {
    let filter = below(config, &["spec", "linux"]).and_then(|linux| map(linux, "seccomp"));
    match (annotation(config, SECCOMP), filter) {
        ("", None) if flag(config, "privileged") => Seccomp::Default,
        ("unconfined", _) | (_, None) => Seccomp::Unconfined,
        ("" | "/usr/share/containers/seccomp.json" | "/etc/containers/seccomp.json", _) => {
            Seccomp::Default
        }
        (path, Some(filter)) => Seccomp::Own { path, filter },
    }
}

fn seccomp(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let path = match seccomp_of(wanted.config) {
        Seccomp::Default => return,
        Seccomp::Unconfined => json!("unconfined"),
        // What was made of the file is stored: the file itself need not be there, nor be the same.
        Seccomp::Own { path, .. } => match wanted.seccomp_profile {
            Some(profile) => json!(profile.display().to_string()),
            None => json!(path),
        },
    };
    body.insert("seccomp_profile_path".into(), path);
}

/// The devices that were named. Those that a privileged container sees are the host's.
fn devices(config: &Object, body: &mut Object) {
    let mut named = list(config, "device_host_src").to_vec();
    named.extend(
        texts(config, "cdiDevices")
            .into_iter()
            .map(|name| json!({"path": name})),
    );
    if !named.is_empty() {
        body.insert("devices".into(), json!(named));
    }
    let Some(linux) = below(config, &["spec", "linux"]).filter(|_| !flag(config, "privileged"))
    else {
        return;
    };
    // Each device has a rule; the others were asked for as rules.
    let number_of = |object: &Object| {
        let part = |name: &str| object.get(name).cloned();
        (part("type"), part("major"), part("minor"))
    };
    let mut devices: Vec<_> = objects(linux, "devices").map(number_of).collect();
    let mut rules = Vec::new();
    for rule in map(linux, "resources")
        .into_iter()
        .flat_map(|all| objects(all, "devices"))
    {
        if !flag(rule, "allow") {
            continue;
        }
        match devices.iter().position(|device| *device == number_of(rule)) {
            Some(at) => drop(devices.swap_remove(at)),
            None => rules.push(Value::Object(rule.clone())),
        }
    }
    if !rules.is_empty() {
        body.insert("device_cgroup_rule".into(), json!(rules));
    }
}

/// Paths that were hidden beyond the usual ones, and usual ones that were shown.
fn paths(config: &Object, body: &mut Object) {
    let Some(linux) = below(config, &["spec", "linux"]) else {
        return;
    };
    let (masked, read_only) = (texts(linux, "maskedPaths"), texts(linux, "readonlyPaths"));
    let cgroup_is_writable = objects(below(config, &["spec"]).unwrap_or(linux), "mounts")
        .filter(|mount| text(mount, "destination") == CGROUP && text(mount, "type") == "cgroup")
        .any(|mount| texts(mount, "options").contains(&"rw"));
    let mut shown: Vec<&str> = Vec::new();
    let is_shown = |path: &str| !masked.contains(&path) && !read_only.contains(&path);
    if MASKED.iter().chain(&READ_ONLY).all(|path| is_shown(path)) {
        shown.push("ALL");
    } else {
        shown.extend(MASKED.iter().filter(|path| !masked.contains(path)));
        shown.extend(READ_ONLY.iter().filter(|path| !read_only.contains(path)));
        if cgroup_is_writable {
            shown.push(CGROUP);
        }
    }
    let hidden: Vec<&str> = masked
        .iter()
        .filter(|path| !MASKED.contains(path) && !MASKED_BY_SOME.contains(path))
        .copied()
        .collect();
    if !shown.is_empty() {
        body.insert("unmask".into(), json!(shown));
    }
    if !hidden.is_empty() {
        body.insert("mask".into(), json!(hidden));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::podman::replay::{Choices, Version};

    /// The categories of the old container would lock the new one out of what Podman labels anew.
    #[test]
    fn v_19_labels_that_podman_gave_by_itself_are_not_asked_for() {
        let asked = |config: Value| {
            let config = config.as_object().cloned().unwrap_or_default();
            let mut body = Object::new();
            ask(
                &ContainerRequest {
                    config: &config,
                    name: "c",
                    image: "i",
                    pod: None,
                    names: &BTreeMap::new(),
                    volumes: &BTreeMap::new(),
                    anonymous: &BTreeSet::new(),
                    seccomp_profile: None,
                    choices: &Choices::default(),
                    runtime: None,
                    target: Version::parse("5.4.2"),
                    user: None,
                },
                &mut body,
            );
            assert!(!json!(body).to_string().contains("c12,c34"), "{body:?}");
            body.remove("selinux_opts")
        };
        let own = "system_u:system_r:container_t:s0:c12,c34";
        let given = json!({
            "ProcessLabel": own, "MountLabel": own,
            "spec": {"process": {"selinuxLabel": own}, "linux": {"mountLabel": own}},
        });
        assert_eq!(asked(given.clone()), None);
        let with = |options: Value| {
            let mut config = given.clone();
            config["labelopts"] = options;
            config
        };
        // As every container is stored where there is no SELinux.
        assert_eq!(asked(with(json!(["disable"]))), None);
        let options = json!(["type:spc_t", "level:s0:c1,c2"]);
        assert_eq!(asked(with(options.clone())), Some(options));
        let mut disabled = with(json!(["disable"]));
        disabled["spec"]["annotations"] = json!({ LABEL: "disable" });
        assert_eq!(asked(disabled), Some(json!(["disable"])));
    }
}
