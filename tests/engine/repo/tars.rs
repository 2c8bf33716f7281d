//! Layers for tests: tars, and how they are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use podkeep_engine::chunk::{Cut, Stream as Cutter};
use podkeep_engine::monitor::{Collect, Finding};
use podkeep_engine::repo::index::Index;
use podkeep_engine::repo::layers::{KnownLayer, LayerRecords};
use podkeep_engine::repo::lease::HeldLease;
use podkeep_engine::repo::reader::Reader;
use podkeep_engine::repo::writer::Writer;
use podkeep_engine::repo::{RepoResult, Repository, now, orphans, random};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::block::BlockClass;
use podkeep_format::frame::SessionKeys;
use podkeep_format::id::{ChunkId, ChunkKind, DiffId, RunId, TreeId};
use podkeep_format::item::Item;
use podkeep_format::lease::Purpose;
use podkeep_format::recipe::{LITERAL_PAYLOAD_BYTES_MAX, Recipe, RunsEncoder, Stream};
use podkeep_format::snapshot::{Consistency, Snapshot, SnapshotBody, SnapshotHeader};
use podkeep_format::tree::{
    Content, ContentBuilder, Entry, INLINE_BYTES_MAX, Node, Piece, Time, TreeNode,
};

use super::{init, noise, open};

/// A part of a tar: headers and padding, or the content of a file.
pub enum Part {
    Literal(Vec<u8>),
    Payload(Vec<u8>),
}

/// Something like a tar: the engine takes any bytes.
pub struct Tar(pub Vec<Part>);

impl Tar {
    pub fn sample(seed: u64) -> Self {
        let mut parts = Vec::new();
        let contents = [
            noise(seed, 700_000),
            noise(seed + 1, 100),
            vec![0; 300_000],
            noise(seed + 2, 40_000),
            Vec::new(),
            format!("text {seed} ").repeat(20_000).into_bytes(),
        ];
        for (n, content) in contents.into_iter().enumerate() {
            let padding = content.len().next_multiple_of(512) - content.len();
            parts.push(Part::Literal(noise(seed + 50 + n as u64, 512)));
            parts.push(Part::Payload(content));
            parts.push(Part::Literal(vec![0; padding]));
        }
        parts.push(Part::Literal(vec![0; 1024]));
        Self(parts)
    }

    /// So many small files that each stream has a list.
    pub fn of_many_files() -> Self {
        let mut parts = Vec::new();
        for n in 0..9000u64 {
            parts.push(Part::Literal(noise(n, 512)));
            parts.push(Part::Payload(noise(n + 10_000, 257 + n as usize % 400)));
        }
        Self(parts)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let parts = self.0.iter().map(|part| match part {
            Part::Literal(bytes) | Part::Payload(bytes) => bytes.as_slice(),
        });
        parts.collect::<Vec<_>>().concat()
    }

    pub fn diff_id(&self) -> DiffId {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.bytes());
        DiffId(hash.as_ref().try_into().unwrap())
    }
}

/// A writer with its lease, and the layer records that it found.
pub struct Session<'r> {
    pub repo: &'r Repository,
    pub lease: HeldLease,
    pub writer: Writer,
    pub records: LayerRecords,
    pub monitor: Collect,
}

/// The chunks of one layer on their way to the writer.
pub struct Storing<'s, 'r> {
    pub session: &'s mut Session<'r>,
    pub chunks: BTreeSet<ChunkId>,
}

impl<'r> Session<'r> {
    pub fn open(repo: &'r Repository) -> RepoResult<Self> {
        let lease = HeldLease::take(repo, Purpose::Write)?;
        let monitor = Collect::default();
        let index = Arc::new(Index::load(repo, &monitor)?);
        orphans::adopt_own(repo, &index, &monitor)?;
        Ok(Self {
            repo,
            writer: Writer::new(repo, index, lease.id(), 1)?,
            lease,
            records: LayerRecords::list(repo)?,
            monitor,
        })
    }

    pub fn find(&mut self, tar: &Tar) -> Option<KnownLayer> {
        self.try_find(tar).unwrap()
    }

    pub fn try_find(&mut self, tar: &Tar) -> RepoResult<Option<KnownLayer>> {
        self.records
            .find(self.repo, &mut self.writer, tar.diff_id(), &self.monitor)
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.monitor.findings.lock().unwrap().clone()
    }

