//! Whether what was made is what was stored: two configurations of libpod, field by field.
//!
//! A field that differs has a reason from a closed list, or none, which is a warning. Reasons go by the
//! field and by what was asked for, never by the values that came out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::asked::{AskedFor, is_named};
use super::obstacles::is_later_default;
use super::request::{Choices, SHORT_ID_DIGITS};
use super::stored::{Object, below, flag, is_nothing, text, texts};
use super::{network, userns};

/// Characters of a value that is shown.
const SHOWN_MAX: usize = 160;
/// Depth of what is compared; below it, values are compared as a whole.
const DEPTH_MAX: usize = 12;

/// Why a field is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It names the object itself, its place or its time: every new one has its own.
    NewObject,
    /// Podman chooses the port, the range of IDs or the interface at random.
    ChosenAnew,
    /// A container without a hostname keeps the one that its ID gave it.
    PinnedHostname,
    /// What this Podman does by default.
    HostDefault,
    /// The Podman that is there has no such option.
    VersionLacks,
    /// The OCI runtime is not there, and the default one stands in.
    RuntimeReplaced,
    /// It was asked for: --rename-suffix, --remap-subnet, --drop-static, --drop-missing.
    AskedFor,
    /// An anonymous volume came back under its name.
    AnonymousVolume,
    /// The image is the same, and its name belongs to another one here, or to none.
    ImageById,
}

impl Reason {
    /// A stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::NewObject => "new-object",
            Self::ChosenAnew => "chosen-anew",
            Self::PinnedHostname => "pinned-hostname",
            Self::HostDefault => "host-default",
            Self::VersionLacks => "version-lacks",
            Self::RuntimeReplaced => "runtime-replaced",
            Self::AskedFor => "asked-for",
            Self::AnonymousVolume => "anonymous-volume",
            Self::ImageById => "image-by-id",
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::NewObject => "a new object has its own",
            Self::ChosenAnew => "chosen anew",
            Self::PinnedHostname => "its short ID is kept as its hostname",
            Self::HostDefault => "this host's default",
            Self::VersionLacks => "this Podman has no such option",
            Self::RuntimeReplaced => "this host lacks the OCI runtime",
            Self::AskedFor => "as asked for",
            Self::AnonymousVolume => "an anonymous volume under its old name",
            Self::ImageById => "the same image, whose name another one has here",
        }
    }
}

/// A field that is otherwise than it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDifference {
    /// Where it is: "spec.process.env".
    pub field: String,
    /// Both as JSON, shortened. Empty: it is not there. Environments are not shown.
    pub stored: String,
    pub made: String,
    /// `None`: nobody knows why.
    pub reason: Option<Reason>,
}

/// Two configurations that are to be the same.
pub struct Comparison<'a> {
    pub stored: &'a Object,
    pub made: &'a Object,
    /// New ID by old one, and new name by old one, of what both refer to.
    pub renamed: &'a BTreeMap<String, String>,
    pub choices: &'a Choices,
    /// Fields that the target's version does not know.
    pub lacking: &'a BTreeSet<&'static str>,
    pub runtime_replaced: bool,
    /// One is of a user's Podman, the other of root's.
    pub between_user_and_root: bool,
    /// What was left out, or named otherwise, because it was asked for.
    pub asked_for: &'a AskedFor,
}

