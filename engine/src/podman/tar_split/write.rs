//! Making tar-split anew from a layer's tar.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::super::layer::Crc64;
use super::{TYPE_FILE, TYPE_SEGMENT};

/// Bytes of a segment that are gathered before it is written: far below what a line may have.
const SEGMENT_BYTES: usize = 1 << 20;

/// A line, with the fields in the order in which containers/storage has them.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    payload: Option<String>,
    position: u64,
}

/// Takes the parts of a tar and writes the entries that stand for them.
pub struct TarSplitWriter<W: Write> {
    out: GzEncoder<W>,
    segment: Vec<u8>,
    /// The file whose content comes.
    file: Option<(Vec<u8>, u64, Crc64)>,
    position: u64,
}

impl<W: Write> TarSplitWriter<W> {
    pub fn new(out: W) -> Self {
        Self {
            out: GzEncoder::new(out, Compression::fast()),
            segment: Vec::new(),
            file: None,
            position: 0,
        }
    }

    /// Bytes that are no content.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.end_file()?;
        self.segment.extend_from_slice(bytes);
        match self.segment.len() {
            SEGMENT_BYTES.. => self.end_segment(),
            _ => Ok(()),
        }
    }

    /// An entry, whose content follows if it has any.
    pub fn entry(&mut self, name: &[u8], size: u64) -> io::Result<()> {
        self.end_file()?;
        self.end_segment()?;
        self.file = Some((name.to_vec(), size, Crc64::new()));
        Ok(())
    }

    pub fn content(&mut self, bytes: &[u8]) {
        if let Some((_, _, sum)) = &mut self.file {
            sum.update(bytes);
        }
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.end_file()?;
        self.end_segment()?;
        self.out.finish()
    }

    fn end_file(&mut self) -> io::Result<()> {
        let Some((name, size, sum)) = self.file.take() else {
            return Ok(());
        };
        let text = str::from_utf8(&name).ok();
        self.line(Line {
            kind: TYPE_FILE,
            name: text,
            name_raw: text.is_none().then(|| STANDARD.encode(&name)),
            size: (size > 0).then_some(size),
            payload: (size > 0).then(|| STANDARD.encode(sum.value().to_be_bytes())),
            position: self.position,
        })
    }

    fn end_segment(&mut self) -> io::Result<()> {
        if self.segment.is_empty() {
            return Ok(());
        }
        let payload = STANDARD.encode(&self.segment);
        self.segment.clear();
        self.line(Line {
            kind: TYPE_SEGMENT,
            name: None,
            name_raw: None,
            size: None,
            payload: Some(payload),
            position: self.position,
        })
    }

    fn line(&mut self, line: Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &line)?;
        self.position += 1;
        self.out.write_all(b"\n")
    }
}
