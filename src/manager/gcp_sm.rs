//! `gcp_sm`: Google Secret Manager over its REST interface, by service-account key or as the sidecar's own workload.
//!
//! A read asks for one version of a secret and returns its payload as it is, after its checksum. `latest` is the version
//! made last: where that one is disabled, so is the secret. Secrets and projects are looked at before they enter a URL,
//! and the only thing that a reference chooses of a host is the region in it.
//! Source: Secret Manager API v1, `projects.secrets.versions`.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderValue;
use tokio::time::Instant;

use self::{
    glance::Glances,
    login::{Login, Source},
    name::{SecretName, Wanted},
    wire::Wire,
};
use super::{
    FailureClass, FetchError, Fetched, SecretManager, Settings, Version,
    registry::GcpSettings,
    retry::Retries,
    session::{LoginObserver, Session, Token},
};
use crate::{
    egress::Transport,
    model::{GcpAuth, GcpMethod, SecretLocation},
};

mod answer;
mod crc32c;
mod glance;
mod login;
mod name;
mod wire;

/// A young token that is refused is replaced by a new login at most this often: a refusal that stays must not turn every
/// fetch into a login.
const LOGIN_AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// One identity at Google Secret Manager.
#[derive(Debug)]
pub(super) struct GcpSm {
    wire: Wire,
    session: Session,
    project: Option<Arc<str>>,
    location: Option<Arc<str>>,
    identity: Arc<str>,
    glances: Glances,
    /// When a refused token last led to a new login.
    replaced_at: Mutex<Option<Instant>>,
}

/// Whether a `gcp_sm` reference of this shape can and may be used.
///
/// # Errors
/// A reason for people, naming the setting that would change it.
pub(super) fn admit(auth: &GcpAuth, location: Option<&SecretLocation>, settings: &GcpSettings) -> Result<(), String> {
    let parse = |location| SecretName::parse(location, auth.project.as_deref(), auth.location.as_deref());
    let name = location.map(parse).transpose().map_err(|error| error.to_string());
    let login = match &auth.method {
        // Still sealed; judged when it is opened.
        GcpMethod::ServiceAccountKey { key } if key.expose().is_empty() => Ok(()),
        GcpMethod::ServiceAccountKey { key } => {
            login::ServiceKey::check(key.expose()).map_err(|error| format!("gcp_service_account_json {error}"))
        }
        GcpMethod::WorkloadIdentity => match &name {
            // A bare name means another secret in every project, so that the whole name is what has to be permitted.
            Ok(Some((name, _))) => settings.ambient.check(&name.to_string(), "managers.gcp_sm"),
            Ok(None) | Err(_) => Ok(()),
        },
    };
    let reasons: Vec<String> = [name.err(), login.err()].into_iter().flatten().collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}

// === impl GcpSm ===

impl GcpSm {
    /// The manager object of one identity. Nothing is sent before the first fetch.
    ///
    /// # Errors
    /// [`FailureClass::Misconfigured`] with a reason.
    pub(super) fn new(
        auth: &GcpAuth,
        settings: &GcpSettings,
        bounds: &Settings,
        transport: &Arc<Transport>,
        observer: LoginObserver,
    ) -> Result<Self, FetchError> {
        let source = Source::new(&auth.method, settings)
            .map_err(|reason| FetchError::new(FailureClass::Misconfigured).with_source(reason))?;
        let mut identity = source.to_string();
        if let Some(endpoint) = &settings.endpoint_url {
            let _ = write!(identity, " at {}", endpoint.as_str().trim_end_matches('/'));
        }
        let identity: Arc<str> = identity.into();
        let login = Login::new(Arc::clone(transport), source, settings, bounds);
        Ok(Self {
            wire: Wire::new(Arc::clone(transport), settings.endpoint_url.clone(), bounds.attempt_timeout),
            session: Session::new(Arc::new(login), Arc::clone(&identity), bounds.login_deadline, observer),
            project: auth.project.clone(),
            location: auth.location.clone(),
            identity,
            glances: Glances::default(),
            replaced_at: Mutex::default(),
        })
    }

