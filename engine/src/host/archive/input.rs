//! The bytes of an archive: decompressed if need be, and split into the entries of its tar.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::fs::tar::{BLOCK_BYTES, TarEntry, TarHeaders, TarStep};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A stream of zstd that needs a larger window to look back, in bytes a power of two, is refused:
/// it would be in memory. The zstd command draws the same line.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const READ_BYTES: usize = 64 << 10;

/// How a stream is compressed, which its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// Decompresses what `packed` holds, if it is compressed.
pub(super) fn unpacked<'r>(
    packed: impl Read + Send + 'r,
) -> std::io::Result<(Packing, Box<dyn Read + Send + 'r>)> {
    let mut head = Vec::new();
    let mut packed = packed;
    let magic = ZSTD_MAGIC.len() as u64;
    (&mut packed).take(magic).read_to_end(&mut head)?;
    let packing = match () {
        () if head.starts_with(GZIP_MAGIC) => Packing::Gzip,
        () if head.starts_with(ZSTD_MAGIC) => Packing::Zstd,
        () => Packing::None,
    };
    let whole = BufReader::with_capacity(READ_BYTES, std::io::Cursor::new(head).chain(packed));
    let plain: Box<dyn Read + Send + 'r> = match packing {
        Packing::None => Box::new(whole),
        Packing::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok((packing, plain))
}

/// What a failure to read says.
pub(super) fn cause(error: std::io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "it ends early".into(),
        _ => error.to_string(),
    }
}

/// An archive from its first byte to its last.
pub(super) struct Input {
    stream: Stream,
    /// Bytes behind it, decompressed.
    position: u64,
}

enum Stream {
    Plain { file: BufReader<File>, size: u64 },
    Packed(BufReader<Box<dyn Read + Send>>),
}

impl Input {
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let facts = file.metadata()?;
        // A pipe cannot be read twice.
        if !facts.is_file() {
            return Err(std::io::Error::other("it is no regular file"));
        }
        let (packing, plain) = unpacked(file.try_clone()?)?;
        let stream = match packing {
            Packing::None => {
                file.seek(SeekFrom::Start(0))?;
                Stream::Plain {
                    file: BufReader::with_capacity(READ_BYTES, file),
                    size: facts.len(),
                }
            }
            _ => Stream::Packed(BufReader::with_capacity(READ_BYTES, plain)),
        };
        Ok(Self {
            stream,
            position: 0,
        })
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn is_packed(&self) -> bool {
        matches!(self.stream, Stream::Packed(_))
    }

    /// Passes over so many bytes, which must be there.
    pub fn skip(&mut self, mut bytes: u64) -> std::io::Result<()> {
        let early = || std::io::Error::from(ErrorKind::UnexpectedEof);
        match &mut self.stream {
            Stream::Plain { file, size } => {
                if bytes > size.saturating_sub(self.position) {
                    return Err(early());
                }
                // Within the file, whose size is an i64.
                file.seek_relative(bytes as i64)?;
                self.position += bytes;
            }
            Stream::Packed(packed) => {
                while bytes > 0 {
                    let there = packed.fill_buf()?.len();
                    if there == 0 {
                        return Err(early());
                    }
                    let len = bytes.min(there as u64);
                    packed.consume(len as usize);
                    self.position += len;
                    bytes -= len;
                }
            }
        }
        Ok(())
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = match &mut self.stream {
            Stream::Plain { file, .. } => file.read(buffer)?,
            Stream::Packed(packed) => packed.read(buffer)?,
        };
        self.position += len as u64;
        Ok(len)
    }
}

/// Fills the buffer, unless the end comes first; returns how much of it is filled.
pub(super) fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The entries of a tar, one by one. Reads the content of the last one.
pub(super) struct TarReader {
    input: Input,
    headers: TarHeaders,
    /// Bytes of the content that were not read, and of the padding behind it.
    left: u64,
    padding: u64,
    is_over: bool,
}

impl TarReader {
    pub fn new(input: Input) -> Self {
        Self {
            input,
            headers: TarHeaders::new(),
            left: 0,
            padding: 0,
            is_over: false,
        }
    }

    /// Where the content of the last entry begins, if nothing of it was read.
    pub fn position(&self) -> u64 {
        self.input.position()
    }

    /// Passes over what is left of the content, and reads the next header. `None`: that was all.
    /// Errors are causes in words.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, String> {
        let mut block = [0; BLOCK_BYTES];
        self.input.skip(self.left).map_err(cause)?;
        // Some writers leave out the last zeros.
        let mut skipped = [0; BLOCK_BYTES];
        let padding = &mut skipped[..self.padding as usize];
        fill(&mut self.input, padding).map_err(cause)?;
        (self.left, self.padding) = (0, 0);
        while !self.is_over {
            match fill(&mut self.input, &mut block).map_err(cause)? {
                BLOCK_BYTES => {}
                0 if self.headers.is_between() => break,
                _ => return Err("it ends early".into()),
            }
            match self.headers.block(&block).map_err(|error| error.cause)? {
                TarStep::More => {}
                TarStep::Entry(entry) => {
                    self.left = entry.stored_bytes;
                    self.padding = entry.padding() as u64;
                    return Ok(Some(*entry));
                }
                TarStep::End => self.is_over = true,
            }
        }
        self.is_over = true;
        Ok(None)
    }
}

/// The content of the last entry; it ends early only with the archive, which is an error.
impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = (buffer.len() as u64).min(self.left) as usize;
        let len = self.input.read(&mut buffer[..wanted])?;
        if len == 0 && wanted > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= len as u64;
        Ok(len)
    }
}
