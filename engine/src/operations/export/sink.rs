//! Where the parts of an image go: files of a directory, or members of a tar.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use podkeep_format::tree::Time;

use crate::fs::tar::{NewMember, TarType, TarWriter};
use crate::operations::{OperationError, OperationResult};

/// Of what images are exported as; whoever loads them looks at neither.
const FILE_MODE: u16 = 0o644;

/// What was written in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub files: u64,
    pub bytes: u64,
}

/// Takes files one by one, each with its size beforehand.
pub trait Sink {
    /// A file at a relative path; its content follows.
    fn begin(&mut self, path: &str, size: u64) -> OperationResult<()>;

    fn content(&mut self, bytes: &[u8]) -> OperationResult<()>;
}

/// A file that is in memory.
pub fn put(sink: &mut dyn Sink, path: &str, bytes: &[u8]) -> OperationResult<()> {
    sink.begin(path, bytes.len() as u64)?;
    sink.content(bytes)
}

pub fn failed(error: io::Error) -> OperationError {
    OperationError::Local {
        action: "write",
        object: "what is exported".into(),
        cause: error.to_string(),
    }
}

pub struct TarSink<'t, W> {
    tar: &'t mut TarWriter<W>,
    files: u64,
}

impl<'t, W: Write> TarSink<'t, W> {
    pub fn new(tar: &'t mut TarWriter<W>) -> Self {
        Self { tar, files: 0 }
    }

    pub fn files(&self) -> u64 {
        self.files
    }
}

impl<W: Write> Sink for TarSink<'_, W> {
    fn begin(&mut self, path: &str, size: u64) -> OperationResult<()> {
        self.files += 1;
        let member = NewMember {
            path: path.as_bytes(),
            what: TarType::File { size },
            mode: FILE_MODE,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            records: &[],
        };
        self.tar.member(&member).map_err(failed)
    }

    fn content(&mut self, bytes: &[u8]) -> OperationResult<()> {
        self.tar.content(bytes).map_err(failed)
    }
}

pub struct DirectorySink {
    root: PathBuf,
    file: Option<File>,
    written: Written,
}

impl DirectorySink {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            file: None,
            written: Written::default(),
        }
    }

    /// Makes the last file durable.
    pub fn finish(mut self) -> OperationResult<Written> {
        self.end()?;
        Ok(self.written)
    }

    fn end(&mut self) -> OperationResult<()> {
        match self.file.take() {
            Some(file) => file.sync_all().map_err(failed),
            None => Ok(()),
        }
    }
}

impl Sink for DirectorySink {
    fn begin(&mut self, path: &str, _size: u64) -> OperationResult<()> {
        self.end()?;
        let path = self.root.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        self.file = Some(File::create_new(&path).map_err(failed)?);
        self.written.files += 1;
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> OperationResult<()> {
        self.written.bytes += bytes.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(failed),
            None => Ok(()),
        }
    }
}

/// Counts what goes through it.
pub struct Counted<'w> {
    out: &'w mut dyn Write,
    bytes: u64,
}

impl<'w> Counted<'w> {
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self { out, bytes: 0 }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.bytes += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
