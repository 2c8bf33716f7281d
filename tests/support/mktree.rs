//! Builds trees with everything that tools of this kind get wrong.
//!
//! All of it works relative to open directories, so that paths may be longer than PATH_MAX and
//! names may be any bytes. What the file system at hand cannot hold is left out and named in the
//! result. Building the same tree twice gives the same tree, but for times that are not set.

#![allow(
    dead_code,
    reason = "each test target includes this file and uses a part of it"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, Timestamps, XattrFlags};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

/// What the file system could not hold.
pub type Left = Vec<&'static str>;

/// A directory that is removed with all that is in it, immutable files and any depth too.
pub struct Scratch(PathBuf);

impl Scratch {
    /// In the system's temporary directory.
    pub fn new() -> Self {
        Self::inside(&std::env::temp_dir())
    }

    pub fn inside(parent: &Path) -> Self {
        let made = tempfile::Builder::new()
            .prefix("podkeep-test-")
            .tempdir_in(parent);
        match made {
            Ok(directory) => Self(directory.keep()),
            Err(error) => panic!("cannot make a directory in {}: {error}", parent.display()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// All parts below one root directory, each in a directory of its own.
pub fn build(root: &Path) -> io::Result<Left> {
    std::fs::create_dir_all(root)?;
    let mut left = Left::new();
    for (name, part) in PARTS {
        let directory = root.join(name);
        std::fs::create_dir(&directory)?;
        let directory = open(CWD, directory.as_os_str().as_bytes())?;
        left.extend(part(&directory)?);
    }
    let top = open(CWD, root.as_os_str().as_bytes())?;
    rustix::fs::fchown(&top, Some(Uid::from_raw(999)), Some(Gid::from_raw(998)))?;
    try_xattr(&top, b"user.root", b"of the tree", &mut left)?;
    rustix::fs::fchmod(&top, Mode::from_raw_mode(0o2750))?;
    set_mtime(&top, 1_234_567_890, 123_456_789)?;
    left.sort();
    left.dedup();
    Ok(left)
}

type Part = fn(&OwnedFd) -> io::Result<Left>;

pub const PARTS: [(&str, Part); 10] = [
    ("names", names),
    ("long-path", long_path),
    ("levels", |directory| levels(directory, 2000)),
    ("sparse", sparse),
    ("links", links),
    ("nodes", nodes),
    ("modes", modes),
    ("xattrs", xattrs),
    ("times", times),
    ("flags", flags),
];

fn open(parent: impl std::os::fd::AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

pub fn directory(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    open(parent, name)
}

pub fn file(parent: &OwnedFd, name: &[u8], content: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::openat(
        parent,
        name,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    )?;
    write_at(&fd, 0, content)?;
    Ok(fd)
}

pub fn write_at(fd: &OwnedFd, mut offset: u64, mut content: &[u8]) -> io::Result<()> {
    while !content.is_empty() {
        let n = rustix::io::pwrite(fd, content, offset)?;
        content = &content[n..];
        offset += n as u64;
    }
    Ok(())
}

/// Bytes that do not compress and that `seed` decides.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn set_mtime(fd: &OwnedFd, secs: i64, nanos: i64) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, &timestamps(secs, nanos))?)
}

fn timestamps(secs: i64, nanos: i64) -> Timestamps {
    let time = rustix::fs::Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn try_xattr(fd: &OwnedFd, name: &[u8], value: &[u8], left: &mut Left) -> io::Result<()> {
    match rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        // E2BIG and ENOSPC: more than this file system has room for beside an inode.
        Err(Errno::OPNOTSUPP | Errno::TOOBIG | Errno::NOSPC | Errno::PERM) => {
            left.push("an extended attribute");
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Names that are not UTF-8, that split lines, that look like options, patterns, whiteouts or
/// paths, that differ in case or normal form only, and of 255 bytes (F-01, 02, 04, 05, 32, 35).
pub fn names(top: &OwnedFd) -> io::Result<Left> {
    let mut left = Left::new();
    let longest = vec![b'n'; 255];
    let longest_wide = "ä".repeat(127).into_bytes();
    let odd: &[&[u8]] = &[
        b"caf\xe9",
        b"\xff\xfe",
        b"a\xed\xa0\x80b",
        b"\xc3\x28",
        b"a\nb",
        b"\n",
        b"c\td",
        b"e\\n",
        b"-rf",
        b"--help",
        b"\x1b[2Jx",
        b" lead",
        b"trail ",
        b"[.txt",
        b"[].txt",
        b"[abc].txt",
        b"*",
        b"?q",
        b"{x,y}",
        b"..config.tmp",
        b"...",
        b".wh.x",
        b".wh..wh..opq",
        b"x",
        b"xt_DSCP.h",
        b"xt_dscp.h",
        b"\xc3\x84",
        b"\xc3\xa4",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"\x01\x7f",
        b"\\",
        b"\\x41",
        b"'\"",
        b"$HOME",
        b"a:b",
        b"~",
        &longest,
        &longest_wide,
    ];
    for (index, name) in odd.iter().enumerate() {
        match file(top, name, format!("content {index}").as_bytes()) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::ILSEQ.raw_os_error()) => {
                left.push("names that are not UTF-8");
            }
            Err(error) => return Err(error),
        }
    }
    let below = directory(top, b"..a")?;
    file(&below, b"b", b"two dots")?;
    let below = directory(top, b"d\xff\n")?;
    file(&below, b"in an odd directory", b"1")?;
    directory(top, b"empty")?;
    Ok(left)
}

/// A path of 6000 bytes with a file, a hardlink, an attribute and a socket at its end (F-07, 41).
pub fn long_path(top: &OwnedFd) -> io::Result<Left> {
    let mut left = Left::new();
    let mut below = top.try_clone()?;
    for level in 0..30 {
        below = directory(&below, format!("{level:0>200}").as_bytes())?;
    }
    let leaf = file(&below, b"leaf", b"far away")?;
    try_xattr(&leaf, b"user.leaf", b"value", &mut left)?;
    rustix::fs::linkat(&below, "leaf", &below, "leaf-link", AtFlags::empty())?;
    node(&below, b"socket", FileType::Socket, 0o700, 0, &mut left)?;
    set_mtime(&below, 77, 7)?;
    Ok(left)
}

/// As many nested directories as told, and a file in the innermost.
pub fn levels(top: &OwnedFd, count: usize) -> io::Result<Left> {
    let mut below = top.try_clone()?;
    for _ in 0..count {
        below = directory(&below, b"d")?;
    }
    file(&below, b"leaf", b"deep")?;
    Ok(Left::new())
}

/// Holes at the start, in the middle, at the end, everywhere; zeros that are written; a file
/// over 4 GiB and one of 1 TiB (F-08, 10, 38).
pub fn sparse(top: &OwnedFd) -> io::Result<Left> {
    let mut left = Left::new();
    let mut sized = |name: &str, size: u64, parts: &[(u64, usize)]| -> io::Result<()> {
        let fd = file(top, name.as_bytes(), b"")?;
        match rustix::fs::ftruncate(&fd, size) {
            Err(Errno::FBIG) => {
                left.push("a file of that size");
                return Ok(rustix::fs::unlinkat(top, name, AtFlags::empty())?);
            }
            other => other?,
        }
        for (offset, len) in parts {
            write_at(&fd, *offset, &noise(*offset + 1, *len))?;
        }
        Ok(())
    };
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    sized("all-hole", 16 * MIB, &[])?;
    sized("small-hole", 10_000, &[])?;
    sized("middle", 16 * MIB, &[(0, 4 << 20), (12 * MIB, 4 << 20)])?;
    sized("start", MIB + 5, &[(MIB - 4096, 4101)])?;
    sized("trailing", 3 * MIB + 1, &[(0, 100_000)])?;
    sized("one-page", 64 << 10, &[(0, 8192), (16_384, 49_152)])?;
    sized(
        "over-4g",
        4 * GIB + (64 << 10),
        &[
            ((1 << 31) - 1, 2),
            ((1 << 32) - 1, 4),
            (4 * GIB + (60 << 10), 4096),
        ],
    )?;
    sized(
        "tebibyte",
        1 << 40,
        &[(0, 4096), (512 * GIB, 4096), ((1 << 40) - 4096, 4096)],
    )?;
    let zeros = file(top, b"written-zeros", &vec![0; 2 << 20])?;
    write_at(&zeros, 4 << 20, b"behind a hole")?;
    file(top, b"short-zeros", &[0; 100])?;
    file(top, b"empty", b"")?;
    file(top, b"big", &noise(3, 3 << 20))?;
    Ok(left)
}

/// One inode under several names, across directories, for each type (F-11).
pub fn links(top: &OwnedFd) -> io::Result<Left> {
    let mut left = Left::new();
    let (a, b) = (directory(top, b"a")?, directory(top, b"b")?);
    let nested = directory(&directory(top, b"c")?, b"d")?;
    file(&a, b"x", b"three names")?;
    rustix::fs::linkat(&a, "x", &b, "y", AtFlags::empty())?;
    rustix::fs::linkat(&a, "x", &nested, "z", AtFlags::empty())?;
    file(&b, b"big", &noise(9, 1 << 20))?;
    rustix::fs::linkat(&b, "big", &a, "big", AtFlags::empty())?;
    rustix::fs::symlinkat("nowhere/at all", &a, "link")?;
    rustix::fs::linkat(&a, "link", &b, "link", AtFlags::empty())?;
    node(&a, b"fifo", FileType::Fifo, 0o640, 0, &mut left)?;
    rustix::fs::linkat(&a, "fifo", &b, "fifo", AtFlags::empty())?;
    node(&a, b"socket", FileType::Socket, 0o755, 0, &mut left)?;
    rustix::fs::linkat(&a, "socket", &b, "socket", AtFlags::empty())?;
    let device = rustix::fs::makedev(1, 3);
    if node(
        &a,
        b"null",
        FileType::CharacterDevice,
        0o666,
        device,
        &mut left,
    )? {
        rustix::fs::linkat(&a, "null", &b, "null", AtFlags::empty())?;
    }
    // Its other name is outside, so that it has two links and one path.
    file(top, b"alone", b"one of two names")?;
    Ok(left)
}

fn node(
    parent: &OwnedFd,
    name: &[u8],
    kind: FileType,
    mode: u32,
    device: u64,
    left: &mut Left,
) -> io::Result<bool> {
    match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(mode), device) {
        // EINVAL: xfs has 18 bits for the minor number.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {
            left.push("a device");
            return Ok(false);
        }
        other => other?,
    }
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    Ok(true)
}

/// Devices, whiteouts of overlay, fifos, sockets, symbolic links (F-31, 41; E-26).
pub fn nodes(top: &OwnedFd) -> io::Result<Left> {
    let mut left = Left::new();
    let dev = rustix::fs::makedev;
    node(top, b"whiteout", FileType::CharacterDevice, 0, 0, &mut left)?;
    node(
        top,
        b"char",
        FileType::CharacterDevice,
        0o660,
        dev(4, 64),
        &mut left,
    )?;
    node(
        top,
        b"large-minor",
        FileType::CharacterDevice,
        0o600,
        dev(511, 0xf_ffff),
        &mut left,
    )?;
    node(
        top,
        b"block",
        FileType::BlockDevice,
        0o640,
        dev(7, 300),
        &mut left,
    )?;
    node(top, b"fifo", FileType::Fifo, 0o4711, 0, &mut left)?;
    node(top, b"socket", FileType::Socket, 0o777, 0, &mut left)?;
    rustix::fs::chownat(
        top,
        "fifo",
        Some(Uid::from_raw(1)),
        Some(Gid::from_raw(2)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    rustix::fs::chmodat(top, "fifo", Mode::from_raw_mode(0o2711), AtFlags::empty())?;
    let longest = vec![b't'; 4095];
    let targets: [(&str, &[u8]); 7] = [
        ("absolute", b"/var/lib/x"),
        ("up", b"../../.."),
        ("dangling", b"missing"),
        ("self", b"self"),
        ("bytes", b"caf\xe9\n\xff"),
        ("longest", &longest),
        ("etc", b"/etc"),
    ];
    for (name, target) in targets {
        match rustix::fs::symlinkat(target, top, name) {
            // xfs stores at most 1023 bytes.
            Err(Errno::NAMETOOLONG) => left.push("a link target of 4095 bytes"),
            other => other?,
        }
    }
    rustix::fs::chownat(
        top,
        "dangling",
        Some(Uid::from_raw(1000)),
        Some(Gid::from_raw(1001)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    for name in ["whiteout", "fifo", "socket", "dangling"] {
        let at = timestamps(1_000_000_000, 987_654_321);
        match rustix::fs::utimensat(top, name, &at, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            other => other?,
        }
    }
    Ok(left)
}

/// Set-user-id, set-group-id, sticky, no bits at all; owners that nobody knows (F-17, 40).
pub fn modes(top: &OwnedFd) -> io::Result<Left> {
    let all: [(&str, bool, u32, u32, u32); 14] = [
        ("suid-root", false, 0o4755, 0, 0),
        ("suid-user", false, 0o4755, 1000, 1000),
        ("sgid", false, 0o2755, 0, 42),
        ("both", false, 0o6711, 7, 8),
        ("mandatory-lock", false, 0o2644, 1000, 1000),
        ("sticky-file", false, 0o1644, 0, 0),
        ("nothing", false, 0, 0, 0),
        ("strangers", false, 0o640, 54_321, 54_322),
        ("highest-ids", false, 0o600, 4_294_967_294, 4_294_967_294),
        ("dir-sgid", true, 0o2775, 1000, 42),
        ("dir-sticky", true, 0o1777, 0, 0),
        ("dir-nothing", true, 0, 65_534, 65_534),
        ("dir-read-only", true, 0o555, 999, 999),
        ("dir-all", true, 0o7777, 54_321, 0),
    ];
    for (name, is_directory, mode, uid, gid) in all {
        let fd = if is_directory {
            let fd = directory(top, name.as_bytes())?;
            file(&fd, b"child", name.as_bytes())?;
            fd
        } else {
            file(top, name.as_bytes(), name.as_bytes())?
        };
        rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
    }
    Ok(Left::new())
}

/// A POSIX ACL as the kernel stores it: (tag, permissions, id) with the tags 1 owner, 2 user,
/// 4 owning group, 8 group, 16 mask, 32 others.
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const NO_ID: u32 = u32::MAX;

/// ACLs, capabilities of both versions, user, trusted, security and overlay attributes, large
/// and many attributes, attributes of links and nodes (F-17, 19, 20, 31; V-19).
pub fn xattrs(top: &OwnedFd) -> io::Result<Left> {
    let mut left = Left::new();
    let access = acl(&[
        (1, 6, NO_ID),
        (2, 6, 1000),
        (4, 6, NO_ID),
        (8, 4, 1001),
        (16, 4, NO_ID),
        (32, 0, NO_ID),
    ]);
    let default = acl(&[
        (1, 7, NO_ID),
        (2, 7, 100_998),
        (4, 5, NO_ID),
        (16, 7, NO_ID),
        (32, 5, NO_ID),
    ]);
    let fd = file(top, b"acl", b"acl")?;
    try_xattr(&fd, ACL_ACCESS, &access, &mut left)?;
    let both = directory(top, b"acl-both")?;
    file(&both, b"before", b"made before the default ACL")?;
    try_xattr(&both, ACL_ACCESS, &access, &mut left)?;
    try_xattr(&both, ACL_DEFAULT, &default, &mut left)?;
    file(&both, b"after", b"inherits")?;
    directory(&both, b"below")?;
    let only = directory(top, b"acl-default-only")?;
    try_xattr(&only, ACL_DEFAULT, &default, &mut left)?;

    // Version 2: cap_net_raw+ep. Version 3 has the root id of a user namespace behind it.
    let mut capability = 0x0200_0001u32.to_le_bytes().to_vec();
    capability.extend_from_slice(&0x2000u32.to_le_bytes());
    capability.extend_from_slice(&[0; 12]);
    let fd = file(top, b"capability", b"ping")?;
    rustix::fs::fchown(&fd, Some(Uid::from_raw(5)), Some(Gid::from_raw(6)))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o4755))?;
    try_xattr(&fd, b"security.capability", &capability, &mut left)?;
    capability[3] = 3;
    capability.extend_from_slice(&1000u32.to_le_bytes());
    let fd = file(top, b"capability-3", b"ping")?;
    try_xattr(&fd, b"security.capability", &capability, &mut left)?;

    let fd = file(top, b"many", b"attributes")?;
    for index in 0..12 {
        let name = format!("user.number-{index}");
        try_xattr(&fd, name.as_bytes(), name.as_bytes(), &mut left)?;
    }
    try_xattr(&fd, b"user.empty", b"", &mut left)?;
    try_xattr(&fd, b"user.bytes", b"\x00\xff\n", &mut left)?;
    try_xattr(&fd, b"user.caf\xe9", b"name of any bytes", &mut left)?;
    try_xattr(&fd, b"trusted.one", b"for root", &mut left)?;
    try_xattr(&fd, b"security.podkeep", b"any of this kind", &mut left)?;
    let mut longest = b"user.".to_vec();
    longest.resize(255, b'l');
    let fd = file(top, b"longest-name", b"")?;
    try_xattr(&fd, &longest, b"1", &mut left)?;
    let fd = file(top, b"large", b"")?;
    try_xattr(&fd, b"user.large", &noise(5, 3000), &mut left)?;
    let fd = file(top, b"huge", b"")?;
    try_xattr(&fd, b"user.huge", &noise(6, 65_536), &mut left)?;

    let fd = directory(top, b"opaque")?;
    try_xattr(&fd, b"trusted.overlay.opaque", b"y", &mut left)?;
    let fd = file(top, b"metacopy", b"")?;
    try_xattr(&fd, b"trusted.overlay.metacopy", b"", &mut left)?;
    try_xattr(&fd, b"user.overlay.redirect", b"/elsewhere", &mut left)?;

    rustix::fs::symlinkat("target", top, "link")?;
    node(top, b"fifo", FileType::Fifo, 0o600, 0, &mut left)?;
    for name in ["link", "fifo"] {
        let path = format!("/proc/self/fd/{}/{name}", top.as_raw_fd());
        match rustix::fs::lsetxattr(path, "trusted.of", name.as_bytes(), XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => left.push("an attribute of a link"),
            other => other?,
        }
    }
    Ok(left)
}

/// Modification times at the edges. A file system that keeps another time than was asked for is
/// no difference: what is compared is what it kept (F-23).
pub fn times(top: &OwnedFd) -> io::Result<Left> {
    let all: [(&str, i64, i64); 12] = [
        ("zero", 0, 0),
        ("one-nanosecond-before", -1, 999_999_999),
        ("1901", -2_177_452_800, 1),
        ("first", 0, 1),
        ("before-1970", -86_400, 500_000_000),
        ("nanoseconds", 1_700_000_000, 999_999_999),
        ("2038", 1 << 31, 123_456_789),
        ("2106", 1 << 32, 1),
        ("2446", 15_032_385_535, 999_999_999),
        ("10000", 253_402_300_800, 5),
        ("far", 1 << 40, 999_999_999),
        ("far-before", -(1 << 40), 1),
    ];
    for (name, secs, nanos) in all {
        let fd = file(top, name.as_bytes(), b"")?;
        set_mtime(&fd, secs, nanos)?;
        let fd = directory(top, format!("directory-{name}").as_bytes())?;
        file(&fd, b"child", b"")?;
        set_mtime(&fd, secs, nanos)?;
    }
    Ok(Left::new())
}

/// Immutable and append-only files and directories, no-dump, no-atime, no-copy-on-write (F-22).
pub fn flags(top: &OwnedFd) -> io::Result<Left> {
    let mut left = Left::new();
    let mut set = |fd: &OwnedFd, bits: u32| -> io::Result<()> {
        let result = rustix::fs::ioctl_getflags(fd)
            .and_then(|now| rustix::fs::ioctl_setflags(fd, now | IFlags::from_bits_retain(bits)));
        match result {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::PERM | Errno::INVAL) => {
                left.push("an inode flag");
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    };
    let mut attribute_left = Left::new();
    let fd = file(top, b"immutable", b"never changes")?;
    try_xattr(&fd, b"user.a", b"set before", &mut attribute_left)?;
    rustix::fs::fchown(&fd, Some(Uid::from_raw(3)), Some(Gid::from_raw(4)))?;
    set(&fd, IFlags::IMMUTABLE.bits())?;
    let fd = file(top, b"append", b"log")?;
    set(&fd, IFlags::APPEND.bits())?;
    let fd = file(top, b"no-dump", b"")?;
    set(
        &fd,
        (IFlags::NODUMP | IFlags::NOATIME | IFlags::SYNC).bits(),
    )?;
    let fd = file(top, b"no-cow", b"")?;
    set(&fd, IFlags::NOCOW.bits())?;
    write_at(&fd, 0, b"in place")?;
    let fd = directory(top, b"immutable-directory")?;
    let child = file(&fd, b"child", b"of an immutable directory")?;
    set(&child, IFlags::IMMUTABLE.bits())?;
    let below = directory(&fd, b"below")?;
    file(&below, b"free", b"")?;
    set(&fd, IFlags::IMMUTABLE.bits())?;
    let fd = directory(top, b"append-directory")?;
    file(&fd, b"child", b"")?;
    set(&fd, (IFlags::APPEND | IFlags::NODUMP).bits())?;
    left.extend(attribute_left);
    Ok(left)
}

/// Removes a file or a tree of any depth, with immutable and append-only entries.
pub fn remove(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::other("a path without a name"));
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let top = rustix::fs::open(
        parent,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut current = top;
    // Names that are still to be removed, level by level; the last one of a level that has a
    // level above it is the directory that is open.
    let mut pending: Vec<Vec<Vec<u8>>> = vec![vec![name.as_bytes().to_vec()]];
    while let Some(level) = pending.last_mut() {
        let Some(name) = level.last().cloned() else {
            pending.pop();
            if let Some(level) = pending.last_mut() {
                current = open(&current, b"..")?;
                if let Some(name) = level.pop() {
                    rustix::fs::unlinkat(&current, name.as_slice(), AtFlags::REMOVEDIR)?;
                }
            }
            continue;
        };
        match open(&current, &name) {
            Ok(directory) => {
                unlock(&directory);
                let mut names = Vec::new();
                for entry in rustix::fs::Dir::read_from(&directory)? {
                    let name = entry?.file_name().to_bytes().to_vec();
                    if name != b"." && name != b".." {
                        names.push(name);
                    }
                }
                pending.push(names);
                current = directory;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                level.pop();
            }
            Err(_) => {
                level.pop();
                if rustix::fs::unlinkat(&current, name.as_slice(), AtFlags::empty()).is_err() {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                    let file = rustix::fs::openat(&current, name.as_slice(), flags, Mode::empty())?;
                    unlock(&file);
                    rustix::fs::unlinkat(&current, name.as_slice(), AtFlags::empty())?;
                }
            }
        }
    }
    Ok(())
}

fn unlock(fd: &OwnedFd) {
    let locked = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = rustix::fs::ioctl_getflags(fd)
        && flags.intersects(locked)
    {
        // A failure shows at the removal that needs it.
        let _ = rustix::fs::ioctl_setflags(fd, flags.difference(locked));
    }
}
