//! The linked snapshot and its look-ups.

use std::sync::Arc;

use serde_json::Value;

use super::{Entity, Problem, Reference};

/// An immutable, linked snapshot. Built by [`super::link()`], swapped as a whole, held for the length of a request.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The control plane's version number.
    pub version: u64,
    /// When the control plane made it, as written.
    pub generated_at: Option<Arc<str>>,
    /// The organisation everything belongs to.
    pub organisation_id: Arc<str>,
    /// Every usable reference.
    pub references: Vec<Arc<Reference>>,
    /// What was set aside (empty when strict).
    pub set_aside: Vec<Problem>,
}

/// `configs[]`: a stored gateway config, named `pc-…`.
#[derive(Debug)]
pub struct StoredConfig {
    /// Stable id.
    pub id: Arc<str>,
    /// `pc-…`.
    pub slug: Arc<str>,
    /// The workspace it belongs to (id); `None` = organisation-wide.
    pub workspace_id: Option<Arc<str>>,
    /// The config object as stored.
    pub config: Value,
}

/// On whose behalf a request is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Id of the workspace in force; `None` = none.
    pub workspace: Option<Arc<str>>,
}

/// Why a name was not found. For logs only: every reason is answered alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hidden {
    /// Nothing has this name.
    #[error("no such name")]
    Unknown,
    /// It belongs to another workspace.
    #[error("it belongs to another workspace")]
    OtherWorkspace,
    /// The integration is not shared with the caller's workspace.
    #[error("the integration is not shared with the workspace")]
    NotShared,
    /// A secret reference is closed to the workspace of the caller or of the entity.
    #[error("a secret reference is closed to the workspace")]
    ReferenceClosed,
    /// Several workspaces have the name and none is in force.
    #[error("several workspaces have this name and none is in force")]
    Ambiguous,
    /// An integration's slug, while virtual keys are linked to it.
    #[error("virtual keys are linked to the integration, name one of them")]
    Linked,
}

// === impl Snapshot ===

impl Snapshot {
    /// The entity that `slug` (without `@`) names for `caller`.
    ///
    /// # Errors
    /// [`Hidden`]: the reason, for the log; the caller is told only that the name is not valid.
    pub fn entity(&self, slug: &str, caller: &Caller) -> Result<&Arc<Entity>, Hidden> {
        let _ = (slug, caller);
        Err(Hidden::Unknown)
    }

    /// The stored config that `slug` (`pc-…`) names for `caller`.
    ///
    /// # Errors
    /// [`Hidden`], as for [`Snapshot::entity`].
    pub fn config(&self, slug: &str, caller: &Caller) -> Result<&Arc<StoredConfig>, Hidden> {
        let _ = (slug, caller);
        Err(Hidden::Unknown)
    }

    /// Resolves the configured workspace (id or slug) to its id; `None` when the snapshot does not know it.
    pub fn workspace_id(&self, id_or_slug: &str) -> Option<&Arc<str>> {
        let _ = id_or_slug;
        None
    }
}
