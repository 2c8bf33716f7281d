//! The far end of a remote store: a local store, for whoever is at the other end of the pipes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use podkeep_format::names::Name;
use podkeep_format::wire::{Action, Answer, Failure, FailureCode, Request, Row, WireMedium};

use super::local::{CreateError, LocalStore};
use super::{Medium, ObjectName, ObjectStore, Put, StoreError, StoreErrorKind};
use crate::link::{Serve, Sink};

/// Content is read and sent in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;
/// Rows that are sent at a time.
const ROWS: usize = 4096;

/// What the near end may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Whatever the login may.
    All,
    /// That, in one place.
    Within(PathBuf),
    /// Reading, and adding snapshots, in one place (`docs/wire-protocol.md`, "Append-only").
    AppendOnly(PathBuf),
    /// Reading, with a lease, in one place.
    Reading(PathBuf),
}

/// Serves one store, which the first request opens.
pub struct StoreAgent {
    rights: Rights,
    /// What relative paths are below.
    home: PathBuf,
    store: OnceLock<Arc<dyn ObjectStore>>,
    /// The store was there from the start, and is what is opened whatever is asked for.
    given: bool,
    /// Leases that were put over this connection.
    leases: Mutex<BTreeSet<String>>,
}

impl StoreAgent {
    pub fn new(rights: Rights, home: PathBuf) -> Self {
        Self {
            rights,
            home,
            store: OnceLock::new(),
            given: false,
            leases: Mutex::default(),
        }
    }

    /// Serves `store`, whatever is asked to be opened.
    pub fn of_store(rights: Rights, store: Arc<dyn ObjectStore>) -> Self {
        let opened = OnceLock::from(store);
        Self {
            store: opened,
            given: true,
            ..Self::new(rights, PathBuf::from("/"))
        }
    }

    /// Gives leases back that whoever put them over this connection can give back no more: for an end
    /// that knows that theirs is gone. What cannot be deleted stands still, as a killed run's does.
    pub fn give_back(&self) {
        for lease in std::mem::take(&mut *self.leases()) {
            if let (Ok(store), Some(name)) = (self.store(), ObjectName::parse(&lease)) {
                let _ = store.delete(&name);
            }
        }
    }

    fn open(&self, path: &[u8], make: bool) -> Result<Answer, Failure> {
        let action = if make { Action::Create } else { Action::Open };
        let path = self.home.join(OsStr::from_bytes(path));
        let refuse = |cause: &str| refusal(action, path.display().to_string(), cause);
        match &self.rights {
            Rights::All => {}
            Rights::Within(allowed) | Rights::AppendOnly(allowed) | Rights::Reading(allowed)
                if same(allowed, &path) => {}
            Rights::Within(allowed) | Rights::AppendOnly(allowed) | Rights::Reading(allowed) => {
                let cause = format!("this key opens {} only", allowed.display());
                return Err(refuse(&cause));
            }
        }
        match self.rights {
            Rights::AppendOnly(_) if make => {
                return Err(refuse("this key may add snapshots only"));
            }
            Rights::Reading(_) if make => return Err(refuse("this key may only read")),
            _ => {}
        }
        if self.store.get().is_none() {
            let opened = match make {
                false => LocalStore::open(&path).map_err(|error| failure(&error))?,
                true => LocalStore::create(&path).map_err(|error| match error {
                    CreateError::Store(error) => failure(&error),
                    occupied => Failure {
                        code: FailureCode::Occupied,
                        ..refuse(&occupied.to_string())
                    },
                })?,
            };
            // Of two that open at once the first counts.
            let _ = self.store.set(Arc::new(opened));
        } else if !self.given {
            return Err(refuse("a store is open already"));
        }
        let capacity = match self.given {
            true => 0,
            false => rustix::fs::statvfs(&path)
                .map(|stat| stat.f_blocks.saturating_mul(stat.f_frsize))
                .unwrap_or_default(),
        };
        let medium = match self.store()?.medium() {
            Medium::Linearizable => WireMedium::Linearizable,
            Medium::Settles { secs } => WireMedium::Settles { secs },
            Medium::Undeclared => WireMedium::Undeclared,
        };
        Ok(Answer::Opened { medium, capacity })
    }

    fn store(&self) -> Result<&dyn ObjectStore, Failure> {
        match self.store.get() {
            Some(store) => Ok(&**store),
            None => Err(refusal(Action::Open, String::new(), "no store is open")),
        }
    }

