//! Many sidecars that start one after the other, or together, each reading a thousand secrets ahead: what OpenBao sees.
//!
//! Short as part of `tests/run`. `benches/outage` runs the whole measurement and prints the histogram; the numbers come from
//! `BUDGET_REFERENCES`, `BUDGET_STARTS` and `BUDGET_AT_ONCE`, how many start together.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    components::free_address,
    harness,
    world::{Setup, Sidekey, World, find, push, reference},
};

/// Reads a second and at once that a sidecar allows itself at a Vault, as documented in docs/operating.md.
const PER_SECOND: f64 = 200.0;
const BURST: f64 = 1000.0;
/// Width of the histogram's bars.
const BAR: Duration = Duration::from_millis(500);
/// Reads under way at once when reading ahead, as documented.
const CONCURRENT: usize = 16;

/// A read that OpenBao noted.
struct Read {
    at: OffsetDateTime,
    path: String,
}

/// Each start reads everything once, in an order of its own, within its budget.
pub async fn is_kept_by_many_starts() {
    let references: usize = number("BUDGET_REFERENCES", 200);
    let (starts, at_once): (usize, usize) = (number("BUDGET_STARTS", 4), number("BUDGET_AT_ONCE", 2));
    let mut template = None;
    let world = World::with(|setup| {
        setup.config["log"]["level"] = json!("info");
        let mut snapshot = setup.snapshot.clone();
        let auth = find(&mut snapshot, "secret_references", "openai-key")["auth_config"].clone();
        let names: Vec<String> = (0..references).map(|number| format!("bulk-{number}")).collect();
        for name in &names {
            push(&mut snapshot, "secret_references", reference(name, auth.clone(), &path(name), Some("api_key")));
        }
        let mut config = setup.config.clone();
        config["prewarm"] = json!("list");
        config["prewarm_list"] = json!(names);
        template = Some((config, snapshot));
    })
    .await;
    let (config, snapshot) = template.expect("it was made");
    let written = stream::iter(0..references).map(async |number| {
        world.bao.put(&format!("bulk-{number}"), json!({"api_key": format!("sk-{number}")})).await;
    });
    written.buffer_unordered(CONCURRENT).collect::<()>().await;

    let began = Instant::now();
    let mut ready_after = Vec::new();
    for wave in 0..starts.div_ceil(at_once) {
        let starting = (0..at_once.min(starts - wave * at_once)).map(async |number| {
            let setup = Setup {
                config: own(&config, wave * at_once + number),
                snapshot: snapshot.clone(),
                environment: Vec::new(),
            };
            let launched = Instant::now();
            let sidekey = Sidekey::start(&setup).await;
            let took = launched.elapsed();
            let fetches = sidekey.metric(r#"sidekey_fetches_total{manager="hashicorp_vault",class="ok"}"#).await;
            assert_eq!(fetches, references as u64, "each document is read once");
            took
        });
        ready_after.extend(join_all(starting).await);
    }
    let took = began.elapsed();

    let reads: Vec<Read> = world.bao.read_times("secret/data/bulk-").map(|(at, path)| Read { at, path }).collect();
    assert_eq!(reads.len(), references * starts, "and nothing twice");
    if at_once == 1 {
        assert_differently_ordered(&reads, references);
    }
    // Whoever starts together has a budget each.
    let most = at_once as f64 * BURST;
    for (number, first) in reads.iter().enumerate() {
        let later = reads[number..].iter().take_while(|read| read.at - first.at <= Duration::from_secs(1)).count();
        assert!(later as f64 <= most + at_once as f64 * PER_SECOND, "{later} reads within a second");
    }
    ready_after.sort_unstable();
    println!(
        "{starts} starts, {at_once} at once, {references} references each, in {:.1} s: {} reads, ready after {:.2} s (median; \
         slowest {:.2} s)",
        took.as_secs_f64(),
        reads.len(),
        ready_after[ready_after.len() / 2].as_secs_f64(),
        ready_after[ready_after.len() - 1].as_secs_f64(),
    );
    histogram(&reads);
}

/// A configuration of its own for each start.
fn own(config: &Value, number: usize) -> Value {
    let mut config = config.clone();
    config["listen"] = json!(free_address().to_string());
    config["admin_listen"] = json!(free_address().to_string());
    config["snapshot"]["file"] = json!(harness::folder().join(format!("snapshot-bulk-{number}.json")));
    config
}

fn path(name: &str) -> String {
    format!("secret/data/{name}")
}

/// Chance has a hand in the order: what the first tenth of a start reads is not what the next start's reads.
fn assert_differently_ordered(reads: &[Read], references: usize) {
    let first = |start: &[Read]| -> HashSet<String> {
        start.iter().take(references / 10).map(|read| read.path.clone()).collect()
    };
    let starts: Vec<_> = reads.chunks(references).map(first).collect();
    for pair in starts.windows(2) {
        let common = pair[0].intersection(&pair[1]).count();
        assert!(common < pair[0].len() / 2, "{common} of {} in common", pair[0].len());
    }
}

/// Reads for each bar of time, and how many bars had so many.
fn histogram(reads: &[Read]) {
    let Some(first) = reads.first() else { return };
    let mut bars = BTreeMap::<u128, usize>::new();
    for read in reads {
        let after: Duration = (read.at - first.at).try_into().unwrap_or_default();
        *bars.entry(after.as_millis() / BAR.as_millis()).or_default() += 1;
    }
    let all = bars.keys().next_back().map_or(0, |last| *last as usize + 1);
    let most = bars.values().max().copied().unwrap_or_default();
    let width = (most / 10).max(1);
    println!("reads in {} ms | how often", BAR.as_millis());
    let quiet = all - bars.len();
    println!("{:>14} | {quiet}", 0);
    for step in 0..=most / width {
        let (from, to) = ((step * width).max(1), (step + 1) * width);
        let count = bars.values().filter(|reads| (from..to).contains(*reads)).count();
        if count > 0 {
            println!("{:>14} | {count:4} {}", format!("{from}–{}", to - 1), "#".repeat(count.min(80)));
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().map_or(default, |text| text.parse().ok().unwrap_or_else(|| panic!("{name} is a number")))
}
