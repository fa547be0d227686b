//! What is asked, and what answers come to.

use std::time::Duration;

use sidekey::manager::{FailureClass, Version};

use super::*;

fn stage(name: &str) -> VersionSelector {
    VersionSelector::Stage(name.into())
}

#[tokio::test]
async fn a_location_becomes_a_request() {
    let partial = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/key";
    let full = "arn:aws:secretsmanager:eu-west-1:210987654321:secret:app/key-AbCdEf";
    let china = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:app/key";
    let id = version_id(1);
    #[rustfmt::skip]
    let rows = [
        // path, version, request, region of the signature
        ("app/key", VersionSelector::Current, json!({"SecretId": "app/key"}), "us-east-1"),
        ("app/key", VersionSelector::Previous, json!({"SecretId": "app/key", "VersionStage": "AWSPREVIOUS"}), "us-east-1"),
        ("app/key", stage("AWSPENDING"), json!({"SecretId": "app/key", "VersionStage": "AWSPENDING"}), "us-east-1"),
        ("app/key", VersionSelector::Pinned(id.as_str().into()), json!({"SecretId": "app/key", "VersionId": id}), "us-east-1"),
        (partial, VersionSelector::Current, json!({"SecretId": partial}), "eu-west-1"),
        (full, VersionSelector::Current, json!({"SecretId": full}), "eu-west-1"),
        (china, VersionSelector::Current, json!({"SecretId": china}), "cn-north-1"),
    ];
    let server = Server::start().await;
    let manager = manager(&server, Method::AccessKey);
    for (path, version, request, region) in rows {
        let location = SecretLocation { path: path.into(), version };
        drop(text(&manager, &location).await);
        let seen = server.last("GetSecretValue");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&seen.body).unwrap(), request);
        assert_eq!((seen.key_id.as_deref(), seen.region.as_deref()), (Some(KEY_ID), Some(region)), "{location:?}");
    }
    assert_eq!(server.calls("DescribeSecret"), 0, "labels are looked at only when a version is known");
}

#[tokio::test]
async fn every_member_that_holds_a_value_is_read() {
    let server = Server::start().await;
    let manager = manager(&server, Method::AccessKey);
    #[rustfmt::skip]
    let rows = [
        // member, text or code
        (json!({"SecretString": "sk-1"}), Ok("sk-1")),
        (json!({"SecretString": "{\"a.b\": {\"c\": 1.50}}"}), Ok("{\"a.b\": {\"c\": 1.50}}")),
        (json!({"SecretString": ""}), Ok("")),
        (json!({"SecretBinary": "c2stMQo="}), Ok("sk-1\n")),
        (json!({"SecretBinary": "/w=="}), Err("binary")),
        (json!({}), Err("no_value")),
    ];
    for (member, expected) in rows {
        server.put_as("app/key", member.clone());
        let found = text(&manager, &at("app/key")).await;
        let found = found.as_deref().map_err(|error| {
            assert_eq!(error.class, FailureClass::Malformed, "{member}");
            error.code.as_deref().unwrap()
        });
        assert_eq!(found, expected, "{member}");
    }
}

