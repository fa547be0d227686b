//! What a data plane makes of the rows.

use serde_json::{Value, json};

use super::*;
use crate::{
    control::{config, store::Kind},
    model::{Caller, LinkRules, Scope, Snapshot, link},
};

fn object(kind: Kind, id: &str, slug: &str, workspace: &str) -> Object {
    let mut object = Object::new(kind, id.to_owned(), slug.to_owned(), "name".to_owned());
    workspace.clone_into(&mut object.workspace_id);
    object
}

fn linked(configs: &[Value], keys: &[Value]) -> Snapshot {
    let document = json!({"schema_version": 1, "workspaces": [{"id": "w1", "slug": "ws-1"}], "configs": configs,
        "api_keys": keys});
    link(document.to_string().as_bytes(), &LinkRules::STRICT).unwrap_or_else(|error| panic!("{:#?}", error.problems))
}

fn config_row(slug: &str, workspace: &str) -> Value {
    let body = config::Body { config: r#"{"retry":{"attempts":3}}"#.to_owned(), ..config::Body::default() };
    body.snapshot_row(&object(Kind::Config, slug, slug, workspace))
}

fn hash(first: &str, expires_at: i64) -> Hash {
    Hash { kid: "k1".to_owned(), prefix: String::new(), hash: format!("{first}{}", "0".repeat(62)), expires_at }
}

#[test]
fn a_full_row_is_read_as_it_was_meant() {
    let body: Body = serde_json::from_value(json!({
        "type": "workspace-user", "scopes": ["completions.write", "configs.read"], "expires_at": "2999-01-01T00:00:00Z",
        "rate_limits": [{"type": "requests", "unit": "rpm", "value": 0}],
        "usage_limits": [{"type": "cost", "credit_limit": 10, "alert_threshold": 8, "periodic_reset": "monthly",
            "periodic_reset_days": null, "next_usage_reset_at": "2999-01-01T00:00:00Z"}],
        "defaults": {"metadata": {"team": "own", "app": 1}, "allow_config_override": false},
        "alert_emails": ["a@b.example"], "usage_reset_at": 1, "description": "d", "user_id": "u"
    }))
    .unwrap();
    let workspace = workspace::Defaults {
        metadata: Some([("team".to_owned(), "workspace".to_owned())].into()),
        user_api_key_config: Some("pc-own".to_owned()),
        ..workspace::Defaults::default()
    };
    let hashes = [hash("aa", 0), hash("bb", 1_795_230_000_000)];
    let row = body.snapshot_row(&object(Kind::ApiKey, "k", "k", "w1"), &hashes, Some(&workspace));
    let snapshot = linked(&[config_row("pc-own", "w1")], &[row]);
    let [key] = snapshot.api_keys() else { panic!("one key") };
    assert_eq!(key.workspace_id.as_deref(), Some("w1"));
    assert!(key.scopes.contains(Scope::CompletionsWrite) && key.lifespan.active && key.lifespan.expires_at.is_some());
    let account = key.account.as_ref().unwrap();
    assert_eq!((account.rate_limits.len(), account.rate_limits[0].value, account.usage_limits.len()), (1, 0, 1));
    assert_eq!(key.defaults.config.as_deref(), Some("pc-own"));
    assert!(!key.defaults.allow_config_override);
    let metadata = key.defaults.metadata.as_ref().unwrap();
    assert_eq!(
        (&metadata["team"], &metadata["app"]),
        (&json!("workspace"), &json!(1)),
        "the workspace's beats the key's"
    );
    let mut digest = [0; 32];
    for (first, end) in [(0xaa, None), (0xbb, Some(1_795_230_000))] {
        digest[0] = first;
        let found = snapshot.api_key(&digest).unwrap();
        assert_eq!(found.expires_at.map(time::OffsetDateTime::unix_timestamp), end);
    }
}

#[test]
fn an_empty_row_can_do_nothing() {
    let row = Body::default().snapshot_row(&object(Kind::ApiKey, "k", "k", ""), &[hash("aa", 0)], None);
    let snapshot = linked(&[], &[row]);
    let key = &snapshot.api_keys()[0];
    assert!(Scope::ALL.iter().all(|scope| !key.scopes.contains(*scope)));
    assert!(key.workspace_id.is_none() && key.defaults.config.is_none() && key.defaults.allow_config_override);
    assert!(key.account.is_none() && key.lifespan.expires_at.is_none());
}

#[test]
fn a_config_of_a_workspace_is_only_for_its_users_keys() {
    let workspace =
        workspace::Defaults { user_api_key_config: Some("pc-own".to_owned()), ..workspace::Defaults::default() };
    let cases = [
        (KeyType::WorkspaceUser, None, Some("pc-own")),
        (KeyType::WorkspaceUser, Some("pc-key"), Some("pc-key")),
        (KeyType::WorkspaceService, None, None),
        (KeyType::OrganisationService, Some("pc-key"), Some("pc-key")),
    ];
    for (kind, config_id, expected) in cases {
        let defaults = Defaults { config_id: config_id.map(str::to_owned), ..Defaults::default() };
        let member = defaults.snapshot_member(kind, Some(&workspace));
        assert_eq!(member["config_id"].as_str(), expected, "{kind:?} {config_id:?}");
    }
}

#[test]
fn a_config_is_found_by_its_slug() {
    let snapshot = linked(&[config_row("pc-a", ""), config_row("pc-b", "w1")], &[]);
    assert_eq!(snapshot.config("pc-a", &Caller::default()).unwrap().config, json!({"retry": {"attempts": 3}}));
    assert!(snapshot.config("pc-b", &Caller { workspace: Some("w1".into()) }).is_ok());
}
