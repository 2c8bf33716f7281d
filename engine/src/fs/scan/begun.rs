//! Copies that are begun while those who write into a tree go on, and put right once they rest.
//!
//! Sharing the blocks of a file takes time by its extents (some 40 us each on XFS), and each copy that
//! is written to afterwards leaves more of them: a database of a few GB has some 100,000, and would
//! rest for seconds. So a file's blocks are shared in parts, each so short that its writers hardly
//! notice. Once they rest, the extents of both tell what was written since: a block that is shared
//! is written to elsewhere, so that a file's block at another place than the copy's is a new one, and
//! one at the same place is unchanged. Only new ones are copied, as bytes.
//!
//! Only on XFS: btrfs tells of compressed and inline extents in other ways.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, FsWord, Mode, OFlags, ResolveFlags, fallocate, ftruncate};
use rustix::io::{Errno, pread, pwrite};

use super::copy::{Counted, nameless};
use super::stat::Stat;

const XFS_MAGIC: FsWord = 0x5846_5342;
/// Extents that one call tells of, and whose blocks one call shares: some 10 ms.
const EXTENTS_PER_CALL: usize = 256;
/// Of all files of a tree whose copies are begun: 8 GiB that are written in blocks of 8 KiB.
const EXTENTS_MAX: usize = 1 << 20;
/// Bytes that are copied while those who write rest; when there are more, all blocks are shared anew.
const PATCH_BYTES_MAX: u64 = 256 << 20;
const WINDOW_BYTES: usize = 256 << 10;

/// By device and inode number.
#[derive(Default)]
pub struct BegunCopies {
    copies: Mutex<HashMap<(u64, u64), BegunCopy>>,
}

pub(super) struct BegunCopy {
    content: OwnedFd,
    extents: Vec<Extent>,
    counted: Counted,
}

impl BegunCopies {
    /// Begins copies of files below `root` that are certain to change, as many as may be.
    pub(super) fn begin(&self, root: &OwnedFd, paths: &[Vec<u8>]) {
        if !rustix::fs::fstatfs(root).is_ok_and(|fs| fs.f_type == XFS_MAGIC) {
            return;
        }
        let mut room = EXTENTS_MAX;
        for path in paths {
            let Some(counted) = Counted::new() else {
                return;
            };
            // What cannot be begun is copied, or read, when they rest.
            if let Ok((identity, content, extents)) = begin(root, path, room) {
                room -= extents.len();
                let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
                let copy = BegunCopy {
                    content,
                    extents,
                    counted,
                };
                copies.insert(identity, copy);
            }
        }
    }

    pub(super) fn take(&self, identity: (u64, u64)) -> Option<BegunCopy> {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.remove(&identity)
    }
}

type Begun = ((u64, u64), OwnedFd, Vec<Extent>);

fn begin(root: &OwnedFd, path: &[u8], room: usize) -> Result<Begun, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), inside)?;
    let identity = Stat::of(&file)?.identity();
    let content = nameless(root)?;
    let mut at = 0;
    loop {
        let (part, is_last) = next_extents(&file, at, false)?;
        let Some(last) = part.last() else {
            break;
        };
        // To its end also where a file grows meanwhile.
        let len = if is_last { 0 } else { last.end() - at };
        share(&content, &file, at, len)?;
        at = last.end();
        if is_last {
            break;
        }
    }
    let extents = extents(&content, room)?;
    Ok((identity, content, extents))
}

