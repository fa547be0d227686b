//! `azure_kv`: Azure Key Vault, by a client of Entra, by the machine's managed identity, or by whichever the environment
//! names.
//!
//! Microsoft's libraries make the requests, answer the vault's challenge and get the tokens; our transport carries them, our
//! session remembers the token, and our retries are the only ones. A secret that is disabled, expired or not yet valid is
//! refused although the vault may hand it out. A vault whose challenge asks for anybody else's tokens gets none.
//! Source: the REST references of Key Vault and Entra.

use std::{fmt, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use azure_core::http::{ClientMethodOptions, Context, pager::PagerOptions};
use azure_security_keyvault_secrets::{
    SecretClient, SecretClientOptions,
    models::{SecretClientGetSecretOptions, SecretClientListSecretPropertiesVersionsOptions, SecretProperties},
};
use futures_util::StreamExt as _;
use tokio::time::Instant;
use url::Url;

use self::{
    answer::Document,
    cloud::Cloud,
    desk::{Desk, Doorkeeper},
    identity::{Login, Proof, Surroundings},
    path::{SecretId, Wanted},
    wire::{Carried, Line, Parcel, Peer, Wire},
};
use super::{
    FailureClass, FetchError, Fetched, SecretManager, Settings, Version,
    registry::AzureSettings,
    retry::Retries,
    session::{LoginObserver, Session, Token},
};
use crate::{
    egress::{Policy, Transport},
    model::{AzureAuth, AzureMethod, SecretLocation},
};

mod answer;
mod cloud;
mod desk;
mod identity;
mod path;
mod wire;

/// Pages of 25 versions that are looked through for the previous one.
const MAX_PAGES: usize = 40;

/// One identity at one vault.
pub(super) struct KeyVault {
    client: SecretClient,
    desk: Desk,
    vault: Url,
    identity: Arc<str>,
}

/// Whether an `azure_kv` reference of this shape can and may be used.
///
/// # Errors
/// A reason for people, naming the setting that would change it.
pub(super) fn admit(
    auth: &AzureAuth,
    location: Option<&SecretLocation>,
    settings: &AzureSettings,
    policy: &Policy,
) -> Result<(), String> {
    let id = location.map(|location| SecretId::parse(&location.path, &location.version, &auth.vault_url));
    let reasons: Vec<String> = [
        policy.check_url(&auth.vault_url).err().map(|refused| format!("azure_vault_url: {refused}")),
        Cloud::of(&auth.vault_url, settings.authority_host.as_ref(), policy).err(),
        id.as_ref().and_then(|id| id.as_ref().err()).map(ToString::to_string),
        id.and_then(Result::ok).and_then(|id| admit_identity(&auth.method, &id.name, settings).err()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}

fn admit_identity(method: &AzureMethod, name: &str, settings: &AzureSettings) -> Result<(), String> {
    match method {
        AzureMethod::Entra { .. } => Ok(()),
        AzureMethod::Managed { .. } | AzureMethod::Default => settings.ambient.check(name, "managers.azure_kv"),
    }
}

// === impl KeyVault ===

impl KeyVault {
    /// The manager object of one identity. Nothing is sent before the first fetch.
    ///
    /// # Errors
    /// [`FailureClass::Misconfigured`] with a reason.
    pub(super) fn new(
        auth: &AzureAuth,
        settings: &AzureSettings,
        bounds: &Settings,
        transport: &Arc<Transport>,
        observer: LoginObserver,
    ) -> Result<Self, FetchError> {
        let misfit = |reason: String| FetchError::new(FailureClass::Misconfigured).with_source(reason);
        let surroundings = Surroundings::read();
        let authority = authority(&auth.method, settings, &surroundings).map_err(misfit)?;
        let cloud = Cloud::of(&auth.vault_url, authority.as_ref(), transport.policy()).map_err(misfit)?;
        let proof = Proof::of(&auth.method, surroundings);
        let line: Arc<dyn Line> = Arc::clone(transport) as _;
        Self::with_proof(auth, proof, cloud, bounds, line, observer).map_err(misfit)
    }

    fn with_proof(
        auth: &AzureAuth,
        proof: Proof,
        cloud: Cloud,
        bounds: &Settings,
        line: Arc<dyn Line>,
        observer: LoginObserver,
    ) -> Result<Self, String> {
        let vault = auth.vault_url.clone();
        let identity: Arc<str> = format!("{proof} at {}", vault.as_str().trim_end_matches('/')).into();
        match auth.method {
            AzureMethod::Entra { .. } => {}
            AzureMethod::Managed { .. } | AzureMethod::Default => {
                tracing::info!(identity = &*identity, "the sidecar's own Azure identity is used");
            }
        }
        let cloud = Arc::new(cloud);
        let login = Login { proof, cloud: Arc::clone(&cloud), line: Arc::clone(&line) };
        login.check()?;
        let session = Session::new(Arc::new(login), Arc::clone(&identity), bounds.login_deadline, observer);
        let (desk, doorkeeper) = (Desk::new(session), Doorkeeper { scope: cloud.scope() });
        let verify = cloud.is_below_resource;
        let wire = Wire { line, peer: Peer::Vault { url: vault.clone(), cloud }, timeout: bounds.attempt_timeout };
        let options = SecretClientOptions {
            client_options: wire.options(),
            verify_challenge_resource: Some(verify),
            ..SecretClientOptions::default()
        };
        let client = SecretClient::new(vault.as_str(), Arc::new(doorkeeper), Some(options))
            .map_err(|_| "azure_vault_url cannot be used".to_owned())?;
        Ok(Self { client, desk, vault, identity })
    }

    /// One read, repeated once with another token when the first one may be the reason for being turned away.
    async fn read(&self, id: &SecretId) -> Result<Document, FetchError> {
        let started = Instant::now();
        let token = self.desk.token(None).await?;
        match self.read_with_retries(id, &token).await {
            Err(error) if is_turned_away(&error) && self.desk.replaces(&token, started) => {
                let another = self.desk.token(Some(&token)).await?;
                self.read_with_retries(id, &another).await
            }
            outcome => outcome,
        }
    }

    async fn read_with_retries(&self, id: &SecretId, token: &Arc<Token>) -> Result<Document, FetchError> {
        let mut retries = Retries::default();
        loop {
            let error = match self.read_once(id, token).await {
                Ok(document) => return Ok(document),
                Err(error) => error,
            };
            match retries.pause(&error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn read_once(&self, id: &SecretId, token: &Arc<Token>) -> Result<Document, FetchError> {
        let version = match &id.wanted {
            Wanted::Current => None,
            Wanted::Exactly(version) => Some(version.clone()),
            Wanted::Previous => Some(self.previous(&id.name, token).await?),
        };
        self.get(&id.name, version, token).await
    }

    async fn get(&self, name: &str, version: Option<String>, token: &Arc<Token>) -> Result<Document, FetchError> {
        let parcel = Arc::new(Parcel::default());
        let context = Context::new().with_value(Arc::clone(token)).with_value(Arc::clone(&parcel));
        let options = SecretClientGetSecretOptions {
            secret_version: version,
            method_options: ClientMethodOptions { context },
            ..SecretClientGetSecretOptions::default()
        };
        self.client.get_secret(name, Some(options)).await.map_err(classed)?;
        let body = parcel.take().ok_or_else(|| answer::malformed("no_body"))?;
        answer::secret(&body, SystemTime::now())
    }

    /// The version before the newest that may be used, by the time of creation; needs the permission to list.
    async fn previous(&self, name: &str, token: &Arc<Token>) -> Result<String, FetchError> {
        let context = Context::new().with_value(Arc::clone(token));
        let options = SecretClientListSecretPropertiesVersionsOptions {
            method_options: PagerOptions { context, ..PagerOptions::default() },
            ..SecretClientListSecretPropertiesVersionsOptions::default()
        };
        let pager = self.client.list_secret_properties_versions(name, Some(options)).map_err(classed)?;
        let mut pages = pager.into_pages();
        let mut versions = Vec::new();
        for _ in 0..MAX_PAGES {
            match pages.next().await {
                Some(page) => versions.extend(page.map_err(classed)?.into_model().map_err(classed)?.value),
                None => return before_newest(versions, SystemTime::now()),
            }
        }
        Err(FetchError::new(FailureClass::Misconfigured).with_code("too_many_versions"))
    }
}

#[async_trait]
impl SecretManager for KeyVault {
    async fn fetch(&self, location: &SecretLocation, _known: Option<&Version>) -> Result<Fetched, FetchError> {
        let id = SecretId::parse(&location.path, &location.version, &self.vault)
            .map_err(|error| FetchError::new(FailureClass::Misconfigured).with_code("path").with_source(error))?;
        let document = self.read(&id).await?;
        // `known` is of no use: the version does not change when a secret is disabled or its dates are moved.
        Ok(Fetched::Document {
            value: document.value,
            map: false,
            version: document.version.map(|version| Version(version.into())),
            not_after: document.not_after,
        })
    }

    fn identity(&self) -> Arc<str> {
        Arc::clone(&self.identity)
    }
}

impl fmt::Debug for KeyVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVault").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The operator's authority; `default` also takes the one that stands in the environment beside the identity.
fn authority(
    method: &AzureMethod,
    settings: &AzureSettings,
    surroundings: &Surroundings,
) -> Result<Option<Url>, String> {
    match (&settings.authority_host, method, &surroundings.authority) {
        (Some(authority), _, _) => Ok(Some(authority.clone())),
        (None, AzureMethod::Default, Some(authority)) => {
            Url::parse(authority).map(Some).map_err(|_| "AZURE_AUTHORITY_HOST is no URL".to_owned())
        }
        (None, AzureMethod::Entra { .. } | AzureMethod::Managed { .. } | AzureMethod::Default, _) => Ok(None),
    }
}

fn before_newest(mut versions: Vec<SecretProperties>, now: SystemTime) -> Result<String, FetchError> {
    let created = |version: &SecretProperties| version.attributes.as_ref().and_then(|attributes| attributes.created);
    versions.sort_by_key(|version| std::cmp::Reverse(created(version)));
    let mut older = versions.into_iter().skip(1);
    let usable = older.find(|version| {
        version.attributes.as_ref().is_none_or(|attributes| answer::unusable(attributes, now).is_none())
    });
    let version = usable.and_then(|version| answer::version_of(version.id.as_deref()?));
    version.ok_or_else(|| FetchError::new(FailureClass::Gone).with_code("no_previous"))
}

/// Whether another token may be let in.
fn is_turned_away(error: &FetchError) -> bool {
    matches!(error.class, FailureClass::Unauthenticated | FailureClass::Denied)
}

fn classed(error: azure_core::Error) -> FetchError {
    Carried::open(&error, "not_key_vault").0
}
