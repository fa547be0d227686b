//! What an answer of Secret Manager means: a status and a body become a payload, metadata, or a classed failure.
//!
//! Classes come from the `google.rpc` status in the body. A 400, 403 or 404 without one was written by something in front of
//! Google and says nothing about the secret. Payloads are decoded straight into buffers that are wiped.
//! Source: AIP-193 (errors).

use std::time::{Duration, SystemTime};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use zeroize::Zeroizing;

use super::crc32c;
use crate::{
    egress::Answer,
    manager::{FailureClass, FetchError, retry::retry_after},
    secret::json::Literal,
};

/// Longest machine code that is taken over from an answer (AIP-193: 63).
const MAX_CODE: usize = 63;

/// Longest delay that is believed.
const MAX_DELAY: Duration = Duration::from_secs(3600);

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A payload.
#[derive(Debug)]
pub(super) struct Document {
    /// The bytes somebody stored.
    pub(super) value: Zeroizing<Vec<u8>>,
    /// Number of the version it is; the answer names it even when an alias was asked for.
    pub(super) version: Option<u64>,
}

/// What is told of a version without its payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Counted from 1.
    pub(super) number: u64,
    /// Neither disabled nor destroyed.
    pub(super) enabled: bool,
}

#[derive(Deserialize)]
struct Accessed<'a> {
    name: String,
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    /// A 64-bit integer, which JSON of protocol buffers writes as a string.
    #[serde(borrow, rename = "dataCrc32c")]
    checksum: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    versions: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    state: String,
}

#[derive(Deserialize)]
struct Failure {
    error: Status,
}

#[derive(Deserialize)]
struct Status {
    status: Option<String>,
    #[serde(default)]
    details: Vec<Value>,
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
    let code = answer.status.as_str();
    let asked_to_wait = retry_after(&answer.headers, SystemTime::now());
    match serde_json::from_slice::<Failure>(&answer.body) {
        Ok(Failure { error }) => {
            let reason = error.reason();
            let status = error.status.as_deref().filter(|status| is_code(status));
            let class = status
                .and_then(|status| class_of_status(status, reason))
                .or_else(|| class_of_http(answer.status))
                .unwrap_or(FailureClass::Malformed);
            FetchError::new(class)
                .with_code(reason.or(status).unwrap_or(code))
                .with_retry_after(asked_to_wait.or_else(|| error.delay()))
        }
        Err(_) => match class_of_http(answer.status) {
            Some(class) => FetchError::new(class).with_code(code).with_retry_after(asked_to_wait),
            None => malformed("not_google"),
        },
    }
}

/// The payload of a version.
pub(super) fn document(body: &[u8]) -> Result<Document, FetchError> {
    let accessed = parse::<Accessed<'_>>(body)?;
    let data = accessed.payload.data.ok_or_else(|| malformed("no_data"))?;
    let text = Literal::from(data).decode().ok_or_else(|| malformed("not_base64"))?;
    let mut value = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = BASE64.decode_slice(&*text, &mut value).map_err(|_| malformed("not_base64"))?;
    value.truncate(length);
    if let Some(checksum) = accessed.payload.checksum {
        let stated = checksum.get().trim_matches('"').parse();
        if stated != Ok(crc32c::checksum(&value)) {
            return Err(malformed("checksum"));
        }
    }
    Ok(Document { value, version: number(&accessed.name) })
}

/// The metadata of a version.
pub(super) fn metadata(body: &[u8]) -> Result<Metadata, FetchError> {
    parse::<Described>(body)?.metadata().ok_or_else(|| malformed("not_google"))
}

/// The metadata of a page of versions.
pub(super) fn list(body: &[u8]) -> Result<Vec<Metadata>, FetchError> {
    Ok(parse::<Listed>(body)?.versions.iter().filter_map(Described::metadata).collect())
}

// === impl Described ===

impl Described {
    fn metadata(&self) -> Option<Metadata> {
        Some(Metadata { number: number(&self.name)?, enabled: self.state == "ENABLED" })
    }
}

// === impl Status ===

impl Status {
    /// `google.rpc.ErrorInfo.reason`.
    fn reason(&self) -> Option<&str> {
        self.details.iter().find_map(|detail| detail.get("reason")?.as_str()).filter(|reason| is_code(reason))
    }

    /// `google.rpc.RetryInfo.retryDelay`: seconds with an `s`, perhaps with a fraction.
    fn delay(&self) -> Option<Duration> {
        let text = self.details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        let delay = Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()?;
        Some(delay.min(MAX_DELAY))
    }
}

/// `None` = a status that says no more than the one of HTTP.
fn class_of_status(status: &str, reason: Option<&str>) -> Option<FailureClass> {
    Some(match status {
        "NOT_FOUND" => FailureClass::Gone,
        // The version is disabled or destroyed, or the key that encrypts it is.
        "FAILED_PRECONDITION" => FailureClass::Disabled,
        "PERMISSION_DENIED" => match reason {
            // Switched off for everybody, or not paid for: no verdict on this identity and this secret.
            Some("SERVICE_DISABLED" | "BILLING_DISABLED" | "CONSUMER_SUSPENDED") => FailureClass::Unavailable,
            // The token was issued for other things than Secret Manager; what the identity may do was not even looked at.
            Some("ACCESS_TOKEN_SCOPE_INSUFFICIENT") => FailureClass::Unauthenticated,
            _ => FailureClass::Denied,
        },
        "UNAUTHENTICATED" => FailureClass::Unauthenticated,
        "RESOURCE_EXHAUSTED" => FailureClass::Throttled,
        "DEADLINE_EXCEEDED" => FailureClass::Timeout,
        "UNAVAILABLE" | "INTERNAL" | "UNKNOWN" | "ABORTED" | "CANCELLED" | "DATA_LOSS" => FailureClass::Unavailable,
        "INVALID_ARGUMENT" | "OUT_OF_RANGE" | "UNIMPLEMENTED" => FailureClass::Misconfigured,
        _ => return None,
    })
}

/// `None` = a status that only Google itself can mean.
fn class_of_http(status: StatusCode) -> Option<FailureClass> {
    Some(match status.as_u16() {
        401 => FailureClass::Unauthenticated,
        408 => FailureClass::Timeout,
        429 => FailureClass::Throttled,
        // Redirects are not followed; a proxy that wants a login of its own is in the way.
        300..=399 | 407 | 500..=599 => FailureClass::Unavailable,
        _ => return None,
    })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FetchError> {
    // The parser's error may quote the answer, so it goes no further.
    serde_json::from_slice(body).map_err(|_| malformed("not_google"))
}

/// The number at the end of `projects/…/secrets/…/versions/{number}`.
fn number(name: &str) -> Option<u64> {
    let (_, number) = name.rsplit_once("/versions/")?;
    number.parse().ok().filter(|number| *number > 0)
}

/// Whether an answer's word is a code and not prose.
fn is_code(text: &str) -> bool {
    (1..=MAX_CODE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn malformed(code: &'static str) -> FetchError {
    FetchError::new(FailureClass::Malformed).with_code(code)
}

#[cfg(test)]
mod tests;
