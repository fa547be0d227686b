//! What an AWS failure means. Nearly every error of these services is HTTP 400, so that the code decides and the status
//! only where there is no code that is known.
//!
//! Text of a service is looked at and never kept. Source: the API references of Secrets Manager,
//! Systems Manager, KMS and STS ("Common Errors").

use std::{error::Error as StdError, time::SystemTime};

use aws_smithy_runtime_api::client::{
    orchestrator::HttpResponse,
    result::{ConnectorError, SdkError},
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use http::HeaderMap;

use crate::{
    egress::SendError,
    manager::{FailureClass, FetchError, retry},
};

/// Longest code that is kept; the longest of AWS has 60 letters.
const MAX_CODE: usize = 64;

/// The failure of an SDK operation.
pub(in crate::manager) fn of_sdk<E>(error: SdkError<E, HttpResponse>) -> FetchError
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(context) => {
            let (told, raw) = (context.err().meta(), context.raw());
            let headers = headers(raw);
            of_answer(raw.status().as_u16(), told.code(), told.message(), &headers)
        }
        SdkError::ResponseError(context) => {
            let raw = context.raw();
            match raw.status().as_u16() {
                200..=299 => malformed("not_aws"),
                status => of_answer(status, None, None, &headers(raw)),
            }
        }
        // Made by us alone: nothing that a service or a network did.
        SdkError::ConstructionFailure(_) => FetchError::new(FailureClass::Misconfigured).with_code("request"),
        SdkError::TimeoutError(_) => FetchError::new(FailureClass::Timeout).with_code("attempt"),
        other => unanswered(other.into_source().ok()),
    }
}

/// The failure that an answer stands for: its status, code and message as the service wrote them.
pub(in crate::manager) fn of_answer(
    status: u16,
    code: Option<&str>,
    message: Option<&str>,
    headers: &HeaderMap,
) -> FetchError {
    let code = code.map(plain).filter(|code| !code.is_empty());
    let known = code.and_then(|code| by_code(code, message.unwrap_or_default()));
    let class = known.unwrap_or_else(|| by_status(status, code.is_some()));
    let error = FetchError::new(class).with_retry_after(retry::retry_after(headers, SystemTime::now()));
    match code {
        Some(code) => error.with_code(code),
        // What stands in front of AWS speaks without a code, and says nothing about the secret.
        None => error.with_code(status.to_string()),
    }
}

/// The failure of a request without an answer, found among the SDK's causes.
pub(super) fn unanswered(source: Option<Box<dyn StdError + Send + Sync>>) -> FetchError {
    let source = source.map(|source| match source.downcast::<ConnectorError>() {
        Ok(connector) => connector.into_source(),
        Err(source) => source,
    });
    match source.and_then(|source| source.downcast::<SendError>().ok()) {
        Some(error) => FetchError::from(*error),
        None => FetchError::new(FailureClass::Unavailable).with_code("dispatch"),
    }
}

pub(super) fn malformed(code: &'static str) -> FetchError {
    FetchError::new(FailureClass::Malformed).with_code(code)
}

/// The code without namespace before it (`com.amazonaws.secretsmanager#…`) and address after it (`…:http://…`), and only if
/// it is one: a code goes into the log, where a service's prose does not belong.
fn plain(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or_default();
    let code = code.split(':').next().unwrap_or_default();
    let fits =
        code.len() <= MAX_CODE && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits { code } else { "" }
}

fn by_code(code: &str, message: &str) -> Option<FailureClass> {
    use FailureClass::{Denied, Disabled, Gone, Misconfigured, Throttled, Timeout, Unauthenticated, Unavailable};
    // A secret waiting for its end answers "You can't perform this operation on the secret because it was marked for
    // deletion", under two codes.
    let is_deleted = || message.contains("marked for deletion") || message.contains("scheduled for deletion");
    Some(match code.strip_suffix("Exception").unwrap_or(code) {
        "ResourceNotFound" | "ParameterNotFound" | "ParameterVersionNotFound" => Gone,
        "InvalidRequest" | "InvalidParameter" if is_deleted() => Gone,
        "InvalidRequest"
        | "InvalidParameter"
        | "InvalidParameterValue"
        | "InvalidParameterCombination"
        | "Validation"
        | "ValidationError"
        | "MissingParameter"
        | "MalformedQueryString"
        | "InvalidKeyId"
        | "InvalidAction"
        | "UnknownOperation"
        | "Serialization" => Misconfigured,
        "AccessDenied"
        | "UnauthorizedOperation"
        | "NotAuthorized"
        | "DecryptionFailure"
        | "KMSAccessDenied"
        | "KMS.AccessDenied" => Denied,
        "KMSDisabled" | "KMSInvalidState" | "KMS.Disabled" | "KMS.KMSInvalidState" | "KMSNotFound" => Disabled,
        "ExpiredToken"
        | "UnrecognizedClient"
        | "InvalidClientTokenId"
        | "InvalidSignature"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenError"
        | "AuthFailure"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "RequestInTheFuture"
        | "TokenRefreshRequired"
        | "OptInRequired"
        | "InvalidIdentityToken"
        | "IDPRejectedClaim"
        | "RegionDisabled" => Unauthenticated,
        "Throttling"
        | "Throttled"
        | "ThrottledRequest"
        | "RequestThrottled"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "LimitExceeded"
        | "BandwidthLimitExceeded"
        | "SlowDown"
        | "KMSThrottling"
        | "KMS.Throttling"
        | "PriorRequestNotComplete"
        | "EC2Throttled"
        | "TransactionInProgress"
        | "ProvisionedThroughputExceeded" => Throttled,
        "InternalServiceError"
        | "InternalServerError"
        | "InternalServer"
        | "InternalFailure"
        | "InternalError"
        | "ServiceUnavailable"
        | "KMSInternal"
        | "KMS.KMSInternal"
        | "DependencyTimeout"
        | "KMSDependencyTimeout"
        | "IDPCommunicationError" => Unavailable,
        "RequestTimeout" => Timeout,
        _ => return None,
    })
}

