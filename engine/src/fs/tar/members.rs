//! Reading the members of a layer's tar one by one, from a source that can pass over contents.

use podkeep_format::tree::Time;

use super::{BLOCK_BYTES, TarEntry, TarError, TarHeaders, TarKind, TarStep};

/// Bytes of a name or of a link's target: Linux's PATH_MAX, so that nothing longer was unpacked.
pub const PATH_BYTES_MAX: usize = 4096;

/// What is wrong with a tar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset} of its tar: {cause}")]
pub struct MemberError {
    /// Of the header that is wrong, or where the tar ends too early.
    pub offset: u64,
    /// A sentence without its full stop.
    pub cause: String,
}

/// Where the bytes of a tar come from.
pub trait TarSource {
    type Error: From<MemberError>;

    /// The next bytes, as many as `buffer` takes; fewer only where the tar ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error>;

    /// Passes over the next bytes. Returns how many there were: fewer only where the tar ends.
    fn skip(&mut self, bytes: u64) -> Result<u64, Self::Error>;
}

/// A file, directory or link in a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// In the tar, of its own header.
    pub offset: u64,
    /// As it stands there: of any bytes but NUL, maybe absolute, maybe with `..`.
    pub path: Vec<u8>,
    /// Permission bits, 07777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub kind: MemberKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    File {
        /// In the tar, of its first byte.
        content: u64,
        size: u64,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of the member or file `target`.
    HardLink {
        target: Vec<u8>,
    },
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

/// Reads members, each when it is asked for; holds one header and its extensions.
pub struct MemberReader<S> {
    source: S,
    headers: TarHeaders,
    offset: u64,
    /// Of the last member: its content, and what fills its last block.
    left: (u64, usize),
}

impl<S: TarSource> MemberReader<S> {
    pub fn new(source: S) -> Self {
        Self {
            source,
            headers: TarHeaders::of_layer(),
            offset: 0,
            left: (0, 0),
        }
    }

    /// The next member; `None` at the end, behind which a tar may have anything. After an error
    /// nothing more can be read.
    pub fn next_member(&mut self) -> Result<Option<Member>, S::Error> {
        self.pass_content()?;
        let mut offset = self.offset;
        loop {
            let is_header = self.headers.is_at_header();
            if is_header {
                offset = self.offset;
            }
            let mut block = [0; BLOCK_BYTES];
            match self.fill(&mut block)? {
                BLOCK_BYTES => {}
                0 if is_header => return Ok(None),
                _ if is_header => return Err(self.wrong("it ends inside of a header")),
                _ => return Err(self.wrong("it ends inside of an extended header")),
            }
            let wrong = |TarError { cause }| S::Error::from(MemberError { offset, cause });
            match self.headers.block(&block).map_err(wrong)? {
                TarStep::More => {}
                TarStep::Entry(entry) => {
                    self.left = (entry.stored_bytes, entry.padding());
                    let member = member(offset, self.offset, *entry);
                    return member
                        .map(Some)
                        .map_err(|cause| wrong(TarError::new(cause)));
                }
                TarStep::End => {
                    return match self.fill(&mut block)? {
                        0 => Ok(None),
                        BLOCK_BYTES if block.iter().all(|byte| *byte == 0) => Ok(None),
                        BLOCK_BYTES => Err(wrong(TarError::new(
                            "a single block of zeros stands between members",
                        ))),
                        _ => Err(self.wrong("it ends inside of a header")),
                    };
                }
            }
        }
    }

    fn wrong(&self, cause: &str) -> S::Error {
        let (offset, cause) = (self.offset, cause.to_owned());
        MemberError { offset, cause }.into()
    }

    fn pass_content(&mut self) -> Result<(), S::Error> {
        let (content, padding) = std::mem::take(&mut self.left);
        let passed = self.source.skip(content)?;
        self.offset += passed;
        if passed < content {
            return Err(self.wrong("it ends inside of a content"));
        }
        // The last block need not be whole.
        self.offset += self.source.skip(padding as u64)?;
        Ok(())
    }

    /// The next block, and how much of it there is. Only a whole one counts as read.
    fn fill(&mut self, block: &mut [u8; BLOCK_BYTES]) -> Result<usize, S::Error> {
        let len = self.source.fill(block)?;
        if len == BLOCK_BYTES {
            self.offset += BLOCK_BYTES as u64;
        }
        Ok(len)
    }
}

/// `content`: where the content begins, if there is any. Errors are causes.
fn member(offset: u64, content: u64, entry: TarEntry) -> Result<Member, &'static str> {
    if entry.path.len() > PATH_BYTES_MAX || entry.target.len() > PATH_BYTES_MAX {
        return Err("a name is over 4096 bytes");
    }
    let number = |number: i64, cause| u32::try_from(number).map_err(|_| cause);
    let device = || {
        let cause = "the number of a device is none";
        let (major, minor) = entry.device;
        Ok::<_, &'static str>((number(major, cause)?, number(minor, cause)?))
    };
    let is_link = matches!(entry.kind, TarKind::HardLink | TarKind::Symlink);
    if is_link && entry.target.is_empty() {
        return Err("a link has no target");
    }
    let kind = match entry.kind {
        TarKind::File => MemberKind::File {
            content,
            size: entry.stored_bytes,
        },
        TarKind::Directory => MemberKind::Directory,
        TarKind::Symlink => MemberKind::Symlink {
            target: entry.target,
        },
        TarKind::HardLink => MemberKind::HardLink {
            target: entry.target,
        },
        TarKind::CharDevice => {
            let (major, minor) = device()?;
            MemberKind::CharDevice { major, minor }
        }
        TarKind::BlockDevice => {
            let (major, minor) = device()?;
            MemberKind::BlockDevice { major, minor }
        }
        TarKind::Fifo => MemberKind::Fifo,
        TarKind::Other(_) => return Err("a member is of an unknown type"),
    };
    Ok(Member {
        offset,
        path: entry.path,
        mode: (entry.mode & 0o7777) as u16,
        uid: number(entry.uid, "an owner is no number of 32 bits")?,
        gid: number(entry.gid, "a group is no number of 32 bits")?,
        mtime: entry.mtime,
        kind,
    })
}
