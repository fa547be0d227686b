//! What arrives when a config decides.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::{
    dialect::{
        PlanError,
        portkey::{
            ApplyError, BodyPeek, Mode, Portkey, Settings,
            sample::{self, Sample, chat, config, head, model, plan, plan_with},
        },
    },
    secret::{Credential, SecretValue},
};

/// Plans with this config and further headers, applies, and answers the config that arrives.
fn arrives(sample: &Sample, config: &Value, headers: &[(&str, &str)], peek: &BodyPeek) -> Value {
    let config = config.to_string();
    let mut all = vec![("x-portkey-config", config.as_str())];
    all.extend_from_slice(headers);
    let head = chat(&all);
    let planned = plan(&sample.link(), &head, peek).unwrap();
    assert_eq!(planned.mode, Mode::Config, "{config}");
    let (applied, _) = sample::apply(&planned, &head);
    assert!(applied.headers["x-portkey-config"].is_sensitive());
    self::config(&applied)
}

#[test]
fn leaves_are_rebuilt() {
    let none = BodyPeek::default();
    for (sent, expected) in [
        (json!({"provider": "@openai-prod"}), json!({"provider": "openai", "api_key": "sk-openai-key-api_key"})),
        (json!({"virtual_key": "openai-prod"}), json!({"provider": "openai", "api_key": "sk-openai-key-api_key"})),
        (
            json!({"override_params": {"model": "@openai-prod/gpt-4o", "n": 1}}),
            json!({"override_params": {"model": "gpt-4o", "n": 1}, "provider": "openai", "api_key": "sk-openai-key-api_key"}),
        ),
        (
            json!({"override_params": {"model": "@openai-prod"}}),
            json!({"override_params": {}, "provider": "openai", "api_key": "sk-openai-key-api_key"}),
        ),
        // Everything listed survives, in the validator's spelling; nothing else does.
        (
            json!({"virtualKey": "openai-prod", "apiKey": "sk-client", "weight": 0.5, "name": "n", "requestTimeout": 1000,
                "retry": {"attempts": 2, "on_status_codes": [429]}, "cache": {"mode": "simple"}, "strict_open_ai_compliance": false,
                "inputGuardrails": [{"default.contains": {"words": ["a"]}, "deny": true}], "unknown": 1,
                "openai_project": "p", "azure_ad_token": "t", "url_to_fetch": "x", "forward_headers": ["x-tenant"]}),
            json!({"provider": "openai", "api_key": "sk-openai-key-api_key", "weight": 0.5, "name": "n", "request_timeout": 1000,
                "retry": {"attempts": 2, "on_status_codes": [429]}, "cache": {"mode": "simple"}, "strict_open_ai_compliance": false,
                "input_guardrails": [{"default.contains": {"words": ["a"]}, "deny": true}], "forward_headers": ["x-tenant"]}),
        ),
        (
            json!({"provider": "@bedrock"}),
            json!({"provider": "bedrock", "api_key": "", "aws_region": "eu-west-1", "aws_s3_bucket": "our-bucket",
                "aws_access_key_id": "sk-aws-aws_access_key_id", "aws_secret_access_key": "sk-aws-aws_secret_access_key",
                "aws_session_token": "sk-aws-aws_session_token"}),
        ),
        (
            json!({"provider": "@vertex"}),
            json!({"provider": "vertex-ai", "api_key": "", "vertex_region": "us-central1",
                "vertex_service_account_json": {"project_id": "p", "private_key": "-----BEGIN-----\nMII\n"}}),
        ),
        (
            json!({"provider": "@oracle"}),
            json!({"provider": "oracle", "api_key": "", "oracle_region": "us-ashburn-1", "oracle_tenancy": "t", "oracle_user": "u",
                "oracle_fingerprint": "f", "oracle_private_key": "-----BEGIN-----\nMII\n-----END-----"}),
        ),
        (
            json!({"provider": "@ollama"}),
            json!({"provider": "ollama", "api_key": "", "custom_host": "http://ollama.internal:11434"}),
        ),
    ] {
        assert_eq!(arrives(&sample::providers(), &sent, &[], &none), expected, "{sent}");
    }
}

