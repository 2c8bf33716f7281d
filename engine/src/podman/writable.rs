//! A container's writable layer: what it has otherwise than its image.
//!
//! The overlay driver keeps just that, in the upper directory of the mount. Other drivers keep a
//! whole root for each container, which is compared with the one of the layer below, entry by
//! entry and byte by byte. Podman's own comparison is not used: it loses names that are not UTF-8,
//! and takes a file for unchanged whose size and second are.
//!
//! Source: containers/storage `containers.go`, `drivers/overlay`, `drivers/vfs`, `drivers/btrfs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::Deserialize;

use super::files::read_file;
use super::storage::{INSIDE, StorageDriver, StoragePlaces, open_below};
use crate::fs::attributes::xattrs_of_entry;

/// Bytes of containers.json, and of layers.json.
const LIST_BYTES_MAX: usize = 256 << 20;
/// Entries that two roots may have otherwise.
const DIFFERENCES_MAX: usize = 10_000_000;
/// Entries of an upper directory that are looked at for what only its own mount understands.
const ENTRIES_MAX: usize = 50_000_000;
const PART_BYTES: usize = 256 << 10;
/// Of a file that is only a new name or mode of one in the image.
const UNRESOLVED: [&str; 2] = ["trusted.overlay.redirect", "trusted.overlay.metacopy"];

/// Where a container's own files are.
pub enum WritableLayer {
    /// The upper directory of an overlay mount.
    Upper(OwnedFd),
    /// A whole root, and what of it is the container's own.
    Compared { root: OwnedFd, changes: Changes },
}

/// What one root has otherwise than another. Paths are below the root, without a slash in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Added or changed, with all directories above them.
    pub changed: BTreeSet<Vec<u8>>,
    /// Removed: by the directory that they were in.
    pub removed: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

/// Finds the writable layer of a container. `Ok(None)`: it is gone. Errors are in words.
pub fn writable_layer(places: &StoragePlaces, id: &str) -> Result<Option<WritableLayer>, String> {
    let Some(layer) = layer_of(places, id)? else {
        return Ok(None);
    };
    let below = place_below(places.driver, &layer)?;
    let root = match directory(&places.graph_root.join(below)) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(in_words("open its writable layer", errno)),
    };
    if places.driver == StorageDriver::Overlay {
        if let Some(path) = unresolved(&root)? {
            return Err(format!(
                "{} is only a new name or new attributes of a file of its image \
                 (redirect_dir or metacopy), which podkeep does not resolve",
                podkeep_format::item::Escaped(&path)
            ));
        }
        return Ok(Some(WritableLayer::Upper(root)));
    }
    let parent = parent_of(places, &layer)?;
    let below = place_below(places.driver, &parent)?;
    let stores = places.image_store.iter().chain([&places.graph_root]);
    let image = stores
        .chain(&places.additional_stores)
        .find_map(|store| directory(&store.join(&below)).ok())
        .ok_or_else(|| format!("the layer {parent} that it is made of is not there"))?;
    let snapshot = places.driver == StorageDriver::Btrfs;
    let changes = compare(&image, &root, snapshot)?;
    Ok(Some(WritableLayer::Compared { root, changes }))
}

/// Where a container's own files go while nothing has it mounted.
pub enum LayerPlace {
    /// The upper directory of an overlay mount: it holds what the container has otherwise than its image.
    Upper(PathBuf),
    /// A whole root, which already has what its image has.
    Root(PathBuf),
}

/// Finds the layer of a container that was made and never started. `None`: there is no such container.
pub fn layer_place(places: &StoragePlaces, id: &str) -> Result<Option<LayerPlace>, String> {
    let Some(layer) = layer_of(places, id)? else {
        return Ok(None);
    };
    let path = places.graph_root.join(place_below(places.driver, &layer)?);
    Ok(Some(match places.driver {
        StorageDriver::Overlay => LayerPlace::Upper(path),
        _ => LayerPlace::Root(path),
    }))
}

