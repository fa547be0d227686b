//! Secrets that a source and Sidekey share, one a line of a file: two of them while one is replaced by the other.
//!
//! Kept as keyed hashes only. Looked at every few seconds; a file that cannot be used leaves the last good ones in force.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tracing::{info, warn};
use zeroize::Zeroizing;

/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 8 << 10;
/// Most secrets in force at once.
const MAX_SECRETS: usize = 4;
/// Shortest secret, in bytes: 128 bits, if they are random.
const MIN_BYTES: usize = 16;

/// The secrets of one file.
pub struct SharedSecrets {
    file: PathBuf,
    seen: Mutex<[u8; 32]>,
    current: ArcSwap<Vec<Secret>>,
    /// Under a key of the process.
    hash: Hmac<Sha256>,
}

struct Secret {
    keyed: Hmac<Sha256>,
    hashed: [u8; 32],
}

/// Why a file of secrets cannot be used. Never what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not one to [`MAX_SECRETS`] lines of visible ASCII, each of [`MIN_BYTES`] or more.
    #[error("{} does not hold 1 to {MAX_SECRETS} lines of at least {MIN_BYTES} visible ASCII characters", file.display())]
    Unusable {
        /// Which.
        file: PathBuf,
    },
    /// The system has no random bytes.
    #[error("no random key can be drawn ({0})")]
    Random(getrandom::Error),
}

// === impl SharedSecrets ===

impl SharedSecrets {
    /// Reads `file`. Blocks.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn load(file: PathBuf) -> Result<Self, SecretError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(SecretError::Random)?;
        let unusable = |_| SecretError::Unusable { file: file.clone() };
        let hash = Hmac::new_from_slice(&*key).map_err(unusable)?;
        let text = read(&file)?;
        let current = ArcSwap::from_pointee(parse(&file, &text, &hash)?);
        Ok(Self { seen: Mutex::new(Sha256::digest(&text).into()), current, hash, file })
    }

    /// Reads the file again, if it changed; logs what became of it. Blocks.
    pub fn refresh(&self) {
        let file = self.file.as_path();
        let parsed = read(file).and_then(|text| {
            let now: [u8; 32] = Sha256::digest(&text).into();
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return Ok(None);
            }
            // Remembered even if it cannot be used, so that one fault is logged once.
            *seen = now;
            parse(file, &text, &self.hash).map(Some)
        });
        match parsed {
            Ok(None) => {}
            Ok(Some(secrets)) => {
                info!(?file, secrets = secrets.len(), "The secrets of a webhook were reloaded.");
                self.current.store(Arc::new(secrets));
            }
            Err(error) => warn!(?file, %error, "The secrets of a webhook cannot be used, the last ones stay."),
        }
    }

    /// Whether `presented` is one of them. In constant time.
    pub fn admits(&self, presented: &[u8]) -> bool {
        let hashed = self.hash.clone().chain_update(presented);
        self.current
            .load()
            .iter()
            .fold(false, |found, secret| found | hashed.clone().verify_slice(&secret.hashed).is_ok())
    }

    /// Whether `signature` is the HMAC-SHA-256 of `pieces`, one after the other, under one of them. In constant time.
    pub fn signed(&self, pieces: &[&[u8]], signature: &[u8]) -> bool {
        self.current.load().iter().fold(false, |found, secret| {
            let mut mac = secret.keyed.clone();
            pieces.iter().for_each(|piece| mac.update(piece));
            found | mac.verify_slice(signature).is_ok()
        })
    }
}

impl fmt::Debug for SharedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecrets").field("file", &self.file).finish_non_exhaustive()
    }
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let unread = |source| SecretError::Read { file: file.to_owned(), source };
    // Growth would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
    File::open(file).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)).map_err(unread)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(SecretError::Unusable { file: file.to_owned() });
    }
    Ok(text)
}

fn parse(file: &Path, text: &[u8], hash: &Hmac<Sha256>) -> Result<Vec<Secret>, SecretError> {
    let unusable = || SecretError::Unusable { file: file.to_owned() };
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let secrets = lines.map(|line| {
        if line.len() < MIN_BYTES || !line.iter().all(u8::is_ascii_graphic) {
            return Err(unusable());
        }
        let keyed = Hmac::new_from_slice(line).map_err(|_| unusable())?;
        Ok(Secret { keyed, hashed: hash.clone().chain_update(line).finalize().into_bytes().into() })
    });
    let secrets: Vec<_> = secrets.collect::<Result<_, _>>()?;
    if (1..=MAX_SECRETS).contains(&secrets.len()) { Ok(secrets) } else { Err(unusable()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210";

    #[test]
    fn every_line_counts_and_a_changed_file_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, format!("{ONE}\n")).unwrap();
        let secrets = SharedSecrets::load(file.clone()).unwrap();
        let admitted = |secrets: &SharedSecrets| [ONE, TWO].map(|secret| secrets.admits(secret.as_bytes()));
        assert_eq!(admitted(&secrets), [true, false]);
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdef\n"] {
            assert!(!secrets.admits(other.as_bytes()), "{other:?}");
        }
        for (text, want) in [
            (format!("{TWO}\r\n\n{ONE}"), [true, true]),
            (TWO.to_owned(), [false, true]),
            // What cannot be used changes nothing.
            (String::new(), [false, true]),
            ("short".to_owned(), [false, true]),
            (format!("{ONE}\n{ONE} {TWO}\n"), [false, true]),
            (format!("{ONE}\n").repeat(5), [false, true]),
            ("x".repeat(9000), [false, true]),
        ] {
            fs::write(&file, &text).unwrap();
            secrets.refresh();
            assert_eq!(admitted(&secrets), want, "{text:.40}");
            assert_eq!(SharedSecrets::load(file.clone()).is_ok(), text.starts_with(TWO), "{text:.40}");
        }
        fs::remove_file(&file).unwrap();
        secrets.refresh();
        assert_eq!(admitted(&secrets), [false, true]);
        assert!(matches!(SharedSecrets::load(file), Err(SecretError::Read { .. })));
        assert!(!format!("{secrets:?}").contains(TWO));
    }

    /// Computed by `openssl dgst -sha256 -hmac`.
    #[test]
    fn signatures_are_hmac_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, format!("{TWO}\n{ONE}")).unwrap();
        let secrets = SharedSecrets::load(file).unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(ONE.as_bytes()).unwrap().chain_update(b"1700000000.{}");
        let signature = mac.finalize().into_bytes();
        assert!(secrets.signed(&[b"1700000000", b".", b"{}"], &signature));
        assert!(!secrets.signed(&[b"1700000001", b".", b"{}"], &signature));
        assert!(!secrets.signed(&[b"1700000000", b".", b"{}"], &signature[..31]));
        assert!(!secrets.signed(&[b"1700000000", b".", b"{}"], &[]));
    }
}
