//! The systemd that has the units of a Podman: the host's own, or that of a user.

use std::path::PathBuf;
use std::time::Duration;

use crate::podman::account::is_booted;
use crate::podman::command::{Ended, Podman, PodmanError, Purpose, failure};

/// Below a user's runtime folder, where the user's systemd runs.
const OF_USER: &str = "systemd/private";

const SYSTEM: &str = "--system";
const USER: &str = "--user";

/// One systemd, asked by way of systemctl.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    pub systemctl: Podman,
    /// What chooses it.
    pub scope: &'static str,
}

impl Manager {
    /// The one whose units run containers of this podman. `None`: it does not run.
    pub fn of_containers(podman: &Podman) -> Option<Self> {
        if !is_booted() {
            return None;
        }
        let scope = match podman.is_rootless() {
            false => SYSTEM,
            true => {
                let runtime = PathBuf::from(podman.variable("XDG_RUNTIME_DIR")?);
                runtime.join(OF_USER).exists().then_some(USER)?
            }
        };
        let manager = Self {
            systemctl: podman.relative("systemctl")?,
            scope,
        };
        (scope == SYSTEM || manager.answers()).then_some(manager)
    }

    /// From inside a user namespace the bus knows the caller by another id than the caller says; systemd
    /// says none since version 248.
    fn answers(&self) -> bool {
        let purpose = Purpose {
            action: "ask",
            object: "the user's systemd",
        };
        self.run(purpose, &["show", "--property=Version"]).is_ok()
    }

    /// The host's, for work on files, whether it runs or not.
    pub fn of_files(podman: &Podman) -> Option<Self> {
        let systemctl = podman.relative("systemctl")?;
        (!podman.is_rootless()).then_some(Self {
            systemctl,
            scope: SYSTEM,
        })
    }

    /// The one whose timers outlive whoever runs podkeep: root's run what they run as the user that
    /// root works for.
    pub fn of_timers(podman: &Podman) -> Option<Self> {
        if !is_booted() {
            return None;
        }
        let is_own = podman.is_rootless() && podman.user().is_none();
        Some(Self {
            systemctl: podman.beside("systemctl")?,
            scope: if is_own { USER } else { SYSTEM },
        })
    }

    /// A call that must succeed; returns what it printed.
    pub fn run(&self, purpose: Purpose<'_>, arguments: &[&str]) -> Result<String, PodmanError> {
        let ended = self.systemctl.end(purpose, &self.words(arguments), b"")?;
        let ended = succeeded(purpose, ended)?;
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }

    /// The same, for one that may take longer and prints nothing.
    pub fn run_within(
        &self,
        purpose: Purpose<'_>,
        arguments: &[&str],
        time: Duration,
    ) -> Result<(), PodmanError> {
        let words = self.words(arguments);
        let ended = self.systemctl.end_within(purpose, &words, b"", time)?;
        succeeded(purpose, ended).map(drop)
    }

    fn words<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec![self.scope];
        words.extend_from_slice(arguments);
        words
    }
}

/// systemctl says first what is wrong, and then where more is to be read.
fn succeeded(purpose: Purpose<'_>, mut ended: Ended) -> Result<Ended, PodmanError> {
    if ended.status.success() {
        return Ok(ended);
    }
    let first = ended.stderr.lines().find(|line| !line.trim().is_empty());
    ended.stderr = first.unwrap_or("it failed without a word").to_owned();
    Err(failure(purpose, &ended))
}
