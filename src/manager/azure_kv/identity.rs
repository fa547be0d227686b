//! Who the sidecar is in Azure, and how it gets a token: a client secret, a federated token, or the machine's identity.
//!
//! `default` looks at the environment once and decides by what is set, not by what succeeds: a client secret, then a
//! workload identity, then the machine. Developer tools are never asked. The libraries' credentials remember tokens in
//! ways of their own, so each login has a new one; what they copy of a client secret or a token is not wiped.
//! Source: Microsoft's DefaultAzureCredential for the names of the variables.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, Secret, TokenCredential},
    http::{ClientMethodOptions, ClientOptions},
    time::OffsetDateTime,
};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use zeroize::Zeroizing;

use super::{
    answer,
    cloud::Cloud,
    wire::{Carried, Line, Peer, Wire},
};
use crate::{
    manager::{
        FailureClass, FetchError, jwt,
        retry::jitter,
        session::{Authority, Grant, Lease, LoginError, Token},
    },
    model::AzureMethod,
    secret::SecretValue,
};

/// One exchange with an authority or with the machine: long enough for a busy one, short enough to be tried again.
const EXCHANGE: Duration = Duration::from_secs(10);

/// First pause while the machine's identity service is not ready; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(800);

/// Longest of these pauses.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Rest after a refused login. Entra locks no client out, but counts.
const REST: Duration = Duration::from_secs(60);

/// Variables of the environment that name an identity, as they are when an object is made.
#[derive(Default)]
pub(super) struct Surroundings {
    /// `AZURE_TENANT_ID`.
    pub(super) tenant: Option<Arc<str>>,
    /// `AZURE_CLIENT_ID`.
    pub(super) client: Option<Arc<str>>,
    /// `AZURE_CLIENT_SECRET`.
    pub(super) client_secret: Option<SecretValue>,
    /// `AZURE_FEDERATED_TOKEN_FILE`.
    pub(super) token_file: Option<PathBuf>,
    /// `AZURE_AUTHORITY_HOST`, which the webhook of AKS sets.
    pub(super) authority: Option<Arc<str>>,
    /// Whether `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` are set, as in App Service and Container Apps.
    pub(super) is_app_service: bool,
}

/// How to prove who one is.
pub(super) enum Proof {
    /// A client of a tenant, with a secret.
    Secret {
        /// GUID or domain.
        tenant: Arc<str>,
        /// Client id.
        client: Arc<str>,
        /// The secret.
        secret: SecretValue,
    },
    /// A client of a tenant that trusts the tokens of a cluster.
    Federated {
        /// GUID or domain.
        tenant: Arc<str>,
        /// Client id.
        client: Arc<str>,
        /// File of the cluster's token.
        token_file: PathBuf,
    },
    /// An identity of the machine.
    Machine {
        /// Client id; `None` = the system-assigned identity.
        client: Option<Arc<str>>,
        /// Where it is asked for, for operators.
        source: &'static str,
    },
}

/// Logs one identity in for one cloud's vaults.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) proof: Proof,
    pub(super) cloud: Arc<Cloud>,
    pub(super) line: Arc<dyn Line>,
}

/// A federated token, read for one login.
struct Assertion(Zeroizing<String>);

// === impl Surroundings ===

impl Surroundings {
    /// Reads the environment.
    pub(super) fn read() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            tenant: text("AZURE_TENANT_ID").map(Arc::from),
            client: text("AZURE_CLIENT_ID").map(Arc::from),
            client_secret: text("AZURE_CLIENT_SECRET").map(SecretValue::from),
            token_file: text("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            authority: text("AZURE_AUTHORITY_HOST").map(Arc::from),
            is_app_service: text("IDENTITY_ENDPOINT").is_some() && text("IDENTITY_HEADER").is_some(),
        }
    }
}

// === impl Proof ===

