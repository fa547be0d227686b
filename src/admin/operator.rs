//! The operator API: what is remembered of each reference, reading it again, and trying it. No answer holds a value.
//!
//! Whoever calls it shows the bearer token, always; a browser page cannot call it (RFC 6454 `Origin` is compared with `Host`,
//! and a body has to be `application/json`, which no form sends). Nothing is decided here that a request would feel, except
//! that a refresh reads a secret earlier.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    Vitals, failure, reply,
    token::{TokenError, TokenFile},
};
use crate::{
    manager::{FailureClass, FetchError},
    metric::OperatorLabels,
    model::{Reference, Snapshot},
    resolve::{Probe, SlotState, SlotStatus, Unusable, Uses},
    secret::fingerprint::{Fingerprints, KeyError},
};

/// Largest body, in bytes: the name of a reference.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Longest wait for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the operator API needs beside the vitals.
#[derive(Clone, Debug)]
pub struct Operator {
    token: Option<TokenFile>,
    fingerprint_key_file: Option<PathBuf>,
    /// Where no file has a key.
    fingerprints: Arc<Fingerprints>,
}

/// A file of the operator API cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// `admin_token_file`.
    #[error("admin_token_file cannot be used")]
    Token(#[from] TokenError),
    /// `fingerprint_key_file`.
    #[error("fingerprint_key_file cannot be used")]
    Fingerprint(#[from] KeyError),
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    List,
    Refresh,
    Test,
}

/// Why not.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    header: Option<(HeaderName, HeaderValue)>,
}

/// The body of a refresh or a test.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Slug or id.
    reference: Option<String>,
    #[serde(default)]
    all: bool,
}

// === impl Operator ===

impl Operator {
    /// Reads both files once, so that a bad one is told at the start. Blocks.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub fn new(token: Option<PathBuf>, fingerprint_key_file: Option<PathBuf>) -> Result<Self, OperatorError> {
        if fingerprint_key_file.is_some() {
            Fingerprints::new(fingerprint_key_file.as_deref())?;
        }
        Ok(Self {
            token: token.map(TokenFile::open).transpose()?,
            fingerprint_key_file,
            fingerprints: Arc::new(Fingerprints::new(None)?),
        })
    }

    /// The answer, if the path is one of this API.
    pub(super) async fn answer(&self, request: Request<Incoming>, vitals: &Vitals) -> Option<Response<Full<Bytes>>> {
        let operation = Operation::of(request.uri().path())?;
        let answered = self.perform(operation, request, vitals).await;
        let code = answered.as_ref().map_or_else(|refused| refused.code, |_| "ok");
        vitals.metrics.operator_requests.get_or_create(&OperatorLabels { operation: operation.as_str(), code }).inc();
        Some(answered.map_or_else(Refused::respond, |body| reply(StatusCode::OK, body)))
    }

    async fn perform(
        &self,
        operation: Operation,
        request: Request<Incoming>,
        vitals: &Vitals,
    ) -> Result<Value, Refused> {
        self.admit(request.headers())?;
        if request.method() != operation.method() {
            return Err(Refused::method(operation));
        }
        let wish = match operation {
            Operation::List => Wish::default(),
            Operation::Refresh | Operation::Test => Wish::read(request).await?,
        };
        let snapshot = vitals.feed.current().ok_or(Refused::NO_SNAPSHOT)?;
        match operation {
            Operation::List => Ok(list(vitals, &snapshot)),
            Operation::Refresh if wish.all && wish.reference.is_none() => Ok(refresh_all(vitals, &snapshot).await),
            Operation::Refresh => refresh(vitals, wish.one(&snapshot)?, &Uses::of(&snapshot)).await,
            Operation::Test => self.test(vitals, wish.one(&snapshot)?.as_ref(), &Uses::of(&snapshot)).await,
        }
    }

    /// Whether whoever sent these headers may use the API.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let token = self.token.as_ref().ok_or(Refused::OFF)?;
        if !own_origin(headers) {
            return Err(Refused::FOREIGN_ORIGIN);
        }
        let presented = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
        match presented.map(|presented| token.admits(presented)) {
            Some(Ok(true)) => Ok(()),
            Some(Ok(false)) | None => Err(Refused::unauthorized()),
            Some(Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "The operator API is closed, its token file cannot be used."
                );
                Err(Refused::CLOSED)
            }
        }
    }

    async fn test(&self, vitals: &Vitals, reference: &Reference, uses: &Uses) -> Result<Value, Refused> {
        let Probe { identity, elapsed, outcome } = vitals.resolver.probe(reference, uses).await;
        let unusable = outcome.as_ref().map(|read| read.unusable.as_slice()).unwrap_or_default();
        let picked = if unusable.is_empty() { "ok" } else { FailureClass::Malformed.as_str() };
        let (class, code) = outcome.as_ref().map_or_else(told, |_| (picked, None));
        info!(reference = &*reference.slug, class, "An operator tried a reference.");
        let fingerprint = match &outcome {
            Ok(read) => Some(self.fingerprints()?.of(read.value.expose().as_bytes())),
            Err(_) => None,
        };
        Ok(json!({
            "reference": &*reference.slug,
            "manager": reference.manager_type.as_str(),
            "identity": identity,
            "class": class,
            "manager_code": code,
            "version": outcome.as_ref().ok().and_then(|read| read.version.as_ref()).map(|version| &*version.0),
            "latency_ms": milliseconds(elapsed),
            "fingerprint": fingerprint,
            "unusable": unusable.iter().map(without_value).collect::<Vec<_>>(),
        }))
    }

    fn fingerprints(&self) -> Result<Arc<Fingerprints>, Refused> {
        let Some(file) = self.fingerprint_key_file.as_deref() else { return Ok(Arc::clone(&self.fingerprints)) };
        Fingerprints::new(Some(file)).map(Arc::new).map_err(|error| {
            warn!(
                error = &error as &dyn std::error::Error,
                "A fingerprint cannot be made, fingerprint_key_file cannot be used."
            );
            Refused::NO_FINGERPRINT
        })
    }
}

