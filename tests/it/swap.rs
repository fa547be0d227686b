//! A large snapshot is linked and swapped in while requests pass: none of them waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use sidekey::model::{LinkRules, link};
use tokio::time::Instant;

use crate::harness::{Setup, World};

const ENTITIES: usize = 100_000;

fn snapshot(entities: usize) -> Value {
    let key = |number: usize| json!({"id": format!("vk-{number}"), "slug": format!("vk-{number}"), "integration_id": "int", "status": "active"});
    json!({
        "schema_version": 1, "version": 1, "organisation_id": "o",
        "integrations": [{"id": "int", "slug": "int", "ai_provider_id": "openai", "key": "sk-1", "status": "active"}],
        "virtual_keys": (0..entities).map(key).collect::<Vec<_>>(),
    })
}

/// Requests in a row until told to stop; how long each took, the longest last.
async fn requests(world: &World, stop: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let call = world.post("/v1/chat/completions").header("x-portkey-provider", "@vk-0").json(&json!({}));
        assert_eq!(call.send().await.status, 200);
        times.push(begun.elapsed());
    }
    times.sort();
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_waits_for_a_hundred_thousand_entities() {
    let world = World::start(Setup { snapshot: Some(snapshot(1)), ..Setup::default() }).await;
    let large = Arc::new(snapshot(ENTITIES).to_string());
    let stop = AtomicBool::new(false);
    let quiet = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (before, ()) = tokio::join!(requests(&world, &stop), quiet);
    stop.store(false, Ordering::Relaxed);
    let swapping = async {
        for _ in 0..2 {
            let large = Arc::clone(&large);
            let linked = tokio::task::spawn_blocking(move || link(large.as_bytes(), &LinkRules::STRICT).unwrap());
            let begun = Instant::now();
            let linked = linked.await.unwrap();
            println!("linked {ENTITIES} entities in {:?}", begun.elapsed());
            let retired = world.feed.current();
            world.feed.swap(Arc::new(linked));
            tokio::task::spawn_blocking(move || drop(retired)).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (during, ()) = tokio::join!(requests(&world, &stop), swapping);
    assert_eq!(world.feed.current().unwrap().entities().count(), ENTITIES + 1);
    let at = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
    for (what, times) in [("before", &before), ("during", &during)] {
        let (p50, p99, most) = (at(times, 50), at(times, 99), at(times, 100));
        println!("{what}: {} requests, p50 {p50:?}, p99 {p99:?}, longest {most:?}", times.len());
    }
    // Had it waited for the swap, one request would have taken as long as linking does.
    assert!(
        at(&during, 99) < at(&before, 99) + Duration::from_millis(100),
        "{:?} {:?}",
        at(&before, 99),
        at(&during, 99)
    );
}
