//! A run at the far end that needs the near one: its stores, its answers, its ear.
//!
//! The near end still asks and the far end still answers. While a run is under way at the far end, the
//! near one keeps asking what the run wants next ([`attend`]), does it, and gives it what came of it;
//! at the far end [`Calls`] holds what the run wants until it is asked for. So a link has no second
//! direction, and each end still says only what the other one waits for (`docs/wire-protocol.md`,
//! "Runs").

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use podkeep_format::codec::Encoder;
use podkeep_format::wire::{
    ASSEMBLY_BYTES_MAX, Action, Answer, Call, FIRST_CREDIT, Failure, FailureCode, OBJECT_BYTES_MAX,
    ORDER_BYTES_MAX, Reply, Request, Row, TOLD_BYTES_MAX, decode_told, encode_told,
};

use super::{Ask, Serve, Sink, Traffic, Unanswered};

/// Calls with more than [`FIRST_CREDIT`] bytes that a run has under way at once: fewer than a far end has
/// threads for requests, so that others pass them.
const LARGE_MAX: usize = 3;
/// Threads of the near end that do what the run wants.
const TAKERS: usize = 8;
/// What a run has said and nobody has heard yet; it waits when there is more.
const TOLD_MAX: usize = 64;
/// Content is sent in pieces of this size, so that others' get in between.
const PIECE_BYTES: usize = 1 << 20;
/// Between two looks at whether the run is to stop.
const TICK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(1);

/// What a far end does when it is told to work.
pub trait Work: Send + Sync {
    /// `Err`: it was not begun. That it failed is an answer.
    fn work(&self, job: &[u8], calls: &Arc<Calls>) -> Result<Vec<u8>, String>;
}

/// The far end's side: what a run wants of the near end, from any number of threads.
#[derive(Default)]
pub struct Calls {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Calls that nobody has taken yet, encoded.
    queue: VecDeque<Vec<u8>>,
    told: VecDeque<Vec<u8>>,
    open: BTreeMap<u32, Open>,
    last: u32,
    large: usize,
    running: bool,
    over: bool,
    /// The near end is gone.
    lost: bool,
    stop: Option<u8>,
}

struct Open {
    /// An object that is fetched.
    object: Option<Arc<Vec<u8>>>,
    given: Option<(Result<Answer, Failure>, Vec<u8>)>,
}

const GONE: &str = "the podkeep at the other end is gone";

