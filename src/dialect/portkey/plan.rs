//! What was decided about a request, and what is still to come in before it is sent: the credentials.

use std::sync::Arc;

use http::HeaderValue;

use super::{BodyEdit, config_mode::Rebuilt, placement::Placement};
use crate::model::{Entity, Mapping};

/// What will happen to a request. Holds no secret to resolve: those come in with `apply`.
#[derive(Debug)]
pub struct Plan {
    /// What to resolve, each once; `apply` expects the credentials in this order.
    pub mappings: Vec<Arc<Mapping>>,
    /// The entities named, in order of appearance.
    pub entities: Vec<Arc<Entity>>,
    /// How the credentials travel.
    pub mode: Mode,
    /// What changes in the body.
    pub body_edit: Option<BodyEdit>,
    /// The query without names of entities, where it changes.
    pub(super) query: Option<String>,
    /// What happens to the head.
    pub(super) action: Action,
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

/// What happens to the head.
#[derive(Debug)]
pub(super) enum Action {
    /// The request keeps its credentials.
    Pass {
        /// What happens to the config.
        config: ConfigHeader,
        /// Whether `x-portkey-provider` names an entity that does not count.
        drop_provider: bool,
    },
    /// The fields of one entity become headers.
    Headers {
        /// Which, and how.
        placement: Placement,
        /// What happens to the config.
        config: ConfigHeader,
    },
    /// The config is rebuilt.
    Config {
        /// The places of our entities.
        placements: Vec<Placement>,
        /// What is filled in.
        rebuilt: Box<Rebuilt>,
    },
}

/// What happens to `x-portkey-config` when it is not rebuilt.
#[derive(Debug)]
pub(super) enum ConfigHeader {
    /// It stays as it is, or there is none.
    Keep,
    /// A stored config takes the place of its name.
    Replace(HeaderValue),
}

// === impl Plan ===

impl Plan {
    /// A plan in config mode.
    pub(super) fn config(entities: Vec<Arc<Entity>>, placements: Vec<Placement>, mut rebuilt: Rebuilt) -> Self {
        Self {
            mappings: std::mem::take(&mut rebuilt.mappings),
            entities,
            mode: Mode::Config,
            body_edit: None,
            query: None,
            action: Action::Config { placements, rebuilt: Box::new(rebuilt) },
        }
    }
}
