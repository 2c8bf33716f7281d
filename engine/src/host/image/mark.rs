//! The mark of an image that a restore is about to put into the store, or did without coming to its end.
//!
//! What Podman's own `load` makes of an image is makeshift. The mark is durable before the load
//! begins: whoever finds it beside such an image knows that nobody asked for that.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{look, own_image};
use crate::fs::{FsError, FsErrorKind};
use crate::podman::StoragePlaces;

/// Dropped before [`done`](Self::done), it stays only where the image is in the store.
pub(super) struct Mark {
    path: PathBuf,
    id: String,
    places: StoragePlaces,
}

impl Mark {
    /// Durable on return.
    pub fn make(path: PathBuf, id: &str, places: &StoragePlaces) -> Result<Self, FsError> {
        let made = std::fs::write(&path, b"").and_then(|()| File::open(&path)?.sync_all());
        made.map_err(|error| {
            let path = path.as_os_str().as_bytes();
            FsError::new("write", path, FsErrorKind::Other, error)
        })?;
        Ok(Self {
            path,
            id: id.to_owned(),
            places: places.clone(),
        })
    }

    /// The image is what it was, so that nobody need take it for makeshift.
    pub fn done(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if !self.path.exists() {
            return;
        }
        // Where the store cannot be read, nobody knows.
        let is_there =
            look(&self.places).map(|known| own_image(&known.listing, &self.id).is_some());
        if let Ok(false) = is_there {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
