//! Trees that are made, not found: of images and artifacts, which are no files of one folder. Owners,
//! modes and times are the same for all, so that equal items have equal roots. They come back by way of a
//! folder beside the store that they belong into.

use std::collections::BTreeSet;

use podkeep_format::block::BlockClass;
use podkeep_format::codec::Encoder;
use podkeep_format::id::{ChunkKind, TreeId};
use podkeep_format::item::Item;
use podkeep_format::tree::{Content, Entry, Node, Time, TreeNode, build_directory};

use super::lock::ItemLock;
use crate::chunk::Chunking;
use crate::fs::batch::Stage;
use crate::fs::{
    DirectoryNumber, FsError, FsErrorKind, PresentQuery, TreeWriter, WriteBatch, WriteOutcome,
    WriteStep,
};
use crate::monitor::Finding;

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
fn is_plain(entry: &Entry) -> bool {
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

/// What a made tree has, and nothing else may have: folders with plain files of known names. Whoever
/// brings it into a store goes by paths in it, as root.
#[derive(Default)]
pub struct Shape {
    folders: Vec<ShapeFolder>,
}

struct ShapeFolder {
    name: &'static str,
    files: BTreeSet<Vec<u8>>,
    /// Once it was made.
    number: Option<DirectoryNumber>,
}

impl Shape {
    /// With one more folder below the root, and the names of its files.
    pub fn folder(mut self, name: &'static str, files: impl IntoIterator<Item = String>) -> Self {
        self.folders.push(ShapeFolder {
            name,
            files: files.into_iter().map(String::into_bytes).collect(),
            number: None,
        });
        self
    }

    pub fn allows(&mut self, step: &WriteStep) -> bool {
        match step {
            WriteStep::Directory {
                number: 0, entry, ..
            } => is_plain(entry),
            WriteStep::Directory {
                number,
                parent: 0,
                entry,
            } => {
                let mut folders = self.folders.iter_mut();
                match folders.find(|folder| folder.name.as_bytes() == entry.name) {
                    Some(folder) if is_plain(entry) => {
                        folder.number = Some(*number);
                        true
                    }
                    _ => false,
                }
            }
            WriteStep::File { parent, entry, .. } | WriteStep::FileDrop { parent, entry, .. } => {
                let mut folders = self.folders.iter();
                let folder = folders.find(|folder| folder.number == Some(*parent));
                folder.is_some_and(|folder| folder.files.contains(&entry.name)) && is_plain(entry)
            }
            WriteStep::DirectoryEnd { .. } => true,
            WriteStep::Directory { .. }
            | WriteStep::Remove { .. }
            | WriteStep::Move { .. }
            | WriteStep::Node { .. }
            | WriteStep::Link { .. } => false,
        }
    }
}

/// What becomes of a made tree once all of it was given.
pub trait Arrival: Send {
    /// What it is the tree of: "an image".
    const KIND: &'static str;

    /// Ends the writing of the tree, and brings what it holds into the store.
    fn finish(
        self,
        item: &Item,
        tree: Box<dyn TreeWriter>,
    ) -> Result<(WriteOutcome, Vec<Finding>), FsError>;
}

/// A made tree on its way into a store.
pub struct MadeTreeWriter<A> {
    pub item: Item,
    pub tree: Box<dyn TreeWriter>,
    pub shape: Shape,
    pub arrival: A,
    pub _lock: ItemLock,
}

impl<A: Arrival> TreeWriter for MadeTreeWriter<A> {
    fn may_hold(&self) -> bool {
        self.tree.may_hold()
    }

    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        self.tree.present(queries)
    }

    fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        for step in &batch.steps {
            if !self.shape.allows(step) {
                let object = self.item.to_string();
                let cause = format!("the snapshot's tree is not that of {}", A::KIND);
                let kind = FsErrorKind::Refused;
                return Err(FsError::new("restore", object.as_bytes(), kind, cause));
            }
        }
        self.tree.apply(batch)
    }

    fn finish(self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        self.arrival.finish(&self.item, self.tree)
    }

    fn discard(self: Box<Self>) -> Result<(), FsError> {
        self.tree.discard()
    }
}

#[cfg(test)]
mod tests;
