//! Which bodies are sent again, and that none is held up for it.

use bytes::Bytes;

use super::stage::{Stage, secret};
use crate::harness::{Raw, Setup, within};

/// A limit for one body, and one for all.
fn limits(max_body_bytes: usize, max_kept_bytes: usize) -> Setup {
    let recovery = sidekey::proxy::RecoverySettings { max_body_bytes, max_kept_bytes };
    Setup { proxy: Box::new(move |settings| settings.recovery = Some(recovery)), ..Setup::default() }
}

#[tokio::test]
async fn a_body_is_sent_again_as_it_was_or_not_at_all() {
    struct Case {
        name: &'static str,
        bytes: usize,
        chunked: bool,
        one: usize,
        all: usize,
        sent: usize,
    }
    let cases = [
        Case { name: "empty", bytes: 0, chunked: false, one: 1000, all: 1000, sent: 2 },
        Case { name: "as large as may be", bytes: 100_000, chunked: false, one: 100_000, all: 1 << 20, sent: 2 },
        Case { name: "larger", bytes: 100_001, chunked: false, one: 100_000, all: 1 << 20, sent: 1 },
        Case { name: "of unknown length", bytes: 100_000, chunked: true, one: 100_000, all: 1 << 20, sent: 2 },
        Case { name: "of unknown length, larger", bytes: 100_001, chunked: true, one: 100_000, all: 1 << 20, sent: 1 },
        Case { name: "no room for it", bytes: 5000, chunked: false, one: 100_000, all: 4000, sent: 1 },
        Case { name: "of a megabyte", bytes: 1 << 20, chunked: true, one: 1 << 20, all: 64 << 20, sent: 2 },
    ];
    for Case { name, bytes, chunked, one, all, sent } in cases {
        let stage = Stage::start(limits(one, all)).await;
        stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
        stage.accepts("openai", &["sk-2"]);
        let body: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let mut client = stage.world.wire().await;
        let framing = match chunked {
            true => "transfer-encoding: chunked".to_owned(),
            false => format!("content-length: {bytes}"),
        };
        client
            .send(format!(
                "POST /v1/files HTTP/1.1\r\nhost: s\r\nx-portkey-provider: @openai\r\ncontent-type: text/plain\r\n\
                 {framing}\r\n\r\n"
            ))
            .await;
        if chunked {
            for piece in body.chunks(777) {
                client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
            }
            client.send("0\r\n\r\n").await;
        } else {
            client.send(&body).await;
        }
        let head = client.head().await;
        assert!(head.starts_with(if sent == 2 { "HTTP/1.1 200" } else { "HTTP/1.1 401" }), "{name}: {head}");
        let seen = stage.world.gateway.seen();
        assert_eq!(seen.len(), sent, "{name}");
        assert!(seen.iter().all(|seen| seen.body == body), "{name}");
        // It is looked after in any case, for the next one.
        within(async {
            while stage.world.secrets.calls("openai") < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let outcome = if sent == 2 { "newer" } else { "not_replayable" };
        assert_eq!(stage.recoveries(), [(outcome, 1)], "{name}");
    }
}

#[tokio::test]
async fn a_kept_body_flows_while_it_is_kept() {
    let raw = Raw::bind().await;
    let stage = Stage::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    let mut client = stage.world.wire().await;
    client
        .send(
            "POST /v1/files HTTP/1.1\r\nhost: s\r\nx-portkey-provider: @openai\r\ncontent-type: text/plain\r\n\
             content-length: 6\r\n\r\nabc",
        )
        .await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    assert_eq!(gateway.take(3).await, b"abc");
    client.send("def").await;
    assert_eq!(gateway.take(3).await, b"def");
    // The head says refused; its body has yet to come, and nobody waits for it.
    gateway.send("HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let mut again = raw.accept().await;
    let head = again.head().await;
    assert!(head.contains("authorization: Bearer sk-2\r\n") && head.contains("content-length: 6\r\n"), "{head}");
    assert_eq!(again.take(6).await, b"abcdef");
    again.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    client.until("\r\n\r\nok").await;
}

#[tokio::test]
async fn a_refusal_before_the_end_of_a_body_is_passed_on() {
    let raw = Raw::bind().await;
    let stage = Stage::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    let mut client = stage.world.wire().await;
    client
        .send(
            "POST /v1/files HTTP/1.1\r\nhost: s\r\nx-portkey-provider: @openai\r\ncontent-type: text/plain\r\n\
             content-length: 6\r\n\r\nabc",
        )
        .await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway.send("HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno").await;
    client.until("\r\n\r\nno").await;
    assert_eq!(stage.recoveries(), [("not_replayable", 1)]);
}

#[tokio::test]
async fn a_refusal_that_is_passed_on_streams() {
    let raw = Raw::bind().await;
    let stage = Stage::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
    stage.world.secrets.script("openai", [secret("sk-1")]);
    let mut client = stage.world.wire().await;
    client.send("GET /v1/models HTTP/1.1\r\nhost: s\r\nx-portkey-provider: @openai\r\n\r\n").await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway.send("HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.head().await;
    for piece in ["event: 1\n", "event: 2\n"] {
        gateway.send(format!("9\r\n{piece}\r\n")).await;
        client.until(&format!("9\r\n{piece}\r\n")).await;
    }
    gateway.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
}

#[tokio::test]
async fn what_was_kept_is_let_go_with_the_head_of_the_reply() {
    let raw = Raw::bind().await;
    let mut setup = limits(6000, 6000);
    setup.upstream = Some(raw.address);
    let stage = Stage::start(setup).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    let post = format!(
        "POST /v1/files HTTP/1.1\r\nhost: s\r\nx-portkey-provider: @openai\r\ncontent-type: text/plain\r\n\
         content-length: 5000\r\n\r\n{}",
        "x".repeat(5000)
    );
    // The reply to the first goes on for as long as it likes.
    let mut first = stage.world.wire().await;
    first.send(&post).await;
    let mut streaming = raw.accept().await;
    streaming.head().await;
    streaming.take(5000).await;
    streaming.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    first.until("ok\r\n").await;
    // There is room for the second all the same.
    let mut second = stage.world.wire().await;
    second.send(&post).await;
    let mut refusing = raw.accept().await;
    refusing.head().await;
    refusing.take(5000).await;
    refusing.send("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").await;
    // An answer without a body leaves its connection free.
    assert!(refusing.head().await.contains("authorization: Bearer sk-2\r\n"));
    assert_eq!(Bytes::from(refusing.take(5000).await), "x".repeat(5000));
}

#[tokio::test]
async fn a_websocket_is_not_sent_again_and_its_secret_is_looked_after() {
    let raw = Raw::bind().await;
    let stage = Stage::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
    stage.world.secrets.script("openai", [secret("sk-1"), secret("sk-2")]);
    for (key, status) in [("sk-1", "401 No"), ("sk-2", "101 Switching Protocols")] {
        let mut client = stage.world.wire().await;
        client
            .send(
                "GET /v1/realtime?model=gpt-4o HTTP/1.1\r\nhost: s\r\nx-portkey-provider: @openai\r\nconnection: upgrade\r\n\
                 upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            )
            .await;
        let mut gateway = raw.accept().await;
        let head = gateway.head().await;
        assert!(head.contains(&format!("authorization: Bearer {key}\r\n")), "{head}");
        let upgrade = if status.starts_with("101") {
            "connection: upgrade\r\nupgrade: websocket\r\n"
        } else {
            "content-length: 0\r\n"
        };
        gateway.send(format!("HTTP/1.1 {status}\r\n{upgrade}\r\n")).await;
        assert!(client.head().await.starts_with(&format!("HTTP/1.1 {status}")));
        if key == "sk-1" {
            assert_eq!(stage.recoveries(), [("not_replayable", 1)]);
            stage.world.logged("has changed").await;
        }
    }
    assert_eq!(stage.world.secrets.calls("openai"), 2);
}
