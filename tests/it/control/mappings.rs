//! `secret_mappings` on integrations and virtual keys: every rule of Portkey's page on secret references.

use http::Method;
use serde_json::{Value, json};

use super::stage::{Stage, refusal};

/// Where mappings stand: path, its body without them, prefix, and a field of the provider in that spelling.
struct Place {
    path: &'static str,
    body: Value,
    prefix: &'static str,
    field: &'static str,
}

fn places() -> [Place; 2] {
    [
        Place {
            path: "/v1/integrations",
            body: json!({"name": "n", "ai_provider_id": "bedrock"}),
            prefix: "configurations",
            field: "aws_secret_access_key",
        },
        Place {
            path: "/v1/virtual-keys",
            body: json!({"name": "n", "provider": "bedrock"}),
            prefix: "model_config",
            field: "awsSecretAccessKey",
        },
    ]
}

fn mapped(place: &Place, mappings: Value) -> Value {
    let mut body = place.body.clone();
    body["secret_mappings"] = mappings;
    body
}

#[tokio::test]
async fn mappings_round_trip_and_stand_in_for_the_key() {
    let stage = Stage::start().await;
    let id = stage.reference("aws", json!({})).await;
    for place in places() {
        let Place { path, prefix, field, .. } = &place;
        let other = if *prefix == "configurations" { "aws_access_key_id" } else { "awsAccessKeyId" };
        let posted = json!([
            {"target_field": "key", "secret_reference_id": "aws"},
            {"target_field": field, "secret_reference_id": id, "secret_key": "secret", "value_format": "string"},
            {"target_field": format!("{prefix}.{other}"), "secret_reference_id": "aws", "value_format": "json"},
        ]);
        let slug = stage.done(Method::POST, path, mapped(&place, posted)).await["slug"].as_str().unwrap().to_owned();
        let target = format!("{path}/{slug}");
        let get = async || stage.done(Method::GET, &target, Value::Null).await["secret_mappings"].clone();
        let expected = json!([
            {"target_field": "key", "secret_reference_id": "aws", "secret_key": null, "value_format": null},
            {"target_field": format!("{prefix}.{field}"), "secret_reference_id": id, "secret_key": "secret",
             "value_format": "string"},
            {"target_field": format!("{prefix}.{other}"), "secret_reference_id": "aws", "secret_key": null,
             "value_format": "json"},
        ]);
        assert_eq!(get().await, expected, "{path}");
        // What is not said stays, what is said replaces, an empty list clears.
        stage.done(Method::PUT, &target, json!({"name": "renamed"})).await;
        assert_eq!(get().await, expected, "{path}");
        let (status, _, message) = refusal(&stage.send(Method::DELETE, "/v1/secret-references/aws", Value::Null).await);
        assert_eq!(status, 400);
        let noun = if *prefix == "configurations" { "integration" } else { "virtual key" };
        assert!(message.contains(&format!("in use by {noun} {slug}")), "{message}");
        let one = json!([{"target_field": "key", "secret_reference_id": "aws"}]);
        stage.done(Method::PUT, &target, json!({"secret_mappings": one})).await;
        assert_eq!(get().await.as_array().unwrap().len(), 1);
        let bare = refusal(&stage.send(Method::PUT, &target, json!({"secret_mappings": []})).await);
        assert!(bare.2.contains("key: is missing"), "{bare:?}");
        stage.done(Method::PUT, &target, json!({"secret_mappings": [], "key": "bedrock-api-key"})).await;
        assert_eq!(get().await, json!([]));
        stage.done(Method::DELETE, &target, Value::Null).await;
    }
    stage.done(Method::DELETE, "/v1/secret-references/aws", Value::Null).await;
}

