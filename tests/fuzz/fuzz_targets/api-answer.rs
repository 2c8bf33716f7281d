#![no_main]

// Each target uses one function of it.
#[allow(dead_code)]
#[path = "../../engine/images/foreign.rs"]
mod foreign;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    foreign::read_api_answer(bytes);
});
