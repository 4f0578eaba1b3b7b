//! libFuzzer's way into the target `agent_report`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests_fuzz::run("agent_report", data));
