//! The host's systemd, where units that run Podman are.

use std::process::{Command, Stdio};

/// Bytes of what is quoted.
const QUOTED_BYTES_MAX: usize = 1024;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs systemctl; systemd itself bounds how long a start takes. `Err`: what it said.
pub fn systemctl(arguments: &[&str]) -> Result<(), String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "units are part of what a Podman host is"
    )]
    let mut command = Command::new("systemctl");
    let output = command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("SYSTEMD_PAGER", "")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("systemctl: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = &output.stderr[..output.stderr.len().min(QUOTED_BYTES_MAX)];
    let said = String::from_utf8_lossy(said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    Err(format!(
        "systemctl {}: {}",
        arguments.join(" "),
        line.unwrap_or("it failed without a word")
    ))
}
