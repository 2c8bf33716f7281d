//! Packs that no segment names: what a killed run stored before its segment was durable, or what
//! lost its segment to damage.
//!
//! A writer makes its own orphans known again, after reading them whole: name, signature and
//! table of contents must agree. Other authors' orphans are nobody's business but a reader's,
//! who finds chunks through them and checks every hash anyway.

use podkeep_format::block::HEADER_BYTES;
use podkeep_format::id::PackId;
use podkeep_format::names;
use podkeep_format::pack::{PACK_BYTES_MAX, TocBlock, open_toc, open_toc_tail};
use podkeep_format::segment::{BlockPlace, Place};

use super::index::Index;
use super::reader::{self, Reader};
use super::{RepoError, RepoResult, Repository, blocks, name};
use crate::monitor::{Finding, FindingKind, Monitor};

/// Orphans that one run looks at, and those of one segment.
const PACKS_AT_ONCE: usize = 64;

/// Makes this author's orphans known, in new segments.
pub fn adopt_own(repo: &Repository, index: &Index, monitor: &dyn Monitor) -> RepoResult<u64> {
    let mut adopted = 0;
    let mut batch = Vec::new();
    for pack in &index.orphans {
        if monitor.interrupted() {
            return Err(RepoError::Interrupted);
        }
        if !index.is_live(pack) {
            continue;
        }
        let header = match reader::read_header(repo.store(), *pack) {
            Ok(header) => header,
            Err(error) if reader::is_fatal(&error) => return Err(error),
            Err(_) => continue,
        };
        if header.author != repo.author().id() {
            continue;
        }
        match verified_contents(repo, *pack) {
            Ok(blocks) => batch.push((*pack, blocks)),
            Err(error) if reader::is_fatal(&error) => return Err(error),
            Err(error) => monitor.finding(note(*pack, &error)),
        }
        if batch.len() == PACKS_AT_ONCE {
            adopted += batch.len() as u64;
            super::writer::adopt_orphans(repo, index, &std::mem::take(&mut batch))?;
        }
    }
    adopted += batch.len() as u64;
    super::writer::adopt_orphans(repo, index, &batch)?;
    Ok(adopted)
}

fn note(pack: PackId, error: &RepoError) -> Finding {
    Finding {
        object: names::pack(pack),
        kind: FindingKind::Note,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message: format!("{error}; the pack is not used again"),
    }
}

/// The table of contents of a pack whose bytes hash to its name and whose author signed it.
fn verified_contents(repo: &Repository, pack: PackId) -> RepoResult<Vec<TocBlock>> {
    let object = name(names::pack(pack))?;
    let bytes = repo.store().get(&object, PACK_BYTES_MAX)?;
    if *blake3::hash(&bytes).as_bytes() != pack.0 {
        return Err(RepoError::Damaged {
            object: object.to_string(),
            cause: "its bytes do not hash to its name".into(),
        });
    }
    let (_, blocks) = open_toc(repo.id(), &repo.vault().index, &bytes)
        .map_err(|e| RepoError::damaged(&object, e))?;
    Ok(blocks)
}

/// Lets a reader find the chunks of packs that no segment names: from their tables of contents
/// or, where a trailer is lost, by walking their blocks.
pub fn read_all(reader: &Reader, repo: &Repository, monitor: &dyn Monitor) -> RepoResult<u64> {
    let mut found = 0;
    for pack in &reader.index().orphans {
        match contents(repo, *pack) {
            Ok(blocks) => {
                for block in &blocks {
                    add_loose(reader.index(), *pack, block);
                }
                found += 1;
            }
            Err(error) if reader::is_fatal(&error) => return Err(error),
            Err(error) => monitor.finding(note(*pack, &error)),
        }
    }
    Ok(found)
}

