//! The rule as tables (each row is a sentence of the agreement) and as properties.

use proptest::prelude::*;

use super::*;

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

const TERMS: Terms = Terms { ttl: secs(300), lifetime: secs(290), stale: secs(3600), refresh_ahead_ratio: 0.8 };

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn settings() -> Settings {
    Settings {
        ttl: secs(300),
        jitter_ratio: 0.1,
        refresh_ahead_ratio: 0.8,
        stale: secs(3600),
        negative_ttl: secs(5),
        max_entries: 10,
        max_bytes: 1 << 20,
        suspicion: crate::resolve::Suspicion::DEFAULT,
        deadline: secs(8),
    }
}

#[test]
fn a_value_is_judged_by_its_age() {
    const FRESH: Decision = Decision::Fresh;
    const AHEAD: Decision = Decision::RefreshAhead;
    const STALE: Decision = Decision::Stale { refresh: true };
    const HELD: Decision = Decision::Stale { refresh: false };
    const FETCH: Decision = Decision::Fetch;
    const REFUSED: Decision = Decision::Refused(FailureClass::Throttled);

    struct Case {
        name: &'static str,
        terms: Terms,
        age: Duration,
        used: bool,
        /// Decision without a failure, and with one that stands.
        want: [Decision; 2],
    }
    let no_stale = Terms { stale: secs(0), ..TERMS };
    let each_time = Terms { ttl: secs(0), lifetime: secs(0), ..TERMS };
    let no_ahead = Terms { refresh_ahead_ratio: 0.0, ..TERMS };
    #[rustfmt::skip]
    let cases = [
        Case { name: "just fetched",            terms: TERMS,     age: secs(0),    used: true,  want: [FRESH, FRESH] },
        Case { name: "before the ratio",        terms: TERMS,     age: secs(231),  used: true,  want: [FRESH, FRESH] },
        Case { name: "at the ratio",            terms: TERMS,     age: secs(232),  used: true,  want: [AHEAD, FRESH] },
        Case { name: "at the ratio, unused",    terms: TERMS,     age: secs(232),  used: false, want: [FRESH, FRESH] },
        Case { name: "ratio off",               terms: no_ahead,  age: secs(289),  used: true,  want: [FRESH, FRESH] },
        Case { name: "jittered lifetime over",  terms: TERMS,     age: secs(290),  used: false, want: [AHEAD, FRESH] },
        Case { name: "the same, ratio off",     terms: no_ahead,  age: secs(290),  used: true,  want: [AHEAD, FRESH] },
        Case { name: "before ttl",              terms: TERMS,     age: secs(299),  used: true,  want: [AHEAD, FRESH] },
        Case { name: "at ttl",                  terms: TERMS,     age: secs(300),  used: true,  want: [STALE, HELD] },
        Case { name: "at ttl, unused",          terms: TERMS,     age: secs(300),  used: false, want: [STALE, HELD] },
        Case { name: "before the hard bound",   terms: TERMS,     age: secs(3899), used: true,  want: [STALE, HELD] },
        Case { name: "at the hard bound",       terms: TERMS,     age: secs(3900), used: true,  want: [FETCH, REFUSED] },
        Case { name: "never stale: before ttl", terms: no_stale,  age: secs(299),  used: true,  want: [AHEAD, FRESH] },
        Case { name: "never stale: at ttl",     terms: no_stale,  age: secs(300),  used: true,  want: [FETCH, REFUSED] },
        Case { name: "ttl 0",                   terms: each_time, age: secs(0),    used: true,  want: [FETCH, HELD] },
        Case { name: "ttl 0, a minute old",     terms: each_time, age: secs(60),   used: true,  want: [FETCH, HELD] },
        Case { name: "ttl 0, hard bound",       terms: each_time, age: secs(3600), used: true,  want: [FETCH, REFUSED] },
    ];
    let fetched_at = Instant::now();
    for Case { name, terms, age, used, want } in cases {
        let now = fetched_at + age;
        let failure = Failure { class: FailureClass::Throttled, at: now, pause: secs(5) };
        for (failure, want) in [None, Some(failure)].into_iter().zip(want) {
            let memory = Memory { value: Some(Held { fetched_at, ends_at: None }), failure, used, expired: false };
            assert_eq!(memory.judge(&terms, now), want, "{name}, failure: {}", failure.is_some());
        }
    }
}

