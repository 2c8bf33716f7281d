//! `dump`: a file of a snapshot.

use std::io::Write;

use podkeep_format::id::ChunkKind;
use podkeep_format::tree::{Content, Node, Piece};

use super::walk::{self, Place};
use super::{ItemPath, OperationError, OperationResult, SnapSpec, reading, select};
use crate::monitor::Monitor;
use crate::repo::Repository;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes a regular file's content to `out`; every byte was checked before it is written.
/// Returns the bytes written. After an error, what was written is right but not all.
pub fn dump(
    repo: &Repository,
    snapshot: &SnapSpec,
    item: &ItemPath,
    out: &mut dyn Write,
    monitor: &dyn Monitor,
) -> OperationResult<u64> {
    let _lease = reading::lease(repo, monitor)?;
    let (run, items) = select::resolve(repo, snapshot, std::slice::from_ref(item), monitor)?;
    let reader = reading::reader(repo, monitor)?;
    let [(stored, path)] = &items[..] else {
        return Err(OperationError::Usage {
            message: format!("{} matches {} items", item.selector.item, items.len()),
            hint: "name one file: ITEM:/PATH".into(),
        });
    };
    let named = stored.header.item.at(path);
    let Some(root) = stored.body.as_ref().and_then(|body| body.root) else {
        return Err(OperationError::Refused {
            message: format!("{named} has no content in this snapshot"),
            hint: String::new(),
        });
    };
    let place = Place {
        snapshot: run.id.to_hex(),
        item: &stored.header.item,
    };
    let Some(entry) = walk::entry_at(&reader, &place, root, path, monitor)? else {
        return Err(OperationError::Refused {
            message: format!("{named} cannot be read"),
            hint: "`podkeep check` says what is affected".into(),
        });
    };
    let Node::File { size, content, .. } = &entry.node else {
        return Err(OperationError::Refused {
            message: format!("{named} is a {}, not a file", entry.node.word()),
            hint: "`podkeep ls` lists what is below it, `podkeep restore` brings it back".into(),
        });
    };
    let mut written = 0u64;
    let mut write = |bytes: &[u8]| -> OperationResult<()> {
        written += bytes.len() as u64;
        out.write_all(bytes).map_err(|error| OperationError::Local {
            action: "write",
            object: "standard output".into(),
            cause: error.to_string(),
        })
    };
    match content {
        Content::Inline(bytes) => write(bytes)?,
        Content::Recipe { id } => {
            let recipe = reader.recipe_of_file(*id, *size)?;
            reader.rebuild(&recipe, &mut |bytes| match monitor.interrupted() {
                true => Err(OperationError::Interrupted),
                false => write(bytes),
            })?;
        }
        Content::Pieces(_) | Content::List { .. } => {}
    }
    for piece in reader.pieces(content) {
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        match piece? {
            Piece::Chunk { id, .. } => write(reader.chunk(ChunkKind::Data, id)?.as_ref())?,
            Piece::Zero { mut len } => {
                while len > 0 {
                    if monitor.interrupted() {
                        return Err(OperationError::Interrupted);
                    }
                    let part = len.min(ZEROS.len() as u64);
                    write(&ZEROS[..part as usize])?;
                    len -= part;
                }
            }
        }
    }
    if written != *size {
        return Err(crate::repo::RepoError::Damaged {
            object: named,
            cause: format!("its content has {written} bytes, its entry says {size}"),
        }
        .into());
    }
    Ok(written)
}