#[tokio::test]
async fn what_may_pass_is_retried_and_what_stays_is_not() {
    use FailureClass::{
        Denied, Disabled, Gone, Malformed, Misconfigured, Throttled, Timeout, Unauthenticated, Unavailable,
    };
    let error = |status, code| Reply::error(status, code, "");
    let good = || Reply::json(200, &json!({"SecretString": "x", "VersionId": version_id(1)}));
    let deleted = || {
        let text = "You can't perform this operation on the secret because it was marked for deletion.";
        Reply::error(400, "InvalidRequestException", text)
    };
    #[rustfmt::skip]
    let rows = [
        // answers, outcome, reads
        (vec![error(400, "ThrottlingException"), error(400, "ThrottlingException"), good()], Ok(()), 3),
        (vec![error(400, "ThrottlingException")], Err((Throttled, None)), 3),
        (vec![error(400, "ThrottlingException").header("retry-after", "20")], Err((Throttled, Some(20))), 1),
        (vec![error(400, "RequestLimitExceeded"), good()], Ok(()), 2),
        (vec![error(500, "InternalServiceError"), good()], Ok(()), 2),
        (vec![error(500, "InternalServiceError")], Err((Unavailable, None)), 3),
        (vec![error(400, "KMSInternalException")], Err((Unavailable, None)), 3),
        (vec![Reply::text(503, "<html>down</html>"), good()], Ok(()), 2),
        (vec![Reply::text(429, "slow down")], Err((Throttled, None)), 3),
        (vec![error(400, "ResourceNotFoundException")], Err((Gone, None)), 1),
        (vec![deleted()], Err((Gone, None)), 1),
        (vec![error(400, "InvalidRequestException")], Err((Misconfigured, None)), 1),
        (vec![error(400, "InvalidParameterException")], Err((Misconfigured, None)), 1),
        (vec![error(400, "ValidationException")], Err((Misconfigured, None)), 1),
        (vec![error(400, "AccessDeniedException")], Err((Denied, None)), 1),
        (vec![error(400, "DecryptionFailure")], Err((Denied, None)), 1),
        (vec![error(400, "KMSInvalidStateException")], Err((Disabled, None)), 1),
        (vec![error(400, "ExpiredTokenException")], Err((Unauthenticated, None)), 1),
        (vec![error(400, "UnrecognizedClientException")], Err((Unauthenticated, None)), 1),
        (vec![error(400, "InvalidSignatureException")], Err((Unauthenticated, None)), 1),
        (vec![error(400, "NovelException")], Err((Malformed, None)), 1),
        (vec![Reply::text(403, "<html>blocked</html>")], Err((Malformed, None)), 1),
        (vec![Reply::text(404, "<html>nothing here</html>")], Err((Malformed, None)), 1),
        (vec![Reply::text(302, "").header("location", "http://169.254.169.254/")], Err((Unavailable, None)), 3),
        (vec![Reply::text(200, "{")], Err((Malformed, None)), 1),
        (vec![Reply::text(200, &"x".repeat(600 * 1024))], Err((Malformed, None)), 1),
        (vec![Reply::never(), good()], Ok(()), 2),
        (vec![Reply::never()], Err((Timeout, None)), 3),
    ];
    for (answers, expected, reads) in rows {
        let server = Server::start().await;
        let manager = manager(&server, Method::AccessKey);
        server.script("GetSecretValue", answers.clone());
        let outcome = text(&manager, &at("app/key")).await.map(drop);
        let outcome = outcome.map_err(|error| (error.class, error.retry_after.map(|wait| wait.as_secs())));
        let told = answers[0].clone();
        assert_eq!(outcome, expected, "{told:?}");
        assert_eq!(server.calls("GetSecretValue"), reads, "{told:?}");
    }
}

#[tokio::test]
async fn labels_are_looked_at_before_a_value_that_is_known() {
    let known = |number| Version(version_id(number).into());
    let current = || at("app/key");
    let previous = || SecretLocation { version: VersionSelector::Previous, ..at("app/key") };
    #[rustfmt::skip]
    let rows = [
        // location, what is known, answer of DescribeSecret unless the server's own, unchanged
        (current(), 2, None, true),
        (current(), 1, None, false),
        (current(), 9, None, false),
        (previous(), 1, None, true),
        (previous(), 2, None, false),
        (pinned("app/key", &version_id(1)), 1, None, true),
        (pinned("app/key", &version_id(2)), 1, None, false),
        (current(), 2, Some(Reply::json(200, &json!({"DeletedDate": 1.7e9, "VersionIdsToStages": {version_id(2): ["AWSCURRENT"]}}))), false),
        (current(), 2, Some(Reply::error(400, "AccessDeniedException", CANARY)), false),
        (current(), 2, Some(Reply::error(400, "ThrottlingException", CANARY)), false),
        (current(), 2, Some(Reply::error(500, "InternalServiceError", CANARY)), false),
        (current(), 2, Some(Reply::text(200, "{")), false),
        (current(), 2, Some(Reply::json(200, &json!({}))), false),
        (pinned("app/key", &version_id(1)), 1, Some(Reply::json(200, &json!({"VersionIdsToStages": {version_id(1): []}}))), false),
    ];
    for (location, number, reply, unchanged) in rows {
        let server = Server::start().await;
        server.put("app/key", "old");
        server.put("app/key", "new");
        let manager = manager(&server, Method::AccessKey);
        text(&manager, &location).await.unwrap();
        if let Some(reply) = reply.clone() {
            server.script("DescribeSecret", [reply]);
        }
        let fetched = manager.fetch(&location, Some(&known(number))).await.unwrap();
        assert_eq!(matches!(fetched, Fetched::Unchanged), unchanged, "{location:?} {number} {reply:?}: {fetched:?}");
        assert_eq!(server.calls("DescribeSecret"), 1);
        assert_eq!(server.calls("GetSecretValue"), if unchanged { 1 } else { 2 }, "{location:?} {number}");
    }
}