/// The directory of a layer, below the graph root.
fn place_below(driver: StorageDriver, layer: &str) -> Result<String, String> {
    match driver {
        StorageDriver::Overlay => Ok(format!("overlay/{layer}/diff")),
        StorageDriver::Vfs => Ok(format!("vfs/dir/{layer}")),
        StorageDriver::Btrfs => Ok(format!("btrfs/subvolumes/{layer}")),
        StorageDriver::Zfs => Err("the driver zfs has it mounted only while it runs".into()),
    }
}

/// The layer of a container, by containers.json or by its list of those that do not last.
fn layer_of(places: &StoragePlaces, id: &str) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
        #[serde(default)]
        layer: String,
    }
    let folder = format!("{}-containers", places.driver.word());
    let root = match places.transient {
        true => &places.run_root,
        false => &places.graph_root,
    };
    for name in ["containers.json", "volatile-containers.json"] {
        let path = root.join(&folder).join(name);
        let listed: Vec<Listed> = list(&path)?;
        if let Some(found) = listed.into_iter().find(|listed| listed.id == id) {
            return layer_id(found.layer).map(Some);
        }
    }
    Ok(None)
}

fn parent_of(places: &StoragePlaces, layer: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
        #[serde(default)]
        parent: String,
    }
    let folder = format!("{}-layers", places.driver.word());
    let roots = [&places.graph_root, &places.run_root];
    for root in roots {
        for name in ["layers.json", "volatile-layers.json"] {
            let listed: Vec<Listed> = list(&root.join(&folder).join(name))?;
            if let Some(found) = listed.into_iter().find(|listed| listed.id == layer) {
                return layer_id(found.parent);
            }
        }
    }
    Err(format!("the store has no record of its layer {layer}"))
}

fn list<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Vec<T>, String> {
    let bytes = match read_file(path, LIST_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let listed: Result<Option<Vec<T>>, _> = serde_json::from_slice(&bytes);
    let listed = listed.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(listed.unwrap_or_default())
}

/// An ID becomes part of a path.
fn layer_id(id: String) -> Result<String, String> {
    match podkeep_format::id::unhex::<32>(&id).is_some() {
        true => Ok(id),
        false => Err("the store gives its layer an ID that no layer has".into()),
    }
}

fn directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn open_directory(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match path {
        b"" => rustix::fs::openat(root, c".", flags, Mode::empty()),
        path => open_below(root, path, flags, INSIDE),
    }
}

fn in_words(action: &str, errno: Errno) -> String {
    format!("cannot {action}: {}", std::io::Error::from(errno))
}

/// The first entry of an upper directory whose content or name is elsewhere.
fn unresolved(root: &OwnedFd) -> Result<Option<Vec<u8>>, String> {
    let mut open = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let fd = match open_directory(root, &path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return Err(in_words("list its writable layer", errno)),
        };
        for (name, kind) in names(&fd).map_err(|e| in_words("list its writable layer", e))? {
            seen += 1;
            if seen > ENTRIES_MAX {
                return Err(format!("its writable layer has over {ENTRIES_MAX} entries"));
            }
            let below = join(&path, &name);
            if matches!(kind, FileType::RegularFile | FileType::Directory) {
                let attributes = xattrs_of_entry(fd.as_fd(), &name).unwrap_or_default();
                let is_unresolved = |name: &[u8]| UNRESOLVED.iter().any(|u| u.as_bytes() == name);
                if attributes.iter().any(|(name, _)| is_unresolved(name)) {
                    return Ok(Some(below));
                }
            }
            if kind == FileType::Directory {
                open.push(below);
            }
        }
    }
    Ok(None)
}

