//! Another user's rootless Podman, for root.
//!
//! Its store is never opened by a podman that runs as root: that would lock, mount and own things
//! as no rootless Podman can undo. Podman runs as the user, with the user's home and runtime folder,
//! below `setpriv` (util-linux), which needs no PAM and makes no session. A user who has no session
//! has no runtime folder and no bus either; the user's systemd instance is started for as long as
//! it is needed, and stopped again by whoever started it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{Gid, Uid};

use super::command::{Podman, PodmanError, Purpose, run_program};
use crate::fs::owners::{IdMap, OVERFLOW_ID, Owners};

/// Bytes of /etc/passwd that are looked at.
const PASSWD_BYTES_MAX: u64 = 4 << 20;
/// systemd starts a user's instance within this.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Says that systemd is the init of this host (sd_booted(3)).
const SYSTEMD_BOOTED: &str = "/run/systemd/system";
/// Bytes of /etc/subuid: a line for each user.
const SUBUID_BYTES_MAX: u64 = 16 << 20;
/// Where each user with a session has a folder.
const RUNTIME_FOLDERS: &str = "/run/user";
const LINGER_FOLDER: &str = "/var/lib/systemd/linger";

/// A user of this host, as passwd(5) has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl Account {
    /// Looks in /etc/passwd, and where that does not have the name, asks `getent`, which knows what
    /// other sources the host has. `None`: there is no such user.
    pub fn find(name: &str) -> Result<Option<Self>, PodmanError> {
        let object = format!("user {name}");
        let failed = |error: std::io::Error| PodmanError::new("look up", object.as_str(), error);
        let passwd = read_passwd().map_err(failed)?;
        if let Some(account) = in_passwd(&passwd, name) {
            return Ok(Some(account));
        }
        let purpose = Purpose {
            action: "look up",
            object: &object,
        };
        let arguments = ["passwd", "--", name];
        let Ok(ended) = run_program("getent", purpose, &arguments, START_TIME_MAX) else {
            return Ok(None);
        };
        Ok(in_passwd(&String::from_utf8_lossy(&ended.stdout), name))
    }

    /// The same for an id.
    pub fn with_uid(uid: u32) -> Result<Option<Self>, PodmanError> {
        let object = format!("user {uid}");
        let failed = |error: std::io::Error| PodmanError::new("look up", object.as_str(), error);
        let passwd = read_passwd().map_err(failed)?;
        if let Some(account) = passwd
            .lines()
            .filter_map(in_line)
            .find(|one| one.uid == uid)
        {
            return Ok(Some(account));
        }
        let purpose = Purpose {
            action: "look up",
            object: &object,
        };
        let arguments = ["passwd", "--", &uid.to_string()];
        let Ok(ended) = run_program("getent", purpose, &arguments, START_TIME_MAX) else {
            return Ok(None);
        };
        let told = String::from_utf8_lossy(&ended.stdout).into_owned();
        Ok(told.lines().find_map(in_line))
    }

    /// Users of /etc/passwd whose home has a store of Podman, sorted by name: root is none of them.
    pub fn with_podman() -> Vec<Self> {
        // Only for a note: what cannot be read has none.
        let passwd = read_passwd().unwrap_or_default();
        let mut accounts: Vec<Self> = passwd.lines().filter_map(in_line).collect();
        accounts.retain(|account| {
            let store = account.home.join(".local/share/containers/storage");
            account.uid != 0 && ["db.sql", "libpod"].iter().any(|n| store.join(n).exists())
        });
        accounts.sort_by(|a, b| a.name.cmp(&b.name));
        accounts.dedup_by(|a, b| a.uid == b.uid);
        accounts
    }

    /// Whether the user may act as `uid`, which is the user's own or a subordinate one by what root has
    /// written down: subuid(5), and where that has nothing of the user, what other sources the host has.
    pub fn may_be(&self, uid: u32) -> bool {
        if uid == self.uid {
            return true;
        }
        let mut file = Vec::new();
        // What cannot be read gives nothing.
        let _ = File::open("/etc/subuid")
            .and_then(|from| from.take(SUBUID_BYTES_MAX).read_to_end(&mut file));
        let mut ranges = self.subordinate(&String::from_utf8_lossy(&file));
        if ranges.is_empty() {
            let purpose = Purpose {
                action: "look up",
                object: "subordinate ids",
            };
            let told = run_program("getsubids", purpose, &[self.name.as_str()], START_TIME_MAX);
            ranges = told.map_or_else(|_| Vec::new(), |told| told_ranges(&told.stdout));
        }
        ranges.iter().any(|range| range.contains(&uid))
    }

    /// `name:first:count` or `uid:first:count`.
    fn subordinate(&self, file: &str) -> Vec<Range<u32>> {
        let of_user = |line: &str| {
            let mut fields = line.split(':');
            let whose = fields.next()?;
            let is_ours = whose == self.name || whose.parse() == Ok(self.uid);
            is_ours
                .then(|| range(fields.next()?, fields.next()?))
                .flatten()
        };
        file.lines().filter_map(of_user).collect()
    }

    fn runtime(&self) -> PathBuf {
        runtime_folder(self.uid)
    }

    fn unit(&self) -> String {
        format!("user@{}.service", self.uid)
    }

    /// systemd keeps what the user started, after the last session and after a boot.
    pub fn lingers(&self) -> bool {
        Path::new(LINGER_FOLDER).join(&self.name).exists()
    }

    /// Whether what is started for the user ends when nobody needs the user's systemd any more.
    pub fn needs_linger(&self) -> bool {
        is_booted() && !self.lingers()
    }

    /// Makes it so that it does not.
    pub fn enable_linger(&self) -> Result<(), PodmanError> {
        let object = format!("linger of user {}", self.name);
        let purpose = Purpose {
            action: "enable",
            object: &object,
        };
        let arguments = ["enable-linger", self.name.as_str()];
        run_program("loginctl", purpose, &arguments, START_TIME_MAX).map(drop)
    }
}

