//! Puts owners where they belong on the way to a writer of trees.

use std::sync::Arc;

use super::Placement;
use crate::fs::{FsError, PresentQuery, TreeWriter, WriteBatch, WriteOutcome, WriteStep};
use crate::monitor::Finding;

/// Gives `tree` the entries that it is given, with their owners placed.
pub struct OwnersWriter {
    pub tree: Box<dyn TreeWriter>,
    pub placement: Placement,
}

impl TreeWriter for OwnersWriter {
    fn may_hold(&self) -> bool {
        self.tree.may_hold()
    }

    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError> {
        self.tree.present(queries)
    }

    fn apply(&mut self, mut batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        for step in &mut batch.steps {
            match step {
                WriteStep::Directory { entry, .. }
                | WriteStep::Node { entry, .. }
                | WriteStep::Link { entry, .. } => self.placement.place(entry),
                // The walk keeps its own for further parts of the file.
                WriteStep::File { entry, .. } => self.placement.place(Arc::make_mut(entry)),
                WriteStep::Remove { .. }
                | WriteStep::Move { .. }
                | WriteStep::FileDrop { .. }
                | WriteStep::DirectoryEnd { .. } => {}
            }
        }
        self.tree.apply(batch)
    }

    fn finish(self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError> {
        self.tree.finish()
    }

    fn discard(self: Box<Self>) -> Result<(), FsError> {
        self.tree.discard()
    }
}
