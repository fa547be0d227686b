//! The only table of what is answered when a request is refused: status, code, headers, body.
//!
//! No text of a manager, of the gateway or of an error's cause gets in here; the request id leads to the log line that has
//! them. A new reason does not compile until it has an answer here, and a code until it has a row in [`Code`].

mod code;

pub use self::code::Code;

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use uuid::Uuid;

use super::{body::ResponseBody, upstream::SendError};
use crate::{
    clients::Denied,
    dialect::{PlanError, portkey::ApplyError},
    manager::FailureClass,
    model::{AccountKind, RateUnit, Spent},
    resolve::ResolveError,
};

/// Names the code for machines.
const SIDEKEY_ERROR: HeaderName = HeaderName::from_static("x-sidekey-error");
/// Keeps Portkey's SDKs from sending a request again that will fail again.
const GATEWAY_EXCEPTION: HeaderName = HeaderName::from_static("x-portkey-gateway-exception");
/// The same for the SDKs of OpenAI and Anthropic, which repeat any 5xx twice. Source: `should_retry` in their clients.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why a request is not answered by the gateway.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No snapshot has been loaded yet.
    #[error("no snapshot has been loaded")]
    NoSnapshot,
    /// The client may not make it.
    #[error(transparent)]
    Client(#[from] Denied),
    /// The request itself is at fault, or what it names.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A credential cannot be had.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A credential does not fit.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The gateway did not answer.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The client's head is too large.
    #[error("the head has {bytes} bytes, the limit is {limit}")]
    HeadTooLarge {
        /// Request line and headers.
        bytes: usize,
        /// `limits.max_head_bytes`.
        limit: usize,
    },
    /// A head, or a body that is looked into, did not arrive in time.
    #[error("the request did not arrive within {} s", .0.as_secs())]
    RequestTimeout(Duration),
    /// The client's body ended in an error while it was looked into.
    #[error("the body broke off")]
    BodyBroken(#[source] hyper::Error),
    /// The gateway's error reply ended in an error while it was searched.
    #[error("the reply of the gateway broke off")]
    ReplyBroken(#[source] hyper::Error),
    /// Too many connections, or too much of bodies in memory.
    #[error("too much at once")]
    Overloaded,
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

/// What is answered: everything but the request id.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: Code,
    retry_after: Option<Duration>,
    message: Cow<'static, str>,
}

// === impl Refusal ===

impl Refusal {
    /// The error code, for logs and metrics.
    pub fn code(&self) -> &'static str {
        self.answer().code.as_str()
    }

    /// The status that the client receives.
    pub fn status(&self) -> StatusCode {
        self.answer().code.status()
    }

    /// What the client receives.
    pub fn respond(&self, request_id: Uuid) -> Response<ResponseBody> {
        let Answer { code, retry_after, message } = self.answer();
        let mut response = Response::new(ResponseBody::full(body(&message, code, request_id)));
        *response.status_mut() = code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(SIDEKEY_ERROR, HeaderValue::from_static(code.as_str()));
        if let Some(retry_after) = retry_after {
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        if code == Code::Unauthorized {
            // RFC 9110 15.5.2.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::Client(Denied::RateLimited { quota, .. }) = self {
            quota.write(headers);
        }
        if code.status().is_server_error() && retry_after.is_none() {
            headers.insert(GATEWAY_EXCEPTION, HeaderValue::from_static("true"));
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }

    fn answer(&self) -> Answer {
        match self {
            Self::NoSnapshot => answer(Code::NoSnapshot, "no snapshot of the control plane is loaded yet"),
            Self::Client(denied) => client(denied),
            Self::Plan(error) => plan(error),
            Self::Resolve(error) => failed(error.class, error.retry_after),
            Self::Apply(error) => match error {
                ApplyError::Malformed { .. } | ApplyError::StoredMalformed { .. } => {
                    failed(FailureClass::Malformed, None)
                }
            },
            Self::Send(error) => match error {
                SendError::HeadTooLarge { .. } => {
                    answer(Code::HeadTooLarge, "the request head is too large for the gateway once credentials are set")
                }
                SendError::Unreachable(_) => answer(Code::UpstreamUnreachable, "the gateway cannot be reached"),
                SendError::UnaskedUpgrade => {
                    answer(Code::UpstreamUnreachable, "the gateway answered with something else")
                }
                SendError::Timeout(_) => answer(Code::UpstreamTimeout, "the gateway did not answer in time"),
                SendError::ClientStalled(_) => answer(Code::RequestTimeout, "the request did not arrive in time"),
                SendError::ClientBody(_) => broken_body(),
            },
            Self::HeadTooLarge { .. } => answer(Code::HeadTooLarge, "the request head is too large"),
            Self::RequestTimeout(_) => answer(Code::RequestTimeout, "the request did not arrive in time"),
            Self::BodyBroken(_) => broken_body(),
            Self::ReplyBroken(_) => answer(Code::UpstreamUnreachable, "the reply of the gateway broke off"),
            Self::Overloaded => answer(Code::Overloaded, "too many requests at once"),
            Self::Internal => answer(Code::Internal, "internal error"),
        }
    }
}

/// The body that stands in for an error of the gateway which cannot be searched for credentials.
pub(super) fn withheld(request_id: Uuid) -> Bytes {
    body("the error of the gateway came compressed and was withheld", Code::Internal, request_id)
}

fn client(denied: &Denied) -> Answer {
    match denied {
        // One answer for all reasons: it must not tell a key that ended from one that never was.
        Denied::Unauthorized { .. } => answer(Code::Unauthorized, "the API key is missing or not valid"),
        Denied::Misconfigured { .. } => answer(Code::ReferenceMisconfigured, "the API key is misconfigured"),
        Denied::Scope { key: _, needed } => {
            answer(Code::ScopeNotAllowed, format!("the API key lacks the scope {}", needed.as_str()))
        }
        Denied::ConfigOverride { .. } => answer(
            Code::ConfigOverrideNotAllowed,
            "the API key allows no config but its own; leave out x-portkey-config",
        ),
        Denied::RateLimited { account, counts, per, retry_after, .. } => {
            let (who, counts, window) = (account_name(account.kind), counts.as_str(), window(*per));
            let message = format!("the {who} has reached its limit of {counts} per {window}");
            Answer { retry_after: Some(*retry_after), ..answer(Code::RateLimited, message) }
        }
        Denied::BudgetExhausted { account, counts, over_at } => {
            let what = counts.map_or("budget", |counts| match counts {
                Spent::Cost => "budget of money",
                Spent::Tokens => "budget of tokens",
            });
            let until = over_at.map(|at| format!("; it starts anew on {}", at.date())).unwrap_or_default();
            answer(Code::BudgetExhausted, format!("the {} has used up its {what}{until}", account_name(account.kind)))
        }
        Denied::Session { account } => answer(
            Code::SessionNotMetered,
            format!(
                "tokens or money of the {} are limited, and not counted in WebSocket sessions",
                account_name(account.kind)
            ),
        ),
        Denied::Uncounted => answer(Code::Overloaded, "limits cannot be counted for the moment"),
        Denied::Metadata => answer(Code::InvalidConfig, "Invalid config passed: x-portkey-metadata is one JSON object"),
    }
}

const fn account_name(kind: AccountKind) -> &'static str {
    match kind {
        AccountKind::ApiKey => "API key",
        AccountKind::VirtualKey => "virtual key",
        AccountKind::Workspace => "workspace",
    }
}

const fn window(per: RateUnit) -> &'static str {
    match per {
        RateUnit::Second => "second",
        RateUnit::Minute => "minute",
        RateUnit::Hour => "hour",
        RateUnit::Day => "day",
        RateUnit::Week => "week",
    }
}

fn plan(error: &PlanError) -> Answer {
    match error {
        PlanError::NotFound => answer(Code::NotFound, "the path is not served"),
        PlanError::EntityNotFound { slugs, reasons: _ } => {
            answer(Code::EntityNotFound, format!("Following keys are not valid: {}", slugs.join(", ")))
        }
        PlanError::EntityInactive { slug } => answer(Code::EntityInactive, format!("{slug} is not active")),
        PlanError::Misconfigured { slug: _, reason: _ } => failed(FailureClass::Misconfigured, None),
        PlanError::InvalidConfig { reason } => answer(Code::InvalidConfig, format!("Invalid config passed: {reason}")),
        PlanError::InvalidBody { reason } => answer(Code::InvalidBody, format!("Invalid body passed: {reason}")),
        PlanError::NoEntity => {
            answer(Code::NoEntity, "the request names no virtual key, provider slug, integration or config")
        }
        PlanError::BodyTooLarge => answer(Code::BodyTooLarge, "the body is too large to look for the model in it"),
        PlanError::NoDeployment { slug } => {
            answer(Code::NoDeployment, format!("no deployment of {slug} matches the model, and none is the default"))
        }
        PlanError::DestinationNotAllowed { input } => {
            answer(Code::DestinationNotAllowed, format!("the request may not choose a destination: {input}"))
        }
    }
}

fn failed(class: FailureClass, retry_after: Option<Duration>) -> Answer {
    let message = match class {
        FailureClass::Gone => "a secret does not exist",
        FailureClass::Denied => "a secret may not be read",
        FailureClass::Unauthenticated => "a secret manager refused the log-in",
        FailureClass::Disabled => "a secret is disabled or expired",
        FailureClass::Throttled => "a secret manager limits requests",
        FailureClass::Unavailable => "a secret manager is unavailable",
        FailureClass::Timeout => "a secret manager did not answer in time",
        FailureClass::Malformed => "a secret does not have the shape that is needed",
        FailureClass::Misconfigured => "a secret reference is misconfigured",
    };
    let answer = answer(Code::from(class), message);
    // Where coming back does not help, it does not matter when.
    Answer { retry_after: answer.retry_after.map(|usual| retry_after.unwrap_or(usual)), ..answer }
}

fn broken_body() -> Answer {
    answer(Code::InvalidBody, "the body broke off")
}

fn answer(code: Code, message: impl Into<Cow<'static, str>>) -> Answer {
    Answer { code, retry_after: code.retry_after(), message: message.into() }
}

fn body(message: &str, code: Code, request_id: Uuid) -> Bytes {
    let code = code.as_str();
    let body = json!({
        "status": "failure",
        "message": message,
        "error": { "message": message, "type": "sidekey_error", "code": code, "request_id": request_id.to_string() },
    });
    Bytes::from(body.to_string())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::model::Scope;

    async fn shown(refusal: &Refusal) -> (Response<()>, serde_json::Value) {
        let (head, body) = refusal.respond(Uuid::nil()).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn statuses_codes_and_headers_are_those_of_the_documents() {
        struct Case {
            refusal: Refusal,
            status: u16,
            code: &'static str,
            retry_after: Option<&'static str>,
            exception: bool,
        }
        let case = |refusal: Refusal, status, code| Case {
            refusal,
            status,
            code,
            retry_after: None,
            exception: matches!(status, 500 | 502 | 504),
        };
        let retry = |refusal: Refusal, code, after| Case {
            refusal,
            status: 503,
            code,
            retry_after: Some(after),
            exception: false,
        };
        let text = || "x".to_owned();
        let cases = [
            retry(Refusal::NoSnapshot, "no_snapshot", "5"),
            retry(Refusal::Overloaded, "overloaded", "1"),
            case(Denied::Unauthorized { reason: "x", key: None }.into(), 401, "unauthorized"),
            case(Denied::Misconfigured { key: "k".into(), reason: "x".into() }.into(), 502, "reference_misconfigured"),
            case(Denied::Scope { key: "k".into(), needed: Scope::CompletionsWrite }.into(), 403, "scope_not_allowed"),
            case(Denied::ConfigOverride { key: "k".into() }.into(), 400, "config_override_not_allowed"),
            case(Denied::Metadata.into(), 400, "invalid_config"),
            case(PlanError::NotFound.into(), 404, "not_found"),
            case(PlanError::EntityNotFound { slugs: vec![], reasons: vec![] }.into(), 400, "entity_not_found"),
            case(PlanError::EntityInactive { slug: "x".into() }.into(), 403, "entity_inactive"),
            case(
                PlanError::Misconfigured { slug: "x".into(), reason: "y".into() }.into(),
                502,
                "reference_misconfigured",
            ),
            case(PlanError::InvalidConfig { reason: text() }.into(), 400, "invalid_config"),
            case(PlanError::InvalidBody { reason: text() }.into(), 400, "invalid_body"),
            case(PlanError::NoEntity.into(), 400, "no_entity"),
            case(PlanError::BodyTooLarge.into(), 413, "body_too_large"),
            case(PlanError::NoDeployment { slug: "x".into() }.into(), 400, "no_deployment"),
            case(PlanError::DestinationNotAllowed { input: text() }.into(), 403, "destination_not_allowed"),
            case(ApplyError::Malformed { index: 0 }.into(), 502, "secret_malformed"),
            case(ApplyError::StoredMalformed { slug: "x".into() }.into(), 502, "secret_malformed"),
            case(SendError::HeadTooLarge { bytes: 2, limit: 1 }.into(), 431, "head_too_large"),
            case(SendError::UnaskedUpgrade.into(), 502, "upstream_unreachable"),
            case(SendError::ClientStalled(Duration::from_secs(1)).into(), 408, "request_timeout"),
            case(SendError::Timeout(Duration::from_secs(1)).into(), 504, "upstream_timeout"),
            case(Refusal::HeadTooLarge { bytes: 2, limit: 1 }, 431, "head_too_large"),
            case(Refusal::RequestTimeout(Duration::from_secs(1)), 408, "request_timeout"),
            case(Refusal::Internal, 500, "internal"),
        ];
        for Case { refusal, status, code, retry_after, exception } in cases {
            let (response, body) = shown(&refusal).await;
            assert_eq!(response.status().as_u16(), status, "{refusal:?}");
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header("x-sidekey-error"), Some(code), "{refusal:?}");
            assert_eq!(header("retry-after"), retry_after, "{refusal:?}");
            assert_eq!(header("x-portkey-gateway-exception"), exception.then_some("true"), "{refusal:?}");
            assert_eq!(header("x-should-retry"), exception.then_some("false"), "{refusal:?}");
            assert_eq!(header("www-authenticate"), (status == 401).then_some("Bearer"), "{refusal:?}");
            assert_eq!(header("content-type"), Some("application/json"), "{refusal:?}");
            assert_eq!(body["status"], "failure", "{refusal:?}");
            assert_eq!(body["error"]["code"], code, "{refusal:?}");
            assert_eq!(body["error"]["type"], "sidekey_error", "{refusal:?}");
            assert_eq!(body["error"]["message"], body["message"], "{refusal:?}");
            assert_eq!(body["error"]["request_id"], Uuid::nil().to_string(), "{refusal:?}");
        }
    }

    #[test]
    fn failure_classes_are_those_of_the_documents() {
        use FailureClass::*;
        let cases = [
            (Gone, 502, "secret_not_found"),
            (Denied, 502, "secret_denied"),
            (Unauthenticated, 502, "manager_unauthenticated"),
            (Disabled, 502, "secret_disabled"),
            (Throttled, 503, "manager_throttled"),
            (Unavailable, 503, "manager_unavailable"),
            (Timeout, 504, "manager_timeout"),
            (Malformed, 502, "secret_malformed"),
            (Misconfigured, 502, "reference_misconfigured"),
        ];
        for (class, status, code) in cases {
            let answer = failed(class, Some(Duration::from_millis(1500)));
            assert_eq!((answer.code.status().as_u16(), answer.code.as_str()), (status, code), "{class:?}");
            assert_eq!(answer.retry_after.is_some(), status == 503, "{class:?}");
        }
    }

    #[tokio::test]
    async fn unknown_slugs_are_named_and_reasons_are_not() {
        let refusal = Refusal::from(PlanError::EntityNotFound {
            slugs: vec!["a".into(), "b\"".into()],
            reasons: vec!["it belongs to another workspace".into(), "no such name".into()],
        });
        let (_, body) = shown(&refusal).await;
        assert_eq!(body["message"], "Following keys are not valid: a, b\"");
        assert!(!body.to_string().contains("workspace"));
    }
}
