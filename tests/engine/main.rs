//! Tests of the engine from outside, one folder or file per part.

#[path = "../support/mktree.rs"]
mod mktree;
#[path = "../support/oracle.rs"]
mod oracle;

mod chunk;
mod repo;
mod store;
mod write;
