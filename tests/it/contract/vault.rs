//! `hashicorp_vault` against the contract, and what stands on its wire, with a scripted server that speaks Vault's format.

mod server;

use std::{
    fs, io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use sidekey::{
    egress::{self, Policy},
    manager::{
        FailureClass, FetchError, Fetched, Managers as _, SecretManager, Settings,
        registry::{Ambient, Registry, RegistrySettings},
    },
    metric::Metrics,
    model::{AuthConfig, ManagerType, SecretLocation, VaultAuth, VaultMethod, VersionSelector},
};
use url::Url;

use super::{Arranged, BOUNDS, CANARY, Case, Subject, at, keeps_the_contract, reference, settings};
use server::{Reply, Server};

/// How a reference logs in at the scripted server.
#[derive(Clone, Copy, Debug)]
enum Method {
    Token,
    AppRole,
    Kubernetes,
}

fn loopback() -> Policy {
    let allow_cidrs = vec!["127.0.0.0/8".parse().unwrap()];
    Policy::new(egress::Settings { allow_cidrs, ..egress::Settings::default() })
}

fn auth(url: &str, method: Method) -> VaultAuth {
    let method = match method {
        Method::Token => VaultMethod::Token { token: server::STATIC_TOKEN.to_owned().into() },
        Method::AppRole => VaultMethod::AppRole {
            role_id: "gw".into(),
            secret_id: format!("{}\n", server::SECRET_ID).into(),
            mount: None,
        },
        Method::Kubernetes => VaultMethod::Kubernetes { role: "gw".into(), mount: None, jwt_file: None },
    };
    VaultAuth { addr: Url::parse(url).unwrap(), namespace: None, method, kv_version: None }
}

fn registry_with(change: impl FnOnce(&mut RegistrySettings)) -> (Registry, Arc<Metrics>) {
    let mut settings = settings(loopback());
    change(&mut settings);
    let metrics = Arc::new(Metrics::new());
    (Registry::new(settings, Arc::clone(&metrics)).unwrap(), metrics)
}

fn manager(auth: VaultAuth) -> Arc<dyn SecretManager> {
    manager_with(auth, |_| {})
}

fn manager_with(auth: VaultAuth, change: impl FnOnce(&mut RegistrySettings)) -> Arc<dyn SecretManager> {
    let (registry, _) = registry_with(change);
    let reference = reference("vault", ManagerType::HashicorpVault, AuthConfig::Vault(auth), at("secret/data/found"));
    registry.manager(&reference).unwrap()
}

fn pinned(path: &str, version: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Pinned(version.into()) }
}

