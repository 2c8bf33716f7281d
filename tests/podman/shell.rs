//! A host on which the scripts of a test run: in bash, where no command may fail, each after the same
//! words.

use std::path::Path;

use crate::lab::{Driver, Host, Outcome, Suite};

/// bash does not end at a `! command` that fails.
const NOT: &str = r#"not() { ! "$@"; }"#;

/// Which lines of two texts are the same.
pub fn same_lines(before: &str, after: &str) -> Vec<bool> {
    let pairs = before.lines().zip(after.lines());
    pairs.map(|(before, after)| before == after).collect()
}

pub struct Shell {
    pub host: Host,
    /// What the host calls itself, and so what its snapshots are known by.
    pub name: String,
    /// What each script starts with: variables and functions.
    words: &'static str,
    /// The program on the host that runs scripts in the virtual machine that they are for.
    guest: Option<&'static str>,
}

impl Shell {
    /// Boots a host that has the `podkeep` of this build.
    #[track_caller]
    pub fn up(suite: Suite, driver: Driver, words: &'static str) -> Self {
        Self::on(Host::up(suite, driver), words)
    }

    /// The same; the host sees `folder` of this machine as `/share`.
    #[track_caller]
    pub fn up_sharing(suite: Suite, driver: Driver, folder: &Path, words: &'static str) -> Self {
        Self::on(Host::up_sharing(suite, driver, folder), words)
    }

    #[track_caller]
    fn on(host: Host, words: &'static str) -> Self {
        host.install_podkeep();
        let name = host.ok(&["hostname"]);
        Self {
            host,
            name,
            words,
            guest: None,
        }
    }

    /// Boots a virtual machine whose Podman has the driver zfs. Scripts run in there.
    #[track_caller]
    pub fn up_guest(words: &'static str) -> Self {
        let mut shell = Self::on(Host::up(Suite::Zfs, Driver::Vfs), words);
        shell.bring(&["guest.sh", "guest-init.sh"]);
        shell.host.ok(&["bash", "/root/guest.sh"]);
        shell.guest = Some("guest");
        shell.name = shell.ok("hostname");
        shell
    }

    /// Copies programs of `tests/lab` to `/root`.
    #[track_caller]
    pub fn bring(&self, programs: &[&str]) {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/lab"));
        for program in programs {
            self.host
                .put(&folder.join(program), &format!("/root/{program}"));
        }
    }

    /// Runs a script, however it ends.
    pub fn run(&self, script: &str) -> Outcome {
        self.run_fed(script, b"")
    }

    /// The same, with `stdin` as its standard input.
    pub fn run_fed(&self, script: &str, stdin: &[u8]) -> Outcome {
        let script = format!("{NOT}\n{}\n{script}", self.words);
        let shell = ["bash", "-euo", "pipefail", "-c", &script];
        let argv: Vec<&str> = self.guest.into_iter().chain(shell).collect();
        self.host.run_fed(&argv, stdin)
    }

    /// What a script that must succeed prints on standard output.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let outcome = self.run(script);
        assert_eq!(outcome.code, 0, "on {}: {script}: {outcome:?}", self.name);
        outcome.text()
    }

    /// What a script that must end with `code` prints on both streams.
    #[track_caller]
    pub fn exits(&self, script: &str, code: i32) -> String {
        let outcome = self.run(script);
        assert_eq!(
            outcome.code, code,
            "on {}: {script}: {outcome:?}",
            self.name
        );
        let stderr = String::from_utf8_lossy(&outcome.stderr).into_owned();
        format!("{}\n{stderr}", outcome.text())
    }

    /// The same, and it has to say each of `parts`.
    #[track_caller]
    pub fn says(&self, script: &str, code: i32, parts: &[&str]) {
        let said = self.exits(script, code);
        for part in parts {
            assert!(
                said.contains(part),
                "{script} does not say {part:?}: {said}"
            );
        }
    }
}
