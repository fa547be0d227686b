//! The use audit: one line for each use of a credential, and for each name that was not answered with one. Never a value.
//!
//! Requests put records into a bounded queue and go on; a writer elsewhere empties it. A queue that is full drops and counts,
//! because a blocked disk must not stop traffic. One request is one record, however many credentials it uses.

use std::{io, sync::Arc, time::Duration};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::{mpsc, oneshot};
use url::Host;
use uuid::Uuid;

use crate::{
    manager::Version,
    metric::{Metrics, OutcomeLabels},
    model::{Entity, Reference},
    resolve::Outcome,
};

/// Records that wait at once. At a few hundred bytes each they are a few megabytes; a writer that is that far behind will
/// not catch up soon.
const QUEUE: usize = 8192;
/// Longest text of a client's in a line, in bytes.
const MAX_TEXT: usize = 255;

/// Where requests leave their records. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
}

/// What the writer receives.
#[derive(Debug)]
pub enum Message {
    /// Lines to write.
    Record(Box<Record>),
    /// Whatever came before is to be written, and then told.
    Flush(oneshot::Sender<()>),
}

/// What one request did.
#[derive(Debug)]
pub struct Record {
    /// When.
    pub at: OffsetDateTime,
    /// Leads to the log.
    pub request_id: Uuid,
    /// Id of the client's API key.
    pub client_key: Option<Arc<str>>,
    /// Id of the workspace in force.
    pub workspace: Option<Arc<str>>,
    /// Its lines.
    pub events: Vec<Event>,
}

/// One line.
#[derive(Debug)]
pub enum Event {
    /// A credential is about to be sent.
    Used {
        /// Whose.
        entity: Arc<Entity>,
        /// The field that receives it.
        field: &'static str,
        /// Where it comes from; `None` = stored in the snapshot.
        resolved: Option<Origin>,
        /// Where it can arrive.
        destinations: Option<Arc<[Host]>>,
    },
    /// A credential could not be had.
    Failed {
        /// For whom.
        entity: Option<Arc<Entity>>,
        /// From where.
        reference: Arc<Reference>,
        /// Why: a failure class.
        class: &'static str,
    },
    /// Credentials were refused.
    Denied {
        /// The name, as the request wrote it; `None` when it is about the request as a whole.
        entity: Option<Arc<str>>,
        /// The code that was answered.
        code: &'static str,
        /// Why, which the answer does not say.
        reason: Arc<str>,
    },
}

/// Where a credential comes from.
#[derive(Debug)]
pub struct Origin {
    /// The reference.
    pub reference: Arc<Reference>,
    /// The manager's version.
    pub version: Option<Version>,
    /// How it was found.
    pub outcome: Outcome,
    /// Time since its fetch.
    pub age: Duration,
}

/// A line as it is written; what does not apply is null, so that every line has every field.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    /// Tells it from log lines on the same stream.
    target: &'static str,
    event: &'static str,
    request_id: &'a str,
    client_key: Option<&'a str>,
    workspace: Option<&'a str>,
    entity: Option<&'a str>,
    provider: Option<&'a str>,
    field: Option<&'a str>,
    reference: Option<&'a str>,
    manager: Option<&'a str>,
    version: Option<&'a str>,
    outcome: &'a str,
    age_secs: Option<f64>,
    destination: Option<String>,
    reason: Option<&'a str>,
}

// === impl Audit ===

impl Audit {
    /// A queue, and its end for the writer.
    pub fn queue(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Message>) {
        let (queue, messages) = mpsc::channel(QUEUE);
        (Self { queue, metrics }, messages)
    }

    /// Leaves a record. Never waits.
    pub fn record(&self, record: Record) {
        let lines = record.events.len() as u64;
        if self.queue.try_send(Message::Record(Box::new(record))).is_err() {
            self.metrics.audit_lines.get_or_create(&OutcomeLabels { outcome: "dropped" }).inc_by(lines);
        }
    }

