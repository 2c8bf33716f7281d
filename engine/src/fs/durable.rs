//! Small files of podkeep's own that must survive a power cut whole.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How the names of files start that are yet to be renamed. One that stays was cut off, and is nothing that
/// anybody reads.
pub const BESIDE: &str = ".tmp-podkeep-";

/// Makes or replaces a file that only its owner may read: whoever opens it has the old bytes or the new
/// ones. Durable on return.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = OsString::from(format!("{BESIDE}{}-", std::process::id()));
    name.push(path.file_name().unwrap_or_default());
    let beside = path.with_file_name(name);
    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for bytes in ["first", "2nd"] {
            replace(&path, bytes.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bytes);
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let below = path.join("below");
        assert!(replace(&below, b"x").is_err());
        std::fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(replace(&folder.path().join("taken"), b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
