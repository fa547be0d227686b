//! `hashicorp_vault`: HashiCorp Vault and OpenBao, KV version 1 and 2, by token, AppRole or Kubernetes login.
//!
//! A read asks which mount a path lies in, reads it in the form of that mount, and returns the map as written. A 403 is
//! looked into once: a dead token is replaced and the read repeated; a living one that is old is replaced too, since a
//! role's policies reach only new tokens; then a denial is a denial.
//! Source: Vault's HTTP API, KV and auth pages.

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderValue;
use tokio::time::Instant;
use vaultrs::api::{kv1::requests::GetSecretRequest, kv2::requests::ReadSecretRequest};

use self::{
    answer::Document,
    login::{Login, Proof, Pulse},
    mounts::Mounts,
    path::{Form, Kv, SecretPath},
    wire::Wire,
};
use super::{
    FailureClass, FetchError, Fetched, SecretManager, Settings, Version,
    registry::VaultSettings,
    retry::Retries,
    session::{Authority as _, LoginObserver, Session, Token},
};
use crate::{
    egress::{Reach, Transport},
    model::{SecretLocation, VaultAuth, VaultMethod, VersionSelector},
    secret::SecretValue,
};

mod answer;
mod login;
mod mounts;
mod path;
mod wire;

/// A living token that is denied is replaced by a new login at most this often: a role's policies reach only new tokens, but
/// a denial that stays must not turn every fetch into a login.
const DENIAL_LOGIN_EVERY: Duration = Duration::from_secs(60);

/// One identity at one Vault server.
#[derive(Debug)]
pub(super) struct Vault {
    wire: Arc<Wire>,
    login: Arc<Login>,
    session: Session,
    mounts: Mounts,
    kv_version: Option<Kv>,
    own_identity: bool,
    identity: Arc<str>,
    /// When a denial last led to a new login.
    denial_login: Mutex<Option<Instant>>,
}

/// The version that a location asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Current,
    Previous,
    Exactly(u64),
}

/// Whether a `hashicorp_vault` reference of this shape can and may be used.
///
/// # Errors
/// A reason for people, naming the setting that would change it.
pub(super) fn admit(
    auth: &VaultAuth,
    location: Option<&SecretLocation>,
    settings: &VaultSettings,
    transport: &Arc<Transport>,
) -> Result<(), String> {
    let path = location.map_or(Ok(None), |location| admit_location(auth, location).map(Some));
    let path = path.map_or_else(|reason| (None, Some(reason)), |path| (path, None));
    let reasons: Vec<String> =
        [admit_address(auth, transport).err(), path.1, admit_login(auth, path.0.as_ref(), settings, transport).err()]
            .into_iter()
            .flatten()
            .collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}

fn admit_address(auth: &VaultAuth, transport: &Arc<Transport>) -> Result<(), String> {
    transport.policy().check_url(&auth.addr).map_err(|refused| format!("vault_addr: {refused}"))?;
    Wire::new(Arc::clone(transport), &auth.addr, auth.namespace.as_deref(), Duration::ZERO)
        .map_err(|error| error.to_string())
        .map(drop)
}

fn admit_location(auth: &VaultAuth, location: &SecretLocation) -> Result<SecretPath, String> {
    let path = SecretPath::parse(&location.path).map_err(|error| error.to_string())?;
    let wanted =
        Wanted::of(&location.version).ok_or("the version of a Vault secret is a number from 1 on, as ?version=3")?;
    if auth.kv_version == Some(1) && wanted != Wanted::Current {
        return Err("a version cannot be asked of KV version 1".to_owned());
    }
    Ok(path)
}

fn admit_login(
    auth: &VaultAuth,
    path: Option<&SecretPath>,
    settings: &VaultSettings,
    transport: &Arc<Transport>,
) -> Result<(), String> {
    if !matches!(auth.kv_version, None | Some(1 | 2)) {
        return Err("vault_kv_version must be 1 or 2".to_owned());
    }
    match &auth.method {
        // What is sealed is empty until it is opened, and judged then.
        VaultMethod::Token { token } if token.expose().is_empty() || is_header_safe(token) => Ok(()),
        VaultMethod::Token { .. } => Err("vault_token must be visible ASCII on one line".to_owned()),
        VaultMethod::AppRole { mount, .. } => auth_mount(mount.as_deref().unwrap_or(&settings.approle_mount)).map(drop),
        VaultMethod::Kubernetes { mount, .. } => {
            if let Some(path) = path {
                settings.ambient.check(path.as_str(), "managers.hashicorp_vault")?;
            }
            kubernetes_reach(auth, settings, transport)?;
            auth_mount(mount.as_deref().unwrap_or(&settings.kubernetes_mount)).map(drop)
        }
    }
}

