//! The end of a sidecar: running requests finish, new ones are refused, the exit status is 0.

use rustix::process::Signal;
use serde_json::json;

use crate::{client::Call, provider::Provider, world::World};

/// On SIGTERM `/readyz` turns 503 and a stream that runs goes on to its end.
pub async fn a_running_stream_finishes() {
    // Long enough to look around; a stream that ends earlier ends the wait.
    let mut world =
        World::with(|setup| setup.config["limits"] = json!({"drain_delay_secs": 2, "drain_secs": 60})).await;
    let body = json!({"model": "gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "gate:drain"}]});
    let call = Call::post("/v1/chat/completions").json(&body).header("x-portkey-provider", "@openai-prod");
    let mut reply = call.open(world.sidekey.address).await;
    reply.until("token-0").await;

    world.sidekey.process().signal(Signal::TERM);
    let (admin, address) = (world.sidekey.admin, world.sidekey.address);
    let process = world.sidekey.process();
    process.until("unready", async || (Call::get("/readyz").send(admin).await.status == 503).then_some(())).await;
    let refused = async || tokio::net::TcpStream::connect(address).await.is_err().then_some(());
    process.until("closed to new clients", refused).await;

    let rest = tokio::spawn(async move { reply.until("[DONE]").await });
    release_all(&world.provider, "drain");
    rest.await.expect("the stream is not cut");
    assert!(world.sidekey.process().ended().await.success());
}

/// What outlasts the drain is cut, and that is no failure.
pub async fn an_endless_stream_is_cut() {
    let mut world = World::with(|setup| setup.config["limits"] = json!({"drain_delay_secs": 0, "drain_secs": 1})).await;
    let body = json!({"model": "gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "gate:never"}]});
    let call = Call::post("/v1/chat/completions").json(&body).header("x-portkey-provider", "@openai-prod");
    let mut reply = call.open(world.sidekey.address).await;
    reply.until("token-0").await;
    world.sidekey.process().signal(Signal::TERM);
    assert!(world.sidekey.process().ended().await.success());
}

fn release_all(provider: &Provider, gate: &str) {
    for _ in 0..8 {
        provider.release(gate);
    }
}
