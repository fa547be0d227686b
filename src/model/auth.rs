//! `manager_type` and `auth_config`: who stores a secret and how Sidekey proves who it is.

mod parse;

use std::{fmt, ops::Deref, sync::Arc};

use url::Url;

use self::parse::SealedAuth;
use crate::secret::SecretValue;

pub use parse::inspect_auth;
pub(super) use parse::{identity, parse};

/// The secret managers a reference may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ManagerType {
    /// HashiCorp Vault or OpenBao, KV version 1 and 2.
    HashicorpVault,
    /// AWS Secrets Manager.
    AwsSm,
    /// AWS Systems Manager Parameter Store.
    AwsSsm,
    /// Azure Key Vault.
    AzureKv,
    /// Google Secret Manager.
    GcpSm,
    /// Files below `managers.file.root`.
    File,
}

/// `auth_config` of a reference, of which parts may be sealed.
#[derive(Debug)]
pub struct Auth {
    shape: AuthConfig,
    sealed: Option<Box<SealedAuth>>,
}

/// An `auth_config` with which one can log in.
pub enum OpenedAuth<'a> {
    /// Nothing of it was sealed.
    Clear(&'a AuthConfig),
    /// Opened for whoever asked.
    Opened(AuthConfig),
}

/// Why a sealed `auth_config` is of no use: the first field of which that is true, and why. Quotes no value.
#[derive(Debug, thiserror::Error)]
#[error("auth_config.{key} {message}")]
pub struct AuthError {
    key: &'static str,
    message: String,
}

/// A checked `auth_config`. One variant for each manager this binary can talk to.
#[derive(Debug)]
pub enum AuthConfig {
    /// `aws_sm` and `aws_ssm`, which share their identities.
    Aws(AwsAuth),
    /// `azure_kv`.
    Azure(AzureAuth),
    /// `gcp_sm`.
    Gcp(GcpAuth),
    /// `hashicorp_vault`.
    Vault(VaultAuth),
    /// `file`: the sidecar's own file system identity, nothing to configure.
    File,
}

/// `auth_config` of an `aws_sm` or `aws_ssm` reference.
#[derive(Debug)]
pub struct AwsAuth {
    /// `aws_region`: `[a-z0-9-]{1,32}`, because it becomes part of a host name. `None` (only `serviceRole`) = the region of
    /// an ARN, else `managers.aws.region`, else what the environment says.
    pub region: Option<Arc<str>>,
    /// How to authenticate.
    pub method: AwsMethod,
}

/// `aws_auth_type`.
#[derive(Debug)]
pub enum AwsMethod {
    /// `accessKey`: exactly this key, never the sidecar's own identity.
    AccessKey {
        /// `aws_access_key_id`.
        access_key_id: SecretValue,
        /// `aws_secret_access_key`: visible ASCII.
        secret_access_key: SecretValue,
    },
    /// `assumedRole`: a role that the sidecar's own identity assumes.
    AssumedRole {
        /// `aws_role_arn`: `arn:…:iam::<account>:role/…`.
        role_arn: Arc<str>,
        /// `aws_external_id`; `None` = `managers.aws.external_id`.
        external_id: Option<SecretValue>,
    },
    /// `serviceRole`: the sidecar's own identity.
    ServiceRole,
}

/// `auth_config` of an `azure_kv` reference.
#[derive(Debug)]
pub struct AzureAuth {
    /// `azure_vault_url`: scheme, host and port of the vault, nothing more.
    pub vault_url: Url,
    /// How to authenticate.
    pub method: AzureMethod,
}

/// `azure_auth_mode`.
#[derive(Debug)]
pub enum AzureMethod {
    /// `entra`: a client of a Microsoft Entra tenant with a secret.
    Entra {
        /// `azure_entra_tenant_id`: a GUID or a domain, because it becomes part of a URL path.
        tenant_id: Arc<str>,
        /// `azure_entra_client_id`: letters, digits and `-`.
        client_id: Arc<str>,
        /// `azure_entra_client_secret`.
        client_secret: SecretValue,
    },
    /// `managed`: a managed identity of the machine.
    Managed {
        /// `azure_managed_client_id`; `None` = the system-assigned identity.
        client_id: Option<Arc<str>>,
    },
    /// `default`: environment, then workload identity, then managed identity.
    Default,
}