// === impl Vault ===

impl Vault {
    /// The manager object of one identity. Nothing is sent before the first fetch.
    ///
    /// # Errors
    /// [`FailureClass::Misconfigured`] with a reason.
    pub(super) fn new(
        auth: &VaultAuth,
        settings: &VaultSettings,
        bounds: &Settings,
        transport: &Arc<Transport>,
        observer: LoginObserver,
    ) -> Result<Self, FetchError> {
        let misfit = |reason: String| FetchError::new(FailureClass::Misconfigured).with_source(reason);
        let wire = Wire::new(Arc::clone(transport), &auth.addr, auth.namespace.as_deref(), bounds.attempt_timeout);
        let wire = Arc::new(wire.map_err(|error| misfit(error.to_string()))?);
        let proof = proof(auth, settings, transport).map_err(misfit)?;
        let identity: Arc<str> = describe(auth, &proof).into();
        let own_identity = matches!(proof, Proof::Kubernetes { .. });
        let login = Arc::new(Login { wire: Arc::clone(&wire), proof, deadline: bounds.login_deadline });
        let session = Session::new(Arc::clone(&login) as _, Arc::clone(&identity), bounds.login_deadline, observer);
        let kv_version = match auth.kv_version {
            Some(1) => Some(Kv::V1),
            Some(2) => Some(Kv::V2),
            _ => None,
        };
        let (mounts, denial_login) = (Mounts::default(), Mutex::default());
        Ok(Self { wire, login, session, mounts, kv_version, own_identity, identity, denial_login })
    }

    /// One read, repeated once with another token when the first one was the reason for a denial.
    async fn read(&self, path: &SecretPath, wanted: Wanted) -> Result<Document, FetchError> {
        let started = Instant::now();
        let token = self.session.token().await?;
        match self.read_with_retries(&token, path, wanted).await {
            Err(denied) if denied.class == FailureClass::Denied => match self.replacement(&token, started).await? {
                Some(token) => {
                    // What this identity may see of the mounts may have changed as well.
                    self.mounts.forget(path);
                    self.read_with_retries(&token, path, wanted).await
                }
                None => Err(denied),
            },
            outcome => outcome,
        }
    }

    /// Another token for a denied one, if the token may be the reason; `None` = the denial stands.
    async fn replacement(&self, token: &Arc<Token>, started: Instant) -> Result<Option<Arc<Token>>, FetchError> {
        let is_new = token.age() <= started.elapsed();
        match (self.login.pulse(token).await?, self.login.renews_identity()) {
            (Pulse::Dead, false) => Err(FetchError::new(FailureClass::Unauthenticated).with_code("token_dead")),
            (Pulse::Alive, false) => Ok(None),
            (Pulse::Alive, true) if is_new || !self.may_log_in_for_denial() => Ok(None),
            (Pulse::Alive | Pulse::Dead, true) => self.session.token_instead_of(token).await.map(Some),
        }
    }

