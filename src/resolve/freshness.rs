//! Decides whether a remembered secret may still be served, and what a failed read does to it. The only judge.
//!
//! Pure: everything is a function of memory, terms and now; no I/O, no clock, no lock. Lifetimes run from the moment the
//! manager answered. Ages are compared, never instants added up, so that no length of time overflows.
//!
//! What always holds: nothing older than `fetched_at + ttl + stale` is served; a failure never replaces a value, at most it
//! takes it away; with a failure remembered, no decision is better than it would be without; a signal from outside ends the
//! freshness of a value and nothing else.

use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use crate::manager::FailureClass;

/// How long after a first denial the confirming read may start at the earliest.
///
/// A single 403 is often a passing fault (policies and roles replicate, 1Password Connect answers 403 under load), so it
/// takes a second one, read with a fresh login, to take a value away.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(2);

/// A manager's `Retry-After` is honoured up to here, so that one wrong header cannot shut a secret out for a day.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A failure is remembered at least this long, whatever the settings say.
const MIN_NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// What is remembered of one document.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// The last good value.
    pub value: Option<Held>,
    /// The failure of the last read; `None` when that read succeeded.
    pub failure: Option<Failure>,
    /// Whether the value was asked for since it was fetched.
    pub used: bool,
    /// Whether a signal came that the secret has changed, after the read of the value began. It is served on, as a stale
    /// one, until it is read again.
    pub expired: bool,
}

/// When a value was fetched and until when the manager says it is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// When the manager answered.
    pub fetched_at: Instant,
    /// The end of validity the manager stated; the value is not served from here on, whatever the terms allow.
    pub ends_at: Option<Instant>,
}

/// A failed read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub class: FailureClass,
    /// When.
    pub at: Instant,
    /// How long no other read is tried; see [`pause`].
    pub pause: Duration,
}

/// What the reference that asks allows.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Soft lifetime: a younger value is fresh. Zero = a read for each request.
    pub ttl: Duration,
    /// `ttl` after jitter, at most `ttl`: whoever asks past it has the value refreshed in the background.
    pub lifetime: Duration,
    /// Time past `ttl` in which the value may still be served.
    pub stale: Duration,
    /// From this part of the lifetime on a used value is refreshed; zero or less = never.
    pub refresh_ahead_ratio: f64,
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve.
    Fresh,
    /// Serve, and refresh in the background before the value goes stale.
    RefreshAhead,
    /// Serve, past the soft lifetime.
    Stale {
        /// Whether to refresh in the background; false while a failure is remembered.
        refresh: bool,
    },
    /// Nothing may be served without a read: wait for one.
    Fetch,
    /// Nothing may be served and the failure of the last read still stands.
    Refused(FailureClass),
}

/// What a failed read does to the remembered value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It stays, and may be served up to the hard bound.
    Keep,
    /// It stays until a second read confirms the denial.
    Suspect,
    /// It is forgotten.
    Evict,
}

// === impl Memory ===

impl Memory {
    /// What to do about a request at `now` under `terms`.
    pub fn judge(&self, terms: &Terms, now: Instant) -> Decision {
        let failure = self.failure.filter(|failure| !failure.remaining(now).is_zero());
        let Some(value) = self.value.filter(|value| value.servable(terms, now)) else {
            return failure.map_or(Decision::Fetch, |failure| Decision::Refused(failure.class));
        };
        if value.age(now) < terms.ttl && !self.expired {
            let due = value.age(now) >= terms.lifetime || self.used && value.nearly_stale(terms, now);
            return if due && failure.is_none() { Decision::RefreshAhead } else { Decision::Fresh };
        }
        match failure {
            None if terms.ttl.is_zero() => Decision::Fetch,
            None => Decision::Stale { refresh: true },
            Some(_) => Decision::Stale { refresh: false },
        }
    }
}

// === impl Held ===

impl Held {
    /// Time since the fetch.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.fetched_at)
    }

    /// Whether the value may be served at all: the hard bound, and the manager's own end.
    pub(super) fn servable(&self, terms: &Terms, now: Instant) -> bool {
        self.age(now) < terms.ttl.saturating_add(terms.stale) && self.ends_at.is_none_or(|end| now < end)
    }

    fn nearly_stale(&self, terms: &Terms, now: Instant) -> bool {
        terms.refresh_ahead_ratio > 0.0 && self.age(now) >= shortened(terms.lifetime, terms.refresh_ahead_ratio)
    }
}

// === impl Failure ===

impl Failure {
    /// Time until another read may be tried; zero when it may be tried now.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.pause.saturating_sub(now.saturating_duration_since(self.at))
    }
}

// === impl Terms ===

impl Terms {
    /// The terms of a reference whose own lifetime is `ttl`, for a fetch with this `seed`.
    ///
    /// The same seed always shortens alike: a document does not become fresh again by asking twice, and documents fetched
    /// together do not expire together.
    pub fn new(settings: &Settings, ttl: Option<Duration>, seed: u64) -> Self {
        let ttl = ttl.unwrap_or(settings.ttl);
        let unit = (seed >> 11) as f64 / (1_u64 << 53) as f64;
        Self {
            ttl,
            lifetime: shortened(ttl, 1.0 - settings.jitter_ratio.clamp(0.0, 1.0) * unit),
            stale: settings.stale,
            refresh_ahead_ratio: settings.refresh_ahead_ratio,
        }
    }
}

/// How long a failure stands: `negative_ttl` (at least a second), or what the manager asked for when that is longer.
pub fn pause(negative_ttl: Duration, retry_after: Option<Duration>) -> Duration {
    let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    negative_ttl.max(MIN_NEGATIVE_TTL).max(asked)
}

/// What a failed read does to the remembered value. `suspected_for` is the time between the first denial and the start of
/// this read; `None` when the value is not under suspicion.
pub fn effect(class: FailureClass, suspected_for: Option<Duration>) -> Effect {
    match class {
        FailureClass::Gone | FailureClass::Disabled | FailureClass::Misconfigured => Effect::Evict,
        FailureClass::Denied => match suspected_for {
            Some(time) if time >= CONFIRM_AFTER => Effect::Evict,
            Some(_) | None => Effect::Suspect,
        },
        FailureClass::Throttled
        | FailureClass::Unavailable
        | FailureClass::Timeout
        | FailureClass::Unauthenticated
        | FailureClass::Malformed => Effect::Keep,
    }
}

/// `time * part`, at most `time` itself, which is also the answer to a part that is no number.
fn shortened(time: Duration, part: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * part).unwrap_or(time).min(time)
}

#[cfg(test)]
mod tests;
