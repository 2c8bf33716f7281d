//! Where Podman's store is, and which driver it has.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::command::{Podman, PodmanError, Purpose, failure, parse};
use super::storage::{StorageDriver, StoragePlaces};

/// Bytes of a storage.conf.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Where storage.conf is, when Podman does not say which one it read: the first that exists.
const CONFIG_FILES: [&str; 2] = [
    "/etc/containers/storage.conf",
    "/usr/share/containers/storage.conf",
];

/// Podman's store, as `podman info` tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// The storage driver that is in use: "overlay".
    pub driver: String,
    /// Where its images and layers are. `None`: the driver is not one that podkeep reads.
    pub places: Option<StoragePlaces>,
    /// The root of the store, of whatever driver.
    pub graph_root: PathBuf,
    pub run_root: PathBuf,
    /// Podman's database is below `run_root`, and goes with the next boot.
    pub transient: bool,
    /// What Podman's database is: "sqlite", "boltdb". Podman 4.3 does not tell.
    pub database: Option<String>,
    /// Where the volumes are.
    pub volume_path: PathBuf,
    pub version: String,
    /// The configuration asks for another driver than the one that Podman's database remembers,
    /// in words that name both. Podman goes by the database.
    pub disagreement: Option<String>,
}

#[derive(serde::Deserialize)]
struct Info {
    #[serde(default)]
    host: Host,
    store: Store,
    version: Version,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    #[serde(default)]
    database_backend: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    graph_driver_name: String,
    volume_path: PathBuf,
    #[serde(default)]
    graph_root: PathBuf,
    #[serde(default)]
    run_root: PathBuf,
    #[serde(default)]
    graph_options: Option<Map<String, Value>>,
    /// What the driver tells of itself, in words of its own.
    #[serde(default)]
    graph_status: Option<Map<String, Value>>,
    #[serde(default)]
    transient_store: bool,
    /// Podman 5.8 no longer tells.
    #[serde(default)]
    config_file: Option<PathBuf>,
}

#[derive(serde::Deserialize)]
struct Version {
    #[serde(rename = "Version")]
    version: String,
}

impl Podman {
    /// The OCI runtime that containers get unless another is asked for.
    pub fn default_runtime(&self) -> Result<String, PodmanError> {
        let purpose = Purpose {
            action: "ask",
            object: "Podman for its OCI runtime",
        };
        let format = "{{.Host.OCIRuntime.Name}}";
        let name = self.run(purpose, &["info", "--format", format], b"")?;
        Ok(String::from_utf8_lossy(&name).trim().to_owned())
    }

    pub fn info(&self) -> Result<StoreInfo, PodmanError> {
        let purpose = Purpose {
            action: "ask",
            object: "Podman about its store",
        };
        let ended = self.end(purpose, &["info", "--format", "json"], b"")?;
        if !ended.status.success() {
            return Err(failure(purpose, &ended));
        }
        let Info {
            host,
            store,
            version,
        } = parse(purpose, &ended.stdout)?;
        if !store.volume_path.is_absolute() {
            let cause = "its volume path is not absolute";
            return Err(PodmanError::new(purpose.action, purpose.object, cause));
        }
        let driver = StorageDriver::from_word(&store.graph_driver_name);
        let config = self.variable("CONTAINERS_STORAGE_CONF").map(PathBuf::from);
        let config = config.or(store.config_file);
        let places = driver
            .filter(|_| store.graph_root.is_absolute())
            .map(|driver| StoragePlaces {
                driver,
                graph_root: store.graph_root.clone(),
                run_root: store.run_root.clone(),
                image_store: image_store(config.as_deref()),
                additional_stores: additional_stores(&store.graph_options.unwrap_or_default()),
                transient: store.transient_store,
                data_set: store.graph_status.as_ref().and_then(data_set),
            });
        Ok(StoreInfo {
            driver: store.graph_driver_name,
            places,
            graph_root: store.graph_root,
            run_root: store.run_root,
            transient: store.transient_store,
            database: host.database_backend,
            volume_path: store.volume_path,
            version: version.version,
            disagreement: disagreement(&ended.stderr),
        })
    }
}

