//! Listing a store's folder: waves of folders, a wide one by several threads.
//!
//! One row costs one fstatat. On a network file system each is a round trip, so that a repository
//! of 256 shards is listed by several threads; on a local disk they use the second core.

use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::{LocalStore, ObjectMeta, ObjectName, StoreResult, Walk, folder, layout};

const THREADS: usize = 8;

/// A wave of fewer folders is listed by the caller alone.
const WIDE_FOLDERS: usize = 16;

#[derive(Default)]
struct Found {
    objects: Vec<ObjectMeta>,
    /// Paths of folders to list next.
    folders: Vec<String>,
}

impl LocalStore {
    pub(super) fn list_folder(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        // A folder is named like an object; what is not, no object lies in.
        if !folder.is_empty() && ObjectName::parse(folder).is_none() {
            return Ok(Vec::new());
        }
        self.check_root()?;
        let mut objects = Vec::new();
        let mut wave = vec![folder.to_owned()];
        // Ends: each wave's paths are longer, and names have at most 200 bytes.
        while !wave.is_empty() {
            let found = if wave.len() < WIDE_FOLDERS {
                self.list_folders(&Mutex::new(wave))?
            } else {
                self.list_wide(wave)?
            };
            objects.extend(found.objects);
            wave = found.folders;
        }
        objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// A removed root would list as empty, and an empty listing has consequences.
    fn check_root(&self) -> StoreResult<()> {
        let stat = rustix::fs::fstat(&self.root).map_err(|e| self.fail("list", "", e))?;
        match stat.st_nlink {
            0 => Err(self.fail("list", "", Errno::NOENT)),
            _ => Ok(()),
        }
    }

    fn list_wide(&self, wave: Vec<String>) -> StoreResult<Found> {
        let queue = Mutex::new(wave);
        std::thread::scope(|scope| {
            // Where no thread can be had, the caller lists all by itself.
            let threads: Vec<_> = (1..THREADS)
                .filter_map(|_| {
                    std::thread::Builder::new()
                        .spawn_scoped(scope, || self.list_folders(&queue))
                        .ok()
                })
                .collect();
            let mut all = self.list_folders(&queue)?;
            for thread in threads {
                let found = match thread.join() {
                    Ok(found) => found?,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                all.objects.extend(found.objects);
                all.folders.extend(found.folders);
            }
            Ok(all)
        })
    }

    /// Takes folders from `queue` until it is empty.
    fn list_folders(&self, queue: &Mutex<Vec<String>>) -> StoreResult<Found> {
        let mut found = Found::default();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match next {
                Some(path) => self.list_one(&path, &mut found)?,
                None => return Ok(found),
            }
        }
    }

    fn list_one(&self, path: &str, found: &mut Found) -> StoreResult<()> {
        let failed = |e| self.fail("list", path, e);
        let folder = match folder::open(self.root.as_fd(), path) {
            Ok(fd) => fd,
            Err(Walk::Missing | Walk::Object(_)) => return Ok(()),
            Err(walk) => return Err(self.walk_failed("list", path, &walk)),
        };
        let mut entries = Dir::read_from(&folder).map_err(failed)?;
        while let Some(entry) = entries.read() {
            let entry = match entry {
                Ok(entry) => entry,
                // The folder was emptied and removed meanwhile.
                Err(Errno::NOENT) if !path.is_empty() => return Ok(()),
                Err(errno) => return Err(failed(errno)),
            };
            let Some(name) = name_below(path, entry.file_name().to_bytes()) else {
                continue;
            };
            let mut size = None;
            let mut kind = entry.file_type();
            if matches!(kind, FileType::RegularFile | FileType::Unknown) {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                match rustix::fs::statat(&folder, entry.file_name(), flags) {
                    Ok(stat) => {
                        kind = FileType::from_raw_mode(stat.st_mode);
                        size = Some(stat.st_size.unsigned_abs());
                    }
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(self.fail("list", name.as_str(), errno)),
                }
            }
            match (kind, size) {
                (FileType::RegularFile, Some(size)) => {
                    found.objects.push(ObjectMeta { name, size });
                }
                (FileType::Directory, _) => found.folders.push(name.as_str().to_owned()),
                // Not following it in silence would hide every object behind it.
                (FileType::Symlink, _) if layout::is_fixed(name.as_str()) => {
                    let link = Walk::Link(name.as_str().to_owned());
                    return Err(self.walk_failed("list", path, &link));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn name_below(path: &str, leaf: &[u8]) -> Option<ObjectName> {
    let leaf = std::str::from_utf8(leaf).ok()?;
    match path {
        "" => ObjectName::parse(leaf),
        _ => ObjectName::parse(&format!("{path}/{leaf}")),
    }
}
