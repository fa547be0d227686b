//! `managers.*`: what the registry is built with, and whether references may use the sidecar's own identity.

use std::{env, fmt, path::PathBuf, sync::Arc};

use url::Url;

use crate::{egress::Policy, manager::Settings};

/// `managers.*` and what managers need of `egress.*`.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Bounds that hold for every manager.
    pub bounds: Settings,
    /// `managers.aws.*`, for `aws_sm` and `aws_ssm`.
    pub aws: AwsSettings,
    /// `managers.azure.*`.
    pub azure: AzureSettings,
    /// `managers.gcp.*`.
    pub gcp: GcpSettings,
    /// `managers.vault.*`.
    pub vault: VaultSettings,
    /// `managers.file.*`.
    pub file: FileSettings,
    /// Where managers may connect.
    pub policy: Policy,
    /// `egress.extra_ca_files`: trusted beside the system's roots, for every manager.
    pub extra_ca_files: Vec<PathBuf>,
}

/// `managers.aws.*`. The addresses are the operator's: the egress policy does not judge them.
#[derive(Clone, Debug, Default)]
pub struct AwsSettings {
    /// `endpoint_url`: where Secrets Manager and the Parameter Store are asked instead of the regional endpoints.
    pub endpoint_url: Option<Url>,
    /// `sts_endpoint_url`: where roles are assumed instead of the regional STS endpoint.
    pub sts_endpoint_url: Option<Url>,
    /// `region`: for references that name none, neither by `aws_region` nor by an ARN.
    pub region: Option<String>,
    /// `external_id`: sent with every assumed role; a reference that names another one is refused.
    pub external_id: Option<String>,
    /// `use_fips`: FIPS endpoints.
    pub use_fips: bool,
    /// `use_dual_stack`: endpoints with IPv6.
    pub use_dual_stack: bool,
    /// `managers.aws_sm.ambient`, `.ambient_paths`.
    pub ambient_sm: Ambient,
    /// `managers.aws_ssm.ambient`, `.ambient_paths`.
    pub ambient_ssm: Ambient,
    /// What the sidecar's own identity is found by.
    pub environment: Environment,
}

/// Environment variables that cloud identities are found by (`AWS_…`, `GOOGLE_…`). Empty by default, so that nothing depends
/// on where a test runs.
#[derive(Clone)]
pub enum Environment {
    /// This process's own.
    Process,
    /// These and no others, by name.
    Fixed(Arc<[(String, String)]>),
}

/// `managers.azure.*`.
#[derive(Clone, Debug, Default)]
pub struct AzureSettings {
    /// `authority_host`: where Entra tokens are asked for instead of the vault's cloud; the operator's, as in
    /// [`AwsSettings`].
    pub authority_host: Option<Url>,
    /// `ca_file`: trusted beside the system's roots; re-read when it changes.
    pub ca_file: Option<PathBuf>,
    /// `managers.azure_kv.ambient`, `.ambient_paths`.
    pub ambient: Ambient,
}

/// `managers.gcp.*`. The addresses are the operator's, as in [`AwsSettings`].
#[derive(Clone, Debug, Default)]
pub struct GcpSettings {
    /// `endpoint_url`: where Secret Manager is asked instead of its global or regional endpoint.
    pub endpoint_url: Option<Url>,
    /// `token_url`: where service-account keys are exchanged instead of `https://oauth2.googleapis.com/token`.
    pub token_url: Option<Url>,
    /// `managers.gcp_sm.ambient`, `.ambient_paths`.
    pub ambient: Ambient,
    /// What the sidecar's own identity is found by.
    pub environment: Environment,
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

// === impl Environment ===

impl Environment {
    /// These variables and no others.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self::Fixed(variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    /// A variable without outer white space; an empty one counts as unset, as in the SDKs of the clouds.
    pub fn get(&self, name: &str) -> Option<String> {
        let value = match self {
            Self::Process => env::var(name).ok(),
            Self::Fixed(variables) => variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()),
        };
        value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It holds secrets.
        f.write_str("Environment")
    }
}

// === impl Ambient ===

impl Ambient {
    /// Whether a reference to `path` may use the sidecar's own identity. Prefixes are compared as typed, segment by segment.
    ///
    /// # Errors
    /// A reason for people; `key` is the manager's place in the configuration.
    pub(in crate::manager) fn check(&self, path: &str, key: &str) -> Result<(), String> {
        if !self.allowed {
            return Err(format!("{key}.ambient is off: references may not use the sidecar's own identity"));
        }
        let path = path.trim_matches('/');
        let below = |prefix: &String| {
            let prefix = prefix.trim_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        if self.paths.is_empty() || self.paths.iter().any(below) {
            return Ok(());
        }
        Err(format!("secret_path is not below any of {key}.ambient_paths"))
    }
}

impl Default for Ambient {
    fn default() -> Self {
        Self { allowed: true, paths: Vec::new() }
    }
}
