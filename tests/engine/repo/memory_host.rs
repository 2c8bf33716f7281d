//! A host in memory, for tests of the repository alone: a tree is a map from paths to contents.
//! The real reader and writer of file trees have their own tests, and round trips beside these.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use podkeep_engine::chunk::{Chunking, Cut};
use podkeep_engine::fs::{
    ChunkBytes, FoundChunk, FsError, PartBytes, PresentQuery, ScanBatch, ScanOutcome, TreeScan,
    TreeWriter, WriteBatch, WriteOutcome, WriteStep,
};
use podkeep_engine::host::{
    HostError, Inventory, OpenItem, Place, PlacePlan, ScanRequest, Source, Target, WriteRequest,
};
use podkeep_engine::monitor::Finding;
use podkeep_format::block::BlockClass;
use podkeep_format::codec::Encoder;
use podkeep_format::id::{ChunkId, ChunkKind, SnapshotId, TreeId};
use podkeep_format::item::Item;
use podkeep_format::tree::{
    Content, ContentBuilder, Entry, INLINE_BYTES_MAX, Node, Piece, Time, TreeNode, build_directory,
};

/// Contents by path; directories are what the paths imply.
pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub struct MemoryHost {
    pub items: Mutex<BTreeMap<Item, Files>>,
    pub restored: Arc<Mutex<BTreeMap<String, Files>>>,
}

impl MemoryHost {
    pub fn with(item: &Item, files: &Files) -> Self {
        let host = Self::default();
        host.set(item, files);
        host
    }

    pub fn set(&self, item: &Item, files: &Files) {
        self.items
            .lock()
            .unwrap()
            .insert(item.clone(), files.clone());
    }

    /// What was restored to a directory, and forgets it.
    pub fn take_restored(&self, place: &str) -> Files {
        self.restored
            .lock()
            .unwrap()
            .remove(place)
            .unwrap_or_default()
    }
}

impl Source for MemoryHost {
    fn inventory(&self) -> Result<Inventory, HostError> {
        Ok(Inventory::default())
    }

    fn open(&self, request: &ScanRequest) -> Result<OpenItem, HostError> {
        let items = self.items.lock().unwrap();
        let files = items.get(&request.item).ok_or(HostError::Podman {
            action: "read",
            object: request.item.to_string(),
            cause: "there is no such item".into(),
        })?;
        Ok(OpenItem {
            definition: Some(format!("{{\"item\":\"{}\"}}", request.item).into_bytes()),
            tree: Some(Box::new(MemoryScan::new(&request.chunking, files))),
            findings: Vec::new(),
        })
    }

    fn published(&self, _: &ScanRequest, _: SnapshotId) -> Result<(), HostError> {
        Ok(())
    }
}

/// All chunks of a tree, given out a few at a time.
struct MemoryScan {
    chunks: Vec<(FoundChunk, Vec<u8>)>,
    next: usize,
    batch: std::ops::Range<usize>,
    root: TreeId,
    files: u64,
    bytes: u64,
}

const BATCH_CHUNKS: usize = 24;

impl MemoryScan {
    fn new(chunking: &Chunking, files: &Files) -> Self {
        let mut chunks = Vec::new();
        let mut bytes = 0;
        let tree = directory(chunking, files, "", &mut chunks);
        let root = entry(b"", Node::Directory { tree });
        let node = TreeNode::Root(Box::new(root)).encode();
        let id = chunking.ids.chunk_id(ChunkKind::Tree, &node);
        push(&mut chunks, id, ChunkKind::Tree, BlockClass::Meta, node);
        for content in files.values() {
            bytes += content.len() as u64;
        }
        Self {
            chunks,
            next: 0,
            batch: 0..0,
            root: TreeId(id.0),
            files: files.len() as u64,
            bytes,
        }
    }
}

