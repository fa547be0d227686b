//! Statuses and bodies as Google writes them, and what they must become.

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
use serde_json::json;

use super::*;

fn answer(status: u16, body: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Answer { status, headers: HeaderMap::new(), body: Zeroizing::new(body.as_bytes().to_vec()) }
}

fn rpc(code: u16, status: &str, reason: Option<&str>) -> String {
    let info = "type.googleapis.com/google.rpc.ErrorInfo";
    let details: Vec<_> =
        reason.iter().map(|reason| json!({"@type": info, "reason": reason, "domain": "googleapis.com"})).collect();
    json!({"error": {"code": code, "message": "words", "status": status, "details": details}}).to_string()
}

#[test]
fn statuses_become_classes() {
    use FailureClass::*;
    #[rustfmt::skip]
    let rows = [
        // status, google.rpc status, reason, class, code
        (404, "NOT_FOUND", None, Gone, "NOT_FOUND"),
        (400, "FAILED_PRECONDITION", None, Disabled, "FAILED_PRECONDITION"),
        (403, "PERMISSION_DENIED", None, Denied, "PERMISSION_DENIED"),
        (403, "PERMISSION_DENIED", Some("IAM_PERMISSION_DENIED"), Denied, "IAM_PERMISSION_DENIED"),
        (403, "PERMISSION_DENIED", Some("SECURITY_POLICY_VIOLATED"), Denied, "SECURITY_POLICY_VIOLATED"),
        (403, "PERMISSION_DENIED", Some("SERVICE_DISABLED"), Unavailable, "SERVICE_DISABLED"),
        (403, "PERMISSION_DENIED", Some("BILLING_DISABLED"), Unavailable, "BILLING_DISABLED"),
        (403, "PERMISSION_DENIED", Some("ACCESS_TOKEN_SCOPE_INSUFFICIENT"), Unauthenticated, "ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
        (401, "UNAUTHENTICATED", Some("ACCESS_TOKEN_EXPIRED"), Unauthenticated, "ACCESS_TOKEN_EXPIRED"),
        (429, "RESOURCE_EXHAUSTED", Some("RATE_LIMIT_EXCEEDED"), Throttled, "RATE_LIMIT_EXCEEDED"),
        (400, "INVALID_ARGUMENT", None, Misconfigured, "INVALID_ARGUMENT"),
        (501, "UNIMPLEMENTED", None, Misconfigured, "UNIMPLEMENTED"),
        (500, "INTERNAL", None, Unavailable, "INTERNAL"),
        (503, "UNAVAILABLE", None, Unavailable, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED", None, Timeout, "DEADLINE_EXCEEDED"),
        (409, "ABORTED", None, Unavailable, "ABORTED"),
        (403, "prose, not a code", Some("more prose"), Malformed, "403"),
        (404, "SOMETHING_NEW", None, Malformed, "SOMETHING_NEW"),
        (503, "SOMETHING_NEW", None, Unavailable, "SOMETHING_NEW"),
    ];
    for (http, status, reason, class, code) in rows {
        let error = check(answer(http, &rpc(http, status, reason))).unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (class, Some(code)), "{http} {status} {reason:?}");
        assert!(error.source.is_none(), "the manager's words go nowhere");
    }
}

#[test]
fn what_stands_before_google_says_nothing_of_a_secret() {
    use FailureClass::*;
    #[rustfmt::skip]
    let rows = [
        (400, Malformed), (403, Malformed), (404, Malformed), (204, Malformed), (206, Malformed),
        (401, Unauthenticated), (407, Unavailable), (408, Timeout), (429, Throttled),
        (302, Unavailable), (500, Unavailable), (502, Unavailable), (504, Unavailable),
    ];
    for (status, class) in rows {
        for body in ["<html>blocked</html>", "", "{}", r#"{"error": "no object"}"#] {
            assert_eq!(check(answer(status, body)).unwrap_err().class, class, "{status} {body}");
        }
    }
}

#[test]
fn google_says_when_to_come_back_in_two_ways() {
    let delayed = |delay: &str| {
        let details = json!([{"reason": "RATE_LIMIT_EXCEEDED"}, {"retryDelay": delay}]);
        json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}).to_string()
    };
    #[rustfmt::skip]
    let rows = [
        // Retry-After, RetryInfo, milliseconds
        (None, "30s", Some(30_000)), (None, "1.5s", Some(1500)), (None, "999999s", Some(3_600_000)),
        (None, "-1s", None), (None, "soon", None), (None, "NaNs", None), (Some("7"), "30s", Some(7000)),
    ];
    for (header, delay, expected) in rows {
        let mut answer = answer(429, &delayed(delay));
        answer.headers.extend(header.map(|text| (RETRY_AFTER, HeaderValue::from_static(text))));
        let error = check(answer).unwrap_err();
        assert_eq!(error.retry_after, expected.map(Duration::from_millis), "{header:?} {delay}");
    }
}

