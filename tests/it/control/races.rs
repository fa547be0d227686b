//! Calls that meet: what is named by one and removed by the other. Whichever comes first, nothing is left that names what is gone.

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::stage::Stage;
use crate::harness::Reply;

/// How often each pair meets; `CONTROL_TESTS_ROUNDS` says more.
fn rounds() -> usize {
    std::env::var("CONTROL_TESTS_ROUNDS").map_or(40, |rounds| rounds.parse().unwrap())
}

fn at_once(stage: &Stage, method: Method, target: &str, body: &Value) -> JoinHandle<Reply> {
    tokio::spawn(stage.call(method, target).json(body).send())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_while_it_is_named_leaves_nothing_dangling() {
    let stage = Stage::start().await;
    let mapping = json!([{"target_field": "key", "secret_reference_id": "ref"}]);
    let integration = json!({"name": "n", "slug": "int", "ai_provider_id": "openai", "secret_mappings": mapping});
    let plain = json!({"name": "n", "slug": "int", "ai_provider_id": "openai", "key": "sk"});
    let (mut both, mut seen) = (0, [0; 2]);
    for round in 0..rounds() {
        // Created with, or changed to, a mapping onto what goes.
        stage.reference("ref", json!({})).await;
        let (method, target, body) = match round % 2 {
            0 => (Method::POST, "/v1/integrations", integration.clone()),
            _ => {
                stage.done(Method::POST, "/v1/integrations", plain.clone()).await;
                (Method::PUT, "/v1/integrations/int", json!({"secret_mappings": mapping}))
            }
        };
        let remove = || at_once(&stage, Method::DELETE, "/v1/secret-references/ref", &json!({}));
        let (name, remove) = match round % 4 {
            0 | 1 => (at_once(&stage, method, target, &body), remove()),
            _ => {
                let remove = remove();
                (at_once(&stage, method, target, &body), remove)
            }
        };
        let (named, removed) = (name.await.unwrap(), remove.await.unwrap());
        let statuses = (named.status, removed.status);
        both += usize::from(statuses == (200, 200));
        assert!(matches!(statuses, (200, 400 | 409) | (400, 200)), "{} {}", named.text(), removed.text());
        seen[usize::from(named.status == 200)] += 1;
        let there = stage.send(Method::GET, "/v1/secret-references/ref", Value::Null).await.status == 200;
        assert_eq!(there, named.status == 200, "round {round}");
        // And a virtual key beside the end of its integration.
        if stage.send(Method::GET, "/v1/integrations/int", Value::Null).await.status == 200 {
            let linked = json!({"name": "n", "slug": "vk", "integration_id": "int"});
            let make = at_once(&stage, Method::POST, "/v1/virtual-keys", &linked);
            let remove = at_once(&stage, Method::DELETE, "/v1/integrations/int", &json!({}));
            let statuses = (make.await.unwrap().status, remove.await.unwrap().status);
            assert!(matches!(statuses, (200, 400 | 409) | (400, 200)), "{statuses:?}");
            if statuses.0 == 200 {
                stage.done(Method::DELETE, "/v1/virtual-keys/vk", json!({})).await;
                stage.done(Method::DELETE, "/v1/integrations/int", json!({})).await;
            }
        }
        if there {
            stage.done(Method::DELETE, "/v1/secret-references/ref", json!({})).await;
        }
    }
    assert_eq!(both, 0);
    eprintln!("{} rounds: named first {}, removed first {}", rounds(), seen[1], seen[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_a_workspace_and_what_names_them_meet_their_end() {
    let stage = Stage::start().await;
    for round in 0..rounds() {
        let slug = format!("ws-{round}");
        stage.workspace(&slug).await;
        let key = json!({"name": "n", "slug": format!("vk-{round}"), "provider": "openai", "key": "sk", "workspace_id": slug});
        let make = at_once(&stage, Method::POST, "/v1/virtual-keys", &key);
        let gone = json!({"name": slug, "force_delete": true});
        let remove = at_once(&stage, Method::DELETE, &format!("/v1/admin/workspaces/{slug}"), &gone);
        let (made, removed) = (make.await.unwrap(), remove.await.unwrap());
        assert!(matches!((made.status, removed.status), (200 | 400, 200)), "{} {}", made.text(), removed.text());
        let config = json!({"name": "c", "config": {"retry": {"attempts": 1}}});
        let config = stage.done(Method::POST, "/v1/configs", config).await["slug"].as_str().unwrap().to_owned();
        let key = json!({"name": "n", "scopes": [], "defaults": {"config_id": config}});
        let make = at_once(&stage, Method::POST, "/v1/api-keys/organisation/service", &key);
        let remove = at_once(&stage, Method::DELETE, &format!("/v1/configs/{config}"), &json!({}));
        let statuses = (make.await.unwrap().status, remove.await.unwrap().status);
        assert!(matches!(statuses, (200, 400 | 409) | (400, 200)), "{statuses:?}");
    }
    // Nothing outlived its workspace.
    let list = stage.done(Method::GET, "/v1/virtual-keys", Value::Null).await;
    assert_eq!(list["total"], 0, "{list}");
}

#[tokio::test]
async fn names_and_filters_are_never_statements() {
    let stage = Stage::start().await;
    stage.reference("ref", json!({})).await;
    let all = |list: &Value| list["total"].as_u64().unwrap();
    for text in
        ["'", "' OR '1'='1", "%", "_", "\\", "\\'", "%' --", "$1", "?1", "\"; DROP TABLE objects; --", "*", "a%5Cb"]
    {
        let quoted: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        for (path, filter) in [
            ("secret-references", "search"),
            ("admin/workspaces", "name"),
            ("admin/workspaces", "exact_name"),
            ("audit-logs", "user_id"),
            ("audit-logs", "resource_type"),
        ] {
            let list = stage.done(Method::GET, &format!("/v1/{path}?{filter}={quoted}"), Value::Null).await;
            assert_eq!(all(&list), 0, "{path} {filter} {text}");
        }
        let path = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        for kind in [
            "secret-references",
            "integrations",
            "virtual-keys",
            "configs",
            "api-keys",
            "admin/workspaces",
            "data-planes",
        ] {
            for method in [Method::GET, Method::DELETE] {
                let reply = stage.send(method, &format!("/v1/{kind}/{path}"), Value::Null).await;
                assert_eq!(reply.status, 404, "{kind} {text}: {}", reply.text());
            }
        }
        let body = json!({"name": text, "slug": format!("{text}'"), "manager_type": "file", "auth_config": {}, "secret_path": "a"});
        let reply = stage.send(Method::POST, "/v1/secret-references", body).await;
        assert_eq!(reply.status, 400, "{text}: {}", reply.text());
    }
    // A name is what it is.
    let odd = json!({"name": "100%_'x", "slug": "odd", "manager_type": "file", "auth_config": {}, "secret_path": "a"});
    stage.done(Method::POST, "/v1/secret-references", odd).await;
    for (search, found) in [("100%25_%27", 1), ("%25", 1), ("1%250", 0), ("100_", 0)] {
        let list = stage.done(Method::GET, &format!("/v1/secret-references?search={search}"), Value::Null).await;
        assert_eq!(all(&list), found, "{search}");
    }
}
