//! Sends spans to an OpenTelemetry collector: OTLP over HTTP, in its JSON encoding.
//!
//! Spans wait in a bounded queue and go in batches. What a collector does not take in time is dropped and counted; nothing waits
//! for it, and it is told once when it fails and once when it is back.
//!
//! Source: OTLP 1.5 (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>): ids are hex, 64-bit numbers are text.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, Method, Request, Uri, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use crate::{
    metric::{Metrics, OutcomeLabels},
    proxy::{Chain, RequestBody, SendError, Upstream, UpstreamError, UpstreamSettings},
    trace::{Fact, Kind, Span, Tracer},
};

/// Spans of one batch.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last batch may take at the end of the process.
const FAREWELL: Duration = Duration::from_secs(1);
/// Where a collector takes traces, unless its address says otherwise.
const PATH: &str = "/v1/traces";

/// `tracing.*`.
#[derive(Clone, Debug)]
pub struct TracingSettings {
    /// `otlp_url`: where the collector listens; without a path, `/v1/traces`.
    pub url: Url,
    /// `ca_file`: trusted beside the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// `sample_ratio`: which part of the requests is followed whose clients do not say.
    pub sample_ratio: f64,
}

/// Where spans go.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    collector: Upstream,
    target: Uri,
    metrics: Arc<Metrics>,
}

/// Why a collector did not take a batch.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector cannot be reached")]
    Send(#[from] SendError),
    #[error("the collector did not answer in time")]
    Timeout,
    #[error("the collector answered {0}")]
    Status(u16),
}

// === impl Exporter ===

impl Exporter {
    /// A tracer, and who exports what it records.
    ///
    /// # Errors
    /// [`UpstreamError`] when the address or the CA file cannot be used.
    pub fn new(settings: &TracingSettings, metrics: Arc<Metrics>) -> Result<(Tracer, Self), UpstreamError> {
        let mut origin = settings.url.clone();
        let path = if matches!(origin.path(), "" | "/") { PATH.to_owned() } else { origin.path().to_owned() };
        origin.set_path("");
        let target = path.parse().map_err(|_| UpstreamError::Url)?;
        let reached = UpstreamSettings {
            ca_file: settings.ca_file.clone(),
            response_head_timeout: PATIENCE,
            ..UpstreamSettings::new(origin)
        };
        let dropped = metrics.spans.get_or_create(&OutcomeLabels { outcome: "dropped" }).clone();
        let (tracer, spans) = Tracer::new(settings.sample_ratio, dropped);
        Ok((tracer, Self { spans, collector: Upstream::new(&reached)?, target, metrics }))
    }

    /// Exports until `end`, then what is left.
    pub async fn run(mut self, end: CancellationToken) {
        let mut failing = false;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let open = end.run_until_cancelled(self.spans.recv_many(&mut batch, BATCH)).await;
            match open {
                Some(0) => return,
                Some(_) => {
                    let gather = async {
                        while let room @ 1.. = BATCH.saturating_sub(batch.len()) {
                            if self.spans.recv_many(&mut batch, room).await == 0 {
                                return;
                            }
                        }
                    };
                    let _ = end.run_until_cancelled(timeout(GATHER, gather)).await;
                    failing = self.export(&mut batch, failing).await;
                }
                None => {
                    while let Ok(span) = self.spans.try_recv() {
                        batch.push(span);
                    }
                    if !batch.is_empty() {
                        let _ = timeout(FAREWELL, self.export(&mut batch, true)).await;
                    }
                    return;
                }
            }
        }
    }

    /// Sends `batch` and empties it; whether that failed.
    async fn export(&self, batch: &mut Vec<Span>, failing: bool) -> bool {
        self.collector.refresh();
        let sent = self.send(batch).await;
        let outcome = if sent.is_ok() { "exported" } else { "failed" };
        self.metrics.spans.get_or_create(&OutcomeLabels { outcome }).inc_by(batch.len() as u64);
        batch.clear();
        match sent {
            Ok(()) if failing => info!("Traces are exported again."),
            Ok(()) => {}
            Err(_) if failing => {}
            Err(error) => {
                warn!(error = %Chain(&error), "Traces are not exported, they are dropped until the collector is back.");
            }
        }
        outcome == "failed"
    }

    async fn send(&self, batch: &[Span]) -> Result<(), ExportError> {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::POST;
        head.uri = self.target.clone();
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = RequestBody::full(document(batch).to_string());
        let answer = timeout(PATIENCE, self.collector.send(head, body)).await.map_err(|_| ExportError::Timeout)??;
        // Its body says nothing that could be done.
        if answer.status().is_success() { Ok(()) } else { Err(ExportError::Status(answer.status().as_u16())) }
    }
}

/// An `ExportTraceServiceRequest`.
fn document(spans: &[Span]) -> Value {
    let resource = [("service.name", "sidekey"), ("service.version", env!("CARGO_PKG_VERSION"))];
    let resource = resource.map(|(key, value)| attribute(key, &Fact::Text(value.to_owned())));
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let scope = json!({"name": "sidekey", "version": env!("CARGO_PKG_VERSION")});
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]})
}

fn span(span: &Span) -> Value {
    let Span { trace, id, parent, name, kind, start, end, failed, attributes } = span;
    let kind = match kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
    };
    let attributes: Vec<Value> = attributes.iter().map(|(key, fact)| attribute(key, fact)).collect();
    let mut written = json!({
        "traceId": trace.to_string(),
        "spanId": id.to_string(),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": nanos(*start),
        "endTimeUnixNano": nanos(*end),
        "attributes": attributes,
        "status": if *failed { json!({"code": 2}) } else { json!({}) },
    });
    if let Some(parent) = parent {
        written["parentSpanId"] = parent.to_string().into();
    }
    written
}

fn attribute(key: &str, fact: &Fact) -> Value {
    let text = |text: &String| json!({"stringValue": text});
    let value = match fact {
        Fact::Text(it) => text(it),
        Fact::Texts(list) => json!({"arrayValue": {"values": list.iter().map(text).collect::<Vec<_>>()}}),
        Fact::Whole(number) => json!({"intValue": number.to_string()}),
    };
    json!({"key": key, "value": value})
}

fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}
