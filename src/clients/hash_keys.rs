//! `api_key_hash_file`: the keys that secrets of clients are hashed under, shared with the control plane.
//!
//! Lines `kid base64key`; empty lines and lines that begin with `#` do not count. The first hashes new keys, all of them are
//! tried, so that a new line can be rolled out before it is used. Looked at every few seconds; a file that cannot be used
//! leaves the last good keys in force.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tracing::{info, warn};
use zeroize::Zeroizing;

/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Most lines. Every one of them is tried for every request.
const MAX_KEYS: usize = 8;
/// Fewest bytes of a key; the strength of the hashes.
const MIN_KEY_BYTES: usize = 16;
/// Longest id of a key.
const MAX_KID_BYTES: usize = 64;

/// The keys of one file.
pub struct HashKeys {
    file: PathBuf,
    seen: Mutex<[u8; 32]>,
    current: ArcSwap<Vec<HashKey>>,
}

/// One key, ready to hash.
pub struct HashKey {
    kid: Box<str>,
    keyed: Hmac<Sha256>,
}

/// Why a hash file cannot be used. Names the file and the line, never what stands there.
#[derive(Debug, thiserror::Error)]
pub enum HashKeyError {
    /// It cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("{} line {line} {reason}", file.display())]
    Line {
        /// Which file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no key in it.
    #[error("{} holds no line `kid base64key`", file.display())]
    Empty {
        /// Which.
        file: PathBuf,
    },
}

// === impl HashKeys ===

impl HashKeys {
    /// Reads `file`.
    ///
    /// # Errors
    /// [`HashKeyError`] when it cannot be read or used.
    pub fn load(file: PathBuf) -> Result<Self, HashKeyError> {
        let text = read(&file)?;
        let keys = parse(&file, &text)?;
        Ok(Self { seen: Mutex::new(digest(&text)), current: ArcSwap::from_pointee(keys), file })
    }

    /// Reads the file again, if it changed; logs what became of it.
    pub fn refresh(&self) {
        let file = self.file.as_path();
        let parsed = read(&self.file).and_then(|text| {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = digest(&text);
            if *seen == now {
                return Ok(None);
            }
            // Remembered even if it cannot be used, so that one fault is logged once.
            *seen = now;
            parse(&self.file, &text).map(Some)
        });
        match parsed {
            Ok(None) => {}
            Ok(Some(keys)) => {
                let kids: Vec<_> = keys.iter().map(HashKey::kid).collect();
                info!(?file, ?kids, "The hash keys of API keys were reloaded.");
                self.current.store(Arc::new(keys));
            }
            Err(error) => warn!(?file, %error, "The hash keys of API keys cannot be used, the last ones stay."),
        }
    }

    /// The keys in force, in the order of their lines; at least one.
    pub fn current(&self) -> Guard<Arc<Vec<HashKey>>> {
        self.current.load()
    }
}

impl fmt::Debug for HashKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKeys").field("file", &self.file).finish_non_exhaustive()
    }
}

// === impl HashKey ===

impl HashKey {
    /// What the hashes in a snapshot call it.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// HMAC-SHA-256 of a client's secret.
    pub fn hash(&self, secret: &[u8]) -> [u8; 32] {
        let mut hash = self.keyed.clone();
        hash.update(secret);
        hash.finalize().into_bytes().into()
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, HashKeyError> {
    let unread = |source| HashKeyError::Read { file: file.to_owned(), source };
    let open = File::open(file).map_err(unread)?;
    let size = open.metadata().map_err(unread)?.len().min(MAX_FILE_BYTES);
    // Growth would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
    open.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(unread)?;
    Ok(text)
}

fn parse(file: &Path, text: &[u8]) -> Result<Vec<HashKey>, HashKeyError> {
    let mut keys: Vec<HashKey> = Vec::new();
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let fault = |reason| HashKeyError::Line { file: file.to_owned(), line: at + 1, reason };
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (Some(kid), Some(key), None) = (words.next(), words.next(), words.next()) else {
            return Err(fault("is not `kid base64key`"));
        };
        let kid = std::str::from_utf8(kid).ok().filter(|kid| is_kid(kid)).ok_or_else(|| fault("has no usable kid"))?;
        if keys.iter().any(|other| &*other.kid == kid) {
            return Err(fault("repeats a kid"));
        }
        let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| fault("holds a key that is not base64"))?);
        if key.len() < MIN_KEY_BYTES {
            return Err(fault("holds a key of fewer than 16 bytes"));
        }
        if keys.len() == MAX_KEYS {
            return Err(fault("is one more than can be tried for every request, 8"));
        }
        let keyed = Hmac::new_from_slice(&key).map_err(|_| fault("holds a key that cannot be used"))?;
        keys.push(HashKey { kid: kid.into(), keyed });
    }
    if keys.is_empty() { Err(HashKeyError::Empty { file: file.to_owned() }) } else { Ok(keys) }
}

