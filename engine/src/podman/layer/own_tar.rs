//! A tar of our own making, for a layer whose own one cannot be made again.
//!
//! It has the layer's files with all that a tar can say of them, in one order and form, so that
//! the same files make the same tar; but it is another tar than the one that the layer came from,
//! with another sha256. Which entries it has is planned once, before anything is read: overlay keeps
//! them by themselves, with whiteouts as devices; the other drivers keep whole trees, of which what
//! differs from the layer below is taken. Times there say nothing (a build may set them all alike),
//! so contents are compared.
//!
//! Sockets are left out, as a tar has none.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use podkeep_format::id::DiffId;
use podkeep_format::item::Escaped;
use podkeep_format::tree::Time;
use ring::digest::{Context, SHA256};
use rustix::fs::{Dir, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::{
    LAYER_EVENT_BYTES_MAX, LayerEnd, LayerError, LayerEvent, NotExact, damaged, open_tree, read,
    unreadable,
};
use crate::fs::attributes::xattrs_of_entry;
use crate::fs::tar::{NewMember, TarType, TarWriter, xattr_key};
use crate::podman::storage::{
    INSIDE, LayerId, Storage, StorageDriver, StoreListing, StoredLayer, open_below, open_file,
};

/// Bytes of paths, and of [`ENTRY_BYTES`] for each, that a plan may take.
const PLAN_BYTES_MAX: usize = 512 << 20;
/// What an entry of a plan takes besides its path, roughly.
const ENTRY_BYTES: usize = 64;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The overlay driver's own attributes; what they say is in the tar in another way.
const OVERLAY_ATTRIBUTES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// A label belongs to the host that the files are on.
const LABEL: &[u8] = b"security.selinux";

/// Names and values of extended attributes.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// What the tar of a layer will have. Cheap to read from again.
pub struct OwnTar {
    layer: LayerId,
    root: OwnedFd,
    /// As they will come.
    entries: Vec<Planned>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Planned {
    /// Below the layer's root, which is the empty one.
    path: Vec<u8>,
    what: What,
}

/// In the order in which they come where they have one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Entry,
    /// The directory hides what lower layers have in it.
    Opaque,
    /// It hides what a lower layer has of this name.
    Whiteout,
}

impl OwnTar {
    /// Looks at all entries of a layer; contents only where that tells whether one differs from the
    /// layer below. `listing` is the one that `layer` is from.
    pub fn plan(
        storage: &Storage,
        listing: &StoreListing,
        layer: &StoredLayer,
    ) -> Result<Self, LayerError> {
        let not_exact = |cause| LayerError::NotExact {
            layer: layer.id,
            cause,
        };
        if layer.incomplete {
            return Err(damaged(layer.id, None, "the store marks it as incomplete"));
        }
        if layer.mapped {
            return Err(not_exact(NotExact::Mapped));
        }
        let root = open_tree(storage, listing, layer)?;
        let mut planner = Planner {
            layer: layer.id,
            root,
            entries: Vec::new(),
            bytes: 0,
        };
        let below = match layer
            .parent
            .filter(|_| storage.driver() != StorageDriver::Overlay)
        {
            None => None,
            Some(parent) => {
                let Some(parent) = listing.layers.get(&parent) else {
                    let cause = format!("the store has no record of layer {parent} below it");
                    return Err(damaged(layer.id, None, cause));
                };
                Some(open_tree(storage, listing, parent)?)
            }
        };
        match (storage.driver(), below) {
            (StorageDriver::Overlay, _) => planner.take_overlay()?,
            (_, None) => planner.take_whole(Vec::new())?,
            (_, Some(below)) => planner.take_changes(&below)?,
        }
        let Planner {
            root, mut entries, ..
        } = planner;
        entries.sort_by(in_order);
        Ok(Self {
            layer: layer.id,
            root,
            entries,
        })
    }

    /// Reads the tar from its first byte to its last.
    pub fn read(&self) -> OwnTarReader<'_> {
        OwnTarReader {
            tar: self,
            next: 0,
            writer: TarWriter::new(Vec::new()),
            links: HashMap::new(),
            path: Vec::new(),
            bytes: Vec::new(),
            hash: Context::new(&SHA256),
            size: 0,
            state: State::Between,
        }
    }

    /// Reads it once, for its digest and size.
    pub fn measure(&self) -> Result<LayerEnd, LayerError> {
        let mut reader = self.read();
        loop {
            if let LayerEvent::End(end) = reader.next_event()? {
                return Ok(end);
            }
        }
    }
}

