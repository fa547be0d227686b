//! Config mode: who is to blame where several targets were tried.

use serde_json::{Value, json};

use crate::harness::Setup;

use super::stage::{Stage, secret};

async fn stage() -> Stage {
    let stage = Stage::start(Setup::default()).await;
    for name in ["openai", "second", "third"] {
        let old = format!("{name}-1");
        stage.world.secrets.script(name, [secret(&old), secret(&format!("{name}-2"))]);
        stage.accepts(name, &[&old]);
    }
    // All are in memory.
    for name in ["openai", "second", "third"] {
        stage.call(&[("x-portkey-provider", &format!("@{name}"))]).send().await;
    }
    stage
}

fn router(mode: &str, targets: &[Value]) -> Value {
    json!({ "strategy": { "mode": mode }, "targets": targets })
}

fn leaf(slug: &str) -> Value {
    json!({ "provider": format!("@{slug}") })
}

/// Waits until the reads are `expected`, one number for each secret.
async fn reads(stage: &Stage, expected: [usize; 3]) {
    let reads = || ["openai", "second", "third"].map(|path| stage.world.secrets.calls(path));
    crate::harness::within(async {
        while reads() != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_target_of_a_config_is_sent_again() {
    let stage = stage().await;
    stage.accepts("openai", &["openai-2"]);
    let reply = stage.with_config(&json!({ "provider": "@openai", "retry": { "attempts": 1 } })).await;
    assert_eq!((reply.status, reply.json()["key"].as_str()), (200, Some("openai-2")));
    reads(&stage, [2, 1, 1]).await;
}

#[tokio::test]
async fn only_the_target_that_was_used_is_read_again() {
    let stage = stage().await;
    stage.accepts("second", &["second-2"]);
    let config = router("loadbalance", &[leaf("openai"), leaf("third"), leaf("second")]);
    assert_eq!(stage.with_config(&config).await.status, 200);
    reads(&stage, [1, 2, 1]).await;
    assert_eq!(stage.recoveries(), [("newer", 1)]);
}

#[tokio::test]
async fn a_fallback_that_went_past_a_target_is_answered_at_once_and_mended_for_the_next() {
    let stage = stage().await;
    let config = router("fallback", &[leaf("openai"), leaf("second")]);
    stage.accepts("openai", &["openai-2"]);
    let reply = stage.with_config(&config).await;
    assert_eq!((reply.status, reply.json()["key"].as_str()), (200, Some("second-1")), "not sent again");
    reads(&stage, [2, 1, 1]).await;
    stage.world.logged("has changed").await;
    assert_eq!(stage.with_config(&config).await.json()["key"], "openai-2");
    assert_eq!(stage.recoveries(), [("skipped", 1)]);

    // Then the second one rotates too, unseen until it is needed.
    stage.accepts("second", &["second-2"]);
    stage.accepts("openai", &[]);
    let reply = stage.with_config(&config).await;
    assert_eq!((reply.status, reply.json()["key"].as_str()), (200, Some("second-2")));
}

#[tokio::test]
async fn when_every_target_refuses_all_of_them_are_read_again() {
    let stage = stage().await;
    let config = router("fallback", &[leaf("openai"), router("loadbalance", &[leaf("second"), leaf("third")])]);
    stage.accepts("openai", &["openai-2"]);
    stage.accepts("second", &["second-2"]);
    stage.accepts("third", &["third-2"]);
    let reply = stage.with_config(&config).await;
    assert_eq!((reply.status, reply.json()["key"].as_str()), (200, Some("openai-2")));
    reads(&stage, [2, 1, 2]).await;
}

#[tokio::test]
async fn a_target_of_the_client_is_not_ours_to_mend() {
    let stage = stage().await;
    let own = json!({ "provider": "openai", "api_key": "sk-own" });
    let reply = stage.with_config(&router("loadbalance", &[leaf("openai"), own.clone()])).await;
    assert_eq!((reply.status, stage.recoveries()), (401, vec![]));
    reads(&stage, [1, 1, 1]).await;
}
