//! The sha256 of a layer's tar that is restored as a file.
//!
//! Every chunk was compared with its name, but who wrote the recipe says which chunks make up the
//! layer. Podman compares layers with their DiffIDs; nobody does with files in a directory.

use std::sync::Arc;

use podkeep_format::id::{DiffId, hex};
use ring::digest::{Context, SHA256};

use crate::fs::{FilePart, PartBytes};

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A tar of which the parts come in order.
pub struct LayerTar {
    expected: DiffId,
    size: u64,
    hasher: Context,
    /// Bytes that were hashed.
    at: u64,
}

impl LayerTar {
    pub fn new(expected: DiffId, size: u64) -> Self {
        Self {
            expected,
            size,
            hasher: Context::new(&SHA256),
            at: 0,
        }
    }

    /// The next parts. `inline` are the bytes of the buffer that follows `buffers`.
    pub fn push(&mut self, parts: &[FilePart], buffers: &[Arc<Vec<u8>>], inline: &[u8]) {
        for part in parts {
            // What is not written is a hole.
            self.zeros_to(part.offset);
            match &part.bytes {
                PartBytes::Data { buffer, range } => {
                    let bytes = match buffers.get(*buffer as usize) {
                        Some(buffer) => buffer.as_slice(),
                        None => inline,
                    };
                    let bytes = &bytes[range.start as usize..range.end as usize];
                    self.hasher.update(bytes);
                    self.at += bytes.len() as u64;
                }
                // Parts of layers are always fetched.
                PartBytes::Zeros { len } | PartBytes::Present { len } => {
                    self.zeros_to(part.offset + len);
                }
            }
        }
    }

    fn zeros_to(&mut self, end: u64) {
        while self.at < end {
            let len = (end - self.at).min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..len as usize]);
            self.at += len;
        }
    }

    /// After the last part. `Err`: what it is instead, in words.
    pub fn finish(mut self) -> Result<(), String> {
        self.zeros_to(self.size);
        let found = self.hasher.finish();
        match found.as_ref() == self.expected.as_bytes() {
            true => Ok(()),
            false => Err(format!(
                "its tar is rebuilt as sha256:{}, not as sha256:{}",
                hex(found.as_ref()),
                self.expected
            )),
        }
    }
}
