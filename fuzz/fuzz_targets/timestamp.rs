//! `crates/cloud/src/tests/fuzzing.rs` has the checks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| image_export_cloud::fuzzing::timestamp(data));
