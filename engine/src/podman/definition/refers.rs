//! What a container needs of its host, by its configuration: read from libpod's ContainerConfig, or
//! from what `inspect` shows where that stands in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{ConfigSource, ContainerDefinition, PodDefinition};

/// Fields of a ContainerConfig that hold the ID of a container whose namespace is joined.
const NAMESPACE_FIELDS: [&str; 7] = [
    "ipcNsCtr",
    "mountNsCtr",
    "netNsCtr",
    "pidNsCtr",
    "userNsCtr",
    "utsNsCtr",
    "cgroupNsCtr",
];
/// What Podman notes on a container that is removed when it stops.
const AUTO_REMOVE_ANNOTATION: &str = "io.podman.annotations.autoremove";
/// Where the profile was read from.
const SECCOMP_ANNOTATION: &str = "io.podman.annotations.seccomp";

/// A stored configuration, to ask what it needs.
#[derive(Clone, Copy)]
struct Config<'c> {
    config: &'c Map<String, Value>,
    source: ConfigSource,
}

impl ContainerDefinition {
    fn asked(&self) -> Config<'_> {
        Config {
            config: &self.config,
            source: self.source,
        }
    }

    pub fn label(&self, name: &str) -> Option<String> {
        let labels = match self.source {
            ConfigSource::Inspect => self.config.get("Config")?.get("Labels")?,
            _ => self.config.get("labels")?,
        };
        labels.get(name)?.as_str().map(str::to_owned)
    }

    /// Names of named and anonymous volumes that it mounts, sorted. `volume_path`: where the host
    /// keeps volumes, since an overlay mount of one is stored with its path.
    pub fn volumes(&self, volume_path: &Path) -> Vec<String> {
        self.asked().volumes(volume_path)
    }

    /// Names of networks, sorted.
    pub fn networks(&self) -> Vec<String> {
        self.asked().networks()
    }

    /// Names of secrets, sorted.
    pub fn secrets(&self) -> Vec<String> {
        let mounted = list(self.config.get("secrets"));
        let in_environment = map_values(self.config.get("secret_env"));
        let shown = self.config.get("Config").and_then(|c| c.get("Secrets"));
        let names = mounted
            .chain(in_environment)
            .filter_map(|secret| text(secret.get("name")))
            .chain(list(shown).filter_map(|secret| text(secret.get("Name"))));
        sorted(names)
    }

    /// Names of the environment variables that hold secrets.
    pub fn secret_variables(&self) -> impl Iterator<Item = &str> {
        let variables = self.config.get("secret_env").and_then(Value::as_object);
        variables
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
    }

    /// IDs of containers that it needs, sorted: those whose namespaces it joins, and those that it
    /// requires.
    pub fn needs(&self) -> Vec<String> {
        let joined = NAMESPACE_FIELDS
            .iter()
            .filter_map(|field| text(self.config.get(*field)));
        let required = list(self.config.get("Dependencies")).filter_map(|id| text(Some(id)));
        let service = text(self.config.get("serviceContainerID"));
        let ids = joined.chain(required).chain(service);
        sorted(ids.filter(|id| *id != self.id))
    }

    /// Names of images that it mounts, sorted.
    pub fn image_mounts(&self) -> Vec<String> {
        let mounted = list(self.config.get("ctrImageVolumes"));
        sorted(mounted.filter_map(|mount| text(mount.get("source"))))
    }

    /// What it mounts of the host's own files, sorted: bind mounts, sources of overlays, its root.
    pub fn binds(&self, volume_path: &Path) -> Vec<PathBuf> {
        self.asked().binds(volume_path)
    }

    /// The file that its seccomp profile was read from.
    pub fn seccomp_file(&self) -> Option<PathBuf> {
        let annotation = self.annotation(SECCOMP_ANNOTATION)?;
        let path = PathBuf::from(annotation);
        path.is_absolute().then_some(path)
    }

    /// Where it keeps its log, if that is a file.
    pub fn log_file(&self) -> Option<PathBuf> {
        let path = match self.source {
            ConfigSource::Inspect => {
                let log = self.config.get("HostConfig")?.get("LogConfig")?;
                text(log.get("Path"))
            }
            _ => text(self.config.get("logPath")),
        };
        path.map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// It is removed when it stops.
    pub fn auto_remove(&self) -> bool {
        match self.source {
            ConfigSource::Inspect => {
                let host = self.config.get("HostConfig");
                host.and_then(|host| host.get("AutoRemove")?.as_bool()) == Some(true)
            }
            _ => self.annotation(AUTO_REMOVE_ANNOTATION) == Some("TRUE"),
        }
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = match self.source {
            ConfigSource::Inspect => self.config.get("Config")?.get("Annotations")?,
            _ => self.config.get("spec")?.get("annotations")?,
        };
        annotations.get(name)?.as_str()
    }
}

