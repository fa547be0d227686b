//! Values that a provider refuses, at random and on a paused clock: what may be tried instead, how often, and at what cost.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use serde_json::json;
use sidekey::{
    manager::fake::{Answer, Fake},
    resolve::{Replacement, Settings, Suspicion},
};
use tokio::{task::JoinSet, time::Instant};

use crate::resolver::{Rig, SETTINGS, mapping, pass, reference, secs, snapshot};

const PATH: &str = "secret/openai";
const PREVIOUS: &str = "secret/openai?previous";
/// As the proxy has it.
const MAX_REPLAYS: usize = 2;

/// A manager with versions, and a provider that takes some.
struct Stage {
    rig: Arc<Rig>,
    settings: Settings,
    /// Every version that was ever written, and when.
    written: Vec<(String, Instant)>,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes.
    Pass(Duration),
    /// The manager is written.
    Write,
    /// So many requests at once; the provider takes this version, counted back from the newest.
    Request { count: usize, takes: Option<usize> },
}

/// How a request ended.
#[derive(Debug, PartialEq)]
struct End {
    accepted: bool,
    sent: Vec<String>,
}

impl Stage {
    fn new(settings: Settings) -> Self {
        let rig =
            Arc::new(Rig::over(settings, snapshot([reference("openai", PATH, json!({}))]), &Fake::new(), |managers| {
                managers
            }));
        let mut stage = Self { rig, settings, written: Vec::new() };
        stage.write();
        stage
    }

    fn write(&mut self) {
        let text = format!("sk-{}", self.written.len());
        if let Some((before, _)) = self.written.last() {
            self.rig.fake.script(PREVIOUS, [Answer::text(before)]);
        }
        self.rig.fake.script(PATH, [Answer::text(&text).after(Duration::from_millis(20))]);
        self.written.push((text, Instant::now()));
    }

    fn reads(&self) -> usize {
        self.rig.fake.calls(PATH) + self.rig.fake.calls(PREVIOUS)
    }
}

/// A request as the proxy makes it, to a provider that takes `takes`.
async fn request(rig: Arc<Rig>, bound: Duration, takes: Option<String>) -> Result<End, TestCaseError> {
    let mapping = mapping(&rig.snapshot, "openai", None, Default::default());
    let resolved = rig.resolver.resolve(&[Arc::clone(&mapping)]).await;
    let credential = resolved.map_err(|error| TestCaseError::fail(error.to_string()))?.remove(0).credential;
    let taken = |text: &str| takes.as_deref() == Some(text);
    let mut sent = vec![credential.expose().to_owned()];
    if taken(credential.expose()) {
        return Ok(End { accepted: true, sent });
    }
    let began = Instant::now();
    let mut quest = rig.resolver.quest([(mapping, credential)].into_iter());
    for _ in 0..MAX_REPLAYS {
        let Some(found) = quest.next(began + secs(5)).await else { break };
        prop_assert!(began.elapsed() <= secs(5));
        let [Replacement { suspect: 0, resolved, earlier: _ }] = found.as_slice() else {
            return Err(TestCaseError::fail(format!("one is suspected: {found:?}")));
        };
        let text = resolved.credential.expose().to_owned();
        prop_assert!(!sent.contains(&text), "{text} is tried again: {sent:?}");
        prop_assert!(resolved.age < bound || resolved.age <= began.elapsed(), "{text} is {:?} old", resolved.age);
        sent.push(text.clone());
        if taken(&text) {
            quest.accepted(&found);
            return Ok(End { accepted: true, sent });
        }
        quest.refused(found);
    }
    Ok(End { accepted: false, sent })
}

/// The most inquiries in this time: the rests between them double from a second to the cool-down.
fn inquiries(time: Duration) -> usize {
    let (mut count, mut rest, mut left) = (1, 1.0, time.as_secs_f64());
    while left >= rest {
        (count, left, rest) = (count + 1, left - rest, f64::min(2.0 * rest, 10.0));
    }
    count
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop_oneof![0..500_u64, 500..5000_u64, 5000..400_000_u64].prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        2 => Just(Step::Write),
        6 => (1..20_usize, prop_oneof![Just(None), (0..3_usize).prop_map(Some)])
            .prop_map(|(count, takes)| Step::Request { count, takes }),
    ];
    prop::collection::vec(step, 1..30)
}

