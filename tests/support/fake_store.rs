//! A store of containers/storage made by hand: tars with everything that is odd, their tar-split,
//! the directories that the overlay and vfs drivers unpack them into, and the lists.
//!
//! Written after what containers/storage does, with nothing of what reads it.

#![allow(
    dead_code,
    reason = "each test target includes this file and uses a part of it"
)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use podkeep_engine::host::local::LocalHost;
use podkeep_engine::podman::{
    ImageId, LayerId, Storage, StorageDriver, StoragePlaces, StoreListing,
};
use podkeep_format::id::{DiffId, hex};
use ring::digest::{SHA256, digest};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use serde_json::{Value, json};

use crate::mktree::Scratch;

const BLOCK: usize = 512;

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

/// CRC64 as Go's table of ISO has it, one bit at a time.
fn crc64(bytes: &[u8]) -> u64 {
    let mut sum = !0u64;
    for byte in bytes {
        sum ^= u64::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ 0xd800_0000_0000_0000
            } else {
                sum >> 1
            };
        }
    }
    !sum
}

/// How a tar ends.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Blocks(usize),
    /// The two blocks, and then so many bytes that are not zero.
    Junk(usize),
}

/// What an entry is on disk.
#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    /// `.wh.NAME`
    Whiteout,
    /// `.wh..wh..opq`
    Opaque,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Vec<u8>,
    node: Node,
    /// The content, in the tar.
    content: Range<usize>,
}

/// A layer's tar, and what is in it.
#[derive(Clone, Debug, Default)]
pub struct Tar {
    pub bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// How a name that is too long for the header is written.
#[derive(Clone, Copy)]
pub enum LongName {
    Pax,
    Gnu,
}

impl Tar {
    pub fn file(self, name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        self.file_with(name, content, &[], LongName::Pax)
    }

    /// A file with PAX records ("SCHILY.xattr.user.x", value).
    pub fn file_with(
        mut self,
        name: impl AsRef<[u8]>,
        content: &[u8],
        records: &[(&str, &[u8])],
        long: LongName,
    ) -> Self {
        let name = name.as_ref();
        self.before(name, records, long);
        self.header(name, b'0', content.len(), b"");
        let start = self.bytes.len();
        self.bytes.extend_from_slice(content);
        self.pad();
        self.entry(
            name,
            Node::File(content.to_vec()),
            start..start + content.len(),
        )
    }

    pub fn directory(self, name: impl AsRef<[u8]>) -> Self {
        let slashed = [name.as_ref(), b"/"].concat();
        self.without_content(&slashed, b'5', b"", Node::Directory)
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: &[u8]) -> Self {
        self.without_content(name.as_ref(), b'2', target, Node::Symlink(target.to_vec()))
    }

    pub fn hard_link(self, name: impl AsRef<[u8]>, target: &[u8]) -> Self {
        self.without_content(name.as_ref(), b'1', target, Node::HardLink(target.to_vec()))
    }

    pub fn fifo(self, name: impl AsRef<[u8]>) -> Self {
        self.without_content(name.as_ref(), b'6', b"", Node::Fifo)
    }

    /// Of the file `name` of a layer below.
    pub fn whiteout(self, name: &str) -> Self {
        let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
        let name = match folder {
            "" => format!(".wh.{base}"),
            folder => format!("{folder}/.wh.{base}"),
        };
        self.without_content(name.as_bytes(), b'0', b"", Node::Whiteout)
    }

    pub fn opaque(self, directory: &str) -> Self {
        let name = format!("{directory}/.wh..wh..opq");
        self.without_content(name.as_bytes(), b'0', b"", Node::Opaque)
    }

    pub fn end(mut self, ending: Ending) -> Self {
        let (blocks, junk) = match ending {
            Ending::Blocks(blocks) => (blocks, 0),
            Ending::Junk(junk) => (2, junk),
        };
        self.bytes.resize(self.bytes.len() + blocks * BLOCK, 0);
        self.bytes.extend((0..junk).map(|n| (n % 251 + 1) as u8));
        self
    }

