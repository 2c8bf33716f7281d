//! One entry that is not a directory: its attributes and its node.
//!
//! An inode is asked for its state before and after its content and attributes are read; if the
//! answers differ it is read again, and at last kept with a flag. Every change of an attribute
//! moves ctime, so that this covers them too. Only regular files are opened.

use std::os::fd::{AsFd, OwnedFd};

use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkKind, TreeId};
use podkeep_format::tree::{
    Content, Entry, LINK_TARGET_BYTES_MAX, Node, Time, XATTR_INLINE_BYTES_MAX,
    XATTR_NAME_BYTES_MAX, Xattr, XattrValue,
};
use rustix::fs::{FileType, OFlags, readlinkat};
use rustix::io::Errno;

use super::content::SMALL_FILE_BYTES_MAX;
use super::directory::open_quietly;
use super::owner::Reached;
use super::stat::Stat;
use super::work::{Failure, Worker};
use crate::fs::attributes::{
    FsTraits, RawXattrs, flags_and_project, xattrs_of_entry, xattrs_of_fd,
};
use crate::fs::owners::{IdKind, Owners};

/// How often a file is read again because it changed meanwhile.
const REREADS_MAX: u32 = 2;
/// A file of more bytes is not read again: it is most likely a live database, would change
/// again, and each time costs as much as all small files together.
const REREAD_BYTES_MAX: u64 = 256 << 20;

const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// An entry as it was read, without a name, and the state in which it was.
pub(crate) struct EntryRead {
    pub entry: Entry,
    pub stat: Stat,
    pub unstable: bool,
}

