//! When a token is asked for, when it is doubted, and what Entra's refusals mean.

use super::*;

const TOKEN: &str = "/oauth2/v2.0/token";

#[tokio::test]
async fn one_login_serves_many_reads_and_a_401_costs_one_more() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.cloud.put(name, name);
    }
    let manager = manager(&server);
    for name in ["a", "b", "c"] {
        assert_eq!(text(&manager, &at(name)).await.unwrap(), name);
    }
    assert_eq!((server.cloud.asked(TOKEN), server.cloud.asked("/secrets/")), (1, 4), "one challenge, three reads");
    server.cloud.revoke_all();
    let locations: Vec<_> = (0..20).map(|number| at(["a", "b", "c"][number % 3])).collect();
    let reads = locations.iter().map(|location| text(&manager, location));
    let outcomes = futures_util::future::join_all(reads).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(server.cloud.asked(TOKEN), 2, "they share one new login");
}

#[tokio::test]
async fn a_lasting_refusal_costs_one_new_login() {
    let unauthorized = Reply::json(401, &json!({"error": {"code": "Unauthorized", "message": "canary"}}));
    let unauthorized = unauthorized.header("www-authenticate", r#"Bearer resource="https://vault.azure.net""#);
    let denied = Reply::vault(403, "Forbidden", Some("ForbiddenByPolicy"));
    for (reply, class) in [(unauthorized, FailureClass::Unauthenticated), (denied, FailureClass::Denied)] {
        let server = Server::start().await;
        server.cloud.put("warm", "x");
        let manager = manager(&server);
        text(&manager, &at("warm")).await.unwrap();
        server.cloud.script("/secrets/app/", [reply]);
        for _ in 0..5 {
            assert_eq!(failure(&manager, &at("app")).await.0, class);
        }
        assert_eq!(
            server.cloud.asked(TOKEN),
            2,
            "{class:?}: a member of a new group needs a new token, so one is tried"
        );
        assert_eq!(server.cloud.asked("/secrets/app/"), 6, "{class:?}");
        text(&manager, &at("warm")).await.unwrap();
    }
}

#[tokio::test]
async fn entras_codes_become_classes() {
    use FailureClass::*;
    #[rustfmt::skip]
    let rows = [
        // answer, class, code, logins
        (Reply::entra(401, "invalid_client", 7_000_215), Unauthenticated, "AADSTS7000215", 1),
        (Reply::entra(401, "invalid_client", 7_000_222), Unauthenticated, "AADSTS7000222", 1),
        (Reply::entra(400, "unauthorized_client", 700_016), Unauthenticated, "AADSTS700016", 1),
        (Reply::entra(400, "invalid_request", 90002), Unauthenticated, "AADSTS90002", 1),
        (Reply::json(400, &json!({"error": "invalid_grant"})), Unauthenticated, "invalid_grant", 1),
        (Reply::json(400, &json!({"error": "the canary's words"})), Unauthenticated, "400", 1),
        (Reply::entra(400, "invalid_grant", 50196), Throttled, "AADSTS50196", 3),
        (Reply::entra(429, "temporarily_unavailable", 90055).header("retry-after", "30"), Throttled, "AADSTS90055", 1),
        (Reply::text(429, "").header("retry-after", "30"), Throttled, "429", 1),
        (Reply::entra(400, "temporarily_unavailable", 90033), Unavailable, "AADSTS90033", 3),
        (Reply::json(400, &json!({"error": "temporarily_unavailable"})), Unavailable, "temporarily_unavailable", 3),
        (Reply::text(503, "<html>"), Unavailable, "503", 3),
        (Reply::text(400, "<html>a proxy's canary</html>"), Malformed, "not_entra", 1),
        (Reply::text(200, "<html>a portal's canary</html>"), Malformed, "not_a_token", 1),
        (Reply::json(200, &json!({"token_type": "Bearer"})), Malformed, "token_over", 1),
        (Reply::json(200, &json!({"expires_in": 60, "access_token": "a\nb"})), Malformed, "token_not_header_safe", 1),
    ];
    for (reply, class, code, logins) in rows {
        let server = Server::start().await;
        let manager = manager(&server);
        server.cloud.script(&format!("/{TENANT}{TOKEN}"), [reply.clone()]);
        assert_eq!(failure(&manager, &at("app")).await, (class, code.to_owned()), "{reply:?}");
        assert_eq!(server.cloud.asked(TOKEN), logins, "{reply:?}");
        if class == Unauthenticated {
            // A verdict is not asked for again; accidents are, at the pace of the guard.
            assert_eq!(failure(&manager, &at("app")).await, (class, code.to_owned()), "{reply:?}");
            assert_eq!(server.cloud.asked(TOKEN), logins, "{reply:?}");
        }
    }
}

#[tokio::test]
async fn a_rotated_client_secret_works_at_once() {
    let server = Server::start().await;
    server.cloud.put("app", "sk-1");
    let (registry, metrics) = registry_with(&server, |_| {});
    let manager = |slug: &str, client_secret: &str| {
        let auth = AuthConfig::Azure(entra_with(&server.url(VAULT), client_secret));
        registry.manager(&reference(slug, ManagerType::AzureKv, auth, at("app"))).unwrap()
    };
    let old = manager("old", CLIENT_SECRET);
    text(&old, &at("app")).await.unwrap();
    server.cloud.rotate("client~secret-canary.new");
    server.cloud.revoke_all();
    assert_eq!(failure(&old, &at("app")).await, (FailureClass::Unauthenticated, "AADSTS7000215".to_owned()));
    // The whole credential is the identity, so that the new one starts with nothing of the old.
    assert_eq!(text(&manager("new", "client~secret-canary.new"), &at("app")).await.unwrap(), "sk-1");
    let text = metrics.encode();
    for line in [
        r#"sidekey_logins_total{manager="azure_kv",class="ok"} 2"#,
        r#"sidekey_logins_total{manager="azure_kv",class="unauthenticated"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn a_slow_login_goes_on_when_the_fetch_has_left() {
    let server = Server::start().await;
    server.cloud.put("app", "sk-1");
    server.cloud.script(&format!("/{TENANT}{TOKEN}"), [Reply::never()]);
    let bounds =
        Settings { fetch_deadline: Duration::from_millis(300), login_deadline: Duration::from_millis(1200), ..BOUNDS };
    let manager = manager_with(&server, entra(&server.url(VAULT)), |settings| settings.bounds = bounds);
    for _ in 0..2 {
        assert_eq!(failure(&manager, &at("app")).await.0, FailureClass::Timeout);
    }
    assert_eq!(server.cloud.asked(TOKEN), 1, "the second fetch waits for the login of the first");
}
