//! Directory trees and file contents ("Trees" and "Contents" in the specification).
//!
//! A tree node never says on which host, device or inode it was seen, nor when it was last read:
//! equal trees have equal ids everywhere. Entries are sorted by raw name bytes; a directory that
//! is too large for one node is split where a keyed hash of the *name* says so, so that adding
//! one name changes one leaf. Long contents are split likewise, by chunk id.

pub(crate) mod content;
mod lists;

pub use content::{Content, Piece};
pub use lists::{ContentBuilder, ListNode};

use content::{INLINE, LIST, PIECES, RECIPE, decode_content, encode_content};

use crate::block::PAYLOAD_BYTES_MAX;
use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::{ChunkId, ChunkIdKey, ChunkKind, LinkGroup, TreeId};

/// Bytes of one name. Linux's NAME_MAX.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a symbolic link's target. Linux's PATH_MAX.
pub const LINK_TARGET_BYTES_MAX: usize = 4095;
/// Bytes of the names of one entry's extended attributes, each with a NUL, and the bytes of one
/// name and one value. Linux's limits (XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX).
pub const XATTR_LIST_BYTES_MAX: usize = 65_536;
pub const XATTR_NAME_BYTES_MAX: usize = 255;
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// A value longer than this is a chunk of its own.
pub const XATTR_INLINE_BYTES_MAX: usize = 512;
/// Contents of at most this many bytes lie in the tree itself.
pub const INLINE_BYTES_MAX: usize = 256;
/// A content of more pieces than this becomes a list.
pub const PIECES_INLINE_MAX: usize = 256;
/// A leaf or branch of a split directory is cut at a matching name once it has this many bytes.
pub const NODE_BYTES_MIN: usize = 16 << 10;
/// A leaf or branch is cut before it has more than this many bytes (one entry may be larger).
pub const NODE_BYTES_MAX: usize = 256 << 10;
/// One name in 2^this is a place to cut.
pub const NODE_SPLIT_BITS: u32 = 7;
/// Pieces in a node of a content list: cut at a matching id from MIN on, and at MAX.
pub const LIST_PIECES_MIN: usize = 64;
pub const LIST_PIECES_MAX: usize = 1024;
pub const LIST_SPLIT_BITS: u32 = 8;
/// Levels of branches over leaves, for directories and lists alike.
pub const LEVELS_MAX: u8 = 12;
/// Holes that an entry records. What is beyond is restored as allocated zeros.
pub const HOLES_MAX: usize = 65_536;
/// A hole is recorded in whole units of this many bytes, rounded inwards.
pub const HOLE_GRAIN: u64 = 4096;
/// A decoder refuses a node larger than this: no block could hold it.
pub const NODE_DECODE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
/// A chunk that a content or an attribute names is not longer than this: no block could hold it.
pub const PIECE_BYTES_MAX: u32 = PAYLOAD_BYTES_MAX as u32;

/// A point in time. `nanos` < 10^9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

/// An extended attribute; ACLs and file capabilities are extended attributes too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// The full name with its namespace ("user.a", "system.posix_acl_access").
    pub name: Vec<u8>,
    pub value: XattrValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XattrValue {
    /// At most [`XATTR_INLINE_BYTES_MAX`].
    Inline(Vec<u8>),
    /// A chunk of kind `Data`.
    Chunk { id: ChunkId, len: u32 },
}

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File {
        size: u64,
        content: Content,
        /// Ascending, not touching, whole [`HOLE_GRAIN`]s (the last may end at `size`):
        /// (offset, length). Only metadata: the content has zeros there. None with a recipe.
        holes: Vec<(u64, u64)>,
        /// The file changed while it was read: the content is what was there at some moments.
        /// Never with a recipe.
        unstable: bool,
    },
    Directory {
        tree: TreeId,
    },
    Symlink {
        target: Vec<u8>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

impl Node {
    fn tag(&self) -> u8 {
        match self {
            Self::File { content, .. } => content.tag(),
            Self::Directory { .. } => 4,
            Self::Symlink { .. } => 5,
            Self::CharDevice { .. } => 6,
            Self::BlockDevice { .. } => 7,
            Self::Fifo => 8,
            Self::Socket => 9,
        }
    }

    /// The word that listings and JSON use.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Directory { .. } => "directory",
            Self::Symlink { .. } => "symlink",
            Self::CharDevice { .. } => "char-device",
            Self::BlockDevice { .. } => "block-device",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
        }
    }
}

