//! Regular files: making them, writing their parts, hashing what is there already.
//!
//! A file is open only while a batch is applied; between batches it is known by its name, device
//! and inode. Holes are never written, whatever the parts say: a part of content may run across
//! a hole that was recorded, and has only zeros there.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use podkeep_format::id::ChunkKind;
use podkeep_format::tree::{Content, Entry, Node};
use rustix::fs::{Advice, AtFlags, FallocateFlags, FileType, IFlags, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Target;
use super::directory::{Directory, open_name};
use super::tree::{Tree, Way, lock};
use super::{inode, remove};
use crate::chunk::Chunking;
use crate::fs::{FilePart, FsError, PartBytes, PresentQuery};

/// A part of a file of at least this size goes to the disk while the next ones are fetched, not
/// only in the end.
const WRITE_BACK_BYTES: u64 = 1 << 20;
/// What is compared, and written, as one.
const BLOCK_BYTES: u64 = 4096;
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A file that is not complete.
pub(super) struct Unfinished {
    directory: Arc<Directory>,
    entry: Arc<Entry>,
    /// The name that it has for now.
    making: Vec<u8>,
    identity: (u64, u64),
    /// Its length is exactly what was written so far: made by this run, from nothing.
    fresh: bool,
    /// It was there, and may hold much of what it shall hold.
    overwrites: bool,
    /// End of what was written.
    end: u64,
}

/// What became of a file in a batch.
pub(super) enum Progress {
    Unfinished(Unfinished),
    Finished,
    /// A finding says why; later parts are dropped.
    Failed,
}

/// All parts that a batch has of one file.
pub(super) struct Job<'a> {
    pub directory: Arc<Directory>,
    pub entry: Arc<Entry>,
    pub parts: Vec<&'a FilePart>,
    pub last: bool,
    pub unfinished: Option<Unfinished>,
}

fn size_and_holes(entry: &Entry) -> Option<(u64, &[(u64, u64)])> {
    match &entry.node {
        Node::File { size, holes, .. } => Some((*size, holes)),
        _ => None,
    }
}

/// Calls back with the parts of `start..end` that are not in a hole.
fn outside_holes<E>(
    holes: &[(u64, u64)],
    mut start: u64,
    end: u64,
    mut visit: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    let first = holes.partition_point(|(offset, len)| offset + len <= start);
    for (offset, len) in &holes[first..] {
        if *offset >= end {
            break;
        }
        if *offset > start {
            visit(start, *offset)?;
        }
        start = offset + len;
    }
    if start < end {
        visit(start, end)?;
    }
    Ok(())
}

