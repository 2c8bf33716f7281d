//! Putting a damaged layer right where it is.
//!
//! The layer's tar comes from a repository as a stream. Each file of it is compared with what is
//! on disk; what differs is written beside, and nothing under a final name is touched before the
//! whole tar hashed to the layer's DiffID. Then, under the lock of layers and with no container
//! on the layer, the files are renamed into place, and the layer is read once more. A repair that is
//! cut off leaves the layer damaged for all to see until it was done, and the next one does the rest.
//!
//! Names of a hard link that shared the damaged file get the new one. Attributes are those of the
//! tar's headers, which is what Podman unpacked; stores that keep them elsewhere are refused.
//! Drivers with whole trees copied the damage into the layers above: those copies are replaced,
//! too, where it is certain that they are copies. Layers of containers are only told of.

mod above;
mod leftovers;
mod overlay;
mod place;
mod stage;
mod tree;
mod users;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use podkeep_format::id::DiffId;
use podkeep_format::item::Escaped;
use ring::digest::{Context, SHA256};
use rustix::io::Errno;

pub use self::leftovers::{clear, left_behind};
use self::place::Place;
use self::stage::Stage;
use super::doctor::{content_folder, content_root};
use super::layer::{Content, LayerError, LayerEvent, LayerReader, clean};
use super::list_lock::ListLock;
use super::storage::{
    AS_ROOT, LayerId, Origin, Storage, StorageDriver, StorageError, StoreListing, StoredLayer,
};
use super::tar::{TarEntry, TarKind, TarParser, TarPart};
use super::tar_split::TarSplitWriter;

/// Hard links of one layer: each has a header of 512 bytes in its tar.
const LINKS_MAX: usize = 1 << 20;
/// Entries of one layer that are put back.
const FIXES_MAX: usize = 1 << 20;
/// The tar-split that is written along, in the folder of contents.
const SPLIT: &str = "tar-split";
/// Bytes that are compared at once.
const COMPARE_BYTES: usize = 256 << 10;

/// Why a layer is not repaired.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RepairError {
    /// Containers or mounted images are on it; each in words.
    #[error("layer {layer} is in use by {}", users.join(", "))]
    InUse { layer: LayerId, users: Vec<String> },
    #[error("layer {layer} cannot be repaired where it is: {cause}")]
    NotHere { layer: LayerId, cause: String },
    #[error("cannot repair layer {layer}: {cause}")]
    Failed { layer: LayerId, cause: String },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Entries that were put back, and files of Podman's own that were made anew.
    pub files: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// What is left to be told, in words.
    pub left: Vec<String>,
}

/// A repair under way. Dropped before its end, it leaves the store as it was.
pub struct LayerMender {
    parser: TarParser,
    hash: Context,
    work: Work,
}

/// What the parts of the tar go to.
struct Work {
    storage: Storage,
    listing: StoreListing,
    layer: StoredLayer,
    expected: DiffId,
    run_root: PathBuf,
    content: Content,
    stage: Stage,
    place: Place,
    /// The tar-split of this tar, of which nothing else may be left.
    split: TarSplitWriter<File>,
    /// The file whose content comes.
    current: Option<Current>,
    fixes: Vec<Fix>,
    /// Names of hard links by the name that they stand for, all cleaned.
    links: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    links_count: usize,
}

/// A file that is compared with what is on disk, or written beside it.
struct Current {
    entry: TarEntry,
    state: Compared,
}

enum Compared {
    /// So many bytes were equal.
    Equal {
        file: File,
        bytes: u64,
    },
    Different(File),
}

/// Something that is put back.
struct Fix {
    entry: TarEntry,
    /// The file in the folder of contents that has its new content. `None`: it is no file.
    staged: Option<String>,
}

impl Fix {
    /// Whether it names a file of which the content came.
    fn is_file(&self) -> bool {
        self.staged.is_some() || matches!(self.entry.kind, TarKind::HardLink(_))
    }
}

