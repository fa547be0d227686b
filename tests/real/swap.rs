//! Snapshots that change while requests run: nothing is lost, nothing broken gets in, nothing sound suffers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::json;

use crate::{
    client::Call,
    world::{World, find, mapping, push, virtual_key},
};

const CLIENTS: usize = 16;
const SWAPS: usize = 20;

/// Snapshots are replaced, each naming another secret for the same virtual key, while clients send without a pause.
pub async fn loses_no_request_under_load() {
    let mut world = World::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (stop, address) = (stop.clone(), world.sidekey.address);
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    let call = Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", "@openai-backup");
                    call.send(address).await.expect(200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let credential = |round: usize| format!("sk-of-round-{round}");
    for round in 0..SWAPS {
        let path = format!("rounds/{round}");
        world.bao.put(&path, json!({"api_key": credential(round)})).await;
        let backup = find(&mut world.snapshot, "secret_references", "openai-backup-key");
        backup["secret_path"] = json!(format!("secret/data/{path}"));
        world.replace_snapshot().await;
        // What is sent from now on carries the new secret.
        let marker = format!("after swap {round}");
        world.send(Call::chat("gpt-4o-mini", &marker).header("x-portkey-provider", "@openai-backup")).await.expect(200);
        let received = world.provider.received();
        let mine = received.iter().find(|request| request.contains(&marker)).expect("it arrived");
        assert_eq!(mine.header("authorization"), format!("Bearer {}", credential(round)));
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for client in clients {
        answered += client.await.expect("no request failed");
    }
    let received = world.provider.take();
    assert_eq!(received.len(), answered + SWAPS, "each request arrived once");
    assert!(answered > CLIENTS * 2, "there was load: {answered}");
}

/// A broken file is refused whole, with every fault named, and what was in force stays.
pub async fn refuses_a_broken_file_with_all_its_faults() {
    let mut world = World::start().await;
    let good = world.snapshot.clone();
    find(&mut world.snapshot, "secret_references", "openai-key")["manager_type"] = json!("no_such_manager");
    find(&mut world.snapshot, "virtual_keys", "openai-backup")["secret_mappings"] =
        json!([mapping("key", "no-such-reference", None)]);
    find(&mut world.snapshot, "integrations", "azure-main")["secret_mappings"] =
        json!([mapping("configurations.custom_host", "azure-key", None)]);
    world.snapshot["version"] = json!(99);
    for broken in [world.snapshot.to_string(), "{".to_owned(), json!({"schema_version": 2}).to_string()] {
        let refused = world.sidekey.metric("sidekey_snapshot_loads_total{outcome=\"refused\"}").await;
        world.sidekey.write_snapshot(&broken);
        world
            .sidekey
            .until_metric(&format!("sidekey_snapshot_loads_total{{outcome=\"refused\"}} {}", refused + 1))
            .await;
        for slug in ["openai-prod", "openai-backup", "azure-prod"] {
            let call = Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@{slug}"));
            world.send(call).await.expect(200);
        }
        assert!(world.sidekey.metrics().await.lines().any(|line| line == "sidekey_snapshot_version 1"));
    }
    let log = world.sidekey.log();
    for named in ["no_such_manager", "no-such-reference", "custom_host"] {
        assert!(log.contains(named), "the log does not name {named}:\n{log}");
    }
    world.snapshot = good;
    world.replace_snapshot().await;
}

/// Of a source that is not strict, a bad row is set aside; only what depends on it fails, and `/readyz` names it.
pub async fn sets_one_bad_row_aside() {
    let world = World::with(|setup| {
        setup.config["snapshot"]["strict"] = json!(false);
        let reference = find(&mut setup.snapshot, "secret_references", "openai-backup-key");
        reference["auth_config"]["vault_addr"] = json!("http://169.254.169.254:8200");
        let dangling = json!([mapping("key", "no-such-reference", None)]);
        push(&mut setup.snapshot, "virtual_keys", virtual_key("dangling", None, Some("openai"), json!({}), dangling));
    })
    .await;
    for (slug, status) in [("openai-prod", 200), ("azure-prod", 200), ("openai-backup", 502), ("dangling", 502)] {
        let call = Call::chat("gpt-4o-mini", "ping").header("x-portkey-provider", format!("@{slug}"));
        let reply = world.send(call).await.expect(status);
        if status == 502 {
            assert_eq!(reply.header("x-sidekey-error"), "reference_misconfigured", "{slug}");
        }
    }
    assert_eq!(world.provider.take().len(), 2, "what was refused went nowhere");
    let ready = Call::get("/readyz").send(world.sidekey.admin).await.expect(200).text();
    for named in ["openai-backup-key", "dangling"] {
        assert!(ready.contains(named), "/readyz does not name {named}: {ready}");
    }
    let set_aside = world.sidekey.metric("sidekey_snapshot_set_aside").await;
    assert!(set_aside >= 2, "{set_aside}");
}
