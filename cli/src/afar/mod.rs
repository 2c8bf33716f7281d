//! A Podman on another machine: what two podkeeps tell each other of a command that one of them runs
//! for the other (`docs/decisions/0023-hosts-afar.md`).
//!
//! The near one has the person, the repository and the keys; the far one has the Podman, runs the
//! command as it would run it by itself, and says everything to the near one. What is said is JSON in
//! the words of the command line, so that both need to agree on little; what comes from the far side is
//! looked at before it is shown or done.

pub mod far;
pub mod near;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use podkeep_engine::link::Address;
use podkeep_engine::monitor::{Finding, FindingKind, FrozenFor, Progress, plain};
use podkeep_format::item::{Escaped, unescape};
use podkeep_format::snapshot::Consistency;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::Failure;

const HINT: &str = "it is ssh://[LOGIN@]HOST[:PORT][,sudo][,user=USER]";
/// Of one thing that is told, once its pieces are together.
const TOLD_BYTES_MAX: usize = 4 << 20;
/// Of the last answer.
const ENDED_BYTES_MAX: usize = 4 << 20;
/// Paths of a finding.
const PATHS_MAX: usize = 200;

/// Where another machine's Podman is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Afar {
    /// Its path means nothing.
    pub address: Address,
    /// Whose Podman; `None`: the login's, or root's.
    pub user: Option<String>,
    /// The login becomes root there.
    pub sudo: bool,
}

impl Afar {
    pub fn parse(text: &OsStr) -> Result<Self, Failure> {
        let wrong = |defect: &str| {
            let message = format!("{} is no host: {defect}", text.display());
            Failure::usage(message, HINT)
        };
        let bytes = text.as_bytes();
        let mut parts = bytes.split(|byte| *byte == b',');
        let place = parts.next().unwrap_or_default();
        let (mut user, mut sudo) = (None, false);
        for part in parts {
            match (part, part.strip_prefix(b"user=")) {
                (b"sudo", _) => sudo = true,
                (_, Some(name)) => {
                    let name = std::str::from_utf8(name).ok();
                    let name = name.filter(|name| !name.is_empty() && !name.contains('/'));
                    let name = name.ok_or_else(|| wrong("the user has no name that a user has"))?;
                    user = Some(name.to_owned());
                }
                _ => return Err(wrong("only sudo and a user stand behind a comma")),
            }
        }
        // It has no path: what lies there is podkeep's business.
        const PATH: &[u8] = b"/podkeep";
        let bare = !place["ssh://".len().min(place.len())..].contains(&b'/');
        let whole = [place, if bare { PATH } else { &PATH[1..] }].concat();
        let address = Address::parse(OsStr::from_bytes(&whole)).map_err(wrong)?;
        match address.path == PATH {
            true => Ok(Self {
                address,
                user,
                sudo,
            }),
            false => Err(wrong("it names a path")),
        }
    }

    /// For messages, and to tell one from another: `web1`, `alice@web1`.
    pub fn shown(&self) -> String {
        let mut shown = self.address.host_text();
        if self.sudo {
            shown.push_str(", sudo");
        }
        if let Some(user) = &self.user {
            shown.push_str(&format!(", user {user}"));
        }
        shown
    }
}

/// Something to be done there.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// A command line, without what is the near end's business; escaped as listings escape names.
    pub words: Vec<String>,
    pub repository: Option<Handed>,
}

/// The near end's repository; it is the store 0.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handed {
    pub place: String,
    pub keys: String,
    /// What is fetched of it may be cached there.
    pub may_keep: bool,
}

/// How it ended there.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    Done {
        exit: u8,
        text: Vec<String>,
        summary: Map<String, Value>,
    },
    Failed {
        code: String,
        message: String,
        hint: Option<String>,
        conflicts: Vec<String>,
        exit: u8,
    },
}

/// What is said meanwhile.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// A result, as a line of JSON and in words.
    Row {
        json: Value,
        text: String,
    },
    Json {
        json: Value,
    },
    Text {
        text: String,
        remark: bool,
    },
    Aside {
        text: String,
    },
    Finding {
        object: String,
        kind: String,
        snapshots: Vec<String>,
        paths: Vec<String>,
        message: String,
    },
    Phase {
        phase: String,
    },
    Expect {
        files: u64,
        bytes: u64,
    },
    Advance {
        files: u64,
        bytes: u64,
    },
    ItemStart {
        item: String,
    },
    ItemDone {
        item: String,
        files: u64,
        bytes: u64,
        bytes_new: u64,
        warnings: u64,
        frozen: Option<Frozen>,
    },
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
pub struct Frozen {
    how: String,
    seconds: f64,
    expected: f64,
}

