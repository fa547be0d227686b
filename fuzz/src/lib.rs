//! What must hold of any input, a rule for each target: `fuzz/run` has libFuzzer look for a counter-example, guided by coverage, and
//! `tests/it/fuzz.rs` does for a bounded time in every run of the tests, by chance.
//!
//! An input is bytes: whatever a rule needs beside the text is its first byte, and texts are parted by NUL, so that a file of the
//! corpus is written by hand.

pub mod admin_body;
pub mod body_scan;
pub mod config_header;
pub mod pick;
pub mod secret_path;
pub mod snapshot;

/// What stands before the first NUL, and behind it; without one, nothing stands behind.
fn split(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}
