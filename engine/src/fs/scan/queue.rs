//! What the workers of a scan have to do.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::copy::FileCopy;
use super::directory::Directory;
use super::list::Listing;

pub(crate) enum Job {
    Directory(Arc<Directory>),
    /// Some entries of a listing.
    Slice {
        directory: Arc<Directory>,
        fd: Arc<OwnedFd>,
        listing: Arc<Listing>,
        range: Range<usize>,
    },
    /// One entry, large enough to be worth a worker.
    Entry {
        directory: Arc<Directory>,
        fd: Arc<OwnedFd>,
        name: Vec<u8>,
    },
    /// A file of which there is a copy.
    Copied {
        directory: Arc<Directory>,
        name: Vec<u8>,
        copy: Box<FileCopy>,
    },
    /// The item is a single file.
    RootFile {
        parent: OwnedFd,
        name: Vec<u8>,
    },
}

pub(crate) struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

struct QueueState {
    jobs: Vec<Job>,
    /// Need the tree no more: taken up when all others are done.
    put_off: Vec<Job>,
    running: usize,
    done: bool,
}

/// What is left when a job is done.
pub(crate) enum Left {
    /// Other jobs, or somebody works on one.
    Jobs,
    /// Only what was put off.
    PutOff,
    Nothing,
}

impl Queue {
    pub fn new(first: Job) -> Self {
        Self {
            state: Mutex::new(QueueState {
                jobs: vec![first],
                put_off: Vec::new(),
                running: 0,
                done: false,
            }),
            wake: Condvar::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last of `jobs` is taken first.
    pub fn push(&self, jobs: impl IntoIterator<Item = Job>) {
        self.lock().jobs.extend(jobs);
        self.wake.notify_all();
    }

    pub fn put_off(&self, job: Job) {
        self.lock().put_off.push(job);
    }

    pub fn take_up(&self) {
        let mut state = self.lock();
        let jobs = std::mem::take(&mut state.put_off);
        state.jobs.extend(jobs);
        self.wake.notify_all();
    }

    /// Waits for a job; `None` when the walk is over.
    pub fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.done {
                return None;
            }
            if let Some(job) = state.jobs.pop() {
                state.running += 1;
                return Some(job);
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A job is done. Only one worker is told that no job is left.
    pub fn finished(&self) -> Left {
        let mut state = self.lock();
        state.running -= 1;
        match (
            state.running == 0 && state.jobs.is_empty(),
            state.put_off.is_empty(),
        ) {
            (false, _) => Left::Jobs,
            (true, false) => Left::PutOff,
            (true, true) => Left::Nothing,
        }
    }

    pub fn stop(&self) {
        let mut state = self.lock();
        state.done = true;
        state.jobs.clear();
        state.put_off.clear();
        self.wake.notify_all();
    }
}
