//! `init`: makes a repository.

use podkeep_format::id::RepositoryId;

use super::OperationResult;
use crate::repo::{InitOptions, Repository};
use crate::store::ObjectStore;

/// What `init` made.
#[derive(Clone, Copy, Debug)]
pub struct InitReport {
    pub repository: RepositoryId,
}

/// Makes a repository in an empty store. The store's place must exist already.
pub fn init(
    store: &dyn ObjectStore,
    passphrase: &[u8],
    options: &InitOptions<'_>,
) -> OperationResult<InitReport> {
    let repository = Repository::init(store, passphrase, options)?;
    Ok(InitReport { repository })
}
