//! Containers, pods, networks, secrets, units and configuration of the host that this process runs
//! on: what there is, and the definition and the files of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podkeep_format::item::{Item, ItemKind};
use rustix::fs::{Mode, OFlags};

use super::volume::{finding, not_here};
use super::{
    ConfigFacts, ContainerFacts, HostError, Inventory, NetworkFacts, PodFacts, SecretFacts,
    UnitFacts,
};
use crate::fs::scan::View;
use crate::fs::{FsError, FsErrorKind};
use crate::monitor::{Finding, FindingKind};
use crate::podman::{
    ConfigDefinition, ContainerDefinition, KeptFile, NetworkDefinition, PodDefinition, Podman,
    StoreInfo, UnitDefinition, UnitPlaces, WritableLayer, effective_spec, find_configs, find_units,
    list_networks, list_secrets, mounted_over, read_secret, read_state, writable_layer,
};

/// Units and configuration are some files in a home.
const LOOK_TIME_MAX: Duration = Duration::from_secs(120);
/// What is mounted of these is the machine's own state or another's, never data.
const NEVER_DATA: [&str; 5] = ["/dev", "/proc", "/sys", "/run", "/var/run"];
const NEVER_DATA_FILES: [&str; 4] = ["/", "/etc/localtime", "/etc/timezone", "/etc/machine-id"];

/// The definitions of one Podman.
pub(super) struct Definitions {
    podman: Podman,
    /// Below which units and configuration of the system are looked for.
    root: PathBuf,
    /// As the last inventory found them: one run reads many.
    known: Mutex<Option<Arc<Known>>>,
}

#[derive(Default)]
struct Known {
    containers: BTreeMap<String, (ContainerDefinition, PathBuf)>,
    pods: BTreeMap<String, PodDefinition>,
    networks: BTreeMap<String, NetworkDefinition>,
    units: BTreeMap<String, UnitDefinition>,
    configs: BTreeMap<String, ConfigDefinition>,
}

/// What an item is, and where its files are.
pub(super) struct Readable {
    pub definition: Vec<u8>,
    /// `None`: it has no files.
    pub files: Option<ReadableFiles>,
    pub findings: Vec<Finding>,
}

pub(super) struct ReadableFiles {
    pub root: OwnedFd,
    pub view: View,
    /// Globs over paths below the root.
    pub exclude: Vec<String>,
    /// Files lie on whatever is mounted there.
    pub cross_mounts: bool,
}

impl Definitions {
    pub fn new(podman: Podman, root: PathBuf) -> Self {
        Self {
            podman,
            root,
            known: Mutex::default(),
        }
    }

