//! Setting what an entry has besides its content.
//!
//! The order matters: a change of owner clears set-user-id bits and capabilities, so it comes
//! first; then attributes with capabilities, then ACLs, which change the mode's group bits; then
//! the mode; then the project and the flags, which change only ctime; then the times. Immutable and
//! append-only forbid all of it and are left to the end of the whole tree. What fails for one
//! attribute never keeps the others from being set.

use std::os::fd::{AsFd, BorrowedFd};

use podkeep_format::tree::{Entry, Node, Time, Xattr, XattrValue};
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

use super::directory::proc_path;
use super::failures::Failures;
use super::inode;

const SELINUX: &[u8] = b"security.selinux";
const ACL_PREFIX: &[u8] = b"system.posix_acl_";

/// What holds for all entries of a tree.
pub(super) struct Rules {
    /// Restore recorded security.selinux labels; else the place gives them.
    pub keep_labels: bool,
    /// Restore recorded project ids; not where the place has one of its own (a quota).
    pub projects: bool,
    /// An entry may have flags and a project from the directory it was made in, or from an
    /// earlier run.
    pub inherited: bool,
    /// Times have to be read back, because the file system keeps coarse ones.
    pub check_times: bool,
}

/// What attributes are set on.
pub(super) enum Target<'a> {
    /// A file or directory that is open.
    Open(BorrowedFd<'a>),
    /// Anything else: a descriptor with O_PATH, and its place for what needs one.
    Path {
        fd: BorrowedFd<'a>,
        directory: BorrowedFd<'a>,
        name: &'a [u8],
    },
}

/// The disk is full: the one failure of an attribute that ends a restore.
#[derive(Debug)]
pub(super) struct Full(pub Errno);

impl Rules {
    /// Sets everything but the locks among the flags. `stat`: as the entry is now. `path` is
    /// asked only when something fails.
    pub fn apply(
        &self,
        target: &Target<'_>,
        stat: &Stat,
        entry: &Entry,
        failures: &Failures,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<(), Full> {
        let mut mode_is_right = stat.st_mode & 0o7777 == u32::from(entry.mode);
        if (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid) {
            mode_is_right = false;
            match target.chown(entry.uid, entry.gid) {
                Ok(()) => {}
                Err(Errno::DQUOT) => return Err(Full(Errno::DQUOT)),
                Err(errno) => failures.attribute("set the owner", errno, path()),
            }
        }
        if self.xattrs(target, entry, failures, path)? {
            mode_is_right = false;
        }
        if !mode_is_right
            && !matches!(entry.node, Node::Symlink { .. })
            && let Err(errno) = target.chmod(entry.mode)
        {
            failures.attribute("set the mode", errno, path());
        }
        self.flags(target, entry, failures, path)?;
        if (stat.st_mtime, stat.st_mtime_nsec as u32) != (entry.mtime.secs, entry.mtime.nanos) {
            self.mtime(target, entry.mtime, failures, path);
        }
        Ok(())
    }

    /// Makes the attributes those of the entry. Gives whether any was touched.
    fn xattrs(
        &self,
        target: &Target<'_>,
        entry: &Entry,
        failures: &Failures,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<bool, Full> {
        let present = match target.list() {
            Ok(list) => list,
            Err(Errno::OPNOTSUPP) => Vec::new(),
            Err(errno) => {
                failures.attribute("list the extended attributes", errno, path());
                Vec::new()
            }
        };
        let mut touched = false;
        for name in present.split(|byte| *byte == 0).filter(|n| !n.is_empty()) {
            let recorded = entry
                .xattrs
                .binary_search_by(|xattr| xattr.name.as_slice().cmp(name));
            if recorded.is_ok() || belongs_to_the_place(name) {
                continue;
            }
            touched = true;
            match target.remove(name) {
                Ok(()) | Err(Errno::NODATA) => {}
                // A label that came by itself and cannot be taken off does no harm.
                Err(_) if name.starts_with(b"security.") => {}
                Err(errno) => failures.attribute(
                    format!("remove the extended attribute {}", shown(name)),
                    errno,
                    path(),
                ),
            }
        }
        let acl = |xattr: &&Xattr| xattr.name.starts_with(ACL_PREFIX);
        let plain = entry.xattrs.iter().filter(|xattr| !acl(xattr));
        for xattr in plain.chain(entry.xattrs.iter().filter(acl)) {
            if xattr.name == SELINUX && !self.keep_labels {
                continue;
            }
            let XattrValue::Inline(value) = &xattr.value else {
                failures.add(
                    crate::monitor::FindingKind::Attribute,
                    format!("set the extended attribute {}", shown(&xattr.name)),
                    "its value was not delivered",
                    path(),
                );
                continue;
            };
            touched = true;
            match target.set(&xattr.name, value) {
                Ok(()) => {}
                Err(Errno::DQUOT) => return Err(Full(Errno::DQUOT)),
                // Also said of a value that has no room beside the inode.
                Err(Errno::NOSPC) if target.disk_is_full() => return Err(Full(Errno::NOSPC)),
                Err(errno) => failures.attribute(
                    format!("set the extended attribute {}", shown(&xattr.name)),
                    errno,
                    path(),
                ),
            }
        }
        Ok(touched)
    }

    fn flags(
        &self,
        target: &Target<'_>,
        entry: &Entry,
        failures: &Failures,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<(), Full> {
        let wanted = IFlags::from_bits_retain(entry.inode_flags)
            .intersection(inode::KEPT.difference(inode::LOCKS));
        let project = self.projects.then_some(entry.project);
        let Target::Open(fd) = target else {
            if !wanted.is_empty() || project.is_some_and(|id| id != 0) {
                failures.attribute("set inode flags or a project", Errno::OPNOTSUPP, path());
            }
            return Ok(());
        };
        if let Some(project) = project
            && (project != 0 || self.inherited)
        {
            match inode::set_project(fd, project) {
                Ok(()) => {}
                Err(errno @ (Errno::DQUOT | Errno::NOSPC)) => return Err(Full(errno)),
                Err(errno) => failures.attribute("set the project", named(errno), path()),
            }
        }
        if !wanted.is_empty() || self.inherited {
            let mask = inode::KEPT
                .difference(inode::LOCKS)
                .difference(inode::LAYOUT)
                .difference(inode::EMPTY_DIRECTORY)
                .union(wanted);
            if let Err((flags, errno)) = inode::set_flags(fd, mask, wanted) {
                let what = format!("set the inode flags {:#x}", flags.bits());
                failures.attribute(what, named(errno), path());
            }
        }
        Ok(())
    }

    fn mtime(
        &self,
        target: &Target<'_>,
        mtime: Time,
        failures: &Failures,
        path: &dyn Fn() -> Vec<u8>,
    ) {
        if let Err(errno) = target.utimens(mtime) {
            failures.attribute("set the modification time", errno, path());
            return;
        }
        // What every file system with fine times keeps as it is: 1970 to 2038.
        let ordinary = (0..1 << 31).contains(&mtime.secs);
        if (!ordinary || self.check_times)
            && let Ok(stat) = rustix::fs::fstat(target.fd())
            && (stat.st_mtime, stat.st_mtime_nsec as u32) != (mtime.secs, mtime.nanos)
        {
            failures.add(
                crate::monitor::FindingKind::Attribute,
                "keep the modification time",
                "the file system stores another one",
                path(),
            );
        }
    }
}

/// What security modules, network file systems and btrfs's properties put there by themselves.
fn belongs_to_the_place(name: &[u8]) -> bool {
    const KEPT: [&[u8]; 4] = [
        SELINUX,
        b"security.ima",
        b"security.evm",
        b"security.SMACK64",
    ];
    KEPT.contains(&name)
        || name.starts_with(b"btrfs.")
        || (name.starts_with(b"system.") && !name.starts_with(ACL_PREFIX))
}

fn shown(name: &[u8]) -> String {
    podkeep_format::item::Escaped(name).to_string()
}

/// ENOTTY of an ioctl says the same as EOPNOTSUPP, in words that nobody understands.
fn named(errno: Errno) -> Errno {
    if errno == Errno::NOTTY {
        Errno::OPNOTSUPP
    } else {
        errno
    }
}

impl Target<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Path { fd, .. } => *fd,
        }
    }

