//! libFuzzer's way into the target `tpm`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests_fuzz::run("tpm", data));
