//! The systemd units that run containers.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::podman::command::{Podman, PodmanError, Purpose};

use super::LiveContainer;
use super::manager::Manager;

/// A unit may take as long to stop or start as it says itself; by default 90 s.
const UNIT_TIME_MAX: Duration = Duration::from_secs(600);
/// One that is started for the first time may have to wait for much, and says how long.
const FIRST_START_TIME_MAX: Duration = Duration::from_secs(4 * 3600);
/// The label that Podman gives a container which a unit made.
pub const UNIT_LABEL: &str = "PODMAN_SYSTEMD_UNIT";
/// Where a link to /dev/null masks a unit of the system, the folder that counts less first
/// (systemd.unit(5)).
const MASKS: [&str; 2] = ["/etc/systemd/system", "/etc/systemd/system.control"];
/// The same of a user's, below the folder of the user's configuration.
const USER_MASKS: [&str; 2] = ["systemd/user", "systemd/user.control"];
/// Units that go down with another one, as systemd names the relation on its side.
const DEPENDENTS: [&str; 3] = ["RequiredBy", "BoundBy", "ConsistsOf"];

/// A unit that runs a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub unit: String,
    /// The container goes when the unit stops, and another one comes when it starts.
    pub makes_anew: bool,
}

/// The units of the systemd that runs containers of a podman: the host's own, or the user's. Which unit
/// has which main process is asked once.
#[derive(Clone, Debug)]
pub struct Units {
    manager: Manager,
    /// In whose name masks are made.
    podman: Podman,
    masks: [PathBuf; 2],
    by_main: OnceLock<HashMap<u32, String>>,
}

impl Units {
    /// `None`: that systemd does not run.
    pub fn find(podman: &Podman) -> Option<Self> {
        let manager = Manager::of_containers(podman)?;
        let masks = match podman.is_rootless() {
            false => MASKS.map(PathBuf::from),
            true => {
                let folder = podman.config_folder()?;
                USER_MASKS.map(|below| folder.join(below))
            }
        };
        Some(Self {
            manager,
            podman: podman.clone(),
            masks,
            by_main: OnceLock::new(),
        })
    }

    /// For what systemctl does with files alone, also where no systemd runs (a chroot, a rescue system).
    /// `None`: a user's, which needs the user's systemd.
    pub fn of_files(podman: &Podman) -> Option<Self> {
        Some(Self {
            manager: Manager::of_files(podman)?,
            podman: podman.clone(),
            masks: MASKS.map(PathBuf::from),
            by_main: OnceLock::new(),
        })
    }

    /// Whether a unit that made this container can be asked here: a user's container may run in a unit
    /// of the system, which is nothing to the user's systemd.
    pub fn can_ask_about(&self, container: &LiveContainer) -> bool {
        let cgroups = cgroups_of_process(container.conmon_pid);
        !self.podman.is_rootless() || cgroups.is_none_or(|cgroups| is_of_user_manager(&cgroups))
    }

    /// The unit that stops and starts the container with itself: its main process is the one that
    /// watches over the container; or over the one that stands for all of a pod which `podman kube play`
    /// makes anew with each start.
    pub fn owner(&self, container: &LiveContainer) -> Result<Option<Owner>, PodmanError> {
        let pid = container.conmon_pid;
        if pid == 0 {
            return Ok(None);
        }
        let Some(unit) = unit_of_process(pid).or_else(|| container.labels.get(UNIT_LABEL).cloned())
        else {
            // A unit that starts a container which is there follows it by a PID file: Podman puts what
            // watches over the container into a scope.
            let unit = self.by_main()?.get(&pid).cloned();
            return Ok(unit.map(|unit| Owner {
                unit,
                makes_anew: false,
            }));
        };
        let shown = self.show(&unit, "MainPID")?;
        let main = shown.get("MainPID").and_then(|pid| pid.parse::<u32>().ok());
        let is_main = main == Some(pid);
        let is_made = container.labels.get(UNIT_LABEL) == Some(&unit);
        let makes_anew = !is_main && is_made && main.is_some_and(watches_over_a_container);
        Ok((is_main || makes_anew).then_some(Owner { unit, makes_anew }))
    }

    fn by_main(&self) -> Result<&HashMap<u32, String>, PodmanError> {
        if let Some(known) = self.by_main.get() {
            return Ok(known);
        }
        let purpose = Purpose {
            action: "list",
            object: "the services of systemd",
        };
        let arguments = ["show", "--type=service", "--property=Id,MainPID", "--", "*"];
        let found = main_processes(&self.manager.run(purpose, &arguments)?);
        Ok(self.by_main.get_or_init(|| found))
    }