/// One name of a directory with all its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Raw bytes without `/` and NUL, not `.` or `..`; empty only for an item's root.
    pub name: Vec<u8>,
    /// Permission bits, 07777.
    pub mode: u16,
    /// As seen inside the Podman user namespace.
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// FS_IOC_GETFLAGS bits that podkeep keeps (see the specification).
    pub inode_flags: u32,
    /// Project quota id, 0 for none.
    pub project: u32,
    /// Sorted by name, no name twice.
    pub xattrs: Vec<Xattr>,
    /// Set when other names of the item are the same file. Never on a directory.
    pub link: Option<LinkGroup>,
    pub node: Node,
}

const FLAG_INODE_FLAGS: u8 = 1;
const FLAG_PROJECT: u8 = 2;
const FLAG_XATTRS: u8 = 4;
const FLAG_LINK: u8 = 8;
const FLAG_HOLES: u8 = 16;
const FLAG_UNSTABLE: u8 = 32;

impl Entry {
    /// Appends the entry's only encoding.
    pub fn encode(&self, out: &mut Encoder) {
        out.bytes(&self.name);
        let mut flags = 0;
        if self.inode_flags != 0 {
            flags |= FLAG_INODE_FLAGS;
        }
        if self.project != 0 {
            flags |= FLAG_PROJECT;
        }
        if !self.xattrs.is_empty() {
            flags |= FLAG_XATTRS;
        }
        if self.link.is_some() {
            flags |= FLAG_LINK;
        }
        if let Node::File {
            holes, unstable, ..
        } = &self.node
        {
            if !holes.is_empty() {
                flags |= FLAG_HOLES;
            }
            if *unstable {
                flags |= FLAG_UNSTABLE;
            }
        }
        out.u8(self.node.tag()).u8(flags).u16(self.mode);
        out.varint(u64::from(self.uid)).varint(u64::from(self.gid));
        out.varint_signed(self.mtime.secs).u32(self.mtime.nanos);
        if self.inode_flags != 0 {
            out.u32(self.inode_flags);
        }
        if self.project != 0 {
            out.u32(self.project);
        }
        if !self.xattrs.is_empty() {
            out.varint(self.xattrs.len() as u64);
            for xattr in &self.xattrs {
                out.bytes(&xattr.name);
                match &xattr.value {
                    XattrValue::Inline(value) => out.u8(0).bytes(value),
                    XattrValue::Chunk { id, len } => out.u8(1).raw(&id.0).varint(u64::from(*len)),
                };
            }
        }
        if let Some(link) = &self.link {
            out.raw(&link.0);
        }
        match &self.node {
            Node::File {
                size,
                content,
                holes,
                ..
            } => {
                encode_content(*size, content, out);
                if !holes.is_empty() {
                    out.varint(holes.len() as u64);
                    let mut end = 0;
                    for (offset, len) in holes {
                        out.varint(offset - end).varint(*len);
                        end = offset + len;
                    }
                }
            }
            Node::Directory { tree } => {
                out.raw(&tree.0);
            }
            Node::Symlink { target } => {
                out.bytes(target);
            }
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                out.varint(u64::from(*major)).varint(u64::from(*minor));
            }
            Node::Fifo | Node::Socket => {}
        }
    }

    /// Takes one entry off `input`. `root`: the name must be empty, else it must not be.
    pub fn decode(input: &mut Decoder<'_>, root: bool) -> Result<Self, DecodeError> {
        let name = input.bytes("name", NAME_BYTES_MAX)?.to_vec();
        if root != name.is_empty()
            || name == b"."
            || name == b".."
            || name.iter().any(|b| *b == b'/' || *b == 0)
        {
            return input.fail(Defect::NotCanonical("name"));
        }
        let tag = input.u8()?;
        let flags = input.u8()?;
        // A recipe has neither: its tar was never a file, and was compared with its DiffID.
        let file_flags = match tag {
            INLINE | PIECES | LIST => FLAG_HOLES | FLAG_UNSTABLE,
            _ => 0,
        };
        let link_flag = if tag == 4 { 0 } else { FLAG_LINK };
        let known = FLAG_INODE_FLAGS | FLAG_PROJECT | FLAG_XATTRS | link_flag | file_flags;
        if flags & !known != 0 {
            return input.fail(Defect::Tag("entry flags", u64::from(flags)));
        }
        let mode = input.u16()?;
        if mode > 0o7777 {
            return input.fail(Defect::TooLarge("mode"));
        }
        let uid = input.bounded("uid", u64::from(u32::MAX))? as u32;
        let gid = input.bounded("gid", u64::from(u32::MAX))? as u32;
        let mtime = Time {
            secs: input.varint_signed()?,
            nanos: input.u32()?,
        };
        if mtime.nanos >= 1_000_000_000 {
            return input.fail(Defect::TooLarge("nanoseconds"));
        }
        let nonzero = |input: &mut Decoder<'_>, flag: u8, field: &'static str| {
            if flags & flag == 0 {
                return Ok(0);
            }
            match input.u32()? {
                0 => input.fail(Defect::NotCanonical(field)),
                value => Ok(value),
            }
        };
        let inode_flags = nonzero(input, FLAG_INODE_FLAGS, "inode flags")?;
        let project = nonzero(input, FLAG_PROJECT, "project id")?;
        let xattrs = if flags & FLAG_XATTRS != 0 {
            decode_xattrs(input)?
        } else {
            Vec::new()
        };
        let link = if flags & FLAG_LINK != 0 {
            Some(LinkGroup(input.array()?))
        } else {
            None
        };
        let node = match tag {
            INLINE | PIECES | LIST | RECIPE => {
                let (size, content) = decode_content(input, tag)?;
                let holes = if flags & FLAG_HOLES != 0 {
                    decode_holes(input, size)?
                } else {
                    Vec::new()
                };
                Node::File {
                    size,
                    content,
                    holes,
                    unstable: flags & FLAG_UNSTABLE != 0,
                }
            }
            4 => Node::Directory {
                tree: TreeId(input.array()?),
            },
            5 => {
                let target = input.bytes("link target", LINK_TARGET_BYTES_MAX)?.to_vec();
                if target.is_empty() || target.contains(&0) {
                    return input.fail(Defect::NotCanonical("link target"));
                }
                Node::Symlink { target }
            }
            6 | 7 => {
                let major = input.bounded("device major", u64::from(u32::MAX))? as u32;
                let minor = input.bounded("device minor", u64::from(u32::MAX))? as u32;
                if tag == 6 {
                    Node::CharDevice { major, minor }
                } else {
                    Node::BlockDevice { major, minor }
                }
            }
            8 => Node::Fifo,
            9 => Node::Socket,
            other => return input.fail(Defect::Tag("entry type", u64::from(other))),
        };
        Ok(Self {
            name,
            mode,
            uid,
            gid,
            mtime,
            inode_flags,
            project,
            xattrs,
            link,
            node,
        })
    }
}

