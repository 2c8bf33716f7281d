//! Reaching a host with the user's own `ssh`.
//!
//! The program is run as the user would run it: its configuration, aliases, jump hosts, keys, agent
//! and known hosts are what they are, and nothing is looked up here (`docs/decisions`, "ssh"). A
//! conversation is one ssh process and one single command on the far side, without `cd`, pipes or
//! lists, so that a restricted shell can allow it; a forced command takes its place.
//!
//! Where a person sits at the terminal, and the user's configuration does not share connections
//! by itself, the connections of one run are shared, so that nobody is asked twice: the first to
//! ask lives on for some seconds, and ends by itself also when this process is killed.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::asking::NotBegun;
use super::{
    Address, Asking, Carrier, Ending, LinkError, Pipes, Program, RateLimit, Times, upload,
};

/// Of standard error, what is kept of its beginning and of its end.
const STDERR_BYTES: usize = 4 << 10;
/// Lines of it that are shown.
const STDERR_LINES: usize = 4;
/// How long a process may take to end once its output has.
const END_TIME: Duration = Duration::from_secs(5);
/// `sun_path` without its zero byte (unix(7)), and the 17 bytes that ssh appends to the path of a
/// control socket while it makes it.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET_SUFFIX_BYTES: usize = 17;
/// How long a shared connection outlives its last use.
const PERSIST_SECS: u32 = 15;
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How hosts are reached.
pub struct SshOptions {
    /// What ssh sees of the environment; secrets of podkeep's own (`PODKEEP_*`) are left out.
    pub environment: Vec<(OsString, OsString)>,
    /// Somebody is at the terminal and can be asked: for a passphrase, a new host's key.
    pub interactive: bool,
    /// Folders for control sockets, the best one first; the first that is short enough is taken.
    pub socket_folders: Vec<PathBuf>,
    /// The far side's podkeep, as its shell finds it.
    pub remote_path: Option<String>,
    /// What is put on hosts without podkeep.
    pub program: Option<Program>,
    /// Whose Podman the far side is to work on (`local:USER`), if it is to work on any.
    pub host: Option<String>,
    /// The login becomes root there, by `sudo -n`.
    pub sudo: bool,
    pub limit: Option<Arc<RateLimit>>,
    pub times: Times,
}

/// Starts `podkeep agent` on a host and greets it.
pub fn connect(address: &Address, options: &SshOptions) -> Result<Asking, LinkError> {
    let control = Control::choose(address, options);
    let ssh = Ssh {
        address,
        options,
        control: &control,
    };
    let mut rest = String::new();
    if let Some(host) = &options.host {
        let odd = |_| ssh.error("the user has a name that not every shell can be told", "");
        rest = format!(" --host {}", quote(host).map_err(odd)?);
    }
    match (&options.remote_path, &options.program) {
        (Some(path), _) => {
            let word = quote(path).map_err(|cause| ssh.error(cause, String::new()))?;
            ssh.begin_agent(&format!("{word} agent{rest}"))
                .map_err(|failed| ssh.explain(failed, path))
        }
        (None, Some(program)) => {
            let command = format!("{}{rest}", upload::command(program));
            match ssh.begin_agent(&command) {
                Err(failed) if failed.no_program => {
                    upload::upload(&ssh, program)?;
                    ssh.begin_agent(&command)
                        .map_err(|failed| match failed.no_program {
                            true => ssh.error(failed.error.cause, upload::RESTRICTED),
                            false => failed.error,
                        })
                }
                begun => begun.map_err(|failed| failed.error),
            }
        }
        (None, None) => ssh
            .begin_agent(&format!("podkeep agent{rest}"))
            .map_err(|failed| ssh.explain(failed, "podkeep")),
    }
}

/// One host and the way to it.
pub(super) struct Ssh<'a> {
    address: &'a Address,
    pub options: &'a SshOptions,
    control: &'a Control,
}

