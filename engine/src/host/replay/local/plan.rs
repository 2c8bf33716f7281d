//! What stands in the way of definitions, and the order to make them in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_format::item::{Item, ItemKind};

use super::super::fit::{self, Definitions, Names};
use super::super::{ReplayPlan, ReplayRequest};
use super::{LocalReplay, note, read};
use crate::fs::owners::Owners;
use crate::host::{HeldUnit, HostError};
use crate::monitor::{Finding, FindingKind};
use crate::podman::replay::{
    HostFacts, Obstacle, Seccomp, Version, Wanted, architecture_of, jobs, obstacles, same_network,
    seccomp_of, userns, volumes_from_of,
};
use crate::podman::{
    ConfigSource, ContainerDefinition, NetworkDefinition, PodDefinition, Podman, SecretDefinition,
    StoreInfo, UNIT_LABEL, UnitDefinition, list_networks, list_secrets, read_state,
};

impl LocalReplay {
    /// Looks at everything, and changes nothing.
    pub fn plan(
        podman: &Podman,
        info: StoreInfo,
        state: &Path,
        owners: Arc<Owners>,
        request: ReplayRequest,
    ) -> Result<(Self, ReplayPlan), HostError> {
        let (facts, pods) = host_facts(podman, &info)?;
        let mut replay = Self {
            facts,
            pods,
            podman: podman.clone(),
            owners,
            lingers: false,
            info,
            folder: folder(podman, state),
            options: request.options.clone(),
            definitions: Definitions::default(),
            stored: Definitions::default(),
            names: Names::default(),
            secrets: BTreeMap::new(),
            units: BTreeMap::new(),
            anonymous: BTreeSet::new(),
            by_unit: BTreeSet::new(),
            pods_by_unit: BTreeSet::new(),
            foreign: BTreeSet::new(),
            order: Vec::new(),
            maker: None,
            renamed: BTreeMap::new(),
            interfaces: BTreeSet::new(),
            made: BTreeSet::new(),
        };
        replay.take(&request)?;
        let plan = replay.fit(&request)?;
        Ok((replay, plan))
    }

    fn take(&mut self, request: &ReplayRequest) -> Result<(), HostError> {
        for (item, bytes) in &request.items {
            match item.kind {
                ItemKind::Container => {
                    let one = read(item, ContainerDefinition::decode(bytes))?;
                    self.definitions.containers.insert(one.name.clone(), one);
                }
                ItemKind::Pod => {
                    let one = read(item, PodDefinition::decode(bytes))?;
                    self.definitions.pods.insert(one.name.clone(), one);
                }
                ItemKind::Network => {
                    let one = read(item, NetworkDefinition::decode(bytes))?;
                    // It is on every host.
                    if !one.is_default_unchanged {
                        self.definitions.networks.insert(one.name.clone(), one);
                    }
                }
                ItemKind::Secret => {
                    let one = read(item, SecretDefinition::decode(bytes))?;
                    self.secrets.insert(one.name.clone(), one);
                }
                ItemKind::Unit => {
                    let one = read(item, UnitDefinition::decode(bytes))?;
                    self.units.insert(one.name.clone(), one);
                }
                _ => {}
            }
        }
        let units: BTreeSet<&str> = self
            .units
            .values()
            .map(|unit| unit.service.as_str())
            .collect();
        let containers = &self.definitions.containers;
        self.by_unit = containers
            .values()
            .filter(|one| one.unit.as_deref().is_some_and(|unit| units.contains(unit)))
            .map(|one| one.name.clone())
            .collect();
        self.stored = Definitions {
            containers: containers.clone(),
            pods: self.definitions.pods.clone(),
            networks: self.definitions.networks.clone(),
        };
        let by_unit = &self.by_unit;
        self.definitions
            .containers
            .retain(|name, _| !by_unit.contains(name));
        // A unit that makes a pod would replace the one that is there.
        let of_unit = |pod: &PodDefinition| {
            let infra = pod.infra.as_ref();
            let labels = infra.and_then(|infra| infra.get("labels")?.as_object());
            let unit = labels.and_then(|labels| labels.get(UNIT_LABEL)?.as_str());
            unit.is_some_and(|unit| units.contains(unit))
        };
        let pods = self.definitions.pods.iter();
        let pods = pods.filter(|(_, pod)| of_unit(pod));
        self.pods_by_unit = pods.map(|(name, _)| name.clone()).collect();
        let by_unit = &self.pods_by_unit;
        self.definitions
            .pods
            .retain(|name, _| !by_unit.contains(name));
        Ok(())
    }