/// Parents before what is in them, names in order of their bytes.
fn in_order(a: &Planned, b: &Planned) -> Ordering {
    fn parts(planned: &Planned) -> impl Iterator<Item = &[u8]> {
        let parts = planned.path.split(|byte| *byte == b'/');
        parts.filter(|part| !part.is_empty())
    }
    parts(a).cmp(parts(b)).then(a.what.cmp(&b.what))
}

struct Planner {
    layer: LayerId,
    root: OwnedFd,
    entries: Vec<Planned>,
    bytes: usize,
}

impl Planner {
    fn add(&mut self, path: Vec<u8>, what: What) -> Result<(), LayerError> {
        self.bytes += path.len() + ENTRY_BYTES;
        if self.bytes > PLAN_BYTES_MAX {
            let cause = format!("its names take more than {} MiB", PLAN_BYTES_MAX >> 20);
            return Err(LayerError::Unreadable {
                layer: self.layer,
                object: "the files".into(),
                cause,
            });
        }
        self.entries.push(Planned { path, what });
        Ok(())
    }

    fn failed(&self, path: &[u8], errno: Errno) -> LayerError {
        unreadable(self.layer, Escaped(path).to_string(), errno)
    }

    /// What is in a directory of the layer, or of the one below it.
    fn names(&self, root: &OwnedFd, path: &[u8]) -> Result<BTreeMap<Vec<u8>, Stat>, LayerError> {
        names(root, path).map_err(|errno| self.failed(path, errno))
    }

    fn attributes(&self, root: &OwnedFd, path: &[u8]) -> Result<Attributes, LayerError> {
        attributes(root, path).map_err(|errno| self.failed(path, errno))
    }

    /// Everything at and below a directory that the driver unpacked by itself.
    fn take_overlay(&mut self) -> Result<(), LayerError> {
        self.add(Vec::new(), What::Entry)?;
        let mut folders = vec![Vec::new()];
        while let Some(folder) = folders.pop() {
            let mut is_opaque = false;
            for (name, value) in self.attributes(&self.root, &folder)? {
                match &name[..] {
                    b"trusted.overlay.opaque" | b"user.overlay.opaque" => is_opaque = value == b"y",
                    b"trusted.overlay.redirect" | b"user.overlay.redirect" => {
                        return Err(self.apart());
                    }
                    _ => {}
                }
            }
            if is_opaque {
                self.add(folder.clone(), What::Opaque)?;
            }
            for (name, stat) in self.names(&self.root, &folder)? {
                let path = joined(&folder, &name);
                let kind = FileType::from_raw_mode(stat.st_mode);
                match kind {
                    FileType::CharacterDevice if stat.st_rdev == 0 => {
                        self.add(path, What::Whiteout)?;
                        continue;
                    }
                    FileType::Socket => continue,
                    FileType::Directory => folders.push(path.clone()),
                    _ => {
                        let attributes = self.attributes(&self.root, &path)?;
                        let is_apart = |name: &[u8]| {
                            name.ends_with(b".overlay.metacopy")
                                || name.ends_with(b".overlay.redirect")
                        };
                        if attributes.iter().any(|(name, _)| is_apart(name)) {
                            return Err(self.apart());
                        }
                    }
                }
                self.add(path, What::Entry)?;
            }
        }
        Ok(())
    }

    fn apart(&self) -> LayerError {
        LayerError::NotExact {
            layer: self.layer,
            cause: NotExact::Apart,
        }
    }

