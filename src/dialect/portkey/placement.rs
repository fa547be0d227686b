//! One entity at one place of a request: which of its fields travel, and with which values.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

use super::access::Access;
use crate::model::{Deployment, Entity, FieldSpec, FieldValue, Mapping};

/// The field whose members travel as request headers of their own.
pub(super) const CUSTOM_HEADERS: &str = "custom_headers";

/// An entity placed in a request.
#[derive(Debug)]
pub(super) struct Placement {
    /// An index into `Plan::entities`.
    pub(super) entity: usize,
    /// Whether the plain key travels.
    pub(super) access: Access,
    /// Plain values that stand in place of the entity's: its deployment, an admitted region, what a trusted config says.
    pub(super) overrides: Vec<(&'static FieldSpec, Arc<str>)>,
}

/// One field that travels.
#[derive(Debug)]
pub(super) struct Placed<'e> {
    /// Its row in the field table.
    pub(super) spec: &'static FieldSpec,
    /// Its value.
    pub(super) value: PlacedValue<'e>,
}

/// The value of a field that travels.
#[derive(Debug)]
pub(super) enum PlacedValue<'e> {
    /// Known now, and no credential.
    Plain(Cow<'e, str>),
    /// Stored in the snapshot.
    Stored {
        /// An index into `Entity::fields`.
        field: usize,
    },
    /// To be resolved.
    Mapped(&'e Arc<Mapping>),
}

// === impl Placement ===

impl Placement {
    /// Places the entity with this index.
    pub(super) fn new(index: usize, entity: &Entity, access: Access, deployment: Option<&Deployment>) -> Self {
        let mut placement = Self { entity: index, access, overrides: Vec::new() };
        if let Some(deployment) = deployment {
            let parts = [
                ("deployment_id", Some(&deployment.deployment_id)),
                ("api_version", deployment.api_version.as_ref()),
                ("azure_model_name", deployment.model_name.as_ref()),
            ];
            for (name, value) in parts {
                if let (Some(spec), Some(value)) = (FieldSpec::named(&entity.provider, name), value) {
                    placement.overrides.push((spec, Arc::clone(value)));
                }
            }
        }
        placement
    }

    /// Every field that travels, except [`CUSTOM_HEADERS`]. Mappings come in the order in which `Plan::mappings` has them.
    pub(super) fn fields<'e>(&'e self, entity: &'e Entity) -> impl Iterator<Item = Placed<'e>> {
        let overrides = self
            .overrides
            .iter()
            .map(|(spec, text)| Placed { spec, value: PlacedValue::Plain(Cow::Borrowed(&**text)) });
        let own =
            entity.fields.iter().enumerate().filter(|(_, field)| self.travels(field.spec)).map(|(index, field)| {
                let value = match &field.value {
                    FieldValue::Plain(value) => PlacedValue::Plain(plain_text(value)),
                    FieldValue::Stored(_) => PlacedValue::Stored { field: index },
                    FieldValue::Mapped(mapping) => PlacedValue::Mapped(mapping),
                };
                Placed { spec: field.spec, value }
            });
        overrides.chain(own)
    }

    /// Whether every field that travels fits into a header of its own.
    pub(super) fn fits_headers(&self, entity: &Entity) -> bool {
        self.fields(entity).all(|placed| placed.spec.header.is_some() && !placed.spec.multiline)
    }

    /// The value that this field has at the gateway: `Ok` a plain one, `Err` one that is a credential.
    pub(super) fn effective<'e>(&'e self, entity: &'e Entity, field: &str) -> Option<Result<Cow<'e, str>, IsSecret>> {
        if let Some((_, text)) = self.overrides.iter().find(|(spec, _)| spec.name == field) {
            return Some(Ok(Cow::Borrowed(text)));
        }
        let found = entity.field(field)?;
        Some(match &found.value {
            FieldValue::Plain(value) => Ok(plain_text(value)),
            FieldValue::Stored(_) | FieldValue::Mapped(_) => Err(IsSecret),
        })
    }

    fn travels(&self, spec: &FieldSpec) -> bool {
        if spec.name == FieldSpec::key().name {
            return self.access == Access::Key;
        }
        spec.name != CUSTOM_HEADERS && !self.overrides.iter().any(|(other, _)| other.name == spec.name)
    }
}

/// A field's value is a credential, which nobody may compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IsSecret;

/// A stored value as a header has it.
fn plain_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Cow::Owned(value.to_string())
        }
    }
}