    fn fit(&mut self, request: &ReplayRequest) -> Result<ReplayPlan, HostError> {
        let mut plan = ReplayPlan::default();
        let options = &request.options;
        if options.remap_subnet {
            plan.actions
                .extend(fit::remap_subnets(&mut self.definitions, &self.facts));
        }
        if options.drop_missing {
            plan.actions
                .extend(fit::drop_missing(&mut self.definitions, &self.facts));
        }
        let mut conflicts = Vec::new();
        self.fit_namespaces(&mut plan, &mut conflicts);
        self.fit_user(request, &mut plan, &mut conflicts);
        let suffix = options.rename_suffix.as_deref();
        self.names = Names::choose(&self.definitions, &self.facts, suffix);
        for names in [&self.names.containers, &self.names.pods] {
            let renamed = names.iter().filter(|(old, new)| old != new);
            self.renamed
                .extend(renamed.map(|(old, new)| (old.clone(), new.clone())));
        }
        fit::rename_networks(&mut self.definitions, &self.names);
        conflicts.extend(self.obstacles().into_iter().map(
            |Obstacle {
                 object,
                 cause,
                 remedy,
             }| format!("{object} {cause}: {remedy}"),
        ));
        self.references(request, &mut conflicts, &mut plan.findings);
        self.foreign(request, &mut conflicts, &mut plan.findings)?;
        self.arrange(&mut plan, &mut conflicts);
        for (name, container) in &self.definitions.containers {
            if let Seccomp::Own { path, .. } = seccomp_of(&container.config)
                && !Path::new(path).exists()
            {
                plan.findings.push(note(
                    format!("container:{name}"),
                    FindingKind::Note,
                    format!("its seccomp profile {path} is not here; what was made of it is used"),
                ));
            }
        }
        for job in &self.facts.jobs {
            plan.findings
                .push(note("this host", FindingKind::Note, job.clone()));
        }
        for name in &self.by_unit {
            let unit = self.stored.containers[name]
                .unit
                .as_deref()
                .unwrap_or_default();
            plan.actions.push(format!(
                "leave container {name} to the unit {unit}, which makes it"
            ));
        }
        for name in &self.pods_by_unit {
            plan.actions
                .push(format!("leave pod {name} to the unit that makes it"));
        }
        let units = self.units.values().map(|unit| HeldUnit {
            service: unit.service.clone(),
            active: unit.active == "active",
            masked: false,
        });
        plan.services = units.collect();
        conflicts.sort();
        conflicts.dedup();
        plan.conflicts = conflicts;
        Ok(plan)
    }

    /// Containers whose image is for another architecture: they are made, and told of.
    fn foreign(
        &mut self,
        request: &ReplayRequest,
        conflicts: &mut Vec<String>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), HostError> {
        let mut of_images = request.architectures.clone();
        let here = &self.facts.architecture;
        for (name, container) in &self.definitions.containers {
            let image = &container.image_id;
            if image.is_empty() {
                continue;
            }
            if !of_images.contains_key(image) {
                of_images.insert(image.clone(), architecture_of(&self.podman, image)?);
            }
            let architecture = of_images.get(image).map_or("", String::as_str);
            if architecture.is_empty() || architecture == here {
                continue;
            }
            let ran = matches!(container.status.as_str(), "running" | "paused" | "stopping");
            if ran && self.options.must_start && !self.options.start_foreign {
                conflicts.push(format!(
                    "container {name} has an image for {architecture}, and this host is {here}: \
                     --start-foreign, if it emulates that"
                ));
                continue;
            }
            let remedy = match self.options.start_foreign {
                true => "",
                false => "; it is made, and started only with --start-foreign",
            };
            findings.push(note(
                format!("container:{name}"),
                FindingKind::Skipped,
                format!("its image is for {architecture}, this host is {here}{remedy}"),
            ));
            self.foreign.insert(name.clone());
        }
        Ok(())
    }

