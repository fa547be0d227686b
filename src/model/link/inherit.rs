//! Inheritance: what a virtual key takes over from its integration, and what it may not change then.
//!
//! Fields compare by gateway name, the virtual key beats the integration, arrays replace, and a set (AWS keys, Entra) moves
//! as a whole. Whoever inherits a credential must not choose where it goes or how it is used, or could take it home.

use std::sync::Arc;

use super::{fields::Own, findings::Report};
use crate::model::{Deployment, Entity, EntityField, EntityKind, FieldSet, FieldSpec, FieldValue};

/// Effective fields and deployments.
pub(super) struct Effective {
    pub(super) fields: Arc<[EntityField]>,
    pub(super) deployments: Arc<[Deployment]>,
}

/// What `own` is without any integration.
pub(super) fn alone(own: Own) -> Effective {
    let deployments = if own.deployments.is_empty() { Arc::default() } else { own.deployments.into() };
    Effective { fields: own.fields.into(), deployments }
}

/// The `own` fields of a virtual key over those of its integration, `base`.
pub(super) fn over(base: &Entity, own: Own, report: &mut Report<'_>) -> Effective {
    let prefix = EntityKind::VirtualKey.prefix();
    let fields = if own.fields.is_empty() {
        Arc::clone(&base.fields)
    } else {
        let mut fields: Vec<EntityField> =
            base.fields.iter().filter(|field| !is_replaced(field, &own.fields)).cloned().collect();
        if fields.iter().any(is_credential) {
            for field in own.fields.iter().filter(|field| steers(field.spec) && !is_repeated(field, &base.fields)) {
                report.fault(
                    format_args!("{prefix}.{}", field.spec.model_config.unwrap_or(field.spec.name)),
                    "may not be set by a virtual key that inherits a credential; set it in the integration, or give the \
                     virtual key credentials of its own",
                );
            }
        }
        fields.extend(own.fields);
        fields.into()
    };
    let deployments = if own.deployments.is_empty() { Arc::clone(&base.deployments) } else { own.deployments.into() };
    Effective { fields, deployments }
}

/// Faults of a set that is only half there: the gateway would sign with an empty half, or ask for a token without one.
pub(super) fn check_sets(fields: &[EntityField], report: &mut Report<'_>) {
    let find = |name: &str| fields.iter().find(|field| field.spec.name == name);
    let asks_entra = find("azure_auth_mode").is_some_and(|field| match &field.value {
        FieldValue::Plain(mode) => mode.as_str() == Some("entra"),
        FieldValue::Stored(_) | FieldValue::Mapped(_) => false,
    });
    for set in [FieldSet::AwsKeys, FieldSet::Entra] {
        let needed = match set {
            FieldSet::AwsKeys => fields.iter().any(|field| field.spec.set == Some(set)),
            // Managed and workload identities use tenant and client without a secret.
            FieldSet::Entra => asks_entra || find("azure_entra_client_secret").is_some(),
        };
        for missing in set.required().iter().filter(|name| needed && find(name).is_none()) {
            report.fault(*missing, format_args!("is missing; give {} together", set.required().join(", ")));
        }
    }
}

// === impl Effective ===

impl Effective {
    /// What an entity with a fault has: it is never used, and half a configuration must not look like a whole one.
    pub(super) fn nothing() -> Self {
        Self { fields: Arc::default(), deployments: Arc::default() }
    }
}

fn is_replaced(field: &EntityField, own: &[EntityField]) -> bool {
    own.iter().any(|newer| newer.spec == field.spec || (newer.spec.set.is_some() && newer.spec.set == field.spec.set))
}

fn is_credential(field: &EntityField) -> bool {
    match field.value {
        FieldValue::Plain(_) => false,
        FieldValue::Stored(_) | FieldValue::Mapped(_) => true,
    }
}

fn steers(spec: &FieldSpec) -> bool {
    spec.destination || spec.name == "custom_headers"
}

/// Whether the integration says the same: a control plane may copy what it shows.
fn is_repeated(field: &EntityField, base: &[EntityField]) -> bool {
    let FieldValue::Plain(value) = &field.value else { return false };
    base.iter()
        .any(|older| older.spec == field.spec && matches!(&older.value, FieldValue::Plain(older) if older == value))
}
