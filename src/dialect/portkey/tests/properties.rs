//! What holds for every request that anybody could write.

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method, request::Parts};
use proptest::{prelude::*, sample::select};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::{
    dialect::portkey::{
        BodyPeek, Mode, Plan, Portkey, Settings,
        config_tree::key::camel,
        sample::{self, Sample, chat, config, head, model},
        steering::{self, Kind},
    },
    model::{Caller, Snapshot},
    secret::{Credential, SecretValue},
};

const CANARY: &str = "canary-stored";
const CLIENT: &str = "canary-client";

/// Entities with stored and mapped credentials, destinations and none.
fn entities() -> Sample {
    sample::providers()
        .integration("stored", "openai", Some(CANARY), r#"{"custom_host":"https://stored.example/v1"}"#)
        .integration("team", "groq", Some(CANARY), r#"{"custom_headers":{"x-team":"canary-stored-team"}}"#)
        .config("pc-stored", r#"{"strategy":{"mode":"fallback"},"targets":[{"provider":"@stored"},{"provider":"groq","api_key":"canary-stored"}]}"#)
}

/// Slugs of entities that can be planned anywhere, and one that nobody has.
const SLUGS: [&str; 9] =
    ["openai-prod", "anthropic", "azure", "bedrock", "bedrock-anywhere", "vertex", "oracle", "ollama", "stored"];

/// Spells a key as a client might.
fn spelling(key: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(key.to_owned()), 1 => Just(camel(key).into_owned()), 1 => Just(key.replacen("_h", "_H", 1))]
}

fn member() -> impl Strategy<Value = (String, Value)> {
    let steering: Vec<&'static str> = steering::STEERING.iter().map(|steering| steering.field).collect();
    let value = select(vec![
        "https://stored.example/v1",
        "http://ollama.internal:11434",
        "https://evil.example",
        "127.0.0.1/#",
        "eu-west-1",
        "us-east-2",
        "our-bucket",
        "res-1",
        "",
    ]);
    prop_oneof![
        1 => (select(steering).prop_flat_map(spelling), value.prop_map(Value::from)),
        1 => (
            select(vec!["forward_headers"]).prop_flat_map(spelling),
            select(vec![json!(["x-tenant"]), json!(["x-portkey-config"]), json!(["Authorization"]), json!(["x-team"])]),
        ),
        2 => (
            select(vec!["api_key", "azure_ad_token", "aws_secret_access_key", "openai_project", "unknown"]).prop_flat_map(spelling),
            Just(json!(CLIENT)),
        ),
        4 => select(vec![
            ("weight", json!(0.5)), ("name", json!("\u{e9}\"\u{1f600}")), ("retry", json!({"attempts": 1})),
            ("request_timeout", json!(1)), ("override_params", json!({"model": "@nobody/x", "stop": "\n"})),
            ("override_params", json!({"model": "gpt-4o"})), ("cache", json!({"mode": "simple"})),
            ("input_guardrails", json!([{"default.contains": {}}])), ("output_guardrails", json!([{"default.log": {}}])),
            ("anthropic_beta", json!("b")),
        ])
        .prop_map(|(key, value)| (key.to_owned(), value)),
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    let named = prop_oneof![
        4 => select(SLUGS.to_vec()).prop_map(|slug| json!({ "provider": format!("@{slug}") })),
        2 => select(SLUGS.to_vec()).prop_map(|slug| json!({ "virtual_key": slug })),
        2 => select(SLUGS.to_vec()).prop_map(|slug| json!({ "override_params": { "model": format!("@{slug}/m") } })),
        2 => Just(json!({ "provider": "openai", "api_key": CLIENT })),
        1 => Just(json!({ "provider": "@team" })),
    ];
    (named, prop::collection::vec(member(), 0..3)).prop_map(|(leaf, members)| with(leaf, members))
}

fn tree() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        let mode = select(vec!["single", "fallback", "loadbalance", "conditional"]);
        let members = prop::collection::vec(member(), 0..2);
        (mode, prop::collection::vec(inner, 1..4), members).prop_map(|(mode, targets, members)| {
            with(json!({ "strategy": { "mode": mode }, "targets": targets }), members)
        })
    })
}

