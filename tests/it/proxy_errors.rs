//! What a client and the log are told when a credential cannot be had.

use std::{sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use sidekey::{
    manager::{FailureClass, FetchError, Managers, SecretManager, fake::Answer},
    model::Reference,
};

use crate::harness::{Call, Setup, World, within};

const PATH: &str = "secret/data/openai";

/// `@openai`, whose key is `api_key` of the secret at [`PATH`]; `@cohere`, whose key is a literal beside an inactive status.
fn snapshot() -> Value {
    json!({
        "schema_version": 1, "version": 1, "generated_at": "2026-11-21T03:00:00.000Z", "organisation_id": "o-1",
        "workspaces": [], "virtual_keys": [], "configs": [], "api_keys": [],
        "secret_references": [{
            "id": "r-1", "slug": "openai-prod-key", "manager_type": "hashicorp_vault", "secret_path": PATH,
            "auth_config": { "vault_auth_type": "token", "vault_addr": "https://vault.example:8200", "vault_token": "t" },
            "secret_key": "api_key", "status": "active", "ttl_secs": null, "allow_all_workspaces": true,
            "allowed_workspaces": [], "allowed_providers": [], "allowed_hosts": [],
        }],
        "integrations": [
            {
                "id": "i-1", "slug": "openai", "ai_provider_id": "openai", "workspace_id": null, "status": "active", "key": null,
                "configurations": {}, "allow_all_workspaces": true, "allowed_workspaces": [],
                "secret_mappings": [{ "target_field": "key", "secret_reference_id": "openai-prod-key" }],
            },
            {
                "id": "i-2", "slug": "cohere", "ai_provider_id": "cohere", "workspace_id": null, "status": "archived",
                "key": "co-1", "configurations": {}, "allow_all_workspaces": true, "allowed_workspaces": [],
                "secret_mappings": [],
            },
        ],
    })
}

async fn world() -> World {
    World::start(Setup { snapshot: Some(snapshot()), ..Setup::default() }).await
}

#[tokio::test]
async fn a_secret_is_fetched_placed_and_told_by_name_only() {
    let world = world().await;
    world.secrets.script(PATH, [Answer::map(r#"{"api_key":"sk-canary-1"}"#)]);
    for outcome in ["miss", "hit"] {
        let reply =
            world.post("/v1/chat/completions").header("x-portkey-provider", "@openai").json(&json!({})).send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(world.gateway.last().header("authorization"), Some("Bearer sk-canary-1"));
        let line = world.access().pop().unwrap();
        assert_eq!(line["mode"], "header");
        assert_eq!(line["entities"], "openai");
        assert_eq!(line["references"], format!("openai-prod-key={outcome}"));
    }
    assert_eq!(world.secrets.calls(PATH), 1);
    assert!(!world.logs.text().contains("canary"), "{}", world.logs.text());
    assert!(!world.metrics.encode().contains("canary"));
}

#[tokio::test]
async fn each_failure_has_its_answer_and_its_line() {
    struct Case {
        answer: Answer,
        status: u16,
        code: &'static str,
        class: &'static str,
        retry_after: Option<&'static str>,
    }
    let fail = |class, status, code, name| Case {
        answer: Answer::fail(class).retry_after(Duration::from_millis(6500)),
        status,
        code,
        class: name,
        retry_after: None,
    };
    use FailureClass::*;
    let cases = [
        fail(Gone, 502, "secret_not_found", "gone"),
        fail(Denied, 502, "secret_denied", "denied"),
        fail(Unauthenticated, 502, "manager_unauthenticated", "unauthenticated"),
        fail(Disabled, 502, "secret_disabled", "disabled"),
        fail(Timeout, 504, "manager_timeout", "timeout"),
        fail(Malformed, 502, "secret_malformed", "malformed"),
        fail(Misconfigured, 502, "reference_misconfigured", "misconfigured"),
        Case { retry_after: Some("7"), ..fail(Throttled, 503, "manager_throttled", "throttled") },
        Case { retry_after: Some("7"), ..fail(Unavailable, 503, "manager_unavailable", "unavailable") },
        Case { answer: Answer::map(r#"{"other":"x"}"#), ..fail(Malformed, 502, "secret_malformed", "malformed") },
        Case { answer: Answer::map(r#"{"api_key":""}"#), ..fail(Malformed, 502, "secret_malformed", "malformed") },
    ];
    for Case { answer, status, code, class, retry_after } in cases {
        let world = world().await;
        world.secrets.script(PATH, [answer]);
        let reply =
            world.post("/v1/chat/completions").header("x-portkey-provider", "@openai").json(&json!({})).send().await;
        assert_eq!((reply.status, reply.code()), (status, Some(code)), "{class}: {reply:?}");
        assert_eq!(reply.header("retry-after"), retry_after, "{class}");
        let exception = (status != 503).then_some("true");
        assert_eq!(reply.header("x-portkey-gateway-exception"), exception, "{class}");
        for told in ["scripted", "openai-prod-key", "fake", PATH] {
            assert!(!reply.text().contains(told), "{class}: {} tells {told}", reply.text());
        }
        assert!(world.gateway.seen().is_empty(), "{class}: nothing is sent without a credential");

        let request_id = &reply.json()["error"]["request_id"];
        let line = world.log_lines("sidekey::proxy::access").pop().unwrap();
        assert_eq!(&line["request_id"], request_id, "{line}");
        assert_eq!(line["reference"], "openai-prod-key", "{line}");
        assert_eq!(line["manager"], "hashicorp_vault", "{line}");
        assert_eq!(line["class"], class, "{line}");
        let access = world.access().pop().unwrap();
        assert_eq!((&access["request_id"], &access["code"]), (request_id, &json!(code)));
    }
}

#[tokio::test]
async fn a_value_that_fits_no_header_is_not_sent() {
    let world = world().await;
    world.secrets.script(PATH, [Answer::map(r#"{"api_key":"sk-canary\r\nx-evil: 1"}"#)]);
    let reply =
        world.post("/v1/chat/completions").header("x-portkey-provider", "@openai").json(&json!({})).send().await;
    assert_eq!((reply.status, reply.code()), (502, Some("secret_malformed")), "{reply:?}");
    assert!(world.gateway.seen().is_empty());
    assert!(!reply.text().contains("canary") && !world.logs.text().contains("canary"));
}

#[tokio::test]
async fn what_cannot_be_named_is_told_by_name_and_why_only_in_the_log() {
    let world = world().await;
    let named = |slug: &str| world.post("/v1/chat/completions").header("x-portkey-provider", slug).json(&json!({}));
    let reply = named("@nobody").send().await;
    assert_eq!((reply.status, reply.code()), (400, Some("entity_not_found")), "{reply:?}");
    assert_eq!(reply.json()["message"], "Following keys are not valid: nobody");
    assert!(world.logs.text().contains("no such name"), "{}", world.logs.text());
    let reply = named("@cohere").send().await;
    assert_eq!((reply.status, reply.code()), (403, Some("entity_inactive")), "{reply:?}");
}

/// A fault of ours, as near as one can be made.
#[derive(Debug)]
struct Faulty;

impl Managers for Faulty {
    fn manager(&self, _: &Reference) -> Result<Arc<dyn SecretManager>, FetchError> {
        panic!("sk-canary-in-a-panic")
    }
}

#[tokio::test]
async fn a_fault_of_ours_takes_one_request_and_no_other() {
    let setup = Setup { snapshot: Some(snapshot()), managers: Some(Arc::new(Faulty)), ..Setup::default() };
    let world = World::start(setup).await;
    let reply =
        world.post("/v1/chat/completions").header("x-portkey-provider", "@openai").json(&json!({})).send().await;
    assert!(reply.status >= 500 && reply.code().is_some(), "{reply:?}");
    assert!(!reply.text().contains("canary") && !world.logs.text().contains("canary"));
    assert_eq!(world.get("/v1/models").send().await.status, 200);
}

#[tokio::test]
async fn readiness_names_what_is_degraded_and_stays() {
    let world = world().await;
    let admin = world.admin().await;
    world.secrets.script(PATH, [Answer::fail(FailureClass::Denied)]);
    world.post("/v1/chat/completions").header("x-portkey-provider", "@openai").json(&json!({})).send().await;
    let reply = within(async {
        loop {
            let reply = Call::to(admin, Method::GET, "/readyz").send().await;
            if reply.status == 200 {
                return reply;
            }
        }
    })
    .await;
    let degraded = &reply.json()["degraded"];
    assert_eq!(degraded["count"], 1, "{degraded}");
    assert_eq!(degraded["first"][0]["reference"], "openai-prod-key");
    assert_eq!(degraded["first"][0]["class"], "denied");
    assert_eq!(degraded["first"][0]["serves"], "nothing");
}