    fn may_log_in_for_denial(&self) -> bool {
        let mut last = self.denial_login.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= DENIAL_LOGIN_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    async fn read_with_retries(
        &self,
        token: &Token,
        path: &SecretPath,
        wanted: Wanted,
    ) -> Result<Document, FetchError> {
        let mut retries = Retries::default();
        loop {
            let error = match self.read_once(token.header(), path, wanted).await {
                Ok(document) => return Ok(document),
                Err(error) => error,
            };
            match retries.pause(&error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn read_once(&self, token: &HeaderValue, path: &SecretPath, wanted: Wanted) -> Result<Document, FetchError> {
        let plan = self.mounts.plan(&self.wire, token, path, self.kv_version, self.own_identity).await?;
        match self.try_forms(token, &plan.forms, wanted).await {
            Err(error) if plan.remembered && error.class == FailureClass::Gone => {
                self.mounts.forget(path);
                let again = self.mounts.plan(&self.wire, token, path, self.kv_version, self.own_identity).await?;
                if again.forms == plan.forms { Err(error) } else { self.try_forms(token, &again.forms, wanted).await }
            }
            outcome => outcome,
        }
    }

    /// Tries `forms` in turn. Where none is answered, an absence outweighs a denial: only the right form is granted.
    async fn try_forms(&self, token: &HeaderValue, forms: &[Form], wanted: Wanted) -> Result<Document, FetchError> {
        let mut failures = Vec::with_capacity(forms.len());
        for form in forms {
            match self.read_form(token, form, wanted).await {
                Ok(document) => return Ok(document),
                Err(error) => match weight(&error) {
                    Some(weight) => failures.push((weight, error)),
                    None => return Err(error),
                },
            }
        }
        let telling = failures.into_iter().max_by_key(|(weight, _)| *weight);
        Err(telling.map_or_else(|| FetchError::new(FailureClass::Misconfigured).with_code("path"), |(_, error)| error))
    }

    async fn read_form(&self, token: &HeaderValue, form: &Form, wanted: Wanted) -> Result<Document, FetchError> {
        match form {
            Form::V1 { mount, path } => self.read_v1(token, mount, path, wanted, answer::kv1).await,
            Form::Either { mount, path } => match path.strip_prefix("data/") {
                // In the API's own form a version can be asked for; only version 2 answers with one.
                Some(rest) if wanted != Wanted::Current => self.read_v2(token, mount, rest, wanted).await,
                _ => self.read_v1(token, mount, path, wanted, answer::kv_either).await,
            },
            Form::V2 { mount, path } => self.read_v2(token, mount, path, wanted).await,
        }
    }

    async fn read_v1(
        &self,
        token: &HeaderValue,
        mount: &str,
        path: &str,
        wanted: Wanted,
        parse: fn(&[u8]) -> Result<Document, FetchError>,
    ) -> Result<Document, FetchError> {
        if wanted != Wanted::Current {
            return Err(FetchError::new(FailureClass::Misconfigured).with_code("kv1_version"));
        }
        let request = GetSecretRequest { mount: mount.to_owned(), path: path.to_owned() };
        parse(&self.wire.call(&request, token).await?.body)
    }

    async fn read_v2(
        &self,
        token: &HeaderValue,
        mount: &str,
        path: &str,
        wanted: Wanted,
    ) -> Result<Document, FetchError> {
        let read = async |version| {
            let request = ReadSecretRequest { mount: mount.to_owned(), path: path.to_owned(), version };
            answer::kv2(&self.wire.call(&request, token).await?.body)
        };
        match wanted {
            Wanted::Current => read(None).await,
            Wanted::Exactly(version) => read(Some(version)).await,
            Wanted::Previous => match read(None).await?.version {
                Some(current) if current > 1 => read(Some(current - 1)).await,
                _ => Err(FetchError::new(FailureClass::Gone).with_code("no_previous")),
            },
        }
    }
}

#[async_trait]
impl SecretManager for Vault {
    async fn fetch(&self, location: &SecretLocation, _known: Option<&Version>) -> Result<Fetched, FetchError> {
        let misfit = |code: &'static str| FetchError::new(FailureClass::Misconfigured).with_code(code);
        let path = SecretPath::parse(&location.path).map_err(|error| misfit("path").with_source(error))?;
        let wanted = Wanted::of(&location.version).ok_or_else(|| misfit("version"))?;
        let document = self.read(&path, wanted).await?;
        // `known` is of no use: a deleted and rewritten secret starts again at version 1 with another value.
        Ok(Fetched::Document {
            value: document.value,
            map: true,
            version: document.version.map(|number| Version(number.to_string().into())),
            not_after: document.not_after,
        })
    }

    fn identity(&self) -> Arc<str> {
        Arc::clone(&self.identity)
    }
}

// === impl Wanted ===

impl Wanted {
    /// `None` when Vault has no such version.
    fn of(selector: &VersionSelector) -> Option<Self> {
        match selector {
            VersionSelector::Current => Some(Self::Current),
            VersionSelector::Previous => Some(Self::Previous),
            // Vault reads version 0 as "the current one", which is not what a pin means.
            VersionSelector::Pinned(number) => number.parse().ok().filter(|number| *number > 0).map(Self::Exactly),
            VersionSelector::Stage(_) => None,
        }
    }
}

/// How much a failure of one form among several says about the secret; `None` = everything, so that no other is tried.
fn weight(error: &FetchError) -> Option<u8> {
    match error.class {
        // A version that was deleted has been found.
        FailureClass::Gone if error.code.as_deref() != Some("404") => None,
        FailureClass::Gone => Some(3),
        FailureClass::Denied => Some(2),
        FailureClass::Misconfigured if error.code.as_deref() == Some("address_refused") => None,
        FailureClass::Misconfigured => Some(1),
        FailureClass::Malformed => Some(0),
        FailureClass::Unauthenticated
        | FailureClass::Disabled
        | FailureClass::Throttled
        | FailureClass::Unavailable
        | FailureClass::Timeout => None,
    }
}

fn proof(auth: &VaultAuth, settings: &VaultSettings, transport: &Transport) -> Result<Proof, String> {
    let copy = |secret: &SecretValue| SecretValue::new(secret.expose().to_vec());
    Ok(match &auth.method {
        VaultMethod::Token { token } => Proof::Token { token: copy(token) },
        VaultMethod::AppRole { role_id, secret_id, mount } => Proof::AppRole {
            mount: auth_mount(mount.as_deref().unwrap_or(&settings.approle_mount))?,
            role_id: Arc::clone(role_id),
            secret_id: copy(secret_id),
        },
        VaultMethod::Kubernetes { role, mount, jwt_file } => Proof::Kubernetes {
            mount: auth_mount(mount.as_deref().unwrap_or(&settings.kubernetes_mount))?,
            role: Arc::clone(role),
            jwt_file: jwt_file.as_deref().map_or_else(|| settings.kubernetes_jwt_file.clone(), PathBuf::from),
            reach: kubernetes_reach(auth, settings, transport)?,
        },
    })
}

/// Whether a token, without outer white space, can be sent at all.
fn is_header_safe(token: &SecretValue) -> bool {
    let bytes = token.expose().trim_ascii();
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic)
}

/// Where a login method is mounted, as the API wants it: no slashes at its ends, no `auth/`.
fn auth_mount(typed: &str) -> Result<String, String> {
    let mount = typed.trim_matches('/');
    let mount = mount.strip_prefix("auth/").unwrap_or(mount);
    if mount.split('/').any(|segment| matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control)) {
        return Err("vault_auth_mount must name a login method's mount, like kubernetes".to_owned());
    }
    Ok(mount.to_owned())
}

/// What must hold for the host that receives the service-account token (CONTRACT 8).
fn kubernetes_reach(auth: &VaultAuth, settings: &VaultSettings, transport: &Transport) -> Result<Reach, String> {
    if settings.kubernetes_allow_addrs.is_empty() {
        return transport
            .policy()
            .reach_opened(&auth.addr)
            .map_err(|refused| format!("vault_addr may not receive the service-account token: {refused}"));
    }
    let tidy = |text: &str| url::Url::parse(text).map(|url| url.as_str().trim_end_matches('/').to_owned()).ok();
    let addr = tidy(auth.addr.as_str());
    if addr.is_some() && settings.kubernetes_allow_addrs.iter().any(|allowed| tidy(allowed) == addr) {
        return Ok(Reach::Admitted);
    }
    Err("vault_addr may not receive the service-account token; add it to managers.vault.kubernetes_allow_addrs"
        .to_owned())
}

/// The identity for operators: method, name and place. Never a secret.
fn describe(auth: &VaultAuth, proof: &Proof) -> String {
    let mut text = match proof {
        Proof::Token { .. } => "token".to_owned(),
        Proof::AppRole { role_id, mount, .. } => format!("approle {} on {mount}", shortened(role_id)),
        Proof::Kubernetes { role, mount, .. } => format!("kubernetes role {role} on {mount}"),
    };
    let _ = write!(text, " at {}", auth.addr.as_str().trim_end_matches('/'));
    if let Some(namespace) = auth.namespace.as_deref() {
        let _ = write!(text, " namespace {}", namespace.trim_matches('/'));
    }
    text
}

/// A role id names an identity, but some treat it as half a secret.
fn shortened(role_id: &str) -> String {
    if role_id.chars().count() <= 12 {
        return role_id.to_owned();
    }
    format!("{}…", role_id.chars().take(8).collect::<String>())
}
