//! What a tree amounts to, and how much of it may change when those who write into it are stopped: from
//! what the kernel tells of its inodes, without reading a file.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::FileType;

use super::directory::open_directory;
use super::list::Listing;
use super::stat::Stat;
use crate::fs::in_use::open_for_writing;
use crate::fs::states::is_settled;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Entries that are no directories.
    pub files: u64,
    /// What regular files take on disk.
    pub bytes: u64,
    /// Sizes of those that somebody has open for writing, or that changed within the last minute: what
    /// is read again once nobody writes.
    pub bytes_restless: u64,
}

impl Measured {
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.bytes_restless += other.bytes_restless;
    }
}

/// Measures a directory's tree, mounts below it left out. What cannot be looked at does not count.
pub fn measure(root: OwnedFd) -> Measured {
    let mut measured = Measured::default();
    let Ok(device) = Stat::of(&root).map(|stat| stat.dev) else {
        return measured;
    };
    let open = open_for_writing();
    let now = crate::clock::now().secs;
    let mut linked = HashSet::new();
    // Opened late: only the way down is open at a time.
    let mut directories = vec![(Arc::new(root), b".".to_vec())];
    while let Some((parent, name)) = directories.pop() {
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
            match stat.kind {
                FileType::Directory if stat.dev == device => {
                    directories.push((Arc::clone(&directory), name.to_vec()));
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
