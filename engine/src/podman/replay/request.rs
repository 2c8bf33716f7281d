//! From a stored container to the request that makes it again.
//!
//! libpod stores what a container came to be, not what was asked for: its ContainerConfig with the
//! OCI configuration in it. `POST /libpod/containers/create` takes another form, the SpecGenerator,
//! from which the server computes a ContainerConfig anew, with defaults of its version, of its
//! containers.conf and of the image. So every default that came to be a value on the source is asked
//! for here as a value, and every place where the server would add something (the image's
//! environment, its volumes, default capabilities) is told to add nothing.
//!
//! Source of both forms: libpod/container_config.go, pkg/specgen/specgen.go and
//! pkg/specgen/generate/ of Podman 4.3.1, 5.4.2 and 5.8.2.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::pod::infra_name;
use super::stored::{Object, below, flag, is_nothing, map, number, objects, text, texts};
use super::userns::ANNOTATION as USERNS_ANNOTATION;
use super::{Version, mounts, network, security, userns};
use crate::podman::account::{below_runtime, runtime_folder};

/// A container that is to be made, and what is otherwise where it is made.
pub struct ContainerRequest<'a> {
    /// libpod's stored ContainerConfig.
    pub config: &'a Object,
    /// Of the container to be made.
    pub name: &'a str,
    /// What the target finds its image by; empty when its root is a directory.
    pub image: &'a str,
    /// Its pod there.
    pub pod: Option<PodContext<'a>>,
    /// By the ID or name that the configuration says: the name there, of containers.
    pub names: &'a BTreeMap<String, String>,
    /// Volumes that have another name there.
    pub volumes: &'a BTreeMap<String, String>,
    /// Names of the volumes that its snapshot calls anonymous.
    pub anonymous: &'a BTreeSet<String>,
    /// Where the profile of its system calls lies, when it has one of its own.
    pub seccomp_profile: Option<&'a Path>,
    pub choices: &'a Choices,
    /// The OCI runtime to ask for; `None`: the target's default one.
    pub runtime: Option<&'a str>,
    pub target: Version,
    /// User and group whose Podman it is; `None`: root's.
    pub user: Option<(u32, u32)>,
}

/// The pod that a container is made in.
#[derive(Clone, Copy)]
pub struct PodContext<'a> {
    pub name: &'a str,
    /// The ContainerConfig of its infra container, from which its containers inherit.
    pub infra: Option<&'a Object>,
    /// It has a restart policy of its own, which its containers would take over.
    pub has_restart_policy: bool,
}

/// What may be otherwise than it was, by the caller's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// Ports that Podman chose at random stay what they were.
    pub pin_ports: bool,
    /// Static addresses are left out.
    pub drop_static: bool,
    /// No name of the host is pinned for containers that had none of their own.
    pub new_hostname: bool,
    /// Without their restart policy: it is set once everything is there.
    pub without_restart: bool,
}

/// Annotations that the server makes of other fields, or of what is new.
const MADE_ANNOTATIONS: [&str; 8] = [
    "io.podman.annotations.autoremove",
    "io.podman.annotations.autoremove-image",
    "io.podman.annotations.init",
    "io.podman.annotations.privileged",
    "io.podman.annotations.publish-all",
    "io.podman.annotations.volumes-from",
    "io.kubernetes.cri-o.SandboxID",
    "io.kubernetes.cri-o.ContainerType",
];
/// Cgroup parents that the server uses when none is asked for.
const DEFAULT_CGROUP_PARENTS: [&str; 3] = ["machine.slice", "user.slice", "/libpod_parent"];
/// Digits of an ID that serve as hostname and alias.
pub(super) const SHORT_ID_DIGITS: usize = 12;

/// The fields that the API calls as the stored form does, or nearly: (stored, asked for).
const SAME: [(&str, &str); 22] = [
    ("CreateCommand", "containerCreateCommand"),
    ("RawImageName", "raw_image_name"),
    ("entrypoint", "entrypoint"),
    ("command", "command"),
    ("user", "user"),
    ("groups", "groups"),
    ("HostUsers", "hostusers"),
    ("labels", "labels"),
    ("stdin", "stdin"),
    ("stopSignal", "stop_signal"),
    ("timeout", "timeout"),
    ("sdnotifyMode", "sdnotifyMode"),
    ("timezone", "timezone"),
    ("umask", "umask"),
    ("passwd_entry", "passwd_entry"),
    ("group_entry", "group_entry"),
    ("init_container_type", "init_container_type"),
    ("storageOpts", "storage_opts"),
    ("volatile", "volatile"),
    ("chroot_directories", "chroot_directories"),
    ("cgroupsMode", "cgroups_mode"),
    (
        "healthcheck_on_failure_action",
        "health_check_on_failure_action",
    ),
];

