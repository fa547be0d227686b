//! A service-account key and what it signs: an assertion that a token service exchanges for an access token.
//!
//! The key file is read in place; the private key goes through one wiped buffer into the TLS library's own memory.
//! `token_uri` is not read: a key may be a tenant's, and would say where to send what it signs.
//! Source: RFC 7515, RFC 7523; Google, "Using OAuth 2.0 for server to server applications".

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::SigningKey,
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::text;
use crate::secret::json::Literal;

/// How long an assertion holds; an hour is the most that Google takes.
const LIFETIME: Duration = Duration::from_secs(3600);

/// An assertion is dated back by this, so that a clock ahead of Google's does no harm.
const BACKDATED: Duration = Duration::from_secs(30);

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// A key that can sign.
pub(in crate::manager::gcp_sm) struct ServiceKey {
    email: Arc<str>,
    key_id: Option<String>,
    signer: Arc<dyn SigningKey>,
}

/// Why a key cannot be used; completes a sentence that begins with where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::manager::gcp_sm) enum KeyError {
    /// Not a JSON object.
    #[error("is not a JSON object")]
    NotJson,
    /// Another kind of credential.
    #[error("must be the key of a service account (\"type\": \"service_account\")")]
    Type,
    /// No usable `client_email`.
    #[error("has no usable client_email")]
    Email,
    /// An unusable `private_key_id`.
    #[error("has an unusable private_key_id")]
    KeyId,
    /// Another Google than the public one.
    #[error("belongs to another universe than googleapis.com")]
    Universe,
    /// No private key in PKCS #8, PEM.
    #[error("has no private_key that begins with BEGIN PRIVATE KEY")]
    NoKey,
    /// A private key that the TLS library does not take.
    #[error("has a private_key that is no RSA key")]
    NotRsa,
}

/// What was read of a key file.
struct Parts {
    email: String,
    key_id: Option<String>,
    /// PKCS #8, DER.
    key: Zeroizing<Vec<u8>>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

// === impl ServiceKey ===

impl ServiceKey {
    /// Whether `json` looks like a key; whether it can sign is left to [`ServiceKey::parse`], which costs more.
    ///
    /// # Errors
    /// [`KeyError`].
    pub(in crate::manager::gcp_sm) fn check(json: &[u8]) -> Result<(), KeyError> {
        Parts::read(json).map(drop)
    }

    /// The key in the file content `json`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub(in crate::manager::gcp_sm) fn parse(json: &[u8]) -> Result<Self, KeyError> {
        let Parts { email, key_id, key } = Parts::read(json)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_slice()));
        let signer = aws_lc_rs::sign::any_supported_type(&der).map_err(|_| KeyError::NotRsa)?;
        if signer.algorithm() != SignatureAlgorithm::RSA {
            return Err(KeyError::NotRsa);
        }
        Ok(Self { email: email.into(), key_id, signer })
    }

    /// The service account.
    pub(in crate::manager::gcp_sm) fn email(&self) -> &str {
        &self.email
    }

    /// A signed assertion of now, made out to `audience` for `scope`; `None` = the key does not sign.
    pub(super) fn assertion(&self, audience: &str, scope: &str) -> Option<Zeroizing<String>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.saturating_sub(BACKDATED).as_secs();
        let header = Header { alg: "RS256", typ: "JWT", kid: self.key_id.as_deref() };
        let claims = Claims { iss: &self.email, scope, aud: audience, iat: now, exp: now + LIFETIME.as_secs() };
        let encode = |json: serde_json::Result<Vec<u8>>| json.ok().map(|json| URL_SAFE_NO_PAD.encode(json));
        let (header, claims) = (encode(serde_json::to_vec(&header))?, encode(serde_json::to_vec(&claims))?);
        let signed = format!("{header}.{claims}");
        let signer = self.signer.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])?;
        let signature = Zeroizing::new(signer.sign(signed.as_bytes()).ok()?);
        // Only the last part is worth anything; it is encoded into the buffer that is wiped.
        let room = signed.len() + 1 + signature.len().div_ceil(3) * 4;
        let mut assertion = Zeroizing::new(String::with_capacity(room));
        assertion.push_str(&signed);
        assertion.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_slice(), &mut assertion);
        Some(assertion)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKey").field("email", &self.email).finish_non_exhaustive()
    }
}

// === impl Parts ===

impl Parts {
    fn read(json: &[u8]) -> Result<Self, KeyError> {
        let json = std::str::from_utf8(json).ok().and_then(Literal::parse).ok_or(KeyError::NotJson)?;
        if text(json, "type").as_deref() != Some("service_account") {
            return Err(KeyError::Type);
        }
        if text(json, "universe_domain").is_some_and(|domain| domain != "googleapis.com") {
            return Err(KeyError::Universe);
        }
        let is_plain =
            |text: &String| (1..=254).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let email = text(json, "client_email").filter(|email| is_plain(email) && email.contains('@'));
        let email = email.ok_or(KeyError::Email)?;
        let key_id = text(json, "private_key_id").filter(|id| !id.is_empty());
        if !key_id.as_ref().is_none_or(is_plain) {
            return Err(KeyError::KeyId);
        }
        let pem = json.member("private_key").and_then(Literal::decode).ok_or(KeyError::NoKey)?;
        Ok(Self { email, key_id, key: der(&pem).ok_or(KeyError::NoKey)? })
    }
}

/// The content of a PEM block (RFC 7468), through buffers that are wiped.
fn der(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let pem = std::str::from_utf8(pem).ok()?;
    let (_, rest) = pem.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let mut base64 = Zeroizing::new(Vec::with_capacity(body.len()));
    base64.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; base64::decoded_len_estimate(base64.len())]);
    let length = STANDARD.decode_slice(&*base64, &mut der).ok()?;
    der.truncate(length);
    Some(der)
}

#[cfg(test)]
mod tests;
