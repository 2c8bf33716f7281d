//! The primitive encodings ("Encoding" in the specification): fixed-width little-endian
//! integers, canonical LEB128 varints, and byte strings with their length in front.

use std::fmt;

/// What is wrong with foreign bytes, and in which object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {defect}")]
pub struct DecodeError {
    /// The kind of object, as the specification names it ("tree node", "index segment").
    pub object: &'static str,
    pub defect: Defect,
}

/// The one defect that a decoder met first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The bytes end inside a field.
    Truncated,
    /// Bytes follow the end of the object.
    Trailing,
    /// A value has a shorter encoding, or an order or form that the format forbids.
    NotCanonical(&'static str),
    /// A length, count or size is over its bound.
    TooLarge(&'static str),
    /// The magic bytes are of something else.
    Magic,
    /// A format version that this build does not read.
    Version(u32),
    /// A tag has a value that means nothing.
    Tag(&'static str, u64),
    /// A checksum, seal or signature does not match: damaged, or not what it claims to be.
    NotAuthentic(&'static str),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("ends too early"),
            Self::Trailing => f.write_str("has bytes after its end"),
            Self::NotCanonical(what) => write!(f, "{what} is not in its canonical form"),
            Self::TooLarge(what) => write!(f, "{what} is over its bound"),
            Self::Magic => f.write_str("does not begin with the right magic bytes"),
            Self::Version(version) => write!(f, "format version {version} is not known here"),
            Self::Tag(what, value) => write!(f, "{what} has the unknown value {value}"),
            Self::NotAuthentic(what) => write!(f, "{what} does not match"),
        }
    }
}

/// Appends the primitive encodings to a buffer.
#[derive(Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on behind what `bytes` holds.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// LEB128, shortest form.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        self
    }

    /// Zigzag, then LEB128.
    pub fn varint_signed(&mut self, value: i64) -> &mut Self {
        self.varint(((value << 1) ^ (value >> 63)) as u64)
    }

    /// A varint length, then the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.varint(value.len() as u64);
        self.raw(value)
    }

    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes the primitive encodings off the front of a slice.
#[derive(Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    object: &'static str,
}

impl<'a> Decoder<'a> {
    /// `object` names what is being decoded, for errors.
    pub fn new(object: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            object,
        }
    }

    pub fn error(&self, defect: Defect) -> DecodeError {
        DecodeError {
            object: self.object,
            defect,
        }
    }

    pub fn fail<T>(&self, defect: Defect) -> Result<T, DecodeError> {
        Err(self.error(defect))
    }

    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if self.rest.len() < len {
            return self.fail(Defect::Truncated);
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return self.fail(Defect::TooLarge("varint"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return self.fail(Defect::NotCanonical("varint"));
                }
                return Ok(value);
            }
        }
        self.fail(Defect::TooLarge("varint"))
    }

    pub fn varint_signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A varint of at most `max`; `field` names it when it is larger.
    pub fn bounded(&mut self, field: &'static str, max: u64) -> Result<u64, DecodeError> {
        let value = self.varint()?;
        if value > max {
            self.fail(Defect::TooLarge(field))
        } else {
            Ok(value)
        }
    }

    pub fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.bounded(field, max as u64)?;
        self.raw(len as usize)
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The rest of the bytes; nothing remains.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            self.fail(Defect::Trailing)
        }
    }
}
