//! Statuses and bodies as OpenBao 2.7 and Vault 1.2x write them, and what they must become.

use std::time::Duration;

use http::HeaderMap;
use zeroize::Zeroizing;

use super::*;

const ENVELOPE: &str = r#""request_id":"r","lease_id":"","renewable":false,"lease_duration":0,"wrap_info":null,"warnings":null,"auth":null"#;

fn answer(status: u16, body: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Answer { status, headers: HeaderMap::new(), body: Zeroizing::new(body.as_bytes().to_vec()) }
}

#[test]
fn statuses_become_classes() {
    use FailureClass::*;
    let deleted = r#"{"data":{"data":null,"metadata":{"version":1,"deletion_time":"2026-11-25T07:54:25Z","destroyed":false}},"request_id":"r"}"#;
    let destroyed =
        r#"{"data":{"data":null,"metadata":{"version":1,"deletion_time":"","destroyed":true}},"request_id":"r"}"#;
    let warned = r#"{"request_id":"r","data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}"#;
    #[rustfmt::skip]
    let rows = [
        // status, body, class, code
        (400, r#"{"errors":["missing path"]}"#, Misconfigured, "400"),
        (400, r#"{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period"]}"#, Unavailable, "kv_upgrading"),
        (400, "<html>", Malformed, "not_vault"),
        (401, "", Unauthenticated, "401"),
        (403, r#"{"errors":["permission denied"]}"#, Denied, "403"),
        (403, "<html>blocked by the firewall</html>", Malformed, "not_vault"),
        (403, "", Malformed, "not_vault"),
        (403, "{}", Malformed, "not_vault"),
        (404, r#"{"errors":[]}"#, Gone, "404"),
        (404, r#"{"errors":["no handler for route \"nope/x\""]}"#, Gone, "404"),
        (404, warned, Gone, "404"),
        (404, deleted, Gone, "deleted"),
        (404, destroyed, Gone, "destroyed"),
        (404, "default backend - 404", Malformed, "not_vault"),
        (405, r#"{"errors":["unsupported operation"]}"#, Misconfigured, "405"),
        (408, "", Timeout, "408"), (412, "", Unavailable, "412"),
        (413, r#"{"errors":["request too large"]}"#, Misconfigured, "413"),
        (413, "", Malformed, "not_vault"), (451, "<html>filtered</html>", Malformed, "not_vault"),
        (429, r#"{"errors":["request path \"x\": rate limit quota exceeded"]}"#, Throttled, "429"),
        (472, "", Unavailable, "472"), (473, "", Unavailable, "473"),
        (500, "", Unavailable, "500"), (501, "", Unavailable, "501"), (502, "<html>", Unavailable, "502"),
        (503, r#"{"errors":["Vault is sealed"]}"#, Unavailable, "503"),
        (301, "", Unavailable, "301"), (307, "", Unavailable, "307"),
        (204, "", Malformed, "204"),
    ];
    for (status, body, class, code) in rows {
        let error = check(answer(status, body)).expect_err(body);
        assert_eq!((error.class, error.code.as_deref()), (class, Some(code)), "{status} {body}");
        assert!(error.source.is_none(), "the manager's words go nowhere");
    }
}

#[test]
fn documents_are_cut_out_as_written() {
    let map = r#"{"key":"sk-1", "n":123456789012345678901234567890,"f":1.0,"o":{"a":[1,2]}}"#;
    let v1 = format!(r#"{{"data":{map},{ENVELOPE}}}"#);
    let v2 = |deletion: &str| {
        format!(
            r#"{{{ENVELOPE},"data":{{"data":{map},"metadata":{{"version":7,"deletion_time":"{deletion}","destroyed":false,"created_time":"x","custom_metadata":null}}}}}}"#
        )
    };
    let document = kv1(v1.as_bytes()).unwrap();
    assert_eq!((document.value.expose_str(), document.version, document.not_after), (Some(map), None, None));
    let document = kv2(v2("").as_bytes()).unwrap();
    assert_eq!((document.value.expose_str(), document.version, document.not_after), (Some(map), Some(7), None));
    let document = kv2(v2("2030-01-02T03:04:05.6Z").as_bytes()).unwrap();
    let ends = OffsetDateTime::from(document.not_after.expect("it deletes itself"));
    assert_eq!((ends.year(), ends.millisecond()), (2030, 600));
    assert_eq!(kv_either(v1.as_bytes()).unwrap().version, None);
    assert_eq!(kv_either(v2("").as_bytes()).unwrap().version, Some(7));
}

#[test]
fn unusable_documents_are_malformed() {
    let metadata = r#""metadata":{"version":1,"deletion_time":"","destroyed":false}"#;
    #[rustfmt::skip]
    let rows = [
        // body, KV version, class, code
        ("sk-canary", Kv::V1, FailureClass::Malformed, "not_vault"),
        ("7", Kv::V1, FailureClass::Malformed, "not_vault"),
        (r#"{"data":null}"#, Kv::V1, FailureClass::Malformed, "no_data"),
        (r#"{"data":"sk-canary"}"#, Kv::V1, FailureClass::Malformed, "not_a_map"),
        (r#"{"data":{"user":"u"},"lease_id":"database/creds/r/x"}"#, Kv::V1, FailureClass::Misconfigured, "not_kv"),
        (r#"{"data":{"key":"sk-canary"}}"#, Kv::V2, FailureClass::Malformed, "not_kv2"),
        (&format!(r#"{{"data":{{"data":null,{metadata}}}}}"#), Kv::V2, FailureClass::Malformed, "no_data"),
        (&format!(r#"{{"data":{{"data":[1],{metadata}}}}}"#), Kv::V2, FailureClass::Malformed, "not_a_map"),
        (r#"{"data":{"data":{"k":"v"},"metadata":{"version":1,"deletion_time":"","destroyed":false}}"#, Kv::V2, FailureClass::Malformed, "not_vault"),
    ];
    for (body, version, class, code) in rows {
        let parsed = match version {
            Kv::V1 => kv1(body.as_bytes()),
            Kv::V2 => kv2(body.as_bytes()),
        };
        let error = parsed.expect_err(body);
        assert_eq!((error.class, error.code.as_deref()), (class, Some(code)), "{body}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[test]
fn mounts_tell_their_version() {
    #[rustfmt::skip]
    let rows = [
        (r#"{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}"#, "secret", Some(Kv::V2)),
        (r#"{"data":{"path":"kv1/","type":"kv","options":{"version":"1"}}}"#, "kv1", Some(Kv::V1)),
        (r#"{"data":{"path":"old/","type":"kv","options":null}}"#, "old", Some(Kv::V1)),
        (r#"{"data":{"path":"older/","type":"generic"}}"#, "older", Some(Kv::V1)),
        (r#"{"data":{"path":"kv/team/","type":"kv","options":{"version":"2"}}}"#, "kv/team", Some(Kv::V2)),
        (r#"{"data":{"path":"token/","type":"token","options":null}}"#, "token", None),
        (r#"{"data":{"path":"db/","type":"database","options":{}}}"#, "db", None),
    ];
    for (body, prefix, version) in rows {
        let found = mount(body.as_bytes()).unwrap();
        assert_eq!((found.prefix.as_str(), found.version), (prefix, version), "{body}");
    }
}

#[test]
fn leases_are_read() {
    let ends = |secs, renewable| Lease::Ends { after: Duration::from_secs(secs), renewable };
    let auth = r#"{"auth":{"client_token":"s.t","accessor":"a","policies":[],"lease_duration":60,"renewable":true}}"#;
    assert_eq!(renewed(auth.as_bytes()).unwrap(), ends(60, true));
    assert_eq!(grant(auth.as_bytes()).unwrap().token.expose_str(), Some("s.t"));
    assert_eq!(looked_up(br#"{"data":{"ttl":0,"renewable":false}}"#).unwrap(), Lease::Endless);
    assert_eq!(looked_up(br#"{"data":{"ttl":9,"renewable":true}}"#).unwrap(), ends(9, true));
    assert_eq!(looked_up(br#"{"data":{"ttl":9}}"#).unwrap(), ends(9, false));
    assert!(grant(br#"{"auth":null}"#).is_err());
}

#[test]
fn a_living_token_is_told_from_a_dead_one() {
    #[rustfmt::skip]
    let rows = [
        (r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#, true),
        (r#"{"errors":["permission denied"]}"#, false),
        (r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#, false),
        ("<html>", false),
    ];
    for (body, alive) in rows {
        assert_eq!(denied_by_policy(&answer(403, body)), alive, "{body}");
    }
}
