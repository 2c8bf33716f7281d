//! The files of a volume or path as a PAX tar that GNU tar and `podman volume import` read.
//!
//! Extended attributes stand in records as star, GNU tar and Go have them, ACLs also in words.
//! Holes are written as zeros. Sockets, inode flags and project quotas have no place in a tar.

use std::collections::HashMap;
use std::io::Write;
use std::ops::ControlFlow;

use podkeep_format::id::{ChunkKind, LinkGroup};
use podkeep_format::tree::{Entry, Node, XattrValue};

use super::sink::failed;
use super::{Export, acl};
use crate::fs::tar::{NewMember, TarType, TarWriter, xattr_key};
use crate::monitor::{Finding, FindingKind};
use crate::operations::walk::{self, Next, Place};
use crate::operations::{OperationError, OperationResult, contents};
use crate::repo::RepoError;

/// Writes everything below the path that is exported. Returns how many members that were.
pub fn write<W: Write>(export: &Export<'_>, tar: &mut TarWriter<W>) -> OperationResult<u64> {
    let item = &export.stored.header.item;
    let refused = |message: String, hint: &str| OperationError::Refused {
        message,
        hint: hint.into(),
    };
    let Some(root) = export.stored.body.as_ref().and_then(|body| body.root) else {
        return Err(refused(
            format!("{item} has no content in this snapshot"),
            "",
        ));
    };
    let place = Place {
        snapshot: export.run.clone(),
        item,
    };
    let top = walk::entry_at(export.reader, &place, root, export.path, export.monitor)?;
    let Some(top) = top else {
        let hint = "`podkeep check` says what is affected";
        return Err(refused(
            format!("{} cannot be read", item.at(export.path)),
            hint,
        ));
    };
    let mut members = Members {
        export,
        tar,
        links: HashMap::new(),
        files: 0,
        without_place: 0,
    };
    let mut failure = None;
    let mut visit = |path: &[u8], entry: &Entry| match members.add(path, entry) {
        Ok(()) => ControlFlow::Continue(Next::Descend),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    };
    let walked = walk::walk(
        export.reader,
        &place,
        export.path,
        &top,
        &mut visit,
        export.monitor,
    );
    if let Some(error) = failure {
        return Err(error);
    }
    let _ended: ControlFlow<()> = walked?;
    members.tell();
    Ok(members.files)
}

struct Members<'e, 't, W> {
    export: &'e Export<'e>,
    tar: &'t mut TarWriter<W>,
    /// The first name of each file that has several.
    links: HashMap<LinkGroup, Vec<u8>>,
    files: u64,
    /// Entries with an attribute that a tar cannot have.
    without_place: u64,
}

impl<W: Write> Members<'_, '_, W> {
    fn add(&mut self, path: &[u8], entry: &Entry) -> OperationResult<()> {
        let name = self.name(path, entry);
        let known = entry.link.and_then(|group| self.links.get(&group).cloned());
        let what = match (&known, &entry.node) {
            (_, Node::Socket) => {
                self.export.monitor.finding(Finding {
                    object: self.export.stored.header.item.to_string(),
                    kind: FindingKind::NotRestored,
                    snapshots: vec![self.export.run.clone()],
                    paths: vec![path.to_vec()],
                    message: "a tar has no sockets".into(),
                });
                return Ok(());
            }
            (Some(first), _) => TarType::HardLink(first),
            (None, Node::File { size, .. }) => TarType::File { size: *size },
            (None, Node::Directory { .. }) => TarType::Directory,
            (None, Node::Symlink { target }) => TarType::Symlink(target),
            (None, Node::CharDevice { major, minor }) => TarType::CharDevice {
                major: *major,
                minor: *minor,
            },
            (None, Node::BlockDevice { major, minor }) => TarType::BlockDevice {
                major: *major,
                minor: *minor,
            },
            (None, Node::Fifo) => TarType::Fifo,
        };
        if entry.inode_flags != 0 || entry.project != 0 {
            self.without_place += 1;
        }
        let records = self.records(entry)?;
        let member = NewMember {
            path: &name,
            what,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            records: &records,
        };
        self.tar.member(&member).map_err(failed)?;
        self.files += 1;
        if known.is_some() {
            return Ok(());
        }
        if let Some(group) = entry.link {
            self.links.insert(group, name);
        }
        match &entry.node {
            Node::File { .. } => self.content(path, entry),
            _ => Ok(()),
        }
    }

    /// Relative to what is exported, which is `./` itself, or a file by its name.
    fn name(&self, path: &[u8], entry: &Entry) -> Vec<u8> {
        let below = &path[self.export.path.len()..];
        let mut name = below.strip_prefix(b"/").unwrap_or(below).to_vec();
        match (&entry.node, name.is_empty()) {
            (Node::Directory { .. }, true) => name.extend_from_slice(b"./"),
            (Node::Directory { .. }, false) => name.push(b'/'),
            (_, true) => {
                let item = &self.export.stored.header.item.name;
                let whole = if path.is_empty() { item } else { path };
                let last = whole.rsplit(|byte| *byte == b'/').next();
                name.extend_from_slice(last.unwrap_or(whole));
            }
            (_, false) => {}
        }
        name
    }

    fn records(&self, entry: &Entry) -> OperationResult<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut records = Vec::new();
        for xattr in &entry.xattrs {
            let value = match &xattr.value {
                XattrValue::Inline(value) => value.clone(),
                XattrValue::Chunk { id, .. } => {
                    let chunk = self.export.reader.chunk(ChunkKind::Data, *id)?;
                    chunk.as_ref().to_vec()
                }
            };
            if let Some(key) = acl::key(&xattr.name)
                && let Some(text) = acl::text(&value)
            {
                records.push((key.to_vec(), text.into_bytes()));
            }
            records.push((xattr_key(&xattr.name), value));
        }
        Ok(records)
    }

    fn content(&mut self, path: &[u8], entry: &Entry) -> OperationResult<()> {
        let Node::File { size, content, .. } = &entry.node else {
            return Ok(());
        };
        let damaged = || RepoError::Damaged {
            object: self.export.stored.header.item.at(path),
            cause: format!("its content has not the {size} bytes of its entry"),
        };
        let mut left = *size;
        let mut each = |bytes: &[u8]| -> OperationResult<()> {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(damaged)?;
            self.tar.content(bytes).map_err(failed)
        };
        contents::each_part(
            self.export.reader,
            *size,
            content,
            &mut each,
            self.export.monitor,
        )?;
        match left {
            0 => Ok(()),
            _ => Err(damaged().into()),
        }
    }

    fn tell(&self) {
        if self.without_place == 0 {
            return;
        }
        self.export.monitor.finding(Finding {
            object: self.export.stored.header.item.to_string(),
            kind: FindingKind::Note,
            snapshots: vec![self.export.run.clone()],
            paths: Vec::new(),
            message: format!(
                "a tar has no place for the inode flags or project of {} entries",
                self.without_place
            ),
        });
    }
}
