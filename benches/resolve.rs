//! What a hit costs: from mappings to credentials out of memory, on one thread and with others in the way.
//!
//! `cargo bench --bench resolve`

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use sidekey::{
    manager::fake::{Answer, Fake, FakeManagers},
    metric::Metrics,
    model::{FieldSpec, LinkRules, Mapping, TargetField, ValueFormat, link},
    resolve::{Resolver, Settings, Suspicion},
};
use tokio::runtime::Runtime;

const SETTINGS: Settings = Settings {
    ttl: Duration::from_secs(300),
    jitter_ratio: 0.1,
    refresh_ahead_ratio: 0.8,
    stale: Duration::from_secs(3600),
    negative_ttl: Duration::from_secs(5),
    max_entries: 10_000,
    max_bytes: 64 << 20,
    suspicion: Suspicion::DEFAULT,
    deadline: Duration::from_secs(8),
};

/// A warm resolver and mappings of one member each of `documents` secrets.
fn warm(runtime: &Runtime, documents: usize) -> (Arc<Resolver>, Vec<Arc<Mapping>>) {
    let references: Value = (0..documents)
        .map(|n| {
            json!({"id": format!("{n}"), "slug": format!("reference-{n}"), "manager_type": "file", "status": "active",
                "secret_path": format!("team-a/provider-{n}"), "auth_config": {}})
        })
        .collect();
    let snapshot = json!({"schema_version": 1, "secret_references": references}).to_string();
    let snapshot =
        link(snapshot.as_bytes(), &LinkRules { strict: true, admit: &|_, _, _| Ok(()), opener: None }).unwrap();
    let fake = Fake::new();
    let mappings = snapshot.references.iter().map(|reference| {
        fake.script(&reference.location.path, [Answer::map(r#"{"api_key": "sk-0123456789abcdef"}"#).version("1")]);
        let target = TargetField { spec: FieldSpec::key() };
        let secret_key = Some("api_key".into());
        Arc::new(Mapping { target, reference: Arc::clone(reference), secret_key, format: ValueFormat::String })
    });
    let mappings: Vec<_> = mappings.collect();
    runtime.block_on(async {
        let resolver = Resolver::new(SETTINGS, Arc::new(FakeManagers::new(&fake)), Arc::new(Metrics::new()));
        resolver.retain(&snapshot);
        resolver.resolve(&mappings).await.unwrap();
        (Arc::new(resolver), mappings)
    })
}

fn hit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let mut group = criterion.benchmark_group("resolve_hit");
    for count in [1, 3] {
        let (resolver, mappings) = warm(&runtime, count);
        group.bench_function(BenchmarkId::new("mappings", count), |bencher| {
            bencher.iter(|| runtime.block_on(resolver.resolve(black_box(&mappings))).unwrap());
        });
    }
    // The same document, asked for by another thread all the time: what sharing costs.
    let (resolver, mappings) = warm(&runtime, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let other = runtime.spawn({
        let (resolver, mappings, stop) = (Arc::clone(&resolver), mappings.clone(), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                black_box(resolver.resolve(&mappings).await.unwrap());
                tokio::task::yield_now().await;
            }
        }
    });
    group.bench_function("contended", |bencher| {
        bencher.iter(|| runtime.block_on(resolver.resolve(black_box(&mappings))).unwrap());
    });
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(other).unwrap();
    group.finish();
}

criterion_group!(benches, hit);
criterion_main!(benches);
