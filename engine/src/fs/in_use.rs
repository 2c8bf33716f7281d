//! Files that processes may change without a trace in their times, or have open to do so.
//!
//! A store into a page of a shared mapping that is dirty already moves neither mtime nor ctime
//! until the page is written back, so no time proves that the file is unchanged.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Write permission in the mode of a link in `/proc/PID/fd`: the file is open for writing.
const WRITES: u32 = 0o200;

/// (device, inode) as `/proc/PID/maps` tells them: the device's major in the upper half, its
/// minor in the lower. On btrfs and in overlay mounts the kernel tells another device there than
/// stat does, so whoever compares for safety compares inode numbers alone.
pub type MappedFiles = HashSet<(u64, u64)>;

/// All that are mapped now by processes that the caller may look at: root sees all.
pub fn shared_writable() -> MappedFiles {
    let mut files = MappedFiles::new();
    for process in processes() {
        // Gone meanwhile, or not ours to see.
        let Ok(maps) = File::open(process.join("maps")) else {
            continue;
        };
        let mut maps = BufReader::new(maps);
        let mut line = Vec::new();
        while maps.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            files.extend(parse(&line));
            line.clear();
        }
    }
    files
}

/// Files, by device and inode number, that such processes have open for writing.
pub fn open_for_writing() -> HashSet<(u64, u64)> {
    let mut files = HashSet::new();
    for process in processes() {
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let path = descriptor.path();
            let writes = path
                .symlink_metadata()
                .is_ok_and(|link| link.mode() & WRITES != 0);
            if !writes {
                continue;
            }
            if let Ok(file) = fs::metadata(&path)
                && file.is_file()
            {
                let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
                files.insert((u64::from(major) << 32 | u64::from(minor), file.ino()));
            }
        }
    }
    files
}

/// `/proc/PID` of each process.
pub(crate) fn processes() -> impl Iterator<Item = PathBuf> {
    // Where it is not mounted, nothing is known.
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path())
}

/// One line: `address perms offset major:minor inode path`.
fn parse(line: &[u8]) -> Option<(u64, u64)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let permissions = fields.nth(1)?;
    if permissions.get(1) != Some(&b'w') || permissions.get(3) != Some(&b's') {
        return None;
    }
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let inode = std::str::from_utf8(fields.next()?).ok()?.trim_end();
    let (major, minor) = device.split_once(':')?;
    let major = u64::from(u32::from_str_radix(major, 16).ok()?);
    let minor = u64::from(u32::from_str_radix(minor, 16).ok()?);
    match inode.parse().ok()? {
        0 => None,
        inode => Some((major << 32 | minor, inode)),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_shared_writable_mappings_of_files_count() {
        let line = |perms: &str, inode: u64| {
            format!("7f0000000000-7f0000001000 {perms} 00000000 fd:1f {inode}      /a b\n")
        };
        assert_eq!(
            parse(line("rw-s", 17).as_bytes()),
            Some((0xfd << 32 | 0x1f, 17))
        );
        assert_eq!(
            parse(line("-w-s", 17).as_bytes()),
            Some((0xfd << 32 | 0x1f, 17))
        );
        assert_eq!(parse(line("rw-p", 17).as_bytes()), None);
        assert_eq!(parse(line("r--s", 17).as_bytes()), None);
        assert_eq!(parse(line("rw-s", 0).as_bytes()), None);
        assert_eq!(parse(b"7f00-7f01 rw-s 0 fd:1f\n"), None);
        assert_eq!(parse(b""), None);
    }
}
