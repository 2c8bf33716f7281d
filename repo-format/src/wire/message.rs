//! What is asked and answered. The verbs of stores are 1 to 31; those of hosts come behind.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{decode_bool, decode_text};

/// Of a store on the far machine.
pub const PATH_BYTES_MAX: usize = 4096;
/// Of an object or folder in a store, and of a temporary file's owner.
pub const NAME_BYTES_MAX: usize = 200;
/// Owners in one sweep: as many as fit into a frame.
const OWNERS_MAX: u64 = 300;
/// Of an order or a job: with what is around it, it fits into a frame.
pub const ORDER_BYTES_MAX: usize = 60 << 10;
const OBJECT_TEXT_BYTES_MAX: usize = 8192;
const CAUSE_BYTES_MAX: usize = 8192;
/// Of an answer or a failure, encoded.
const OUTCOME_BYTES_MAX: usize = 20 << 10;

/// A request of the near end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens the store at this path; must be the first request, once.
    Open {
        path: Vec<u8>,
    },
    /// Makes an empty store there and opens it.
    Make {
        path: Vec<u8>,
    },
    /// Stores an object of `len` bytes, which follow as data.
    Put {
        name: String,
        len: u64,
        /// BLAKE3 of the bytes.
        hash: [u8; 32],
    },
    /// The same, in the place of what is there.
    Replace {
        name: String,
        len: u64,
        hash: [u8; 32],
    },
    Get {
        name: String,
        bytes_max: u64,
    },
    GetRange {
        name: String,
        offset: u64,
        len: u64,
    },
    Size {
        name: String,
    },
    List {
        folder: String,
    },
    Delete {
        name: String,
    },
    /// Names whose the temporary files of later puts are.
    TempOwner {
        owner: String,
    },
    /// Lists the owners of all temporary files.
    TempOwners,
    /// Removes the temporary files of these owners.
    SweepTemps(OwnerBatch),
    /// Something to be done with the far host's Podman. What it says is the engine's business; the
    /// answer is content of at most `bytes_max` bytes.
    Order {
        order: Vec<u8>,
        bytes_max: u64,
    },
    /// Something to be done on the far host that calls the near end meanwhile. What it says is the
    /// engine's business; the answer is content of at most `bytes_max` bytes.
    Work {
        job: Vec<u8>,
        bytes_max: u64,
    },
    /// The next call of the run: the content is a [`Call`](super::Call).
    Next,
    /// What the run has to say: the content is [`super::told`]; nothing, once the run is over.
    Hear,
    /// The object of a call: content of exactly as many bytes as the call says, at most `bytes_max`.
    Fetch {
        call: u32,
        bytes_max: u64,
    },
    /// How a call ended, and `len` bytes of content that belong to that, as data.
    Give {
        call: u32,
        outcome: Result<Answer, Failure>,
        len: u64,
        hash: [u8; 32],
    },
    /// The run is to end as after this signal.
    Stop {
        signal: u8,
    },
}

/// Owners of temporary files, as many as go into one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerBatch(Vec<String>);

impl OwnerBatch {
    /// Adds one; hands it back when the batch is full.
    pub fn push(&mut self, owner: String) -> Result<(), String> {
        if self.0.len() as u64 == OWNERS_MAX {
            return Err(owner);
        }
        self.0.push(owner);
        Ok(())
    }

