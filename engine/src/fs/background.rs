//! A tree that is made by a thread of its own while its consumer takes the batches: for what is
//! not walked as a file tree is.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::batch::{Inbox, Outbox, Stopped};
use super::{ChunkBytes, FsError, FsErrorKind, ScanBatch, ScanOutcome, TreeScan};

/// Why reading ends before the tree does.
pub(crate) enum Ended {
    /// The consumer is gone.
    Stopped,
    Failed(FsError),
}

impl From<Stopped> for Ended {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<FsError> for Ended {
    fn from(error: FsError) -> Self {
        Self::Failed(error)
    }
}

/// Starts a thread that reads `item` (its text form) into the outbox that it gets.
pub(crate) fn read<F>(thread: &str, item: &str, read: F) -> Result<Box<dyn TreeScan>, FsError>
where
    F: FnOnce(&Outbox) -> Result<ScanOutcome, Ended> + Send + 'static,
{
    let (outbox, inbox) = Outbox::new();
    let display = item.as_bytes().to_vec();
    let outcome: Arc<Mutex<Option<Result<ScanOutcome, FsError>>>> = Arc::default();
    let result = Arc::clone(&outcome);
    let thread = std::thread::Builder::new()
        .name(thread.into())
        .spawn(move || {
            let closing = CloseAtEnd(&outbox);
            let ended = match read(&outbox) {
                Ok(outcome) => Ok(outcome),
                Err(Ended::Failed(error)) => Err(error),
                Err(Ended::Stopped) => return,
            };
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
            drop(closing);
        })
        .map_err(|error| FsError::new("read", &display, FsErrorKind::Other, error))?;
    let mut readers = Readers::new(inbox, display);
    readers.push(thread);
    Ok(Box::new(BackgroundScan { outcome, readers }))
}

struct BackgroundScan {
    outcome: Arc<Mutex<Option<Result<ScanOutcome, FsError>>>>,
    readers: Readers,
}

impl TreeScan for BackgroundScan {
    fn next(&mut self) -> Result<Option<ScanBatch>, FsError> {
        Ok(self.readers.next())
    }

    fn fetch(&mut self, wanted: &[u32]) -> Result<ChunkBytes, FsError> {
        self.readers.fetch(wanted)
    }

    fn finish(mut self: Box<Self>) -> Result<ScanOutcome, FsError> {
        self.readers.stop();
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.take().unwrap_or_else(|| {
            let cause = "its reading stopped";
            Err(self.readers.failed(cause))
        })
    }
}

/// Threads that read, as their consumer has them. Dropped, it ends them.
pub(crate) struct Readers {
    inbox: Inbox,
    threads: Vec<JoinHandle<()>>,
    /// What is read, in messages.
    display: Vec<u8>,
}

impl Readers {
    pub fn new(inbox: Inbox, display: Vec<u8>) -> Self {
        Self {
            inbox,
            threads: Vec::new(),
            display,
        }
    }

    pub fn push(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }

    /// `None`: the last thread closed its outbox, and all of them are gone.
    pub fn next(&mut self) -> Option<ScanBatch> {
        let batch = self.inbox.next();
        if batch.is_none() {
            self.join();
        }
        batch
    }

    pub fn fetch(&mut self, wanted: &[u32]) -> Result<ChunkBytes, FsError> {
        self.inbox.fetch(wanted, &self.display)
    }

    pub fn failed(&self, cause: impl std::fmt::Display) -> FsError {
        FsError::new("read", &self.display, FsErrorKind::Other, cause)
    }

    /// Whatever was not taken is lost.
    pub fn stop(&mut self) {
        // Wakes the thread that waits for room.
        self.inbox.close();
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic leaves no outcome.
            let _ = thread.join();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Closes the outbox whatever happens: the consumer must not wait for ever.
struct CloseAtEnd<'s>(&'s Outbox);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        // The consumer may be gone.
        let _ = self.0.close();
    }
}