/// The body of `POST /libpod/containers/create`.
pub fn container_request(wanted: &ContainerRequest<'_>) -> Object {
    let config = wanted.config;
    let mut body = Object::new();
    for (stored, asked) in SAME {
        if let Some(value) = config.get(stored).filter(|value| !is_nothing(value)) {
            body.insert(asked.into(), value.clone());
        }
    }
    body.insert("name".into(), json!(wanted.name));
    if let Some(pod) = &wanted.pod {
        body.insert("pod".into(), json!(pod.name));
    }
    root(wanted, &mut body);
    process(wanted, &mut body);
    annotations(config, &mut body);
    limits(wanted, &mut body);
    health(config, &mut body);
    log(config, &mut body);
    security::ask(wanted, &mut body);
    mounts::ask(wanted, &mut body);
    network::ask(wanted, &mut body);
    namespaces(wanted, &mut body);
    // Zero is a time of its own: no grace at all.
    body.insert("stop_timeout".into(), json!(number(config, "stopTimeout")));
    body.insert(
        "manage_password".into(),
        config.get("passwd").cloned().unwrap_or(json!(true)),
    );
    if flag(config, "createWorkingDir") {
        body.insert("create_working_dir".into(), json!(true));
    }
    // Decided once from the command on the source, and a value since.
    let systemd = if flag(config, "systemd") {
        "always"
    } else {
        "false"
    };
    body.insert("systemd".into(), json!(systemd));
    match restart_policy(config) {
        (policy, retries) if policy != "no" && !wanted.choices.without_restart => {
            body.insert("restart_policy".into(), json!(policy));
            if retries != 0 {
                body.insert("restart_tries".into(), json!(retries));
            }
        }
        // Its pod's would be taken otherwise.
        _ if wanted.pod.is_some_and(|pod| pod.has_restart_policy) => {
            drop(body.insert("restart_policy".into(), json!("no")))
        }
        _ => {}
    }
    let needs: Vec<String> = texts(config, "Dependencies")
        .into_iter()
        .map(|id| new_name(wanted, id))
        .collect();
    if !needs.is_empty() {
        body.insert("dependencyContainers".into(), json!(needs));
    }
    if let Some(runtime) = wanted.runtime {
        body.insert("oci_runtime".into(), json!(runtime));
    }
    let parent = text(config, "cgroupParent");
    // A pod's is named by the pod's ID.
    if wanted.pod.is_none() && !parent.is_empty() && !DEFAULT_CGROUP_PARENTS.contains(&parent) {
        body.insert("cgroup_parent".into(), json!(parent));
    }
    let pid_file = text(config, "conmonPidFile");
    if !pid_file.is_empty()
        && !pid_file.contains(text(config, "id"))
        && let Some(pid_file) = runtime_file(pid_file, wanted.user)
    {
        body.insert("conmon_pid_file".into(), json!(pid_file));
    }
    body
}

/// Where a file of a runtime folder is for whoever's Podman it is now. `None`: there is no such folder.
fn runtime_file(path: &str, user: Option<(u32, u32)>) -> Option<String> {
    match (below_runtime(path), user) {
        (Some(rest), Some((uid, _))) => Some(
            runtime_folder(uid)
                .join(rest)
                .to_string_lossy()
                .into_owned(),
        ),
        (Some(_), None) => None,
        // Root's own, where a user may not write.
        (None, Some(_)) if path.starts_with("/run/") => None,
        (None, _) => Some(path.to_owned()),
    }
}

/// The stored restart policy ("no" when there is none) and its retries.
pub fn restart_policy(config: &Object) -> (String, u64) {
    let policy = match text(config, "restart_policy") {
        "" => "no",
        policy => policy,
    };
    let retries = config.get("restart_retries").and_then(Value::as_u64);
    (policy.to_owned(), retries.unwrap_or(0))
}

/// The name on the target of a container that the configuration names.
pub(super) fn new_name(wanted: &ContainerRequest<'_>, id: &str) -> String {
    wanted
        .names
        .get(id)
        .cloned()
        .unwrap_or_else(|| id.to_owned())
}

fn spec(config: &Object) -> &Object {
    static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    below(config, &["spec"]).unwrap_or(&EMPTY)
}

