//! The life of a remembered secret, on a paused clock: fresh, refreshed, stale, refused, forgotten.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::json;
use sidekey::{
    manager::{
        FailureClass, Version,
        fake::{Answer, Fake},
    },
    model::ValueFormat,
    resolve::{Outcome, Probe, Settings, SlotState, Uses},
};
use tokio::time::Instant;

use crate::resolver::{Got, Rig, SETTINGS, hit, mapping, miss, pass, reference, secs, settle, snapshot, stale, token};

mod failure;
mod log;
mod memory;
mod model;

const CLASSES: [FailureClass; 9] = [
    FailureClass::Gone,
    FailureClass::Denied,
    FailureClass::Unauthenticated,
    FailureClass::Disabled,
    FailureClass::Throttled,
    FailureClass::Unavailable,
    FailureClass::Timeout,
    FailureClass::Malformed,
    FailureClass::Misconfigured,
];

/// Nothing is read that nobody asks for.
const NO_AHEAD: Settings = Settings { refresh_ahead_ratio: 0.0, ..SETTINGS };

fn rig(settings: Settings, answers: impl IntoIterator<Item = Answer>) -> Rig {
    let rig = Rig::new(settings, &[("openai", "secret/openai")]);
    rig.fake.script("secret/openai", answers);
    rig
}

#[tokio::test(start_paused = true)]
async fn fresh_then_refreshed_ahead_of_time_while_used() {
    let rig = rig(SETTINGS, [Answer::text("1"), Answer::text("2"), Answer::text("3")]);
    assert_eq!(rig.get("openai").await, miss("1"));
    pass(secs(10)).await;
    assert_eq!(rig.get("openai").await, hit("1"));
    pass(secs(228)).await;
    assert_eq!(rig.fake.calls("secret/openai"), 1, "before 0.8 of the lifetime");
    pass(secs(3)).await;
    assert_eq!(rig.fake.calls("secret/openai"), 2, "used, so refreshed without a request");
    assert_eq!(rig.get("openai").await, hit("2"));

    // Used at once after that, and again refreshed; then left alone.
    pass(secs(245)).await;
    assert_eq!(rig.fake.calls("secret/openai"), 3);
    pass(secs(600)).await;
    assert_eq!(rig.fake.calls("secret/openai"), 3, "not used since its fetch");
}