#[test]
fn payloads_are_checked_and_taken_as_they_are() {
    let name = "projects/1/secrets/s/versions/5";
    let body = |payload: Value| json!({"name": name, "payload": payload}).to_string();
    // "123456789" and its well-known checksum.
    let (data, sum) = ("MTIzNDU2Nzg5", 0xe306_9283_u32);
    #[rustfmt::skip]
    let rows = [
        // payload, value or code
        (json!({"data": data, "dataCrc32c": sum.to_string()}), Ok(&b"123456789"[..])),
        (json!({"data": data, "dataCrc32c": sum}), Ok(b"123456789")),
        (json!({"data": data}), Ok(b"123456789")),
        (json!({"data": "AP8="}), Ok(b"\0\xff")),
        (json!({"data": "AP8"}), Ok(b"\0\xff")),
        (json!({"data": "", "dataCrc32c": "0"}), Ok(b"")),
        (json!({"data": data, "dataCrc32c": (sum ^ 1).to_string()}), Err("checksum")),
        (json!({"data": data, "dataCrc32c": "-1"}), Err("checksum")),
        (json!({"data": "MTIzNDU2Nzg4", "dataCrc32c": sum.to_string()}), Err("checksum")),
        (json!({"data": "sk-canary"}), Err("not_base64")),
        (json!({"data": 7}), Err("not_base64")),
        (json!({}), Err("no_data")),
        (json!(null), Err("not_google")),
    ];
    for (payload, expected) in rows {
        let found = document(body(payload.clone()).as_bytes());
        let code = |error: FetchError| {
            assert_eq!(error.class, FailureClass::Malformed);
            error.code.unwrap().to_string()
        };
        let found = found.map(|document| document.value.to_vec()).map_err(code);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{payload}");
    }
    // Slashes may be escaped in JSON.
    let escaped = format!(r#"{{"name":"{name}","payload":{{"data":"\/\/\/\/"}}}}"#);
    assert_eq!(**document(escaped.as_bytes()).unwrap().value, [0xff; 3]);
}

#[test]
fn versions_are_numbers_at_the_end_of_a_name() {
    let version = |name: &str| {
        let body = json!({"name": name, "payload": {"data": "eA=="}}).to_string();
        document(body.as_bytes()).unwrap().version
    };
    #[rustfmt::skip]
    let rows = [
        ("projects/1/secrets/s/versions/5", Some(5)),
        ("projects/1/locations/europe-west3/secrets/s/versions/12", Some(12)),
        ("projects/1/secrets/s/versions/latest", None), ("projects/1/secrets/s/versions/0", None),
        ("projects/1/secrets/s", None), ("", None),
    ];
    for (name, expected) in rows {
        assert_eq!(version(name), expected, "{name}");
    }
}

#[test]
fn metadata_tell_number_and_state() {
    let described =
        |number: u64, state: &str| json!({"name": format!("projects/1/secrets/s/versions/{number}"), "state": state});
    for (state, enabled) in [("ENABLED", true), ("DISABLED", false), ("DESTROYED", false), ("STATE_UNSPECIFIED", false)]
    {
        assert_eq!(metadata(described(3, state).to_string().as_bytes()).unwrap(), Metadata { number: 3, enabled });
    }
    let page = json!({"versions": [described(3, "DISABLED"), described(2, "ENABLED")], "totalSize": 2}).to_string();
    let expected = [Metadata { number: 3, enabled: false }, Metadata { number: 2, enabled: true }];
    assert_eq!(list(page.as_bytes()).unwrap(), expected);
    assert_eq!(list(b"{}").unwrap(), []);
    for body in ["7", "<html>", r#"{"versions": [{"name": 1}]}"#] {
        assert_eq!(list(body.as_bytes()).unwrap_err().class, FailureClass::Malformed, "{body}");
    }
    assert!(metadata(br#"{"name": "projects/1/secrets/s", "state": "ENABLED"}"#).is_err());
}
