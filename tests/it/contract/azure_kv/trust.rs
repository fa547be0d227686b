//! To whom a token goes: the vault's own cloud, over TLS that is trusted, and nobody else.

use super::*;

/// Whether any request carried a token.
fn tokens(server: &Server) -> usize {
    server.cloud.seen().iter().filter(|asked| asked.headers.contains_key("authorization")).count()
}

#[tokio::test]
async fn a_foreign_challenge_gets_no_token() {
    const FOREIGN: (FailureClass, &str) = (FailureClass::Misconfigured, "foreign_challenge");
    const NONE: (FailureClass, &str) = (FailureClass::Malformed, "no_challenge");
    #[rustfmt::skip]
    let rows = [
        (r#"Bearer authorization="https://login.microsoftonline.com/t", resource="https://management.azure.com""#, FOREIGN),
        (r#"Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.cn""#, FOREIGN),
        (r#"Bearer authorization="https://login.microsoftonline.com/t", resource="https://azure.net""#, FOREIGN), // passes the library's own rule
        (r#"Bearer authorization="https://login.microsoftonline.com/t", scope="https://graph.microsoft.com/.default""#, FOREIGN),
        (r#"Bearer resource="https://vault.azure.net", scope="https://evil.example/.default""#, FOREIGN),
        (r#"Bearer resource="https://evil.example", resource="https://vault.azure.net""#, FOREIGN),
        (r#"Bearer realm="vault.azure.net""#, NONE),
        ("Basic", NONE),
    ];
    for (challenge, expected) in rows {
        let server = Server::start().await;
        server.cloud.put("app", CANARY);
        server.cloud.challenge(challenge);
        let found = failure(&manager(&server), &at("app")).await;
        assert_eq!((found.0, &*found.1), expected, "{challenge}");
        assert_eq!(tokens(&server), 0, "{challenge}");
    }
}

#[tokio::test]
async fn the_suffix_of_a_vault_tells_what_its_tokens_are_for() {
    for (host, resource) in [
        ("kv1.vault.azure.net", "https://vault.azure.net"),
        ("kv1.vault.azure.cn", "https://vault.azure.cn"),
        ("kv1.vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
        ("kv1.vault.lab", "https://vault.lab"),
    ] {
        let server = Server::start().await;
        server.cloud.put("app", "sk-1");
        let manager = manager_with(&server, entra(&server.url(host)), |_| {});
        assert_eq!(text(&manager, &at("app")).await.unwrap(), "sk-1", "{host}");
        let seen = server.cloud.seen();
        let login = seen.iter().find(|asked| asked.target.contains("/oauth2/")).unwrap();
        let form: std::collections::HashMap<_, _> = url::form_urlencoded::parse(login.body.as_bytes()).collect();
        assert_eq!(form["scope"], format!("{resource}/.default"), "{host}");
        let identity = format!("entra client {CLIENT} of {TENANT} at {}", server.url(host));
        assert_eq!(*manager.identity(), *identity);
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_at_once() {
    let (server, stranger) = (Server::start().await, Server::start().await);
    server.cloud.put("app", CANARY);
    let vault = entra(&server.url(VAULT));
    let manager = manager_with(&server, vault, |settings| settings.azure.ca_file = Some(stranger.ca_file()));
    let began = tokio::time::Instant::now();
    assert_eq!(failure(&manager, &at("app")).await, (FailureClass::Unavailable, "tls".to_owned()));
    assert!(began.elapsed() < BOUNDS.fetch_deadline, "{:?}", began.elapsed());
    assert!(server.cloud.seen().is_empty());
    // An authority that is not trusted is no better than a vault.
    let manager = manager_with(&server, entra(&server.url(VAULT)), |settings| {
        settings.azure.authority_host = Some(Url::parse(&stranger.url("login.microsoftonline.com")).unwrap());
    });
    assert_eq!(failure(&manager, &at("app")).await, (FailureClass::Unavailable, "tls".to_owned()));
    assert!(stranger.cloud.seen().is_empty());
}

#[tokio::test]
async fn a_vault_that_resolves_to_a_closed_address_is_not_asked() {
    let server = Server::start().await;
    let manager = manager_with(&server, entra(&server.url(VAULT)), |settings| {
        settings.policy = Policy::new(egress::Settings::default());
    });
    assert_eq!(failure(&manager, &at("app")).await, (FailureClass::Misconfigured, "address_refused".to_owned()));
    assert_eq!(server.cloud.asked("/secrets/"), 0);
}

#[tokio::test]
async fn only_a_path_of_the_vault_reaches_the_wire() {
    let server = Server::start().await;
    let version = server.cloud.put("app", "sk-1");
    let manager = manager(&server);
    for path in ["app".to_owned(), format!("app/{version}"), format!("{}/secrets/app", server.url(VAULT))] {
        assert_eq!(text(&manager, &at(&path)).await.unwrap(), "sk-1", "{path}");
    }
    let before = server.cloud.seen().len();
    for path in ["../keys/x", "app/backup", "app?x", "https://kv2.vault.azure.net/secrets/app", "a/b/c", "app%2f.."] {
        assert_eq!(failure(&manager, &at(path)).await, (FailureClass::Misconfigured, "path".to_owned()), "{path}");
    }
    assert_eq!(server.cloud.seen().len(), before);
}
