//! A request that is followed: what was reached when, and at its end the spans of it.
//!
//! ```text
//! POST                 server, from the head to the head of the answer
//! ├ plan               authentication, the look into the body, the plan
//! ├ resolve            when secrets are needed
//! └ upstream           client, with recovery
//! ```

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method};
use tokio::time::Instant;
use uuid::Uuid;

use super::Access;
use crate::trace::{Context, Fact, Kind, Span, SpanId, TRACEPARENT, TRACESTATE, TraceId, Tracer};

/// Statuses from here on are a fault that is not the caller's.
const FAULTS: u16 = 500;

/// One request that is followed.
#[derive(Debug)]
pub struct Traced {
    tracer: Arc<Tracer>,
    trace: TraceId,
    /// The caller's span.
    caller: Option<SpanId>,
    request: SpanId,
    upstream: SpanId,
    planned: Option<Instant>,
    resolved: Option<Instant>,
    sending: Option<Instant>,
    answered: Option<Instant>,
}

/// What is known of a request at its end.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// When it began.
    pub started: Instant,
    /// Its method; `None` when it did not become a request.
    pub method: Option<&'a Method>,
    /// What was answered.
    pub status: u16,
    /// Facts of the request.
    pub facts: Vec<(&'static str, Fact)>,
    /// The references that were resolved, and how.
    pub references: Vec<String>,
}

// === impl Traced ===

impl Traced {
    /// Follows a request with these headers, if its client or chance says so. A trace that begins here has the id of the
    /// request, so that a log line leads to its trace.
    pub fn begin(tracer: &Arc<Tracer>, headers: &HeaderMap, request_id: Uuid) -> Option<Box<Self>> {
        let context = Context::of(headers);
        if !context.map_or_else(|| tracer.chance(), |context| context.sampled) {
            return None;
        }
        Some(Box::new(Self {
            tracer: Arc::clone(tracer),
            trace: context.map_or(TraceId(request_id.into_bytes()), |context| context.trace),
            caller: context.map(|context| context.parent),
            request: tracer.span_id(),
            upstream: tracer.span_id(),
            planned: None,
            resolved: None,
            sending: None,
            answered: None,
        }))
    }

    /// Tells the gateway that it is called by the upstream span.
    pub fn propagate(&self, headers: &mut HeaderMap) {
        let context = Context { trace: self.trace, parent: self.upstream, sampled: true };
        headers.insert(TRACEPARENT, context.header());
        if self.caller.is_none() {
            // It belongs to a trace that was not understood.
            headers.remove(TRACESTATE);
        }
    }

    /// The plan is made.
    pub fn planned(&mut self) {
        self.planned = Some(Instant::now());
    }

    /// Secrets are there.
    pub fn resolved(&mut self) {
        self.resolved = Some(Instant::now());
    }

    /// It is sent on.
    pub fn sending(&mut self) {
        self.sending = Some(Instant::now());
    }

    /// The gateway has answered.
    pub fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// Records its spans.
    pub fn finish(self, outcome: Outcome<'_>) {
        let Outcome { started, method, status, facts, references } = outcome;
        let (now, wall_clock) = (Instant::now(), SystemTime::now());
        let at = |instant: Instant| wall_clock - now.saturating_duration_since(instant);
        let failed = status >= FAULTS;
        let span = |name, kind, (start, end): (Instant, Instant), failed, attributes| Span {
            trace: self.trace,
            id: self.tracer.span_id(),
            parent: Some(self.request),
            name,
            kind,
            start: at(start),
            end: at(end).max(at(start) + Duration::from_nanos(1)),
            failed,
            attributes,
        };
        let planned = self.planned.unwrap_or(now);
        self.tracer.record(span(
            "plan",
            Kind::Internal,
            (started, planned),
            failed && self.planned.is_none(),
            Vec::new(),
        ));
        if self.planned.is_some() && !references.is_empty() {
            let attributes = vec![("sidekey.references", Fact::Texts(references))];
            let resolved = self.resolved.unwrap_or(now);
            let broken = failed && self.resolved.is_none();
            self.tracer.record(span("resolve", Kind::Internal, (planned, resolved), broken, attributes));
        }
        let method = name(method);
        if let Some(sending) = self.sending {
            let mut attributes = vec![("http.request.method", Fact::Text(method.to_owned()))];
            if self.answered.is_some() {
                attributes.push(("http.response.status_code", Fact::Whole(status.into())));
            }
            let upstream = span("upstream", Kind::Client, (sending, self.answered.unwrap_or(now)), failed, attributes);
            self.tracer.record(Span { id: self.upstream, ..upstream });
        }
        let mut attributes = vec![
            ("http.request.method", Fact::Text(method.to_owned())),
            ("http.response.status_code", Fact::Whole(status.into())),
        ];
        attributes.extend(facts);
        let request = span(method, Kind::Server, (started, now), failed, attributes);
        self.tracer.record(Span { id: self.request, parent: self.caller, ..request });
    }
}

// === impl Access ===

impl Access {
    /// It is followed, if `tracer` is there and its client or chance says so.
    pub fn trace(&mut self, tracer: Option<&Arc<Tracer>>, headers: &HeaderMap) {
        self.traced = tracer.and_then(|tracer| Traced::begin(tracer, headers, self.request_id));
    }

    /// Tells whoever is called next which trace it is part of; what a client says goes on as it is when it is not followed.
    pub fn propagate(&self, headers: &mut HeaderMap) {
        if let Some(traced) = &self.traced {
            traced.propagate(headers);
        }
    }

    /// The gateway has answered, recovery included.
    pub fn answered(&mut self) {
        if let Some(traced) = &mut self.traced {
            traced.answered();
        }
    }

    /// Records the spans of a request that is followed. `status` is what was answered.
    pub(super) fn record_spans(&mut self, status: u16) {
        let Some(traced) = self.traced.take() else { return };
        let text = |text: &str| Fact::Text(text.to_owned());
        let mut facts = vec![
            ("sidekey.request_id", Fact::Text(self.request_id.to_string())),
            ("sidekey.code", text(self.code)),
            ("sidekey.mode", text(self.mode)),
        ];
        facts.extend(self.target.as_ref().map(|(_, uri)| ("url.path", text(uri.path()))));
        facts.extend(self.client.as_deref().map(|client| ("sidekey.client", text(client))));
        facts.extend(self.workspace.as_deref().map(|workspace| ("sidekey.workspace", text(workspace))));
        facts.extend(self.recovered.map(|recovered| ("sidekey.recovery", text(recovered.as_str()))));
        if !self.entities.is_empty() {
            let entities = self.entities.iter().map(|entity| entity.slug.to_string()).collect();
            facts.push(("sidekey.entities", Fact::Texts(entities)));
        }
        let outcomes = self.found.iter().map(|found| Some(found.outcome)).chain(std::iter::repeat(None));
        let references = self.mappings.iter().zip(outcomes).map(|(mapping, outcome)| match outcome {
            Some(outcome) => format!("{}={}", mapping.reference.slug, outcome.as_str()),
            None => mapping.reference.slug.to_string(),
        });
        let method = self.target.as_ref().map(|(method, _)| method);
        traced.finish(Outcome { started: self.started, method, status, facts, references: references.collect() });
    }
}

/// A method that is known, or `_OTHER` (OpenTelemetry's semantic conventions for HTTP).
fn name(method: Option<&Method>) -> &'static str {
    const KNOWN: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT"];
    let method = method.map_or("", Method::as_str);
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}
