//! `/api-keys`: who a client is, what it may do, and how much of it.
//!
//! The secret of a key is shown once, in the answer that made it; only keyed hashes are kept. A caller gives no key more
//! than it has itself, and a person's key manages no keys. Ours beside Portkey's fields: `sealed_key` (see [`rotation`]).

mod defaults;
mod rotation;

pub use defaults::Defaults;
pub use rotation::Policy;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    answer::instant,
    limits::{RateLimit, UsageLimit},
    sealing::Sealed,
    store::{Hash, Object},
    workspace,
};

/// What only an API key has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// What it may do beside its scopes.
    #[serde(default)]
    pub role: Role,
    /// Whose it is.
    #[serde(default, rename = "type")]
    pub kind: KeyType,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What reads show of the key.
    #[serde(default)]
    pub mask: String,
    /// RFC 3339; `None` = never.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Who holds it, if it is a person's.
    #[serde(default)]
    pub user_id: Option<String>,
    /// How much per time.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// How much per period.
    #[serde(default)]
    pub usage_limits: Vec<UsageLimit>,
    /// What its requests start from.
    #[serde(default)]
    pub defaults: Defaults,
    /// Who is told of its alerts.
    #[serde(default)]
    pub alert_emails: Vec<String>,
    /// When it gets a new secret by itself.
    #[serde(default)]
    pub rotation_policy: Option<Policy>,
    /// When it got its secret, in milliseconds since 1970; 0 = when it was made.
    #[serde(default)]
    pub last_rotated_at: i64,
    /// When the secret before ends, in milliseconds since 1970; 0 = there was none.
    #[serde(default)]
    pub transition_ends_at: i64,
    /// A secret that was made when nobody was there to be shown it.
    #[serde(default)]
    pub sealed_key: Option<Sealed>,
    /// From when on its usage counts, in milliseconds since 1970; 0 = since it was made.
    #[serde(default)]
    pub usage_reset_at: i64,
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

/// Whose a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// A service of the organisation.
    #[default]
    OrganisationService,
    /// A service of a workspace.
    WorkspaceService,
    /// A person in a workspace.
    WorkspaceUser,
}

// === impl Body ===

impl Body {
    /// When it ends, in milliseconds since 1970.
    pub fn expires_at_millis(&self) -> Option<i64> {
        millis(self.expires_at.as_deref()?)
    }

    /// Its row of a snapshot. `hashes` are those of `object`; `workspace` is what the keys of its workspace start from.
    pub fn snapshot_row(&self, object: &Object, hashes: &[Hash], workspace: Option<&workspace::Defaults>) -> Value {
        let hash = |Hash { kid, hash, expires_at, .. }: &Hash| {
            let expires_at = (*expires_at != 0).then(|| instant(*expires_at));
            json!({ "kid": kid, "hmac_sha256": hash, "expires_at": expires_at })
        };
        let mut row = json!({
            "id": object.id,
            "workspace_id": Some(&object.workspace_id).filter(|id| !id.is_empty()),
            "scopes": self.scopes,
            "status": object.status,
            "expires_at": self.expires_at,
            "defaults": self.defaults.snapshot_member(self.kind, workspace),
            "hashes": hashes.iter().map(hash).collect::<Vec<_>>(),
            "rate_limits": self.rate_limits,
            "usage_limits": Some(&self.usage_limits).filter(|limits| !limits.is_empty()),
        });
        if self.usage_reset_at != 0 {
            row["usage_reset_at"] = instant(self.usage_reset_at).into();
        }
        if !self.alert_emails.is_empty() {
            row["alert_emails"] = json!(self.alert_emails);
        }
        row
    }
}

// === impl KeyType ===

impl KeyType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::OrganisationService, Self::WorkspaceService, Self::WorkspaceUser];

    /// Its spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrganisationService => "organisation-service",
            Self::WorkspaceService => "workspace-service",
            Self::WorkspaceUser => "workspace-user",
        }
    }
}

/// Milliseconds since 1970 of a time of RFC 3339.
fn millis(text: &str) -> Option<i64> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(instant.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests;
