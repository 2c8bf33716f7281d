//! Trees that are made, not found: of images and artifacts, which are no files of one folder. Owners,
//! modes and times are the same for all, so that equal items have equal roots.

use podkeep_format::block::BlockClass;
use podkeep_format::codec::Encoder;
use podkeep_format::id::{ChunkKind, TreeId};
use podkeep_format::tree::{Content, Entry, Node, Time, TreeNode, build_directory};

use crate::chunk::Chunking;
use crate::fs::batch::Stage;

const FOLDER_MODE: u16 = 0o755;
const FILE_MODE: u16 = 0o644;

/// Stages the root with these entries.
pub fn root(chunking: &Chunking, entries: Vec<Entry>, stage: &mut Stage) -> TreeId {
    let mut root = directory(chunking, "", entries, stage);
    root.name.clear();
    let node = TreeNode::Root(Box::new(root)).encode();
    let id = chunking.ids.chunk_id(ChunkKind::Tree, &node);
    stage.add(id, ChunkKind::Tree, BlockClass::Meta, &node);
    TreeId(id.0)
}

/// Whether an entry has no attribute that could get in the way of those who use it.
pub fn is_plain(entry: &Entry) -> bool {
    entry.xattrs.is_empty() && entry.inode_flags == 0 && entry.project == 0 && entry.link.is_none()
}

pub fn file(name: String, size: u64, content: Content) -> Entry {
    let node = Node::File {
        size,
        content,
        holes: Vec::new(),
        unstable: false,
    };
    entry(name, FILE_MODE, node)
}

pub fn directory(
    chunking: &Chunking,
    name: &str,
    mut entries: Vec<Entry>,
    stage: &mut Stage,
) -> Entry {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let encoded: Vec<(Vec<u8>, Vec<u8>)> = entries
        .into_iter()
        .map(|entry| {
            let mut out = Encoder::new();
            entry.encode(&mut out);
            (entry.name, out.finish())
        })
        .collect();
    let pairs = encoded
        .iter()
        .map(|(name, body)| (name.as_slice(), body.as_slice()));
    let tree = build_directory(&chunking.ids, pairs, &mut |id, node| {
        stage.add(id, ChunkKind::Tree, BlockClass::Meta, &node)
    });
    entry(name.to_owned(), FOLDER_MODE, Node::Directory { tree })
}

fn entry(name: String, mode: u16, node: Node) -> Entry {
    Entry {
        name: name.into_bytes(),
        mode,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node,
    }
}