fn decode_xattrs(input: &mut Decoder<'_>) -> Result<Vec<Xattr>, DecodeError> {
    let count = input.bounded("extended attributes", XATTR_LIST_BYTES_MAX as u64 / 2)?;
    if count == 0 {
        return input.fail(Defect::NotCanonical("extended attributes"));
    }
    let mut xattrs: Vec<Xattr> = Vec::new();
    let mut list_bytes = 0;
    for _ in 0..count {
        let name = input
            .bytes("attribute name", XATTR_NAME_BYTES_MAX)?
            .to_vec();
        if name.is_empty()
            || name.contains(&0)
            || xattrs.last().is_some_and(|last| last.name >= name)
        {
            return input.fail(Defect::NotCanonical("attribute name"));
        }
        list_bytes += name.len() + 1;
        if list_bytes > XATTR_LIST_BYTES_MAX {
            return input.fail(Defect::TooLarge("extended attributes"));
        }
        let value = match input.u8()? {
            0 => XattrValue::Inline(
                input
                    .bytes("attribute value", XATTR_INLINE_BYTES_MAX)?
                    .to_vec(),
            ),
            1 => {
                let id = ChunkId(input.array()?);
                let len = input.bounded("attribute value", XATTR_VALUE_BYTES_MAX as u64)? as u32;
                if len as usize <= XATTR_INLINE_BYTES_MAX {
                    return input.fail(Defect::NotCanonical("attribute value"));
                }
                XattrValue::Chunk { id, len }
            }
            other => return input.fail(Defect::Tag("attribute value", u64::from(other))),
        };
        xattrs.push(Xattr { name, value });
    }
    Ok(xattrs)
}

