//! Frames: what both ends send behind their greeting.
//!
//! A header has a check of its own, so that a shell's prompt between two frames is told from a
//! frame at once, and never taken for a length.

use crate::codec::{DecodeError, Decoder, Defect};

/// u32 length of the payload, u8 kind, u32 request, and 4 bytes of the BLAKE3 of these.
pub const HEADER_BYTES: usize = 13;
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Near to far: opens a request.
    Request = 1,
    /// Content of an object, or rows.
    Data = 2,
    /// Far to near: the end of a request that succeeded.
    Answer = 3,
    /// Far to near: the end of a request that failed.
    Failure = 4,
    /// Far to near: so many more bytes of the request's object may be sent.
    Credit = 5,
    Ping = 6,
    Pong = 7,
    /// The sender has no more requests (near), or ends because of what the payload says (far).
    Bye = 8,
    /// Near to far: no more data comes for a request that has failed.
    Cancel = 9,
}

impl FrameKind {
    const ALL: [Self; 9] = [
        Self::Request,
        Self::Data,
        Self::Answer,
        Self::Failure,
        Self::Credit,
        Self::Ping,
        Self::Pong,
        Self::Bye,
        Self::Cancel,
    ];

    /// Whether it belongs to a request; the others have the request number 0.
    fn of_request(self) -> bool {
        !matches!(self, Self::Ping | Self::Pong | Self::Bye)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload.
    pub len: usize,
    pub kind: FrameKind,
    pub request: u32,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&(self.len as u32).to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5..9].copy_from_slice(&self.request.to_le_bytes());
        let check = check(&bytes[..9]);
        bytes[9..].copy_from_slice(&check);
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("frame", bytes);
        let len = input.u32()?;
        let kind = input.u8()?;
        let request = input.u32()?;
        if input.array::<4>()? != check(&bytes[..9]) {
            return input.fail(Defect::NotAuthentic("check"));
        }
        let Some(known) = FrameKind::ALL.into_iter().find(|k| *k as u8 == kind) else {
            return input.fail(Defect::Tag("kind", u64::from(kind)));
        };
        if len as usize > PAYLOAD_BYTES_MAX {
            return input.fail(Defect::TooLarge("payload"));
        }
        if known.of_request() != (request != 0) {
            return input.fail(Defect::NotCanonical("request"));
        }
        Ok(Self {
            len: len as usize,
            kind: known,
            request,
        })
    }
}

fn check(head: &[u8]) -> [u8; 4] {
    let mut check = [0; 4];
    check.copy_from_slice(&blake3::hash(head).as_bytes()[..4]);
    check
}

/// A frame that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: FrameKind,
    pub request: u32,
    pub payload: Vec<u8>,
}

/// Appends a frame; `payload` is at most [`PAYLOAD_BYTES_MAX`].
pub(super) fn append(out: &mut Vec<u8>, kind: FrameKind, request: u32, payload: &[u8]) {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    let header = Header {
        len: payload.len(),
        kind,
        request,
    };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(payload);
}
