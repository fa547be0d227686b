//! What arrives when one entity's fields travel in headers.

use http::Method;

use crate::dialect::{
    PlanError,
    portkey::{
        BodyPeek, Mode,
        sample::{self, Sample, chat, head, model, plan},
    },
};

/// Plans for `@slug` with these headers and applies; the `x-portkey-*` headers and credentials that arrive, sorted.
fn arrives(sample: &Sample, slug: &str, headers: &[(&str, &str)], peek: &BodyPeek) -> Vec<(String, String)> {
    let name = format!("@{slug}");
    let mut all = vec![("x-portkey-provider", name.as_str())];
    all.extend_from_slice(headers);
    let head = chat(&all);
    let planned = plan(&sample.link(), &head, peek).unwrap();
    assert_eq!(planned.mode, Mode::Header);
    let (applied, _) = sample::apply(&planned, &head);
    let mut lines: Vec<_> =
        applied.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    lines.sort();
    lines
}

fn lines(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn every_field_of_the_entity_is_placed() {
    let sample = sample::providers();
    for (slug, expected) in [
        ("openai-prod", &[("authorization", "Bearer sk-openai-key-api_key"), ("x-portkey-provider", "openai")][..]),
        ("anthropic", &[("authorization", "Bearer sk-anthropic-key-api_key"), ("x-portkey-provider", "anthropic")]),
        (
            "azure",
            &[
                ("authorization", "Bearer sk-azure-key-api_key"),
                ("x-portkey-azure-api-version", "2024-06-01"),
                ("x-portkey-azure-deployment-id", "dep-35"),
                ("x-portkey-azure-resource-name", "res-1"),
                ("x-portkey-provider", "azure-openai"),
            ],
        ),
        (
            "bedrock",
            &[
                ("x-portkey-aws-access-key-id", "sk-aws-aws_access_key_id"),
                ("x-portkey-aws-region", "eu-west-1"),
                ("x-portkey-aws-s3-bucket", "our-bucket"),
                ("x-portkey-aws-secret-access-key", "sk-aws-aws_secret_access_key"),
                ("x-portkey-aws-session-token", "sk-aws-aws_session_token"),
                ("x-portkey-provider", "bedrock"),
            ],
        ),
        ("ollama", &[("x-portkey-custom-host", "http://ollama.internal:11434"), ("x-portkey-provider", "ollama")]),
    ] {
        assert_eq!(arrives(&sample, slug, &[], &BodyPeek::default()), lines(expected), "{slug}");
    }
}

#[test]
fn azure_deployments_follow_the_model() {
    let sample = sample::providers();
    let arrived = arrives(&sample, "azure", &[], &model("gpt-4o"));
    for expected in [
        ("x-portkey-azure-deployment-id", "dep-4o"),
        ("x-portkey-azure-api-version", "2024-10-21"),
        ("x-portkey-azure-model-name", "gpt-4o"),
    ] {
        assert!(arrived.contains(&(expected.0.to_owned(), expected.1.to_owned())), "{arrived:?}");
    }
}

#[test]
fn only_listed_headers_of_the_client_survive() {
    let kept = [
        ("x-portkey-trace-id", "t"),
        ("x-portkey-metadata", "{}"),
        ("x-portkey-request-timeout", "1000"),
        ("x-portkey-strict-open-ai-compliance", "false"),
        ("x-portkey-forward-headers", "x-tenant"),
        ("x-portkey-openai-beta", "b"),
        ("openai-beta", "b"),
        ("x-tenant", "t"),
        ("user-agent", "sdk"),
    ];
    let dropped = [
        ("x-portkey-api-key", "pk"),
        ("x-portkey-openai-organization", "org"),
        ("x-portkey-azure-ad-token", "t"),
        ("x-portkey-vertex-project-id", "p"),
        ("x-portkey-package-version", "1"),
        ("x-portkey-whatever", "1"),
        ("authorization", "Bearer client"),
        ("x-api-key", "client"),
        ("api-key", "client"),
    ];
    let sent: Vec<_> = kept.into_iter().chain(dropped).collect();
    let arrived = arrives(&sample::openai(), "openai-prod", &sent, &BodyPeek::default());
    let mut expected: Vec<_> = kept.to_vec();
    expected.extend([("authorization", "Bearer sk-openai-key-api_key"), ("x-portkey-provider", "openai")]);
    expected.sort_unstable();
    assert_eq!(arrived, lines(&expected));
}

#[test]
fn a_config_that_decides_nothing_stays_as_it_is() {
    let config = r#"{ "retry": {"attempts":3}, "cache":{"mode":"simple"}, "override_params":{"temperature":0} }"#;
    let arrived = arrives(&sample::openai(), "openai-prod", &[("x-portkey-config", config)], &BodyPeek::default());
    assert!(arrived.contains(&("x-portkey-config".to_owned(), config.to_owned())), "{arrived:?}");
}

#[test]
fn values_are_sensitive_and_reported_for_redaction() {
    let sample = sample::providers();
    let head = chat(&[("x-portkey-provider", "@bedrock")]);
    let planned = plan(&sample.link(), &head, &BodyPeek::default()).unwrap();
    let (applied, injected) = sample::apply(&planned, &head);
    for name in ["x-portkey-aws-access-key-id", "x-portkey-aws-secret-access-key", "x-portkey-aws-session-token"] {
        assert!(applied.headers[name].is_sensitive(), "{name}");
    }
    assert_eq!(injected.credentials.len(), 3);
    assert!(!applied.headers.contains_key("authorization"));
}

#[test]
fn an_admitted_region_is_the_clients() {
    let arrived = arrives(
        &sample::providers(),
        "bedrock-anywhere",
        &[("x-portkey-aws-region", "ap-south-1")],
        &BodyPeek::default(),
    );
    assert!(arrived.contains(&("x-portkey-aws-region".to_owned(), "ap-south-1".to_owned())), "{arrived:?}");
}

#[test]
fn missing_credentials_fail_closed() {
    for (provider, configurations) in [
        ("openai", "{}"),
        ("openai", r#"{"custom_host":"http://10.0.0.1/v1"}"#),
        ("anthropic", "{}"),
        ("bedrock", r#"{"aws_region":"eu-west-1"}"#),
        ("bedrock", r#"{"aws_region":"eu-west-1","aws_auth_type":"apiKey"}"#),
        ("bedrock", r#"{"aws_region":"eu-west-1","aws_auth_type":"assumedRole"}"#),
        ("bedrock", r#"{"aws_region":"eu-west-1","aws_auth_type":"serviceRole"}"#),
        ("azure-openai", r#"{"azure_resource_name":"r","azure_deployment_name":"d"}"#),
        ("azure-openai", r#"{"azure_resource_name":"r","azure_deployment_name":"d","azure_auth_mode":"entra"}"#),
        (
            "azure-ai",
            r#"{"azure_foundry_url":"https://x.services.ai.azure.com/anthropic","azure_auth_mode":"managed"}"#,
        ),
        ("vertex-ai", r#"{"vertex_region":"global","vertex_project_id":"p"}"#),
        ("oracle", r#"{"oracle_region":"us-ashburn-1","oracle_user":"u"}"#),
        ("databricks", "{}"),
    ] {
        let snapshot = Sample::new().integration("e", provider, None, configurations).link_with(false);
        let error = plan(&snapshot, &chat(&[("x-portkey-provider", "@e")]), &BodyPeek::default()).unwrap_err();
        assert!(matches!(error, PlanError::Misconfigured { .. }), "{provider} {configurations}: {error}");
    }
}

#[test]
fn the_gateway_gets_no_key_where_other_fields_do_its_work() {
    for (provider, configurations) in [
        ("azure-openai", r#"{"azure_resource_name":"r","azure_deployment_name":"d","azure_auth_mode":"managed"}"#),
        (
            "azure-openai",
            r#"{"azure_resource_name":"r","azure_deployment_name":"d","azure_auth_mode":"entra","azure_entra_tenant_id":"t",
                "azure_entra_client_id":"c","azure_entra_client_secret":"ref:k"}"#,
        ),
        ("azure-openai", r#"{"azure_resource_name":"r","azure_deployment_name":"d","azure_ad_token":"ref:k"}"#),
        ("bedrock", r#"{"aws_region":"eu-west-1","aws_access_key_id":"ref:k","aws_secret_access_key":"ref:k"}"#),
        (
            "bedrock",
            r#"{"aws_region":"eu-west-1","aws_auth_type":"assumedRole","aws_role_arn":"arn:aws:iam::1:role/r"}"#,
        ),
    ] {
        let sample = Sample::new().reference("k").integration("e", provider, Some("sk-unused"), configurations);
        let arrived = arrives(&sample, "e", &[("authorization", "Bearer client")], &BodyPeek::default());
        assert!(
            !arrived.iter().any(|(name, value)| name == "authorization" || value.contains("unused")),
            "{arrived:?}"
        );
    }
}

#[test]
fn custom_headers_are_set_and_forwarded() {
    let sample =
        Sample::new().integration("e", "openai", Some("sk-1"), r#"{"custom_headers":{"X-Team":"a","x-tier":"b"}}"#);
    for (asked, forwarded) in [(None, "x-team,x-tier"), (Some("x-own"), "x-own,x-team,x-tier")] {
        let mut headers = vec![("x-team", "client")];
        headers.extend(asked.map(|asked| ("x-portkey-forward-headers", asked)));
        let arrived = arrives(&sample, "e", &headers, &BodyPeek::default());
        for expected in [("x-team", "a"), ("x-tier", "b"), ("x-portkey-forward-headers", forwarded)] {
            assert!(arrived.contains(&(expected.0.to_owned(), expected.1.to_owned())), "{arrived:?}");
        }
    }
}

#[test]
fn what_has_no_header_becomes_a_config_with_one_leaf() {
    let sample = sample::providers()
        .integration(
            "azure-ai",
            "azure-ai",
            Some("sk-1"),
            r#"{"azure_foundry_url":"https://f.example","azure_deployment_name":"d"}"#,
        )
        .integration("custom", "openai", Some("sk-1"), r#"{"custom_headers":{"authorization":"Basic x"}}"#)
        .integration("late", "openai", Some("sk-1"), r#"{"custom_headers":"ref-json:oracle"}"#);
    let snapshot = sample.link();
    for (slug, method, uri) in [
        ("vertex", Method::POST, "/v1/chat/completions"),
        ("oracle", Method::POST, "/v1/chat/completions"),
        ("azure-ai", Method::POST, "/v1/chat/completions"),
        ("custom", Method::POST, "/v1/chat/completions"),
        ("late", Method::POST, "/v1/chat/completions"),
        // The raw key would travel beside the header that the gateway writes.
        ("anthropic", Method::GET, "/v1/models"),
        ("azure", Method::POST, "/v1/images/variations"),
        ("google", Method::GET, "/v1/v1beta/models"),
    ] {
        let head = head(method, uri, &[("x-portkey-provider", &format!("@{slug}"))]);
        let planned = plan(&snapshot, &head, &BodyPeek::default()).unwrap();
        assert_eq!(planned.mode, Mode::Config, "{slug} {uri}");
        let (applied, _) = sample::apply(&planned, &head);
        let config = sample::config(&applied);
        assert!(config["provider"].is_string() && config["api_key"].is_string(), "{slug}: {config}");
        assert!(!applied.headers.contains_key("x-portkey-provider"));
        let authorization = applied.headers.get("authorization").map(|value| value.to_str().unwrap());
        assert_eq!(authorization, (slug == "custom").then_some("Basic x"));
    }
}

#[test]
fn google_proxy_routes_get_the_key_where_google_reads_it() {
    let head =
        head(Method::GET, "/v1/v1beta/models", &[("x-portkey-provider", "@google"), ("x-goog-api-key", "client")]);
    let planned = plan(&sample::providers().link(), &head, &BodyPeek::default()).unwrap();
    let (applied, _) = sample::apply(&planned, &head);
    assert_eq!(applied.headers["x-goog-api-key"], "sk-google-key-api_key");
}
