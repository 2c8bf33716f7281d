//! The content-addressed repository: keys, blocks, packs, index, catalog, leases, and the order
//! in which things are written.
//!
//! `docs/repository-format.md` says what the bytes are, `docs/repository-protocol.md` who writes,
//! reads and deletes what in which order.

pub mod blocks;
mod catalog;
mod error;
pub mod index;
mod keys;
pub mod layers;
pub mod lease;
pub mod listed;
mod open;
pub mod orphans;
pub mod reader;
pub mod recipes;
pub mod reserve;
mod segments;
mod snapshots;
mod trees;
pub mod window;
pub mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use podkeep_format::config::Config;
use podkeep_format::id::{AuthorId, ChunkIdKey, HostId, LeaseId, PackId, RepositoryId};
use podkeep_format::pack::PackHeader;
use podkeep_format::seal::{AuthorKey, ObjectKey, PrivateKey, PublicKey, Secret};

pub use crate::clock::now;
pub use error::{RepoError, RepoResult};
pub use keys::{Slot, WriteKeyText};
pub use open::{Credential, InitOptions, OpenOptions};
pub use snapshots::StoredSnapshot;

use self::catalog::Catalog;
use crate::chunk::Chunking;
use crate::store::{Medium, ObjectName, ObjectStore, StoreError, StoreErrorKind};

/// An open repository: a store, the keys to it, and a cache folder.
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    config: Config,
    vault: Arc<Vault>,
    secrets: podkeep_format::keys::Secrets,
    chunking: Arc<Chunking>,
    /// Of this repository, 0700; `None` works too, only slower.
    cache: Option<PathBuf>,
    /// In the cache folder; opened when it is first needed.
    catalog: OnceLock<Catalog>,
    host: HostId,
    host_name: String,
    traffic: Arc<Traffic>,
}

/// The keys of an open repository, shared with worker threads.
pub struct Vault {
    pub repository: RepositoryId,
    pub owner: AuthorId,
    pub index: Secret,
    pub public: PublicKey,
    /// Only with a full key.
    pub private: Option<PrivateKey>,
    pub author: AuthorKey,
    pub ids: ChunkIdKey,
    /// Keys the hashes of cache files.
    pub cache_key: [u8; 32],
}

impl Vault {
    /// The key of a pack's blocks. Needs a full key.
    pub fn open_pack_key(&self, pack: PackId, header: &PackHeader) -> RepoResult<ObjectKey> {
        let private = self.private.as_ref().ok_or(RepoError::KeyInsufficient {
            action: "read what is stored",
        })?;
        let session = header
            .session
            .open(private, self.repository, header.author)
            .map_err(|e| RepoError::damaged(podkeep_format::names::pack(pack), e))?;
        Ok(header.block_key(self.repository, &session))
    }
}

/// Bytes that this process made the repository grow by.
#[derive(Default)]
pub struct Traffic {
    added: AtomicU64,
    removed: AtomicU64,
}

