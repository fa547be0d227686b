//! What a request and its reply keep, lose and gain on the way.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use crate::harness::{Answer, Raw, Setup, Wire, World, within};

/// A sidecar whose gateway is played by the test.
async fn raw() -> (World, Raw) {
    let raw = Raw::bind().await;
    let world = World::start(Setup { upstream: Some(raw.address), ..Setup::default() }).await;
    (world, raw)
}

fn lines(head: &str) -> Vec<&str> {
    head.lines().filter(|line| !line.is_empty()).collect()
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let world = World::start(Setup::default()).await;
    let body = json!({ "model": "gpt-4o", "messages": [] });
    let reply = world
        .post("/v1/chat/completions?a=1&b=%20")
        .header("x-portkey-trace-id", "t-1")
        .header("x-custom", "1")
        .header("x-custom", "2")
        .json(&body)
        .send()
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = world.gateway.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/chat/completions?a=1&b=%20"));
    assert_eq!(seen.json(), body);
    assert_eq!(seen.header("content-length"), Some(body.to_string().len().to_string().as_str()));
    assert_eq!(seen.header("host"), Some(world.gateway.address.to_string().as_str()));
    let custom: Vec<_> = seen.headers.get_all("x-custom").iter().collect();
    assert_eq!(custom, ["1", "2"]);
}

#[tokio::test]
async fn a_reply_arrives_as_it_was_sent() {
    let (world, raw) = raw().await;
    for (status, reason) in [(200, "OK"), (246, "Guardrail"), (446, "Denied"), (412, "Precondition Failed")] {
        let mut client = world.wire().await;
        client.send("GET /v1/models HTTP/1.1\r\nhost: sidecar\r\n\r\n").await;
        let mut gateway = raw.accept().await;
        gateway.head().await;
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-portkey-trace-id: \r\n\
             x-portkey-last-used-option-index: config.targets[1]\r\nx-request-id: r-1\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             content-length: 2\r\n\r\n"
        );
        gateway.send(&head).await;
        gateway.send("ok").await;
        let received = client.head().await;
        let mut received = lines(&received);
        let mut sent = lines(&head);
        let sent_first = sent.remove(0);
        assert_eq!(received.remove(0), sent_first);
        sent.iter_mut().for_each(|line| *line = line.trim_end());
        received.iter_mut().for_each(|line| *line = line.trim_end());
        sent.sort_unstable();
        received.sort_unstable();
        assert_eq!(received, sent, "{status}");
        assert_eq!(client.take(2).await, b"ok");
    }
}

#[tokio::test]
async fn headers_of_one_connection_do_not_cross() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client
        .send(
            "GET /v1/models HTTP/1.1\r\nhost: sidecar\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=9\r\n\
             te: trailers, gzip\r\nproxy-authorization: Basic eA==\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\nx-stays: 1\r\n\r\n",
        )
        .await;
    let mut gateway = raw.accept().await;
    let head = gateway.head().await;
    let mut head = lines(&head);
    head.sort_unstable();
    let host = format!("host: {}", raw.address);
    assert_eq!(head, ["GET /v1/models HTTP/1.1", host.as_str(), "te: trailers", "x-stays: 1"]);
    gateway
        .send(
            "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
             content-length: 0\r\nx-stays: 1\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    let mut names: Vec<_> = lines(&head)[1..].iter().map(|line| line.split(':').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "date", "x-stays"], "{head}");
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-length: 0\r\n\r\n").await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    // The next event is written only when the one before has been read, so that a buffer anywhere would stop this.
    for number in 0..5 {
        let event = format!("data: {number}\n\n");
        gateway.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        client.until(&event).await;
    }
    gateway.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
}

