//! Running podman: the only place that does.
//!
//! A child sees a list of named variables and nothing else. With `INVOCATION_ID` in its
//! environment Podman would leave conmon in the caller's cgroup, and systemd would kill what was
//! started there when a backup unit ends; `NOTIFY_SOCKET` and `LISTEN_*` would be taken for its
//! own; `CONTAINER_HOST` would send it to another machine. It works in `/`, in a process group of
//! its own, so that Ctrl-C does not cut it off halfway: whoever runs it ends after the step.
//!
//! Podman is told no `--root`, `--storage-driver` and the like: each of them makes it forget
//! settings (`--root` a `volume_path`, `--storage-driver` all storage options), and this is the
//! caller's own Podman with the caller's own configuration. Paths are taken from what it answers.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde::de::DeserializeOwned;

use super::account::{self, Account};

/// Variables that a podman child may see.
const VARIABLES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "CONTAINERS_CONF",
    "CONTAINERS_CONF_OVERRIDE",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINERS_REGISTRIES_CONF",
    "REGISTRY_AUTH_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
    "PODMAN_IGNORE_CGROUPSV1_WARNING",
    // That this process is in the user namespace of a rootless Podman, and whose that is.
    "_CONTAINERS_USERNS_CONFIGURED",
    "_CONTAINERS_ROOTLESS_UID",
    "_CONTAINERS_ROOTLESS_GID",
];
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Standard output of one call: a host with 10,000 volumes prints some 5 MB.
const STDOUT_BYTES_MAX: usize = 64 << 20;
const STDERR_BYTES_MAX: usize = 64 << 10;
/// Of a message that is quoted.
const QUOTED_BYTES_MAX: usize = 1024;
/// A call that takes longer hangs. Podman's own locks are waited for within this.
const TIME_MAX: Duration = Duration::from_secs(120);
/// Standard input: fits into a pipe, so that writing it never waits.
const STDIN_BYTES_MAX: usize = 32 << 10;

/// A call of podman that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action} {object}: {cause}")]
pub struct PodmanError {
    /// What the call was for: "list", "create".
    pub action: &'static str,
    pub object: String,
    /// What podman said, in one line; or why it could not be run or understood.
    pub cause: String,
    /// Podman says that there is no such object.
    pub not_found: bool,
}

impl PodmanError {
    pub(super) fn new(
        action: &'static str,
        object: impl Into<String>,
        cause: impl fmt::Display,
    ) -> Self {
        Self {
            action,
            object: object.into(),
            cause: cause.to_string(),
            not_found: false,
        }
    }
}

/// What a call is for, in errors.
#[derive(Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub action: &'static str,
    pub object: &'a str,
}

impl Purpose<'_> {
    pub(super) fn error(self, cause: impl fmt::Display) -> PodmanError {
        PodmanError::new(self.action, self.object, cause)
    }
}

/// A call's end, however it ended.
pub(super) struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A podman that can be run.
#[derive(Clone, Debug)]
pub struct Podman {
    program: PathBuf,
    /// What starts it as somebody else: a program with its arguments.
    prefix: Vec<OsString>,
    /// Whom that is.
    user: Option<Account>,
    /// The caller came over a link and leaves with it: a user's session may end then.
    visits: bool,
    environment: Vec<(OsString, OsString)>,
}

impl Podman {
    /// Looks for podman in the `PATH` of `environment`, of which a child will see the variables
    /// that it may see. `None`: the host has no Podman.
    pub fn find(environment: &[(OsString, OsString)]) -> Option<Self> {
        let (environment, program) = with_program("podman", environment)?;
        Some(Self {
            program,
            prefix: Vec::new(),
            user: None,
            visits: false,
            environment,
        })
    }

    /// Another of Podman's family, run in the same way. `None`: it is not in the same `PATH`.
    pub(super) fn relative(&self, name: &str) -> Option<Self> {
        Some(Self {
            program: in_path(self.variable("PATH")?, name)?,
            prefix: self.prefix.clone(),
            user: self.user.clone(),
            visits: self.visits,
            environment: self.environment.clone(),
        })
    }

