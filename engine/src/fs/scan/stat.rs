//! What the kernel tells of an inode, and when two answers mean the same content.

use std::os::fd::AsFd;

use podkeep_format::codec::Encoder;
use podkeep_format::tree::Time;
use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, statx};
use rustix::io;

/// The parts of `struct statx` that the reader uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub kind: FileType,
    /// 07777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub ino: u64,
    /// Major in the upper half, minor in the lower.
    pub dev: u64,
    pub mtime: Time,
    pub ctime: Time,
    pub rdev: (u32, u32),
    /// The root of a mount. `None`: the kernel does not say (before 5.8).
    pub mount_root: Option<bool>,
}

impl Stat {
    /// An entry of a directory: a symbolic link is not followed, an automount not triggered.
    pub fn at(dir: impl AsFd, name: &[u8]) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(dir, name, flags, StatxFlags::BASIC_STATS).map(Self::from_statx)
    }

    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(Self::from_statx)
    }

    fn from_statx(statx: Statx) -> Self {
        let mount_root = statx
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
            .then(|| statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        Self {
            kind: FileType::from_raw_mode(u32::from(statx.stx_mode)),
            mode: statx.stx_mode & 0o7777,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            nlink: statx.stx_nlink,
            size: statx.stx_size,
            blocks: statx.stx_blocks,
            ino: statx.stx_ino,
            dev: u64::from(statx.stx_dev_major) << 32 | u64::from(statx.stx_dev_minor),
            mtime: time(statx.stx_mtime.tv_sec, statx.stx_mtime.tv_nsec),
            ctime: time(statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec),
            rdev: (statx.stx_rdev_major, statx.stx_rdev_minor),
            mount_root,
        }
    }

    /// What one inode is within a run. Inode numbers alone say nothing: two file systems both
    /// begin to count at 2.
    pub fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Whether nothing was written between the two answers, as far as times tell.
    pub fn same_state(&self, other: &Self) -> bool {
        self.identity() == other.identity()
            && self.size == other.size
            && self.mtime == other.mtime
            && self.ctime == other.ctime
    }

    pub fn is_mount(&self, parent_dev: u64) -> bool {
        // Without the kernel's word a change of device is a mount (or a subvolume: cautious).
        self.mount_root.unwrap_or(self.dev != parent_dev)
    }

    /// Appends what a file state is compared by.
    pub fn fingerprint(&self, out: &mut Encoder) {
        out.varint(self.ino).varint(self.dev).varint(self.size);
        out.varint_signed(self.mtime.secs).u32(self.mtime.nanos);
        out.varint_signed(self.ctime.secs).u32(self.ctime.nanos);
        out.u32(self.kind.as_raw_mode() | u32::from(self.mode));
        out.varint(u64::from(self.uid)).varint(u64::from(self.gid));
        out.varint(u64::from(self.nlink));
    }
}

fn time(secs: i64, nanos: u32) -> Time {
    // A file system that hands out more than a second of nanoseconds is damaged; the format
    // would refuse such a time, so the surplus is dropped.
    Time {
        secs,
        nanos: nanos.min(999_999_999),
    }
}
