//! What ten thousand identities cost. A test has a process of its own here, so that memory can be measured.

use std::{fs, sync::Arc, time::Duration};

use sidekey::{
    egress::{self, Policy},
    manager::{
        Budgets, Managers as _, Settings,
        registry::{
            Ambient, AwsSettings, AzureSettings, Environment, FileSettings, GcpSettings, Registry, RegistrySettings,
            VaultSettings,
        },
    },
    metric::Metrics,
    model::{
        AuthConfig, AwsAuth, AwsMethod, Identity, Lifespan, ManagerType, Reference, SecretLocation, VersionSelector,
        Workspaces,
    },
};

/// As many as the registry keeps.
const IDENTITIES: usize = 10_000;

/// What one may cost, keys, session and bookkeeping included. An SDK client for each would be many times that.
const MAX_BYTES: usize = 6 * 1024;

/// Ten thousand AWS identities cost a few KiB each, and as many again cost nothing more.
pub async fn are_bounded_in_memory() {
    let registry = registry();
    use_identities(&registry, 0..100);
    let before = resident();
    use_identities(&registry, 100..100 + IDENTITIES);
    let full = resident();
    let each = full.saturating_sub(before) / IDENTITIES;
    use_identities(&registry, 100 + IDENTITIES..100 + 2 * IDENTITIES);
    let grown = resident().saturating_sub(full) / IDENTITIES;
    println!("an identity costs {each} bytes; one beyond the bound {grown}");
    assert!((1..=MAX_BYTES).contains(&each), "an identity costs {each} bytes");
    // What replaces an object takes its room, but for the allocator's crumbs.
    assert!(grown * 4 <= each, "an identity beyond the bound costs {grown} bytes");
}

/// Half of them keys, half of them roles.
fn use_identities(registry: &Registry, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let method = match number % 2 {
            0 => AwsMethod::AccessKey {
                access_key_id: format!("AKIA{number:016}").into(),
                secret_access_key: format!("{number:040}").into(),
            },
            _ => AwsMethod::AssumedRole {
                role_arn: format!("arn:aws:iam::123456789012:role/tenant-{number}").into(),
                external_id: Some(format!("tenant-{number}").into()),
            },
        };
        let mut identity = [0; 32];
        identity[..8].copy_from_slice(&number.to_be_bytes());
        let reference = Reference {
            id: "r".into(),
            slug: "r".into(),
            manager_type: ManagerType::AwsSm,
            auth: AuthConfig::Aws(AwsAuth { region: Some("us-east-1".into()), method }).into(),
            identity: Identity(identity),
            location: SecretLocation { path: "app/key".into(), version: VersionSelector::Current },
            secret_key: None,
            ttl: None,
            lifespan: Lifespan { active: true, expires_at: None },
            workspaces: Workspaces::All,
            allowed_providers: Box::new([]),
            allowed_hosts: Box::new([]),
        };
        registry.manager(&reference).unwrap();
    }
}

fn registry() -> Registry {
    let second = Duration::from_secs(1);
    let bounds = Settings {
        attempt_timeout: second,
        fetch_deadline: second,
        login_deadline: second,
        max_in_flight: 32,
        budgets: Budgets::USUAL,
    };
    let settings = RegistrySettings {
        bounds,
        aws: AwsSettings {
            environment: Environment::of(&[("AWS_ACCESS_KEY_ID", "AKIABASE"), ("AWS_SECRET_ACCESS_KEY", "base")]),
            ..AwsSettings::default()
        },
        azure: AzureSettings::default(),
        gcp: GcpSettings::default(),
        vault: VaultSettings {
            ca_file: None,
            kubernetes_jwt_file: "/nowhere".into(),
            approle_mount: "approle".to_owned(),
            kubernetes_mount: "kubernetes".to_owned(),
            kubernetes_allow_addrs: Vec::new(),
            ambient: Ambient::default(),
        },
        file: FileSettings::default(),
        policy: Policy::new(egress::Settings::default()),
        extra_ca_files: Vec::new(),
    };
    Registry::new(settings, Arc::new(Metrics::new())).unwrap()
}

/// Memory of this process, bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
