//! Everything that a snapshot needs: every tree and list node is read, every content chunk must
//! have a place that is there. What is damaged is named by snapshot and path.

use std::collections::{BTreeSet, HashSet};

use podkeep_format::id::{ChunkId, ChunkKind, PackId, TreeId};
use podkeep_format::tree::{Content, Entry, Node, Piece, XattrValue};

use super::Check;
use super::packs::BadPlaces;
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::operations::{OperationError, OperationResult};
use crate::repo::reader::{DirectoryEntries, Reader, is_fatal};
use crate::repo::{RepoError, RepoResult, orphans};

/// Paths that one finding names.
const PATHS_MAX: usize = 100;

impl Check<'_> {
    /// Returns the missing packs whose absence costs a snapshot that counts something.
    pub(super) fn reach(
        &mut self,
        reader: &Reader,
        bad: &BadPlaces,
    ) -> OperationResult<BTreeSet<PackId>> {
        let mut reach = Reach {
            reader,
            bad,
            clean: HashSet::new(),
            loose: HashSet::new(),
            missed: BTreeSet::new(),
            layers: HashSet::new(),
            rebuild_percent: self.read_data_percent.unwrap_or(0),
            monitor: self.monitor,
        };
        let mut needed = BTreeSet::new();
        for snapshot in self.repo.snapshots(self.monitor)? {
            if self.monitor.interrupted() {
                return Err(OperationError::Interrupted);
            }
            let Some(body) = &snapshot.body else { continue };
            let mut damage = Damage::default();
            if let Some((id, _)) = body.definition
                && let Err(cause) = reach.readable(ChunkKind::Record, id)?
            {
                damage.add(b"", format!("its definition is lost: {cause}"));
            }
            if let Some(root) = body.root {
                reach.root(root, &mut damage)?;
            }
            let missed = reach.take_missed();
            if snapshot.confirmed {
                needed.extend(missed);
            }
            self.monitor.progress(Progress::Advance {
                files: body.files,
                bytes: body.bytes_logical,
            });
            if !snapshot.confirmed {
                // Prune may have taken what it needs, and rightly: no damage, but to be known.
                self.monitor.finding(Finding {
                    object: snapshot.header.item.to_string(),
                    kind: FindingKind::Note,
                    snapshots: vec![snapshot.header.run.to_hex()],
                    paths: damage.paths,
                    message: match damage.count {
                        0 => {
                            "not confirmed: its lease was fenced; all that it needs is there".into()
                        }
                        count => format!(
                            "not confirmed: its lease was fenced, and {count} entries of it are \
                             gone: {}",
                            damage.cause
                        ),
                    },
                });
            } else if damage.count > 0 {
                self.report.damaged += 1;
                self.monitor.finding(Finding {
                    object: snapshot.header.item.to_string(),
                    kind: FindingKind::Damaged,
                    snapshots: vec![snapshot.header.run.to_hex()],
                    paths: damage.paths,
                    message: format!("{} entries are damaged: {}", damage.count, damage.cause),
                });
            }
        }
        let loose: Vec<PackId> = reach.loose.into_iter().collect();
        self.index_anew(reader, loose)?;
        Ok(needed)
    }

    /// Packs that snapshots need and no segment names get a new segment.
    fn index_anew(&mut self, reader: &Reader, mut packs: Vec<PackId>) -> OperationResult<()> {
        packs.sort_unstable();
        for pack in packs {
            match orphans::index_verified(self.repo, reader, pack) {
                Ok(()) => self.healed(
                    podkeep_format::names::pack(pack),
                    "snapshots need it and no readable segment named it; it was indexed anew"
                        .into(),
                ),
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => self.damage(
                    podkeep_format::names::pack(pack),
                    format!("snapshots need it, no segment names it: {error}"),
                ),
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Damage {
    count: u64,
    paths: Vec<Vec<u8>>,
    cause: String,
}

impl Damage {
    fn add(&mut self, path: &[u8], cause: String) {
        if self.count == 0 {
            self.cause = cause;
        }
        self.count += 1;
        if self.paths.len() < PATHS_MAX {
            self.paths.push(path.to_vec());
        }
    }
}

struct Reach<'r> {
    reader: &'r Reader,
    bad: &'r BadPlaces,
    /// Directories below which nothing is damaged.
    clean: HashSet<TreeId>,
    /// Packs that are needed and known only by their own tables of contents.
    loose: HashSet<PackId>,
    /// Packs that are not there, and that hold content which is in no other pack.
    missed: BTreeSet<PackId>,
    /// Recipes of layers of which nothing is damaged, and their sizes.
    layers: HashSet<(ChunkId, u64)>,
    /// Of so many layers the sha256 is compared with the DiffID.
    rebuild_percent: u8,
    monitor: &'r dyn Monitor,
}

/// A directory on the way down.
struct Level<'r> {
    tree: TreeId,
    entries: DirectoryEntries<'r>,
    path_len: usize,
    damage_before: u64,
}

impl<'r> Reach<'r> {
    fn root(&mut self, root: TreeId, damage: &mut Damage) -> OperationResult<()> {
        let entry = match self.reader.root(root) {
            Ok(entry) => entry,
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(error) => {
                damage.add(b"", error.to_string());
                return Ok(());
            }
        };
        self.mark_loose(ChunkId::from(root));
        let mut path = Vec::new();
        self.entry(&entry, &path, damage)?;
        let mut stack = Vec::new();
        self.descend(&entry, &path, damage, &mut stack);
        while let Some(level) = stack.last_mut() {
            path.truncate(level.path_len);
            match level.entries.next() {
                None => {
                    if damage.count == level.damage_before {
                        self.clean.insert(level.tree);
                    }
                    stack.pop();
                }
                Some(Err(error)) if is_fatal(&error) => return Err(error.into()),
                Some(Err(error)) => damage.add(&path, error.to_string()),
                Some(Ok(entry)) => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&entry.name);
                    self.entry(&entry, &path, damage)?;
                    self.descend(&entry, &path, damage, &mut stack);
                }
            }
        }
        Ok(())
    }

    fn descend(&mut self, entry: &Entry, path: &[u8], damage: &Damage, stack: &mut Vec<Level<'r>>) {
        if let Node::Directory { tree } = entry.node
            && !self.clean.contains(&tree)
        {
            self.mark_loose(ChunkId::from(tree));
            stack.push(Level {
                tree,
                entries: self.reader.directory(tree),
                path_len: path.len(),
                damage_before: damage.count,
            });
        }
    }

    /// An entry's own chunks.
    fn entry(&mut self, entry: &Entry, path: &[u8], damage: &mut Damage) -> OperationResult<()> {
        for xattr in &entry.xattrs {
            if let XattrValue::Chunk { id, .. } = xattr.value
                && let Err(cause) = self.there(&id)
            {
                damage.add(path, cause);
            }
        }
        let Node::File { size, content, .. } = &entry.node else {
            return Ok(());
        };
        if let Content::Recipe { id } = content {
            if let Some(cause) = self.layer(*id, *size)? {
                damage.add(path, cause);
            }
            return Ok(());
        }
        if let Content::List { id, .. } = content {
            self.mark_loose(ChunkId::from(*id));
        }
        for piece in self.reader.pieces(content) {
            let lost = match piece {
                Ok(Piece::Zero { .. }) => continue,
                Ok(Piece::Chunk { id, .. }) => self.there(&id).err(),
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(cause) = lost {
                damage.add(path, cause);
                break;
            }
        }
        Ok(())
    }

    /// A recipe and all that it needs. Returns why the layer cannot be rebuilt.
    fn layer(&mut self, id: ChunkId, size: u64) -> OperationResult<Option<String>> {
        if self.layers.contains(&(id, size)) {
            return Ok(None);
        }
        self.mark_loose(id);
        let reader = self.reader;
        let mut lost = None;
        let walked = reader.recipe_of_file(id, size).and_then(|recipe| {
            reader.recipe_chunks(&recipe, &mut |kind, id| -> RepoResult<()> {
                if kind == ChunkKind::List {
                    self.mark_loose(id);
                } else if let Err(cause) = self.there(&id) {
                    lost.get_or_insert(cause);
                }
                Ok(())
            })?;
            // A share of the layers, as uniform as that of the packs.
            let share = u32::from(id.0[31]) * 100 < u32::from(self.rebuild_percent) * 256;
            if lost.is_some() || !share {
                return Ok(());
            }
            reader.rebuild(&recipe, &mut |_| match self.monitor.interrupted() {
                true => Err(RepoError::Interrupted),
                false => Ok(()),
            })
        });
        match walked {
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(error) => lost = Some(error.to_string()),
            Ok(()) => {}
        }
        if lost.is_none() {
            self.layers.insert((id, size));
        }
        Ok(lost)
    }

    fn readable(&mut self, kind: ChunkKind, id: ChunkId) -> OperationResult<Result<(), String>> {
        self.mark_loose(id);
        match self.reader.chunk(kind, id) {
            Ok(_) => Ok(Ok(())),
            Err(error) if is_fatal(&error) => Err(error.into()),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Whether a content chunk has a place that is there and was not found bad.
    fn there(&mut self, id: &ChunkId) -> Result<(), String> {
        let index = self.reader.index();
        let places = index.places(id);
        let Some(first) = places.first() else {
            return Err(format!("chunk {id} is in no pack"));
        };
        for place in &places {
            let pack = place.block.pack;
            if index.is_there(&pack) && !self.bad.contains(place) {
                if index.orphans.contains(&pack) {
                    self.loose.insert(pack);
                }
                return Ok(());
            }
        }
        let packs = places.iter().map(|place| place.block.pack);
        self.missed
            .extend(packs.filter(|pack| !index.is_there(pack)));
        Err(format!(
            "{} is missing or damaged",
            podkeep_format::names::pack(first.block.pack)
        ))
    }

    /// Packs whose absence cost something since the last call.
    fn take_missed(&mut self) -> BTreeSet<PackId> {
        let mut missed = std::mem::take(&mut self.missed);
        missed.extend(self.reader.take_missed());
        missed
    }

    fn mark_loose(&mut self, id: ChunkId) {
        let index = self.reader.index();
        if !index.orphans.is_empty()
            && let Some(place) = index.places(&id).first()
            && index.orphans.contains(&place.block.pack)
        {
            self.loose.insert(place.block.pack);
        }
    }
}
