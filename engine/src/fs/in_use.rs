//! Files that a process maps shared and writable.
//!
//! A store into a page of such a mapping that is dirty already moves neither mtime nor ctime
//! until the page is written back, so no time proves that the file is unchanged.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};

/// (device, inode) as `/proc/PID/maps` tells them: the device's major in the upper half, its
/// minor in the lower. On btrfs and in overlay mounts the kernel tells another device there than
/// stat does, so whoever compares for safety compares inode numbers alone.
pub type MappedFiles = HashSet<(u64, u64)>;

/// All that are mapped now by processes that the caller may look at: root sees all.
pub fn shared_writable() -> MappedFiles {
    let mut files = MappedFiles::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return files;
    };
    for process in processes.flatten() {
        let name = process.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // Gone meanwhile, or not ours to see.
        let Ok(maps) = File::open(process.path().join("maps")) else {
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