    /// Active units that stop when this one is stopped, and do not start by themselves when it is
    /// started.
    pub fn dependents(&self, unit: &str) -> Result<Vec<String>, PodmanError> {
        let mut open = vec![unit.to_owned()];
        let mut found: Vec<String> = Vec::new();
        while let Some(unit) = open.pop() {
            let shown = self.show(&unit, &DEPENDENTS.join(","))?;
            for name in shown.values().flat_map(|names| names.split_whitespace()) {
                let is_new = !found.iter().any(|other| other == name);
                // Targets are goals of the boot: they stay reached when a unit is started again.
                if is_new && !name.ends_with(".target") && self.is_active(name)? {
                    found.push(name.to_owned());
                    open.push(name.to_owned());
                }
            }
        }
        found.retain(|other| other != unit);
        Ok(found)
    }

    pub fn is_active(&self, unit: &str) -> Result<bool, PodmanError> {
        let shown = self.show(unit, "ActiveState")?;
        let state = shown.get("ActiveState").map(String::as_str);
        Ok(matches!(state, Some("active" | "reloading" | "activating")))
    }

    pub fn stop(&self, unit: &str) -> Result<(), PodmanError> {
        self.must("stop", unit)
    }

    pub fn start(&self, unit: &str) -> Result<(), PodmanError> {
        self.must("start", unit)
    }

    /// The same for a unit that has not run here before; systemd bounds how long that takes.
    pub fn start_first(&self, unit: &str) -> Result<(), PodmanError> {
        self.must_within("start", unit, FIRST_START_TIME_MAX)
    }

    pub fn is_masked(&self, unit: &str) -> bool {
        is_masked(&self.masks, unit)
    }

    /// Keeps units from starting, also after the next boot. Done twice, it is the same.
    pub fn mask(&self, units: &[String]) -> Result<(), PodmanError> {
        self.change_masks("mask", units, mask)
    }

    /// Takes that back.
    pub fn unmask(&self, units: &[String]) -> Result<(), PodmanError> {
        self.change_masks("unmask", units, unmask)
    }

    fn change_masks(
        &self,
        action: &'static str,
        units: &[String],
        change: fn(&[PathBuf], &str) -> std::io::Result<()>,
    ) -> Result<(), PodmanError> {
        for unit in units {
            let purpose = Purpose {
                action,
                object: unit,
            };
            let changed = self.podman.in_its_name(|| change(&self.masks, unit));
            changed.map_err(|error| purpose.error(error))?;
        }
        self.reload(units)
    }

    /// Tells systemd that files of units changed.
    pub fn reload(&self, units: &[String]) -> Result<(), PodmanError> {
        let purpose = Purpose {
            action: "reload",
            object: "the units of systemd",
        };
        match units.is_empty() {
            true => Ok(()),
            false => self
                .manager
                .run_within(purpose, &["daemon-reload"], UNIT_TIME_MAX),
        }
    }

    pub fn enable(&self, unit: &str) -> Result<(), PodmanError> {
        self.must("enable", unit)
    }

    pub fn disable(&self, unit: &str) -> Result<(), PodmanError> {
        self.must("disable", unit)
    }

    fn must(&self, verb: &'static str, unit: &str) -> Result<(), PodmanError> {
        self.must_within(verb, unit, UNIT_TIME_MAX)
    }

    fn must_within(
        &self,
        verb: &'static str,
        unit: &str,
        time: Duration,
    ) -> Result<(), PodmanError> {
        let object = format!("unit {unit}");
        let purpose = Purpose {
            action: verb,
            object: &object,
        };
        let arguments = [verb, "--", unit];
        self.manager.run_within(purpose, &arguments, time)
    }

    fn show(&self, unit: &str, properties: &str) -> Result<BTreeMap<String, String>, PodmanError> {
        let object = format!("unit {unit}");
        let purpose = Purpose {
            action: "look at",
            object: &object,
        };
        let arguments = ["show", "--property", properties, "--", unit];
        Ok(properties_of(&self.manager.run(purpose, &arguments)?))
    }
}

/// `systemctl mask` does not replace a file, so that a unit which lies among the administrator's own is
/// masked in the folder that counts more than theirs.
fn mask(folders: &[PathBuf], unit: &str) -> std::io::Result<()> {
    if is_masked(folders, unit) {
        return Ok(());
    }
    let free = |folder: &&PathBuf| folder.join(unit).symlink_metadata().is_err();
    let folder = folders.iter().find(free);
    let folder = folder.ok_or_else(|| std::io::Error::other("it is there already"))?;
    std::fs::create_dir_all(folder)?;
    std::os::unix::fs::symlink("/dev/null", folder.join(unit))?;
    std::fs::File::open(folder)?.sync_all()
}

