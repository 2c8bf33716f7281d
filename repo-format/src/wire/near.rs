//! The end that asks.

use std::collections::BTreeMap;

use super::frame::{self, Frame};
use super::inbox::Inbox;
use super::message::cut;
use super::{
    Answer, CALL_BYTES_MAX, FIRST_CREDIT, Failure, FrameKind, Greeting, NOISE_BYTES_MAX,
    OBJECT_BYTES_MAX, PAYLOAD_BYTES_MAX, REQUESTS_MAX, ROWS_MAX, Request, Row, WINDOW_BYTES,
    WireError, sample,
};
use crate::codec::{Decoder, Defect};

/// What has happened at the far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NearEvent {
    /// The first event: the two speak the same protocol.
    Greeted(Greeting),
    /// More of the request's object may be sent: see [`Near::credit`].
    Credit {
        request: u32,
    },
    /// The request has ended.
    Done {
        request: u32,
        result: Result<Reply, Failure>,
    },
    Pong,
    /// The far end ends, and why.
    Bye(String),
}

/// An answer with the data that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Answer(Answer),
    /// The content that was asked for, whole: its hash was compared.
    Content(Vec<u8>),
    Rows(Vec<Row>),
}

impl Reply {
    /// An answer to `request` that came with all of its data at once.
    pub fn of(request: &Request, answer: Answer, data: &[u8]) -> Result<Self, WireError> {
        let mut expects = expects(request);
        if !data.is_empty() {
            expects.data(data)?;
        }
        expects.finish(answer)
    }
}

struct Pending {
    /// Bytes of the object that are not sent yet.
    unsent: u64,
    credit: u64,
    /// Answered before all was sent.
    failed: bool,
    expects: Expects,
}

enum Expects {
    Nothing(fn(&Answer) -> bool),
    Content {
        bytes: Vec<u8>,
        /// Exactly so many for a range, at most so many for a whole object.
        bytes_max: u64,
        hasher: Box<blake3::Hasher>,
    },
    Rows(Vec<Row>),
}

/// What it holds: what its own requests asked for, and [`Near::held`].
pub struct Near {
    inbox: Inbox,
    own: Greeting,
    greeted: bool,
    calls: BTreeMap<u32, Pending>,
    last: u32,
}

impl Near {
    /// `podkeep` is this build's version, for people.
    pub fn new(podkeep: &str) -> Self {
        Self {
            inbox: Inbox::new(NOISE_BYTES_MAX),
            own: Greeting::own(podkeep),
            greeted: false,
            calls: BTreeMap::new(),
            last: 0,
        }
    }

    /// To be sent before anything else.
    pub fn greeting(&self) -> Vec<u8> {
        self.own.encode()
    }

    /// Opens a request; returns its number.
    pub fn begin(&mut self, request: &Request, out: &mut Vec<u8>) -> Result<u32, WireError> {
        if self.calls.len() == REQUESTS_MAX {
            return Err(WireError::Order("too many requests at once"));
        }
        let Some(number) = self.last.checked_add(1) else {
            return Err(WireError::Order("the numbers of requests are used up"));
        };
        let unsent = request.body().map_or(0, |(len, _)| len);
        if unsent > OBJECT_BYTES_MAX {
            return Err(WireError::Order("the object is too large"));
        }
        self.last = number;
        self.calls.insert(
            number,
            Pending {
                unsent,
                credit: FIRST_CREDIT,
                failed: false,
                expects: expects(request),
            },
        );
        frame::append(out, FrameKind::Request, number, &request.encode());
        Ok(number)
    }

    /// How many bytes of the request's object may be sent now.
    pub fn credit(&self, request: u32) -> usize {
        self.calls.get(&request).map_or(0, |call| {
            call.credit.min(call.unsent).min(PAYLOAD_BYTES_MAX as u64) as usize
        })
    }

