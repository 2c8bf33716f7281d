//! The directory of a layer with a whole tree, only looked at.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::super::layer::clean;
use super::super::storage::{AS_ROOT, INSIDE, Root, open_below, open_file};
use super::place::base;

pub struct Tree {
    root: OwnedFd,
    /// What the kernel calls it.
    path: Vec<u8>,
}

/// What is at a place.
pub enum There {
    Missing,
    File(File),
    /// No regular file, one that cannot be opened, or there is a link on the way.
    Other,
}

impl Tree {
    /// `folder` is below the store's root.
    pub fn open(root: &Root, folder: &str) -> Result<Self, Errno> {
        let root = root.directory(folder)?;
        let path = path_of(&root)?;
        Ok(Self { root, path })
    }

    /// Where a name of a tar leads with the links as they are now, the last part not followed:
    /// cleaned, and without a link on the way. ENOENT: there is no such directory.
    pub fn real(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let name = clean(name);
        let (folder, last) = base(&name);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = path_of(&open_below(&self.root, folder, flags, AS_ROOT)?)?;
        // A directory that was moved out meanwhile.
        let below = parent.strip_prefix(&*self.path).ok_or(Errno::XDEV)?;
        Ok(match below {
            b"" => last.to_vec(),
            [b'/', below @ ..] => [below, b"/", last].concat(),
            _ => return Err(Errno::XDEV),
        })
    }

    /// What is at a place that [`real`](Self::real) gave; no link is followed.
    pub fn there(&self, real: &[u8]) -> There {
        match open_file(&self.root, real, INSIDE) {
            Ok((file, _)) => There::File(file),
            Err(Errno::NOENT) => There::Missing,
            Err(_) => There::Other,
        }
    }

    pub fn is_directory(&self, real: &[u8]) -> bool {
        let (folder, last) = base(real);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let found = open_below(&self.root, folder, flags, INSIDE)
            .and_then(|parent| rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW));
        found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}

fn path_of(directory: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(rustix::fs::readlink(link, Vec::new())?.into_bytes())
}
