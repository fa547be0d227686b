//! Every input that steers, against entities that store something else, the same, or nothing.

use http::Method;
use serde_json::{Value, json};

use crate::dialect::{
    PlanError,
    portkey::{
        BodyPeek,
        sample::{self, Sample, chat, head, plan},
        steering::{Kind, STEERING},
    },
};

fn refused(sample: &Sample, head: &http::request::Parts) -> Option<String> {
    match plan(&sample.link(), head, &BodyPeek::default()) {
        Ok(_) => None,
        Err(PlanError::DestinationNotAllowed { input }) => Some(input),
        Err(other) => panic!("{other}"),
    }
}

/// Entities of every provider that stores a destination, and what it stores.
fn stored() -> (Sample, Vec<(&'static str, &'static str, &'static str)>) {
    let sample = Sample::new()
        .integration("host", "openai", Some("sk"), r#"{"custom_host":"https://ours.example/v1"}"#)
        .integration(
            "azure",
            "azure-openai",
            Some("sk"),
            r#"{"azure_resource_name":"ours","azure_deployment_name":"d","azure_auth_mode":"default","azure_entra_scope":"s"}"#,
        )
        .integration("foundry", "azure-ai", Some("sk"), r#"{"azure_foundry_url":"https://ours.example","azure_endpoint_name":"e"}"#)
        .integration("hf", "huggingface", Some("sk"), r#"{"huggingface_base_url":"https://ours.example"}"#)
        .integration(
            "bedrock",
            "bedrock",
            None,
            r#"{"aws_region":"eu-west-1","aws_s3_bucket":"ours","aws_auth_type":"assumedRole","aws_role_arn":"arn:aws:iam::1:role/r"}"#,
        )
        .integration("vertex", "vertex-ai", Some("sk"), r#"{"vertex_region":"us-central1","vertex_storage_bucket_name":"ours"}"#)
        .integration("workers", "workers-ai", Some("sk"), r#"{"workers_ai_account_id":"ours"}"#)
        .integration("cortex", "cortex", Some("sk"), r#"{"snowflake_account":"ours"}"#)
        .integration("fireworks", "fireworks-ai", Some("sk"), r#"{"fireworks_account_id":"ours"}"#)
        .integration(
            "oracle",
            "oracle",
            None,
            r#"{"oracle_region":"us-ashburn-1","oracle_tenancy":"t","oracle_user":"u","oracle_fingerprint":"f","oracle_private_key":"k"}"#,
        );
    let rows = vec![
        ("host", "custom_host", "https://ours.example/v1"),
        ("azure", "resource_name", "ours"),
        ("azure", "azure_auth_mode", "default"),
        ("azure", "azure_entra_scope", "s"),
        ("foundry", "azure_foundry_url", "https://ours.example"),
        ("foundry", "azure_endpoint_name", "e"),
        ("hf", "huggingface_base_url", "https://ours.example"),
        ("bedrock", "aws_region", "eu-west-1"),
        ("bedrock", "aws_s3_bucket", "ours"),
        ("bedrock", "aws_auth_type", "assumedRole"),
        ("bedrock", "aws_role_arn", "arn:aws:iam::1:role/r"),
        ("vertex", "vertex_region", "us-central1"),
        ("vertex", "vertex_storage_bucket_name", "ours"),
        ("workers", "workers_ai_account_id", "ours"),
        ("cortex", "snowflake_account", "ours"),
        ("fireworks", "fireworks_account_id", "ours"),
        ("oracle", "oracle_region", "us-ashburn-1"),
    ];
    (sample, rows)
}

#[test]
fn a_header_may_repeat_what_is_stored_and_nothing_else() {
    let (sample, rows) = stored();
    for (slug, field, value) in rows {
        let header =
            STEERING.iter().find(|steering| steering.field == field).and_then(|steering| steering.header).unwrap();
        let name = format!("@{slug}");
        let config = json!({ "provider": name }).to_string();
        for naming in [("x-portkey-provider", name.as_str()), ("x-portkey-config", config.as_str())] {
            assert_eq!(refused(&sample, &chat(&[naming, (header, value)])), None, "{slug} {header}");
            for other in ["evil", "https://evil.example", "127.0.0.1/#", "eu-west-2"] {
                assert_eq!(
                    refused(&sample, &chat(&[naming, (header, other)])),
                    Some(header.to_owned()),
                    "{slug} {other}"
                );
            }
        }
    }
}

#[test]
fn a_config_may_repeat_what_is_stored_and_nothing_else_in_any_spelling() {
    let (sample, rows) = stored();
    for (slug, field, value) in rows {
        let camel = crate::dialect::portkey::config_tree::key::camel(field).into_owned();
        let odd = field.replacen('_', "_#", 1).replace("_#a", "_A").replace("_#", "_").replace("_h", "_H");
        for key in [field, &camel, &odd] {
            let leaf = |value: &str| json!({ "provider": format!("@{slug}"), key: value });
            let nested = |value: &str| json!({ "strategy": {"mode": "single"}, "targets": [leaf(value)] });
            for (config, expected) in [
                (leaf(value), None),
                (nested(value), None),
                (leaf(""), None),
                (leaf("evil"), Some(field)),
                (nested("https://evil.example"), Some(field)),
                (leaf("127.0.0.1/#"), Some(field)),
            ] {
                let found = refused(&sample, &chat(&[("x-portkey-config", &config.to_string())]));
                assert_eq!(found, expected.map(|field| format!("{field} in x-portkey-config")), "{config}");
            }
        }
    }
}

#[test]
fn an_absent_field_admits_none_but_a_plain_region() {
    let sample = sample::providers();
    for steering in &STEERING {
        let Some(header) = steering.header else { continue };
        let plain = refused(&sample, &chat(&[("x-portkey-provider", "@openai-prod"), (header, "plain-1")]));
        assert_eq!(plain.is_none(), steering.kind == Kind::Region, "{header}");
        let odd = refused(&sample, &chat(&[("x-portkey-provider", "@openai-prod"), (header, "127.0.0.1/#")]));
        assert_eq!(odd.as_deref(), Some(header));
        for config in [
            json!({"provider": "@openai-prod", steering.field: "127.0.0.1/#"}),
            json!({"strategy": {"mode": "single"}, steering.field: "127.0.0.1/#", "targets": [{"provider": "@openai-prod"}]}),
            json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "@openai-prod"},
                {"provider": "openai", "api_key": "sk-own", "weight": 0, steering.field: "evil.example/#"}]}),
        ] {
            let found = refused(&sample, &chat(&[("x-portkey-config", &config.to_string())]));
            let leaf_of_the_clients = config["targets"][1].is_object();
            assert_eq!(found.is_some(), !(leaf_of_the_clients && steering.kind == Kind::Method), "{config}");
        }
    }
    for value in [json!(5), json!(null), json!({}), json!(["x"])] {
        let config = json!({"provider": "@openai-prod", "custom_host": value}).to_string();
        assert!(refused(&sample, &chat(&[("x-portkey-config", &config)])).is_some(), "{config}");
    }
}

#[test]
fn a_router_may_repeat_what_every_leaf_stores() {
    let (sample, _) = stored();
    let sample = sample.integration("twin", "openai", Some("sk"), r#"{"custom_host":"https://ours.example/v1"}"#);
    let tree = |host: &str, second: Value| {
        let config =
            json!({"strategy": {"mode": "fallback"}, "custom_host": host, "targets": [{"provider": "@host"}, second]});
        refused(&sample, &chat(&[("x-portkey-config", &config.to_string())]))
    };
    assert_eq!(tree("https://ours.example/v1", json!({"provider": "@twin"})), None);
    assert!(tree("https://other.example/v1", json!({"provider": "@twin"})).is_some());
    assert!(tree("https://ours.example/v1", json!({"provider": "@workers"})).is_some());
    assert!(tree("https://ours.example/v1", json!({"provider": "openai", "api_key": "sk-own"})).is_some());
}

#[test]
fn a_header_would_decide_for_the_clients_leaf_too() {
    let (sample, _) = stored();
    let header = ("x-portkey-custom-host", "https://ours.example/v1");
    for (second, expected) in
        [(json!({"provider": "@host"}), None), (json!({"provider": "openai", "api_key": "sk-own"}), Some(header.0))]
    {
        let config = json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "@host"}, second]}).to_string();
        assert_eq!(refused(&sample, &chat(&[("x-portkey-config", &config), header])).as_deref(), expected, "{config}");
    }
}

#[test]
fn nobody_may_ask_whether_a_value_is_the_secret_one() {
    let sample = Sample::new().reference("role").integration(
        "bedrock",
        "bedrock",
        None,
        r#"{"aws_region":"eu-west-1","aws_auth_type":"assumedRole","aws_role_arn":"ref:role","aws_external_id":"guess"}"#,
    );
    for (header, value) in [("x-portkey-aws-role-arn", "sk-role-aws_role_arn"), ("x-portkey-aws-external-id", "guess")]
    {
        assert_eq!(
            refused(&sample, &chat(&[("x-portkey-provider", "@bedrock"), (header, value)])).as_deref(),
            Some(header)
        );
    }
}

#[test]
fn file_ids_stay_in_the_stored_bucket() {
    let (sample, _) = stored();
    let sample = sample.reference("aws").integration(
        "no-bucket",
        "bedrock",
        None,
        r#"{"aws_region":"eu-west-1","aws_access_key_id":"ref:aws","aws_secret_access_key":"ref:aws"}"#,
    );
    for (slug, uri, expected) in [
        ("bedrock", "/v1/files/ours%2Fkey.jsonl", None),
        ("bedrock", "/v1/files/ours%2Fkey.jsonl/content", None),
        ("bedrock", "/v1/files/evil.example?x=/", Some("path")),
        ("bedrock", "/v1/files/theirs%2Fkey", Some("path")),
        ("no-bucket", "/v1/files/any%2Fkey", Some("path")),
        ("vertex", "/v1/files/ours%2Fkey", None),
        ("vertex", "/v1/files/theirs%2Fkey", Some("path")),
        ("host", "/v1/files/file-1", None),
    ] {
        let name = format!("@{slug}");
        let config = json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "@host"}, {"provider": name}]})
            .to_string();
        for naming in [("x-portkey-provider", name.as_str()), ("x-portkey-config", config.as_str())] {
            assert_eq!(refused(&sample, &head(Method::GET, uri, &[naming])).as_deref(), expected, "{slug} {uri}");
        }
    }
}

