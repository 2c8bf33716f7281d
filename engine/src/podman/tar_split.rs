//! tar-split: what containers/storage keeps of a layer's tar besides the content of its files.
//!
//! A gzip stream, perhaps of several members, of one JSON object a line. A segment (type 2) holds
//! bytes of the tar as they were: headers, padding, the end. A file (type 1) stands for the
//! content of an entry, which is in the layer's directory, and holds its CRC64. In their order
//! they make the tar, bit by bit.
//!
//! The decoder is for foreign bytes: a line has a limit, and so has all text in relation to the
//! bytes of tar that it gave. Whether the tar is the right one, its DiffID tells.

mod write;

use std::io::{BufRead, BufReader, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

pub(super) use self::write::TarSplitWriter;

/// Bytes of one line. A segment holds the headers of one entry (a PAX header may have 1 MiB), or
/// all that follows the end of the tar.
const LINE_BYTES_MAX: usize = 32 << 20;
/// Text may have this many bytes, and this many times the bytes of the segments. Each file has a
/// header of 512 bytes with its name in a segment before it, which in JSON is at most six times
/// as long, besides some 100 bytes of syntax.
const TEXT_BYTES_START: u64 = 4096;
const TEXT_PER_SEGMENT_BYTE: u64 = 8;
const READ_BYTES: usize = 64 << 10;

const TYPE_FILE: u32 = 1;
const TYPE_SEGMENT: u32 = 2;

/// A tar-split that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct TarSplitError {
    /// From 1.
    pub line: u64,
    pub cause: String,
}

/// A part of the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TarSplitEntry<'a> {
    /// These bytes.
    Segment(&'a [u8]),
    /// The content of a file.
    File {
        /// As the tar names it; not empty if there is content.
        name: &'a [u8],
        /// Bytes; 0 for all that has no content: links, directories, empty files.
        size: u64,
        /// With the polynomial of ISO 3309. Absent only for what has no content, or in files of
        /// an old tar-split.
        crc64: Option<u64>,
    },
}

/// Reads a tar-split entry by entry.
pub struct TarSplit<R> {
    text: BufReader<MultiGzDecoder<BufReader<R>>>,
    line: Vec<u8>,
    name: Vec<u8>,
    segment: Vec<u8>,
    lines: u64,
    text_bytes: u64,
    segment_bytes: u64,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u32,
    name: Option<String>,
    /// The name in base64, if it is not UTF-8.
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    /// In base64.
    payload: Option<String>,
}

/// An entry whose bytes are in the decoder's buffers.
enum Decoded {
    Segment,
    File { size: u64, crc64: Option<u64> },
}

impl<R: Read> TarSplit<R> {
    /// `compressed` need not be buffered.
    pub fn new(compressed: R) -> Self {
        let compressed = BufReader::with_capacity(READ_BYTES, compressed);
        Self {
            text: BufReader::with_capacity(READ_BYTES, MultiGzDecoder::new(compressed)),
            line: Vec::new(),
            name: Vec::new(),
            segment: Vec::new(),
            lines: 0,
            text_bytes: 0,
            segment_bytes: 0,
        }
    }

    /// The next part; `None`: the tar ends. After an error the rest has no meaning.
    pub fn next_entry(&mut self) -> Result<Option<TarSplitEntry<'_>>, TarSplitError> {
        match self.decode() {
            Ok(decoded) => Ok(decoded.map(|decoded| match decoded {
                Decoded::Segment => TarSplitEntry::Segment(&self.segment),
                Decoded::File { size, crc64 } => TarSplitEntry::File {
                    name: &self.name,
                    size,
                    crc64,
                },
            })),
            Err(cause) => Err(TarSplitError {
                line: self.lines,
                cause,
            }),
        }
    }

    /// The segment that [`next_entry`](Self::next_entry) gave last.
    pub(super) fn segment(&self) -> &[u8] {
        &self.segment
    }

    fn decode(&mut self) -> Result<Option<Decoded>, String> {
        self.lines += 1;
        if !self.read_line()? {
            return Ok(None);
        }
        let line: Line = serde_json::from_slice(&self.line).map_err(|error| error.to_string())?;
        let decoded = match line.kind {
            TYPE_SEGMENT => {
                self.segment.clear();
                if let Some(payload) = &line.payload {
                    let decoded = STANDARD.decode_vec(payload, &mut self.segment);
                    decoded.map_err(|error| format!("its bytes: {error}"))?;
                }
                self.segment_bytes += self.segment.len() as u64;
                Decoded::Segment
            }
            TYPE_FILE => {
                self.name.clear();
                match (line.name_raw, line.name) {
                    (Some(raw), _) if !raw.is_empty() => {
                        let decoded = STANDARD.decode_vec(raw, &mut self.name);
                        decoded.map_err(|error| format!("its name: {error}"))?;
                    }
                    (_, Some(name)) => self.name.extend_from_slice(name.as_bytes()),
                    _ => {}
                }
                if line.size > 0 && self.name.is_empty() {
                    return Err("content without a name".into());
                }
                Decoded::File {
                    size: line.size,
                    crc64: checksum(line.payload.as_deref())?,
                }
            }
            other => return Err(format!("type {other} is not known")),
        };
        // Either factor is far below the range of u64: a line is bounded, and so are lines.
        let allowed = TEXT_BYTES_START + self.segment_bytes * TEXT_PER_SEGMENT_BYTE;
        if self.text_bytes > allowed {
            return Err("there is far more text than bytes of a tar".into());
        }
        Ok(Some(decoded))
    }

    /// False: there is no further line.
    fn read_line(&mut self) -> Result<bool, String> {
        self.line.clear();
        let mut text = (&mut self.text).take(LINE_BYTES_MAX as u64 + 1);
        let read = text.read_until(b'\n', &mut self.line);
        let len = read.map_err(|error| error.to_string())?;
        if len > LINE_BYTES_MAX {
            return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
        }
        self.text_bytes += len as u64;
        Ok(len > 0)
    }
}

/// Eight bytes, the highest first.
fn checksum(payload: Option<&str>) -> Result<Option<u64>, String> {
    let Some(payload) = payload.filter(|payload| !payload.is_empty()) else {
        return Ok(None);
    };
    let mut bytes = [0; 8];
    match STANDARD.decode_slice(payload, &mut bytes) {
        Ok(8) => Ok(Some(u64::from_be_bytes(bytes))),
        Ok(_) | Err(_) => Err("its checksum has not 8 bytes".into()),
    }
}
