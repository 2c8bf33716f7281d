//! Walking stored trees and contents.

use podkeep_format::id::{ChunkId, ChunkKind, ListId, TreeId};
use podkeep_format::tree::{Content, Entry, LEVELS_MAX, ListNode, Node, Piece, TreeNode};

use super::reader::Reader;
use super::{RepoError, RepoResult};

/// Where the nodes of trees come from.
pub trait TreeNodes {
    fn tree_node(&self, id: TreeId) -> RepoResult<TreeNode>;
}

impl TreeNodes for Reader {
    fn tree_node(&self, id: TreeId) -> RepoResult<TreeNode> {
        let chunk = self.chunk(ChunkKind::Tree, id.into())?;
        TreeNode::decode(chunk.as_ref()).map_err(|e| RepoError::damaged(format!("tree {id}"), e))
    }
}

/// The attributes of an item's root.
pub fn root_entry(nodes: &impl TreeNodes, id: TreeId) -> RepoResult<Entry> {
    match nodes.tree_node(id)? {
        TreeNode::Root(entry) => Ok(*entry),
        _ => Err(wrong(id, "is not the root of an item")),
    }
}

impl Reader {
    /// The attributes of an item's root.
    pub fn root(&self, id: TreeId) -> RepoResult<Entry> {
        root_entry(self, id)
    }

    /// The entries of a directory.
    pub fn directory(&self, id: TreeId) -> DirectoryEntries<'_> {
        DirectoryEntries::of(self, id)
    }

    /// The entry at `path` (components separated by `/`; empty: the root).
    /// `None`: there is none.
    pub fn lookup(&self, root: TreeId, path: &[u8]) -> RepoResult<Option<Entry>> {
        let mut entry = self.root(root)?;
        for component in path.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
            let Node::Directory { tree } = entry.node else {
                return Ok(None);
            };
            match self.child(tree, component)? {
                Some(child) => entry = child,
                None => return Ok(None),
            }
        }
        Ok(Some(entry))
    }

    /// One entry of a directory, reading only the nodes on the way to it.
    fn child(&self, mut tree: TreeId, name: &[u8]) -> RepoResult<Option<Entry>> {
        let mut below = LEVELS_MAX + 1;
        loop {
            match self.tree_node(tree)? {
                TreeNode::Leaf(mut entries) => {
                    let found = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name));
                    return Ok(found.ok().map(|index| entries.swap_remove(index)));
                }
                TreeNode::Branch { level, children } if level < below => {
                    below = level;
                    let index = children.partition_point(|(first, _)| first.as_slice() <= name);
                    match index.checked_sub(1) {
                        Some(index) => tree = children[index].1,
                        None => return Ok(None),
                    }
                }
                _ => return Err(wrong(tree, "has a node in the wrong place")),
            }
        }
    }

    /// The pieces of a content in order; inline contents and recipes have none.
    pub fn pieces(&self, content: &Content) -> Pieces<'_> {
        Pieces(self.content_parts(content))
    }

    /// The pieces of a content in order, each list node in front of what it stands for.
    pub fn content_parts(&self, content: &Content) -> ContentParts<'_> {
        let mut parts = ContentParts {
            reader: self,
            ready: Vec::new().into_iter(),
            stack: Vec::new(),
        };
        match content {
            Content::Inline(_) | Content::Recipe { .. } => {}
            Content::Pieces(list) => parts.ready = list.clone().into_iter(),
            Content::List { id, level } => parts.stack.push((*id, *level)),
        }
        parts
    }
}

fn wrong(id: TreeId, cause: &str) -> RepoError {
    RepoError::Damaged {
        object: format!("tree {id}"),
        cause: cause.into(),
    }
}

/// Yields a directory's entries in order of their names, one node in memory at a time. After an
/// error it goes on with the next node, so that one damaged node costs only its own entries.
pub struct DirectoryEntries<'n, N = Reader> {
    nodes: &'n N,
    /// Nodes to visit, the next one last, each with the level that it must have.
    stack: Vec<(TreeId, Option<u8>)>,
    leaf: std::vec::IntoIter<Entry>,
}

impl<'n, N: TreeNodes> DirectoryEntries<'n, N> {
    pub fn of(nodes: &'n N, id: TreeId) -> Self {
        Self {
            nodes,
            stack: vec![(id, None)],
            leaf: Vec::new().into_iter(),
        }
    }
}

impl<N: TreeNodes> Iterator for DirectoryEntries<'_, N> {
    type Item = RepoResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(Ok(entry));
            }
            let (id, must) = self.stack.pop()?;
            match self.nodes.tree_node(id) {
                Ok(TreeNode::Leaf(entries)) if must.is_none_or(|level| level == 0) => {
                    self.leaf = entries.into_iter();
                }
                Ok(TreeNode::Branch { level, children })
                    if must.is_none_or(|must| level == must) =>
                {
                    let below = Some(level - 1);
                    self.stack
                        .extend(children.into_iter().rev().map(|(_, id)| (id, below)));
                }
                Ok(_) => return Some(Err(wrong(id, "has a node in the wrong place"))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What a content is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentPart {
    /// A list node, which was read.
    List(ListId),
    Piece(Piece),
}

/// Yields a content's list nodes and pieces; at most one node of each level is in memory. Ends
/// after an error.
pub struct ContentParts<'r> {
    reader: &'r Reader,
    ready: std::vec::IntoIter<Piece>,
    stack: Vec<(ListId, u8)>,
}

impl Iterator for ContentParts<'_> {
    type Item = RepoResult<ContentPart>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(piece) = self.ready.next() {
            return Some(Ok(ContentPart::Piece(piece)));
        }
        let (id, must) = self.stack.pop()?;
        let node = self
            .reader
            .chunk(ChunkKind::List, ChunkId::from(id))
            .and_then(|chunk| {
                ListNode::decode(chunk.as_ref())
                    .map_err(|e| RepoError::damaged(format!("content list {id}"), e))
            });
        let failure = match node {
            Ok(ListNode::Pieces(pieces)) if must == 0 => {
                self.ready = pieces.into_iter();
                return Some(Ok(ContentPart::List(id)));
            }
            Ok(ListNode::Lists { level, children }) if level == must => {
                let below = level - 1;
                self.stack
                    .extend(children.into_iter().rev().map(|(id, _)| (id, below)));
                return Some(Ok(ContentPart::List(id)));
            }
            Ok(_) => RepoError::Damaged {
                object: format!("content list {id}"),
                cause: "has a node in the wrong place".into(),
            },
            Err(error) => error,
        };
        self.stack.clear();
        Some(Err(failure))
    }
}

/// Yields a content's pieces, as [`ContentParts`] does.
pub struct Pieces<'r>(ContentParts<'r>);

impl Iterator for Pieces<'_> {
    type Item = RepoResult<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()? {
                Ok(ContentPart::Piece(piece)) => return Some(Ok(piece)),
                Ok(ContentPart::List(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
