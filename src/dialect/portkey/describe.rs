//! A plan for people: what would be set, from where, and what would be removed. Never a secret.

use std::sync::Arc;

use http::{HeaderName, request::Parts};

use super::{
    apply, header_mode,
    placement::{CUSTOM_HEADERS, Placed, PlacedValue, Placement},
    plan::{Action, Mode, Plan},
};
use crate::model::{Entity, EntityKind, FieldSpec, FieldValue};

/// What a plan does to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// How credentials travel.
    pub mode: Mode,
    /// Where they go, leaf by leaf.
    pub targets: Vec<TargetDescription>,
    /// Client headers that do not reach the gateway, in the order of the request.
    pub removed: Vec<HeaderName>,
    /// Whether the body's `model` changes.
    pub body_changes: bool,
    /// Whether the query changes.
    pub query_changes: bool,
}

/// One entity at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetDescription {
    /// Its slug, without `@`.
    pub entity: Arc<str>,
    /// What it is.
    pub kind: EntityKind,
    /// The gateway's provider id.
    pub provider: Arc<str>,
    /// What would be set.
    pub fields: Vec<FieldDescription>,
}

/// One field that would be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDescription {
    /// The gateway's name.
    pub name: &'static str,
    /// Where it goes.
    pub place: Place,
    /// Where its value comes from.
    pub source: ValueSource,
}

/// Where a field goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A request header.
    Header(HeaderName),
    /// A leaf of `x-portkey-config`.
    Config,
    /// Request headers of its own names.
    CustomHeaders,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// A plain value, shown.
    Plain(String),
    /// A credential stored in the snapshot.
    Stored,
    /// A secret reference, by its slug.
    Reference(Arc<str>),
}

// === impl Plan ===

impl Plan {
    /// What the plan does to `head`, for people.
    pub fn describe(&self, head: &Parts) -> Description {
        let places: &[Placement] = match &self.action {
            Action::Pass { .. } => &[],
            Action::Headers { placement, .. } => std::slice::from_ref(placement),
            Action::Config { placements, .. } => placements,
        };
        let targets = places
            .iter()
            .filter_map(|place| Some(target(self.mode, place, self.entities.get(place.entity)?)))
            .collect();
        Description {
            mode: self.mode,
            targets,
            removed: apply::removed(self, head),
            body_changes: self.body_edit.is_some(),
            query_changes: apply::changes_query(self, head),
        }
    }
}

fn target(mode: Mode, placement: &Placement, entity: &Entity) -> TargetDescription {
    let mut fields: Vec<FieldDescription> = placement
        .fields(entity)
        .map(|Placed { spec, value }| FieldDescription {
            name: spec.name,
            place: place(mode, spec),
            source: match value {
                PlacedValue::Plain(text) => ValueSource::Plain(text.into_owned()),
                PlacedValue::Stored { .. } => ValueSource::Stored,
                PlacedValue::Mapped(mapping) => ValueSource::Reference(Arc::clone(&mapping.reference.slug)),
            },
        })
        .collect();
    if let Some(custom) = entity.field(CUSTOM_HEADERS) {
        let source = match &custom.value {
            FieldValue::Plain(_) | FieldValue::Stored(_) => ValueSource::Stored,
            FieldValue::Mapped(mapping) => ValueSource::Reference(Arc::clone(&mapping.reference.slug)),
        };
        fields.push(FieldDescription { name: CUSTOM_HEADERS, place: Place::CustomHeaders, source });
    }
    TargetDescription {
        entity: Arc::clone(&entity.slug),
        kind: entity.kind,
        provider: Arc::clone(&entity.provider),
        fields,
    }
}

fn place(mode: Mode, spec: &'static FieldSpec) -> Place {
    match mode {
        Mode::Header => header_mode::header_of(spec).map_or(Place::Config, Place::Header),
        Mode::Config | Mode::Unmatched => Place::Config,
    }
}
