//! What the answers of Key Vault, Entra and the machine's identity service mean.
//!
//! A status counts only together with the service's own envelope, and the code inside it decides: one 403 is a disabled
//! secret, another a missing role. An expired secret is answered with 200, so that its dates are looked at here. Values are
//! cut out of the answer as written. Source: Microsoft's REST references of Key Vault, of the Microsoft
//! identity platform and of the instance metadata service.

use std::{borrow::Cow, time::SystemTime};

use azure_core::time::OffsetDateTime;
use azure_security_keyvault_secrets::models::SecretAttributes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::path::is_version;
use crate::{
    egress::Answer,
    manager::{FailureClass, FetchError, retry::retry_after},
    secret::{SecretValue, json::Literal},
};

/// Longest code of a service that is passed on.
const MAX_CODE: usize = 64;

/// A secret that may be used.
#[derive(Debug)]
pub(super) struct Document {
    /// The value, as stored.
    pub(super) value: SecretValue,
    /// Its version.
    pub(super) version: Option<String>,
    /// When it expires.
    pub(super) not_after: Option<SystemTime>,
}

#[derive(Deserialize)]
struct Bundle<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    attributes: Option<SecretAttributes>,
}

/// Key Vault's envelope of a failure.
#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    error: FailureCode<'a>,
}

#[derive(Deserialize)]
struct FailureCode<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    innererror: Option<Box<FailureCode<'a>>>,
}

/// Entra's envelope of a failure (RFC 6749, 5.2); the machine's identity service has the same.
#[derive(Deserialize)]
struct OauthFailure<'a> {
    #[serde(borrow)]
    error: Cow<'a, str>,
    #[serde(default)]
    error_codes: Vec<u32>,
}

/// The secret in Key Vault's answer, if it may be used at `now`.
///
/// # Errors
/// [`FailureClass::Disabled`] when it is disabled, expired or not yet valid, [`FailureClass::Malformed`] when it is no secret.
pub(super) fn secret(body: &[u8], now: SystemTime) -> Result<Document, FetchError> {
    // The parser's error may quote the answer, so it goes no further.
    let bundle: Bundle<'_> = serde_json::from_slice(body).map_err(|_| malformed("not_key_vault"))?;
    let attributes = bundle.attributes.unwrap_or_default();
    if let Some(reason) = unusable(&attributes, now) {
        return Err(FetchError::new(FailureClass::Disabled).with_code(reason));
    }
    let value = bundle.value.and_then(|value| Literal::from(value).decode()).ok_or_else(|| malformed("no_value"))?;
    let version = bundle.id.as_deref().and_then(version_of);
    Ok(Document { value: value.into(), version, not_after: attributes.expires.map(SystemTime::from) })
}

/// Why a version with these attributes must not be used at `now`; `None` = it may.
pub(super) fn unusable(attributes: &SecretAttributes, now: SystemTime) -> Option<&'static str> {
    let now = OffsetDateTime::from(now);
    if attributes.enabled == Some(false) {
        Some("disabled")
    } else if attributes.expires.is_some_and(|ends| ends <= now) {
        Some("expired")
    } else if attributes.not_before.is_some_and(|begins| begins > now) {
        Some("not_yet_valid")
    } else {
        None
    }
}

/// The version at the end of a secret's identifier.
pub(super) fn version_of(id: &str) -> Option<String> {
    let last = id.trim_end_matches('/').rsplit('/').next()?;
    is_version(last).then(|| last.to_owned())
}

/// The failure that an answer of Key Vault other than 200 stands for.
pub(super) fn vault_failure(answer: &Answer) -> FetchError {
    let status = answer.status;
    let class = match status.as_u16() {
        400 | 403 | 404 | 409 => return spoken(answer),
        401 => FailureClass::Unauthenticated,
        408 => FailureClass::Timeout,
        429 => FailureClass::Throttled,
        // Redirects are not followed.
        300..=399 | 500..=599 => FailureClass::Unavailable,
        402..=499 => FailureClass::Misconfigured,
        _ => FailureClass::Malformed,
    };
    numbered(class, answer)
}

