//! The right bytes of a pack of which only what stands around its blocks is damaged.
//!
//! The header stands at both ends of a pack, and its trailer says nothing that is not known besides.
//! Which of it is the right one need not be known: only bytes that hash to the pack's name are taken.

use podkeep_format::id::PackId;
use podkeep_format::pack::{PackHeader, PackTail, TRAILER_TAIL_BYTES};

pub(super) struct Rebuilt {
    /// What was damaged, in words.
    pub hit: &'static str,
    pub bytes: Vec<u8>,
}

/// `blocks_end`: where the last block ends that the index names.
pub(super) fn rebuilt(pack: PackId, bytes: &[u8], blocks_end: u64) -> Option<Rebuilt> {
    let end = bytes.len().checked_sub(TRAILER_TAIL_BYTES)?;
    let told = PackTail::decode(bytes.len() as u64, &bytes[end..]).ok();
    // Without a trailer that can be read: what is left between the blocks and the copy.
    let left = PackHeader::decode(bytes).ok().and_then(|(_, header_len)| {
        let toc_len = end.checked_sub(header_len)?;
        let toc_len = toc_len.checked_sub(usize::try_from(blocks_end).ok()?)?;
        Some(PackTail {
            toc_position: blocks_end,
            toc_len,
            header_len,
        })
    });
    let mut tails = told.into_iter().chain(left);
    tails.find_map(|tail| with_tail(pack, bytes, &tail))
}

fn with_tail(pack: PackId, bytes: &[u8], tail: &PackTail) -> Option<Rebuilt> {
    let (before, rest) = bytes.split_at_checked(usize::try_from(tail.toc_position).ok()?)?;
    let (toc, rest) = rest.split_at_checked(tail.toc_len)?;
    let (copy, end) = rest.split_at_checked(tail.header_len)?;
    let (header, blocks) = before.split_at_checked(tail.header_len)?;
    let right_end = tail.encode();
    let right = [header, copy].into_iter().find(|right| {
        let mut hasher = blake3::Hasher::new();
        for part in [right, blocks, toc, right, &right_end] {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes() == pack.0
    })?;
    let hit = match (header == right, copy == right, end == right_end) {
        (false, ..) => "its header was damaged",
        (_, false, _) => "the copy of its header was damaged",
        _ => "its trailer was damaged",
    };
    Some(Rebuilt {
        hit,
        bytes: [right, blocks, toc, right, &right_end].concat(),
    })
}
