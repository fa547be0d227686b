//! Why a call is not done, in the words of Portkey's admin API: `{"success":false,"data":{"message","errorCode"}}`.
//!
//! The only table of status and code. A message quotes no value of the request and nothing of the database.

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::RETRY_AFTER};
use serde_json::json;

use super::store::{StoreError, User};

/// `Retry-After`, in seconds.
const RETRY_AFTER_SECS: u16 = 1;

/// A call that is not done.
#[derive(Debug)]
pub struct Refusal {
    code: Code,
    message: String,
    cause: Option<StoreError>,
}

/// Why, for the log; travels with the response as far as the log line.
#[derive(Clone, Debug)]
pub(super) struct Cause(pub(super) Arc<StoreError>);

/// `errorCode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// `AB01`: the call is not valid, or cannot be done as things are.
    Invalid,
    /// `AB02`: no such path.
    NoSuchPath,
    /// `AB03`: the caller may not.
    Forbidden,
    /// `AB04`: our fault.
    Internal,
    /// `AB05`: nobody we know.
    Unauthorised,
    /// `AB07`: it is there already, or something stands in the way.
    Conflict,
    /// `AB08`: no such object, or none that the caller may know of.
    NotFound,
    /// `AB06`: more than may be at once.
    TooMany,
    /// `AB04` with 503: not now.
    Busy,
    /// `AB01` with 413: more than is read.
    TooLarge,
    /// `AB02` with 405: the path has no such method.
    Method,
}

// === impl Refusal ===

impl Refusal {
    /// 400: what is wrong with the call.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// 401.
    pub fn unauthorised() -> Self {
        Self::new(Code::Unauthorised, "Unauthorised Request")
    }

    /// 403, in Portkey's words.
    pub fn forbidden() -> Self {
        Self::new(Code::Forbidden, "You do not have enough permissions to execute this request")
    }

    /// 403, for a reason.
    pub fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, message)
    }

    /// 404: there is no such object, or none that the caller may know of.
    pub fn not_found(noun: &str) -> Self {
        Self::new(Code::NotFound, format!("the {noun} does not exist"))
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// 400: it cannot go while `users` need it.
    pub fn in_use(noun: &str, users: &[User]) -> Self {
        let named: Vec<String> = users.iter().map(|User { kind, slug }| format!("{} {slug}", kind.noun())).collect();
        Self::invalid(format!("the {noun} is in use by {}; remove it there first", named.join(", ")))
    }

    /// 404: the path is not served.
    pub fn no_such_path() -> Self {
        Self::not_served("the path is not served")
    }

    /// 404: the path is not served, for a reason.
    pub fn not_served(message: impl Into<String>) -> Self {
        Self::new(Code::NoSuchPath, message)
    }

    /// 405.
    pub fn no_such_method() -> Self {
        Self::new(Code::Method, "the path does not take this method")
    }

    /// 429, with `Retry-After`.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(Code::TooMany, message)
    }

    /// 503, with `Retry-After`.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Code::Busy, message)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(Code::TooLarge, format!("the body is larger than {limit} bytes"))
    }

    /// 500, for a reason that is for the log only.
    fn internal(cause: StoreError) -> Self {
        Self {
            cause: Some(cause),
            ..Self::new(Code::Internal, "something went wrong; the log says what, under the request id")
        }
    }

    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken => Self::invalid("slug: is taken; choose another"),
            StoreError::InUse => Self::invalid("the object is in use, or what it names was removed meanwhile"),
            StoreError::Database(_)
            | StoreError::Newer { .. }
            | StoreError::Corrupt { .. }
            | StoreError::UnknownKind => Self::internal(error),
        }
    }
}

impl From<aws_lc_rs::error::Unspecified> for Refusal {
    /// The system gives no randomness.
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::new(Code::Internal, "no random numbers can be had")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.code.wire();
        let body = json!({ "success": false, "data": { "message": self.message, "errorCode": code } });
        let mut response = (status, Json(body)).into_response();
        if matches!(self.code, Code::TooMany | Code::Busy) {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECS.into());
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(Arc::new(cause)));
        }
        response
    }
}

// === impl Code ===

impl Code {
    const fn wire(self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid => (StatusCode::BAD_REQUEST, "AB01"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "AB02"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "AB03"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "AB04"),
            Self::Unauthorised => (StatusCode::UNAUTHORIZED, "AB05"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "AB06"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "AB04"),
            Self::Conflict => (StatusCode::CONFLICT, "AB07"),
            Self::NotFound => (StatusCode::NOT_FOUND, "AB08"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "AB01"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "AB02"),
        }
    }
}