impl Tree {
    pub fn write_file(&self, job: Job<'_>, buffers: &[Arc<Vec<u8>>]) -> Result<Progress, FsError> {
        let path = || self.path(&job.directory, &job.entry);
        let fd = match self.directories.open(&job.directory) {
            Ok(fd) => fd,
            Err(errno) => {
                self.fail("open its directory", errno, path())?;
                return Ok(Progress::Failed);
            }
        };
        let opened = match job.unfinished {
            Some(unfinished) => reopen(&fd, &unfinished).map(|file| (file, unfinished)),
            None => match self.begin(&fd, &job.directory, &job.entry)? {
                Some(begun) => Ok(begun),
                None => return Ok(Progress::Failed),
            },
        };
        let (file, mut state) = match opened {
            Ok(opened) => opened,
            Err(errno) => {
                self.fail("write the file", errno, path())?;
                return Ok(Progress::Failed);
            }
        };
        let written = self
            .write_parts(&file, &mut state, &job.parts, job.last, buffers)
            .and_then(|()| {
                if job.last {
                    self.set_length(&file, &state)
                } else {
                    Ok(())
                }
            });
        if let Err(errno) = written {
            if matches!(errno, Errno::NOSPC | Errno::DQUOT)
                && matches!(self.way, Way::Staged { .. })
            {
                // What is staged stays, for a run that has more room.
                return Err(self.error("write", &path(), errno));
            }
            // Nothing half-written may stand there.
            self.forget(&job.entry);
            self.end_part(&job.directory, &state.making);
            let _ = rustix::fs::unlinkat(&*fd, state.making.as_slice(), AtFlags::empty());
            self.fail("write the file", errno, path())?;
            return Ok(Progress::Failed);
        }
        // What is there of a file that is changed should stay in memory.
        if !state.overwrites {
            write_back(&file, &job.parts);
        }
        if !job.last {
            return Ok(Progress::Unfinished(state));
        }
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.error("read", &path(), errno))?;
        self.rules
            .apply(
                &Target::Open(file.as_fd()),
                &stat,
                &job.entry,
                &self.failures,
                &path,
            )
            .map_err(self.full(path()))?;
        self.end_part(&job.directory, &state.making);
        let Some(name) = self.name(&job.directory, &job.entry) else {
            return Ok(Progress::Failed);
        };
        if !self.reveal(&fd, &state.making, name, path())? {
            self.forget(&job.entry);
            return Ok(Progress::Failed);
        }
        self.register(&job.directory, name, &job.entry, state.identity);
        self.lock_later(&job.directory, name, &job.entry);
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(Progress::Finished)
    }

    /// A temporary file of a merge is complete, or goes.
    fn end_part(&self, directory: &Directory, making: &[u8]) {
        lock(&self.parts).remove(&(directory.path(), making.to_vec()));
    }

    /// Opens a file that this batch begins; `None` (with a finding) when there can be none.
    fn begin(
        &self,
        fd: &OwnedFd,
        directory: &Arc<Directory>,
        entry: &Arc<Entry>,
    ) -> Result<Option<(OwnedFd, Unfinished)>, FsError> {
        let path = || self.path(directory, entry);
        let Some(name) = self.name(directory, entry) else {
            return Ok(None);
        };
        let Some((size, holes)) = size_and_holes(entry) else {
            self.fail("write the file", Errno::INVAL, path())?;
            return Ok(None);
        };
        if self.clashes_with_directory(fd, name, path()) {
            return Ok(None);
        }
        let making = self.making_name(name);
        // Those that `present` copied pieces into. A later batch may do so again, so that each
        // stays known until it is complete.
        let prepared = self.way == Way::Direct
            && !lock(&self.parts).insert((directory.path(), making.clone()));
        let mut fresh = true;
        let mut opened = if prepared {
            fresh = false;
            open_regular(fd, &making, OFlags::RDWR, true)
        } else {
            create(fd, &making)
        };
        if !prepared && matches!(opened, Err(Errno::EXIST)) && self.may_hold_others(directory) {
            if self.way != Way::Direct {
                fresh = false;
                opened = open_regular(fd, &making, OFlags::RDWR, entry.link.is_some());
            }
            if opened.is_err() {
                fresh = true;
                opened = remove::remove(fd, &making)
                    .map_err(|remains| remains.errno)
                    .and_then(|()| create(fd, &making));
            }
        }
        let stat = opened.and_then(|file| Ok((rustix::fs::fstat(&file)?, file)));
        let (stat, file) = match stat {
            Ok(opened) => opened,
            Err(errno) => {
                self.fail("make the file", errno, path())?;
                return Ok(None);
            }
        };
        let layout = IFlags::from_bits_retain(entry.inode_flags) & inode::LAYOUT;
        let made = fresh;
        if made && !layout.is_empty() {
            // When it fails, setting all flags in the end fails too and is told then.
            let _ = inode::set_flags(&file, layout, layout);
        }
        if made && !holes.is_empty() {
            // XFS allocates ahead of writes that make a file longer, and so fills its holes.
            if let Err(errno) = rustix::fs::ftruncate(&file, size) {
                let _ = rustix::fs::unlinkat(fd, making.as_slice(), AtFlags::empty());
                self.fail("make the file", errno, path())?;
                return Ok(None);
            }
            fresh = false;
        }
        if !made && stat.st_blocks > 0 {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            for (offset, len) in holes {
                // A file system that cannot do it keeps zeros there that take room.
                if rustix::fs::fallocate(&file, punch, *offset, *len).is_err() {
                    break;
                }
            }
        }
        self.register(directory, &making, entry, (stat.st_dev, stat.st_ino));
        let state = Unfinished {
            directory: Arc::clone(directory),
            entry: Arc::clone(entry),
            making,
            identity: (stat.st_dev, stat.st_ino),
            fresh,
            overwrites: !made,
            end: 0,
        };
        Ok(Some((file, state)))
    }

    fn write_parts(
        &self,
        file: &OwnedFd,
        state: &mut Unfinished,
        parts: &[&FilePart],
        last: bool,
        buffers: &[Arc<Vec<u8>>],
    ) -> Result<(), Errno> {
        let entry = Arc::clone(&state.entry);
        let (size, holes) = size_and_holes(&entry).ok_or(Errno::INVAL)?;
        if let Node::File {
            content: Content::Inline(bytes),
            ..
        } = &entry.node
            && parts.is_empty()
            && last
        {
            return self.write_data(file, state, holes, 0, bytes);
        }
        for part in parts {
            let len = part.bytes.span();
            if part.offset.checked_add(len).is_none_or(|end| end > size) {
                return Err(Errno::FBIG);
            }
            match &part.bytes {
                PartBytes::Data { buffer, range } => {
                    let bytes = buffers
                        .get(*buffer as usize)
                        .and_then(|b| b.get(range.start as usize..range.end as usize))
                        .ok_or(Errno::INVAL)?;
                    self.write_data(file, state, holes, part.offset, bytes)?;
                }
                PartBytes::Zeros { len } => {
                    outside_holes(holes, part.offset, part.offset + len, |start, end| {
                        let mut at = start;
                        while at < end {
                            let len = (end - at).min(ZEROS.len() as u64) as usize;
                            self.write_bytes(file, state, &ZEROS[..len], at)?;
                            at += len as u64;
                        }
                        Ok(())
                    })?;
                }
                PartBytes::Present { .. } => {}
            }
        }
        Ok(())
    }

    fn write_data(
        &self,
        file: &OwnedFd,
        state: &mut Unfinished,
        holes: &[(u64, u64)],
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        outside_holes(holes, offset, offset + bytes.len() as u64, |start, end| {
            let range = (start - offset) as usize..(end - offset) as usize;
            self.write_bytes(file, state, &bytes[range], start)
        })
    }

    fn write_bytes(
        &self,
        file: &OwnedFd,
        state: &mut Unfinished,
        bytes: &[u8],
        at: u64,
    ) -> Result<(), Errno> {
        let end = at + bytes.len() as u64;
        if !state.overwrites {
            write_all(file, bytes, at)?;
            self.count(state, at, end);
            return Ok(());
        }
        for (from, to) in differences(file, bytes, at)? {
            write_all(file, &bytes[(from - at) as usize..(to - at) as usize], from)?;
            self.count(state, from, to);
        }
        state.end = state.end.max(end);
        Ok(())
    }

    fn count(&self, state: &mut Unfinished, start: u64, end: u64) {
        state.end = state.end.max(end);
        self.bytes_written.fetch_add(end - start, Ordering::Relaxed);
    }

    fn set_length(&self, file: &OwnedFd, state: &Unfinished) -> Result<(), Errno> {
        let size = size_and_holes(&state.entry).ok_or(Errno::INVAL)?.0;
        let is = if state.fresh {
            state.end
        } else {
            rustix::fs::fstat(file)?.st_size as u64
        };
        if is != size {
            rustix::fs::ftruncate(file, size)?;
        }
        Ok(())
    }

    /// Removes what was written of a file.
    pub fn drop_file(&self, unfinished: &Unfinished) -> Result<(), FsError> {
        self.forget(&unfinished.entry);
        self.end_part(&unfinished.directory, &unfinished.making);
        let gone = self
            .directories
            .open(&unfinished.directory)
            .and_then(|fd| rustix::fs::unlinkat(&*fd, &*unfinished.making, AtFlags::empty()));
        match gone {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                let path = self.path(&unfinished.directory, &unfinished.entry);
                Err(self.error("remove", &path, errno))
            }
        }
    }

    /// Removes a file that no part was written of by this run.
    pub fn drop_leftover(&self, directory: &Arc<Directory>, entry: &Entry) -> Result<(), FsError> {
        let Some(name) = self.name(directory, entry) else {
            return Ok(());
        };
        let making = self.making_name(name);
        self.end_part(directory, &making);
        if !self.may_hold_others(directory) && self.way != Way::Direct {
            return Ok(());
        }
        let gone = self
            .directories
            .open(directory)
            .and_then(|fd| remove::remove(&*fd, &making).map_err(|remains| remains.errno));
        gone.map_err(|errno| self.error("remove", &self.path(directory, entry), errno))
    }

    /// Says which pieces are there, by hashing them.
    pub fn present(
        &self,
        chunking: &Chunking,
        directory: &Arc<Directory>,
        query: &PresentQuery,
    ) -> Result<Vec<bool>, FsError> {
        let mut answer = vec![false; query.pieces.len()];
        if !self.may_hold_others(directory) {
            return Ok(answer);
        }
        let Some((size, holes)) = size_and_holes(&query.entry) else {
            return Ok(answer);
        };
        let (Ok(fd), Some(name)) = (
            self.directories.open(directory),
            self.name(directory, &query.entry),
        ) else {
            return Ok(answer);
        };
        let Ok(file) = open_regular(&fd, name, OFlags::RDONLY, true) else {
            return Ok(answer);
        };
        let mut copy: Option<OwnedFd> = None;
        let mut bytes = Vec::new();
        for (index, (offset, len, id)) in query.pieces.iter().enumerate() {
            let end = offset.checked_add(u64::from(*len));
            if *len > super::PIECE_BYTES_MAX || end.is_none_or(|end| end > size) {
                continue;
            }
            bytes.resize(*len as usize, 0);
            if !matches!(read_all(&file, &mut bytes, *offset), Ok(true))
                || chunking.ids.chunk_id(ChunkKind::Data, &bytes) != *id
            {
                continue;
            }
            if self.way == Way::Direct {
                // What is there stays as it is until the new file is complete; its bytes are
                // copied as they were hashed.
                let path = || self.path(directory, &query.entry);
                let copied = self
                    .copy_for(&fd, directory, name, &mut copy)
                    .and_then(|copy| {
                        outside_holes(holes, *offset, offset + u64::from(*len), |start, end| {
                            let range = (start - offset) as usize..(end - offset) as usize;
                            write_all(copy, &bytes[range], start)
                        })
                    });
                match copied {
                    Ok(()) => {}
                    Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::ROFS)) => {
                        return Err(self.error("write", &path(), errno));
                    }
                    Err(_) => return Ok(answer),
                }
            }
            answer[index] = true;
        }
        Ok(answer)
    }

    fn copy_for<'a>(
        &self,
        fd: &OwnedFd,
        directory: &Directory,
        name: &[u8],
        copy: &'a mut Option<OwnedFd>,
    ) -> Result<&'a OwnedFd, Errno> {
        if copy.is_none() {
            let making = self.making_name(name);
            let mut parts = lock(&self.parts);
            let key = (directory.path(), making.clone());
            let file = if parts.contains(&key) {
                open_regular(fd, &making, OFlags::RDWR, true)?
            } else {
                remove::remove(fd, &making).map_err(|remains| remains.errno)?;
                create(fd, &making)?
            };
            parts.insert(key);
            *copy = Some(file);
        }
        copy.as_ref().ok_or(Errno::NOENT)
    }
}

