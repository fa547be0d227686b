//! Values that must not be seen: wiped when dropped, redacted when printed, never cloned by accident.
//!
//! [`SecretValue`] is a byte string as a manager or a file gave it. [`Credential`] is what a request receives: one picked
//! value with its header forms prepared once and shared by every request that uses this version of the secret.
//!
//! Not covered: buffers inside TLS, sockets and the HTTP codec, which are not ours to wipe.

pub mod fingerprint;
pub mod json;

use std::{fmt, sync::OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret as bytes. No `Clone`, `Display`, `Serialize` or `PartialEq`; `Debug` shows nothing, not even the length.
pub struct SecretValue(Zeroizing<Vec<u8>>);

/// One credential, ready to be placed: the picked text and, prepared on first use, its header values.
///
/// Share it as `Arc<Credential>`; it is wiped when the last holder lets go.
pub struct Credential {
    text: SecretValue,
    structured: bool,
    header: OnceLock<Option<HeaderValue>>,
    bearer: OnceLock<Option<HeaderValue>>,
}

/// The value holds a byte that no header may carry (CR, LF, NUL or anything outside visible ASCII and inner spaces).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value does not fit into a header")]
pub struct NotHeaderSafe;

// === impl SecretValue ===

impl SecretValue {
    /// Takes over `bytes`; the buffer is wiped on drop. Build it with its final capacity: growth leaves copies behind.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. Whoever calls this is responsible for where they go.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The text, or `None` when it is not UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<String> for SecretValue {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(<redacted>)")
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretValue {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

// === impl Credential ===

impl Credential {
    /// A plain text credential. `text` must be UTF-8 with its trailing newline already trimmed.
    pub fn text(text: SecretValue) -> Self {
        Self { text, structured: false, header: OnceLock::new(), bearer: OnceLock::new() }
    }

    /// A credential that is a JSON structure (`value_format: json`); `json` is compact ASCII JSON.
    pub fn structured(json: SecretValue) -> Self {
        Self { text: json, structured: true, header: OnceLock::new(), bearer: OnceLock::new() }
    }

    /// Whether the value is a JSON structure that a config receives as such.
    pub fn is_structured(&self) -> bool {
        self.structured
    }

    /// The text itself. Whoever calls this is responsible for where it goes.
    pub fn expose(&self) -> &str {
        self.text.expose_str().unwrap_or_default()
    }

    /// The value as a header value, marked sensitive; the same bytes for every caller.
    ///
    /// # Errors
    /// [`NotHeaderSafe`] unless [`is_header_safe`].
    pub fn header(&self) -> Result<HeaderValue, NotHeaderSafe> {
        self.header.get_or_init(|| prepare("", self.expose())).clone().ok_or(NotHeaderSafe)
    }

    /// `Bearer <value>`, marked sensitive; the same bytes for every caller.
    ///
    /// # Errors
    /// [`NotHeaderSafe`] unless [`is_header_safe`].
    pub fn bearer(&self) -> Result<HeaderValue, NotHeaderSafe> {
        self.bearer.get_or_init(|| prepare("Bearer ", self.expose())).clone().ok_or(NotHeaderSafe)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(<redacted>)")
    }
}

/// Whether a credential fits into a header as it is: visible ASCII, with spaces inside only. A space at either end would
/// be lost on the way (RFC 9110, section 5.5), and the provider would refuse a key that looks right.
pub fn is_header_safe(text: &str) -> bool {
    !text.is_empty()
        && text.trim_matches(' ').len() == text.len()
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Builds a sensitive header value over a buffer that is wiped when the last clone of the value drops.
fn prepare(prefix: &str, value: &str) -> Option<HeaderValue> {
    if !is_header_safe(value) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(prefix.len() + value.len()));
    bytes.extend_from_slice(prefix.as_bytes());
    bytes.extend_from_slice(value.as_bytes());
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let credential = Credential::text(SecretValue::from("sk-canary".to_owned()));
        let header = credential.header().unwrap();
        let shown = format!("{credential:?} {header:?} {:?}", SecretValue::from("sk-canary".to_owned()));
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn header_refuses_what_a_header_cannot_carry() {
        for bad in ["", "a\nb", "a\rb", "a\0b", "clé", "a\tb", " a", "a ", " "] {
            let credential = Credential::text(SecretValue::from(bad.to_owned()));
            assert_eq!(credential.header(), Err(NotHeaderSafe), "{bad:?}");
            assert_eq!(credential.bearer(), Err(NotHeaderSafe), "{bad:?}");
        }
    }

    #[test]
    fn bearer_prefixes_once() {
        let credential = Credential::text(SecretValue::from("sk-1".to_owned()));
        assert_eq!(credential.bearer().unwrap().as_bytes(), b"Bearer sk-1");
        assert_eq!(credential.header().unwrap().as_bytes(), b"sk-1");
    }
}
