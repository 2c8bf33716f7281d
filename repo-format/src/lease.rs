//! Leases ("Leases" in the specification; what they mean: `docs/repository-protocol.md`). Each
//! heartbeat is a new object.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{ObjectKind, Statement, decode_text, decode_time, encode_time};
use crate::id::{AuthorId, HostId, LeaseId};
use crate::names::NUMBER_MAX;
use crate::snapshot::NAME_TEXT_BYTES_MAX;
use crate::tree::Time;

/// Seconds between two heartbeats, and after which a lease that stands still has ended.
pub const LEASE_SECS_MAX: u32 = 7 * 24 * 3600;

/// What the owner of a lease is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    Write = 1,
    Read = 2,
    /// One at a time.
    Prune = 3,
}

impl Purpose {
    pub const ALL: [Self; 3] = [Self::Write, Self::Read, Self::Prune];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Prune => "prune",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub lease: LeaseId,
    /// Counts the heartbeats, from 0.
    pub number: u64,
    pub purpose: Purpose,
    pub author: AuthorId,
    pub host: HostId,
    /// For people.
    pub host_name: String,
    pub heartbeat_secs: u32,
    /// An observer who sees no new heartbeat for this long may hold the lease to have ended.
    pub lease_secs: u32,
    /// By the owner's clock: for people, nobody compares it with their own.
    pub time: Time,
}

impl Statement for Lease {
    const KIND: ObjectKind = ObjectKind::Lease;

    fn author(&self) -> AuthorId {
        self.author
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.lease.0)
            .varint(self.number)
            .u8(self.purpose as u8)
            .raw(&self.host.0)
            .bytes(self.host_name.as_bytes())
            .u32(self.heartbeat_secs)
            .u32(self.lease_secs);
        encode_time(&self.time, &mut out);
        out.finish()
    }

    fn decode_body(author: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(Self::KIND.word(), body);
        let lease = Self {
            author,
            lease: LeaseId(input.array()?),
            number: input.bounded("heartbeat number", NUMBER_MAX)?,
            purpose: match input.u8()? {
                1 => Purpose::Write,
                2 => Purpose::Read,
                3 => Purpose::Prune,
                other => return input.fail(Defect::Tag("purpose", u64::from(other))),
            },
            host: HostId(input.array()?),
            host_name: decode_text(&mut input, "host name", NAME_TEXT_BYTES_MAX)?,
            heartbeat_secs: input.u32()?,
            lease_secs: input.u32()?,
            time: decode_time(&mut input)?,
        };
        input.end()?;
        if lease.lease_secs > LEASE_SECS_MAX {
            return input.fail(Defect::TooLarge("lease time"));
        }
        if lease.heartbeat_secs == 0 || lease.heartbeat_secs > lease.lease_secs {
            return input.fail(Defect::NotCanonical("heartbeat"));
        }
        Ok(lease)
    }
}