#[test]
fn without_a_value_a_failure_stands_for_its_pause() {
    let at = Instant::now();
    for class in CLASSES {
        let memory = Memory { failure: Some(Failure { class, at, pause: secs(5) }), ..Memory::default() };
        assert_eq!(memory.judge(&TERMS, at), Decision::Refused(class));
        assert_eq!(memory.judge(&TERMS, at + secs(4)), Decision::Refused(class));
        assert_eq!(memory.judge(&TERMS, at + secs(5)), Decision::Fetch);
    }
    assert_eq!(Memory::default().judge(&TERMS, at), Decision::Fetch);
}

#[test]
fn the_managers_end_of_validity_beats_every_term() {
    let fetched_at = Instant::now();
    let value = Some(Held { fetched_at, ends_at: Some(fetched_at + secs(100)) });
    let memory = Memory { value, ..Memory::default() };
    assert_eq!(memory.judge(&TERMS, fetched_at + secs(99)), Decision::Fresh);
    assert_eq!(memory.judge(&TERMS, fetched_at + secs(100)), Decision::Fetch);
}

#[test]
fn a_signal_makes_a_value_stale_and_has_it_read() {
    struct Case {
        name: &'static str,
        terms: Terms,
        age: Duration,
        /// Decision without a failure, and with one that stands.
        want: [Decision; 2],
    }
    const STALE: [Decision; 2] = [Decision::Stale { refresh: true }, Decision::Stale { refresh: false }];
    let no_stale = Terms { stale: secs(0), ..TERMS };
    let each_time = Terms { ttl: secs(0), lifetime: secs(0), ..TERMS };
    let refused = Decision::Refused(FailureClass::Throttled);
    let cases = [
        Case { name: "just fetched", terms: TERMS, age: secs(0), want: STALE },
        Case { name: "past ttl", terms: TERMS, age: secs(301), want: STALE },
        Case { name: "at the hard bound", terms: TERMS, age: secs(3900), want: [Decision::Fetch, refused] },
        Case { name: "never stale, before ttl: it is served on", terms: no_stale, age: secs(299), want: STALE },
        Case { name: "never stale, at ttl", terms: no_stale, age: secs(300), want: [Decision::Fetch, refused] },
        Case { name: "ttl 0", terms: each_time, age: secs(1), want: [Decision::Fetch, STALE[1]] },
    ];
    let fetched_at = Instant::now();
    for Case { name, terms, age, want } in cases {
        let now = fetched_at + age;
        let failure = Failure { class: FailureClass::Throttled, at: now, pause: secs(5) };
        for (failure, want) in [None, Some(failure)].into_iter().zip(want) {
            let value = Some(Held { fetched_at, ends_at: None });
            let memory = Memory { value, failure, used: true, expired: true };
            assert_eq!(memory.judge(&terms, now), want, "{name}, failure: {}", failure.is_some());
        }
    }
}

#[test]
fn each_class_has_its_effect() {
    struct Case {
        class: FailureClass,
        first: Effect,
        within_two_secs: Effect,
        confirmed: Effect,
    }
    const KEEP: [Effect; 3] = [Effect::Keep; 3];
    const EVICT: [Effect; 3] = [Effect::Evict; 3];
    let row =
        |class, [first, within_two_secs, confirmed]: [Effect; 3]| Case { class, first, within_two_secs, confirmed };
    let cases = [
        row(FailureClass::Gone, EVICT),
        row(FailureClass::Disabled, EVICT),
        row(FailureClass::Misconfigured, EVICT),
        row(FailureClass::Denied, [Effect::Suspect, Effect::Suspect, Effect::Evict]),
        row(FailureClass::Unauthenticated, KEEP),
        row(FailureClass::Throttled, KEEP),
        row(FailureClass::Unavailable, KEEP),
        row(FailureClass::Timeout, KEEP),
        row(FailureClass::Malformed, KEEP),
    ];
    assert_eq!(cases.len(), CLASSES.len());
    for Case { class, first, within_two_secs, confirmed } in cases {
        assert_eq!(effect(class, None), first, "{class:?} first");
        assert_eq!(effect(class, Some(Duration::from_millis(1999))), within_two_secs, "{class:?} too early to confirm");
        assert_eq!(effect(class, Some(CONFIRM_AFTER)), confirmed, "{class:?} confirmed");
    }
}

