//! The content-addressed repository: keys, blocks, packs, index, catalog, leases, and the order
//! in which things are written.

mod error;

pub use error::{RepoError, RepoResult};
