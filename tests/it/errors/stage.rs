//! What stands in the snapshot, and what the manager says.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sidekey::manager::{
    FailureClass,
    fake::{Answer, Fake},
};

/// What each path of the manager holds.
pub fn secrets(fake: &Fake) {
    let fail = Answer::fail;
    for (path, answer) in [
        ("openai", Answer::text("sk-good")),
        ("gone", fail(FailureClass::Gone)),
        ("denied", fail(FailureClass::Denied)),
        ("ended", Answer::text("sk-old").not_after(SystemTime::UNIX_EPOCH)),
        ("text", Answer::text("sk-without-braces")),
        ("empty", Answer::text("\n")),
        ("lines", Answer::text("sk-1\r\nx-evil: 1")),
        ("unauthenticated", fail(FailureClass::Unauthenticated)),
        ("throttled", fail(FailureClass::Throttled).retry_after(Duration::from_secs(30))),
        ("unavailable", fail(FailureClass::Unavailable)),
        ("panics", Answer::panic()),
        ("hangs", Answer::hang()),
    ] {
        fake.script(path, [answer]);
    }
}

/// For each path of [`secrets`] a virtual key of its name, with a reference `NAME-key`; and those that are special.
pub fn snapshot() -> Value {
    let names = [
        "openai",
        "gone",
        "denied",
        "ended",
        "text",
        "empty",
        "lines",
        "unauthenticated",
        "throttled",
        "unavailable",
        "panics",
        "hangs",
        "nobodys",
        "switched-off",
    ];
    let reference = |name: &str| {
        json!({
            "id": format!("reference {name}"), "slug": format!("{name}-key"), "manager_type": "hashicorp_vault",
            "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.test", "vault_token": "t"},
            "secret_path": name, "secret_key": (name == "text").then_some("api_key"),
            "status": if name == "switched-off" { "disabled" } else { "active" }, "allow_all_workspaces": true,
        })
    };
    let virtual_key = |name: &str, more: Value| {
        let mut row = json!({
            "id": format!("virtual key {name}"), "slug": name, "provider": "openai", "status": "active", "key": "sk-literal",
            "model_config": {},
        });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let mapped = |name: &&str| {
        let mappings = json!([{"target_field": "key", "secret_reference_id": format!("{name}-key")}]);
        virtual_key(name, json!({"key": null, "secret_mappings": mappings}))
    };
    let deployments = json!([{"azure_deployment_name": "d", "azure_api_version": "2024-10-21", "alias": "gpt-4o"}]);
    let special = [
        virtual_key("paused", json!({"status": "Archived"})),
        virtual_key("expired", json!({"expires_at": "2020-01-01T00:00:00Z"})),
        virtual_key("literal", json!({"key": "sk-1\nx"})),
        virtual_key("of-team-b", json!({"workspace_id": "b"})),
        virtual_key(
            "azure",
            json!({"provider": "azure-openai",
                   "model_config": {"azure_resource_name": "r", "azure_deployment_config": deployments}}),
        ),
    ];
    json!({
        "schema_version": 1, "version": 1, "organisation_id": "org",
        "workspaces": [{"id": "a", "slug": "ws-a", "name": "A"}, {"id": "b", "slug": "ws-b", "name": "B"}],
        "secret_references": names.iter().map(|name| reference(name)).collect::<Vec<_>>(),
        "virtual_keys": names.iter().map(mapped).chain(special).collect::<Vec<_>>(),
    })
}

/// As [`snapshot`], with API keys.
pub fn with_keys(api_keys: Vec<Value>) -> Value {
    let mut snapshot = snapshot();
    snapshot["api_keys"] = api_keys.into();
    snapshot
}
