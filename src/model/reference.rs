//! Secret references: where a secret lies, who may use it, and how long it may be kept.

use std::{fmt, sync::Arc, time::Duration};

use super::{Auth, Lifespan, ManagerType, SecretLocation};

/// A linked `secret_references` entry.
#[derive(Debug)]
pub struct Reference {
    /// Stable id.
    pub id: Arc<str>,
    /// Name for people; what logs print.
    pub slug: Arc<str>,
    /// Which manager stores the secret.
    pub manager_type: ManagerType,
    /// How Sidekey authenticates there.
    pub auth: Auth,
    /// Fingerprint of manager type and the *whole* `auth_config`: references that share it share logins and cached documents.
    pub identity: Identity,
    /// Path and version.
    pub location: SecretLocation,
    /// `secret_key`: which member of the secret is meant where a mapping names none. Mappings carry the effective key; this
    /// one is for reads without a mapping (`check --resolve`).
    pub secret_key: Option<Arc<str>>,
    /// `ttl_secs`: soft lifetime of its own; `None` = `cache.ttl_secs`.
    pub ttl: Option<Duration>,
    /// Usable or not. Entities that map it carry it in their own [`super::Entity::lifespan`] already.
    pub lifespan: Lifespan,
    /// Which workspaces may use it.
    pub workspaces: Workspaces,
    /// Providers it may be used for (ours); empty = any.
    pub allowed_providers: Box<[Arc<str>]>,
    /// Hosts it may be sent to (ours); exact, or a suffix with a leading dot; empty = any.
    pub allowed_hosts: Box<[Arc<str>]>,
}

/// SHA-256 over manager type and the whole `auth_config`. Never printed: it covers low-entropy secrets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 32]);

/// `allow_all_workspaces` / `allowed_workspaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workspaces {
    /// Every workspace of the organisation.
    All,
    /// Only these workspace ids, sorted.
    Only(Box<[Arc<str>]>),
}

// === impl Identity ===

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(<redacted>)")
    }
}

// === impl Workspaces ===

impl Workspaces {
    /// Whether `workspace` (an id; `None` = no workspace in force) may use the object.
    pub fn admit(&self, workspace: Option<&str>) -> bool {
        match (self, workspace) {
            (Self::All, _) | (Self::Only(_), None) => true,
            (Self::Only(ids), Some(workspace)) => ids.binary_search_by(|id| (**id).cmp(workspace)).is_ok(),
        }
    }
}
