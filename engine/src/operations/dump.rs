//! `dump`: a file of a snapshot, or of an image in it.

use std::io::Write;

use podkeep_format::item::ItemKind;
use podkeep_format::tree::Node;

use super::image_files::What;
use super::walk::{self, Place};
use super::{
    ItemPath, OperationError, OperationResult, SnapSpec, contents, definition, reading, select,
    stored_image,
};
use crate::monitor::Monitor;
use crate::repo::reader::Reader;
use crate::repo::{Repository, StoredSnapshot};

/// Writes a regular file's content to `out`, or the definition of an item that it makes up, as JSON;
/// every byte was checked before it is written.
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
    let (stored, path) = only(item, &items)?;
    let named = stored.header.item.at(path);
    if let Some(bytes) = of_definition(&reader, stored, path)? {
        put(out, &bytes)?;
        return Ok(bytes.len() as u64);
    }
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
    let mut write = |bytes: &[u8]| {
        written += bytes.len() as u64;
        put(out, bytes)
    };
    contents::each_part(&reader, *size, content, &mut write, monitor)?;
    if written != *size {
        return Err(crate::repo::RepoError::Damaged {
            object: named,
            cause: format!("its content has {written} bytes, its entry says {size}"),
        }
        .into());
    }
    Ok(written)
}

/// What stands for a file where an item has a definition: itself as JSON at the root of an item that
/// it makes up, and a secret's bytes.
fn of_definition(
    reader: &Reader,
    stored: &StoredSnapshot,
    path: &[u8],
) -> OperationResult<Option<Vec<u8>>> {
    let kind = stored.header.item.kind;
    let is_data = kind == ItemKind::Secret && path == definition::SECRET_DATA;
    if !definition::is_defined(kind) || !(path.is_empty() || is_data) {
        return Ok(None);
    }
    let Some(bytes) = definition::stored(reader, stored)? else {
        return Ok(None);
    };
    if is_data {
        let data = definition::secret_data(&bytes)?;
        return Ok(Some(data.ok_or_else(|| OperationError::Refused {
            message: format!("{} is not in this snapshot", stored.header.item.at(path)),
            hint: "its driver did not give it when the snapshot was taken".into(),
        })?));
    }
    let mut text = serde_json::to_vec_pretty(&definition::shown(kind, &bytes)?).unwrap_or_default();
    text.push(b'\n');
    Ok(Some(text))
}

/// Writes a regular file of an image, as a container sees it, to `out`. Every chunk of it was checked
/// before it is written; that the whole layer has its DiffID is not. Returns the bytes written.
pub fn dump_image_file(
    repo: &Repository,
    snapshot: &SnapSpec,
    image: &ItemPath,
    out: &mut dyn Write,
    monitor: &dyn Monitor,
) -> OperationResult<u64> {
    let _lease = reading::lease(repo, monitor)?;
    let (_, items) = select::resolve(repo, snapshot, std::slice::from_ref(image), monitor)?;
    let reader = reading::reader(repo, monitor)?;
    let (stored, path) = only(image, &items)?;
    let item = &stored.header.item;
    let layers = stored_image::layers_of(&reader, stored)?;
    let files = stored_image::files(&reader, item, &layers, monitor)?;
    let inode = stored_image::file_at(&reader, stored, &files, path)?;
    let What::File(place) = &inode.what else {
        return Err(OperationError::Refused {
            message: format!("{} is not a regular file", item.at(path)),
            hint: "`podkeep ls` lists what it is, and what is below it".into(),
        });
    };
    stored_image::content(&reader, &layers, *place, &mut |bytes| {
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        put(out, bytes)
    })?;
    Ok(place.size)
}

/// The one item that was selected, with the path in it.
fn only<'i>(
    wanted: &ItemPath,
    items: &'i [(StoredSnapshot, Vec<u8>)],
) -> OperationResult<(&'i StoredSnapshot, &'i [u8])> {
    match items {
        [(stored, path)] => Ok((stored, path)),
        _ => Err(OperationError::Usage {
            message: format!("{} matches {} items", wanted.selector.item, items.len()),
            hint: "name one file: ITEM:/PATH".into(),
        }),
    }
}

fn put(out: &mut dyn Write, bytes: &[u8]) -> OperationResult<()> {
    out.write_all(bytes).map_err(|error| OperationError::Local {
        action: "write",
        object: "standard output".into(),
        cause: error.to_string(),
    })
}
