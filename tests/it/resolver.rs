//! A resolver over scripted managers, for the tests of its life and of its coalescing.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use sidekey::{
    manager::{
        FailureClass,
        fake::{Fake, FakeManagers},
    },
    metric::Metrics,
    model::{FieldSpec, LinkRules, Mapping, Snapshot, TargetField, ValueFormat, link},
    resolve::{Outcome, ResolveError, Resolved, Resolver, Settings, Suspicion},
};

/// The defaults of the agreement, without jitter so that tests can name seconds.
pub const SETTINGS: Settings = Settings {
    ttl: secs(300),
    jitter_ratio: 0.0,
    refresh_ahead_ratio: 0.8,
    stale: secs(3600),
    negative_ttl: secs(5),
    max_entries: 10_000,
    max_bytes: 64 << 20,
    suspicion: Suspicion::DEFAULT,
    deadline: secs(8),
};

/// Resolver, what it reads from, and the snapshot whose references it reads.
pub struct Rig {
    pub fake: Fake,
    pub metrics: Arc<Metrics>,
    pub resolver: Arc<Resolver>,
    pub snapshot: Snapshot,
}

/// What a request got: the value and how it was found, or the class of the error.
#[derive(Debug, PartialEq)]
pub enum Got {
    Value(String, Outcome),
    Error(FailureClass),
}

impl Rig {
    /// One fake for `references`, each `(slug, path)`.
    pub fn new(settings: Settings, references: &[(&str, &str)]) -> Self {
        let references = references.iter().map(|(slug, path)| reference(slug, path, json!({})));
        Self::over(settings, snapshot(references), &Fake::new(), |managers| managers)
    }

    /// `fake` for the references of `snapshot`, and what `managers` adds.
    pub fn over(
        settings: Settings,
        snapshot: Snapshot,
        fake: &Fake,
        managers: impl FnOnce(FakeManagers) -> FakeManagers,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let managers = Arc::new(managers(FakeManagers::new(fake)));
        let resolver = Arc::new(Resolver::new(settings, managers, Arc::clone(&metrics)));
        Self { fake: fake.clone(), metrics, resolver, snapshot }
    }

    /// A mapping of the whole secret to the key of an entity.
    pub fn mapping(&self, slug: &str) -> Arc<Mapping> {
        mapping(&self.snapshot, slug, None, ValueFormat::String)
    }

    /// A mapping of one member of the secret.
    pub fn member(&self, slug: &str, key: &str) -> Arc<Mapping> {
        mapping(&self.snapshot, slug, Some(key), ValueFormat::String)
    }

    /// One request for the whole secret.
    pub async fn get(&self, slug: &str) -> Got {
        got(self.resolver.resolve(&[self.mapping(slug)]).await)
    }

    /// One request for one member of the secret.
    pub async fn get_member(&self, slug: &str, key: &str) -> Got {
        got(self.resolver.resolve(&[self.member(slug, key)]).await)
    }

    /// One request, in full.
    pub async fn resolve(&self, slug: &str) -> Result<Resolved, ResolveError> {
        self.resolver.resolve(&[self.mapping(slug)]).await.map(|mut resolved| resolved.remove(0))
    }
}

/// A linked snapshot of `references`.
pub fn snapshot(references: impl IntoIterator<Item = Value>) -> Snapshot {
    let document =
        json!({"schema_version": 1, "version": 1, "secret_references": references.into_iter().collect::<Value>()});
    let rules = LinkRules { strict: true, admit: &|_, _, _| Ok(()), opener: None };
    link(document.to_string().as_bytes(), &rules).expect("the test's snapshot is sound")
}

/// A reference to a token login at a Vault, with the keys of `more` added or in place of the usual ones.
pub fn reference(slug: &str, path: &str, more: Value) -> Value {
    let mut reference = json!({
        "id": slug, "slug": slug, "manager_type": "hashicorp_vault", "secret_path": path, "status": "active",
        "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.test", "vault_token": "t-1"},
        "allow_all_workspaces": true,
    });
    let (Value::Object(usual), Value::Object(more)) = (&mut reference, more) else { unreachable!("both are objects") };
    usual.extend(more);
    reference
}

/// The `auth_config` of another identity at the same Vault.
pub fn token(token: &str) -> Value {
    json!({"auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.test", "vault_token": token}})
}

pub fn mapping(snapshot: &Snapshot, slug: &str, key: Option<&str>, format: ValueFormat) -> Arc<Mapping> {
    let reference = snapshot.references.iter().find(|reference| &*reference.slug == slug).expect("a known slug");
    let secret_key = key.map(Arc::from).or_else(|| reference.secret_key.clone());
    let target = TargetField { spec: FieldSpec::key() };
    Arc::new(Mapping { target, reference: Arc::clone(reference), secret_key, format })
}

pub fn got(resolved: Result<Vec<Resolved>, ResolveError>) -> Got {
    match resolved {
        Ok(resolved) => Got::Value(resolved[0].credential.expose().to_owned(), resolved[0].outcome),
        Err(error) => Got::Error(error.class),
    }
}

pub fn hit(value: &str) -> Got {
    Got::Value(value.to_owned(), Outcome::Hit)
}

pub fn miss(value: &str) -> Got {
    Got::Value(value.to_owned(), Outcome::Miss)
}

pub fn stale(value: &str) -> Got {
    Got::Value(value.to_owned(), Outcome::Stale)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Lets time pass on the paused clock; every task that is due runs.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Lets every task run that can without time passing (but for a millisecond).
pub async fn settle() {
    pass(Duration::from_millis(1)).await;
}
