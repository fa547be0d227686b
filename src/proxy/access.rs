//! What is written about a request: one access line and one count, when its head was answered or its client left.
//!
//! Target `sidekey::access`. Never a query, a header, a body or a value.

mod traced;

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, StatusCode, Uri, request::Parts};
use hyper::body::Incoming;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use self::traced::Traced;
use super::{
    audit::{Audit, Event, Origin, Record},
    recovery::Recovered,
    reject::Refusal,
    tls::Chain,
};
use crate::{
    clients::{Client, Denied},
    dialect::{
        PlanError,
        portkey::{ApplyError, Mode, Plan},
    },
    manager::{FailureClass, Version},
    metric::{Metrics, RequestLabels},
    model::{Entity, FieldValue, Mapping, Reference},
    resolve::{Outcome, Resolved},
};

const TARGET: &str = "sidekey::access";
/// For clients that leave before an answer, as in nginx.
const CLIENT_GONE: u16 = 499;

/// The record of one request. Dropped unfinished, it says that the client left.
#[derive(Debug)]
pub struct Access {
    /// Leads from an error body to the log.
    pub request_id: Uuid,
    started: Instant,
    target: Option<(Method, Uri)>,
    mode: &'static str,
    code: &'static str,
    /// Id of the API key, once it is known whose request it is.
    client: Option<Arc<str>>,
    workspace: Option<Arc<str>>,
    entities: Vec<Arc<Entity>>,
    mappings: Vec<Arc<Mapping>>,
    found: Vec<Found>,
    recovered: Option<Recovered>,
    metrics: Arc<Metrics>,
    audit: Option<Audit>,
    traced: Option<Box<Traced>>,
    finished: bool,
}

/// What was found for one of the mappings.
#[derive(Clone, Debug)]
struct Found {
    outcome: Outcome,
    version: Option<Version>,
    age: Duration,
}

// === impl Access ===

impl Access {
    /// A request has come, or `None`: something that did not become one.
    pub fn begin(request: Option<&Request<Incoming>>, metrics: &Arc<Metrics>, audit: Option<&Audit>) -> Self {
        Self {
            request_id: Uuid::now_v7(),
            started: Instant::now(),
            target: request.map(|request| (request.method().clone(), request.uri().clone())),
            mode: "none",
            code: "ok",
            client: None,
            workspace: None,
            entities: Vec::new(),
            mappings: Vec::new(),
            found: Vec::new(),
            recovered: None,
            metrics: metrics.clone(),
            audit: audit.cloned(),
            traced: None,
            finished: false,
        }
    }

    /// It goes to the control plane.
    pub fn admin(&mut self) {
        self.mode = "admin";
    }

    /// It is known whose request it is.
    pub fn client(&mut self, client: &Client) {
        self.client = client.key.as_ref().map(|key| Arc::clone(&key.id));
        self.workspace.clone_from(&client.caller.workspace);
    }

    /// It is known what will happen.
    pub fn planned(&mut self, plan: &Plan) {
        self.mode = match plan.mode {
            Mode::Unmatched => "unmatched",
            Mode::Header => "header",
            Mode::Config => "config",
        };
        self.entities.clone_from(&plan.entities);
        self.mappings.clone_from(&plan.mappings);
        if let Some(traced) = &mut self.traced {
            traced.planned();
        }
    }

    /// Its credentials have been found.
    pub fn resolved(&mut self, resolved: &[Resolved]) {
        self.found = resolved
            .iter()
            .map(|resolved| Found { outcome: resolved.outcome, version: resolved.version.clone(), age: resolved.age })
            .collect();
        if let Some(traced) = &mut self.traced {
            traced.resolved();
        }
    }

    /// Its credentials are about to be sent with `head`, once more if it is repeated.
    pub fn used(&self, plan: &Plan, head: &Parts) {
        let Some(audit) = &self.audit else { return };
        let events = plan.uses(head).into_iter().map(|sent| {
            let resolved = sent.mapping.and_then(|(at, mapping)| {
                let Found { outcome, version, age } = self.found.get(at)?.clone();
                Some(Origin { reference: Arc::clone(&mapping.reference), version, outcome, age })
            });
            Event::Used { entity: sent.entity, field: sent.field, resolved, destinations: sent.destinations }
        });
        self.record(audit, events.collect());
    }

    /// A mapping of it is sent again with another value.
    pub fn replaced(&mut self, at: usize, resolved: &Resolved) {
        if let Some(found) = self.found.get_mut(at) {
            *found = Found { outcome: resolved.outcome, version: resolved.version.clone(), age: resolved.age };
        }
    }

    /// A credential of it was refused, and this came of it.
    pub fn recovered(&mut self, recovered: Recovered) {
        self.recovered = Some(recovered);
    }

    /// It is about to be sent on.
    pub fn sending(&mut self) {
        self.metrics.added_seconds.observe(self.started.elapsed().as_secs_f64());
        if let Some(traced) = &mut self.traced {
            traced.sending();
        }
    }

