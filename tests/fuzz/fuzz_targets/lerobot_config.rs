#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fathom_fuzz::host::lerobot_config(data));