#[tokio::test]
async fn what_cannot_be_mapped_is_refused() {
    let stage = Stage::start().await;
    let (a, b) = (stage.workspace("ws-a").await, stage.workspace("ws-b").await);
    stage.reference("any", json!({})).await;
    stage.reference("only-a", json!({"allowed_workspaces": [a]})).await;
    stage.reference("for-openai", json!({"allowed_providers": ["openai"]})).await;
    for place in places() {
        let Place { prefix, field, path, .. } = &place;
        let other = if *prefix == "configurations" { "model_config" } else { "configurations" };
        let to = |target: &str| json!([{"target_field": target, "secret_reference_id": "any"}]);
        let twice = |one: &str, two: &str| json!([to(one)[0], to(two)[0]]);
        // (mappings, workspace, part of the message)
        let cases: Vec<(Value, &str, String)> = vec![
            (json!({}), "", "secret_mappings: must be a list of objects".into()),
            (Value::Null, "", "secret_mappings: must be a list of objects".into()),
            (json!(["key"]), "", "secret_mappings: must be a list of objects".into()),
            (json!([{}]), "", "secret_mappings[0].target_field: is missing".into()),
            (json!([{"target_field": "key"}]), "", "secret_mappings[0].secret_reference_id: is missing".into()),
            (twice("key", "key"), "", "secret_mappings[1].target_field: is mapped already".into()),
            (
                twice(field, &format!("{prefix}.{field}")),
                "",
                "secret_mappings[1].target_field: is mapped already".into(),
            ),
            (
                twice("aws_session_token", "awsSessionToken"),
                "",
                "secret_mappings[1].target_field: is mapped already".into(),
            ),
            (to(&format!("{other}.{field}")), "", format!("must be key or {prefix}.<field>")),
            (to(&format!("{prefix}.key")), "", "is no field of this provider".into()),
            (to(&format!("{prefix}.canary")), "", "is no field of this provider".into()),
            (to("openai_project"), "", "is no field of this provider".into()),
            (to("aws_region"), "", "decides where requests go, and no secret may".into()),
            (to("custom_host"), "", "decides where requests go, and no secret may".into()),
            (
                json!([{"target_field": "key", "secret_reference_id": "canary"}]),
                "",
                "secret_mappings[0].secret_reference_id: names a secret reference that does not exist".into(),
            ),
            (
                json!([{"target_field": "key", "secret_reference_id": "only-a"}]),
                &b,
                "names a secret reference that is not open to the workspace".into(),
            ),
            (
                json!([{"target_field": "key", "secret_reference_id": "for-openai"}]),
                "",
                "names a secret reference that is not for this provider".into(),
            ),
            (
                json!([{"target_field": "key", "secret_reference_id": "any", "secret_key": "x".repeat(256)}]),
                "",
                "secret_mappings[0].secret_key: must be text".into(),
            ),
            (
                json!([{"target_field": "key", "secret_reference_id": "any", "value_format": "canary"}]),
                "",
                "secret_mappings[0].value_format: must be string or json, or null".into(),
            ),
        ];
        for (mappings, workspace, part) in cases {
            let mut body = mapped(&place, mappings.clone());
            body["workspace_id"] = json!(workspace);
            body["key"] = json!("sk-canary-key-01");
            let (status, code, message) = refusal(&stage.send(Method::POST, path, body).await);
            assert_eq!((status, code.as_str()), (400, "AB01"), "{mappings}: {message}");
            assert!(message.contains(&part), "{mappings}: {message:?} has no {part:?}");
            assert!(!message.contains("canary"), "{message}");
        }
        let mut body = mapped(&place, json!([{"target_field": "key", "secret_reference_id": "only-a"}]));
        body["workspace_id"] = json!("ws-a");
        stage.done(Method::POST, path, body).await;
    }
}

#[tokio::test]
async fn half_of_a_credential_may_be_mapped_and_the_other_half_given() {
    let stage = Stage::start().await;
    stage.reference("aws", json!({})).await;
    let mut body = json!({"name": "n", "slug": "mixed", "ai_provider_id": "bedrock",
        "configurations": {"aws_access_key_id": "AKIACANARY0123456789", "aws_region": "eu-west-1"},
        "secret_mappings": [{"target_field": "aws_secret_access_key", "secret_reference_id": "aws"}]});
    stage.done(Method::POST, "/v1/integrations", body.clone()).await;
    let shown = stage.done(Method::GET, "/v1/integrations/mixed", Value::Null).await;
    assert_eq!(shown["secret_mappings"][0]["target_field"], "configurations.aws_secret_access_key");
    body["slug"] = json!("half");
    body["secret_mappings"] = json!([{"target_field": "aws_session_token", "secret_reference_id": "aws"}]);
    let (_, _, message) = refusal(&stage.send(Method::POST, "/v1/integrations", body).await);
    assert!(message.contains("aws_secret_access_key: is missing"), "{message}");
}
