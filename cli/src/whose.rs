//! Whose Podman a command works on: `--host`, and where this process has to be for that.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use podkeep_engine::host::{Account, HostError, Inside, Podman};
use podkeep_engine::link::Address;

use crate::afar::Afar;
use crate::arguments::{Command, Global};
use crate::failure::Failure;

const HINT: &str = "local is your own Podman, local:USER the rootless one of USER, \
                    ssh://[LOGIN@]HOST[:PORT][,sudo][,user=USER] one on another machine";

#[derive(Clone)]
pub enum Whose {
    /// The caller's own, from where the caller is.
    Own,
    /// The caller's own, which is rootless: this process is in its user namespace.
    Inside(Inside),
    /// That of another user, for root.
    User(Account),
    /// One on another machine.
    Afar(Afar),
}

impl Whose {
    /// Comes before all threads: the kernel lets no others into a user namespace.
    pub fn find(global: &Global, command: &Command) -> Result<Self, Failure> {
        let is_root = rustix::process::geteuid().is_root();
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let inside = Inside::of_environment(&environment);
        let asked = match command {
            Command::Migrate(migrate) => migrate.from.as_deref(),
            _ => global.host.as_deref(),
        };
        if let Some(afar) = asked.filter(|host| Address::is_one(host)) {
            return Ok(Self::Afar(Afar::parse(afar)?));
        }
        if let Some(account) = other_user(asked, inside.as_ref())? {
            return Ok(Self::User(account));
        }
        if let Some(inside) = inside {
            return Ok(Self::Inside(inside));
        }
        let serves = matches!(command, Command::Agent(_)) && global.host.is_some();
        if is_root || !(serves || reads_podman(command)) {
            return Ok(Self::Own);
        }
        match Podman::find(&environment) {
            Some(podman) => Ok(Self::Inside(podman.enter().map_err(engine)?)),
            None => Ok(Self::Own),
        }
    }

    /// The other side of a migration, in a process that is where [`find`](Self::find) has put it.
    pub fn named(host: Option<&OsStr>) -> Result<Self, Failure> {
        if let Some(afar) = host.filter(|host| Address::is_one(host)) {
            return Ok(Self::Afar(Afar::parse(afar)?));
        }
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let inside = Inside::of_environment(&environment);
        Ok(match (other_user(host, inside.as_ref())?, inside) {
            (Some(account), _) => Self::User(account),
            (None, Some(inside)) => Self::Inside(inside),
            (None, None) => Self::Own,
        })
    }

    /// Whether root's own folders and Podman are meant.
    pub fn is_root(&self) -> bool {
        !matches!(self, Self::Inside(_)) && rustix::process::geteuid().is_root()
    }

    /// The user whose rootless Podman it is; `None`: the host's own.
    pub fn uid(&self) -> Option<u32> {
        match self {
            Self::Own | Self::Afar(_) => {
                let uid = rustix::process::geteuid();
                (!uid.is_root()).then_some(uid.as_raw())
            }
            Self::Inside(inside) => Some(inside.uid),
            Self::User(account) => Some(account.uid),
        }
    }
}

fn engine(error: impl Into<HostError>) -> Failure {
    let error: HostError = error.into();
    Failure::operation(error.into(), None)
}

/// The USER of `local:USER`, for root; `None`: the caller's own Podman is meant.
fn other_user(host: Option<&OsStr>, inside: Option<&Inside>) -> Result<Option<Account>, Failure> {
    let Some(user) = asked_user(host)? else {
        return Ok(None);
    };
    let account = Account::find(&user).map_err(engine)?;
    let account =
        account.ok_or_else(|| Failure::usage(format!("there is no user {user} here"), HINT))?;
    let own = match inside {
        Some(inside) => inside.uid,
        None => rustix::process::geteuid().as_raw(),
    };
    if account.uid == own {
        return Ok(None);
    }
    match rustix::process::geteuid().is_root() && inside.is_none() {
        true => Ok(Some(account)),
        false => Err(Failure::usage(
            format!("only root can work on the Podman of {user}"),
            HINT,
        )),
    }
}

/// The USER of `local:USER`; `None`: the caller.
fn asked_user(host: Option<&OsStr>) -> Result<Option<String>, Failure> {
    let Some(host) = host else {
        return Ok(None);
    };
    let unknown = || {
        let message = format!("{} is no host that this version can reach", host.display());
        Failure::usage(message, HINT)
    };
    match host.as_bytes() {
        b"local" => Ok(None),
        bytes => {
            let user = bytes.strip_prefix(b"local:").ok_or_else(unknown)?;
            let user = str::from_utf8(user).map_err(|_| unknown())?;
            match user.is_empty() {
                true => Err(unknown()),
                false => Ok(Some(user.to_owned())),
            }
        }
    }
}

/// Whether a command reads or writes what containers of the host own.
fn reads_podman(command: &Command) -> bool {
    let named = |items: &[OsString]| {
        let mut items = items.iter();
        items.any(|item| !item.as_bytes().starts_with(b"path:"))
    };
    match command {
        Command::Backup(backup) => backup.all || named(&backup.selectors),
        Command::Restore(restore) => restore.all || restore.repair_layers || named(&restore.items),
        Command::Diff(diff) => diff.after == "live",
        Command::Doctor(_) | Command::Migrate(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::try_parse_from([&["podkeep"][..], words].concat()).unwrap()
    }

    #[test]
    fn a_host_is_local_or_that_of_a_user() {
        let user = |host| asked_user(Some(OsStr::new(host)));
        assert_eq!(user("local").unwrap(), None);
        assert_eq!(user("local:alice").unwrap().as_deref(), Some("alice"));
        for odd in ["", "alice", "local:", "ssh://web1", "LOCAL"] {
            assert!(user(odd).is_err(), "{odd}");
        }
        assert_eq!(asked_user(None).unwrap(), None);
    }

    #[test]
    fn only_what_containers_own_needs_their_namespace() {
        for (words, needs) in [
            (&["backup", "path:/srv"][..], false),
            (&["backup", "path:/srv", "volume:web"], true),
            (&["backup", "--all"], true),
            (&["restore", "latest", "path:/srv"], false),
            (&["restore", "latest", "--all"], true),
            (&["restore", "latest", "--repair-layers"], true),
            (&["diff", "latest", "live"], true),
            (&["diff", "latest~1", "latest"], false),
            (&["doctor"], true),
            (&["snapshots"], false),
        ] {
            assert_eq!(reads_podman(&arguments(words).command), needs, "{words:?}");
        }
    }
}
