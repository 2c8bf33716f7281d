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
//! [`TarHeaders::of_layer`] refuses what no layer has. Each reader of tars stands over it:
//! [`MemberReader`], and those of `host/archive` and `podman`. [`TarWriter`] writes what is exported.
//!
//! Sources: POSIX.1-2017 `pax`; GNU tar manual, "Tar Internals"; star(5); Go's `archive/tar`.

mod acl;
mod header;
mod members;
mod pax;
mod write;

use podkeep_format::tree::Time;

pub use acl::{AclNames, acl_attribute};
pub use members::{Member, MemberError, MemberKind, MemberReader, PATH_BYTES_MAX, TarSource};
pub use pax::{Extent, SPARSE_EXTENTS_MAX, read_sparse_map};
pub use write::{NewMember, TarType, TarWriter, xattr_key};

use self::header::{check_sum, number, size, until_nul};
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
    of_layer: bool,
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

    /// For the tar of a layer that was unpacked. Sparse files are refused, which tar-split has no
    /// form for, and so are numbers with a sign in PAX records. What a global header says is passed
    /// over, as what unpacks layers does.
    pub fn of_layer() -> Self {
        Self {
            of_layer: true,
            ..Self::default()
        }
    }

    /// Whether the next block is a header, the first of an entry or a further one.
    pub fn is_at_header(&self) -> bool {
        matches!(self.state, State::Header | State::Ended)
    }

    /// Whether the next block is the first of an entry: a tar may end here without more.
    pub fn is_between(&self) -> bool {
        let pending =
            self.local.is_some() || self.long_name.is_some() || self.long_target.is_some();
        self.is_at_header() && !pending
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
        let kind = block[header::TYPE];
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            let size = size(number(&block[header::SIZE], "size")?)?;
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
        if kind == b'S' && self.of_layer {
            return Err(pax::sparse_in_layer());
        }
        let is_gnu = &block[header::MAGIC] == header::MAGIC_OF_GNU;
        if kind == b'S' && is_gnu {
            entry.size = size(number(&block[header::SPARSE_SIZE], "size")?)?;
            let mut parts = Vec::new();
            let fields = &block[header::SPARSE_PARTS];
            let goes_on = pax::old_sparse_parts(fields, block[header::SPARSE_GOES_ON], &mut parts)?;
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
            b'L' => self.long_name = long_text(&bytes),
            b'K' => self.long_target = long_text(&bytes),
            b'g' => {
                let records = Records::decode(&bytes)?;
                if !self.of_layer {
                    self.global.extend(records)?;
                }
                // Go forgets what stood in front of it, and so what has content stays the same.
                (self.local, self.long_name, self.long_target) = (None, None, None);
            }
            _ => {
                let records = Records::decode(&bytes)?;
                if self.of_layer {
                    records.check_of_layer()?;
                }
                self.local = Some(records);
            }
        }
        self.state = State::Header;
        Ok(TarStep::More)
    }
}

/// An empty one says nothing.
fn long_text(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = until_nul(bytes);
    (!text.is_empty()).then(|| text.to_vec())
}

/// The entry that a header's own block tells of.
fn plain_entry(block: &[u8; BLOCK_BYTES]) -> Result<TarEntry, TarError> {
    let kind = match block[header::TYPE] {
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
            number(&block[header::DEVICE_MAJOR], "device number")?,
            number(&block[header::DEVICE_MINOR], "device number")?,
        ),
        false => (0, 0),
    };
    Ok(TarEntry {
        path: header::name(block),
        kind,
        target: until_nul(&block[header::LINK]).to_vec(),
        mode: number(&block[header::MODE], "mode")?,
        uid: number(&block[header::UID], "owner")?,
        gid: number(&block[header::GID], "group")?,
        mtime: Time {
            secs: number(&block[header::MTIME], "time")?,
            nanos: 0,
        },
        device,
        stored_bytes: size(number(&block[header::SIZE], "size")?)?,
        size: 0,
        layout: Layout::Whole,
        xattrs: Vec::new(),
        access_acl: None,
        default_acl: None,
    })
}

#[cfg(test)]
mod tests;
