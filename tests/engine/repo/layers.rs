//! Layers of images: recipes, what is rebuilt from them, and records of what is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use podkeep_engine::chunk::{Cut, Stream as Cutter};
use podkeep_engine::monitor::{Collect, Finding, FindingKind};
use podkeep_engine::repo::index::Index;
use podkeep_engine::repo::layers::{KnownLayer, LayerRecords};
use podkeep_engine::repo::lease::HeldLease;
use podkeep_engine::repo::reader::Reader;
use podkeep_engine::repo::recipes::{PartSource, SliceOf};
use podkeep_engine::repo::writer::Writer;
use podkeep_engine::repo::{Credential, RepoError, RepoResult, Repository, orphans};
use podkeep_engine::store::ObjectStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkId, ChunkKind, DiffId, ListId};
use podkeep_format::lease::Purpose;
use podkeep_format::recipe::{LITERAL_PAYLOAD_BYTES_MAX, Recipe, RunsEncoder, Stream};
use podkeep_format::tree::{Content, ContentBuilder, INLINE_BYTES_MAX, ListNode, Piece};

use super::{full, init, noise, open, open_with};

/// A part of a tar: headers and padding, or the content of a file.
enum Part {
    Literal(Vec<u8>),
    Payload(Vec<u8>),
}

/// Something like a tar: the engine takes any bytes.
struct Tar(Vec<Part>);

impl Tar {
    fn sample(seed: u64) -> Self {
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
    fn of_many_files() -> Self {
        let mut parts = Vec::new();
        for n in 0..9000u64 {
            parts.push(Part::Literal(noise(n, 512)));
            parts.push(Part::Payload(noise(n + 10_000, 257 + n as usize % 400)));
        }
        Self(parts)
    }

    fn bytes(&self) -> Vec<u8> {
        let parts = self.0.iter().map(|part| match part {
            Part::Literal(bytes) | Part::Payload(bytes) => bytes.as_slice(),
        });
        parts.collect::<Vec<_>>().concat()
    }

    fn diff_id(&self) -> DiffId {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.bytes());
        DiffId(hash.as_ref().try_into().unwrap())
    }
}

/// A writer with its lease, and the layer records that it found.
struct Session<'r> {
    repo: &'r Repository,
    lease: HeldLease,
    writer: Writer,
    records: LayerRecords,
    monitor: Collect,
}

/// The chunks of one layer on their way to the writer.
struct Storing<'s, 'r> {
    session: &'s mut Session<'r>,
    chunks: BTreeSet<ChunkId>,
}

