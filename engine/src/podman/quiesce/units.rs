//! The systemd units that run containers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::podman::command::{Podman, PodmanError, Purpose, failure};

use super::LiveContainer;

/// A unit may take as long to stop or start as it says itself; by default 90 s.
const UNIT_TIME_MAX: Duration = Duration::from_secs(600);
/// Exists where systemd is the init (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// The label that Podman gives a container which a unit made.
pub const UNIT_LABEL: &str = "PODMAN_SYSTEMD_UNIT";
/// Where a link to /dev/null masks a unit, the folder that counts less first (systemd.unit(5)).
const MASKS: [&str; 2] = ["etc/systemd/system", "etc/systemd/system.control"];
/// Units that go down with another one, as systemd names the relation on its side.
const DEPENDENTS: [&str; 3] = ["RequiredBy", "BoundBy", "ConsistsOf"];

/// The host's systemd. Which unit has which main process is asked once.
#[derive(Clone, Debug)]
pub struct Units {
    systemctl: Podman,
    by_main: OnceLock<HashMap<u32, String>>,
}

impl Units {
    /// `None`: systemd does not run here, or has other units than those of this podman's user.
    pub fn find(podman: &Podman) -> Option<Self> {
        if !is_booted() || podman.is_rootless() {
            return None;
        }
        let systemctl = podman.beside("systemctl")?;
        Some(Self {
            systemctl,
            by_main: OnceLock::new(),
        })
    }

    /// The unit whose main process is the one that watches over the container: stopping the unit
    /// stops the container, and starting it starts it.
    pub fn owner(&self, container: &LiveContainer) -> Result<Option<String>, PodmanError> {
        let pid = container.conmon_pid;
        if pid == 0 {
            return Ok(None);
        }
        let Some(unit) = unit_of_process(pid).or_else(|| container.labels.get(UNIT_LABEL).cloned())
        else {
            // A unit that starts a container which is there follows it by a PID file: Podman puts what
            // watches over the container into a scope.
            return Ok(self.by_main()?.get(&pid).cloned());
        };
        let shown = self.show(&unit, "MainPID")?;
        let main = shown.get("MainPID").and_then(|pid| pid.parse::<u32>().ok());
        Ok((main == Some(pid)).then_some(unit))
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
        let shown = self.systemctl.run(purpose, &arguments, b"")?;
        let found = main_processes(&String::from_utf8_lossy(&shown));
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

    pub fn is_masked(&self, unit: &str) -> bool {
        is_masked(Path::new("/"), unit)
    }

    /// Keeps units from starting, also after the next boot. Done twice, it is the same.
    pub fn mask(&self, units: &[String]) -> Result<(), PodmanError> {
        for unit in units {
            let purpose = Purpose {
                action: "mask",
                object: unit,
            };
            let made = mask(Path::new("/"), unit);
            made.map_err(|error| purpose.error(error))?;
        }
        self.reload(units)
    }

    /// Takes that back.
    pub fn unmask(&self, units: &[String]) -> Result<(), PodmanError> {
        for unit in units {
            let purpose = Purpose {
                action: "unmask",
                object: unit,
            };
            unmask(Path::new("/"), unit).map_err(|error| purpose.error(error))?;
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
                .systemctl
                .run(purpose, &["daemon-reload"], b"")
                .map(drop),
        }
    }

    pub fn disable(&self, unit: &str) -> Result<(), PodmanError> {
        self.must("disable", unit)
    }

    fn must(&self, verb: &'static str, unit: &str) -> Result<(), PodmanError> {
        let object = format!("unit {unit}");
        let purpose = Purpose {
            action: verb,
            object: &object,
        };
        let arguments = [verb, "--", unit];
        let ended = self
            .systemctl
            .end_within(purpose, &arguments, b"", UNIT_TIME_MAX)?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(failure(purpose, &ended)),
        }
    }

    fn show(&self, unit: &str, properties: &str) -> Result<BTreeMap<String, String>, PodmanError> {
        let object = format!("unit {unit}");
        let purpose = Purpose {
            action: "look at",
            object: &object,
        };
        let arguments = ["show", "--property", properties, "--", unit];
        let shown = self.systemctl.run(purpose, &arguments, b"")?;
        Ok(properties_of(&String::from_utf8_lossy(&shown)))
    }
}

/// `systemctl mask` does not replace a file, so that a unit which lies among the administrator's own is
/// masked in the folder that counts more than theirs.
fn mask(root: &Path, unit: &str) -> std::io::Result<()> {
    if is_masked(root, unit) {
        return Ok(());
    }
    let free = |folder: &&&str| root.join(folder).join(unit).symlink_metadata().is_err();
    let folder = MASKS.iter().find(free);
    let folder = folder.ok_or_else(|| std::io::Error::other("it is there already"))?;
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink("/dev/null", folder.join(unit))?;
    std::fs::File::open(&folder)?.sync_all()
}

fn unmask(root: &Path, unit: &str) -> std::io::Result<()> {
    for folder in MASKS {
        let path = root.join(folder).join(unit);
        if is_mask(&path) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn is_masked(root: &Path, unit: &str) -> bool {
    let mut places = MASKS.iter().map(|folder| root.join(folder).join(unit));
    places.any(|place| is_mask(&place))
}

fn is_mask(path: &Path) -> bool {
    std::fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// sd_booted(3)
pub(super) fn is_booted() -> bool {
    Path::new(BOOTED).is_dir()
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
    if pid == 0 {
        return None;
    }
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    unit_of_cgroup(&cgroups)
}

fn unit_of_cgroup(cgroups: &str) -> Option<String> {
    // `0::/...` is cgroup v2, `N:name=systemd:/...` is v1.
    let path = cgroups.lines().find_map(|line| {
        line.strip_prefix("0::")
            .or_else(|| Some(line.split_once(":name=systemd:")?.1))
    })?;
    let unit = path
        .split('/')
        .rfind(|part| part.ends_with(".service") || part.ends_with(".scope"))?;
    unit.ends_with(".service").then(|| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{is_mask, main_processes, mask, properties_of, unit_of_cgroup, unmask};

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
    fn a_unit_of_the_administrator_s_own_is_masked_and_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("etc/systemd/system");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("web.service"), "x").unwrap();
        for unit in ["web.service", "quadlet.service"] {
            mask(root.path(), unit).unwrap();
            mask(root.path(), unit).unwrap();
        }
        let control = root.path().join("etc/systemd/system.control");
        assert!(is_mask(&control.join("web.service")));
        assert!(is_mask(&own.join("quadlet.service")));
        assert!(!control.join("quadlet.service").exists());
        unmask(root.path(), "web.service").unwrap();
        unmask(root.path(), "quadlet.service").unwrap();
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
