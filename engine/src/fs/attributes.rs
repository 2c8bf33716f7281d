//! Reading what an inode carries besides content: extended attributes (ACLs and capabilities
//! among them), inode flags, project ids.
//!
//! Nothing here follows a symbolic link. An inode that cannot be opened without side effects
//! (a fifo, device, socket or link) is reached as `/proc/self/fd/DIR/NAME`, so that no path is
//! too long and no directory on the way is looked up again.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use podkeep_format::tree::{XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use rustix::fs::{FsWord, fgetxattr, flistxattr, fstatfs, ioctl_getflags, lgetxattr, llistxattr};
use rustix::io::{self, Errno};

const FS_SYNC_FL: u32 = 0x0000_0008;
const FS_IMMUTABLE_FL: u32 = 0x0000_0010;
const FS_APPEND_FL: u32 = 0x0000_0020;
const FS_NODUMP_FL: u32 = 0x0000_0040;
const FS_NOATIME_FL: u32 = 0x0000_0080;
const FS_COMPR_FL: u32 = 0x0000_0004;
const FS_DIRSYNC_FL: u32 = 0x0001_0000;
const FS_NOCOW_FL: u32 = 0x0080_0000;
const FS_PROJINHERIT_FL: u32 = 0x2000_0000;

/// The FS_IOC_GETFLAGS bits that a snapshot keeps: those that a user sets and that mean the same
/// on every file system. The others describe how one file system stores the inode (extents,
/// inline data, encryption, verity) or can only be set on an empty directory of a volume made
/// for it (case folding).
pub const KEPT_INODE_FLAGS: u32 = FS_COMPR_FL
    | FS_SYNC_FL
    | FS_IMMUTABLE_FL
    | FS_APPEND_FL
    | FS_NODUMP_FL
    | FS_NOATIME_FL
    | FS_DIRSYNC_FL
    | FS_NOCOW_FL
    | FS_PROJINHERIT_FL;

const BTRFS_MAGIC: FsWord = 0x9123_683e;
const EXT_MAGIC: FsWord = 0xef53;
const XFS_MAGIC: FsWord = 0x5846_5342;
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// File systems that show the kernel's state and hold no data of their own.
const PSEUDO_MAGICS: [FsWord; 22] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0x1980_0202, // mqueue
    0x6265_6570, // configfs
    0x6573_5543, // fusectl
    0x0187,      // autofs
    0xde5e_81e4, // efivarfs
    0x4249_4e4d, // binfmt_misc
    0x9584_58f6, // hugetlbfs
    0xf97c_ff8c, // selinuxfs
    0x6759_6969, // rpc_pipefs
    0x6e73_6673, // nsfs
    0x4346_4953, // smackfs
    0x5346_414f, // afs' dynamic root
];

/// What the reader has to know of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsTraits {
    /// proc, sysfs and their like.
    pub pseudo: bool,
    /// Content does not outlast the machine, and times are no proof of anything.
    pub tmpfs: bool,
    flags: FlagSource,
}

/// Which calls tell the kept flags and the project id; one call where one is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlagSource {
    /// FS_IOC_GETFLAGS; there are no project ids.
    Flags,
    /// FS_IOC_FSGETXATTR tells all that a file can have; a directory needs both.
    Extended,
    Both,
}

impl FsTraits {
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let magic = fstatfs(fd)?.f_type;
        Ok(Self {
            pseudo: PSEUDO_MAGICS.contains(&magic),
            tmpfs: magic == TMPFS_MAGIC,
            flags: match magic {
                BTRFS_MAGIC => FlagSource::Flags,
                EXT_MAGIC | XFS_MAGIC | TMPFS_MAGIC => FlagSource::Extended,
                _ => FlagSource::Both,
            },
        })
    }
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    pub projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// The bits of `fsx_xflags` and the inode flags that say the same.
const XFLAGS: [(u32, u32); 6] = [
    (0x0000_0008, FS_IMMUTABLE_FL),
    (0x0000_0010, FS_APPEND_FL),
    (0x0000_0020, FS_SYNC_FL),
    (0x0000_0040, FS_NOATIME_FL),
    (0x0000_0080, FS_NODUMP_FL),
    (0x0000_0200, FS_PROJINHERIT_FL),
];

/// FS_IOC_FSGETXATTR, for which rustix has no call.
pub(super) fn fsgetxattr(fd: impl AsFd) -> io::Result<FsXattr> {
    const OPCODE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<FsXattr>(b'X', 31);
    // SAFETY: FS_IOC_FSGETXATTR writes one `struct fsxattr`, and `FsXattr` has its layout.
    unsafe { rustix::ioctl::ioctl(fd, rustix::ioctl::Getter::<{ OPCODE }, FsXattr>::new()) }
}

/// A file system that does not know an ioctl has nothing that it could tell.
fn unsupported(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM
    )
}

/// (inode flags out of [`KEPT_INODE_FLAGS`], project id) of an open file or directory.
pub fn flags_and_project(
    fd: BorrowedFd<'_>,
    traits: FsTraits,
    directory: bool,
) -> io::Result<(u32, u32)> {
    let mut flags = 0;
    let mut project = 0;
    if traits.flags != FlagSource::Flags {
        match fsgetxattr(fd) {
            Ok(extended) => {
                project = extended.projid;
                for (xflag, flag) in XFLAGS {
                    if extended.xflags & xflag != 0 {
                        flags |= flag;
                    }
                }
            }
            Err(errno) if unsupported(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    if directory || traits.flags != FlagSource::Extended {
        match ioctl_getflags(fd) {
            Ok(more) => flags |= more.bits(),
            Err(errno) if unsupported(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok((flags & KEPT_INODE_FLAGS, project))
}

/// Names with values, sorted by name. Values are at most [`XATTR_VALUE_BYTES_MAX`] long.
pub type RawXattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All extended attributes of an open file or directory. An attribute that goes away meanwhile
/// is left out; a file system without attributes has none.
pub fn xattrs_of_fd(fd: impl AsFd) -> io::Result<RawXattrs> {
    let fd = fd.as_fd();
    collect(
        |buffer| flistxattr(fd, buffer),
        |name, buffer| fgetxattr(fd, name, buffer),
    )
}

/// The same of an entry that cannot be opened; the last component is not followed.
pub fn xattrs_of_entry(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<RawXattrs> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    collect(
        |buffer| llistxattr(path.as_slice(), buffer),
        |name, buffer| lgetxattr(path.as_slice(), name, buffer),
    )
}

fn collect(
    list: impl Fn(&mut [u8]) -> io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> io::Result<usize>,
) -> io::Result<RawXattrs> {
    let mut small = [0u8; 1024];
    let mut large;
    let names = match list(&mut small) {
        Ok(len) => &small[..len],
        Err(Errno::RANGE) => {
            large = vec![0; XATTR_LIST_BYTES_MAX];
            let len = list(&mut large)?;
            &large[..len]
        }
        Err(errno) if without_xattrs(errno) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut attributes = RawXattrs::new();
    let mut value = Vec::new();
    for name in names.split(|byte| *byte == 0).take(XATTR_LIST_BYTES_MAX) {
        if name.is_empty() {
            continue;
        }
        if value.is_empty() {
            value.resize(XATTR_VALUE_BYTES_MAX, 0);
        }
        match get(name, &mut value) {
            Ok(len) => attributes.push((name.to_vec(), value[..len].to_vec())),
            Err(Errno::NODATA) => {}
            Err(errno) if without_xattrs(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    attributes.sort();
    attributes.dedup_by(|a, b| a.0 == b.0);
    Ok(attributes)
}

fn without_xattrs(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS)
}