/// Whether systemd is the init of this host.
pub(super) fn is_booted() -> bool {
    Path::new(SYSTEMD_BOOTED).is_dir()
}

/// The folder that a user has while there is a session.
pub(super) fn runtime_folder(uid: u32) -> PathBuf {
    Path::new(RUNTIME_FOLDERS).join(uid.to_string())
}

/// The path below a user's runtime folder, if it lies in one.
pub fn below_runtime(path: &str) -> Option<&str> {
    let below = path.strip_prefix(RUNTIME_FOLDERS)?.strip_prefix('/')?;
    let (uid, below) = below.split_once('/')?;
    uid.parse::<u32>().ok().map(|_| below)
}

/// `0: name first count`
fn told_ranges(told: &[u8]) -> Vec<Range<u32>> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let count = words.next()?;
        range(words.next()?, count)
    };
    String::from_utf8_lossy(told)
        .lines()
        .filter_map(of_line)
        .collect()
}

fn range(first: &str, count: &str) -> Option<Range<u32>> {
    let first: u32 = first.trim().parse().ok()?;
    let end = first.checked_add(count.trim().parse().ok()?)?;
    // Nobody's subordinate id is root.
    (first > 0).then_some(first..end)
}

fn read_passwd() -> std::io::Result<String> {
    let mut passwd = Vec::new();
    File::open("/etc/passwd")?
        .take(PASSWD_BYTES_MAX)
        .read_to_end(&mut passwd)?;
    Ok(String::from_utf8_lossy(&passwd).into_owned())
}

fn in_passwd(passwd: &str, name: &str) -> Option<Account> {
    passwd
        .lines()
        .filter_map(in_line)
        .find(|account| account.name == name)
}

/// `name:password:uid:gid:comment:home:shell`.
fn in_line(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else {
        return None;
    };
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: PathBuf::from(home),
    })
}

/// Does something as `account` would, on a thread of its own: where that user may not go, it does not
/// go either, whatever links are in its way, and what it makes is the user's.
pub(super) fn in_the_name_of<T: Send>(
    account: &Account,
    act: impl FnOnce() -> T + Send,
) -> std::io::Result<T> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let acted = std::thread::scope(|scope| {
        let thread = scope.spawn(move || -> std::io::Result<T> {
            // The kernel keeps credentials for each thread.
            rustix::thread::set_thread_groups(&[gid])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
            Ok(act())
        });
        thread.join()
    });
    acted.unwrap_or_else(|_| Err(std::io::Error::other("it ended with a defect")))
}

/// A user's systemd instance that was started here; dropping it stops the instance.
#[derive(Debug)]
pub struct UserSession {
    /// What is stopped again, in this order.
    units: Vec<String>,
    account: Account,
}

