//! What one client, or one tenant, may take from the others: places, time, and memory of answers that are not read.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use sidekey::{manager::fake::Answer, proxy::Settings};
use tokio::net::TcpStream;

use crate::harness::{Raw, Setup, Wire, World, within};

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const SOON: Duration = Duration::from_millis(100);

async fn before(raw: &Raw, change: impl FnOnce(&mut Settings) + 'static) -> World {
    World::start(Setup { upstream: Some(raw.address), proxy: Box::new(change), ..Setup::default() }).await
}

/// Writes an endless answer until its reader is gone.
async fn pour(mut gateway: Wire) {
    gateway.send(STREAM).await;
    let piece = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let pouring =
        async { while tokio::io::AsyncWriteExt::write_all(&mut gateway.stream, piece.as_bytes()).await.is_ok() {} };
    within(pouring).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_hear_it_and_keep_their_connection() {
    let raw = Raw::bind().await;
    let world = before(&raw, |settings| settings.limits.max_in_flight = 1).await;
    let mut first = world.wire().await;
    first.send(GET).await;
    let mut gateway = raw.accept().await;
    gateway.head().await;

    let mut second = world.wire().await;
    for _ in 0..3 {
        second.send(GET).await;
        let head = second.head().await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        for line in ["x-sidekey-error: overloaded", "retry-after: 1"] {
            assert!(head.contains(line), "{line}: {head}");
        }
        assert!(!head.contains("connection: close"), "{head}");
        second.until("\"failure\"}").await;
    }
    assert_eq!(world.metrics.requests_in_flight.get(), 1);
    gateway.send(OK).await;
    first.until("ok").await;
    second.send(GET).await;
    gateway.head().await;
    gateway.send(OK).await;
    assert!(second.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_a_silent_stream_is_not() {
    let raw = Raw::bind().await;
    let world = before(&raw, |settings| settings.limits.stall_timeout = SOON).await;
    let mut patient = world.wire().await;
    patient.send(GET).await;
    let mut silent = raw.accept().await;
    silent.send(STREAM).await;
    patient.head().await;

    let mut deaf = world.wire().await;
    deaf.send(GET).await;
    pour(raw.accept().await).await;
    within(async {
        while world.metrics.connections.get() > 1 {
            tokio::time::sleep(SOON / 10).await;
        }
    })
    .await;

    // Long after the other was cut.
    tokio::time::sleep(SOON * 3).await;
    silent.send("5\r\nhello\r\n0\r\n\r\n").await;
    patient.until("hello\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_stream_of_http2_without_room_is_reset_and_the_others_go_on() {
    let raw = Raw::bind().await;
    let world = before(&raw, |settings| settings.limits.stall_timeout = SOON).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let running = tokio::spawn(connection);
    let get = || Request::get("http://s/v1/models").body(Empty::new()).unwrap();
    let (answered, ()) = tokio::join!(sender.send_request(get()), async {
        let gateway = raw.accept().await;
        tokio::spawn(pour(gateway));
    });
    let mut deaf = answered.unwrap().into_body();
    // What there was room for comes, then the end.
    tokio::time::sleep(SOON * 4).await;
    let end = within(async {
        loop {
            match deaf.frame().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("it looks whole"),
            }
        }
    });
    assert!(format!("{:?}", end.await).contains("Reset"), "the stream is reset");
    let (answered, ()) = tokio::join!(sender.send_request(get()), async {
        let mut gateway = raw.accept().await;
        gateway.head().await;
        gateway.send(OK).await;
    });
    assert_eq!(answered.unwrap().status(), StatusCode::OK, "the connection goes on");
    running.abort();
}

#[tokio::test]
async fn a_body_that_trickles_or_stops_is_answered_408() {
    struct Case {
        what: &'static str,
        head: &'static str,
        pause: Duration,
    }
    let cases = [
        Case {
            what: "looked into: a byte now and then does not prolong it",
            head: "content-type: application/json\r\ncontent-length: 9999\r\n\r\n{\"a\": \"",
            pause: SOON / 4,
        },
        Case { what: "passed on: it stops", head: "content-length: 9999\r\n\r\nabc", pause: Duration::from_secs(3600) },
    ];
    for Case { what, head, pause } in cases {
        let raw = Raw::bind().await;
        let world = before(&raw, |settings| {
            (settings.limits.head_timeout, settings.limits.stall_timeout) = (SOON, SOON);
        })
        .await;
        let mut client = world.wire().await;
        client.send(format!("POST /v1/embeddings HTTP/1.1\r\nhost: s\r\n{head}")).await;
        let accepting = tokio::spawn(async move { raw.accept().await });
        let reply = loop {
            tokio::select! {
                reply = client.head() => break reply,
                () = tokio::time::sleep(pause) => {}
            }
            client.send("x").await;
        };
        assert!(
            reply.starts_with("HTTP/1.1 408") && reply.contains("x-sidekey-error: request_timeout"),
            "{what}: {reply}"
        );
        accepting.abort();
    }
}

#[tokio::test]
async fn a_slow_manager_takes_a_quarter_of_the_places_and_no_more() {
    // Of another identity, as another tenant's would be.
    let reference = |slug: &str| {
        let auth =
            json!({"vault_auth_type": "token", "vault_addr": "https://vault:8200", "vault_token": format!("t-{slug}")});
        json!({"id": slug, "slug": slug, "manager_type": "hashicorp_vault", "auth_config": auth,
            "secret_path": format!("secret/data/{slug}"), "secret_key": "key"})
    };
    let virtual_key = |slug: &str| {
        json!({"id": slug, "slug": slug, "provider": "openai",
            "secret_mappings": [{"target_field": "key", "secret_reference_id": slug}]})
    };
    let snapshot = json!({"schema_version": 1, "version": 1, "organisation_id": "o",
        "secret_references": [reference("slow"), reference("fast")], "virtual_keys": [virtual_key("slow"), virtual_key("fast")]});
    let setup = Setup {
        snapshot: Some(snapshot),
        proxy: Box::new(|settings| settings.limits.max_in_flight = 8),
        ..Setup::default()
    };
    let world = World::start(setup).await;
    world.secrets.script("secret/data/slow", [Answer::hang()]);
    world.secrets.script("secret/data/fast", [Answer::map(r#"{"key": "sk-1"}"#)]);
    let ask = |slug: &str| {
        world.post("/v1/chat/completions").header("x-portkey-provider", &format!("@{slug}")).json(&json!({}))
    };
    let waiting = [ask("slow"), ask("slow")].map(|call| Box::pin(call.send()));
    let [mut first, mut second] = waiting;
    tokio::select! {
        _ = &mut first => panic!("nothing can have come"),
        _ = &mut second => panic!("nothing can have come"),
        () = async { while world.metrics.requests_in_flight.get() < 2 { tokio::task::yield_now().await } } => {}
    }
    let reply = ask("slow").send().await;
    assert_eq!((reply.status, reply.header("x-sidekey-error")), (503, Some("overloaded")), "{reply:?}");
    let reply = ask("fast").send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
}