/// Fields of the object's own identity. What lies below them is theirs, too.
const OWN: [&str; 19] = [
    "id",
    "name",
    "lockID",
    "staticDir",
    "ShmDir",
    "logPath",
    "conmonPidFile",
    "pid_file",
    "secretsPath",
    "createdTime",
    "created",
    "mounts",
    "cgroupParent",
    "pod",
    "ProcessLabel",
    "MountLabel",
    "spec.process.selinuxLabel",
    "spec.linux.mountLabel",
    "spec.annotations.io.kubernetes.cri-o.SandboxID",
];
/// Fields that are what this Podman, this machine or its containers.conf makes of them.
const HOST: [&str; 15] = [
    "spec.ociVersion",
    "cgroupManager",
    "spec.linux.maskedPaths",
    "spec.linux.readonlyPaths",
    "spec.linux.seccomp",
    "spec.process.rlimits",
    "spec.linux.sysctl.net.ipv4.ping_group_range",
    "spec.linux.devices",
    "spec.linux.resources.pids",
    "spec.annotations.io.podman.annotations",
    "spec.annotations.io.kubernetes.cri-o",
    "spec.mounts",
    "shmSizeSystemd",
    "logDriver",
    "kubeExitCodePropagation",
];
/// Fields that list what has no order.
const UNORDERED: [&str; 10] = [
    "spec.process.env",
    "aliases",
    "userVolumes",
    "Dependencies",
    "maskedPaths",
    "readonlyPaths",
    "options",
    "Options",
    "exposedPorts",
    "capabilities",
];

/// Whether a configuration is of a user's Podman, as far as systemd keeps its cgroups.
pub fn is_of_user(config: &Object) -> bool {
    text(config, "cgroupParent").starts_with("user.slice")
}

/// How many fields were compared, and those that differ, sorted.
pub fn compare(both: &Comparison<'_>) -> (u64, Vec<FieldDifference>) {
    let mut stored = BTreeMap::new();
    let mut made = BTreeMap::new();
    flatten(
        &Value::Object(both.stored.clone()),
        String::new(),
        0,
        &mut stored,
    );
    flatten(
        &Value::Object(both.made.clone()),
        String::new(),
        0,
        &mut made,
    );
    let fields: BTreeSet<&String> = stored.keys().chain(made.keys()).collect();
    let mut differences = Vec::new();
    for field in &fields {
        let before = stored.get(*field).map(|text| renamed(text, both));
        let after = made.get(*field).cloned();
        if before == after {
            continue;
        }
        differences.push(FieldDifference {
            reason: reason(both, field, before.as_deref(), after.as_deref()),
            stored: shown(field, before),
            made: shown(field, after),
            field: (*field).clone(),
        });
    }
    (fields.len() as u64, differences)
}

/// A text with the new IDs and names where the old ones were.
fn renamed(text: &str, both: &Comparison<'_>) -> String {
    let mut text = text.to_owned();
    for (old, new) in both.renamed {
        if old.len() > 2 * SHORT_ID_DIGITS {
            text = text.replace(old.as_str(), new);
        } else if text == format!("\"{old}\"") {
            text = format!("\"{new}\"");
        }
    }
    text
}

/// Leaves by where they are. Lists of objects that have a name are taken apart by it.
pub(super) fn flatten(
    value: &Value,
    path: String,
    depth: usize,
    into: &mut BTreeMap<String, String>,
) {
    let join = |key: &str| match path.as_str() {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match value {
        _ if is_nothing(value) => {}
        Value::Object(map) if depth < DEPTH_MAX => {
            for (key, value) in map {
                flatten(value, join(key), depth + 1, into);
            }
        }
        Value::Array(list) => {
            let names: Vec<Option<String>> = list.iter().map(name_of).collect();
            let distinct: BTreeSet<&Option<String>> = names.iter().collect();
            if depth < DEPTH_MAX && distinct.len() == list.len() && !distinct.contains(&None) {
                for (name, value) in names.iter().zip(list) {
                    let name = name.as_deref().unwrap_or_default();
                    flatten(value, format!("{path}[{name}]"), depth + 1, into);
                }
                return;
            }
            let mut texts: Vec<String> = list.iter().map(Value::to_string).collect();
            if UNORDERED.iter().any(|field| path.contains(field)) {
                texts.sort_unstable();
            }
            into.insert(path, format!("[{}]", texts.join(",")));
        }
        value => drop(into.insert(path, value.to_string())),
    }
}

/// What tells an entry of a list from the others.
fn name_of(value: &Value) -> Option<String> {
    let object = value.as_object()?;
    if let Some(port) = object.get("container_port") {
        let (address, protocol) = (text(object, "host_ip"), text(object, "protocol"));
        return Some(format!("{address}:{port}/{protocol}"));
    }
    ["destination", "dest", "type", "path", "name"]
        .into_iter()
        .map(|key| text(object, key))
        .find(|name| !name.is_empty())
        .map(str::to_owned)
}

fn shown(field: &str, value: Option<String>) -> String {
    let Some(value) = value else {
        return String::new();
    };
    // It may hold passwords.
    if field.contains("env") || field.contains("CreateCommand") {
        return "(not shown)".into();
    }
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value,
    }
}

