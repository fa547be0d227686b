//! Random scripts and random interleavings against what must hold, whatever happens.
//!
//! The oracle is the record of what the manager answered and when. It knows the agreement, not the implementation.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use proptest::prelude::*;
use sidekey::{
    manager::{FetchError, Fetched, Managers, SecretManager, Version},
    model::{Reference, SecretLocation},
    resolve::Resolver,
};
use tokio::task::JoinSet;

use super::*;

const PATHS: [&str; 3] = ["a", "b", "c"];

/// A fake whose answers are written down.
#[derive(Debug)]
struct Recorded {
    fake: Fake,
    answers: Mutex<HashMap<String, Vec<Record>>>,
}

/// One answer: the text of a document, or why there was none.
#[derive(Debug)]
struct Record {
    at: Instant,
    answer: Result<String, FailureClass>,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes.
    Pass(Duration),
    /// So many requests at once for one path; half of them are given up at once.
    Request { path: usize, count: usize },
    /// So many signals that a path has changed.
    Signal { path: usize, count: usize },
    /// The snapshot is swapped: all paths, or all but one.
    Swap { without: Option<usize> },
}

#[async_trait]
impl SecretManager for Recorded {
    async fn fetch(&self, location: &SecretLocation, known: Option<&Version>) -> Result<Fetched, FetchError> {
        let result = self.fake.fetch(location, known).await;
        let mut answers = self.answers.lock().unwrap();
        let records = answers.entry(location.path.to_string()).or_default();
        // Each document is told apart, also where the script repeats itself.
        let text = format!("{}{}", location.path, records.len());
        let answer = result.as_ref().map(|_| text.clone()).map_err(|error| error.class);
        records.push(Record { at: Instant::now(), answer });
        result.map(|_| Fetched::Document { value: text.into(), map: false, version: None, not_after: None })
    }

    fn identity(&self) -> Arc<str> {
        self.fake.identity()
    }
}

/// One manager for every reference.
#[derive(Debug)]
struct One(Arc<Recorded>);