    /// Adds what there is to an inventory. What cannot be listed is a finding of its own, so that
    /// the rest can be saved all the same.
    pub fn inventory(&self, info: &StoreInfo, inventory: &mut Inventory) {
        let known = self.look(info, &mut inventory.definition_findings);
        let secrets = list_secrets(&info.graph_root);
        match secrets {
            Ok(secrets) => {
                inventory.secrets = secrets
                    .into_iter()
                    .map(|secret| SecretFacts {
                        id: secret.id,
                        name: secret.name,
                        driver: secret.driver,
                    })
                    .collect();
            }
            Err(error) => inventory
                .definition_findings
                .push(unlisted("secrets", &error.to_string())),
        }
        let names: HashMap<&str, &str> = known
            .containers
            .values()
            .map(|(container, _)| (container.id.as_str(), container.name.as_str()))
            .collect();
        let facts = known
            .containers
            .values()
            .map(|(container, _)| container_facts(container, &names, info));
        inventory.containers = facts.collect();
        inventory.pods = known
            .pods
            .values()
            .map(|pod| pod_facts(pod, info))
            .collect();
        let networks = known.networks.values().map(|network| NetworkFacts {
            name: network.name.clone(),
            is_default_unchanged: network.is_default_unchanged,
        });
        inventory.networks = networks.collect();
        let units = known.units.values().map(|unit| UnitFacts {
            name: unit.name.clone(),
            service: unit.service.clone(),
            needs: unit.needs.clone(),
        });
        inventory.units = units.collect();
        let configs = known
            .configs
            .keys()
            .map(|name| ConfigFacts { name: name.clone() });
        inventory.configs = configs.collect();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(known));
    }

    fn look(&self, info: &StoreInfo, findings: &mut Vec<Finding>) -> Known {
        let mut known = Known::default();
        match read_state(&self.podman, info) {
            Ok(state) => {
                let (containers, pods) = state.definitions();
                known.containers = containers
                    .into_iter()
                    .map(|container| (container.0.name.clone(), container))
                    .collect();
                known.pods = by_name(pods, |pod| &pod.name);
                let any = !known.containers.is_empty() || !known.pods.is_empty();
                if let Some(cause) = state.lossy.filter(|_| any) {
                    findings.push(Finding {
                        object: "containers".into(),
                        kind: FindingKind::Skipped,
                        snapshots: Vec::new(),
                        paths: Vec::new(),
                        message: format!(
                            "Podman's database cannot be read ({cause}); their definitions are \
                             what `podman inspect` shows, which hides some settings"
                        ),
                    });
                }
            }
            Err(error) => findings.push(unlisted("containers and pods", &error.to_string())),
        }
        match list_networks(&self.podman, &info.graph_root) {
            Ok(networks) => known.networks = by_name(networks, |network| &network.name),
            Err(error) => findings.push(unlisted("networks", &error.to_string())),
        }
        let places = match self.podman.is_rootless() {
            true => UnitPlaces::of_user(&self.podman),
            false => Some(UnitPlaces::of_system(&self.root)),
        };
        let Some(places) = places else {
            return known;
        };
        let containers = known.containers.values().map(|(container, _)| container);
        let found = match self.podman.user() {
            None => Ok(find(&places, &containers.collect::<Vec<_>>())),
            Some(_) => {
                let containers: Vec<ContainerDefinition> = containers.cloned().collect();
                in_time(self.podman.clone(), move || {
                    find(&places, &containers.iter().collect::<Vec<_>>())
                })
            }
        };
        match found {
            Ok((units, configs)) => {
                known.units = by_name(units, |unit| &unit.name);
                known.configs = by_name(configs, |config| &config.name);
            }
            Err(error) => findings.push(unlisted("units and configuration", &error.to_string())),
        }
        known
    }

    /// An item as it is now: state and files; what the last inventory found of its definition.
    pub fn read(&self, item: &Item, info: &StoreInfo) -> Result<Readable, HostError> {
        let name = str::from_utf8(&item.name).map_err(|_| not_here(item))?;
        if item.kind == ItemKind::Secret {
            return self.secret(item, name, info);
        }
        let known = self.known(info);
        let gone = || not_here(item);
        match item.kind {
            ItemKind::Container => {
                let (container, spec) = known.containers.get(name).ok_or_else(gone)?;
                container_readable(item, container, spec, info, self.podman.is_rootless())
            }
            ItemKind::Pod => Ok(plain(known.pods.get(name).ok_or_else(gone)?.encode())),
            ItemKind::Network => {
                let network = known.networks.get(name).ok_or_else(gone)?;
                Ok(plain(network.encode()))
            }
            ItemKind::Unit => {
                let unit = known.units.get(name).ok_or_else(gone)?;
                self.with_files(item, unit.encode(), &unit.files)
            }
            ItemKind::Config => {
                let config = known.configs.get(name).ok_or_else(gone)?;
                self.with_files(item, config.encode(), &config.files)
            }
            _ => Err(not_here(item)),
        }
    }

    fn known(&self, info: &StoreInfo) -> Arc<Known> {
        let mut slot = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever cannot be listed was told with the inventory, or is not found below.
        let look = || Arc::new(self.look(info, &mut Vec::new()));
        Arc::clone(slot.get_or_insert_with(look))
    }

    fn secret(&self, item: &Item, name: &str, info: &StoreInfo) -> Result<Readable, HostError> {
        let found = read_secret(&self.podman, &info.graph_root, name)?;
        let (secret, why) = found.ok_or_else(|| not_here(item))?;
        let mut readable = plain(secret.encode());
        if let Some(cause) = why {
            readable.findings.push(finding(
                item,
                FindingKind::Unreadable,
                format!(
                    "its driver {} does not give it ({cause}): the snapshot lacks its content",
                    secret.driver
                ),
            ));
        }
        Ok(readable)
    }

    /// An item whose files lie where they belong on the host.
    fn with_files(
        &self,
        item: &Item,
        definition: Vec<u8>,
        files: &[KeptFile],
    ) -> Result<Readable, HostError> {
        let mut readable = plain(definition);
        let why = match self.podman.is_rootless() {
            true => "not there, or not a file of this user's",
            false => "not there",
        };
        for file in files.iter().filter(|file| file.missing) {
            readable.findings.push(finding(
                item,
                FindingKind::Note,
                format!("{} ({}) is named and {why}", file.path, file.role),
            ));
        }
        let there = files.iter().filter(|file| !file.missing);
        let paths: Vec<Vec<u8>> = there
            .map(|file| file.path.trim_start_matches('/').as_bytes().to_vec())
            .collect();
        if paths.is_empty() {
            return Ok(readable);
        }
        let root = &self.root;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|errno| FsError::from_errno("open", root.as_os_str().as_bytes(), errno))?;
        readable.files = Some(ReadableFiles {
            root,
            view: View::Only(paths.into_iter().collect()),
            exclude: Vec::new(),
            cross_mounts: true,
        });
        Ok(readable)
    }
}

