//! A credential that is refused upstream: read again, sent again, and never more than that.

use std::time::Duration;

use serde_json::json;
use sidekey::manager::FailureClass;
use tokio::time::Instant;

use crate::harness::Setup;

mod bodies;
mod config;
mod overlap;
mod stage;

use stage::{Secret, Stage, secret};

#[tokio::test]
async fn a_rotated_key_costs_the_client_nothing() {
    let stage = Stage::start(Setup::default()).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    stage.accepts("openai", &["sk-1"]);
    assert_eq!(stage.chat().await.status, 200);

    stage.accepts("openai", &["sk-2"]);
    let reply = stage.chat().await;
    assert_eq!((reply.status, reply.json()["key"].as_str()), (200, Some("sk-2")), "{reply:?}");
    assert_eq!(stage.sent(), ["sk-1", "sk-1", "sk-2"]);
    assert_eq!(stage.world.secrets.calls("openai"), 2);
    let bodies: Vec<_> = stage.world.gateway.seen().iter().map(|seen| seen.json()["n"].clone()).collect();
    assert_eq!(bodies, [1, 1, 1], "the body is sent again");
    assert_eq!(stage.recoveries(), [("newer", 1)]);
    let access = stage.world.access();
    assert_eq!((access[0].get("recovery"), access[1]["recovery"].as_str()), (None, Some("newer")));

    // The next one does not pay for it.
    assert_eq!(stage.chat().await.status, 200);
    assert_eq!(stage.sent().len(), 4);
}

#[tokio::test]
async fn what_is_not_ours_or_not_refused_is_passed_on() {
    struct Case {
        name: &'static str,
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        looked_after: bool,
    }
    let ours = &[("x-portkey-provider", "@openai")][..];
    let cases = [
        Case { name: "refused", status: 401, headers: ours, looked_after: true },
        Case { name: "forbidden", status: 403, headers: ours, looked_after: true },
        Case { name: "other errors", status: 400, headers: ours, looked_after: false },
        Case { name: "throttled", status: 429, headers: ours, looked_after: false },
        Case { name: "broken", status: 500, headers: ours, looked_after: false },
        Case {
            name: "the client's own key",
            status: 401,
            headers: &[("x-portkey-provider", "openai"), ("authorization", "Bearer own")],
            looked_after: false,
        },
        Case {
            name: "a key that stands in the snapshot",
            status: 401,
            headers: &[("x-portkey-provider", "@stored")],
            looked_after: false,
        },
    ];
    for Case { name, status, headers, looked_after } in cases {
        let stage = Stage::start(Setup::default()).await;
        stage.world.secrets.script("openai", [secret("sk-1")]);
        stage.accepts("openai", &["sk-1"]);
        stage.chat().await;
        let reads = stage.world.secrets.calls("openai");
        stage.world.gateway.answer(move |_| crate::harness::Answer::text(status, "no").header("x-custom", "1"));
        let reply = stage.call(headers).send().await;
        assert_eq!(
            (reply.status, reply.text().as_str(), reply.header("x-custom")),
            (status, "no", Some("1")),
            "{name}"
        );
        assert_eq!(stage.world.gateway.seen().len(), 2, "{name}: sent once");
        assert_eq!(stage.world.secrets.calls("openai") > reads, looked_after, "{name}");
        assert_eq!(!stage.recoveries().is_empty(), looked_after, "{name}");
    }
}

#[tokio::test]
async fn a_provider_that_is_a_moment_ahead_is_caught_up_with() {
    let stage = Stage::start(Setup::default()).await;
    // The first read still brings the old value, the second one the new.
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-1"), secret("sk-2")]);
    stage.accepts("openai", &["sk-2"]);
    assert_eq!(stage.chat().await.status, 200);
    assert_eq!(stage.sent(), ["sk-1", "sk-2"]);
    assert_eq!((stage.world.secrets.calls("openai"), stage.recoveries()), (3, vec![("newer", 1)]));
}

#[tokio::test]
async fn a_second_refusal_is_passed_on() {
    let stage = Stage::start(Setup::default()).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2"), secret("sk-3")]);
    stage.accepts("openai", &[]);
    let reply = stage.chat().await;
    assert_eq!((reply.status, reply.json()["refused"].as_str()), (401, Some("2")), "{reply:?}");
    assert_eq!(stage.sent(), ["sk-1", "sk-2"]);
    assert_eq!(stage.recoveries(), [("refused", 1)]);
}

#[tokio::test]
async fn provoked_refusals_cost_a_bounded_number_of_reads() {
    let stage = Stage::start(Setup::default()).await;
    stage.world.secrets.script("openai", [secret("sk-1")]);
    stage.accepts("openai", &["sk-1"]);
    stage.chat().await;
    stage.accepts("openai", &[]);
    let began = Instant::now();
    let replies = stage.many(300).await;
    assert!(replies.iter().all(|reply| reply.status == 401));
    // Two for each inquiry, and the rests between those are 1, 2, 4 … s.
    let (reads, most) = (stage.world.secrets.calls("openai"), 1 + 2 * inquiries_within(began.elapsed()));
    assert!(reads <= most, "300 refusals, {reads} reads, {most} allowed");
    assert_eq!(stage.recoveries(), [("unchanged", 300)]);
    // While it rests a rotation is seen by the next refresh only; after that by the next refusal.
    crate::harness::pass(Duration::from_secs(20)).await;
    stage.world.secrets.script("openai", [secret("sk-2")]);
    stage.accepts("openai", &["sk-2"]);
    assert_eq!(stage.chat().await.status, 200);
}