    /// Returns when everything recorded until now is written, or the writer is gone.
    pub async fn flush(&self) {
        let (written, told) = oneshot::channel();
        if self.queue.send(Message::Flush(written)).await.is_ok() {
            let _ = told.await;
        }
    }
}

// === impl Record ===

impl Record {
    /// How many lines it makes.
    pub fn lines(&self) -> usize {
        self.events.len()
    }

    /// Writes its lines, JSON, each with its end.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, mut out: impl io::Write) -> io::Result<()> {
        let timestamp = self.at.format(&Rfc3339).unwrap_or_default();
        let mut buffer = Uuid::encode_buffer();
        let request_id = &*self.request_id.hyphenated().encode_lower(&mut buffer);
        for event in &self.events {
            let common = Line {
                timestamp: &timestamp,
                target: "sidekey::audit",
                request_id,
                client_key: self.client_key.as_deref(),
                workspace: self.workspace.as_deref(),
                ..Line::default()
            };
            serde_json::to_writer(&mut out, &event.line(common))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

// === impl Event ===

impl Event {
    fn line<'a>(&'a self, common: Line<'a>) -> Line<'a> {
        match self {
            Self::Used { entity, field, resolved, destinations } => {
                let reference = resolved.as_ref().map(|origin| &*origin.reference);
                Line {
                    event: "used",
                    entity: Some(&entity.slug),
                    provider: Some(&entity.provider),
                    field: Some(field),
                    reference: reference.map(|reference| &*reference.slug),
                    manager: reference.map(|reference| reference.manager_type.as_str()),
                    version: resolved.as_ref().and_then(|origin| origin.version.as_ref()).map(|version| &*version.0),
                    outcome: resolved.as_ref().map_or("stored", |origin| origin.outcome.as_str()),
                    age_secs: resolved.as_ref().map(|origin| (origin.age.as_secs_f64() * 1e3).round() / 1e3),
                    destination: destinations.as_deref().map(hosts),
                    ..common
                }
            }
            Self::Failed { entity, reference, class } => Line {
                event: "failed",
                entity: entity.as_ref().map(|entity| &*entity.slug),
                provider: entity.as_ref().map(|entity| &*entity.provider),
                reference: Some(&reference.slug),
                manager: Some(reference.manager_type.as_str()),
                outcome: class,
                ..common
            },
            Self::Denied { entity, code, reason } => Line {
                event: "denied",
                entity: entity.as_deref().map(short),
                outcome: code,
                reason: Some(short(reason)),
                ..common
            },
        }
    }
}

fn hosts(hosts: &[Host]) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The beginning of a text that a client may have chosen.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(name: &str) -> Record {
        let event =
            Event::Denied { entity: Some(name.into()), code: "entity_not_found", reason: "no such name".into() };
        Record {
            at: OffsetDateTime::UNIX_EPOCH,
            request_id: Uuid::nil(),
            client_key: None,
            workspace: Some("ws".into()),
            events: vec![event],
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_a_client_writes() {
        let mut out = Vec::new();
        denied("a\n{\"target\":\"x\"}\u{1b}[2J").write(&mut out).unwrap();
        denied(&"é".repeat(1000)).write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["entity"], "a\n{\"target\":\"x\"}\u{1b}[2J");
        assert_eq!(lines[0]["timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(lines[1]["entity"].as_str().unwrap().len(), 254);
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let metrics = Arc::new(Metrics::new());
        let (audit, mut messages) = Audit::queue(Arc::clone(&metrics));
        for _ in 0..QUEUE + 3 {
            audit.record(denied("a"));
        }
        let dropped = r#"sidekey_audit_lines_total{outcome="dropped"} 3"#;
        assert!(metrics.encode().contains(dropped), "{}", metrics.encode());
        assert!(messages.try_recv().is_ok());
        audit.record(denied("a"));
        assert!(metrics.encode().contains(dropped), "there is room again");
        drop(messages);
        audit.flush().await;
    }
}
