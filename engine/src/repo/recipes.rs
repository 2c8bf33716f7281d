//! Putting the tars of layers together again ("Recipes" in the specification).

mod forward;

pub use forward::RecipeBytes;

use podkeep_format::id::{ChunkId, ChunkKind, DiffId};
use podkeep_format::recipe::{Recipe, Run, RunsDecoder, Stream};
use podkeep_format::tree::{Content, Piece};
use ring::digest;

use super::reader::{ChunkSlice, ContentPart, Pieces, Reader};
use super::window::{self, WINDOW_BYTES, WINDOW_PIECES};
use super::{RepoError, RepoResult};

/// Bytes of runs that are decoded at once: at most half as many runs are in memory.
const RUNS_BYTES: usize = 4096;
/// Zeros are handed out in parts of this many bytes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Which stream of a recipe a part is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOf {
    Literals,
    Payloads,
}

/// A part of a layer's tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipePart {
    /// In the tar.
    pub offset: u64,
    /// Not 0.
    pub len: u64,
    pub stream: PartOf,
    pub source: PartSource,
}

/// Where the bytes of a part are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartSource {
    Chunk(SliceOf),
    /// They are these; only in streams of a few bytes.
    Inline(Vec<u8>),
    Zeros,
}

/// Bytes of a chunk of kind `Data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceOf {
    pub id: ChunkId,
    /// Bytes of the chunk in front of them.
    pub skip: u32,
    /// Bytes of the whole chunk.
    pub chunk_len: u32,
}

impl Reader {
    pub fn recipe(&self, id: ChunkId) -> RepoResult<Recipe> {
        let chunk = self.chunk(ChunkKind::Recipe, id)?;
        Recipe::decode(chunk.as_ref()).map_err(|e| RepoError::damaged(recipe_name(id), e))
    }

    /// The recipe of a file that has `size` bytes.
    pub fn recipe_of_file(&self, id: ChunkId, size: u64) -> RepoResult<Recipe> {
        let recipe = self.recipe(id)?;
        if recipe.size == size {
            return Ok(recipe);
        }
        Err(RepoError::Damaged {
            object: recipe_name(id),
            cause: format!("it is of {} bytes, its entry of {size}", recipe.size),
        })
    }

    /// Calls `each` with every list node and data chunk that the streams of a recipe need, in
    /// order, some of them more than once. A list node was read before.
    pub fn recipe_chunks<E: From<RepoError>>(
        &self,
        recipe: &Recipe,
        each: &mut dyn FnMut(ChunkKind, ChunkId) -> Result<(), E>,
    ) -> Result<(), E> {
        for stream in [&recipe.literals, &recipe.payloads, &recipe.runs] {
            for part in self.content_parts(&stream.content) {
                match part? {
                    ContentPart::List(id) => each(ChunkKind::List, id.into())?,
                    ContentPart::Piece(Piece::Chunk { id, .. }) => each(ChunkKind::Data, id)?,
                    ContentPart::Piece(Piece::Zero { .. }) => {}
                }
            }
        }
        Ok(())
    }

    /// The parts of a layer's tar in order, without a gap. At most one node of each level of each
    /// stream is in memory.
    pub fn recipe_parts(&self, recipe: &Recipe) -> RecipeParts<'_> {
        RecipeParts {
            runs: Runs::new(self, recipe),
            literals: Cursor::new(self, &recipe.literals),
            payloads: Cursor::new(self, &recipe.payloads),
            run: Run::default(),
            offset: 0,
            ended: false,
        }
    }

    /// Calls `each` with the bytes of a layer's tar in order, and fails at the end when their
    /// sha256 is not the DiffID. Every chunk was checked before. A window of it is in memory.
    ///
    /// An error of `each` ends it and is returned.
    pub fn rebuild<E: From<RepoError>>(
        &self,
        recipe: &Recipe,
        each: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut hasher = digest::Context::new(&digest::SHA256);
        let mut each = |bytes: &[u8]| {
            hasher.update(bytes);
            each(bytes)
        };
        let mut parts = self.recipe_parts(recipe);
        loop {
            let window = Window::gather(&mut parts)?;
            if window.parts.is_empty() {
                break;
            }
            let fetched = window::fetch(self, &window.chunks)?;
            for part in &window.parts {
                match &part.source {
                    PartSource::Zeros => {
                        let mut left = part.len;
                        while left > 0 {
                            let len = left.min(ZEROS.len() as u64);
                            each(&ZEROS[..len as usize])?;
                            left -= len;
                        }
                    }
                    PartSource::Inline(bytes) => each(bytes)?,
                    PartSource::Chunk(slice) => each(bytes_of(&fetched, slice, part.len)?)?,
                }
            }
        }
        let found = DiffId(hash(hasher));
        if found == recipe.diff_id {
            return Ok(());
        }
        Err(E::from(RepoError::Damaged {
            object: format!("layer sha256:{}", recipe.diff_id),
            cause: format!("its tar is rebuilt as sha256:{found}"),
        }))
    }
}

