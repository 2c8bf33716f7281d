//! What every command that reads stored trees starts with.

use std::sync::Arc;

use podkeep_format::lease::Purpose;

use super::OperationResult;
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::repo::index::Index;
use crate::repo::lease::HeldLease;
use crate::repo::reader::Reader;
use crate::repo::{Repository, orphans};

/// A lease that keeps prune from taking away what is read, for as long as it lives. A store that
/// cannot be written is read without one: `None`, and a note.
///
/// Comes before snapshots are listed, and they before the index is loaded: the protocol's order
/// for readers.
pub fn lease(repo: &Repository, monitor: &dyn Monitor) -> OperationResult<Option<HeldLease>> {
    repo.require_full("read what is stored")?;
    match HeldLease::take(repo, Purpose::Read) {
        Ok(lease) => Ok(Some(lease)),
        Err(error) => {
            monitor.finding(Finding {
                object: "the repository".into(),
                kind: FindingKind::Note,
                snapshots: Vec::new(),
                paths: Vec::new(),
                message: format!("no read lease: {error}"),
            });
            Ok(None)
        }
    }
}

/// A reader for everything that is stored, also for packs that no segment names.
pub fn reader(repo: &Repository, monitor: &dyn Monitor) -> OperationResult<Reader> {
    let index = Arc::new(Index::load(repo, monitor)?);
    let reader = Reader::new(repo, index)?;
    if !reader.index().orphans.is_empty() {
        orphans::read_all(&reader, repo, monitor)?;
    }
    Ok(reader)
}
