//! libFuzzer's way into the target `dhcp4`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests_fuzz::run("dhcp4", data));
