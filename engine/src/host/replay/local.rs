//! Making definitions again in the Podman of the host that this process runs on.

mod namespaces;
mod plan;
mod prove;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podkeep_format::item::{Item, ItemKind};

use super::fit::{Definitions, Names};
use super::{Proof, Replay, ReplayOptions};
use crate::fs::owners::Owners;
use crate::host::HostError;
use crate::host::lock::make_private;
use crate::monitor::{Finding, FindingKind};
use crate::podman::replay::{
    Choices, ContainerRequest, HostFacts, Maker, PodContext, Seccomp, Service, container_request,
    pod_request, restart_policy, same_network, seccomp_of, takes_restart_policy, write_profile,
};
use crate::podman::{
    ContainerDefinition, PodDefinition, Podman, SecretDefinition, StoreInfo, UnitDefinition,
    UnitKind, Units, inspect_image,
};

/// How often a health check's state is looked at.
const HEALTH_PAUSE: Duration = Duration::from_millis(200);

/// Definitions that are being made here.
pub(in crate::host) struct LocalReplay {
    podman: Podman,
    info: StoreInfo,
    /// Only for us: a socket and profiles lie below it.
    folder: PathBuf,
    options: ReplayOptions,
    facts: HostFacts,
    /// Pods that are there already: a container may come back into one.
    pods: BTreeMap<String, PodDefinition>,
    /// As they are to be made, by the name that they had.
    definitions: Definitions,
    /// As they were stored.
    stored: Definitions,
    names: Names,
    secrets: BTreeMap<String, SecretDefinition>,
    units: BTreeMap<String, UnitDefinition>,
    anonymous: BTreeSet<String>,
    /// Containers that a unit makes: not made here.
    by_unit: BTreeSet<String>,
    pods_by_unit: BTreeSet<String>,
    /// Of Podman's namespace.
    owners: Arc<Owners>,
    /// The user lingers once something is started.
    lingers: bool,
    /// Of another architecture: not started.
    foreign: BTreeSet<String>,
    order: Vec<String>,
    /// Started with the first container or pod.
    maker: Option<Maker>,
    /// New IDs by old ones, and new names by old ones.
    renamed: BTreeMap<String, String>,
    interfaces: BTreeSet<String>,
    made: BTreeSet<Item>,
}

fn read<D>(item: &Item, decoded: Result<D, String>) -> Result<D, HostError> {
    decoded.map_err(|cause| HostError::Podman {
        action: "read the definition of",
        object: item.to_string(),
        cause,
    })
}

fn note(object: impl Into<String>, kind: FindingKind, message: impl Into<String>) -> Finding {
    Finding {
        object: object.into(),
        kind,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: message.into(),
    }
}

impl LocalReplay {
    fn maker(&mut self) -> Result<&Maker, HostError> {
        // One that nobody asked for a while has ended.
        if self
            .maker
            .as_mut()
            .is_some_and(|maker| !maker.service.runs())
        {
            self.maker = None;
        }
        if self.maker.is_none() {
            let made = self.podman.in_its_name(|| make_private(&self.folder));
            made.map_err(|error| HostError::Podman {
                action: "make",
                object: self.folder.display().to_string(),
                cause: error.to_string(),
            })?;
            let service = Service::start(&self.podman, &self.folder, &self.info.version)?;
            self.maker = Some(Maker {
                podman: self.podman.clone(),
                service,
                version: self.facts.version,
                graph_root: self.info.graph_root.clone(),
            });
        }
        match &self.maker {
            Some(maker) => Ok(maker),
            None => Err(HostError::Podman {
                action: "start",
                object: "Podman's API service".into(),
                cause: "it is gone".into(),
            }),
        }
    }

    fn choices(&self) -> Choices {
        Choices {
            pin_ports: self.options.pin_ports,
            drop_static: self.options.drop_static,
            new_hostname: self.options.new_hostname,
            without_restart: false,
        }
    }

