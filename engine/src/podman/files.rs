//! Reading small files of the host whole.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The whole of a regular file of at most `bytes_max`. Links are followed: the path is root's or
/// Podman's own word. Never waits for a fifo, never opens a device's other side.
pub(super) fn read_file(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    // Asked first: opening a device can be all that it takes.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    read_all(file, bytes_max)
}

/// All of an open file.
pub(super) fn read_all(file: File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() {
        len if len > bytes_max => Err(io::Error::other(format!("more than {bytes_max} bytes"))),
        _ => Ok(bytes),
    }
}