    /// What it is called.
    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
    }

    /// The rootless podman of another user, for root. `None`: the host has no Podman.
    pub fn of_user(
        account: &Account,
        environment: &[(OsString, OsString)],
    ) -> Result<Option<Self>, PodmanError> {
        let environment = account::environment(account, environment);
        let Some((environment, program)) = with_program("podman", &environment) else {
            return Ok(None);
        };
        let Some((_, setpriv)) = with_program("setpriv", &environment) else {
            return Err(PodmanError::new(
                "run podman as",
                format!("user {}", account.name),
                "this host has no setpriv (util-linux)",
            ));
        };
        let prefix = [
            setpriv.into_os_string(),
            format!("--reuid={}", account.uid).into(),
            format!("--regid={}", account.gid).into(),
            "--init-groups".into(),
        ];
        Ok(Some(Self {
            program,
            prefix: prefix.into(),
            user: Some(account.clone()),
            visits: false,
            environment,
        }))
    }

    /// The same, whose calls the kernel ends when podkeep ends before them, be it killed: what they
    /// write must not come between what the next run writes. Where setpriv (util-linux) cannot do
    /// that, they go on.
    pub(super) fn ending_with_us(&self) -> Self {
        const END: &str = "--pdeathsig";
        let mut podman = self.clone();
        let Some(setpriv) = self
            .variable("PATH")
            .and_then(|path| in_path(path, "setpriv"))
        else {
            return podman;
        };
        let purpose = Purpose {
            action: "ask",
            object: "setpriv what it can do",
        };
        let mut asked = command(setpriv.as_os_str(), &self.environment);
        asked.arg("--help");
        let told = run_bounded(asked, "setpriv", purpose, b"", TIME_MAX);
        if told.is_ok_and(|told| String::from_utf8_lossy(&told.stdout).contains(END)) {
            // Of another user, it begins with setpriv already.
            if podman.prefix.is_empty() {
                podman.prefix.push(setpriv.into_os_string());
            }
            podman.prefix.push(format!("{END}=KILL").into());
        }
        podman
    }

    /// Another program of the same `PATH`, run as whoever runs podkeep.
    pub(super) fn beside(&self, name: &str) -> Option<Self> {
        Some(Self {
            program: in_path(self.variable("PATH")?, name)?,
            prefix: Vec::new(),
            user: None,
            visits: false,
            environment: self.environment.clone(),
        })
    }

    /// What a call begins with.
    pub(super) fn words(&self) -> impl Iterator<Item = &OsStr> {
        let program = self.program.as_os_str();
        self.prefix.iter().map(OsString::as_os_str).chain([program])
    }

    /// All that its children see.
    pub(super) fn environment(&self) -> &[(OsString, OsString)] {
        &self.environment
    }

    /// A variable that its children see.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        let found = self.environment.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_os_str())
    }

    /// A call whose standard output is JSON.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        purpose: Purpose<'_>,
        arguments: &[&str],
    ) -> Result<T, PodmanError> {
        let stdout = self.run(purpose, arguments, b"")?;
        parse(purpose, &stdout)
    }

    /// A call that must succeed; returns what it printed.
    pub(super) fn run<A: AsRef<OsStr>>(
        &self,
        purpose: Purpose<'_>,
        arguments: &[A],
        stdin: &[u8],
    ) -> Result<Vec<u8>, PodmanError> {
        let ended = self.end(purpose, arguments, stdin)?;
        if ended.status.success() {
            return Ok(ended.stdout);
        }
        Err(failure(purpose, &ended))
    }

    /// A call that may fail.
    pub(super) fn end<A: AsRef<OsStr>>(
        &self,
        purpose: Purpose<'_>,
        arguments: &[A],
        stdin: &[u8],
    ) -> Result<Ended, PodmanError> {
        self.end_within(purpose, arguments, stdin, TIME_MAX)
    }

    /// The same, for a call that may take longer than most.
    pub(super) fn end_within<A: AsRef<OsStr>>(
        &self,
        purpose: Purpose<'_>,
        arguments: &[A],
        stdin: &[u8],
        time: Duration,
    ) -> Result<Ended, PodmanError> {
        let command = self.command(arguments);
        run_bounded(command, &self.name(), purpose, stdin, time)
    }

    /// For a caller who came over a link and leaves with it.
    pub fn of_a_visitor(mut self) -> Self {
        self.visits = true;
        self
    }

    /// The user whose session may end with podkeep, whose Podman it is.
    pub fn passing_user(&self) -> Result<Option<Account>, PodmanError> {
        match (&self.user, self.visits, self.rootless_ids()) {
            (Some(account), _, _) => Ok(Some(account.clone())),
            (None, true, Some((uid, _))) => Account::with_uid(uid),
            _ => Ok(None),
        }
    }

    /// The user in whose name it runs, when that is not the caller.
    pub fn user(&self) -> Option<&Account> {
        self.user.as_ref()
    }

    /// Whether it is a user's.
    pub fn is_rootless(&self) -> bool {
        let is_user = !rustix::process::geteuid().is_root();
        is_user || self.user.is_some() || self.variable("_CONTAINERS_ROOTLESS_UID").is_some()
    }

    /// User and group of the user whose it is, as the host counts; `None`: it is root's.
    pub fn rootless_ids(&self) -> Option<(u32, u32)> {
        if let Some(account) = &self.user {
            return Some((account.uid, account.gid));
        }
        let id = |name: &str| self.variable(name)?.to_str()?.parse().ok();
        let inside = id("_CONTAINERS_ROOTLESS_UID").zip(id("_CONTAINERS_ROOTLESS_GID"));
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        inside.or_else(|| (!uid.is_root()).then(|| (uid.as_raw(), gid.as_raw())))
    }

    /// A call whose standard input is what `feed` writes, however much that is. What `feed` fails
    /// with counts only if podman ends well: a podman that fails stops reading.
    pub(super) fn end_fed(
        &self,
        purpose: Purpose<'_>,
        arguments: &[&str],
        feed: &(dyn Fn(&mut dyn Write) -> std::io::Result<()> + Sync),
        time: Duration,
    ) -> Result<Ended, PodmanError> {
        let (reader, writer) = std::io::pipe().map_err(|error| purpose.error(error))?;
        let mut command = self.command(arguments);
        command.stdin(reader);
        let (ended, fed) = std::thread::scope(|scope| {
            let feeder = scope.spawn(move || {
                let mut writer = writer;
                feed(&mut writer)
            });
            // It takes its end of the pipe along, so that nobody is left to feed.
            let ended = run_bounded(command, "podman", purpose, b"", time);
            let fed = feeder.join();
            (ended, fed)
        });
        let ended = ended?;
        match fed {
            Ok(Err(error)) if ended.status.success() => Err(purpose.error(error)),
            _ => Ok(ended),
        }
    }

    /// A service of Podman's API on the socket `path`, which ends when nobody asked for
    /// `idle_seconds`.
    pub(super) fn service(
        &self,
        purpose: Purpose<'_>,
        path: &Path,
        idle_seconds: u32,
    ) -> Result<Child, PodmanError> {
        let mut address = OsString::from("unix://");
        address.push(path);
        let time = format!("--time={idle_seconds}");
        let arguments = ["system", "service", time.as_str()].map(OsString::from);
        let mut command = self.command(&[&arguments[..], &[address]].concat());
        // What it says of a request comes with the answer to it.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let spawned = command.spawn();
        spawned.map_err(|error| purpose.error(format!("{}: {error}", self.program.display())))
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut words = self.prefix.iter().map(OsString::as_os_str);
        let program = words.next().unwrap_or(self.program.as_os_str());
        let mut command = command(program, &self.environment);
        command.args(words);
        if !self.prefix.is_empty() {
            command.arg(&self.program);
        }
        command.args(arguments);
        command
    }

    /// A call that goes on; whoever starts it ends it. Makes no thread.
    pub(super) fn start(
        &self,
        purpose: Purpose<'_>,
        arguments: &[&str],
    ) -> Result<Child, PodmanError> {
        let mut command = self.command(arguments);
        let started = command.spawn();
        started.map_err(|error| purpose.error(format!("{}: {error}", self.program.display())))
    }
}