impl Calls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, PATIENCE);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Why the run is to end: the number of a signal.
    pub fn stopped(&self) -> Option<u8> {
        /// As if the near end had asked for a clean end.
        const TERM: u8 = 15;
        let state = self.state();
        state.stop.or(state.lost.then_some(TERM))
    }

    /// Says something to the near end, at most [`TOLD_BYTES_MAX`] bytes; `false`: it cannot be said.
    pub fn tell(&self, bytes: &[u8]) -> bool {
        if bytes.is_empty() || bytes.len() > TOLD_BYTES_MAX {
            return false;
        }
        let mut state = self.state();
        while state.told.len() >= TOLD_MAX && !state.lost {
            state = self.wait(state);
        }
        if state.lost {
            return false;
        }
        state.told.push_back(bytes.to_vec());
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Asks the near end something, at most [`ORDER_BYTES_MAX`] bytes, and waits for what it says.
    pub fn question(&self, question: &[u8]) -> Result<Vec<u8>, Unanswered> {
        if question.len() > ORDER_BYTES_MAX {
            return Err(Unanswered::Failed(refusal("the question is too long")));
        }
        let question = question.to_vec();
        let call = |number| Call::Ask { number, question };
        let (outcome, data) = self.call(call, None, false)?;
        outcome.map(|_| data).map_err(Unanswered::Failed)
    }

    /// The near end's store of this number.
    pub fn store(self: &Arc<Self>, store: u64, host: &str) -> NearStore {
        NearStore {
            calls: Arc::clone(self),
            store,
            host: host.to_owned(),
        }
    }

    fn call(
        &self,
        call: impl FnOnce(u32) -> Call,
        object: Option<Arc<Vec<u8>>>,
        large: bool,
    ) -> Result<(Result<Answer, Failure>, Vec<u8>), Unanswered> {
        let mut state = self.state();
        while large && state.large >= LARGE_MAX && !state.lost {
            state = self.wait(state);
        }
        let lost = || Err(Unanswered::Lost(GONE.to_owned()));
        if state.lost {
            return lost();
        }
        let Some(number) = state.last.checked_add(1) else {
            return Err(Unanswered::Failed(refusal("the run called too often")));
        };
        state.last = number;
        state.large += usize::from(large);
        state.queue.push_back(call(number).encode());
        let given = None;
        state.open.insert(number, Open { object, given });
        self.changed.notify_all();
        let given = loop {
            let given = state.open.get_mut(&number).and_then(|one| one.given.take());
            if given.is_some() || state.lost {
                break given;
            }
            state = self.wait(state);
        };
        state.open.remove(&number);
        state.large -= usize::from(large);
        drop(state);
        self.changed.notify_all();
        given.map_or_else(lost, Ok)
    }

    fn begin(&self) -> Result<(), Failure> {
        let mut state = self.state();
        if state.running {
            return Err(refusal("another run is under way over this connection"));
        }
        state.running = true;
        state.over = false;
        state.stop = None;
        Ok(())
    }

    fn end(&self) {
        let mut state = self.state();
        state.running = false;
        state.over = true;
        drop(state);
        self.changed.notify_all();
    }

    fn next(&self) -> Vec<u8> {
        let mut state = self.state();
        loop {
            if let Some(call) = state.queue.pop_front() {
                return call;
            }
            if state.over || state.lost {
                return Call::Over.encode();
            }
            state = self.wait(state);
        }
    }

    fn heard(&self) -> Vec<u8> {
        let mut state = self.state();
        while state.told.is_empty() && !state.over && !state.lost {
            state = self.wait(state);
        }
        let (count, bytes) = encode_told(state.told.iter().map(Vec::as_slice));
        state.told.drain(..count);
        drop(state);
        self.changed.notify_all();
        bytes
    }

    fn object(&self, call: u32) -> Result<Arc<Vec<u8>>, Failure> {
        let state = self.state();
        let object = state.open.get(&call).and_then(|open| open.object.clone());
        object.ok_or_else(|| refusal("no call has this number and an object"))
    }

    fn give(
        &self,
        call: u32,
        outcome: Result<Answer, Failure>,
        data: &[u8],
    ) -> Result<(), Failure> {
        let mut state = self.state();
        match state.open.get_mut(&call) {
            Some(open) if open.given.is_none() => open.given = Some((outcome, data.to_vec())),
            _ => return Err(refusal("no call waits under this number")),
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }
}

fn refusal(cause: &str) -> Failure {
    Failure {
        code: FailureCode::Refused,
        action: Action::Open,
        object: String::new(),
        cause: cause.to_owned(),
    }
}

/// A store that the near end has, from a run at the far one.
pub struct NearStore {
    calls: Arc<Calls>,
    store: u64,
    host: String,
}

impl Ask for NearStore {
    fn ask(&self, request: &Request, object: &[u8]) -> Result<Reply, Unanswered> {
        let inline = object.len() as u64 <= FIRST_CREDIT;
        let large = !inline
            || match request {
                Request::Get { bytes_max, .. } => *bytes_max > FIRST_CREDIT,
                Request::GetRange { len, .. } => *len > FIRST_CREDIT,
                _ => false,
            };
        let call = |number| Call::Store {
            number,
            store: self.store,
            request: request.clone(),
            object: if inline { object.to_vec() } else { Vec::new() },
        };
        let fetched = (!inline).then(|| Arc::new(object.to_vec()));
        let (outcome, data) = self.calls.call(call, fetched, large)?;
        let answer = outcome.map_err(Unanswered::Failed)?;
        Reply::of(request, answer, &data).map_err(|error| Unanswered::Lost(error.to_string()))
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

/// The far end of [`attend`]: what runs ask for goes to the run, everything else to `others`.
pub struct Working<S> {
    pub calls: Arc<Calls>,
    pub work: Box<dyn Work>,
    pub others: S,
}

impl<S: Serve> Serve for Working<S> {
    fn serve(
        &self,
        request: &Request,
        object: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        match request {
            Request::Work { job, bytes_max } => {
                self.calls.begin()?;
                let answer = self.work.work(job, &self.calls);
                self.calls.end();
                let answer = answer.map_err(|cause| refusal(&cause))?;
                match answer.len() as u64 <= *bytes_max {
                    true => Ok(content(&answer, sink)),
                    false => Err(refusal("the answer is longer than was asked for")),
                }
            }
            Request::Next => Ok(content(&self.calls.next(), sink)),
            Request::Hear => Ok(content(&self.calls.heard(), sink)),
            Request::Fetch { call, bytes_max } => {
                let object = self.calls.object(*call)?;
                match object.len() as u64 <= *bytes_max {
                    true => Ok(content(&object, sink)),
                    false => Err(refusal("the object is longer than was asked for")),
                }
            }
            Request::Give { call, outcome, .. } => {
                self.calls.give(*call, outcome.clone(), object)?;
                Ok(Answer::Done)
            }
            Request::Stop { signal } => {
                self.calls.state().stop = Some(*signal);
                self.calls.changed.notify_all();
                Ok(Answer::Done)
            }
            _ => self.others.serve(request, object, sink),
        }
    }

    fn ended(&self) {
        self.calls.state().lost = true;
        self.calls.changed.notify_all();
        self.others.ended();
    }
}

fn content(bytes: &[u8], sink: &mut dyn Sink) -> Answer {
    for piece in bytes.chunks(PIECE_BYTES) {
        if !sink.content(piece) {
            break;
        }
    }
    Answer::Content {
        len: bytes.len() as u64,
        hash: *blake3::hash(bytes).as_bytes(),
    }
}

/// What the near end does for a run; from several threads.
pub trait Attend: Sync {
    /// A request to a store, which is looked at first: it comes from the far end.
    fn store(
        &self,
        store: u64,
        request: &Request,
        object: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure>;

    fn ask(&self, question: &[u8]) -> Result<Vec<u8>, Failure>;

    /// In the order in which the run said it.
    fn tell(&self, told: &[u8]);

    /// The run is to end as after this signal.
    fn stop(&self) -> Option<u8>;
}

/// Has the far end work, and attends to what it wants meanwhile. Holds objects of at most
/// [`ASSEMBLY_BYTES_MAX`] together, or a single one that is larger, and listings of its own stores.
pub fn attend(
    link: &dyn Ask,
    job: &[u8],
    bytes_max: u64,
    near: &dyn Attend,
) -> Result<Vec<u8>, Unanswered> {
    let attending = Attending {
        link,
        near,
        room: Room::default(),
        over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let started = (0..TAKERS)
            .try_for_each(|number| {
                let name = format!("podkeep-calls-{number}");
                spawn(scope, &name, || attending.take())
            })
            .and_then(|()| spawn(scope, "podkeep-hear", || attending.hear()))
            .and_then(|()| spawn(scope, "podkeep-stop", || attending.watch()));
        let (job, bytes_max) = match started {
            Ok(()) => (job.to_vec(), bytes_max),
            // No job at all: whoever waits for its calls hears that it is over.
            Err(_) => (Vec::new(), 0),
        };
        let answer = link.ask(&Request::Work { job, bytes_max }, b"");
        attending.over.store(true, Ordering::Relaxed);
        started?;
        match answer? {
            Reply::Content(bytes) => Ok(bytes),
            _ => Err(odd()),
        }
    })
}

fn spawn<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    name: &str,
    run: impl FnOnce() + Send + 's,
) -> Result<(), Unanswered> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    match thread.spawn_scoped(scope, run) {
        Ok(_) => Ok(()),
        Err(error) => Err(Unanswered::Lost(format!("cannot start a thread: {error}"))),
    }
}

fn odd() -> Unanswered {
    Unanswered::Lost("it answered another question".to_owned())
}

struct Attending<'a> {
    link: &'a dyn Ask,
    near: &'a dyn Attend,
    room: Room,
    over: AtomicBool,
}