    /// Gives all chunks of a layer to the writer. Its recipe names `diff_id`.
    pub fn store(
        &mut self,
        tar: &Tar,
        diff_id: DiffId,
    ) -> RepoResult<(KnownLayer, BTreeSet<ChunkId>)> {
        let mut storing = Storing {
            session: self,
            chunks: BTreeSet::new(),
        };
        let recipe = storing.recipe(tar, diff_id)?;
        let id = storing.add(ChunkKind::Recipe, &recipe.encode())?;
        let layer = KnownLayer {
            diff_id,
            recipe: id,
            size: recipe.size,
        };
        Ok((layer, storing.chunks))
    }

    /// Stores a layer and a record of it.
    pub fn keep(&mut self, tar: &Tar) -> RepoResult<KnownLayer> {
        let (layer, chunks) = self.store(tar, tar.diff_id())?;
        self.records.add(self.repo, layer, chunks);
        self.commit()?;
        Ok(layer)
    }

    /// Publishes a snapshot of `item` with these files, some of them below one directory.
    pub fn publish(&mut self, item: &Item, files: &[(&str, Node)]) -> RepoResult<()> {
        self.publish_defined(item, files, None)
    }

    /// As [`publish`](Self::publish), with a definition of the item.
    pub fn publish_defined(
        &mut self,
        item: &Item,
        files: &[(&str, Node)],
        definition: Option<&[u8]>,
    ) -> RepoResult<()> {
        let mut directories: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        for (path, node) in files {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            let entries = directories.entry(directory).or_default();
            entries.push(entry(name, node.clone()));
        }
        let mut root = directories.remove("").unwrap_or_default();
        for (name, entries) in directories {
            let tree = self.directory(entries)?;
            root.push(entry(name, Node::Directory { tree }));
        }
        let tree = self.directory(root)?;
        let root = TreeNode::Root(Box::new(entry("", Node::Directory { tree })));
        let root = self.node(&root.encode())?;
        let definition = match definition {
            Some(bytes) => Some((self.chunk(ChunkKind::Record, bytes)?, bytes.len() as u32)),
            None => None,
        };
        self.commit()?;
        let (repo, run) = (self.repo, RunId(random()?));
        let header = SnapshotHeader {
            author: repo.author().id(),
            host: repo.host(),
            item: item.clone(),
            sequence: 1,
            predecessor: None,
            lease: self.lease.id(),
            run,
            time: now(),
        };
        let body = SnapshotBody {
            definition,
            ..snapshot_body(TreeId(root.0))
        };
        let (session, seal) = self.writer.session();
        let keys = SessionKeys {
            repository: repo.id(),
            author: repo.author(),
            session,
            seal,
            salt: random()?,
        };
        let index = &repo.vault().index;
        let bytes = Snapshot::seal(&header, &body, index, &keys).expect("a sound snapshot");
        repo.publish_snapshot(&bytes)?;
        Ok(())
    }

    fn directory(&mut self, mut entries: Vec<Entry>) -> RepoResult<TreeId> {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let id = self.node(&TreeNode::Leaf(entries).encode())?;
        Ok(TreeId(id.0))
    }

    fn node(&mut self, bytes: &[u8]) -> RepoResult<ChunkId> {
        self.chunk(ChunkKind::Tree, bytes)
    }

    fn chunk(&mut self, kind: ChunkKind, bytes: &[u8]) -> RepoResult<ChunkId> {
        let mut storing = Storing {
            session: self,
            chunks: BTreeSet::new(),
        };
        storing.add(kind, bytes)
    }

    pub fn commit(&mut self) -> RepoResult<()> {
        self.writer.flush()?;
        self.records.put(self.repo, self.lease.id())
    }
}

impl Storing<'_, '_> {
    pub fn add(&mut self, kind: ChunkKind, bytes: &[u8]) -> RepoResult<ChunkId> {
        let id = self.session.repo.vault().ids.chunk_id(kind, bytes);
        self.chunks.insert(id);
        let class = match kind {
            ChunkKind::Data => BlockClass::Layer,
            _ => BlockClass::Meta,
        };
        if !self.session.writer.knows(&id) {
            self.session.writer.add(id, kind, class, bytes)?;
        }
        Ok(id)
    }