impl BegunCopy {
    /// Makes it what `file` is now, whose size is `size`. `None`: too much has changed.
    pub(super) fn put_right(
        self,
        file: &OwnedFd,
        size: u64,
    ) -> Result<Option<(OwnedFd, Counted)>, Errno> {
        let now = extents(file, EXTENTS_MAX)?;
        let changes = changes(&now, &self.extents, size);
        let bytes: u64 = changes.iter().filter(|c| c.is_data).map(|c| c.len).sum();
        if bytes > PATCH_BYTES_MAX {
            return Ok(None);
        }
        ftruncate(&self.content, size)?;
        let mut window = Vec::with_capacity(WINDOW_BYTES);
        for change in changes {
            if !change.is_data {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&self.content, flags, change.at, change.len)?;
                continue;
            }
            let (mut at, end) = (change.at, change.at + change.len);
            while at < end {
                window.clear();
                let got = pread(file, spare_capacity(&mut window), at)?;
                let got = got.min((end - at) as usize);
                if got == 0 {
                    // It became shorter: nobody rests.
                    return Ok(None);
                }
                let mut written = 0;
                while written < got {
                    let rest = &window[written..got];
                    written += pwrite(&self.content, rest, at + written as u64)?;
                }
                at += got as u64;
            }
        }
        Ok(Some((self.content, self.counted)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    at: u64,
    len: u64,
    place: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    /// Allocated, and zeros.
    Unwritten,
    /// Its place does not tell what it holds.
    Other,
}

impl Extent {
    fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// A part of a file that is not what it was: new bytes, or none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    at: u64,
    len: u64,
    is_data: bool,
}

/// In what the first `size` bytes of a file differ from those of its copy.
fn changes(file: &[Extent], copy: &[Extent], size: u64) -> Vec<Change> {
    let mut found: Vec<Change> = Vec::new();
    let (mut file, mut copy) = (file.iter().peekable(), copy.iter().peekable());
    let mut at = 0;
    while at < size {
        while file.next_if(|extent| extent.end() <= at).is_some() {}
        while copy.next_if(|extent| extent.end() <= at).is_some() {}
        let here = |extent: Option<&&Extent>| match extent {
            Some(extent) if extent.at <= at => (Some(**extent), extent.end()),
            Some(extent) => (None, extent.at),
            None => (None, u64::MAX),
        };
        let (of_file, until) = here(file.peek());
        let (of_copy, until_copy) = here(copy.peek());
        let end = until.min(until_copy).min(size);
        let holds = |extent: Option<Extent>| extent.is_some_and(|e| e.kind != Kind::Unwritten);
        let is_same = match (of_file, of_copy) {
            (Some(a), Some(b)) if a.kind == Kind::Data && b.kind == Kind::Data => {
                a.place + (at - a.at) == b.place + (at - b.at)
            }
            (a, b) => !holds(a) && !holds(b),
        };
        if !is_same {
            let is_data = holds(of_file);
            match found.last_mut() {
                Some(last) if last.at + last.len == at && last.is_data == is_data => {
                    last.len = end - last.at;
                }
                _ => found.push(Change {
                    at,
                    len: end - at,
                    is_data,
                }),
            }
        }
        at = end;
    }
    found
}

/// All extents of a file, once what is dirty of it is written out.
fn extents(file: &OwnedFd, max: usize) -> Result<Vec<Extent>, Errno> {
    let mut found: Vec<Extent> = Vec::new();
    let mut at = 0;
    loop {
        let (part, is_last) = next_extents(file, at, at == 0)?;
        let Some(last) = part.last() else {
            return Ok(found);
        };
        at = last.end();
        found.extend(part);
        if found.len() > max {
            return Err(Errno::FBIG);
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap`, with room for extents.
#[repr(C)]
struct RawMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [RawExtent; EXTENTS_PER_CALL],
}

const FIEMAP_FLAG_SYNC: u32 = 1;
const FIEMAP_EXTENT_LAST: u32 = 1;
const FIEMAP_EXTENT_UNWRITTEN: u32 = 0x800;
/// Those that change nothing about what lies at its place.
const PLAIN: u32 = FIEMAP_EXTENT_LAST | 0x1000 /* MERGED */ | 0x2000 /* SHARED */;

/// The first extents at or behind `at`, and whether the file has no more.
fn next_extents(file: &OwnedFd, at: u64, sync: bool) -> Result<(Vec<Extent>, bool), Errno> {
    // FS_IOC_FIEMAP, whose number has the size of the structure without extents in it.
    const OPCODE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<[u64; 4]>(b'f', 11);
    let none = RawExtent {
        logical: 0,
        physical: 0,
        length: 0,
        reserved64: [0; 2],
        flags: 0,
        reserved: [0; 3],
    };
    let mut map = Box::new(RawMap {
        start: at,
        length: u64::MAX - at,
        flags: if sync { FIEMAP_FLAG_SYNC } else { 0 },
        mapped_extents: 0,
        extent_count: EXTENTS_PER_CALL as u32,
        reserved: 0,
        extents: [none; EXTENTS_PER_CALL],
    });
    // SAFETY: FS_IOC_FIEMAP reads and writes a `struct fiemap` followed by as many `struct
    // fiemap_extent` as `extent_count` says, and `RawMap` has that layout and room for them.
    unsafe {
        rustix::ioctl::ioctl(
            file,
            rustix::ioctl::Updater::<{ OPCODE }, _>::new(&mut *map),
        )
    }?;
    let count = (map.mapped_extents as usize).min(EXTENTS_PER_CALL);
    let raw = &map.extents[..count];
    let is_last = raw
        .last()
        .is_none_or(|last| last.flags & FIEMAP_EXTENT_LAST != 0);
    let extents = raw.iter().map(|raw| Extent {
        at: raw.logical,
        len: raw.length,
        place: raw.physical,
        kind: match raw.flags & !PLAIN {
            0 => Kind::Data,
            FIEMAP_EXTENT_UNWRITTEN => Kind::Unwritten,
            _ => Kind::Other,
        },
    });
    Ok((extents.collect(), is_last))
}

/// `struct file_clone_range`.
#[repr(C)]
struct RawRange {
    from: i64,
    offset: u64,
    length: u64,
    to_offset: u64,
}

/// Lets a part of a file share its blocks with the same part of another; `len` 0: to its end.
fn share(to: &OwnedFd, from: &OwnedFd, at: u64, len: u64) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    const OPCODE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<RawRange>(0x94, 13);
    let range = RawRange {
        from: i64::from(from.as_fd().as_raw_fd()),
        offset: at,
        length: len,
        to_offset: at,
    };
    // SAFETY: FICLONERANGE reads one `struct file_clone_range`, and `RawRange` has its layout; the
    // descriptor in it is open as long as `from` is borrowed.
    unsafe {
        rustix::ioctl::ioctl(
            to,
            rustix::ioctl::Setter::<{ OPCODE }, RawRange>::new(range),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(at: u64, len: u64, place: u64) -> Extent {
        Extent {
            at,
            len,
            place,
            kind: Kind::Data,
        }
    }

    #[test]
    fn what_lies_elsewhere_is_new() {
        let unwritten = |at, len, place| Extent {
            kind: Kind::Unwritten,
            ..data(at, len, place)
        };
        let change = |at, len, is_data| Change { at, len, is_data };
        let copy = [data(0, 100, 1000), data(200, 100, 2000)];
        for (file, size, expected) in [
            (vec![data(0, 100, 1000), data(200, 100, 2000)], 300, vec![]),
            // In other parts, one of them new, and one behind it.
            (
                vec![
                    data(0, 40, 1000),
                    data(40, 10, 7000),
                    data(50, 50, 1050),
                    data(200, 100, 2000),
                ],
                300,
                vec![change(40, 10, true)],
            ),
            (
                vec![data(0, 100, 1000), data(100, 200, 5000)],
                290,
                vec![change(100, 190, true)],
            ),
            // Shorter; with a hole; allocated where nothing was; written after that.
            (vec![data(0, 100, 1000)], 60, vec![]),
            (vec![data(200, 100, 2000)], 300, vec![change(0, 100, false)]),
            (
                vec![
                    data(0, 100, 1000),
                    unwritten(100, 100, 1100),
                    data(200, 100, 2000),
                ],
                300,
                vec![],
            ),
            (
                vec![data(0, 200, 1000), unwritten(200, 100, 3000)],
                300,
                vec![change(100, 100, true), change(200, 100, false)],
            ),
            // Beyond what the copy has.
            (
                vec![data(0, 100, 1000), data(200, 300, 2000)],
                450,
                vec![change(300, 150, true)],
            ),
        ] {
            assert_eq!(changes(&file, &copy, size), expected, "{file:?}");
        }
        let other = Extent {
            kind: Kind::Other,
            ..data(0, 100, 1000)
        };
        assert_eq!(changes(&[other], &copy[..1], 100), [change(0, 100, true)]);
    }
}
