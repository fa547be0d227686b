//! `hashicorp_vault` against the contract, and what stands on its wire, with a scripted server that speaks Vault's format.

mod admission;
mod log;
mod login;
mod path;
mod server;

use std::{fs, sync::Arc, time::Duration};

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