    /// Everything at and below a path.
    fn take_whole(&mut self, path: Vec<u8>) -> Result<(), LayerError> {
        self.add(path.clone(), What::Entry)?;
        let mut folders = vec![path];
        while let Some(folder) = folders.pop() {
            for (name, stat) in self.names(&self.root, &folder)? {
                let path = joined(&folder, &name);
                self.check_name(&name)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Socket => continue,
                    FileType::Directory => folders.push(path.clone()),
                    _ => {}
                }
                self.add(path, What::Entry)?;
            }
        }
        Ok(())
    }

    /// In a tar this name would hide another one.
    fn check_name(&self, name: &[u8]) -> Result<(), LayerError> {
        match name.starts_with(WHITEOUT) {
            false => Ok(()),
            true => Err(LayerError::NotExact {
                layer: self.layer,
                cause: NotExact::WhiteoutName,
            }),
        }
    }

    /// What differs from the layer below.
    fn take_changes(&mut self, below: &OwnedFd) -> Result<(), LayerError> {
        // Files that have several names: the names that did not change, by inode, and the inodes
        // of which a name did. All names of such a file come along, or they would part.
        let mut same: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
        let mut changed: HashSet<u64> = HashSet::new();
        let is_linked = |stat: &Stat| {
            stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
        };
        if !self.is_same(
            below,
            b"",
            &self.stat(&self.root, b"")?,
            &self.stat(below, b"")?,
        )? {
            self.add(Vec::new(), What::Entry)?;
        }
        let mut folders = vec![Vec::new()];
        while let Some(folder) = folders.pop() {
            let own = self.names(&self.root, &folder)?;
            let mut lower = self.names(below, &folder)?;
            for (name, stat) in own {
                self.check_name(&name)?;
                let path = joined(&folder, &name);
                let kind = FileType::from_raw_mode(stat.st_mode);
                let before = lower.remove(&name);
                if kind == FileType::Socket {
                    continue;
                }
                let both_folders = |before: &Stat| {
                    kind == FileType::Directory
                        && FileType::from_raw_mode(before.st_mode) == FileType::Directory
                };
                match before {
                    Some(before) if self.is_same(below, &path, &stat, &before)? => {
                        if is_linked(&stat) {
                            same.entry(stat.st_ino).or_default().push(path.clone());
                        }
                        if kind == FileType::Directory {
                            folders.push(path);
                        }
                    }
                    Some(before) if both_folders(&before) => {
                        self.add(path.clone(), What::Entry)?;
                        folders.push(path);
                    }
                    _ if kind == FileType::Directory => {
                        let from = self.entries.len();
                        self.take_whole(path)?;
                        for at in from..self.entries.len() {
                            let stat = self.stat(&self.root, &self.entries[at].path)?;
                            if is_linked(&stat) {
                                changed.insert(stat.st_ino);
                            }
                        }
                    }
                    _ => {
                        if is_linked(&stat) {
                            changed.insert(stat.st_ino);
                        }
                        self.add(path, What::Entry)?;
                    }
                }
            }
            for name in lower.into_keys() {
                self.add(joined(&folder, &name), What::Whiteout)?;
            }
        }
        for inode in changed {
            for path in same.remove(&inode).unwrap_or_default() {
                self.add(path, What::Entry)?;
            }
        }
        Ok(())
    }

    fn stat(&self, root: &OwnedFd, path: &[u8]) -> Result<Stat, LayerError> {
        stat(root, path).map_err(|errno| self.failed(path, errno))
    }

    /// Whether the entry is the same in both trees; of a directory, without what is in it.
    fn is_same(
        &self,
        below: &OwnedFd,
        path: &[u8],
        own: &Stat,
        lower: &Stat,
    ) -> Result<bool, LayerError> {
        let kind = FileType::from_raw_mode(own.st_mode);
        let facts = |stat: &Stat| {
            let size = match kind {
                FileType::RegularFile => stat.st_size,
                _ => 0,
            };
            let time = (stat.st_mtime, stat.st_mtime_nsec);
            let device = match kind {
                FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev,
                _ => 0,
            };
            (stat.st_mode, stat.st_uid, stat.st_gid, size, time, device)
        };
        if facts(own) != facts(lower)
            || self.attributes(&self.root, path)? != self.attributes(below, path)?
        {
            return Ok(false);
        }
        let failed = |errno| self.failed(path, errno);
        match kind {
            FileType::Symlink => {
                let own = link(&self.root, path).map_err(failed)?;
                Ok(own == link(below, path).map_err(failed)?)
            }
            FileType::RegularFile => {
                let (own, _) = open_file(&self.root, path, INSIDE).map_err(failed)?;
                let (lower, _) = open_file(below, path, INSIDE).map_err(failed)?;
                same_content(&own, &lower).map_err(failed)
            }
            _ => Ok(true),
        }
    }
}

