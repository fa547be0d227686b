//! When a token is asked for, when it is doubted, and whom the sidecar's own is shown.

use super::*;

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
async fn a_lasting_denial_costs_one_new_login() {
    let server = Server::start().await;
    server.put("app", "{}");
    let manager = manager(auth(&server.url(), Method::AppRole));
    text(&manager, &at("secret/app")).await.unwrap();
    server.answer("/v1/secret/data/app", Reply::denied_by_policy());
    for _ in 0..5 {
        let error = text(&manager, &at("secret/app")).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Denied);
    }
    assert_eq!(server.targets("/login").len(), 2, "a role's policies reach only new tokens, so one is tried");
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