impl LayerMender {
    /// `run_root` is the one of `storage`. Changes nothing but a folder of its own.
    pub fn open(storage: &Storage, run_root: PathBuf, layer: LayerId) -> Result<Self, RepairError> {
        let listing = storage.read()?;
        let not_here = |cause: &str| RepairError::NotHere {
            layer,
            cause: cause.into(),
        };
        let Some(record) = listing.layers.get(&layer).cloned() else {
            return Err(not_here("the store has no record of it"));
        };
        if matches!(record.origin, Origin::Additional(_)) {
            return Err(not_here("it lies in a store that Podman only reads"));
        }
        if record.incomplete {
            return Err(not_here("Podman is going to remove it"));
        }
        if record.mapped {
            return Err(not_here("it is a copy of another layer for other users"));
        }
        let Some(expected) = record.diff_id.or(record.expected_diff_id) else {
            return Err(not_here("the store does not know its digest"));
        };
        let driver = storage.driver();
        if driver == StorageDriver::Zfs {
            return Err(not_here("its driver is zfs"));
        }
        if driver == StorageDriver::Overlay && overlay::keeps_attributes_elsewhere(storage, &record)
        {
            return Err(not_here(
                "the store keeps owners and modes of files in attributes of their own \
                 (mount_program or force_mask)",
            ));
        }
        let users = users::of(storage, &run_root, &listing, layer)?;
        if !users.is_empty() {
            return Err(RepairError::InUse { layer, users });
        }
        let Some(root) = content_root(storage, &record) else {
            return Err(not_here("its directory is missing"));
        };
        let failed = |cause: String| RepairError::Failed { layer, cause };
        let content = Content::open(storage, &listing, &record)
            .map_err(|_| not_here("its files cannot be opened"))?;
        if content.has_objects() {
            return Err(not_here("its files lie in a composefs store"));
        }
        let folder = content_folder(driver, layer);
        let stage = Stage::open(root, driver, layer)
            .map_err(|errno| failed(format!("a folder beside it: {errno}")))?;
        let place = Place::open(root, &folder, AS_ROOT, &stage)
            .map_err(|errno| failed(format!("its directory: {errno}")))?;
        let split = stage
            .create(SPLIT)
            .map_err(|errno| failed(format!("its tar-split: {errno}")))?;
        Ok(Self {
            parser: TarParser::new(),
            hash: Context::new(&SHA256),
            work: Work {
                storage: storage.clone(),
                listing,
                layer: record,
                expected,
                run_root,
                content,
                stage,
                place,
                split: TarSplitWriter::new(split),
                current: None,
                fixes: Vec::new(),
                links: BTreeMap::new(),
                links_count: 0,
            },
        })
    }

    /// The next bytes of the layer's tar.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RepairError> {
        self.hash.update(bytes);
        let work = &mut self.work;
        let pushed = self.parser.push(bytes, &mut |part| work.take(part));
        pushed.map_err(|cause| self.work.failed(cause))
    }

    /// All bytes came: puts right what is not, and reads the layer again.
    pub fn finish(self) -> Result<Mended, RepairError> {
        let Self {
            parser,
            hash,
            mut work,
        } = self;
        let ended = parser.finish().and_then(|()| work.end_file());
        ended.map_err(|cause| work.failed(cause))?;
        let found = hash.finish();
        if found.as_ref() != work.expected.as_bytes() {
            let found = podkeep_format::id::hex(found.as_ref());
            return Err(work.failed(format!("the tar that came hashes to sha256:{found}")));
        }
        work.apply()
    }
}

impl Work {
    fn failed(&self, cause: impl ToString) -> RepairError {
        RepairError::Failed {
            layer: self.layer.id,
            cause: cause.to_string(),
        }
    }

    fn take(&mut self, part: TarPart<'_>) -> Result<(), String> {
        match part {
            TarPart::Raw(bytes) => {
                self.end_file()?;
                self.split.raw(bytes).map_err(|error| error.to_string())
            }
            TarPart::Entry(entry) => {
                self.end_file()?;
                let split = self.split.entry(&entry.name, entry.size);
                split.map_err(|error| error.to_string())?;
                self.entry(entry)
            }
            TarPart::Content(bytes) => {
                self.split.content(bytes);
                self.compare(bytes)
            }
        }
    }

    /// Looks for what an entry was unpacked to.
    fn entry(&mut self, entry: &TarEntry) -> Result<(), String> {
        if self.place.is_taken(&clean(&entry.name)) {
            let name = Escaped(&entry.name);
            return Err(format!(
                "it has a file '{name}', which a repair needs for itself"
            ));
        }
        if entry.kind == TarKind::File && entry.size > 0 {
            let state = match self.content.file(&entry.name) {
                Ok((file, size)) if size == entry.size => Compared::Equal { file, bytes: 0 },
                Ok(_) | Err(_) => Compared::Different(self.staged()?.1),
            };
            self.current = Some(Current {
                entry: entry.clone(),
                state,
            });
            return Ok(());
        }
        if let TarKind::HardLink(target) = &entry.kind {
            if self.links_count == LINKS_MAX {
                return Err(format!("it has more than {LINKS_MAX} hard links"));
            }
            self.links_count += 1;
            let links = self.links.entry(clean(target)).or_default();
            links.push(clean(&entry.name));
        }
        let is_overlay = self.storage.driver() == StorageDriver::Overlay;
        if self.place.has(entry, is_overlay) {
            return Ok(());
        }
        let staged = match entry.kind {
            TarKind::File if !place::is_whiteout(&entry.name) => Some(self.staged()?.0),
            _ => None,
        };
        self.fix(entry.clone(), staged)
    }

