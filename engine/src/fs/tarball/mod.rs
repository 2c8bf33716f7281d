//! Tars: reading the headers of foreign ones, and writing our own.
//!
//! The reader is for the layers of images, which come from anybody. It takes what Go's
//! `archive/tar` takes, since that unpacked the layer: old tars, ustar, GNU and PAX. It never looks
//! at contents, and passes over them by their size.

mod header;
mod pax;
mod read;
mod write;

pub use read::{Member, MemberKind, TarReader, TarSource};
pub use write::{TarEntry, TarType, TarWriter};

use podkeep_format::tree::Time;

/// Bytes of a block: headers are one, contents are filled up to whole ones.
pub const BLOCK_BYTES: usize = 512;
/// Bytes of a name or of a link's target: Linux's PATH_MAX, so that nothing longer was unpacked.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of a PAX header or of a GNU long name. Go's bound.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset} of its tar: {cause}")]
pub struct TarError {
    /// Of the header that is wrong, or where the tar ends too early.
    pub offset: u64,
    /// A sentence without its full stop.
    pub cause: &'static str,
}

/// The bytes that a size leaves of its last block.
pub const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK_BYTES as u64
}

/// How PAX writes a time: a decimal number that counts from 1970.
fn pax_time(text: &[u8]) -> Option<Time> {
    let text = str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let secs: i64 = whole.parse().ok()?;
    let mut nanos = 0;
    for place in 0..9 {
        let digit = fraction.as_bytes().get(place).map_or(0, |byte| byte - b'0');
        nanos = nanos * 10 + u32::from(digit);
    }
    Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

/// As [`pax_time`] reads it.
fn time_text(time: Time) -> String {
    let (sign, secs, nanos) = match time {
        Time { secs, nanos } if secs < 0 && nanos > 0 => {
            ("-", (secs + 1).unsigned_abs(), 1_000_000_000 - nanos)
        }
        Time { secs, nanos } => (if secs < 0 { "-" } else { "" }, secs.unsigned_abs(), nanos),
    };
    match nanos {
        0 => format!("{sign}{secs}"),
        nanos => format!("{sign}{secs}.{nanos:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_the_epoch() {
        let time = |secs, nanos| Some(Time { secs, nanos });
        assert_eq!(pax_time(b"12"), time(12, 0));
        assert_eq!(pax_time(b"12.5"), time(12, 500_000_000));
        assert_eq!(pax_time(b"0.0000000019"), time(0, 1));
        assert_eq!(pax_time(b"-1.5"), time(-2, 500_000_000));
        assert_eq!(pax_time(b"-1"), time(-1, 0));
        for wrong in ["", "-", ".5", "1e3", "--1", "9999999999999999999"] {
            assert_eq!(pax_time(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn times_that_are_written_are_read() {
        for secs in [-2, -1, 0, 1, i64::from(u32::MAX)] {
            for nanos in [0, 1, 999_999_999] {
                let time = Time { secs, nanos };
                assert_eq!(pax_time(time_text(time).as_bytes()), Some(time));
            }
        }
    }

    #[test]
    fn sizes_are_filled_up_to_whole_blocks() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