    /// The next bytes of the request's object: at most [`Near::credit`].
    pub fn data(&mut self, request: u32, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        let credit = self.credit(request);
        match self.calls.get_mut(&request) {
            Some(call) if bytes.len() <= credit && !call.failed => {
                call.unsent -= bytes.len() as u64;
                call.credit -= bytes.len() as u64;
            }
            _ => return Err(WireError::Order("data without credit")),
        }
        frame::append(out, FrameKind::Data, request, bytes);
        Ok(())
    }

    /// Ends a request that was answered before all of its object was sent.
    pub fn cancel(&mut self, request: u32, out: &mut Vec<u8>) {
        if self.calls.remove(&request).is_some() {
            frame::append(out, FrameKind::Cancel, request, &[]);
        }
    }

    pub fn ping(&self, out: &mut Vec<u8>) {
        frame::append(out, FrameKind::Ping, 0, &[]);
    }

    /// Says that no more requests come.
    pub fn bye(&self, out: &mut Vec<u8>) {
        frame::append(out, FrameKind::Bye, 0, &[]);
    }

    /// Requests that have not ended.
    pub fn open(&self) -> usize {
        self.calls.len()
    }

    /// Bytes that came before the greeting and were passed over.
    pub fn noise(&self) -> usize {
        self.inbox.noise()
    }

    /// Bytes that this end holds and nobody asked for.
    pub fn held(&self) -> usize {
        self.inbox.held()
    }

    /// Bytes from the far end, in whatever pieces.
    pub fn push(&mut self, bytes: &[u8]) {
        self.inbox.push(bytes);
    }

