//! What every command starts from.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use podkeep_engine::operations::OperationError;
use podkeep_engine::repo::{Credential, OpenOptions, RepoError, Repository};
use podkeep_engine::store::local::LocalStore;
use podkeep_engine::store::remote::RemoteStore;
use podkeep_engine::store::{ObjectStore, StoreError, StoreErrorKind};
use podkeep_format::keys::WriteKeyFile;
use podkeep_format::names;
use zeroize::Zeroizing;

use crate::afar::far::Far;
use crate::arguments::Global;
use crate::failure::{Exit, Failure};
use crate::identity;
use crate::messages::Summary;
use crate::output::Output;
use crate::passphrase::{self, Given, Origin, Secret};
use crate::places::{Place, Surroundings};
use crate::progress::Reporter;
use crate::remote;
use crate::signals::Signals;
use crate::whose::Whose;

/// The arguments that all commands share, the streams, and the signals.
pub struct Context<'a> {
    pub global: &'a Global,
    pub output: &'a Output,
    pub signals: Signals,
    pub whose: Whose,
    /// This podkeep works for one at the other end of a link.
    pub far: Option<Far>,
}

/// Whose name a command works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The host's, made on first use.
    Lasting,
    /// The host's if it has one.
    Known,
}

/// What a command amounts to when it did not fail.
pub struct Done {
    pub exit: Exit,
    pub summary: Summary,
    /// The closing lines for people.
    pub text: Vec<String>,
}

impl<'a> Context<'a> {
    pub fn new(global: &'a Global, output: &'a Output, signals: Signals, whose: Whose) -> Self {
        Self {
            global,
            output,
            signals,
            whose,
            far: None,
        }
    }

    /// For the podkeep at the other end of a link.
    pub fn of_a_job(
        global: &'a Global,
        output: &'a Output,
        signals: Signals,
        whose: Whose,
        far: Far,
    ) -> Self {
        Self {
            far: Some(far),
            ..Self::new(global, output, signals, whose)
        }
    }

