//! Drives a writer with steps made from a tree on disk, as a restore would from a snapshot.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use podkeep_engine::chunk::{ChunkSizes, Chunker, Chunking};
use podkeep_engine::fs::write::{Destination, Existing, Labels, RootKind, Swap, WriteSpec, open};
use podkeep_engine::fs::{
    FilePart, FsError, PartBytes, PresentQuery, TreeWriter, WriteBatch, WriteOutcome, WriteStep,
};
use podkeep_engine::monitor::Finding;
use podkeep_format::id::{ChunkId, ChunkIdKey, ChunkKind, LinkGroup, TreeId};
use podkeep_format::tree::{Content, Entry, Node, Piece, Time, Xattr, XattrValue};
use rustix::fs::{Mode, OFlags};

use crate::oracle;

pub const PIECE: u64 = 64 << 10;

pub fn chunking() -> Arc<Chunking> {
    Arc::new(Chunking {
        chunker: Chunker::new(&[1; 32], ChunkSizes::DEFAULT),
        ids: ChunkIdKey::new(&[2; 32]),
    })
}

pub fn spec(destination: &Path, existing: Existing) -> WriteSpec {
    WriteSpec {
        object: "path:/test".into(),
        destination: Destination {
            parent: destination
                .parent()
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec(),
            name: destination.file_name().unwrap().as_bytes().to_vec(),
        },
        root_kind: RootKind::Directory,
        existing,
        swap: Swap::Exchange,
        chunking: chunking(),
        threads: 2,
        root: TreeId([7; 32]),
        labels: Labels::default(),
        bytes_expected: None,
    }
}

/// An entry with nothing special.
pub fn entry(name: &[u8], node: Node) -> Entry {
    Entry {
        name: name.to_vec(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time {
            secs: 1000,
            nanos: 5,
        },
        inode_flags: 0,
        project: 0,
        xattrs: Vec::new(),
        link: None,
        node,
    }
}

pub fn directory(number: u64, parent: u64, name: &[u8]) -> WriteStep {
    let tree = TreeId([0; 32]);
    let mut entry = entry(name, Node::Directory { tree });
    entry.mode = 0o755;
    WriteStep::Directory {
        number,
        parent,
        entry: Box::new(entry),
    }
}

pub fn inline(content: &[u8]) -> Node {
    Node::File {
        size: content.len() as u64,
        content: Content::Inline(content.to_vec()),
        holes: Vec::new(),
        unstable: false,
    }
}

pub fn file(number: u64, parent: u64, name: &[u8], content: &[u8]) -> WriteStep {
    WriteStep::File {
        number,
        parent,
        entry: Arc::new(entry(name, inline(content))),
        parts: Vec::new(),
        last: true,
    }
}

pub fn end(number: u64) -> WriteStep {
    WriteStep::DirectoryEnd { number }
}

pub fn batch(steps: Vec<WriteStep>) -> WriteBatch {
    WriteBatch {
        steps,
        buffers: Vec::new(),
    }
}

/// Writes a whole tree given as steps.
pub fn write(spec: WriteSpec, steps: Vec<WriteStep>) -> Result<Vec<Finding>, FsError> {
    let mut writer = open(spec)?;
    writer.apply(batch(steps))?;
    Ok(writer.finish()?.1)
}

/// Opens a path of any length below a root.
pub fn open_below(root: &Path, path: &[u8]) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut fd = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    for name in path.split(|byte| *byte == b'/').filter(|n| !n.is_empty()) {
        fd = rustix::fs::openat(&fd, name, flags, Mode::empty()).unwrap();
    }
    fd
}

/// A tree on disk, as entries.
pub struct Source<'a> {
    root: &'a Path,
    record: oracle::Record,
    ids: ChunkIdKey,
}

enum Bytes {
    Data(Vec<u8>),
    Zeros(u64),
}

