//! API keys.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What only an API key has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// What it may do beside its scopes.
    #[serde(default)]
    pub role: Role,
    /// `organisation-service`, `workspace-service` or `workspace-user`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What reads show of the key.
    #[serde(default)]
    pub mask: String,
    /// RFC 3339; `None` = never.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// What a key may do beside its scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything.
    Admin,
    /// What the scopes say.
    #[default]
    Member,
}

// === impl Body ===

impl Body {
    /// When it ends, in milliseconds since 1970.
    pub fn expires_at_millis(&self) -> Option<i64> {
        let end = OffsetDateTime::parse(self.expires_at.as_deref()?, &Rfc3339).ok()?;
        i64::try_from(end.unix_timestamp_nanos() / 1_000_000).ok()
    }
}