#[tokio::test]
async fn an_upload_arrives_piece_by_piece() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client
        .send("POST /v1/files HTTP/1.1\r\nhost: s\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.send("3\r\none\r\n").await;
    let mut gateway = raw.accept().await;
    let head = gateway.head().await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    gateway.until("3\r\none\r\n").await;
    client.send("3\r\ntwo\r\n").await;
    gateway.until("3\r\ntwo\r\n").await;
    client.send("0\r\n\r\n").await;
    gateway.until("0\r\n\r\n").await;
    gateway.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204"));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client
        .send(
            "POST /v1/files HTTP/1.1\r\nhost: s\r\nte: trailers\r\ntrailer: x-up\r\ncontent-type: text/plain\r\n\
             transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-up: 1\r\n\r\n",
        )
        .await;
    let mut gateway = raw.accept().await;
    gateway.until("2\r\nhi\r\n0\r\nx-up: 1\r\n\r\n").await;
    gateway
        .send(
            "HTTP/1.1 200 OK\r\ntrailer: x-down\r\ntransfer-encoding: chunked\r\n\r\n2\r\nho\r\n0\r\nx-down: 2\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert!(head.contains("trailer: x-down"), "{head}");
    client.until("2\r\nho\r\n0\r\nx-down: 2\r\n\r\n").await;
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_continue_only_for_a_request_that_is_wanted() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    let head = "host: s\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
    client.send(format!("POST /v1/embeddings HTTP/1.1\r\n{head}")).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("{}").await;
    let mut gateway = raw.accept().await;
    let seen = gateway.head().await;
    assert!(!seen.contains("expect") && seen.contains("content-length: 2"), "{seen}");
    gateway.until("{}").await;
    gateway.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));

    let mut client = world.wire().await;
    client.send(format!("POST /log/stream HTTP/1.1\r\n{head}")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_request() {
    struct Case {
        name: &'static str,
        answered: &'static str,
    }
    let cases = [
        Case { name: "before the head", answered: "" },
        Case { name: "in the body", answered: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nevent\r\n" },
    ];
    let (world, raw) = raw().await;
    for Case { name, answered } in cases {
        let mut client = world.wire().await;
        client.send("GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n").await;
        let mut gateway = raw.accept().await;
        gateway.head().await;
        gateway.send(answered).await;
        if !answered.is_empty() {
            client.until("event").await;
        }
        drop(client);
        assert_eq!(gateway.rest().await, "", "{name}");
    }
    within(async {
        while world.metrics.requests_in_flight.get() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let codes: Vec<_> = world.access().iter().map(|line| line["code"].clone()).collect();
    assert_eq!(codes, ["client_gone", "ok"]);
}

#[tokio::test]
async fn a_stream_that_is_reset_cancels_the_request() {
    let (world, raw) = raw().await;
    let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = || Request::get(format!("http://{}/v1/models", world.address)).body(Empty::new()).unwrap();
    let reply = tokio::spawn(client.send_request(request()));
    let mut gateway = raw.accept().await;
    gateway.head().await;
    reply.abort();
    assert_eq!(gateway.rest().await, "");
    // The other streams of the connection go on.
    let (reply, ()) = tokio::join!(client.send_request(request()), async {
        let mut gateway = raw.accept().await;
        gateway.head().await;
        gateway.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    });
    assert_eq!(reply.unwrap().status(), 200);
}

#[tokio::test]
async fn a_gateway_may_have_an_ipv6_address() {
    let gateway = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let address = gateway.local_addr().unwrap();
    let world = World::start(Setup { upstream: Some(address), ..Setup::default() }).await;
    let mut client = world.wire().await;
    client.send("GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n").await;
    let mut gateway = Wire::new(within(gateway.accept()).await.unwrap().0);
    let head = gateway.head().await;
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_complete_at_the_gateway() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client
        .send("POST /v1/files HTTP/1.1\r\nhost: s\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n123")
        .await;
    let mut gateway = raw.accept().await;
    let head = gateway.head().await;
    assert!(head.contains("content-length: 10"), "{head}");
    drop(client);
    assert_eq!(gateway.rest().await, "123");
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_never_complete_at_the_client() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client.send("GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n").await;
    let mut gateway = raw.accept().await;
    gateway.head().await;
    gateway.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nevent\r\n").await;
    client.until("event\r\n").await;
    drop(gateway);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn replies_without_a_body_stay_without_one() {
    let world = World::start(Setup::default()).await;
    world.gateway.answer(|seen| match seen.target.as_str() {
        "/v1/models" => Answer::text(200, "twelve bytes"),
        _ => Answer { status: 204, headers: vec![], body: "".into() },
    });
    let head = world.call(Method::HEAD, "/v1/models").send().await;
    assert_eq!((head.status, head.header("content-length"), head.text().as_str()), (200, Some("12"), ""));
    let deleted = world.call(Method::DELETE, "/v1/files/f-1").send().await;
    assert_eq!((deleted.status, deleted.header("content-length"), deleted.text().as_str()), (204, None, ""));
}

#[tokio::test]
async fn a_pooled_connection_that_has_gone_is_not_noticed() {
    let (world, raw) = raw().await;
    let get = "GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n";
    let post = "POST /v1/files HTTP/1.1\r\nhost: s\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi";
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let mut client = world.wire().await;

    client.send(get).await;
    let mut first = raw.accept().await;
    first.head().await;
    first.send(ok).await;
    client.head().await;

    // The gateway closes the idle connection just as it receives the next request: a request without a body is repeated.
    client.send(get).await;
    first.head().await;
    drop(first);
    let mut second = raw.accept().await;
    assert!(second.head().await.starts_with("GET /v1/models"));
    second.send(ok).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));

    // One that may have had an effect is not.
    client.send(post).await;
    second.until("hi").await;
    drop(second);
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 502") && head.contains("x-sidekey-error: upstream_unreachable"), "{head}");
}

#[tokio::test]
async fn a_repeated_request_is_repeated_once() {
    let (world, raw) = raw().await;
    let mut client = world.wire().await;
    client.send("GET /v1/models HTTP/1.1\r\nhost: s\r\n\r\n").await;
    for _ in 0..2 {
        raw.accept().await.head().await;
    }
    assert!(client.head().await.starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn a_gateway_that_is_not_there_or_silent_is_told_apart() {
    let nobody = Raw::bind().await.address;
    let world = World::start(Setup { upstream: Some(nobody), ..Setup::default() }).await;
    let reply = world.get("/v1/models").send().await;
    assert_eq!((reply.status, reply.code()), (502, Some("upstream_unreachable")), "{reply:?}");
    assert_eq!(reply.header("x-portkey-gateway-exception"), Some("true"));

    let silent = Raw::bind().await;
    let soon = Duration::from_millis(20);
    let setup = Setup {
        upstream: Some(silent.address),
        proxy: Box::new(move |settings| settings.upstream.response_head_timeout = soon),
        ..Setup::default()
    };
    let world = World::start(setup).await;
    let reply = world.get("/v1/models").send().await;
    assert_eq!((reply.status, reply.code()), (504, Some("upstream_timeout")), "{reply:?}");
    let mut gateway = silent.accept().await;
    gateway.head().await;
    assert_eq!(gateway.rest().await, "", "the request is given up");
}

#[tokio::test]
async fn heads_are_bounded_on_both_sides() {
    struct Case {
        value: usize,
        limits: (usize, usize),
        status: u16,
        code: Option<&'static str>,
    }
    let cases = [
        Case { value: 500, limits: (1000, 1000), status: 200, code: None },
        Case { value: 1000, limits: (1000, 4000), status: 431, code: Some("head_too_large") },
        Case { value: 1000, limits: (4000, 1000), status: 431, code: Some("head_too_large") },
    ];
    for Case { value, limits, status, code } in cases {
        let setup = Setup {
            proxy: Box::new(move |settings| {
                settings.limits.max_head_bytes = limits.0;
                settings.upstream.max_head_bytes = limits.1;
            }),
            ..Setup::default()
        };
        let world = World::start(setup).await;
        let call = || world.get("/v1/models").header("x-long", &"a".repeat(value));
        for reply in [call().send().await, call().send_http2().await] {
            assert_eq!((reply.status, reply.code()), (status, code), "{value} within {limits:?}: {reply:?}");
            if code.is_some() {
                assert_eq!(reply.json()["error"]["code"], "head_too_large");
            }
        }
        assert_eq!(world.gateway.seen().is_empty(), code.is_some());
    }
}

#[tokio::test]
async fn without_a_snapshot_nothing_is_forwarded() {
    let world = World::start(Setup { no_snapshot: true, ..Setup::default() }).await;
    for target in ["/", "/v1/models", "/v1/configs", "/elsewhere"] {
        let reply = world.get(target).send().await;
        assert_eq!((reply.status, reply.code()), (503, Some("no_snapshot")), "{target}");
        assert_eq!(reply.header("retry-after"), Some("5"));
        assert_eq!(reply.header("x-portkey-gateway-exception"), None);
    }
    assert!(world.gateway.seen().is_empty());
}

#[tokio::test]
async fn admin_paths_go_to_the_control_plane_unchanged_or_nowhere() {
    let world = World::start(Setup::default()).await;
    let reply = world.get("/v1/virtual-keys").send().await;
    assert_eq!((reply.status, reply.code()), (404, Some("not_found")));

    let control_plane = crate::harness::Gateway::start().await;
    let address = control_plane.address;
    let setup = Setup {
        proxy: Box::new(move |settings| {
            let url = format!("http://{address}").parse().unwrap();
            settings.control_plane = Some(sidekey::proxy::UpstreamSettings::new(url));
        }),
        ..Setup::default()
    };
    let world = World::start(setup).await;
    let reply = world
        .call(Method::PUT, "/v1/virtual-keys/openai?x=1")
        .header("x-portkey-api-key", "pk-1")
        .header("authorization", "Bearer pk-1")
        .json(&json!({ "name": "n" }))
        .send()
        .await;
    assert_eq!(reply.status, 200);
    let seen = control_plane.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/v1/virtual-keys/openai?x=1"));
    assert_eq!(seen.header("x-portkey-api-key"), Some("pk-1"));
    assert_eq!(seen.header("authorization"), Some("Bearer pk-1"));
    assert_eq!(seen.json(), json!({ "name": "n" }));
    assert!(world.gateway.seen().is_empty());
    assert_eq!(world.access()[0]["mode"], "admin");
}

#[tokio::test]
async fn a_request_leaves_one_line_and_its_error_leads_to_it() {
    let world = World::start(Setup::default()).await;
    world.get("/v1/models?key=not-logged").send().await;
    let reply = world.post("/log/stream").send().await;
    let access = world.access();
    assert_eq!(access.len(), 2, "{access:#?}");
    assert_eq!(access[0]["path"], "/v1/models");
    assert_eq!(access[0]["status"], 200);
    assert_eq!(access[0]["code"], "ok");
    assert_eq!(access[1]["status"], 404);
    assert_eq!(access[1]["code"], "not_found");
    assert_eq!(access[1]["request_id"], reply.json()["error"]["request_id"]);
    assert!(!world.logs.text().contains("not-logged"), "{}", world.logs.text());
    let metrics = world.metrics.encode();
    assert!(metrics.contains(r#"sidekey_requests_total{code="ok",mode="unmatched"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"sidekey_requests_total{code="not_found",mode="none"} 1"#), "{metrics}");
}

#[tokio::test]
async fn http2_comes_in_and_http1_goes_out() {
    let world = World::start(Setup::default()).await;
    let body = json!({ "model": "gpt-4o" });
    let reply = world.post("/v1/chat/completions?x=1").header("te", "trailers").json(&body).send_http2().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = world.gateway.last();
    assert_eq!(seen.target, "/v1/chat/completions?x=1");
    assert_eq!(seen.json(), body);
    assert_eq!(seen.header("host"), Some(world.gateway.address.to_string().as_str()));
    assert_eq!(reply.header("connection"), None);
}

#[tokio::test]
async fn a_request_target_with_a_host_goes_to_the_gateway_all_the_same() {
    let world = World::start(Setup::default()).await;
    let mut client = world.wire().await;
    client.send("GET http://evil.example/v1/models?x=1 HTTP/1.1\r\nhost: evil.example\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    let seen = world.gateway.last();
    assert_eq!(
        (seen.target.as_str(), seen.header("host")),
        ("/v1/models?x=1", Some(world.gateway.address.to_string().as_str()))
    );
}

#[tokio::test]
async fn a_connection_serves_request_after_request() {
    let world = World::start(Setup::default()).await;
    let mut client: Wire = world.wire().await;
    for number in 0..3 {
        client.send(format!("GET /v1/models?n={number} HTTP/1.1\r\nhost: s\r\n\r\n")).await;
        let head = client.head().await;
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        client.take(length).await;
    }
    assert_eq!(world.gateway.seen().len(), 3);
}
