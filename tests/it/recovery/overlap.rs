//! The manager is written before the provider follows: the version before works on.

use std::time::Duration;

use sidekey::{
    manager::FailureClass,
    resolve::{self, Suspicion},
};

use super::stage::{Secret, Stage, secret};
use crate::harness::{Setup, cache, pass, still};

const PREVIOUS: &str = "openai?previous";

async fn stage(overlap: u64, ttl: u64) -> Stage {
    let suspicion = Suspicion { overlap: Duration::from_secs(overlap), ..Suspicion::DEFAULT };
    let cache = resolve::Settings { suspicion, ttl: Duration::from_secs(ttl), refresh_ahead_ratio: 0.0, ..cache() };
    Stage::start(Setup { cache, ..Setup::default() }).await
}

#[tokio::test]
async fn the_version_before_is_served_until_the_provider_follows() {
    let stage = stage(300, 1).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    stage.accepts("openai", &["sk-1"]);
    assert_eq!(stage.chat().await.status, 200);
    // A refresh brings the new value, which the provider does not know yet.
    pass(Duration::from_secs(2)).await;
    stage.chat().await;
    while stage.world.secrets.calls("openai") < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        let reply = stage.chat().await;
        assert_eq!((reply.status, reply.json()["key"].as_str()), (200, Some("sk-1")));
    }
    assert_eq!(stage.recoveries(), [("earlier", 1)], "only one pays for it");
    assert_eq!(stage.world.secrets.calls(PREVIOUS), 0, "it was in memory");

    stage.accepts("openai", &["sk-2"]);
    for _ in 0..5 {
        let reply = stage.chat().await;
        assert_eq!((reply.status, reply.json()["key"].as_str()), (200, Some("sk-2")));
    }
    assert_eq!(stage.recoveries(), [("newer", 1), ("earlier", 1)]);
}

#[tokio::test]
async fn a_sidecar_that_never_saw_the_version_before_reads_it() {
    let stage = stage(300, 300).await;
    stage.world.secrets.script("openai", [secret("sk-2")]);
    stage.world.secrets.script(PREVIOUS, [secret("sk-1")]);
    stage.accepts("openai", &["sk-1"]);
    for _ in 0..3 {
        let reply = stage.chat().await;
        assert_eq!((reply.status, reply.json()["key"].as_str()), (200, Some("sk-1")));
    }
    assert_eq!((stage.world.secrets.calls("openai"), stage.world.secrets.calls(PREVIOUS)), (2, 1));
    assert_eq!(stage.sent(), ["sk-2", "sk-1", "sk-1", "sk-1"]);
}

#[tokio::test]
async fn the_version_before_is_tried_only_where_it_may_be() {
    struct Case {
        name: &'static str,
        overlap: u64,
        later: u64,
        previous: Secret,
        tried: bool,
    }
    let cases = [
        Case { name: "off", overlap: 0, later: 0, previous: secret("sk-1"), tried: false },
        Case { name: "on", overlap: 300, later: 0, previous: secret("sk-1"), tried: true },
        Case { name: "still", overlap: 300, later: 299, previous: secret("sk-1"), tried: true },
        Case { name: "over", overlap: 300, later: 301, previous: secret("sk-1"), tried: false },
        Case { name: "none", overlap: 300, later: 0, previous: Secret::fail(FailureClass::Gone), tried: false },
        Case { name: "the same", overlap: 300, later: 0, previous: secret("sk-2"), tried: false },
    ];
    for Case { name, overlap, later, previous, tried } in cases {
        let stage = stage(overlap, 3600).await;
        stage.world.secrets.script("openai", [secret("sk-2")]);
        stage.world.secrets.script(PREVIOUS, [previous]);
        stage.accepts("openai", &["sk-2"]);
        stage.chat().await;
        pass(Duration::from_secs(later)).await;
        stage.accepts("openai", &["sk-1"]);
        assert_eq!(stage.chat().await.status, if tried { 200 } else { 401 }, "{name}");
    }
}

#[tokio::test]
async fn refused_with_both_it_is_passed_on_and_not_tried_by_everyone() {
    let stage = stage(300, 300).await;
    stage.world.secrets.script("openai", [secret("sk-2")]);
    stage.world.secrets.script(PREVIOUS, [secret("sk-1")]);
    stage.accepts("openai", &[]);
    let reply = stage.chat().await;
    assert_eq!((reply.status, reply.json()["refused"].as_str()), (401, Some("2")), "the answer to the current one");
    assert_eq!(stage.sent(), ["sk-2", "sk-1"]);
    // The document rests, and what was refused is remembered.
    still(stage.many(1000)).await;
    assert_eq!(stage.sent().len(), 1002, "each is sent once");
    assert_eq!((stage.world.secrets.calls("openai"), stage.world.secrets.calls(PREVIOUS)), (3, 1));
}

#[tokio::test]
async fn a_secret_that_was_withdrawn_is_not_used_in_its_version_before() {
    for class in [FailureClass::Gone, FailureClass::Disabled] {
        let stage = stage(300, 1).await;
        stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2"), Secret::fail(class)]);
        stage.world.secrets.script(PREVIOUS, [secret("sk-1")]);
        stage.accepts("openai", &["sk-1", "sk-2"]);
        assert_eq!(stage.chat().await.status, 200);
        pass(Duration::from_secs(2)).await;
        while !stage.sent().iter().any(|key| key == "sk-2") {
            stage.chat().await;
        }
        // The provider knows the first key only, and the manager neither any more.
        stage.accepts("openai", &["sk-1"]);
        let before = stage.sent().len();
        assert_eq!(stage.chat().await.status, 401, "{class:?}");
        assert_eq!(stage.sent()[before..], ["sk-2"], "{class:?}");
        assert_eq!(stage.chat().await.status, 502, "{class:?}: nothing is left");
    }
}