#[tokio::test(start_paused = true)]
async fn everything_remembered_is_read_again_on_demand() {
    let rig = Rig::new(SETTINGS, &[("one", "secret/one"), ("two", "secret/two"), ("unread", "secret/unread")]);
    rig.fake.script("secret/one", [Answer::text("1"), Answer::text("2")]);
    rig.fake.script("secret/two", [Answer::text("a"), Answer::fail(FailureClass::Unavailable)]);
    assert_eq!((rig.get("one").await, rig.get("two").await), (miss("1"), miss("a")));
    rig.resolver.refresh_all().await;
    assert_eq!((rig.get("one").await, rig.get("two").await), (hit("2"), hit("a")), "a failure takes nothing away");
    assert_eq!((rig.fake.calls("secret/two"), rig.fake.calls("secret/unread")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_past_the_ratio_refreshes_what_nobody_used_before() {
    let rig = rig(SETTINGS, [Answer::text("1"), Answer::text("2").after(secs(2))]);
    rig.get("openai").await;
    pass(secs(250)).await;
    let before = Instant::now();
    assert_eq!(rig.get("openai").await, hit("1"));
    assert_eq!(before.elapsed(), Duration::ZERO, "a refresh makes nobody wait");
    assert_eq!(rig.get("openai").await, hit("1"));
    pass(secs(3)).await;
    assert_eq!(rig.get("openai").await, hit("2"));
    assert_eq!(rig.fake.calls("secret/openai"), 2);
}

#[tokio::test(start_paused = true)]
async fn refresh_ahead_goes_by_the_lifetime_of_those_who_use_it() {
    let references = [("minute", 60), ("hour", 3600)];
    let references = references.map(|(slug, ttl)| reference(slug, "shared", json!({"ttl_secs": ttl})));
    let rig = Rig::over(SETTINGS, snapshot(references), &Fake::new(), |managers| managers);
    rig.fake.script("shared", [Answer::text("1")]);
    rig.get("minute").await;
    rig.get("hour").await;
    pass(secs(100)).await;
    assert_eq!(rig.fake.calls("shared"), 1, "in use for an hour");
    rig.get("minute").await;
    settle().await;
    rig.get("minute").await;
    pass(secs(50)).await;
    assert_eq!(rig.fake.calls("shared"), 3, "in use for a minute");
}

#[tokio::test(start_paused = true)]
async fn refresh_ahead_can_be_off() {
    let rig = rig(NO_AHEAD, [Answer::text("1"), Answer::text("2")]);
    rig.get("openai").await;
    pass(secs(299)).await;
    assert_eq!(rig.get("openai").await, hit("1"));
    assert_eq!(rig.fake.calls("secret/openai"), 1);
}

#[tokio::test(start_paused = true)]
async fn stale_is_served_once_and_refreshed() {
    let rig = rig(SETTINGS, [Answer::text("1"), Answer::text("2")]);
    rig.get("openai").await;
    pass(secs(301)).await;
    assert_eq!(rig.get("openai").await, stale("1"));
    settle().await;
    assert_eq!(rig.get("openai").await, hit("2"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_survived_to_the_hard_bound_and_not_beyond() {
    let down = Answer::fail(FailureClass::Unavailable).after(Duration::from_millis(20));
    let rig = rig(SETTINGS, [Answer::text("1"), down]);
    let fetched_at = Instant::now();
    assert_eq!(rig.get("openai").await, miss("1"));
    let mut requests = 0;
    while fetched_at.elapsed() < secs(3899) {
        pass(secs(1)).await;
        let resolved = rig.resolve("openai").await.expect("the value stands in");
        assert_eq!(resolved.credential.expose(), "1");
        assert_eq!(resolved.age, fetched_at.elapsed());
        assert_eq!(resolved.outcome, if resolved.age < secs(300) { Outcome::Hit } else { Outcome::Stale });
        requests += 1;
    }
    assert!(requests >= 3899);
    // Reads rest for negative_ttl after each failure.
    let calls = rig.fake.calls("secret/openai");
    assert!((500..=1 + 3660 / 5).contains(&calls), "{calls}");

    pass(secs(1)).await;
    let error = rig.resolve("openai").await.unwrap_err();
    assert_eq!(error.class, FailureClass::Unavailable);
    assert!(error.retry_after.is_some_and(|time| time <= secs(5)), "{:?}", error.retry_after);

    rig.fake.script("secret/openai", [Answer::text("2")]);
    pass(secs(6)).await;
    assert_eq!(rig.get("openai").await, miss("2"), "recovers without a restart");
}

#[tokio::test(start_paused = true)]
async fn never_stale_when_stale_is_zero() {
    let settings = Settings { stale: Duration::ZERO, ..NO_AHEAD };
    let rig = rig(settings, [Answer::text("1"), Answer::fail(FailureClass::Timeout), Answer::text("2")]);
    rig.get("openai").await;
    pass(secs(299)).await;
    assert_eq!(rig.get("openai").await, hit("1"));
    pass(secs(1)).await;
    assert_eq!(rig.get("openai").await, Got::Error(FailureClass::Timeout));
    pass(secs(5)).await;
    assert_eq!(rig.get("openai").await, miss("2"));
}

#[tokio::test(start_paused = true)]
async fn a_ttl_of_zero_reads_each_time_and_still_survives_an_outage() {
    let down = Answer::fail(FailureClass::Unavailable);
    let settings = Settings { ttl: Duration::ZERO, stale: secs(60), ..SETTINGS };
    let rig = rig(settings, [Answer::text("1"), Answer::text("2"), down.clone(), down, Answer::text("3")]);
    assert_eq!(rig.get("openai").await, miss("1"));
    assert_eq!(rig.get("openai").await, miss("2"));
    assert_eq!(rig.get("openai").await, stale("2"));
    assert_eq!(rig.get("openai").await, stale("2"), "the failure is remembered: no read for each request");
    assert_eq!(rig.fake.calls("secret/openai"), 3);
    pass(secs(60)).await;
    assert_eq!(rig.get("openai").await, Got::Error(FailureClass::Unavailable), "the hard bound");
    pass(secs(5)).await;
    assert_eq!(rig.get("openai").await, miss("3"));
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_says_when_to_come_back_is_left_alone_until_then() {
    let throttled = Answer::fail(FailureClass::Throttled).retry_after(secs(30));
    let rig = rig(SETTINGS, [throttled, Answer::text("1")]);
    let error = rig.resolve("openai").await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (FailureClass::Throttled, Some(secs(30))));
    pass(secs(20)).await;
    let error = rig.resolve("openai").await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (FailureClass::Throttled, Some(secs(10))));
    assert_eq!(rig.fake.calls("secret/openai"), 1);
    pass(secs(10)).await;
    assert_eq!(rig.get("openai").await, miss("1"));
}

#[tokio::test(start_paused = true)]
async fn unchanged_content_keeps_its_prepared_value() {
    let rig = rig(
        NO_AHEAD,
        [
            Answer::text("1").version("1"),
            Answer::text("1").version("1"),
            Answer::unchanged(),
            Answer::text("2").version("2"),
        ],
    );
    let mut before = rig.resolve("openai").await.unwrap().credential;
    for (round, same) in [(1, true), (2, true), (3, false)] {
        pass(secs(301)).await;
        rig.get("openai").await;
        settle().await;
        let after = rig.resolve("openai").await.unwrap();
        assert_eq!((after.outcome, after.age.as_secs()), (Outcome::Hit, 0), "round {round}");
        assert_eq!(Arc::ptr_eq(&before, &after.credential), same, "round {round}");
        before = after.credential;
    }
    let version = |name: &str| Some(Version(name.into()));
    assert_eq!(rig.fake.known("secret/openai"), [None, version("1"), version("1"), version("1")]);
}

#[tokio::test(start_paused = true)]
async fn references_with_other_lifetimes_share_a_document_each_by_its_own() {
    let lifetimes = [("minute", json!(60)), ("hour", json!(3600)), ("always", json!(0)), ("default", json!(null))];
    let references = lifetimes.map(|(slug, ttl)| reference(slug, "shared", json!({"ttl_secs": ttl})));
    let rig = Rig::over(SETTINGS, snapshot(references), &Fake::new(), |managers| managers);
    rig.fake.script("shared", [Answer::text("1"), Answer::text("2"), Answer::text("3")]);
    rig.resolver.retain(&rig.snapshot);
    assert_eq!(rig.get("minute").await, miss("1"));
    pass(secs(59)).await;
    for slug in ["hour", "default"] {
        assert_eq!(rig.get(slug).await, hit("1"), "{slug}");
    }
    pass(secs(2)).await;
    assert_eq!(rig.get("hour").await, hit("1"));
    assert_eq!(rig.get("minute").await, stale("1"));
    settle().await;
    assert_eq!(rig.get("hour").await, hit("2"), "everyone has what one of them fetched");
    assert_eq!(rig.get("always").await, miss("3"));
}

#[tokio::test(start_paused = true)]
async fn the_managers_end_of_validity_is_kept() {
    let end = SystemTime::now() + secs(60);
    let rig = rig(SETTINGS, [Answer::text("1").not_after(end), Answer::fail(FailureClass::Unavailable)]);
    rig.get("openai").await;
    pass(secs(58)).await;
    assert_eq!(rig.get("openai").await, hit("1"));
    pass(secs(2)).await;
    assert_eq!(rig.get("openai").await, Got::Error(FailureClass::Unavailable));

    let rig = self::rig(SETTINGS, [Answer::text("1").not_after(SystemTime::now() - secs(1))]);
    assert_eq!(rig.get("openai").await, Got::Error(FailureClass::Disabled), "over before it arrived");
}
