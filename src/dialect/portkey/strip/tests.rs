//! What of a client survives beside a credential of ours, and what does not.

use http::Request;

use super::*;

fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn no_credential_of_the_client_stays_beside_ours() {
    let gone = [
        "authorization",
        "Authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "cookie2",
        "proxy-authorization",
        "x-amz-security-token",
        "x-amz-date",
        "x-amz-content-sha256",
        "X-Amz-Target",
        "x-goog-user-project",
        "x-goog-api-client",
        "x-goog-iap-jwt-assertion",
        "openai-organization",
        "openai-project",
        "xi-api-key",
        "x-auth-token",
        "private-token",
        "x-auth-key",
        "x-auth-email",
        "x-key",
        "key",
        "apikey",
        "x_api_key",
        "api_key",
        "modal-key",
        "modal-secret",
        "ocp-apim-subscription-key",
        "aeg-sas-key",
        "x-functions-key",
        "x-rapidapi-key",
        "x-subscription-token",
        "x-access-token",
        "x-vault-token",
        "x-ms-authorization-auxiliary",
        "x-ms-token-aad-access-token",
        "x-amzn-oidc-data",
        "x-amzn-oidc-accesstoken",
        "x-snowflake-authorization-token-type",
        "cf-aig-authorization",
        "cf-access-client-secret",
        "cf-access-jwt-assertion",
        "helicone-auth",
        "x-forwarded-access-token",
        "x-auth-request-user",
        "x-csrf-token",
        "password",
        "dpop",
        "signature",
        // The gateway's own: names, destinations, credentials, everything unknown.
        "x-portkey-api-key",
        "x-portkey-virtual-key",
        "x-portkey-provider",
        "x-portkey-config",
        "x-portkey-custom-host",
        "x-portkey-azure-resource-name",
        "x-portkey-azure-ad-token",
        "x-portkey-azure-api-version",
        "x-portkey-aws-access-key-id",
        "x-portkey-aws-s3-bucket",
        "x-portkey-aws-region",
        "x-portkey-vertex-region",
        "x-portkey-vertex-storage-bucket-name",
        "x-portkey-huggingface-base-url",
        "x-portkey-workers-ai-account-id",
        "x-portkey-fireworks-account-id",
        "x-portkey-openai-organization",
        "x-portkey-openai-project",
        "x-portkey-snowflake-account",
        "x-portkey-oracle-private-key",
        "x-portkey-amzn-sagemaker-target-model",
        "x-portkey-package-version",
        "x-portkey-not-invented-yet",
        "X-PORTKEY-Custom-Host",
        "x-portkey-",
    ];
    let stays = [
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
        "content-encoding",
        "user-agent",
        "host",
        "traceparent",
        "baggage",
        "x-request-id",
        "x-stainless-lang",
        "x-stainless-retry-count",
        "idempotency-key",
        "anthropic-version",
        "anthropic-beta",
        "anthropic-dangerous-direct-browser-access",
        "openai-beta",
        "sec-websocket-key",
        "sec-websocket-version",
        "x-amzn-trace-id",
        "x-forwarded-for",
        "x-custom",
        "max-tokens",
        "authority",
        "x-monkey",
        "tokenizer",
        "x-portkey",
        "x-portkey-trace-id",
        "x-portkey-metadata",
        "x-portkey-request-timeout",
        "x-portkey-strict-open-ai-compliance",
        "x-portkey-anthropic-beta",
        "x-portkey-anthropic-version",
        "x-portkey-openai-beta",
        "x-portkey-provider-model",
        "x-portkey-provider-file-name",
        "x-portkey-file-purpose",
        "x-portkey-cache-force-refresh",
        "x-portkey-amz-server-side-encryption-aws-kms-key-id",
    ];
    for (names, expected) in [(&gone[..], false), (&stays[..], true)] {
        for name in names {
            let mut head = head("/v1/x", &[(name, "a"), (name, "b"), ("x-beside", "c")]);
            client_credentials(&mut head, &[]);
            assert_eq!(head.headers.contains_key(*name), expected, "{name}");
            assert_eq!(head.headers.get_all(*name).iter().count(), if expected { 2 } else { 0 }, "{name}");
            assert_eq!(head.headers["x-beside"], "c");
        }
    }
}

