//! Which containers serve what the run itself uses: while they are frozen, it would wait for them,
//! and they for it.
//!
//! A place is served by a container when it lies on a FUSE mount and the container has `/dev/fuse`
//! open, or on a network file system whose server is the container (its address, or this host's
//! own address when the container listens there). podkeep looks up no names while it reads, so a
//! name server is none. The container that podkeep itself runs in is one, of course.

use std::ffi::OsStr;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use crate::fs::in_use::processes;
use crate::fs::mounts::{Mount, Mounts};
use crate::podman::LiveContainer;

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
    let mounts = Mounts::now()?;
    needs.iter().find_map(|place| {
        let path = std::fs::canonicalize(place).unwrap_or_else(|_| place.clone());
        let serves = match served(&mounts.of(&path)?)? {
            Served::Fuse => holds_fuse(&container.id),
            Served::By(address) => {
                container.addresses.contains(&address)
                    || (container.listens_on_host && is_own(address))
            }
        };
        serves.then(|| format!("it serves {}, which this run uses", place.display()))
    })
}

fn served(mount: &Mount) -> Option<Served> {
    let kind = mount.kind.as_str();
    if kind == "fuse" || kind.starts_with("fuse.") {
        return Some(Served::Fuse);
    }
    if !NETWORK.contains(&kind) {
        return None;
    }
    let named = mount.options.iter();
    let mut named = named.filter_map(|option| option.strip_prefix("addr="));
    let source = mount.source.trim_start_matches('/');
    let address = named.next().or_else(|| source.split(['/', ':']).next())?;
    address.parse().ok().map(Served::By)
}

/// Only an address of this machine can be bound to.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether a process of the container has `/dev/fuse` open.
fn holds_fuse(id: &str) -> bool {
    processes().any(|process| {
        cgroup_names(process.join("cgroup"), id)
            && std::fs::read_dir(process.join("fd"))
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

    #[test]
    fn a_place_is_served_by_what_its_mount_names() {
        let by = |address: &str| Some(Served::By(address.parse().unwrap()));
        for (kind, source, options, expected) in [
            ("ext4", "/dev/sda1", "rw", None),
            (
                "nfs4",
                "nas:/export",
                "rw,vers=4.2,addr=10.88.0.5",
                by("10.88.0.5"),
            ),
            ("nfs", "10.88.0.6:/export", "rw", by("10.88.0.6")),
            ("fuse.sshfs", "u@h:/", "rw,user_id=0", Some(Served::Fuse)),
            ("cifs", "//127.0.0.1/share", "rw,vers=3.0", by("127.0.0.1")),
            ("cifs", "//nas/share", "rw", None),
        ] {
            let mount = Mount {
                kind: kind.to_owned(),
                source: source.to_owned(),
                options: options.split(',').map(str::to_owned).collect(),
            };
            assert_eq!(served(&mount), expected, "{mount:?}");
        }
    }

    #[test]
    fn only_this_machine_s_addresses_are_its_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("192.0.2.1".parse().unwrap()));
    }
}
