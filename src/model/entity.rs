//! Entities: what a request may name, with the effective fields after inheritance.

use std::sync::Arc;

use serde_json::Value;

use super::{FieldSpec, Lifespan, Mapping};
use crate::secret::Credential;

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
    /// Usable or not; of the virtual key and of the integration it inherits from together.
    pub lifespan: Lifespan,
    /// Effective fields: own and inherited, mappings and literals, each name once.
    pub fields: Vec<EntityField>,
    /// Azure deployments, in stored order; empty for other providers.
    pub deployments: Vec<Deployment>,
    /// Why it was set aside; a request that names it is answered `reference_misconfigured`. Never a secret.
    pub fault: Option<Arc<str>>,
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
#[derive(Debug)]
pub struct EntityField {
    /// Its row in the field table.
    pub spec: &'static FieldSpec,
    /// Its value.
    pub value: FieldValue,
}

/// Where a field's value comes from.
#[derive(Debug)]
pub enum FieldValue {
    /// A stored value that is no credential: string, number, boolean, array or object.
    Plain(Value),
    /// A credential stored in the snapshot itself.
    Stored(Arc<Credential>),
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