    pub fn owners(&self) -> &[String] {
        &self.0
    }
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        match self {
            Self::Open { path } => out.u8(1).bytes(path),
            Self::Make { path } => out.u8(2).bytes(path),
            Self::Put { name, len, hash } => {
                out.u8(3).bytes(name.as_bytes()).varint(*len).raw(hash)
            }
            Self::Replace { name, len, hash } => {
                out.u8(4).bytes(name.as_bytes()).varint(*len).raw(hash)
            }
            Self::Get { name, bytes_max } => out.u8(5).bytes(name.as_bytes()).varint(*bytes_max),
            Self::GetRange { name, offset, len } => out
                .u8(6)
                .bytes(name.as_bytes())
                .varint(*offset)
                .varint(*len),
            Self::Size { name } => out.u8(7).bytes(name.as_bytes()),
            Self::List { folder } => out.u8(8).bytes(folder.as_bytes()),
            Self::Delete { name } => out.u8(9).bytes(name.as_bytes()),
            Self::TempOwner { owner } => out.u8(10).bytes(owner.as_bytes()),
            Self::TempOwners => out.u8(11),
            Self::SweepTemps(batch) => {
                out.u8(12).varint(batch.0.len() as u64);
                for owner in &batch.0 {
                    out.bytes(owner.as_bytes());
                }
                &mut out
            }
            Self::Order { order, bytes_max } => out.u8(32).bytes(order).varint(*bytes_max),
            Self::Work { job, bytes_max } => out.u8(33).bytes(job).varint(*bytes_max),
            Self::Next => out.u8(34),
            Self::Hear => out.u8(35),
            Self::Fetch { call, bytes_max } => out.u8(36).u32(*call).varint(*bytes_max),
            Self::Give {
                call,
                outcome,
                len,
                hash,
            } => {
                out.u8(37).u32(*call);
                match outcome {
                    Ok(answer) => out.u8(1).bytes(&answer.encode()),
                    Err(failure) => out.u8(0).bytes(&failure.encode()),
                };
                out.varint(*len).raw(hash)
            }
            Self::Stop { signal } => out.u8(38).u8(*signal),
        };
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("request", bytes);
        let verb = input.u8()?;
        let name = |input: &mut Decoder<'_>| decode_text(input, "name", NAME_BYTES_MAX);
        let request = match verb {
            1 | 2 => {
                let path = input.bytes("path", PATH_BYTES_MAX)?.to_vec();
                match verb {
                    1 => Self::Open { path },
                    _ => Self::Make { path },
                }
            }
            3 | 4 => {
                let (name, len, hash) = (name(&mut input)?, input.varint()?, input.array()?);
                match verb {
                    3 => Self::Put { name, len, hash },
                    _ => Self::Replace { name, len, hash },
                }
            }
            5 => Self::Get {
                name: name(&mut input)?,
                bytes_max: input.varint()?,
            },
            6 => Self::GetRange {
                name: name(&mut input)?,
                offset: input.varint()?,
                len: input.varint()?,
            },
            7 => Self::Size {
                name: name(&mut input)?,
            },
            8 => Self::List {
                folder: name(&mut input)?,
            },
            9 => Self::Delete {
                name: name(&mut input)?,
            },
            10 => Self::TempOwner {
                owner: name(&mut input)?,
            },
            11 => Self::TempOwners,
            12 => {
                let count = input.bounded("owners", OWNERS_MAX)?;
                let mut batch = OwnerBatch::default();
                for _ in 0..count {
                    batch.0.push(name(&mut input)?);
                }
                Self::SweepTemps(batch)
            }
            32 => Self::Order {
                order: input.bytes("order", ORDER_BYTES_MAX)?.to_vec(),
                bytes_max: input.varint()?,
            },
            33 => Self::Work {
                job: input.bytes("job", ORDER_BYTES_MAX)?.to_vec(),
                bytes_max: input.varint()?,
            },
            34 => Self::Next,
            35 => Self::Hear,
            36 => Self::Fetch {
                call: input.u32()?,
                bytes_max: input.varint()?,
            },
            37 => {
                let call = input.u32()?;
                let succeeded = decode_bool(&mut input, "succeeded")?;
                let outcome = input.bytes("outcome", OUTCOME_BYTES_MAX)?;
                Self::Give {
                    call,
                    outcome: match succeeded {
                        true => Ok(Answer::decode(outcome)?),
                        false => Err(Failure::decode(outcome)?),
                    },
                    len: input.varint()?,
                    hash: input.array()?,
                }
            }
            38 => Self::Stop {
                signal: input.u8()?,
            },
            other => return input.fail(Defect::Tag("verb", u64::from(other))),
        };
        input.end()?;
        Ok(request)
    }

    /// How many bytes follow the request as data, and their hash.
    pub fn body(&self) -> Option<(u64, [u8; 32])> {
        match self {
            Self::Put { len, hash, .. }
            | Self::Replace { len, hash, .. }
            | Self::Give { len, hash, .. } => Some((*len, *hash)),
            _ => None,
        }
    }

    /// The verbs of stores, which a run may call, too.
    pub fn is_of_store(&self) -> bool {
        !matches!(
            self,
            Self::Order { .. }
                | Self::Work { .. }
                | Self::Next
                | Self::Hear
                | Self::Fetch { .. }
                | Self::Give { .. }
                | Self::Stop { .. }
        )
    }
}

/// How soon a listing of the far store shows what another client put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireMedium {
    Linearizable,
    Settles { secs: u32 },
    Undeclared,
}

