//! Injected values do not come back.

use serde_json::{Value, json};

use crate::harness::{Answer, Raw, Setup, World};

const SECRET: &str = "sk-canary/0123456789+abc";

/// `@openai`, with its credential in the snapshot itself.
fn snapshot() -> Value {
    json!({
        "schema_version": 1, "version": 1, "generated_at": "2026-11-21T03:00:00.000Z", "organisation_id": "o-1",
        "workspaces": [], "secret_references": [], "virtual_keys": [], "configs": [], "api_keys": [],
        "integrations": [{
            "id": "i-1", "slug": "openai", "ai_provider_id": "openai", "workspace_id": null, "status": "active", "key": SECRET,
            "configurations": {}, "allow_all_workspaces": true, "allowed_workspaces": [], "secret_mappings": [],
        }],
    })
}

async fn world() -> World {
    World::start(Setup { snapshot: Some(snapshot()), ..Setup::default() }).await
}

async fn raw() -> (World, Raw) {
    let raw = Raw::bind().await;
    let setup = Setup { snapshot: Some(snapshot()), upstream: Some(raw.address), ..Setup::default() };
    (World::start(setup).await, raw)
}

#[tokio::test]
async fn an_error_that_quotes_a_credential_reaches_the_client_without_it() {
    let world = world().await;
    let escaped = SECRET.replace('/', "\\/");
    let encoded = SECRET.replace('/', "%2F").replace('+', "%2B");
    struct Case {
        status: u16,
        body: String,
        shown: String,
    }
    let cases = [
        Case {
            status: 500,
            body: format!(r#"{{"html-message":"Headers.append: \"Bearer {SECRET}\" is an invalid header value"}}"#),
            shown: r#"{"html-message":"Headers.append: \"Bearer [redacted]\" is an invalid header value"}"#.to_owned(),
        },
        Case { status: 400, body: format!("{escaped} {encoded}"), shown: "[redacted] [redacted]".to_owned() },
        Case {
            status: 401,
            body: "Incorrect API key: sk-ca***abc".into(),
            shown: "Incorrect API key: sk-ca***abc".into(),
        },
        // A reply that is no error streams untouched.
        Case { status: 200, body: SECRET.to_owned(), shown: SECRET.to_owned() },
    ];
    for Case { status, body, shown } in cases {
        let answer = body.clone();
        world.gateway.answer(move |_| Answer::text(status, answer.clone()));
        let reply =
            world.post("/v1/chat/completions").header("x-portkey-provider", "@openai").json(&json!({})).send().await;
        assert_eq!(world.gateway.last().header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
        assert_eq!((reply.status, reply.text()), (status, shown.clone()), "{body}");
        assert_eq!(reply.header("content-length"), Some(shown.len().to_string().as_str()), "{body}");
    }
    assert_eq!(world.metrics.redactions.get(), 3);
}

#[tokio::test]
async fn headers_and_trailers_are_searched_in_every_reply() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client.send("GET /v1/models HTTP/1.1\r\nhost: s\r\nte: trailers\r\nx-portkey-provider: @openai\r\n\r\n").await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway
        .send(format!(
            "HTTP/1.1 200 OK\r\nx-echo: Bearer {SECRET}\r\ntrailer: x-late\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\nx-late: {SECRET}\r\n\r\n"
        ))
        .await;
    let head = client.head().await;
    assert!(head.contains("x-echo: Bearer [redacted]\r\n"), "{head}");
    client.until("ok\r\n0\r\nx-late: [redacted]\r\n\r\n").await;
}

#[tokio::test]
async fn a_value_is_found_across_pieces_of_a_streamed_error() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client.send("GET /v1/models HTTP/1.1\r\nhost: s\r\nx-portkey-provider: @openai\r\n\r\n").await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway.send("HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.head().await;
    let (first, second) = SECRET.split_at(11);
    for (sent, received) in [
        ("event: 1\n".to_owned(), "event: 1\n"),
        // What may be the beginning of the value is kept back, and nothing else.
        (format!("key {first}"), "key "),
        (format!("{second} rest"), "[redacted] rest"),
    ] {
        gateway.send(format!("{:x}\r\n{sent}\r\n", sent.len())).await;
        client.until(&format!("{:X}\r\n{received}\r\n", received.len())).await;
    }
    gateway.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
}

#[tokio::test]
async fn what_cannot_be_searched_is_withheld() {
    let world = world().await;
    world.gateway.answer(|_| Answer::text(500, &b"\x1f\x8bcompressed"[..]).header("content-encoding", "gzip"));
    let call = || world.post("/v1/chat/completions").header("accept-encoding", "gzip").json(&json!({}));
    let reply = call().header("x-portkey-provider", "@openai").send().await;
    assert_eq!(world.gateway.last().header("accept-encoding"), None, "an error has to be readable");
    assert_eq!((reply.status, reply.header("content-encoding")), (500, None), "{reply:?}");
    assert_eq!(reply.json()["error"]["type"], "sidekey_error");

    // Without a credential of ours there is nothing to search for.
    let reply = call().header("x-portkey-provider", "openai").header("authorization", "Bearer own").send().await;
    assert_eq!(world.gateway.last().header("accept-encoding"), Some("gzip"));
    assert_eq!((reply.status, reply.header("content-encoding")), (500, Some("gzip")));
    assert_eq!(&reply.body[..], b"\x1f\x8bcompressed");
}

#[tokio::test]
async fn a_config_that_comes_back_has_lost_its_keys() {
    let world = world().await;
    world.gateway.answer(|seen| {
        let config = seen.header("x-portkey-config").unwrap_or_default();
        let body = json!({ "status": "failure", "message": "Invalid config passed", "config": config });
        Answer {
            status: 400,
            headers: vec![("content-type", "application/json".into())],
            body: body.to_string().into(),
        }
    });
    let config = json!({ "strategy": { "mode": "fallback" }, "targets": [{ "provider": "@openai" }] });
    let reply = world
        .post("/v1/chat/completions")
        .header("x-portkey-config", &config.to_string())
        .json(&json!({}))
        .send()
        .await;
    let seen = world.gateway.last();
    assert!(seen.header("x-portkey-config").unwrap().contains(SECRET));
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.text().contains("[redacted]") && !reply.text().contains("sk-canary"), "{}", reply.text());
}

#[tokio::test]
async fn what_a_client_brought_itself_comes_back_as_it_is() {
    let world = world().await;
    world.gateway.answer(|seen| Answer::text(400, seen.header("authorization").unwrap_or_default().to_owned()));
    let reply = world
        .post("/v1/chat/completions")
        .header("x-portkey-provider", "openai")
        .header("authorization", "Bearer sk-own")
        .json(&json!({}))
        .send()
        .await;
    assert_eq!(reply.text(), "Bearer sk-own");
    assert_eq!(world.metrics.redactions.get(), 0);
}
