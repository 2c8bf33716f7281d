//! What a migration does with whole containers: whether they run, that they do not come back by
//! themselves, that what was made for them goes again.

use std::path::{Path, PathBuf};

use podkeep_format::item::{Item, ItemKind};
use serde::{Deserialize, Serialize};

use super::HostError;
use super::local::LocalHost;
use crate::fs::scan::{Measured, measure};
use crate::podman::replay::{RESTART_UPDATE_SINCE, Version, jobs};
use crate::podman::{Podman, Units, keep, live_containers};

/// What a host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub driver: String,
    pub podman: String,
    pub rootful: bool,
    /// A restart policy can be changed.
    pub updates_restart: bool,
}

/// A container that is kept from coming back, and how that is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    pub container: String,
    /// What it had.
    pub policy: Option<String>,
    /// Its Podman cannot change the policy: the container was removed, its snapshot holds it.
    pub removed: bool,
    /// It is removed because its Podman would do so when it stops (--rm). It is paused until then.
    #[serde(default)]
    pub vanishes: bool,
}

/// A unit of systemd that is kept from running containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldUnit {
    /// "web.service"
    pub service: String,
    /// It was active, and is to be so when it is let go.
    pub active: bool,
    /// Somebody masked it before, and it is to stay so.
    #[serde(default)]
    pub masked: bool,
}

/// The Podman of a host, seen as a keeper of containers.
pub trait Keep: Send + Sync {
    fn about(&self) -> Result<About, HostError>;

    /// Those of `containers` (names) that run or are paused.
    fn at_work(&self, containers: &[String]) -> Result<Vec<String>, HostError>;

    /// Those of `containers` (names) that run and are not paused.
    fn awake(&self, containers: &[String]) -> Result<Vec<String>, HostError>;

    /// Returns when they are stopped; those that are gone are stopped.
    fn stop(&self, containers: &[String]) -> Result<(), HostError>;

    /// Those that are paused go on.
    fn start(&self, containers: &[String]) -> Result<(), HostError>;

    /// Containers that run in a unit, by name, and that unit.
    fn in_units(&self, containers: &[String]) -> Result<Vec<(String, String)>, HostError>;

    /// What holding a unit back would change.
    fn would_hold_back_unit(&self, service: &str) -> Result<HeldUnit, HostError>;

    /// Stops units and masks them, also for the next boot. Done twice, it is the same.
    fn hold_back_units(&self, units: &[HeldUnit]) -> Result<(), HostError>;

    /// Takes that back; nothing is started.
    fn let_go_units(&self, units: &[HeldUnit]) -> Result<(), HostError>;

    /// Starts those that were active.
    fn start_units(&self, units: &[HeldUnit]) -> Result<(), HostError>;

    /// Stops units that a restore made, and removes their files (absolute paths).
    fn remove_units(&self, units: &[HeldUnit], files: &[String]) -> Result<(), HostError>;

    /// What holding a container back would change.
    fn would_hold_back(&self, container: &str) -> Result<HeldBack, HostError>;

    /// Keeps a stopped container from coming back at the next boot. Done twice, it is the same.
    fn hold_back(&self, held: &HeldBack) -> Result<(), HostError>;

    /// Takes that back, as far as the container is still there.
    fn let_go(&self, held: &HeldBack) -> Result<(), HostError>;

    /// Removes an item of Podman if it is there; what runs or is in use is refused.
    fn remove(&self, item: &Item) -> Result<(), HostError>;

    /// What the files of a volume amount to now. Nothing, where there is no volume whose files can be
    /// read.
    fn measure(&self, volume: &Item) -> Result<Measured, HostError>;

    /// The folders below which images and volumes go.
    fn places(&self) -> Result<Vec<PathBuf>, HostError>;

    /// Timers and jobs that remove or replace what rests, in words.
    fn jobs(&self) -> Vec<String>;
}

impl LocalHost {
    fn kept(&self) -> Result<&Podman, HostError> {
        self.podman_of(&"containers")
    }
}

impl Keep for LocalHost {
    fn about(&self) -> Result<About, HostError> {
        let info = self.store_info()?;
        Ok(About {
            driver: info.driver.clone(),
            podman: info.version.clone(),
            rootful: !self.kept()?.is_rootless(),
            updates_restart: Version::parse(&info.version).is_at_least(RESTART_UPDATE_SINCE),
        })
    }

    fn at_work(&self, containers: &[String]) -> Result<Vec<String>, HostError> {
        Ok(keep::at_work(self.kept()?, containers)?)
    }

    fn awake(&self, containers: &[String]) -> Result<Vec<String>, HostError> {
        Ok(keep::awake(self.kept()?, containers)?)
    }

    fn in_units(&self, containers: &[String]) -> Result<Vec<(String, String)>, HostError> {
        let podman = self.kept()?;
        let Some(units) = Units::find(podman) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for container in live_containers(podman, containers)? {
            if let Some(owner) = units.owner(&container)? {
                found.push((container.name, owner.unit));
            }
        }
        Ok(found)
    }

    fn would_hold_back_unit(&self, service: &str) -> Result<HeldUnit, HostError> {
        let (active, masked) = match Units::find(self.kept()?) {
            Some(units) => (units.is_active(service)?, units.is_masked(service)),
            None => (false, false),
        };
        Ok(HeldUnit {
            service: service.to_owned(),
            active,
            masked,
        })
    }