impl Ssh<'_> {
    pub fn error(&self, cause: impl Into<String>, hint: impl Into<String>) -> LinkError {
        LinkError {
            host: self.address.host_text(),
            cause: cause.into(),
            hint: hint.into(),
        }
    }

    /// Starts the agent, as root where the login is to become root.
    fn begin_agent(&self, command: &str) -> Result<Asking, NotBegun> {
        if !self.options.sudo {
            return self.begin(command);
        }
        self.begin(&by_sudo(command)).map_err(|mut failed| {
            // It ends with a code of those that mean that there is no program.
            if SUDO_REFUSES
                .iter()
                .any(|said| failed.error.cause.contains(said))
            {
                failed.no_program = false;
                failed.error.hint = NO_SUDO.into();
            }
            failed
        })
    }

    fn begin(&self, command: &str) -> Result<Asking, NotBegun> {
        self.with_or_without_sharing(
            |control| self.begin_with(command, control),
            |begun| matches!(begun, Err(failed) if failed.carrier_failed),
        )
    }

    /// Sharing connections is a comfort: where ssh fails with it, it may work without. What fails
    /// either way is told of as it failed the way that the user set up.
    fn with_or_without_sharing<R>(
        &self,
        attempt: impl Fn(&Control) -> R,
        ssh_failed: impl Fn(&R) -> bool,
    ) -> R {
        let first = attempt(self.control);
        if !ssh_failed(&first) || !self.control.shares() {
            return first;
        }
        let second = attempt(&Control::None);
        match ssh_failed(&second) {
            true => first,
            false => second,
        }
    }

    fn begin_with(&self, command: &str, control: &Control) -> Result<Asking, NotBegun> {
        let times = Times {
            greeting: match self.options.interactive {
                true => None,
                false => self.options.times.greeting,
            },
            ..self.options.times
        };
        let pipes = self.start(command, control).map_err(|error| NotBegun {
            error,
            no_program: false,
            carrier_failed: false,
        })?;
        let host = self.address.host_text();
        Asking::try_begin(pipes, &host, times, self.options.limit.clone())
    }

    fn start(&self, command: &str, control: &Control) -> Result<Pipes, LinkError> {
        let mut child = self.spawn(command, control)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let process = Process::watch(child);
        match (input, output) {
            (Some(input), Some(output)) => Ok(Pipes {
                input: Box::new(input),
                output: Box::new(output),
                carrier: Box::new(process),
            }),
            _ => Err(self.error("ssh has no pipes", "")),
        }
    }

    fn spawn(&self, command: &str, control: &Control) -> Result<Child, LinkError> {
        let mut ssh = self.program();
        ssh.args(arguments(self.address, self.options.interactive));
        control.add_to(&mut ssh);
        ssh.arg("--").arg(&self.address.host).arg(command);
        ssh.spawn().map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "install OpenSSH's client",
                _ => "",
            };
            self.error(format!("cannot run ssh: {error}"), hint)
        })
    }

    fn program(&self) -> Command {
        program(self.options)
    }

    /// Runs one command, gives it `input`, and waits at most `time`.
    pub fn run(&self, command: &str, input: &[u8], time: Duration) -> Result<Ran, LinkError> {
        let code = |ran: &Ran| ran.status.and_then(|status| status.code());
        self.with_or_without_sharing(
            |control| self.run_with(command, input, time, control),
            |ran| matches!(ran, Ok(ran) if code(ran) == Some(SSH_FAILED)),
        )
    }

    fn run_with(
        &self,
        command: &str,
        input: &[u8],
        time: Duration,
        control: &Control,
    ) -> Result<Ran, LinkError> {
        const STDOUT_BYTES_MAX: u64 = 64 << 10;
        let mut child = self.spawn(command, control)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let process = Process::watch(child);
        let deadline = Instant::now() + time;
        let limit = self.options.limit.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                use std::io::Write;
                let Some(mut stdin) = stdin else { return };
                for piece in input.chunks(64 << 10) {
                    if let Some(limit) = &limit {
                        limit.take(piece.len());
                    }
                    // A command that does not read it says itself why.
                    if stdin.write_all(piece).is_err() {
                        return;
                    }
                }
            });
            let output = scope.spawn(move || {
                let mut output = Vec::new();
                if let Some(stdout) = stdout {
                    // A pipe that breaks ends the output; the exit status tells the rest.
                    let _ = stdout.take(STDOUT_BYTES_MAX).read_to_end(&mut output);
                }
                output
            });
            while !output.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            if !output.is_finished() {
                process.end();
            }
            let status = process.wait(END_TIME);
            process.end();
            let stdout = output.join().unwrap_or_default();
            Ok(Ran {
                status,
                stdout: String::from_utf8_lossy(&stdout).into_owned(),
                stderr: process.stderr_text(),
            })
        })
    }

    /// Adds to a failure what is wrong with the far side's podkeep.
    fn explain(&self, failed: NotBegun, path: &str) -> LinkError {
        let error = failed.error;
        if !failed.no_program {
            return error;
        }
        let Some(found) = upload::look_for(self, path) else {
            let hint = "--remote-path names the podkeep that is installed there";
            return self.error(error.cause, hint);
        };
        self.error(format!("{}; {}", found.cause, error.cause), found.hint)
    }
}

