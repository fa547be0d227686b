//! The login of one identity: made once for everyone who waits, kept alive at two thirds of its lease, never hammered.
//!
//! A login runs in a task of its own: whoever waits for it may leave, and it may last longer than a fetch. A refused login
//! is not repeated for minutes, because managers lock accounts out. A token in use is only ever replaced by a better one:
//! a renewal or a login that fails changes nothing until the lease ends.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use tokio::{sync::watch, task::AbortHandle, time::Instant};
use zeroize::Zeroizing;

use super::{
    FailureClass, FetchError,
    retry::{Retries, jitter, transient},
};
use crate::secret::SecretValue;

/// Longest lease that is taken at its word; what is longer is renewed as if it ended then.
const MAX_LEASE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Pause before a failed renewal is tried again, at least; shorter only when the lease ends earlier.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Pause before the lease of a fixed token is asked for again.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(30);

/// Speaks to the place that hands out tokens.
#[async_trait]
pub(super) trait Authority: fmt::Debug + Send + Sync {
    /// Proves the identity and receives a token. One attempt.
    ///
    /// # Errors
    /// [`LoginError`]; `refused` tells a verdict on the identity from an accident.
    async fn log_in(&self) -> Result<Grant, LoginError>;

    /// Extends the lease of `token`. One attempt.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn renew(&self, token: &Token) -> Result<Lease, FetchError>;

    /// The lease of a token that came without one; not asked otherwise.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn look_up(&self, token: &Token) -> Result<Lease, FetchError>;

    /// Whether [`Authority::log_in`] brings a new token; a fixed token is always the same.
    fn renews_identity(&self) -> bool;

    /// How long not to try after `strikes` refused logins in a row (at least 1).
    fn patience(&self, strikes: u32) -> Duration;
}

/// What a login brings.
#[derive(Debug)]
pub(super) struct Grant {
    /// The token as the manager wrote it.
    pub(super) token: SecretValue,
    /// How long it lasts.
    pub(super) lease: Lease,
}

/// How long a token lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// Not said yet.
    Unknown,
    /// It does not end.
    Endless,
    /// It ends.
    Ends {
        /// From now.
        after: Duration,
        /// Whether it can be extended.
        renewable: bool,
    },
}

/// Why a login failed.
#[derive(Debug)]
pub(super) struct LoginError {
    /// What those who wait are told.
    pub(super) error: FetchError,
    /// The manager looked at the identity and said no: counts towards a lock-out.
    pub(super) refused: bool,
}

/// One token, ready to be sent. Shared by the fetches that use it and wiped when the last one lets go.
pub(super) struct Token {
    header: HeaderValue,
    issued: Instant,
}

/// The login of one identity. Dropping it stops the renewals.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
}

/// Told when a login ends: the class of its failure, `None` when it succeeded.
pub(super) type LoginObserver = Box<dyn Fn(Option<FailureClass>) + Send + Sync>;

struct Shared {
    authority: Arc<dyn Authority>,
    /// The identity, for the log.
    identity: Arc<str>,
    deadline: Duration,
    observer: LoginObserver,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Held>,
    running: Option<watch::Receiver<Option<Outcome>>>,
    strikes: u32,
    /// Until when a refused login is not repeated.
    refused: Option<(Instant, Verdict)>,
    keeper: Option<AbortHandle>,
}

struct Held {
    token: Arc<Token>,
    ends: Option<Instant>,
}

/// A login's end, for everyone who waits.
type Outcome = Result<Arc<Token>, Verdict>;

/// The shareable part of a [`FetchError`].
#[derive(Clone, Debug)]
struct Verdict {
    class: FailureClass,
    code: Option<Arc<str>>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

// === impl Token ===

impl Token {
    /// The token as a sensitive header value.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Time since the login that brought it.
    pub(super) fn age(&self) -> Duration {
        self.issued.elapsed()
    }

    /// `None` when no header can carry it.
    fn new(token: &SecretValue) -> Option<Self> {
        let text = token.expose().trim_ascii();
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        bytes.extend_from_slice(text);
        if bytes.is_empty() {
            return None;
        }
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
        header.set_sensitive(true);
        Some(Self { header, issued: Instant::now() })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("age", &self.age()).finish_non_exhaustive()
    }
}

// === impl Session ===

impl Session {
    /// A session of `identity` that has not logged in yet; the first [`Session::token`] does. `deadline` bounds one login.
    pub(super) fn new(
        authority: Arc<dyn Authority>,
        identity: Arc<str>,
        deadline: Duration,
        observer: LoginObserver,
    ) -> Self {
        Self { shared: Arc::new(Shared { authority, identity, deadline, observer, state: Mutex::default() }) }
    }

    /// The token in use, after a login if there is none. Dropping the future leaves the login running.
    ///
    /// # Errors
    /// [`FetchError`] of the login; [`FailureClass::Unauthenticated`] without asking while a refused login rests.
    pub(super) async fn token(&self) -> Result<Arc<Token>, FetchError> {
        self.shared.token(None).await
    }