    pub fn diff_id(&self) -> DiffId {
        DiffId(sha256(&self.bytes))
    }

    fn without_content(mut self, name: &[u8], kind: u8, link: &[u8], node: Node) -> Self {
        let records: &[(&str, &[u8])] = match link.len() {
            0..=100 => &[],
            _ => &[("linkpath", link)],
        };
        self.before(name, records, LongName::Pax);
        self.header(name, kind, 0, link);
        let at = self.bytes.len();
        self.entry(name, node, at..at)
    }

    fn entry(mut self, name: &[u8], node: Node, content: Range<usize>) -> Self {
        self.entries.push(Entry {
            name: name.to_vec(),
            node,
            content,
        });
        self
    }

    /// What stands before an entry's own header.
    fn before(&mut self, name: &[u8], records: &[(&str, &[u8])], long: LongName) {
        let mut records = records.to_vec();
        if name.len() > 100 {
            match long {
                LongName::Pax => records.push(("path", name)),
                LongName::Gnu => {
                    let text = [name, b"\0"].concat();
                    self.header(b"././@LongLink", b'L', text.len(), b"");
                    self.bytes.extend_from_slice(&text);
                    self.pad();
                }
            }
        }
        if records.is_empty() {
            return;
        }
        let mut text = Vec::new();
        for (key, value) in records {
            // The length counts itself.
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len.to_string().len() + rest != len {
                len += 1;
            }
            text.extend_from_slice(format!("{len} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.header(b"PaxHeaders.0/x", b'x', text.len(), b"");
        self.bytes.extend_from_slice(&text);
        self.pad();
    }

    fn header(&mut self, name: &[u8], kind: u8, size: usize, link: &[u8]) {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &name[..name.len().min(100)]);
        put(100, b"0000644\0");
        put(108, b"0001750\0");
        put(116, b"0001750\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"14700000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, &link[..link.len().min(100)]);
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// Where in the tar the contents of files are, in order.
    pub fn contents(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.entries.iter().map(|entry| entry.content.clone())
    }

    /// One JSON object a line.
    pub fn split(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        let mut at = 0;
        let mut position = 0;
        let mut line = |mut value: Value| {
            value["position"] = json!(position);
            position += 1;
            serde_json::to_writer(&mut lines, &value).unwrap();
            lines.push(b'\n');
        };
        for entry in &self.entries {
            let segment = &self.bytes[at..entry.content.start];
            line(json!({"type": 2, "payload": STANDARD.encode(segment)}));
            at = entry.content.end;
            let content = &self.bytes[entry.content.clone()];
            let mut file = json!({"type": 1});
            match std::str::from_utf8(&entry.name) {
                Ok(name) => file["name"] = json!(name),
                Err(_) => file["name_raw"] = json!(STANDARD.encode(&entry.name)),
            }
            match content {
                [] => file["payload"] = Value::Null,
                content => {
                    file["size"] = json!(content.len());
                    file["payload"] = json!(STANDARD.encode(crc64(content).to_be_bytes()));
                }
            }
            line(file);
        }
        if at < self.bytes.len() {
            line(json!({"type": 2, "payload": STANDARD.encode(&self.bytes[at..])}));
        }
        lines
    }
}

/// Compresses text into several members.
pub fn gzip(text: &[u8], members: usize) -> Vec<u8> {
    let mut compressed = Vec::new();
    let part = text.len().div_ceil(members);
    for number in 0..members {
        let part = number * part..text.len().min((number + 1) * part);
        let mut encoder = GzEncoder::new(compressed, Compression::fast());
        encoder
            .write_all(text.get(part).unwrap_or_default())
            .unwrap();
        compressed = encoder.finish().unwrap();
    }
    compressed
}

/// A store below a directory of its own.
pub struct FakeStore {
    pub scratch: Scratch,
    pub driver: StorageDriver,
    pub layers: Vec<Value>,
    pub volatile_layers: Vec<Value>,
    pub images: Vec<Value>,
    writes: u64,
}

impl FakeStore {
    pub fn new(driver: StorageDriver) -> Self {
        let store = Self {
            scratch: Scratch::new(),
            driver,
            layers: Vec::new(),
            volatile_layers: Vec::new(),
            images: Vec::new(),
            writes: 0,
        };
        let driver = driver.word();
        for folder in ["images", "layers"] {
            fs::create_dir_all(store.graph_root().join(format!("{driver}-{folder}"))).unwrap();
        }
        fs::create_dir_all(store.graph_root().join("overlay/l")).unwrap();
        fs::create_dir_all(store.scratch.join("run")).unwrap();
        store
    }

    pub fn graph_root(&self) -> PathBuf {
        self.scratch.join("graph")
    }

    pub fn places(&self) -> StoragePlaces {
        StoragePlaces {
            driver: self.driver,
            graph_root: self.graph_root(),
            run_root: self.scratch.join("run"),
            image_store: None,
            additional_stores: Vec::new(),
            transient: false,
            data_set: None,
        }
    }

    /// A host with this store. Its podman is a script that says only where the store is, and that
    /// there are no volumes, containers, pods and networks. It has no units and no configuration.
    pub fn host(&self) -> LocalHost {
        let folder = self.scratch.join("bin");
        let podman = folder.join("podman");
        if !podman.exists() {
            fs::create_dir(&folder).unwrap();
            let info = json!({"version": {"Version": "5.4.2"}, "store": {
                "graphDriverName": self.driver.word(), "graphRoot": self.graph_root(),
                "runRoot": self.scratch.join("run"), "volumePath": self.scratch.join("volumes"),
            }});
            let script = format!(
                "#!/bin/sh\ncase $1 in info) echo '{info}' ;; volume | ps) echo '[]' ;; pod | network) ;; *) exit 125 ;; esac\n"
            );
            write_apart(&podman, &script);
        }
        let mut path = folder.into_os_string();
        path.push(":/usr/bin:/bin");
        let environment = [(OsString::from("PATH"), path)];
        let root = self.scratch.join("root");
        fs::create_dir_all(&root).unwrap();
        LocalHost::new(self.scratch.join("state"))
            .rooted_at(root)
            .with_podman(&environment)
    }

    /// Writes the lists and opens them.
    pub fn read(&mut self) -> (Storage, StoreListing) {
        self.write_lists();
        let storage = Storage::new(&self.places()).unwrap();
        let listing = storage.read().unwrap();
        (storage, listing)
    }

    /// As every writer does: first the token, then the list by rename.
    pub fn write_lists(&mut self) {
        let driver = self.driver.word();
        let graph_root = self.graph_root();
        for (folder, lock, lists) in [
            (
                "layers",
                "layers.lock",
                vec![
                    ("layers.json", &self.layers),
                    ("volatile-layers.json", &self.volatile_layers),
                ],
            ),
            ("images", "images.lock", vec![("images.json", &self.images)]),
        ] {
            let folder = graph_root.join(format!("{driver}-{folder}"));
            self.writes += 1;
            let token = [self.writes.to_le_bytes(); 8].concat();
            fs::write(folder.join(lock), token).unwrap();
            for (name, list) in lists {
                let temporary = folder.join(".tmp");
                fs::write(&temporary, serde_json::to_vec(list).unwrap()).unwrap();
                fs::rename(temporary, folder.join(name)).unwrap();
            }
        }
    }

    /// Unpacks a layer and lists it.
    pub fn layer(&mut self, tar: &Tar, parent: Option<LayerId>) -> LayerId {
        let diff_id = tar.diff_id();
        let id = match parent {
            None => LayerId(diff_id.0),
            Some(parent) => LayerId(sha256(format!("{parent}+{diff_id}").as_bytes())),
        };
        let graph_root = self.graph_root();
        match self.driver {
            StorageDriver::Overlay => self.unpack_overlay(tar, id, parent),
            driver => {
                let folder = |id| graph_root.join(full_folder(driver, id));
                fs::create_dir_all(folder(id)).unwrap();
                if let Some(parent) = parent {
                    copy(&folder(parent), &folder(id));
                }
                for entry in &tar.entries {
                    unpack_aufs(&folder(id), entry);
                }
            }
        }
        fs::write(self.split_file(id), gzip(&tar.split(), 2)).unwrap();
        let mut record = json!({
            "id": id.to_hex(), "created": "2026-01-02T03:04:05.678Z",
            "compressed-diff-digest": format!("sha256:{}", "c".repeat(64)), "compressed-size": 77,
            "diff-digest": format!("sha256:{diff_id}"), "diff-size": tar.bytes.len(),
            "compression": 2, "uidset": [0, 1000], "gidset": [0],
        });
        if let Some(parent) = parent {
            record["parent"] = json!(parent.to_hex());
        }
        self.layers.push(record);
        id
    }

    /// Lists an image with a manifest and a configuration.
    pub fn image(&mut self, name: &str, top: Option<LayerId>) -> ImageId {
        let config = json!({"architecture": "amd64", "name": name}).to_string();
        self.image_with(name, top, &config)
    }

    /// The same with a configuration of one's own.
    pub fn image_with(&mut self, name: &str, top: Option<LayerId>, config: &str) -> ImageId {
        let id = ImageId(sha256(config.as_bytes()));
        let manifest = json!({"schemaVersion": 2, "config": id.to_hex()}).to_string();
        let digest = format!("sha256:{}", hex(&sha256(manifest.as_bytes())));
        let config_key = format!("sha256:{id}");
        let mut record = json!({
            "id": id.to_hex(), "digest": digest, "names": [name],
            "names-history": [name, "localhost/old:1"],
            "metadata": "{\"signatures-sizes\":{}}",
            "big-data-names": ["manifest", config_key],
            "big-data-sizes": {"manifest": manifest.len(), &config_key: config.len()},
            "big-data-digests": {"manifest": digest, &config_key: config_key},
            "created": "2026-01-02T03:04:05Z",
            "something-new": {"kept": [1, 2.50, null]},
        });
        if let Some(top) = top {
            record["layer"] = json!(top.to_hex());
        }
        self.images.push(record);
        let folder = self.image_folder(id);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("manifest"), manifest).unwrap();
        let file = format!("={}", STANDARD.encode(config_key));
        fs::write(folder.join(file), config).unwrap();
        id
    }

    pub fn image_folder(&self, id: ImageId) -> PathBuf {
        let folder = format!("{}-images/{id}", self.driver.word());
        self.graph_root().join(folder)
    }

    pub fn split_file(&self, id: LayerId) -> PathBuf {
        let file = format!("{}-layers/{id}.tar-split.gz", self.driver.word());
        self.graph_root().join(file)
    }

    /// Where a layer's files are unpacked.
    pub fn folder(&self, id: LayerId) -> PathBuf {
        let folder = match self.driver {
            StorageDriver::Overlay => format!("overlay/{id}/diff"),
            driver => full_folder(driver, id),
        };
        self.graph_root().join(folder)
    }

    /// The record of a layer, to be changed.
    pub fn record(&mut self, id: LayerId) -> &mut Value {
        let id = json!(id.to_hex());
        let mut found = self.layers.iter_mut();
        found.rfind(|layer| layer["id"] == id).unwrap()
    }

    fn unpack_overlay(&self, tar: &Tar, id: LayerId, parent: Option<LayerId>) {
        let home = self.graph_root().join("overlay");
        let diff = home.join(id.to_hex()).join("diff");
        fs::create_dir_all(&diff).unwrap();
        let link = format!("L{}", &id.to_hex()[..25]).to_uppercase();
        fs::write(home.join(id.to_hex()).join("link"), &link).unwrap();
        symlink(format!("../{id}/diff"), home.join("l").join(&link)).unwrap();
        if let Some(parent) = parent {
            let read = |name: &str| fs::read_to_string(home.join(parent.to_hex()).join(name));
            let mut lower = format!("l/{}", read("link").unwrap());
            if let Ok(below) = read("lower") {
                lower = format!("{lower}:{below}");
            }
            fs::write(home.join(id.to_hex()).join("lower"), lower).unwrap();
        }
        for entry in &tar.entries {
            let path = place(&diff, &entry.name);
            let base = path.file_name().unwrap_or_default().as_bytes().to_vec();
            match entry.node {
                Node::Whiteout => {
                    let name = OsString::from_vec(base[b".wh.".len()..].to_vec());
                    remove(&path.with_file_name(&name));
                    let kind = FileType::CharacterDevice;
                    rustix::fs::mknodat(CWD, path.with_file_name(name), kind, Mode::empty(), 0)
                        .unwrap();
                }
                Node::Opaque => {
                    let parent = path.parent().unwrap();
                    let name = "trusted.overlay.opaque";
                    rustix::fs::setxattr(parent, name, b"y", XattrFlags::empty()).unwrap();
                }
                _ => unpack(&diff, &path, entry),
            }
        }
    }
}

fn full_folder(driver: StorageDriver, id: LayerId) -> String {
    match driver {
        StorageDriver::Btrfs => format!("btrfs/subvolumes/{id}"),
        StorageDriver::Zfs => format!("zfs/graph/{id}"),
        _ => format!("vfs/dir/{id}"),
    }
}

/// As drivers with whole trees do: what a whiteout names is removed.
fn unpack_aufs(root: &Path, entry: &Entry) {
    let path = place(root, &entry.name);
    match entry.node {
        Node::Whiteout => {
            let base = path.file_name().unwrap().as_bytes()[b".wh.".len()..].to_vec();
            remove(&path.with_file_name(OsString::from_vec(base)));
        }
        // What the tar itself put there before stays; the tests have no such.
        Node::Opaque => {
            for below in fs::read_dir(path.parent().unwrap()).unwrap() {
                remove(&below.unwrap().path());
            }
        }
        _ => unpack(root, &path, entry),
    }
}

fn unpack(root: &Path, path: &Path, entry: &Entry) {
    match &entry.node {
        Node::Directory => {
            if !path.is_dir() {
                remove(path);
                fs::create_dir_all(path).unwrap();
            }
        }
        Node::File(content) => {
            remove(path);
            fs::write(path, content).unwrap();
        }
        Node::Symlink(target) => {
            remove(path);
            symlink(OsStr::from_bytes(target), path).unwrap();
        }
        Node::HardLink(target) => {
            remove(path);
            fs::hard_link(place(root, target), path).unwrap();
        }
        Node::Fifo => {
            remove(path);
            rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        }
        Node::Whiteout | Node::Opaque => unreachable!("each driver has its own way"),
    }
}

/// Where a name of a tar lies, with `root` as the root of the file system; directories on the way
/// are made.
fn place(root: &Path, name: &[u8]) -> PathBuf {
    let mut parts: Vec<Vec<u8>> = split(name);
    parts.reverse();
    let mut path = root.to_owned();
    while let Some(part) = parts.pop() {
        match part.as_slice() {
            b".." if path != root => {
                path.pop();
            }
            b".." | b"." => {}
            part => path.push(OsStr::from_bytes(part)),
        }
        if parts.is_empty() {
            break;
        }
        if let Ok(target) = fs::read_link(&path) {
            path.pop();
            if target.is_absolute() {
                path = root.to_owned();
            }
            let target = split(target.as_os_str().as_bytes());
            parts.extend(target.into_iter().rev());
        } else if !path.exists() {
            fs::create_dir(&path).unwrap();
        }
    }
    path
}

fn split(name: &[u8]) -> Vec<Vec<u8>> {
    name.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Copies what is in a directory; links stay links.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else if kind.is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// By a process of its own: a script that another test's child still holds open cannot be run.
fn write_apart(program: &Path, script: &str) {
    #[expect(clippy::disallowed_methods, reason = "writes a script for a test")]
    let mut writer = Command::new("/bin/sh")
        .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
        .arg(program)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}
