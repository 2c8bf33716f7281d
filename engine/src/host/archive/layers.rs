//! Layers of an image in an archive: plain tars, whose parts are told apart as containers/storage
//! does, so that a layer has the same recipe whether it is read here or from a store.

use std::io::Read;
use std::sync::Arc;

use podkeep_format::id::{DiffId, hex};
use podkeep_format::recipe::LAYER_BYTES_MAX;
use ring::digest::{Context, SHA256};

use super::files::Files;
use super::input::{Packing, cause, fill, unpacked};
use crate::fs::tar::{BLOCK_BYTES, TarHeaders, TarStep};
use crate::host::image::scan::{LayerFailure, LayerSource, LayerStream};
use crate::podman::{ArchivedLayer, LAYER_EVENT_BYTES_MAX, LayerEnd, LayerEvent};

/// Bytes of what follows the last entry that are read at once.
const REST_BYTES: usize = 64 << 10;

/// Bottom first.
pub(super) struct ArchivedLayers {
    pub files: Arc<Files>,
    pub layers: Vec<ArchivedLayer>,
}

impl ArchivedLayers {
    fn open_tar(&self, number: usize) -> Result<(u64, Packing, Box<dyn Read + Send + '_>), String> {
        let layer = &self.layers[number];
        let name = &layer.file;
        let file = self.files.file(name)?;
        let file = file.ok_or_else(|| format!("layer {}: {name:?} is missing", layer.diff_id))?;
        let size = file.size;
        let (packing, tar) = unpacked(file).map_err(|error| of(layer, cause(error)))?;
        Ok((size, packing, tar))
    }

    /// Bytes of the tar of a layer. A compressed one is read for that.
    pub fn size(&self, number: usize) -> Result<u64, String> {
        let layer = &self.layers[number];
        let (stored, packing, tar) = self.open_tar(number)?;
        if packing == Packing::None {
            return Ok(stored);
        }
        let mut tar = tar.take(LAYER_BYTES_MAX + 1);
        let size = std::io::copy(&mut tar, &mut std::io::sink());
        size.map_err(|error| of(layer, cause(error)))
    }
}

impl LayerSource for ArchivedLayers {
    fn open(&self, number: usize) -> Result<Box<dyn LayerStream + '_>, LayerFailure> {
        let (_, _, tar) = self.open_tar(number)?;
        Ok(Box::new(LayerTar {
            layer: &self.layers[number],
            tar,
            headers: TarHeaders::new(),
            path: Vec::new(),
            buffer: vec![0; REST_BYTES],
            hash: Context::new(&SHA256),
            size: 0,
            state: State::Header,
        }))
    }
}

fn of(layer: &ArchivedLayer, cause: String) -> String {
    format!("layer {}: {cause}", layer.diff_id)
}

/// A tar that is taken apart while it is read.
struct LayerTar<'s> {
    layer: &'s ArchivedLayer,
    tar: Box<dyn Read + Send + 's>,
    headers: TarHeaders,
    path: Vec<u8>,
    buffer: Vec<u8>,
    hash: Context,
    /// Bytes that were read.
    size: u64,
    state: State,
}

enum State {
    Header,
    /// Content is announced next, then it comes, then its padding.
    Announce {
        left: u64,
        padding: usize,
    },
    Content {
        left: u64,
        padding: usize,
    },
    Padding(usize),
    /// No header follows.
    Rest,
    Ended(DiffId),
}

impl LayerTar<'_> {
    /// Reads up to `wanted` bytes into the buffer; less only at the end.
    fn take(&mut self, wanted: usize) -> Result<usize, String> {
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let read = fill(&mut self.tar, &mut self.buffer[..wanted]);
        let len = read.map_err(|error| of(self.layer, cause(error)))?;
        self.size += len as u64;
        if self.size > LAYER_BYTES_MAX {
            let cause = format!("its tar has more than {LAYER_BYTES_MAX} bytes");
            return Err(of(self.layer, cause));
        }
        self.hash.update(&self.buffer[..len]);
        Ok(len)
    }

    /// Proves the whole tar.
    fn end(&mut self) -> Result<(), String> {
        let hash = std::mem::replace(&mut self.hash, Context::new(&SHA256)).finish();
        if hash.as_ref() != self.layer.diff_id.as_bytes() {
            let found = hex(hash.as_ref());
            return Err(of(
                self.layer,
                format!("its tar is another one: its sha256 is {found}"),
            ));
        }
        self.state = State::Ended(self.layer.diff_id);
        Ok(())
    }

    /// What the block in the buffer amounts to. What is no header is the layer's own: whether the
    /// tar is the right one, its DiffID tells.
    fn after_block(&mut self) {
        let mut block = [0; BLOCK_BYTES];
        block.copy_from_slice(&self.buffer[..BLOCK_BYTES]);
        self.state = match self.headers.block(&block) {
            Ok(TarStep::More) => State::Header,
            Ok(TarStep::Entry(entry)) => {
                let (left, padding) = (entry.stored_bytes, entry.padding());
                self.path = entry.path;
                match left {
                    0 => State::Header,
                    left => State::Announce { left, padding },
                }
            }
            Ok(TarStep::End) | Err(_) => State::Rest,
        };
    }
}

impl LayerStream for LayerTar<'_> {
    fn next_event(&mut self) -> Result<LayerEvent<'_>, LayerFailure> {
        let len = match self.state {
            State::Ended(diff_id) => {
                let size = self.size;
                return Ok(LayerEvent::End(LayerEnd { diff_id, size }));
            }
            State::Announce { left, padding } => {
                if left > LAYER_BYTES_MAX {
                    return Err(of(self.layer, "its tar claims too large a file".into()).into());
                }
                self.state = State::Content { left, padding };
                let path = &self.path;
                return Ok(LayerEvent::Payload { path, size: left });
            }
            State::Content { left, padding } => {
                let wanted = left.min(LAYER_EVENT_BYTES_MAX as u64) as usize;
                let len = self.take(wanted)?;
                if len < wanted {
                    return Err(of(self.layer, "its tar ends early".into()).into());
                }
                self.state = match left - len as u64 {
                    0 if padding == 0 => State::Header,
                    0 => State::Padding(padding),
                    left => State::Content { left, padding },
                };
                return Ok(LayerEvent::Bytes(&self.buffer[..len]));
            }
            State::Padding(padding) => {
                self.state = State::Header;
                self.take(padding)?
            }
            State::Header => {
                let len = self.take(BLOCK_BYTES)?;
                match len {
                    BLOCK_BYTES => self.after_block(),
                    _ => self.state = State::Rest,
                }
                len
            }
            State::Rest => self.take(REST_BYTES)?,
        };
        match len {
            0 => {
                self.end()?;
                self.next_event()
            }
            len => Ok(LayerEvent::Literal(&self.buffer[..len])),
        }
    }
}
