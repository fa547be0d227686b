//! Which mappings use a reference, and which of them do not find their value in its document: what operators are told.
//!
//! A document that was read is not yet a credential: a mapping picks a key of it, and a key may be missing. Only names and
//! reasons leave this room, never a value.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use super::{
    Engine, SlotState, SlotStatus,
    document::Document,
    freshness::{Decision, Memory},
    pick::{PickError, Wanted},
    slot::{Sight, Slot, SlotKey},
};
use crate::{
    manager::FailureClass,
    model::{FieldValue, Mapping, Reference, Snapshot},
};

/// Mappings of one reference that are told of at most: whoever reads that many knows enough.
const MAX_TOLD: usize = 16;

/// What is wanted of each reference of a snapshot, by its id. Empty: nothing, and a document that was read is as good as another.
#[derive(Debug, Default)]
pub struct Uses(HashMap<Arc<str>, Vec<Use>>);

#[derive(Debug)]
struct Use {
    /// Whose field receives it, and by which mapping; `None` = nobody's, the reference has a `secret_key` of its own.
    by: Option<(Arc<str>, Arc<Mapping>)>,
    wanted: Wanted,
}

/// A use that does not find its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Slug of the virtual key or integration; `None` = it is the reference's own `secret_key`, which no mapping uses.
    pub entity: Option<Arc<str>>,
    /// The gateway's field that receives nothing.
    pub field: Option<&'static str>,
    /// Why.
    pub reason: PickError,
}

// === impl Uses ===

impl Uses {
    /// Those of `snapshot`. A mapping that several entities inherit is told once.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut uses = Self::default();
        for entity in snapshot.entities() {
            for field in entity.fields.iter() {
                let FieldValue::Mapped(mapping) = &field.value else { continue };
                let known = uses.0.entry(Arc::clone(&mapping.reference.id)).or_default();
                // The heirs of one integration come close together; beyond that, twice is not wrong.
                if !known.iter().rev().take(MAX_TOLD).any(|other| other.is_by(mapping)) {
                    let by = Some((Arc::clone(&entity.slug), Arc::clone(mapping)));
                    known.push(Use { by, wanted: Wanted::by_mapping(mapping) });
                }
            }
        }
        for reference in snapshot.references.iter().filter(|reference| reference.secret_key.is_some()) {
            let own = || vec![Use { by: None, wanted: Wanted::by_reference(reference, false) }];
            uses.0.entry(Arc::clone(&reference.id)).or_insert_with(own);
        }
        uses
    }

    /// The uses of `reference` that `document` has no value for.
    pub(super) fn unusable(&self, reference: &Reference, document: &Document) -> Vec<Unusable> {
        let unusable = self.by(reference).iter().filter_map(|using| {
            let reason = document.pick(&using.wanted).err()?;
            Some(using.unusable(reason))
        });
        unusable.take(MAX_TOLD).collect()
    }

    fn by(&self, reference: &Reference) -> &[Use] {
        self.0.get(&reference.id).map(Vec::as_slice).unwrap_or_default()
    }
}

// === impl Use ===

impl Use {
    fn is_by(&self, mapping: &Arc<Mapping>) -> bool {
        self.by.as_ref().is_some_and(|(_, own)| Arc::ptr_eq(own, mapping))
    }

    fn unusable(&self, reason: PickError) -> Unusable {
        let by = self.by.as_ref();
        let (entity, field) = by.map(|(entity, mapping)| (Arc::clone(entity), mapping.target.spec.name)).unzip();
        Unusable { entity, field, reason }
    }
}

// === impl Engine ===

impl Engine {
    /// What is remembered for `reference`: of its document, and, where the mappings in `uses` see less in it, of those.
    pub fn status(&self, reference: &Arc<Reference>, uses: &Uses, now: Instant) -> SlotStatus {
        let slot = self.cache.get(&SlotKey::of(reference));
        let memory = slot.as_deref().map_or_else(Memory::default, Slot::memory);
        let terms = self.terms(reference, slot.as_deref());
        let state = |memory: &Memory| match memory.judge(&terms, now) {
            Decision::Fresh | Decision::RefreshAhead => SlotState::Fresh,
            Decision::Stale { .. } => SlotState::Stale,
            Decision::Fetch => SlotState::Empty,
            Decision::Refused(_) => SlotState::Refused,
        };
        let mut worst = state(&memory);
        let mut unusable = Vec::new();
        if let Some(slot) = slot.as_deref().filter(|slot| slot.document().is_some()) {
            for using in uses.by(reference) {
                let Sight { memory, unpicked: Some(reason), .. } = self.see(slot, &using.wanted) else { continue };
                worst = worst.max(state(&memory));
                if unusable.len() < MAX_TOLD {
                    unusable.push(using.unusable(reason));
                }
            }
        }
        let failed = slot.as_deref().and_then(Slot::failed);
        let malformed = (!unusable.is_empty()).then_some(FailureClass::Malformed);
        SlotStatus {
            reference: Arc::clone(reference),
            state: worst,
            age: memory.value.map(|held| held.age(now)),
            version: slot.as_deref().and_then(Slot::document).and_then(|document| document.version()).cloned(),
            failures: failed.map_or(0, |failed| failed.count),
            class: failed.map(|failed| failed.failure.class).or(malformed),
            unusable,
            used: memory.used,
        }
    }
}
