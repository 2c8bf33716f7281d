//! Making a layer's recipe from the parts of its tar, as they come.

use podkeep_format::block::BlockClass;
use podkeep_format::id::{ChunkId, ChunkIdKey, ChunkKind, DiffId};
use podkeep_format::recipe::{LITERAL_PAYLOAD_BYTES_MAX, Recipe, RunsEncoder, Stream};
use podkeep_format::tree::{Content, ContentBuilder, INLINE_BYTES_MAX};

use crate::chunk::{self, Chunking, Cut};
use crate::fs::ScannedLayer;
use crate::fs::batch::Stage;

/// Gathers the literals, payloads and runs of one layer; their chunks go to a stage. Holds at
/// most a chunk of each.
pub struct RecipeBuilder<'c> {
    chunking: &'c Chunking,
    literals: StreamBuilder<'c>,
    payloads: PayloadBuilder<'c>,
    runs: StreamBuilder<'c>,
    encoder: RunsEncoder,
    /// Bytes of the content under way that did not come yet, and whether it goes to the literals.
    left: u64,
    is_literal: bool,
    /// Runs that are not pushed yet.
    encoded: Vec<u8>,
}

impl<'c> RecipeBuilder<'c> {
    pub fn new(chunking: &'c Chunking) -> Self {
        Self {
            chunking,
            literals: StreamBuilder::new(chunking),
            payloads: PayloadBuilder::new(chunking),
            runs: StreamBuilder::new(chunking),
            encoder: RunsEncoder::new(),
            left: 0,
            is_literal: true,
            encoded: Vec::new(),
        }
    }

    /// Bytes that are the layer's own: headers and padding.
    pub fn literal(&mut self, bytes: &[u8], stage: &mut Stage) {
        self.encoder.literals(bytes.len() as u64, &mut self.encoded);
        self.literals.push(bytes, stage);
        if !self.encoded.is_empty() {
            self.runs.push(&self.encoded, stage);
            self.encoded.clear();
        }
    }

    /// The content of a file follows: `size` bytes, in parts.
    pub fn begin_payload(&mut self, size: u64) {
        self.left = size;
        self.is_literal = size <= LITERAL_PAYLOAD_BYTES_MAX;
        if !self.is_literal {
            self.encoder.payloads(size);
        }
    }

    pub fn payload(&mut self, bytes: &[u8], stage: &mut Stage) {
        if self.is_literal {
            self.literal(bytes, stage);
            return;
        }
        self.payloads.push(bytes, stage);
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if self.left == 0 {
            self.payloads.end_of_file(stage);
        }
    }

    /// The tar has ended, and hashed to `diff_id`. Stages the recipe itself, too.
    pub fn finish(mut self, diff_id: DiffId, stage: &mut Stage) -> ScannedLayer {
        self.encoder.finish(&mut self.encoded);
        self.runs.push(&self.encoded, stage);
        let recipe = Recipe {
            diff_id,
            size: self.literals.size + self.payloads.content.size(),
            literals: self.literals.finish(stage),
            payloads: self.payloads.finish(stage),
            runs: self.runs.finish(stage),
        };
        let encoded = recipe.encode();
        let id = self.chunking.ids.chunk_id(ChunkKind::Recipe, &encoded);
        stage.add(id, ChunkKind::Recipe, BlockClass::Meta, &encoded);
        ScannedLayer {
            diff_id,
            recipe: id,
            size: recipe.size,
            chunks: Vec::new(),
        }
    }
}

/// A stream that is cut as one content.
pub struct StreamBuilder<'c> {
    chunking: &'c Chunking,
    stream: chunk::Stream<'c>,
    content: ContentBuilder,
    size: u64,
    /// The first bytes: a stream that has no more than fit into the recipe lies there.
    head: Vec<u8>,
}

impl<'c> StreamBuilder<'c> {
    pub fn new(chunking: &'c Chunking) -> Self {
        Self {
            chunking,
            stream: chunk::Stream::new(&chunking.chunker),
            content: ContentBuilder::new(),
            size: 0,
            head: Vec::new(),
        }
    }

    pub fn push(&mut self, bytes: &[u8], stage: &mut Stage) {
        let room = INLINE_BYTES_MAX - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.size += bytes.len() as u64;
        let Self {
            chunking,
            stream,
            content,
            ..
        } = self;
        stream.push(bytes, &mut |cut| stage_cut(stage, chunking, content, cut));
    }

    pub fn finish(mut self, stage: &mut Stage) -> Stream {
        if self.size <= INLINE_BYTES_MAX as u64 {
            return Stream {
                size: self.size,
                content: Content::Inline(self.head),
            };
        }
        let Self {
            chunking,
            stream,
            content,
            ..
        } = &mut self;
        stream.finish(&mut |cut| stage_cut(stage, chunking, content, cut));
        Stream {
            size: self.size,
            content: finish(self.content, &self.chunking.ids, stage),
        }
    }
}

/// Contents of files one behind the other, each cut as if it were alone: so its chunks are those
/// that the same file has in a volume.
struct PayloadBuilder<'c> {
    chunking: &'c Chunking,
    stream: chunk::Stream<'c>,
    content: ContentBuilder,
}

impl<'c> PayloadBuilder<'c> {
    fn new(chunking: &'c Chunking) -> Self {
        Self {
            chunking,
            stream: chunk::Stream::new(&chunking.chunker),
            content: ContentBuilder::new(),
        }
    }

    fn push(&mut self, bytes: &[u8], stage: &mut Stage) {
        let Self {
            chunking,
            stream,
            content,
        } = self;
        stream.push(bytes, &mut |cut| stage_cut(stage, chunking, content, cut));
    }

    fn end_of_file(&mut self, stage: &mut Stage) {
        let Self {
            chunking,
            stream,
            content,
        } = self;
        stream.finish(&mut |cut| stage_cut(stage, chunking, content, cut));
        self.stream = chunk::Stream::new(&self.chunking.chunker);
    }

    fn finish(self, stage: &mut Stage) -> Stream {
        match self.content.size() {
            0 => Stream {
                size: 0,
                content: Content::Inline(Vec::new()),
            },
            size => Stream {
                size,
                content: finish(self.content, &self.chunking.ids, stage),
            },
        }
    }
}

fn stage_cut(stage: &mut Stage, chunking: &Chunking, content: &mut ContentBuilder, cut: Cut<'_>) {
    stage.cut(chunking, content, BlockClass::Layer, cut);
}

fn finish(content: ContentBuilder, ids: &ChunkIdKey, stage: &mut Stage) -> Content {
    content.finish(ids, &mut |id: ChunkId, list| {
        stage.add(id, ChunkKind::List, BlockClass::Meta, &list)
    })
}
