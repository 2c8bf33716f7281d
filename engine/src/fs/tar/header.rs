//! One header: a block of fields at fixed places.

use std::ops::Range;

use super::{BLOCK_BYTES, TarError};

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
/// In an old sparse file of GNU's: the first parts, whether a block with more follows, the size.
pub const SPARSE_PARTS: Range<usize> = 386..482;
pub const SPARSE_GOES_ON: usize = 482;
pub const SPARSE_SIZE: Range<usize> = 483..495;

pub const MAGIC_OF_USTAR: &[u8; 8] = b"ustar\x0000";
pub const MAGIC_OF_GNU: &[u8; 8] = b"ustar  \0";

/// The name, with its prefix where the header has one.
pub fn name(block: &Block) -> Vec<u8> {
    let name = until_nul(&block[NAME]);
    // GNU has other things at the place of the prefix, and its own magic.
    if &block[MAGIC][..6] != b"ustar\0" {
        return name.to_vec();
    }
    let prefix = match &block[TRAILER_OF_STAR] {
        b"tar\0" => PREFIX_OF_STAR,
        _ => PREFIX,
    };
    match until_nul(&block[prefix]) {
        [] => name.to_vec(),
        prefix => [prefix, name].join(&b'/'),
    }
}

/// The sum of all bytes, the field itself as spaces; some writers summed them as signed.
pub fn check_sum(block: &Block) -> Result<(), TarError> {
    let told = octal(&block[CHECKSUM], "checksum")?;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = match CHECKSUM.contains(&at) {
            true => b' ',
            false => *byte,
        };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    match told == unsigned || told == signed {
        true => Ok(()),
        false => Err(TarError::new("the checksum of a header is wrong")),
    }
}

/// Octal digits, or a number of base 256. An empty field is 0.
pub fn number(field: &[u8], name: &'static str) -> Result<i64, TarError> {
    let Some(first) = field.first().filter(|first| **first & 0x80 != 0) else {
        return octal(field, name);
    };
    let invert = if first & 0x40 != 0 { 0xff } else { 0 };
    let mut value = 0u64;
    for (at, byte) in field.iter().enumerate() {
        let mut byte = byte ^ invert;
        if at == 0 {
            byte &= 0x7f;
        }
        if value >> 55 != 0 {
            return Err(TarError::new(format!("a {name} is too large")));
        }
        value = value << 8 | u64::from(byte);
    }
    // 63 bits at most.
    let value = value as i64;
    Ok(if invert == 0 { value } else { !value })
}

fn octal(field: &[u8], name: &'static str) -> Result<i64, TarError> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte));
    let digits = until_nul(&field[start.unwrap_or(field.len())..]);
    let end = digits.iter().rposition(|byte| !is_blank(byte));
    let digits = &digits[..end.map_or(0, |last| last + 1)];
    let mut value = 0i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(TarError::new(format!("a {name} is no number")));
        }
        if value >> 60 != 0 {
            return Err(TarError::new(format!("a {name} is too large")));
        }
        value = value << 3 | i64::from(digit - b'0');
    }
    Ok(value)
}

pub fn size(value: i64) -> Result<u64, TarError> {
    u64::try_from(value).map_err(|_| TarError::new("a size is negative"))
}

/// A text ends at its first NUL, or with its field.
pub fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
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
            (b" 17 \0\0\0\0", Some(0o17)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\x01\x02", Some(258)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xc0\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"0000008\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"+1\0\0\0\0\0\0", None),
            (b"0000644\n", None),
            (b"777777777777777777777777", None),
        ] {
            assert_eq!(number(field, "number").ok(), value, "{field:?}");
        }
    }

    #[test]
    fn a_number_that_is_written_is_read() {
        for value in [0, 7, 0o7777777, 0o10000000, u64::from(u32::MAX)] {
            let mut field = [0; 8];
            set_number(&mut field, value);
            assert_eq!(number(&field, "number"), Ok(value as i64));
        }
        for value in [0o77777777777, 0o100000000000, i64::MAX as u64] {
            let mut field = [0; 12];
            set_number(&mut field, value);
            assert_eq!(number(&field, "number"), Ok(value as i64));
        }
    }

    #[test]
    fn a_header_with_another_byte_is_not_sound() {
        let mut block = [0; BLOCK_BYTES];
        block[NAME][..2].copy_from_slice(b"a\xff");
        seal(&mut block);
        assert_eq!(check_sum(&block), Ok(()));
        block[50] = 1;
        assert!(check_sum(&block).is_err());
    }
}