/// Where its files come from.
fn root(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let config = wanted.config;
    let rootfs = text(config, "rootfs");
    if rootfs.is_empty() {
        body.insert("image".into(), json!(wanted.image));
    } else {
        body.insert("rootfs".into(), json!(rootfs));
        for field in ["rootfs_overlay", "rootfs_mapping"] {
            if let Some(value) = config.get(field).filter(|value| !is_nothing(value)) {
                body.insert(field.into(), value.clone());
            }
        }
    }
    if let Some(root) = below(config, &["spec", "root"]) {
        body.insert("read_only_filesystem".into(), json!(flag(root, "readonly")));
    }
}

fn process(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let Some(process) = below(wanted.config, &["spec", "process"]) else {
        return;
    };
    // All of it, and nothing that the image, containers.conf or this version would add.
    let environment: Object = texts(process, "env")
        .into_iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    body.insert("env".into(), Value::Object(environment));
    body.insert("unsetenvall".into(), json!(true));
    body.insert("env_host".into(), json!(false));
    body.insert("httpproxy".into(), json!(false));
    body.insert("terminal".into(), json!(flag(process, "terminal")));
    if !text(process, "cwd").is_empty() {
        body.insert("work_dir".into(), json!(text(process, "cwd")));
    }
    if let Some(adjustment) = process.get("oomScoreAdj").filter(|value| value.is_i64()) {
        body.insert("oom_score_adj".into(), adjustment.clone());
    }
    let limits: Vec<Value> = objects(process, "rlimits")
        .map(|limit| {
            let mut limit = limit.clone();
            let name = text(&limit, "type")
                .trim_start_matches("RLIMIT_")
                .to_lowercase();
            limit.insert("type".into(), json!(name));
            Value::Object(limit)
        })
        .collect();
    // A user may not raise them: those that nobody asked for are the host's.
    let command = texts(wanted.config, "CreateCommand");
    let asked = !option_values(&command, &["--ulimit"]).is_empty();
    if !limits.is_empty() && (wanted.user.is_none() || asked) {
        body.insert("r_limits".into(), json!(limits));
    }
    if texts(process, "args").first() == Some(&"/run/podman-init") {
        body.insert("init".into(), json!(true));
        let source = objects(spec(wanted.config), "mounts")
            .find(|mount| text(mount, "destination") == "/run/podman-init")
            .map(|mount| text(mount, "source"));
        // Where it lies is the target's own matter, unless it was chosen.
        if let Some(path) = source.filter(|path| !path.starts_with("/usr/")) {
            body.insert("init_path".into(), json!(path));
        }
    }
}

fn annotations(config: &Object, body: &mut Object) {
    let stored = below(config, &["spec", "annotations"]);
    let kept: Object = stored
        .into_iter()
        .flatten()
        .filter(|(name, _)| !MADE_ANNOTATIONS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !kept.is_empty() {
        body.insert("annotations".into(), Value::Object(kept));
    }
    let says_true = |name: &str| stored.is_some_and(|all| text(all, name) == "TRUE");
    if says_true("io.podman.annotations.autoremove") {
        body.insert("remove".into(), json!(true));
    }
    if says_true("io.podman.annotations.autoremove-image") {
        body.insert("removeImage".into(), json!(true));
    }
}

/// Limits of its cgroup. Devices are asked for as devices.
fn limits(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let Some(linux) = below(wanted.config, &["spec", "linux"]) else {
        return;
    };
    let mut resources = map(linux, "resources").cloned().unwrap_or_default();
    resources.remove("devices");
    for (option, stored, asked) in BLOCK_LIMITS {
        by_path(wanted.config, option, stored, asked, &mut resources, body);
    }
    resources.retain(|_, value| !is_nothing(value));
    if !resources.is_empty() {
        body.insert("resource_limits".into(), Value::Object(resources));
    }
    for (stored, asked) in [("personality", "personality"), ("intelRdt", "intelRdt")] {
        if let Some(value) = map(linux, stored) {
            body.insert(asked.into(), Value::Object(value.clone()));
        }
    }
}

/// Option, name in the stored limits, name in the request.
const BLOCK_LIMITS: [(&str, &str, &str); 5] = [
    (
        "--device-read-bps",
        "throttleReadBpsDevice",
        "throttleReadBpsDevice",
    ),
    (
        "--device-write-bps",
        "throttleWriteBpsDevice",
        "throttleWriteBpsDevice",
    ),
    (
        "--device-read-iops",
        "throttleReadIOPSDevice",
        "throttleReadIOPSDevice",
    ),
    (
        "--device-write-iops",
        "throttleWriteIOPSDevice",
        "throttleWriteIOPSDevice",
    ),
    ("--blkio-weight-device", "weightDevice", "weightDevice"),
];

/// The stored form has a block device by its number, which another one may have on another host.
/// Where the command that made the container tells the paths, they are asked for.
fn by_path(
    config: &Object,
    option: &str,
    stored: &str,
    asked: &str,
    resources: &mut Object,
    body: &mut Object,
) {
    let Some(block) = resources.get_mut("blockIO").and_then(Value::as_object_mut) else {
        return;
    };
    let entries: Vec<Object> = objects(block, stored).cloned().collect();
    let command = texts(config, "CreateCommand");
    let paths: Vec<&str> = option_values(&command, &[option])
        .into_iter()
        .filter_map(|value| value.split_once(':').map(|(path, _)| path))
        .filter(|path| path.starts_with("/dev/"))
        .collect();
    // A command that lists another number of them tells of another state.
    if entries.is_empty() || paths.len() != entries.len() {
        return;
    }
    let by_path: Object = paths
        .into_iter()
        .zip(entries)
        .map(|(path, mut entry)| {
            entry.remove("major");
            entry.remove("minor");
            (path.to_owned(), Value::Object(entry))
        })
        .collect();
    block.remove(stored);
    body.insert(asked.into(), Value::Object(by_path));
}

/// The values that a command line gives to an option, before the image's name and its arguments
/// (which cannot be told from it with certainty: what follows them only adds evidence).
pub(super) fn option_values<'a>(command: &[&'a str], names: &[&str]) -> Vec<&'a str> {
    let mut values = Vec::new();
    let mut words = command.iter();
    while let Some(word) = words.next() {
        for name in names {
            if word == name {
                values.extend(words.clone().next().copied());
            } else if let Some(rest) = word.strip_prefix(name) {
                match rest.strip_prefix('=') {
                    Some(value) => values.push(value),
                    // -p8080:80
                    None if !name.starts_with("--") => values.push(rest),
                    None => {}
                }
            }
        }
    }
    values
}

