//! Clients with keys: a snapshot whose API keys a test describes, and the hashes of their secrets.

use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sidekey::clients::Auth;

use crate::harness::{Setup, World};

/// The key of the line `k1` of [`hash_file`].
const K1: &[u8] = b"0123456789abcdef0123456789abcdef";
/// That of the line `k2`.
const K2: &[u8] = b"fedcba9876543210fedcba9876543210";

/// `api_key_hash_file` of the tests.
pub fn hash_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/hash-keys")
}

/// One of `hashes[]`, under `k1`.
pub fn hash(secret: &str) -> Value {
    hash_under("k1", secret, Value::Null)
}

/// One of `hashes[]`.
pub fn hash_under(kid: &str, secret: &str, expires_at: Value) -> Value {
    let mut mac = Hmac::<Sha256>::new_from_slice(if kid == "k2" { K2 } else { K1 }).unwrap();
    mac.update(secret.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"kid": kid, "hmac_sha256": hex, "expires_at": expires_at})
}

/// An API key with the secret `pk-ID` that may send completions; `more` stands above that.
pub fn key(id: &str, more: Value) -> Value {
    let mut key = json!({
        "id": id, "workspace_id": null, "scopes": ["completions.write"], "status": "active", "expires_at": null,
        "defaults": {}, "hashes": [hash(&format!("pk-{id}"))], "rate_limits": [], "usage_limits": null,
    });
    key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    key
}

/// Two workspaces, a virtual key for each (`of-a`, `of-b`) and for both (`shared`), configs, and `api_keys`.
pub fn snapshot(api_keys: Vec<Value>) -> Value {
    let virtual_key = |slug: &str, workspace: Option<&str>| json!({"id": slug, "slug": slug, "provider": "openai", "workspace_id": workspace, "key": format!("sk-{slug}")});
    let config = |id: &str, slug: &str, workspace: Option<&str>, entity: &str| json!({"id": id, "slug": slug, "workspace_id": workspace, "config": {"provider": format!("@{entity}")}});
    json!({
        "schema_version": 1, "version": 1, "organisation_id": "org",
        "workspaces": [{"id": "a", "slug": "ws-a"}, {"id": "b", "slug": "ws-b"}],
        "virtual_keys": [virtual_key("shared", None), virtual_key("of-a", Some("a")), virtual_key("of-b", Some("b"))],
        "configs": [
            config("c1", "pc-shared", None, "shared"), config("c2", "pc-of-a", Some("a"), "of-a"),
            config("c3", "pc-of-b", Some("b"), "of-b"),
        ],
        "api_keys": api_keys,
    })
}

/// A sidecar that wants keys.
pub fn setup(api_keys: Vec<Value>) -> Setup {
    let mut setup = Setup { snapshot: Some(snapshot(api_keys)), ..Setup::default() };
    setup.clients.auth = Auth::ApiKey { hash_file: hash_file() };
    setup
}

/// As [`setup`], running.
pub async fn world(api_keys: Vec<Value>) -> World {
    World::start(setup(api_keys)).await
}
