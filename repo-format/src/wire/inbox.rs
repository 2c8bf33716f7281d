//! From bytes as they arrive to a greeting and frames.

use super::frame::Frame;
use super::{Greeting, HEADER_BYTES, Header, MAGIC, WireError, sample};

/// What a login shell may print in front of the far end's greeting: it is passed over. Some print
/// a message of the day, none of them a novel.
pub const NOISE_BYTES_MAX: usize = 64 << 10;

/// Bytes that have arrived and are not understood yet: never more than a frame and one read, or
/// the noise and one read.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Where in `bytes` the first one that counts is.
    at: usize,
    greeted: bool,
    noise_max: usize,
    /// Bytes in front of the greeting.
    noise: usize,
}

impl Inbox {
    pub fn new(noise_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            at: 0,
            greeted: false,
            noise_max,
            noise: 0,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn noise(&self) -> usize {
        self.noise
    }

    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// The greeting, once it is there. Must be asked for until then, and never again.
    pub fn greeting(&mut self) -> Result<Option<Greeting>, WireError> {
        let rest = &self.bytes[self.at..];
        let found = rest.windows(MAGIC.len()).position(|w| w == MAGIC);
        // What may still become the magic is no noise yet.
        let noise = found.unwrap_or(match found_start(rest) {
            Some(start) => start,
            None => rest.len(),
        });
        if noise > self.noise_max {
            return Err(WireError::NoGreeting {
                bytes: rest.len() as u64,
                sample: sample(rest),
            });
        }
        if found.is_none() {
            return Ok(None);
        }
        let from = &rest[noise..];
        match Greeting::len_of(from)? {
            Some(len) if from.len() >= len => {
                let greeting = Greeting::decode(&from[..len])?;
                self.noise = noise;
                self.at += noise + len;
                self.greeted = true;
                Ok(Some(greeting))
            }
            _ => Ok(None),
        }
    }

    pub fn frame(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = &self.bytes[self.at..];
        let Some(head) = rest.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(head).map_err(|error| match error.defect {
            crate::codec::Defect::NotAuthentic(_) => WireError::OutOfStep {
                sample: sample(rest),
            },
            _ => WireError::Malformed(error),
        })?;
        let end = HEADER_BYTES + header.len;
        if rest.len() < end {
            return Ok(None);
        }
        let payload = rest[HEADER_BYTES..end].to_vec();
        self.at += end;
        Ok(Some(Frame {
            kind: header.kind,
            request: header.request,
            payload,
        }))
    }

    /// Whether the stream may end here.
    pub fn end(&self) -> Result<(), WireError> {
        let rest = self.rest();
        match (self.greeted, rest.is_empty()) {
            (false, _) => Err(WireError::NoGreeting {
                bytes: rest.len() as u64,
                sample: sample(rest),
            }),
            (true, true) => Ok(()),
            (true, false) => Err(WireError::Cut),
        }
    }
}

/// Where the magic may begin that the bytes end in the middle of.
fn found_start(bytes: &[u8]) -> Option<usize> {
    let from = bytes.len().saturating_sub(MAGIC.len() - 1);
    (from..bytes.len()).find(|at| MAGIC.starts_with(&bytes[*at..]))
}