fn health(config: &Object, body: &mut Object) {
    if let Some(check) = map(config, "healthcheck") {
        body.insert("healthconfig".into(), Value::Object(check.clone()));
    }
    if let Some(check) = map(config, "startupHealthCheck") {
        body.insert("startupHealthConfig".into(), Value::Object(check.clone()));
    }
    for field in [
        "healthLogDestination",
        "healthMaxLogCount",
        "healthMaxLogSize",
    ] {
        if let Some(value) = config.get(field).filter(|value| !value.is_null()) {
            body.insert(field.into(), value.clone());
        }
    }
}

fn log(config: &Object, body: &mut Object) {
    let mut log = Object::new();
    let driver = text(config, "logDriver");
    if !driver.is_empty() {
        log.insert("driver".into(), json!(driver));
    }
    let path = text(config, "logPath");
    // The usual place is named by the container's ID.
    if !path.is_empty() && !path.contains(text(config, "id")) {
        log.insert("path".into(), json!(path));
    }
    if number(config, "logSize") > 0 {
        log.insert("size".into(), json!(number(config, "logSize")));
    }
    if !text(config, "logTag").is_empty() {
        log.insert("options".into(), json!({"tag": text(config, "logTag")}));
    }
    if let Some(labels) = config.get("logLabels").filter(|value| !is_nothing(value)) {
        log.insert("labels".into(), labels.clone());
    }
    if !log.is_empty() {
        body.insert("log_configuration".into(), Value::Object(log));
    }
}

/// A namespace as the API asks for it.
fn namespace(mode: &str, value: &str) -> Value {
    match value {
        "" => json!({"nsmode": mode}),
        value => json!({"nsmode": mode, "value": value}),
    }
}

