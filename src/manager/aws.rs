//! What the managers of AWS share: identities, regions, the SDK's way out, the meaning of failures.
//!
//! `accessKey` is the key it names and nothing else. `serviceRole` is the sidecar's own identity ([`chain`]). `assumedRole`
//! is a role that the sidecar's own identity assumes; its external id is the operator's if the operator set one. Of the
//! environment's settings only identity and region count: `AWS_ENDPOINT_URL` and its kin would redirect signed requests
//! silently and are not read, `managers.aws.endpoint_url` and `.sts_endpoint_url` are.
//! Source: the SDKs' and Tools Reference Guide of AWS, credential providers.

mod caller;
mod chain;
mod failure;
mod http;
mod keys;
mod place;
mod sts;

use std::{
    fmt,
    sync::{Arc, Once},
};

pub(super) use self::{
    caller::Caller,
    failure::{of_answer, of_sdk},
    http::SdkHttp,
    place::{Partition, Region},
};
use self::{
    caller::{Login, Role},
    chain::{Chain, Source},
    place::Arn,
    sts::Sts,
};
use super::{
    FailureClass, FetchError, Settings,
    registry::{Ambient, AwsSettings},
    session::{Authority, LoginObserver, Session},
};
use crate::{
    egress::{Reach, Transport},
    model::{AwsAuth, AwsMethod},
    secret::SecretValue,
};

/// Variables that redirect the SDKs of AWS. Not read; whoever sets them is told.
const IGNORED_VARIABLES: [&str; 4] =
    ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_STS"];

/// Longest name of a role's session (STS API, `RoleSessionName`).
const MAX_SESSION_NAME: usize = 64;

/// A service that secrets are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// `aws_sm`.
    SecretsManager,
    /// `aws_ssm`.
    ParameterStore,
}

/// The identities that references to one service may use. One for each service: they share nothing but connections.
pub(super) struct Identities {
    service: Service,
    settings: AwsSettings,
    bounds: Settings,
    transport: Arc<Transport>,
    sts: Arc<Sts>,
    /// The sidecar's own identity.
    own: Arc<Login>,
    /// Which one it is, for people.
    own_description: String,
    /// Whether it is a role's session, and a role that it assumes lasts an hour at most.
    own_is_role_session: bool,
    session_name: Arc<str>,
    observer: Arc<dyn Fn(Option<FailureClass>) + Send + Sync>,
    announced: Once,
    announced_own: Once,
}

// === impl Service ===

impl Service {
    /// As in ARNs.
    pub(super) const fn in_arns(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsmanager",
            Self::ParameterStore => "ssm",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::SecretsManager => "managers.aws_sm",
            Self::ParameterStore => "managers.aws_ssm",
        }
    }
}

// === impl Identities ===

impl Identities {
    /// Nothing is asked before the first use; `observer` is told of every login.
    pub(super) fn new(
        service: Service,
        settings: &AwsSettings,
        bounds: &Settings,
        transport: &Arc<Transport>,
        observer: LoginObserver,
    ) -> Self {
        let sts = Arc::new(Sts::new(settings, bounds, transport));
        let session_name: Arc<str> = session_name(settings.environment.get("HOSTNAME").as_deref()).into();
        let source = Source::of(&settings.environment, &session_name);
        let (renews, own_is_role_session) = (source.renews(), source.is_role_session());
        let mut own_description = source.to_string();
        let shadowed = source.shadowed(&settings.environment);
        if !shadowed.is_empty() {
            own_description.push_str(&format!(" (shadows {})", shadowed.join(", ")));
        }
        let near = SdkHttp::new(transport, Reach::Fixed, bounds.attempt_timeout);
        let chain = Chain::new(source, Arc::clone(&sts), near, default_region(settings));
        let observer: Arc<dyn Fn(Option<FailureClass>) + Send + Sync> = observer.into();
        let own = log_in_with(chain, &own_description, renews, bounds, &observer);
        Self {
            service,
            settings: settings.clone(),
            bounds: *bounds,
            transport: Arc::clone(transport),
            sts,
            own: Arc::new(own),
            own_description,
            own_is_role_session,
            session_name,
            observer,
            announced: Once::new(),
            announced_own: Once::new(),
        }
    }

