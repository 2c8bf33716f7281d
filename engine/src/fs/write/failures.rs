//! What could not be done for single entries: one finding for each kind of failure and tree,
//! with a count and some of the paths, however many entries it met.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Mutex;

use podkeep_format::item::Escaped;
use rustix::io::Errno;

use crate::monitor::{Finding, FindingKind};

/// Paths that a finding names.
const PATHS_MAX: usize = 20;
/// Kinds of failure that are told apart; what is beyond falls together by [`FindingKind`].
const GROUPS_MAX: usize = 200;

type Key = (FindingKind, Cow<'static, str>, String);

#[derive(Default)]
struct Group {
    count: u64,
    paths: Vec<Vec<u8>>,
}

pub(super) struct Failures {
    object: String,
    groups: Mutex<BTreeMap<Key, Group>>,
}

impl Failures {
    pub fn new(object: String) -> Self {
        Self {
            object,
            groups: Mutex::default(),
        }
    }

    /// `what` is an action with its object: "set the owner", "write the entry".
    pub fn add(
        &self,
        kind: FindingKind,
        what: impl Into<Cow<'static, str>>,
        cause: impl Into<String>,
        path: Vec<u8>,
    ) {
        let mut groups = self.groups.lock().unwrap_or_else(|e| e.into_inner());
        let mut key = (kind, what.into(), cause.into());
        if groups.len() >= GROUPS_MAX && !groups.contains_key(&key) {
            key = (kind, "restore it fully".into(), "various causes".into());
        }
        let group = groups.entry(key).or_default();
        group.count += 1;
        if group.paths.len() < PATHS_MAX {
            group.paths.push(path);
        }
    }

    pub fn attribute(&self, what: impl Into<Cow<'static, str>>, errno: Errno, path: Vec<u8>) {
        self.add(FindingKind::Attribute, what, describe(errno), path);
    }

    pub fn entry(&self, what: &'static str, errno: Errno, path: Vec<u8>) {
        self.add(FindingKind::NotRestored, what, describe(errno), path);
    }

    /// Everything since the last call.
    pub fn take(&self) -> Vec<Finding> {
        let mut groups = self.groups.lock().unwrap_or_else(|e| e.into_inner());
        std::mem::take(&mut *groups)
            .into_iter()
            .map(|((kind, what, cause), mut group)| {
                group.paths.sort();
                let message = match (group.count, group.paths.first()) {
                    (1, Some(path)) if !path.is_empty() => {
                        format!("cannot {what} of {}: {cause}", Escaped(path))
                    }
                    (1, _) => format!("cannot {what}: {cause}"),
                    (count, _) => format!("cannot {what}: {cause} ({count} entries)"),
                };
                Finding {
                    object: self.object.clone(),
                    kind,
                    snapshots: Vec::new(),
                    paths: group.paths,
                    message,
                }
            })
            .collect()
    }
}

/// The system's words for an error, without its number.
pub(super) fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
