//! Fingerprints of values: whether two places hold the same secret, without a way back to it.
//!
//! HMAC-SHA-256 under a key, so that a weak secret cannot be guessed from its print; the first 16 hex digits. The key comes
//! from `fingerprint_key_file`, to compare between machines, or is drawn for the process.

use std::{fmt, fs, io, path::Path};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Shortest key of a file, in bytes: 128 bits, if they are random.
const MIN_KEY_BYTES: usize = 16;
/// How much of the code is shown, in bytes.
const SHOWN_BYTES: usize = 8;

/// Makes fingerprints under one key.
pub struct Fingerprints(Hmac<Sha256>);

/// There is no key to make fingerprints with; a sentence that follows the key's name.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The system has no random bytes.
    #[error("no random key can be drawn ({0})")]
    Random(getrandom::Error),
    /// Too easily guessed.
    #[error("holds fewer than {MIN_KEY_BYTES} bytes; make one with: openssl rand -hex 32")]
    Short,
    /// The hash refuses it.
    #[error("holds a key that cannot be used")]
    Unusable,
}

// === impl Fingerprints ===

impl Fingerprints {
    /// Under the key in `file` (a newline at its end does not count), else under one of the process.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(file: Option<&Path>) -> Result<Self, KeyError> {
        let key = Zeroizing::new(match file {
            Some(file) => fs::read(file).map_err(KeyError::Read)?,
            None => {
                let mut bytes = vec![0; 32];
                getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
                bytes
            }
        });
        let trimmed = key.strip_suffix(b"\n").unwrap_or(&key);
        if trimmed.len() < MIN_KEY_BYTES {
            return Err(KeyError::Short);
        }
        Hmac::new_from_slice(trimmed).map(Self).map_err(|_| KeyError::Unusable)
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
        assert!(matches!(Fingerprints::new(Some(file.path())), Err(KeyError::Short)));
        assert!(matches!(Fingerprints::new(Some(Path::new("/nowhere"))), Err(KeyError::Read(_))));
    }
}
