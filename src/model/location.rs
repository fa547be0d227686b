//! Where a secret lies inside its manager: a path and the version wanted.
//!
//! A `secret_path` carries its version itself: `?version=` (KV v2, AWS, Azure, Google) or `?stage=` (AWS) at its last `?`,
//! and `name:version` or `name:label` in the Parameter Store. What cannot be meant is refused here, before any manager sees
//! the path: climbing segments, control characters, two versions at once, a version where there are none.

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::ManagerType;

/// Longest `secret_path`, in bytes; the limit of Portkey's API.
pub const MAX_PATH_BYTES: usize = 1024;
/// Longest version or stage, in bytes; AWS allows 256 for a staging label, nobody more.
const MAX_VERSION_BYTES: usize = 256;
/// Rounds of percent-decoding in which a climbing segment is looked for. Servers decode once, proxies perhaps again.
const DECODE_ROUNDS: usize = 3;

/// A validated `secret_path`, without its version selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretLocation {
    /// Path, name or ARN as the manager writes it. Holds no `..` segment, no control character, at most 1024 bytes.
    pub path: Arc<str>,
    /// Which version.
    pub version: VersionSelector,
}

/// Which version of a secret is wanted. Part of the cache key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VersionSelector {
    /// What the manager calls current or latest.
    Current,
    /// The one before current (KV v2 n−1, `AWSPREVIOUS`).
    Previous,
    /// `?version=`: exactly this one.
    Pinned(Arc<str>),
    /// `?stage=`: an AWS staging label.
    Stage(Arc<str>),
}

/// Why a `secret_path` cannot be used. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Nothing before the version selector, or nothing at all.
    #[error("is empty")]
    Empty,
    /// More than [`MAX_PATH_BYTES`].
    #[error("is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// A line break, NUL or another control character.
    #[error("holds a control character")]
    Control,
    /// A `..` segment, also percent-encoded.
    #[error("holds a `..` segment; write the path without climbing")]
    Climbs,
    /// An absolute `file` path.
    #[error("starts with `/`; write it relative to managers.file.root")]
    Absolute,
    /// A `#` in a Vault path, which would be cut off as a URL fragment.
    #[error("holds a `#`; name the key of the secret in `secret_key`")]
    Fragment,
    /// Something else than one known selector after the last `?`.
    #[error("has something else than {allowed} after its last `?`")]
    Selector {
        /// What the manager takes.
        allowed: &'static str,
    },
    /// A selector without a value, or with one the manager cannot have.
    #[error("has a {selector} that the manager cannot have: {expected}")]
    Value {
        /// `version`, `stage` or `label`.
        selector: &'static str,
        /// What is valid.
        expected: &'static str,
    },
    /// Two selectors.
    #[error("names two versions at once; keep one")]
    TwoVersions,
    /// A version for a manager that keeps none.
    #[error("names a version, but {keeper} keeps none; remove it")]
    Unversioned {
        /// Who keeps no versions.
        keeper: &'static str,
    },
}

// === impl SecretLocation ===

impl SecretLocation {
    /// Checks `secret_path` for `manager`. `kv_version` is what `vault_kv_version` says, if it does.
    ///
    /// # Errors
    /// [`LocationError`]: what to mend, without quoting the path.
    pub fn parse(manager: ManagerType, secret_path: &str, kv_version: Option<u8>) -> Result<Self, LocationError> {
        if secret_path.len() > MAX_PATH_BYTES {
            return Err(LocationError::TooLong);
        }
        if secret_path.chars().any(char::is_control) {
            return Err(LocationError::Control);
        }
        let (path, version) = match manager {
            ManagerType::AwsSsm => split_parameter(secret_path)?,
            ManagerType::HashicorpVault
            | ManagerType::AwsSm
            | ManagerType::AzureKv
            | ManagerType::GcpSm
            | ManagerType::File => split_query(manager, secret_path)?,
        };
        if path.trim_matches(['/', ' ']).is_empty() {
            return Err(LocationError::Empty);
        }
        if climbs(path) {
            return Err(LocationError::Climbs);
        }
        match manager {
            ManagerType::HashicorpVault if path.contains('#') => return Err(LocationError::Fragment),
            ManagerType::HashicorpVault if kv_version == Some(1) && version != VersionSelector::Current => {
                return Err(LocationError::Unversioned { keeper: "KV version 1" });
            }
            ManagerType::File if path.starts_with('/') => return Err(LocationError::Absolute),
            ManagerType::HashicorpVault
            | ManagerType::AwsSm
            | ManagerType::AwsSsm
            | ManagerType::AzureKv
            | ManagerType::GcpSm
            | ManagerType::File => {}
        }
        Ok(Self { path: path.into(), version })
    }
}

