//! What a person asked for: by flags of a restore, and when a container was created.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::compare::{flatten, is_below};
use super::stored::{Object, texts};

/// Fields that flags of the restore changed.
#[derive(Debug, Default)]
pub struct AskedFor(BTreeSet<String>);

/// What Podman derives from a field: what was asked for of that one was asked for of these.
const DERIVED: [(&str, &[&str]); 6] = [
    (
        "device_host_src",
        &["spec.linux.devices", "spec.linux.resources.devices"],
    ),
    ("userVolumes", &["spec.mounts"]),
    ("spec.mounts", &["userVolumes"]),
    ("rootfs_overlay", &["spec.mounts"]),
    ("newNetworks", &["networkAliases", "staticIP", "staticMAC"]),
    (
        "idMappingsOptions",
        &[
            "idMappings",
            "userNsCtr",
            "spec.linux.uidMappings",
            "spec.linux.gidMappings",
            "spec.linux.namespaces",
            "spec.annotations",
            "spec.process.user",
            "passwdEntry",
            "addCurrentUserPasswdEntry",
        ],
    ),
];
/// Fields in which a container of the network has its own address.
const STATIC: [&str; 2] = ["static_ips", "static_mac"];

impl AskedFor {
    /// What was `fitted` to the host: the fields in which that is not what was stored.
    pub fn of(stored: &Object, fitted: &Object, drop_static: bool) -> Self {
        let leaves = |config: &Object| {
            let mut leaves = BTreeMap::new();
            flatten(
                &Value::Object(config.clone()),
                String::new(),
                0,
                &mut leaves,
            );
            leaves
        };
        let (stored, fitted) = (leaves(stored), leaves(fitted));
        let all = stored.keys().chain(fitted.keys());
        let mut fields: BTreeSet<String> = all
            .filter(|field| stored.get(*field) != fitted.get(*field))
            .cloned()
            .collect();
        if drop_static {
            let is_static = |field: &&String| STATIC.iter().any(|end| field.ends_with(end));
            fields.extend(stored.keys().filter(is_static).cloned());
        }
        for (field, derived) in DERIVED {
            if fields.iter().any(|changed| is_below(changed, field)) {
                fields.extend(derived.iter().map(|field| (*field).to_owned()));
            }
        }
        Self(fields)
    }

    pub(super) fn contains(&self, field: &str) -> bool {
        self.0
            .iter()
            .any(|asked| is_below(field, asked) || is_below(asked, field))
    }
}

/// What a person named for a container when it was created: of such a field neither the host nor the
/// new object is a reason.
const NAMED: [(&str, &str); 9] = [
    ("spec.process.rlimits", "--ulimit"),
    ("spec.linux.seccomp", "seccomp="),
    ("spec.linux.maskedPaths", "mask="),
    ("spec.linux.readonlyPaths", "mask="),
    ("spec.linux.resources.pids", "--pids-limit"),
    ("logDriver", "--log-driver"),
    ("logPath", "path="),
    ("cgroupParent", "--cgroup-parent"),
    ("shmSizeSystemd", "--shm-size-systemd"),
];

pub(super) fn is_named(stored: &Object, field: &str) -> bool {
    let command = texts(stored, "CreateCommand");
    let Some((above, word)) = NAMED.iter().find(|(above, _)| is_below(field, above)) else {
        return false;
    };
    if *above == "spec.process.rlimits" {
        // Limits that nobody named are the host's: "spec.process.rlimits[RLIMIT_NOFILE].hard".
        let limit = field.split(['[', ']']).nth(1).unwrap_or_default();
        let limit = limit.trim_start_matches("RLIMIT_").to_ascii_lowercase();
        let mut words = command.iter().enumerate();
        return words.any(|(at, one)| {
            let value = match one.strip_prefix("--ulimit=") {
                Some(value) => Some(value),
                None if *one == "--ulimit" => command.get(at + 1).copied(),
                None => None,
            };
            value.is_some_and(|value| value == "host" || value.starts_with(&format!("{limit}=")))
        });
    }
    command.iter().any(|one| one.contains(word))
}
