//! The thread on which the target's side of a migration carries orders out.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::far::{TargetSide, Written, serve};
use super::orders::{Answer, Order};
use crate::host::HostError;
use crate::host::orders::Obey;

/// An order, and where its answer goes.
pub(super) type Job = (Vec<u8>, Sender<Vec<u8>>);

/// A target's side that takes orders.
pub struct Session {
    /// `None`: it takes no more.
    inbox: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    written: Arc<Written>,
}

impl Session {
    pub fn start(side: TargetSide) -> std::io::Result<Self> {
        let (inbox, jobs) = channel();
        let written = Arc::new(Written::default());
        let thread = std::thread::Builder::new().name("migrate".into()).spawn({
            let written = Arc::clone(&written);
            move || serve(&side, &jobs, &written)
        })?;
        Ok(Self {
            inbox: Mutex::new(Some(inbox)),
            thread: Mutex::new(Some(thread)),
            written,
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
        if let Ok(Order::Progress) = serde_json::from_slice(order) {
            let answer = Answer::Done(Box::new(self.written.now()));
            return Ok(serde_json::to_vec(&answer).unwrap_or_default());
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use podkeep_format::id::HostId;
    use serde_json::{Value, json};

    use super::*;
    use crate::host::local::LocalHost;
    use crate::operations::OperationError;

    fn session(state: &Path) -> Session {
        let unreached = |_: &str| {
            Err(OperationError::Refused {
                message: "no other repository is reached here".into(),
                hint: String::new(),
            })
        };
        Session::start(TargetSide {
            // Without a Podman.
            host: Box::new(LocalHost::new(state)),
            reach: Box::new(unreached),
            state: state.to_owned(),
            id: HostId([1; 16]),
            name: "new".into(),
        })
        .unwrap()
    }

    fn files(below: &Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![below.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    open.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found
    }

    /// Whoever reaches a target's side may say anything, in any order: each is answered, what is refused
    /// leaves nothing, and the side goes on.
    #[test]
    fn orders_that_make_no_sense_are_refused_one_by_one() {
        let around = tempfile::tempdir().unwrap();
        let state = around.path().join("state");
        let session = session(&state);
        let fit = json!({"remap_subnet": false, "drop_static": false, "drop_missing": false,
            "ports_come_free": false});
        let mut orders: Vec<Value> = [
            "../../../etc",
            "/etc",
            "a/b",
            "",
            "xyz",
            ".",
            "..",
            "ab\u{0}",
            &"a".repeat(65),
        ]
        .into_iter()
        .map(|name| json!({"order": "meet", "migration": name}))
        .collect();
        orders.extend([
            json!({"order": "open", "key": "", "through": null}),
            json!({"order": "open", "key": "k", "through": "../x"}),
            json!({"order": "check", "run": "", "images": [], "volumes": ["../../x"], "bytes": u64::MAX,
                "fit": fit}),
            json!({"order": "prepare", "run": "", "fit": fit}),
            json!({"order": "prepare", "run": "zz", "fit": fit}),
            json!({"order": "change", "run": "..", "last": true}),
            json!({"order": "activate", "starts": ["--help", "../x"]}),
            json!({"order": "return", "max_freeze_ms": 0}),
            json!({"order": "withdraw", "discard": true}),
            json!({"order": "shell", "command": "touch /x"}),
            json!({"order": "meet"}),
            json!({"order": "finish", "more": 1}),
            json!([]),
            json!(null),
        ]);
        let mut bytes: Vec<Vec<u8>> = orders
            .iter()
            .map(|one| one.to_string().into_bytes())
            .collect();
        bytes.extend([
            b"".to_vec(),
            b"{".to_vec(),
            vec![0xff; 64],
            vec![b'['; 60_000],
        ]);
        // Each with each of its bytes spoilt.
        for order in bytes.clone().iter().filter(|order| order.len() < 200) {
            for at in 0..order.len() {
                let mut spoilt = order.clone();
                spoilt[at] ^= 1 << (at % 8);
                bytes.push(spoilt);
            }
        }
        for order in &bytes {
            let answer = session.obey(order).expect("the thread goes on");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let said = String::from_utf8_lossy(order);
            assert!(
                answer.get("failed").is_some()
                    || said.contains("finish")
                    || said.contains("through")
                    || said.contains("prove")
                    || said.contains("progress"),
                "{said}: {answer}"
            );
        }
        session.end();
        let left = files(around.path());
        // Names of migrations are hexadecimal: those of spoilt orders are, too.
        let migrations = state.join("migrations");
        assert!(
            left.iter()
                .all(|path| *path == state || path.starts_with(&migrations)),
            "{left:?}"
        );
    }
}
