//! Reading a layer: its tar is put together again, bit by bit, from tar-split and the files in
//! its directory, and proven by its DiffID.
//!
//! Only the content of files is read: owners, modes, times and whiteouts of the tar are all in
//! tar-split, so it does not matter how a driver keeps them, or whose files they are.
//!
//! Nothing that was read may be kept before [`LayerEvent::End`] came: a byte that differs shows
//! only there. Then the files are read once more, and the first one whose CRC64 is not the one
//! in tar-split is named.

mod content;
mod crc64;
mod objects;
mod own_tar;

use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;

use podkeep_format::id::DiffId;
use podkeep_format::item::Escaped;
use ring::digest::{Context, SHA256};
use rustix::io::Errno;

use self::content::NoContent;
pub(super) use self::content::{COMPOSEFS_FOLDER, Content, clean};
pub(super) use self::crc64::Crc64;
pub use self::objects::LayerObjects;
pub use self::own_tar::{OwnTar, OwnTarReader};
use super::storage::{LayerId, Storage, StorageError, StoreListing, StoredLayer, cause_of};
use super::tar_split::{TarSplit, TarSplitEntry, TarSplitError};

/// Bytes of one event at most.
pub const LAYER_EVENT_BYTES_MAX: usize = 1 << 20;

/// A part of a layer's tar. All bytes in their order are the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerEvent<'a> {
    /// Headers, padding, the end; at least one byte, at most [`LAYER_EVENT_BYTES_MAX`].
    Literal(&'a [u8]),
    /// The content of a file follows, in events of bytes alone. Files without content have none
    /// of this.
    Payload {
        /// As the tar names it.
        path: &'a [u8],
        /// Bytes, at least 1.
        size: u64,
    },
    /// At least one byte, at most [`LAYER_EVENT_BYTES_MAX`].
    Bytes(&'a [u8]),
    /// All of it was the right one.
    End(LayerEnd),
}

/// What a layer amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerEnd {
    pub diff_id: DiffId,
    /// Bytes of the tar.
    pub size: u64,
}

