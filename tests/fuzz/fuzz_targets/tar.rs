#![no_main]

#[path = "../../engine/imports/foreign.rs"]
mod foreign;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    foreign::read_tar(bytes);
});
