//! What listings show of an entry, wherever it was found.

use podkeep_engine::operations::{ImageEntry, ImageNode};
use podkeep_format::tree::{Entry, Node, Time};

pub struct Shown<'a> {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// The file changed while it was read.
    pub unstable: bool,
    /// As JSON has it.
    pub word: &'static str,
    /// As `ls -l` has it.
    pub letter: char,
    pub what: ShownNode<'a>,
}

#[derive(Clone, Copy)]
pub enum ShownNode<'a> {
    File {
        size: u64,
    },
    Directory,
    Symlink {
        target: &'a [u8],
    },
    Device {
        major: u32,
        minor: u32,
    },
    /// Without anything to tell.
    Other,
}

impl<'a> From<&'a Entry> for Shown<'a> {
    fn from(entry: &'a Entry) -> Self {
        let (letter, what) = match &entry.node {
            Node::File { size, .. } => ('-', ShownNode::File { size: *size }),
            Node::Directory { .. } => ('d', ShownNode::Directory),
            Node::Symlink { target } => ('l', ShownNode::Symlink { target }),
            Node::CharDevice { major, minor } => ('c', device(*major, *minor)),
            Node::BlockDevice { major, minor } => ('b', device(*major, *minor)),
            Node::Fifo => ('p', ShownNode::Other),
            Node::Socket => ('s', ShownNode::Other),
        };
        Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            unstable: matches!(entry.node, Node::File { unstable: true, .. }),
            word: entry.node.word(),
            letter,
            what,
        }
    }
}

impl<'a> From<&'a ImageEntry> for Shown<'a> {
    fn from(entry: &'a ImageEntry) -> Self {
        let (letter, what) = match &entry.node {
            ImageNode::File { size } => ('-', ShownNode::File { size: *size }),
            ImageNode::Directory => ('d', ShownNode::Directory),
            ImageNode::Symlink { target } => ('l', ShownNode::Symlink { target }),
            ImageNode::CharDevice { major, minor } => ('c', device(*major, *minor)),
            ImageNode::BlockDevice { major, minor } => ('b', device(*major, *minor)),
            ImageNode::Fifo => ('p', ShownNode::Other),
        };
        Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            unstable: false,
            word: entry.node.word(),
            letter,
            what,
        }
    }
}

fn device<'a>(major: u32, minor: u32) -> ShownNode<'a> {
    ShownNode::Device { major, minor }
}
