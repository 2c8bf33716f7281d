//! Networks, as netavark's files have them.
//!
//! Podman says which there are and shows each with the fields that it knows; the file, where it is
//! found, has them all. The default network has no file until somebody changes it.
//!
//! Source: containers/common `libnetwork/netavark`, `libnetwork/types/network.go`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::command::{Podman, PodmanError, Purpose, failure, parse};
use super::definition::{NetworkDefinition, is_object_name};
use super::files::read_file;

const FILE_BYTES_MAX: usize = 4 << 20;
const CONFIG_BYTES_MAX: usize = 1 << 20;
const NETWORKS_MAX: usize = 65_536;
const NETWORKS_PER_CALL: usize = 100;
/// Where the files of root's networks are unless `network_config_dir` is set.
const FOLDER: &str = "/etc/containers/networks";
/// Files that may set it, the one that counts first.
const CONFIG_FILES: [&str; 2] = [
    "/etc/containers/containers.conf",
    "/usr/share/containers/containers.conf",
];
/// Below the home of a user.
const USER_CONFIG_FILE: &str = ".config/containers/containers.conf";
const DEFAULT_NETWORK: &str = "podman";
/// What `inspect` adds to what a network is.
const SHOWN_ONLY: &str = "containers";

/// All networks, sorted by name. `graph_root`: of the store.
pub fn list_networks(
    podman: &Podman,
    graph_root: &Path,
) -> Result<Vec<NetworkDefinition>, PodmanError> {
    let purpose = Purpose {
        action: "list",
        object: "networks",
    };
    let listed = podman.run(purpose, &["network", "ls", "-q"], b"")?;
    let names = String::from_utf8_lossy(&listed).into_owned();
    let names: Vec<&str> = names
        .split_whitespace()
        .filter(|n| is_object_name(n))
        .collect();
    if names.len() > NETWORKS_MAX {
        let cause = format!("there are more than {NETWORKS_MAX}");
        return Err(PodmanError::new(purpose.action, purpose.object, cause));
    }
    let folder = folder(podman, graph_root);
    let mut networks = Vec::new();
    for names in names.chunks(NETWORKS_PER_CALL) {
        let mut arguments = vec!["network", "inspect"];
        arguments.extend(names);
        let ended = podman.end(purpose, &arguments, b"")?;
        // Of what went meanwhile podman complains, and shows the others.
        let shown: Vec<Map<String, Value>> = match parse(purpose, &ended.stdout) {
            Ok(shown) => shown,
            Err(_) if !ended.status.success() => return Err(failure(purpose, &ended)),
            Err(error) => return Err(error),
        };
        networks.extend(
            shown
                .into_iter()
                .filter_map(|shown| network(&folder, shown)),
        );
    }
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(networks)
}

/// A network that podman shows, with all that its file says of it.
fn network(folder: &Path, mut shown: Map<String, Value>) -> Option<NetworkDefinition> {
    shown.remove(SHOWN_ONLY);
    let name = shown.get("name")?.as_str()?.to_owned();
    let file = read_file(&folder.join(format!("{name}.json")), FILE_BYTES_MAX).ok();
    let stored: Option<Map<String, Value>> =
        file.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    // A file of the same name in a folder that is not Podman's would have another ID.
    let stored = stored.filter(|stored| stored.get("id") == shown.get("id"));
    Some(NetworkDefinition {
        format: 1,
        is_default_unchanged: name == DEFAULT_NETWORK && stored.is_none(),
        config: stored.unwrap_or(shown),
        name,
    })
}

/// The folder of netavark's files; a user's lies in the store.
pub(super) fn folder(podman: &Podman, graph_root: &Path) -> PathBuf {
    #[derive(serde::Deserialize)]
    struct Config {
        network: Option<Network>,
    }
    #[derive(serde::Deserialize)]
    struct Network {
        network_config_dir: Option<PathBuf>,
    }
    let set = |file: &Path| {
        let text = String::from_utf8(read_file(file, CONFIG_BYTES_MAX).ok()?).ok()?;
        let config: Config = toml::from_str(&text).ok()?;
        let folder = config.network?.network_config_dir?;
        folder.is_absolute().then_some(folder)
    };
    let own = ["CONTAINERS_CONF_OVERRIDE", "CONTAINERS_CONF"]
        .into_iter()
        .filter_map(|name| podman.variable(name).map(PathBuf::from));
    let home = podman.variable("HOME").filter(|_| podman.is_rootless());
    let of_user = home.map(|home| Path::new(home).join(USER_CONFIG_FILE));
    own.chain(of_user)
        .chain(CONFIG_FILES.iter().map(PathBuf::from))
        .find_map(|file| set(&file))
        .unwrap_or_else(|| match podman.is_rootless() {
            true => graph_root.join("networks"),
            false => PathBuf::from(FOLDER),
        })
}

#[cfg(test)]
mod tests {
    use super::super::command::tests::fake;
    use super::*;

    #[test]
    fn c_07_a_network_is_what_its_file_says_and_the_default_one_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(
            folder.path(),
            r#"case "$*" in
"network ls -q") printf 'podman\nfront\n' ;;
"network inspect podman front") echo '[{"name":"podman","id":"aa","containers":{}},
  {"name":"front","id":"bb","subnets":[],"containers":{"x":{}}}]' ;;
*) exit 1 ;; esac"#,
        );
        let networks = list_networks(&podman, Path::new("/nowhere")).unwrap();
        let names: Vec<&str> = networks
            .iter()
            .map(|network| network.name.as_str())
            .collect();
        assert_eq!(names, ["front", "podman"]);
        assert!(!networks[0].is_default_unchanged && networks[1].is_default_unchanged);
        assert!(!networks[0].config.contains_key("containers"));

        let shown = |id: &str| match serde_json::json!({"name": "front", "id": id}) {
            Value::Object(map) => map,
            _ => unreachable!(),
        };
        let file = r#"{"name":"front","id":"bb","tomorrow":[1]}"#;
        std::fs::write(folder.path().join("front.json"), file).unwrap();
        let own = network(folder.path(), shown("bb")).unwrap();
        assert!(own.config.contains_key("tomorrow"));
        let other = network(folder.path(), shown("cc")).unwrap();
        assert!(!other.config.contains_key("tomorrow"));
    }
}
