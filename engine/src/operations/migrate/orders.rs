//! What the side of a migration that has the source tells the side that has the target, and what that
//! one answers: plain data, as JSON, bounded by what carries it.

use serde::{Deserialize, Serialize};

use crate::host::About;
use crate::host::replay::UsernsMap;
use crate::monitor::{Finding, FindingKind};

/// Findings of one answer; further ones are counted.
const FINDINGS_MAX: usize = 2000;
const PATHS_MAX: usize = 20;

/// Something to be done where the target lies. A run is the id of one, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// Comes first: which migration it is, and what is known of it here.
    Meet { migration: String },
    /// Passes go through another repository, which lies at `place` for the target's machine: an
    /// absolute path, or what the podkeep there reaches. `keys` open it. Comes before `Open`.
    Through { place: String, keys: String },
    /// Opens the staging repository. `through`: and the other one, which has this id, in hex.
    Open {
        key: String,
        #[serde(default)]
        through: Option<String>,
    },
    /// Looks at the definitions of a run, and changes nothing.
    Check {
        run: String,
        /// IDs of images and names of volumes that come along.
        images: Vec<String>,
        volumes: Vec<String>,
        /// Bytes that come along, as far as that is known.
        bytes: u64,
        fit: Fit,
    },
    /// Makes everything of a run but what could start: images, networks, secrets, volumes with their
    /// content, and containers where they can be kept from starting.
    Prepare { run: String, fit: Fit },
    /// Brings the volumes to what a later run holds of them; `last`: the containers' own files, too.
    Change { run: String, last: bool },
    /// From now on this side is the one that runs: starts what ran.
    Activate {
        /// Containers that ran, in their order.
        starts: Vec<String>,
    },
    /// Compares what was made with what was stored, once it runs.
    Prove,
    /// Stops what runs and removes what was made; refused once this side ran, unless what it wrote
    /// meanwhile may go.
    Withdraw { discard: bool },
    /// Forgets the migration.
    Finish,
}

/// How definitions are fitted to the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    pub remap_subnet: bool,
    pub drop_static: bool,
    pub drop_missing: bool,
    /// The source lies on the same machine: its ports are free once it is stopped.
    pub ports_come_free: bool,
    #[serde(default)]
    pub userns_map: Option<UsernsMap>,
    #[serde(default)]
    pub enable_linger: bool,
    #[serde(default)]
    pub ignore_quota: bool,
}

/// How far the target's side is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    #[default]
    Nothing,
    /// Something was made that does not run.
    Staged,
    /// It runs, or is about to.
    Active,
}

/// To all orders.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    pub about: About,
    pub reached: Reached,
    /// Where the staging repository lies.
    pub repository: String,
    /// It was there already.
    pub is_staged: bool,
    /// Names the machine: the same on both sides, they lie on one.
    pub machine: String,
    pub actions: Vec<String>,
    pub conflicts: Vec<String>,
    pub needs: Vec<Need>,
    pub findings: Vec<Told>,
    pub files: u64,
    pub bytes_written: u64,
    pub proofs: Vec<Proven>,
    /// Containers that were started, or would be.
    pub started: Vec<String>,
    /// Since the last of them was started.
    pub seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    pub place: String,
    pub bytes: u64,
    pub bytes_free: u64,
}

/// How a definition came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    pub item: String,
    pub fields: u64,
    /// Each with its reason.
    pub differences: Vec<String>,
    pub unexplained: u64,
}

/// A finding of the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    object: String,
    kind: String,
    message: String,
    paths: Vec<Vec<u8>>,
}

impl Told {
    pub fn of(findings: Vec<Finding>) -> Vec<Self> {
        let told = findings.into_iter().take(FINDINGS_MAX).map(|finding| Self {
            object: finding.object,
            kind: finding.kind.as_str().to_owned(),
            message: finding.message,
            paths: finding.paths.into_iter().take(PATHS_MAX).collect(),
        });
        told.collect()
    }

    pub fn into_finding(self) -> Finding {
        let kind = FindingKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.kind);
        Finding {
            object: self.object,
            // What a newer one tells is not overheard.
            kind: kind.unwrap_or(FindingKind::NotRestored),
            snapshots: Vec::new(),
            paths: self.paths,
            message: self.message,
        }
    }
}

/// What stands in an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Done(Box<Outcome>),
    Failed {
        message: String,
        hint: String,
        conflicts: Vec<String>,
    },
}
