//! Entities: what a request may name, with the effective fields after inheritance.

use std::sync::Arc;

use serde_json::Value;

use super::{Account, FieldSpec, Hidden, Lifespan, Mapping, Reference, Stored, Workspaces, names::Named};
use crate::seal::opener::Unusable;

/// A linked virtual key or integration.
#[derive(Debug)]
pub struct Entity {
    /// What it is.
    pub kind: EntityKind,
    /// Stable id.
    pub id: Arc<str>,
    /// The name a request uses, without `@`.
    pub slug: Arc<str>,
    /// The gateway's provider id (`ai_provider_id`).
    pub provider: Arc<str>,
    /// The workspace it belongs to (id); `None` = organisation-wide.
    pub workspace_id: Option<Arc<str>>,
    /// Usable or not; of the entity, the integration it inherits from and the references it maps, together.
    pub lifespan: Lifespan,
    /// Effective fields: own and inherited, mappings and literals, each name once.
    pub fields: Arc<[EntityField]>,
    /// Azure deployments, in stored order; empty for other providers.
    pub deployments: Arc<[Deployment]>,
    /// The integration a virtual key inherits from; `None` = it stands alone.
    pub integration: Option<Arc<Entity>>,
    /// The workspaces an integration is shared with; [`Workspaces::All`] for virtual keys.
    pub shared_with: Workspaces,
    /// How much is used with a virtual key at most; `None` = as much as one likes.
    pub account: Option<Arc<Account>>,
    /// Why it was set aside; a request that names it is answered `reference_misconfigured`. Never a secret.
    pub fault: Option<Arc<str>>,
    /// Whether every workspace may use it with all it depends on: found when it is linked, it spares each look-up a walk to
    /// integration, mappings and references.
    pub(super) is_open: bool,
}

/// Virtual key or integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntityKind {
    /// `virtual_keys[]`, called provider in newer versions of the API.
    VirtualKey,
    /// `integrations[]`.
    Integration,
}

/// One effective field.
#[derive(Clone, Debug)]
pub struct EntityField {
    /// Its row in the field table.
    pub spec: &'static FieldSpec,
    /// Its value.
    pub value: FieldValue,
}

/// Where a field's value comes from.
#[derive(Clone, Debug)]
pub enum FieldValue {
    /// A stored value that is no credential: a string of visible ASCII and spaces, a number or a boolean.
    Plain(Arc<Value>),
    /// A credential stored in the snapshot itself, clear or sealed.
    Stored(Stored),
    /// A credential to resolve.
    Mapped(Arc<Mapping>),
}

/// One entry of `azure_deployment_config` / `deployments`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Azure's deployment name.
    pub deployment_id: Arc<str>,
    /// `api-version`.
    pub api_version: Option<Arc<str>>,
    /// `azure_model_slug` / `aiModelName`.
    pub model_name: Option<Arc<str>>,
    /// The model name a request uses for it.
    pub alias: Option<Arc<str>>,
    /// Used when no alias matches.
    pub is_default: bool,
}

// === impl Entity ===

impl Entity {
    /// The effective field with this gateway name ([`FieldSpec::name`]).
    pub fn field(&self, name: &str) -> Option<&EntityField> {
        self.fields.iter().find(|field| field.spec.name == name)
    }

    /// Opens every sealed credential that no request opened before.
    ///
    /// # Errors
    /// The first field with one that is of no use, and why.
    pub fn open(&self) -> Result<(), (&'static FieldSpec, Unusable)> {
        self.fields.iter().try_for_each(|field| match &field.value {
            FieldValue::Stored(stored) if stored.is_sealed() => {
                stored.credential().map(drop).map_err(|unusable| (field.spec, unusable))
            }
            FieldValue::Stored(_) | FieldValue::Plain(_) | FieldValue::Mapped(_) => Ok(()),
        })
    }

    /// Whether `workspace` (an id; `None` = none in force) may use the entity with all it depends on.
    pub(super) fn admit(&self, workspace: Option<&str>) -> Result<(), Hidden> {
        if self.is_open {
            return Ok(());
        }
        let integration = self.integration.as_deref().unwrap_or(self);
        let owner = integration.workspace_id.as_deref();
        for place in [workspace, self.workspace_id.as_deref()] {
            let at_home = owner.is_none() || place.is_none() || owner == place;
            if !at_home || !integration.shared_with.admit(place) {
                return Err(Hidden::NotShared);
            }
        }
        let open = self.references().all(|reference| {
            [workspace, self.workspace_id.as_deref(), owner].into_iter().all(|place| reference.workspaces.admit(place))
        });
        if open { Ok(()) } else { Err(Hidden::ReferenceClosed) }
    }

    /// Finds [`Entity::is_open`].
    #[must_use]
    pub(super) fn settled(mut self) -> Self {
        let integration = self.integration.as_deref().unwrap_or(&self);
        self.is_open = integration.workspace_id.is_none()
            && integration.shared_with == Workspaces::All
            && self.references().all(|reference| reference.workspaces == Workspaces::All);
        self
    }

    fn references(&self) -> impl Iterator<Item = &Reference> {
        self.fields.iter().filter_map(|field| match &field.value {
            FieldValue::Mapped(mapping) => Some(&*mapping.reference),
            FieldValue::Plain(_) | FieldValue::Stored(_) => None,
        })
    }
}

impl Named for Entity {
    fn slug(&self) -> &Arc<str> {
        &self.slug
    }
}

// === impl EntityKind ===

impl EntityKind {
    /// The prefix of fields in `target_field`, without the dot, and the member that holds them.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::VirtualKey => "model_config",
            Self::Integration => "configurations",
        }
    }
}
