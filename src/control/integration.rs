//! `/integrations`: the credentials of a provider, shared with workspaces.
//!
//! Shapes and rules of Portkey's admin API. One of a workspace is that workspace's alone; one of the organisation is open to
//! the workspaces that were let in ([`access`]). Requests name an integration through a virtual key, and so the first
//! one may be made with it. The credentials are sealed on arrival and shown as masks.

pub mod access;
pub mod model;
mod pricing;

use serde::{Deserialize, Serialize};

use self::{access::Access, model::Models, pricing::Pricing};
use super::{mapping, provider_fields, provider_fields::ProviderFields, sealing::Fed, store::Object};

/// What only an integration has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Id of the provider.
    pub ai_provider_id: String,
    /// For people.
    pub description: Option<String>,
    /// Credentials and what else the provider needs.
    pub fields: ProviderFields,
    /// Who may use one of the organisation.
    pub access: Access,
    /// Which models may be used. Kept and shown; no data plane asks.
    pub models: Models,
    /// Kept and shown; no data plane asks.
    pub pricing_adjustments: Option<Pricing>,
}

/// `integrations[]` of a snapshot.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: &'a str,
    slug: &'a str,
    ai_provider_id: &'a str,
    workspace_id: Option<&'a str>,
    status: &'a str,
    key: Option<Fed<'a>>,
    #[serde(serialize_with = "provider_fields::feed")]
    configurations: &'a ProviderFields,
    allow_all_workspaces: bool,
    allowed_workspaces: Vec<&'a str>,
    secret_mappings: Vec<mapping::Row<'a>>,
}

// === impl Body ===

impl Body {
    /// Its row of a snapshot.
    pub fn snapshot_row<'a>(&'a self, object: &'a Object) -> Row<'a> {
        let workspace_id = Some(object.workspace_id.as_str()).filter(|id| !id.is_empty());
        Row {
            id: &object.id,
            slug: &object.slug,
            ai_provider_id: &self.ai_provider_id,
            workspace_id,
            status: &object.status,
            key: self.fields.fed_key(),
            configurations: &self.fields,
            // Its own workspace needs no leave.
            allow_all_workspaces: workspace_id.is_some(),
            allowed_workspaces: if workspace_id.is_some() { Vec::new() } else { self.access.open_to().collect() },
            secret_mappings: self.fields.fed_mappings(),
        }
    }

    /// Whether `workspace_id` may use it; every workspace, for an organisation's key.
    pub fn is_open_to(&self, object: &Object, workspace_id: &str) -> bool {
        match (object.workspace_id.as_str(), workspace_id) {
            (_, "") => true,
            ("", workspace) => self.access.open_to().any(|open| open == workspace),
            (owner, workspace) => owner == workspace,
        }
    }
}
