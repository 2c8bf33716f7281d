//! The only place where an error becomes words, a hint and an exit code.

use std::fmt;

use podkeep_engine::fs::{FsError, FsErrorKind};
use podkeep_engine::host::HostError;
use podkeep_engine::link::LinkError;
use podkeep_engine::operations::OperationError;
use podkeep_engine::repo::RepoError;
use podkeep_engine::store::{StoreError, StoreErrorKind};

use crate::units;

/// What the process ends with. There is no other code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Done,
    Failed,
    Usage,
    Warnings,
    NoRepository,
    Busy,
    Key,
    Unreachable,
    /// By the signal with this number.
    Stopped(u8),
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Warnings => 3,
            Self::NoRepository => 10,
            Self::Busy => 11,
            Self::Key => 12,
            Self::Unreachable => 13,
            Self::Stopped(signal) => 128 + signal,
        }
    }

    /// What another podkeep ended with; what none ends with is a failure.
    pub fn of_code(code: u8) -> Self {
        let all = [
            Self::Done,
            Self::Usage,
            Self::Warnings,
            Self::NoRepository,
            Self::Busy,
            Self::Key,
            Self::Unreachable,
            Self::Stopped(2),
            Self::Stopped(15),
        ];
        let known = all.into_iter().find(|exit| exit.code() == code);
        known.unwrap_or(Self::Failed)
    }
}

/// The codes that another podkeep may fail with.
const CODES: [&str; 25] = [
    "usage",
    "no-passphrase",
    "bad-key-file",
    "local",
    "defect",
    "interrupted",
    "occupied",
    "unreachable",
    "no-match",
    "refused",
    "conflicts",
    "no-space",
    "no-repository",
    "wrong-passphrase",
    "key-insufficient",
    "key-revoked",
    "wrong-key-file",
    "swapped-repository",
    "damaged",
    "missing",
    "cache",
    "system",
    "podman",
    "busy",
    "io",
];

/// Why a command did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A stable word for programs.
    pub code: &'static str,
    /// Object, action, cause: one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What is in the way of what, for a restore; each line with the flag that resolves it.
    pub conflicts: Vec<String>,
    pub exit: Exit,
}

impl Failure {
    fn new(code: &'static str, exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: one_line(&message.to_string()),
            hint: None,
            conflicts: Vec::new(),
            exit,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.hint = (!hint.is_empty()).then(|| one_line(&hint));
        self
    }

    /// The request makes no sense.
    pub fn usage(message: String, hint: impl Into<String>) -> Self {
        Self::new("usage", Exit::Usage, message).hint(hint)
    }

    /// The passphrase or key is missing or cannot be had.
    pub fn passphrase(message: String, hint: impl Into<String>) -> Self {
        Self::new("no-passphrase", Exit::Key, message).hint(hint)
    }

    /// A key file that is not one.
    pub fn key_file(message: String) -> Self {
        Self::new("bad-key-file", Exit::Key, message).hint("`podkeep key export-write` writes one")
    }

    /// The local side: files, folders, standard output.
    pub fn local(action: &str, object: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(
            "local",
            Exit::Failed,
            format!("cannot {action} {object}: {cause}"),
        )
    }

    /// A place that has no default because the environment says too little.
    pub fn no_place(what: &str, hint: impl Into<String>) -> Self {
        Self::new(
            "usage",
            Exit::Usage,
            format!("{what} has no default: HOME is not set"),
        )
        .hint(hint)
    }

    /// podkeep itself is wrong.
    pub fn defect() -> Self {
        Self::new(
            "defect",
            Exit::Failed,
            "podkeep stopped because of a defect of its own, told above",
        )
        .hint("please report it, with what was printed")
    }

    /// SIGINT or SIGTERM came, and the command stopped cleanly.
    pub fn stopped(signal: u8) -> Self {
        Self::new(
            "interrupted",
            Exit::Stopped(signal),
            "interrupted; what was stored so far will be used by the next run",
        )
    }

    /// `init` met something at the place.
    pub fn occupied(message: impl fmt::Display) -> Self {
        Self::new("occupied", Exit::Failed, message)
            .hint("a repository is made only in an empty or absent folder")
    }

    /// Another host's podkeep cannot be reached.
    pub fn link(error: LinkError) -> Self {
        Self::new("unreachable", Exit::Unreachable, &error).hint(error.hint)
    }

    /// What a command on another machine failed with, in the words of the podkeep there.
    pub fn afar(
        host: &str,
        code: &str,
        message: &str,
        hint: Option<String>,
        conflicts: Vec<String>,
        exit: Exit,
    ) -> Self {
        let known = CODES.into_iter().find(|known| *known == code);
        let message = match exit {
            Exit::Stopped(_) => message.to_owned(),
            _ => format!("on {host}: {message}"),
        };
        let exit = match exit {
            // It says that it failed.
            Exit::Done => Exit::Failed,
            exit => exit,
        };
        Self {
            conflicts,
            ..Self::new(known.unwrap_or("refused"), exit, message)
        }
        .hint(hint.unwrap_or_default())
    }

