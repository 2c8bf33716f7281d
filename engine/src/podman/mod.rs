//! All knowledge of Podman: running it, and what it says and keeps.

mod command;
mod prime;
mod volume;

pub use command::{Podman, PodmanError, StoreInfo};
pub use prime::{Primer, SEED_NAME, remove_seed};
pub use volume::{
    Difference, Users, Volume, VolumeContent, VolumeDefinition, inspect_volume, list_volumes,
    users_of_volumes,
};