#[test]
fn a_pause_honours_the_manager_within_reason() {
    struct Case {
        negative_ttl: u64,
        retry_after: Option<u64>,
        want: u64,
    }
    let cases = [
        Case { negative_ttl: 5, retry_after: None, want: 5 },
        Case { negative_ttl: 0, retry_after: None, want: 1 },
        Case { negative_ttl: 5, retry_after: Some(2), want: 5 },
        Case { negative_ttl: 5, retry_after: Some(30), want: 30 },
        Case { negative_ttl: 5, retry_after: Some(86_400), want: 60 },
        Case { negative_ttl: 120, retry_after: Some(86_400), want: 120 },
    ];
    for Case { negative_ttl, retry_after, want } in cases {
        assert_eq!(pause(secs(negative_ttl), retry_after.map(secs)), secs(want), "{negative_ttl} {retry_after:?}");
    }
}

#[test]
fn the_references_own_ttl_beats_the_default() {
    let settings = Settings { jitter_ratio: 0.0, ..settings() };
    assert_eq!(Terms::new(&settings, None, 7).lifetime, secs(300));
    assert_eq!(Terms::new(&settings, Some(secs(60)), 7).lifetime, secs(60));
    assert_eq!(Terms::new(&settings, Some(secs(0)), 7).lifetime, secs(0));
}

/// Lengths of time from nothing to more than any clock holds.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        Just(Duration::MAX),
        (0_u64..10_000_000_000).prop_map(Duration::from_nanos),
        (0_u64..100_000).prop_map(Duration::from_secs),
        any::<u64>().prop_map(Duration::from_secs),
    ]
}

fn ratio() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(0.1), Just(0.8), Just(1.0), Just(f64::NAN), Just(-1.0), Just(f64::INFINITY), 0.0..2.0]
}

fn terms() -> impl Strategy<Value = Terms> {
    (duration(), duration(), ratio(), ratio(), any::<u64>()).prop_map(|(ttl, stale, jitter, ahead, seed)| {
        let settings = Settings { ttl, stale, jitter_ratio: jitter, refresh_ahead_ratio: ahead, ..settings() };
        Terms::new(&settings, None, seed)
    })
}

/// A memory whose instants lie within a century of `origin`, and a now.
fn memory(origin: Instant) -> impl Strategy<Value = (Memory, Instant)> {
    let instant = move || (0_u64..3_000_000_000_000).prop_map(move |ms| origin + Duration::from_millis(ms));
    let near = (0_u64..20_000_000).prop_map(move |ms| origin + Duration::from_millis(ms));
    let held = (near, proptest::option::weighted(0.2, instant()));
    let failure = (0..CLASSES.len(), instant(), duration(), proptest::option::of(duration()));
    (proptest::option::of(held), proptest::option::of(failure), any::<[bool; 2]>(), instant()).prop_map(
        |(held, failure, [used, expired], now)| {
            let memory = Memory {
                value: held.map(|(fetched_at, ends_at)| Held { fetched_at, ends_at }),
                failure: failure.map(|(class, at, negative_ttl, retry_after)| Failure {
                    class: CLASSES[class],
                    at,
                    pause: pause(negative_ttl, retry_after),
                }),
                used,
                expired,
            };
            (memory, now)
        },
    )
}

fn served(decision: Decision) -> bool {
    matches!(decision, Decision::Fresh | Decision::RefreshAhead | Decision::Stale { .. })
}

/// How good a decision is for the caller.
fn rank(decision: Decision) -> u8 {
    match decision {
        Decision::Fresh | Decision::RefreshAhead => 3,
        Decision::Stale { .. } => 2,
        Decision::Fetch => 1,
        Decision::Refused(_) => 0,
    }
}

