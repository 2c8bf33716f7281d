use podkeep_engine::host::local::LocalHost;

use crate::context::Context;
use crate::failure::Failure;
use crate::whose::Whose;

/// The host that this process runs on, with its locks in the state folder.
pub fn local(context: &Context<'_>) -> Result<LocalHost, Failure> {
    let mut environment: Vec<_> = std::env::vars_os().collect();
    let state = context.state()?;
    // The session of whoever came over a link ends with it.
    let with_podman = match context.far {
        Some(_) => LocalHost::with_podman_of_a_visitor,
        None => LocalHost::with_podman,
    };
    let host = match &context.whose {
        Whose::Own => Ok(with_podman(LocalHost::new(state), &environment)),
        Whose::Inside(inside) => {
            environment.extend(inside.variables.iter().cloned());
            with_podman(LocalHost::new(state), &environment).inside(inside)
        }
        Whose::User(account) => LocalHost::of_user(state, account.clone(), &environment),
        // Its own podkeep works there.
        Whose::Afar(_) => return Err(Failure::defect()),
    };
    host.map_err(|error| context.failure(error.into()))
}
