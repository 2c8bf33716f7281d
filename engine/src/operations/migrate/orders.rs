//! What the side of a migration that has the source tells the side that has the target, and what that
//! one answers: plain data, as JSON, bounded by what carries it.

use serde::{Deserialize, Serialize};

use crate::host::replay::UsernsMap;
use crate::host::{About, Ground};
use crate::monitor::{Finding, FindingKind, plain};

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
        /// What the processes run on that are to go on here.
        #[serde(default)]
        ground: Option<Box<Ground>>,
        /// Who owns files of the volumes.
        #[serde(default)]
        owners: Met,
    },
    /// Makes everything of a run but what could start: images, networks, secrets, volumes with their
    /// content, and containers where they can be kept from starting.
    Prepare { run: String, fit: Fit },
    /// Brings the volumes to what a later run holds of them; `last`: the containers' own files, too, and
    /// the archives of those that come with their processes.
    Change { run: String, last: bool },
    /// From now on this side is the one that runs: starts what ran.
    Activate {
        /// Containers that ran, in their order.
        starts: Vec<String>,
        /// Those of them that go on from their archives.
        #[serde(default)]
        checkpoints: Vec<String>,
    },
    /// Says what was written so far for the order that is being carried out. Answered at once.
    Progress,
    /// Compares what was made with what was stored, once it runs.
    Prove,
    /// Stores what the volumes hold here, for the source. `max_freeze_ms`: for the last time: what runs is
    /// stopped first, so that it stays, and the containers' own files are stored, too; it goes on if that
    /// takes longer.
    Return { max_freeze_ms: Option<u64> },
    /// Stops what runs and removes what was made; refused once this side ran, unless what it wrote
    /// meanwhile may go.
    Withdraw { discard: bool },
    /// Forgets the migration.
    Finish,
}

/// Owners that were met in volumes, as trees hold them, under these maps (inside, outside, length).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Met {
    pub uid_map: Vec<(u32, u32, u32)>,
    pub gid_map: Vec<(u32, u32, u32)>,
    pub ids: Vec<MetId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetId {
    pub group: bool,
    pub id: u32,
    pub volume: String,
    /// The beginning of the first path that has it, below the volume's root, escaped.
    pub path: String,
}

/// What the end in between lets a source say that is not its own: it may be of a host that was broken
/// into.
#[derive(Debug, Default)]
pub struct Passed {
    staging: Option<String>,
}

impl Passed {
    /// Whether a source may give this order. The way through a repository is told by whoever has its
    /// keys.
    pub fn may_give(order: &[u8]) -> bool {
        match serde_json::from_slice(order) {
            Ok(Order::Through { .. }) | Err(_) => false,
            Ok(_) => true,
        }
    }

    /// Notes where the target has its staging repository, as its answer says.
    pub fn answered(&mut self, order: &[u8], answer: &[u8]) {
        if let (Ok(Order::Meet { .. }), Ok(Answer::Done(met))) = (
            serde_json::from_slice(order),
            serde_json::from_slice(answer),
        ) {
            self.staging = Some(met.repository);
        }
    }

    /// Whether a source may open the store at `path` of the target: no other than the staging one.
    pub fn may_open(&self, path: &std::path::Path) -> bool {
        let staging = self.staging.as_ref();
        staging.is_some_and(|staging| path == std::path::Path::new(staging))
    }
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
    #[serde(default)]
    pub start_foreign: bool,
    /// User and group for ids that have no place there.
    #[serde(default)]
    pub squash: Option<(u32, u32)>,
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
    /// What is being written, for an order that asks for that.
    pub item: String,
    /// The id of a run, in hex.
    pub run: String,
    pub bytes_read: u64,
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
            object: plain(&self.object),
            // What a newer one tells is not overheard.
            kind: kind.unwrap_or(FindingKind::NotRestored),
            snapshots: Vec::new(),
            paths: self.paths,
            message: plain(&self.message),
        }
    }
}

fn all_plain(lines: Vec<String>) -> Vec<String> {
    lines.iter().map(|line| plain(line)).collect()
}

impl Outcome {
    /// As it may be shown.
    pub fn into_plain(self) -> Self {
        let needs = self.needs.into_iter();
        let proofs = self.proofs.into_iter();
        Self {
            about: About {
                driver: plain(&self.about.driver),
                podman: plain(&self.about.podman),
                ..self.about
            },
            actions: all_plain(self.actions),
            conflicts: all_plain(self.conflicts),
            started: all_plain(self.started),
            item: plain(&self.item),
            run: plain(&self.run),
            needs: needs
                .map(|need| Need {
                    place: plain(&need.place),
                    ..need
                })
                .collect(),
            proofs: proofs
                .map(|proof| Proven {
                    item: plain(&proof.item),
                    differences: all_plain(proof.differences),
                    ..proof
                })
                .collect(),
            ..self
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

impl Answer {
    /// As it may be shown.
    pub fn into_plain(self) -> Self {
        match self {
            Self::Done(outcome) => Self::Done(Box::new(outcome.into_plain())),
            Self::Failed {
                message,
                hint,
                conflicts,
            } => Self::Failed {
                message: plain(&message),
                hint: plain(&hint),
                conflicts: all_plain(conflicts),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_opens_what_the_target_has_for_it_and_nothing_else() {
        let meet = serde_json::to_vec(&Order::Meet {
            migration: "ab".into(),
        })
        .unwrap();
        let through = Order::Through {
            place: "/etc".into(),
            keys: String::new(),
        };
        assert!(Passed::may_give(&meet));
        assert!(!Passed::may_give(&serde_json::to_vec(&through).unwrap()));
        assert!(!Passed::may_give(br#"{"order":"shell","run":"id"}"#));
        let mut passed = Passed::default();
        let staging = std::path::Path::new("/var/lib/podkeep/migrations/ab/repository");
        assert!(!passed.may_open(staging), "nobody met the target");
        let met = Outcome {
            repository: staging.display().to_string(),
            ..Outcome::default()
        };
        let answer = serde_json::to_vec(&Answer::Done(Box::new(met))).unwrap();
        passed.answered(&serde_json::to_vec(&Order::Finish).unwrap(), &answer);
        assert!(!passed.may_open(staging), "that was no meeting");
        passed.answered(&meet, &answer);
        assert!(passed.may_open(staging));
        for other in ["/var/lib/podkeep/repository", "/", ""] {
            assert!(!passed.may_open(std::path::Path::new(other)), "{other}");
        }
    }

    #[test]
    fn what_a_target_says_does_nothing_to_a_terminal() {
        let said = "a\u{1b}[2Jb\nc\u{9b}d";
        let outcome = Outcome {
            about: About {
                podman: said.into(),
                ..About::default()
            },
            conflicts: vec![said.into()],
            started: vec![said.into()],
            ..Outcome::default()
        };
        let answers = [
            Answer::Done(Box::new(outcome)),
            Answer::Failed {
                message: said.into(),
                hint: said.into(),
                conflicts: vec![said.into()],
            },
        ];
        for answer in answers {
            let text = format!("{:?}", answer.into_plain());
            assert!(!text.contains("\\u{1b}") && !text.contains("\\n"), "{text}");
        }
        let told = Told {
            object: said.into(),
            kind: String::new(),
            message: said.into(),
            paths: Vec::new(),
        };
        let finding = told.into_finding();
        assert_eq!(finding.message, "a [2Jb c d");
        assert_eq!(finding.object, finding.message);
    }
}
