use podkeep_format::codec::DecodeError;

use crate::store::StoreError;

/// Why the repository could not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RepoError {
    #[error("there is no podkeep repository at {place}")]
    NoRepository { place: String },
    /// `init` met something.
    #[error("{place} is not empty: {cause}")]
    Occupied { place: String, cause: String },
    #[error("the passphrase opens none of the repository's key slots")]
    WrongPassphrase,
    /// The key at hand must not or cannot do this.
    #[error("cannot {action} with a write key: it cannot read what is stored")]
    KeyInsufficient { action: &'static str },
    #[error("the key file is for another repository than the one at {place}")]
    WrongKeyFile { place: String },
    #[error("this write key has been revoked")]
    KeyRevoked,
    /// The place holds another repository than the one that this host knows under its address.
    #[error("{place} is another repository than the one used before, or its keys were swapped")]
    Swapped { place: String },
    /// A stored object is not what it must be.
    #[error("{object} is damaged: {cause}")]
    Damaged { object: String, cause: String },
    /// Something that a snapshot needs is in no pack.
    #[error("{object} is missing from the repository")]
    Missing { object: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The last slot that reads everything, a slot that is not there, ...
    #[error("{message}")]
    Refused { message: String, hint: String },
    #[error("no space: the repository's reserve is not in place, nothing may be written")]
    ReserveMissing,
    /// The local cache or state folder.
    #[error("cannot {action} the local cache {path}: {cause}")]
    Cache {
        action: &'static str,
        path: String,
        cause: String,
    },
    /// The system's random numbers, threads.
    #[error("the system failed: {cause}")]
    System { cause: String },
    #[error("interrupted")]
    Interrupted,
}

pub type RepoResult<T> = Result<T, RepoError>;

impl RepoError {
    pub(crate) fn damaged(object: impl ToString, error: DecodeError) -> Self {
        Self::Damaged {
            object: object.to_string(),
            cause: error.to_string(),
        }
    }
}