pub(super) fn is_below(field: &str, above: &str) -> bool {
    field
        .strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '-', '/']))
}

fn reason(
    both: &Comparison<'_>,
    field: &str,
    before: Option<&str>,
    after: Option<&str>,
) -> Option<Reason> {
    let stored = both.stored;
    if both.asked_for.contains(field) {
        return Some(Reason::AskedFor);
    }
    let is_named = is_named(stored, field);
    if !is_named && OWN.iter().any(|own| is_below(field, own)) {
        return Some(Reason::NewObject);
    }
    // A field that came with a later version says what the earlier one always does.
    match (before, after) {
        (None, Some(after)) if is_later_default(field, after) => return Some(Reason::HostDefault),
        (Some(before), None) if is_later_default(field, before) => {
            return Some(Reason::VersionLacks);
        }
        _ => {}
    }
    if both.lacking.iter().any(|lacking| is_below(field, lacking)) {
        return Some(Reason::VersionLacks);
    }
    if field == "rootfsImageName" {
        let image = |config| text(config, "rootfsImageID");
        let same = !image(stored).is_empty() && image(stored) == image(both.made);
        return same.then_some(Reason::ImageById);
    }
    if field == "runtime" {
        return both.runtime_replaced.then_some(Reason::RuntimeReplaced);
    }
    let own_hostname = below(stored, &["spec"]).map_or("", |spec| text(spec, "hostname"));
    let is_pinned = own_hostname.is_empty() && !both.choices.new_hostname;
    if field == "spec.hostname" && is_pinned && before.is_none() {
        return Some(Reason::PinnedHostname);
    }
    if field == "spec.process.env" && is_pinned {
        // HOSTNAME is added where a hostname is asked for.
        let stored = environment(stored);
        let made = environment(both.made);
        let more = made.difference(&stored).all(|v| v.starts_with("HOSTNAME="));
        return (stored.is_subset(&made) && more).then_some(Reason::PinnedHostname);
    }
    if field == "networkMode" || field.starts_with("newNetworks") {
        // What a user's Podman does by default is another thing for each version, and for root.
        let mode = text(stored, "networkMode");
        let by_default = ["pasta", "slirp4netns"].contains(&mode);
        if by_default && !network::asks_for_network(stored) {
            return Some(Reason::HostDefault);
        }
    }
    if field.starts_with("newNetworks.") {
        return network_reason(both, field);
    }
    if field.starts_with("newPortMappings[") && field.ends_with("host_port") {
        let is_open = network::has_random_port(stored) && !both.choices.pin_ports;
        return is_open.then_some(Reason::ChosenAnew);
    }
    if field.starts_with("namedVolumes[") && field.ends_with("setAnonymous") {
        return (before.is_none() && after == Some("true")).then_some(Reason::AnonymousVolume);
    }
    for secrets in ["secrets[", "secret_env."] {
        let made_anew = [
            "id",
            "createdAt",
            "updatedAt",
            "driverOptions.path",
            "metadata",
        ];
        if field.starts_with(secrets) && made_anew.iter().any(|end| field.ends_with(end)) {
            return Some(Reason::NewObject);
        }
    }
    let is_auto = below(stored, &["idMappingsOptions"]).is_some_and(|map| flag(map, "AutoUserNs"));
    if is_auto && (is_below(field, "idMappingsOptions") || field.contains("idMappings")) {
        return Some(Reason::ChosenAnew);
    }
    // Podman tells a container of its user only where that has the id which is kept.
    if field == "addCurrentUserPasswdEntry"
        && userns::keeps_named_id(stored) != userns::keeps_named_id(both.made)
    {
        return Some(Reason::HostDefault);
    }
    if field.starts_with("spec.mounts[/run/podman-init]") {
        return Some(Reason::HostDefault);
    }
    if let Some(rest) = field.strip_prefix("spec.mounts[") {
        // What was asked for has to be as it was; what Podman adds is its own.
        let place = rest.split(']').next().unwrap_or_default();
        let asked = texts(stored, "userVolumes").contains(&place);
        return (!asked).then_some(Reason::HostDefault);
    }
    if field == "spec.linux.resources.devices" {
        // The Podman of a user has no rules at all, and before 5.8 that of root had none for a container
        // with a user namespace, which can make no devices.
        let has_none =
            both.between_user_and_root || [stored, both.made].into_iter().all(has_user_namespace);
        let none = |rules: Option<&str>| rules.is_none() && has_none;
        let usual = |rules: &Option<&str>| only_deny_all(*rules) || none(*rules);
        if [before, after].iter().all(usual) {
            return Some(Reason::HostDefault);
        }
    }
    if field.starts_with("spec.linux.devices") {
        let named = texts(stored, "cdiDevices").is_empty()
            && stored.get("device_host_src").is_none_or(is_nothing);
        return named.then_some(Reason::HostDefault);
    }
    if field == "restart_policy" && after == Some("\"no\"") && before.is_none() {
        return Some(Reason::HostDefault);
    }
    let of_host = |host: &&str| is_below(field, host) || field.starts_with(host);
    (!is_named && HOST.iter().any(of_host)).then_some(Reason::HostDefault)
}