fn hash(hasher: digest::Context) -> [u8; DiffId::LEN] {
    let mut hash = [0; DiffId::LEN];
    hash.copy_from_slice(hasher.finish().as_ref());
    hash
}

fn recipe_name(id: ChunkId) -> String {
    format!("recipe {id}")
}

/// Parts that follow each other, and the chunks that they need.
#[derive(Default)]
struct Window {
    parts: Vec<RecipePart>,
    chunks: Vec<ChunkId>,
}

impl Window {
    fn gather(parts: &mut RecipeParts<'_>) -> RepoResult<Self> {
        let mut window = Self::default();
        let mut bytes = 0;
        // The parts of a tar that lie in one chunk of headers are many.
        let mut last = [None; 2];
        while bytes < WINDOW_BYTES && window.parts.len() < WINDOW_PIECES {
            let Some(part) = parts.next() else { break };
            let part = part?;
            if let PartSource::Chunk(slice) = &part.source {
                let last = &mut last[usize::from(part.stream == PartOf::Payloads)];
                if *last != Some(slice.id) {
                    *last = Some(slice.id);
                    window.chunks.push(slice.id);
                    bytes += u64::from(slice.chunk_len);
                }
            }
            window.parts.push(part);
        }
        Ok(window)
    }
}

/// `len` bytes of a chunk that was fetched.
fn bytes_of<'w>(fetched: &'w window::Window, slice: &SliceOf, len: u64) -> RepoResult<&'w [u8]> {
    let (buffer, range) = match fetched.chunks.get(&slice.id) {
        Some(Ok(found)) => found,
        Some(Err(error)) => return Err(error.clone()),
        None => {
            let object = format!("chunk {}", slice.id);
            return Err(RepoError::Missing { object });
        }
    };
    let start = (range.start + slice.skip) as usize;
    let bytes = fetched.buffers.get(*buffer as usize);
    match bytes.and_then(|bytes| bytes.get(start..start + len as usize)) {
        Some(bytes) if range.len() == slice.chunk_len as usize => Ok(bytes),
        _ => Err(other_length(slice)),
    }
}

fn other_length(slice: &SliceOf) -> RepoError {
    RepoError::Damaged {
        object: format!("chunk {}", slice.id),
        cause: "it has another length than its content says".into(),
    }
}

fn wrong(cause: impl ToString) -> RepoError {
    RepoError::Damaged {
        object: "a layer's recipe".into(),
        cause: cause.to_string(),
    }
}

/// Yields the parts of a layer's tar. Ends after an error.
pub struct RecipeParts<'r> {
    runs: Runs<'r>,
    literals: Cursor<'r>,
    payloads: Cursor<'r>,
    /// What is left of the run that we are in.
    run: Run,
    offset: u64,
    ended: bool,
}

impl RecipeParts<'_> {
    fn part(&mut self) -> RepoResult<Option<RecipePart>> {
        if self.run == Run::default() {
            match self.runs.next()? {
                Some(run) => self.run = run,
                None => {
                    self.literals.end()?;
                    self.payloads.end()?;
                    return Ok(None);
                }
            }
        }
        let (stream, cursor, left) = if self.run.literals > 0 {
            let left = &mut self.run.literals;
            (PartOf::Literals, &mut self.literals, left)
        } else {
            let left = &mut self.run.payloads;
            (PartOf::Payloads, &mut self.payloads, left)
        };
        let (len, source) = cursor.take(*left)?;
        *left -= len;
        let offset = self.offset;
        self.offset += len;
        Ok(Some(RecipePart {
            offset,
            len,
            stream,
            source,
        }))
    }
}

impl Iterator for RecipeParts<'_> {
    type Item = RepoResult<RecipePart>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let part = self.part();
        self.ended = !matches!(part, Ok(Some(_)));
        part.transpose()
    }
}

