//! Where a secret is looked for: path forms, mounts, versions, and what is no secret at all.

use super::*;

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
