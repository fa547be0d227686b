//! Signals that a secret has changed, on a paused clock: what they lead to, and what they may not do.

use std::time::Duration;

use serde_json::json;
use sidekey::{
    manager::{
        FailureClass,
        fake::{Answer, Fake},
    },
    resolve::Settings,
};
use tokio::time::Instant;

use crate::resolver::{Rig, SETTINGS, hit, miss, pass, reference, secs, settle, snapshot, stale};

const PATH: &str = "secret/openai";

fn rig(settings: Settings, answers: impl IntoIterator<Item = Answer>) -> Rig {
    let rig = Rig::new(settings, &[("openai", PATH)]);
    rig.fake.script(PATH, answers);
    rig
}

/// A signal about every reference of the rig; how many documents it concerned.
fn signal(rig: &Rig) -> usize {
    rig.resolver.expiry().expire(&rig.snapshot.references)
}

fn signals(rig: &Rig, outcome: &str) -> u64 {
    let name = format!("sidekey_signals_total{{manager=\"hashicorp_vault\",outcome=\"{outcome}\"}} ");
    rig.metrics.encode().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_signal_has_the_secret_read_and_nobody_waits() {
    let rig = rig(SETTINGS, [Answer::text("1"), Answer::text("2").after(secs(3))]);
    assert_eq!(rig.get("openai").await, miss("1"));
    pass(secs(10)).await;
    assert_eq!(signal(&rig), 1);
    settle().await;
    let before = Instant::now();
    assert_eq!(rig.get("openai").await, stale("1"), "served on while it is read");
    assert_eq!(before.elapsed(), Duration::ZERO);
    pass(secs(3)).await;
    assert_eq!(rig.get("openai").await, hit("2"));
    pass(secs(60)).await;
    assert_eq!(rig.fake.calls(PATH), 2, "one read, because it brought something new");
    assert_eq!(signals(&rig, "changed"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_remembers_costs_nothing() {
    let rig = rig(SETTINGS, [Answer::text("1")]);
    assert_eq!(signal(&rig), 0);
    pass(secs(60)).await;
    assert_eq!(rig.fake.total_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_not_new_yet_is_looked_at_once_more() {
    let rig = rig(SETTINGS, [Answer::text("1"), Answer::text("1"), Answer::text("2")]);
    rig.get("openai").await;
    signal(&rig);
    settle().await;
    assert_eq!((rig.get("openai").await, rig.fake.calls(PATH)), (hit("1"), 2));
    pass(secs(5)).await;
    assert_eq!((rig.get("openai").await, rig.fake.calls(PATH)), (hit("2"), 3));
    rig.fake.script(PATH, [Answer::text("2")]);
    pass(secs(5)).await;
    signal(&rig);
    pass(secs(60)).await;
    assert_eq!(rig.fake.calls(PATH), 5, "and then no more");
    assert_eq!((signals(&rig, "changed"), signals(&rig, "unchanged")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_began_before_the_signal_does_not_count() {
    let rig = rig(SETTINGS, [Answer::text("1").after(secs(2)), Answer::text("2").after(secs(2))]);
    let request = {
        let (resolver, mapping) = (rig.resolver.clone(), rig.mapping("openai"));
        tokio::spawn(async move { resolver.resolve(&[mapping]).await })
    };
    pass(secs(1)).await;
    assert_eq!(signal(&rig), 1, "a first read is under way");
    pass(secs(2)).await;
    assert_eq!(request.await.unwrap().unwrap()[0].credential.expose(), "1");
    assert_eq!(rig.get("openai").await, stale("1"), "read before the signal");
    pass(secs(2)).await;
    assert_eq!(rig.get("openai").await, hit("2"));
    assert_eq!((rig.fake.calls(PATH), rig.fake.peak(PATH)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_signals_is_a_read_a_second_and_one_at_a_time() {
    let rig = rig(SETTINGS, [Answer::text("1"), Answer::text("2")]);
    rig.get("openai").await;
    for n in 0.. {
        rig.fake.script(PATH, [Answer::text(&n.to_string()).after(Duration::from_millis(50))]);
        signal(&rig);
        if n == 1000 {
            break;
        }
        pass(Duration::from_millis(10)).await;
    }
    pass(secs(10)).await;
    let calls = rig.fake.calls(PATH);
    assert!((5..=14).contains(&calls), "{calls} reads in ten seconds of signals");
    assert_eq!(rig.fake.peak(PATH), 1);
    assert_eq!(rig.get("openai").await, hit("1000"), "the last signal was answered too");
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_takes_nothing_away_and_is_made_up_for() {
    let rig = rig(SETTINGS, [Answer::text("1"), Answer::fail(FailureClass::Unavailable), Answer::text("2")]);
    rig.get("openai").await;
    signal(&rig);
    settle().await;
    assert_eq!(rig.get("openai").await, stale("1"));
    pass(secs(4)).await;
    assert_eq!(rig.fake.calls(PATH), 2, "the failure stands for 5 s");
    pass(secs(3)).await;
    assert_eq!(rig.fake.calls(PATH), 3, "in use, so read again without a request");
    assert_eq!(rig.get("openai").await, hit("2"));
    assert_eq!(signals(&rig, "failed"), 1);
}

#[tokio::test(start_paused = true)]
async fn not_even_where_nothing_may_be_stale() {
    let rig = rig(
        Settings { stale: Duration::ZERO, ..SETTINGS },
        [Answer::text("1"), Answer::hang(), Answer::fail(FailureClass::Timeout)],
    );
    rig.get("openai").await;
    signal(&rig);
    for _ in 0..29 {
        pass(secs(10)).await;
        let before = Instant::now();
        assert_eq!(rig.get("openai").await, stale("1"));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn one_identity_has_a_budget_for_it() {
    let references: Vec<_> = (0..200).map(|n| reference(&format!("r{n}"), &format!("secret/{n}"), json!({}))).collect();
    let rig = Rig::over(SETTINGS, snapshot(references), &Fake::new(), |managers| managers);
    for n in 0..200 {
        rig.fake.script(&format!("secret/{n}"), [Answer::text("1"), Answer::text("2")]);
        rig.get(&format!("r{n}")).await;
    }
    assert_eq!(signal(&rig), 200);
    settle().await;
    assert_eq!(rig.fake.total_calls() - 200, 64, "at once");
    pass(secs(10)).await;
    let calls = rig.fake.total_calls() - 200;
    assert!((144..=145).contains(&calls), "{calls} after ten seconds");
    pass(secs(10)).await;
    assert_eq!(rig.fake.total_calls() - 200, 200);
}

#[tokio::test(start_paused = true)]
async fn references_to_one_document_are_one_read() {
    let references = ["one", "two", "three"].map(|slug| reference(slug, PATH, json!({})));
    let rig = Rig::over(SETTINGS, snapshot(references), &Fake::new(), |managers| managers);
    rig.fake.script(PATH, [Answer::text("1"), Answer::text("2")]);
    rig.get("two").await;
    assert_eq!(signal(&rig), 1);
    settle().await;
    assert_eq!((rig.get("three").await, rig.fake.calls(PATH)), (hit("2"), 2));
}

#[tokio::test(start_paused = true)]
async fn what_the_snapshot_names_no_more_is_not_read() {
    let rig = rig(SETTINGS, [Answer::text("1"), Answer::text("1"), Answer::text("2")]);
    rig.get("openai").await;
    signal(&rig);
    settle().await;
    rig.resolver.retain(&snapshot([]));
    pass(secs(60)).await;
    assert_eq!(rig.fake.calls(PATH), 2, "no second look");
    assert_eq!(signals(&rig, "dropped"), 1);
}
