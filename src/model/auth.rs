//! `manager_type` and `auth_config`: who stores a secret and how Sidekey proves who it is.

mod parse;

use std::sync::Arc;

use url::Url;

use crate::secret::SecretValue;

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

/// A checked `auth_config`. One variant for each manager this binary can talk to.
#[derive(Debug)]
pub enum AuthConfig {
    /// `hashicorp_vault`.
    Vault(VaultAuth),
    /// `file`: the sidecar's own file system identity, nothing to configure.
    File,
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
