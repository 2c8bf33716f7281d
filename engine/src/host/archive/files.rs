//! The files of an archive of images, by name: in a directory, or in a tar that is read as often
//! as it takes.
//!
//! Nothing is unpacked to disk. Of a tar, where each file lies is found out once. A compressed one
//! has no way to go there but from its start; so the place where the last reader stopped is kept,
//! and layers, which are read in the order in which they lie, cost one pass in all.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::input::{Input, TarReader, cause};
use crate::fs::tar::{Layout, TarKind};
use crate::podman::ArchiveFiles;

/// Files of one archive, and bytes of all their names. An archive of 4096 images has some 100,000.
const FILES_MAX: usize = 1 << 20;
const NAMES_BYTES_MAX: usize = 64 << 20;
/// Links from one file of a tar to the next; `docker save` once wrote layers that way.
const LINKS_MAX: usize = 8;

/// An archive of images.
pub(super) struct Files {
    kind: Kind,
}

enum Kind {
    Folder(OwnedFd),
    Tar {
        path: PathBuf,
        members: HashMap<Vec<u8>, Member>,
        /// Where a reader of a compressed tar stopped.
        parked: Mutex<Option<Input>>,
    },
}

enum Member {
    File { offset: u64, size: u64 },
    Link(Vec<u8>),
}

impl Files {
    /// Errors are causes in words.
    pub fn open(path: &Path) -> Result<Self, String> {
        let facts = std::fs::metadata(path).map_err(cause)?;
        let kind = match facts.is_dir() {
            true => {
                let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
                let folder = rustix::fs::open(path, flags, Mode::empty());
                Kind::Folder(folder.map_err(|errno| cause(errno.into()))?)
            }
            false => Kind::Tar {
                path: path.to_owned(),
                members: members(path)?,
                parked: Mutex::default(),
            },
        };
        Ok(Self { kind })
    }

    /// `None`: there is no such file. Symbolic links lead only to files of the same archive.
    pub fn file(&self, name: &str) -> Result<Option<ArchivedFile<'_>>, String> {
        match &self.kind {
            Kind::Folder(folder) => open_below(folder, name),
            Kind::Tar {
                path,
                members,
                parked,
            } => {
                let mut name = plain(name.as_bytes(), b"");
                for _ in 0..LINKS_MAX {
                    let (offset, size) = match name.as_ref().and_then(|name| members.get(name)) {
                        None => return Ok(None),
                        Some(Member::File { offset, size }) => (*offset, *size),
                        Some(Member::Link(target)) => {
                            name = Some(target.clone());
                            continue;
                        }
                    };
                    let there = parked.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let there = there.filter(|input| input.position() <= offset);
                    let mut input = match there {
                        Some(input) => input,
                        None => Input::open(path).map_err(cause)?,
                    };
                    input.skip(offset - input.position()).map_err(cause)?;
                    return Ok(Some(ArchivedFile {
                        size,
                        left: size,
                        source: Source::Tar {
                            input: Some(input),
                            parked,
                        },
                    }));
                }
                Err("its links have no end".into())
            }
        }
    }
}

impl ArchiveFiles for Files {
    fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, String> {
        let Some(mut file) = self.file(name)? else {
            return Ok(None);
        };
        if file.size > bytes_max as u64 {
            return Err(format!(
                "{name:?} has {} bytes, which is too much",
                file.size
            ));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(cause)?;
        Ok(Some(bytes))
    }
}

/// A file of an archive that is read from its start.
pub(super) struct ArchivedFile<'f> {
    /// Bytes.
    pub size: u64,
    left: u64,
    source: Source<'f>,
}

enum Source<'f> {
    Folder(File),
    Tar {
        /// `None` once it is parked.
        input: Option<Input>,
        parked: &'f Mutex<Option<Input>>,
    },
}

impl Read for ArchivedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = (buffer.len() as u64).min(self.left) as usize;
        let buffer = &mut buffer[..wanted];
        let len = match &mut self.source {
            Source::Folder(file) => file.read(buffer)?,
            Source::Tar { input, .. } => match input {
                Some(input) => input.read(buffer)?,
                None => 0,
            },
        };
        if len == 0 && wanted > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= len as u64;
        Ok(len)
    }
}

impl Drop for ArchivedFile<'_> {
    fn drop(&mut self) {
        if let Source::Tar { input, parked } = &mut self.source
            && let Some(input) = input.take().filter(Input::is_packed)
        {
            let mut parked = parked.lock().unwrap_or_else(PoisonError::into_inner);
            let is_further = |other: &Input| other.position() < input.position();
            if parked.as_ref().is_none_or(is_further) {
                *parked = Some(input);
            }
        }
    }
}

/// Where each file of a tar lies. Of several with one name the last counts.
fn members(path: &Path) -> Result<HashMap<Vec<u8>, Member>, String> {
    let mut tar = TarReader::new(Input::open(path).map_err(cause)?);
    let mut members = HashMap::new();
    let mut names = 0;
    while let Some(entry) = tar.next_entry()? {
        let Some(name) = plain(&entry.path, b"") else {
            continue;
        };
        let folder = name.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let member = match (entry.kind, entry.layout) {
            (TarKind::File, Layout::Whole) => Member::File {
                offset: tar.position(),
                size: entry.stored_bytes,
            },
            (TarKind::Symlink, _) => match plain(&entry.target, &name[..folder]) {
                Some(target) => Member::Link(target),
                None => continue,
            },
            (TarKind::HardLink, _) => match plain(&entry.target, b"") {
                Some(target) => Member::Link(target),
                None => continue,
            },
            _ => continue,
        };
        names += name.len();
        if let Member::Link(target) = &member {
            names += target.len();
        }
        if members.len() == FILES_MAX || names > NAMES_BYTES_MAX {
            return Err("it has too many files for an archive of images".into());
        }
        members.insert(name, member);
    }
    Ok(members)
}

/// A path below `folder`, without `.` and `..`. `None`: it leads out of the archive.
fn plain(path: &[u8], folder: &[u8]) -> Option<Vec<u8>> {
    let is_part = |part: &&[u8]| !part.is_empty() && *part != b".";
    let mut parts: Vec<&[u8]> = folder.split(|byte| *byte == b'/').filter(is_part).collect();
    for part in path.split(|byte| *byte == b'/').filter(is_part) {
        match part {
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// Opens a regular file below a directory; links lead to nothing outside it.
fn open_below(folder: &OwnedFd, name: &str) -> Result<Option<ArchivedFile<'static>>, String> {
    let failed = |errno: Errno| cause(errno.into());
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = match openat2(
        folder,
        name,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    ) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        found => found.map_err(failed)?,
    };
    let stat = rustix::fs::fstat(&found).map_err(failed)?;
    // Opening a device or a fifo can have effects.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(format!("{name:?} is no regular file"));
    }
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Some(ArchivedFile {
        size,
        left: size,
        source: Source::Folder(File::from(file)),
    }))
}
