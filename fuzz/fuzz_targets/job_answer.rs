//! What is checked stands in `cloud::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| image_export_cloud::fuzzing::job_answer(data));
