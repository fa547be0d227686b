//! `defaults` of an API key: what its requests start from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::KeyType;
use crate::control::{
    config,
    fields::{Fields, Given, Length},
    slug,
    store::{Kind, StoreError, Tenant},
    workspace,
};

/// Largest `metadata`, in bytes of JSON: it travels in a header of each request.
const MAX_METADATA: usize = 4096;

/// What the requests of a key start from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// Joined with that of each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Slug of the config for requests that bring none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_id: Option<String>,
    /// Whether a request may bring its own; `None` = it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_config_override: Option<bool>,
}

// === impl Defaults ===

impl Defaults {
    /// Takes over what is given, field by field; `null` for all of it clears all of it.
    pub(super) async fn take(
        &mut self,
        fields: &mut Fields<'_>,
        tenant: &mut Tenant,
        workspace_id: &str,
    ) -> Result<(), StoreError> {
        let mut given = match fields.object("defaults") {
            Given::Value(given) => given,
            Given::Null => {
                *self = Self::default();
                return Ok(());
            }
            Given::Absent => return Ok(()),
        };
        given.typed("metadata", "must be an object, or null").set(&mut self.metadata);
        let bytes = self.metadata.as_ref().map(|metadata| json!(metadata).to_string().len());
        if bytes.is_some_and(|bytes| bytes > MAX_METADATA) {
            given.fault("metadata", format_args!("must be {MAX_METADATA} bytes of JSON at most"));
        }
        given.flag("allow_config_override").set(&mut self.allow_config_override);
        given.text("config_id", Length(0, slug::MAX)).set(&mut self.config_id);
        self.config_id = self.config_id.take().filter(|name| !name.is_empty());
        if let Some(name) = &self.config_id {
            match config::reached(tenant, name, workspace_id).await? {
                Some(config) => self.config_id = Some(config.slug),
                None => given.fault("config_id", "names no config that this key may use"),
            }
        }
        fields.absorb(given);
        Ok(())
    }

    /// Id of the config that is named, which cannot be removed while it is.
    pub(super) async fn uses(
        &self,
        tenant: &mut Tenant,
        workspace_id: &str,
    ) -> Result<Vec<(Kind, String)>, StoreError> {
        let Some(name) = &self.config_id else { return Ok(Vec::new()) };
        let config = config::reached(tenant, name, workspace_id).await?;
        Ok(config.into_iter().map(|config| (Kind::Config, config.id)).collect())
    }

    /// As a data plane reads it, on top of what the keys of the workspace start from: its metadata beats the key's, its
    /// config is for users' keys that name none.
    pub(super) fn snapshot_member(&self, kind: KeyType, workspace: Option<&workspace::Defaults>) -> Value {
        let mut metadata = self.metadata.clone().unwrap_or_default();
        for (name, value) in workspace.and_then(|defaults| defaults.metadata.as_ref()).into_iter().flatten() {
            metadata.insert(name.clone(), Value::from(value.as_str()));
        }
        let of_workspace = workspace.and_then(|defaults| defaults.user_api_key_config.as_ref());
        let of_workspace = of_workspace.filter(|_| kind == KeyType::WorkspaceUser);
        json!({
            "metadata": metadata,
            "config_id": self.config_id.as_ref().or(of_workspace),
            "allow_config_override": self.allow_config_override.unwrap_or(true),
        })
    }
}