impl<'a> Source<'a> {
    pub fn read(root: &'a Path) -> Self {
        Self {
            root,
            record: oracle::read(root).unwrap(),
            ids: ChunkIdKey::new(&[2; 32]),
        }
    }

    /// An upper directory of an overlay mount, as a scan gives it: without notes of the mount, and
    /// each whiteout by itself.
    pub fn read_upper(root: &'a Path) -> Self {
        let mut source = Self::read(root);
        for facts in source.record.values_mut() {
            facts.xattrs.retain(|name, _| {
                !name.starts_with(b"trusted.overlay.") || name == b"trusted.overlay.opaque"
            });
            if facts.kind == "char-device" && facts.rdev == 0 {
                facts.same_as = None;
            }
        }
        source
    }

    fn entry(&self, path: &[u8]) -> Entry {
        let facts = &self.record[path];
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap().to_vec();
        let device = (rustix::fs::major(facts.rdev), rustix::fs::minor(facts.rdev));
        let node = match facts.kind {
            "directory" => Node::Directory {
                tree: TreeId([0; 32]),
            },
            "symlink" => Node::Symlink {
                target: facts.target.clone().unwrap(),
            },
            "char-device" => Node::CharDevice {
                major: device.0,
                minor: device.1,
            },
            "block-device" => Node::BlockDevice {
                major: device.0,
                minor: device.1,
            },
            "fifo" => Node::Fifo,
            "socket" => Node::Socket,
            _ => {
                let mut holes = Vec::new();
                let mut at = 0;
                for (offset, len) in &facts.data {
                    if *offset > at {
                        holes.push((at, offset - at));
                    }
                    at = offset + len;
                }
                if at < facts.size {
                    holes.push((at, facts.size - at));
                }
                Node::File {
                    size: facts.size,
                    content: Content::Pieces(vec![Piece::Zero { len: facts.size }]),
                    holes,
                    unstable: false,
                }
            }
        };
        Entry {
            name,
            mode: facts.mode as u16,
            uid: facts.uid,
            gid: facts.gid,
            mtime: Time {
                secs: facts.mtime.0,
                nanos: facts.mtime.1,
            },
            inode_flags: facts.inode_flags.unwrap_or(0),
            project: 0,
            xattrs: facts
                .xattrs
                .iter()
                .map(|(name, value)| Xattr {
                    name: name.clone(),
                    value: XattrValue::Inline(value.clone()),
                })
                .collect(),
            link: facts.same_as.as_ref().map(|lowest| {
                let mut group = [0; 16];
                group.copy_from_slice(&blake3::hash(lowest).as_bytes()[..16]);
                LinkGroup(group)
            }),
            node,
        }
    }

    /// The content in pieces, without whole pieces in holes.
    fn pieces(&self, path: &[u8]) -> Vec<(u64, Bytes)> {
        let facts = &self.record[path];
        let file = open_below(self.root, path);
        let mut pieces = Vec::new();
        for (offset, len) in &facts.data {
            let mut at = *offset;
            let end = (offset + len).min(facts.size);
            while at < end {
                let mut bytes = vec![0; PIECE.min(end - at) as usize];
                let mut done = 0;
                while done < bytes.len() {
                    let n = rustix::io::pread(&file, &mut bytes[done..], at + done as u64);
                    done += n.unwrap();
                }
                let next = at + bytes.len() as u64;
                if bytes.iter().all(|byte| *byte == 0) {
                    pieces.push((at, Bytes::Zeros(bytes.len() as u64)));
                } else {
                    pieces.push((at, Bytes::Data(bytes)));
                }
                at = next;
            }
        }
        pieces
    }

