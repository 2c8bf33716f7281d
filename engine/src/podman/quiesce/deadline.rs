//! The thaw that happens by itself: a process of its own, which does not depend on podkeep.
//!
//! It is a shell script in the state folder that a systemd timer runs, outside the cgroup of whoever
//! runs podkeep; where there is no systemd, a process that sleeps. It does nothing when the record
//! of what was frozen is gone. `podman` gets the same variables as from podkeep: the timer's
//! service has an `INVOCATION_ID` of its own, with which what it starts would end when it ends. Of a
//! user who is not root it is the user's own systemd, whose timers run outside Podman's user
//! namespace while podkeep is inside.

use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::podman::command::{Podman, PodmanError, Purpose};

use super::manager::Manager;

/// Tries of the script, a second apart: Podman's database may be locked, say.
const TRIES: u32 = 300;

/// How variables begin that say that a process is in a rootless Podman's user namespace. The script
/// passes them on where it has them: in a process of podkeep's, not in a timer's.
const NAMESPACE_VARIABLES: &[u8] = b"_CONTAINERS_";

/// What sets one thing going again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// The container's id.
    Unpause(String),
    /// The container's id.
    Start(String),
    /// The container's id: from its checkpoint, or else anew.
    Restore(String),
    StartUnit(String),
}

/// A thaw that is armed.
pub struct Deadline {
    script: PathBuf,
    armed: Armed,
}

enum Armed {
    /// The timer's name, without what tells that it is one.
    Timer {
        units: Manager,
        name: String,
    },
    Process(std::process::Child),
}

impl Deadline {
    /// After `time` everything of `what` is set going, unless `record` is gone by then. `name` is
    /// unique on this host. The script lies beside the record.
    pub fn arm(
        podman: &Podman,
        record: &Path,
        name: &str,
        what: &[Resumption],
        time: Duration,
    ) -> Result<Self, PodmanError> {
        let script = record.with_extension("sh");
        let purpose = Purpose {
            action: "arm",
            object: "the thaw of what is about to be frozen",
        };
        write(&script, &text(podman, record, &script, what))
            .map_err(|error| purpose.error(format!("{}: {error}", script.display())))?;
        let armed = match Self::timer(podman, &script, name, time) {
            Some(timer) => timer,
            None => process(podman, &script, time).map_err(|error| {
                let _ = std::fs::remove_file(&script);
                purpose.error(error)
            })?,
        };
        Ok(Self { script, armed })
    }

    /// `None`: systemd does not run here, or does not do it.
    fn timer(podman: &Podman, script: &Path, name: &str, time: Duration) -> Option<Armed> {
        let units = Manager::of_timers(podman)?;
        let run = podman.beside("systemd-run")?;
        let name = timer_name(name);
        let purpose = Purpose {
            action: "arm",
            object: "a timer",
        };
        let after = format!("--on-active={}ms", time.as_millis());
        let unit = format!("--unit={name}");
        let shell = "/bin/sh".as_ref();
        let arguments: [&std::ffi::OsStr; 10] = [
            units.scope.as_ref(),
            "--quiet".as_ref(),
            "--collect".as_ref(),
            after.as_ref(),
            unit.as_ref(),
            "--timer-property=AccuracySec=100ms".as_ref(),
            "--description=Sets going again what podkeep froze".as_ref(),
            "--".as_ref(),
            shell,
            script.as_os_str(),
        ];
        run.run(purpose, &arguments, b"").ok()?;
        Some(Armed::Timer { units, name })
    }

    /// Disarms what another process armed under that name, if it is a timer. A process that sleeps
    /// wakes up to find nothing.
    pub fn forget(podman: &Podman, name: &str) {
        if let Some(units) = Manager::of_timers(podman) {
            stop_timer(&units, &timer_name(name));
        }
    }

    /// Nothing is frozen any more.
    pub fn disarm(self) {
        // First: a script that begins now finds nothing to do, and one that is gone is no trouble.
        let _ = std::fs::remove_file(&self.script);
        match self.armed {
            Armed::Timer { units, name } => stop_timer(&units, &name),
            Armed::Process(mut child) => {
                // With what sleeps for it: it is the first of its process group.
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
            }
        }
    }
}

fn timer_name(name: &str) -> String {
    format!("podkeep-thaw-{name}")
}

