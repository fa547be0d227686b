//! `aws_sm`: AWS Secrets Manager, by name or ARN, in the region and account that an ARN names.
//!
//! A version is a version id or a staging label; without one, `AWSCURRENT`. A known version is looked up first among the
//! labels, which spares a decryption and an audited read; identities that may not look are asked no more for a while, and a
//! full read is due from time to time whatever the labels say, so that a permission that was taken away is noticed.
//! The SDK hands a secret over in a string of its own, which becomes the [`SecretValue`] without a copy.
//! Source: the API reference of Secrets Manager.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sdk_secretsmanager::{
    Client,
    config::{
        BehaviorVersion, Builder, Config, IdentityCache, Region as SdkRegion, StalledStreamProtectionConfig,
        retry::RetryConfig,
    },
    operation::{describe_secret::DescribeSecretOutput, get_secret_value::GetSecretValueOutput},
};
use tokio::time::Instant;

use super::{
    FailureClass, FetchError, Fetched, SecretManager, Version,
    aws::{self, Caller, Identities, Region},
};
use crate::{
    model::{AwsAuth, SecretLocation, VersionSelector},
    secret::SecretValue,
};

/// How long an identity that may not look at labels is not asked to.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// A value that is still current is read in full again after this, because reading may be allowed no more.
const READ_EVERY: Duration = Duration::from_secs(900);

/// Secrets of one identity whose last full read is remembered; beyond, all are read in full.
const MAX_REMEMBERED: usize = 1000;

/// Longest name of a secret (API, `SecretId`, without the six letters of an ARN).
const MAX_NAME: usize = 512;

/// Lengths of a version id (API, `VersionId`).
const VERSION_ID: std::ops::RangeInclusive<usize> = 32..=64;

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// What every identity shares: one SDK client, for all regions.
#[derive(Debug)]
pub(super) struct Service {
    client: Client,
    identities: Identities,
}

/// One identity at Secrets Manager.
#[derive(Debug)]
pub(super) struct SecretsManager {
    service: Arc<Service>,
    caller: Caller,
    region: Option<Arc<str>>,
    looks: Mutex<Looks>,
}

/// When to look at labels instead of reading.
#[derive(Debug, Default)]
struct Looks {
    refused_at: Option<Instant>,
    read_at: HashMap<SecretLocation, Instant>,
}

/// The version a location asks for, as the API has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Id(&'a str),
    Stage(&'a str),
}

// === impl Service ===

impl Service {
    pub(super) fn new(identities: Identities) -> Self {
        let settings = identities.settings();
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(identities.http())
            // Attempts and their bounds are ours, as for every manager.
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .use_fips(settings.use_fips)
            .use_dual_stack(settings.use_dual_stack);
        config.set_endpoint_url(settings.endpoint_url.as_ref().map(|url| url.as_str().to_owned()));
        Self { client: Client::from_conf(config.build()), identities }
    }

    /// Whether an `aws_sm` reference of this shape can and may be used.
    ///
    /// # Errors
    /// A reason for people, naming the setting that would change it.
    pub(super) fn admit(&self, auth: &AwsAuth, location: Option<&SecretLocation>) -> Result<(), String> {
        let shape = location.map_or(Ok(()), admit_location);
        let rest = self.identities.admit(auth, location.map(|location| &*location.path));
        let reasons: Vec<String> = [shape.err(), rest.err()].into_iter().flatten().collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }
}

// === impl SecretsManager ===

impl SecretsManager {
    /// The manager object of one identity. Nothing is sent before the first fetch.
    ///
    /// # Errors
    /// [`FailureClass::Misconfigured`] with a reason.
    pub(super) fn new(auth: &AwsAuth, service: &Arc<Service>) -> Result<Self, FetchError> {
        let caller = service.identities.caller(auth)?;
        Ok(Self { service: Arc::clone(service), caller, region: auth.region.clone(), looks: Mutex::default() })
    }

    async fn read(&self, id: &str, wanted: Wanted<'_>, region: &Region) -> Result<GetSecretValueOutput, FetchError> {
        let read = |credentials| {
            let request = self.service.client.get_secret_value().secret_id(id);
            let request = match wanted {
                // What the service takes for granted need not be said.
                Wanted::Stage(CURRENT) => request,
                Wanted::Stage(stage) => request.version_stage(stage),
                Wanted::Id(version) => request.version_id(version),
            };
            let request = request.customize().config_override(by(credentials, region));
            async move { request.send().await.map_err(aws::of_sdk) }
        };
        self.caller.call(read).await
    }

