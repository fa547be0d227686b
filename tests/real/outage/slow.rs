//! A manager that answers, but takes its time.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{
    Fault, PATIENCE, Proxy, WAITED, add, fault,
    load::{self, Line, Times},
    number,
};
use crate::world::{World, find};

/// How long it takes for each answer.
const TAKES: Duration = Duration::from_secs(2);
/// Refreshes that are watched.
const CYCLES: usize = 5;

/// After the first read no request waits for it, over five refreshes.
pub async fn makes_nobody_wait() {
    let ttl = number("OUTAGE_TTL_SECS", 1);
    let gateway = load::quick_gateway().await;
    let proxy = Proxy::start(1).await;
    let world = World::with(|setup| {
        setup.config["cache"] = json!({"ttl_secs": ttl});
        setup.config["egress"]["allow_cidrs"] = json!(["127.0.0.1/32", fault::NETWORK]);
        setup.config["provenance_header"] = json!(true);
        setup.config["log"]["level"] = json!("info");
        setup.config["upstream"]["url"] = json!(format!("http://{gateway}"));
        let mut auth = find(&mut setup.snapshot, "secret_references", "openai-key")["auth_config"].clone();
        auth["vault_addr"] = json!(proxy.url());
        add(setup, "slow", auth, "secret/data/openai");
    })
    .await;
    proxy.lead_to(world.bao.address);
    let reads = || proxy.asked().iter().filter(|(_, path)| path == "/v1/secret/data/openai").count();
    let address = world.sidekey.address;

    proxy.set(Fault::Slow(TAKES));
    let first = Line::open(address, "slow").await.send().await;
    assert!(first.status == 200 && first.took >= TAKES, "the first one has to wait: {first:?}");
    assert_eq!(reads(), 1);
    let (began, mut all) = (Instant::now(), Vec::new());
    while reads() < 1 + CYCLES {
        all.extend(load::run(address, "slow", 4, 100, Duration::from_millis(500)).await);
        assert!(began.elapsed() < CYCLES as u32 * (Duration::from_secs(ttl) + TAKES) + PATIENCE, "{} reads", reads());
    }
    for got in &all {
        let provenance = got.header("x-sidekey-provenance");
        assert!(got.status == 200 && got.took < WAITED && !provenance.contains("outcome=miss"), "{got:?}");
    }

    // The same again while the manager is quick.
    proxy.set(Fault::None);
    let quick = load::run(address, "slow", 4, 100, began.elapsed().min(Duration::from_secs(ttl))).await;
    println!("| manager | p50 | p99 | slowest | requests | refreshes |");
    for (manager, all, cycles) in [("takes 2 s", &all, CYCLES), ("answers at once", &quick, 0)] {
        let times = Times::of(all);
        println!("| {manager} | {times} | {:.1} | {} | {cycles} |", times.part(1.0).as_secs_f64() * 1e3, all.len());
    }
}
