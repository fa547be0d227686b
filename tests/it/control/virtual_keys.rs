//! `/virtual-keys` and `/providers`: one row, two views.

use http::Method;
use serde_json::{Value, json};
use sidekey::{control::store::Kind, seal::Place};

use super::stage::{Stage, refusal};

const KEYS: &str = "/v1/virtual-keys";
const PROVIDERS: &str = "/v1/providers";

async fn integration(stage: &Stage, slug: &str, more: Value) {
    let mut body = json!({"name": slug, "slug": slug, "ai_provider_id": "openai", "key": "sk-canary-parent-01"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stage.done(Method::POST, "/v1/integrations", body).await;
}

/// An example of Portkey's description, and what is read of it under `model_config`.
struct Example {
    posted: Value,
    model_config: Value,
}

#[tokio::test]
async fn the_examples_of_portkeys_description_work() {
    let stage = Stage::start().await;
    let examples = [
        Example {
            posted: json!({"name": "My first virtual key", "provider": "openai", "key": "sk-jhkfkjs8d9f7jksfghkjhfg",
                "note": "Virtual key description", "workspace_id": "",
                "usage_limits": {"credit_limit": 10, "periodic_reset": "monthly", "alert_threshold": 9}}),
            model_config: json!({}),
        },
        Example {
            posted: json!({"provider": "azure-openai", "key": "openai-test", "name": "Key 1 Azure Open AI",
                "note": "description", "resourceName": "c", "deploymentConfig": [
                    {"apiVersion": "a", "alias": "b", "deploymentName": "c", "is_default": true},
                    {"apiVersion": "a", "alias": "b", "deploymentName": "c", "is_default": false}]}),
            model_config: json!({"resourceName": "c", "deploymentConfig": [
                {"apiVersion": "a", "alias": "b", "deploymentName": "c", "is_default": true},
                {"apiVersion": "a", "alias": "b", "deploymentName": "c", "is_default": false}]}),
        },
        Example {
            posted: json!({"provider": "bedrock", "key": "openai-test", "name": "Bedrock Key", "note": "description",
                "awsAccessKeyId": "a", "awsSecretAccessKey": "b", "awsRegion": "c"}),
            model_config: json!({"masked_awsAccessKeyId": "*****", "masked_awsSecretAccessKey": "*****", "awsRegion": "c"}),
        },
        Example {
            posted: json!({"provider": "vertex-ai", "key": "vertex test", "name": "Vertex AI Key", "note": "description",
                "vertexProjectId": "a", "vertexRegion": "b"}),
            model_config: json!({"vertexProjectId": "a", "vertexRegion": "b"}),
        },
        // The provider is Portkey's slip; what it does not have is left out.
        Example {
            posted: json!({"provider": "vertex-ai", "key": "cloudflare test", "name": "CF Workers AI Key",
                "note": "description", "workersAiAccountId": "a"}),
            model_config: json!({}),
        },
    ];
    for Example { posted, model_config } in examples {
        let created = stage.done(Method::POST, KEYS, posted.clone()).await;
        let slug = created["slug"].as_str().unwrap();
        assert_eq!((&created["success"], &created["data"]["slug"]), (&json!(true), &json!(slug)));
        assert_eq!(created["object"], "virtual-key");
        let target = format!("{KEYS}/{slug}");
        let shown = stage.done(Method::GET, &target, Value::Null).await;
        assert_eq!(shown["model_config"], model_config, "{posted}");
        for key in ["name", "note"] {
            assert_eq!(shown[key], posted[key], "{shown}");
        }
        assert_eq!((&shown["key"], &shown["ai_provider_name"]), (&json!(""), &posted["provider"]));
        assert_eq!((&shown["status"], &shown["id"]), (&json!("active"), &created["id"]));
        let (organisation, object_id, body) = stage.stored(Kind::VirtualKey, slug).await;
        let place = Place { organisation: &organisation, object_id: &object_id, field: "key" };
        assert_eq!(json!(stage.open(place, &body["fields"]["key"])), posted["key"]);
        // What was read may be sent back as it is.
        let (_, _, before) = stage.stored(Kind::VirtualKey, slug).await;
        stage.done(Method::PUT, &target, shown).await;
        assert_eq!(stage.stored(Kind::VirtualKey, slug).await.2, before, "{posted}");
        stage.done(Method::DELETE, &target, json!({})).await;
        assert_eq!(refusal(&stage.send(Method::GET, &target, Value::Null).await).1, "AB08");
    }
}

#[tokio::test]
async fn a_provider_is_the_view_of_a_virtual_key() {
    let stage = Stage::start().await;
    integration(&stage, "my-openai-integration", json!({})).await;
    // Portkey's example.
    let example = json!({"name": "My first provider", "note": "Provider description", "workspace_id": "",
        "integration_id": "my-openai-integration", "slug": "first-openai-provider",
        "usage_limits": {"credit_limit": 10, "periodic_reset": "monthly", "alert_threshold": 9}});
    let created = stage.done(Method::POST, PROVIDERS, example).await;
    assert_eq!(created["slug"], "first-openai-provider");
    let target = format!("{PROVIDERS}/first-openai-provider");
    let shown = stage.done(Method::GET, &target, Value::Null).await;
    for (key, expected) in [
        ("id", created["id"].clone()),
        ("name", json!("My first provider")),
        ("note", json!("Provider description")),
        ("integration_id", json!("my-openai-integration")),
        ("status", json!("active")),
        ("object", json!("provider")),
    ] {
        assert_eq!(shown[key], expected, "{key}");
    }
    assert_eq!((&shown["usage_limits"]["credit_limit"], &shown["usage_limits"]["type"]), (&json!(10), &json!("cost")));
    assert!(shown["usage_limits"]["next_usage_reset_at"].as_str().unwrap().ends_with("-01T00:00:00.000Z"), "{shown}");
    assert!(shown.get("key").is_none() && shown.get("model_config").is_none());
    let as_key = stage.done(Method::GET, &format!("{KEYS}/first-openai-provider"), Value::Null).await;
    assert_eq!((&as_key["id"], &as_key["ai_provider_name"]), (&created["id"], &json!("openai")));
    assert_eq!(as_key["integration_id"], "my-openai-integration");

    let updated = stage
        .done(
            Method::PUT,
            &target,
            json!({"name": "Renamed", "usage_limits": null, "reset_usage": true,
        "rate_limits": {"type": "requests", "unit": "rpm", "value": 3}, "expires_at": "2020-01-01T00:00:00Z"}),
        )
        .await;
    assert_eq!((&updated["id"], &updated["slug"]), (&created["id"], &json!("first-openai-provider")));
    let shown = stage.done(Method::GET, &target, Value::Null).await;
    assert_eq!((&shown["name"], &shown["status"]), (&json!("Renamed"), &json!("expired")));
    assert!(shown.get("usage_limits").is_none() && shown["last_reset_at"].is_string(), "{shown}");
    assert_eq!(shown["rate_limits"], json!([{"type": "requests", "unit": "rpm", "value": 3}]));
    stage.done(Method::PUT, &target, json!({"expires_at": null})).await;

    // The integration stays while somebody inherits from it.
    let (status, code, message) =
        refusal(&stage.send(Method::DELETE, "/v1/integrations/my-openai-integration", Value::Null).await);
    assert_eq!((status, code.as_str()), (400, "AB01"));
    assert!(message.contains("the integration is in use by virtual key first-openai-provider"), "{message}");
    stage.done(Method::DELETE, &target, Value::Null).await;
    stage.done(Method::DELETE, "/v1/integrations/my-openai-integration", Value::Null).await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_every_reason_and_no_value() {
    let stage = Stage::start().await;
    stage.workspace("ws-a").await;
    stage.workspace("ws-b").await;
    integration(&stage, "main", json!({})).await;
    integration(&stage, "in-b", json!({"workspace_id": "ws-b", "create_default_provider": false})).await;
    let keyless =
        json!({"ai_provider_id": "ollama", "key": null, "configurations": {"custom_host": "https://o.example"}});
    integration(&stage, "ollama", keyless).await;
    let alone = |more: Value| {
        let mut body = json!({"name": "n", "provider": "openai", "key": "sk-canary-key-01"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let heir = |more: Value| {
        let mut body = json!({"name": "n", "integration_id": "main"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    // (path, body, parts of the message)
    let cases: Vec<(&str, Value, &[&str])> = vec![
        (KEYS, json!({}), &["name: is missing", "provider: is missing"]),
        (PROVIDERS, json!({}), &["name: is missing", "integration_id: is missing"]),
        (PROVIDERS, heir(json!({"integration_id": ""})), &["provider: is missing"]),
        (PROVIDERS, heir(json!({"integration_id": "canary"})), &["integration_id: names an integration that does not"]),
        (PROVIDERS, heir(json!({"integration_id": "in-b"})), &["integration_id: names an integration of another"]),
        (PROVIDERS, heir(json!({"workspace_id": "ws-a"})), &["integration_id: names an integration that is not open"]),
        (PROVIDERS, heir(json!({"workspace_id": "canary"})), &["workspace_id: names a workspace that does not exist"]),
        (KEYS, heir(json!({"provider": "groq"})), &["provider: differs from the provider of the integration"]),
        (KEYS, json!({"name": "n", "provider": "openai"}), &["key: is missing; give it, or map a secret reference"]),
        (KEYS, alone(json!({"slug": "a b"})), &["slug: must be letters"]),
        (KEYS, alone(json!({"note": "x".repeat(1025)})), &["note: must be text of at most 1024"]),
        (KEYS, alone(json!({"expires_at": "canary"})), &["expires_at: must be a time"]),
        (
            KEYS,
            alone(json!({"usage_limits": {"credit_limit": "canary"}})),
            &["usage_limits.credit_limit: must be a number"],
        ),
        (
            KEYS,
            alone(json!({"usage_limits": [{"credit_limit": 1}, {"credit_limit": 2}]})),
            &["usage_limits: must be one"],
        ),
        (
            KEYS,
            alone(json!({"usage_limits": {"periodic_reset": "monthly", "periodic_reset_days": 3}})),
            &["periodic_reset_days: cannot be given beside periodic_reset"],
        ),
        (KEYS, alone(json!({"rate_limits": {"unit": "rpm"}})), &["rate_limits.value: is missing"]),
        (KEYS, alone(json!({"openaiProject": ["canary"]})), &["openaiProject: must be text, a number"]),
        (KEYS, alone(json!({"model_config": {"canary_x": "y"}})), &["model_config.canary_x: is no field"]),
        (
            KEYS,
            alone(json!({"openaiProject": "a", "model_config": {"openai_project": "b"}})),
            &["is given a second time, under another spelling"],
        ),
        // Who inherits a credential does not choose where it goes.
        (
            KEYS,
            heir(json!({"model_config": {"customHost": "https://canary.example"}})),
            &["model_config.customHost: may not be set by a virtual key that inherits a credential"],
        ),
        (KEYS, heir(json!({"customHeaders": {"x-canary": "canary"}})), &["model_config.customHeaders: may not be set"]),
    ];
    for (path, body, parts) in cases {
        let (status, code, message) = refusal(&stage.send(Method::POST, path, body.clone()).await);
        assert_eq!((status, code.as_str()), (400, "AB01"), "{body}: {message}");
        for part in parts {
            assert!(message.contains(part), "{body}: {message:?} has no {part:?}");
        }
        assert!(!message.replace("canary_x", "").contains("canary"), "{message}");
    }
    assert_eq!(stage.done(Method::GET, KEYS, Value::Null).await["total"], 0);
    // Nothing is inherited here that could go elsewhere; a key of one's own may.
    let moved = json!({"name": "n", "integration_id": "ollama", "customHost": "https://mine.example"});
    stage.done(Method::POST, KEYS, moved).await;
    let own = heir(json!({"slug": "own", "key": "sk-mine", "customHost": "https://mine.example"}));
    stage.done(Method::POST, KEYS, own).await;
}

#[tokio::test]
async fn an_integration_does_not_take_from_its_virtual_keys_what_they_need() {
    let stage = Stage::start().await;
    let keyless =
        json!({"ai_provider_id": "ollama", "key": null, "configurations": {"custom_host": "https://o.example"}});
    integration(&stage, "ollama", keyless).await;
    let moved = json!({"name": "n", "slug": "heir", "integration_id": "ollama", "customHost": "https://mine.example"});
    stage.done(Method::POST, KEYS, moved).await;
    let (status, _, message) =
        refusal(&stage.send(Method::PUT, "/v1/integrations/ollama", json!({"key": "sk-canary-key-01"})).await);
    assert_eq!(status, 400);
    assert!(message.contains("does not fit to the virtual key heir"), "{message}");
    stage.done(Method::PUT, "/v1/integrations/ollama", json!({"description": "fine"})).await;
}

#[tokio::test]
async fn an_update_merges_and_a_move_is_audited() {
    let stage = Stage::start().await;
    let body = json!({"name": "n", "slug": "vk", "provider": "bedrock", "awsAccessKeyId": "AKIACANARY0123456789",
        "awsSecretAccessKey": "canary/secret/access/04", "awsRegion": "eu-west-1"});
    stage.done(Method::POST, KEYS, body).await;
    let target = format!("{KEYS}/vk");
    let get = async || stage.done(Method::GET, &target, Value::Null).await;
    let before = get().await["model_config"].clone();
    stage.done(Method::PUT, &target, json!({"awsRegion": "us-east-1", "provider": "openai", "slug": "other"})).await;
    let after = get().await;
    assert_eq!(after["model_config"]["awsRegion"], "us-east-1");
    assert_eq!(after["model_config"]["masked_awsSecretAccessKey"], before["masked_awsSecretAccessKey"]);
    assert_eq!((&after["slug"], &after["provider"]), (&json!("vk"), &json!("bedrock")));
    let store = stage.control.control().store();
    let organisation = store.organisations().await.unwrap().remove(0);
    let records = store.tenant(&organisation).await.unwrap().audit(1).await.unwrap();
    assert_eq!((records[0].action.as_str(), records[0].kind.as_str()), ("address_changed", "virtual_key"));
    assert_eq!(records[0].fields, ["awsRegion"]);
    for nothing in [json!({}), json!({"slug": "x"}), json!({"workspace_id": ""})] {
        assert_eq!(refusal(&stage.send(Method::PUT, &target, nothing).await).2, "no field to update was given");
    }
}

#[tokio::test]
async fn a_slug_belongs_to_its_workspace() {
    let stage = Stage::start().await;
    let ids = [stage.workspace("ws-a").await, stage.workspace("ws-b").await];
    let make = |workspace: &str| json!({"name": format!("in {workspace}"), "slug": "same", "provider": "openai", "key": "sk", "workspace_id": workspace});
    for workspace in ["ws-a", &*ids[1]] {
        stage.done(Method::POST, KEYS, make(workspace)).await;
    }
    let again = refusal(&stage.send(Method::POST, KEYS, make("ws-a")).await);
    assert_eq!((again.0, again.2.contains("slug")), (400, true));
    let unclear = refusal(&stage.send(Method::GET, &format!("{KEYS}/same"), Value::Null).await);
    assert!(unclear.2.contains("workspace_id: is needed"), "{unclear:?}");
    for (index, workspace) in ["ws-a", "ws-b"].into_iter().enumerate() {
        for path in [KEYS, PROVIDERS] {
            let target = format!("{path}/same?workspace_id={workspace}");
            let shown = stage.done(Method::GET, &target, Value::Null).await;
            assert_eq!((&shown["workspace_id"], &shown["workspace_name"]), (&json!(ids[index]), &json!(workspace)));
        }
        let list = stage.done(Method::GET, &format!("{PROVIDERS}?workspace_id={workspace}"), Value::Null).await;
        assert_eq!((&list["total"], &list["data"][0]["workspace_id"]), (&json!(1), &json!(ids[index])));
    }
    // The SDK for Node says in the body where it is.
    stage.done(Method::PUT, &format!("{PROVIDERS}/same"), json!({"workspace_id": "ws-b", "note": "b"})).await;
    let b = stage.done(Method::GET, &format!("{KEYS}/same?workspace_id=ws-b"), Value::Null).await;
    assert_eq!(b["note"], "b");
    // The organisation's own is meant where nobody says which workspace.
    stage.done(Method::POST, KEYS, make("")).await;
    let ours = stage.done(Method::GET, &format!("{KEYS}/same"), Value::Null).await;
    assert!(ours.get("workspace_id").is_none(), "{ours}");
    stage.done(Method::DELETE, &format!("{KEYS}/same?workspace_id=ws-b"), Value::Null).await;
    let query = "?current_page=0&page_size=50";
    assert_eq!(stage.done(Method::GET, &format!("{KEYS}{query}"), Value::Null).await["total"], 2);
}
