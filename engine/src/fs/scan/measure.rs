//! What a tree amounts to, and how much of it may change when those who write into it are stopped: from
//! what the kernel tells of its inodes, without reading a file.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::FileType;

use super::directory::open_directory;
use super::list::Listing;
use super::stat::Stat;
use crate::fs::in_use::open_for_writing;
use crate::fs::owners::IdKind;
use crate::fs::states::is_settled;

/// Ids that are kept of one tree.
const IDS_MAX: usize = 1000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Entries that are no directories.
    pub files: u64,
    /// What regular files take on disk.
    pub bytes: u64,
    /// Sizes of those that somebody has open for writing, or that changed within the last minute: what
    /// is read again once nobody writes.
    pub bytes_restless: u64,
    /// Owners and groups, as the kernel tells them, each with the first path that has it. Not those in ACLs
    /// and capabilities.
    pub ids: BTreeMap<(IdKind, u32), Vec<u8>>,
}

impl Measured {
    fn meet(&mut self, stat: &Stat, directory: &[u8], name: &[u8]) {
        for id in [(IdKind::User, stat.uid), (IdKind::Group, stat.gid)] {
            if self.ids.len() < IDS_MAX && !self.ids.contains_key(&id) {
                self.ids.insert(id, below(directory, name));
            }
        }
    }

    /// Of another tree; its ids are left out.
    pub fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.bytes_restless += other.bytes_restless;
    }
}

/// Measures a directory's tree, mounts below it left out. What cannot be looked at does not count.
pub fn measure(root: OwnedFd) -> Measured {
    let mut measured = Measured::default();
    let Ok(stat) = Stat::of(&root) else {
        return measured;
    };
    let device = stat.dev;
    measured.meet(&stat, b"", b"");
    let open = open_for_writing();
    let now = crate::clock::now().secs;
    let mut linked = HashSet::new();
    // Opened late: only the way down is open at a time.
    let mut directories = vec![(Arc::new(root), b".".to_vec(), Vec::new())];
    while let Some((parent, name, path)) = directories.pop() {
        let Ok(directory) = open_directory(&parent, &name).map(Arc::new) else {
            continue;
        };
        let Ok((listing, ..)) = Listing::of(&directory) else {
            continue;
        };
        for index in 0..listing.len() {
            let name = listing.entry(index).0;
            let Ok(stat) = Stat::at(&*directory, name) else {
                continue;
            };
            if stat.dev == device {
                measured.meet(&stat, &path, name);
            }
            match stat.kind {
                FileType::Directory if stat.dev == device => {
                    let path = below(&path, name);
                    directories.push((Arc::clone(&directory), name.to_vec(), path));
                    continue;
                }
                FileType::Directory => continue,
                _ => measured.files += 1,
            }
            let counts =
                stat.kind == FileType::RegularFile && (stat.nlink < 2 || linked.insert(stat.ino));
            if counts {
                measured.bytes += (stat.blocks * 512).min(stat.size);
                let rests = is_settled(stat.mtime, stat.ctime, now);
                if !rests || open.contains(&stat.identity()) {
                    measured.bytes_restless += stat.size;
                }
            }
        }
    }
    measured
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory.is_empty() {
        true => name.to_vec(),
        false => [directory, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Write;
    use std::time::{Duration, SystemTime};

    #[test]
    fn what_is_open_for_writing_or_young_is_restless() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("below")).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let write = |name: &str, len: usize| {
            let mut file = File::create(tree.join(name)).unwrap();
            file.write_all(&vec![1; len]).unwrap();
            file.set_modified(old).unwrap();
            file
        };
        drop(write("below/read", 8192));
        let held = write("held", 16384);
        fs::hard_link(tree.join("held"), tree.join("below/held")).unwrap();
        std::os::unix::fs::symlink("held", tree.join("link")).unwrap();
        let measured = measure(File::open(&tree).unwrap().into());
        assert_eq!((measured.files, measured.bytes), (4, 24576));
        // Nobody can set the time of the last change of an inode: all of it is young.
        assert_eq!(measured.bytes_restless, 24576);
        let identity = Stat::of(&held).unwrap().identity();
        assert!(open_for_writing().contains(&identity));
        drop(held);
        let reads = File::open(tree.join("held")).unwrap();
        assert!(!open_for_writing().contains(&identity));
        drop(reads);
    }
}