fn decode_holes(input: &mut Decoder<'_>, size: u64) -> Result<Vec<(u64, u64)>, DecodeError> {
    let count = input.bounded("holes", HOLES_MAX as u64)?;
    if count == 0 {
        return input.fail(Defect::NotCanonical("holes"));
    }
    let mut holes: Vec<(u64, u64)> = Vec::new();
    let mut end = 0u64;
    for _ in 0..count {
        let gap = input.bounded("hole", size)?;
        let len = input.bounded("hole", size)?;
        let offset = end + gap;
        let touches = gap == 0 && !holes.is_empty();
        end = match offset.checked_add(len) {
            Some(end) if end <= size && len > 0 && !touches => end,
            _ => return input.fail(Defect::NotCanonical("hole")),
        };
        let end_is_aligned = end.is_multiple_of(HOLE_GRAIN) || end == size;
        if !offset.is_multiple_of(HOLE_GRAIN) || !end_is_aligned {
            return input.fail(Defect::NotCanonical("hole"));
        }
        holes.push((offset, len));
    }
    Ok(holes)
}

/// The body of a tree node (a chunk of kind `Tree`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeNode {
    /// An item's root: the attributes of the root directory (or of the file that is the item).
    Root(Box<Entry>),
    /// Entries in ascending order of their names. Level 0.
    Leaf(Vec<Entry>),
    /// `level` 1 and up: the first name below each child, and the child, which is of
    /// `level - 1`.
    Branch {
        level: u8,
        children: Vec<(Vec<u8>, TreeId)>,
    },
}

const TREE_ROOT: u8 = 0xff;

impl TreeNode {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        match self {
            Self::Root(entry) => {
                out.u8(TREE_ROOT);
                entry.encode(&mut out);
            }
            Self::Leaf(entries) => {
                out.u8(0).varint(entries.len() as u64);
                for entry in entries {
                    entry.encode(&mut out);
                }
            }
            Self::Branch { level, children } => {
                out.u8(*level).varint(children.len() as u64);
                for (name, id) in children {
                    out.bytes(name).raw(&id.0);
                }
            }
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("tree node", bytes);
        if bytes.len() > NODE_DECODE_BYTES_MAX {
            return input.fail(Defect::TooLarge("tree node"));
        }
        let node = match input.u8()? {
            TREE_ROOT => Self::Root(Box::new(Entry::decode(&mut input, true)?)),
            0 => {
                let count = input.bounded("entries", bytes.len() as u64)?;
                let mut entries: Vec<Entry> = Vec::new();
                for _ in 0..count {
                    let entry = Entry::decode(&mut input, false)?;
                    if entries.last().is_some_and(|last| last.name >= entry.name) {
                        return input.fail(Defect::NotCanonical("order of entries"));
                    }
                    entries.push(entry);
                }
                Self::Leaf(entries)
            }
            level if level <= LEVELS_MAX => {
                let count = input.bounded("children", bytes.len() as u64)?;
                if count == 0 {
                    return input.fail(Defect::NotCanonical("children"));
                }
                let mut children: Vec<(Vec<u8>, TreeId)> = Vec::new();
                for _ in 0..count {
                    let name = input.bytes("name", NAME_BYTES_MAX)?.to_vec();
                    if name.is_empty() || children.last().is_some_and(|last| last.0 >= name) {
                        return input.fail(Defect::NotCanonical("order of children"));
                    }
                    children.push((name, TreeId(input.array()?)));
                }
                Self::Branch { level, children }
            }
            other => return input.fail(Defect::Tag("tree level", u64::from(other))),
        };
        input.end()?;
        Ok(node)
    }
}

