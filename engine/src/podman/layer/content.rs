//! Where the content of a layer's files is.
//!
//! Overlay: in the layer's own `diff`, in `diff1`, `diff2`, ... of copies that were given other
//! owners, and, for a layer that was made from another one as a template, in the layers below.
//! The other drivers keep the whole tree up to a layer in its directory.
//!
//! In a composefs store, in an object with another name ([`LayerObjects`]).
//!
//! A name of the tar is looked up as whatever unpacked it did: cleaned by name alone, then with
//! the layer's directory as the root of the file system. A link `lib -> /usr/lib` of a lower
//! layer leads to `usr/lib` of the same tree, and never to the host's.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::super::storage::{AS_ROOT, INSIDE, LayerId, Root, Storage, StorageDriver, open_file};
use super::super::storage::{StoreListing, StoredLayer};
use super::LayerObjects;

/// `diff1`, `diff2`, ...: one for each id map that a layer was ever used with.
const COPIES_MAX: u32 = 128;
/// Overlay file systems have at most 500 layers.
const LOWERS_MAX: usize = 1000;
/// Bytes of the file that names the layers below: 29 for each.
const LOWER_BYTES_MAX: usize = 64 << 10;

/// Of a layer in a composefs store, in the layer's folder: the image that gives its objects their names.
pub(in crate::podman) const COMPOSEFS_FOLDER: &str = "composefs-data";

/// Why there are no directories to look into.
pub(in crate::podman) enum NoContent {
    /// The layer's own directory is not there.
    Missing,
    /// Its files lie in an object store that has other names, and the list of them cannot be read.
    Composefs,
    /// Its data set is not mounted, and its name is not known.
    NotMounted,
    Unreadable {
        object: String,
        errno: Errno,
    },
}

/// Directories to look into, in order.
pub(in crate::podman) struct Content {
    storage: Storage,
    own: Vec<OwnedFd>,
    /// What is in the first of them has other names.
    objects: Option<LayerObjects>,
    /// Opened when the first file is not found above.
    lowers: Vec<Lower>,
}

enum Lower {
    NotTried(LayerId),
    Open(OwnedFd),
    Missing,
}

impl Content {
    pub fn open(
        storage: &Storage,
        listing: &StoreListing,
        layer: &StoredLayer,
    ) -> Result<Self, NoContent> {
        let folder = storage.driver().layer_folder(layer.id);
        let content = |own, lowers| Self {
            storage: storage.clone(),
            own,
            objects: None,
            lowers,
        };
        let whole_tree = match storage.driver() {
            StorageDriver::Overlay => None,
            StorageDriver::Vfs | StorageDriver::Btrfs => {
                Some(find_folder(storage, layer, &folder)?.1)
            }
            StorageDriver::Zfs => Some(data_set_of(storage, layer, &folder)?),
        };
        if let Some(directory) = whole_tree {
            return Ok(content(vec![directory], Vec::new()));
        }
        let (root, _) = find_folder(storage, layer, &folder)?;
        let blob = format!("{folder}/{COMPOSEFS_FOLDER}");
        match root.exists(&blob) {
            Ok(false) => {}
            Ok(true) => {
                let objects = LayerObjects::of(root, layer).map_err(|_| NoContent::Composefs)?;
                let place = format!("{folder}/diff");
                let directory = match root.directory(&place) {
                    Err(Errno::NOENT) => return Err(NoContent::Missing),
                    opened => opened.map_err(|errno| failed(root, &place, errno))?,
                };
                return Ok(Self {
                    objects: Some(objects),
                    ..content(vec![directory], Vec::new())
                });
            }
            Err(errno) => return Err(failed(root, &blob, errno)),
        }
        let mut own = Vec::new();
        for number in 0..=COPIES_MAX {
            let diff = match number {
                0 => format!("{folder}/diff"),
                number => format!("{folder}/diff{number}"),
            };
            match root.directory(&diff) {
                Ok(directory) => own.push(directory),
                Err(Errno::NOENT) if number == 0 => return Err(NoContent::Missing),
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(failed(root, &diff, errno)),
            }
        }
        let lowers = lowers(root, &folder, listing, layer);
        let lowers = lowers.into_iter().map(Lower::NotTried).collect();
        Ok(content(own, lowers))
    }

    /// The layer's own directory, with its files under their names.
    pub fn into_top(mut self) -> Result<OwnedFd, NoContent> {
        match self.objects {
            None => Ok(self.own.swap_remove(0)),
            Some(_) => Err(NoContent::Composefs),
        }
    }

    pub fn has_objects(&self) -> bool {
        self.objects.is_some()
    }

    /// The regular file that a tar calls `name`, and its size. What is wrong is told of the first
    /// directory that has anything of the name.
    pub fn file(&mut self, name: &[u8]) -> Result<(File, u64), Errno> {
        if let Some(objects) = &self.objects {
            let place = objects.place(name).ok_or(Errno::NOENT)?;
            return open_file(&self.own[0], place.as_bytes(), INSIDE);
        }
        let path = clean(name);
        let mut wrong = Errno::NOENT;
        for directory in &self.own {
            match open_file(directory, &path, AS_ROOT) {
                Err(errno) if is_absent(errno) => wrong = first(wrong, errno),
                other => return other,
            }
        }
        for lower in &mut self.lowers {
            if let Lower::NotTried(id) = *lower {
                *lower = match lower_folder(&self.storage, id) {
                    Some(directory) => Lower::Open(directory),
                    None => Lower::Missing,
                };
            }
            let Lower::Open(directory) = lower else {
                continue;
            };
            match open_file(&*directory, &path, AS_ROOT) {
                Err(errno) if is_absent(errno) => wrong = first(wrong, errno),
                other => return other,
            }
        }
        Err(wrong)
    }
}

