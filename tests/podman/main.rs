//! What podkeep does on real Podman hosts. Not run by a plain `cargo test`, since the hosts need root
//! and Debian's tools: `tests/run.sh` runs everything.

#[path = "../support/lab.rs"]
mod lab;

mod care;
mod definitions;
mod changed;
mod export;
mod hosts;
mod images;
mod imports;
mod shell;
mod volumes;
