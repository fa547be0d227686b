//! `/secret-references`: shapes, rules, what is kept and what is shown.

use http::Method;
use serde_json::{Value, json};
use sidekey::{control::store::Kind, seal::Place};

use super::stage::{Stage, refusal};

const ROOT: &str = "/v1/secret-references";

/// A way to log in, and which of its fields are sealed.
struct Shape {
    manager: &'static str,
    auth: Value,
    sealed: &'static [&'static str],
}

/// The nine shapes of Portkey's API, then ours.
fn shapes() -> Vec<Shape> {
    let aws = |auth: Value, sealed| Shape { manager: "aws_sm", auth, sealed };
    let azure = |auth: Value, sealed| Shape { manager: "azure_kv", auth, sealed };
    let vault = |auth: Value, sealed| Shape { manager: "hashicorp_vault", auth, sealed };
    vec![
        aws(
            json!({"aws_auth_type": "accessKey", "aws_access_key_id": "AKIACANARY0123456789",
                "aws_secret_access_key": "canary/secret/access/key/0123456789", "aws_region": "us-east-1"}),
            &["aws_access_key_id", "aws_secret_access_key"],
        ),
        aws(
            json!({"aws_auth_type": "assumedRole", "aws_role_arn": "arn:aws:iam::123456789012:role/canary",
                "aws_external_id": "canary-external-id", "aws_region": "us-east-1"}),
            &["aws_role_arn", "aws_external_id"],
        ),
        aws(json!({"aws_auth_type": "serviceRole", "aws_region": "eu-west-1"}), &[]),
        azure(
            json!({"azure_auth_mode": "entra", "azure_entra_tenant_id": "tenant", "azure_entra_client_id": "client",
                "azure_entra_client_secret": "canary~client~secret", "azure_vault_url": "https://name.vault.azure.net"}),
            &["azure_entra_client_secret"],
        ),
        azure(
            json!({"azure_auth_mode": "managed", "azure_managed_client_id": "client",
                "azure_vault_url": "https://name.vault.azure.net"}),
            &[],
        ),
        azure(json!({"azure_auth_mode": "default", "azure_vault_url": "https://name.vault.azure.net"}), &[]),
        vault(
            json!({"vault_auth_type": "token", "vault_addr": "https://vault.example:8200",
                "vault_token": "hvs.canary-token-0123", "vault_namespace": "team"}),
            &["vault_token"],
        ),
        vault(
            json!({"vault_auth_type": "approle", "vault_addr": "http://vault.internal:8200",
                "vault_role_id": "role", "vault_secret_id": "canary-secret-id"}),
            &["vault_secret_id"],
        ),
        vault(
            json!({"vault_auth_type": "kubernetes", "vault_addr": "https://vault.internal", "vault_role": "role",
                "vault_auth_mount": "k8s", "vault_kv_version": 2}),
            &[],
        ),
        Shape { manager: "aws_ssm", auth: json!({"aws_auth_type": "serviceRole"}), sealed: &[] },
        Shape {
            manager: "gcp_sm",
            auth: json!({"gcp_auth_type": "serviceAccountKey", "gcp_service_account_json": "{\"canary\":\"é\"}"}),
            sealed: &["gcp_service_account_json"],
        },
        Shape { manager: "gcp_sm", auth: json!({"gcp_auth_type": "workloadIdentity"}), sealed: &[] },
        Shape { manager: "file", auth: json!({}), sealed: &[] },
    ]
}

fn reference(shape: &Shape) -> Value {
    json!({"name": "A secret", "manager_type": shape.manager, "auth_config": shape.auth, "secret_path": "prod/openai"})
}

/// A reference that any workspace may use, to be changed.
fn token() -> Value {
    json!({"name": "Vault", "slug": "vault", "manager_type": "hashicorp_vault", "secret_path": "secret/data/openai",
        "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault.example", "vault_token": "hvs.canary-one-01"}})
}