    fn network(&mut self, name: &str) -> Result<(), HostError> {
        let Some(network) = self.definitions.networks.get(name).cloned() else {
            return Ok(());
        };
        let new = self.names.networks[name].clone();
        match self.facts.networks.get(&new) {
            Some(there) if same_network(&network.config, there) => return Ok(()),
            Some(_) => {
                // What is in it is replaced, too, and goes before it.
                let users: Vec<String> = self.facts.users_of(&new).cloned().collect();
                for user in users {
                    if self.facts.pods.remove(&user).is_some() {
                        self.maker()?.remove("pod", &user)?;
                    } else if self.facts.containers.remove(&user).is_some() {
                        self.maker()?.remove("container", &user)?;
                    }
                }
                self.maker()?.remove("network", &new)?;
            }
            None => {}
        }
        let wanted = network
            .config
            .get("network_interface")
            .and_then(|v| v.as_str());
        let wanted = wanted.unwrap_or_default().to_owned();
        let by_others =
            self.facts.networks.values().any(|other| {
                other.get("network_interface").and_then(|v| v.as_str()) == Some(&wanted)
            });
        let is_free = !by_others
            && !self.facts.interfaces.contains(&wanted)
            && !self.interfaces.contains(&wanted);
        let is_bridge = network.config.get("driver").and_then(|v| v.as_str()) == Some("bridge");
        let interface = match is_free || !is_bridge {
            true => wanted,
            false => self.facts.free_interface(&self.interfaces),
        };
        self.interfaces.insert(interface.clone());
        let interface = (!interface.is_empty()).then_some(interface);
        self.maker()?
            .network(&network, &new, interface.as_deref())?;
        Ok(())
    }

    fn secret(&mut self, name: &str) -> Result<(), HostError> {
        let Some(secret) = self.secrets.get(name).cloned() else {
            return Ok(());
        };
        if self.facts.secrets.contains(name) {
            self.maker()?.remove("secret", name)?;
        }
        Ok(self.maker()?.secret(&secret, name)?)
    }

    fn pod(&mut self, name: &str) -> Result<(), HostError> {
        let Some(pod) = self.definitions.pods.get(name).cloned() else {
            return Ok(());
        };
        let new = self.names.pods[name].clone();
        if self.facts.pods.contains_key(&new) {
            self.maker()?.remove("pod", &new)?;
        }
        let choices = self.choices();
        let profile = self.profile(pod.infra.as_ref(), &new)?;
        let volumes = BTreeMap::new();
        let infra = pod.infra.as_ref().map(|config| ContainerRequest {
            config,
            name: "",
            image: "",
            pod: None,
            names: &self.renamed,
            volumes: &volumes,
            anonymous: &self.anonymous,
            seccomp_profile: profile.as_deref(),
            choices: &choices,
            runtime: None,
            target: self.facts.version,
            user: self.facts.user,
        });
        let body = pod_request(&pod.config, &new, infra.as_ref(), &choices);
        let id = self.maker()?.pod(&new, &body)?;
        self.renamed.insert(pod.id.clone(), id);
        if !pod.infra_id.is_empty() {
            let infra = self.maker()?.infra_of(&new)?;
            self.renamed.insert(pod.infra_id, infra);
        }
        Ok(())
    }

    /// The profile of a container's system calls, as a file for the time of the request.
    fn profile(
        &self,
        config: Option<&serde_json::Map<String, serde_json::Value>>,
        name: &str,
    ) -> Result<Option<PathBuf>, HostError> {
        let Some(Seccomp::Own { filter, .. }) = config.map(seccomp_of) else {
            return Ok(None);
        };
        let written = self.podman.in_its_name(|| {
            make_private(&self.folder)?;
            write_profile(&self.folder, name, filter)
        });
        written.map(Some).map_err(|error| HostError::Podman {
            action: "write the seccomp profile of",
            object: name.to_owned(),
            cause: error.to_string(),
        })
    }

    fn container(&mut self, name: &str) -> Result<(), HostError> {
        let Some(container) = self.definitions.containers.get(name).cloned() else {
            return Ok(());
        };
        let new = self.names.containers[name].clone();
        if self.facts.containers.contains_key(&new) {
            self.maker()?.remove("container", &new)?;
        }
        let choices = Choices {
            without_restart: takes_restart_policy(self.facts.version, &container.config),
            ..self.choices()
        };
        let profile = self.profile(Some(&container.config), &new)?;
        let image = self.image_of(&container);
        // Containers are named by their ID, or by the name that somebody gave.
        let mut names: BTreeMap<String, String> = self.names.containers.clone();
        for (id, old) in &container.names {
            let new = self.names.containers.get(old).unwrap_or(old);
            names.insert(id.clone(), new.clone());
        }
        let stored_pod = container
            .pod
            .as_ref()
            .and_then(|pod| self.definitions.pods.get(pod).or(self.pods.get(pod)));
        let pod_name = container.pod.as_ref().map(|pod| {
            self.names
                .pods
                .get(pod)
                .cloned()
                .unwrap_or_else(|| pod.clone())
        });
        let runtime = container.config.get("runtime").and_then(|v| v.as_str());
        let runtime = runtime.filter(|runtime| {
            !runtime.is_empty() && *runtime != self.facts.runtime && self.facts.has_runtime(runtime)
        });
        let volumes = BTreeMap::new();
        let body = container_request(&ContainerRequest {
            config: &container.config,
            name: &new,
            image: &image,
            pod: pod_name.as_deref().map(|name| PodContext {
                name,
                infra: stored_pod.and_then(|pod| pod.infra.as_ref()),
                has_restart_policy: stored_pod
                    .is_some_and(|pod| pod.config.get("RestartPolicy").is_some()),
            }),
            names: &names,
            volumes: &volumes,
            anonymous: &self.anonymous,
            seccomp_profile: profile.as_deref(),
            choices: &choices,
            runtime,
            target: self.facts.version,
            user: self.facts.user,
        });
        let made = self.maker()?.container(&new, &body);
        if let Some(profile) = profile {
            // What Podman made of it is stored with the container.
            let _ = std::fs::remove_file(profile);
        }
        self.renamed.insert(container.id.clone(), made?);
        Ok(())
    }

