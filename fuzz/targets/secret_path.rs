#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sidekey_fuzz::secret_path::check(input));