    /// What is in the way, without what the options resolve.
    fn obstacles(&self) -> Vec<Obstacle> {
        let Self {
            definitions, names, ..
        } = self;
        let wanted = Wanted {
            containers: definitions
                .containers
                .iter()
                .map(|(name, one)| (one, names.containers[name].clone()))
                .collect(),
            pods: definitions
                .pods
                .iter()
                .map(|(name, one)| (one, names.pods[name].clone()))
                .collect(),
            networks: definitions
                .networks
                .iter()
                .map(|(name, one)| (one, names.networks[name].clone()))
                .collect(),
            secrets: self.secrets.keys().cloned().collect(),
        };
        let (mut leaving, mut networks) = (BTreeSet::new(), BTreeSet::new());
        if self.options.replace {
            let leaves = |name: &&String| {
                let all = [&self.facts.containers, &self.facts.pods];
                let mut there = all.iter().filter_map(|all| all.get(*name));
                there.any(|runs| !runs || self.options.replace_running)
            };
            let containers = wanted.containers.iter().map(|(_, name)| name);
            let names = containers.chain(wanted.pods.iter().map(|(_, name)| name));
            leaving.extend(names.filter(leaves).cloned());
            networks.extend(wanted.networks.iter().map(|(_, name)| name.clone()));
        }
        let mut found = obstacles(&wanted, &self.facts.without(&leaving, &networks));
        let replaced = wanted.networks.iter().filter(|(network, name)| {
            let there = self.facts.networks.get(name);
            networks.contains(name) && there.is_some_and(|it| !same_network(&network.config, it))
        });
        for (_, name) in replaced {
            let in_pods = |user: &&String| {
                let pods = wanted.pods.iter().filter(|(_, pod)| leaving.contains(pod));
                pods.flat_map(|(pod, _)| &pod.containers)
                    .any(|one| one == *user)
            };
            let users = self.facts.users_of(name);
            for user in users.filter(|user| !leaving.contains(*user) && !in_pods(user)) {
                found.push(Obstacle {
                    object: format!("network {name}"),
                    cause: format!("is there, with other settings, and {user} is in it and stays"),
                    remedy: format!("--rename-suffix SUFFIX, or remove {user}"),
                });
            }
        }
        // Secrets have nothing that could clash.
        found.retain(|obstacle| !(self.options.replace && obstacle.cause == "is there"));
        if self.options.ports_come_free {
            found.retain(|obstacle| !obstacle.cause.starts_with("needs the port"));
        }
        if self.options.drop_static {
            found.retain(|obstacle| obstacle.remedy != "--drop-static");
        }
        found
    }

    /// What containers refer to has to be there, or to come along.
    fn references(
        &mut self,
        request: &ReplayRequest,
        conflicts: &mut Vec<String>,
        findings: &mut Vec<Finding>,
    ) {
        for (name, container) in &self.definitions.containers {
            let mut lacks = |kind: &str, what: &str| {
                conflicts.push(format!(
                    "container {name} needs the {kind} {what}, which is neither here nor restored: \
                     restore {kind}:{what} with it"
                ));
            };
            let image = &container.image_id;
            if !image.is_empty() && !request.images.contains(image) {
                lacks("image", &container.image_name);
            }
            for secret in container.secrets() {
                if !self.secrets.contains_key(&secret) && !self.facts.secrets.contains(&secret) {
                    lacks("secret", &secret);
                }
            }
            if let Some(pod) = &container.pod
                && !self.definitions.pods.contains_key(pod)
                && !self.facts.pods.contains_key(pod)
            {
                lacks("pod", pod);
            }
            for need in needs_of(container) {
                let is_here = self.definitions.containers.contains_key(&need)
                    || self.facts.containers.contains_key(&need);
                let infra = self
                    .definitions
                    .pods
                    .values()
                    .any(|pod| container.names.get(&pod.infra_id) == Some(&need));
                if !is_here && !infra {
                    lacks("container", &need);
                }
            }
            for volume in container.volumes(&self.info.volume_path) {
                if !request.volumes.contains_key(&volume) {
                    findings.push(note(
                        format!("container:{name}"),
                        FindingKind::Note,
                        format!("its volume {volume} is not restored with it"),
                    ));
                }
            }
        }
        let anonymous = request.volumes.iter().filter(|(_, anonymous)| **anonymous);
        self.anonymous = anonymous.map(|(name, _)| name.clone()).collect();
    }

