//! libFuzzer's way into the target `ipxe_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests_fuzz::run("ipxe_request", data));
