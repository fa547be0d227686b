//! `sidekey keygen` and `sidekey hash-key`: key files, and hashes for snapshots from files.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Exit, Screen};
use crate::{
    config::why,
    control::key::{Hasher, NotAHashFile},
    seal::{identity::Identity, signature::SigningKey},
};

/// Longest API key that is read, in bytes.
const MAX_KEY_BYTES: u64 = 512;

/// What a key file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyKind {
    /// A data plane opens sealed values with it; the control plane is given its public part as a recipient
    Identity,
    /// A control plane signs its feed with it; sidecars check it with its public part
    Signing,
    /// Control planes and sidecars hash API keys with it; there is no public part
    ApiKeyHash,
}

/// Why there is no key, or no hash.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no random numbers can be had")]
    Randomness,
    #[error("{} is there already; name another file, keys are never overwritten", .0.display())]
    Exists(PathBuf),
    #[error("{} cannot be used ({})", file.display(), why(source))]
    File { file: PathBuf, source: io::Error },
    #[error("{} {source}", file.display())]
    Hashes { file: PathBuf, source: NotAHashFile },
    #[error("the key on standard input cannot be read ({})", why(.0))]
    Input(io::Error),
    #[error("there is no key on standard input, or it is longer than {MAX_KEY_BYTES} bytes")]
    NoKey,
}

/// Writes a new key to `out`, and prints its public part.
pub fn generate(kind: KeyKind, out: &Path) -> Exit {
    finish(make(kind).and_then(|(private, public)| write(out, &private).map(|()| public)))
}

/// Prints the hash of the API key on standard input, as a row of `api_keys[].hashes`.
pub fn hash(hash_file: &Path) -> Exit {
    finish(hash_of_input(hash_file))
}

fn make(kind: KeyKind) -> Result<(Zeroizing<String>, String), Failure> {
    match kind {
        KeyKind::Identity => {
            let identity = Identity::generate().map_err(|_| Failure::Randomness)?;
            let (secret, public) = (identity.expose().ok_or(Failure::Randomness)?, identity.recipient().to_string());
            // As age-keygen writes it.
            Ok((Zeroizing::new(format!("# public key: {public}\n{}\n", *secret)), public))
        }
        KeyKind::Signing => {
            let key = SigningKey::generate().map_err(|_| Failure::Randomness)?;
            Ok((key.expose().ok_or(Failure::Randomness)?, key.verifying().to_pem().trim_end().to_owned()))
        }
        KeyKind::ApiKeyHash => {
            let file = Hasher::generate().map_err(|_| Failure::Randomness)?;
            Ok((file, "There is no public part: give the file to control planes and sidecars.".to_owned()))
        }
    }
}

fn write(out: &Path, private: &str) -> Result<(), Failure> {
    let failed = |source| Failure::File { file: out.to_owned(), source };
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(out) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Failure::Exists(out.to_owned())),
        Err(error) => return Err(failed(error)),
    };
    file.write_all(private.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn hash_of_input(hash_file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(hash_file).map(Zeroizing::new);
    let text = text.map_err(|source| Failure::File { file: hash_file.to_owned(), source })?;
    let hasher = Hasher::parse(&text).map_err(|source| Failure::Hashes { file: hash_file.to_owned(), source })?;
    // Sized once, so that no copy of the key is left behind.
    let mut key = Zeroizing::new(String::with_capacity(MAX_KEY_BYTES as usize + 1));
    io::stdin().take(MAX_KEY_BYTES + 1).read_to_string(&mut key).map_err(Failure::Input)?;
    let trimmed = key.trim();
    if trimmed.is_empty() || key.len() as u64 > MAX_KEY_BYTES {
        return Err(Failure::NoKey);
    }
    let hash = hasher.hash(trimmed, 0);
    Ok(json!({ "kid": hash.kid, "hmac_sha256": hash.hash, "expires_at": null }).to_string())
}

fn finish(done: Result<String, Failure>) -> Exit {
    match done {
        Ok(line) => {
            Screen::stdout().line(line);
            Exit::Fine
        }
        Err(failure) => {
            Screen::stderr().line(&failure);
            match failure {
                Failure::Exists(_) | Failure::Hashes { .. } | Failure::NoKey => Exit::Usage,
                Failure::Randomness | Failure::File { .. } | Failure::Input(_) => Exit::Failed,
            }
        }
    }
}
