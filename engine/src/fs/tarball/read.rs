//! Reading the members of a tar one by one.

use podkeep_format::tree::Time;

use super::header::{self, Block};
use super::pax::Pax;
use super::{BLOCK_BYTES, EXTENSION_BYTES_MAX, PATH_BYTES_MAX, TarError, padding};

/// Where the bytes of a tar come from.
pub trait TarSource {
    type Error: From<TarError>;

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
pub struct TarReader<S> {
    source: S,
    offset: u64,
    /// Of the last member: its content, and what fills its last block.
    left: (u64, u64),
}

/// What extensions in front of a header say.
#[derive(Default)]
struct Extensions {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<S: TarSource> TarReader<S> {
    pub fn new(source: S) -> Self {
        Self {
            source,
            offset: 0,
            left: (0, 0),
        }
    }

    /// The next member; `None` at the end, behind which a tar may have anything. After an error
    /// nothing more can be read.
    pub fn next_member(&mut self) -> Result<Option<Member>, S::Error> {
        let mut extensions = Extensions::default();
        loop {
            self.pass_content()?;
            let offset = self.offset;
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let wrong = |cause| TarError { offset, cause };
            match block[header::TYPE] {
                b'x' => {
                    let records = self.extension(&block)?;
                    extensions.pax = Pax::read(&records).map_err(wrong)?;
                }
                b'L' => extensions.long_name = Some(self.long_text(&block)?),
                b'K' => extensions.long_link = Some(self.long_text(&block)?),
                // It speaks of all members behind it. What unpacks layers passes over it.
                b'g' => self.left = self.content(&block, None)?,
                _ => return Ok(Some(self.member(offset, &block, extensions)?)),
            }
        }
    }

    fn wrong(&self, cause: &'static str) -> S::Error {
        let offset = self.offset;
        TarError { offset, cause }.into()
    }

    fn pass_content(&mut self) -> Result<(), S::Error> {
        let (content, padding) = std::mem::take(&mut self.left);
        let passed = self.source.skip(content)?;
        self.offset += passed;
        if passed < content {
            return Err(self.wrong("it ends inside of a content"));
        }
        // The last block need not be whole.
        self.offset += self.source.skip(padding)?;
        Ok(())
    }

    /// A block; `None` where the tar ends.
    fn block(&mut self) -> Result<Option<Block>, S::Error> {
        let mut block = [0; BLOCK_BYTES];
        match self.source.fill(&mut block)? {
            0 => Ok(None),
            BLOCK_BYTES => {
                self.offset += BLOCK_BYTES as u64;
                Ok(Some(block))
            }
            _ => Err(self.wrong("it ends inside of a header")),
        }
    }

    /// The next header, unless two blocks of zeros or the end of all bytes say that there is none.
    fn header(&mut self) -> Result<Option<Block>, S::Error> {
        let offset = self.offset;
        let wrong = |cause| S::Error::from(TarError { offset, cause });
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            return match self.block()? {
                Some(next) if next.iter().any(|byte| *byte != 0) => {
                    Err(wrong("a single block of zeros stands between members"))
                }
                _ => Ok(None),
            };
        }
        match header::is_sound(&block) {
            true => Ok(Some(block)),
            false => Err(wrong("the checksum of a header is wrong")),
        }
    }

    /// The bytes behind a header, and what fills their last block. `size`: what PAX says.
    fn content(&self, block: &Block, size: Option<u64>) -> Result<(u64, u64), S::Error> {
        let told = header::number(&block[header::SIZE]);
        let size = size.or_else(|| told.and_then(|size| u64::try_from(size).ok()));
        match size {
            Some(size) if size <= i64::MAX as u64 => Ok((size, padding(size))),
            _ => Err(self.wrong("a size is no number of bytes")),
        }
    }

    /// What stands behind a header that only says more of the next one.
    fn extension(&mut self, block: &Block) -> Result<Vec<u8>, S::Error> {
        let (size, padding) = self.content(block, None)?;
        if size > EXTENSION_BYTES_MAX {
            return Err(self.wrong("an extended header is over 1 MiB"));
        }
        let mut bytes = vec![0; size as usize];
        if self.source.fill(&mut bytes)? < bytes.len() {
            return Err(self.wrong("it ends inside of an extended header"));
        }
        self.offset += size;
        self.left = (0, padding);
        Ok(bytes)
    }

    fn long_text(&mut self, block: &Block) -> Result<Vec<u8>, S::Error> {
        let bytes = self.extension(block)?;
        Ok(header::text(&bytes).to_vec())
    }

    fn member(
        &mut self,
        offset: u64,
        block: &Block,
        extensions: Extensions,
    ) -> Result<Member, S::Error> {
        let wrong = |cause| S::Error::from(TarError { offset, cause });
        let pax = extensions.pax;
        let number = |field: std::ops::Range<usize>, cause| {
            header::number(&block[field]).ok_or_else(|| wrong(cause))
        };
        let id = |told: Option<u32>, field, cause| match told {
            Some(id) => Ok(id),
            None => u32::try_from(number(field, cause)?).map_err(|_| wrong(cause)),
        };
        let some = |text: Option<Vec<u8>>| text.filter(|text| !text.is_empty());
        let path = some(extensions.long_name)
            .or(pax.path)
            .unwrap_or_else(|| header::name(block));
        let link = some(extensions.long_link)
            .or(pax.link)
            .unwrap_or_else(|| header::text(&block[header::LINK]).to_vec());
        if path.len() > PATH_BYTES_MAX || link.len() > PATH_BYTES_MAX {
            return Err(wrong("a name is over 4096 bytes"));
        }
        let kind = block[header::TYPE];
        // As Go has it, these have no content, whatever their size says.
        self.left = match kind {
            b'1'..=b'6' => (0, 0),
            _ => self.content(block, pax.size)?,
        };
        let size = self.left.0;
        let content = self.offset;
        let target = || match link.is_empty() {
            false => Ok(link.clone()),
            true => Err(wrong("a link has no target")),
        };
        let device = |field| {
            let cause = "the number of a device is none";
            u32::try_from(number(field, cause)?).map_err(|_| wrong(cause))
        };
        let kind = match kind {
            0 if path.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' => MemberKind::File { content, size },
            b'1' => MemberKind::HardLink { target: target()? },
            b'2' => MemberKind::Symlink { target: target()? },
            b'3' => MemberKind::CharDevice {
                major: device(header::DEVICE_MAJOR)?,
                minor: device(header::DEVICE_MINOR)?,
            },
            b'4' => MemberKind::BlockDevice {
                major: device(header::DEVICE_MAJOR)?,
                minor: device(header::DEVICE_MINOR)?,
            },
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            b'S' => return Err(wrong("sparse files in tars are not supported")),
            _ => return Err(wrong("a member is of an unknown type")),
        };
        Ok(Member {
            offset,
            path,
            mode: (number(header::MODE, "a mode is no number")? & 0o7777) as u16,
            uid: id(pax.uid, header::UID, "an owner is no number of 32 bits")?,
            gid: id(pax.gid, header::GID, "a group is no number of 32 bits")?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => Time {
                    secs: number(header::MTIME, "a time is no number")?,
                    nanos: 0,
                },
            },
            kind,
        })
    }
}