fn has_user_namespace(config: &Object) -> bool {
    // Of one that Podman chooses the specification says nothing.
    let chosen = config.get("idMappingsOptions");
    if chosen.is_some_and(|chosen| chosen["AutoUserNs"] == true) {
        return true;
    }
    let linux = config.get("spec").and_then(|spec| spec.get("linux"));
    let namespaces = linux.and_then(|linux| linux.get("namespaces"));
    let namespaces = namespaces.and_then(Value::as_array);
    namespaces.is_some_and(|all| all.iter().any(|one| one["type"] == "user"))
}

/// Whether rules for devices are the one that every container begins with, however often: Podman 5.8
/// writes it twice.
fn only_deny_all(rules: Option<&str>) -> bool {
    let rules = rules.and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
    let deny = serde_json::json!({"access": "rwm", "allow": false});
    rules.is_some_and(|rules| !rules.is_empty() && rules.iter().all(|rule| *rule == deny))
}

fn environment(config: &Object) -> BTreeSet<&str> {
    let process = below(config, &["spec", "process"]);
    let entries = process.map(|process| texts(process, "env"));
    entries.unwrap_or_default().into_iter().collect()
}

fn network_reason(both: &Comparison<'_>, field: &str) -> Option<Reason> {
    if field.ends_with(".aliases") {
        // The short ID of the new container, and the hostname, which some versions make an alias.
        let names = |config: &Object| -> BTreeSet<String> {
            let id: String = text(config, "id").chars().take(SHORT_ID_DIGITS).collect();
            let hostname = below(config, &["spec"]).map_or("", |spec| text(spec, "hostname"));
            below(config, &["newNetworks"])
                .into_iter()
                .flatten()
                .filter(|(name, _)| field == format!("newNetworks.{name}.aliases"))
                .filter_map(|(_, options)| options.as_object())
                .flat_map(|options| texts(options, "aliases"))
                .filter(|alias| *alias != id && *alias != hostname)
                .map(str::to_owned)
                .collect()
        };
        let (mut before, after) = (names(both.stored), names(both.made));
        let old: String = text(both.stored, "id")
            .chars()
            .take(SHORT_ID_DIGITS)
            .collect();
        let is_new = before == after;
        before.insert(old);
        return (is_new || before == after).then_some(Reason::NewObject);
    }
    if field.ends_with(".interface_name") {
        return Some(Reason::ChosenAnew);
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        value.as_object().cloned().unwrap_or_default()
    }

    fn differences(stored: Value, made: Value) -> Vec<(String, Option<Reason>)> {
        let (stored, made) = (object(stored), object(made));
        let (_, found) = compare(&Comparison {
            stored: &stored,
            made: &made,
            renamed: &BTreeMap::from([("ab".repeat(32), "cd".repeat(32))]),
            choices: &Choices::default(),
            lacking: &BTreeSet::new(),
            runtime_replaced: false,
            between_user_and_root: false,
            asked_for: &AskedFor::default(),
        });
        found
            .into_iter()
            .map(|one| (one.field, one.reason))
            .collect()
    }

    /// Reasons by field, where `fitted` is what flags made of `stored`.
    fn reasons(stored: Value, fitted: Value, made: Value) -> BTreeMap<String, Option<Reason>> {
        let (stored, fitted, made) = (object(stored), object(fitted), object(made));
        let (_, found) = compare(&Comparison {
            stored: &stored,
            made: &made,
            renamed: &BTreeMap::new(),
            choices: &Choices::default(),
            lacking: &BTreeSet::new(),
            runtime_replaced: false,
            between_user_and_root: false,
            asked_for: &AskedFor::of(&stored, &fitted, true),
        });
        let found = found.into_iter();
        found.map(|one| (one.field, one.reason)).collect()
    }

    #[test]
    fn what_a_flag_changed_excuses_no_other_difference() {
        let stored = json!({
            "device_host_src": [{"path": "/dev/x"}], "stopTimeout": 10,
            "newNetworks": {"n": {"static_ips": ["10.0.0.2"], "aliases": ["a"]}},
            "spec": {"linux": {"devices": [{"path": "/dev/x", "minor": 1}]}},
        });
        let mut fitted = stored.clone();
        fitted["device_host_src"] = json!([]);
        let made = json!({"stopTimeout": 5, "newNetworks": {"n": {"aliases": []}}, "spec": {}});
        let found = reasons(stored, fitted, made);
        let asked = Some(Reason::AskedFor);
        for field in [
            "device_host_src[/dev/x].path",
            "newNetworks.n.static_ips",
            "spec.linux.devices[/dev/x].minor",
        ] {
            assert_eq!(found[field], asked, "{field}: {found:?}");
        }
        assert_eq!(found["stopTimeout"], None);
        assert_eq!(found["newNetworks.n.aliases"], None);
    }

    #[test]
    fn what_a_person_named_is_no_default_of_the_host() {
        let limits = |soft: u32, other: u32| {
            json!({
                "logDriver": if soft == 1 { "journald" } else { "k8s-file" },
                "spec": {"process": {"rlimits": [
                    {"type": "RLIMIT_NOFILE", "soft": soft}, {"type": "RLIMIT_NPROC", "soft": other},
                ]}},
            })
        };
        let created = |command: Value| {
            let mut stored = limits(1, 1);
            stored["CreateCommand"] = command.clone();
            let mut made = limits(2, 2);
            made["CreateCommand"] = command;
            reasons(stored.clone(), stored, made)
        };
        let nofile = "spec.process.rlimits[RLIMIT_NOFILE].soft";
        let nproc = "spec.process.rlimits[RLIMIT_NPROC].soft";
        let host = Some(Reason::HostDefault);
        let found = created(json!(["podman", "run", "x"]));
        assert_eq!(
            (found[nofile], found[nproc], found["logDriver"]),
            (host, host, host)
        );
        for command in [
            json!([
                "podman",
                "run",
                "--ulimit",
                "nofile=1:2",
                "--log-driver=journald",
                "x"
            ]),
            json!([
                "podman",
                "run",
                "--ulimit=nofile=1:2",
                "--log-driver",
                "journald",
                "x"
            ]),
        ] {
            let found = created(command);
            assert_eq!(
                (found[nofile], found[nproc], found["logDriver"]),
                (None, host, None)
            );
        }
    }

    #[test]
    fn what_says_nothing_or_has_no_order_is_no_difference() {
        let stored = json!({
            "labels": null, "spec": {"process": {"env": ["B=2", "A=1"]}},
            "netNsCtr": "ab".repeat(32),
            "namedVolumes": [{"dest": "/a", "volumeName": "a"}, {"dest": "/b", "volumeName": "b"}],
        });
        let made = json!({
            "spec": {"process": {"env": ["A=1", "B=2"]}}, "stdin": false,
            "netNsCtr": "cd".repeat(32),
            "namedVolumes": [{"dest": "/b", "volumeName": "b"}, {"dest": "/a", "volumeName": "a"}],
        });
        assert_eq!(differences(stored, made), []);
    }

    #[test]
    fn only_the_listed_reasons_excuse_a_difference() {
        // Its own ID is one that is known to be another now, wherever it stands.
        let stored = json!({
            "id": "ab".repeat(32), "umask": "0022",
            "spec": {"process": {"env": ["A=1"], "args": ["a", "b"]}},
            "newNetworks": {"n": {"aliases": ["web", "abababababab"], "static_mac": "x"}},
            "userVolumes": ["/d"],
        });
        let made = json!({
            "id": "cd".repeat(32), "umask": "0077",
            "spec": {
                "hostname": "abababababab", "process": {"env": ["A=1", "HOSTNAME=abababababab"], "args": ["a"]},
                "mounts": [{"destination": "/dev/shm", "type": "tmpfs"}],
            },
            "newNetworks": {"n": {"aliases": ["web", "cdcdcdcdcdcd", "abababababab"]}},
            "userVolumes": ["/d"],
        });
        let expected = [
            ("newNetworks.n.aliases", Some(Reason::NewObject)),
            ("newNetworks.n.static_mac", None),
            ("spec.hostname", Some(Reason::PinnedHostname)),
            (
                "spec.mounts[/dev/shm].destination",
                Some(Reason::HostDefault),
            ),
            ("spec.mounts[/dev/shm].type", Some(Reason::HostDefault)),
            ("spec.process.args", None),
            ("spec.process.env", Some(Reason::PinnedHostname)),
            ("umask", None),
        ];
        let expected: Vec<(String, Option<Reason>)> = expected
            .iter()
            .map(|(field, reason)| ((*field).to_owned(), *reason))
            .collect();
        assert_eq!(differences(stored, made), expected);
    }

    #[test]
    fn only_the_short_id_and_the_hostname_are_aliases_that_nobody_gave() {
        let with = |id: &str, aliases: Value| {
            json!({"id": id.repeat(32), "spec": {"hostname": "121212121212"},
                   "newNetworks": {"n": {"aliases": aliases}}})
        };
        let stored = with("ab", json!(["abababababab", "db"]));
        let made = |aliases| differences(stored.clone(), with("cd", aliases));
        let field = "newNetworks.n.aliases".to_owned();
        let known = [(field.clone(), Some(Reason::NewObject))];
        assert_eq!(made(json!(["db", "cdcdcdcdcdcd", "121212121212"])), known);
        assert_eq!(made(json!(["db", "cdcdcdcdcdcd"])), known);
        for aliases in [
            json!(["cdcdcdcdcdcd"]),
            json!(["db", "web", "cdcdcdcdcdcd"]),
        ] {
            assert_eq!(made(aliases), [(field.clone(), None)]);
        }
    }

    #[test]
    fn what_a_later_version_writes_down_is_explained_only_as_its_default() {
        let with = |count: u32| json!({"healthMaxLogCount": count});
        let found = |stored: Value, made: Value| differences(stored, made)[0].1;
        assert_eq!(found(json!({}), with(5)), Some(Reason::HostDefault));
        assert_eq!(found(with(5), json!({})), Some(Reason::VersionLacks));
        for (stored, made) in [
            (json!({}), with(9)),
            (with(9), json!({})),
            (with(9), with(5)),
            (with(5), with(9)),
        ] {
            assert_eq!(found(stored, made), None);
        }
    }

    #[test]
    fn only_the_rule_against_all_devices_may_be_there_twice() {
        let field = "spec.linux.resources.devices";
        let rules = |rules: Value| json!({"spec": {"linux": {"resources": {"devices": rules}}}});
        let deny = json!({"access": "rwm", "allow": false});
        let allow = json!({"access": "r", "allow": true, "major": 1, "minor": 3, "type": "c"});
        let twice = differences(rules(json!([deny])), rules(json!([deny, deny])));
        assert_eq!(twice, [(field.to_owned(), Some(Reason::HostDefault))]);
        for (stored, made) in [
            (json!([deny, allow]), json!([deny, deny, allow])),
            (json!([deny]), json!([deny, allow])),
            (json!([deny, allow]), json!([deny])),
            (json!([deny]), json!(null)),
            (json!(null), json!([deny])),
        ] {
            let found = differences(rules(stored), rules(made));
            assert_eq!(found, [(field.to_owned(), None)]);
        }
        // In a user namespace it may be missing.
        let within = |rules: Value| json!({"spec": {"linux": {"resources": {"devices": rules}, "namespaces": [{"type": "user"}]}}});
        let found = differences(within(json!(null)), within(json!([deny])));
        assert_eq!(found, [(field.to_owned(), Some(Reason::HostDefault))]);
        let found = differences(within(json!(null)), within(json!([deny, allow])));
        assert_eq!(found, [(field.to_owned(), None)]);
    }

    #[test]
    fn the_entry_of_a_user_goes_only_with_the_name_of_the_id_that_is_kept() {
        let with = |mode: &str, entry: bool| {
            json!({"addCurrentUserPasswdEntry": entry,
                   "spec": {"annotations": {"io.podman.annotations.userns": mode}}})
        };
        let plain = with("keep-id", true);
        let found = |made| {
            let all = differences(plain.clone(), made).into_iter();
            let mut of = all.filter(|(field, _)| field == "addCurrentUserPasswdEntry");
            of.next().map(|(_, reason)| reason)
        };
        assert_eq!(
            found(with("keep-id:uid=1000,gid=1000", false)),
            Some(Some(Reason::HostDefault))
        );
        assert_eq!(found(with("keep-id", false)), Some(None));
        assert_eq!(found(plain.clone()), None);
    }

    #[test]
    fn values_that_may_be_passwords_are_not_shown() {
        let stored = object(json!({"spec": {"process": {"env": ["PW=hunter2"]}}}));
        let made = object(json!({"CreateCommand": ["podman", "-e", "PW=hunter2"]}));
        let (_, found) = compare(&Comparison {
            stored: &stored,
            made: &made,
            renamed: &BTreeMap::new(),
            choices: &Choices::default(),
            lacking: &BTreeSet::new(),
            runtime_replaced: false,
            between_user_and_root: false,
            asked_for: &AskedFor::default(),
        });
        assert_eq!(found.len(), 2);
        assert!(!format!("{found:?}").contains("hunter2"));
    }
}
