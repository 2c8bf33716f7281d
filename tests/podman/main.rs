//! What podkeep does on real Podman hosts. Not run by a plain `cargo test`, since the hosts need root
//! and Debian's tools: `tests/run.sh` runs everything.

#[path = "../support/lab.rs"]
mod lab;

mod afar;
mod artifacts;
mod care;
mod changed;
mod checkpoints;
mod cuts;
mod definitions;
mod export;
mod fidelity;
mod freeze;
mod hosts;
mod images;
mod imports;
mod layers;
mod migrate;
mod pair;
mod remote;
mod replay;
mod rootless;
mod shell;
mod stack;
mod user_units;
mod volumes;
mod zfs;