impl<'r> Session<'r> {
    fn open(repo: &'r Repository) -> RepoResult<Self> {
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

    fn find(&mut self, tar: &Tar) -> Option<KnownLayer> {
        let found = self
            .records
            .find(self.repo, &mut self.writer, tar.diff_id(), &self.monitor);
        found.unwrap()
    }

    fn findings(&self) -> Vec<Finding> {
        self.monitor.findings.lock().unwrap().clone()
    }

    /// Gives all chunks of a layer to the writer. Its recipe names `diff_id`.
    fn store(&mut self, tar: &Tar, diff_id: DiffId) -> RepoResult<(KnownLayer, BTreeSet<ChunkId>)> {
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
    fn keep(&mut self, tar: &Tar) -> RepoResult<KnownLayer> {
        let (layer, chunks) = self.store(tar, tar.diff_id())?;
        self.records.add(self.repo, layer, chunks);
        self.commit()?;
        Ok(layer)
    }

    fn commit(&mut self) -> RepoResult<()> {
        self.writer.flush()?;
        self.records.put(self.repo, self.lease.id())
    }
}

impl Storing<'_, '_> {
    fn add(&mut self, kind: ChunkKind, bytes: &[u8]) -> RepoResult<ChunkId> {
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
    fn stream(&mut self, contents: &[Vec<u8>]) -> RepoResult<Stream> {
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

fn prepared() -> (Arc<MemoryStore>, Repository) {
    let store = Arc::new(MemoryStore::new());
    init(&*store);
    let repo = open(store.clone());
    (store, repo)
}

fn reader(repo: &Repository) -> Reader {
    let index = Arc::new(Index::load(repo, &Collect::default()).unwrap());
    Reader::new(repo, index).unwrap()
}

fn rebuilt(reader: &Reader, recipe: &Recipe) -> RepoResult<Vec<u8>> {
    let mut tar = Vec::new();
    reader.rebuild(recipe, &mut |bytes| -> RepoResult<()> {
        tar.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(tar)
}

#[test]
fn a_tar_is_rebuilt_from_its_recipe() {
    let (_, repo) = prepared();
    let mut session = Session::open(&repo).unwrap();
    let empty = Tar(Vec::new());
    let tiny = Tar(vec![Part::Literal(b"one".to_vec())]);
    let payload_first = Tar(vec![
        Part::Payload(noise(1, 1000)),
        Part::Literal(vec![0; 9]),
    ]);
    for tar in [
        Tar::sample(1),
        Tar::of_many_files(),
        empty,
        tiny,
        payload_first,
    ] {
        let layer = session.keep(&tar).unwrap();
        let reader = reader(&repo);
        let recipe = reader.recipe_of_file(layer.recipe, layer.size).unwrap();
        let bytes = tar.bytes();
        assert!(rebuilt(&reader, &recipe).unwrap() == bytes);
        // The parts, taken by themselves, lie without a gap and say where their bytes are.
        let mut end = 0;
        for part in reader.recipe_parts(&recipe) {
            let part = part.unwrap();
            assert_eq!(part.offset, end);
            assert!(part.len > 0);
            end += part.len;
            let expected = &bytes[part.offset as usize..end as usize];
            match part.source {
                PartSource::Zeros => assert!(expected.iter().all(|byte| *byte == 0)),
                PartSource::Inline(found) => assert!(found == expected),
                PartSource::Chunk(SliceOf {
                    id,
                    skip,
                    chunk_len,
                }) => {
                    let chunk = reader.chunk(ChunkKind::Data, id).unwrap();
                    assert_eq!(chunk.len, chunk_len as usize);
                    let start = skip as usize;
                    assert!(chunk.as_ref()[start..start + expected.len()] == *expected);
                }
            }
        }
        assert_eq!(end, layer.size);
        assert!(reader.recipe_of_file(layer.recipe, layer.size + 1).is_err());
    }
}

type Lie<'l> = &'l dyn Fn(&mut Recipe);

/// Whoever holds a write key can store any recipe: what is wrong with one is an error that says
/// so, whatever is asked of it.
#[test]
fn a_recipe_that_lies_is_refused() {
    let (_, repo) = prepared();
    let tar = Tar::of_many_files();
    let mut session = Session::open(&repo).unwrap();
    let layer = session.keep(&tar).unwrap();
    let good = reader(&repo).recipe(layer.recipe).unwrap();
    assert!(matches!(good.payloads.content, Content::List { .. }));
    assert!(matches!(good.runs.content, Content::Pieces(_)));
    let mut storing = Storing {
        session: &mut session,
        chunks: BTreeSet::new(),
    };
    let short_list = ListNode::Pieces(vec![Piece::Zero { len: 5 }]).encode();
    let short_list = ListId(storing.add(ChunkKind::List, &short_list).unwrap().0);
    let other_runs = storing
        .stream(&[noise(5, good.runs.size as usize)])
        .unwrap();
    session.commit().unwrap();
    let reader = reader(&repo);
    let lies: [(&str, Lie<'_>, &str); 8] = [
        (
            "another DiffID",
            &|r| r.diff_id = DiffId([7; 32]),
            "is rebuilt as sha256",
        ),
        (
            "a stream that ends early",
            &|r| {
                r.payloads.content = Content::List {
                    id: short_list,
                    level: 0,
                };
            },
            "ends too early",
        ),
        (
            "a node in the wrong place",
            &|r| {
                r.payloads.content = Content::List {
                    id: short_list,
                    level: 3,
                };
            },
            "wrong place",
        ),
        (
            "a stream that goes on",
            &|r| {
                r.payloads.size -= 10;
                r.size -= 10;
            },
            "over its bound",
        ),
        (
            "bytes that are no runs",
            &|r| r.runs = other_runs.clone(),
            "layer runs",
        ),
        (
            "runs of nothing but zeros",
            &|r| {
                r.runs.content = Content::Pieces(vec![Piece::Zero { len: r.runs.size }]);
            },
            "layer runs",
        ),
        (
            "runs that are cut",
            &|r| r.runs.size -= 2,
            "longer than it says",
        ),
        (
            "a chunk that is not there",
            &|r| {
                r.literals.content = Content::Pieces(vec![Piece::Chunk {
                    id: ChunkId([1; 32]),
                    len: 16 << 20,
                }]);
            },
            "missing",
        ),
    ];
    for (what, lie, cause) in lies {
        let mut recipe = good.clone();
        lie(&mut recipe);
        let refused = rebuilt(&reader, &recipe).expect_err(what).to_string();
        assert!(refused.contains(cause), "{what}: {refused}");
    }
    // A chunk that is shorter than its place in the stream.
    let mut recipe = good;
    if let Content::Pieces(pieces) = &mut recipe.runs.content
        && let Some(Piece::Chunk { len, .. }) = pieces.last_mut()
    {
        *len += 1;
        recipe.runs.size += 1;
    }
    let refused = rebuilt(&reader, &recipe).unwrap_err().to_string();
    assert!(refused.contains("another length"), "{refused}");
}

#[test]
fn a_layer_that_was_stored_is_known_afterwards() {
    let (store, repo) = prepared();
    let tar = Tar::sample(1);
    let mut session = Session::open(&repo).unwrap();
    assert_eq!(session.find(&tar), None);
    let layer = session.keep(&tar).unwrap();
    assert_eq!(session.find(&tar), Some(layer), "in the same run");
    assert_eq!(session.find(&Tar::sample(2)), None);
    drop(session);
    // Another host has no cache of it.
    let other = open_with(store.clone(), &full(), None, 2).unwrap();
    let mut session = Session::open(&other).unwrap();
    assert_eq!(session.find(&tar), Some(layer));
    assert_eq!(session.find(&Tar::sample(2)), None);
    let (again, _) = session.store(&tar, tar.diff_id()).unwrap();
    assert_eq!(again, layer, "the same recipe");
    assert_eq!(session.writer.counts().chunks_new, 0);
    assert!(session.findings().is_empty());
    assert_eq!(store.list("layers").unwrap().len(), 1);
}

#[test]
fn a_layer_of_which_a_chunk_is_gone_is_not_known() {
    let (store, repo) = prepared();
    let (tar, other) = (Tar::sample(1), Tar::sample(900));
    let mut session = Session::open(&repo).unwrap();
    let layer = session.keep(&tar).unwrap();
    let (_, chunks) = session.store(&tar, tar.diff_id()).unwrap();
    drop(session);
    let mut session = Session::open(&repo).unwrap();
    let kept = session.keep(&other).unwrap();
    drop(session);
    let reader = reader(&repo);
    let mut packs = BTreeSet::new();
    for id in &chunks {
        packs.insert(reader.index().places(id)[0].block.pack);
    }
    assert!(packs.len() > 1, "data and recipe lie apart");
    for pack in packs {
        let store = Arc::new(super::copy(&*store));
        let name = podkeep_engine::repo::name(podkeep_format::names::pack(pack)).unwrap();
        assert!(store.delete(&name).unwrap());
        let repo = open(store);
        let mut session = Session::open(&repo).unwrap();
        assert_eq!(session.find(&tar), None, "{pack}");
        assert_eq!(session.find(&other), Some(kept), "{pack}");
        // Stored anew, it is known again: the old record holds.
        session.store(&tar, tar.diff_id()).unwrap();
        session.writer.flush().unwrap();
        drop(session);
        let mut session = Session::open(&repo).unwrap();
        assert_eq!(session.find(&tar), Some(layer), "{pack}");
    }
}

#[test]
fn a_damaged_record_costs_a_note_and_the_layer_is_read() {
    let (store, repo) = prepared();
    let tar = Tar::sample(1);
    Session::open(&repo).unwrap().keep(&tar).unwrap();
    let listed = store.list("layers").unwrap();
    let [record] = &listed[..] else {
        panic!("{listed:?}")
    };
    let bytes = store.get(&record.name, u64::MAX).unwrap();
    let damages: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes[100] ^= 1,
        |bytes| bytes.truncate(40),
        Vec::clear,
    ];
    for damage in damages {
        assert!(store.damage(&record.name, damage));
        let mut session = Session::open(&repo).unwrap();
        assert_eq!(session.find(&tar), None);
        let findings = session.findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].kind, FindingKind::Note);
        assert_eq!(findings[0].object, record.name.as_str());
        assert!(store.damage(&record.name, |now| *now = bytes.clone()));
    }
    // Good bytes under the name of another layer are no record of it.
    let other = Tar::sample(2);
    let key = repo.vault().ids.layer_key(&other.diff_id()).to_hex();
    let name = format!("layers/{key}{}", &record.name.as_str()[7 + 64..]);
    let name = podkeep_engine::repo::name(name).unwrap();
    store.put_new(&name, &bytes).unwrap();
    let mut session = Session::open(&repo).unwrap();
    assert_eq!(session.find(&other), None);
    assert_eq!(session.findings().len(), 1);
    assert!(session.find(&tar).is_some());
}

fn write_key(store: &Arc<MemoryStore>, owner: &Repository, host: u8) -> Repository {
    let key = owner.export_write_key("web1").unwrap();
    open_with(store.clone(), &Credential::WriteKey(key.text), None, host).unwrap()
}

#[test]
fn nobody_takes_a_write_keys_word_for_a_layer() {
    let (store, owner) = prepared();
    let web1 = write_key(&store, &owner, 2);
    let web2 = write_key(&store, &owner, 3);
    let tar = Tar::sample(1);
    // The owner has all chunks, so that only the record is in question.
    let mut session = Session::open(&owner).unwrap();
    let (layer, chunks) = session.store(&tar, tar.diff_id()).unwrap();
    session.commit().unwrap();
    drop(session);
    let mut session = Session::open(&web1).unwrap();
    session.records.add(&web1, layer, chunks);
    session.commit().unwrap();
    drop(session);
    assert_eq!(store.list("layers").unwrap().len(), 1);
    for (repo, believes) in [(&web1, true), (&web2, false), (&owner, false)] {
        let mut session = Session::open(repo).unwrap();
        assert_eq!(session.find(&tar).is_some(), believes);
        assert!(session.findings().is_empty());
    }
    // The owner's own counts for everybody.
    let mut session = Session::open(&owner).unwrap();
    let kept = session.keep(&tar).unwrap();
    drop(session);
    for repo in [&web1, &web2, &owner] {
        let mut session = Session::open(repo).unwrap();
        assert_eq!(session.find(&tar), Some(kept));
    }
}

#[test]
fn a_write_key_cannot_read_a_recipe() {
    let (store, owner) = prepared();
    let web1 = write_key(&store, &owner, 2);
    let index = Arc::new(Index::load(&web1, &Collect::default()).unwrap());
    let refused = Reader::new(&web1, index).map(drop);
    assert!(matches!(refused, Err(RepoError::KeyInsufficient { .. })));
}
