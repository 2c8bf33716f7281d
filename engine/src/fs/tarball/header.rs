//! One header: a block of fields at fixed places.

use std::ops::Range;

use super::BLOCK_BYTES;

pub type Block = [u8; BLOCK_BYTES];

pub const NAME: Range<usize> = 0..100;
pub const MODE: Range<usize> = 100..108;
pub const UID: Range<usize> = 108..116;
pub const GID: Range<usize> = 116..124;
pub const SIZE: Range<usize> = 124..136;
pub const MTIME: Range<usize> = 136..148;
pub const CHECKSUM: Range<usize> = 148..156;
pub const TYPE: usize = 156;
pub const LINK: Range<usize> = 157..257;
pub const MAGIC: Range<usize> = 257..265;
pub const DEVICE_MAJOR: Range<usize> = 329..337;
pub const DEVICE_MINOR: Range<usize> = 337..345;
/// What stands in front of the name and a slash, in a ustar header; star has it shorter.
const PREFIX: Range<usize> = 345..500;
const PREFIX_OF_STAR: Range<usize> = 345..476;
const TRAILER_OF_STAR: Range<usize> = 508..512;

pub const MAGIC_OF_USTAR: &[u8; 8] = b"ustar\x0000";

/// A text ends at its first NUL, or with its field.
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The name, with its prefix where the header has one.
pub fn name(block: &Block) -> Vec<u8> {
    let name = text(&block[NAME]);
    // GNU has other things at the place of the prefix, and its own magic.
    if &block[MAGIC][..6] != b"ustar\0" {
        return name.to_vec();
    }
    let prefix = match &block[TRAILER_OF_STAR] {
        b"tar\0" => PREFIX_OF_STAR,
        _ => PREFIX,
    };
    match text(&block[prefix]) {
        [] => name.to_vec(),
        prefix => [prefix, name].join(&b'/'),
    }
}

/// A number in octal digits with blanks and NULs around, or, with the highest bit set, in base 256.
/// An empty field is 0. `None`: it is neither, or too large.
pub fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

/// Two's complement, big-endian; the highest bit only marks the form.
fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (place, byte) in field.iter().enumerate() {
        let byte = match (place, negative) {
            (0, false) => byte & 0x7f,
            _ => *byte,
        };
        // A field has 12 bytes at most, so that 128 bits hold it.
        value = value << 8 | i128::from(byte);
    }
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte));
    let Some(start) = start else {
        return Some(0);
    };
    let digits = field[start..].split(blank).next().unwrap_or_default();
    let mut value = 0i64;
    for digit in digits {
        let digit = char::from(*digit).to_digit(8)?;
        value = value.checked_mul(8)?.checked_add(i64::from(digit))?;
    }
    Some(value)
}

/// Whether the checksum is that of the other bytes. Old tars summed signed bytes.
pub fn is_sound(block: &Block) -> bool {
    let Some(told) = octal(&block[CHECKSUM]) else {
        return false;
    };
    let blanked = |at: usize| match CHECKSUM.contains(&at) {
        true => b' ',
        false => block[at],
    };
    let unsigned: i64 = (0..BLOCK_BYTES).map(|at| i64::from(blanked(at))).sum();
    let signed: i64 = (0..BLOCK_BYTES)
        .map(|at| i64::from(blanked(at) as i8))
        .sum();
    told == unsigned || told == signed
}

/// Sets the checksum, which is the last that is set of a header.
pub fn seal(block: &mut Block) {
    block[CHECKSUM].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Writes a number in octal digits with a NUL behind them, or in base 256 where they do not fit.
pub fn set_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if value >> (3 * digits) == 0 {
        let text = format!("{value:0digits$o}\0");
        field.copy_from_slice(text.as_bytes());
        return;
    }
    let bytes = value.to_be_bytes();
    // Fields have 8 bytes or 12.
    let start = field.len() - bytes.len();
    field[..start].fill(0);
    field[start..].copy_from_slice(&bytes);
    field[0] |= 0x80;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_octal_and_in_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (b"\xc0\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"777777777777777777777777", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn a_number_that_is_written_is_read() {
        for value in [0, 7, 0o7777777, 0o10000000, u64::from(u32::MAX)] {
            let mut field = [0; 8];
            set_number(&mut field, value);
            assert_eq!(number(&field), Some(value as i64));
        }
        for value in [0o77777777777, 0o100000000000, i64::MAX as u64] {
            let mut field = [0; 12];
            set_number(&mut field, value);
            assert_eq!(number(&field), Some(value as i64));
        }
    }

    #[test]
    fn a_header_with_another_byte_is_not_sound() {
        let mut block = [0; BLOCK_BYTES];
        block[NAME][..2].copy_from_slice(b"a\xff");
        seal(&mut block);
        assert!(is_sound(&block));
        block[50] = 1;
        assert!(!is_sound(&block));
    }
}
