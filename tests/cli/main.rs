//! The command line, as somebody who runs the binary meets it.

mod care;
mod import;
mod jobs;
mod like;
mod reference;
mod unprivileged;
mod usage;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The binary with an environment that says nothing: no HOME, no passphrase, no terminal.
fn podkeep(arguments: &[&str]) -> Output {
    bare(arguments).output().expect("the binary runs")
}

fn bare(arguments: &[&str]) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "these tests are about the program"
    )]
    let mut command = Command::new(env!("CARGO_BIN_EXE_podkeep"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a run with `--json`: nothing but JSON, a start first, an end last.
fn json_lines(output: &Output) -> Vec<Value> {
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    assert_eq!(lines[0]["type"], "start");
    let last = lines.last().expect("a last line");
    assert!(last["type"] == "summary" || last["type"] == "error");
    assert_eq!(last["exit_code"], output.status.code().expect("it exits"));
    lines
}

/// A folder with a repository, a cache, a state folder and something to back up.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn empty() -> Self {
        // In memory where that is possible: every repository sets its reserve aside.
        let memory = tempfile::tempdir_in("/dev/shm");
        Self {
            folder: memory
                .or_else(|_| tempfile::tempdir())
                .expect("a temporary folder"),
        }
    }

    /// With a repository whose passphrase is `open sesame`.
    fn with_repository() -> Self {
        let desk = Self::empty();
        desk.ok(&["init"]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command
            .env("PODKEEP_REPO", self.path("repository"))
            .env("PODKEEP_CACHE_DIR", self.path("cache"))
            .env("PODKEEP_STATE_DIR", self.path("state"))
            .env("PODKEEP_PASSWORD", "open sesame");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// Standard output of a run that must end with 0.
    fn ok(&self, arguments: &[&str]) -> String {
        self.exits(arguments, 0)
    }

    /// Standard output of a run that must end with `code`.
    fn exits(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// The JSON lines of a run that must end with `code`.
    fn json(&self, arguments: &[&str], code: i32) -> Vec<Value> {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let output = self.run(&arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        json_lines(&output)
    }
}

/// Everything below a folder: path, size and content's length is enough to see a change.
fn listing(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("its metadata");
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            found.push((entry.path(), metadata.len()));
        }
    }
    found.sort();
    found
}
