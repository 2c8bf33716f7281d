//! `diff`: how two snapshots differ, or a snapshot and what is on the host now.
//!
//! Trees with equal ids are equal, so that only what differs is read. The host's side is scanned
//! as a backup would do it, into tree nodes; those that the repository knows are read from there,
//! and only new ones are kept in memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::sync::Arc;

use podkeep_format::id::{ChunkId, ChunkKind, TreeId};
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::recipe::KnownLayer;
use podkeep_format::tree::{Entry, Node, TreeNode};

use super::pump::{Sink, pump};
use super::stored_image::each_layer;
use super::walk::{self, Place};
use super::{
    Change, DiffRow, FieldChange, OperationError, OperationResult, SnapSpec, definition, reading,
    select,
};
use crate::fs::{FoundChunk, FsErrorKind};
use crate::host::{HostError, ScanRequest, Source, select as host_select};
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::repo::reader::{DirectoryEntries, Reader, TreeNodes, root_entry};
use crate::repo::{RepoError, RepoResult, Repository, StoredSnapshot};

/// Bytes of new tree nodes of the host's side that are kept: some million changed entries.
const FRESH_BYTES_MAX: usize = 256 << 20;

/// The newer side.
pub enum After<'a> {
    Snapshot(&'a SnapSpec),
    /// What is on the host now, of the items that the older side holds.
    Live(&'a dyn Source),
}

/// Calls `visit` for each difference, item by item, parents before children. `Break` ends it.
///
/// Where holes are, and whether a file was stable while it was read, are no differences.
pub fn diff(
    repo: &Repository,
    before: &SnapSpec,
    after: &After<'_>,
    visit: &mut dyn FnMut(DiffRow) -> ControlFlow<()>,
    monitor: &dyn Monitor,
) -> OperationResult<()> {
    let _lease = reading::lease(repo, monitor)?;
    let (older, _) = select::resolve(repo, before, &[], monitor)?;
    match after {
        After::Snapshot(spec) => {
            let (newer, _) = select::resolve(repo, spec, &[], monitor)?;
            let reader = reading::reader(repo, monitor)?;
            let mut pairs: BTreeMap<&Item, [Option<&StoredSnapshot>; 2]> = BTreeMap::new();
            for (side, run) in [&older, &newer].into_iter().enumerate() {
                for item in &run.items {
                    pairs.entry(&item.header.item).or_default()[side] = Some(item);
                }
            }
            let nodes = Nodes::stored(&reader);
            for (item, pair) in pairs {
                let mut definitions = [None, None];
                for (side, stored) in pair.iter().enumerate() {
                    if let Some(stored) = stored {
                        definitions[side] = definition::stored(&reader, stored)?;
                    }
                }
                if tell_definitions(item, &definitions, visit)?.is_break() {
                    break;
                }
                let [before, after] = pair.map(|stored| stored.and_then(root));
                let sides = Sides {
                    item,
                    snapshots: [older.id.to_hex(), newer.id.to_hex()],
                    nodes: [&nodes, &nodes],
                };
                if sides.compare([before, after], visit, monitor)?.is_break() {
                    break;
                }
            }
        }
        After::Live(source) => {
            let reader = reading::reader(repo, monitor)?;
            let inventory = source.inventory()?;
            for finding in &inventory.findings {
                monitor.finding(finding.clone());
            }
            let there = host_select::nameable(&inventory).into_iter();
            let there: HashSet<Item> = there.map(|named| named.item).collect();
            for stored in &older.items {
                let item = &stored.header.item;
                let gone = item.kind != ItemKind::Path && !there.contains(item);
                let live = if gone {
                    Some((Nodes::stored(&reader), Live::default()))
                } else {
                    scan(repo, &reader, *source, stored, monitor)?
                };
                let Some((live, found)) = live else {
                    continue;
                };
                let before = definition::stored(&reader, stored)?;
                let definitions = [before, found.definition];
                if tell_definitions(item, &definitions, visit)?.is_break() {
                    break;
                }
                let live_root = found.root;
                let stored_nodes = Nodes::stored(&reader);
                let sides = Sides {
                    item,
                    snapshots: [older.id.to_hex(), "live".into()],
                    nodes: [&stored_nodes, &live],
                };
                let roots = [root(stored), live_root];
                if sides.compare(roots, visit, monitor)?.is_break() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Tells how the two definitions of an item differ. An item that only one side has shows by its
/// files, or where it has none, by its definition.
fn tell_definitions(
    item: &Item,
    definitions: &[Option<Vec<u8>>; 2],
    visit: &mut dyn FnMut(DiffRow) -> ControlFlow<()>,
) -> OperationResult<ControlFlow<()>> {
    if !definition::is_defined(item.kind) {
        return Ok(ControlFlow::Continue(()));
    }
    let whole = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => definition::shown(item.kind, bytes).map(Some),
        None => Ok(None),
    };
    let changes = match definitions {
        [None, None] => Vec::new(),
        [Some(before), Some(after)] => definition::differences(item.kind, before, after)?,
        [before, after] => vec![FieldChange {
            field: String::new(),
            before: whole(before)?,
            after: whole(after)?,
            reason: None,
        }],
    };
    for change in changes {
        let row = DiffRow {
            item: item.clone(),
            path: Vec::new(),
            change: Change::Definition,
            before: None,
            after: None,
            field: Some(change),
        };
        if visit(row).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// What an item of the host is now.
#[derive(Default)]
struct Live {
    root: Option<TreeId>,
    definition: Option<Vec<u8>>,
}

fn root(snapshot: &StoredSnapshot) -> Option<TreeId> {
    snapshot.body.as_ref().and_then(|body| body.root)
}

/// Reads an item of the host. `None`: it cannot be read, which is a finding.
fn scan<'r>(
    repo: &Repository,
    reader: &'r Reader,
    source: &dyn Source,
    stored: &StoredSnapshot,
    monitor: &dyn Monitor,
) -> OperationResult<Option<(Nodes<'r>, Live)>> {
    let text = stored.header.item.to_string();
    monitor.progress(Progress::ItemStart { item: &text });
    // As the snapshot was taken: what it leaves out by choice is no difference.
    let body = stored.body.as_ref();
    let request = ScanRequest {
        item: stored.header.item.clone(),
        chunking: Arc::clone(repo.chunking()),
        threads: std::thread::available_parallelism().map_or(2, usize::from),
        exclude: body.map_or_else(Vec::new, |body| body.excludes.clone()),
        exclude_caches: body.is_some_and(|body| body.exclude_caches),
        cross_mounts: body.is_some_and(|body| body.cross_mounts),
        known_layers: stored_layers(reader, root(stored)),
        states: None,
        trusted: None,
        known: None,
    };
    let mut nodes = Nodes::stored(reader);
    match read_tree(&mut nodes, source, &request, monitor) {
        Ok(live) => Ok(Some((nodes, live))),
        Err(OperationError::Host(HostError::Fs(error))) if error.kind == FsErrorKind::NotFound => {
            Ok(Some((Nodes::stored(reader), Live::default())))
        }
        Err(OperationError::Host(error)) => {
            monitor.finding(Finding {
                object: text,
                kind: FindingKind::Unreadable,
                snapshots: Vec::new(),
                paths: Vec::new(),
                message: format!("{error}; it is not compared"),
            });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The layers that a snapshot has of an image: equal DiffIDs are equal layers, so that they are
/// not read to be compared. What cannot be read of the tree shows when it is walked.
fn stored_layers(reader: &Reader, root: Option<TreeId>) -> Vec<KnownLayer> {
    let layers = root.into_iter().flat_map(|root| each_layer(reader, root));
    layers.filter_map(Result::ok).collect()
}

/// Scans an item and keeps the tree nodes that are not stored.
fn read_tree(
    nodes: &mut Nodes<'_>,
    source: &dyn Source,
    request: &ScanRequest,
    monitor: &dyn Monitor,
) -> OperationResult<Live> {
    let opened = source.open(request)?;
    for finding in opened.findings {
        monitor.finding(finding);
    }
    let mut live = Live {
        root: None,
        definition: opened.definition,
    };
    if let Some(tree) = opened.tree {
        let (outcome, _) = pump(tree, nodes, monitor)?;
        live.root = Some(outcome.root);
    }
    Ok(live)
}

/// Tree nodes of one side: stored ones, and fresh ones of a scan.
struct Nodes<'r> {
    reader: &'r Reader,
    fresh: HashMap<ChunkId, Vec<u8>>,
    fresh_bytes: usize,
}

impl<'r> Nodes<'r> {
    fn stored(reader: &'r Reader) -> Self {
        Self {
            reader,
            fresh: HashMap::new(),
            fresh_bytes: 0,
        }
    }
}

/// New tree nodes are kept.
impl Sink for Nodes<'_> {
    fn wants(&mut self, chunk: &FoundChunk) -> bool {
        chunk.kind == ChunkKind::Tree
            && !self.fresh.contains_key(&chunk.id)
            && self.reader.index().places(&chunk.id).is_empty()
    }

    fn take(&mut self, chunk: &FoundChunk, bytes: &[u8]) -> OperationResult<()> {
        self.fresh_bytes += bytes.len();
        if self.fresh_bytes > FRESH_BYTES_MAX {
            return Err(OperationError::Refused {
                message: "more has changed than can be compared in memory".into(),
                hint: "back up, and compare the two snapshots".into(),
            });
        }
        self.fresh.insert(chunk.id, bytes.to_vec());
        Ok(())
    }
}

impl TreeNodes for Nodes<'_> {
    fn tree_node(&self, id: TreeId) -> RepoResult<TreeNode> {
        match self.fresh.get(&id.into()) {
            Some(bytes) => {
                TreeNode::decode(bytes).map_err(|e| RepoError::damaged(format!("tree {id}"), e))
            }
            None => self.reader.tree_node(id),
        }
    }
}

type Entries<'n> = Peekable<DirectoryEntries<'n, Nodes<'n>>>;

/// One item on both sides.
struct Sides<'a> {
    item: &'a Item,
    /// Their names in messages.
    snapshots: [String; 2],
    nodes: [&'a Nodes<'a>; 2],
}

/// A directory that is being compared: its entries on both sides (none where it is missing), and
/// the length of its path.
struct Level<'n> {
    entries: [Option<Entries<'n>>; 2],
    path_len: usize,
}

impl<'a> Sides<'a> {
    fn compare(
        &self,
        roots: [Option<TreeId>; 2],
        visit: &mut dyn FnMut(DiffRow) -> ControlFlow<()>,
        monitor: &dyn Monitor,
    ) -> OperationResult<ControlFlow<()>> {
        if roots[0] == roots[1] {
            return Ok(ControlFlow::Continue(()));
        }
        let mut pair = [None, None];
        for (side, root) in roots.into_iter().enumerate() {
            if let Some(root) = root {
                match root_entry(self.nodes[side], root) {
                    Ok(entry) => pair[side] = Some(entry),
                    Err(error) => {
                        self.lost(side, b"", error, monitor)?;
                        return Ok(ControlFlow::Continue(()));
                    }
                }
            }
        }
        let mut path = Vec::new();
        let mut stack = Vec::new();
        if self.tell(&path, pair, &mut stack, visit).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        while let Some(level) = stack.last_mut() {
            if monitor.interrupted() {
                return Err(OperationError::Interrupted);
            }
            path.truncate(level.path_len);
            let Some(pair) = self.next_pair(level, &path, monitor)? else {
                stack.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            let [before, after] = &pair;
            if let Some(entry) = before.as_ref().or(after.as_ref()) {
                path.extend_from_slice(&entry.name);
            }
            if self.tell(&path, pair, &mut stack, visit).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The next name of a directory, with its entry on each side that has it.
    fn next_pair(
        &self,
        level: &mut Level<'_>,
        path: &[u8],
        monitor: &dyn Monitor,
    ) -> OperationResult<Option<[Option<Entry>; 2]>> {
        for (side, entries) in level.entries.iter_mut().enumerate() {
            let Some(entries) = entries else {
                continue;
            };
            while let Some(Err(error)) = entries.next_if(Result::is_err) {
                self.lost(side, path, error, monitor)?;
            }
        }
        let [before, after] = &mut level.entries;
        let name = |entries: &mut Option<Entries<'_>>| -> Option<Vec<u8>> {
            match entries.as_mut()?.peek()? {
                Ok(entry) => Some(entry.name.clone()),
                Err(_) => None,
            }
        };
        let take =
            |entries: &mut Option<Entries<'_>>| -> Option<Entry> { entries.as_mut()?.next()?.ok() };
        Ok(match (name(before), name(after)) {
            (None, None) => None,
            (Some(_), None) => Some([take(before), None]),
            (None, Some(_)) => Some([None, take(after)]),
            (Some(a), Some(b)) => Some(match a.cmp(&b) {
                Ordering::Less => [take(before), None],
                Ordering::Greater => [None, take(after)],
                Ordering::Equal => [take(before), take(after)],
            }),
        })
    }

    /// Tells how a pair differs, and notes the directories that must be looked into.
    fn tell(
        &self,
        path: &[u8],
        pair: [Option<Entry>; 2],
        stack: &mut Vec<Level<'a>>,
        visit: &mut dyn FnMut(DiffRow) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let trees = [0, 1].map(|side: usize| match &pair[side] {
            Some(Entry {
                node: Node::Directory { tree },
                ..
            }) => Some(*tree),
            _ => None,
        });
        let change = match &pair {
            [None, None] => None,
            [None, Some(_)] => Some(Change::Added),
            [Some(_), None] => Some(Change::Removed),
            [Some(before), Some(after)] => change(before, after),
        };
        if let Some(change) = change {
            let [before, after] = pair;
            visit(DiffRow {
                item: self.item.clone(),
                path: path.to_vec(),
                change,
                before,
                after,
                field: None,
            })?;
        }
        if trees[0] != trees[1] {
            let nodes = self.nodes;
            stack.push(Level {
                entries: [0, 1].map(|side: usize| {
                    trees[side].map(|tree| DirectoryEntries::of(nodes[side], tree).peekable())
                }),
                path_len: path.len(),
            });
        }
        ControlFlow::Continue(())
    }

    fn lost(
        &self,
        side: usize,
        path: &[u8],
        error: RepoError,
        monitor: &dyn Monitor,
    ) -> OperationResult<()> {
        let place = Place {
            snapshot: self.snapshots[side].clone(),
            item: self.item,
        };
        walk::lost(&place, path, error, monitor)
    }
}

/// How two entries of one name differ, what is below a directory left aside.
fn change(before: &Entry, after: &Entry) -> Option<Change> {
    let content = match (&before.node, &after.node) {
        (
            Node::File { size, content, .. },
            Node::File {
                size: size_after,
                content: content_after,
                ..
            },
        ) => size == size_after && content == content_after,
        (Node::Directory { .. }, Node::Directory { .. }) => true,
        (before, after) => before == after,
    };
    if !content {
        return Some(Change::Modified);
    }
    let attributes = |entry: &Entry| {
        (
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime,
            entry.inode_flags,
            entry.project,
            entry.link,
        )
    };
    let equal = attributes(before) == attributes(after) && before.xattrs == after.xattrs;
    (!equal).then_some(Change::Attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkeep_format::tree::{Content, Time};

    fn file(content: &[u8], holes: Vec<(u64, u64)>) -> Entry {
        Entry {
            name: b"f".to_vec(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            inode_flags: 0,
            project: 0,
            xattrs: Vec::new(),
            link: None,
            node: Node::File {
                size: content.len() as u64,
                content: Content::Inline(content.to_vec()),
                holes,
                unstable: false,
            },
        }
    }

    #[test]
    fn contents_count_before_attributes_and_holes_do_not_count() {
        let a = file(b"a", Vec::new());
        assert_eq!(change(&a, &a), None);
        assert_eq!(change(&a, &file(b"a", vec![(0, 1)])), None);
        assert_eq!(change(&a, &file(b"b", Vec::new())), Some(Change::Modified));
        let mut later = a.clone();
        later.mtime.nanos = 1;
        assert_eq!(change(&a, &later), Some(Change::Attributes));
        let mut fifo = later.clone();
        fifo.node = Node::Fifo;
        assert_eq!(change(&a, &fifo), Some(Change::Modified));
    }
}
