//! Compares two file trees in everything that a restore must bring back.
//!
//! Shares no code with the engine: what the engine overlooks, this must see. Walks with one open
//! directory at a time (up again by `..`, proven by device and inode), so depth and path length
//! have no bound; names are raw bytes. A file's content is hashed over its pages that are not
//! zero, so that a hole and written zeros are the same *content* and differ only in *allocation*.

#![allow(
    dead_code,
    reason = "each test target includes this file and uses a part of it"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

const PAGE: usize = 4096;

/// How the allocation of files is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// The same data and hole ranges, in whole pages.
    Map,
    /// `st_blocks` differ by at most a tenth, or by 128 blocks of 512 bytes.
    Blocks,
    Ignore,
}

/// What is compared. The default is everything.
#[derive(Clone, Debug)]
pub struct Options {
    pub allocation: Allocation,
    pub inode_flags: bool,
    pub mtime: bool,
    /// Whether the root directory's own attributes count.
    pub root: bool,
    /// Extended attributes that do not count, by full name.
    pub ignored_xattrs: BTreeSet<Vec<u8>>,
    /// Paths below the root that do not count, nor what is below them.
    pub ignored_paths: BTreeSet<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allocation: Allocation::Map,
            inode_flags: true,
            mtime: true,
            root: true,
            ignored_xattrs: BTreeSet::new(),
            ignored_paths: BTreeSet::new(),
        }
    }
}

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Raw, below the root; empty for the root.
    pub path: Vec<u8>,
    /// "type", "mode", "content", "xattr user.a", ...
    pub what: String,
    pub left: String,
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.escape_ascii().to_string();
        let short = |text: &str| text.chars().take(120).collect::<String>();
        let tail: String = path
            .chars()
            .skip(path.chars().count().saturating_sub(200))
            .collect();
        write!(
            f,
            "{tail}: {}: {} != {}",
            self.what,
            short(&self.left),
            short(&self.right)
        )
    }
}

/// What stands at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub kind: &'static str,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of regular files, else 0.
    pub size: u64,
    /// Of regular files.
    pub content: Option<[u8; 32]>,
    pub rdev: u64,
    pub target: Option<Vec<u8>>,
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// FS_IOC_GETFLAGS, without the bits that the file system keeps for itself.
    pub inode_flags: Option<u32>,
    /// (offset, length) of the data ranges, in whole pages.
    pub data: Vec<(u64, u64)>,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub nlink: u64,
    /// The lowest path of the tree that is the same inode, when there are several.
    pub same_as: Option<Vec<u8>>,
}

/// A whole tree by raw path below its root (the root itself is the empty path).
pub type Record = BTreeMap<Vec<u8>, Facts>;

/// Reads both trees and lists what differs, at most one line for each path and property.
pub fn compare(left: &Path, right: &Path, options: &Options) -> io::Result<Vec<Difference>> {
    Ok(differences(&read(left)?, &read(right)?, options))
}

/// Fails with the first differences unless both trees are the same.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path, options: &Options) {
    let found = match compare(left, right, options) {
        Ok(found) => found,
        Err(error) => panic!("the trees cannot be read: {error}"),
    };
    assert_none(&found);
}

#[track_caller]
pub fn assert_none(found: &[Difference]) {
    let lines: Vec<String> = found.iter().take(40).map(Difference::to_string).collect();
    assert!(
        found.is_empty(),
        "{} differences:\n{}",
        found.len(),
        lines.join("\n")
    );
}

pub fn differences(left: &Record, right: &Record, options: &Options) -> Vec<Difference> {
    let ignored = |path: &[u8]| {
        (path.is_empty() && !options.root)
            || options.ignored_paths.iter().any(|prefix| {
                path.starts_with(prefix)
                    && (path.len() == prefix.len() || path.get(prefix.len()) == Some(&b'/'))
            })
    };
    let mut found = Vec::new();
    let paths: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    for path in paths {
        if ignored(path) {
            continue;
        }
        match (left.get(path), right.get(path)) {
            (Some(a), Some(b)) => differences_of(path, a, b, options, &mut found),
            (Some(a), None) => found.push(Difference {
                path: path.clone(),
                what: "exists".into(),
                left: a.kind.into(),
                right: "nothing".into(),
            }),
            (None, Some(b)) => found.push(Difference {
                path: path.clone(),
                what: "exists".into(),
                left: "nothing".into(),
                right: b.kind.into(),
            }),
            (None, None) => {}
        }
    }
    found
}

