//! What it costs to know a client: from a head to its key, with 100,000 keys in the snapshot, and to count its request.
//!
//! `cargo bench --bench authenticate`

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::{
    fs,
    hint::black_box,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, request::Parts};
use serde_json::{Value, json};
use sha2::Sha256;
use sidekey::{
    clients::{Auth, Clients, OnFailure, Settings, SharedSettings, StoreSettings},
    metric::Metrics,
    model::{LinkRules, Snapshot, link},
};
use tokio_util::sync::CancellationToken;

const KEYS: usize = 100_000;

fn snapshot() -> Snapshot {
    let keys: Value = (0..KEYS)
        .map(|n| {
            json!({"id": format!("key-{n}"), "scopes": ["completions.write"],
                "hashes": [{"kid": "k1", "hmac_sha256": hash(&secret(n))}],
                "rate_limits": [{"type": "requests", "unit": "rpm", "value": 1_000_000_000u64},
                    {"type": "requests", "unit": "rpd", "value": 1_000_000_000u64}]})
        })
        .collect();
    let snapshot = json!({"schema_version": 1, "api_keys": keys}).to_string();
    link(snapshot.as_bytes(), &LinkRules::STRICT).unwrap()
}

fn hash(secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap();
    mac.update(secret.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn secret(n: usize) -> String {
    format!("pk-{n:040}")
}

fn head(secret: &str) -> Parts {
    let request = Request::post("/v1/chat/completions").header("x-portkey-api-key", secret);
    request.header("x-portkey-provider", "@openai-prod").body(()).unwrap().into_parts().0
}

fn authenticate(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let hash_file = folder.path().join("keys");
    fs::write(&hash_file, "k1 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
    let auth = Auth::ApiKey { hash_file };
    let settings = Settings { auth: auth.clone(), ..Settings::default() };
    let clients = Clients::new(settings, Arc::new(Metrics::new())).unwrap();
    let snapshot = snapshot();
    let mut group = criterion.benchmark_group("authenticate");
    for (name, secret) in [("known", secret(KEYS / 2)), ("stranger", secret(KEYS))] {
        let head = head(&secret);
        group.bench_function(name, |bencher| {
            let ask = |mut head: Parts| black_box(clients.authenticate(&mut head, &snapshot)).is_ok();
            bencher.iter_batched(|| head.clone(), ask, BatchSize::SmallInput);
        });
    }
    let client = clients.authenticate(&mut head(&secret(7)), &snapshot).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    group.bench_function("two rate limits", |bencher| {
        bencher.iter(|| runtime.block_on(clients.admit(black_box(&client), &[], &snapshot, false)).unwrap());
    });
    // A limit far away is decided alone, a small one by the store each time.
    let redis = Redis::start();
    let url_file = folder.path().join("redis");
    for (name, limit) in [("shared, far from the limit", 1_000_000_000_u64), ("shared, near the limit", 99)] {
        let Some(redis) = &redis else { break };
        fs::write(&url_file, format!("redis://127.0.0.1:{}", redis.port)).unwrap();
        let store =
            StoreSettings { url_file: url_file.clone(), ca_file: None, allow_plaintext: false, prefix: name.into() };
        let deadline = Duration::from_secs(1);
        let shared =
            SharedSettings { store, deadline, sync: Duration::from_millis(100), on_failure: OnFailure::Reject };
        let settings = Settings { auth: auth.clone(), shared: Some(shared), ..Settings::default() };
        let clients = Arc::new(Clients::new(settings, Arc::new(Metrics::new())).unwrap());
        // Tokens are not used up by what is let in.
        let limits = json!([{"type": "tokens", "unit": "rpd", "value": limit}]);
        let snapshot = json!({"schema_version": 1, "api_keys": [{"id": "k", "scopes": ["completions.write"],
            "hashes": [{"kid": "k1", "hmac_sha256": hash(&secret(0))}], "rate_limits": limits}]});
        let snapshot = link(snapshot.to_string().as_bytes(), &LinkRules::STRICT).unwrap();
        let client = clients.authenticate(&mut head(&secret(0)), &snapshot).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let end = CancellationToken::new();
        let (sharing, ended) = (Arc::clone(&clients), end.clone());
        runtime.spawn(async move { sharing.share(ended).await });
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(clients.admit(black_box(&client), &[], &snapshot, false)).unwrap());
        });
        end.cancel();
    }
    group.finish();
}

/// A Redis of the machine, in memory only.
struct Redis {
    port: u16,
    process: Child,
}

impl Redis {
    /// Starts one; `None` where there is none.
    fn start() -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut server = Command::new("redis-server");
        server.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]).stdout(Stdio::null());
        let process = server.spawn().ok()?;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            std::thread::yield_now();
        }
        Some(Self { port, process })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

criterion_group!(benches, authenticate);
criterion_main!(benches);