/// For codes that are not known, and answers without one.
fn by_status(status: u16, spoken: bool) -> FailureClass {
    match status {
        401 if spoken => FailureClass::Unauthenticated,
        403 if spoken => FailureClass::Denied,
        408 => FailureClass::Timeout,
        429 => FailureClass::Throttled,
        // Redirects are not followed, and no service sends any.
        300..=399 | 500..=599 => FailureClass::Unavailable,
        _ => FailureClass::Malformed,
    }
}

fn headers(response: &HttpResponse) -> HeaderMap {
    let retry_after = response.headers().get(http::header::RETRY_AFTER.as_str());
    let value = retry_after.and_then(|value| value.parse().ok());
    value.map(|value| (http::header::RETRY_AFTER, value)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_decides_and_the_status_only_without_one() {
        use FailureClass::{
            Denied, Disabled, Gone, Malformed, Misconfigured, Throttled, Timeout, Unauthenticated, Unavailable,
        };
        const DELETED: &str = "You can't perform this operation on the secret because it was marked for deletion.";
        #[rustfmt::skip]
        let rows = [
            // status, code, message, class, code that is kept
            (400, Some("ResourceNotFoundException"), "", Gone, "ResourceNotFoundException"),
            (400, Some("InvalidRequestException"), DELETED, Gone, "InvalidRequestException"),
            (400, Some("InvalidParameterException"), "… because it was scheduled for deletion", Gone, "InvalidParameterException"),
            (400, Some("InvalidRequestException"), "VersionId and VersionStage disagree", Misconfigured, "InvalidRequestException"),
            (400, Some("InvalidParameterException"), "", Misconfigured, "InvalidParameterException"),
            (400, Some("ValidationException"), "", Misconfigured, "ValidationException"),
            (400, Some("ValidationError"), "", Misconfigured, "ValidationError"),
            (400, Some("AccessDeniedException"), "Access to KMS is not allowed", Denied, "AccessDeniedException"),
            (403, Some("AccessDenied"), "", Denied, "AccessDenied"),
            (400, Some("DecryptionFailure"), "", Denied, "DecryptionFailure"),
            (400, Some("KMSInvalidStateException"), "", Disabled, "KMSInvalidStateException"),
            (400, Some("KMSInternalException"), "", Unavailable, "KMSInternalException"),
            (400, Some("ThrottlingException"), "Rate exceeded", Throttled, "ThrottlingException"),
            (400, Some("Throttling"), "", Throttled, "Throttling"),
            (400, Some("RequestLimitExceeded"), "", Throttled, "RequestLimitExceeded"),
            (400, Some("TooManyRequestsException"), "", Throttled, "TooManyRequestsException"),
            (400, Some("ExpiredTokenException"), "", Unauthenticated, "ExpiredTokenException"),
            (403, Some("ExpiredToken"), "", Unauthenticated, "ExpiredToken"),
            (400, Some("UnrecognizedClientException"), "", Unauthenticated, "UnrecognizedClientException"),
            (403, Some("InvalidClientTokenId"), "", Unauthenticated, "InvalidClientTokenId"),
            (400, Some("InvalidSignatureException"), "", Unauthenticated, "InvalidSignatureException"),
            (400, Some("MissingAuthenticationTokenException"), "", Unauthenticated, "MissingAuthenticationTokenException"),
            (400, Some("IDPCommunicationError"), "", Unavailable, "IDPCommunicationError"),
            (500, Some("InternalServiceError"), "", Unavailable, "InternalServiceError"),
            (400, Some("InternalServiceError"), "", Unavailable, "InternalServiceError"),
            // namespaces and addresses around a code
            (400, Some("com.amazonaws.secretsmanager#ResourceNotFoundException"), "", Gone, "ResourceNotFoundException"),
            (400, Some("ThrottlingException:http://internal.amazon.com/coral/"), "", Throttled, "ThrottlingException"),
            // codes that nobody knows yet
            (400, Some("NovelException"), "", Malformed, "NovelException"),
            (401, Some("NovelException"), "", Unauthenticated, "NovelException"),
            (403, Some("NovelException"), "", Denied, "NovelException"),
            (429, Some("NovelException"), "", Throttled, "NovelException"),
            (503, Some("NovelException"), "", Unavailable, "NovelException"),
            // no code: a proxy, a load balancer
            (403, None, "", Malformed, "403"),
            (404, None, "", Malformed, "404"),
            (408, None, "", Timeout, "408"),
            (429, None, "", Throttled, "429"),
            (302, None, "", Unavailable, "302"),
            (502, None, "", Unavailable, "502"),
            (403, Some("what a proxy may write"), "", Malformed, "403"),
        ];
        for (status, code, message, class, kept) in rows {
            let error = of_answer(status, code, Some(message), &HeaderMap::new());
            assert_eq!((error.class, error.code.as_deref()), (class, Some(kept)), "{status} {code:?} {message}");
        }
    }
}
