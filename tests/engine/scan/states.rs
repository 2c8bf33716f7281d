//! File states: what an unchanged tree costs, and that nothing but speed depends on them.
//!
//! A state is trusted only when the inode's ctime was a minute old, and no call sets a ctime:
//! the trees lie in an image whose inodes are aged between two mounts.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use podkeep_engine::fs::Writers;
use podkeep_engine::fs::in_use::{MappedFiles, shared_writable};
use podkeep_engine::fs::scan::{ScanSpec, ScanStates, scan, scan_again};
use podkeep_engine::fs::states::published;
use podkeep_engine::monitor::FindingKind;
use podkeep_format::id::SnapshotId;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};

use super::links::Mounted;
use super::support::{Place, Tree, chunking_of, drain, noise, read, read_spec, spec};

fn snapshot(number: u8) -> SnapshotId {
    SnapshotId([number; 32])
}

#[expect(clippy::disallowed_methods, reason = "these programs make the fixture")]
fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("run {program}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("feed the program");
    drop(stdin);
    let done = child.wait_with_output().expect("wait for the program");
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{program}: {stderr}");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// An ext4 image on a loop device.
pub struct Image {
    device: String,
    mounted: Option<Mounted>,
    pub tree: PathBuf,
    states: PathBuf,
    _place: Place,
}

impl Image {
    fn new() -> Self {
        let place = Place::new();
        let image = place.beside("image");
        fs::File::create(&image)
            .and_then(|file| file.set_len(48 << 20))
            .expect("make an image");
        let image = image.to_str().expect("a path of text");
        run("mkfs.ext4", &["-q", "-b", "4096", "-I", "256", image], "");
        let device = run("losetup", &["--find", "--show", image], "");
        let mut new = Self {
            device,
            mounted: None,
            tree: place.at("mount").join("tree"),
            states: place.beside("states"),
            _place: place,
        };
        fs::create_dir(new.mount_point()).expect("make a mount point");
        new.mount();
        fs::create_dir(&new.tree).expect("make the tree");
        new
    }

    fn mount_point(&self) -> PathBuf {
        self.tree.with_file_name("")
    }

    fn mount(&mut self) {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount(&self.device, self.mount_point(), "ext4", flags, None)
            .expect("mount the image");
        self.mounted = Some(Mounted(self.mount_point()));
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.tree.join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.at(name), content).expect("write");
    }

    /// A tree with some of everything, all of it old.
    pub fn filled() -> Self {
        let mut new = Self::new();
        for dir in ["a/b", "c", "gone/deep/er"] {
            fs::create_dir_all(new.at(dir)).expect("make a directory");
        }
        for file in 0..30 {
            new.write(&format!("a/{file}"), &noise(file, 3000));
            new.write(&format!("a/b/{file}"), &noise(100 + file, 10));
        }
        new.write("gone/deep/er/file", b"x");
        new.write("c/large", &noise(1, 5 << 20));
        fs::hard_link(new.at("a/7"), new.at("c/linked")).expect("link");
        for sparse in ["c/sparse", "c/sparse-linked"] {
            let file = fs::File::create(new.at(sparse)).expect("create");
            file.set_len(9 << 20).expect("set the length");
        }
        fs::hard_link(new.at("c/sparse-linked"), new.at("a/sparse-linked")).expect("link");
        symlink("target", new.at("c/symlink")).expect("a link");
        let empty = XattrFlags::empty();
        rustix::fs::setxattr(new.at("a/3"), "user.x", noise(9, 900).as_slice(), empty)
            .expect("set an attribute");
        rustix::fs::setxattr(new.at("a"), "user.of", b"a directory", empty).expect("set");
        new.age();
        new
    }

    /// Sets mtime and ctime of everything far back.
    fn age(&mut self) {
        self.age_fields(&["ctime", "mtime"]);
    }

    fn age_fields(&mut self, fields: &[&str]) {
        let mut names = Vec::new();
        let mut open = vec![self.tree.clone()];
        while let Some(path) = open.pop() {
            let meta = fs::symlink_metadata(&path).expect("stat");
            names.push(meta.ino());
            if meta.is_dir() {
                let entries = fs::read_dir(&path).expect("list");
                open.extend(entries.map(|entry| entry.expect("an entry").path()));
            }
        }
        self.mounted = None;
        let old = 1_600_000_000;
        let mut script = String::new();
        for inode in names {
            for field in fields {
                script += &format!("set_inode_field <{inode}> {field} @{old}\n");
            }
        }
        run("debugfs", &["-w", "-f", "-", &self.device], &script);
        self.mount();
    }

    pub fn scan(&self, trusted: Option<u8>) -> Tree {
        self.scan_with(trusted, MappedFiles::new(), |_| {})
    }

    fn scan_with(
        &self,
        trusted: Option<u8>,
        always_read: MappedFiles,
        adjust: impl FnOnce(&mut ScanSpec),
    ) -> Tree {
        let mut spec = spec(&self.tree);
        spec.states = Some(ScanStates {
            directory: self.states.clone(),
            trusted: trusted.map(snapshot),
            always_read,
        });
        adjust(&mut spec);
        read_spec(spec)
    }

    /// The second reading of a run.
    pub fn scan_at_rest(&self, trusted: Option<u8>) -> Tree {
        let spec = spec_with(self, trusted);
        let chunking = spec.chunking.clone();
        let scan = scan_again(spec, Writers::Rest).expect("the scan starts");
        drain(scan, &chunking).expect("the scan ends")
    }

    pub fn publish(&self, number: u8) {
        published(&self.states, "volume:test", snapshot(number)).expect("merge the states");
    }

    /// Key and row number: a row that is written again gets a new number.
    fn rows(&self) -> HashSet<(Vec<u8>, i64)> {
        let database = self.database();
        let mut statement = database
            .prepare("SELECT key, rowid FROM directory")
            .expect("prepare");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.expect("query")
            .map(|row| row.expect("a row"))
            .collect()
    }

    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.states.join("states.sqlite")).expect("open the states")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.mounted = None;
        run("losetup", &["--detach", &self.device], "");
    }
}

