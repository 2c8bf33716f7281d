//! Where the passphrase or key comes from.
//!
//! First what the command line says, then the environment, then a terminal; nothing else ever
//! asks. Without a terminal a missing passphrase is an error at once, never a prompt that a timer
//! unit would hang in.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::places::Place;

/// Bytes of a passphrase. More is taken for a wrong file.
const PASSPHRASE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a key file.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// The name of the credential in `$CREDENTIALS_DIRECTORY`.
const CREDENTIAL: &str = "podkeep-password";

const HINT: &str = "give one with --password-file, --password-command, PODKEEP_PASSWORD_FILE, \
                    PODKEEP_PASSWORD_COMMAND, PODKEEP_PASSWORD or the credential podkeep-password";

const LIKE_HINT: &str = "give it with --like-password-file, --like-password-command, \
                         PODKEEP_LIKE_PASSWORD_FILE or PODKEEP_LIKE_PASSWORD_COMMAND";

pub type Passphrase = Zeroizing<Vec<u8>>;

/// What the command line says about it.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub password_file: Option<PathBuf>,
    pub password_command: Option<OsString>,
    pub key_file: Option<PathBuf>,
}

/// Where it is to be taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    Command(OsString),
    /// The value of PODKEEP_PASSWORD.
    Value(OsString),
    /// A file with a write key.
    KeyFile(PathBuf),
    Terminal,
}

/// The secret itself.
pub enum Secret {
    Passphrase(Passphrase),
    WriteKey(Zeroizing<Vec<u8>>),
}

/// Decides by precedence; reads nothing but `variable`, which looks into the environment.
/// Empty variables count as unset.
pub fn origin(given: &Given, variable: &dyn Fn(&str) -> Option<OsString>) -> Origin {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(file) = &given.password_file {
        return Origin::File(file.clone());
    }
    if let Some(command) = &given.password_command {
        return Origin::Command(command.clone());
    }
    if let Some(file) = given
        .key_file
        .clone()
        .or(set("PODKEEP_KEY_FILE").map(PathBuf::from))
    {
        return Origin::KeyFile(file);
    }
    if let Some(file) = set("PODKEEP_PASSWORD_FILE") {
        return Origin::File(file.into());
    }
    if let Some(command) = set("PODKEEP_PASSWORD_COMMAND") {
        return Origin::Command(command);
    }
    // Set but empty is a passphrase, though not one that is accepted.
    if let Some(value) = variable("PODKEEP_PASSWORD") {
        return Origin::Value(value);
    }
    if let Some(folder) = set("CREDENTIALS_DIRECTORY") {
        let file = Path::new(&folder).join(CREDENTIAL);
        if file.exists() {
            return Origin::File(file);
        }
    }
    Origin::Terminal
}

/// As [`origin`], of the repository that `init --like` names.
pub fn origin_of_like(given: &Given, variable: &dyn Fn(&str) -> Option<OsString>) -> Origin {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(file) = &given.password_file {
        return Origin::File(file.clone());
    }
    if let Some(command) = &given.password_command {
        return Origin::Command(command.clone());
    }
    if let Some(file) = set("PODKEEP_LIKE_PASSWORD_FILE") {
        return Origin::File(file.into());
    }
    match set("PODKEEP_LIKE_PASSWORD_COMMAND") {
        Some(command) => Origin::Command(command),
        None => Origin::Terminal,
    }
}

/// Reads the passphrase of the repository at `place` that `init --like` names.
pub fn read_like(origin: &Origin, place: &Place) -> Result<Passphrase, Failure> {
    if *origin == Origin::Terminal {
        needs_terminal(&format!("the passphrase of {place} is missing"), LIKE_HINT)?;
        return not_empty(prompt(&format!("Passphrase of {place}: "))?);
    }
    from_elsewhere(origin)
}

/// Reads the secret that opens a repository.
pub fn read(origin: &Origin) -> Result<Secret, Failure> {
    match origin {
        Origin::KeyFile(path) => Ok(Secret::WriteKey(read_file(
            path,
            KEY_FILE_BYTES_MAX,
            "key file",
        )?)),
        Origin::Terminal => {
            needs_terminal("the repository's passphrase is missing", HINT)?;
            not_empty(prompt("Passphrase: ")?).map(Secret::Passphrase)
        }
        other => from_elsewhere(other).map(Secret::Passphrase),
    }
}

/// Reads a passphrase that is to be set: on a terminal it is asked for twice.
pub fn read_new(origin: &Origin) -> Result<Passphrase, Failure> {
    match origin {
        Origin::KeyFile(_) => Err(Failure::passphrase(
            "a write key sets no passphrase".to_owned(),
            HINT,
        )),
        Origin::Terminal => {
            needs_terminal("the new passphrase is missing", HINT)?;
            let first = not_empty(prompt("New passphrase: ")?)?;
            let again = prompt("Once more: ")?;
            if first != again {
                return Err(Failure::passphrase(
                    "the two passphrases differ".to_owned(),
                    "",
                ));
            }
            Ok(first)
        }
        other => from_elsewhere(other),
    }
}

