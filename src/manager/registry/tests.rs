//! One object for each identity, as long as somebody asks for it.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::{
    egress::{self, Policy},
    manager::{
        Budgets, Settings,
        fake::{Answer, Fake},
    },
    model::{Lifespan, VersionSelector, Workspaces},
};

fn registry(root: &TempDir) -> Registry {
    let second = Duration::from_secs(1);
    let bounds = Settings {
        attempt_timeout: second,
        fetch_deadline: second,
        login_deadline: second,
        max_in_flight: 1,
        budgets: Budgets::USUAL,
    };
    let settings = RegistrySettings {
        bounds,
        aws: AwsSettings::default(),
        azure: AzureSettings::default(),
        gcp: GcpSettings::default(),
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
        auth: AuthConfig::File.into(),
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
async fn fetches_of_one_identity_take_turns_within_their_deadline() {
    let root = tempfile::tempdir().unwrap();
    let bounds = Settings { max_in_flight: 2, ..registry(&root).settings.bounds };
    let metrics = Arc::new(Metrics::new());
    let fake = Fake::new();
    let guarded =
        Guarded::new(Arc::new(fake.clone()), ManagerType::File, &bounds, &Arc::default(), Arc::clone(&metrics));
    let location = reference(1).location;
    // Two at a time, 400 ms each, one second in all: the third pair is too late.
    fake.script("key", [Answer::text("sk-1").after(Duration::from_millis(400))]);
    let started = Instant::now();
    let outcomes = futures_util::future::join_all((0..6).map(|_| guarded.fetch(&location, None))).await;
    let classes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.map(drop).map_err(|error| error.class)).collect();
    let late = Err(FailureClass::Timeout);
    assert_eq!(classes, [Ok(()), Ok(()), Ok(()), Ok(()), late, late]);
    assert_eq!((fake.peak("key"), started.elapsed()), (2, bounds.fetch_deadline));
    let text = metrics.encode();
    for line in [
        r#"sidekey_fetches_total{manager="file",class="ok"} 4"#,
        r#"sidekey_fetches_total{manager="file",class="timeout"} 2"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
}
