//! Writing beside a place, and taking the place once all is written.
//!
//! What is under way has the place's name with [`SUFFIX`] behind it, and goes with an error. That
//! of a process that was killed stays, and is in the way of the next one: another export may be at
//! work there.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::operations::{OperationError, OperationResult};
use crate::podman::layout;

const SUFFIX: &str = ".podkeep-partial";
/// What is exported may be a secret.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A place that is not taken yet.
struct Claim {
    place: PathBuf,
    partial: PathBuf,
    replace: bool,
}

impl Claim {
    /// `may_go`: whether what is at the place is such that it may be replaced.
    fn make(
        place: PathBuf,
        replace: bool,
        may_go: fn(&Path, &fs::Metadata) -> bool,
    ) -> OperationResult<Self> {
        let refused = |what: &str, hint: &str| OperationError::Refused {
            message: format!("{} {what}", place.display()),
            hint: hint.into(),
        };
        match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(local("look at", &place, error)),
            Ok(_) if !replace => return Err(refused("is there already", "--replace replaces it")),
            Ok(metadata) if !may_go(&place, &metadata) => {
                let hint = "only a regular file, or the directory of an OCI layout, is replaced";
                return Err(refused("is nothing that an export replaces", hint));
            }
            Ok(_) => {}
        }
        let Some(name) = place.file_name() else {
            return Err(refused("has no name", "name a file or directory in it"));
        };
        let mut partial: OsString = name.to_owned();
        partial.push(SUFFIX);
        Ok(Self {
            partial: place.with_file_name(partial),
            place,
            replace,
        })
    }

    fn occupied(&self, error: io::Error) -> OperationError {
        match error.kind() {
            ErrorKind::AlreadyExists => OperationError::Refused {
                message: format!("{} is there already", self.partial.display()),
                hint: "an export is at work there, or was killed: then remove it".into(),
            },
            _ => local("make", &self.partial, error),
        }
    }

    fn rename(&self, flags: RenameFlags) -> OperationResult<()> {
        renameat_with(CWD, &self.partial, CWD, &self.place, flags)
            .map_err(|errno| local("rename to", &self.place, errno.into()))?;
        let folder = match self.place.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| local("make durable", folder, error))
    }
}

fn local(action: &'static str, path: &Path, error: io::Error) -> OperationError {
    OperationError::Local {
        action,
        object: path.display().to_string(),
        cause: error.to_string(),
    }
}

/// A file, of mode 0600. Without [`commit`](Self::commit) it is removed.
pub struct FileBeside {
    claim: Claim,
    out: BufWriter<File>,
    done: bool,
}

impl FileBeside {
    pub fn make(place: PathBuf, replace: bool) -> OperationResult<Self> {
        let claim = Claim::make(place, replace, |_, metadata| metadata.is_file())?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE);
        let file = options.open(&claim.partial);
        let file = file.map_err(|error| claim.occupied(error))?;
        Ok(Self {
            claim,
            out: BufWriter::with_capacity(1 << 20, file),
            done: false,
        })
    }

    pub fn commit(mut self) -> OperationResult<()> {
        let flushed = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_all());
        flushed.map_err(|error| local("write", &self.claim.partial, error))?;
        self.claim.rename(match self.claim.replace {
            true => RenameFlags::empty(),
            false => RenameFlags::NOREPLACE,
        })?;
        self.done = true;
        Ok(())
    }
}

impl Write for FileBeside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for FileBeside {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.claim.partial);
        }
    }
}

/// A directory, of mode 0700. Without [`commit`](Self::commit) it is removed.
pub struct DirectoryBeside {
    claim: Claim,
    done: bool,
}

impl DirectoryBeside {
    pub fn make(place: PathBuf, replace: bool) -> OperationResult<Self> {
        let claim = Claim::make(place, replace, |place, metadata| {
            metadata.is_dir() && place.join(layout::LAYOUT_FILE.0).is_file()
        })?;
        let made = fs::DirBuilder::new()
            .mode(DIRECTORY_MODE)
            .create(&claim.partial);
        made.map_err(|error| claim.occupied(error))?;
        Ok(Self { claim, done: false })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.claim.partial
    }

    pub fn commit(mut self) -> OperationResult<()> {
        let there = fs::symlink_metadata(&self.claim.place).is_ok();
        let exchange = self.claim.replace && there;
        self.claim.rename(match exchange {
            true => RenameFlags::EXCHANGE,
            false => RenameFlags::NOREPLACE,
        })?;
        self.done = true;
        if exchange {
            let old = &self.claim.partial;
            fs::remove_dir_all(old).map_err(|error| local("remove", old, error))?;
        }
        Ok(())
    }
}

impl Drop for DirectoryBeside {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.claim.partial);
        }
    }
}