#[test]
fn an_unchanged_tree_is_not_read() {
    let image = Image::filled();
    let plain = read(&image.tree);
    let first = image.scan(None);
    assert_eq!(first.outcome, plain.outcome);
    assert!(first.bytes_read > 5 << 20);
    image.publish(1);
    let rows = image.rows();
    assert_eq!(rows.len() as u64, first.outcome.directories);

    let second = image.scan(Some(1));
    second.assert_clean();
    assert_eq!(second.outcome, plain.outcome);
    assert_eq!((second.bytes_read, second.data_bytes), (0, 0));
    image.publish(2);
    assert_eq!(image.rows(), rows, "unchanged rows were written again");
    assert_eq!(image.scan(Some(2)).bytes_read, 0);
}

#[test]
fn only_what_changed_is_read_and_recorded() {
    let mut image = Image::filled();
    image.scan(None);
    image.publish(1);
    let rows = image.rows();
    image.write("a/5", b"another content");
    image.age();
    // Changed in all ways that leave size and mtime alone.
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(image.at("a/b/6"), mode).expect("chmod");
    rustix::fs::setxattr(image.at("a/b/8"), "user.y", b"1", XattrFlags::empty()).expect("set");

    let changed = image.scan(Some(1));
    changed.assert_clean();
    assert_eq!(changed.outcome, read(&image.tree).outcome);
    assert_eq!(changed.bytes_read, 15 + 10 + 10);
    assert_eq!(changed.content("a/5"), b"another content");
    image.publish(2);
    assert_eq!(image.rows().difference(&rows).count(), 2);

    // The young ones are read again until they are old.
    let third = image.scan(Some(2));
    assert_eq!(third.bytes_read, 10 + 10);
    image.publish(3);
    image.age();
    assert_eq!(image.scan(Some(3)).bytes_read, 10 + 10);
    image.publish(4);
    assert_eq!(image.scan(Some(4)).bytes_read, 0);
}