proptest! {
    #[test]
    fn nothing_past_the_hard_bound_is_served((memory, now) in memory(Instant::now()), terms in terms()) {
        let decision = memory.judge(&terms, now);
        if served(decision) {
            let value = memory.value.expect("only a value is served");
            prop_assert!(value.age(now) < terms.ttl.saturating_add(terms.stale), "{decision:?}");
            prop_assert!(value.ends_at.is_none_or(|end| now < end), "{decision:?}");
        }
        if matches!(decision, Decision::Fresh | Decision::RefreshAhead) {
            prop_assert!(memory.value.expect("checked above").age(now) < terms.ttl);
        }
    }

    #[test]
    fn a_failure_makes_nothing_better_except_that_a_read_each_time_rests(
        (memory, now) in memory(Instant::now()),
        terms in terms(),
    ) {
        let with = memory.judge(&terms, now);
        let without = Memory { failure: None, ..memory }.judge(&terms, now);
        prop_assert!(rank(with) <= rank(without) || terms.ttl.is_zero(), "{with:?} {without:?}");
        // And it takes nothing away that could be served: it only keeps a read from being tried.
        prop_assert!(!served(without) || rank(with) == rank(without), "{with:?} {without:?}");
    }

    #[test]
    fn a_signal_ends_freshness_and_nothing_else((memory, now) in memory(Instant::now()), terms in terms()) {
        let without = Memory { expired: false, ..memory }.judge(&terms, now);
        let with = Memory { expired: true, ..memory }.judge(&terms, now);
        prop_assert_eq!(served(with), served(without));
        match without {
            // Nobody waits, nothing is refused, and it is read as soon as no failure forbids it.
            Decision::Fresh | Decision::RefreshAhead => {
                let stands = memory.failure.is_some_and(|failure| !failure.remaining(now).is_zero());
                prop_assert_eq!(with, Decision::Stale { refresh: !stands });
            }
            Decision::Stale { .. } | Decision::Fetch | Decision::Refused(_) => prop_assert_eq!(with, without),
        }
    }

    #[test]
    fn while_a_failure_stands_nothing_is_read((memory, now) in memory(Instant::now()), terms in terms()) {
        let stands = memory.failure.is_some_and(|failure| !failure.remaining(now).is_zero());
        let reads = matches!(
            memory.judge(&terms, now),
            Decision::Fetch | Decision::RefreshAhead | Decision::Stale { refresh: true }
        );
        prop_assert!(!(stands && reads));
        // Refused is said only while the failure stands, and then with its class.
        if let Decision::Refused(class) = memory.judge(&terms, now) {
            prop_assert!(stands);
            prop_assert_eq!(Some(class), memory.failure.map(|failure| failure.class));
        }
    }

    #[test]
    fn time_only_makes_it_worse_until_the_next_read(
        (memory, now) in memory(Instant::now()),
        terms in terms(),
        later in 0_u64..1_000_000,
    ) {
        // With the failure fixed in place, a value never becomes fresher by waiting.
        let memory = Memory { failure: None, ..memory };
        let then = now + Duration::from_millis(later);
        prop_assert!(rank(memory.judge(&terms, then)) <= rank(memory.judge(&terms, now)));
    }

    #[test]
    fn jitter_only_shortens_and_within_its_ratio(ttl in duration(), jitter in ratio(), seed in any::<u64>()) {
        let terms = Terms::new(&Settings { ttl, jitter_ratio: jitter, ..settings() }, None, seed);
        prop_assert!(terms.lifetime <= ttl);
        prop_assert_eq!(terms.lifetime, Terms::new(&Settings { ttl, jitter_ratio: jitter, ..settings() }, None, seed).lifetime);
        if (0.0..=1.0).contains(&jitter) {
            // A nanosecond and the precision of the arithmetic aside.
            let least = ttl.as_secs_f64() * (1.0 - jitter);
            prop_assert!(terms.lifetime.as_secs_f64() >= least * 0.999_999_999 - 1e-9);
        }
    }
}
