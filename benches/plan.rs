//! Planning and injecting, without network and with resolved credentials at hand: what a request pays on the hot path.
//!
//! `cargo bench --bench plan`. Nanoseconds for plan + apply together, on a head like the SDKs send.

#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has no result")]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, request::Parts};
use sidekey::{
    dialect::portkey::{BodyPeek, Portkey, Settings},
    model::{Caller, LinkRules, Snapshot, link},
    secret::{Credential, SecretValue},
};
use time::OffsetDateTime;

const SNAPSHOT: &str = r#"{"schema_version":1,"version":1,"organisation_id":"o","workspaces":[],
    "secret_references":[
        {"id":"r1","slug":"openai-key","manager_type":"file","auth_config":{},"secret_path":"openai","status":"active"},
        {"id":"r2","slug":"anthropic-key","manager_type":"file","auth_config":{},"secret_path":"anthropic","status":"active"},
        {"id":"r3","slug":"aws","manager_type":"file","auth_config":{},"secret_path":"aws","status":"active"}],
    "integrations":[
        {"id":"i1","slug":"openai-main","ai_provider_id":"openai","status":"active","configurations":{},
            "secret_mappings":[{"target_field":"key","secret_reference_id":"openai-key"}]},
        {"id":"i2","slug":"anthropic","ai_provider_id":"anthropic","status":"active","configurations":{},
            "secret_mappings":[{"target_field":"key","secret_reference_id":"anthropic-key"}]},
        {"id":"i3","slug":"bedrock","ai_provider_id":"bedrock","status":"active","configurations":{"aws_region":"eu-west-1"},
            "secret_mappings":[
                {"target_field":"configurations.aws_access_key_id","secret_reference_id":"aws","secret_key":"id"},
                {"target_field":"configurations.aws_secret_access_key","secret_reference_id":"aws","secret_key":"secret"}]}],
    "virtual_keys":[{"id":"v1","slug":"openai-prod","integration_id":"openai-main","status":"active","secret_mappings":[]}],
    "configs":[],"api_keys":[]}"#;

const FALLBACK: &str = r#"{"strategy":{"mode":"fallback"},"retry":{"attempts":2},"targets":[{"provider":"@openai-prod"},{"provider":"@anthropic","override_params":{"model":"claude-sonnet-4"}},{"virtual_key":"bedrock"}]}"#;

fn snapshot() -> Snapshot {
    let rules = LinkRules { strict: true, admit: &|_, _, _| Ok(()), opener: None };
    link(SNAPSHOT.as_bytes(), &rules).expect("the snapshot links")
}

/// A chat completion as `portkey-ai` sends it, with one header more.
fn head(name: &str, value: &str) -> Parts {
    let request = Request::post("/v1/chat/completions")
        .header("host", "127.0.0.1:8900")
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .header("content-length", "182")
        .header("user-agent", "OpenAI/Python 1.99.0")
        .header("accept-encoding", "gzip, deflate, br")
        .header("authorization", "Bearer OPENAI_API_KEY")
        .header("x-portkey-api-key", "pk-client-0123456789")
        .header("x-portkey-package-version", "portkey-ai-2.3.4")
        .header("x-portkey-runtime", "CPython")
        .header("x-portkey-runtime-version", "3.12.3")
        .header("x-portkey-strict-open-ai-compliance", "false")
        .header("x-portkey-metadata", r#"{"team":"a"}"#)
        .header(name, value);
    request.body(()).expect("a request").into_parts().0
}

fn plan_and_apply(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let dialect = Portkey::new(Settings::default());
    let (caller, peek, now) = (Caller::default(), BodyPeek::default(), OffsetDateTime::UNIX_EPOCH);
    let mut group = criterion.benchmark_group("plan");
    for (label, head) in [
        ("header mode", head("x-portkey-provider", "@openai-prod")),
        ("header mode, three credentials", head("x-portkey-provider", "@bedrock")),
        ("config mode, three targets", head("x-portkey-config", FALLBACK)),
    ] {
        let plan = |head: &Parts| dialect.plan(head, &peek, &snapshot, &caller, now).expect("a plan");
        let credentials: Vec<Arc<Credential>> = plan(&head)
            .mappings
            .iter()
            .map(|_| {
                Arc::new(Credential::text(SecretValue::from("sk-proj-0123456789abcdefghijklmnopqrstuvwxyz".to_owned())))
            })
            .collect();
        group.bench_function(format!("{label}: plan"), |bencher| bencher.iter(|| plan(black_box(&head))));
        group.bench_function(format!("{label}: plan + apply"), |bencher| {
            bencher.iter_batched_ref(
                || head.clone(),
                |head| {
                    let plan = plan(head);
                    dialect.apply(&plan, &credentials, head).expect("credentials fit")
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, plan_and_apply);
criterion_main!(benches);