/// Splits a directory's encoded entries, given in ascending order of their names, into nodes.
/// Every node goes to `emit` (child before parent); the topmost one's id is returned.
///
/// Works on encoded entries, so that an unchanged directory is rebuilt without decoding.
pub fn build_directory<'a>(
    key: &ChunkIdKey,
    entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    emit: &mut dyn FnMut(ChunkId, Vec<u8>),
) -> TreeId {
    let mut level = 0u8;
    let mut nodes = split_level(key, level, entries, emit);
    while nodes.len() > 1 {
        level += 1;
        let children: Vec<(Vec<u8>, Vec<u8>)> = nodes
            .into_iter()
            .map(|(name, id)| {
                let mut body = Encoder::new();
                body.bytes(&name).raw(&id.0);
                (name, body.finish())
            })
            .collect();
        let children = children
            .iter()
            .map(|(name, body)| (name.as_slice(), body.as_slice()));
        nodes = split_level(key, level, children, emit);
    }
    nodes[0].1
}

/// One level of [`build_directory`]: never empty; a node with its first name.
fn split_level<'a>(
    key: &ChunkIdKey,
    level: u8,
    bodies: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    emit: &mut dyn FnMut(ChunkId, Vec<u8>),
) -> Vec<(Vec<u8>, TreeId)> {
    let mut nodes = Vec::new();
    let mut body = Vec::new();
    let mut count = 0u64;
    let mut first: Vec<u8> = Vec::new();
    let mut flush = |body: &mut Vec<u8>, count: &mut u64, first: &mut Vec<u8>| {
        let mut node = Encoder::new();
        node.u8(level).varint(*count).raw(body);
        let node = node.finish();
        let id = key.chunk_id(ChunkKind::Tree, &node);
        emit(id, node);
        nodes.push((std::mem::take(first), TreeId(id.0)));
        body.clear();
        *count = 0;
    };
    for (name, encoded) in bodies {
        // A branch always takes two children, so that every level is at most half of the one
        // below and LEVELS_MAX is never reached.
        let room = count < u64::from(level > 0) + 1 || body.len() + encoded.len() <= NODE_BYTES_MAX;
        if !room {
            flush(&mut body, &mut count, &mut first);
        }
        if count == 0 {
            first = name.to_vec();
        }
        body.extend_from_slice(encoded);
        count += 1;
        if body.len() >= NODE_BYTES_MIN
            && key.split_hash(name).trailing_zeros() >= NODE_SPLIT_BITS + u32::from(level)
            && (level == 0 || count > 1)
        {
            flush(&mut body, &mut count, &mut first);
        }
    }
    if count > 0 {
        flush(&mut body, &mut count, &mut first);
    }
    if nodes.is_empty() {
        // An empty directory is one empty leaf.
        let node = TreeNode::Leaf(Vec::new()).encode();
        let id = key.chunk_id(ChunkKind::Tree, &node);
        emit(id, node);
        nodes.push((Vec::new(), TreeId(id.0)));
    }
    nodes
}
