//! The protocol between two podkeeps, one of which was started by the other: `docs/wire-protocol.md`.
//!
//! Nothing here reads or writes: [`Near`] and [`Far`] are the two ends as state machines over byte
//! buffers, so that both run in one test, in memory. The near end asks, the far end answers. Each
//! takes whatever the other may send, holds a bounded amount of it, and ends the conversation with
//! a [`WireError`] at the first byte that the protocol does not allow.

mod call;
mod far;
mod frame;
mod greeting;
mod inbox;
mod message;
mod near;

use std::fmt;

use crate::codec::DecodeError;

pub use call::{CALL_BYTES_MAX, Call, TOLD_BYTES_MAX, decode_told, encode_told};
pub use far::{Far, FarEvent, Task};
pub use frame::{FrameKind, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX};
pub use greeting::{Greeting, MAGIC, VERSION_NEWEST, VERSION_OLDEST};
pub use inbox::NOISE_BYTES_MAX;
pub use message::{
    Action, Answer, Failure, FailureCode, NAME_BYTES_MAX, ORDER_BYTES_MAX, OwnerBatch,
    PATH_BYTES_MAX, Request, Row, WireMedium,
};
pub use near::{Near, NearEvent, Reply};

/// Requests that may be open at once.
pub const REQUESTS_MAX: usize = 16;
/// Bytes of an object that may be sent with its request, before the far end has granted any.
pub const FIRST_CREDIT: u64 = 64 << 10;
/// Bytes of one object that may be on their way at once.
pub const WINDOW_BYTES: u64 = 2 << 20;
/// The far end takes objects in until they are together this large; a larger one only alone.
pub const ASSEMBLY_BYTES_MAX: u64 = 96 << 20;
/// The largest object; packs and segments are at most as large.
pub const OBJECT_BYTES_MAX: u64 = 1 << 30;
/// Rows of one listing.
pub const ROWS_MAX: u64 = 1 << 22;

/// Whoever has nothing else to send sends a ping after this time.
pub const PING_SECS: u32 = 15;
/// An end that has received nothing for this time takes the other for gone.
pub const DEAD_SECS: u32 = 60;

/// Why a conversation cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// What came was no greeting: a shell's words, or nothing.
    NoGreeting {
        /// How many bytes came, as far as they were read.
        bytes: u64,
        /// The first of them, made printable.
        sample: String,
    },
    /// The two have no version of the protocol in common.
    Version {
        /// Oldest and newest that this end speaks.
        ours: (u16, u16),
        theirs: (u16, u16),
        /// What the other end calls its own version.
        podkeep: String,
    },
    /// What should be a frame is none: something else wrote into the stream.
    OutOfStep { sample: String },
    /// A frame's payload is not what its kind says.
    Malformed(#[from] DecodeError),
    /// A frame that may not come here.
    Order(&'static str),
    /// The stream ended inside a frame, or with requests that have no answer.
    Cut,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = |f: &mut fmt::Formatter<'_>, (oldest, newest): (u16, u16)| {
            if oldest == newest {
                write!(f, "version {newest}")
            } else {
                write!(f, "versions {oldest} to {newest}")
            }
        };
        match self {
            Self::NoGreeting { bytes: 0, .. } => f.write_str("it ended before it said anything"),
            Self::NoGreeting { bytes, sample } => write!(
                f,
                "what it printed is no greeting of podkeep ({bytes} bytes, beginning with \"{sample}\")"
            ),
            Self::Version {
                ours,
                theirs,
                podkeep,
            } => {
                f.write_str("this podkeep speaks ")?;
                versions(f, *ours)?;
                f.write_str(" of the protocol, the other one ")?;
                versions(f, *theirs)?;
                write!(f, " (podkeep {podkeep})")
            }
            Self::OutOfStep { sample } => write!(
                f,
                "something else was printed between podkeep's messages: \"{sample}\""
            ),
            Self::Malformed(error) => write!(f, "the other end sent a malformed message: {error}"),
            Self::Order(what) => write!(f, "the other end broke the protocol: {what}"),
            Self::Cut => f.write_str("the connection was lost"),
        }
    }
}

/// The first bytes of something foreign, printable.
fn sample(bytes: &[u8]) -> String {
    const SAMPLE_BYTES: usize = 160;
    let shown = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    format!("{}{more}", crate::item::Escaped(shown))
}