    /// Whether a reference of this shape to `path` can and may be used. Without a path, what can be told without one.
    ///
    /// # Errors
    /// A reason for people, naming the setting that would change it.
    pub(super) fn admit(&self, auth: &AwsAuth, path: Option<&str>) -> Result<(), String> {
        let place = path.map_or(Ok(()), |path| self.region(auth.region.as_deref(), path).map(drop));
        let own = path.map_or(Ok(()), |path| self.admit_own_identity(auth, path));
        let reasons: Vec<String> =
            [place.err(), own.err(), self.admit_role(auth).err()].into_iter().flatten().collect();
        if !reasons.is_empty() {
            return Err(reasons.join("; "));
        }
        // A snapshot is admitted when it is loaded, so that who the sidecar is stands in the log before it is asked.
        self.announce(auth);
        Ok(())
    }

    fn admit_own_identity(&self, auth: &AwsAuth, path: &str) -> Result<(), String> {
        match auth.method {
            AwsMethod::AccessKey { .. } => Ok(()),
            AwsMethod::AssumedRole { .. } | AwsMethod::ServiceRole => self.ambient().check(path, self.service.key()),
        }
    }

    fn admit_role(&self, auth: &AwsAuth) -> Result<(), String> {
        let AwsMethod::AssumedRole { role_arn, external_id } = &auth.method else { return Ok(()) };
        if role_arn.is_empty() {
            // Still sealed; judged when it is opened.
            return Ok(());
        }
        let role = Arn::parse(role_arn).map_err(|reason| format!("aws_role_arn {reason}"))?;
        let region = self.region_without_arn(auth.region.as_deref())?;
        if role.partition != region.partition() {
            return Err("aws_role_arn lies in another partition than aws_region".to_owned());
        }
        match (external_id.as_ref().and_then(SecretValue::expose_str), self.settings.external_id.as_deref()) {
            // An empty one is still sealed.
            (Some(named), Some(fixed)) if !named.is_empty() && named != fixed => {
                Err("aws_external_id differs from managers.aws.external_id, which holds for every role".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The region that `path` is asked for in: its ARN's, else `named` (`aws_region`), else `managers.aws.region`, else the
    /// environment's.
    ///
    /// # Errors
    /// A reason for people.
    pub(super) fn region(&self, named: Option<&str>, path: &str) -> Result<Region, String> {
        if !path.starts_with("arn:") {
            return self.region_without_arn(named);
        }
        let arn = Arn::parse(path).map_err(|reason| format!("secret_path {reason}"))?;
        if arn.service != self.service.in_arns() {
            return Err(format!("secret_path is an ARN of another service than {}", self.service.in_arns()));
        }
        arn.region.ok_or_else(|| "secret_path is an ARN without a region".to_owned())
    }

    fn region_without_arn(&self, named: Option<&str>) -> Result<Region, String> {
        match named {
            Some(text) => Region::new(text).ok_or_else(|| "aws_region is no region".to_owned()),
            None => default_region(&self.settings).ok_or_else(|| {
                "no region: set aws_region, managers.aws.region or AWS_REGION, or name the secret by its ARN".to_owned()
            }),
        }
    }

    /// The identity of `auth`. Nothing is asked before its first use.
    ///
    /// # Errors
    /// [`FailureClass::Misconfigured`] when there is none.
    pub(super) fn caller(&self, auth: &AwsAuth) -> Result<Caller, FetchError> {
        match &auth.method {
            AwsMethod::AccessKey { access_key_id, secret_access_key } => {
                let text = |secret: &SecretValue| secret.expose_str().unwrap_or_default().to_owned();
                Ok(Caller::by_key(keys::fixed(text(access_key_id), text(secret_access_key), None)))
            }
            AwsMethod::AssumedRole { role_arn, external_id } => {
                let misfit = |reason: String| FetchError::new(FailureClass::Misconfigured).with_source(reason);
                let named = external_id.as_ref().map(|id| SecretValue::new(id.expose().to_vec()));
                let fixed = || self.settings.external_id.clone().map(SecretValue::from);
                let role = Role {
                    base: Arc::clone(&self.own),
                    sts: Arc::clone(&self.sts),
                    region: self.region_without_arn(auth.region.as_deref()).map_err(misfit)?,
                    arn: Arc::clone(role_arn),
                    external_id: named.or_else(fixed),
                    session_name: Arc::clone(&self.session_name),
                };
                let chained = if self.own_is_role_session { ", chained: one hour at most" } else { "" };
                let description = format!("assumedRole {role_arn} from {}{chained}", self.own_description);
                let login = log_in_with(role, &description, true, &self.bounds, &self.observer);
                Ok(Caller::by_login(Arc::new(login), description))
            }
            AwsMethod::ServiceRole => {
                Ok(Caller::by_login(Arc::clone(&self.own), format!("serviceRole by {}", self.own_description)))
            }
        }
    }

    /// The SDK's way to the service: to `managers.aws.endpoint_url`, else to regional endpoints, which a reference names.
    pub(super) fn http(&self) -> SdkHttp {
        SdkHttp::new(&self.transport, self.reach(), self.bounds.attempt_timeout)
    }

    /// What must hold for the host of the service.
    pub(super) fn reach(&self) -> Reach {
        // The operator's own address is not judged; a regional one follows from a reference.
        if self.settings.endpoint_url.is_some() { Reach::Fixed } else { Reach::Admitted }
    }

    /// The way out, for requests that are signed by hand.
    pub(super) fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    /// `managers.*`.
    pub(super) fn bounds(&self) -> &Settings {
        &self.bounds
    }

    /// `managers.aws.*`.
    pub(super) fn settings(&self) -> &AwsSettings {
        &self.settings
    }

    fn ambient(&self) -> &Ambient {
        match self.service {
            Service::SecretsManager => &self.settings.ambient_sm,
            Service::ParameterStore => &self.settings.ambient_ssm,
        }
    }

    /// Says once what operators should know of the environment, and whose identity references use.
    fn announce(&self, auth: &AwsAuth) {
        self.announced.call_once(|| {
            let environment = &self.settings.environment;
            let ignored: Vec<_> =
                IGNORED_VARIABLES.into_iter().filter(|name| environment.get(name).is_some()).collect();
            if !ignored.is_empty() {
                let ignored = ignored.join(", ");
                tracing::warn!(
                    ignored,
                    "AWS endpoints are not taken from the environment; set managers.aws.endpoint_url or .sts_endpoint_url"
                );
            }
        });
        match auth.method {
            AwsMethod::AccessKey { .. } => {}
            AwsMethod::AssumedRole { .. } | AwsMethod::ServiceRole => self.announced_own.call_once(|| {
                tracing::info!(
                    manager = self.service.key().trim_start_matches("managers."),
                    identity = self.own_description,
                    chained = self.own_is_role_session,
                    "references use the sidecar's own AWS identity"
                );
            }),
        }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities")
            .field("service", &self.service)
            .field("own", &self.own_description)
            .finish_non_exhaustive()
    }
}

fn log_in_with(
    authority: impl Authority + 'static,
    description: &str,
    renews: bool,
    bounds: &Settings,
    observer: &Arc<dyn Fn(Option<FailureClass>) + Send + Sync>,
) -> Login {
    let observer = Arc::clone(observer);
    let observer: LoginObserver = Box::new(move |failure| observer(failure));
    let session = Session::new(Arc::new(authority) as _, description.into(), bounds.login_deadline, observer);
    Login::new(session, renews)
}

/// For references that name no region.
fn default_region(settings: &AwsSettings) -> Option<Region> {
    let environment = |name| settings.environment.get(name);
    let region = settings.region.clone().or_else(|| environment("AWS_REGION"));
    region.or_else(|| environment("AWS_DEFAULT_REGION")).and_then(|region| Region::new(&region))
}

/// What CloudTrail shows of an assumed role: which sidecar it was.
fn session_name(host: Option<&str>) -> String {
    let host = host.map_or_else(|| std::process::id().to_string(), str::to_owned);
    let valid = |letter: &char| letter.is_ascii_alphanumeric() || "_+=,.@-".contains(*letter);
    format!("sidekey-{}", host.chars().filter(valid).collect::<String>()).chars().take(MAX_SESSION_NAME).collect()
}
