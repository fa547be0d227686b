//! Health, readiness and metrics as an orchestrator sees them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use sidekey::model::{Problem, Snapshot};
use tokio::io::AsyncReadExt as _;

use crate::harness::{Call, Raw, Reply, Setup, World, pass, within};

async fn get(address: SocketAddr, target: &str) -> Reply {
    Call::to(address, Method::GET, target).send().await
}

/// Asks until the reasons are these.
async fn ready(address: SocketAddr, reasons: &Value) -> Reply {
    within(async {
        loop {
            let reply = get(address, "/readyz").await;
            if reply.json()["reasons"] == *reasons {
                return reply;
            }
        }
    })
    .await
}

#[tokio::test]
async fn it_is_ready_with_a_snapshot_and_a_gateway_until_it_ends() {
    let world = World::start(Setup { no_snapshot: true, ..Setup::default() }).await;
    let admin = world.admin().await;
    let reply = ready(admin, &json!(["no_snapshot"])).await;
    assert_eq!((reply.status, &reply.json()["ready"]), (503, &json!(false)));

    let set_aside = vec![Problem { at: "virtual_keys[0]".into(), message: "names no integration".into() }];
    let mut snapshot = Snapshot::default();
    snapshot.version = 17;
    snapshot.set_aside = set_aside;
    world.feed.swap(snapshot.into());
    let reply = ready(admin, &json!([])).await;
    assert_eq!((reply.status, &reply.json()["ready"]), (200, &json!(true)));
    assert_eq!(reply.json()["snapshot"]["version"], 17);
    assert_eq!(reply.json()["snapshot"]["origin"], "source");
    let told = json!({ "count": 1, "first": [{ "at": "virtual_keys[0]", "message": "names no integration" }] });
    assert_eq!(reply.json()["snapshot"]["set_aside"], told);

    // A refused snapshot is told, and changes nothing.
    world.feed.refuse([Problem { at: "configs".into(), message: "duplicate".into() }].into());
    let reply = get(admin, "/readyz").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["snapshot"]["refused"]["problems"]["first"][0]["at"], "configs");

    world.shutdown.drain();
    let reply = get(admin, "/readyz").await;
    assert_eq!((reply.status, &reply.json()["reasons"]), (503, &json!(["shutting_down"])));
    assert_eq!(get(admin, "/healthz").await.status, 200, "it ends, and is alive");
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_makes_it_unready_and_not_dead() {
    let gateway = Raw::bind().await;
    let world = World::start(Setup { upstream: Some(gateway.address), ..Setup::default() }).await;
    let admin = world.admin().await;
    ready(admin, &json!(["gateway_unreachable"])).await;
    let mut probe = gateway.accept().await;
    assert!(probe.head().await.starts_with("GET / HTTP/1.1\r\n"));
    // Any answer is a sign of life.
    probe.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    ready(admin, &json!([])).await;
    drop((gateway, probe));
    ready(admin, &json!(["gateway_unreachable"])).await;
    assert_eq!(get(admin, "/healthz").await.status, 200);
}

#[tokio::test]
async fn an_acceptor_that_stands_still_is_a_fault_unless_the_process_ends() {
    let gateway = Raw::bind().await;
    let world = World::start(Setup { upstream: Some(gateway.address), ..Setup::default() }).await;
    let admin = world.admin().await;
    let stuck = world.admin_watching(vec![("acceptor", world.heartbeat.clone()), ("stuck", Arc::default())]).await;
    pass(Duration::from_secs(20)).await;
    // The acceptor beats again as soon as it may.
    within(async { while get(admin, "/healthz").await.status != 200 {} }).await;
    let reply = get(stuck, "/healthz").await;
    assert_eq!((reply.status, reply.json()), (503, json!({ "alive": false, "late": ["stuck"] })));

    let mut client = world.wire().await;
    client.send("GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n").await;
    world.shutdown.drain();
    world.logged("Shutting down").await;
    pass(Duration::from_secs(20)).await;
    for admin in [admin, stuck] {
        let reply = get(admin, "/healthz").await;
        assert_eq!((reply.status, reply.json()), (200, json!({ "alive": true, "late": [] })));
    }
    assert!(!world.served.is_finished(), "a request is still running");
}

#[tokio::test]
async fn what_is_counted_can_be_scraped() {
    let world = World::start(Setup::default()).await;
    let admin = world.admin().await;
    world.get("/v1/models").send().await;
    for (accept, content_type, family) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", "# TYPE sidekey_requests_total counter\n"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# TYPE sidekey_requests counter\n",
        ),
    ] {
        let reply = Call::to(admin, Method::GET, "/metrics").header("accept", accept).send().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some(content_type));
        let text = reply.text();
        for part in [family, r#"sidekey_requests_total{code="ok",mode="unmatched"} 1"#, "sidekey_added_seconds_count 1"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(text.ends_with("# EOF\n"), accept.contains("openmetrics"), "{text}");
    }
}

#[tokio::test]
async fn nothing_else_is_served() {
    let world = World::start(Setup::default()).await;
    let admin = world.admin().await;
    for (method, target, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/v1/models", 404),
        (Method::GET, "/metrics/", 404),
        (Method::POST, "/readyz", 405),
        (Method::GET, "/v1/secrets", 403),
        (Method::POST, "/v1/secrets/refresh", 403),
        (Method::POST, "/v1/secrets/test", 403),
        (Method::HEAD, "/healthz", 200),
    ] {
        let reply = Call::to(admin, method.clone(), target).send().await;
        assert_eq!(reply.status, status, "{method} {target}");
    }
    for target in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(world.get(target).send().await.status, 404, "{target} is for the admin listener");
    }
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_waiting() {
    let world = World::start(Setup::default()).await;
    let admin = world.admin().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(tokio::net::TcpStream::connect(admin).await.unwrap());
    }
    assert_eq!(within(get(admin, "/healthz")).await.status, 200);
    let mut end = [0];
    assert_eq!(within(silent[0].read(&mut end)).await.unwrap(), 0, "the oldest made room");
}