impl Proof {
    /// The proof for `method`, which for `managed` and `default` lies in the surroundings.
    pub(super) fn of(method: &AzureMethod, surroundings: Surroundings) -> Self {
        let source = if surroundings.is_app_service { "App Service" } else { "instance metadata" };
        match method {
            AzureMethod::Entra { tenant_id, client_id, client_secret } => Self::Secret {
                tenant: Arc::clone(tenant_id),
                client: Arc::clone(client_id),
                secret: SecretValue::new(client_secret.expose().to_vec()),
            },
            AzureMethod::Managed { client_id } => Self::Machine { client: client_id.clone(), source },
            AzureMethod::Default => {
                let Surroundings { tenant, client, client_secret, token_file, .. } = surroundings;
                match (tenant, client, client_secret, token_file) {
                    (Some(tenant), Some(client), Some(secret), _) => Self::Secret { tenant, client, secret },
                    (Some(tenant), Some(client), None, Some(token_file)) => {
                        Self::Federated { tenant, client, token_file }
                    }
                    (_, client, _, _) => Self::Machine { client, source },
                }
            }
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { tenant, client, .. } => write!(f, "entra client {client} of {tenant}"),
            Self::Federated { tenant, client, .. } => write!(f, "workload identity {client} of {tenant}"),
            Self::Machine { client: Some(client), source } => write!(f, "managed identity {client} by {source}"),
            Self::Machine { client: None, source } => write!(f, "system-assigned managed identity by {source}"),
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Login ===

impl Login {
    /// Whether the libraries can make a credential of the proof at all; none is asked for a token.
    ///
    /// # Errors
    /// A reason for people.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.proof {
            Proof::Machine { .. } => match self.machine() {
                Ok(_) => Ok(()),
                Err(_) => Err("this machine's kind of managed identity is not supported: only instance metadata, App \
                               Service and Container Apps are"
                    .to_owned()),
            },
            Proof::Secret { tenant, .. } | Proof::Federated { tenant, .. } => {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
                match tenant.bytes().all(fits) && tenant.split('.').all(|label| !label.is_empty()) {
                    true => Ok(()),
                    false => Err("AZURE_TENANT_ID must be a tenant's GUID or domain".to_owned()),
                }
            }
        }
    }

    fn options(&self, peer: Peer) -> ClientOptions {
        let wire = Wire { line: Arc::clone(&self.line), peer, timeout: EXCHANGE };
        ClientOptions { cloud: Some(Arc::new(self.cloud.configuration())), ..wire.options() }
    }

    fn machine(&self) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let user_assigned_id = match &self.proof {
            Proof::Machine { client: Some(client), .. } => Some(UserAssignedId::ClientId(client.to_string())),
            Proof::Machine { client: None, .. } | Proof::Secret { .. } | Proof::Federated { .. } => None,
        };
        let client_options = self.options(Peer::Machine);
        let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
        Ok(ManagedIdentityCredential::new(Some(options))?)
    }

    async fn credential(&self) -> Result<Arc<dyn TokenCredential>, LoginError> {
        let client_options = || self.options(Peer::Authority);
        let made: azure_core::Result<Arc<dyn TokenCredential>> = match &self.proof {
            Proof::Secret { tenant, client, secret } => {
                let secret = secret.expose_str().ok_or_else(|| misfit("client_secret_not_text"))?;
                let options = ClientSecretCredentialOptions { client_options: client_options() };
                ClientSecretCredential::new(tenant, client.to_string(), Secret::new(secret.to_owned()), Some(options))
                    .map(|credential| credential as _)
            }
            Proof::Federated { tenant, client, token_file } => {
                let assertion = Assertion(jwt::read(token_file).await?);
                let options = ClientAssertionCredentialOptions { client_options: client_options() };
                ClientAssertionCredential::new(tenant.to_string(), client.to_string(), assertion, Some(options))
                    .map(|credential| credential as _)
            }
            Proof::Machine { .. } => self.machine(),
        };
        made.map_err(|_| misfit("credential"))
    }

    async fn token(&self) -> Result<AccessToken, LoginError> {
        let scope = self.cloud.scope();
        let token = self.credential().await?.get_token(&[&scope], None).await;
        token.map_err(|error| match Carried::open(&error, "not_a_token") {
            (error, true) => LoginError::refusal(error),
            (error, false) => LoginError::accident(error),
        })
    }

    /// A token of the machine, whose identity service may be waking up for longer than any fetch waits. Ends with the
    /// deadline of the login.
    async fn token_of_the_machine(&self) -> Result<AccessToken, LoginError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.token().await {
                Err(login) if !login.refused && answer::machine_is_waking(&login.error) => {
                    let code = login.error.code.as_deref();
                    tracing::warn!(code, "the machine's identity service is not ready, it is asked again");
                    let asked_for = login.error.retry_after.unwrap_or_default();
                    tokio::time::sleep(asked_for.max(pause / 2 + jitter(pause / 2))).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl Authority for Login {
    async fn log_in(&self) -> Result<Grant, LoginError> {
        let token = match self.proof {
            Proof::Machine { .. } => self.token_of_the_machine().await?,
            Proof::Secret { .. } | Proof::Federated { .. } => self.token().await?,
        };
        let left = Duration::try_from(token.expires_on - OffsetDateTime::now_utc()).unwrap_or_default();
        let lease = match left.as_secs() {
            0 => return Err(LoginError::accident(answer::malformed("token_over"))),
            seconds => Lease::of_seconds(seconds, false),
        };
        let token = SecretValue::new(token.token.secret().as_bytes().to_vec());
        Ok(Grant { token, lease })
    }

    async fn renew(&self, _: &Token) -> Result<Lease, FetchError> {
        Err(FetchError::new(FailureClass::Misconfigured).with_code("not_renewable"))
    }

    async fn look_up(&self, _: &Token) -> Result<Lease, FetchError> {
        Err(FetchError::new(FailureClass::Misconfigured).with_code("not_told"))
    }

    fn renews_identity(&self) -> bool {
        true
    }

    fn patience(&self, _: u32) -> Duration {
        REST
    }
}

// === impl Assertion ===

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.to_string())
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assertion(<redacted>)")
    }
}

fn misfit(code: &'static str) -> LoginError {
    LoginError::accident(FetchError::new(FailureClass::Misconfigured).with_code(code))
}

#[cfg(test)]
mod tests;