    /// The next thing that has happened; to be called until there is none.
    pub fn next_event(&mut self) -> Result<Option<NearEvent>, WireError> {
        if !self.greeted {
            let Some(theirs) = self.inbox.greeting()? else {
                return Ok(None);
            };
            self.own.agree(&theirs)?;
            self.greeted = true;
            return Ok(Some(NearEvent::Greeted(theirs)));
        }
        while let Some(frame) = self.inbox.frame()? {
            if let Some(event) = self.take(frame)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The far end's stream has ended.
    pub fn end(&self) -> Result<(), WireError> {
        self.inbox.end()?;
        match self.calls.is_empty() {
            true => Ok(()),
            false => Err(WireError::Cut),
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<NearEvent>, WireError> {
        let request = frame.request;
        match frame.kind {
            FrameKind::Pong => return Ok(Some(NearEvent::Pong)),
            FrameKind::Bye => {
                let reason = String::from_utf8_lossy(&frame.payload).into_owned();
                return Ok(Some(NearEvent::Bye(
                    sample(cut(&reason, 512).as_bytes()).replace('\n', " "),
                )));
            }
            FrameKind::Request | FrameKind::Ping | FrameKind::Cancel => {
                return Err(WireError::Order("a frame that only the near end sends"));
            }
            FrameKind::Data | FrameKind::Answer | FrameKind::Failure | FrameKind::Credit => {}
        }
        let Some(call) = self.calls.get_mut(&request).filter(|call| !call.failed) else {
            return Err(WireError::Order("an answer that nobody asked for"));
        };
        match frame.kind {
            FrameKind::Data => {
                call.expects.data(&frame.payload)?;
                Ok(None)
            }
            FrameKind::Credit => {
                let mut input = Decoder::new("credit", &frame.payload);
                let bytes = u64::from(input.u32()?);
                input.end()?;
                call.credit += bytes;
                if call.credit > WINDOW_BYTES.max(FIRST_CREDIT) {
                    return Err(WireError::Order("more credit than the window"));
                }
                Ok(Some(NearEvent::Credit { request }))
            }
            FrameKind::Failure => {
                let failure = Failure::decode(&frame.payload)?;
                // Whoever is sending hears of it, and cancels.
                match call.unsent {
                    0 => drop(self.calls.remove(&request)),
                    _ => call.failed = true,
                }
                Ok(Some(NearEvent::Done {
                    request,
                    result: Err(failure),
                }))
            }
            _ => {
                if call.unsent > 0 {
                    return Err(WireError::Order("an answer before the object was sent"));
                }
                let answer = Answer::decode(&frame.payload)?;
                let Some(call) = self.calls.remove(&request) else {
                    return Ok(None);
                };
                Ok(Some(NearEvent::Done {
                    request,
                    result: Ok(call.expects.finish(answer)?),
                }))
            }
        }
    }
}

fn expects(request: &Request) -> Expects {
    let content = |bytes_max: u64| Expects::Content {
        bytes: Vec::new(),
        bytes_max,
        hasher: Box::default(),
    };
    match request {
        Request::Open { .. } | Request::Make { .. } => {
            Expects::Nothing(|answer| matches!(answer, Answer::Opened { .. }))
        }
        Request::Put { .. } | Request::Replace { .. } => {
            Expects::Nothing(|answer| matches!(answer, Answer::Stored { .. }))
        }
        Request::Get { bytes_max, .. }
        | Request::Order { bytes_max, .. }
        | Request::Work { bytes_max, .. }
        | Request::Fetch { bytes_max, .. } => content(*bytes_max),
        Request::Next | Request::Hear => content(CALL_BYTES_MAX as u64),
        Request::GetRange { len, .. } => content(*len),
        Request::Size { .. } => Expects::Nothing(|answer| matches!(answer, Answer::Size(_))),
        Request::List { .. } | Request::TempOwners => Expects::Rows(Vec::new()),
        Request::Delete { .. } => Expects::Nothing(|answer| matches!(answer, Answer::Deleted(_))),
        Request::TempOwner { .. } | Request::Give { .. } | Request::Stop { .. } => {
            Expects::Nothing(|answer| matches!(answer, Answer::Done))
        }
        Request::SweepTemps(_) => Expects::Nothing(|answer| matches!(answer, Answer::Swept(_))),
    }
}

impl Expects {
    fn data(&mut self, payload: &[u8]) -> Result<(), WireError> {
        match self {
            Self::Nothing(_) => Err(WireError::Order("data that nobody asked for")),
            Self::Content {
                bytes,
                bytes_max,
                hasher,
            } => {
                if (bytes.len() + payload.len()) as u64 > *bytes_max {
                    return Err(WireError::Order("more bytes than were asked for"));
                }
                hasher.update(payload);
                bytes.extend_from_slice(payload);
                Ok(())
            }
            Self::Rows(rows) => {
                let mut input = Decoder::new("rows", payload);
                while input.remaining() > 0 {
                    if rows.len() as u64 == ROWS_MAX {
                        return Err(input.error(Defect::TooLarge("listing")).into());
                    }
                    let row = Row::decode(&mut input)?;
                    if rows.last().is_some_and(|last| last.name >= row.name) {
                        return Err(input.error(Defect::NotCanonical("order")).into());
                    }
                    rows.push(row);
                }
                Ok(())
            }
        }
    }

    fn finish(self, answer: Answer) -> Result<Reply, WireError> {
        const OTHER: WireError = WireError::Order("the answer is to another question");
        match (self, answer) {
            (Self::Nothing(fits), answer) if fits(&answer) => Ok(Reply::Answer(answer)),
            (Self::Content { bytes, hasher, .. }, Answer::Content { len, hash }) => {
                // A stream that something else wrote into, or a store that says what it likes.
                if len != bytes.len() as u64 || *hasher.finalize().as_bytes() != hash {
                    return Err(WireError::Order(
                        "the bytes that came are not those of the answer",
                    ));
                }
                Ok(Reply::Content(bytes))
            }
            (Self::Rows(rows), Answer::Listed { rows: count }) => {
                match count == rows.len() as u64 {
                    true => Ok(Reply::Rows(rows)),
                    false => Err(WireError::Order("a listing that lacks rows")),
                }
            }
            _ => Err(OTHER),
        }
    }
}