fn stop_timer(units: &Manager, name: &str) {
    let purpose = Purpose {
        action: "stop",
        object: name,
    };
    let timer = format!("{name}.timer");
    // One that stays finds nothing to do.
    let _ = units.run(purpose, &["stop", "--", &timer]);
}

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// A process that sleeps. In a process group of its own, without our streams, and deaf to the
/// terminal's end.
fn process(podman: &Podman, script: &Path, time: Duration) -> Result<Armed, std::io::Error> {
    let seconds = format!("{}.{:03}", time.as_secs(), time.subsec_millis());
    #[expect(
        clippy::disallowed_methods,
        reason = "it must outlive this process, which no bounded call does"
    )]
    let child = Command::new("/bin/sh")
        .args([
            "-c",
            r#"trap "" HUP; sleep "$1"; exec /bin/sh "$2""#,
            "podkeep-thaw",
        ])
        .arg(seconds)
        .arg(script)
        .env_clear()
        .envs(
            podman
                .environment()
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Armed::Process(child))
}

/// The script. What is gone, or goes already, is as it should be.
fn text(podman: &Podman, record: &Path, script: &Path, what: &[Resumption]) -> Vec<u8> {
    let mut text = b"# Sets going again what podkeep froze, if podkeep itself did not.\n".to_vec();
    function("podman", podman, &[], &mut text);
    let any_unit = what
        .iter()
        .any(|one| matches!(one, Resumption::StartUnit(_)));
    if any_unit && let Some(units) = Manager::of_containers(podman) {
        function("systemctl", &units.systemctl, &[units.scope], &mut text);
    }
    text.extend_from_slice(
        br#"status() { podman container inspect --format '{{.State.Status}}' "$1"; }
gone() { podman container exists "$1"; [ $? = 1 ]; }
unpaused() {
    podman unpause "$1" && return
    status=$(status "$1") && [ "$status" != paused ] && return
    gone "$1"
}
started() {
    case $(status "$1") in running | paused) return ;; esac
    podman start "$1" && return
    gone "$1"
}
restored() {
    case $(status "$1") in running | paused) return ;; esac
    podman container restore --tcp-established --file-locks "$1" && return
    [ $tries -ge 3 ] && started "$1"
}
unit() { systemctl is-active --quiet "$1" || systemctl start "$1"; }
"#,
    );
    text.extend_from_slice(b"record=");
    quote(record.as_os_str().as_bytes(), &mut text);
    text.extend_from_slice(b" script=");
    quote(script.as_os_str().as_bytes(), &mut text);
    text.extend_from_slice(
        format!("\ntries=0\nwhile [ -e \"$record\" ] && [ $tries -lt {TRIES} ]; do\n    left=0\n")
            .as_bytes(),
    );
    for one in what {
        let (verb, object) = match one {
            Resumption::Unpause(id) => ("unpaused", id),
            Resumption::Start(id) => ("started", id),
            Resumption::Restore(id) => ("restored", id),
            Resumption::StartUnit(unit) => ("unit", unit),
        };
        text.extend_from_slice(format!("    {verb} ").as_bytes());
        quote(object.as_bytes(), &mut text);
        text.extend_from_slice(b" || left=1\n");
    }
    text.extend_from_slice(
        b"    [ $left = 1 ] || rm -f \"$record\" \"$script\"\n    \
tries=$((tries + 1))\n    [ $left = 0 ] || sleep 1\ndone\n",
    );
    text
}

/// A function of the shell that runs a program as podkeep does.
fn function(name: &str, program: &Podman, arguments: &[&str], text: &mut Vec<u8>) {
    text.extend_from_slice(format!("{name}() {{ env -i").as_bytes());
    for (name, value) in program.environment() {
        text.push(b' ');
        if name.as_bytes().starts_with(NAMESPACE_VARIABLES) {
            let name = name.display();
            text.extend_from_slice(format!("${{{name}+{name}=\"${name}\"}}").as_bytes());
            continue;
        }
        quote(&[name.as_bytes(), b"=", value.as_bytes()].concat(), text);
    }
    let arguments = arguments.iter().map(AsRef::as_ref);
    for word in program.words().chain(arguments) {
        text.push(b' ');
        quote(word.as_bytes(), text);
    }
    text.extend_from_slice(b" \"$@\"; }\n");
}

/// As one word of a shell.
fn quote(word: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => out.extend_from_slice(br"'\''"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
}