    /// The file for the content of what is put back next, and its name.
    fn staged(&self) -> Result<(String, File), String> {
        let name = self.fixes.len().to_string();
        let file = self.stage.create(&name);
        let file = file.map_err(|errno| format!("cannot write beside it: {errno}"))?;
        Ok((name, file))
    }

    fn fix(&mut self, entry: TarEntry, staged: Option<String>) -> Result<(), String> {
        if self.fixes.len() == FIXES_MAX {
            return Err(format!("more than {FIXES_MAX} of its entries are damaged"));
        }
        self.fixes.push(Fix { entry, staged });
        Ok(())
    }

    fn compare(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        if let Compared::Equal { file, bytes: equal } = &mut current.state {
            if reads_equal(file, bytes) {
                *equal += bytes.len() as u64;
                self.current = Some(current);
                return Ok(());
            }
            // What was equal so far is as good from the disk.
            let (file, equal) = (file.try_clone(), *equal);
            let (_, mut staged) = self.staged()?;
            let copied = file.and_then(|file| copy_start(file, equal, &mut staged));
            copied.map_err(|error| error.to_string())?;
            current.state = Compared::Different(staged);
        }
        if let Compared::Different(staged) = &mut current.state {
            staged.write_all(bytes).map_err(|error| error.to_string())?;
        }
        self.current = Some(current);
        Ok(())
    }

    /// The content of the file that was under way is complete, once something else comes.
    fn end_file(&mut self) -> Result<(), String> {
        match self.current.take() {
            Some(Current {
                entry,
                state: Compared::Different(_),
            }) => {
                let name = self.fixes.len().to_string();
                self.fix(entry, Some(name))
            }
            _ => Ok(()),
        }
    }

    /// Puts everything in its place.
    fn apply(mut self) -> Result<Mended, RepairError> {
        let mut mended = Mended::default();
        let fixes = std::mem::take(&mut self.fixes);
        let (root, driver) = match content_root(&self.storage, &self.layer) {
            Some(root) => (root, self.storage.driver()),
            None => return Err(self.failed("its directory went away")),
        };
        let lists = root.path().join(format!("{}-layers", driver.word()));
        let lock = ListLock::take(&lists.join("layers.lock"))
            .map_err(|error| self.failed(format!("cannot lock layers: {error}")))?;
        self.listing = self.storage.read_under_lock()?;
        let users = users::of(&self.storage, &self.run_root, &self.listing, self.layer.id)?;
        if !users.is_empty() {
            let layer = self.layer.id;
            return Err(RepairError::InUse { layer, users });
        }
        let synced = self.stage.sync();
        synced.map_err(|errno| self.failed(format!("what was written beside it: {errno}")))?;
        // Links and directories lead to files, so they come first. Copies in the layers above come
        // before the files: once these are right, nothing tells that there are damaged copies.
        let (files, others): (Vec<Fix>, Vec<Fix>) = fixes.into_iter().partition(Fix::is_file);
        for fix in &others {
            self.put_back(fix, &mut mended);
        }
        for fix in files.iter().filter(|fix| fix.staged.is_some()) {
            // Where this fails, putting the file back tells.
            let _ = self.place.make_way(&clean(&fix.entry.name));
        }
        if driver != StorageDriver::Overlay {
            above::mend(&self, &files, &mut mended);
        }
        for fix in &files {
            self.put_back(fix, &mut mended);
        }
        // What was made in a directory changed its time.
        self.place.set_directory_times(&others);
        if driver == StorageDriver::Overlay {
            let made = overlay::make_files(&self.storage, &self.listing, &self.layer);
            match made {
                Ok(made) => mended.files += made,
                Err(cause) => mended.left.push(cause),
            }
        }
        // What cannot be made durable shows as damage of the next look.
        let _ = self.stage.sync();
        drop(lock);
        self.verify(&mut mended)?;
        Ok(mended)
    }

    /// Puts one back, or tells why not.
    fn put_back(&self, fix: &Fix, mended: &mut Mended) {
        let put = match &fix.staged {
            Some(staged) => self.put_file(fix, staged, mended),
            None => self.put_other(fix, mended).map_err(io::Error::from),
        };
        if let Err(error) = put {
            let name = clean(&fix.entry.name);
            let told = format!("cannot put back '{}': {error}", Escaped(&name));
            mended.left.push(told);
        }
    }

