//! The sidecar's own AWS identity: static keys of the environment, web identity (IRSA), container credentials (EKS Pod
//! Identity, ECS), instance metadata (IMDSv2).
//!
//! The environment chooses one of them, once and for good: where a configured one fails, none of the others is tried, since
//! a node's role in place of a pod's would be another identity. Profile files, SSO and credential processes are a
//! workstation's and are not read.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_config::{ecs::EcsCredentialsProvider, imds, provider_config::ProviderConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError},
};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{http::SdkHttp, keys, place::Region, sts::Sts};
use crate::{
    egress::SendError,
    manager::{
        FailureClass, FetchError,
        registry::Environment,
        session::{Authority, Grant, Lease, LoginError, Token},
    },
    secret::SecretValue,
};

/// Largest web identity token, in bytes: what STS takes.
const MAX_TOKEN: u64 = 20_000;

/// Rest after a refused login. STS locks nobody out; a mended trust policy should not have to wait for long.
const REST: Duration = Duration::from_secs(30);

/// Where instance metadata is, by the two modes the SDKs know.
const METADATA_V4: &str = "http://169.254.169.254";
const METADATA_V6: &str = "http://[fd00:ec2::254]";

/// Hosts of the EKS Pod Identity agent.
const POD_IDENTITY_HOSTS: [&str; 2] = ["169.254.170.23", "fd00:ec2::23"];

/// Gets keys from the place that the environment names.
pub(super) struct Chain {
    source: Source,
    sts: Arc<Sts>,
    /// To machines nearby, which no reference can name.
    near: SdkHttp,
    /// Where STS is asked for web identities.
    region: Option<Region>,
}

/// Where the keys come from.
pub(super) enum Source {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
    Environment { id: String, secret: SecretValue, session: Option<SecretValue> },
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN`, `AWS_ROLE_SESSION_NAME`; what EKS sets for a service account (IRSA).
    WebIdentity { role: String, token_file: PathBuf, session_name: String },
    /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` (ECS) or `AWS_CONTAINER_CREDENTIALS_FULL_URI` (EKS Pod Identity and others).
    Container { pod_identity: bool },
    /// IMDSv2, of EC2.
    Metadata { endpoint: String },
    /// Half of something, or nothing that is allowed: used as it stands, it would be another identity than the one meant.
    Unusable { code: &'static str, problem: &'static str },
}

// === impl Chain ===

impl Chain {
    pub(super) fn new(source: Source, sts: Arc<Sts>, near: SdkHttp, region: Option<Region>) -> Self {
        Self { source, sts, near, region }
    }

    async fn by_web_identity(&self, role: &str, token_file: &PathBuf, session_name: &str) -> Result<Grant, LoginError> {
        let no_region =
            || unauthenticated("no_region").with_source("no region says which STS to ask; set managers.aws.region");
        let region = self.region.as_ref().ok_or_else(|| LoginError::accident(no_region()))?;
        let token = read_token(token_file).await.map_err(LoginError::accident)?;
        let granted = self.sts.assume_role_with_web_identity(region, role, session_name, &token).await;
        granted.map_err(verdict)
    }

    async fn by_provider(&self, code: &'static str, provider: impl ProvideCredentials) -> Result<Grant, LoginError> {
        let credentials = provider.provide_credentials().await;
        let credentials = credentials.map_err(|error| LoginError::accident(unprovided(&error, code)))?;
        Ok(grant_of(&credentials))
    }

    fn provider_config(&self) -> ProviderConfig {
        ProviderConfig::without_region().with_http_client(self.near.clone())
    }
}

#[async_trait]
impl Authority for Chain {
    async fn log_in(&self) -> Result<Grant, LoginError> {
        match &self.source {
            Source::Environment { id, secret, session } => {
                let session = session.as_ref().and_then(SecretValue::expose_str);
                Ok(keys::grant(id, secret.expose_str().unwrap_or_default(), session, None))
            }
            Source::WebIdentity { role, token_file, session_name } => {
                self.by_web_identity(role, token_file, session_name).await
            }
            Source::Container { .. } => {
                // Made anew each time: a provider falls back on keys it gave before, which is not what a new login is for.
                let provider = EcsCredentialsProvider::builder().configure(&self.provider_config()).build();
                self.by_provider("container_credentials", provider).await
            }
            Source::Metadata { endpoint } => {
                let config = self.provider_config();
                let client = imds::Client::builder().configure(&config).endpoint(endpoint);
                let client = client.map_err(|_| LoginError::accident(unauthenticated("metadata_endpoint")))?.build();
                let provider =
                    imds::credentials::ImdsCredentialsProvider::builder().configure(&config).imds_client(client);
                self.by_provider("instance_metadata", provider.build()).await
            }
            Source::Unusable { code, problem } => {
                Err(LoginError::accident(unauthenticated(code).with_source(*problem)))
            }
        }
    }

    async fn renew(&self, _: &Token) -> Result<Lease, FetchError> {
        // No grant of this authority is renewable.
        Err(unauthenticated("not_renewable"))
    }

    async fn look_up(&self, _: &Token) -> Result<Lease, FetchError> {
        Ok(Lease::Endless)
    }

    fn renews_identity(&self) -> bool {
        self.source.renews()
    }

    fn patience(&self, _: u32) -> Duration {
        REST
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chain").field(&self.source.to_string()).finish()
    }
}

// === impl Source ===

