//! Making a repository, and opening one.
//!
//! `init` puts the config last: a place without a config is no repository, whatever a cut-off
//! `init` left there. Opening reads the config (or its twin) and tries the credential; it writes
//! nothing to the store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use podkeep_format::config::Config;
use podkeep_format::id::{HostId, RepositoryId, SlotId};
use podkeep_format::keys::{HandedKeys, KeySlot, Role, Secrets, WriteKeyFile};
use podkeep_format::names;
use podkeep_format::seal::{AuthorKey, PrivateKey, Secret};
use zeroize::Zeroizing;

use super::{
    RepoError, RepoResult, Repository, Traffic, Vault, keys, name, now, put_whole, random, reserve,
    snapshots,
};
use crate::chunk::{ChunkSizes, Chunker, Chunking};
use crate::store::{Medium, ObjectStore, StoreErrorKind};

/// Bytes of a config or key slot.
const SMALL_OBJECT_BYTES_MAX: u64 = 1 << 20;
/// Start values of the block sizes, in the order of `BlockClass::ALL`.
const BLOCK_BYTES: [u32; 4] = [2 << 20, 512 << 10, 8 << 20, 256 << 10];
const PACK_BYTES: u32 = 32 << 20;

/// What opens a repository.
pub enum Credential {
    Passphrase(Zeroizing<Vec<u8>>),
    /// The text of a write key file.
    WriteKey(Zeroizing<String>),
    /// What [`Repository::hand_over`] gave.
    Handed(Zeroizing<String>),
}

/// How a repository is made.
pub struct InitOptions<'r> {
    /// Shares the chunk keys of this one, so that copies between the two need no re-chunking.
    pub like: Option<&'r Repository>,
    /// Space that is set aside, so that a full disk can be mended.
    pub reserve_bytes: u64,
    /// Names the first key slot in listings.
    pub label: String,
}

/// Where this host keeps what, and who it is.
pub struct OpenOptions {
    /// The parent of the repositories' cache folders; `None` caches nothing.
    pub cache: Option<PathBuf>,
    pub host: HostId,
    pub host_name: String,
}

impl Repository {
    /// Makes a repository in an empty store; returns its id.
    ///
    /// What an `init` that was cut off left behind (keys and reserve, no config, no data) is
    /// cleared away; anything else is refused.
    pub fn init(
        store: &dyn ObjectStore,
        passphrase: &[u8],
        options: &InitOptions<'_>,
    ) -> RepoResult<RepositoryId> {
        clear_unfinished(store)?;
        let (chunk_id, chunker) = match options.like {
            Some(like) => {
                like.require_full("share the chunk keys of a repository")?;
                keys::chunk_secrets(like)
            }
            None => (Secret(random()?), Secret(random()?)),
        };
        let private = PrivateKey(random()?);
        let owner = AuthorKey::from_bytes(&random()?);
        let public = private
            .public()
            .map_err(|e| RepoError::damaged("the new key pair", e))?;
        let sizes = options
            .like
            .map_or(ChunkSizes::DEFAULT, |like| like.chunking().chunker.sizes());
        let config = Config {
            repository: RepositoryId(random()?),
            public_key: public,
            owner: owner.id(),
            chunk_min: sizes.min,
            chunk_avg: sizes.avg,
            chunk_max: sizes.max,
            block_bytes: BLOCK_BYTES,
            pack_bytes: PACK_BYTES,
            settle_secs: match store.medium() {
                Medium::Linearizable => Some(0),
                Medium::Settles { secs } => Some(secs),
                Medium::Undeclared => None,
            },
            reserve_bytes: options.reserve_bytes,
            created: now(),
        };
        let secrets = Secrets {
            chunk_id,
            chunker,
            index: Secret(random()?),
            role: Role::Full {
                private,
                owner: owner.clone(),
            },
        };
        keys::put_slot(
            store,
            config.repository,
            &secrets,
            passphrase,
            &options.label,
        )?;
        reserve::fill(store, options.reserve_bytes)?;
        let bytes = config.encode(&owner);
        for second in [true, false] {
            put_whole(store, &names::config(second), &bytes)?;
        }
        Ok(config.repository)
    }

    /// Opens the repository in `store`. Checks the credential first, so that a wrong one costs
    /// no more than the key derivation.
    pub fn open(
        store: Arc<dyn ObjectStore>,
        credential: &Credential,
        options: &OpenOptions,
    ) -> RepoResult<Self> {
        let config = read_config(&*store)?;
        let (secrets, pinned) = match credential {
            Credential::Passphrase(passphrase) => (open_slots(&*store, &config, passphrase)?, None),
            Credential::WriteKey(text) => {
                let file = WriteKeyFile::decode(text)
                    .map_err(|e| RepoError::damaged("the write key file", e))?;
                if file.repository != config.repository {
                    return Err(RepoError::WrongKeyFile {
                        place: store.place(),
                    });
                }
                (file.secrets, Some(file.pin))
            }
            Credential::Handed(text) => {
                let keys = HandedKeys::decode(text)
                    .map_err(|e| RepoError::damaged("the keys for this run", e))?;
                (keys.secrets, Some(keys.pin))
            }
        };
        let swapped = || RepoError::Swapped {
            place: store.place(),
        };
        if pinned.is_some_and(|pin| pin != config.pin())
            || secrets
                .public()
                .is_ok_and(|public| public != config.public_key)
        {
            return Err(swapped());
        }
        // Whoever handed the keys over says which repository it is.
        if !matches!(credential, Credential::Handed(_))
            && let Some(parent) = &options.cache
            && !pin(parent, &store.place(), &config)
        {
            return Err(swapped());
        }
        let cache = options
            .cache
            .as_ref()
            .and_then(|parent| cache_folder(parent, config.repository));
        let vault = vault(&config, &secrets)?;
        let repository = Self {
            chunking: Arc::new(Chunking {
                chunker: Chunker::new(
                    &secrets.chunker.0,
                    ChunkSizes {
                        min: config.chunk_min,
                        avg: config.chunk_avg,
                        max: config.chunk_max,
                    },
                ),
                ids: secrets.chunk_id_key(),
            }),
            store,
            vault: Arc::new(vault),
            secrets,
            cache,
            catalog: OnceLock::new(),
            host: options.host,
            host_name: options.host_name.clone(),
            traffic: Arc::new(Traffic::default()),
            config,
        };
        if !repository.is_full() && snapshots::is_revoked(&repository)? {
            return Err(RepoError::KeyRevoked);
        }
        Ok(repository)
    }
}

