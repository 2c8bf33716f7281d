//! The files of an image as a container sees them, from the headers of its layers' tars alone.
//!
//! Layers are laid over each other bottom first ("layer.md" of the OCI image specification): a
//! later member takes the place of an earlier one, except that a directory keeps what is in it; a
//! whiteout hides what lower layers have, wherever in its tar it stands. A path that leads through a
//! symbolic link of the same layer is followed, as it was when the layer was unpacked by itself;
//! a link of a lower layer gives way to a directory, which is what the overlay driver shows. A
//! directory that no member speaks of keeps what lower layers say of it.
//!
//! Names, links and attributes are in memory, contents never: a file is a place in a tar.

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::ops::ControlFlow;

use podkeep_format::tree::{LINK_TARGET_BYTES_MAX, NAME_BYTES_MAX, Time};

use crate::fs::tar::{Member, MemberKind};

/// Bytes of names, link targets and [`INODE_BYTES`] that are kept of one image.
const MEMORY_BYTES_MAX: usize = 1 << 30;
/// What an inode and its place in a directory take, roughly.
const INODE_BYTES: usize = 256;
/// Names that are walked or hidden for one image: a tar can ask for the same again and again.
const STEPS_MAX: u64 = 1 << 28;
/// Links that one path leads through. Linux's limit.
const LINKS_FOLLOWED_MAX: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Of directories that no tar speaks of.
const IMPLIED_MODE: u16 = 0o755;

/// Why a member cannot be laid over what is there: a sentence without its full stop.
pub type Cause = &'static str;

type InodeNumber = usize;
const ROOT: InodeNumber = 0;

/// A file or directory; it may have several names.
#[derive(Clone, Debug)]
pub struct Inode {
    /// 07777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    File(Place),
    Directory(Directory),
    Symlink(Vec<u8>),
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
}

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the layer, 0 for the lowest.
    pub layer: usize,
    /// In the layer's tar.
    pub offset: u64,
    pub size: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Directory(BTreeMap<Vec<u8>, Name>);

#[derive(Clone, Copy, Debug)]
struct Name {
    inode: InodeNumber,
    /// The highest layer that has something here or below.
    layer: usize,
}

/// The files of the layers that were laid over each other so far.
pub struct ImageFiles {
    inodes: Vec<Inode>,
    memory_bytes: usize,
    steps: u64,
}

impl Default for ImageFiles {
    fn default() -> Self {
        Self {
            inodes: vec![implied_directory()],
            memory_bytes: 0,
            steps: 0,
        }
    }
}

fn implied_directory() -> Inode {
    Inode {
        mode: IMPLIED_MODE,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        what: What::Directory(Directory::default()),
    }
}

impl ImageFiles {
    /// Lays a member of a layer over what is there. Layers come bottom first, members in the order
    /// of their tar.
    pub fn add(&mut self, layer: usize, member: &Member) -> Result<(), Cause> {
        let path = clean(&member.path)?;
        let Some((name, parents)) = path.split_last() else {
            return match member.kind {
                MemberKind::Directory => {
                    self.set_attributes(ROOT, member);
                    Ok(())
                }
                _ => Err("the root of a layer is no directory"),
            };
        };
        let directory = self.enter(layer, parents)?;
        if *name == OPAQUE {
            return self.hide_lower(directory, layer);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.white_out(directory, hidden, layer);
        }
        let inode = self.inode_for(layer, directory, name, member)?;
        self.name(directory, name, Name { inode, layer })
    }

