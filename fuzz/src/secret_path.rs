//! Any path for any manager, as the registry admits it: nothing that climbs, and nothing with a control character.

use std::sync::{Arc, LazyLock};

use serde_json::json;
use sidekey::{
    config::Config,
    manager::registry::Registry,
    metric::Metrics,
    model::{LinkRules, link},
};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let config = Config::parse("fuzz", "managers: { file: { root: . } }", []).expect("a configuration");
    Registry::new(config.managers, Arc::new(Metrics::new())).expect("a registry")
});

/// `input` is a byte that chooses the manager, and the path.
pub fn check(input: &[u8]) {
    let Some((manager, Ok(path))) = input.split_first().map(|(manager, path)| (manager, str::from_utf8(path))) else {
        return;
    };
    let (manager_type, auth_config) = match manager % 6 {
        0 => (
            "hashicorp_vault",
            json!({"vault_auth_type": "token", "vault_addr": "https://vault.example", "vault_token": "t"}),
        ),
        1 => (
            "aws_sm",
            json!({"aws_auth_type": "accessKey", "aws_access_key_id": "AKIA0", "aws_secret_access_key": "s", "aws_region": "eu-west-1"}),
        ),
        2 => (
            "aws_ssm",
            json!({"aws_auth_type": "accessKey", "aws_access_key_id": "AKIA0", "aws_secret_access_key": "s", "aws_region": "eu-west-1"}),
        ),
        3 => (
            "azure_kv",
            json!({"azure_auth_mode": "entra", "azure_vault_url": "https://v.vault.azure.net", "azure_entra_tenant_id": "t", "azure_entra_client_id": "c", "azure_entra_client_secret": "s"}),
        ),
        4 => ("gcp_sm", json!({"gcp_auth_type": "workloadIdentity", "gcp_project_id": "project-1"})),
        _ => ("file", json!({})),
    };
    let snapshot = json!({"schema_version": 1, "version": 1, "organisation_id": "o", "secret_references": [
        {"id": "r", "slug": "r", "manager_type": manager_type, "auth_config": auth_config, "secret_path": path, "status": "active"}]});
    let admit = |manager, auth: &_, location: Option<&_>| REGISTRY.admit(manager, auth, location);
    let Ok(snapshot) = link(snapshot.to_string().as_bytes(), &LinkRules { strict: true, admit: &admit, opener: None })
    else {
        return;
    };
    for reference in &snapshot.references {
        let path = &reference.location.path;
        assert!(!path.split(['/', '\\']).any(|segment| segment == ".."), "{path:?}");
        assert!(!path.chars().any(char::is_control), "{path:?}");
    }
}
