//! Putting podkeep on a host that has none.
//!
//! A static podkeep is put below the login's home, under a name that holds its hash, so that a
//! second run finds it and another version never takes its place. The file gets its name only
//! after the far machine has run it and it has found its own hash: what is cut short, of another
//! architecture, or in a place where nothing can be run, never does.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LinkError;
use super::ssh::{Ran, Ssh};

/// Below the login's home.
const FOLDER: &str = ".local/state/podkeep";
/// A program that is larger is none of ours.
const PROGRAM_BYTES_MAX: u64 = 512 << 20;
/// The slowest link that an upload is waited for on.
const BYTES_PER_SEC_MIN: u64 = 16 << 10;
pub(super) const RESTRICTED: &str = "for a restricted shell, install podkeep there: --remote-path \
                                     podkeep, or a forced command `podkeep agent --restrict-to PATH`";
const RUN_TIME: Duration = Duration::from_secs(60);

/// A static podkeep that can be put on other machines.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// BLAKE3 of the file.
    hash: [u8; 32],
    /// The machine that it runs on, in the kernel's word (`uname -m`).
    machine: &'static str,
}

impl Program {
    /// `None`: the file is no program that runs without shared libraries.
    pub fn of_file(path: &Path) -> io::Result<Option<Self>> {
        let bytes = read(path)?;
        Ok(machine_of_static(&bytes).map(|machine| Self {
            path: path.to_owned(),
            hash: *blake3::hash(&bytes).as_bytes(),
            machine,
        }))
    }

