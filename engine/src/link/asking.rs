//! The near end: threads ask, one reads the answers, one keeps the time.
//!
//! Whoever asks writes its own frames; a lock around the pipe keeps them whole and the requests'
//! numbers rising. The reader never writes and never waits for a lock that is held while writing,
//! so that a far end that is slow to read cannot keep its answers from being read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use podkeep_format::wire::{Failure, Near, NearEvent, REQUESTS_MAX, Reply, Request, WireError};

use super::{Ask, Carrier, LinkError, PODKEEP, Pipes, RateLimit, Times, Unanswered};

const READ_BYTES: usize = 64 << 10;
/// How long the far end may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long whoever could not write waits for the reader to come to the end, too, and for it to
/// know why.
const END: Duration = Duration::from_millis(200);
const REASON: Duration = Duration::from_secs(8);

/// What went over the link so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub requests: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// A conversation from the end that asks; from any number of threads.
pub struct Asking {
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    host: String,
    state: Mutex<State>,
    /// Notified whenever the state changes.
    changed: Condvar,
    input: Mutex<Option<Box<dyn Write + Send>>>,
    carrier: Box<dyn Carrier>,
    limit: Option<Arc<RateLimit>>,
    times: Times,
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

struct State {
    near: Near,
    greeted: bool,
    /// Results that nobody has taken yet.
    results: BTreeMap<u32, Result<Reply, Failure>>,
    lost: Option<Loss>,
    /// The reader has come to the end, and asks the carrier why.
    ending: bool,
    closing: bool,
    heard: Instant,
    said: Instant,
}

#[derive(Clone)]
struct Loss {
    cause: String,
    hint: String,
    no_program: bool,
    carrier_failed: bool,
}

/// Why a conversation did not begin.
pub(super) struct NotBegun {
    pub error: LinkError,
    pub no_program: bool,
    pub carrier_failed: bool,
}

impl Asking {
    /// Greets the far end and waits for its greeting. `host` is for messages.
    pub fn begin(
        pipes: Pipes,
        host: &str,
        times: Times,
        limit: Option<Arc<RateLimit>>,
    ) -> Result<Self, LinkError> {
        Self::try_begin(pipes, host, times, limit).map_err(|failed| failed.error)
    }

    pub(super) fn try_begin(
        pipes: Pipes,
        host: &str,
        times: Times,
        limit: Option<Arc<RateLimit>>,
    ) -> Result<Self, NotBegun> {
        let near = Near::new(PODKEEP);
        let greeting = near.greeting();
        let now = Instant::now();
        let shared = Arc::new(Shared {
            host: host.to_owned(),
            state: Mutex::new(State {
                near,
                greeted: false,
                results: BTreeMap::new(),
                lost: None,
                ending: false,
                closing: false,
                heard: now,
                said: now,
            }),
            changed: Condvar::new(),
            input: Mutex::new(Some(pipes.input)),
            carrier: pipes.carrier,
            limit,
            times,
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        });
        let (stop, stopped) = bounded(0);
        let mut asking = Self {
            shared: Arc::clone(&shared),
            stop: Some(stop),
            threads: Vec::new(),
        };
        let spawned = spawn("podkeep-link", {
            let shared = Arc::clone(&shared);
            let output = pipes.output;
            move || shared.read(output)
        })
        .and_then(|reader| {
            asking.threads.push(reader);
            for (name, run) in [
                ("podkeep-watch", Shared::watch as fn(&Shared, &Receiver<()>)),
                ("podkeep-ping", Shared::ping),
            ] {
                let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
                asking
                    .threads
                    .push(spawn(name, move || run(&shared, &stopped))?);
            }
            Ok(())
        });
        if let Err(error) = spawned {
            shared.lose(&format!("cannot start a thread: {error}"));
        }
        // A far end that does not read is told by what it said instead.
        let _ = shared.write(&greeting);
        let begin = Instant::now();
        let mut state = shared.state();
        loop {
            if let Some(loss) = state.lost.clone() {
                drop(state);
                return Err(NotBegun {
                    error: LinkError {
                        host: host.to_owned(),
                        cause: loss.cause,
                        hint: loss.hint,
                    },
                    no_program: loss.no_program,
                    carrier_failed: loss.carrier_failed,
                });
            }
            if state.greeted {
                break;
            }
            if let Some(limit) = times.greeting
                && begin.elapsed() > limit
            {
                drop(state);
                shared.lose(&format!(
                    "it did not greet within {} s",
                    limit.as_secs_f32().ceil()
                ));
                state = shared.state();
                continue;
            }
            state = shared.wait(state, Duration::from_millis(200));
        }
        drop(state);
        Ok(asking)
    }

