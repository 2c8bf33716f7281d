//! The far end: reads requests, works on a few at a time, and ends when the near end is gone.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use podkeep_format::wire::{
    Action, Answer, Failure, FailureCode, Far, FarEvent, REQUESTS_MAX, Request, Row, Task,
    WireError,
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
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure>;

    /// The near end has ended: whoever waits for it waits in vain.
    fn ended(&self) {}
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

/// Where a request's data goes. `false`: nobody takes it any more.
pub trait Sink {
    /// So many bytes of content will come; may wait until there is room for them.
    fn expect(&mut self, _bytes: u64) {}

    fn content(&mut self, bytes: &[u8]) -> bool;

    /// Rows in the order of their names.
    fn rows(&mut self, rows: &[Row]) -> bool;
}

/// To the near end.
struct Sending<'a> {
    shared: &'a Shared,
    number: u32,
}

impl Sink for Sending<'_> {
    fn content(&mut self, bytes: &[u8]) -> bool {
        let mut out = Vec::new();
        self.shared.far().content(self.number, bytes, &mut out);
        self.shared.write(&out)
    }

    fn rows(&mut self, rows: &[Row]) -> bool {
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
        let (shared, what) = (Arc::clone(&shared), Arc::clone(&what));
        move || {
            let end = shared.read(input, &tasks, &what);
            drop(tasks);
            what.ended();
            lock(&shared.ended).reader = Some(end);
            shared.changed.notify_all();
        }
    })?;
    let end = shared.await_reader(times);
    what.ended();
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

/// Requests that are answered only when something has come to pass: the others' threads must not
/// wait for them.
fn waits(request: &Request) -> bool {
    matches!(
        request,
        Request::Work { .. } | Request::Order { .. } | Request::Next | Request::Hear
    )
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

    fn read(
        self: &Arc<Self>,
        mut input: Box<dyn Read + Send>,
        tasks: &Sender<Task>,
        what: &Arc<dyn Serve>,
    ) -> Result<(), WireError> {
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
                if waits(&task.request) {
                    self.wait_for(task, what);
                    continue;
                }
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
            self.work_on(what, task);
        }
        lock(&self.ended).workers -= 1;
        self.changed.notify_all();
    }

    fn work_on(&self, what: &dyn Serve, task: Task) {
        if self.deaf.load(Ordering::Relaxed) {
            self.done();
            return;
        }
        let mut sink = Sending {
            shared: self,
            number: task.number,
        };
        let result = what.serve(&task.request, &task.body, &mut sink);
        drop(task.body);
        self.end_task(task.number, result);
    }

    fn end_task(&self, number: u32, result: Result<Answer, Failure>) {
        let mut out = Vec::new();
        match result {
            Ok(answer) => self.far().answer(number, &answer, &mut out),
            Err(failure) => self.far().fail(number, &failure, &mut out),
        }
        self.write(&out);
        self.done();
    }

    /// On a thread of its own, of which there are no more than requests may be open.
    fn wait_for(self: &Arc<Self>, task: Task, what: &Arc<dyn Serve>) {
        let number = task.number;
        let spawned = spawn("podkeep-run", {
            let (shared, what) = (Arc::clone(self), Arc::clone(what));
            move || shared.work_on(&*what, task)
        });
        if let Err(error) = spawned {
            let failure = Failure {
                code: FailureCode::Io,
                action: Action::Open,
                object: String::new(),
                cause: error.to_string(),
            };
            self.end_task(number, Err(failure));
        }
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
            if ended.tasks == 0 && (ended.workers == 0 || reader_hangs) {
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