#[test]
fn f_37_a_change_of_the_same_size_in_the_same_moment() {
    let place = Place::new();
    let states = place.beside("states");
    let mut trusted = None;
    for round in 0..50u8 {
        for content in [b"A", b"B"] {
            place.write("file", &[content.as_slice(), &[round]].concat());
            let mut spec = spec(&place.path);
            spec.states = Some(ScanStates {
                directory: states.clone(),
                trusted,
                always_read: MappedFiles::new(),
            });
            let tree = read_spec(spec);
            assert_eq!(tree.content("file"), [content[0], round]);
            trusted = Some(snapshot(round));
            published(&states, "volume:test", snapshot(round)).expect("publish");
        }
    }
}

#[test]
fn removed_and_renamed_directories_leave_no_rows() {
    let image = Image::filled();
    image.scan(None);
    image.publish(1);
    let before = image.rows().len();
    fs::remove_dir_all(image.at("gone")).expect("remove");
    fs::rename(image.at("a/b"), image.at("c/moved")).expect("rename");
    let tree = image.scan(Some(1));
    tree.assert_clean();
    assert_eq!(tree.outcome, read(&image.tree).outcome);
    image.publish(2);
    assert_eq!(image.rows().len(), before - 3);
    assert_eq!(image.rows().len() as u64, tree.outcome.directories);
    // A row of the moved directory was made for its new path.
    let again = image.scan(Some(2));
    assert_eq!(again.outcome, tree.outcome);
    assert_eq!(again.bytes_read, 0);
}

#[test]
fn f_11_links_that_come_and_go_change_all_their_names() {
    let mut image = Image::filled();
    image.scan(None);
    image.publish(1);
    fs::hard_link(image.at("a/7"), image.at("a/b/aaa")).expect("link");
    image.age();
    let tree = image.scan(Some(1));
    assert_eq!(tree.outcome, read(&image.tree).outcome);
    let group = tree.entry("a/7").link;
    assert!(group.is_some());
    assert_eq!(tree.entry("c/linked").link, group);
    assert_eq!(tree.entry("a/b/aaa").link, group);
    assert_eq!(tree.bytes_read, 3000);
    image.publish(2);
    for name in ["a/b/aaa", "c/linked"] {
        fs::remove_file(image.at(name)).expect("remove");
    }
    image.age();
    let tree = image.scan(Some(2));
    assert_eq!(tree.entry("a/7").link, None);
    assert_eq!(tree.outcome, read(&image.tree).outcome);
}

#[test]
fn e_19_states_that_are_stale_foreign_or_of_a_killed_run() {
    let image = Image::filled();
    let expected = read(&image.tree);
    image.scan(None);
    image.publish(1);
    // Of another snapshot than the caller trusts.
    let stale = image.scan(Some(9));
    assert_eq!(stale.outcome, expected.outcome);
    assert_eq!(stale.bytes_read, expected.bytes_read);
    // That scan was never published, and one that is dropped leaves nothing either.
    drop(scan(spec_with(&image, Some(1))).expect("start"));
    assert_eq!(image.scan(Some(1)).bytes_read, 0);
    // Of another repository: the ids of its chunks mean nothing here.
    let foreign = image.scan_with(Some(1), MappedFiles::new(), |spec| {
        spec.chunking = chunking_of(77);
    });
    assert_eq!(foreign.bytes_read, expected.bytes_read);
    // Of another item.
    let other = image.scan_with(Some(1), MappedFiles::new(), |spec| {
        spec.item = "volume:other".to_owned();
    });
    assert_eq!(other.bytes_read, expected.bytes_read);
    assert_eq!(image.scan(Some(1)).outcome, expected.outcome);
}

fn spec_with(image: &Image, trusted: Option<u8>) -> ScanSpec {
    let mut spec = spec(&image.tree);
    spec.states = Some(ScanStates {
        directory: image.states.clone(),
        trusted: trusted.map(snapshot),
        always_read: MappedFiles::new(),
    });
    spec
}

