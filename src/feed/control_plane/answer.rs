//! An update as it came, with what it was signed over, and whether the signature is the control plane's.
//!
//! Signed is a text that begins with a fixed line and the `ETag`, each on a line of its own, and goes on with the body. The
//! buffer holds all of it, so that nothing is copied to be checked.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::seal::signature::VerifyingKey;

/// What the signed text begins with.
const SIGNED: &str = "sidekey-snapshot-v1";
/// What the header begins with.
const ALGORITHM: &str = "ed25519=";

/// An update. Snapshots may hold credentials, so the buffer is wiped.
pub(super) struct Answer {
    /// `ETag`, with its quotes.
    pub(super) etag: String,
    /// `x-sidekey-signature`, as it came.
    pub(super) signature: Option<String>,
    text: Zeroizing<Vec<u8>>,
    begin: usize,
}

/// Why an update is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distrust {
    /// It is not signed.
    Unsigned,
    /// It is signed, and not by the control plane, or was changed since.
    Forged,
}

// === impl Answer ===

impl Answer {
    /// One of which the body is still to come, about `size` bytes of it.
    pub(super) fn begin(etag: String, signature: Option<String>, size: usize) -> Self {
        let head = format!("{SIGNED}\n{etag}\n");
        let mut text = Zeroizing::new(Vec::with_capacity(head.len() + size));
        text.extend_from_slice(head.as_bytes());
        Self { etag, signature, begin: text.len(), text }
    }

    /// More of the body.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let wanted = self.text.len() + piece.len();
        if wanted > self.text.capacity() {
            // Growth would leave a copy behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(wanted.max(self.text.capacity() * 2)));
            larger.extend_from_slice(&self.text);
            self.text = larger;
        }
        self.text.extend_from_slice(piece);
    }

    /// The body.
    pub(super) fn body(&self) -> &[u8] {
        self.text.get(self.begin..).unwrap_or_default()
    }

    /// `ETag` without its quotes.
    pub(super) fn tag(&self) -> &str {
        self.etag.trim_matches('"')
    }

    /// Whether one of `keys` signed it.
    pub(super) fn verify(&self, keys: &[VerifyingKey]) -> Result<(), Distrust> {
        let signature = self.signature.as_deref().ok_or(Distrust::Unsigned)?;
        let signature = signature.strip_prefix(ALGORITHM).and_then(|text| STANDARD.decode(text).ok());
        let signature = signature.ok_or(Distrust::Forged)?;
        match keys.iter().any(|key| key.verifies(&self.text, &signature)) {
            true => Ok(()),
            false => Err(Distrust::Forged),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("etag", &self.etag).field("bytes", &self.body().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::signature::SigningKey;

    fn answer(etag: &str, body: &str, signature: Option<String>) -> Answer {
        let mut answer = Answer::begin(etag.to_owned(), signature, 0);
        for piece in body.as_bytes().chunks(3) {
            answer.push(piece);
        }
        answer
    }

    #[test]
    fn only_what_was_signed_is_believed() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let sign = |text: &str| Some(format!("ed25519={}", STANDARD.encode(key.sign(text.as_bytes()))));
        let good = sign("sidekey-snapshot-v1\n\"7-3\"\n{\"version\":3}");
        let body = r#"{"version":3}"#;
        assert_eq!(answer("\"7-3\"", body, good.clone()).body(), body.as_bytes());
        #[rustfmt::skip]
        let cases = [
            // etag      body                signature                        verdict
            ("\"7-3\"",  body,               good.clone(),                    Ok(())),
            ("\"7-4\"",  body,               good.clone(),                    Err(Distrust::Forged)),
            ("\"7-3\"",  r#"{"version":4}"#, good.clone(),                    Err(Distrust::Forged)),
            ("\"7-3\"",  body,               sign(body),                      Err(Distrust::Forged)),
            ("\"7-3\"",  body,               Some("ed25519=AAAA".to_owned()), Err(Distrust::Forged)),
            ("\"7-3\"",  body,               Some("rsa=AAAA".to_owned()),     Err(Distrust::Forged)),
            ("\"7-3\"",  body,               None,                            Err(Distrust::Unsigned)),
        ];
        let keys = [other.verifying(), key.verifying()];
        for (etag, body, signature, verdict) in cases {
            let answer = answer(etag, body, signature);
            assert_eq!(answer.verify(&keys), verdict, "{answer:?}");
        }
        assert_eq!(answer("\"7-3\"", body, good).verify(&keys[..1]), Err(Distrust::Forged), "by somebody else");
    }
}
