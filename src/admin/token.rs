//! The operator's bearer token, as it stands in its file at the moment of a request.
//!
//! Read for each request: a token that was replaced or taken away counts at once, and a file that cannot be used lets nobody
//! in. Compared by keyed hash, so that time tells neither content nor length (RFC 6750 2.1 for what a token may look like).

use std::{fmt, fs, io, path::PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Shortest token, in bytes: 128 bits, if they are random.
const MIN_BYTES: usize = 16;
/// Longest token, in bytes; far below what a head may be.
const MAX_BYTES: usize = 4096;

/// `admin_token_file`.
#[derive(Clone)]
pub struct TokenFile {
    path: PathBuf,
    /// Under a key of the process.
    hash: Hmac<Sha256>,
}

/// The file holds no token that can be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is not there, or may not be read.
    #[error("the token file cannot be read")]
    Read(#[from] io::Error),
    /// Too short, too long, or with bytes that no header can carry.
    #[error("the token file holds no token of {MIN_BYTES} to {MAX_BYTES} visible ASCII characters")]
    Unusable,
    /// The system has no random bytes.
    #[error("no random key can be drawn ({0})")]
    Random(getrandom::Error),
}

// === impl TokenFile ===

impl TokenFile {
    /// The file at `path`, which must hold a token already. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(path: PathBuf) -> Result<Self, TokenError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(TokenError::Random)?;
        let hash = Hmac::new_from_slice(&*key).map_err(|_| TokenError::Unusable)?;
        let file = Self { path, hash };
        file.read()?;
        Ok(file)
    }

    /// Whether `presented` is the token now. Blocks for a small file.
    ///
    /// # Errors
    /// [`TokenError`]: nobody is let in.
    pub fn admits(&self, presented: &[u8]) -> Result<bool, TokenError> {
        let token = self.read()?;
        let expected = self.hash.clone().chain_update(&token).finalize().into_bytes();
        Ok(self.hash.clone().chain_update(presented).verify_slice(&expected).is_ok())
    }

    /// The token itself, for a client. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        let mut token = Zeroizing::new(fs::read(&self.path)?);
        let end = token.trim_ascii_end().len();
        token.truncate(end);
        let legal = (MIN_BYTES..=MAX_BYTES).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if legal { Ok(token) } else { Err(TokenError::Unusable) }
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn the_token_of_the_moment_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, format!("{TOKEN}\n")).unwrap();
        let file = TokenFile::open(path.clone()).unwrap();
        let rows: [(&[u8], bool); 6] = [
            (TOKEN.as_bytes(), true),
            (b"0123456789abcdeg", false),
            (b"0123456789abcde", false),
            (b"0123456789abcdef0", false),
            (b"0123456789abcdef\n", false),
            (b"", false),
        ];
        for (presented, admitted) in rows {
            assert_eq!(file.admits(presented).unwrap(), admitted, "{}", presented.escape_ascii());
        }
        fs::write(&path, "another-token-of-some-length").unwrap();
        assert!(!file.admits(TOKEN.as_bytes()).unwrap(), "replaced");
        assert!(file.admits(b"another-token-of-some-length").unwrap());
        fs::write(&path, "").unwrap();
        assert!(file.admits(b"").is_err(), "an empty file lets nobody in");
        fs::remove_file(&path).unwrap();
        assert!(file.admits(b"another-token-of-some-length").is_err(), "taken away");
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let long = "x".repeat(MAX_BYTES + 1);
        for content in ["", "\n", "fifteen-bytes..", "two words of 16 bytes", "sixteen\u{e9}sixteen\u{e9}", &long] {
            fs::write(&path, content).unwrap();
            assert!(matches!(TokenFile::open(path.clone()), Err(TokenError::Unusable)), "{content:?}");
        }
        assert!(matches!(TokenFile::open("/nowhere".into()), Err(TokenError::Read(_))));
    }
}