    fn file_name(&self) -> String {
        format!("agent-{}", &podkeep_format::id::hex(&self.hash)[..32])
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let len = std::fs::metadata(path)?.len();
    if len > PROGRAM_BYTES_MAX {
        return Err(io::Error::other("it is too large for a program"));
    }
    std::fs::read(path)
}

/// The machine of an ELF program that names no interpreter (elf(5)), which is what loads shared
/// libraries.
fn machine_of_static(bytes: &[u8]) -> Option<&'static str> {
    const INTERPRETER: u32 = 3;
    const HEADERS_MAX: usize = 64;
    let u16_at = |at: usize| {
        let bytes = bytes.get(at..at.checked_add(2)?)?;
        Some(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    };
    // 64 bits, little-endian.
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let machine = match u16_at(18)? {
        62 => "x86_64",
        183 => "aarch64",
        _ => return None,
    };
    let table = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
    let (size, count) = (u16_at(54)?, u16_at(56)?);
    for number in 0..count.min(HEADERS_MAX) {
        let at = usize::try_from(table).ok()?.checked_add(number * size)?;
        let kind = bytes.get(at..at.checked_add(4)?)?;
        if u32::from_le_bytes(kind.try_into().ok()?) == INTERPRETER {
            return None;
        }
    }
    Some(machine)
}

/// The command that runs an uploaded program; sshd starts it in the login's home.
pub(super) fn command(program: &Program) -> String {
    format!("{FOLDER}/{} agent", program.file_name())
}

/// One single command for any login shell. Its exit codes say which step failed.
fn script(program: &Program) -> String {
    let file = program.file_name();
    let hash = podkeep_format::id::hex(&program.hash);
    format!(
        "sh -c 'umask 022; d=$HOME/{FOLDER}; t=$d/{file}.$$; echo machine $(uname -m); \
         mkdir -p \"$d\" || exit 91; cat > \"$t\" || {{ rm -f \"$t\"; exit 92; }}; \
         chmod 755 \"$t\" || {{ rm -f \"$t\"; exit 93; }}; \
         \"$t\" agent --check {hash} || {{ rm -f \"$t\"; exit 94; }}; \
         mv -f \"$t\" \"$d/{file}\" || exit 95; echo stored'"
    )
}

pub(super) fn upload(ssh: &Ssh<'_>, program: &Program) -> Result<(), LinkError> {
    let shown = program.path.display();
    let bytes = read(&program.path)
        .map_err(|error| ssh.error(format!("cannot read {shown} to upload it: {error}"), ""))?;
    if blake3::hash(&bytes) != program.hash {
        return Err(ssh.error(format!("{shown} changed while it was to be uploaded"), ""));
    }
    let time = RUN_TIME + Duration::from_secs(bytes.len() as u64 / BYTES_PER_SEC_MIN);
    let ran = ssh.run(&script(program), &bytes, time)?;
    if ran.stdout.lines().any(|line| line == "stored") {
        return Ok(());
    }
    let (cause, hint) = failed(&ran, program);
    let cause = format!("cannot put podkeep there: {cause}");
    Err(ssh.error(
        match ran.stderr.is_empty() {
            true => cause,
            false => format!("{cause}: {}", ran.stderr),
        },
        hint,
    ))
}

/// What kept an upload from being stored, and what helps.
fn failed(ran: &Ran, program: &Program) -> (String, &'static str) {
    const INSTALLED: &str = "install podkeep there, and name it with --remote-path";
    let machine = machine_of(&ran.stdout);
    let code = ran.status.and_then(|status| status.code());
    match (code, machine) {
        (Some(94), Some(machine)) if machine != program.machine => (
            format!(
                "it is a program for {}, and that machine is {machine}",
                program.machine
            ),
            "PODKEEP_AGENT names a static podkeep for that machine",
        ),
        (Some(94), _) => (
            format!(
                "~/{FOLDER} is a place where programs cannot be run (noexec?), or the copy is damaged"
            ),
            INSTALLED,
        ),
        (Some(91), _) => (format!("~/{FOLDER} cannot be made"), INSTALLED),
        (Some(92 | 93 | 95), _) => (
            format!("~/{FOLDER} does not take it"),
            "make room in the login's home, or install podkeep and name it with --remote-path",
        ),
        (Some(255), _) => ("ssh failed".to_owned(), ""),
        (None, _) => ("it took too long, or ssh was ended".to_owned(), ""),
        (Some(code), _) => (
            format!("its shell runs no such commands (code {code})"),
            RESTRICTED,
        ),
    }
}

/// What the far side says of its machine, between whatever its shell prints.
fn machine_of(stdout: &str) -> Option<&str> {
    let mut lines = stdout.lines().map(str::trim);
    lines.find_map(|line| line.strip_prefix("machine "))
}

/// What is known about a podkeep that cannot be started.
pub(super) struct Found {
    pub cause: String,
    pub hint: String,
}

/// Looks why `path` was not started: whether it is there, elsewhere, or cannot be run. `None`: the
/// far side does not answer such a question.
pub(super) fn look_for(ssh: &Ssh<'_>, path: &str) -> Option<Found> {
    const PLACES: &str = "$HOME/.local/bin/podkeep $HOME/bin/podkeep $HOME/.cargo/bin/podkeep \
                          /usr/local/bin/podkeep /usr/bin/podkeep /opt/podkeep/podkeep";
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%,=~".contains(&b);
    let asked = match path.bytes().all(plain) {
        true => path,
        false => "/",
    };
    let script = format!(
        "sh -c 'echo machine $(uname -m); for f in {asked} {PLACES}; do test -f $f || continue; \
         if test -x $f; then echo x $f; else echo n $f; fi; done; echo end'"
    );
    let ran = ssh.run(&script, b"", RUN_TIME).ok()?;
    let lines: Vec<&str> = ran.stdout.lines().map(str::trim).collect();
    if lines.last() != Some(&"end") {
        return None;
    }
    let found = |mark: &str| {
        let there = lines.iter().filter_map(|line| line.strip_prefix(mark));
        there.map(str::to_owned).next()
    };
    let asked = |mark: &str| lines.contains(&format!("{mark}{path}").as_str());
    let not_executable = |file: &str| Found {
        cause: format!("{file} is there and is not executable"),
        hint: format!("on that host: chmod +x {file}"),
    };
    if asked("n ") {
        return Some(not_executable(path));
    }
    if asked("x ") {
        let machine = machine_of(&ran.stdout)?;
        return Some(Found {
            cause: format!(
                "{path} is there and cannot be run: a program for another machine (that one is \
                 {machine}), a file system without programs (noexec), or missing libraries"
            ),
            hint: "a static podkeep for that machine runs on every Linux".to_owned(),
        });
    }
    Some(match (found("x "), found("n ")) {
        (Some(file), _) => Found {
            cause: format!("there is no {path} in the PATH of commands over ssh, but {file}"),
            hint: format!("--remote-path {file}"),
        },
        (None, Some(file)) => not_executable(&file),
        (None, None) => Found {
            cause: format!("there is no {path}"),
            hint: "--remote-path names the podkeep that is installed there; a static podkeep \
                   is put there by itself"
                .to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of a program with these program headers.
    fn elf(machine: u16, kinds: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + kinds.len() * 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&(kinds.len() as u16).to_le_bytes());
        for (number, kind) in kinds.iter().enumerate() {
            let at = 64 + number * 56;
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_program_is_static_when_it_names_no_interpreter() {
        assert_eq!(machine_of_static(&elf(62, &[1, 2, 6])), Some("x86_64"));
        assert_eq!(machine_of_static(&elf(183, &[1])), Some("aarch64"));
        assert_eq!(machine_of_static(&elf(62, &[6, 3, 1])), None);
        assert_eq!(machine_of_static(&elf(40, &[1])), None);
        assert_eq!(machine_of_static(b"#!/bin/sh\n"), None);
        let whole = elf(62, &[1, 1]);
        for len in 0..whole.len() {
            let _ = machine_of_static(&whole[..len]);
        }
    }

    #[test]
    fn t_16_an_upload_is_one_command_that_every_shell_passes_on() {
        let program = Program {
            path: PathBuf::new(),
            hash: [7; 32],
            machine: "x86_64",
        };
        let script = script(&program);
        let inner = script
            .strip_prefix("sh -c '")
            .and_then(|s| s.strip_suffix('\''));
        // csh and fish read these within single quotes.
        assert!(
            !inner.unwrap().contains(['\'', '!', '\\', '\n']),
            "{script}"
        );
    }
}
