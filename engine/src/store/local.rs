//! A store in a folder of a file system.
//!
//! Layout: an object's name is its path below the store's folder. Unfinished files lie in `.tmp`,
//! which no object's name can reach, as `<owner>.<32 hex digits>`.
//!
//! A put writes the bytes to a temporary file, fsyncs it, moves it to its name without replacing
//! anything and fsyncs the folder. So a name never stands for half an object, and whoever finds a
//! name taken may compare bytes. Three races shape the code:
//! - Another writer takes the name first: the move fails, and the bytes there are compared.
//! - Deleting the last object of a folder that is not part of the layout removes the folder, maybe
//!   while a put is about to move into it: the put makes the folder again.
//! - Somebody sweeps a temporary file whose owner is believed gone: the move finds no file, and
//!   the put writes it again.
//!
//! After a failed fsync the kernel may drop the dirty pages and call the file clean, so a second
//! fsync of the same file proves nothing: the file is removed and written anew from memory.
//!
//! Everything is reached from one open folder, component by component, following no symbolic
//! link: a store whose disk is unmounted or whose folder is swapped never turns into another one.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreError, StoreErrorKind};
use super::{StoreResult, local::folder::Walk};

mod folder;
mod layout;
mod listing;
mod medium;
#[cfg(test)]
mod tests;

pub use layout::CreateError;

/// Where unfinished files lie; begins with a dot, which no component of an object's name does.
const TEMP_FOLDER: &str = ".tmp";

/// How often a put starts over because somebody changed the name, the folder or the temporary
/// file under it. Each round needs another process to win a race against us.
const PUT_ROUNDS_MAX: u32 = 16;

/// How often the bytes of a put are written when fsync fails.
const WRITES_MAX: u32 = 2;

/// Bytes compared at a time with an object that is there already.
const COMPARE_BYTES: usize = 1 << 20;

/// An object store in a folder; cheap calls, no state but the open folder and the temp owner.
pub struct LocalStore {
    root: OwnedFd,
    place: PathBuf,
    medium: Medium,
    temp_owner: RwLock<String>,
    /// Set once this process has seen to it that the layout's folders are there and durable.
    layout_durable: AtomicBool,
    calls: Calls,
}

/// The system calls whose failures decide about durability: the module's tests make them fail.
#[derive(Clone, Copy)]
struct Calls {
    sync: fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    /// Moves (folder, leaf) to (folder, leaf); `EXIST` when the second is taken.
    move_new: fn(BorrowedFd<'_>, &str, BorrowedFd<'_>, &str) -> rustix::io::Result<()>,
}

impl Calls {
    const SYSTEM: Self = Self {
        sync: |fd| rustix::fs::fsync(fd),
        move_new: |from, old, to, new| {
            rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
        },
    };
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalStore").field(&self.place).finish()
    }
}

