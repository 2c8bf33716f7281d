//! A volume out of a tar: what `podman volume export` writes, or `tar -C _data`.
//!
//! Attributes that a tar has no place for get what a plain directory of root has. What cannot be
//! an entry of a volume (a path that leads upwards, a name that is too long, a kind that nobody
//! knows) is left out and told of, and the snapshot says that it is incomplete.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkKind, TreeId};
use podkeep_format::tree::{
    Content, ContentBuilder, Entry, INLINE_BYTES_MAX, LINK_TARGET_BYTES_MAX, NAME_BYTES_MAX, Node,
    Piece, XATTR_INLINE_BYTES_MAX, XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX,
    XATTR_VALUE_BYTES_MAX, Xattr, XattrValue,
};

use super::input::{Input, TarReader, cause};
use super::names::HostNames;
use super::tree::{NoPlace, Tree};
use crate::chunk::{Chunking, Stream};
use crate::fs::background::{self, Ended};
use crate::fs::batch::{Outbox, Stage};
use crate::fs::scan::content::{Holes, SMALL_FILE_BYTES_MAX, WINDOW_BYTES};
use crate::fs::scan::report::Report;
use crate::fs::tar::{Extent, Layout, TarEntry, TarKind, acl_attribute, read_sparse_map};
use crate::fs::{FsError, FsErrorKind, ScanOutcome, TreeScan};
use crate::monitor::FindingKind;

/// What to read.
pub(super) struct VolumeSpec {
    pub path: PathBuf,
    /// The item's text form.
    pub item: String,
    pub chunking: Arc<Chunking>,
}

/// Starts to read.
pub(super) fn scan(spec: VolumeSpec) -> Result<Box<dyn TreeScan>, FsError> {
    let item = spec.item.clone();
    background::read("read-archive", &item, move |outbox| {
        let input = Input::open(&spec.path).map_err(|error| failed(&spec, cause(error)))?;
        let mut reader = VolumeReader {
            tar: TarReader::new(input),
            tree: Tree::new(),
            stage: Stage::default(),
            report: Report::default(),
            names: None,
            window: vec![0; WINDOW_BYTES],
            has_root: false,
            outbox,
            spec: &spec,
        };
        reader.read()?;
        reader.finish()
    })
}

fn failed(spec: &VolumeSpec, cause: impl std::fmt::Display) -> FsError {
    let path = spec.path.display().to_string();
    FsError::new("read", path.as_bytes(), FsErrorKind::Other, cause)
}

struct VolumeReader<'v> {
    spec: &'v VolumeSpec,
    outbox: &'v Outbox,
    tar: TarReader,
    tree: Tree,
    stage: Stage,
    report: Report,
    /// Once an ACL asks for them.
    names: Option<HostNames>,
    window: Vec<u8>,
    /// The archive tells of the volume's own directory.
    has_root: bool,
}

/// Why an entry is left out, in words; or why nothing can be read any more.
enum Skip {
    Entry(String),
    Ended(Ended),
}

impl<E: Into<Ended>> From<E> for Skip {
    fn from(ended: E) -> Self {
        Self::Ended(ended.into())
    }
}

