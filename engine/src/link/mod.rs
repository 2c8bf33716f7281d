//! Another podkeep at the far end of two pipes: starting it, asking it, being it.
//!
//! The protocol is `podkeep_format::wire`; here are the pipes, the threads and the clocks. One
//! conversation is one process that was started: `ssh`, or whatever stands in front of `podkeep
//! agent`. Nothing here knows what is asked: [`crate::store::remote`] asks for a store's objects.

mod address;
mod asking;
pub mod calls;
mod rate;
mod serving;
pub mod ssh;
mod upload;

use std::io::{Read, Write};
use std::time::Duration;

use podkeep_format::wire::{DEAD_SECS, Failure, PING_SECS, Reply, Request};

pub use address::Address;
pub use asking::{Asking, Traffic};
pub use rate::RateLimit;
pub use serving::{Refused, Serve, Sink, serve};
pub use upload::Program;

/// BLAKE3 of a program's bytes, in hex: what an uploaded one is known by.
pub fn hash_of(program: &[u8]) -> String {
    blake3::hash(program).to_hex().to_string()
}

/// What the two ends call themselves in their greetings.
pub const PODKEEP: &str = env!("CARGO_PKG_VERSION");

/// Why a host's podkeep could not be reached, or is not there any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot reach {host}: {cause}")]
pub struct LinkError {
    /// As whoever asked for it wrote it.
    pub host: String,
    pub cause: String,
    /// What may help; may be empty.
    pub hint: String,
}

/// A request that was not answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The far end says why.
    Failed(Failure),
    /// The link is gone, and why: nobody knows whether it was done.
    Lost(String),
}

/// Whoever requests can be sent to; from any number of threads.
pub trait Ask: Send + Sync {
    /// Asks, with the object that belongs to the request, and waits for the answer.
    fn ask(&self, request: &Request, object: &[u8]) -> Result<Reply, Unanswered>;

    /// The other end, for messages.
    fn host(&self) -> &str;

    /// What went over so far.
    fn traffic(&self) -> Traffic;
}

impl Ask for Box<dyn Ask> {
    fn ask(&self, request: &Request, object: &[u8]) -> Result<Reply, Unanswered> {
        (**self).ask(request, object)
    }

    fn host(&self) -> &str {
        (**self).host()
    }

    fn traffic(&self) -> Traffic {
        (**self).traffic()
    }
}

/// What carries the bytes of one conversation.
pub struct Pipes {
    /// To the far end; closing it asks that end to end.
    pub input: Box<dyn Write + Send>,
    pub output: Box<dyn Read + Send>,
    pub carrier: Box<dyn Carrier>,
}

/// The process behind the pipes.
pub trait Carrier: Send + Sync {
    /// Ends it at once; may be called again.
    fn end(&self);

    /// Why it ended, once its output has ended: in its own words, with what it said on standard
    /// error. `None`: it ended as it should. Waits for it, a few seconds at most.
    fn last_words(&self) -> Option<Ending>;
}

/// How a carrier ended that should not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub cause: String,
    pub hint: String,
    /// The far command was not found, or could not be run.
    pub no_program: bool,
    /// The carrier itself failed, not the far command: ssh says so with 255.
    pub carrier_failed: bool,
}

/// Clocks of a conversation; the protocol states them, and tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub ping: Duration,
    /// Nothing came for so long: the other end is gone.
    pub dead: Duration,
    /// How long the far end may take for its greeting; `None`: a person may be typing.
    pub greeting: Option<Duration>,
    /// How long the far end goes on with what it works on, once the near one is gone.
    pub grace: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(u64::from(PING_SECS)),
            dead: Duration::from_secs(u64::from(DEAD_SECS)),
            greeting: Some(Duration::from_secs(120)),
            grace: Duration::from_secs(30),
        }
    }
}
