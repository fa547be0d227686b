//! Linking by table: what a snapshot means, what it refuses, what it sets aside.

mod api_keys;
mod faults;
mod inheritance;
mod lookup;
mod sealed;
mod targets;

use serde_json::{Value, json};

use super::*;
use crate::model::{Caller, Entity, FieldValue};

const EXAMPLE: &str = include_str!("../../../config/snapshot.example.json");

/// A small organisation: two workspaces, two references, an integration and two virtual keys.
fn base() -> Value {
    let vault = json!({"vault_auth_type": "token", "vault_addr": "https://vault:8200", "vault_token": "hvs.x"});
    json!({
        "schema_version": 1,
        "workspaces": [{"id": "wa", "slug": "ws-a"}, {"id": "wb", "slug": "ws-b"}],
        "secret_references": [
            {"id": "r1", "slug": "ref-one", "manager_type": "hashicorp_vault", "auth_config": vault, "secret_path": "secret/data/one"},
            {"id": "r2", "slug": "ref-two", "manager_type": "file", "secret_path": "two"},
        ],
        "integrations": [
            {"id": "i1", "slug": "int-one", "ai_provider_id": "openai", "secret_mappings": [map("key", "ref-one")]},
        ],
        "virtual_keys": [
            {"id": "v1", "slug": "vk-one", "integration_id": "int-one"},
            {"id": "v2", "slug": "vk-two", "provider": "anthropic", "secret_mappings": [map("key", "r2")]},
        ],
    })
}

fn map(target_field: &str, reference: &str) -> Value {
    json!({"target_field": target_field, "secret_reference_id": reference})
}

/// Sets the member or element that `pointer` names; `/-` appends.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => list[last.parse::<usize>().unwrap()] = value,
        parent => parent[last] = value,
    }
}

fn changed(changes: &[(&str, Value)]) -> Value {
    let mut document = base();
    for (pointer, value) in changes {
        set(&mut document, pointer, value.clone());
    }
    document
}

fn strict(document: &Value) -> Result<Snapshot, Vec<String>> {
    link(document.to_string().as_bytes(), &LinkRules::STRICT)
        .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
}

fn lenient(document: &Value) -> Snapshot {
    link(document.to_string().as_bytes(), &LinkRules::LENIENT)
        .unwrap_or_else(|error| panic!("refused whole: {:#?}", error.problems))
}

fn nobody() -> Caller {
    Caller::default()
}

fn of(workspace: &str) -> Caller {
    Caller { workspace: Some(workspace.into()) }
}

/// The effective fields as `name=value`, mappings as `name<reference`.
fn effective(entity: &Entity) -> Vec<String> {
    let field = |field: &crate::model::EntityField| match &field.value {
        FieldValue::Plain(value) => format!("{}={value}", field.spec.name),
        FieldValue::Stored(stored) => format!("{}={}", field.spec.name, stored.credential().unwrap().expose()),
        FieldValue::Mapped(mapping) => format!("{}<{}", field.spec.name, mapping.reference.slug),
    };
    let mut fields: Vec<_> = entity.fields.iter().map(field).collect();
    fields.sort();
    fields
}

#[test]
fn the_example_is_whole() {
    let snapshot = link(EXAMPLE.as_bytes(), &LinkRules::STRICT).unwrap_or_else(|error| panic!("{:#?}", error.problems));
    assert_eq!(snapshot.references.len(), 5);
    let (a, b) = (snapshot.workspace_id("ws-team-a").unwrap(), snapshot.workspace_id("ws-team-b").unwrap());

    let entity = |slug, workspace: &str| snapshot.entity(slug, &of(workspace)).unwrap();
    assert_eq!(effective(entity("openai-prod", a)), ["api_key<vault-kubernetes", "openai_organization=\"org-123\""]);
    let azure = entity("azure", a);
    assert_eq!(
        azure.deployments.iter().map(|deployment| &*deployment.deployment_id).collect::<Vec<_>>(),
        ["gpt-4o-team-a"]
    );
    assert_eq!(
        azure.field("azure_entra_client_secret").unwrap().spec.header,
        Some("x-portkey-azure-entra-client-secret")
    );
    assert!(snapshot.entity("azure", &of(b)).is_err());
    assert_eq!(effective(entity("own-models", b)).len(), 3);
    assert!(!entity("sandbox", a).lifespan.active);
    assert!(snapshot.config("pc-fallback-1a2b3c", &nobody()).unwrap().config["targets"].is_array());
}

#[test]
fn the_head_of_the_document_is_kept() {
    let document = changed(&[
        ("/version", json!(17)),
        ("/organisation_id", json!("org")),
        ("/generated_at", json!("2026-11-21T03:00:00.000Z")),
        ("/api_keys", json!([{"id": "k1"}])),
        ("/mcp_integrations", json!("not looked at")),
        ("/something_new", json!({"a": 1})),
    ]);
    let snapshot = strict(&document).unwrap();
    assert_eq!((snapshot.version, &*snapshot.organisation_id), (17, "org"));
    assert_eq!(snapshot.generated_at.unwrap().unix_timestamp(), 1_795_230_000);
    assert!(format!("{snapshot:?}").len() < 200);
}

#[test]
fn an_empty_organisation_is_fine() {
    let snapshot = link(br#" { "schema_version": 1, "virtual_keys": null } "#, &LinkRules::STRICT).unwrap();
    assert_eq!(snapshot.entities().count(), 0);
}
