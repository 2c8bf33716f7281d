//! Writing tars as PAX has them: what does not fit into a header stands in records in front of it.

use std::io::{self, Write};

use podkeep_format::tree::Time;

use super::header::{self, Block};
use super::{BLOCK_BYTES, padding};

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
pub struct NewMember<'a> {
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
    left: (u64, usize),
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out, left: (0, 0) }
    }

    /// A member; the content of a file follows.
    pub fn member(&mut self, member: &NewMember<'_>) -> io::Result<()> {
        self.end_content()?;
        let mut records = Vec::new();
        for (key, value) in member.records {
            append(key, value, &mut records);
        }
        let mut block = [0; BLOCK_BYTES];
        let size = fill(&mut block, member, &mut records);
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

    /// So many bytes of the last member's content went where the tar goes by another way.
    pub fn pass_over(&mut self, bytes: u64) -> io::Result<()> {
        let left = self.left.0.checked_sub(bytes);
        self.left.0 =
            left.ok_or_else(|| io::Error::other("a file has more bytes than was said"))?;
        Ok(())
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
        self.out.write_all(&[0; BLOCK_BYTES][..padding])
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
        self.out.write_all(&[0; BLOCK_BYTES][..padding])
    }
}

impl TarWriter<Vec<u8>> {
    /// What was written since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// How the name of an extended attribute is written: a record ends its key at the first `=`.
pub fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            byte => key.push(*byte),
        }
    }
    key
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
fn fill(block: &mut Block, member: &NewMember<'_>, records: &mut Vec<u8>) -> u64 {
    let mut text = |range: std::ops::Range<usize>, bytes: &[u8], key: &[u8]| {
        let len = bytes.len().min(range.len());
        block[range][..len].copy_from_slice(&bytes[..len]);
        if len < bytes.len() {
            append(key, bytes, records);
        }
    };
    text(header::NAME, member.path, b"path");
    let (kind, size, device) = match member.what {
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
    header::set_number(&mut block[header::MODE], u64::from(member.mode));
    for (field, id, key) in [
        (header::UID, member.uid, b"uid"),
        (header::GID, member.gid, b"gid"),
    ] {
        header::set_number(&mut block[field], u64::from(id.min(ID_MAX)));
        if id > ID_MAX {
            append(key, id.to_string().as_bytes(), records);
        }
    }
    header::set_number(&mut block[header::SIZE], size.min(SIZE_MAX));
    if size > SIZE_MAX {
        append(b"size", size.to_string().as_bytes(), records);
    }
    let Time { secs, nanos } = member.mtime;
    let whole = secs.clamp(0, SECONDS_MAX);
    header::set_number(&mut block[header::MTIME], whole as u64);
    if whole != secs || nanos != 0 {
        append(b"mtime", time_text(member.mtime).as_bytes(), records);
    }
    if let Some((major, minor)) = device {
        header::set_number(&mut block[header::DEVICE_MAJOR], u64::from(major));
        header::set_number(&mut block[header::DEVICE_MINOR], u64::from(minor));
    }
    common(block, kind);
    size
}

/// Appends a PAX record.
fn append(key: &[u8], value: &[u8], records: &mut Vec<u8>) {
    // A blank, an equals sign and the end of the line; the length counts itself.
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len += 1;
    }
    records.extend_from_slice(format!("{len} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// How PAX writes a time: a decimal number that counts from 1970.
fn time_text(time: Time) -> String {
    let (sign, secs, nanos) = match time {
        Time { secs, nanos } if secs < 0 && nanos > 0 => {
            ("-", (secs + 1).unsigned_abs(), 1_000_000_000 - nanos)
        }
        Time { secs, nanos } => (if secs < 0 { "-" } else { "" }, secs.unsigned_abs(), nanos),
    };
    match nanos {
        0 => format!("{sign}{secs}"),
        nanos => format!("{sign}{secs}.{nanos:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tar::pax::{Records, time};
    use crate::fs::tar::tests::Slice;
    use crate::fs::tar::{MemberKind, MemberReader};

    #[test]
    fn what_is_written_is_read() {
        let long = vec![b'n'; 300];
        let times = [(0, 0), (-2, 500_000_000), (1 << 40, 1), (1_700_000_000, 0)];
        let mut tar = TarWriter::new(Vec::new());
        let entry = NewMember {
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
            tar.member(&NewMember { mtime, ..entry }).unwrap();
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
            tar.member(&NewMember {
                path,
                what,
                ..entry
            })
            .unwrap();
        }
        tar.content(&[1; 600]).unwrap();
        tar.member(&NewMember {
            what: TarType::HardLink(&long),
            ..entry
        })
        .unwrap();
        let bytes = tar.finish().unwrap();
        assert!(bytes.len().is_multiple_of(BLOCK_BYTES));
        let mut reader = MemberReader::new(Slice(&bytes));
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
        let entry = NewMember {
            path: b"x",
            what: TarType::File { size: 2 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            records: &[],
        };
        let mut tar = TarWriter::new(Vec::new());
        tar.member(&entry).unwrap();
        assert!(tar.content(b"abc").is_err());
        tar.content(b"a").unwrap();
        assert!(tar.finish().is_err());
    }

    #[test]
    fn records_that_are_written_are_read() {
        for len in [0, 1, 90, 91, 92, 93, 94, 989, 990, 991, 992] {
            let path = vec![b'x'; len];
            let mut records = Vec::new();
            append(b"path", &path, &mut records);
            append(b"SCHILY.xattr.user.x", b"\n=\0", &mut records);
            append(b"uid", b"4294967295", &mut records);
            let read = Records::decode(&records).unwrap();
            assert_eq!(read.last(b"path"), Some(path.as_slice()));
            assert_eq!(read.last(b"SCHILY.xattr.user.x"), Some(&b"\n=\0"[..]));
            assert_eq!(read.last(b"uid"), Some(&b"4294967295"[..]));
        }
    }

    #[test]
    fn times_that_are_written_are_read() {
        for secs in [-2, -1, 0, 1, i64::from(u32::MAX)] {
            for nanos in [0, 1, 999_999_999] {
                let written = Time { secs, nanos };
                assert_eq!(time(time_text(written).as_bytes()), Ok(written));
            }
        }
    }
}
