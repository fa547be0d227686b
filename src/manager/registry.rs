//! From a reference to its manager object: one per identity, bounded, made on first use.

mod settings;

pub use settings::{
    Ambient, AwsSettings, AzureSettings, Environment, FileSettings, GcpSettings, RegistrySettings, VaultSettings,
};

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

#[cfg(feature = "azure")]
use super::azure_kv;
#[cfg(feature = "gcp")]
use super::gcp_sm;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
use super::session::LoginObserver;
#[cfg(feature = "vault")]
use super::vault;
use super::{
    FailureClass, FetchError, Managers, SecretManager,
    file::Files,
    guard::{Guarded, Purses},
};
#[cfg(feature = "aws")]
use super::{aws, aws_sm, aws_ssm};
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
use crate::metric::FetchLabels;
use crate::{
    egress::{Lookup, SystemLookup, Transport},
    metric::Metrics,
    model::{AuthConfig, Identity, ManagerType, Reference, SecretLocation},
};

/// Manager objects kept at once; the one unused for the longest goes first. An object holds a login and a few strings.
const MAX_OBJECTS: usize = 10_000;

/// An object that nobody asked for is dropped after this, and with it its login and renewals: a rotated credential is a new
/// object, the old one just falls out of use.
const MAX_IDLE: Duration = Duration::from_secs(3600);

/// How often, at most, unused objects are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// Makes and keeps manager objects.
pub struct Registry {
    settings: RegistrySettings,
    metrics: Arc<Metrics>,
    purses: Arc<Purses>,
    files: Option<Arc<Files>>,
    #[cfg(feature = "aws")]
    aws_sm: Arc<aws_sm::Service>,
    #[cfg(feature = "aws")]
    aws_ssm: Arc<aws_ssm::Service>,
    #[cfg(feature = "gcp")]
    google: Arc<Transport>,
    #[cfg(feature = "azure")]
    azure: Arc<Transport>,
    #[cfg(feature = "vault")]
    vault: Arc<Transport>,
    objects: Mutex<Objects>,
}

struct Objects {
    by_identity: HashMap<Identity, Object>,
    swept_at: Instant,
}

struct Object {
    manager: Arc<dyn SecretManager>,
    used_at: Instant,
}

// === impl Registry ===

impl Registry {
    /// A registry without any object yet. Reads CA files; call it at start.
    ///
    /// # Errors
    /// A message for people when a CA file or the root cannot be used.
    pub fn new(settings: RegistrySettings, metrics: Arc<Metrics>) -> Result<Self, String> {
        Self::with_lookup(settings, metrics, Arc::new(SystemLookup::default()))
    }