impl Attending<'_> {
    fn content(&self, request: &Request) -> Option<Vec<u8>> {
        match self.link.ask(request, b"") {
            Ok(Reply::Content(bytes)) => Some(bytes),
            // Whoever waits for the run's answer hears why.
            _ => None,
        }
    }

    /// Takes calls until the run is over, or the far end says what makes no sense: the run then waits
    /// in vain, and ends with the link.
    fn take(&self) {
        while let Some(bytes) = self.content(&Request::Next) {
            let given = match Call::decode(&bytes) {
                Ok(Call::Over) | Err(_) => return,
                Ok(Call::Ask { number, question }) => {
                    let answer = self.near.ask(&question);
                    let (outcome, data) = match answer {
                        Ok(data) => (Ok(content_answer(&data)), data),
                        Err(failure) => (Err(failure), Vec::new()),
                    };
                    self.give(number, outcome, &data)
                }
                Ok(Call::Store {
                    number,
                    store,
                    request,
                    object,
                }) => self.serve(number, store, &request, object),
            };
            if !given {
                return;
            }
        }
    }

    fn serve(&self, number: u32, store: u64, request: &Request, mut object: Vec<u8>) -> bool {
        let mut held = Held {
            room: &self.room,
            bytes: 0,
        };
        if let Some((len, hash)) = request.body().filter(|(len, _)| *len > FIRST_CREDIT) {
            held.take(len);
            let fetch = Request::Fetch {
                call: number,
                bytes_max: len,
            };
            let Some(fetched) = self.content(&fetch) else {
                return false;
            };
            if fetched.len() as u64 != len || *blake3::hash(&fetched).as_bytes() != hash {
                let cause = "the bytes that arrived are not those that were announced";
                return self.give(number, Err(refusal(cause)), b"");
            }
            object = fetched;
        }
        let mut sink = Gathered {
            held: &mut held,
            bytes: Vec::new(),
        };
        let outcome = self.near.store(store, request, &object, &mut sink);
        let data = if outcome.is_ok() {
            std::mem::take(&mut sink.bytes)
        } else {
            Vec::new()
        };
        drop(object);
        self.give(number, outcome, &data)
    }

    fn give(&self, call: u32, outcome: Result<Answer, Failure>, data: &[u8]) -> bool {
        let (outcome, data) = match data.len() as u64 > OBJECT_BYTES_MAX {
            true => (Err(refusal("it is too large to be sent")), &b""[..]),
            false => (outcome, data),
        };
        let give = Request::Give {
            call,
            outcome,
            len: data.len() as u64,
            hash: *blake3::hash(data).as_bytes(),
        };
        // A call that nobody waits for any more is no reason to end.
        !matches!(self.link.ask(&give, data), Err(Unanswered::Lost(_)))
    }

    fn hear(&self) {
        while let Some(bytes) = self.content(&Request::Hear) {
            match decode_told(&bytes) {
                Ok(told) if !told.is_empty() => {
                    for one in told {
                        self.near.tell(&one);
                    }
                }
                _ => return,
            }
        }
    }

    fn watch(&self) {
        while !self.over.load(Ordering::Relaxed) {
            if let Some(signal) = self.near.stop() {
                // A link that is gone stops the run, too.
                let _ = self.link.ask(&Request::Stop { signal }, b"");
                return;
            }
            std::thread::sleep(TICK);
        }
    }
}