fn settings() -> impl Strategy<Value = Settings> {
    let secs_of = |choices: &[u64]| proptest::sample::select(choices.to_vec()).prop_map(secs);
    (secs_of(&[0, 5, 300]), secs_of(&[0, 60, 3600]), secs_of(&[0, 30, 600]), prop_oneof![Just(0), Just(250_u64)])
        .prop_map(|(ttl, stale, overlap, second_look)| Settings {
            ttl,
            stale,
            suspicion: Suspicion { overlap, second_look: Duration::from_millis(second_look), ..Suspicion::DEFAULT },
            ..SETTINGS
        })
}

async fn run(settings: Settings, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut stage = Stage::new(settings);
    let bound = settings.ttl + settings.stale;
    for step in steps {
        match step {
            Step::Pass(time) => pass(time).await,
            Step::Write => stage.write(),
            Step::Request { count, takes } => {
                let takes = takes.and_then(|back| stage.written.iter().rev().nth(back)).map(|(text, _)| text.clone());
                let mut requests = JoinSet::new();
                for _ in 0..count {
                    requests.spawn(request(Arc::clone(&stage.rig), bound, takes.clone()));
                }
                let newest = &stage.written[stage.written.len() - 1].0;
                while let Some(ended) = requests.join_next().await {
                    let End { accepted, sent } = ended.unwrap()?;
                    prop_assert!(accepted || takes.as_ref().is_none_or(|takes| !sent.contains(takes)));
                    // Without an overlap nothing that was replaced is sent again: each is newer than the one before.
                    if stage.settings.suspicion.overlap.is_zero() {
                        let place = |text: &String| stage.written.iter().position(|(other, _)| other == text);
                        prop_assert!(sent.is_sorted_by_key(place), "{sent:?}");
                    }
                    prop_assert!(sent.len() <= 1 + MAX_REPLAYS, "{sent:?}");
                    prop_assert!(sent.iter().all(|text| text.as_str() <= newest.as_str() || text.len() < newest.len()));
                }
            }
        }
        for path in [PATH, PREVIOUS] {
            prop_assert!(stage.rig.fake.peak(path) <= 1, "two reads of {path} at once");
        }
    }
    // Whatever it was, once all have rested a provider and a manager that agree are found together.
    pass(secs(30)).await;
    let newest = stage.written.last().map(|(text, _)| text.clone());
    let end = request(Arc::clone(&stage.rig), bound, newest).await?;
    prop_assert!(end.accepted, "{end:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_rotates_what_is_tried_is_sound(settings in settings(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(settings, steps))?;
    }

    /// A provider that takes nothing, asked without a pause for as long as somebody likes.
    #[test]
    fn provoked_refusals_cost_what_the_rests_allow(millis in 1..200_u64, seconds in 1..120_u64, overlap in prop_oneof![Just(0_u64), Just(600)]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let suspicion = Suspicion { overlap: secs(overlap), ..Suspicion::DEFAULT };
            let mut stage = Stage::new(Settings { suspicion, refresh_ahead_ratio: 0.0, ..SETTINGS });
            stage.write();
            let began = Instant::now();
            while began.elapsed() < secs(seconds) {
                let end = request(Arc::clone(&stage.rig), secs(3900), None).await?;
                prop_assert!(!end.accepted);
                pass(Duration::from_millis(millis)).await;
            }
            let (reads, bound) = (stage.reads(), 1 + 2 * inquiries(began.elapsed()) + usize::from(overlap > 0));
            prop_assert!(reads <= bound, "{reads} reads in {:?}, {bound} allowed", began.elapsed());
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_new_with_every_read_is_not_read_by_every_refusal() {
    let stage = Stage::new(SETTINGS);
    stage.rig.fake.script(PATH, (0..1000).map(|n| Answer::text(&format!("minted-{n}"))));
    for _ in 0..100 {
        request(Arc::clone(&stage.rig), secs(3900), None).await.unwrap();
        pass(Duration::from_millis(10)).await;
    }
    assert!(stage.reads() <= 4, "{} reads in a second", stage.reads());
}
