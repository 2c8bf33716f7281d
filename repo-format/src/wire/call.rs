//! What a run at the far end asks of the near one, as content of answers: the near end goes on asking,
//! and so each end still says only what the other one waits for.

use super::message::{ORDER_BYTES_MAX, Request};
use super::{FIRST_CREDIT, OBJECT_BYTES_MAX};
use crate::codec::{DecodeError, Decoder, Defect, Encoder};

/// Of a call, and of what a run tells at a time.
pub const CALL_BYTES_MAX: usize = 128 << 10;
/// Of one thing that is told.
pub const TOLD_BYTES_MAX: usize = ORDER_BYTES_MAX;
/// Things that are told at a time.
const TOLD_MAX: u64 = 4096;
/// The longest is a sweep.
const REQUEST_BYTES_MAX: usize = 62 << 10;

/// Something that a run waits for. Numbers are those of the run, and rise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The run is over: no call comes any more.
    Over,
    /// A request to a store of the near end's.
    Store {
        number: u32,
        /// Which store, as the near end numbers them.
        store: u64,
        request: Request,
        /// Of a put of up to [`FIRST_CREDIT`] bytes: the object. A larger one is fetched.
        object: Vec<u8>,
    },
    /// A question; what it says is the engine's business.
    Ask { number: u32, question: Vec<u8> },
}

impl Call {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        match self {
            Self::Over => out.u8(0),
            Self::Store {
                number,
                store,
                request,
                object,
            } => out
                .u8(1)
                .u32(*number)
                .varint(*store)
                .bytes(&request.encode())
                .bytes(object),
            Self::Ask { number, question } => out.u8(2).u32(*number).bytes(question),
        };
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("call", bytes);
        let call = match input.u8()? {
            0 => Self::Over,
            1 => {
                let (number, store) = (input.u32()?, input.varint()?);
                let request = Request::decode(input.bytes("request", REQUEST_BYTES_MAX)?)?;
                if !request.is_of_store() {
                    return input.fail(Defect::Tag("verb of a store", 0));
                }
                let object = input.bytes("object", FIRST_CREDIT as usize)?.to_vec();
                let len = request.body().map_or(0, |(len, _)| len);
                if len > OBJECT_BYTES_MAX {
                    return input.fail(Defect::TooLarge("object"));
                }
                // Small ones are there, and whole; large ones are not.
                let inline = if len <= FIRST_CREDIT { len } else { 0 };
                if object.len() as u64 != inline {
                    return input.fail(Defect::NotCanonical("object"));
                }
                if inline > 0
                    && request
                        .body()
                        .is_some_and(|(_, hash)| *blake3::hash(&object).as_bytes() != hash)
                {
                    return input.fail(Defect::NotAuthentic("object"));
                }
                Self::Store {
                    number,
                    store,
                    request,
                    object,
                }
            }
            2 => Self::Ask {
                number: input.u32()?,
                question: input.bytes("question", ORDER_BYTES_MAX)?.to_vec(),
            },
            other => return input.fail(Defect::Tag("call", u64::from(other))),
        };
        input.end()?;
        Ok(call)
    }
}

/// What a run has to say, in its order. None: the run is over.
pub fn decode_told(bytes: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    let mut input = Decoder::new("told", bytes);
    if bytes.len() > CALL_BYTES_MAX {
        return input.fail(Defect::TooLarge("told"));
    }
    let count = input.bounded("told", TOLD_MAX)?;
    let mut told = Vec::new();
    for _ in 0..count {
        let one = input.bytes("told", TOLD_BYTES_MAX)?;
        if one.is_empty() {
            return input.fail(Defect::NotCanonical("told"));
        }
        told.push(one.to_vec());
    }
    input.end()?;
    Ok(told)
}

/// As many of `told` as fit, at least one of those that are none too large.
pub fn encode_told<'t>(told: impl Iterator<Item = &'t [u8]>) -> (usize, Vec<u8>) {
    let mut rest = Encoder::new();
    let mut count = 0;
    for one in told.take(TOLD_MAX as usize) {
        // Lengths are varints of seven bits each.
        let list = 1 + usize::from(count + 1 >= 0x80);
        let prefix = match one.len() {
            0..0x80 => 1,
            0x80..0x4000 => 2,
            _ => 3,
        };
        if list + rest.len() + prefix + one.len() > CALL_BYTES_MAX {
            break;
        }
        rest.bytes(one);
        count += 1;
    }
    let mut out = Encoder::new();
    out.varint(count as u64).raw(rest.as_slice());
    (count, out.finish())
}
