//! `azure_kv` against the contract, and what stands on its wire.
//!
//! Real: the official crates, TLS, and names inside Azure's own domains. Ours: the cloud behind them ([`cloud`] says more).
//! The machine's identity is in `src/manager/azure_kv/identity/tests.rs` on a paused clock, and in `tests/real/azure.rs`.

mod admission;
mod cloud;
mod log;
mod login;
mod server;
mod trust;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
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
    model::{AuthConfig, AzureAuth, AzureMethod, ManagerType, SecretLocation, VersionSelector},
};
use url::Url;

use super::{Arranged, BOUNDS, CANARY, Case, Subject, at, keeps_the_contract, reference, settings};
use cloud::{CLIENT, CLIENT_SECRET, FORBIDDEN, Reply, TENANT, now};
use server::{Loopback, Server};

/// The vault that most tests ask.
const VAULT: &str = "kv1.vault.azure.net";

fn loopback() -> Policy {
    let allow_cidrs = vec!["127.0.0.0/8".parse().unwrap()];
    Policy::new(egress::Settings { allow_cidrs, ..egress::Settings::default() })
}

fn entra(url: &str) -> AzureAuth {
    entra_with(url, CLIENT_SECRET)
}

fn entra_with(url: &str, client_secret: &str) -> AzureAuth {
    let method = AzureMethod::Entra {
        tenant_id: TENANT.into(),
        client_id: CLIENT.into(),
        client_secret: client_secret.to_owned().into(),
    };
    AzureAuth { vault_url: Url::parse(url).unwrap(), method }
}

fn registry_with(server: &Server, change: impl FnOnce(&mut RegistrySettings)) -> (Registry, Arc<Metrics>) {
    let mut settings = settings(loopback());
    settings.azure.ca_file = Some(server.ca_file());
    settings.azure.authority_host = Some(Url::parse(&server.url("login.microsoftonline.com")).unwrap());
    change(&mut settings);
    let metrics = Arc::new(Metrics::new());
    (Registry::with_lookup(settings, Arc::clone(&metrics), Arc::new(Loopback)).unwrap(), metrics)
}

fn manager(server: &Server) -> Arc<dyn SecretManager> {
    manager_with(server, entra(&server.url(VAULT)), |_| {})
}

fn manager_with(
    server: &Server,
    auth: AzureAuth,
    change: impl FnOnce(&mut RegistrySettings),
) -> Arc<dyn SecretManager> {
    let (registry, _) = registry_with(server, change);
    registry.manager(&reference("azure", ManagerType::AzureKv, AuthConfig::Azure(auth), at("app"))).unwrap()
}

fn pinned(path: &str, version: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Pinned(version.into()) }
}

fn previous(path: &str) -> SecretLocation {
    SecretLocation { path: path.into(), version: VersionSelector::Previous }
}

