//! `/configs`: stored configs, by which requests say where they go.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::store::Object;

/// What only a config has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The config, as JSON text.
    pub config: String,
    /// Whether people's tools offer it first.
    #[serde(default)]
    pub is_default: bool,
    /// Id of the revision that is in force.
    #[serde(default)]
    pub version_id: String,
    /// Id of who changed it last.
    #[serde(default)]
    pub updated_by: String,
}

// === impl Body ===

impl Body {
    /// Its row of a snapshot.
    pub fn snapshot_row(&self, object: &Object) -> Value {
        json!({
            "id": object.id,
            "slug": object.slug,
            "workspace_id": Some(&object.workspace_id).filter(|id| !id.is_empty()),
            "status": object.status,
            "config": self.value(),
        })
    }

    /// The config itself.
    fn value(&self) -> Value {
        serde_json::from_str(&self.config).unwrap_or_default()
    }
}
