//! podkeep run by somebody who is not root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Desk, text};

const USER: u32 = 1000;

/// A desk of the user's, with a copy of the binary: the folder that it was built in may be closed
/// to others.
struct User {
    desk: Desk,
    binary: PathBuf,
    /// Whether the test itself runs as root, and so must become the user.
    switches: bool,
}

impl User {
    fn new() -> Self {
        let desk = Desk::empty();
        let binary = desk.path("podkeep");
        std::fs::copy(env!("CARGO_BIN_EXE_podkeep"), &binary).expect("a copy of the binary");
        let switches = rustix::process::geteuid().is_root();
        if switches {
            chown(desk.folder.path(), Some(USER), Some(USER)).expect("a folder of the user's");
        }
        Self {
            desk,
            binary,
            switches,
        }
    }

    /// Runs a program in the user's name; standard output of a run that must end with 0.
    fn run(&self, program: &Path, arguments: &[&str]) -> String {
        #[expect(
            clippy::disallowed_methods,
            reason = "these tests are about the program"
        )]
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("PODKEEP_REPO", self.desk.path("repository"))
            .env("PODKEEP_CACHE_DIR", self.desk.path("cache"))
            .env("PODKEEP_STATE_DIR", self.desk.path("state"))
            .env("PODKEEP_PASSWORD", "open sesame");
        if self.switches {
            command.uid(USER).gid(USER);
        }
        let output = command.output().expect("the program runs");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
        text(&output.stdout)
    }
}

/// Path, mode, owner, time and content of all below a folder.
fn facts(folder: &Path) -> Vec<(PathBuf, u32, u32, i64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("its metadata");
        let mut content = Vec::new();
        if meta.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else {
            content = std::fs::read(&path).expect("a file");
        }
        let below = path.strip_prefix(folder).expect("below").to_owned();
        let mode = meta.permissions().mode();
        found.push((below, mode, meta.uid(), meta.mtime(), content));
    }
    found.sort();
    found
}

/// Mode 0555 must come last, and an old tree with such directories must be replaced all the same.
#[test]
fn f_25_somebody_who_is_not_root_restores_read_only_directories_twice() {
    let user = User::new();
    let data = user.desk.path("data");
    let script = "mkdir -p \"$0/a/b\" && echo 1 > \"$0/a/file\" && echo 2 > \"$0/a/b/file\" \
                  && chmod 0444 \"$0/a/file\" \"$0/a/b/file\" && chmod 0555 \"$0/a/b\" \"$0/a\" \"$0\"";
    let shown = data.to_str().expect("a path of text");
    user.run(Path::new("/bin/sh"), &["-c", script, shown]);
    let source = facts(&data);
    assert_eq!(source[0].1 & 0o7777, 0o555);
    assert_eq!(source.len(), 5);
    let item = format!("path:{shown}");
    user.run(&user.binary, &["init", "-q"]);
    user.run(&user.binary, &["backup", &item]);
    let to = user.desk.path("restored");
    let place = to.to_str().expect("a path of text");
    for way in [&[][..], &["--merge"], &["--replace"], &["--merge"]] {
        let restore = ["restore", "latest", &item, "--to-dir", place];
        user.run(&user.binary, &[&restore[..], way].concat());
        assert_eq!(facts(&to), source, "{way:?}");
    }
}
