//! The headers of a tar: blocks of 512 bytes in, entries out.
//!
//! The old format of Unix, ustar, PAX, and what GNU tar and star made of them: long names, numbers
//! of base 256, sparse files in all four forms, extended attributes and ACLs. The decoder does no
//! I/O: its caller hands it each block that is not content, and passes over the content of an
//! entry, and its padding, itself. So the same decoder tells what of a layer's tar is header, and
//! what is in an archive of a volume.
//!
//! Which entries have content, and how many bytes, is decided exactly as Go's `archive/tar` does,
//! which containers/storage reads layers with.
//!
//! Sources: POSIX.1-2017 `pax`; GNU tar manual, "Tar Internals"; star(5); Go's `archive/tar`.

mod acl;
mod pax;

use podkeep_format::tree::Time;

pub use acl::{AclNames, acl_attribute};
pub use pax::{Extent, SPARSE_EXTENTS_MAX, read_sparse_map};

use self::pax::Records;

/// Bytes of a block; everything in a tar fills whole ones.
pub const BLOCK_BYTES: usize = 512;
/// Bytes of a PAX header, or of a long name of GNU's.
const META_BYTES_MAX: u64 = 1 << 20;

/// Why bytes are no tar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct TarError {
    pub cause: String,
}

impl TarError {
    fn new(cause: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
        }
    }
}

/// What a block amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarStep {
    /// The entry goes on in the next block.
    More,
    /// Its content follows, if it has any, and after that the next header.
    Entry(Box<TarEntry>),
    /// A block of zeros: whatever follows is no entry.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TarKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// This letter. It has content, whatever that is.
    Other(u8),
}

/// Where the content of a file lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    Whole,
    /// Only these parts of the file are stored, one behind the other; the rest is holes.
    Parts(Vec<Extent>),
    /// The same, and the parts are listed in front of them, for [`read_sparse_map`].
    Listed,
}

/// One entry of a tar. Nothing of it is checked but that it can be read: paths may be absolute or
/// lead upwards, numbers may be any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    pub path: Vec<u8>,
    pub kind: TarKind,
    /// Of symbolic and hard links.
    pub target: Vec<u8>,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub mtime: Time,
    /// Major and minor number.
    pub device: (i64, i64),
    /// Bytes that follow, without padding; 0 for links, devices, directories and fifos.
    pub stored_bytes: u64,
    /// Bytes of the file, holes included.
    pub size: u64,
    pub layout: Layout,
    /// Full names ("user.a") with values, in the order in which they stand.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The text of its POSIX ACL, and of the default ACL of a directory.
    pub access_acl: Option<Vec<u8>>,
    pub default_acl: Option<Vec<u8>>,
}

impl TarEntry {
    /// Bytes of zeros behind the content.
    pub fn padding(&self) -> usize {
        padding(self.stored_bytes)
    }
}

