//! The linked snapshot and its look-ups.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Account, ApiKey, Entity, KeyHash, Lifespan, Problem, Reference,
    api_key::ApiKeys,
    names::{Named, Names},
};

/// An immutable, linked snapshot. Built by [`super::link()`], swapped as a whole, held for the length of a request.
#[derive(Default)]
pub struct Snapshot {
    /// The control plane's version number.
    pub version: u64,
    /// When the control plane made it.
    pub generated_at: Option<OffsetDateTime>,
    /// The organisation everything belongs to.
    pub organisation_id: Arc<str>,
    /// Every usable reference, in document order.
    pub references: Vec<Arc<Reference>>,
    /// Every fault, and what is set aside because of it (empty when strict).
    pub set_aside: Vec<Problem>,
    /// Fields of entities that the gateway has no use for. Accepted, because later versions of a control plane may write
    /// more than this one reads; worth a look, because a misspelt field has no effect either.
    pub ignored: Vec<Problem>,
    /// How many objects are set aside, those that depend on a faulty one included.
    pub objects_set_aside: usize,
    pub(super) workspace_ids: HashMap<Arc<str>, Arc<str>>,
    pub(super) workspace_accounts: HashMap<Arc<str>, Arc<Account>>,
    pub(super) virtual_keys: Names<Entity>,
    pub(super) integrations: Names<Entity>,
    pub(super) configs: Names<StoredConfig>,
    pub(super) linked: HashMap<Arc<str>, LinkedKeys>,
    pub(super) api_keys: ApiKeys,
}

/// `configs[]`: a stored gateway config, named `pc-…`.
pub struct StoredConfig {
    /// Stable id.
    pub id: Arc<str>,
    /// `pc-…`.
    pub slug: Arc<str>,
    /// The workspace it belongs to (id); `None` = organisation-wide.
    pub workspace_id: Option<Arc<str>>,
    /// Usable or not.
    pub lifespan: Lifespan,
    /// The config object as stored. May hold credentials.
    pub config: Value,
    /// Why it was set aside; a request that names it is answered `reference_misconfigured`. Never a secret.
    pub fault: Option<Arc<str>>,
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

/// Where virtual keys, of any status, are linked to one integration.
#[derive(Debug, Default)]
pub(super) struct LinkedKeys {
    organisation: bool,
    workspaces: HashSet<Arc<str>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// The entity that `slug` (without `@`) names for `caller`: a virtual key, else an integration to which no virtual key
    /// is linked in the caller's workspace. Check [`Entity::fault`] and [`Entity::lifespan`] before use.
    ///
    /// # Errors
    /// [`Hidden`]: the reason, for the log; the caller is told only that the name is not valid.
    pub fn entity(&self, slug: &str, caller: &Caller) -> Result<&Arc<Entity>, Hidden> {
        let workspace = caller.workspace.as_deref();
        let entity = match self.virtual_keys.find(slug, workspace) {
            Ok(virtual_key) => virtual_key,
            Err(Hidden::Ambiguous) => return Err(Hidden::Ambiguous),
            Err(no_virtual_key) => match self.integrations.find(slug, workspace) {
                Ok(integration) if self.has_linked_keys(integration, workspace) => return Err(Hidden::Linked),
                Ok(integration) => integration,
                Err(Hidden::Unknown) => return Err(no_virtual_key),
                Err(hidden) => return Err(hidden),
            },
        };
        entity.admit(workspace).map(|()| entity)
    }

    /// The stored config that `slug` (`pc-…`) names for `caller`. Check [`StoredConfig::fault`] and
    /// [`StoredConfig::lifespan`] before use.
    ///
    /// # Errors
    /// [`Hidden`], as for [`Snapshot::entity`].
    pub fn config(&self, slug: &str, caller: &Caller) -> Result<&Arc<StoredConfig>, Hidden> {
        self.configs.find(slug, caller.workspace.as_deref())
    }

    /// Resolves the configured workspace (id or slug) to its id; `None` when the snapshot does not know it.
    pub fn workspace_id(&self, id_or_slug: &str) -> Option<&Arc<str>> {
        self.workspace_ids.get(id_or_slug)
    }

    /// The API key with this keyed hash of its secret, whatever its state. Its [`KeyHash::hmac_sha256`] is to be compared in
    /// constant time before it is believed.
    pub fn api_key(&self, hmac_sha256: &[u8; 32]) -> Option<&KeyHash> {
        self.api_keys.find(hmac_sha256)
    }

    /// Every API key, in document order.
    pub fn api_keys(&self) -> &[Arc<ApiKey>] {
        self.api_keys.keys()
    }

    /// What the workspace with this id may use; `None` = as much as it likes.
    pub fn workspace_account(&self, id: &str) -> Option<&Arc<Account>> {
        self.workspace_accounts.get(id)
    }

    /// Every account, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        let keys = self.api_keys().iter().filter_map(|key| key.account.as_ref());
        let entities = self.virtual_keys.iter().filter_map(|entity| entity.account.as_ref());
        keys.chain(entities).chain(self.workspace_accounts.values())
    }

    /// Every virtual key and integration, in no order.
    pub fn entities(&self) -> impl Iterator<Item = &Arc<Entity>> {
        self.virtual_keys.iter().chain(self.integrations.iter())
    }

    fn has_linked_keys(&self, integration: &Entity, workspace: Option<&str>) -> bool {
        self.linked.get(&integration.id).is_some_and(|keys| match workspace {
            // An organisation-wide key is usable in every workspace, and without one in force all of them are visible.
            Some(workspace) => keys.organisation || keys.workspaces.contains(workspace),
            None => true,
        })
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.version)
            .field("generated_at", &self.generated_at)
            .field("references", &self.references.len())
            .field("set_aside", &self.set_aside.len())
            .finish_non_exhaustive()
    }
}

// === impl LinkedKeys ===

impl LinkedKeys {
    /// Notes a virtual key of `workspace`; `None` = organisation-wide.
    pub(super) fn add(&mut self, workspace: Option<&Arc<str>>) {
        match workspace {
            Some(workspace) => {
                self.workspaces.insert(Arc::clone(workspace));
            }
            None => self.organisation = true,
        }
    }
}

// === impl StoredConfig ===

impl Named for StoredConfig {
    fn slug(&self) -> &Arc<str> {
        &self.slug
    }
}

impl fmt::Debug for StoredConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredConfig").field("id", &self.id).field("slug", &self.slug).finish_non_exhaustive()
    }
}
