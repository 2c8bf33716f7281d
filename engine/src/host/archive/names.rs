//! The names of this host's users and groups, for ACLs in tars, which have names where `tar` knew
//! them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

use crate::fs::tar::AclNames;

/// Bytes of a list of users or groups.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// What /etc/passwd and /etc/group list; users of directories (LDAP) are not known.
pub(super) struct HostNames {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl HostNames {
    /// A list that cannot be read knows nobody.
    pub fn read() -> Self {
        Self {
            users: list("/etc/passwd"),
            groups: list("/etc/group"),
        }
    }
}

impl AclNames for HostNames {
    fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }
}

/// Lines of `NAME:PASSWORD:NUMBER:...`, in both files.
fn list(path: &str) -> HashMap<String, u32> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return HashMap::new();
    }
    let pairs = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(1)?.parse().ok()?))
    });
    pairs.collect()
}
