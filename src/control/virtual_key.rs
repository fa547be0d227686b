//! `/virtual-keys`: what requests name, `@slug`. Portkey calls the same a provider since it has integrations.
//!
//! One row, two views: [`super::provider`] shows what is linked to an integration, this file what may stand alone, with
//! credentials of its own. Either may be written through both.

use serde::{Deserialize, Serialize};

use super::{
    limits::{RateLimit, UsageLimit},
    mapping, provider_fields,
    provider_fields::ProviderFields,
    sealing::Fed,
    store::Object,
};

/// What only a virtual key has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Id of the provider: its own, or its integration's.
    pub provider: String,
    /// Id of the integration it inherits from; `None` = it stands alone.
    pub integration_id: Option<String>,
    /// Whether it was made with its integration, and nobody has changed it since. It goes with it, then.
    #[serde(default)]
    pub is_default: bool,
    /// For people.
    pub note: Option<String>,
    /// Credentials and what else the provider needs.
    pub fields: ProviderFields,
    /// Kept and shown.
    #[serde(default)]
    pub usage_limits: Option<UsageLimit>,
    /// Kept and shown.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// When somebody last had the use of it counted from 0, in milliseconds since 1970.
    #[serde(default)]
    pub usage_reset_at: Option<i64>,
    /// RFC 3339; `None` = never.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// `virtual_keys[]` of a snapshot.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: &'a str,
    slug: &'a str,
    integration_id: Option<&'a str>,
    provider: Option<&'a str>,
    workspace_id: Option<&'a str>,
    status: &'a str,
    expires_at: Option<&'a str>,
    key: Option<Fed<'a>>,
    #[serde(serialize_with = "provider_fields::feed")]
    model_config: &'a ProviderFields,
    secret_mappings: Vec<mapping::Row<'a>>,
}

// === impl Body ===

impl Body {
    /// Its row of a snapshot.
    pub fn snapshot_row<'a>(&'a self, object: &'a Object) -> Row<'a> {
        let integration_id = self.integration_id.as_deref();
        Row {
            id: &object.id,
            slug: &object.slug,
            integration_id,
            // What is linked has the provider of its integration.
            provider: integration_id.is_none().then_some(self.provider.as_str()),
            workspace_id: Some(object.workspace_id.as_str()).filter(|id| !id.is_empty()),
            status: &object.status,
            expires_at: self.expires_at.as_deref(),
            key: self.fields.fed_key(),
            model_config: &self.fields,
            secret_mappings: self.fields.fed_mappings(),
        }
    }
}
