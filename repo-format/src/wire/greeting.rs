//! The greeting: the first thing that each end sends, in a form that no version changes.

use super::WireError;
use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::frame::decode_text;

/// Begins with bytes that no shell prints.
pub const MAGIC: [u8; 12] = *b"\0\xffpodkeep\xff\0W";

/// The versions of the protocol that this build speaks.
pub const VERSION_OLDEST: u16 = 1;
pub const VERSION_NEWEST: u16 = 1;

/// Bytes behind the magic and the length.
const REST_BYTES_MAX: usize = 1024;
const PODKEEP_BYTES_MAX: usize = 64;
/// The magic and the length of what follows.
pub(super) const HEAD_BYTES: usize = MAGIC.len() + 2;

/// What an end says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Versions of the protocol that it speaks.
    pub oldest: u16,
    pub newest: u16,
    /// Its own version, for people.
    pub podkeep: String,
    /// What later versions say besides; kept, and not understood here.
    pub later: Vec<u8>,
}

impl Greeting {
    /// This build's.
    pub fn own(podkeep: &str) -> Self {
        Self {
            oldest: VERSION_OLDEST,
            newest: VERSION_NEWEST,
            podkeep: podkeep.to_owned(),
            later: Vec::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Encoder::new();
        rest.u16(self.oldest)
            .u16(self.newest)
            .bytes(self.podkeep.as_bytes())
            .raw(&self.later);
        let mut out = Encoder::new();
        out.raw(&MAGIC).u16(rest.len() as u16).raw(rest.as_slice());
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new("greeting", bytes);
        if input.array()? != MAGIC {
            return input.fail(Defect::Magic);
        }
        let len = usize::from(input.u16()?);
        if len > REST_BYTES_MAX {
            return input.fail(Defect::TooLarge("greeting"));
        }
        let mut rest = Decoder::new("greeting", input.raw(len)?);
        input.end()?;
        let greeting = Self {
            oldest: rest.u16()?,
            newest: rest.u16()?,
            podkeep: decode_text(&mut rest, "podkeep", PODKEEP_BYTES_MAX)?,
            later: rest.take_rest().to_vec(),
        };
        if greeting.oldest > greeting.newest {
            return rest.fail(Defect::NotCanonical("versions"));
        }
        Ok(greeting)
    }

    /// How long a greeting is that begins with `head`; `None` until that much has come.
    pub(super) fn len_of(head: &[u8]) -> Result<Option<usize>, DecodeError> {
        let Some(len) = head.get(MAGIC.len()..HEAD_BYTES) else {
            return Ok(None);
        };
        let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
        if len > REST_BYTES_MAX {
            return Decoder::new("greeting", &[]).fail(Defect::TooLarge("greeting"));
        }
        Ok(Some(HEAD_BYTES + len))
    }

    /// The newest version that both speak. `self` is this end.
    pub(super) fn agree(&self, other: &Self) -> Result<u16, WireError> {
        let version = self.newest.min(other.newest);
        if version < self.oldest.max(other.oldest) {
            return Err(WireError::Version {
                ours: (self.oldest, self.newest),
                theirs: (other.oldest, other.newest),
                podkeep: crate::item::Escaped(other.podkeep.as_bytes()).to_string(),
            });
        }
        Ok(version)
    }
}
