//! Secret mappings: which field of an entity receives which secret.

use std::sync::Arc;

use super::{FieldSpec, Reference};

/// One linked `secret_mappings` entry.
#[derive(Debug)]
pub struct Mapping {
    /// The field that receives the value.
    pub target: TargetField,
    /// Where the value comes from.
    pub reference: Arc<Reference>,
    /// `secret_key`: the mapping's own, else the reference's.
    pub secret_key: Option<Arc<str>>,
    /// `value_format`.
    pub format: ValueFormat,
}

/// `target_field`, resolved to a row of the field table.
#[derive(Clone, Copy, Debug)]
pub struct TargetField {
    /// The gateway's field.
    pub spec: &'static FieldSpec,
}

/// `value_format`: how the picked value is given to the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ValueFormat {
    /// As text.
    #[default]
    String,
    /// As a JSON structure.
    Json,
}