/// Zeros that fill the last block of a content of so many bytes.
fn padding(bytes: u64) -> usize {
    (BLOCK_BYTES - (bytes % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES
}

/// Decodes headers. Holds at most a few MiB, whatever it is given.
#[derive(Default)]
pub struct TarHeaders {
    state: State,
    global: Records,
    /// Of the entry under way.
    local: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
}

#[derive(Default)]
enum State {
    #[default]
    Header,
    /// The content of a PAX header or a long name.
    Meta {
        kind: u8,
        bytes: Vec<u8>,
        size: usize,
    },
    /// Further blocks of the map of an old sparse file of GNU's.
    SparseMap {
        entry: Box<TarEntry>,
        parts: Vec<Extent>,
    },
    Ended,
}

impl TarHeaders {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the next block is the first of an entry: a tar may end here without more.
    pub fn is_between(&self) -> bool {
        let pending =
            self.local.is_some() || self.long_name.is_some() || self.long_target.is_some();
        matches!(self.state, State::Header | State::Ended) && !pending
    }

    /// Takes the next block that is not an entry's content. After an error or the end, nothing
    /// that follows has a meaning.
    pub fn block(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<TarStep, TarError> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => Ok(TarStep::End),
            State::Header => self.header(block),
            State::Meta {
                kind,
                mut bytes,
                size,
            } => {
                let take = (size - bytes.len()).min(BLOCK_BYTES);
                bytes.extend_from_slice(&block[..take]);
                if bytes.len() < size {
                    self.state = State::Meta { kind, bytes, size };
                    return Ok(TarStep::More);
                }
                self.meta(kind, bytes)
            }
            State::SparseMap { entry, mut parts } => {
                let goes_on = pax::old_sparse_parts(&block[..504], block[504], &mut parts)?;
                self.sparse_map(entry, parts, goes_on)
            }
        }
    }

    fn header(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<TarStep, TarError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(TarStep::End);
        }
        check_sum(block)?;
        let kind = block[156];
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            let size = size(number(&block[124..136], "size")?)?;
            if size > META_BYTES_MAX {
                let cause = format!("a header of {size} bytes is too long");
                return Err(TarError::new(cause));
            }
            if size == 0 {
                return self.meta(kind, Vec::new());
            }
            self.state = State::Meta {
                kind,
                bytes: Vec::new(),
                size: size as usize,
            };
            return Ok(TarStep::More);
        }
        let mut entry = plain_entry(block)?;
        let local = self.local.take().unwrap_or_default();
        self.global.apply(&mut entry, true)?;
        local.apply(&mut entry, false)?;
        if let Some(name) = self.long_name.take() {
            entry.path = name;
        }
        if let Some(target) = self.long_target.take() {
            entry.target = target;
        }
        if kind == 0 && entry.path.ends_with(b"/") {
            entry.kind = TarKind::Directory;
        }
        match entry.kind {
            TarKind::File => {
                entry.size = entry.stored_bytes;
                local.apply_sparse(&mut entry)?;
            }
            TarKind::Other(_) => entry.size = entry.stored_bytes,
            // Some writers give the size of what a link leads to.
            _ => entry.stored_bytes = 0,
        }
        let is_gnu = &block[257..265] == b"ustar  \0";
        if kind == b'S' && is_gnu {
            entry.size = size(number(&block[483..495], "size")?)?;
            let mut parts = Vec::new();
            let goes_on = pax::old_sparse_parts(&block[386..482], block[482], &mut parts)?;
            return self.sparse_map(Box::new(entry), parts, goes_on);
        }
        self.state = State::Header;
        Ok(TarStep::Entry(Box::new(entry)))
    }

    fn sparse_map(
        &mut self,
        mut entry: Box<TarEntry>,
        parts: Vec<Extent>,
        goes_on: bool,
    ) -> Result<TarStep, TarError> {
        if goes_on {
            self.state = State::SparseMap { entry, parts };
            return Ok(TarStep::More);
        }
        pax::check_parts(&parts, entry.size, entry.stored_bytes)?;
        entry.layout = Layout::Parts(parts);
        self.state = State::Header;
        Ok(TarStep::Entry(entry))
    }

    fn meta(&mut self, kind: u8, bytes: Vec<u8>) -> Result<TarStep, TarError> {
        match kind {
            b'L' => self.long_name = Some(until_nul(&bytes).to_vec()),
            b'K' => self.long_target = Some(until_nul(&bytes).to_vec()),
            b'g' => {
                self.global.extend(Records::decode(&bytes)?)?;
                // Go forgets what stood in front of it, and so what has content stays the same.
                (self.local, self.long_name, self.long_target) = (None, None, None);
            }
            _ => self.local = Some(Records::decode(&bytes)?),
        }
        self.state = State::Header;
        Ok(TarStep::More)
    }
}

/// The entry that a header's own block tells of.
fn plain_entry(block: &[u8; BLOCK_BYTES]) -> Result<TarEntry, TarError> {
    let mut path = until_nul(&block[..100]).to_vec();
    let is_ustar = &block[257..263] == b"ustar\0";
    if is_ustar {
        let is_star = &block[508..512] == b"tar\0";
        let prefix = until_nul(&block[345..if is_star { 476 } else { 500 }]);
        if !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
    }
    let kind = match block[156] {
        b'1' => TarKind::HardLink,
        b'2' => TarKind::Symlink,
        b'3' => TarKind::CharDevice,
        b'4' => TarKind::BlockDevice,
        b'5' => TarKind::Directory,
        b'6' => TarKind::Fifo,
        0 | b'0' | b'7' | b'S' => TarKind::File,
        other => TarKind::Other(other),
    };
    let has_device = matches!(kind, TarKind::CharDevice | TarKind::BlockDevice);
    let device = match has_device {
        true => (
            number(&block[329..337], "device number")?,
            number(&block[337..345], "device number")?,
        ),
        false => (0, 0),
    };
    Ok(TarEntry {
        path,
        kind,
        target: until_nul(&block[157..257]).to_vec(),
        mode: number(&block[100..108], "mode")?,
        uid: number(&block[108..116], "owner")?,
        gid: number(&block[116..124], "group")?,
        mtime: Time {
            secs: number(&block[136..148], "time")?,
            nanos: 0,
        },
        device,
        stored_bytes: size(number(&block[124..136], "size")?)?,
        size: 0,
        layout: Layout::Whole,
        xattrs: Vec::new(),
        access_acl: None,
        default_acl: None,
    })
}

/// The sum of all bytes, the field itself as spaces; some writers summed them as signed.
fn check_sum(block: &[u8; BLOCK_BYTES]) -> Result<(), TarError> {
    let told = octal(&block[148..156], "checksum")?;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) {
            b' '
        } else {
            *byte
        };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    match told == unsigned || told == signed {
        true => Ok(()),
        false => Err(TarError::new("a header does not fit its checksum")),
    }
}

/// Octal digits, or a number of base 256.
fn number(field: &[u8], name: &'static str) -> Result<i64, TarError> {
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
    let digits = digits.trim_ascii_end();
    let mut value = 0i64;
    // A field has 12 bytes at most: 36 bits.
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(TarError::new(format!("a {name} is no number")));
        }
        value = value << 3 | i64::from(digit - b'0');
    }
    Ok(value)
}

fn size(value: i64) -> Result<u64, TarError> {
    u64::try_from(value).map_err(|_| TarError::new("a size is negative"))
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

#[cfg(test)]
mod tests;
