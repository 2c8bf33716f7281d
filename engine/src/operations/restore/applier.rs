//! Applies batches on a thread of their own, so that the next window is fetched meanwhile.
//!
//! At most one batch waits beside the one that is being applied: two windows are in memory.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use crate::fs::{FsError, FsErrorKind, PresentQuery, TreeWriter, WriteBatch};
use crate::monitor::Finding;

enum Request {
    Apply(WriteBatch),
    Present(Vec<PresentQuery>),
}

enum Answer {
    Applied(Result<Vec<Finding>, FsError>),
    Present(Result<Vec<Vec<bool>>, FsError>),
}

/// The near end of a writer's thread.
pub struct Applier {
    requests: SyncSender<Request>,
    answers: Receiver<Answer>,
    /// A batch was given and its answer not taken yet.
    is_busy: bool,
    may_hold: bool,
}

impl Applier {
    /// Serves `writer` until the applier is dropped.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        writer: &'env mut dyn TreeWriter,
    ) -> Self {
        let (requests, inbox) = sync_channel(1);
        let (outbox, answers) = sync_channel(1);
        let may_hold = writer.may_hold();
        scope.spawn(move || {
            for request in inbox {
                let answer = match request {
                    Request::Apply(batch) => Answer::Applied(writer.apply(batch)),
                    Request::Present(queries) => Answer::Present(writer.present(&queries)),
                };
                if outbox.send(answer).is_err() {
                    break;
                }
            }
        });
        Self {
            requests,
            answers,
            is_busy: false,
            may_hold,
        }
    }

    /// As [`TreeWriter::may_hold`] was at the start.
    pub fn may_hold(&self) -> bool {
        self.may_hold
    }

    /// Hands a batch over once the one before is done. What is returned is the outcome of that
    /// one.
    pub fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError> {
        let findings = self.wait()?;
        self.send(Request::Apply(batch))?;
        self.is_busy = true;
        Ok(findings)
    }

    /// As [`TreeWriter::present`]. Only after [`wait`](Self::wait), which takes what the batches
    /// found.
    pub fn present(&mut self, queries: Vec<PresentQuery>) -> Result<Vec<Vec<bool>>, FsError> {
        self.send(Request::Present(queries))?;
        match self.answers.recv() {
            Ok(Answer::Present(answer)) => answer,
            Ok(Answer::Applied(_)) | Err(_) => Err(stopped()),
        }
    }

    /// Until the last batch is done, with its outcome.
    pub fn wait(&mut self) -> Result<Vec<Finding>, FsError> {
        if !std::mem::take(&mut self.is_busy) {
            return Ok(Vec::new());
        }
        match self.answers.recv() {
            Ok(Answer::Applied(outcome)) => outcome,
            Ok(Answer::Present(_)) | Err(_) => Err(stopped()),
        }
    }

    fn send(&self, request: Request) -> Result<(), FsError> {
        self.requests.send(request).map_err(|_| stopped())
    }
}

fn stopped() -> FsError {
    let cause = "its thread has stopped";
    FsError::new("go on with", b"the writer", FsErrorKind::Other, cause)
}
