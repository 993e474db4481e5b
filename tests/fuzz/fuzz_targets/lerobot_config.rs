#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fathom_fuzz::models::lerobot_config(data));
