//! Reading trees: what comes out is decoded with a map of chunks in memory.

mod at_rest;
mod attributes;
mod changing;
mod known;
mod links;
mod names;
mod skipping;
mod sparse;
mod states;
mod support;
mod threads;
mod views;