    fn hold_back_units(&self, units: &[HeldUnit]) -> Result<(), HostError> {
        let Some(systemd) = Units::find(self.kept()?) else {
            return Ok(());
        };
        let names: Vec<String> = units.iter().map(|unit| unit.service.clone()).collect();
        // What it does when it stops is not known of a masked one.
        for unit in &names {
            if systemd.is_active(unit)? {
                systemd.stop(unit)?;
            }
        }
        Ok(systemd.mask(&names)?)
    }

    fn let_go_units(&self, units: &[HeldUnit]) -> Result<(), HostError> {
        let Some(systemd) = Units::find(self.kept()?) else {
            return Ok(());
        };
        let ours = units.iter().filter(|unit| !unit.masked);
        let names: Vec<String> = ours.map(|unit| unit.service.clone()).collect();
        Ok(systemd.unmask(&names)?)
    }

    fn start_units(&self, units: &[HeldUnit]) -> Result<(), HostError> {
        let Some(systemd) = Units::find(self.kept()?) else {
            return Ok(());
        };
        for unit in units.iter().filter(|unit| unit.active) {
            let masked: Vec<String> = unit
                .masked
                .then(|| unit.service.clone())
                .into_iter()
                .collect();
            // Masked while it ran, it runs on, and would not start.
            systemd.unmask(&masked)?;
            let started = systemd.start(&unit.service);
            systemd.mask(&masked)?;
            started?;
        }
        Ok(())
    }

    fn remove_units(&self, units: &[HeldUnit], files: &[String]) -> Result<(), HostError> {
        let systemd = Units::find(self.kept()?);
        for unit in units {
            let Some(systemd) = &systemd else { break };
            if systemd.is_active(&unit.service)? {
                systemd.stop(&unit.service)?;
            }
            // One without an [Install] section is not enabled, and one that is generated cannot be.
            let _ = systemd.disable(&unit.service);
        }
        for file in files {
            let removed = self.kept()?.in_its_name(|| std::fs::remove_file(file));
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(HostError::Podman {
                        action: "remove",
                        object: file.clone(),
                        cause: error.to_string(),
                    });
                }
                _ => {}
            }
        }
        let names: Vec<String> = units.iter().map(|unit| unit.service.clone()).collect();
        systemd.map_or(Ok(()), |systemd| Ok(systemd.reload(&names)?))
    }

    fn stop(&self, containers: &[String]) -> Result<(), HostError> {
        Ok(keep::stop_all(self.kept()?, containers)?)
    }

    fn start(&self, containers: &[String]) -> Result<(), HostError> {
        Ok(keep::start_all(self.kept()?, containers)?)
    }

    fn would_hold_back(&self, container: &str) -> Result<HeldBack, HostError> {
        let podman = self.kept()?;
        let policy = keep::restart_policy(podman, container)?;
        if keep::is_removed_at_stop(podman, container)? {
            return Ok(HeldBack {
                container: container.to_owned(),
                policy,
                removed: true,
                vanishes: true,
            });
        }
        // Podman refuses it for some containers: the one that it has tells.
        let changes = match &policy {
            Some(same) => {
                self.about()?.updates_restart
                    && keep::set_restart_policy(podman, container, Some(same)).is_ok()
            }
            None => true,
        };
        Ok(HeldBack {
            container: container.to_owned(),
            removed: !changes,
            policy,
            vanishes: false,
        })
    }

    fn hold_back(&self, held: &HeldBack) -> Result<(), HostError> {
        let podman = self.kept()?;
        match (&held.policy, held.removed) {
            _ if held.vanishes => Ok(keep::kill_and_remove(podman, &held.container)?),
            (None, _) => Ok(()),
            (Some(_), true) => Ok(keep::remove(podman, "container", &held.container)?),
            (Some(_), false) => Ok(keep::set_restart_policy(podman, &held.container, None)?),
        }
    }

    fn let_go(&self, held: &HeldBack) -> Result<(), HostError> {
        match (&held.policy, held.removed) {
            (Some(policy), false) => Ok(keep::set_restart_policy(
                self.kept()?,
                &held.container,
                Some(policy),
            )?),
            _ => Ok(()),
        }
    }

    fn remove(&self, item: &Item) -> Result<(), HostError> {
        let kind = match item.kind {
            ItemKind::Container => "container",
            ItemKind::Pod => "pod",
            ItemKind::Volume => "volume",
            ItemKind::Network => "network",
            ItemKind::Secret => "secret",
            _ => return Ok(()),
        };
        let name = String::from_utf8_lossy(&item.name);
        Ok(keep::remove(self.kept()?, kind, &name)?)
    }

    fn measure(&self, volume: &Item) -> Result<Measured, HostError> {
        let readable = self.read_volume(volume)?;
        Ok(readable.data.map(measure).unwrap_or_default())
    }

    fn jobs(&self) -> Vec<String> {
        let podman = self.kept().ok();
        let home = podman.filter(|podman| podman.is_rootless());
        let home = home.and_then(|podman| podman.variable("HOME"));
        jobs(Path::new("/"), home.map(Path::new))
    }

    fn places(&self) -> Result<Vec<PathBuf>, HostError> {
        let info = self.store_info()?;
        let mut places = vec![info.graph_root.clone(), info.volume_path.clone()];
        places.dedup();
        Ok(places)
    }
}
