//! `/configs`: shapes for specification and SDKs at once, revisions, what is refused.

use http::Method;
use serde_json::{Value, json};
use sidekey::control::store::Kind;

use super::stage::{Stage, refusal};

const ROOT: &str = "/v1/configs";

#[tokio::test]
async fn a_config_lives_and_ends() {
    let stage = Stage::start().await;
    let config =
        json!({"strategy": {"mode": "fallback"}, "targets": [{"provider": "@openai-prod"}, {"virtual_key": "b"}]});
    let made = stage
        .done(Method::POST, ROOT, json!({"name": "Fallback", "config": config, "isDefault": 1, "workspace_id": ""}))
        .await;
    let slug = made["slug"].as_str().unwrap().to_owned();
    assert!(slug.starts_with("pc-fallback-") && slug.len() == "pc-fallback-1a2b3c".len(), "{slug}");
    for name in ["id", "slug", "version_id"] {
        assert_eq!(made[name], made["data"][name], "{name}: the specification's place and the SDKs'");
    }
    assert_eq!((&made["success"], &made["object"]), (&json!(true), &json!("config")));

    let read = async || stage.done(Method::GET, &format!("{ROOT}/{slug}"), Value::Null).await;
    let shown = read().await;
    assert_eq!(serde_json::from_str::<Value>(shown["config"].as_str().unwrap()).unwrap(), config, "text for SDKs");
    assert_eq!(shown["data"]["config"], config, "an object for the specification");
    assert_eq!(
        (&shown["is_default"], &shown["format"], &shown["type"]),
        (&json!(1), &json!("json"), &json!("ORG_CONFIG"))
    );
    assert_eq!(
        stage.done(Method::GET, &format!("/configs/{}", shown["id"].as_str().unwrap()), Value::Null).await,
        shown
    );

    // Text that holds the config is a config; another default takes the rank.
    let second = json!({"name": "Second", "config": "{\"retry\":{\"attempts\":3}}", "is_default": 1});
    let second = stage.done(Method::POST, ROOT, second).await;
    assert_eq!(read().await["is_default"], 0);
    let listed = stage.done(Method::GET, &format!("{ROOT}?"), Value::Null).await;
    assert_eq!((&listed["success"], &listed["object"], &listed["total"]), (&json!(true), &json!("list"), &json!(2)));
    assert_eq!(
        (&listed["data"][0]["slug"], &listed["data"][1]["slug"]),
        (&second["slug"], &json!(slug)),
        "newest first"
    );
    assert!(listed["data"][0].get("config").is_none());

    let target = format!("{ROOT}/{slug}");
    let updated =
        stage.done(Method::PUT, &target, json!({"name": "Other", "config": {"virtual_key": "x"}, "slug": slug})).await;
    assert_ne!(updated["version_id"], made["version_id"]);
    assert_eq!(updated["version_id"], updated["data"]["version_id"]);
    let renamed = stage.done(Method::PUT, &target, json!({"name": "Third", "status": "archived"})).await;
    assert_eq!(renamed["version_id"], updated["version_id"], "the config is the same");
    let shown = read().await;
    assert_eq!((&shown["name"], &shown["status"], &shown["slug"]), (&json!("Third"), &json!("archived"), &json!(slug)));
    let versions = stage.done(Method::GET, &format!("{target}/versions"), Value::Null).await;
    let row = |index: usize| (versions["data"][index]["version_id"].clone(), versions["data"][index]["config"].clone());
    assert_eq!((&versions["object"], &versions["total"]), (&json!("list"), &json!(2)));
    assert_eq!(row(0), (updated["version_id"].clone(), json!("{\"virtual_key\":\"x\"}")));
    assert_eq!(row(1).0, made["version_id"]);
    assert_eq!(serde_json::from_str::<Value>(row(1).1.as_str().unwrap()).unwrap(), config);

    stage.done(Method::DELETE, &target, json!({})).await;
    for target in [target.clone(), format!("{target}/versions")] {
        assert_eq!(refusal(&stage.send(Method::GET, &target, Value::Null).await).1, "AB08");
    }
}

