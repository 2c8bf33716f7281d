use podkeep_engine::host::local::LocalHost;

use crate::context::Context;
use crate::failure::Failure;

/// The host that this process runs on, with its locks in the state folder.
pub fn local(context: &Context<'_>) -> Result<LocalHost, Failure> {
    let environment: Vec<_> = std::env::vars_os().collect();
    Ok(LocalHost::new(context.surroundings().state()?).with_podman(&environment))
}
