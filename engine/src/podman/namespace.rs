//! Into the namespaces of the caller's own rootless Podman.
//!
//! Files of a rootless container belong to subordinate ids, and the user may not even look into
//! their folders. In the user namespace of Podman the user is root over them. This process goes
//! there itself: what it reads and writes, its signals, its standard input and its exit code stay
//! its own, and what it makes belongs to the user. The kernel lets only a process with one thread
//! do so, so that it comes before everything else.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command::{Podman, PodmanError, Purpose};

/// Bytes that the process in the namespace says of itself.
const SAID_BYTES_MAX: u64 = 4096;
/// What podman sees of the namespace that it is in.
const VARIABLES: [&str; 3] = [
    "_CONTAINERS_USERNS_CONFIGURED",
    "_CONTAINERS_ROOTLESS_UID",
    "_CONTAINERS_ROOTLESS_GID",
];
/// Says who it is, and lives until its input ends.
const SCRIPT: &str = "echo $$; echo \"$_CONTAINERS_USERNS_CONFIGURED\"; \
                      echo \"$_CONTAINERS_ROOTLESS_UID\"; echo \"$_CONTAINERS_ROOTLESS_GID\"; \
                      exec cat > /dev/null";

/// The user namespace of a rootless Podman, from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// What podman has to see in its environment.
    pub variables: Vec<(OsString, OsString)>,
    /// The user, as the host counts.
    pub uid: u32,
    /// The texts of /proc/self/uid_map and gid_map.
    pub uid_map: String,
    pub gid_map: String,
}

impl Inside {
    /// Of a process that was started there (`podman unshare podkeep ...`), as its environment says.
    pub fn of_environment(environment: &[(OsString, OsString)]) -> Option<Self> {
        let value = |name: &str| {
            let found = environment.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let uid = value(VARIABLES[1])?.to_str()?.parse().ok()?;
        if uid == 0 || !rustix::process::geteuid().is_root() {
            return None;
        }
        let variables = VARIABLES.iter().filter_map(|name| {
            let value = value(name)?;
            Some(((*name).into(), value))
        });
        Some(Self {
            variables: variables.collect(),
            uid,
            uid_map: std::fs::read_to_string("/proc/self/uid_map").ok()?,
            gid_map: std::fs::read_to_string("/proc/self/gid_map").ok()?,
        })
    }
}

impl Podman {
    /// Moves this process, which must have a single thread, into the user and mount namespaces of
    /// this podman. The working directory stays.
    pub fn enter(&self) -> Result<Inside, PodmanError> {
        let purpose = Purpose {
            action: "enter",
            object: "the user namespace of Podman",
        };
        let failed = |what: &str, cause: &dyn std::fmt::Display| {
            PodmanError::new(purpose.action, purpose.object, format!("{what}: {cause}"))
        };
        let uid = rustix::process::getuid().as_raw();
        let mut child = self.start(purpose, &["unshare", "sh", "-c", SCRIPT])?;
        // Its end ends the child.
        let stdin = child.stdin.take();
        let mut said = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let lines = BufReader::new(stdout.take(SAID_BYTES_MAX)).lines();
            said.extend(lines.take(1 + VARIABLES.len()).map_while(Result::ok));
        }
        let pid: Option<u32> = said.first().and_then(|pid| pid.parse().ok());
        let Some(pid) = pid else {
            drop(stdin);
            let mut words = String::new();
            if let Some(stderr) = child.stderr.take() {
                // Without its words there is still the rest.
                let _ = stderr.take(SAID_BYTES_MAX).read_to_string(&mut words);
            }
            let _ = child.wait();
            let last = words.lines().last().unwrap_or("it says nothing");
            return Err(failed("podman unshare failed", &last));
        };
        let work = rustix::process::getcwd(Vec::new());
        let enter = || -> std::io::Result<()> {
            let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
            let (user, mounts) = (open("user")?, open("mnt")?);
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
            move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
            Ok(())
        };
        let entered = enter();
        drop(stdin);
        let _ = child.wait();
        entered.map_err(|error| failed("it cannot be joined", &error))?;
        let work = work.unwrap_or_else(|_| c"/".to_owned());
        rustix::process::chdir(&work).map_err(|error| failed(&work.to_string_lossy(), &error))?;
        let map = |name: &str| {
            std::fs::read_to_string(format!("/proc/self/{name}"))
                .map_err(|error| failed(name, &error))
        };
        let values = said.into_iter().skip(1);
        Ok(Inside {
            variables: VARIABLES
                .iter()
                .zip(values)
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| ((*name).into(), value.into()))
                .collect(),
            uid,
            uid_map: map("uid_map")?,
            gid_map: map("gid_map")?,
        })
    }
}
