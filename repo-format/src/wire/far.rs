//! The end that answers.

use std::collections::{BTreeMap, VecDeque};

use super::frame::{self, Frame};
use super::inbox::Inbox;
use super::message::cut;
use super::{
    ASSEMBLY_BYTES_MAX, Action, Answer, FIRST_CREDIT, Failure, FailureCode, FrameKind, Greeting,
    OBJECT_BYTES_MAX, PAYLOAD_BYTES_MAX, REQUESTS_MAX, Request, Row, WINDOW_BYTES, WireError,
};
use crate::codec::Encoder;

/// What the near end wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FarEvent {
    Greeted(Greeting),
    Task(Task),
    /// No more requests come; those that are open still want their answers.
    Bye,
}

/// A request with all its bytes. It must be ended, by [`Far::answer`] or [`Far::fail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub number: u32,
    pub request: Request,
    /// The object to be stored; its hash was compared.
    pub body: Vec<u8>,
}

enum Open {
    /// Its object is coming in.
    Body(Box<Body>),
    /// It was handed out as a task; so many bytes of objects that are taken in are its.
    Task { assembled: u64 },
    /// It has failed; what is still on its way is thrown away.
    Refused { credit: u64 },
}

struct Body {
    request: Request,
    bytes: Vec<u8>,
    hasher: blake3::Hasher,
    len: u64,
    hash: [u8; 32],
    /// Bytes that may still come without another grant.
    credit: u64,
    admitted: bool,
}

/// What it holds: objects that come in, up to [`ASSEMBLY_BYTES_MAX`] together (or one, of up to
/// [`OBJECT_BYTES_MAX`]), [`FIRST_CREDIT`] for each other open request, and one frame.
pub struct Far {
    inbox: Inbox,
    own: Greeting,
    greeted: bool,
    open: BTreeMap<u32, Open>,
    /// Objects that wait for room, in the order in which they were asked for.
    waiting: VecDeque<u32>,
    /// Bytes of the objects that were let in.
    assembled: u64,
    last: u32,
}

impl Far {
    /// `podkeep` is this build's version, for people.
    pub fn new(podkeep: &str) -> Self {
        Self {
            // What stands in front of the near end's greeting is no shell's: nothing may.
            inbox: Inbox::new(0),
            own: Greeting::own(podkeep),
            greeted: false,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            assembled: 0,
            last: 0,
        }
    }

    /// To be sent before anything else.
    pub fn greeting(&self) -> Vec<u8> {
        self.own.encode()
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.inbox.push(bytes);
    }

    /// Bytes that this end holds.
    pub fn held(&self) -> usize {
        let bodies = self.open.values().map(|open| match open {
            Open::Body(body) => body.bytes.capacity(),
            Open::Task { assembled } => *assembled as usize,
            Open::Refused { .. } => 0,
        });
        self.inbox.held() + bodies.sum::<usize>()
    }

