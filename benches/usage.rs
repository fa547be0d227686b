//! What counting costs a stream: reading along with one event, and an event on its way through the sidecar, with limits of
//! tokens and without.
//!
//! `cargo bench --bench usage`

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::{
    fs,
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde_json::json;
use sha2::Sha256;
use sidekey::{
    clients::{Auth, Clients, Settings},
    dialect::{portkey::Portkey, usage::UsageScan},
    feed::Feed,
    manager::fake::{Fake, FakeManagers},
    metric::Metrics,
    model::{LinkRules, link},
    proxy::{self, Proxy, Server, Shutdown},
    resolve::{self, Resolver},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::Instant,
};

/// An event as OpenAI sends it.
const EVENT: &str = "data: {\"id\":\"chatcmpl-9lMgfRSWPHcw51s6wxKT1YEO2CKpd\",\"object\":\"chat.completion.chunk\",\"created\":1721075653,\"model\":\"gpt-4o-2024-08-06\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" the\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn scan(criterion: &mut Criterion) {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
    let document = json!({"model": "gpt-4o", "choices": [{"message": {"content": "x".repeat(16 << 10)}}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}})
    .to_string();
    let mut group = criterion.benchmark_group("usage");
    group.throughput(Throughput::Bytes(EVENT.len() as u64));
    let mut events = UsageScan::new(&headers);
    group.bench_function("an event", |bencher| bencher.iter(|| events.feed(black_box(EVENT.as_bytes()))));
    group.throughput(Throughput::Bytes(document.len() as u64));
    group.bench_function("a document of 16 KiB", |bencher| {
        bencher.iter(|| {
            let mut scan = UsageScan::new(&HeaderMap::new());
            scan.feed(black_box(document.as_bytes()));
            scan.finish(true, 0)
        });
    });
    group.finish();
}

/// A running stream, from the gateway's hand into the client's.
struct Line {
    gateway: TcpStream,
    client: TcpStream,
}

impl Line {
    async fn event(&mut self) -> Duration {
        let piece = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
        let began = Instant::now();
        self.gateway.write_all(piece.as_bytes()).await.unwrap();
        let mut got = [0; 1024];
        let mut seen = Vec::new();
        while !seen.windows(4).any(|window| window == b"\n\n\r\n") {
            let read = self.client.read(&mut got).await.unwrap();
            seen.extend_from_slice(&got[..read]);
        }
        began.elapsed()
    }
}

fn stream(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hash_file = folder.path().join("keys");
    fs::write(&hash_file, "k1 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
    let key = |id: &str, limits: serde_json::Value| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap();
        mac.update(format!("pk-{id}").as_bytes());
        let hash: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"id": id, "scopes": ["completions.write"], "rate_limits": limits, "hashes": [{"kid": "k1", "hmac_sha256": hash}]})
    };
    let snapshot = json!({"schema_version": 1, "api_keys": [key("free", json!([])),
        key("counted", json!([{"type": "tokens", "unit": "rpd", "value": 1_000_000_000_000u64}]))],
        "virtual_keys": [{"id": "v", "slug": "v", "provider": "openai", "key": "sk-1"}]});
    let snapshot = link(snapshot.to_string().as_bytes(), &LinkRules::STRICT).unwrap();
    let (address, gateway) = runtime.block_on(async {
        let gateway = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", gateway.local_addr().unwrap());
        let metrics = Arc::new(Metrics::new());
        let feed = Arc::new(Feed::default());
        feed.swap(Arc::new(snapshot));
        let mut settings = proxy::Settings::new(url.parse().unwrap());
        settings.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()];
        let cache = resolve::Settings {
            ttl: Duration::from_secs(300),
            jitter_ratio: 0.0,
            refresh_ahead_ratio: 0.0,
            stale: Duration::ZERO,
            negative_ttl: Duration::from_secs(5),
            max_entries: 10,
            max_bytes: 1 << 20,
            suspicion: resolve::Suspicion::DEFAULT,
            deadline: Duration::from_secs(8),
        };
        let managers = Arc::new(FakeManagers::new(&Fake::new()));
        let resolver = Arc::new(Resolver::new(cache, managers, Arc::clone(&metrics)));
        let clients = Settings { auth: Auth::ApiKey { hash_file }, ..Settings::default() };
        let clients = Arc::new(Clients::new(clients, Arc::clone(&metrics)).unwrap());
        let dialect = Portkey::new(sidekey::dialect::portkey::Settings::default());
        let proxy = Proxy::new(&settings, feed, dialect, resolver, clients, metrics).unwrap();
        let server = Server::bind(&settings).unwrap();
        let address = server.addresses()[0].tcp().unwrap();
        tokio::spawn(server.run(Arc::new(proxy), Shutdown::new()));
        (address, gateway)
    });
    let open = async |secret: &str| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let body = r#"{"model":"gpt-4o","stream":true}"#;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-portkey-api-key: {secret}\r\nx-portkey-provider: @v\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let began = Instant::now();
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut gateway, _) = gateway.accept().await.unwrap();
        gateway.set_nodelay(true).unwrap();
        let mut got = vec![0; 8192];
        let mut seen = Vec::new();
        while !seen.ends_with(body.as_bytes()) {
            let read = gateway.read(&mut got).await.unwrap();
            seen.extend_from_slice(&got[..read]);
        }
        gateway.write_all(HEAD.as_bytes()).await.unwrap();
        let mut line = Line { gateway, client };
        line.event().await;
        (line, began.elapsed())
    };
    let mut group = criterion.benchmark_group("stream");
    for (name, secret) in [("not counted", "pk-free"), ("counted", "pk-counted")] {
        group.bench_function(format!("to the first event, {name}"), |bencher| {
            bencher.iter_custom(|rounds| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..rounds {
                        took += open(secret).await.1;
                    }
                    took
                })
            });
        });
        let (mut line, _) = runtime.block_on(open(secret));
        group.bench_function(format!("from event to event, {name}"), |bencher| {
            bencher.iter_custom(|rounds| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..rounds {
                        took += line.event().await;
                    }
                    took
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scan, stream);
criterion_main!(benches);
