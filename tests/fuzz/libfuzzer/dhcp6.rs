//! libFuzzer's way into the target `dhcp6`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests_fuzz::run("dhcp6", data));
