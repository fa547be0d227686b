//! Who asks: fixed keys, assumed roles, the sidecar's own identity, and what happens when one of them is over.

use sidekey::manager::FailureClass;

use super::{server::form, *};

/// Everything an environment can name at once.
fn crowded(server: &Server) -> Environment {
    let token_file = server.folder().join("web-identity");
    fs::write(&token_file, WEB_TOKEN).unwrap();
    let metadata = server.url();
    Environment::of(&[
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", BASE_ID),
        ("AWS_SECRET_ACCESS_KEY", "canary-base-key"),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file.to_str().unwrap()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{metadata}/v1/credentials")),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata),
    ])
}

#[tokio::test]
async fn an_access_key_never_falls_back() {
    let server = Server::start().await;
    server.put("app/key", "text");
    server.forget(KEY_ID);
    let registry = registry_with(&server, Method::AccessKey, |settings| {
        settings.aws.environment = crowded(&server);
    });
    let manager = manager_of(&registry, auth(Method::AccessKey)).unwrap();
    for _ in 0..2 {
        let error = text(&manager, &at("app/key")).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Unauthenticated);
        assert_eq!(error.code.as_deref(), Some("UnrecognizedClientException"));
    }
    let seen = server.seen();
    assert!(
        seen.iter().all(|seen| seen.action == "GetSecretValue" && seen.key_id.as_deref() == Some(KEY_ID)),
        "{seen:?}"
    );
    assert_eq!(seen.len(), 2, "and is not tried again");
    // The same key works as soon as it is known: nothing was remembered against it.
    server.admit(KEY_ID);
    text(&manager, &at("app/key")).await.unwrap();
}

#[tokio::test]
async fn a_rotated_key_is_used_by_the_next_fetch() {
    let server = Server::start().await;
    server.put("app/key", "text");
    let registry = registry_with(&server, Method::AccessKey, |_| {});
    for (slug, id) in [("before", KEY_ID), ("after", "AKIAROTATEDROTATED02")] {
        server.admit(id);
        let auth = AwsAuth { region: Some("us-east-1".into()), method: key(id) };
        // Another credential is another fingerprint, which is what the registry goes by.
        let reference = reference(slug, ManagerType::AwsSm, AuthConfig::Aws(auth), at("app/key"));
        text(&registry.manager(&reference).unwrap(), &at("app/key")).await.unwrap();
        assert_eq!(server.last("GetSecretValue").key_id.as_deref(), Some(id));
        server.forget(id);
    }
}

#[tokio::test]
async fn a_role_is_assumed_once_for_everyone_and_again_when_it_is_over() {
    let server = Server::start().await;
    server.put("app/key", "text");
    let manager = manager(&server, Method::AssumedRole);
    let fetches = (0..20).map(|_| async { text(&manager, &at("app/key")).await.unwrap() });
    futures_util::future::join_all(fetches).await;
    assert_eq!(server.calls("AssumeRole"), 1);
    let assumed = server.last("AssumeRole");
    assert_eq!((assumed.key_id.as_deref(), assumed.region.as_deref()), (Some(BASE_ID), Some("us-east-1")));
    assert_eq!(form(&assumed.body, "RoleArn").as_deref(), Some(ROLE));
    assert_eq!(form(&assumed.body, "ExternalId").as_deref(), Some(EXTERNAL_ID));
    let name = form(&assumed.body, "RoleSessionName").unwrap();
    assert!(name.starts_with("sidekey-") && name.len() <= 64, "{name}");
    assert_eq!(form(&assumed.body, "DurationSeconds"), None, "an hour, which chained roles may have too");
    let read = server.last("GetSecretValue");
    assert!(read.key_id.as_deref().is_some_and(|id| id.starts_with("ASIASESSION")), "{read:?}");
    assert_eq!(read.session_token.as_deref(), Some("canary-session-token"));

    server.end_sessions();
    text(&manager, &at("app/key")).await.unwrap();
    assert_eq!(server.calls("AssumeRole"), 2);
}

#[tokio::test]
async fn an_identity_that_is_refused_is_left_alone_for_a_while() {
    let server = Server::start().await;
    server.put("app/key", "text");
    let strange = AwsMethod::AssumedRole { role_arn: ROLE.into(), external_id: Some("another".to_owned().into()) };
    let auth = AwsAuth { region: Some("us-east-1".into()), method: strange };
    let manager = manager_of(&registry_with(&server, Method::AssumedRole, |_| {}), auth).unwrap();
    for _ in 0..3 {
        let error = text(&manager, &at("app/key")).await.unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (FailureClass::Unauthenticated, Some("AccessDenied")));
        assert!(error.retry_after.is_some_and(|wait| wait.as_secs() <= 30), "{error:?}");
    }
    assert_eq!((server.calls("AssumeRole"), server.calls("GetSecretValue")), (1, 0));
}

#[tokio::test]
async fn the_operators_external_id_is_sent_with_every_role() {
    let server = Server::start().await;
    server.put("app/key", "text");
    let auth = AwsAuth {
        region: Some("us-east-1".into()),
        method: AwsMethod::AssumedRole { role_arn: ROLE.into(), external_id: None },
    };
    let registry = registry_with(&server, Method::AssumedRole, |settings| {
        settings.aws.external_id = Some(EXTERNAL_ID.to_owned());
    });
    text(&manager_of(&registry, auth).unwrap(), &at("app/key")).await.unwrap();
}