    fn put_other(&self, fix: &Fix, mended: &mut Mended) -> Result<(), Errno> {
        let is_overlay = self.storage.driver() == StorageDriver::Overlay;
        // A hard link that came along with its file is there by now.
        if !self.place.has(&fix.entry, is_overlay) {
            self.place.make(&fix.entry)?;
            mended.files += 1;
        }
        Ok(())
    }

    fn put_file(&self, fix: &Fix, staged: &str, mended: &mut Mended) -> io::Result<()> {
        let name = clean(&fix.entry.name);
        let names: Vec<&[u8]> = self.links_of(&name).map(Vec::as_slice).collect();
        let content = self.stage.file(staged)?;
        // Only the name is lost where another one has the content still.
        let is_intact = |link: &&&[u8]| match self.place.file(link) {
            Some(found) => is_same(&content, &found).unwrap_or(false),
            None => false,
        };
        let is_lost = self.place.file(&name).is_none();
        let intact = names.iter().filter(|_| is_lost).find(is_intact);
        match intact {
            Some(link) => {
                let kind = TarKind::HardLink(link.to_vec());
                let entry = fix.entry.clone();
                self.place.make(&TarEntry { kind, ..entry })?;
            }
            None => {
                let file = self.place.own(content, false)?;
                self.place.put_file(&fix.entry, &name, &file, &names)?;
            }
        }
        mended.files += 1;
        mended.bytes += fix.entry.size;
        Ok(())
    }

    /// The names of hard links to a file.
    fn links_of(&self, name: &[u8]) -> impl Iterator<Item = &Vec<u8>> {
        self.links.get(name).into_iter().flatten()
    }

    /// Reads the layer as a backup would; a tar-split that does not lead to the DiffID, or is not
    /// there, is replaced by the one that was made of the right tar.
    fn verify(self, mended: &mut Mended) -> Result<(), RepairError> {
        let Err(first) = self.read() else {
            return Ok(());
        };
        // Every file was compared with the right tar: what still differs is tar-split itself.
        let (LayerError::NotExact { .. } | LayerError::Damaged { .. }) = &first else {
            return Err(self.failed(first));
        };
        let name = format!("{}.tar-split.gz", self.layer.id);
        let Self {
            storage,
            listing,
            layer,
            split,
            stage,
            ..
        } = self;
        let failed = |cause: String| RepairError::Failed {
            layer: layer.id,
            cause,
        };
        // Podman looks for it in the graph root, wherever the layer itself is.
        let lists = format!("{}-layers", storage.driver().word());
        let file = format!("{lists}/{name}");
        let root = [Origin::GraphRoot, Origin::ImageStore]
            .map(|origin| storage.root(origin))
            .into_iter()
            .find(|root| root.file(&file).is_ok())
            .unwrap_or(storage.root(Origin::GraphRoot));
        let lists = root.path().join(lists);
        let written = split.finish().and_then(|file| {
            file.sync_all()?;
            stage.move_out(SPLIT, &lists, &name)
        });
        written.map_err(|error| failed(format!("its tar-split: {error}")))?;
        mended.files += 1;
        read(&storage, &listing, &layer).map_err(|error| failed(error.to_string()))
    }

    fn read(&self) -> Result<(), LayerError> {
        read(&self.storage, &self.listing, &self.layer)
    }
}

/// Reads a layer to its end.
fn read(storage: &Storage, listing: &StoreListing, layer: &StoredLayer) -> Result<(), LayerError> {
    let mut reader = LayerReader::open(storage, listing, layer)?;
    loop {
        if let LayerEvent::End(_) = reader.next_event()? {
            return Ok(());
        }
    }
}

/// Whether the next bytes of the file are these; what cannot be read is not.
fn reads_equal(file: &mut File, bytes: &[u8]) -> bool {
    let mut buffer = vec![0; bytes.len().min(COMPARE_BYTES)];
    bytes.chunks(COMPARE_BYTES).all(|part| {
        let buffer = &mut buffer[..part.len()];
        file.read_exact(buffer).is_ok() && buffer == part
    })
}

/// Copies the first bytes of a file.
fn copy_start(mut from: File, bytes: u64, to: &mut File) -> io::Result<()> {
    from.seek(SeekFrom::Start(0))?;
    match io::copy(&mut from.take(bytes), to)? == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Two files with the same content.
fn is_same(a: &File, b: &File) -> io::Result<bool> {
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (a.try_clone()?, b.try_clone()?);
    a.seek(SeekFrom::Start(0))?;
    b.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; COMPARE_BYTES];
    loop {
        let len = a.read(&mut buffer)?;
        if len == 0 {
            return Ok(true);
        }
        if !reads_equal(&mut b, &buffer[..len]) {
            return Ok(false);
        }
    }
}