fn content_answer(data: &[u8]) -> Answer {
    Answer::Content {
        len: data.len() as u64,
        hash: *blake3::hash(data).as_bytes(),
    }
}

/// How many bytes of objects are held.
#[derive(Default)]
struct Room {
    held: Mutex<u64>,
    changed: Condvar,
}

impl Room {
    /// Waits until there is room for `bytes`; one that is larger than all of it comes alone.
    fn take(&self, bytes: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while *held > 0 && *held + bytes > ASSEMBLY_BYTES_MAX {
            let waited = self.changed.wait(held);
            held = waited.unwrap_or_else(PoisonError::into_inner);
        }
        *held += bytes;
    }

    fn free(&self, bytes: u64) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        self.changed.notify_all();
    }
}

/// Of one call.
struct Held<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Held<'_> {
    /// At most once for a call, so that no two wait for each other.
    fn take(&mut self, bytes: u64) {
        if self.bytes == 0 && bytes > FIRST_CREDIT {
            self.room.take(bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.free(self.bytes);
        }
    }
}

/// Content or rows for a call, together.
struct Gathered<'a, 'r> {
    held: &'a mut Held<'r>,
    bytes: Vec<u8>,
}

impl Sink for Gathered<'_, '_> {
    fn expect(&mut self, bytes: u64) {
        self.held.take(bytes);
        // Never more than there is room for one object.
        self.bytes.reserve(bytes.min(OBJECT_BYTES_MAX) as usize);
    }

    fn content(&mut self, bytes: &[u8]) -> bool {
        if (self.bytes.len() + bytes.len()) as u64 > OBJECT_BYTES_MAX {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }

    fn rows(&mut self, rows: &[Row]) -> bool {
        let mut out = Encoder::new();
        for row in rows {
            row.encode(&mut out);
        }
        self.content(out.as_slice())
    }
}