    /// Maps what the engine says. `signal`: the one that came, if any.
    pub fn operation(error: OperationError, signal: Option<u8>) -> Self {
        match error {
            // Ctrl-C reaches ssh, too.
            OperationError::Store(ref error)
            | OperationError::Repository(RepoError::Store(ref error))
                if error.kind == StoreErrorKind::Unreachable && signal.is_some() =>
            {
                interrupted(signal)
            }
            OperationError::Repository(error) => repository(error, signal),
            OperationError::Store(error) => store(error),
            OperationError::Host(error) => host(error),
            OperationError::NoMatch { what, near } => {
                let hint = match near.as_slice() {
                    [] => String::new(),
                    near => format!("similar: {}", near.join(", ")),
                };
                Self::new("no-match", Exit::Failed, format!("{what} matches nothing")).hint(hint)
            }
            OperationError::Usage { message, hint } => Self::usage(message, hint),
            OperationError::Refused { message, hint } => {
                Self::new("refused", Exit::Failed, message).hint(hint)
            }
            OperationError::Conflicts { conflicts } => {
                let message = match conflicts.as_slice() {
                    [conflict] => format!("{conflict}; nothing was changed"),
                    _ => format!("{} conflicts; nothing was changed", conflicts.len()),
                };
                Self {
                    conflicts,
                    ..Self::new("conflicts", Exit::Failed, message)
                }
            }
            OperationError::NoRoom { needs } => {
                let needs = needs.iter().filter(|need| !need.fits());
                let message: Vec<String> = needs.map(units::need).collect();
                let message = format!("it {}; nothing was changed", message.join(", it "));
                Self::new("no-space", Exit::Failed, message)
                    .hint("make room there, or restore a part: ITEM:/PATH")
            }
            OperationError::Local {
                action,
                object,
                cause,
            } => Self::local(action, object, cause),
            OperationError::Interrupted => interrupted(signal),
        }
    }
}

fn interrupted(signal: Option<u8>) -> Failure {
    match signal {
        Some(signal) => Failure::stopped(signal),
        None => Failure::new("interrupted", Exit::Failed, "interrupted"),
    }
}

fn repository(error: RepoError, signal: Option<u8>) -> Failure {
    match error {
        RepoError::NoRepository { ref place } => {
            let hint = format!(
                "is its file system mounted, and the path right? To make one: podkeep -r {} init",
                shell_word(place)
            );
            Failure::new("no-repository", Exit::NoRepository, error).hint(hint)
        }
        RepoError::Occupied { .. } => Failure::new("occupied", Exit::Failed, error)
            .hint("a repository is made only in an empty or absent folder"),
        RepoError::WrongPassphrase => Failure::new("wrong-passphrase", Exit::Key, error),
        RepoError::KeyInsufficient { .. } => {
            Failure::new("key-insufficient", Exit::Key, error).hint("use a passphrase")
        }
        RepoError::KeyRevoked => Failure::new("key-revoked", Exit::Key, error)
            .hint("`podkeep key export-write` makes a new one"),
        RepoError::WrongKeyFile { .. } => Failure::new("wrong-key-file", Exit::Key, error)
            .hint("`podkeep key export-write` makes one for this repository"),
        RepoError::Swapped { .. } => Failure::new("swapped-repository", Exit::Failed, error)
            .hint("if you replaced it yourself, use another --cache-dir or delete the cache"),
        RepoError::Damaged { .. } => Failure::new("damaged", Exit::Failed, error)
            .hint("`podkeep check` says what is affected"),
        RepoError::Missing { .. } => Failure::new("missing", Exit::Failed, error)
            .hint("`podkeep check` says what is affected"),
        RepoError::Store(error) => store(error),
        RepoError::Refused { message, hint } => {
            Failure::new("refused", Exit::Failed, message).hint(hint)
        }
        RepoError::ReserveMissing => Failure::new("no-space", Exit::Failed, error),
        RepoError::Cache { .. } => Failure::new("cache", Exit::Failed, error)
            .hint("it may be deleted at any time; --cache-dir chooses another place"),
        RepoError::System { .. } => Failure::new("system", Exit::Failed, error),
        RepoError::Interrupted => interrupted(signal),
    }
}

fn store(error: StoreError) -> Failure {
    let (code, exit) = match error.kind {
        StoreErrorKind::NotFound => ("missing", Exit::Failed),
        StoreErrorKind::Conflict => ("conflict", Exit::Failed),
        StoreErrorKind::Short => ("damaged", Exit::Failed),
        StoreErrorKind::NoSpace => ("no-space", Exit::Failed),
        StoreErrorKind::NotWritable => ("not-writable", Exit::Failed),
        StoreErrorKind::Io => ("io", Exit::Failed),
        StoreErrorKind::Unreachable => ("unreachable", Exit::Unreachable),
    };
    let hint = match error.kind {
        StoreErrorKind::NoSpace => {
            "no space: the repository stays sound, listing and restoring go on working"
        }
        StoreErrorKind::NotFound | StoreErrorKind::Short => "`podkeep check` says what is affected",
        _ => "",
    };
    Failure::new(code, exit, error).hint(hint)
}