/// What makes `sudo -n` work.
const NO_SUDO: &str = "sudo must ask for no password there (NOPASSWD in sudoers(5)), and for no terminal; or \
                       log in as root";

/// What sudo says when it does not do it.
const SUDO_REFUSES: [&str; 5] = [
    "a password is required",
    "must have a tty",
    "no tty present",
    "not in the sudoers file",
    "is not allowed to",
];

/// The command as root. sudo itself says of a program that is not there nothing that tells it from other
/// failures, so that the shell looks first: 127 is its own word for that. It looks where root's programs are,
/// too, and names the place, which sudo may not look in.
fn by_sudo(command: &str) -> String {
    format!(
        "sh -c 'p=$(PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; command -v \"$1\") || exit 127; shift; \
         exec sudo -n -- \"$p\" \"$@\"' podkeep {command}"
    )
}

/// The exit code that means ssh itself, not the far command (ssh(1), EXIT STATUS).
const SSH_FAILED: i32 = 255;

/// How one command ended.
pub(super) struct Ran {
    pub status: Option<ExitStatus>,
    pub stdout: String,
    pub stderr: String,
}

/// What stands in front of `-- HOST COMMAND`, besides sharing connections.
fn arguments(address: &Address, interactive: bool) -> Vec<OsString> {
    // No terminal, no forwarding of anything: `ssh` is a pipe here. A `RemoteCommand` of the
    // user's configuration would refuse ours.
    let mut arguments: Vec<OsString> = [
        "-T",
        "-o",
        "ClearAllForwardings=yes",
        "-o",
        "ForwardX11=no",
        "-o",
        "ForwardAgent=no",
        "-o",
        "RemoteCommand=none",
    ]
    .map(OsString::from)
    .into();
    if !interactive {
        arguments.extend(["-o", "BatchMode=yes"].map(OsString::from));
    }
    if let Some(port) = address.port {
        arguments.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(login) = &address.login {
        arguments.extend(["-l".into(), login.into()]);
    }
    arguments
}

fn program(options: &SshOptions) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that runs ssh, with what it may see"
    )]
    let mut command = Command::new("ssh");
    let hidden = |name: &OsStr| name.as_bytes().starts_with(b"PODKEEP_");
    command
        .env_clear()
        .env("PATH", PATH_DEFAULT)
        .envs(
            options
                .environment
                .iter()
                .filter(|(name, _)| !hidden(name))
                .map(|(name, value)| (name, value)),
        )
        // A caller's directory may be one that its user may not enter, or one that goes away.
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !options.interactive {
        // Ctrl-C is for podkeep, which ends the conversation. With a person at the terminal ssh
        // must stay in front of it, to ask.
        command.process_group(0);
    }
    command
}

/// Whether connections are shared, and how.
#[derive(Debug)]
enum Control {
    /// As the user's configuration says, and whether that shares them: nothing is added.
    Own { shares: bool },
    /// Sharing is switched off.
    None,
    /// In a folder of ours.
    Socket(SocketFolder),
}

impl Control {
    fn choose(address: &Address, options: &SshOptions) -> Self {
        let shares = shares_by_itself(address, options);
        if shares || !options.interactive {
            return Self::Own { shares };
        }
        let folder = options
            .socket_folders
            .iter()
            .find_map(|folder| SocketFolder::make(folder));
        folder.map_or(Self::Own { shares }, Self::Socket)
    }

