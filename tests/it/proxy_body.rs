//! Bodies that are looked into: what is changed in them, and how they are put together again.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Raw, Setup, World, pass};

fn snapshot() -> serde_json::Value {
    json!({
        "schema_version": 1, "version": 1, "generated_at": "2026-11-21T03:00:00.000Z", "organisation_id": "o-1",
        "workspaces": [], "secret_references": [], "virtual_keys": [], "configs": [], "api_keys": [],
        "integrations": [{
            "id": "i-1", "slug": "openai", "ai_provider_id": "openai", "workspace_id": null, "status": "active",
            "key": "sk-1234", "configurations": {}, "allow_all_workspaces": true, "allowed_workspaces": [],
            "secret_mappings": [],
        }],
    })
}

async fn raw(limit: usize) -> (World, Raw) {
    let raw = Raw::bind().await;
    let setup = Setup {
        snapshot: Some(snapshot()),
        upstream: Some(raw.address),
        proxy: Box::new(move |settings| {
            settings.limits.model_peek_bytes = limit;
            settings.limits.stall_timeout = Duration::from_secs(1000);
        }),
        ..Setup::default()
    };
    (World::start(setup).await, raw)
}

#[tokio::test]
async fn a_model_is_changed_in_place_and_the_length_with_it() {
    struct Case {
        sent: &'static str,
        arrives: &'static str,
    }
    let cases = [
        Case {
            sent: r#"{"messages":[],"model":"@openai/gpt-4o","n":1}"#,
            arrives: r#"{"messages":[],"model":"gpt-4o","n":1}"#,
        },
        Case { sent: r#"{"model":"@openai","n":1}"#, arrives: r#"{"n":1}"# },
        Case { sent: r#"{"n":1,"model":"@openai"}"#, arrives: r#"{"n":1}"# },
    ];
    let world = World::start(Setup { snapshot: Some(snapshot()), ..Setup::default() }).await;
    for Case { sent, arrives } in cases {
        let reply =
            world.post("/v1/chat/completions").header("content-type", "application/json").body(sent).send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let seen = world.gateway.last();
        assert_eq!(String::from_utf8_lossy(&seen.body), arrives);
        assert_eq!(seen.header("content-length"), Some(arrives.len().to_string().as_str()), "{sent}");
        assert_eq!(seen.header("authorization"), Some("Bearer sk-1234"));
    }
}

#[tokio::test]
async fn pieces_of_any_size_are_put_together_again() {
    let body = r#"{"messages":["a long enough text"],"model":"@openai/gpt-4o"}"#;
    let arrives = body.replace("@openai/", "");
    let world = World::start(Setup { snapshot: Some(snapshot()), ..Setup::default() }).await;
    for size in [1, 2, 7, 1000] {
        let mut client = world.wire().await;
        client
            .send(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\n\
                 transfer-encoding: chunked\r\n\r\n",
            )
            .await;
        for piece in body.as_bytes().chunks(size) {
            client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
        }
        client.send("0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(String::from_utf8_lossy(&world.gateway.last().body), arrives, "pieces of {size}");
    }
}

#[tokio::test]
async fn trailers_follow_a_body_that_was_looked_into() {
    let (world, raw) = raw(1 << 20).await;
    let mut client = world.wire().await;
    client
        .send(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ntrailer: x-sum\r\n\
             transfer-encoding: chunked\r\n\r\n1b\r\n{\"model\":\"@openai/gpt-4o\"  \r\n1\r\n}\r\n0\r\nx-sum: 1\r\n\r\n",
        )
        .await;
    let mut gateway = raw.accept().await;
    gateway.until("0\r\nx-sum: 1\r\n\r\n").await;
}

#[tokio::test]
async fn a_form_is_changed_at_its_start_while_the_rest_flows() {
    let (world, raw) = raw(1 << 20).await;
    let mut client = world.wire().await;
    let start = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n@openai/whisper-1\r\n\
                 --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    let end = "RIFF\r\n--x--\r\n";
    client
        .send(format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: s\r\ncontent-type: multipart/form-data; boundary=x\r\n\
             content-length: {}\r\n\r\n{start}",
            start.len() + end.len()
        ))
        .await;
    let mut gateway = raw.accept().await;
    let head = gateway.head().await;
    let (length, start) = (start.len() + end.len() - "@openai/".len(), start.replace("@openai/", ""));
    assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
    // The file has not come yet, and the start is on its way.
    assert_eq!(String::from_utf8(gateway.take(start.len()).await).unwrap(), start);
    client.send(end).await;
    assert_eq!(gateway.take(end.len()).await, end.as_bytes());
}

#[tokio::test]
async fn beyond_the_limit_a_body_flows_unseen() {
    let (world, raw) = raw(16).await;
    let mut client = world.wire().await;
    let start = r#"{"messages":["more than sixteen bytes"#;
    client
        .send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{start}"
        ))
        .await;
    let mut gateway = raw.accept().await;
    let head = gateway.head().await;
    assert!(head.contains("content-length: 1000\r\n") && !head.contains("authorization"), "{head}");
    assert_eq!(gateway.take(start.len()).await, start.as_bytes());
    let rest = vec![b' '; 1000 - start.len()];
    client.send(&rest).await;
    assert_eq!(gateway.take(rest.len()).await, rest);
    assert_eq!(world.access().len(), 0, "it is answered only now");
    gateway.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    client.head().await;
    assert_eq!(world.access()[0]["mode"], "unmatched");
}

#[tokio::test]
async fn a_slow_upload_is_not_a_slow_gateway() {
    let (world, raw) = raw(1 << 20).await;
    let mut client = world.wire().await;
    client.send("POST /v1/files HTTP/1.1\r\nhost: s\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\n").await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    // The gateway may take ten minutes, from the last piece on.
    for _ in 0..4 {
        pass(Duration::from_secs(400)).await;
        client.send("x").await;
        gateway.take(1).await;
    }
    pass(Duration::from_secs(400)).await;
    assert!(world.access().is_empty());
    pass(Duration::from_secs(601)).await;
    pass(Duration::from_secs(601)).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 504") && head.contains("x-sidekey-error: upstream_timeout"), "{head}");
}