fn entry(name: &[u8], node: Node) -> Entry {
    Entry {
        name: name.to_vec(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time { secs: 1, nanos: 2 },
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node,
    }
}

fn push(
    chunks: &mut Vec<(FoundChunk, Vec<u8>)>,
    id: ChunkId,
    kind: ChunkKind,
    class: BlockClass,
    bytes: Vec<u8>,
) {
    let len = bytes.len() as u32;
    let found = FoundChunk {
        id,
        kind,
        class,
        len,
    };
    chunks.push((found, bytes));
}

fn directory(
    chunking: &Chunking,
    files: &Files,
    prefix: &str,
    chunks: &mut Vec<(FoundChunk, Vec<u8>)>,
) -> TreeId {
    let mut entries: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (path, bytes) in files.range(prefix.to_owned()..) {
        let Some(rest) = path.strip_prefix(prefix) else {
            break;
        };
        let (name, node) = match rest.split_once('/') {
            Some((name, _)) if entries.contains_key(name) => continue,
            Some((name, _)) => {
                let tree = directory(chunking, files, &format!("{prefix}{name}/"), chunks);
                (name, Node::Directory { tree })
            }
            None => (rest, file(chunking, bytes, chunks)),
        };
        let mut encoded = Encoder::new();
        entry(name.as_bytes(), node).encode(&mut encoded);
        entries.insert(name.to_owned(), encoded.finish());
    }
    let sorted = entries
        .iter()
        .map(|(name, encoded)| (name.as_bytes(), encoded.as_slice()));
    build_directory(&chunking.ids, sorted, &mut |id, node| {
        push(chunks, id, ChunkKind::Tree, BlockClass::Meta, node);
    })
}

fn file(chunking: &Chunking, bytes: &[u8], chunks: &mut Vec<(FoundChunk, Vec<u8>)>) -> Node {
    let size = bytes.len() as u64;
    let content = if bytes.len() <= INLINE_BYTES_MAX {
        Content::Inline(bytes.to_vec())
    } else {
        let mut builder = ContentBuilder::new();
        let mut lists = Vec::new();
        chunking.chunker.cut_whole(bytes, &mut |cut| {
            let piece = match cut {
                Cut::Zeros(len) => Piece::Zero { len },
                Cut::Chunk(bytes) => {
                    let id = chunking.ids.chunk_id(ChunkKind::Data, bytes);
                    let (kind, class) = (ChunkKind::Data, BlockClass::Small);
                    push(chunks, id, kind, class, bytes.to_vec());
                    let len = bytes.len() as u32;
                    Piece::Chunk { id, len }
                }
            };
            builder.push(&chunking.ids, piece, &mut |id, node| lists.push((id, node)));
        });
        let content = builder.finish(&chunking.ids, &mut |id, node| lists.push((id, node)));
        for (id, node) in lists {
            push(chunks, id, ChunkKind::List, BlockClass::Meta, node);
        }
        content
    };
    Node::File {
        size,
        content,
        holes: Vec::new(),
        unstable: false,
    }
}

impl TreeScan for MemoryScan {
    fn next(&mut self) -> Result<Option<ScanBatch>, FsError> {
        if self.next == self.chunks.len() {
            return Ok(None);
        }
        let end = (self.next + BATCH_CHUNKS).min(self.chunks.len());
        self.batch = self.next..end;
        self.next = end;
        let chunks = &self.chunks[self.batch.clone()];
        Ok(Some(ScanBatch {
            chunks: chunks.iter().map(|(found, _)| *found).collect(),
            bytes_read: chunks.iter().map(|(found, _)| u64::from(found.len)).sum(),
            ..ScanBatch::default()
        }))
    }

    fn fetch(&mut self, wanted: &[u32]) -> Result<ChunkBytes, FsError> {
        let mut buffer = Vec::new();
        let mut ranges = Vec::new();
        for index in wanted {
            let start = buffer.len();
            buffer.extend_from_slice(&self.chunks[self.batch.start + *index as usize].1);
            ranges.push(start..buffer.len());
        }
        Ok(ChunkBytes {
            buffer: Arc::new(buffer),
            ranges,
        })
    }

    fn finish(self: Box<Self>) -> Result<ScanOutcome, FsError> {
        Ok(ScanOutcome {
            root: self.root,
            files: self.files,
            directories: 1,
            bytes_logical: self.bytes,
            layers: Vec::new(),
            bytes_allocated: self.bytes,
            incomplete: false,
        })
    }
}

impl Target for MemoryHost {
    fn inventory(&self) -> Result<Inventory, HostError> {
        Ok(Inventory::default())
    }

    fn plan(&self, _: &WriteRequest) -> Result<PlacePlan, HostError> {
        Ok(PlacePlan::default())
    }

    fn open(&self, request: &WriteRequest) -> Result<Box<dyn TreeWriter>, HostError> {
        let place = match &request.place {
            Place::Item { item, .. } => item.to_string(),
            Place::Directory(path) => path.display().to_string(),
        };
        Ok(Box::new(MemoryWriter {
            place,
            restored: Arc::clone(&self.restored),
            directories: BTreeMap::from([(0, String::new())]),
            open: BTreeMap::new(),
            files: Files::new(),
        }))
    }
}

struct MemoryWriter {
    place: String,
    restored: Arc<Mutex<BTreeMap<String, Files>>>,
    directories: BTreeMap<u64, String>,
    open: BTreeMap<u64, Vec<u8>>,
    files: Files,
}

impl TreeWriter for MemoryWriter {
    fn may_hold(&self) -> bool {
        false
    }

    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        let none = |query: &PresentQuery| vec![false; query.pieces.len()];
        Ok(queries.iter().map(none).collect())
    }

    fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        for step in batch.steps {
            match step {
                WriteStep::Directory {
                    number,
                    parent,
                    entry,
                } if number > 0 => {
                    let name = String::from_utf8(entry.name.clone()).unwrap();
                    let path = format!("{}{name}/", self.directories[&parent]);
                    self.directories.insert(number, path);
                }
                WriteStep::File {
                    number,
                    parent,
                    entry,
                    parts,
                    last,
                } => {
                    let Node::File { size, .. } = entry.node else {
                        panic!("a file step without a file")
                    };
                    let content = self.open.entry(number).or_insert(vec![0; size as usize]);
                    for part in parts {
                        if let PartBytes::Data { buffer, range } = part.bytes {
                            let bytes = &batch.buffers[buffer as usize]
                                [range.start as usize..range.end as usize];
                            let start = part.offset as usize;
                            content[start..start + bytes.len()].copy_from_slice(bytes);
                        }
                    }
                    if last {
                        let name = String::from_utf8(entry.name.clone()).unwrap();
                        let path = format!("{}{name}", self.directories[&parent]);
                        let content = self.open.remove(&number).unwrap();
                        self.files.insert(path, content);
                    }
                }
                WriteStep::FileDrop { number, .. } => drop(self.open.remove(&number)),
                _ => {}
            }
        }
        Ok(Vec::new())
    }

    fn finish(self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        assert!(self.open.is_empty(), "files without an end");
        let outcome = WriteOutcome {
            files: self.files.len() as u64,
            ..WriteOutcome::default()
        };
        self.restored.lock().unwrap().insert(self.place, self.files);
        Ok((outcome, Vec::new()))
    }

    fn discard(self: Box<Self>) -> Result<(), FsError> {
        Ok(())
    }
}