    /// Refuses what a key with fewer rights must not do, before it is done.
    fn check(&self, request: &Request, object: &[u8]) -> Result<(), Failure> {
        let reads_only = match self.rights {
            Rights::All | Rights::Within(_) => return Ok(()),
            Rights::AppendOnly(_) => false,
            Rights::Reading(_) => true,
        };
        let refuse = |action, name: &str, cause| Err(refusal(action, name.to_owned(), cause));
        match request {
            Request::Put { name, .. }
                if reads_only && !matches!(Name::parse(name), Some(Name::Lease(..))) =>
            {
                refuse(Action::Write, name, "this key may only read")
            }
            Request::Put { name, .. } => {
                let named = *blake3::hash(object).as_bytes();
                let fits = match Name::parse(name) {
                    Some(Name::Pack(id)) => id.0 == named,
                    Some(Name::Segment(id)) => id.0 == named,
                    Some(Name::Snapshot { id, .. }) => id.0 == named,
                    Some(Name::Layer { record, .. }) => record.0 == named,
                    Some(Name::Run(_) | Name::Lease(..)) => true,
                    _ => {
                        return refuse(
                            Action::Write,
                            name,
                            "this key may add snapshots only, and this is no part of one",
                        );
                    }
                };
                match fits {
                    true => Ok(()),
                    false => refuse(Action::Write, name, "its bytes are not what its name says"),
                }
            }
            Request::Delete { name } => match self.leases().contains(name) {
                true => Ok(()),
                false => refuse(
                    Action::Delete,
                    name,
                    "this key may delete leases of its own connection only",
                ),
            },
            Request::Replace { name, .. } => {
                refuse(Action::Write, name, "this key may replace nothing")
            }
            Request::SweepTemps(_) => refuse(
                Action::Delete,
                "temporary files",
                "this key may delete leases of its own connection only",
            ),
            Request::Open { .. }
            | Request::Make { .. }
            | Request::Get { .. }
            | Request::GetRange { .. }
            | Request::Size { .. }
            | Request::List { .. }
            | Request::TempOwner { .. }
            | Request::TempOwners => Ok(()),
            _ => no_host(),
        }
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `len` bytes from `offset`, of an object that has them.
    fn send(
        &self,
        name: &ObjectName,
        offset: u64,
        len: u64,
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        let store = self.store()?;
        sink.expect(len);
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < len {
            let piece = (len - at).min(PIECE_BYTES);
            let bytes = store
                .get_range(name, offset + at, piece as usize)
                .map_err(|error| failure(&error))?;
            hasher.update(&bytes);
            if !sink.content(&bytes) {
                break;
            }
            at += piece;
        }
        let hash = *hasher.finalize().as_bytes();
        Ok(Answer::Content { len: at, hash })
    }

    fn owners(&self) -> Result<BTreeSet<String>, Failure> {
        let owners = Mutex::new(BTreeSet::new());
        let look = |owner: &str| {
            let mut owners = owners.lock().unwrap_or_else(PoisonError::into_inner);
            owners.insert(owner.to_owned());
            false
        };
        self.store()?
            .sweep_temps(&look)
            .map_err(|error| failure(&error))?;
        Ok(owners.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Serve for StoreAgent {
    fn serve(
        &self,
        request: &Request,
        object: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        match request {
            Request::Open { path } => return self.open(path, false),
            Request::Make { path } => return self.open(path, true),
            other if !other.is_of_store() => return no_host(),
            _ => {}
        }
        let store = self.store()?;
        self.check(request, object)?;
        let failed = |error: StoreError| failure(&error);
        match request {
            Request::Open { path } => self.open(path, false),
            Request::Make { path } => self.open(path, true),
            Request::Put { name, .. } => {
                let put = store.put_new(&named(name)?, object).map_err(failed)?;
                if name.starts_with(podkeep_format::names::LEASES) && put == Put::Created {
                    self.leases().insert(name.clone());
                }
                Ok(Answer::Stored {
                    created: put == Put::Created,
                })
            }
            Request::Replace { name, .. } => {
                store.replace(&named(name)?, object).map_err(failed)?;
                Ok(Answer::Stored { created: true })
            }
            Request::Get { name, bytes_max } => {
                let name = named(name)?;
                match store.size(&name).map_err(failed)? {
                    Some(size) if size <= *bytes_max => self.send(&name, 0, size, sink),
                    // The store says why.
                    _ => {
                        let content = store.get(&name, *bytes_max).map_err(failed)?;
                        sink.content(&content);
                        Ok(content_answer(&content))
                    }
                }
            }
            Request::GetRange { name, offset, len } => {
                let name = named(name)?;
                let size = store.size(&name).map_err(failed)?.unwrap_or_default();
                if offset.checked_add(*len).is_some_and(|end| end <= size) && *len > 0 {
                    return self.send(&name, *offset, *len, sink);
                }
                let len = usize::try_from(*len).unwrap_or(usize::MAX);
                let content = store.get_range(&name, *offset, len).map_err(failed)?;
                sink.content(&content);
                Ok(content_answer(&content))
            }
            Request::Size { name } => {
                let size = store.size(&named(name)?).map_err(failed)?;
                Ok(Answer::Size(size))
            }
            Request::List { folder } => {
                let listed = store.list(folder).map_err(failed)?;
                for part in listed.chunks(ROWS) {
                    let rows: Vec<Row> = part
                        .iter()
                        .map(|meta| Row {
                            name: meta.name.as_str().to_owned(),
                            size: meta.size,
                        })
                        .collect();
                    sink.rows(&rows);
                }
                Ok(Answer::Listed {
                    rows: listed.len() as u64,
                })
            }
            Request::Delete { name } => {
                let deleted = store.delete(&named(name)?).map_err(failed)?;
                self.leases().remove(name);
                Ok(Answer::Deleted(deleted))
            }
            Request::TempOwner { owner } => {
                store.set_temp_owner(owner);
                Ok(Answer::Done)
            }
            Request::TempOwners => {
                let owners = self.owners()?;
                let count = owners.len() as u64;
                let rows: Vec<Row> = owners
                    .into_iter()
                    .map(|name| Row { name, size: 0 })
                    .collect();
                sink.rows(&rows);
                Ok(Answer::Listed { rows: count })
            }
            Request::SweepTemps(batch) => {
                let gone = |owner: &str| batch.owners().iter().any(|o| o == owner);
                Ok(Answer::Swept(store.sweep_temps(&gone).map_err(failed)?))
            }
            _ => no_host(),
        }
    }
}

/// A store has no Podman.
fn no_host<T>() -> Result<T, Failure> {
    let cause = "this key opens a store, and no Podman";
    Err(refusal(Action::Open, String::new(), cause))
}

fn content_answer(content: &[u8]) -> Answer {
    Answer::Content {
        len: content.len() as u64,
        hash: *blake3::hash(content).as_bytes(),
    }
}

/// Whether both are one place, through links, and also before it is made.
fn same(allowed: &Path, asked: &Path) -> bool {
    match (std::fs::canonicalize(allowed), std::fs::canonicalize(asked)) {
        (Ok(allowed), Ok(asked)) => allowed == asked,
        // Plain components only: what is not there yet has no links in it.
        (Err(_), Err(_)) => {
            let climbs = |path: &Path| path.components().any(|c| c.as_os_str() == "..");
            allowed == asked && !climbs(asked)
        }
        _ => false,
    }
}

fn named(name: &str) -> Result<ObjectName, Failure> {
    ObjectName::parse(name).ok_or_else(|| {
        refusal(
            Action::Open,
            name.to_owned(),
            "that is no name of an object",
        )
    })
}

fn refusal(action: Action, object: String, cause: &str) -> Failure {
    Failure {
        code: FailureCode::Refused,
        action,
        object,
        cause: cause.to_owned(),
    }
}

/// As the other end is told of it.
pub fn failure(error: &StoreError) -> Failure {
    Failure {
        code: match error.kind {
            StoreErrorKind::NotFound => FailureCode::NotFound,
            StoreErrorKind::Conflict => FailureCode::Conflict,
            StoreErrorKind::Short => FailureCode::Short,
            StoreErrorKind::NoSpace => FailureCode::NoSpace,
            StoreErrorKind::NotWritable => FailureCode::NotWritable,
            StoreErrorKind::Io => FailureCode::Io,
            StoreErrorKind::Unreachable => FailureCode::Unreachable,
        },
        action: Action::of(error.action),
        object: error.object.clone(),
        cause: error.cause.clone(),
    }
}
