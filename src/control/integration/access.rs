//! `/integrations/{slug}/workspaces`: which workspaces may use an integration of the organisation, and how much.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::limits::{RateLimit, UsageLimit};

/// Who may use an integration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Access {
    /// What new workspaces start with.
    #[serde(default)]
    pub global: Option<Settings>,
    /// What was set for a workspace, by its id.
    #[serde(default)]
    pub workspaces: BTreeMap<String, Settings>,
}

/// What one workspace may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether it may use the integration.
    pub enabled: bool,
    /// Kept and shown.
    #[serde(default)]
    pub usage_limits: Vec<UsageLimit>,
    /// Kept and shown.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
}

// === impl Access ===

impl Access {
    /// Ids of the workspaces that may use it, in order.
    pub fn open_to(&self) -> impl Iterator<Item = &str> {
        self.workspaces.iter().filter(|(_, settings)| settings.enabled).map(|(id, _)| id.as_str())
    }
}
