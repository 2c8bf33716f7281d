//! Removing a tree: of any depth and any path length, with entries that are immutable, without
//! following a link and with two open directories at a time.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::directory::{open_directory, open_name, proc_path};
use super::inode;

/// What stays, and why: the first of possibly many.
#[derive(Debug)]
pub(super) struct Remains {
    /// Below the directory that the removal began in.
    pub path: Vec<u8>,
    pub errno: Errno,
}

struct Level {
    /// The directory's own name, and who it is.
    name: Vec<u8>,
    identity: (u64, u64),
    /// Directories in it that are still to be removed.
    pending: Vec<Vec<u8>>,
}

/// Removes `name` and all that is below it; goes on past what cannot be removed. Nothing there is
/// success.
pub(super) fn remove(parent: impl AsFd, name: &[u8]) -> Result<(), Remains> {
    let parent = parent.as_fd();
    let mut removal = Removal {
        levels: Vec::new(),
        first: None,
    };
    match unlink(parent, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => {
            return Err(Remains {
                path: name.to_vec(),
                errno,
            });
        }
    }
    let mut current = match enter(parent, name) {
        Ok(fd) => fd,
        Err(errno) => {
            return Err(Remains {
                path: name.to_vec(),
                errno,
            });
        }
    };
    removal.push(&current, name);
    // Each turn removes one directory or goes one level down.
    while let Some(level) = removal.levels.last_mut() {
        if let Some(below) = level.pending.pop() {
            match enter(&current, &below) {
                Ok(fd) => {
                    current = fd;
                    removal.push(&current, &below);
                }
                Err(Errno::NOENT) => {}
                Err(errno) => removal.remains(&below, errno),
            }
            continue;
        }
        let Some(done) = removal.levels.pop() else {
            break;
        };
        let above = match removal.levels.last() {
            None => {
                if let Err(errno) = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    removal.remains(name, errno);
                }
                break;
            }
            Some(level) => level.identity,
        };
        // In a tree that someone else moves about, `..` may be another directory.
        let up = rustix::fs::openat(
            &current,
            "..",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        match up.and_then(|fd| Ok((identity(&fd)?, fd))) {
            Ok((found, fd)) if found == above => current = fd,
            Ok(_) => {
                removal.remains(&done.name, Errno::STALE);
                break;
            }
            Err(errno) => {
                removal.remains(&done.name, errno);
                break;
            }
        }
        let gone = rustix::fs::unlinkat(&current, done.name.as_slice(), AtFlags::REMOVEDIR);
        if let Err(errno) = gone {
            removal.remains(&done.name, errno);
        }
    }
    match removal.first {
        None => Ok(()),
        Some(remains) => Err(remains),
    }
}

struct Removal {
    levels: Vec<Level>,
    first: Option<Remains>,
}

impl Removal {
    fn remains(&mut self, name: &[u8], errno: Errno) {
        // A directory that is not empty only repeats what was said of its entry.
        if self.first.is_none() {
            let mut path: Vec<&[u8]> = self.levels.iter().map(|l| &l.name[..]).collect();
            path.push(name);
            self.first = Some(Remains {
                path: path.join(&b'/'),
                errno,
            });
        }
    }

    /// Removes all of an open directory but its directories, which become the next level's work.
    fn push(&mut self, directory: &OwnedFd, name: &[u8]) {
        let mut level = Level {
            name: name.to_vec(),
            identity: identity(directory).unwrap_or((0, 0)),
            pending: Vec::new(),
        };
        let mut failed = Vec::new();
        let read = each_name(directory, |name, kind| {
            if kind == FileType::Directory {
                level.pending.push(name.to_vec());
                return;
            }
            match unlink(directory.as_fd(), name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => level.pending.push(name.to_vec()),
                Err(errno) => failed.push((name.to_vec(), errno)),
            }
        });
        self.levels.push(level);
        for (name, errno) in failed {
            self.remains(&name, errno);
        }
        if let Err(errno) = read {
            self.remains(b"", errno);
        }
    }
}

fn identity(fd: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Unlinks what is not a directory, locked or not. EISDIR: it is one.
fn unlink(directory: std::os::fd::BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        // Linux says EISDIR of directories; POSIX, and some FUSE, EPERM.
        Err(Errno::PERM) => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let file = open_name(directory, name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&file)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Err(Errno::ISDIR);
            }
            inode::unlock(&file);
            rustix::fs::unlinkat(directory, name, AtFlags::empty())
        }
        other => other,
    }
}

/// Opens a directory so that its entries can be removed, whatever its mode and flags.
fn enter(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let parent = parent.as_fd();
    let fd = match open_directory(parent, name) {
        Err(Errno::ACCESS) => {
            make_accessible(parent, name)?;
            open_directory(parent, name)?
        }
        other => other?,
    };
    inode::unlock(&fd);
    if !rustix::process::geteuid().is_root() {
        let mode = rustix::fs::fstat(&fd)?.st_mode & 0o7777;
        if mode & 0o700 != 0o700 {
            // A failure shows at the removal that needs it.
            let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode | 0o700));
        }
    }
    Ok(fd)
}

/// Gives the owner all rights to an entry that is no link.
pub(super) fn make_accessible(parent: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let fd = open_name(parent, name, OFlags::PATH, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
    rustix::fs::chmod(proc_path(fd.as_fd()), mode)
}

/// Calls back with each name and type (`Unknown` where the file system does not tell).
pub(super) fn each_name(
    directory: impl AsFd,
    mut visit: impl FnMut(&[u8], FileType),
) -> Result<(), Errno> {
    let fd = open_directory(directory, b".")?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            visit(name, entry.file_type());
        }
    }
    Ok(())
}
