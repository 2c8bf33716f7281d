//! Where bytes lie: a flat, durable, write-once object store.
//!
//! Every medium (a local folder, memory, later an agent or S3) implements [`ObjectStore`];
//! retry, recording and fault injection are wrappers that implement it too. The trait's comments
//! are the contract: `conformance` runs it against each of them.

use std::fmt;
use std::io;
use std::sync::Arc;

pub mod agent;
pub mod faults;
pub mod local;
pub mod memory;
pub mod recording;
pub mod remote;
pub mod retry;

/// The name of an object: `/`-separated components of `[a-z0-9][a-z0-9.-]*`, at most 200 bytes
/// in all. Lower case only, so that a medium that folds case cannot mix two objects up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// `None` when `name` is not of the form above.
    pub fn parse(name: &str) -> Option<Self> {
        let component = |c: &str| {
            let head = c.bytes().next();
            head.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                && c.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
        };
        (name.len() <= 200 && name.split('/').all(component)).then(|| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectName({})", self.0)
    }
}

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    pub name: ObjectName,
    /// Bytes, as the medium reports them.
    pub size: u64,
}

/// What [`ObjectStore::put_new`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is new and durable.
    Created,
    /// An object of this name with exactly these bytes was there already, and is durable.
    AlreadyThere,
}

/// How soon a listing shows what another client put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// List-after-put is linearizable: 0 seconds.
    Linearizable,
    /// A listing may lag behind by at most this many seconds (NFS, SMB, FUSE).
    Settles { secs: u32 },
    /// Nobody said: prune refuses to run.
    Undeclared,
}

/// What a caller must treat differently. The wording comes from [`StoreError`]'s fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No object of that name (or no store at that place).
    NotFound,
    /// An object of that name has other bytes, or the name is a folder of another object's name,
    /// or has one for its folder: nothing was changed.
    Conflict,
    /// Fewer bytes than asked for, or than the listing said.
    Short,
    /// ENOSPC or EDQUOT: the partial object has been removed.
    NoSpace,
    /// EROFS, EACCES, EPERM.
    NotWritable,
    /// The medium failed (EIO, ...).
    Io,
    /// The link to the medium is gone; trying again may help.
    Unreachable,
}

/// A failed store operation: what was being done, to which object, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action} {object}: {cause}")]
pub struct StoreError {
    /// A verb: "read", "write", "list", "delete", "open".
    pub action: &'static str,
    /// The object's name, or a folder of the store, with the store's place in front.
    pub object: String,
    pub kind: StoreErrorKind,
    /// The cause in the medium's own words (an errno text, what was short by how much).
    pub cause: String,
}

impl StoreError {
    /// Classifies an I/O error of the local file system.
    pub fn from_io(action: &'static str, object: impl fmt::Display, error: &io::Error) -> Self {
        let kind = match error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error)
        {
            Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => StoreErrorKind::NoSpace,
            Some(rustix::io::Errno::ROFS | rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                StoreErrorKind::NotWritable
            }
            Some(rustix::io::Errno::NOENT) => StoreErrorKind::NotFound,
            // A network or FUSE file system whose other end is gone.
            Some(
                rustix::io::Errno::NOTCONN
                | rustix::io::Errno::TIMEDOUT
                | rustix::io::Errno::HOSTDOWN
                | rustix::io::Errno::HOSTUNREACH
                | rustix::io::Errno::NETDOWN
                | rustix::io::Errno::NETUNREACH,
            ) => StoreErrorKind::Unreachable,
            _ => match error.kind() {
                io::ErrorKind::NotFound => StoreErrorKind::NotFound,
                io::ErrorKind::UnexpectedEof => StoreErrorKind::Short,
                _ => StoreErrorKind::Io,
            },
        };
        Self {
            action,
            object: object.to_string(),
            kind,
            cause: error.to_string(),
        }
    }
}

pub type StoreResult<T> = Result<T, StoreError>;

/// A flat set of named, immutable objects.
///
/// Contract, for every implementation and wrapper:
/// - An object is visible under its name only with all its bytes.
/// - No object's name is a folder of another's: where `a/b` is, a put of `a` is a
///   [`StoreErrorKind::Conflict`], and the other way round (a file system cannot hold both).
/// - Operations on different names never disturb each other; every method may be called from
///   many threads and from many processes at once.
/// - No method retries by itself, except where it says so (the retry wrapper).
pub trait ObjectStore: Send + Sync {
    /// Stores `data` under `name`, durably: after `Ok` the object survives a power cut.
    /// Never replaces: if the name is taken, its size and BLAKE3 are compared with `data`'s;
    /// equal is `AlreadyThere` (so a put may be tried again after an unclear failure),
    /// different is [`StoreErrorKind::Conflict`]. After any error the name is either absent
    /// or holds exactly `data`.
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put>;

    /// Puts `data` in the place of whatever stands under `name`, durably and atomically.
    /// Only for repair and check (bytes that hash to the name, or a good twin's bytes).
    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()>;

    /// The whole object. `bytes_max` bounds what is read into memory: an object larger than
    /// that is [`StoreErrorKind::Io`] with a cause that says so.
    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>>;

    /// Exactly `len` bytes from `offset`; fewer there are is [`StoreErrorKind::Short`].
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>>;

    /// Size in bytes, or `None` when there is no such object.
    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>>;

    /// Every object below the component path `folder` (no trailing slash; `""` is everything;
    /// an object named exactly `folder` is not below it), sorted by name. A folder that does not exist is an empty listing.
    /// Objects put or deleted meanwhile may or may not be listed; all others are.
    /// Temporary files and foreign names are never listed.
    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>>;

    /// Removes the object, durably. `false`: there was none.
    fn delete(&self, name: &ObjectName) -> StoreResult<bool>;

    fn medium(&self) -> Medium;

    /// Tags the temporary files of later puts with this owner (a lease id in hex), so that
    /// somebody else can tell whose they were. Media without temporary files ignore it.
    fn set_temp_owner(&self, _owner: &str) {}

    /// Removes temporary files whose owner `ended` says is gone; returns how many.
    fn sweep_temps(&self, _ended: &dyn Fn(&str) -> bool) -> StoreResult<u64> {
        Ok(0)
    }

    /// The place as a person would write it: a path or a URL.
    fn place(&self) -> String;
}

impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        (**self).put_new(name, data)
    }
    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        (**self).replace(name, data)
    }
    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        (**self).get(name, bytes_max)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        (**self).get_range(name, offset, len)
    }
    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        (**self).size(name)
    }
    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        (**self).list(folder)
    }
    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        (**self).delete(name)
    }
    fn medium(&self) -> Medium {
        (**self).medium()
    }
    fn set_temp_owner(&self, owner: &str) {
        (**self).set_temp_owner(owner);
    }
    fn sweep_temps(&self, ended: &dyn Fn(&str) -> bool) -> StoreResult<u64> {
        (**self).sweep_temps(ended)
    }
    fn place(&self) -> String {
        (**self).place()
    }
}
