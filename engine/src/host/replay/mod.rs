//! Making definitions again: what a restore asks of a host, and the host that this process runs on.
//!
//! All definitions of a restore come at once, since they stand in each other's way: names, subnets,
//! the order of who needs whom. [`Target::replay`](super::Target::replay) looks at all of them and
//! changes nothing; what it returns makes them one by one, in an order that the caller keeps.

mod fit;
mod layer;
mod local;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use podkeep_format::item::Item;

pub(super) use self::layer::write_layer;
pub(super) use self::local::LocalReplay;
use super::{HeldUnit, HostError};
use crate::fs::owners::OwnersView;
use crate::monitor::Finding;
pub use crate::podman::replay::userns::UsernsMap;
pub use crate::podman::replay::{FieldDifference, Reason};

/// By volume, how the owners in it are seen where that is not as Podman's namespace sees them.
pub type Views = BTreeMap<Item, Arc<OwnersView>>;

/// What may be changed of definitions, or of what is in their way, to fit them to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Containers, pods and networks whose name is taken get this at the end of theirs.
    pub rename_suffix: Option<String>,
    /// What has the name of something restored is removed.
    pub replace: bool,
    /// Even if it runs.
    pub replace_running: bool,
    /// Networks whose subnet is taken get a free one, and static addresses in it follow.
    pub remap_subnet: bool,
    pub drop_static: bool,
    /// Devices, bind mounts, OCI runtimes and options that the host lacks are left out.
    pub drop_missing: bool,
    /// Ports that Podman chose at random stay what they were.
    pub pin_ports: bool,
    /// No hostname is pinned.
    pub new_hostname: bool,
    /// Containers that run and use a volume that is restored are stopped while it is written, and
    /// started again.
    pub stop_users: bool,
    /// Containers of another architecture are started, too.
    pub start_foreign: bool,
    /// What ran and could not be started here is in the way.
    pub must_start: bool,
    /// Ports that are in use now are free when they are needed.
    pub ports_come_free: bool,
    /// What becomes of namespaces of users that this Podman cannot have.
    pub userns_map: Option<UsernsMap>,
    /// The user whose Podman it is may keep things running without a session.
    pub enable_linger: bool,
}

/// Definitions that are to be made again. Some hold secrets: never shown.
#[derive(Clone, Default)]
pub struct ReplayRequest {
    /// Containers, pods, networks, secrets and units, each with its definition.
    pub items: Vec<(Item, Vec<u8>)>,
    /// Volumes that are restored along: whether each was anonymous.
    pub volumes: BTreeMap<String, bool>,
    /// IDs of images that are there or restored along.
    pub images: BTreeSet<String>,
    /// By the ID of an image that is restored along, the architecture that it is for.
    pub architectures: BTreeMap<String, String>,
    /// What ran is started.
    pub starts: bool,
    pub options: ReplayOptions,
}

/// What replaying would do, known before anything is changed.
#[derive(Clone, Debug, Default)]
pub struct ReplayPlan {
    /// One line for people each.
    pub actions: Vec<String>,
    /// Each ends with what resolves it. Not empty: the restore would be refused.
    pub conflicts: Vec<String>,
    /// Worth knowing.
    pub findings: Vec<Finding>,
    /// What to make, in this order: networks, secrets, pods, and containers after those that they
    /// need.
    pub order: Vec<Item>,
    /// What each is called here, where that is another name.
    pub names: BTreeMap<Item, String>,
    /// Volumes that come with their container, made as anonymous ones: filled after it.
    pub with_containers: BTreeSet<String>,
    pub views: Views,
    /// Services of the units, and whether each was active.
    pub services: Vec<HeldUnit>,
}

/// Whether one thing came out as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pub item: Item,
    /// Its name here.
    pub name: String,
    /// How many fields were compared.
    pub fields: u64,
    pub differences: Vec<FieldDifference>,
}

/// Definitions that are being made.
pub trait Replay: Send {
    /// Makes one item of the plan's order.
    fn make(&mut self, item: &Item) -> Result<(), HostError>;

    /// Whether nothing that is made starts by itself before [`settle`](Self::settle), at a boot, say.
    fn waits(&self) -> bool;

    /// Everything is there and filled: gives containers their restart policies, and tells systemd
    /// of new units.
    fn settle(&mut self) -> Result<Vec<Finding>, HostError>;

    /// Starts what ran, in the order of who needs whom, and pauses what was paused. Waits for
    /// health checks, for each container at most so long. What does not start is a finding. Returns also
    /// when the last of it was started.
    fn start(&mut self, health_max: Duration)
    -> Result<(Vec<Finding>, Option<Instant>), HostError>;

    /// Compares what was made with what was stored.
    fn prove(&mut self) -> Result<Vec<Proof>, HostError>;
}