    /// Where its credentials come from, for a client that may know: an RFC 9651 list of references. `None` when there are
    /// none.
    pub fn provenance(&self) -> Option<HeaderValue> {
        let items = self.mappings.iter().zip(&self.found).map(|(mapping, found)| {
            let version = found.version.as_ref().map(|version| format!(";version={}", quoted(&version.0)));
            let (reference, outcome, age) =
                (quoted(&mapping.reference.slug), found.outcome.as_str(), found.age.as_secs());
            format!("{reference};outcome={outcome};age={age}{}", version.unwrap_or_default())
        });
        let list = items.collect::<Vec<_>>().join(", ");
        HeaderValue::try_from(list).ok().filter(|list| !list.is_empty())
    }

    /// It is refused: says why, in words that are not for the client.
    pub fn refused(&mut self, refusal: &Refusal) {
        self.code = refusal.code();
        if let Refusal::Client(denied) = refusal
            && let Some(key) = denied.key()
        {
            self.client = Some(Arc::from(key));
        }
        self.record_refusal(refusal);
        let request_id = self.request_id;
        let code = self.code;
        let error = Chain(refusal).to_string();
        match refusal {
            Refusal::Resolve(failure) => warn!(
                %request_id,
                code,
                reference = &*failure.reference.slug,
                manager = failure.reference.manager_type.as_str(),
                class = failure.class.as_str(),
                manager_code = failure.source.as_ref().and_then(|error| error.code.as_deref()),
                identity = failure.identity.as_deref(),
                error,
                "A secret could not be resolved."
            ),
            Refusal::Client(denied) => {
                let client = self.client.as_deref();
                match denied {
                    Denied::Misconfigured { reason, .. } => {
                        let class = FailureClass::Misconfigured.as_str();
                        warn!(%request_id, code, client, class, reason = &**reason, "A client's API key was set aside.");
                    }
                    Denied::Unauthorized { .. }
                    | Denied::Scope { .. }
                    | Denied::ConfigOverride { .. }
                    | Denied::RateLimited { .. }
                    | Denied::BudgetExhausted { .. }
                    | Denied::Session { .. }
                    | Denied::Uncounted
                    | Denied::Metadata => info!(%request_id, code, client, error, "A client was not let in."),
                }
            }
            Refusal::Plan(PlanError::EntityNotFound { slugs, reasons }) => {
                info!(%request_id, code, ?slugs, ?reasons, "A request names what it may not use.");
            }
            Refusal::Plan(PlanError::Misconfigured { slug, reason }) => {
                let class = FailureClass::Misconfigured.as_str();
                warn!(%request_id, code, entity = &**slug, class, reason = &**reason, "A request names what was set aside.");
            }
            Refusal::Apply(ApplyError::Malformed { index }) => {
                let reference = self.mappings.get(*index).map(|mapping| &mapping.reference);
                warn!(
                    %request_id,
                    code,
                    reference = reference.map(|reference| &*reference.slug),
                    manager = reference.map(|reference| reference.manager_type.as_str()),
                    class = FailureClass::Malformed.as_str(),
                    error,
                    "A secret does not fit."
                );
            }
            Refusal::Apply(ApplyError::StoredMalformed { slug }) => {
                let class = FailureClass::Malformed.as_str();
                warn!(%request_id, code, entity = &**slug, class, error, "A stored credential does not fit.");
            }
            Refusal::Send(_) | Refusal::ReplyBroken(_) | Refusal::Internal => {
                warn!(%request_id, code, error, "A request got no answer.");
            }
            Refusal::Plan(_)
            | Refusal::NoSnapshot
            | Refusal::HeadTooLarge { .. }
            | Refusal::RequestTimeout(_)
            | Refusal::BodyBroken(_)
            | Refusal::Overloaded => info!(%request_id, code, error, "A request was refused."),
        }
    }

    /// Its head was answered with `status`.
    pub fn finish(&mut self, status: StatusCode) {
        self.write(status.as_u16());
    }

    fn write(&mut self, status: u16) {
        self.finished = true;
        self.metrics.requests.get_or_create(&RequestLabels { code: self.code, mode: self.mode }).inc();
        info!(
            target: TARGET,
            request_id = %self.request_id,
            method = self.target.as_ref().map(|(method, _)| method.as_str()),
            path = self.target.as_ref().map(|(_, uri)| uri.path()),
            status,
            code = self.code,
            mode = self.mode,
            client = self.client.as_deref(),
            workspace = self.workspace.as_deref(),
            entities = %self.entities(),
            references = %self.references(),
            recovery = self.recovered.map(Recovered::as_str),
            elapsed_ms = milliseconds(self.started.elapsed()),
            "A request was answered."
        );
        self.record_spans(status);
    }