    /// What is at a path below the root. Links are not followed.
    pub fn at(&self, path: &[u8]) -> Option<&Inode> {
        let mut inode = ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|n| !n.is_empty()) {
            inode = self.child(inode, name)?.inode;
        }
        Some(&self.inodes[inode])
    }

    /// Visits what is at a path and all below it, parents before children, names in order of their
    /// bytes.
    pub fn walk(
        &self,
        path: &[u8],
        inode: &Inode,
        visit: &mut dyn FnMut(&[u8], &Inode) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut path = path.to_vec();
        visit(&path, inode)?;
        let mut stack: Vec<(Iter<'_, Vec<u8>, Name>, usize)> = Vec::new();
        if let What::Directory(directory) = &inode.what {
            stack.push((directory.0.iter(), path.len()));
        }
        while let Some((names, len)) = stack.last_mut() {
            path.truncate(*len);
            let Some((name, child)) = names.next() else {
                stack.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let inode = &self.inodes[child.inode];
            visit(&path, inode)?;
            if let What::Directory(directory) = &inode.what {
                stack.push((directory.0.iter(), path.len()));
            }
        }
        ControlFlow::Continue(())
    }

    /// The names in a directory.
    pub fn names<'s>(&'s self, inode: &'s Inode) -> impl Iterator<Item = &'s [u8]> {
        let directory = match &inode.what {
            What::Directory(directory) => Some(directory),
            _ => None,
        };
        let names = directory
            .into_iter()
            .flat_map(|directory| directory.0.keys());
        names.map(Vec::as_slice)
    }

    fn child(&self, directory: InodeNumber, name: &[u8]) -> Option<Name> {
        match &self.inodes[directory].what {
            What::Directory(directory) => directory.0.get(name).copied(),
            _ => None,
        }
    }

    fn children(&mut self, directory: InodeNumber) -> Option<&mut BTreeMap<Vec<u8>, Name>> {
        match &mut self.inodes[directory].what {
            What::Directory(directory) => Some(&mut directory.0),
            _ => None,
        }
    }

    fn is_directory(&self, inode: InodeNumber) -> bool {
        matches!(self.inodes[inode].what, What::Directory(_))
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Cause> {
        self.memory_bytes += bytes;
        match self.memory_bytes > MEMORY_BYTES_MAX {
            true => Err("the image has more names than 1 GiB of memory holds"),
            false => Ok(()),
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Cause> {
        self.steps += steps as u64;
        match self.steps > STEPS_MAX {
            true => Err("the image has too many names to walk"),
            false => Ok(()),
        }
    }

    fn push(&mut self, inode: Inode) -> Result<InodeNumber, Cause> {
        let target = match &inode.what {
            What::Symlink(target) => target.len(),
            _ => 0,
        };
        self.charge(INODE_BYTES + target)?;
        self.inodes.push(inode);
        Ok(self.inodes.len() - 1)
    }

    fn name(&mut self, directory: InodeNumber, name: &[u8], what: Name) -> Result<(), Cause> {
        self.charge(INODE_BYTES + name.len())?;
        if let Some(children) = self.children(directory) {
            children.insert(name.to_vec(), what);
        }
        Ok(())
    }

    fn set_attributes(&mut self, inode: InodeNumber, member: &Member) {
        let inode = &mut self.inodes[inode];
        inode.mode = member.mode;
        inode.uid = member.uid;
        inode.gid = member.gid;
        inode.mtime = member.mtime;
    }

    /// The directory that a path of `layer` leads to, with what is missing of it. Lower layers'
    /// files and links on the way give way.
    fn enter(&mut self, layer: usize, path: &[&[u8]]) -> Result<InodeNumber, Cause> {
        let mut way = Way::new(path);
        while let Some(name) = way.next_name()? {
            self.spend(1)?;
            let at = way.at();
            let child = match self.child(at, &name) {
                Some(child) if self.is_directory(child.inode) => child.inode,
                Some(child) if child.layer == layer => {
                    let What::Symlink(target) = &self.inodes[child.inode].what else {
                        return Err("a member lies below what is no directory");
                    };
                    way.follow(target)?;
                    continue;
                }
                _ => self.push(implied_directory())?,
            };
            match self.children(at).and_then(|names| names.get_mut(&name)) {
                Some(known) if known.inode == child => known.layer = layer,
                _ => self.name(
                    at,
                    &name,
                    Name {
                        inode: child,
                        layer,
                    },
                )?,
            }
            way.descend(child);
        }
        Ok(way.at())
    }

    /// The inode of what a hard link of `layer` names.
    fn link_target(&mut self, layer: usize, target: &[u8]) -> Result<InodeNumber, Cause> {
        let missing = "a hard link names what is not there";
        let path = clean(target)?;
        let Some((name, parents)) = path.split_last() else {
            return Err("a hard link names a directory");
        };
        let mut way = Way::new(parents);
        while let Some(name) = way.next_name()? {
            self.spend(1)?;
            let child = self.child(way.at(), &name).ok_or(missing)?;
            match &self.inodes[child.inode].what {
                What::Directory(_) => way.descend(child.inode),
                What::Symlink(target) if child.layer == layer => way.follow(target)?,
                _ => return Err(missing),
            }
        }
        let inode = self.child(way.at(), name).ok_or(missing)?.inode;
        match self.is_directory(inode) {
            true => Err("a hard link names a directory"),
            false => Ok(inode),
        }
    }

    fn inode_for(
        &mut self,
        layer: usize,
        directory: InodeNumber,
        name: &[u8],
        member: &Member,
    ) -> Result<InodeNumber, Cause> {
        let what = match &member.kind {
            MemberKind::HardLink { target } => {
                let inode = self.link_target(layer, target)?;
                // What unpacks a layer sets them once more, on the file that both names have.
                if !matches!(self.inodes[inode].what, What::Symlink(_)) {
                    self.set_attributes(inode, member);
                }
                return Ok(inode);
            }
            MemberKind::Directory => {
                let known = self.child(directory, name).map(|known| known.inode);
                if let Some(known) = known.filter(|known| self.is_directory(*known)) {
                    self.set_attributes(known, member);
                    return Ok(known);
                }
                What::Directory(Directory::default())
            }
            MemberKind::File { content, size } => What::File(Place {
                layer,
                offset: *content,
                size: *size,
            }),
            MemberKind::Symlink { target } => {
                if target.len() > LINK_TARGET_BYTES_MAX {
                    return Err("the target of a link is over 4095 bytes");
                }
                What::Symlink(target.clone())
            }
            MemberKind::CharDevice { major, minor } => What::CharDevice {
                major: *major,
                minor: *minor,
            },
            MemberKind::BlockDevice { major, minor } => What::BlockDevice {
                major: *major,
                minor: *minor,
            },
            MemberKind::Fifo => What::Fifo,
        };
        self.push(Inode {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            what,
        })
    }

    /// Hides what lower layers have under a name.
    fn white_out(
        &mut self,
        directory: InodeNumber,
        name: &[u8],
        layer: usize,
    ) -> Result<(), Cause> {
        match self.child(directory, name) {
            Some(child) if child.layer < layer => {
                if let Some(children) = self.children(directory) {
                    children.remove(name);
                }
            }
            Some(child) => self.hide_lower(child.inode, layer)?,
            None => {}
        }
        Ok(())
    }

    /// Hides what lower layers have in a directory, and below what `layer` has there.
    fn hide_lower(&mut self, directory: InodeNumber, layer: usize) -> Result<(), Cause> {
        let mut open = vec![directory];
        while let Some(directory) = open.pop() {
            let mut steps = 1;
            if let Some(children) = self.children(directory) {
                steps += children.len();
                children.retain(|_, child| child.layer == layer);
                open.extend(children.values().map(|child| child.inode));
            }
            self.spend(steps)?;
        }
        Ok(())
    }
}

/// A path that is walked, with the links on it.
struct Way {
    /// The directories behind us, the root first.
    stack: Vec<InodeNumber>,
    /// Names before us, the next one last.
    names: Vec<Vec<u8>>,
    followed: usize,
}

impl Way {
    fn new(path: &[&[u8]]) -> Self {
        Self {
            stack: Vec::new(),
            names: path.iter().rev().map(|name| name.to_vec()).collect(),
            followed: 0,
        }
    }

    fn at(&self) -> InodeNumber {
        self.stack.last().copied().unwrap_or(ROOT)
    }

    /// The next name that leads down.
    fn next_name(&mut self) -> Result<Option<Vec<u8>>, Cause> {
        while let Some(name) = self.names.pop() {
            match name.as_slice() {
                b"" | b"." => {}
                b".." => {
                    self.stack.pop();
                }
                name if name.len() > NAME_BYTES_MAX => return Err("a name is over 255 bytes"),
                _ => return Ok(Some(name)),
            }
        }
        Ok(None)
    }

    fn descend(&mut self, directory: InodeNumber) {
        self.stack.push(directory);
    }

    /// Goes on where a link leads; above the root is the root.
    fn follow(&mut self, target: &[u8]) -> Result<(), Cause> {
        self.followed += 1;
        if self.followed > LINKS_FOLLOWED_MAX {
            return Err("a path leads through too many links");
        }
        if target.starts_with(b"/") {
            self.stack.clear();
        }
        let names = target.split(|byte| *byte == b'/').rev();
        self.names.extend(names.map(<[u8]>::to_vec));
        Ok(())
    }
}

/// The components of a member's path, as Go's `filepath.Clean` makes them.
fn clean(path: &[u8]) -> Result<Vec<&[u8]>, Cause> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                if names.pop().is_none() && !path.starts_with(b"/") {
                    return Err("a path leads out of the layer");
                }
            }
            name if name.len() > NAME_BYTES_MAX => return Err("a name is over 255 bytes"),
            name => names.push(name),
        }
    }
    Ok(names)
}