    /// A token that is not `refused`: one that came meanwhile, or a new login's.
    ///
    /// # Errors
    /// As [`Session::token`].
    pub(super) async fn token_instead_of(&self, refused: &Arc<Token>) -> Result<Arc<Token>, FetchError> {
        self.shared.token(Some(refused)).await
    }
}

// === impl Shared ===

impl Shared {
    async fn token(self: &Arc<Self>, refused: Option<&Arc<Token>>) -> Result<Arc<Token>, FetchError> {
        let mut running = {
            let mut state = self.state();
            if let Some(token) = state.usable(refused, self.authority.renews_identity()) {
                return Ok(token);
            }
            self.log_in(&mut state).map_err(FetchError::from)?
        };
        let outcome = running.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match outcome {
            Ok(Some(outcome)) => outcome.map_err(FetchError::from),
            // The login's task is gone without a word; the next one who asks starts another.
            Ok(None) | Err(_) => {
                self.state().running.take_if(|running| running.has_changed().is_err());
                Err(FetchError::new(FailureClass::Unavailable).with_code("login_lost"))
            }
        }
    }

    /// The login under way, or a new one, unless a refused one still rests.
    fn log_in(self: &Arc<Self>, state: &mut State) -> Result<watch::Receiver<Option<Outcome>>, Verdict> {
        if let Some(running) = &state.running {
            return Ok(running.clone());
        }
        if let Some((until, verdict)) = &state.refused {
            let rest = until.saturating_duration_since(Instant::now());
            if !rest.is_zero() {
                return Err(Verdict { retry_after: Some(rest), ..verdict.clone() });
            }
        }
        let (report, running) = watch::channel(None);
        state.running = Some(running.clone());
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = this.run_login().await;
            report.send_replace(Some(outcome));
        });
        Ok(running)
    }

    async fn run_login(self: &Arc<Self>) -> Outcome {
        let result = tokio::time::timeout(self.deadline, self.attempt_login()).await;
        let result = result.unwrap_or_else(|_| Err(LoginError::accident(FetchError::new(FailureClass::Timeout))));
        (self.observer)(result.as_ref().err().map(|login| login.error.class));
        self.report(&result);
        let mut state = self.state();
        state.running = None;
        match result {
            Ok((token, lease)) => {
                state.strikes = 0;
                state.refused = None;
                state.current = Some(Held { token: Arc::clone(&token), ends: lease.ends() });
                let keeper = tokio::spawn(keep(Arc::downgrade(self), Arc::clone(&token), lease));
                if let Some(old) = state.keeper.replace(keeper.abort_handle()) {
                    old.abort();
                }
                Ok(token)
            }
            Err(login) => {
                let verdict = Verdict::from(login.error);
                if login.refused {
                    state.strikes = state.strikes.saturating_add(1);
                    let rest = self.authority.patience(state.strikes);
                    state.refused = Some((Instant::now() + rest, verdict.clone()));
                    return Err(Verdict { retry_after: Some(rest), ..verdict });
                }
                Err(verdict)
            }
        }
    }

    fn report(&self, result: &Result<(Arc<Token>, Lease), LoginError>) {
        let identity = &*self.identity;
        match result {
            // A fixed token is taken up, not logged in with.
            Ok(_) if !self.authority.renews_identity() => {}
            Ok((_, lease)) => tracing::info!(identity, lease_secs = lease.seconds(), "logged in at a secret manager"),
            Err(LoginError { error, refused }) => tracing::warn!(
                identity,
                class = error.class.as_str(),
                refused,
                error = error as &dyn std::error::Error,
                "login at a secret manager failed"
            ),
        }
    }

    async fn attempt_login(&self) -> Result<(Arc<Token>, Lease), LoginError> {
        let mut retries = Retries::default();
        loop {
            match self.authority.log_in().await {
                Ok(grant) => {
                    let lease = grant.lease;
                    let unusable = || FetchError::new(FailureClass::Malformed).with_code("token_not_header_safe");
                    let token = Token::new(&grant.token).ok_or_else(|| LoginError::accident(unusable()))?;
                    return Ok((Arc::new(token), lease));
                }
                Err(login) if login.refused => return Err(login),
                Err(login) => match retries.pause(&login.error) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(login),
                },
            }
        }
    }

    /// Takes note of a renewal, unless another login has replaced the token.
    fn renewed(&self, token: &Arc<Token>, ends: Instant) {
        let mut state = self.state();
        if let Some(held) = state.current.as_mut().filter(|held| Arc::ptr_eq(&held.token, token)) {
            held.ends = Some(ends);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(keeper) = self.state().keeper.take() {
            keeper.abort();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("identity", &self.identity).finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    /// The current token, unless it is the `refused` one or its lease is over and a login would bring a new one.
    fn usable(&self, refused: Option<&Arc<Token>>, renews_identity: bool) -> Option<Arc<Token>> {
        let held = self.current.as_ref()?;
        let is_refused = refused.is_some_and(|refused| Arc::ptr_eq(refused, &held.token));
        let is_over = renews_identity && held.ends.is_some_and(|ends| ends <= Instant::now());
        (!is_refused && !is_over).then(|| Arc::clone(&held.token))
    }
}

// === impl Lease ===

impl Lease {
    /// A lease of `seconds`, where 0 means that it does not end.
    pub(super) fn of_seconds(seconds: u64, renewable: bool) -> Self {
        match seconds {
            0 => Self::Endless,
            seconds => Self::Ends { after: Duration::from_secs(seconds).min(MAX_LEASE), renewable },
        }
    }

    fn seconds(self) -> Option<u64> {
        match self {
            Self::Unknown | Self::Endless => None,
            Self::Ends { after, .. } => Some(after.as_secs()),
        }
    }

    fn ends(self) -> Option<Instant> {
        match self {
            Self::Unknown | Self::Endless => None,
            Self::Ends { after, .. } => Some(Instant::now() + after),
        }
    }
}

// === impl LoginError ===

impl LoginError {
    /// The manager's verdict on the identity.
    pub(super) fn refusal(error: FetchError) -> Self {
        Self { error, refused: true }
    }

    /// Anything else.
    pub(super) fn accident(error: FetchError) -> Self {
        Self { error, refused: false }
    }
}

// === impl Verdict ===

impl From<FetchError> for Verdict {
    fn from(error: FetchError) -> Self {
        Self {
            class: error.class,
            code: error.code,
            retry_after: error.retry_after,
            source: error.source.map(Arc::from),
        }
    }
}

impl From<Verdict> for FetchError {
    fn from(verdict: Verdict) -> Self {
        let error = Self::new(verdict.class).with_retry_after(verdict.retry_after);
        let error = match verdict.code {
            Some(code) => error.with_code(code),
            None => error,
        };
        match verdict.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// Renews `token` at two thirds of its lease for as long as the session lives, and logs in anew where renewing ends: not
/// renewable, refused, or shortened because the manager's maximum is near.
async fn keep(session: Weak<Shared>, token: Arc<Token>, mut lease: Lease) {
    while lease == Lease::Unknown {
        let Some(shared) = session.upgrade() else { return };
        match shared.authority.look_up(&token).await {
            Ok(found) => lease = found,
            Err(error) if transient(error.class) => {
                drop(shared);
                tokio::time::sleep(LOOK_UP_PAUSE).await;
            }
            Err(error) => {
                let identity = &*shared.identity;
                let class = error.class.as_str();
                tracing::debug!(identity, class, "the lease of a token is not told, it is not renewed");
                return;
            }
        }
    }
    let Lease::Ends { after: first, mut renewable } = lease else { return };
    let (mut wait, mut ends) = (two_thirds(first), Instant::now() + first);
    loop {
        tokio::time::sleep(wait).await;
        let Some(shared) = session.upgrade() else { return };
        let mut nearly_over = !renewable;
        if renewable {
            match shared.authority.renew(&token).await {
                Ok(Lease::Ends { after, renewable: still }) => {
                    (renewable, ends) = (still, Instant::now() + after);
                    wait = two_thirds(after);
                    nearly_over = !still || after * 2 < first;
                    shared.renewed(&token, ends);
                    tracing::debug!(identity = &*shared.identity, lease_secs = after.as_secs(), "token renewed");
                }
                Ok(Lease::Endless | Lease::Unknown) => return,
                Err(error) => {
                    nearly_over = !transient(error.class);
                    wait = pause_until(ends);
                    tracing::warn!(
                        identity = &*shared.identity,
                        class = error.class.as_str(),
                        error = &error as &dyn std::error::Error,
                        "token not renewed"
                    );
                }
            }
        }
        if nearly_over && shared.authority.renews_identity() {
            let running = { shared.log_in(&mut shared.state()) };
            let Ok(mut running) = running else { return };
            drop(shared);
            if matches!(running.wait_for(Option::is_some).await.as_deref(), Ok(Some(Ok(_)))) {
                // The new token has a keeper of its own.
                return;
            }
            wait = pause_until(ends);
        }
        if Instant::now() >= ends {
            // Over: the next fetch logs in, or learns that a fixed token is dead.
            return;
        }
    }
}

fn two_thirds(lease: Duration) -> Duration {
    (lease * 2 / 3).max(Duration::from_secs(1))
}

/// A pause that leaves several tries before `ends`.
fn pause_until(ends: Instant) -> Duration {
    let rest = ends.saturating_duration_since(Instant::now());
    (rest / 4).max(RENEWAL_PAUSE.min(rest)) + jitter(RENEWAL_PAUSE / 5)
}

#[cfg(test)]
mod tests;
