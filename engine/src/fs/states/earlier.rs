//! What the first of two readings of an item recorded, while the second reads: the file of its rows,
//! which nobody has published, and where in it the row of each directory is.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use podkeep_format::id::SnapshotId;

use super::row::{ROW_BYTES_MAX, RowKey};
use super::{PENDING_MAGIC, TAG_END, TAG_GONE, TAG_ROW};

pub(super) struct Earlier {
    file: File,
    /// Offset and length of a directory's row; `None`: the directory was gone.
    rows: HashMap<RowKey, Option<(u64, u32)>>,
}

impl Earlier {
    /// Reads a finished file of rows; returns it also for writing, without its end, and the hash of
    /// what it holds then.
    pub fn open(path: &Path) -> io::Result<(Self, File, blake3::Hasher)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut input = Hashed {
            inner: BufReader::with_capacity(256 << 10, file.try_clone()?),
            hash: blake3::Hasher::new(),
            at: 0,
        };
        let mut magic = [0; PENDING_MAGIC.len()];
        input.take(&mut magic)?;
        input.take(&mut [0; SnapshotId::LEN])?;
        if magic != *PENDING_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut rows = HashMap::new();
        loop {
            let before = input.hash.clone();
            let at = input.at;
            let mut tag = [0];
            let mut key = RowKey::default();
            input.take(&mut tag)?;
            match tag[0] {
                TAG_ROW => {
                    let mut len = [0; 4];
                    input.take(&mut key)?;
                    input.take(&mut len)?;
                    let len = u32::from_le_bytes(len);
                    if len as usize > ROW_BYTES_MAX {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    rows.insert(key, Some((input.at, len)));
                    input.pass(u64::from(len))?;
                }
                TAG_GONE => {
                    input.take(&mut key)?;
                    rows.insert(key, None);
                }
                TAG_END => {
                    let whole = input.hash.finalize();
                    let mut sum = [0; blake3::OUT_LEN];
                    input.inner.read_exact(&mut sum)?;
                    if whole != sum {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    let reader = File::open(path)?;
                    file.set_len(at)?;
                    let mut file = file;
                    file.seek(SeekFrom::Start(at))?;
                    return Ok((Self { file: reader, rows }, file, before));
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// The value of a directory's row; `None` in it: it is to be read as if it were new. `None`: the
    /// first reading found it as the base has it.
    pub fn row(&self, key: &RowKey) -> Option<Option<Vec<u8>>> {
        let place = self.rows.get(key)?;
        Some(place.and_then(|(at, len)| {
            let mut value = vec![0; len as usize];
            self.file.read_exact_at(&mut value, at).ok()?;
            Some(value)
        }))
    }
}

/// Hashes what is taken from it.
struct Hashed {
    inner: BufReader<File>,
    hash: blake3::Hasher,
    at: u64,
}

impl Hashed {
    fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hash.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn pass(&mut self, len: u64) -> io::Result<()> {
        let passed = io::copy(&mut (&mut self.inner).take(len), &mut self.hash)?;
        self.at += passed;
        match passed == len {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