    fn shares(&self) -> bool {
        matches!(self, Self::Own { shares: true } | Self::Socket(_))
    }

    fn add_to(&self, ssh: &mut Command) {
        let mut option = |text: OsString| {
            ssh.arg("-o").arg(text);
        };
        match self {
            Self::Own { .. } => {}
            Self::None => option("ControlPath=none".into()),
            Self::Socket(folder) => {
                let mut path = OsString::from("ControlPath=");
                path.push(folder.socket());
                option(path);
                option("ControlMaster=auto".into());
                option(format!("ControlPersist={PERSIST_SECS}").into());
            }
        }
    }
}

/// A private folder for one control socket; goes when it is dropped.
#[derive(Debug)]
struct SocketFolder(PathBuf);

impl SocketFolder {
    /// `None`: the path would be too long for a socket, or nothing can be made there.
    fn make(parent: &Path) -> Option<Self> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).ok()?;
        let name = format!("pk-{:08x}", u32::from_le_bytes(random));
        let folder = Self(parent.join(name));
        let len = folder.socket().as_os_str().len();
        // ssh expands tokens in the path.
        let plain = !parent
            .as_os_str()
            .as_bytes()
            .iter()
            .any(|b| b"%$~\"' ".contains(b));
        if len + SOCKET_SUFFIX_BYTES > SOCKET_PATH_BYTES_MAX || !plain {
            return None;
        }
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder.0)
            .ok()?;
        Some(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        // ssh removes its socket when it ends, some seconds later; its folder is of no use then.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether the user's own configuration names a control socket for this host. ssh answers without
/// connecting anywhere.
fn shares_by_itself(address: &Address, options: &SshOptions) -> bool {
    let mut ssh = program(options);
    ssh.arg("-G").args(arguments(address, false));
    ssh.stdin(Stdio::null()).stderr(Stdio::null());
    let answer = ssh.arg("--").arg(&address.host).output();
    let Ok(answer) = answer else {
        return false;
    };
    String::from_utf8_lossy(&answer.stdout)
        .lines()
        .filter_map(|line| line.strip_prefix("controlpath "))
        .any(|path| path != "none")
}

/// A word of the far side's command line, for whatever shell is there.
pub(super) fn quote(word: &str) -> Result<String, &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%,=~".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) && !word.starts_with('-') {
        return Ok(word.to_owned());
    }
    // Within single quotes, these mean something to some shell (`!` to csh, `\` to fish).
    let odd = |c: char| c.is_control() || "'\\!".contains(c);
    if word.is_empty() || word.starts_with('-') || word.contains(odd) {
        return Err("the far side's podkeep has a name that not every shell can be told");
    }
    Ok(format!("'{word}'"))
}

/// An ssh process, with what it says on standard error.
struct Process {
    child: Mutex<Child>,
    stderr: Arc<Mutex<Ends>>,
}

/// The beginning and the end of what was said.
#[derive(Default)]
struct Ends {
    first: Vec<u8>,
    last: Vec<u8>,
    done: bool,
}

impl Ends {
    fn add(&mut self, bytes: &[u8]) {
        let room = STDERR_BYTES - self.first.len().min(STDERR_BYTES);
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        self.first.extend_from_slice(first);
        self.last.extend_from_slice(rest);
        let over = self.last.len().saturating_sub(STDERR_BYTES);
        self.last.drain(..over);
    }
}

impl Process {
    fn watch(mut child: Child) -> Self {
        let stderr = Arc::new(Mutex::new(Ends::default()));
        if let Some(mut pipe) = child.stderr.take() {
            let ends = Arc::clone(&stderr);
            // Without the thread ssh could block on what it says.
            let reader = move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                    lock(&ends).add(&buffer[..read]);
                }
                lock(&ends).done = true;
            };
            let thread = std::thread::Builder::new().name("podkeep-stderr".to_owned());
            drop(thread.spawn(reader));
        }
        Self {
            child: Mutex::new(child),
            stderr,
        }
    }

    fn wait(&self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            if let Ok(Some(status)) = lock(&self.child).try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines of standard error, as one.
    fn stderr_text(&self) -> String {
        // A shared connection may hold the pipe open.
        let deadline = Instant::now() + Duration::from_millis(300);
        while !lock(&self.stderr).done && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ends = lock(&self.stderr);
        let said = [ends.first.as_slice(), &ends.last].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let from = lines.len().saturating_sub(STDERR_LINES);
        lines[from..].join("; ")
    }
}

