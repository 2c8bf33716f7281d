//! How definitions are fitted to a host.

use clap::Args;

/// How containers, pods, networks and secrets are fitted to this host.
#[derive(Args, Debug)]
#[command(next_help_heading = "Containers and what belongs to them")]
pub struct Fit {
    /// Give containers, pods and networks whose name is taken this at the end of theirs
    #[arg(
        long,
        value_name = "SUFFIX",
        allow_hyphen_values = true,
        conflicts_with_all = ["to_dir", "repair_layers", "replace"]
    )]
    pub rename_suffix: Option<String>,

    /// With --replace, remove containers and pods of the same name even if they run
    #[arg(long, requires = "replace")]
    pub replace_running: bool,

    /// Give networks whose subnet is taken a free one, and move static addresses with it
    #[arg(long, conflicts_with_all = ["to_dir", "repair_layers"])]
    pub remap_subnet: bool,

    /// Leave out static addresses
    #[arg(long, conflicts_with_all = ["to_dir", "repair_layers"])]
    pub drop_static: bool,

    /// Leave out devices, bind mounts, OCI runtimes and options that this host does not have
    #[arg(long, conflicts_with_all = ["to_dir", "repair_layers"])]
    pub drop_missing: bool,

    /// What becomes of user namespaces that the Podman there cannot have (keep-id for root, idmap for a
    /// user): they go, or get a range of ids; owners in volumes stay what the containers see
    #[arg(long, value_name = "MAP", conflicts_with_all = ["to_dir", "repair_layers"])]
    pub userns_map: Option<UsernsChoice>,

    /// Make volumes without limits on their size that the file system here cannot keep
    #[arg(long, conflicts_with_all = ["to_dir", "repair_layers"])]
    pub ignore_quota: bool,

    /// Let the user whose Podman it goes to keep things running without a session
    #[arg(long, requires = "start")]
    pub enable_linger: bool,

    /// Keep the ports that Podman chose at random
    #[arg(long, conflicts_with_all = ["to_dir", "repair_layers"])]
    pub pin_ports: bool,

    /// Let containers that had no hostname get a new one
    ///
    /// Without it they keep the one that their old ID gave them: data may be kept by it.
    #[arg(long, conflicts_with_all = ["to_dir", "repair_layers"])]
    pub new_hostname: bool,
}

/// What becomes of a user namespace.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsernsChoice {
    /// No namespace of its own
    Host,
    /// A range of ids of its own
    Auto,
}

impl From<UsernsChoice> for podkeep_engine::host::replay::UsernsMap {
    fn from(choice: UsernsChoice) -> Self {
        match choice {
            UsernsChoice::Host => Self::Host,
            UsernsChoice::Auto => Self::Auto,
        }
    }
}

/// Whose SELinux labels restored files get.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelinuxChoice {
    /// Those of the place.
    Place,
    /// Those that were saved.
    Keep,
}
