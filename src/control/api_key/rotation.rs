//! `rotation_policy`, and what comes of it.

use serde::{Deserialize, Serialize};

/// When a key gets a new secret by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Again and again.
    pub rotation_period: Option<Period>,
    /// RFC 3339; when it does so next.
    pub next_rotation_at: Option<String>,
    /// How long the secret before stays good, in milliseconds.
    pub key_transition_period_ms: i64,
}

/// How often a key gets a new secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// Mondays, 00:00 UTC.
    Weekly,
    /// The first of a month, 00:00 UTC.
    Monthly,
}
