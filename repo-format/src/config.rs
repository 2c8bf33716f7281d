//! The repository's config ("Config" in the specification): what never changes after `init`, in
//! clear, signed by the owner. It exists twice.

use crate::block::{BlockClass, PAYLOAD_BYTES_MAX};
use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::{self, ObjectKind, decode_time, encode_time};
use crate::id::{AuthorId, RepositoryId};
use crate::pack::PACK_BYTES_MAX;
use crate::seal::{AuthorKey, PublicKey};
use crate::tree::Time;

/// Bounds of a chunk's sizes: what the chunker takes.
pub const CHUNK_MIN_BYTES_MIN: u32 = 64;
pub const CHUNK_AVG_BYTES_MIN: u32 = 256;
pub const CHUNK_AVG_BYTES_MAX: u32 = 4 << 20;
pub const CHUNK_MAX_BYTES_MAX: u32 = 8 << 20;
/// Bounds of the size at which a block is closed; the largest leaves room for a chunk table.
pub const BLOCK_BYTES_MIN: u32 = 4 << 10;
pub const BLOCK_BYTES_MAX: u32 = (PAYLOAD_BYTES_MAX / 2) as u32;
/// Bounds of the size at which a pack is closed; the largest leaves room for its last block and
/// its tail.
pub const PACK_BYTES_CONFIG_MIN: u32 = 64 << 10;
pub const PACK_BYTES_CONFIG_MAX: u32 = (PACK_BYTES_MAX / 2) as u32;
/// Seconds that a medium may take to settle.
pub const SETTLE_SECS_MAX: u32 = 24 * 3600;
pub const RESERVE_BYTES_MAX: u64 = 1 << 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub repository: RepositoryId,
    /// What session keys are sealed to.
    pub public_key: PublicKey,
    /// Whose signature makes an author or an endorsement count.
    pub owner: AuthorId,
    /// Bytes; all even, min < avg <= max, avg a power of two.
    pub chunk_min: u32,
    pub chunk_avg: u32,
    pub chunk_max: u32,
    /// Payload bytes at which a block is closed, in the order of [`BlockClass::ALL`].
    pub block_bytes: [u32; BlockClass::ALL.len()],
    /// Bytes at which a pack is closed.
    pub pack_bytes: u32,
    /// How many seconds a listing may lag behind a put; `None`: nobody said, so that prune
    /// refuses to run.
    pub settle_secs: Option<u32>,
    /// Bytes of the reserve of a store that can run full; 0 for none.
    pub reserve_bytes: u64,
    pub created: Time,
}

impl Config {
    /// `owner` must be the key of `self.owner`.
    pub fn encode(&self, owner: &AuthorKey) -> Vec<u8> {
        let mut out = frame::begin_signed(ObjectKind::Config, self.owner);
        out.raw(&self.encode_body());
        frame::finish_signed(ObjectKind::Config, out, self.repository, owner)
    }

    /// Checks checksum, signature and every bound. Whether the owner is the right one is for the
    /// caller to say: it compares [`pin`](Self::pin).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let unverified = frame::open_unverified(ObjectKind::Config, bytes)?;
        let config = Self::decode_body(unverified.author, unverified.body)?;
        unverified.verify(config.repository)?;
        Ok(config)
    }

    /// The fields behind the owner's id.
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.repository.0)
            .raw(&self.public_key.0)
            .u32(self.chunk_min)
            .u32(self.chunk_avg)
            .u32(self.chunk_max);
        for bytes in self.block_bytes {
            out.u32(bytes);
        }
        out.u32(self.pack_bytes);
        match self.settle_secs {
            None => out.u8(0),
            Some(secs) => out.u8(1).u32(secs),
        };
        out.u64(self.reserve_bytes);
        encode_time(&self.created, &mut out);
        out.finish()
    }

    pub fn decode_body(owner: AuthorId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(ObjectKind::Config.word(), body);
        let mut config = Self {
            owner,
            repository: RepositoryId(input.array()?),
            public_key: PublicKey(input.array()?),
            chunk_min: input.u32()?,
            chunk_avg: input.u32()?,
            chunk_max: input.u32()?,
            block_bytes: [0; BlockClass::ALL.len()],
            pack_bytes: 0,
            settle_secs: None,
            reserve_bytes: 0,
            created: Time::default(),
        };
        for bytes in &mut config.block_bytes {
            *bytes = input.u32()?;
        }
        config.pack_bytes = input.u32()?;
        config.settle_secs = match input.u8()? {
            0 => None,
            1 => Some(input.u32()?),
            other => return input.fail(Defect::Tag("settle time", u64::from(other))),
        };
        config.reserve_bytes = input.u64()?;
        config.created = decode_time(&mut input)?;
        input.end()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let refuse = |defect| Err(ObjectKind::Config.error(defect));
        let (min, avg, max) = (self.chunk_min, self.chunk_avg, self.chunk_max);
        if min < CHUNK_MIN_BYTES_MIN
            || !(CHUNK_AVG_BYTES_MIN..=CHUNK_AVG_BYTES_MAX).contains(&avg)
            || max > CHUNK_MAX_BYTES_MAX
            || min >= avg
            || avg > max
        {
            return refuse(Defect::TooLarge("chunk sizes"));
        }
        if min % 2 != 0 || max % 2 != 0 || !avg.is_power_of_two() {
            return refuse(Defect::NotCanonical("chunk sizes"));
        }
        let block = BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX;
        if !self.block_bytes.iter().all(|bytes| block.contains(bytes)) {
            return refuse(Defect::TooLarge("block size"));
        }
        if !(PACK_BYTES_CONFIG_MIN..=PACK_BYTES_CONFIG_MAX).contains(&self.pack_bytes) {
            return refuse(Defect::TooLarge("pack size"));
        }
        if self.settle_secs.is_some_and(|secs| secs > SETTLE_SECS_MAX) {
            return refuse(Defect::TooLarge("settle time"));
        }
        if self.reserve_bytes > RESERVE_BYTES_MAX {
            return refuse(Defect::TooLarge("reserve"));
        }
        Ok(())
    }

    /// What a client remembers of a repository and never lets a store change: a hash of its id,
    /// its public key and its owner.
    pub fn pin(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("podkeep 1 config pin");
        hasher.update(&self.repository.0);
        hasher.update(&self.public_key.0);
        hasher.update(&self.owner.0);
        *hasher.finalize().as_bytes()
    }
}