#[test]
fn e_19_a_publication_that_follows_no_scan_changes_nothing() {
    let image = Image::filled();
    image.scan(None);
    image.publish(1);
    image.publish(2);
    assert_eq!(image.scan(Some(1)).bytes_read, 0);
    // A pending file that was cut off is thrown away.
    image.scan(None);
    let pending = pending_file(&image.states);
    let bytes = fs::read(&pending).expect("read the pending rows");
    fs::write(&pending, &bytes[..bytes.len() - 1]).expect("cut it");
    image.publish(3);
    assert!(!pending.exists());
    assert_eq!(image.scan(Some(1)).bytes_read, 0);
    assert!(image.scan(Some(3)).bytes_read > 0);
}

fn pending_file(states: &Path) -> PathBuf {
    let entries = fs::read_dir(states).expect("list the states");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .find(|path| path.extension().is_some_and(|end| end == "pending"))
        .expect("pending rows")
}

#[test]
fn e_19_damaged_states_are_made_anew() {
    let image = Image::filled();
    let expected = read(&image.tree).outcome;
    image.scan(None);
    image.publish(1);
    let path = image.states.join("states.sqlite");
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(1000),
        |bytes| bytes[..100].fill(0xff),
        |bytes| {
            bytes
                .iter_mut()
                .skip(200)
                .step_by(97)
                .for_each(|byte| *byte ^= 0x10)
        },
        |bytes| *bytes = b"not a database at all, but long enough to be looked at\n".repeat(100),
    ];
    let mut number = 1;
    for (index, damage) in damages.into_iter().enumerate() {
        // All of it in the main file.
        let database = image.database();
        database
            .pragma_update(None, "wal_checkpoint", "truncate")
            .expect("checkpoint");
        drop(database);
        let mut bytes = fs::read(&path).expect("read the database");
        damage(&mut bytes);
        fs::write(&path, &bytes).expect("damage the database");
        let tree = image.scan(Some(number));
        assert_eq!(tree.outcome, expected, "damage {index}");
        number += 1;
        image.publish(number);
        let again = image.scan(Some(number));
        assert_eq!(again.outcome, expected, "after damage {index}");
        // What was not damaged may have been kept, what was is read once more and kept then.
        image.publish(number + 1);
        number += 1;
        let settled = image.scan(Some(number));
        assert_eq!((settled.outcome, settled.bytes_read), (expected.clone(), 0));
    }
    let mode = fs::metadata(&path).expect("stat").mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn states_on_a_place_that_cannot_be_written_cost_only_time() {
    let image = Image::filled();
    let mut spec = spec(&image.tree);
    spec.states = Some(ScanStates {
        directory: image.at("c/large").join("below a file"),
        trusted: Some(snapshot(1)),
        always_read: MappedFiles::new(),
    });
    let tree = read_spec(spec);
    assert_eq!(tree.outcome, read(&image.tree).outcome);
}

#[test]
fn files_that_are_mapped_shared_and_writable_are_read_again() {
    let image = Image::filled();
    image.scan(None);
    image.publish(1);
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(image.at("a/4"))
        .expect("open");
    // SAFETY: nobody else changes the file while it is mapped.
    let mapping = unsafe { memmap2::MmapMut::map_mut(&file) }.expect("map the file");
    let meta = file.metadata().expect("stat");
    let mut mapped = shared_writable();
    // Numbers of other file systems may be the same; they would only be read too.
    mapped.retain(|(_, inode)| *inode == meta.ino());
    assert!(!mapped.is_empty());
    assert_eq!(image.scan_with(Some(1), mapped, |_| {}).bytes_read, 3000);
    drop(mapping);
    assert_eq!(image.scan(Some(1)).bytes_read, 0);
}

#[test]
fn f_23_files_with_strange_times_are_not_read_for_ever() {
    let mut image = Image::new();
    for secs in [-1, -2_000_000_000, 4_000_000_000, 15_000_000_000] {
        let name = secs.to_string();
        image.write(&name, &noise(1, 1000));
        let time = Timespec {
            tv_sec: secs,
            tv_nsec: 5,
        };
        let both = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, image.at(&name), &both, AtFlags::empty()).expect("set the time");
    }
    image.age_fields(&["ctime"]);
    image.scan(None);
    image.publish(1);
    let again = image.scan(Some(1));
    assert_eq!(again.bytes_read, 0);
    assert!(again.found(FindingKind::Changed).is_empty());
}
