//! From a reference to its manager object: one per identity, bounded, made on first use.

use std::{path::PathBuf, sync::Arc};

use super::{FailureClass, FetchError, Managers, SecretManager, Settings};
use crate::{
    egress::Policy,
    metric::Metrics,
    model::{AuthConfig, ManagerType, Reference, SecretLocation},
};

/// `managers.*` and what managers need of `egress.*`.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Bounds that hold for every manager.
    pub bounds: Settings,
    /// `managers.vault.*`.
    pub vault: VaultSettings,
    /// `managers.file.*`.
    pub file: FileSettings,
    /// Where managers may connect.
    pub policy: Policy,
    /// `egress.extra_ca_files`: trusted beside the system's roots, for every manager.
    pub extra_ca_files: Vec<PathBuf>,
}

/// `managers.vault.*`.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// `ca_file`: trusted beside the system's roots; re-read when it changes.
    pub ca_file: Option<PathBuf>,
    /// `kubernetes_jwt_file`: re-read at each login.
    pub kubernetes_jwt_file: PathBuf,
    /// `approle_mount`.
    pub approle_mount: String,
    /// `kubernetes_mount`.
    pub kubernetes_mount: String,
    /// `kubernetes_allow_addrs`: base URLs the service-account token may be sent to; empty = what `egress.allow_*` opens.
    pub kubernetes_allow_addrs: Vec<String>,
    /// `ambient`, `ambient_paths`: whether and where references may use the sidecar's own Kubernetes identity.
    pub ambient: Ambient,
}

/// `managers.file.*`.
#[derive(Clone, Debug, Default)]
pub struct FileSettings {
    /// `root`: directory of `file` references; `None` = the manager is off.
    pub root: Option<PathBuf>,
    /// `ambient`, `ambient_paths`.
    pub ambient: Ambient,
}

/// Whether references may use the sidecar's own identity at a manager.
#[derive(Clone, Debug)]
pub struct Ambient {
    /// `ambient`.
    pub allowed: bool,
    /// `ambient_paths`: prefixes of `secret_path`; empty = all.
    pub paths: Vec<String>,
}

/// Makes and keeps manager objects.
#[derive(Debug)]
pub struct Registry {
    settings: RegistrySettings,
    metrics: Arc<Metrics>,
}

// === impl Registry ===

impl Registry {
    /// A registry without any object yet.
    ///
    /// # Errors
    /// A message for people when a CA file or the root cannot be used.
    pub fn new(settings: RegistrySettings, metrics: Arc<Metrics>) -> Result<Self, String> {
        Ok(Self { settings, metrics })
    }

    /// Whether a reference of this shape can and may be used here; what [`crate::model::LinkRules::admit`] asks.
    ///
    /// # Errors
    /// A reason for people, naming the setting that would change it.
    pub fn admit(&self, manager: ManagerType, auth: &AuthConfig, location: &SecretLocation) -> Result<(), String> {
        let _ = (manager, auth, location, &self.settings, &self.metrics);
        Ok(())
    }
}

impl Managers for Registry {
    fn manager(&self, reference: &Reference) -> Result<Arc<dyn SecretManager>, FetchError> {
        let _ = reference;
        Err(FetchError::new(FailureClass::Misconfigured))
    }
}

// === impl Ambient ===

impl Default for Ambient {
    fn default() -> Self {
        Self { allowed: true, paths: Vec::new() }
    }
}
