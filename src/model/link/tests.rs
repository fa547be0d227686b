use super::*;

fn example() -> &'static [u8] {
    br#"{ "schema_version": 1, "version": 17, "generated_at": "2026-11-21T03:00:00.000Z", "organisation_id": "o",
  "workspaces": [ {"id": "w1", "slug": "ws-team-a", "name": "Team A"} ],
  "secret_references": [ {"id": "r1", "slug": "openai-prod-key", "manager_type": "hashicorp_vault",
      "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault:8200", "vault_token": "hvs.x"},
      "secret_path": "secret/data/openai", "secret_key": "api_key", "status": "active", "ttl_secs": null,
      "allow_all_workspaces": true, "allowed_workspaces": [], "allowed_providers": [], "allowed_hosts": [] } ],
  "integrations": [ {"id": "i1", "slug": "openai-main", "ai_provider_id": "openai", "workspace_id": null, "status": "active",
      "key": null, "configurations": {}, "allow_all_workspaces": true, "allowed_workspaces": [],
      "secret_mappings": [ {"target_field": "key", "secret_reference_id": "openai-prod-key", "secret_key": null, "value_format": null} ] } ],
  "virtual_keys": [ {"id": "v1", "slug": "openai-prod", "integration_id": "openai-main", "provider": null, "workspace_id": null,
      "status": "active", "expires_at": null, "key": null, "model_config": {}, "secret_mappings": [] } ],
  "configs": [ {"id": "c1", "slug": "pc-fallback-1a2b3c", "workspace_id": null, "config": { } } ],
  "api_keys": [ {"id": "k1", "workspace_id": "w1", "scopes": [], "status": "active", "expires_at": null, "defaults": {},
      "hashes": [ {"kid": "k1", "hmac_sha256": "hex", "expires_at": null} ], "rate_limits": [], "usage_limits": null } ] }"#
}

#[test]
fn the_example_of_the_contract_links() {
    let snapshot = link(example(), &LinkRules::STRICT).unwrap();
    assert_eq!(snapshot.version, 17);
    let entity = snapshot.entity("openai-prod", &Default::default()).unwrap();
    assert_eq!(&*entity.provider, "openai");
    assert_eq!(entity.field("api_key").unwrap().spec.header, Some("authorization"));
}