#[tokio::test]
async fn who_may_not_look_at_labels_is_remembered() {
    let server = Server::start().await;
    server.put("app/key", "text");
    server.script("DescribeSecret", [Reply::error(400, "AccessDeniedException", CANARY)]);
    let manager = manager(&server, Method::AccessKey);
    text(&manager, &at("app/key")).await.unwrap();
    for _ in 0..3 {
        manager.fetch(&at("app/key"), Some(&Version(version_id(1).into()))).await.unwrap();
    }
    assert_eq!((server.calls("DescribeSecret"), server.calls("GetSecretValue")), (1, 4));
}

#[tokio::test]
async fn a_regional_endpoint_is_judged_and_the_operators_is_not() {
    let server = Server::start().await;
    server.put("app/key", "text");
    for opened in [false, true] {
        let allow_hosts = if opened { vec!["secretsmanager.us-east-1.amazonaws.com".to_owned()] } else { Vec::new() };
        let mut settings = settings(Policy::new(egress::Settings { allow_hosts, ..egress::Settings::default() }));
        settings.aws.environment = environment(&server, Method::AccessKey);
        let registry = Registry::with_lookup(settings, Arc::new(Metrics::new()), Arc::new(Inside)).unwrap();
        let manager = manager_of(&registry, auth(Method::AccessKey)).unwrap();
        let error = text(&manager, &at("app/key")).await.unwrap_err();
        let expected = match opened {
            false => (FailureClass::Misconfigured, Some("address_refused")),
            // A private endpoint of the operator's network, where nobody listens.
            true => (FailureClass::Unavailable, Some("connect")),
        };
        assert_eq!((error.class, error.code.as_deref()), expected, "{error:?}");
    }
}

/// Every name lies in the network around us.
#[derive(Debug)]
struct Inside;

#[async_trait]
impl sidekey::egress::Lookup for Inside {
    async fn lookup(&self, host: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        assert_eq!(host, "secretsmanager.us-east-1.amazonaws.com");
        Ok(vec!["127.0.0.1".parse().unwrap()])
    }
}

#[tokio::test]
async fn fips_and_dual_stack_have_hosts_of_their_own() {
    #[rustfmt::skip]
    let rows = [
        // region, FIPS, dual-stack, host
        ("us-east-1", false, false, "secretsmanager.us-east-1.amazonaws.com"),
        ("us-east-1", true, false, "secretsmanager-fips.us-east-1.amazonaws.com"),
        // The usual hosts have IPv6 addresses in the commercial partition.
        ("us-east-1", false, true, "secretsmanager.us-east-1.amazonaws.com"),
        ("us-east-1", true, true, "secretsmanager-fips.us-east-1.amazonaws.com"),
        ("cn-north-1", true, true, "secretsmanager-fips.cn-north-1.api.amazonwebservices.com.cn"),
        ("cn-north-1", false, false, "secretsmanager.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", false, false, "secretsmanager.us-gov-west-1.amazonaws.com"),
        ("xx-new-9", false, false, "secretsmanager.xx-new-9.amazonaws.com"),
    ];
    for (region, use_fips, use_dual_stack, host) in rows {
        let asked = Arc::new(Asked::default());
        let mut settings = settings(Policy::new(egress::Settings::default()));
        settings.bounds.attempt_timeout = Duration::from_millis(50);
        (settings.aws.use_fips, settings.aws.use_dual_stack) = (use_fips, use_dual_stack);
        let registry = Registry::with_lookup(settings, Arc::new(Metrics::new()), Arc::clone(&asked) as _).unwrap();
        let auth = AwsAuth { region: Some(region.into()), method: key(KEY_ID) };
        let manager = manager_of(&registry, auth).unwrap();
        assert_eq!(text(&manager, &at("app/key")).await.unwrap_err().class, FailureClass::Unavailable);
        assert_eq!(asked.0.lock().unwrap()[0], host);
    }
}

/// Notes the names, and has no address for any.
#[derive(Debug, Default)]
struct Asked(std::sync::Mutex<Vec<String>>);

#[async_trait]
impl sidekey::egress::Lookup for Asked {
    async fn lookup(&self, host: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        self.0.lock().unwrap().push(host.to_owned());
        Err(std::io::ErrorKind::NotFound.into())
    }
}