async fn text(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> Result<String, FetchError> {
    match manager.fetch(location, None).await? {
        Fetched::Document { value, map: true, .. } => Ok(value.expose_str().unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

struct Vault(Method);

#[async_trait]
impl Subject for Vault {
    async fn arrange(&self, case: Case) -> Result<Arranged, &'static str> {
        let server = Server::start().await;
        let map = |key: &str| json!({ (key): CANARY }).to_string();
        let mut url = server.url();
        let mut version = None;
        let mut document = map("api_key");
        let location = match case {
            Case::Found | Case::ExpiredLogin => {
                server.put("found", &document);
                version = Some("1");
                at("secret/data/found")
            }
            Case::MissingKey => {
                document = map("other");
                server.put("found", &document);
                at("secret/found")
            }
            Case::Gone => at("secret/data/absent"),
            Case::Denied => {
                server.put("denied", &document);
                server.answer("/v1/secret/data/denied", Reply::denied_by_policy());
                at("secret/data/denied")
            }
            Case::Throttled => {
                let body = json!({"errors": [format!("rate limit quota exceeded {CANARY}")]});
                server.answer("/v1/secret/data/found", Reply::json(429, &body).header("retry-after", "30"));
                at("secret/data/found")
            }
            Case::Down => {
                url = Server::nobody();
                at("secret/data/found")
            }
            Case::Slow => {
                server.answer("/v1/secret/data/found", Reply::never());
                at("secret/data/found")
            }
            Case::Malformed => {
                server.answer("/v1/secret/data/found", Reply::text(200, &format!("<html>{CANARY}</html>")));
                at("secret/data/found")
            }
            Case::PinnedVersion => {
                server.put("found", &document);
                server.put("found", &map("newer"));
                version = Some("1");
                pinned("secret/data/found", "1")
            }
            Case::AbsentVersion => {
                server.put("found", &document);
                pinned("secret/data/found", "7")
            }
            Case::WrongVersion => pinned("secret/data/found", "first"),
        };
        let jwt = server.folder().join("jwt");
        fs::write(&jwt, format!("{}\n", server::JWT)).unwrap();
        let manager = manager_with(auth(&url, self.0), |settings| settings.vault.kubernetes_jwt_file = jwt);
        if case == Case::ExpiredLogin {
            if let Method::Token = self.0 {
                return Err("a fixed token cannot be replaced");
            }
            text(&manager, &location).await.unwrap();
            server.revoke_all();
        }
        Ok(Arranged { manager, location, document, version, _world: Box::new(server) })
    }
}

#[tokio::test]
async fn vault_by_token_keeps_the_contract() {
    keeps_the_contract(&Vault(Method::Token), &[Case::ExpiredLogin]).await;
}

#[tokio::test]
async fn vault_by_approle_keeps_the_contract() {
    keeps_the_contract(&Vault(Method::AppRole), &[]).await;
}

#[tokio::test]
async fn vault_by_kubernetes_keeps_the_contract() {
    keeps_the_contract(&Vault(Method::Kubernetes), &[]).await;
}

#[tokio::test]
async fn every_path_form_reads_its_secret() {
    #[rustfmt::skip]
    let rows = [
        // typed, secret, requests: in a mount the server describes, then where it does not
        ("secret/data/foo/bar", "secret/foo/bar", &["secret/data/foo/bar"][..], &["secret/data/foo/bar"][..]),
        ("secret/foo/bar", "secret/foo/bar", &["secret/data/foo/bar"], &["secret/data/foo/bar"]),
        ("/v1/secret/data/foo", "secret/foo", &["secret/data/foo"], &["secret/data/foo"]),
        ("/secret/foo/", "secret/foo", &["secret/data/foo"], &["secret/data/foo"]),
        ("kv1/foo/bar", "kv1/foo/bar", &["kv1/foo/bar"], &["kv1/data/foo/bar", "kv1/foo/bar"]),
        ("kv1/data/foo", "kv1/data/foo", &["kv1/data/foo"], &["kv1/data/foo"]),
        ("kv/team/a", "kv/team/a", &["kv/team/data/a"], &["kv/data/team/a", "kv/team/a", "kv/team/data/a"]),
        ("kv/team/data/a", "kv/team/a", &["kv/team/data/a"], &["kv/data/team/data/a", "kv/team/data/a"]),
        ("secret/a b/c#d?e/100%/é", "secret/a b/c#d?e/100%/é", &["secret/data/a%20b/c%23d%3Fe/100%25/%C3%A9"], &["secret/data/a%20b/c%23d%3Fe/100%25/%C3%A9"]),
        ("secret/%2e%2e/x", "secret/%2e%2e/x", &["secret/data/%252e%252e/x"], &["secret/data/%252e%252e/x"]),
    ];
    for described in [true, false] {
        for (typed, secret, known, unknown) in rows {
            let server = Server::start().await;
            server.mount("kv/team/", json!({"type": "kv", "options": {"version": "2"}}));
            server.write(secret, r#"{"k":"v"}"#);
            let manager = manager(auth(&server.url(), Method::Token));
            if !described {
                let tidy = typed.trim_start_matches("/v1/").trim_matches('/');
                let url = Url::parse(&server.url()).unwrap();
                let mut hidden = url.join("/v1/sys/internal/ui/mounts").unwrap();
                hidden.path_segments_mut().unwrap().extend(tidy.split('/'));
                server.answer(hidden.path(), Reply::denied_by_policy());
            }
            assert_eq!(text(&manager, &at(typed)).await.unwrap(), r#"{"k":"v"}"#, "{typed}");
            let asked: Vec<_> = server
                .targets("")
                .into_iter()
                .filter(|target| !target.contains("sys/") && !target.contains("auth/"))
                .collect();
            assert_eq!(asked, if described { known } else { unknown }, "{typed} described: {described}");
        }
    }
}

#[tokio::test]
async fn the_servers_own_paths_are_not_secrets() {
    let server = Server::start().await;
    server.mount("db/", json!({"type": "database", "options": null}));
    server.mount("team1/auth/token/", json!({"type": "ns_token", "options": null}));
    let jwt = server.folder().join("jwt");
    fs::write(&jwt, server::JWT).unwrap();
    let manager = manager_with(auth(&server.url(), Method::Kubernetes), |s| s.vault.kubernetes_jwt_file = jwt);
    server.answer("/v1/hidden/auth/token/lookup-self", Reply::data(json!({"id": "s.canary"})));
    #[rustfmt::skip]
    let rows = [
        ("auth/token/lookup-self", "path"), ("/v1/auth/token/lookup-self", "path"), ("sys/internal/ui/mounts/x", "path"),
        ("identity/entity/id/x", "path"), ("cubbyhole/x", "path"), ("secret/../auth/token/lookup-self", "path"),
        ("db/creds/role", "not_kv"), ("team1/auth/token/lookup-self", "not_kv"),
        ("hidden/auth/token/lookup-self", "mount_unknown"),
    ];
    for (path, code) in rows {
        let error = text(&manager, &at(path)).await.expect_err(path);
        assert_eq!((error.class, error.code.as_deref()), (FailureClass::Misconfigured, Some(code)), "{path}");
    }
    assert!(server.targets("lookup-self").iter().all(|target| target.starts_with("sys/")), "{:?}", server.targets(""));
}

#[tokio::test]
async fn versions_are_read_as_asked() {
    use FailureClass::{Gone, Misconfigured};
    let server = Server::start().await;
    for map in [r#"{"n":1}"#, "deleted", "destroyed", r#"{"n":4}"#] {
        server.put("app", map);
    }
    server.put("young", r#"{"n":1}"#);
    server.put("dying", r#"{"n":1}"#);
    server.put("dying", "deleted");
    server.write("kv1/app", r#"{"n":"one"}"#);
    let manager = manager(auth(&server.url(), Method::Token));
    let previous = |path| SecretLocation { version: VersionSelector::Previous, ..at(path) };
    let stage = |path| SecretLocation { version: VersionSelector::Stage("AWSPENDING".into()), ..at(path) };
    #[rustfmt::skip]
    let rows = [
        (at("secret/app"), Ok(r#"{"n":4}"#)),
        (pinned("secret/app", "1"), Ok(r#"{"n":1}"#)),
        (pinned("secret/data/app", "4"), Ok(r#"{"n":4}"#)),
        (pinned("secret/app", "2"), Err((Gone, "deleted"))),
        (pinned("secret/app", "3"), Err((Gone, "destroyed"))),
        (pinned("secret/app", "5"), Err((Gone, "404"))),
        (pinned("secret/app", "0"), Err((Misconfigured, "version"))),
        (pinned("secret/app", "-1"), Err((Misconfigured, "version"))),
        (pinned("secret/app", "latest"), Err((Misconfigured, "version"))),
        (previous("secret/app"), Err((Gone, "destroyed"))),
        (previous("secret/young"), Err((Gone, "no_previous"))),
        (at("secret/dying"), Err((Gone, "deleted"))),
        (stage("secret/app"), Err((Misconfigured, "version"))),
        (at("kv1/app"), Ok(r#"{"n":"one"}"#)),
        (pinned("kv1/app", "1"), Err((Misconfigured, "kv1_version"))),
        (previous("kv1/app"), Err((Misconfigured, "kv1_version"))),
    ];
    for (location, expected) in rows {
        let outcome = text(&manager, &location).await;
        let outcome = outcome.as_deref().map_err(|error| (error.class, error.code.as_deref().unwrap()));
        assert_eq!(outcome, expected, "{location:?}");
    }
    server.put("app", r#"{"n":5}"#);
    assert_eq!(text(&manager, &previous("secret/app")).await.unwrap(), r#"{"n":4}"#);
}

#[tokio::test]
async fn a_mount_is_asked_for_once_and_again_when_nothing_is_there() {
    let server = Server::start().await;
    server.write("kv1/app", r#"{"v":1}"#);
    let manager = manager(auth(&server.url(), Method::Token));
    for _ in 0..3 {
        text(&manager, &at("kv1/app")).await.unwrap();
    }
    assert_eq!(server.targets("mounts").len(), 1);
    // The mount is upgraded in place: the old form finds nothing, the new one does.
    server.mount("kv1/", json!({"type": "kv", "options": {"version": "2"}}));
    assert_eq!(text(&manager, &at("kv1/app")).await.unwrap(), r#"{"v":1}"#);
    assert_eq!(server.targets("mounts").len(), 2);
    assert_eq!(text(&manager, &at("kv1/absent")).await.unwrap_err().class, FailureClass::Gone);
}

#[tokio::test]
async fn a_denial_is_looked_into_before_it_counts() {
    use FailureClass::{Denied, Unauthenticated, Unavailable};
    const READ: &str = "/v1/secret/data/app";
    const SELF: &str = "/v1/auth/token/lookup-self";
    let dead = [Reply::unknown_token()];
    let denied = [Reply::denied_by_policy()];
    let sealed = [Reply::json(503, &json!({"errors": ["Vault is sealed"]}))];
    #[rustfmt::skip]
    let rows = [
        // method, answers to the read, answers to lookup-self, class and code, logins
        (Method::Token, &denied, None, (Denied, "403"), 0),
        (Method::Token, &dead, Some(&dead), (Unauthenticated, "token_dead"), 0),
        (Method::Token, &denied, Some(&denied), (Denied, "403"), 0), // no default policy: still alive
        (Method::Token, &denied, Some(&sealed), (Unavailable, "503"), 0),
        (Method::AppRole, &denied, None, (Denied, "403"), 1), // a token this young is not the reason
        (Method::AppRole, &dead, Some(&dead), (Denied, "403"), 2), // one new login, then it stands
    ];
    for (method, read, own, expected, logins) in rows {
        let server = Server::start().await;
        server.put("app", "{}");
        server.script(READ, read.clone());
        if let Some(own) = own {
            server.script(SELF, own.clone());
        }
        let error = text(&manager(auth(&server.url(), method)), &at("secret/app")).await.unwrap_err();
        assert_eq!((error.class, error.code.as_deref().unwrap()), expected, "{method:?} {read:?} {own:?}");
        assert_eq!(server.targets("/login").len(), logins, "{method:?} {read:?} {own:?}");
    }
}

#[tokio::test]
async fn what_may_pass_is_retried_and_what_stays_is_not() {
    use FailureClass::{Gone, Malformed, Misconfigured, Throttled, Unavailable};
    let empty = || Reply::text(200, "");
    let status = |status| Reply::json(status, &json!({"errors": []}));
    let good = || {
        Reply::data(json!({"data": {"k": "v"}, "metadata": {"version": 1, "deletion_time": "", "destroyed": false}}))
    };
    #[rustfmt::skip]
    let rows = [
        // answers, outcome, reads
        (vec![status(412), status(412), good()], Ok(()), 3),
        (vec![status(503), good()], Ok(()), 2),
        (vec![status(429), good()], Ok(()), 2),
        (vec![status(429).header("retry-after", "0"), good()], Ok(()), 2),
        (vec![status(429).header("retry-after", "20")], Err((Throttled, Some(20))), 1),
        (vec![status(503)], Err((Unavailable, None)), 3),
        (vec![status(500)], Err((Unavailable, None)), 3),
        (vec![status(472)], Err((Unavailable, None)), 3),
        (vec![status(473)], Err((Unavailable, None)), 3),
        (vec![status(404)], Err((Gone, None)), 1),
        (vec![status(400)], Err((Misconfigured, None)), 1),
        (vec![empty()], Err((Malformed, None)), 1),
        (vec![status(307).header("location", "http://127.0.0.1:1/v1/secret/data/app")], Err((Unavailable, None)), 3),
    ];
    for (answers, expected, reads) in rows {
        let server = Server::start().await;
        let manager = manager(auth(&server.url(), Method::Token));
        server.put("app", "{}");
        text(&manager, &at("secret/app")).await.unwrap();
        let before = server.targets("secret/data/app").len();
        server.script("/v1/secret/data/app", answers.clone());
        let outcome = text(&manager, &at("secret/app")).await.map(drop);
        let outcome = outcome.map_err(|error| (error.class, error.retry_after.map(|wait| wait.as_secs())));
        assert_eq!(outcome, expected, "{answers:?}");
        let asked = server.targets("secret/data/app").len() - before;
        // A 404 in a remembered mount asks for the mount again, not for the secret.
        assert_eq!(asked, reads, "{answers:?}");
    }
}

#[tokio::test]
async fn an_answer_has_a_size() {
    let server = Server::start().await;
    let manager = manager(auth(&server.url(), Method::Token));
    let padding = |size| format!(r#"{{"k":"{}"}}"#, "x".repeat(size));
    server.put("fits", &padding(1024 * 1024 - 1000));
    server.put("large", &padding(1024 * 1024));
    text(&manager, &at("secret/fits")).await.unwrap();
    let error = text(&manager, &at("secret/large")).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (FailureClass::Malformed, Some("too_large")));
}

#[tokio::test]
async fn namespace_address_and_mounts_reach_the_wire() {
    let server = Server::start().await;
    server.put("app", "{}");
    let jwt = server.folder().join("jwt");
    fs::write(&jwt, server::JWT).unwrap();
    let mut auth = auth(&format!("{}/", server.url()), Method::Kubernetes);
    auth.namespace = Some("team1/".into());
    auth.method = VaultMethod::Kubernetes {
        role: "gw".into(),
        mount: Some("/auth/k8s/prod/".into()),
        jwt_file: Some(jwt.to_str().unwrap().into()),
    };
    let manager = manager(auth);
    text(&manager, &at("secret/app")).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].target, "/v1/auth/k8s/prod/login");
    assert_eq!((seen[0].method.as_str(), seen[0].token.as_deref()), ("POST", None));
    assert!(seen.iter().all(|seen| seen.namespace.as_deref() == Some("team1")), "{seen:?}");
    assert!(seen[1..].iter().all(|seen| seen.token.as_deref() == Some("s.canary-1")), "{seen:?}");
    let place = server.url();
    assert_eq!(*manager.identity(), *format!("kubernetes role gw on k8s/prod at {place} namespace team1"));
}

#[tokio::test]
async fn an_address_may_have_a_path() {
    let server = Server::start().await;
    server.answer(
        "/edge/vault/v1/sys/internal/ui/mounts/secret/app",
        Reply::data(json!({"path": "secret/", "type": "kv", "options": {"version": "1"}})),
    );
    server.answer("/edge/vault/v1/secret/app", Reply::data(json!({"k": "v"})));
    let manager = manager(auth(&format!("{}/edge/vault/", server.url()), Method::Token));
    assert_eq!(text(&manager, &at("secret/app")).await.unwrap(), r#"{"k":"v"}"#);
}

#[tokio::test]
async fn a_slow_login_goes_on_when_the_fetch_has_left() {
    let server = Server::start().await;
    server.put("app", "{}");
    server.answer("/v1/auth/approle/login", Reply::never());
    let bounds =
        Settings { fetch_deadline: Duration::from_millis(300), login_deadline: Duration::from_millis(900), ..BOUNDS };
    let manager = manager_with(auth(&server.url(), Method::AppRole), |settings| settings.bounds = bounds);
    for _ in 0..2 {
        let error = text(&manager, &at("secret/app")).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Timeout);
    }
    assert_eq!(server.targets("/login").len(), 1, "the second fetch waits for the login of the first");
}

#[tokio::test]
async fn a_refused_login_is_not_hammered() {
    let server = Server::start().await;
    let (registry, metrics) = registry_with(|_| {});
    let mut auth = auth(&server.url(), Method::AppRole);
    auth.method = VaultMethod::AppRole { role_id: "gw".into(), secret_id: "wrong".to_owned().into(), mount: None };
    let reference = reference("vault", ManagerType::HashicorpVault, AuthConfig::Vault(auth), at("secret/app"));
    let manager = registry.manager(&reference).unwrap();
    for _ in 0..20 {
        let error = text(&manager, &at("secret/app")).await.unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (FailureClass::Unauthenticated, Some("400")));
        assert!(error.retry_after.unwrap() > Duration::from_secs(50));
    }
    assert_eq!(server.targets("/login").len(), 1);
    let text = metrics.encode();
    for line in [
        r#"sidekey_logins_total{manager="hashicorp_vault",class="unauthenticated"} 1"#,
        r#"sidekey_fetches_total{manager="hashicorp_vault",class="unauthenticated"} 20"#,
        r#"sidekey_fetch_seconds_count{manager="hashicorp_vault"} 20"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn what_a_reference_may_be_is_told_at_load() {
    let admit = |auth: VaultAuth, location: &SecretLocation, change: &dyn Fn(&mut RegistrySettings)| {
        let (registry, _) = registry_with(change);
        registry.admit(ManagerType::HashicorpVault, &AuthConfig::Vault(auth), location)
    };
    let nothing = |_: &mut RegistrySettings| {};
    let off = |settings: &mut RegistrySettings| settings.vault.ambient.allowed = false;
    let below = |settings: &mut RegistrySettings| {
        settings.vault.ambient = Ambient { allowed: true, paths: vec!["secret/team".to_owned()] }
    };
    let listed = |settings: &mut RegistrySettings| {
        settings.vault.kubernetes_allow_addrs = vec!["https://vault.example.com:8200/".to_owned()];
    };
    let closed = |settings: &mut RegistrySettings| settings.policy = Policy::new(egress::Settings::default());
    let good = "https://vault.example.com:8200";
    let version = |number| SecretLocation { version: VersionSelector::Pinned(number), ..at("secret/app") };
    type Row<'a> = (&'a str, Method, SecretLocation, &'a dyn Fn(&mut RegistrySettings), Option<&'a str>);
    #[rustfmt::skip]
    let rows: [Row<'_>; 17] = [
        (good, Method::Token, at("secret/app"), &nothing, None),
        (good, Method::AppRole, at("/v1/secret/data/app"), &off, None),
        (good, Method::Token, version("3".into()), &nothing, None),
        (good, Method::Token, version("x".into()), &nothing, Some("?version=3")),
        (good, Method::Token, at("secret"), &nothing, Some("mount")),
        (good, Method::Token, at("secret/../x"), &nothing, Some("..")),
        (good, Method::Token, at("auth/token/lookup-self"), &nothing, Some("auth")),
        ("http://127.0.0.1:8200", Method::Token, at("secret/app"), &nothing, None),
        ("http://127.0.0.1:8200", Method::Token, at("secret/app"), &closed, Some("egress.allow_cidrs")),
        ("https://169.254.169.254", Method::Token, at("secret/app"), &nothing, Some("closed")),
        ("https://vault.example.com/?x", Method::Token, at("secret/app"), &nothing, Some("query")),
        (good, Method::Kubernetes, at("secret/app"), &nothing, None), // an opened network: the address decides
        (good, Method::Kubernetes, at("secret/app"), &off, Some("managers.vault.ambient")),
        (good, Method::Kubernetes, at("secret/teams/app"), &below, Some("managers.vault.ambient_paths")),
        (good, Method::Kubernetes, at("secret/app"), &closed, Some("service-account token")),
        (good, Method::Kubernetes, at("secret/app"), &listed, None),
        ("https://vault.example.com:8201", Method::Kubernetes, at("secret/app"), &listed, Some("kubernetes_allow_addrs")),
    ];
    for (addr, method, location, change, named) in rows {
        let admitted = admit(auth(addr, method), &location, change);
        match named {
            None => assert_eq!(admitted, Ok(()), "{addr} {method:?} {location:?}"),
            Some(named) => {
                let reason = admitted.expect_err(addr);
                assert!(reason.contains(named), "{reason} does not name {named}");
            }
        }
    }
    let with = |change: &dyn Fn(&mut VaultAuth)| {
        let mut auth = auth(good, Method::Token);
        change(&mut auth);
        admit(auth, &version("3".into()), &nothing)
    };
    assert!(with(&|auth| auth.kv_version = Some(1)).unwrap_err().contains("version"));
    assert!(with(&|auth| auth.kv_version = Some(3)).unwrap_err().contains("1 or 2"));
    assert!(with(&|auth| auth.namespace = Some("a\nb".into())).unwrap_err().contains("vault_namespace"));
    let reason = with(&|auth| auth.method = VaultMethod::Token { token: "sk-ca\nnary".to_owned().into() }).unwrap_err();
    assert!(reason.contains("vault_token") && !reason.contains("nary"), "{reason}");
}

#[tokio::test]
async fn the_service_account_token_stays_home() {
    let server = Server::start().await;
    server.put("app", "{}");
    let jwt = server.folder().join("jwt");
    fs::write(&jwt, server::JWT).unwrap();
    let manager =
        |url: &str| manager_with(auth(url, Method::Kubernetes), |s| s.vault.kubernetes_jwt_file = jwt.clone());
    text(&manager(&server.url()), &at("secret/app")).await.unwrap();
    // A file that holds something else than a JWT goes nowhere.
    fs::write(&jwt, format!("password={CANARY}")).unwrap();
    let before = server.seen().len();
    let error = text(&manager(&server.url()), &at("secret/app")).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (FailureClass::Unauthenticated, Some("not_a_jwt")));
    assert_eq!(server.seen().len(), before);
}

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_secret_is_logged_at_trace() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    // With one subscriber alone, tracing asks the thread that meets a log line first whether anybody wants it, and remembers
    // the answer for all threads. Other tests have threads without a subscriber; a second one makes it ask the subscribers.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    for method in [Method::Token, Method::AppRole, Method::Kubernetes] {
        let server = Server::start().await;
        let jwt = server.folder().join("jwt");
        fs::write(&jwt, server::JWT).unwrap();
        server.put("app", &json!({"key": CANARY}).to_string());
        let manager = manager_with(auth(&server.url(), method), |settings| settings.vault.kubernetes_jwt_file = jwt);
        text(&manager, &at("secret/app")).await.unwrap();
        // Every way a failure could carry the answer's words or the proof along.
        let told = json!({"errors": [CANARY], "data": {"data": {"key": CANARY}}});
        for status in [200, 204, 302, 400, 403, 404, 412, 429, 500, 503] {
            server.answer("/v1/secret/data/app", Reply::json(status, &told));
            let error = text(&manager, &at("secret/app")).await.unwrap_err();
            tracing::warn!(error = &error as &dyn std::error::Error, ?error, "fetch failed");
        }
        server.revoke_all();
        server.answer("/v1/auth/approle/login", Reply::json(400, &told));
        server.answer("/v1/auth/kubernetes/login", Reply::json(403, &told));
        server.answer("/v1/secret/data/app", Reply::unknown_token());
        let error = text(&manager, &at("secret/app")).await.unwrap_err();
        tracing::warn!(error = &error as &dyn std::error::Error, ?error, ?manager, "login failed");
    }
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for witness in ["rustify", "login at a secret manager failed", "fetch failed"] {
        assert!(logged.contains(witness), "{witness} was not captured");
    }
    for secret in ["canary", server::JWT, server::SECRET_ID, server::STATIC_TOKEN] {
        assert!(!logged.contains(secret), "{secret} in {}", logged.lines().find(|line| line.contains(secret)).unwrap());
    }
}