impl PodDefinition {
    fn asked(&self) -> Option<Config<'_>> {
        let config = self.infra.as_ref()?;
        // Only what `inspect` shows is spelt so.
        let source = match config.contains_key("HostConfig") {
            true => ConfigSource::Inspect,
            false => ConfigSource::Sqlite,
        };
        Some(Config { config, source })
    }

    /// As [`ContainerDefinition::volumes`], of its infra container.
    pub fn volumes(&self, volume_path: &Path) -> Vec<String> {
        self.asked()
            .map_or_else(Vec::new, |c| c.volumes(volume_path))
    }

    pub fn networks(&self) -> Vec<String> {
        self.asked().map_or_else(Vec::new, |c| c.networks())
    }

    pub fn binds(&self, volume_path: &Path) -> Vec<PathBuf> {
        self.asked().map_or_else(Vec::new, |c| c.binds(volume_path))
    }
}

impl<'c> Config<'c> {
    fn volumes(self, volume_path: &Path) -> Vec<String> {
        if self.source == ConfigSource::Inspect {
            return sorted(self.shown_mounts("volume", "Name"));
        }
        let named = list(self.config.get("namedVolumes"));
        let named = named.filter_map(|volume| text(volume.get("volumeName")));
        let overlays = self.overlays().filter_map(|source| {
            let (volume, rest) = source
                .strip_prefix(volume_path.to_str()?)?
                .strip_prefix('/')?
                .split_once('/')?;
            (rest == "_data").then_some(volume)
        });
        sorted(named.chain(overlays))
    }

    fn networks(self) -> Vec<String> {
        let networks = match self.source {
            ConfigSource::Inspect => {
                let settings = self.config.get("NetworkSettings");
                settings.and_then(|settings| settings.get("Networks"))
            }
            _ => self.config.get("newNetworks"),
        };
        let names = networks.and_then(Value::as_object).into_iter().flatten();
        sorted(names.map(|(name, _)| name.as_str()))
    }

    fn binds(self, volume_path: &Path) -> Vec<PathBuf> {
        let paths: Vec<&str> = if self.source == ConfigSource::Inspect {
            self.shown_mounts("bind", "Source").collect()
        } else {
            // What Podman adds itself is mounted, too; what was asked for is listed by its place.
            let asked = self.config.get("userVolumes").and_then(Value::as_array);
            let asked: Option<BTreeSet<&str>> =
                asked.map(|places| places.iter().filter_map(Value::as_str).collect());
            let mounts = self.config.get("spec").and_then(|spec| spec.get("mounts"));
            let binds = list(mounts).filter(|mount| {
                let place = text(mount.get("destination"));
                let wanted = asked
                    .as_ref()
                    .is_none_or(|asked| place.is_some_and(|p| asked.contains(p)));
                text(mount.get("type")) == Some("bind") && wanted
            });
            let binds = binds.filter_map(|mount| text(mount.get("source")));
            let overlays = self
                .overlays()
                .filter(|source| !Path::new(source).starts_with(volume_path));
            binds
                .chain(overlays)
                .chain(text(self.config.get("rootfs")))
                .collect()
        };
        sorted(paths.into_iter().filter(|path| path.starts_with('/')))
            .into_iter()
            .map(PathBuf::from)
            .collect()
    }

    fn overlays(self) -> impl Iterator<Item = &'c str> {
        let overlays = list(self.config.get("overlayVolumes"));
        overlays.filter_map(|overlay| text(overlay.get("source")))
    }

    /// `field` of the mounts of a kind that `inspect` shows.
    fn shown_mounts(
        self,
        kind: &'static str,
        field: &'static str,
    ) -> impl Iterator<Item = &'c str> {
        list(self.config.get("Mounts"))
            .filter(move |mount| text(mount.get("Type")) == Some(kind))
            .filter_map(move |mount| text(mount.get(field)))
    }
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn map_values(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let map = value.and_then(Value::as_object);
    map.into_iter().flatten().map(|(_, value)| value)
}

fn text(value: Option<&Value>) -> Option<&str> {
    value
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn sorted<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<String> {
    let texts: BTreeSet<&str> = texts.collect();
    texts.into_iter().map(str::to_owned).collect()
}