    /// Bytes that a login shell printed in front of the far end's greeting.
    pub fn noise(&self) -> usize {
        self.shared.state().near.noise()
    }
}

impl Ask for Asking {
    fn ask(&self, request: &Request, object: &[u8]) -> Result<Reply, Unanswered> {
        self.shared.ask(request, object)
    }

    fn host(&self) -> &str {
        &self.shared.host
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.shared.requests.load(Ordering::Relaxed),
            bytes_sent: self.shared.sent.load(Ordering::Relaxed),
            bytes_received: self.shared.received.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Asking {
    /// Says goodbye, waits a moment for the far end's, and ends the carrier.
    fn drop(&mut self) {
        let alive = {
            let mut state = self.shared.state();
            state.closing = true;
            state.lost.is_none() && state.greeted
        };
        if alive {
            let mut bye = Vec::new();
            self.shared.state().near.bye(&mut bye);
            let _ = self.shared.write(&bye);
            // Closed, unless somebody is still writing.
            if let Ok(mut input) = self.shared.input.try_lock() {
                *input = None;
            }
            let begin = Instant::now();
            let mut state = self.shared.state();
            while state.lost.is_none() && begin.elapsed() < GOODBYE {
                state = self.shared.wait(state, Duration::from_millis(100));
            }
        }
        self.shared.carrier.end();
        drop(self.stop.take());
        // Something that ssh started may hold a pipe open: nobody waits for its reader.
        let deadline = Instant::now() + Duration::from_secs(1);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No method panics between two changes of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn ask(&self, request: &Request, object: &[u8]) -> Result<Reply, Unanswered> {
        const TICK: Duration = Duration::from_secs(1);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let number = self.open(request)?;
        let mut sent = 0;
        loop {
            let mut state = self.state();
            let credit = loop {
                if let Some(result) = state.results.remove(&number) {
                    if sent < object.len() {
                        let mut out = Vec::new();
                        state.near.cancel(number, &mut out);
                        drop(state);
                        self.write(&out)?;
                    }
                    self.changed.notify_all();
                    return result.map_err(Unanswered::Failed);
                }
                if let Some(loss) = &state.lost {
                    return Err(Unanswered::Lost(loss.cause.clone()));
                }
                let credit = state.near.credit(number);
                if credit > 0 {
                    break credit;
                }
                state = self.wait(state, TICK);
            };
            let mut out = Vec::new();
            let piece = &object[sent..sent + credit];
            // Only this thread sends for this request, so that the credit is still there.
            let data = state.near.data(number, piece, &mut out);
            drop(state);
            data.map_err(|error| Unanswered::Lost(error.to_string()))?;
            self.write(&out)?;
            sent += credit;
        }
    }

    /// Begins a request once there is room for one more.
    fn open(&self, request: &Request) -> Result<u32, Unanswered> {
        loop {
            let mut state = self.state();
            while state.lost.is_none() && state.near.open() == REQUESTS_MAX {
                state = self.wait(state, Duration::from_secs(1));
            }
            drop(state);
            let mut out = Vec::new();
            // The pipe first: whoever gets the lower number writes first.
            let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
            let number = {
                let mut state = self.state();
                if let Some(loss) = &state.lost {
                    return Err(Unanswered::Lost(loss.cause.clone()));
                }
                if state.near.open() == REQUESTS_MAX {
                    continue;
                }
                state
                    .near
                    .begin(request, &mut out)
                    .map_err(|error| Unanswered::Lost(error.to_string()))?
            };
            let written = self.write_to(&mut input, &out);
            drop(input);
            return written.map(|()| number).map_err(|()| self.reason());
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Unanswered> {
        if let Some(limit) = &self.limit {
            limit.take(bytes.len());
        }
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.write_to(&mut input, bytes);
        drop(input);
        written.map_err(|()| self.reason())
    }

    fn write_to(&self, input: &mut Option<Box<dyn Write + Send>>, bytes: &[u8]) -> Result<(), ()> {
        let pipe = input.as_mut().ok_or(())?;
        pipe.write_all(bytes)
            .and_then(|()| pipe.flush())
            .map_err(|_| ())?;
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.state().said = Instant::now();
        Ok(())
    }

    /// Why the pipe is closed: the reader hears of it a moment later than whoever writes.
    fn reason(&self) -> Unanswered {
        let begin = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(loss) = &state.lost {
                return Unanswered::Lost(loss.cause.clone());
            }
            let patience = if state.ending { REASON } else { END };
            if begin.elapsed() > patience {
                drop(state);
                self.lose("it does not take what is sent");
                state = self.state();
                continue;
            }
            state = self.wait(state, Duration::from_millis(20));
        }
    }

    /// Reads to the end, and then says why it ended.
    fn read(&self, mut output: Box<dyn Read + Send>) {
        let mut buffer = vec![0; READ_BYTES];
        let mut too_much = false;
        let error = loop {
            let read = match output.read(&mut buffer) {
                Ok(0) => break self.state().near.end().err(),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break Some(WireError::Cut),
            };
            self.received.fetch_add(read as u64, Ordering::Relaxed);
            self.state().heard = Instant::now();
            if let Some(limit) = &self.limit {
                limit.take(read);
            }
            if let Err(error) = self.hear(&buffer[..read]) {
                too_much = matches!(error, WireError::NoGreeting { .. });
                break Some(error);
            }
        };
        let (greeted, known) = {
            let mut state = self.state();
            state.ending = true;
            (state.greeted, state.lost.is_some())
        };
        if known {
            return;
        }
        let foreign = !matches!(error, None | Some(WireError::Cut));
        if foreign && !matches!(error, Some(WireError::NoGreeting { .. })) {
            self.carrier.end();
            self.lost(Loss::of(error.as_ref()));
            return;
        }
        if too_much {
            // It may go on printing for ever; what it ends with then says nothing.
            self.carrier.end();
            self.lost(Loss::after(error.as_ref(), None, greeted));
            return;
        }
        let ending = self.carrier.last_words();
        self.lost(Loss::after(error.as_ref(), ending, greeted));
    }

    fn hear(&self, bytes: &[u8]) -> Result<(), WireError> {
        let mut state = self.state();
        state.near.push(bytes);
        while let Some(event) = state.near.next_event()? {
            match event {
                NearEvent::Greeted(_) => state.greeted = true,
                NearEvent::Done { request, result } => {
                    state.results.insert(request, result);
                }
                NearEvent::Bye(reason) => {
                    if !state.closing {
                        let cause = format!("the far end ended: {reason}");
                        state.lost.get_or_insert(Loss::plain(cause));
                    }
                }
                NearEvent::Credit { .. } | NearEvent::Pong => {}
            }
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Takes a far end for gone that is silent.
    fn watch(&self, stopped: &Receiver<()>) {
        let tick = (self.times.dead / 8).clamp(Duration::from_millis(10), Duration::from_secs(5));
        while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
            let silent = {
                let state = self.state();
                state.greeted && state.lost.is_none() && state.heard.elapsed() > self.times.dead
            };
            if silent {
                let secs = self.times.dead.as_secs_f32().ceil();
                self.lose(&format!("nothing came from it for {secs} s"));
            }
        }
    }

    fn ping(&self, stopped: &Receiver<()>) {
        let tick = (self.times.ping / 4).max(Duration::from_millis(5));
        while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
            let mut out = Vec::new();
            {
                let state = self.state();
                if !state.greeted || state.lost.is_some() || state.closing {
                    continue;
                }
                if state.said.elapsed() < self.times.ping {
                    continue;
                }
                state.near.ping(&mut out);
            }
            // Whoever holds the pipe is sending, which is as good.
            if let Ok(mut input) = self.input.try_lock() {
                let _ = self.write_to(&mut input, &out);
            }
        }
    }

    /// Ends the link because of `cause`.
    fn lose(&self, cause: &str) {
        self.lost(Loss::plain(cause.to_owned()));
        self.carrier.end();
    }

    fn lost(&self, loss: Loss) {
        self.state().lost.get_or_insert(loss);
        self.changed.notify_all();
    }
}

impl Loss {
    fn plain(cause: String) -> Self {
        Self {
            cause,
            hint: String::new(),
            no_program: false,
            carrier_failed: false,
        }
    }

    fn of(error: Option<&WireError>) -> Self {
        match error {
            Some(error) => Self::plain(error.to_string()),
            None => Self::plain("the connection was lost".to_owned()),
        }
    }

    /// The carrier's words come first: what the stream looked like follows from them.
    fn after(error: Option<&WireError>, ending: Option<super::Ending>, greeted: bool) -> Self {
        const SHELL: &str = "whatever the far side's shell prints when nobody is at its terminal \
                             must go: see its .bashrc, or the like";
        let noise = match error {
            Some(WireError::NoGreeting { bytes, .. }) => *bytes > 0,
            _ => false,
        };
        match ending {
            Some(ending) => {
                let cause = match error {
                    Some(error) if noise => format!("{error}; {}", ending.cause),
                    _ if greeted => format!("the connection was lost: {}", ending.cause),
                    _ => ending.cause,
                };
                Self {
                    cause,
                    hint: ending.hint,
                    no_program: ending.no_program,
                    carrier_failed: ending.carrier_failed,
                }
            }
            None => Self {
                hint: if noise { SHELL.into() } else { String::new() },
                ..Self::of(error)
            },
        }
    }
}
