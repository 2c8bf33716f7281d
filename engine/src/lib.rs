//! What podkeep does, as a library: it never prints, never reads argv, the environment or
//! configuration files. Progress and findings go to a [`monitor::Monitor`].

pub mod chunk;
pub mod clock;
pub mod fs;
pub mod host;
pub mod link;
pub mod monitor;
pub mod operations;
pub mod podman;
pub mod repo;
pub mod store;