    async fn read_with_retries(
        &self,
        token: &Token,
        name: &SecretName,
        wanted: &Wanted,
        known: Option<&Version>,
    ) -> Result<Fetched, FetchError> {
        let mut retries = Retries::default();
        loop {
            let error = match self.read(token.header(), name, wanted, known).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => error,
            };
            match retries.pause(&error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn read(
        &self,
        token: &HeaderValue,
        name: &SecretName,
        wanted: &Wanted,
        known: Option<&Version>,
    ) -> Result<Fetched, FetchError> {
        let version = match wanted {
            Wanted::Current => "latest",
            Wanted::Exactly(version) => version,
            Wanted::Previous => &self.previous(token, name).await?,
        };
        let resource = name.version(version);
        if let Some(known) = known
            && self.glances.may_glance(&resource)
            && self.is_unchanged(token, name, &resource, known).await
        {
            return Ok(Fetched::Unchanged);
        }
        let answer = self.wire.get(name, &format!("{resource}:access"), None, token).await?;
        let document = answer::document(&answer.body)?;
        self.glances.was_read(resource);
        Ok(Fetched::Document {
            value: document.value.into(),
            map: false,
            version: document.version.map(|number| Version(number.to_string().into())),
            not_after: None,
        })
    }

    /// Whether the metadata of a version say that it is the `known` one and in use. Whatever else they say, or whoever may not
    /// see them, is no failure of the read that follows.
    async fn is_unchanged(&self, token: &HeaderValue, name: &SecretName, resource: &str, known: &Version) -> bool {
        match self.wire.get(name, resource, None, token).await.and_then(|answer| answer::metadata(&answer.body)) {
            Ok(metadata) => metadata.enabled && metadata.number.to_string() == *known.0,
            Err(error) => {
                if error.class == FailureClass::Denied {
                    self.glances.were_refused();
                }
                false
            }
        }
    }

    /// Number of the newest enabled version before the one made last.
    async fn previous(&self, token: &HeaderValue, name: &SecretName) -> Result<String, FetchError> {
        let answer = self.wire.get(name, &name.versions(), Some("pageSize=100"), token).await?;
        let versions = answer::list(&answer.body)?;
        let latest = versions.iter().map(|version| version.number).max();
        let earlier = versions.iter().filter(|version| version.enabled && Some(version.number) < latest);
        let previous = earlier.map(|version| version.number).max();
        previous
            .map(|number| number.to_string())
            .ok_or_else(|| FetchError::new(FailureClass::Gone).with_code("no_previous_version"))
    }

    /// Whether another login may help against the refusal of `token`.
    fn may_replace(&self, token: &Token) -> bool {
        let mut last = self.replaced_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may = token.age() >= LOGIN_AFTER_REFUSAL || last.is_none_or(|last| last.elapsed() >= LOGIN_AFTER_REFUSAL);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}

#[async_trait]
impl SecretManager for GcpSm {
    async fn fetch(&self, location: &SecretLocation, known: Option<&Version>) -> Result<Fetched, FetchError> {
        let (name, wanted) = SecretName::parse(location, self.project.as_deref(), self.location.as_deref())
            .map_err(|error| FetchError::new(FailureClass::Misconfigured).with_code("path").with_source(error))?;
        let token = self.session.token().await?;
        match self.read_with_retries(&token, &name, &wanted, known).await {
            Err(refused) if refused.class == FailureClass::Unauthenticated && self.may_replace(&token) => {
                let token = self.session.token_instead_of(&token).await?;
                self.read_with_retries(&token, &name, &wanted, known).await
            }
            outcome => outcome,
        }
    }

    fn identity(&self) -> Arc<str> {
        Arc::clone(&self.identity)
    }
}
