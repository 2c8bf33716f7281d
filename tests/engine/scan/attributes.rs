//! What an inode carries besides content.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use podkeep_engine::fs::attributes::KEPT_INODE_FLAGS;
use podkeep_format::tree::{Node, Time};
use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat,
};

use super::support::{Place, noise, read};

fn set(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|error| panic!("set {name}: {error}"));
}

#[test]
fn f_17_all_mode_bits() {
    let place = Place::new();
    let modes = [
        ("a", 0o4755, 0, 0),
        ("b", 0o4755, 1000, 0),
        ("c", 0o2755, 0, 42),
        ("d", 0o6711, 0, 0),
        ("e", 0o2644, 5, 6),
        ("f", 0, 0, 0),
    ];
    for (name, mode, uid, gid) in modes {
        let path = place.write(name, b"");
        chown(&path, Some(uid), Some(gid)).expect("chown");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    for (name, mode) in [("set-group", 0o2775), ("sticky", 0o1777)] {
        let path = place.dir(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    let tree = read(&place.path);
    tree.assert_clean();
    for (name, mode, uid, gid) in modes {
        let entry = tree.entry(name);
        assert_eq!(
            (u32::from(entry.mode), entry.uid, entry.gid),
            (mode, uid, gid)
        );
    }
    assert_eq!(tree.entry("set-group").mode, 0o2775);
    assert_eq!(tree.entry("sticky").mode, 0o1777);
}

#[test]
fn f_19_acls_access_default_and_default_only() {
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perm.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    };
    const NONE: u32 = u32::MAX;
    let named = acl(&[
        (1, 6, NONE),
        (2, 6, 1234),
        (4, 4, NONE),
        (16, 4, NONE),
        (32, 0, NONE),
    ]);
    let place = Place::new();
    let file = place.write("file", b"");
    set(&file, "system.posix_acl_access", &named);
    let dir = place.dir("dir");
    set(&dir, "system.posix_acl_default", &named);
    place.write("dir/inherits", b"");

    let tree = read(&place.path);
    tree.assert_clean();
    let access = (b"system.posix_acl_access".to_vec(), named.clone());
    assert_eq!(tree.xattrs("file"), [access]);
    assert_eq!(tree.entry("file").mode & 0o070, 0o040);
    let default = (b"system.posix_acl_default".to_vec(), named);
    assert_eq!(tree.xattrs("dir"), [default]);
    assert_eq!(tree.xattrs("dir/inherits").len(), 1);
}

#[test]
fn f_20_xattrs_of_every_name_space_and_size() {
    let place = Place::new();
    let file = place.write("file", b"content");
    let large = noise(3, 3000);
    set(&file, "user.large", &large);
    set(&file, "user.empty", b"");
    set(&file, "trusted.b", b"\0binary\0");
    set(
        &file,
        "security.selinux",
        b"system_u:object_r:container_file_t:s0:c1,c2\0",
    );
    // CAP_NET_RAW, version 2.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    set(&file, "security.capability", &capability);
    let link = place.at("link");
    symlink("nowhere", &link).expect("a link");
    set(&link, "trusted.of-the-link", b"1");
    let fifo = place.at("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("fifo");
    set(&fifo, "trusted.of-the-fifo", b"2");
    set(&place.path, "user.of-the-root", b"3");

    let tree = read(&place.path);
    tree.assert_clean();
    let names: Vec<Vec<u8>> = tree
        .xattrs("file")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            b"security.capability".as_slice(),
            b"security.selinux",
            b"trusted.b",
            b"user.empty",
            b"user.large",
        ]
    );
    assert_eq!(tree.xattrs("file")[0].1, capability);
    assert_eq!(tree.xattrs("file")[2].1, b"\0binary\0");
    assert_eq!(tree.xattrs("file")[4].1, large);
    assert_eq!(
        tree.xattrs("link"),
        [(b"trusted.of-the-link".to_vec(), b"1".to_vec())]
    );
    assert_eq!(
        tree.xattrs("fifo"),
        [(b"trusted.of-the-fifo".to_vec(), b"2".to_vec())]
    );
    assert_eq!(
        tree.xattrs(""),
        [(b"user.of-the-root".to_vec(), b"3".to_vec())]
    );
}

/// Clears the flags when the test ends, so that the files can be removed.
struct Flagged(std::path::PathBuf);

impl Flagged {
    fn set(path: std::path::PathBuf, flags: IFlags) -> Self {
        let file = fs::File::open(&path).expect("open");
        let now = rustix::fs::ioctl_getflags(&file).expect("read the flags");
        rustix::fs::ioctl_setflags(&file, now | flags).expect("set the flags");
        Self(path)
    }
}

impl Drop for Flagged {
    fn drop(&mut self) {
        if let Ok(file) = fs::File::open(&self.0)
            && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        {
            let clear = IFlags::IMMUTABLE | IFlags::APPEND;
            let _ = rustix::fs::ioctl_setflags(&file, flags & !clear);
        }
    }
}

#[test]
fn f_22_inode_flags() {
    let place = Place::new();
    let cases = [
        (place.write("immutable", b"1"), IFlags::IMMUTABLE),
        (place.write("append", b"2"), IFlags::APPEND),
        (
            place.write("nodump", b"3"),
            IFlags::NODUMP | IFlags::NOATIME,
        ),
        (place.write("sync", b"4"), IFlags::SYNC),
        (place.dir("dirsync"), IFlags::DIRSYNC),
        (place.dir("frozen"), IFlags::IMMUTABLE),
    ];
    let _flagged: Vec<Flagged> = cases
        .iter()
        .map(|(path, flags)| Flagged::set(path.clone(), *flags))
        .collect();
    place.write("plain", b"");
    let tree = read(&place.path);
    tree.assert_clean();
    for (path, flags) in &cases {
        let name = path.file_name().map(OsStrExt::as_bytes).expect("a name");
        assert_eq!(tree.entry(name).inode_flags, flags.bits(), "{path:?}");
    }
    // ext4 sets flags of its own (extents), which are not kept.
    assert_eq!(tree.entry("plain").inode_flags, 0);
    assert_eq!(KEPT_INODE_FLAGS & 0x0008_0000, 0);
}

#[test]
fn f_23_strange_times() {
    let place = Place::in_memory();
    let times = [
        (-1, 999_999_999),
        (-2_177_452_800, 0),
        (-1, 1),
        (2_147_483_648, 1),
        (15_032_385_536, 999_999_999),
        (253_402_300_800, 0),
        (1 << 40, 0),
    ];
    for (index, (secs, nanos)) in times.iter().enumerate() {
        let path = place.write(format!("{index}"), b"");
        let time = Timespec {
            tv_sec: *secs,
            tv_nsec: *nanos,
        };
        let both = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, &path, &both, AtFlags::empty()).expect("set the time");
    }
    let tree = read(&place.path);
    tree.assert_clean();
    for (index, (secs, nanos)) in times.iter().enumerate() {
        let expected = Time {
            secs: *secs,
            nanos: *nanos as u32,
        };
        assert_eq!(tree.entry(format!("{index}")).mtime, expected);
    }
}