impl Traffic {
    /// Puts a new object as [`put_whole`] does, or where `lease` holds what it is for as
    /// [`put_under_lease`], and counts its bytes. Nobody else puts an object of such a name: one
    /// that is there already came from a try whose answer was lost.
    pub fn put(
        &self,
        store: &dyn ObjectStore,
        lease: Option<LeaseId>,
        object: &str,
        bytes: &[u8],
    ) -> RepoResult<()> {
        match lease {
            Some(lease) => put_under_lease(store, lease, object, bytes)?,
            None => put_whole(store, object, bytes)?,
        };
        self.added.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    pub fn removed(&self, bytes: u64) {
        self.removed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Growth so far.
    pub fn growth(&self) -> u64 {
        let removed = self.removed.load(Ordering::Relaxed);
        self.added.load(Ordering::Relaxed).saturating_sub(removed)
    }
}

impl Repository {
    pub fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    pub fn store_arc(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// What decides chunks and ids, for sources and targets.
    pub fn chunking(&self) -> &Arc<Chunking> {
        &self.chunking
    }

    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    pub fn vault_arc(&self) -> Arc<Vault> {
        Arc::clone(&self.vault)
    }

    pub fn author(&self) -> &AuthorKey {
        &self.vault.author
    }

    pub fn host(&self) -> HostId {
        self.host
    }

    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// How long a listing may lag behind a put: as the config says, or as the medium looks from
    /// here, whichever is longer. Zero also where nobody declared it, since prune refuses there.
    pub fn settle_time(&self) -> Duration {
        let seen = match self.store.medium() {
            Medium::Settles { secs } => secs,
            Medium::Linearizable | Medium::Undeclared => 0,
        };
        let declared = self.config.settle_secs.unwrap_or_default();
        Duration::from_secs(u64::from(seen.max(declared)))
    }

    pub fn is_full(&self) -> bool {
        self.vault.private.is_some()
    }

    /// Refuses a write key; `action` completes "cannot ... with a write key".
    pub fn require_full(&self, action: &'static str) -> RepoResult<()> {
        match self.vault.private {
            Some(_) => Ok(()),
            None => Err(RepoError::KeyInsufficient { action }),
        }
    }

    /// The cache folder of this repository, if there is one that can be written.
    pub fn cache_folder(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    fn segments_folder(&self) -> Option<PathBuf> {
        self.cache.as_ref().map(|cache| cache.join("index"))
    }

    /// Puts a new object as [`put_whole`] does, and counts its bytes.
    pub fn put(&self, object: &str, bytes: &[u8]) -> RepoResult<()> {
        self.traffic.put(self.store(), None, object, bytes)
    }
}

/// Puts a new object and makes sure that the store holds all of it before anything can name it:
/// a store that reports success and keeps a part is [`StoreErrorKind::Short`]. Where a file system
/// of another machine stands between ([`Medium::Linearizable`] is not what the store says), the
/// bytes are read back and compared, too.
///
/// What is short stays: nobody names it, and a writer deletes nothing.
pub fn put_whole(store: &dyn ObjectStore, object: &str, bytes: &[u8]) -> RepoResult<()> {
    put_seen(store, object, bytes, store.medium() != Medium::Linearizable)
}

/// As [`put_whole`], but on every medium the bytes are read back.
pub fn put_read_back(store: &dyn ObjectStore, object: &str, bytes: &[u8]) -> RepoResult<()> {
    put_seen(store, object, bytes, true)
}

fn put_seen(
    store: &dyn ObjectStore,
    object: &str,
    bytes: &[u8],
    read_back: bool,
) -> RepoResult<()> {
    let object = name(object)?;
    store.put_new(&object, bytes)?;
    let cause = match store.size(&object)? {
        None => "the store said that it is stored, and does not have it".to_owned(),
        Some(size) if size != bytes.len() as u64 => {
            let len = bytes.len();
            format!("the store said that it is stored, and holds {size} of its {len} bytes")
        }
        Some(_) if !read_back => return Ok(()),
        Some(size) => match store.get(&object, size)? == bytes {
            true => return Ok(()),
            false => "the store said that it is stored, and holds other bytes".to_owned(),
        },
    };
    Err(RepoError::Store(StoreError {
        action: "write",
        object: format!("{}/{object}", store.place()),
        kind: StoreErrorKind::Short,
        cause,
    }))
}

/// [`put_whole`] for what prune may sweep once it took `lease` for ended. Of a fenced lease it is
/// no failing store when an object is gone again: who finds the fence at commit does all anew.
fn put_under_lease(
    store: &dyn ObjectStore,
    lease: LeaseId,
    object: &str,
    bytes: &[u8],
) -> RepoResult<()> {
    match put_whole(store, object, bytes) {
        Err(RepoError::Store(error))
            if error.kind == StoreErrorKind::Short
                && store
                    .size(&name(podkeep_format::names::fence(lease))?)?
                    .is_some() =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Names come from `podkeep_format::names`, so that a refusal is a bug, never bad input.
pub fn name(text: impl AsRef<str>) -> RepoResult<ObjectName> {
    let text = text.as_ref();
    ObjectName::parse(text).ok_or_else(|| RepoError::System {
        cause: format!("{text} is no object name"),
    })
}

/// Fresh random bytes from the system.
pub fn random<const N: usize>() -> RepoResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(system)?;
    Ok(bytes)
}

fn system(error: impl std::fmt::Display) -> RepoError {
    RepoError::System {
        cause: error.to_string(),
    }
}
