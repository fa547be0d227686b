//! Fingerprints of values: whether two places hold the same secret, without a way back to it.
//!
//! HMAC-SHA-256 under a key, so that a weak secret cannot be guessed from its print; the first 16 hex digits. The key comes
//! from `fingerprint_key_file`, to compare between machines, or is drawn for the process.

use std::{fmt, fs, path::Path};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::why;

/// Shortest key of a file, in bytes: 128 bits, if they are random.
const MIN_KEY_BYTES: usize = 16;
/// How much of the code is shown, in bytes.
const SHOWN_BYTES: usize = 8;

/// Makes fingerprints under one key.
pub struct Fingerprints(Hmac<Sha256>);

// === impl Fingerprints ===

impl Fingerprints {
    /// Under the key in `file` (a newline at its end does not count), else under one of the process.
    ///
    /// # Errors
    /// Why there is no key, and what to do.
    pub fn new(file: Option<&Path>) -> Result<Self, String> {
        let key = match file {
            Some(file) => {
                let bytes = fs::read(file).map_err(|error| format!("cannot be read ({})", why(&error)))?;
                Zeroizing::new(bytes)
            }
            None => {
                let mut bytes = Zeroizing::new(vec![0; 32]);
                getrandom::fill(&mut bytes).map_err(|error| format!("no random key can be drawn ({error})"))?;
                bytes
            }
        };
        let trimmed = key.strip_suffix(b"\n").unwrap_or(&key);
        if trimmed.len() < MIN_KEY_BYTES {
            return Err(format!("holds fewer than {MIN_KEY_BYTES} bytes; make one with: openssl rand -hex 32"));
        }
        Hmac::new_from_slice(trimmed).map(Self).map_err(|_| "holds a key that cannot be used".to_owned())
    }

    /// The print of `value`.
    pub fn of(&self, value: &[u8]) -> String {
        let code = self.0.clone().chain_update(value).finalize().into_bytes();
        code[..SHOWN_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprints(<redacted>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_print_is_the_start_of_the_keyed_hash() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // RFC 4231 4.2, test case 1.
        fs::write(file.path(), [0x0b; 20]).unwrap();
        assert_eq!(Fingerprints::new(Some(file.path())).unwrap().of(b"Hi There"), "b0344c61d8db3853");
        let mut with_newline = vec![0x0b; 20];
        with_newline.push(b'\n');
        fs::write(file.path(), with_newline).unwrap();
        assert_eq!(Fingerprints::new(Some(file.path())).unwrap().of(b"Hi There"), "b0344c61d8db3853");
    }

    #[test]
    fn without_a_file_the_key_is_that_of_the_process() {
        let (one, other) = (Fingerprints::new(None).unwrap(), Fingerprints::new(None).unwrap());
        assert_eq!(one.of(b"a"), one.of(b"a"));
        assert_ne!(one.of(b"a"), one.of(b"b"));
        assert_ne!(one.of(b"a"), other.of(b"a"));
    }

    #[test]
    fn a_short_or_missing_key_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "fifteen bytes..\n").unwrap();
        assert!(Fingerprints::new(Some(file.path())).unwrap_err().contains("fewer than 16 bytes"));
        assert!(Fingerprints::new(Some(Path::new("/nowhere"))).unwrap_err().contains("cannot be read"));
    }
}