#[test]
fn trees_keep_their_shape() {
    let sent = json!({
        "strategy": {"mode": "fallback", "on_status_codes": [429]},
        "retry": {"attempts": 1},
        "targets": [
            {"provider": "@openai-prod", "weight": 1},
            {"strategy": {"mode": "loadbalance"}, "targets": [
                {"provider": "@anthropic", "weight": 0.3},
                {"strategy": {"mode": "conditional", "conditions": [{"query": {"metadata.tier": {"$eq": "a"}}, "then": "x"}], "default": "y"},
                    "targets": [{"name": "x", "provider": "groq", "api_key": "sk-own"}, {"name": "y", "virtual_key": "openai-prod"}]}
            ]}
        ]
    });
    let openai = json!({"provider": "openai", "api_key": "sk-openai-key-api_key"});
    let expected = json!({
        "strategy": {"mode": "fallback", "on_status_codes": [429]},
        "retry": {"attempts": 1},
        "targets": [
            {"provider": "openai", "api_key": "sk-openai-key-api_key", "weight": 1},
            {"strategy": {"mode": "loadbalance"}, "targets": [
                {"provider": "anthropic", "api_key": "sk-anthropic-key-api_key", "weight": 0.3},
                {"strategy": {"mode": "conditional", "conditions": [{"query": {"metadata.tier": {"$eq": "a"}}, "then": "x"}], "default": "y"},
                    "targets": [{"name": "x", "provider": "groq", "api_key": "sk-own"},
                        {"name": "y", "provider": openai["provider"], "api_key": openai["api_key"]}]}
            ]}
        ]
    });
    assert_eq!(arrives(&sample::providers(), &sent, &[], &BodyPeek::default()), expected);
}

#[test]
fn what_a_request_carries_moves_into_the_leaves_that_read_it() {
    let sent = json!({"strategy": {"mode": "fallback"}, "targets": [
        {"provider": "@openai-prod"}, {"provider": "@anthropic"}, {"provider": "@anthropic", "anthropic_beta": "own"},
        {"provider": "@bedrock"}, {"provider": "@vertex"}, {"provider": "anthropic", "api_key": "sk-own"}]});
    let headers = [
        ("anthropic-beta", "plain"),
        ("x-portkey-anthropic-beta", "prefixed"),
        ("anthropic-version", "2023-06-01"),
        ("openai-beta", "assistants=v2"),
        ("x-portkey-provider-model", "m"),
        ("x-portkey-provider-file-name", "f.jsonl"),
        ("x-portkey-forward-headers", "x-tenant, x-other"),
    ];
    let arrived = arrives(&sample::providers(), &sent, &headers, &BodyPeek::default());
    for (leaf, field, expected) in [
        (0, "openai_beta", json!("assistants=v2")),
        (0, "anthropic_beta", Value::Null),
        (1, "anthropic_beta", json!("prefixed")),
        (1, "anthropic_version", json!("2023-06-01")),
        (2, "anthropic_beta", json!("own")),
        (3, "aws_bedrock_model", json!("m")),
        (3, "aws_s3_object_key", json!("f.jsonl")),
        (3, "vertex_model_name", Value::Null),
        (4, "vertex_model_name", json!("m")),
        (4, "filename", json!("f.jsonl")),
        (5, "anthropic_beta", json!("prefixed")),
        (0, "forward_headers", json!(["x-tenant", "x-other"])),
        (5, "forward_headers", json!(["x-tenant", "x-other"])),
    ] {
        assert_eq!(arrived["targets"][leaf][field], expected, "{leaf} {field}");
    }
}

#[test]
fn forward_lists_are_handed_down_and_the_header_beats_them() {
    let sent = json!({"strategy": {"mode": "fallback"}, "forward_headers": ["x-a"], "targets": [
        {"provider": "@openai-prod"}, {"provider": "@anthropic", "forward_headers": ["x-b"]}]});
    for (headers, expected) in [
        (&[][..], [json!(["x-a"]), json!(["x-b"])]),
        (&[("x-portkey-forward-headers", "x-c")], [json!(["x-c"]), json!(["x-c"])]),
    ] {
        let arrived = arrives(&sample::providers(), &sent, headers, &BodyPeek::default());
        assert_eq!(
            [&arrived["targets"][0]["forward_headers"], &arrived["targets"][1]["forward_headers"]],
            [&expected[0], &expected[1]]
        );
        assert_eq!(arrived["forward_headers"], Value::Null);
    }
}

