//! The seam between secret managers and the rest.
//!
//! A [`SecretManager`] stands for one *identity*: manager type and the whole `auth_config`. It owns its login and its token,
//! so that a rotated credential is a new object and two credentials never share anything. It reads, and nothing else.
//!
//! # The contract every manager keeps
//!
//! - `fetch` is one read past every cache, bounded by the deadline of [`Settings`]; retries and logins happen inside it.
//! - It returns the whole document. Picking a key comes later, so that five keys of one JSON secret cost one read.
//! - Errors say what to do ([`FailureClass`]), not who said it. Classes come from codes and bodies, not from the status alone.
//! - An expired login is renewed once and the read repeated; only then is it `Denied` or `Unauthenticated`.
//! - No text of a manager goes into an error's `Display`: a short machine code at most.
//! - Cancelling `fetch` leaves the object usable.
//!
//! A new manager is one file, one arm in [`registry`], one Cargo feature, and one row in `tests/it/contract.rs`.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "aws")]
mod aws_sm;
#[cfg(feature = "aws")]
mod aws_ssm;
#[cfg(feature = "azure")]
mod azure_kv;
pub mod fake;
mod file;
#[cfg(feature = "gcp")]
mod gcp_sm;
mod guard;
#[cfg(any(feature = "azure", feature = "vault"))]
mod jwt;
pub mod registry;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
mod retry;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
mod session;
#[cfg(feature = "vault")]
mod vault;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

pub use self::guard::{Budget, Budgets};
use crate::{
    egress::SendError,
    model::{Reference, SecretLocation},
    secret::SecretValue,
};

/// One identity at one secret manager. See the module for the contract.
#[async_trait]
pub trait SecretManager: fmt::Debug + Send + Sync {
    /// One read, past every cache. `known` lets a manager answer [`Fetched::Unchanged`] from a cheap check.
    ///
    /// # Errors
    /// [`FetchError`], classed.
    async fn fetch(&self, location: &SecretLocation, known: Option<&Version>) -> Result<Fetched, FetchError>;

    /// The identity in use, for operators: how it logged in and where (`approle gw at https://vault:8200`). Never a secret.
    fn identity(&self) -> Arc<str>;

    /// Who shares the quota of reads, when that is more than this identity: an account and Region, a vault. May become known
    /// only after a login. `None` = the identity has a quota of its own.
    fn budget(&self) -> Option<BudgetKey> {
        None
    }
}

/// Names a quota that several identities at one kind of manager share (`123456789012/eu-west-1`). Never a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BudgetKey(pub Arc<str>);

/// Finds the manager object of a reference. One implementation for the process ([`registry`]), one for tests ([`fake`]).
pub trait Managers: fmt::Debug + Send + Sync {
    /// The manager object for the identity of `reference`, made on first use.
    ///
    /// # Errors
    /// [`FailureClass::Misconfigured`] when no such object can be made.
    fn manager(&self, reference: &Reference) -> Result<Arc<dyn SecretManager>, FetchError>;
}

/// What a read returned.
#[derive(Debug)]
pub enum Fetched {
    /// The known version is still the current one.
    Unchanged,
    /// The document.
    Document {
        /// The whole value: text, or the JSON object of a Vault map.
        value: SecretValue,
        /// Whether `value` is a map by nature (Vault KV): without a `secret_key` it is usable only as `json`.
        map: bool,
        /// The manager's own name for this version.
        version: Option<Version>,
        /// Wall-clock end of validity, when the manager states one.
        not_after: Option<SystemTime>,
    },
}

/// A manager's name for one version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub Arc<str>);

/// Why a read failed.
#[derive(Debug)]
pub struct FetchError {
    /// What to do about it.
    pub class: FailureClass,
    /// When the manager said to come back.
    pub retry_after: Option<Duration>,
    /// The manager's own short code (`403`, `SecretDisabled`), for the log. Never its prose, never a secret.
    pub code: Option<Arc<str>>,
    /// What happened, for the log; must not hold a secret or the manager's answer.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a failure means for the caller and for a remembered value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The secret, or the version, does not exist (any more).
    Gone,
    /// The identity is good and may not read this.
    Denied,
    /// The identity itself was refused, after a new login.
    Unauthenticated,
    /// It exists and is disabled, expired or not yet valid.
    Disabled,
    /// Too many requests.
    Throttled,
    /// Down, unreachable, sealed, or an answer of 5xx.
    Unavailable,
    /// No answer within the deadline.
    Timeout,
    /// An answer that cannot be used.
    Malformed,
    /// The reference itself is wrong: path, address, version.
    Misconfigured,
}

/// `managers.*`: bounds that hold for every manager.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `managers.timeout_secs`: one attempt.
    pub attempt_timeout: Duration,
    /// `managers.deadline_secs`: one fetch with its retries.
    pub fetch_deadline: Duration,
    /// `managers.login_deadline_secs`: one login, in a task of its own.
    pub login_deadline: Duration,
    /// `managers.max_in_flight`: concurrent reads of one identity.
    pub max_in_flight: usize,
    /// `managers.<type>.budget_per_sec` and `.budget_burst`: reads this process allows itself.
    pub budgets: Budgets,
}

// === impl FailureClass ===

impl FailureClass {
    /// The spelling of logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Denied => "denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Disabled => "disabled",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::Misconfigured => "misconfigured",
        }
    }
}

// === impl FetchError ===

impl FetchError {
    /// An error of `class` and nothing more.
    pub const fn new(class: FailureClass) -> Self {
        Self { class, retry_after: None, code: None, source: None }
    }

    /// Adds the manager's short code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Arc<str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds the time to wait.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }
}

impl From<SendError> for FetchError {
    fn from(error: SendError) -> Self {
        let (class, code) = match &error {
            SendError::Refused(_) => (FailureClass::Misconfigured, "address_refused"),
            SendError::Timeout => (FailureClass::Timeout, "attempt"),
            SendError::Connect(_) => (FailureClass::Unavailable, "connect"),
            SendError::Tls(_) => (FailureClass::Unavailable, "tls"),
            SendError::Broken(_) => (FailureClass::Unavailable, "broken"),
            SendError::TooLarge(_) => (FailureClass::Malformed, "too_large"),
        };
        Self::new(class).with_code(code).with_source(error)
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "secret fetch failed: {} ({code})", self.class.as_str()),
            None => write!(f, "secret fetch failed: {}", self.class.as_str()),
        }
    }
}

impl std::error::Error for FetchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
