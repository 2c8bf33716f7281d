//! The content of a stored file, in parts.

use podkeep_format::id::ChunkKind;
use podkeep_format::tree::{Content, Piece};

use super::{OperationError, OperationResult};
use crate::monitor::Monitor;
use crate::repo::reader::Reader;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Calls `each` with the bytes of a content of `size` bytes in order. Every byte was checked before;
/// that they are `size` is the caller's to compare.
pub fn each_part(
    reader: &Reader,
    size: u64,
    content: &Content,
    each: &mut dyn FnMut(&[u8]) -> OperationResult<()>,
    monitor: &dyn Monitor,
) -> OperationResult<()> {
    let mut each = |bytes: &[u8]| match monitor.interrupted() {
        true => Err(OperationError::Interrupted),
        false => each(bytes),
    };
    match content {
        Content::Inline(bytes) => each(bytes)?,
        Content::Recipe { id } => {
            let recipe = reader.recipe_of_file(*id, size)?;
            reader.rebuild(&recipe, &mut each)?;
        }
        Content::Pieces(_) | Content::List { .. } => {}
    }
    for piece in reader.pieces(content) {
        match piece? {
            Piece::Chunk { id, .. } => each(reader.chunk(ChunkKind::Data, id)?.as_ref())?,
            Piece::Zero { mut len } => {
                while len > 0 {
                    let part = len.min(ZEROS.len() as u64);
                    each(&ZEROS[..part as usize])?;
                    len -= part;
                }
            }
        }
    }
    Ok(())
}
