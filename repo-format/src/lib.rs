//! What the bytes of a podkeep repository mean, on disk and on the wire.
//!
//! `docs/repository-format.md` is the specification; this crate is its code. It does no I/O,
//! starts no thread and reads no clock and no randomness: times, nonces and random generators are
//! arguments. Every decoder is strict: one value has one encoding, everything is bounded, and
//! what is not canonical is an error that names the object and the defect.

pub mod author;
pub mod block;
pub mod codec;
pub mod config;
pub mod endorsement;
pub mod fence;
pub mod frame;
pub mod id;
pub mod item;
pub mod keys;
pub mod layer;
pub mod lease;
pub mod names;
pub mod pack;
pub mod recipe;
pub mod run;
pub mod seal;
pub mod segment;
pub mod snapshot;
pub mod tombstone;
pub mod tree;
pub mod wire;