fn same_content(a: &File, b: &File) -> Result<bool, Errno> {
    let (mut ours, mut theirs) = (vec![0; 128 << 10], vec![0; 128 << 10]);
    loop {
        let (from_a, from_b) = (fill(a, &mut ours)?, fill(b, &mut theirs)?);
        if ours[..from_a] != theirs[..from_b] {
            return Ok(false);
        }
        if from_a < ours.len() {
            return Ok(true);
        }
    }
}

fn fill(file: &File, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(file, &mut buffer[filled..])? {
            0 => break,
            len => filled += len,
        }
    }
    Ok(filled)
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        b"" => name.to_vec(),
        folder => [folder, name].join(&b'/'),
    }
}

/// What is at a path: a link as such, and through no link.
fn place(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    open_below(root, path, flags, INSIDE)
}

fn stat(root: &OwnedFd, path: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::fstat(place(root, path)?)
}

fn link(root: &OwnedFd, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let link = place(root, path)?;
    Ok(rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes())
}

fn names(root: &OwnedFd, path: &[u8]) -> Result<BTreeMap<Vec<u8>, Stat>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    let folder = open_below(root, path, flags, INSIDE)?;
    let mut names = BTreeMap::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let nofollow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(&folder, entry.file_name(), nofollow)?;
        names.insert(name.to_vec(), stat);
    }
    Ok(names)
}

/// Extended attributes, ascending; not those that say where the files are.
fn attributes(root: &OwnedFd, path: &[u8]) -> Result<Attributes, Errno> {
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    let folder = place(root, folder)?;
    let name = if name.is_empty() { b"." } else { name };
    let mut found = xattrs_of_entry(folder.as_fd(), name)?;
    found.retain(|(name, _)| name != LABEL);
    Ok(found)
}

/// The tar, in the same parts as the layer's own one would come.
pub struct OwnTarReader<'t> {
    tar: &'t OwnTar,
    /// The entry that is due.
    next: usize,
    writer: TarWriter<Vec<u8>>,
    /// The first name of each file that has several, by inode.
    links: HashMap<u64, Vec<u8>>,
    /// The file that is read.
    path: Vec<u8>,
    /// What the last event gave.
    bytes: Vec<u8>,
    hash: Context,
    size: u64,
    state: State,
}

enum State {
    /// The next entry is due.
    Between,
    /// Its headers were given, its content is announced next.
    Announce {
        file: File,
        size: u64,
    },
    File {
        file: File,
        left: u64,
    },
    Ended(LayerEnd),
}

