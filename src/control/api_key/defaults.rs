//! `defaults` of an API key: what its requests start from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::KeyType;
use crate::control::workspace;

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
