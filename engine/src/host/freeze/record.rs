//! What is at rest, on disk: `freeze/ID.json` in the state folder, from before the first container is
//! frozen until the last is going again. Whoever froze holds a lock on it, which ends with its
//! process: a record that nobody locks is what a run left that was cut off.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::lock::make_private;
use crate::fs::lock::lock_exclusive;
use crate::podman::Resumption;

/// Bytes of a record: 10,000 containers.
const RECORD_BYTES_MAX: u64 = 2 << 20;
const RECORDS_MAX: usize = 1000;
const FORMAT: u32 = 1;

/// A thing that is set going again, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Frozen {
    /// "container db".
    pub object: String,
    pub resume: Resume,
}

/// As [`Resumption`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Resume {
    Unpause(String),
    Start(String),
    /// From its checkpoint.
    Restore(String),
    StartUnit(String),
}

impl Frozen {
    pub fn resumption(&self) -> Resumption {
        match &self.resume {
            Resume::Unpause(id) => Resumption::Unpause(id.clone()),
            Resume::Start(id) => Resumption::Start(id.clone()),
            Resume::Restore(id) => Resumption::Restore(id.clone()),
            Resume::StartUnit(unit) => Resumption::StartUnit(unit.clone()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    format: u32,
    frozen: Vec<Frozen>,
}

/// A record that this process holds.
pub(super) struct Record {
    pub path: PathBuf,
    pub frozen: Vec<Frozen>,
    _lock: File,
}

pub(super) fn folder(state: &Path) -> PathBuf {
    state.join("freeze")
}

impl Record {
    /// Durable when it returns. `name` is unique.
    pub fn write(state: &Path, name: &str, frozen: Vec<Frozen>) -> std::io::Result<Self> {
        let folder = folder(state);
        make_private(&folder)?;
        let path = folder.join(format!("{name}.json"));
        // It gets its name when it is whole and locked: another run must not take it for left.
        let new = path.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        lock_exclusive(&file)?;
        let content = Content {
            format: FORMAT,
            frozen,
        };
        let bytes = serde_json::to_vec(&content)?;
        let written = file
            .write_all(&bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&new, &path))
            .and_then(|()| File::open(&folder)?.sync_all());
        if let Err(error) = written {
            // Nothing is frozen yet.
            let _ = std::fs::remove_file(&new);
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            path,
            frozen: content.frozen,
            _lock: file,
        })
    }

    /// Those of runs that were cut off; each is ours from now on. What is no record is none of ours,
    /// or its disk is damaged, and is removed.
    pub fn left(state: &Path) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(folder(state)) else {
            return Vec::new();
        };
        let mut left = Vec::new();
        for entry in entries.flatten().take(RECORDS_MAX) {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Ok(file) = File::options().read(true).write(true).open(&path) else {
                continue;
            };
            if lock_exclusive(&file).is_err() {
                continue;
            }
            let mut bytes = Vec::new();
            let read = (&file).take(RECORD_BYTES_MAX).read_to_end(&mut bytes);
            let content: Option<Content> = serde_json::from_slice(&bytes).ok();
            match (read, content.filter(|content| content.format == FORMAT)) {
                (Ok(_), Some(content)) => left.push(Self {
                    path,
                    frozen: content.frozen,
                    _lock: file,
                }),
                (Ok(_), None) => drop(std::fs::remove_file(&path)),
                (Err(_), _) => {}
            }
        }
        left
    }

    /// All of it is going again.
    pub fn remove(self) {
        // A record that stays costs the next run a look at containers that run.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension("sh"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frozen() -> Vec<Frozen> {
        vec![
            Frozen {
                object: "container db".into(),
                resume: Resume::Unpause("12".into()),
            },
            Frozen {
                object: "unit web.service".into(),
                resume: Resume::StartUnit("web.service".into()),
            },
        ]
    }

    #[test]
    fn a_record_is_left_when_its_process_is_gone() {
        let state = tempfile::tempdir().unwrap();
        assert!(Record::left(state.path()).is_empty());
        let record = Record::write(state.path(), "a", frozen()).unwrap();
        assert!(Record::left(state.path()).is_empty(), "it is held");
        drop(record);
        let left = Record::left(state.path());
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].frozen, frozen());
        assert!(Record::left(state.path()).is_empty(), "one takes care");
        for record in left {
            record.remove();
        }
        assert_eq!(std::fs::read_dir(folder(state.path())).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_record_is_removed() {
        let state = tempfile::tempdir().unwrap();
        make_private(&folder(state.path())).unwrap();
        let half = folder(state.path()).join("x.json");
        std::fs::write(&half, b"{\"format\":1,\"fro").unwrap();
        assert!(Record::left(state.path()).is_empty());
        assert!(!half.exists());
    }
}
