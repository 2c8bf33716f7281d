//! `key`: slots and write keys.

use podkeep_format::id::SlotId;

use super::OperationResult;
use crate::repo::{Repository, Slot, WriteKeyText};

/// All slots, also those that cannot be read.
pub fn list(repo: &Repository) -> OperationResult<Vec<Slot>> {
    Ok(repo.slots()?)
}

/// Adds a slot that reads everything under a further passphrase.
pub fn add(repo: &Repository, passphrase: &[u8], label: &str) -> OperationResult<SlotId> {
    Ok(repo.add_slot(passphrase, label)?)
}

/// Removes the slot whose id begins with `prefix`; the last full one stays.
pub fn remove(repo: &Repository, prefix: &str) -> OperationResult<SlotId> {
    Ok(repo.remove_slot(prefix)?)
}

/// Puts a slot under `new`, then removes what `old` opens.
pub fn passwd(repo: &Repository, old: &[u8], new: &[u8], label: &str) -> OperationResult<SlotId> {
    Ok(repo.change_passphrase(old, new, label)?)
}

/// A new write key with an author of its own.
pub fn export_write(repo: &Repository, label: &str) -> OperationResult<WriteKeyText> {
    Ok(repo.export_write_key(label)?)
}