/// A place in a stream.
struct Cursor<'r> {
    pieces: Pieces<'r>,
    /// The piece that we are in, and how many bytes of it were taken.
    piece: Option<(Piece, u64)>,
    /// What is left of an inline content.
    inline: Vec<u8>,
}

impl<'r> Cursor<'r> {
    fn new(reader: &'r Reader, stream: &Stream) -> Self {
        Self {
            pieces: reader.pieces(&stream.content),
            piece: None,
            inline: match &stream.content {
                Content::Inline(bytes) => bytes.clone(),
                _ => Vec::new(),
            },
        }
    }

    /// The next bytes of the stream: at least 1 and at most `max`, from one place.
    fn take(&mut self, max: u64) -> RepoResult<(u64, PartSource)> {
        if !self.inline.is_empty() {
            let len = max.min(self.inline.len() as u64);
            let rest = self.inline.split_off(len as usize);
            let bytes = std::mem::replace(&mut self.inline, rest);
            return Ok((len, PartSource::Inline(bytes)));
        }
        let (piece, taken) = match self.piece.take() {
            Some(piece) => piece,
            None => match self.pieces.next() {
                Some(piece) => (piece?, 0),
                None => return Err(wrong("a stream ends too early")),
            },
        };
        let len = max.min(piece.bytes() - taken);
        if taken + len < piece.bytes() {
            self.piece = Some((piece, taken + len));
        }
        let source = match piece {
            Piece::Zero { .. } => PartSource::Zeros,
            // Both are below the bound of a chunk's length.
            Piece::Chunk { id, len } => PartSource::Chunk(SliceOf {
                id,
                skip: taken as u32,
                chunk_len: len,
            }),
        };
        Ok((len, source))
    }

    /// Nothing may be left: a list can hold more than its recipe says.
    fn end(&mut self) -> RepoResult<()> {
        match (&self.piece, self.pieces.next()) {
            (None, None) if self.inline.is_empty() => Ok(()),
            (_, Some(Err(error))) => Err(error),
            _ => Err(wrong("a stream is longer than it says")),
        }
    }
}

/// The last chunk of runs that was read: a few KiB of it are taken at a time.
#[derive(Default)]
struct Kept(Option<(ChunkId, ChunkSlice)>);

impl Kept {
    /// `len` bytes of a chunk.
    fn bytes(&mut self, reader: &Reader, slice: &SliceOf, len: usize) -> RepoResult<&[u8]> {
        let kept = match self.0.take() {
            Some(kept) if kept.0 == slice.id => kept,
            _ => (slice.id, reader.chunk(ChunkKind::Data, slice.id)?),
        };
        let chunk: &ChunkSlice = &self.0.insert(kept).1;
        let start = slice.skip as usize;
        match chunk.as_ref().get(start..start + len) {
            Some(bytes) if chunk.len == slice.chunk_len as usize => Ok(bytes),
            _ => Err(other_length(slice)),
        }
    }
}

/// The runs of a recipe, decoded a few at a time.
struct Runs<'r> {
    reader: &'r Reader,
    stream: Cursor<'r>,
    left: u64,
    chunk: Kept,
    decoder: RunsDecoder,
    ready: std::vec::IntoIter<Run>,
}

impl<'r> Runs<'r> {
    fn new(reader: &'r Reader, recipe: &Recipe) -> Self {
        Self {
            reader,
            stream: Cursor::new(reader, &recipe.runs),
            left: recipe.runs.size,
            chunk: Kept::default(),
            decoder: RunsDecoder::new(recipe.literals.size, recipe.payloads.size),
            ready: Vec::new().into_iter(),
        }
    }

    fn next(&mut self) -> RepoResult<Option<Run>> {
        loop {
            if let Some(run) = self.ready.next() {
                return Ok(Some(run));
            }
            if self.left == 0 {
                self.stream.end()?;
                self.decoder.finish().map_err(wrong)?;
                return Ok(None);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> RepoResult<()> {
        let (len, source) = self.stream.take(self.left.min(RUNS_BYTES as u64))?;
        self.left -= len;
        let len = len as usize;
        let bytes = match &source {
            PartSource::Inline(bytes) => bytes.as_slice(),
            PartSource::Zeros => &ZEROS[..len],
            PartSource::Chunk(slice) => self.chunk.bytes(self.reader, slice, len)?,
        };
        let mut ready = Vec::new();
        self.decoder
            .push(bytes, &mut |run| ready.push(run))
            .map_err(wrong)?;
        self.ready = ready.into_iter();
        Ok(())
    }
}
