//! A store that another podkeep has, at the far end of a link.
//!
//! Puts and gets of several threads are under way at once, up to the protocol's bound; each method
//! waits for its own answer. A link that is lost fails them all as
//! [`StoreErrorKind::Unreachable`], naming the host, and every later call too: nothing is asked
//! again, since nobody knows whether it was done.

use std::sync::{Mutex, PoisonError};

use podkeep_format::item::Escaped;
use podkeep_format::wire::{
    Action, Answer, Failure, FailureCode, OwnerBatch, Reply, Request, WireMedium,
};

use super::{
    Medium, ObjectMeta, ObjectName, ObjectStore, Put, StoreError, StoreErrorKind, StoreResult,
};
use crate::link::{Ask, Traffic, Unanswered};

/// A store behind a link; dropping it ends the link.
pub struct RemoteStore {
    link: Box<dyn Ask>,
    /// As whoever asked for it wrote it.
    place: String,
    medium: Medium,
    capacity: u64,
    /// Why the temporary files of later puts have no owner: the first put says it.
    unowned: Mutex<Option<StoreError>>,
}

impl RemoteStore {
    /// Opens the store at `path` of the far machine, or with `make` makes an empty one there.
    /// `place` is the whole address, for messages.
    /// [`StoreErrorKind::Conflict`]: the place for a new one is taken.
    pub fn open(
        link: impl Ask + 'static,
        path: &[u8],
        make: bool,
        place: &str,
    ) -> StoreResult<Self> {
        Self::try_open(link, path, make, place).map_err(|(_, error)| error)
    }

    /// The same; a link that still stands is handed back with the error.
    pub fn try_open(
        link: impl Ask + 'static,
        path: &[u8],
        make: bool,
        place: &str,
    ) -> Result<Self, (Box<dyn Ask>, StoreError)> {
        let path = path.to_vec();
        let (action, request) = match make {
            false => ("open", Request::Open { path }),
            true => ("create", Request::Make { path }),
        };
        let mut store = Self {
            link: Box::new(link),
            place: place.to_owned(),
            medium: Medium::Undeclared,
            capacity: 0,
            unowned: Mutex::new(None),
        };
        match store.ask(action, "", &request, b"") {
            Ok(Reply::Answer(Answer::Opened { medium, capacity })) => {
                store.medium = match medium {
                    WireMedium::Linearizable => Medium::Linearizable,
                    WireMedium::Settles { secs } => Medium::Settles { secs },
                    WireMedium::Undeclared => Medium::Undeclared,
                };
                store.capacity = capacity;
                Ok(store)
            }
            Ok(_) => {
                let error = store.odd(action, "");
                Err((store.link, error))
            }
            Err(error) => Err((store.link, error)),
        }
    }

    /// Bytes of the file system that it lies on; 0 when the far end does not know.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    pub fn traffic(&self) -> Traffic {
        self.link.traffic()
    }

    fn ask(
        &self,
        action: &'static str,
        object: &str,
        request: &Request,
        bytes: &[u8],
    ) -> StoreResult<Reply> {
        self.link
            .ask(request, bytes)
            .map_err(|unanswered| match unanswered {
                Unanswered::Failed(failure) => self.failed(failure, object),
                Unanswered::Lost(cause) => self.error(
                    action,
                    object,
                    StoreErrorKind::Unreachable,
                    format!("{}: {cause}", self.link.host()),
                ),
            })
    }

    fn error(
        &self,
        action: &'static str,
        object: &str,
        kind: StoreErrorKind,
        cause: String,
    ) -> StoreError {
        let object = match object.is_empty() {
            true => self.place.clone(),
            false => format!("{}/{object}", self.place),
        };
        StoreError {
            action,
            object,
            kind,
            cause,
        }
    }

    /// The far end's words, about an object of this place, or about a path of that host.
    fn failed(&self, failure: Failure, object: &str) -> StoreError {
        let kind = match failure.code {
            FailureCode::NotFound => StoreErrorKind::NotFound,
            FailureCode::Conflict | FailureCode::Occupied => StoreErrorKind::Conflict,
            FailureCode::Short => StoreErrorKind::Short,
            FailureCode::NoSpace => StoreErrorKind::NoSpace,
            FailureCode::NotWritable | FailureCode::Refused => StoreErrorKind::NotWritable,
            FailureCode::Io => StoreErrorKind::Io,
            FailureCode::Unreachable => StoreErrorKind::Unreachable,
        };
        let cause = Escaped(failure.cause.as_bytes()).to_string();
        let mut error = self.error(failure.action.word(), object, kind, cause);
        if object.is_empty() {
            let path = Escaped(failure.object.as_bytes());
            error.object = format!("{}:{path}", self.link.host());
        }
        error
    }

    /// An answer that this question does not have.
    fn odd(&self, action: &'static str, object: &str) -> StoreError {
        let cause = "the far end answered another question".to_owned();
        self.error(action, object, StoreErrorKind::Io, cause)
    }

    fn store(&self, name: &ObjectName, request: &Request, data: &[u8]) -> StoreResult<Put> {
        let mut unowned = self.unowned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = unowned.take() {
            return Err(error);
        }
        drop(unowned);
        match self.ask(Action::Write.word(), name.as_str(), request, data)? {
            Reply::Answer(Answer::Stored { created: true }) => Ok(Put::Created),
            Reply::Answer(Answer::Stored { created: false }) => Ok(Put::AlreadyThere),
            _ => Err(self.odd(Action::Write.word(), name.as_str())),
        }
    }

    fn content(&self, name: &ObjectName, request: &Request) -> StoreResult<Vec<u8>> {
        match self.ask(Action::Read.word(), name.as_str(), request, b"")? {
            Reply::Content(bytes) => Ok(bytes),
            _ => Err(self.odd(Action::Read.word(), name.as_str())),
        }
    }
}