#[tokio::test]
async fn every_shape_round_trips_and_its_credentials_are_sealed() {
    let stage = Stage::start().await;
    for shape in shapes() {
        let created = stage.done(Method::POST, ROOT, reference(&shape)).await;
        assert_eq!(created["object"], "secret-reference");
        let slug = created["slug"].as_str().unwrap();
        assert!(slug.starts_with("a-secret-"), "{slug}");

        let shown = stage.done(Method::GET, &format!("{ROOT}/{slug}"), Value::Null).await;
        let by_id = format!("/secret-references/{}", shown["id"].as_str().unwrap());
        assert_eq!(stage.done(Method::GET, &by_id, Value::Null).await, shown);
        let (organisation, object_id, body) = stage.stored(Kind::SecretReference, slug).await;
        for (key, value) in shape.auth.as_object().unwrap() {
            if shape.sealed.contains(&key.as_str()) {
                let mask = &shown["auth_config"][format!("masked_{key}")];
                assert!(mask.as_str().unwrap().contains("*****"), "{mask}");
                assert!(shown["auth_config"].get(key).is_none(), "{key} is shown");
                let field = format!("auth_config.{key}");
                let place = Place { organisation: &organisation, object_id: &object_id, field: &field };
                assert_eq!(stage.open(place, &body["auth_config"][key]), value.as_str().unwrap(), "{key}");
            } else {
                assert_eq!(shown["auth_config"][key], *value, "{key}");
            }
        }
        assert_eq!(shown["auth_config"].as_object().unwrap().len(), shape.auth.as_object().unwrap().len());

        // What was read may be sent back as it is.
        let echo = json!({"auth_config": shown["auth_config"], "name": "A secret"});
        stage.done(Method::PUT, &format!("{ROOT}/{slug}"), echo).await;
        let (_, _, after) = stage.stored(Kind::SecretReference, slug).await;
        assert_eq!(after, body, "{}", shape.manager);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_every_reason_and_no_value() {
    let stage = Stage::start().await;
    let with = |changes: Value| {
        let mut body = token();
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    let auth = |changes: Value| {
        let mut auth = token()["auth_config"].clone();
        for (key, value) in changes.as_object().unwrap() {
            auth[key] = value.clone();
        }
        with(json!({ "auth_config": auth }))
    };
    // (body, parts of the message)
    let cases: Vec<(Value, &[&str])> = vec![
        (
            json!({}),
            &["name: is missing", "manager_type: is missing", "auth_config: is missing", "secret_path: is missing"],
        ),
        (json!([]), &["the body is not a JSON object"]),
        (with(json!({"name": ""})), &["name: must be text of 1 to 255 characters"]),
        (with(json!({"name": null})), &["name: must not be null"]),
        (with(json!({"name": 7})), &["name: must be text"]),
        (with(json!({"slug": "a b"})), &["slug: must be letters"]),
        (with(json!({"description": "x".repeat(1025)})), &["description: must be text of at most 1024"]),
        (with(json!({"manager_type": "canary"})), &["manager_type: must be one of aws_sm, azure_kv, hashicorp_vault"]),
        (with(json!({"secret_path": "a/../canary"})), &["secret_path: holds a `..` segment"]),
        (with(json!({"secret_path": "canary?x=1"})), &["secret_path: has something else than `version=`"]),
        (with(json!({"secret_key": "x".repeat(256)})), &["secret_key: must be text"]),
        (with(json!({"tags": {"a": 1}})), &["tags: must be an object of texts"]),
        (with(json!({"ttl_secs": -1})), &["ttl_secs: must be a whole number"]),
        (with(json!({"ttl_secs": 999_999_999})), &["ttl_secs: must be 0 to"]),
        (with(json!({"allowed_workspaces": []})), &["allowed_workspaces: must name one"]),
        (
            with(json!({"allowed_workspaces": ["canary"]})),
            &["allowed_workspaces: names a workspace that does not exist"],
        ),
        (with(json!({"allow_all_workspaces": true, "allowed_workspaces": ["x"]})), &["cannot be given beside"]),
        (with(json!({"auth_config": []})), &["auth_config: must be an object"]),
        (
            with(json!({"auth_config": {}})),
            &["auth_config.vault_auth_type: is missing", "auth_config.vault_addr: is missing"],
        ),
        (auth(json!({"vault_auth_type": "canary"})), &["auth_config.vault_auth_type: is unknown"]),
        (auth(json!({"vault_token": "canary\nline"})), &["auth_config.vault_token: must be visible ASCII"]),
        (auth(json!({"vault_token": ["canary"]})), &["auth_config.vault_token: must be text"]),
        (auth(json!({"vault_token": null})), &["auth_config.vault_token: is missing"]),
        (auth(json!({"vault_token": {"$sealed": "canary"}})), &["auth_config.vault_token: must be text"]),
        (auth(json!({"vault_addr": "http://vault.example"})), &["auth_config.vault_addr: plain http is refused"]),
        (auth(json!({"vault_addr": "https://169.254.169.254"})), &["auth_config.vault_addr: 169.254.169.254"]),
        (auth(json!({"vault_addr": "https://10.0.0.1"})), &["auth_config.vault_addr: 10.0.0.1"]),
        (auth(json!({"vault_password": "canary"})), &["auth_config.vault_password: is no field of hashicorp_vault"]),
        (auth(json!({"aws_secret_access_key": "canary"})), &["is no field of hashicorp_vault"]),
    ];
    for (body, parts) in cases {
        let reply = stage.send(Method::POST, ROOT, body.clone()).await;
        let (status, code, message) = refusal(&reply);
        assert_eq!((status, code.as_str()), (400, "AB01"), "{body}: {message}");
        for part in parts {
            assert!(message.contains(part), "{body}: {message:?} has no {part:?}");
        }
        assert!(!message.contains("canary"), "{message}");
    }
    let twice = r#"{"name": "a", "name": "b"}"#;
    let reply = stage.call(Method::POST, ROOT).body(twice).send().await;
    assert!(refusal(&reply).2.contains("name: is given twice"));
    assert_eq!(stage.done(Method::GET, ROOT, Value::Null).await["total"], 0);
}

#[tokio::test]
async fn without_recipients_a_credential_is_refused() {
    let stage = Stage::with("").await;
    // The stage has one; a second control plane beside it has none.
    let folder = tempfile::tempdir().unwrap();
    let mut config = super::stage::config(folder.path(), "", "");
    config.control.recipients = None;
    let control = sidekey::app::ControlPlane::start(config).await.unwrap();
    let owner = std::fs::read_to_string(folder.path().join("bootstrap-key")).unwrap();
    let post = |body: Value| {
        let call = crate::harness::Call::to(control.address(), Method::POST, ROOT);
        call.header("x-portkey-api-key", &owner).json(&body).send()
    };
    let (status, _, message) = refusal(&post(token()).await);
    assert_eq!(status, 400);
    assert!(message.contains("auth_config.vault_token") && message.contains("sealing.recipients"), "{message}");
    let keyless = reference(&shapes()[2]);
    assert_eq!(post(keyless).await.status, 200);
    assert!(!stage.log.text().contains("canary"));
}

#[tokio::test]
async fn an_update_merges() {
    let stage = Stage::start().await;
    stage.done(Method::POST, ROOT, token()).await;
    let target = format!("{ROOT}/vault");
    let get = async || stage.done(Method::GET, &target, Value::Null).await;
    let before = get().await;

    stage.done(Method::PUT, &target, json!({"description": "d", "secret_key": "k", "tags": {"env": "prod"}})).await;
    stage.done(Method::PUT, &target, json!({"auth_config": {"vault_namespace": "team"}})).await;
    let after = get().await;
    assert_eq!((&after["description"], &after["secret_key"]), (&json!("d"), &json!("k")));
    assert_eq!(after["auth_config"]["vault_namespace"], "team");
    assert_eq!(after["auth_config"]["masked_vault_token"], before["auth_config"]["masked_vault_token"]);
    assert_eq!(
        (&after["id"], &after["slug"], &after["created_at"]),
        (&before["id"], &before["slug"], &before["created_at"])
    );

    // null clears; what cannot be changed is ignored beside what can.
    stage
        .done(Method::PUT, &target, json!({"secret_key": null, "tags": null, "manager_type": "aws_sm", "slug": "x"}))
        .await;
    let after = get().await;
    assert_eq!((&after["secret_key"], &after["tags"], &after["slug"]), (&Value::Null, &Value::Null, &json!("vault")));
    assert_eq!(after["manager_type"], "hashicorp_vault");

    // Another way to log in drops the credential of the first.
    let approle =
        json!({"auth_config": {"vault_auth_type": "approle", "vault_role_id": "r", "vault_secret_id": "canary-id-01"}});
    stage.done(Method::PUT, &target, approle).await;
    let auth = get().await["auth_config"].clone();
    assert!(auth.get("masked_vault_token").is_none() && auth["masked_vault_secret_id"] == "ca*****-01", "{auth}");

    for body in [json!({}), json!({"manager_type": "aws_sm"}), json!({"unknown": 1})] {
        let (status, _, message) = refusal(&stage.send(Method::PUT, &target, body).await);
        assert_eq!((status, message.as_str()), (400, "no field to update was given"));
    }
    let bad = json!({"auth_config": {"vault_auth_type": "kubernetes"}});
    assert!(refusal(&stage.send(Method::PUT, &target, bad).await).2.contains("auth_config.vault_role: is missing"));
    assert_eq!(get().await["auth_config"], auth, "a refused update changed something");
}

#[tokio::test]
async fn an_address_that_changes_without_its_credential_is_audited() {
    let stage = Stage::start().await;
    stage.done(Method::POST, ROOT, token()).await;
    let target = format!("{ROOT}/vault");
    let put = async |auth: Value| stage.done(Method::PUT, &target, json!({ "auth_config": auth })).await;
    put(json!({"vault_addr": "https://vault.example", "vault_namespace": "n"})).await;
    put(json!({"vault_addr": "https://elsewhere.example"})).await;
    put(json!({"vault_addr": "https://third.example", "vault_token": "hvs.canary-two-02"})).await;
    stage.done(Method::DELETE, &target, Value::Null).await;
    let store = stage.control.control().store();
    let organisation = store.organisations().await.unwrap().remove(0);
    let records = store.tenant(&organisation).await.unwrap().audit(100).await.unwrap();
    let actions: Vec<_> = records.iter().rev().map(|record| (record.kind.as_str(), record.action.as_str())).collect();
    let expected = ["created", "created", "updated", "address_changed", "updated", "deleted"]
        .map(|action| ("secret_reference", action));
    assert_eq!(actions[0], ("api_key", "created"));
    assert_eq!(actions[1..], expected[1..]);
    assert_eq!(records[1].fields, ["auth_config"]);
}

#[tokio::test]
async fn lists_are_paged_searched_and_newest_first() {
    let stage = Stage::start().await;
    for index in 0..5 {
        let body = json!({"name": format!("Secret_{index} Ä"), "slug": format!("s{index}"), "manager_type": "file",
            "auth_config": {}, "secret_path": "a", "tags": {"index": index.to_string(), "all": "yes"}});
        stage.done(Method::POST, ROOT, body).await;
    }
    stage.done(Method::POST, ROOT, token()).await;
    struct Case {
        query: &'static str,
        total: usize,
        slugs: &'static [&'static str],
    }
    let cases = [
        Case { query: "", total: 6, slugs: &["vault", "s4", "s3", "s2", "s1", "s0"] },
        Case { query: "?", total: 6, slugs: &["vault", "s4", "s3", "s2", "s1", "s0"] },
        Case { query: "?page_size=2", total: 6, slugs: &["vault", "s4"] },
        Case { query: "?page_size=2&current_page=1", total: 6, slugs: &["s3", "s2"] },
        Case { query: "?page_size=2&currentPage=2", total: 6, slugs: &["s1", "s0"] },
        Case { query: "?page_size=2&current_page=9", total: 6, slugs: &[] },
        Case { query: "?search=SECRET_3", total: 1, slugs: &["s3"] },
        Case { query: "?search=secret", total: 5, slugs: &["s4", "s3", "s2", "s1", "s0"] },
        Case { query: "?search=1%20%C3%84", total: 1, slugs: &["s1"] },
        Case { query: "?search=%25", total: 0, slugs: &[] },
        Case { query: "?search=Secret.0", total: 0, slugs: &[] },
        Case { query: "?manager_type=hashicorp_vault", total: 1, slugs: &["vault"] },
        Case { query: "?tags=%7B%22index%22%3A%222%22%2C%22all%22%3A%22yes%22%7D", total: 1, slugs: &["s2"] },
        Case { query: "?tags=%7B%22index%22%3A%229%22%7D", total: 0, slugs: &[] },
    ];
    for Case { query, total, slugs } in cases {
        let list = stage.done(Method::GET, &format!("{ROOT}{query}"), Value::Null).await;
        assert_eq!((&list["object"], &list["total"]), (&json!("list"), &json!(total)), "{query}");
        let found: Vec<_> = list["data"].as_array().unwrap().iter().map(|row| row["slug"].as_str().unwrap()).collect();
        assert_eq!(found, slugs, "{query}");
    }
    let long = format!("{ROOT}?search={}", "a".repeat(60_000));
    assert_eq!(stage.done(Method::GET, &long, Value::Null).await["total"], 0, "longer than a name can be");
    let row = stage.done(Method::GET, &format!("{ROOT}?page_size=1"), Value::Null).await["data"][0].clone();
    let mut keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["created_at", "id", "last_updated_at", "manager_type", "name", "object", "slug", "status"]);
    assert_eq!((&row["status"], &row["object"]), (&json!("ACTIVE"), &json!("secret-reference")));
    for query in ["?page_size=0", "?page_size=101", "?current_page=-1", "?manager_type=x", "?tags=%5B%5D"] {
        let reply = stage.send(Method::GET, &format!("{ROOT}{query}"), Value::Null).await;
        assert_eq!(reply.status, 400, "{query}");
    }
    let unreadable = stage.send(Method::GET, &format!("{ROOT}/%ff%fe"), Value::Null).await;
    assert_eq!((refusal(&unreadable).0, refusal(&unreadable).2.as_str()), (400, "the address is not UTF-8"));
}

#[tokio::test]
async fn a_slug_is_taken_once() {
    let stage = Stage::start().await;
    stage.done(Method::POST, ROOT, token()).await;
    let (status, code, message) = refusal(&stage.send(Method::POST, ROOT, token()).await);
    assert_eq!((status, code.as_str()), (400, "AB01"));
    assert!(message.contains("slug"), "{message}");
    stage.done(Method::DELETE, &format!("{ROOT}/vault"), json!({})).await;
    stage.done(Method::POST, ROOT, token()).await;
}

#[tokio::test]
async fn writes_at_once_are_all_there_with_versions_in_a_row() {
    let stage = Stage::start().await;
    let calls = (0..20).map(|index| {
        let mut body = token();
        body["slug"] = json!(format!("vault-{index}"));
        tokio::spawn(stage.call(Method::POST, ROOT).json(&body).send())
    });
    for call in calls.collect::<Vec<_>>() {
        let reply = call.await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let store = stage.control.control().store();
    let organisation = store.organisations().await.unwrap().remove(0);
    let mut tenant = store.tenant(&organisation).await.unwrap();
    let records = tenant.audit(100).await.unwrap();
    let mut versions: Vec<_> = records.iter().map(|record| record.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=21).collect::<Vec<_>>());
    assert_eq!(tenant.head().await.unwrap().version, 21);
}
