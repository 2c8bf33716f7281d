//! The tree that the entries of a tar make, in whatever order they stand.
//!
//! All of it but the contents is in memory until the last entry: a tar may name an entry again,
//! and a directory after what is in it.

use std::collections::BTreeMap;

use podkeep_format::block::BlockClass;
use podkeep_format::codec::{Decoder, Encoder};
use podkeep_format::id::{ChunkKind, LinkGroup, TreeId};
use podkeep_format::tree::{Entry, Node, Time, TreeNode, build_directory};

use crate::chunk::Chunking;
use crate::fs::background::Ended;
use crate::fs::batch::{Outbox, Stage};
use crate::fs::bytes_outside_holes;
use crate::fs::{FsError, FsErrorKind, ScanOutcome};

/// Bytes of names and encoded entries of one tree, and what each costs besides. A volume of a
/// million files has some 250 MB.
const TREE_BYTES_MAX: usize = 2 << 30;
const ENTRY_BYTES: usize = 128;
/// Of directories that the tar does not tell of.
const FOLDER_MODE: u16 = 0o755;

/// Why an entry has no place in the tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Something on the way to it is no directory.
    NoDirectory,
    /// It is a link to what is not there.
    NoTarget,
    /// It is a link to a directory.
    LinkToDirectory,
    /// The tree is larger than memory may be.
    TooLarge,
}

/// A tree under construction. Directory 0 is the root.
pub(super) struct Tree {
    directories: Vec<Directory>,
    inodes: Vec<Inode>,
    bytes: usize,
}

struct Directory {
    parent: usize,
    name: Vec<u8>,
    /// Without name and tree.
    own: Entry,
    children: BTreeMap<Vec<u8>, Child>,
}

#[derive(Clone, Copy)]
enum Child {
    Directory(usize),
    Inode(usize),
}

struct Inode {
    /// The entry without a name.
    encoded: Vec<u8>,
    /// Of the finished tree.
    names: u32,
    /// The lowest path of several.
    lowest: Option<Vec<u8>>,
}

/// A directory of which nothing is known.
fn unknown_directory() -> Entry {
    Entry {
        name: Vec::new(),
        mode: FOLDER_MODE,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node: Node::Directory {
            tree: TreeId([0; 32]),
        },
    }
}

impl Tree {
    pub fn new() -> Self {
        Self {
            directories: vec![Directory {
                parent: 0,
                name: Vec::new(),
                own: unknown_directory(),
                children: BTreeMap::new(),
            }],
            inodes: Vec::new(),
            bytes: 0,
        }
    }

    /// Puts an entry without a name at a path. What is there already goes, but a directory keeps
    /// what is in it when it is named again. The root is the empty path, and a directory.
    pub fn put(&mut self, path: &[&[u8]], entry: Entry) -> Result<(), NoPlace> {
        let is_directory = matches!(entry.node, Node::Directory { .. });
        let mut encoded = Encoder::new();
        entry.encode(&mut encoded);
        let encoded = encoded.finish();
        self.claim(encoded.len())?;
        let Some((name, parents)) = path.split_last() else {
            self.directories[0].own = entry;
            return Ok(());
        };
        let parent = self.directory(parents)?;
        if is_directory {
            let number = match self.directories[parent].children.get(*name) {
                Some(Child::Directory(number)) => *number,
                _ => self.add_directory(parent, name)?,
            };
            self.directories[number].own = entry;
            return Ok(());
        }
        self.claim(name.len())?;
        self.inodes.push(Inode {
            encoded,
            names: 0,
            lowest: None,
        });
        let child = Child::Inode(self.inodes.len() - 1);
        self.directories[parent]
            .children
            .insert(name.to_vec(), child);
        Ok(())
    }

