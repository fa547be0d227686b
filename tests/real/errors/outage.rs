//! A secret's life through the running sidecar: it changes, its vault goes away, and comes back.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::{client::Call, world::World};

const TTL: Duration = Duration::from_secs(1);
const STALE: Duration = Duration::from_secs(3);

/// How long a recovery may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// After its lifetime the old value is served at most up to the hard bound, and then the new one for good.
pub async fn a_changed_secret_arrives_after_its_lifetime() {
    let world = impatient().await;
    let old = world.secrets.anthropic.clone();
    assert_eq!(credential(&world).await, Ok(old.clone()));
    let read_before = Instant::now();
    world.bao.put("anthropic", json!({"api_key": "sk-changed"})).await;
    assert_eq!(successor(&world, &old, read_before).await, Ok("sk-changed".to_owned()));
    for _ in 0..3 {
        assert_eq!(credential(&world).await, Ok("sk-changed".to_owned()), "the old one does not come back");
    }
}

/// A vault that dies is not noticed until nothing may be served any more; what comes then is an error and not an old
/// value; and when another vault answers at its address, Sidekey logs in again and goes on.
pub async fn an_outage_is_bridged_up_to_the_hard_bound() {
    let mut world = impatient().await;
    let pid = world.sidekey.process().pid();
    let old = world.secrets.anthropic.clone();
    let read_after = Instant::now();
    assert_eq!(credential(&world).await, Ok(old.clone()));
    let read_before = Instant::now();
    world.bao.kill().await;

    assert_eq!(successor(&world, &old, read_before).await, Err("manager_unavailable".to_owned()));
    assert!(read_after.elapsed() >= TTL + STALE, "refused before the hard bound: {:?}", read_after.elapsed());
    assert!(world.sidekey.log().contains("anthropic-key=stale"), "the access line says that the value was old");
    // An outage of a manager is told, and no reason to take the sidecar out of service.
    let ready = Call::get("/readyz").send(world.sidekey.admin).await.expect(200).text();
    assert!(ready.contains("anthropic-key"), "{ready}");

    world.bao.start_again().await;
    world.bao.put("anthropic", json!({"api_key": "sk-after-the-outage"})).await;
    let deadline = Instant::now() + PATIENCE;
    while credential(&world).await != Ok("sk-after-the-outage".to_owned()) {
        assert!(Instant::now() < deadline, "it does not recover:\n{}", world.sidekey.log());
    }
    assert_eq!(world.sidekey.process().pid(), pid, "by itself");
}

/// A world in which values age quickly and are only read again when somebody asks.
async fn impatient() -> World {
    World::with(|setup| {
        setup.config["cache"] = json!({
            "ttl_secs": TTL.as_secs(), "stale_secs": STALE.as_secs(), "negative_ttl_secs": 1, "refresh_ahead_ratio": 0,
        });
    })
    .await
}

/// What the provider receives of a request that is sent now, or the code of its refusal.
async fn credential(world: &World) -> Result<String, String> {
    let reply = world.send(Call::chat("claude", "ping").header("x-portkey-provider", "@anthropic-prod")).await;
    if reply.status == 200 {
        return Ok(world.provider.take_one().header("x-api-key"));
    }
    assert!(!reply.header("retry-after").is_empty(), "it says when to come back: {reply:?}");
    Err(reply.header("x-sidekey-error"))
}

/// Sends until there is another result than `old`, which was read before `read_before` and so has an end.
async fn successor(world: &World, old: &str, read_before: Instant) -> Result<String, String> {
    loop {
        let asked = Instant::now();
        let result = credential(world).await;
        if result.as_deref() != Ok(old) {
            return result;
        }
        let age = asked.saturating_duration_since(read_before);
        assert!(age < TTL + STALE, "served past the hard bound: {age:?}");
    }
}