    pub fn reporter(&self) -> Reporter<'a> {
        Reporter::new(self.output, self.signals.clone(), self.global.json_progress)
    }

    /// Where the repository's passphrase or key comes from.
    pub fn origin(&self) -> Origin {
        passphrase::origin(
            &Given {
                password_file: self.global.password_file.clone(),
                password_command: self.global.password_command.clone(),
                key_file: self.global.key_file.clone(),
            },
            &|name| std::env::var_os(name),
        )
    }

    /// The place that `--repo`, PODKEEP_REPO or the default names.
    pub fn repository_place(&self) -> Result<Place, Failure> {
        match &self.far {
            Some(far) => Ok(Place::Handed(far.place())),
            None => self.surroundings().repository(self.global.repo.as_deref()),
        }
    }

    /// Opens the repository, for a command that only reads what is stored.
    pub fn open(&self, reporter: &Reporter<'_>) -> Result<Repository, Failure> {
        self.open_as(reporter, Identity::Known)
    }

    /// Opens the repository, for a command that stores something in this host's name.
    pub fn open_to_write(&self, reporter: &Reporter<'_>) -> Result<Repository, Failure> {
        self.open_as(reporter, Identity::Lasting)
    }

    fn open_as(&self, reporter: &Reporter<'_>, identity: Identity) -> Result<Repository, Failure> {
        let Some(far) = &self.far else {
            return Ok(self.open_with_secret(reporter, identity)?.0);
        };
        let (store, credential) = far.repository()?;
        let cache = match far.may_keep() {
            true => self.cache_or_note(reporter),
            // What the keys open is nobody's business on that machine's disks.
            false => None,
        };
        self.open_in(store, &credential, cache, identity)
    }

    pub fn open_with_secret(
        &self,
        reporter: &Reporter<'_>,
        identity: Identity,
    ) -> Result<(Repository, Secret), Failure> {
        let ask = || passphrase::read(&self.origin());
        self.open_at(&self.repository_place()?, ask, reporter, identity)
    }

    /// Whether there is a repository at `place` is found out before `ask` asks anybody for its
    /// passphrase.
    pub fn open_at(
        &self,
        place: &Place,
        ask: impl FnOnce() -> Result<Secret, Failure>,
        reporter: &Reporter<'_>,
        identity: Identity,
    ) -> Result<(Repository, Secret), Failure> {
        let store = self.open_store(place)?;
        let secret = ask()?;
        let credential = match &secret {
            Secret::Passphrase(passphrase) => Credential::Passphrase(passphrase.clone()),
            Secret::WriteKey(bytes) => {
                let text = str::from_utf8(bytes)
                    .map_err(|_| Failure::key_file("the key file is not text".to_owned()))?;
                WriteKeyFile::decode(text)
                    .map_err(|error| Failure::key_file(format!("the key file is none: {error}")))?;
                Credential::WriteKey(Zeroizing::new(text.to_owned()))
            }
        };
        let cache = self.cache_or_note(reporter);
        let repository = self.open_in(store, &credential, cache, identity)?;
        Ok((repository, secret))
    }

    /// Opens the repository that `given` names, for a migration that goes through it, and says where it
    /// lies.
    pub fn open_way(
        &self,
        given: &OsStr,
        reporter: &Reporter<'_>,
    ) -> Result<(Repository, Place), Failure> {
        if let Some(far) = &self.far {
            return Ok((self.open_to_write(reporter)?, Place::Handed(far.place())));
        }
        let place = match self.surroundings().repository(Some(given))? {
            Place::Path(path) => Place::Path(std::path::absolute(&path).unwrap_or(path)),
            place => place,
        };
        let ask = || passphrase::read(&self.origin());
        let (repository, _) = self.open_at(&place, ask, reporter, Identity::Lasting)?;
        match repository.is_full() {
            true => Ok((repository, place)),
            false => Err(Failure::usage(
                "a write key cannot read what the target is to restore".to_owned(),
                "--via needs the passphrase of the repository",
            )),
        }
    }

    fn cache_or_note(&self, reporter: &Reporter<'_>) -> Option<PathBuf> {
        match self.cache() {
            Ok(cache) => Some(cache),
            Err(failure) => {
                reporter.note(
                    "cache".to_owned(),
                    format!("{}; nothing is cached", failure.message),
                );
                None
            }
        }
    }

    fn open_in(
        &self,
        store: Arc<dyn ObjectStore>,
        credential: &Credential,
        cache: Option<PathBuf>,
        identity: Identity,
    ) -> Result<Repository, Failure> {
        let host = match identity {
            Identity::Lasting => identity::lasting(&self.state()?)?,
            // Whoever only reads needs no name that lasts.
            Identity::Known => match self.state().and_then(|s| identity::known(&s)) {
                Ok(Some(host)) => host,
                Ok(None) | Err(_) => identity::random()?,
            },
        };
        let options = OpenOptions {
            cache,
            host,
            host_name: identity::name(&self.whose),
        };
        Repository::open(store, credential, &options).map_err(|error| self.failure(error.into()))
    }

    pub fn open_store(&self, place: &Place) -> Result<Arc<dyn ObjectStore>, Failure> {
        let missing = || {
            self.failure(OperationError::Repository(RepoError::NoRepository {
                place: place.to_string(),
            }))
        };
        let failed = |error: StoreError| match error.kind {
            StoreErrorKind::NotFound => missing(),
            _ => self.failure(error.into()),
        };
        let store: Arc<dyn ObjectStore> = match place {
            Place::Path(path) => Arc::new(LocalStore::open(path).map_err(failed)?),
            Place::Remote(address) => {
                let link = remote::connect(self.global, address)?;
                let place = address.to_string();
                let store = RemoteStore::open(link, &address.path, false, &place);
                Arc::new(store.map_err(failed)?)
            }
            Place::Handed(_) => return Err(Failure::defect()),
        };
        match self.has_config(&*store)? {
            true => Ok(store),
            false => Err(missing()),
        }
    }

    /// Whether a store holds a repository.
    pub fn has_config(&self, store: &dyn ObjectStore) -> Result<bool, Failure> {
        for second in [false, true] {
            if let Some(config) = podkeep_engine::store::ObjectName::parse(&names::config(second))
                && store
                    .size(&config)
                    .map_err(|error| self.failure(error.into()))?
                    .is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// In words, with a hint and an exit code.
    pub fn failure(&self, error: OperationError) -> Failure {
        Failure::operation(error, self.signals.received())
    }

    /// The folder of what must last of the host that is worked on. That of another user's Podman is
    /// root's, beside root's own.
    pub fn state(&self) -> Result<PathBuf, Failure> {
        let state = self.surroundings().state()?;
        Ok(match &self.whose {
            Whose::User(account) => state.join("users").join(account.uid.to_string()),
            Whose::Own | Whose::Inside(_) | Whose::Afar(_) => state,
        })
    }

    pub fn cache(&self) -> Result<PathBuf, Failure> {
        self.surroundings().cache(self.global.cache_dir.as_deref())
    }

    pub fn surroundings(&self) -> Surroundings<'static> {
        Surroundings {
            root: self.whose.is_root(),
            variable: &|name| std::env::var_os(name),
        }
    }
}

/// 0, or 3 after warnings.
pub fn exit_after(warnings: u64) -> Exit {
    if warnings == 0 {
        Exit::Done
    } else {
        Exit::Warnings
    }
}