    /// By its name where that still means the same image, else by its ID.
    fn image_of(&self, container: &ContainerDefinition) -> String {
        let name = container
            .config
            .get("rootfsImageName")
            .and_then(|v| v.as_str());
        let name = name.unwrap_or_default();
        let same = !name.is_empty()
            && inspect_image(&self.podman, name).is_ok_and(|image| image.id == container.image_id);
        match same {
            true => name.to_owned(),
            false => container.image_id.clone(),
        }
    }

    fn wait_for_health(&mut self, name: &str, max: Duration) -> Result<String, HostError> {
        let deadline = Instant::now() + max;
        loop {
            let (state, health) = self.maker()?.state(name)?;
            if state != "running" || health != "starting" || Instant::now() >= deadline {
                return Ok(health);
            }
            std::thread::sleep(HEALTH_PAUSE);
        }
    }

    /// Starts the infra containers of pods that ran and of which no container did: the others come with
    /// their containers.
    fn start_infra(&mut self, findings: &mut Vec<Finding>) -> Result<(), HostError> {
        let containers = self.definitions.containers.values();
        let begun: BTreeSet<String> = containers
            .filter(|one| matches!(one.status.as_str(), "running" | "paused" | "stopping"))
            .filter_map(|one| one.pod.clone())
            .collect();
        let pods = self.definitions.pods.iter();
        let left = pods.filter(|(name, pod)| {
            let is_made = self
                .made
                .contains(&Item::new(ItemKind::Pod, name.as_bytes()));
            pod.running && is_made && !begun.contains(*name)
        });
        let left: Vec<(String, String)> = left
            .filter_map(|(name, pod)| {
                Some((name.clone(), self.renamed.get(&pod.infra_id)?.clone()))
            })
            .collect();
        for (name, infra) in left {
            if let Err(error) = self.maker()?.run("start", &infra) {
                let object = format!("pod:{name}");
                findings.push(note(object, FindingKind::NotRestored, error.to_string()));
            }
        }
        Ok(())
    }

    /// Whether it was started.
    fn start_one(&mut self, name: &str, findings: &mut Vec<Finding>) -> Result<bool, HostError> {
        let container = &self.definitions.containers[name];
        let ran = matches!(container.status.as_str(), "running" | "paused" | "stopping");
        let is_foreign = self.foreign.contains(name) && !self.options.start_foreign;
        if !ran || is_foreign {
            return Ok(false);
        }
        let new = self.names.containers[name].clone();
        if let Err(error) = self.maker()?.run("start", &new) {
            let object = format!("container:{name}");
            findings.push(note(object, FindingKind::NotRestored, error.to_string()));
            return Ok(false);
        }
        Ok(true)
    }

    /// Waits until one that was started is healthy, and pauses what was paused.
    fn look_after(
        &mut self,
        name: &str,
        health_max: Duration,
        findings: &mut Vec<Finding>,
    ) -> Result<(), HostError> {
        let container = &self.definitions.containers[name];
        let (status, object) = (container.status.clone(), format!("container:{name}"));
        let has_check = container
            .config
            .get("healthcheck")
            .is_some_and(|check| !check.is_null());
        let new = self.names.containers[name].clone();
        if has_check {
            let message = match self.wait_for_health(&new, health_max)?.as_str() {
                "starting" => format!("it is not healthy after {} s", health_max.as_secs()),
                "unhealthy" => "it runs and is unhealthy".to_owned(),
                _ => String::new(),
            };
            if !message.is_empty() {
                findings.push(note(object.clone(), FindingKind::NotRestored, message));
            }
        }
        if status == "paused"
            && let Err(error) = self.maker()?.run("pause", &new)
        {
            findings.push(note(object, FindingKind::NotRestored, error.to_string()));
        }
        Ok(())
    }
}