#[test]
fn deployments_follow_the_model_of_leaf_body_or_query() {
    let azure = |params: Value| json!({"provider": "@azure", "override_params": params});
    for (config, peek, uri, expected) in [
        (azure(json!({"model": "gpt-4o"})), model("gpt-3.5"), "/v1/x", "dep-4o"),
        (azure(json!({"model": "@azure/gpt-4o"})), BodyPeek::default(), "/v1/x", "dep-4o"),
        (azure(json!({})), model("gpt-4o"), "/v1/x", "dep-4o"),
        (azure(json!({})), model("@other/gpt-4o"), "/v1/x", "dep-4o"),
        (azure(json!({})), BodyPeek::default(), "/v1/x?model=gpt-4o", "dep-4o"),
        (azure(json!({})), BodyPeek::default(), "/v1/x", "dep-35"),
        (
            json!({"strategy": {"mode": "single"}, "override_params": {"model": "gpt-4o"}, "targets": [{"provider": "@azure"}]}),
            model("gpt-3.5"),
            "/v1/x",
            "dep-4o",
        ),
    ] {
        let head = head(Method::POST, uri, &[("x-portkey-config", &config.to_string())]);
        let planned = plan(&sample::providers().link(), &head, &peek).unwrap();
        let (applied, _) = sample::apply(&planned, &head);
        let arrived = self::config(&applied);
        let leaf = if arrived["targets"].is_array() { &arrived["targets"][0] } else { &arrived };
        assert_eq!(leaf["deployment_id"], expected, "{config} {uri}");
        assert_eq!(leaf["resource_name"], "res-1");
        assert_eq!(leaf["azure_resource_name"], Value::Null);
    }
}

#[test]
fn a_leaf_may_choose_a_plain_region_where_none_is_stored() {
    let arrived = arrives(
        &sample::providers(),
        &json!({"provider": "@bedrock-anywhere", "aws_region": "ap-south-1"}),
        &[],
        &BodyPeek::default(),
    );
    assert_eq!(arrived["aws_region"], "ap-south-1");
}

#[test]
fn a_reference_is_resolved_once() {
    let sent = json!({"strategy": {"mode": "fallback"}, "targets": [
        {"provider": "@openai-prod"}, {"virtual_key": "openai-prod"}, {"provider": "@anthropic"}]});
    let head = chat(&[("x-portkey-config", &sent.to_string())]);
    let planned = plan(&sample::providers().link(), &head, &BodyPeek::default()).unwrap();
    let references: Vec<&str> = planned.mappings.iter().map(|mapping| &*mapping.reference.slug).collect();
    assert_eq!(references, ["openai-key", "anthropic-key"]);
    assert_eq!(planned.entities.len(), 2);
}

#[test]
fn stored_configs_are_written_out() {
    let sample = sample::providers()
        .config(
            "pc-fallback",
            r#"{"strategy":{"mode":"fallback"},"targets":[{"virtual_key":"openai-prod"},{"provider":"@anthropic"}]}"#,
        )
        .config("pc-retry", r#"{"retry":{"attempts":3},"api_key":"sk-stored"}"#)
        .config("pc-own", r#"{"provider":"openai"}"#)
        .config("pc-literal", r#"{"provider":"openai","api_key":"sk-stored"}"#);
    let snapshot = sample.link();
    for (slug, provider, mode, expected) in [
        (
            "pc-fallback",
            "openai",
            Mode::Config,
            json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "openai", "api_key": "sk-openai-key-api_key"},
                {"provider": "anthropic", "api_key": "sk-anthropic-key-api_key"}]}),
        ),
        (
            "pc-retry",
            "@openai-prod",
            Mode::Config,
            json!({"retry": {"attempts": 3}, "provider": "openai", "api_key": "sk-openai-key-api_key"}),
        ),
        ("pc-retry", "openai", Mode::Unmatched, json!({"retry": {"attempts": 3}})),
        ("pc-own", "@openai-prod", Mode::Unmatched, json!({"provider": "openai"})),
        ("pc-literal", "@openai-prod", Mode::Config, json!({"provider": "openai", "api_key": "sk-stored"})),
    ] {
        let head =
            chat(&[("x-portkey-config", slug), ("x-portkey-provider", provider), ("authorization", "Bearer client")]);
        let planned = plan(&snapshot, &head, &BodyPeek::default()).unwrap();
        assert_eq!(planned.mode, mode, "{slug}");
        let (applied, injected) = sample::apply(&planned, &head);
        assert_eq!(config(&applied), expected, "{slug}");
        assert_eq!(applied.headers.contains_key("authorization"), mode == Mode::Unmatched, "{slug}");
        let redacted = injected.credentials.iter().any(|credential| credential.expose() == "sk-stored");
        assert_eq!(redacted, slug == "pc-literal", "{slug}");
    }
}