    /// Whether the labels say that `known` is still what is wanted. Any failure means no: the full read will tell.
    async fn is_current(&self, id: &str, wanted: Wanted<'_>, region: &Region, known: &str) -> bool {
        let Ok(credentials) = self.caller.credentials().await else { return false };
        let request = self.service.client.describe_secret().secret_id(id).customize();
        match request.config_override(by(credentials, region)).send().await.map_err(aws::of_sdk) {
            Ok(labels) => says_current(&labels, wanted, known),
            Err(error) => {
                if error.class == FailureClass::Denied {
                    self.looks().refused_at = Some(Instant::now());
                }
                tracing::debug!(
                    identity = &*self.caller.description(),
                    class = error.class.as_str(),
                    "labels cannot be looked at, the secret is read"
                );
                false
            }
        }
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SecretManager for SecretsManager {
    async fn fetch(&self, location: &SecretLocation, known: Option<&Version>) -> Result<Fetched, FetchError> {
        let misfit =
            |reason: String| FetchError::new(FailureClass::Misconfigured).with_code("path").with_source(reason);
        admit_location(location).map_err(misfit)?;
        let region = self.service.identities.region(self.region.as_deref(), &location.path).map_err(misfit)?;
        let (id, wanted) = (&*location.path, Wanted::of(&location.version));
        if let Some(known) = known
            && self.looks().may(location)
            && self.is_current(id, wanted, &region, &known.0).await
        {
            return Ok(Fetched::Unchanged);
        }
        let document = document(self.read(id, wanted, &region).await?)?;
        self.looks().has_read(location);
        Ok(document)
    }

    fn identity(&self) -> Arc<str> {
        self.caller.description()
    }
}

// === impl Looks ===

impl Looks {
    fn may(&self, location: &SecretLocation) -> bool {
        let is_refused = self.refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR);
        !is_refused && self.read_at.get(location).is_some_and(|at| at.elapsed() < READ_EVERY)
    }

    fn has_read(&mut self, location: &SecretLocation) {
        if let Some(at) = self.read_at.get_mut(location) {
            *at = Instant::now();
            return;
        }
        if self.read_at.len() >= MAX_REMEMBERED {
            self.read_at.clear();
        }
        self.read_at.insert(location.clone(), Instant::now());
    }
}

// === impl Wanted ===

impl<'a> Wanted<'a> {
    fn of(selector: &'a VersionSelector) -> Self {
        match selector {
            VersionSelector::Current => Self::Stage(CURRENT),
            VersionSelector::Previous => Self::Stage(PREVIOUS),
            VersionSelector::Stage(stage) => Self::Stage(stage),
            VersionSelector::Pinned(id) => Self::Id(id),
        }
    }
}

fn admit_location(location: &SecretLocation) -> Result<(), String> {
    // An ARN is `arn:partition:service:region:account:secret:name`; what precedes the name is looked at by its own rules.
    let name = match location.path.strip_prefix("arn:") {
        Some(rest) => rest.splitn(5, ':').last().and_then(|resource| resource.strip_prefix("secret:")),
        None => Some(&*location.path),
    };
    let name = name.ok_or("secret_path is an ARN of something else than a secret")?;
    // `!` separates the service from the rest in names of secrets that AWS manages (`rds!cluster-…`).
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-!".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME + 7 || !name.bytes().all(fits) {
        return Err("secret_path is no name of a secret: 1 to 512 letters, digits and `/_+=.@-!`".to_owned());
    }
    match &location.version {
        VersionSelector::Pinned(id) if !VERSION_ID.contains(&id.len()) => {
            Err("the version of an AWS secret is its version id of 32 to 64 letters, as ?version=…".to_owned())
        }
        VersionSelector::Current
        | VersionSelector::Previous
        | VersionSelector::Stage(_)
        | VersionSelector::Pinned(_) => Ok(()),
    }
}

fn says_current(labels: &DescribeSecretOutput, wanted: Wanted<'_>, known: &str) -> bool {
    // A secret that waits for its end keeps its labels.
    if labels.deleted_date().is_some() {
        return false;
    }
    let stages = labels.version_ids_to_stages().and_then(|versions| versions.get(known));
    match wanted {
        Wanted::Stage(stage) => stages.is_some_and(|stages| stages.iter().any(|label| label == stage)),
        // What an id names never changes, and is deprecated when no label is left on it.
        Wanted::Id(id) => id == known && stages.is_some_and(|stages| !stages.is_empty()),
    }
}

fn document(answer: GetSecretValueOutput) -> Result<Fetched, FetchError> {
    let value = match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => SecretValue::from(text),
        (None, Some(bytes)) => {
            let value = SecretValue::new(bytes.into_inner());
            if value.expose_str().is_none() {
                return Err(FetchError::new(FailureClass::Malformed).with_code("binary"));
            }
            value
        }
        (None, None) => return Err(FetchError::new(FailureClass::Malformed).with_code("no_value")),
    };
    let version = answer.version_id.map(|id| Version(id.into()));
    Ok(Fetched::Document { value, map: false, version, not_after: None })
}

fn by(credentials: Credentials, region: &Region) -> Builder {
    Config::builder()
        .region(SdkRegion::new(region.as_str().to_owned()))
        .credentials_provider(credentials)
        // Sessions live outside the SDK, whose cache would keep every identity that ever called.
        .identity_cache(IdentityCache::no_cache())
}
