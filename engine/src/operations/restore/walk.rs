//! Walks a stored tree depth first and turns it into steps for a target: all of it, or what is
//! otherwise than in a tree that the target has.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::sync::Arc;

use podkeep_format::id::{ChunkId, LinkGroup, TreeId};
use podkeep_format::tree::{Content, Entry, Node, XattrValue};

use super::applier::Applier;
use super::layer_tar::LayerTar;
use super::parts::{WaitingPart, file_parts, layer_parts, outside, wanted, with_bytes};
use crate::fs::{DirectoryNumber, FileNumber, PresentQuery, WriteBatch, WriteStep};
use crate::host::HostError;
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::operations::{OperationError, OperationResult};
use crate::repo::RepoResult;
use crate::repo::reader::{DirectoryEntries, Reader, is_fatal};
use crate::repo::window::{self, WINDOW_BYTES, WINDOW_PIECES};

/// Bytes of a file that is worth looking for under another name.
const MOVED_BYTES_MIN: u64 = 64 << 10;
/// Files of a directory that are gone, and may stand under a later name.
const MOVED_MAX: usize = 256;
/// Entries of one window.
const WINDOW_ENTRIES: usize = 4096;

struct WaitingFile {
    number: FileNumber,
    parent: DirectoryNumber,
    entry: Arc<Entry>,
    path: Vec<u8>,
    parts: Vec<WaitingPart>,
    /// Of its chunks, in order: whether the file that is changed has it at this place.
    kept: Vec<bool>,
    last: bool,
}

/// A directory that we are in.
struct Frame<'r> {
    number: DirectoryNumber,
    entries: Peekable<DirectoryEntries<'r>>,
    /// What the target has of it.
    old: Option<Peekable<DirectoryEntries<'r>>>,
    /// Files of it whose names are gone: what has their content under a later name is such a file.
    gone: Vec<Entry>,
    /// Bytes of the path up to this directory.
    path_len: usize,
}

pub struct Walk<'r> {
    reader: &'r Reader,
    applier: Applier,
    item: &'r str,
    run: &'r str,
    monitor: &'r dyn Monitor,
    pool: Option<rayon::ThreadPool>,
    /// Steps of the window: directories, then what needs no content.
    directories: Vec<WriteStep>,
    removals: Vec<WriteStep>,
    files: Vec<WaitingFile>,
    later: Vec<WriteStep>,
    bytes: u64,
    pieces: usize,
    next_directory: DirectoryNumber,
    next_file: FileNumber,
    groups: HashSet<LinkGroup>,
    /// A large file of which a part was damaged in an earlier window.
    dropped: Option<FileNumber>,
    /// Whether nobody else compares layers with their DiffIDs.
    checks_layers: bool,
    /// The layers among the files that are waiting, or of which a part was written.
    layers: HashMap<FileNumber, LayerTar>,
    /// Paths that the target does not want.
    present: &'r [Vec<u8>],
    /// The target has another tree, which is changed.
    changes: bool,
    /// A file with several names is otherwise than it was.
    linked: bool,
}

impl<'r> Walk<'r> {
    pub fn new(
        reader: &'r Reader,
        applier: Applier,
        item: &'r str,
        run: &'r str,
        threads: usize,
        monitor: &'r dyn Monitor,
    ) -> Self {
        Self {
            reader,
            applier,
            item,
            run,
            monitor,
            // Without an own pool the global one serves.
            pool: rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .ok(),
            directories: Vec::new(),
            removals: Vec::new(),
            files: Vec::new(),
            later: Vec::new(),
            bytes: 0,
            pieces: 0,
            next_directory: 1,
            next_file: 0,
            groups: HashSet::new(),
            dropped: None,
            checks_layers: false,
            layers: HashMap::new(),
            present: &[],
            changes: false,
            linked: false,
        }
    }

    /// Leaves out entries (no directories) at these paths.
    pub fn without(mut self, present: &'r [Vec<u8>]) -> Self {
        self.present = present;
        self
    }

