//! API keys and tokens: how they look, and the keyed hashes that are all the control plane keeps of them.
//!
//! HMAC-SHA-256 under keys of a file of lines `kid base64key`; the first hashes what is new, all are tried on what is
//! presented. A slow hash would gain nothing for 256 random bits, and be a way to keep the process busy.

use aws_lc_rs::{
    constant_time,
    digest::{SHA256, digest},
    hmac, rand,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

use super::store::Hash;

/// What every API key of ours begins with, so that scanners of repositories find it.
const PREFIX: &str = "sk-sidekey-";
/// What every token of a data plane begins with.
const TOKEN_PREFIX: &str = "dp-sidekey-";
/// Hex digits by which a hash is looked up; so few that the look-up tells nothing about the rest.
const LOOKUP_DIGITS: usize = 16;
/// Shortest hash key, in bytes: as long as the hash (RFC 2104, section 3).
const LEAST_KEY_BYTES: usize = 32;

/// The keys that hash. Two are the same when they hash alike.
#[derive(Debug, PartialEq)]
pub struct Hasher {
    newest: Key,
    older: Vec<Key>,
}

/// A text that is no hash file. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHashFile {
    /// A line that is no `kid base64key`.
    #[error("line {0} is no `kid base64key` with a key of 32 bytes or more; make one with sidekey keygen")]
    Line(usize),
    /// Two lines with one kid.
    #[error("line {0} has the kid of an earlier line")]
    Again(usize),
    /// No line at all.
    #[error("holds no key; make one with sidekey keygen --kind api-key-hash")]
    Nothing,
}

#[derive(Debug)]
struct Key {
    kid: String,
    key: hmac::Key,
}

// === impl Hasher ===

impl Hasher {
    /// Reads a hash file; empty lines and comments (`#`) aside.
    ///
    /// # Errors
    /// [`NotAHashFile`].
    pub fn parse(text: &str) -> Result<Self, NotAHashFile> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parts: Vec<&str> = line.split_ascii_whitespace().collect();
            let &[kid, key] = parts.as_slice() else { return Err(NotAHashFile::Line(index + 1)) };
            let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| NotAHashFile::Line(index + 1))?);
            if key.len() < LEAST_KEY_BYTES || kid.len() > 64 {
                return Err(NotAHashFile::Line(index + 1));
            }
            if keys.iter().any(|known| known.kid == kid) {
                return Err(NotAHashFile::Again(index + 1));
            }
            keys.push(Key { kid: kid.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &key) });
        }
        let mut keys = keys.into_iter();
        let newest = keys.next().ok_or(NotAHashFile::Nothing)?;
        Ok(Self { newest, older: keys.collect() })
    }

    /// A hash file with one new key.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Zeroizing<String>, aws_lc_rs::error::Unspecified> {
        let mut key = Zeroizing::new([0; LEAST_KEY_BYTES]);
        rand::fill(&mut *key)?;
        let encoded = Zeroizing::new(STANDARD.encode(*key));
        Ok(Zeroizing::new(format!("k1 {}\n", *encoded)))
    }

    /// What is kept of `presented`, under the first key.
    pub fn hash(&self, presented: &str, expires_at: i64) -> Hash {
        Hash { expires_at, ..self.newest.hash(presented) }
    }

    /// What might be kept of `presented`, under each key.
    pub fn hashes(&self, presented: &str) -> impl Iterator<Item = Hash> {
        [&self.newest].into_iter().chain(&self.older).map(|key| key.hash(presented))
    }
}

// === impl Key ===

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // The library does not give keys out to be compared.
        self.hash("").hash == other.hash("").hash && self.kid == other.kid
    }
}

impl Key {
    fn hash(&self, presented: &str) -> Hash {
        let hash = hex(hmac::sign(&self.key, presented.as_bytes()).as_ref());
        Hash { kid: self.kid.clone(), prefix: hash[..LOOKUP_DIGITS].to_owned(), hash, expires_at: 0 }
    }
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
pub fn same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// A new API key.
///
/// # Errors
/// The system gives no randomness.
pub fn generate() -> Result<Zeroizing<String>, aws_lc_rs::error::Unspecified> {
    random(PREFIX)
}

/// A new token of a data plane.
///
/// # Errors
/// The system gives no randomness.
pub fn generate_token() -> Result<Zeroizing<String>, aws_lc_rs::error::Unspecified> {
    random(TOKEN_PREFIX)
}

/// What stands in a configuration for a token: the hex digest of it.
pub fn token_sha256(token: &str) -> String {
    hex(digest(&SHA256, token.as_bytes()).as_ref())
}

fn random(prefix: &str) -> Result<Zeroizing<String>, aws_lc_rs::error::Unspecified> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes)?;
    let digits = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
    Ok(Zeroizing::new(format!("{prefix}{}", *digits)))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_several_keys_hashes_with_the_first() {
        let file = format!("# current\nk2 {}\n\nk1 {}\n", STANDARD.encode([2; 32]), STANDARD.encode([1; 32]));
        let hasher = Hasher::parse(&file).unwrap();
        let kids: Vec<_> = hasher.hashes("sk-x").map(|hash| hash.kid).collect();
        assert_eq!(kids, ["k2", "k1"]);
        let hash = hasher.hash("sk-x", 7);
        // printf sk-x | openssl mac -digest SHA256 -macopt hexkey:0202… HMAC
        assert_eq!(hash.hash, "7b900764f7322d0c85518b20322781ebec3eba003beea3166de664f3dfa8cd94");
        assert_eq!((hash.kid.as_str(), hash.expires_at), ("k2", 7));
        assert!(same(&hash.hash, &hash.hash) && !same(&hash.hash, &hasher.hash("sk-y", 7).hash));
    }

    #[test]
    fn other_files_are_refused_without_being_quoted() {
        let key = STANDARD.encode([7; 32]);
        let cases = [
            (String::new(), NotAHashFile::Nothing),
            ("# nothing\n".to_owned(), NotAHashFile::Nothing),
            (format!("k1 {key}\n{key}\n"), NotAHashFile::Line(2)),
            (format!("k1 {}\n", STANDARD.encode([7; 31])), NotAHashFile::Line(1)),
            ("k1 not-base64!\n".to_owned(), NotAHashFile::Line(1)),
            (format!("k1 {key}\nk1 {key}\n"), NotAHashFile::Again(2)),
        ];
        for (file, expected) in cases {
            let error = Hasher::parse(&file).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains(&key));
        }
        assert!(Hasher::parse(&Hasher::generate().unwrap()).is_ok());
    }

    #[test]
    fn new_keys_are_long_and_never_the_same() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 43);
    }
}
