#![no_main]

#[path = "../../format/decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::accepts("payload", bytes);
});
