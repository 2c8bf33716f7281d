//! Replaying definitions: from what libpod stored to what it is asked to make, and whether it made
//! the same.

mod asked;
mod compare;
mod explain;
pub mod fit;
mod jobs;
mod make;
mod mounts;
mod network;
mod obstacles;
mod pod;
mod ports;
mod request;
mod security;
mod service;
mod stored;
pub mod userns;

pub use asked::AskedFor;
pub use compare::{Comparison, FieldDifference, Reason, compare, is_of_user};
pub use explain::{Explanation, Verdict};
pub use jobs::jobs;
pub use make::{
    Maker, RESTART_UPDATE_SINCE, architecture_of, container_id, takes_restart_policy, write_profile,
};
pub use mounts::volumes_from_of;
pub use network::has_random_port;
pub use obstacles::{HostFacts, Obstacle, Wanted, missing_options, obstacles, same_network};
pub use pod::pod_request;
pub use request::{Choices, ContainerRequest, PodContext, container_request, restart_policy};
pub use security::{Seccomp, seccomp_of};
pub use service::{Answer, Service};

/// A version of Podman.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// "5.4.2", "5.8.0-dev"; what is missing or no number is 0.
    pub fn parse(text: &str) -> Self {
        let mut numbers = text
            .split(|c: char| !c.is_ascii_digit())
            .map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            major: next(),
            minor: next(),
            patch: next(),
        }
    }

    pub fn is_at_least(self, (major, minor): (u32, u32)) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}
