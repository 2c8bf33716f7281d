//! Which containers serve what the run itself uses: while they are frozen, it would wait for them,
//! and they for it.
//!
//! A place is served by a container when it lies on a FUSE mount and the container has `/dev/fuse`
//! open, or on a network file system whose server is the container (its address, or this host's
//! own address when the container listens there). podkeep looks up no names while it reads, so a
//! name server is none. The container that podkeep itself runs in is one, of course.

use std::ffi::OsStr;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::podman::LiveContainer;

const MOUNTS_BYTES_MAX: usize = 16 << 20;
/// File systems whose content another machine, or a process that plays one, has.
const NETWORK: [&str; 8] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "ceph",
    "afs",
    "glusterfs",
];

/// Where a place lies, if somebody serves it.
#[derive(Debug, PartialEq, Eq)]
enum Served {
    Fuse,
    By(IpAddr),
}

/// Why a container must go on; `None`: it may be frozen.
pub(super) fn reason(container: &LiveContainer, needs: &[PathBuf]) -> Option<String> {
    if cgroup_names("/proc/self/cgroup", &container.id) {
        return Some("podkeep itself runs in it".into());
    }
    let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
    if mounts.len() > MOUNTS_BYTES_MAX {
        return None;
    }
    needs.iter().find_map(|place| {
        let path = std::fs::canonicalize(place).unwrap_or_else(|_| place.clone());
        let serves = match served(&mounts, &path)? {
            Served::Fuse => holds_fuse(&container.id),
            Served::By(address) => {
                container.addresses.contains(&address)
                    || (container.listens_on_host && is_own(address))
            }
        };
        serves.then(|| format!("it serves {}, which this run uses", place.display()))
    })
}

/// How the file system of a path is served, by the lines of `/proc/self/mountinfo`.
fn served(mounts: &[u8], path: &Path) -> Option<Served> {
    let mut best: Option<(usize, Option<Served>)> = None;
    for line in mounts.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let Some(point) = fields.nth(4).map(unescaped) else {
            continue;
        };
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (Some(kind), Some(source), options) = (rest.next(), rest.next(), rest.next()) else {
            continue;
        };
        // Of several mounts at one point the last is on top.
        let deep = point.as_os_str().len();
        if path.starts_with(&point) && best.as_ref().is_none_or(|(len, _)| deep >= *len) {
            let kind = String::from_utf8_lossy(kind);
            let options = String::from_utf8_lossy(options.unwrap_or_default());
            let source = String::from_utf8_lossy(source);
            best = Some((deep, server(&kind, &source, &options)));
        }
    }
    best?.1
}

fn server(kind: &str, source: &str, options: &str) -> Option<Served> {
    if kind == "fuse" || kind.starts_with("fuse.") {
        return Some(Served::Fuse);
    }
    if !NETWORK.contains(&kind) {
        return None;
    }
    let address = options
        .split(',')
        .find_map(|option| option.strip_prefix("addr="))
        .or_else(|| source.trim_start_matches('/').split(['/', ':']).next())?;
    address.parse().ok().map(Served::By)
}

/// mountinfo writes blanks, tabs, line ends and backslashes as `\NNN`, in octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let code = field
            .get(at + 1..at + 4)
            .filter(|_| field[at] == b'\\')
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(field[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Only an address of this machine can be bound to.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether a process of the container has `/dev/fuse` open.
fn holds_fuse(id: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let name = process.file_name();
        let is_process = name.as_bytes().iter().all(u8::is_ascii_digit);
        is_process
            && cgroup_names(process.path().join("cgroup"), id)
            && std::fs::read_dir(process.path().join("fd"))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                .any(|target| target.as_os_str() == OsStr::new("/dev/fuse"))
    })
}

/// Podman names a container's cgroup by its id.
fn cgroup_names(file: impl AsRef<Path>, id: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|cgroups| cgroups.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:50 / /mnt/backup rw shared:5 - nfs4 nas:/export rw,vers=4.2,addr=10.88.0.5
31 22 0:51 / /mnt/with\\040blank rw - fuse.sshfs u@h:/ rw,user_id=0
32 22 8:2 / /mnt/disk rw - xfs /dev/sdb1 rw
33 22 0:52 / /mnt/share rw - cifs //127.0.0.1/share rw,vers=3.0
34 30 8:3 / /mnt/backup/local rw - ext4 /dev/sdc1 rw
";

    #[test]
    fn a_place_is_served_by_what_its_mount_names() {
        let by = |address: &str| Some(Served::By(address.parse().unwrap()));
        for (path, expected) in [
            ("/srv", None),
            ("/mnt/backup", by("10.88.0.5")),
            ("/mnt/backup/repository", by("10.88.0.5")),
            ("/mnt/backups", None),
            ("/mnt/backup/local/x", None),
            ("/mnt/with blank/x", Some(Served::Fuse)),
            ("/mnt/disk/x", None),
            ("/mnt/share", by("127.0.0.1")),
        ] {
            assert_eq!(served(MOUNTS, Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn only_this_machine_s_addresses_are_its_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("192.0.2.1".parse().unwrap()));
    }
}
