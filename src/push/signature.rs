//! Signatures over a body: Doppler's, Infisical's, and ours.
//!
//! Ours: `x-sidekey-signature: t=<seconds since 1970>,v1=<hex>`, HMAC-SHA-256 of `<t>.<body>`. A signature that was accepted is
//! not accepted a second time. Doppler signs no time: a delivery that somebody has seen can be sent again, and is worth a read.
//! Sources: Doppler, "Webhooks", Request Signing; Infisical, "Webhooks", Secret Key Verification.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderName};

use super::shared_secret::SharedSecrets;

/// Where Doppler puts its signature.
pub const DOPPLER: HeaderName = HeaderName::from_static("x-doppler-signature");
/// Where Infisical puts its signature.
pub const INFISICAL: HeaderName = HeaderName::from_static("x-infisical-signature");
/// Where ours stands.
pub const OURS: HeaderName = HeaderName::from_static("x-sidekey-signature");
/// How far Infisical's clock may be from ours, either way.
pub const INFISICAL_TOLERANCE: Duration = Duration::from_secs(300);

/// Bytes of HMAC-SHA-256.
const BYTES: usize = 32;
/// Signatures that are remembered. Only good ones are, so that nobody but their makers can fill it.
const MAX_REMEMBERED: usize = 4096;

/// A signature, and the time that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped<'h> {
    /// The time, as it is written.
    pub time: &'h str,
    /// The signature.
    pub signature: [u8; BYTES],
}

/// Signatures that were accepted and could be sent again.
#[derive(Debug, Default)]
pub struct Remembered {
    /// By the end of their window, in milliseconds since 1970.
    until: Mutex<HashMap<[u8; BYTES], u64>>,
}

// === impl Stamped ===

impl<'h> Stamped<'h> {
    /// `t=<milliseconds>;<hex>`.
    pub fn infisical(headers: &'h HeaderMap) -> Option<Self> {
        let (time, signature) = headers.get(INFISICAL)?.to_str().ok()?.strip_prefix("t=")?.split_once(';')?;
        Some(Self { time, signature: hex(signature)? })
    }

    /// `t=<seconds>,v1=<hex>`.
    pub fn ours(headers: &'h HeaderMap) -> Option<Self> {
        let (time, signature) = headers.get(OURS)?.to_str().ok()?.strip_prefix("t=")?.split_once(",v1=")?;
        Some(Self { time, signature: hex(signature)? })
    }

    /// The time as a number, if it is one: digits and nothing else, so that one time is written in one way.
    pub fn number(&self) -> Option<u64> {
        let plain = self.time.bytes().all(|byte| byte.is_ascii_digit()) && (1..=15).contains(&self.time.len());
        if plain { self.time.parse().ok() } else { None }
    }
}

// === impl Remembered ===

impl Remembered {
    /// Whether `signature` is seen for the first time; remembers it until `until`, in milliseconds since 1970 like `now`.
    pub fn is_first(&self, signature: [u8; BYTES], now: u64, until: u64) -> bool {
        let mut remembered = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.contains_key(&signature) {
            return false;
        }
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, until| *until > now);
        }
        if remembered.len() >= MAX_REMEMBERED
            && let Some(oldest) = remembered.iter().min_by_key(|(_, until)| **until).map(|(oldest, _)| *oldest)
        {
            remembered.remove(&oldest);
        }
        remembered.insert(signature, until);
        true
    }
}

/// Whether Doppler signed `body`.
pub fn is_doppler(headers: &HeaderMap, body: &[u8], secrets: &SharedSecrets) -> bool {
    let signature = headers.get(DOPPLER).and_then(|value| hex(value.to_str().ok()?.strip_prefix("sha256=")?));
    signature.is_some_and(|signature| secrets.signed(&[body], &signature))
}

/// 64 hexadecimal digits.
fn hex(text: &str) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = [0; BYTES];
    if text.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_signature_is_read_in_one_form_only() {
        let (good, upper) = ("ab".repeat(32), "AB".repeat(32));
        let bytes = [0xab; 32];
        #[rustfmt::skip]
        let rows = [
            (OURS, format!("t=1700000000,v1={good}"), Some(1_700_000_000)),
            (OURS, format!("t=1700000000,v1={upper}"), Some(1_700_000_000)),
            (OURS, format!("t=1700000000;{good}"), None),
            (OURS, format!("t=+1700000000,v1={good}"), None),
            (OURS, format!("t=,v1={good}"), None),
            (OURS, format!("t=1700000000,v1={}", &good[..62]), None),
            (OURS, format!("t=1700000000,v1={good}ab"), None),
            (OURS, format!("t=1700000000,v1={}zz", &good[..62]), None),
            (OURS, format!("v1={good}"), None),
            (INFISICAL, format!("t=1700000000123;{good}"), Some(1_700_000_000_123)),
            (INFISICAL, format!("t=1700000000123,v1={good}"), None),
            (INFISICAL, good.clone(), None),
        ];
        for (name, value, time) in rows {
            let is_ours = name == OURS;
            let headers = headers(name, &value);
            let stamped = if is_ours { Stamped::ours(&headers) } else { Stamped::infisical(&headers) };
            assert_eq!(stamped.and_then(|stamped| stamped.number()), time, "{value}");
            assert!(time.is_none() || stamped.is_some_and(|stamped| stamped.signature == bytes), "{value}");
        }
    }

    #[test]
    fn what_was_accepted_is_remembered_and_the_memory_is_bounded() {
        let remembered = Remembered::default();
        let signature = |n: u64| {
            let mut signature = [0; BYTES];
            signature[..8].copy_from_slice(&n.to_le_bytes());
            signature
        };
        assert!(remembered.is_first(signature(1), 0, 100));
        assert!(!remembered.is_first(signature(1), 50, 150));
        for n in 2..=10_000 {
            assert!(remembered.is_first(signature(n), 50, 100 + n));
        }
        assert!(remembered.until.lock().unwrap().len() <= MAX_REMEMBERED);
        assert!(!remembered.is_first(signature(10_000), 50, 100), "the newest stay");
    }
}
