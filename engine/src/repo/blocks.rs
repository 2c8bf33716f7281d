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

thread_local! {
    static COMPRESSORS: RefCell<[Option<Compressor<'static>>; 2]> = const { RefCell::new([None, None]) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn zstd_error(what: &'static str) -> impl Fn(std::io::Error) -> RepoError {
    move |error| RepoError::System {
        cause: format!("zstd cannot {what}: {error}"),
    }
}

/// What of a payload is stored, and whether that is a zstd frame.
pub fn encode(class: BlockClass, payload: Vec<u8>) -> RepoResult<(Vec<u8>, bool)> {
    if looks_incompressible(&payload)? {
        return Ok((payload, false));
    }
    let frame = compress(class, &payload)?;
    if frame.len() >= payload.len() {
        return Ok((payload, false));
    }
    if decompress(&frame, payload.len())? != payload {
        return Err(RepoError::System {
            cause: "a compressed block does not decode to what was compressed: \
                    memory or processor cannot be trusted"
                .into(),
        });
    }
    Ok((frame, true))
}

fn looks_incompressible(payload: &[u8]) -> RepoResult<bool> {
    let step = payload.len() / SAMPLES;
    if step < 2 * SAMPLE_BYTES {
        return Ok(false);
    }
    for n in 0..SAMPLES {
        let sample = &payload[n * step..n * step + SAMPLE_BYTES];
        let frame = compress(BlockClass::Meta, sample)?;
        if frame.len() * 100 <= sample.len() * INCOMPRESSIBLE_PERCENT {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compress(class: BlockClass, bytes: &[u8]) -> RepoResult<Vec<u8>> {
    let long = class == BlockClass::Layer;
    COMPRESSORS.with_borrow_mut(|slots| {
        let slot = &mut slots[usize::from(long)];
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
        compressor
            .compress(bytes)
            .map_err(zstd_error("compress a block"))
    })
}

fn decompress(frame: &[u8], len: usize) -> RepoResult<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(zstd_error("make a decompressor"))?),
        };
        let bytes = decompressor
            .decompress(frame, len)
            .map_err(zstd_error("decompress a block"))?;
        if bytes.len() == len {
            Ok(bytes)
        } else {
            Err(RepoError::System {
                cause: "zstd gave fewer bytes than the block has".into(),
            })
        }
    })
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
        decompress(stored, header.payload_len as usize).map_err(|e| damaged(e.to_string()))?
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