fn is_kid(kid: &str) -> bool {
    kid.len() <= MAX_KID_BYTES && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// `0123456789abcdef`, `fedcba9876543210`.
    const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
    const TWO: &str = "ZmVkY2JhOTg3NjU0MzIxMA==";

    #[test]
    fn lines_become_keys_or_a_place() {
        struct Case {
            text: String,
            kids: Result<&'static [&'static str], &'static str>,
        }
        let cases = [
            Case { text: format!("k1 {ONE}\n"), kids: Ok(&["k1"]) },
            Case { text: format!("# new\n\n  k2\t{TWO} \r\nk1 {ONE}"), kids: Ok(&["k2", "k1"]) },
            Case { text: String::new(), kids: Err("holds no line") },
            Case { text: "# k1\n".into(), kids: Err("holds no line") },
            Case { text: format!("k1 {ONE}\nk1 {TWO}"), kids: Err("line 2 repeats a kid") },
            Case { text: ONE.into(), kids: Err("line 1 is not `kid base64key`") },
            Case { text: format!("k1 {ONE} x"), kids: Err("line 1 is not `kid base64key`") },
            Case { text: "k1 !!!!".into(), kids: Err("not base64") },
            Case { text: "k1 c2hvcnQ=".into(), kids: Err("fewer than 16 bytes") },
            Case { text: format!("k/1 {ONE}"), kids: Err("no usable kid") },
            Case { text: (0..9).map(|n| format!("k{n} {ONE}\n")).collect(), kids: Err("line 9 is one more") },
        ];
        for Case { text, kids } in cases {
            let parsed = parse(Path::new("keys"), text.as_bytes());
            match (&parsed, kids) {
                (Ok(keys), Ok(kids)) => assert_eq!(keys.iter().map(HashKey::kid).collect::<Vec<_>>(), kids, "{text}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{text}: {error}");
                    assert!(!format!("{error:?}").contains(ONE), "{error:?}");
                }
                (_, kids) => panic!("{text}: {parsed:?}, expected {kids:?}"),
            }
        }
    }

    /// Computed by Python's `hmac`.
    #[test]
    fn hashes_are_hmac_sha256_of_the_text() {
        let keys = parse(Path::new("keys"), format!("k1 {ONE}").as_bytes()).unwrap();
        let hex: String = keys[0].hash(b"sk-test").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "fa9e1d36d8db096979eaa1a666c567c2fa4df3e9d3f5c4193f37e809e24fe0c1");
    }

    #[test]
    fn a_changed_file_is_taken_up_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let kids = |keys: &HashKeys| keys.current().iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>();
        fs::write(&file, format!("k1 {ONE}")).unwrap();
        let keys = HashKeys::load(file.clone()).unwrap();
        fs::write(&file, format!("k2 {TWO}\nk1 {ONE}")).unwrap();
        keys.refresh();
        assert_eq!(kids(&keys), ["k2", "k1"]);
        for broken in ["", "k3"] {
            fs::write(&file, broken).unwrap();
            keys.refresh();
            assert_eq!(kids(&keys), ["k2", "k1"]);
        }
        fs::remove_file(&file).unwrap();
        keys.refresh();
        assert_eq!(kids(&keys), ["k2", "k1"]);
        assert!(matches!(HashKeys::load(file), Err(HashKeyError::Read { .. })));
    }
}
