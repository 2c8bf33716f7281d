//! Inode flags and project ids: the calls for them, and which flags are kept.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::IFlags;
use rustix::io::Errno;

use crate::fs::attributes::{FsXattr, KEPT_INODE_FLAGS, fsgetxattr};

/// FS_CASEFOLD_FL: names of the directory do not differ by case. Only on an empty directory.
const CASEFOLD: IFlags = IFlags::from_bits_retain(0x4000_0000);
/// FS_NOCOMP_FL.
const NOT_COMPRESSED: IFlags = IFlags::from_bits_retain(0x400);

/// What forbids every later change: set when all else is done.
pub(super) const LOCKS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
/// How content is laid out: must be set before there is any. Where the place has them (inherited
/// from its directory), that is the choice of whoever runs the host: added, never removed.
pub(super) const LAYOUT: IFlags = IFlags::NOCOW
    .union(IFlags::COMPRESSED)
    .union(NOT_COMPRESSED);
/// Must be set on a directory before it has entries.
pub(super) const EMPTY_DIRECTORY: IFlags = CASEFOLD;
/// What people set: all that a snapshot keeps, and what a place may have given besides. The other
/// bits belong to the file system.
pub(super) const KEPT: IFlags = IFlags::from_bits_retain(KEPT_INODE_FLAGS)
    .union(LAYOUT)
    .union(EMPTY_DIRECTORY)
    .union(IFlags::JOURNALING)
    .union(IFlags::NOTAIL)
    .union(IFlags::TOPDIR)
    .union(IFlags::SECURE_REMOVAL)
    .union(IFlags::UNRM);

/// The kept flags that are set; none where the file system has no such thing.
pub(super) fn flags(fd: impl AsFd) -> IFlags {
    rustix::fs::ioctl_getflags(fd)
        .map(|flags| flags & KEPT)
        .unwrap_or(IFlags::empty())
}

/// Makes the flags among `mask` be exactly `wanted`, leaving all others. What a file system
/// refuses as a whole is tried one by one; gives what could not be set, with the last cause.
pub(super) fn set_flags(
    fd: impl AsFd,
    mask: IFlags,
    wanted: IFlags,
) -> Result<(), (IFlags, Errno)> {
    let fd = fd.as_fd();
    let wanted = wanted & mask;
    let now = match rustix::fs::ioctl_getflags(fd) {
        Ok(now) => now,
        Err(_) if wanted.is_empty() => return Ok(()),
        Err(errno) => return Err((wanted, errno)),
    };
    let target = now.difference(mask).union(wanted);
    if target == now || rustix::fs::ioctl_setflags(fd, target).is_ok() {
        return Ok(());
    }
    let mut state = now;
    let mut failed = None;
    for bit in now.symmetric_difference(target).iter_bits() {
        let next = state.symmetric_difference(bit);
        match rustix::fs::ioctl_setflags(fd, next) {
            Ok(()) => state = next,
            Err(errno) if wanted.contains(bit) => {
                let (bits, _) = failed.unwrap_or((IFlags::empty(), errno));
                failed = Some((bits.union(bit), errno));
            }
            // An inherited flag that stays does no harm to what is restored.
            Err(_) => {}
        }
    }
    failed.map_or(Ok(()), Err)
}

trait Bits {
    fn iter_bits(self) -> impl Iterator<Item = IFlags>;
}

impl Bits for IFlags {
    fn iter_bits(self) -> impl Iterator<Item = IFlags> {
        (0..32)
            .map(|shift| IFlags::from_bits_retain(1 << shift))
            .filter(move |bit| self.contains(*bit))
    }
}

pub(super) fn is_locked(fd: impl AsFd) -> bool {
    flags(fd).intersects(LOCKS)
}

/// Takes immutable and append-only off, so that the file can be changed or removed. Whether that
/// worked shows at what comes next.
pub(super) fn unlock(fd: &OwnedFd) {
    if is_locked(fd) {
        let _ = set_flags(fd, LOCKS, IFlags::empty());
    }
}

/// FS_IOC_FSSETXATTR, for which rustix has no call.
fn fssetxattr(fd: impl AsFd, value: FsXattr) -> Result<(), Errno> {
    const OPCODE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<FsXattr>(b'X', 32);
    // SAFETY: FS_IOC_FSSETXATTR reads one `struct fsxattr`, and `FsXattr` has its layout.
    unsafe { rustix::ioctl::ioctl(fd, rustix::ioctl::Setter::<{ OPCODE }, FsXattr>::new(value)) }
}

/// The project quota id; 0 where there is none.
pub(super) fn project(fd: impl AsFd) -> u32 {
    fsgetxattr(fd).map(|value| value.projid).unwrap_or(0)
}

pub(super) fn set_project(fd: impl AsFd, project: u32) -> Result<(), Errno> {
    let fd = fd.as_fd();
    let mut value = match fsgetxattr(fd) {
        Ok(value) => value,
        Err(_) if project == 0 => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if value.projid == project {
        return Ok(());
    }
    value.projid = project;
    fssetxattr(fd, value)
}
