//! The login of one identity: made once for everyone who waits, kept alive at two thirds of its lease, never hammered.
//!
//! A login runs in a task of its own: whoever waits for it may leave, and it may last longer than a fetch. A refused login
//! is not repeated for minutes, because managers lock accounts out. A token in use is only ever replaced by a better one:
//! a renewal or a login that fails changes nothing until the lease ends.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use super::{FailureClass, FetchError, retry::Retries};

mod keeper;
mod token;

pub(super) use token::{Grant, Lease, Token};

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

/// Why a login failed.
#[derive(Debug)]
pub(super) struct LoginError {
    /// What those who wait are told.
    pub(super) error: FetchError,
    /// The manager looked at the identity and said no: counts towards a lock-out.
    pub(super) refused: bool,
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
pub(super) struct Verdict {
    class: FailureClass,
    code: Option<Arc<str>>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
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
        self.report(&result);
        let mut state = self.state();
        state.running = None;
        match result {
            Ok((token, lease)) => {
                state.strikes = 0;
                state.refused = None;
                state.current = Some(Held { token: Arc::clone(&token), ends: lease.ends() });
                let keeper = tokio::spawn(keeper::keep(Arc::downgrade(self), Arc::clone(&token), lease));
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
            Ok((_, lease)) => {
                (self.observer)(None);
                tracing::info!(identity, lease_secs = lease.seconds(), "logged in at a secret manager");
            }
            Err(LoginError { error, refused }) => {
                (self.observer)(Some(error.class));
                let (class, error) = (error.class.as_str(), error as &dyn std::error::Error);
                tracing::warn!(identity, class, refused, error, "login at a secret manager failed");
            }
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

#[cfg(test)]
mod tests;
