//! Containers at rest while their items are read (invariant I-10: what podkeep paused or stopped, it
//! resumes).
//!
//! The order keeps that true whenever this process ends. First what will be frozen is recorded, so
//! that the next run can set it going; then a thaw is armed that happens without podkeep; then the
//! containers are paused or stopped. A thread thaws them when they were at rest for as long as they
//! may be; dropping the guard thaws them, too. The record goes last.

mod hooks;
mod local;
mod record;
mod served;
mod thaw;

use std::path::PathBuf;
use std::time::Duration;

use podkeep_format::snapshot::Consistency;

use crate::monitor::Finding;

pub(super) use local::{freeze, stop_for_writing, thaw_leftovers};

/// What is to be at rest at the same time.
#[derive(Clone, Debug)]
pub struct FreezeRequest {
    /// Names of containers. Those that are not running are at rest already.
    pub containers: Vec<String>,
    /// Pause or stop; what must not be stopped is paused.
    pub how: Consistency,
    /// Labels that ask for something else do not count, and what a unit of systemd makes anew at each
    /// start is stopped.
    pub must: bool,
    /// They are set going again when they were at rest for so long, whatever else happens.
    pub max: Duration,
    /// They are checkpointed instead of stopped, each into the file NAME.tar of this folder; set going
    /// again, they go on with what they had in memory.
    pub checkpoints: Option<PathBuf>,
    /// Places that the run itself reads and writes: a container that serves one of them is never
    /// frozen.
    pub needs: Vec<PathBuf>,
}

/// What came of a request.
pub struct Freezing {
    /// `None`: nothing was frozen, and the findings say why.
    pub guard: Option<Box<dyn Freeze>>,
    pub findings: Vec<Finding>,
}

/// Containers at rest. Dropped, it sets them going again.
pub trait Freeze: Send {
    /// Whether all of them have been at rest until now.
    fn holds(&self) -> bool;

    /// Sets all of them going again.
    fn thaw(self: Box<Self>) -> Thawed;

    /// Leaves them as they are for good: nothing that is armed sets them going any more. `None`: they
    /// were set going meanwhile. Returns the seconds that they have been at rest.
    fn leave(self: Box<Self>) -> Option<f64>;
}

/// How it was while containers were at rest.
#[derive(Clone, Debug)]
pub struct Thawed {
    /// Stop only if all were stopped.
    pub how: Consistency,
    /// From the first that was frozen to the last that was set going.
    pub seconds: f64,
    pub findings: Vec<Finding>,
}