    fn chown(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        // All bits set means "leave it" to the system call: no entry can have that id.
        let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
        let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
        match self {
            Self::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Self::Path { fd, .. } => rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn chmod(&self, mode: u16) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(u32::from(mode));
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Path { fd, .. } => rustix::fs::chmod(proc_path(*fd), mode),
        }
    }

    pub fn utimens(&self, mtime: Time) -> Result<(), Errno> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: mtime.secs,
                tv_nsec: i64::from(mtime.nanos),
            },
        };
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, &times),
            Self::Path {
                directory, name, ..
            } => rustix::fs::utimensat(directory, *name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    /// Names, each with a NUL behind it.
    fn list(&self) -> Result<Vec<u8>, Errno> {
        let mut small = [0u8; 512];
        let read = |buffer: &mut [u8]| match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Path { fd, .. } => rustix::fs::listxattr(proc_path(*fd), buffer),
        };
        match read(&mut small) {
            Ok(len) => Ok(small[..len].to_vec()),
            Err(Errno::RANGE) => {
                let mut large = vec![0u8; podkeep_format::tree::XATTR_LIST_BYTES_MAX];
                let len = read(&mut large)?;
                large.truncate(len);
                Ok(large)
            }
            Err(errno) => Err(errno),
        }
    }

    fn set(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, flags),
            Self::Path { fd, .. } => rustix::fs::setxattr(proc_path(*fd), name, value, flags),
        }
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Path { fd, .. } => rustix::fs::removexattr(proc_path(*fd), name),
        }
    }

    fn disk_is_full(&self) -> bool {
        rustix::fs::fstatvfs(self.fd()).is_ok_and(|fs| {
            // Less than a large value needs, or no inode left for it.
            fs.f_bavail.saturating_mul(fs.f_frsize) < 128 << 10
                || (fs.f_files > 0 && fs.f_favail == 0)
        })
    }
}

/// Whether the file system keeps a time to the nanosecond, tried on `fd`.
pub(super) fn keeps_nanoseconds(fd: impl AsFd) -> bool {
    let probe = Time {
        secs: 1_000_000_001,
        nanos: 123_456_789,
    };
    let fd = fd.as_fd();
    Target::Open(fd).utimens(probe).is_ok()
        && rustix::fs::fstat(fd).is_ok_and(|stat| {
            (stat.st_mtime, stat.st_mtime_nsec as u32) == (probe.secs, probe.nanos)
        })
}

/// The type that a node's entry becomes.
pub(super) fn file_type(node: &Node) -> FileType {
    match node {
        Node::File { .. } => FileType::RegularFile,
        Node::Directory { .. } => FileType::Directory,
        Node::Symlink { .. } => FileType::Symlink,
        Node::CharDevice { .. } => FileType::CharacterDevice,
        Node::BlockDevice { .. } => FileType::BlockDevice,
        Node::Fifo => FileType::Fifo,
        Node::Socket => FileType::Socket,
    }
}
