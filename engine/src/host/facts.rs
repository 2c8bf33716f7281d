//! What there is on a host besides volumes and images, without content: no configuration, and no
//! byte of a secret.

use std::path::PathBuf;

use podkeep_format::item::{Item, ItemKind};

/// A container as Podman keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFacts {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    /// Podman's word: created, initialized, running, paused, exited, stopped.
    pub status: String,
    /// The name of its pod.
    pub pod: Option<String>,
    /// It is its pod's infra container: kept with the pod, no item of its own.
    pub is_infra: bool,
    /// Empty: its root is a directory of the host.
    pub image_id: String,
    pub image_name: String,
    /// Names of images that it mounts, sorted.
    pub image_mounts: Vec<String>,
    /// Names of named and anonymous volumes that it mounts, sorted.
    pub volumes: Vec<String>,
    /// Names, sorted; its pod's networks are not among them.
    pub networks: Vec<String>,
    /// Names, sorted.
    pub secrets: Vec<String>,
    /// Names of the containers that it needs, sorted: those whose namespaces it joins, and those
    /// that it requires. Its pod's infra container is not among them.
    pub needs: Vec<String>,
    /// Directories, files, sockets and devices of the host that it mounts, sorted.
    pub binds: Vec<PathBuf>,
    /// Those of `binds` that are files or directories with data, links resolved, sorted.
    pub data_binds: Vec<PathBuf>,
    /// Files that it logs into.
    pub logs: Vec<PathBuf>,
    /// It is removed when it stops.
    pub auto_remove: bool,
    /// The systemd unit that makes and removes it.
    pub unit: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    /// Some container of it runs or is paused.
    pub running: bool,
    /// Empty: it has none.
    pub infra_id: String,
    /// Names of its containers without the infra container, sorted.
    pub containers: Vec<String>,
    /// Of its infra container, sorted.
    pub volumes: Vec<String>,
    pub networks: Vec<String>,
    pub binds: Vec<PathBuf>,
    pub data_binds: Vec<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFacts {
    pub name: String,
    /// It is the default network as Podman makes it, which is on every host: kept only where
    /// something that is kept uses it.
    pub is_default_unchanged: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// 25 hex digits.
    pub id: String,
    pub name: String,
    pub driver: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFacts {
    /// The name of its file: "web.container".
    pub name: String,
    /// The service that runs it.
    pub service: String,
    /// Names of other units that its files refer to, sorted.
    pub needs: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFacts {
    pub name: String,
}

macro_rules! items {
    ($($facts:ident => $kind:ident),+ $(,)?) => {$(
        impl $facts {
            pub fn item(&self) -> Item {
                Item::new(ItemKind::$kind, self.name.as_bytes())
            }
        }
    )+};
}

items! {
    ContainerFacts => Container,
    PodFacts => Pod,
    NetworkFacts => Network,
    SecretFacts => Secret,
    UnitFacts => Unit,
    ConfigFacts => Config,
}