/// How a request ended that succeeded; what came before it as data belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Open` and `Make`.
    Opened {
        medium: WireMedium,
        /// Bytes of the file system that the store lies on; 0 when that is not known.
        capacity: u64,
    },
    /// To `Put` and `Replace`; `created`: it was not there.
    Stored { created: bool },
    /// To `Get`, `GetRange`, `Order`, and what asks for a run's calls: length and BLAKE3 of the data.
    Content { len: u64, hash: [u8; 32] },
    /// To `Size`; `None`: no such object.
    Size(Option<u64>),
    /// To `List`, and to `TempOwners` (whose rows have the size 0): how many rows came as data.
    Listed { rows: u64 },
    /// To `Delete`; `false`: no such object.
    Deleted(bool),
    /// To `TempOwner`, `Give` and `Stop`.
    Done,
    /// To `SweepTemps`: files that were removed.
    Swept(u64),
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        match self {
            Self::Opened { medium, capacity } => {
                out.u8(1);
                match medium {
                    WireMedium::Linearizable => out.u8(0),
                    WireMedium::Settles { secs } => out.u8(1).u32(*secs),
                    WireMedium::Undeclared => out.u8(2),
                };
                out.varint(*capacity)
            }
            Self::Stored { created } => out.u8(2).u8(u8::from(*created)),
            Self::Content { len, hash } => out.u8(3).varint(*len).raw(hash),
            Self::Size(None) => out.u8(4).u8(0),
            Self::Size(Some(size)) => out.u8(4).u8(1).varint(*size),
            Self::Listed { rows } => out.u8(5).varint(*rows),
            Self::Deleted(deleted) => out.u8(6).u8(u8::from(*deleted)),
            Self::Done => out.u8(7),
            Self::Swept(files) => out.u8(8).varint(*files),
        };
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("answer", bytes);
        let answer = match input.u8()? {
            1 => Self::Opened {
                medium: match input.u8()? {
                    0 => WireMedium::Linearizable,
                    1 => WireMedium::Settles { secs: input.u32()? },
                    2 => WireMedium::Undeclared,
                    other => return input.fail(Defect::Tag("medium", u64::from(other))),
                },
                capacity: input.varint()?,
            },
            2 => Self::Stored {
                created: decode_bool(&mut input, "created")?,
            },
            3 => Self::Content {
                len: input.varint()?,
                hash: input.array()?,
            },
            4 => Self::Size(match decode_bool(&mut input, "size")? {
                true => Some(input.varint()?),
                false => None,
            }),
            5 => Self::Listed {
                rows: input.varint()?,
            },
            6 => Self::Deleted(decode_bool(&mut input, "deleted")?),
            7 => Self::Done,
            8 => Self::Swept(input.varint()?),
            other => return input.fail(Defect::Tag("answer", u64::from(other))),
        };
        input.end()?;
        Ok(answer)
    }
}

/// A row of a listing. A data frame of a listing holds whole rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub size: u64,
}

impl Row {
    pub fn encode(&self, out: &mut Encoder) {
        out.bytes(self.name.as_bytes()).varint(self.size);
    }

    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: decode_text(input, "name", NAME_BYTES_MAX)?,
            size: input.varint()?,
        })
    }
}

/// What the near end has to treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureCode {
    NotFound = 1,
    Conflict = 2,
    Short = 3,
    NoSpace = 4,
    NotWritable = 5,
    Io = 6,
    Unreachable = 7,
    /// The place for a new store has something else in it.
    Occupied = 8,
    /// The far end was told not to do this for whoever is at the near one.
    Refused = 9,
}

impl FailureCode {
    const ALL: [Self; 9] = [
        Self::NotFound,
        Self::Conflict,
        Self::Short,
        Self::NoSpace,
        Self::NotWritable,
        Self::Io,
        Self::Unreachable,
        Self::Occupied,
        Self::Refused,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    Open = 1,
    Create = 2,
    Read = 3,
    Write = 4,
    List = 5,
    Delete = 6,
}

impl Action {
    const ALL: [Self; 6] = [
        Self::Open,
        Self::Create,
        Self::Read,
        Self::Write,
        Self::List,
        Self::Delete,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }

    /// The action with this word; what nobody knows reads.
    pub fn of(word: &str) -> Self {
        let found = Self::ALL.into_iter().find(|action| action.word() == word);
        found.unwrap_or(Self::Read)
    }
}

/// How a request ended that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: FailureCode,
    pub action: Action,
    /// What it was done to, as a path on the far machine.
    pub object: String,
    pub cause: String,
}

impl Failure {
    /// Texts that are too long are cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u8(self.code as u8)
            .u8(self.action as u8)
            .bytes(cut(&self.object, OBJECT_TEXT_BYTES_MAX).as_bytes())
            .bytes(cut(&self.cause, CAUSE_BYTES_MAX).as_bytes());
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("failure", bytes);
        let code = input.u8()?;
        let Some(code) = FailureCode::ALL.into_iter().find(|c| *c as u8 == code) else {
            return input.fail(Defect::Tag("code", u64::from(code)));
        };
        let action = input.u8()?;
        let Some(action) = Action::ALL.into_iter().find(|a| *a as u8 == action) else {
            return input.fail(Defect::Tag("action", u64::from(action)));
        };
        let failure = Self {
            code,
            action,
            object: decode_text(&mut input, "object", OBJECT_TEXT_BYTES_MAX)?,
            cause: decode_text(&mut input, "cause", CAUSE_BYTES_MAX)?,
        };
        input.end()?;
        Ok(failure)
    }
}

/// At most `max` bytes of a text, whole characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
