//! OpenTelemetry traces: what a collector receives, what the gateway is told, and that neither a collector nor a client can hurt.
//!
//! The collector is played by an echoing gateway; what it receives is decoded by the shape that OTLP has, in which nothing else may
//! stand, and by the types that OpenTelemetry publishes, which have to find the same in it.

use std::time::Duration;

use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1 as official};
use serde::Deserialize;
use serde_json::{Value, json};
use sidekey::{
    manager::{FailureClass, fake},
    metric::OutcomeLabels,
    telemetry::TracingSettings,
};

use crate::harness::{Answer, Gateway, Setup, World, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeSpans {
    #[allow(dead_code, reason = "has to be there")]
    scope: Value,
    spans: Vec<Span>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Span {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    status: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    key: String,
    value: Value,
}

struct Traced {
    world: World,
    collector: Gateway,
}

// === impl Traced ===

impl Traced {
    async fn start(sample_ratio: f64) -> Self {
        let collector = Gateway::start().await;
        let url = format!("http://{}", collector.address).parse().unwrap();
        let tracing = Some(TracingSettings { url, ca_file: None, sample_ratio });
        let world = World::start(Setup { tracing, snapshot: Some(snapshot()), ..Setup::default() }).await;
        world.secrets.script("secret/data/openai", [fake::Answer::map(r#"{"key": "sk-canary"}"#)]);
        Self { world, collector }
    }

    /// All spans, once there are `count` of them.
    async fn spans(&self, count: usize) -> Vec<Span> {
        within(async {
            loop {
                let requests = self.collector.seen();
                let spans: Vec<Span> = requests.iter().flat_map(|seen| decoded(&seen.body)).collect();
                if spans.len() >= count {
                    return spans;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }
}

fn snapshot() -> Value {
    json!({
        "schema_version": 1, "version": 1, "organisation_id": "o",
        "secret_references": [{"id": "r", "slug": "openai-key", "manager_type": "hashicorp_vault", "secret_path": "secret/data/openai",
            "auth_config": {"vault_auth_type": "token", "vault_addr": "https://vault:8200", "vault_token": "t"}, "secret_key": "key"}],
        "virtual_keys": [{"id": "v", "slug": "openai-prod", "provider": "openai",
            "secret_mappings": [{"target_field": "key", "secret_reference_id": "r"}]}],
    })
}

fn decoded(body: &[u8]) -> Vec<Span> {
    let request: Request = serde_json::from_slice(body).unwrap();
    let [of_resource] = request.resource_spans.try_into().unwrap();
    let named = |attribute: &Attribute| attribute.key == "service.name" && attribute.value["stringValue"] == "sidekey";
    assert!(of_resource.resource.attributes.iter().any(named));
    let spans: Vec<_> = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans).collect();
    let request: ExportTraceServiceRequest = serde_json::from_slice(body).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|of_resource| of_resource.scope_spans);
    let theirs: Vec<_> = scopes.flat_map(|scope| scope.spans).collect();
    assert_eq!(theirs.len(), spans.len());
    spans.iter().zip(&theirs).for_each(|(ours, theirs)| assert_same(ours, theirs));
    spans
}

#[track_caller]
fn assert_same(ours: &Span, theirs: &official::Span) {
    assert_eq!(
        (&theirs.name, hex(&theirs.trace_id), hex(&theirs.span_id), hex(&theirs.parent_span_id)),
        (&ours.name, ours.trace_id.clone(), ours.span_id.clone(), ours.parent_span_id.clone().unwrap_or_default())
    );
    assert_eq!((theirs.trace_id.len(), theirs.span_id.len(), theirs.kind), (16, 8, i32::from(ours.kind)));
    assert_eq!(theirs.start_time_unix_nano.to_string(), ours.start_time_unix_nano);
    assert_eq!(theirs.end_time_unix_nano.to_string(), ours.end_time_unix_nano);
    assert!(theirs.attributes.iter().all(|attribute| attribute.value.as_ref().is_some_and(|any| any.value.is_some())));
    assert!(theirs.attributes.iter().map(|attribute| &attribute.key).eq(ours.attributes.iter().map(|one| &one.key)));
    let code = theirs.status.as_ref().map_or(0, |status| status.code);
    assert_eq!(i64::from(code), ours.status["code"].as_i64().unwrap_or_default());
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_request_is_a_tree_of_spans_in_the_trace_of_its_client() {
    let traced = Traced::start(0.0).await;
    let call =
        traced.world.post("/v1/chat/completions?secret=canary-query").header("x-portkey-provider", "@openai-prod");
    let call = call.header("traceparent", &format!("00-{TRACE}-{CALLER}-01")).header("tracestate", "vendor=1");
    let reply = call.json(&json!({"canary-body": 1})).send().await;
    assert_eq!(reply.status, 200, "{reply:?}");

    let spans = traced.spans(4).await;
    let of =
        |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}")).clone();
    let (request, plan, resolve, upstream) = (of("POST"), of("plan"), of("resolve"), of("upstream"));
    assert_eq!(spans.len(), 4);
    assert_eq!(request.parent_span_id.as_deref(), Some(CALLER));
    assert_eq!([request.kind, plan.kind, resolve.kind, upstream.kind], [2, 1, 1, 3]);
    for span in &spans {
        assert_eq!((span.trace_id.as_str(), span.span_id.len()), (TRACE, 16), "{span:?}");
        let [start, end] =
            [&span.start_time_unix_nano, &span.end_time_unix_nano].map(|text| text.parse::<u64>().unwrap());
        assert!(start < end && span.status == json!({}), "{span:?}");
    }
    for span in [&plan, &resolve, &upstream] {
        assert_eq!(span.parent_span_id.as_ref(), Some(&request.span_id), "{span:?}");
    }
    let fact = |span: &Span, key: &str| {
        span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.clone())
    };
    let text = |text: &str| Some(json!({"stringValue": text}));
    assert_eq!(fact(&request, "http.response.status_code"), Some(json!({"intValue": "200"})));
    assert_eq!(fact(&request, "url.path"), text("/v1/chat/completions"));
    assert_eq!(fact(&request, "sidekey.code"), text("ok"));
    assert_eq!(
        fact(&resolve, "sidekey.references"),
        Some(json!({"arrayValue": {"values": [{"stringValue": "openai-key=miss"}]}}))
    );

    // The gateway is called by the upstream span.
    let seen = traced.world.gateway.last();
    assert_eq!(seen.header("traceparent"), Some(&*format!("00-{TRACE}-{}-01", upstream.span_id)));
    assert_eq!(seen.header("tracestate"), Some("vendor=1"));

    for exported in traced.collector.seen() {
        assert_eq!(
            (exported.target.as_str(), exported.header("content-type")),
            ("/v1/traces", Some("application/json"))
        );
        let body = String::from_utf8(exported.body.to_vec()).unwrap();
        assert!(!body.contains("canary") && !body.contains("vault_token"), "{body}");
    }
}

#[tokio::test]
async fn who_is_followed_and_what_the_gateway_hears() {
    struct Case {
        given: Option<&'static str>,
        ratio: f64,
        /// Whether the gateway hears another span than the client's.
        followed: bool,
        state: Option<&'static str>,
    }
    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const SILENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let cases = [
        Case { given: Some(SAMPLED), ratio: 0.0, followed: true, state: Some("a=1") },
        Case { given: Some(SILENT), ratio: 1.0, followed: false, state: Some("a=1") },
        Case { given: None, ratio: 1.0, followed: true, state: None },
        Case { given: None, ratio: 0.0, followed: false, state: Some("a=1") },
        Case { given: Some("nonsense"), ratio: 1.0, followed: true, state: None },
        Case { given: Some("nonsense"), ratio: 0.0, followed: false, state: Some("a=1") },
    ];
    for Case { given, ratio, followed, state } in cases {
        let traced = Traced::start(ratio).await;
        let mut call = traced.world.get("/v1/models").header("tracestate", "a=1");
        if let Some(given) = given {
            call = call.header("traceparent", given);
        }
        assert_eq!(call.send().await.status, 200);
        let seen = traced.world.gateway.last();
        let told = seen.header("traceparent");
        assert_eq!(seen.header("tracestate"), state, "{given:?} {ratio}");
        if followed {
            let spans = traced.spans(3).await;
            let upstream = spans.iter().find(|span| span.name == "upstream").unwrap();
            assert_eq!(told, Some(&*format!("00-{}-{}-01", upstream.trace_id, upstream.span_id)), "{given:?} {ratio}");
            if given != Some(SAMPLED) {
                // A trace that begins here has the id of the request.
                let line = traced.world.access()[0]["request_id"].as_str().unwrap().replace('-', "");
                assert_eq!(upstream.trace_id, line);
            }
        } else {
            assert_eq!(told, given, "as it was: {ratio}");
            assert!(traced.collector.seen().is_empty());
        }
    }
}

#[tokio::test]
async fn a_failure_shows_where_it_happened() {
    let traced = Traced::start(1.0).await;
    traced.world.secrets.script("secret/data/openai", [fake::Answer::fail(FailureClass::Unavailable)]);
    let reply = traced
        .world
        .post("/v1/chat/completions")
        .header("x-portkey-provider", "@openai-prod")
        .json(&json!({}))
        .send()
        .await;
    assert_eq!(reply.status, 503);
    let spans = traced.spans(3).await;
    let failed: Vec<_> =
        spans.iter().filter(|span| span.status == json!({"code": 2})).map(|span| &*span.name).collect();
    assert_eq!(failed, ["resolve", "POST"]);
    assert!(!spans.iter().any(|span| span.name == "upstream"), "it was not sent");
}

#[tokio::test]
async fn a_collector_that_fails_costs_no_request() {
    let traced = Traced::start(1.0).await;
    traced.collector.answer(|_| Answer::text(503, "no"));
    for _ in 0..3 {
        assert_eq!(traced.world.get("/v1/models").send().await.status, 200);
    }
    let failed = traced.world.metrics.spans.get_or_create(&OutcomeLabels { outcome: "failed" }).clone();
    within(async {
        while failed.get() < 9 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(traced.world.logs.text().matches("Traces are not exported").count(), 1, "told once");
}