    /// Gives the whole tree to a writer in batches of about `batch_bytes`, asking for each file
    /// what is there already. Stops without an error after `batches_max`.
    pub fn drive(
        &self,
        writer: &mut dyn TreeWriter,
        batch_bytes: usize,
        batches_max: usize,
    ) -> Result<bool, FsError> {
        let mut numbers: HashMap<&[u8], u64> = HashMap::new();
        let mut groups = std::collections::HashSet::new();
        let mut now = WriteBatch::default();
        let mut bytes_now = 0;
        let mut batches = 0;
        let mut files = 0;
        let mut flush = |now: &mut WriteBatch, writer: &mut dyn TreeWriter| {
            batches += 1;
            writer.apply(std::mem::take(now))?;
            Ok::<bool, FsError>(batches < batches_max)
        };
        for (path, facts) in self.record.iter().filter(|(_, f)| f.kind == "directory") {
            let number = numbers.len() as u64;
            let parent = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
            let parent = if path.is_empty() {
                0
            } else {
                numbers[&path[..parent]]
            };
            assert_eq!(facts.kind, "directory");
            numbers.insert(path, number);
            now.steps.push(WriteStep::Directory {
                number,
                parent,
                entry: Box::new(self.entry(path)),
            });
        }
        if !flush(&mut now, writer)? {
            return Ok(false);
        }
        let mut links = Vec::new();
        for (path, facts) in &self.record {
            if facts.kind == "directory" {
                continue;
            }
            let parent = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
            let parent = numbers[&path[..parent]];
            let entry = self.entry(path);
            if let Some(group) = entry.link
                && !groups.insert(group)
            {
                links.push(WriteStep::Link {
                    parent,
                    entry: Box::new(entry),
                });
                continue;
            }
            if facts.kind != "file" {
                now.steps.push(WriteStep::Node {
                    parent,
                    entry: Box::new(entry),
                });
                continue;
            }
            let entry = Arc::new(entry);
            let pieces = self.pieces(path);
            let ids: Vec<(u64, u32, ChunkId)> = pieces
                .iter()
                .filter_map(|(offset, bytes)| match bytes {
                    Bytes::Data(bytes) => Some((
                        *offset,
                        bytes.len() as u32,
                        self.ids.chunk_id(ChunkKind::Data, bytes),
                    )),
                    Bytes::Zeros(_) => None,
                })
                .collect();
            let query = PresentQuery {
                parent,
                entry: Arc::clone(&entry),
                pieces: ids,
            };
            let present = writer.present(&[query])?.remove(0);
            let mut present = present.into_iter();
            let number = files;
            files += 1;
            let mut parts = Vec::new();
            for (offset, bytes) in pieces {
                let bytes = match bytes {
                    Bytes::Zeros(len) => PartBytes::Zeros { len },
                    Bytes::Data(data) if present.next().unwrap() => PartBytes::Present {
                        len: data.len() as u64,
                    },
                    Bytes::Data(data) => {
                        bytes_now += data.len();
                        let range = 0..data.len() as u32;
                        now.buffers.push(Arc::new(data));
                        PartBytes::Data {
                            buffer: now.buffers.len() as u32 - 1,
                            range,
                        }
                    }
                };
                parts.push(FilePart { offset, bytes });
                if bytes_now >= batch_bytes {
                    now.steps.push(WriteStep::File {
                        number,
                        parent,
                        entry: Arc::clone(&entry),
                        parts: std::mem::take(&mut parts),
                        last: false,
                    });
                    bytes_now = 0;
                    if !flush(&mut now, writer)? {
                        return Ok(false);
                    }
                }
            }
            now.steps.push(WriteStep::File {
                number,
                parent,
                entry,
                parts,
                last: true,
            });
            if now.steps.len() > 500 && !flush(&mut now, writer)? {
                return Ok(false);
            }
        }
        now.steps.extend(links);
        let mut paths: Vec<_> = numbers.into_iter().collect();
        paths.sort();
        for (_, number) in paths.into_iter().rev() {
            now.steps.push(WriteStep::DirectoryEnd { number });
        }
        flush(&mut now, writer)?;
        Ok(true)
    }

    pub fn restore(&self, spec: WriteSpec) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        let mut writer = open(spec)?;
        self.drive(&mut *writer, 1 << 20, usize::MAX)?;
        writer.finish()
    }
}
