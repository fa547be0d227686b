//! Many secrets at once: order, swaps of the snapshot, bounds, and what may be told about them.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_first_mapping_that_fails_is_the_one_reported() {
    let rig = Rig::new(SETTINGS, &[("slow", "slow"), ("quick", "quick"), ("good", "good")]);
    rig.fake.script("slow", [Answer::fail(FailureClass::Gone).after(secs(3))]);
    rig.fake.script("quick", [Answer::fail(FailureClass::Denied)]);
    rig.fake.script("good", [Answer::text("1").after(secs(2))]);
    let mappings = |slugs: &[&str]| slugs.iter().map(|slug| rig.mapping(slug)).collect::<Vec<_>>();
    for order in [["good", "slow", "quick"], ["slow", "quick", "good"]] {
        let error = rig.resolver.resolve(&mappings(&order)).await.unwrap_err();
        assert_eq!((&*error.reference.slug, error.class), ("slow", FailureClass::Gone), "{order:?}");
    }
    let error = rig.resolver.resolve(&mappings(&["quick", "slow"])).await.unwrap_err();
    assert_eq!((&*error.reference.slug, error.identity.as_deref()), ("quick", Some("fake")));
}

#[tokio::test(start_paused = true)]
async fn mappings_are_resolved_in_parallel_and_in_order() {
    let rig = Rig::new(SETTINGS, &[("a", "a"), ("b", "b"), ("c", "c")]);
    for (path, time) in [("a", 3), ("b", 1), ("c", 2)] {
        rig.fake.script(path, [Answer::text(path).after(secs(time))]);
    }
    rig.get("b").await;
    let before = Instant::now();
    let mappings = ["c", "b", "a", "c"].map(|slug| rig.mapping(slug));
    let resolved = rig.resolver.resolve(&mappings).await.unwrap();
    let values: Vec<_> = resolved.iter().map(|resolved| (resolved.credential.expose(), resolved.outcome)).collect();
    assert_eq!(values, [("c", Outcome::Miss), ("b", Outcome::Hit), ("a", Outcome::Miss), ("c", Outcome::Miss)]);
    assert_eq!(before.elapsed(), secs(3), "the slowest, not the sum");
    assert!(rig.resolver.resolve(&[]).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_probe_reads_past_the_cache_and_leaves_it_alone() {
    let keyed = reference("keyed", "map", json!({"secret_key": "key"}));
    let whole = reference("whole", "map", json!({}));
    let rig = Rig::over(SETTINGS, snapshot([keyed, whole]), &Fake::new(), |managers| managers);
    rig.fake.script("map", [Answer::map(r#"{"key": "1"}"#)]);
    rig.get("keyed").await;
    rig.fake.script("map", [Answer::map(r#"{ "key": "2" }"#).version("7").after(Duration::from_millis(30))]);
    let [keyed, whole] = &rig.snapshot.references[..] else { panic!() };
    let Probe { identity, elapsed, outcome } = rig.resolver.probe(keyed, &Uses::default()).await;
    let read = outcome.unwrap();
    assert_eq!((read.value.expose(), read.version), ("2", Some(Version("7".into()))));
    assert_eq!((identity.as_deref(), elapsed), (Some("fake"), Duration::from_millis(30)));
    assert_eq!(rig.resolver.probe(whole, &Uses::default()).await.outcome.unwrap().value.expose(), r#"{"key":"2"}"#);
    assert_eq!(rig.get("keyed").await, hit("1"));
    for (answer, class) in [
        (Answer::fail(FailureClass::Denied), FailureClass::Denied),
        (Answer::map("{}"), FailureClass::Malformed),
        (Answer::panic(), FailureClass::Unavailable),
        (Answer::hang(), FailureClass::Timeout),
    ] {
        rig.fake.script("map", [answer]);
        let probe = rig.resolver.probe(keyed, &Uses::default()).await;
        assert_eq!(probe.outcome.unwrap_err().class, class);
        assert_eq!(probe.identity.as_deref(), Some("fake"), "who asked is known all the same");
    }
    assert_eq!(rig.get("keyed").await, hit("1"));
}

#[tokio::test(start_paused = true)]
async fn a_structure_is_no_key() {
    let rig = rig(SETTINGS, [Answer::map(r#"{"a": {"b": 1}, "s": "sk"}"#)]);
    let json = |key| mapping(&rig.snapshot, "openai", Some(key), ValueFormat::Json);
    assert_eq!(rig.resolver.resolve(&[json("a")]).await.unwrap_err().class, FailureClass::Malformed);
    assert_eq!(rig.resolver.resolve(&[json("s")]).await.unwrap()[0].credential.expose(), "sk");
}

#[tokio::test(start_paused = true)]
async fn the_state_of_each_reference_can_be_told() {
    let rig = Rig::new(SETTINGS, &[("fresh", "a"), ("stale", "b"), ("refused", "c"), ("empty", "d")]);
    rig.fake.script("a", [Answer::text("1").version("7")]);
    rig.fake.script("b", [Answer::text("1"), Answer::fail(FailureClass::Throttled)]);
    rig.fake.script("c", [Answer::fail(FailureClass::Gone)]);
    rig.get("stale").await;
    pass(secs(400)).await;
    for slug in ["fresh", "stale", "refused"] {
        rig.get(slug).await;
    }
    pass(secs(1)).await;
    let states: Vec<_> = rig
        .resolver
        .slots(&rig.snapshot, &Uses::default())
        .into_iter()
        .map(|slot| {
            let version = slot.version.map(|version| version.0.to_string());
            (
                slot.reference.slug.to_string(),
                slot.state,
                slot.age.map(|age| age.as_secs()),
                version,
                slot.failures,
                slot.class,
            )
        })
        .collect();
    assert_eq!(
        states,
        [
            ("fresh".into(), SlotState::Fresh, Some(1), Some("7".into()), 0, None),
            ("stale".into(), SlotState::Stale, Some(401), None, 1, Some(FailureClass::Throttled)),
            ("refused".into(), SlotState::Refused, None, None, 1, Some(FailureClass::Gone)),
            ("empty".into(), SlotState::Empty, None, None, 0, None),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn resolutions_are_counted_by_outcome() {
    let rig =
        rig(SETTINGS, [Answer::text("1"), Answer::text("2"), Answer::text("3"), Answer::fail(FailureClass::Gone)]);
    rig.get("openai").await; // miss
    rig.get("openai").await; // hit
    pass(secs(239)).await;
    pass(secs(2)).await; // refreshed by itself
    pass(secs(250)).await;
    rig.get("openai").await; // refresh
    pass(secs(301)).await;
    rig.get("openai").await; // stale
    settle().await;
    rig.get("openai").await; // error
    let text = rig.metrics.encode();
    for outcome in ["miss", "hit", "refresh", "stale", "error"] {
        let line = format!("sidekey_resolutions_total{{manager=\"hashicorp_vault\",outcome=\"{outcome}\"}} 1\n");
        assert!(text.contains(&line), "{outcome}: {text}");
    }
    let oldest = text.lines().find_map(|line| line.strip_prefix("sidekey_oldest_served_seconds ")).unwrap();
    assert!((301.0..302.0).contains(&oldest.parse::<f64>().unwrap()), "{oldest}");
    assert!(rig.metrics.encode().contains("sidekey_oldest_served_seconds 0.0\n"), "from scrape to scrape");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_by_number_and_bytes() {
    struct Case {
        max_entries: u64,
        max_bytes: u64,
        document: usize,
        most: usize,
    }
    let cases = [
        Case { max_entries: 10, max_bytes: 64 << 20, document: 10, most: 10 },
        Case { max_entries: 1000, max_bytes: 100_000, document: 5_000, most: 5 },
    ];
    for Case { max_entries, max_bytes, document, most } in cases {
        let paths: Vec<_> = (0..50).map(|n| format!("p{n}")).collect();
        let references: Vec<_> = paths.iter().map(|path| (path.as_str(), path.as_str())).collect();
        let rig = Rig::new(Settings { max_entries, max_bytes, ..SETTINGS }, &references);
        for path in &paths {
            rig.fake.script(path, [Answer::text(&"x".repeat(document))]);
            assert!(matches!(rig.get(path).await, Got::Value(_, Outcome::Miss)));
        }
        pass(secs(2)).await;
        let text = rig.metrics.encode();
        let entries = text.lines().find_map(|line| line.strip_prefix("sidekey_cache_entries ")).unwrap();
        assert!((1..=most).contains(&entries.parse().unwrap()), "{entries} entries, at most {most}");
        let last = paths.last().unwrap();
        assert!(matches!(rig.get(last).await, Got::Value(_, Outcome::Hit)), "the last one read is there");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_shows_a_value() {
    let rig = rig(SETTINGS, [Answer::map(r#"{"key": "sk-canary"}"#)]);
    let good = rig.resolver.resolve(&[rig.member("openai", "key")]).await.unwrap();
    let bad = rig.resolver.resolve(&[rig.member("openai", "missing")]).await.unwrap_err();
    let probe = rig.resolver.probe(&rig.snapshot.references[0], &Uses::default()).await;
    let shown = format!(
        "{good:?} {bad:?} {bad} {probe:?} {:?} {:?}",
        rig.resolver,
        rig.resolver.slots(&rig.snapshot, &Uses::default())
    );
    assert!(!shown.contains("canary"), "{shown}");
    assert!(!shown.contains("t-1"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_swap_drops_what_nobody_names() {
    let rig = Rig::new(SETTINGS, &[("a", "a"), ("b", "b")]);
    for path in ["a", "b"] {
        rig.fake.script(path, [Answer::text(path)]);
        rig.get(path).await;
    }
    rig.resolver.retain(&rig.snapshot);
    assert_eq!((rig.get("a").await, rig.get("b").await), (hit("a"), hit("b")));
    rig.resolver.retain(&snapshot([reference("a", "a", json!({}))]));
    assert!(rig.metrics.encode().contains("sidekey_cache_entries 1\n"), "dropped at once");
    rig.resolver.retain(&rig.snapshot);
    assert_eq!((rig.get("a").await, rig.get("b").await), (hit("a"), miss("b")));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_a_swap_is_stored_if_the_snapshot_still_names_it() {
    struct Case {
        name: &'static str,
        swaps: Vec<serde_json::Value>,
        /// What the next request under the first snapshot gets.
        next: Got,
    }
    let usual = || reference("a", "a", json!({}));
    let other_login = || reference("a", "a", token("t-2"));
    let cases = [
        Case { name: "named", swaps: vec![usual()], next: hit("old") },
        Case { name: "another login", swaps: vec![other_login()], next: miss("new") },
        Case { name: "gone and back", swaps: vec![other_login(), usual()], next: hit("old") },
    ];
    for Case { name, swaps, next } in cases {
        let rig = Rig::new(SETTINGS, &[("a", "a")]);
        rig.fake.script("a", [Answer::text("old").after(secs(2)), Answer::text("new")]);
        let request = tokio::spawn({
            let (resolver, mapping) = (Arc::clone(&rig.resolver), rig.mapping("a"));
            async move { crate::resolver::got(resolver.resolve(&[mapping]).await) }
        });
        pass(secs(1)).await;
        for reference in swaps {
            rig.resolver.retain(&snapshot([reference]));
        }
        assert_eq!(request.await.unwrap(), miss("old"), "{name}: whoever asked under the old snapshot is answered");
        rig.resolver.retain(&rig.snapshot);
        assert_eq!(rig.get("a").await, next, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_ahead_of_the_swap_reads_once() {
    let rig = Rig::new(SETTINGS, &[("a", "a")]);
    rig.fake.script("a", [Answer::text("1")]);
    rig.resolver.retain(&snapshot([]));
    assert_eq!((rig.get("a").await, rig.get("a").await), (miss("1"), hit("1")));
    rig.resolver.retain(&rig.snapshot);
    assert_eq!(rig.get("a").await, hit("1"));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_login_shares_nothing_with_the_old_one() {
    let (old, new) = (Fake::new(), Fake::new());
    old.script("a", [Answer::text("of t-1")]);
    new.script("a", [Answer::fail(FailureClass::Denied)]);
    let both = snapshot([reference("a", "a", json!({})), reference("b", "a", token("t-2"))]);
    let rig = Rig::over(SETTINGS, both, &old, |managers| managers.with("b", &new));
    assert_eq!(rig.get("a").await, miss("of t-1"));
    assert_eq!(rig.get("b").await, Got::Error(FailureClass::Denied));
    assert_eq!(rig.get("a").await, hit("of t-1"));
}
