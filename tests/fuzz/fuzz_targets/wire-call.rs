#![no_main]

// Each target uses one function of it.
#[allow(dead_code)]
#[path = "../../format/decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::accepts("wire-call", bytes);
});