fn with(mut object: Value, members: Vec<(String, Value)>) -> Value {
    for (key, value) in members {
        object.as_object_mut().unwrap().entry(key).or_insert(value);
    }
    object
}

fn planned(head: &Parts, peek: &BodyPeek, settings: Settings) -> Option<Plan> {
    static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| entities().link());
    Portkey::new(settings).plan(head, peek, &SNAPSHOT, &Caller::default(), OffsetDateTime::UNIX_EPOCH).ok()
}

/// Checks one node of a config that arrives, and all below it.
fn check_node(node: &Map<String, Value>, custom: bool, ours: &mut usize) -> Result<(), TestCaseError> {
    let provider = node.get("provider").and_then(Value::as_str).unwrap_or_default();
    prop_assert!(!provider.starts_with('@') && !node.contains_key("virtual_key"), "{:?}", node);
    let named = node.get("override_params").and_then(|params| params["model"].as_str()).unwrap_or_default();
    prop_assert!(!named.starts_with('@'), "{:?}", node);
    let key = node.get("api_key").and_then(Value::as_str);
    let is_ours = key.is_some_and(|key| key != CLIENT);
    if is_ours {
        *ours += 1;
        let keyless = ["bedrock", "vertex-ai", "oracle", "ollama"].contains(&provider);
        prop_assert_eq!(key == Some(""), keyless, "{:?}", node);
        let expected = match provider {
            "openai" => vec!["sk-openai-key-api_key", CANARY],
            "anthropic" => vec!["sk-anthropic-key-api_key"],
            "azure-openai" => vec!["sk-azure-key-api_key"],
            "groq" => vec![CANARY],
            _ => vec![""],
        };
        prop_assert!(expected.contains(&key.unwrap_or_default()), "{:?}", node);
    }
    for (name, value) in node {
        let Some(steering) = steering::of_key(&camel(name)) else { continue };
        let text = value.as_str().unwrap_or_default();
        let stored = match (provider, steering.field) {
            ("ollama", "custom_host") => text == "http://ollama.internal:11434",
            ("openai", "custom_host") => text == "https://stored.example/v1" && key == Some(CANARY),
            ("azure-openai", "resource_name") => text == "res-1",
            ("bedrock", "aws_s3_bucket") => text == "our-bucket",
            _ => false,
        };
        let region = steering.kind == Kind::Region && steering::is_plain_region(text);
        prop_assert!(
            (is_ours && (stored || region))
                || (!is_ours && (region || steering.kind == Kind::Method || text.is_empty())),
            "{}: {:?}",
            name,
            node
        );
    }
    for name in node.get("forward_headers").and_then(Value::as_array).into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        let team = provider == "groq" && is_ours;
        prop_assert!(name == "x-tenant" || (name == "x-team" && (team || !custom)), "{:?}", node);
    }
    for target in node.get("targets").and_then(Value::as_array).into_iter().flatten() {
        check_node(target.as_object().unwrap(), custom, ours)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// A config with a leaf of ours never leaves with a name, a foreign destination, a credential in the wrong leaf or none.
    #[test]
    fn configs_arrive_bound(tree in tree(), proxy in any::<bool>()) {
        let text = tree.to_string();
        let head = match HeaderValue::from_bytes(text.as_bytes()) {
            Ok(value) => {
                let mut head = head(Method::POST, if proxy { "/v1/moderations" } else { "/v1/chat/completions" }, &[]);
                head.headers.insert("x-portkey-config", value);
                head
            }
            Err(_) => return Err(TestCaseError::reject("no header text")),
        };
        let Some(plan) = planned(&head, &BodyPeek::default(), Settings::default()) else { return Ok(()) };
        let shown = format!("{plan:?} {:?}", plan.describe(&head));
        prop_assert!(!shown.contains("canary"), "{}", shown);
        let (applied, injected) = sample::apply(&plan, &head);
        if plan.mode != Mode::Config {
            prop_assert!(injected.credentials.is_empty());
            return Ok(());
        }
        let value = applied.headers["x-portkey-config"].as_bytes();
        prop_assert!(value.iter().all(|byte| (0x20..0x7f).contains(byte)));
        let arrived: Value = serde_json::from_slice(value).unwrap();
        let mut ours = 0;
        check_node(arrived.as_object().unwrap(), applied.headers.contains_key("x-team"), &mut ours)?;
        prop_assert!(ours > 0);
    }

    /// Whatever a manager returns either arrives unchanged or stops the request.
    #[test]
    fn secrets_arrive_unchanged_or_not_at_all(secret in "[ -~]{0,24}|\\PC{0,8}|[\\x00-\\x1f]{1,3}", tree in any::<bool>()) {
        let sent = if tree { [("x-portkey-config", r#"{"provider":"@openai-prod"}"#)] } else { [("x-portkey-provider", "@openai-prod")] };
        let head = chat(&sent);
        let plan = planned(&head, &BodyPeek::default(), Settings::default()).unwrap();
        let credential = Arc::new(Credential::text(SecretValue::from(secret.clone())));
        let mut applied = head.clone();
        let outcome = Portkey::new(Settings::default()).apply(&plan, &[credential], &mut applied);
        let visible = |byte: u8| (b'!'..=b'~').contains(&byte);
        let fits = secret.bytes().all(|byte| visible(byte) || byte == b' ')
            && secret.bytes().next().is_some_and(visible)
            && secret.bytes().last().is_some_and(visible);
        prop_assert_eq!(outcome.is_ok(), fits);
        if fits && tree {
            let arrived = config(&applied);
            prop_assert_eq!(arrived["api_key"].as_str(), Some(secret.as_str()));
        } else if fits {
            let arrived = format!("Bearer {secret}");
            prop_assert_eq!(applied.headers["authorization"].as_bytes(), arrived.as_bytes());
        }
    }

    /// No bytes in any header, query or model make planning or applying panic.
    #[test]
    fn nothing_panics(
        lines in prop::collection::vec((name(), bytes()), 0..8),
        query in "[ -~&&[^#\"<>` {}|\\\\^]]{0,24}",
        body in proptest::option::of("@?[a-z/@\"\\\\\u{e9}]{0,12}"),
        truncated in any::<bool>(),
        trusted in any::<bool>(),
    ) {
        let Ok(uri) = format!("/v1/files/x?{query}").parse() else { return Ok(()) };
        let mut head = chat(&[]);
        head.uri = uri;
        head.headers = HeaderMap::new();
        for (name, value) in lines {
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            head.headers.append(name, value);
        }
        let peek = BodyPeek { truncated, ..body.map(|text| model(&text)).unwrap_or_default() };
        let settings = Settings { trust_stored_configs: trusted, ..Settings::default() };
        let Some(plan) = planned(&head, &peek, settings) else { return Ok(()) };
        let _ = plan.describe(&head);
        let credentials = sample::resolve(&plan, |_, _| "sk".to_owned());
        let _ = Portkey::new(Settings::default()).apply(&plan, &credentials, &mut head);
    }
}

/// Names that mean something, and others.
fn name() -> impl Strategy<Value = HeaderName> {
    let steering = steering::STEERING.iter().filter_map(|steering| steering.header);
    let names: Vec<&'static str> = steering
        .chain([
            "x-portkey-config",
            "x-portkey-config",
            "x-portkey-provider",
            "x-portkey-virtual-key",
            "x-portkey-forward-headers",
            "x-portkey-default-input-guardrails",
            "x-portkey-api-key",
            "authorization",
            "anthropic-beta",
            "x-other",
        ])
        .collect();
    select(names).prop_map(HeaderName::from_static)
}

/// Values near what the names expect, and arbitrary bytes.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => tree().prop_map(|tree| tree.to_string().into_bytes()),
        1 => (tree(), any::<prop::sample::Index>()).prop_map(|(tree, at)| {
            let mut text = tree.to_string().into_bytes();
            let at = at.index(text.len());
            text.truncate(at);
            text
        }),
        1 => select(vec!["@stored", "@openai-prod/x", "openai", "pc-stored", "@", "", "us-east-1", "x-team, x-other", "[[[{}]]]", "null"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}
