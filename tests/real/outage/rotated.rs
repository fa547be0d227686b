//! From the moment the manager has a new version to the first request that carries it: by age alone, after a refusal, and for
//! WebSockets, whose handshake is not sent again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    PATIENCE, add,
    load::{self, Line, Times},
    number,
};
use crate::world::{World, find};

/// Secrets that rotate, each at another moment of its lifetime.
const SECRETS: u32 = 10;
/// How often the maintenance looks which values are due.
const ROUND: Duration = Duration::from_secs(1);
/// What a read and a busy machine add.
const SLACK: Duration = Duration::from_secs(1);

/// Nobody refuses the old version: each is replaced by the refresh that follows, within its lifetime.
pub async fn is_used_within_its_lifetime() {
    let ttl = number("OUTAGE_TTL_SECS", 3);
    let world = world(ttl, None, SECRETS).await;
    let address = world.sidekey.address;
    let ttl = Duration::from_secs(ttl);
    let all = (0..SECRETS).map(async |number| {
        let mut line = Line::open(address, &name(number)).await;
        assert_eq!(line.send().await.status, 200);
        // It is in use, and rotates at its own moment.
        let end = Instant::now() + ttl * number / SECRETS;
        while Instant::now() < end {
            line.send().await;
            sleep(Duration::from_millis(50)).await;
        }
        world.bao.put(&name(number), json!({"api_key": format!("sk-{number}-2")})).await;
        until_version_2(&mut line).await
    });
    let took = join_all(all).await;
    for took in &took {
        assert!(*took < ttl + ROUND + SLACK, "{took:?}");
    }
    let times = Times::new(took);
    println!("| from rotation to first use, by age (ttl {} s) | p50 | slowest |", ttl.as_secs());
    println!("| {SECRETS} secrets | {:.1} s | {:.1} s |", times.part(0.5).as_secs_f64(), times.part(1.0).as_secs_f64());
}

/// The provider takes nothing but the new version: the request that is refused is the first to use it.
pub async fn is_used_by_the_request_that_was_refused() {
    let accepted = Arc::new(Mutex::new(None));
    let world = world(300, Some(Arc::clone(&accepted)), 1).await;
    let mut line = Line::open(world.sidekey.address, &name(0)).await;
    let (mut hits, mut recovered) = (Vec::new(), Vec::new());
    for rotation in 2..2 + number::<u32>("OUTAGE_ROTATIONS", 3) {
        for _ in 0..20 {
            let got = line.send().await;
            assert_eq!(got.status, 200, "{got:?}");
            hits.push(got);
        }
        // An inquiry that found a change rests for a second.
        sleep(Duration::from_secs(1)).await;
        let key = format!("sk-0-{rotation}");
        world.bao.put(&name(0), json!({ "api_key": key.clone() })).await;
        *accepted.lock().unwrap() = Some(format!("bearer {key}"));
        let got = line.send().await;
        assert_eq!(got.status, 200, "{got:?}");
        recovered.push(got);
    }
    println!("| request | p50 | p99 |");
    println!("| a hit | {} |", Times::of(&hits));
    println!("| refused, read again, sent again | {} |", Times::of(&recovered));
}

/// One handshake fails, and the next one carries the new version.
pub async fn costs_one_handshake_of_a_websocket() {
    let accepted = Arc::new(Mutex::new(None));
    let world = world(300, Some(Arc::clone(&accepted)), 1).await;
    let address = world.sidekey.address;
    let handshake = async || Line::handshake(address, &name(0)).await.send().await;
    assert_eq!(handshake().await.status, 101);
    let mut failed = 0;
    for rotation in 2..5 {
        let key = format!("sk-0-{rotation}");
        world.bao.put(&name(0), json!({ "api_key": key.clone() })).await;
        *accepted.lock().unwrap() = Some(format!("bearer {key}"));
        let rotated_at = Instant::now();
        while handshake().await.status != 101 {
            failed += 1;
            assert!(rotated_at.elapsed() < PATIENCE, "it does not heal");
            // The read goes on behind the answer.
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
    println!("3 rotations, a handshake every 50 ms: {failed} failed");
    assert!((3..=6).contains(&failed), "{failed}");
}

/// Secrets `rotated-N` with virtual keys of the same name, and a gateway that takes only `accepted`, if that says what.
async fn world(ttl: u64, accepted: Option<load::Accepted>, secrets: u32) -> World {
    let gateway = load::quick_gateway_for(accepted.unwrap_or_default()).await;
    let world = World::with(|setup| {
        setup.config["cache"] = json!({"ttl_secs": ttl});
        setup.config["provenance_header"] = json!(true);
        setup.config["log"]["level"] = json!("info");
        setup.config["upstream"]["url"] = json!(format!("http://{gateway}"));
        let auth = find(&mut setup.snapshot, "secret_references", "openai-key")["auth_config"].clone();
        for number in 0..secrets {
            add(setup, &name(number), auth.clone(), &format!("secret/data/{}", name(number)));
        }
    })
    .await;
    for number in 0..secrets {
        world.bao.put(&name(number), json!({"api_key": format!("sk-{number}-1")})).await;
    }
    world
}

async fn until_version_2(line: &mut Line) -> Duration {
    let rotated_at = Instant::now();
    loop {
        let got = line.send().await;
        assert_eq!(got.status, 200, "{got:?}");
        if got.header("x-sidekey-provenance").contains("version=\"2\"") {
            return got.sent - rotated_at;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn name(number: u32) -> String {
    format!("rotated-{number}")
}