/// Whether another directory may have the file: there is nothing of its name, or something else
/// than a file.
fn is_absent(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL
    )
}

fn first(known: Errno, errno: Errno) -> Errno {
    match known {
        Errno::NOENT => errno,
        known => known,
    }
}

/// The first store that has the layer's directory.
fn find_folder<'a>(
    storage: &'a Storage,
    layer: &StoredLayer,
    folder: &str,
) -> Result<(&'a Root, OwnedFd), NoContent> {
    for root in storage.roots_from(layer.origin) {
        match root.directory(folder) {
            Ok(directory) => return Ok((root, directory)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(root, folder, errno)),
        }
    }
    Err(NoContent::Missing)
}

/// The layers below an overlay layer, the topmost first: those that the driver mounts, then those
/// that the store lists. Each is a hint of its own: `lower` names links, which are lost in a
/// power cut before anything else is, and a layer made from a template has others than listed.
fn lowers(root: &Root, folder: &str, listing: &StoreListing, layer: &StoredLayer) -> Vec<LayerId> {
    let mut found: Vec<LayerId> = Vec::new();
    // Without it the layer is a bottom one, or damaged: what is looked for will be missing.
    let lower = root
        .read(&format!("{folder}/lower"), LOWER_BYTES_MAX)
        .unwrap_or_default();
    for name in lower.split(|byte| *byte == b':').take(LOWERS_MAX) {
        if let Some(id) = linked_layer(root, name)
            && !found.contains(&id)
        {
            found.push(id);
        }
    }
    let mut next = layer.parent;
    // A chain without end is refused where the image is read; here it only is not followed on.
    for _ in 0..LOWERS_MAX {
        let Some(parent) = next else { break };
        if !found.contains(&parent) {
            found.push(parent);
        }
        next = listing.layers.get(&parent).and_then(|layer| layer.parent);
    }
    found
}

/// The layer that `l/NAME` is a link to: `../ID/diff`.
fn linked_layer(root: &Root, name: &[u8]) -> Option<LayerId> {
    let name = std::str::from_utf8(name).ok()?.strip_prefix("l/")?;
    if name.contains('/') || name.starts_with('.') {
        return None;
    }
    let target = root.link(&format!("overlay/l/{name}")).ok()?;
    let target = std::str::from_utf8(&target).ok()?;
    LayerId::from_hex(target.strip_prefix("../")?.strip_suffix("/diff")?)
}

/// A layer below that cannot be opened is as good as missing: what it would have held is.
fn lower_folder(storage: &Storage, id: LayerId) -> Option<OwnedFd> {
    let folder = format!("{}/diff", storage.driver().layer_folder(id));
    storage
        .stores()
        .find_map(|root| root.directory(&folder).ok())
}

/// The root of a layer's data set: where Podman has it mounted, or else mounted for this reader alone.
fn data_set_of(storage: &Storage, layer: &StoredLayer, folder: &str) -> Result<OwnedFd, NoContent> {
    match find_folder(storage, layer, folder) {
        Ok((root, directory)) => match is_mounted(&directory) {
            Ok(true) => return Ok(directory),
            Ok(false) => {}
            Err(errno) => return Err(failed(root, folder, errno)),
        },
        // The mount point is made for the mount.
        Err(NoContent::Missing) => {}
        Err(error) => return Err(error),
    }
    match storage.layer_data_set(layer.id) {
        Some((_, Ok(directory))) => Ok(directory),
        Some((_, Err(Errno::NOENT))) => Err(NoContent::Missing),
        Some((name, Err(errno))) => Err(NoContent::Unreadable {
            object: format!("data set {name}"),
            errno,
        }),
        None => Err(NoContent::NotMounted),
    }
}

/// Whether another file system begins here than at the directory above.
fn is_mounted(directory: &OwnedFd) -> Result<bool, Errno> {
    let here = rustix::fs::fstat(directory)?;
    let above = rustix::fs::statat(directory, c"..", rustix::fs::AtFlags::empty())?;
    Ok(here.st_dev != above.st_dev)
}

fn failed(root: &Root, below: &str, errno: Errno) -> NoContent {
    NoContent::Unreadable {
        object: root.name(below),
        errno,
    }
}

/// A name by its components alone: no empty ones, no `.`, and `..` takes the one before it away.
pub(in crate::podman) fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    match parts.is_empty() {
        true => b".".to_vec(),
        false => parts.join(&b'/'),
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn a_name_is_cleaned_without_looking_at_files() {
        for (name, cleaned) in [
            (&b"./usr//lib/./x"[..], &b"usr/lib/x"[..]),
            (b"/etc/passwd", b"etc/passwd"),
            (b"a/../../../b", b"b"),
            (b"..", b"."),
            (b"", b"."),
            (b"\xff/..x", b"\xff/..x"),
        ] {
            assert_eq!(clean(name), cleaned);
        }
    }
}
