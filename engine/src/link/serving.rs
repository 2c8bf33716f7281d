//! The far end: reads requests, works on a few at a time, and ends when the near end is gone.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use podkeep_format::wire::{
    Answer, Failure, Far, FarEvent, REQUESTS_MAX, Request, Row, Task, WireError,
};

use super::{PODKEEP, Times};

/// Requests that are worked on at once.
const WORKERS: usize = 4;
const READ_BYTES: usize = 64 << 10;

/// What a far end does.
pub trait Serve: Send + Sync {
    /// Works on one request; several threads call it at once. What belongs to the answer goes into
    /// `sink` first.
    fn serve(
        &self,
        request: &Request,
        object: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Answer, Failure>;
}

/// Why a far end ended that should not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("nothing came from the other end for {secs} s")]
    Silent { secs: u64 },
    #[error("what was being worked on did not end within {secs} s")]
    Stuck { secs: u64 },
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

/// Where a request's data goes.
pub struct Sink<'a> {
    shared: &'a Shared,
    number: u32,
}

impl Sink<'_> {
    /// `false`: nobody takes it any more.
    pub fn content(&mut self, bytes: &[u8]) -> bool {
        let mut out = Vec::new();
        self.shared.far().content(self.number, bytes, &mut out);
        self.shared.write(&out)
    }

    /// Rows in the order of their names.
    pub fn rows(&mut self, rows: &[Row]) -> bool {
        let mut out = Vec::new();
        self.shared.far().rows(self.number, rows, &mut out);
        self.shared.write(&out)
    }
}

struct Shared {
    far: Mutex<Far>,
    output: Mutex<Box<dyn Write + Send>>,
    heard: Mutex<Instant>,
    /// Nobody reads the answers.
    deaf: AtomicBool,
    ended: Mutex<Ended>,
    changed: Condvar,
}

struct Ended {
    /// How the reader ended, once it has.
    reader: Option<Result<(), WireError>>,
    /// Threads that still take tasks, and tasks that are not done.
    workers: usize,
    tasks: usize,
}

/// Serves until the near end has ended. Threads that hang are left behind: end the process.
pub fn serve(
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
    what: Arc<dyn Serve>,
    times: Times,
) -> Result<(), Refused> {
    let far = Far::new(PODKEEP);
    let greeting = far.greeting();
    let shared = Arc::new(Shared {
        far: Mutex::new(far),
        output: Mutex::new(output),
        heard: Mutex::new(Instant::now()),
        deaf: AtomicBool::new(false),
        ended: Mutex::new(Ended {
            reader: None,
            workers: WORKERS,
            tasks: 0,
        }),
        changed: Condvar::new(),
    });
    shared.write(&greeting);
    let (tasks, queue) = bounded(REQUESTS_MAX);
    for number in 0..WORKERS {
        let (shared, what) = (Arc::clone(&shared), Arc::clone(&what));
        let queue: Receiver<Task> = queue.clone();
        spawn(&format!("podkeep-serve-{number}"), move || {
            shared.work(&*what, &queue);
        })?;
    }
    drop(queue);
    spawn("podkeep-requests", {
        let shared = Arc::clone(&shared);
        move || {
            let end = shared.read(input, &tasks);
            drop(tasks);
            lock(&shared.ended).reader = Some(end);
            shared.changed.notify_all();
        }
    })?;
    let end = shared.await_reader(times);
    if let Err(error) = &end {
        let mut bye = Vec::new();
        shared.far().bye(&error.to_string(), &mut bye);
        // Without waiting: a near end that is gone takes nothing.
        if let Ok(mut output) = shared.output.try_lock() {
            let _ = output.write_all(&bye).and_then(|()| output.flush());
        }
    }
    if end.is_err() {
        shared.deaf.store(true, Ordering::Relaxed);
    }
    // A reader that hangs keeps the workers waiting for more.
    let hangs = matches!(end, Err(Refused::Silent { .. }));
    shared.await_workers(times, hangs)?;
    end
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    match thread.spawn(run) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refused::Thread(error.to_string())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn far(&self) -> MutexGuard<'_, Far> {
        lock(&self.far)
    }

    fn write(&self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if self.deaf.load(Ordering::Relaxed) {
            return false;
        }
        let mut output = lock(&self.output);
        let written = output.write_all(bytes).and_then(|()| output.flush());
        if written.is_err() {
            self.deaf.store(true, Ordering::Relaxed);
        }
        written.is_ok()
    }

    fn read(&self, mut input: Box<dyn Read + Send>, tasks: &Sender<Task>) -> Result<(), WireError> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match input.read(&mut buffer) {
                Ok(0) => return self.far().end(),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(WireError::Cut),
            };
            *lock(&self.heard) = Instant::now();
            let mut out = Vec::new();
            let mut far = self.far();
            far.push(&buffer[..read]);
            let mut next = Vec::new();
            let bye = loop {
                match far.next_event(&mut out)? {
                    Some(FarEvent::Task(task)) => next.push(task),
                    Some(FarEvent::Greeted(_)) => {}
                    Some(FarEvent::Bye) => break true,
                    None => break false,
                }
            };
            drop(far);
            self.write(&out);
            lock(&self.ended).tasks += next.len();
            for task in next {
                // As many as may be open fit in, so that this never waits.
                if tasks.send(task).is_err() {
                    return Err(WireError::Cut);
                }
            }
            if bye {
                return Ok(());
            }
        }
    }

    fn work(&self, what: &dyn Serve, queue: &Receiver<Task>) {
        for task in queue {
            if self.deaf.load(Ordering::Relaxed) {
                self.done();
                continue;
            }
            let mut sink = Sink {
                shared: self,
                number: task.number,
            };
            let result = what.serve(&task.request, &task.body, &mut sink);
            drop(task.body);
            let mut out = Vec::new();
            match result {
                Ok(answer) => self.far().answer(task.number, &answer, &mut out),
                Err(failure) => self.far().fail(task.number, &failure, &mut out),
            }
            self.write(&out);
            self.done();
        }
        lock(&self.ended).workers -= 1;
        self.changed.notify_all();
    }

    fn done(&self) {
        lock(&self.ended).tasks -= 1;
        self.changed.notify_all();
    }

    fn await_reader(&self, times: Times) -> Result<(), Refused> {
        let tick = (times.dead / 8).clamp(Duration::from_millis(10), Duration::from_secs(5));
        let mut ended = lock(&self.ended);
        loop {
            if let Some(end) = ended.reader.take() {
                return end.map_err(Refused::from);
            }
            if lock(&self.heard).elapsed() > times.dead {
                let secs = times.dead.as_secs();
                return Err(Refused::Silent { secs });
            }
            let waited = self.changed.wait_timeout(ended, tick);
            ended = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for what is being worked on, and unless the reader hangs for the workers' end.
    fn await_workers(&self, times: Times, reader_hangs: bool) -> Result<(), Refused> {
        let begin = Instant::now();
        let mut ended = lock(&self.ended);
        loop {
            if ended.workers == 0 || (reader_hangs && ended.tasks == 0) {
                return Ok(());
            }
            if begin.elapsed() > times.grace {
                let secs = times.grace.as_secs();
                return Err(Refused::Stuck { secs });
            }
            let waited = self.changed.wait_timeout(ended, Duration::from_millis(50));
            ended = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
