//! Canaries in this process: what `{:?}` shows of everything that holds a credential, and what a panic says.

use std::sync::Arc;

use http::Request;
use serde_json::json;
use sidekey::{
    dialect::portkey::{BodyPeek, Portkey, Settings},
    manager::fake::{Answer, Fake, FakeManagers},
    metric::Metrics,
    model::{Caller, LinkRules, link},
    resolve::Resolver,
};
use time::OffsetDateTime;

use crate::{
    harness::{Setup, World},
    resolver::SETTINGS,
};

const CANARIES: [&str; 4] = ["canary-token-1d", "canary-stored-2e", "canary-fetched-3f", "canary-config-4a"];

/// A snapshot with a token, a stored key and a stored config's key, and two virtual keys that use them.
fn snapshot() -> serde_json::Value {
    let [token, stored, _, config] = CANARIES;
    json!({
        "schema_version": 1, "version": 1, "organisation_id": "o",
        "secret_references": [{"id": "r", "slug": "r", "manager_type": "hashicorp_vault", "secret_path": "secret/data/a",
            "secret_key": "key", "status": "active",
            "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.example:8200", "vault_token": token}}],
        "virtual_keys": [
            {"id": "a", "slug": "mapped", "provider": "openai", "status": "active",
             "secret_mappings": [{"target_field": "key", "secret_reference_id": "r"}]},
            {"id": "b", "slug": "stored", "provider": "openai", "status": "active", "key": stored},
        ],
        "configs": [{"id": "c", "slug": "pc-c", "config": {"strategy": {"mode": "fallback"}, "targets": [
            {"provider": "@mapped"}, {"provider": "@stored"}, {"provider": "openai", "api_key": config}]}}],
    })
}

#[track_caller]
fn assert_silent(what: &str, shown: &str) {
    for canary in CANARIES {
        assert!(!shown.contains(canary), "{what} shows {canary}: {shown}");
    }
}

/// Snapshot, plan, credentials, injected request: printed for debugging, none shows a value.
#[tokio::test]
async fn debug_shows_no_credential() {
    let snapshot = link(snapshot().to_string().as_bytes(), &LinkRules::STRICT).unwrap();
    assert_silent("the snapshot", &format!("{snapshot:?} {snapshot:#?}"));
    let fake = Fake::new();
    fake.script("secret/data/a", [Answer::map(&json!({"key": CANARIES[2]}).to_string())]);
    let resolver = Resolver::new(SETTINGS, Arc::new(FakeManagers::new(&fake)), Arc::new(Metrics::new()));
    let dialect = Portkey::new(Settings::default());
    for (name, value) in [
        ("x-portkey-provider", "@mapped"),
        ("x-portkey-provider", "@stored"),
        ("x-portkey-config", r#"{"provider":"@mapped"}"#),
        ("x-portkey-config", "pc-c"),
    ] {
        let (mut head, ()) = Request::post("/v1/chat/completions").header(name, value).body(()).unwrap().into_parts();
        let plan = dialect
            .plan(&head, &BodyPeek::default(), &snapshot, &Caller::default(), OffsetDateTime::now_utc())
            .unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_silent("a plan", &format!("{plan:?}"));
        let resolved = resolver.resolve(&plan.mappings).await.unwrap();
        assert_silent("what was resolved", &format!("{resolved:?} {resolver:?} {fake:?}"));
        let credentials: Vec<_> = resolved.into_iter().map(|resolved| resolved.credential).collect();
        let injected = dialect.apply(&plan, &credentials, &mut head).unwrap();
        assert!(!injected.credentials.is_empty(), "{value}: nothing was injected");
        assert_silent("an injected request", &format!("{injected:?} {head:?}"));
    }
}

/// A manager that panics with a value in its hands: the request fails closed and the value is in no log.
#[tokio::test]
async fn a_panic_says_nothing() {
    let world = World::start(Setup { snapshot: Some(snapshot()), ..Setup::default() }).await;
    world.secrets.script("secret/data/a", [Answer::panic()]);
    let reply =
        world.post("/v1/chat/completions").header("x-portkey-provider", "@mapped").json(&json!({})).send().await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_silent("the reply", &format!("{reply:?}"));
    assert_silent("the log", &world.logs.text());
}