/// How many inquiries into one document can begin in this time when none finds anything.
fn inquiries_within(time: Duration) -> usize {
    let rests = std::iter::successors(Some(1), |rest| Some((rest * 2).min(10)));
    let began = rests.scan(Duration::ZERO, |passed, rest| {
        *passed += Duration::from_secs(rest);
        Some(*passed)
    });
    1 + began.take_while(|at| *at <= time).count()
}

#[tokio::test]
async fn a_thousand_refused_at_once_share_one_read() {
    let stage = Stage::start(Setup::default()).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2").after(Duration::from_millis(100))]);
    stage.accepts("openai", &["sk-1"]);
    stage.chat().await;
    stage.accepts("openai", &["sk-2"]);
    let replies = stage.many(1000).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(stage.world.secrets.calls("openai"), 2);
}

#[tokio::test]
async fn a_manager_that_fails_leaves_the_refusal_as_it_is() {
    for class in [FailureClass::Unavailable, FailureClass::Denied, FailureClass::Throttled] {
        let stage = Stage::start(Setup::default()).await;
        stage.world.secrets.script("openai", [secret("sk-1"), Secret::fail(class)]);
        stage.accepts("openai", &[]);
        let reply = stage.chat().await;
        assert_eq!((reply.status, reply.json()["refused"].as_str()), (401, Some("1")), "{class:?}");
        // It is remembered that the manager fails, and it is not asked by every refusal.
        stage.many(20).await;
        assert_eq!(stage.world.secrets.calls("openai"), 2, "{class:?}");
    }
}

#[tokio::test]
async fn a_slow_manager_does_not_hold_the_answer_for_ever() {
    let stage = Stage::start(Setup::default()).await;
    stage.world.secrets.script("openai", [secret("sk-1"), Secret::hang()]);
    stage.accepts("openai", &[]);
    let answered = tokio::spawn(stage.call(&[("x-portkey-provider", "@openai")]).send());
    stage.reading("openai").await;
    crate::harness::pass(Duration::from_secs(6)).await;
    assert_eq!(crate::harness::within(answered).await.unwrap().status, 401);
}

#[tokio::test]
async fn a_client_that_leaves_takes_nobody_with_it() {
    let stage = Stage::start(Setup::default()).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2").after(Duration::from_millis(200))]);
    stage.accepts("openai", &["sk-1"]);
    stage.chat().await;
    stage.accepts("openai", &["sk-2"]);
    let leaving = tokio::spawn(stage.call(&[("x-portkey-provider", "@openai")]).send());
    stage.reading("openai").await;
    let staying = tokio::spawn(stage.call(&[("x-portkey-provider", "@openai")]).send());
    leaving.abort();
    assert_eq!(crate::harness::within(staying).await.unwrap().status, 200);
    assert_eq!(stage.world.secrets.calls("openai"), 2);
}

#[tokio::test]
async fn a_second_sending_that_fails_leaves_the_first_answer() {
    let raw = crate::harness::Raw::bind().await;
    let stage = Stage::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    let answered = tokio::spawn(stage.call(&[("x-portkey-provider", "@openai")]).send());
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway.send("HTTP/1.1 401 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
    let again = raw.accept().await;
    drop((again, raw));
    let reply = crate::harness::within(answered).await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (401, "no"));
    assert_eq!(stage.recoveries(), [("failed", 1)]);
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let setup = Setup { proxy: Box::new(|settings| settings.recovery = None), ..Setup::default() };
    let stage = Stage::start(setup).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    stage.accepts("openai", &["sk-2"]);
    assert_eq!(stage.chat().await.status, 401);
    assert_eq!((stage.world.secrets.calls("openai"), stage.recoveries()), (1, vec![]));
}

#[tokio::test]
async fn an_answer_to_a_second_sending_is_searched_for_what_was_sent() {
    let stage = Stage::start(Setup::default()).await;
    stage.world.secrets.script("openai", [secret("sk-canary-1"), secret("sk-canary-2")]);
    stage.world.gateway.answer(|seen| {
        let key = seen.header("authorization").unwrap_or_default().to_owned();
        crate::harness::Answer::text(if key.ends_with('1') { 401 } else { 500 }, json!({ "seen": key }).to_string())
    });
    let reply = stage.chat().await;
    assert_eq!((reply.status, reply.text().as_str()), (500, r#"{"seen":"Bearer [redacted]"}"#));
}

#[tokio::test]
async fn over_http2_too() {
    let stage = Stage::start(Setup::default()).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    stage.accepts("openai", &["sk-2"]);
    let reply = stage.call(&[("x-portkey-provider", "@openai")]).send_http2().await;
    assert_eq!((reply.status, stage.sent()), (200, vec!["sk-1".to_owned(), "sk-2".to_owned()]));
    assert_eq!(stage.world.gateway.last().json()["n"], 1);
}
