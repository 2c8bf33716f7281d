//! One run for an item at a time.
//!
//! A lock file in the state folder is held with `flock` and so ends with the process that holds
//! it, however that ends. The file stays: removing it would let two runs hold two files of one
//! name.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use podkeep_format::item::Item;

use super::HostError;
use crate::fs::{FsError, FsErrorKind};

/// Who holds a lock, in bytes.
const HOLDER_BYTES_MAX: u64 = 256;

/// Held while an item is read or written.
pub(super) struct ItemLock {
    _file: File,
}

impl ItemLock {
    /// `state` is made if need be. Busy: another run has the item.
    pub fn take(state: &Path, item: &Item) -> Result<Self, HostError> {
        let text = item.to_string();
        let folder = state.join("locks");
        let local = |action, path: &Path, error: std::io::Error| {
            let path = path.as_os_str().as_bytes();
            HostError::Fs(FsError::new(action, path, FsErrorKind::Other, error))
        };
        make_private(&folder).map_err(|e| local("make", &folder, e))?;
        let path = folder.join(&blake3::hash(text.as_bytes()).to_hex()[..32]);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| local("open", &path, e))?;
        match crate::fs::lock::lock_exclusive(&file) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(HostError::Busy {
                    object: text,
                    holder: holder(&file),
                });
            }
            Err(errno) => return Err(local("lock", &path, errno.into())),
        }
        let line = format!("{} {}\n", std::process::id(), crate::clock::now().secs);
        // Only words for people: the lock itself is what counts.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(line.as_bytes()));
        Ok(Self { _file: file })
    }
}

/// "process 4242, for 3 min 12 s".
fn holder(file: &File) -> String {
    let mut line = String::new();
    let read = file.take(HOLDER_BYTES_MAX).read_to_string(&mut line);
    let mut words = line.split_ascii_whitespace();
    let (Ok(_), Some(process), Some(since)) = (read, words.next(), words.next()) else {
        return "a process that just began".into();
    };
    let since = since.parse().unwrap_or_default();
    let elapsed = crate::clock::now().secs.saturating_sub(since);
    let elapsed = Duration::from_secs(elapsed.try_into().unwrap_or_default());
    format!("process {process}, for {}", in_words(elapsed))
}

fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

pub(super) fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkeep_format::item::ItemKind;

    #[test]
    fn an_item_is_locked_once_and_the_holder_is_named() {
        let state = tempfile::tempdir().unwrap();
        let item = Item::new(ItemKind::Volume, "web");
        let lock = ItemLock::take(state.path(), &item).unwrap();
        ItemLock::take(state.path(), &Item::new(ItemKind::Volume, "other")).unwrap();
        let Err(HostError::Busy { object, holder }) = ItemLock::take(state.path(), &item) else {
            panic!("it was locked twice");
        };
        assert_eq!(object, "volume:web");
        let process = format!("process {}, for ", std::process::id());
        assert!(holder.starts_with(&process), "{holder}");
        drop(lock);
        ItemLock::take(state.path(), &item).unwrap();
    }

    #[test]
    fn times_in_words() {
        assert_eq!(in_words(Duration::from_secs(7)), "7 s");
        assert_eq!(in_words(Duration::from_secs(192)), "3 min 12 s");
        assert_eq!(in_words(Duration::from_secs(7260)), "2 h 1 min");
    }
}