impl VolumeReader<'_> {
    fn read(&mut self) -> Result<(), Ended> {
        while let Some(entry) = self.tar.next_entry().map_err(|e| failed(self.spec, e))? {
            let path = entry.path.clone();
            match self.entry(entry) {
                Ok(()) => {}
                Err(Skip::Entry(cause)) => self.tell(path, format!("is not saved: {cause}")),
                Err(Skip::Ended(ended)) => return Err(ended),
            }
            if self.stage.is_large() {
                self.outbox.take(&mut self.stage)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ScanOutcome, Ended> {
        let spec = self.spec;
        if !self.has_root {
            let message = "the archive does not tell of the volume's own directory: it is root's, \
                           with mode 0755";
            let kind = FindingKind::Note;
            self.report.finding(
                self.outbox,
                &spec.item,
                kind,
                Vec::new(),
                message.to_owned(),
            );
        }
        self.report.sum_up(self.outbox, &spec.item);
        let chunking = &spec.chunking;
        let outcome = self
            .tree
            .finish(&spec.item, chunking, &mut self.stage, self.outbox)?;
        Ok(ScanOutcome {
            incomplete: self.report.incomplete.load(Ordering::Relaxed),
            ..outcome
        })
    }

    fn tell(&self, path: Vec<u8>, message: String) {
        let kind = FindingKind::Unreadable;
        self.report
            .finding(self.outbox, &self.spec.item, kind, path, message);
    }

    fn entry(&mut self, tar: TarEntry) -> Result<(), Skip> {
        let skip = |cause: &str| Skip::Entry(cause.to_owned());
        let path = parts(&tar.path).map_err(Skip::Entry)?;
        if path.is_empty() {
            if tar.kind != TarKind::Directory {
                return Err(skip("the volume itself is a directory"));
            }
            self.has_root = true;
        }
        if tar.kind == TarKind::HardLink {
            let target = parts(&tar.target).map_err(Skip::Entry)?;
            let linked = self.tree.link(&path, &target);
            return self.placed(linked);
        }
        let xattrs = self.xattrs(&tar)?;
        let node = self.node(&tar)?;
        let number = |number: i64, what: &str| {
            u32::try_from(number).map_err(|_| Skip::Entry(format!("its {what} is {number}")))
        };
        let entry = Entry {
            name: Vec::new(),
            // Other bits are those of its kind.
            mode: (tar.mode & 0o7777) as u16,
            uid: number(tar.uid, "owner")?,
            gid: number(tar.gid, "group")?,
            mtime: tar.mtime,
            inode_flags: 0,
            project: 0,
            xattrs,
            link: None,
            node,
        };
        let is_directory = tar.kind == TarKind::Directory;
        let size = match &entry.node {
            Node::File { size, .. } => *size,
            _ => 0,
        };
        let put = self.tree.put(&path, entry);
        self.placed(put)?;
        self.stage.counts.files += u64::from(!is_directory);
        self.stage.counts.bytes_logical += size;
        Ok(())
    }

    fn placed(&self, placed: Result<(), NoPlace>) -> Result<(), Skip> {
        let cause = match placed {
            Ok(()) => return Ok(()),
            Err(NoPlace::NoDirectory) => "what it should lie in is no directory",
            Err(NoPlace::NoTarget) => "it is a link to what the archive does not have before it",
            Err(NoPlace::LinkToDirectory) => "it is a hard link to a directory",
            Err(NoPlace::TooLarge) => {
                let cause = "it has more entries than podkeep can hold in memory";
                return Err(failed(self.spec, cause).into());
            }
        };
        Err(Skip::Entry(cause.to_owned()))
    }

    fn node(&mut self, tar: &TarEntry) -> Result<Node, Skip> {
        let device = |number: i64| {
            u32::try_from(number).map_err(|_| Skip::Entry("its device number is wrong".into()))
        };
        Ok(match tar.kind {
            TarKind::File => {
                let (content, holes) = self.content(tar)?;
                Node::File {
                    size: tar.size,
                    content,
                    holes,
                    unstable: false,
                }
            }
            // GNU tar's directory with a list of what was in it.
            TarKind::Directory | TarKind::Other(b'D') => Node::Directory {
                tree: TreeId([0; 32]),
            },
            TarKind::Symlink => {
                let target = &tar.target;
                let fits = (1..=LINK_TARGET_BYTES_MAX).contains(&target.len());
                if !fits || target.contains(&0) {
                    return Err(Skip::Entry("no link can lead to its target".into()));
                }
                Node::Symlink {
                    target: target.clone(),
                }
            }
            TarKind::CharDevice => Node::CharDevice {
                major: device(tar.device.0)?,
                minor: device(tar.device.1)?,
            },
            TarKind::BlockDevice => Node::BlockDevice {
                major: device(tar.device.0)?,
                minor: device(tar.device.1)?,
            },
            TarKind::Fifo => Node::Fifo,
            TarKind::HardLink => return Err(Skip::Entry("it is a link".into())),
            TarKind::Other(kind) => {
                let kind = char::from(kind).escape_default();
                return Err(Skip::Entry(format!("its kind '{kind}' is not known")));
            }
        })
    }

    /// The content of a file, and its holes.
    fn content(&mut self, tar: &TarEntry) -> Result<(Content, Vec<Extent>), Skip> {
        let size = tar.size;
        let parts = match &tar.layout {
            Layout::Whole => vec![(0, size)],
            Layout::Parts(parts) => parts.clone(),
            Layout::Listed => {
                let map = read_sparse_map(&mut self.tar, size, tar.stored_bytes);
                map.map_err(|error| failed(self.spec, error))?.0
            }
        };
        let mut holes = Holes::default();
        if tar.layout != Layout::Whole {
            let mut at = 0;
            for (offset, len) in &parts {
                holes.push(at, *offset, size);
                at = offset + len;
            }
            holes.push(at, size, size);
        }
        let content = match size <= INLINE_BYTES_MAX as u64 {
            true => self.inline(&parts, size as usize)?,
            false => self.cut(&parts, size)?,
        };
        Ok((content, holes.ranges))
    }

    fn inline(&mut self, parts: &[Extent], size: usize) -> Result<Content, Ended> {
        let mut bytes = vec![0; size];
        for (offset, len) in parts {
            let part = *offset as usize..(offset + len) as usize;
            let read = self.tar.read_exact(&mut bytes[part]);
            read.map_err(|error| failed(self.spec, cause(error)))?;
            self.stage.counts.bytes_read += len;
        }
        Ok(match size > 0 && bytes.iter().all(|byte| *byte == 0) {
            true => Content::Pieces(vec![Piece::Zero { len: size as u64 }]),
            false => Content::Inline(bytes),
        })
    }

    fn cut(&mut self, parts: &[Extent], size: u64) -> Result<Content, Ended> {
        let chunking = Arc::clone(&self.spec.chunking);
        let class = match size < SMALL_FILE_BYTES_MAX {
            true => BlockClass::Small,
            false => BlockClass::Large,
        };
        let mut stream = Stream::new(&chunking.chunker);
        let mut content = ContentBuilder::new();
        let mut at = 0;
        for (offset, len) in parts.iter().chain([&(size, 0)]) {
            stream.hole(offset - at, &mut |cut| {
                self.stage.cut(&chunking, &mut content, class, cut)
            });
            at = offset + len;
            let mut left = *len;
            while left > 0 {
                let wanted = left.min(WINDOW_BYTES as u64) as usize;
                let window = &mut self.window[..wanted];
                let read = self.tar.read_exact(window);
                read.map_err(|error| failed(self.spec, cause(error)))?;
                left -= wanted as u64;
                self.stage.counts.bytes_read += wanted as u64;
                stream.push(window, &mut |cut| {
                    self.stage.cut(&chunking, &mut content, class, cut)
                });
                if self.stage.is_large() {
                    self.outbox.take(&mut self.stage)?;
                }
            }
        }
        stream.finish(&mut |cut| self.stage.cut(&chunking, &mut content, class, cut));
        Ok(content.finish(&chunking.ids, &mut |id, list| {
            self.stage.add(id, ChunkKind::List, BlockClass::Meta, &list)
        }))
    }

    /// Attributes that can be kept, ACLs among them; the others are told of.
    fn xattrs(&mut self, tar: &TarEntry) -> Result<Vec<Xattr>, Ended> {
        let mut found = tar.xattrs.clone();
        for (name, text) in [
            (&b"system.posix_acl_access"[..], &tar.access_acl),
            (b"system.posix_acl_default", &tar.default_acl),
        ] {
            let Some(text) = text else { continue };
            let names = self.names.get_or_insert_with(HostNames::read);
            match acl_attribute(text, names) {
                Ok(value) => {
                    found.retain(|(other, _)| other != name);
                    found.push((name.to_vec(), value));
                }
                Err(cause) => {
                    self.tell(tar.path.clone(), format!("its ACL is not saved: {cause}"));
                }
            }
        }
        found.sort();
        let mut names_bytes = 0;
        let mut kept = Vec::new();
        for (name, value) in found {
            let is_name = (1..=XATTR_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(&0);
            names_bytes += name.len() + 1;
            if !is_name || value.len() > XATTR_VALUE_BYTES_MAX || names_bytes > XATTR_LIST_BYTES_MAX
            {
                let cause = "an attribute is not saved: it is larger than a file can have";
                self.tell(tar.path.clone(), cause.to_owned());
                continue;
            }
            let value = match value.len() <= XATTR_INLINE_BYTES_MAX {
                true => XattrValue::Inline(value),
                false => {
                    let ids = &self.spec.chunking.ids;
                    let id = ids.chunk_id(ChunkKind::Data, &value);
                    self.stage
                        .add(id, ChunkKind::Data, BlockClass::Small, &value);
                    let len = value.len() as u32;
                    XattrValue::Chunk { id, len }
                }
            };
            kept.push(Xattr { name, value });
        }
        Ok(kept)
    }
}

/// The names on the way from the volume's root; an absolute path begins there, too.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    for part in &parts {
        if *part == b".." {
            return Err("its path leads upwards".into());
        }
        if part.len() > NAME_BYTES_MAX || part.contains(&0) {
            return Err("no file can have its name".into());
        }
    }
    Ok(parts)
}
