//! Real Podman hosts for tests: the `lab` command, from Rust.
//!
//! A host belongs to the test that made it and goes when it is dropped. When the test process is
//! killed, the next start of a host by whomever removes it, since it has an owner that is gone.

#![expect(
    clippy::disallowed_methods,
    reason = "the laboratory is a program, and so is everything that runs on its hosts"
)]

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The Debian release that a host is made of, and with it the version of Podman.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Podman 4.3.1
    Bookworm,
    /// Podman 5.4
    Trixie,
    /// Podman 5.8
    Sid,
    /// Podman 5.4 with QEMU and a kernel that has ZFS
    Zfs,
}

/// Where a host's Podman keeps images and volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Overlay on the file system of this machine.
    Overlay,
    Vfs,
    /// Btrfs on a loop device.
    Btrfs,
    /// Overlay on an XFS with reflinks, on a loop device.
    Xfs,
}

/// An image that the laboratory makes without a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// `localhost/lab:1`: a shell, a user 1000 and a folder /seed of that user with mode 0700.
    Busybox,
    /// `localhost/postgres:1`: Debian 12 with PostgreSQL 15.
    Postgres,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Suite::Bookworm => "bookworm",
            Suite::Trixie => "trixie",
            Suite::Sid => "sid",
            Suite::Zfs => "zfs",
        })
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Overlay => "overlay",
            Driver::Vfs => "vfs",
            Driver::Btrfs => "btrfs",
            Driver::Xfs => "xfs",
        })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Image::Busybox => "busybox",
            Image::Postgres => "postgres",
        })
    }
}

/// How a program on a host ended. `code` is 128 + n when signal n ended it.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Standard output as text, without the line end that closes it.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit code {}\nstdout: {}\nstderr: {}",
            self.code,
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr)
        )
    }
}

/// A host that is up, or was until [`Host::crash`].
#[derive(Debug)]
pub struct Host {
    name: String,
}

impl Host {
    /// Makes a host with an empty Podman and boots it.
    pub fn up(suite: Suite, driver: Driver) -> Host {
        Host::make(suite, driver, "systemd", None)
    }

    /// One whose processes CRIU can checkpoint, without systemd.
    pub fn up_for_checkpoints(driver: Driver) -> Host {
        Host::make(Suite::Sid, driver, "v1", None)
    }

    /// The same; the host sees `folder` of this machine as `/share`.
    pub fn up_sharing(suite: Suite, driver: Driver, folder: &Path) -> Host {
        Host::make(suite, driver, "systemd", Some(folder))
    }

    fn make(suite: Suite, driver: Driver, mode: &str, share: Option<&Path>) -> Host {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{number}", std::process::id());
        let mut up = lab(["up", &name, &suite.to_string(), &driver.to_string(), mode]);
        up.env("PODKEEP_LAB_OWNER", std::process::id().to_string());
        if let Some(folder) = share {
            up.env("PODKEEP_LAB_SHARE", folder);
        }
        // Dropped, and so taken down, also when the boot fails halfway.
        let host = Host { name };
        succeed(&mut up, b"");
        host
    }

    /// Runs a program as root, however it ends.
    pub fn run<A: AsRef<OsStr>>(&self, argv: &[A]) -> Outcome {
        self.run_fed(argv, b"")
    }

    /// The same, with `stdin` as its standard input.
    pub fn run_fed<A: AsRef<OsStr>>(&self, argv: &[A], stdin: &[u8]) -> Outcome {
        outcome(lab(["exec", &self.name]).args(argv), stdin)
    }

    /// Runs a program as the unprivileged user `u`, however it ends.
    pub fn run_as_user<A: AsRef<OsStr>>(&self, argv: &[A]) -> Outcome {
        outcome(lab(["exec", "--user", "u", &self.name]).args(argv), b"")
    }

    /// Runs a program as root that must succeed; returns its output as text.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, argv: &[A]) -> String {
        let outcome = self.run(argv);
        let shown: Vec<_> = argv.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        assert_eq!(outcome.code, 0, "on {}: {shown:?}: {outcome:?}", self.name);
        outcome.text()
    }

    /// Runs a bash script as root in which no command may fail; returns its output as text.
    #[track_caller]
    pub fn script(&self, script: &str) -> String {
        self.ok(&["bash", "-euo", "pipefail", "-c", script])
    }

    /// Copies a file or a folder of this machine into the host.
    pub fn put(&self, source: &Path, dest: &str) {
        succeed(lab(["put", &self.name]).arg(source).arg(dest), b"");
    }

    /// Makes an image in the host's Podman.
    pub fn image(&self, image: Image) {
        succeed(&mut lab(["image", &self.name, &image.to_string()]), b"");
    }

    /// Copies the `podkeep` of this build to `/usr/local/bin`.
    #[track_caller]
    pub fn install_podkeep(&self) {
        self.put(
            Path::new(env!("CARGO_BIN_EXE_podkeep")),
            "/usr/local/bin/podkeep",
        );
    }

    /// A power cut: every process of the host is killed, and its disk stays as it is. What was
    /// written and not synced stays as well, since the machine's own kernel lives on.
    pub fn crash(&self) {
        succeed(&mut lab(["crash", &self.name]), b"");
    }

    /// Boots the host again after [`Host::crash`].
    pub fn boot(&self) {
        succeed(&mut lab(["up", &self.name]), b"");
    }
}

/// Lays a wire between two hosts: 10.99.0.1 is the first, 10.99.0.2 the second. Goes in a crash.
pub fn link(a: &Host, b: &Host) {
    succeed(&mut lab(["link", &a.name, &b.name]), b"");
}

impl Drop for Host {
    fn drop(&mut self) {
        let down = outcome(&mut lab(["down", &self.name]), b"");
        if down.code != 0 && !std::thread::panicking() {
            panic!("cannot remove the host {}: {down:?}", self.name);
        }
    }
}

/// The laboratory's command. A test without one must not pass.
fn lab<const N: usize>(args: [&str; N]) -> Command {
    let path = std::env::var_os("PODKEEP_LAB").map(PathBuf::from);
    let path = path.expect(
        "these tests need real Podman hosts: run them with tests/run.sh, \
         or as root with PODKEEP_LAB=$PWD/tests/lab/lab",
    );
    let mut command = Command::new(path);
    command.args(args);
    command
}

fn outcome(command: &mut Command, stdin: &[u8]) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|cause| panic!("cannot run {command:?}: {cause}"));
    let mut input = child.stdin.take().expect("stdin is a pipe");
    let output = std::thread::scope(|scope| {
        // A program that does not read its input to the end may still succeed.
        scope.spawn(move || input.write_all(stdin).ok());
        child.wait_with_output()
    })
    .unwrap_or_else(|cause| panic!("cannot wait for {command:?}: {cause}"));
    let signalled = output.status.signal().map(|signal| 128 + signal);
    Outcome {
        code: output.status.code().or(signalled).unwrap_or(-1),
        stdout: output.stdout,
        stderr: output.stderr,
    }
}

#[track_caller]
fn succeed(command: &mut Command, stdin: &[u8]) {
    let outcome = outcome(command, stdin);
    assert_eq!(outcome.code, 0, "{command:?}: {outcome:?}");
}
