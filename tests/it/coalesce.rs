//! One read of a document at a time, whoever asks, leaves, or fails.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use sidekey::{
    manager::{
        FailureClass,
        fake::{Answer, Fake},
    },
    resolve::{Outcome, Settings},
};
use tokio::{task::JoinSet, time::Instant};

use crate::resolver::{Got, Rig, SETTINGS, got, hit, miss, pass, reference, secs, settle, snapshot, stale, token};

/// `count` requests for `slug` at once; their answers in no order.
async fn at_once(rig: &Rig, slug: &str, count: usize) -> Vec<Got> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let (resolver, mapping) = (Arc::clone(&rig.resolver), rig.mapping(slug));
        requests.spawn(async move { got(resolver.resolve(&[mapping]).await) });
    }
    requests.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_for_a_cold_secret_are_one_read() {
    let rig = Rig::new(SETTINGS, &[("openai", "secret/openai")]);
    rig.fake.script("secret/openai", [Answer::text("1").after(Duration::from_millis(50))]);
    let answers = at_once(&rig, "openai", 1000).await;
    assert!(answers.iter().all(|answer| *answer == miss("1")));
    assert_eq!(rig.fake.calls("secret/openai"), 1);
}

/// The same on real threads with a manager that answers at once: a request that looked before the read landed must not
/// start a second one after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_second_read_slips_in_between_look_and_landing() {
    for round in 0..50 {
        let rig = Rig::new(SETTINGS, &[("openai", "secret/openai")]);
        rig.fake.script("secret/openai", [Answer::text("1")]);
        let answers = at_once(&rig, "openai", 100).await;
        assert!(answers.iter().all(|answer| matches!(answer, Got::Value(..))), "round {round}");
        assert_eq!(rig.fake.calls("secret/openai"), 1, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn five_keys_of_one_secret_are_one_read() {
    let rig = Rig::new(SETTINGS, &[("aws", "secret/aws"), ("same", "secret/aws")]);
    let document = r#"{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}"#;
    rig.fake.script("secret/aws", [Answer::map(document).after(Duration::from_millis(50))]);
    let mappings = [("aws", "a"), ("aws", "b"), ("same", "c"), ("aws", "d"), ("same", "e")];
    let mappings = mappings.map(|(slug, key)| rig.member(slug, key));
    let resolved = rig.resolver.resolve(&mappings).await.unwrap();
    let values: Vec<_> = resolved.iter().map(|resolved| resolved.credential.expose()).collect();
    assert_eq!(values, ["1", "2", "3", "4", "5"]);
    assert_eq!(rig.fake.calls("secret/aws"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_fails_nobody() {
    let rig = Rig::new(SETTINGS, &[("openai", "secret/openai")]);
    rig.fake.script("secret/openai", [Answer::text("1").after(secs(1))]);
    let ask = || {
        let (resolver, mapping) = (Arc::clone(&rig.resolver), rig.mapping("openai"));
        tokio::spawn(async move { got(resolver.resolve(&[mapping]).await) })
    };
    let leader = ask();
    settle().await;
    assert_eq!(rig.fake.running("secret/openai"), 1);
    let followers: Vec<_> = (0..10).map(|_| ask()).collect();
    settle().await;
    leader.abort();
    for follower in followers {
        assert_eq!(follower.await.unwrap(), miss("1"));
    }
    assert_eq!(rig.fake.calls("secret/openai"), 1);

    // Also when nobody is left: what was read is there for the next.
    let rig = Rig::new(SETTINGS, &[("openai", "secret/openai")]);
    rig.fake.script("secret/openai", [Answer::text("1").after(secs(1))]);
    let waited = tokio::time::timeout(Duration::from_millis(10), rig.get("openai")).await;
    assert!(waited.is_err());
    pass(secs(1)).await;
    assert_eq!(rig.get("openai").await, hit("1"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_and_remembered() {
    let rig = Rig::new(SETTINGS, &[("openai", "secret/openai")]);
    rig.fake.script("secret/openai", [Answer::fail(FailureClass::Throttled).after(secs(1))]);
    let answers = at_once(&rig, "openai", 100).await;
    assert!(answers.iter().all(|answer| *answer == Got::Error(FailureClass::Throttled)));
    assert_eq!(at_once(&rig, "openai", 100).await.len(), 100);
    assert_eq!(rig.fake.calls("secret/openai"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_panics_or_hangs_is_a_failure_like_others() {
    struct Case {
        answer: Answer,
        class: FailureClass,
        within: Duration,
    }
    let cases = [
        Case { answer: Answer::panic(), class: FailureClass::Unavailable, within: Duration::ZERO },
        Case { answer: Answer::panic().after(secs(1)), class: FailureClass::Unavailable, within: secs(1) },
        Case { answer: Answer::hang(), class: FailureClass::Timeout, within: secs(9) },
        Case { answer: Answer::text("late").after(secs(60)), class: FailureClass::Timeout, within: secs(9) },
    ];
    for Case { answer, class, within } in cases {
        let rig = Rig::new(SETTINGS, &[("openai", "secret/openai")]);
        rig.fake.script("secret/openai", [answer.clone(), Answer::text("1"), answer]);
        let before = Instant::now();
        let answers = at_once(&rig, "openai", 20).await;
        assert!(answers.iter().all(|answer| *answer == Got::Error(class)), "{answers:?}");
        assert_eq!((before.elapsed(), rig.fake.running("secret/openai")), (within, 0), "{class:?}");
        pass(secs(6)).await;
        assert_eq!(rig.get("openai").await, miss("1"), "{class:?}: the next read works");
        // And it takes no value away.
        pass(secs(301)).await;
        assert_eq!(rig.get("openai").await, stale("1"), "{class:?}");
        pass(secs(10)).await;
        assert_eq!(rig.get("openai").await, stale("1"), "{class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_refresh_makes_nobody_wait() {
    let rig = Rig::new(SETTINGS, &[("openai", "secret/openai"), ("other", "secret/other")]);
    rig.fake.script("secret/openai", [Answer::text("1"), Answer::hang()]);
    rig.fake.script("secret/other", [Answer::text("2")]);
    rig.get("openai").await;
    pass(secs(301)).await;
    let before = Instant::now();
    let answers = at_once(&rig, "openai", 100).await;
    assert!(answers.iter().all(|answer| *answer == stale("1")));
    assert_eq!(rig.get("other").await, miss("2"));
    assert_eq!(before.elapsed(), Duration::ZERO);
    settle().await;
    assert_eq!((rig.fake.calls("secret/openai"), rig.fake.running("secret/openai")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn two_identities_share_no_read() {
    let (one, two) = (Fake::new(), Fake::new());
    one.script("path", [Answer::text("of one").after(secs(1))]);
    two.script("path", [Answer::text("of two").after(secs(1))]);
    let references = [reference("one", "path", json!({})), reference("two", "path", token("t-2"))];
    let rig = Rig::over(SETTINGS, snapshot(references), &one, |managers| managers.with("two", &two));
    let mappings = [rig.mapping("one"), rig.mapping("two")];
    let resolved = rig.resolver.resolve(&mappings).await.unwrap();
    assert_eq!((resolved[0].credential.expose(), resolved[1].credential.expose()), ("of one", "of two"));
    assert_eq!((one.calls("path"), two.calls("path")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn two_versions_share_no_read() {
    let rig = Rig::new(SETTINGS, &[("now", "secret/data/a"), ("then", "secret/data/a?version=3")]);
    rig.fake.script("secret/data/a", [Answer::text("now")]);
    rig.fake.script("secret/data/a?version=3", [Answer::text("then")]);
    assert_eq!((rig.get("now").await, rig.get("then").await), (miss("now"), miss("then")));
    assert_eq!((rig.get("now").await, rig.get("then").await), (hit("now"), hit("then")));
}

#[tokio::test(start_paused = true)]
async fn a_read_for_each_request_is_still_one_for_those_at_once() {
    let settings = Settings { ttl: Duration::ZERO, ..SETTINGS };
    let rig = Rig::new(settings, &[("openai", "secret/openai")]);
    rig.fake.script("secret/openai", [Answer::text("1").after(secs(1)), Answer::text("2").after(secs(1))]);
    for value in ["1", "2"] {
        let answers = at_once(&rig, "openai", 100).await;
        assert!(answers.iter().all(|answer| *answer == Got::Value(value.into(), Outcome::Miss)), "{answers:?}");
    }
    assert_eq!(rig.fake.calls("secret/openai"), 2);
}

/// An eviction while a read is under way must not let a second one start.
#[tokio::test(start_paused = true)]
async fn eviction_does_not_break_coalescing() {
    let paths: Vec<_> = (0..20).map(|n| format!("p{n}")).collect();
    let references: Vec<_> = paths.iter().map(|path| (path.as_str(), path.as_str())).collect();
    let rig = Rig::new(Settings { max_entries: 1, ..SETTINGS }, &references);
    rig.fake.script("p0", [Answer::text("p0").after(secs(30).min(SETTINGS.deadline))]);
    for path in &paths[1..] {
        rig.fake.script(path, [Answer::text(path)]);
    }
    let first = tokio::spawn({
        let (resolver, mapping) = (Arc::clone(&rig.resolver), rig.mapping("p0"));
        async move { got(resolver.resolve(&[mapping]).await) }
    });
    settle().await;
    for path in &paths[1..] {
        assert_eq!(rig.get(path).await, miss(path));
        pass(Duration::from_millis(100)).await;
    }
    assert_eq!(rig.get("p0").await, miss("p0"));
    assert_eq!(first.await.unwrap(), miss("p0"));
    assert_eq!((rig.fake.calls("p0"), rig.fake.peak("p0")), (1, 1));
}