/// What `root` has otherwise than `image`. `snapshot`: it was made of it by the file system, so that
/// an inode with the same change time is the same.
fn compare(image: &OwnedFd, root: &OwnedFd, snapshot: bool) -> Result<Changes, String> {
    let wrong = |errno| in_words("compare its files with its image's", errno);
    let mut changes = Changes::default();
    let mut count = 0;
    let mut open: Vec<(Vec<u8>, bool)> = vec![(Vec::new(), true)];
    while let Some((path, in_both)) = open.pop() {
        let own = match open_directory(root, &path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return Err(wrong(errno)),
        };
        let theirs = match in_both {
            true => Some(open_directory(image, &path).map_err(wrong)?),
            false => None,
        };
        let mut before = match &theirs {
            Some(theirs) => names(theirs).map_err(wrong)?,
            None => BTreeMap::new(),
        };
        for (name, kind) in names(&own).map_err(wrong)? {
            let below = join(&path, &name);
            let was = before.remove(&name);
            let equal = match (&theirs, was) {
                (Some(theirs), Some(was)) if was == kind => {
                    equal(theirs, &own, &name, snapshot).map_err(wrong)?
                }
                _ => false,
            };
            if kind == FileType::Directory {
                open.push((below.clone(), was == Some(FileType::Directory)));
            }
            if !equal {
                count += 1;
                changes.add(&below);
            }
        }
        if !before.is_empty() {
            count += before.len();
            changes.add(&path);
            changes.removed.insert(path, before.into_keys().collect());
        }
        if count > DIFFERENCES_MAX {
            return Err(format!("it has over {DIFFERENCES_MAX} files of its own"));
        }
    }
    Ok(changes)
}

impl Changes {
    /// A path and all directories above it.
    fn add(&mut self, path: &[u8]) {
        let mut path = path;
        while !path.is_empty() && self.changed.insert(path.to_vec()) {
            let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            path = &path[..end];
        }
    }
}

/// Whether an entry of two directories, of one type, is the same in both.
fn equal(a: &OwnedFd, b: &OwnedFd, name: &[u8], snapshot: bool) -> Result<bool, Errno> {
    let stat = |fd: &OwnedFd| rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW);
    let (before, after) = match (stat(a), stat(b)) {
        (Ok(before), Ok(after)) => (before, after),
        // It goes while it is looked at: no more a part of the image than of the container.
        (_, Err(Errno::NOENT)) => return Ok(true),
        (Err(errno), _) | (_, Err(errno)) => return Err(errno),
    };
    let kind = FileType::from_raw_mode(after.st_mode);
    if !same_attributes(&before, &after, kind) {
        return Ok(false);
    }
    let change = |stat: &Stat| (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec);
    if snapshot && change(&before) == change(&after) {
        return Ok(true);
    }
    if xattrs_of_entry(a.as_fd(), name)? != xattrs_of_entry(b.as_fd(), name)? {
        return Ok(false);
    }
    match kind {
        FileType::RegularFile => same_content(a, b, name),
        FileType::Symlink => {
            let target = |fd: &OwnedFd| rustix::fs::readlinkat(fd, name, Vec::new());
            Ok(target(a)? == target(b)?)
        }
        _ => Ok(true),
    }
}

fn same_attributes(a: &Stat, b: &Stat, kind: FileType) -> bool {
    let owner = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
    let sized = matches!(kind, FileType::RegularFile | FileType::Symlink);
    let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    // One that has another name now belongs to it: the two are kept as one.
    let named = kind != FileType::Directory;
    owner(a) == owner(b)
        && time(a) == time(b)
        && (!named || a.st_nlink == b.st_nlink)
        && (!sized || a.st_size == b.st_size)
        && (!device || a.st_rdev == b.st_rdev)
}