impl Managers for One {
    fn manager(&self, _: &Reference) -> Result<Arc<dyn SecretManager>, FetchError> {
        Ok(Arc::clone(&self.0) as Arc<dyn SecretManager>)
    }
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let class = (0..CLASSES.len()).prop_map(|index| CLASSES[index]);
    let answer = prop_oneof![
        5 => Just(None),
        4 => class.prop_map(Some),
    ];
    let delay = prop_oneof![3 => Just(0), 2 => 1_u64..3_000, 1 => 3_000_u64..12_000];
    proptest::collection::vec((answer, delay), 1..25).prop_map(|answers| {
        let answers = answers.into_iter().map(|(failure, delay)| {
            failure.map_or_else(|| Answer::text("good"), Answer::fail).after(Duration::from_millis(delay))
        });
        answers.collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u64..4_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        2 => (4_000_u64..90_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        8 => (0..PATHS.len(), 1_usize..6).prop_map(|(path, count)| Step::Request { path, count }),
        3 => (0..PATHS.len(), 1_usize..4).prop_map(|(path, count)| Step::Signal { path, count }),
        1 => proptest::option::of(0..PATHS.len()).prop_map(|without| Step::Swap { without }),
    ];
    proptest::collection::vec(step, 1..60)
}

fn settings() -> impl Strategy<Value = Settings> {
    let secs = |choices: [u64; 4]| proptest::sample::select(choices.to_vec()).prop_map(secs);
    let ratio = |choices: [f64; 3]| proptest::sample::select(choices.to_vec());
    (secs([0, 1, 30, 300]), secs([0, 2, 60, 3600]), secs([1, 2, 5, 30]), ratio([0.0, 0.1, 1.0]), ratio([0.0, 0.5, 0.8]))
        .prop_map(|(ttl, stale, negative_ttl, jitter_ratio, refresh_ahead_ratio)| Settings {
            ttl,
            stale,
            negative_ttl,
            jitter_ratio,
            refresh_ahead_ratio,
            ..SETTINGS
        })
}

/// Whether the record allows that nothing is served at the end of a request that ran from `from` to now: no good answer
/// yet, it is too old, or something has taken it away.
fn may_be_refused(records: &[Record], bound: Duration, now: Instant) -> bool {
    let Some(last_good) = records.iter().rposition(|record| record.answer.is_ok()) else { return true };
    let since = &records[last_good + 1..];
    let denials: Vec<_> =
        since.iter().filter(|record| record.answer == Err(FailureClass::Denied)).map(|record| record.at).collect();
    let confirmed = denials.len() > 1 && denials[denials.len() - 1] - denials[0] >= secs(2);
    let evicted = since.iter().any(|record| {
        matches!(record.answer, Err(FailureClass::Gone | FailureClass::Disabled | FailureClass::Misconfigured))
    });
    evicted || confirmed || now - records[last_good].at >= bound
}

async fn run(settings: Settings, scripts: Vec<Vec<Answer>>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let recorded = Arc::new(Recorded { fake: Fake::new(), answers: Mutex::default() });
    for (path, script) in PATHS.iter().zip(scripts) {
        recorded.fake.script(path, script);
    }
    let snapshot_of = |without: Option<usize>| {
        let named = PATHS.iter().enumerate().filter(|(index, _)| Some(*index) != without);
        snapshot(named.map(|(_, path)| reference(path, path, json!({}))))
    };
    let all = snapshot_of(None);
    let metrics = Arc::new(sidekey::metric::Metrics::new());
    let resolver = Arc::new(Resolver::new(settings, Arc::new(One(Arc::clone(&recorded))), metrics));
    let bound = settings.ttl + settings.stale;
    // How many records each path had when the snapshot last named it anew; `None` while it does not name it.
    let mut known_since = [Some(0); PATHS.len()];
    for step in steps {
        match step {
            Step::Pass(time) => pass(time).await,
            Step::Swap { without } => {
                resolver.retain(&snapshot_of(without));
                for (index, path) in PATHS.iter().enumerate() {
                    let records = recorded.answers.lock().unwrap().get(*path).map_or(0, Vec::len);
                    let since = known_since[index].unwrap_or(records);
                    known_since[index] = (without != Some(index)).then_some(since);
                }
            }
            Step::Signal { path, count } => {
                let named = all.references.iter().find(|reference| &*reference.slug == PATHS[path]);
                for _ in 0..count {
                    resolver.expiry().expire(named);
                }
            }
            Step::Request { path, count } => {
                let (path, known_since) = (PATHS[path], known_since[path]);
                let mut requests = JoinSet::new();
                for n in 0..count {
                    let (resolver, mapping) = (Arc::clone(&resolver), mapping(&all, path, None, ValueFormat::String));
                    let handle = requests.spawn(async move {
                        let from = Instant::now();
                        (from, resolver.resolve(&[mapping]).await, Instant::now())
                    });
                    if n % 2 == 1 {
                        tokio::task::yield_now().await;
                        handle.abort();
                    }
                }
                while let Some(request) = requests.join_next().await {
                    let Ok((from, result, until)) = request else { continue };
                    let answers = recorded.answers.lock().unwrap();
                    let records = answers.get(path).map(Vec::as_slice).unwrap_or_default();
                    prop_assert!(until - from <= settings.deadline + secs(2), "a request waited {:?}", until - from);
                    let by_then = records.iter().take_while(|record| record.at < from).count();
                    let held = known_since.is_some_and(|since| {
                        since <= by_then && !may_be_refused(&records[since..by_then], bound, from)
                    });
                    let waits = settings.ttl.is_zero() || !held;
                    prop_assert!(waits || until == from, "a request waited {:?} beside a value", until - from);
                    match result {
                        Ok(resolved) => {
                            let text = resolved[0].credential.expose();
                            let record = records.iter().rposition(|record| record.answer.as_deref() == Ok(text));
                            let index = record.expect("only what the manager said is served");
                            let age = until - records[index].at;
                            prop_assert!(age < bound || records[index].at >= from, "{text} is {age:?} old");
                            prop_assert!(resolved[0].age <= age, "an age is never overstated");
                            // An older value is not served when a newer one had arrived before the request.
                            let newer = records[index + 1..].iter().find(|record| record.answer.is_ok());
                            prop_assert!(newer.is_none_or(|newer| newer.at >= from), "{text} was replaced");
                            let evicted = records[index + 1..].iter().any(|record| {
                                record.at < from
                                    && matches!(record.answer, Err(FailureClass::Gone | FailureClass::Disabled))
                            });
                            prop_assert!(!evicted, "{text} was taken away");
                        }
                        Err(error) => {
                            // Another request's read may have ended in the same instant, after this one's answer.
                            let allowed = known_since.is_none_or(|since| {
                                (by_then.max(since)..=records.len())
                                    .any(|known| may_be_refused(&records[since..known], bound, until))
                            });
                            prop_assert!(allowed, "{:?} over a good value: {records:?}", error.class);
                        }
                    }
                }
            }
        }
        for path in PATHS {
            prop_assert!(recorded.fake.peak(path) <= 1, "two reads of {path} at once");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_agreement_holds(
        settings in settings(),
        scripts in (answers(), answers(), answers()),
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(settings, vec![scripts.0, scripts.1, scripts.2], steps))?;
    }
}