impl Worker<'_> {
    /// Reads what stands under `name`; `listed` is what was just told of it.
    pub fn read_entry(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        listed: &Stat,
        traits: FsTraits,
    ) -> Result<EntryRead, Failure> {
        let mut read = self.read_node(dir, name, listed, traits)?;
        self.judge_owner(&mut read.entry, &Reached { fd: dir, name });
        Ok(read)
    }

    fn read_node(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        listed: &Stat,
        traits: FsTraits,
    ) -> Result<EntryRead, Failure> {
        let node = match listed.kind {
            FileType::RegularFile => return self.read_file(dir, name, listed, traits),
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new())
                    .map_err(|errno| match errno {
                        Errno::INVAL => Failure::Replaced,
                        errno => Failure::at("read the link", errno),
                    })?
                    .into_bytes();
                if target.is_empty() || target.len() > LINK_TARGET_BYTES_MAX {
                    return Err(Failure::Unreadable("read the link", Errno::NAMETOOLONG));
                }
                Node::Symlink { target }
            }
            FileType::CharacterDevice => Node::CharDevice {
                major: listed.rdev.0,
                minor: listed.rdev.1,
            },
            FileType::BlockDevice => Node::BlockDevice {
                major: listed.rdev.0,
                minor: listed.rdev.1,
            },
            FileType::Fifo => Node::Fifo,
            FileType::Socket => Node::Socket,
            _ => return Err(Failure::Replaced),
        };
        if self.shared.view.is_whiteout(listed) {
            return Ok(EntryRead {
                entry: whiteout(),
                stat: *listed,
                unstable: false,
            });
        }
        let xattrs = xattrs_of_entry(dir.as_fd(), name)
            .map_err(|errno| Failure::at("read the attributes of", errno))?;
        let mut entry = bare(listed, node, &self.shared.owners);
        entry.xattrs = self.keep_xattrs(xattrs);
        Ok(EntryRead {
            entry,
            stat: *listed,
            unstable: false,
        })
    }

    fn read_file(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        listed: &Stat,
        traits: FsTraits,
    ) -> Result<EntryRead, Failure> {
        let (file, mut before) = self.open_file(dir, name, listed)?;
        let mut rereads = 0;
        loop {
            if before.size >= SMALL_FILE_BYTES_MAX {
                // A mark would not outlast what is handed over.
                self.hand_over()?;
            }
            let mark = self.stage.mark();
            let content = self.content(&file, &before)?;
            let mut entry = self.file_attributes(&file, &before, traits)?;
            let after = Stat::of(&file).map_err(|e| Failure::Unreadable("stat", e))?;
            let unstable = !before.same_state(&after) || content.size != before.size;
            if unstable && rereads < REREADS_MAX && before.size <= REREAD_BYTES_MAX {
                rereads += 1;
                if before.size < SMALL_FILE_BYTES_MAX {
                    self.stage.rollback(mark);
                }
                before = after;
                continue;
            }
            self.record_pieces(&before, content.pieces);
            entry.node = Node::File {
                size: content.size,
                content: content.content,
                holes: content.holes,
                unstable,
            };
            return Ok(EntryRead {
                entry,
                stat: before,
                unstable,
            });
        }
    }

    /// Opens a regular file that `listed` was just told of.
    pub fn open_file(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        listed: &Stat,
    ) -> Result<(OwnedFd, Stat), Failure> {
        let file = open_quietly(dir, name, FILE_FLAGS).map_err(|errno| match errno {
            // A link, or a device or socket without anybody behind it.
            Errno::LOOP | Errno::NXIO | Errno::NODEV => Failure::Replaced,
            errno => Failure::at("open", errno),
        })?;
        let stat = Stat::of(&file).map_err(|e| Failure::Unreadable("stat", e))?;
        if stat.kind != FileType::RegularFile || stat.identity() != listed.identity() {
            return Err(Failure::Replaced);
        }
        Ok((file, stat))
    }

    /// All of an open file but its content.
    pub fn file_attributes(
        &mut self,
        file: &OwnedFd,
        stat: &Stat,
        traits: FsTraits,
    ) -> Result<Entry, Failure> {
        let xattrs = xattrs_of_fd(file)
            .map_err(|errno| Failure::Unreadable("read the attributes of", errno))?;
        let (flags, project) = flags_and_project(file.as_fd(), traits, false)
            .map_err(|errno| Failure::Unreadable("read the flags of", errno))?;
        let node = Node::File {
            size: 0,
            content: Content::Inline(Vec::new()),
            holes: Vec::new(),
            unstable: false,
        };
        let mut entry = bare(stat, node, &self.shared.owners);
        entry.inode_flags = flags;
        entry.project = project;
        entry.xattrs = self.keep_xattrs(xattrs);
        Ok(entry)
    }

    /// A directory's own attributes; its tree is not known yet. One that only leads to what is read is
    /// the host's, and its owner means nothing in a user namespace.
    pub fn read_directory(
        &mut self,
        fd: &OwnedFd,
        stat: &Stat,
        traits: FsTraits,
        only_leads: bool,
    ) -> Result<Entry, Failure> {
        if only_leads && !self.shared.owners.is_identity() {
            let mut entry = directory_without_tree(stat, &self.shared.owners);
            (entry.uid, entry.gid) = (0, 0);
            return Ok(entry);
        }
        let xattrs = xattrs_of_fd(fd)
            .map_err(|errno| Failure::Unreadable("read the attributes of", errno))?;
        let (flags, project) = flags_and_project(fd.as_fd(), traits, true)
            .map_err(|errno| Failure::Unreadable("read the flags of", errno))?;
        let mut entry = directory_without_tree(stat, &self.shared.owners);
        entry.inode_flags = flags;
        entry.project = project;
        entry.xattrs = self.keep_xattrs(xattrs);
        self.judge_owner(&mut entry, &Reached { fd, name: b"." });
        Ok(entry)
    }

    fn keep_xattrs(&mut self, raw: RawXattrs) -> Vec<Xattr> {
        let fits =
            |(name, _): &(Vec<u8>, Vec<u8>)| !name.is_empty() && name.len() <= XATTR_NAME_BYTES_MAX;
        let view = &self.shared.view;
        let kept = raw.into_iter().filter(fits);
        let kept = kept.filter_map(|(name, value)| Some((view.kept_xattr(name)?, value)));
        let mut kept: Vec<(Vec<u8>, Vec<u8>)> = kept.collect();
        // Two of them may have become one.
        kept.sort();
        kept.dedup_by(|a, b| a.0 == b.0);
        kept.into_iter()
            .map(|(name, value)| {
                let value = self.seen_value(&name, value);
                let value = if value.len() <= XATTR_INLINE_BYTES_MAX {
                    XattrValue::Inline(value)
                } else {
                    let id = self.shared.chunking.ids.chunk_id(ChunkKind::Data, &value);
                    self.stage
                        .add(id, ChunkKind::Data, BlockClass::Small, &value);
                    XattrValue::Chunk {
                        id,
                        len: value.len() as u32,
                    }
                };
                Xattr { name, value }
            })
            .collect()
    }
}

/// What was removed is the same wherever it was.
pub(crate) fn whiteout() -> Entry {
    Entry {
        name: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node: Node::CharDevice { major: 0, minor: 0 },
    }
}

pub(crate) fn directory_without_tree(stat: &Stat, owners: &Owners) -> Entry {
    let tree = TreeId([0; 32]);
    bare(stat, Node::Directory { tree }, owners)
}

fn bare(stat: &Stat, node: Node, owners: &Owners) -> Entry {
    Entry {
        name: Vec::new(),
        mode: stat.mode,
        uid: owners.see(IdKind::User, stat.uid).id().0,
        gid: owners.see(IdKind::Group, stat.gid).id().0,
        mtime: stat.mtime,
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node,
    }
}
