//! Making blocks and opening them again.
//!
//! Every block is decoded and compared before it is stored: a compressor, a memory module or a
//! bug that damages bytes is met while the original is still there.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use podkeep_format::block::{BlockClass, BlockHeader, HEADER_BYTES, decode_payload};
use podkeep_format::id::ChunkKind;
use podkeep_format::seal::ObjectKey;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::{RepoError, RepoResult};

/// zstd's level for everything: below it blocks grow, above it the disk waits for the processor.
const LEVEL: i32 = 3;
/// Samples of a payload that decide whether compressing it is worth a try.
const SAMPLE_BYTES: usize = 16 << 10;
const SAMPLES: usize = 3;
/// A payload whose samples shrink to more than this many percent is stored as it is.
const INCOMPRESSIBLE_PERCENT: usize = 97;

/// What a thread keeps from block to block; memory is not asked of the kernel again for each.
#[derive(Default)]
struct Coder {
    plain: Option<Compressor<'static>>,
    /// That matches over long distances.
    long: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
    frame: Vec<u8>,
    decoded: Vec<u8>,
}

thread_local! {
    static CODER: RefCell<Coder> = RefCell::default();
}

fn zstd_error(what: &'static str) -> impl Fn(std::io::Error) -> RepoError {
    move |error| RepoError::System {
        cause: format!("zstd cannot {what}: {error}"),
    }
}

/// Hands on what of a payload is stored, and whether that is a zstd frame.
pub fn encode<T>(
    class: BlockClass,
    payload: &[u8],
    store: impl FnOnce(&[u8], bool) -> RepoResult<T>,
) -> RepoResult<T> {
    CODER.with_borrow_mut(|coder| {
        if coder.finds_incompressible(payload)? {
            return store(payload, false);
        }
        coder.compress(class, payload)?;
        if coder.frame.len() >= payload.len() {
            return store(payload, false);
        }
        let Coder {
            decompressor,
            frame,
            decoded,
            ..
        } = coder;
        decompress(decompressor, frame, payload.len(), decoded)?;
        if decoded != payload {
            return Err(RepoError::System {
                cause: "a compressed block does not decode to what was compressed: \
                        memory or processor cannot be trusted"
                    .into(),
            });
        }
        store(frame, true)
    })
}

impl Coder {
    fn finds_incompressible(&mut self, payload: &[u8]) -> RepoResult<bool> {
        let step = payload.len() / SAMPLES;
        if step < 2 * SAMPLE_BYTES {
            return Ok(false);
        }
        for n in 0..SAMPLES {
            let sample = &payload[n * step..n * step + SAMPLE_BYTES];
            self.compress(BlockClass::Meta, sample)?;
            if self.frame.len() * 100 <= sample.len() * INCOMPRESSIBLE_PERCENT {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Leaves the frame in `self.frame`.
    fn compress(&mut self, class: BlockClass, bytes: &[u8]) -> RepoResult<()> {
        let long = class == BlockClass::Layer;
        let slot = match long {
            true => &mut self.long,
            false => &mut self.plain,
        };
        let compressor = match slot {
            Some(compressor) => compressor,
            None => {
                let mut compressor =
                    Compressor::new(LEVEL).map_err(zstd_error("make a compressor"))?;
                if long {
                    compressor
                        .set_parameter(CParameter::EnableLongDistanceMatching(true))
                        .map_err(zstd_error("match over long distances"))?;
                }
                slot.insert(compressor)
            }
        };
        self.frame.clear();
        self.frame
            .reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        compressor
            .compress_to_buffer(bytes, &mut self.frame)
            .map_err(zstd_error("compress a block"))?;
        Ok(())
    }
}

/// Decodes a frame of `len` bytes into `into`, replacing what it held.
fn decompress(
    slot: &mut Option<Decompressor<'static>>,
    frame: &[u8],
    len: usize,
    into: &mut Vec<u8>,
) -> RepoResult<()> {
    let decompressor = match slot {
        Some(decompressor) => decompressor,
        None => slot.insert(Decompressor::new().map_err(zstd_error("make a decompressor"))?),
    };
    into.clear();
    into.reserve_exact(len);
    decompressor
        .decompress_to_buffer(frame, into)
        .map_err(zstd_error("decompress a block"))?;
    if into.len() == len {
        Ok(())
    } else {
        Err(RepoError::System {
            cause: "zstd gave another number of bytes than the block has".into(),
        })
    }
}

/// An opened block.
pub struct OpenBlock {
    pub payload: Arc<Vec<u8>>,
    /// Where in the payload the chunks' bytes begin; a place's offset counts from here.
    pub data_start: usize,
    pub chunks: Vec<(ChunkKind, Range<usize>)>,
}

/// Opens a block from its header and sealed bytes. `position` is where it was read; `object`
/// names it in errors.
pub fn open(
    key: &ObjectKey,
    position: u64,
    mut bytes: Vec<u8>,
    object: &dyn std::fmt::Display,
) -> RepoResult<OpenBlock> {
    let damaged = |cause: String| RepoError::Damaged {
        object: object.to_string(),
        cause,
    };
    let head = bytes.get(..HEADER_BYTES).unwrap_or(&bytes);
    let header = BlockHeader::decode(head).map_err(|e| damaged(e.to_string()))?;
    if header.position != position {
        return Err(damaged("a block stands in another one's place".into()));
    }
    if bytes.len() != HEADER_BYTES + header.sealed_len as usize {
        return Err(damaged("a block is cut short".into()));
    }
    let (head, sealed) = bytes.split_at_mut(HEADER_BYTES);
    let stored = key
        .open(head, u64::from(header.counter), sealed)
        .map_err(|e| damaged(e.to_string()))?;
    let payload = if header.compressed {
        let mut payload = Vec::new();
        CODER
            .with_borrow_mut(|coder| {
                let slot = &mut coder.decompressor;
                decompress(slot, stored, header.payload_len as usize, &mut payload)
            })
            .map_err(|e| damaged(e.to_string()))?;
        payload
    } else {
        stored.to_vec()
    };
    let chunks = decode_payload(&payload).map_err(|e| damaged(e.to_string()))?;
    let data_start = chunks.first().map_or(0, |(_, range)| range.start);
    Ok(OpenBlock {
        payload: Arc::new(payload),
        data_start,
        chunks,
    })
}
