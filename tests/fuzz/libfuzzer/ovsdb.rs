//! libFuzzer's way into the target `ovsdb`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests_fuzz::run("ovsdb", data));