impl Replay for LocalReplay {
    fn waits(&self) -> bool {
        let containers = self.definitions.containers.values();
        containers.into_iter().all(|one| {
            let (policy, _) = restart_policy(&one.config);
            policy == "no" || takes_restart_policy(self.facts.version, &one.config)
        })
    }

    fn make(&mut self, item: &Item) -> Result<(), HostError> {
        let name = String::from_utf8_lossy(&item.name).into_owned();
        match item.kind {
            ItemKind::Network => self.network(&name)?,
            ItemKind::Secret => self.secret(&name)?,
            ItemKind::Pod => self.pod(&name)?,
            ItemKind::Container => self.container(&name)?,
            _ => {}
        }
        self.made.insert(item.clone());
        Ok(())
    }

    fn settle(&mut self) -> Result<Vec<Finding>, HostError> {
        let mut findings = Vec::new();
        for name in self.order.clone() {
            let config = &self.definitions.containers[&name].config;
            let (policy, retries) = restart_policy(config);
            let is_made = self
                .made
                .contains(&Item::new(ItemKind::Container, name.as_bytes()));
            // Where it cannot be set now, it was asked for when the container was made.
            if policy == "no" || !is_made || !takes_restart_policy(self.facts.version, config) {
                continue;
            }
            let new = self.names.containers[&name].clone();
            if let Err(error) = self.maker()?.restart_policy(&new, &policy, retries) {
                findings.push(note(
                    format!("container:{name}"),
                    FindingKind::NotRestored,
                    error.to_string(),
                ));
            }
        }
        let services = self.units.values().map(|unit| unit.service.clone());
        let services: Vec<String> = services.collect();
        if services.is_empty() {
            return Ok(findings);
        }
        let running = Units::find(&self.podman);
        match &running {
            Some(systemd) => {
                if let Err(error) = systemd.reload(&services) {
                    findings.push(note("units", FindingKind::Note, error.to_string()));
                }
            }
            None => {
                let message =
                    "systemd does not run here: their files are there, and nothing starts them";
                findings.push(note("units", FindingKind::Note, message));
            }
        }
        let systemd = running.or_else(|| Units::of_files(&self.podman));
        let enabled = self.units.values();
        let enabled =
            enabled.filter(|one| one.kind == UnitKind::Systemd && one.enabled == "enabled");
        for unit in enabled {
            let enabled = match &systemd {
                Some(systemd) => systemd
                    .enable(&unit.service)
                    .map_err(|error| error.to_string()),
                None => Err("it is not enabled: its user's systemd does not run".into()),
            };
            if let Err(cause) = enabled {
                let object = format!("unit:{}", unit.name);
                findings.push(note(object, FindingKind::NotRestored, cause));
            }
        }
        Ok(findings)
    }

    fn start(
        &mut self,
        health_max: Duration,
    ) -> Result<(Vec<Finding>, Option<Instant>), HostError> {
        let mut findings = Vec::new();
        if self.lingers
            && let Some(account) = self.podman.passing_user()?
        {
            account.enable_linger()?;
            let message = "lingers from now on: what runs goes on without a session";
            let object = format!("user {}", account.name);
            findings.push(note(object, FindingKind::Note, message));
        }
        self.start_infra(&mut findings)?;
        let mut last = None;
        let mut started = Vec::new();
        for name in self.order.clone() {
            let item = Item::new(ItemKind::Container, name.as_bytes());
            if self.made.contains(&item) && self.start_one(&name, &mut findings)? {
                last = Some(Instant::now());
                started.push(name);
            }
        }
        let active = self.units.values().filter(|unit| unit.active == "active");
        let systemd = Units::find(&self.podman);
        for unit in active {
            let started = match &systemd {
                Some(systemd) => systemd
                    .start_first(&unit.service)
                    .map_err(|error| error.to_string()),
                None => Err("it is not started: systemd does not run here".into()),
            };
            match started {
                Ok(()) => last = Some(Instant::now()),
                Err(cause) => {
                    let object = format!("unit:{}", unit.name);
                    findings.push(note(object, FindingKind::NotRestored, cause));
                }
            }
        }
        // Only now: one may be healthy when another runs, and nobody waits for either meanwhile.
        for name in started {
            self.look_after(&name, health_max, &mut findings)?;
        }
        Ok((findings, last))
    }

    fn prove(&mut self) -> Result<Vec<Proof>, HostError> {
        self.prove_all()
    }
}
