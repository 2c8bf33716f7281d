//! Who this host is: a random id that lasts, and a name for people.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use podkeep_format::id::HostId;

use crate::failure::Failure;
use crate::whose::Whose;

const FILE: &str = "host-id";
/// Lines of /etc/passwd that are looked at, in bytes.
const PASSWD_BYTES_MAX: u64 = 4 << 20;

/// The id in the state folder, if this host has one already.
pub fn known(state: &Path) -> Result<Option<HostId>, Failure> {
    let path = state.join(FILE);
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(128).read_to_string(&mut text));
    match read {
        Ok(_) => HostId::from_hex(text.trim()).map(Some).ok_or_else(|| {
            Failure::local(
                "use the host's identity in",
                path.display(),
                "it is not 32 hex digits",
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::local("read", path.display(), error)),
    }
}

/// The id in the state folder, made on first use. Durable before it is returned: a host that
/// forgot who it was would begin its history anew.
pub fn lasting(state: &Path) -> Result<HostId, Failure> {
    if let Some(id) = known(state)? {
        return Ok(id);
    }
    let path = state.join(FILE);
    let id = random()?;
    let write = || -> std::io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)?;
        let temp = state.join(format!("{FILE}.{}", std::process::id()));
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)?;
        file.write_all(format!("{id}\n").as_bytes())?;
        file.sync_all()?;
        // Of two first runs at once, one wins and both use its id.
        let linked = std::fs::hard_link(&temp, &path);
        std::fs::remove_file(&temp)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        File::open(state)?.sync_all()
    };
    write().map_err(|error| Failure::local("write", path.display(), error))?;
    Ok(known(state)?.unwrap_or(id))
}

/// An id for a command that only reads, on a host that has none.
pub fn random() -> Result<HostId, Failure> {
    let mut id = [0; HostId::LEN];
    getrandom::fill(&mut id)
        .map_err(|error| Failure::local("read", "the system's random numbers", error))?;
    Ok(HostId(id))
}

/// `web1` for the host's own Podman, `alice@web1` for a rootless one.
pub fn name(whose: &Whose) -> String {
    let host = machine();
    if let Whose::User(account) = whose {
        return format!("{}@{host}", account.name);
    }
    let Some(uid) = whose.uid() else {
        return host;
    };
    let mut passwd = Vec::new();
    if let Ok(file) = File::open("/etc/passwd") {
        // Without it the number has to do.
        let _ = file.take(PASSWD_BYTES_MAX).read_to_end(&mut passwd);
    }
    match user_name(&String::from_utf8_lossy(&passwd), uid) {
        Some(user) => format!("{user}@{host}"),
        None => format!("{uid}@{host}"),
    }
}

/// What this machine calls itself.
pub fn machine() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    match host.split('.').next().unwrap_or_default() {
        "" => "localhost".to_owned(),
        host => host.to_owned(),
    }
}

fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        assert_eq!(known(&state).unwrap(), None);
        let id = lasting(&state).unwrap();
        assert_eq!(lasting(&state).unwrap(), id);
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);
        std::fs::write(state.join(FILE), "x").unwrap();
        assert!(lasting(&state).is_err());
    }

    #[test]
    fn users_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("alice"));
        assert_eq!(user_name(passwd, 7), None);
    }
}
