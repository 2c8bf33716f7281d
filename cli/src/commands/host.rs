use podkeep_engine::host::local::LocalHost;

use crate::context::Context;
use crate::failure::Failure;
use crate::whose::Whose;

/// The host that this process runs on, with its locks in the state folder.
pub fn local(context: &Context<'_>) -> Result<LocalHost, Failure> {
    let mut environment: Vec<_> = std::env::vars_os().collect();
    let state = context.state()?;
    let host = match &context.whose {
        Whose::Own => Ok(LocalHost::new(state).with_podman(&environment)),
        Whose::Inside(inside) => {
            environment.extend(inside.variables.iter().cloned());
            let host = LocalHost::new(state).with_podman(&environment);
            host.inside(inside)
        }
        Whose::User(account) => LocalHost::of_user(state, account.clone(), &environment),
        // Its own podkeep works there.
        Whose::Afar(_) => return Err(Failure::defect()),
    };
    host.map_err(|error| context.failure(error.into()))
}
