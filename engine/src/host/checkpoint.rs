//! What a migration does with containers whose processes go on at the target.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::HostError;
use super::local::LocalHost;
pub use crate::podman::checkpoint::Standing;
use crate::podman::{Podman, checkpoint, live_containers};

/// What a process knows of the place where it runs, and has to find where it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ground {
    /// Of containers/storage: the root directory of a container has other permissions with each.
    pub driver: String,
    /// What the processor can do that programs make use of, in the kernel's words ("avx2"); sorted.
    pub features: Vec<String>,
    /// Of CRIU, in its parts: what one writes an older one may not read.
    pub criu: Vec<u32>,
    /// The OCI runtime, which keeps a part of the processes' state.
    pub runtime: String,
    /// Cgroups of version 2, and nothing else.
    pub unified: bool,
}

/// A container that was started without what it had in memory, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdStart {
    pub container: String,
    pub cause: String,
}

/// The Podman of a host, seen as a keeper of running processes.
pub trait Checkpoints: Send + Sync {
    fn ground(&self) -> Result<Ground, HostError>;

    /// Why no container can be checkpointed or restored here, in words.
    fn obstacles(&self) -> Result<Vec<String>, HostError>;

    /// Which of these containers (names) cannot be checkpointed, and why; each in words.
    fn unfit(&self, containers: &[String]) -> Result<Vec<String>, HostError>;

    /// Bytes of memory that these containers (names) hold and that no file has.
    fn memory(&self, containers: &[String]) -> Result<u64, HostError>;

    /// Sets containers (names) going from their checkpoints, in this order; those that run are left alone, and
    /// those that cannot go on are started.
    fn resume(&self, containers: &[String]) -> Result<Vec<ColdStart>, HostError>;

    /// Removes what checkpoints left beside containers (names) that do not go on from them.
    fn forget(&self, containers: &[String]) -> Result<(), HostError>;

    /// Sets a container (name) that never ran here going with the processes of an archive. `Err`: it does not
    /// run.
    fn resume_from(&self, container: &str, archive: &Path) -> Result<(), HostError>;

    fn standing(&self, container: &str) -> Result<Standing, HostError>;
}

impl Ground {
    /// What is missing here for processes that ran on `other` ground, in words.
    pub fn lacks(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.driver != other.driver {
            found.push(format!(
                "containers lie on {} at the source, here on {}: a process would find another root directory",
                other.driver, self.driver
            ));
        }
        if self.criu < other.criu {
            let version = |parts: &[u32]| {
                let parts: Vec<String> = parts.iter().map(u32::to_string).collect();
                parts.join(".")
            };
            let (old, new) = (version(&self.criu), version(&other.criu));
            found.push(format!("CRIU is {old} here, and {new} at the source"));
        }
        if self.runtime != other.runtime {
            found.push(format!(
                "the OCI runtime is {} here, and {} at the source",
                self.runtime, other.runtime
            ));
        }
        if self.unified != other.unified {
            found.push("the versions of cgroups are not the same".into());
        }
        let lost: Vec<&str> = (other.features.iter())
            .filter(|feature| !self.features.contains(feature))
            .map(String::as_str)
            .collect();
        if let [first, rest @ ..] = &lost[..] {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            found.push(format!(
                "the processor here has no {first}{more}, which processes may use"
            ));
        }
        found
    }
}

impl LocalHost {
    fn of_checkpoints(&self) -> Result<&Podman, HostError> {
        self.podman_of(&"containers")
    }
}

impl Checkpoints for LocalHost {
    fn ground(&self) -> Result<Ground, HostError> {
        Ok(Ground {
            driver: self.store_info()?.driver.clone(),
            features: checkpoint::processor_features(),
            criu: checkpoint::criu_version(self.of_checkpoints()?),
            runtime: self.of_checkpoints()?.default_runtime()?,
            unified: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        })
    }

    fn obstacles(&self) -> Result<Vec<String>, HostError> {
        Ok(checkpoint::obstacles(self.of_checkpoints()?)?)
    }

    fn unfit(&self, containers: &[String]) -> Result<Vec<String>, HostError> {
        Ok(checkpoint::unfit(self.of_checkpoints()?, containers)?)
    }

    fn memory(&self, containers: &[String]) -> Result<u64, HostError> {
        Ok(checkpoint::memory(self.of_checkpoints()?, containers)?)
    }

    fn resume(&self, containers: &[String]) -> Result<Vec<ColdStart>, HostError> {
        let podman = self.of_checkpoints()?;
        let mut cold = Vec::new();
        for name in containers {
            let live = live_containers(podman, std::slice::from_ref(name))?;
            let Some(rests) = live.iter().find(|one| !one.is_running()) else {
                continue;
            };
            if let Some(error) = checkpoint::resume_or_start(podman, &rests.id)? {
                cold.push(ColdStart {
                    container: name.clone(),
                    cause: error.cause,
                });
            }
        }
        Ok(cold)
    }

    fn forget(&self, containers: &[String]) -> Result<(), HostError> {
        Ok(checkpoint::forget(self.of_checkpoints()?, containers)?)
    }

    fn resume_from(&self, container: &str, archive: &Path) -> Result<(), HostError> {
        Ok(checkpoint::resume_from(
            self.of_checkpoints()?,
            container,
            archive,
        )?)
    }

    fn standing(&self, container: &str) -> Result<Standing, HostError> {
        Ok(checkpoint::standing(self.of_checkpoints()?, container)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_needs_of_its_ground_is_named() {
        let ground = |driver: &str, features: &[&str]| Ground {
            driver: driver.into(),
            features: features.iter().map(|one| (*one).to_owned()).collect(),
            criu: vec![4, 2],
            runtime: "crun".into(),
            unified: true,
        };
        let here = ground("overlay", &["avx2", "fpu", "sse2"]);
        assert_eq!(
            here.lacks(&ground("overlay", &["fpu"])),
            Vec::<String>::new()
        );
        let told = here.lacks(&ground("btrfs", &["amx", "avx512f", "fpu"]));
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("btrfs"), "{told:?}");
        assert!(told[1].contains("amx and 1 more"), "{told:?}");
        let newer = Ground {
            criu: vec![4, 10],
            runtime: "runc".into(),
            unified: false,
            ..here.clone()
        };
        let told = here.lacks(&newer);
        assert_eq!(told.len(), 3);
        assert!(told[0].contains("4.2 here, and 4.10"), "{told:?}");
        let older = Ground {
            criu: vec![3, 17, 1],
            ..here.clone()
        };
        assert_eq!(here.lacks(&older), Vec::<String>::new());
    }
}