    /// Requests that have not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The next thing that the near end wants; to be called until there is none. What must be sent
    /// because of it is appended to `out`.
    pub fn next_event(&mut self, out: &mut Vec<u8>) -> Result<Option<FarEvent>, WireError> {
        if !self.greeted {
            let Some(theirs) = self.inbox.greeting()? else {
                return Ok(None);
            };
            self.own.agree(&theirs)?;
            self.greeted = true;
            return Ok(Some(FarEvent::Greeted(theirs)));
        }
        while let Some(frame) = self.inbox.frame()? {
            if let Some(event) = self.take(frame, out)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The near end's stream has ended: cleanly behind a whole frame, with nothing coming in.
    pub fn end(&self) -> Result<(), WireError> {
        self.inbox.end()?;
        match self
            .open
            .values()
            .any(|open| matches!(open, Open::Body { .. }))
        {
            true => Err(WireError::Cut),
            false => Ok(()),
        }
    }

    /// Content that was asked for, in pieces of any length.
    pub fn content(&self, number: u32, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.chunks(PAYLOAD_BYTES_MAX) {
            frame::append(out, FrameKind::Data, number, piece);
        }
    }

    /// Rows that were asked for, in the order of their names.
    pub fn rows(&self, number: u32, rows: &[Row], out: &mut Vec<u8>) {
        let mut payload = Encoder::new();
        for row in rows {
            let mut one = Encoder::new();
            row.encode(&mut one);
            if payload.len() + one.len() > PAYLOAD_BYTES_MAX {
                frame::append(out, FrameKind::Data, number, payload.as_slice());
                payload = Encoder::new();
            }
            payload.raw(one.as_slice());
        }
        if !payload.is_empty() {
            frame::append(out, FrameKind::Data, number, payload.as_slice());
        }
    }

    pub fn answer(&mut self, number: u32, answer: &Answer, out: &mut Vec<u8>) {
        frame::append(out, FrameKind::Answer, number, &answer.encode());
        self.ended(number, out);
    }

    pub fn fail(&mut self, number: u32, failure: &Failure, out: &mut Vec<u8>) {
        frame::append(out, FrameKind::Failure, number, &failure.encode());
        self.ended(number, out);
    }

    /// Says why this end ends.
    pub fn bye(&self, reason: &str, out: &mut Vec<u8>) {
        frame::append(out, FrameKind::Bye, 0, cut(reason, 1024).as_bytes());
    }

    /// The task's memory is free again.
    fn ended(&mut self, number: u32, out: &mut Vec<u8>) {
        if let Some(Open::Task { assembled }) = self.open.remove(&number) {
            self.assembled -= assembled;
        }
        self.admit(out);
    }

    /// Lets objects in that there is room for, in their order.
    fn admit(&mut self, out: &mut Vec<u8>) {
        while let Some(number) = self.waiting.front().copied() {
            if let Some(Open::Body(body)) = self.open.get_mut(&number) {
                if self.assembled > 0 && self.assembled + body.len > ASSEMBLY_BYTES_MAX {
                    return;
                }
                self.assembled += body.len;
                body.admitted = true;
                body.grant(number, out);
            }
            self.waiting.pop_front();
        }
    }

    fn take(&mut self, frame: Frame, out: &mut Vec<u8>) -> Result<Option<FarEvent>, WireError> {
        let number = frame.request;
        match frame.kind {
            FrameKind::Ping => {
                frame::append(out, FrameKind::Pong, 0, &[]);
                Ok(None)
            }
            FrameKind::Bye => Ok(Some(FarEvent::Bye)),
            FrameKind::Request => {
                if number <= self.last {
                    return Err(WireError::Order("a request's number was used before"));
                }
                if self.open.len() == REQUESTS_MAX {
                    return Err(WireError::Order("too many requests at once"));
                }
                self.last = number;
                let request = Request::decode(&frame.payload)?;
                self.begin(number, request, out)
            }
            FrameKind::Data => self.data(number, &frame.payload, out),
            FrameKind::Cancel => match self.open.remove(&number) {
                Some(Open::Refused { .. }) => Ok(None),
                _ => Err(WireError::Order("only what has failed is cancelled")),
            },
            FrameKind::Answer | FrameKind::Failure | FrameKind::Credit | FrameKind::Pong => {
                Err(WireError::Order("a frame that only the far end sends"))
            }
        }
    }

    fn begin(
        &mut self,
        number: u32,
        request: Request,
        out: &mut Vec<u8>,
    ) -> Result<Option<FarEvent>, WireError> {
        let Some((len, hash)) = request.body() else {
            self.open.insert(number, Open::Task { assembled: 0 });
            return Ok(Some(FarEvent::Task(Task {
                number,
                request,
                body: Vec::new(),
            })));
        };
        if len > OBJECT_BYTES_MAX {
            let cause = format!("objects are at most {OBJECT_BYTES_MAX} bytes long");
            let credit = FIRST_CREDIT;
            self.open.insert(number, Open::Refused { credit });
            frame::append(
                out,
                FrameKind::Failure,
                number,
                &refusal(&request, cause).encode(),
            );
            return Ok(None);
        }
        let mut body = Box::new(Body {
            request,
            bytes: Vec::new(),
            hasher: blake3::Hasher::new(),
            len,
            hash,
            credit: FIRST_CREDIT,
            admitted: false,
        });
        if len <= FIRST_CREDIT {
            // It needs no grant, and its room is not counted: it may come before anybody else's.
            body.admitted = true;
            self.open.insert(number, Open::Body(body));
            return match len {
                0 => self.complete(number, out),
                _ => Ok(None),
            };
        }
        self.open.insert(number, Open::Body(body));
        self.waiting.push_back(number);
        self.admit(out);
        Ok(None)
    }

    fn data(
        &mut self,
        number: u32,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<FarEvent>, WireError> {
        let len = payload.len() as u64;
        match self.open.get_mut(&number) {
            Some(Open::Refused { credit }) => {
                *credit = credit
                    .checked_sub(len)
                    .ok_or(WireError::Order("data without credit"))?;
                Ok(None)
            }
            Some(Open::Body(body)) => {
                body.credit = body
                    .credit
                    .checked_sub(len)
                    .ok_or(WireError::Order("data without credit"))?;
                if len == 0 || body.bytes.len() as u64 + len > body.len {
                    return Err(WireError::Order("data behind the end of an object"));
                }
                body.hasher.update(payload);
                body.take(payload);
                if body.bytes.len() as u64 == body.len {
                    return self.complete(number, out);
                }
                if body.admitted {
                    body.grant(number, out);
                }
                Ok(None)
            }
            _ => Err(WireError::Order("data that belongs to no request")),
        }
    }

    /// All bytes of an object have come.
    fn complete(&mut self, number: u32, out: &mut Vec<u8>) -> Result<Option<FarEvent>, WireError> {
        let Some(Open::Body(body)) = self.open.remove(&number) else {
            return Err(WireError::Order("data that belongs to no request"));
        };
        let assembled = match body.len <= FIRST_CREDIT {
            true => 0,
            false => body.len,
        };
        self.open.insert(number, Open::Task { assembled });
        if *body.hasher.finalize().as_bytes() != body.hash {
            let cause = "the bytes that arrived are not those that were sent".to_owned();
            self.fail(number, &refusal(&body.request, cause), out);
            return Ok(None);
        }
        Ok(Some(FarEvent::Task(Task {
            number,
            request: body.request,
            body: body.bytes,
        })))
    }
}

impl Body {
    /// Grows as bytes come, and never beyond the object's length.
    fn take(&mut self, payload: &[u8]) {
        let spare = self.bytes.capacity() - self.bytes.len();
        if spare < payload.len() {
            let missing = self.len as usize - self.bytes.len();
            let step = self.bytes.len().max(payload.len()).min(missing);
            self.bytes.reserve_exact(step);
        }
        self.bytes.extend_from_slice(payload);
    }

    /// Grants what the window has room for, in steps of a quarter.
    fn grant(&mut self, number: u32, out: &mut Vec<u8>) {
        let missing = self.len - self.bytes.len() as u64;
        let want = WINDOW_BYTES.min(missing).saturating_sub(self.credit);
        if want > 0 && (want >= WINDOW_BYTES / 4 || want + self.credit == missing) {
            self.credit += want;
            frame::append(out, FrameKind::Credit, number, &(want as u32).to_le_bytes());
        }
    }
}

fn refusal(request: &Request, cause: String) -> Failure {
    let object = match request {
        Request::Put { name, .. } | Request::Replace { name, .. } => name.clone(),
        _ => String::new(),
    };
    Failure {
        code: FailureCode::Io,
        action: Action::Write,
        object,
        cause,
    }
}
