//! The command line, as somebody who runs the binary meets it.

mod reference;
mod usage;

use std::process::{Command, Output};

/// The binary with an environment that says nothing: no HOME, no passphrase, no terminal.
fn podkeep(arguments: &[&str]) -> Output {
    #[expect(
        clippy::disallowed_methods,
        reason = "these tests are about the program"
    )]
    let mut command = Command::new(env!("CARGO_BIN_EXE_podkeep"));
    command
        .args(arguments)
        .env_clear()
        .stdin(std::process::Stdio::null());
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