fn host(error: HostError) -> Failure {
    match error {
        HostError::Fs(error) => fs(error),
        HostError::Podman { .. } => Failure::new("podman", Exit::Failed, error),
        HostError::Refused { ref hint, .. } => {
            let hint = hint.clone();
            Failure::new("refused", Exit::Failed, error).hint(hint)
        }
        HostError::Unreachable { .. } => Failure::new("unreachable", Exit::Unreachable, error),
        HostError::Busy { .. } => {
            Failure::new("busy", Exit::Busy, error).hint("`--wait 10m` waits for it")
        }
    }
}

fn fs(error: FsError) -> Failure {
    let code = match error.kind {
        FsErrorKind::NotFound => "not-found",
        FsErrorKind::NoSpace => "no-space",
        FsErrorKind::Refused => "refused",
        FsErrorKind::NotExact => "not-exact",
        FsErrorKind::Other => "io",
    };
    Failure::new(code, Exit::Failed, error)
}

/// Journals take a message for each line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' => line.push_str("; "),
            c if c.is_control() => line.push(' '),
            c => line.push(c),
        }
    }
    line
}

/// Quoted where a shell would read it as anything but one word.
pub fn shell_word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkeep_engine::operations::SpaceNeed;
    use std::collections::BTreeSet;

    #[test]
    fn exit_codes_are_those_of_the_help_text() {
        let codes = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Warnings,
            Exit::NoRepository,
            Exit::Busy,
            Exit::Key,
            Exit::Unreachable,
            Exit::Stopped(2),
            Exit::Stopped(15),
        ]
        .map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 10, 11, 12, 13, 130, 143]);
    }

    #[test]
    fn o_02_warnings_share_no_code_with_failures_of_a_shell() {
        assert!(![0, 1, 2, 126, 127].contains(&Exit::Warnings.code()));
        assert!(Exit::Warnings.code() < 128);
    }

    #[test]
    fn o_14_messages_are_single_lines_with_object_action_and_cause() {
        let failure = Failure::operation(
            OperationError::Store(StoreError {
                action: "write",
                object: "/mnt/backup/packs/ab".to_owned(),
                kind: StoreErrorKind::NoSpace,
                cause: "No space left on device (os error 28)\nsecond line".to_owned(),
            }),
            None,
        );
        assert_eq!(failure.code, "no-space");
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(
            failure.message,
            "cannot write /mnt/backup/packs/ab: No space left on device (os error 28); second line"
        );
    }

    #[test]
    fn keys_and_places_have_their_own_codes() {
        let exit = |error: RepoError| Failure::operation(error.into(), None).exit;
        let place = || "/mnt/bacup".to_owned();
        assert_eq!(
            exit(RepoError::NoRepository { place: place() }),
            Exit::NoRepository
        );
        assert_eq!(exit(RepoError::WrongPassphrase), Exit::Key);
        assert_eq!(
            exit(RepoError::KeyInsufficient { action: "restore" }),
            Exit::Key
        );
        assert_eq!(
            Failure::operation(OperationError::Interrupted, Some(15))
                .exit
                .code(),
            143
        );
    }

    #[test]
    fn e_35_too_little_room_names_the_place_and_both_sizes() {
        let need = |place: &str, bytes| SpaceNeed {
            place: place.into(),
            bytes,
            bytes_free: 300_000_000,
        };
        let needs = vec![need("/srv", 1_200_000_000), need("/var", 10)];
        let failure = Failure::operation(OperationError::NoRoom { needs }, None);
        assert_eq!((failure.code, failure.exit), ("no-space", Exit::Failed));
        assert_eq!(
            failure.message,
            "it needs 1.2 GB in /srv, 300 MB free; nothing was changed"
        );
    }

    #[test]
    fn words_for_a_shell() {
        assert_eq!(shell_word("/mnt/backup"), "/mnt/backup");
        assert_eq!(shell_word("/mnt/my backup"), "'/mnt/my backup'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
    }

    #[test]
    fn every_code_is_documented_and_every_documented_code_is_used() {
        let source = include_str!("failure.rs");
        let source = &source[..source.find("mod tests").unwrap_or(source.len())];
        let words = |text: &str| -> BTreeSet<String> {
            let word =
                |w: &&str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            text.split('"')
                .skip(1)
                .step_by(2)
                .filter(word)
                .map(str::to_owned)
                .collect()
        };
        let documented: BTreeSet<String> = include_str!("../../docs/json.md")
            .lines()
            .skip_while(|line| !line.starts_with("| code"))
            .skip(2)
            .map_while(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
            .collect();
        assert!(documented.len() > 20);
        assert_eq!(words(source), documented);
    }
}
