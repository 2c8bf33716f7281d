//! Writing tars as PAX has them: what does not fit into a header stands in records in front of it.

use std::io::{self, Write};

use podkeep_format::tree::Time;

use super::header::{self, Block};
use super::{BLOCK_BYTES, padding, pax};

/// Seconds that eleven octal digits hold.
const SECONDS_MAX: i64 = 0o77_777_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;
const ID_MAX: u32 = 0o7_777_777;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TarType<'a> {
    File {
        size: u64,
    },
    Directory,
    Symlink(&'a [u8]),
    /// Another name of a member that was written before.
    HardLink(&'a [u8]),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A member to write.
#[derive(Clone, Copy, Debug)]
pub struct TarEntry<'a> {
    /// Relative; of a directory with a slash at its end.
    pub path: &'a [u8],
    pub what: TarType<'a>,
    /// 07777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Further PAX records, such as extended attributes.
    pub records: &'a [(Vec<u8>, Vec<u8>)],
}

/// Writes members in order. Without [`finish`](Self::finish) it is no whole tar.
pub struct TarWriter<W> {
    out: W,
    /// Bytes of the last member's content that did not come yet, and what fills its last block.
    left: (u64, u64),
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out, left: (0, 0) }
    }

    /// A member; the content of a file follows.
    pub fn entry(&mut self, entry: &TarEntry<'_>) -> io::Result<()> {
        self.end_content()?;
        let mut records = Vec::new();
        for (key, value) in entry.records {
            pax::append(key, value, &mut records);
        }
        let mut block = [0; BLOCK_BYTES];
        let size = fill(&mut block, entry, &mut records);
        if !records.is_empty() {
            self.extension(&records)?;
        }
        header::seal(&mut block);
        self.out.write_all(&block)?;
        self.left = (size, padding(size));
        Ok(())
    }

    /// The next bytes of the last member's content: not more than it was said to have.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(left) = self.left.0.checked_sub(bytes.len() as u64) else {
            return Err(io::Error::other("a file has more bytes than was said"));
        };
        self.left.0 = left;
        self.out.write_all(bytes)
    }

    /// Ends the tar. Returns where it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_content()?;
        self.out.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_content(&mut self) -> io::Result<()> {
        let (content, padding) = std::mem::take(&mut self.left);
        if content > 0 {
            return Err(io::Error::other("a file has fewer bytes than was said"));
        }
        self.out.write_all(&[0; BLOCK_BYTES][..padding as usize])
    }

    fn extension(&mut self, records: &[u8]) -> io::Result<()> {
        let mut block = [0; BLOCK_BYTES];
        let name = b"PaxHeaders/entry";
        block[header::NAME][..name.len()].copy_from_slice(name);
        header::set_number(&mut block[header::MODE], 0o644);
        header::set_number(&mut block[header::SIZE], records.len() as u64);
        common(&mut block, b'x');
        header::seal(&mut block);
        self.out.write_all(&block)?;
        self.out.write_all(records)?;
        let padding = padding(records.len() as u64);
        self.out.write_all(&[0; BLOCK_BYTES][..padding as usize])
    }
}

fn common(block: &mut Block, kind: u8) {
    for field in [header::UID, header::GID, header::MTIME] {
        if block[field.start] == 0 {
            header::set_number(&mut block[field], 0);
        }
    }
    block[header::TYPE] = kind;
    block[header::MAGIC].copy_from_slice(header::MAGIC_OF_USTAR);
}