/// Linux starts to write pages back that it is told are not needed soon.
fn write_back(file: &OwnedFd, parts: &[&FilePart]) {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return;
    };
    let len = (last.offset + last.bytes.span()).saturating_sub(first.offset);
    if len >= WRITE_BACK_BYTES
        && let Some(len) = NonZeroU64::new(len)
    {
        // Advice: without it the last sync takes longer.
        let _ = rustix::fs::fadvise(file, first.offset, Some(len), Advice::DontNeed);
    }
}

fn create(fd: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    open_name(
        fd,
        name,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        Mode::RUSR | Mode::WUSR,
    )
}

fn reopen(fd: &OwnedFd, unfinished: &Unfinished) -> Result<OwnedFd, Errno> {
    let file = open_regular(fd, &unfinished.making, OFlags::RDWR, true)?;
    let stat = rustix::fs::fstat(&file)?;
    if (stat.st_dev, stat.st_ino) != unfinished.identity {
        return Err(Errno::STALE);
    }
    Ok(file)
}

/// Opens a regular file that an earlier run may have locked or taken rights from. `linked`: it
/// may have other names.
fn open_regular(fd: &OwnedFd, name: &[u8], access: OFlags, linked: bool) -> Result<OwnedFd, Errno> {
    // Opening a device can do something by itself.
    let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::EXIST);
    }
    let open = |access: OFlags| open_name(fd, name, access | OFlags::NONBLOCK, Mode::empty());
    let file = match open(access) {
        Err(Errno::PERM) if access == OFlags::RDWR => {
            inode::unlock(&open(OFlags::RDONLY)?);
            open(access)?
        }
        Err(Errno::ACCESS) if access == OFlags::RDWR => {
            remove::make_accessible(fd, name)?;
            open(access)?
        }
        other => other?,
    };
    let stat = rustix::fs::fstat(&file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !regular || (!linked && stat.st_nlink > 1) {
        return Err(Errno::EXIST);
    }
    Ok(file)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Where a file differs from what it shall hold from `offset` on, in whole blocks: a chunk that is new
/// mostly differs in few of them, and what is not written need not be synced. Zeros always differ:
/// there may be a hole.
fn differences(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<Vec<(u64, u64)>, Errno> {
    let mut there = vec![0; bytes.len()];
    let mut got = 0;
    while got < there.len() {
        match rustix::io::pread(file, &mut there[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(read) => got += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let end = offset + bytes.len() as u64;
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut at = offset;
    while at < end {
        let next = ((at / BLOCK_BYTES + 1) * BLOCK_BYTES).min(end);
        let range = (at - offset) as usize..(next - offset) as usize;
        let (range, block) = (range.clone(), &bytes[range]);
        let same =
            range.end <= got && there[range] == *block && block.iter().any(|byte| *byte != 0);
        match found.last_mut() {
            _ if same => {}
            Some((_, to)) if *to == at => *to = next,
            _ => found.push((at, next)),
        }
        at = next;
    }
    Ok(found)
}

/// Fills `bytes`; `false` when the file ends before.
fn read_all(file: &OwnedFd, bytes: &mut [u8], offset: u64) -> Result<bool, Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(file, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Ok(false),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_there_are_not_written_again_and_zeros_are() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![7; 5 * 4096];
        bytes[8192..12288].fill(0);
        write_all(
            &OwnedFd::from(file.try_clone().unwrap()),
            &bytes[1000..],
            1000,
        )
        .unwrap();
        let file = OwnedFd::from(file);
        let written = |bytes: &[u8]| differences(&file, &bytes[1000..], 1000).unwrap();
        assert_eq!(written(&bytes), [(8192, 12288)]);
        bytes[5000] ^= 1;
        assert_eq!(written(&bytes), [(4096, 12288)]);
        // What is behind the end of the file differs.
        bytes.extend_from_slice(&[7; 10]);
        assert_eq!(written(&bytes), [(4096, 12288), (20480, 20490)]);
    }
}