    /// Gives what is at `target` now a further name.
    pub fn link(&mut self, path: &[&[u8]], target: &[&[u8]]) -> Result<(), NoPlace> {
        let Some((name, parents)) = path.split_last() else {
            return Err(NoPlace::NoDirectory);
        };
        let inode = match self.find(target).ok_or(NoPlace::NoTarget)? {
            Child::Inode(inode) => Child::Inode(inode),
            Child::Directory(_) => return Err(NoPlace::LinkToDirectory),
        };
        let parent = self.directory(parents)?;
        self.claim(name.len())?;
        self.directories[parent]
            .children
            .insert(name.to_vec(), inode);
        Ok(())
    }

    fn find(&self, path: &[&[u8]]) -> Option<Child> {
        let mut at = Child::Directory(0);
        for name in path {
            let Child::Directory(number) = at else {
                return None;
            };
            at = *self.directories[number].children.get(*name)?;
        }
        Some(at)
    }

    /// The directory at a path, made if it is not there yet.
    fn directory(&mut self, path: &[&[u8]]) -> Result<usize, NoPlace> {
        let mut at = 0;
        for name in path {
            at = match self.directories[at].children.get(*name) {
                Some(Child::Directory(number)) => *number,
                Some(Child::Inode(_)) => return Err(NoPlace::NoDirectory),
                None => self.add_directory(at, name)?,
            };
        }
        Ok(at)
    }

    fn add_directory(&mut self, parent: usize, name: &[u8]) -> Result<usize, NoPlace> {
        self.claim(name.len() * 2)?;
        let number = self.directories.len();
        self.directories.push(Directory {
            parent,
            name: name.to_vec(),
            own: unknown_directory(),
            children: BTreeMap::new(),
        });
        let child = Child::Directory(number);
        self.directories[parent]
            .children
            .insert(name.to_vec(), child);
        Ok(number)
    }

    fn claim(&mut self, bytes: usize) -> Result<(), NoPlace> {
        self.bytes += bytes + ENTRY_BYTES;
        match self.bytes <= TREE_BYTES_MAX {
            true => Ok(()),
            false => Err(NoPlace::TooLarge),
        }
    }

    /// Which directories are still in the tree. A directory stands behind its parent, since none
    /// ever moves.
    fn reachable(&self) -> Vec<bool> {
        let mut reachable = vec![false; self.directories.len()];
        reachable[0] = true;
        for (number, directory) in self.directories.iter().enumerate() {
            if !reachable[number] {
                continue;
            }
            for child in directory.children.values() {
                if let Child::Directory(child) = child {
                    reachable[*child] = true;
                }
            }
        }
        reachable
    }

    /// Counts the names of each inode, and finds the lowest path of those that have several. Returns
    /// how many times it looked at a name.
    fn count_names(&mut self, reachable: &[bool]) -> u64 {
        let mut looks = 0;
        for (inode, ..) in names(&self.directories, reachable) {
            looks += 1;
            self.inodes[inode].names += 1;
        }
        for (inode, directory, name) in names(&self.directories, reachable) {
            looks += 1;
            let inode = &mut self.inodes[inode];
            if inode.names > 1 {
                let path = path_of(&self.directories, directory, name);
                inode.lowest = Some(match inode.lowest.take() {
                    Some(lowest) => lowest.min(path),
                    None => path,
                });
            }
        }
        looks
    }

