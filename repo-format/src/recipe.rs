//! Recipes ("Recipes" in the specification): how the tar of an image layer is put together.
//!
//! A layer's tar mixes two sorts of bytes: headers and padding, which are its own, and the
//! contents of files, which other layers and volumes hold too. A recipe keeps them apart as two
//! streams, so that the second is cut where files begin and shares its chunks with them. A third
//! stream, the runs, says how the two alternate.

use crate::codec::{DecodeError, Decoder, Defect, Encoder};
use crate::id::{ChunkId, DiffId};
use crate::tree::content::{INLINE, LIST, PIECES, decode_content, encode_content};
use crate::tree::{Content, INLINE_BYTES_MAX};

/// The content of a file of at most this many bytes goes to the literals: in a tree such a
/// content lies in its entry, so that there is no chunk to share.
pub const LITERAL_PAYLOAD_BYTES_MAX: u64 = INLINE_BYTES_MAX as u64;
/// Bytes of a layer's tar. A few bytes can stand for any number of zeros, and whoever vouches for a
/// layer hashes all of it.
pub const LAYER_BYTES_MAX: u64 = 1 << 40;
const RECIPE: &str = "layer recipe";
const RUNS: &str = "layer runs";

/// Bytes in order, stored as a file's content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub size: u64,
    /// Never a recipe.
    pub content: Content,
}

impl Stream {
    fn encode(&self, out: &mut Encoder) {
        out.u8(self.content.tag());
        encode_content(self.size, &self.content, out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            tag @ (INLINE | PIECES | LIST) => {
                let (size, content) = decode_content(input, tag)?;
                Ok(Self { size, content })
            }
            other => input.fail(Defect::Tag("stream", u64::from(other))),
        }
    }
}

/// A layer that a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLayer {
    pub diff_id: DiffId,
    /// A chunk of kind `Recipe`.
    pub recipe: ChunkId,
    /// Bytes of the layer's tar.
    pub size: u64,
}

/// The body of a recipe (a chunk of kind `Recipe`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What the sha256 of the tar must be.
    pub diff_id: DiffId,
    /// Bytes of the tar: those of `literals` and of `payloads`.
    pub size: u64,
    /// Headers, padding, and contents of at most [`LITERAL_PAYLOAD_BYTES_MAX`] bytes.
    pub literals: Stream,
    /// The other contents, cut where each of them begins.
    pub payloads: Stream,
    /// The encoded [`Run`]s.
    pub runs: Stream,
}

impl Recipe {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&self.diff_id.0).varint(self.size);
        for stream in [&self.literals, &self.payloads, &self.runs] {
            stream.encode(&mut out);
        }
        out.finish()
    }

    /// What is only known once the runs are read, [`RunsDecoder`] checks.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(RECIPE, bytes);
        let recipe = Self {
            diff_id: DiffId(input.array()?),
            size: input.bounded("layer size", LAYER_BYTES_MAX)?,
            literals: Stream::decode(&mut input)?,
            payloads: Stream::decode(&mut input)?,
            runs: Stream::decode(&mut input)?,
        };
        input.end()?;
        // Both are below 2^63, so that the sum cannot overflow.
        if recipe.literals.size + recipe.payloads.size != recipe.size {
            return input.fail(Defect::NotCanonical("layer size"));
        }
        if (recipe.runs.size == 0) != (recipe.size == 0) {
            return input.fail(Defect::NotCanonical("size of runs"));
        }
        // A number takes no more bytes than it counts, but for the two that may be zero.
        if recipe.runs.size > recipe.size.saturating_add(2) {
            return input.fail(Defect::TooLarge("size of runs"));
        }
        Ok(recipe)
    }
}

/// So many bytes of the literals, then so many of the payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// 0 only in the first run.
    pub literals: u64,
    /// 0 only in the last run.
    pub payloads: u64,
}

/// Joins the parts of a tar, as they are met, to runs.
#[derive(Default)]
pub struct RunsEncoder {
    open: Run,
}

impl RunsEncoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// `len` bytes went to the literals. A run that this ends is appended to `out`.
    pub fn literals(&mut self, len: u64, out: &mut Vec<u8>) {
        if len > 0 && self.open.payloads > 0 {
            self.close(out);
        }
        self.open.literals += len;
    }

    /// `len` bytes went to the payloads.
    pub fn payloads(&mut self, len: u64) {
        self.open.payloads += len;
    }

    /// Appends the last run.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if self.open != Run::default() {
            self.close(out);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let run = std::mem::take(&mut self.open);
        let mut encoded = Encoder::from_vec(std::mem::take(out));
        encoded.varint(run.literals).varint(run.payloads);
        *out = encoded.finish();
    }
}

/// Reads runs from bytes that arrive in parts.
pub struct RunsDecoder {
    /// Bytes of the streams that no run took yet.
    left: Run,
    /// A number that is not complete, at most 10 bytes.
    partial: Vec<u8>,
    /// The first half of a run whose second one is not read yet.
    literals: Option<u64>,
    is_first: bool,
}

impl RunsDecoder {
    /// `literals`, `payloads`: the sizes of the two streams, below 2^63 together.
    pub fn new(literals: u64, payloads: u64) -> Self {
        Self {
            left: Run { literals, payloads },
            partial: Vec::new(),
            literals: None,
            is_first: true,
        }
    }

    /// Calls `each` with every run that `bytes` completes. The runs together never ask for more
    /// than the streams hold.
    pub fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(Run)) -> Result<(), DecodeError> {
        for byte in bytes {
            if self.left == Run::default() && self.literals.is_none() {
                return self.fail(Defect::Trailing);
            }
            self.partial.push(*byte);
            if byte & 0x80 != 0 && self.partial.len() < 10 {
                continue;
            }
            let number = Decoder::new(RUNS, &self.partial).varint()?;
            self.partial.clear();
            match self.literals.take() {
                None => self.take_literals(number)?,
                Some(literals) => each(self.take_payloads(literals, number)?),
            }
        }
        Ok(())
    }

    /// All bytes were pushed: they must have used up both streams.
    pub fn finish(&self) -> Result<(), DecodeError> {
        let ended = self.left == Run::default() && self.literals.is_none();
        if ended && self.partial.is_empty() {
            Ok(())
        } else {
            self.fail(Defect::Truncated)
        }
    }

    fn take_literals(&mut self, literals: u64) -> Result<(), DecodeError> {
        if literals == 0 && !self.is_first {
            return self.fail(Defect::NotCanonical("run"));
        }
        match self.left.literals.checked_sub(literals) {
            Some(left) => self.left.literals = left,
            None => return self.fail(Defect::TooLarge("literals of a run")),
        }
        self.is_first = false;
        self.literals = Some(literals);
        Ok(())
    }

    fn take_payloads(&mut self, literals: u64, payloads: u64) -> Result<Run, DecodeError> {
        match self.left.payloads.checked_sub(payloads) {
            Some(left) => self.left.payloads = left,
            None => return self.fail(Defect::TooLarge("payloads of a run")),
        }
        if payloads == 0 && self.left != Run::default() {
            return self.fail(Defect::NotCanonical("run"));
        }
        Ok(Run { literals, payloads })
    }

    fn fail<T>(&self, defect: Defect) -> Result<T, DecodeError> {
        Decoder::new(RUNS, &[]).fail(defect)
    }
}
