//! Tests of the engine from outside, one folder or file per part.

mod repo;
mod store;