fn from_elsewhere(origin: &Origin) -> Result<Passphrase, Failure> {
    let bytes = match origin {
        Origin::File(path) => read_file(path, PASSPHRASE_BYTES_MAX, "passphrase file")?,
        Origin::Command(command) => run(command)?,
        Origin::Value(value) => Zeroizing::new(value.as_bytes().to_vec()),
        Origin::KeyFile(_) | Origin::Terminal => Zeroizing::new(Vec::new()),
    };
    not_empty(without_newline(bytes))
}

fn not_empty(passphrase: Passphrase) -> Result<Passphrase, Failure> {
    if passphrase.is_empty() {
        return Err(Failure::passphrase(
            "the passphrase is empty".to_owned(),
            HINT,
        ));
    }
    Ok(passphrase)
}

/// Drops one trailing newline: editors and `echo` put it there.
fn without_newline(mut bytes: Passphrase) -> Passphrase {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes
}

fn needs_terminal(message: &str, hint: &'static str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        Ok(())
    } else {
        Err(Failure::passphrase(
            format!("{message}, and there is no terminal to ask on"),
            hint,
        ))
    }
}

fn prompt(text: &str) -> Result<Passphrase, Failure> {
    match rpassword::prompt_password(text) {
        Ok(passphrase) => Ok(Zeroizing::new(passphrase.into_bytes())),
        Err(error) => Err(Failure::passphrase(
            format!("cannot read the passphrase from the terminal: {error}"),
            HINT,
        )),
    }
}

fn read_file(path: &Path, bytes_max: u64, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let fail = |cause: &dyn std::fmt::Display| {
        Failure::passphrase(
            format!("cannot read the {what} {}: {cause}", path.display()),
            "",
        )
    };
    let file = File::open(path).map_err(|e| fail(&e))?;
    read_bounded(file, bytes_max).map_err(|e| fail(&e))
}

fn read_bounded(input: impl Read, bytes_max: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Reserved in one piece: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max as usize + 1));
    input.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!(
            "it is longer than {bytes_max} bytes"
        )));
    }
    Ok(bytes)
}

/// Runs the command with `sh -c`. What it says on standard error is shown as it is.
fn run(command: &OsStr) -> Result<Passphrase, Failure> {
    let fail = |cause: String| {
        Failure::passphrase(
            format!(
                "the passphrase command `{}` failed: {cause}",
                String::from_utf8_lossy(&command.to_os_string().into_vec())
            ),
            "",
        )
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the one program that the command line starts is the user's own passphrase command"
    )]
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| fail(format!("cannot start sh: {error}")))?;
    let read = match child.stdout.take() {
        Some(stdout) => read_bounded(stdout, PASSPHRASE_BYTES_MAX),
        None => Err(std::io::Error::other("its output is not there")),
    };
    let status = child.wait().map_err(|error| fail(error.to_string()))?;
    if !status.success() {
        return Err(fail(status.to_string()));
    }
    read.map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(given: &Given, variables: &[(&str, &str)]) -> Origin {
        origin(given, &|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn what_is_nearer_wins() {
        let all = [
            ("PODKEEP_PASSWORD_FILE", "/file"),
            ("PODKEEP_PASSWORD_COMMAND", "command"),
            ("PODKEEP_PASSWORD", "value"),
        ];
        let none = Given::default();
        assert_eq!(from(&none, &all), Origin::File("/file".into()));
        assert_eq!(from(&none, &all[1..]), Origin::Command("command".into()));
        assert_eq!(from(&none, &all[2..]), Origin::Value("value".into()));
        assert_eq!(from(&none, &[]), Origin::Terminal);
        let command = Given {
            password_command: Some("mine".into()),
            ..Given::default()
        };
        assert_eq!(
            from(&command, &[("PODKEEP_KEY_FILE", "/key"), all[0]]),
            Origin::Command("mine".into())
        );
        assert_eq!(
            from(&none, &[("PODKEEP_KEY_FILE", "/key"), all[0]]),
            Origin::KeyFile("/key".into())
        );
    }

    #[test]
    fn the_credential_counts_only_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let variables = [("CREDENTIALS_DIRECTORY", path)];
        let none = Given::default();
        assert_eq!(from(&none, &variables), Origin::Terminal);
        let file = folder.path().join(CREDENTIAL);
        std::fs::File::create(&file).unwrap();
        assert_eq!(from(&none, &variables), Origin::File(file));
    }

    #[test]
    fn one_trailing_newline_is_dropped() {
        for (read, kept) in [("a\n", "a"), ("a\n\n", "a\n"), ("a", "a"), (" a ", " a ")] {
            assert_eq!(
                without_newline(Zeroizing::new(read.into())).as_slice(),
                kept.as_bytes()
            );
        }
        assert!(not_empty(without_newline(Zeroizing::new(b"\n".to_vec()))).is_err());
    }

    #[test]
    fn commands_run_in_a_shell_and_their_failure_is_told() {
        let passphrase = |command: &str| from_elsewhere(&Origin::Command(command.into()));
        assert_eq!(passphrase("echo a; echo b").unwrap().as_slice(), b"a\nb");
        let failure = passphrase("exit 7").unwrap_err();
        assert_eq!(failure.exit, crate::failure::Exit::Key);
        assert!(failure.message.contains("exit status: 7"), "{failure:?}");
        assert!(passphrase("head -c 100000 /dev/zero").is_err());
    }
}