fn find(
    places: &UnitPlaces,
    containers: &[&ContainerDefinition],
) -> (Vec<UnitDefinition>, Vec<ConfigDefinition>) {
    (find_units(places), find_configs(places, containers))
}

/// Does something in the name of the user whose podman it is: what the user may not look into is none of
/// the user's. Nor does root wait for a file system of the user's that never answers.
fn in_time<T: Send + 'static>(
    podman: Podman,
    act: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Nobody may wait any more.
        let _ = done.send(podman.in_its_name(|| Ok(act())));
    });
    wait.recv_timeout(LOOK_TIME_MAX).unwrap_or_else(|_| {
        let seconds = LOOK_TIME_MAX.as_secs();
        let cause = format!("they cannot be looked for within {seconds} s");
        Err(std::io::Error::other(cause))
    })
}

fn by_name<T>(list: Vec<T>, name: impl Fn(&T) -> &String) -> BTreeMap<String, T> {
    list.into_iter()
        .map(|one| (name(&one).clone(), one))
        .collect()
}

fn unlisted(what: &str, cause: &str) -> Finding {
    Finding {
        object: what.into(),
        kind: FindingKind::Unreadable,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: format!("{cause}; they are not in this backup"),
    }
}

fn plain(definition: Vec<u8>) -> Readable {
    Readable {
        definition,
        files: None,
        findings: Vec::new(),
    }
}

fn container_facts(
    container: &ContainerDefinition,
    names: &HashMap<&str, &str>,
    info: &StoreInfo,
) -> ContainerFacts {
    let needs: BTreeSet<String> = container
        .needs()
        .iter()
        .filter_map(|id| names.get(id.as_str()).map(|name| (*name).to_owned()))
        .collect();
    let binds = container.binds(&info.volume_path);
    let log = container.log_file().filter(|path| path.is_file());
    ContainerFacts {
        id: container.id.clone(),
        name: container.name.clone(),
        status: container.status.clone(),
        pod: container.pod.clone(),
        is_infra: false,
        image_id: container.image_id.clone(),
        image_name: container.image_name.clone(),
        image_mounts: container.image_mounts(),
        volumes: container.volumes(&info.volume_path),
        networks: container.networks(),
        secrets: container.secrets(),
        needs: needs.into_iter().collect(),
        data_binds: data_of(&binds),
        binds,
        logs: log.into_iter().collect(),
        auto_remove: container.auto_remove(),
        unit: container.unit.clone(),
    }
}

