//! File trees of a host: reading them into chunks and tree nodes, and writing them back.
//!
//! The two traits below are where trees cross the seam between a host and the rest of the
//! engine: plain data in bounded batches, no file handle and no callback, so that the same
//! operation drives a tree in this process and one behind an agent. Chunking, hashing and the
//! building of trees happen on the side where the data lies.

pub mod attributes;
pub(crate) mod background;
pub(crate) mod batch;
pub mod durable;
pub mod in_use;
pub(crate) mod lock;
pub mod mounts;
pub mod owners;
pub mod scan;
pub mod states;
pub mod tar;
pub mod write;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkId, ChunkKind, DiffId, TreeId};
use podkeep_format::item::Escaped;
use podkeep_format::tree::{Entry, Node};

use crate::monitor::Finding;

/// A failure that ends the reading or writing of a tree (a single entry's failure is a
/// [`Finding`]).
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action} {object}: {cause}")]
pub struct FsError {
    /// A verb: "read", "open", "write", "swap".
    pub action: &'static str,
    /// The path, written for people.
    pub object: String,
    pub cause: String,
    pub kind: FsErrorKind,
}

/// What a caller treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsErrorKind {
    NotFound,
    /// ENOSPC, EDQUOT.
    NoSpace,
    /// The place holds something that must not be touched without an explicit word.
    Refused,
    /// A layer cannot be read as it was. Whoever opens the image again gets what can be had.
    NotExact,
    /// Everything else.
    Other,
}

impl FsError {
    pub fn new(
        action: &'static str,
        path: &[u8],
        kind: FsErrorKind,
        cause: impl fmt::Display,
    ) -> Self {
        Self {
            action,
            object: Escaped(path).to_string(),
            cause: cause.to_string(),
            kind,
        }
    }

    pub fn from_errno(action: &'static str, path: &[u8], errno: rustix::io::Errno) -> Self {
        let kind = match errno {
            rustix::io::Errno::NOENT => FsErrorKind::NotFound,
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => FsErrorKind::NoSpace,
            _ => FsErrorKind::Other,
        };
        Self::new(action, path, kind, std::io::Error::from(errno))
    }
}

/// A chunk that a scan met, by reference into its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundChunk {
    pub id: ChunkId,
    pub kind: ChunkKind,
    /// Which sort of block it belongs into.
    pub class: BlockClass,
    /// Bytes, at least 1.
    pub len: u32,
}

/// What a scan found since the last call. A chunk that this scan reported before may be left out.
#[derive(Default)]
pub struct ScanBatch {
    /// In an order that keeps children before parents, and what lies together together.
    pub chunks: Vec<FoundChunk>,
    pub findings: Vec<Finding>,
    /// Entries that are not directories, and bytes, since the last batch. `bytes_read` counts
    /// what was read from files, `bytes_logical` the sizes of all files, unchanged ones too.
    pub files: u64,
    pub bytes_read: u64,
    pub bytes_logical: u64,
    /// Nothing that is written into the tree from now on reaches this scan: what it still has to
    /// read, it has copies of. Told once by a scan that reads [`again`](TreeScan::again); one that
    /// does not tell reads the tree itself to the end.
    pub captured: bool,
}

/// The bytes of the chunks that were asked for, in the order in which they were asked for.
pub struct ChunkBytes {
    pub buffer: Arc<Vec<u8>>,
    pub ranges: Vec<Range<usize>>,
}

/// What a whole tree amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOutcome {
    /// The item's root: a `TreeNode::Root`, whose chunk was in a batch.
    pub root: TreeId,
    pub files: u64,
    pub directories: u64,
    pub bytes_logical: u64,
    /// Those outside holes, of each inode once.
    pub bytes_allocated: u64,
    /// Something could not be read: the snapshot must say that it is incomplete.
    pub incomplete: bool,
    /// Layers that were read, each once: only of an image.
    pub layers: Vec<ScannedLayer>,
}

/// A layer that was read as a whole, and proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedLayer {
    pub diff_id: DiffId,
    /// The chunk of its recipe.
    pub recipe: ChunkId,
    /// Bytes of its tar.
    pub size: u64,
    /// All that its tar is made of, the recipe included; ascending.
    pub chunks: Vec<ChunkId>,
}

/// Bytes of a file's content that writing it takes; 0 for anything but a file.
pub fn bytes_outside_holes(node: &Node) -> u64 {
    let Node::File { size, holes, .. } = node else {
        return 0;
    };
    let holes = holes.iter().map(|(_, len)| len).sum();
    size.saturating_sub(holes)
}

/// What those who write into a tree do while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    GoOn,
    Rest,
}

/// A tree that is being read. Dropping it ends the reading.
pub trait TreeScan: Send {
    /// The next batch, or `None` at the end. A batch's chunks together have at most a few MiB.
    fn next(&mut self) -> Result<Option<ScanBatch>, FsError>;

    /// The bytes of some chunks of the last batch, by their index in it, ascending. At most one
    /// call for each batch.
    fn fetch(&mut self, wanted: &[u32]) -> Result<ChunkBytes, FsError>;

    /// Once `next` gave `None`, and before those who write into the tree are put at rest: does ahead
    /// what [`again`](Self::again) would do otherwise. Returns how many bytes of files that will read
    /// whatever happens until then.
    fn before_again(&mut self) -> u64 {
        0
    }

    /// Once `next` gave `None`, as the last thing before those who write into the tree are put at rest:
    /// begins what [`again`](Self::again) will finish.
    fn before_rest(&mut self) {}

