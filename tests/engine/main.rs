//! Tests of the engine from outside, one folder or file per part.

#[path = "../support/fake_store.rs"]
mod fake_store;
#[path = "../support/mktree.rs"]
mod mktree;
#[path = "../support/mount.rs"]
mod mount;
#[path = "../support/oracle.rs"]
mod oracle;

mod chunk;
mod freeze;
mod images;
mod imports;
mod repo;
mod roundtrip;
mod scan;
mod store;
mod write;
