//! Where the units and the configuration of one Podman lie: the host's, or a user's own.
//!
//! Source: podman-systemd.unit(5), systemd.unit(5), containers.conf(5).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::podman::command::Podman;

/// Where root's Quadlet files are, the folder that counts first.
const QUADLET_FOLDERS: [&str; 3] = [
    "run/containers/systemd",
    "etc/containers/systemd",
    "usr/share/containers/systemd",
];
/// Where the administrator's own units are.
const SYSTEMD_FOLDER: &str = "etc/systemd/system";
/// Where the configuration of containers is.
const CONFIG_FOLDER: &str = "etc/containers";
/// Links in it are named after units that systemd started: below /run, and below the runtime folder of
/// a user for the user's systemd.
pub(super) const INVOCATIONS_FOLDER: &str = "systemd/units";

/// Where the units and the configuration of one Podman lie.
#[derive(Clone, Debug)]
pub struct UnitPlaces {
    /// Below which the host's paths are: `/`, or the root of another host.
    pub(super) root: PathBuf,
    /// Folders of Quadlet files, the one that counts first first.
    pub(super) quadlets: Vec<PathBuf>,
    /// The folder of systemd's own units.
    pub(super) systemd: PathBuf,
    /// The folder of the configuration of containers.
    pub(super) configuration: PathBuf,
    pub(super) invocations: Option<PathBuf>,
    /// Of the user whose they are; `None`: the system's.
    user: Option<UserPlaces>,
}

/// A user's own: the rest of the host is not the user's to give, nor to get back.
#[derive(Clone, Debug)]
struct UserPlaces {
    podman: Podman,
    home: String,
    config: PathBuf,
}

impl UnitPlaces {
    /// Those of root's Podman, on a host whose root is `root`, a path without links.
    pub fn of_system(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            quadlets: QUADLET_FOLDERS
                .iter()
                .map(|folder| root.join(folder))
                .collect(),
            systemd: root.join(SYSTEMD_FOLDER),
            configuration: root.join(CONFIG_FOLDER),
            invocations: Some(root.join("run").join(INVOCATIONS_FOLDER)),
            user: None,
        }
    }

    /// Those of the user whose podman it is, on this host. `None`: who has no home, or one whose name is
    /// not UTF-8.
    pub fn of_user(podman: &Podman) -> Option<Self> {
        let config = podman.config_folder()?;
        let home = podman.home()?.into_os_string().into_string().ok()?;
        let runtime = podman.variable("XDG_RUNTIME_DIR").map(PathBuf::from);
        let folders = [runtime.as_deref(), Some(&config)];
        let quadlets = folders.into_iter().flatten();
        Some(Self {
            root: "/".into(),
            quadlets: quadlets
                .map(|folder| folder.join("containers/systemd"))
                .collect(),
            systemd: config.join("systemd/user"),
            configuration: config.join("containers"),
            invocations: runtime.map(|folder| folder.join(INVOCATIONS_FOLDER)),
            user: Some(UserPlaces {
                podman: podman.clone(),
                home,
                config,
            }),
        })
    }

    /// As a definition has it.
    pub(super) fn home(&self) -> Option<String> {
        Some(self.user.as_ref()?.home.clone())
    }

    pub(super) fn is_of_user(&self) -> bool {
        self.user.is_some()
    }

    pub(super) fn scope(&self) -> String {
        match self.user {
            None => "system".into(),
            Some(_) => "user".into(),
        }
    }

    /// Whether a file can be kept: of a user, only what is the user's own.
    pub(super) fn keeps(&self, path: &Path) -> bool {
        self.user.as_ref().is_none_or(|user| {
            let facts = std::fs::symlink_metadata(path);
            facts.is_ok_and(|facts| user.podman.owns(facts.uid()))
        })
    }

    /// A path as systemd reads it in a unit: `%h` is the user's home, `%E` the folder of
    /// configuration (systemd.unit(5), "Specifiers"). Others stay.
    pub(super) fn expand(&self, text: &str) -> String {
        let (home, config) = match &self.user {
            None => ("/root", Path::new("/etc")),
            Some(user) => (user.home.as_str(), user.config.as_path()),
        };
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            expanded.push_str(before);
            let (value, len) = match after.chars().next() {
                Some('h') => (home.into(), 1),
                Some('E') => (config.to_string_lossy(), 1),
                Some('%') => ("%".into(), 1),
                _ => ("%".into(), 0),
            };
            expanded.push_str(&value);
            rest = &after[len..];
        }
        expanded + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_units_are_read_as_systemd_reads_them() {
        let places = UnitPlaces::of_system(Path::new("/"));
        for (text, expected) in [
            ("%h/a.env", "/root/a.env"),
            ("/x/%E/%n", "/x//etc/%n"),
            ("/100%%", "/100%"),
            ("/ends%", "/ends%"),
            ("/%\u{e9}", "/%\u{e9}"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(places.expand(text), expected, "{text}");
        }
    }
}