    /// Makes the nodes, from the leaves to the root.
    pub fn finish(
        mut self,
        item: &str,
        chunking: &Chunking,
        stage: &mut Stage,
        outbox: &Outbox,
    ) -> Result<ScanOutcome, Ended> {
        let reachable = self.reachable();
        self.count_names(&reachable);
        let mut outcome = ScanOutcome {
            root: TreeId([0; 32]),
            files: 0,
            directories: reachable.iter().filter(|is| **is).count() as u64,
            bytes_logical: 0,
            bytes_allocated: 0,
            incomplete: false,
            layers: Vec::new(),
        };
        for number in (0..self.directories.len()).rev() {
            if !reachable[number] {
                continue;
            }
            let children = std::mem::take(&mut self.directories[number].children);
            let mut encoded: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(children.len());
            for (name, child) in children {
                let mut entry = match child {
                    // It stands behind this one, and so it is finished.
                    Child::Directory(child) => self.directories[child].own.clone(),
                    Child::Inode(inode) => {
                        outcome.files += 1;
                        self.entry_of(item, chunking, inode, &mut outcome)?
                    }
                };
                entry.name.clone_from(&name);
                let mut out = Encoder::new();
                entry.encode(&mut out);
                encoded.push((name, out.finish()));
            }
            let pairs = encoded
                .iter()
                .map(|(name, body)| (name.as_slice(), body.as_slice()));
            let tree = build_directory(&chunking.ids, pairs, &mut |id, node| {
                stage.add(id, ChunkKind::Tree, BlockClass::Meta, &node)
            });
            self.directories[number].own.node = Node::Directory { tree };
            if stage.is_large() {
                outbox.take(stage)?;
            }
        }
        let root = TreeNode::Root(Box::new(self.directories[0].own.clone())).encode();
        let id = chunking.ids.chunk_id(ChunkKind::Tree, &root);
        stage.add(id, ChunkKind::Tree, BlockClass::Meta, &root);
        outbox.take(stage)?;
        outcome.root = TreeId(id.0);
        Ok(outcome)
    }

    fn entry_of(
        &mut self,
        item: &str,
        chunking: &Chunking,
        inode: usize,
        outcome: &mut ScanOutcome,
    ) -> Result<Entry, Ended> {
        let inode = &mut self.inodes[inode];
        let mut entry = Entry::decode(&mut Decoder::new("entry", &inode.encoded), true)
            .map_err(|error| FsError::new("read", item.as_bytes(), FsErrorKind::Other, error))?;
        let group = |lowest: &Vec<u8>| -> LinkGroup { chunking.ids.link_group(item, lowest) };
        entry.link = inode.lowest.as_ref().map(group);
        // What several names share is counted with the first.
        if inode.names > 0 {
            inode.names = 0;
            if let Node::File { size, .. } = &entry.node {
                outcome.bytes_logical += size;
            }
            outcome.bytes_allocated += bytes_outside_holes(&entry.node);
        }
        Ok(entry)
    }
}

/// All names that are no directory's: the inode, the directory, the name.
fn names<'t>(
    directories: &'t [Directory],
    reachable: &'t [bool],
) -> impl Iterator<Item = (usize, usize, &'t [u8])> {
    let numbered = directories.iter().enumerate();
    let numbered = numbered.filter(|(number, _)| reachable[*number]);
    numbered.flat_map(|(number, directory)| {
        let children = directory.children.iter();
        children.filter_map(move |(name, child)| match child {
            Child::Inode(inode) => Some((*inode, number, name.as_slice())),
            Child::Directory(_) => None,
        })
    })
}

fn path_of(directories: &[Directory], mut directory: usize, name: &[u8]) -> Vec<u8> {
    let mut names = vec![name];
    while directory != 0 {
        names.push(&directories[directory].name);
        directory = directories[directory].parent;
    }
    names.reverse();
    names.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkeep_format::tree::Content;

    fn file() -> Entry {
        Entry {
            node: Node::File {
                size: 0,
                content: Content::Inline(Vec::new()),
                holes: Vec::new(),
                unstable: false,
            },
            ..unknown_directory()
        }
    }

    /// Each name is looked at twice, however many files with hard links share a directory.
    #[test]
    fn hard_links_cost_as_many_looks_as_there_are_names() {
        const FILES: usize = 20_000;
        let mut tree = Tree::new();
        for number in 0..FILES {
            let (first, second) = (format!("b{number}"), format!("a{number}"));
            let path: &[&[u8]] = &[b"links", first.as_bytes()];
            tree.put(path, file()).unwrap();
            tree.link(&[b"links", second.as_bytes()], path).unwrap();
        }
        tree.put(&[b"alone"], file()).unwrap();
        let reachable = tree.reachable();
        assert_eq!(tree.count_names(&reachable), 2 * (2 * FILES as u64 + 1));
        let lowest = |inode: usize| tree.inodes[inode].lowest.as_deref();
        assert_eq!(lowest(17), Some(&b"links/a17"[..]));
        assert_eq!(lowest(FILES), None);
    }
}
