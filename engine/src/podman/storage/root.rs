//! Opening what lies below the root of a store.
//!
//! A store may belong to a user, and root reads it: a link that the user puts in place of a
//! directory must not lead the reader elsewhere. So nothing below the root is reached through a
//! link, and nothing but regular files is read; the root itself is the operator's word.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use podkeep_format::item::Escaped;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Times that the kernel is asked again after it says that a rename elsewhere on the machine
/// disturbed it.
const DISTURBED_MAX: u32 = 100;
/// Bytes of what a link may hold.
const LINK_BYTES_MAX: usize = 4096;

/// A directory, and what it is called in messages.
pub(in crate::podman) struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

impl Root {
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self {
            path: path.to_owned(),
            fd,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A place below it, for messages; of an empty one, its own.
    pub fn name(&self, below: &str) -> String {
        let path = match below {
            "" => self.path.clone(),
            below => self.path.join(below),
        };
        Escaped(path.as_os_str().as_bytes()).to_string()
    }

    /// A regular file and its size.
    pub fn file(&self, below: &str) -> Result<(File, u64), Errno> {
        open_file(&self.fd, below.as_bytes(), INSIDE)
    }

    pub fn directory(&self, below: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(&self.fd, below.as_bytes(), flags, INSIDE)
    }

    pub fn exists(&self, below: &str) -> Result<bool, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match open(&self.fd, below.as_bytes(), flags, INSIDE_OR_LINK) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// What a link says, whether or not there is such a place.
    pub fn link(&self, below: &str) -> Result<Vec<u8>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = open(&self.fd, below.as_bytes(), flags, INSIDE_OR_LINK)?;
        let target = rustix::fs::readlinkat(&link, c"", Vec::new())?.into_bytes();
        match target.len() {
            len if len > LINK_BYTES_MAX => Err(Errno::NAMETOOLONG),
            _ => Ok(target),
        }
    }

    /// The whole of a regular file; ENOMEM: it has more than `bytes_max`.
    pub fn read(&self, below: &str, bytes_max: usize) -> Result<Vec<u8>, Errno> {
        let (file, size) = self.file(below)?;
        let mut bytes = Vec::with_capacity((size as usize).min(bytes_max));
        let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        match bytes.len() {
            len if len > bytes_max => Err(Errno::NOMEM),
            _ => Ok(bytes),
        }
    }
}

/// Through no link at all.
pub(in crate::podman) const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);
/// The last component may be a link, which is opened as such; without O_NOFOLLOW it would lead
/// out at most as far as the root.
const INSIDE_OR_LINK: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
/// As if the directory were the root of the file system, links included: how a container, and
/// whatever unpacked its layers, sees it.
pub(in crate::podman) const AS_ROOT: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a regular file below `directory` for reading, and tells its size. The last component is
/// never followed. EINVAL: it is something else. Nothing else is opened even for a moment, since
/// an image may hold any device, and opening one can be all that it takes (a watchdog).
pub(in crate::podman) fn open_file(
    directory: impl AsFd,
    below: &[u8],
    resolve: ResolveFlags,
) -> Result<(File, u64), Errno> {
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = open(directory, below, place, resolve)?;
    let stat = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = match rustix::fs::open(&path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::open(&path, flags, Mode::empty())?,
        other => other?,
    };
    Ok((File::from(file), u64::try_from(stat.st_size).unwrap_or(0)))
}

/// Why a place of a store cannot be read, in the words of this module's answers.
pub(in crate::podman) fn cause_of(errno: Errno) -> String {
    match errno {
        Errno::INVAL => "it is no regular file".into(),
        Errno::LOOP => "there is a symbolic link on the way to it".into(),
        Errno::NOMEM => "it is too large".into(),
        errno => std::io::Error::from(errno).to_string(),
    }
}

/// Opens what is there; nothing is made.
pub(in crate::podman) fn open(
    directory: impl AsFd,
    below: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut disturbed = 0;
    loop {
        match rustix::fs::openat2(directory.as_fd(), below, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if disturbed < DISTURBED_MAX => disturbed += 1,
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
