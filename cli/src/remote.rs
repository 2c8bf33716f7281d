//! Reaching other hosts: what the command line and the environment say about it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_engine::link::ssh::{SshOptions, connect as connect_over_ssh};
use podkeep_engine::link::{Address, Asking, Program, RateLimit, Times};

use crate::afar::Afar;
use crate::arguments::Global;
use crate::failure::Failure;

/// Beside this program, where this one is not static: the one that is put on other hosts.
const STATIC_NAME: &str = "podkeep-static";

/// Starts podkeep's agent on another host, for a repository.
pub fn connect(global: &Global, address: &Address) -> Result<Asking, Failure> {
    start(global, address, None, false)
}

/// The same, for the Podman there.
pub fn connect_to_podman(global: &Global, host: &Afar) -> Result<Asking, Failure> {
    let whose = match &host.user {
        Some(user) => format!("local:{user}"),
        None => "local".to_owned(),
    };
    start(global, &host.address, Some(whose), host.sudo)
}

fn start(
    global: &Global,
    address: &Address,
    host: Option<String>,
    sudo: bool,
) -> Result<Asking, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let remote_path = global.remote_path.clone();
    let program = match (&remote_path, variable("PODKEEP_AGENT")) {
        // What is installed there needs no upload.
        (Some(_), _) => None,
        (None, Some(named)) => Some(named_program(Path::new(&named))?),
        (None, None) => own_program(),
    };
    let limit = global.limit_rate.map(RateLimit::new).map(Arc::new);
    let options = SshOptions {
        environment: std::env::vars_os().collect(),
        interactive: std::io::stderr().is_terminal(),
        // The first that is short enough for a socket's path.
        socket_folders: ["XDG_RUNTIME_DIR", "TMPDIR"]
            .into_iter()
            .filter_map(variable)
            .map(PathBuf::from)
            .chain(["/tmp", "/var/tmp"].map(PathBuf::from))
            .filter(|folder| folder.is_absolute())
            .collect(),
        remote_path,
        program,
        host,
        sudo,
        limit,
        times: Times::default(),
    };
    connect_over_ssh(address, &options).map_err(Failure::link)
}

fn named_program(path: &Path) -> Result<Program, Failure> {
    let cause = match Program::of_file(path) {
        Ok(Some(program)) => return Ok(program),
        Ok(None) => "it is no program that runs without shared libraries".to_owned(),
        Err(error) => error.to_string(),
    };
    let object = format!("{}, which PODKEEP_AGENT names", path.display());
    Err(Failure::local("upload", object, cause))
}

/// This program, or the one beside it; `None`: neither runs on every host.
fn own_program() -> Option<Program> {
    let own = std::env::current_exe().ok()?;
    let beside = own.with_file_name(STATIC_NAME);
    [own, beside]
        .iter()
        .find_map(|path| Program::of_file(path).ok().flatten())
}