impl OwnTarReader<'_> {
    /// As [`LayerReader::next_event`](super::LayerReader::next_event); the end tells what the tar
    /// hashed to, whatever that is.
    pub fn next_event(&mut self) -> Result<LayerEvent<'_>, LayerError> {
        match std::mem::replace(&mut self.state, State::Between) {
            State::Ended(end) => {
                self.state = State::Ended(end);
                return Ok(LayerEvent::End(end));
            }
            State::Announce { file, size } => {
                self.state = State::File { file, left: size };
                return Ok(LayerEvent::Payload {
                    path: &self.path,
                    size,
                });
            }
            State::File { file, left } if left > 0 => {
                let wanted = left.min(LAYER_EVENT_BYTES_MAX as u64) as usize;
                self.bytes.resize(wanted, 0);
                let len = read(&file, &mut self.bytes).map_err(|errno| {
                    unreadable(self.tar.layer, Escaped(&self.path).to_string(), errno)
                })?;
                if len == 0 {
                    let cause = format!("its content ends {left} bytes early");
                    return Err(damaged(self.tar.layer, Some(&self.path), cause));
                }
                self.bytes.truncate(len);
                self.count();
                let left = left - len as u64;
                self.state = State::File { file, left };
                return Ok(LayerEvent::Bytes(&self.bytes));
            }
            State::File { .. } | State::Between => {}
        }
        match self.tar.entries.get(self.next) {
            Some(planned) => {
                self.next += 1;
                self.path.clone_from(&planned.path);
                if let Some((file, size)) = self.put(planned)? {
                    let passed = self.writer.pass_over(size);
                    passed.map_err(|cause| not_a_member(self.tar.layer, &self.path, cause))?;
                    self.state = State::Announce { file, size };
                }
                self.bytes = self.writer.take();
            }
            // What ends the tar was given already.
            None if self.next > self.tar.entries.len() => {
                let hash = std::mem::replace(&mut self.hash, Context::new(&SHA256)).finish();
                let mut diff_id = DiffId([0; 32]);
                diff_id.0.copy_from_slice(hash.as_ref());
                let size = self.size;
                self.state = State::Ended(LayerEnd { diff_id, size });
                return Ok(LayerEvent::End(LayerEnd { diff_id, size }));
            }
            None => {
                self.next += 1;
                let writer = std::mem::replace(&mut self.writer, TarWriter::new(Vec::new()));
                let finished = writer.finish();
                self.bytes =
                    finished.map_err(|cause| not_a_member(self.tar.layer, &self.path, cause))?;
            }
        }
        self.count();
        Ok(LayerEvent::Literal(&self.bytes))
    }

    fn count(&mut self) {
        self.hash.update(&self.bytes);
        self.size += self.bytes.len() as u64;
    }

    /// Writes the headers of an entry. Returns the file whose content follows, and its size.
    fn put(&mut self, planned: &Planned) -> Result<Option<(File, u64)>, LayerError> {
        let (root, layer) = (&self.tar.root, self.tar.layer);
        let path = &planned.path[..];
        let failed = |errno| unreadable(layer, Escaped(path).to_string(), errno);
        let mut records = Vec::new();
        let mut member = NewMember {
            path: &[],
            what: TarType::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            records: &[],
        };
        let mut file = None;
        let (name, target);
        match planned.what {
            What::Whiteout => {
                let at = path
                    .iter()
                    .rposition(|byte| *byte == b'/')
                    .map_or(0, |at| at + 1);
                name = [&path[..at], WHITEOUT, &path[at..]].concat();
            }
            What::Opaque => name = joined(path, OPAQUE),
            What::Entry => {
                let stat = stat(root, path).map_err(failed)?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                name = match (kind, path) {
                    (FileType::Directory, b"") => b"./".to_vec(),
                    (FileType::Directory, path) => [path, b"/"].concat(),
                    (_, path) => path.to_vec(),
                };
                for (key, value) in attributes(root, path).map_err(failed)? {
                    if !OVERLAY_ATTRIBUTES.iter().any(|own| key.starts_with(own)) {
                        records.push((xattr_key(&key), value));
                    }
                }
                member.mode = (stat.st_mode & 0o7777) as u16;
                member.uid = stat.st_uid;
                member.gid = stat.st_gid;
                member.mtime = Time {
                    secs: stat.st_mtime,
                    nanos: stat.st_mtime_nsec as u32,
                };
                let is_linked = stat.st_nlink > 1 && kind != FileType::Directory;
                let first = self.links.get(&stat.st_ino).filter(|_| is_linked).cloned();
                if is_linked && first.is_none() {
                    self.links.insert(stat.st_ino, name.clone());
                }
                let device = || {
                    let device = stat.st_rdev;
                    (rustix::fs::major(device), rustix::fs::minor(device))
                };
                target = match (kind, first) {
                    (_, Some(first)) => first,
                    (FileType::Symlink, None) => link(root, path).map_err(failed)?,
                    _ => Vec::new(),
                };
                member.what = match kind {
                    _ if is_linked && self.links.get(&stat.st_ino) != Some(&name) => {
                        TarType::HardLink(&target)
                    }
                    FileType::Directory => TarType::Directory,
                    FileType::Symlink => TarType::Symlink(&target),
                    FileType::Fifo => TarType::Fifo,
                    FileType::CharacterDevice => {
                        let (major, minor) = device();
                        TarType::CharDevice { major, minor }
                    }
                    FileType::BlockDevice => {
                        let (major, minor) = device();
                        TarType::BlockDevice { major, minor }
                    }
                    _ => {
                        let (content, size) = open_file(root, path, INSIDE).map_err(failed)?;
                        file = Some((content, size)).filter(|(_, size)| *size > 0);
                        TarType::File { size }
                    }
                };
            }
        }
        member.path = &name;
        member.records = &records;
        let written = self.writer.member(&member);
        written.map_err(|cause| not_a_member(layer, path, cause))?;
        Ok(file)
    }
}

fn not_a_member(layer: LayerId, path: &[u8], cause: std::io::Error) -> LayerError {
    LayerError::Unreadable {
        layer,
        object: Escaped(path).to_string(),
        cause: cause.to_string(),
    }
}
