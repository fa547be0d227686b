//! `hashicorp_vault` against OpenBao: what the scripted server of `tests/it/contract` claims, asked of the real one.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::json;
use sidekey::{
    egress::{self, Policy},
    manager::{
        Budgets, FailureClass, FetchError, Fetched, Managers as _, SecretManager, Settings,
        registry::{
            Ambient, AwsSettings, AzureSettings, FileSettings, GcpSettings, Registry, RegistrySettings, VaultSettings,
        },
    },
    metric::Metrics,
    model::{
        AuthConfig, Identity, Lifespan, ManagerType, Reference, SecretLocation, VaultAuth, VaultMethod,
        VersionSelector, Workspaces,
    },
};
use tokio::time::{Instant, sleep};
use url::Url;

use crate::{
    authority::Authority,
    components::{KubeApiserver, OpenBao, free_address, kube::AUDIENCE},
    harness,
};

const BOUNDS: Settings = Settings {
    attempt_timeout: Duration::from_secs(2),
    fetch_deadline: Duration::from_secs(5),
    login_deadline: Duration::from_secs(20),
    max_in_flight: 8,
    budgets: Budgets::USUAL,
};

/// How long to wait for something that time brings, seconds.
const PATIENCE_SECS: u64 = 30;

fn token(addr: &str, token: &str) -> VaultAuth {
    with(addr, VaultMethod::Token { token: token.to_owned().into() })
}

fn approle(bao: &OpenBao, secret_id: &str) -> VaultAuth {
    let (role_id, secret_id) = (bao.role_id.as_str().into(), secret_id.to_owned().into());
    with(&bao.url(), VaultMethod::AppRole { role_id, secret_id, mount: None })
}

fn with(addr: &str, method: VaultMethod) -> VaultAuth {
    VaultAuth { addr: Url::parse(addr).unwrap(), namespace: None, method, kv_version: None }
}

fn manager(auth: VaultAuth) -> Arc<dyn SecretManager> {
    manager_trusting(auth, None, Path::new("/nowhere"))
}

fn manager_trusting(auth: VaultAuth, ca_file: Option<&Path>, jwt_file: &Path) -> Arc<dyn SecretManager> {
    let allow_cidrs = vec!["127.0.0.0/8".parse().unwrap()];
    let mut settings = settings(Policy::new(egress::Settings { allow_cidrs, ..egress::Settings::default() }));
    settings.vault.ca_file = ca_file.map(Path::to_owned);
    settings.vault.kubernetes_jwt_file = jwt_file.to_owned();
    let reference = reference(ManagerType::HashicorpVault, AuthConfig::Vault(auth), at("secret/data/app"));
    Registry::new(settings, Arc::new(Metrics::new())).unwrap().manager(&reference).unwrap()
}

/// Settings with which nothing but `policy` is opened and no file is read.
pub fn settings(policy: Policy) -> RegistrySettings {
    RegistrySettings {
        bounds: BOUNDS,
        aws: AwsSettings::default(),
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
        policy,
        extra_ca_files: Vec::new(),
    }
}

/// A reference as linking would make it.
pub fn reference(manager_type: ManagerType, auth: AuthConfig, location: SecretLocation) -> Reference {
    Reference {
        id: "r".into(),
        slug: "r".into(),
        manager_type,
        auth: auth.into(),
        identity: Identity([0; 32]),
        location,
        secret_key: None,
        ttl: None,
        lifespan: Lifespan { active: true, expires_at: None },
        workspaces: Workspaces::All,
        allowed_providers: Box::new([]),
        allowed_hosts: Box::new([]),
    }
}

fn at(path: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Current }
}

fn version(path: &str, number: u64) -> SecretLocation {
    SecretLocation { version: VersionSelector::Pinned(number.to_string().into()), ..at(path) }
}