/// Podman's complaint, shortened to what counts.
fn disagreement(stderr: &str) -> Option<String> {
    let (_, rest) = stderr.split_once("User-selected graph driver ")?;
    let quoted = |text: &str| -> Option<String> {
        let name = text.trim_start_matches(['\\', '"']);
        Some(name[..name.find(['\\', '"'])?].to_owned())
    };
    let asked = quoted(rest)?;
    let (_, rest) = rest.split_once("overwritten by graph driver ")?;
    let used = quoted(rest)?;
    Some(format!(
        "storage.conf asks for the driver {asked}, and Podman's database says {used}"
    ))
}

/// The setting `imagestore`, of which `podman info` says nothing. A file that cannot be read or
/// understood is Podman's to complain about.
fn image_store(config: Option<&Path>) -> Option<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Config {
        storage: Option<Settings>,
    }
    #[derive(serde::Deserialize)]
    struct Settings {
        imagestore: Option<PathBuf>,
    }
    let mut files = config.into_iter().chain(CONFIG_FILES.iter().map(Path::new));
    let file = files.find(|file| file.exists())?;
    if std::fs::metadata(file).ok()?.len() > CONFIG_BYTES_MAX {
        return None;
    }
    let config: Config = toml::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    config.storage?.imagestore.filter(|path| path.is_absolute())
}

/// What the driver zfs tells of where its layers are.
fn data_set(status: &Map<String, Value>) -> Option<String> {
    let name = status.get("Parent Dataset")?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Stores that are only read. One is an option `DRIVER.imagestore`; newer versions list several as
/// `DRIVER.additionalImageStores`.
fn additional_stores(options: &Map<String, Value>) -> Vec<PathBuf> {
    let mut stores: Vec<PathBuf> = Vec::new();
    for (name, value) in options {
        let listed = match name.rsplit('.').next() {
            Some("additionalImageStores") => value.as_array().cloned().unwrap_or_default(),
            Some("imagestore") => vec![value.clone()],
            _ => continue,
        };
        for path in listed.iter().filter_map(Value::as_str).map(PathBuf::from) {
            if path.is_absolute() && !stores.contains(&path) {
                stores.push(path);
            }
        }
    }
    stores
}

#[cfg(test)]
mod tests {
    use super::super::command::tests::fake;
    use super::*;

    #[test]
    fn the_store_is_what_podman_says() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("storage.conf");
        std::fs::write(
            &config,
            "[storage]\nimagestore = \"/i\"\n[storage.options]\n",
        )
        .unwrap();
        let podman = fake(
            folder.path(),
            &format!(
                r#"echo '{{"store":{{"graphDriverName":"vfs","volumePath":"/v","graphRoot":"/g","runRoot":"/r",
                "graphStatus":{{"Zpool":"tank","Parent Dataset":"tank/storage"}},
                "graphOptions":{{"vfs.imagestore":"/a","vfs.additionalImageStores":["/b","/a"],
                "overlay.mount_program":{{"Executable":"/x"}}}},"x":1,"configFile":"{}"}},
                "version":{{"Version":"5.4.2"}}}}'"#,
                config.display()
            ),
        );
        let info = podman.info().unwrap();
        assert_eq!(
            (info.driver.as_str(), info.version.as_str()),
            ("vfs", "5.4.2")
        );
        assert_eq!(info.volume_path, Path::new("/v"));
        assert_eq!(info.disagreement, None);
        let places = info.places.unwrap();
        assert_eq!(places.graph_root, Path::new("/g"));
        assert_eq!(places.data_set.as_deref(), Some("tank/storage"));
        assert_eq!(places.image_store.as_deref(), Some(Path::new("/i")));
        let stores = places.additional_stores.iter();
        let stores: Vec<&str> = stores.filter_map(|path| path.to_str()).collect();
        assert_eq!(stores, ["/b", "/a"]);
        let podman = fake(folder.path(), "echo nonsense");
        assert!(podman.info().unwrap_err().cause.contains("not understood"));
    }

    #[test]
    fn i_22_a_driver_that_the_database_overrules_is_told() {
        let said = r#"time="2026-11-25T18:12:55Z" level=error msg="User-selected graph driver \"vfs\" overwritten by graph driver \"overlay\" from database - delete""#;
        assert_eq!(
            disagreement(said).unwrap(),
            "storage.conf asks for the driver vfs, and Podman's database says overlay"
        );
        assert_eq!(disagreement("level=warning msg=x"), None);
    }
}