#[test]
fn f_31_whiteouts_and_overlay_attributes_are_plain_data() {
    let place = Place::new();
    let mode = Mode::from_raw_mode(0o600);
    let gone = place.at("gone");
    rustix::fs::mknodat(CWD, &gone, FileType::CharacterDevice, mode, 0).expect("a whiteout");
    let device = rustix::fs::makedev(259, 70_000);
    rustix::fs::mknodat(CWD, place.at("disk"), FileType::BlockDevice, mode, device)
        .expect("a device");
    set(&place.dir("opaque"), "trusted.overlay.opaque", b"y");
    set(&place.write("meta", b"x"), "trusted.overlay.metacopy", b"");
    let tree = read(&place.path);
    tree.assert_clean();
    let none = Node::CharDevice { major: 0, minor: 0 };
    assert_eq!(tree.entry("gone").node, none);
    let disk = Node::BlockDevice {
        major: 259,
        minor: 70_000,
    };
    assert_eq!(tree.entry("disk").node, disk);
    assert_eq!(
        tree.xattrs("opaque"),
        [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())]
    );
    assert_eq!(
        tree.xattrs("meta"),
        [(b"trusted.overlay.metacopy".to_vec(), Vec::new())]
    );
}

#[test]
fn f_40_owners_without_a_name() {
    let place = Place::new();
    let path = place.write("file", b"");
    chown(&path, Some(54_321), Some(54_322)).expect("chown");
    let link = place.at("link");
    symlink("file", &link).expect("a link");
    lchown(&link, Some(u32::MAX - 1), Some(7)).expect("chown");
    let tree = read(&place.path);
    assert_eq!(
        (tree.entry("file").uid, tree.entry("file").gid),
        (54_321, 54_322)
    );
    assert_eq!(
        (tree.entry("link").uid, tree.entry("link").gid),
        (u32::MAX - 1, 7)
    );
}

#[test]
fn f_41_sockets_below_long_paths() {
    let place = Place::new();
    let dir = place.dir("s".repeat(150));
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mknodat(CWD, dir.join("socket"), FileType::Socket, mode, 0).expect("a socket");
    let tree = read(&place.path);
    tree.assert_clean();
    let path = ["s".repeat(150).as_bytes(), b"/socket"].concat();
    assert_eq!(tree.entry(&path).node, Node::Socket);
}

#[test]
fn v_01_the_root_has_its_own_attributes() {
    let place = Place::new();
    chown(&place.path, Some(999), Some(998)).expect("chown");
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o2700)).expect("chmod");
    set(&place.path, "user.mark", b"root");
    let tree = read(&place.path);
    let root = tree.entry("");
    assert_eq!((root.mode, root.uid, root.gid), (0o2700, 999, 998));
    assert_eq!(tree.xattrs(""), [(b"user.mark".to_vec(), b"root".to_vec())]);
}

#[test]
fn e_26_symlinks_are_data() {
    let place = Place::new();
    let long = "t".repeat(4095);
    let links = [
        ("a", "/var/lib/x"),
        ("b", "../../.."),
        ("c", "missing"),
        ("d", &long),
    ];
    for (name, target) in links {
        symlink(target, place.at(name)).expect("a link");
    }
    symlink(OsStr::from_bytes(b"\xff\n"), place.at("e")).expect("a link");
    let tree = read(&place.path);
    tree.assert_clean();
    for (name, target) in links {
        let node = Node::Symlink {
            target: target.as_bytes().to_vec(),
        };
        assert_eq!(tree.entry(name).node, node);
    }
    let raw = Node::Symlink {
        target: b"\xff\n".to_vec(),
    };
    assert_eq!(tree.entry("e").node, raw);
}
