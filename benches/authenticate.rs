//! What it costs to know a client: from a head to its key, with 100,000 keys in the snapshot, and to count its request.
//!
//! `cargo bench --bench authenticate`

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::{fs, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, request::Parts};
use serde_json::{Value, json};
use sha2::Sha256;
use sidekey::{
    clients::{Auth, Clients, Settings},
    metric::Metrics,
    model::{LinkRules, Snapshot, link},
};

const KEYS: usize = 100_000;

fn snapshot() -> Snapshot {
    let mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap();
    let keys: Value = (0..KEYS)
        .map(|n| {
            let mut mac = mac.clone();
            mac.update(secret(n).as_bytes());
            let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"id": format!("key-{n}"), "scopes": ["completions.write"], "hashes": [{"kid": "k1", "hmac_sha256": hex}],
                "rate_limits": [{"type": "requests", "unit": "rpm", "value": 1_000_000_000u64},
                    {"type": "requests", "unit": "rpd", "value": 1_000_000_000u64}]})
        })
        .collect();
    let snapshot = json!({"schema_version": 1, "api_keys": keys}).to_string();
    link(snapshot.as_bytes(), &LinkRules::STRICT).unwrap()
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
    let settings = Settings { auth: Auth::ApiKey { hash_file }, ..Settings::default() };
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
        bencher.iter(|| runtime.block_on(clients.admit(black_box(&client), &[], &snapshot)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, authenticate);
criterion_main!(benches);