impl UserSession {
    /// Starts the instance where there is none. On a host without systemd there is nothing to start.
    pub fn start(account: &Account) -> Result<Self, PodmanError> {
        let session = |units| Self {
            units,
            account: account.clone(),
        };
        if !is_booted() {
            return Ok(session(Vec::new()));
        }
        let unit = account.unit();
        let object = format!("{unit} of {}", account.name);
        let purpose = Purpose {
            action: "start",
            object: &object,
        };
        // Its sockets do not tell: they outlive an instance whose runtime folder stays.
        let asked = ["is-active", "--quiet", unit.as_str()];
        if run_program("systemctl", purpose, &asked, START_TIME_MAX).is_ok() {
            return Ok(session(Vec::new()));
        }
        let had_folder = account.runtime().exists();
        run_program("systemctl", purpose, &["start", &unit], START_TIME_MAX)?;
        let mut units = vec![unit];
        if !had_folder {
            // It came with the instance, and does not everywhere go with it.
            units.push(format!("user-runtime-dir@{}.service", account.uid));
        }
        Ok(session(units))
    }
}

impl Drop for UserSession {
    fn drop(&mut self) {
        // Linger was enabled meanwhile.
        if self.account.lingers() {
            return;
        }
        for unit in &self.units {
            let purpose = Purpose {
                action: "stop",
                object: unit,
            };
            // It would end with the next boot at the latest.
            let _ = run_program("systemctl", purpose, &["stop", unit], START_TIME_MAX);
        }
    }
}

/// The variables that a user's podman sees: of root's own only what is the same for everybody.
pub(super) fn environment(
    account: &Account,
    environment: &[(OsString, OsString)],
) -> Vec<(OsString, OsString)> {
    let of_all = ["PATH", "LANG", "LC_ALL", "PODMAN_IGNORE_CGROUPSV1_WARNING"];
    let mut seen: Vec<(OsString, OsString)> = environment
        .iter()
        .filter(|(name, _)| of_all.iter().any(|allowed| name == *allowed))
        .cloned()
        .collect();
    let mut set = |name: &str, value: &OsStr| seen.push((name.into(), value.into()));
    set("HOME", account.home.as_os_str());
    set("USER", account.name.as_ref());
    set("LOGNAME", account.name.as_ref());
    let runtime = account.runtime();
    if runtime.exists() {
        set("XDG_RUNTIME_DIR", runtime.as_os_str());
        let bus = runtime.join("bus");
        if bus.exists() {
            let address = format!("unix:path={}", bus.display());
            set("DBUS_SESSION_BUS_ADDRESS", address.as_ref());
        }
    }
    seen
}

impl Podman {
    /// The folder of the configuration of the user whose it is.
    pub fn config_folder(&self) -> Option<PathBuf> {
        match self.variable("XDG_CONFIG_HOME") {
            Some(folder) => Some(folder.into()),
            None => Some(Path::new(self.variable("HOME")?).join(".config")),
        }
    }

    /// The home of the user whose it is, without links.
    pub fn home(&self) -> Option<PathBuf> {
        let home = PathBuf::from(self.variable("HOME")?);
        Some(std::fs::canonicalize(&home).unwrap_or(home))
    }

    /// The runtime folder of the user whose it is. `None`: it is root's.
    pub fn runtime_folder(&self) -> Option<PathBuf> {
        let (uid, _) = self.rootless_ids()?;
        let named = self.variable("XDG_RUNTIME_DIR").map(PathBuf::from);
        Some(named.unwrap_or_else(|| runtime_folder(uid)))
    }

    /// Whether a file of this owner, as this process sees it, is one of the user whose podman it is.
    pub fn owns(&self, uid: u32) -> bool {
        if let Some(account) = self.user() {
            return account.may_be(uid);
        }
        let own = rustix::process::geteuid();
        match own.is_root() {
            // In the user's namespace: whatever the kernel can name there. Root itself: everything.
            true => !self.is_rootless() || uid != OVERFLOW_ID,
            false => uid == own.as_raw(),
        }
    }