    /// A layer that has not its DiffID does not get its name.
    pub fn checking_layers(mut self, checks_layers: bool) -> Self {
        self.checks_layers = checks_layers;
        self
    }

    /// Gives all steps for `root` to the writer. `file_name`: the root is no directory and goes by
    /// this name.
    pub fn run(&mut self, root: &Entry, file_name: Option<&[u8]>) -> OperationResult<()> {
        if let Some(name) = file_name {
            let entry = Entry {
                name: name.to_vec(),
                link: None,
                ..root.clone()
            };
            self.entry(0, entry, name, None)?;
            return self.end();
        }
        self.directory_tree(root, None)
    }

    /// Gives the steps that make `root` of the directory `old`, which stands at the place. `false`: it
    /// cannot be done, since a file with several names changed, and names elsewhere may be of the
    /// same file; the tree at the place is then neither the one nor the other.
    pub fn run_changes(&mut self, old: &Entry, root: &Entry) -> OperationResult<bool> {
        self.changes = true;
        let Node::Directory { tree } = old.node else {
            return Ok(false);
        };
        self.directory_tree(root, Some(tree))?;
        Ok(!self.linked)
    }

    fn directory_tree(&mut self, root: &Entry, old: Option<TreeId>) -> OperationResult<()> {
        let mut path = Vec::new();
        let Node::Directory { tree } = root.node else {
            return Ok(());
        };
        let mut entry = root.clone();
        entry.name.clear();
        self.directories.push(WriteStep::Directory {
            number: 0,
            parent: 0,
            entry: Box::new(self.with_xattrs(entry, b"")?),
        });
        let reader = self.reader;
        let entries = |tree| reader.directory(tree).peekable();
        let mut stack = vec![Frame {
            number: 0,
            entries: entries(tree),
            old: old.map(entries),
            gone: Vec::new(),
            path_len: 0,
        }];
        while let Some(frame) = stack.last_mut() {
            let parent = frame.number;
            path.truncate(frame.path_len);
            match next_of(frame) {
                None => {
                    for Entry { name, .. } in frame.gone.drain(..) {
                        self.removals.push(WriteStep::Remove { parent, name });
                    }
                    self.later.push(WriteStep::DirectoryEnd { number: parent });
                    stack.pop();
                }
                Some(Err(error)) if is_fatal(&error) || self.changes => return Err(error.into()),
                Some(Err(error)) => self.damaged(
                    &path,
                    format!("some entries of this directory cannot be read: {error}"),
                ),
                Some(Ok((Some(old), new))) if new.as_ref() == Some(&old) => {}
                Some(Ok((mut old, new))) => {
                    let mut both = old.iter().chain(&new);
                    if self.changes && both.any(|entry| entry.link.is_some()) {
                        self.linked = true;
                        return self.end();
                    }
                    let Some(entry) = new else {
                        let Some(old) = old else { continue };
                        match is_large(&old) && frame.gone.len() < MOVED_MAX {
                            true => frame.gone.push(old),
                            false => self.removals.push(WriteStep::Remove {
                                parent,
                                name: old.name,
                            }),
                        }
                        continue;
                    };
                    if old.is_none()
                        && let Some(index) =
                            frame.gone.iter().position(|gone| is_same(gone, &entry))
                    {
                        let gone = frame.gone.swap_remove(index);
                        self.removals.push(WriteStep::Move {
                            parent,
                            from: gone.name.clone(),
                            name: entry.name.clone(),
                        });
                        old = Some(gone);
                    }
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&entry.name);
                    if let Node::Directory { tree } = entry.node {
                        let number = self.next_directory;
                        self.next_directory += 1;
                        let entry = self.with_xattrs(entry, &path)?;
                        self.directories.push(WriteStep::Directory {
                            number,
                            parent,
                            entry: Box::new(entry),
                        });
                        let old = match old.map(|old| old.node) {
                            Some(Node::Directory { tree }) => Some(entries(tree)),
                            _ => None,
                        };
                        stack.push(Frame {
                            number,
                            entries: entries(tree),
                            old,
                            gone: Vec::new(),
                            path_len: path.len(),
                        });
                    } else if !self.present.contains(&path) {
                        self.entry(parent, entry, &path, old.as_ref())?;
                    }
                }
            }
            let waiting = self.directories.len() + self.removals.len();
            if waiting + self.files.len() + self.later.len() >= WINDOW_ENTRIES {
                self.flush()?;
            }
        }
        self.end()
    }

    /// An entry that is not a directory; `old`: what the target has under its name.
    fn entry(
        &mut self,
        parent: DirectoryNumber,
        entry: Entry,
        path: &[u8],
        old: Option<&Entry>,
    ) -> OperationResult<()> {
        let entry = self.with_xattrs(entry, path)?;
        if let Some(group) = entry.link
            && !self.groups.insert(group)
        {
            self.later.push(WriteStep::Link {
                parent,
                entry: Box::new(entry),
            });
            return Ok(());
        }
        match &entry.node {
            Node::File { content, .. } => {
                let content = content.clone();
                let entry = Arc::new(entry);
                self.file(parent, entry, &content, path, old)
            }
            _ => {
                self.later.push(WriteStep::Node {
                    parent,
                    entry: Box::new(entry),
                });
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        parent: DirectoryNumber,
        entry: Arc<Entry>,
        content: &Content,
        path: &[u8],
        old: Option<&Entry>,
    ) -> OperationResult<()> {
        let there = self.there(old)?;
        let number = self.next_file;
        self.next_file += 1;
        let waiting = |parts: Vec<WaitingPart>, last| WaitingFile {
            number,
            parent,
            entry: Arc::clone(&entry),
            path: path.to_vec(),
            kept: kept(&parts, &there),
            parts,
            last,
        };
        let (size, holes) = match &entry.node {
            Node::File { size, holes, .. } => (*size, holes.as_slice()),
            _ => (0, &[][..]),
        };
        let mut parts = Vec::new();
        for part in self.file_parts(number, size, content) {
            let part = match part {
                Ok(part) => part,
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => {
                    self.damaged(path, format!("not restored: {error}"));
                    self.files.push(waiting(Vec::new(), false));
                    self.flush()?;
                    self.later.push(WriteStep::FileDrop {
                        number,
                        parent,
                        entry,
                    });
                    return Ok(());
                }
            };
            if self.bytes >= WINDOW_BYTES || self.pieces >= WINDOW_PIECES {
                self.files.push(waiting(std::mem::take(&mut parts), false));
                self.flush()?;
                if self.dropped == Some(number) {
                    return Ok(());
                }
            }
            match part {
                WaitingPart::Zeros { offset, len } => {
                    for (offset, len) in outside(holes, offset, len) {
                        parts.push(WaitingPart::Zeros { offset, len });
                        self.bytes += len.min(64 << 10);
                    }
                }
                part => {
                    // What is there takes no room in the window.
                    if !there.has(&part) {
                        self.bytes += part.len();
                    }
                    parts.push(part);
                }
            }
            self.pieces += 1;
        }
        self.files.push(waiting(parts, true));
        if self.bytes >= WINDOW_BYTES || self.pieces >= WINDOW_PIECES {
            self.flush()?;
        }
        Ok(())
    }

    /// What a file at the place holds, as its old entry says.
    fn there(&self, old: Option<&Entry>) -> OperationResult<There> {
        let mut there = There::default();
        if let Some(Node::File { size, content, .. }) = old.map(|entry| &entry.node) {
            for part in file_parts(self.reader, *size, content) {
                if let WaitingPart::Chunk { offset, len, id } = part? {
                    there.0.insert(offset, (len, id));
                }
            }
        }
        Ok(there)
    }

    fn file_parts(
        &mut self,
        number: FileNumber,
        size: u64,
        content: &Content,
    ) -> Box<dyn Iterator<Item = RepoResult<WaitingPart>> + 'r> {
        let reader = self.reader;
        match content {
            Content::Recipe { id } if self.checks_layers => {
                match reader.recipe_of_file(*id, size) {
                    Ok(recipe) => {
                        let tar = LayerTar::new(recipe.diff_id, size);
                        self.layers.insert(number, tar);
                        layer_parts(reader, &recipe)
                    }
                    Err(error) => Box::new(std::iter::once(Err(error))),
                }
            }
            content => file_parts(reader, size, content),
        }
    }

    /// Replaces extended attributes that lie in chunks by their bytes.
    fn with_xattrs(&self, mut entry: Entry, path: &[u8]) -> OperationResult<Entry> {
        let mut lost = Vec::new();
        for xattr in &mut entry.xattrs {
            if let XattrValue::Chunk { id, .. } = xattr.value {
                match self.reader.chunk(podkeep_format::id::ChunkKind::Data, id) {
                    Ok(bytes) => xattr.value = XattrValue::Inline(bytes.as_ref().to_vec()),
                    Err(error) if is_fatal(&error) => return Err(error.into()),
                    Err(error) => {
                        self.damaged(
                            path,
                            format!(
                                "extended attribute {} cannot be read: {error}",
                                podkeep_format::item::Escaped(&xattr.name)
                            ),
                        );
                        lost.push(xattr.name.clone());
                    }
                }
            }
        }
        entry.xattrs.retain(|xattr| !lost.contains(&xattr.name));
        Ok(entry)
    }

    fn damaged(&self, path: &[u8], message: String) {
        self.monitor.finding(Finding {
            object: self.item.to_owned(),
            kind: FindingKind::Damaged,
            snapshots: vec![self.run.to_owned()],
            paths: vec![path.to_vec()],
            message,
        });
    }

    /// Fetches what the window needs and gives it to the target.
    fn flush(&mut self) -> OperationResult<()> {
        if self.monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        let mut steps = std::mem::take(&mut self.directories);
        steps.append(&mut self.removals);
        let files = std::mem::take(&mut self.files);
        let mut buffers = Vec::new();
        if !files.is_empty() {
            let present = if self.changes {
                files.iter().map(|file| file.kept.clone()).collect()
            } else if self.applier.may_hold() {
                // Who is asked about a directory must have been given it.
                self.apply(std::mem::take(&mut steps), Vec::new())?;
                self.present(&files)?
            } else {
                vec![Vec::new(); files.len()]
            };
            let wanted: Vec<ChunkId> = files
                .iter()
                .zip(&present)
                .flat_map(|(file, present)| wanted(&file.parts, present))
                .collect();
            let reader = self.reader;
            let window = match &self.pool {
                Some(pool) => pool.install(|| window::fetch(reader, &wanted)),
                None => window::fetch(reader, &wanted),
            }?;
            buffers = window.buffers;
            let inline = buffers.len() as u32;
            let mut inline_bytes = Vec::new();
            let mut done = (0, 0);
            for (file, present) in files.iter().zip(&present) {
                let parts = with_bytes(
                    &file.parts,
                    present,
                    &window.chunks,
                    inline,
                    &mut inline_bytes,
                );
                let checked = parts.and_then(|parts| {
                    let Some(mut tar) = self.layers.remove(&file.number) else {
                        return Ok(parts);
                    };
                    tar.push(&parts, &buffers, &inline_bytes);
                    match file.last {
                        true => tar.finish()?,
                        false => drop(self.layers.insert(file.number, tar)),
                    }
                    Ok(parts)
                });
                match checked {
                    Ok(parts) => {
                        done.0 += u64::from(file.last);
                        done.1 += file.parts.iter().map(WaitingPart::len).sum::<u64>();
                        steps.push(WriteStep::File {
                            number: file.number,
                            parent: file.parent,
                            entry: Arc::clone(&file.entry),
                            parts,
                            last: file.last,
                        });
                    }
                    Err(cause) => {
                        self.damaged(&file.path, format!("not restored: {cause}"));
                        self.dropped = Some(file.number);
                        steps.push(WriteStep::FileDrop {
                            number: file.number,
                            parent: file.parent,
                            entry: Arc::clone(&file.entry),
                        });
                    }
                }
            }
            buffers.push(Arc::new(inline_bytes));
            self.monitor.progress(Progress::Advance {
                files: done.0,
                bytes: done.1,
            });
        }
        steps.append(&mut self.later);
        self.apply(steps, buffers)?;
        (self.bytes, self.pieces) = (0, 0);
        Ok(())
    }

    /// Hands steps to the writer, and tells what it found in those before.
    fn apply(&mut self, steps: Vec<WriteStep>, buffers: Vec<Arc<Vec<u8>>>) -> OperationResult<()> {
        let found = self.applier.apply(WriteBatch { steps, buffers });
        self.tell(found.map_err(HostError::from)?);
        Ok(())
    }

    /// Until the writer has done everything.
    fn wait(&mut self) -> OperationResult<()> {
        let found = self.applier.wait();
        self.tell(found.map_err(HostError::from)?);
        Ok(())
    }

    fn end(&mut self) -> OperationResult<()> {
        self.flush()?;
        self.wait()
    }

    fn tell(&self, findings: Vec<Finding>) {
        for mut finding in findings {
            if finding.object.is_empty() {
                finding.object = self.item.to_owned();
            }
            self.monitor.finding(finding);
        }
    }

    /// Which chunks of each file the target has already, by their order among its chunks.
    fn present(&mut self, files: &[WaitingFile]) -> OperationResult<Vec<Vec<bool>>> {
        self.wait()?;
        let queries: Vec<PresentQuery> = files
            .iter()
            .map(|file| PresentQuery {
                parent: file.parent,
                entry: Arc::clone(&file.entry),
                pieces: file
                    .parts
                    .iter()
                    .filter_map(|part| match part {
                        WaitingPart::Chunk { offset, len, id } => Some((*offset, *len, *id)),
                        _ => None,
                    })
                    .collect(),
            })
            .collect();
        Ok(self.applier.present(queries).map_err(HostError::from)?)
    }
}

