//! Who calls AWS: a fixed access key, or a session that is replaced when it turns out to be over.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use tokio::time::Instant;

use super::{chain::verdict, keys, place::Region, sts::Sts};
use crate::{
    manager::{
        FailureClass, FetchError,
        retry::Retries,
        session::{Authority, Grant, Lease, LoginError, Session, Token},
    },
    secret::SecretValue,
};

/// A living session that is denied is replaced by a new login at most this often: revoked sessions are told apart from
/// denials only by a new one, but a denial that stays must not turn every fetch into a login.
const DENIAL_LOGIN_EVERY: Duration = Duration::from_secs(60);

/// Rest after a refused login. STS locks nobody out; a mended trust policy should not have to wait for long.
const REST: Duration = Duration::from_secs(30);

/// One identity at AWS.
#[derive(Debug)]
pub(in crate::manager) struct Caller {
    proof: Proof,
    description: Arc<str>,
}

enum Proof {
    /// `accessKey`: these keys and no others.
    Key(Credentials),
    /// Everything else.
    Login(Arc<Login>),
}

/// A session with what it takes to replace it.
#[derive(Debug)]
pub(super) struct Login {
    session: Session,
    /// Whether another login brings other keys.
    renews: bool,
    /// When a denial last led to a new login.
    denial_login: Mutex<Option<Instant>>,
}

/// A role, and the identity that assumes it.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) base: Arc<Login>,
    pub(super) sts: Arc<Sts>,
    pub(super) region: Region,
    pub(super) arn: Arc<str>,
    pub(super) external_id: Option<SecretValue>,
    pub(super) session_name: Arc<str>,
}

// === impl Caller ===

impl Caller {
    pub(super) fn by_key(key: Credentials) -> Self {
        let description = format!("accessKey {}", keys::shortened(key.access_key_id())).into();
        Self { proof: Proof::Key(key), description }
    }

    pub(super) fn by_login(login: Arc<Login>, description: String) -> Self {
        Self { proof: Proof::Login(login), description: description.into() }
    }

    /// For operators: how this identity proves itself, and which one won. Never a secret.
    pub(in crate::manager) fn description(&self) -> Arc<str> {
        Arc::clone(&self.description)
    }

    /// The keys in use, after a login if there is none.
    ///
    /// # Errors
    /// [`FetchError`] of the login.
    pub(in crate::manager) async fn credentials(&self) -> Result<Credentials, FetchError> {
        match &self.proof {
            Proof::Key(key) => Ok(key.clone()),
            Proof::Login(login) => Ok(keys::credentials(&*login.session.token().await?)),
        }
    }

    /// Runs `operation` with keys, again after a failure that may pass, and once with new keys when the first ones may have
    /// been the reason.
    ///
    /// # Errors
    /// [`FetchError`] of the login or the last attempt.
    pub(in crate::manager) async fn call<T, O, F>(&self, operation: O) -> Result<T, FetchError>
    where
        O: Fn(Credentials) -> F + Sync,
        F: Future<Output = Result<T, FetchError>> + Send,
    {
        match &self.proof {
            Proof::Key(key) => patiently(&operation, key.clone()).await,
            Proof::Login(login) => login.call(|credentials| patiently(&operation, credentials)).await,
        }
    }
}

// === impl Login ===

impl Login {
    pub(super) fn new(session: Session, renews: bool) -> Self {
        Self { session, renews, denial_login: Mutex::default() }
    }

    /// Runs `operation` with keys, and once more with new ones when the first ones may have been the reason of a failure.
    async fn call<T, O, F>(&self, operation: O) -> Result<T, FetchError>
    where
        O: Fn(Credentials) -> F + Sync,
        F: Future<Output = Result<T, FetchError>> + Send,
    {
        let started = Instant::now();
        let token = self.session.token().await?;
        match operation(keys::credentials(&token)).await {
            Err(error) if self.may_be_over(&error, &token, started) => {
                let token = self.session.token_instead_of(&token).await?;
                operation(keys::credentials(&token)).await
            }
            outcome => outcome,
        }
    }

    fn may_be_over(&self, error: &FetchError, token: &Token, started: Instant) -> bool {
        let is_new = token.age() <= started.elapsed();
        if !self.renews || is_new {
            return false;
        }
        match error.class {
            FailureClass::Unauthenticated => true,
            FailureClass::Denied => self.may_log_in_for_denial(),
            FailureClass::Gone
            | FailureClass::Disabled
            | FailureClass::Throttled
            | FailureClass::Unavailable
            | FailureClass::Timeout
            | FailureClass::Malformed
            | FailureClass::Misconfigured => false,
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
}

// === impl Role ===

#[async_trait]
impl Authority for Role {
    async fn log_in(&self) -> Result<Grant, LoginError> {
        let external_id = self.external_id.as_ref().and_then(SecretValue::expose_str);
        let assume = |base| self.sts.assume_role(base, &self.region, &self.arn, &self.session_name, external_id);
        // A base that cannot log in is no verdict on the role.
        self.base.session.token().await.map_err(LoginError::accident)?;
        self.base.call(assume).await.map_err(verdict)
    }

    async fn renew(&self, _: &Token) -> Result<Lease, FetchError> {
        // No grant of this authority is renewable.
        Err(FetchError::new(FailureClass::Unauthenticated).with_code("not_renewable"))
    }

    async fn look_up(&self, _: &Token) -> Result<Lease, FetchError> {
        Ok(Lease::Endless)
    }

    fn renews_identity(&self) -> bool {
        true
    }

    fn patience(&self, _: u32) -> Duration {
        REST
    }
}

// === impl Proof ===

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => f.write_str("Key(<redacted>)"),
            Self::Login(login) => login.fmt(f),
        }
    }
}

/// Runs `operation` with `credentials`, again after a failure that may pass.
async fn patiently<T, O, F>(operation: &O, credentials: Credentials) -> Result<T, FetchError>
where
    O: Fn(Credentials) -> F + Sync,
    F: Future<Output = Result<T, FetchError>> + Send,
{
    let mut retries = Retries::default();
    loop {
        let error = match operation(credentials.clone()).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        match retries.pause(&error) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error),
        }
    }
}