    fn arrange(&mut self, plan: &mut ReplayPlan, conflicts: &mut Vec<String>) {
        let needs: BTreeMap<String, BTreeSet<String>> = self
            .definitions
            .containers
            .iter()
            .map(|(name, container)| (name.clone(), needs_of(container).into_iter().collect()))
            .collect();
        match fit::in_order(&needs) {
            Ok(order) => self.order = order,
            Err(circle) => conflicts.push(format!(
                "containers {} need each other in a circle: restore them one by one",
                circle.join(" -> ")
            )),
        }
        let mut add = |kind: ItemKind, name: &String, new: &String, verb: &str| {
            let item = Item::new(kind, name.as_bytes());
            plan.order.push(item.clone());
            if name != new {
                plan.names.insert(item, new.clone());
            }
            let word = kind.word();
            plan.actions.push(match name == new {
                true => format!("{verb} {word} {name}"),
                false => format!("{verb} {word} {name} as {new}"),
            });
        };
        for (name, network) in &self.definitions.networks {
            let new = &self.names.networks[name];
            let there = self.facts.networks.get(new);
            let verb = match there {
                Some(there) if same_network(&network.config, there) => "keep",
                Some(_) => "replace",
                None => "create",
            };
            add(ItemKind::Network, name, new, verb);
        }
        let verb = |there: bool| if there { "replace" } else { "create" };
        for name in self.secrets.keys() {
            add(
                ItemKind::Secret,
                name,
                name,
                verb(self.facts.secrets.contains(name)),
            );
        }
        for (name, new) in &self.names.pods {
            add(
                ItemKind::Pod,
                name,
                new,
                verb(self.facts.pods.contains_key(new)),
            );
        }
        for name in &self.order {
            let new = &self.names.containers[name];
            let there = self.facts.containers.contains_key(new);
            add(ItemKind::Container, name, new, verb(there));
        }
        for container in self.definitions.containers.values() {
            let volumes = container.volumes(&self.info.volume_path);
            let own = volumes
                .into_iter()
                .filter(|name| self.anonymous.contains(name));
            plan.with_containers.extend(own);
        }
    }
}

/// Names of the containers that one needs: whose namespaces it joins, which it requires, whose
/// volumes it has. Its pod's infra container is not among them.
fn needs_of(container: &ContainerDefinition) -> Vec<String> {
    let ids = container.needs();
    let by_id = ids.iter().filter_map(|id| container.names.get(id));
    let mut names: Vec<String> = by_id.cloned().collect();
    for (from, _) in volumes_from_of(&container.config) {
        let name = container.names.get(from).map_or(from, String::as_str);
        names.push(name.to_owned());
    }
    if let Some(pod) = container.config.get("pod").and_then(|v| v.as_str())
        && !pod.is_empty()
    {
        // An infra container has no item of its own.
        names.retain(|name| !name.ends_with("-infra"));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Where the socket of an API lies that only its user may ask. That of another user is in a folder of
/// that user's own.
fn folder(podman: &Podman, state: &Path) -> PathBuf {
    let Some(account) = podman.user() else {
        return state.join("replay");
    };
    match podman.variable("XDG_RUNTIME_DIR") {
        Some(runtime) => Path::new(runtime).join("podkeep"),
        None => account.home.join(".cache/podkeep/replay"),
    }
}

/// What this host has that definitions may clash with.
fn host_facts(
    podman: &Podman,
    info: &StoreInfo,
) -> Result<(HostFacts, BTreeMap<String, PodDefinition>), HostError> {
    let mut facts = HostFacts::read();
    if let Some(user) = podman.rootless_ids() {
        facts = facts.of_user(user);
    }
    let home = podman.variable("HOME").filter(|_| podman.is_rootless());
    facts.jobs = jobs(Path::new("/"), home.map(Path::new));
    facts.version = Version::parse(&info.version);
    facts.runtime = podman.default_runtime()?;
    let state = read_state(podman, info)?;
    let runs = |status: &str| matches!(status, "running" | "paused" | "stopping");
    facts.containers = state
        .containers
        .iter()
        .map(|one| (one.name.clone(), runs(&one.status)))
        .collect();
    let configs = state.containers.iter().map(|one| &one.config);
    facts.taken_ids = configs.flat_map(userns::taken).collect();
    facts.configs = state
        .containers
        .iter()
        .map(|one| (one.name.clone(), one.config.clone()))
        .collect();
    let is_lossy = state.source == ConfigSource::Inspect;
    let (_, pods) = state.definitions();
    let infra = pods
        .iter()
        .filter_map(|pod| Some((pod.name.clone(), pod.infra.clone()?)));
    facts.configs.extend(infra);
    facts.pods = pods
        .iter()
        .map(|pod| (pod.name.clone(), pod.running && !is_lossy))
        .collect();
    facts.networks = list_networks(podman, &info.graph_root)?
        .into_iter()
        .map(|network| (network.name, network.config))
        .collect();
    facts.secrets = list_secrets(&info.graph_root)?
        .into_iter()
        .map(|secret| secret.name)
        .collect();
    let pods = pods.into_iter().map(|pod| (pod.name.clone(), pod));
    Ok((facts, pods.collect()))
}