#[test]
fn references_bind_providers_and_hosts() {
    let bedrock = r#"{"aws_region":"eu-west-1","aws_access_key_id":"ref:r","aws_secret_access_key":"ref:r"}"#;
    for (provider, configurations, providers, hosts, expected) in [
        ("openai", "{}", &[][..], &[][..], None),
        ("openai", "{}", &["openai", "groq"], &["api.openai.com"], None),
        ("openai", "{}", &["groq"], &[], Some("allowed_providers")),
        ("openai", "{}", &[], &[".openai.com"], None),
        ("openai", "{}", &[], &["api.groq.com"], Some("allowed_hosts")),
        (
            "openai",
            r#"{"custom_host":"https://api.openai.com.evil.example/v1"}"#,
            &[],
            &["api.openai.com"],
            Some("allowed_hosts"),
        ),
        ("openai", r#"{"custom_host":"https://llm.corp.example/v1"}"#, &[], &[".corp.example"], None),
        ("ollama", r#"{"custom_host":"http://10.0.0.7:11434"}"#, &[], &["10.0.0.7"], None),
        ("milvus", "{}", &[], &["x.example"], Some("allowed_hosts")),
        ("unknown-provider", "{}", &[], &["x.example"], Some("allowed_hosts")),
        ("bedrock", bedrock, &[], &[".amazonaws.com"], None),
        ("bedrock", bedrock, &[], &["bedrock-runtime.eu-west-1.amazonaws.com"], Some("allowed_hosts")),
        ("workers-ai", r#"{"workers_ai_account_id":"a"}"#, &[], &["api.cloudflare.com"], None),
        ("huggingface", "{}", &[], &["api-inference.huggingface.co"], None),
        (
            "huggingface",
            r#"{"huggingface_base_url":"https://x.endpoints.huggingface.cloud"}"#,
            &[],
            &[".huggingface.cloud"],
            None,
        ),
        ("vertex-ai", r#"{"vertex_region":"global"}"#, &[], &["aiplatform.googleapis.com"], None),
        (
            "azure-openai",
            r#"{"azure_resource_name":"r","azure_deployment_name":"d"}"#,
            &[],
            &["r.openai.azure.com"],
            None,
        ),
    ] {
        let key = (provider != "bedrock").then_some("ref:r");
        let sample = Sample::new().reference_for("r", providers, hosts).integration("e", provider, key, configurations);
        let found = refused(&sample, &chat(&[("x-portkey-provider", "@e")]));
        assert_eq!(found.as_deref(), expected, "{provider} {configurations} {providers:?} {hosts:?}");
    }
}

#[test]
fn a_custom_host_that_the_gateway_ignores_is_no_way_to_the_providers_own() {
    let custom = r#"{"custom_host":"https://llm.corp.example/v1"}"#;
    let bedrock = r#"{"custom_host":"https://llm.corp.example","aws_region":"eu-west-1","aws_s3_bucket":"ours"}"#;
    let vertex = r#"{"custom_host":"https://llm.corp.example","vertex_region":"global"}"#;
    for (provider, configurations, method, path, expected) in [
        ("openai", custom, Method::GET, "/v1/realtime", Some("path")),
        ("openai", custom, Method::GET, "/v1/batches/b1/output", Some("path")),
        ("openai", custom, Method::HEAD, "/v1/batches/b1/output?x=y", Some("path")),
        ("cohere", custom, Method::GET, "/v1/batches/b1/output", Some("path")),
        ("fireworks-ai", custom, Method::POST, "/v1/files", Some("path")),
        ("fireworks-ai", custom, Method::POST, "/v1/fine_tuning/jobs/j1/cancel", Some("path")),
        ("bedrock", bedrock, Method::POST, "/v1/files", Some("path")),
        ("bedrock", bedrock, Method::GET, "/v1/files/ours%2Fkey", Some("path")),
        ("vertex-ai", vertex, Method::GET, "/v1/files", Some("path")),
        ("openai", custom, Method::POST, "/v1/files", None),
        ("openai", custom, Method::GET, "/v1/files/output", None),
        ("openai", custom, Method::GET, "/v1/batches/b1", None),
        ("openai", custom, Method::POST, "/v1/chat/completions", None),
        ("openai", custom, Method::POST, "/v1/rerank", None),
        ("openai", "{}", Method::GET, "/v1/realtime", None),
        ("openai", "{}", Method::GET, "/v1/batches/b1/output", None),
        ("fireworks-ai", "{}", Method::POST, "/v1/files", None),
    ] {
        let configurations = match provider {
            "bedrock" => configurations.replace('}', r#","aws_access_key_id":"a","aws_secret_access_key":"s"}"#),
            _ => configurations.to_owned(),
        };
        let key = (provider != "bedrock").then_some("sk");
        let sample = Sample::new().integration("e", provider, key, &configurations);
        for (name, value) in [("x-portkey-provider", "@e"), ("x-portkey-config", r#"{"provider":"@e"}"#)] {
            let found = refused(&sample, &head(method.clone(), path, &[(name, value)]));
            assert_eq!(found.as_deref(), expected, "{provider} {method} {path} {value}");
        }
    }
}
