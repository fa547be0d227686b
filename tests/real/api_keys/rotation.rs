//! The body with a rotation policy: two secrets that are good at once, and then one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;
use serde_json::json;
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{BODIES, Key, SDKS, Stage};
use crate::client::Call;

/// Clients that ask at once, each in its own time.
const CLIENTS: usize = 8;
/// How long a client keeps the old secret, at most: longer than a new one needs to be known everywhere.
const SLOWEST: Duration = Duration::from_secs(4);

/// By hand, as by the schedule: both secrets are good during the transition, with every SDK; after it the old one is not.
pub async fn ends_the_old_secret() {
    let mut stage = Stage::start().await;
    let keys = stage.run(BODIES).await;
    let old = keys[1].clone();
    let policy = &stage.admin(Method::GET, &format!("/api-keys/{}", old.id), &json!({})).await["rotation_policy"];
    assert_eq!(
        (&policy["rotation_period"], &policy["key_transition_period_ms"]),
        (&json!("monthly"), &json!(3_600_000))
    );
    assert!(policy["next_rotation_at"].as_str().is_some_and(|at| at.ends_with("-01T00:00:00.000Z")), "{policy}");
    let new = rotate(&stage, &old).await;
    for (app, sdk, call) in SDKS {
        for secret in [&old.secret, &new.secret] {
            let said = stage.ask(app, sdk, call, secret, None).await;
            assert_eq!(said["text"], "pong", "{app:?} {sdk}: {said}");
        }
    }
    stage.end_transition(&old, millis(Duration::from_secs(1))).await;
    stage.until_answered(&old.secret, 401).await;
    stage.provider.take();
    for (app, sdk, call) in SDKS {
        let said = stage.ask(app, sdk, call, &old.secret, None).await;
        assert_eq!((&said["status"], &said["code"]), (&json!(401), &json!("unauthorized")), "{app:?} {sdk}: {said}");
        let said = stage.ask(app, sdk, call, &new.secret, None).await;
        assert_eq!(said["text"], "pong", "{app:?} {sdk}: {said}");
    }
    assert_eq!(stage.provider.take().len(), SDKS.len(), "what the old one asked for is not sent");
}

/// Clients switch at different moments of a transition, from when the new secret is known to shortly before the old one ends.
pub async fn costs_no_client_a_request() {
    let stage = Arc::new(Stage::start().await);
    let mut key = stage.run(BODIES).await.swap_remove(1);
    let (mut asked, began) = (0, Instant::now());
    for round in 0..3 {
        let (turn, secret) = watch::channel(key.secret.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (mut secret, stop, failed) = (secret.clone(), Arc::clone(&stop), Arc::clone(&failed));
                let address = stage.sidekey.address;
                let patience = SLOWEST * u32::try_from(number).expect("small") / u32::try_from(CLIENTS).expect("small");
                tokio::spawn(async move {
                    let (mut answered, mut mine) = (0, secret.borrow_and_update().clone());
                    let mut switch = None;
                    while !stop.load(Relaxed) {
                        if secret.has_changed().expect("the test runs") {
                            switch = Some((Instant::now() + patience, secret.borrow_and_update().clone()));
                        }
                        if switch.as_ref().is_some_and(|(at, _)| Instant::now() >= *at) {
                            mine = switch.take().expect("just seen").1;
                        }
                        let call = Call::chat("gpt-4o", "ping").header("authorization", format!("Bearer {mine}"));
                        let reply = call.header("x-portkey-provider", "@openai").send(address).await;
                        if reply.status != 200 {
                            println!("{}: {}", reply.status, reply.text());
                            failed.fetch_add(1, Relaxed);
                        }
                        answered += 1;
                    }
                    assert!(switch.is_none(), "it never switched");
                    answered
                })
            })
            .collect();
        sleep(Duration::from_millis(500)).await;
        let rotated = Instant::now();
        let new = rotate(&stage, &key).await;
        println!("round {round}: the new secret is known after {:?}", rotated.elapsed());
        turn.send(new.secret.clone()).expect("clients listen");
        sleep(SLOWEST + Duration::from_millis(200)).await;
        // All have switched. The old one ends, while they go on.
        stage.end_transition(&key, millis(Duration::ZERO)).await;
        stage.until_answered(&key.secret, 401).await;
        sleep(Duration::from_millis(500)).await;
        stop.store(true, Relaxed);
        for client in clients {
            asked += client.await.expect("a client");
        }
        assert_eq!(failed.load(Relaxed), 0, "of {asked} requests");
        stage.provider.take();
        key = new;
    }
    println!("{asked} requests in {:?}, 3 rotations, none failed", began.elapsed());
}

/// Gives the key a new secret, and returns when the sidecar knows it.
async fn rotate(stage: &Stage, key: &Key) -> Key {
    let answer = stage.admin(Method::POST, &format!("/api-keys/{}/rotate", key.id), &json!({})).await;
    assert!(answer["key_transition_expires_at"].is_string(), "{answer}");
    let new = Key { id: key.id.clone(), secret: answer["key"].as_str().expect("a key").to_owned() };
    stage.until_known(&new.secret).await;
    new
}

/// So long from now, in milliseconds since 1970.
fn millis(ahead: Duration) -> i64 {
    let end = OffsetDateTime::now_utc() + ahead;
    i64::try_from(end.unix_timestamp_nanos() / 1_000_000).expect("this century")
}