fn differences_of(
    path: &[u8],
    a: &Facts,
    b: &Facts,
    options: &Options,
    found: &mut Vec<Difference>,
) {
    let mut differ = |what: &str, left: String, right: String| {
        if left != right {
            found.push(Difference {
                path: path.to_vec(),
                what: what.into(),
                left,
                right,
            });
        }
    };
    differ("type", a.kind.into(), b.kind.into());
    if a.kind != b.kind {
        return;
    }
    differ("mode", format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    differ(
        "owner",
        format!("{}:{}", a.uid, a.gid),
        format!("{}:{}", b.uid, b.gid),
    );
    differ("size", a.size.to_string(), b.size.to_string());
    differ(
        "content",
        format!("{:02x?}", a.content),
        format!("{:02x?}", b.content),
    );
    differ("device", a.rdev.to_string(), b.rdev.to_string());
    let bytes = |bytes: &Option<Vec<u8>>| {
        bytes
            .as_ref()
            .map(|b| b.escape_ascii().to_string())
            .unwrap_or_default()
    };
    differ("target", bytes(&a.target), bytes(&b.target));
    differ("link group", bytes(&a.same_as), bytes(&b.same_as));
    if options.mtime {
        differ("mtime", format!("{:?}", a.mtime), format!("{:?}", b.mtime));
    }
    if options.inode_flags {
        let flags = |flags: Option<u32>| format!("{:#x}", flags.unwrap_or(0));
        differ("inode flags", flags(a.inode_flags), flags(b.inode_flags));
    }
    let names: BTreeSet<&Vec<u8>> = a.xattrs.keys().chain(b.xattrs.keys()).collect();
    for name in names {
        if !options.ignored_xattrs.contains(name) {
            let value = |facts: &Facts| match facts.xattrs.get(name) {
                Some(value) => format!("{} bytes {}", value.len(), value.escape_ascii()),
                None => "none".into(),
            };
            differ(
                &format!("xattr {}", name.escape_ascii()),
                value(a),
                value(b),
            );
        }
    }
    match options.allocation {
        Allocation::Map => differ("data map", format!("{:?}", a.data), format!("{:?}", b.data)),
        Allocation::Blocks => {
            if a.blocks.abs_diff(b.blocks) > (a.blocks.max(b.blocks) / 10).max(128) {
                differ("blocks", a.blocks.to_string(), b.blocks.to_string());
            }
        }
        Allocation::Ignore => {}
    }
}

/// Reads a tree. Needs to be root for all of it.
pub fn read(root: &Path) -> io::Result<Record> {
    let mut record = Record::new();
    let mut inodes: HashMap<(u64, u64), Vec<Vec<u8>>> = HashMap::new();
    let root_path = root.as_os_str().as_bytes();
    let top = rustix::fs::statat(CWD, root_path, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(top.st_mode) != FileType::Directory {
        let parent = rustix::fs::open(
            root.parent().unwrap_or(Path::new("/")),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let name = root.file_name().map(|name| name.as_bytes()).unwrap_or(b".");
        let (facts, _) = facts_of(&parent, name)?;
        record.insert(Vec::new(), facts);
        return Ok(record);
    }
    let mut current = rustix::fs::open(
        root_path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let (facts, _) = facts_of(&current, b".")?;
    record.insert(Vec::new(), facts);

    // Directories that are still to be entered, level by level, and who the open ones are.
    let mut pending: Vec<Vec<Vec<u8>>> = vec![children(&current, &[], &mut record, &mut inodes)?];
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut identity = vec![identity_of(&current)?];
    while let Some(level) = pending.last_mut() {
        if let Some(name) = level.pop() {
            current = open_directory(&current, &name)?;
            identity.push(identity_of(&current)?);
            path.push(name);
            let below = path.join(&b'/');
            pending.push(children(&current, &below, &mut record, &mut inodes)?);
        } else {
            pending.pop();
            identity.pop();
            if path.pop().is_some() {
                current = open_directory(&current, b"..")?;
                if identity.last() != Some(&identity_of(&current)?) {
                    return Err(io::Error::other("the tree was moved while it was read"));
                }
            }
        }
    }
    for (_, mut paths) in inodes {
        if paths.len() > 1 {
            paths.sort();
            let lowest = paths[0].clone();
            for path in paths {
                if let Some(facts) = record.get_mut(&path) {
                    facts.same_as = Some(lowest.clone());
                }
            }
        }
    }
    Ok(record)
}

fn identity_of(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Records all entries of an open directory; gives the names of those that are directories.
fn children(
    directory: &OwnedFd,
    path: &[u8],
    record: &mut Record,
    inodes: &mut HashMap<(u64, u64), Vec<Vec<u8>>>,
) -> io::Result<Vec<Vec<u8>>> {
    let mut directories = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        let mut full = path.to_vec();
        if !full.is_empty() {
            full.push(b'/');
        }
        full.extend_from_slice(&name);
        let (facts, inode) = facts_of(directory, &name)?;
        if facts.kind == "directory" {
            directories.push(name);
        } else if facts.nlink > 1 {
            inodes.entry(inode).or_default().push(full.clone());
        }
        record.insert(full, facts);
    }
    Ok(directories)
}

fn facts_of(directory: &OwnedFd, name: &[u8]) -> io::Result<(Facts, (u64, u64))> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let kind = match file_type {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::CharacterDevice => "char-device",
        FileType::BlockDevice => "block-device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        _ => "unknown",
    };
    let mut facts = Facts {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: 0,
        content: None,
        rdev: 0,
        target: None,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        xattrs: xattrs_of(directory, name)?,
        inode_flags: None,
        data: Vec::new(),
        blocks: stat.st_blocks as u64,
        nlink: stat.st_nlink,
        same_as: None,
    };
    match file_type {
        FileType::RegularFile => {
            facts.size = stat.st_size as u64;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty())
                .or_else(|_| rustix::fs::openat(directory, name, flags, Mode::empty()))?;
            facts.inode_flags = flags_of(&file);
            (facts.content, facts.data) = content_of(&file, facts.size)?;
        }
        FileType::Directory => {
            facts.blocks = 0;
            facts.inode_flags = flags_of(&open_directory(directory, name)?);
        }
        FileType::Symlink => {
            facts.target = Some(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes());
        }
        FileType::CharacterDevice | FileType::BlockDevice => facts.rdev = stat.st_rdev,
        _ => {}
    }
    Ok((facts, (stat.st_dev, stat.st_ino)))
}

/// The bits that people set (chattr) and that are worth keeping: s u c S i a d A j t D T C P F,
/// and X of btrfs.
const KEPT_FLAGS: u32 = 0x1
    | 0x2
    | 0x4
    | 0x8
    | 0x10
    | 0x20
    | 0x40
    | 0x80
    | 0x400
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000
    | 0x80_0000
    | 0x2000_0000
    | 0x4000_0000;

fn flags_of(file: &OwnedFd) -> Option<u32> {
    rustix::fs::ioctl_getflags(file)
        .ok()
        .map(|flags| flags.bits() & KEPT_FLAGS)
}

fn xattrs_of(directory: &OwnedFd, name: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let mut list = vec![0u8; 65_536];
    let len = match rustix::fs::llistxattr(path.as_slice(), &mut list[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut xattrs = BTreeMap::new();
    for name in list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0u8; 65_536];
        let len = rustix::fs::lgetxattr(path.as_slice(), name, &mut value[..])?;
        value.truncate(len);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

type Content = (Option<[u8; 32]>, Vec<(u64, u64)>);

fn content_of(file: &OwnedFd, size: u64) -> io::Result<Content> {
    let page = PAGE as u64;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut buffer = vec![0u8; 256 * PAGE];
    let mut position = 0;
    while position < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        // Pages that hold any data; what a file system calls a range may be finer or coarser.
        let first = start / page * page;
        let last = end.div_ceil(page).saturating_mul(page);
        match ranges.last_mut() {
            Some((offset, len)) if *offset + *len >= first => *len = last - *offset,
            _ => ranges.push((first, last - first)),
        }
        let mut at = first.max(position);
        while at < end {
            let wanted = (buffer.len() as u64).min(last - at) as usize;
            let got = read_full(file, &mut buffer[..wanted], at)?;
            if got == 0 {
                break;
            }
            for (index, chunk) in buffer[..got].chunks(PAGE).enumerate() {
                if chunk.iter().any(|byte| *byte != 0) {
                    hasher.update(&(at + (index * PAGE) as u64).to_le_bytes());
                    hasher.update(chunk);
                }
            }
            at += got as u64;
        }
        position = last;
    }
    Ok((Some(*hasher.finalize().as_bytes()), ranges))
}

fn read_full(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(done)
}