impl Told {
    pub fn finding(finding: &Finding) -> Self {
        let paths = finding.paths.iter().take(PATHS_MAX);
        Self::Finding {
            object: finding.object.clone(),
            kind: finding.kind.as_str().to_owned(),
            snapshots: finding.snapshots.clone(),
            paths: paths.map(|path| Escaped(path).to_string()).collect(),
            message: finding.message.clone(),
        }
    }

    pub fn progress(progress: &Progress<'_>) -> Self {
        match *progress {
            Progress::Phase(phase) => Self::Phase {
                phase: phase.to_owned(),
            },
            Progress::Expect { files, bytes } => Self::Expect { files, bytes },
            Progress::Advance { files, bytes } => Self::Advance { files, bytes },
            Progress::ItemStart { item } => Self::ItemStart {
                item: item.to_owned(),
            },
            Progress::ItemDone {
                item,
                files,
                bytes,
                bytes_new,
                warnings,
                frozen,
            } => Self::ItemDone {
                item: item.to_owned(),
                files,
                bytes,
                bytes_new,
                warnings,
                frozen: frozen.map(|frozen| Frozen {
                    how: frozen.how.word().to_owned(),
                    seconds: frozen.seconds,
                    expected: frozen.expected,
                }),
            },
        }
    }
}

impl Frozen {
    fn into_engine(self) -> Option<FrozenFor> {
        let all = [Consistency::Live, Consistency::Pause, Consistency::Stop];
        let how = all.into_iter().find(|how| how.word() == self.how)?;
        Some(FrozenFor {
            how,
            seconds: self.seconds,
            expected: self.expected,
        })
    }
}

/// A finding of the other side. What a newer one tells is not overheard.
fn finding(
    object: &str,
    kind: &str,
    snapshots: Vec<String>,
    paths: &[String],
    message: &str,
) -> Finding {
    let known = FindingKind::ALL.into_iter().find(|k| k.as_str() == kind);
    Finding {
        object: plain(object),
        kind: known.unwrap_or(FindingKind::NotRestored),
        snapshots,
        paths: paths
            .iter()
            .filter_map(|p| unescape(p.as_bytes()))
            .collect(),
        message: plain(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_afar_is_a_login_a_host_a_port_and_a_user() {
        let parse = |text: &str| Afar::parse(OsStr::new(text));
        let whole = parse("ssh://root@web1:2222,user=alice").unwrap();
        assert_eq!(whole.shown(), "root@web1:2222, user alice");
        assert!(!whole.sudo);
        let whole = parse("ssh://admin@web1,sudo,user=alice").unwrap();
        assert_eq!(whole.shown(), "admin@web1, sudo, user alice");
        assert!(whole.sudo && parse("ssh://web1,sudo").unwrap().user.is_none());
        assert_eq!(parse("ssh://web1").unwrap().shown(), "web1");
        assert_eq!(parse("ssh://web1/").unwrap(), parse("ssh://web1").unwrap());
        assert_eq!(parse("ssh://[::1]:22").unwrap().shown(), "[::1]:22");
        for odd in [
            "ssh://",
            "ssh://web1/srv",
            "ssh://web1,user=",
            "ssh://web1,user=a/b",
            "ssh://web1:x",
            "ssh://web1,login=a",
            "ssh://web1,",
        ] {
            assert!(parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_is_told_comes_out_as_it_was_said() {
        let said = Finding {
            object: "volume:web".into(),
            kind: FindingKind::Changed,
            snapshots: vec!["ab".into()],
            paths: vec![b"a\nb\xff".to_vec()],
            message: "it changed".into(),
        };
        let Told::Finding {
            object,
            kind,
            snapshots,
            paths,
            message,
        } = Told::finding(&said)
        else {
            panic!("a finding is one");
        };
        assert_eq!(finding(&object, &kind, snapshots, &paths, &message), said);
        // From a host that is somebody else's.
        let odd = finding("a\x1b[2J", "newer", Vec::new(), &["\\x".into()], "b\nc");
        assert_eq!(
            (odd.object.as_str(), odd.message.as_str()),
            ("a [2J", "b c")
        );
        assert_eq!((odd.kind, odd.paths.len()), (FindingKind::NotRestored, 0));
    }
}
