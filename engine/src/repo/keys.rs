//! Key slots and write keys of a repository.
//!
//! A slot is put and opened before another one is deleted, and the last slot that reads
//! everything stays: no moment and no crash leaves a repository that nobody can open.

use std::collections::BTreeSet;

use podkeep_format::author::AuthorCertificate;
use podkeep_format::id::{AuthorId, RepositoryId, SlotId};
use podkeep_format::keys::{
    Argon2Params, HandedKeys, KeySlot, Role, Secrets, WriteKeyFile, slot_id,
};
use podkeep_format::names;
use podkeep_format::seal::{AuthorKey, Secret};
use zeroize::Zeroizing;

use super::open::read_slot;
use super::{RepoError, RepoResult, Repository, name, now, put_read_back, random};
use crate::store::ObjectStore;

/// A slot as listings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub id: SlotId,
    /// "full" or "write".
    pub kind: &'static str,
    pub label: String,
    /// Why the slot cannot be read.
    pub damage: Option<String>,
}

/// The text of a write key file, and the author that it writes as.
pub struct WriteKeyText {
    pub author: AuthorId,
    pub text: Zeroizing<String>,
}

/// Ids of all slots, from both copies.
pub fn list_ids(store: &dyn ObjectStore) -> RepoResult<BTreeSet<SlotId>> {
    let listed = store.list("keys")?;
    Ok(listed
        .iter()
        .filter_map(|meta| super::listed::key(meta.name.as_str()))
        .collect())
}

/// Seals `secrets` under a passphrase and puts the slot and its twin.
pub fn put_slot(
    store: &dyn ObjectStore,
    repository: RepositoryId,
    secrets: &Secrets,
    passphrase: &[u8],
    label: &str,
) -> RepoResult<SlotId> {
    let damaged = |e| RepoError::damaged("the new key slot", e);
    let bytes = KeySlot::seal(
        secrets,
        repository,
        passphrase,
        label,
        Argon2Params::DEFAULT,
        random()?,
    )
    .map_err(damaged)?;
    let id = slot_id(&bytes);
    // Opened before it counts: what cannot be opened now can never be.
    KeySlot::read(&bytes)
        .and_then(|slot| slot.open(repository, passphrase))
        .map_err(damaged)?;
    for object in [names::key(id, false), names::key(id, true)] {
        // Its size says nothing of its bytes, and old slots go because this one opens.
        put_read_back(store, &object, &bytes)?;
    }
    Ok(id)
}

/// The secrets that decide chunks, for `init --like`.
pub fn chunk_secrets(repo: &Repository) -> (Secret, Secret) {
    (repo.secrets.chunk_id.clone(), repo.secrets.chunker.clone())
}

impl Repository {
    pub fn slots(&self) -> RepoResult<Vec<Slot>> {
        let ids = list_ids(self.store())?;
        Ok(ids
            .into_iter()
            .map(|id| match read_slot(self.store(), id) {
                Ok(slot) => Slot {
                    id,
                    kind: slot.kind.word(),
                    label: slot.label.clone(),
                    damage: None,
                },
                Err(error) => Slot {
                    id,
                    kind: "unknown",
                    label: String::new(),
                    damage: Some(error.to_string()),
                },
            })
            .collect())
    }

    /// Adds a slot that reads everything.
    pub fn add_slot(&self, passphrase: &[u8], label: &str) -> RepoResult<SlotId> {
        self.require_full("add a key slot")?;
        put_slot(self.store(), self.id(), &self.secrets, passphrase, label)
    }

    /// Puts a slot under `new`, then removes the slots that `old` opens.
    pub fn change_passphrase(&self, old: &[u8], new: &[u8], label: &str) -> RepoResult<SlotId> {
        self.require_full("change a passphrase")?;
        let mut replaced = Vec::new();
        for id in list_ids(self.store())? {
            if let Ok(slot) = read_slot(self.store(), id)
                && slot.open(self.id(), old).is_ok()
            {
                replaced.push(id);
            }
        }
        if replaced.is_empty() {
            return Err(RepoError::WrongPassphrase);
        }
        let added = self.add_slot(new, label)?;
        for id in replaced {
            self.delete_slot(id)?;
        }
        Ok(added)
    }

    /// Removes a slot, but never the last one that reads everything. `prefix`: at least 4 hex
    /// digits of its id.
    pub fn remove_slot(&self, prefix: &str) -> RepoResult<SlotId> {
        self.require_full("remove a key slot")?;
        let refused = |message: String, hint: &str| RepoError::Refused {
            message,
            hint: hint.into(),
        };
        let slots = self.slots()?;
        let matching: Vec<&Slot> = slots
            .iter()
            .filter(|slot| prefix.len() >= 4 && slot.id.to_hex().starts_with(prefix))
            .collect();
        let [slot] = matching[..] else {
            return Err(refused(
                format!("{} key slots begin with {prefix:?}", matching.len()),
                "name one by at least 4 digits of its id, as `podkeep key list` shows them",
            ));
        };
        let full = slots.iter().filter(|s| s.kind == "full").count();
        if slot.kind == "full" && full == 1 {
            return Err(refused(
                format!("{} is the last key slot that reads everything", slot.id),
                "add another one first: podkeep key add",
            ));
        }
        self.delete_slot(slot.id)?;
        Ok(slot.id)
    }

    fn delete_slot(&self, id: SlotId) -> RepoResult<()> {
        for object in [names::key(id, true), names::key(id, false)] {
            self.store().delete(&name(object)?)?;
        }
        Ok(())
    }

    /// The keys that this repository is open with, for a podkeep that works for this one: of the same
    /// rights, and good for as long as that one keeps them in its memory.
    pub fn hand_over(&self) -> Zeroizing<String> {
        let keys = HandedKeys {
            repository: self.id(),
            pin: self.config().pin(),
            secrets: self.secrets.clone(),
        };
        keys.encode()
    }

    /// Makes a new author with a write key of its own and certifies it.
    pub fn export_write_key(&self, label: &str) -> RepoResult<WriteKeyText> {
        self.require_full("make a write key")?;
        let author = AuthorKey::from_bytes(&random()?);
        let certificate = AuthorCertificate {
            author: author.id(),
            label: label.to_owned(),
            created: now(),
        };
        let bytes = certificate
            .encode(self.id(), self.author())
            .map_err(|e| RepoError::damaged("the author's certificate", e))?;
        self.put(&names::author(author.id()), &bytes)?;
        let file = WriteKeyFile {
            repository: self.id(),
            pin: self.config().pin(),
            secrets: Secrets {
                chunk_id: self.secrets.chunk_id.clone(),
                chunker: self.secrets.chunker.clone(),
                index: self.secrets.index.clone(),
                role: Role::Write {
                    public: self.config().public_key,
                    author: author.clone(),
                },
            },
        };
        Ok(WriteKeyText {
            author: author.id(),
            text: file
                .encode()
                .map_err(|e| RepoError::damaged("the write key", e))?,
        })
    }
}