/// Fills the header of a member, and appends what does not fit to `records`. Returns the bytes of
/// content that follow.
fn fill(block: &mut Block, entry: &TarEntry<'_>, records: &mut Vec<u8>) -> u64 {
    let mut text = |range: std::ops::Range<usize>, bytes: &[u8], key: &[u8]| {
        let len = bytes.len().min(range.len());
        block[range][..len].copy_from_slice(&bytes[..len]);
        if len < bytes.len() {
            pax::append(key, bytes, records);
        }
    };
    text(header::NAME, entry.path, b"path");
    let (kind, size, device) = match entry.what {
        TarType::File { size } => (b'0', size, None),
        TarType::HardLink(target) => {
            text(header::LINK, target, b"linkpath");
            (b'1', 0, None)
        }
        TarType::Symlink(target) => {
            text(header::LINK, target, b"linkpath");
            (b'2', 0, None)
        }
        TarType::CharDevice { major, minor } => (b'3', 0, Some((major, minor))),
        TarType::BlockDevice { major, minor } => (b'4', 0, Some((major, minor))),
        TarType::Directory => (b'5', 0, None),
        TarType::Fifo => (b'6', 0, None),
    };
    header::set_number(&mut block[header::MODE], u64::from(entry.mode));
    for (field, id, key) in [
        (header::UID, entry.uid, b"uid"),
        (header::GID, entry.gid, b"gid"),
    ] {
        header::set_number(&mut block[field], u64::from(id.min(ID_MAX)));
        if id > ID_MAX {
            pax::append(key, id.to_string().as_bytes(), records);
        }
    }
    header::set_number(&mut block[header::SIZE], size.min(SIZE_MAX));
    if size > SIZE_MAX {
        pax::append(b"size", size.to_string().as_bytes(), records);
    }
    let Time { secs, nanos } = entry.mtime;
    let whole = secs.clamp(0, SECONDS_MAX);
    header::set_number(&mut block[header::MTIME], whole as u64);
    if whole != secs || nanos != 0 {
        pax::append(b"mtime", super::time_text(entry.mtime).as_bytes(), records);
    }
    if let Some((major, minor)) = device {
        header::set_number(&mut block[header::DEVICE_MAJOR], u64::from(major));
        header::set_number(&mut block[header::DEVICE_MINOR], u64::from(minor));
    }
    common(block, kind);
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tarball::{MemberKind, TarError, TarReader, TarSource};

    struct Slice<'a>(&'a [u8]);

    impl TarSource for Slice<'_> {
        type Error = TarError;

        fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
            let (taken, rest) = self.0.split_at(buffer.len().min(self.0.len()));
            buffer[..taken.len()].copy_from_slice(taken);
            self.0 = rest;
            Ok(taken.len())
        }

        fn skip(&mut self, bytes: u64) -> Result<u64, TarError> {
            let (taken, rest) = self.0.split_at(self.0.len().min(bytes as usize));
            self.0 = rest;
            Ok(taken.len() as u64)
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let long = vec![b'n'; 300];
        let times = [(0, 0), (-2, 500_000_000), (1 << 40, 1), (1_700_000_000, 0)];
        let mut tar = TarWriter::new(Vec::new());
        let entry = TarEntry {
            path: b"x",
            what: TarType::Fifo,
            mode: 0o4755,
            uid: u32::MAX,
            gid: 7,
            mtime: Time::default(),
            records: &[(b"SCHILY.xattr.user.x".to_vec(), b"\0\n".to_vec())],
        };
        for (secs, nanos) in times {
            let mtime = Time { secs, nanos };
            tar.entry(&TarEntry { mtime, ..entry }).unwrap();
        }
        for what in [
            TarType::Symlink(&long),
            TarType::CharDevice {
                major: 1,
                minor: u32::MAX,
            },
            TarType::File { size: 600 },
        ] {
            let path = long.as_slice();
            tar.entry(&TarEntry {
                path,
                what,
                ..entry
            })
            .unwrap();
        }
        tar.content(&[1; 600]).unwrap();
        tar.entry(&TarEntry {
            what: TarType::HardLink(&long),
            ..entry
        })
        .unwrap();
        let bytes = tar.finish().unwrap();
        assert!(bytes.len().is_multiple_of(BLOCK_BYTES));
        let mut reader = TarReader::new(Slice(&bytes));
        let mut members = Vec::new();
        while let Some(member) = reader.next_member().unwrap() {
            assert_eq!((member.mode, member.uid, member.gid), (0o4755, u32::MAX, 7));
            members.push(member);
        }
        for (member, (secs, nanos)) in members.iter().zip(times) {
            assert_eq!(member.mtime, Time { secs, nanos });
        }
        let target = long.clone();
        assert_eq!(members[4].kind, MemberKind::Symlink { target });
        assert_eq!(members[4].path, long);
        let device = MemberKind::CharDevice {
            major: 1,
            minor: u32::MAX,
        };
        assert_eq!(members[5].kind, device);
        let MemberKind::File { content, size } = members[6].kind else {
            panic!("{:?}", members[6])
        };
        let range = content as usize..(content + size) as usize;
        assert_eq!(bytes[range], [1; 600]);
        assert_eq!(members[7].kind, MemberKind::HardLink { target: long });
        assert_eq!(members.len(), 8);
    }

    #[test]
    fn a_content_of_another_length_is_refused() {
        let entry = TarEntry {
            path: b"x",
            what: TarType::File { size: 2 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            records: &[],
        };
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&entry).unwrap();
        assert!(tar.content(b"abc").is_err());
        tar.content(b"a").unwrap();
        assert!(tar.finish().is_err());
    }
}