impl ObjectStore for RemoteStore {
    fn put_new(&self, name: &ObjectName, data: &[u8]) -> StoreResult<Put> {
        let request = Request::Put {
            name: name.as_str().to_owned(),
            len: data.len() as u64,
            hash: *blake3::hash(data).as_bytes(),
        };
        self.store(name, &request, data)
    }

    fn replace(&self, name: &ObjectName, data: &[u8]) -> StoreResult<()> {
        let request = Request::Replace {
            name: name.as_str().to_owned(),
            len: data.len() as u64,
            hash: *blake3::hash(data).as_bytes(),
        };
        self.store(name, &request, data).map(|_| ())
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> StoreResult<Vec<u8>> {
        let request = Request::Get {
            name: name.as_str().to_owned(),
            bytes_max,
        };
        self.content(name, &request)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> StoreResult<Vec<u8>> {
        let request = Request::GetRange {
            name: name.as_str().to_owned(),
            offset,
            len: len as u64,
        };
        let bytes = self.content(name, &request)?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => {
                let cause = format!("{} bytes came of {len}", bytes.len());
                Err(self.error(
                    Action::Read.word(),
                    name.as_str(),
                    StoreErrorKind::Short,
                    cause,
                ))
            }
        }
    }

    fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        let request = Request::Size {
            name: name.as_str().to_owned(),
        };
        match self.ask(Action::Read.word(), name.as_str(), &request, b"")? {
            Reply::Answer(Answer::Size(size)) => Ok(size),
            _ => Err(self.odd(Action::Read.word(), name.as_str())),
        }
    }

    fn list(&self, folder: &str) -> StoreResult<Vec<ObjectMeta>> {
        // Of a folder that can be no object's there is nothing to be listed.
        if !folder.is_empty() && ObjectName::parse(folder).is_none() {
            return Ok(Vec::new());
        }
        let request = Request::List {
            folder: folder.to_owned(),
        };
        let action = Action::List.word();
        let Reply::Rows(rows) = self.ask(action, folder, &request, b"")? else {
            return Err(self.odd(action, folder));
        };
        let prefix = match folder {
            "" => String::new(),
            _ => format!("{folder}/"),
        };
        rows.into_iter()
            .map(|row| match ObjectName::parse(&row.name) {
                Some(name) if name.as_str().starts_with(&prefix) => Ok(ObjectMeta {
                    name,
                    size: row.size,
                }),
                _ => Err(self.odd(action, folder)),
            })
            .collect()
    }

    fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        let request = Request::Delete {
            name: name.as_str().to_owned(),
        };
        match self.ask(Action::Delete.word(), name.as_str(), &request, b"")? {
            Reply::Answer(Answer::Deleted(deleted)) => Ok(deleted),
            _ => Err(self.odd(Action::Delete.word(), name.as_str())),
        }
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn set_temp_owner(&self, owner: &str) {
        let request = Request::TempOwner {
            owner: owner.to_owned(),
        };
        let failed = self.ask(Action::Write.word(), "", &request, b"").err();
        *self.unowned.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    fn sweep_temps(&self, ended: &dyn Fn(&str) -> bool) -> StoreResult<u64> {
        let action = Action::Delete.word();
        let Reply::Rows(rows) = self.ask(action, "", &Request::TempOwners, b"")? else {
            return Err(self.odd(action, ""));
        };
        let mut owners = rows.into_iter().map(|row| row.name).filter(|o| ended(o));
        let mut next = owners.next();
        let mut swept = 0;
        while next.is_some() {
            let mut batch = OwnerBatch::default();
            while let Some(owner) = next.take() {
                match batch.push(owner) {
                    Ok(()) => next = owners.next(),
                    Err(owner) => {
                        next = Some(owner);
                        break;
                    }
                }
            }
            match self.ask(action, "", &Request::SweepTemps(batch), b"")? {
                Reply::Answer(Answer::Swept(files)) => swept += files,
                _ => return Err(self.odd(action, "")),
            }
        }
        Ok(swept)
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}
