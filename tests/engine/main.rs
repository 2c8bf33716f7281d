//! The engine's tests.

#[path = "../support/mktree.rs"]
mod mktree;
#[path = "../support/mount.rs"]
mod mount;
#[path = "../support/oracle.rs"]
mod oracle;

mod write;