    fn record_refusal(&self, refusal: &Refusal) {
        let Some(audit) = &self.audit else { return };
        let code = self.code;
        let denied = |entity: Option<Arc<str>>, reason: Arc<str>| Event::Denied { entity, code, reason };
        let failed = |reference: &Arc<Reference>, class: FailureClass| {
            let (entity, reference) = (self.entity_of(reference), Arc::clone(reference));
            Event::Failed { entity, reference, class: class.as_str() }
        };
        let events: Vec<Event> = match refusal {
            Refusal::Plan(error) => match error {
                PlanError::EntityNotFound { slugs, reasons } => {
                    let names = slugs.iter().zip(reasons);
                    names.map(|(slug, reason)| denied(Some((&**slug).into()), (&**reason).into())).collect()
                }
                PlanError::EntityInactive { slug } => vec![denied(Some(slug.clone()), "it is not active".into())],
                PlanError::Misconfigured { slug, reason } => vec![denied(Some(slug.clone()), reason.clone())],
                PlanError::DestinationNotAllowed { input } => {
                    vec![denied(None, format!("a destination is chosen by {input}").into())]
                }
                PlanError::NotFound
                | PlanError::InvalidConfig { .. }
                | PlanError::InvalidBody { .. }
                | PlanError::NoEntity
                | PlanError::BodyTooLarge
                | PlanError::NoDeployment { .. } => Vec::new(),
            },
            Refusal::Resolve(failure) => vec![failed(&failure.reference, failure.class)],
            Refusal::Apply(ApplyError::Malformed { index }) => {
                let mapping = self.mappings.get(*index);
                mapping.map(|mapping| failed(&mapping.reference, FailureClass::Malformed)).into_iter().collect()
            }
            Refusal::Client(client) => vec![denied(None, client.to_string().into())],
            // Not about a credential, or it was recorded as it was sent.
            Refusal::Apply(ApplyError::StoredMalformed { .. })
            | Refusal::Send(_)
            | Refusal::ReplyBroken(_)
            | Refusal::Internal
            | Refusal::NoSnapshot
            | Refusal::HeadTooLarge { .. }
            | Refusal::RequestTimeout(_)
            | Refusal::BodyBroken(_)
            | Refusal::Overloaded => Vec::new(),
        };
        self.record(audit, events);
    }

    /// The first entity that maps `reference`.
    fn entity_of(&self, reference: &Arc<Reference>) -> Option<Arc<Entity>> {
        let maps = |entity: &&Arc<Entity>| {
            entity.fields.iter().any(|field| match &field.value {
                FieldValue::Mapped(mapping) => Arc::ptr_eq(&mapping.reference, reference),
                FieldValue::Plain(_) | FieldValue::Stored(_) => false,
            })
        };
        self.entities.iter().find(maps).cloned()
    }

    fn record(&self, audit: &Audit, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        audit.record(Record {
            at: OffsetDateTime::now_utc(),
            request_id: self.request_id,
            client_key: self.client.clone(),
            workspace: self.workspace.clone(),
            events,
        });
    }

    fn entities(&self) -> impl fmt::Display {
        fmt::from_fn(|f| list(f, self.entities.iter().map(|entity| fmt::from_fn(|f| f.write_str(&entity.slug)))))
    }

    /// `slug=outcome`, or the slug alone when it did not come to that.
    fn references(&self) -> impl fmt::Display {
        let outcomes = self.found.iter().map(|found| Some(found.outcome)).chain(std::iter::repeat(None));
        let items = self.mappings.iter().zip(outcomes).map(|(mapping, outcome)| {
            fmt::from_fn(move |f| match outcome {
                Some(outcome) => write!(f, "{}={}", mapping.reference.slug, outcome.as_str()),
                None => f.write_str(&mapping.reference.slug),
            })
        });
        fmt::from_fn(move |f| list(f, items.clone()))
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if !self.finished {
            self.code = "client_gone";
            self.write(CLIENT_GONE);
        }
    }
}

/// An RFC 9651 string; what does not fit into one is replaced.
fn quoted(text: &str) -> String {
    let fit = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    format!("\"{}\"", text.chars().map(fit).collect::<String>().replace('\\', "\\\\").replace('"', "\\\""))
}

fn list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    for (index, item) in items.enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

/// Milliseconds to the microsecond, so that logs hold no digits that were never measured.
fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_headers_are_escaped() {
        for (text, string) in
            [("openai", r#""openai""#), (r#"a"b\c"#, r#""a\"b\\c""#), ("é\r\n", r#""???""#), ("", r#""""#)]
        {
            assert_eq!(quoted(text), string, "{text:?}");
        }
    }

    #[test]
    fn milliseconds_print_as_they_were_measured() {
        for (nanos, printed) in [(0, "0"), (86_219, "0.086"), (48_183_999, "48.184"), (2_001_166_032, "2001.166")] {
            assert_eq!(milliseconds(Duration::from_nanos(nanos)).to_string(), printed);
        }
    }
}
