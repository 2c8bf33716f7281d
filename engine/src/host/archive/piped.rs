//! Archives that come through a pipe. All are read more than once, and what an image is may stand at an
//! archive's end; so what a pipe gives is first written to a file, which has no name while it is read.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::host::lock::make_private;

/// What stands for standard input.
const STANDARD_INPUT: &str = "-";

/// An archive as it was named, and where it can be read as often as it takes.
pub(super) struct Given {
    pub place: PathBuf,
    /// What messages call it.
    pub name: String,
    /// What came through the pipe; the place leads to it.
    pub spooled: Option<File>,
}

impl Given {
    /// Reads a pipe to its end, into a file in the folder `spool`, which is made if need be. Errors are
    /// causes in words.
    pub fn new(path: &Path, spool: &Path) -> Result<Self, String> {
        let (place, name) = match path == Path::new(STANDARD_INPUT) {
            true => (PathBuf::from("/dev/stdin"), "standard input".to_owned()),
            false => (path.to_owned(), path.display().to_string()),
        };
        let is_pipe = match std::fs::metadata(&place) {
            Ok(facts) => facts.file_type().is_fifo() || facts.file_type().is_socket(),
            // Whoever reads it says what is wrong.
            Err(_) => false,
        };
        if !is_pipe {
            return Ok(Self {
                place,
                name,
                spooled: None,
            });
        }
        let mut pipe = File::open(&place).map_err(|error| error.to_string())?;
        let file = nameless(spool)
            .and_then(|mut file| std::io::copy(&mut pipe, &mut file).map(|_| file))
            .map_err(|error| {
                let folder = spool.display();
                format!("it is a pipe, and cannot be kept in {folder} until it is read: {error}")
            })?;
        Ok(Self {
            place: format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
            name,
            spooled: Some(file),
        })
    }
}

/// A new file that is gone when nobody has it open any more.
fn nameless(folder: &Path) -> std::io::Result<File> {
    make_private(folder)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let path = folder.join(format!("piped-{}", podkeep_format::id::hex(&random)));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