impl Source {
    /// The one that `environment` chooses, in the order of the AWS SDKs.
    pub(super) fn of(environment: &Environment, default_session_name: &str) -> Self {
        let get = |name| environment.get(name);
        let unusable = |code, problem| Self::Unusable { code, problem };
        match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => {
                let session = get("AWS_SESSION_TOKEN").map(SecretValue::from);
                return Self::Environment { id, secret: secret.into(), session };
            }
            (None, None) => {}
            _ => return unusable("half_a_key", "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set"),
        }
        if let Some(token_file) = get("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let Some(role) = get("AWS_ROLE_ARN") else {
                return unusable("no_role", "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not");
            };
            let session_name = get("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| default_session_name.to_owned());
            return Self::WebIdentity { role, token_file: token_file.into(), session_name };
        }
        if get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some() {
            return Self::Container { pod_identity: false };
        }
        if let Some(uri) = get("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            return Self::Container { pod_identity: POD_IDENTITY_HOSTS.iter().any(|host| uri.contains(host)) };
        }
        if get("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return unusable(
                "no_credentials",
                "the environment names no credentials and AWS_EC2_METADATA_DISABLED is true",
            );
        }
        let is_v6 = get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
        let usual = if is_v6 { METADATA_V6 } else { METADATA_V4 };
        Self::Metadata { endpoint: get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| usual.to_owned()) }
    }

    /// Whether another login brings other keys.
    pub(super) const fn renews(&self) -> bool {
        match self {
            Self::Environment { .. } => false,
            Self::WebIdentity { .. } | Self::Container { .. } | Self::Metadata { .. } | Self::Unusable { .. } => true,
        }
    }

    /// Whether the keys are a role's session, so that a role assumed with them lasts an hour at most (role chaining).
    pub(super) const fn is_role_session(&self) -> bool {
        match self {
            Self::Environment { session, .. } => session.is_some(),
            Self::WebIdentity { .. } | Self::Container { .. } | Self::Metadata { .. } => true,
            Self::Unusable { .. } => false,
        }
    }

    /// What the environment names beside the chosen one, which is never used then.
    pub(super) fn shadowed(&self, environment: &Environment) -> Vec<&'static str> {
        let others: &[&'static str] = match self {
            Self::Environment { .. } => &[
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            ],
            Self::WebIdentity { .. } => {
                &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
            }
            Self::Container { .. } | Self::Metadata { .. } | Self::Unusable { .. } => &[],
        };
        others.iter().copied().filter(|name| environment.get(name).is_some()).collect()
    }
}

/// For operators: which one won. Never a secret.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment { id, .. } => write!(f, "environment key {}", keys::shortened(id)),
            Self::WebIdentity { role, .. } => write!(f, "web identity {role}"),
            Self::Container { pod_identity: true } => f.write_str("EKS Pod Identity"),
            Self::Container { pod_identity: false } => f.write_str("container credentials"),
            Self::Metadata { .. } => f.write_str("instance metadata"),
            Self::Unusable { .. } => f.write_str("no identity"),
        }
    }
}

/// What a failed `AssumeRole…` is to those who wait.
pub(super) fn verdict(error: FetchError) -> LoginError {
    match error.class {
        FailureClass::Denied | FailureClass::Gone | FailureClass::Misconfigured | FailureClass::Unauthenticated
            if error.code.as_deref() != Some("address_refused") =>
        {
            LoginError::refusal(FetchError { class: FailureClass::Unauthenticated, ..error })
        }
        FailureClass::Denied
        | FailureClass::Gone
        | FailureClass::Misconfigured
        | FailureClass::Unauthenticated
        | FailureClass::Disabled
        | FailureClass::Throttled
        | FailureClass::Unavailable
        | FailureClass::Timeout
        | FailureClass::Malformed => LoginError::accident(error),
    }
}

fn grant_of(credentials: &Credentials) -> Grant {
    let (id, secret) = (credentials.access_key_id(), credentials.secret_access_key());
    keys::grant(id, secret, credentials.session_token(), credentials.expiry())
}

/// What a provider's failure means. "No credentials" and "no network" look alike at a first glance, and a provider's text
/// may quote what it was answered.
fn unprovided(error: &CredentialsError, code: &'static str) -> FetchError {
    let causes = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    let unanswered = causes.into_iter().find_map(|cause| cause.downcast_ref::<SendError>());
    match (error, unanswered) {
        // The last resort is not there: nobody gave this process an identity.
        (CredentialsError::CredentialsNotLoaded(_), _) => unauthenticated("no_credentials"),
        (CredentialsError::InvalidConfiguration(_), _) => unauthenticated(code),
        (_, Some(SendError::Timeout)) | (CredentialsError::ProviderTimedOut(_), _) => {
            FetchError::new(FailureClass::Timeout).with_code(code)
        }
        _ => FetchError::new(FailureClass::Unavailable).with_code(code),
    }
}

fn unauthenticated(code: &'static str) -> FetchError {
    FetchError::new(FailureClass::Unauthenticated).with_code(code)
}

/// Read again at each login, because whoever issues it replaces it.
async fn read_token(path: &PathBuf) -> Result<Zeroizing<String>, FetchError> {
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_TOKEN as usize + 1));
        file.take(MAX_TOKEN + 1).read_to_end(&mut content).await?;
        Ok(content)
    };
    let unreadable = |error: std::io::Error| unauthenticated("token_file").with_source(error);
    let content = read.await.map_err(unreadable)?;
    let text = std::str::from_utf8(&content).map(str::trim).ok();
    let text = text.filter(|text| !text.is_empty() && text.len() as u64 <= MAX_TOKEN);
    text.map(|text| Zeroizing::new(text.to_owned())).ok_or_else(|| unauthenticated("token_file"))
}
