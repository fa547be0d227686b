//! The table: operation, what it names, and whose that could be.

use serde_json::{Map, Value, json};

use super::{
    Answer::{Either, Refused, Taken},
    Row,
};

const REFERENCES: &[&str] = &["ref-b", "ref-closed"];
const INTEGRATIONS: &[&str] = &["int-b", "int-closed"];
const WORKSPACES: &[&str] = &["ws-b"];
const CONFIGS: &[&str] = &["config-b"];
const API_KEYS: &[&str] = &["key-b", "key-organisation"];
const VIRTUAL_KEYS: &[&str] = &["vk-b"];

/// Every row.
pub(super) fn rows() -> Vec<Row> {
    let row = |operation, at, foreign, answer, body| Row { operation, at, body, foreign, answer };
    let mapping = json!([{"target_field": "key", "secret_reference_id": "NAME"}]);
    let integration = |more: Value| with(json!({"name": "n", "ai_provider_id": "openai", "key": "sk"}), more);
    let virtual_key = |more: Value| with(json!({"name": "n", "provider": "openai", "key": "sk"}), more);
    let reference =
        |more: Value| with(json!({"name": "n", "manager_type": "file", "auth_config": {}, "secret_path": "a"}), more);
    let api_key = |more: Value| with(json!({"name": "n", "scopes": []}), more);
    let config = |config: Value| json!({"name": "n", "config": config});
    let usage = |kind: &str| {
        let used = json!({"kind": kind, "id": "NAME", "day": 20_000, "reset_at": 0, "requests": 1, "tokens": 1,
            "cost_nanodollars": 1});
        json!({"reporter": format!("{kind}-CALLER-NAME"), "sequence": 1, "usage": [used]})
    };
    let null = || Value::Null;
    vec![
        row("POST /admin/workspaces", "users", WORKSPACES, Taken, json!({"name": "n", "users": ["NAME"]})),
        row(
            "POST /admin/workspaces",
            "defaults.user_api_key_config",
            CONFIGS,
            Refused,
            json!({"name": "n", "defaults": {"user_api_key_config": "NAME"}}),
        ),
        row(
            "PUT /admin/workspaces/{workspaceId}",
            "defaults.user_api_key_config",
            CONFIGS,
            Refused,
            json!({"defaults": {"user_api_key_config": "NAME"}}),
        ),
        row("POST /admin/workspaces/{workspaceId}/users", "users", API_KEYS, Taken, json!({"users": [{"id": "NAME"}]})),
        row(
            "POST /admin/workspaces/{workspaceId}/users",
            "users.[].id",
            API_KEYS,
            Taken,
            json!({"users": [{"id": "NAME"}]}),
        ),
        row("GET /api-keys", "?workspace_id", WORKSPACES, Refused, null()),
        row("PUT /api-keys/{id}", "defaults.config_id", CONFIGS, Refused, json!({"defaults": {"config_id": "NAME"}})),
        row("PUT /api-keys/{id}", "workspace_id", WORKSPACES, Taken, json!({"name": "n", "workspace_id": "NAME"})),
        row("PUT /api-keys/{id}", "user_id", API_KEYS, Taken, json!({"name": "n", "user_id": "NAME"})),
        row(
            "POST /api-keys/{type}/{sub-type}",
            "workspace_id",
            WORKSPACES,
            Refused,
            api_key(json!({"workspace_id": "NAME"})),
        ),
        row(
            "POST /api-keys/{type}/{sub-type}",
            "organisation_id",
            WORKSPACES,
            Refused,
            api_key(json!({"organisation_id": "NAME"})),
        ),
        row("POST /api-keys/{type}/{sub-type}", "user_id", API_KEYS, Taken, api_key(json!({"user_id": "NAME"}))),
        row(
            "POST /api-keys/{type}/{sub-type}",
            "defaults.config_id",
            CONFIGS,
            Refused,
            api_key(json!({"defaults": {"config_id": "NAME"}})),
        ),
        row("GET /audit-logs", "?user_id", API_KEYS, Taken, null()),
        row("GET /audit-logs", "?organisation_id", WORKSPACES, Taken, null()),
        row("GET /configs", "?workspace_id", WORKSPACES, Refused, null()),
        row(
            "POST /configs",
            "workspace_id",
            WORKSPACES,
            Refused,
            with(config(json!({"retry": {"attempts": 1}})), json!({"workspace_id": "NAME"})),
        ),
        row("POST /configs", "config", VIRTUAL_KEYS, Taken, config(json!({"virtual_key": "NAME"}))),
        row("POST /configs", "config", INTEGRATIONS, Taken, config(json!({"provider": "@NAME"}))),
        row("PUT /configs/{slug}", "config", VIRTUAL_KEYS, Taken, json!({"config": {"virtual_key": "NAME"}})),
        row("PUT /configs/{slug}", "workspace_id", WORKSPACES, Taken, json!({"name": "n", "workspace_id": "NAME"})),
        row("GET /integrations", "?workspace_id", WORKSPACES, Refused, null()),
        row("POST /integrations", "workspace_id", WORKSPACES, Refused, integration(json!({"workspace_id": "NAME"}))),
        row(
            "POST /integrations",
            "secret_mappings.[].secret_reference_id",
            REFERENCES,
            Refused,
            integration(json!({"secret_mappings": mapping})),
        ),
        row("GET /integrations/{slug}", "?workspace_id", WORKSPACES, Refused, null()),
        row("PUT /integrations/{slug}", "?workspace_id", WORKSPACES, Refused, json!({"name": "n"})),
        row(
            "PUT /integrations/{slug}",
            "workspace_id",
            WORKSPACES,
            Taken,
            json!({"name": "n", "workspace_id": "NAME"}),
        ),
        row(
            "PUT /integrations/{slug}",
            "secret_mappings.[].secret_reference_id",
            REFERENCES,
            Refused,
            json!({"secret_mappings": mapping}),
        ),
        row(
            "PUT /integrations/{slug}/workspaces",
            "workspaces",
            WORKSPACES,
            Refused,
            json!({"workspaces": [{"id": "NAME", "enabled": true}]}),
        ),
        row(
            "PUT /integrations/{slug}/workspaces",
            "workspaces.[].id",
            WORKSPACES,
            Refused,
            json!({"workspaces": [{"id": "NAME", "enabled": false}]}),
        ),
        row("GET /providers", "?workspace_id", WORKSPACES, Refused, null()),
        row(
            "POST /providers",
            "workspace_id",
            WORKSPACES,
            Refused,
            json!({"name": "n", "integration_id": "OWN", "workspace_id": "NAME"}),
        ),
        row("POST /providers", "integration_id", INTEGRATIONS, Refused, json!({"name": "n", "integration_id": "NAME"})),
        row("GET /providers/{slug}", "?workspace_id", WORKSPACES, Refused, null()),
        row("PUT /providers/{slug}", "?workspace_id", WORKSPACES, Refused, json!({"note": "n"})),
        row(
            "PUT /providers/{slug}",
            "integration_id",
            INTEGRATIONS,
            Taken,
            json!({"note": "n", "integration_id": "NAME"}),
        ),
        row(
            "PUT /providers/{slug}",
            "secret_mappings.[].secret_reference_id",
            REFERENCES,
            Refused,
            json!({"secret_mappings": mapping}),
        ),
        row("DELETE /providers/{slug}", "?workspace_id", WORKSPACES, Refused, null()),
        row(
            "POST /secret-references",
            "allowed_workspaces",
            WORKSPACES,
            Refused,
            reference(json!({"allowed_workspaces": ["NAME"]})),
        ),
        row(
            "POST /secret-references",
            "organisation_id",
            WORKSPACES,
            Refused,
            reference(json!({"organisation_id": "NAME"})),
        ),
        row(
            "PUT /secret-references/{secretReferenceId}",
            "allowed_workspaces",
            WORKSPACES,
            Refused,
            json!({"allowed_workspaces": ["NAME"]}),
        ),
        row("POST /usage", "usage.[].id", API_KEYS, Taken, usage("api_key")),
        row("POST /usage", "usage.[].id", VIRTUAL_KEYS, Taken, usage("virtual_key")),
        row("POST /usage", "usage.[].id", WORKSPACES, Taken, usage("workspace")),
        row("GET /virtual-keys", "?workspace_id", WORKSPACES, Refused, null()),
        row("POST /virtual-keys", "workspace_id", WORKSPACES, Refused, virtual_key(json!({"workspace_id": "NAME"}))),
        row(
            "POST /virtual-keys",
            "integration_id",
            INTEGRATIONS,
            Refused,
            json!({"name": "n", "integration_id": "NAME"}),
        ),
        row(
            "POST /virtual-keys",
            "secret_mappings.[].secret_reference_id",
            REFERENCES,
            Refused,
            virtual_key(json!({"secret_mappings": mapping})),
        ),
        row("GET /virtual-keys/{slug}", "?workspace_id", WORKSPACES, Refused, null()),
        row("PUT /virtual-keys/{slug}", "?workspace_id", WORKSPACES, Refused, json!({"note": "n"})),
        row(
            "PUT /virtual-keys/{slug}",
            "workspace_id",
            WORKSPACES,
            Either,
            json!({"note": "n", "workspace_id": "NAME"}),
        ),
        row(
            "PUT /virtual-keys/{slug}",
            "integration_id",
            INTEGRATIONS,
            Taken,
            json!({"note": "n", "integration_id": "NAME"}),
        ),
        row(
            "PUT /virtual-keys/{slug}",
            "secret_mappings.[].secret_reference_id",
            REFERENCES,
            Refused,
            json!({"secret_mappings": mapping}),
        ),
        row("DELETE /virtual-keys/{slug}", "?workspace_id", WORKSPACES, Refused, null()),
    ]
}

/// `body` with `more` members.
pub(super) fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_else(Map::new));
    body
}
