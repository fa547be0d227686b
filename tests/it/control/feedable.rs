//! What is stored makes up a snapshot that a data plane takes without a fault.

use http::Method;
use serde_json::{Value, json};
use sidekey::{
    control::{
        integration, secret_reference,
        store::{Kind, Object},
        virtual_key, workspace,
    },
    model::{Caller, LinkRules, link},
};

use super::stage::Stage;

fn row(object: &Object) -> (&'static str, Value) {
    let (list, row) = match object.kind {
        Kind::Workspace => {
            let body: workspace::Body = object.read().unwrap();
            ("workspaces", serde_json::to_value(body.snapshot_row(object)))
        }
        Kind::SecretReference => {
            let body: secret_reference::Body = object.read().unwrap();
            ("secret_references", serde_json::to_value(body.snapshot_row(object)))
        }
        Kind::Integration => {
            let body: integration::Body = object.read().unwrap();
            ("integrations", serde_json::to_value(body.snapshot_row(object)))
        }
        Kind::VirtualKey => {
            let body: virtual_key::Body = object.read().unwrap();
            ("virtual_keys", serde_json::to_value(body.snapshot_row(object)))
        }
        other => panic!("{other:?} has other tests"),
    };
    (list, row.unwrap())
}

async fn snapshot(stage: &Stage) -> Value {
    let store = stage.control.control().store();
    let organisation = store.organisations().await.unwrap().remove(0);
    let mut snapshot = json!({"schema_version": 1, "version": 1, "generated_at": "2026-11-21T03:00:00.000Z",
        "organisation_id": organisation});
    for list in ["workspaces", "secret_references", "integrations", "virtual_keys"] {
        snapshot[list] = json!([]);
    }
    let mut tenant = store.tenant(&organisation).await.unwrap();
    for kind in [Kind::Workspace, Kind::SecretReference, Kind::Integration, Kind::VirtualKey] {
        for object in tenant.part(kind, "").await.unwrap() {
            let (list, row) = row(&object);
            snapshot[list].as_array_mut().unwrap().push(row);
        }
    }
    snapshot
}

#[tokio::test]
async fn a_data_plane_takes_all_of_it() {
    let stage = Stage::start().await;
    let (a, _) = (stage.workspace("ws-a").await, stage.workspace("ws-b").await);
    let id = stage
        .reference("key", json!({"secret_key": "api_key", "ttl_secs": 60, "allowed_hosts": ["api.openai.com"]}))
        .await;
    stage.reference("only-a", json!({"allowed_workspaces": ["ws-a"]})).await;
    let mappings = json!([{"target_field": "key", "secret_reference_id": "key", "value_format": "string"}]);
    let body = json!({"name": "Main", "slug": "main", "ai_provider_id": "openai", "secret_mappings": mappings,
        "configurations": {"openai_project": "p"}});
    stage.done(Method::POST, "/v1/integrations", body).await;
    let let_in = json!({"workspaces": [{"id": "ws-a", "enabled": true}, {"id": "ws-b", "enabled": false}]});
    stage.done(Method::PUT, "/v1/integrations/main/workspaces", let_in).await;
    let own = json!({"name": "Azure", "slug": "azure", "provider": "azure-openai", "workspace_id": "ws-a",
        "resourceName": "res", "deploymentConfig": [{"deploymentName": "d", "apiVersion": "v1", "alias": "a"}],
        "expires_at": "2036-01-01T00:00:00Z", "usage_limits": {"credit_limit": 10}, "rate_limits": {"value": 3},
        "secret_mappings": [{"target_field": "key", "secret_reference_id": "only-a", "secret_key": "k"}]});
    stage.done(Method::POST, "/v1/virtual-keys", own).await;

    let snapshot = snapshot(&stage).await;
    let text = snapshot.to_string();
    let linked =
        link(text.as_bytes(), &LinkRules::STRICT).unwrap_or_else(|error| panic!("{:?} in {text}", error.problems));
    let caller = |workspace: &str| Caller { workspace: linked.workspace_id(workspace).cloned() };
    let first = linked.entity("main", &caller("ws-a")).unwrap();
    assert_eq!((&*first.provider, first.fields.len(), &*first.slug), ("openai", 2, "main"));
    let azure = linked.entity("azure", &caller("ws-a")).unwrap();
    assert_eq!((azure.deployments.len(), azure.account.is_some(), first.account.is_some()), (1, true, false));
    for slug in ["main", "azure"] {
        assert!(linked.entity(slug, &caller("ws-b")).is_err(), "{slug} is not ws-b's");
    }
    let integration = &snapshot["integrations"][0];
    assert_eq!(
        (&integration["allow_all_workspaces"], &integration["allowed_workspaces"]),
        (&json!(false), &json!([a]))
    );
    assert_eq!(
        integration["secret_mappings"],
        json!([{"target_field": "key", "secret_reference_id": id,
        "secret_key": null, "value_format": "string"}]),
        "the reference by its id"
    );
    let keys: Vec<_> = integration.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "id",
        "slug",
        "ai_provider_id",
        "workspace_id",
        "status",
        "key",
        "configurations",
        "allow_all_workspaces",
        "allowed_workspaces",
        "secret_mappings",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let keys: Vec<_> = snapshot["virtual_keys"][0].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "id",
        "slug",
        "integration_id",
        "provider",
        "workspace_id",
        "status",
        "expires_at",
        "key",
        "model_config",
        "secret_mappings",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_seal_travels_without_its_mask() {
    let stage = Stage::start().await;
    let vault = json!({"manager_type": "hashicorp_vault", "secret_path": "secret/data/a", "auth_config": {
        "vault_auth_type": "token", "vault_addr": "https://vault.example", "vault_token": "hvs.canary-token-01"}});
    stage.reference("vault", vault).await;
    let body = json!({"name": "Main", "slug": "main", "ai_provider_id": "openai", "key": "sk-canary-key-01",
        "configurations": {"custom_headers": {"x-team": "canary"}}});
    stage.done(Method::POST, "/v1/integrations", body).await;
    let own = json!({"name": "Own", "provider": "bedrock", "awsAccessKeyId": "AKIACANARY0123456789",
        "awsSecretAccessKey": "canary/secret/access/02"});
    stage.done(Method::POST, "/v1/virtual-keys", own).await;
    let snapshot = snapshot(&stage).await;
    let seals = [
        ("secret_references", "/auth_config/vault_token"),
        ("integrations", "/key"),
        ("integrations", "/configurations/custom_headers"),
        ("virtual_keys", "/model_config/awsSecretAccessKey"),
        ("virtual_keys", "/model_config/awsAccessKeyId"),
    ];
    for (list, pointer) in seals {
        let sealed = snapshot[list][0].pointer(pointer).unwrap_or_else(|| panic!("{list}{pointer}: {snapshot}"));
        let members: Vec<_> = sealed.as_object().unwrap().keys().collect();
        assert_eq!(members, ["$sealed"], "{list}{pointer}");
    }
    assert!(!snapshot.to_string().to_lowercase().contains("canary"));
}
