//! The format: every type round-trips, has one encoding, and is refused when it is not sound.

mod decoders;
mod frames;
mod golden;
mod keys;
mod malformed;
mod names;
mod packs;
mod random;
mod samples;
mod smoke;
mod trees;
mod values;
mod wire;