fn unmask(folders: &[PathBuf], unit: &str) -> std::io::Result<()> {
    for folder in folders {
        let path = folder.join(unit);
        if is_mask(&path) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn is_masked(folders: &[PathBuf], unit: &str) -> bool {
    folders.iter().any(|folder| is_mask(&folder.join(unit)))
}

fn is_mask(path: &Path) -> bool {
    std::fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

fn properties_of(shown: &str) -> BTreeMap<String, String> {
    shown
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Units by their main process, from blocks of properties with an empty line between two.
fn main_processes(shown: &str) -> HashMap<u32, String> {
    let of_block = |block: &str| {
        let mut properties = properties_of(block);
        let main = properties
            .get("MainPID")?
            .parse()
            .ok()
            .filter(|pid| *pid != 0)?;
        Some((main, properties.remove("Id")?))
    };
    shown.split("\n\n").filter_map(of_block).collect()
}

/// The service in whose cgroup a process is.
fn unit_of_process(pid: u32) -> Option<String> {
    unit_of_cgroup(&cgroups_of_process(pid)?)
}

fn watches_over_a_container(pid: u32) -> bool {
    let name = std::fs::read(format!("/proc/{pid}/comm"));
    pid != 0 && name.is_ok_and(|name| name == b"conmon\n")
}

fn cgroups_of_process(pid: u32) -> Option<String> {
    match pid {
        0 => None,
        pid => std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok(),
    }
}

/// A path of cgroups below a user's systemd, or of no service at all.
fn is_of_user_manager(cgroups: &str) -> bool {
    let Some(path) = cgroup_path(cgroups) else {
        return true;
    };
    let mut parts = path.split('/').filter(|part| part.ends_with(".service"));
    parts.next().is_none_or(|first| first.starts_with("user@"))
}

/// `0::/...` is cgroup v2, `N:name=systemd:/...` is v1.
fn cgroup_path(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| {
        line.strip_prefix("0::")
            .or_else(|| Some(line.split_once(":name=systemd:")?.1))
    })
}

fn unit_of_cgroup(cgroups: &str) -> Option<String> {
    let unit = cgroup_path(cgroups)?
        .split('/')
        .rfind(|part| part.ends_with(".service") || part.ends_with(".scope"))?;
    unit.ends_with(".service").then(|| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{
        is_mask, is_of_user_manager, main_processes, mask, properties_of, unit_of_cgroup, unmask,
    };

    #[test]
    fn the_unit_of_a_process_is_the_innermost_service() {
        for (cgroups, expected) in [
            ("0::/system.slice/web.service\n", Some("web.service")),
            (
                "0::/system.slice/web.service/libpod-payload-12\n",
                Some("web.service"),
            ),
            ("0::/machine.slice/libpod-conmon-12.scope\n", None),
            (
                "3:cpu:/x.service\n1:name=systemd:/system.slice/a.service\n",
                Some("a.service"),
            ),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("", None),
        ] {
            assert_eq!(unit_of_cgroup(cgroups).as_deref(), expected, "{cgroups}");
        }
    }

    #[test]
    fn a_user_s_systemd_knows_nothing_of_the_system_s_units() {
        for (cgroups, expected) in [
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n",
                true,
            ),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", true),
            ("0::/system.slice/of-user.service\n", false),
            ("", true),
        ] {
            assert_eq!(is_of_user_manager(cgroups), expected, "{cgroups}");
        }
    }

    #[test]
    fn a_unit_of_the_administrator_s_own_is_masked_and_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("etc/systemd/system");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("web.service"), "x").unwrap();
        let control = root.path().join("etc/systemd/system.control");
        let folders = [own.clone(), control.clone()];
        for unit in ["web.service", "quadlet.service"] {
            mask(&folders, unit).unwrap();
            mask(&folders, unit).unwrap();
        }
        assert!(is_mask(&control.join("web.service")));
        assert!(is_mask(&own.join("quadlet.service")));
        assert!(!control.join("quadlet.service").exists());
        unmask(&folders, "web.service").unwrap();
        unmask(&folders, "quadlet.service").unwrap();
        assert_eq!(std::fs::read(own.join("web.service")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(&control).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(&own).unwrap().count(), 1);
    }

    #[test]
    fn units_are_found_by_their_main_process() {
        let shown =
            "MainPID=12\nId=a.service\n\nId=b.service\nMainPID=0\n\nMainPID=7\nId=c.service\n";
        let found = main_processes(shown);
        assert_eq!(found.len(), 2);
        assert_eq!((&*found[&12], &*found[&7]), ("a.service", "c.service"));
        assert!(main_processes("").is_empty());
    }

    #[test]
    fn properties_are_lines() {
        let shown = properties_of("MainPID=12\nRequiredBy=\nBoundBy=a.service b.service\n");
        assert_eq!(shown["MainPID"], "12");
        assert_eq!(shown["RequiredBy"], "");
        assert_eq!(shown["BoundBy"], "a.service b.service");
    }
}