#[tokio::test]
async fn a_base_identity_that_is_over_is_replaced_under_the_role() {
    let server = Server::start().await;
    server.put("app/key", "text");
    let registry = registry_with(&server, Method::ServiceRole, |_| {});
    let manager = manager_of(&registry, auth(Method::AssumedRole)).unwrap();
    text(&manager, &at("app/key")).await.unwrap();
    assert!(manager.identity().ends_with("web identity arn:aws:iam::123456789012:role/gw, chained: one hour at most"));
    // The role's session and the base's: both are found out, one after the other.
    server.end_sessions();
    text(&manager, &at("app/key")).await.unwrap();
    assert_eq!((server.calls("AssumeRoleWithWebIdentity"), server.calls("AssumeRole")), (2, 3));
}

#[tokio::test]
async fn the_environment_chooses_who_the_sidecar_is() {
    let server = Server::start().await;
    server.put("app/key", "text");
    let crowded_manager = {
        let registry = registry_with(&server, Method::ServiceRole, |settings| {
            settings.aws.environment = crowded(&server);
        });
        manager_of(&registry, auth(Method::ServiceRole)).unwrap()
    };
    text(&crowded_manager, &at("app/key")).await.unwrap();
    assert_eq!(server.last("GetSecretValue").key_id.as_deref(), Some(BASE_ID));
    assert_eq!(
        *crowded_manager.identity(),
        *"serviceRole by environment key AKIA…0001 (shadows AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CONTAINER_CREDENTIALS_FULL_URI)"
    );
    // A key of the environment cannot be replaced, so that nothing is tried twice.
    server.forget(BASE_ID);
    let before = server.seen().len();
    let error = text(&crowded_manager, &at("app/key")).await.unwrap_err();
    assert_eq!((error.class, server.seen().len() - before), (FailureClass::Unauthenticated, 1));
}

#[tokio::test]
async fn a_web_identity_is_read_at_each_login() {
    let server = Server::start().await;
    server.put("app/key", "text");
    let manager = manager(&server, Method::ServiceRole);
    let token_file = server.folder().join("web-identity");
    fs::write(&token_file, "stale").unwrap();
    let error = text(&manager, &at("app/key")).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (FailureClass::Unauthenticated, Some("InvalidIdentityToken")));
    fs::remove_file(&token_file).unwrap();
    let fresh = manager_of(
        &registry_with(&server, Method::ServiceRole, |settings| {
            fs::remove_file(&token_file).unwrap();
            let _ = settings;
        }),
        auth(Method::ServiceRole),
    )
    .unwrap();
    let error = text(&fresh, &at("app/key")).await.unwrap_err();
    assert_eq!((error.class, error.code.as_deref()), (FailureClass::Unauthenticated, Some("token_file")));
    // An unreadable file is no verdict on the identity: the next fetch reads it again.
    fs::write(&token_file, WEB_TOKEN).unwrap();
    text(&fresh, &at("app/key")).await.unwrap();
    let asked = server.last("AssumeRoleWithWebIdentity");
    assert_eq!(asked.key_id, None, "nobody signs it");
    assert_eq!(form(&asked.body, "RoleArn").as_deref(), Some(ROLE));
}

#[tokio::test]
async fn half_an_identity_is_none() {
    let server = Server::start().await;
    #[rustfmt::skip]
    let rows = [
        // environment, code
        (&[("AWS_ACCESS_KEY_ID", BASE_ID)][..], "half_a_key"),
        (&[("AWS_SECRET_ACCESS_KEY", "canary")], "half_a_key"),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere")], "no_role"),
        (&[("AWS_EC2_METADATA_DISABLED", "True")], "no_credentials"),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere"), ("AWS_ROLE_ARN", ROLE), ("AWS_REGION", "")], "no_region"),
    ];
    for (environment, code) in rows {
        let registry = registry_with(&server, Method::ServiceRole, |settings| {
            settings.aws.environment = Environment::of(environment);
        });
        let method = AwsAuth { region: Some("us-east-1".into()), method: AwsMethod::ServiceRole };
        let error = text(&manager_of(&registry, method).unwrap(), &at("app/key")).await.unwrap_err();
        assert_eq!(
            (error.class, error.code.as_deref()),
            (FailureClass::Unauthenticated, Some(code)),
            "{environment:?}"
        );
    }
    assert_eq!(server.seen().len(), 0, "no other identity is tried");
}

#[tokio::test]
async fn an_identity_is_shown_without_its_secret() {
    let server = Server::start().await;
    #[rustfmt::skip]
    let rows = [
        (Method::AccessKey, "accessKey AKIA…0001"),
        (Method::AssumedRole, "assumedRole arn:aws:iam::123456789012:role/gw from environment key AKIA…0001"),
        (Method::ServiceRole, "serviceRole by web identity arn:aws:iam::123456789012:role/gw"),
    ];
    for (method, shown) in rows {
        let manager = manager(&server, method);
        assert_eq!(*manager.identity(), *shown);
        let debug = format!("{manager:?}");
        assert!(!debug.contains("canary"), "{debug}");
    }
}
