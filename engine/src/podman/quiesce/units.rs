//! The systemd units that run containers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::podman::command::{Podman, PodmanError, Purpose, failure};

use super::LiveContainer;

/// A unit may take as long to stop or start as it says itself; by default 90 s.
const UNIT_TIME_MAX: Duration = Duration::from_secs(600);
/// Exists where systemd is the init (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// The label that Podman gives a container which a unit made.
pub(super) const UNIT_LABEL: &str = "PODMAN_SYSTEMD_UNIT";
/// Units that go down with another one, as systemd names the relation on its side.
const DEPENDENTS: [&str; 3] = ["RequiredBy", "BoundBy", "ConsistsOf"];

/// The host's systemd.
#[derive(Clone, Debug)]
pub struct Units {
    systemctl: Podman,
}

impl Units {
    /// `None`: systemd does not run here, or has other units than those of this podman's user.
    pub fn find(podman: &Podman) -> Option<Self> {
        if !is_booted() || podman.is_rootless() {
            return None;
        }
        let systemctl = podman.beside("systemctl")?;
        Some(Self { systemctl })
    }

    /// The unit whose main process is the one that watches over the container: stopping the unit
    /// stops the container, and starting it starts it.
    pub fn owner(&self, container: &LiveContainer) -> Result<Option<String>, PodmanError> {
        let Some(unit) = unit_of_process(container.conmon_pid)
            .or_else(|| container.labels.get(UNIT_LABEL).cloned())
        else {
            return Ok(None);
        };
        let shown = self.show(&unit, "MainPID")?;
        let main = shown.get("MainPID").and_then(|pid| pid.parse::<u32>().ok());
        let owns = container.conmon_pid != 0 && main == Some(container.conmon_pid);
        Ok(owns.then_some(unit))
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
    use super::{properties_of, unit_of_cgroup};

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
    fn properties_are_lines() {
        let shown = properties_of("MainPID=12\nRequiredBy=\nBoundBy=a.service b.service\n");
        assert_eq!(shown["MainPID"], "12");
        assert_eq!(shown["RequiredBy"], "");
        assert_eq!(shown["BoundBy"], "a.service b.service");
    }
}
