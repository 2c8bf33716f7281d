//! Taking a tar apart as it streams by: its entries, their contents, and all other bytes.
//!
//! As Go's archive/tar reads it, since that is what unpacked the layer: ustar with its prefix, PAX
//! records, the long names and base-256 numbers of GNU. Sparse files are refused: no layer that
//! tar-split can put together has any.

/// Bytes of a PAX header or a long name, as in Go.
const SPECIAL_BYTES_MAX: u64 = 1 << 20;
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TarKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    /// The name of another entry.
    HardLink(Vec<u8>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    /// Something that nothing is unpacked for.
    Other,
}

/// The header of an entry, with what stands before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TarEntry {
    pub name: Vec<u8>,
    pub kind: TarKind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of content that follow; only files have any.
    pub size: u64,
    /// Seconds, and nanoseconds that are added to them.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A part of a tar. The bytes of all `Raw` and `Content` in their order are the tar.
pub(super) enum TarPart<'a> {
    /// Headers, padding, the end.
    Raw(&'a [u8]),
    /// Comes after its headers; its content follows, if it has any.
    Entry(&'a TarEntry),
    Content(&'a [u8]),
}

/// Gets the parts; an error ends the reading and is returned.
pub(super) type EachPart<'a> = &'a mut dyn FnMut(TarPart<'_>) -> Result<(), String>;

/// What the headers before an entry say of it.
#[derive(Default)]
struct Overrides {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy)]
enum State {
    /// A header is gathered.
    Header,
    /// The text of a special header of this type is gathered.
    Special {
        kind: u8,
        left: u64,
        padding: u64,
    },
    Content {
        left: u64,
        padding: u64,
    },
    Padding(u64),
    /// Behind the two blocks of zeros: anything.
    Trailer,
}

pub(super) struct TarParser {
    state: State,
    block: Vec<u8>,
    special: Vec<u8>,
    overrides: Overrides,
    zero_blocks: u32,
}

impl TarParser {
    pub fn new() -> Self {
        Self {
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            special: Vec::new(),
            overrides: Overrides::default(),
            zero_blocks: 0,
        }
    }

    pub fn push(&mut self, mut bytes: &[u8], each: EachPart<'_>) -> Result<(), String> {
        while !bytes.is_empty() {
            let wanted = match self.state {
                State::Header => (BLOCK - self.block.len()) as u64,
                State::Special { left, .. } | State::Content { left, .. } => left,
                State::Padding(left) => left,
                State::Trailer => u64::MAX,
            };
            let len = wanted.min(bytes.len() as u64);
            let (now, rest) = bytes.split_at(len as usize);
            bytes = rest;
            each(match self.state {
                State::Content { .. } => TarPart::Content(now),
                _ => TarPart::Raw(now),
            })?;
            self.state = match self.state {
                State::Header => {
                    self.block.extend_from_slice(now);
                    match self.block.len() {
                        BLOCK => self.header(each)?,
                        _ => State::Header,
                    }
                }
                State::Special {
                    kind,
                    left,
                    padding,
                } => {
                    self.special.extend_from_slice(now);
                    match left - len {
                        0 => {
                            self.special(kind)?;
                            after(padding)
                        }
                        left => State::Special {
                            kind,
                            left,
                            padding,
                        },
                    }
                }
                State::Content { left, padding } => match left - len {
                    0 => after(padding),
                    left => State::Content { left, padding },
                },
                State::Padding(left) => after(left - len),
                State::Trailer => State::Trailer,
            };
        }
        Ok(())
    }

    /// Fails when the tar ends inside an entry.
    pub fn finish(&self) -> Result<(), String> {
        match self.state {
            State::Header if self.block.is_empty() => Ok(()),
            State::Padding(_) | State::Trailer => Ok(()),
            _ => Err("its tar ends inside an entry".into()),
        }
    }

    fn header(&mut self, each: EachPart<'_>) -> Result<State, String> {
        let block = std::mem::take(&mut self.block);
        let state = self.entry(&block, each);
        self.block = block;
        self.block.clear();
        state
    }

    fn entry(&mut self, block: &[u8], each: EachPart<'_>) -> Result<State, String> {
        if block.iter().all(|byte| *byte == 0) {
            self.zero_blocks += 1;
            return Ok(match self.zero_blocks {
                2.. => State::Trailer,
                _ => State::Header,
            });
        }
        if self.zero_blocks > 0 {
            return Err("its tar goes on behind a block of zeros".into());
        }
        check_sum(block)?;
        let kind = block[156];
        let size = number(&block[124..136])?;
        let size = u64::try_from(size).map_err(|_| "a size is negative".to_owned())?;
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            if size > SPECIAL_BYTES_MAX {
                return Err("a header of its tar is too large".into());
            }
            self.special.clear();
            return Ok(match size {
                0 => State::Header,
                left => State::Special {
                    kind,
                    left,
                    padding: padding(size),
                },
            });
        }
        let entry = entry_of(block, kind, size, std::mem::take(&mut self.overrides))?;
        each(TarPart::Entry(&entry))?;
        Ok(match entry.size {
            0 => State::Header,
            left => State::Content {
                left,
                padding: padding(left),
            },
        })
    }

    /// A special header is whole.
    fn special(&mut self, kind: u8) -> Result<(), String> {
        let special = std::mem::take(&mut self.special);
        match kind {
            b'x' => pax(&special, &mut self.overrides)?,
            b'L' => self.overrides.name = Some(text(&special)),
            b'K' => self.overrides.link = Some(text(&special)),
            // What a global header says is nothing that is unpacked.
            _ => {}
        }
        Ok(())
    }
}

fn after(padding: u64) -> State {
    match padding {
        0 => State::Header,
        left => State::Padding(left),
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn entry_of(block: &[u8], flag: u8, size: u64, overrides: Overrides) -> Result<TarEntry, String> {
    let name = match overrides.name {
        Some(name) => name,
        None => plain_name(block),
    };
    let link = overrides.link.unwrap_or_else(|| text(&block[157..257]));
    let numbers = || Ok::<_, String>((small(&block[329..337])?, small(&block[337..345])?));
    let is_directory_name = name.ends_with(b"/");
    let kind = match flag {
        b'0' | b'7' | 0 if is_directory_name && flag == 0 => TarKind::Directory,
        b'0' | b'7' | 0 => TarKind::File,
        b'1' => TarKind::HardLink(link),
        b'2' => TarKind::Symlink(link),
        b'3' => numbers().map(|(major, minor)| TarKind::CharDevice(major, minor))?,
        b'4' => numbers().map(|(major, minor)| TarKind::BlockDevice(major, minor))?,
        b'5' => TarKind::Directory,
        b'6' => TarKind::Fifo,
        b'S' => return Err(SPARSE.into()),
        _ => TarKind::Other,
    };
    let has_content = matches!(kind, TarKind::File | TarKind::Other);
    Ok(TarEntry {
        name,
        mode: small(&block[100..108])? & 0o7777,
        uid: match overrides.uid {
            Some(uid) => uid,
            None => small(&block[108..116])?,
        },
        gid: match overrides.gid {
            Some(gid) => gid,
            None => small(&block[116..124])?,
        },
        size: match has_content {
            true => overrides.size.unwrap_or(size),
            false => 0,
        },
        mtime: match overrides.mtime {
            Some(mtime) => mtime,
            None => (number(&block[136..148])?, 0),
        },
        xattrs: overrides.xattrs,
        kind,
    })
}

const SPARSE: &str = "its tar has a sparse file, which tar-split has no form for";

/// With the prefix that only POSIX headers have: GNU keeps other things there.
fn plain_name(block: &[u8]) -> Vec<u8> {
    let name = text(&block[..100]);
    let prefix = match &block[257..263] {
        b"ustar\0" => text(&block[345..500]),
        _ => Vec::new(),
    };
    match prefix.is_empty() {
        true => name,
        false => [prefix.as_slice(), b"/", &name].concat(),
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> Vec<u8> {
    let end = field.iter().position(|byte| *byte == 0);
    field[..end.unwrap_or(field.len())].to_vec()
}

/// Octal digits, or with the highest bit set two's complement of the other bits.
fn number(field: &[u8]) -> Result<i64, String> {
    let wrong = || "a number in its tar is none".to_owned();
    if field[0] & 0x80 != 0 {
        // Bit 6 of the first byte is the sign.
        let negative = field[0] & 0x40 != 0;
        let first = match negative {
            true => i128::from(field[0]) - 256,
            false => i128::from(field[0] & 0x7f),
        };
        let value = field[1..]
            .iter()
            .try_fold(first, |value, byte| {
                value.checked_mul(256)?.checked_add(i128::from(*byte))
            })
            .ok_or_else(wrong)?;
        return i64::try_from(value).map_err(|_| wrong());
    }
    let digits = text(field);
    let digits = digits.trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    let digits = str::from_utf8(digits).map_err(|_| wrong())?;
    i64::from_str_radix(digits, 8).map_err(|_| wrong())
}

fn small(field: &[u8]) -> Result<u32, String> {
    u32::try_from(number(field)?).map_err(|_| "a number in its tar is too large".to_owned())
}

/// The sum of all bytes with spaces for the sum itself.
fn check_sum(block: &[u8]) -> Result<(), String> {
    let stored = number(&block[148..156])?;
    let byte = |(at, byte): (usize, &u8)| match at {
        148..156 => b' ',
        _ => *byte,
    };
    let bytes = block.iter().enumerate().map(byte);
    let unsigned: i64 = bytes.clone().map(i64::from).sum();
    let signed: i64 = bytes.map(|byte| i64::from(byte as i8)).sum();
    match stored == unsigned || stored == signed {
        true => Ok(()),
        false => Err("a header of its tar has another checksum".into()),
    }
}

/// "LEN KEY=VALUE\n", again and again.
fn pax(mut records: &[u8], overrides: &mut Overrides) -> Result<(), String> {
    let wrong = || "a PAX header of its tar cannot be read".to_owned();
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ');
        let space = space.ok_or_else(wrong)?;
        let len = str::from_utf8(&records[..space]).map_err(|_| wrong())?;
        let len: usize = len.parse().map_err(|_| wrong())?;
        let record = records.get(space + 1..len).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        records = &records[len..];
        let equals = record.iter().position(|byte| *byte == b'=');
        let (key, value) = record.split_at(equals.ok_or_else(wrong)?);
        let value = &value[1..];
        let digits = || str::from_utf8(value).map_err(|_| wrong());
        match key {
            b"path" => overrides.name = Some(value.to_vec()),
            b"linkpath" => overrides.link = Some(value.to_vec()),
            b"size" => overrides.size = Some(digits()?.parse().map_err(|_| wrong())?),
            b"uid" => overrides.uid = Some(digits()?.parse().map_err(|_| wrong())?),
            b"gid" => overrides.gid = Some(digits()?.parse().map_err(|_| wrong())?),
            b"mtime" => overrides.mtime = Some(time(digits()?).ok_or_else(wrong)?),
            key if key.starts_with(b"GNU.sparse.") => return Err(SPARSE.into()),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    overrides.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// Seconds since 1970 with a fraction, "-1.5".
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: u32 = digits.parse().ok()?;
    match (text.starts_with('-'), nanos) {
        (true, 1..) => Some((secs.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((secs, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_form() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b" 17 \0\0\0\0", 0o17),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"\x80\0\0\0\0\0\x01\x02", 258),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(number(field), Ok(value));
        }
        assert!(number(b"0000008\0").is_err());
        assert!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn times_before_1970_have_fractions_too() {
        assert_eq!(time("7"), Some((7, 0)));
        assert_eq!(time("7.25"), Some((7, 250_000_000)));
        assert_eq!(time("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time("1.x"), None);
    }

    #[test]
    fn nothing_is_read_past_what_a_header_may_claim() {
        let mut parser = TarParser::new();
        assert!(parser.push(&[1; BLOCK], &mut |_| Ok(())).is_err());
        let mut overrides = Overrides::default();
        for record in [
            &b"9999 path=x\n"[..],
            b"x",
            b"3 =\n",
            b"12 path=abcde",
            b"0 a=b\n",
        ] {
            assert!(pax(record, &mut overrides).is_err(), "{record:?}");
        }
    }
}
