//! Sealed values in a running sidecar: used, never seen, and an alarm when they cannot be opened.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use sidekey::seal::{Place, identity::Identity, opener::Opener, recipient::Recipients};

use crate::harness::{Call, Setup, World};

const CANARY: &str = "sk-canary-of-a-sealed-key";

/// Two virtual keys: of one the key was sealed for it, of the other it was taken from there.
fn snapshot(recipients: &Recipients) -> Value {
    let place = Place { organisation: "o", object_id: "own", field: "key" };
    let sealed = json!({"$sealed": recipients.seal(place, CANARY).unwrap()});
    let key = |id: &str| json!({"id": id, "slug": id, "provider": "openai", "status": "active", "key": sealed});
    json!({"schema_version": 1, "version": 1, "organisation_id": "o", "virtual_keys": [key("own"), key("taken")]})
}

async fn world(opener: Identity, recipients: &Recipients) -> World {
    let opener = Some(Arc::new(Opener::new(opener.into())));
    World::start(Setup { snapshot: Some(snapshot(recipients)), opener, ..Setup::default() }).await
}

fn pair() -> (Identity, Recipients) {
    let identity = Identity::generate().unwrap();
    let recipients = Recipients::new(vec![identity.recipient()]).unwrap();
    (identity, recipients)
}

async fn chat(world: &World, slug: &str) -> (u16, Option<String>) {
    let provider = format!("@{slug}");
    let call = world.post("/v1/chat/completions").header("x-portkey-provider", &provider).json(&json!({}));
    let reply = call.send().await;
    (reply.status, reply.code().map(str::to_owned))
}

#[tokio::test]
async fn a_sealed_key_travels_and_is_seen_nowhere_else() {
    let (identity, recipients) = pair();
    let world = world(identity, &recipients).await;
    for _ in 0..2 {
        assert_eq!(chat(&world, "own").await, (200, None));
        assert_eq!(world.gateway.last().header("authorization"), Some(&*format!("Bearer {CANARY}")));
    }
    // In a config, too.
    let config = r#"{"provider": "@own"}"#;
    let call = world.post("/v1/chat/completions").header("x-portkey-config", config).json(&json!({}));
    assert_eq!(call.send().await.status, 200);
    assert!(world.gateway.last().header("x-portkey-config").unwrap().contains(CANARY));

    let sent = world.gateway.seen().len();
    assert_eq!(chat(&world, "taken").await, (502, Some("reference_misconfigured".to_owned())));
    assert_eq!(world.gateway.seen().len(), sent, "nothing was forwarded");
    let admin = world.admin().await;
    let ready = Call::to(admin, Method::GET, "/readyz").send().await;
    let unopened = &ready.json()["sealed"]["unopened"];
    assert_eq!((&unopened["count"], &unopened["first"][0]["at"]), (&json!(1), &json!("key of taken")));
    let counted = Call::to(admin, Method::GET, "/metrics").send().await;
    let metrics = String::from_utf8(counted.body.to_vec()).unwrap();
    assert!(metrics.contains("sidekey_sealed_values_unopened 1"), "{metrics}");
    for (what, shown) in [
        ("the log", world.logs.text()),
        ("the metrics", metrics),
        ("readiness", ready.json().to_string()),
        ("the snapshot", format!("{:?} {:?}", world.feed.current(), world.opener)),
        ("an entity", format!("{:?}", world.feed.current().unwrap().entities().collect::<Vec<_>>())),
    ] {
        assert!(!shown.contains(CANARY), "{what} shows the value");
    }
    assert!(world.logs.text().contains("A sealed value cannot be used."));
}

#[tokio::test]
async fn what_is_sealed_to_others_is_answered_misconfigured() {
    let ((_, recipients), (stranger, _)) = (pair(), pair());
    let world = world(stranger, &recipients).await;
    assert_eq!(chat(&world, "own").await, (502, Some("reference_misconfigured".to_owned())));
    assert!(world.gateway.seen().is_empty());
}