/// Runs another program of the host than podman, with its own messages in English, and takes a
/// failure for one.
pub(super) fn run_program<A: AsRef<OsStr>>(
    program: &'static str,
    purpose: Purpose<'_>,
    arguments: &[A],
    time: Duration,
) -> Result<Ended, PodmanError> {
    let environment = [("PATH", PATH_DEFAULT), ("LC_ALL", "C")];
    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    let mut command = command(program.as_ref(), &environment);
    command.args(arguments);
    let ended = run_bounded(command, program, purpose, b"", time)?;
    match ended.status.success() {
        true => Ok(ended),
        false => Err(failure(purpose, &ended)),
    }
}

fn command(program: &OsStr, environment: &[(OsString, OsString)]) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that runs podman"
    )]
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program to its end, within bounds of time and of what it prints.
fn run_bounded(
    mut command: Command,
    name: &str,
    purpose: Purpose<'_>,
    stdin: &[u8],
    time: Duration,
) -> Result<Ended, PodmanError> {
    let mut child = command.spawn().map_err(|error| {
        let program = command.get_program().display();
        purpose.error(format!("{program}: {error}"))
    })?;
    if stdin.len() > STDIN_BYTES_MAX {
        end_child(&mut child);
        return Err(purpose.error("too much input for one call"));
    }
    if let Some(mut pipe) = child.stdin.take() {
        // A podman that does not read it says itself why.
        let _ = pipe.write_all(stdin);
    }
    let stdout = gather(child.stdout.take(), STDOUT_BYTES_MAX);
    let stderr = gather(child.stderr.take(), STDERR_BYTES_MAX);
    let deadline = Instant::now() + time;
    let output = wait_for(&stdout, deadline)
        .and_then(|stdout| wait_for(&stderr, deadline).map(|stderr| (stdout, stderr)));
    let Some((stdout, stderr)) = output else {
        end_child(&mut child);
        return Err(purpose.error(format!("{name} did not end within {} s", time.as_secs())));
    };
    if stdout.len() > STDOUT_BYTES_MAX {
        end_child(&mut child);
        return Err(purpose.error(format!(
            "{name} printed more than {} MiB",
            STDOUT_BYTES_MAX >> 20
        )));
    }
    let status = child.wait().map_err(|error| purpose.error(error))?;
    Ok(Ended {
        status,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// The variables of `environment` that a child may see, and a program in its `PATH`.
fn with_program(
    name: &str,
    environment: &[(OsString, OsString)],
) -> Option<(Vec<(OsString, OsString)>, PathBuf)> {
    let mut environment: Vec<(OsString, OsString)> = environment
        .iter()
        .filter(|(name, _)| VARIABLES.iter().any(|allowed| name == *allowed))
        .cloned()
        .collect();
    let path = match environment.iter().find(|(name, _)| name == "PATH") {
        Some((_, path)) => path.clone(),
        None => {
            environment.push(("PATH".into(), PATH_DEFAULT.into()));
            PATH_DEFAULT.into()
        }
    };
    let program = in_path(&path, name)?;
    Some((environment, program))
}

pub(super) fn parse<T: DeserializeOwned>(
    purpose: Purpose<'_>,
    stdout: &[u8],
) -> Result<T, PodmanError> {
    serde_json::from_slice(stdout)
        .map_err(|error| purpose.error(format!("podman's answer is not understood: {error}")))
}

/// What a call that failed said.
pub(super) fn failure(purpose: Purpose<'_>, ended: &Ended) -> PodmanError {
    let said = quote(&ended.stderr);
    let lower = said.to_lowercase();
    let mut error = purpose.error(if said.is_empty() {
        format!("podman ended with {}", ended.status)
    } else {
        said
    });
    // Podman has one exit code for all failures; its words are all that tells them apart.
    error.not_found = ["no such volume", "no such container", "image not known"]
        .iter()
        .any(|words| lower.contains(words));
    error
}

/// The last line that podman said, without its "Error: ".
fn quote(stderr: &str) -> String {
    let line = stderr
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    shortened(line.strip_prefix("Error: ").unwrap_or(line))
}

/// As much of a line as is told to people.
pub(super) fn shortened(line: &str) -> String {
    let mut end = line.len().min(QUOTED_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}

/// Reads a pipe to its end, or to one byte more than `limit`, in a thread of its own: what podman
/// started may hold the pipe open longer than podman lives, and must not hold us.
fn gather(pipe: Option<impl Read + Send + 'static>, limit: usize) -> Receiver<Vec<u8>> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let mut pipe = pipe.take(limit as u64 + 1);
            // A pipe that breaks ends the output; the exit status tells the rest.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

fn wait_for(receiver: &Receiver<Vec<u8>>, deadline: Instant) -> Option<Vec<u8>> {
    receiver.recv_deadline(deadline).ok()
}

fn end_child(child: &mut Child) {
    // It may have ended by itself meanwhile.
    let _ = child.kill();
    let _ = child.wait();
}

/// The first program of that name in a list of folders.
fn in_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    path.as_encoded_bytes()
        .split(|byte| *byte == b':')
        .map(|folder| Path::new(OsStr::from_bytes(folder)))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| is_executable(program))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A podman that is a shell script, found by way of `PATH`.
    pub(crate) fn fake(folder: &Path, script: &str) -> Podman {
        let program = folder.join("podman");
        write_apart(&program, &format!("#!/bin/sh\n{script}\n"));
        let path = format!("{}:/usr/bin:/bin", folder.display());
        let environment = [
            ("PATH", path.as_str()),
            ("HOME", "/root"),
            ("INVOCATION_ID", "1"),
            ("NOTIFY_SOCKET", "/run/n"),
            ("LISTEN_FDS", "1"),
            ("CONTAINER_HOST", "ssh://elsewhere"),
        ]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Podman::find(&environment).expect("the script is there")
    }

    /// Another test's thread may fork while this process holds the script open for writing; its
    /// child then holds it too until it executes something, and running the script meanwhile
    /// fails with "text file busy". So a process of its own writes it.
    fn write_apart(program: &Path, script: &str) {
        #[expect(clippy::disallowed_methods, reason = "writes a script for a test")]
        let mut writer = Command::new("/bin/sh")
            .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
            .arg(program)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = writer.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(writer.wait().unwrap().success());
    }

    const PURPOSE: Purpose<'static> = Purpose {
        action: "test",
        object: "volume web",
    };

    #[test]
    fn a_child_sees_only_the_listed_variables_and_works_in_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(folder.path(), "env; echo pwd=$(pwd)");
        let printed = podman.run(PURPOSE, &["x"], b"").unwrap();
        let printed = String::from_utf8(printed).unwrap();
        let mut names: Vec<&str> = printed
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0))
            .collect();
        names.sort_unstable();
        // The shell itself adds PWD and perhaps SHLVL, OLDPWD and _.
        names.retain(|name| !["PWD", "SHLVL", "OLDPWD", "_"].contains(name));
        assert_eq!(names, ["HOME", "PATH", "pwd"]);
        assert!(printed.contains("pwd=/\n"), "{printed}");
    }

    #[test]
    fn a_failure_says_what_podman_said() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(
            folder.path(),
            "echo 'warning: x' >&2; echo 'Error: no such volume web' >&2; exit 125",
        );
        let error = podman.run(PURPOSE, &["volume"], b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot test volume web: no such volume web"
        );
        assert!(error.not_found);
    }

    #[test]
    fn a_podman_that_hangs_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(folder.path(), "exec sleep 600");
        let time = Duration::from_millis(200);
        let error = podman.end_within(PURPOSE, &["x"], b"", time).err().unwrap();
        assert!(error.cause.contains("did not end"), "{error}");
    }

    #[test]
    fn output_without_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(folder.path(), "exec yes");
        let error = podman.run(PURPOSE, &["x"], b"").unwrap_err();
        assert!(error.cause.contains("more than 64 MiB"), "{error}");
    }

    #[test]
    fn a_host_without_podman_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = (OsString::from("PATH"), folder.path().as_os_str().to_owned());
        assert!(Podman::find(&[path]).is_none());
    }
}
