//! What token services answer, and what is sent to them.

use super::*;

fn answer(status: u16, body: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Answer { status, headers: HeaderMap::new(), body: Zeroizing::new(body.as_bytes().to_vec()) }
}

fn seconds(grant: &Grant) -> u64 {
    match grant.lease {
        Lease::Ends { after, renewable: false } => after.as_secs(),
        lease => panic!("{lease:?}"),
    }
}

#[test]
fn tokens_become_whole_authorizations() {
    let grant = issued(&answer(200, r#"{"access_token": "ya29.a\/b", "expires_in": 3599, "token_type": "Bearer"}"#));
    let grant = grant.unwrap();
    assert_eq!((grant.token.expose_str(), seconds(&grant)), (Some("Bearer ya29.a/b"), 3599));
    let now = OffsetDateTime::parse("2026-11-25T10:00:00Z", &Rfc3339).unwrap();
    let body = r#"{"accessToken": "ya29.c", "expireTime": "2026-11-25T11:00:00Z"}"#;
    let grant = impersonated(&answer(200, body), now).unwrap();
    assert_eq!((grant.token.expose_str(), seconds(&grant)), (Some("Bearer ya29.c"), 3600));
    // What is over already does not become endless.
    let late = now + time::Duration::hours(2);
    assert_eq!(seconds(&impersonated(&answer(200, body), late).unwrap()), 1);
    for body in
        ["", "<html>", r#"{"access_token": ""}"#, r#"{"access_token": 1, "expires_in": 1}"#, r#"{"id_token": "x"}"#]
    {
        let error = issued(&answer(200, body)).unwrap_err();
        assert_eq!((error.error.class, error.refused), (FailureClass::Malformed, false), "{body}");
    }
}

#[test]
fn refusals_are_told_from_accidents() {
    use FailureClass::*;
    let denied =
        r#"{"error": {"code": 403, "status": "PERMISSION_DENIED", "details": [{"reason": "IAM_PERMISSION_DENIED"}]}}"#;
    let disabled =
        r#"{"error": {"code": 403, "status": "PERMISSION_DENIED", "details": [{"reason": "SERVICE_DISABLED"}]}}"#;
    #[rustfmt::skip]
    let rows = [
        // status, body, class, code, refused
        (400, r#"{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}"#, Unauthenticated, "invalid_grant", true),
        (401, r#"{"error": "invalid_client"}"#, Unauthenticated, "invalid_client", true),
        (403, denied, Unauthenticated, "IAM_PERMISSION_DENIED", true),
        (403, disabled, Unavailable, "SERVICE_DISABLED", false),
        (403, "<html>blocked</html>", Malformed, "not_google", false),
        (404, "", Malformed, "not_google", false),
        (400, r#"{"error": "words and words"}"#, Unauthenticated, "400", true),
        (429, "", Throttled, "429", false),
        (500, r#"{"error": "internal_failure"}"#, Unavailable, "500", false),
        (503, "", Unavailable, "503", false),
        (302, "", Unavailable, "302", false),
    ];
    for (status, body, class, code, refused) in rows {
        let login = verdict(&answer(status, body));
        let found = (login.error.class, login.error.code.as_deref().unwrap(), login.refused);
        assert_eq!(found, (class, code, refused), "{status} {body}");
    }
    // The metadata server speaks plain text and says who it is.
    let mut absent = answer(404, "Not Found");
    absent.headers.insert(METADATA_FLAVOR, HeaderValue::from_static("Google"));
    let login = verdict(&absent);
    assert_eq!((login.error.class, login.refused), (Unauthenticated, true));
}

#[test]
fn forms_are_written_into_one_buffer() {
    let form = encode(&[("scope", "https://a/b c"), ("subject_token", "a-b.c_d~é+&=")]);
    assert_eq!(
        std::str::from_utf8(&form).unwrap(),
        "scope=https%3A%2F%2Fa%2Fb%20c&subject_token=a-b.c_d~%C3%A9%2B%26%3D"
    );
    let odd = "&".repeat(100);
    let form = encode(&[("a", &odd), ("b", &odd)]);
    assert_eq!(form.capacity(), 2 * (1 + 300 + 2), "it grew");
}

#[test]
fn the_environment_says_who_the_workload_is() {
    use crate::manager::registry::Environment;
    #[rustfmt::skip]
    let rows: [(&[(&str, &str)], &str); 3] = [
        (&[], "workload identity of the metadata server 169.254.169.254"),
        (&[("GCE_METADATA_HOST", "127.0.0.1:8080")], "workload identity of the metadata server 127.0.0.1:8080"),
        (&[("GOOGLE_APPLICATION_CREDENTIALS", "/etc/wif.json"), ("GCE_METADATA_HOST", "x")], "workload identity of /etc/wif.json"),
    ];
    for (variables, expected) in rows {
        let settings = GcpSettings { environment: Environment::of(variables), ..GcpSettings::default() };
        assert_eq!(Source::new(&GcpMethod::WorkloadIdentity, &settings).unwrap().to_string(), expected);
    }
}