fn same_content(a: &OwnedFd, b: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |fd: &OwnedFd| rustix::fs::openat(fd, name, flags, Mode::empty());
    let (mut a, mut b) = (File::from(open(a)?), File::from(open(b)?));
    let (mut left, mut right) = (vec![0; PART_BYTES], vec![0; PART_BYTES]);
    let fill = |file: &mut File, part: &mut [u8]| -> Result<usize, Errno> {
        let mut filled = 0;
        while filled < part.len() {
            match file.read(&mut part[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
        Ok(filled)
    };
    loop {
        let (read, also) = (fill(&mut a, &mut left)?, fill(&mut b, &mut right)?);
        if left[..read] != right[..also] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

/// The names of a directory and what they are.
fn names(fd: &OwnedFd) -> Result<BTreeMap<Vec<u8>, FileType>, Errno> {
    let mut names = BTreeMap::new();
    for entry in rustix::fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            },
            kind => kind,
        };
        names.insert(name.to_vec(), kind);
    }
    Ok(names)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        b"" => name.to_vec(),
        path => [path, b"/", name].concat(),
    }
}

/// What Podman puts into the root of each container itself, and mounts over: paths below it.
pub fn mounted_over(config: &serde_json::Map<String, serde_json::Value>) -> Vec<PathBuf> {
    let own = |field: &str| config.get(field).and_then(serde_json::Value::as_bool) == Some(true);
    let mut paths = vec!["etc/mtab", "run/.containerenv", "run/secrets"];
    for (path, field) in [
        ("etc/hosts", "UseImageHosts"),
        ("etc/resolv.conf", "UseImageResolvConf"),
        ("etc/hostname", "useImageHostname"),
    ] {
        if !own(field) {
            paths.push(path);
        }
    }
    paths.into_iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn set_time(path: &Path) {
        let file = File::open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }

    #[test]
    fn roots_are_compared_by_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let (image, own) = (folder.path().join("a"), folder.path().join("b"));
        for root in [&image, &own] {
            std::fs::create_dir_all(root.join("etc/deep")).unwrap();
            std::fs::create_dir_all(root.join("gone/x")).unwrap();
            for name in ["etc/same", "etc/content", "etc/mode", "etc/removed"] {
                std::fs::write(root.join(name), "0123").unwrap();
                set_time(&root.join(name));
            }
            symlink("x", root.join("link")).unwrap();
        }
        std::fs::write(own.join("etc/content"), "4567").unwrap();
        set_time(&own.join("etc/content"));
        std::fs::remove_file(own.join("etc/removed")).unwrap();
        std::fs::remove_dir_all(own.join("gone")).unwrap();
        std::fs::hard_link(own.join("etc/same"), own.join("etc/also")).unwrap();
        std::fs::create_dir(own.join("new")).unwrap();
        std::fs::write(own.join("new/file"), "").unwrap();
        for (path, _) in [("etc", 0), ("etc/deep", 0), ("", 0)] {
            set_time(&image.join(path));
            set_time(&own.join(path));
        }
        let lmode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(own.join("etc/mode"), lmode).unwrap();
        let changes = compare(
            &directory(&image).unwrap(),
            &directory(&own).unwrap(),
            false,
        );
        let changes = changes.unwrap();
        let changed: Vec<String> = changes
            .changed
            .iter()
            .map(|path| String::from_utf8(path.clone()).unwrap())
            .filter(|path| path != "link")
            .collect();
        assert_eq!(
            changed,
            [
                "etc",
                "etc/also",
                "etc/content",
                "etc/mode",
                "etc/same",
                "new",
                "new/file"
            ]
        );
        let removed = |path: &str| changes.removed[path.as_bytes()].len();
        assert_eq!((removed("etc"), removed("")), (1, 1));
    }

    #[test]
    fn the_layer_of_a_container_is_found_in_either_list() {
        let folder = tempfile::tempdir().unwrap();
        let places = StoragePlaces {
            driver: StorageDriver::Overlay,
            graph_root: folder.path().to_owned(),
            run_root: folder.path().join("run"),
            image_store: None,
            additional_stores: Vec::new(),
            transient: false,
            data_set: None,
        };
        let lists = folder.path().join("overlay-containers");
        std::fs::create_dir(&lists).unwrap();
        let layer = "ab".repeat(32);
        let text = format!(r#"[{{"id":"x","layer":"{layer}"}},{{"id":"y","layer":"../.."}}]"#);
        std::fs::write(lists.join("volatile-containers.json"), text).unwrap();
        assert_eq!(layer_of(&places, "x").unwrap(), Some(layer.clone()));
        assert_eq!(layer_of(&places, "z").unwrap(), None);
        assert!(layer_of(&places, "y").is_err());
        assert!(writable_layer(&places, "x").unwrap().is_none());
        std::fs::create_dir_all(folder.path().join("overlay").join(&layer).join("diff")).unwrap();
        let found = writable_layer(&places, "x").unwrap();
        assert!(matches!(found, Some(WritableLayer::Upper(_))));
        std::fs::write(lists.join("containers.json"), "{").unwrap();
        assert!(layer_of(&places, "x").is_err());
    }
}
