//! A cold secret under a thousand requests: one read at the vault, whoever leaves meanwhile.

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;

use crate::{client::Call, world::World};

const REQUESTS: usize = 1000;

/// Everyone waits for the same read, and everyone is served.
pub async fn a_thousand_cold_requests_cost_one_read() {
    let mut world = patient_world().await;
    // A vault that stands still keeps the read open until all requests wait for it.
    world.bao.process().pause();
    let requests = (0..REQUESTS).map(|_| tokio::spawn(chat().send(world.sidekey.address))).collect::<Vec<_>>();
    world.sidekey.until_metric(&format!("sidekey_requests_in_flight {REQUESTS}")).await;
    world.bao.process().signal(Signal::CONT);

    for reply in join_all(requests).await {
        reply.expect("the request is answered").expect(200);
    }
    let credential = format!("Bearer {}", world.secrets.openai);
    let received = world.provider.take();
    assert_eq!(received.len(), REQUESTS);
    assert!(received.iter().all(|request| request.header("authorization") == credential));
    assert_eq!(world.bao.reads("secret/data/openai"), 1);
}

/// The read belongs to nobody: the client that caused it leaves, and the others get what it fetches.
pub async fn the_client_that_caused_a_read_may_leave() {
    let mut world = patient_world().await;
    world.bao.process().pause();
    let first = tokio::spawn(chat().send(world.sidekey.address));
    world.sidekey.until_metric("sidekey_requests_in_flight 1").await;
    let others = (1..REQUESTS).map(|_| tokio::spawn(chat().send(world.sidekey.address))).collect::<Vec<_>>();
    world.sidekey.until_metric(&format!("sidekey_requests_in_flight {REQUESTS}")).await;
    first.abort();
    world.sidekey.until_metric(&format!("sidekey_requests_in_flight {}", REQUESTS - 1)).await;
    world.bao.process().signal(Signal::CONT);

    for reply in join_all(others).await {
        reply.expect("the request is answered").expect(200);
    }
    assert_eq!(world.provider.take().len(), REQUESTS - 1);
    assert_eq!(world.bao.reads("secret/data/openai"), 1);
}

/// Two entities with keys of the same document share its read.
pub async fn keys_of_one_document_cost_one_read() {
    let world = World::start().await;
    let call = || Call::chat("amazon.nova-lite", "ping").header("x-portkey-provider", "@bedrock-prod");
    for _ in 0..3 {
        world.send(call()).await.expect(200);
    }
    assert_eq!(world.bao.reads("secret/data/aws"), 1, "two mappings, three requests");
}

/// A world whose manager waits for as long as the vault is stopped, and which gives a gateway on a busy machine the time to
/// accept a thousand connections at once.
async fn patient_world() -> World {
    World::with(|setup| {
        setup.config["managers"] = json!({"timeout_secs": 60, "deadline_secs": 90});
        setup.config["upstream"]["connect_timeout_secs"] = json!(60);
    })
    .await
}

fn chat() -> Call {
    Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", "@openai-prod")
}