/// `auth_config` of a `gcp_sm` reference (ours).
#[derive(Debug)]
pub struct GcpAuth {
    /// `gcp_project_id`: the project of paths that are a bare secret name.
    pub project: Option<Arc<str>>,
    /// `gcp_location`: a region whose own endpoint is asked; `None` = the global one.
    pub location: Option<Arc<str>>,
    /// How to authenticate.
    pub method: GcpMethod,
}

/// `gcp_auth_type`.
#[derive(Debug)]
pub enum GcpMethod {
    /// `serviceAccountKey`.
    ServiceAccountKey {
        /// `gcp_service_account_json`: the key file as Google hands it out.
        key: SecretValue,
    },
    /// `workloadIdentity`: the sidecar's own identity (`GOOGLE_APPLICATION_CREDENTIALS`, else the metadata server).
    WorkloadIdentity,
}

/// `auth_config` of a `hashicorp_vault` reference.
#[derive(Debug)]
pub struct VaultAuth {
    /// `vault_addr`: base URL without user info, query or fragment, https unless the operator opened the host.
    pub addr: Url,
    /// `vault_namespace`, sent as `X-Vault-Namespace`: visible ASCII.
    pub namespace: Option<Arc<str>>,
    /// How to log in.
    pub method: VaultMethod,
    /// `vault_kv_version` (ours): 1 or 2; `None` = found out.
    pub kv_version: Option<u8>,
}

/// `vault_auth_type`.
#[derive(Debug)]
pub enum VaultMethod {
    /// `token`.
    Token {
        /// `vault_token`: visible ASCII.
        token: SecretValue,
    },
    /// `approle`.
    AppRole {
        /// `vault_role_id`.
        role_id: Arc<str>,
        /// `vault_secret_id`.
        secret_id: SecretValue,
        /// `vault_auth_mount` (ours), without outer slashes and `auth/`; `None` = `managers.vault.approle_mount`.
        mount: Option<Arc<str>>,
    },
    /// `kubernetes`: the sidecar's service-account token is the proof.
    Kubernetes {
        /// `vault_role`.
        role: Arc<str>,
        /// `vault_auth_mount` (ours), without outer slashes and `auth/`; `None` = `managers.vault.kubernetes_mount`.
        mount: Option<Arc<str>>,
        /// `vault_jwt_file` (ours), absolute; `None` = `managers.vault.kubernetes_jwt_file`.
        jwt_file: Option<Arc<str>>,
    },
}

// === impl Auth ===

impl Auth {
    /// All of it but what is sealed, in the place of which stands nothing: to look at, not to log in with.
    pub fn shape(&self) -> &AuthConfig {
        &self.shape
    }

    /// Opens what is sealed of it. Costs a tenth of a millisecond for each such field; keep what comes of it.
    ///
    /// # Errors
    /// [`AuthError`]: a field cannot be opened, or does not hold what it has to.
    pub fn open(&self) -> Result<OpenedAuth<'_>, AuthError> {
        match &self.sealed {
            None => Ok(OpenedAuth::Clear(&self.shape)),
            Some(sealed) => sealed.open().map(OpenedAuth::Opened),
        }
    }

    /// Whether a part of it is sealed.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }
}

impl From<AuthConfig> for Auth {
    fn from(auth: AuthConfig) -> Self {
        Self { shape: auth, sealed: None }
    }
}

// === impl OpenedAuth ===

impl Deref for OpenedAuth<'_> {
    type Target = AuthConfig;

    fn deref(&self) -> &AuthConfig {
        match self {
            Self::Clear(auth) => auth,
            Self::Opened(auth) => auth,
        }
    }
}

impl fmt::Debug for OpenedAuth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// === impl ManagerType ===

impl ManagerType {
    /// Every manager type, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::AwsSm, Self::AzureKv, Self::HashicorpVault, Self::File, Self::AwsSsm, Self::GcpSm];

    /// The spelling of snapshots, configuration, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HashicorpVault => "hashicorp_vault",
            Self::AwsSm => "aws_sm",
            Self::AwsSsm => "aws_ssm",
            Self::AzureKv => "azure_kv",
            Self::GcpSm => "gcp_sm",
            Self::File => "file",
        }
    }

    /// The manager type with this spelling.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|manager| manager.as_str() == name)
    }
}
