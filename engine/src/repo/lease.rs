//! Leases: how a run says that it is still there.
//!
//! A lease is a series of small objects, `leases/<id>/<n>`, one for each heartbeat. Nobody
//! compares clocks: an observer only sees whether the number moves. The owner deletes its lease
//! at the end; a lease whose owner was killed stands still, hurts nobody, and is swept by prune.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use podkeep_format::frame::Statement;
use podkeep_format::id::LeaseId;
use podkeep_format::lease::{Lease, Purpose};
use podkeep_format::names;

use super::{RepoResult, Repository, Traffic, Vault, name, random, system};
use crate::store::{ObjectStore, StoreError};

/// Seconds between two heartbeats.
pub const HEARTBEAT_SECS: u32 = 60;
/// A lease that stood still for this long, on an observer's own clock, has ended.
pub const LEASE_SECS: u32 = 300;

/// A lease that is held; dropping it gives it back.
pub struct HeldLease {
    id: LeaseId,
    stop: Option<Sender<()>>,
    heart: Option<JoinHandle<()>>,
}

struct Heart {
    store: Arc<dyn ObjectStore>,
    traffic: Arc<Traffic>,
    vault: Arc<Vault>,
    lease: Lease,
    /// Of the newest heartbeat that was stored.
    bytes: u64,
}

impl HeldLease {
    /// Puts the first heartbeat, durably, and starts the others.
    pub fn take(repo: &Repository, purpose: Purpose) -> RepoResult<Self> {
        let id = LeaseId(random()?);
        let mut heart = Heart::new(repo, id, purpose);
        heart.beat()?;
        let (stop, stopped) = bounded(1);
        let heart = std::thread::Builder::new()
            .name("podkeep-lease".into())
            .spawn(move || {
                let beat = Duration::from_secs(u64::from(HEARTBEAT_SECS));
                while stopped.recv_timeout(beat) == Err(RecvTimeoutError::Timeout) {
                    // A heartbeat that fails is not fatal: the fence check at commit tells
                    // whether anybody took the lease for ended.
                    drop(heart.advance());
                }
                drop(heart.remove());
            })
            .map_err(system)?;
        Ok(Self {
            id,
            stop: Some(stop),
            heart: Some(heart),
        })
    }

    pub fn id(&self) -> LeaseId {
        self.id
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(heart) = self.heart.take() {
            // A heart that panicked leaves its lease standing, which is safe.
            drop(heart.join());
        }
    }
}

impl Heart {
    fn new(repo: &Repository, id: LeaseId, purpose: Purpose) -> Self {
        Self {
            store: repo.store_arc(),
            traffic: repo.traffic(),
            vault: repo.vault_arc(),
            lease: Lease {
                lease: id,
                number: 0,
                purpose,
                author: repo.author().id(),
                host: repo.host(),
                host_name: repo.host_name().to_owned(),
                heartbeat_secs: HEARTBEAT_SECS,
                lease_secs: LEASE_SECS,
                time: super::now(),
            },
            bytes: 0,
        }
    }

    fn beat(&mut self) -> RepoResult<()> {
        let bytes = self
            .lease
            .seal(
                self.vault.repository,
                &self.vault.index,
                &self.vault.author,
                &random()?,
            )
            .map_err(|e| super::RepoError::damaged("the lease", e))?;
        // A lease that the store did not keep protects nothing.
        let object = names::lease(self.lease.lease, self.lease.number);
        let lease = Some(self.lease.lease);
        self.traffic.put(&*self.store, lease, &object, &bytes)?;
        self.bytes = bytes.len() as u64;
        Ok(())
    }

    fn advance(&mut self) -> RepoResult<()> {
        let old_bytes = self.bytes;
        self.lease.number += 1;
        self.lease.time = super::now();
        self.beat()?;
        let old = name(names::lease(self.lease.lease, self.lease.number - 1))?;
        if self.store.delete(&old)? {
            self.traffic.removed(old_bytes);
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), StoreError> {
        for meta in self
            .store
            .list(names::lease_folder(self.lease.lease).trim_end_matches('/'))?
        {
            if self.store.delete(&meta.name)? {
                self.traffic.removed(meta.size);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use podkeep_format::id::HostId;

    use super::*;
    use crate::repo::{Credential, InitOptions, OpenOptions};
    use crate::store::memory::MemoryStore;

    /// A run of hours was reported to have stored a lease for each minute of it: heartbeats were
    /// counted when they were put, and not when they were deleted.
    #[test]
    fn heartbeats_that_are_gone_are_no_growth() {
        let store = Arc::new(MemoryStore::new());
        let options = InitOptions {
            like: None,
            reserve_bytes: 0,
            label: String::new(),
        };
        Repository::init(&*store, b"passphrase", &options).unwrap();
        let credential = Credential::Passphrase(b"passphrase".to_vec().into());
        let options = OpenOptions {
            cache: None,
            host: HostId([1; 16]),
            host_name: "host".into(),
        };
        let repo = Repository::open(store.clone(), &credential, &options).unwrap();
        let mut heart = Heart::new(&repo, LeaseId([1; 16]), Purpose::Write);
        heart.beat().unwrap();
        for _ in 0..5 {
            heart.advance().unwrap();
            let there = store.list("leases").unwrap();
            assert_eq!(there.len(), 1, "only the newest one");
            assert_eq!(repo.traffic().growth(), there[0].size);
        }
        heart.remove().unwrap();
        assert_eq!(repo.traffic().growth(), 0);
        assert!(store.list("leases").unwrap().is_empty());
    }
}