    /// Once `next` gave `None`: reads the tree once more, and takes over what did not change since it was
    /// read. Only the last reading counts, and it begins when those who write into the tree are at rest.
    fn again(&mut self, _: Writers) -> Result<(), FsError> {
        let cause = "it can be read only once";
        Err(FsError::new(
            "read",
            b"the tree again",
            FsErrorKind::Other,
            cause,
        ))
    }

    /// Once `next` gave `None`.
    fn finish(self: Box<Self>) -> Result<ScanOutcome, FsError>;
}

/// A directory of a tree that is being written; the root is 0, the caller counts upwards.
pub type DirectoryNumber = u64;
/// A file of a tree that is being written; the caller counts upwards.
pub type FileNumber = u64;

/// A part of a file's content.
#[derive(Clone, Debug)]
pub struct FilePart {
    pub offset: u64,
    pub bytes: PartBytes,
}

#[derive(Clone, Debug)]
pub enum PartBytes {
    /// `range` of the batch's buffer number `buffer`.
    Data { buffer: u32, range: Range<u32> },
    /// Zeros that were allocated: written as such. Holes of the entry are never written.
    Zeros { len: u64 },
    /// [`TreeWriter::present`] said that these bytes are there already.
    Present { len: u64 },
}

impl PartBytes {
    /// Bytes of the file that it stands for.
    pub fn span(&self) -> u64 {
        match self {
            Self::Data { range, .. } => u64::from(range.end.saturating_sub(range.start)),
            Self::Zeros { len } | Self::Present { len } => *len,
        }
    }
}

/// One step of writing a tree. Within a batch: directories are made first, in order; then names
/// are removed; then files
/// are written, in parallel; then the other nodes and links, in order; then directories end.
#[derive(Clone, Debug)]
pub enum WriteStep {
    /// Makes a directory below `parent`. For the root itself: `parent` is `number` is 0, and it
    /// is the first step of all. When the tree is a single file there is no such step: the
    /// file's `parent` is 0.
    Directory {
        number: DirectoryNumber,
        parent: DirectoryNumber,
        entry: Box<Entry>,
    },
    /// Removes what stands under this name, with everything below it. Only where a tree is changed
    /// ([`write::Existing::Change`]).
    Remove {
        parent: DirectoryNumber,
        name: Vec<u8>,
    },
    /// Gives the file `from` the name `name` in the same directory, under which nothing stands. Only where a
    /// tree is changed; parts of the file may follow.
    Move {
        parent: DirectoryNumber,
        from: Vec<u8>,
        name: Vec<u8>,
    },
    /// Parts of a regular file, ascending and not overlapping; further parts of the same file
    /// may follow in later batches, in order. With `last`, its attributes are set.
    File {
        number: FileNumber,
        parent: DirectoryNumber,
        entry: Arc<Entry>,
        parts: Vec<FilePart>,
        last: bool,
    },
    /// A piece of the file turned out to be damaged: nothing of it may stand under its name.
    /// Removes what earlier steps wrote of it; what stood there before a merge stays.
    FileDrop {
        number: FileNumber,
        parent: DirectoryNumber,
        entry: Arc<Entry>,
    },
    /// A symbolic link, device, fifo or socket.
    Node {
        parent: DirectoryNumber,
        entry: Box<Entry>,
    },
    /// A further name of a file or node whose entry has the same link group.
    Link {
        parent: DirectoryNumber,
        entry: Box<Entry>,
    },
    /// All children of the directory were given: its attributes are set.
    DirectoryEnd { number: DirectoryNumber },
}

/// Steps with the bytes that they name. In all some tens of MiB at most.
#[derive(Default)]
pub struct WriteBatch {
    pub steps: Vec<WriteStep>,
    pub buffers: Vec<Arc<Vec<u8>>>,
}

/// Asks which pieces of a file the target holds already (staged by a run that was cut off).
#[derive(Clone, Debug)]
pub struct PresentQuery {
    pub parent: DirectoryNumber,
    pub entry: Arc<Entry>,
    /// (offset, length, id), ascending; a part of the file's pieces when it has many.
    pub pieces: Vec<(u64, u32, ChunkId)>,
}

/// What a finished tree amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    pub files: u64,
    pub directories: u64,
    /// Content bytes that were written; holes and what was present are not counted.
    pub bytes_written: u64,
}

/// A tree that is being written. Dropping it without [`finish`](Self::finish) leaves what is
/// staged where it is, for a later run to go on with.
pub trait TreeWriter: Send {
    /// Whether [`present`](Self::present) may find anything: not where the tree is made from
    /// nothing. Constant from the start.
    fn may_hold(&self) -> bool;

    /// For each query one `bool` for each piece. Directories of the queries were given before
    /// (in an earlier batch). Answers only from bytes that it hashed.
    fn present(&mut self, queries: &[PresentQuery]) -> Result<Vec<Vec<bool>>, FsError>;

    /// Carries out a batch. What fails for one entry is a finding; an error ends the restore.
    fn apply(&mut self, batch: WriteBatch) -> Result<Vec<Finding>, FsError>;

    /// Sets what was left for the end, makes everything durable and puts it in its place.
    fn finish(self: Box<Self>) -> Result<(WriteOutcome, Vec<Finding>), FsError>;

    /// Removes what is staged.
    fn discard(self: Box<Self>) -> Result<(), FsError>;
}