fn vault(config: &Config, secrets: &Secrets) -> RepoResult<Vault> {
    let mut hasher = blake3::Hasher::new_keyed(&secrets.index.0);
    hasher.update(b"podkeep cache files");
    Ok(Vault {
        repository: config.repository,
        owner: config.owner,
        index: secrets.index.clone(),
        public: config.public_key,
        private: secrets.private().cloned(),
        author: secrets.author().clone(),
        ids: secrets.chunk_id_key(),
        cache_key: *hasher.finalize().as_bytes(),
    })
}

/// Refuses a place that holds anything but what a cut-off `init` leaves.
fn clear_unfinished(store: &dyn ObjectStore) -> RepoResult<()> {
    let listed = store.list("")?;
    let occupied = |cause: &str| RepoError::Occupied {
        place: store.place(),
        cause: cause.into(),
    };
    for meta in &listed {
        let text = meta.name.as_str();
        if text == names::config(false) || text == names::config(true) {
            return Err(occupied("it is a podkeep repository already"));
        }
        if !text.starts_with("keys/") && !text.starts_with("reserve/") {
            return Err(occupied("it holds podkeep data without a config"));
        }
    }
    for meta in &listed {
        store.delete(&meta.name)?;
    }
    Ok(())
}

/// The config or, where that is missing or damaged, its twin.
pub fn read_config(store: &dyn ObjectStore) -> RepoResult<Config> {
    let mut failure = None;
    for object in [names::config(false), names::config(true)] {
        match store.get(&name(&object)?, SMALL_OBJECT_BYTES_MAX) {
            Ok(bytes) => match Config::decode(&bytes) {
                Ok(config) => return Ok(config),
                Err(error) => failure = Some(RepoError::damaged(object, error)),
            },
            Err(error) if error.kind == StoreErrorKind::NotFound => {}
            Err(error) => {
                failure.get_or_insert(error.into());
            }
        }
    }
    Err(failure.unwrap_or_else(|| RepoError::NoRepository {
        place: store.place(),
    }))
}

fn open_slots(store: &dyn ObjectStore, config: &Config, passphrase: &[u8]) -> RepoResult<Secrets> {
    let mut failure = RepoError::WrongPassphrase;
    for id in keys::list_ids(store)? {
        let opened = read_slot(store, id).and_then(|slot| {
            slot.open(config.repository, passphrase).map_err(|e| {
                use podkeep_format::codec::Defect;
                match e.defect {
                    Defect::NotAuthentic("passphrase") => RepoError::WrongPassphrase,
                    _ => RepoError::damaged(names::key(id, false), e),
                }
            })
        });
        match opened {
            Ok(secrets) => return Ok(secrets),
            Err(RepoError::WrongPassphrase) => {}
            // A damaged slot is only worth a word when no other one opens.
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A slot, or where that is missing or damaged its twin.
pub fn read_slot(store: &dyn ObjectStore, id: SlotId) -> RepoResult<KeySlot> {
    let read = |object: String| -> RepoResult<KeySlot> {
        let bytes = store.get(&name(&object)?, SMALL_OBJECT_BYTES_MAX)?;
        KeySlot::read(&bytes).map_err(|e| RepoError::damaged(object, e))
    };
    read(names::key(id, false)).or_else(|error| read(names::key(id, true)).map_err(|_| error))
}

/// Remembers which repository a place held; `false` when it holds another one now.
fn pin(parent: &Path, place: &str, config: &Config) -> bool {
    let folder = parent.join("pins");
    let path = folder.join(&blake3::hash(place.as_bytes()).to_hex()[..32]);
    let pin = podkeep_format::id::hex(&config.pin());
    match std::fs::read_to_string(&path) {
        Ok(known) => known.trim() == pin,
        Err(_) => {
            // Without a cache there is no memory; the credential still protects.
            if make_folder(&folder) {
                let _ = write_private(&path, pin.as_bytes());
            }
            true
        }
    }
}

fn cache_folder(parent: &Path, repository: RepositoryId) -> Option<PathBuf> {
    let folder = parent.join(repository.to_hex());
    (make_folder(&folder) && make_folder(&folder.join("index"))).then_some(folder)
}

fn make_folder(path: &Path) -> bool {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .is_ok()
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temp = path.with_extension(format!("tmp{}", std::process::id()));
    std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temp)?
        .write_all(bytes)?;
    std::fs::rename(&temp, path)
}