impl Carrier for Process {
    fn end(&self) {
        let mut child = lock(&self.child);
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        let _ = child.wait();
    }

    fn last_words(&self) -> Option<Ending> {
        let status = self.wait(END_TIME);
        let said = self.stderr_text();
        status.map_or_else(
            || Some(ending("ssh did not end by itself".to_owned(), &said)),
            |status| judge(status, &said),
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ending(what: String, said: &str) -> Ending {
    Ending {
        cause: match said.is_empty() {
            true => what,
            false => format!("{what}: {said}"),
        },
        hint: String::new(),
        no_program: false,
        carrier_failed: false,
    }
}

/// What an exit status of ssh means: 255 is its own failure, and no far command of ours ends with
/// it; any other is the far command's; 127 and 126 are a shell's that finds no program, or one that
/// it cannot run (csh says 1).
fn judge(status: ExitStatus, said: &str) -> Option<Ending> {
    if let Some(signal) = status.signal() {
        let what = format!("ssh was ended by signal {signal}");
        return Some(ending(what, said));
    }
    let code = status.code().unwrap_or_default();
    let mut ending = match code {
        0 => return None,
        // So it ends, too, when the far command is killed.
        255 if said.is_empty() => {
            let what = "ssh failed without a word, or the far side's command was killed";
            ending(what.to_owned(), said)
        }
        255 => ending("ssh failed".to_owned(), said),
        _ => ending(
            format!("the far side's command ended with code {code}"),
            said,
        ),
    };
    ending.carrier_failed = code == SSH_FAILED;
    ending.no_program = matches!(code, 1 | 126 | 127);
    Some(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code)
    }

    #[test]
    fn t_11_ssh_s_own_failure_is_told_from_the_far_command_s() {
        assert_eq!(judge(status(0), "banner"), None);
        let own = judge(status(255 << 8), "Connection refused").unwrap();
        assert!(own.carrier_failed && !own.no_program);
        assert_eq!(own.cause, "ssh failed: Connection refused");
        let far = judge(status(127 << 8), "sh: podkeep: not found").unwrap();
        assert!(far.no_program && !far.carrier_failed);
        assert!(far.cause.contains("code 127: sh: podkeep"), "{far:?}");
        let killed = judge(status(9), "").unwrap();
        assert_eq!(killed.cause, "ssh was ended by signal 9");
    }

    #[test]
    fn t_07_a_control_socket_has_a_short_path_or_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let made = SocketFolder::make(folder.path()).unwrap();
        let path = made.socket();
        assert!(path.as_os_str().len() + 17 <= 107);
        let mode = std::os::unix::fs::MetadataExt::mode(&made.0.metadata().unwrap());
        assert_eq!(mode & 0o777, 0o700);
        let kept = made.0.clone();
        drop(made);
        assert!(!kept.exists());
        let long = folder.path().join("x".repeat(90));
        std::fs::create_dir(&long).unwrap();
        assert!(SocketFolder::make(&long).is_none());
        assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
        assert!(SocketFolder::make(Path::new("/absent")).is_none());
    }

    #[test]
    fn t_16_words_of_the_far_command_are_the_same_for_every_shell() {
        assert_eq!(quote("/opt/podkeep").unwrap(), "/opt/podkeep");
        assert_eq!(quote("~/bin/podkeep").unwrap(), "~/bin/podkeep");
        assert_eq!(
            quote("/opt/my tools/podkeep").unwrap(),
            "'/opt/my tools/podkeep'"
        );
        for odd in ["", "-x", "it's", "a\\b", "a!b", "a\nb"] {
            assert!(quote(odd).is_err(), "{odd:?}");
        }
    }
}
