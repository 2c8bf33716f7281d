//! What `migrate` takes.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::{Patience, UsernsChoice, freeze_duration};

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["selectors", "all"]))]
pub struct Migrate {
    /// What to move
    #[arg(value_name = "SELECTOR")]
    pub selectors: Vec<OsString>,

    /// Move everything of the host
    #[arg(long)]
    pub all: bool,

    /// Whose Podman it is moved from: local, local:USER or ssh://[LOGIN@]HOST[:PORT][,sudo][,user=USER] [default: local]
    #[arg(long, value_name = "HOST")]
    pub from: Option<OsString>,

    /// Whose Podman it is moved to: local, local:USER or ssh://[LOGIN@]HOST[:PORT][,sudo][,user=USER]
    #[arg(long, value_name = "HOST")]
    pub to: OsString,

    /// Send it through this repository, which both sides reach by the same name, instead of straight: what
    /// is stored there already is not sent again, and the snapshots stay. Needs its passphrase
    #[arg(long, value_name = "REPO")]
    pub via: Option<OsString>,

    /// Take containers along that use something of what is moved
    #[arg(long, conflicts_with = "split")]
    pub with_dependents: bool,

    /// Leave them behind, with a copy of what they use
    #[arg(long)]
    pub split: bool,

    /// Give networks whose subnet is taken a free one, and move static addresses with it
    #[arg(long)]
    pub remap_subnet: bool,

    /// Leave out static addresses
    #[arg(long)]
    pub drop_static: bool,

    /// Leave out devices, bind mounts, OCI runtimes and options that the target does not have
    #[arg(long)]
    pub drop_missing: bool,

    /// What becomes of user namespaces that the Podman there cannot have (keep-id for root, idmap for a
    /// user): they go, or get a range of ids; owners in volumes stay what the containers see
    #[arg(long, value_name = "MAP")]
    pub userns_map: Option<UsernsChoice>,

    /// Give what belongs to users and groups that have no place there to this one; GID is UID when left out
    #[arg(long, value_name = "UID[:GID]", value_parser = super::parse_owner)]
    pub squash_unmapped: Option<(u32, u32)>,

    /// Start containers whose image is for another architecture, too
    #[arg(long)]
    pub start_foreign: bool,

    /// Make volumes without limits on their size that the target's file system cannot keep
    #[arg(long)]
    pub ignore_quota: bool,

    /// Let the user whose Podman it goes to keep things running without a session
    #[arg(long)]
    pub enable_linger: bool,

    /// The source goes on when its containers were at rest for so long; nothing is moved if that can
    /// be foreseen
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = freeze_duration)]
    pub max_freeze: Duration,

    /// Processes go on at the target with what they have in memory, instead of being stopped and started
    /// there (CRIU; root's Podman and the same storage driver on both sides)
    #[arg(long, conflicts_with_all = ["via", "split", "remap_subnet", "drop_static", "rollback", "finish"])]
    pub checkpoint: bool,

    /// Only look for what is in the way: no content is sent
    #[arg(long, conflicts_with_all = ["rollback", "finish"])]
    pub dry_run: bool,

    /// Go back to the source, with what the target has written since it runs
    #[arg(long, conflicts_with = "finish")]
    pub rollback: bool,

    /// With --rollback: go back to what the source held when it was stopped; what the target wrote since is
    /// lost
    #[arg(long, requires = "rollback")]
    pub discard_target_writes: bool,

    /// Forget what is kept for a way back, or for another try
    #[arg(long)]
    pub finish: bool,

    /// Run this shell command before the last pass: a database may write its memory out, as it does when it
    /// is stopped
    #[arg(long, value_name = "COMMAND")]
    pub before_stop: Option<OsString>,

    /// Run this shell command when the target runs: addresses, names and proxies may follow
    #[arg(long, value_name = "COMMAND")]
    pub on_cutover: Option<OsString>,

    /// Run this shell command when the source is back
    #[arg(long, value_name = "COMMAND", requires = "rollback")]
    pub on_rollback: Option<OsString>,

    #[command(flatten)]
    pub patience: Patience,
}