/// A failure that only Key Vault itself can state, so its envelope has to be there.
fn spoken(answer: &Answer) -> FetchError {
    let Ok(Failure { error }) = serde_json::from_slice::<Failure<'_>>(&answer.body) else {
        return malformed("not_key_vault");
    };
    let inner = error.innererror.as_deref().map_or(error.code.as_ref(), |inner| inner.code.as_ref());
    let class = match (answer.status.as_u16(), inner) {
        (403, "SecretDisabled" | "SecretExpired" | "SecretNotYetValid") => FailureClass::Disabled,
        // No role, no access policy, or a network rule: ForbiddenByRbac, ForbiddenByPolicy, AccessDenied,
        // ForbiddenByFirewall, ForbiddenByConnection …
        (403, _) => FailureClass::Denied,
        (404, code) if code.ends_with("NotFound") => FailureClass::Gone,
        (409, "ObjectIsDeletedButRecoverable" | "ObjectIsBeingDeleted") => FailureClass::Gone,
        (409, _) => FailureClass::Unavailable,
        _ => FailureClass::Misconfigured,
    };
    FetchError::new(class).with_code(short(inner).unwrap_or_else(|| answer.status.as_str().to_owned()))
}

/// What Entra's refusal of a token means, and whether it is a verdict on the identity.
pub(super) fn entra_failure(answer: &Answer) -> (FetchError, bool) {
    let status = answer.status;
    let said = serde_json::from_slice::<OauthFailure<'_>>(&answer.body);
    let number = said.as_ref().ok().and_then(|said| said.error_codes.first().copied());
    let class = match (status.as_u16(), number) {
        // The tenant or the client asks too often: AADSTS50196 (loop), 55001, 90055, 90068, 1000031.
        (429, _) | (_, Some(50196 | 55001 | 90055 | 90068 | 1_000_031)) => FailureClass::Throttled,
        // Entra's own trouble under a 400: AADSTS90006, 90012, 90025, 90033, 90098.
        (408 | 300..=399 | 500..=599, _) | (_, Some(90006 | 90012 | 90025 | 90033 | 90098)) => {
            FailureClass::Unavailable
        }
        (400 | 401 | 403 | 404, _) => match &said {
            Ok(said) if said.error == "temporarily_unavailable" => FailureClass::Unavailable,
            Ok(_) => FailureClass::Unauthenticated,
            Err(_) => FailureClass::Malformed,
        },
        _ => FailureClass::Malformed,
    };
    let code = match (&said, number) {
        (_, Some(number)) => format!("AADSTS{number}"),
        (Ok(said), None) => short(&said.error).unwrap_or_else(|| status.as_str().to_owned()),
        (Err(_), None) if class == FailureClass::Malformed => "not_entra".to_owned(),
        (Err(_), None) => status.as_str().to_owned(),
    };
    let error =
        FetchError::new(class).with_code(code).with_retry_after(retry_after(&answer.headers, SystemTime::now()));
    (error, class == FailureClass::Unauthenticated)
}

/// What the machine's identity service means. 404 and 410 are states of waking up: it may stay in them for 70 seconds.
pub(super) fn machine_failure(answer: &Answer) -> (FetchError, bool) {
    let class = match answer.status.as_u16() {
        404 | 408 | 410 | 300..=399 | 500..=599 => FailureClass::Unavailable,
        429 => FailureClass::Throttled,
        // No such identity on this machine, or one that App Service does not know.
        400 | 401 | 403 => FailureClass::Unauthenticated,
        _ => FailureClass::Malformed,
    };
    let mut error = numbered(class, answer);
    let refused = class == FailureClass::Unauthenticated;
    if refused && let Ok(said) = serde_json::from_slice::<OauthFailure<'_>>(&answer.body) {
        error = error.with_code(short(&said.error).unwrap_or_else(|| answer.status.as_str().to_owned()));
    }
    (error, refused)
}

/// Whether asking the machine's identity service again is what its documentation asks for.
pub(super) fn machine_is_waking(error: &FetchError) -> bool {
    let status =
        error.code.as_deref().and_then(|code| code.parse().ok()).and_then(|code| StatusCode::from_u16(code).ok());
    status.is_some_and(|status| matches!(status.as_u16(), 404 | 410 | 429 | 500..=599))
}

fn numbered(class: FailureClass, answer: &Answer) -> FetchError {
    let retry_after = retry_after(&answer.headers, SystemTime::now());
    FetchError::new(class).with_code(answer.status.as_str()).with_retry_after(retry_after)
}

/// A code that is a word and no prose.
fn short(code: &str) -> Option<String> {
    let fits = (1..=MAX_CODE).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    fits.then(|| code.to_owned())
}

pub(super) fn malformed(code: &'static str) -> FetchError {
    FetchError::new(FailureClass::Malformed).with_code(code)
}