fn pod_facts(pod: &PodDefinition, info: &StoreInfo) -> PodFacts {
    let binds = pod.binds(&info.volume_path);
    PodFacts {
        id: pod.id.clone(),
        name: pod.name.clone(),
        running: pod.running,
        infra_id: pod.infra_id.clone(),
        containers: pod.containers.clone(),
        volumes: pod.volumes(&info.volume_path),
        networks: pod.networks(),
        data_binds: data_of(&binds),
        binds,
    }
}

/// Files and directories that can be saved as such: no sockets, devices or state of the machine.
/// Links are resolved.
fn data_of(binds: &[PathBuf]) -> Vec<PathBuf> {
    let resolved = binds.iter().filter_map(|path| {
        let path = std::fs::canonicalize(path).ok()?;
        let facts = std::fs::metadata(&path).ok()?;
        let never = NEVER_DATA.iter().any(|folder| path.starts_with(folder))
            || NEVER_DATA_FILES.iter().any(|file| path == Path::new(file));
        ((facts.is_dir() || facts.is_file()) && !never).then_some(path)
    });
    let resolved: BTreeSet<PathBuf> = resolved.collect();
    resolved.into_iter().collect()
}

fn container_readable(
    item: &Item,
    container: &ContainerDefinition,
    spec: &Path,
    info: &StoreInfo,
    rootless: bool,
) -> Result<Readable, HostError> {
    let mut findings = Vec::new();
    let mut definition = container.clone();
    match effective_spec(container, spec) {
        Ok(spec) => definition.runtime_spec = spec,
        Err(cause) => findings.push(finding(
            item,
            FindingKind::Note,
            format!("the configuration that it ran with last is not kept: {cause}"),
        )),
    }
    let encoded = definition.encode();
    // Refused here rather than when it is needed.
    ContainerDefinition::decode(&encoded).map_err(|cause| HostError::Podman {
        action: "keep the definition of",
        object: item.to_string(),
        cause,
    })?;
    let mut readable = Readable {
        definition: encoded,
        files: None,
        findings,
    };
    // Its root is a directory of the host, listed with what it mounts.
    if container.image_id.is_empty() {
        return Ok(readable);
    }
    let layer = match &info.places {
        Some(places) => writable_layer(places, &container.id),
        None => Err(format!("the driver {} is not known", info.driver)),
    };
    let (root, view) = match layer {
        Ok(Some(WritableLayer::Upper(root))) => {
            let in_user_namespace = rootless;
            (root, View::OverlayUpper { in_user_namespace })
        }
        Ok(Some(WritableLayer::Compared { root, changes })) => {
            let crate::podman::Changes { changed, removed } = changes;
            (root, View::Changed { changed, removed })
        }
        Ok(None) => {
            let error = FsError::new(
                "find",
                item.to_string().as_bytes(),
                FsErrorKind::NotFound,
                "its writable layer is gone",
            );
            return Err(error.into());
        }
        Err(cause) => {
            readable.findings.push(finding(
                item,
                FindingKind::Unreadable,
                format!("its own files are not saved: {cause}"),
            ));
            return Ok(readable);
        }
    };
    let exclude = mounted_over(&container.config);
    let exclude = exclude.iter().filter_map(|path| path.to_str());
    readable.files = Some(ReadableFiles {
        root,
        view,
        exclude: exclude.map(str::to_owned).collect(),
        cross_mounts: false,
    });
    Ok(readable)
}
