//! Runs a scan to its end and decodes the tree that it made.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podkeep_engine::chunk::{ChunkSizes, Chunker, Chunking};
use podkeep_engine::fs::scan::{ScanRoot, ScanSpec, View, scan};
use podkeep_engine::fs::{FsError, ScanOutcome, TreeScan};
use podkeep_engine::monitor::{Finding, FindingKind};
use podkeep_format::id::{ChunkId, ChunkIdKey, ChunkKind, ListId, TreeId};
use podkeep_format::tree::{Content, Entry, ListNode, Node, Piece, TreeNode, Xattr, XattrValue};

/// A directory that is removed with all that is in it.
pub struct Place {
    _keep: tempfile::TempDir,
    pub path: PathBuf,
}

impl Place {
    /// On the file system of the build, which is a real one.
    pub fn new() -> Self {
        Self::inside(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// On tmpfs, which keeps every time.
    pub fn in_memory() -> Self {
        Self::inside(Path::new("/dev/shm"))
    }

    fn inside(parent: &Path) -> Self {
        let keep = tempfile::Builder::new()
            .prefix("scan-")
            .tempdir_in(parent)
            .expect("a directory for the test");
        let path = keep.path().join("tree");
        fs::create_dir(&path).expect("a directory for the tree");
        Self { _keep: keep, path }
    }

    pub fn write(&self, name: impl AsRef<[u8]>, content: &[u8]) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, content).expect("write a file");
        path
    }

    pub fn dir(&self, name: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(&path).expect("make a directory");
        path
    }

    pub fn at(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(name.as_ref()))
    }

    /// A file beside the tree.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }
}

/// Bytes that look random, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub fn chunking() -> Arc<Chunking> {
    chunking_of(7)
}

/// The chunking of a repository of its own.
pub fn chunking_of(repository: u8) -> Arc<Chunking> {
    Arc::new(Chunking {
        chunker: Chunker::new(&[repository; 32], ChunkSizes::DEFAULT),
        ids: ChunkIdKey::new(&[repository + 1; 32]),
    })
}

pub fn spec(root: &Path) -> ScanSpec {
    ScanSpec {
        root: ScanRoot::Path(root.as_os_str().as_bytes().to_vec()),
        item: "volume:test".to_owned(),
        chunking: chunking(),
        threads: 2,
        exclude: Vec::new(),
        exclude_caches: false,
        cross_mounts: false,
        owners: Arc::default(),
        states: None,
        view: View::Whole,
        begun: Arc::default(),
        known: None,
    }
}

/// What a scan gave, decoded.
pub struct Tree {
    pub outcome: ScanOutcome,
    pub findings: Vec<Finding>,
    pub bytes_read: u64,
    /// Every directory's own entry and every other entry by its path; the root's is "".
    pub entries: BTreeMap<Vec<u8>, Entry>,
    pub chunks: HashMap<ChunkId, Vec<u8>>,
    /// Chunk bytes that were reported, without those of the tree itself.
    pub data_bytes: u64,
}

pub fn read(path: &Path) -> Tree {
    read_spec(spec(path))
}

pub fn read_fd(root: OwnedFd) -> Tree {
    let mut spec = spec(Path::new("/"));
    spec.root = ScanRoot::Directory(root);
    read_spec(spec)
}

pub fn read_spec(spec: ScanSpec) -> Tree {
    let ids = Arc::clone(&spec.chunking);
    let scan = scan(spec).expect("the scan starts");
    drain(scan, &ids).expect("the scan ends")
}

/// Takes all batches, checks every id, and that children come before parents.
pub fn drain(mut scan: Box<dyn TreeScan>, chunking: &Chunking) -> Result<Tree, FsError> {
    let mut chunks = HashMap::new();
    let mut findings = Vec::new();
    let (mut files, mut bytes_read, mut data_bytes) = (0, 0, 0);
    while let Some(batch) = scan.next()? {
        let wanted: Vec<u32> = (0..batch.chunks.len() as u32).collect();
        let bytes = scan.fetch(&wanted)?;
        assert_eq!(bytes.ranges.len(), wanted.len());
        let sum: usize = bytes.ranges.iter().map(ExactSizeIterator::len).sum();
        assert!(sum <= 5 << 20, "a batch of {sum} bytes");
        for (chunk, range) in batch.chunks.iter().zip(bytes.ranges) {
            let content = &bytes.buffer[range];
            assert_eq!(content.len(), chunk.len as usize);
            assert_eq!(chunking.ids.chunk_id(chunk.kind, content), chunk.id);
            match chunk.kind {
                ChunkKind::Tree => check_children(content, &chunks),
                ChunkKind::Data => data_bytes += u64::from(chunk.len),
                _ => {}
            }
            chunks.insert(chunk.id, content.to_vec());
        }
        findings.extend(batch.findings);
        files += batch.files;
        bytes_read += batch.bytes_read;
    }
    let outcome = scan.finish()?;
    assert_eq!(files, outcome.files);
    Ok(Tree {
        entries: decode(outcome.root, &chunks),
        outcome,
        findings,
        bytes_read,
        chunks,
        data_bytes,
    })
}