    /// [`Registry::new`] with a resolver of one's own.
    ///
    /// # Errors
    /// As [`Registry::new`].
    #[cfg_attr(
        not(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault")),
        expect(unused_variables, reason = "no manager of this build connects anywhere")
    )]
    pub fn with_lookup(
        settings: RegistrySettings,
        metrics: Arc<Metrics>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, String> {
        let files = settings.file.root.as_deref().map(Files::open).transpose().map_err(|error| chain(&error))?;
        let transport = |ca_file: &Option<PathBuf>| {
            let ca_files = settings.extra_ca_files.iter().chain(ca_file).cloned().collect();
            let (policy, patience) = (settings.policy.clone(), settings.bounds.attempt_timeout);
            Transport::with_lookup(policy, ca_files, patience, Arc::clone(&lookup))
                .map(Arc::new)
                .map_err(|error| chain(&error))
        };
        #[cfg(feature = "aws")]
        let (aws_sm, aws_ssm) = {
            let transport = transport(&None)?;
            let identities = |service, manager| {
                let observer = observer(manager, &metrics);
                aws::Identities::new(service, &settings.aws, &settings.bounds, &transport, observer)
            };
            let secrets = identities(aws::Service::SecretsManager, ManagerType::AwsSm);
            let parameters = identities(aws::Service::ParameterStore, ManagerType::AwsSsm);
            (Arc::new(aws_sm::Service::new(secrets)), Arc::new(aws_ssm::Service::new(parameters)))
        };
        #[cfg(feature = "gcp")]
        let google = transport(&None)?;
        #[cfg(feature = "azure")]
        let azure = transport(&settings.azure.ca_file)?;
        #[cfg(feature = "vault")]
        let vault = transport(&settings.vault.ca_file)?;
        let objects = Mutex::new(Objects { by_identity: HashMap::new(), swept_at: Instant::now() });
        Ok(Self {
            settings,
            metrics,
            purses: Arc::default(),
            files: files.map(Arc::new),
            #[cfg(feature = "aws")]
            aws_sm,
            #[cfg(feature = "aws")]
            aws_ssm,
            #[cfg(feature = "gcp")]
            google,
            #[cfg(feature = "azure")]
            azure,
            #[cfg(feature = "vault")]
            vault,
            objects,
        })
    }

    /// Whether a reference of this shape can and may be used here; what [`crate::model::LinkRules::admit`] asks. Without a
    /// location, what can be told without one.
    ///
    /// # Errors
    /// A reason for people, naming the setting that would change it.
    pub fn admit(
        &self,
        manager: ManagerType,
        auth: &AuthConfig,
        location: Option<&SecretLocation>,
    ) -> Result<(), String> {
        match (manager, auth) {
            #[cfg(feature = "aws")]
            (ManagerType::AwsSm, AuthConfig::Aws(auth)) => self.aws_sm.admit(auth, location),
            #[cfg(feature = "aws")]
            (ManagerType::AwsSsm, AuthConfig::Aws(auth)) => self.aws_ssm.admit(auth, location),
            #[cfg(feature = "gcp")]
            (ManagerType::GcpSm, AuthConfig::Gcp(auth)) => gcp_sm::admit(auth, location, &self.settings.gcp),
            #[cfg(feature = "vault")]
            (ManagerType::HashicorpVault, AuthConfig::Vault(auth)) => {
                vault::admit(auth, location, &self.settings.vault, &self.vault)
            }
            #[cfg(feature = "azure")]
            (ManagerType::AzureKv, AuthConfig::Azure(auth)) => {
                azure_kv::admit(auth, location, &self.settings.azure, self.azure.policy())
            }
            (ManagerType::File, AuthConfig::File) => {
                let files = self.files.as_ref().ok_or("the file manager is off; set managers.file.root")?;
                let Some(location) = location else { return Ok(()) };
                self.settings.file.ambient.check(&location.path, "managers.file")?;
                files.admit(location)
            }
            (manager, _) => Err(format!("this build has no manager {}", manager.as_str())),
        }
    }

    /// Opens what is sealed of the reference's `auth_config`, and makes the object that logs in with it.
    fn make(&self, reference: &Reference) -> Result<Arc<dyn SecretManager>, FetchError> {
        let auth = reference.auth.open().map_err(|error| misfit(error.to_string()))?;
        if reference.auth.is_sealed() {
            // What was sealed could not be judged before.
            self.admit(reference.manager_type, &auth, Some(&reference.location)).map_err(misfit)?;
        }
        let inner: Arc<dyn SecretManager> = match &*auth {
            #[cfg(feature = "aws")]
            AuthConfig::Aws(auth) if reference.manager_type == ManagerType::AwsSm => {
                Arc::new(aws_sm::SecretsManager::new(auth, &self.aws_sm)?)
            }
            #[cfg(feature = "aws")]
            AuthConfig::Aws(auth) => Arc::new(aws_ssm::ParameterStore::new(auth, &self.aws_ssm)?),
            #[cfg(feature = "gcp")]
            AuthConfig::Gcp(auth) => {
                let (settings, observer) = (&self.settings, observer(reference.manager_type, &self.metrics));
                Arc::new(gcp_sm::GcpSm::new(auth, &settings.gcp, &settings.bounds, &self.google, observer)?)
            }
            #[cfg(feature = "vault")]
            AuthConfig::Vault(auth) => {
                let settings = &self.settings;
                Arc::new(vault::Vault::new(
                    auth,
                    &settings.vault,
                    &settings.bounds,
                    &self.vault,
                    observer(reference.manager_type, &self.metrics),
                )?)
            }
            #[cfg(feature = "azure")]
            AuthConfig::Azure(auth) => {
                let (azure, bounds) = (&self.settings.azure, &self.settings.bounds);
                Arc::new(azure_kv::KeyVault::new(
                    auth,
                    azure,
                    bounds,
                    &self.azure,
                    observer(reference.manager_type, &self.metrics),
                )?)
            }
            AuthConfig::File => match &self.files {
                Some(files) => Arc::clone(files) as _,
                None => return Err(misfit("the file manager is off".to_owned())),
            },
            #[allow(unreachable_patterns, reason = "what a build lacks is the choice of its features")]
            AuthConfig::Aws(_) | AuthConfig::Azure(_) | AuthConfig::Gcp(_) | AuthConfig::Vault(_) => {
                return Err(misfit(format!("this build has no manager {}", reference.manager_type.as_str())));
            }
        };
        let metrics = Arc::clone(&self.metrics);
        let bounds = &self.settings.bounds;
        Ok(Arc::new(Guarded::new(inner, reference.manager_type, bounds, &self.purses, metrics)))
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Managers for Registry {
    fn manager(&self, reference: &Reference) -> Result<Arc<dyn SecretManager>, FetchError> {
        // Admitted when the snapshot was loaded; asked again because an object serves every path of its identity.
        self.admit(reference.manager_type, reference.auth.shape(), Some(&reference.location)).map_err(misfit)?;
        let now = Instant::now();
        let mut objects = self.objects();
        let dropped = objects.sweep(now);
        let manager = match objects.by_identity.get_mut(&reference.identity) {
            Some(object) => {
                object.used_at = now;
                Arc::clone(&object.manager)
            }
            None => {
                let manager = self.make(reference)?;
                objects.insert(reference.identity, Object { manager: Arc::clone(&manager), used_at: now });
                manager
            }
        };
        drop(objects);
        // Objects end their logins when dropped; not under the lock.
        drop(dropped);
        Ok(manager)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl Objects ===

impl Objects {
    fn sweep(&mut self, now: Instant) -> Vec<Object> {
        if now.duration_since(self.swept_at) < SWEEP {
            return Vec::new();
        }
        self.swept_at = now;
        let idle = |object: &mut Object| now.duration_since(object.used_at) >= MAX_IDLE;
        self.by_identity.extract_if(|_, object| idle(object)).map(|(_, object)| object).collect()
    }

    fn insert(&mut self, identity: Identity, object: Object) {
        if self.by_identity.len() >= MAX_OBJECTS {
            let oldest =
                self.by_identity.iter().min_by_key(|(_, object)| object.used_at).map(|(identity, _)| *identity);
            oldest.and_then(|oldest| self.by_identity.remove(&oldest));
        }
        self.by_identity.insert(identity, object);
    }
}

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
fn observer(manager: ManagerType, metrics: &Arc<Metrics>) -> LoginObserver {
    let (metrics, manager) = (Arc::clone(metrics), manager.as_str());
    Box::new(move |failure| {
        let class = failure.map_or("ok", FailureClass::as_str);
        metrics.logins.get_or_create(&FetchLabels { manager, class }).inc();
    })
}

fn misfit(reason: String) -> FetchError {
    FetchError::new(FailureClass::Misconfigured).with_source(reason)
}

/// `error` with its causes, for a message at start.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