async fn text(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> Result<String, FetchError> {
    match manager.fetch(location, None).await? {
        Fetched::Document { value, map: false, .. } => Ok(value.expose_str().unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

/// Class and code of a fetch that must fail.
async fn failure(manager: &Arc<dyn SecretManager>, location: &SecretLocation) -> (FailureClass, String) {
    let error = text(manager, location).await.expect_err("it must fail");
    (error.class, error.code.unwrap_or_default().to_string())
}

struct Azure;

#[async_trait]
impl Subject for Azure {
    async fn arrange(&self, case: Case) -> Result<Arranged, &'static str> {
        let server = Server::start().await;
        let mut document = CANARY.to_owned();
        let mut version = None;
        let leak = |version: String| -> &'static str { version.leak() };
        let mut url = server.url(VAULT);
        let location = match case {
            Case::Found | Case::ExpiredLogin => {
                version = Some(leak(server.cloud.put("app", &document)));
                at("app")
            }
            Case::MissingKey => {
                document = json!({"other": CANARY}).to_string();
                server.cloud.put("app", &document);
                at(&format!("{url}/secrets/app"))
            }
            Case::Gone => at("absent"),
            Case::Denied => at(FORBIDDEN),
            Case::Throttled => {
                let told = json!({"error": {"code": "Throttled", "message": CANARY}});
                server.cloud.script("/secrets/app/", [Reply::json(429, &told).header("retry-after", "30")]);
                at("app")
            }
            Case::Down => {
                let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
                url = format!("https://{VAULT}:{}", listener.local_addr().unwrap().port());
                at("app")
            }
            Case::Slow => {
                server.cloud.script("/secrets/app/", [Reply::never()]);
                at("app")
            }
            Case::Malformed => {
                server.cloud.script("/secrets/app/", [Reply::text(200, &format!("<html>{CANARY}</html>"))]);
                at("app")
            }
            Case::PinnedVersion => {
                let first = leak(server.cloud.put("app", &document));
                server.cloud.put("app", "newer");
                version = Some(first);
                pinned("app", first)
            }
            Case::AbsentVersion => {
                server.cloud.put("app", &document);
                pinned("app", &"f".repeat(32))
            }
            Case::WrongVersion => pinned("app", "first"),
        };
        let manager = manager_with(&server, entra(&url), |_| {});
        if case == Case::ExpiredLogin {
            text(&manager, &location).await.unwrap();
            server.cloud.revoke_all();
        }
        Ok(Arranged { manager, location, document, version, _world: Box::new(server) })
    }
}

#[tokio::test]
async fn azure_kv_keeps_the_contract() {
    keeps_the_contract(&Azure, &[]).await;
}

#[tokio::test]
async fn a_codes_class_is_the_codes_and_not_the_statuses() {
    use FailureClass::*;
    #[rustfmt::skip]
    let rows = [
        // answer, class, code, requests; a denial is asked again with a new token
        (Reply::vault(403, "Forbidden", Some("SecretDisabled")), Disabled, "SecretDisabled", 1),
        (Reply::vault(403, "Forbidden", Some("ForbiddenByRbac")), Denied, "ForbiddenByRbac", 2),
        (Reply::vault(403, "Forbidden", Some("ForbiddenByPolicy")), Denied, "ForbiddenByPolicy", 2),
        (Reply::vault(403, "Forbidden", Some("ForbiddenByFirewall")), Denied, "ForbiddenByFirewall", 2),
        (Reply::vault(403, "Forbidden", Some("words with canary")), Denied, "403", 2),
        (Reply::vault(403, "Forbidden", None), Denied, "Forbidden", 2),
        (Reply::text(403, "<html>a proxy's canary</html>"), Malformed, "not_key_vault", 1),
        (Reply::vault(404, "SecretNotFound", None), Gone, "SecretNotFound", 1),
        (Reply::text(404, "default backend - 404"), Malformed, "not_key_vault", 1),
        (Reply::vault(404, "BadPath", None), Misconfigured, "BadPath", 1),
        (Reply::vault(400, "BadParameter", None), Misconfigured, "BadParameter", 1),
        (Reply::vault(409, "Conflict", Some("ObjectIsDeletedButRecoverable")), Gone, "ObjectIsDeletedButRecoverable", 1),
        (Reply::vault(429, "Throttled", None), Throttled, "429", 3),
        (Reply::text(408, ""), Timeout, "408", 3),
        (Reply::text(500, "canary"), Unavailable, "500", 3),
        (Reply::vault(503, "ServiceUnavailable", None), Unavailable, "503", 3),
        (Reply::text(302, "").header("location", "https://kv2.vault.azure.net/secrets/app/"), Unavailable, "302", 3),
        (Reply::text(204, ""), Malformed, "204", 1),
        (Reply::json(200, &json!({"id": "x", "attributes": {}})), Malformed, "no_value", 1),
        (Reply::json(200, &json!({"value": 1})), Malformed, "no_value", 1),
        (Reply::json(200, &json!({"value": null})), Malformed, "no_value", 1),
        (Reply::text(200, "[]"), Malformed, "not_key_vault", 1),
        (Reply::text(200, &"x".repeat(300_000)), Malformed, "too_large", 1),
    ];
    for (reply, class, code, requests) in rows {
        let server = Server::start().await;
        server.cloud.put("warm", "x");
        let manager = manager(&server);
        text(&manager, &at("warm")).await.unwrap();
        server.cloud.script("/secrets/app/", [reply.clone()]);
        assert_eq!(failure(&manager, &at("app")).await, (class, code.to_owned()), "{reply:?}");
        assert_eq!(server.cloud.asked("/secrets/app/"), requests, "{reply:?}");
    }
}

#[tokio::test]
async fn a_secret_that_may_not_be_used_is_refused_although_it_is_answered() {
    let server = Server::start().await;
    let manager = manager(&server);
    #[rustfmt::skip]
    let rows = [
        // attributes, code of the refusal
        (json!({"exp": now() - 1}), Err("expired")),
        (json!({"nbf": now() + 600}), Err("not_yet_valid")),
        (json!({"enabled": false}), Err("SecretDisabled")),
        (json!({"nbf": now() + 600, "exp": now() - 600}), Err("expired")),
        (json!({"nbf": now() - 600}), Ok(())),
        (json!({"nbf": now() - 600, "exp": now() + 600}), Ok(())),
    ];
    for (number, (attributes, expected)) in rows.into_iter().enumerate() {
        let name = format!("secret-{number}");
        server.cloud.put_with(&name, CANARY, attributes.clone());
        match (manager.fetch(&at(&name), None).await, expected) {
            (Ok(Fetched::Document { not_after, .. }), Ok(())) => {
                let end = attributes["exp"].as_u64().map(|end| SystemTime::UNIX_EPOCH + Duration::from_secs(end));
                assert_eq!(not_after, end, "{attributes}");
            }
            (Err(error), Err(code)) => {
                assert_eq!((error.class, error.code.as_deref()), (FailureClass::Disabled, Some(code)), "{attributes}");
            }
            (outcome, expected) => panic!("{attributes}: {outcome:?} is not {expected:?}"),
        }
    }
    // A vault that says so itself although it answers.
    let told = json!({"value": CANARY, "attributes": {"enabled": false}});
    server.cloud.script("/secrets/told/", [Reply::json(200, &told)]);
    assert_eq!(failure(&manager, &at("told")).await, (FailureClass::Disabled, "disabled".to_owned()));
}

#[tokio::test]
async fn values_arrive_as_stored() {
    let server = Server::start().await;
    let manager = manager(&server);
    for value in
        ["sk-1", "", "line\nbreak\t\"quoted\" \\ / ", "schlüssel 🔑", r#"{"n":123456789012345678901234567890}"#]
    {
        server.cloud.put("app", value);
        assert_eq!(text(&manager, &at("app")).await.unwrap(), value);
    }
}

#[tokio::test]
async fn the_previous_version_is_the_newest_usable_one_before_the_current() {
    let server = Server::start().await;
    let manager = manager(&server);
    server.cloud.put("once", "only");
    assert_eq!(failure(&manager, &previous("once")).await, (FailureClass::Gone, "no_previous".to_owned()));
    assert_eq!(failure(&manager, &previous("absent")).await, (FailureClass::Gone, "no_previous".to_owned()));
    for (value, attributes) in [
        ("oldest", json!({})),
        ("older", json!({})),
        ("disabled", json!({"enabled": false})),
        ("expired", json!({"exp": now() - 1})),
        ("current", json!({})),
    ] {
        server.cloud.put_with("app", value, attributes);
    }
    assert_eq!(text(&manager, &previous("app")).await.unwrap(), "older");
    assert_eq!(server.cloud.asked("/versions"), 6, "the challenge, one page, one page, three pages");
    // Reading and listing are two permissions.
    let denied = (FailureClass::Denied, "ForbiddenByRbac".to_owned());
    assert_eq!(failure(&manager, &previous(FORBIDDEN)).await, denied);
    // A link that leads to another host is not followed, or the token would be.
    let link = json!({"value": [], "nextLink": "https://login.microsoftonline.com/secrets/app/versions?skip=2"});
    server.cloud.script("/secrets/app/versions", [Reply::json(200, &link)]);
    assert_eq!(failure(&manager, &previous("app")).await, (FailureClass::Malformed, "foreign_link".to_owned()));
}