#[test]
fn configs_that_cannot_be_used_are_refused() {
    let snapshot = sample::providers().link();
    for config in [
        "not json",
        "{",
        "[]",
        "5",
        r#"{"provider":"@openai-prod","provider":"@anthropic"}"#,
        r#"{"provider":"@openai-prod","virtual_key":"a","virtualKey":"b"}"#,
        r#"{"provider":"@openai-prod","forward_headers":"x"}"#,
        r#"{"provider":"@openai-prod","forward_headers":[1]}"#,
        r#"{"targets":[{"provider":"@openai-prod"}]}"#,
    ] {
        let refused = plan(&snapshot, &chat(&[("x-portkey-config", config)]), &BodyPeek::default()).unwrap_err();
        assert!(matches!(refused, PlanError::InvalidConfig { .. }), "{config}: {refused}");
    }
    let realtime = head(
        Method::GET,
        "/v1/realtime",
        &[("x-portkey-config", r#"{"strategy":{"mode":"single"},"targets":[{"provider":"@openai-prod"}]}"#)],
    );
    assert!(matches!(plan(&snapshot, &realtime, &BodyPeek::default()), Err(PlanError::InvalidConfig { .. })));
}

#[test]
fn values_that_do_not_fit_stop_the_request() {
    let sample =
        sample::providers().integration("stored", "openai", Some("sk-1"), r#"{"custom_headers":{"x-team":"a"}}"#);
    let snapshot = sample.link();
    let dialect = Portkey::new(Settings::default());
    for (headers, bad) in [
        (&[("x-portkey-provider", "@openai-prod")][..], &["a\nb", "a\rb", "a\0b", "", "cl\u{e9}"][..]),
        (&[("x-portkey-config", r#"{"provider":"@openai-prod"}"#)], &["a\nb", "a\rb", "a\0b", "", "cl\u{e9}", "a\tb"]),
        (&[("x-portkey-provider", "@oracle")], &["", "a\0b", "cl\u{e9}"]),
        (
            &[("x-portkey-provider", "@vertex")],
            &["", "x", "[]", "\"x\"", "{\"a\":1}", "{\"a\":{}}", "{\"a\":[]}", "{\"a\":null}"],
        ),
    ] {
        let head = chat(headers);
        let planned = plan(&snapshot, &head, &BodyPeek::default()).unwrap();
        for value in bad {
            let credentials = sample::resolve(&planned, |_, _| (*value).to_owned());
            let refused = dialect.apply(&planned, &credentials, &mut head.clone()).map(|_| ());
            assert_eq!(refused, Err(ApplyError::Malformed { index: 0 }), "{headers:?} {value:?}");
        }
        let missing = dialect.apply(&planned, &[], &mut head.clone()).map(|_| ());
        assert_eq!(missing, Err(ApplyError::Malformed { index: 0 }), "{headers:?}");
    }
}

#[test]
fn a_key_is_no_structure() {
    for headers in [("x-portkey-provider", "@openai-prod"), ("x-portkey-config", r#"{"provider":"@openai-prod"}"#)] {
        let head = chat(&[headers]);
        let planned = plan(&sample::openai().link(), &head, &BodyPeek::default()).unwrap();
        let structure = Credential::structured(SecretValue::from(r#"{"key":"sk"}"#.to_owned()));
        let refused =
            Portkey::new(Settings::default()).apply(&planned, &[Arc::new(structure)], &mut head.clone()).map(|_| ());
        assert_eq!(refused, Err(ApplyError::Malformed { index: 0 }), "{headers:?}");
    }
}

#[test]
fn a_service_account_as_text_arrives_as_an_object_in_ascii() {
    let sample = Sample::new().reference("k").integration(
        "sa",
        "vertex-ai",
        None,
        r#"{"vertex_region":"global","vertex_service_account_json":"ref:k"}"#,
    );
    let head = chat(&[("x-portkey-provider", "@sa")]);
    let planned = plan(&sample.link(), &head, &BodyPeek::default()).unwrap();
    let text = "{\n  \"project_id\" : \"caf\u{e9} \\\" , { \u{1f600}\",\r\n\t\"private_key\":\"a\\nb\" }\n";
    let credentials = sample::resolve(&planned, |_, _| text.to_owned());
    let mut applied = head.clone();
    Portkey::new(Settings::default()).apply(&planned, &credentials, &mut applied).unwrap();
    let expected: Value = serde_json::from_str(text).unwrap();
    assert_eq!(config(&applied)["vertex_service_account_json"], expected);
}

#[test]
fn a_private_key_inside_a_structure_is_redacted_too() {
    let literal = r#"{"provider":"vertex-ai","vertex_region":"global","vertex_service_account_json":{"project_id":"p","private_key":"pem"}}"#;
    let snapshot = sample::providers().config("pc-vertex", literal).link();
    for (headers, expected) in [
        (("x-portkey-config", r#"{"provider":"@vertex"}"#), &["-----BEGIN-----\nMII\n"][..]),
        (("x-portkey-config", "pc-vertex"), &["pem"]),
    ] {
        let head = chat(&[headers]);
        let planned = plan(&snapshot, &head, &BodyPeek::default()).unwrap();
        let (_, injected) = sample::apply(&planned, &head);
        let found: Vec<&str> = injected.credentials.iter().map(|credential| credential.expose()).collect();
        let inner: Vec<&str> = found.into_iter().filter(|text| !text.starts_with('{')).collect();
        assert_eq!(inner, expected);
    }
}

#[test]
fn custom_headers_stay_with_their_own_entity() {
    let sample = sample::providers()
        .integration("team", "openai", Some("sk-1"), r#"{"custom_headers":{"x-team":"a"}}"#)
        .integration("same", "groq", Some("sk-2"), r#"{"custom_headers":{"X-Team":"b"}}"#)
        .integration("late", "openai", Some("sk-3"), r#"{"custom_headers":"ref-json:aws"}"#);
    let snapshot = sample.link();
    let pair = |first: &str, second: Value| {
        json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": first}, second]}).to_string()
    };
    for (uri, config, extra, refused) in [
        ("/v1/chat/completions", pair("@team", json!({"provider": "@openai-prod"})), "", None),
        ("/v1/chat/completions", pair("@team", json!({"provider": "@team"})), "", None),
        ("/v1/moderations", pair("@team", json!({"provider": "@team"})), "", None),
        ("/v1/moderations", pair("@team", json!({"provider": "@openai-prod"})), "", Some("custom_headers")),
        ("/v1/moderations", pair("@team", json!({"provider": "openai", "api_key": "sk"})), "", Some("custom_headers")),
        ("/v1/chat/completions", pair("@late", json!({"provider": "@openai-prod"})), "", Some("custom_headers")),
        ("/v1/chat/completions", pair("@team", json!({"provider": "@same"})), "", Some("same custom header")),
        (
            "/v1/chat/completions",
            pair("@team", json!({"provider": "openai", "api_key": "sk", "forward_headers": ["X-Team"]})),
            "",
            Some("forward_headers"),
        ),
        (
            "/v1/chat/completions",
            pair("@team", json!({"provider": "@openai-prod"})),
            "x-team",
            Some("x-portkey-forward-headers"),
        ),
    ] {
        let head = head(Method::POST, uri, &[("x-portkey-config", &config), ("x-portkey-forward-headers", extra)]);
        match (plan(&snapshot, &head, &BodyPeek::default()), refused) {
            (Ok(planned), None) => {
                let (applied, _) = sample::apply(&planned, &head);
                assert_eq!(applied.headers["x-team"], "a");
                let arrived = self::config(&applied);
                assert_eq!(arrived["targets"][0]["forward_headers"], json!(["x-team"]));
                if !config.contains("@openai-prod") {
                    continue;
                }
                assert_eq!(arrived["targets"][1]["forward_headers"], Value::Null);
            }
            (Err(error), Some(input)) => assert!(error.to_string().contains(input), "{config}: {error}"),
            (planned, refused) => panic!("{config} {uri}: {refused:?}, {}", planned.is_ok()),
        }
    }
}

#[test]
fn custom_headers_from_a_manager_are_named_when_they_are_known() {
    let sample =
        Sample::new().reference("h").integration("late", "openai", Some("sk-3"), r#"{"custom_headers":"ref-json:h"}"#);
    let head = chat(&[("x-portkey-provider", "@late"), ("x-portkey-forward-headers", "x-own")]);
    let planned = plan(&sample.link(), &head, &BodyPeek::default()).unwrap();
    let (applied, injected) = sample::apply(&planned, &head);
    assert_eq!(applied.headers["x-team"], "sk-team");
    assert_eq!(config(&applied)["forward_headers"], json!(["x-own", "x-team"]));
    assert!(injected.credentials.iter().any(|credential| credential.expose() == "sk-team"));
}

#[test]
fn a_trusted_stored_config_steers_like_a_stored_entity() {
    let sample = sample::providers()
        .config(
            "pc-hosted",
            r#"{"strategy":{"mode":"fallback"},"custom_host":"https://parent.example","targets":[
                {"provider":"@openai-prod","custom_host":"https://own.example/v1"},{"provider":"@anthropic"},
                {"provider":"@ollama"},{"provider":"openai","api_key":"sk-stored","custom_host":"https://lit.example"}]}"#,
        )
        .config("pc-host", r#"{"custom_host":"https://own.example/v1","retry":{"attempts":1}}"#)
        .config("pc-auth", r#"{"provider":"@bedrock","aws_auth_type":"assumedRole"}"#)
        .config("pc-meta", r#"{"provider":"@openai-prod","custom_host":"http://169.254.169.254/latest"}"#)
        .config("pc-leak", r#"{"provider":"@openai-prod","forward_headers":["x-portkey-config"]}"#);
    let snapshot = sample.link();
    let trusting = || Settings { trust_stored_configs: true, ..Settings::default() };
    let head = |slug: &str| chat(&[("x-portkey-config", slug)]);
    let refused = plan(&snapshot, &head("pc-hosted"), &BodyPeek::default()).unwrap_err();
    assert!(matches!(refused, PlanError::DestinationNotAllowed { .. }));
    let planned = plan_with(trusting(), &snapshot, &head("pc-hosted"), &BodyPeek::default()).unwrap();
    let (applied, _) = sample::apply(&planned, &head("pc-hosted"));
    let arrived = config(&applied);
    for (leaf, host) in [
        (0, "https://own.example/v1"),
        (1, "https://parent.example"),
        (2, "http://ollama.internal:11434"),
        (3, "https://lit.example"),
    ] {
        assert_eq!(arrived["targets"][leaf]["custom_host"], host, "{leaf}");
    }
    // Also one that only adds to an entity named elsewhere.
    let named = chat(&[("x-portkey-config", "pc-host"), ("x-portkey-provider", "@openai-prod")]);
    assert!(plan(&snapshot, &named, &BodyPeek::default()).is_err());
    let planned = plan_with(trusting(), &snapshot, &named, &BodyPeek::default()).unwrap();
    assert_eq!(config(&sample::apply(&planned, &named).0)["custom_host"], "https://own.example/v1");
    // How a credential is used, where every key of a config goes, and instance metadata are never a config's to say.
    for slug in ["pc-auth", "pc-leak", "pc-meta"] {
        let refused = plan_with(trusting(), &snapshot, &head(slug), &BodyPeek::default()).unwrap_err();
        assert!(matches!(refused, PlanError::DestinationNotAllowed { .. }), "{slug}");
    }
    // A request still does not choose, trusted config or not.
    let steered = chat(&[("x-portkey-config", "pc-hosted"), ("x-portkey-custom-host", "https://evil.example")]);
    let refused = plan_with(trusting(), &snapshot, &steered, &BodyPeek::default()).unwrap_err();
    assert!(matches!(refused, PlanError::DestinationNotAllowed { .. }));
}
