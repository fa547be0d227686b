//! One object for each identity, as long as somebody asks for it.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{
    egress,
    manager::{Fetched, Version},
    model::{Lifespan, VersionSelector, Workspaces},
};

fn registry(root: &TempDir) -> Registry {
    let second = Duration::from_secs(1);
    let bounds = Settings { attempt_timeout: second, fetch_deadline: second, login_deadline: second, max_in_flight: 1 };
    let settings = RegistrySettings {
        bounds,
        vault: VaultSettings {
            ca_file: None,
            kubernetes_jwt_file: PathBuf::new(),
            approle_mount: String::new(),
            kubernetes_mount: String::new(),
            kubernetes_allow_addrs: Vec::new(),
            ambient: Ambient::default(),
        },
        file: FileSettings { root: Some(root.path().to_owned()), ambient: Ambient::default() },
        policy: Policy::new(egress::Settings::default()),
        extra_ca_files: Vec::new(),
    };
    Registry::new(settings, Arc::new(Metrics::new())).unwrap()
}

fn reference(number: usize) -> Reference {
    let mut identity = [0; 32];
    identity[..8].copy_from_slice(&number.to_be_bytes());
    Reference {
        id: "r".into(),
        slug: "r".into(),
        manager_type: ManagerType::File,
        auth: AuthConfig::File,
        identity: Identity(identity),
        location: SecretLocation { path: "key".into(), version: VersionSelector::Current },
        secret_key: None,
        ttl: None,
        lifespan: Lifespan { active: true, expires_at: None },
        workspaces: Workspaces::All,
        allowed_providers: Box::new([]),
        allowed_hosts: Box::new([]),
    }
}

fn kept(registry: &Registry) -> usize {
    registry.objects().by_identity.len()
}

#[tokio::test(start_paused = true)]
async fn an_identity_has_one_object_while_it_is_used() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry(&root);
    let first = registry.manager(&reference(1)).unwrap();
    assert!(Arc::ptr_eq(&first, &registry.manager(&reference(1)).unwrap()));
    assert!(!Arc::ptr_eq(&first, &registry.manager(&reference(2)).unwrap()), "another identity is another object");
    // One is asked for now and then, two never again.
    for _ in 0..3 {
        tokio::time::advance(MAX_IDLE / 2).await;
        assert!(Arc::ptr_eq(&first, &registry.manager(&reference(1)).unwrap()));
    }
    assert_eq!(kept(&registry), 1);
    tokio::time::advance(MAX_IDLE).await;
    assert!(!Arc::ptr_eq(&first, &registry.manager(&reference(1)).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn objects_are_bounded_and_the_oldest_goes() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry(&root);
    let first = registry.manager(&reference(0)).unwrap();
    tokio::time::advance(Duration::from_millis(1)).await;
    let second = registry.manager(&reference(1)).unwrap();
    tokio::time::advance(Duration::from_millis(1)).await;
    for number in 2..=MAX_OBJECTS {
        registry.manager(&reference(number)).unwrap();
    }
    assert_eq!(kept(&registry), MAX_OBJECTS);
    assert!(Arc::ptr_eq(&second, &registry.manager(&reference(1)).unwrap()));
    assert!(!Arc::ptr_eq(&first, &registry.manager(&reference(0)).unwrap()));
}

#[tokio::test]
async fn a_path_that_is_not_admitted_finds_no_object() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry(&root);
    registry.manager(&reference(1)).unwrap();
    let outside = SecretLocation { path: "../key".into(), version: VersionSelector::Current };
    let error = registry.manager(&Reference { location: outside, ..reference(1) }).unwrap_err();
    assert_eq!(error.class, FailureClass::Misconfigured);
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_waited_for_no_longer_than_a_fetch_may_take() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("key"), "sk-1").unwrap();
    let fake = Arc::new(Hanging);
    let bounds = registry(&root).settings.bounds;
    let metrics = Arc::new(Metrics::new());
    let guarded = Arc::new(Guarded::new(fake, ManagerType::File, &bounds, Arc::clone(&metrics)));
    let location = reference(1).location;
    let started = Instant::now();
    let (first, second) = tokio::join!(guarded.fetch(&location, None), guarded.fetch(&location, None));
    for outcome in [first, second] {
        assert_eq!(outcome.unwrap_err().class, FailureClass::Timeout);
    }
    assert_eq!(started.elapsed(), bounds.fetch_deadline);
    assert!(metrics.encode().contains(r#"sidekey_fetches_total{manager="file",class="timeout"} 2"#));
}

/// Never answers.
#[derive(Debug)]
struct Hanging;

#[async_trait::async_trait]
impl SecretManager for Hanging {
    async fn fetch(&self, _: &SecretLocation, _: Option<&Version>) -> Result<Fetched, FetchError> {
        std::future::pending().await
    }

    fn identity(&self) -> Arc<str> {
        "hanging".into()
    }
}
