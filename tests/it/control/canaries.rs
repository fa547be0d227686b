//! No credential that is posted is in the database, its journal, the log or an answer.

use http::Method;
use serde_json::{Value, json};

use super::stage::Stage;
use crate::harness::Call;

const ROOT: &str = "/v1/secret-references";

/// What a canary looks like: no two share more than the first letters, and each fits into every field.
fn canary(index: usize) -> String {
    format!("CANARY{index:02}xyzzy{:04}", index * 7919 % 10_000)
}

#[tokio::test]
async fn thirty_canaries_are_nowhere() {
    let stage = Stage::start().await;
    let mut canaries = (0..).map(canary);
    let mut next = || canaries.next().unwrap();
    let mut bodies = Vec::new();
    for _ in 0..4 {
        let vault = |auth: Value| {
            let mut auth = auth;
            auth["vault_addr"] = json!("https://vault.example");
            json!({"name": "a", "manager_type": "hashicorp_vault", "secret_path": "secret/data/a", "auth_config": auth})
        };
        bodies.push(vault(json!({"vault_auth_type": "token", "vault_token": next()})));
        bodies.push(vault(json!({"vault_auth_type": "approle", "vault_role_id": "r", "vault_secret_id": next()})));
        let aws = |auth: Value| json!({"name": "a", "manager_type": "aws_sm", "secret_path": "a", "auth_config": auth});
        bodies.push(aws(json!({"aws_auth_type": "accessKey", "aws_region": "us-east-1", "aws_access_key_id": next(),
            "aws_secret_access_key": next()})));
        bodies.push(aws(json!({"aws_auth_type": "assumedRole", "aws_region": "us-east-1",
            "aws_role_arn": format!("arn:aws:iam::123456789012:role/{}", next()), "aws_external_id": next()})));
        bodies.push(json!({"name": "a", "manager_type": "azure_kv", "secret_path": "a", "auth_config": {
            "azure_auth_mode": "entra", "azure_entra_tenant_id": "t", "azure_entra_client_id": "c",
            "azure_entra_client_secret": next(), "azure_vault_url": "https://name.vault.azure.net"}}));
        bodies.push(json!({"name": "a", "manager_type": "gcp_sm", "secret_path": "a", "auth_config": {
            "gcp_auth_type": "serviceAccountKey", "gcp_service_account_json": format!("{{\"private_key\":\"{}\"}}", next())}}));
    }
    let mut answers = String::new();
    for body in &bodies {
        let created = stage.send(Method::POST, ROOT, body.clone()).await;
        assert_eq!(created.status, 200, "{}", created.text());
        answers.push_str(&created.text());
        let target = format!("{ROOT}/{}", created.json()["slug"].as_str().unwrap());
        answers.push_str(&stage.send(Method::GET, &target, Value::Null).await.text());
        // Posted again, and in calls that are refused: bad path, bad field, no JSON, a name that is too long.
        answers.push_str(&stage.send(Method::PUT, &target, body.clone()).await.text());
        for refused in [json!({"secret_path": "../x"}), json!({"ttl_secs": "x"}), json!({"manager_type": "none"})] {
            let mut bad = body.clone();
            bad.as_object_mut().unwrap().extend(refused.as_object().unwrap().clone());
            let reply = stage.send(Method::POST, ROOT, bad).await;
            assert_eq!(reply.status, 400);
            answers.push_str(&reply.text());
        }
        let cut = body.to_string();
        let reply = stage.call(Method::POST, ROOT).body(cut[..cut.len() - 1].to_owned()).send().await;
        assert_eq!(reply.status, 400);
        answers.push_str(&reply.text());
    }
    answers.push_str(&stage.send(Method::GET, &format!("{ROOT}?page_size=100"), Value::Null).await.text());

    let posted: Vec<String> = (0..32).map(canary).collect();
    assert_eq!(next(), canary(32), "the test posts 32 canaries");
    let mut places =
        vec![("answers".to_owned(), answers.into_bytes()), ("log".to_owned(), stage.log.text().into_bytes())];
    places.extend(stage.kept().await);
    let token = stage.done(Method::POST, "/v1/data-planes", json!({"name": "a"})).await["token"].clone();
    let feed = Call::to(stage.control.address(), Method::GET, "/v1/snapshot");
    let feed = feed.header("authorization", &format!("Bearer {}", token.as_str().unwrap())).send().await;
    assert_eq!(feed.json()["secret_references"].as_array().unwrap().len(), bodies.len());
    places.push(("feed".to_owned(), feed.body.to_vec()));
    let journal = |name: &str| name.ends_with("control.db-wal") || name == "objects";
    assert!(places.iter().any(|(name, _)| journal(name)), "there is no journal to look into");
    for (name, content) in &places {
        assert!(!content.is_empty() || name.ends_with("-wal"), "{name} is empty");
        for canary in &posted {
            let found = content.windows(canary.len()).any(|window| window.eq_ignore_ascii_case(canary.as_bytes()));
            assert!(!found, "{canary} is in {name}");
        }
    }
}
