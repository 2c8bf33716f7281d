use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_engine::host::orders::Ordered;
use podkeep_engine::link::calls::{Calls, Working};
use podkeep_engine::link::{Serve, Times, serve};
use podkeep_engine::store::agent::{Rights, StoreAgent};

use super::migrate::OnDemand;
use crate::afar::far::Jobs;
use crate::arguments::{Agent, Command, Global};
use crate::failure::{Exit, Failure};
use crate::whose::Whose;

/// Serves until the other end is gone. Standard output belongs to the protocol: what goes wrong is
/// told on standard error, which the other end shows.
pub fn run(global: &Global, arguments: &Agent) -> Result<Exit, Failure> {
    if let Some(hash) = &arguments.check {
        return check(hash);
    }
    // Before all threads.
    let whose = match &global.host {
        None => Whose::Own,
        Some(_) => Whose::find(global, &Command::Agent(arguments.clone()))?,
    };
    // The login's home: where sshd starts us, and what relative paths are below.
    let home = match std::env::var_os("HOME").map(PathBuf::from) {
        Some(home) if home.is_absolute() => home,
        _ => std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
    };
    let rights = match (&arguments.restrict_to, arguments.append_only) {
        (Some(path), true) => Rights::AppendOnly(home.join(path)),
        (Some(path), false) => Rights::Within(home.join(path)),
        (None, _) => Rights::All,
    };
    // So that no folder of somebody's is kept from being unmounted or removed.
    std::env::set_current_dir("/").map_err(|error| Failure::local("enter", "/", error))?;
    let store = StoreAgent::new(rights.clone(), home);
    let agent: Arc<dyn Serve> = match rights {
        Rights::All => {
            let calls = Arc::new(Calls::default());
            Arc::new(Working {
                calls,
                work: Box::new(Jobs::new(whose.clone())),
                others: Ordered {
                    orders: Box::new(OnDemand::new(whose, global.clone())),
                    others: store,
                },
            })
        }
        // Of a host whoever may only reach a repository learns nothing.
        _ => Arc::new(store),
    };
    // Not as the standard library's streams, which look for lines.
    let stream = |fd: std::io::Result<OwnedFd>| match fd {
        Ok(fd) => Ok(Box::new(File::from(fd))),
        Err(error) => Err(Failure::local("use", "standard input and output", error)),
    };
    serve(
        stream(std::io::stdin().as_fd().try_clone_to_owned())?,
        stream(std::io::stdout().as_fd().try_clone_to_owned())?,
        agent,
        Times::default(),
    )
    .map_err(|refused| Failure::local("serve", "the podkeep at the other end", refused))?;
    Ok(Exit::Done)
}

/// Whether the bytes that this program was started from are those that were sent.
fn check(hash: &str) -> Result<Exit, Failure> {
    const PROGRAM: &str = "/proc/self/exe";
    let failed = |cause: String| Failure::local("trust", Path::new(PROGRAM).display(), cause);
    let bytes = std::fs::read(PROGRAM).map_err(|error| failed(error.to_string()))?;
    match podkeep_engine::link::hash_of(&bytes) == hash {
        true => Ok(Exit::Done),
        false => Err(failed("it is not what was sent".to_owned())),
    }
}