/// Splits `path?version=…` or `path?stage=…` at the last `?`.
fn split_query(manager: ManagerType, secret_path: &str) -> Result<(&str, VersionSelector), LocationError> {
    let Some((path, query)) = secret_path.rsplit_once('?') else {
        return Ok((secret_path, VersionSelector::Current));
    };
    let allowed = match manager {
        ManagerType::HashicorpVault | ManagerType::AzureKv | ManagerType::GcpSm => "`version=`",
        ManagerType::AwsSm => "`version=` or `stage=`",
        ManagerType::File => return Err(LocationError::Unversioned { keeper: "the manager `file`" }),
        ManagerType::AwsSsm => return Err(LocationError::Selector { allowed: "nothing" }),
    };
    let Some((selector, value)) = query.split_once('=') else {
        return Err(LocationError::Selector { allowed });
    };
    let earlier = path.rsplit_once('?').map_or("", |(_, earlier)| earlier);
    if is_selector(earlier) || query.split('&').skip(1).any(is_selector) {
        return Err(LocationError::TwoVersions);
    }
    match (selector, manager) {
        ("version", _) => Ok((path, pinned(manager, value)?)),
        ("stage", ManagerType::AwsSm) => Ok((path, stage(value)?)),
        _ => Err(LocationError::Selector { allowed }),
    }
}

/// Splits a Parameter Store name at its selector: parameter names hold no `:`, ARNs do before `:parameter/`.
fn split_parameter(secret_path: &str) -> Result<(&str, VersionSelector), LocationError> {
    if secret_path.contains('?') {
        return Err(LocationError::Selector { allowed: "nothing (write `name:version` or `name:label`)" });
    }
    let name_start = match secret_path.starts_with("arn:") {
        true => secret_path.find(":parameter/").map_or(secret_path.len(), |at| at + ":parameter/".len()),
        false => 0,
    };
    let Some((name, selector)) = secret_path[name_start..].split_once(':') else {
        return Ok((secret_path, VersionSelector::Current));
    };
    if selector.contains(':') {
        return Err(LocationError::TwoVersions);
    }
    let path = &secret_path[..name_start + name.len()];
    let version = match selector.bytes().all(|byte| byte.is_ascii_digit()) {
        true => VersionSelector::Pinned(number(selector)?.into()),
        false if is_word(selector) => VersionSelector::Stage(selector.into()),
        false => return Err(LocationError::Value { selector: "label", expected: "letters, digits and `._-`" }),
    };
    Ok((path, version))
}

fn is_selector(text: &str) -> bool {
    text.starts_with("version=") || text.starts_with("stage=")
}

fn pinned(manager: ManagerType, value: &str) -> Result<VersionSelector, LocationError> {
    match manager {
        ManagerType::HashicorpVault => Ok(VersionSelector::Pinned(number(value)?.into())),
        ManagerType::GcpSm if value == "latest" => Ok(VersionSelector::Current),
        ManagerType::AwsSm | ManagerType::AwsSsm | ManagerType::AzureKv | ManagerType::GcpSm | ManagerType::File => {
            match is_word(value) {
                true => Ok(VersionSelector::Pinned(value.into())),
                false => Err(LocationError::Value { selector: "version", expected: "letters, digits and `._-`" }),
            }
        }
    }
}

fn stage(value: &str) -> Result<VersionSelector, LocationError> {
    match value {
        "AWSCURRENT" => Ok(VersionSelector::Current),
        "AWSPREVIOUS" => Ok(VersionSelector::Previous),
        _ if is_word(value) => Ok(VersionSelector::Stage(value.into())),
        _ => Err(LocationError::Value { selector: "stage", expected: "letters, digits and `._-`" }),
    }
}

/// A version number: Vault and the Parameter Store count from 1, and read 0 as "latest", which pins nothing.
fn number(value: &str) -> Result<&str, LocationError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    match digits && (1..=18).contains(&value.len()) {
        true => Ok(value),
        false => Err(LocationError::Value { selector: "version", expected: "a whole number from 1" }),
    }
}

fn is_word(value: &str) -> bool {
    (1..=MAX_VERSION_BYTES).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether any reading of `path` holds a `..` segment: as written, percent-decoded, with either slash.
fn climbs(path: &str) -> bool {
    let mut text = path.to_owned();
    for _ in 0..=DECODE_ROUNDS {
        if text.split(['/', '\\']).any(|segment| segment == "..") {
            return true;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    // Encoded more often than anyone decodes: nothing legitimate looks like this.
    true
}

#[cfg(test)]
mod tests;