async fn read(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> Result<String, FetchError> {
    match manager.fetch(location, None).await? {
        Fetched::Document { value, map: true, .. } => Ok(value.expose_str().unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

/// The class and code of a fetch that must fail.
async fn failure(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> (FailureClass, String) {
    match read(manager, location).await {
        Ok(_) => panic!("{location:?} was read"),
        Err(error) => (error.class, error.code.unwrap_or_default().to_string()),
    }
}

/// Asks until `probe` says yes: what time brings is waited for and not slept through.
async fn eventually(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECS);
    while !probe().await {
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE_SECS} s");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Every form a person may type, on mounts of both versions, with a token that may read and one that may do anything.
pub async fn reads_every_path_form() {
    let bao = OpenBao::start().await;
    bao.write("sys/mounts/kv/team", json!({"type": "kv", "options": {"version": "2"}})).await;
    bao.write("sys/policies/acl/team", json!({"policy": r#"path "kv/team/data/a" { capabilities = ["read"] }"#})).await;
    bao.put("foo/bar", json!({"at": "secret"})).await;
    bao.put("data", json!({"at": "data"})).await;
    bao.put("a%20b/c%23d%3Fe/100%25/%C3%A9", json!({"at": "odd"})).await;
    bao.write("kv/team/data/a", json!({"data": {"at": "team"}})).await;
    bao.write("kv1/foo/bar", json!({"at": "kv1", "n": 7})).await;
    bao.write("kv1/data/foo", json!({"at": "kv1 data"})).await;
    let narrow = bao.new_token(json!({"policies": ["sidekey", "team"], "ttl": "1h"})).await;
    let no_default = bao.new_token(json!({"policies": ["sidekey", "team"], "no_default_policy": true})).await;
    for held in [&bao.root_token, &narrow, &no_default] {
        let manager = manager(token(&bao.url(), held));
        for (typed, expected) in [
            ("secret/data/foo/bar", r#"{"at":"secret"}"#),
            ("secret/foo/bar", r#"{"at":"secret"}"#),
            ("/v1/secret/data/foo/bar", r#"{"at":"secret"}"#),
            ("/secret/foo/bar/", r#"{"at":"secret"}"#),
            ("secret/data/data", r#"{"at":"data"}"#),
            ("secret/a b/c#d?e/100%/é", r#"{"at":"odd"}"#),
            ("kv/team/a", r#"{"at":"team"}"#),
            ("kv/team/data/a", r#"{"at":"team"}"#),
            ("kv1/foo/bar", r#"{"at":"kv1","n":7}"#),
            ("kv1/data/foo", r#"{"at":"kv1 data"}"#),
        ] {
            assert_eq!(read(&manager, &at(typed)).await.unwrap(), expected, "{typed}");
        }
        let absent = failure(&manager, &at("secret/absent")).await;
        assert_eq!(absent, (FailureClass::Gone, "404".to_owned()));
    }
    let (root, reader) = (manager(token(&bao.url(), &bao.root_token)), manager(token(&bao.url(), &narrow)));
    for path in ["nowhere/foo", "nowhere/data/foo"] {
        assert_eq!(failure(&root, &at(path)).await.0, FailureClass::Gone, "{path}");
        assert_eq!(failure(&reader, &at(path)).await.0, FailureClass::Denied, "{path}");
    }
    for path in ["auth/token/lookup-self", "sys/mounts", "cubbyhole/x", "identity/entity/id", "secret/../sys/mounts"] {
        assert_eq!(failure(&root, &at(path)).await, (FailureClass::Misconfigured, "path".to_owned()), "{path}");
    }
    // The engine says a number of KV v1 as it was written; so do we.
    bao.write("kv1/big", serde_json::from_str(r#"{"n": 18446744073709551615}"#).unwrap()).await;
    assert_eq!(read(&root, &at("kv1/big")).await.unwrap(), r#"{"n":18446744073709551615}"#);
    // Replaced under our eyes: what was read as version 1 is a mount of version 2 now.
    bao.call(http::Method::DELETE, "sys/mounts/kv1", &json!({})).await.expect(204);
    bao.write("sys/mounts/kv1", json!({"type": "kv", "options": {"version": "2"}})).await;
    bao.write("kv1/data/foo/bar", json!({"data": {"at": "new"}})).await;
    assert_eq!(read(&root, &at("kv1/foo/bar")).await.unwrap(), r#"{"at":"new"}"#);
}

/// Pinned, previous, deleted, undeleted, destroyed, and one that will delete itself.
pub async fn reads_versions_as_asked() {
    let bao = OpenBao::start().await;
    for number in 1..=4 {
        bao.put("app", json!({"n": number})).await;
    }
    let manager = manager(token(&bao.url(), &bao.token));
    let previous = SecretLocation { version: VersionSelector::Previous, ..at("secret/app") };
    assert_eq!(read(&manager, &at("secret/app")).await.unwrap(), r#"{"n":4}"#);
    assert_eq!(read(&manager, &previous).await.unwrap(), r#"{"n":3}"#);
    assert_eq!(read(&manager, &version("secret/data/app", 1)).await.unwrap(), r#"{"n":1}"#);
    let Fetched::Document { version: found, .. } = manager.fetch(&version("secret/app", 2), None).await.unwrap() else {
        panic!("no document")
    };
    assert_eq!(&*found.unwrap().0, "2");

    bao.write("secret/delete/app", json!({"versions": [3]})).await;
    bao.write("secret/destroy/app", json!({"versions": [1]})).await;
    assert_eq!(failure(&manager, &previous).await, (FailureClass::Gone, "deleted".to_owned()));
    assert_eq!(failure(&manager, &version("secret/app", 3)).await, (FailureClass::Gone, "deleted".to_owned()));
    assert_eq!(failure(&manager, &version("secret/app", 1)).await, (FailureClass::Gone, "destroyed".to_owned()));
    assert_eq!(failure(&manager, &version("secret/app", 9)).await, (FailureClass::Gone, "404".to_owned()));
    bao.write("secret/undelete/app", json!({"versions": [3]})).await;
    assert_eq!(read(&manager, &previous).await.unwrap(), r#"{"n":3}"#);
    bao.call(http::Method::DELETE, "secret/data/app", &json!({})).await.expect(204);
    assert_eq!(failure(&manager, &at("secret/app")).await, (FailureClass::Gone, "deleted".to_owned()));
    bao.call(http::Method::DELETE, "secret/metadata/app", &json!({})).await.expect(204);
    assert_eq!(failure(&manager, &at("secret/app")).await, (FailureClass::Gone, "404".to_owned()));

    bao.write("secret/metadata/brief", json!({"delete_version_after": "1h"})).await;
    bao.put("brief", json!({"n": 1})).await;
    let Fetched::Document { not_after, .. } = manager.fetch(&at("secret/brief"), None).await.unwrap() else {
        panic!("no document")
    };
    let left = not_after.expect("it deletes itself").duration_since(std::time::SystemTime::now()).unwrap();
    assert!((3500..=3600).contains(&left.as_secs()), "{left:?}");

    bao.write("kv1/app", json!({"n": 1})).await;
    assert_eq!(
        failure(&manager, &version("kv1/app", 1)).await,
        (FailureClass::Misconfigured, "kv1_version".to_owned())
    );
}

/// 403 is said to a token without the right, to an expired one, to a revoked one, and means each time something else.
pub async fn tells_denials_from_dead_tokens() {
    let bao = OpenBao::start().await;
    bao.put("forbidden", json!({"k": "v"})).await;
    bao.put("app", json!({"k": "v"})).await;
    let bare = bao.new_token(json!({"policies": ["sidekey"], "no_default_policy": true})).await;
    for held in [&bao.token, &bare] {
        let denied = failure(&manager(token(&bao.url(), held)), &at("secret/forbidden")).await;
        assert_eq!(denied, (FailureClass::Denied, "403".to_owned()));
    }
    let dead = (FailureClass::Unauthenticated, "token_dead".to_owned());
    assert_eq!(failure(&manager(token(&bao.url(), "s.never-issued")), &at("secret/app")).await, dead);

    let brief = bao.new_token(json!({"policies": ["sidekey"], "ttl": "2s", "renewable": false})).await;
    let holder = manager(token(&bao.url(), &brief));
    read(&holder, &at("secret/app")).await.unwrap();
    eventually("the end of the token", async || read(&holder, &at("secret/app")).await.is_err()).await;
    assert_eq!(failure(&holder, &at("secret/app")).await, dead);

    let revoked = bao.new_token(json!({"policies": ["sidekey"], "ttl": "1h"})).await;
    let holder = manager(token(&bao.url(), &revoked));
    read(&holder, &at("secret/app")).await.unwrap();
    bao.write("auth/token/revoke", json!({"token": revoked})).await;
    assert_eq!(failure(&holder, &at("secret/app")).await, dead);
}

/// A fixed token with a lease is renewed at two thirds, unasked, for as long as its manager object lives.
pub async fn keeps_a_fixed_token_alive() {
    let bao = OpenBao::start().await;
    bao.put("app", json!({"k": "v"})).await;
    let periodic = bao.new_token(json!({"policies": ["sidekey"], "period": "3s"})).await;
    let holder = manager(token(&bao.url(), &periodic));
    read(&holder, &at("secret/app")).await.unwrap();
    let renewals = || bao.audited().iter().filter(|entry| entry["path"] == "auth/token/renew-self").count();
    // Three renewals at two seconds each: twice the life of the token.
    eventually("three renewals", async || renewals() >= 3).await;
    read(&holder, &at("secret/app")).await.unwrap();
    drop(holder);
    let after = renewals();
    eventually("the end of the token", async || {
        let late = read(&manager(token(&bao.url(), &periodic)), &at("secret/app")).await;
        late.is_err_and(|error| error.class == FailureClass::Unauthenticated)
    })
    .await;
    assert!(renewals() <= after + 1, "a dropped manager renews nothing");
}

/// AppRole: one login for many reads, renewed, replaced at its maximum, and replaced at once when it was revoked.
pub async fn logs_in_with_approle_and_stays_in() {
    let bao = OpenBao::start().await;
    bao.put("app", json!({"k": "v"})).await;
    let role = json!({"token_policies": "sidekey", "token_ttl": "3s", "token_max_ttl": "5s"});
    bao.write("auth/approle/role/sidekey", role).await;
    let holder = manager(approle(&bao, &bao.secret_id));
    assert!(holder.identity().starts_with("approle sidekey-role on approle at http://127.0.0.1:"));
    let reads = (0..50).map(|_| async { read(&holder, &at("secret/app")).await.unwrap() });
    futures_util::future::join_all(reads).await;
    assert_eq!(bao.logins(), 1);
    // Over two maximal lives no read fails.
    let renewals = || bao.audited().iter().filter(|entry| entry["path"] == "auth/token/renew-self").count();
    eventually("renewal and a third login", async || {
        read(&holder, &at("secret/app")).await.unwrap();
        renewals() > 0 && bao.logins() >= 3
    })
    .await;

    drop(holder);
    let role = json!({"token_policies": "sidekey", "token_ttl": "1h", "token_max_ttl": "1h"});
    bao.write("auth/approle/role/sidekey", role).await;
    let holder = manager(approle(&bao, &bao.secret_id));
    read(&holder, &at("secret/app")).await.unwrap();
    let logins = || bao.audited().iter().filter(|entry| entry["path"] == "auth/approle/login").count();
    let before = logins();
    bao.write("sys/leases/revoke-prefix/auth/approle/login", json!({})).await;
    let reads = (0..20).map(|_| async { read(&holder, &at("secret/app")).await.unwrap() });
    futures_util::future::join_all(reads).await;
    assert_eq!(logins(), before + 1, "everyone who met the revoked token waits for one login");
}

/// A wrong secret id is tried once: Vault and OpenBao lock the role out for everyone after five.
pub async fn stops_asking_when_refused() {
    let bao = OpenBao::start().await;
    bao.put("app", json!({"k": "v"})).await;
    let holder = manager(approle(&bao, "wrong"));
    for _ in 0..10 {
        let error = read(&holder, &at("secret/app")).await.unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (FailureClass::Unauthenticated, Some("400")));
        assert!(error.retry_after.unwrap() > Duration::from_secs(30));
    }
    assert_eq!(bao.logins(), 1);
    read(&manager(approle(&bao, &bao.secret_id)), &at("secret/app")).await.unwrap();
    // A method that is not mounted there.
    let (role_id, secret_id) = ("r".into(), "s".to_owned().into());
    let absent = with(&bao.url(), VaultMethod::AppRole { role_id, secret_id, mount: Some("elsewhere".into()) });
    assert_eq!(failure(&manager(absent), &at("secret/app")).await.0, FailureClass::Unauthenticated);
}

/// The same path in two namespaces is two secrets.
pub async fn stays_in_its_namespace() {
    let bao = OpenBao::start().await;
    bao.put("app", json!({"in": "root"})).await;
    bao.write("sys/namespaces/team1", json!({})).await;
    bao.write("team1/sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})).await;
    bao.write("team1/secret/data/app", json!({"data": {"in": "team1"}})).await;
    let inside = |namespace: &str| {
        manager(VaultAuth { namespace: Some(namespace.into()), ..token(&bao.url(), &bao.root_token) })
    };
    let outside = manager(token(&bao.url(), &bao.root_token));
    assert_eq!(read(&outside, &at("secret/app")).await.unwrap(), r#"{"in":"root"}"#);
    for namespace in ["team1", "/team1/"] {
        assert_eq!(read(&inside(namespace), &at("secret/app")).await.unwrap(), r#"{"in":"team1"}"#);
    }
    for path in ["team1/secret/app", "team1/secret/data/app"] {
        assert_eq!(read(&outside, &at(path)).await.unwrap(), r#"{"in":"team1"}"#, "{path}");
    }
    assert_eq!(failure(&inside("team2"), &at("secret/app")).await.0, FailureClass::Gone);
    assert_eq!(failure(&outside, &at("team1/auth/token/lookup-self")).await.0, FailureClass::Misconfigured);
}

/// 429 from a quota, 503 from a sealed vault, silence from a paused one, nothing from a dead one.
pub async fn waits_out_quotas_seals_and_outages() {
    let mut bao = OpenBao::start().await;
    bao.put("app", json!({"k": "v"})).await;
    let holder = manager(token(&bao.url(), &bao.token));
    read(&holder, &at("secret/app")).await.unwrap();

    bao.write("sys/quotas/rate-limit/slow", json!({"path": "secret/", "rate": 1, "interval": "1h"})).await;
    let throttled =
        async || matches!(read(&holder, &at("secret/app")).await, Err(error) if error.class == FailureClass::Throttled);
    eventually("the quota's end", throttled).await;
    bao.call(http::Method::DELETE, "sys/quotas/rate-limit/slow", &json!({})).await.expect(204);
    eventually("the cool-down's end", async || read(&holder, &at("secret/app")).await.is_ok()).await;

    bao.seal().await;
    assert_eq!(failure(&holder, &at("secret/app")).await, (FailureClass::Unavailable, "503".to_owned()));
    bao.unseal().await;
    read(&holder, &at("secret/app")).await.unwrap();

    bao.process().pause();
    let before = Instant::now();
    assert_eq!(failure(&holder, &at("secret/app")).await.0, FailureClass::Timeout);
    assert!(before.elapsed() < BOUNDS.fetch_deadline + Duration::from_secs(1), "{:?}", before.elapsed());
    bao.process().signal(Signal::CONT);
    read(&holder, &at("secret/app")).await.unwrap();

    bao.process().signal(Signal::KILL);
    bao.process().ended().await;
    let before = Instant::now();
    assert_eq!(failure(&holder, &at("secret/app")).await.0, FailureClass::Unavailable);
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
}

/// TLS with an authority of one's own: named, it is trusted; unnamed, the fetch is refused well within its deadline.
pub async fn trusts_only_named_authorities() {
    let authority = Authority::new("Sidekey test vault");
    let leaf = authority.issue(&["127.0.0.1"]);
    let file = |name: &str, text: String| {
        let path = harness::folder().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (cert, key) = (file("vault.crt", leaf.certificate_pem()), file("vault.key", leaf.key_pem()));
    let (ca, other) =
        (file("ca.pem", authority.certificate_pem()), file("other.pem", Authority::new("x").certificate_pem()));
    let secure = free_address();
    let listener = format!(
        r#"listener "tcp" {{ address = "{secure}" tls_cert_file = "{}" tls_key_file = "{}" }}"#,
        cert.display(),
        key.display()
    );
    let bao = OpenBao::start_with(&listener).await;
    bao.put("app", json!({"k": "v"})).await;
    let at_secure = |ca: Option<&Path>| {
        manager_trusting(token(&format!("https://{secure}"), &bao.token), ca, Path::new("/nowhere"))
    };
    read(&at_secure(Some(&ca)), &at("secret/app")).await.unwrap();
    for untrusting in [None, Some(other.as_path())] {
        let before = Instant::now();
        let refused = failure(&at_secure(untrusting), &at("secret/app")).await;
        assert_eq!(refused, (FailureClass::Unavailable, "tls".to_owned()));
        assert!(before.elapsed() < BOUNDS.fetch_deadline, "{:?}", before.elapsed());
    }
}

/// The pod's own token, through a real TokenReview; the kubelet may replace the file at any time.
pub async fn logs_in_as_a_service_account() {
    let (bao, cluster) = tokio::join!(OpenBao::start(), KubeApiserver::start());
    bao.put("app", json!({"k": "v"})).await;
    cluster.admit(&bao, "gw", "gw").await;
    let good = cluster.service_account("gw", AUDIENCE).await;
    let stranger = cluster.service_account("stranger", AUDIENCE).await;
    let elsewhere = cluster.service_account("elsewhere", "somewhere-else").await;
    let method = || VaultMethod::Kubernetes { role: "gw".into(), mount: None, jwt_file: None };
    let holder = |jwt_file: &Path| manager_trusting(with(&bao.url(), method()), None, jwt_file);

    let file = harness::folder().join("projected");
    fs::write(&file, format!("{}\n", good.token)).unwrap();
    let gateway = holder(&file);
    read(&gateway, &at("secret/app")).await.unwrap();
    for account in [&stranger, &elsewhere] {
        let refused = failure(&holder(&account.token_file), &at("secret/app")).await;
        assert_eq!(refused.0, FailureClass::Unauthenticated);
    }
    // The login ends; the next one reads the file again, which by then holds another token.
    fs::write(&file, format!("  {}\n\n", good.token)).unwrap();
    bao.write("sys/leases/revoke-prefix/auth/kubernetes/login", json!({})).await;
    read(&gateway, &at("secret/app")).await.unwrap();
    fs::write(&file, &stranger.token).unwrap();
    bao.write("sys/leases/revoke-prefix/auth/kubernetes/login", json!({})).await;
    assert_eq!(failure(&gateway, &at("secret/app")).await.0, FailureClass::Unauthenticated);
}