/// Why a layer cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LayerError {
    /// It was removed since it was listed.
    #[error("layer {layer} is no longer in the store")]
    Gone { layer: LayerId },
    #[error("the tar of layer {layer} cannot be made again: {cause}")]
    NotExact { layer: LayerId, cause: NotExact },
    /// What is there is not what it was.
    #[error("layer {layer} is damaged{}: {cause}", at(.path))]
    Damaged {
        layer: LayerId,
        /// The first file that is not right, as the tar names it. `None`: no single one is.
        path: Option<Vec<u8>>,
        cause: String,
    },
    /// The machine failed, not the layer.
    #[error("cannot read {object} of layer {layer}: {cause}")]
    Unreadable {
        layer: LayerId,
        object: String,
        cause: String,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why the tar of a sound layer cannot be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotExact {
    /// A writable layer, or one of a very old store.
    #[error("the store keeps no headers of it (tar-split)")]
    NoTarSplit,
    /// Only its table of contents was ever hashed, so that nothing could prove the tar.
    #[error("the store does not know its digest")]
    NoDigest,
    /// Nor is there a tree of its files.
    #[error("its files lie in a composefs store that does not tell which is which")]
    Composefs,
    #[error("its ZFS data set is not mounted, and Podman does not tell its name")]
    NotMounted,
    /// Podman unpacks such tars, and cannot make them again either.
    #[error("it has sparse files, and the store does not keep where their holes were")]
    Sparse,
    #[error("its files were given other owners for a user namespace")]
    Mapped,
    /// Of the overlay driver with `metacopy` or `redirect_dir`.
    #[error("names and contents of its files lie in different layers")]
    Apart,
    #[error("a file of it has a name that would hide another one in a tar (.wh.)")]
    WhiteoutName,
}

fn at(path: &Option<Vec<u8>>) -> String {
    match path {
        Some(path) => format!(" at '{}'", Escaped(path)),
        None => String::new(),
    }
}

/// Reads a layer from its first byte to its last.
pub struct LayerReader {
    storage: Storage,
    layer: StoredLayer,
    expected: DiffId,
    split: TarSplit<File>,
    content: Content,
    hash: Context,
    /// Bytes that were given.
    size: u64,
    /// The file that is read.
    path: Vec<u8>,
    buffer: Vec<u8>,
    state: State,
}

enum State {
    /// The next entry of tar-split is due.
    Between,
    /// The segment is given from here on.
    Segment(usize),
    File {
        file: File,
        left: u64,
    },
    Ended(Result<LayerEnd, LayerError>),
}

/// An event whose bytes are in the reader's buffers.
enum Step {
    Literal(Range<usize>),
    Payload(u64),
    Bytes(usize),
    End(LayerEnd),
}

impl LayerReader {
    /// `listing` is the one that `layer` is from, which tells what lies below it.
    pub fn open(
        storage: &Storage,
        listing: &StoreListing,
        layer: &StoredLayer,
    ) -> Result<Self, LayerError> {
        let id = layer.id;
        if layer.incomplete {
            return Err(damaged(id, None, "the store marks it as incomplete"));
        }
        let not_exact = |cause| LayerError::NotExact { layer: id, cause };
        let Some(split) = open_split(storage, layer)? else {
            return Err(if_listed(storage, layer, not_exact(NotExact::NoTarSplit)));
        };
        let Some(expected) = layer.diff_id.or(layer.expected_diff_id) else {
            return Err(not_exact(NotExact::NoDigest));
        };
        let content = open_directories(storage, listing, layer)?;
        Ok(Self {
            storage: storage.clone(),
            layer: layer.clone(),
            expected,
            split: TarSplit::new(split),
            content,
            hash: Context::new(&SHA256),
            size: 0,
            path: Vec::new(),
            buffer: Vec::new(),
            state: State::Between,
        })
    }

    /// The next part of the tar. After an end or an error, the same again.
    pub fn next_event(&mut self) -> Result<LayerEvent<'_>, LayerError> {
        let step = match self.step() {
            Ok(step) => step,
            Err(error) => {
                let error = match &self.state {
                    State::Ended(_) => error,
                    _ => if_listed(&self.storage, &self.layer, error),
                };
                self.state = State::Ended(Err(error.clone()));
                return Err(error);
            }
        };
        Ok(match step {
            Step::Literal(range) => LayerEvent::Literal(&self.split.segment()[range]),
            Step::Payload(size) => LayerEvent::Payload {
                path: &self.path,
                size,
            },
            Step::Bytes(len) => LayerEvent::Bytes(&self.buffer[..len]),
            Step::End(end) => LayerEvent::End(end),
        })
    }

    fn step(&mut self) -> Result<Step, LayerError> {
        loop {
            match &mut self.state {
                State::Ended(end) => return end.clone().map(Step::End),
                State::Segment(from) => {
                    let bytes = self.split.segment();
                    let range = *from..bytes.len().min(*from + LAYER_EVENT_BYTES_MAX);
                    if !range.is_empty() {
                        self.hash.update(&bytes[range.clone()]);
                        self.size += range.len() as u64;
                        *from = range.end;
                        return Ok(Step::Literal(range));
                    }
                    self.state = State::Between;
                }
                State::File { file, left } if *left > 0 => {
                    let wanted = (*left).min(LAYER_EVENT_BYTES_MAX as u64) as usize;
                    if self.buffer.len() < wanted {
                        self.buffer.resize(wanted, 0);
                    }
                    let len = match read(file, &mut self.buffer[..wanted]) {
                        Ok(0) => {
                            let cause = format!("its content ends {left} bytes early");
                            return Err(damaged(self.layer.id, Some(&self.path), cause));
                        }
                        Ok(len) => len,
                        Err(errno) => {
                            let object = Escaped(&self.path).to_string();
                            return Err(unreadable(self.layer.id, object, errno));
                        }
                    };
                    self.hash.update(&self.buffer[..len]);
                    self.size += len as u64;
                    *left -= len as u64;
                    return Ok(Step::Bytes(len));
                }
                State::File { .. } => self.state = State::Between,
                State::Between => {
                    if let Some(step) = self.entry()? {
                        return Ok(step);
                    }
                }
            }
        }
    }

    /// Goes on to the next entry of tar-split. `None`: it has no bytes, or they come next.
    fn entry(&mut self) -> Result<Option<Step>, LayerError> {
        let id = self.layer.id;
        let entry = self
            .split
            .next_entry()
            .map_err(|error| split_damaged(id, error))?;
        // Nothing is given that the record rules out: an entry may claim any size.
        let room = self
            .layer
            .diff_size
            .map(|size| size.saturating_sub(self.size));
        match entry {
            None => {
                let end = self.end()?;
                self.state = State::Ended(Ok(end));
            }
            Some(TarSplitEntry::Segment(bytes)) => {
                if room.is_some_and(|room| bytes.len() as u64 > room) {
                    return Err(self.unless_sparse(damaged(id, None, TOO_LONG))?);
                }
                self.state = State::Segment(0);
            }
            Some(TarSplitEntry::File { size: 0, .. }) => {}
            Some(TarSplitEntry::File { name, size, .. }) => {
                if room.is_some_and(|room| size > room) {
                    let error = damaged(id, Some(name), TOO_LONG);
                    return Err(self.unless_sparse(error)?);
                }
                self.path.clear();
                self.path.extend_from_slice(name);
                let file = open_content(&mut self.content, id, name, size)?;
                self.state = State::File { file, left: size };
                return Ok(Some(Step::Payload(size)));
            }
        }
        Ok(None)
    }

    /// Compares what was read with what it has to be.
    fn end(&mut self) -> Result<LayerEnd, LayerError> {
        let hash = std::mem::replace(&mut self.hash, Context::new(&SHA256)).finish();
        let diff_size = self.layer.diff_size.unwrap_or(self.size);
        if hash.as_ref() == self.expected.as_bytes() && self.size == diff_size {
            return Ok(LayerEnd {
                diff_id: self.expected,
                size: self.size,
            });
        }
        let path = self.first_wrong_file()?;
        if path.is_none() && self.has_sparse_files()? {
            let (layer, cause) = (self.layer.id, NotExact::Sparse);
            return Err(LayerError::NotExact { layer, cause });
        }
        let cause = match &path {
            Some(_) => WRONG_CONTENT.into(),
            None if self.size != diff_size => {
                format!("its tar has {} bytes, not {diff_size}", self.size)
            }
            None => format!(
                "its sha256 is {}, not {}, though each file fits its checksum",
                podkeep_format::id::hex(hash.as_ref()),
                self.expected
            ),
        };
        Err(damaged(self.layer.id, path.as_deref(), cause))
    }

    /// What a tar that seems to be too long is: of a sparse file, tar-split tells what it has
    /// unpacked, and not what its tar has of it.
    fn unless_sparse(&mut self, error: LayerError) -> Result<LayerError, LayerError> {
        if !self.has_sparse_files()? {
            return Ok(error);
        }
        let (layer, cause) = (self.layer.id, NotExact::Sparse);
        Ok(match self.first_wrong_file()? {
            Some(path) => damaged(layer, Some(&path), WRONG_CONTENT),
            None => LayerError::NotExact { layer, cause },
        })
    }

    /// Whether a header says so. Podman unpacks no tar with the older kind of sparse files, which has
    /// a type of its own.
    fn has_sparse_files(&self) -> Result<bool, LayerError> {
        let id = self.layer.id;
        let Some(split) = open_split(&self.storage, &self.layer)? else {
            return Err(LayerError::Gone { layer: id });
        };
        let mut split = TarSplit::new(split);
        while let Some(entry) = split
            .next_entry()
            .map_err(|error| split_damaged(id, error))?
        {
            if let TarSplitEntry::Segment(bytes) = entry
                && bytes
                    .windows(SPARSE_RECORD.len())
                    .any(|part| part == SPARSE_RECORD)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads all files again and compares their checksums.
    fn first_wrong_file(&mut self) -> Result<Option<Vec<u8>>, LayerError> {
        let id = self.layer.id;
        let Some(split) = open_split(&self.storage, &self.layer)? else {
            return Err(LayerError::Gone { layer: id });
        };
        let mut split = TarSplit::new(split);
        self.buffer.resize(LAYER_EVENT_BYTES_MAX, 0);
        while let Some(entry) = split
            .next_entry()
            .map_err(|error| split_damaged(id, error))?
        {
            let TarSplitEntry::File {
                name,
                size,
                crc64: Some(expected),
            } = entry
            else {
                continue;
            };
            if size == 0 {
                continue;
            }
            let file = open_content(&mut self.content, id, name, size)?;
            let mut sum = Crc64::new();
            let mut left = size;
            while left > 0 {
                let wanted = left.min(LAYER_EVENT_BYTES_MAX as u64) as usize;
                let read = read(&file, &mut self.buffer[..wanted]);
                let len = read.map_err(|errno| unreadable(id, Escaped(name).to_string(), errno))?;
                if len == 0 {
                    return Ok(Some(name.to_vec()));
                }
                sum.update(&self.buffer[..len]);
                left -= len as u64;
            }
            if sum.value() != expected {
                return Ok(Some(name.to_vec()));
            }
        }
        Ok(None)
    }
}

fn open_directories(
    storage: &Storage,
    listing: &StoreListing,
    layer: &StoredLayer,
) -> Result<Content, LayerError> {
    Content::open(storage, listing, layer).map_err(|cause| no_content(storage, layer, cause))
}

/// The directory of a layer that has its files under their names.
fn open_tree(
    storage: &Storage,
    listing: &StoreListing,
    layer: &StoredLayer,
) -> Result<OwnedFd, LayerError> {
    let content = open_directories(storage, listing, layer)?;
    content
        .into_top()
        .map_err(|cause| no_content(storage, layer, cause))
}

fn no_content(storage: &Storage, layer: &StoredLayer, cause: NoContent) -> LayerError {
    let id = layer.id;
    let not_exact = |cause| LayerError::NotExact { layer: id, cause };
    match cause {
        NoContent::Missing => {
            let error = damaged(id, None, "its directory is missing");
            if_listed(storage, layer, error)
        }
        NoContent::Composefs => not_exact(NotExact::Composefs),
        NoContent::NotMounted => not_exact(NotExact::NotMounted),
        NoContent::Unreadable { object, errno } => {
            let error = unreadable(id, object, errno);
            if_listed(storage, layer, error)
        }
    }
}

const TOO_LONG: &str = "its tar is longer than the store says";
const WRONG_CONTENT: &str = "its content is not what its checksum says";
/// What the PAX records of a sparse file begin with.
const SPARSE_RECORD: &[u8] = b"GNU.sparse.";

/// The layer's tar-split. `None`: there is none.
fn open_split(storage: &Storage, layer: &StoredLayer) -> Result<Option<File>, LayerError> {
    let file = format!(
        "{}-layers/{}.tar-split.gz",
        storage.driver().word(),
        layer.id
    );
    for root in storage.roots_from(layer.origin) {
        match root.file(&file) {
            Ok((file, _)) => return Ok(Some(file)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(unreadable(layer.id, root.name(&file), errno)),
        }
    }
    Ok(None)
}

fn open_content(
    content: &mut Content,
    layer: LayerId,
    name: &[u8],
    size: u64,
) -> Result<File, LayerError> {
    let cause = match content.file(name) {
        Ok((file, found)) if found == size => return Ok(file),
        Ok((_, found)) => format!("it has {found} bytes, not {size}"),
        // A name that is too long for a path is one that nothing was ever unpacked to.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => "it is missing".into(),
        Err(Errno::INVAL | Errno::LOOP) => "it is no regular file".into(),
        Err(errno) => return Err(unreadable(layer, Escaped(name).to_string(), errno)),
    };
    Err(damaged(layer, Some(name), cause))
}

/// What `error` says, unless the layer was removed meanwhile.
fn if_listed(storage: &Storage, layer: &StoredLayer, error: LayerError) -> LayerError {
    match storage.read() {
        Ok(listing) => match listing.layers.get(&layer.id) {
            Some(listed) if !listed.incomplete => error,
            _ => LayerError::Gone { layer: layer.id },
        },
        // What is known stands; whoever asks for the lists next is told of this.
        Err(_) => error,
    }
}

fn read(file: &File, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::read(file, &mut *buffer) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn damaged(layer: LayerId, path: Option<&[u8]>, cause: impl Into<String>) -> LayerError {
    LayerError::Damaged {
        layer,
        path: path.map(<[u8]>::to_vec),
        cause: cause.into(),
    }
}

fn split_damaged(layer: LayerId, error: TarSplitError) -> LayerError {
    damaged(
        layer,
        None,
        format!("its tar-split cannot be read: {error}"),
    )
}

fn unreadable(layer: LayerId, object: String, errno: Errno) -> LayerError {
    LayerError::Unreadable {
        layer,
        object,
        cause: cause_of(errno),
    }
}
