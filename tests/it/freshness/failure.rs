//! What each kind of failure does to a remembered secret.

use super::*;

/// What each class does: to a cold secret, to a value when a refresh fails, and to the request after that.
#[tokio::test(start_paused = true)]
async fn each_failure_class_in_each_state() {
    struct Case {
        class: FailureClass,
        /// The next request, right after the failed refresh of a fresh value.
        fresh: Got,
        /// The same when the value was stale.
        stale: Got,
        /// The same after the time of a confirming read.
        confirmed: Got,
    }
    let kept = |class| Case { class, fresh: hit("1"), stale: stale("1"), confirmed: stale("1") };
    let evicted =
        |class| Case { class, fresh: Got::Error(class), stale: Got::Error(class), confirmed: Got::Error(class) };
    let cases = [
        evicted(FailureClass::Gone),
        evicted(FailureClass::Disabled),
        evicted(FailureClass::Misconfigured),
        Case { confirmed: Got::Error(FailureClass::Denied), ..kept(FailureClass::Denied) },
        kept(FailureClass::Unauthenticated),
        kept(FailureClass::Throttled),
        kept(FailureClass::Unavailable),
        kept(FailureClass::Timeout),
        kept(FailureClass::Malformed),
    ];
    assert_eq!(cases.len(), CLASSES.len());
    for Case { class, fresh, stale: stale_after, confirmed } in cases {
        let cold = rig(SETTINGS, [Answer::fail(class)]);
        assert_eq!(cold.get("openai").await, Got::Error(class), "cold");
        pass(secs(4)).await;
        assert_eq!(cold.get("openai").await, Got::Error(class), "cold, remembered");
        assert_eq!(cold.fake.calls("secret/openai"), 1, "{class:?}: remembered");
        pass(secs(1)).await;
        assert_eq!(cold.get("openai").await, Got::Error(class), "cold, asked again");
        assert_eq!(cold.fake.calls("secret/openai"), 2, "{class:?}: asked again");

        let rig_fresh = rig(SETTINGS, [Answer::text("1"), Answer::fail(class)]);
        rig_fresh.get("openai").await;
        pass(secs(250)).await;
        assert_eq!(rig_fresh.get("openai").await, hit("1"), "{class:?}");
        settle().await;
        assert_eq!(rig_fresh.get("openai").await, fresh, "{class:?} on a fresh value");

        let rig_stale = rig(SETTINGS, [Answer::text("1"), Answer::fail(class)]);
        rig_stale.get("openai").await;
        pass(secs(400)).await;
        assert_eq!(rig_stale.get("openai").await, stale("1"), "{class:?}");
        settle().await;
        assert_eq!(rig_stale.get("openai").await, stale_after, "{class:?} on a stale value");
        pass(secs(3)).await;
        assert_eq!(rig_stale.get("openai").await, confirmed, "{class:?} after three seconds");

        rig_stale.fake.script("secret/openai", [Answer::text("2")]);
        pass(secs(6)).await;
        rig_stale.get("openai").await;
        settle().await;
        assert_eq!(rig_stale.get("openai").await, hit("2"), "{class:?} is over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_takes_a_second_read_two_seconds_later() {
    let denied = || Answer::fail(FailureClass::Denied);
    struct Case {
        name: &'static str,
        then: Vec<Answer>,
        /// What a request gets ten seconds after the first denial, and how many reads there were.
        want: (Got, usize),
    }
    let cases = [
        Case { name: "confirmed", then: vec![denied()], want: (Got::Error(FailureClass::Denied), 3) },
        Case { name: "a blip", then: vec![Answer::text("1")], want: (hit("1"), 3) },
        Case { name: "rotated meanwhile", then: vec![Answer::text("2")], want: (hit("2"), 3) },
        Case { name: "then down", then: vec![Answer::fail(FailureClass::Unavailable)], want: (stale("1"), 3) },
    ];
    for Case { name, then, want } in cases {
        let answers = [Answer::text("1"), denied()].into_iter().chain(then);
        let rig = rig(SETTINGS, answers);
        rig.get("openai").await;
        pass(secs(301)).await;
        rig.get("openai").await;
        settle().await;
        pass(Duration::from_millis(1990)).await;
        assert_eq!((rig.get("openai").await, rig.fake.calls("secret/openai")), (stale("1"), 2), "{name}: too early");
        // Nobody asks, and still it is confirmed.
        pass(secs(3)).await;
        assert_eq!(rig.fake.calls("secret/openai"), 3, "{name}");
        assert_eq!((rig.get("openai").await, rig.fake.calls("secret/openai")), want, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_confirmed_by_a_later_request_when_the_second_read_could_not_tell() {
    let answers = [Answer::text("1"), Answer::fail(FailureClass::Denied), Answer::fail(FailureClass::Timeout)];
    let rig = rig(SETTINGS, answers);
    rig.get("openai").await;
    pass(secs(301)).await;
    rig.get("openai").await;
    pass(secs(10)).await;
    assert_eq!(rig.fake.calls("secret/openai"), 3);
    rig.fake.script("secret/openai", [Answer::fail(FailureClass::Denied)]);
    assert_eq!(rig.get("openai").await, stale("1"));
    settle().await;
    assert_eq!(rig.get("openai").await, Got::Error(FailureClass::Denied));
}

#[tokio::test(start_paused = true)]
async fn many_denials_of_one_identity_take_nothing_away() {
    let slugs = ["a", "b", "c", "d", "e"];
    let other = reference("other", "e", token("t-2"));
    let snapshot = snapshot(slugs[..4].iter().map(|slug| reference(slug, slug, json!({}))).chain([other]));
    let rig = Rig::over(SETTINGS, snapshot, &Fake::new(), |managers| managers);
    for slug in slugs {
        rig.fake.script(slug, [Answer::text(slug), Answer::fail(FailureClass::Denied)]);
    }
    for slug in ["a", "b", "c", "d", "other"] {
        rig.get(slug).await;
    }
    pass(secs(301)).await;
    for slug in ["a", "b", "c", "d", "other"] {
        rig.get(slug).await;
    }
    settle().await;
    for _ in 0..20 {
        pass(secs(6)).await;
        for slug in ["a", "b", "c", "d"] {
            assert_eq!(rig.get(slug).await, stale(slug), "its identity lost its rights, not the secret");
        }
        assert_eq!(rig.get("other").await, Got::Error(FailureClass::Denied), "alone in its identity");
    }
    // One document is read again: the identity is fine, and those still denied are meant.
    rig.fake.script("a", [Answer::text("a2")]);
    pass(secs(6)).await;
    rig.get("a").await;
    for _ in 0..3 {
        pass(secs(6)).await;
        rig.get("b").await;
    }
    assert_eq!(rig.get("b").await, Got::Error(FailureClass::Denied));
}

/// Documents are read when their lifetime ends, which may be far apart: a denial is not believed before others were asked.
#[tokio::test(start_paused = true)]
async fn a_broken_policy_that_is_seen_bit_by_bit_takes_nothing_away() {
    let slugs = ["a", "b", "c"];
    let read_one_by_one = async || {
        let rig =
            Rig::over(NO_AHEAD, snapshot(slugs.map(|slug| reference(slug, slug, json!({})))), &Fake::new(), |it| it);
        for slug in slugs {
            rig.fake.script(slug, [Answer::text(slug)]);
            rig.get(slug).await;
            pass(secs(90)).await;
        }
        rig
    };
    let rig = read_one_by_one().await;
    for slug in slugs {
        rig.fake.script(slug, [Answer::fail(FailureClass::Denied)]);
    }
    // Also when nobody comes by for longer than denials are remembered.
    for pause in [1, 5, 20, 90, 200, 400] {
        for slug in slugs {
            pass(secs(pause)).await;
            let Got::Value(value, _) = rig.get(slug).await else { panic!("{slug} is forgotten") };
            assert_eq!(value, slug);
        }
    }

    // One alone is withdrawn: the others are read for it once, and it goes.
    let rig = read_one_by_one().await;
    rig.fake.script("a", [Answer::fail(FailureClass::Denied)]);
    pass(secs(50)).await;
    rig.get("a").await;
    pass(secs(3)).await;
    assert_eq!(rig.get("a").await, Got::Error(FailureClass::Denied));
    assert_eq!((rig.fake.calls("b"), rig.fake.calls("c")), (2, 2));
    assert_eq!((rig.get("b").await, rig.get("c").await), (hit("b"), hit("c")));
}

/// Others are asked beside the second read, not before it: together they end in the time of one.
#[tokio::test(start_paused = true)]
async fn a_slow_second_read_beside_a_slow_other_is_no_failure_over_a_value() {
    let settings = Settings { ttl: Duration::ZERO, negative_ttl: secs(1), ..NO_AHEAD };
    let rig = Rig::new(settings, &[("one", "secret/one"), ("two", "secret/two")]);
    let (denied, throttled) = (Answer::fail(FailureClass::Denied), Answer::fail(FailureClass::Throttled));
    rig.fake.script("secret/one", [Answer::text("1"), denied, throttled, Answer::text("late").after(secs(20))]);
    rig.fake.script("secret/two", [Answer::text("2"), Answer::text("2"), Answer::text("2").after(secs(7))]);
    assert_eq!((rig.get("one").await, rig.get("two").await), (miss("1"), miss("2")));
    assert_eq!(rig.get("one").await, stale("1"), "denied once");
    pass(secs(4)).await;
    let from = Instant::now();
    assert_eq!(rig.get("one").await, stale("1"));
    assert!(from.elapsed() <= settings.deadline + secs(1), "{:?}", from.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_broken_rotation_keeps_the_good_value_of_the_broken_key_only() {
    let rig = rig(
        NO_AHEAD,
        [
            Answer::map(r#"{"key": "k1", "org": "o1"}"#).version("1"),
            Answer::map(r#"{"org": "o2"}"#).version("2"),
            Answer::map(r#"{"key": "", "org": "o3"}"#).version("3"),
            Answer::map(r#"{"key": "k4", "org": "o4"}"#).version("4"),
        ],
    );
    let get = async |key| {
        let resolved = rig.resolver.resolve(&[rig.member("openai", key)]).await.unwrap().remove(0);
        (resolved.credential.expose().to_owned(), resolved.version.unwrap(), resolved.age.as_secs())
    };
    let version = |name: &str| Version(name.into());
    assert_eq!(get("key").await, ("k1".into(), version("1"), 0));
    assert_eq!(get("org").await, ("o1".into(), version("1"), 0));
    pass(secs(301)).await;
    get("org").await;
    settle().await;
    assert_eq!(get("org").await, ("o2".into(), version("2"), 0));
    assert_eq!(get("key").await, ("k1".into(), version("1"), 301), "with its own age");
    // A broken key is read again after negative_ttl, not after the lifetime of the version that broke it.
    pass(secs(5)).await;
    get("key").await;
    settle().await;
    assert_eq!(get("org").await, ("o3".into(), version("3"), 0));
    assert_eq!(get("key").await, ("k1".into(), version("1"), 306), "twice broken");
    pass(secs(5)).await;
    get("key").await;
    settle().await;
    assert_eq!(get("key").await, ("k4".into(), version("4"), 0), "repaired");
}

#[tokio::test(start_paused = true)]
async fn a_broken_key_keeps_its_value_to_the_hard_bound_only() {
    let settings = Settings { stale: secs(100), ..SETTINGS };
    let rig = rig(settings, [Answer::map(r#"{"key": "k1"}"#), Answer::map(r#"{"other": 1}"#)]);
    rig.get_member("openai", "key").await;
    for second in 0..400 {
        let want = if second < 300 { hit("k1") } else { stale("k1") };
        assert_eq!(rig.get_member("openai", "key").await, want, "second {second}");
        pass(secs(1)).await;
    }
    assert_eq!(rig.get_member("openai", "key").await, Got::Error(FailureClass::Malformed));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_never_was_is_malformed_and_asked_for_again() {
    let rig = rig(SETTINGS, [Answer::map(r#"{"a": 1}"#), Answer::map(r#"{"a": 1, "key": "k"}"#)]);
    let error = rig.resolver.resolve(&[rig.member("openai", "key")]).await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (FailureClass::Malformed, Some(secs(5))));
    let reason = std::error::Error::source(&error).and_then(|fetch| fetch.source()).unwrap().to_string();
    assert_eq!(reason, "the secret has no such key");
    pass(secs(4)).await;
    assert_eq!(rig.get_member("openai", "key").await, Got::Error(FailureClass::Malformed));
    assert_eq!(rig.get_member("openai", "a").await, hit("1"), "the rest of the document is fine");
    assert_eq!(rig.fake.calls("secret/openai"), 1);
    pass(secs(1)).await;
    assert_eq!(rig.get_member("openai", "key").await, miss("k"));
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_and_an_outage_do_not_add_up_to_a_read_for_each_request() {
    let rig = rig(SETTINGS, [Answer::map(r#"{"a": 1}"#), Answer::fail(FailureClass::Unavailable)]);
    assert_eq!(rig.get_member("openai", "key").await, Got::Error(FailureClass::Malformed));
    pass(secs(5)).await;
    for _ in 0..20 {
        assert_eq!(rig.get_member("openai", "key").await, Got::Error(FailureClass::Unavailable));
    }
    assert_eq!(rig.fake.calls("secret/openai"), 2);
}

#[tokio::test(start_paused = true)]
async fn unchanged_without_anything_known_is_malformed() {
    let rig = rig(SETTINGS, [Answer::unchanged()]);
    assert_eq!(rig.get("openai").await, Got::Error(FailureClass::Malformed));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_used_is_misconfigured_and_never_asked_for() {
    let references = [
        reference("inactive", "a", json!({"status": "disabled"})),
        reference("expired", "a", json!({"expires_at": "2020-01-01T00:00:00Z"})),
        reference("unmanaged", "a", token("t-2")),
    ];
    let rig = Rig::over(SETTINGS, snapshot(references), &Fake::new(), |managers| managers.without("unmanaged"));
    rig.fake.script("a", [Answer::text("1")]);
    for slug in ["inactive", "expired", "unmanaged"] {
        assert_eq!(rig.get(slug).await, Got::Error(FailureClass::Misconfigured), "{slug}");
    }
    assert_eq!(rig.fake.total_calls(), 0);
}