#[test]
fn what_was_looked_at_may_stay_unless_it_is_a_credential() {
    let names =
        ["x-portkey-config", "x-portkey-api-key", "x-portkey-virtual-key", "x-portkey-provider", "authorization"];
    let mut head = head("/v1/x", &names.map(|name| (name, "a")));
    let keep = [names[0], names[1], names[2], names[4]].map(HeaderName::from_static);
    client_credentials(&mut head, &keep);
    assert_eq!(head.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-portkey-config"]);
}

#[test]
fn queries_lose_their_credentials_only() {
    let rows = [
        ("/v1/x", "/v1/x"),
        ("/v1/x?", "/v1/x?"),
        ("/v1/x?a=1&b=2;c=%20+&&d", "/v1/x?a=1&b=2;c=%20+&&d"),
        ("/v1/x?key=AIza", "/v1/x"),
        ("/v1/x?key", "/v1/x"),
        ("/v1/x?key=a&alt=sse", "/v1/x?alt=sse"),
        ("/v1/x?alt=sse&key=a", "/v1/x?alt=sse"),
        ("/v1/x?alt=sse&KEY=a&x=%3F", "/v1/x?alt=sse&x=%3F"),
        ("/v1/x?k%65y=a&%6B%65%79=b&x=1", "/v1/x?x=1"),
        ("/v1/x?+key+=a&%20key=b&key[]=c&key%5B0%5D=d&x=1", "/v1/x?x=1"),
        ("/v1/x?a=1;key=b", "/v1/x?a=1"),
        ("/v1/x?a=1;key=b;c=2&d=3", "/v1/x?a=1;c=2&d=3"),
        ("/v1/x?key=a=b&x=key=1", "/v1/x?x=key=1"),
        ("/v1/x?key=a&key=b", "/v1/x"),
        ("/v1/x?api_key=a&api-key=b&apikey=c&access_token=d&token=e&sig=f&signature=g", "/v1/x"),
        ("/v1/x?X-Amz-Signature=a&X-Amz-Credential=b&x-goog-signature=c&AWSAccessKeyId=d&v=1", "/v1/x?v=1"),
        (
            "/v1/x?monkey=1&keys=2&page_token=3&keyword=4&model=key",
            "/v1/x?monkey=1&keys=2&page_token=3&keyword=4&model=key",
        ),
        ("/v1/x?&key=a&", "/v1/x?"),
        ("http://host.example/v1/x?key=a&b=c", "http://host.example/v1/x?b=c"),
    ];
    for (uri, expected) in rows {
        let mut head = head(uri, &[]);
        client_credentials(&mut head, &[]);
        assert_eq!(head.uri.to_string(), expected, "{uri}");
        if !uri.starts_with("http") {
            let mut unmatched_head = self::head(uri, &[]);
            unmatched(&mut unmatched_head);
            assert_eq!(unmatched_head.uri.to_string(), uri);
        }
    }
}

#[test]
fn sub_protocols_are_stripped_with_the_rest() {
    let mut head = head("/v1/realtime", &[("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-1")]);
    unmatched(&mut head);
    assert_eq!(head.headers["sec-websocket-protocol"], "realtime, openai-insecure-api-key.sk-1");
    client_credentials(&mut head, &[]);
    assert_eq!(head.headers["sec-websocket-protocol"], "realtime");
}

#[test]
fn an_unmatched_request_keeps_its_own() {
    let key = ("x-portkey-api-key", "pk-1");
    type Headers = Vec<(&'static str, &'static str)>;
    let rows: Vec<(Headers, Headers)> = vec![
        (vec![("authorization", "Bearer sk-real"), key], vec![("authorization", "Bearer sk-real")]),
        (vec![("authorization", "Bearer pk-1"), key], vec![]),
        (vec![("authorization", "bearer  pk-1 "), key], vec![]),
        (vec![("authorization", "pk-1"), key], vec![]),
        (vec![("authorization", "Bearer pk-1")], vec![("authorization", "Bearer pk-1")]),
        (vec![("authorization", "Bearer pk-12"), key], vec![("authorization", "Bearer pk-12")]),
        (vec![("authorization", "Bearerpk-1"), key], vec![("authorization", "Bearerpk-1")]),
        (vec![("authorization", "Bearer OPENAI_API_KEY")], vec![]),
        (vec![("authorization", "Bearer DUMMY-KEY")], vec![]),
        (vec![("authorization", "Bearer dummy")], vec![]),
        (vec![("authorization", "dummy")], vec![]),
        (vec![("authorization", "Bearer ")], vec![]),
        (vec![("authorization", "Bearer")], vec![]),
        (vec![("authorization", "")], vec![]),
        (vec![("authorization", "Bearer dummy-2")], vec![("authorization", "Bearer dummy-2")]),
        (vec![("authorization", "Basic ZHVtbXk=")], vec![("authorization", "Basic ZHVtbXk=")]),
        (
            vec![("authorization", "Bearer pk-1"), ("authorization", "Bearer sk"), key],
            vec![("authorization", "Bearer sk")],
        ),
        (vec![("authorization", "Bearer x"), ("x-portkey-api-key", "")], vec![("authorization", "Bearer x")]),
        (
            vec![("x-api-key", "sk"), ("cookie", "a=b"), ("x-amz-date", "1")],
            vec![("x-api-key", "sk"), ("cookie", "a=b"), ("x-amz-date", "1")],
        ),
        (vec![("x-api-key", "dummy")], vec![("x-api-key", "dummy")]),
        (vec![("x-api-key", ""), ("x-portkey-api-key", "")], vec![("x-api-key", "")]),
        (vec![("x-api-key", "pk-1"), key], vec![]),
        (
            vec![("x-portkey-virtual-key", "vk"), ("x-portkey-provider", "openai")],
            vec![("x-portkey-provider", "openai")],
        ),
        (vec![("x-portkey-azure-ad-token", "t"), key], vec![("x-portkey-azure-ad-token", "t")]),
    ];
    for (sent, expected) in &rows {
        let mut head = head("/v1/x", sent);
        unmatched(&mut head);
        let left: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(&left, expected, "{sent:?}");
    }
}