// === impl Operation ===

impl Operation {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/secrets" => Some(Self::List),
            "/v1/secrets/refresh" => Some(Self::Refresh),
            "/v1/secrets/test" => Some(Self::Test),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Refresh => "refresh",
            Self::Test => "test",
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::List => Method::GET,
            Self::Refresh | Self::Test => Method::POST,
        }
    }
}

// === impl Refused ===

impl Refused {
    const OFF: Self =
        Self::new(StatusCode::FORBIDDEN, "scope_not_allowed", "the operator API is off, it needs admin_token_file");
    const CLOSED: Self = Self::new(
        StatusCode::FORBIDDEN,
        "scope_not_allowed",
        "the operator API is closed, its token file cannot be used",
    );
    const FOREIGN_ORIGIN: Self =
        Self::new(StatusCode::FORBIDDEN, "scope_not_allowed", "the operator API is not for pages of another origin");
    const NO_SNAPSHOT: Self = Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_snapshot", "no snapshot is loaded");
    const NO_BODY: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "invalid_body",
        r#"the body is not {"reference": "…"}, nor {"all": true} for a refresh"#,
    );
    const NO_JSON: Self =
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", "the body has to be sent as application/json");
    const UNKNOWN: Self = Self::new(StatusCode::NOT_FOUND, "not_found", "the snapshot has no such reference");
    const NO_FINGERPRINT: Self =
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "fingerprint_key_file cannot be used");
    const INACTIVE: Self = Self::new(StatusCode::FORBIDDEN, "entity_inactive", "the reference is not active");

    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, header: None }
    }

    fn unauthorized() -> Self {
        let refused = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the bearer token is missing or wrong");
        Self { header: Some((WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="sidekey""#))), ..refused }
    }

    fn method(operation: Operation) -> Self {
        let allow = match operation {
            Operation::List => HeaderValue::from_static("GET"),
            Operation::Refresh | Operation::Test => HeaderValue::from_static("POST"),
        };
        let refused = Self::new(StatusCode::METHOD_NOT_ALLOWED, "not_found", "this path is asked another way");
        Self { header: Some((ALLOW, allow)), ..refused }
    }

    fn respond(self) -> Response<Full<Bytes>> {
        let mut response = failure(self.status, self.code, self.message);
        response.headers_mut().extend(self.header);
        response
    }
}

// === impl Wish ===

impl Wish {
    async fn read(request: Request<Incoming>) -> Result<Self, Refused> {
        let media = request.headers().get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/json") {
            return Err(Refused::NO_JSON);
        }
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        let body = tokio::time::timeout(BODY_TIMEOUT, body).await.ok().and_then(Result::ok).ok_or(Refused::NO_BODY)?;
        serde_json::from_slice(&body.to_bytes()).map_err(|_| Refused::NO_BODY)
    }

    /// The reference that is meant, by slug or id.
    fn one(self, snapshot: &Snapshot) -> Result<Arc<Reference>, Refused> {
        let Self { reference: Some(name), all: false } = self else { return Err(Refused::NO_BODY) };
        let named = |by: fn(&Reference) -> &str| snapshot.references.iter().find(|reference| by(reference) == name);
        let found = named(|reference| &reference.slug).or_else(|| named(|reference| &reference.id));
        found.cloned().ok_or(Refused::UNKNOWN)
    }
}

fn list(vitals: &Vitals, snapshot: &Snapshot) -> Value {
    let slots = vitals.resolver.slots(snapshot, &Uses::of(snapshot));
    json!({
        "object": "list",
        "snapshot_version": snapshot.version,
        "total": slots.len(),
        "data": slots.iter().map(status).collect::<Vec<_>>(),
    })
}

/// What is remembered of one reference.
fn status(slot: &SlotStatus) -> Value {
    let state = match slot.state {
        SlotState::Empty => "empty",
        SlotState::Fresh => "fresh",
        SlotState::Stale => "stale",
        SlotState::Refused => "refused",
    };
    // A read that succeeded leaves a value and no failure, and every mapping finds its own in it.
    let outcome = slot.class.map(FailureClass::as_str).or(slot.age.map(|_| "ok"));
    json!({
        "reference": &*slot.reference.slug,
        "manager": slot.reference.manager_type.as_str(),
        "state": state,
        "age_secs": slot.age.map(|age| age.as_secs()),
        "version": slot.version.as_ref().map(|version| &*version.0),
        "last_outcome": outcome,
        "failures": slot.failures,
        "unusable": slot.unusable.iter().map(without_value).collect::<Vec<_>>(),
    })
}

/// A mapping that finds no value in what was read, and why.
fn without_value(Unusable { entity, field, reason }: &Unusable) -> Value {
    json!({ "entity": entity, "field": field, "reason": reason.to_string() })
}

async fn refresh(vitals: &Vitals, reference: Arc<Reference>, uses: &Uses) -> Result<Value, Refused> {
    let refreshed = vitals.resolver.refresh(&reference, uses).await.map_err(|_inactive| Refused::INACTIVE)?;
    let class = refreshed.class.map_or("ok", |class| class.as_str());
    info!(reference = &*reference.slug, class, "An operator had a secret read again.");
    Ok(status(&refreshed))
}

/// Reads everything that is remembered; goes on when whoever asked leaves.
async fn refresh_all(vitals: &Vitals, snapshot: &Snapshot) -> Value {
    let resolver = Arc::clone(&vitals.resolver);
    // What a panic leaves unread shows in the states.
    let _ = tokio::spawn(async move { resolver.refresh_all().await }).await;
    let slots = vitals.resolver.slots(snapshot, &Uses::of(snapshot));
    let failed: Vec<_> = slots.iter().filter(|slot| slot.class.is_some()).map(status).collect();
    let read = slots.iter().filter(|slot| slot.class.is_none() && slot.age.is_some()).count();
    info!(read, failed = failed.len(), "An operator had every secret read again.");
    json!({ "read": read, "failed": failed })
}

/// `Authorization: Bearer …` → the token; the scheme in any case (RFC 9110 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Whether no page of another origin sent this: no `Origin`, or that of the address it was sent to.
fn own_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let authority = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    authority.is_some() && authority == host
}

fn told(error: &FetchError) -> (&'static str, Option<&str>) {
    (error.class.as_str(), error.code.as_deref())
}

fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_follows_its_scheme() {
        let rows: [(&str, Option<&str>); 7] = [
            ("Bearer t", Some("t")),
            ("bEARER t", Some("t")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Basic t", None),
            ("t", None),
            ("", None),
        ];
        for (header, token) in rows {
            assert_eq!(bearer(header.as_bytes()), token.map(str::as_bytes), "{header:?}");
        }
    }

    #[test]
    fn an_origin_is_compared_with_the_host() {
        let rows = [
            (None, true),
            (Some("http://127.0.0.1:8901"), true),
            (Some("http://127.0.0.1:8902"), false),
            (Some("http://127.0.0.1"), false),
            (Some("https://127.0.0.1:8901"), false),
            (Some("http://evil.example"), false),
            (Some("null"), false),
            (Some(""), false),
        ];
        for (origin, own) in rows {
            let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("127.0.0.1:8901"))]);
            headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
            assert_eq!(own_origin(&headers), own, "{origin:?}");
        }
    }
}