impl LocalStore {
    /// Makes an empty store at `path`, with all folders of the layout, durably, and opens it.
    ///
    /// `path` may be absent (missing parents are made, mode 0700), an empty folder (`lost+found`
    /// does not count), or what an earlier `create` left when it was killed. On failure every
    /// folder that this call made is removed again. Two calls at once for one place may both
    /// succeed: the repository's first `put_new` decides who made it.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, CreateError> {
        let path = path.as_ref();
        layout::create(path)?;
        Self::open(path).map_err(CreateError::Store)
    }

    /// Opens the store at `path` and writes nothing. [`StoreErrorKind::NotFound`]: there is no
    /// folder, or a folder that has none of a store's own folders.
    pub fn open(path: impl AsRef<Path>) -> StoreResult<Self> {
        let path = path.as_ref();
        let root = layout::open(path)?;
        let medium = medium::of_folder(root.as_fd())
            .map_err(|e| StoreError::from_io("open", path.display(), &e.into()))?;
        Ok(Self {
            root,
            place: path.to_owned(),
            medium,
            temp_owner: RwLock::new(String::new()),
            layout_durable: AtomicBool::new(false),
            calls: Calls::SYSTEM,
        })
    }

    fn fail(&self, action: &'static str, object: &str, error: impl Into<io::Error>) -> StoreError {
        StoreError::from_io(action, self.object(object), &error.into())
    }

    fn refuse(
        &self,
        action: &'static str,
        object: &str,
        kind: StoreErrorKind,
        cause: impl Into<String>,
    ) -> StoreError {
        StoreError {
            action,
            object: self.object(object),
            kind,
            cause: cause.into(),
        }
    }

    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.place.display())
    }

    fn walk_failed(&self, action: &'static str, object: &str, walk: &Walk) -> StoreError {
        match walk {
            Walk::Missing => self.fail(action, object, Errno::NOENT),
            Walk::Object(at) => self.refuse(
                action,
                object,
                StoreErrorKind::Conflict,
                format!("{at} is an object, not a folder"),
            ),
            Walk::Link(at) => self.refuse(
                action,
                object,
                StoreErrorKind::Io,
                format!("{at} is a symbolic link, which is not followed"),
            ),
            Walk::Failed(errno) => self.fail(action, object, *errno),
        }
    }

    /// The folder of `name` for reading; `None` when there is none.
    fn folder_of(&self, action: &'static str, name: &ObjectName) -> StoreResult<Option<OwnedFd>> {
        let (folder, _) = split(name);
        match folder::open(self.root.as_fd(), folder) {
            Ok(fd) => Ok(Some(fd)),
            Err(Walk::Missing | Walk::Object(_)) => Ok(None),
            Err(walk) => Err(self.walk_failed(action, name.as_str(), &walk)),
        }
    }

    /// The object as an open regular file with its size in bytes; `None` when there is none.
    fn open_object(
        &self,
        action: &'static str,
        folder: BorrowedFd<'_>,
        name: &ObjectName,
    ) -> StoreResult<Option<(File, u64)>> {
        let (_, leaf) = split(name);
        // NONBLOCK: opening a planted fifo must not hang.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(folder, leaf, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                return Err(self.walk_failed(action, name.as_str(), &Walk::Link(leaf.to_owned())));
            }
            Err(errno) => return Err(self.fail(action, name.as_str(), errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| self.fail(action, name.as_str(), e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some((File::from(fd), stat.st_size.unsigned_abs()))),
            FileType::Directory => Ok(None),
            other => Err(self.refuse(
                action,
                name.as_str(),
                StoreErrorKind::Io,
                format!("not a regular file but {other:?}"),
            )),
        }
    }

    fn open_for_read(&self, name: &ObjectName) -> StoreResult<(File, u64)> {
        let found = match self.folder_of("read", name)? {
            Some(folder) => self.open_object("read", folder.as_fd(), name)?,
            None => None,
        };
        found.ok_or_else(|| self.fail("read", name.as_str(), Errno::NOENT))
    }

    /// The folder of `name` for writing, made if it is missing.
    fn make_folder_of(&self, name: &ObjectName) -> StoreResult<OwnedFd> {
        if !self.layout_durable.load(Ordering::Acquire) {
            // Several threads may do this at once, each for itself: it is idempotent.
            layout::complete(self.root.as_fd(), self.calls.sync, &mut Vec::new())
                .map_err(|(path, errno)| self.fail("write", &path, errno))?;
            self.layout_durable.store(true, Ordering::Release);
        }
        let (folder, _) = split(name);
        folder::make(self.root.as_fd(), folder)
            .map_err(|walk| self.walk_failed("write", name.as_str(), &walk))
    }

    /// Makes the entry of `name` in its folder durable. Folders of the layout are durable
    /// already; any other folder may be another process's, made and not yet synced, so its way up
    /// to the root is synced each time.
    fn sync_folders(
        &self,
        action: &'static str,
        folder: BorrowedFd<'_>,
        name: &ObjectName,
    ) -> StoreResult<()> {
        let failed = |e| self.fail(action, name.as_str(), e);
        folder::sync(folder, self.calls.sync).map_err(failed)?;
        let (mut path, _) = split(name);
        if layout::is_fixed(path) {
            return Ok(());
        }
        while !path.is_empty() {
            path = path.rsplit_once('/').map_or("", |(up, _)| up);
            match folder::open(self.root.as_fd(), path) {
                Ok(up) => folder::sync(up.as_fd(), self.calls.sync).map_err(failed)?,
                // Emptied and removed meanwhile, our object with it.
                Err(Walk::Missing) => {}
                Err(walk) => return Err(self.walk_failed(action, name.as_str(), &walk)),
            }
        }
        Ok(())
    }

    /// Writes `data` to a new temporary file and fsyncs it.
    fn write_temp(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Temp> {
        let failed = |e: io::Error| self.fail("write", name.as_str(), e);
        let folder = folder::make(self.root.as_fd(), TEMP_FOLDER)
            .map_err(|walk| self.walk_failed("write", TEMP_FOLDER, &walk))?;
        let mut writes = 0;
        loop {
            writes += 1;
            let (temp, mut file) = self.create_temp(name, &folder)?;
            file.write_all(data).map_err(failed)?;
            match (self.calls.sync)(file.as_fd()) {
                Ok(()) => return Ok(temp),
                // Dropping `temp` removes the condemned file, also before it is written anew.
                Err(errno) if writes == WRITES_MAX || is_full(errno) => {
                    return Err(failed(errno.into()));
                }
                Err(_) => {}
            }
        }
    }

    fn create_temp(&self, name: &ObjectName, folder: &OwnedFd) -> StoreResult<(Temp, File)> {
        let owner = self
            .temp_owner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if !is_owner(&owner) {
            let cause = format!("the owner {owner:?} of temporary files is not of [a-z0-9-]");
            return Err(self.refuse("write", name.as_str(), StoreErrorKind::Io, cause));
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|e| self.fail("write", name.as_str(), io::Error::other(e.to_string())))?;
        let leaf = format!("{owner}.{:032x}", u128::from_le_bytes(random));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let held = folder
            .try_clone()
            .map_err(|e| self.fail("write", name.as_str(), e))?;
        let file = rustix::fs::openat(folder, &leaf, flags | OFlags::CLOEXEC, FILE_MODE)
            .map_err(|e| self.fail("write", name.as_str(), e))?;
        let temp = Temp {
            folder: held,
            leaf,
            moved: false,
        };
        Ok((temp, File::from(file)))
    }

    /// Whether `name` is taken: `None` if not, else whether it holds exactly `data`. What equals
    /// is also synced: whoever put it may not have come that far.
    fn compare(
        &self,
        folder: BorrowedFd<'_>,
        name: &ObjectName,
        data: &[u8],
    ) -> StoreResult<Option<Put>> {
        let Some((file, size)) = self.open_object("write", folder, name)? else {
            return match folder::is_folder(folder, split(name).1) {
                true => Err(self.refuse(
                    "write",
                    name.as_str(),
                    StoreErrorKind::Conflict,
                    "a folder has this name",
                )),
                false => Ok(None),
            };
        };
        let failed = |e: io::Error| self.fail("write", name.as_str(), e);
        let equal = size == data.len() as u64 && holds(&file, data).map_err(failed)?;
        if !equal {
            let cause = format!(
                "an object of this name is there already, of {size} bytes, and differs from the {} bytes to be stored",
                data.len()
            );
            return Err(self.refuse("write", name.as_str(), StoreErrorKind::Conflict, cause));
        }
        (self.calls.sync)(file.as_fd()).map_err(|e| failed(e.into()))?;
        self.sync_folders("write", folder, name)?;
        Ok(Some(Put::AlreadyThere))
    }
}

