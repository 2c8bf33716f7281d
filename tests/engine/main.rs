//! The engine as a library.

mod repo;