/// The chunks of a file by their offsets.
#[derive(Default)]
struct There(HashMap<u64, (u32, ChunkId)>);

impl There {
    fn has(&self, part: &WaitingPart) -> bool {
        match part {
            WaitingPart::Chunk { offset, len, id } => self.0.get(offset) == Some(&(*len, *id)),
            _ => false,
        }
    }
}

fn kept(parts: &[WaitingPart], there: &There) -> Vec<bool> {
    let chunks = parts
        .iter()
        .filter(|part| matches!(part, WaitingPart::Chunk { .. }));
    chunks.map(|part| there.has(part)).collect()
}

/// The next name of a directory, with what the target has under it and what it shall have.
fn is_large(entry: &Entry) -> bool {
    matches!(&entry.node, Node::File { size, .. } if *size >= MOVED_BYTES_MIN)
}

/// Whether two files hold the same.
fn is_same(one: &Entry, other: &Entry) -> bool {
    match (&one.node, &other.node) {
        (
            Node::File { size, content, .. },
            Node::File {
                size: other_size,
                content: other_content,
                ..
            },
        ) => size == other_size && content == other_content,
        _ => false,
    }
}

fn next_of(frame: &mut Frame<'_>) -> Option<RepoResult<(Option<Entry>, Option<Entry>)>> {
    let Some(old) = &mut frame.old else {
        return Some(frame.entries.next()?.map(|entry| (None, Some(entry))));
    };
    let order = match (old.peek(), frame.entries.peek()) {
        (None, None) => return None,
        (Some(Ok(_)), None) => Ordering::Less,
        (None, Some(Ok(_))) => Ordering::Greater,
        (Some(Ok(old)), Some(Ok(new))) => old.name.cmp(&new.name),
        (Some(Err(_)), _) => return old.next()?.err().map(Err),
        (_, Some(Err(_))) => return frame.entries.next()?.err().map(Err),
    };
    let before = (order != Ordering::Greater).then(|| old.next()).flatten();
    let after = (order != Ordering::Less)
        .then(|| frame.entries.next())
        .flatten();
    Some((|| Ok((before.transpose()?, after.transpose()?)))())
}
