//! Space that is set aside from the start, so that a full disk can be mended: forget, prune and
//! repair release it, and put it back. While it is missing nobody else writes.

use podkeep_format::names;

use super::{RepoError, RepoResult, Repository, put_whole};
use crate::store::ObjectStore;

/// The reserve lies in pieces, so that it can be written and released in bounded memory.
const PIECE_BYTES: u64 = 16 << 20;

/// Puts what is missing of a reserve of `bytes`.
pub fn fill(store: &dyn ObjectStore, bytes: u64) -> RepoResult<()> {
    let mut piece = 0;
    let mut left = bytes;
    while left > 0 {
        let len = left.min(PIECE_BYTES);
        // Not zeros: a file system that compresses would set nothing aside.
        let mut filler = vec![0; len as usize];
        blake3::Hasher::new()
            .update(b"podkeep reserve")
            .update(&u64::to_le_bytes(piece))
            .finalize_xof()
            .fill(&mut filler);
        put_whole(store, &names::reserve(piece), &filler)?;
        piece += 1;
        left -= len;
    }
    Ok(())
}

/// Refuses to go on while a part of the reserve is not in place.
pub fn require(repo: &Repository) -> RepoResult<()> {
    let sum: u64 = repo.store().list("reserve")?.iter().map(|m| m.size).sum();
    if sum < repo.config().reserve_bytes {
        return Err(RepoError::ReserveMissing);
    }
    Ok(())
}
