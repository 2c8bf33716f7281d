//! The thread on which the target's side of a migration carries orders out.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use super::far::{TargetSide, serve};
use crate::host::HostError;
use crate::host::orders::Obey;

/// An order, and where its answer goes.
pub(super) type Job = (Vec<u8>, Sender<Vec<u8>>);

/// A target's side that takes orders.
pub struct Session {
    /// `None`: it takes no more.
    inbox: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Session {
    pub fn start(side: TargetSide) -> std::io::Result<Self> {
        let (inbox, jobs) = channel();
        let thread = std::thread::Builder::new()
            .name("migrate".into())
            .spawn(move || serve(&side, &jobs))?;
        Ok(Self {
            inbox: Mutex::new(Some(inbox)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Returns when it has ended, and so has all that it started for the time of it.
    pub fn end(&self) {
        fn taken<T>(of: &Mutex<Option<T>>) -> Option<T> {
            of.lock().unwrap_or_else(PoisonError::into_inner).take()
        }
        drop(taken(&self.inbox));
        if let Some(thread) = taken(&self.thread) {
            // What it failed with was told with an answer.
            let _ = thread.join();
        }
    }
}

impl Obey for Session {
    fn obey(&self, order: &[u8]) -> Result<Vec<u8>, HostError> {
        let (answer, answered) = channel();
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = inbox
            .as_ref()
            .and_then(|inbox| inbox.send((order.to_vec(), answer)).ok());
        drop(inbox);
        let answer = sent.and_then(|()| answered.recv().ok());
        answer.ok_or_else(|| HostError::Unreachable {
            host: "the target's side".into(),
            cause: "its thread has ended".into(),
        })
    }
}