/// Each is its own, the host's, a file's, its pod's or another container's.
fn namespaces(wanted: &ContainerRequest<'_>, body: &mut Object) {
    let config = wanted.config;
    for (kind, stored, asked) in [
        ("pid", "pidNsCtr", "pidns"),
        ("ipc", "ipcNsCtr", "ipcns"),
        ("uts", "utsNsCtr", "utsns"),
        ("cgroup", "cgroupNsCtr", "cgroupns"),
        ("user", "userNsCtr", "userns"),
        ("network", "netNsCtr", "netns"),
    ] {
        let shared = shared_with(wanted, text(config, stored));
        let own = || match kind {
            "ipc" => own_ipc(config),
            "user" => own_user(wanted, body),
            "network" => network::own(config),
            kind => own_kind(config, kind),
        };
        let value = shared.unwrap_or_else(own);
        body.insert(asked.into(), value);
    }
    let uts_is_own = body["utsns"] == namespace("private", "");
    if uts_is_own {
        let stored = text(spec(config), "hostname");
        let pinned: String = text(config, "id").chars().take(SHORT_ID_DIGITS).collect();
        match stored {
            "" if wanted.choices.new_hostname => None,
            "" => body.insert("hostname".into(), json!(pinned)),
            hostname => body.insert("hostname".into(), json!(hostname)),
        };
    }
    let shm = number(config, "shmSize");
    // With the host's or another's memory there is none of its own to size.
    let own_shm = ["private", "shareable"].contains(&text_of(&body["ipcns"], "nsmode"));
    if own_shm && shm > 0 {
        body.insert("shm_size".into(), json!(shm));
    }
    let shm = number(config, "shmSizeSystemd");
    if shm > 0 {
        body.insert("shm_size_systemd".into(), json!(shm));
    }
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `None`: with nobody.
fn shared_with(wanted: &ContainerRequest<'_>, id: &str) -> Option<Value> {
    if id.is_empty() {
        return None;
    }
    let infra = wanted.pod.and_then(|pod| pod.infra);
    let name = new_name(wanted, id);
    // The pod that it comes back into may be another one of that name.
    let is_infra = wanted.pod.is_some() && name == infra_name(text(wanted.config, "pod"));
    Some(match infra.map(|infra| text(infra, "id")) {
        Some(infra) if infra == id => namespace("pod", ""),
        _ if is_infra => namespace("pod", ""),
        _ => namespace("container", &name),
    })
}

/// The namespace's entry in the OCI configuration: its own, one of a file, or none: the host's.
pub(super) fn own_kind(config: &Object, kind: &str) -> Value {
    let linux = below(config, &["spec", "linux"]);
    let found = linux
        .into_iter()
        .flat_map(|linux| objects(linux, "namespaces"))
        .find(|namespace| text(namespace, "type") == kind);
    match found.map(|found| text(found, "path")) {
        None => namespace("host", ""),
        Some("") => namespace("private", ""),
        Some(path) => namespace("path", path),
    }
}

fn own_ipc(config: &Object) -> Value {
    match own_kind(config, "ipc") {
        own if own != namespace("private", "") => own,
        _ if flag(config, "NoShm") => namespace("none", ""),
        _ if flag(config, "NOShmShare") => namespace("private", ""),
        _ => namespace("shareable", ""),
    }
}

fn own_user(wanted: &ContainerRequest<'_>, body: &mut Object) -> Value {
    let config = wanted.config;
    let Some(mapping) = map(config, "idMappingsOptions") else {
        return own_kind(config, "user");
    };
    // A pod's container has its infra container's mapping, and may not ask for it.
    if wanted.pod.is_none() {
        body.insert("idmappings".into(), Value::Object(mapping.clone()));
    }
    let annotated = below(config, &["spec", "annotations"])
        .map(|all| text(all, USERNS_ANNOTATION))
        .unwrap_or_default();
    if flag(mapping, "AutoUserNs") {
        // The ranges are chosen anew, by the size that was asked for.
        let value = annotated.strip_prefix("auto:").unwrap_or_default();
        return namespace("auto", value);
    }
    if flag(config, "addCurrentUserPasswdEntry") || annotated.starts_with("keep-id") {
        let value = userns::named_keep_id(config, wanted.user).unwrap_or_default();
        if let Some(Value::Object(annotations)) = body.get_mut("annotations")
            && !value.is_empty()
        {
            // The stored one may name another id.
            annotations.insert(USERNS_ANNOTATION.into(), format!("keep-id:{value}").into());
        }
        return namespace("keep-id", &value);
    }
    let has_map = objects(mapping, "UIDMap").next().is_some();
    match own_kind(config, "user") {
        // A map that Podman chose once is in no namespace of the stored specification.
        own if own == namespace("host", "") && has_map => namespace("private", ""),
        own => own,
    }
}

#[cfg(test)]
mod tests {
    use super::runtime_file;

    #[test]
    fn a_file_of_a_runtime_folder_goes_into_that_of_whoever_has_it_now() {
        let bob = Some((1001, 1001));
        for (path, user, expected) in [
            (
                "/run/user/1000/a/x.pid",
                bob,
                Some("/run/user/1001/a/x.pid"),
            ),
            ("/run/user/1000/x.pid", None, None),
            ("/run/x.pid", None, Some("/run/x.pid")),
            ("/run/x.pid", bob, None),
            ("/home/u/x.pid", bob, Some("/home/u/x.pid")),
            ("/run/user/x/x.pid", bob, None),
        ] {
            assert_eq!(runtime_file(path, user).as_deref(), expected, "{path}");
        }
    }
}