    /// Does something as whoever this podman runs as.
    pub fn in_its_name<T: Send>(
        &self,
        act: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> std::io::Result<T> {
        match self.user() {
            None => act(),
            Some(account) => in_the_name_of(account, act)?,
        }
    }

    /// The maps of the user namespace in which this rootless podman works: those that hold now, not
    /// those that /etc/subuid would give to the next one.
    pub fn owners(&self) -> Result<Owners, PodmanError> {
        let purpose = Purpose {
            action: "read",
            object: "the id maps of Podman's user namespace",
        };
        let map = |file: &str| {
            let text = self.run(purpose, &["unshare", "cat", file], b"")?;
            IdMap::parse(&String::from_utf8_lossy(&text))
                .map_err(|error| PodmanError::new(purpose.action, purpose.object, error))
        };
        Ok(Owners {
            uids: map("/proc/self/uid_map")?,
            gids: map("/proc/self/gid_map")?,
            inside: false,
            any_host_id: rustix::process::geteuid().is_root(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::tests::fake;
    use super::*;
    use crate::fs::owners::{HostUid, NsUid};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nodd:x:-1:0::/:\n\
                          alice:x:1001:1002:A, B:/home/alice:/bin/sh\n";

    #[test]
    fn a_user_is_found_by_name() {
        let alice = in_passwd(PASSWD, "alice").unwrap();
        assert_eq!((alice.uid, alice.gid), (1001, 1002));
        assert_eq!(alice.home, Path::new("/home/alice"));
        assert_eq!(in_passwd(PASSWD, "odd"), None);
        assert_eq!(in_passwd(PASSWD, "ali"), None);
    }

    #[test]
    fn o_05_a_user_s_podman_sees_nothing_of_root_s() {
        let alice = in_passwd(PASSWD, "alice").unwrap();
        let of_root = [
            ("HOME", "/root"),
            ("PATH", "/usr/bin"),
            ("XDG_RUNTIME_DIR", "/run/user/0"),
            ("CONTAINERS_STORAGE_CONF", "/root/storage.conf"),
        ]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let seen = environment(&alice, &of_root);
        let value = |name: &str| seen.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        assert_eq!(value("HOME").unwrap(), "/home/alice");
        assert_eq!(value("PATH").unwrap(), "/usr/bin");
        assert_ne!(value("XDG_RUNTIME_DIR"), Some("/run/user/0".into()));
        assert_eq!(value("CONTAINERS_STORAGE_CONF"), None);
    }

    #[test]
    fn subordinate_ids_are_those_that_root_wrote_down() {
        let alice = in_passwd(PASSWD, "alice").unwrap();
        let file = "bob:100000:65536\nalice:200000:10\n1001:300000:5\nalice:0:9\nalice:1\nalice:x:1\n\
                    alice:4294967290:10\nalic:7:7\n";
        assert_eq!(
            alice.subordinate(file),
            [200_000..200_010, 300_000..300_005]
        );
        assert_eq!(
            told_ranges(b"0: alice 200000 10\n1: alice 5 x\n2: alice 7 2\n"),
            [200_000..200_010, 7..9]
        );
        assert!(alice.may_be(1001));
        assert!(!alice.may_be(0));
    }

    #[test]
    fn what_is_done_in_a_user_s_name_is_the_user_s() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), all).unwrap();
        let alice = in_passwd(PASSWD, "alice").unwrap();
        let closed = folder.path().join("closed");
        std::fs::write(&closed, "x").unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o600)).unwrap();
        let made = folder.path().join("made");
        let refused = in_the_name_of(&alice, || {
            std::fs::write(&made, "x").unwrap();
            std::fs::read(&closed).is_err()
        });
        assert!(refused.unwrap());
        let stat = std::fs::metadata(&made).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (1001, 1002));
        assert_eq!(
            std::fs::read(&closed).unwrap(),
            b"x",
            "and this thread is who it was"
        );
    }

    #[test]
    fn the_maps_are_those_that_hold_now() {
        let folder = tempfile::tempdir().unwrap();
        let podman = fake(
            folder.path(),
            r#"[ "$1 $2" = "unshare cat" ] || exit 1
case $3 in
/proc/self/uid_map) echo "         0       1001          1"; echo "         1     300000      65536" ;;
*) echo "         0       1002          1" ;;
esac"#,
        );
        let owners = podman.owners().unwrap();
        assert_eq!(owners.uids.to_host(NsUid(999)), Some(HostUid(300_998)));
        assert_eq!(owners.gids.to_host(NsUid(0)), Some(HostUid(1002)));
        assert_eq!(owners.gids.to_host(NsUid(1)), None);
        let podman = fake(folder.path(), "echo nonsense");
        assert!(podman.owners().unwrap_err().cause.contains("understood"));
    }
}
