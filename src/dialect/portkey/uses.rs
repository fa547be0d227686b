//! Which credentials a plan sends, and where each can arrive: for the audit log. Never a value.

use std::sync::Arc;

use http::request::Parts;
use url::Host;

use super::{
    endpoint,
    placement::{CUSTOM_HEADERS, PlacedValue, Placement},
    plan::{Action, Plan},
    reach,
};
use crate::model::{Entity, FieldValue, Mapping};

/// One credential of one entity, and where it goes.
#[derive(Clone, Debug)]
pub struct Use {
    /// Whose it is.
    pub entity: Arc<Entity>,
    /// The gateway's name of the field.
    pub field: &'static str,
    /// What it is resolved from, and its place in [`Plan::mappings`]; `None` = stored in the snapshot.
    pub mapping: Option<(usize, Arc<Mapping>)>,
    /// Every host at which it can arrive, the same for all of an entity's credentials; `None` = they cannot be told.
    pub destinations: Option<Arc<[Host]>>,
}

// === impl Plan ===

impl Plan {
    /// Every credential that travels with `head`, leaf by leaf.
    pub fn uses(&self, head: &Parts) -> Vec<Use> {
        let placements: &[Placement] = match &self.action {
            Action::Pass { .. } => &[],
            Action::Headers { placement, .. } => std::slice::from_ref(placement),
            Action::Config { placements, .. } => placements,
        };
        let endpoint = endpoint::of(head);
        let mut uses = Vec::with_capacity(self.mappings.len());
        for placement in placements {
            let Some(entity) = self.entities.get(placement.entity) else { continue };
            let destinations: Option<Arc<[Host]>> = reach::hosts(placement, entity, endpoint).map(Arc::from);
            let placed = placement.fields(entity).filter_map(|placed| match placed.value {
                PlacedValue::Plain(_) => None,
                PlacedValue::Stored { .. } => Some((placed.spec.name, None)),
                PlacedValue::Mapped(mapping) => Some((placed.spec.name, Some(mapping))),
            });
            let custom = entity.field(CUSTOM_HEADERS).and_then(|field| match &field.value {
                FieldValue::Plain(_) => None,
                FieldValue::Stored(_) => Some((CUSTOM_HEADERS, None)),
                FieldValue::Mapped(mapping) => Some((CUSTOM_HEADERS, Some(mapping))),
            });
            uses.extend(placed.chain(custom).map(|(field, mapping)| Use {
                entity: Arc::clone(entity),
                field,
                mapping: mapping.and_then(|mapping| {
                    let at = self.mappings.iter().position(|other| Arc::ptr_eq(other, mapping))?;
                    Some((at, Arc::clone(mapping)))
                }),
                destinations: destinations.clone(),
            }));
        }
        uses
    }
}
