//! What a Vault answer means: a status and a body become a document, a token, a lease, or a classed failure.
//!
//! A status counts only together with Vault's own envelope: a 404 or 403 page of something in front of Vault says nothing
//! about the secret and must not evict it. Values are cut out of the answer as written, so that no number changes.
//! Source: Vault's HTTP API, status codes.

use std::time::SystemTime;

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::path::Kv;
use crate::{
    egress::Answer,
    manager::{
        FailureClass, FetchError,
        retry::retry_after,
        session::{Grant, Lease},
    },
    secret::SecretValue,
};

/// A key-value document.
#[derive(Debug)]
pub(super) struct Document {
    /// The JSON object, as written.
    pub(super) value: SecretValue,
    /// Number of the version; KV version 1 has none.
    pub(super) version: Option<u64>,
    /// When this version deletes itself.
    pub(super) not_after: Option<SystemTime>,
}

/// A mount, as `sys/internal/ui/mounts` describes it.
#[derive(Debug)]
pub(super) struct MountInfo {
    /// Without slashes at its ends.
    pub(super) prefix: String,
    /// `None` = not a key-value engine.
    pub(super) version: Option<Kv>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    lease_id: String,
}

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    deletion_time: String,
    destroyed: bool,
}

/// The body of a failure; every field may be missing, but not all of them.
#[derive(Deserialize)]
struct Failure<'a> {
    errors: Option<Vec<String>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    request_id: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Authenticated {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: SecretValue,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct Wrapped<T> {
    data: T,
}

#[derive(Deserialize)]
struct TokenInfo {
    ttl: u64,
    renewable: Option<bool>,
}

#[derive(Deserialize)]
struct Mount {
    path: String,
    #[serde(rename = "type")]
    engine: String,
    options: Option<MountOptions>,
}

#[derive(Deserialize)]
struct MountOptions {
    version: Option<String>,
}

/// Passes an answer of 200 and turns every other status into its failure.
pub(super) fn check(answer: Answer) -> Result<Answer, FetchError> {
    if answer.status == StatusCode::OK {
        return Ok(answer);
    }
    Err(failure(&answer))
}

/// The failure that an answer other than 200 stands for.
pub(super) fn failure(answer: &Answer) -> FetchError {
    let status = answer.status.as_u16();
    let retry_after = retry_after(&answer.headers, SystemTime::now());
    let class = match status {
        401 => FailureClass::Unauthenticated,
        408 => FailureClass::Timeout,
        429 => FailureClass::Throttled,
        // Redirects are not followed: a standby points to the active node, anything else is not Vault.
        300..=399 => FailureClass::Unavailable,
        // 412: this node has not seen the token yet. 472, 473: it serves recovery or reads only.
        412 | 472 | 473 | 500..=599 => FailureClass::Unavailable,
        400..=499 => return spoken(answer),
        _ => FailureClass::Malformed,
    };
    FetchError::new(class).with_code(status.to_string()).with_retry_after(retry_after)
}

/// A failure that only Vault itself can state, so its envelope has to be there.
fn spoken(answer: &Answer) -> FetchError {
    let status = answer.status.as_u16();
    let Ok(failure) = serde_json::from_slice::<Failure<'_>>(&answer.body) else { return malformed("not_vault") };
    if failure.errors.is_none() && failure.data.is_none() && failure.request_id.is_none() {
        return malformed("not_vault");
    }
    let says = |text| failure.errors.iter().flatten().any(|error| error.contains(text));
    match status {
        403 => FetchError::new(FailureClass::Denied).with_code("403"),
        404 => match failure.data.map(|data| serde_json::from_str::<Versioned<'_>>(data.get())) {
            Some(Ok(versioned)) => gone(&versioned.metadata),
            _ => FetchError::new(FailureClass::Gone).with_code("404"),
        },
        // A mount that is being turned from version 1 into version 2 answers 400 for a moment.
        400 if says("Upgrading from non-versioned") => {
            FetchError::new(FailureClass::Unavailable).with_code("kv_upgrading")
        }
        status => FetchError::new(FailureClass::Misconfigured).with_code(status.to_string()),
    }
}

/// Whether a 403 to `lookup-self` was spoken by the access rules, which only a living token reaches. Vault and OpenBao
/// report a dead one as bare `permission denied`, in newer versions with `invalid token`.
pub(super) fn denied_by_policy(answer: &Answer) -> bool {
    let Ok(failure) = serde_json::from_slice::<Failure<'_>>(&answer.body) else { return false };
    let errors = failure.errors.unwrap_or_default();
    errors.iter().any(|error| error.starts_with("1 error occurred") && error.contains("permission denied"))
}

/// A document of KV version 1.
pub(super) fn kv1(body: &[u8]) -> Result<Document, FetchError> {
    let envelope = parse::<Envelope<'_>>(body)?;
    if !envelope.lease_id.is_empty() {
        // A leased credential would have to be renewed and revoked; this is no key-value engine.
        return Err(FetchError::new(FailureClass::Misconfigured).with_code("not_kv"));
    }
    Ok(Document { value: object(envelope.data)?, version: None, not_after: None })
}

/// A document of KV version 2.
pub(super) fn kv2(body: &[u8]) -> Result<Document, FetchError> {
    let envelope = parse::<Envelope<'_>>(body)?;
    let data = envelope.data.ok_or_else(|| malformed("no_data"))?;
    let versioned: Versioned<'_> = serde_json::from_str(data.get()).map_err(|_| malformed("not_kv2"))?;
    if versioned.data.is_none() && (versioned.metadata.destroyed || !versioned.metadata.deletion_time.is_empty()) {
        return Err(gone(&versioned.metadata));
    }
    let deletes = OffsetDateTime::parse(&versioned.metadata.deletion_time, &Rfc3339).ok();
    Ok(Document {
        value: object(versioned.data)?,
        version: Some(versioned.metadata.version),
        not_after: deletes.map(SystemTime::from),
    })
}

/// A document whose version only its shape tells.
pub(super) fn kv_either(body: &[u8]) -> Result<Document, FetchError> {
    let envelope = parse::<Envelope<'_>>(body)?;
    let versioned = envelope.data.and_then(|data| serde_json::from_str::<Versioned<'_>>(data.get()).ok());
    if versioned.is_some() { kv2(body) } else { kv1(body) }
}

/// The token of a login.
pub(super) fn grant(body: &[u8]) -> Result<Grant, FetchError> {
    let auth = parse::<Authenticated>(body)?.auth;
    Ok(Grant { token: auth.client_token, lease: Lease::of_seconds(auth.lease_duration, auth.renewable) })
}

/// The lease that a renewal granted.
pub(super) fn renewed(body: &[u8]) -> Result<Lease, FetchError> {
    grant(body).map(|grant| grant.lease)
}

/// The lease of a looked-up token.
pub(super) fn looked_up(body: &[u8]) -> Result<Lease, FetchError> {
    let token = parse::<Wrapped<TokenInfo>>(body)?.data;
    Ok(Lease::of_seconds(token.ttl, token.renewable.unwrap_or(false)))
}

/// The mount of a path.
pub(super) fn mount(body: &[u8]) -> Result<MountInfo, FetchError> {
    let mount = parse::<Wrapped<Mount>>(body)?.data;
    let version = mount.options.and_then(|options| options.version);
    let version = match (mount.engine.as_str(), version.as_deref()) {
        ("kv", Some("2")) => Some(Kv::V2),
        ("kv" | "generic", _) => Some(Kv::V1),
        _ => None,
    };
    Ok(MountInfo { prefix: mount.path.trim_matches('/').to_owned(), version })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FetchError> {
    // The parser's error may quote the answer, so it goes no further.
    serde_json::from_slice(body).map_err(|_| malformed("not_vault"))
}

fn object(data: Option<&RawValue>) -> Result<SecretValue, FetchError> {
    let text = data.map(RawValue::get).ok_or_else(|| malformed("no_data"))?;
    if !text.starts_with('{') {
        return Err(malformed("not_a_map"));
    }
    Ok(SecretValue::new(text.as_bytes().to_vec()))
}

fn gone(metadata: &Metadata) -> FetchError {
    FetchError::new(FailureClass::Gone).with_code(if metadata.destroyed { "destroyed" } else { "deleted" })
}

fn malformed(code: &'static str) -> FetchError {
    FetchError::new(FailureClass::Malformed).with_code(code)
}

#[cfg(test)]
mod tests;
