//! The Portkey gateway's dialect.
//!
//! Planning is synchronous and pure: head + what was seen of the body + snapshot → [`Plan`] or a refusal. Applying strips
//! what a client may not send, then sets what the plan says. Facts and traps were measured on gateway 1.15.2.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request::Parts};
use time::OffsetDateTime;

use super::PlanError;
use crate::{
    model::{Caller, Entity, Snapshot},
    secret::Credential,
};

mod access;
mod apply;
mod binding;
mod config_mode;
mod config_tree;
mod containment;
mod custom_headers;
mod deployment;
mod describe;
mod endpoint;
mod forward;
mod header_mode;
mod host;
mod inputs;
mod json_scan;
mod model_path;
mod multipart_scan;
mod name;
mod path;
mod peek;
mod per_request;
mod placement;
mod plan;
mod planner;
mod provider;
mod query;
mod reach;
#[cfg(test)]
mod sample;
mod service_account;
mod steering;
mod stored_config;
mod strip;
#[cfg(test)]
mod tests;
mod trail;
mod uses;
mod websocket;

pub use apply::{ApplyError, Injected};
pub use containment::SAFE_CHECKS;
pub use describe::{Description, FieldDescription, Place, TargetDescription, ValueSource};
pub use peek::{BodyScan, Progress};
pub use plan::{Mode, Plan};
pub use stored_config::check as check_stored_config;
pub use trail::Blame;
pub use uses::Use;

/// What the operator decides about this dialect. The default is the contract's.
#[derive(Clone, Debug)]
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
    /// Whether there is a model that is no text, or longer than a model is looked at.
    pub unreadable: bool,
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

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            reject_unmatched: false,
            allowed_checks: SAFE_CHECKS.map(str::to_owned).into(),
            trust_stored_configs: false,
            passthrough_hosts: Vec::new(),
        }
    }
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
        self.plan_without(head, peek, snapshot, caller, now, &[])
    }

    /// As [`Portkey::plan`], without the targets of a config that name something in `full`, where a fallback or a load balancer
    /// has others: what has no room for the request, and the status that it would be answered with.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan_without(
        &self,
        head: &Parts,
        peek: &BodyPeek,
        snapshot: &Snapshot,
        caller: &Caller,
        now: OffsetDateTime,
        full: &[(Arc<Entity>, u16)],
    ) -> Result<Plan, PlanError> {
        planner::Request { settings: &self.settings, head, peek, snapshot, caller, now, full }.plan()
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
        apply::apply(plan, credentials, head)
    }

    /// Whether a status says that a credential was not taken.
    pub fn refuses(&self, status: StatusCode) -> bool {
        trail::refuses(status)
    }

    /// Who is to blame for a reply to a request that was sent by `plan`: whose values were refused, and whose a fallback went
    /// past. Nobody, if none of ours.
    pub fn blame(&self, plan: &Plan, status: StatusCode, headers: &HeaderMap) -> Blame {
        trail::blame(plan, status, headers)
    }

    /// The entities of a plan whose target was used last, where a reply tells; `None` where it does not.
    pub fn used(&self, plan: &Plan, headers: &HeaderMap) -> Option<Vec<Arc<Entity>>> {
        trail::used(plan, headers)
    }
}
