//! Taking a tar apart as it streams by: its entries, their contents, and all other bytes.

use crate::fs::tar::{self, BLOCK_BYTES, TarHeaders, TarStep};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TarKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    /// The name of another entry.
    HardLink(Vec<u8>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    /// Something that nothing is unpacked for.
    Other,
}

/// What the headers of an entry say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TarEntry {
    pub name: Vec<u8>,
    pub kind: TarKind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of content that follow; only files have any.
    pub size: u64,
    /// Seconds, and nanoseconds that are added to them.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A part of a tar. The bytes of all `Raw` and `Content` in their order are the tar.
pub(super) enum TarPart<'a> {
    /// Headers, padding, the end.
    Raw(&'a [u8]),
    /// Comes after its headers; its content follows, if it has any.
    Entry(&'a TarEntry),
    Content(&'a [u8]),
}

/// Gets the parts; an error ends the reading and is returned.
pub(super) type EachPart<'a> = &'a mut dyn FnMut(TarPart<'_>) -> Result<(), String>;

#[derive(Clone, Copy)]
enum State {
    /// A block that belongs to a header is gathered.
    Header,
    Content {
        left: u64,
        padding: usize,
    },
    Padding(usize),
    /// Behind the first block of zeros: only another one may come.
    Zeros,
    /// Behind the two blocks of zeros: anything.
    Trailer,
}

pub(super) struct TarParser {
    state: State,
    headers: TarHeaders,
    block: [u8; BLOCK_BYTES],
    /// Bytes of the block that came.
    gathered: usize,
}

impl TarParser {
    pub fn new() -> Self {
        Self {
            state: State::Header,
            headers: TarHeaders::of_layer(),
            block: [0; BLOCK_BYTES],
            gathered: 0,
        }
    }

    pub fn push(&mut self, mut bytes: &[u8], each: EachPart<'_>) -> Result<(), String> {
        while !bytes.is_empty() {
            let wanted = match self.state {
                State::Header | State::Zeros => (BLOCK_BYTES - self.gathered) as u64,
                State::Content { left, .. } => left,
                State::Padding(left) => left as u64,
                State::Trailer => u64::MAX,
            };
            let len = wanted.min(bytes.len() as u64) as usize;
            let (now, rest) = bytes.split_at(len);
            bytes = rest;
            each(match self.state {
                State::Content { .. } => TarPart::Content(now),
                _ => TarPart::Raw(now),
            })?;
            self.state = match self.state {
                State::Header | State::Zeros => {
                    self.block[self.gathered..][..len].copy_from_slice(now);
                    self.gathered += len;
                    match self.gathered {
                        BLOCK_BYTES => self.block(each)?,
                        _ => self.state,
                    }
                }
                State::Content { left, padding } => match left - len as u64 {
                    0 => after(padding),
                    left => State::Content { left, padding },
                },
                State::Padding(left) => after(left - len),
                State::Trailer => State::Trailer,
            };
        }
        Ok(())
    }

    /// Fails when the tar ends inside an entry.
    pub fn finish(&self) -> Result<(), String> {
        let is_between_blocks = self.gathered == 0;
        match self.state {
            State::Header if is_between_blocks && self.headers.is_at_header() => Ok(()),
            State::Zeros if is_between_blocks => Ok(()),
            State::Padding(_) | State::Trailer => Ok(()),
            _ => Err("its tar ends inside an entry".into()),
        }
    }

    /// A block is whole.
    fn block(&mut self, each: EachPart<'_>) -> Result<State, String> {
        self.gathered = 0;
        if matches!(self.state, State::Zeros) {
            return match self.block.iter().all(|byte| *byte == 0) {
                true => Ok(State::Trailer),
                false => Err("its tar goes on behind a block of zeros".into()),
            };
        }
        let step = self.headers.block(&self.block);
        match step.map_err(|error| format!("its tar: {error}"))? {
            TarStep::More => Ok(State::Header),
            TarStep::End => Ok(State::Zeros),
            TarStep::Entry(entry) => {
                let padding = entry.padding();
                let entry = entry_of(*entry)?;
                each(TarPart::Entry(&entry))?;
                Ok(match entry.size {
                    0 => State::Header,
                    left => State::Content { left, padding },
                })
            }
        }
    }
}

fn after(padding: usize) -> State {
    match padding {
        0 => State::Header,
        left => State::Padding(left),
    }
}

fn entry_of(entry: tar::TarEntry) -> Result<TarEntry, String> {
    let device = || Ok::<_, String>((small(entry.device.0)?, small(entry.device.1)?));
    let kind = match entry.kind {
        tar::TarKind::File => TarKind::File,
        tar::TarKind::Directory => TarKind::Directory,
        tar::TarKind::Symlink => TarKind::Symlink(entry.target),
        tar::TarKind::HardLink => TarKind::HardLink(entry.target),
        tar::TarKind::Fifo => TarKind::Fifo,
        tar::TarKind::CharDevice => {
            device().map(|(major, minor)| TarKind::CharDevice(major, minor))?
        }
        tar::TarKind::BlockDevice => {
            device().map(|(major, minor)| TarKind::BlockDevice(major, minor))?
        }
        tar::TarKind::Other(_) => TarKind::Other,
    };
    Ok(TarEntry {
        name: entry.path,
        kind,
        mode: small(entry.mode)? & 0o7777,
        uid: small(entry.uid)?,
        gid: small(entry.gid)?,
        size: entry.stored_bytes,
        mtime: (entry.mtime.secs, entry.mtime.nanos),
        xattrs: entry.xattrs,
    })
}

fn small(number: i64) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| "a number in its tar is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tar::{NewMember, TarType, TarWriter};
    use podkeep_format::tree::Time;

    fn tar() -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        let long = [b'n'; 600];
        for (path, content) in [
            (&b"a"[..], &b"content"[..]),
            (&long, b""),
            (b"b", &[7; 512]),
        ] {
            let member = NewMember {
                path,
                what: TarType::File {
                    size: content.len() as u64,
                },
                mode: 0o4755,
                uid: u32::MAX,
                gid: 7,
                mtime: Time {
                    secs: -2,
                    nanos: 500_000_000,
                },
                records: &[(b"SCHILY.xattr.user.x".to_vec(), b"y".to_vec())],
            };
            tar.member(&member).unwrap();
            tar.content(content).unwrap();
        }
        tar.finish().unwrap()
    }

    /// The entries with their contents.
    fn parsed(tar: &[u8], step: usize) -> Result<Vec<(TarEntry, Vec<u8>)>, String> {
        let mut parser = TarParser::new();
        let (mut found, mut all) = (Vec::<(TarEntry, Vec<u8>)>::new(), Vec::new());
        for bytes in tar.chunks(step) {
            parser.push(bytes, &mut |part| {
                match part {
                    TarPart::Entry(entry) => found.push((entry.clone(), Vec::new())),
                    TarPart::Raw(bytes) => all.extend_from_slice(bytes),
                    TarPart::Content(bytes) => {
                        all.extend_from_slice(bytes);
                        found.last_mut().unwrap().1.extend_from_slice(bytes);
                    }
                }
                Ok(())
            })?;
        }
        parser.finish()?;
        assert!(all == tar, "the parts are the tar");
        Ok(found)
    }

    #[test]
    fn parts_are_the_same_however_the_tar_comes() {
        let tar = [tar(), b"anything".to_vec()].concat();
        let whole = parsed(&tar, tar.len()).unwrap();
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].1, b"content");
        assert_eq!(whole[1].0.name, [b'n'; 600]);
        assert_eq!(whole[2].1, [7; 512]);
        for (entry, content) in &whole {
            assert_eq!(entry.size, content.len() as u64);
            assert_eq!((entry.mode, entry.uid, entry.gid), (0o4755, u32::MAX, 7));
            assert_eq!(entry.mtime, (-2, 500_000_000));
            assert_eq!(entry.xattrs, [(b"user.x".to_vec(), b"y".to_vec())]);
        }
        for step in [1, 7, 512, 513] {
            assert_eq!(parsed(&tar, step).as_ref(), Ok(&whole));
        }
    }

    #[test]
    fn a_tar_ends_between_entries_and_goes_on_behind_no_zeros() {
        let tar = tar();
        let end = tar.len() - 2 * BLOCK_BYTES;
        for len in [0, end, end + BLOCK_BYTES, tar.len()] {
            assert!(parsed(&tar[..len], 100).is_ok(), "{len}");
        }
        // In an extension, in a header behind one, in a content, in a block of zeros.
        for len in [
            BLOCK_BYTES,
            2 * BLOCK_BYTES + 1,
            3 * BLOCK_BYTES + 3,
            end + 1,
        ] {
            assert!(parsed(&tar[..len], 100).is_err(), "{len}");
        }
        let goes_on = [&tar[..end + BLOCK_BYTES], &tar].concat();
        assert!(parsed(&goes_on, 100).unwrap_err().contains("goes on"));
        assert!(parsed(&[1; BLOCK_BYTES], 100).is_err());
    }
}
