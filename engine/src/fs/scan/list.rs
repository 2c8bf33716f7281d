//! The names of one directory.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, RawDir, SeekFrom, seek};
use rustix::io::{self, Errno};

use super::stat::Stat;

/// Bytes that the kernel may fill at a time.
const DIRENT_BUFFER_BYTES: usize = 64 << 10;
/// How often a directory that changes is listed again.
const RELISTS_MAX: u32 = 2;

/// The entries of a directory in the order of their inode numbers, in which file systems keep
/// inodes and mostly also contents together.
#[derive(Default)]
pub(crate) struct Listing {
    names: Vec<u8>,
    entries: Vec<Listed>,
}

#[derive(Clone, Copy)]
struct Listed {
    ino: u64,
    start: usize,
    len: u16,
    kind: FileType,
}

impl Listing {
    /// Lists the directory, again if it changes meanwhile, with what was told of it before. An
    /// error in the middle leaves what was listed so far.
    pub fn of(fd: &OwnedFd) -> io::Result<(Self, Stat, Option<Errno>)> {
        let mut before = Stat::of(fd)?;
        let mut relists = 0;
        loop {
            let mut listing = Self::default();
            let failure = listing.read(fd).err();
            let after = Stat::of(fd)?;
            let settled = before.same_state(&after) || relists == RELISTS_MAX;
            if settled || failure.is_some() {
                listing.sort();
                return Ok((listing, before, failure));
            }
            relists += 1;
            before = after;
            seek(fd, SeekFrom::Start(0))?;
        }
    }

    /// A file system may give a name twice when it changes while it is listed.
    fn sort(&mut self) {
        let names = &self.names;
        let name = |entry: &Listed| &names[entry.start..entry.start + usize::from(entry.len)];
        self.entries
            .sort_unstable_by(|a, b| a.ino.cmp(&b.ino).then_with(|| name(a).cmp(name(b))));
        self.entries
            .dedup_by(|a, b| a.ino == b.ino && name(a) == name(b));
    }

    fn read(&mut self, fd: &OwnedFd) -> io::Result<()> {
        let mut buffer = vec![MaybeUninit::uninit(); DIRENT_BUFFER_BYTES];
        let mut entries = RawDir::new(fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                // The directory was removed meanwhile: it has no entries any more.
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(errno),
            };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || name.is_empty() || name.contains(&b'/') {
                continue;
            }
            let start = self.names.len();
            self.names.extend_from_slice(name);
            self.entries.push(Listed {
                ino: entry.ino(),
                start,
                len: name.len() as u16,
                kind: entry.file_type(),
            });
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The name, and whether the listing says that it is a directory (some file systems say
    /// nothing).
    pub fn entry(&self, index: usize) -> (&[u8], bool) {
        let entry = &self.entries[index];
        let name = &self.names[entry.start..entry.start + usize::from(entry.len)];
        (name, entry.kind == FileType::Directory)
    }

    /// Drops entries; directories come last afterwards, and their number is returned.
    pub fn arrange(&mut self, mut keep: impl FnMut(&[u8], bool) -> bool) -> usize {
        let names = &self.names;
        self.entries.retain(|entry| {
            let name = &names[entry.start..entry.start + usize::from(entry.len)];
            keep(name, entry.kind == FileType::Directory)
        });
        self.entries
            .sort_by_key(|entry| entry.kind == FileType::Directory);
        let directories = |entry: &&Listed| entry.kind == FileType::Directory;
        self.entries.iter().filter(directories).count()
    }
}