#[tokio::test]
async fn what_a_data_plane_would_not_take_is_refused() {
    let stage = Stage::start().await;
    let made = stage.done(Method::POST, ROOT, json!({"name": "a", "config": {"retry": {"attempts": 1}}})).await;
    let target = format!("{ROOT}/{}", made["slug"].as_str().unwrap());
    let before = stage.done(Method::GET, &target, Value::Null).await;
    // (body, part of the message)
    let cases = [
        (json!({"config": "nonsense"}), "config: is no JSON"),
        (json!({"config": []}), "config: invalid config"),
        (json!({"config": 7}), "config: invalid config"),
        (json!({"config": {"targets": []}}), "`targets` is a list that is not empty"),
        (json!({"config": {"retry": {"attempts": 101}}}), "`retry.attempts`"),
        (json!({"config": {"provider": "openai", "api_key": "sk-canary"}}), "holds a credential (`api_key`)"),
        (json!({"status": "canary"}), "status: must be one of active, inactive, archived"),
        (json!({"is_default": 2}), "is_default: must be 0 or 1"),
        (json!({"name": ""}), "name: must be text"),
        (json!({}), "no field to update was given"),
    ];
    for (body, part) in cases {
        let (status, code, message) = refusal(&stage.send(Method::PUT, &target, body.clone()).await);
        assert_eq!((status, code.as_str()), (400, "AB01"), "{body}");
        assert!(message.contains(part) && !message.contains("canary"), "{body}: {message}");
    }
    let nothing = refusal(&stage.send(Method::POST, ROOT, json!({})).await).2;
    assert!(nothing.contains("name: is missing") && nothing.contains("config: is missing"), "{nothing}");
    assert_eq!(stage.done(Method::GET, &target, Value::Null).await, before);
    assert!(!stage.log.text().contains("canary"));
}

#[tokio::test]
async fn a_config_that_a_key_starts_from_stays() {
    let stage = Stage::start().await;
    let made = stage.done(Method::POST, ROOT, json!({"name": "a", "config": {}})).await;
    let slug = made["slug"].as_str().unwrap();
    let key = json!({"name": "k", "scopes": [], "defaults": {"config_id": made["id"]}});
    let key =
        stage.done(Method::POST, "/v1/api-keys/organisation/service", key).await["id"].as_str().unwrap().to_owned();
    let shown = stage.done(Method::GET, &format!("/v1/api-keys/{key}"), Value::Null).await;
    assert_eq!(shown["defaults"]["config_id"], slug, "by its slug, whatever it was named by");
    let (status, _, message) = refusal(&stage.send(Method::DELETE, &format!("{ROOT}/{slug}"), Value::Null).await);
    assert!(status == 400 && message.contains("in use by API key"), "{message}");
    stage.done(Method::PUT, &format!("/v1/api-keys/{key}"), json!({"defaults": null})).await;
    stage.done(Method::DELETE, &format!("{ROOT}/{slug}"), Value::Null).await;
}

#[tokio::test]
async fn revisions_are_bounded() {
    let stage = Stage::start().await;
    let made = stage.done(Method::POST, ROOT, json!({"name": "a", "config": {"weight": 0}})).await;
    let target = format!("{ROOT}/{}", made["slug"].as_str().unwrap());
    for weight in 1..=101 {
        stage.done(Method::PUT, &target, json!({"config": {"weight": weight}})).await;
    }
    let versions = stage.done(Method::GET, &format!("{target}/versions"), Value::Null).await;
    assert_eq!(versions["total"], 100);
    assert_eq!(versions["data"][0]["config"], "{\"weight\":101}");
    assert_eq!(versions["data"][99]["config"], "{\"weight\":2}");
    let (_, _, body) = stage.stored(Kind::Config, made["slug"].as_str().unwrap()).await;
    assert_eq!(body["config"], "{\"weight\":101}");
}