/// Files are the owner's alone: they name what is stored, though they are encrypted.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

fn split(name: &ObjectName) -> (&str, &str) {
    name.as_str()
        .rsplit_once('/')
        .unwrap_or(("", name.as_str()))
}

fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT)
}

fn is_owner(owner: &str) -> bool {
    owner
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether `file`, as long as `data`, has the bytes of `data`.
fn holds(file: &File, data: &[u8]) -> io::Result<bool> {
    let mut buffer = vec![0; COMPARE_BYTES.min(data.len())];
    let mut offset = 0u64;
    for expected in data.chunks(COMPARE_BYTES) {
        let found = &mut buffer[..expected.len()];
        match file.read_exact_at(found, offset) {
            Ok(()) if found == expected => offset += expected.len() as u64,
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// A temporary file; removed on drop unless it was moved to its name.
struct Temp {
    folder: OwnedFd,
    leaf: String,
    moved: bool,
}

impl Temp {
    fn exists(&self) -> bool {
        rustix::fs::statat(&self.folder, &self.leaf, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Gives the file the name `leaf` in `folder`; `EXIST` when that is taken.
    fn move_new(
        &mut self,
        calls: Calls,
        folder: BorrowedFd<'_>,
        leaf: &str,
    ) -> rustix::io::Result<()> {
        match (calls.move_new)(self.folder.as_fd(), &self.leaf, folder, leaf) {
            Ok(()) => {
                self.moved = true;
                Ok(())
            }
            // NFS and many FUSE file systems cannot; a hard link does not replace either, and the
            // first name goes when `self` is dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let flags = AtFlags::empty();
                rustix::fs::linkat(&self.folder, &self.leaf, folder, leaf, flags)
            }
            Err(errno) => Err(errno),
        }
    }

    fn move_over(&mut self, folder: BorrowedFd<'_>, leaf: &str) -> rustix::io::Result<()> {
        rustix::fs::renameat(&self.folder, &self.leaf, folder, leaf)?;
        self.moved = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.moved {
            // Nothing can be done about a failure here; the file is swept when its lease ends.
            let _ = rustix::fs::unlinkat(&self.folder, &self.leaf, AtFlags::empty());
        }
    }
}

impl ObjectStore for LocalStore {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        let (_, leaf) = split(name);
        let mut written = None;
        for _ in 0..PUT_ROUNDS_MAX {
            let folder = self.make_folder_of(name)?;
            if let Some(put) = self.compare(folder.as_fd(), name, data)? {
                return Ok(put);
            }
            let mut temp = match written.take() {
                Some(temp) => temp,
                None => self.write_temp(name, data)?,
            };
            match temp.move_new(self.calls, folder.as_fd(), leaf) {
                Ok(()) => {
                    self.sync_folders("write", folder.as_fd(), name)?;
                    return Ok(Put::Created);
                }
                Err(Errno::EXIST) => written = Some(temp),
                Err(Errno::NOENT) => written = temp.exists().then_some(temp),
                Err(errno) => return Err(self.fail("write", name.as_str(), errno)),
            }
        }
        Err(self.gave_up(name))
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        let (_, leaf) = split(name);
        let mut written = None;
        for _ in 0..PUT_ROUNDS_MAX {
            let folder = self.make_folder_of(name)?;
            let mut temp = match written.take() {
                Some(temp) => temp,
                None => self.write_temp(name, data)?,
            };
            match temp.move_over(folder.as_fd(), leaf) {
                Ok(()) => return self.sync_folders("write", folder.as_fd(), name),
                Err(Errno::NOENT) => written = temp.exists().then_some(temp),
                Err(Errno::ISDIR) => {
                    let cause = "a folder has this name";
                    return Err(self.refuse(
                        "write",
                        name.as_str(),
                        StoreErrorKind::Conflict,
                        cause,
                    ));
                }
                Err(errno) => return Err(self.fail("write", name.as_str(), errno)),
            }
        }
        Err(self.gave_up(name))
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        let (file, size) = self.open_for_read(name)?;
        let len = usize::try_from(size).ok().filter(|_| size <= bytes_max);
        let Some(len) = len else {
            let cause = format!("it has {size} bytes, more than the {bytes_max} allowed here");
            return Err(self.refuse("read", name.as_str(), StoreErrorKind::Io, cause));
        };
        self.read_at(&file, name, 0, len)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        let (file, size) = self.open_for_read(name)?;
        if offset.checked_add(len as u64).is_none_or(|end| end > size) {
            let cause = format!("{len} bytes from byte {offset} were asked for, but it has {size}");
            return Err(self.refuse("read", name.as_str(), StoreErrorKind::Short, cause));
        }
        self.read_at(&file, name, offset, len)
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        let Some(folder) = self.folder_of("read", name)? else {
            return Ok(None);
        };
        let (_, leaf) = split(name);
        let stat = match rustix::fs::statat(&folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.fail("read", name.as_str(), errno)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some(stat.st_size.unsigned_abs())),
            FileType::Directory => Ok(None),
            other => Err(self.refuse(
                "read",
                name.as_str(),
                StoreErrorKind::Io,
                format!("not a regular file but {other:?}"),
            )),
        }
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        self.list_folder(folder)
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        let Some(folder) = self.folder_of("delete", name)? else {
            return Ok(false);
        };
        let (path, leaf) = split(name);
        let removed = match rustix::fs::unlinkat(&folder, leaf, AtFlags::empty()) {
            Ok(()) => true,
            Err(Errno::NOENT | Errno::ISDIR) => false,
            // A read-only file system says so before it looks.
            Err(Errno::ROFS) if !folder::is_taken(folder.as_fd(), leaf) => false,
            Err(errno) => return Err(self.fail("delete", name.as_str(), errno)),
        };
        // Also when it was gone: whoever removed it may not have synced yet, and the caller's
        // next step may rest on its absence.
        match folder::sync(folder.as_fd(), self.calls.sync) {
            Ok(()) => {}
            Err(Errno::ROFS) if !removed => {}
            Err(errno) => return Err(self.fail("delete", name.as_str(), errno)),
        }
        if removed {
            folder::remove_emptied(self.root.as_fd(), path);
        }
        Ok(removed)
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    /// An owner must be of `[a-z0-9-]`, at most 200 bytes; with any other, puts fail.
    fn set_temp_owner(&self, owner: &str) {
        let mut held = self
            .temp_owner
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        owner.clone_into(&mut held);
    }

    /// A file that was begun before an owner was set has the owner `""`.
    fn sweep_temps(&self, ended: &dyn Fn(&str) -> bool) -> StoreResult<u64> {
        let failed = |e| self.fail("delete", TEMP_FOLDER, e);
        let folder = match folder::open(self.root.as_fd(), TEMP_FOLDER) {
            Ok(fd) => fd,
            Err(Walk::Missing) => return Ok(0),
            Err(walk) => return Err(self.walk_failed("delete", TEMP_FOLDER, &walk)),
        };
        let mut entries = rustix::fs::Dir::read_from(&folder).map_err(failed)?;
        let mut swept = 0;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(failed)?;
            let Some(owner) = temp_owner_of(entry.file_name()) else {
                continue;
            };
            if ended(owner) {
                match rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty()) {
                    Ok(()) => swept += 1,
                    Err(Errno::NOENT | Errno::ISDIR) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
        }
        Ok(swept)
    }

    fn place(&self) -> String {
        self.place.display().to_string()
    }
}

impl LocalStore {
    fn read_at(
        &self,
        file: &File,
        name: &ObjectName,
        offset: u64,
        len: usize,
    ) -> StoreResult<Vec<u8>> {
        let mut data = vec![0; len];
        match file.read_exact_at(&mut data, offset) {
            Ok(()) => Ok(data),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let cause = format!("it became shorter than {len} bytes from byte {offset}");
                Err(self.refuse("read", name.as_str(), StoreErrorKind::Short, cause))
            }
            Err(e) => Err(self.fail("read", name.as_str(), e)),
        }
    }

    fn gave_up(&self, name: &ObjectName) -> StoreError {
        let cause = format!("its name or folder kept changing in {PUT_ROUNDS_MAX} tries");
        self.refuse("write", name.as_str(), StoreErrorKind::Io, cause)
    }
}

/// The owner in a temporary file's name; `None` for a name that no put would have chosen.
fn temp_owner_of(leaf: &CStr) -> Option<&str> {
    let (owner, random) = leaf.to_str().ok()?.rsplit_once('.')?;
    let chosen = random.len() == 32 && random.bytes().all(|b| b.is_ascii_hexdigit());
    (chosen && is_owner(owner)).then_some(owner)
}