fn add_loose(index: &Index, pack: PackId, block: &TocBlock) {
    let place = BlockPlace {
        pack,
        position: block.position as u32,
        sealed_len: block.sealed_len,
        payload_len: block.payload_len,
        class: block.class,
    };
    let mut offset = 0;
    for chunk in &block.chunks {
        index.add_loose(
            chunk.id,
            Place {
                block: place,
                offset,
                len: chunk.len,
            },
        );
        offset += chunk.len;
    }
}

/// What a pack holds, for readers: nothing here is trusted, only looked up.
pub fn contents(repo: &Repository, pack: PackId) -> RepoResult<Vec<TocBlock>> {
    let object = name(names::pack(pack))?;
    let size = repo.store().size(&object)?.unwrap_or(0);
    let by_table = || -> RepoResult<Vec<TocBlock>> {
        let tail = reader::read_tail(repo.store(), &object, size)?;
        let toc = repo
            .store()
            .get_range(&object, tail.toc_position, tail.toc_len)?;
        let header = reader::read_header(repo.store(), pack)?;
        open_toc_tail(
            repo.id(),
            &repo.vault().index,
            &header,
            tail.toc_position,
            toc,
        )
        .map_err(|e| RepoError::damaged(&object, e))
    };
    by_table().or_else(|error| {
        if reader::is_fatal(&error) {
            return Err(error);
        }
        let blocks = walk(repo, pack, size)?;
        if blocks.is_empty() {
            Err(error)
        } else {
            Ok(blocks)
        }
    })
}

/// Reads a pack block by block, from its front, as far as it is intact.
fn walk(repo: &Repository, pack: PackId, size: u64) -> RepoResult<Vec<TocBlock>> {
    let object = name(names::pack(pack))?;
    let header = reader::read_header(repo.store(), pack)?;
    let key = repo.vault().open_pack_key(pack, &header)?;
    let mut position = header.encode().len() as u64;
    let mut found = Vec::new();
    while position + (HEADER_BYTES as u64) < size {
        let head = repo.store().get_range(&object, position, HEADER_BYTES)?;
        let Ok(block) = podkeep_format::block::BlockHeader::decode(&head) else {
            break;
        };
        let len = HEADER_BYTES + block.sealed_len as usize;
        if position + len as u64 > size {
            break;
        }
        let bytes = repo.store().get_range(&object, position, len)?;
        if let Ok(open) = blocks::open(&key, position, bytes, &object) {
            let chunks = open.chunks.iter().map(|(kind, range)| {
                let bytes = &open.payload[range.clone()];
                podkeep_format::pack::TocChunk {
                    id: repo.vault().ids.chunk_id(*kind, bytes),
                    kind: *kind,
                    len: bytes.len() as u32,
                }
            });
            found.push(TocBlock {
                position,
                class: block.class,
                compressed: block.compressed,
                sealed_len: block.sealed_len,
                payload_len: block.payload_len,
                chunks: chunks.collect(),
            });
        }
        position += len as u64;
    }
    Ok(found)
}

/// Gives an orphan a new segment, after decoding every block of it and checking every id.
pub fn index_verified(repo: &Repository, reader: &Reader, pack: PackId) -> RepoResult<()> {
    let listed = contents(repo, pack)?;
    for block in &listed {
        let place = BlockPlace {
            pack,
            position: block.position as u32,
            sealed_len: block.sealed_len,
            payload_len: block.payload_len,
            class: block.class,
        };
        let open = reader.read_block(&place)?;
        let ids = open.chunks.iter().map(|(kind, range)| {
            let bytes = &open.payload[range.clone()];
            repo.vault().ids.chunk_id(*kind, bytes)
        });
        if !ids.eq(block.chunks.iter().map(|chunk| chunk.id)) {
            return Err(RepoError::Damaged {
                object: names::pack(pack),
                cause: "its table of contents names what is not there".into(),
            });
        }
    }
    super::writer::adopt_orphans(repo, reader.index(), &[(pack, listed)])
}