fn check_children(node: &[u8], chunks: &HashMap<ChunkId, Vec<u8>>) {
    let known = |id: ChunkId| assert!(chunks.contains_key(&id), "a parent came before its child");
    match TreeNode::decode(node).expect("a tree node") {
        TreeNode::Branch { children, .. } => {
            children.iter().for_each(|(_, id)| known((*id).into()))
        }
        TreeNode::Leaf(entries) => entries.iter().for_each(|entry| {
            if let Node::Directory { tree } = &entry.node {
                known((*tree).into());
            }
        }),
        TreeNode::Root(_) => {}
    }
}

fn decode(root: TreeId, chunks: &HashMap<ChunkId, Vec<u8>>) -> BTreeMap<Vec<u8>, Entry> {
    let node = |id: TreeId| TreeNode::decode(&chunks[&id.into()]).expect("a tree node");
    let TreeNode::Root(root) = node(root) else {
        panic!("the root node is of another kind");
    };
    let mut entries = BTreeMap::new();
    let mut open = Vec::new();
    if let Node::Directory { tree } = &root.node {
        open.push((Vec::new(), *tree));
    }
    entries.insert(Vec::new(), *root);
    while let Some((path, id)) = open.pop() {
        match node(id) {
            TreeNode::Root(_) => panic!("a root inside the tree"),
            TreeNode::Branch { children, .. } => {
                open.extend(children.into_iter().map(|(_, id)| (path.clone(), id)));
            }
            TreeNode::Leaf(leaf) => {
                for entry in leaf {
                    let mut below = path.clone();
                    if !below.is_empty() {
                        below.push(b'/');
                    }
                    below.extend_from_slice(&entry.name);
                    if let Node::Directory { tree } = &entry.node {
                        open.push((below.clone(), *tree));
                    }
                    assert!(entries.insert(below, entry).is_none(), "a name twice");
                }
            }
        }
    }
    entries
}

impl Tree {
    pub fn entry(&self, path: impl AsRef<[u8]>) -> &Entry {
        let path = path.as_ref();
        self.entries
            .get(path)
            .unwrap_or_else(|| panic!("no entry {}", path.escape_ascii()))
    }

    pub fn has(&self, path: impl AsRef<[u8]>) -> bool {
        self.entries.contains_key(path.as_ref())
    }

    pub fn pieces(&self, path: impl AsRef<[u8]>) -> Vec<Piece> {
        let Node::File { content, size, .. } = &self.entry(path).node else {
            panic!("no file");
        };
        let pieces = match content {
            Content::Inline(_) | Content::Recipe { .. } => panic!("it has no pieces"),
            Content::Pieces(pieces) => pieces.clone(),
            Content::List { id, .. } => {
                let mut pieces = Vec::new();
                self.list(*id, &mut pieces);
                pieces
            }
        };
        assert_eq!(pieces.iter().map(Piece::bytes).sum::<u64>(), *size);
        pieces
    }

    fn list(&self, id: ListId, pieces: &mut Vec<Piece>) {
        match ListNode::decode(&self.chunks[&id.into()]).expect("a list node") {
            ListNode::Pieces(more) => pieces.extend(more),
            ListNode::Lists { children, .. } => {
                for (child, _) in children {
                    self.list(child, pieces);
                }
            }
        }
    }

    /// A file's bytes; for files that fit in memory.
    pub fn content(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        let path = path.as_ref();
        if let Node::File {
            content: Content::Inline(bytes),
            ..
        } = &self.entry(path).node
        {
            return bytes.clone();
        }
        let mut bytes = Vec::new();
        for piece in self.pieces(path) {
            match piece {
                Piece::Chunk { id, .. } => bytes.extend_from_slice(&self.chunks[&id]),
                Piece::Zero { len } => bytes.resize(bytes.len() + len as usize, 0),
            }
        }
        bytes
    }

    pub fn xattrs(&self, path: impl AsRef<[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let value = |xattr: &Xattr| match &xattr.value {
            XattrValue::Inline(value) => value.clone(),
            XattrValue::Chunk { id, len } => {
                let value = self.chunks[id].clone();
                assert_eq!(value.len(), *len as usize);
                value
            }
        };
        self.entry(path)
            .xattrs
            .iter()
            .map(|xattr| (xattr.name.clone(), value(xattr)))
            .collect()
    }

    pub fn found(&self, kind: FindingKind) -> Vec<&Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.kind == kind)
            .collect()
    }

    pub fn assert_clean(&self) {
        assert_eq!(self.findings, []);
        assert!(!self.outcome.incomplete);
    }
}