    fn recipe(&mut self, tar: &Tar, diff_id: DiffId) -> RepoResult<Recipe> {
        let (mut literals, mut payloads) = (vec![Vec::new()], Vec::new());
        let (mut encoder, mut runs) = (RunsEncoder::new(), Vec::new());
        for part in &tar.0 {
            match part {
                Part::Payload(bytes) if bytes.len() as u64 > LITERAL_PAYLOAD_BYTES_MAX => {
                    encoder.payloads(bytes.len() as u64);
                    payloads.push(bytes.clone());
                }
                Part::Literal(bytes) | Part::Payload(bytes) => {
                    encoder.literals(bytes.len() as u64, &mut runs);
                    literals[0].extend_from_slice(bytes);
                }
            }
        }
        encoder.finish(&mut runs);
        let literals = self.stream(&literals)?;
        let payloads = self.stream(&payloads)?;
        Ok(Recipe {
            diff_id,
            size: literals.size + payloads.size,
            literals,
            payloads,
            runs: self.stream(&[runs])?,
        })
    }

    /// Contents that are cut one by one.
    pub fn stream(&mut self, contents: &[Vec<u8>]) -> RepoResult<Stream> {
        let size = contents.iter().map(|bytes| bytes.len() as u64).sum();
        if size <= INLINE_BYTES_MAX as u64 {
            let content = Content::Inline(contents.concat());
            return Ok(Stream { size, content });
        }
        let chunking = Arc::clone(self.session.repo.chunking());
        let mut builder = ContentBuilder::new();
        let mut lists = Vec::new();
        for content in contents {
            let mut pieces = Vec::new();
            let mut chunks = Vec::new();
            let mut cutter = Cutter::new(&chunking.chunker);
            let mut take = |cut: Cut<'_>| match cut {
                Cut::Zeros(len) => pieces.push(Piece::Zero { len }),
                Cut::Chunk(bytes) => {
                    pieces.push(Piece::Chunk {
                        id: chunking.ids.chunk_id(ChunkKind::Data, bytes),
                        len: bytes.len() as u32,
                    });
                    chunks.push(bytes.to_vec());
                }
            };
            cutter.push(content, &mut take);
            cutter.finish(&mut take);
            for chunk in chunks {
                self.add(ChunkKind::Data, &chunk)?;
            }
            for piece in pieces {
                builder.push(&chunking.ids, piece, &mut |_, node| lists.push(node));
            }
        }
        let content = builder.finish(&chunking.ids, &mut |_, node| lists.push(node));
        for node in lists {
            self.add(ChunkKind::List, &node)?;
        }
        Ok(Stream { size, content })
    }
}

fn entry(name: &str, node: Node) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        mode: 0o644,
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

pub fn file(size: u64, content: Content) -> Node {
    Node::File {
        size,
        content,
        holes: Vec::new(),
        unstable: false,
    }
}

pub fn layer_file(layer: KnownLayer) -> Node {
    file(layer.size, Content::Recipe { id: layer.recipe })
}

fn snapshot_body(root: TreeId) -> SnapshotBody {
    SnapshotBody {
        host_name: "host1".into(),
        aliases: Vec::new(),
        root: Some(root),
        definition: None,
        uid_map: Vec::new(),
        gid_map: Vec::new(),
        consistency: Consistency::Live,
        complete: true,
        findings: 0,
        finding_samples: Vec::new(),
        started: now(),
        finished: now(),
        zone_minutes: 0,
        scope_all: false,
        tags: Vec::new(),
        files: 0,
        directories: 0,
        bytes_logical: 0,
        bytes_allocated: 0,
        bytes_read: 0,
        excludes: Vec::new(),
        exclude_caches: false,
        cross_mounts: false,
        driver: String::new(),
        podman_version: String::new(),
        podkeep_version: String::new(),
    }
}

pub fn prepared() -> (Arc<MemoryStore>, Repository) {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let repo = open(store.clone());
    (store, repo)
}

pub fn reader(repo: &Repository) -> Reader {
    let index = Arc::new(Index::load(repo, &Collect::default()).unwrap());
    Reader::new(repo, index).unwrap()
}

pub fn rebuilt(reader: &Reader, recipe: &Recipe) -> RepoResult<Vec<u8>> {
    let mut tar = Vec::new();
    reader.rebuild(recipe, &mut |bytes| -> RepoResult<()> {
        tar.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(tar)
}
