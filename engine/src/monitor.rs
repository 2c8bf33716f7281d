//! How the engine tells what it does. It never prints (invariant I-4).

use std::fmt;
use std::sync::Mutex;

use podkeep_format::snapshot::Consistency;

/// Something that the user must know of and that did not stop the run: exit code 3, unless
/// every finding is only a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: an item (`volume:web`), an object of the repository, a host.
    pub object: String,
    pub kind: FindingKind,
    /// Snapshots that are affected, as hex ids; empty where that has no meaning.
    pub snapshots: Vec<String>,
    /// Raw paths below the item, a bounded sample; empty where that has no meaning.
    pub paths: Vec<Vec<u8>>,
    /// One sentence: action, cause.
    pub message: String,
}

/// A stable word for each kind of finding; `as_str` is what JSON shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    /// A file changed while it was read.
    Changed,
    /// An entry was listed and then gone: counted only.
    Vanished,
    /// An entry could not be read: the snapshot is incomplete.
    Unreadable,
    /// Skipped by a documented rule.
    Skipped,
    /// An attribute could not be set on restore.
    Attribute,
    /// An entry could not be written, or clashes with what is there.
    NotRestored,
    /// The content of a selected file is damaged or missing in the repository, or something of a
    /// host's store of images is.
    Damaged,
    /// Was damaged, has been healed.
    Healed,
    /// An image could not be saved or restored as what it was, and is another one with the same
    /// files: its ID, its digests or both are new.
    NotExact,
    /// Containers were not at rest while what they write was read, or not for long enough, or are
    /// not set going again.
    Consistency,
    /// A volume that could not be read because it is not mounted, empty where it was not, ...
    Volume,
    /// What was restored was compared with what was saved, and is equal: for who asks for it.
    Proof,
    /// Worth saying, not a warning: never changes the exit code.
    Note,
}

impl FindingKind {
    pub const ALL: [Self; 13] = [
        Self::Changed,
        Self::Vanished,
        Self::Unreadable,
        Self::Skipped,
        Self::Attribute,
        Self::NotRestored,
        Self::Damaged,
        Self::Healed,
        Self::NotExact,
        Self::Consistency,
        Self::Volume,
        Self::Proof,
        Self::Note,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Vanished => "vanished",
            Self::Unreadable => "unreadable",
            Self::Skipped => "skipped",
            Self::Attribute => "attribute",
            Self::NotRestored => "not-restored",
            Self::Damaged => "damaged",
            Self::Healed => "healed",
            Self::NotExact => "not-exact",
            Self::Consistency => "consistency",
            Self::Volume => "volume",
            Self::Proof => "proof",
            Self::Note => "note",
        }
    }

    /// Whether a finding of this kind makes the run end with exit code 3.
    pub const fn is_warning(self) -> bool {
        !matches!(self, Self::Note | Self::Proof | Self::Vanished)
    }

    /// Whether it makes the snapshot incomplete.
    pub const fn is_incomplete(self) -> bool {
        matches!(self, Self::Unreadable)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step of a run, for bars and log lines. Sizes are bytes.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// A phase begins ("scanning", "restoring", "checking packs").
    Phase(&'a str),
    /// How much there will be to do, as far as is known now.
    Expect { files: u64, bytes: u64 },
    /// Done since the last call.
    Advance { files: u64, bytes: u64 },
    /// An item begins.
    ItemStart { item: &'a str },
    /// An item is done; `line` is its result in words for people.
    ItemDone {
        item: &'a str,
        files: u64,
        bytes: u64,
        bytes_new: u64,
        warnings: u64,
        /// For how long its containers were at rest, and how.
        frozen: Option<FrozenFor>,
    },
}

/// For how long containers were at rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrozenFor {
    /// Pause or stop.
    pub how: Consistency,
    pub seconds: f64,
    /// What was expected before they were put at rest.
    pub expected: f64,
}

/// Nothing that a terminal would do something with, on one line: what another host says.
pub fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

/// Receives what the engine has to say. Called from many threads; must not block for long.
pub trait Monitor: Send + Sync {
    fn finding(&self, finding: Finding);
    fn progress(&self, progress: Progress<'_>);
    /// Asked between bounded steps: `true` makes the run stop cleanly.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Keeps the findings, drops the progress. For tests and quiet callers.
#[derive(Default)]
pub struct Collect {
    pub findings: Mutex<Vec<Finding>>,
}

impl Monitor for Collect {
    fn finding(&self, finding: Finding) {
        self.findings
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push(finding);
    }
    fn progress(&self, _: Progress<'_>) {}
}
