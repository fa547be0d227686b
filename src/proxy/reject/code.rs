//! Every error code with what goes with it: status and `Retry-After`. Clients rely on all three.
//!
//! `docs/errors.md` describes each code; a test holds the two together.

use std::time::Duration;

use http::StatusCode;

use crate::manager::FailureClass;

/// One list, so that no code is answered with two statuses or left out of [`Code::ALL`].
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident $(, retry after $seconds:literal s)?;)*) => {
        /// What is wrong, for machines: `error.code` of a body, the header `x-sidekey-error`, a label of metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All of them, by status.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The spelling.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The status it is answered with.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }

            /// When to come back if nobody knows better; `None` = the same request fails again.
            pub const fn retry_after(self) -> Option<Duration> {
                match self {
                    $(Self::$name => codes!(@retry $($seconds)?),)*
                }
            }
        }
    };
    (@retry) => { None };
    (@retry $seconds:literal) => { Some(Duration::from_secs($seconds)) };
}

codes! {
    /// A slug names nothing that the caller may use.
    EntityNotFound = "entity_not_found", BAD_REQUEST;
    /// `x-portkey-config` cannot be used.
    InvalidConfig = "invalid_config", BAD_REQUEST;
    /// The body cannot be used, or broke off.
    InvalidBody = "invalid_body", BAD_REQUEST;
    /// The request names no entity, and has to.
    NoEntity = "no_entity", BAD_REQUEST;
    /// No Azure deployment matches the model.
    NoDeployment = "no_deployment", BAD_REQUEST;
    /// The request brings a config, and its API key allows none but its own.
    ConfigOverrideNotAllowed = "config_override_not_allowed", BAD_REQUEST;
    /// No API key, or none that can be used.
    Unauthorized = "unauthorized", UNAUTHORIZED;
    /// The API key lacks a scope.
    ScopeNotAllowed = "scope_not_allowed", FORBIDDEN;
    /// The request tries to choose where a credential goes.
    DestinationNotAllowed = "destination_not_allowed", FORBIDDEN;
    /// Tokens or money of an account are limited, and nobody counts them in a WebSocket session.
    SessionNotMetered = "session_not_metered", FORBIDDEN;
    /// The entity is not active, or has expired.
    EntityInactive = "entity_inactive", FORBIDDEN;
    /// The path is not served.
    NotFound = "not_found", NOT_FOUND;
    /// A head, or a body that is looked into, did not arrive in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT;
    /// The API key has used up a budget.
    BudgetExhausted = "budget_exhausted", PRECONDITION_FAILED;
    /// The body is too large to look for the model in it.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// The API key has asked too often. Windows are a second long at least.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, retry after 1 s;
    /// The head is too large for us, or with our credentials for the gateway.
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// A fault of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR;
    /// The secret, or the version, does not exist.
    SecretNotFound = "secret_not_found", BAD_GATEWAY;
    /// The identity may not read the secret.
    SecretDenied = "secret_denied", BAD_GATEWAY;
    /// The secret is disabled, expired or not yet valid.
    SecretDisabled = "secret_disabled", BAD_GATEWAY;
    /// The secret does not have the shape that is needed.
    SecretMalformed = "secret_malformed", BAD_GATEWAY;
    /// The reference, or what depends on it, cannot work as it is written.
    ReferenceMisconfigured = "reference_misconfigured", BAD_GATEWAY;
    /// The manager refused the identity itself.
    ManagerUnauthenticated = "manager_unauthenticated", BAD_GATEWAY;
    /// No connection to the gateway, or it broke.
    UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY;
    /// The manager limits requests. Five seconds are as long as a failure is remembered by default.
    ManagerThrottled = "manager_throttled", SERVICE_UNAVAILABLE, retry after 5 s;
    /// The manager is down, sealed or cannot be reached.
    ManagerUnavailable = "manager_unavailable", SERVICE_UNAVAILABLE, retry after 5 s;
    /// No snapshot has been loaded. The next poll may bring one.
    NoSnapshot = "no_snapshot", SERVICE_UNAVAILABLE, retry after 5 s;
    /// Too many connections, or too much of bodies in memory. Both are freed quickly.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, retry after 1 s;
    /// The manager did not answer in time.
    ManagerTimeout = "manager_timeout", GATEWAY_TIMEOUT;
    /// The gateway did not answer in time.
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT;
}

impl From<FailureClass> for Code {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Gone => Self::SecretNotFound,
            FailureClass::Denied => Self::SecretDenied,
            FailureClass::Unauthenticated => Self::ManagerUnauthenticated,
            FailureClass::Disabled => Self::SecretDisabled,
            FailureClass::Throttled => Self::ManagerThrottled,
            FailureClass::Unavailable => Self::ManagerUnavailable,
            FailureClass::Timeout => Self::ManagerTimeout,
            FailureClass::Malformed => Self::SecretMalformed,
            FailureClass::Misconfigured => Self::ReferenceMisconfigured,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_one_word_and_says_when_to_come_back_only_with_429_and_503() {
        for (index, code) in Code::ALL.iter().enumerate() {
            let text = code.as_str();
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{text}");
            assert!(!Code::ALL[..index].iter().any(|other| other.as_str() == text), "{text} stands twice");
            let comes_back = matches!(code.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(code.retry_after().is_some(), comes_back, "{text}");
        }
        assert!(Code::ALL.is_sorted_by_key(|code| code.status()));
    }
}
