//! A gateway in front of providers that take some keys and refuse others, in the way of the real one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

pub use sidekey::manager::fake::Answer as Secret;

use crate::harness::{Answer, Call, PATIENCE, Reply, Seen, Setup, World};

/// Names of the entities, which are also those of their references, paths and providers' key rings.
const ENTITIES: [&str; 3] = ["openai", "second", "third"];

type Rings = Arc<Mutex<HashMap<String, Vec<String>>>>;

pub struct Stage {
    pub world: World,
    rings: Rings,
    sent: Arc<Mutex<Vec<String>>>,
}

/// A secret that is this text.
pub fn secret(text: &str) -> Secret {
    Secret::text(text)
}

impl Stage {
    /// `@openai`, `@second` and `@third` with a secret each; `@stored` with a key in the snapshot.
    pub async fn start(mut setup: Setup) -> Self {
        setup.snapshot = Some(snapshot());
        let world = World::start(setup).await;
        let (rings, sent) = (Rings::default(), Arc::<Mutex<Vec<String>>>::default());
        let (keys, record) = (Arc::clone(&rings), Arc::clone(&sent));
        world.gateway.answer(move |seen| answer(seen, &keys.lock().unwrap(), &record));
        Self { world, rings, sent }
    }

    /// From now on the provider of `entity` takes these keys.
    pub fn accepts(&self, entity: &str, keys: &[&str]) {
        self.rings.lock().unwrap().insert(entity.to_owned(), keys.iter().map(|key| (*key).to_owned()).collect());
    }

    /// Every key that came to a provider, in order.
    pub fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().clone()
    }

    pub fn call(&self, headers: &[(&str, &str)]) -> Call {
        let call = self.world.post("/v1/chat/completions").json(&json!({ "model": "gpt-4o", "n": 1 }));
        headers.iter().fold(call, |call, (name, value)| call.header(name, value))
    }

    /// A request to `@openai`.
    pub async fn chat(&self) -> Reply {
        self.call(&[("x-portkey-provider", "@openai")]).send().await
    }

    /// A request with this config.
    pub async fn with_config(&self, config: &Value) -> Reply {
        self.call(&[("x-portkey-config", &config.to_string())]).send().await
    }

    /// So many of them at once.
    pub async fn many(&self, count: usize) -> Vec<Reply> {
        let mut calls = JoinSet::new();
        for _ in 0..count {
            calls.spawn(self.call(&[("x-portkey-provider", "@openai")]).send());
        }
        calls.join_all().await
    }

    /// Waits until `path` is being read.
    pub async fn reading(&self, path: &str) {
        let reading = async {
            while self.world.secrets.running(path) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("it is read");
    }

    /// What came of refusals, counted.
    pub fn recoveries(&self) -> Vec<(&'static str, u64)> {
        let text = self.world.metrics.encode();
        let outcomes = ["newer", "earlier", "refused", "unchanged", "not_replayable", "skipped", "failed"];
        let count = |outcome: &str| {
            let name = format!("sidekey_recoveries_total{{outcome=\"{outcome}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
        };
        outcomes.into_iter().filter_map(|outcome| Some((outcome, count(outcome)?))).collect()
    }
}

fn snapshot() -> Value {
    let references: Vec<_> = ENTITIES
        .iter()
        .map(|slug| {
            json!({ "id": format!("r-{slug}"), "slug": slug, "manager_type": "hashicorp_vault", "secret_path": slug,
                "auth_config": { "vault_auth_type": "token", "vault_addr": "https://vault.test", "vault_token": "t" },
                "status": "active", "allow_all_workspaces": true })
        })
        .collect();
    let integration = |slug: &str, key: Value, mappings: Value| {
        json!({ "id": format!("i-{slug}"), "slug": slug, "ai_provider_id": "openai", "status": "active", "key": key,
            "configurations": {}, "allow_all_workspaces": true, "secret_mappings": mappings })
    };
    let mut integrations: Vec<_> = ENTITIES
        .iter()
        .map(|slug| integration(slug, Value::Null, json!([{ "target_field": "key", "secret_reference_id": slug }])))
        .collect();
    integrations.push(integration("stored", "sk-stored".into(), json!([])));
    json!({ "schema_version": 1, "version": 1, "workspaces": [], "secret_references": references,
        "integrations": integrations, "virtual_keys": [], "configs": [], "api_keys": [] })
}

/// Takes the request to the providers as gateway 1.15.2 does: one target, or targets in order until one is content.
fn answer(seen: &Seen, rings: &HashMap<String, Vec<String>>, record: &Mutex<Vec<String>>) -> Answer {
    let try_key = |key: &str| {
        record.lock().unwrap().push(key.to_owned());
        let taken = rings.values().any(|ring| ring.iter().any(|other| other == key));
        let (status, body) =
            if taken { (200, json!({ "key": key })) } else { (401, json!({ "refused": &key[key.len() - 1..] })) };
        Answer::text(status, body.to_string())
    };
    let Some(config) = seen.header("x-portkey-config") else {
        let key = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("undefined");
        return try_key(key).header("x-portkey-last-used-option-index", "config");
    };
    let config: Value = serde_json::from_str(config).unwrap();
    walk(&config, "config", &try_key)
}

fn walk(target: &Value, path: &str, try_key: &impl Fn(&str) -> Answer) -> Answer {
    let Some(targets) = target["targets"].as_array() else {
        return try_key(target["api_key"].as_str().unwrap()).header("x-portkey-last-used-option-index", path);
    };
    let below = |index: usize| walk(&targets[index], &format!("{path}.targets[{index}]"), try_key);
    match target["strategy"]["mode"].as_str() {
        Some("fallback") => {
            let mut answer = below(0);
            for index in 1..targets.len() {
                if answer.status < 400 {
                    break;
                }
                answer = below(index);
            }
            answer
        }
        // A balancer that always picks the last.
        _ => below(targets.len() - 1),
    }
}
